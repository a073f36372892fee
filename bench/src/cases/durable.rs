//! Writes that are on the platter when they are acknowledged, and commits.

use std::path::Path;

use anyhow::Result;
use commonhold::blocking::Namespace;
use serde_json::json;

use super::socket::{RECORDS, calls};
use super::ways::{self, Load, Way};
use crate::case::{Bench, Case, Placement};
use crate::latencies::Latencies;
use crate::ours::{self, Daemon};
use crate::outcome::{Outcome, Unit, count};
use crate::peers::bare::Bare;
use crate::peers::lightrag::{self, LightRag};
use crate::peers::lmdb::{self, Lmdb};
use crate::peers::redis::{self as redis_peer, Fsync, Redis};
use crate::record;
use crate::turns::{Measured, Sides};

pub const SYNCED: Case = Case {
    name: "synced-upserts",
    what: "upserts that are synced before they are acknowledged: 1 writer, 64 writers",
    in_full: true,
    in_quick: true,
    run: synced,
};

pub const COMMIT: Case = Case {
    name: "commit",
    what: "one change and a commit, in namespaces of 1,000 to 1,000,000 records",
    in_full: true,
    in_quick: true,
    run: commit,
};

const FLOOR: &str = "bare write + fdatasync";

fn synced(bench: &Bench, directory: &Path) -> Result<Vec<Outcome>> {
    let (one, many) = (directory.join("one"), directory.join("many"));
    std::fs::create_dir(&one)?;
    std::fs::create_dir(&many)?;
    let one = synced_alone(bench, &one)?;
    bench.place(Placement::Free)?;
    Ok(vec![one, synced_crowd(bench, &many)?])
}

fn synced_alone(bench: &Bench, directory: &Path) -> Result<Outcome> {
    bench.place(Placement::Together)?;
    let daemon = Daemon::start(bench, directory, &["--durability", "synced"])?;
    let mut space = daemon.uncached()?;
    let mut bare = Bare::start(directory)?;
    let redis = Redis::start(bench, directory, Fsync::Always)?;
    let mut connection = redis.as_ref().map(Redis::connect).transpose()?;
    let mut lmdb = Lmdb::open(directory, RECORDS)?;
    let turns = bench.scale.pick(50, 1_000);
    let put = |way: &mut dyn Way, turn: usize| way.put(&record::key(turn % RECORDS), &record::value(turn));
    let sides = Sides::new()
        .side(ours::NAME, |latencies| calls(turns, latencies, |turn| put(&mut space, turn)))
        .side(FLOOR, |latencies| calls(turns, latencies, |_| bare.write_and_sync()))
        .maybe(
            redis_peer::NAME,
            connection
                .as_mut()
                .map(|connection| |latencies: &mut Latencies| calls(turns, latencies, |turn| put(connection, turn))),
        )
        .side(lmdb::NAME, |latencies| calls(turns, latencies, |turn| put(&mut lmdb, turn)));
    let measured = sides.measure(bench.scale.rounds())?;
    let outcome = Outcome::new("synced-1-writer", Unit::Microseconds, measured)
        .ahead(FLOOR, 0.8)
        .ahead(redis_peer::NAME, 1.3)
        .ahead(lmdb::NAME, 1.3)
        .note("the floor is a ping-pong, a write into room set aside before, and an fdatasync; all on one processor");
    Ok(outcome)
}

fn synced_crowd(bench: &Bench, directory: &Path) -> Result<Outcome> {
    const WRITERS: usize = 64;
    let load = Load { writes: true, depth: 1, bursts: bench.scale.pick(10, 200) };
    let daemon = Daemon::start(bench, directory, &["--durability", "synced"])?;
    let redis = Redis::start(bench, directory, Fsync::Always)?;
    let lmdb = Lmdb::open(directory, RECORDS)?;
    let boxed = |_| -> Result<Box<dyn Way>> { Ok(Box::new(daemon.uncached()?)) };
    let mut ours = (0..WRITERS).map(boxed).collect::<Result<Vec<_>>>()?;
    let theirs = |redis: &Redis| {
        let way = |_| -> Result<Box<dyn Way>> { Ok(Box::new(redis.connect()?)) };
        (0..WRITERS).map(way).collect::<Result<Vec<_>>>()
    };
    let mut theirs = redis.as_ref().map(theirs).transpose()?;
    let mut lmdbs: Vec<Box<dyn Way>> = (0..WRITERS).map(|_| -> Box<dyn Way> { Box::new(lmdb.clone()) }).collect();
    // One sync a record, one writer at a time: that of LMDB is fixed, so it does less.
    let few = Load { bursts: load.bursts.div_ceil(10), ..load };
    let sides = Sides::new()
        .side(ours::NAME, |latencies| ways::at_once(&mut ours, load, latencies))
        .maybe(
            redis_peer::NAME,
            theirs.as_mut().map(|theirs| |latencies: &mut Latencies| ways::at_once(theirs, load, latencies)),
        )
        .side(lmdb::NAME, |latencies| ways::at_once(&mut lmdbs, few, latencies));
    let measured = sides.measure(bench.scale.rounds())?;
    let outcome = Outcome::new("synced-64-writers", Unit::RequestsPerSecond, measured)
        .ahead(redis_peer::NAME, 1.3)
        .ahead(lmdb::NAME, 1.3)
        .note("64 threads with a connection each; LMDB lets in one writer after the other");
    Ok(outcome)
}

fn commit(bench: &Bench, directory: &Path) -> Result<Vec<Outcome>> {
    bench.place(Placement::Together)?;
    let sizes = bench.scale.pick([1_000, 5_000, 10_000, 20_000], [1_000, 100_000, 200_000, 1_000_000]);
    let beside_lightrag = sizes[2];
    let daemon = Daemon::start(bench, directory, &[])?;
    let client = daemon.connect_uncached()?;
    let mut lightrag = LightRag::start(bench, directory, 2, beside_lightrag)?;
    let mut bare = Bare::start(directory)?;
    let mut spaces = Vec::new();
    for size in sizes {
        let name = format!("of_{size}");
        daemon.fill_namespace(&name, size, record::value)?;
        spaces.push(client.namespace(&name)?);
    }
    let turns = bench.scale.pick(10, 50);
    let one_change = |space: &Namespace, turn: usize| -> Result<()> {
        space.put_raw(&record::key(7), &record::value(turn))?;
        space.client().commit()?;
        Ok(())
    };
    let names = sizes.map(|size| format!("{} at {}", ours::NAME, count(size)));
    let mut sides = Sides::new();
    for (name, space) in names.iter().zip(&spaces) {
        sides = sides.side(name, move |latencies| calls(turns, latencies, |turn| one_change(space, turn)));
    }
    let sides = sides.side(FLOOR, |latencies| calls(turns, latencies, |_| bare.write_and_sync())).maybe(
        lightrag::NAME,
        lightrag.as_mut().map(|lightrag| {
            |latencies: &mut Latencies| {
                let answer = lightrag.one(json!({"op": "commit", "count": 1, "first": 7}))?;
                Ok(lightrag::took(&answer, latencies)? / 1e3)
            }
        }),
    );
    let measured = sides.measure(bench.scale.few_rounds().max(3))?;
    let of = |name: &str| measured.iter().find(|side| side.name == name).cloned();
    let ours_at = |index: usize| of(&names[index]).expect("it was measured");
    let as_ours = |measured: Measured| Measured { name: ours::NAME.to_owned(), ..measured };
    let flat =
        Outcome::new("commit-flat", Unit::Microseconds, vec![as_ours(ours_at(3)), ours_at(0), ours_at(1), ours_at(2)])
            .ahead(&names[0], 1.0 / 1.2)
            .ahead(&names[1], 1.0 / 1.2)
            .ahead(&names[2], 1.0 / 1.2)
            .note(format!("ours is the one with {} records", count(sizes[3])));
    let beside = [Some(as_ours(ours_at(2))), of(FLOOR), of(lightrag::NAME)].into_iter().flatten().collect();
    let name = format!("commit-{}k", beside_lightrag / 1_000);
    let beside = Outcome::new(&name, Unit::Microseconds, beside)
        .ahead(lightrag::NAME, 1_000.0)
        .note("one upsert and a commit, or index_done_callback, which writes the whole file and syncs nothing");
    Ok(vec![flat, beside])
}
