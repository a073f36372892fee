//! What befalls the model's store between two owners: kills, power cuts, starts that die, torn files; and the rescue.

use std::time::Duration;

use super::ops::State;
use super::{PLACES, Run};
use crate::engine::FlushHow;
use crate::engine::disk::Rules;
use crate::engine::tests::rig::{Rig, file, place};

impl Run {
    /// Leaves the disk as the next owner finds it, with no store open on it.
    fn lose_the_owner(&mut self, power_cut: bool) {
        let disk = if power_cut {
            let seed = self.rng.u64(..);
            self.rig.disk.power_cut(seed, Rules::any(seed))
        } else {
            self.rig.disk.kill()
        };
        self.rig = Rig::on(disk, self.rig.options.clone());
    }

    /// The owner is gone; opens the store as the next owner finds it.
    pub(super) fn restart(&mut self, power_cut: bool, in_flight: Vec<State>) {
        self.crashes += 1;
        self.rig.close();
        self.lose_the_owner(power_cut);
        // The next owner may die while it opens the store, more than once.
        while self.rng.u8(..4) == 0 {
            self.crashes += 1;
            self.rig.disk.crash_after(self.rng.u64(1..40));
            // It may also come through, if the crash was set for later than its last call.
            drop(self.rig.try_open());
            self.rig.close();
            self.lose_the_owner(power_cut);
        }
        if self.rng.u8(..4) == 0 {
            self.serve_with_a_torn_file(power_cut);
        }
        self.rig.try_open().unwrap_or_else(|error| panic!("the store does not open after a crash: {error:?}"));
        let opening = self.rig.store().opening();
        assert!(opening.closed.is_empty(), "a crash closed {:?}", opening.closed);
        let found: State = PLACES.iter().map(|name| (*name, self.rig.all(name))).collect();
        let oldest = if power_cut { self.platter } else { self.written };
        self.states.extend(in_flight);
        let which = (oldest..self.states.len()).rev().find(|index| self.states[*index] == found);
        let first = (oldest..self.states.len()).find(|index| self.states[*index] == found);
        let Some(which) = which else {
            let older = self.states.iter().position(|state| *state == found);
            panic!(
                "after a {} the store is in {} (allowed: {oldest} to {}): {found:?}",
                if power_cut { "power cut" } else { "kill" },
                older.map_or("no state it ever was in".to_owned(), |older| format!("state {older}")),
                self.states.len() - 1,
            );
        };
        self.states.truncate(which + 1);
        // What was read here was read from what the platter holds, and the start has synced it anew.
        (self.written, self.platter) = (which, which);
        self.found = Some((first.unwrap_or(which), which));
    }

    /// For a while one namespace's file is not what it should be; owners come and go, and then the right one is back.
    fn serve_with_a_torn_file(&mut self, power_cut: bool) {
        let torn = PLACES[self.rng.usize(..PLACES.len())];
        let directory = file(torn).parent().expect("a file has a directory").to_owned();
        if !self.rig.disk.exists(&directory) {
            return;
        }
        let right = self.rig.disk.exists(file(torn)).then(|| self.rig.disk.read_file(file(torn)));
        self.rig.disk.write_file(file(torn), b"{\n\"torn\": 1,");
        for _ in 0..self.rng.u8(1..4) {
            self.crashes += 1;
            self.rig.disk.crash_after(self.rng.u64(1..120));
            if self.rig.try_open().is_ok() {
                // Without writes: what the others have in memory goes to their files, and segments go.
                for name in PLACES {
                    let outcome = self.rig.store().flush(&place(name), FlushHow { rewrite: true, lock_timeout: None });
                    assert!(name != torn || outcome.is_err(), "a torn file was replaced");
                    let _ = self.rig.store().tick();
                }
            }
            self.rig.close();
            self.lose_the_owner(power_cut);
        }
        match right {
            Some(bytes) => self.rig.disk.write_file(file(torn), &bytes),
            None => self.rig.disk.remove_path(file(torn)),
        }
    }

    /// What is in the files for good, if the journal has failed and the rescue has come through.
    pub(super) fn rescue(&mut self) -> Option<State> {
        let store = self.rig.store();
        if store.refuses_writes().is_none() || self.rng.u8(..4) == 0 {
            return None;
        }
        if self.rng.bool() {
            self.rig.disk.mend();
        }
        store.rescue(Duration::ZERO);
        // Over without anything left to do; or over because it could not begin.
        let is_safe = !store.needs_rescue() && store.dirty().is_empty() && !self.rig.disk.is_dead();
        is_safe.then(|| PLACES.iter().map(|name| (*name, self.rig.all(name))).collect())
    }
}
