//! Crash enumeration: all workloads of up to three letters, at every crash point, under every rule of the simulated disk, and
//! every opening after that crashed at every point of its own.
//!
//! `COMMONHOLD_ENUMERATION_SHARE=N` looks at one workload of N, chosen by `COMMONHOLD_ENUMERATION_SEED`, which also seeds
//! the power cuts; 1 is all of them. A failure prints a case; `COMMONHOLD_ENUMERATION_CASE=…` does that one alone.
//!
//! A workload is run once, and an image taken at each crash point; images share what does not differ. Images that are the same,
//! with the same to be found in them, are checked once, however many workloads lead there.

mod crash;
pub(super) mod next_owner;
pub(super) mod oracle;
pub(super) mod run;
pub(super) mod workload;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use crash::{Case, Counts, Crasher, Seen, replay};
use run::Beginnings;
use workload::Workload;

/// One workload of so many is looked at when nothing else is asked for: some seconds.
const SHARE: u64 = 400;

/// What an environment variable says.
pub(super) fn setting<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text:?} cannot be read")))
}

/// The share of the workloads that a seed chooses.
fn sample(share: u64, seed: u64) -> Vec<Workload> {
    let is_in = |workload: &Workload| {
        let mut hasher = DefaultHasher::new();
        (workload.to_string(), seed).hash(&mut hasher);
        hasher.finish().is_multiple_of(share)
    };
    Workload::all().into_iter().filter(is_in).collect()
}

/// Crashes these workloads everywhere, on all processors.
fn enumerate(workloads: &[Workload], seed: u64) -> Counts {
    let (seen, beginnings, next) = (Seen::new(), Beginnings::new(), AtomicUsize::new(0));
    let work = || {
        let mut counts = Counts::default();
        while let Some(workload) = workloads.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut crasher = Crasher::new(&seen, seed, workload.clone());
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                let moments = beginnings.moments(workload);
                crasher.crash_everywhere(&moments);
            }));
            if let Err(panic) = outcome {
                eprintln!(
                    "the crash enumeration failed: repeat it with COMMONHOLD_ENUMERATION_CASE='{}'",
                    crasher.case
                );
                resume_unwind(panic);
            }
            counts.add(crasher.counts);
        }
        counts
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let mut counts = Counts::default();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            counts.add(thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
    });
    counts
}

#[test]
fn every_crash_of_every_short_workload_leaves_what_was_acknowledged() {
    if let Some(case) = setting::<Case>("COMMONHOLD_ENUMERATION_CASE") {
        println!("only {case}");
        return replay(&case, Beginnings::new().moments(&case.workload));
    }
    let share = setting("COMMONHOLD_ENUMERATION_SHARE").unwrap_or(SHARE);
    let seed = setting("COMMONHOLD_ENUMERATION_SEED").unwrap_or(1);
    let workloads = sample(share, seed);
    let began = Instant::now();
    let Counts { workloads, moments, images, states, of_openings } = enumerate(&workloads, seed);
    println!(
        "{workloads} workloads (1 of {share}, seed {seed}), {moments} moments, {images} crashes; {states} different \
         states checked, {of_openings} of them after a crashed opening, in {} s",
        began.elapsed().as_secs()
    );
    assert!(share > SHARE || states > 1_000, "the workloads hardly crashed, so they show nothing");
}

#[test]
fn a_case_is_read_back_as_it_was_printed() {
    for text in
        ["fresh/memory/", "lived/synced/put,put-many,restart@12:torn:3>0:kill", "fresh/buffered/foreign@1:drop:1"]
    {
        let case: Case = text.parse().unwrap();
        assert_eq!(case.to_string(), text);
    }
    for text in ["", "fresh/memory", "fresh/memory/put@1", "fresh/memory/put@1:lost", "fresh/memory/push", "a/b/c"] {
        assert!(text.parse::<Case>().is_err(), "{text}");
    }
}
