//! The flags against a naive model that knows of no words: each flag is a boolean of its own, set and cleared one by one.
//!
//! Random sessions register, look, clear, forget and die, while namespaces are written, flushed and have their flags set and
//! cleared for all. After each step every flag is what the model says. A model that is wrong in one rule shows that the
//! steps reach that rule: it is found out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use commonhold_proto::Place;

use super::*;

const NAMES: [&str; 3] = ["a", "b", "c"];
const SESSIONS: u64 = 5;

/// A rule that the model gets wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    /// A write sets nothing that is cleared.
    WriteLeavesCleared,
    /// A flush clears the flags although something has been written since its cut.
    FlushClearsWhatIsDirty,
    /// A clear is one for all sessions.
    ClearClearsAll,
    /// Who registers anew keeps what it had.
    RegisterKeeps,
    /// Who registers where all flags are set begins with a set one.
    RegisterFollowsOthers,
    /// `ClearAll` leaves those that were registered as set.
    ClearAllLeavesRegistered,
    /// A session that died has its flags still.
    DeathKeeps,
}

/// What the store knows of one name, and the flags there by session.
#[derive(Debug, Default)]
struct Name {
    word: Arc<AtomicU64>,
    /// Whether something has been written that no file has.
    dirty: bool,
    flags: BTreeMap<u64, ModelFlag>,
}

#[derive(Clone, Copy, Debug)]
struct ModelFlag {
    set: bool,
    registered_set: bool,
}

impl Name {
    // As the store moves it: to the next odd number, and to the next even one.
    fn set_all(&mut self) {
        self.word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| Some((word + 1) | 1)).unwrap();
        self.flags.values_mut().for_each(|flag| *flag = ModelFlag { set: true, registered_set: false });
    }

    fn clear_all(&mut self, wrong: Option<Wrong>) {
        self.word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| Some((word + 2) & !1)).unwrap();
        let leaves = |flag: &ModelFlag| wrong == Some(Wrong::ClearAllLeavesRegistered) && flag.registered_set;
        let cleared = self.flags.values_mut().filter(|flag| !leaves(flag));
        cleared.for_each(|flag| *flag = ModelFlag { set: false, registered_set: false });
    }
}

struct Test {
    rng: fastrand::Rng,
    flags: Flags,
    names: Vec<Name>,
    wrong: Option<Wrong>,
}

impl Test {
    fn is(&self, wrong: Wrong) -> bool {
        self.wrong == Some(wrong)
    }

    /// One random step. Answers what it was.
    fn step(&mut self) -> String {
        let (session, at) = (self.rng.u64(..SESSIONS), self.rng.usize(..NAMES.len()));
        let place = Place::new("w", NAMES[at]).unwrap();
        let wrong = self.wrong;
        match self.rng.u32(..100) {
            0..25 => {
                let set = self.rng.bool();
                let word = Arc::clone(&self.names[at].word);
                self.flags.register(session, &place, &word, set).unwrap();
                let keeps = self.is(Wrong::RegisterKeeps);
                let follows = self.is(Wrong::RegisterFollowsOthers) && word.load(Ordering::Relaxed) % 2 == 1;
                let new = ModelFlag { set: set || follows, registered_set: set };
                let flag = self.names[at].flags.entry(session).or_insert(new);
                if !keeps {
                    *flag = new;
                }
                format!("session {session} registers {}, set: {set}", NAMES[at])
            }
            25..45 => {
                self.write(at);
                format!("a write to {}", NAMES[at])
            }
            45..55 => {
                // It takes a while: something may be written after its cut, and then it clears nothing.
                self.names[at].dirty = false;
                let written = self.rng.bool();
                if written {
                    self.write(at);
                }
                if !self.names[at].dirty {
                    self.names[at].clear_all(wrong);
                } else if self.is(Wrong::FlushClearsWhatIsDirty) {
                    self.names[at].flags.values_mut().for_each(|flag| flag.set = false);
                }
                format!("a flush of {}, written to meanwhile: {written}", NAMES[at])
            }
            55..62 => {
                self.names[at].set_all();
                format!("all flags of {} are set", NAMES[at])
            }
            62..69 => {
                self.names[at].clear_all(wrong);
                format!("all flags of {} are cleared", NAMES[at])
            }
            69..86 => {
                let cleared = self.flags.clear(session, &place);
                let clears_all = self.is(Wrong::ClearClearsAll);
                let name = &mut self.names[at];
                assert_eq!(cleared.is_some(), name.flags.contains_key(&session));
                if cleared.is_some() {
                    let concerned = name.flags.iter_mut().filter(|(of, _)| clears_all || **of == session);
                    concerned.for_each(|(_, flag)| *flag = ModelFlag { set: false, registered_set: false });
                }
                format!("session {session} clears {}", NAMES[at])
            }
            86..94 => {
                let forgotten = self.flags.forget(session, &place);
                assert_eq!(forgotten.is_some(), self.names[at].flags.remove(&session).is_some());
                format!("session {session} forgets {}", NAMES[at])
            }
            _ => {
                self.flags.end_session(session);
                if !self.is(Wrong::DeathKeeps) {
                    self.names.iter_mut().for_each(|name| name.flags.retain(|of, _| *of != session));
                }
                format!("session {session} dies")
            }
        }
    }

    fn write(&mut self, at: usize) {
        let leaves = self.is(Wrong::WriteLeavesCleared);
        let name = &mut self.names[at];
        name.dirty = true;
        let before = name.flags.clone();
        name.set_all();
        if leaves {
            name.flags = before;
        }
    }

    /// What is not as the model says.
    fn check(&self) -> Result<(), String> {
        for (name, model) in NAMES.iter().zip(&self.names) {
            let place = Place::new("w", name).unwrap();
            for session in 0..SESSIONS {
                let found = self.flags.look(session, &place).map(|(set, _)| set);
                let expected = model.flags.get(&session).map(|flag| flag.set);
                if found != expected {
                    return Err(format!("session {session} in {name}: {found:?}, and the model says {expected:?}"));
                }
            }
        }
        let count: usize = self.names.iter().map(|name| name.flags.len()).sum();
        let listed = self.flags.list(None, usize::MAX);
        let listed_flags: usize = listed.iter().map(|info| info.sessions.len()).sum();
        let places = self.names.iter().filter(|name| !name.flags.is_empty()).count();
        if (self.flags.count(), listed_flags, listed.len()) != (count, count, places) {
            return Err(format!("{count} flags of {places} names, and there are {listed:?}"));
        }
        Ok(())
    }
}

fn run(seed: u64, wrong: Option<Wrong>) -> Result<(), String> {
    let names = NAMES.iter().map(|_| Name::default()).collect();
    let mut test = Test { rng: fastrand::Rng::with_seed(seed), flags: Flags::default(), names, wrong };
    for number in 0..400 {
        let step = test.step();
        test.check().map_err(|found| format!("seed {seed}, step {number}, {step}: {found}"))?;
    }
    (0..SESSIONS).for_each(|session| test.flags.end_session(session));
    assert!(test.flags.is_empty(), "seed {seed}: something is left: {:?}", test.flags);
    Ok(())
}

#[test]
fn every_flag_is_what_was_last_done_to_it_whatever_the_words_are() {
    for seed in 0..200 {
        println!("seed {seed}");
        run(seed, None).unwrap();
    }
}

#[test]
fn a_model_that_is_wrong_in_one_rule_is_found_out() {
    for wrong in [
        Wrong::WriteLeavesCleared,
        Wrong::FlushClearsWhatIsDirty,
        Wrong::ClearClearsAll,
        Wrong::RegisterKeeps,
        Wrong::RegisterFollowsOthers,
        Wrong::ClearAllLeavesRegistered,
        Wrong::DeathKeeps,
    ] {
        let found = (0..20).find_map(|seed| run(seed, Some(wrong)).err());
        assert!(found.is_some(), "no step tells {wrong:?} from what is right");
    }
}
