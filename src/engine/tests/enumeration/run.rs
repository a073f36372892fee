//! Running a workload, letter by letter, while it is known what must be there.
//!
//! It is run once, on a disk that takes a frame before every call that changes something. Each frame is labelled
//! with what was known at that moment: only those of the last letter, because what a crash finds in an earlier one is
//! what it finds at the end of a shorter workload.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use commonhold_proto::{Condition, Durability, Number};

use super::super::model::{Change, Op, State, Wish, step};
use super::super::rig::{DIR, Rig, file, options, place};
use super::oracle::{Foreign, Known, ONE, OTHER, found, is_closed};
use super::workload::{DURABILITIES, Letter, Start, Workload};
use crate::engine::disk::{Frame, SimDisk};
use crate::engine::{Error, FlushHow, StoreOptions, WriteRequest, Written};

/// A moment at which the owner may die, and what is known then.
pub(in crate::engine::tests) struct Moment {
    pub(in crate::engine::tests) disk: SimDisk,
    pub(in crate::engine::tests) known: Arc<Known>,
}

/// The options of an owner, small enough that everything happens within three letters.
pub(in crate::engine::tests) fn small_options(durability: Durability, start: Start) -> StoreOptions {
    let mut options = options(durability);
    options.segment_bytes = SEGMENT_BYTES;
    options.keep = 1;
    options.room_bytes = if start == Start::Lived { 1024 } else { 0 };
    options
}

const SEGMENT_BYTES: u64 = 3_000;
const CLIENT: u128 = 11;

/// Lived stores to begin with, one for each durability.
pub(in crate::engine::tests) struct Beginnings(Vec<(Durability, SimDisk, Known)>);

impl Beginnings {
    pub(in crate::engine::tests) fn new() -> Self {
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

    /// A workload that nothing was done of yet.
    pub(in crate::engine::tests) fn of(&self, workload: &Workload) -> Run {
        let mut run = Run::new(workload);
        if workload.start == Start::Lived {
            let (_, disk, known) = self.0.iter().find(|(durability, ..)| *durability == workload.durability).unwrap();
            run.rig = Rig::on(disk.kill(), small_options(workload.durability, workload.start));
            run.known = known.clone();
        }
        run
    }

    /// Runs a workload, and gives every moment of its last letter and the one after it.
    pub(in crate::engine::tests) fn moments(&self, workload: &Workload) -> Vec<Moment> {
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
pub(in crate::engine::tests) struct Run {
    pub(in crate::engine::tests) rig: Rig,
    pub(in crate::engine::tests) known: Known,
    durability: Durability,
    /// For each frame, what was known when it was taken.
    labels: Vec<Arc<Known>>,
    /// Requests are numbered, and no two write the same value.
    number: u64,
    /// What was refused, where calls may fail; elsewhere nothing may be.
    refused: Option<Vec<Error>>,
    /// Since a start that did not come through nobody knows what there is.
    is_lost: bool,
    /// Which calls of the disk, counted from its making, were made in openings.
    pub(in crate::engine::tests) openings: Vec<Range<u64>>,
}

impl Run {
    fn new(workload: &Workload) -> Self {
        let nothing: State = [ONE, OTHER].into_iter().map(|name| (name, Vec::new())).collect();
        let rig = Rig::new(small_options(workload.durability, workload.start));
        Self {
            rig,
            known: Known::begin(nothing),
            durability: workload.durability,
            labels: Vec::new(),
            number: 0,
            refused: None,
            is_lost: false,
            openings: Vec::new(),
        }
    }

    /// From now on calls may fail.
    pub(in crate::engine::tests) fn expect_failures(&mut self) {
        self.refused = Some(Vec::new());
    }

    /// What was refused since.
    pub(in crate::engine::tests) fn refused(&self) -> &[Error] {
        self.refused.as_deref().unwrap_or_default()
    }

    /// Whether it is still known what there is.
    pub(in crate::engine::tests) fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// What there is has been seen after all.
    pub(in crate::engine::tests) fn is_found(&mut self) {
        self.is_lost = false;
    }

    /// What was asked was not done, or, where the outcome is unknown, led to `next`.
    fn failed(&mut self, what: &str, error: Error, next: Option<State>) {
        let Some(refused) = &mut self.refused else { panic!("{what}: {error:?}") };
        if matches!(error, Error::OutcomeUnknown { .. }) && next.is_some() {
            assert!(self.known.in_flight.is_none(), "writing goes on after an unknown outcome");
            self.known.in_flight = next;
        }
        refused.push(error);
    }

    fn film(&self) {
        self.rig.disk.film();
    }

    fn into_moments(mut self) -> Vec<Moment> {
        let last = Moment { disk: self.rig.disk.kill(), known: Arc::new(self.known) };
        self.rig.close();
        let frames = self.rig.disk.take_film();
        assert_eq!(frames.len(), self.labels.len(), "every frame has its label");
        let moment = |(frame, known): (Frame, Arc<Known>)| Moment { disk: frame.disk, known };
        frames.into_iter().zip(self.labels).map(moment).chain([last]).collect()
    }

    /// Does what the letter says; nothing after a start that failed.
    pub(in crate::engine::tests) fn act(&mut self, letter: Letter) {
        if self.is_lost {
            return;
        }
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
            Err(error) => self.failed("a request", error, Some(next)),
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
            Err(error) => self.failed("a drop", error, Some(next)),
        }
    }

    fn commit(&mut self) {
        match self.labelled(None, |run| run.rig.commit()) {
            Ok(_) => self.known.reached(Durability::Synced),
            Err(error) => self.failed("a commit", error, None),
        }
    }

    fn second(&mut self) {
        match self.labelled(None, |run| run.rig.store().tick()) {
            Ok(()) => self.known.reached(Durability::Synced),
            Err(error) => self.failed("a second", error, None),
        }
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
            Err(error) => self.failed("a flush", error, None),
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

    /// Opens the store, and sees that everything is there.
    pub(in crate::engine::tests) fn open(&mut self) {
        let before = self.rig.disk.calls().total();
        let opened = self.labelled(None, |run| run.rig.try_open());
        self.openings.push(before..self.rig.disk.calls().total());
        if let Err(error) = opened {
            self.is_lost = true;
            return self.failed("an opening", error, None);
        }
        let lock = owner_lock();
        if !self.rig.disk.exists(&lock) {
            // The locks of this test are not files; what the lock file tells the next owner is.
            let holder = format!("{{\"pid\":{},\"since_unix_ms\":1}}\n", std::process::id());
            self.rig.disk.write_file(lock, holder.as_bytes());
        }
        // Loaded now, so that it is known which file each has begun with.
        match self.labelled(None, |run| found(&run.rig)) {
            Ok(found) => self.known.survived(&found, self.known.written),
            Err(error) => {
                self.is_lost = true;
                self.failed("a load", error, None);
            }
        }
    }

    /// The owner dies, and another opens the store.
    pub(in crate::engine::tests) fn restart(&mut self) {
        self.rig.close();
        self.open();
    }
}

fn owner_lock() -> PathBuf {
    Path::new(DIR).join(".commonhold/owner.lock")
}

/// One request of these operations.
pub(in crate::engine::tests) fn write(rig: &Rig, number: u64, ops: &[Op]) -> Result<Written, Error> {
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
