//! A disk on which one file takes as long to open as the test wants.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use commonhold::engine::Surroundings;
use commonhold::engine::disk::{Disk, DiskFile, Entry, How, RealDisk, Stat};

/// Opens of files whose names end so wait until [`Held`] is dropped.
#[derive(Debug)]
struct SlowDisk {
    ends: &'static str,
    held: std::sync::Mutex<Receiver<()>>,
}

/// While this lives, the file is not opened.
#[derive(Debug)]
pub(crate) struct Held(#[allow(dead_code, reason = "what counts is when it is dropped")] Sender<()>);

/// The real surroundings, but for files whose names end so.
pub(crate) fn slow(ends: &'static str) -> (Surroundings, Held) {
    let (sender, receiver) = channel();
    let disk = SlowDisk { ends, held: std::sync::Mutex::new(receiver) };
    (Surroundings { disk: Arc::new(disk), ..Surroundings::real().unwrap() }, Held(sender))
}

impl Disk for SlowDisk {
    fn open(&self, path: &Path, how: &How) -> io::Result<Box<dyn DiskFile>> {
        if path.to_string_lossy().ends_with(self.ends) {
            // Answers when the other end is gone.
            let _ = self.held.lock().unwrap().recv();
        }
        RealDisk.open(path, how)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn create_dir(&self, path: &Path, mode: u32) -> io::Result<()> {
        RealDisk.create_dir(path, mode)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        RealDisk.list(path)
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        RealDisk.stat(path)
    }

    fn lstat(&self, path: &Path) -> io::Result<Stat> {
        RealDisk.lstat(path)
    }

    fn set_mode(&self, path: &Path, mode: u32) -> io::Result<()> {
        RealDisk.set_mode(path, mode)
    }

    fn free_bytes(&self, directory: &Path) -> io::Result<u64> {
        RealDisk.free_bytes(directory)
    }

    fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        RealDisk.read_link(path)
    }
}
