//! What each operation does and where its limits are, asked for in frames.
#![cfg(feature = "daemon")]

mod daemon_support;

use std::time::{SystemTime, UNIX_EPOCH};

use commonhold::proto::frame::FrameKind;
use commonhold::proto::limits::{
    MAX_CHANGED_VALUE_BYTES, MAX_FRAME_BYTES, MAX_KEY_BYTES, MAX_OPERATIONS, MAX_RECORD_BYTES, MAX_VALUE_BYTES,
    REPLY_PART_BYTES,
};
use commonhold::proto::{Answer, Condition, Cursor, Fault, Kind, Number, Op, Seq, Space, Verb};
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
    assert!(matches!(&fault, Fault::TimedOut { waited_ms: 300.., .. }), "{fault:?}");
    assert!(fault.to_string().contains("the records are dropped, and the file goes with the next flush"), "{fault}");
    assert_eq!(peer.call(get("held", "k")).value(), None);
    drop(lock);
    assert!(matches!(peer.call(flush("held")).answer(), Answer::Flushed { .. }));
    assert!(!place.file("held").exists());
}

#[test]
fn workspaces_are_those_that_have_a_namespace() {
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
    assert_eq!(found, [("", 0, 0, 0, 0), ("by_file", 1, 0, 0, 0), ("tenant", 1, 1, 1, 3)]);
    assert_eq!(list[1].file_bytes, 8);
    daemon.stop().unwrap();
}

fn volatile(namespace: &str) -> Space<'_> {
    Space { kind: Kind::Volatile, workspace: "", namespace }
}

/// The verb, to the volatile namespace of that name.
fn in_volatile<'a>(namespace: &'a str, mut verb: Verb<'a>) -> Verb<'a> {
    match &mut verb {
        Verb::Write(write) => write.spaces = vec![volatile(namespace)],
        Verb::Get { space, .. } | Verb::Flush { space: Some(space), .. } | Verb::Drop { space } => {
            *space = volatile(namespace);
        }
        other => panic!("{other:?}"),
    }
    verb
}

#[test]
fn a_volatile_namespace_is_read_and_written_as_any_other_and_ends_with_the_daemon() {
    let place = Place::new();
    let daemon = place.serve();
    let (mut peer, mut other) = (place.connect(), place.connect());
    peer.call(in_volatile("v", put("v", "k", "1")));
    assert_eq!(other.call(in_volatile("v", get("v", "k"))).value().as_deref(), Some("1"));
    let fault = other.call(get("v", "k")).fault();
    assert!(matches!(&fault, Fault::KindMismatch { place, kind: Kind::Volatile } if place == "v"), "{fault:?}");
    other.call(put("kept", "k", "1"));
    let fault = peer.call(in_volatile("kept", get("kept", "k"))).fault();
    assert!(matches!(&fault, Fault::KindMismatch { kind: Kind::Persistent, .. }), "{fault:?}");
    let fault = peer.call(in_volatile("v", flush("v"))).fault();
    assert!(matches!(&fault, Fault::Volatile { what, .. } if what == "flushed"), "{fault:?}");
    let mut mixed = write("v", vec![Op::Clear { space: 0 }, Op::Clear { space: 1 }]);
    if let Verb::Write(write) = &mut mixed {
        write.spaces = vec![volatile("v"), space("kept")];
    }
    assert_eq!(peer.call(mixed).fault(), Fault::MixedKinds);
    assert_eq!(peer.call(in_volatile("v", get("v", "k"))).value().as_deref(), Some("1"), "nothing was cleared");
    // Another session drops it; who has used it before finds the new one.
    let dropped = other.call(in_volatile("v", Verb::Drop { space: space("v") }));
    assert!(matches!(dropped.answer(), Answer::Dropped { records: 1, .. }));
    other.call(in_volatile("v", put("v", "new", "2")));
    assert_eq!(peer.call(in_volatile("v", get("v", "new"))).value().as_deref(), Some("2"));
    let flush_all = Verb::Flush { space: None, rewrite: true, wait: true };
    assert!(matches!(peer.call(flush_all).answer(), Answer::Flushed { rewritten: 1, .. }));
    daemon.stop().unwrap();
    assert!(!place.file("v").exists() && place.file("kept").exists());
    let _daemon = place.serve();
    assert_eq!(place.connect().call(in_volatile("v", get("v", "new"))).value(), None);
}

/// The keys of a page, and where it ended.
fn page(peer: &mut Peer, cursor: Option<&(u64, u64, String)>, limit: u32) -> Result<Page, Fault> {
    let cursor = cursor.map(|(load, ordinal, key)| Cursor { load: *load, ordinal: *ordinal, key });
    let reply = peer.call(Verb::Scan { space: space("s"), cursor, prefix: "", limit, values: false });
    match reply.answer() {
        Answer::Page { entries, next, .. } => {
            let next = next.map(|next| (next.load, next.ordinal, next.key.to_owned()));
            Ok((entries.iter().map(|entry| entry.key.to_owned()).collect(), next))
        }
        Answer::Fault(fault) => Err(fault),
        other => panic!("{other:?}"),
    }
}

type Page = (Vec<String>, Option<(u64, u64, String)>);

#[test]
fn a_scan_that_spans_a_restart_goes_on_behind_its_key_or_says_that_it_cannot() {
    let place = Place::new();
    let daemon = place.serve();
    let mut peer = place.connect();
    for key in ["a", "b", "gone", "c", "d"] {
        peer.call(put("s", key, "1"));
    }
    // Ordinals after the restart are other ones than before.
    peer.call(write("s", vec![Op::Delete { space: 0, key: "a", condition: ALWAYS }]));
    peer.call(put("s", "a", "1"));
    let (first, at_b) = page(&mut peer, None, 1).unwrap();
    let (_, at_gone) = page(&mut peer, None, 2).unwrap();
    assert_eq!(first, ["b"]);
    daemon.stop().unwrap();
    let _daemon = place.serve();
    let mut peer = place.connect();
    let (rest, end) = page(&mut peer, at_b.as_ref(), 0).unwrap();
    assert_eq!((rest, end), (["gone", "c", "d", "a"].map(str::to_owned).to_vec(), None));
    peer.call(write("s", vec![Op::Delete { space: 0, key: "gone", condition: ALWAYS }]));
    assert_eq!(page(&mut peer, at_gone.as_ref(), 0), Err(Fault::CursorExpired));
    let (rest, _) = page(&mut peer, at_b.as_ref(), 0).unwrap();
    assert_eq!(rest, ["c", "d", "a"]);
}

#[test]
fn a_write_above_the_memory_limit_is_refused_and_reads_deletes_and_flushes_go_on() {
    let place = Place::new();
    let mut options = place.options();
    options.store.max_memory = Some(8 << 20);
    let _daemon = commonhold::daemon::Daemon::start(options).unwrap();
    let mut peer = place.connect();
    let value = format!("\"{}\"", "x".repeat(1 << 20));
    let mut done = 0;
    let fault = loop {
        let reply = peer.call(put("m", &format!("k{done}"), &value));
        match reply.answer() {
            Answer::Written { .. } => done += 1,
            Answer::Fault(fault) => break fault,
            other => panic!("{other:?}"),
        }
    };
    assert!((3..8).contains(&done), "{done} MiB fit into 8 beside the journal's buffer");
    assert!(
        matches!(fault, Fault::MemoryFull { limit, needed, .. } if limit == 8 << 20 && needed > 1 << 20),
        "{fault:?}"
    );
    assert_eq!(peer.call(get("m", "k0")).value().as_ref(), Some(&value));
    assert!(matches!(peer.call(flush("m")).answer(), Answer::Flushed { rewritten: 1, .. }));
    assert!(matches!(peer.call(put("m", "k0", "1")).answer(), Answer::Written { .. }), "smaller is no growth");
    assert!(matches!(peer.call(put("m", "again", "2")).answer(), Answer::Written { .. }));
    let reply = peer.call(Verb::Status);
    let Answer::Status { json } = reply.answer() else { panic!("{reply:?}") };
    let status: serde_json::Value = serde_json::from_str(json).unwrap();
    let used = status["memory"]["used_bytes"].as_u64().unwrap();
    assert!(used > 2 << 20 && used < 8 << 20, "{used}");
    assert_eq!(status["memory"]["limit_bytes"], 8 << 20);
}

/// The request is refused as too large, with the words and the limit; the session goes on.
fn too_large(peer: &mut Peer, verb: Verb<'_>, words: &str, at_most: usize) {
    match peer.call(verb).fault() {
        Fault::TooLarge { what, got, limit } => {
            assert!(what.contains(words), "{what}");
            assert!(got > limit && limit == at_most as u64, "{got} of {limit}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_value_may_have_32_mib_and_no_byte_more() {
    let place = Place::new();
    let _daemon = place.serve();
    let mut peer = place.connect();
    let most = format!("\"{}\"", "v".repeat(MAX_VALUE_BYTES - 2));
    assert!(matches!(peer.call(put("l", "k", &most)).answer(), Answer::Written { .. }));
    let more = format!("\"{}\"", "w".repeat(MAX_VALUE_BYTES - 1));
    too_large(&mut peer, put("l", "k", &more), "bytes in the value of key \"k\"", MAX_VALUE_BYTES);
    assert_eq!(peer.call(get("l", "k")).value(), Some(most), "what was there is still there");
}

#[test]
fn a_key_may_have_64_kib_and_no_byte_more() {
    let place = Place::new();
    let _daemon = place.serve();
    let mut peer = place.connect();
    let most = "k".repeat(MAX_KEY_BYTES);
    assert!(matches!(peer.call(put("l", &most, "1")).answer(), Answer::Written { .. }));
    assert_eq!(peer.call(get("l", &most)).value().as_deref(), Some("1"));
    let more = "k".repeat(MAX_KEY_BYTES + 1);
    too_large(&mut peer, put("l", &more, "1"), "bytes in a key", MAX_KEY_BYTES);
    too_large(&mut peer, get("l", &more), "bytes in a key", MAX_KEY_BYTES);
    assert!(matches!(peer.call(Verb::Len { space: space("l") }).answer(), Answer::Len { records: 1 }));
}

#[test]
fn a_request_may_have_10_000_operations_and_none_more() {
    let place = Place::new();
    let _daemon = place.serve();
    let mut peer = place.connect();
    let keys: Vec<String> = (0..=MAX_OPERATIONS).map(|number| number.to_string()).collect();
    let put = |key| Op::Put { space: 0, key, value: "1", condition: ALWAYS };
    let all: Vec<_> = keys.iter().map(|key| put(key)).collect();
    too_large(&mut peer, write("l", all.clone()), "operations", MAX_OPERATIONS);
    assert!(matches!(peer.call(Verb::Len { space: space("l") }).answer(), Answer::Len { records: 0 }));
    assert!(matches!(peer.call(write("l", all[1..].to_vec())).answer(), Answer::Written { new: 10_000, .. }));
}

#[test]
fn changes_are_for_values_of_at_most_1_mib_and_a_request_changes_at_most_128_mib() {
    let place = Place::new();
    let _daemon = place.serve();
    let mut peer = place.connect();
    let value = |bytes: usize| format!("{{\"p\":\"{}\"}}", "x".repeat(bytes - 8));
    peer.call(put("l", "most", &value(MAX_CHANGED_VALUE_BYTES)));
    let merge = |fields| Op::Merge { space: 0, key: "most", fields, condition: ALWAYS };
    too_large(&mut peer, write("l", vec![merge("{\"q\":1}")]), "key \"most\"", MAX_CHANGED_VALUE_BYTES);
    assert!(matches!(peer.call(write("l", vec![merge("{\"p\":1}")])).answer(), Answer::Written { found: 1, .. }));
    assert_eq!(peer.call(get("l", "most")).value().as_deref(), Some("{\"p\":1}"));

    peer.call(put("l", "k", &value(1_000_000)));
    let increment = Op::Increment { space: 0, key: "k", field: "n", by: Number::Int(1), condition: ALWAYS };
    too_large(
        &mut peer,
        write("l", vec![increment; 200]),
        "bytes of values that one request changes",
        MAX_RECORD_BYTES,
    );
    assert_eq!(peer.call(get("l", "k")).value(), Some(value(1_000_000)), "nothing of it is done");
    assert!(matches!(peer.call(write("l", vec![increment; 100])).answer(), Answer::Written { found: 100, .. }));
}

#[test]
fn a_frame_of_more_than_64_mib_ends_its_session_and_no_other() {
    let place = Place::new();
    let _daemon = place.serve();
    let (mut peer, mut other) = (place.connect(), place.connect());
    peer.call(put("l", "k", "1"));
    let mut frame = daemon_support::frame_of(900, put("l", "k", "2"));
    frame[..4].copy_from_slice(&(MAX_FRAME_BYTES as u32 + 1).to_le_bytes());
    peer.send(&frame);
    let fault = peer.next().closing();
    assert!(
        matches!(&fault, Fault::Malformed { reason } if reason.contains(&format!("the limit is {MAX_FRAME_BYTES}"))),
        "{fault:?}"
    );
    assert!(peer.try_next().is_none(), "the daemon has closed the connection");
    assert_eq!(other.call(get("l", "k")).value().as_deref(), Some("1"), "what was there is still there");
}
