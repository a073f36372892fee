//! What the daemon grants to a session (locks, slots, elections), the same for every driver: how it is asked for, how it is
//! known to be held still, and how it is given back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use commonhold_proto::{Fault, LockWish, Verb};

use super::core::Reply;
use super::error::Error;
use super::read;

/// How much later than the daemon a client ends a wait by its own clock, so that it is the daemon that ends it wherever
/// there is one that answers.
pub(super) const LATER: Duration = Duration::from_millis(500);

/// How long a client that has cancelled a wait by its own clock waits for what the daemon says to that.
pub(super) const LAST_WORD: Duration = Duration::from_millis(500);

/// What was waited for by who is told no more than that the time was up.
pub(super) const TO_BE_FREE: &str = "what it asked for to be free";

/// The last number that a lock object of this process was given.
static OWNERS: AtomicU64 = AtomicU64::new(0);

/// What a session was granted: what its guard knows of it, for writes that are done only while it is held.
///
/// The guards of locks give theirs by `AsRef`, so that [`Batch::fenced_by`](super::Batch::fenced_by) and `holding` serve
/// every driver.
#[derive(Clone, Debug)]
pub struct Grant {
    what: What,
    /// The token of a lock, the number of a lease, 0 for an election.
    number: u64,
    /// The number of the connection that it was granted on, and of the one that there is.
    connection: u64,
    current: Arc<AtomicU64>,
}

#[derive(Clone, Debug)]
enum What {
    Lock,
    Slots(u32),
    Election(String),
}

impl Grant {
    /// The fencing token of a lock: greater than those of all earlier locks of the store, and never given twice. 0 for what
    /// has none.
    pub fn token(&self) -> u64 {
        if matches!(self.what, What::Lock) { self.number } else { 0 }
    }

    /// Whether the connection that it was granted on still is the client's, as far as the client knows. One atomic load.
    pub fn is_held(&self) -> bool {
        self.current.load(Ordering::Acquire) == self.connection
    }

    pub(super) fn connection(&self) -> u64 {
        self.connection
    }

    /// How many slots.
    pub(super) fn slots(&self) -> u32 {
        if let What::Slots(slots) = self.what { slots } else { 0 }
    }

    /// The request that ends it; `done` is for elections.
    pub(super) fn ending(&self, done: bool) -> Verb<'_> {
        match &self.what {
            What::Lock => Verb::Unlock { token: self.number },
            What::Slots(_) => Verb::Release { lease: self.number },
            What::Election(name) => Verb::Initialized { name, done },
        }
    }

    /// A lock, if the reply is one; `current` is the number of the connection that there is.
    pub(super) fn lock(reply: &Reply, current: &Arc<AtomicU64>) -> Result<Self, Error> {
        Ok(Self::new(What::Lock, read::locked(reply)?, reply, current))
    }

    /// So many slots, if the reply is a lease of them.
    pub(super) fn of_slots(slots: u32, reply: &Reply, current: &Arc<AtomicU64>) -> Result<Self, Error> {
        Ok(Self::new(What::Slots(slots), read::acquired(reply)?, reply, current))
    }

    /// An election that the reply has said to be won.
    pub(super) fn election(name: &str, reply: &Reply, current: &Arc<AtomicU64>) -> Self {
        Self::new(What::Election(name.to_owned()), 0, reply, current)
    }

    fn new(what: What, number: u64, reply: &Reply, current: &Arc<AtomicU64>) -> Self {
        Self { what, number, connection: reply.connection(), current: Arc::clone(current) }
    }
}

impl AsRef<Self> for Grant {
    fn as_ref(&self) -> &Self {
        self
    }
}

/// What a lock object asks for.
#[derive(Debug)]
pub(super) struct Wish {
    keys: Vec<String>,
    pub(super) shared: bool,
    pub(super) timeout: Option<Duration>,
    pub(super) holds: Vec<u64>,
    owner: AtomicU64,
}

impl Wish {
    pub(super) fn new(keys: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let keys = keys.into_iter().map(Into::into).collect();
        Self { keys, shared: false, timeout: None, holds: Vec::new(), owner: AtomicU64::new(next_owner()) }
    }

    pub(super) fn keys(&self) -> &[String] {
        &self.keys
    }

    pub(super) fn verb(&self, wait: bool) -> Verb<'_> {
        let (keys, holds) = (self.keys.iter().map(String::as_str).collect(), self.holds.clone());
        Verb::Lock(LockWish { keys, shared: self.shared, owner: self.owner.load(Ordering::Relaxed), holds, wait })
    }

    /// A wish ended without the daemon's word: it may have been granted, and is about to be given back. Until it is, the owner
    /// would have its keys already.
    pub(super) fn be_another_owner(&self) {
        self.owner.store(next_owner(), Ordering::Relaxed);
    }

    /// The same if `error` is not the daemon's word.
    pub(super) fn in_doubt(&self, error: &Error) {
        if !matches!(error, Error::Fault(_)) {
            self.be_another_owner();
        }
    }
}

impl Clone for Wish {
    fn clone(&self) -> Self {
        let (keys, holds) = (self.keys.clone(), self.holds.clone());
        Self { keys, shared: self.shared, timeout: self.timeout, holds, owner: AtomicU64::new(next_owner()) }
    }
}

fn next_owner() -> u64 {
    OWNERS.fetch_add(1, Ordering::Relaxed) + 1
}

/// `None` where the fault says that it is not free.
pub(super) fn if_free<T>(tried: Result<T, Error>) -> Result<Option<T>, Error> {
    match tried {
        Ok(granted) => Ok(Some(granted)),
        Err(Error::Fault(Fault::WouldWait { .. })) => Ok(None),
        Err(error) => Err(error),
    }
}

/// How long the daemon is to wait: none is for ever, and for it 0 is that.
pub(super) fn waiting_ms(timeout: Option<Duration>) -> u32 {
    timeout.map_or(0, |timeout| u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX).max(1))
}

/// A wait that the client has cancelled ended because its time was up.
pub(super) fn in_time<T>(waited: Result<T, Error>, began: Instant) -> Result<T, Error> {
    match waited {
        Err(Error::Fault(Fault::Cancelled)) => {
            Err(Error::TimedOut { waited: began.elapsed(), waiting_for: TO_BE_FREE })
        }
        other => other,
    }
}
