//! Parts of `.commonhold` deleted, while no daemon runs and under a running one.

use std::fs;
use std::thread;
use std::time::Duration;

use commonhold::blocking::{Client, ConnectOptions};
use serde_json::Value;

use super::common::wait_for;
use super::{both, checked, ended, killed, kinds, lived, other, private, segments, warnings};

#[test]
fn without_commonhold_a_store_that_ended_in_order_has_everything() {
    let store = ended("1");
    fs::remove_dir_all(private(&store, "")).expect("removed");
    assert_eq!(checked(&store).0, 0);
    let daemon = store.serve();
    assert_eq!((store.ok(&["scan", "n"]), store.ok(&["scan", "other"])), (both("1"), other("1")));
    daemon.stop();
}

#[test]
fn without_its_journal_a_killed_store_has_what_its_files_hold_and_says_what_is_lost() {
    let store = killed("1");
    fs::remove_dir_all(private(&store, "journal")).expect("removed");
    let (code, findings) = checked(&store);
    assert_eq!((code, kinds(&findings)[0]), (5, "journal_gone"), "{findings:#?}");
    let daemon = store.serve();
    assert_eq!(store.ok(&["scan", "n"]), "{\"key\":\"a\",\"value\":1}\n", "what its file holds");
    assert!(warnings(&store).contains("the journal of an earlier owner was gone at the start"));
    daemon.stop();
    let (code, findings) = checked(&store);
    assert_eq!((code, kinds(&findings)[0]), (0, "journal_lost"), "{findings:#?}");
}

/// A client that is connected before anything is deleted.
fn connected(store: &super::Store) -> Client {
    Client::connect_with(store.dir(), ConnectOptions::new().timeout(Some(Duration::from_secs(20)))).expect("connected")
}

fn status(client: &Client) -> Value {
    serde_json::from_str(&client.status().expect("a status")).expect("JSON")
}

#[test]
fn with_commonhold_deleted_under_it_a_daemon_reads_on_writes_no_more_and_says_so() {
    let (store, daemon) = lived("1");
    let client = connected(&store);
    let n = client.namespace("n");
    let n = n.expect("opened");
    fs::remove_dir_all(private(&store, "")).expect("removed");
    wait_for("writing ends", || status(&client)["refuses_writes"].as_str().map(str::to_owned));
    let told = status(&client)["refuses_writes"].as_str().expect("a reason").to_owned();
    assert!(told.contains("deleted or replaced the lock file"), "{told}");
    assert!(n.put_raw("c", "1").is_err(), "no write is taken that nothing keeps");
    assert_eq!(n.get_raw("b").expect("read").expect("there").text(), "1", "reads go on");
    let pid = i32::try_from(daemon.pid()).expect("a pid");
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).expect("a pid"), rustix::process::Signal::TERM)
        .expect("sent");
    assert_eq!(daemon.ended().code(), Some(7), "whoever looks at the exit code learns of it");
}

#[test]
fn a_segment_or_the_whole_journal_deleted_under_a_daemon_ends_writing_and_memory_is_brought_into_the_files() {
    for whole in [false, true] {
        let (store, daemon) = lived("1");
        let client = connected(&store);
        if whole {
            fs::remove_dir_all(private(&store, "journal")).expect("removed");
        } else {
            fs::remove_file(segments(&store).pop().expect("a segment")).expect("removed");
        }
        let told = wait_for("the rescue is told", || {
            let told = status(&client)["refuses_writes"].as_str()?.to_owned();
            told.contains("every file holds what is in memory").then_some(told)
        });
        assert!(told.contains(".log was deleted or replaced"), "{told}");
        daemon.kill();
        let (code, findings) = checked(&store);
        assert_eq!(code, 0, "{findings:#?}");
        let daemon = store.serve();
        assert_eq!((store.ok(&["scan", "n"]), store.ok(&["scan", "other"])), (both("1"), other("1")));
        store.ok(&["put", "n", "b", "1"]);
        daemon.stop();
    }
}

#[test]
fn a_socket_that_is_deleted_costs_new_connections_and_nothing_else() {
    let (store, daemon) = lived("1");
    let client = connected(&store);
    fs::remove_file(private(&store, "socket")).expect("removed");
    assert_ne!(store.run(&["scan", "n"]).code, 0, "nobody can come in");
    let n = client.namespace("n").expect("opened");
    n.put_raw("c", "2").expect("those who are in go on");
    store.run(&["serve"]).refused(4, &[&format!("pid {}", daemon.pid())]);
    let pid = i32::try_from(daemon.pid()).expect("a pid");
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).expect("a pid"), rustix::process::Signal::TERM)
        .expect("sent");
    assert!(daemon.ended().success());
    let daemon = store.serve();
    assert_eq!(store.ok(&["get", "n", "c"]).trim(), "2");
    daemon.stop();
}

#[test]
fn kept_files_quarantine_and_flush_locks_can_be_deleted_under_a_daemon() {
    let (store, daemon) = lived("1");
    for room in ["generations", "flush", "quarantine", "files.json"] {
        let path = private(&store, room);
        if path.is_dir() {
            fs::remove_dir_all(path).expect("removed");
        }
    }
    for round in 0..3 {
        store.ok(&["put", "n", "b", "1"]);
        assert_eq!(store.run(&["flush"]).code, 0, "round {round}");
        thread::yield_now();
    }
    daemon.stop();
    let (code, findings) = checked(&store);
    assert_eq!(code, 0, "{findings:#?}");
    assert!(fs::read_to_string(store.file("n")).expect("a file").contains("\"b\":1"));
}
