//! What each operation does and where its limits are, asked for in frames.
#![cfg(feature = "daemon")]

mod daemon_support;

use std::time::{SystemTime, UNIX_EPOCH};

use commonhold::proto::frame::FrameKind;
use commonhold::proto::limits::REPLY_PART_BYTES;
use commonhold::proto::{Answer, Condition, Fault, Kind, Number, Op, Seq, Space, Verb};
use daemon_support::{Peer, Place, flush, get, put, space, write};

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

/// Records, the last write that they have seen, and in how many parts they came.
type All = (Vec<(String, Option<String>)>, Seq, usize);

/// All records in the parts of one answer, with the number of parts; or the fault that ended it.
fn get_all(peer: &mut Peer, namespace: &str, values: bool) -> Result<All, Fault> {
    let id = peer.ask(Verb::GetAll { space: space(namespace), values });
    rest_of_all(peer, id)
}

fn rest_of_all(peer: &mut Peer, id: u64) -> Result<All, Fault> {
    let (mut records, mut parts, mut seen) = (Vec::new(), 0, None);
    loop {
        let reply = peer.next();
        assert_eq!(reply.id, id);
        parts += 1;
        match reply.answer() {
            Answer::Records { entries, seq } => {
                assert_eq!(*seen.get_or_insert(seq), seq, "all parts are of one moment");
                let owned = |text: &str| text.to_owned();
                records.extend(entries.iter().map(|entry| (owned(entry.key), entry.value.map(owned))));
            }
            Answer::Fault(fault) => return Err(fault),
            other => panic!("{other:?}"),
        }
        if reply.kind == FrameKind::Answer {
            return Ok((records, seen.unwrap(), parts));
        }
    }
}

#[test]
fn get_all_streams_every_record_of_one_moment_in_parts() {
    let place = Place::new();
    let _daemon = place.serve();
    let mut peer = place.connect();
    assert_eq!(get_all(&mut peer, "all", true).unwrap().0, []);
    let value = format!("\"{}\"", "x".repeat(10_000));
    let keys: Vec<String> = (0..1_000).map(|number| format!("k{number}")).collect();
    let mut last = Seq(0);
    for chunk in keys.chunks(200) {
        let put = |key| Op::Put { space: 0, key, value: &value, condition: ALWAYS };
        match peer.call(write("all", chunk.iter().map(|key| put(key)).collect())).answer() {
            Answer::Written { seq, .. } => last = seq,
            other => panic!("{other:?}"),
        }
    }
    let (records, seq, parts) = get_all(&mut peer, "all", true).unwrap();
    assert_eq!(seq, last);
    assert!(records.iter().map(|(key, _)| key).eq(&keys));
    assert!(records.iter().all(|(_, found)| found.as_ref() == Some(&value)));
    assert!((8..=12).contains(&parts), "{parts} parts of about {REPLY_PART_BYTES} bytes for 10 MB");
    let (records, _, parts) = get_all(&mut peer, "all", false).unwrap();
    assert!(parts == 1 && records.len() == 1_000 && records.iter().all(|(_, value)| value.is_none()));
}

#[test]
fn a_slow_reader_of_all_records_holds_up_nobody_and_loses_its_snapshot_when_too_much_changes() {
    let place = Place::new();
    let _daemon = place.serve();
    let (mut reader, mut writer) = (place.connect(), place.connect());
    let large = |byte: &str| format!("\"{}\"", byte.repeat(1_000_000));
    let (old, new) = (large("a"), large("b"));
    let keys: Vec<String> = (0..100).map(|number| format!("k{number}")).collect();
    for key in &keys {
        writer.call(put("all", key, &old));
    }
    let id = reader.ask(Verb::GetAll { space: space("all"), values: true });
    // 40 MB may change while it is slow, and it still gets what was there.
    let first = reader.next();
    assert_eq!((first.id, first.kind), (id, FrameKind::Part));
    for key in &keys[60..] {
        writer.call(put("all", key, &new));
    }
    let (records, _, _) = rest_of_all(&mut reader, id).unwrap();
    assert!(records.iter().all(|(_, value)| value.as_ref() == Some(&old)), "the moment before the changes");

    let id = reader.ask(Verb::GetAll { space: space("all"), values: true });
    reader.next();
    for key in &keys {
        writer.call(put("all", key, &new));
    }
    match rest_of_all(&mut reader, id) {
        Err(Fault::SnapshotExpired) => {}
        other => panic!("{:?}", other.map(|(records, ..)| records.len())),
    }
    let (records, _, _) = get_all(&mut reader, "all", true).unwrap();
    assert!(records.len() == 100 && records.iter().all(|(_, value)| value.as_ref() == Some(&new)));
}

#[test]
fn drop_removes_records_and_file_and_a_write_brings_the_namespace_back() {
    let place = Place::new();
    let daemon = place.serve();
    let mut peer = place.connect();
    peer.call(put("gone", "k", "1"));
    peer.call(flush("gone"));
    assert!(place.file("gone").exists());
    let bytes = [
        daemon_support::frame_of(900, put("gone", "l", "1")),
        daemon_support::frame_of(901, Verb::Drop { space: space("gone") }),
        daemon_support::frame_of(902, Verb::Len { space: space("gone") }),
    ];
    peer.send(&bytes.concat());
    let mut seen = Vec::new();
    for _ in 0..3 {
        let reply = peer.next();
        match (reply.id, reply.answer()) {
            (900, Answer::Written { .. }) | (902, Answer::Len { records: 0 }) => {}
            (901, Answer::Dropped { records: 2, .. }) => {
                assert!(!place.file("gone").exists(), "the answer says it is gone");
            }
            other => panic!("{other:?}"),
        }
        seen.push(reply.id);
    }
    assert!(seen.iter().position(|id| *id == 900) < seen.iter().position(|id| *id == 902));
    match peer.call(Verb::Drop { space: space("never") }).answer() {
        Answer::Dropped { records: 0, .. } => {}
        other => panic!("{other:?}"),
    }
    peer.call(put("gone", "back", "1"));
    daemon.stop().unwrap();
    assert_eq!(std::fs::read_to_string(place.file("gone")).unwrap(), "{\n\"back\":1\n}\n");
    assert!(!place.file("never").exists());
}

#[test]
fn a_drop_whose_file_is_held_says_so_and_the_next_flush_removes_it() {
    let place = Place::new();
    let mut options = place.options();
    options.store.flush_lock_timeout = std::time::Duration::from_millis(300);
    let _daemon = commonhold::daemon::Daemon::start(options).unwrap();
    let mut peer = place.connect();
    peer.call(put("held", "k", "1"));
    peer.call(flush("held"));
    let lock = place.hold("held");
    let fault = peer.call(Verb::Drop { space: space("held") }).fault();
    assert!(matches!(&fault, Fault::FlushFailed { places, .. } if places == &["held"]), "{fault:?}");
    assert!(fault.to_string().contains("its records are dropped, but its file could not be removed yet"), "{fault}");
    assert_eq!(peer.call(get("held", "k")).value(), None);
    drop(lock);
    assert!(matches!(peer.call(flush("held")).answer(), Answer::Flushed { .. }));
    assert!(!place.file("held").exists());
}

#[test]
fn workspaces_are_those_that_have_or_had_a_namespace() {
    let place = Place::new();
    for unused in ["not_one", ".hidden_dir", ".commonhold-shared"] {
        std::fs::create_dir(place.path().join(unused)).unwrap();
    }
    std::fs::create_dir(place.path().join("by_file")).unwrap();
    std::fs::write(place.path().join("by_file/kv_store_a.json"), "{\"k\": 1}").unwrap();
    let daemon = place.serve();
    let mut peer = place.connect();
    let at = |workspace| Space { kind: Kind::Persistent, workspace, namespace: "a" };
    for workspace in ["tenant", "emptied"] {
        let mut verb = put("a", "k", "12");
        if let Verb::Write(write) = &mut verb {
            write.spaces = vec![at(workspace)];
        }
        peer.call(verb);
        peer.call(Verb::Flush { space: Some(at(workspace)), rewrite: false, wait: true });
    }
    peer.call(Verb::Drop { space: at("emptied") });
    let reply = peer.call(Verb::Workspaces);
    let Answer::Workspaces { list } = reply.answer() else { panic!("{reply:?}") };
    let found: Vec<_> =
        list.iter().map(|w| (w.workspace.as_str(), w.namespaces, w.loaded, w.records, w.bytes)).collect();
    assert_eq!(found, [("", 0, 0, 0, 0), ("by_file", 1, 0, 0, 0), ("emptied", 0, 0, 0, 0), ("tenant", 1, 1, 1, 3)]);
    assert_eq!(list[1].file_bytes, 8);
    daemon.stop().unwrap();
}
