//! Whether a wish for a lock would wait for itself: through those who hold its keys, or wait for them before it, and what
//! they wait for.
//!
//! Whoever waits is known to hold what it named; who named nothing is never part of a cycle. Only a request that comes can
//! close one, since those who wait already never come to wait for more. The search visits each wish once, and of each
//! key's queue and holders each part once, whatever they look like: its cost is what is held and waited for, not its square.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use super::key::{Holders, Key};
use super::locks::{Locks, Wish};
use super::parties::WaitId;

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

/// What of a key has been looked at.
#[derive(Default)]
struct Seen {
    holders: bool,
    /// All who wait before this one.
    all: Option<WaitId>,
    /// The exclusive ones of those who wait before this one.
    exclusive: Option<WaitId>,
}

#[derive(Default)]
struct Search<'a> {
    came: HashMap<WaitId, Came>,
    seen: HashMap<&'a str, Seen>,
    queue: VecDeque<WaitId>,
}

impl Locks {
    /// The cycle that a wish would close if it waited now, the wish first.
    pub(super) fn cycle_of(&self, wish: &Wish<'_>) -> Option<Vec<Step>> {
        let mut search = Search::default();
        let own = wish.keys.iter().filter_map(|name| self.keys.get_key_value(*name));
        let mut closing = search.look(self, wish, None, WaitId(u64::MAX), wish.shared, own);
        while closing.is_none()
            && let Some(at) = search.queue.pop_front()
        {
            let Some(waiting) = self.waits.get(&at) else { continue };
            let keys = waiting.keys.iter().filter_map(|name| self.keys.get_key_value(name));
            closing = search.look(self, wish, Some(at), at, waiting.shared, keys);
        }
        closing.map(|last| search.steps(self, wish, last))
    }
}

impl<'a> Search<'a> {
    /// Looks at all whom one waits for, at these keys. Answers how the wish itself is reached, if it is.
    fn look(
        &mut self,
        locks: &'a Locks,
        wish: &Wish<'_>,
        from: Option<WaitId>,
        place: WaitId,
        shared: bool,
        keys: impl Iterator<Item = (&'a Arc<str>, &'a Key)>,
    ) -> Option<Came> {
        for (name, key) in keys {
            let seen = self.seen.entry(name).or_default();
            let excluded = match key.holders {
                Holders::Nobody => false,
                Holders::One(_) => true,
                Holders::Shared(_) => !shared,
            };
            let mut tokens = Vec::new();
            if excluded && !std::mem::replace(&mut seen.holders, true) {
                match &key.holders {
                    Holders::Nobody => {}
                    Holders::One(token) => tokens.push(*token),
                    Holders::Shared(holders) => tokens.extend(holders.iter().map(|(.., token)| *token)),
                }
            }
            let mark = if shared { &mut seen.exclusive } else { &mut seen.all };
            let begin = mark.map_or(Bound::Unbounded, Bound::Included);
            let is_new = mark.is_none_or(|mark| mark < place);
            let mut before = Vec::new();
            if is_new {
                *mark = Some(place);
                let range = (begin, Bound::Excluded(place));
                if shared {
                    before.extend(key.exclusive.range(range).copied());
                } else {
                    before.extend(key.queue.range(range).map(|(wait, _)| *wait));
                }
            }
            for token in tokens {
                let Some(grant) = locks.grants.get(&token).filter(|grant| !grant.retired) else { continue };
                if wish.holds.binary_search(&token).is_ok() {
                    return Some(Came { from, key: Arc::clone(name), token });
                }
                for wait in &grant.named_by {
                    self.visit(*wait, from, name, token);
                }
            }
            for wait in before {
                self.visit(wait, from, name, 0);
            }
        }
        None
    }

    fn visit(&mut self, wait: WaitId, from: Option<WaitId>, key: &Arc<str>, token: u64) {
        if let Entry::Vacant(new) = self.came.entry(wait) {
            new.insert(Came { from, key: Arc::clone(key), token });
            self.queue.push_back(wait);
        }
    }

    /// The way from the wish back to itself.
    fn steps(&self, locks: &Locks, wish: &Wish<'_>, last: Came) -> Vec<Step> {
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
