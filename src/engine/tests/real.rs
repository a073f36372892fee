//! Promises that only a real file system and real locks can show: inodes and times, what another program's lock does, and
//! what a dead owner's lock file tells.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use commonhold_proto::{Condition, Durability, Place};

use super::rig::{contents, pair};
use crate::engine::{Error, FlushHow, Store, StoreOptions, Surroundings, WriteRequest};
use crate::lock::{FileLocks, Locks};

fn open(directory: &Path) -> Store {
    let options = StoreOptions { flush_lock_timeout: Duration::from_mins(1), ..StoreOptions::default() };
    Store::open(directory, options, Surroundings::real().unwrap()).unwrap()
}

fn place() -> Place {
    Place::new("", "a").unwrap()
}

fn put(store: &Store, key: &str, value: &str) {
    let mut request = WriteRequest::new(7, 1);
    request.put(&store.namespace(&place()).unwrap(), key, value, Condition::Always).unwrap();
    store.write(vec![request]).pop().unwrap().unwrap();
}

fn file(directory: &Path) -> PathBuf {
    directory.join("kv_store_a.json")
}

fn look(path: &Path) -> (u64, i64, i64, Vec<u8>) {
    let found = std::fs::metadata(path).unwrap();
    (found.ino(), found.mtime(), found.mtime_nsec(), std::fs::read(path).unwrap())
}

#[test]
fn a_real_namespace_file_is_untouched_until_flush() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(file(directory.path()), b"{\"k0\": 0}").unwrap();
    let before = look(&file(directory.path()));
    let store = open(directory.path());
    for number in 0..10_000 {
        put(&store, &format!("k{}", number % 100), &number.to_string());
    }
    store.tick().unwrap();
    assert_eq!(look(&file(directory.path())), before);
    store.flush(&place(), FlushHow::default()).unwrap();
    let after = look(&file(directory.path()));
    assert_ne!(after.0, before.0);
    let found: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&after.3).unwrap();
    assert_eq!((found.len(), &found["k99"]), (100, &serde_json::Value::from(9_999)));
}

#[test]
fn a_real_flush_waits_for_a_reader_that_holds_the_files_lock() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    put(&store, "k", "1");
    store.flush(&place(), FlushHow::default()).unwrap();
    put(&store, "k", "2");
    let before = look(&file(directory.path()));
    let lock = directory.path().join(".commonhold/flush/@/a.lock");
    let reader = FileLocks.share(&lock, Duration::ZERO).unwrap();
    let at_once = FlushHow { rewrite: false, lock_timeout: Some(Duration::ZERO) };
    assert!(
        matches!(store.flush(&place(), at_once), Err(Error::FlushLockTimeout { lock_file, .. }) if lock_file == lock)
    );
    assert_eq!(look(&file(directory.path())), before);
    let (done, finished) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| done.send(store.flush(&place(), FlushHow::default())));
        // It cannot end while the reader is there; that it has not, after a while, is what can be seen of it.
        assert!(finished.recv_timeout(Duration::from_millis(60)).is_err());
        assert_eq!(look(&file(directory.path())), before);
        drop(reader);
        assert!(finished.recv_timeout(Duration::from_mins(1)).unwrap().unwrap().rewritten);
    });
    assert_eq!(std::fs::read(file(directory.path())).unwrap(), b"{\n\"k\":2\n}\n");
}

#[test]
fn temporaries_of_the_owner_whose_pid_is_in_the_real_lock_file_are_removed() {
    let directory = tempfile::tempdir().unwrap();
    put(&open(directory.path()), "k", "1");
    let ours = directory.path().join(format!("kv_store_a.json.tmp.{}.1.5", std::process::id()));
    let others = directory.path().join("kv_store_a.json.tmp.1.1.5");
    std::fs::write(&ours, "{").unwrap();
    std::fs::write(&others, "{").unwrap();
    let store = open(directory.path());
    assert_eq!(store.opening().temporaries_removed, [ours]);
    assert!(others.exists());
    assert_eq!(contents(&store.namespace(&place()).unwrap()), [pair("k", "1")]);
}

#[test]
fn a_real_link_in_a_files_place_is_refused_naming_its_target() {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("elsewhere.json");
    std::fs::write(&target, "{}").unwrap();
    std::os::unix::fs::symlink(&target, file(directory.path())).unwrap();
    match open(directory.path()).namespace(&place()) {
        Err(Error::NeedsRepair { reason, .. }) => assert!(reason.contains(target.to_str().unwrap()), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_store_under_a_very_long_path_works() {
    let directory = tempfile::tempdir().unwrap();
    let long = (0..12).fold(directory.path().to_owned(), |path, _| path.join("d".repeat(200)));
    std::fs::create_dir_all(&long).unwrap();
    let store = open(&long);
    put(&store, "k", "1");
    store.flush(&place(), FlushHow::default()).unwrap();
    assert_eq!(std::fs::read(file(&long)).unwrap(), b"{\n\"k\":1\n}\n");
    drop(store);
    let options = StoreOptions { durability: Durability::Synced, ..StoreOptions::default() };
    let again = Store::open(&long, options, Surroundings::real().unwrap()).unwrap();
    assert_eq!(contents(&again.namespace(&place()).unwrap()), [pair("k", "1")]);
}

#[test]
fn a_workspace_that_became_a_link_is_refused_also_when_something_waits_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let (workspace, moved) = (directory.path().join("w"), directory.path().join("moved"));
    let place = Place::new("w", "a").unwrap();
    let put = |store: &Store, key: &str| {
        let mut request = WriteRequest::new(7, 1);
        request.put(&store.namespace(&place).unwrap(), key, "1", Condition::Always).unwrap();
        store.write(vec![request]).pop().unwrap().unwrap();
    };
    let store = open(directory.path());
    put(&store, "k");
    store.flush(&place, FlushHow::default()).unwrap();
    put(&store, "l");
    drop(store);
    std::fs::rename(&workspace, &moved).unwrap();
    std::os::unix::fs::symlink(&moved, &workspace).unwrap();
    match open(directory.path()).namespace(&place) {
        Err(Error::NeedsRepair { reason, .. }) => {
            assert!(reason.contains(&format!("its workspace is a symbolic link to {}", moved.display())), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    std::fs::remove_file(&workspace).unwrap();
    std::fs::rename(&moved, &workspace).unwrap();
    let store = open(directory.path());
    assert_eq!(contents(&store.namespace(&place).unwrap()), [pair("k", "1"), pair("l", "1")], "nothing was lost");
}

/// A store with a flushed namespace of workspace `w`, and the place of it.
fn with_a_workspace(directory: &Path) -> (Store, Place) {
    let place = Place::new("w", "a").unwrap();
    let store = open(directory);
    put_to(&store, &place, "1");
    store.flush(&place, FlushHow::default()).unwrap();
    (store, place)
}

fn put_to(store: &Store, place: &Place, value: &str) {
    let mut request = WriteRequest::new(7, 1);
    request.put(&store.namespace(place).unwrap(), "k", value, Condition::Always).unwrap();
    store.write(vec![request]).pop().unwrap().unwrap();
}

#[test]
fn a_workspace_that_becomes_a_link_under_the_store_is_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    let (workspace, other) = (directory.path().join("w"), directory.path().join("other"));
    let theirs = other.join("kv_store_a.json");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(&theirs, r#"{"a":"of other"}"#).unwrap();
    let (store, place) = with_a_workspace(directory.path());
    std::fs::remove_dir_all(&workspace).unwrap();
    std::os::unix::fs::symlink("other", &workspace).unwrap();
    let flush = |rewrite| store.flush(&place, FlushHow { rewrite, lock_timeout: None });
    for dirty in [false, true] {
        if dirty {
            put_to(&store, &place, "2");
        }
        let error = flush(true).unwrap_err().to_string();
        assert!(error.contains("/w is a symbolic link to other"), "{error}");
    }
    // A drop leaves it, too.
    store.drop_namespace(&place).unwrap();
    assert!(matches!(flush(false), Err(Error::InTheWay { .. })));
    put_to(&store, &place, "3");
    assert!(matches!(flush(false), Err(Error::InTheWay { .. })));
    assert_eq!(std::fs::read_dir(&other).unwrap().count(), 1, "nothing is left there");
    assert_eq!(std::fs::read_to_string(&theirs).unwrap(), r#"{"a":"of other"}"#);
    // The write is in the journal, and reaches its own file when the link is gone.
    std::fs::remove_file(&workspace).unwrap();
    flush(false).unwrap();
    assert_eq!(std::fs::read_to_string(workspace.join("kv_store_a.json")).unwrap(), "{\n\"k\":3\n}\n");
}
