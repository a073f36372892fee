//! Conditions and counts: inside one request, between the requests of one group, and across a restart.

use std::sync::Barrier;

use commonhold_proto::{Condition, Durability, Seq};

use super::rig::{Rig, file, options, pair};
use crate::engine::{Error, WriteRequest};

fn counts(written: crate::engine::Written) -> (u64, u64) {
    (written.new, written.found)
}

#[test]
fn a_condition_is_about_the_record_as_it_is() {
    let rig = Rig::buffered();
    let first = rig.put("a", "k", "1");
    let put_if =
        |value: &str, condition| rig.write(|request, table| request.put(&table("a"), "k", value, condition).unwrap());
    match put_if("2", Condition::IfAbsent) {
        Err(Error::ConditionFailed { operation: 0, found }) => assert_eq!(found, Some(first)),
        other => panic!("{other:?}"),
    }
    let second = put_if("2", Condition::IfSeq(first)).unwrap();
    assert_eq!(counts(second), (0, 1));
    for wrong in [first, Seq::ZERO, Seq::MAX, second.seq.next()] {
        match put_if("3", Condition::IfSeq(wrong)) {
            Err(Error::ConditionFailed { found, .. }) => assert_eq!(found, Some(second.seq)),
            other => panic!("{other:?}"),
        }
    }
    rig.delete("a", "k");
    for absent in [Seq::ZERO, second.seq] {
        assert!(matches!(put_if("3", Condition::IfSeq(absent)), Err(Error::ConditionFailed { found: None, .. })));
    }
    assert_eq!(counts(put_if("4", Condition::IfAbsent).unwrap()), (1, 0));
    assert_eq!(rig.all("a"), [pair("k", "4")]);
}

#[test]
fn a_refused_request_leaves_nothing() {
    let rig = Rig::buffered();
    rig.put("a", "k", "1");
    rig.put("b", "k", "1");
    let before = rig.files();
    let refused = rig.write(|request, table| {
        request.put(&table("a"), "new", "1", Condition::Always).unwrap();
        request.clear(&table("b")).unwrap();
        request.delete(&table("a"), "k", Condition::Always).unwrap();
        request.put(&table("a"), "k", "2", Condition::IfSeq(Seq(1))).unwrap();
    });
    assert!(matches!(refused, Err(Error::ConditionFailed { operation: 3, found: None })));
    assert!(rig.files() == before, "a refused request is not journaled");
    assert_eq!((rig.all("a"), rig.all("b")), (vec![pair("k", "1")], vec![pair("k", "1")]));
    let rig = rig.killed();
    assert_eq!((rig.all("a"), rig.all("b")), (vec![pair("k", "1")], vec![pair("k", "1")]));
}

#[test]
fn a_condition_sees_the_operations_before_it_in_its_request() {
    let rig = Rig::buffered();
    let twice = rig.write(|request, table| {
        request.put(&table("a"), "k", "1", Condition::IfAbsent).unwrap();
        request.put(&table("a"), "k", "2", Condition::IfAbsent).unwrap();
    });
    assert!(matches!(twice, Err(Error::ConditionFailed { operation: 1, .. })));
    let replaced = rig.write(|request, table| {
        request.put(&table("a"), "k", "1", Condition::IfAbsent).unwrap();
        request.delete(&table("a"), "k", Condition::Always).unwrap();
        request.put(&table("a"), "k", "2", Condition::IfAbsent).unwrap();
        request.put(&table("a"), "k", "3", Condition::Always).unwrap();
    });
    // Two were new; the delete found one and the last put another.
    assert_eq!(counts(replaced.unwrap()), (2, 2));
    assert_eq!(rig.all("a"), [pair("k", "3")]);
    let cleared = rig.write(|request, table| {
        request.put(&table("a"), "l", "1", Condition::Always).unwrap();
        request.clear(&table("a")).unwrap();
        request.put(&table("a"), "k", "4", Condition::IfAbsent).unwrap();
    });
    assert_eq!(counts(cleared.unwrap()), (2, 2), "l and k were new, and the clear found k and l");
    assert_eq!(rig.all("a"), [pair("k", "4")]);
}

#[test]
fn a_condition_sees_the_requests_before_it_in_its_group() {
    let rig = Rig::buffered();
    let table = rig.table("a");
    let current = rig.put("a", "k", "0");
    let request = |value: &str, condition| {
        let mut request = WriteRequest::new(7, 1);
        request.put(&table, "k", value, condition).unwrap();
        request
    };
    let requests = vec![
        request("1", Condition::IfSeq(current)),
        request("2", Condition::IfSeq(current)),
        request("3", Condition::IfAbsent),
        request("4", Condition::Always),
    ];
    let results = rig.store().write(requests);
    let first = results[0].as_ref().unwrap().seq;
    for refused in &results[1..3] {
        assert!(matches!(refused, Err(Error::ConditionFailed { found: Some(found), .. }) if *found == first));
    }
    assert!(results[3].as_ref().unwrap().seq > first);
    assert_eq!(rig.get("a", "k").unwrap(), "4");
    assert_eq!(rig.killed().get("a", "k").unwrap(), "4");
}

#[test]
fn of_many_who_ask_for_the_same_version_one_wins() {
    let rig = Rig::buffered();
    let table = rig.table("a");
    for round in 0..200 {
        let key = format!("k{round}");
        let seq = rig.put("a", &key, "0");
        let barrier = Barrier::new(4);
        let wins: Vec<_> = std::thread::scope(|scope| {
            let contend = |thread: usize| {
                let (rig, table, barrier, key) = (&rig, &table, &barrier, &key);
                move || {
                    let condition = |condition, key: &str| {
                        let mut request = WriteRequest::new(thread as u128, 1);
                        request.put(table, key, &thread.to_string(), condition).unwrap();
                        request
                    };
                    let absent = format!("new-{key}");
                    let asked = vec![condition(Condition::IfSeq(seq), key), condition(Condition::IfAbsent, &absent)];
                    barrier.wait();
                    rig.store().write(asked).iter().map(Result::is_ok).collect::<Vec<_>>()
                }
            };
            let threads: Vec<_> = (0..4).map(|thread| scope.spawn(contend(thread))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for which in 0..2 {
            assert_eq!(wins.iter().filter(|won| won[which]).count(), 1, "round {round}: {wins:?}");
        }
    }
}

#[test]
fn a_version_from_before_a_restart_may_be_refused_but_never_matches_another_value() {
    let rig = Rig::buffered();
    let old = rig.put("a", "k", "1");
    let other = rig.put("a", "l", "1");
    rig.flush("a").unwrap();
    let cut = rig.table("a").covered();
    let mut rig = rig.reopened();
    // The file was known: its records carry its cut, which no write to k but its last one could have had.
    assert_eq!(rig.table("a").get("k").unwrap().seq(), cut);
    assert!(cut >= other && other > old);
    for seen in [old, cut] {
        rig.close();
        // Another program writes other values while nobody owns the store.
        rig.disk.write_file(file("a"), b"{\"k\": 2, \"l\": 2}");
        rig.try_open().unwrap();
        let result = rig.write(|request, table| request.put(&table("a"), "k", "9", Condition::IfSeq(seen)).unwrap());
        assert!(matches!(result, Err(Error::ConditionFailed { .. })), "version {seen} is that of another value");
    }
    // A version read from a foreign file matches until that file is replaced, and not after.
    let foreign = rig.table("a").get("k").unwrap().seq();
    rig.close();
    rig.disk.write_file(file("a"), b"{\"k\": 3}");
    let rig = rig.opened();
    let result = rig.write(|request, table| request.delete(&table("a"), "k", Condition::IfSeq(foreign)).unwrap());
    assert!(matches!(result, Err(Error::ConditionFailed { .. })));
}

#[test]
fn a_delete_and_a_put_in_one_request_move_the_key_to_the_end_also_after_replay() {
    for flush in [false, true] {
        let rig = Rig::buffered();
        for key in ["k", "l", "m"] {
            rig.put("a", key, "1");
        }
        let moved = rig.write(|request, table| {
            request.delete(&table("a"), "k", Condition::Always).unwrap();
            request.put(&table("a"), "k", "2", Condition::Always).unwrap();
        });
        assert_eq!(counts(moved.unwrap()), (1, 1));
        let expected = [pair("l", "1"), pair("m", "1"), pair("k", "2")];
        assert_eq!(rig.all("a"), expected);
        if flush {
            rig.flush("a").unwrap();
        }
        assert_eq!(rig.killed().all("a"), expected);
    }
}

#[test]
fn a_clear_finds_every_record_and_survives_replay() {
    let rig = Rig::buffered();
    assert_eq!(counts(rig.clear("a")), (0, 0));
    for key in ["k", "l", "m"] {
        rig.put("a", key, "1");
    }
    rig.flush("a").unwrap();
    rig.delete("a", "l");
    assert_eq!(counts(rig.delete("a", "l")), (0, 0));
    assert_eq!(counts(rig.clear("a")), (0, 2));
    rig.put("a", "l", "2");
    let rig = rig.killed();
    assert_eq!(rig.all("a"), [pair("l", "2")]);
    rig.clear("a");
    rig.flush("a").unwrap();
    assert_eq!(rig.disk.read_file(file("a")), b"{}\n", "an emptied namespace has an empty file, not none");
    assert_eq!(rig.killed().all("a"), []);
}

#[test]
fn refused_values_and_keys_say_what_is_wrong_and_leave_the_request_as_it_was() {
    let rig = Rig::new(options(Durability::Buffered)).opened();
    let table = rig.table("a");
    let mut request = WriteRequest::new(7, 1);
    match request.put(&table, "k", "{\"a\": }", Condition::Always) {
        Err(Error::InvalidJson { key, offset, .. }) => assert_eq!((key.as_str(), offset), ("k", 6)),
        other => panic!("{other:?}"),
    }
    let long = "k".repeat(commonhold_proto::limits::MAX_KEY_BYTES + 1);
    assert!(matches!(request.put(&table, &long, "1", Condition::Always), Err(Error::Name(_))));
    assert!(matches!(request.delete(&table, &long, Condition::Always), Err(Error::Name(_))));
    let value = format!("\"{}\"", "x".repeat(commonhold_proto::limits::MAX_VALUE_BYTES - 1));
    assert!(matches!(request.put(&table, "k", &value, Condition::Always), Err(Error::TooLarge { .. })));
    request.put(&table, "l", "1", Condition::Always).unwrap();
    assert_eq!(counts(rig.store().write(vec![request]).pop().unwrap().unwrap()), (1, 0));
    assert_eq!(rig.all("a"), [pair("l", "1")]);
}
