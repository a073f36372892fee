//! What client and daemon say: one enum a direction, encoded by [`codec`](crate::codec). Here is what a client asks;
//! `answer.rs` has what the daemon says to that.
//!
//! Values and keys travel as text that is borrowed from the frame, so that nothing is copied between the socket and
//! the record. Variants are only ever appended, and the fields of a variant never change. The order of the variants is
//! their number on the wire; `tags.rs` lists their names in the same order.

use serde::{Deserialize, Serialize};

pub use crate::answer::{Answer, Entry, Event, Found, NamespaceInfo, SessionInfo, Tag, WorkspaceInfo};
use crate::codec::list;
pub use crate::coord::{
    Change, ChangeSet, CycleStep, Election, FlagAction, FlagInfo, FlagOf, LockInfo, LockWish, Party, SlotInfo,
};
#[cfg(doc)]
use crate::fault::Fault;
use crate::names::{NameError, Place, Seq};

/// One request: how long the client will wait for it, and what it asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(wincode::SchemaRead, wincode::SchemaWrite))]
pub struct Request<'a> {
    /// Milliseconds from the daemon's reading of the request after which it is answered [`Fault::TimedOut`] instead of
    /// being begun; 0 is no deadline. What was begun is finished.
    pub deadline_ms: u32,
    /// What is asked.
    #[serde(borrow)]
    pub verb: Verb<'a>,
}

/// Where an operation takes place: the names as they travel, not yet checked. [`Place`] is the checked pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(wincode::SchemaRead, wincode::SchemaWrite))]
pub struct Space<'a> {
    /// Which kind of namespace is meant, so that no request ever makes one of another kind by accident.
    pub kind: Kind,
    /// The workspace; empty for the store's own directory.
    pub workspace: &'a str,
    /// The namespace.
    pub namespace: &'a str,
}

impl<'a> Space<'a> {
    /// The persistent namespace at `place`.
    pub fn persistent(place: &'a Place) -> Self {
        Self { kind: Kind::Persistent, workspace: place.workspace.as_str(), namespace: place.namespace.as_str() }
    }

    /// The checked names.
    ///
    /// # Errors
    /// [`NameError`] for the name that breaks its rule; as a [`Fault`] it is the answer.
    pub fn place(&self) -> Result<Place, NameError> {
        Place::new(self.workspace, self.namespace)
    }
}

/// What becomes of a namespace when the daemon ends. Later kinds are appended; a daemon that does not know one answers
/// [`Fault::Unsupported`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(wincode::SchemaRead, wincode::SchemaWrite))]
pub enum Kind {
    /// It is kept, in the journal and in its file.
    #[default]
    Persistent,
    /// It lives in memory only: never in the journal, never a file, gone with the daemon. Since version 2.
    Volatile,
}

/// What a request asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(wincode::SchemaRead, wincode::SchemaWrite))]
pub enum Verb<'a> {
    /// Nothing; answered [`Answer::Done`]. Tells that the daemon lives.
    Ping,
    /// One value; answered [`Answer::Got`].
    Get {
        /// Where.
        #[serde(borrow)]
        space: Space<'a>,
        /// Which.
        key: &'a str,
    },
    /// Several values as they are at one moment; answered [`Answer::GotMany`].
    GetMany {
        /// Where.
        #[serde(borrow)]
        space: Space<'a>,
        /// Which, in the order of the answer.
        #[serde(borrow, deserialize_with = "list::cut")]
        keys: Vec<&'a str>,
    },
    /// Which of these keys have no record; answered [`Answer::Missing`].
    FilterMissing {
        /// Where.
        #[serde(borrow)]
        space: Space<'a>,
        /// Which.
        #[serde(borrow, deserialize_with = "list::cut")]
        keys: Vec<&'a str>,
    },
    /// Whether a key has a record; answered [`Answer::Contains`].
    Contains {
        /// Where.
        #[serde(borrow)]
        space: Space<'a>,
        /// Which.
        key: &'a str,
    },
    /// How many records there are; answered [`Answer::Len`].
    Len {
        /// Where.
        #[serde(borrow)]
        space: Space<'a>,
    },
    /// A page of records in insertion order; answered [`Answer::Page`].
    Scan {
        /// Where.
        #[serde(borrow)]
        space: Space<'a>,
        /// Where the page before this one ended; none begins at the first record.
        cursor: Option<Cursor<'a>>,
        /// Only keys that begin so; empty for all.
        prefix: &'a str,
        /// Most records in the page; 0 leaves it to the daemon.
        limit: u32,
        /// Whether values are wanted beside the keys.
        values: bool,
    },
    /// An atomic write; answered [`Answer::Written`].
    #[serde(borrow)]
    Write(Write<'a>),
    /// Puts every write that was acknowledged before on the platter; answered [`Answer::Committed`].
    Commit,
    /// Commits, and brings the namespace's JSON file up to date; answered [`Answer::Flushed`].
    Flush {
        /// One namespace, or none for all.
        #[serde(borrow)]
        space: Option<Space<'a>>,
        /// Rewrite the file even if it is up to date, as after a change of format.
        rewrite: bool,
        /// Whether the answer waits for the file. Without it the answer is [`Answer::Done`], at once.
        wait: bool,
    },
    /// The namespaces of the store, loaded or not; answered [`Answer::Namespaces`].
    Namespaces,
    /// How the daemon is; answered [`Answer::Status`].
    Status,
    /// Flush everything and end; answered [`Answer::Done`] when all files are up to date, just before the daemon ends.
    Stop,
    /// Every record, as they all are at one moment; answered [`Answer::Records`], in parts. Since version 2.
    GetAll {
        /// Where.
        #[serde(borrow)]
        space: Space<'a>,
        /// Whether values are wanted beside the keys.
        values: bool,
    },
    /// Removes every record of a namespace, and its file; answered [`Answer::Dropped`] when the file is gone. Since version 2.
    Drop {
        /// Which.
        #[serde(borrow)]
        space: Space<'a>,
    },
    /// The workspaces of the store; answered [`Answer::Workspaces`]. Since version 2.
    Workspaces,
    /// Who is connected; answered [`Answer::Sessions`]. Since version 2.
    Sessions,
    /// Ends another session, and so frees what it holds; answered [`Answer::Done`]. Since version 2.
    EndSession {
        /// Its number in the listing.
        id: u64,
    },
    /// A write that was sent before and may have been done: it is done now, or answered as it was then;
    /// [`Answer::Written`]. Since version 3.
    WriteAgain {
        /// What is known of the first sending.
        earlier: Earlier,
        /// The same write, under the same number.
        #[serde(borrow)]
        write: Write<'a>,
    },
    /// As [`Drop`](Verb::Drop), numbered like a [`Write`], so that it can be sent again; answered [`Answer::Dropped`].
    /// Since version 3.
    DropOnce {
        /// Which.
        #[serde(borrow)]
        space: Space<'a>,
        /// The client that numbers this drop.
        client: u128,
        /// Its number, of the same count as those of its writes.
        number: u64,
        /// The client knows the outcome of all its writes and drops below this number.
        settled: u64,
        /// What is known of an earlier sending, if there was one.
        earlier: Option<Earlier>,
    },
    /// Something about an update flag; answered [`Answer::Flag`]. Since version 4.
    Flag {
        /// Of which namespace: any name that a namespace may have, whether there is one or not. Its kind is not looked at.
        #[serde(borrow)]
        space: Space<'a>,
        /// What.
        action: FlagAction,
    },
    /// The update flags of all sessions; answered [`Answer::Flags`]. Since version 4.
    Flags,
    /// Asks to be the one who initialises something for all; answered [`Answer::Elected`]. Since version 4.
    Elect {
        /// What, of 1 to [`MAX_NAME_BYTES`](crate::limits::MAX_NAME_BYTES).
        name: &'a str,
        /// Whether to wait while another session is at it, until that is done or this session is elected.
        wait: bool,
    },
    /// The elected session has initialised it, or gives it up; answered [`Answer::Done`]. Since version 4.
    Initialized {
        /// What.
        name: &'a str,
        /// Whether it is done; else the next one is elected.
        done: bool,
    },
    /// Locks keys; answered [`Answer::Locked`] when this session has them all. Since version 4.
    #[serde(borrow)]
    Lock(LockWish<'a>),
    /// Gives a lock back; answered [`Answer::Done`]. Since version 4.
    Unlock {
        /// The grant's token.
        token: u64,
    },
    /// The locks that are held or waited for; answered [`Answer::Locks`]. Since version 4.
    Locks,
    /// Takes slots of a group; answered [`Answer::Acquired`] when this session has them all. Since version 4.
    Acquire {
        /// The group, of 1 to [`MAX_NAME_BYTES`](crate::limits::MAX_NAME_BYTES).
        group: &'a str,
        /// How many slots the group has; the first who names the group decides.
        limit: u32,
        /// How many of them to take, at least 1.
        slots: u32,
        /// Whether to wait until they are free; else [`Fault::WouldWait`].
        wait: bool,
    },
    /// Gives slots back; answered [`Answer::Done`]. Since version 4.
    Release {
        /// The lease that they were taken under.
        lease: u64,
    },
    /// Changes how many slots a group has; answered [`Answer::Done`]. Who has some keeps them. Since version 4.
    SetLimit {
        /// The group.
        group: &'a str,
        /// How many, at least 1.
        limit: u32,
    },
    /// The groups of slots; answered [`Answer::Slots`]. Since version 4.
    Slots,
    /// Tells what changes from here on; answered [`Answer::Changes`] and [`Answer::Lagged`], in parts that do not end
    /// until the request is cancelled or cannot go on. Since version 4.
    Watch {
        /// Where.
        #[serde(borrow)]
        space: Space<'a>,
        /// Only keys that begin so; empty for all.
        prefix: &'a str,
        /// What comes after this write; none is what comes after now.
        after: Option<Seq>,
    },
    /// The daemon answers this with [`Answer::Done`] and then says nothing more to this session, which only holds what it
    /// has: for a process that becomes another program. Since version 4.
    Hold,
}

/// What a client knows of the first sending of a request that it sends again. If the daemon has forgotten the client, it
/// tells by this whether what it forgot may have been this request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(wincode::SchemaRead, wincode::SchemaWrite))]
pub struct Earlier {
    /// The boot number of the daemon that it was first sent to.
    pub boot: u64,
    /// The greatest Seq that any answer had told the client by then; 0 if none had.
    pub after: Seq,
}

/// An atomic write: all of it takes effect, under one [`Seq`], or none of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(wincode::SchemaRead, wincode::SchemaWrite))]
pub struct Write<'a> {
    /// The client that numbers this write. Kept in the journal, so that a write that is sent again is recognised.
    pub client: u128,
    /// The client's number for this write, from 1, rising; 0 for none. What is sent again has the same.
    pub number: u64,
    /// The client knows the outcome of all its writes below this number: the daemon may forget them.
    pub settled: u64,
    /// How durable it must be before the answer leaves; none is as the store has it, and less than that gives that.
    pub durability: Option<Durability>,
    /// Only if this fencing token's grant is live.
    pub if_token: Option<u64>,
    /// The namespaces that the operations name by their index here.
    #[serde(borrow, deserialize_with = "list::cut")]
    pub spaces: Vec<Space<'a>>,
    /// What to do, in order; each sees the effects of those before it.
    #[serde(borrow, deserialize_with = "list::cut")]
    pub ops: Vec<Op<'a>>,
}

/// One operation of a [`Write`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(wincode::SchemaRead, wincode::SchemaWrite))]
pub enum Op<'a> {
    /// Stores a value. A key that exists keeps its place in the order, a new one goes to the end.
    Put {
        /// Index into [`Write::spaces`].
        space: u32,
        /// The key.
        key: &'a str,
        /// The value as JSON text.
        value: &'a str,
        /// What must hold.
        condition: Condition,
    },
    /// Removes a record if there is one.
    Delete {
        /// Index into [`Write::spaces`].
        space: u32,
        /// The key.
        key: &'a str,
        /// What must hold.
        condition: Condition,
    },
    /// Removes every record of the namespace.
    Clear {
        /// Index into [`Write::spaces`].
        space: u32,
    },
    /// As [`Put`](Op::Put) of a JSON object in which the daemon sets `create_time`, `update_time` (whole seconds since
    /// 1970) and `_id` (the key); a record that is replaced keeps its `create_time`. Since version 2.
    PutStamped {
        /// Index into [`Write::spaces`].
        space: u32,
        /// The key.
        key: &'a str,
        /// The value as the text of a JSON object.
        value: &'a str,
        /// What must hold.
        condition: Condition,
    },
    /// Sets the fields of a JSON object, at its top level; without a record one is made. Since version 2.
    Merge {
        /// Index into [`Write::spaces`].
        space: u32,
        /// The key.
        key: &'a str,
        /// The fields and their values as the text of a JSON object.
        fields: &'a str,
        /// What must hold.
        condition: Condition,
    },
    /// Adds to a number in a field of a JSON object; a missing field counts as 0. Since version 2.
    Increment {
        /// Index into [`Write::spaces`].
        space: u32,
        /// The key.
        key: &'a str,
        /// The field, at the top level.
        field: &'a str,
        /// How much is added.
        by: Number,
        /// What must hold.
        condition: Condition,
    },
    /// Adds items to the end of a list in a field of a JSON object; a missing field counts as `[]`. Since version 2.
    Append {
        /// Index into [`Write::spaces`].
        space: u32,
        /// The key.
        key: &'a str,
        /// The field, at the top level.
        field: &'a str,
        /// The items as the text of a JSON array.
        items: &'a str,
        /// If given, only so many items at the end of the list are kept.
        keep_last: Option<u32>,
        /// What must hold.
        condition: Condition,
    },
}

/// How much an [`Op::Increment`] adds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(wincode::SchemaRead, wincode::SchemaWrite))]
pub enum Number {
    /// A whole number; a sum beyond 64 bits is refused.
    Int(i64),
    /// A float; the sum is written as Python writes it.
    Float(f64),
}

impl From<i32> for Number {
    fn from(by: i32) -> Self {
        Self::Int(by.into())
    }
}

impl From<i64> for Number {
    fn from(by: i64) -> Self {
        Self::Int(by)
    }
}

impl From<f64> for Number {
    fn from(by: f64) -> Self {
        Self::Float(by)
    }
}

/// What must hold for an operation; if it does not, nothing of the whole request is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(wincode::SchemaRead, wincode::SchemaWrite))]
pub enum Condition {
    /// Nothing.
    #[default]
    Always,
    /// The record exists and this Seq wrote it. Across a restart of the daemon it may refuse but never matches falsely.
    IfSeq(Seq),
    /// There is no such record.
    IfAbsent,
}

/// How far a write has got when its answer leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(wincode::SchemaRead, wincode::SchemaWrite))]
pub enum Durability {
    /// In the daemon's memory. A killed daemon may lose it.
    Memory,
    /// In the operating system's hands. A killed daemon loses nothing, a power cut about the last 2 seconds.
    Buffered,
    /// On the platter. Nothing loses it.
    Synced,
}

/// Where a scan goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(wincode::SchemaRead, wincode::SchemaWrite))]
pub struct Cursor<'a> {
    /// Which load of the namespace the ordinal belongs to.
    pub load: u64,
    /// The insertion ordinal of the last record visited.
    pub ordinal: u64,
    /// The key of the last record visited.
    pub key: &'a str,
}
