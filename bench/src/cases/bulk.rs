//! 200,000 records in batches of several sizes, with a commit after each batch: what an ingest does.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use commonhold::blocking::Batch;
use serde_json::{Value, json};

use crate::case::{Bench, Case};
use crate::latencies::Latencies;
use crate::ours::{self, Daemon, NAMESPACE};
use crate::outcome::{Outcome, Unit, count};
use crate::peers::lightrag::{self, LightRag};
use crate::record;
use crate::turns::Measured;

pub const BULK: Case = Case {
    name: "bulk",
    what: "200,000 records in batches of 1 to 10,000, with a commit after each batch",
    in_full: true,
    in_quick: true,
    run: bulk,
};

/// So long LightRAG may take for a size of batch: what it does in that time, with its file still small, is its rate.
const PATIENCE_S: u64 = 60;

fn bulk(bench: &Bench, directory: &Path) -> Result<Vec<Outcome>> {
    let total = bench.scale.pick(2_000, 200_000);
    let mut outcomes = Vec::new();
    let mut peaks = Vec::new();
    for batch in bench.scale.pick(vec![10, 1_000], vec![1, 10, 100, 1_000, 10_000]) {
        let directory = directory.join(batch.to_string());
        std::fs::create_dir(&directory)?;
        println!("  batches of {batch} …");
        let (ours, peak) = of_ours(bench, &directory, batch, total)?;
        let name = format!("{} in batches of {}", ours::NAME, count(batch));
        peaks.push(Measured::once(&name, peak as f64 / 1e6));
        let mut measured = vec![ours];
        let mut notes = Vec::new();
        if let Some((theirs, done)) = of_lightrag(bench, &directory, batch, total)? {
            measured.push(theirs);
            if done < total {
                notes.push(format!(
                    "LightRAG's rate is that of its first {} records, in which it is fastest: its callback writes the whole \
                     file, and more would have taken more than {PATIENCE_S} s",
                    count(done)
                ));
            }
        }
        let name = format!("bulk-by-{batch}");
        let mut outcome = Outcome::new(&name, Unit::RecordsPerSecond, measured).ahead(lightrag::NAME, 10.0);
        outcome.notes = notes;
        outcomes.push(outcome.note(format!("peak of the daemon's resident memory: {:.0} MB", peak as f64 / 1e6)));
        std::fs::remove_dir_all(&directory)?;
    }
    let most = peaks.pop().expect("some were measured");
    let memory = vec![Measured { name: ours::NAME.to_owned(), ..most }].into_iter().chain(peaks.clone()).collect();
    let mut memory = Outcome::new("bulk-memory", Unit::Megabytes, memory)
        .note("the daemon's peak of resident memory; ours is the one with the largest batches")
        .note("wanted: flat in the size of the batches, which is taken for a tenth at most");
    for peak in &peaks {
        memory = memory.ahead(&peak.name, 0.9);
    }
    outcomes.push(memory);
    Ok(outcomes)
}

fn of_ours(bench: &Bench, directory: &Path, batch: usize, total: usize) -> Result<(Measured, u64)> {
    let daemon = Daemon::start(bench, directory, &[])?;
    let client = daemon.connect_uncached()?;
    let space = client.namespace(NAMESPACE)?;
    ours::forget_peak(daemon.pid())?;
    let mut latencies = Latencies::default();
    let all = Instant::now();
    for first in (0..total).step_by(batch) {
        let began = Instant::now();
        let mut request = Batch::new();
        for number in first..(first + batch).min(total) {
            request = request.put_raw(&space, &record::key(number), &record::value(number))?;
        }
        client.write(&request)?;
        client.commit()?;
        latencies.record(began.elapsed());
    }
    let rate = total as f64 / all.elapsed().as_secs_f64();
    let (_, peak) = ours::resident(daemon.pid())?;
    Ok((Measured::new(ours::NAME, vec![rate], &latencies), peak))
}

fn of_lightrag(bench: &Bench, directory: &Path, batch: usize, total: usize) -> Result<Option<(Measured, usize)>> {
    let Some(mut lightrag) = LightRag::start(bench, directory, 2, 0)? else { return Ok(None) };
    let patience = bench.scale.pick(2, PATIENCE_S);
    let answer =
        lightrag.one(json!({"op": "bulk", "batch": batch, "total": total, "seconds": patience, "first": 0}))?;
    let done = answer["done"].as_u64().unwrap_or_default() as usize;
    let mut latencies = Latencies::default();
    lightrag::took(&answer, &mut latencies)?;
    let nanoseconds: u64 = answer["ns"].as_array().into_iter().flatten().filter_map(Value::as_u64).sum();
    let rate = done as f64 / nanoseconds as f64 * 1e9;
    Ok(Some((Measured::new(lightrag::NAME, vec![rate], &latencies), done)))
}
