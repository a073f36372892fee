//! Writes that are sent again to the real daemon, which is killed under them again and again: each is done once.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use commonhold::blocking::{ConnectOptions, Seq};
use commonhold::testing::{TestStore, TestStoreOptions};

use crate::driver::{Driver, Later, Records, promises};

const KILLS: u64 = 25;
const THREADS: usize = 4;

fn store() -> TestStore {
    TestStoreOptions::new().binary(env!("CARGO_BIN_EXE_commonhold")).start().unwrap()
}

fn patient() -> ConnectOptions {
    ConnectOptions::new().timeout(Some(Duration::from_mins(2))).reconnect_for(Duration::from_mins(1))
}

/// Waits until a count has passed a mark.
fn wait_for(count: &AtomicU64, mark: u64) {
    let deadline = Instant::now() + Duration::from_mins(2);
    while count.load(Ordering::Acquire) < mark {
        assert!(Instant::now() < deadline, "nothing is answered any more");
        thread::yield_now();
    }
}

fn increments_are_counted_exactly_however_often_the_daemon_is_killed<D: Driver>() {
    let seed = 7;
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut store = store();
    let client = D::connect_with(store.dir(), patient()).unwrap();
    let (answered, over) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            let counters = client.namespace("counters");
            let (answered, over) = (&answered, &over);
            scope.spawn(move || {
                while !over.load(Ordering::Acquire) {
                    counters.increment("k", "n", 1).expect("the outcome of every increment is known");
                    answered.fetch_add(1, Ordering::AcqRel);
                }
            });
        }
        for _ in 0..KILLS {
            wait_for(&answered, answered.load(Ordering::Acquire) + random.u64(1..60));
            store.kill();
            store.restart().unwrap();
        }
        over.store(true, Ordering::Release);
    });
    let counted: serde_json::Value = client.namespace("counters").get("k").unwrap().unwrap();
    assert_eq!(counted["n"], answered.into_inner());
    assert!(client.restarts() >= KILLS / 2, "{} restarts were noticed", client.restarts());
}

fn writes_in_flight_keep_their_order_and_each_gets_its_own_answer<D: Driver>() {
    let mut store = store();
    let client = D::connect_with(store.dir(), patient()).unwrap();
    let notes = client.namespace("notes");
    let sent = AtomicU64::new(0);
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut last = Seq(0);
            for round in 0..30 {
                let begin = |number: u64| {
                    sent.fetch_add(1, Ordering::AcqRel);
                    notes.put_raw_later(["a", "b", "c"][number as usize % 3], &number.to_string()).unwrap()
                };
                let pending: Vec<_> = (round * 100..round * 100 + 100).map(begin).collect();
                for write in pending {
                    let seq = write.wait().expect("its outcome is known").seq;
                    assert!(seq > last, "{seq} came after {last}");
                    last = seq;
                }
            }
        });
        for mark in [150, 730, 1_111, 1_890, 2_550] {
            wait_for(&sent, mark);
            store.kill();
            store.restart().unwrap();
        }
        writer.join().unwrap();
    });
    let values = ["a", "b", "c"].map(|key| notes.get::<u64>(key).unwrap().unwrap());
    assert_eq!(values, [2_997, 2_998, 2_999]);
}

promises! {
    increments_are_counted_exactly_however_often_the_daemon_is_killed,
    writes_in_flight_keep_their_order_and_each_gets_its_own_answer,
}
