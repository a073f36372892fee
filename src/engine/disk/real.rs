//! The operating system's file system, by std where std says exactly what is needed and by rustix where it does not.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, OFlags, fallocate, statvfs};
use rustix::io::Errno;

use super::{Disk, DiskFile, Entry, How, Kind, Stat};

/// The real disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

#[derive(Debug)]
struct RealFile(File);

/// Which bits of `st_mode` are permissions.
const PERMISSION_BITS: u32 = 0o7777;

/// How often an open that may find or make the file starts over because others made and removed it meanwhile.
const CREATE_ATTEMPTS: usize = 16;

/// A directory has its mode only a moment after it is made; nobody makes another one in it before.
static MAKING: Mutex<()> = Mutex::new(());

impl Disk for RealDisk {
    fn open(&self, path: &Path, how: &How) -> io::Result<Box<dyn DiskFile>> {
        let file = if how.create && !how.create_new { find_or_make(path, how)? } else { open_once(path, how)? };
        Ok(Box::new(RealFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_dir(&self, path: &Path, mode: u32) -> io::Result<()> {
        let _making = MAKING.lock();
        fs::DirBuilder::new().mode(mode).create(path)?;
        self.set_mode(path, mode)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        OpenOptions::new().read(true).custom_flags(flags(OFlags::DIRECTORY)).open(path)?.sync_all()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            entries.push(Entry { name: entry.file_name(), kind: kind(entry.file_type()?) });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        fs::metadata(path).map(|found| stat(&found))
    }

    fn lstat(&self, path: &Path) -> io::Result<Stat> {
        fs::symlink_metadata(path).map(|found| stat(&found))
    }

    fn set_mode(&self, path: &Path, mode: u32) -> io::Result<()> {
        // Through a descriptor, because chmod(2) by path would follow a link. Not blocking, in case it is a pipe.
        let mode = Permissions::from_mode(mode & PERMISSION_BITS);
        match OpenOptions::new().read(true).custom_flags(flags(OFlags::NOFOLLOW | OFlags::NONBLOCK)).open(path) {
            Ok(file) => file.set_permissions(mode),
            // Its owner may set the mode of what that mode keeps from being opened, as a strict umask makes it.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                set_mode_unopened(path, mode).map_err(|_| error)
            }
            Err(error) => Err(error),
        }
    }

    fn free_bytes(&self, directory: &Path) -> io::Result<u64> {
        let found = statvfs(directory)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        fs::read_link(path)
    }
}

/// Sets the mode of what may not be opened, through a descriptor that opens nothing; a link is not followed.
#[cfg(target_os = "linux")]
fn set_mode_unopened(path: &Path, mode: Permissions) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    let at = OpenOptions::new().read(true).custom_flags(flags(OFlags::NOFOLLOW | OFlags::PATH)).open(path)?;
    if at.metadata()?.is_symlink() {
        return Err(Errno::LOOP.into());
    }
    fs::set_permissions(format!("/proc/self/fd/{}", at.as_raw_fd()), mode)
}

/// Nothing but a path leads there.
#[cfg(not(target_os = "linux"))]
fn set_mode_unopened(path: &Path, mode: Permissions) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_symlink() {
        return Err(Errno::LOOP.into());
    }
    fs::set_permissions(path, mode)
}

impl DiskFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.0.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(got) => filled += got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset) // retries EINTR and short writes itself
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let present = self.0.metadata()?.len();
        if present >= bytes {
            return Ok(());
        }
        loop {
            match fallocate(&self.0, FallocateFlags::empty(), present, bytes - present) {
                Ok(()) => break,
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return self.fill_with_zeros(present, bytes),
                Err(error) => return Err(error.into()),
            }
        }
        // Some systems set the room aside and leave the size as it was.
        if self.0.metadata()?.len() < bytes { self.0.set_len(bytes) } else { Ok(()) }
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data() // fdatasync on Linux, F_FULLFSYNC on macOS; retries EINTR
    }

    fn stat(&self) -> io::Result<Stat> {
        self.0.metadata().map(|found| stat(&found))
    }
}

impl RealFile {
    /// What `fallocate` does, on a file system that cannot.
    fn fill_with_zeros(&self, from: u64, to: u64) -> io::Result<()> {
        const ZEROS: &[u8] = &[0; 64 * 1024];
        let mut at = from;
        while at < to {
            let now = (to - at).min(ZEROS.len() as u64);
            self.write_at(&ZEROS[..now as usize], at)?;
            at += now;
        }
        Ok(())
    }
}

fn open_once(path: &Path, how: &How) -> io::Result<File> {
    // Not blocking: a pipe under the name of a file must give an error, not a daemon that waits for a writer.
    // Regular files do not know the flag.
    let mut extra = OFlags::NONBLOCK | OFlags::NOCTTY;
    if how.no_follow {
        extra |= OFlags::NOFOLLOW;
    }
    let file = OpenOptions::new()
        .read(how.read)
        .write(how.write)
        .create_new(how.create_new)
        .truncate(how.truncate && !how.create_new)
        .mode(how.mode)
        .custom_flags(flags(extra))
        .open(path)?;
    let found = file.metadata()?;
    match kind(found.file_type()) {
        Kind::File => {}
        Kind::Dir => return Err(Errno::ISDIR.into()),
        Kind::Link | Kind::Other => return Err(Errno::INVAL.into()),
    }
    if how.create_new && found.mode() & PERMISSION_BITS != how.mode & PERMISSION_BITS {
        file.set_permissions(Permissions::from_mode(how.mode & PERMISSION_BITS))?; // the umask took some away
    }
    Ok(file)
}

/// Opens the file if it is there, else makes it. In two steps because only a file of our own making gets our mode.
fn find_or_make(path: &Path, how: &How) -> io::Result<File> {
    let find = How { create: false, ..*how };
    let make = How { create: false, create_new: true, ..*how };
    let mut attempts = 0;
    loop {
        attempts += 1;
        match open_once(path, &find) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            found => return found,
        }
        match open_once(path, &make) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempts < CREATE_ATTEMPTS => {}
            made => return made,
        }
    }
}

fn flags(flags: OFlags) -> i32 {
    flags.bits().cast_signed()
}

fn kind(of: fs::FileType) -> Kind {
    if of.is_file() {
        Kind::File
    } else if of.is_dir() {
        Kind::Dir
    } else if of.is_symlink() {
        Kind::Link
    } else {
        Kind::Other
    }
}

fn stat(found: &fs::Metadata) -> Stat {
    Stat {
        device: found.dev(),
        inode: found.ino(),
        bytes: found.len(),
        mtime_ns: i128::from(found.mtime()) * 1_000_000_000 + i128::from(found.mtime_nsec()),
        mode: found.mode() & PERMISSION_BITS,
        kind: kind(found.file_type()),
    }
}
