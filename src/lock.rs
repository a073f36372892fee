//! Locks on files: who owns a store, and who may replace a JSON file of it.
//!
//! The trait [`Locks`] has two implementations: [`FileLocks`] locks real files (this is the only file that names fs4),
//! [`MemoryLocks`] serves tests, which can see its holders and waits.
//!
//! A file lock belongs to the open file and ends when that is closed, however the process ends; nothing is ever left
//! locked by a process that died. Lock files are never deleted: a lock on a file whose name is gone guards nothing.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

mod memory;

pub use memory::MemoryLocks;

/// How the engine locks.
pub trait Locks: fmt::Debug + Send + Sync {
    /// Takes the store whose lock file is `path` (`<store>/.commonhold/owner.lock`), now or not at all. The file is made
    /// if it is missing; its directory must be there.
    ///
    /// # Errors
    /// [`LockError::Held`] by another owner, [`LockError::Link`], [`LockError::Shared`], [`LockError::NotAllowed`],
    /// [`LockError::Io`].
    fn own(&self, path: &Path) -> Result<Box<dyn OwnerLock>, LockError>;

    /// Takes the right to replace the JSON file that `path` guards, alone, waiting up to `timeout` (zero tries once).
    /// The lock file and its directories are made if they are missing.
    ///
    /// # Errors
    /// [`LockError::TimedOut`], and as [`own`](Locks::own) but for `Held`.
    fn flush_lock(&self, path: &Path, timeout: Duration) -> Result<FlushLock, LockError>;

    /// Keeps the JSON file that `path` guards from being replaced, together with others who do, waiting up to `timeout`.
    /// This is what an outside reader does.
    ///
    /// # Errors
    /// As [`flush_lock`](Locks::flush_lock).
    fn share(&self, path: &Path, timeout: Duration) -> Result<SharedLock, LockError>;
}

/// The ownership of a store; dropping it gives the store up.
pub trait OwnerLock: fmt::Debug + Send + Sync {
    /// Whether the lock file still is the one that is held. When it was deleted or replaced, another daemon can take
    /// the store, and this one must write no more.
    ///
    /// # Errors
    /// When the system does not tell; a missing file is `Ok(false)`.
    fn still_ours(&self) -> io::Result<bool>;
}

/// The right to replace one JSON file; dropping it gives the right up. What replaces a file asks for a `&FlushLock`.
#[derive(Debug)]
#[must_use = "the lock ends when this value is dropped"]
pub struct FlushLock {
    _held: Box<dyn Guard>,
}

/// Keeps one JSON file from being replaced until it is dropped.
#[derive(Debug)]
#[must_use = "the lock ends when this value is dropped"]
pub struct SharedLock {
    _held: Box<dyn Guard>,
}

/// Something that unlocks when it is dropped.
trait Guard: fmt::Debug + Send + Sync {}

/// Who holds a store, as its lock file tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The daemon's process id.
    pub pid: u32,
    /// When it took the store, in milliseconds since 1970.
    pub since_unix_ms: u64,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the daemon with pid {}", self.pid)?;
        // A time out of range can only come from a file that somebody else wrote into.
        let since = i64::try_from(self.since_unix_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        since.map_or(Ok(()), |since| write!(f, " since {since:.0}"))
    }
}

/// Why a lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another daemon owns the store.
    #[error(
        "the store {} is owned by {}: use that daemon, stop it with `commonhold --store {} stop`, or choose another directory",
        store_of(path).display(), holder_words(*.holder), store_of(path).display()
    )]
    Held {
        /// Who, if the lock file tells.
        holder: Option<Holder>,
        /// The lock file.
        path: PathBuf,
    },
    /// Others kept the lock for longer than the caller would wait.
    #[error("gave up after {} ms: another program holds the lock {}; try again when it is done", waited.as_millis(), path.display())]
    TimedOut {
        /// The lock file.
        path: PathBuf,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The lock file is a symbolic link. Through it two stores could share a lock, or a foreign file be written.
    #[error("the lock file {} is a symbolic link to {}: remove the link and start again", path.display(), target.display())]
    Link {
        /// The lock file.
        path: PathBuf,
        /// Where the link leads.
        target: PathBuf,
    },
    /// The owner's lock file is also a file somewhere else, as in a copy that was made of hard links (`cp -l`). Two stores
    /// would share one lock, and what is written into it would be written there.
    #[error(
        "the lock file {} has {names} names: it is also a file somewhere else, as in a copy made of hard links. Nothing was changed; \
         while no daemon runs on either, give it a file of its own (`mv owner.lock x && cp -p x owner.lock && rm x` there) and start again",
        path.display()
    )]
    Shared {
        /// The lock file.
        path: PathBuf,
        /// How many names it has.
        names: u64,
    },
    /// The directory or the file may not be written.
    #[error(
        "{action} {} is not allowed: {source}. Make the directory {} writable for this user, or choose another store",
        path.display(), parent_of(path).display()
    )]
    NotAllowed {
        /// What was being done, as "open the lock file".
        action: &'static str,
        /// The lock file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The system failed in another way.
    #[error("{action} {} failed: {source}; mend the cause, then try again", path.display())]
    Io {
        /// What was being done, as "open the lock file".
        action: &'static str,
        /// The lock file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl LockError {
    fn from_io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::NotAllowed { action, path, source }
            }
            _ => Self::Io { action, path, source },
        }
    }
}

fn parent_of(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

/// `<store>/.commonhold/owner.lock` says which store it is.
fn store_of(lock_file: &Path) -> &Path {
    parent_of(parent_of(lock_file))
}

fn holder_words(holder: Option<Holder>) -> String {
    holder.map_or_else(|| "another daemon".to_owned(), |holder| holder.to_string())
}

/// Locks on real files.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileLocks;

/// A locked file. Others wait for it, so it is unlocked by name: closing alone would not do while a child process that
/// was just forked still has the file open.
#[derive(Debug)]
struct Locked(File);

impl Guard for Locked {}

impl Drop for Locked {
    fn drop(&mut self) {
        // Unlocking a file that is open and locked does not fail, and closing it comes next.
        let _ = fs4::FileExt::unlock(&self.0);
    }
}

#[derive(Debug)]
struct OwnedFile {
    locked: Locked,
    path: PathBuf,
}

impl OwnerLock for OwnedFile {
    fn still_ours(&self) -> io::Result<bool> {
        is_at(&self.locked.0, &self.path)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Alone,
    Shared,
}

/// The longest pause between two tries for a lock. Files have no lock with a deadline.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// How long the loser of a race waits for the winner, who locks the file and then writes into it, to say who it is.
const HOLDER_PATIENCE: Duration = Duration::from_millis(100);

/// The most that is read of a lock file: it holds one short line.
const MAX_HOLDER_BYTES: u64 = 4096;

impl Locks for FileLocks {
    fn own(&self, path: &Path) -> Result<Box<dyn OwnerLock>, LockError> {
        let Some(locked) = lock_until(path, How::Alone, Duration::ZERO)? else {
            return Err(LockError::Held { holder: read_holder_patiently(path), path: path.to_owned() });
        };
        let found = locked.0.metadata().map_err(|source| LockError::from_io("look at the lock file", path, source))?;
        if found.nlink() > 1 {
            return Err(LockError::Shared { path: path.to_owned(), names: found.nlink() });
        }
        write_holder(&locked.0).map_err(|source| LockError::from_io("write the lock file", path, source))?;
        Ok(Box::new(OwnedFile { locked, path: path.to_owned() }))
    }

    fn flush_lock(&self, path: &Path, timeout: Duration) -> Result<FlushLock, LockError> {
        lock_waiting(path, How::Alone, timeout).map(|held| FlushLock { _held: Box::new(held) })
    }

    fn share(&self, path: &Path, timeout: Duration) -> Result<SharedLock, LockError> {
        lock_waiting(path, How::Shared, timeout).map(|held| SharedLock { _held: Box::new(held) })
    }
}

fn lock_waiting(path: &Path, how: How, timeout: Duration) -> Result<Locked, LockError> {
    let begun = Instant::now();
    let directory = parent_of(path);
    let making = MAKING.lock();
    make_directories(directory)
        .map_err(|source| LockError::from_io("create the directory of the lock file", path, source))?;
    drop(making);
    lock_until(path, how, timeout)?
        .ok_or_else(|| LockError::TimedOut { path: path.to_owned(), waited: begun.elapsed() })
}

/// A directory has its mode only a moment after it is made; nobody else of this process looks into it before.
static MAKING: Mutex<()> = Mutex::new(());

/// Makes a directory and those above it that are missing, each with mode 0700 whatever the umask. With [`MAKING`] held.
fn make_directories(directory: &Path) -> io::Result<()> {
    // The current one, as the parent of a bare name.
    if directory.as_os_str().is_empty() {
        return Ok(());
    }
    let make = || match fs::DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => fs::set_permissions(directory, fs::Permissions::from_mode(0o700)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    };
    match make() {
        Err(error) if error.kind() == io::ErrorKind::NotFound && directory != parent_of(directory) => {
            make_directories(parent_of(directory))?;
            make()
        }
        made => made,
    }
}

/// Tries until the lock is had or `timeout` is over, at least once.
fn lock_until(path: &Path, how: How, timeout: Duration) -> Result<Option<Locked>, LockError> {
    let begun = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        // Opened anew each time: if the file was replaced meanwhile, the new one is the lock.
        if let Some(locked) = try_lock(open(path)?, path, how)? {
            return Ok(Some(locked));
        }
        let left = timeout.saturating_sub(begun.elapsed());
        if left.is_zero() {
            return Ok(None);
        }
        std::thread::sleep(pause.min(left));
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Locks `file`, which was found at `path`, if it is free and still there.
fn try_lock(file: File, path: &Path, how: How) -> Result<Option<Locked>, LockError> {
    loop {
        let tried = match how {
            How::Alone => fs4::FileExt::try_lock(&file),
            How::Shared => fs4::FileExt::try_lock_shared(&file),
        };
        match tried {
            Ok(()) => break,
            Err(fs4::TryLockError::WouldBlock) => return Ok(None),
            Err(fs4::TryLockError::Error(source)) if source.kind() == io::ErrorKind::Interrupted => {}
            Err(fs4::TryLockError::Error(source)) => return Err(LockError::from_io("lock", path, source)),
        }
    }
    let locked = Locked(file);
    // Between opening and locking the name may have gone to another file; then this lock guards nothing.
    let current = is_at(&locked.0, path).map_err(|source| LockError::from_io("look at the lock file", path, source))?;
    Ok(current.then_some(locked))
}

fn open(path: &Path) -> Result<File, LockError> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600).custom_flags(flags.bits().cast_signed());
    let made = match options.clone().create_new(true).open(path) {
        // Only a file of our own making gets our mode, whatever the umask; an existing one keeps its own.
        Ok(file) => file.set_permissions(fs::Permissions::from_mode(0o600)).map(|()| file),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => options.open(path),
        Err(error) => Err(error),
    };
    let file = made.map_err(|source| match fs::read_link(path) {
        Ok(target) => LockError::Link { path: path.to_owned(), target },
        Err(_) => LockError::from_io("open the lock file", path, source),
    })?;
    if file.metadata().is_ok_and(|found| found.is_file()) {
        return Ok(file);
    }
    let source = io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
    Err(LockError::from_io("open the lock file", path, source))
}

/// Whether the name `path` still leads to `file`.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let held = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (held.dev(), held.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn write_holder(mut file: &File) -> io::Result<()> {
    let since_unix_ms = jiff::Timestamp::now().as_millisecond().max(0).cast_unsigned();
    let mut line = serde_json::to_vec(&Holder { pid: std::process::id(), since_unix_ms })?;
    line.push(b'\n');
    // Emptied first: a loser who looks now finds nothing and looks again, rather than the owner before us.
    file.set_len(0)?;
    file.rewind()?;
    match file.write_all(&line) {
        // What holds is the lock. On a full disk it goes without its holder's name, so that the store can be read.
        Err(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => Ok(()),
        written => written,
    }
}

/// Who holds the store whose lock file is `path`, if the file tells. It also names the last owner of a store that
/// nobody owns now.
pub fn read_holder(path: &Path) -> Option<Holder> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path).ok()?;
    let mut text = Vec::new();
    file.take(MAX_HOLDER_BYTES).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

fn read_holder_patiently(path: &Path) -> Option<Holder> {
    let deadline = Instant::now() + HOLDER_PATIENCE;
    loop {
        let holder = read_holder(path);
        if holder.is_some() || Instant::now() >= deadline {
            return holder;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[cfg(test)]
mod tests;
