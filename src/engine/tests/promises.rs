//! The engine's promises by name: what a write leaves alone, and what a crash leaves.

use commonhold_proto::Durability;

use super::rig::{Rig, file, options, pair, place};
use crate::engine::disk::Call;
use crate::engine::{FlushHow, ScanQuery};

#[test]
fn what_was_acknowledged_is_there_after_a_kill() {
    let rig = Rig::buffered();
    rig.put("a", "k", "1");
    rig.put("w/b", "k", "2");
    let rig = rig.killed();
    assert_eq!(rig.all("a"), [pair("k", "1")]);
    assert_eq!(rig.all("w/b"), [pair("k", "2")]);
}

#[test]
fn namespace_file_is_untouched_until_flush() {
    let mut rig = Rig::new(options(Durability::Buffered));
    rig.disk.write_file(file("a"), b"{\"k0\": 0}");
    rig.try_open().unwrap();
    let before = (rig.disk.stat_of(file("a")), rig.disk.read_file(file("a")));
    for number in 0..10_000 {
        rig.put("a", &format!("k{}", number % 100), &number.to_string());
    }
    rig.commit().unwrap();
    rig.store().tick().unwrap();
    assert_eq!((rig.disk.stat_of(file("a")), rig.disk.read_file(file("a"))), before);
    rig.flush("a").unwrap();
    let after = rig.disk.stat_of(file("a"));
    assert_ne!(after.map(|stat| stat.inode), before.0.map(|stat| stat.inode));
    assert_eq!(rig.in_file("a"), rig.all("a"));
}

#[test]
fn one_flush_is_one_rename() {
    let rig = Rig::buffered();
    for (name, looks) in [("a", 1), ("w/b", 2)] {
        for number in 0..1_000 {
            rig.put(name, &format!("k{number}"), "1");
        }
        for round in 0..3 {
            rig.put(name, "k0", &round.to_string());
            let before = rig.disk.calls();
            rig.flush(name).unwrap();
            assert_eq!(rig.disk.calls().since(&before).of(Call::Rename), 1);
            // Nothing has changed since, so there is nothing to do but to see that the file is still there, and that its
            // workspace is no link.
            let before = rig.disk.calls();
            assert!(!rig.flush(name).unwrap().rewritten);
            let since = rig.disk.calls().since(&before);
            assert_eq!((since.total(), since.of(Call::Stat)), (looks, looks), "{since:?}");
        }
    }
}

#[test]
fn reads_do_no_file_io_after_load() {
    let mut rig = Rig::new(options(Durability::Buffered));
    rig.disk.write_file(file("a"), b"{\"k1\": 1, \"k2\": 2}");
    rig.try_open().unwrap();
    rig.put("b", "k", "1");
    let tables = [rig.table("a"), rig.table("b")];
    let before = rig.disk.calls();
    for round in 0..100 {
        for name in ["a", "b"] {
            let table = rig.store().find("", name).unwrap();
            table.get("k1");
            table.get("absent");
        }
        for table in &tables {
            table.get_many(&["k1", "k2", "absent"]);
            table.filter_missing(&["k1", "absent"]);
            assert!(table.contains(if round % 2 == 0 { "k1" } else { "k2" }) || table.contains("k"));
            table.len();
            table.scan(&ScanQuery::default()).unwrap();
        }
    }
    assert_eq!(rig.disk.calls(), before);
}

#[test]
fn a_failed_load_never_empties_a_namespace() {
    let bad: [&[u8]; 4] = [b"{\"k\": 1, \"l\"", b"[1, 2]", b"\xff{}", b"{\"k\": 1}{}"];
    for bytes in bad {
        let mut rig = Rig::new(options(Durability::Synced));
        rig.disk.write_file(file("a"), bytes);
        rig.disk.write_file(file("b"), b"{\"k\": 2}");
        let before = (rig.disk.stat_of(file("a")), bytes.to_vec());
        for _ in 0..2 {
            rig.try_open().unwrap();
            assert!(!rig.closed("a").is_empty());
            assert!(rig.store().flush(&place("a"), FlushHow { rewrite: true, lock_timeout: None }).is_err());
            assert_eq!(rig.all("b"), [pair("k", "2")], "the others are open");
            rig.put("b", "k", "3");
            rig.flush("b").unwrap();
            rig.disk.write_file(file("b"), b"{\"k\":  2}");
            assert_eq!((rig.disk.stat_of(file("a")), rig.disk.read_file(file("a"))), before);
            rig.close();
        }
        rig.disk.write_file(file("a"), b"{\"k\": 1}");
        rig.try_open().unwrap();
        assert_eq!(rig.all("a"), [pair("k", "1")], "once it is mended it loads");
    }
}

#[test]
fn what_was_written_synced_survives_power_loss_and_what_was_committed() {
    let synced = Rig::synced();
    synced.put("a", "k", "1");
    let buffered = Rig::buffered();
    buffered.put("a", "k", "1");
    buffered.commit().unwrap();
    buffered.put("a", "k", "2");
    for (rig, newest) in [(synced, "1"), (buffered, "2")] {
        for seed in 0..50 {
            let disk = rig.disk.power_cut(seed, crate::engine::disk::Rules::any(seed));
            let rig = Rig::on(disk, rig.options.clone()).opened();
            let found = rig.get("a", "k").expect("what was on the platter is there");
            assert!(found == "1" || found == newest, "found {found}");
        }
    }
}

#[test]
fn order_is_insertion_order_and_survives_flush_and_restart() {
    let rig = Rig::buffered();
    for key in ["c", "a", "b"] {
        rig.put("a", key, "1");
    }
    rig.put("a", "c", "2");
    rig.delete("a", "a");
    rig.put("a", "a", "3");
    let expected = [pair("c", "2"), pair("b", "1"), pair("a", "3")];
    let rig = rig.killed();
    assert_eq!(rig.all("a"), expected);
    rig.flush("a").unwrap();
    assert_eq!(rig.in_file("a"), expected);
    let rig = rig.killed();
    assert_eq!(rig.all("a"), expected);
}
