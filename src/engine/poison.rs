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
