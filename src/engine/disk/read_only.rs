//! A disk that can only be read. A store that is opened read-only is handed this one, so that it changes nothing
//! whatever its code tries: what was overlooked fails here and does not reach the disk below.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Disk, DiskFile, Entry, How, Stat};

/// Passes reads on to another disk and refuses all else with [`io::ErrorKind::ReadOnlyFilesystem`].
#[derive(Clone, Debug)]
pub(crate) struct ReadOnlyDisk(pub(crate) Arc<dyn Disk>);

fn refused<T>() -> io::Result<T> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}

impl Disk for ReadOnlyDisk {
    fn open(&self, path: &Path, how: &How) -> io::Result<Box<dyn DiskFile>> {
        if how.write || how.create || how.create_new || how.truncate {
            return refused();
        }
        self.0.open(path, how)
    }

    fn rename(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        refused()
    }

    fn link(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        refused()
    }

    fn remove(&self, _path: &Path) -> io::Result<()> {
        refused()
    }

    fn create_dir(&self, _path: &Path, _mode: u32) -> io::Result<()> {
        refused()
    }

    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        refused()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        self.0.list(path)
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        self.0.stat(path)
    }

    fn lstat(&self, path: &Path) -> io::Result<Stat> {
        self.0.lstat(path)
    }

    fn set_mode(&self, _path: &Path, _mode: u32) -> io::Result<()> {
        refused()
    }

    fn free_bytes(&self, directory: &Path) -> io::Result<u64> {
        self.0.free_bytes(directory)
    }

    fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        self.0.read_link(path)
    }
}

/// Stands where a file that is appended to would stand, and refuses everything.
#[derive(Debug)]
pub(crate) struct NoFile;

impl DiskFile for NoFile {
    fn read_at(&self, _buffer: &mut [u8], _offset: u64) -> io::Result<usize> {
        refused()
    }

    fn write_at(&self, _bytes: &[u8], _offset: u64) -> io::Result<()> {
        refused()
    }

    fn allocate(&self, _bytes: u64) -> io::Result<()> {
        refused()
    }

    fn truncate(&self, _bytes: u64) -> io::Result<()> {
        refused()
    }

    fn sync(&self) -> io::Result<()> {
        refused()
    }

    fn stat(&self) -> io::Result<Stat> {
        refused()
    }
}
