//! Worker processes that share a store, as a multi-worker service has them.

use std::path::Path;

use anyhow::Result;
use serde_json::json;

use super::socket::calls;
use crate::case::{Bench, Case, Placement};
use crate::latencies::Latencies;
use crate::ours::worker::Crew;
use crate::ours::{self, Daemon};
use crate::outcome::{Outcome, Unit};
use crate::peers::lightrag::{self, LightRag};
use crate::record;
use crate::turns::Sides;

pub const UPSERT: Case = Case {
    name: "upsert-4-workers",
    what: "one-record upserts of 4 worker processes at once",
    in_full: true,
    in_quick: true,
    run: upsert,
};

pub const LOCK: Case = Case {
    name: "lock",
    what: "lock and unlock, alone, and 8 processes on one key",
    in_full: true,
    in_quick: true,
    run: lock,
};

fn upsert(bench: &Bench, directory: &Path) -> Result<Vec<Outcome>> {
    const WORKERS: usize = 4;
    let records = bench.scale.pick(1_000, 10_000);
    let daemon = Daemon::start(bench, directory, &[])?;
    daemon.fill(records, record::value)?;
    let mut crew = Crew::start(daemon.store(), WORKERS)?;
    let mut lightrag = LightRag::start(bench, directory, WORKERS, records)?;
    let (many, few) = (bench.scale.pick(250, 2_500), bench.scale.pick(10, 100));
    let sides = Sides::new()
        .side(ours::NAME, |latencies| Ok((WORKERS * many) as f64 / crew.all("upsert", many, records, latencies)?))
        .maybe(
            lightrag::NAME,
            lightrag.as_mut().map(|lightrag| {
                |latencies: &mut Latencies| {
                    let done = lightrag.all(WORKERS, json!({"op": "upsert", "count": few, "first": 0}))?;
                    for answer in &done.answers {
                        lightrag::took(answer, latencies)?;
                    }
                    Ok((WORKERS * few) as f64 / done.seconds)
                }
            }),
        );
    let measured = sides.measure(bench.scale.rounds())?;
    let outcome = Outcome::new(UPSERT.name, Unit::RequestsPerSecond, measured)
        .ahead(lightrag::NAME, 40.0)
        .note("ours are in the journal when they are acknowledged; LightRAG's are in memory");
    Ok(vec![outcome])
}

fn lock(bench: &Bench, directory: &Path) -> Result<Vec<Outcome>> {
    let (alone, crowd) = (directory.join("alone"), directory.join("crowd"));
    std::fs::create_dir(&alone)?;
    std::fs::create_dir(&crowd)?;
    let alone = lock_alone(bench, &alone)?;
    bench.place(Placement::Free)?;
    Ok(vec![alone, lock_crowd(bench, &crowd)?])
}

fn lock_alone(bench: &Bench, directory: &Path) -> Result<Outcome> {
    bench.place(Placement::Together)?;
    let daemon = Daemon::start(bench, directory, &[])?;
    let lock = daemon.connect()?.lock(["bench"]);
    let mut lightrag = LightRag::start(bench, directory, 2, 10)?;
    let (many, few) = (bench.scale.pick(500, 3_000), bench.scale.pick(50, 500));
    let sides = Sides::new()
        .side(ours::NAME, |latencies| {
            calls(many, latencies, |_| {
                lock.acquire()?.release()?;
                Ok(())
            })
        })
        .maybe(
            lightrag::NAME,
            lightrag.as_mut().map(|lightrag| {
                |latencies: &mut Latencies| {
                    let answer = lightrag.one(json!({"op": "lock", "count": few, "key": "bench"}))?;
                    Ok(lightrag::took(&answer, latencies)? / 1e3)
                }
            }),
        );
    let measured = sides.measure(bench.scale.rounds())?;
    let outcome = Outcome::new("lock-alone", Unit::Microseconds, measured)
        .ahead(lightrag::NAME, 2.0)
        .note("both answers, of lock and unlock, are waited for; all on one processor");
    Ok(outcome)
}

fn lock_crowd(bench: &Bench, directory: &Path) -> Result<Outcome> {
    const WORKERS: usize = 8;
    let daemon = Daemon::start(bench, directory, &[])?;
    let mut crew = Crew::start(daemon.store(), WORKERS)?;
    let mut lightrag = LightRag::start(bench, directory, WORKERS, 10)?;
    let (many, few) = (bench.scale.pick(100, 1_000), bench.scale.pick(5, 50));
    let sides = Sides::new()
        .side(ours::NAME, |latencies| Ok((WORKERS * many) as f64 / crew.all("lock", many, 1, latencies)?))
        .maybe(
            lightrag::NAME,
            lightrag.as_mut().map(|lightrag| {
                |latencies: &mut Latencies| {
                    let done = lightrag.all(WORKERS, json!({"op": "lock", "count": few, "key": "bench"}))?;
                    for answer in &done.answers {
                        lightrag::took(answer, latencies)?;
                    }
                    Ok((WORKERS * few) as f64 / done.seconds)
                }
            }),
        );
    let measured = sides.measure(bench.scale.rounds())?;
    let outcome = Outcome::new("lock-8-processes", Unit::RequestsPerSecond, measured)
        .ahead(lightrag::NAME, 10.0)
        .note("pairs of lock and unlock of one key a second, of 8 processes together");
    Ok(outcome)
}
