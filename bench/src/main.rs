//! Commonhold beside what a user would pick instead, in one run: the same records, the same durability, real client
//! libraries on both sides, and bare floors (a socket, a write, a sync) beside them. `scripts/bench` builds and installs
//! what it needs and runs it; `bench/README.md` tells how to read what it writes.
//!
//! Each case lets its sides take turns, round after round, and compares the medians: what the machine does meanwhile
//! befalls all of them.

mod case;
mod cases;
mod latencies;
mod machine;
mod ours;
mod outcome;
mod peers;
mod record;
mod report;
mod turns;

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};

use case::{Bench, Scale};

/// Measures Commonhold beside Redis, LMDB, LightRAG's own storage and bare floors.
#[derive(Parser)]
#[command(name = "commonhold-bench")]
struct Options {
    #[command(subcommand)]
    role: Option<Role>,
    /// Small sizes and few rounds: whether everything still runs, in a minute or two. Its figures say little.
    #[arg(long)]
    quick: bool,
    /// Only these cases; may be repeated. Those that run only when they are named run, too.
    #[arg(long = "case", value_name = "NAME")]
    cases: Vec<String>,
    /// List the cases, and do nothing.
    #[arg(long)]
    list: bool,
    /// How many rounds the sides take turns.
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Where the results go.
    #[arg(long, value_name = "DIR", default_value = "bench/results")]
    out: PathBuf,
    /// The program `commonhold`.
    #[arg(long, value_name = "FILE", default_value = "target/release/commonhold")]
    commonhold: PathBuf,
    /// The program `redis-server`; without it, that peer is missing.
    #[arg(long, value_name = "FILE")]
    redis: Option<PathBuf>,
    /// A Python that has LightRAG; without it, that peer is missing.
    #[arg(long, value_name = "FILE")]
    lightrag: Option<PathBuf>,
    /// Where the stores of all sides are made and removed.
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
}

/// What this program is when it has started itself.
#[derive(Subcommand)]
enum Role {
    /// The other end of the bare floors.
    #[command(hide = true)]
    Bare { socket: PathBuf, file: PathBuf },
    /// One worker process of Commonhold, told over its standard input what to do.
    #[command(hide = true)]
    Worker { store: PathBuf },
}

fn main() -> Result<()> {
    let options = Options::parse();
    match &options.role {
        Some(Role::Bare { socket, file }) => return peers::bare::serve(socket, file),
        Some(Role::Worker { store }) => return ours::worker::serve(store),
        None => {}
    }
    if options.list {
        for case in cases::ALL {
            println!("{:<18} {}{}", case.name, case.what, if case.in_full { "" } else { " (only when named)" });
        }
        return Ok(());
    }
    for name in &options.cases {
        if !cases::ALL.iter().any(|case| case.name == name) {
            bail!("there is no case {name:?}; --list names them");
        }
    }
    let scale = Scale::new(options.quick, options.rounds);
    let scratch = match &options.scratch {
        Some(directory) => tempfile::Builder::new().prefix("commonhold-bench.").tempdir_in(directory),
        None => tempfile::Builder::new().prefix("commonhold-bench.").tempdir(),
    };
    let scratch = scratch.context("no directory for the stores can be made")?;
    let bench = Bench::new(scale, scratch.path(), &options.commonhold, options.redis, options.lightrag)?;
    let run = machine::Run::now(&bench)?;
    println!("{run}");
    for missing in bench.missing() {
        println!("MISSING: {missing}");
    }
    let outcomes = cases::run(&bench, &options.cases);
    let written = report::write(&options.out, &run, &options.cases, bench.missing(), &outcomes.done)?;
    println!("\n{}", report::markdown::table(&outcomes.done));
    report::say_what_was_missed(&outcomes.done);
    for path in written {
        println!("written: {}", path.display());
    }
    if !outcomes.failed.is_empty() {
        bail!("{} of the cases did not run through: {}", outcomes.failed.len(), outcomes.failed.join(", "));
    }
    Ok(())
}
