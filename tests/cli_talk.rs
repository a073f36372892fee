//! What the commands say is true, names what it is about, and says what to do.

mod common;

use std::fs;
use std::path::Path;

use common::Store;

#[test]
fn a_stop_names_the_namespaces_whose_files_it_left_alone() {
    let store = Store::new();
    let daemon = store.serve();
    store.ok(&["put", "torn", "a", "1"]);
    store.ok(&["flush"]);
    store.ok(&["put", "torn", "waits", "2"]);
    daemon.kill();
    let whole = fs::read(store.file("torn")).expect("there");
    fs::write(store.file("torn"), &whole[..5]).expect("torn");

    let daemon = store.serve();
    store.ok(&["put", "open", "a", "1"]);
    let stop = store.run(&["stop"]);
    assert_eq!(stop.code, 0, "{stop:?}");
    assert!(stop.stderr.contains("left alone: torn"), "{stop:?}");
    assert!(daemon.log().contains("left alone"), "{}", daemon.log());
    assert!(daemon.ended().success());
    assert_eq!(fs::read(store.file("torn")).expect("there"), &whole[..5], "the damaged file is as it was");

    fs::write(store.file("torn"), whole).expect("put back");
    let daemon = store.serve();
    assert_eq!(store.ok(&["get", "torn", "waits"]), "2\n", "what waited is there with the right file");
    assert_eq!(store.ok(&["--json", "stop"]), format!("{{\"closed\":[],\"pid\":{},\"stopped\":true}}\n", daemon.pid()));
}

#[test]
fn a_refused_condition_names_the_record_and_what_is_there() {
    let store = Store::new();
    let _daemon = store.serve();
    store.ok(&["put", "n", "k", "1"]);
    store
        .run(&["put", "n", "k", "2", "--if-absent"])
        .refused(4, &["n \"k\" has a record, written by seq", "--if-absent"]);
    store.run(&["put", "n", "none", "2", "--if-seq", "7"]).refused(4, &["n \"none\" has no record", "--if-seq"]);
    assert_eq!(store.ok(&["scan", "n"]), "{\"key\":\"k\",\"value\":1}\n");
}

#[test]
fn status_says_that_all_is_on_the_platter_when_it_is() {
    let store = Store::new();
    let daemon = store.serve();
    store.ok(&["put", "n", "k", "1"]);
    store.ok(&["commit"]);
    let numbers = |told: &str| {
        let told: serde_json::Value = serde_json::from_str(told).expect("JSON");
        (told["seq"]["applied"].as_u64().expect("number"), told["seq"]["synced"].as_u64().expect("number"))
    };
    let (applied, synced) = numbers(&store.ok(&["--json", "status"]));
    assert_eq!(applied, synced);
    store.ok(&["flush"]);
    let (applied, synced) = numbers(&store.ok(&["--json", "status"]));
    assert_eq!(applied, synced, "what a flush writes into the journal is no write");
    daemon.kill();
    let _daemon = store.serve();
    let (applied, synced) = numbers(&store.ok(&["--json", "status"]));
    assert_eq!(applied, synced, "a start answers only when all it found is on the platter");
}

#[test]
fn one_thing_is_told_as_one() {
    let store = Store::new();
    fs::write(store.file("torn"), "{").expect("written");
    let _daemon = store.serve();
    let put = store.run(&["put", "n", "k", "\"\\ud800\""]);
    assert!(put.stderr.contains("1 lone surrogate was removed"), "{put:?}");
    store.run(&["get", "torn", "k"]).refused(5, &["kv_store_torn.json"]);
    assert!(store.ok(&["status"]).contains("1 namespace is closed: "));
}

#[test]
fn a_lock_file_that_cannot_be_used_refuses_the_start_and_says_where_and_what_to_do() {
    let store = Store::new();
    store.serve().stop();
    let lock = store.dir().join(".commonhold/owner.lock");
    fs::remove_file(&lock).expect("removed");
    std::os::unix::fs::symlink(Path::new("/dev/null"), &lock).expect("linked");
    for command in [&["serve"][..], &["export", "n", "-"]] {
        let ran = store.run(command);
        ran.refused(4, &["owner.lock is a symbolic link to /dev/null", "remove the link"]);
        assert!(!ran.stderr.contains("reads go on"), "nothing was started: {ran:?}");
    }
}
