//! How each cost grows: with the records, with the worker processes, with the sessions; and whether anybody is held up
//! while a namespace grows or is cleared. Nobody is beside us here but ourselves at another size, and the bare floor.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use commonhold::blocking::{Client, Namespace};

use super::noticing::Noticed;
use super::socket::calls;
use crate::case::{Bench, Case, Placement};
use crate::ours::worker::Crew;
use crate::ours::{self, Daemon, NAMESPACE};
use crate::outcome::{Outcome, Unit, count};
use crate::peers::bare::Bare;
use crate::record;
use crate::turns::{Measured, Sides};

pub const RECORDS: Case = Case {
    name: "growth-records",
    what: "get, upsert, insert and memory from 10,000 to 10,000,000 records with small values",
    in_full: true,
    in_quick: true,
    run: records,
};

pub const WORKERS: Case = Case {
    name: "growth-workers",
    what: "gets and upserts of 1 to 64 worker processes together",
    in_full: true,
    in_quick: true,
    run: workers,
};

pub const SESSIONS: Case = Case {
    name: "growth-sessions",
    what: "get and upsert of one of 1 to 2,000 sessions",
    in_full: true,
    in_quick: true,
    run: sessions,
};

pub const STALLS: Case = Case {
    name: "stalls",
    what: "the slowest get and upsert while a namespace grows to 10,000,000 records, and while it is cleared",
    in_full: true,
    in_quick: true,
    run: stalls,
};

/// The longest that anybody may have to wait because of us.
const MOST_STALL_MS: f64 = 1.0;

/// Turns the largest of several sizes into our figure and the others into what lies beside it.
fn largest_first(mut measured: Vec<Measured>) -> Vec<Measured> {
    let largest = measured.pop().expect("several sizes were measured");
    let mut all = vec![Measured { name: ours::NAME.to_owned(), ..largest }];
    all.append(&mut measured);
    all
}

fn name_of(size: usize, what: &str) -> String {
    let plural = if size == 1 { "" } else { "s" };
    format!("{} with {} {what}{plural}", ours::NAME, count(size))
}

fn records(bench: &Bench, directory: &Path) -> Result<Vec<Outcome>> {
    let sizes = bench.scale.pick([1_000, 5_000, 10_000, 20_000], [10_000, 100_000, 1_000_000, 10_000_000]);
    bench.place(Placement::Together)?;
    let daemon = Daemon::start(bench, directory, &[])?;
    bench.place(Placement::Free)?;
    let mut inserts = Vec::new();
    let mut spaces = Vec::new();
    for size in sizes {
        println!("  {} records …", count(size));
        let (name, in_namespace) = (name_of(size, "record"), format!("of_{size}"));
        let began = Instant::now();
        daemon.fill_namespace(&in_namespace, size, record::small_value)?;
        inserts.push(Measured::once(&name, size as f64 / began.elapsed().as_secs_f64()));
        spaces.push((name, size, daemon.connect_uncached()?.namespace(&in_namespace)?));
    }
    let status = daemon.status()?;
    let (_, peak) = ours::resident(daemon.pid())?;
    bench.place(Placement::Together)?;
    let turns = bench.scale.pick(300, 3_000);
    let mut outcomes = Vec::new();
    for (writes, case) in [(false, "growth-records-get"), (true, "growth-records-upsert")] {
        let mut sides = Sides::new();
        for (name, size, space) in &spaces {
            let mut random = fastrand::Rng::with_seed(*size as u64);
            sides = sides.side(name, move |latencies| {
                calls(turns, latencies, |_| one_call(space, writes, random.usize(..*size)))
            });
        }
        let measured = sides.measure(bench.scale.rounds())?;
        outcomes.push(Outcome::new(case, Unit::Microseconds, largest_first(measured)));
    }
    let load = Outcome::new("growth-records-insert", Unit::RecordsPerSecond, largest_first(inserts));
    outcomes.push(load.note("a load with a final flush, from nothing, measured once"));
    let overhead = |size: usize| -> Result<f64> {
        let named = status["namespaces"].as_array().context("status lists the namespaces")?;
        let one = named.iter().find(|one| one["namespace"] == format!("of_{size}")).context("it is there")?;
        Ok(one["overhead_bytes"].as_u64().context("a number")? as f64 / size as f64)
    };
    let overheads: Result<Vec<_>> =
        sizes.iter().map(|&size| Ok(Measured::once(&name_of(size, "record"), overhead(size)?))).collect();
    let memory = Outcome::new("growth-records-memory", Unit::BytesPerRecord, largest_first(overheads?)).at_most(64.0);
    outcomes.push(memory.note("memory a record beside key and value, as the daemon tells it"));
    let all: usize = sizes.iter().sum();
    let peak =
        Outcome::new("growth-records-peak", Unit::Megabytes, vec![Measured::once(ours::NAME, peak as f64 / 1e6)])
            .at_most(8.0 * 1_073.741_824)
            .note(format!("peak of the daemon's resident memory with all {} records", count(all)));
    outcomes.push(peak);
    Ok(outcomes)
}

fn one_call(space: &Namespace, writes: bool, number: usize) -> Result<()> {
    let key = record::key(number);
    if writes {
        space.put_raw(&key, &record::small_value(number))?;
    } else {
        space.get_raw(&key)?.context("it is there")?;
    }
    Ok(())
}

fn workers(bench: &Bench, directory: &Path) -> Result<Vec<Outcome>> {
    let sizes: &[usize] = bench.scale.pick(&[1, 2, 4], &[1, 2, 4, 8, 16, 32, 64]);
    let records = 10_000;
    let daemon = Daemon::start(bench, directory, &[])?;
    daemon.fill(records, record::value)?;
    let mut crews = Vec::new();
    for &size in sizes {
        crews.push((name_of(size, "worker"), size, Crew::start(daemon.store(), size)?));
    }
    let all = bench.scale.pick(1_000, 20_000);
    let mut outcomes = Vec::new();
    for (op, case) in [("get", "growth-workers-get"), ("upsert", "growth-workers-upsert")] {
        let mut sides = Sides::new();
        for (name, size, crew) in &mut crews {
            let each = all / *size;
            sides =
                sides.side(name, move |latencies| Ok((each * *size) as f64 / crew.all(op, each, records, latencies)?));
        }
        let measured = sides.measure(bench.scale.rounds())?;
        outcomes.push(Outcome::new(case, Unit::RequestsPerSecond, largest_first(measured)));
    }
    Ok(outcomes)
}

fn sessions(bench: &Bench, directory: &Path) -> Result<Vec<Outcome>> {
    let sizes: &[usize] = bench.scale.pick(&[1, 50, 200], &[1, 10, 100, 1_000, 2_000]);
    bench.place(Placement::Together)?;
    let mut rigs = Vec::new();
    for &size in sizes {
        let directory = directory.join(size.to_string());
        std::fs::create_dir(&directory)?;
        let daemon = Daemon::start(bench, &directory, &[])?;
        daemon.fill(1_000, record::value)?;
        let mut clients: Vec<Client> = (0..size).map(|_| daemon.connect_uncached()).collect::<Result<_>>()?;
        // The last one to come: an early one would have one of the threads that the first sessions have.
        let space = clients.pop().expect("there is at least one").namespace(NAMESPACE)?;
        rigs.push((name_of(size, "session"), space, clients, daemon));
    }
    let turns = bench.scale.pick(300, 3_000);
    let mut outcomes = Vec::new();
    for (writes, case) in [(false, "growth-sessions-get"), (true, "growth-sessions-upsert")] {
        let mut sides = Sides::new();
        for (name, space, _, _) in &rigs {
            sides = sides
                .side(name, move |latencies| calls(turns, latencies, |turn| one_call(space, writes, turn % 1_000)));
        }
        let measured = sides.measure(bench.scale.rounds())?;
        outcomes.push(
            Outcome::new(case, Unit::Microseconds, largest_first(measured))
                .note("the one that came last; the others are connected and idle; all on one processor")
                .note("the daemon gives each of the first 64 sessions a thread, and the others tasks of a runtime"),
        );
    }
    Ok(outcomes)
}

fn stalls(bench: &Bench, directory: &Path) -> Result<Vec<Outcome>> {
    let records = bench.scale.pick(50_000, 10_000_000);
    let daemon = Daemon::start(bench, directory, &[])?;
    let (reader, writer) = (daemon.uncached()?, daemon.uncached()?);
    let mut bare = Bare::start(directory)?;
    // They read and write records of the namespace that grows and is cleared, all the time.
    writer.put_raw(&record::key(0), &record::small_value(0))?;
    let (mut growing, mut clearing) = (Noticed::default(), Noticed::default());
    let space = daemon.uncached()?;
    growing.during(&reader, &writer, &mut bare, || {
        let mut load = space.bulk_writer();
        for number in 0..records {
            load.put_raw(&record::key(number), &record::small_value(number))?;
        }
        load.finish()?;
        Ok(())
    })?;
    let (_, peak) = ours::resident(daemon.pid())?;
    clearing.during(&reader, &writer, &mut bare, || {
        std::thread::sleep(Duration::from_millis(100));
        space.clear()?;
        // Its records are freed in the background, in slices.
        std::thread::sleep(Duration::from_secs(bench.scale.pick(1, 10)));
        Ok(())
    })?;
    let peak = format!("peak of the daemon's resident memory: {:.0} MB", peak as f64 / 1e6);
    let growing = growing.outcome("stall-while-growing", MOST_STALL_MS)?.note(peak);
    Ok(vec![growing, clearing.outcome("stall-while-cleared", MOST_STALL_MS)?])
}
