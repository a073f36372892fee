//! Whether the store still is ours: looked at every second, at each change of segment, and before a file is replaced.

use std::path::PathBuf;
use std::sync::Arc;

use super::error::Error;
use super::poison::Poison;
use crate::lock::OwnerLock;

/// The owner lock, and what it ends when it is lost.
#[derive(Debug)]
pub(crate) struct Ownership {
    /// None where the store is read and has no directory that an owner's lock could lie in.
    lock: Option<Box<dyn OwnerLock>>,
    path: PathBuf,
    poison: Arc<Poison>,
}

impl Ownership {
    pub(super) fn new(lock: Option<Box<dyn OwnerLock>>, path: PathBuf, poison: Arc<Poison>) -> Self {
        Self { lock, path, poison }
    }

    /// Sees that the lock file is the one that we hold. If it is not, another daemon may own the store already, and
    /// writing ends.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it is lost, [`Error::Disk`] when that cannot be seen.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let still_ours = self.lock.as_ref().map_or(Ok(true), |lock| lock.still_ours());
        if still_ours.map_err(Error::disk("look at", &self.path))? {
            return Ok(());
        }
        let reason = format!(
            "somebody deleted or replaced the lock file {}, so another daemon may own the store, and this one writes nothing more. What was acknowledged is in the journal as far as it was written. Stop this daemon, see that no other one runs on the directory, start one, and leave the lock file alone",
            self.path.display()
        );
        self.poison.trip_as_taken(reason.clone());
        Err(Error::Unavailable { reason })
    }
}
