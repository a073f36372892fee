//! Starts on a full disk: the store opens, serves reads, says how much room it needs, and takes writes as soon as there is
//! some. At every call of that the process may die.

use std::path::Path;

use commonhold_proto::{Condition, Durability, Seq};

use super::rig::{DIR, Rig, file, options, pair};
use crate::engine::disk::Rules;
use crate::engine::{Earlier, Error, WriteRequest};

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

const ROOM: u64 = 16 << 10;

/// A store whose disk ran full, and whose owner was killed then. All of it had been synced, and no record was written since that
/// would tell: a start would copy it, which needs more room than the journal has kept.
fn killed_on_a_full_disk() -> Rig {
    let mut rig = Rig::new(options(Durability::Buffered));
    rig.options.room_bytes = ROOM;
    let rig = rig.opened();
    let value = format!("\"{}\"", "x".repeat(500));
    for key in 0..40 {
        rig.put("a", &format!("k{key}"), &value);
    }
    fill(&rig);
    let mut key = 40;
    loop {
        match rig.try_put("a", &format!("k{key}"), &value) {
            Ok(_) => key += 1,
            Err(Error::Full { .. }) => break,
            Err(other) => panic!("{other:?}"),
        }
    }
    rig.commit().unwrap();
    assert!(rig.store().is_disk_full());
    let rig = rig.killed_and_closed();
    fill(&rig);
    rig
}

/// All that is free from now on is what the store itself gives back.
fn fill(rig: &Rig) {
    rig.disk.set_room(rig.files().iter().map(|(_, bytes)| bytes.len() as u64).sum());
}

#[test]
fn who_was_killed_on_a_full_disk_starts_there_and_takes_deletes_and_clears() {
    let rig = killed_on_a_full_disk().opened();
    let store = rig.store();
    assert_eq!((store.waits_for_room(), store.opening().copied_records), (None, 0), "a header needs little room");
    assert!(store.is_disk_full());
    let before = rig.all("a");
    assert!(before.len() > 40);
    let large = format!("\"{}\"", "x".repeat(5_000));
    assert!(matches!(rig.try_put("a", "new", &large), Err(Error::Full { .. })));
    for tick in 0..3 {
        store.tick().unwrap();
        assert!(store.is_disk_full(), "as long as that would be refused, tick {tick}");
    }
    for key in ["k0", "k1", "k2"] {
        assert_eq!(rig.delete("a", key).found, 1);
    }
    rig.commit().unwrap();
    assert_eq!(rig.killed_copy().all("a"), before[3..]);
    assert_eq!(rig.clear("a").found, before.len() as u64 - 3);
    rig.commit().unwrap();
    rig.disk.set_room(u64::MAX);
    store.tick().unwrap();
    assert!(!store.is_disk_full());
    rig.put("a", "new", &large);
    rig.commit().unwrap();
    for seed in (0..20).map(Some).chain([None]) {
        let disk = seed.map_or_else(|| rig.disk.kill(), |seed| rig.disk.power_cut(seed, Rules::any(seed)));
        let found = Rig::on(disk, rig.options.clone()).opened();
        assert_eq!(found.all("a"), [pair("new", &large)]);
    }
}

#[test]
fn a_start_for_which_there_is_just_room_gives_back_what_was_set_aside_and_takes_deletes() {
    let mut rig = Rig::new(options(Durability::Buffered));
    rig.options.room_bytes = ROOM;
    let rig = rig.opened();
    for key in ["k1", "k2", "k3"] {
        rig.put("a", key, "1");
    }
    rig.commit().unwrap();
    rig.put("a", "dirty", "1");
    rig.commit().unwrap();
    let mut rig = rig.killed_and_closed();
    let taken = |rig: &Rig| rig.files().iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
    let before = taken(&rig);
    // As much as the next segment's header and the copied record need, and no record more.
    let mut spare = 0;
    loop {
        let disk = rig.disk.kill();
        disk.set_room(before + spare);
        let mut tried = Rig::on(disk, rig.options.clone());
        tried.options.room_bytes = 0;
        tried.try_open().unwrap();
        if tried.store().waits_for_room().is_none() && tried.store().opening().copied_records > 0 {
            break;
        }
        spare += 8;
        assert!(spare < ROOM, "a header needs less");
    }
    for more in [0, 8, 64] {
        let mut rig = Rig::on(rig.disk.kill(), rig.options.clone());
        rig.disk.set_room(before + spare + more);
        rig.try_open().unwrap();
        assert_eq!(rig.store().waits_for_room(), None);
        assert_eq!(rig.delete("a", "k1").found, 1);
        assert_eq!(rig.clear("a").found, 3);
        rig.commit().unwrap();
    }
    // And where there is room, too: the next segment has its own.
    rig.disk.set_room(u64::MAX);
    rig.try_open().unwrap();
    assert!(taken(&rig) < before + ROOM / 2, "{} of {before}", taken(&rig));
}

#[test]
fn a_start_on_a_full_disk_may_be_crashed_at_every_call() {
    let expected = killed_on_a_full_disk().opened().all("a");
    let mut calls = 0;
    loop {
        calls += 1;
        let mut rig = killed_on_a_full_disk();
        rig.disk.crash_after(calls);
        let through = rig.try_open().is_ok() && !rig.disk.is_dead();
        for seed in (0..10).map(Some).chain([None]) {
            let disk = seed.map_or_else(|| rig.disk.kill(), |seed| rig.disk.power_cut(seed, Rules::any(seed)));
            let found = Rig::on(disk, rig.options.clone()).opened();
            assert_eq!(found.all("a"), expected, "call {calls}, power cut {seed:?}");
        }
        if through {
            assert!(calls > 10, "{calls}");
            return;
        }
    }
}

#[test]
fn what_became_of_clients_writes_is_known_when_the_journal_begins_late() {
    let send = |rig: &Rig, earlier| {
        let mut request = WriteRequest::new(70, 1);
        request.once(1, earlier);
        request.put(&rig.table("c"), "k", "1", Condition::IfAbsent).unwrap();
        rig.store().write(vec![request]).pop().unwrap()
    };
    let rig = Rig::new(options(Durability::Buffered)).opened();
    let first = send(&rig, None).unwrap();
    let mut rig = rig.killed_and_closed();
    rig.disk.set_room(0);
    rig.try_open().unwrap();
    assert!(rig.store().waits_for_room().is_some());
    rig.disk.set_room(u64::MAX);
    rig.store().tick().unwrap();
    assert_eq!(rig.store().waits_for_room(), None);
    let again = Some(Earlier { boot: 1, after: Seq::ZERO });
    assert_eq!(send(&rig, again).unwrap(), first);
    assert_eq!(send(&rig.killed(), again).unwrap(), first, "the new segment has them, too");
}

/// What a real owner leaves in its lock file; the simulated locks have no files.
fn owner_was_here(rig: &Rig) {
    rig.disk.write_file(Path::new(DIR).join(".commonhold/owner.lock"), b"{\"pid\":1,\"since_unix_ms\":1}\n");
}

#[test]
fn a_journal_that_was_never_begun_is_not_taken_for_lost_and_one_that_is_gone_is() {
    let journal = |rig: &Rig| rig.disk.names(Path::new(DIR).join(".commonhold/journal"));
    // The first owner dies at every call: before its name is in the lock file there is a mark, and then a segment.
    let mut calls = 0;
    loop {
        calls += 1;
        let mut rig = Rig::new(options(Durability::Buffered));
        rig.disk.crash_after(calls);
        let through = rig.try_open().is_ok() && !rig.disk.is_dead();
        for seed in (0..10).map(Some).chain([None]) {
            let disk = seed.map_or_else(|| rig.disk.kill(), |seed| rig.disk.power_cut(seed, Rules::any(seed)));
            let mut found = Rig::on(disk, rig.options.clone());
            if found.disk.names(DIR).contains(&".commonhold".to_owned())
                && found.disk.names(Path::new(DIR).join(".commonhold")).contains(&"journal".to_owned())
                && !journal(&found).is_empty()
            {
                owner_was_here(&found);
            }
            found.try_open().unwrap();
            assert!(!found.store().opening().journal_is_gone, "call {calls}, power cut {seed:?}");
            assert!(
                !journal(&found).iter().any(|name| name.strip_suffix(".new").is_some()),
                "call {calls}, power cut {seed:?}"
            );
        }
        if through {
            assert!(calls > 5, "{calls}");
            break;
        }
    }
    // The first owner finds no room, and dies.
    let mut rig = Rig::new(options(Durability::Buffered));
    rig.disk.set_room(0);
    rig.try_open().unwrap();
    rig.disk.set_room(u64::MAX);
    owner_was_here(&rig);
    let mut rig = rig.killed_and_closed();
    for room in [0, u64::MAX] {
        rig.close();
        rig.disk.set_room(room);
        rig.try_open().unwrap();
        assert!(!rig.store().opening().journal_is_gone, "room for {room} bytes");
    }
    // It has begun, and somebody removes it.
    rig.put("a", "k", "1");
    let rig = rig.killed_and_closed();
    for segment in rig.segments() {
        rig.disk.remove_path(segment);
    }
    assert!(rig.opened().store().opening().journal_is_gone);
}
