//! Many threads at once: requests are whole for readers, flushes hold a state between two writes, and syncs are shared.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use commonhold_proto::{Condition, Durability, Place};

use super::rig::{Rig, contents, pair};
use crate::engine::disk::{Call, Rules};
use crate::engine::{FlushHow, Store, StoreOptions, Surroundings, WriteRequest};

#[test]
fn a_reader_never_sees_half_of_a_request() {
    let rig = Rig::buffered();
    let (a, b) = (rig.table("a"), rig.table("b"));
    let keys: Vec<String> = (0..20).map(|key| format!("k{key}")).collect();
    let write = |round: u64| {
        let mut request = WriteRequest::new(7, round);
        if round.is_multiple_of(3) {
            request.clear(&a).unwrap();
        }
        for key in &keys {
            request.put(&a, key, &round.to_string(), Condition::Always).unwrap();
            request.put(&b, key, &round.to_string(), Condition::Always).unwrap();
        }
        rig.store().write(vec![request]).pop().unwrap().unwrap();
    };
    write(0);
    let (stop, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for table in [&a, &b] {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let values: Vec<_> =
                        table.get_many(&keys).into_iter().map(|found| found.expect("never gone")).collect();
                    assert!(
                        values.windows(2).all(|two| two[0].value() == two[1].value()),
                        "half of a request was seen"
                    );
                    assert!(values.windows(2).all(|two| two[0].seq() == two[1].seq()));
                    let all = contents(table);
                    assert!(all.len() == 20 && all.iter().all(|(_, value)| *value == all[0].1), "{all:?}");
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut round = 0;
        while round < 2_000 || (reads.load(Ordering::Relaxed) < 200 && Instant::now() < deadline) {
            round += 1;
            write(round);
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(reads.load(Ordering::Relaxed) > 0);
}

#[test]
fn a_request_over_several_namespaces_survives_a_crash_whole_or_not_at_all() {
    let rig = Rig::buffered();
    let names = ["a", "b", "w/c"];
    for round in 1..=4 {
        let crash = Rig::on(rig.disk.kill(), rig.options.clone()).opened();
        let tables = names.map(|name| crash.table(name));
        for calls in 1..4 {
            crash.disk.crash_after(calls);
            drop(crash.write(|request, _| {
                for table in &tables {
                    request.put(table, "k", &round.to_string(), Condition::Always).unwrap();
                }
            }));
        }
        for seed in 0..40 {
            let disk = if seed == 0 { crash.disk.kill() } else { crash.disk.power_cut(seed, Rules::any(seed)) };
            let found = Rig::on(disk, rig.options.clone()).opened();
            let values = names.map(|name| found.get(name, "k"));
            assert!(values.windows(2).all(|two| two[0] == two[1]), "{values:?}");
        }
        rig.write(|request, table| {
            for name in names {
                request.put(&table(name), "k", &round.to_string(), Condition::Always).unwrap();
            }
        })
        .unwrap();
        let found = Rig::on(rig.disk.kill(), rig.options.clone()).opened();
        assert_eq!(names.map(|name| found.all(name)), [(); 3].map(|()| vec![pair("k", &round.to_string())]));
    }
}

#[test]
fn a_flush_while_writers_go_on_holds_a_state_between_two_writes() {
    let directory = tempfile::tempdir().unwrap();
    let simulated = Rig::buffered();
    let real = Store::open(directory.path(), StoreOptions::default(), Surroundings::real().unwrap()).unwrap();
    let on_disk = || std::fs::read(directory.path().join("kv_store_a.json")).unwrap();
    flush_beside_writers(simulated.store(), &|| simulated.disk.read_file(super::rig::file("a")));
    flush_beside_writers(&real, &on_disk);
    let before: Vec<_> = contents(&real.namespace(&Place::new("", "a").unwrap()).unwrap());
    drop(real);
    let again = Store::open(directory.path(), StoreOptions::default(), Surroundings::real().unwrap()).unwrap();
    assert_eq!(contents(&again.namespace(&Place::new("", "a").unwrap()).unwrap()), before);
}

/// The writer moves a token from key to key, two keys a request, so that in every state exactly one key has it and the
/// numbers tell which state it is.
fn flush_beside_writers(store: &Store, file: &dyn Fn() -> Vec<u8>) {
    const KEYS: u64 = 500;
    let place = Place::new("", "a").unwrap();
    let table = store.namespace(&place).unwrap();
    let write = |round: u64, first: bool| {
        let mut request = WriteRequest::new(7, round);
        if first {
            for key in 0..KEYS {
                request.put(&table, &format!("k{key}"), "0", Condition::Always).unwrap();
            }
        }
        request.put(&table, &format!("k{}", (round + KEYS - 1) % KEYS), "0", Condition::Always).unwrap();
        request.put(&table, &format!("k{}", round % KEYS), &round.to_string(), Condition::Always).unwrap();
        request.put(&table, "round", &round.to_string(), Condition::Always).unwrap();
        let (gone, new) = (format!("x{}", round.wrapping_sub(3)), format!("x{round}"));
        request.delete(&table, &gone, Condition::Always).unwrap();
        request.put(&table, &new, "1", Condition::Always).unwrap();
        store.write(vec![request]).pop().unwrap().unwrap();
    };
    write(1, true);
    let (stop, round) = (AtomicBool::new(false), AtomicU64::new(1));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let next = round.load(Ordering::Relaxed) + 1;
                write(next, false);
                round.store(next, Ordering::Release);
            }
        });
        for _ in 0..25 {
            let from = round.load(Ordering::Acquire);
            store.flush(&place, FlushHow { rewrite: true, lock_timeout: None }).unwrap();
            let to = round.load(Ordering::Acquire) + 1;
            let found: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&file()).unwrap();
            let at = found["round"].as_u64().unwrap();
            assert!((from..=to).contains(&at), "state {at} is not between {from} and {to}");
            let tokens: Vec<_> = found.iter().filter(|(key, value)| key.starts_with('k') && **value != 0).collect();
            assert_eq!(tokens, [(&format!("k{}", at % KEYS), &serde_json::Value::from(at))]);
            let extra = found.keys().filter(|key| key.starts_with('x')).count() as u64;
            assert_eq!((extra, found.contains_key(&format!("x{at}"))), (at.min(3), true));
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn writers_that_wait_for_the_same_sync_share_it() {
    let rig = Rig::synced();
    let table = rig.table("a");
    rig.put("a", "k", "0");
    let before = rig.store().stats().syncs;
    let hold = rig.disk.hold(Call::Sync, "journal");
    let put = |thread: usize| {
        let (rig, table) = (&rig, &table);
        move || {
            let mut request = WriteRequest::new(thread as u128, 1);
            request.put(table, &format!("k{thread}"), "1", Condition::Always).unwrap();
            rig.store().write(vec![request]).pop().unwrap().unwrap()
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16).map(|thread| scope.spawn(put(thread))).collect();
        assert!(hold.wait_until_reached(Duration::from_mins(1)));
        assert_eq!(table.get("k1").map(|found| found.value().to_owned()), None, "what is not synced is not seen");
        assert_eq!(rig.store().applied(), rig.store().synced());
        drop(hold);
        for thread in threads {
            assert_eq!(thread.join().unwrap().new, 1);
        }
    });
    let syncs = rig.store().stats().syncs - before;
    assert!((1..=16).contains(&syncs), "{syncs}");
    assert_eq!(rig.killed().all("a").len(), 17);
}

#[test]
fn every_acknowledged_write_of_many_threads_is_there_after_a_kill() {
    for durability in [Durability::Buffered, Durability::Synced] {
        let mut rig = Rig::new(super::rig::options(durability));
        rig.options.segment_bytes = 2_000;
        let rig = rig.opened();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let rig = &rig;
                scope.spawn(move || {
                    for number in 0..100 {
                        rig.put(["a", "b"][thread % 2], &format!("k{thread}-{number}"), &number.to_string());
                    }
                });
            }
            scope.spawn(|| (0..20).for_each(|_| drop((rig.flush("a"), rig.store().tick()))));
        });
        let expected = (rig.all("a"), rig.all("b"));
        assert_eq!((expected.0.len(), expected.1.len()), (200, 200));
        let rig = rig.killed();
        assert_eq!((rig.all("a"), rig.all("b")), expected, "also in the order in which readers saw them");
    }
}

#[test]
fn first_flushes_of_many_namespaces_at_once_share_the_directories_that_they_make() {
    for workspace in ["", "w/"].repeat(100) {
        let rig = Rig::buffered();
        let names: Vec<String> = (0..4).map(|name| format!("{workspace}n{name}")).collect();
        let barrier = std::sync::Barrier::new(names.len());
        std::thread::scope(|scope| {
            for name in &names {
                let (rig, barrier) = (&rig, &barrier);
                scope.spawn(move || {
                    for value in ["1", "2"] {
                        rig.put(name, "k", value);
                        barrier.wait();
                        // The first one makes the workspace, the second the places for the files that are kept.
                        rig.flush(name).unwrap();
                    }
                });
            }
        });
        assert!(names.iter().all(|name| rig.in_file(name) == [pair("k", "2")]));
    }
}
