//! Keyed locks: several keys at once, all or none, exclusive or shared, first come first served.
//!
//! A wish waits while any of its keys is held, or wished for by an earlier wish, in a way that excludes it. For one key
//! the wishes that nothing excludes there are always the first ones of its queue: all shared ones up to the first
//! exclusive one, or that one alone if nobody holds the key. Once such a wish is *ready* at a key it remains so, since only
//! later ones come behind it. So each wish counts the keys at which it is not ready, each key remembers how far its
//! ready ones reach, and what is given back costs what becomes ready by it, however many wait.
//!
//! A grant ends in two steps where a write that depends on it is still being done: it is *retired* at once, and no write is
//! done under it any more; its keys are free when that write is done.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::cycle::NamedBy;
use super::key::{Holders, Key};
use super::parties::{Begun, Ledger, Outcome, Party, Refusal, Resolved, WaitId, wait_weight, weight};

/// Gives the next token; none if there is none any more.
pub(super) type Tokens<'a> = &'a mut dyn FnMut() -> Option<u64>;

/// A wish for a lock.
#[derive(Clone, Debug)]
pub struct Wish<'a> {
    /// Who asks.
    pub session: u64,
    /// Which of its lock objects.
    pub owner: u64,
    /// Whether others may hold the keys at the same time.
    pub shared: bool,
    /// The keys, at least one; one that is there twice counts once.
    pub keys: Vec<&'a str>,
    /// The tokens that whoever asks holds while it waits, of its own session or of those it runs under.
    pub holds: Vec<u64>,
    /// When it came, in milliseconds since 1970.
    pub now_unix_ms: u64,
}

/// All locks that are held or waited for.
#[derive(Debug, Default)]
pub struct Locks {
    pub(super) keys: HashMap<Arc<str>, Key>,
    pub(super) grants: HashMap<u64, Grant>,
    pub(super) waits: HashMap<WaitId, Waiting>,
    ledger: Ledger,
    /// Grants that are live.
    live: usize,
}

#[derive(Debug)]
pub(super) struct Grant {
    pub(super) session: u64,
    pub(super) owner: u64,
    shared: bool,
    pub(super) keys: Vec<Arc<str>>,
    since_unix_ms: u64,
    /// It has ended, and is not free yet.
    pub(super) retired: bool,
    /// Those who hold it while they wait.
    pub(super) named_by: NamedBy,
}

#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) session: u64,
    pub(super) owner: u64,
    pub(super) shared: bool,
    /// In order of name.
    pub(super) keys: Vec<Arc<str>>,
    /// In order.
    pub(super) holds: Vec<u64>,
    since_unix_ms: u64,
    /// At how many of its keys it is not ready.
    blocked: usize,
}

/// A key in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// The key.
    pub key: Arc<str>,
    /// Who holds it.
    pub holders: Vec<Party>,
    /// Who waits, longest first.
    pub waiters: Vec<Party>,
}

impl Locks {
    /// Grants a wish, or lets it wait as `wait`; without that number it does not wait.
    ///
    /// # Errors
    /// [`Refusal`]: nothing was changed.
    pub fn lock(&mut self, mut wish: Wish<'_>, wait: Option<WaitId>, tokens: Tokens<'_>) -> Result<Begun, Refusal> {
        wish.keys.sort_unstable();
        wish.keys.dedup();
        wish.holds.sort_unstable();
        wish.holds.dedup();
        let Wish { session, owner, shared, .. } = wish;
        // Another session's, too: a process that was started under a lock has a session of its own.
        if let Some(token) = wish.holds.iter().find(|token| !self.is_live(**token)) {
            return Err(Refusal::NotHeld { token: *token });
        }
        let mut in_the_way = None;
        for name in &wish.keys {
            let Some((key, state)) = self.keys.get_key_value(*name) else { continue };
            if let Some(token) = self.already_held(state, &wish) {
                return Err(Refusal::AlreadyHeld { key: Arc::clone(key), token });
            }
            if state.is_waited_for_by(session, owner) {
                return Err(Refusal::AlreadyWaits { key: Arc::clone(key) });
            }
            if in_the_way.is_none() && state.excludes(shared) {
                in_the_way = Some(key);
            }
        }
        // What is granted at once need not remember what was held meanwhile.
        let holds = if in_the_way.is_some() { wish.holds.len() } else { 0 };
        let bytes = wait_weight(wish.keys.iter().copied(), holds);
        self.ledger.check(session, bytes)?;
        if in_the_way.is_none() {
            let token = tokens().ok_or(Refusal::NoToken)?;
            let keys = wish.keys.iter().map(|name| self.name(name)).collect();
            self.grant(
                Grant {
                    session,
                    owner,
                    shared,
                    keys,
                    since_unix_ms: wish.now_unix_ms,
                    retired: false,
                    named_by: NamedBy::default(),
                },
                token,
            );
            return Ok(Begun::Granted(token));
        }
        let Some(wait) = wait else {
            let name = in_the_way.map(Arc::clone).unwrap_or_default();
            let session = self.keys.get(&name).and_then(|key| self.who_has(key)).unwrap_or_default();
            return Err(Refusal::WouldWait { name, session });
        };
        if let Some(cycle) = self.cycle_of(&wish, &mut 0)? {
            return Err(Refusal::Deadlock(cycle));
        }
        self.enqueue(wait, &wish, bytes);
        Ok(Begun::Waits)
    }

    /// The token under which a key is held by the wish's owner, or by one that it names.
    fn already_held(&self, key: &Key, wish: &Wish<'_>) -> Option<u64> {
        let is_same = |token: u64| {
            let by_name = wish.holds.binary_search(&token).is_ok();
            let grant = self.grants.get(&token).filter(|grant| !grant.retired);
            grant.is_some_and(|grant| by_name || (grant.session, grant.owner) == (wish.session, wish.owner))
        };
        match &key.holders {
            Holders::Nobody => None,
            Holders::One(token) => Some(*token).filter(|token| is_same(*token)),
            Holders::Shared(holders) => {
                let (session, owner) = (wish.session, wish.owner);
                let mut own = holders.range((session, owner, 0)..=(session, owner, u64::MAX)).map(|(.., token)| *token);
                own.find(|token| is_same(*token)).or_else(|| {
                    let named = |token: &&u64| {
                        let grant = self.grants.get(token);
                        grant.is_some_and(|grant| holders.contains(&(grant.session, grant.owner, **token)))
                    };
                    wish.holds.iter().find(named).copied()
                })
            }
        }
    }

    /// The key's name as it is known, so that it is kept once.
    fn name(&self, name: &str) -> Arc<str> {
        self.keys.get_key_value(name).map_or_else(|| Arc::from(name), |(known, _)| Arc::clone(known))
    }

    /// A session that holds the key, or waits for it first.
    fn who_has(&self, key: &Key) -> Option<u64> {
        match &key.holders {
            Holders::One(token) => self.grants.get(token).map(|grant| grant.session),
            Holders::Shared(holders) => holders.first().map(|(session, ..)| *session),
            Holders::Nobody => {
                let (first, _) = key.queue.first_key_value()?;
                self.waits.get(first).map(|waiting| waiting.session)
            }
        }
    }

    fn enqueue(&mut self, wait: WaitId, wish: &Wish<'_>, bytes: usize) {
        let Wish { session, owner, shared, .. } = *wish;
        let keys: Vec<_> = wish.keys.iter().map(|name| self.name(name)).collect();
        let mut blocked = 0;
        for name in &keys {
            let key = self.keys.entry(Arc::clone(name)).or_default();
            let waits = key.excludes(shared);
            key.enqueue(wait, session, owner, shared, keys.len() > 1);
            if waits {
                blocked += 1;
            } else {
                key.ready = Some(wait);
            }
        }
        for token in &wish.holds {
            if let Some(grant) = self.grants.get_mut(token) {
                grant.named_by.insert(wait, shared, &keys);
            }
        }
        let holds = wish.holds.clone();
        let since_unix_ms = wish.now_unix_ms;
        self.waits.insert(wait, Waiting { session, owner, shared, keys, holds, since_unix_ms, blocked });
        self.ledger.waits(session, wait, bytes);
    }

    fn grant(&mut self, grant: Grant, token: u64) {
        let bytes = weight(grant.keys.iter().map(|key| &**key));
        self.ledger.holds(grant.session, token, bytes);
        for name in &grant.keys {
            let add = |key: &mut Key| key.add_holder(grant.session, grant.owner, token, grant.shared);
            match self.keys.get_mut(name) {
                Some(key) => add(key),
                None => add(self.keys.entry(Arc::clone(name)).or_default()),
            }
        }
        self.grants.insert(token, grant);
        self.live += 1;
    }

    /// Takes a wish out of everything that knows it.
    fn take(&mut self, wait: WaitId) -> Option<Waiting> {
        let waiting = self.waits.remove(&wait)?;
        for name in &waiting.keys {
            if let Some(key) = self.keys.get_mut(name) {
                key.dequeue(wait, waiting.session, waiting.owner);
            }
        }
        for token in &waiting.holds {
            if let Some(grant) = self.grants.get_mut(token) {
                grant.named_by.remove(wait, waiting.shared, &waiting.keys);
            }
        }
        let bytes = wait_weight(waiting.keys.iter().map(|key| &**key), waiting.holds.len());
        self.ledger.waits_no_more(waiting.session, wait, bytes);
        Some(waiting)
    }

    /// Grants what has become possible at these keys, and forgets those that nobody needs.
    fn pass_on(&mut self, mut changed: Vec<Arc<str>>, tokens: Tokens<'_>, resolved: &mut Vec<Resolved>) {
        let (mut ready, mut free) = (Vec::new(), BTreeSet::new());
        loop {
            while let Some(name) = changed.pop() {
                let Some(key) = self.keys.get_mut(&name) else { continue };
                key.advance(&mut ready);
                if key.is_idle() {
                    self.keys.remove(&name);
                }
                for wait in ready.drain(..) {
                    let Some(waiting) = self.waits.get_mut(&wait) else { continue };
                    waiting.blocked -= 1;
                    if waiting.blocked == 0 {
                        free.insert(wait);
                    }
                }
            }
            // Who came first, although no two of them exclude each other: so tokens rise in the order of coming.
            let Some(wait) = free.pop_first() else { return };
            let outcome = self.grant_waiting(wait, tokens, &mut changed);
            resolved.push(Resolved { wait, outcome });
        }
    }

    /// Grants a wish that is ready at all of its keys. One that is not granted after all makes room for others.
    fn grant_waiting(&mut self, wait: WaitId, tokens: Tokens<'_>, changed: &mut Vec<Arc<str>>) -> Outcome {
        let Some(Waiting { session, owner, shared, keys, since_unix_ms, .. }) = self.take(wait) else {
            return Outcome::Refused(Refusal::NotHeld { token: 0 });
        };
        let Some(token) = tokens() else {
            changed.extend(keys);
            return Outcome::Refused(Refusal::NoToken);
        };
        let (retired, named_by) = (false, NamedBy::default());
        self.grant(Grant { session, owner, shared, keys, since_unix_ms, retired, named_by }, token);
        Outcome::Granted(token)
    }

    /// Gives a grant back: from here on it is not live. Its keys are free at once, unless it is `busy`: then
    /// [`settle`](Self::settle) frees them.
    ///
    /// # Errors
    /// [`Refusal::NotHeld`] for a token that is not this session's, or not any more.
    pub fn unlock(
        &mut self,
        session: u64,
        token: u64,
        busy: impl FnOnce() -> bool,
        tokens: Tokens<'_>,
    ) -> Result<Vec<Resolved>, Refusal> {
        let grant = self.grants.get_mut(&token).filter(|grant| !grant.retired && grant.session == session);
        let grant = grant.ok_or(Refusal::NotHeld { token })?;
        grant.retired = true;
        self.live -= 1;
        let mut resolved = Vec::new();
        if !busy() {
            let freed = self.free(token);
            self.pass_on(freed, tokens, &mut resolved);
        }
        Ok(resolved)
    }

    /// The last write under a grant that has ended is done: its keys are free.
    pub fn settle(&mut self, token: u64, tokens: Tokens<'_>) -> Vec<Resolved> {
        let mut resolved = Vec::new();
        if self.grants.get(&token).is_some_and(|grant| grant.retired) {
            let freed = self.free(token);
            self.pass_on(freed, tokens, &mut resolved);
        }
        resolved
    }

    /// Takes a grant out of everything that knows it. Answers its keys.
    fn free(&mut self, token: u64) -> Vec<Arc<str>> {
        let Some(grant) = self.grants.remove(&token) else { return Vec::new() };
        self.ledger.gives_back(grant.session, token, weight(grant.keys.iter().map(|key| &**key)));
        for name in &grant.keys {
            if let Some(key) = self.keys.get_mut(name) {
                key.remove_holder(grant.session, grant.owner, token);
            }
        }
        grant.keys
    }

    /// A request waits no longer: it was cancelled, or its time is over. None if it does not wait here.
    pub fn cancel(&mut self, wait: WaitId, tokens: Tokens<'_>) -> Option<Vec<Resolved>> {
        let waiting = self.take(wait)?;
        let mut resolved = Vec::new();
        self.pass_on(waiting.keys, tokens, &mut resolved);
        Some(resolved)
    }

    /// A session has ended, and all that it held and waited for. What it waited for is not among what is answered.
    pub fn end_session(
        &mut self,
        session: u64,
        mut busy: impl FnMut(u64) -> bool,
        tokens: Tokens<'_>,
    ) -> Vec<Resolved> {
        let mut resolved = Vec::new();
        let mut changed = Vec::new();
        // All of it, before any of it goes to others: nothing is granted to who has ended.
        for wait in self.ledger.waits_of(session) {
            changed.extend(self.take(wait).into_iter().flat_map(|waiting| waiting.keys));
        }
        for token in self.ledger.held_by(session) {
            let Some(grant) = self.grants.get_mut(&token).filter(|grant| !grant.retired) else { continue };
            grant.retired = true;
            self.live -= 1;
            if !busy(token) {
                changed.extend(self.free(token));
            }
        }
        self.ledger.forget(session);
        self.pass_on(changed, tokens, &mut resolved);
        resolved
    }

    /// Whether the grant is live, whatever session has it.
    pub fn is_live(&self, token: u64) -> bool {
        self.grants.get(&token).is_some_and(|grant| !grant.retired)
    }

    /// How many grants are live, and how many requests wait.
    pub fn counts(&self) -> (usize, usize) {
        (self.live, self.waits.len())
    }

    /// The keys that are held or waited for, in no order.
    pub fn names(&self) -> Vec<Arc<str>> {
        self.keys.keys().cloned().collect()
    }

    /// Who holds a key and who waits for it, of each at most so many; none if nobody does.
    pub fn info(&self, name: &str, most: usize) -> Option<KeyInfo> {
        let (key, state) = self.keys.get_key_value(name)?;
        let holder = |token: &u64| {
            let grant = self.grants.get(token)?;
            let (session, owner, shared, since_unix_ms) =
                (grant.session, grant.owner, grant.shared, grant.since_unix_ms);
            Some(Party { session, owner, token: *token, shared, slots: 1, since_unix_ms })
        };
        let holders = match &state.holders {
            Holders::Nobody => Vec::new(),
            Holders::One(token) => holder(token).into_iter().collect(),
            Holders::Shared(holders) => holders.iter().take(most).filter_map(|(.., token)| holder(token)).collect(),
        };
        let waiter = |wait: &WaitId| {
            let waiting = self.waits.get(wait)?;
            let Waiting { session, owner, shared, since_unix_ms, .. } = *waiting;
            Some(Party { session, owner, token: 0, shared, slots: 1, since_unix_ms })
        };
        let waiters = state.queue.keys().take(most).filter_map(waiter).collect();
        Some(KeyInfo { key: Arc::clone(key), holders, waiters })
    }

    /// What all that is held and waited for takes, in bytes.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.ledger.bytes()
    }

    /// Whether nothing at all is held, waited for or counted.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.grants.is_empty() && self.waits.is_empty() && self.ledger.is_empty()
    }
}
