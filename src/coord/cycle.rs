//! Whether a wish for a lock would wait for itself: through those who hold its keys, or wait for them before it, and what
//! they wait for.
//!
//! Whoever waits is known to hold what it named; who named nothing is never part of a cycle. Only a request that comes can
//! close one, since those who wait already never come to wait for more; and only if somebody waits for what it names.
//!
//! Where one waits behind others at a key, it waits for all that they wait for at that key. So of a queue, and of those who
//! name one grant, only those count who wait for several keys, and the last one of the others. The search looks at each of
//! these, at each key and at each grant once, and after [`MAX_CYCLE_STEPS`] it gives up: the mutex around all of this is not
//! held for long, whatever is waited for.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque, hash_map};
use std::ops::Bound;
use std::sync::Arc;

use commonhold_proto::limits::MAX_CYCLE_STEPS;

use super::key::{Holders, Key};
use super::locks::{Locks, Wish};
use super::parties::{Refusal, WaitId};

/// One who waits in a cycle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The session that waits.
    pub session: u64,
    /// Which of its lock objects.
    pub owner: u64,
    /// The key through which it waits for the next one.
    pub waits_for: Arc<str>,
    /// The token that it holds and the one before it waits for; 0 if that one only waits behind it.
    pub holds: u64,
}

/// How the search came to a wish.
struct Came {
    /// From which one; none is the request.
    from: Option<WaitId>,
    /// Through this key.
    key: Arc<str>,
    /// Because it holds this; 0 because it waits before.
    token: u64,
}

/// Who waits while it holds a grant.
#[derive(Debug, Default)]
pub(super) struct NamedBy {
    /// Those that wait for several keys.
    many: BTreeSet<WaitId>,
    /// Those that wait for one, by that key and by whether shared.
    one: BTreeMap<(Arc<str>, bool), BTreeSet<WaitId>>,
}

impl NamedBy {
    /// One waits for these keys.
    pub(super) fn insert(&mut self, wait: WaitId, shared: bool, keys: &[Arc<str>]) {
        match keys {
            [key] => self.one.entry((Arc::clone(key), shared)).or_default().insert(wait),
            _ => self.many.insert(wait),
        };
    }

    /// It waits no more.
    pub(super) fn remove(&mut self, wait: WaitId, shared: bool, keys: &[Arc<str>]) {
        let [key] = keys else {
            self.many.remove(&wait);
            return;
        };
        if let Entry::Occupied(mut at) = self.one.entry((Arc::clone(key), shared)) {
            at.get_mut().remove(&wait);
            if at.get().is_empty() {
                at.remove();
            }
        }
    }

    /// Those through whom all is reached that any of them waits for.
    fn waits(&self) -> impl Iterator<Item = WaitId> {
        let last = |waits: &BTreeSet<WaitId>| waits.last().copied();
        self.many.iter().copied().chain(self.one.values().filter_map(last))
    }
}

/// What of a key has been looked at.
#[derive(Default)]
struct Seen {
    holders: bool,
    /// All who wait, up to this one.
    waits: Option<WaitId>,
}

#[derive(Default)]
struct Search<'a> {
    came: HashMap<WaitId, Came>,
    keys: HashMap<&'a str, Seen>,
    grants: HashSet<u64>,
    queue: VecDeque<WaitId>,
    steps: usize,
}

/// How many steps it is to look for a key: long names take time to hash.
fn steps_of(name: &str) -> usize {
    1 + name.len() / 256
}

impl Locks {
    /// The cycle that a wish would close if it waited now, the wish first. Its keys and grants are in order, each once. Adds to
    /// `steps` what the search has looked at.
    ///
    /// # Errors
    /// [`Refusal::TooTangled`] after [`MAX_CYCLE_STEPS`].
    pub(super) fn cycle_of(&self, wish: &Wish<'_>, steps: &mut usize) -> Result<Option<Vec<Step>>, Refusal> {
        if !self.may_be_waited_for(&wish.holds, steps) {
            return Ok(None);
        }
        let mut search = Search::default();
        let closing = search.closing(self, wish);
        *steps += search.steps;
        Ok(closing?.map(|last| search.way(self, wish, last)))
    }

    /// Whether anybody waits for a key of one of these grants. If that takes long to tell, it may be.
    fn may_be_waited_for(&self, holds: &[u64], steps: &mut usize) -> bool {
        let most = *steps + MAX_CYCLE_STEPS / 4;
        let grants = holds.iter().filter_map(|token| self.grants.get(token));
        for name in grants.flat_map(|grant| &grant.keys) {
            *steps += steps_of(name);
            if *steps > most || self.keys.get(name).is_some_and(|key| !key.queue.is_empty()) {
                return true;
            }
        }
        false
    }
}

impl<'a> Search<'a> {
    /// How the wish is reached from itself, if it is.
    fn closing(&mut self, locks: &'a Locks, wish: &Wish<'_>) -> Result<Option<Came>, Refusal> {
        let own = wish.keys.iter().filter_map(|name| locks.keys.get_key_value(*name));
        let mut closing = self.look(locks, wish, None, WaitId(u64::MAX), wish.shared, own)?;
        while closing.is_none()
            && let Some(at) = self.queue.pop_front()
        {
            let Some(waiting) = locks.waits.get(&at) else { continue };
            let keys = waiting.keys.iter().filter_map(|name| locks.keys.get_key_value(name));
            closing = self.look(locks, wish, Some(at), at, waiting.shared, keys)?;
        }
        Ok(closing)
    }

    fn count(&mut self, more: usize) -> Result<(), Refusal> {
        self.steps += more;
        if self.steps > MAX_CYCLE_STEPS {
            return Err(Refusal::TooTangled { limit: MAX_CYCLE_STEPS as u64 });
        }
        Ok(())
    }

    /// Looks at all whom one waits for, at these keys. Answers how the wish itself is reached, if it is.
    fn look(
        &mut self,
        locks: &'a Locks,
        wish: &Wish<'_>,
        from: Option<WaitId>,
        place: WaitId,
        shared: bool,
        keys: impl Iterator<Item = (&'a Arc<str>, &'a Key)>,
    ) -> Result<Option<Came>, Refusal> {
        for (name, key) in keys {
            self.count(steps_of(name))?;
            // The last one before, which waits for all before it at this key: none overtakes another that excludes it.
            let last = if shared {
                key.exclusive.range(..place).next_back().copied()
            } else {
                key.queue.range(..place).next_back().map(|(wait, _)| *wait)
            };
            let excluded = match key.holders {
                Holders::Nobody => false,
                Holders::One(_) => true,
                Holders::Shared(_) => !shared || last.is_some(),
            };
            let seen = self.keys.entry(name).or_default();
            let new_holders = excluded && !std::mem::replace(&mut seen.holders, true);
            let new_waits = last.filter(|last| seen.waits.is_none_or(|seen| seen < *last));
            let begin = seen.waits.map_or(Bound::Unbounded, Bound::Excluded);
            seen.waits = new_waits.or(seen.waits);
            if new_holders && let Some(closing) = self.look_at_holders(locks, wish, from, name, key)? {
                return Ok(Some(closing));
            }
            for wait in new_waits.iter().flat_map(|last| key.many.range((begin, Bound::Included(*last)))) {
                self.visit(*wait, from, name, 0)?;
            }
        }
        Ok(None)
    }

    /// Those who hold the key are waited for, and so is whoever waits while it holds what they have.
    fn look_at_holders(
        &mut self,
        locks: &Locks,
        wish: &Wish<'_>,
        from: Option<WaitId>,
        name: &Arc<str>,
        key: &Key,
    ) -> Result<Option<Came>, Refusal> {
        let (one, shared) = match &key.holders {
            Holders::Nobody => (None, None),
            Holders::One(token) => (Some(*token), None),
            Holders::Shared(holders) => (None, Some(holders)),
        };
        let tokens = one.into_iter().chain(shared.into_iter().flatten().map(|(.., token)| *token));
        for token in tokens {
            self.count(1)?;
            let Some(grant) = locks.grants.get(&token).filter(|grant| !grant.retired) else { continue };
            if wish.holds.binary_search(&token).is_ok() {
                return Ok(Some(Came { from, key: Arc::clone(name), token }));
            }
            if self.grants.insert(token) {
                for wait in grant.named_by.waits() {
                    self.visit(wait, from, name, token)?;
                }
            }
        }
        Ok(None)
    }

    fn visit(&mut self, wait: WaitId, from: Option<WaitId>, key: &Arc<str>, token: u64) -> Result<(), Refusal> {
        self.count(1)?;
        if let hash_map::Entry::Vacant(new) = self.came.entry(wait) {
            new.insert(Came { from, key: Arc::clone(key), token });
            self.queue.push_back(wait);
        }
        Ok(())
    }

    /// The way from the wish back to itself.
    fn way(&self, locks: &Locks, wish: &Wish<'_>, last: Came) -> Vec<Step> {
        let mut steps = Vec::new();
        let (mut at, mut waits_for) = (last.from, last.key);
        // Backwards: each one waits for the next through the key by which that was reached.
        while let Some((wait, came)) = at.and_then(|wait| Some((wait, self.came.get(&wait)?))) {
            if let Some(waiting) = locks.waits.get(&wait) {
                let (session, owner, holds) = (waiting.session, waiting.owner, came.token);
                steps.push(Step { session, owner, waits_for, holds });
            }
            (at, waits_for) = (came.from, Arc::clone(&came.key));
        }
        steps.push(Step { session: wish.session, owner: wish.owner, waits_for, holds: last.token });
        steps.reverse();
        steps
    }
}
