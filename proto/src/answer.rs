//! What the daemon says: its answers, what they list, and what it says unasked. The rules of `message.rs` hold here, too.

use serde::{Deserialize, Serialize};

use crate::codec::list;
use crate::coord::{ChangeSet, Election, FlagInfo, LockInfo, SlotInfo};
use crate::fault::Fault;
#[cfg(doc)]
use crate::message::Verb;
use crate::message::{Cursor, Kind};
use crate::names::Seq;

/// A value that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(wincode::SchemaRead, wincode::SchemaWrite))]
pub struct Found<'a> {
    /// Canonical JSON text.
    pub value: &'a str,
    /// The write that stored it.
    pub seq: Seq,
}

/// A record of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(wincode::SchemaRead, wincode::SchemaWrite))]
pub struct Entry<'a> {
    /// The key.
    pub key: &'a str,
    /// The write that stored it.
    pub seq: Seq,
    /// Canonical JSON text, if values were asked for.
    pub value: Option<&'a str>,
}

/// What a near cache compares before it serves a value again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(wincode::SchemaRead, wincode::SchemaWrite))]
pub struct Tag {
    /// The version table's epoch.
    pub epoch: u64,
    /// The namespace's clear count.
    pub clear_count: u64,
    /// The count of the key's slot.
    pub slot_count: u64,
}

/// One namespace in a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(wincode::SchemaRead, wincode::SchemaWrite))]
pub struct NamespaceInfo {
    /// What becomes of it when the daemon ends.
    pub kind: Kind,
    /// The workspace; empty for the store's own directory.
    pub workspace: String,
    /// The namespace.
    pub namespace: String,
    /// Whether it is in memory, and if so how many records it has.
    pub records: Option<u64>,
    /// Bytes of keys and values in memory.
    pub bytes: u64,
    /// Bytes of its file, if it has one.
    pub file_bytes: Option<u64>,
    /// Whether the file lacks something that the namespace holds.
    pub dirty: bool,
    /// Why it is closed, if it is.
    pub closed: Option<String>,
}

/// One workspace in a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(wincode::SchemaRead, wincode::SchemaWrite))]
pub struct WorkspaceInfo {
    /// Its name; empty for the store's own directory.
    pub workspace: String,
    /// How many namespaces it has, in memory or as files.
    pub namespaces: u64,
    /// How many of them are in memory.
    pub loaded: u64,
    /// Records in memory.
    pub records: u64,
    /// Bytes of keys and values in memory.
    pub bytes: u64,
    /// Bytes of its namespaces' files.
    pub file_bytes: u64,
}

/// One session in a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(wincode::SchemaRead, wincode::SchemaWrite))]
pub struct SessionInfo {
    /// Its number, never given twice by one daemon.
    pub id: u64,
    /// The client's id.
    pub client: u128,
    /// The process at the other end, where the platform tells.
    pub pid: Option<u32>,
    /// That process's user, where the platform tells.
    pub uid: Option<u32>,
    /// That process's command, as far as it can be read; else empty.
    pub command: String,
    /// The protocol version that both agreed upon.
    pub version: u16,
    /// When it began, in milliseconds since 1970.
    pub since_unix_ms: u64,
    /// Requests that it has sent.
    pub requests: u64,
    /// Requests that are not answered yet.
    pub in_flight: u64,
    /// Bytes of answers that its client has not taken yet.
    pub queued_bytes: u64,
}

/// What the daemon answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(wincode::SchemaRead, wincode::SchemaWrite))]
pub enum Answer<'a> {
    /// It was not done.
    Fault(Fault),
    /// It was done, and there is nothing to tell.
    Done,
    /// To [`Verb::Get`].
    Got {
        /// The value, if there is a record.
        #[serde(borrow)]
        found: Option<Found<'a>>,
        /// For a near cache.
        tag: Option<Tag>,
    },
    /// To [`Verb::GetMany`], in the order of the keys. A long one comes in parts, each the next piece of the lists.
    GotMany {
        /// The values.
        #[serde(borrow, deserialize_with = "list::whole")]
        found: Vec<Option<Found<'a>>>,
        /// For a near cache: one for each element of `found`, or none at all.
        #[serde(deserialize_with = "list::whole")]
        tags: Vec<Tag>,
    },
    /// To [`Verb::FilterMissing`]: indexes into the request's keys, rising.
    Missing {
        /// The indexes.
        #[serde(deserialize_with = "list::whole")]
        keys: Vec<u32>,
    },
    /// To [`Verb::Contains`].
    Contains {
        /// Whether there is a record.
        found: bool,
    },
    /// To [`Verb::Len`].
    Len {
        /// Number of records.
        records: u64,
    },
    /// To [`Verb::Scan`]. An empty page may carry a cursor; only a missing cursor is the end.
    Page {
        /// The records, in insertion order.
        #[serde(borrow, deserialize_with = "list::whole")]
        entries: Vec<Entry<'a>>,
        /// Where to go on.
        #[serde(borrow)]
        next: Option<Cursor<'a>>,
        /// The last write that this page has seen: what to watch from.
        seq: Seq,
    },
    /// To [`Verb::Write`].
    Written {
        /// The write's number in the order of the store.
        seq: Seq,
        /// How many keys were new.
        new: u64,
        /// How many keys were found: replaced, deleted or cleared.
        found: u64,
        /// How many lone surrogates were removed from strings and keys.
        surrogates_removed: u64,
    },
    /// To [`Verb::Commit`].
    Committed {
        /// Everything up to this write is on the platter.
        seq: Seq,
    },
    /// To [`Verb::Flush`].
    Flushed {
        /// How many files were rewritten; the others were up to date.
        rewritten: u32,
        /// The files hold everything up to this write.
        seq: Seq,
    },
    /// To [`Verb::Namespaces`]. A long one comes in parts, each the next piece of the list.
    Namespaces {
        /// Workspace by workspace, in order of name.
        #[serde(deserialize_with = "list::any")]
        list: Vec<NamespaceInfo>,
    },
    /// To [`Verb::Status`]: a JSON object, because it is read by people and tools and gains members over time.
    Status {
        /// The object's text; its members are described in `docs/cli.md`.
        json: &'a str,
    },
    /// To [`Verb::GetAll`], in parts, each the next piece of the list; all of one moment.
    Records {
        /// The records, in insertion order.
        #[serde(borrow, deserialize_with = "list::whole")]
        entries: Vec<Entry<'a>>,
        /// The last write that the records have seen: what to watch from. The same in every part.
        seq: Seq,
    },
    /// To [`Verb::Drop`].
    Dropped {
        /// The drop's number in the order of the store.
        seq: Seq,
        /// How many records there were.
        records: u64,
    },
    /// To [`Verb::Workspaces`]. A long one comes in parts, each the next piece of the list.
    Workspaces {
        /// In order of name, the store's own directory first.
        #[serde(deserialize_with = "list::any")]
        list: Vec<WorkspaceInfo>,
    },
    /// To [`Verb::Sessions`]. A long one comes in parts, each the next piece of the list.
    Sessions {
        /// Oldest first.
        #[serde(deserialize_with = "list::any")]
        list: Vec<SessionInfo>,
    },
    /// To [`Verb::Flag`].
    Flag {
        /// Whether the flag of this session is set now.
        set: bool,
        /// The flag word: a count whose lowest bit says set (1) or cleared (0).
        word: u64,
    },
    /// To [`Verb::Flags`]. A long one comes in parts, each the next piece of the list.
    Flags {
        /// Workspace by workspace, in order of name.
        #[serde(deserialize_with = "list::any")]
        list: Vec<FlagInfo>,
    },
    /// To [`Verb::Elect`].
    Elected {
        /// How far it is.
        state: Election,
    },
    /// To [`Verb::Lock`].
    Locked {
        /// The grant's fencing token, greater than that of every earlier grant and than the Seq of every earlier write.
        token: u64,
    },
    /// To [`Verb::Locks`]. A long one comes in parts, each the next piece of the list.
    Locks {
        /// In order of key.
        #[serde(deserialize_with = "list::any")]
        list: Vec<LockInfo>,
    },
    /// To [`Verb::Acquire`].
    Acquired {
        /// What to give back.
        lease: u64,
    },
    /// To [`Verb::Slots`]. A long one comes in parts, each the next piece of the list.
    Slots {
        /// In order of name.
        #[serde(deserialize_with = "list::any")]
        list: Vec<SlotInfo>,
    },
    /// To [`Verb::Watch`]. The first comes at once and may be empty: it says from where on changes are told.
    Changes {
        /// What changed, write by write.
        #[serde(borrow, deserialize_with = "list::whole")]
        list: Vec<ChangeSet<'a>>,
        /// Everything up to this write has been told: where to go on after a connection was lost.
        through: Seq,
    },
    /// To [`Verb::Watch`]: changes were missed, for the watcher fell behind farther than they are kept. It goes on.
    Lagged {
        /// The first write of which nothing is told.
        lost_from: Seq,
        /// The first one that is told again.
        next: Seq,
    },
}

/// What the daemon says unasked, in a frame with request id 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(wincode::SchemaRead, wincode::SchemaWrite))]
pub enum Event {
    /// The daemon closes this connection, for this reason.
    Closing(Fault),
}
