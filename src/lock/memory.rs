//! Locks without files, for tests: who holds one and who waits for one can be seen, and a test can take part.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::{FlushLock, Guard, Holder, LockError, Locks, OwnerLock, SharedLock};

/// Locks in memory, one for each path. Clones are the same locks.
///
/// ```
/// use std::{path::Path, thread, time::Duration};
/// use commonhold::lock::{Locks, MemoryLocks};
///
/// let locks = MemoryLocks::new();
/// let reader = locks.hold_shared(Path::new("a.lock"));
/// let flusher = thread::spawn({
///     let locks = locks.clone();
///     move || locks.flush_lock(Path::new("a.lock"), Duration::from_secs(60)).is_ok()
/// });
/// assert!(locks.wait_until_someone_waits(Path::new("a.lock"), Duration::from_secs(60)));
/// drop(reader);
/// assert!(flusher.join().expect("the flusher does not panic"));
/// ```
#[derive(Clone, Debug, Default)]
pub struct MemoryLocks {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    locks: Mutex<BTreeMap<PathBuf, Lock>>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Lock {
    alone: bool,
    shared: usize,
    waiting: usize,
    /// Which lock file this is: stealing makes another one, and a hold on the old one counts no more.
    inode: u64,
}

/// One hold on the lock of `path`.
#[derive(Debug)]
struct Hold {
    shared: Arc<Shared>,
    path: PathBuf,
    alone: bool,
    inode: u64,
}

impl Guard for Hold {}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(lock) = self.shared.locks.lock().get_mut(&self.path)
            && lock.inode == self.inode
        {
            if self.alone {
                lock.alone = false;
            } else {
                lock.shared -= 1;
            }
        }
        self.shared.changed.notify_all();
    }
}

impl OwnerLock for Hold {
    fn still_ours(&self) -> io::Result<bool> {
        Ok(self.shared.locks.lock().get(&self.path).is_some_and(|lock| lock.inode == self.inode))
    }
}

impl MemoryLocks {
    /// No lock is held.
    pub fn new() -> Self {
        Self::default()
    }

    /// Holds a lock exclusively, as another daemon or flusher would.
    ///
    /// # Panics
    /// If it is held already.
    pub fn hold(&self, path: &Path) -> FlushLock {
        self.flush_lock(path, Duration::ZERO).expect("a test takes a lock that nobody holds")
    }

    /// Holds a lock shared, as an outside reader would.
    ///
    /// # Panics
    /// If it is held exclusively.
    pub fn hold_shared(&self, path: &Path) -> SharedLock {
        self.share(path, Duration::ZERO).expect("a test shares a lock that nobody holds alone")
    }

    /// How many hold this lock now.
    pub fn holders(&self, path: &Path) -> usize {
        self.shared.locks.lock().get(path).map_or(0, |lock| usize::from(lock.alone) + lock.shared)
    }

    /// How many wait for this lock now.
    pub fn waiting(&self, path: &Path) -> usize {
        self.shared.locks.lock().get(path).map_or(0, |lock| lock.waiting)
    }

    /// Waits until somebody waits for this lock; false if nobody did within `deadline`.
    pub fn wait_until_someone_waits(&self, path: &Path, deadline: Duration) -> bool {
        let end = Instant::now() + deadline;
        let mut locks = self.shared.locks.lock();
        loop {
            if locks.get(path).is_some_and(|lock| lock.waiting > 0) {
                return true;
            }
            if self.shared.changed.wait_until(&mut locks, end).timed_out() {
                return false;
            }
        }
    }

    /// Replaces the lock file under its holders: they hold it no more, and others can take it.
    pub fn steal(&self, path: &Path) {
        let mut locks = self.shared.locks.lock();
        let lock = locks.entry(path.to_owned()).or_default();
        *lock = Lock { inode: lock.inode + 1, waiting: lock.waiting, ..Lock::default() };
        self.shared.changed.notify_all();
    }

    fn take(&self, path: &Path, alone: bool, timeout: Duration) -> Option<Hold> {
        let end = Instant::now() + timeout;
        let mut locks = self.shared.locks.lock();
        loop {
            let lock = locks.entry(path.to_owned()).or_default();
            if !lock.alone && (!alone || lock.shared == 0) {
                if alone {
                    lock.alone = true;
                } else {
                    lock.shared += 1;
                }
                let inode = lock.inode;
                return Some(Hold { shared: Arc::clone(&self.shared), path: path.to_owned(), alone, inode });
            }
            if Instant::now() >= end {
                return None;
            }
            self.wait(&mut locks, path, end);
        }
    }

    /// Waits for a change until `end`, visibly.
    fn wait(&self, locks: &mut MutexGuard<'_, BTreeMap<PathBuf, Lock>>, path: &Path, end: Instant) {
        locks.entry(path.to_owned()).or_default().waiting += 1;
        self.shared.changed.notify_all();
        // Whether it was the time that ended the wait shows when the caller looks again.
        let _ = self.shared.changed.wait_until(locks, end);
        locks.entry(path.to_owned()).or_default().waiting -= 1;
    }
}

impl Locks for MemoryLocks {
    fn own(&self, path: &Path) -> Result<Box<dyn OwnerLock>, LockError> {
        let Some(hold) = self.take(path, true, Duration::ZERO) else {
            let holder = Some(Holder { pid: std::process::id(), since_unix_ms: 0 });
            return Err(LockError::Held { holder, path: path.to_owned() });
        };
        Ok(Box::new(hold))
    }

    fn flush_lock(&self, path: &Path, timeout: Duration) -> Result<FlushLock, LockError> {
        match self.take(path, true, timeout) {
            Some(hold) => Ok(FlushLock { _held: Box::new(hold) }),
            None => Err(LockError::TimedOut { path: path.to_owned(), waited: timeout }),
        }
    }

    fn share(&self, path: &Path, timeout: Duration) -> Result<SharedLock, LockError> {
        match self.take(path, false, timeout) {
            Some(hold) => Ok(SharedLock { _held: Box::new(hold) }),
            None => Err(LockError::TimedOut { path: path.to_owned(), waited: timeout }),
        }
    }
}
