//! Is this directory safe to own? Checked before anything is made in it.
//!
//! Whoever can rename a directory above the store, or write into it, can put another store in its place. So the store
//! must belong to the daemon's user, and no directory on the way may be writable by everybody, unless its sticky bit
//! keeps people from touching each other's entries, as in `/tmp`.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::ipc::{OWN_DIRECTORY, SHARED_DIRECTORY, own_uid};

use super::Error;

const WRITABLE_BY_OTHERS: u32 = 0o002;
const STICKY: u32 = 0o1000;
const OPEN_TO_OTHERS: u32 = 0o077;

/// Checks the directory and everything above it; answers its canonical path.
pub(super) fn check(dir: &Path, allow_network_fs: bool) -> Result<PathBuf, Error> {
    let canonical = fs::canonicalize(dir).map_err(|error| cannot_look_at(dir, &error))?;
    let found = fs::metadata(&canonical).map_err(|error| cannot_look_at(dir, &error))?;
    if !found.is_dir() {
        return Err(Error::NotADirectory { path: canonical });
    }
    belongs_to_us(&canonical, &found)?;
    for path in canonical.ancestors() {
        let found = fs::metadata(path).map_err(|error| cannot_look_at(path, &error))?;
        if found.mode() & WRITABLE_BY_OTHERS != 0 && found.mode() & STICKY == 0 {
            let reason = format!(
                "everybody may write into {} and could put another directory in its place; `chmod o-w` it, or use another directory",
                path.display()
            );
            return Err(Error::Unsafe { path: canonical.clone(), reason });
        }
    }
    if !allow_network_fs && let Some(kind) = network_file_system(&canonical) {
        return Err(Error::NetworkFileSystem { dir: canonical, kind });
    }
    own_directory(&canonical.join(OWN_DIRECTORY))?;
    Ok(canonical)
}

/// `.commonhold` must be ours and nobody else's. A copied store may have lost the mode, which is mended: what is inside
/// has modes of its own.
fn own_directory(path: &Path) -> Result<(), Error> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(cannot_look_at(path, &error)),
    };
    if !found.is_dir() {
        let reason = "it is not a directory (a symbolic link is not followed); move it away".to_owned();
        return Err(Error::Unsafe { path: path.to_owned(), reason });
    }
    belongs_to_us(path, &found)?;
    if found.mode() & OPEN_TO_OTHERS != 0 {
        tracing::warn!(
            "{} was open to other users (mode {:o}): it is closed now",
            path.display(),
            found.mode() & 0o777
        );
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(|error| cannot_look_at(path, &error))?;
    }
    Ok(())
}

/// The directory in which other users find a socket: they may pass through it, and neither list nor change it.
pub(super) fn make_shared_directory(dir: &Path) -> Result<(), Error> {
    let path = dir.join(SHARED_DIRECTORY);
    match fs::create_dir(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(cannot_look_at(&path, &error)),
        _ => {}
    }
    let found = fs::symlink_metadata(&path).map_err(|error| cannot_look_at(&path, &error))?;
    if !found.is_dir() {
        let reason = "it is not a directory (a symbolic link is not followed); move it away".to_owned();
        return Err(Error::Unsafe { path, reason });
    }
    belongs_to_us(&path, &found)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o711)).map_err(|error| cannot_look_at(&path, &error))
}

fn belongs_to_us(path: &Path, found: &Metadata) -> Result<(), Error> {
    let (owner, us) = (found.uid(), own_uid());
    if owner == us {
        return Ok(());
    }
    let reason =
        format!("it belongs to user {owner}, and this is user {us}; run the daemon as its owner, or `chown` it");
    Err(Error::Unsafe { path: path.to_owned(), reason })
}

fn cannot_look_at(path: &Path, error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => Error::NoDirectory { dir: path.to_owned() },
        io::ErrorKind::NotADirectory => Error::NotADirectory { path: path.to_owned() },
        _ => Error::Unsafe { path: path.to_owned(), reason: format!("it cannot be looked at: {error}") },
    }
}

/// The kind of network file system that the directory is on, if `statfs` knows it for one.
#[cfg(target_os = "linux")]
fn network_file_system(dir: &Path) -> Option<&'static str> {
    // From statfs(2). 9p is not among them: it is also what virtual machines give a guest of the host's local disk.
    match u32::try_from(rustix::fs::statfs(dir).ok()?.f_type).ok()? {
        0x6969 => Some("NFS"),
        0x517b | 0xfe53_4d42 => Some("SMB"),
        0xff53_4d42 => Some("CIFS"),
        0x00c3_6400 => Some("Ceph"),
        0x5346_414f | 0x6b41_4653 => Some("AFS"),
        0x7461_636f | 0x0131_11a8 => Some("a cluster file system"),
        _ => None,
    }
}

#[cfg(not(target_os = "linux"))]
fn network_file_system(_dir: &Path) -> Option<&'static str> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("the test owns the directory");
    }

    #[test]
    fn a_directory_that_others_can_replace_is_refused_and_a_sticky_one_is_not() {
        let above = tempfile::tempdir().expect("a temporary directory");
        let store = above.path().join("store");
        fs::create_dir(&store).expect("the test owns the directory");
        assert!(check(&store, false).is_ok());
        mode(above.path(), 0o777);
        assert!(matches!(check(&store, false), Err(Error::Unsafe { .. })));
        mode(above.path(), 0o1777);
        assert!(check(&store, false).is_ok());
        mode(&store, 0o777);
        assert!(matches!(check(&store, false), Err(Error::Unsafe { .. })));
    }

    #[test]
    fn what_is_not_a_directory_is_told_as_it_is() {
        let above = tempfile::tempdir().expect("a temporary directory");
        let file = above.path().join("file");
        fs::write(&file, "x").expect("the test owns the directory");
        assert!(matches!(check(&file, false), Err(Error::NotADirectory { .. })));
        assert!(matches!(check(&file.join("below"), false), Err(Error::NotADirectory { .. })));
        assert!(matches!(check(&above.path().join("nowhere"), false), Err(Error::NoDirectory { .. })));
    }

    #[test]
    fn a_link_in_place_of_the_own_directory_is_refused_and_a_lost_mode_is_mended() {
        let store = tempfile::tempdir().expect("a temporary directory");
        let own = store.path().join(OWN_DIRECTORY);
        fs::create_dir(&own).expect("the test owns the directory");
        mode(&own, 0o755);
        assert!(check(store.path(), false).is_ok());
        assert_eq!(fs::metadata(&own).expect("it is there").mode() & 0o777, 0o700);
        fs::remove_dir(&own).expect("it is empty");
        std::os::unix::fs::symlink("/tmp", &own).expect("the test owns the directory");
        assert!(matches!(check(store.path(), false), Err(Error::Unsafe { .. })));
    }
}
