//! Writes a file through a temporary sibling: whoever reads the file finds the old content or the new one, never half.

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
    /// Begins to write what will be `target`. A symbolic link is followed, so that the link stays; a device or pipe is
    /// written to directly.
    pub(super) fn create(target: &Path) -> io::Result<Self> {
        let existing = fs::metadata(target).ok();
        if existing.as_ref().is_some_and(|found| !found.is_file() && !found.is_dir()) {
            let file = OpenOptions::new().write(true).open(target)?;
            return Ok(Self { target: target.to_owned(), temporary: None, file: BufWriter::new(file) });
        }
        let target = if existing.is_some() { fs::canonicalize(target)? } else { target.to_owned() };
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
    fn a_directory_is_no_target() {
        let dir = tempfile::tempdir().expect("temporary directory");
        assert!(Sibling::create(dir.path()).is_err());
    }
}
