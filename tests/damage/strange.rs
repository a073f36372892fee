//! What is no file stands in the place of one: nothing blocks, nothing is followed, nothing is replaced, and the rest is served.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use super::{both, checked, killed, kinds, other, private, segments, warnings};

/// Puts something strange at a path where nothing is. Says whether it could.
type Puts = fn(&Path) -> bool;

fn node(path: &Path, kind: FileType, device: u64) -> bool {
    mknodat(CWD, path, kind, Mode::from_raw_mode(0o666), device).is_ok()
}

const STRANGE: [(&str, &str, Puts); 6] = [
    ("directory", "not_a_file", |path| fs::create_dir(path).is_ok()),
    ("pipe", "not_a_file", |path| node(path, FileType::Fifo, 0)),
    ("socket", "not_a_file", |path| UnixListener::bind(path).is_ok()),
    ("device", "not_a_file", |path| node(path, FileType::CharacterDevice, makedev(1, 5))),
    ("link to a device", "link", |path| symlink("/dev/zero", path).is_ok()),
    ("link to nothing", "link", |path| symlink("nowhere", path).is_ok()),
];

fn take_away(path: &Path) {
    if fs::symlink_metadata(path).expect("it is there").is_dir() {
        fs::remove_dir(path).expect("empty");
    } else {
        fs::remove_file(path).expect("removed");
    }
}

#[test]
fn what_is_no_file_closes_its_namespace_at_a_start_and_the_right_file_brings_it_back() {
    for (what, kind, puts) in STRANGE {
        let store = killed("1");
        let right = fs::read(store.file("n")).expect("a file");
        fs::remove_file(store.file("n")).expect("removed");
        if !puts(&store.file("n")) {
            println!("SKIPPED: a {what} cannot be made here");
            continue;
        }
        let (code, findings) = checked(&store);
        assert_eq!((code, kinds(&findings)[0]), (5, kind), "{what}: {findings:#?}");
        let daemon = store.serve();
        store.run(&["scan", "n"]).refused(5, &["namespace n is closed"]);
        store.run(&["put", "n", "c", "1"]).refused(5, &["namespace n is closed"]);
        assert_eq!(store.ok(&["scan", "other"]), other("1"), "{what}: the others are served");
        store.ok(&["flush", "other"]);
        daemon.stop();
        take_away(&store.file("n"));
        fs::write(store.file("n"), &right).expect("put back");
        let daemon = store.serve();
        assert_eq!(store.ok(&["scan", "n"]), both("1"), "{what}");
        daemon.stop();
        let (code, findings) = checked(&store);
        assert_eq!(code, 0, "{what}: {findings:#?}");
    }
}

#[test]
fn what_is_no_file_is_not_replaced_while_the_daemon_runs_and_memory_goes_on() {
    for (what, _, puts) in STRANGE {
        let store = killed("1");
        let daemon = store.serve();
        assert_eq!(store.ok(&["scan", "n"]), both("1"));
        fs::remove_file(store.file("n")).expect("removed");
        if !puts(&store.file("n")) {
            println!("SKIPPED: a {what} cannot be made here");
            continue;
        }
        store.ok(&["put", "n", "b", "1"]);
        let refused = store.run(&["flush", "n"]);
        assert!(refused.code != 0 && refused.stderr.contains("kv_store_n.json"), "{what}: {refused:?}");
        assert_eq!(store.ok(&["scan", "n"]), both("1"), "{what}: reads go on");
        store.ok(&["flush", "other"]);
        take_away(&store.file("n"));
        store.ok(&["flush", "n"]);
        assert!(fs::read_to_string(store.file("n")).expect("a file again").contains("\"b\":1"), "{what}");
        daemon.stop();
    }
}

#[test]
fn what_is_no_file_in_the_place_of_a_segment_is_named() {
    for (what, _, puts) in STRANGE {
        let store = killed("1");
        let newest = segments(&store).pop().expect("a segment");
        let right = fs::read(&newest).expect("bytes");
        fs::remove_file(&newest).expect("removed");
        if !puts(&newest) {
            println!("SKIPPED: a {what} cannot be made here");
            continue;
        }
        let name = newest.file_name().expect("a name").to_str().expect("UTF-8");
        for command in ["serve", "check"] {
            let refused = store.run(&[command]);
            assert!(refused.code > 0 && refused.stderr.contains(name), "{what}, {command}: {refused:?}");
        }
        take_away(&newest);
        fs::write(&newest, right).expect("put back");
        let daemon = store.serve();
        assert_eq!((store.ok(&["scan", "n"]), store.ok(&["scan", "other"])), (both("1"), other("1")), "{what}");
        daemon.stop();
    }
}

#[test]
fn a_file_that_may_not_be_read_is_named_and_read_when_it_may() {
    if rustix::process::geteuid().is_root() {
        println!("SKIPPED: root may read everything; the engine's tests have it on the simulated disk");
        return;
    }
    let store = killed("1");
    fs::set_permissions(store.file("n"), fs::Permissions::from_mode(0o000)).expect("set");
    let (code, findings) = checked(&store);
    assert_eq!((code, kinds(&findings)[0]), (5, "unreadable"), "{findings:#?}");
    fs::set_permissions(store.file("n"), fs::Permissions::from_mode(0o644)).expect("set");
    let daemon = store.serve();
    assert_eq!(store.ok(&["scan", "n"]), both("1"));
    daemon.stop();
}

#[test]
fn torn_and_flipped_files_are_never_served_as_what_they_were() {
    let whole = {
        let store = super::ended("1");
        fs::read(store.file("n")).expect("a file")
    };
    let store = super::ended("1");
    let set_time = |time| {
        let file = fs::File::options().append(true).open(store.file("n")).expect("opened");
        file.set_modified(time).expect("set");
    };
    let time = fs::metadata(store.file("n")).expect("there").modified().expect("a time");
    // As the disk decays: size and time stay. `1` becomes `3`, which is as good JSON.
    let at = whole.iter().position(|byte| *byte == b'1').expect("a one");
    let mut flipped = whole.clone();
    flipped[at] ^= 2;
    fs::write(store.file("n"), &flipped).expect("written");
    set_time(time);
    let (code, findings) = checked(&store);
    assert_eq!((code, kinds(&findings)[0]), (5, "decayed_file"), "{findings:#?}");
    let daemon = store.serve();
    store.run(&["scan", "n"]).refused(5, &["the disk has changed them"]);
    assert_eq!(store.ok(&["scan", "other"]), other("1"));
    daemon.kill();
    // A later start knows it as well.
    let daemon = store.serve();
    store.run(&["scan", "n"]).refused(5, &["the disk has changed them"]);
    assert!(warnings(&store).contains("closed"));
    daemon.kill();
    fs::write(store.file("n"), &whole).expect("written");
    let daemon = store.serve();
    assert_eq!(store.ok(&["scan", "n"]), both("1"));
    daemon.stop();
    assert!(private(&store, "files.json").exists());
}
