//! Damage: every file of small stores flipped and cut everywhere, taken away, swapped, put back from an earlier moment or
//! from another store. After each blow nothing is lost silently and nothing panics: what was there is read, or an error, the
//! opening, what is held, or `check` names what is gone. Then every remedy that `check` offers is carried out.
//!
//! `COMMONHOLD_DAMAGE_SHARE=N` does one of N flips and cuts and one of N/100 of everything else, chosen by
//! `COMMONHOLD_DAMAGE_SEED`; 1 is all of them. A failure prints its case; `COMMONHOLD_DAMAGE_CASE=…` does that one alone.

mod blow;
mod clocks;
mod remedy;
mod stores;
mod verdict;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use blow::{Blow, blows};
use parking_lot::Mutex;
use stores::Lived;
use verdict::{Counts, judge};

use super::enumeration::setting;

/// One flip or cut of so many is tried when nothing else is asked for: some seconds.
const SHARE: u64 = 800;

struct Trial<'a> {
    store: &'a Lived,
    blow: Blow,
}

impl Trial<'_> {
    fn name(&self) -> String {
        format!("{}/{}", self.store.name, self.blow)
    }

    fn is_chosen(&self, share: u64, seed: u64) -> bool {
        let mut hasher = DefaultHasher::new();
        (self.name(), seed).hash(&mut hasher);
        // There are not many of the others.
        let share = if self.blow.is_of_bytes() { share } else { (share / 100).max(1) };
        hasher.finish().is_multiple_of(share)
    }
}

#[test]
fn no_damage_is_a_silent_loss_and_every_remedy_does_what_it_says() {
    let share = setting("COMMONHOLD_DAMAGE_SHARE").unwrap_or(SHARE);
    let seed = setting("COMMONHOLD_DAMAGE_SEED").unwrap_or(1);
    let case: Option<String> = setting("COMMONHOLD_DAMAGE_CASE");
    let began = Instant::now();
    let stores = stores::all();
    let of = |store| blows(store).into_iter().map(move |blow| Trial { store, blow });
    let mut trials: Vec<Trial<'_>> = stores.iter().flat_map(of).collect();
    let all = trials.len();
    trials.retain(|trial| case.as_ref().map_or_else(|| trial.is_chosen(share, seed), |case| trial.name() == *case));
    assert!(!trials.is_empty(), "there is no case {case:?}");
    let (next, failed, counts) = (AtomicUsize::new(0), Mutex::new(Vec::new()), Mutex::new(Counts::default()));
    let work = || {
        while let Some(trial) = trials.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Ok(found) = catch_unwind(AssertUnwindSafe(|| judge(trial.store, &trial.blow))) {
                counts.lock().add(found);
            } else {
                eprintln!("repeat it with COMMONHOLD_DAMAGE_CASE='{}'", trial.name());
                failed.lock().push(trial.name());
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    println!(
        "{} stores, {all} blows; {} of them struck (1 of {share}, seed {seed}), in {} s: {}",
        stores.len(),
        trials.len(),
        began.elapsed().as_secs(),
        counts.into_inner()
    );
    let failed = failed.into_inner();
    assert!(failed.is_empty(), "{} of them did not go well: {failed:#?}", failed.len());
}
