//! Volatile namespaces: read and written as the others, and never anywhere but in memory.

use std::sync::Arc;
use std::time::Duration;

use commonhold_proto::message::Kind;
use commonhold_proto::{Condition, Number, Seq};

use super::rig::{Rig, contents, file, pair, place};
use crate::engine::{Error, Table, WriteRequest, Written};

const ALWAYS: Condition = Condition::Always;

fn volatile(rig: &Rig, name: &str) -> Arc<Table> {
    rig.store().volatile(&place(name)).unwrap()
}

fn put(rig: &Rig, table: &Arc<Table>, key: &str, value: &str) -> Result<Written, Error> {
    let mut request = WriteRequest::new(1, 1);
    request.put(table, key, value, ALWAYS).unwrap();
    rig.store().write(vec![request]).pop().unwrap()
}

#[test]
fn a_volatile_namespace_touches_neither_journal_nor_files_and_ends_with_the_owner() {
    let rig = Rig::synced();
    rig.put("kept", "k", "1");
    let (before, calls) = (rig.files(), rig.disk.calls());
    let table = volatile(&rig, "v");
    for number in 0..100 {
        put(&rig, &table, &format!("k{number}"), "1").unwrap();
    }
    let changed = rig.disk.calls().since(&calls);
    assert!(rig.files() == before, "nothing is written: {changed:?}");
    assert_eq!((table.len(), table.is_dirty()), (100, false));
    assert_eq!(rig.store().dirty(), [place("kept")]);
    let rig = rig.killed();
    assert_eq!(volatile(&rig, "v").len(), 0);
    assert_eq!(rig.all("kept"), [pair("k", "1")]);
}

#[test]
fn numbers_do_not_run_out_where_nothing_is_journalled_and_never_come_again() {
    let rig = Rig::synced();
    let mut last = Seq::ZERO;
    for _ in 0..5 {
        // More than half of what there is, as in days of nothing but locks.
        rig.store().numbers.skip((1 << 31) + 7);
        rig.store().tick().unwrap();
        let seq = rig.store().take_seq().expect("there are more");
        assert!(seq > last);
        last = seq;
    }
    let rig = rig.killed();
    assert!(rig.store().take_seq().expect("there are more") > last, "a number was given twice");
}

#[test]
fn all_operations_work_on_it_in_one_atomic_request() {
    let rig = Rig::buffered();
    let (one, other) = (volatile(&rig, "one"), volatile(&rig, "w/other"));
    let mut request = WriteRequest::new(1, 1);
    request.merge(&one, "k", r#"{"a":1}"#, Condition::IfAbsent).unwrap();
    request.increment(&one, "k", "n", Number::Int(2), ALWAYS).unwrap();
    request.append(&other, "l", "items", "[1]", None, ALWAYS).unwrap();
    let written = rig.store().write(vec![request]).pop().unwrap().unwrap();
    assert_eq!((written.new, written.found), (2, 1));
    assert_eq!(contents(&one), [pair("k", r#"{"a":1,"n":2}"#)]);
    assert_eq!(one.get("k").unwrap().seq(), other.get("l").unwrap().seq());
    let mut refused = WriteRequest::new(1, 2);
    refused.clear(&one).unwrap();
    refused.put(&other, "l", "1", Condition::IfAbsent).unwrap();
    let outcome = rig.store().write(vec![refused]).pop().unwrap();
    assert!(matches!(outcome, Err(Error::ConditionFailed { operation: 1, .. })));
    assert_eq!(one.len(), 1, "nothing of a refused request is done");
}

#[test]
fn its_seqs_are_the_stores_and_the_journal_is_read_across_the_gaps() {
    let rig = Rig::buffered();
    let table = volatile(&rig, "v");
    let mut last = Seq::ZERO;
    for number in 0..20 {
        let seqs = [rig.put("a", &number.to_string(), "1"), put(&rig, &table, "k", "1").unwrap().seq];
        assert!(last < seqs[0] && seqs[0] < seqs[1], "one order for both: {seqs:?} after {last}");
        last = seqs[1];
    }
    rig.commit().unwrap();
    rig.flush("a").unwrap();
    rig.put("a", "later", "1");
    put(&rig, &table, "k", "2").unwrap();
    let given = put(&rig, &table, "k", "3").unwrap().seq;
    let rig = rig.killed();
    assert_eq!(rig.all("a").len(), 21);
    assert!(rig.put("a", "again", "1") > given, "a Seq is never given twice");
}

#[test]
fn requests_of_both_kinds_take_effect_in_the_order_sent_and_one_request_is_of_one_kind() {
    let rig = Rig::buffered();
    let (table, kept) = (volatile(&rig, "v"), rig.table("kept"));
    let request = |table: &Arc<Table>| {
        let mut request = WriteRequest::new(1, 1);
        request.increment(table, "k", "n", Number::Int(1), ALWAYS).unwrap();
        request
    };
    let requests = [&kept, &kept, &table, &kept, &table, &table].map(request).into();
    let seqs: Vec<_> = rig.store().write(requests).into_iter().map(|outcome| outcome.unwrap().seq).collect();
    assert!(seqs.is_sorted_by(|one, next| one < next), "{seqs:?}");
    assert_eq!((contents(&table), contents(&kept)), (vec![pair("k", r#"{"n":3}"#)], vec![pair("k", r#"{"n":3}"#)]));
    let mut mixed = request(&kept);
    assert!(matches!(mixed.put(&table, "k", "1", ALWAYS), Err(Error::MixedKinds)));
}

#[test]
fn who_opens_a_name_first_decides_its_kind() {
    let rig = Rig::buffered();
    rig.put("written", "k", "1");
    rig.disk.write_file(file("by_file"), b"{\"k\": 1}");
    let mismatch = |name: &str| match rig.store().volatile(&place(name)) {
        Err(Error::KindMismatch { kind: Kind::Persistent, .. }) => {}
        other => panic!("{name}: {other:?}"),
    };
    mismatch("written");
    mismatch("by_file");
    assert_eq!(rig.all("by_file"), [pair("k", "1")]);
    let table = volatile(&rig, "v");
    put(&rig, &table, "k", "1").unwrap();
    assert!(matches!(rig.store().namespace(&place("v")), Err(Error::KindMismatch { kind: Kind::Volatile, .. })));
    assert!(matches!(rig.store().volatile(&place("V")), Err(Error::NameClash { .. })));
    assert!(matches!(rig.flush("v"), Err(Error::Volatile { .. })));
    let listed = rig.store().namespaces().unwrap();
    let of = |name: &str| listed.iter().find(|info| info.namespace == name).map(|info| (info.kind, info.records));
    assert_eq!(of("v"), Some((Kind::Volatile, Some(1))));
    assert_eq!(of("written"), Some((Kind::Persistent, Some(1))));
}

#[test]
fn a_dropped_one_frees_its_name_and_a_late_write_to_it_is_not_lost() {
    let rig = Rig::buffered();
    let table = volatile(&rig, "v");
    put(&rig, &table, "k", "1").unwrap();
    let mut late = WriteRequest::new(1, 2);
    late.put(&table, "late", "1", ALWAYS).unwrap();
    let dropped = rig.store().drop_volatile(&place("v")).unwrap();
    assert_eq!((dropped.records, dropped.needs_flush), (1, false));
    assert!(table.is_gone() && table.is_empty());
    let written = rig.store().write(vec![late]).pop().unwrap().unwrap();
    assert!(written.seq > dropped.seq);
    assert_eq!(contents(&volatile(&rig, "v")), [pair("late", "1")]);
    assert_eq!(rig.store().drop_volatile(&place("v")).unwrap().records, 1);
    assert_eq!(rig.store().drop_volatile(&place("v")).unwrap().records, 0);
    rig.put("v", "k", "1");
    assert!(matches!(rig.store().drop_volatile(&place("v")), Err(Error::KindMismatch { .. })));
    assert_eq!(rig.killed().all("v"), [pair("k", "1")]);
}

#[test]
fn a_request_whose_namespace_was_dropped_and_made_again_while_it_was_built_is_done_and_does_not_wait_for_itself() {
    let rig = Rig::buffered();
    let (before, other) = (volatile(&rig, "v"), volatile(&rig, "w"));
    let mut request = WriteRequest::new(1, 2);
    request.put(&before, "first", "1", ALWAYS).unwrap();
    request.put(&other, "other", "1", ALWAYS).unwrap();
    rig.store().drop_volatile(&place("v")).unwrap();
    request.put(&volatile(&rig, "v"), "second", "2", ALWAYS).unwrap();
    request.increment(&before, "third", "n", Number::Int(1), ALWAYS).unwrap();
    request.put(&other, "last", "1", ALWAYS).unwrap();
    let (store, (sender, done)) = (Arc::clone(rig.store()), std::sync::mpsc::channel());
    std::thread::spawn(move || sender.send(store.write(vec![request])).unwrap());
    let outcome = done.recv_timeout(Duration::from_secs(20)).expect("it waits for itself");
    assert_eq!(outcome.into_iter().next().unwrap().unwrap().new, 5);
    let expected = [pair("first", "1"), pair("second", "2"), pair("third", "{\"n\":1}")];
    assert_eq!(contents(&volatile(&rig, "v")), expected);
    assert_eq!(contents(&volatile(&rig, "w")), [pair("other", "1"), pair("last", "1")]);
}

#[test]
fn writers_of_overlapping_namespaces_meet_no_deadlock_and_lose_nothing() {
    let rig = Rig::buffered();
    let tables: Vec<_> = ["x", "y", "z"].iter().map(|name| volatile(&rig, name)).collect();
    std::thread::scope(|scope| {
        for thread in 0..4_usize {
            let (rig, tables) = (&rig, &tables);
            scope.spawn(move || {
                for round in 0..200 {
                    let mut request = WriteRequest::new(thread as u128, 1);
                    for step in 0..2 {
                        let table = &tables[(thread + round + step * (1 + round % 2)) % 3];
                        request.increment(table, "k", "n", Number::Int(1), ALWAYS).unwrap();
                    }
                    rig.store().write(vec![request]).pop().unwrap().unwrap();
                }
            });
        }
    });
    let sum: u64 = tables
        .iter()
        .map(|table| {
            table.get("k").unwrap().value().trim_matches(|c: char| !c.is_ascii_digit()).parse::<u64>().unwrap()
        })
        .sum();
    assert_eq!(sum, 4 * 200 * 2);
}

#[test]
fn a_volatile_namespace_goes_on_when_the_disk_has_ended_all_other_writing() {
    let rig = Rig::synced();
    let table = volatile(&rig, "v");
    rig.put("a", "k", "1");
    rig.disk.fail(
        crate::engine::disk::Failure::nth(1, crate::engine::disk::FailWith::Io).of(crate::engine::disk::Call::Sync),
    );
    assert!(rig.try_put("a", "k", "2").is_err());
    rig.disk.mend();
    assert!(matches!(rig.try_put("a", "k", "3"), Err(Error::Unavailable { .. })));
    put(&rig, &table, "k", "1").unwrap();
    assert_eq!(contents(&table), [pair("k", "1")]);
}
