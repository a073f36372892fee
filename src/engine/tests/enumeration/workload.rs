//! The workloads: words of at most three letters, each letter one thing that a store does or that is done to it.
//!
//! A workload is run once, on a disk that takes a frame before every call that changes something. Each frame is labelled
//! with what was known at that moment: only those of the last letter, because what a crash finds in an earlier one is
//! what it finds at the end of a shorter workload.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use commonhold_proto::{Condition, Durability, Number};

use super::super::model::{Change, Op, State, Wish, step};
use super::super::rig::{DIR, Rig, file, options, place};
use super::oracle::{Foreign, Known, ONE, OTHER, found, is_closed};
use crate::engine::disk::SimDisk;
use crate::engine::{Error, FlushHow, WriteRequest, Written};

/// One thing that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Letter {
    Put,
    /// Over two namespaces, and longer than two sectors of the disk.
    PutMany,
    Delete,
    Clear,
    Merge,
    Increment,
    Drop,
    Commit,
    Flush,
    /// Of the other namespace, which lies in a workspace.
    FlushOther,
    /// A put that fills the journal's segment, and one that begins the next.
    Segment,
    /// Another program replaces a namespace's file.
    Foreign,
    /// The owner dies and the next one opens the store, while the system goes on.
    Restart,
    /// What an owner does every second.
    Second,
}

impl Letter {
    const ALL: [(Self, &str); 14] = [
        (Self::Put, "put"),
        (Self::PutMany, "put-many"),
        (Self::Delete, "delete"),
        (Self::Clear, "clear"),
        (Self::Merge, "merge"),
        (Self::Increment, "increment"),
        (Self::Drop, "drop"),
        (Self::Commit, "commit"),
        (Self::Flush, "flush"),
        (Self::FlushOther, "flush-other"),
        (Self::Segment, "segment"),
        (Self::Foreign, "foreign"),
        (Self::Restart, "restart"),
        (Self::Second, "second"),
    ];
}

/// What a workload begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// An empty directory.
    Fresh,
    /// A store with two flushed namespaces, kept generations, and writes that no file holds yet.
    Lived,
}

/// What is run. Its text, as `lived/buffered/put,flush,drop`, is read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Workload {
    pub(super) start: Start,
    pub(super) durability: Durability,
    pub(super) letters: Vec<Letter>,
}

const STARTS: [(Start, &str); 2] = [(Start::Fresh, "fresh"), (Start::Lived, "lived")];
const DURABILITIES: [(Durability, &str); 3] =
    [(Durability::Memory, "memory"), (Durability::Buffered, "buffered"), (Durability::Synced, "synced")];

/// Most letters in a workload.
const LETTERS: usize = 3;

impl Workload {
    /// Every workload of up to three letters, at each durability, from each start.
    pub(super) fn all() -> Vec<Self> {
        let mut words: Vec<Vec<Letter>> = vec![Vec::new()];
        let mut last = words.clone();
        for _ in 0..LETTERS {
            let longer = |word: &Vec<Letter>| {
                Letter::ALL.map(|(letter, _)| word.iter().copied().chain([letter]).collect::<Vec<_>>())
            };
            last = last.iter().flat_map(longer).collect();
            words.extend(last.iter().cloned());
        }
        let each = |word: Vec<Letter>| {
            STARTS.into_iter().flat_map(move |(start, _)| {
                let word = word.clone();
                DURABILITIES.map(|(durability, _)| Self { start, durability, letters: word.clone() })
            })
        };
        words.into_iter().flat_map(each).collect()
    }
}

fn word_of<T: PartialEq + Copy>(words: &[(T, &'static str)], wanted: T) -> &'static str {
    words.iter().find(|(known, _)| *known == wanted).expect("everything has a word").1
}

fn of_word<T: Copy>(words: &[(T, &str)], wanted: &str) -> Result<T, String> {
    let found = words.iter().find(|(_, word)| *word == wanted).map(|(known, _)| *known);
    found.ok_or_else(|| format!("{wanted:?} is no word of a workload"))
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters: Vec<_> = self.letters.iter().map(|letter| word_of(&Letter::ALL, *letter)).collect();
        write!(f, "{}/{}/{}", word_of(&STARTS, self.start), word_of(&DURABILITIES, self.durability), letters.join(","))
    }
}

impl FromStr for Workload {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<_> = text.split('/').collect();
        let [start, durability, letters] = parts[..] else {
            return Err(format!("{text:?} is not START/DURABILITY/LETTER,LETTER"));
        };
        let letters = letters.split(',').filter(|word| !word.is_empty()).map(|word| of_word(&Letter::ALL, word));
        Ok(Self {
            start: of_word(&STARTS, start)?,
            durability: of_word(&DURABILITIES, durability)?,
            letters: letters.collect::<Result<_, _>>()?,
        })
    }
}

/// A moment at which the owner may die, and what is known then.
pub(super) struct Moment {
    pub(super) disk: SimDisk,
    pub(super) known: Arc<Known>,
}

/// The options of an owner, small enough that everything happens within three letters.
pub(super) fn small_options(durability: Durability, start: Start) -> crate::engine::StoreOptions {
    let mut options = options(durability);
    options.segment_bytes = SEGMENT_BYTES;
    options.keep = 1;
    options.room_bytes = if start == Start::Lived { 1024 } else { 0 };
    options
}

const SEGMENT_BYTES: u64 = 3_000;
const CLIENT: u128 = 11;

/// Lived stores to begin with, one for each durability.
pub(super) struct Beginnings(Vec<(Durability, SimDisk, Known)>);

impl Beginnings {
    pub(super) fn new() -> Self {
        let lived = |(durability, _)| {
            let mut run = Run::new(&Workload { start: Start::Fresh, durability, letters: Vec::new() });
            run.rig.options = small_options(durability, Start::Lived);
            run.open();
            run.put_many();
            run.put(ONE, "k");
            run.flush(ONE);
            run.put(ONE, "k");
            run.put(ONE, "k5");
            run.flush(ONE);
            run.flush(OTHER);
            run.restart();
            run.put(ONE, "k6");
            run.put(OTHER, "k6");
            run.commit();
            run.rig.close();
            let files = [ONE, OTHER].map(|name| run.known.states.iter().map(|state| state[name].clone()).collect());
            let mut known = Known::begin(run.known.current().clone());
            known.greatest = run.known.greatest;
            known.earlier = files;
            // The writes since the flush.
            known.covered = 0;
            known.waits_at_start = true;
            (durability, run.rig.disk, known)
        };
        Self(DURABILITIES.map(lived).into())
    }

    fn of(&self, workload: &Workload) -> Run {
        let mut run = Run::new(workload);
        if workload.start == Start::Lived {
            let (_, disk, known) = self.0.iter().find(|(durability, ..)| *durability == workload.durability).unwrap();
            run.rig = Rig::on(disk.kill(), small_options(workload.durability, workload.start));
            run.known = known.clone();
        }
        run
    }

    /// Runs a workload, and gives every moment of its last letter and the one after it.
    pub(super) fn moments(&self, workload: &Workload) -> Vec<Moment> {
        let mut run = self.of(workload);
        match workload.letters.split_last() {
            None => {
                run.film();
                run.open();
            }
            Some((last, before)) => {
                run.open();
                for letter in before {
                    run.act(*letter);
                }
                run.film();
                run.act(*last);
            }
        }
        run.into_moments()
    }
}

/// A workload that is being run.
struct Run {
    rig: Rig,
    known: Known,
    durability: Durability,
    /// For each frame, what was known when it was taken.
    labels: Vec<Arc<Known>>,
    /// Requests are numbered, and no two write the same value.
    number: u64,
}

impl Run {
    fn new(workload: &Workload) -> Self {
        let nothing: State = [ONE, OTHER].into_iter().map(|name| (name, Vec::new())).collect();
        let rig = Rig::new(small_options(workload.durability, workload.start));
        Self { rig, known: Known::begin(nothing), durability: workload.durability, labels: Vec::new(), number: 0 }
    }

    fn film(&self) {
        self.rig.disk.film();
    }

    fn into_moments(mut self) -> Vec<Moment> {
        let last = Moment { disk: self.rig.disk.kill(), known: Arc::new(self.known) };
        self.rig.close();
        let frames = self.rig.disk.take_film();
        assert_eq!(frames.len(), self.labels.len(), "every frame has its label");
        let moment = |(frame, known): (crate::engine::disk::Frame, Arc<Known>)| Moment { disk: frame.disk, known };
        frames.into_iter().zip(self.labels).map(moment).chain([last]).collect()
    }

    fn act(&mut self, letter: Letter) {
        match letter {
            Letter::Put => self.put(ONE, "k"),
            Letter::PutMany => self.put_many(),
            Letter::Delete => self.request(&[Op::Delete(ONE, "k".to_owned(), Wish::Always)]),
            Letter::Clear => self.request(&[Op::Clear(ONE)]),
            Letter::Merge => {
                let change = Change::Merge(self.number);
                self.request(&[Op::Change(ONE, "k".to_owned(), change, Wish::Always)]);
            }
            Letter::Increment => {
                self.request(&[Op::Change(ONE, "k".to_owned(), Change::Increment(7), Wish::Always)]);
            }
            Letter::Drop => self.drop_records(),
            Letter::Commit => self.commit(),
            Letter::Flush => self.flush(ONE),
            Letter::FlushOther => self.flush(OTHER),
            Letter::Segment => {
                let padding = "p".repeat(SEGMENT_BYTES as usize);
                self.request(&[Op::Put(ONE, "long".to_owned(), format!("\"{padding}\""), Wish::Always)]);
                self.put(ONE, "next");
            }
            Letter::Foreign => self.foreign_edit(),
            Letter::Restart => self.restart(),
            Letter::Second => self.second(),
        }
    }

    /// Does something, and labels the frames that are taken meanwhile.
    fn labelled<T>(&mut self, in_flight: Option<State>, act: impl FnOnce(&mut Self) -> T) -> T {
        let meanwhile = Arc::new(Known { in_flight, ..self.known.clone() });
        let done = act(self);
        self.labels.resize(self.rig.disk.filmed(), meanwhile);
        done
    }

    fn put(&mut self, name: &'static str, key: &str) {
        let value = format!("{{\"n\":{}}}", self.number);
        self.request(&[Op::Put(name, key.to_owned(), value, Wish::Always)]);
    }

    fn put_many(&mut self) {
        let put = |name, key: &str| {
            let value = format!("{{\"n\":{},\"p\":\"{}\"}}", self.number, "x".repeat(300));
            Op::Put(name, key.to_owned(), value, Wish::Always)
        };
        self.request(&[put(ONE, "k"), put(OTHER, "k"), put(ONE, "k2"), put(OTHER, "k2")]);
    }

    fn request(&mut self, ops: &[Op]) {
        let (next, new, found) = step(self.known.current(), ops).expect("a request without conditions is done");
        self.number += 1;
        let number = self.number;
        match self.labelled(Some(next.clone()), |run| write(&run.rig, number, ops)) {
            Ok(written) => {
                assert_eq!((written.new, written.found), (new, found));
                assert!(written.seq > self.known.greatest, "a Seq was given twice, or out of order");
                self.known.greatest = written.seq;
                self.known.acknowledged(next, self.durability);
            }
            Err(Error::NeedsRepair { .. }) if is_closed(&self.rig, ONE) => {}
            Err(error) => panic!("{ops:?}: {error:?}"),
        }
    }

    fn drop_records(&mut self) {
        let mut next = self.known.current().clone();
        next.insert(ONE, Vec::new());
        match self.labelled(Some(next.clone()), |run| run.rig.drop_records(ONE)) {
            Ok(dropped) if dropped.needs_flush => {
                assert!(dropped.seq > self.known.greatest, "a Seq was given twice, or out of order");
                self.known.greatest = dropped.seq;
                // It is handed to the operating system at once, whatever the store promises.
                self.known.acknowledged(next, self.durability.max(Durability::Buffered));
            }
            Ok(_) => assert!(self.known.current()[ONE].is_empty()),
            Err(Error::NeedsRepair { .. }) if is_closed(&self.rig, ONE) => {}
            Err(error) => panic!("drop: {error:?}"),
        }
    }

    fn commit(&mut self) {
        self.labelled(None, |run| run.rig.commit()).expect("a commit is done");
        self.known.reached(Durability::Synced);
    }

    fn second(&mut self) {
        self.labelled(None, |run| run.rig.store().tick()).expect("the second's work is done");
        self.known.reached(Durability::Synced);
    }

    fn flush(&mut self, name: &'static str) {
        match self.labelled(None, |run| run.rig.store().flush(&place(name), FlushHow::default())) {
            Ok(flushed) if flushed.rewritten => {
                self.known.reached(Durability::Synced);
                if name == ONE {
                    self.known.flushed();
                }
            }
            Ok(_) => {}
            Err(Error::NeedsRepair { .. }) if is_closed(&self.rig, name) => assert_eq!(name, ONE),
            Err(error) => panic!("flush of {name}: {error:?}"),
        }
    }

    fn foreign_edit(&mut self) {
        self.number += 1;
        let bytes = format!("{{\"k\": {{\"n\": -{0}}}, \"theirs\": {0}}}", self.number).into_bytes();
        let records = vec![
            ("k".to_owned(), format!("{{\"n\":-{}}}", self.number)),
            ("theirs".to_owned(), self.number.to_string()),
        ];
        let path = file(ONE);
        let there = self.rig.disk.exists(&path).then(|| self.rig.disk.read_file(&path));
        let right = match self.known.foreign.take() {
            // The other program replaces its own file; the store still knows the one before.
            Some(foreign) if there.as_ref() == Some(&foreign.bytes) => foreign.right,
            _ => there.clone(),
        };
        if there.is_some() {
            self.rig.disk.remove_path(&path); // it writes a new file, as careful programs do
        }
        self.rig.disk.write_file(&path, &bytes);
        self.known.foreign = Some(Foreign { bytes, records, right });
    }

    fn open(&mut self) {
        self.labelled(None, |run| run.rig.try_open()).expect("the store opens");
        let lock = owner_lock();
        if !self.rig.disk.exists(&lock) {
            // The locks of this test are not files; what the lock file tells the next owner is.
            let holder = format!("{{\"pid\":{},\"since_unix_ms\":1}}\n", std::process::id());
            self.rig.disk.write_file(lock, holder.as_bytes());
        }
        // Loaded now, so that it is known which file each has begun with.
        let found = self.labelled(None, |run| found(&run.rig));
        self.known.survived(&found, self.known.written);
    }

    fn restart(&mut self) {
        self.rig.close();
        self.open();
    }
}

fn owner_lock() -> PathBuf {
    Path::new(DIR).join(".commonhold/owner.lock")
}

/// One request of these operations.
pub(super) fn write(rig: &Rig, number: u64, ops: &[Op]) -> Result<Written, Error> {
    let mut request = WriteRequest::new(CLIENT, number);
    for op in ops {
        let (Op::Put(name, ..) | Op::Delete(name, ..) | Op::Clear(name) | Op::Change(name, ..)) = op;
        let table = rig.store().namespace(&place(name))?;
        match op {
            Op::Put(_, key, value, _) => request.put(&table, key, value, Condition::Always)?,
            Op::Delete(_, key, _) => request.delete(&table, key, Condition::Always)?,
            Op::Clear(_) => request.clear(&table)?,
            Op::Change(_, key, Change::Merge(value), _) => {
                request.merge(&table, key, &format!("{{\"m\":{value}}}"), Condition::Always)?;
            }
            Op::Change(_, key, Change::Increment(by), _) => {
                request.increment(&table, key, "n", Number::Int(*by), Condition::Always)?;
            }
            Op::Change(_, _, Change::Append(_), _) => unreachable!("no letter appends"),
        }
    }
    rig.store().write(vec![request]).pop().expect("one request, one result")
}
