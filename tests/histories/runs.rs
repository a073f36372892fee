//! Many histories one after the other: counted, checked, and kept where they do not hold.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::history::History;
use super::model::Outcome;
use super::recorder::Failure;
use super::report::check_all;
use super::run::{Blows, run as run_one};

/// The daemon under test.
const BINARY: &str = env!("CARGO_BIN_EXE_commonhold");

/// What a history is called that no order explains.
const NOT_LINEARIZABLE: &str = "not linearizable";

pub(crate) struct Options {
    pub(crate) count: u64,
    /// Of the first history; the others follow.
    pub(crate) seed: u64,
    /// The daemon has this fault, and a history is expected to show it.
    pub(crate) seeded: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { count: 20, seed: 1, seeded: None }
    }
}

/// What all histories came to.
#[derive(Default)]
struct Totals {
    histories: u64,
    operations: u64,
    unknown: u64,
    refused: u64,
    /// Reads of what the same process was writing: sent before the write was answered, and answered.
    behind: u64,
    /// Histories of which the checker could not tell in the steps it has.
    undecided: u64,
    explored: u64,
    /// Steps for the history that took most.
    most_explored: u64,
    blows: Blows,
    running: Duration,
    checking: Duration,
}

/// `run [--count N] [--seed N] [--seeded FAULT]`
pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let mut options = Options { seed: u64::from(fastrand::u32(..)), ..Options::default() };
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
        match word.as_str() {
            "--count" => options.count = value.parse()?,
            "--seed" => options.seed = value.parse()?,
            "--seeded" => options.seeded = Some(value.clone()),
            _ => return Err(format!("{word} is no option: --count N, --seed N, --seeded FAULT").into()),
        }
    }
    run_with(&options)
}

pub(crate) fn run_with(options: &Options) -> Result<(), Failure> {
    if options.seeded.is_some() && !cfg!(feature = "faultpoints") {
        return Err("without the feature `faultpoints` a daemon has no fault to seed".into());
    }
    println!("first seed            {}", options.seed);
    let scratch = tempfile::Builder::new().prefix("commonhold-histories.").tempdir()?;
    // A copy: somebody may build another one meanwhile.
    let binary = scratch.path().join("commonhold");
    fs::copy(BINARY, &binary)?;
    let mut totals = Totals::default();
    let outcome = (0..options.count).try_for_each(|index| {
        let seed = options.seed + index;
        let dir = scratch.path().join(format!("seed-{seed}"));
        one(&dir, &binary, options.seeded.as_deref(), seed, &mut totals)
            .map_err(|failure| format!("seed {seed}: {failure}"))
    });
    totals.print();
    match (&options.seeded, outcome) {
        (None, Ok(())) if totals.undecided > 0 => {
            println!(
                "{} undecided; each answer of the others is that of a store that does one thing after the other",
                totals.undecided
            );
        }
        (None, Ok(())) => {
            println!("all of them hold: each answer is that of a store that does one thing after the other");
        }
        (None, Err(reason)) => {
            // The store, what was recorded, and the history of the one that failed.
            return Err(format!("{reason}\nkept: {}", scratch.keep().display()).into());
        }
        (Some(fault), Ok(())) => {
            return Err(format!("{fault} was not noticed in {} histories", totals.histories).into());
        }
        (Some(fault), Err(reason)) if reason.contains(NOT_LINEARIZABLE) => {
            println!("{reason}\n{fault}: noticed, in history {}", totals.histories);
        }
        // A worker or a daemon that ended is no contradiction.
        (Some(_), Err(reason)) => return Err(reason.into()),
    }
    Ok(())
}

/// Runs one history in `dir` and checks it. If it holds, the directory is gone afterwards.
fn one(dir: &Path, binary: &Path, seeded: Option<&str>, seed: u64, totals: &mut Totals) -> Result<(), Failure> {
    fs::create_dir(dir)?;
    let began = Instant::now();
    let (history, blows) = run_one(dir, binary, seeded, seed)?;
    totals.running += began.elapsed();
    totals.blows.add(blows);
    history.save(&dir.join("history.json"))?;
    let undecided = totals.undecided;
    checked(&history, totals)?;
    if totals.undecided > undecided {
        let kept = std::env::temp_dir().join(format!("commonhold-undecided-{seed}.json"));
        fs::copy(dir.join("history.json"), &kept)?;
        println!("kept: {}", kept.display());
    }
    Ok(fs::remove_dir_all(dir)?)
}

/// Counts a history and checks it. An error tells why it does not hold.
fn checked(history: &History, totals: &mut Totals) -> Result<(), Failure> {
    let began = Instant::now();
    let (contradiction, explored, undecided) = check_all(&history.partitions());
    totals.checking += began.elapsed();
    totals.histories += 1;
    totals.operations += history.operations.len() as u64;
    let count = |outcome: &Outcome| history.operations.iter().filter(|one| one.outcome == *outcome).count() as u64;
    totals.unknown += count(&Outcome::Unknown);
    totals.refused += count(&Outcome::Refused);
    totals.behind += history.reads_behind_own_writes();
    totals.explored += explored;
    totals.most_explored = totals.most_explored.max(explored);
    match contradiction {
        Some(contradiction) => Err(format!("{NOT_LINEARIZABLE}\n\n{}", contradiction.text()).into()),
        None if undecided.is_empty() => Ok(()),
        None => {
            // Neither proof nor fault. Told and counted; more than a rare one would make the run worthless.
            totals.undecided += 1;
            println!("UNDECIDED after {explored} steps: {}", undecided.join(", "));
            if totals.undecided > 1 + totals.histories / 100 {
                return Err(format!("{} of {} histories are undecided", totals.undecided, totals.histories).into());
            }
            Ok(())
        }
    }
}

/// Checks a history that was kept.
pub(crate) fn check_again(file: &Path) -> Result<(), Failure> {
    let history = History::load(file)?;
    let mut totals = Totals::default();
    println!("seed                  {}", history.seed);
    checked(&history, &mut totals)?;
    println!("operations            {}", totals.operations);
    println!("states explored       {}", totals.explored);
    println!("it holds");
    Ok(())
}

impl Totals {
    fn print(&self) {
        let blows = &self.blows;
        println!("histories             {}", self.histories);
        println!("operations            {}, of which {} of unknown outcome", self.operations, self.unknown);
        println!("refused conditions    {}", self.refused);
        println!("read behind writes    {}, before these were answered", self.behind);
        println!("daemons killed        {}, of which {} at a point", blows.daemons_killed, blows.at_points);
        println!("daemons ended         {}", blows.daemons_ended);
        println!("workers killed        {}", blows.workers_killed);
        println!("stopped for a while   {} daemons, {} workers", blows.daemons_stopped, blows.workers_stopped);
        println!("flushes meanwhile     {}", blows.flushes);
        println!("near-cache hits       {} of {} reads", blows.hits, blows.hits + blows.misses);
        println!("undecided             {}", self.undecided);
        println!("states explored       {}, at most {} in one history", self.explored, self.most_explored);
        let (running, checking) = (self.running.as_secs_f64(), self.checking.as_secs_f64());
        println!("seconds               {running:.0} running, {checking:.1} checking");
    }
}
