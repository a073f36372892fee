//! What the engine says, in the words of the wire: the one place where an engine's error becomes a [`Fault`].

use std::path::Path;
use std::time::Duration;

use crate::engine;
use crate::lock::LockError;
use crate::proto::limits::MAX_OPERATIONS;
use crate::proto::{Fault, Place};

impl From<&engine::Error> for Fault {
    fn from(error: &engine::Error) -> Self {
        use engine::Error;
        match error {
            Error::Name(name) => name.clone().into(),
            Error::NameClash { namespace, existing } => {
                Self::NameClash { namespace: namespace.clone(), existing: existing.clone() }
            }
            Error::InvalidJson { key, offset, reason } => {
                Self::InvalidJson { key: key.clone(), offset: *offset, reason: reason.clone() }
            }
            Error::TooLarge { what, got, limit } => Self::TooLarge { what: what.clone(), got: *got, limit: *limit },
            Error::ConditionFailed { operation, found } => {
                Self::ConditionFailed { operation: *operation, found: *found }
            }
            Error::WrongType { operation, key, field, needed, found } => Self::WrongType {
                operation: *operation,
                key: key.clone(),
                field: field.clone(),
                needed: needed.clone(),
                found: found.clone(),
            },
            Error::Overflow { operation, key, field } => {
                Self::Overflow { operation: *operation, key: key.clone(), field: field.clone() }
            }
            Error::NeedsRepair { place, file, reason } => {
                Self::NeedsRepair { place: place.clone(), file: text(file), reason: reason.clone() }
            }
            Error::InTheWay { path, what, whose, needed } => {
                Self::DiskError { action: "use".to_owned(), path: text(path), reason: in_the_way(what, whose, needed) }
            }
            Error::Full { path } => Self::Full { path: text(path) },
            // What is needed goes where the file is named: a client of any release shows that.
            Error::NoRoomToBegin { file, needed, free } => {
                let free = free.map_or_else(|| "fewer".to_owned(), |free| free.to_string());
                let path = text(file);
                Self::Full { path: format!("{path} (where {needed} bytes are needed to begin and {free} are free)") }
            }
            Error::Disk { action, path, source }
            | Error::Lock(LockError::NotAllowed { action, path, source } | LockError::Io { action, path, source }) => {
                Self::DiskError { action: (*action).to_owned(), path: text(path), reason: source.to_string() }
            }
            Error::Unavailable { reason } => Self::Unavailable { reason: reason.clone() },
            Error::TokenNotLive { token } => Self::TokenNotLive { token: *token },
            Error::OutcomeUnknown { reason } => Self::OutcomeUnknown { reason: reason.clone() },
            Error::FlushLockTimeout { place, lock_file, waited } => {
                flush_lock_timeout(place.clone(), lock_file, *waited)
            }
            Error::KindMismatch { place, kind } => Self::KindMismatch { place: place.clone(), kind: *kind },
            Error::Volatile { place, what } => Self::Volatile { place: place.clone(), what: what.clone() },
            Error::MixedKinds => Self::MixedKinds,
            Error::MemoryFull { used, limit, needed } => {
                Self::MemoryFull { used: *used, limit: *limit, needed: *needed }
            }
            Error::CursorExpired => Self::CursorExpired,
            Error::SnapshotExpired => Self::SnapshotExpired,
            Error::Gone { oldest } => Self::Gone { oldest: *oldest },
            Error::Rewound { to } => Self::Rewound { to: *to },
            Error::NotYet { asked, latest } => Self::NotYet { asked: *asked, latest: *latest },
            // The others end or prevent a start. Should one come up while serving, its own words say most.
            other => Self::Unavailable { reason: with_causes(other) },
        }
    }
}

/// Why the flush of a namespace that is served has failed, for all who asked for it: with one namespace or with all, it is
/// the same failure.
pub(super) fn flush_failed(place: &Place, error: &engine::Error) -> Fault {
    let reason = match error {
        engine::Error::InTheWay { path, what, whose, needed } => {
            format!("{} is {}", path.display(), in_the_way(what, whose, needed).trim_start_matches("it is "))
        }
        engine::Error::Full { path } => {
            format!("the disk of {} is full; the namespace's file is as it was", path.display())
        }
        engine::Error::Disk { action, path, source } => format!("cannot {action} {}: {source}", path.display()),
        other => return Fault::from(other),
    };
    Fault::FlushFailed { places: vec![place.to_string()], reason }
}

/// What of a failed flush is told together with the names of all namespaces that failed.
pub(super) fn reason_of(fault: Fault) -> String {
    match fault {
        Fault::FlushFailed { reason, .. } => reason,
        other => other.to_string(),
    }
}

fn in_the_way(what: &str, whose: &str, needed: &str) -> String {
    if what.contains("link") && needed.contains("directory") {
        // What it leads to belongs there; to move the link away alone would have another one made.
        return format!("it is {what}, and stands where {whose} needs {needed}: put the directory itself there");
    }
    format!("it is {what}, and stands where {whose} needs {needed}: move it out of the store or give it another name")
}

/// [`Fault::FlushLockTimeout`] for a flush that has waited so long in all.
pub(super) fn flush_lock_timeout(place: String, lock_file: &Path, waited: Duration) -> Fault {
    Fault::FlushLockTimeout { place, lock_file: text(lock_file), waited_ms: millis(waited) }
}

/// [`Fault::TimedOut`] for a request that was not begun in time.
pub(super) fn timed_out(waited: Duration, waiting_for: &str) -> Fault {
    Fault::TimedOut { waited_ms: millis(waited), waiting_for: waiting_for.to_owned() }
}

/// [`Fault::Loading`] for a request whose time was over before its namespace was loaded so far.
pub(super) fn loading(place: &Place, (done_bytes, total_bytes): (u64, u64)) -> Fault {
    Fault::Loading { place: place.to_string(), done_bytes, total_bytes }
}

/// Refuses a list that is longer than a request may carry.
pub(super) fn check_count(what: &str, got: usize) -> Result<(), Fault> {
    if got <= MAX_OPERATIONS {
        return Ok(());
    }
    // Decoding keeps one element more than allowed and no others, so the true count is not known here.
    Err(Fault::TooLarge { what: format!("{what} in the request"), got: got as u64, limit: MAX_OPERATIONS as u64 })
}

/// An error and what caused it, in one line; a cause that the words before repeat already is left out.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !words.contains(&more) {
            words.push_str(": ");
            words.push_str(&more);
        }
        cause = error.source();
    }
    words
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
