//! Every crash of a moment: a kill, and power cuts under every rule of the disk. Each image is opened; that opening is
//! crashed everywhere in turn; and the store that is found is used, because a next owner does not only look.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use commonhold_proto::{Durability, Seq};
use parking_lot::Mutex;
use xxhash_rust::xxh3::Xxh3;

use super::super::model::{Op, Wish};
use super::super::rig::{Rig, file};
use super::oracle::{Foreign, Known, ONE, OTHER, found};
use super::workload::{Moment, Workload, small_options, write};
use crate::engine::FlushHow;
use crate::engine::disk::{Fate, Rules, SimDisk};
use crate::engine::tests::rig::place;

/// The rules, and under how many seeds each is tried on what a workload and on what a recovery leaves.
const RULES: [(&str, Rules, u64, u64); 9] = [
    ("keep", Rules::KEEP_ALL, 1, 1),
    ("drop", Rules::DROP_ALL, 1, 1),
    ("ordered", Rules::ORDERED, 2, 1),
    ("torn", Rules::TEAR, 3, 1),
    ("sizes", Rules { data: Fate::Keep, sizes: Fate::Reorder, names: Fate::Keep }, 2, 1),
    ("zeros", Rules { data: Fate::Drop, sizes: Fate::Keep, names: Fate::Keep }, 1, 1),
    ("names", Rules { data: Fate::Keep, sizes: Fate::Keep, names: Fate::Reorder }, 3, 2),
    ("nameless", Rules { data: Fate::Keep, sizes: Fate::Keep, names: Fate::Drop }, 1, 1),
    ("reordered", Rules::REORDER_ALL, 3, 1),
];

/// What is lost at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// The process.
    Kill,
    /// Power: a rule, by its place among the [`RULES`], and a seed.
    Power(usize, u64),
}

/// One crash: at which moment of the workload, or of the opening after the crash before, and what was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Crash {
    moment: usize,
    loss: Loss,
}

/// A workload and the crashes after it: what a failure prints, as `fresh/synced/put@3:torn:7>1:kill`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Case {
    pub(super) workload: Workload,
    pub(super) crashes: Vec<Crash>,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.workload)?;
        for (index, crash) in self.crashes.iter().enumerate() {
            write!(f, "{}{}:", if index == 0 { '@' } else { '>' }, crash.moment)?;
            match crash.loss {
                Loss::Kill => f.write_str("kill")?,
                Loss::Power(rule, seed) => write!(f, "{}:{seed}", RULES[rule].0)?,
            }
        }
        Ok(())
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (workload, crashes) = text.split_once('@').unwrap_or((text, ""));
        let crash = |text: &str| {
            let mut parts = text.split(':');
            let moment = parts.next().and_then(|number| number.parse().ok());
            let loss = match (parts.next(), parts.next().map(str::parse)) {
                (Some("kill"), None) => Some(Loss::Kill),
                (Some(rule), Some(Ok(seed))) => {
                    RULES.iter().position(|known| known.0 == rule).map(|rule| Loss::Power(rule, seed))
                }
                _ => None,
            };
            Ok(Crash {
                moment: moment.ok_or_else(|| format!("{text:?} names no moment"))?,
                loss: loss.ok_or_else(|| format!("{text:?} is not MOMENT:kill or MOMENT:RULE:SEED"))?,
            })
        };
        let crashes = crashes.split('>').filter(|crash| !crash.is_empty()).map(crash);
        Ok(Self { workload: workload.parse()?, crashes: crashes.collect::<Result<_, String>>()? })
    }
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) workloads: u64,
    /// Moments at which a workload, or an opening after it, was crashed.
    pub(super) moments: u64,
    /// Disks that these crashes left.
    pub(super) images: u64,
    /// Those among them that differ, in what is on the disk or in what must be found, each opened and checked.
    pub(super) states: u64,
    /// Those of the states that a crashed opening left.
    pub(super) of_openings: u64,
}

impl Counts {
    pub(super) fn add(&mut self, other: Self) {
        self.workloads += other.workloads;
        self.moments += other.moments;
        self.images += other.images;
        self.states += other.states;
        self.of_openings += other.of_openings;
    }
}

/// The states that were checked already, by any thread.
pub(super) struct Seen([Mutex<HashSet<u128>>; 64]);

impl Seen {
    pub(super) fn new() -> Self {
        Self(std::array::from_fn(|_| Mutex::default()))
    }

    fn is_new(&self, state: u128) -> bool {
        self.0[state as usize % self.0.len()].lock().insert(state)
    }
}

/// One thread's way through the crashes.
pub(super) struct Crasher<'a> {
    seen: &'a Seen,
    seed: u64,
    pub(super) counts: Counts,
    /// What is being looked at.
    pub(super) case: Case,
}

impl<'a> Crasher<'a> {
    pub(super) fn new(seen: &'a Seen, seed: u64, workload: Workload) -> Self {
        Self { seen, seed, counts: Counts::default(), case: Case { workload, crashes: Vec::new() } }
    }

    /// Crashes the workload at every one of these moments.
    pub(super) fn crash_everywhere(&mut self, moments: &[Moment]) {
        self.counts.workloads += 1;
        self.crash_at(moments);
    }

    fn crash_at(&mut self, moments: &[Moment]) {
        for (number, moment) in moments.iter().enumerate() {
            self.counts.moments += 1;
            self.crash(number, moment);
        }
    }

    fn crash(&mut self, number: usize, moment: &Moment) {
        let is_opening = !self.case.crashes.is_empty();
        let mut alike = HashSet::new();
        let mut losses = vec![Loss::Kill];
        for (rule, (_, _, of_workload, of_opening)) in RULES.iter().enumerate() {
            let seeds = if is_opening { *of_opening } else { *of_workload };
            losses.extend((0..seeds).map(|seed| Loss::Power(rule, self.seed + seed)));
        }
        for loss in losses {
            self.counts.images += 1;
            let (disk, floor) = lose(moment, loss);
            let image = disk.fingerprint(without_numbers);
            // What a kill leaves comes first, and more must be found in it.
            if !alike.insert(image) || !self.seen.is_new(state(image, &moment.known, floor)) {
                continue;
            }
            self.counts.states += 1;
            self.counts.of_openings += u64::from(is_opening);
            self.case.crashes.push(Crash { moment: number, loss });
            let rest = recover(&disk, &moment.known, floor, &self.case);
            if !is_opening {
                self.crash_at(&rest);
            }
            self.case.crashes.pop();
        }
    }
}

/// Does what a case says, and no more.
pub(super) fn replay(case: &Case, mut moments: Vec<Moment>) {
    for crash in &case.crashes {
        let moment = moments.get(crash.moment).expect("the workload has such a moment");
        let (disk, floor) = lose(moment, crash.loss);
        println!("moment {} of {}, {:?}:", crash.moment, moments.len(), crash.loss);
        for path in disk.all_files() {
            println!("    {} of {} bytes", path.display(), disk.read_file(&path).len());
        }
        println!("{:#?}", moment.known);
        moments = recover(&disk, &moment.known, floor, case);
    }
}

/// What the next owner finds, and the oldest state that he may find.
fn lose(moment: &Moment, loss: Loss) -> (SimDisk, usize) {
    match loss {
        Loss::Kill => (moment.disk.kill(), moment.known.written),
        Loss::Power(rule, seed) => (moment.disk.power_cut(seed, RULES[rule].1), moment.known.platter),
    }
}

/// Temporaries are numbered through the life of a process, so two of them may differ in nothing else.
fn without_numbers(name: &OsStr) -> &OsStr {
    match name.to_str().and_then(|name| name.split_once(".tmp.")) {
        Some((stem, _)) => OsStr::new(stem),
        None => name,
    }
}

fn state(image: u128, known: &Known, floor: usize) -> u128 {
    let mut sum = Xxh3::new();
    image.hash(&mut sum);
    known.states[floor..].hash(&mut sum);
    (&known.in_flight, known.greatest, &known.foreign, &known.kept).hash(&mut sum);
    (known.covered.saturating_sub(floor), known.waits_at_start).hash(&mut sum);
    let low = sum.finish();
    (u128::from(low) << 64) | (image & u128::from(u64::MAX))
}

/// Opens what a crash has left, checks it, uses it, and gives the moments of the opening.
fn recover(disk: &SimDisk, known: &Arc<Known>, floor: usize, case: &Case) -> Vec<Moment> {
    let options = small_options(case.workload.durability, case.workload.start);
    known.check_files(disk);
    let mut rig = Rig::on(disk.clone(), options.clone());
    rig.disk.film();
    rig.try_open().unwrap_or_else(|error| panic!("the store does not open after a crash: {error:?}"));
    let what = found(&rig);
    let frames = rig.disk.take_film();
    // Until the opening is through, nobody was promised more than before.
    let meanwhile = Arc::new(Known { written: floor, platter: floor.min(known.platter), ..(**known).clone() });
    let mut after = (**known).clone();
    after.survived(&what, floor);
    let mut moments: Vec<Moment> =
        frames.into_iter().map(|frame| Moment { disk: frame.disk, known: Arc::clone(&meanwhile) }).collect();
    let after = Arc::new(after);
    moments.push(Moment { disk: rig.disk.kill(), known: Arc::clone(&after) });
    after.check_files(&rig.disk);
    if what.one.is_none() {
        rig.close();
        rig = heal(rig, known, floor, after.foreign.as_ref().expect("a closed namespace has another program's file"));
    }
    go_on(rig, after.greatest);
    moments
}

/// Puts the file back that the store knows: then everything must be there.
fn heal(rig: Rig, known: &Known, floor: usize, foreign: &Foreign) -> Rig {
    match &foreign.right {
        Some(right) => rig.disk.write_file(file(ONE), right),
        None => rig.disk.remove_path(file(ONE)),
    }
    let rig = rig.opened();
    let what = found(&rig);
    let mut known = Known { foreign: None, ..known.clone() };
    assert!(what.one.is_some(), "closed with the right file: {:?}", rig.store().opening().closed);
    known.survived(&what, floor);
    rig
}

/// Writes to both namespaces and flushes; what the owner after that finds is what was written, in journal and files.
fn go_on(rig: Rig, greatest: Seq) {
    assert!(rig.store().opening().last >= greatest, "Seqs were forgotten");
    let put = |name| Op::Put(name, "last".to_owned(), "{\"last\":1}".to_owned(), Wish::Always);
    let number = 1_000_000 + u64::from(rig.options.durability == Durability::Synced);
    let written = write(&rig, number, &[put(ONE), put(OTHER)]).expect("the next owner can write");
    assert!(written.seq > greatest, "a Seq was given twice");
    for name in [ONE, OTHER] {
        rig.store().flush(&place(name), FlushHow::default()).expect("the next owner can flush");
        assert_eq!(rig.in_file(name), rig.all(name), "the file is the state at the cut");
    }
    let expected = found(&rig);
    let rig = rig.killed();
    let what = found(&rig);
    assert_eq!((&what.one, &what.other), (&expected.one, &expected.other), "the owner after that finds something else");
    assert!(rig.store().opening().recovered.is_empty(), "the files hold everything");
}
