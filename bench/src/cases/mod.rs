//! The cases, in the order of the table.

mod asynchronous;
mod bulk;
mod durable;
mod growth;
mod near;
mod noticing;
mod socket;
mod ways;
mod whole;
mod workers;

use std::time::Instant;

use crate::case::{Bench, Case, Placement};
use crate::outcome::Outcome;

pub const ALL: &[Case] = &[
    near::HIT,
    near::FLAG,
    socket::GET,
    socket::CROWD,
    socket::PIPELINED,
    asynchronous::CROWDS,
    socket::BATCH,
    workers::UPSERT,
    durable::SYNCED,
    durable::COMMIT,
    bulk::BULK,
    whole::FLUSH,
    whole::FLUSH_LATENCY,
    whole::LOAD,
    whole::MEMORY,
    workers::LOCK,
    growth::RECORDS,
    growth::WORKERS,
    growth::SESSIONS,
    growth::STALLS,
];

/// What came of a run.
pub struct Outcomes {
    pub done: Vec<Outcome>,
    pub failed: Vec<String>,
}

/// Runs all cases, or those that are named. One that fails is told and does not end the others.
pub fn run(bench: &Bench, named: &[String]) -> Outcomes {
    let mut outcomes = Outcomes { done: Vec::new(), failed: Vec::new() };
    let wanted = |case: &&Case| {
        let usual = if bench.scale.quick { case.in_quick } else { case.in_full };
        if named.is_empty() { usual } else { named.iter().any(|name| name == case.name) }
    };
    for case in ALL.iter().filter(wanted) {
        println!("\n{}: {}", case.name, case.what);
        let began = Instant::now();
        let result = bench.directory(case.name).and_then(|directory| {
            let result = (case.run)(bench, &directory);
            bench.place(Placement::Free)?;
            std::fs::remove_dir_all(&directory)?;
            result
        });
        match result {
            Ok(done) => {
                for outcome in &done {
                    tell(outcome);
                }
                outcomes.done.extend(done);
            }
            Err(error) => {
                println!("  FAILED: {error:#}");
                outcomes.failed.push(case.name.to_owned());
            }
        }
        println!("  ({:.1} s)", began.elapsed().as_secs_f64());
    }
    outcomes
}

fn tell(outcome: &Outcome) {
    use crate::outcome::figure;
    let peers: Vec<String> = outcome
        .peers
        .iter()
        .map(|peer| format!("{} {} ({} ×)", peer.name, figure(peer.median), figure(outcome.ratio(peer))))
        .collect();
    let unit = outcome.unit.name();
    println!("  {:<24} {:>9} {unit}   {}", outcome.case, figure(outcome.ours.median), peers.join(", "));
    for missed in outcome.missed() {
        println!("  NOT MET: {missed}");
    }
}
