//! What the daemon answers when it does not do what was asked.
//!
//! Variants carry data, not sentences: the sentence is made where it is read, by [`Display`](std::fmt::Display), and
//! tells what failed, where, and what to do.

use serde::{Deserialize, Serialize};

use crate::codec::list;
use crate::coord::CycleStep;
use crate::limits::MAX_KEY_BYTES;
use crate::message::Kind;
use crate::names::{NameError, Seq};

/// A refusal or failure, as it crosses the wire. Variants are only ever appended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(test, derive(wincode::SchemaRead, wincode::SchemaWrite))]
pub enum Fault {
    /// The request's bytes do not decode. The session goes on when the frame itself was whole.
    #[error(
        "the request cannot be read: {reason}. Nothing of it was done; use client and daemon of the same release, and report it if they are"
    )]
    Malformed {
        /// What was wrong with the bytes.
        reason: String,
    },
    /// The request, or something in it, is of a kind that this daemon does not know: the client is newer than the daemon.
    #[error(
        "the daemon does not know {what} number {tag}: it is older than this client. Nothing was done; restart the daemon with the client's version"
    )]
    Unsupported {
        /// What it does not know, as `verb` or `part of the request`.
        what: String,
        /// The variant's number.
        tag: u32,
    },
    /// The name of a namespace breaks its rule.
    #[error("{}", NameError::namespace_rule(name))]
    InvalidNamespace {
        /// The name as it was given, shortened when very long.
        name: String,
    },
    /// The name of a workspace breaks its rule.
    #[error("{}", NameError::workspace_rule(name))]
    InvalidWorkspace {
        /// The name as it was given, shortened when very long.
        name: String,
    },
    /// A namespace of the same name in other letter case exists; on some file systems the two would be one file.
    #[error(
        "namespace {namespace:?} differs only in letter case from {existing:?}, which is there: use that name or another one. If each has a file or waiting writes, neither is opened: move the file of one out of the store, or give it another name, while no daemon runs"
    )]
    NameClash {
        /// The name asked for.
        namespace: String,
        /// The name that exists.
        existing: String,
    },
    /// A value is not JSON.
    #[error("the value of key {key:?} is not JSON: {reason} at byte {offset} of it; nothing was changed")]
    InvalidJson {
        /// The key, shortened when long.
        key: String,
        /// Where in the value's text, in bytes from 0.
        offset: u64,
        /// What was found there and what was expected.
        reason: String,
    },
    /// Something is larger than its limit. Nothing was done.
    #[error("too many {what}: {got}, and the limit is {limit}. Nothing was changed; ask for less at once")]
    TooLarge {
        /// What there is too much of, its unit first, as `bytes in the value of key "a"` or `operations in the request`.
        what: String,
        /// Its size.
        got: u64,
        /// The limit.
        limit: u64,
    },
    /// A condition (`if_seq`, `if_absent`) did not hold. Nothing of the request was done.
    #[error(
        "operation {operation} of the request (from 0) was refused by its condition: {}. Nothing of the request was done; read the record and decide anew",
        found_words(*.found)
    )]
    ConditionFailed {
        /// Which operation of the request, from 0.
        operation: u32,
        /// The Seq of the record that is there, if there is one.
        found: Option<Seq>,
    },
    /// The namespace is closed because its file could not be read or does not belong to the journal.
    #[error(
        "namespace {place} is closed: {reason}. Its file {file} was not changed and what waits for it is kept; with the daemon stopped, `commonhold check` tells how to repair it"
    )]
    NeedsRepair {
        /// Workspace and namespace.
        place: String,
        /// The file's path.
        file: String,
        /// What is wrong with it, with offset and line where there is one.
        reason: String,
    },
    /// The disk is full. Reads go on; writes are taken again as soon as there is room.
    #[error("the disk of {path} is full: nothing was changed; free some space and repeat it")]
    Full {
        /// The file that could not grow.
        path: String,
    },
    /// The disk refused an operation; what was asked was undone.
    #[error("{action} {path} failed: {reason}. What was asked was undone; mend the cause and repeat it")]
    DiskError {
        /// What was being done, as "append to".
        action: String,
        /// The file.
        path: String,
        /// The operating system's words.
        reason: String,
    },
    /// Writes are refused until the daemon is restarted; reads go on.
    #[error("writes are refused: {reason}. Reads go on; restart the daemon after the cause is mended")]
    Unavailable {
        /// What ended all writing.
        reason: String,
    },
    /// Whether the write was done cannot be known. It was done once or not at all.
    #[error("the outcome is unknown: {reason}. The write was done once or not at all; read the record to find out")]
    OutcomeUnknown {
        /// Why it cannot be known.
        reason: String,
    },
    /// The deadline passed before the request was done.
    #[error("timed out after waiting {waited_ms} ms for {waiting_for}; repeat it, with a later deadline if need be")]
    TimedOut {
        /// How long it waited.
        waited_ms: u64,
        /// What it waited for, as `the namespace to be loaded`.
        waiting_for: String,
    },
    /// The flush lock of a namespace is held by another program.
    #[error(
        "flush of {place} gave up after {waited_ms} ms: another program holds {lock_file}; nothing was replaced and nothing is lost, flush again when it is done"
    )]
    FlushLockTimeout {
        /// Workspace and namespace.
        place: String,
        /// The lock file.
        lock_file: String,
        /// How long it waited.
        waited_ms: u64,
    },
    /// Some namespaces could not be written to their files. Their records are safe in the journal.
    #[error(
        "could not flush {}: {reason}. What is not in the files is safe in the journal; mend the cause and flush again",
        .places.join(", ")
    )]
    FlushFailed {
        /// The namespaces.
        #[serde(deserialize_with = "list::any")]
        places: Vec<String>,
        /// The first failure's words.
        reason: String,
    },
    /// The cursor belongs to an earlier load of the namespace and its key is gone: begin the scan again.
    #[error("the cursor has expired: the namespace was loaded anew since; begin the scan again")]
    CursorExpired,
    /// The daemon is stopping and takes no further requests.
    #[error("the daemon is stopping and takes no further requests; repeat it when the daemon has been started again")]
    Stopping,
    /// No protocol version that both sides speak.
    #[error(
        "no common protocol version: the client speaks {client_lowest} to {client_highest}, the daemon {daemon_lowest} to {daemon_highest}; use client and daemon of the same release"
    )]
    Version {
        /// The lowest version the client speaks.
        client_lowest: u16,
        /// The highest version the client speaks.
        client_highest: u16,
        /// The lowest version the daemon speaks.
        daemon_lowest: u16,
        /// The highest version the daemon speaks.
        daemon_highest: u16,
    },
    /// The daemon behind the socket owns another directory than the client means: the directory was copied or moved.
    #[error(
        "the daemon that answers owns another directory (device {device}, inode {inode}): this one is a copy of its store; start a daemon here with `commonhold serve`"
    )]
    OtherStore {
        /// The device of the daemon's directory.
        device: u64,
        /// The inode of the daemon's directory.
        inode: u64,
    },
    /// The peer's user may not use this store.
    #[error(
        "user {uid} may not use this store: it belongs to user {owner}, who can start the daemon with `--allow-uid {uid}`"
    )]
    Forbidden {
        /// The peer's user id.
        uid: u32,
        /// The owner's user id.
        owner: u32,
    },
    /// The client cancelled the request before the daemon began it.
    #[error("the request was cancelled before it began; nothing was done")]
    Cancelled,
    /// The namespace is of another kind than the request means: whoever opened it first decided.
    #[error(
        "namespace {place} is {}: open it as that, or choose another name. Nothing was done",
        kind_words(*.kind)
    )]
    KindMismatch {
        /// Workspace and namespace.
        place: String,
        /// The kind that it is of.
        kind: Kind,
    },
    /// Not possible for a volatile namespace, which has neither journal nor file.
    #[error("namespace {place} is volatile and has no file: it cannot be {what}. Nothing was done")]
    Volatile {
        /// Workspace and namespace.
        place: String,
        /// What cannot be done with it, as `flushed`.
        what: String,
    },
    /// One request names persistent and volatile namespaces.
    #[error(
        "the request writes to both persistent and volatile namespaces, which cannot be one atomic write. Nothing was done; send one request for each kind"
    )]
    MixedKinds,
    /// A value is not of the type that an operation needs. Nothing of the request was done.
    #[error(
        "operation {operation} of the request (from 0) was refused: {}, but {found}. Nothing of the request was done",
        needed_words(needed, key, field.as_deref())
    )]
    WrongType {
        /// Which operation of the request, from 0.
        operation: u32,
        /// The key, shortened when long.
        key: String,
        /// The field; none is the value itself.
        field: Option<String>,
        /// What it must be, as `an object`.
        needed: String,
        /// What it is, as `it is a string`.
        found: String,
    },
    /// A sum is an integer beyond 64 bits, or a float that is infinite or not a number. Nothing of the request was done.
    #[error(
        "operation {operation} of the request (from 0) was refused: field {field:?} of key {key:?} holds, or would come to, an integer beyond 64 bits or a float that is not finite. Nothing of the request was done; put another number there, a large one as a float"
    )]
    Overflow {
        /// Which operation of the request, from 0.
        operation: u32,
        /// The key, shortened when long.
        key: String,
        /// The field, shortened when long.
        field: String,
    },
    /// The write would need more memory than the daemon may use. Reads, deletes and flushes go on.
    #[error(
        "the store's memory is used up: {used} of {limit} bytes, and the write needs {needed} more. Nothing was changed; delete something, or start the daemon with a larger --max-memory"
    )]
    MemoryFull {
        /// Bytes in use.
        used: u64,
        /// The limit.
        limit: u64,
        /// About how many bytes the write needs.
        needed: u64,
    },
    /// Too much was changed while all records were being read, so that keeping their old state would take too much memory.
    #[error(
        "the snapshot has expired: more was changed during the reading than is kept for it. What was read is incomplete; read it again, faster, or page by page"
    )]
    SnapshotExpired,
    /// The deadline passed while the namespace was being loaded from its file. Nothing was done.
    #[error(
        "namespace {place} is still being loaded ({done_bytes} of {total_bytes} bytes). Nothing was done; repeat the request"
    )]
    Loading {
        /// Workspace and namespace.
        place: String,
        /// Bytes of the file that have been read.
        done_bytes: u64,
        /// Bytes of the file.
        total_bytes: u64,
    },
    /// There is no session of this number.
    #[error("there is no session {id}; `commonhold sessions` lists those that there are")]
    NoSuchSession {
        /// The number.
        id: u64,
    },
    /// An operator ended this session.
    #[error("an operator ended this session; what it held is free. Connect again if that was not meant")]
    SessionEnded,
    /// The client sends or leaves behind more than a session may have outstanding.
    #[error(
        "the connection had too many {what}: {got}, and the limit is {limit}. It is closed; read answers while you send"
    )]
    Flooded {
        /// What there was too much of, its unit first, as `bytes of answers that were not taken`.
        what: String,
        /// Its size.
        got: u64,
        /// The limit.
        limit: u64,
    },
    /// Something about the request makes no sense. Nothing was done. Since version 4, as all that follow.
    #[error("{what} is not possible: {rule}. Nothing was done")]
    Invalid {
        /// What was asked, as `a lock of no keys`.
        what: String,
        /// What may be asked instead.
        rule: String,
    },
    /// It is not free, and the request was not to wait.
    #[error("{what} is not free: {held_by} has it. Ask again later, or wait for it")]
    WouldWait {
        /// What, as `lock "a"` or `a slot of "llm"`.
        what: String,
        /// Who holds it, or waits before, as `session 7 (gunicorn, process 4711)`.
        held_by: String,
    },
    /// Whoever asks for this key has it already or waits for it, and would wait for itself.
    #[error("{}", already_words(key, *token))]
    AlreadyHeld {
        /// The key, shortened when long.
        key: String,
        /// The token of the grant that has it; 0 if the owner waits for it.
        token: u64,
    },
    /// The request would close a cycle of those who wait for each other, and none of them would ever be served.
    #[error(
        "waiting for this lock would never end: {}. Nothing was done; give back what you hold and ask for all keys at once",
        cycle_words(cycle)
    )]
    Deadlock {
        /// Who waits for whom, beginning with the request that was refused.
        #[serde(deserialize_with = "list::any")]
        cycle: Vec<CycleStep>,
    },
    /// What is to be given back or gone on with is not this session's, or not any more.
    #[error(
        "this session does not hold {what}: it was given back, is another session's, or ended with an earlier connection or daemon. Nothing was done"
    )]
    NotHeld {
        /// What, as `the lock of token 7`.
        what: String,
    },
    /// The write was to be done only if this grant is live, and it is not.
    #[error(
        "the lock of token {token} is not held any more: nothing of the write was done; lock anew, and read before you write"
    )]
    TokenNotLive {
        /// The token.
        token: u64,
    },
    /// The group has another number of slots than the request says.
    #[error(
        "group {group:?} has {limit} slots and not {asked}: the first who used it has decided, or set_limit since then. Use that number, or change it with set_limit"
    )]
    LimitMismatch {
        /// The group, shortened when long.
        group: String,
        /// How many slots it has.
        limit: u32,
        /// How many the request says that it has.
        asked: u32,
    },
    /// The changes after the write that was named are not kept any more.
    #[error(
        "changes are told from sequence number {oldest} on, those before it are gone: read all records, and watch from there"
    )]
    Gone {
        /// The oldest write that can be told.
        oldest: Seq,
    },
    /// The write that was named was lost in a crash, and so were all from this one on that came before the restart.
    #[error(
        "a crash took the writes after sequence number {to}: what was seen of them is not in the store. Read all records, and watch from there"
    )]
    Rewound {
        /// The last write that was recovered.
        to: Seq,
    },
    /// The write that was named has not been done yet.
    #[error(
        "sequence number {asked} is in the future, {latest} is the latest: watch from one that the store has given"
    )]
    NotYet {
        /// The Seq that was named.
        asked: Seq,
        /// The latest one.
        latest: Seq,
    },
}

fn already_words(key: &str, token: u64) -> String {
    if token == 0 {
        return format!(
            "the same owner waits for key {key:?} already, and would come after itself: one lock object waits for one thing at a time, use another one"
        );
    }
    format!(
        "key {key:?} is locked already by the same owner, under token {token}: give that back first, or ask for all keys at once"
    )
}

fn cycle_words(cycle: &[CycleStep]) -> String {
    let step = |step: &CycleStep| {
        let pid = step.pid.map_or_else(String::new, |pid| format!(", process {pid}"));
        let holds = match step.holds {
            0 => "was there before and".to_owned(),
            token => format!("holds token {token} and"),
        };
        format!("owner {} of session {}{pid} {holds} waits for {:?}", step.owner, step.session, step.waits_for)
    };
    cycle.iter().map(step).collect::<Vec<_>>().join("; ")
}

impl From<NameError> for Fault {
    fn from(error: NameError) -> Self {
        match error {
            NameError::Namespace { name } => Self::InvalidNamespace { name },
            NameError::Workspace { name } => Self::InvalidWorkspace { name },
            NameError::Key { bytes } => {
                Self::TooLarge { what: "bytes in a key".to_owned(), got: bytes as u64, limit: MAX_KEY_BYTES as u64 }
            }
        }
    }
}

fn kind_words(kind: Kind) -> &'static str {
    match kind {
        Kind::Persistent => "persistent",
        Kind::Volatile => "volatile",
    }
}

fn needed_words(needed: &str, key: &str, field: Option<&str>) -> String {
    match field {
        None => format!("the value of key {key:?} must be {needed}"),
        Some(field) => format!("field {field:?} of key {key:?} must be {needed}"),
    }
}

fn found_words(found: Option<Seq>) -> String {
    found.map_or_else(|| "there is no such record".to_owned(), |seq| format!("the record's sequence number is {seq}"))
}
