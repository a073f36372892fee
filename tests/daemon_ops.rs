//! What each operation does and where its limits are, asked for in frames.
#![cfg(feature = "daemon")]

mod daemon_support;

use std::time::{SystemTime, UNIX_EPOCH};

use commonhold::proto::{Answer, Condition, Fault, Number, Op};
use daemon_support::{Place, get, put, write};

const ALWAYS: Condition = Condition::Always;

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[test]
fn merge_increment_append_and_stamp_change_what_is_there() {
    let place = Place::new();
    let daemon = place.serve();
    let mut peer = place.connect();
    let ops = vec![
        Op::Merge { space: 0, key: "k", fields: r#"{ "a": 1.10 }"#, condition: Condition::IfAbsent },
        Op::Increment { space: 0, key: "k", field: "n", by: Number::Int(2), condition: ALWAYS },
        Op::Increment { space: 0, key: "k", field: "f", by: Number::Float(0.1), condition: ALWAYS },
        Op::Append { space: 0, key: "k", field: "l", items: "[1,2,3]", keep_last: Some(2), condition: ALWAYS },
    ];
    match peer.call(write("ops", ops)).answer() {
        Answer::Written { new: 1, found: 3, .. } => {}
        other => panic!("{other:?}"),
    }
    let expected = r#"{"a":1.10,"n":2,"f":0.1,"l":[2,3]}"#;
    assert_eq!(peer.call(get("ops", "k")).value().as_deref(), Some(expected));

    let earliest = seconds();
    peer.call(write("ops", vec![Op::PutStamped { space: 0, key: "s", value: "{}", condition: ALWAYS }]));
    let stamped = peer.call(get("ops", "s")).value().unwrap();
    let value: serde_json::Value = serde_json::from_str(&stamped).unwrap();
    assert_eq!((&value["_id"], &value["create_time"]), (&"s".into(), &value["update_time"]));
    assert!((earliest..=seconds()).contains(&value["create_time"].as_u64().unwrap()), "{stamped}");
    daemon.stop().unwrap();
    let file = std::fs::read_to_string(place.file("ops")).unwrap();
    assert!(file.contains(expected) && file.contains(&stamped), "{file}");
}

#[test]
fn a_change_that_cannot_be_is_refused_with_its_reason_and_nothing_is_done() {
    let place = Place::new();
    let _daemon = place.serve();
    let mut peer = place.connect();
    peer.call(put("ops", "list", "[]"));
    peer.call(put("ops", "most", r#"{"n":9223372036854775807}"#));
    let wrong_type = vec![
        Op::Put { space: 0, key: "new", value: "1", condition: ALWAYS },
        Op::Merge { space: 0, key: "list", fields: "{}", condition: ALWAYS },
    ];
    let fault = peer.call(write("ops", wrong_type)).fault();
    assert!(matches!(&fault, Fault::WrongType { operation: 1, field: None, .. }), "{fault:?}");
    assert!(fault.to_string().contains(r#"the value of key "list" must be an object, but it is a list"#), "{fault}");
    let overflow = vec![Op::Increment { space: 0, key: "most", field: "n", by: Number::Int(1), condition: ALWAYS }];
    let fault = peer.call(write("ops", overflow)).fault();
    assert!(
        matches!(&fault, Fault::Overflow { operation: 0, key, field } if key == "most" && field == "n"),
        "{fault:?}"
    );
    let no_object = vec![Op::PutStamped { space: 0, key: "s", value: "[1]", condition: ALWAYS }];
    let fault = peer.call(write("ops", no_object)).fault();
    assert!(matches!(&fault, Fault::WrongType { operation: 0, .. }), "{fault:?}");
    assert_eq!(peer.call(get("ops", "new")).value(), None);
    assert_eq!(peer.call(get("ops", "most")).value().as_deref(), Some(r#"{"n":9223372036854775807}"#));
}
