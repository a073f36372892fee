//! Requests over the socket: one at a time, from a crowd of connections, many in flight, many records in one.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};
use commonhold::blocking::Batch;
use serde_json::json;

use super::ways::{self, Load, Way};
use crate::case::{Bench, Case, Placement};
use crate::latencies::Latencies;
use crate::ours::{self, Daemon};
use crate::outcome::{Outcome, Unit};
use crate::peers::bare::{self, Bare};
use crate::peers::lightrag::{self, LightRag};
use crate::peers::redis::{self as redis_peer, Fsync, Redis};
use crate::record;
use crate::turns::Sides;

pub const GET: Case = Case {
    name: "get-socket",
    what: "one record over the socket, one connection, blocking client, without a near cache",
    in_full: true,
    in_quick: true,
    run: get,
};

pub const CROWD: Case = Case {
    name: "50-connections",
    what: "get and buffered upsert, 50 connections with one request in flight each",
    in_full: true,
    in_quick: true,
    run: crowd,
};

pub const PIPELINED: Case = Case {
    name: "8x64-in-flight",
    what: "get and buffered upsert, 8 connections with 64 requests in flight each",
    in_full: true,
    in_quick: true,
    run: pipelined,
};

pub const BATCH: Case = Case {
    name: "1000-records",
    what: "1,000 records in one buffered request",
    in_full: true,
    in_quick: true,
    run: batch,
};

/// How many records are read and overwritten.
pub const RECORDS: usize = 10_000;
pub const PING: &str = "bare ping-pong";

/// Times each of `calls` calls, and answers the mean in microseconds.
pub fn calls(calls: usize, latencies: &mut Latencies, mut call: impl FnMut(usize) -> Result<()>) -> Result<f64> {
    let all = Instant::now();
    for number in 0..calls {
        let began = Instant::now();
        call(number)?;
        latencies.record(began.elapsed());
    }
    Ok(all.elapsed().as_secs_f64() * 1e6 / calls as f64)
}

fn get(bench: &Bench, directory: &Path) -> Result<Vec<Outcome>> {
    let together = get_placed(bench, &directory.join("together"), Placement::Together)?;
    let apart = get_placed(bench, &directory.join("apart"), Placement::Apart)?;
    let words = "all processes on one processor, where our own work shows";
    let apart_words = "the client on one processor, the servers on another: what a wake-up costs is most of it";
    Ok(vec![together.note(words), apart.note(apart_words)])
}

fn get_placed(bench: &Bench, directory: &Path, placement: Placement) -> Result<Outcome> {
    std::fs::create_dir(directory)?;
    bench.place(placement)?;
    let daemon = Daemon::start(bench, directory, &[])?;
    daemon.fill(RECORDS, record::value)?;
    let space = daemon.uncached()?;
    let mut bare = Bare::start(directory)?;
    let redis = Redis::start(bench, directory, Fsync::Everysec)?;
    let mut connection = redis.as_ref().map(Redis::connect).transpose()?;
    if let Some(redis) = &redis {
        redis.fill(RECORDS, record::value)?;
    }
    bench.step_aside(placement)?;
    let keys: Vec<String> = record::shuffled(RECORDS).into_iter().map(record::key).collect();
    let turns = bench.scale.pick(500, 5_000);
    let sides = Sides::new()
        .side(ours::NAME, |latencies| {
            calls(turns, latencies, |turn| {
                space.get_raw(&keys[turn % RECORDS])?.context("it is there")?;
                Ok(())
            })
        })
        .side(PING, |latencies| calls(turns, latencies, |_| bare.get()))
        .maybe(
            redis_peer::NAME,
            connection.as_mut().map(|connection| {
                |latencies: &mut Latencies| {
                    calls(turns, latencies, |turn| {
                        let _: String = redis::Commands::get(connection, &keys[turn % RECORDS])?;
                        Ok(())
                    })
                }
            }),
        );
    let name = if placement == Placement::Apart { "get-socket-apart" } else { GET.name };
    let measured = sides.measure(bench.scale.rounds())?;
    Ok(Outcome::new(name, Unit::Microseconds, measured).ahead(PING, 0.85).ahead(redis_peer::NAME, 1.1))
}

fn crowd(bench: &Bench, directory: &Path) -> Result<Vec<Outcome>> {
    let bursts = bench.scale.pick(100, 2_000);
    let load = Load { writes: false, depth: 1, bursts };
    let words = "50 threads with a blocking client each, on both sides";
    let outcomes = crowds(bench, directory, 50, load, 1.3, ["get-50-connections", "upsert-50-connections"])?;
    Ok(outcomes.into_iter().map(|outcome| outcome.note(words)).collect())
}

fn pipelined(bench: &Bench, directory: &Path) -> Result<Vec<Outcome>> {
    let load = Load { writes: false, depth: 64, bursts: bench.scale.pick(20, 500) };
    let words = "8 threads: each sends 64 requests, then reads 64 answers, as `redis-benchmark -P 64` does; a latency is that of \
                 all 64";
    let outcomes = crowds(bench, directory, 8, load, 1.5, ["get-8x64", "upsert-8x64"])?;
    Ok(outcomes.into_iter().map(|outcome| outcome.note(words)).collect())
}

fn crowds(
    bench: &Bench,
    directory: &Path,
    connections: usize,
    load: Load,
    goal: f64,
    names: [&str; 2],
) -> Result<Vec<Outcome>> {
    let daemon = Daemon::start(bench, directory, &[])?;
    daemon.fill(RECORDS, record::value)?;
    let redis = Redis::start(bench, directory, Fsync::Everysec)?;
    if let Some(redis) = &redis {
        redis.fill(RECORDS, record::value)?;
    }
    let ours = || -> Result<Box<dyn Way>> { Ok(Box::new(daemon.uncached()?)) };
    let mut ours: Vec<_> = (0..connections).map(|_| ours()).collect::<Result<_>>()?;
    let theirs = |redis: &Redis| {
        let way = |_| -> Result<Box<dyn Way>> { Ok(Box::new(redis.connect()?)) };
        (0..connections).map(way).collect::<Result<Vec<_>>>()
    };
    let mut theirs = redis.as_ref().map(theirs).transpose()?;
    let mut outcomes = Vec::new();
    for (writes, name) in [false, true].into_iter().zip(names) {
        let load = Load { writes, ..load };
        let sides = Sides::new().side(ours::NAME, |latencies| ways::at_once(&mut ours, load, latencies)).maybe(
            redis_peer::NAME,
            theirs.as_mut().map(|ways| move |latencies: &mut Latencies| ways::at_once(ways, load, latencies)),
        );
        let measured = sides.measure(bench.scale.rounds())?;
        outcomes.push(Outcome::new(name, Unit::RequestsPerSecond, measured).ahead(redis_peer::NAME, goal));
    }
    Ok(outcomes)
}

fn batch(bench: &Bench, directory: &Path) -> Result<Vec<Outcome>> {
    const IN_ONE: usize = 1_000;
    let daemon = Daemon::start(bench, directory, &[])?;
    let space = daemon.uncached()?;
    let redis = Redis::start(bench, directory, Fsync::Everysec)?;
    let mut connection = redis.as_ref().map(Redis::connect).transpose()?;
    let mut lightrag = LightRag::start(bench, directory, 2, 0)?;
    let records: Vec<_> = (0..RECORDS).map(|number| (record::key(number), record::value(number))).collect();
    let times = bench.scale.pick(3, 20);
    let some = |turn: usize| &records[turn * IN_ONE % RECORDS..][..IN_ONE];
    let a_second = |microseconds: f64| IN_ONE as f64 / microseconds * 1e6;
    let bytes = (IN_ONE * (record::KEY_BYTES + record::VALUE_BYTES)) as u64;
    let sides = Sides::new()
        .side(ours::NAME, |latencies| {
            let request = |turn| {
                let mut batch = Batch::new();
                for (key, value) in some(turn) {
                    batch = batch.put_raw(&space, key, value)?;
                }
                space.client().write(&batch)?;
                Ok(())
            };
            calls(times, latencies, request).map(a_second)
        })
        .side("bare write", |_| Ok(IN_ONE as f64 / bare::write_file(directory, bytes, false)?))
        .maybe(
            redis_peer::NAME,
            connection.as_mut().map(|connection| {
                |latencies: &mut Latencies| {
                    let request = |turn| {
                        let _: () = redis::Commands::mset(connection, some(turn))?;
                        Ok(())
                    };
                    calls(times, latencies, request).map(a_second)
                }
            }),
        )
        .maybe(
            lightrag::NAME,
            lightrag.as_mut().map(|lightrag| {
                |latencies: &mut Latencies| {
                    let command = json!({"op": "upsert", "count": 1, "records": IN_ONE, "first": 0});
                    Ok(IN_ONE as f64 / lightrag::took(&lightrag.one(command)?, latencies)? * 1e9)
                }
            }),
        );
    let measured = sides.measure(bench.scale.rounds())?;
    let outcome = Outcome::new(BATCH.name, Unit::RecordsPerSecond, measured)
        .ahead(redis_peer::NAME, 2.0)
        .ahead(lightrag::NAME, 15.0)
        .note("beside an MSET of Redis, append-only file synced every second, as our journal is; LightRAG keeps it in memory")
        .note("building the request from keys and values is part of it, on both sides");
    Ok(vec![outcome])
}
