//! What is done while calls fail: every part of a store's life that touches the disk.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use commonhold_proto::Durability;

use super::super::enumeration::run::{Beginnings, Run};
use super::super::enumeration::workload::{Letter, Start, Workload};
use crate::engine::Error;
use crate::engine::disk::{Call, FailWith, Failure};

/// When calls begin to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Since {
    /// Before the store is opened.
    Opening,
    /// When it is open.
    Serving,
    /// When the journal has failed, before what is in memory is brought to safety; after that, the letters.
    Rescue,
}

/// A part of a store's life.
#[derive(Debug)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    start: Start,
    /// What was done before by an owner that was killed, if anything.
    before: &'static [Letter],
    pub(super) since: Since,
    letters: &'static [Letter],
}

use Letter::{
    Clear, Commit, Delete, Drop, Flush, FlushOther, Foreign, Increment, Merge, Put, PutMany, Restart, Second, Segment,
};

pub(super) const SCENARIOS: [Scenario; 13] = [
    Scenario { name: "open-fresh", start: Start::Fresh, before: &[], since: Since::Opening, letters: &[Put, Commit] },
    Scenario { name: "open", start: Start::Lived, before: &[], since: Since::Opening, letters: &[Put, Commit] },
    Scenario {
        name: "open-segments",
        start: Start::Lived,
        before: &[Segment, Flush, Segment],
        since: Since::Opening,
        letters: &[PutMany, Commit],
    },
    Scenario {
        name: "open-quarantine",
        start: Start::Lived,
        before: &[Put, Commit, Foreign],
        since: Since::Opening,
        letters: &[FlushOther, Commit],
    },
    Scenario {
        name: "write",
        start: Start::Fresh,
        before: &[],
        since: Since::Serving,
        letters: &[Put, PutMany, Merge, Increment, Delete, Clear, Put, Commit],
    },
    Scenario {
        name: "segments",
        start: Start::Lived,
        before: &[],
        since: Since::Serving,
        letters: &[Segment, PutMany, Segment, Commit],
    },
    Scenario {
        name: "flush",
        start: Start::Fresh,
        before: &[],
        since: Since::Serving,
        letters: &[PutMany, Flush, FlushOther, Second],
    },
    Scenario {
        name: "flush-again",
        start: Start::Lived,
        before: &[],
        since: Since::Serving,
        letters: &[Put, Flush, PutMany, Flush, Put],
    },
    Scenario {
        name: "foreign",
        start: Start::Lived,
        before: &[],
        since: Since::Serving,
        letters: &[Put, Foreign, Flush, Put, Flush],
    },
    Scenario {
        name: "drop",
        start: Start::Lived,
        before: &[],
        since: Since::Serving,
        letters: &[Drop, Flush, Put, Flush],
    },
    Scenario {
        name: "release",
        start: Start::Lived,
        before: &[],
        since: Since::Serving,
        letters: &[Segment, Flush, FlushOther, Second, Second],
    },
    Scenario {
        name: "stop",
        start: Start::Lived,
        before: &[],
        since: Since::Serving,
        letters: &[PutMany, Commit, Flush, FlushOther, Restart, Put],
    },
    Scenario { name: "rescue", start: Start::Lived, before: &[], since: Since::Rescue, letters: &[Put] },
];

/// Which call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// The n-th of the disk, from 1.
    Disk(u64),
    /// The n-th of the lock files.
    Lock(u64),
}

/// How it fails, as it is written and as the disk and the locks do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) word: &'static str,
    with: FailWith,
    os_error: i32,
}

pub(super) const KINDS: [Kind; 5] = [
    Kind { word: "eio", with: FailWith::Io, os_error: libc::EIO },
    Kind { word: "enospc", with: FailWith::NoSpace, os_error: libc::ENOSPC },
    Kind { word: "edquot", with: FailWith::Quota, os_error: libc::EDQUOT },
    Kind { word: "eintr", with: FailWith::Interrupted, os_error: libc::EINTR },
    Kind { word: "short", with: FailWith::ShortWrite, os_error: libc::ENOSPC },
];

/// One failure in one scenario. Its text is what a failed test prints.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    pub(super) scenario: &'static Scenario,
    pub(super) durability: Durability,
    pub(super) which: Which,
    pub(super) kind: Kind,
    pub(super) for_good: bool,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (room, number) = match self.which {
            Which::Disk(number) => ("disk", number),
            Which::Lock(number) => ("lock", number),
        };
        let lasts = if self.for_good { "for-good" } else { "once" };
        write!(f, "{}/{:?}/{room}-{number}/{}/{lasts}", self.scenario.name, self.durability, self.kind.word)
    }
}

/// The calls of a scenario that nothing fails in.
pub(super) struct Calls {
    pub(super) disk: Vec<(Call, String)>,
    pub(super) locks: u64,
    /// Which of the disk's, from 0, were made in openings.
    pub(super) openings: Vec<Range<u64>>,
}

impl Scenario {
    /// Everything up to the moment at which calls may fail.
    fn prepare(&self, beginnings: &Beginnings, durability: Durability) -> Run {
        let letters = self.before.to_vec();
        let mut run = beginnings.of(&Workload { start: self.start, durability, letters });
        if !self.before.is_empty() || self.since != Since::Opening {
            run.open();
        }
        for letter in self.before {
            run.act(*letter);
        }
        if self.since == Since::Opening && run.rig.is_open() {
            run.rig.close();
        }
        if self.since == Since::Rescue {
            run.act(PutMany);
            run.expect_failures();
            run.rig.disk.fail(Failure::nth(1, FailWith::Io).of(Call::Sync).on("journal"));
            run.act(Put);
            run.act(Commit);
            run.rig.disk.mend();
            assert!(run.rig.store().needs_rescue());
        }
        run.expect_failures();
        run
    }

    fn act(&self, run: &mut Run) {
        if self.since == Since::Opening {
            run.open();
        }
        if self.since == Since::Rescue {
            run.rig.store().rescue(Duration::ZERO);
        }
        for letter in self.letters {
            run.act(*letter);
        }
    }

    /// Its calls, when nothing fails.
    pub(super) fn calls(&self, beginnings: &Beginnings, durability: Durability) -> Calls {
        let mut run = self.prepare(beginnings, durability);
        let locks = run.rig.lock_failures.calls();
        run.rig.disk.trace();
        let before = run.rig.disk.calls().total();
        run.openings.clear();
        self.act(&mut run);
        assert!(self.since == Since::Rescue || run.refused().is_empty(), "{}: {:?}", self.name, run.refused());
        let disk = run.rig.disk.take_trace().into_iter().map(|(call, path)| (call, path.display().to_string()));
        let openings = run.openings.iter().map(|calls| calls.start - before..calls.end - before).collect();
        Calls { disk: disk.collect(), locks: run.rig.lock_failures.calls() - locks, openings }
    }
}

impl Fault {
    /// Runs its scenario, with the failure.
    pub(super) fn run(&self, beginnings: &Beginnings) -> Run {
        let mut run = self.scenario.prepare(beginnings, self.durability);
        match self.which {
            Which::Disk(number) => {
                let failure = Failure::nth(number, self.kind.with).of_any();
                run.rig.disk.fail(if self.for_good { failure.for_good() } else { failure });
            }
            Which::Lock(number) => run.rig.lock_failures.fail(number, self.kind.os_error, self.for_good),
        }
        self.scenario.act(&mut run);
        run
    }
}

/// Whether an error tells what failed, where, and what to do.
pub(super) fn tells_what_to_do(error: &Error) -> bool {
    const REMEDIES: [&str; 7] = [
        "free some space and repeat it",
        "try again",
        "open the store anew when the cause is mended",
        "read the record",
        "with the daemon stopped, `commonhold check` tells how to repair it",
        "flush again when it is done",
        "stop that one first",
    ];
    let text = error.to_string();
    text.contains("/store") && REMEDIES.iter().any(|remedy| text.contains(remedy))
}
