//! All file work of the engine goes through the trait [`Disk`], so that the same code runs on a real file system
//! ([`RealDisk`]) and on one that loses power wherever a test wants it to ([`SimDisk`]).
//!
//! # The contract
//!
//! Both implementations keep it, and the engine may rely on nothing else.
//!
//! **Three kinds of loss.** A *failed call* returns an error. A *killed process* keeps everything that a call had
//! done before. A *power cut* keeps what was synced; of everything else it keeps any part.
//!
//! | call | promises when it returns `Ok` | does not promise |
//! |---|---|---|
//! | [`DiskFile::write_at`] | all bytes are written: every later read sees them, also after the process was killed | that they survive a power cut. Until [`sync`](DiskFile::sync), each aligned 512 bytes survive or not by themselves, in any order |
//! | [`DiskFile::truncate`], [`DiskFile::allocate`] | the file has its new size; new bytes read as zero | that size and data survive together: a power cut may keep a new size over old bytes or zeros, or new bytes under an old size |
//! | [`DiskFile::sync`] | all data written to this file before, and the size needed to read it, survive a power cut | anything about the file's *name* |
//! | [`Disk::sync_dir`] | every name made, changed or removed in this directory before survives. A rename between two directories is durable when both have been synced | anything about the *content* of files, or about the directory's own name in its parent |
//! | [`Disk::rename`] | at every moment, also across a power cut, the target name means the old file or the new one, and both names change together or not at all | that it survives before `sync_dir`, or that it stays in order with other renames |
//! | [`Disk::link`], [`Disk::remove`], [`Disk::create_dir`], creation by [`Disk::open`] | the name is there (or gone) | that it survives before `sync_dir`; unsynced names survive or not one by one, in any order |
//!
//! **Failed calls.** A failed `write_at` may have written any first part of its bytes; the size may have grown with
//! them. A failed `sync` means that the data written since the last good one may be lost *for good*, although it can
//! still be read until the power goes: a later `sync` of the same file may succeed and not bring it back. So a failed
//! `sync` must never be repeated to get rid of the error; the same goes for `sync_dir` and names. A failed `allocate`
//! may have made the file longer. Every other failed call has changed nothing, except that a file or directory whose
//! making failed at its mode (some foreign file systems have none) is left behind.
//!
//! **Errors** are plain [`io::Error`]s with the operating system's code; the caller adds what it was doing and where.
//! `EINTR` is retried in here.
//!
//! **Links.** Opening refuses a symbolic link as last component (`ELOOP`) unless [`How::follow`] asks for it.
//! Links in the middle of a path are followed. Only regular files open: not directories, pipes or devices.
//!
//! **Modes** are honoured exactly; the umask neither tightens nor loosens them.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

mod read_only;
mod real;
mod sim;

#[cfg(test)]
mod conformance;

pub(crate) use read_only::{NoFile, ReadOnlyDisk};
pub use real::RealDisk;
pub use sim::{Call, Calls, FailWith, Failure, Fate, Frame, Hold, Rules, SimDisk};

/// A file system. See the [contract](self).
pub trait Disk: fmt::Debug + Send + Sync {
    /// Opens a regular file, or makes one. `how` says which.
    ///
    /// # Errors
    /// `AlreadyExists` for [`How::create_new`] over any name, `NotFound`, `ELOOP` for a link, `InvalidInput` for what is
    /// neither a regular file nor a directory, `IsADirectory`, and what the system answers.
    fn open(&self, path: &Path, how: &How) -> io::Result<Box<dyn DiskFile>>;

    /// Gives the file `from` the name `to`, replacing the file that has it.
    ///
    /// # Errors
    /// What the system answers; then both names are as before.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives the file `from` the second name `to`. Does not follow a link.
    ///
    /// # Errors
    /// `AlreadyExists` if `to` exists; also where the file system knows no hard links, see [`copy`](Disk::copy).
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes the name of a file or link; not of a directory.
    ///
    /// # Errors
    /// `NotFound`, `IsADirectory` (or `PermissionDenied` on some systems), and what the system answers.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes a directory with exactly these permission bits.
    ///
    /// # Errors
    /// `AlreadyExists` if anything has that name.
    fn create_dir(&self, path: &Path, mode: u32) -> io::Result<()>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// What the system answers. As with [`DiskFile::sync`], what was unsynced may then be lost for good.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// The names in a directory, sorted.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`, and what the system answers.
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>>;

    /// What a path leads to, links followed.
    ///
    /// # Errors
    /// `NotFound`, also for a link that leads nowhere.
    fn stat(&self, path: &Path) -> io::Result<Stat>;

    /// What a path itself is: a link is described and not followed.
    ///
    /// # Errors
    /// `NotFound`.
    fn lstat(&self, path: &Path) -> io::Result<Stat>;

    /// Sets the permission bits of a file or directory; refuses a link (`ELOOP`). Needs leave to read it.
    ///
    /// # Errors
    /// What the system answers.
    fn set_mode(&self, path: &Path, mode: u32) -> io::Result<()>;

    /// How many bytes a user without privileges can still write to the file system that holds a directory.
    ///
    /// # Errors
    /// What the system answers.
    fn free_bytes(&self, directory: &Path) -> io::Result<u64>;

    /// Where a link leads, as it is written.
    ///
    /// # Errors
    /// `InvalidInput` if it is not a link.
    fn read_link(&self, path: &Path) -> io::Result<PathBuf>;

    /// The whole content of a file; refuses a link.
    ///
    /// # Errors
    /// As [`open`](Disk::open) and [`DiskFile::read_at`].
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.open(path, &How::READ)?.read_all()
    }

    /// A new file with mode 0600 in the place of whatever has that name. Nothing is written into what was there: it may be
    /// a link to somewhere, or have another name in another place. For files that hold nothing anybody needs.
    ///
    /// # Errors
    /// As [`open`](Disk::open) and [`remove`](Disk::remove).
    fn make_anew(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        match self.open(path, &How::CREATE_NEW) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.remove(path)?;
                self.open(path, &How::CREATE_NEW)
            }
            made => made,
        }
    }

    /// Copies a file to a new name, with its permission bits, and syncs the copy (not its name). For where
    /// [`link`](Disk::link) is not possible.
    ///
    /// # Errors
    /// `AlreadyExists` if `to` exists. After any other error the incomplete copy has been removed, if that was possible.
    fn copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        let source = self.open(from, &How::READ)?;
        let target = self.open(to, &How::CREATE_NEW.with_mode(source.stat()?.mode))?;
        copy_content(&*source, &*target).inspect_err(|_| {
            // The first error is the one to tell; a copy that cannot be removed either is left behind.
            let _ = self.remove(to);
        })
    }
}

/// An open file. All offsets are given, so that it can be shared without a position to quarrel about.
pub trait DiskFile: fmt::Debug + Send + Sync {
    /// Reads from `offset` until `buffer` is full or the file ends, and returns the number of bytes read.
    ///
    /// # Errors
    /// What the system answers.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`; a gap before it reads as zeros.
    ///
    /// # Errors
    /// What the system answers; some first part may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes the file at least `bytes` long. New bytes read as zero and, where the file system can, have their room on
    /// the disk set aside, so that writing there does not meet a full disk.
    ///
    /// # Errors
    /// What the system answers, `ENOSPC` above all. The file may have grown in part.
    fn allocate(&self, bytes: u64) -> io::Result<()>;

    /// Sets the file's size, longer or shorter.
    ///
    /// # Errors
    /// What the system answers.
    fn truncate(&self, bytes: u64) -> io::Result<()>;

    /// Makes data and size durable.
    ///
    /// # Errors
    /// What was written since the last good sync may be lost for good. Do not try again: see the [contract](self).
    fn sync(&self) -> io::Result<()>;

    /// What this file is, whatever its name leads to by now.
    ///
    /// # Errors
    /// What the system answers.
    fn stat(&self) -> io::Result<Stat>;

    /// The whole content.
    ///
    /// # Errors
    /// As [`read_at`](DiskFile::read_at).
    fn read_all(&self) -> io::Result<Vec<u8>> {
        let expected = usize::try_from(self.stat()?.bytes).map_err(|_| io::ErrorKind::FileTooLarge)?;
        // Another program may be writing the file, so the size is only where to begin; one byte more shows the end.
        let mut bytes = vec![0; expected + 1];
        let mut filled = 0;
        loop {
            filled += self.read_at(&mut bytes[filled..], filled as u64)?;
            if filled < bytes.len() {
                bytes.truncate(filled);
                return Ok(bytes);
            }
            bytes.resize(bytes.len() * 2, 0);
        }
    }
}

/// How a file is opened. The constants are the usual ways; all of them refuse symbolic links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "they are the flags of open(2), each with a meaning of its own")]
pub struct How {
    /// The file will be read.
    pub read: bool,
    /// The file will be written.
    pub write: bool,
    /// The file is made if there is none.
    pub create: bool,
    /// The file is made, and must not have existed: not even as a link.
    pub create_new: bool,
    /// The file is emptied.
    pub truncate: bool,
    /// A symbolic link is refused.
    pub no_follow: bool,
    /// Permission bits of a file that is made; those of an existing one stay.
    pub mode: u32,
}

impl How {
    /// An existing file, to read.
    pub const READ: Self = Self {
        read: true,
        write: false,
        create: false,
        create_new: false,
        truncate: false,
        no_follow: true,
        mode: PRIVATE_FILE_MODE,
    };
    /// An existing file, to read and write.
    pub const WRITE: Self = Self { write: true, ..Self::READ };
    /// A file that may exist, to read and write; made with mode 0600 if it does not.
    pub const CREATE: Self = Self { create: true, ..Self::WRITE };
    /// A file that must not exist yet, to read and write, with mode 0600.
    pub const CREATE_NEW: Self = Self { create_new: true, ..Self::WRITE };

    /// The same, but a file that is made gets these permission bits.
    #[must_use]
    pub const fn with_mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }

    /// The same, but following a symbolic link.
    #[must_use]
    pub const fn follow(self) -> Self {
        Self { no_follow: false, ..self }
    }
}

/// Permission bits of a file that only its owner may use.
pub const PRIVATE_FILE_MODE: u32 = 0o600;
/// Permission bits of a directory that only its owner may use.
pub const PRIVATE_DIR_MODE: u32 = 0o700;

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name, without its directory.
    pub name: OsString,
    /// What it names; a link is [`Kind::Link`] wherever it leads.
    pub kind: Kind,
}

/// What a name can stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Link,
    /// A pipe, socket or device.
    Other,
}

/// What the file system says about a file. Device, inode, size and time together tell whether somebody else wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The device it lies on.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
    /// Its size in bytes.
    pub bytes: u64,
    /// When its content last changed, in nanoseconds since 1970.
    pub mtime_ns: i128,
    /// Permission bits (the lowest twelve).
    pub mode: u32,
    /// What it is.
    pub kind: Kind,
}

/// How much [`Disk::copy`] holds in memory at once.
const COPY_CHUNK_BYTES: usize = 1024 * 1024;

fn copy_content(source: &dyn DiskFile, target: &dyn DiskFile) -> io::Result<()> {
    let mut chunk = vec![0; COPY_CHUNK_BYTES];
    let mut offset = 0;
    loop {
        let got = source.read_at(&mut chunk, offset)?;
        target.write_at(&chunk[..got], offset)?;
        offset += got as u64;
        if got < chunk.len() {
            return target.sync();
        }
    }
}
