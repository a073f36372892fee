//! What clients and daemon say of update flags, locks, slots and watches. The rules of `message.rs` hold here, too.
//!
//! All of it belongs to the session that asked and ends with it, whatever ended the session. Names of locks, slots and
//! elections are plain text that the clients agree upon; they have nothing to do with keys of records.

use serde::{Deserialize, Serialize};

use crate::codec::list;
#[cfg(doc)]
use crate::fault::Fault;
#[cfg(doc)]
use crate::message::{Answer, Verb};
use crate::names::Seq;

/// What to do with the update flag of a namespace. Every session has one of its own; that one word is behind all flags of
/// a namespace is the daemon's affair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(wincode::SchemaRead, wincode::SchemaWrite))]
pub enum FlagAction {
    /// The session has one from here on. It begins cleared, or set with `set`: for a client that had one on a connection
    /// that was lost, and cannot know what it missed. Registering again changes it likewise.
    Register {
        /// Whether it begins set.
        set: bool,
    },
    /// Only tells whether it is set.
    Look,
    /// Clears that of this session.
    Clear,
    /// Sets those of all sessions.
    SetAll,
    /// Clears those of all sessions.
    ClearAll,
    /// The session has none any more.
    Forget,
}

/// How far the initialisation of something is that one session has to do for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(wincode::SchemaRead, wincode::SchemaWrite))]
pub enum Election {
    /// It is for this session to do, until it says [`Verb::Initialized`] or ends.
    Won,
    /// Another session is at it.
    Running,
    /// It is done.
    Done,
}

/// A wish for a lock: all of the keys or none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(wincode::SchemaRead, wincode::SchemaWrite))]
pub struct LockWish<'a> {
    /// What to lock, in any order; a key that is there twice counts once. 1 to [`MAX_LOCK_KEYS`](crate::limits::MAX_LOCK_KEYS) of
    /// at most [`MAX_NAME_BYTES`](crate::limits::MAX_NAME_BYTES) each.
    #[serde(borrow, deserialize_with = "list::cut")]
    pub keys: Vec<&'a str>,
    /// Whether others may hold the keys at the same time, all of them shared.
    pub shared: bool,
    /// Which of the client's lock objects asks, as the client counts them: the same one is never granted a key twice.
    pub owner: u64,
    /// The tokens of the grants that whoever asks holds while it waits: what a cycle is found by.
    #[serde(deserialize_with = "list::cut")]
    pub holds: Vec<u64>,
    /// Whether to wait until they are free; else [`Fault::WouldWait`].
    pub wait: bool,
}

/// Who holds something, or waits for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(wincode::SchemaRead, wincode::SchemaWrite))]
pub struct Party {
    /// The session's number, as in [`Answer::Sessions`].
    pub session: u64,
    /// The process at the other end, where the platform tells.
    pub pid: Option<u32>,
    /// That process's command, as far as it can be read; else empty.
    pub command: String,
    /// Which lock object of the client; 0 for what has none.
    pub owner: u64,
    /// The token of the lock, or the number of the lease; 0 while it waits.
    pub token: u64,
    /// For a lock, whether it is shared.
    pub shared: bool,
    /// How many slots; 1 for a lock.
    pub slots: u32,
    /// Since when, in milliseconds since 1970.
    pub since_unix_ms: u64,
}

/// One key that is locked or waited for, in a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(wincode::SchemaRead, wincode::SchemaWrite))]
pub struct LockInfo {
    /// The key.
    pub key: String,
    /// Who holds it: several only if all of them share it.
    #[serde(deserialize_with = "list::any")]
    pub holders: Vec<Party>,
    /// Who waits for it, first come first.
    #[serde(deserialize_with = "list::any")]
    pub waiters: Vec<Party>,
}

/// One group of slots, in a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(wincode::SchemaRead, wincode::SchemaWrite))]
pub struct SlotInfo {
    /// The group's name.
    pub group: String,
    /// How many slots it has.
    pub limit: u32,
    /// How many of them are taken; more than the limit after that was lowered.
    pub taken: u32,
    /// Who has them.
    #[serde(deserialize_with = "list::any")]
    pub holders: Vec<Party>,
    /// Who waits for some, first come first.
    #[serde(deserialize_with = "list::any")]
    pub waiters: Vec<Party>,
}

/// The update flags of one namespace, in a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(wincode::SchemaRead, wincode::SchemaWrite))]
pub struct FlagInfo {
    /// The workspace; empty for the store's own directory.
    pub workspace: String,
    /// The namespace.
    pub namespace: String,
    /// The flag word: a count whose lowest bit says set (1) or cleared (0).
    pub word: u64,
    /// The sessions that have a flag there, oldest first.
    #[serde(deserialize_with = "list::any")]
    pub sessions: Vec<FlagOf>,
}

/// One session's update flag, in a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(wincode::SchemaRead, wincode::SchemaWrite))]
pub struct FlagOf {
    /// The session's number.
    pub session: u64,
    /// The process at the other end, where the platform tells.
    pub pid: Option<u32>,
    /// Whether its flag is set.
    pub set: bool,
}

/// All that one write changed in what is watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(wincode::SchemaRead, wincode::SchemaWrite))]
pub struct ChangeSet<'a> {
    /// The write.
    pub seq: Seq,
    /// Whether more of the same write follows in the next part: it does not fit into one.
    pub more: bool,
    /// What it changed, in an order in which it can be done again.
    #[serde(borrow, deserialize_with = "list::whole")]
    pub changes: Vec<Change<'a>>,
}

/// One change of a namespace. They tell what is there afterwards, so that doing one twice does no harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(wincode::SchemaRead, wincode::SchemaWrite))]
pub enum Change<'a> {
    /// The key has this value now.
    Put {
        /// The key.
        key: &'a str,
        /// Canonical JSON text.
        value: &'a str,
    },
    /// The key has no record any more.
    Delete {
        /// The key.
        key: &'a str,
    },
    /// The namespace has no records any more.
    Clear,
    /// The namespace was dropped: it has no records any more, and will have no file.
    Drop,
}

/// One edge of a cycle of those who wait for each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(wincode::SchemaRead, wincode::SchemaWrite))]
pub struct CycleStep {
    /// The session that waits.
    pub session: u64,
    /// Its process, where the platform tells.
    pub pid: Option<u32>,
    /// Which lock object of it waits.
    pub owner: u64,
    /// A key that it waits for, shortened when long.
    pub waits_for: String,
    /// The token that it holds and that the one before it in the cycle waits for.
    pub holds: u64,
}
