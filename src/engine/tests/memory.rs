//! Durability: what each combination of the store's and the request's loses, and what waits in the journal's buffer when
//! the store promises no more than the daemon's memory.

use std::path::Path;

use commonhold_proto::{Condition, Durability};

use super::rig::{Rig, options, pair};
use crate::engine::Error;
use crate::engine::disk::{Call, FailWith, Failure, Rules};

/// A store of durability `memory` whose buffer takes so many bytes.
fn with_buffer(bytes: usize) -> Rig {
    let mut rig = Rig::new(options(Durability::Memory));
    rig.options.buffer_bytes = bytes;
    rig.opened()
}

#[test]
fn less_than_the_store_promises_gives_what_it_promises_and_more_gives_more() {
    use Durability::{Buffered, Memory, Synced};
    for store in [Memory, Buffered, Synced] {
        for asked in [Memory, Buffered, Synced] {
            let rig = Rig::new(options(store)).opened();
            rig.put("a", "first", "0");
            rig.commit().unwrap();
            let before = rig.disk.calls();
            rig.put_as(asked, "a", "k", "1").unwrap();
            let calls = rig.disk.calls().since(&before);
            let reached = store.max(asked);
            let (writes, syncs) = (u64::from(reached > Memory), u64::from(reached == Synced));
            assert_eq!((calls.of(Call::Write), calls.of(Call::Sync)), (writes, syncs), "{asked:?} of {store:?}");
            assert_eq!(rig.get("a", "k").unwrap(), "1", "it is seen at once, whatever was asked");
            let survives = |rig: Rig| rig.get("a", "k").is_some();
            let powerless = Rig::on(rig.disk.power_cut(1, Rules::DROP_ALL), rig.options.clone()).opened();
            assert_eq!(survives(rig.killed_copy()), reached > Memory, "a kill: {asked:?} of {store:?}");
            assert_eq!(survives(powerless), reached == Synced, "a power cut: {asked:?} of {store:?}");
        }
    }
}

#[test]
fn in_memory_a_write_is_seen_at_once_and_touches_no_file_until_something_asks() {
    type Push = dyn Fn(&Rig);
    let push: [(&str, &Push); 5] = [
        ("commit", &|rig| assert!(rig.commit().is_ok())),
        ("flush of another namespace", &|rig| assert!(rig.flush("b").is_ok())),
        ("tick", &|rig| rig.store().tick().unwrap()),
        ("a write that asks for more", &|rig| assert!(rig.put_as(Durability::Buffered, "b", "l", "1").is_ok())),
        ("the first write to a new namespace", &|rig| assert!(rig.try_put("c", "k", "1").is_ok())),
    ];
    for (what, push) in push {
        let rig = Rig::memory();
        rig.put("a", "k", "0");
        rig.put("b", "k", "0");
        rig.commit().unwrap();
        let before = rig.disk.calls();
        for number in 1..=100 {
            rig.put("a", "k", &number.to_string());
        }
        rig.delete("a", "absent");
        assert_eq!(rig.disk.calls(), before);
        assert_eq!(rig.get("a", "k").unwrap(), "100");
        assert!(rig.store().stats().unwritten_bytes > 0);
        assert_eq!(rig.killed_copy().get("a", "k").unwrap(), "0", "a killed daemon loses what it had not written");
        rig.put("b", "k", "1");
        push(&rig);
        let found = rig.killed_copy();
        assert_eq!(found.get("a", "k").unwrap(), "100", "{what} pushes everything before it");
        assert_eq!(found.get("b", "k").unwrap(), "1", "{what}");
    }
}

#[test]
fn a_full_buffer_spills_and_a_kill_takes_a_suffix_only() {
    let rig = with_buffer(600);
    rig.put("a", "k", "0");
    rig.commit().unwrap();
    let mut kept = 0;
    for number in 1..=50 {
        rig.put("a", "k", &number.to_string());
        rig.put("b", &format!("k{number}"), "1");
        assert!(rig.store().stats().unwritten_bytes <= 600);
        let found = rig.killed_copy();
        let (last, keys) = (found.get("a", "k").unwrap().parse::<usize>().unwrap(), found.all("b").len());
        assert!(last == keys || last == keys + 1, "{last} and {keys} are no state that there ever was");
        assert!(last >= kept, "what was written stays written");
        kept = last;
    }
    assert!((1..50).contains(&kept), "{kept}");
}

#[test]
fn a_request_larger_than_the_buffer_is_written_with_all_before_it() {
    let rig = with_buffer(1_000);
    rig.put("a", "k", "1");
    rig.put("a", "large", &format!("\"{}\"", "x".repeat(5_000)));
    assert_eq!(rig.store().stats().unwritten_bytes, 0);
    assert_eq!(rig.killed_copy().all("a").len(), 2);
}

#[test]
fn a_change_of_segment_writes_the_buffer_first() {
    let mut rig = Rig::new(options(Durability::Memory));
    rig.options.segment_bytes = 400;
    let rig = rig.opened();
    for number in 0..60 {
        rig.put("a", &format!("k{number}"), "1");
    }
    assert!(rig.segments().len() > 5);
    let found = rig.killed_copy();
    let keys = found.all("a").len();
    assert!((1..=60).contains(&keys));
    rig.commit().unwrap();
    for seed in 0..20 {
        let found = Rig::on(rig.disk.power_cut(seed, Rules::any(seed)), rig.options.clone()).opened();
        assert_eq!(found.all("a"), rig.all("a"));
    }
}

#[test]
fn a_spill_that_meets_a_full_disk_keeps_what_was_acknowledged_and_refuses_more() {
    for with in [FailWith::NoSpace, FailWith::ShortWrite] {
        let rig = with_buffer(1_000);
        rig.put("a", "k", "0");
        rig.commit().unwrap();
        rig.disk.fail(Failure::nth(1, with).of(Call::Write).on("journal").for_good());
        let mut done = 0;
        let refused = loop {
            match rig.try_put("a", &format!("k{done}"), "1") {
                Ok(_) => done += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(refused, Error::Full { .. }), "{refused:?}");
        assert!(done > 5, "the buffer took what it could");
        assert!(matches!(rig.try_put("a", "one more", "1"), Err(Error::Full { .. })));
        assert!(matches!(rig.commit(), Err(Error::Full { .. })), "a commit promises nothing that it could not do");
        assert!(matches!(rig.store().tick(), Err(Error::Full { .. })));
        assert!(matches!(rig.flush("a"), Err(Error::Full { .. })));
        assert_eq!(rig.all("a").len(), done + 1, "what was acknowledged is still seen, and what was refused is not");
        rig.disk.mend();
        rig.put("a", "later", "1");
        rig.commit().unwrap();
        assert_eq!(rig.all("a").len(), done + 2);
        for seed in 0..20 {
            let found = Rig::on(rig.disk.power_cut(seed, Rules::any(seed)), rig.options.clone()).opened();
            assert_eq!((found.all("a"), &found.store().opening().set_aside), (rig.all("a"), &None));
        }
    }
}

#[test]
fn a_file_never_holds_what_a_crash_can_take_from_another_namespace() {
    let rig = Rig::memory();
    rig.put("a", "k", "0");
    rig.put("b", "k", "0");
    rig.flush("a").unwrap();
    rig.commit().unwrap();
    // One request over both: the flush of one brings the record of both to the platter before the file is replaced.
    rig.write(|request, table| {
        request.put(&table("a"), "k", "1", Condition::Always).unwrap();
        request.put(&table("b"), "k", "1", Condition::Always).unwrap();
    })
    .unwrap();
    rig.disk.trace();
    rig.flush("a").unwrap();
    let trace = rig.disk.take_trace();
    let is_journal = |path: &Path| path.to_string_lossy().contains("journal");
    let synced = trace.iter().position(|(call, path)| *call == Call::Sync && is_journal(path));
    let replaced = trace.iter().position(|(call, _)| *call == Call::Rename);
    assert!(synced.unwrap() < replaced.unwrap(), "{trace:?}");
    for disk in [rig.disk.kill(), rig.disk.power_cut(3, Rules::DROP_ALL)] {
        let found = Rig::on(disk, rig.options.clone()).opened();
        let values = (found.get("a", "k").unwrap(), found.get("b", "k").unwrap());
        assert!(values == ("1".into(), "1".into()) || values == ("0".into(), "0".into()), "{values:?}");
        assert_eq!(found.all("b"), [pair("k", "1")]);
    }
}
