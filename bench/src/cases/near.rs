//! What a worker reads most: a hot record, and its own update flag.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use redis::Commands as _;
use serde_json::json;

use crate::case::{Bench, Case};
use crate::latencies::Latencies;
use crate::ours::{self, Daemon};
use crate::outcome::{Outcome, Unit};
use crate::peers::lightrag::{self, LightRag};
use crate::peers::lmdb::{self, Lmdb};
use crate::peers::redis::{self as redis_peer, Fsync, Redis};
use crate::record;
use crate::turns::Sides;

pub const HIT: Case = Case {
    name: "near-cache-hit",
    what: "reading 10,000 hot keys again and again, one thread",
    in_full: true,
    in_quick: true,
    run: hit,
};

pub const FLAG: Case =
    Case { name: "update-flag", what: "looking at one's own update flag", in_full: true, in_quick: true, run: flag };

const HOT: usize = 10_000;
/// A hit is shorter than the clock takes to be read twice: so many are timed together.
const TOGETHER: usize = 100;
/// How often a turn of a side that reads in its own memory reads all keys.
const PASSES: u32 = 10;

/// Times `call` on all `numbers`, some at a time, and answers the mean in nanoseconds.
fn each<T>(numbers: &[T], latencies: &mut Latencies, mut call: impl FnMut(&T) -> Result<()>) -> Result<f64> {
    let mut total = Duration::ZERO;
    for some in numbers.chunks(TOGETHER) {
        let began = Instant::now();
        for number in some {
            call(number)?;
        }
        let took = began.elapsed();
        latencies.record(took / some.len() as u32);
        total += took;
    }
    Ok(total.as_nanos() as f64 / numbers.len() as f64)
}

/// Reads all `keys` once without being timed, so that they are as hot as they are said to be after the other sides' turns, and then
/// some times as [`each`] does.
fn each_while_hot<T>(keys: &[T], latencies: &mut Latencies, mut call: impl FnMut(&T) -> Result<()>) -> Result<f64> {
    keys.iter().try_for_each(&mut call)?;
    let mut total = 0.0;
    for _ in 0..PASSES {
        total += each(keys, latencies, &mut call)?;
    }
    Ok(total / f64::from(PASSES))
}

fn hit(bench: &Bench, directory: &Path) -> Result<Vec<Outcome>> {
    let daemon = Daemon::start(bench, directory, &[])?;
    daemon.fill(HOT, record::value)?;
    let hot = daemon.namespace()?;
    let lmdb = Lmdb::open(directory, HOT)?;
    lmdb.fill(HOT)?;
    let redis = Redis::start(bench, directory, Fsync::Everysec)?;
    let mut connection = redis.as_ref().map(Redis::connect).transpose()?;
    if let Some(redis) = &redis {
        redis.fill(HOT, record::value)?;
    }
    let mut lightrag = LightRag::start(bench, directory, 2, HOT)?;
    let numbers = record::shuffled(HOT);
    let keys: Vec<String> = numbers.iter().map(|&number| record::key(number)).collect();
    let few = bench.scale.pick(100, 1_000);

    let sides = Sides::new()
        .side(ours::NAME, |latencies| {
            each_while_hot(&keys, latencies, |key| {
                black_box(hot.get_raw(key)?.context("it is there")?);
                Ok(())
            })
        })
        .side(lmdb::NAME, |latencies| {
            each_while_hot(&keys, latencies, |key| {
                black_box(lmdb.get(key)?.context("it is there")?);
                Ok(())
            })
        })
        .maybe(
            redis_peer::NAME,
            connection.as_mut().map(|connection| {
                |latencies: &mut Latencies| {
                    each(&keys, latencies, |key| {
                        let value: String = connection.get(key)?;
                        black_box(value);
                        Ok(())
                    })
                }
            }),
        )
        .maybe(
            lightrag::NAME,
            lightrag.as_mut().map(|lightrag| {
                |latencies: &mut Latencies| {
                    let answer = lightrag.one(json!({"op": "get", "numbers": &numbers[..few]}))?;
                    lightrag::took(&answer, latencies)
                }
            }),
        );
    let measured = sides.measure(bench.scale.rounds())?;
    let outcome = Outcome::new(HIT.name, Unit::Nanoseconds, measured)
        .at_most(120.0)
        .ahead(lmdb::NAME, 10.0)
        .ahead(redis_peer::NAME, 350.0)
        .ahead(lightrag::NAME, 2_000.0)
        .note("ours, LMDB's and Redis's latencies are means of 100 reads each")
        .note("LMDB reads in this very process, each read in a transaction of its own")
        .note("a turn of ours and of LMDB's reads all keys once uncounted, and then ten times");
    let status = daemon.status()?;
    let outcome = match status["near_cache"]["off_because"].as_str() {
        Some(why) => outcome.note(format!("the near cache is off: {why}")),
        None => outcome,
    };
    Ok(vec![outcome])
}

fn flag(bench: &Bench, directory: &Path) -> Result<Vec<Outcome>> {
    let daemon = Daemon::start(bench, directory, &[])?;
    daemon.fill(10, record::value)?;
    let flag = daemon.namespace()?.update_flag()?;
    let mut lightrag = LightRag::start(bench, directory, 2, 10)?;
    let looks = vec![(); bench.scale.pick(1_000, 20_000)];
    let few = bench.scale.pick(200, 2_000);
    let sides = Sides::new()
        .side(ours::NAME, |latencies| {
            each(&looks, latencies, |()| {
                black_box(flag.is_set()?);
                Ok(())
            })
        })
        .maybe(
            lightrag::NAME,
            lightrag.as_mut().map(|lightrag| {
                |latencies: &mut Latencies| {
                    let answer = lightrag.one(json!({"op": "flag", "count": few}))?;
                    lightrag::took(&answer, latencies)
                }
            }),
        );
    let measured = sides.measure(bench.scale.rounds())?;
    let outcome = Outcome::new(FLAG.name, Unit::Nanoseconds, measured)
        .at_most(20.0)
        .ahead(lightrag::NAME, 5_000.0)
        .note("our latencies are means of 100 looks each");
    Ok(vec![outcome])
}
