//! A full disk where room is set aside ahead: what is refused, what still gets through, and that all of it passes when
//! there is room again. (Where none is set aside: `trouble.rs`.)

use commonhold_proto::{Condition, Durability};

use super::rig::{Rig, options, pair};
use crate::engine::disk::{Call, FailWith, Failure, Rules};
use crate::engine::{Error, WriteRequest};

const STEP: u64 = 4_096;

fn with_room(durability: Durability) -> Rig {
    let mut rig = Rig::new(options(durability));
    rig.options.room_bytes = STEP;
    rig.opened()
}

/// From now on nothing grows, and no file is made.
fn fill_the_disk(rig: &Rig) {
    for call in [Call::Allocate, Call::Create, Call::CreateDir, Call::Link] {
        rig.disk.fail(Failure::nth(1, FailWith::NoSpace).of(call).for_good());
    }
}

/// Puts until one is refused.
fn puts_until_full(rig: &Rig, prefix: &str) -> usize {
    let mut done = 0;
    loop {
        match rig.try_put("a", &format!("{prefix}{done}"), "1") {
            Ok(_) => done += 1,
            Err(Error::Full { .. }) => return done,
            Err(other) => panic!("{other:?}"),
        }
        assert!(done < 1_000, "the disk is full");
    }
}

#[test]
fn deletes_and_clears_get_through_on_a_full_disk_and_writes_do_again_when_there_is_room() {
    for durability in [Durability::Memory, Durability::Buffered, Durability::Synced] {
        let rig = with_room(durability);
        rig.put("b", "k", "1");
        fill_the_disk(&rig);
        let done = puts_until_full(&rig, "k");
        assert!(done > 3, "room that was set aside before is used: {done}");
        assert_eq!(rig.all("a").len(), done, "reads go on, and what was refused is not there");
        assert_eq!(rig.delete("a", "k0").found, 1);
        assert_eq!(rig.clear("b").found, 1);
        assert!(matches!(rig.try_put("a", "k", "1"), Err(Error::Full { .. })), "the spare is not for this");
        rig.commit().unwrap();
        assert_eq!(rig.killed_copy().all("a").len(), done - 1);
        rig.disk.mend();
        rig.put("a", "later", "1");
        rig.commit().unwrap();
        for seed in 0..20 {
            let found = Rig::on(rig.disk.power_cut(seed, Rules::any(seed)), rig.options.clone()).opened();
            assert_eq!((found.all("a"), found.all("b")), (rig.all("a"), Vec::new()));
            assert_eq!(found.store().opening().set_aside, None, "zeros behind the last record are no tail");
        }
    }
}

#[test]
fn the_spare_has_an_end_and_is_made_again_when_there_is_room() {
    let rig = with_room(Durability::Buffered);
    for key in 0..200 {
        rig.put("a", &format!("k{key}"), "1");
    }
    for round in 0..3 {
        rig.store().tick().unwrap();
        fill_the_disk(&rig);
        puts_until_full(&rig, &format!("more{round}-"));
        let (mut deleted, mut key) = (0, round * 60);
        while rig
            .write(|request, table| {
                request.delete(&table("a"), &format!("k{key}"), Condition::Always).unwrap();
            })
            .inspect_err(|error| assert!(matches!(error, Error::Full { .. }), "{error:?}"))
            .is_ok()
        {
            (deleted, key) = (deleted + 1, key + 1);
        }
        assert!((4..60).contains(&deleted), "a quarter of {STEP} bytes takes some: {deleted}");
        rig.disk.mend();
        // Nobody writes anything in between: the tick sets it aside.
        rig.store().tick().unwrap();
        rig.disk.trace();
        rig.delete("a", &format!("k{key}"));
        assert!(!rig.disk.take_trace().iter().any(|(call, _)| *call == Call::Allocate));
    }
    assert_eq!(rig.killed_copy().all("a"), rig.all("a"));
}

#[test]
fn of_a_group_on_a_full_disk_what_frees_space_is_done_and_the_rest_refused() {
    let rig = with_room(Durability::Buffered);
    rig.put("a", "old", "1");
    fill_the_disk(&rig);
    puts_until_full(&rig, "k");
    let table = rig.table("a");
    let mut requests: Vec<_> = (0..4).map(|number| WriteRequest::new(7, number)).collect();
    requests[0].put(&table, "new", "1", Condition::Always).unwrap();
    requests[1].delete(&table, "old", Condition::Always).unwrap();
    requests[2].delete(&table, "k0", Condition::Always).unwrap();
    requests[2].put(&table, "k1", "2", Condition::Always).unwrap();
    requests[3].delete(&table, "new", Condition::Always).unwrap();
    let results = rig.store().write(requests);
    assert!(matches!(results[0], Err(Error::Full { .. })), "{results:?}");
    assert!(matches!(results[1], Ok(written) if written.found == 1), "{results:?}");
    assert!(matches!(results[2], Err(Error::Full { .. })), "atomic, so it does not only free: {results:?}");
    assert!(matches!(results[3], Ok(written) if written.found == 0), "it saw no put that was refused: {results:?}");
    assert_eq!((rig.get("a", "old"), rig.get("a", "k1").as_deref()), (None, Some("1")));
    assert_eq!(rig.killed_copy().all("a"), rig.all("a"));
}

#[test]
fn a_segment_is_not_changed_for_one_without_room() {
    let mut rig = Rig::new(options(Durability::Buffered));
    (rig.options.room_bytes, rig.options.segment_bytes) = (STEP, 600);
    let rig = rig.opened();
    rig.put("a", "k", "1");
    for call in [Call::Create, Call::Allocate] {
        rig.disk.fail(Failure::nth(1, FailWith::NoSpace).of(call).for_good());
        let segments = rig.segments();
        if call == Call::Create {
            for number in 0..20 {
                rig.put("a", "k", &number.to_string());
            }
        } else {
            puts_until_full(&rig, "more");
        }
        rig.delete("a", "k");
        assert_eq!(rig.segments(), segments, "the old segment's spare is worth more");
        rig.disk.mend();
        rig.put("a", "k", "2");
        assert_eq!(rig.segments().len(), segments.len() + 1);
    }
    for seed in 0..20 {
        rig.commit().unwrap();
        let found = Rig::on(rig.disk.power_cut(seed, Rules::any(seed)), rig.options.clone()).opened();
        assert_eq!(found.all("a"), rig.all("a"));
    }
}

#[test]
fn the_files_end_follows_the_records_in_steps_and_a_left_segment_gives_back_the_rest() {
    let mut rig = Rig::new(options(Durability::Synced));
    (rig.options.room_bytes, rig.options.segment_bytes) = (STEP, 10_000);
    let rig = rig.opened();
    let before = rig.disk.calls();
    let mut sizes = std::collections::BTreeSet::new();
    while rig.segments().len() < 2 {
        rig.put("a", "k", "\"a value of some bytes, so that it does not take for ever\"");
        sizes.insert(rig.disk.stat_of(&rig.segments()[0]).unwrap().bytes);
    }
    let calls = rig.disk.calls().since(&before);
    assert!(calls.of(Call::Sync) > 50 && calls.of(Call::Allocate) < 6, "{calls:?}");
    assert!(sizes.iter().filter(|size| *size % STEP != 0).count() <= 1, "in whole steps, and the exact end: {sizes:?}");
    let left = rig.disk.read_file(&rig.segments()[0]);
    assert_ne!(left[left.len() - 64..], [0; 64], "no zeros are left behind its last record");
    assert_eq!(rig.killed().all("a"), [pair("k", "\"a value of some bytes, so that it does not take for ever\"")]);
}

#[test]
fn a_quota_that_is_used_up_is_a_full_disk() {
    for room_bytes in [0, STEP] {
        let mut rig = Rig::new(options(Durability::Buffered));
        rig.options.room_bytes = room_bytes;
        let rig = rig.opened();
        rig.put("a", "k0", "1");
        let call = if room_bytes == 0 { Call::Write } else { Call::Allocate };
        rig.disk.fail(Failure::nth(1, FailWith::Quota).of(call).for_good());
        puts_until_full(&rig, "k");
        assert!(room_bytes == 0 || rig.delete("a", "k0").found == 1, "the spare is for this");
        assert!(room_bytes > 0 || matches!(rig.flush("a"), Err(Error::Full { .. })));
        rig.disk.mend();
        rig.put("a", "later", "1");
        rig.flush("a").unwrap();
    }
}
