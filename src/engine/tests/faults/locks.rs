//! Locks whose n-th use fails: lock files are opened, made and locked past the disk, so the disk cannot do it.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::lock::{FlushLock, LockError, Locks, MemoryLocks, OwnerLock, SharedLock};

/// Failures of lock files to come. Clones are the same; by default there are none.
#[derive(Clone, Debug, Default)]
pub(in crate::engine::tests) struct LockFailures(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    calls: u64,
    /// How many calls are left, the failing one included; what it answers; whether all later ones do.
    failure: Option<(u64, i32, bool)>,
}

impl LockFailures {
    /// These locks, with the failures.
    pub(in crate::engine::tests) fn of(&self, locks: MemoryLocks) -> FailingLocks {
        FailingLocks { locks, failures: self.clone() }
    }

    /// How often a lock was asked for or looked at.
    pub(in crate::engine::tests) fn calls(&self) -> u64 {
        self.0.lock().calls
    }

    /// The `n`-th call from now answers this number of the operating system's.
    pub(in crate::engine::tests) fn fail(&self, n: u64, os_error: i32, for_good: bool) {
        self.0.lock().failure = Some((n, os_error, for_good));
    }

    /// Takes the failure back.
    pub(in crate::engine::tests) fn mend(&self) {
        self.0.lock().failure = None;
    }

    fn meet(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        state.calls += 1;
        let Some((left, os_error, for_good)) = &mut state.failure else { return Ok(()) };
        let os_error = *os_error;
        match *left {
            0 => return Ok(()),
            1 => *left = u64::from(*for_good),
            _ => {
                *left -= 1;
                return Ok(());
            }
        }
        Err(io::Error::from_raw_os_error(os_error))
    }

    /// As the locks of real files tell it.
    fn meet_at(&self, path: &Path) -> Result<(), LockError> {
        let action = "open the lock file";
        self.meet().map_err(|source| LockError::Io { action, path: path.to_owned(), source })
    }
}

/// Locks in memory that may fail.
#[derive(Debug)]
pub(in crate::engine::tests) struct FailingLocks {
    locks: MemoryLocks,
    failures: LockFailures,
}

#[derive(Debug)]
struct FailingOwner {
    owner: Box<dyn OwnerLock>,
    failures: LockFailures,
}

impl OwnerLock for FailingOwner {
    fn still_ours(&self) -> io::Result<bool> {
        self.failures.meet()?;
        self.owner.still_ours()
    }
}

impl Locks for FailingLocks {
    fn own(&self, path: &Path) -> Result<Box<dyn OwnerLock>, LockError> {
        self.failures.meet_at(path)?;
        Ok(Box::new(FailingOwner { owner: self.locks.own(path)?, failures: self.failures.clone() }))
    }

    fn flush_lock(&self, path: &Path, timeout: Duration) -> Result<FlushLock, LockError> {
        self.failures.meet_at(path)?;
        self.locks.flush_lock(path, timeout)
    }

    fn share(&self, path: &Path, timeout: Duration) -> Result<SharedLock, LockError> {
        self.failures.meet_at(path)?;
        self.locks.share(path, timeout)
    }
}
