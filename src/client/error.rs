//! What can go wrong between a caller and the daemon, in sentences that say what to do.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use commonhold_proto::{DecodeError, EncodeError, Fault, FrameError, NameError};

/// A path as it is typed into a shell.
fn typed(path: &Path) -> String {
    let path = path.display().to_string();
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+:@%,=".contains(c);
    if path.chars().all(is_plain) && !path.starts_with('-') && !path.is_empty() {
        return path;
    }
    let quoted = format!("'{}'", path.replace('\'', "'\\''"));
    if path.starts_with('-') { format!("-- {quoted}") } else { quoted }
}

/// Why a call of the client library failed.
///
/// It can be cloned, because one lost connection may end many requests.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The daemon's refusal, in the daemon's words.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// Nobody serves the store.
    #[error(
        "no daemon serves {dir}: {reason}. Start one with `commonhold serve {typed}`",
        dir = dir.display(),
        typed = typed(dir)
    )]
    NoDaemon {
        /// The store's directory, as it was given.
        dir: PathBuf,
        /// How that was found out.
        reason: String,
    },
    /// Whether the request was done cannot be known: it was sent, or partly sent, no answer came, and nobody could be asked
    /// in time what became of it.
    #[error("the outcome is unknown: {reason}. It was done once or not at all; read the records to find out")]
    OutcomeUnknown {
        /// Why no answer came.
        reason: String,
    },
    /// No answer came in time. A write that ends so was not done; one that was sent ends as
    /// [`OutcomeUnknown`](Self::OutcomeUnknown).
    #[error("timed out after {} ms: {waiting_for}", .waited.as_millis())]
    TimedOut {
        /// How long it waited.
        waited: Duration,
        /// What it waited for.
        waiting_for: &'static str,
    },
    /// The connection was lost, and could not be made again in time. A read is safe to repeat; a write that ends so was
    /// not done.
    #[error("the connection to the daemon of {dir} was lost and could not be made again: {reason}", dir = dir.display())]
    Lost {
        /// The store's directory, as it was given.
        dir: PathBuf,
        /// What was met at the last try.
        reason: String,
    },
    /// A stream of records broke off: those that came are not all. Begin again.
    #[error("reading all records of {dir} broke off: {reason}. What was read is incomplete; begin again", dir = dir.display())]
    BrokeOff {
        /// The store's directory, as it was given.
        dir: PathBuf,
        /// What was met.
        reason: String,
    },
    /// The other side of the socket does not keep to the protocol: it is another version, or something else.
    #[error("the other side of the socket does not speak as Commonhold's daemon does: {reason}")]
    Protocol {
        /// What it said.
        reason: String,
    },
    /// The process behind the socket belongs to somebody else, who could read what is sent and answer anything.
    #[error(
        "the daemon of {dir} belongs to user {uid}, this process to user {own}: nothing was sent to it. Neither that user nor root owns the store; see who put the socket there, and remove it",
        dir = dir.display()
    )]
    ForeignDaemon {
        /// The store's directory, as it was given.
        dir: PathBuf,
        /// The user who runs what listens there.
        uid: u32,
        /// The user of this process.
        own: u32,
    },
    /// The socket cannot be reached for another reason.
    #[error("cannot reach the daemon: {reason}")]
    Unreachable {
        /// What was met.
        reason: String,
    },
    /// A name or a key breaks its rule. Nothing was sent.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Something is larger than a request may be. Nothing was sent.
    #[error("too many {what}: {got}, and the limit is {limit}. Nothing was sent; make it smaller or cut it into parts")]
    TooLarge {
        /// What is too large, with its unit.
        what: String,
        /// Its size.
        got: u64,
        /// The limit.
        limit: u64,
    },
    /// The request was begun by the process that this one was forked from, which gets the answer.
    #[error("this was begun before the process was forked: its answer goes to the parent process; ask again here")]
    Forked,
    /// There is no daemon, and it cannot be started.
    #[error("no daemon serves {dir}, and none could be started: {reason}", dir = dir.display())]
    NotStarted {
        /// The store's directory, as it was given.
        dir: PathBuf,
        /// What is missing and how to get it, or what the daemon said when it ended.
        reason: String,
    },
    /// A text is not one that a cursor gave. Nothing was sent.
    #[error("{text:?} is no cursor: begin the scan anew")]
    InvalidCursor {
        /// The text, shortened when long.
        text: String,
    },
    /// A Rust value could not be written as JSON. Nothing was sent.
    #[error("the value for key {key:?} cannot be written as JSON: {source}")]
    Json {
        /// The key, shortened when long.
        key: String,
        /// What serde says.
        source: Arc<serde_json::Error>,
    },
    /// The stored value exists and cannot be given as the type asked for: `NaN` or an infinity, which are JSON only as
    /// Python means it, nesting deeper than serde reads, or another type. The raw form always can be read.
    #[error("the value of key {key:?} cannot be represented as the type asked for: {source}; read it raw")]
    NotRepresentable {
        /// The key, shortened when long.
        key: String,
        /// What serde says.
        source: Arc<serde_json::Error>,
    },
}

impl Error {
    /// Whether nobody serves the store, so that starting a daemon helps.
    pub fn is_no_daemon(&self) -> bool {
        matches!(self, Self::NoDaemon { .. })
    }

    /// Whether it cannot be known if the request was done. It was done once or not at all.
    pub fn outcome_is_unknown(&self) -> bool {
        matches!(self, Self::OutcomeUnknown { .. } | Self::Fault(Fault::OutcomeUnknown { .. }))
    }

    /// Whether time ran out, here or in the daemon, before the request was begun.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::TimedOut { .. } | Self::Fault(Fault::TimedOut { .. }))
    }

    pub(super) fn protocol(reason: impl Into<String>) -> Self {
        Self::Protocol { reason: reason.into() }
    }

    pub(super) fn unknown(reason: impl Into<String>) -> Self {
        Self::OutcomeUnknown { reason: reason.into() }
    }

    pub(super) fn too_large(what: impl Into<String>, got: usize, limit: usize) -> Self {
        Self::TooLarge { what: what.into(), got: got as u64, limit: limit as u64 }
    }
}

impl From<FrameError> for Error {
    fn from(error: FrameError) -> Self {
        Self::protocol(error.to_string())
    }
}

impl From<DecodeError> for Error {
    fn from(error: DecodeError) -> Self {
        Self::protocol(error.to_string())
    }
}

impl From<EncodeError> for Error {
    fn from(EncodeError::TooLarge { bytes }: EncodeError) -> Self {
        Self::too_large(
            "bytes in the request",
            usize::try_from(bytes).unwrap_or(usize::MAX),
            crate::proto::limits::MAX_FRAME_BYTES,
        )
    }
}
