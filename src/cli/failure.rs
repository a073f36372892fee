//! How a command fails: the exit codes, and which error means which of them. The table is in one place so that it can
//! be compared with `docs/cli.md` at a glance.

use std::fmt;
use std::io;
use std::process::ExitCode;

use crate::client;
use crate::daemon::{self, with_causes};
use crate::engine;
use crate::lock::LockError;
use crate::proto::{Fault, NameError};

/// The exit codes of every command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// Done.
    Done = 0,
    /// Something asked for is not there.
    NotFound = 1,
    /// The command or its input is wrong.
    Usage = 2,
    /// No daemon owns the store.
    NoDaemon = 3,
    /// Refused: a limit, a condition, a permission, another owner.
    Refused = 4,
    /// Bytes on disk are damaged.
    Damage = 5,
    /// Whether a write was done cannot be known.
    OutcomeUnknown = 6,
    /// Unavailable: the disk, its space, an earlier failure, the protocol.
    Unavailable = 7,
    /// The deadline passed.
    TimedOut = 8,
    /// `lock`: it was not free in time.
    LockTimedOut = 124,
    /// `lock`: anything else that kept the command from being begun.
    LockRefused = 125,
    /// `lock`: the command cannot be run.
    CommandNotRun = 126,
    /// `lock`: there is no such command.
    CommandNotFound = 127,
}

impl Exit {
    /// The word for it in JSON.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::NotFound => "not_found",
            Self::Usage => "usage",
            Self::NoDaemon => "no_daemon",
            Self::Refused => "refused",
            Self::Damage => "damage",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::Unavailable => "unavailable",
            Self::TimedOut => "timed_out",
            Self::LockTimedOut => "lock_timed_out",
            Self::LockRefused => "lock_refused",
            Self::CommandNotRun => "command_not_run",
            Self::CommandNotFound => "command_not_found",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(super) enum Failure {
    /// The reader of standard output has gone, as `head` does: there is nothing to tell and nobody to tell it to.
    ReaderGone,
    /// Everything else.
    Said {
        /// The exit code.
        exit: Exit,
        /// What failed, where, and what to do.
        text: String,
    },
}

impl Failure {
    /// A failure with its sentence.
    pub(super) fn new(exit: Exit, text: impl fmt::Display) -> Self {
        Self::Said { exit, text: text.to_string() }
    }

    /// Its exit code.
    pub(super) const fn exit(&self) -> Exit {
        match self {
            Self::ReaderGone => Exit::Done,
            Self::Said { exit, .. } => *exit,
        }
    }

    /// The same failure with what it means for this command said after it.
    pub(super) fn and(self, more: impl fmt::Display) -> Self {
        match self {
            Self::ReaderGone => Self::ReaderGone,
            Self::Said { exit, text } => Self::Said { exit, text: format!("{text}{more}") },
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReaderGone => f.write_str("the reader of standard output has gone"),
            Self::Said { text, .. } => f.write_str(text),
        }
    }
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        let exit = match &error {
            client::Error::Fault(fault) => exit_of_fault(fault),
            client::Error::Name(name) => exit_of_name(name),
            client::Error::NoDaemon { .. } | client::Error::Lost { .. } => Exit::NoDaemon,
            client::Error::OutcomeUnknown { .. } => Exit::OutcomeUnknown,
            client::Error::TimedOut { .. } => Exit::TimedOut,
            client::Error::TooLarge { .. } | client::Error::ForeignDaemon { .. } => Exit::Refused,
            client::Error::Json { .. } | client::Error::NotRepresentable { .. } => Exit::Usage,
            _ => Exit::Unavailable,
        };
        Self::new(exit, with_causes(&error))
    }
}

impl From<NameError> for Failure {
    fn from(error: NameError) -> Self {
        Self::new(exit_of_name(&error), &error)
    }
}

/// A name that breaks its rule is invalid input; a key that is too long meets a limit.
fn exit_of_name(error: &NameError) -> Exit {
    match error {
        NameError::Namespace { .. } | NameError::Workspace { .. } => Exit::Usage,
        NameError::Key { .. } => Exit::Refused,
    }
}

/// What the daemon's answer means for the exit code.
fn exit_of_fault(fault: &Fault) -> Exit {
    match fault {
        Fault::InvalidNamespace { .. }
        | Fault::InvalidWorkspace { .. }
        | Fault::InvalidJson { .. }
        | Fault::Invalid { .. } => Exit::Usage,
        Fault::OtherStore { .. } => Exit::NoDaemon,
        Fault::NameClash { .. }
        | Fault::TooLarge { .. }
        | Fault::ConditionFailed { .. }
        | Fault::CursorExpired
        | Fault::KindMismatch { .. }
        | Fault::Volatile { .. }
        | Fault::MixedKinds
        | Fault::WrongType { .. }
        | Fault::Overflow { .. }
        | Fault::MemoryFull { .. }
        | Fault::SnapshotExpired
        | Fault::Flooded { .. }
        | Fault::SessionEnded
        | Fault::WouldWait { .. }
        | Fault::AlreadyHeld { .. }
        | Fault::Deadlock { .. }
        | Fault::NotHeld { .. }
        | Fault::TokenNotLive { .. }
        | Fault::LimitMismatch { .. }
        | Fault::Gone { .. }
        | Fault::Rewound { .. }
        | Fault::NotYet { .. }
        | Fault::Forbidden { .. } => Exit::Refused,
        Fault::DiskError { reason, .. } => exit_of_os_words(reason),
        Fault::NoSuchSession { .. } => Exit::NotFound,
        Fault::NeedsRepair { .. } => Exit::Damage,
        Fault::OutcomeUnknown { .. } => Exit::OutcomeUnknown,
        Fault::TimedOut { .. } | Fault::FlushLockTimeout { .. } | Fault::Loading { .. } => Exit::TimedOut,
        Fault::Malformed { .. }
        | Fault::Unsupported { .. }
        | Fault::Full { .. }
        | Fault::Unavailable { .. }
        | Fault::FlushFailed { .. }
        | Fault::Stopping
        | Fault::Cancelled
        | Fault::Version { .. } => Exit::Unavailable,
    }
}

/// What the engine's error means, where a command works without a daemon and where `serve` does not start.
fn exit_of_engine(error: &engine::Error) -> Exit {
    match error {
        engine::Error::InvalidJson { .. } | engine::Error::NotADirectory { .. } => Exit::Usage,
        engine::Error::Name(name) => exit_of_name(name),
        engine::Error::TooLarge { .. }
        | engine::Error::ConditionFailed { .. }
        | engine::Error::NameClash { .. }
        | engine::Error::CursorExpired
        | engine::Error::Owned { .. }
        | engine::Error::NothingToRepair { .. }
        | engine::Error::CannotRepair { .. }
        | engine::Error::Lock(LockError::NotAllowed { .. } | LockError::Link { .. } | LockError::Shared { .. }) => {
            Exit::Refused
        }
        engine::Error::Disk { source, .. } => exit_of_disk(source),
        engine::Error::NeedsRepair { .. } | engine::Error::Damage { .. } => Exit::Damage,
        engine::Error::OutcomeUnknown { .. } => Exit::OutcomeUnknown,
        engine::Error::FlushLockTimeout { .. } => Exit::TimedOut,
        _ => Exit::Unavailable,
    }
}

/// What the operating system's refusal of one of the store's own files means: a permission can be given, a disk must be
/// mended.
fn exit_of_disk(error: &io::Error) -> Exit {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Exit::Refused,
        _ => Exit::Unavailable,
    }
}

/// The same where the error has crossed the wire as the operating system's words, which end with its number.
fn exit_of_os_words(words: &str) -> Exit {
    let number = words.rsplit_once("(os error ").and_then(|(_, rest)| rest.split(')').next()?.parse().ok());
    number.map_or(Exit::Unavailable, |number| exit_of_disk(&io::Error::from_raw_os_error(number)))
}

/// The same for a file that the command named, which may be named wrongly.
pub(super) fn exit_of_io(error: &io::Error) -> Exit {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory => Exit::Usage,
        _ => exit_of_disk(error),
    }
}

impl From<engine::Error> for Failure {
    fn from(error: engine::Error) -> Self {
        Self::new(exit_of_engine(&error), with_causes(&error))
    }
}

impl From<daemon::Error> for Failure {
    fn from(error: daemon::Error) -> Self {
        let exit = match &error {
            daemon::Error::NoDirectory { .. } | daemon::Error::NotADirectory { .. } => Exit::Usage,
            daemon::Error::Unsafe { .. } | daemon::Error::NetworkFileSystem { .. } => Exit::Refused,
            daemon::Error::Store(error) => exit_of_engine(error),
            daemon::Error::System { source, .. } => exit_of_disk(source),
            daemon::Error::Socket(_)
            | daemon::Error::TooFewDescriptors { .. }
            | daemon::Error::FlushFailed { .. }
            | daemon::Error::FlushSkipped
            | daemon::Error::Unavailable { .. } => Exit::Unavailable,
        };
        Self::new(exit, with_causes(&error))
    }
}
