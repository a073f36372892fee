//! Histories: eight processes ask a store for everything at once while it and they are killed, stopped and started, and
//! what they were answered must be what a store gives that does one thing after the other (`checker.rs` says how that is
//! found out).
//!
//! The workers are processes of this very program, so it has no harness of its own making but the table below.
//!
//! ```text
//!   histories [WORD]…                        the tests, or those whose names hold a word
//!   histories run [--count N] [--seed N] [--seeded FAULT]
//!                                            so many histories; with a fault, until one shows that it is there
//!   histories check FILE                     a history that did not hold, once more
//! ```

#![allow(missing_docs, reason = "a test")]

mod asker;
mod checker;
mod checker_tests;
mod history;
mod model;
mod objects;
mod recorder;
mod report;
mod run;
mod runs;
mod worker;

use std::path::Path;
use std::process::ExitCode;

use recorder::Failure;

/// Enough for some seconds; `scripts/histories` runs more.
const HISTORIES_IN_TESTS: u64 = 3;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.split_first() {
        Some((word, rest)) if word == "--as-worker" => worker::run(rest),
        Some((word, rest)) if word == "run" => runs::run(rest),
        Some((word, [file])) if word == "check" => runs::check_again(Path::new(file)),
        _ => test(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

/// As a harness does: words select tests by their names.
fn test(arguments: &[String]) -> Result<(), Failure> {
    let words: Vec<_> = arguments.iter().filter(|word| !word.starts_with('-')).collect();
    let wanted = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(*word));
    for (name, test) in checker_tests::TESTS {
        if wanted(name) {
            test();
            println!("test {name} ... ok");
        }
    }
    let name = "answers_under_kills_and_stops_are_those_of_one_store";
    if wanted(name) {
        let options = runs::Options { count: HISTORIES_IN_TESTS, ..runs::Options::default() };
        runs::run_with(&options)?;
        println!("test {name} ... ok");
    }
    Ok(())
}
