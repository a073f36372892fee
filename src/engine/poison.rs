//! The switch that ends all writing: once tripped it stays so until the store is opened anew.
//!
//! A failed sync may have lost data that can still be read, and a later sync may succeed without bringing it back.
//! Nothing written after that could be promised, so nothing is.

use std::sync::OnceLock;

use super::error::Error;

/// Why writing has ended, if it has.
#[derive(Debug, Default)]
pub(crate) struct Poison(OnceLock<String>);

impl Poison {
    /// A store that is never to be written, for this reason; nothing has gone wrong, so nothing is logged.
    pub(crate) fn from_the_start(reason: &str) -> Self {
        Self(OnceLock::from(reason.to_owned()))
    }

    /// Ends all writing. The first reason is the one that is told.
    pub(crate) fn trip(&self, reason: String) {
        if self.0.set(reason).is_ok() {
            tracing::error!(reason = self.reason(), "writes are refused from now on");
        }
    }

    /// Why writing has ended.
    pub(crate) fn reason(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
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
