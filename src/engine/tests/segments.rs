//! Segments of the journal: they change, go when nothing waits for them, and are never appended to by a later owner.

use commonhold_proto::{Cursor, Durability, Seq};

use super::rig::{Rig, file, options, pair};
use crate::engine::disk::{Call, Rules};
use crate::engine::{Error, ScanQuery};

fn small(durability: Durability) -> Rig {
    let mut rig = Rig::new(options(durability));
    rig.options.segment_bytes = 400;
    rig.opened()
}

#[test]
fn segments_go_when_every_file_holds_what_is_in_them() {
    let rig = small(Durability::Buffered);
    for number in 0..40 {
        rig.put("a", &format!("k{number}"), "1");
        rig.put("b", "k", &number.to_string());
    }
    let many = rig.segments().len();
    assert!(many > 5, "{many}");
    rig.store().tick().unwrap();
    assert_eq!(rig.segments().len(), many, "nothing is in a file yet");
    rig.flush("a").unwrap();
    rig.store().tick().unwrap();
    assert_eq!(rig.store().stats().pinned_by, [super::rig::place("b")]);
    assert_eq!(rig.segments().first(), Some(&"/store/.commonhold/journal/00000001.log".into()));
    rig.flush("b").unwrap();
    rig.store().tick().unwrap();
    assert!(rig.segments().len() <= 2, "{:?}", rig.segments());
    assert_eq!(rig.store().stats().segments, rig.segments().len());
    let (a, b) = (rig.all("a"), rig.all("b"));
    for seed in 0..40 {
        let found = Rig::on(rig.disk.power_cut(seed, Rules::any(seed)), rig.options.clone()).opened();
        assert_eq!((found.all("a"), found.all("b")), (a.clone(), b.clone()));
    }
}

#[test]
fn a_journal_beyond_its_limit_comes_down_by_flushes_of_those_that_pin_its_oldest_segments() {
    let mut rig = Rig::new(options(Durability::Buffered));
    (rig.options.segment_bytes, rig.options.journal_limit) = (800, Some(4_000));
    let rig = rig.opened();
    rig.put("old", "k", "1");
    let mut relieved = 0;
    for number in 0..200 {
        rig.put(["a", "b"][number % 2], "k", &number.to_string());
        rig.store().tick().unwrap();
        let wanted = rig.store().to_relieve_the_journal();
        assert_eq!(wanted.is_empty(), rig.store().stats().journal_bytes <= 4_000, "{wanted:?}");
        if relieved == 0 && !wanted.is_empty() {
            assert!(wanted.contains(&super::rig::place("old")), "however long ago it was written: {wanted:?}");
        }
        for place in &wanted {
            assert!(rig.store().flush(place, crate::engine::FlushHow::default()).unwrap().rewritten);
        }
        relieved += wanted.len();
        rig.store().tick().unwrap();
        assert!(
            rig.store().stats().journal_bytes <= 5_600,
            "the limit, the segment that is appended to, and what the flushes told"
        );
    }
    assert!((3..100).contains(&relieved), "{relieved}");
    assert_eq!(rig.killed().get("a", "k").unwrap(), "198");
}

#[test]
fn a_segment_is_not_let_go_before_the_platter_knows_that_it_may() {
    let rig = small(Durability::Buffered);
    for number in 0..10 {
        rig.put("a", &format!("k{number}"), "1");
    }
    rig.flush("a").unwrap();
    let expected = rig.all("a");
    // The completion is written but not synced. Whatever the power cut takes, nothing is missing.
    rig.disk.trace();
    rig.store().tick().unwrap();
    let calls: Vec<_> = rig.disk.take_trace().into_iter().map(|(call, _)| call).collect();
    let (sync, remove) = (calls.iter().position(|c| *c == Call::Sync), calls.iter().position(|c| *c == Call::Remove));
    assert!(sync.unwrap() < remove.unwrap(), "{calls:?}");
    for seed in 0..60 {
        let found = Rig::on(rig.disk.power_cut(seed, Rules::any(seed)), rig.options.clone()).opened();
        assert!(found.store().opening().closed.is_empty());
        assert_eq!(found.all("a"), expected);
    }
}

#[test]
fn a_start_never_appends_to_an_old_segment_and_an_idle_store_does_not_grow() {
    let mut rig = Rig::buffered();
    rig.put("a", "k", "0");
    for round in 0..5 {
        rig = rig.killed_and_closed();
        let old: Vec<_> = rig.segments().into_iter().map(|path| (path.clone(), rig.disk.read_file(path))).collect();
        rig.try_open().unwrap();
        rig.put("a", "k", &round.to_string());
        for (path, bytes) in old {
            // One that does not count any more may be gone.
            assert!(!rig.disk.exists(&path) || rig.disk.read_file(&path) == bytes, "{} was changed", path.display());
        }
    }
    rig.flush("a").unwrap();
    for _ in 0..5 {
        rig = rig.reopened();
        assert!(rig.segments().len() <= 2, "{:?}", rig.segments());
    }
    assert_eq!(rig.all("a"), [pair("k", "4")]);
}

#[test]
fn seqs_never_repeat_across_restarts_and_power_cuts() {
    for durability in [Durability::Buffered, Durability::Synced] {
        let mut rig = small(durability);
        let mut greatest = Seq::ZERO;
        for round in 0..60 {
            for _ in 0..round % 4 {
                let seq = rig.put("a", "k", "1");
                assert!(seq > greatest, "{seq} after {greatest}");
                greatest = seq;
            }
            // One that is refused takes none that anybody could have seen.
            drop(rig.try_put("a", "k", "2").map(|written| greatest = greatest.max(written.seq)));
            let found = if round % 3 == 0 { rig.disk.kill() } else { rig.disk.power_cut(round, Rules::any(round)) };
            // A file that nothing knew gets a Seq at its load, without a write.
            found.write_file(file("b"), format!("{{\"k\": {round}}}").as_bytes());
            rig.close();
            rig = Rig::on(found, rig.options.clone()).opened();
            let loaded = rig.table("b").get("k").unwrap().seq();
            assert!(loaded > greatest, "the load's {loaded} after {greatest}");
            greatest = loaded;
        }
    }
}

#[test]
fn a_cursor_of_an_earlier_owner_goes_on_behind_its_key_or_has_expired() {
    let mut rig = Rig::buffered();
    for key in ["k0", "k1", "k2", "k3"] {
        rig.put("a", key, "1");
    }
    rig.delete("a", "k0");
    for boot in 1..4 {
        assert_eq!(rig.store().boot(), boot);
        let page = rig.table("a").scan(&ScanQuery { limit: 1, ..ScanQuery::default() }).unwrap();
        let next = page.next.expect("there are more");
        rig = if boot % 2 == 0 { rig.reopened() } else { rig.killed() };
        let cursor = Cursor { load: next.load, ordinal: next.ordinal, key: &next.key };
        let rest = rig.table("a").scan(&ScanQuery { cursor: Some(cursor), ..ScanQuery::default() }).unwrap();
        let keys: Vec<_> = rest.records.iter().map(|record| record.key().to_owned()).collect();
        assert_eq!(keys, ["k2", "k3"]);
        rig.delete("a", "k1");
        let expired = rig.table("a").scan(&ScanQuery { cursor: Some(cursor), ..ScanQuery::default() });
        assert!(matches!(expired, Err(Error::CursorExpired)));
        rig.clear("a");
        for key in ["k1", "k2", "k3"] {
            rig.put("a", key, "1");
        }
    }
}

#[test]
fn a_start_reads_each_segment_once_after_its_header() {
    let rig = small(Durability::Buffered);
    for number in 0..40 {
        rig.put(["a", "b"][number % 2], "k", &number.to_string());
    }
    let mut rig = rig.killed_and_closed();
    let segments = rig.segments();
    assert!(segments.len() > 5, "{segments:?}");
    rig.disk.trace();
    rig.try_open().unwrap();
    let calls = rig.disk.take_trace();
    for segment in &segments {
        let opened = calls.iter().filter(|(call, path)| *call == Call::Open && path == segment).count();
        assert_eq!(opened, 2, "{}: its header, and then all of it", segment.display());
    }
    assert_eq!((rig.get("a", "k"), rig.get("b", "k")), (Some("38".to_owned()), Some("39".to_owned())));
    // What is loaded later is read from the disk again, and is the same.
    assert_eq!(rig.killed().get("b", "k").unwrap(), "39");
}
