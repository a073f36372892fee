//! One suite for both disks: what the contract says about calls that succeed or are refused holds on a real file system
//! and on the simulated one, so that what the engine learns on the one is true on the other.

use std::io::ErrorKind;

use rustix::io::Errno;

use super::*;

/// A disk, a directory on it to play in, and how to make a symbolic link there.
struct Ground<'a> {
    disk: &'a dyn Disk,
    dir: PathBuf,
    symlink: &'a dyn Fn(&str, &Path),
}

impl Ground<'_> {
    fn at(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        self.disk.open(&self.at(name), &How::CREATE).unwrap().write_at(bytes, 0).unwrap();
    }

    fn read(&self, name: &str) -> Vec<u8> {
        self.disk.read(&self.at(name)).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let entries = self.disk.list(&self.dir).unwrap();
        entries.into_iter().map(|entry| entry.name.into_string().unwrap()).collect()
    }
}

fn on_both(promise: impl Fn(&Ground<'_>)) {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().canonicalize().unwrap();
    let symlink = |target: &str, path: &Path| std::os::unix::fs::symlink(target, path).unwrap();
    promise(&Ground { disk: &RealDisk, dir, symlink: &symlink });

    let disk = SimDisk::new(1);
    disk.make_dirs("/play");
    let symlink = |target: &str, path: &Path| disk.symlink(target, path);
    promise(&Ground { disk: &disk, dir: "/play".into(), symlink: &symlink });
}

/// The code of an expected error.
fn errno<T>(result: io::Result<T>) -> Option<Errno> {
    Errno::from_io_error(&result.err().expect("this must be refused"))
}

#[test]
fn what_is_written_is_read_and_gaps_are_zeros() {
    on_both(|ground| {
        let file = ground.disk.open(&ground.at("a"), &How::CREATE_NEW).unwrap();
        file.write_at(b"end", 9000).unwrap();
        file.write_at(b"begin", 0).unwrap();
        file.write_at(b"", 20_000).unwrap();
        assert_eq!(file.stat().unwrap().bytes, 9003);
        let mut buffer = [9; 10];
        assert_eq!(file.read_at(&mut buffer, 8998).unwrap(), 5, "to the end of the file");
        assert_eq!(&buffer, b"\0\0end\x09\x09\x09\x09\x09");
        assert_eq!(file.read_at(&mut buffer, 9003).unwrap(), 0);
        assert_eq!(file.read_at(&mut buffer, 1 << 40).unwrap(), 0);
        file.sync().unwrap();
        let all = ground.read("a");
        assert_eq!((all.len(), &all[..6]), (9003, &b"begin\0"[..]));
    });
}

#[test]
fn sizes_change_both_ways_and_new_bytes_are_zeros() {
    on_both(|ground| {
        let file = ground.disk.open(&ground.at("a"), &How::CREATE_NEW).unwrap();
        file.write_at(b"123456789", 0).unwrap();
        file.truncate(3).unwrap();
        file.truncate(5).unwrap();
        assert_eq!(file.read_all().unwrap(), b"123\0\0");
        file.allocate(4).unwrap();
        assert_eq!(file.stat().unwrap().bytes, 5, "allocating never makes a file shorter");
        file.allocate(100_000).unwrap();
        let all = file.read_all().unwrap();
        assert_eq!((all.len(), &all[..3]), (100_000, &b"123"[..]));
        assert!(all[3..].iter().all(|byte| *byte == 0));
        let emptied = ground.disk.open(&ground.at("a"), &How { truncate: true, ..How::WRITE }).unwrap();
        assert_eq!(emptied.read_all().unwrap(), b"");
    });
}

#[test]
fn opening_makes_only_what_it_was_asked_to() {
    on_both(|ground| {
        let path = ground.at("a");
        assert_eq!(errno(ground.disk.open(&path, &How::READ)), Some(Errno::NOENT));
        assert_eq!(errno(ground.disk.open(&path, &How::WRITE)), Some(Errno::NOENT));
        ground.disk.open(&path, &How::CREATE_NEW).unwrap().write_at(b"x", 0).unwrap();
        assert_eq!(errno(ground.disk.open(&path, &How::CREATE_NEW)), Some(Errno::EXIST));
        ground.disk.open(&path, &How::CREATE).unwrap();
        assert_eq!(ground.read("a"), b"x", "opening does not empty");
        assert_eq!(errno(ground.disk.open(&ground.at("no/a"), &How::CREATE_NEW)), Some(Errno::NOENT));
        assert_eq!(errno(ground.disk.open(&ground.at("a/b"), &How::CREATE_NEW)), Some(Errno::NOTDIR));
        let reader = ground.disk.open(&path, &How::READ).unwrap();
        assert_eq!(errno(reader.write_at(b"y", 0)), Some(Errno::BADF));
        assert_eq!(errno(ground.disk.open(&ground.dir, &How::READ)), Some(Errno::ISDIR));
        assert_eq!(errno(ground.disk.open(&ground.dir, &How::CREATE)), Some(Errno::ISDIR));
    });
}

#[test]
fn modes_are_exact_whatever_the_umask() {
    on_both(|ground| {
        for mode in [0o600, 0o644, 0o666, 0o777] {
            let path = ground.at(&format!("{mode:o}"));
            let file = ground.disk.open(&path, &How::CREATE_NEW.with_mode(mode)).unwrap();
            assert_eq!(file.stat().unwrap().mode, mode);
            ground.disk.open(&path, &How::CREATE.with_mode(0o600)).unwrap();
            assert_eq!(ground.disk.stat(&path).unwrap().mode, mode, "an existing file keeps its mode");
            let made = ground.at(&format!("made-{mode:o}"));
            ground.disk.open(&made, &How::CREATE.with_mode(mode)).unwrap();
            assert_eq!(ground.disk.stat(&made).unwrap().mode, mode);
        }
        let dir = ground.at("dir");
        ground.disk.create_dir(&dir, 0o777).unwrap();
        assert_eq!(ground.disk.stat(&dir).unwrap().mode, 0o777);
        ground.disk.set_mode(&dir, 0o700).unwrap();
        assert_eq!(ground.disk.stat(&dir).unwrap().mode, 0o700);
        assert_eq!(errno(ground.disk.create_dir(&dir, 0o700)), Some(Errno::EXIST));
    });
}

#[test]
fn a_rename_replaces_the_target_and_open_files_stay_what_they_are() {
    on_both(|ground| {
        ground.write("old", b"old");
        ground.write("new", b"new");
        let old = ground.disk.open(&ground.at("old"), &How::READ).unwrap();
        let new_inode = ground.disk.stat(&ground.at("new")).unwrap().inode;
        ground.disk.rename(&ground.at("new"), &ground.at("old")).unwrap();
        assert_eq!(ground.names(), ["old"]);
        assert_eq!(ground.read("old"), b"new");
        assert_eq!(ground.disk.stat(&ground.at("old")).unwrap().inode, new_inode);
        assert_eq!(old.read_all().unwrap(), b"old", "the replaced file is there while it is open");
        assert_eq!(errno(ground.disk.rename(&ground.at("new"), &ground.at("old"))), Some(Errno::NOENT));
        ground.disk.create_dir(&ground.at("dir"), 0o700).unwrap();
        assert_eq!(errno(ground.disk.rename(&ground.at("old"), &ground.at("dir"))), Some(Errno::ISDIR));
        ground.disk.rename(&ground.at("old"), &ground.at("dir/moved")).unwrap();
        assert_eq!(ground.read("dir/moved"), b"new");
    });
}

#[test]
fn a_link_is_a_second_name_of_the_same_file() {
    on_both(|ground| {
        ground.write("a", b"1");
        ground.disk.link(&ground.at("a"), &ground.at("b")).unwrap();
        ground.write("a", b"2");
        assert_eq!(ground.read("b"), b"2");
        let stats = ["a", "b"].map(|name| ground.disk.lstat(&ground.at(name)).unwrap());
        assert_eq!(stats[0], stats[1]);
        assert_eq!(errno(ground.disk.link(&ground.at("a"), &ground.at("b"))), Some(Errno::EXIST));
        assert_eq!(errno(ground.disk.link(&ground.at("no"), &ground.at("c"))), Some(Errno::NOENT));
        ground.disk.rename(&ground.at("a"), &ground.at("b")).unwrap();
        assert_eq!(ground.names(), ["a", "b"], "a rename between two names of one file does nothing");
        ground.disk.remove(&ground.at("a")).unwrap();
        assert_eq!(ground.read("b"), b"2");
        assert_eq!(errno(ground.disk.remove(&ground.at("a"))), Some(Errno::NOENT));
    });
}

#[test]
fn a_copy_is_another_file_with_the_same_bytes_and_mode() {
    on_both(|ground| {
        let bytes: Vec<u8> = (0..COPY_CHUNK_BYTES + 7).map(|at| (at % 251) as u8).collect();
        let source = ground.disk.open(&ground.at("a"), &How::CREATE_NEW.with_mode(0o640)).unwrap();
        source.write_at(&bytes, 0).unwrap();
        ground.disk.copy(&ground.at("a"), &ground.at("b")).unwrap();
        assert_eq!(ground.read("b"), bytes);
        let stats = ["a", "b"].map(|name| ground.disk.stat(&ground.at(name)).unwrap());
        assert_ne!(stats[0].inode, stats[1].inode);
        assert_eq!(stats[1].mode, 0o640);
        assert_eq!(errno(ground.disk.copy(&ground.at("a"), &ground.at("b"))), Some(Errno::EXIST));
        assert_eq!(ground.read("b"), bytes, "a refused copy leaves what was there");
    });
}

#[test]
fn symbolic_links_are_refused_unless_asked_for_and_can_be_looked_at() {
    on_both(|ground| {
        ground.disk.create_dir(&ground.at("dir"), 0o700).unwrap();
        ground.write("dir/real", b"real");
        (ground.symlink)("dir/real", &ground.at("link"));
        (ground.symlink)("dir", &ground.at("way"));
        (ground.symlink)("nowhere", &ground.at("dangling"));
        (ground.symlink)("loop", &ground.at("loop"));

        for how in [How::READ, How::WRITE, How::CREATE] {
            assert_eq!(errno(ground.disk.open(&ground.at("link"), &how)), Some(Errno::LOOP), "{how:?}");
            assert_eq!(errno(ground.disk.open(&ground.at("dangling"), &how)), Some(Errno::LOOP), "{how:?}");
        }
        assert_eq!(errno(ground.disk.open(&ground.at("dangling"), &How::CREATE_NEW)), Some(Errno::EXIST));
        assert_eq!(errno(ground.disk.set_mode(&ground.at("link"), 0o600)), Some(Errno::LOOP));
        assert_eq!(ground.disk.open(&ground.at("link"), &How::READ.follow()).unwrap().read_all().unwrap(), b"real");
        assert_eq!(ground.read("way/real"), b"real", "in the middle of a path a link is followed");
        assert_eq!(ground.read("way/../dir/real"), b"real");

        assert_eq!(ground.disk.lstat(&ground.at("link")).unwrap().kind, Kind::Link);
        assert_eq!(ground.disk.stat(&ground.at("link")).unwrap().kind, Kind::File);
        assert_eq!(ground.disk.stat(&ground.at("way")).unwrap().kind, Kind::Dir);
        assert_eq!(ground.disk.lstat(&ground.at("dangling")).unwrap().kind, Kind::Link);
        assert_eq!(errno(ground.disk.stat(&ground.at("dangling"))), Some(Errno::NOENT));
        assert_eq!(errno(ground.disk.stat(&ground.at("loop"))), Some(Errno::LOOP));
        assert_eq!(ground.disk.read_link(&ground.at("link")).unwrap(), Path::new("dir/real"));
        assert_eq!(errno(ground.disk.read_link(&ground.at("dir"))), Some(Errno::INVAL));

        ground.disk.remove(&ground.at("link")).unwrap();
        assert_eq!(ground.read("dir/real"), b"real", "removing a link leaves what it leads to");
    });
}

#[test]
fn a_listing_is_sorted_and_tells_kinds() {
    on_both(|ground| {
        ground.write("b", b"");
        ground.disk.create_dir(&ground.at("c"), 0o700).unwrap();
        (ground.symlink)("c", &ground.at("a"));
        let entries = ground.disk.list(&ground.dir).unwrap();
        let kinds: Vec<_> = entries.iter().map(|entry| (entry.name.to_str().unwrap(), entry.kind)).collect();
        assert_eq!(kinds, [("a", Kind::Link), ("b", Kind::File), ("c", Kind::Dir)]);
        assert_eq!(errno(ground.disk.list(&ground.at("no"))), Some(Errno::NOENT));
        assert_eq!(errno(ground.disk.list(&ground.at("b"))), Some(Errno::NOTDIR));
        assert_eq!(errno(ground.disk.sync_dir(&ground.at("b"))), Some(Errno::NOTDIR));
        assert_eq!(errno(ground.disk.remove(&ground.at("c"))), Some(Errno::ISDIR));
        ground.disk.sync_dir(&ground.dir).unwrap();
    });
}

#[test]
fn a_stat_tells_when_somebody_wrote() {
    on_both(|ground| {
        ground.write("a", b"1");
        let before = ground.disk.stat(&ground.at("a")).unwrap();
        assert_eq!((before.kind, before.bytes), (Kind::File, 1));
        assert_eq!(ground.disk.stat(&ground.at("a")).unwrap(), before, "reading changes nothing");
        // A real file system's clock may stand still for a few milliseconds.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while ground.disk.stat(&ground.at("a")).unwrap().mtime_ns == before.mtime_ns {
            assert!(std::time::Instant::now() < deadline, "the time never moved");
            ground.write("a", b"2");
        }
        let after = ground.disk.stat(&ground.at("a")).unwrap();
        assert!(after.mtime_ns > before.mtime_ns);
        assert_eq!(Stat { mtime_ns: before.mtime_ns, ..after }, before);
    });
}

#[test]
fn names_that_are_too_long_are_refused() {
    on_both(|ground| {
        let name = "n".repeat(256);
        assert_eq!(errno(ground.disk.open(&ground.at(&name), &How::CREATE)), Some(Errno::NAMETOOLONG));
        assert_eq!(errno(ground.disk.open(&ground.at(&"d/".repeat(2100)), &How::CREATE)), Some(Errno::NAMETOOLONG));
        assert!(ground.disk.open(&ground.at(&name[..255]), &How::CREATE).is_ok());
    });
}

#[test]
fn a_pipe_in_the_place_of_a_file_is_refused_and_does_not_hang() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    assert!(RealDisk.open(&path, &How::READ).is_err_and(|error| error.kind() == ErrorKind::InvalidInput));
    assert!(RealDisk.open(&path, &How::WRITE).is_err());
    assert_eq!(RealDisk.lstat(&path).unwrap().kind, Kind::Other);
}
