//! Slots: groups of which at most so many are taken at a time, first come first served.
//!
//! The first who names a group decides how many slots it has. Nobody passes one that waits for more. A group is forgotten
//! when none of the sessions that have named it is left, so each session counts its groups as well as its leases.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::locks::Tokens;
use super::parties::{Begun, Ledger, Outcome, Party, Refusal, Resolved, WaitId, weight};

/// A wish for slots.
#[derive(Clone, Copy, Debug)]
pub struct Need<'a> {
    /// Who asks.
    pub session: u64,
    /// The group.
    pub group: &'a str,
    /// How many slots it is to have, at least 1.
    pub limit: u32,
    /// How many of them are asked for, at least 1.
    pub slots: u32,
    /// When it came, in milliseconds since 1970.
    pub now_unix_ms: u64,
}

/// All groups of slots.
#[derive(Debug, Default)]
pub struct Slots {
    groups: HashMap<Arc<str>, Group>,
    leases: HashMap<u64, Lease>,
    waits: HashMap<WaitId, Lease>,
    ledger: Ledger,
    /// The groups that each session has named.
    named: HashMap<u64, BTreeSet<Arc<str>>>,
    /// Counts the names of groups, as if each were held by who named it.
    names: Ledger,
}

#[derive(Debug)]
struct Group {
    limit: u32,
    taken: u64,
    leases: BTreeSet<u64>,
    queue: BTreeSet<WaitId>,
    /// How many sessions that have named it are left.
    sessions: usize,
}

/// Slots that are taken or waited for.
#[derive(Clone, Debug)]
struct Lease {
    session: u64,
    group: Arc<str>,
    /// How many slots it took the group to have.
    limit: u32,
    slots: u32,
    since_unix_ms: u64,
}

/// A group in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupInfo {
    /// Its name.
    pub group: Arc<str>,
    /// How many slots it has.
    pub limit: u32,
    /// How many are taken.
    pub taken: u64,
    /// Who has some.
    pub holders: Vec<Party>,
    /// Who waits for some, longest first.
    pub waiters: Vec<Party>,
}

impl Slots {
    /// Takes slots, or lets the request wait as `wait`; without that number it does not wait.
    ///
    /// # Errors
    /// [`Refusal`]: nothing was changed, but that the session has named the group if it would have had to wait.
    pub fn acquire(&mut self, need: Need<'_>, wait: Option<WaitId>, tokens: Tokens<'_>) -> Result<Begun, Refusal> {
        let Need { session, group: name, limit: asked, slots, now_unix_ms } = need;
        let limit = self.groups.get(name).map_or(asked, |group| group.limit);
        if limit != asked {
            return Err(Refusal::LimitMismatch { group: name.into(), limit, asked });
        }
        if slots > limit {
            return Err(Refusal::MoreThanLimit { limit });
        }
        self.ledger.check(session, weight([name]))?;
        let free = self.groups.get(name).is_none_or(|group| group.queue.is_empty() && group.has_room_for(slots));
        self.check_name(session, name)?;
        let token = if free { Some(tokens().ok_or(Refusal::NoToken)?) } else { None };
        let group = self.name(session, name, limit);
        let lease = Lease { session, group, limit, slots, since_unix_ms: now_unix_ms };
        match (token, wait) {
            (Some(token), _) => {
                self.take_slots(lease, token);
                Ok(Begun::Granted(token))
            }
            (None, Some(wait)) => {
                if let Some(group) = self.groups.get_mut(&lease.group) {
                    group.queue.insert(wait);
                }
                self.ledger.waits(session, wait, weight([name]));
                self.waits.insert(wait, lease);
                Ok(Begun::Waits)
            }
            (None, None) => {
                let session = self.groups.get(name).and_then(|group| self.who_has(group)).unwrap_or_default();
                Err(Refusal::WouldWait { name: lease.group, session })
            }
        }
    }

    /// Whether the session may name this group.
    fn check_name(&self, session: u64, name: &str) -> Result<(), Refusal> {
        let is_known = self.named.get(&session).is_some_and(|named| named.contains(name));
        if is_known { Ok(()) } else { self.names.check(session, weight([name])) }
    }

    /// The session names the group, which is made if there is none.
    fn name(&mut self, session: u64, name: &str, limit: u32) -> Arc<str> {
        let known = self.groups.get_key_value(name).map(|(name, _)| Arc::clone(name));
        let name = known.unwrap_or_else(|| Arc::from(name));
        let new = || Group { limit, taken: 0, leases: BTreeSet::new(), queue: BTreeSet::new(), sessions: 0 };
        let group = self.groups.entry(Arc::clone(&name)).or_insert_with(new);
        let named = self.named.entry(session).or_default();
        if named.insert(Arc::clone(&name)) {
            group.sessions += 1;
            self.names.holds(session, named.len() as u64, weight([&*name]));
        }
        name
    }

    fn take_slots(&mut self, lease: Lease, token: u64) {
        if let Some(group) = self.groups.get_mut(&lease.group) {
            group.taken += u64::from(lease.slots);
            group.leases.insert(token);
        }
        self.ledger.holds(lease.session, token, weight([&*lease.group]));
        self.leases.insert(token, lease);
    }

    /// A session that has slots of the group, or waits first.
    fn who_has(&self, group: &Group) -> Option<u64> {
        let lease = group.leases.first().and_then(|lease| self.leases.get(lease));
        lease.or_else(|| self.waits.get(group.queue.first()?)).map(|lease| lease.session)
    }

    /// Gives slots back.
    ///
    /// # Errors
    /// [`Refusal::NotHeld`] for a lease that is not this session's, or not any more.
    pub fn release(&mut self, session: u64, lease: u64, tokens: Tokens<'_>) -> Result<Vec<Resolved>, Refusal> {
        let is_own = self.leases.get(&lease).is_some_and(|lease| lease.session == session);
        let group = if is_own { self.give_back(lease) } else { None };
        let group = group.ok_or(Refusal::NotHeld { token: lease })?;
        let mut resolved = Vec::new();
        self.pass_on(&group, tokens, &mut resolved);
        Ok(resolved)
    }

    fn give_back(&mut self, token: u64) -> Option<Arc<str>> {
        let lease = self.leases.remove(&token)?;
        if let Some(group) = self.groups.get_mut(&lease.group) {
            group.taken -= u64::from(lease.slots);
            group.leases.remove(&token);
        }
        self.ledger.gives_back(lease.session, token, weight([&*lease.group]));
        Some(lease.group)
    }

    /// Takes a request that waits out of everything that knows it.
    fn take(&mut self, wait: WaitId) -> Option<Lease> {
        let lease = self.waits.remove(&wait)?;
        if let Some(group) = self.groups.get_mut(&lease.group) {
            group.queue.remove(&wait);
        }
        self.ledger.waits_no_more(lease.session, wait, weight([&*lease.group]));
        Some(lease)
    }

    /// Serves those who wait longest, as far as there is room.
    fn pass_on(&mut self, name: &str, tokens: Tokens<'_>, resolved: &mut Vec<Resolved>) {
        while let Some(group) = self.groups.get(name)
            && let Some(wait) = group.queue.first().copied()
            && self.waits.get(&wait).is_some_and(|need| group.has_room_for(need.slots))
            && let Some(lease) = self.take(wait)
        {
            let outcome = match tokens() {
                Some(token) => {
                    self.take_slots(lease, token);
                    Outcome::Granted(token)
                }
                None => Outcome::Refused(Refusal::NoToken),
            };
            resolved.push(Resolved { wait, outcome });
        }
    }

    /// Changes how many slots a group has, at least 1. Who has some keeps them; who waits for more than that is refused.
    ///
    /// # Errors
    /// [`Refusal`]: nothing was changed.
    pub fn set_limit(
        &mut self,
        session: u64,
        name: &str,
        limit: u32,
        tokens: Tokens<'_>,
    ) -> Result<Vec<Resolved>, Refusal> {
        self.check_name(session, name)?;
        let name = self.name(session, name, limit);
        let Some(group) = self.groups.get_mut(&name) else { return Ok(Vec::new()) };
        group.limit = limit;
        let asks_more = |wait: &&WaitId| self.waits.get(wait).is_some_and(|need| need.slots > limit);
        let too_many: Vec<WaitId> = group.queue.iter().filter(asks_more).copied().collect();
        let mut resolved = Vec::new();
        for wait in too_many {
            let Some(lease) = self.take(wait) else { continue };
            let refusal = Refusal::LimitMismatch { group: Arc::clone(&name), limit, asked: lease.limit };
            resolved.push(Resolved { wait, outcome: Outcome::Refused(refusal) });
        }
        self.pass_on(&name, tokens, &mut resolved);
        Ok(resolved)
    }

    /// A request waits no longer: it was cancelled, or its time is over. None if it does not wait here.
    pub fn cancel(&mut self, wait: WaitId, tokens: Tokens<'_>) -> Option<Vec<Resolved>> {
        let lease = self.take(wait)?;
        let mut resolved = Vec::new();
        self.pass_on(&lease.group, tokens, &mut resolved);
        Some(resolved)
    }

    /// A session has ended, and all that it had, waited for and named.
    pub fn end_session(&mut self, session: u64, tokens: Tokens<'_>) -> Vec<Resolved> {
        let mut changed = BTreeSet::new();
        for wait in self.ledger.waits_of(session) {
            changed.extend(self.take(wait).map(|lease| lease.group));
        }
        for lease in self.ledger.held_by(session) {
            changed.extend(self.give_back(lease));
        }
        self.ledger.forget(session);
        for (at, name) in (1..).zip(self.named.remove(&session).unwrap_or_default()) {
            self.names.gives_back(session, at, weight([&*name]));
            if let Some(group) = self.groups.get_mut(&name) {
                group.sessions -= 1;
                if group.sessions == 0 {
                    self.groups.remove(&name);
                }
            }
        }
        self.names.forget(session);
        let mut resolved = Vec::new();
        for name in changed {
            self.pass_on(&name, tokens, &mut resolved);
        }
        resolved
    }

    /// How many slots are taken, and how many requests wait.
    pub fn counts(&self) -> (u64, usize) {
        (self.groups.values().map(|group| group.taken).sum(), self.waits.len())
    }

    /// The groups, in no order.
    pub fn names(&self) -> Vec<Arc<str>> {
        self.groups.keys().cloned().collect()
    }

    /// Who has slots of a group and who waits for some, of each at most so many; none if there is no such group.
    pub fn info(&self, name: &str, most: usize) -> Option<GroupInfo> {
        let (name, group) = self.groups.get_key_value(name)?;
        let party = |lease: &Lease, token| Party {
            session: lease.session,
            owner: 0,
            token,
            shared: false,
            slots: lease.slots,
            since_unix_ms: lease.since_unix_ms,
        };
        let holder = |token: &u64| self.leases.get(token).map(|lease| party(lease, *token));
        let waiter = |wait: &WaitId| self.waits.get(wait).map(|lease| party(lease, 0));
        Some(GroupInfo {
            group: Arc::clone(name),
            limit: group.limit,
            taken: group.taken,
            holders: group.leases.iter().take(most).filter_map(holder).collect(),
            waiters: group.queue.iter().take(most).filter_map(waiter).collect(),
        })
    }

    /// Whether nothing at all is taken, waited for, named or counted.
    pub fn is_empty(&self) -> bool {
        let has_none = self.groups.is_empty() && self.leases.is_empty() && self.waits.is_empty();
        has_none && self.named.is_empty() && self.ledger.is_empty() && self.names.is_empty()
    }
}

impl Group {
    fn has_room_for(&self, slots: u32) -> bool {
        self.taken + u64::from(slots) <= u64::from(self.limit)
    }
}
