//! Every call fails once: each call that a scenario makes of the disk and of the lock files, with each error, once and for
//! good. After that nothing acknowledged is lost, no request is there in part, files are whole, the error says what to do,
//! and where the disk recovers, so does the store, in place; unless a sync has failed.
//!
//! `COMMONHOLD_FAULTS_SHARE=N` does one fault of N, chosen by `COMMONHOLD_FAULTS_SEED`; 1 is all of them. A failure prints
//! its fault; `COMMONHOLD_FAULTS_CASE=…` does that one alone.

mod locks;
mod scenario;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

pub(super) use locks::LockFailures;
use parking_lot::Mutex;
use scenario::{Calls, Fault, KINDS, SCENARIOS, Since, Which, tells_what_to_do};

use super::enumeration::next_owner::recover;
use super::enumeration::oracle::{Known, ONE, OTHER, found, is_closed};
use super::enumeration::run::{Beginnings, Run};
use super::enumeration::setting;
use super::enumeration::workload::{DURABILITIES, Letter};
use super::rig::contents;
use super::rig::place;
use crate::engine::disk::{Call, Rules};
use crate::engine::{Error, StoreOptions};

/// One fault of so many is tried when nothing else is asked for: some seconds.
const SHARE: u64 = 25;

/// A fault, and what its call is.
struct Trial {
    fault: Fault,
    call: Option<(Call, String)>,
    /// The store was open when it came, and nobody has opened it anew since.
    is_serving: bool,
}

/// Every fault of every scenario.
fn trials(beginnings: &Beginnings) -> (Vec<Trial>, u64) {
    let (mut all, mut calls) = (Vec::new(), 0);
    for scenario in &SCENARIOS {
        for (durability, _) in DURABILITIES {
            let Calls { disk, locks, openings } = scenario.calls(beginnings, durability);
            calls += disk.len() as u64 + locks;
            let of_disk = disk.into_iter().zip(1..).map(|(call, number)| (Which::Disk(number), Some(call)));
            let of_locks = (1..=locks).map(|number| (Which::Lock(number), None));
            for (which, call) in of_disk.chain(of_locks) {
                for kind in KINDS {
                    if kind.word == "short" && call.as_ref().is_none_or(|(call, _)| *call != Call::Write) {
                        continue;
                    }
                    for for_good in [false, true] {
                        let is_serving = match which {
                            Which::Disk(number) => openings.iter().all(|calls| number > calls.end),
                            Which::Lock(_) => scenario.since != Since::Opening,
                        };
                        let fault = Fault { scenario, durability, which, kind, for_good };
                        all.push(Trial { fault, call: call.clone(), is_serving });
                    }
                }
            }
        }
    }
    (all, calls)
}

impl Trial {
    fn is_sync_of(&self, part: &str) -> bool {
        matches!(&self.call, Some((Call::Sync | Call::SyncDir, path)) if path.contains(part))
    }

    /// A directory's sync failed, and the disk forgot names for good that everybody still sees: what is assumed of disks
    /// in `docs/storage.md` says what can be promised then.
    fn forgets_names(&self) -> bool {
        matches!(&self.call, Some((Call::SyncDir, path)) if !path.ends_with("/journal"))
    }

    /// The same of the directories for kept files: a later flush takes another program's file as kept, and its name may go.
    fn forgets_kept_files(&self) -> bool {
        matches!(&self.call, Some((Call::SyncDir, path)) if path.contains("/generations"))
    }

    /// Runs it and sees that all is as it must be.
    fn check(&self, beginnings: &Beginnings) {
        let run = self.fault.run(beginnings);
        for error in run.refused() {
            assert!(tells_what_to_do(error), "this does not say what to do, or where: {error}");
        }
        next_owners(&run, self.forgets_kept_files());
        let store = run.rig.is_open().then(|| Arc::clone(run.rig.store()));
        match store {
            None => self.opens_again(run),
            Some(store) => {
                let reason = store.refuses_writes();
                self.ended_writing_rightly(reason.as_deref());
                see(&run);
                run.rig.disk.mend();
                run.rig.lock_failures.mend();
                if reason.is_some() {
                    stays_ended(run);
                } else {
                    self.goes_on_in_place(run);
                }
            }
        }
    }

    /// A failed sync of the journal ends writing; what can be undone does not.
    fn ended_writing_rightly(&self, reason: Option<&str>) {
        if self.fault.scenario.since == Since::Rescue {
            assert!(reason.is_some(), "writing began again after a failed sync");
            return;
        }
        let of_journal = self.is_sync_of("/journal/0") || self.is_sync_of("/journal") && !self.is_sync_of("/journal/");
        if self.is_serving && of_journal {
            assert!(reason.is_some(), "a failed sync of the journal has not ended writing");
        }
        if !self.fault.for_good && !self.is_sync_of("") {
            assert_eq!(reason, None, "writing was ended by what could be undone");
        }
    }

    fn opens_again(&self, mut run: Run) {
        run.rig.disk.mend();
        run.rig.lock_failures.mend();
        run.rig.try_open().expect("a start that failed can be repeated");
        let found = found(&run.rig).expect("both namespaces load or are closed");
        let floor = run.known.written;
        run.known.survived(&found, floor);
        next_owners(&run, self.forgets_names());
    }

    /// The cause is gone: everything works as before, without a restart.
    fn goes_on_in_place(&self, mut run: Run) {
        if run.is_lost() {
            let found = found(&run.rig).expect("what could not be loaded for a while can be");
            let floor = run.known.written;
            run.known.survived(&found, floor);
            run.is_found();
        }
        // As the daemon does each second; a store that was opened on a full disk begins its journal then.
        run.rig.store().tick().expect("nothing fails any more");
        let refused = run.refused().len();
        for letter in [Letter::Put, Letter::PutMany, Letter::Flush, Letter::FlushOther, Letter::Second] {
            run.act(letter);
        }
        assert_eq!(run.refused().len(), refused, "the store did not recover in place: {:?}", run.refused().last());
        assert!(run.known.platter == run.known.states.len() - 1);
        see(&run);
        next_owners(&run, self.forgets_names());
    }
}

/// Writing stays ended although the disk is well again, and the rescue comes through, or leaves all as it was.
fn stays_ended(mut run: Run) {
    let may_write = !run.is_lost() && !is_closed(&run.rig, ONE);
    let refused = run.refused().len();
    for letter in [Letter::Put, Letter::Commit] {
        run.act(letter);
    }
    let refused = &run.refused()[refused..];
    let is_refused = |error: &Error| matches!(error, Error::Unavailable { .. });
    // A commit is only refused if something is left to be synced.
    assert!(refused.iter().all(is_refused), "{refused:?}");
    assert!(!may_write || !refused.is_empty(), "writing began again after a failed sync");
    run.rig.store().rescue(Duration::ZERO);
    assert!(run.rig.store().refuses_writes().is_some(), "writing began again after a failed sync");
    next_owners(&run, true);
}

/// What readers see is what was acknowledged, or with it what is of unknown outcome.
fn see(run: &Run) {
    if run.is_lost() {
        return;
    }
    let may_be = |state: &super::model::State| {
        [ONE, OTHER].iter().all(|name| {
            let table = run.rig.store().namespace(&place(name));
            table.map_or_else(|_| *name == ONE && is_closed(&run.rig, ONE), |table| contents(&table) == state[name])
        })
    };
    let known = &run.known;
    assert!(may_be(known.current()) || known.in_flight.as_ref().is_some_and(may_be), "readers see something else");
}

/// What the next owners find after a kill, and after power cuts unless a failed sync of a directory rules that out.
fn next_owners(run: &Run, only_killed: bool) {
    let options: &StoreOptions = &run.rig.options;
    let known: Arc<Known> = Arc::new(run.known.clone());
    recover(&run.rig.disk.kill(), &known, known.written, options);
    if only_killed {
        return;
    }
    for (seed, rules) in
        (1..).zip([Rules::KEEP_ALL, Rules::DROP_ALL, Rules::ORDERED, Rules::REORDER_ALL, Rules::REORDER_ALL])
    {
        recover(&run.rig.disk.power_cut(seed, rules), &known, known.platter, options);
    }
}

fn is_chosen(fault: &Fault, share: u64, seed: u64) -> bool {
    let mut hasher = DefaultHasher::new();
    (fault.to_string(), seed).hash(&mut hasher);
    hasher.finish().is_multiple_of(share)
}

#[test]
fn every_failing_call_of_every_scenario_loses_nothing_and_says_what_to_do() {
    let share = setting("COMMONHOLD_FAULTS_SHARE").unwrap_or(SHARE);
    let seed = setting("COMMONHOLD_FAULTS_SEED").unwrap_or(1);
    let case: Option<String> = setting("COMMONHOLD_FAULTS_CASE");
    let began = Instant::now();
    let beginnings = Beginnings::new();
    let (mut trials, calls) = trials(&beginnings);
    let faults = trials.len();
    trials.retain(|trial| match &case {
        Some(case) => trial.fault.to_string() == *case,
        None => is_chosen(&trial.fault, share, seed),
    });
    assert!(!trials.is_empty(), "there is no fault {case:?}");
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(trial) = trials.get(next.fetch_add(1, Ordering::Relaxed)) {
            if catch_unwind(AssertUnwindSafe(|| trial.check(&beginnings))).is_err() {
                eprintln!("{:?}: repeat it with COMMONHOLD_FAULTS_CASE='{}'", trial.call, trial.fault);
                failed.lock().push(trial.fault.to_string());
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    println!(
        "{} scenarios at {} durabilities, {calls} calls, {faults} faults; {} of them tried (1 of {share}, seed {seed}), in {} s",
        SCENARIOS.len(),
        DURABILITIES.len(),
        trials.len(),
        began.elapsed().as_secs()
    );
    let failed = failed.into_inner();
    assert!(failed.is_empty(), "{} of them did not go well: {failed:#?}", failed.len());
}
