//! A store that is opened to be read: it gives what a start would give, and leaves the disk as it is.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use commonhold_proto::{Condition, Durability, Seq};

use super::rig::{DIR, Rig, contents, file, options, pair, place};
use crate::engine::clock::SystemClock;
use crate::engine::disk::{Call, Rules};
use crate::engine::{Error, FlushHow, Store, Surroundings, WriteRequest};

/// Opens the store of `rig`, which is closed, to be read.
fn read_only(rig: &Rig) -> Result<Store, Error> {
    let around = Surroundings {
        disk: Arc::new(rig.disk.clone()),
        locks: Arc::new(rig.locks.clone()),
        clock: Arc::new(SystemClock::new()),
        entropy: 43,
    };
    Store::open_read_only(Path::new(DIR), around)
}

fn journal(name: &str) -> PathBuf {
    Path::new(DIR).join(".commonhold/journal").join(name)
}

/// What the namespaces of a store hold, with the versions of their records, or why they are closed.
fn everything(store: &Store, names: &[&str]) -> Vec<String> {
    let told = |name: &&str| match store.namespace(&place(name)) {
        Ok(table) => {
            let seqs: Vec<_> = contents(&table).iter().filter_map(|(key, _)| table.get(key)).map(|r| r.seq()).collect();
            format!("{name}: {:?} {seqs:?} {} {}", contents(&table), table.last(), table.covered())
        }
        Err(error) => format!("{name}: {error}"),
    };
    let mut all: Vec<_> = names.iter().map(told).collect();
    all.extend(store.namespaces().unwrap().iter().map(|info| format!("{info:?}")));
    all.push(format!("{:?} {:?}", store.opening().recovered, store.opening().closed));
    all
}

/// Reads the closed store of `rig`, sees that nothing was changed by it, and that a start on a copy gives the same.
fn gives_what_a_start_gives(rig: &Rig, names: &[&str], what: &str) {
    let before = rig.files();
    rig.disk.trace();
    let store = read_only(rig).unwrap_or_else(|error| panic!("{what}: {error}"));
    let found = everything(&store, names);
    drop(store);
    let trace = rig.disk.take_trace();
    let reads = |call| matches!(call, Call::Open | Call::Read | Call::List | Call::Stat | Call::ReadLink);
    let changes: Vec<_> = trace.iter().filter(|(call, _)| !reads(*call)).collect();
    assert!(!trace.is_empty() && changes.is_empty(), "{what}: {changes:?}");
    assert!(rig.files() == before, "{what}: a file was changed");
    let started = Rig::on(rig.disk.kill(), rig.options.clone()).opened();
    assert_eq!(found, everything(started.store(), names), "{what}");
}

/// A killed owner's store with all that an owner can leave.
fn left_behind() -> Rig {
    let mut rig = Rig::new(options(Durability::Buffered));
    rig.options.segment_bytes = 600;
    rig.disk.write_file(file("foreign"), b"{\"f\": 1.0}");
    let rig = rig.opened();
    for number in 0..20 {
        rig.put("a", &format!("k{number}"), "1");
        rig.put("w/a", &format!("k{number}"), "2");
    }
    rig.flush("a").unwrap();
    rig.put("a", "k0", "3");
    rig.delete("a", "k1");
    rig.put("only_journal", "x", "1");
    rig.put("torn", "x", "1");
    rig.commit().unwrap();
    let rig = rig.killed();
    rig.put("a", "unsynced", "1");
    let rig = rig.killed_and_closed();
    // Nothing was synced after the last record, so cutting into it leaves a tail.
    let last = rig.segments().pop().unwrap();
    let bytes = rig.disk.read_file(&last).len() as u64;
    rig.disk.truncate_file(&last, bytes - 3);
    rig.disk.write_file(journal("00000099.log.new"), b"begun");
    rig.disk.write_file(file("a").with_extension("json.tmp.1.2.3"), b"{");
    rig.disk.write_file(file("torn"), b"{\"x\"");
    assert!(!rig.disk.exists(Path::new(DIR).join("w")), "the workspace never had a file");
    rig
}

const NAMES: [&str; 6] = ["a", "w/a", "only_journal", "torn", "foreign", "nothing"];

#[test]
fn opening_read_only_changes_nothing_on_the_disk() {
    let rig = left_behind();
    gives_what_a_start_gives(&rig, &NAMES, "left behind");
    let store = read_only(&rig).unwrap();
    assert_eq!(store.namespace(&place("w/a")).unwrap().len(), 20);
    assert!(store.namespace(&place("a")).unwrap().get("unsynced").is_none(), "the tail is not read");
    drop(store);
    // The start that comes later finds all of it.
    let started = rig.opened();
    assert!(started.store().opening().set_aside.is_some());
}

#[test]
fn opening_read_only_leaves_a_directory_without_commonhold_without_one() {
    let rig = Rig::new(options(Durability::Buffered));
    rig.disk.write_file(file("a"), b"{\"k\": 1.10}");
    gives_what_a_start_gives(&rig, &["a", "b", "w/c"], "never served");
    assert_eq!(rig.disk.names(DIR), ["kv_store_a.json"]);
    // An owner may have died before it had a journal.
    rig.disk.make_dirs(Path::new(DIR).join(".commonhold"));
    gives_what_a_start_gives(&rig, &["a", "b", "w/c"], "no journal yet");
    assert_eq!(rig.disk.names(Path::new(DIR).join(".commonhold")).len(), 0);
}

#[test]
fn reading_gives_what_a_start_gives_wherever_the_owner_died() {
    let mut calls = 0;
    loop {
        calls += 1;
        let mut rig = Rig::new(options(Durability::Buffered));
        rig.options.segment_bytes = 400;
        rig.try_open().unwrap();
        rig.put("a", "k", "0");
        rig.put("b", "k", "0");
        rig.commit().unwrap();
        let mut rig = rig.killed();
        rig.disk.crash_after(calls);
        for number in 0..4 {
            // What the crash refuses is refused; what counts is what is found afterwards.
            let _ = rig.write(|request, table| {
                request.put(&table("a"), "k", &number.to_string(), Condition::Always).unwrap();
            });
            let _ = rig.flush("a").and_then(|_| rig.store().tick());
            let _ = rig.write(|request, table| {
                request.put(&table("b"), &format!("k{number}"), "1", Condition::Always).unwrap();
            });
        }
        rig.close();
        let came_through = !rig.disk.is_dead();
        let found = |disk| Rig::on(disk, rig.options.clone());
        gives_what_a_start_gives(&found(rig.disk.kill()), &["a", "b"], &format!("killed in call {calls}"));
        for seed in 0..8 {
            let disk = rig.disk.power_cut(seed, Rules::any(seed));
            gives_what_a_start_gives(&found(disk), &["a", "b"], &format!("power cut {seed} in call {calls}"));
        }
        if came_through {
            break;
        }
    }
    assert!(calls > 40, "the scenario has crash points: {calls}");
}

#[test]
fn an_older_file_put_back_is_read_as_a_start_would() {
    let rig = Rig::buffered();
    let mut kept = Vec::new();
    for number in 0..3 {
        rig.put("a", "k", &number.to_string());
        rig.flush("a").unwrap();
        kept.push(rig.disk.read_file(file("a")));
    }
    rig.put("a", "l", "1");
    let rig = rig.killed();
    rig.put("a", "m", "1");
    let mut rig = rig.killed_and_closed();
    for waits in [true, false] {
        for bytes in &kept {
            let older = Rig::on(rig.disk.kill(), rig.options.clone());
            older.disk.write_file(file("a"), bytes);
            gives_what_a_start_gives(&older, &["a"], &format!("waits: {waits}"));
        }
        rig = rig.opened();
        rig.flush("a").unwrap();
        rig.commit().unwrap();
        rig = rig.killed_and_closed();
    }
}

#[test]
fn a_store_that_is_read_refuses_to_write_to_flush_and_to_sync() {
    let rig = left_behind();
    let before = rig.files();
    let store = read_only(&rig).unwrap();
    let refused = |outcome: Result<Seq, Error>| match outcome {
        Err(Error::Unavailable { reason }) => assert_eq!(reason, "the store was opened read-only"),
        other => panic!("{other:?}"),
    };
    for name in ["a", "foreign", "nothing"] {
        let mut request = WriteRequest::new(7, 1);
        request.put(&store.namespace(&place(name)).unwrap(), "k", "1", Condition::Always).unwrap();
        refused(store.write(vec![request]).pop().unwrap().map(|written| written.seq));
        for rewrite in [false, true] {
            let how = FlushHow { rewrite, lock_timeout: Some(Duration::ZERO) };
            refused(store.flush(&place(name), how).map(|flushed| flushed.cut));
        }
    }
    refused(store.sync_through(store.applied()));
    refused(store.sync_through(Seq::ZERO));
    refused(store.tick().map(|()| Seq::ZERO));
    assert!(store.refuses_writes().is_some());
    assert_eq!(store.namespace(&place("foreign")).unwrap().len(), 1, "reads go on");
    assert!(store.stats().segments > 0);
    drop(store);
    assert!(rig.files() == before);
}

#[test]
fn damage_is_told_to_who_only_reads_and_nothing_is_changed() {
    let rig = Rig::synced();
    for number in 0..5 {
        rig.put("a", &format!("k{number}"), "1");
    }
    let mut rig = rig.killed_and_closed();
    let segment = rig.segments().pop().unwrap();
    let middle = rig.disk.read_file(&segment).len() as u64 / 2;
    rig.disk.flip_bit(&segment, middle, 3);
    let before = rig.files();
    let Err(told) = read_only(&rig) else { panic!("a damaged journal is not read") };
    assert!(matches!(told, Error::Damage { .. }), "{told:?}");
    assert!(rig.files() == before);
    assert_eq!(told.to_string(), rig.refused().to_string());
}

#[test]
fn there_is_one_owner_also_of_a_store_that_is_read() {
    let mut rig = Rig::buffered();
    rig.put("a", "k", "1");
    let Err(Error::Owned { holder, .. }) = read_only(&rig) else { panic!("the owner's store is read") };
    assert!(holder.is_some(), "the owner is named");
    rig.close();
    let reader = read_only(&rig).unwrap();
    assert!(matches!(rig.refused(), Error::Owned { .. }));
    assert!(matches!(read_only(&rig), Err(Error::Owned { .. })));
    drop(reader);
    assert_eq!(rig.opened().all("a"), [pair("k", "1")]);
}
