//! The same crowds with async clients: tasks on one runtime that ask at the same time, on few connections that carry all
//! of it. Both clients put what their tasks ask for into one stream by themselves.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};
use commonhold::{ConnectOptions, Namespace};
use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands as _, AsyncConnectionConfig};
use tokio::runtime::Runtime;

use super::socket::RECORDS;
use super::ways::Load;
use crate::case::{Bench, Case};
use crate::latencies::Latencies;
use crate::ours::{self, Daemon, NAMESPACE};
use crate::outcome::{Outcome, Unit};
use crate::peers::redis::{self as redis_peer, Fsync, Redis};
use crate::record;
use crate::turns::Sides;

pub const CROWDS: Case = Case {
    name: "async-clients",
    what: "get and buffered upsert with async clients: 50 connections with one task each, 8 with 64 each",
    in_full: true,
    in_quick: true,
    run: crowds,
};

/// A connection that tasks share.
#[derive(Clone)]
enum Way {
    Ours(Namespace),
    Redis(MultiplexedConnection),
}

impl Way {
    async fn get(&mut self, key: &str) -> Result<()> {
        match self {
            Self::Ours(namespace) => {
                namespace.get_raw(key).await?.context("it is there")?;
            }
            Self::Redis(connection) => {
                let _: String = connection.get(key).await?;
            }
        }
        Ok(())
    }

    async fn put(&mut self, key: &str, value: &str) -> Result<()> {
        match self {
            Self::Ours(namespace) => {
                namespace.put_raw(key, value).await?;
            }
            Self::Redis(connection) => {
                let () = connection.set(key, value).await?;
            }
        }
        Ok(())
    }
}

/// Has `load.depth` tasks on each way make `load.bursts` requests each, and answers the requests a second.
fn at_once(runtime: &Runtime, ways: &[Way], load: Load, latencies: &mut Latencies) -> Result<f64> {
    let began = Instant::now();
    let count = ways.len() * load.depth;
    let each = runtime.block_on(async {
        let tasks: Vec<_> =
            (0..count).map(|task| tokio::spawn(one_task(ways[task % ways.len()].clone(), task, load))).collect();
        let mut each = Vec::with_capacity(count);
        for task in tasks {
            each.push(task.await??);
        }
        anyhow::Ok(each)
    })?;
    let took = began.elapsed().as_secs_f64();
    for nanoseconds in each.into_iter().flatten() {
        latencies.record_ns(nanoseconds);
    }
    Ok((count * load.bursts) as f64 / took)
}

/// What its requests took, in nanoseconds.
async fn one_task(mut way: Way, number: usize, load: Load) -> Result<Vec<u64>> {
    let mut random = fastrand::Rng::with_seed(number as u64);
    let value = record::value(number);
    let mut took = Vec::with_capacity(load.bursts);
    for _ in 0..load.bursts {
        let key = record::key(random.usize(..RECORDS));
        let began = Instant::now();
        if load.writes {
            way.put(&key, &value).await?;
        } else {
            way.get(&key).await?;
        }
        took.push(began.elapsed().as_nanos() as u64);
    }
    Ok(took)
}

fn crowds(bench: &Bench, directory: &Path) -> Result<Vec<Outcome>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let daemon = Daemon::start(bench, directory, &[])?;
    daemon.fill(RECORDS, record::value)?;
    let redis = Redis::start(bench, directory, Fsync::Everysec)?;
    if let Some(redis) = &redis {
        redis.fill(RECORDS, record::value)?;
    }
    let mut outcomes = Vec::new();
    for (connections, depth, goal) in [(50, 1, 1.3), (8, 64, 1.5)] {
        let ours = runtime.block_on(connect_ours(daemon.store(), connections))?;
        let theirs = match &redis {
            Some(redis) => Some(runtime.block_on(connect_redis(redis, connections))?),
            None => None,
        };
        let bursts = bench.scale.pick(5_000, 100_000) / (connections * depth);
        for (writes, op) in [(false, "get"), (true, "upsert")] {
            let load = Load { writes, depth, bursts };
            let (runtime, ours) = (&runtime, &ours);
            let sides = Sides::new().side(ours::NAME, |latencies| at_once(runtime, ours, load, latencies)).maybe(
                redis_peer::NAME,
                theirs.as_ref().map(|ways| move |latencies: &mut Latencies| at_once(runtime, ways, load, latencies)),
            );
            let measured = sides.measure(bench.scale.rounds())?;
            let name = format!("{op}-{connections}x{depth}-async");
            let outcome = Outcome::new(&name, Unit::RequestsPerSecond, measured).ahead(redis_peer::NAME, goal);
            outcomes.push(outcome.note("async clients, their tasks on one runtime of as many threads as processors"));
        }
    }
    Ok(outcomes)
}

async fn connect_ours(store: &Path, connections: usize) -> Result<Vec<Way>> {
    let mut ways = Vec::with_capacity(connections);
    for _ in 0..connections {
        // Without a near cache: each get asks the daemon.
        let client = commonhold::Client::connect_with(store, ConnectOptions::new().cache_bytes(0)).await?;
        ways.push(Way::Ours(client.namespace(NAMESPACE)?));
    }
    Ok(ways)
}

async fn connect_redis(redis: &Redis, connections: usize) -> Result<Vec<Way>> {
    let client = redis::Client::open(redis.address())?;
    // By default an answer must come within half a second, which a busy machine may not keep.
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    let mut ways = Vec::with_capacity(connections);
    for _ in 0..connections {
        ways.push(Way::Redis(client.get_multiplexed_async_connection_with_config(&config).await?));
    }
    Ok(ways)
}
