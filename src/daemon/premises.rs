//! Is this directory safe to own? Checked before anything is made in it.
//!
//! Whoever can rename a directory above the store, or write into it, can put another store in its place. So the store
//! must belong to the daemon's user, and no directory on the way may be writable by everybody, unless its sticky bit
//! keeps people from touching each other's entries, as in `/tmp`. The store's own directory may not even then, for others
//! could lay files and workspaces into it. A group, or another owner of a directory above, is somebody's choice: the log
//! says what it means.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::engine::disk::{Disk as _, RealDisk};
use crate::ipc::{OWN_DIRECTORY, SHARED_DIRECTORY, own_uid};
use crate::proto::Workspace;

use super::Error;

const WRITABLE_BY_OTHERS: u32 = 0o002;
const WRITABLE_BY_GROUP: u32 = 0o020;
const STICKY: u32 = 0o1000;
const OPEN_TO_OTHERS: u32 = 0o077;
const OPEN_TO_US: u32 = 0o700;

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
        let is_store = path == canonical;
        if found.mode() & WRITABLE_BY_OTHERS != 0 && (is_store || found.mode() & STICKY == 0) {
            let harm = if is_store { "add files and workspaces to it" } else { "put another directory in its place" };
            let reason = format!(
                "everybody may write into {} and could {harm}; `chmod o-w` it, or use another directory",
                path.display()
            );
            return Err(Error::Unsafe { path: canonical.clone(), reason });
        }
        if let Some(who) = who_else_decides(&found, own_uid()) {
            tracing::warn!(
                "{who} may write into {}, and so can replace what is kept here: trust them, or use another directory",
                path.display()
            );
        }
    }
    tell_of_open_workspaces(&canonical);
    if !allow_network_fs && let Some(kind) = network_file_system(&canonical) {
        return Err(Error::NetworkFileSystem { dir: canonical, kind });
    }
    own_directory(&canonical.join(OWN_DIRECTORY))?;
    Ok(canonical)
}

/// Checks that the store, and `.commonhold` in it, belong to this user: what another one writes there, its owner could not use.
///
/// # Errors
/// [`Error::Unsafe`], also where they cannot be looked at.
pub(crate) fn check_owner(dir: &Path) -> Result<(), Error> {
    belongs_to_us(dir, &fs::metadata(dir).map_err(|error| cannot_look_at(dir, &error))?)?;
    let own = dir.join(OWN_DIRECTORY);
    match fs::symlink_metadata(&own) {
        Ok(found) => belongs_to_us(&own, &found),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(cannot_look_at(&own, &error)),
    }
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
        return Err(no_directory(path));
    }
    belongs_to_us(path, &found)?;
    if found.mode() & OPEN_TO_OTHERS != 0 {
        tracing::warn!(
            "{} was open to other users (mode {:o}): it is closed now",
            path.display(),
            found.mode() & 0o777
        );
        set_mode(path, 0o700)?;
    } else if found.mode() & OPEN_TO_US != OPEN_TO_US {
        tracing::warn!("{} was closed to its owner (mode {:o}): it is open now", path.display(), found.mode() & 0o777);
        set_mode(path, 0o700)?;
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
    set_mode(&path, 0o711)
}

/// Sets the mode of a directory that is ours, through a descriptor: what has its name may change at any time.
fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    let directory = match open_directory(path) {
        Ok(directory) => directory,
        Err(error) => {
            return match error.raw_os_error() {
                Some(errno) if errno == NOT_A_DIRECTORY || errno == A_LINK => Err(no_directory(path)),
                // By the mode that is to be set; only its owner can, whoever that is by now.
                _ if error.kind() == io::ErrorKind::PermissionDenied => {
                    RealDisk.set_mode(path, mode).map_err(|error| cannot_look_at(path, &error))
                }
                _ => Err(cannot_look_at(path, &error)),
            };
        }
    };
    let found = directory.metadata().map_err(|error| cannot_look_at(path, &error))?;
    belongs_to_us(path, &found)?;
    directory.set_permissions(Permissions::from_mode(mode)).map_err(|error| cannot_look_at(path, &error))
}

const NOT_A_DIRECTORY: i32 = rustix::io::Errno::NOTDIR.raw_os_error();
const A_LINK: i32 = rustix::io::Errno::LOOP.raw_os_error();

fn open_directory(path: &Path) -> io::Result<File> {
    let flags = (OFlags::DIRECTORY | OFlags::NOFOLLOW).bits().cast_signed();
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

fn no_directory(path: &Path) -> Error {
    let reason = "it is not a directory (a symbolic link is not followed); move it away".to_owned();
    Error::Unsafe { path: path.to_owned(), reason }
}

/// Who but this user and root decides what is in a directory, as words to begin a sentence with.
fn who_else_decides(found: &Metadata, us: u32) -> Option<String> {
    if found.uid() != us && found.uid() != 0 {
        return Some(format!("user {}, its owner,", found.uid()));
    }
    // A group of the owner's own has the owner's number wherever users have one of their own; root's is of no others.
    let is_of_others = found.gid() != found.uid() && found.gid() != 0;
    (found.mode() & WRITABLE_BY_GROUP != 0 && found.mode() & STICKY == 0 && is_of_others)
        .then(|| format!("group {}", found.gid()))
}

/// A workspace that others may write into is as open as they make it: what they lay there is served.
fn tell_of_open_workspaces(store: &Path) {
    // What cannot be listed is told when it is used.
    for entry in fs::read_dir(store).into_iter().flatten().flatten() {
        let Some(true) = entry.file_name().to_str().map(|name| Workspace::new(name).is_ok()) else { continue };
        // A link is not followed here, and refused as a workspace.
        let Ok(found) = entry.metadata() else { continue };
        let (us, everybody) = (own_uid(), found.mode() & WRITABLE_BY_OTHERS != 0);
        let who = if everybody { Some("everybody".to_owned()) } else { who_else_decides(&found, us) };
        if let Some(who) = who.filter(|_| found.is_dir()) {
            tracing::warn!(
                "{who} may write into the workspace {}: what they lay there is served",
                entry.path().display()
            );
        }
    }
}

fn belongs_to_us(path: &Path, found: &Metadata) -> Result<(), Error> {
    let (owner, us) = (found.uid(), own_uid());
    if owner == us {
        return Ok(());
    }
    let reason = format!(
        "it belongs to user {owner}, and this is user {us}; run the command as its owner (`sudo -u '#{owner}' …`, or `setpriv --reuid={owner} --clear-groups -- …`), or `chown` it"
    );
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
        for mode_of_store in [0o777, 0o1777] {
            mode(&store, mode_of_store);
            assert!(matches!(check(&store, false), Err(Error::Unsafe { .. })), "{mode_of_store:o}");
        }
    }

    #[test]
    fn the_log_is_told_who_else_decides_and_a_group_of_ones_own_is_nobody_else() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let found = fs::metadata(dir.path()).expect("it is there");
        assert_eq!(who_else_decides(&found, found.uid()), None);
        let of_another = who_else_decides(&found, found.uid() + 1);
        assert_eq!(of_another.is_some(), found.uid() != 0);
        mode(dir.path(), 0o770);
        let found = fs::metadata(dir.path()).expect("it is there");
        let own_group = found.gid() == found.uid() || found.gid() == 0;
        assert_eq!(who_else_decides(&found, found.uid()).is_some(), !own_group);
    }

    #[test]
    fn the_directory_for_others_is_never_a_link() {
        let (store, outside) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        mode(outside.path(), 0o700);
        std::os::unix::fs::symlink(outside.path(), store.path().join(SHARED_DIRECTORY)).expect("linked");
        assert!(matches!(make_shared_directory(store.path()), Err(Error::Unsafe { .. })));
        assert_eq!(fs::metadata(outside.path()).expect("it is there").mode() & 0o777, 0o700);
        fs::remove_file(store.path().join(SHARED_DIRECTORY)).expect("removed");
        make_shared_directory(store.path()).expect("made");
        assert_eq!(fs::metadata(store.path().join(SHARED_DIRECTORY)).expect("it is there").mode() & 0o777, 0o711);
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
