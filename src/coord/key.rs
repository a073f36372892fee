//! One key: who holds it, and who waits for it in which order.
//!
//! Whoever waits here without being excluded is *ready*: always the first ones of the queue, and once ready they remain so.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::parties::WaitId;

/// A key that is held or waited for.
#[derive(Debug, Default)]
pub(super) struct Key {
    pub(super) holders: Holders,
    /// Who waits, and whether shared.
    pub(super) queue: BTreeMap<WaitId, bool>,
    /// The exclusive ones among them.
    pub(super) exclusive: BTreeSet<WaitId>,
    /// Those among them that wait for other keys, too.
    pub(super) many: BTreeSet<WaitId>,
    /// The sessions and owners of all who wait. Each of them waits here once.
    owners: BTreeSet<(u64, u64)>,
    /// Those up to here are ready.
    pub(super) ready: Option<WaitId>,
}

#[derive(Debug, Default)]
pub(super) enum Holders {
    #[default]
    Nobody,
    /// By token.
    One(u64),
    /// By session, owner and token; never empty.
    Shared(BTreeSet<(u64, u64, u64)>),
}

impl Key {
    /// Whether a wish that comes now must wait here.
    pub(super) fn excludes(&self, shared: bool) -> bool {
        match self.holders {
            Holders::Shared(_) | Holders::Nobody if shared => !self.exclusive.is_empty(),
            Holders::One(_) | Holders::Shared(_) => true,
            Holders::Nobody => !self.queue.is_empty(),
        }
    }

    /// Adds those that have become ready.
    pub(super) fn advance(&mut self, ready: &mut Vec<WaitId>) {
        if matches!(self.holders, Holders::One(_)) {
            return;
        }
        let Some((first, shared)) = self.queue.first_key_value().map(|(first, shared)| (*first, *shared)) else {
            return;
        };
        if !shared {
            if matches!(self.holders, Holders::Nobody) && self.ready.is_none_or(|ready| ready < first) {
                self.ready = Some(first);
                ready.push(first);
            }
            return;
        }
        let from = self.ready.map_or(Bound::Unbounded, Bound::Excluded);
        let end = self.exclusive.first().map_or(Bound::Unbounded, |exclusive| Bound::Excluded(*exclusive));
        if let (Bound::Excluded(from), Bound::Excluded(end)) = (from, end)
            && from >= end
        {
            return;
        }
        let before = ready.len();
        ready.extend(self.queue.range((from, end)).map(|(wait, _)| *wait));
        if ready.len() > before {
            self.ready = ready.last().copied();
        }
    }

    pub(super) fn add_holder(&mut self, session: u64, owner: u64, token: u64, shared: bool) {
        match &mut self.holders {
            Holders::Shared(holders) => drop(holders.insert((session, owner, token))),
            holders if shared => *holders = Holders::Shared(BTreeSet::from([(session, owner, token)])),
            holders => *holders = Holders::One(token),
        }
    }

    pub(super) fn remove_holder(&mut self, session: u64, owner: u64, token: u64) {
        let is_last = match &mut self.holders {
            Holders::Shared(holders) => {
                holders.remove(&(session, owner, token));
                holders.is_empty()
            }
            _ => true,
        };
        if is_last {
            self.holders = Holders::Nobody;
        }
    }

    /// Whether this owner waits here.
    pub(super) fn is_waited_for_by(&self, session: u64, owner: u64) -> bool {
        self.owners.contains(&(session, owner))
    }

    /// One comes to wait, `many` if for other keys, too.
    pub(super) fn enqueue(&mut self, wait: WaitId, session: u64, owner: u64, shared: bool, many: bool) {
        self.queue.insert(wait, shared);
        if many {
            self.many.insert(wait);
        }
        self.owners.insert((session, owner));
        if !shared {
            self.exclusive.insert(wait);
        }
    }

    pub(super) fn dequeue(&mut self, wait: WaitId, session: u64, owner: u64) {
        self.queue.remove(&wait);
        self.owners.remove(&(session, owner));
        self.exclusive.remove(&wait);
        self.many.remove(&wait);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && matches!(self.holders, Holders::Nobody)
    }
}
