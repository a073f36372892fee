//! What a namespace's file may be, and what becomes of it: loaded, taken over from another program, or closed with a
//! reason and nothing lost.

use commonhold_proto::{Durability, Seq};

use super::rig::{DIR, Rig, file, options, pair, place};
use crate::engine::{Error, FlushHow};

/// A store with this file in it.
fn with_file(bytes: &[u8]) -> Rig {
    let rig = Rig::new(options(Durability::Buffered));
    rig.disk.write_file(file("a"), bytes);
    rig.opened()
}

#[test]
fn a_directory_without_commonhold_is_taken_as_it_is() {
    let rig = Rig::new(options(Durability::Buffered));
    rig.disk.write_file(file("a"), b"{\"k\": {\"b\": 1.10, \"a\": [NaN]}}");
    rig.disk.make_dirs(format!("{DIR}/w"));
    rig.disk.write_file(file("w/a"), b"{\"k\": 2}");
    let rig = rig.opened();
    assert_eq!(rig.all("a"), [pair("k", "{\"b\":1.10,\"a\":[NaN]}")]);
    assert_eq!(rig.all("w/a"), [pair("k", "2")]);
    let names: Vec<_> = rig.store().namespaces().unwrap().into_iter().map(|info| info.namespace).collect();
    assert_eq!(names, ["a", "a"]);
}

#[test]
fn everything_python_can_have_written_loads() {
    assert_eq!(with_file(b"").all("a"), []);
    assert_eq!(with_file(b" \n\t\r ").all("a"), []);
    assert_eq!(with_file(b"\xef\xbb\xbf{\"k\": 1}").all("a"), [pair("k", "1")]);
    assert_eq!(with_file(b"\xef\xbb\xbf").all("a"), []);
    let doubled = with_file(b"{\"k\": 1, \"l\": 2, \"k\": {\"x\": 1, \"y\": 2, \"x\": 3}}");
    assert_eq!(doubled.all("a"), [pair("k", "{\"x\":3,\"y\":2}"), pair("l", "2")]);
    let escaped = with_file(br#"{"\u006b\ud800": "\u4e2d\ud83d\ude00\udc00"}"#);
    assert_eq!(escaped.all("a"), [pair("k", "\"中😀\"")]);
}

#[test]
fn a_file_that_does_not_parse_closes_its_namespace_and_says_where() {
    let rig = with_file(b"{\n  \"k\": 1,\n  \"l\": tru\n}");
    let reason = rig.closed("a");
    assert!(reason.contains("line 3, column 11 (byte 22)"), "{reason}");
    rig.put("b", "k", "1");
    let info = rig.store().namespaces().unwrap();
    assert_eq!(info[0].closed.as_deref(), Some(reason.as_str()));
}

#[test]
fn a_file_of_another_program_is_taken_while_nothing_waits() {
    let rig = Rig::buffered();
    rig.put("a", "k", "1");
    rig.flush("a").unwrap();
    let mut rig = rig.killed_and_closed();
    rig.disk.write_file(file("a"), b"{\"foreign\": 1}");
    rig.try_open().unwrap();
    assert_eq!(rig.all("a"), [pair("foreign", "1")]);
    rig.put("a", "k", "2");
    let rig = rig.killed();
    assert_eq!(rig.all("a"), [pair("foreign", "1"), pair("k", "2")], "and writes build upon it");
}

#[test]
fn a_file_of_another_program_closes_only_its_namespace_while_records_wait_and_nothing_is_lost() {
    for flushed_before in [false, true] {
        let rig = Rig::buffered();
        rig.put("a", "k", "1");
        rig.put("b", "k", "1");
        if flushed_before {
            rig.flush("a").unwrap();
        }
        rig.put("a", "l", "2");
        let mut rig = rig.killed_and_closed();
        let right = rig.disk.exists(file("a")).then(|| rig.disk.read_file(file("a")));
        rig.disk.write_file(file("a"), b"{\"foreign\": 1}");
        for _ in 0..3 {
            rig.try_open().unwrap();
            assert_eq!(rig.store().opening().closed.len(), 1);
            let reason = rig.closed("a");
            assert!(reason.contains("with sequence number"), "{reason}");
            assert!(rig.flush("a").is_err());
            assert_eq!(rig.disk.read_file(file("a")), b"{\"foreign\": 1}");
            // The others work, and flushing them does not throw away what the closed one waits for.
            rig.put("b", "k", "3");
            rig.flush("b").unwrap();
            rig.store().tick().unwrap();
            rig = rig.killed_and_closed();
        }
        match right {
            Some(bytes) => rig.disk.write_file(file("a"), &bytes),
            None => rig.disk.remove_path(file("a")),
        }
        rig.try_open().unwrap();
        assert_eq!(rig.all("a"), [pair("k", "1"), pair("l", "2")], "flushed before: {flushed_before}");
        assert_eq!(rig.all("b"), [pair("k", "3")]);
    }
}

#[test]
fn a_missing_file_is_an_empty_namespace_if_nothing_waits_and_closes_it_otherwise() {
    let rig = Rig::buffered();
    rig.put("a", "k", "1");
    rig.flush("a").unwrap();
    let bytes = rig.disk.read_file(file("a"));
    let mut rig = rig.killed_and_closed();
    rig.disk.remove_path(file("a"));
    rig.try_open().unwrap();
    assert_eq!(rig.all("a"), []);
    let mut rig = rig.killed_and_closed();
    rig.disk.write_file(file("a"), &bytes);
    rig.try_open().unwrap();
    rig.put("a", "l", "2");
    let mut rig = rig.killed_and_closed();
    rig.disk.remove_path(file("a"));
    rig.try_open().unwrap();
    let reason = rig.closed("a");
    assert!(reason.contains("missing"), "{reason}");
    let mut rig = rig.killed_and_closed();
    rig.disk.write_file(file("a"), &bytes);
    rig.try_open().unwrap();
    assert_eq!(rig.all("a"), [pair("k", "1"), pair("l", "2")]);
}

#[test]
fn what_is_not_a_file_of_its_own_is_refused_and_named() {
    let rig = Rig::new(options(Durability::Buffered));
    rig.disk.write_file("/elsewhere.json", b"{\"k\": 1}");
    rig.disk.symlink("/elsewhere.json", file("a"));
    rig.disk.make_dirs(file("b"));
    rig.disk.make_dirs("/tenant");
    rig.disk.symlink("/tenant", format!("{DIR}/w"));
    let rig = rig.opened();
    let reason = rig.closed("a");
    assert!(reason.contains("symbolic link to /elsewhere.json"), "{reason}");
    assert!(rig.closed("b").contains("not a regular file"));
    assert!(rig.closed("w/a").contains("workspace"), "a workspace behind a link is refused too");
    for name in ["a", "b", "w/a"] {
        assert!(rig.store().flush(&place(name), FlushHow { rewrite: true, lock_timeout: None }).is_err());
    }
    assert_eq!(rig.disk.read_file("/elsewhere.json"), b"{\"k\": 1}");
    rig.put("c", "k", "1");
}

#[test]
fn names_that_differ_only_in_case_are_refused() {
    let rig = with_file(b"{}");
    rig.put("text_chunks", "k", "1");
    for (name, existing) in [("A", "a"), ("Text_Chunks", "text_chunks")] {
        match rig.store().namespace(&place(name)) {
            Err(Error::NameClash { existing: found, .. }) => assert_eq!(found, existing),
            other => panic!("{other:?}"),
        }
    }
    // Another workspace is another matter.
    rig.put("w/A", "k", "1");
}

#[test]
fn of_two_names_that_differ_only_in_case_neither_is_opened_and_moving_one_file_away_is_the_way_out() {
    // One waits and has no file, waits beside its file, or nothing waits.
    for (has_file, waits) in [(false, true), (true, true), (true, false)] {
        let rig = Rig::buffered();
        rig.put("A", "k", "1");
        if has_file {
            rig.flush("A").unwrap();
        }
        if waits {
            rig.put("A", "k", "2");
        }
        rig.put("b", "k", "1");
        let mut rig = rig.killed_and_closed();
        rig.disk.write_file(file("a"), b"{\"theirs\": 1}");
        for round in 0..2 {
            rig.try_open().unwrap();
            for (name, other) in [("A", "a"), ("a", "A")] {
                let told = rig.store().namespace(&place(name)).unwrap_err().to_string();
                assert!(told.contains("letter case") && told.contains(other), "round {round}: {told}");
                assert!(told.contains("out of the store") && told.contains("while no daemon runs"), "{told}");
            }
            assert_eq!(rig.all("b"), [pair("k", "1")], "others are served");
            rig.store().tick().unwrap();
            rig.close();
        }
        assert_eq!(rig.disk.read_file(file("a")), b"{\"theirs\": 1}");
        rig.disk.remove_path(file("a"));
        rig.try_open().unwrap();
        assert_eq!(rig.all("A"), [pair("k", if waits { "2" } else { "1" })]);
        rig.put("A", "l", "3");
        rig.flush("A").unwrap();
        assert_eq!(rig.in_file("A").len(), 2);
    }
}

#[test]
fn a_namespace_in_use_goes_on_when_a_file_of_its_name_in_other_case_appears() {
    let rig = Rig::buffered();
    rig.put("A", "k", "1");
    rig.disk.write_file(file("a"), b"{}");
    assert!(matches!(rig.store().namespace(&place("a")), Err(Error::NameClash { .. })));
    rig.put("A", "k", "2");
    rig.flush("A").unwrap();
    assert_eq!((rig.in_file("A"), rig.disk.read_file(file("a"))), (vec![pair("k", "2")], b"{}".to_vec()));
}

#[test]
fn an_older_generation_put_back_gets_exactly_the_records_above_its_cut() {
    let rig = Rig::buffered();
    rig.put("b", "pins", "1");
    rig.put("a", "k", "1");
    rig.flush("a").unwrap();
    let first = rig.disk.read_file(file("a"));
    rig.put("a", "l", "1");
    rig.put("a", "k", "2");
    rig.flush("a").unwrap();
    let second = rig.disk.read_file(file("a"));
    rig.delete("a", "k");
    let expected = [pair("l", "1")];
    for bytes in [&first, &second] {
        let mut rig = Rig::on(rig.disk.kill(), rig.options.clone());
        rig.disk.write_file(file("a"), bytes);
        rig.try_open().unwrap();
        assert_eq!(rig.all("a"), expected);
        rig.flush("a").unwrap();
        assert_eq!(rig.in_file("a"), expected);
    }
    let mut rig = Rig::on(rig.disk.kill(), rig.options.clone());
    rig.disk.remove_path(file("a"));
    rig.try_open().unwrap();
    assert!(rig.store().namespace(&place("a")).is_err() || rig.all("a") == expected, "not half of it");
}

#[test]
fn limits_bind_requests_and_not_the_loader() {
    let key = "k".repeat(commonhold_proto::limits::MAX_KEY_BYTES + 10);
    let value = format!("\"{}\"", "x".repeat(commonhold_proto::limits::MAX_VALUE_BYTES));
    let rig = with_file(format!("{{\"{key}\":{value}}}").as_bytes());
    assert_eq!(rig.get("a", &key).as_deref(), Some(value.as_str()));
    rig.put("a", "l", "1");
    rig.flush("a").unwrap();
    assert!(rig.in_file("a") == [(key, value), pair("l", "1")]);
}

#[test]
fn a_loaded_file_is_announced_durably_before_its_first_write() {
    let rig = with_file(b"{\"k\": 1}");
    assert_eq!(rig.all("a"), [pair("k", "1")]);
    rig.put("a", "k", "2");
    for seed in 0..60 {
        let disk = rig.disk.power_cut(seed, crate::engine::disk::Rules::any(seed));
        let found = Rig::on(disk, rig.options.clone()).opened();
        assert!(found.store().opening().closed.is_empty());
        assert!(["1", "2"].contains(&found.get("a", "k").unwrap().as_str()));
    }
    assert!(rig.table("a").get("k").unwrap().seq() > Seq::ZERO);
}
