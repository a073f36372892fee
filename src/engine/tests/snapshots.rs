//! Reading everything at one moment: exact whatever is written meanwhile, and bounded in what is kept for it.

use super::rig::{Rig, pair};
use crate::engine::{Error, Snapshot};

fn rest(snapshot: &mut Snapshot) -> Result<Vec<(String, String)>, Error> {
    let mut records = Vec::new();
    while snapshot.next(&mut records)? {}
    Ok(records.iter().map(|record| pair(record.key(), record.value())).collect())
}

fn filled(records: usize) -> Rig {
    let rig = Rig::buffered();
    (0..records).for_each(|number| {
        rig.put("a", &format!("k{number}"), "\"old\"");
    });
    rig
}

#[test]
fn a_snapshot_is_the_moment_it_was_taken_in_whatever_is_written_meanwhile() {
    let rig = filled(1_000);
    let expected = rig.all("a");
    let mut snapshot = rig.table("a").snapshot(1 << 20);
    assert_eq!(snapshot.seq(), rig.store().applied());
    for number in (0..1_000).step_by(3) {
        rig.put("a", &format!("k{number}"), "\"new\"");
        rig.delete("a", &format!("k{}", number + 1));
        rig.put("a", &format!("n{number}"), "\"new\"");
    }
    let mut one = Vec::new();
    snapshot.next(&mut one).unwrap();
    rig.clear("a");
    rig.put("a", "k1", "\"new\"");
    let rest = rest(&mut snapshot).unwrap();
    let one = one.iter().map(|record| pair(record.key(), record.value()));
    assert!(one.chain(rest).eq(expected));
}

#[test]
fn a_snapshot_expires_when_more_is_changed_than_is_kept_for_it_and_a_flush_never_does() {
    let rig = filled(1_000);
    let before = rig.all("a");
    let (mut small, mut large) = (rig.table("a").snapshot(2_000), rig.table("a").snapshot(1 << 20));
    let mut flush = rig.table("a").map.write().view();
    (0..1_000).for_each(|number| {
        rig.put("a", &format!("k{number}"), "\"new\"");
    });
    assert!(matches!(rest(&mut small), Err(Error::SnapshotExpired)));
    assert!(matches!(rest(&mut small), Err(Error::SnapshotExpired)), "it stays expired");
    assert_eq!(rest(&mut large).unwrap(), before);
    let mut records = Vec::new();
    while flush.next(&rig.table("a").map.read(), 256, &mut records) {}
    assert!(records.iter().map(|record| pair(record.key(), record.value())).eq(before));
    flush = rig.table("a").map.write().view();
    let (mut small, mut large) = (rig.table("a").snapshot(2_000), rig.table("a").snapshot(1 << 20));
    rig.clear("a");
    assert!(matches!(rest(&mut small), Err(Error::SnapshotExpired)), "a cleared table is kept, too");
    assert_eq!(rest(&mut large).unwrap().len(), 1_000);
    records.clear();
    while flush.next(&rig.table("a").map.read(), 256, &mut records) {}
    assert_eq!(records.len(), 1_000);
}

#[test]
fn what_a_snapshot_has_passed_is_not_kept_for_it() {
    let rig = filled(1_000);
    let mut snapshot = rig.table("a").snapshot(2_000);
    let mut records = Vec::new();
    for _ in 0..3 {
        assert!(snapshot.next(&mut records).unwrap());
    }
    assert_eq!(records.len(), 768);
    (0..768).for_each(|number| {
        rig.put("a", &format!("k{number}"), "\"new\"");
    });
    assert_eq!(rest(&mut snapshot).unwrap().len(), 232);
}

#[test]
fn a_snapshot_of_an_empty_namespace_is_empty() {
    let rig = Rig::buffered();
    assert_eq!(rest(&mut rig.table("a").snapshot(0)).unwrap(), []);
}
