//! A journal with a limit under writers that are faster than its flushes; segments that are made ahead; and numbers for
//! `status` that wait for nobody.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use commonhold_proto::Durability;

use super::rig::{Rig, options, pair};
use crate::engine::FlushHow;
use crate::engine::disk::{Call, Rules};

const LIMIT: u64 = 400 << 10;
const LONG: Duration = Duration::from_mins(1);

/// Does what the daemon does when it is woken, until all senders are gone.
fn relieve(rig: &Rig, woken: mpsc::Receiver<()>, flushes: &AtomicU64) {
    for () in woken {
        loop {
            rig.store().tick().unwrap();
            let places = rig.store().to_relieve_the_journal();
            if places.is_empty() {
                break;
            }
            for place in places {
                rig.store().flush(&place, FlushHow::default()).unwrap();
                flushes.fetch_add(1, Ordering::Relaxed);
            }
        }
        rig.store().journal_is_relieved();
    }
}

#[test]
fn writers_wait_for_the_flushes_so_that_a_journal_does_not_outgrow_its_limit_by_more_than_half() {
    const VALUE_BYTES: usize = 4_000;
    let mut rig = Rig::new(options(Durability::Buffered));
    rig.options.journal_limit = Some(LIMIT);
    let rig = rig.opened();
    let (wake, woken) = mpsc::channel();
    let sender = parking_lot::Mutex::new(Some(wake));
    let sender = std::sync::Arc::new(sender);
    let waking = std::sync::Arc::clone(&sender);
    rig.store().wake_by(move || {
        if let Some(wake) = &*waking.lock() {
            let _ = wake.send(());
        }
    });
    let (flushes, largest) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let (relieved, flushes) = (&rig, &flushes);
        scope.spawn(move || relieve(relieved, woken, flushes));
        let writers: Vec<_> = ["a", "b", "c"]
            .map(|name| {
                let (rig, largest) = (&rig, &largest);
                scope.spawn(move || {
                    let value = format!("\"{}\"", "x".repeat(VALUE_BYTES));
                    for number in 0..1_000 {
                        rig.put(name, &format!("k{}", number % 20), &value);
                        largest.fetch_max(rig.store().stats().journal_bytes, Ordering::Relaxed);
                    }
                })
            })
            .into();
        for writer in writers {
            writer.join().unwrap();
        }
        *sender.lock() = None;
    });
    let (largest, flushes) = (largest.into_inner(), flushes.into_inner());
    let most = LIMIT + LIMIT / 2 + 2 * VALUE_BYTES as u64;
    assert!(largest > LIMIT && largest <= most, "{largest} of {most} bytes, {flushes} flushes");
    assert!(flushes >= 20, "{flushes}");
    assert_eq!(rig.table("c").len(), 20);
}

#[test]
fn where_nobody_flushes_or_flushes_do_not_help_nobody_waits() {
    let mut rig = Rig::new(options(Durability::Buffered));
    rig.options.journal_limit = Some(1_000);
    let rig = rig.opened();
    let began = Instant::now();
    let value = format!("\"{}\"", "x".repeat(1_000));
    let put_many = || {
        for number in 0..100 {
            rig.put("a", &number.to_string(), &value);
        }
    };
    put_many();
    let (wake, woken) = mpsc::channel();
    rig.store().wake_by(move || {
        let _ = wake.send(());
    });
    rig.put("a", "k", &value);
    woken.recv_timeout(LONG).expect("the writer wakes");
    rig.store().journal_is_relieved();
    put_many();
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
}

fn with_segments_made_ahead() -> Rig {
    let mut rig = Rig::new(options(Durability::Synced));
    (rig.options.room_bytes, rig.options.segment_bytes) = (4_096, 10_000);
    let rig = rig.opened();
    while rig.store().stats().journal_bytes < 6_000 {
        rig.put("a", "k", &some_value(0));
    }
    rig
}

fn some_value(number: u64) -> String {
    format!("\"{number:0>200}\"")
}

#[test]
fn a_segment_that_was_made_ahead_costs_a_writer_no_new_file_and_no_room() {
    let rig = with_segments_made_ahead();
    let spare = std::path::Path::new("/store/.commonhold/journal/spare.log.new");
    assert!(!rig.disk.exists(spare));
    rig.store().tick().unwrap();
    assert!(rig.disk.exists(spare));
    while rig.store().stats().journal_bytes < 9_900 {
        rig.put("a", "k", &some_value(1));
    }
    rig.disk.trace();
    while rig.segments().len() < 2 {
        rig.put("a", "k", &some_value(2));
    }
    let calls: Vec<_> = rig.disk.take_trace().into_iter().map(|(call, _)| call).collect();
    assert!(!calls.iter().any(|call| matches!(call, Call::Create | Call::Allocate)), "{calls:?}");
    assert!(calls.contains(&Call::Rename) && !rig.disk.exists(spare));
    assert_eq!(rig.killed().all("a"), [pair("k", &some_value(2))]);
}

#[test]
fn at_every_call_of_a_change_to_a_segment_that_was_made_ahead_the_process_may_die() {
    let mut calls = 0;
    loop {
        calls += 1;
        let rig = with_segments_made_ahead();
        rig.disk.crash_after(calls);
        let _ = rig.store().tick();
        let mut last = None;
        while rig.segments().len() < 2 || rig.store().stats().journal_bytes < 11_000 {
            let number = last.map_or(1, |last| last + 1);
            if rig.try_put("a", "k", &some_value(number)).is_err() {
                break;
            }
            last = Some(number);
        }
        let through = !rig.disk.is_dead();
        for seed in (0..5).map(Some).chain([None]) {
            let disk = seed.map_or_else(|| rig.disk.kill(), |seed| rig.disk.power_cut(seed, Rules::any(seed)));
            let found = Rig::on(disk, rig.options.clone()).opened();
            let allowed = [last.unwrap_or(0), last.unwrap_or(0) + 1].map(some_value);
            let value = found.get("a", "k").unwrap();
            assert!(allowed.contains(&value), "call {calls}, seed {seed:?}: {value}, acknowledged {last:?}");
            assert!(!found.disk.names("/store/.commonhold/journal").iter().any(|name| name.contains(".new")));
        }
        if through {
            assert!(calls > 20, "{calls}");
            return;
        }
    }
}

#[test]
fn numbers_for_status_do_not_wait_for_a_writer_who_waits_for_the_disk() {
    let rig = Rig::synced();
    rig.put("a", "k", "1");
    rig.store().tick().unwrap();
    let before = rig.store().stats();
    let hold = rig.disk.hold(Call::Write, "journal");
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| rig.put("a", "k", "2"));
        assert!(hold.wait_until_reached(LONG));
        let now = rig.store().stats();
        assert!(!writer.is_finished());
        assert_eq!((now.segments, now.journal_bytes, &now.pinned_by), (1, before.journal_bytes, &before.pinned_by));
        drop(hold);
    });
    assert!(rig.store().stats().journal_bytes > before.journal_bytes);
}
