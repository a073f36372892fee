//! Starts on a full disk: the store opens, serves reads, says how much room it needs, and takes writes as soon as there is
//! some. At every call of that the process may die.

use commonhold_proto::Durability;

use super::rig::{Rig, file, options, pair};
use crate::engine::Error;
use crate::engine::disk::Rules;

/// A store with a flushed namespace and records that wait, whose owner is gone; some of it is not synced.
fn left_behind(durability: Durability) -> Rig {
    let rig = Rig::new(options(durability)).opened();
    rig.put("a", "k", "1");
    rig.flush("a").unwrap();
    rig.put("a", "k2", "2");
    rig.commit().unwrap();
    rig.put("b", "k", "3");
    rig.killed_and_closed()
}

fn check_reads(rig: &Rig) {
    assert_eq!(rig.all("a"), [pair("k", "1"), pair("k2", "2")]);
    assert_eq!(rig.all("b"), [pair("k", "3")]);
}

#[test]
fn a_store_on_a_full_disk_opens_serves_reads_and_takes_writes_when_there_is_room() {
    for durability in [Durability::Buffered, Durability::Synced] {
        let mut rig = left_behind(durability);
        rig.disk.set_room(0);
        rig.disk.write_file(file("foreign"), b"{\"k\": 4}");
        let before = rig.files();
        for _ in 0..3 {
            rig.try_open().unwrap();
            check_reads(&rig);
            assert_eq!(rig.all("foreign"), [pair("k", "4")]);
            for refused in [rig.try_put("a", "k3", "3"), rig.try_put("new", "k", "3")] {
                assert!(
                    matches!(refused, Err(Error::NoRoomToBegin { needed: 100..10_000, free: Some(0), .. })),
                    "{refused:?}"
                );
            }
            assert!(matches!(rig.flush("b"), Err(Error::Full { .. } | Error::NoRoomToBegin { .. })));
            assert!(rig.drop_records("a").is_err());
            assert!(matches!(rig.store().tick(), Err(Error::NoRoomToBegin { .. })));
            assert!(rig.store().waits_for_room().unwrap().contains("bytes there to begin"));
            assert_eq!(rig.store().refuses_writes(), None, "it is not for good");
            assert_eq!(rig.store().stats().segments, 1);
            rig.commit().unwrap();
            rig.close();
            assert_eq!(rig.files(), before, "nothing was changed");
        }
        rig.try_open().unwrap();
        check_reads(&rig);
        rig.disk.set_room(u64::MAX);
        rig.store().tick().unwrap();
        assert_eq!(rig.store().waits_for_room(), None);
        check_reads(&rig);
        rig.put("a", "k3", "3");
        rig.flush("a").unwrap();
        rig.put("a", "k4", "4");
        rig.commit().unwrap();
        for seed in (0..20).map(Some).chain([None]) {
            let disk = seed.map_or_else(|| rig.disk.kill(), |seed| rig.disk.power_cut(seed, Rules::any(seed)));
            let found = Rig::on(disk, rig.options.clone()).opened();
            assert!(found.store().opening().closed.is_empty());
            assert_eq!(found.all("a").len(), 4);
            assert_eq!(found.all("b"), [pair("k", "3")]);
        }
    }
}

#[test]
fn a_new_store_on_a_full_disk_takes_writes_when_there_is_room() {
    let mut rig = Rig::new(options(Durability::Buffered));
    rig.disk.write_file(file("a"), b"{\"k\": 1}");
    rig.disk.set_room(0);
    rig.try_open().unwrap();
    assert_eq!(rig.all("a"), [pair("k", "1")]);
    assert!(matches!(rig.try_put("a", "k", "2"), Err(Error::NoRoomToBegin { .. })));
    assert_eq!(rig.store().stats().segments, 0);
    rig.disk.set_room(u64::MAX);
    rig.store().tick().unwrap();
    rig.put("a", "k", "2");
    assert_eq!(rig.killed().all("a"), [pair("k", "2")]);
}

#[test]
fn what_an_earlier_owner_had_set_aside_is_room_for_the_next_start() {
    let mut rig = Rig::new(options(Durability::Buffered));
    rig.options.room_bytes = 16 << 10;
    let rig = rig.opened();
    rig.put("a", "k", "1");
    let rig = rig.killed_and_closed();
    rig.disk.set_room(rig.files().iter().map(|(_, bytes)| bytes.len() as u64).sum());
    let rig = rig.opened();
    assert_eq!(rig.store().waits_for_room(), None);
    rig.put("a", "k", "2");
    assert_eq!(rig.killed().all("a"), [pair("k", "2")]);
}

#[test]
fn seqs_go_on_above_all_that_were_given_while_there_was_no_room() {
    let mut rig = left_behind(Durability::Buffered);
    rig.disk.set_room(0);
    rig.disk.write_file(file("foreign"), b"{\"k\": 4}");
    rig.try_open().unwrap();
    let loaded = rig.table("foreign").get("k").unwrap().seq();
    rig.disk.set_room(u64::MAX);
    rig.store().tick().unwrap();
    let written = rig.put("foreign", "k", "5");
    assert!(written > loaded, "{written} after {loaded}");
    rig.flush("foreign").unwrap();
    assert_eq!(rig.killed().all("foreign"), [pair("k", "5")]);
}

#[test]
fn at_every_call_of_a_late_beginning_the_process_may_die() {
    let mut calls = 0;
    loop {
        calls += 1;
        let mut rig = left_behind(Durability::Buffered);
        rig.disk.set_room(0);
        rig.try_open().unwrap();
        rig.disk.set_room(u64::MAX);
        rig.disk.crash_after(calls);
        let _ = rig.store().tick();
        let put = rig.try_put("b", "k", "3").is_ok();
        let through = !rig.disk.is_dead();
        assert!(!through || put);
        for seed in (0..10).map(Some).chain([None]) {
            let disk = seed.map_or_else(|| rig.disk.kill(), |seed| rig.disk.power_cut(seed, Rules::any(seed)));
            // The start on the full disk has synced what it served.
            check_reads(&Rig::on(disk, rig.options.clone()).opened());
        }
        if through {
            assert!(calls > 10, "{calls}");
            return;
        }
    }
}

#[test]
fn a_disk_that_fails_while_the_journal_begins_late_leaves_the_store_waiting() {
    use crate::engine::disk::{Call, FailWith, Failure};
    for call in [Call::Create, Call::Write, Call::Rename, Call::Read, Call::List, Call::Sync] {
        let mut rig = left_behind(Durability::Buffered);
        rig.disk.set_room(0);
        rig.try_open().unwrap();
        rig.disk.set_room(u64::MAX);
        rig.disk.fail(Failure::nth(1, FailWith::Io).of(call));
        assert!(rig.store().tick().is_err(), "{call:?}");
        check_reads(&rig);
        assert!(rig.try_put("a", "k", "1").is_err());
        rig.store().tick().unwrap();
        check_reads(&rig);
        rig.put("b", "k", "3");
        check_reads(&rig.killed());
    }
}
