//! The waiting records of a namespace that would not open: kept outside the journal, applied once and in order when the
//! right file is back, and not a moment less safe than before, wherever a crash falls.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use commonhold_proto::Durability;

use super::rig::{DIR, Rig, file, options, pair, place};
use crate::engine::disk::{Call, FailWith, Failure, Rules, SimDisk};
use crate::engine::{Error, Store, Surroundings};

type Records = Vec<(String, String)>;

const TORN: &[u8] = b"{\n\"k0\":1,\n\"k1";

fn quarantine_file(name: &str) -> PathBuf {
    let room = name.split_once('/').map_or("@".to_owned(), |(workspace, _)| format!("w/{workspace}"));
    Path::new(DIR).join(format!(".commonhold/quarantine/{room}/{}.records", place(name).namespace))
}

/// A closed store: `name` has a flushed file and writes beyond it in several segments, `b` pins nothing.
fn left_behind(name: &str) -> (Rig, Records) {
    let mut rig = Rig::new(options(Durability::Synced));
    rig.options.segment_bytes = 500;
    rig.try_open().unwrap();
    for number in 0..4 {
        rig.put(name, &format!("k{number}"), "1");
    }
    rig.flush(name).unwrap();
    for number in 2..6 {
        rig.put(name, &format!("k{number}"), "2");
        rig.put("b", "k", &number.to_string());
    }
    rig.delete(name, "k0");
    rig.put(name, "k0", "3");
    let expected = rig.all(name);
    (rig.killed_and_closed(), expected)
}

/// Others go on while the namespace is closed, so that the journal shrinks.
fn go_on(rig: &Rig) -> Result<(), Error> {
    rig.try_put("b", "k", "6")?;
    rig.flush("b")?;
    rig.store().tick()?;
    rig.store().tick()
}

#[test]
fn a_closed_namespaces_records_do_not_pin_the_journal_and_come_back_with_the_right_file() {
    for name in ["a", "w/a"] {
        let (mut rig, expected) = left_behind(name);
        let right = rig.disk.read_file(file(name));
        rig.disk.write_file(file(name), TORN);
        rig.try_open().unwrap();
        let reason = rig.closed(name);
        assert!(reason.contains("line 3, column 4 (byte 13)"), "{reason}");
        assert!(reason.contains("wait and are kept"), "{reason}");
        assert_eq!(rig.store().quarantined(), [place(name)]);
        go_on(&rig).unwrap();
        assert_eq!(rig.store().stats().pinned_by, []);
        let rig = rig.reopened();
        assert_eq!(rig.segments().len(), 1, "nothing in the older segments is waited for");
        rig.closed(name);
        let mut rig = rig.killed_and_closed();
        assert!(rig.disk.exists(quarantine_file(name)));
        rig.disk.write_file(file(name), &right);
        rig.try_open().unwrap();
        assert_eq!(rig.all(name), expected);
        assert_eq!(rig.store().opening().recovered, [place(name)]);
        assert!(rig.disk.exists(quarantine_file(name)), "it stays until the file has what is in it");
        let rig = rig.killed();
        assert_eq!(rig.all(name), expected);
        rig.flush(name).unwrap();
        assert_eq!(rig.in_file(name), expected);
        rig.store().tick().unwrap();
        assert!(!rig.disk.exists(quarantine_file(name)));
        let rig = rig.killed();
        assert_eq!((rig.all(name), rig.store().quarantined()), (expected, vec![]));
    }
}

#[test]
fn newer_waiting_records_join_those_in_quarantine_and_each_is_applied_once() {
    let (mut rig, _) = left_behind("a");
    let right = rig.disk.read_file(file("a"));
    for round in 0..3 {
        rig.disk.write_file(file("a"), TORN);
        rig.try_open().unwrap();
        go_on(&rig).unwrap();
        let mut closed = rig.killed_and_closed();
        closed.disk.write_file(file("a"), &right);
        closed.try_open().unwrap();
        closed.put("a", &format!("new{round}"), "1");
        closed.clear("b");
        rig = closed.killed_and_closed();
    }
    rig.try_open().unwrap();
    let expected = ["k1", "k2", "k3", "k4", "k5", "k0", "new0", "new1", "new2"];
    assert_eq!(rig.all("a").into_iter().map(|(key, _)| key).collect::<Vec<_>>(), expected);
    rig.clear("a");
    rig.put("a", "after", "1");
    let rig = rig.killed();
    assert_eq!(rig.all("a"), [pair("after", "1")], "what came after the quarantined records counts");
    rig.flush("a").unwrap();
    let rig = rig.killed();
    assert!(!rig.disk.exists(quarantine_file("a")), "a start lets go of what is settled");
    assert_eq!(rig.all("a"), [pair("after", "1")]);
}

#[test]
fn an_older_generation_is_the_right_file_too() {
    let mut rig = Rig::new(options(Durability::Synced));
    rig.options.segment_bytes = 500;
    rig.try_open().unwrap();
    // This one keeps the journal whole, so that it has what lies between the two files.
    rig.put("b", "pins", "1");
    rig.put("a", "k", "1");
    rig.flush("a").unwrap();
    let first = rig.disk.read_file(file("a"));
    for number in 0..5 {
        rig.put("a", &format!("k{number}"), "2");
    }
    rig.flush("a").unwrap();
    rig.put("a", "last", "1");
    let expected = rig.all("a");
    let mut rig = rig.killed_and_closed();
    rig.disk.write_file(file("a"), TORN);
    rig.try_open().unwrap();
    go_on(&rig).unwrap();
    let mut rig = rig.reopened().killed_and_closed();
    rig.disk.write_file(file("a"), &first);
    assert_eq!(rig.segments().len(), 1, "all that lies between them is in quarantine alone");
    rig.try_open().unwrap();
    assert_eq!(rig.all("a"), expected);
}

/// Opens a store whose namespace is closed, dying in call `calls`, and goes on as far as that comes.
fn dies_closed(disk: SimDisk, rig: &Rig, calls: u64) -> (Rig, bool) {
    let mut next = Rig::on(disk, rig.options.clone());
    next.disk.crash_after(calls);
    if next.try_open().is_ok() {
        // It died, or it did not: both are looked at.
        let _ = go_on(&next);
    }
    let came_through = !next.disk.is_dead();
    (next, came_through)
}

#[test]
fn a_crash_at_any_point_of_a_quarantine_loses_nothing_and_doubles_nothing() {
    let (rig, expected) = left_behind("a");
    let right = rig.disk.read_file(file("a"));
    rig.disk.write_file(file("a"), TORN);
    let mut calls = 0;
    loop {
        calls += 1;
        let (mut died, came_through) = dies_closed(rig.disk.kill(), &rig, calls);
        died.close();
        let mut found = vec![died.disk.kill()];
        found.extend((0..6).map(|seed| died.disk.power_cut(seed, Rules::any(seed))));
        for (seed, disk) in found.into_iter().enumerate() {
            let what = format!("died in call {calls}, {seed}");
            // Closed once more, with what the first one left, then with the right file again.
            let (mut again, _) = dies_closed(disk, &rig, u64::MAX);
            assert!(again.closed("a").contains("line 3"), "{what}");
            again.close();
            let disk = again.disk.power_cut(seed as u64, Rules::any(seed as u64));
            disk.write_file(file("a"), &right);
            let back = Rig::on(disk, rig.options.clone()).opened();
            assert_eq!(back.all("a"), expected, "{what}");
            assert_eq!(back.all("b"), [pair("k", "6")], "{what}");
        }
        if came_through {
            break;
        }
    }
    assert!(calls > 40, "opening and going on have more calls than {calls}");
}

#[test]
fn a_crash_at_any_point_of_the_way_back_loses_nothing() {
    let (mut rig, expected) = left_behind("a");
    let right = rig.disk.read_file(file("a"));
    rig.disk.write_file(file("a"), TORN);
    rig.try_open().unwrap();
    go_on(&rig).unwrap();
    let rig = rig.killed_and_closed();
    rig.disk.write_file(file("a"), &right);
    let mut calls = 0;
    loop {
        calls += 1;
        let mut back = Rig::on(rig.disk.kill(), rig.options.clone());
        back.disk.crash_after(calls);
        if back.try_open().is_ok() {
            // As above: any of these may be the one in which it dies.
            let _ = back.flush("a").and_then(|_| back.store().tick()).and_then(|()| back.store().tick());
        }
        let came_through = !back.disk.is_dead();
        back.close();
        let mut found = vec![back.disk.kill()];
        found.extend((0..6).map(|seed| back.disk.power_cut(seed, Rules::any(seed))));
        for disk in found {
            let next = Rig::on(disk, rig.options.clone()).opened();
            assert_eq!(next.all("a"), expected, "died in call {calls}");
        }
        if came_through {
            assert!(!back.disk.exists(quarantine_file("a")));
            break;
        }
    }
}

#[test]
fn a_quarantine_that_cannot_be_written_leaves_the_records_in_the_journal() {
    for (call, with) in
        [(Call::Create, FailWith::NoSpace), (Call::Write, FailWith::NoSpace), (Call::SyncDir, FailWith::Io)]
    {
        let (mut rig, expected) = left_behind("a");
        let right = rig.disk.read_file(file("a"));
        rig.disk.write_file(file("a"), TORN);
        let failures = (1..30).map(|nth| Failure::nth(nth, with).of(call).on("quarantine"));
        failures.for_each(|failure| rig.disk.fail(failure));
        rig.try_open().unwrap();
        rig.closed("a");
        rig.disk.mend();
        go_on(&rig).unwrap();
        let mut rig = rig.killed_and_closed();
        rig.disk.write_file(file("a"), &right);
        rig.try_open().unwrap();
        assert_eq!(rig.all("a"), expected, "{call:?}");
    }
}

#[test]
fn a_damaged_quarantine_file_closes_its_namespace_and_is_not_touched() {
    let (mut rig, _) = left_behind("a");
    let right = rig.disk.read_file(file("a"));
    rig.disk.write_file(file("a"), TORN);
    rig.try_open().unwrap();
    go_on(&rig).unwrap();
    let rig = rig.reopened().killed_and_closed();
    rig.disk.write_file(file("a"), &right);
    let path = quarantine_file("a");
    let whole = rig.disk.read_file(&path);
    for byte in [3, 30, whole.len() as u64 - 9] {
        let mut rig = Rig::on(rig.disk.kill(), rig.options.clone());
        rig.disk.flip_bit(&path, byte, 1);
        rig.try_open().unwrap();
        let reason = rig.closed("a");
        assert!(reason.contains("a.records, is damaged at byte"), "{reason}");
        rig.put("b", "k", "7");
        rig.flush("b").unwrap();
        rig.store().tick().unwrap();
        let mut rig = rig.killed_and_closed();
        rig.disk.flip_bit(&path, byte, 1);
        assert_eq!(rig.disk.read_file(&path), whole, "it was not touched");
        rig.try_open().unwrap();
        assert_eq!(rig.all("a").len(), 6);
    }
}

#[test]
fn quarantined_records_of_a_journal_that_is_gone_close_their_namespace() {
    let (mut rig, _) = left_behind("a");
    let right = rig.disk.read_file(file("a"));
    rig.disk.write_file(file("a"), TORN);
    rig.try_open().unwrap();
    let rig = rig.killed_and_closed();
    rig.disk.write_file(file("a"), &right);
    rig.disk.remove_path(Path::new(DIR).join(".commonhold/journal"));
    let around = Surroundings {
        disk: Arc::new(rig.disk.clone()),
        locks: Arc::new(rig.locks.clone()),
        clock: Arc::new(rig.clock.clone()),
        entropy: 43,
    };
    let store = Store::open(Path::new(DIR), rig.options.clone(), around).unwrap();
    match store.namespace(&place("a")) {
        Err(Error::NeedsRepair { reason, .. }) => assert!(reason.contains("the journal that its waiting"), "{reason}"),
        other => panic!("{other:?}"),
    }
    store.tick().unwrap();
    assert!(rig.disk.exists(quarantine_file("a")));
}

#[test]
fn a_quarantine_file_of_a_newer_format_is_refused_untouched() {
    let (mut rig, _) = left_behind("a");
    rig.disk.write_file(file("a"), TORN);
    rig.try_open().unwrap();
    let mut rig = rig.killed_and_closed();
    let mut bytes = rig.disk.read_file(quarantine_file("a"));
    bytes[8..12].copy_from_slice(&7_u32.to_le_bytes());
    let length = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
    let crc = crc32fast::hash(&bytes[..length - 8]);
    bytes[length - 8..length - 4].copy_from_slice(&crc.to_le_bytes());
    rig.disk.write_file(quarantine_file("a"), &bytes);
    let before = rig.files();
    assert!(matches!(rig.refused(), Error::NewerFormat { version: 7, known: 1, .. }));
    assert!(rig.files() == before);
}
