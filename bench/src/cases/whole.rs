//! What touches a whole namespace of a million records: writing its file, loading it, holding it in memory; and what
//! writers notice of the first.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use redis::Connection;
use serde_json::json;

use super::noticing::Noticed;
use super::ways::Way;
use crate::case::{Bench, Case};
use crate::latencies::Latencies;
use crate::ours::{self, Daemon, NAMESPACE};
use crate::outcome::{Outcome, Unit};
use crate::peers::bare::{self, Bare};
use crate::peers::lightrag::{self, LightRag};
use crate::peers::redis::{self as redis_peer, Fsync, Redis};
use crate::record;
use crate::turns::{Measured, Sides};

pub const FLUSH: Case = Case {
    name: "flush",
    what: "writing the file of 1,000,000 records (850 MB), nothing else running",
    in_full: true,
    in_quick: true,
    run: flush,
};

pub const FLUSH_LATENCY: Case = Case {
    name: "flush-latency",
    what: "upserts during that flush, against without",
    in_full: true,
    in_quick: true,
    run: flush_latency,
};

pub const LOAD: Case = Case {
    name: "start",
    what: "start of a daemon with 1,000,000 records, until the first read is answered",
    in_full: true,
    in_quick: true,
    run: load,
};

pub const MEMORY: Case = Case {
    name: "memory",
    what: "memory a record beside key and value, 1,000,000 inserts",
    in_full: true,
    in_quick: true,
    run: memory,
};

/// The longest that a flush may hold anybody up.
const MOST_STALL_MS: f64 = 5.0;

fn million(bench: &Bench) -> usize {
    bench.scale.pick(10_000, 1_000_000)
}

fn flush(bench: &Bench, directory: &Path) -> Result<Vec<Outcome>> {
    const UNSYNCED: &str = "bare write";
    const SYNCED: &str = "bare write + fdatasync";
    let records = million(bench);
    let daemon = Daemon::start(bench, directory, &[])?;
    daemon.fill(records, record::value)?;
    let space = daemon.uncached()?;
    let bytes = std::fs::metadata(daemon.store().join(format!("kv_store_{NAMESPACE}.json")))?.len();
    let redis = Redis::start(bench, directory, Fsync::NoLog)?;
    if let Some(redis) = &redis {
        redis.fill(records, record::value)?;
    }
    let mut connection = redis.as_ref().map(Redis::connect).transpose()?;
    let mut lightrag = LightRag::start(bench, directory, 2, records)?;
    let sides = Sides::new()
        .side(ours::NAME, |_| {
            space.put_raw(&record::key(0), &record::value(1))?;
            let began = Instant::now();
            space.flush()?;
            Ok(began.elapsed().as_secs_f64())
        })
        .side(SYNCED, |_| bare::write_file(directory, bytes, true))
        .side(UNSYNCED, |_| bare::write_file(directory, bytes, false))
        .maybe(
            redis_peer::NAME,
            connection.as_mut().map(|connection| {
                |_: &mut Latencies| {
                    let began = Instant::now();
                    let _: String = redis::cmd("SAVE").query(connection)?;
                    Ok(began.elapsed().as_secs_f64())
                }
            }),
        )
        .maybe(
            lightrag::NAME,
            lightrag.as_mut().map(|lightrag| {
                |latencies: &mut Latencies| {
                    let answer = lightrag.one(json!({"op": "flush"}))?;
                    Ok(lightrag::took(&answer, latencies)? / 1e9)
                }
            }),
        );
    let measured = sides.measure(bench.scale.few_rounds())?;
    let outcome = Outcome::new(FLUSH.name, Unit::Seconds, measured)
        .ahead(SYNCED, 0.9)
        .ahead(redis_peer::NAME, 1.5)
        .ahead(lightrag::NAME, 4.0)
        .note(format!(
            "{:.0} MB; Redis's SAVE is uncompressed; both sync their file, as the floor that counts does",
            bytes as f64 / 1e6
        ));
    Ok(vec![outcome])
}

/// Upserts one record after the other until `until` says so; answers the 99.9th percentile in microseconds.
fn upserts(way: &mut dyn Way, records: usize, latencies: &mut Latencies, until: impl Fn() -> bool) -> Result<f64> {
    let mut of_this = Latencies::default();
    let mut random = fastrand::Rng::with_seed(1);
    while !until() {
        let number = random.usize(..records);
        let (key, value) = (record::key(number), record::value(number));
        let began = Instant::now();
        way.put(&key, &value)?;
        of_this.record(began.elapsed());
    }
    latencies.add(&of_this);
    Ok(of_this.percentiles().map_or(0.0, |figures| figures.p99_9 as f64 / 1e3))
}

fn flush_latency(bench: &Bench, directory: &Path) -> Result<Vec<Outcome>> {
    const WITHOUT: &str = "commonhold without a flush";
    const REDIS_DURING: &str = "redis during BGSAVE";
    let records = million(bench);
    let calm = Duration::from_millis(bench.scale.pick(200, 3_000));
    let daemon = Daemon::start(bench, directory, &[])?;
    daemon.fill(records, record::value)?;
    let (mut space, mut other) = (daemon.uncached()?, daemon.uncached()?);
    let flusher = daemon.uncached()?;
    let redis = Redis::start(bench, directory, Fsync::Everysec)?;
    if let Some(redis) = &redis {
        redis.fill(records, record::value)?;
    }
    let mut connection = redis.as_ref().map(Redis::connect).transpose()?;
    let mut bare = Bare::start(directory)?;
    let sides = Sides::new()
        .side(ours::NAME, |latencies| {
            flusher.put_raw(&record::key(0), &record::value(1))?;
            let done = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let flushing = scope.spawn(|| {
                    let flushed = flusher.flush();
                    done.store(true, Ordering::Release);
                    flushed
                });
                let figure = upserts(&mut space, records, latencies, || done.load(Ordering::Acquire));
                flushing.join().expect("it does not panic")?;
                figure
            })
        })
        .side(WITHOUT, |latencies| {
            let began = Instant::now();
            upserts(&mut other, records, latencies, || began.elapsed() >= calm)
        })
        .maybe(
            REDIS_DURING,
            connection.as_mut().zip(redis.as_ref()).map(|(connection, redis)| {
                |latencies: &mut Latencies| during_bgsave(redis, connection, records, latencies)
            }),
        );
    let measured = sides.measure_without_warming_up(bench.scale.few_rounds())?;
    let latency = Outcome::new("flush-p99.9", Unit::Microseconds, measured)
        .ahead(WITHOUT, 0.5)
        .ahead(REDIS_DURING, 1.0)
        .note("the 99.9th percentile of each round; Redis rewrites its snapshot in a forked process meanwhile");
    drop(redis);
    let mut noticed = Noticed::default();
    for _ in 0..bench.scale.few_rounds() {
        flusher.put_raw(&record::key(0), &record::value(1))?;
        noticed.during(&space, &other, &mut bare, || Ok(flusher.flush().map(drop)?))?;
    }
    Ok(vec![latency, noticed.outcome("flush-worst-stall", MOST_STALL_MS)?])
}

fn during_bgsave(redis: &Redis, connection: &mut Connection, records: usize, latencies: &mut Latencies) -> Result<f64> {
    // One that begins by itself, to shorten the append-only file, would refuse this one.
    ours::until("an idle Redis", || {
        let busy = redis.info("persistence", "aof_rewrite_in_progress").ok()?;
        (busy == 0 && saving(redis).ok()? == 0).then_some(())
    })?;
    let _: String = redis::cmd("BGSAVE").query(connection)?;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| -> Result<()> {
            let seen = ours::until("the snapshot", || (saving(redis).ok()? == 0).then_some(()));
            done.store(true, Ordering::Release);
            seen
        });
        let figure = upserts(connection, records, latencies, || done.load(Ordering::Acquire));
        watching.join().expect("it does not panic")?;
        figure
    })
}

fn saving(redis: &Redis) -> Result<u64> {
    redis.info("persistence", "rdb_bgsave_in_progress")
}

fn load(bench: &Bench, directory: &Path) -> Result<Vec<Outcome>> {
    let records = million(bench);
    let daemon = Daemon::start(bench, directory, &[])?;
    daemon.fill(records, record::value)?;
    let file = daemon.store().join(format!("kv_store_{NAMESPACE}.json"));
    daemon.stop()?;
    let bytes = std::fs::metadata(file)?.len();
    let snapshot = directory.join("redis/dump.rdb");
    let with_redis = if let Some(redis) = Redis::start(bench, directory, Fsync::NoLog)? {
        redis.fill(records, record::value)?;
        let _: String = redis::cmd("SAVE").query(&mut redis.connect()?)?;
        true
    } else {
        false
    };
    let key = record::key(records / 2);
    let sides = Sides::new()
        .side(ours::NAME, |latencies| {
            let began = Instant::now();
            let daemon = Daemon::start(bench, directory, &[])?;
            daemon.uncached()?.get_raw(&key)?.context("it is there")?;
            let took = began.elapsed();
            latencies.record(took);
            daemon.stop()?;
            Ok(bytes as f64 / took.as_secs_f64() / 1e6)
        })
        .maybe(
            redis_peer::NAME,
            with_redis.then_some(|latencies: &mut Latencies| {
                let bytes = std::fs::metadata(&snapshot)?.len();
                let began = Instant::now();
                let redis = Redis::start(bench, directory, Fsync::NoLog)?.context("it was there before")?;
                Way::get(&mut redis.connect()?, &key)?;
                let took = began.elapsed();
                latencies.record(took);
                Ok(bytes as f64 / took.as_secs_f64() / 1e6)
            }),
        );
    let measured = sides.measure(bench.scale.few_rounds())?;
    let outcome = Outcome::new(LOAD.name, Unit::MegabytesPerSecond, measured)
        .ahead(redis_peer::NAME, 2.5)
        .note("from the start of the process to the answer of the first get; bytes of our JSON file, of Redis's uncompressed snapshot")
        .note("the files are in the page cache; the latencies are the whole starts");
    Ok(vec![outcome])
}

fn memory(bench: &Bench, directory: &Path) -> Result<Vec<Outcome>> {
    let records = million(bench);
    let of_records = (records * (record::KEY_BYTES + record::VALUE_BYTES)) as f64;
    let a_record = |bytes: f64| (bytes - of_records) / records as f64;
    let daemon = Daemon::start(bench, directory, &[])?;
    let (before, _) = ours::resident(daemon.pid())?;
    daemon.fill(records, record::value)?;
    let (after, _) = ours::resident(daemon.pid())?;
    let status = daemon.status()?;
    let overhead = status["totals"]["overhead_bytes"].as_u64().context("status tells the overhead")?;
    let mut requested = vec![Measured::once(ours::NAME, overhead as f64 / records as f64)];
    let mut resident = vec![Measured::once(ours::NAME, a_record((after - before) as f64))];
    drop(daemon);
    if let Some(redis) = Redis::start(bench, directory, Fsync::NoLog)? {
        let (before, _) = ours::resident(redis.pid())?;
        let used = redis.info("memory", "used_memory")?;
        redis.fill(records, record::value)?;
        let (after, _) = ours::resident(redis.pid())?;
        let taken = redis.info("memory", "used_memory")? - used;
        requested.push(Measured::once(redis_peer::NAME, a_record(taken as f64)));
        resident.push(Measured::once(redis_peer::NAME, a_record((after.saturating_sub(before)) as f64)));
    }
    let requested = Outcome::new("memory-requested", Unit::BytesPerRecord, requested).at_most(64.0).note(
        "ours is what the daemon tells (`overhead_bytes` of status); Redis's is used_memory less keys and values",
    );
    let resident = Outcome::new("memory-resident", Unit::BytesPerRecord, resident)
        .note("resident memory less that of the empty server, less keys and values");
    Ok(vec![requested, resident])
}
