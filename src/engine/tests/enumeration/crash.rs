//! Every crash of a moment: a kill, and power cuts under every rule of the disk. Each image is opened; that opening is
//! crashed everywhere in turn; and the store that is found is used, because a next owner does not only look.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use parking_lot::Mutex;
use xxhash_rust::xxh3::Xxh3;

use super::next_owner::recover;
use super::oracle::Known;
use super::run::{Moment, small_options};
use super::workload::Workload;
use crate::engine::disk::{Fate, Rules, SimDisk};

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
            let options = small_options(self.case.workload.durability, self.case.workload.start);
            let rest = recover(&disk, &moment.known, floor, &options);
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
        let options = small_options(case.workload.durability, case.workload.start);
        moments = recover(&disk, &moment.known, floor, &options);
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
