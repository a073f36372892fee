//! Where tables lie: in `/dev/shm` or, where that is no tmpfs, in the user's runtime directory, under a name that tells the
//! store's user, its identity, and the nonce.
//!
//! `/dev/shm` is everybody's. The nonce is random, so nobody can lie in wait under a table's name; a link is not followed,
//! and what belongs to another user than the store is no table of its daemon.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use commonhold_proto::StoreIdentity;

#[cfg(target_os = "linux")]
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

/// The directories in which tables may lie, the first that will do being used. The usual runtime directory is one of them
/// also where the environment does not tell it: the daemon before may have known it.
pub(super) fn shelves() -> Vec<PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let mut shelves = vec![PathBuf::from("/dev/shm")];
    shelves.extend(runtime.filter(|dir| dir.is_absolute()));
    #[cfg(target_os = "linux")]
    shelves.push(PathBuf::from(format!("/run/user/{}", rustix::process::geteuid().as_raw())));
    shelves.dedup();
    shelves
}

/// What the names of all tables of a user begin with.
pub(super) fn prefix_of_user(uid: u32) -> String {
    format!("commonhold-{uid}-")
}

/// What the names of all tables of a store begin with.
pub(super) fn prefix_of_store(uid: u32, identity: StoreIdentity) -> String {
    let StoreIdentity { device, inode } = identity;
    format!("{}{device:x}-{inode:x}-", prefix_of_user(uid))
}

/// The name of a table.
pub(super) fn file_name(uid: u32, identity: StoreIdentity, nonce: u64) -> String {
    format!("{}{nonce:016x}", prefix_of_store(uid, identity))
}

/// Which store a table's name means.
#[cfg(feature = "daemon")]
pub(super) fn store_of(file_name: &str, uid: u32) -> Option<StoreIdentity> {
    let mut pieces = file_name.strip_prefix(&prefix_of_user(uid))?.split('-');
    let mut number = || u64::from_str_radix(pieces.next()?, 16).ok();
    let identity = StoreIdentity { device: number()?, inode: number()? };
    number()?;
    Some(identity)
}

/// Opens a table that belongs to this user; with how many bytes it has.
#[cfg(target_os = "linux")]
pub(super) fn open(path: &Path, uid: u32, write: bool) -> io::Result<(File, usize)> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::CLOEXEC | rustix::fs::OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).write(write).custom_flags(flags.bits().cast_signed()).open(path)?;
    let found = file.metadata()?;
    // Whoever else may write it could make a client believe that an old value is current.
    let is_its_own = found.is_file() && found.uid() == uid && found.mode() & 0o022 == 0;
    if !is_its_own {
        return Err(io::Error::other("it is not a file that only the store's user may write"));
    }
    // A file with holes could run out of memory below whoever reads it.
    if found.blocks() * 512 < found.len() || !is_memory(&file) {
        return Err(io::Error::other("it does not lie in memory as a whole"));
    }
    Ok((file, usize::try_from(found.len()).map_err(io::Error::other)?))
}

/// Opens a file of this user's that may have been a table.
#[cfg(all(target_os = "linux", feature = "daemon"))]
pub(super) fn open_any(path: &Path, uid: u32) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::CLOEXEC | rustix::fs::OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).write(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    let found = file.metadata()?;
    if found.is_file() && found.uid() == uid { Ok(file) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

#[cfg(all(not(target_os = "linux"), feature = "daemon"))]
pub(super) fn open_any(_path: &Path, _uid: u32) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
pub(super) fn open(path: &Path, _uid: u32, write: bool) -> io::Result<(File, usize)> {
    drop(OpenOptions::new().read(true).write(write).open(path)?);
    Err(io::ErrorKind::Unsupported.into())
}

/// Whether a file or directory lies on a tmpfs.
#[cfg(target_os = "linux")]
pub(super) fn is_memory(file: &File) -> bool {
    const TMPFS: u32 = 0x0102_1994;
    rustix::fs::fstatfs(file).is_ok_and(|found| u32::try_from(found.f_type) == Ok(TMPFS))
}

#[cfg(all(test, feature = "daemon"))]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_its_store_and_is_refused_if_it_is_no_name() {
        let identity = StoreIdentity { device: 0xfe01, inode: 77 };
        let name = file_name(1000, identity, 5);
        assert_eq!(name, "commonhold-1000-fe01-4d-0000000000000005");
        assert_eq!(store_of(&name, 1000), Some(identity));
        for other in ["commonhold-1000-fe01-4d-x", "commonhold-1000-", "commonhold-100-1-1-1", "x"] {
            assert_eq!(store_of(other, 1000), None, "{other}");
        }
    }
}
