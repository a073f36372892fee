//! Writes a file through a temporary sibling: whoever reads the file finds the old content or the new one, never half.
//!
//! Where the file system can (Linux, but for network and some FUSE file systems), the sibling has no name until it is whole:
//! however this process ends, by `SIGKILL` too, nothing is left of it. Elsewhere it has one, which SIGTERM and SIGINT remove.
//!
//! Only a regular file can be replaced so. What is none, a pipe or a device, is written to as it is; and so is a file that
//! is named by a descriptor of this process, as `/dev/fd/3`: whoever opened it holds that file, and not its name.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::Signal;

use super::cleanup::Cleanup;

/// How much of the target's name is in the temporary one: with the rest it stays below 255 bytes.
const KEPT_NAME_BYTES: usize = 200;

/// A file in the making. Dropped unfinished, it leaves no trace.
pub(super) struct Sibling {
    target: PathBuf,
    temporary: Option<Temporary>,
    file: BufWriter<File>,
}

/// What will take the target's place.
struct Temporary {
    path: PathBuf,
    /// Removes it when a signal ends the process. A file without a name needs nobody for that: it gets its name at the end,
    /// for the moment before the target's becomes its own.
    watch: Option<Cleanup>,
}

impl Sibling {
    /// Begins to write what will be `target`. A symbolic link is followed, so that the link stays, also one to a file that
    /// is not there yet; a device or pipe is written to directly, and to a descriptor's file is appended.
    pub(super) fn create(target: &Path) -> io::Result<Self> {
        Self::create_by(target, |path| match unnamed_beside(&path) {
            Some(file) => Ok((file, Temporary { path, watch: None })),
            None => named(path, [Signal::TERM, Signal::INT]),
        })
    }

    /// The same; `make` makes the temporary file, which has this path or will have it.
    fn create_by(target: &Path, make: impl FnOnce(PathBuf) -> io::Result<(File, Temporary)>) -> io::Result<Self> {
        let existing = fs::metadata(target).ok();
        let is_other = existing.as_ref().is_some_and(|found| !found.is_file() && !found.is_dir());
        let target = match resolve(target)? {
            Resolved::File(file) if !is_other => file,
            _ => {
                let file = OpenOptions::new().append(true).open(target)?;
                return Ok(Self { target: target.to_owned(), temporary: None, file: BufWriter::new(file) });
            }
        };
        let Some(name) = target.file_name().filter(|_| !target.is_dir()) else {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory"));
        };
        let nanoseconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        // A long name would pass the system's limit by what is added.
        let bytes = name.as_bytes();
        let mut temporary = OsStr::from_bytes(&bytes[..bytes.len().min(KEPT_NAME_BYTES)]).to_owned();
        temporary.push(format!(".tmp.{}.{nanoseconds}", std::process::id()));
        let (file, temporary) = make(target.with_file_name(temporary))?;
        let temporary = Some(temporary);
        let sibling = Self { target, temporary, file: BufWriter::with_capacity(256 * 1024, file) };
        if let Some(existing) = existing {
            sibling.file.get_ref().set_permissions(existing.permissions())?;
        }
        Ok(sibling)
    }

    /// Syncs what was written and gives it its name.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.file.flush()?;
        let Some(temporary) = &self.temporary else { return Ok(()) };
        self.file.get_ref().sync_all()?;
        if temporary.watch.is_none() {
            give_name(self.file.get_ref(), &temporary.path)?;
        }
        fs::rename(&temporary.path, &self.target)?;
        self.temporary = None;
        // A directory that cannot be opened for reading cannot be synced; the file itself is whole all the same.
        if let Ok(directory) = File::open(directory_of(&self.target)) {
            directory.sync_all()?;
        }
        Ok(())
    }
}

fn directory_of(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A new file of this name, which goes when one of the signals ends the process.
fn named(path: PathBuf, signals: [Signal; 2]) -> io::Result<(File, Temporary)> {
    // The exit code is the one that a shell gives to a command that the signal itself has ended.
    let watch = Cleanup::over(path.clone(), signals, |signal| std::process::exit(128 + signal))?;
    let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
    Ok((file, Temporary { path, watch: Some(watch) }))
}

/// A new file without a name, in the directory of `path`, if the system has such. What is wrong with the directory is
/// found out where a file with a name is made.
#[cfg(target_os = "linux")]
fn unnamed_beside(path: &Path) -> Option<File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(directory_of(path), flags, Mode::from_raw_mode(0o666)).ok()?;
    let file = File::from(file);
    // Its name will be given by way of /proc, which need not be mounted.
    fs::symlink_metadata(own_path(&file)).ok().map(|_| file)
}

#[cfg(target_os = "linux")]
fn give_name(file: &File, path: &Path) -> io::Result<()> {
    use rustix::fs::{AtFlags, CWD};
    Ok(rustix::fs::linkat(CWD, own_path(file), CWD, path, AtFlags::SYMLINK_FOLLOW)?)
}

#[cfg(target_os = "linux")]
fn own_path(file: &File) -> String {
    use std::os::fd::AsRawFd as _;
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

#[cfg(not(target_os = "linux"))]
fn unnamed_beside(_path: &Path) -> Option<File> {
    None
}

#[cfg(not(target_os = "linux"))]
fn give_name(_file: &File, _path: &Path) -> io::Result<()> {
    Ok(())
}

/// What a path names when its last links are followed.
enum Resolved {
    File(PathBuf),
    /// An open file of a process, and of this one the number.
    Descriptor(Option<OsString>),
}

/// Whether a path is another name of this process's standard output, as `/dev/stdout` is.
pub(super) fn is_standard_output(path: &Path) -> bool {
    matches!(resolve(path), Ok(Resolved::Descriptor(Some(number))) if number == "1")
}

/// Follows symbolic links to the file, which need not be there, or to a descriptor, which must not be followed further: the
/// name of its file may be gone or another's by now.
fn resolve(path: &Path) -> io::Result<Resolved> {
    /// As many links as Linux follows.
    const LINKS: usize = 40;
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        let (Ok(parent), Some(name)) = (fs::canonicalize(directory_of(&path)), path.file_name()) else {
            return Ok(Resolved::File(path));
        };
        let own = Path::new("/proc").join(std::process::id().to_string());
        if parent == Path::new("/dev/fd") || (parent.starts_with("/proc") && parent.ends_with("fd")) {
            let is_own = parent.starts_with(own) || parent.starts_with("/dev");
            return Ok(Resolved::Descriptor(is_own.then(|| name.to_owned())));
        }
        let full = parent.join(name);
        match fs::read_link(&full) {
            Ok(to) => path = parent.join(to),
            Err(_) => return Ok(Resolved::File(full)),
        }
    }
    Err(io::Error::other("it is a chain of too many symbolic links"))
}

impl Write for Sibling {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Sibling {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // It failed already; that the remains cannot be removed either, or have no name, changes nothing for the target.
            let _ = fs::remove_file(&temporary.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries =
            fs::read_dir(dir).expect("lists").map(|e| e.expect("entry").file_name().into_string().expect("UTF-8"));
        let mut names: Vec<String> = entries.collect();
        names.sort();
        names
    }

    #[test]
    fn an_unfinished_file_leaves_the_old_one_and_no_trace() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let target = dir.path().join("x.json");
        fs::write(&target, "old").expect("written");
        // With a name, as where no other can be made; its signals are those that no test sends to this process.
        let with_name = |path| named(path, [Signal::PROF, Signal::VTALARM]);
        for begun in [Sibling::create(&target), Sibling::create_by(&target, with_name)] {
            let mut sibling = begun.expect("created");
            sibling.write_all(b"half").expect("written");
            drop(sibling);
            assert_eq!(fs::read(&target).expect("read"), b"old");
        }
        assert_eq!(names(dir.path()), ["x.json"]);
        let mut sibling = Sibling::create_by(&target, with_name).expect("created");
        sibling.write_all(b"new").expect("written");
        assert_eq!(names(dir.path()).len(), 2, "it is beside the old one");
        sibling.finish().expect("finished");
        assert_eq!((fs::read(&target).expect("read"), names(dir.path())), (b"new".to_vec(), vec!["x.json".to_owned()]));
    }

    #[test]
    #[cfg(unix)]
    fn a_finished_file_replaces_what_a_link_points_to_and_keeps_its_mode() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("temporary directory");
        let target = dir.path().join("real.json");
        fs::write(&target, "old").expect("written");
        fs::set_permissions(&target, fs::Permissions::from_mode(0o640)).expect("set");
        let link = dir.path().join("link.json");
        std::os::unix::fs::symlink("real.json", &link).expect("linked");
        let mut sibling = Sibling::create(&link).expect("created");
        sibling.write_all(b"new").expect("written");
        sibling.finish().expect("finished");
        assert_eq!(fs::read(&target).expect("read"), b"new");
        assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
        assert_eq!(fs::metadata(&target).expect("there").permissions().mode() & 0o777, 0o640);
        assert_eq!(names(dir.path()), ["link.json", "real.json"]);
    }

    #[test]
    #[cfg(unix)]
    fn a_link_to_a_file_that_is_not_there_yet_makes_that_file() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let link = dir.path().join("link.json");
        std::os::unix::fs::symlink("new.json", &link).expect("linked");
        let mut sibling = Sibling::create(&link).expect("created");
        sibling.write_all(b"new").expect("written");
        sibling.finish().expect("finished");
        assert_eq!(fs::read(dir.path().join("new.json")).expect("read"), b"new");
        assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_file_that_a_descriptor_names_is_written_to_and_not_replaced() {
        use std::os::fd::AsRawFd as _;
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().expect("temporary directory");
        let target = dir.path().join("x.json");
        fs::write(&target, "old ").expect("written");
        let held = File::options().append(true).open(&target).expect("opened");
        let inode = held.metadata().expect("there").ino();
        for path in [format!("/dev/fd/{}", held.as_raw_fd()), format!("/proc/self/fd/{}", held.as_raw_fd())] {
            let mut sibling = Sibling::create(Path::new(&path)).expect("created");
            sibling.write_all(b"new ").expect("written");
            sibling.finish().expect("finished");
        }
        assert_eq!(fs::read(&target).expect("read"), b"old new new ");
        assert_eq!(fs::metadata(&target).expect("there").ino(), inode);
        assert_eq!(names(dir.path()), ["x.json"]);
    }

    #[test]
    fn only_names_of_standard_output_are_taken_for_it() {
        let dir = tempfile::tempdir().expect("temporary directory");
        for other in ["/dev/null", "/dev/stderr", "/proc/1/fd/1", "x", "dir/1", "."] {
            assert!(!is_standard_output(&dir.path().join(other)), "{other}");
        }
        assert!(!is_standard_output(&dir.path().join("1")));
        #[cfg(target_os = "linux")]
        for own in ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "/dev/../dev/stdout"] {
            assert!(is_standard_output(Path::new(own)), "{own}");
        }
    }

    #[test]
    fn a_directory_is_no_target() {
        let dir = tempfile::tempdir().expect("temporary directory");
        assert!(Sibling::create(dir.path()).is_err());
    }
}
