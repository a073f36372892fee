//! What the state machines share: how those who wait are called and told, why something is refused, and how much one
//! session may have.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use commonhold_proto::limits::{MAX_ALL_HOLDINGS_BYTES, MAX_HOLDINGS, MAX_HOLDINGS_BYTES};

use super::cycle::Step;

/// A request that waits. Whoever calls gives them out, rising: the order is that of their coming.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaitId(pub u64);

/// What became of a request that may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// It is granted, under this token.
    Granted(u64),
    /// This session is elected.
    Won,
    /// Another session is at it.
    Running,
    /// It is done.
    Done,
    /// It waits, and is among the [`Resolved`] of some later step.
    Waits,
}

/// How the waiting of a request ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is granted, under this token.
    Granted(u64),
    /// This session is elected.
    Won,
    /// What it waited for was done by another one.
    Done,
    /// It is not granted.
    Refused(Refusal),
}

/// A request that waits no longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Which.
    pub wait: WaitId,
    /// What became of it.
    pub outcome: Outcome,
}

/// Why something is not granted or done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is not free, and the request was not to wait.
    WouldWait {
        /// The key or group that is not free.
        name: Arc<str>,
        /// A session that has it, or waits before.
        session: u64,
    },
    /// The owner has the key already.
    AlreadyHeld {
        /// The key.
        key: Arc<str>,
        /// Under which token.
        token: u64,
    },
    /// The owner waits for the key already.
    AlreadyWaits {
        /// The key.
        key: Arc<str>,
    },
    /// It would wait for itself: who waits for whom, beginning with the request.
    Deadlock(Vec<Step>),
    /// A token, lease or election that is not this session's.
    NotHeld {
        /// The token or lease; 0 for an election.
        token: u64,
    },
    /// The group has so many slots.
    LimitMismatch {
        /// The group.
        group: Arc<str>,
        /// How many it has.
        limit: u32,
        /// How many the request says.
        asked: u32,
    },
    /// It asks for more slots than the group has.
    MoreThanLimit {
        /// How many there are.
        limit: u32,
    },
    /// The session has or waits for as many as it may.
    TooMany {
        /// How many it would be.
        got: u64,
        /// How many it may be.
        limit: u64,
    },
    /// The names of all that somebody has or waits for would take too much room.
    TooLarge {
        /// Who has them.
        of: Whose,
        /// Bytes.
        got: u64,
        /// Most bytes.
        limit: u64,
    },
    /// Too much would have to be looked through to tell whether it would wait for itself.
    TooTangled {
        /// Most steps.
        limit: u64,
    },
    /// No token can be given.
    NoToken,
}

/// Whose names take too much room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The session's.
    Session,
    /// Those of all sessions together.
    All,
    /// Those of elections that are done, which are nobody's any more and are kept.
    Done,
}

/// Somebody who holds something or waits for it, in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Party {
    /// The session.
    pub session: u64,
    /// Which of its lock objects; 0 for what has none.
    pub owner: u64,
    /// The token or lease; 0 while it waits.
    pub token: u64,
    /// Whether it is shared with others.
    pub shared: bool,
    /// How many slots.
    pub slots: u32,
    /// Since when, in milliseconds since 1970.
    pub since_unix_ms: u64,
}

/// What a thing takes beside its names: its places in the tables, roughly.
const OVERHEAD_BYTES: usize = 256;

/// What one grant takes that is held meanwhile by one who waits: its places with the wait and with the grant, roughly.
const HOLD_BYTES: usize = 128;

/// What one session has in a state machine.
#[derive(Debug, Default)]
struct Account {
    held: BTreeSet<u64>,
    waits: BTreeSet<WaitId>,
    bytes: usize,
}

/// What each session has and waits for, so that it can be bounded, and ended without looking at anything else.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    accounts: HashMap<u64, Account>,
    bytes: usize,
}

/// How much room a thing with these names takes in a [`Ledger`].
pub(super) fn weight<'a>(names: impl IntoIterator<Item = &'a str>) -> usize {
    names.into_iter().map(|name| name.len() + OVERHEAD_BYTES).sum()
}

/// How much room one takes that waits for these names and is remembered with so many grants that it holds meanwhile.
pub(super) fn wait_weight<'a>(names: impl IntoIterator<Item = &'a str>, holds: usize) -> usize {
    weight(names) + holds * HOLD_BYTES
}

impl Ledger {
    /// Whether the session may have one more thing of this weight.
    pub(super) fn check(&self, session: u64, bytes: usize) -> Result<(), Refusal> {
        let account = self.accounts.get(&session);
        let (count, own) = account.map_or((0, 0), |account| (account.held.len() + account.waits.len(), account.bytes));
        if count >= MAX_HOLDINGS {
            return Err(Refusal::TooMany { got: count as u64 + 1, limit: MAX_HOLDINGS as u64 });
        }
        let room = |of, used: usize, limit: usize| {
            let got = used + bytes;
            if got <= limit {
                return Ok(());
            }
            Err(Refusal::TooLarge { of, got: got as u64, limit: limit as u64 })
        };
        room(Whose::Session, own, MAX_HOLDINGS_BYTES)?;
        room(Whose::All, self.bytes, MAX_ALL_HOLDINGS_BYTES)
    }

    pub(super) fn holds(&mut self, session: u64, token: u64, bytes: usize) {
        let account = self.accounts.entry(session).or_default();
        account.held.insert(token);
        account.bytes += bytes;
        self.bytes += bytes;
    }

    pub(super) fn waits(&mut self, session: u64, wait: WaitId, bytes: usize) {
        let account = self.accounts.entry(session).or_default();
        account.waits.insert(wait);
        account.bytes += bytes;
        self.bytes += bytes;
    }

    pub(super) fn gives_back(&mut self, session: u64, token: u64, bytes: usize) {
        // What is given back after its session has ended is counted in the sum only.
        if let Some(account) = self.accounts.get_mut(&session)
            && account.held.remove(&token)
        {
            account.bytes -= bytes;
        }
        self.bytes -= bytes;
    }

    pub(super) fn waits_no_more(&mut self, session: u64, wait: WaitId, bytes: usize) {
        if let Some(account) = self.accounts.get_mut(&session)
            && account.waits.remove(&wait)
        {
            account.bytes -= bytes;
        }
        self.bytes -= bytes;
    }

    /// The tokens that the session has, in order.
    pub(super) fn held_by(&self, session: u64) -> Vec<u64> {
        self.accounts.get(&session).map_or_else(Vec::new, |account| account.held.iter().copied().collect())
    }

    /// What the session waits for, longest first.
    pub(super) fn waits_of(&self, session: u64) -> Vec<WaitId> {
        self.accounts.get(&session).map_or_else(Vec::new, |account| account.waits.iter().copied().collect())
    }

    /// The session has ended, and so has all that it had.
    pub(super) fn forget(&mut self, session: u64) {
        if let Some(account) = self.accounts.remove(&session) {
            // What is still being ended is uncounted when it is.
            debug_assert!(account.waits.is_empty());
        }
    }

    /// What all sessions have and wait for.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing is counted.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0 && self.accounts.is_empty()
    }
}
