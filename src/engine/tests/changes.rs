//! Merge, increment, append and stamp: what they make of the record that is there, in whatever company they come.

use std::time::Duration;

use commonhold_proto::limits::{MAX_CHANGED_VALUE_BYTES, MAX_NESTING};
use commonhold_proto::{Condition, Number};

use super::rig::{Rig, pair};
use crate::engine::{Error, WriteRequest, Written};

const ALWAYS: Condition = Condition::Always;

fn merge(rig: &Rig, key: &str, fields: &str) -> Result<Written, Error> {
    rig.write(|request, table| request.merge(&table("a"), key, fields, ALWAYS).unwrap())
}

fn increment(rig: &Rig, key: &str, field: &str, by: Number) -> Result<Written, Error> {
    rig.write(|request, table| request.increment(&table("a"), key, field, by, ALWAYS).unwrap())
}

fn append(rig: &Rig, key: &str, items: &str, keep_last: Option<u32>) -> Result<Written, Error> {
    rig.write(|request, table| request.append(&table("a"), key, "l", items, keep_last, ALWAYS).unwrap())
}

fn value(rig: &Rig, key: &str) -> String {
    rig.get("a", key).unwrap()
}

#[test]
fn a_change_of_a_missing_record_makes_one_and_of_an_existing_one_keeps_its_place() {
    let rig = Rig::buffered();
    let written = merge(&rig, "m", r#"{ "a": 1.10, "b": [] }"#).unwrap();
    assert_eq!((written.new, written.found), (1, 0));
    increment(&rig, "i", "n", Number::Int(5)).unwrap();
    append(&rig, "l", "[1, 2]", None).unwrap();
    let written = merge(&rig, "m", r#"{"b":null,"c":2}"#).unwrap();
    assert_eq!((written.new, written.found), (0, 1));
    increment(&rig, "i", "n", Number::Int(-7)).unwrap();
    append(&rig, "l", "[3]", Some(2)).unwrap();
    let expected = [pair("m", r#"{"a":1.10,"b":null,"c":2}"#), pair("i", r#"{"n":-2}"#), pair("l", r#"{"l":[2,3]}"#)];
    assert_eq!(rig.all("a"), expected);
    assert_eq!(rig.get("a", "m").map(|_| rig.table("a").get("m").unwrap().seq()), Some(written.seq));
    assert_eq!(rig.killed().all("a"), expected);
}

#[test]
fn what_is_not_touched_stays_byte_for_byte() {
    let rig = Rig::buffered();
    let value = r#"{"big":123456789012345678901234567890,"x":1.10,"nan":NaN,"s":"\u0001é","deep":[{"n":1e5}]}"#;
    rig.put("a", "k", value);
    increment(&rig, "k", "n", Number::Int(1)).unwrap();
    merge(&rig, "k", r#"{"x":-0.0}"#).unwrap();
    append(&rig, "k", "[1E5]", None).unwrap();
    let expected = value.replace("1.10", "-0.0").replace("]}", r#"],"n":1,"l":[1E5]}"#);
    assert_eq!(self::value(&rig, "k"), expected);
}

#[test]
fn sums_are_pythons() {
    for (old, by, sum) in [
        ("1", Number::Float(0.5), "1.5"),
        ("1", Number::Float(1.0), "2.0"),
        ("1.5", Number::Int(1), "2.5"),
        ("0.1", Number::Float(0.2), "0.30000000000000004"),
        ("9999999999999998", Number::Float(2.0), "1e+16"),
        ("1.10", Number::Int(0), "1.1"),
        ("1e308", Number::Float(7e307), "1.7e+308"),
        ("-1.7976931348623157e308", Number::Float(f64::MAX), "0.0"),
        ("9223372036854775806", Number::Int(1), "9223372036854775807"),
        ("-9223372036854775807", Number::Int(-1), "-9223372036854775808"),
        ("-9223372036854775808", Number::Int(i64::MAX), "-1"),
    ] {
        let rig = Rig::buffered();
        rig.put("a", "k", &format!("{{\"n\":{old}}}"));
        increment(&rig, "k", "n", by).unwrap();
        assert_eq!(value(&rig, "k"), format!("{{\"n\":{sum}}}"), "{old} and {by:?}");
    }
}

#[test]
fn a_sum_that_is_no_finite_number_or_beyond_64_bits_is_refused_and_nothing_is_changed() {
    for (old, by) in [
        ("1e308", Number::Float(1e308)),
        ("-1e308", Number::Float(-1e308)),
        ("1", Number::Float(f64::NEG_INFINITY)),
        ("1", Number::Float(f64::NAN)),
        ("Infinity", Number::Float(f64::NEG_INFINITY)),
        ("NaN", Number::Int(1)),
        ("-Infinity", Number::Int(1)),
        ("1e400", Number::Int(-1)),
        ("9223372036854775807", Number::Int(1)),
        ("-9223372036854775808", Number::Int(-1)),
        ("9223372036854775808", Number::Int(-1)),
    ] {
        let rig = Rig::buffered();
        rig.put("a", "k", &format!("{{\"n\":{old}}}"));
        let refused = increment(&rig, "k", "n", by);
        assert!(matches!(refused, Err(Error::Overflow { operation: 0, .. })), "{old} and {by:?}: {refused:?}");
        assert_eq!(value(&rig, "k"), format!("{{\"n\":{old}}}"));
    }
}

#[test]
fn what_does_not_fit_is_refused_with_its_reason_and_nothing_of_the_request_is_done() {
    let rig = Rig::buffered();
    for (key, value) in [("list", "[]"), ("null", r#"{"n":null,"l":{}}"#), ("big", r#"{"n":9223372036854775808}"#)] {
        rig.put("a", key, value);
    }
    let before = rig.all("a");
    let refused = rig.write(|request, table| {
        request.put(&table("a"), "other", "1", ALWAYS).unwrap();
        request.increment(&table("a"), "list", "n", Number::Int(1), ALWAYS).unwrap();
    });
    match refused {
        Err(Error::WrongType { operation: 1, key, field: None, needed, found }) => {
            assert_eq!((&*key, &*needed, &*found), ("list", "an object", "it is a list"));
        }
        other => panic!("{other:?}"),
    }
    match increment(&rig, "null", "n", Number::Int(1)) {
        Err(Error::WrongType { operation: 0, field: Some(field), needed, found, .. }) => {
            assert_eq!((&*field, &*needed, &*found), ("n", "a number", "it is null"));
        }
        other => panic!("{other:?}"),
    }
    match append(&rig, "null", "[1]", None) {
        Err(Error::WrongType { field: Some(_), needed, found, .. }) => {
            assert_eq!((&*needed, &*found), ("a list", "it is an object"));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(merge(&rig, "list", "{}"), Err(Error::WrongType { field: None, .. })));
    for by in [Number::Int(1), Number::Int(-1), Number::Float(1.0)] {
        assert!(matches!(increment(&rig, "big", "n", by), Err(Error::Overflow { .. })), "{by:?}");
    }
    increment(&rig, "edge", "n", Number::Int(i64::MAX)).unwrap();
    assert!(matches!(increment(&rig, "edge", "n", Number::Int(1)), Err(Error::Overflow { .. })));
    assert_eq!(rig.all("a")[..3], before);
}

#[test]
fn operands_that_are_none_are_refused_before_the_turn() {
    let rig = Rig::buffered();
    let table = rig.table("a");
    let mut request = WriteRequest::new(1, 1);
    for (outcome, words) in [
        (request.merge(&table, "k", "[1]", ALWAYS), "found a list where an object of fields to merge was expected"),
        (request.append(&table, "k", "l", "1", None, ALWAYS), "found a number where a list of items to append"),
        (request.merge(&table, "k", "{", ALWAYS), "found the end of the text"),
    ] {
        match outcome {
            Err(Error::InvalidJson { key, reason, .. }) => assert!(key == "k" && reason.starts_with(words), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(
        request.put_stamped(&table, "k", "[]", 0, ALWAYS),
        Err(Error::WrongType { operation: 0, field: None, .. })
    ));
    // In an object it would nest deeper than what can be loaded again.
    let deepest = format!("{}{}", "[".repeat(MAX_NESTING), "]".repeat(MAX_NESTING));
    assert!(matches!(request.append(&table, "k", "l", &deepest, None, ALWAYS), Err(Error::TooLarge { .. })));
    assert!(request.append(&table, "k", "l", &deepest[1..deepest.len() - 1], None, ALWAYS).is_ok());
    assert_eq!(rig.store().write(vec![request]).pop().unwrap().unwrap().new, 1);
    let expected = rig.all("a");
    let rig = rig.killed();
    assert_eq!(rig.all("a"), expected);
    rig.flush("a").unwrap();
    assert_eq!(rig.killed().all("a"), expected, "what was stored can be loaded");
}

#[test]
fn a_value_above_the_limit_is_not_changed_and_none_becomes_larger() {
    let rig = Rig::buffered();
    let filler = |bytes: usize| format!("{{\"p\":\"{}\"}}", "x".repeat(bytes - 8));
    rig.put("a", "large", &filler(MAX_CHANGED_VALUE_BYTES + 1));
    rig.put("a", "full", &filler(MAX_CHANGED_VALUE_BYTES));
    let before = rig.all("a");
    for outcome in [
        merge(&rig, "large", r#"{"p":1}"#),
        increment(&rig, "large", "n", Number::Int(1)),
        merge(&rig, "full", r#"{"q":1}"#),
        append(&rig, "full", "[1]", None),
    ] {
        match outcome {
            Err(Error::TooLarge { what, got, limit }) => {
                assert!(what.contains("key") && got > limit && limit == MAX_CHANGED_VALUE_BYTES as u64, "{what}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(rig.all("a"), before);
    merge(&rig, "full", r#"{"p":""}"#).unwrap();
    assert_eq!(value(&rig, "full"), r#"{"p":""}"#);
    rig.write(|request, table| request.put_stamped(&table("a"), "large", "{}", 1, ALWAYS).unwrap())
        .expect("a stamp has no such limit");
}

#[test]
fn changes_see_the_operations_and_requests_before_them() {
    let rig = Rig::buffered();
    let table = rig.table("a");
    rig.put("a", "k", r#"{"n":1}"#);
    let request = |build: &dyn Fn(&mut WriteRequest)| {
        let mut request = WriteRequest::new(1, 1);
        build(&mut request);
        request
    };
    let add = |request: &mut WriteRequest| request.increment(&table, "k", "n", Number::Int(1), ALWAYS).unwrap();
    let requests = vec![
        request(&|r| (0..3).for_each(|_| add(r))),
        request(&|r| {
            r.put(&table, "k", "[]", ALWAYS).unwrap();
            add(r);
        }),
        request(&|r| {
            add(r);
            r.delete(&table, "k", ALWAYS).unwrap();
            r.merge(&table, "k", r#"{"m":1}"#, Condition::IfAbsent).unwrap();
        }),
        request(&add),
        request(&|r| r.merge(&table, "k", "{}", Condition::IfAbsent).unwrap()),
        request(&|r| {
            r.clear(&table).unwrap();
            add(r);
            add(r);
        }),
    ];
    let outcomes = rig.store().write(requests);
    assert!(matches!(outcomes[1], Err(Error::WrongType { operation: 1, .. })));
    assert!(matches!(outcomes[4], Err(Error::ConditionFailed { found: Some(_), .. })));
    let counts: Vec<_> = outcomes.iter().filter_map(|o| o.as_ref().ok()).map(|w| (w.new, w.found)).collect();
    assert_eq!(counts, [(0, 3), (1, 2), (0, 1), (1, 2)]);
    assert_eq!(rig.all("a"), [pair("k", r#"{"n":2}"#)]);
    assert_eq!(rig.killed().all("a"), [pair("k", r#"{"n":2}"#)]);
}

#[test]
fn no_increment_of_many_is_lost() {
    let rig = Rig::buffered();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                (0..250)
                    .map(|_| increment(&rig, "k", "n", Number::Int(1)))
                    .for_each(|outcome| assert!(outcome.is_ok()));
            });
        }
    });
    assert_eq!(value(&rig, "k"), r#"{"n":1000}"#);
}

#[test]
fn a_group_whose_changes_make_much_of_little_is_done_in_several_goes() {
    let rig = Rig::buffered();
    let table = rig.table("a");
    rig.put("a", "k", &format!("{{\"p\":\"{}\",\"n\":0}}", "x".repeat(1_000_000)));
    let requests = (0..100)
        .map(|_| {
            let mut request = WriteRequest::new(1, 1);
            request.increment(&table, "k", "n", Number::Int(1), ALWAYS).unwrap();
            request
        })
        .collect();
    let seqs: Vec<_> = rig.store().write(requests).into_iter().map(|outcome| outcome.unwrap().seq).collect();
    assert!(seqs.is_sorted_by(|one, next| one < next), "{seqs:?}");
    assert!(rig.killed().get("a", "k").unwrap().ends_with("\"n\":100}"));
    // In one request they cannot be parted, so what they make together is bounded.
    let rig = Rig::buffered();
    let value = format!("{{\"p\":\"{}\"}}", "x".repeat(1_000_000));
    let outcome = rig.write(|request, table| {
        request.put(&table("a"), "k", &value, ALWAYS).unwrap();
        (0..200).for_each(|_| request.increment(&table("a"), "k", "n", Number::Int(1), ALWAYS).unwrap());
    });
    assert!(matches!(outcome, Err(Error::TooLarge { .. })), "{outcome:?}");
    assert_eq!(rig.all("a"), []);
}

#[test]
fn a_stamped_record_keeps_the_create_time_of_the_one_it_replaces() {
    let rig = Rig::buffered();
    let stamp = |value: &str| {
        let now_s = rig.store().unix_s();
        rig.write(|request, table| request.put_stamped(&table("a"), "k", value, now_s, ALWAYS).unwrap()).unwrap()
    };
    assert_eq!(stamp(r#"{"x":1}"#).new, 1);
    assert_eq!(value(&rig, "k"), r#"{"x":1,"create_time":1700000000,"update_time":1700000000,"_id":"k"}"#);
    rig.clock.advance(Duration::from_mins(1));
    assert_eq!(stamp(r#"{"create_time":1,"x":2}"#).found, 1);
    assert_eq!(value(&rig, "k"), r#"{"create_time":1700000000,"x":2,"update_time":1700000060,"_id":"k"}"#);
    let killed = rig.killed();
    assert_eq!(value(&killed, "k"), r#"{"create_time":1700000000,"x":2,"update_time":1700000060,"_id":"k"}"#);
}

#[test]
fn a_stamp_sees_what_came_between_its_building_and_its_turn() {
    let rig = Rig::buffered();
    let table = rig.table("a");
    let mut first = WriteRequest::new(1, 1);
    first.put_stamped(&table, "k", "{}", 50, ALWAYS).unwrap();
    let mut second = WriteRequest::new(1, 2);
    second.put_stamped(&table, "k", "{}", 60, ALWAYS).unwrap();
    second.put_stamped(&table, "l", "{}", 60, ALWAYS).unwrap();
    rig.put("a", "l", r#"{"create_time":7.5}"#);
    rig.store().write(vec![first, second]).into_iter().for_each(|outcome| assert!(outcome.is_ok()));
    assert_eq!(value(&rig, "k"), r#"{"create_time":50,"update_time":60,"_id":"k"}"#);
    assert_eq!(value(&rig, "l"), r#"{"create_time":7,"update_time":60,"_id":"l"}"#);
}
