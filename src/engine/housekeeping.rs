//! What a start does in the directory before anything else: the private directories, and what dead owners left.

use std::io;
use std::path::PathBuf;

use commonhold_proto::Workspace;

use super::clock::Clock;
use super::disk::{Disk, Kind};
use super::error::Error;
use super::layout::{Layout, pid_of_temporary};
use crate::lock::Holder;

/// Makes `.commonhold` and the journal's directory, durably.
pub(super) fn make_private_directories(disk: &dyn Disk, layout: &Layout) -> Result<(), Error> {
    for (path, parent) in [(layout.private().to_owned(), layout.root()), (layout.journal(), layout.private())] {
        match disk.create_dir(&path, 0o700) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let stat = disk.lstat(&path).map_err(Error::disk("look at", &path))?;
                if stat.kind != Kind::Dir {
                    return Err(Error::NotADirectory { path });
                }
                if stat.mode != 0o700 {
                    disk.set_mode(&path, 0o700).map_err(Error::disk("set the mode of", &path))?;
                }
            }
            Err(error) => return Err(Error::disk("create", &path)(error)),
        }
        // Also when it was there: whoever made it may have died before its name was on the platter.
        disk.sync_dir(parent).map_err(Error::disk("sync", parent))?;
    }
    refuse_links(disk, layout)
}

/// The directories that are made when they are needed must be directories, and not links that lead out of the store.
fn refuse_links(disk: &dyn Disk, layout: &Layout) -> Result<(), Error> {
    for path in layout.inner_directories() {
        match disk.lstat(&path) {
            Ok(stat) if stat.kind != Kind::Dir => return Err(Error::NotADirectory { path }),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::disk("look at", &path)(error)),
            _ => {}
        }
    }
    Ok(())
}

/// A temporary older than this was left by somebody who died.
const TEMPORARY_AGE_MS: u64 = 3_600_000;

/// Removes what flushes of earlier owners left: their temporaries, and any that are an hour old.
pub(super) fn remove_temporaries(
    disk: &dyn Disk,
    clock: &dyn Clock,
    layout: &Layout,
    earlier: Option<Holder>,
) -> Result<Vec<PathBuf>, Error> {
    let root = layout.root();
    let mut directories = vec![root.to_owned()];
    for entry in disk.list(root).map_err(Error::disk("list", root))? {
        if entry.kind == Kind::Dir && entry.name.to_str().is_some_and(|name| Workspace::new(name).is_ok()) {
            directories.push(root.join(&entry.name));
        }
    }
    let now_ms = clock.unix_ms();
    let mut removed = Vec::new();
    for directory in directories {
        // A workspace that cannot be read says so when it is used.
        for entry in disk.list(&directory).unwrap_or_default() {
            let Some(pid) = entry.name.to_str().and_then(pid_of_temporary) else { continue };
            let path = directory.join(&entry.name);
            let Ok(stat) = disk.lstat(&path) else { continue };
            let age_ms = now_ms.saturating_sub(u64::try_from(stat.mtime_ns / 1_000_000).unwrap_or(0));
            let is_left = earlier.is_some_and(|earlier| earlier.pid == pid) || age_ms >= TEMPORARY_AGE_MS;
            if stat.kind == Kind::File && is_left {
                disk.remove(&path).map_err(Error::disk("remove", &path))?;
                removed.push(path);
            }
        }
    }
    Ok(removed)
}
