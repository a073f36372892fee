//! Counts what things cost, by the allocator's own count: a record at most 64 bytes beside key and value, and a session
//! that is sent far more than it can serve no more than its bound.
//!
//! This file contains unsafe code: counting takes a global allocator of our own, and `GlobalAlloc` is an unsafe trait.
#![cfg(feature = "daemon")]
#![expect(unsafe_code, reason = "a counting global allocator")]

mod daemon_support;
#[path = "daemon_support/slow_disk.rs"]
mod slow_disk;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use commonhold::blocking::{Batch, Client, ConnectOptions};
use commonhold::daemon::Daemon;
use commonhold::engine::map::{Map, Record};
use commonhold::engine::{Store, StoreOptions, Surroundings};
use commonhold::json::{FileFormat, FileWriter};
use commonhold::proto::frame;
use commonhold::proto::limits::MAX_IN_FLIGHT_BYTES;
use daemon_support::{Place, frame_of, frame_with_deadline, get, put};

/// Bytes asked for and not given back.
static HELD: AtomicUsize = AtomicUsize::new(0);
/// The most of that since it was last set.
static MOST: AtomicUsize = AtomicUsize::new(0);
/// The largest single request since it was last set to 0.
static LARGEST: AtomicUsize = AtomicUsize::new(0);
/// How often memory was asked for: by the whole process, and by this thread.
static CALLS: AtomicUsize = AtomicUsize::new(0);
thread_local! {
    static CALLS_HERE: Cell<usize> = const { Cell::new(0) };
}
/// Held while something is counted, so that nobody else allocates meanwhile.
static COUNTING: Mutex<()> = Mutex::new(());

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call is passed on to `System` unchanged, with the same layout; the counters are atomics and allocate
// nothing. So the promises are `System`'s.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        MOST.fetch_max(HELD.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        LARGEST.fetch_max(layout.size(), Relaxed);
        count_call();
        // SAFETY: the caller keeps `alloc`'s contract, which is `System`'s.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller got `pointer` from `alloc` or `realloc` above, so from `System`, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        MOST.fetch_max(HELD.fetch_add(size, Relaxed) + size, Relaxed);
        HELD.fetch_sub(layout.size(), Relaxed);
        LARGEST.fetch_max(size, Relaxed);
        count_call();
        // SAFETY: as in `dealloc`; `size` is the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

fn count_call() {
    CALLS.fetch_add(1, Relaxed);
    // A thread that is ending may have none any more.
    let _ = CALLS_HERE.try_with(|calls| calls.set(calls.get() + 1));
}

const RECORDS: usize = 1_000_000;
const MOST_BYTES_A_RECORD: usize = 64;
const LARGEST_STEP_BYTES: usize = 256 * 1024;
/// What a load may hold beside the records: a few pieces of the file for each of at most eight threads.
const LOAD_BYTES: usize = 20 << 20;
const RUNNER_BYTES: usize = 64 * 1024;

/// A record with a key of 14 bytes and a short value.
fn numbered(text: &mut String, number: usize) -> Record {
    text.clear();
    write!(text, "chunk-{number:08}").expect("a String takes everything");
    Record::new(text, "{\"n\":1}")
}

/// Bytes a record beside key and value, by the allocator's count.
fn each(before: usize, map: &Map) -> usize {
    (HELD.load(Relaxed) - before - map.bytes()) / map.len()
}

/// How often one call asks for memory: on this thread, which is the client's, and on all others, which are the daemon's.
#[expect(clippy::cast_precision_loss, reason = "they are thousands")]
fn calls_of_each(calls: usize, mut call: impl FnMut(usize)) -> (f64, f64) {
    // The first ones make what is kept.
    (0..calls).for_each(&mut call);
    let (all, here) = (CALLS.load(Relaxed), CALLS_HERE.get());
    (0..calls).for_each(&mut call);
    let here = CALLS_HERE.get() - here;
    let all = CALLS.load(Relaxed) - all;
    (here as f64 / calls as f64, (all - here) as f64 / calls as f64)
}

#[test]
fn requests_ask_for_memory_a_few_times_each() {
    const CALLS_EACH: usize = 1_000;
    let _counting = COUNTING.lock().unwrap_or_else(PoisonError::into_inner);
    let place = Place::new();
    let _daemon = place.serve();
    let value = format!("{{\"content\":\"{}\"}}", "x".repeat(800));
    let keys: Vec<String> = (0..CALLS_EACH).map(|number| format!("chunk-{number:08}")).collect();
    let connect = |options: ConnectOptions| Client::connect_with(place.path(), options).unwrap();
    let (cached, asking) = (connect(ConnectOptions::new()), connect(ConnectOptions::new().cache_bytes(0)));
    let (near, far) = (cached.namespace("chunks").unwrap(), asking.namespace("chunks").unwrap());
    let batch = keys.iter().try_fold(Batch::new(), |batch, key| batch.put_raw(&far, key, &value)).unwrap();
    asking.write(&batch).unwrap();
    let is_near = near.get_raw(&keys[0]).is_ok() && cached.cache_stats().on;
    let mut wrong = Vec::new();
    let mut judge = |what: &str, records: f64, (client, daemon): (f64, f64), most: (f64, f64)| {
        let (client, daemon) = (client / records, daemon / records);
        println!("{what}: the client asks for memory {client:.2} times, the daemon {daemon:.2} times");
        if client > most.0 || daemon > most.1 {
            wrong.push(format!("{what}: {client:.2} and {daemon:.2}, at most {most:?}"));
        }
    };
    // The daemon's other threads, as the tick, ask for a little now and then.
    let get = calls_of_each(CALLS_EACH, |number| drop(far.get_raw(&keys[number]).unwrap()));
    judge("a get", 1.0, get, (2.1, 0.2));
    if is_near {
        let hit = calls_of_each(CALLS_EACH, |number| drop(near.get_raw(&keys[number]).unwrap()));
        judge("a get from the near cache", 1.0, hit, (0.0, 0.2));
    }
    let put = calls_of_each(CALLS_EACH, |number| {
        far.put_raw(&keys[number], &value).unwrap();
    });
    judge("a put", 1.0, put, (3.1, 8.2));
    let many = calls_of_each(5, |_| {
        asking.write(&batch).unwrap();
    });
    judge("a record of a batch of 1,000", 1e3, many, (0.1, 1.2));
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_million_tiny_requests_in_one_go_stay_within_the_bound_of_a_session() {
    const REQUESTS: u64 = 1_000_000;
    const AN_HOUR_MS: u32 = 3_600_000;
    let _counting = COUNTING.lock().unwrap_or_else(PoisonError::into_inner);
    for place in [Place::new(), Place::of_tasks()] {
        std::fs::write(place.file("slow"), "{\"a\":1}").unwrap();
        let (around, held) = slow_disk::slow("kv_store_slow.json");
        let _daemon = Daemon::start_in(place.options(), around).unwrap();
        let peer = place.connect();
        let mut frames = Vec::new();
        (1..=REQUESTS).for_each(|id| frames.extend(frame_with_deadline(id, AN_HOUR_MS, get("slow", "a"))));
        let sent = Arc::new(AtomicUsize::new(0));
        let (stream, sending) = (Arc::clone(&peer.stream), Arc::clone(&sent));
        stream.set_write_timeout(None).unwrap();
        let before = HELD.load(Relaxed);
        let sender = std::thread::spawn(move || {
            for chunk in frames.chunks(16 * 1024) {
                (&*stream).write_all(chunk).unwrap();
                sending.fetch_add(chunk.len(), Relaxed);
            }
            frames.len()
        });
        // None can be answered yet. It is read for as long as the session takes more.
        let (mut most, mut moved, mut last) = (0, Instant::now(), 0);
        while moved.elapsed() < Duration::from_millis(300) {
            most = HELD.load(Relaxed).saturating_sub(before).max(most);
            if std::mem::replace(&mut last, sent.load(Relaxed)) != sent.load(Relaxed) {
                moved = Instant::now();
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(last < 4 << 20, "it was not read on: {last} bytes");
        drop(held);
        let (mut answers, mut bytes, mut end) = (0, vec![0; 64 * 1024], 0);
        while answers < REQUESTS {
            end += (&*peer.stream).read(&mut bytes[end..]).unwrap();
            let mut at = 0;
            while let Some((_, _, consumed)) = frame::split(&bytes[at..end]).unwrap() {
                answers += 1;
                at += consumed;
            }
            bytes.copy_within(at..end, 0);
            end -= at;
            most = HELD.load(Relaxed).saturating_sub(before).max(most);
        }
        let of_frames = sender.join().unwrap();
        println!("{REQUESTS} requests of {} bytes took at most {most} bytes of memory", of_frames as u64 / REQUESTS);
        assert!(most < MAX_IN_FLIGHT_BYTES, "{most} bytes");
    }
}

#[test]
fn a_client_that_asks_and_never_reads_stays_within_the_bound_of_a_session_and_is_ended() {
    const REQUESTS: u64 = 20_000;
    let _counting = COUNTING.lock().unwrap_or_else(PoisonError::into_inner);
    for place in [Place::new(), Place::of_tasks()] {
        let mut options = place.options();
        options.stall_timeout = Duration::from_secs(2);
        let daemon = Daemon::start(options).unwrap();
        let (mut others, deaf) = (place.connect(), place.connect());
        let value = format!("\"{}\"", "x".repeat(100_000));
        others.call(put("large", "a", &value));
        // 2 GB of answers, for 1 MB of requests.
        let mut frames = Vec::new();
        (1..=REQUESTS).for_each(|id| frames.extend(frame_of(id, get("large", "a"))));
        let before = HELD.load(Relaxed);
        // What the daemon does not read does not leave here; at the end it has closed the connection.
        let sender = std::thread::spawn(move || {
            let left = (&*deaf.stream).write_all(&frames);
            (deaf, left.is_ok())
        });
        let (began, mut most, mut served) = (Instant::now(), 0, 0);
        while daemon.daemon().session_count() > 1 {
            assert!(began.elapsed() < daemon_support::PATIENCE, "it is not ended");
            assert_eq!(others.call(get("large", "none")).value(), None);
            served += 1;
            most = HELD.load(Relaxed).saturating_sub(before).max(most);
        }
        let took = began.elapsed();
        drop(sender.join().unwrap());
        println!("it took at most {most} bytes of memory and was ended after {took:.1?}; {served} others were served");
        assert!(took >= Duration::from_secs(2), "{took:?}");
        assert!(most < MAX_IN_FLIGHT_BYTES, "{most} bytes");
        assert!(served > 100, "only {served} requests of others were served in {took:?}");
    }
}

#[test]
fn a_load_holds_little_beside_the_records_and_these_cost_what_they_cost_when_they_are_put() {
    const RECORDS: usize = 60_000;
    let _counting = COUNTING.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = tempfile::tempdir().unwrap();
    let value = format!("\"{}\"", "x".repeat(830));
    let mut bytes = Vec::new();
    let mut writer = FileWriter::new(FileFormat::Lines);
    writer.begin(&mut bytes);
    (0..RECORDS).for_each(|number| writer.record(&mut bytes, &format!("key-{number:010}"), &value));
    writer.finish(&mut bytes);
    let place = commonhold::proto::Place::new("", "a").unwrap();
    for is_known_layout in [true, false] {
        if !is_known_layout {
            // A blank before its first record: it is read as a whole.
            bytes.insert(1, b' ');
        }
        std::fs::write(directory.path().join("kv_store_a.json"), &bytes).unwrap();
        let store = Store::open(directory.path(), StoreOptions::default(), Surroundings::real().unwrap()).unwrap();
        let before = HELD.load(Relaxed);
        MOST.store(before, Relaxed);
        let table = store.namespace(&place).unwrap();
        let (held, most) = (HELD.load(Relaxed) - before, MOST.load(Relaxed) - before);
        let overhead = (held - table.bytes() as usize) / RECORDS;
        println!("{RECORDS} records hold {held} bytes, {overhead} a record beside key and value; at most {most}");
        assert_eq!(table.len(), RECORDS as u64);
        assert!(overhead <= MOST_BYTES_A_RECORD, "{overhead} bytes a record");
        let allowed = if is_known_layout { LOAD_BYTES } else { bytes.len() + LOAD_BYTES };
        assert!(most <= held + allowed, "{} bytes beside the records", most - held);
    }
}

#[test]
fn a_record_costs_at_most_64_bytes_beside_key_and_value_and_growth_never_moves_everything() {
    let _counting = COUNTING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut text = String::with_capacity(64);
    drop(numbered(&mut text, 0));
    let before = HELD.load(Relaxed);
    let mut map = Map::new();
    LARGEST.store(0, Relaxed);
    for number in 0..RECORDS {
        map.put(numbered(&mut text, number));
        if number.is_multiple_of(RECORDS / 50) && number >= 20_000 {
            let each = each(before, &map);
            assert!(each <= MOST_BYTES_A_RECORD, "{each} bytes a record at {number}");
        }
    }
    let full = each(before, &map);
    let largest = LARGEST.load(Relaxed);
    println!("{full} bytes a record at {RECORDS}; the largest single allocation was {largest}");
    assert!(full <= MOST_BYTES_A_RECORD, "{full} bytes a record");
    assert!(largest <= LARGEST_STEP_BYTES, "{largest} bytes at once");
    let counted = HELD.load(Relaxed) - before - map.bytes();
    let told = map.overhead_bytes();
    assert!(told.abs_diff(counted) < counted / 50, "overhead_bytes tells {told}, the allocator {counted}");

    // Every record is replaced, then half of them removed and put again at the end, at random places.
    for number in 0..RECORDS {
        map.put(numbered(&mut text, number));
    }
    assert!(each(before, &map) <= full, "replacing costs nothing");
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..RECORDS / 2 {
        let record = numbered(&mut text, random.usize(0..RECORDS));
        map.remove(record.key()).expect("every number is there");
        map.put(record);
    }
    let churned = each(before, &map);
    println!("{churned} bytes a record after {} were removed and put again", RECORDS / 2);
    assert!(churned <= MOST_BYTES_A_RECORD + 6, "{churned} bytes a record after churn");

    // Nine of ten go, here and there.
    for number in (0..RECORDS).filter(|number| number % 10 != 0) {
        map.remove(numbered(&mut text, number).key()).expect("every number is there");
    }
    let thinned = each(before, &map);
    println!("{thinned} bytes a record when nine of ten are gone");
    assert!(thinned <= MOST_BYTES_A_RECORD + 20, "{thinned} bytes a record when nine of ten are gone");
    assert!(LARGEST.load(Relaxed) <= LARGEST_STEP_BYTES);

    drop(map.clear());
    drop(map);
    // The test's own runner is another thread, and may hold a little more or less than it did before.
    let left = HELD.load(Relaxed).saturating_sub(before);
    assert!(left < RUNNER_BYTES, "{left} bytes of a million records were not given back");
}
