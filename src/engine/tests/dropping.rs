//! Drops: the records go at once, the file with the next flush, and a crash in between leaves nothing half done.

use commonhold_proto::{Condition, Durability, Seq};

use super::rig::{DIR, Rig, file, options, pair, place};
use crate::engine::Error;
use crate::engine::disk::{Call, FailWith, Failure, Rules};

/// A store with a flushed namespace, and changes to it that are not flushed yet.
fn before_a_drop(durability: Durability, name: &str) -> Rig {
    let rig = Rig::new(options(durability)).opened();
    for key in ["k0", "k1", "k2"] {
        rig.put(name, key, "1");
    }
    rig.flush(name).unwrap();
    rig.put(name, "k3", "1");
    rig.put("other", "k", "1");
    rig.commit().unwrap();
    rig
}

fn drop_and_flush(rig: &Rig, name: &str) -> Result<(), Error> {
    rig.drop_records(name)?;
    rig.flush(name).map(drop)
}

#[test]
fn a_dropped_namespace_has_neither_records_nor_a_file_and_its_last_file_is_kept() {
    for name in ["a", "w/a"] {
        let rig = before_a_drop(Durability::Buffered, name);
        let old = rig.disk.read_file(file(name));
        let dropped = rig.drop_records(name).unwrap();
        assert_eq!((dropped.records, rig.all(name).len()), (4, 0));
        assert!(rig.has_file(name), "the file goes with the flush");
        assert!(rig.flush(name).unwrap().rewritten);
        assert!(!rig.has_file(name));
        let kept = rig.files().into_iter().filter(|(path, _)| path.to_string_lossy().contains("generations"));
        assert_eq!(kept.map(|(_, bytes)| bytes).collect::<Vec<_>>(), [old]);
        assert_eq!(rig.store().dirty(), [super::rig::place("other")]);
        let listed = rig.store().namespaces().unwrap();
        assert!(listed.iter().all(|info| info.namespace == "other"), "{listed:?}");
        for rewrite in [false, true] {
            let how = crate::engine::FlushHow { rewrite, lock_timeout: None };
            assert!(!rig.store().flush(&super::rig::place(name), how).unwrap().rewritten);
        }
        let rig = rig.killed();
        assert_eq!((rig.all(name), rig.has_file(name)), (vec![], false));
        assert_eq!(rig.store().opening().recovered, [super::rig::place("other")]);
    }
}

#[test]
fn a_write_after_a_drop_brings_the_namespace_back() {
    for flush_between in [false, true] {
        let rig = before_a_drop(Durability::Buffered, "a");
        rig.drop_records("a").unwrap();
        if flush_between {
            rig.flush("a").unwrap();
        }
        rig.put("a", "new", "1");
        let rig = rig.killed();
        assert_eq!(rig.all("a"), [pair("new", "1")]);
        rig.flush("a").unwrap();
        assert_eq!(rig.in_file("a"), [pair("new", "1")]);
        rig.drop_records("a").unwrap();
        rig.put("a", "k", "1");
        rig.delete("a", "k");
        rig.flush("a").unwrap();
        assert_eq!(rig.disk.read_file(file("a")), b"{}\n", "what was written to after the drop has a file");
        assert_eq!(rig.killed().all("a"), []);
    }
}

/// The next owner finds the namespace as it was or dropped, and can go on with it either way.
fn check(rig: Rig, name: &str, must_be_gone: bool, what: &str) {
    let rig = rig.opened();
    assert!(rig.store().opening().closed.is_empty(), "{what}: {:?}", rig.store().opening());
    let found = rig.all(name);
    assert!(found.is_empty() || (!must_be_gone && found.len() == 4), "{what}: {found:?}");
    assert_eq!(rig.all("other"), [pair("k", "1")], "{what}");
    rig.flush(name).unwrap();
    assert_eq!(
        rig.has_file(name),
        !found.is_empty(),
        "{what}: a flush finishes what was begun, and makes no empty file"
    );
    rig.put(name, "later", "1");
    let rig = rig.killed();
    assert_eq!(rig.all(name).len(), found.len() + 1, "{what}");
    rig.flush(name).unwrap();
    assert_eq!(rig.killed().in_file(name).len(), found.len() + 1, "{what}");
}

#[test]
fn a_drop_that_dies_anywhere_is_done_or_not_and_never_half() {
    for durability in [Durability::Buffered, Durability::Synced] {
        for name in ["a", "w/a"] {
            let mut calls = 0;
            loop {
                calls += 1;
                let rig = before_a_drop(durability, name);
                rig.disk.crash_after(calls);
                let dropped = rig.drop_records(name).is_ok();
                let flushed = dropped && rig.flush(name).is_ok();
                let options = rig.options.clone();
                let found = |disk| Rig::on(disk, options.clone());
                check(found(rig.disk.kill()), name, dropped, &format!("{name}, killed in call {calls}"));
                for seed in 0..12 {
                    let disk = rig.disk.power_cut(seed, Rules::any(seed));
                    let gone = flushed || (dropped && durability == Durability::Synced);
                    check(found(disk), name, gone, &format!("{name}, power cut {seed} in call {calls}"));
                }
                if !rig.disk.is_dead() {
                    assert!(flushed);
                    break;
                }
            }
            assert!(calls > 8, "a drop and its flush have more calls than that");
        }
    }
}

#[test]
fn a_drop_whose_nth_call_fails_can_be_repeated() {
    for call in [Call::Write, Call::Link, Call::Remove, Call::Stat, Call::CreateDir] {
        for nth in 1..4 {
            let rig = before_a_drop(Durability::Buffered, "a");
            rig.disk.fail(Failure::nth(nth, FailWith::Io).of(call));
            let outcome = drop_and_flush(&rig, "a");
            rig.disk.mend();
            drop_and_flush(&rig, "a").unwrap_or_else(|error| panic!("{call:?} {nth} ({outcome:?}): {error:?}"));
            assert!(!rig.has_file("a"), "{call:?} {nth}");
            rig.flush("other").unwrap();
            rig.store().tick().unwrap();
            assert_eq!(rig.store().stats().pinned_by, [], "{call:?} {nth}: what is dropped is not kept in the journal");
            assert_eq!(rig.killed().all("a"), []);
        }
    }
}

#[test]
fn another_programs_file_is_kept_as_foreign_when_its_namespace_is_dropped() {
    let rig = before_a_drop(Durability::Buffered, "a");
    rig.disk.write_file(file("a"), b"{\"theirs\": 1}");
    drop_and_flush(&rig, "a").unwrap();
    assert!(!rig.has_file("a"));
    let kept = rig.generations("a");
    assert!(kept.iter().any(|name| name.ends_with(".foreign.json")), "{kept:?}");
    assert_eq!(rig.store().stats().foreign_files, 1);
    // Of a namespace that we have nothing of, too.
    rig.table("b");
    rig.disk.write_file(file("b"), b"{\"theirs\": 1}");
    assert!(rig.drop_records("b").unwrap().needs_flush);
    rig.flush("b").unwrap();
    assert!(!rig.has_file("b") && rig.generations("b").len() == 1);
}

#[test]
fn dropping_what_is_not_there_does_nothing_and_what_is_closed_is_refused() {
    let mut rig = before_a_drop(Durability::Buffered, "a");
    let (before, last) = (rig.files(), rig.store().applied());
    let dropped = rig.drop_records("missing").unwrap();
    assert_eq!((dropped.seq, dropped.records, dropped.needs_flush), (last, 0, false));
    assert!(rig.files() == before);
    rig.close();
    rig.disk.write_file(file("a"), b"{\"torn");
    let rig = rig.opened();
    assert!(matches!(rig.drop_records("a"), Err(Error::NeedsRepair { .. })));
    assert_eq!(rig.disk.read_file(file("a")), b"{\"torn");
}

#[test]
fn a_view_that_is_being_read_keeps_what_is_dropped() {
    let rig = Rig::buffered();
    for number in 0..1_000 {
        rig.put("a", &number.to_string(), "1");
    }
    let mut snapshot = rig.table("a").snapshot(1 << 20);
    let mut records = Vec::new();
    assert!(snapshot.next(&mut records).unwrap());
    drop_and_flush(&rig, "a").unwrap();
    rig.put("a", "new", "1");
    while snapshot.next(&mut records).unwrap() {}
    assert!(records.iter().map(|record| record.key().to_owned()).eq((0..1_000).map(|number| number.to_string())));
    assert_eq!(rig.all("a"), [pair("new", "1")]);
}

#[test]
fn a_drop_that_waits_in_quarantine_is_done_when_the_file_is_put_back() {
    let rig = before_a_drop(Durability::Buffered, "a");
    let good = rig.disk.read_file(file("a"));
    rig.drop_records("a").unwrap();
    let mut rig = rig.killed_and_closed();
    rig.disk.write_file(file("a"), b"{\"torn");
    rig.try_open().unwrap();
    rig.closed("a");
    rig.flush("other").unwrap();
    rig.store().tick().unwrap();
    rig.close();
    rig.disk.write_file(file("a"), &good);
    let rig = rig.opened();
    assert_eq!(rig.all("a"), []);
    rig.flush("a").unwrap();
    assert!(!rig.has_file("a"));
    assert!(!rig.disk.names(DIR).iter().any(|name| name.contains("_a.")));
}

#[test]
fn a_drop_has_its_number_in_the_order_of_the_store() {
    let rig = Rig::buffered();
    let put = rig.put("a", "k", "1");
    let dropped = rig.drop_records("a").unwrap();
    assert!(dropped.seq > put && rig.table("a").last() == dropped.seq);
    let back = rig.write(|request, table| request.put(&table("a"), "k", "2", Condition::IfAbsent).unwrap()).unwrap();
    assert!(back.seq > dropped.seq);
    let refused = rig.write(|request, table| request.delete(&table("a"), "k", Condition::IfSeq(put)).unwrap());
    assert!(matches!(refused, Err(Error::ConditionFailed { found: Some(found), .. }) if found == back.seq));
    assert!(rig.killed().table("a").last() >= Seq(back.seq.0));
}

#[test]
fn the_name_of_a_dropped_namespace_is_free_in_every_letter_case_once_its_file_is_gone() {
    for (one, other) in [("foo", "FOO"), ("w/foo", "w/Foo")] {
        let rig = Rig::buffered();
        rig.put(one, "k", "1");
        rig.drop_records(one).unwrap();
        let clashes = || matches!(rig.store().namespace(&place(other)), Err(Error::NameClash { .. }));
        assert!(clashes(), "its file may still be there");
        rig.flush(one).unwrap();
        rig.put(other, "k", "2");
        assert!(matches!(rig.store().namespace(&place(one)), Err(Error::NameClash { .. })), "the first is gone");
        rig.flush(other).unwrap();
        let rig = rig.killed();
        assert_eq!(rig.all(other), [pair("k", "2")]);
        assert!(rig.store().opening().closed.is_empty());
    }
}

#[test]
fn a_name_that_was_only_asked_for_keeps_nobody_from_one_in_other_letter_case() {
    for (one, other) in [("foo", "FOO"), ("w/foo", "w/Foo"), ("w/foo", "W/foo")] {
        let rig = Rig::buffered();
        let held = rig.table(one);
        assert!(matches!(rig.store().namespace(&place(other)), Err(Error::NameClash { .. })), "a write may come of it");
        drop(held);
        rig.put(other, "k", "1");
        assert!(matches!(rig.store().namespace(&place(one)), Err(Error::NameClash { .. })));
        assert_eq!(rig.killed().all(other), [pair("k", "1")]);
    }
}
