//! How long a record may stay unsynced: writers wait for a slow disk, readers do not.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use commonhold_proto::Durability;

use super::rig::{Rig, options};
use crate::engine::Error;
use crate::engine::disk::{Call, FailWith, Failure, Rules};

const LONG: Duration = Duration::from_mins(1);

#[test]
fn writers_wait_while_the_oldest_unsynced_record_is_older_than_two_seconds_and_readers_do_not() {
    for durability in [Durability::Memory, Durability::Buffered] {
        let rig = Rig::new(options(durability)).opened();
        rig.put("a", "k", "0");
        rig.commit().unwrap();
        rig.put_as(Durability::Buffered, "a", "k", "1").unwrap();
        rig.clock.advance(Duration::from_secs(2));
        rig.put("a", "k", "2");
        rig.clock.advance(Duration::from_millis(1));
        let hold = rig.disk.hold(Call::Sync, "journal");
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..3)
                .map(|number| {
                    let (rig, done) = (&rig, &done);
                    scope.spawn(move || {
                        rig.put("a", &format!("w{number}"), "3");
                        done.store(true, Ordering::SeqCst);
                    })
                })
                .collect();
            assert!(hold.wait_until_reached(LONG), "a writer who finds nobody syncing syncs");
            assert_eq!(rig.get("a", "k").unwrap(), "2", "readers read on");
            assert_eq!(rig.all("a").len(), 1);
            assert!(!done.load(Ordering::SeqCst), "no writer passes a sync that is overdue");
            drop(hold);
            for writer in writers {
                writer.join().unwrap();
            }
        });
        assert_eq!(rig.all("a").len(), 4);
        let found = Rig::on(rig.disk.power_cut(1, Rules::DROP_ALL), rig.options.clone()).opened();
        let expected = if durability == Durability::Memory { "1" } else { "2" };
        assert!(found.get("a", "k").as_deref() >= Some(expected));
    }
}

#[test]
fn a_disk_that_keeps_up_holds_back_nobody() {
    let rig = Rig::buffered();
    rig.put("a", "k", "0");
    for number in 0..10 {
        let before = rig.disk.calls();
        rig.put("a", "k", &number.to_string());
        assert_eq!(rig.disk.calls().since(&before).of(Call::Sync), 0);
        rig.clock.advance(Duration::from_millis(1_900));
        rig.store().tick().unwrap();
    }
    // Nothing is unsynced however long nobody writes.
    rig.clock.advance(LONG);
    let before = rig.disk.calls();
    rig.put("a", "k", "10");
    assert_eq!(rig.disk.calls().since(&before).of(Call::Sync), 0);
}

#[test]
fn a_record_that_is_written_while_a_sync_runs_is_as_old_as_it_is() {
    let rig = Rig::buffered();
    rig.put("a", "k", "0");
    rig.commit().unwrap();
    rig.put("a", "k", "1");
    let hold = rig.disk.hold(Call::Sync, "journal");
    std::thread::scope(|scope| {
        let sync = scope.spawn(|| rig.commit().unwrap());
        assert!(hold.wait_until_reached(LONG));
        rig.put("a", "k", "2");
        rig.clock.advance(Duration::from_millis(1_500));
        drop(hold);
        sync.join().unwrap();
    });
    let syncs_of_a_put = |value: &str| {
        let before = rig.disk.calls();
        rig.put("a", "k", value);
        rig.disk.calls().since(&before).of(Call::Sync)
    };
    assert_eq!(syncs_of_a_put("3"), 0, "1.5 seconds");
    rig.clock.advance(Duration::from_millis(600));
    assert_eq!(syncs_of_a_put("4"), 1, "2.1 seconds: the sync that ran may not have caught it");
    assert_eq!(syncs_of_a_put("5"), 0, "and now it is caught");
}

#[test]
fn who_waits_for_a_sync_that_fails_has_done_nothing_and_is_told_so() {
    let rig = Rig::buffered();
    rig.put("a", "k", "1");
    rig.clock.advance(Duration::from_secs(3));
    rig.disk.fail(Failure::nth(1, FailWith::Io).of(Call::Sync).on("journal"));
    assert!(matches!(rig.try_put("a", "k", "2"), Err(Error::Unavailable { .. })));
    assert_eq!(rig.get("a", "k").unwrap(), "1");
    assert_eq!(rig.killed().get("a", "k").unwrap(), "1");
}
