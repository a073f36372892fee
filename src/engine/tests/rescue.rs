//! After a failed sync of the journal: what is in memory reaches the files, through a fresh segment or not at all, and
//! whatever becomes of that, a start finds neither damage nor a file that it does not know.

use std::path::Path;
use std::time::Duration;

use commonhold_proto::{Condition, Durability};

use super::rig::{DIR, Rig, file, options, pair, place};
use crate::engine::Error;
use crate::engine::disk::{Call, FailWith, Failure, Rules};

const NAMES: [&str; 3] = ["a", "b", "w/c"];
const EVERY: [Durability; 3] = [Durability::Memory, Durability::Buffered, Durability::Synced];

type Contents = Vec<Vec<(String, String)>>;

fn all(rig: &Rig) -> Contents {
    NAMES.iter().map(|name| rig.all(name)).collect()
}

/// A store in which some is flushed, some committed, some neither, over several segments; its journal has just failed
/// in a sync, and one request more is of unknown outcome.
fn failed(durability: Durability, room_bytes: u64) -> Rig {
    let mut rig = Rig::new(options(durability));
    (rig.options.segment_bytes, rig.options.room_bytes) = (700, room_bytes);
    let rig = rig.opened();
    for number in 0..6 {
        for name in NAMES {
            rig.put(name, &format!("k{number}"), &number.to_string());
        }
    }
    rig.flush("a").unwrap();
    rig.put("a", "k0", "10");
    rig.delete("b", "k1");
    rig.commit().unwrap();
    rig.clear("w/c");
    rig.put("w/c", "new", "11");
    rig.put("b", "k1", "12");
    rig.disk.fail(Failure::nth(1, FailWith::Io).of(Call::Sync).on("journal"));
    let outcome = rig.write(|request, table| {
        request.durability(Some(Durability::Synced));
        request.put(&table("a"), "both", "13", Condition::Always).unwrap();
        request.put(&table("b"), "both", "13", Condition::Always).unwrap();
    });
    assert!(matches!(outcome, Err(Error::OutcomeUnknown { .. })), "{outcome:?}");
    rig.disk.mend();
    assert!(rig.store().needs_rescue());
    rig
}

fn rescue(rig: &Rig) -> String {
    rig.store().rescue(Duration::ZERO);
    rig.store().refuses_writes().expect("writing does not begin again")
}

/// What the next owners find: after a kill, and after power cuts. Both must open, and nothing may be closed.
fn found(rig: &Rig) -> (Contents, Vec<Contents>) {
    let open = |disk| {
        let rig = Rig::on(disk, rig.options.clone()).opened();
        assert!(rig.store().opening().closed.is_empty(), "{:?}", rig.store().opening());
        rig.put("a", "later", "1");
        rig.delete("a", "later");
        all(&rig)
    };
    let cuts = (0..12).map(|seed| open(rig.disk.power_cut(seed, Rules::any(seed)))).collect();
    (open(rig.disk.kill()), cuts)
}

#[test]
fn everything_that_was_seen_is_in_the_files_after_the_rescue_and_there_at_the_next_start() {
    for durability in EVERY {
        for room_bytes in [0, 512] {
            let rig = failed(durability, room_bytes);
            let seen = all(&rig);
            let unknown = rig.get("a", "both").is_some();
            assert_eq!(unknown, durability != Durability::Synced, "it was asked for, and nobody else waits for it");
            let told = rescue(&rig);
            assert!(told.starts_with("a sync of ") && told.contains("every file holds"), "{told}");
            assert!(!rig.store().needs_rescue());
            for (name, expected) in NAMES.iter().zip(&seen) {
                assert_eq!(rig.in_file(name), *expected);
            }
            assert!(
                matches!(rig.try_put("a", "k", "1"), Err(Error::Unavailable { .. })),
                "writing has ended all the same"
            );
            assert!(!rig.flush("a").unwrap().rewritten, "there is nothing left to flush");
            assert_eq!(all(&rig), seen, "reads go on");
            let (killed, cuts) = found(&rig);
            assert_eq!(killed, seen);
            assert!(cuts.iter().all(|cut| *cut == seen), "{durability:?}");
            assert_eq!(rescue(&rig), told, "once more does nothing");
        }
    }
}

#[test]
fn no_file_is_replaced_when_the_fresh_segment_does_not_sync_either() {
    for durability in EVERY {
        for call in [Call::Sync, Call::Create, Call::Rename, Call::SyncDir] {
            let rig = failed(durability, 0);
            let seen = all(&rig);
            let files = |rig: &Rig| -> Vec<_> {
                rig.files()
                    .into_iter()
                    .filter(|(path, _)| !path.starts_with(Path::new(DIR).join(".commonhold")))
                    .collect()
            };
            let before = files(&rig);
            rig.disk.fail(Failure::nth(1, FailWith::Io).of(call).on("journal").for_good());
            let told = rescue(&rig);
            assert!(told.contains("no file was replaced"), "{told}");
            assert!(files(&rig) == before, "{call:?}");
            assert!(!rig.store().needs_rescue(), "it is not tried again");
            rig.disk.mend();
            assert_eq!(rescue(&rig), told);
            assert!(files(&rig) == before);
            assert_eq!(all(&rig), seen, "reads go on");
            let (killed, _) = found(&rig);
            if durability == Durability::Synced {
                assert!(
                    killed == seen || killed[0].contains(&pair("both", "13")),
                    "what is unknown may be there, whole"
                );
            } else {
                assert_eq!(killed, seen, "the journal that failed can still be read after a kill");
            }
        }
    }
}

#[test]
fn every_call_of_a_rescue_may_fail_or_be_its_last() {
    for durability in [Durability::Buffered, Durability::Synced] {
        for dies in [false, true] {
            let mut calls = 0;
            loop {
                calls += 1;
                let rig = failed(durability, if calls % 2 == 0 { 0 } else { 512 });
                let seen = all(&rig);
                let before = rig.disk.calls();
                if dies {
                    rig.disk.crash_after(calls);
                } else {
                    rig.disk.fail_call(calls, FailWith::Io);
                }
                rescue(&rig);
                let is_over = rig.disk.calls().since(&before).total() < calls;
                let what = format!("call {calls}, dies: {dies}, {durability:?}");
                let (killed, cuts) = found(&rig);
                let with_unknown = killed.iter().zip(&seen).all(|(found, seen)| {
                    let rest: Vec<_> = found.iter().filter(|(key, _)| key != "both").cloned().collect();
                    rest == *seen
                });
                let halves = killed.iter().filter(|found| found.contains(&pair("both", "13"))).count();
                assert!(killed == seen || (with_unknown && halves == 2), "{what}: {killed:?}");
                let in_files = NAMES
                    .iter()
                    .zip(&seen)
                    .all(|(name, seen)| rig.disk.exists(file(name)) && rig.in_file(name) == *seen);
                if in_files && !dies {
                    assert!(cuts.iter().all(|cut| *cut == seen) || !rig.store().dirty().is_empty(), "{what}");
                }
                if is_over {
                    break;
                }
            }
            assert!(calls > 30, "{calls}");
        }
    }
}

#[test]
fn a_namespace_that_cannot_be_written_is_named_and_its_records_are_in_the_fresh_segment() {
    for durability in EVERY {
        let rig = failed(durability, 0);
        let seen = all(&rig);
        let reader = rig.locks.hold_shared(&Rig::flush_lock("b"));
        let told = rescue(&rig);
        assert!(told.contains("could not write b:"), "{told}");
        // As any flush that fails: who looks for those finds it there, and not the one of another namespace.
        let failed = rig.table("b").failed_flush().expect("it has failed").reason;
        assert!(told.contains(&failed), "{failed} is not in {told}");
        assert_eq!(rig.table("a").failed_flush(), None);
        assert!(rig.store().needs_rescue());
        // The unknown request of a synced store was over both: neither half of it may be found.
        let (killed, cuts) = found(&rig);
        assert_eq!(killed, seen);
        assert!(cuts.iter().all(|cut| *cut == seen), "{durability:?}");
        drop(reader);
        assert!(rescue(&rig).contains("every file holds"));
        assert_eq!(rig.table("b").failed_flush(), None);
        assert!(!rig.store().needs_rescue());
        assert_eq!(found(&rig).0, seen);
    }
}

#[test]
fn a_rescue_after_a_lost_name_of_a_segment_builds_upon_the_one_before() {
    let mut rig = Rig::new(options(Durability::Buffered));
    rig.options.segment_bytes = 500;
    let rig = rig.opened();
    rig.put("a", "k", "0");
    rig.put("b", "k", "0");
    rig.commit().unwrap();
    let segments = rig.segments().len();
    while rig.segments().len() == segments {
        rig.put("a", "k", "1");
    }
    rig.disk.fail(Failure::nth(1, FailWith::Io).of(Call::SyncDir).on("journal"));
    assert!(rig.commit().is_err());
    rig.disk.mend();
    let reader = rig.locks.hold_shared(&Rig::flush_lock("a"));
    rescue(&rig);
    drop(reader);
    for seed in 0..40 {
        let found = Rig::on(rig.disk.power_cut(seed, Rules::any(seed)), rig.options.clone()).opened();
        assert_eq!((found.get("a", "k").unwrap(), found.get("b", "k").unwrap()), ("1".to_owned(), "0".to_owned()));
    }
}

#[test]
fn a_store_that_was_taken_away_is_not_rescued() {
    let rig = Rig::buffered();
    rig.put("a", "k", "1");
    rig.locks.steal(&Path::new(DIR).join(".commonhold/owner.lock"));
    assert!(rig.store().tick().is_err());
    let before = rig.files();
    assert!(!rig.store().needs_rescue());
    assert!(rescue(&rig).contains("owner.lock"));
    assert!(rig.files() == before, "not a byte of it is ours to change");
    // Nor one that is taken away while the journal has failed already.
    let rig = failed(Durability::Buffered, 0);
    rig.locks.steal(&Path::new(DIR).join(".commonhold/owner.lock"));
    let before = rig.files();
    rescue(&rig);
    assert!(rig.files() == before);
    assert_eq!(rig.store().dirty(), [place("a"), place("b"), place("w/c")]);
}

#[test]
fn what_the_buffer_of_a_memory_store_held_is_rescued_too() {
    let rig = Rig::memory();
    rig.put("a", "k", "0");
    rig.put("b", "k", "0");
    rig.commit().unwrap();
    rig.put_as(Durability::Buffered, "a", "k", "1").unwrap();
    let hold = rig.disk.hold(Call::Sync, "journal");
    rig.disk.fail(Failure::nth(1, FailWith::Io).of(Call::Sync).on("journal"));
    std::thread::scope(|scope| {
        let sync = scope.spawn(|| rig.commit());
        assert!(hold.wait_until_reached(Duration::from_mins(1)));
        rig.put("a", "k", "2");
        rig.put("b", "k", "3");
        drop(hold);
        assert!(sync.join().unwrap().is_err());
    });
    let reader = rig.locks.hold_shared(&Rig::flush_lock("a"));
    rescue(&rig);
    drop(reader);
    assert_eq!(rig.in_file("b"), [pair("k", "3")]);
    for seed in 0..20 {
        let found = Rig::on(rig.disk.power_cut(seed, Rules::any(seed)), rig.options.clone()).opened();
        assert_eq!(found.get("a", "k").unwrap(), "2", "its file could not be written, and the fresh segment has it");
    }
}
