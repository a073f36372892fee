//! A real file system of a few megabytes that runs full: a tmpfs, where this process may mount one. Elsewhere the test says
//! on standard error that it was skipped, and why.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use commonhold_proto::{Condition, Place};

use crate::engine::{Error, FlushHow, Store, StoreOptions, Surroundings, WriteRequest, Written};

struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mounted(size: &str) -> Result<Self, String> {
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={size},mode=0755"), "tmpfs"]).arg(directory.path());
        let done = command.output().map_err(|error| format!("mount cannot be run: {error}"))?;
        if done.status.success() {
            Ok(Self(directory))
        } else {
            Err(String::from_utf8_lossy(&done.stderr).trim().to_owned())
        }
    }

    fn dir(&self) -> &Path {
        self.0.path()
    }

    /// Another program's file, which takes what is left of the disk to the last byte.
    fn ballast(&self) -> PathBuf {
        let path = self.dir().join("ballast");
        let mut file = File::options().create(true).append(true).open(&path).unwrap();
        for size in [64 << 10, 1] {
            while file.write_all(&vec![7; size]).is_ok() {}
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: what still has a file open goes on, and the directory can be removed.
        let _ = Command::new("umount").arg("-l").arg(self.dir()).status();
    }
}

/// The store, and what was acknowledged.
struct User {
    dir: PathBuf,
    options: StoreOptions,
    store: Option<Store>,
    acknowledged: BTreeMap<String, String>,
}

fn place() -> Place {
    Place::new("", "a").unwrap()
}

impl User {
    fn open(&mut self) -> &Store {
        self.store = None;
        self.store.insert(Store::open(&self.dir, self.options.clone(), Surroundings::real().unwrap()).unwrap())
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn write(&self, build: impl FnOnce(&mut WriteRequest)) -> Result<Written, Error> {
        let mut request = WriteRequest::new(7, 1);
        build(&mut request);
        self.store().write(vec![request]).remove(0)
    }

    fn put(&mut self, key: &str, number: usize) -> Result<(), Error> {
        let value = format!("\"{number:0>20000}\"");
        let table = self.store().namespace(&place()).unwrap();
        self.write(|request| request.put(&table, key, &value, Condition::Always).unwrap())?;
        self.acknowledged.insert(key.to_owned(), value);
        Ok(())
    }

    fn delete(&mut self, key: &str) {
        let table = self.store().namespace(&place()).unwrap();
        self.write(|request| request.delete(&table, key, Condition::Always).unwrap()).unwrap();
        self.acknowledged.remove(key);
    }

    fn put_until_full(&mut self) -> usize {
        for number in 0..2_000 {
            match self.put(&format!("k{}", number % 8), number) {
                Ok(()) => {}
                Err(Error::Full { .. } | Error::NoRoomToBegin { .. }) => return number,
                Err(other) => panic!("{other:?}"),
            }
        }
        panic!("the disk has no room for that");
    }

    fn check(&self) {
        let table = self.store().namespace(&place()).unwrap();
        assert_eq!(table.len(), self.acknowledged.len() as u64);
        for (key, value) in &self.acknowledged {
            assert!(table.get(key).is_some_and(|record| record.value() == value), "key {key}");
        }
    }

    fn flush(&self) -> Result<(), Error> {
        self.store().flush(&place(), FlushHow::default()).map(|_| ())
    }
}

#[test]
fn a_real_small_disk_runs_full_and_recovers_in_place_and_loses_nothing_acknowledged() {
    let disk = match SmallDisk::mounted("8m") {
        Ok(disk) => disk,
        Err(reason) => {
            // Not by a macro: the test runner would keep it to itself.
            let told = format!("SKIPPED: no small file system could be mounted, so none was filled: {reason}\n");
            std::io::stderr().write_all(told.as_bytes()).unwrap();
            return;
        }
    };
    let (dir, options) = (disk.dir().to_owned(), StoreOptions::default());
    let mut user = User { dir, options, store: None, acknowledged: BTreeMap::new() };
    user.open();

    // The journal alone fills it. A flush gives that back, and writes go on, again and again.
    for _ in 0..3 {
        assert!(user.put_until_full() > 100);
        user.check();
        user.delete("k0");
        user.check();
        user.flush().unwrap();
        user.put("k0", 1).unwrap();
        user.check();
    }

    // Another program fills it.
    user.flush().unwrap();
    let ballast = disk.ballast();
    user.put_until_full();
    user.delete("k1");
    user.check();
    let flushed = user.flush();
    assert!(matches!(flushed, Ok(()) | Err(Error::Full { .. })), "{flushed:?}");
    user.check();
    std::fs::remove_file(&ballast).unwrap();
    user.store().tick().unwrap();
    user.put("k1", 2).unwrap();
    user.flush().unwrap();
    user.check();

    // A restart on the full disk: what the journal had set aside is enough to begin.
    user.put("k2", 3).unwrap();
    let ballast = disk.ballast();
    user.open();
    assert_eq!(user.store().waits_for_room(), None);
    assert!(user.store().is_disk_full());
    user.check();
    user.delete("k2");
    user.check();
    std::fs::remove_file(&ballast).unwrap();
    user.store().tick().unwrap();
    user.flush().unwrap();

    // The same with a journal that nobody knows to be on the platter: it is more than what was set aside.
    user.put_until_full();
    user.open();
    assert_eq!(user.store().waits_for_room(), None);
    user.check();
    user.delete("k3");
    user.flush().unwrap();
    user.put("k3", 3).unwrap();
    user.check();

    // A restart where nothing is left: reads at once, and writes as soon as there is room.
    user.options.room_bytes = 0;
    user.open();
    // Segments with room of earlier owners are to go.
    user.flush().unwrap();
    user.store().tick().unwrap();
    user.store().tick().unwrap();
    user.put("k3", 4).unwrap();
    let ballast = disk.ballast();
    user.open();
    user.check();
    let refused = user.put("k4", 5);
    assert!(matches!(refused, Err(Error::NoRoomToBegin { free: Some(0..4096), .. })), "{refused:?}");
    assert!(user.store().tick().is_err() && user.store().waits_for_room().is_some());
    std::fs::remove_file(&ballast).unwrap();
    user.store().tick().unwrap();
    assert_eq!(user.store().waits_for_room(), None);
    user.put("k4", 6).unwrap();
    user.flush().unwrap();
    user.check();
    user.open();
    user.check();
}
