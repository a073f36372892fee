//! Writes a file through a temporary sibling: whoever reads the file finds the old content or the new one, never half.
//!
//! Only a regular file can be replaced so. What is none, a pipe or a device, is written to as it is; and so is a file that
//! is named by a descriptor of this process, as `/dev/fd/3`: whoever opened it holds that file, and not its name.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// A file in the making. Dropped unfinished, it leaves no trace.
pub(super) struct Sibling {
    target: PathBuf,
    temporary: Option<PathBuf>,
    file: BufWriter<File>,
}

impl Sibling {
    /// Begins to write what will be `target`. A symbolic link is followed, so that the link stays, also one to a file that
    /// is not there yet; a device or pipe is written to directly, and to a descriptor's file is appended.
    pub(super) fn create(target: &Path) -> io::Result<Self> {
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
        let mut temporary = OsString::from(name);
        temporary.push(format!(".tmp.{}.{nanoseconds}", std::process::id()));
        let temporary = target.with_file_name(temporary);
        let file = OpenOptions::new().write(true).create_new(true).open(&temporary)?;
        let sibling = Self { target, temporary: Some(temporary), file: BufWriter::with_capacity(256 * 1024, file) };
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
        fs::rename(temporary, &self.target)?;
        self.temporary = None;
        let parent = self.target.parent().filter(|parent| !parent.as_os_str().is_empty());
        // A directory that cannot be opened for reading cannot be synced; the file itself is whole all the same.
        if let Ok(directory) = File::open(parent.unwrap_or(Path::new("."))) {
            directory.sync_all()?;
        }
        Ok(())
    }
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
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let (Ok(parent), Some(name)) = (fs::canonicalize(parent), path.file_name()) else {
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
            // It failed already; that the remains cannot be removed either changes nothing for the target.
            let _ = fs::remove_file(temporary);
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
        let mut sibling = Sibling::create(&target).expect("created");
        sibling.write_all(b"half").expect("written");
        assert_eq!(names(dir.path()).len(), 2);
        drop(sibling);
        assert_eq!(names(dir.path()), ["x.json"]);
        assert_eq!(fs::read(&target).expect("read"), b"old");
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
