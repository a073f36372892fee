//! A disk that is full with what the journal takes: once every file holds what the journal holds, the journal gives its room
//! back in place, and writes go on without a restart. At every call of that the process may die.

use commonhold_proto::{Condition, Durability};

use super::rig::{Rig, options};
use crate::engine::disk::Rules;
use crate::engine::{Error, WriteRequest};

const STEP: u64 = 32 << 10;
const DISK: u64 = 200 << 10;

fn on_a_small_disk(durability: Durability) -> Rig {
    let mut rig = Rig::new(options(durability));
    (rig.options.room_bytes, rig.options.keep) = (STEP, 1);
    let rig = rig.opened();
    rig.disk.set_room(DISK);
    rig
}

fn some_value(number: usize) -> String {
    format!("\"{number:0>500}\"")
}

/// Puts until one is refused, over and over to the same few keys.
fn fill(rig: &Rig, keys: usize) -> usize {
    for number in 0..1_000 {
        match rig.try_put("a", &format!("k{}", number % keys), &some_value(number)) {
            Ok(_) => {}
            Err(Error::Full { .. }) => return number,
            Err(other) => panic!("{other:?}"),
        }
    }
    panic!("the disk has room for {DISK} bytes")
}

/// What the next owner finds, on a disk with room again.
fn found(rig: &Rig, seed: Option<u64>) -> Rig {
    let disk = seed.map_or_else(|| rig.disk.kill(), |seed| rig.disk.power_cut(seed, Rules::any(seed)));
    disk.set_room(u64::MAX);
    let mut options = rig.options.clone();
    options.room_bytes = 0;
    Rig::on(disk, options).opened()
}

#[test]
fn a_flush_on_a_disk_full_of_journal_gives_the_journals_room_back_and_writes_go_on() {
    for durability in [Durability::Memory, Durability::Buffered, Durability::Synced] {
        let rig = on_a_small_disk(durability);
        let mut filled = Vec::new();
        for round in 0..4 {
            filled.push(fill(&rig, 5));
            assert!(matches!(rig.try_put("a", "k", &some_value(0)), Err(Error::Full { .. })));
            let expected = rig.all("a");
            assert!(rig.flush("a").unwrap().rewritten, "round {round}");
            assert_eq!((rig.in_file("a"), rig.all("a")), (expected.clone(), expected));
            assert_eq!(rig.store().stats().segments, 1);
            assert!(rig.store().stats().journal_bytes < 1_000, "{:?}", rig.store().stats());
            rig.put("a", "k", &some_value(round));
        }
        assert!(
            filled[1..].iter().all(|puts| puts * 10 > filled[0] * 8),
            "nearly all of it is there again: {filled:?}"
        );
        let expected = rig.all("a");
        rig.commit().unwrap();
        for seed in (0..10).map(Some).chain([None]) {
            assert_eq!(found(&rig, seed).all("a"), expected);
        }
    }
}

#[test]
fn clearing_and_flushing_makes_room_on_a_full_disk() {
    let rig = on_a_small_disk(Durability::Buffered);
    let keys = fill(&rig, 1_000);
    let unflushed = rig.flush("a");
    assert!(matches!(unflushed, Err(Error::Full { .. })), "no room for a file of all that: {unflushed:?}");
    assert_eq!(rig.all("a").len(), keys, "and still nothing is lost");
    assert_eq!(rig.clear("a").found, keys as u64);
    rig.flush("a").unwrap();
    rig.put("a", "again", "1");
    assert_eq!(rig.killed().all("a"), [super::rig::pair("again", "1")]);
}

#[test]
fn deletes_never_use_up_the_spare_so_that_a_flush_can_still_be_told() {
    let rig = on_a_small_disk(Durability::Buffered);
    rig.put("b", "k", "1");
    rig.flush("b").unwrap();
    fill(&rig, 5);
    assert!(rig.drop_records("b").unwrap().needs_flush);
    let table = rig.table("a");
    let delete = |number| {
        let mut request = WriteRequest::new(7, number);
        request.delete(&table, "k0", Condition::Always).unwrap();
        rig.store().write(vec![request]).remove(0)
    };
    let refused = (0..1_000).map(delete).find_map(Result::err);
    assert!(matches!(refused, Some(Error::Full { .. })), "{refused:?}");
    rig.flush("b").unwrap();
    assert!(!rig.has_file("b"));
}

#[test]
fn at_every_call_of_a_renewal_the_process_may_die_and_nothing_acknowledged_is_lost() {
    for durability in [Durability::Buffered, Durability::Synced] {
        let mut calls = 0;
        loop {
            calls += 1;
            let rig = on_a_small_disk(durability);
            fill(&rig, 5);
            rig.commit().unwrap();
            let mut expected = rig.all("a");
            rig.disk.crash_after(calls);
            let flushed = rig.flush("a");
            let put = rig.try_put("a", "after", "1").is_ok();
            let through = !rig.disk.is_dead();
            assert!(!through || flushed.is_ok() && put, "{flushed:?}");
            for seed in (0..6).map(Some).chain([None]) {
                let mut all = found(&rig, seed).all("a");
                // What was acknowledged as buffered a power cut may take; and what was not acknowledged may be there.
                let is_certain = put && (seed.is_none() || durability == Durability::Synced);
                if all.last().is_some_and(|(key, _)| key == "after") {
                    all.pop();
                } else {
                    assert!(!is_certain, "call {calls}, seed {seed:?}");
                }
                assert_eq!(all, expected, "call {calls}, seed {seed:?}");
            }
            expected.clear();
            if through {
                assert!(calls > 25, "{calls}");
                break;
            }
        }
    }
}

#[test]
fn a_renewal_that_fails_leaves_the_journal_as_it_was() {
    use crate::engine::disk::{Call, FailWith, Failure};
    for call in [Call::Create, Call::Write, Call::Allocate, Call::Truncate, Call::Remove, Call::Rename] {
        for with in [FailWith::NoSpace, FailWith::Io] {
            for nth in 1..4 {
                let rig = on_a_small_disk(Durability::Buffered);
                fill(&rig, 5);
                let expected = rig.all("a");
                rig.disk.fail(Failure::nth(nth, with).of(call).on("journal"));
                let _ = rig.flush("a");
                let what = format!("{call:?} number {nth} fails with {with:?}");
                assert_eq!(found(&rig, None).all("a"), expected, "{what}");
                rig.disk.mend();
                assert_eq!(rig.store().refuses_writes(), None, "{what}");
                rig.flush("a").unwrap_or_else(|error| panic!("{what}: {error:?}"));
                rig.store().tick().unwrap();
                rig.put("a", "after", "1");
                assert_eq!(found(&rig, None).all("a").len(), expected.len() + 1, "{what}");
            }
        }
    }
}
