//! Numbers below zero among what was typed: `append n k list -1 -Infinity --keep-last 5`.
//!
//! No option of this program looks like a number, so that a word that is one is never meant as an option. clap takes some
//! such words for values, but neither `-1e-3` nor Python's `-Infinity`, and in a list of values it can be told to take all
//! that begins with a hyphen, or nothing. So these words are marked before clap sees them, with a byte that no argument of
//! a process can hold, and the values that may be numbers lose the mark when they are read.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};

use clap::CommandFactory as _;

use super::args::Cli;
use crate::json;

/// Stands before a word that is a value.
const MARK: char = '\0';

/// The commands that take such values; all values that they take without an option are [`unmarked`].
const COMMANDS: [&str; 6] = ["get", "del", "put", "merge", "increment", "append"];

/// What was typed, numbers below zero marked where the command may take them.
pub(super) fn marked(typed: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut words: Vec<OsString> = typed.collect();
    // Behind `--` nothing is an option.
    let options = words.iter().position(|word| word == "--").unwrap_or(words.len());
    if !words[..options].iter().any(|word| is_below_zero(word)) || !takes_numbers(&words) {
        return words;
    }
    for word in words[..options].iter_mut().filter(|word| is_below_zero(word)) {
        *word = format!("{MARK}{}", word.to_string_lossy()).into();
    }
    words
}

/// A number as JSON and Python mean it. A hyphen alone is none; it stands for standard input.
fn is_below_zero(word: &OsStr) -> bool {
    word.to_str().is_some_and(|word| word.starts_with('-') && json::canonical(word).is_ok())
}

/// Which command it is only the whole grammar tells: a word before it may be an option's.
fn takes_numbers(words: &[OsString]) -> bool {
    let found = Cli::command().ignore_errors(true).try_get_matches_from(words);
    found.is_ok_and(|found| found.subcommand_name().is_some_and(|name| COMMANDS.contains(&name)))
}

/// A value as it was typed, for clap to read values with.
#[expect(clippy::unnecessary_wraps, reason = "clap takes functions that may refuse")]
pub(super) fn unmarked(word: &str) -> Result<String, Infallible> {
    Ok(word.trim_start_matches(MARK).to_owned())
}

/// A refusal's text as if nothing had been marked.
pub(super) fn without_marks(text: &str) -> String {
    text.replace(MARK, "")
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::args::Command;
    use super::*;

    fn parse(words: &[&str]) -> Result<Command, clap::Error> {
        let words = ["commonhold"].iter().chain(words).map(OsString::from);
        Cli::try_parse_from(marked(words)).map(|cli| cli.command)
    }

    #[test]
    fn numbers_below_zero_are_values_wherever_they_stand_and_options_stay_options() {
        for numbers in [&["-Infinity"][..], &["-1", "-1e-3", "-1.5E+7", "-Infinity"], &["1", "-0"]] {
            for options in [&[][..], &["--if-absent"]] {
                let words = [&["append", "n", "k", "-5"], numbers, options].concat();
                let Ok(Command::Append(args)) = parse(&words) else { panic!("{words:?}") };
                assert_eq!(args.field, "-5");
                assert_eq!(args.items, numbers);
                assert_eq!(args.write.if_absent, !options.is_empty());
            }
        }
        let Ok(Command::Get(args)) = parse(&["--store", "append", "get", "n", "-5", "k", "--quiet"]) else { panic!() };
        assert_eq!(args.keys, ["-5", "k"]);
    }

    #[test]
    fn what_is_no_number_is_an_option_and_what_was_typed_is_shown() {
        assert!(parse(&["append", "n", "k", "f", "-x"]).is_err());
        assert!(parse(&["append", "n", "k", "f", "-inf"]).is_err());
        let refusal = parse(&["append", "n", "k", "f", "1", "--keep-last", "-1"]).expect_err("it counts from 0");
        assert!(without_marks(&refusal.to_string()).contains("'-1' for '--keep-last <N>'"), "{refusal}");
        assert_eq!(marked(["c", "count", "-5"].iter().map(OsString::from)), ["c", "count", "-5"]);
    }
}
