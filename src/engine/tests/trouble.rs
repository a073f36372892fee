//! Disks that are full, fail or lose their owner: what is answered, what goes on, and what the next owner finds.

use std::path::Path;

use commonhold_proto::Durability;

use super::rig::{DIR, Rig, options, pair};
use crate::engine::disk::{Call, FailWith, Failure, Rules};
use crate::engine::{Error, Store, StoreOptions, Surroundings};

#[test]
fn a_full_disk_is_answered_changes_nothing_and_writing_goes_on_when_there_is_room() {
    for with in [FailWith::NoSpace, FailWith::ShortWrite] {
        for durability in [Durability::Buffered, Durability::Synced] {
            let rig = Rig::new(options(durability)).opened();
            rig.put("a", "k", "1");
            let journal = rig.segments().pop().unwrap();
            let before = rig.disk.read_file(&journal);
            rig.disk.fail(Failure::nth(1, with).of(Call::Write).on("journal").for_good());
            for _ in 0..3 {
                match rig.try_put("a", "k", "2") {
                    Err(Error::Full { path }) => assert_eq!(path, journal),
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(rig.all("a"), [pair("k", "1")]);
            assert_eq!(rig.disk.read_file(&journal), before, "the write was undone");
            rig.disk.mend();
            let next = rig.put("a", "k", "3");
            rig.commit().unwrap();
            assert_eq!(rig.all("a"), [pair("k", "3")]);
            for seed in 0..20 {
                let found = Rig::on(rig.disk.power_cut(seed, Rules::any(seed)), rig.options.clone()).opened();
                assert_eq!(found.all("a"), [pair("k", "3")]);
                assert_eq!(found.store().opening().set_aside, None);
                assert!(found.put("a", "k", "4") > next);
            }
        }
    }
}

#[test]
fn a_full_disk_at_a_change_of_segment_is_no_different() {
    let mut rig = Rig::new(options(Durability::Buffered));
    rig.options.segment_bytes = 300;
    rig.try_open().unwrap();
    for (call, with) in
        [(Call::Create, FailWith::NoSpace), (Call::Write, FailWith::ShortWrite), (Call::Write, FailWith::NoSpace)]
    {
        for number in 0..20 {
            let segments = rig.segments().len();
            rig.disk.fail(Failure::nth(1, with).of(call).on("journal"));
            let refused = rig.try_put("a", "k", "-1");
            assert!(call == Call::Create || matches!(refused, Err(Error::Full { .. })), "{refused:?}");
            rig.disk.mend();
            assert!(rig.segments().len() <= segments + 1);
            rig.put("a", "k", &number.to_string());
        }
    }
    assert_eq!(rig.killed().all("a"), [pair("k", "19")]);
}

#[test]
fn a_failed_undo_ends_writing_and_leaves_the_outcome_open() {
    let rig = Rig::buffered();
    rig.put("a", "k", "1");
    rig.disk.fail(Failure::nth(1, FailWith::ShortWrite).on("journal"));
    rig.disk.fail(Failure::nth(1, FailWith::Io).of(Call::Truncate));
    assert!(matches!(rig.try_put("a", "k", "2"), Err(Error::OutcomeUnknown { .. })));
    rig.disk.mend();
    assert!(matches!(rig.try_put("a", "k", "3"), Err(Error::Unavailable { .. })));
    assert_eq!(rig.all("a"), [pair("k", "1")]);
    let rig = rig.killed();
    assert!(["1", "2"].contains(&rig.get("a", "k").unwrap().as_str()));
    rig.put("a", "k", "4");
}

#[test]
fn a_failed_sync_ends_writing_while_reads_go_on_and_reopening_recovers() {
    for nth in [1, 2] {
        let rig = Rig::synced();
        rig.put("a", "k", "1");
        rig.disk.fail(Failure::nth(nth, FailWith::Io).of(Call::Sync).on("journal"));
        if nth == 2 {
            rig.put("a", "k", "2");
        }
        match rig.try_put("a", "k", "3") {
            Err(Error::OutcomeUnknown { reason }) => assert!(reason.contains("sync"), "{reason}"),
            other => panic!("{other:?}"),
        }
        rig.disk.mend();
        let seen = if nth == 1 { "1" } else { "2" };
        for _ in 0..3 {
            assert!(matches!(rig.try_put("a", "k", "4"), Err(Error::Unavailable { .. })));
            assert!(matches!(rig.flush("a"), Err(Error::Unavailable { .. })));
            assert!(rig.store().tick().is_err());
            assert_eq!(rig.get("a", "k").unwrap(), seen, "what was not synced is not seen");
        }
        assert!(rig.store().refuses_writes().unwrap().contains("sync"));
        for seed in 0..20 {
            let found = Rig::on(rig.disk.power_cut(seed, Rules::any(seed)), rig.options.clone()).opened();
            let value = found.get("a", "k").unwrap();
            assert!(value == seen || value == "3", "{value}");
            found.put("a", "k", "5");
        }
    }
}

#[test]
fn a_failed_commit_of_a_buffered_store_is_told_once_as_unknown() {
    let rig = Rig::buffered();
    rig.put("a", "k", "1");
    rig.disk.fail(Failure::nth(1, FailWith::Io).of(Call::Sync).on("journal"));
    assert!(matches!(rig.commit(), Err(Error::OutcomeUnknown { .. })));
    assert!(matches!(rig.commit(), Err(Error::Unavailable { .. })), "a sync is never repeated to get rid of its error");
    assert!(matches!(rig.try_put("a", "k", "2"), Err(Error::Unavailable { .. })));
    assert_eq!(rig.get("a", "k").unwrap(), "1");
    // More than the store's durability was asked for: the write may be seen, but its outcome is unknown.
    let rig = Rig::buffered();
    rig.table("a");
    rig.put("a", "k", "0");
    rig.disk.fail(Failure::nth(1, FailWith::Io).of(Call::Sync).on("journal"));
    let synced = rig.write(|request, table| {
        request.durability(Some(Durability::Synced));
        request.put(&table("a"), "k", "1", commonhold_proto::Condition::Always).unwrap();
    });
    assert!(matches!(synced, Err(Error::OutcomeUnknown { .. })), "{synced:?}");
}

#[test]
fn a_start_that_fails_anywhere_leaves_everything_for_the_next() {
    let mut rig = Rig::new(options(Durability::Synced));
    rig.options.segment_bytes = 400;
    rig.try_open().unwrap();
    for number in 0..6 {
        rig.put("a", &format!("k{number}"), "1");
        rig.put("w/b", "k", &number.to_string());
    }
    rig.flush("a").unwrap();
    rig.put("a", "k0", "2");
    let expected = (rig.all("a"), rig.all("w/b"));
    let mut calls = 0;
    loop {
        calls += 1;
        let mut first = Rig::on(rig.disk.kill(), rig.options.clone());
        first.disk.fail_call(calls, FailWith::Io);
        let outcome = first.try_open();
        let failures_are_over = outcome.is_ok() && first.disk.calls().total() < calls;
        if outcome.is_ok() && first.store().opening().closed.is_empty() {
            assert_eq!((first.all("a"), first.all("w/b")), expected, "call {calls}");
        }
        first.close();
        first.disk.mend();
        for disk in [first.disk.kill(), first.disk.power_cut(calls, Rules::any(calls))] {
            let second = Rig::on(disk, rig.options.clone()).opened();
            assert_eq!((second.all("a"), second.all("w/b")), expected, "call {calls}, after {outcome:?}");
        }
        if failures_are_over {
            break;
        }
    }
    assert!(calls > 20);
}

#[test]
fn a_second_owner_is_refused_and_told_who_the_first_is() {
    let directory = tempfile::tempdir().unwrap();
    let open = || Store::open(directory.path(), StoreOptions::default(), Surroundings::real().unwrap());
    let first = open().unwrap();
    match open() {
        Err(Error::Owned { dir, holder: Some(holder) }) => {
            assert_eq!((dir.as_path(), holder.pid), (directory.path(), std::process::id()));
        }
        other => panic!("{:?}", other.map(drop)),
    }
    drop(first);
    open().unwrap();
}

#[test]
fn an_owner_whose_lock_is_taken_away_writes_no_more_files() {
    let rig = Rig::buffered();
    rig.put("a", "k", "1");
    rig.locks.steal(&Path::new(DIR).join(".commonhold/owner.lock"));
    let before = rig.disk.names(DIR);
    assert!(matches!(rig.flush("a"), Err(Error::Unavailable { .. })));
    assert!(matches!(rig.store().tick(), Err(Error::Unavailable { .. })));
    assert!(matches!(rig.try_put("a", "k", "2"), Err(Error::Unavailable { .. })));
    assert_eq!(rig.disk.names(DIR), before);
    assert_eq!(rig.get("a", "k").unwrap(), "1");
}

#[test]
fn an_owner_whose_lock_is_taken_away_begins_no_segment() {
    let mut rig = Rig::new(options(Durability::Buffered));
    rig.options.segment_bytes = 400;
    let rig = rig.opened();
    rig.put("a", "k", "0");
    rig.locks.steal(&Path::new(DIR).join(".commonhold/owner.lock"));
    // Between two ticks it cannot know, but whoever owns the store now has taken the next number.
    let segments = rig.segments();
    let refused = loop {
        if let Err(error) = rig.try_put("a", "k", "1") {
            break error;
        }
    };
    assert!(matches!(&refused, Error::Unavailable { reason } if reason.contains("owner.lock")), "{refused:?}");
    assert_eq!(rig.segments(), segments);
}

#[test]
fn what_is_not_a_directory_is_no_store() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let open = |path: &Path| Store::open(path, StoreOptions::default(), Surroundings::real().unwrap()).map(drop);
    assert!(matches!(open(&file), Err(Error::NotADirectory { .. })));
    assert!(matches!(open(&directory.path().join("absent")), Err(Error::Disk { .. })));
}
