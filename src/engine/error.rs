//! What can go wrong in the store, told so that a person knows what failed, where, and what to do.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use commonhold_proto::message::Kind;
use commonhold_proto::{NameError, Seq};

use super::layout::PRIVATE_DIR;
use crate::lock::{Holder, LockError};

/// A failure of the store. Unless a variant says otherwise, nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name breaks its rule.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A namespace whose name differs only in letter case exists.
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
    #[error("the value of key {key:?} is not JSON: {reason} at byte {offset}")]
    InvalidJson {
        /// The key, shortened when long.
        key: String,
        /// Byte of the value's text, from 0.
        offset: u64,
        /// What was found there.
        reason: String,
    },
    /// Something passes its limit.
    #[error("too many {what}: {got}, the limit is {limit}; nothing was changed")]
    TooLarge {
        /// What, beginning with its unit: "bytes in the value of key …".
        what: String,
        /// Its size.
        got: u64,
        /// The limit.
        limit: u64,
    },
    /// A condition did not hold.
    #[error("operation {operation} was refused by its condition: nothing was changed")]
    ConditionFailed {
        /// Which operation of the request, from 0.
        operation: u32,
        /// The Seq of the record that is there, if there is one.
        found: Option<Seq>,
    },
    /// A value is not of the type that an operation needs.
    #[error("operation {operation} was refused: key {key:?}{} must be {needed}, but {found}; nothing was changed", field_words(field.as_deref()))]
    WrongType {
        /// Which operation of the request, from 0.
        operation: u32,
        /// The key, shortened when long.
        key: String,
        /// The field, shortened when long; none is the value itself.
        field: Option<String>,
        /// What it must be, as `an object`.
        needed: String,
        /// What it is, as `it is a string`.
        found: String,
    },
    /// A sum is an integer beyond 64 bits, or no finite float.
    #[error(
        "operation {operation} was refused: field {field:?} of key {key:?} holds, or would come to, an integer beyond 64 bits or a float that is not finite; nothing was changed"
    )]
    Overflow {
        /// Which operation of the request, from 0.
        operation: u32,
        /// The key, shortened when long.
        key: String,
        /// The field, shortened when long.
        field: String,
    },
    /// The namespace is closed: its file could not be read, or is not the one that the journal's records belong to.
    #[error("namespace {place} is closed: {reason}. Its file {file} was not changed; with the daemon stopped, `commonhold check` tells how to repair it", file = .file.display())]
    NeedsRepair {
        /// Workspace and namespace.
        place: String,
        /// Its file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Something else stands where a namespace's file or a workspace's directory is to be. The store serves on.
    #[error(
        "{path} is {what}, and stands where {whose} needs {needed}: move it out of the store or give it another name, and try again. Nothing was changed", path = .path.display()
    )]
    InTheWay {
        /// Where it stands.
        path: PathBuf,
        /// What it is, as `a directory`.
        what: String,
        /// For whom it is in the way, as `namespace w/notes`.
        whose: String,
        /// What is to be there.
        needed: &'static str,
    },
    /// The disk is full.
    #[error("the disk of {path} is full: nothing was changed; free some space and repeat it", path = .path.display())]
    Full {
        /// The file that could not grow.
        path: PathBuf,
    },
    /// The disk has no room for the piece of journal that a start begins. Reads are served, where the store was opened.
    #[error(
        "the disk of {file} is full: to take writes, the store needs {needed} bytes there to begin the next piece of its journal, and {}; free some space, and try again. Nothing was changed", free_words(*.free, *.needed), file = .file.display()
    )]
    NoRoomToBegin {
        /// The file that could not be written.
        file: PathBuf,
        /// Its bytes.
        needed: u64,
        /// How many are free on its file system, if that could be seen.
        free: Option<u64>,
    },
    /// The operating system refused an operation on a file.
    #[error("cannot {action} {path}: {source}; {remedy}", path = .path.display(), remedy = remedy(source))]
    Disk {
        /// What was being done, as in "cannot … FILE".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Its words.
        source: io::Error,
    },
    /// Writing has ended until the store is opened anew; reads go on.
    #[error("writes are refused: {reason}; reads go on, open the store anew when the cause is mended")]
    Unavailable {
        /// What ended it.
        reason: String,
    },
    /// The write was done once or not at all.
    #[error(
        "the outcome of the write is unknown: {reason}; it was done once or not at all, read the record to find out"
    )]
    OutcomeUnknown {
        /// Why it cannot be known.
        reason: String,
    },
    /// The grant that the write depends on has ended.
    #[error("the lock of token {token} is not held any more: nothing was changed")]
    TokenNotLive {
        /// The token.
        token: u64,
    },
    /// Another program holds the namespace's flush lock.
    #[error("flush of {place} gave up after {waited:?}: another program holds {lock_file}; flush again when it is done", lock_file = .lock_file.display())]
    FlushLockTimeout {
        /// Workspace and namespace.
        place: String,
        /// The lock file.
        lock_file: PathBuf,
        /// How long it waited.
        waited: Duration,
    },
    /// The cursor is of an earlier load and its key is gone.
    #[error("the cursor has expired: the namespace was loaded anew since; begin the scan again")]
    CursorExpired,
    /// The namespace is of another kind than is asked for: who opened it first has decided.
    #[error("namespace {place} is {}: open it as that, or choose another name", if *.kind == Kind::Volatile { "volatile" } else { "persistent" })]
    KindMismatch {
        /// Workspace and namespace.
        place: String,
        /// The kind that it is of.
        kind: Kind,
    },
    /// Not possible for a volatile namespace.
    #[error("namespace {place} is volatile and has no file: it cannot be {what}")]
    Volatile {
        /// Workspace and namespace.
        place: String,
        /// What cannot be done, as `flushed`.
        what: String,
    },
    /// One request writes to namespaces of both kinds.
    #[error(
        "the request writes to both persistent and volatile namespaces, which cannot be one atomic write; nothing was changed"
    )]
    MixedKinds,
    /// The write would take more memory than the store may.
    #[error(
        "the store's memory is used up: {used} of {limit} bytes, and the write needs {needed} more; nothing was changed"
    )]
    MemoryFull {
        /// Bytes in use.
        used: u64,
        /// The limit.
        limit: u64,
        /// About how many bytes the write needs.
        needed: u64,
    },
    /// More was changed while a snapshot was read than is kept for it.
    #[error("the snapshot has expired: more was changed during the reading than is kept for it; read it again")]
    SnapshotExpired,
    /// Another daemon owns the store.
    #[error("the store {dir} is owned by another daemon{holder}: stop that one first", dir = .dir.display(), holder = holder_words(.holder.as_ref()))]
    Owned {
        /// The store's directory.
        dir: PathBuf,
        /// Who owns it, as far as its lock file tells.
        holder: Option<Holder>,
    },
    /// A lock file could not be used. At a start nothing was changed; in a flush the file is as it was.
    #[error(transparent)]
    Lock(LockError),
    /// What is to be watched from is not kept any more.
    #[error(
        "what was written after that is not kept any more, only what was from sequence number {oldest} on: read all records, and watch from there"
    )]
    Gone {
        /// The oldest write that can be told.
        oldest: Seq,
    },
    /// The write that is to be watched from was lost in a crash.
    #[error("a crash took the writes after sequence number {to}: read all records, and watch from there")]
    Rewound {
        /// The last write that was recovered.
        to: Seq,
    },
    /// The write that is to be watched from has not been done yet.
    #[error("sequence number {asked} is in the future, {latest} is the latest")]
    NotYet {
        /// The Seq that was named.
        asked: Seq,
        /// The latest one.
        latest: Seq,
    },
    /// Bytes that had reached the platter are not what was written. The store does not start.
    #[error("{file}, byte {offset}: {reason}. This is damage and not an interrupted write; nothing was changed. Keep a copy of the whole directory, then let `commonhold check` tell what is left and `commonhold repair --cut-journal` what it would do", file = .file.display())]
    Damage {
        /// The damaged file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
    /// The file was written by a newer release.
    #[error("{file} has format version {version}, this release knows up to {known}: use the newer release; nothing was changed", file = .file.display())]
    NewerFormat {
        /// The file.
        file: PathBuf,
        /// Its version.
        version: u32,
        /// The newest version this release reads.
        known: u32,
    },
    /// A repair was asked for where none is needed.
    #[error("nothing to repair: {what}; `commonhold check` tells what is")]
    NothingToRepair {
        /// What is as it should be.
        what: String,
    },
    /// A repair that was asked for cannot be done.
    #[error("namespace {place} cannot be repaired so: {reason}. Nothing was changed")]
    CannotRepair {
        /// Workspace and namespace.
        place: String,
        /// Why not, and what else can be done.
        reason: String,
    },
    /// The path given as a store is not a directory, or something in the store that must be one. A link does not count.
    #[error("{path} is not a directory: {}", directory_wanted(path), path = .path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
}

/// What to do about something that is not a directory.
fn directory_wanted(path: &Path) -> &'static str {
    if path.components().any(|part| part.as_os_str() == PRIVATE_DIR) {
        "a link or file stands where one of the store's own belongs (a link is not followed). Nothing was changed; move it away, or put the directory itself there"
    } else {
        "name the directory that holds, or shall hold, the kv_store_*.json files"
    }
}

/// What to do about the operating system's refusal.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "let this user read and write it, then try again"
        }
        _ => "mend the cause (the system's log may tell more of it), then try again",
    }
}

fn field_words(field: Option<&str>) -> String {
    field.map_or_else(String::new, |field| format!(", field {field:?},"))
}

fn free_words(free: Option<u64>, needed: u64) -> String {
    match free {
        None => "fewer are free".to_owned(),
        // What the file system has is then not what this user may take.
        Some(free) if free >= needed => format!("a quota leaves fewer, though {free} are free"),
        Some(free) => format!("{free} are free"),
    }
}

fn holder_words(holder: Option<&Holder>) -> String {
    holder.map_or_else(String::new, |holder| format!(" ({holder})"))
}

impl Error {
    /// Wraps an operating system's refusal, telling a full disk from the rest.
    pub(crate) fn disk<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + use<'a> {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { path: path.to_owned() },
            _ => Self::Disk { action, path: path.to_owned(), source },
        }
    }

    /// The same failure for another of the requests that it hit.
    pub(crate) fn repeat(&self) -> Self {
        match self {
            Self::Full { path } => Self::Full { path: path.clone() },
            Self::NoRoomToBegin { file, needed, free } => {
                Self::NoRoomToBegin { file: file.clone(), needed: *needed, free: *free }
            }
            Self::Disk { action, path, source } => Self::Disk {
                action,
                path: path.clone(),
                source: source
                    .raw_os_error()
                    .map_or_else(|| io::Error::new(source.kind(), source.to_string()), io::Error::from_raw_os_error),
            },
            Self::OutcomeUnknown { reason } => Self::OutcomeUnknown { reason: reason.clone() },
            Self::Unavailable { reason } => Self::Unavailable { reason: reason.clone() },
            other => Self::Unavailable { reason: other.to_string() },
        }
    }

    /// Whether a namespace's file or the journal is damaged or foreign: exit code 5 of the command line.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damage { .. } | Self::NeedsRepair { .. })
    }
}

impl From<LockError> for Error {
    fn from(error: LockError) -> Self {
        match error {
            LockError::Held { path, holder } => {
                let dir = path.parent().and_then(Path::parent).unwrap_or(&path).to_owned();
                Self::Owned { dir, holder }
            }
            other => Self::Lock(other),
        }
    }
}
