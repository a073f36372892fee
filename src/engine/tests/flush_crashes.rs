//! A flush that dies: every call of it is a crash point, by a kill and by a power cut, and every call may fail.

use commonhold_proto::Durability;

use super::rig::{DIR, Rig, file, options, pair, place};
use crate::engine::disk::{Call, FailWith, Failure, Rules};

/// A store with a flushed namespace, and changes to it that are not flushed yet.
fn before_a_flush(durability: Durability, name: &str) -> Rig {
    let rig = Rig::new(options(durability)).opened();
    for number in 0..20 {
        rig.put(name, &format!("k{number}"), "1");
    }
    rig.flush(name).unwrap();
    rig.put(name, "k0", "2");
    rig.delete(name, "k1");
    rig.put("other", "k", "1");
    rig.commit().unwrap();
    rig
}

/// The next owner finds one of the two files whole, and everything that was written.
fn check(rig: Rig, name: &str, old: &[u8], expected: &[(String, String)], what: &str) {
    let found = rig.disk.read_file(file(name));
    let rig = rig.opened();
    assert!(rig.store().opening().closed.is_empty(), "{what}");
    assert_eq!(rig.all(name), expected, "{what}");
    assert_eq!(rig.all("other"), [pair("k", "1")], "{what}");
    assert!(found == old || rig.in_file(name) == expected, "{what}: neither the old nor the new file");
    rig.put(name, "later", "1");
    rig.flush(name).unwrap();
    let rig = rig.killed();
    assert_eq!(rig.in_file(name).len(), expected.len() + 1, "{what}");
    assert_eq!(rig.all(name).len(), expected.len() + 1, "{what}");
}

#[test]
fn killed_in_a_flush_leaves_the_old_or_the_new_file_whole() {
    for durability in [Durability::Buffered, Durability::Synced] {
        for name in ["a", "w/a"] {
            let mut calls = 0;
            loop {
                calls += 1;
                let rig = before_a_flush(durability, name);
                let (old, expected) = (rig.disk.read_file(file(name)), rig.all(name));
                rig.disk.crash_after(calls);
                let outcome = rig.flush(name);
                let came_through = !rig.disk.is_dead();
                assert!(came_through || outcome.is_err());
                let options = rig.options.clone();
                let found = |disk| Rig::on(disk, options.clone());
                check(found(rig.disk.kill()), name, &old, &expected, &format!("{name}, killed in call {calls}"));
                for seed in 0..12 {
                    let disk = rig.disk.power_cut(seed, Rules::any(seed));
                    let what = format!("{name}, power cut {seed} in call {calls}");
                    check(found(disk), name, &old, &expected, &what);
                }
                if came_through {
                    break;
                }
            }
            assert!(calls > 10, "a flush has more calls than that");
        }
    }
}

#[test]
fn a_flush_whose_nth_call_fails_loses_nothing_and_can_be_repeated() {
    const KINDS: [(Call, FailWith); 9] = [
        (Call::Create, FailWith::NoSpace),
        (Call::Create, FailWith::Io),
        (Call::Write, FailWith::NoSpace),
        (Call::Write, FailWith::ShortWrite),
        (Call::Link, FailWith::Io),
        (Call::Rename, FailWith::Io),
        (Call::Stat, FailWith::Io),
        (Call::CreateDir, FailWith::NoSpace),
        (Call::List, FailWith::Io),
    ];
    for (call, with) in KINDS {
        for nth in 1..6 {
            let rig = before_a_flush(Durability::Buffered, "a");
            let (old, expected) = (rig.disk.read_file(file("a")), rig.all("a"));
            rig.disk.fail(Failure::nth(nth, with).of(call));
            let what = format!("{call:?} number {nth} fails with {with:?}");
            let outcome = rig.flush("a");
            rig.disk.mend();
            assert_eq!(rig.all("a"), expected, "{what}");
            check(Rig::on(rig.disk.kill(), rig.options.clone()), "a", &old, &expected, &what);
            rig.flush("a").unwrap_or_else(|error| panic!("{what} ({outcome:?}), and then {error:?}"));
            assert_eq!(rig.in_file("a"), expected, "{what}");
            let is_temporary = |name: &String| name.contains(".tmp.");
            assert!(!rig.disk.names(DIR).iter().any(is_temporary), "{what}: a temporary stays");
            // What the flush has brought into the file, the journal need not keep.
            rig.flush("other").unwrap();
            rig.store().tick().unwrap();
            assert_eq!(rig.store().stats().pinned_by, [], "{what}");
        }
    }
}

#[test]
fn a_flush_that_died_before_its_completion_was_journaled_does_not_keep_the_journal_for_ever() {
    let rig = before_a_flush(Durability::Buffered, "a");
    rig.flush("other").unwrap();
    let expected = rig.all("a");
    let before = rig.disk.calls();
    rig.flush("a").unwrap();
    let calls = rig.disk.calls().since(&before).total();
    // The same again, but it dies in its last call: the append of the completion.
    let rig = before_a_flush(Durability::Buffered, "a");
    rig.flush("other").unwrap();
    rig.disk.crash_after(calls);
    assert!(rig.flush("a").is_err());
    let rig = rig.killed();
    assert_eq!(rig.in_file("a"), expected, "the rename was done");
    assert_eq!(rig.all("a"), expected);
    assert_eq!(rig.store().opening().recovered, [], "its file holds everything");
    // Nobody writes to it again, and still it is among those that are flushed.
    rig.put("other", "k", "2");
    assert_eq!(rig.store().dirty(), [place("a"), place("other")]);
    rig.flush("a").unwrap();
    rig.flush("other").unwrap();
    assert_eq!(rig.store().dirty(), []);
    rig.store().tick().unwrap();
    assert_eq!(rig.store().stats().pinned_by, []);
    let rig = rig.reopened();
    assert_eq!(rig.segments().len(), 1, "what every file holds is let go");
    for seed in 0..20 {
        let found = Rig::on(rig.disk.power_cut(seed, Rules::any(seed)), rig.options.clone()).opened();
        assert_eq!(found.all("a"), expected);
    }
}
