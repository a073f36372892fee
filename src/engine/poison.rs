//! The switch that ends all writing: once tripped it stays so until the store is opened anew.
//!
//! A failed sync may have lost data that can still be read, and a later sync may succeed without bringing it back.
//! Nothing written after that could be promised, so nothing is.

use std::sync::OnceLock;

use super::error::Error;

/// Why writing has ended, if it has.
#[derive(Debug, Default)]
pub(crate) struct Poison(OnceLock<Ended>);

#[derive(Debug)]
struct Ended {
    cause: Cause,
    reason: String,
}

/// What kind of thing ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The disk: what is in memory is right, and can still be brought to safety.
    Disk,
    /// The store may have another owner: not a byte of it may be changed any more.
    Taken,
    /// It was never to be written.
    ReadOnly,
}

impl Poison {
    /// A store that is never to be written, for this reason; nothing has gone wrong, so nothing is logged.
    pub(crate) fn from_the_start(reason: &str) -> Self {
        Self(OnceLock::from(Ended { cause: Cause::ReadOnly, reason: reason.to_owned() }))
    }

    /// Ends all writing, because of the disk. The first reason is the one that is told.
    pub(crate) fn trip(&self, reason: String) {
        self.end(Cause::Disk, reason);
    }

    /// Ends all writing, because the store may have another owner.
    pub(crate) fn trip_as_taken(&self, reason: String) {
        self.end(Cause::Taken, reason);
    }

    fn end(&self, cause: Cause, reason: String) {
        if self.0.set(Ended { cause, reason }).is_ok() {
            tracing::error!(reason = self.reason(), "writes are refused from now on");
        }
    }

    /// Why writing has ended.
    pub(crate) fn reason(&self) -> Option<&str> {
        self.0.get().map(|ended| ended.reason.as_str())
    }

    /// What kind of thing ended it.
    pub(crate) fn cause(&self) -> Option<Cause> {
        self.0.get().map(|ended| ended.cause)
    }

    /// # Errors
    /// [`Error::Unavailable`] once tripped.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match self.reason() {
            None => Ok(()),
            Some(reason) => Err(Error::Unavailable { reason: reason.to_owned() }),
        }
    }
}
