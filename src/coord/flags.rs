//! Update flags: one word a namespace, and for each session what it knows of it.
//!
//! The word is a count whose lowest bit says set or cleared. It belongs to the store, which moves it with each write; so a
//! write costs the same however many sessions have a flag. A session keeps the word at which it last registered or cleared,
//! and what its flag was to be there: once the word has moved, the flag is what the word says.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use commonhold_proto::Place;

use super::parties::{Ledger, Refusal, weight};

/// All flags.
#[derive(Debug, Default)]
pub struct Flags {
    places: BTreeMap<(String, String), Registered>,
    of_session: HashMap<u64, BTreeSet<(String, String)>>,
    count: usize,
    ledger: Ledger,
    /// A number for each, for the ledger.
    last: u64,
}

#[derive(Debug)]
struct Registered {
    word: Arc<AtomicU64>,
    sessions: BTreeMap<u64, Flag>,
}

/// One session's flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Flag {
    /// The word when the session registered or cleared it.
    at: u64,
    /// What it is for as long as the word is that.
    set: bool,
    /// Its number in the ledger.
    number: u64,
}

impl Flag {
    fn is_set(self, word: u64) -> bool {
        if word == self.at { self.set } else { word % 2 == 1 }
    }
}

/// The flags of a namespace in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaceInfo {
    /// The workspace.
    pub workspace: String,
    /// The namespace.
    pub namespace: String,
    /// The word.
    pub word: u64,
    /// The sessions that have a flag, oldest first, and whether it is set.
    pub sessions: Vec<(u64, bool)>,
}

fn name_of(place: &Place) -> (String, String) {
    (place.workspace.as_str().to_owned(), place.namespace.as_str().to_owned())
}

/// How much room a flag of this name takes in the ledger.
fn weight_of(name: &(String, String)) -> usize {
    weight([name.0.as_str(), name.1.as_str()])
}

impl Flags {
    /// The session has a flag from here on, set or cleared.
    ///
    /// # Errors
    /// [`Refusal::TooMany`]: it has as many as it may. [`Refusal::TooLarge`]: so has it, or all sessions together, by their names.
    pub fn register(&mut self, session: u64, place: &Place, word: &Arc<AtomicU64>, set: bool) -> Result<(), Refusal> {
        let name = name_of(place);
        if let Some(registered) = self.places.get_mut(&name)
            && let Some(flag) = registered.sessions.get_mut(&session)
        {
            (flag.at, flag.set) = (registered.word.load(Ordering::Acquire), set);
            return Ok(());
        }
        let bytes = weight_of(&name);
        self.ledger.check(session, bytes)?;
        self.last += 1;
        let number = self.last;
        self.ledger.holds(session, number, bytes);
        self.of_session.entry(session).or_default().insert(name.clone());
        let new = || Registered { word: Arc::clone(word), sessions: BTreeMap::new() };
        let registered = self.places.entry(name).or_insert_with(new);
        let at = registered.word.load(Ordering::Acquire);
        registered.sessions.insert(session, Flag { at, set, number });
        self.count += 1;
        Ok(())
    }

    /// Whether the session's flag is set, and the word; none if it has none.
    pub fn look(&self, session: u64, place: &Place) -> Option<(bool, u64)> {
        let registered = self.places.get(&name_of(place))?;
        let word = registered.word.load(Ordering::Acquire);
        registered.sessions.get(&session).map(|flag| (flag.is_set(word), word))
    }

    /// Clears the session's flag. Answers the word; none if it has no flag.
    pub fn clear(&mut self, session: u64, place: &Place) -> Option<u64> {
        let registered = self.places.get_mut(&name_of(place))?;
        let flag = registered.sessions.get_mut(&session)?;
        let at = registered.word.load(Ordering::Acquire);
        (flag.at, flag.set) = (at, false);
        Some(at)
    }

    /// The session has no flag there any more. Answers the word; none if it had none.
    pub fn forget(&mut self, session: u64, place: &Place) -> Option<u64> {
        let name = name_of(place);
        let own = self.of_session.get_mut(&session)?;
        if !own.remove(&name) {
            return None;
        }
        if own.is_empty() {
            self.of_session.remove(&session);
        }
        self.remove(session, &name)
    }

    fn remove(&mut self, session: u64, name: &(String, String)) -> Option<u64> {
        let registered = self.places.get_mut(name)?;
        let flag = registered.sessions.remove(&session)?;
        self.count -= 1;
        self.ledger.gives_back(session, flag.number, weight_of(name));
        let word = registered.word.load(Ordering::Acquire);
        if registered.sessions.is_empty() {
            self.places.remove(name);
        }
        Some(word)
    }

    /// A session has ended, and so have its flags.
    pub fn end_session(&mut self, session: u64) {
        for name in self.of_session.remove(&session).unwrap_or_default() {
            self.remove(session, &name);
        }
        self.ledger.forget(session);
    }

    /// How many flags there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The namespaces that have any, with their flags, in order of name, from the one after `after`, up to about so many flags.
    pub fn list(&self, after: Option<&PlaceInfo>, flags: usize) -> Vec<PlaceInfo> {
        use std::ops::Bound;
        let after = after.map(|info| (info.workspace.clone(), info.namespace.clone()));
        let (mut list, mut counted) = (Vec::new(), 0);
        for (name, registered) in self.places.range((after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded))
        {
            if counted >= flags {
                break;
            }
            let word = registered.word.load(Ordering::Acquire);
            let sessions: Vec<_> = registered.sessions.iter().map(|(of, flag)| (*of, flag.is_set(word))).collect();
            counted += 1 + sessions.len();
            list.push(PlaceInfo { workspace: name.0.clone(), namespace: name.1.clone(), word, sessions });
        }
        list
    }

    /// Whether no session has any.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty() && self.of_session.is_empty() && self.count == 0 && self.ledger.is_empty()
    }
}
