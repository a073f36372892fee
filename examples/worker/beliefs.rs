//! What a worker may rely on: a key that only it writes reads back as it last wrote it, and no key's version goes back.

use std::collections::HashMap;

use commonhold::blocking::{Namespace, Seq};

use crate::change::{Change, Outcome};

type Name = (String, String);
type Failure = Box<dyn std::error::Error>;

/// What the worker knows of the keys it has written or read.
#[derive(Default)]
pub(crate) struct Beliefs {
    /// The states that a key may be in: one, and one more for each write of unknown outcome since.
    possible: HashMap<Name, Vec<Option<String>>>,
    /// The highest version seen.
    versions: HashMap<Name, Seq>,
}

impl Beliefs {
    pub(crate) fn wrote(&mut self, change: &Change, outcome: &Outcome) {
        let name = name(&change.space, &change.key);
        match outcome {
            Outcome::Acknowledged(seq) => {
                self.possible.insert(name.clone(), vec![change.value.clone()]);
                let seen = self.versions.entry(name).or_default();
                *seen = (*seen).max(*seq);
            }
            // Of a key that was never read nor written nothing is known, with or without this write.
            Outcome::Unknown => {
                self.possible.entry(name).and_modify(|possible| possible.push(change.value.clone()));
            }
            Outcome::Refused => {}
        }
    }

    /// Checks what was read of a key that only this worker writes. What was read is what is known from here on: a
    /// write whose outcome was unknown has happened by the time its client is connected again, or never does.
    pub(crate) fn check(&mut self, space: &Namespace, key: &str, found: Option<&str>) -> Result<(), Failure> {
        let name = name(space, key);
        let fits = |possible: &Vec<Option<String>>| possible.iter().any(|state| state.as_deref() == found);
        if let Some(possible) = self.possible.get(&name).filter(|possible| !fits(possible)) {
            return Err(format!("read of {name:?} gave {found:?}, only these are possible: {possible:?}").into());
        }
        self.possible.insert(name, vec![found.map(str::to_owned)]);
        Ok(())
    }

    /// As [`Beliefs::check`], where only the key's presence was asked.
    pub(crate) fn check_presence(&self, space: &Namespace, key: &str, present: bool) -> Result<(), Failure> {
        let name = name(space, key);
        match self.possible.get(&name) {
            Some(possible) if !possible.iter().any(|state| state.is_some() == present) => {
                let said = if present { "present" } else { "missing" };
                Err(format!("{name:?} was said to be {said}, which cannot be").into())
            }
            _ => Ok(()),
        }
    }

    /// Checks that no older version is read than one that was seen before. An absent record has no version.
    pub(crate) fn check_version(&mut self, space: &Namespace, key: &str, found: Option<Seq>) -> Result<(), Failure> {
        let Some(found) = found else { return Ok(()) };
        let seen = self.versions.entry(name(space, key)).or_default();
        if found < *seen {
            return Err(format!("{space:?} {key:?} went back from version {seen} to {found}").into());
        }
        *seen = found;
        Ok(())
    }
}

fn name(space: &Namespace, key: &str) -> Name {
    (space.place().to_string(), key.to_owned())
}
