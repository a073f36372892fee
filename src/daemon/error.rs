//! Why a daemon did not start, or did not end well.

use std::io;
use std::path::PathBuf;

use crate::engine;
use crate::ipc::IpcError;

/// What ends `commonhold serve` with another exit code than 0.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store's directory is not there.
    #[error("there is no directory {}: create it first, or name the one that holds the kv_store_*.json files", dir.display())]
    NoDirectory {
        /// The path as it was given.
        dir: PathBuf,
    },
    /// The path is not a directory.
    #[error("{} is not a directory: name the directory that holds, or shall hold, the kv_store_*.json files", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// Other users could change what lies there, or what the path means.
    #[error("{} is not safe to keep a store in: {reason}", path.display())]
    Unsafe {
        /// The store, a directory above it, or `.commonhold` in it.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The directory is on a network file system.
    #[error(
        "{} is on a network file system ({kind}), where another machine may write the same files and a sync may promise less: use a local disk, or say --allow-network-fs if only this machine uses it",
        dir.display()
    )]
    NetworkFileSystem {
        /// The store's directory.
        dir: PathBuf,
        /// Which one.
        kind: &'static str,
    },
    /// The limit of open files is too low for a daemon and its connections.
    #[error(
        "this process may open {limit} files at once, and a daemon needs {least} at least: raise the limit (`ulimit -n`, `LimitNOFILE=`)"
    )]
    TooFewDescriptors {
        /// How many it may open.
        limit: u64,
        /// How many it needs.
        least: u64,
    },
    /// The engine did not open the store: another owner, damage, a newer format, the disk.
    #[error(transparent)]
    Store(#[from] engine::Error),
    /// The socket could not be bound.
    #[error(transparent)]
    Socket(#[from] IpcError),
    /// The operating system refused something that a daemon cannot do without.
    #[error("cannot {action}: {source}")]
    System {
        /// What, as in "cannot start a thread".
        action: &'static str,
        /// Its words.
        source: io::Error,
    },
    /// The daemon has ended, but these namespaces' files lack something. Their records are safe in the journal.
    #[error(
        "could not flush {}: {reason}. What they hold is safe in the journal and will be there at the next start",
        places.join(", ")
    )]
    FlushFailed {
        /// The namespaces.
        places: Vec<String>,
        /// The first failure's words.
        reason: String,
    },
    /// The daemon has ended without flushing, as it was told to by a second signal.
    #[error(
        "told to stop twice, the daemon ended without the flush: files may lack what the journal holds; it will be there at the next start"
    )]
    FlushSkipped,
    /// The daemon has ended, but could not write any more: the disk failed, or the store was taken from it.
    #[error("the store could no longer be written: {reason}")]
    Unavailable {
        /// Why.
        reason: String,
    },
}

impl Error {
    pub(super) fn system(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { action, source }
    }
}
