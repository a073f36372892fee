//! What the daemon answers when it does not do what was asked.
//!
//! Variants carry data, not sentences: the sentence is made where it is read, by [`Display`](std::fmt::Display), and
//! tells what failed, where, and what to do.

use serde::{Deserialize, Serialize};

use crate::names::Seq;

/// A refusal or failure, as it crosses the wire. Variants are only ever appended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Fault {
    /// The request's bytes do not decode. The session goes on when the frame itself was whole.
    #[error("the request cannot be read: {reason}")]
    Malformed {
        /// What was wrong with the bytes.
        reason: String,
    },
    /// The request is of a kind that this daemon does not know: the client is newer than the daemon.
    #[error("the daemon does not know request {tag}: it is older than this client; restart it with the newer version")]
    Unsupported {
        /// The variant's number.
        tag: u32,
    },
    /// A name breaks its rule.
    #[error("{reason}")]
    InvalidName {
        /// The name and its rule.
        reason: String,
    },
    /// A namespace of the same name in other letter case exists; on some file systems the two would be one file.
    #[error(
        "namespace {namespace:?} differs only in letter case from the existing {existing:?}: use that name or another one"
    )]
    NameClash {
        /// The name asked for.
        namespace: String,
        /// The name that exists.
        existing: String,
    },
    /// A value is not JSON.
    #[error("the value of key {key:?} is not JSON: {reason} at byte {offset}")]
    InvalidJson {
        /// The key, shortened when long.
        key: String,
        /// Where in the value's text, in bytes from 0.
        offset: u64,
        /// What was found there and what was expected.
        reason: String,
    },
    /// Something is larger than its limit. Nothing was done.
    #[error("{what} has {got}, the limit is {limit}: nothing was changed")]
    TooLarge {
        /// What is too large, with its unit, as "value of key \"a\" (bytes)".
        what: String,
        /// Its size.
        got: u64,
        /// The limit.
        limit: u64,
    },
    /// A condition (`if_seq`, `if_absent`) did not hold. Nothing of the request was done.
    #[error("operation {operation} was refused by its condition: {}, nothing was changed", found_words(*.found))]
    ConditionFailed {
        /// Which operation of the request, from 0.
        operation: u32,
        /// The Seq of the record that is there, if there is one.
        found: Option<Seq>,
    },
    /// The namespace is closed because its file could not be read or does not belong to the journal.
    #[error(
        "namespace {place} is closed: {reason}. Its file {file} was not changed; stop the daemon, put the right file back or run `commonhold repair`, and start it again"
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
    #[error("the disk of {path} is full: the write was undone; free some space and repeat it")]
    Full {
        /// The file that could not grow.
        path: String,
    },
    /// The disk refused an operation; what was asked was undone.
    #[error("{action} {path} failed: {reason}")]
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
    #[error("timed out after {waited_ms} ms: {waiting_for}")]
    TimedOut {
        /// How long it waited.
        waited_ms: u64,
        /// What it waited for.
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
    #[error("{} could not be flushed: {reason}. What they hold is safe in the journal", .places.join(", "))]
    FlushFailed {
        /// The namespaces.
        places: Vec<String>,
        /// The first failure's words.
        reason: String,
    },
    /// The cursor belongs to an earlier load of the namespace and its key is gone: begin the scan again.
    #[error("the cursor has expired: the namespace was loaded anew since; begin the scan again")]
    CursorExpired,
    /// The daemon is stopping and takes no further requests.
    #[error("the daemon is stopping and takes no further requests")]
    Stopping,
    /// No protocol version that both sides speak.
    #[error(
        "no common protocol version: the other side speaks {lowest} to {highest}, this side {own_lowest} to {own_highest}; use client and daemon of the same release"
    )]
    Version {
        /// The lowest version the other side speaks.
        lowest: u16,
        /// The highest version the other side speaks.
        highest: u16,
        /// The lowest version this side speaks.
        own_lowest: u16,
        /// The highest version this side speaks.
        own_highest: u16,
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
    #[error("user {uid} may not use this store: it belongs to user {owner}")]
    Forbidden {
        /// The peer's user id.
        uid: u32,
        /// The owner's user id.
        owner: u32,
    },
    /// A value that exists cannot be given in the form asked for; the raw form always can.
    #[error("the value of key {key:?} cannot be represented as the type asked for: {reason}; read it raw")]
    NotRepresentable {
        /// The key, shortened when long.
        key: String,
        /// Why not.
        reason: String,
    },
}

fn found_words(found: Option<Seq>) -> String {
    found.map_or_else(|| "there is no such record".to_owned(), |seq| format!("the record's sequence number is {seq}"))
}
