//! Elections: who initialises something for all. The first who asks wins; if its session ends before it is done, or it gives
//! up, the one that has waited longest does.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use commonhold_proto::limits::MAX_DONE_ELECTIONS_BYTES;

use super::parties::{Begun, Ledger, Outcome, Refusal, Resolved, WaitId, Whose, weight};

/// All elections.
#[derive(Debug, Default)]
pub struct Elections {
    names: HashMap<Arc<str>, State>,
    waits: HashMap<WaitId, (u64, Arc<str>)>,
    /// The names that each session initialises.
    won: HashMap<u64, BTreeSet<Arc<str>>>,
    ledger: Ledger,
    /// What the names of those that are done take; they are kept until the end.
    pub(super) done_bytes: usize,
    running: usize,
    /// A number for each that was won, for the ledger.
    last: u64,
}

#[derive(Debug)]
enum State {
    Running {
        winner: u64,
        /// Its number in the ledger.
        number: u64,
        /// Who waits, with their sessions.
        queue: BTreeMap<WaitId, u64>,
    },
    Done,
}

impl Elections {
    /// Asks to be the one, or, while another is at it, waits as `wait`; without that number it does not wait.
    ///
    /// # Errors
    /// [`Refusal`]: nothing was changed.
    pub fn elect(&mut self, session: u64, name: &str, wait: Option<WaitId>) -> Result<Begun, Refusal> {
        match self.names.get_key_value(name) {
            Some((_, State::Done)) => return Ok(Begun::Done),
            Some((_, State::Running { winner, .. })) if *winner == session => return Ok(Begun::Won),
            Some(_) if wait.is_none() => return Ok(Begun::Running),
            _ => self.ledger.check(session, weight([name]))?,
        }
        let known = self.names.get_key_value(name).map(|(name, _)| Arc::clone(name));
        let (Some(name), Some(wait)) = (known, wait) else {
            let got = (self.done_bytes + weight([name])) as u64;
            if got > MAX_DONE_ELECTIONS_BYTES as u64 {
                return Err(Refusal::TooLarge { of: Whose::Done, got, limit: MAX_DONE_ELECTIONS_BYTES as u64 });
            }
            self.win(session, Arc::from(name), BTreeMap::new());
            return Ok(Begun::Won);
        };
        if let Some(State::Running { queue, .. }) = self.names.get_mut(&name) {
            queue.insert(wait, session);
        }
        self.ledger.waits(session, wait, weight([&*name]));
        self.waits.insert(wait, (session, name));
        Ok(Begun::Waits)
    }

    fn win(&mut self, session: u64, name: Arc<str>, queue: BTreeMap<WaitId, u64>) {
        self.last += 1;
        self.running += 1;
        let number = self.last;
        self.ledger.holds(session, number, weight([&*name]));
        self.won.entry(session).or_default().insert(Arc::clone(&name));
        self.names.insert(name, State::Running { winner: session, number, queue });
    }

    /// The winner has done it, or gives it up.
    ///
    /// # Errors
    /// [`Refusal::NotHeld`] if it is not this session's to do.
    pub fn initialized(&mut self, session: u64, name: &str, done: bool) -> Result<Vec<Resolved>, Refusal> {
        let is_own = self.won.get(&session).is_some_and(|won| won.contains(name));
        if !is_own {
            return Err(Refusal::NotHeld { token: 0 });
        }
        let mut resolved = Vec::new();
        self.end(session, name, done, &mut resolved);
        Ok(resolved)
    }

    /// What this winner is at is over.
    fn end(&mut self, session: u64, name: &str, done: bool, resolved: &mut Vec<Resolved>) {
        let Some((name, State::Running { number, mut queue, .. })) = self.names.remove_entry(name) else { return };
        self.running -= 1;
        self.ledger.gives_back(session, number, weight([&*name]));
        if let Some(won) = self.won.get_mut(&session) {
            won.remove(&name);
            if won.is_empty() {
                self.won.remove(&session);
            }
        }
        if done {
            self.done_bytes += weight([&*name]);
            for wait in queue.into_keys() {
                self.forget(wait);
                resolved.push(Resolved { wait, outcome: Outcome::Done });
            }
            self.names.insert(name, State::Done);
            return;
        }
        let Some((wait, next)) = queue.pop_first() else { return };
        self.forget(wait);
        resolved.push(Resolved { wait, outcome: Outcome::Won });
        // It may have asked more than once; who has won and asks again is told so.
        for wait in self.ledger.waits_of(next) {
            if queue.remove(&wait).is_some() {
                self.forget(wait);
                resolved.push(Resolved { wait, outcome: Outcome::Won });
            }
        }
        self.win(next, name, queue);
    }

    /// Takes a request out of what is counted.
    fn forget(&mut self, wait: WaitId) -> Option<Arc<str>> {
        let (session, name) = self.waits.remove(&wait)?;
        self.ledger.waits_no_more(session, wait, weight([&*name]));
        Some(name)
    }

    /// A request waits no longer. None if it does not wait here.
    pub fn cancel(&mut self, wait: WaitId) -> Option<Vec<Resolved>> {
        let name = self.forget(wait)?;
        if let Some(State::Running { queue, .. }) = self.names.get_mut(&name) {
            queue.remove(&wait);
        }
        Some(Vec::new())
    }

    /// A session has ended: what it was to initialise is for the next ones.
    pub fn end_session(&mut self, session: u64) -> Vec<Resolved> {
        for wait in self.ledger.waits_of(session) {
            self.cancel(wait);
        }
        let mut resolved = Vec::new();
        for name in self.won.get(&session).cloned().unwrap_or_default() {
            self.end(session, &name, false, &mut resolved);
        }
        self.ledger.forget(session);
        resolved
    }

    /// How many are running, and how many requests wait.
    pub fn counts(&self) -> (usize, usize) {
        (self.running, self.waits.len())
    }

    /// Whether nothing is running, waited for or counted.
    pub fn is_idle(&self) -> bool {
        self.running == 0 && self.waits.is_empty() && self.won.is_empty() && self.ledger.is_empty()
    }
}
