//! `increment NS KEY FIELD BY`: adds to a number in a field of a record.

use clap::Args;

use super::context::Context;
use super::failure::Failure;
use super::numbers;
use super::write::{self, KeyArgs, WriteArgs};
use crate::json;
use crate::proto::Number;

/// Options of `increment`.
#[derive(Debug, Args)]
pub(super) struct IncrementArgs {
    #[command(flatten)]
    target: KeyArgs,
    /// The field, at the top level of the record.
    #[arg(value_name = "FIELD", value_parser = numbers::unmarked)]
    field: String,
    /// How much is added: a whole number of 64 bits, or a float, as 2, -1, 0.25 or 1e3.
    #[arg(value_name = "BY", allow_hyphen_values = true, value_parser = by)]
    by: Number,
    #[command(flatten)]
    write: WriteArgs,
}

fn by(word: &str) -> Result<Number, String> {
    number(&numbers::unmarked(word).map_err(|never| never.to_string())?)
}

/// Reads a number as JSON and Python mean it: with a point or an exponent it is a float, else a whole number.
fn number(text: &str) -> Result<Number, String> {
    if !matches!(text.as_bytes().first(), Some(b'-' | b'0'..=b'9' | b'N' | b'I')) || json::canonical(text).is_err() {
        return Err("a number was expected, as 2, -1 or 0.25".to_owned());
    }
    if let Ok(whole) = text.parse() {
        return Ok(Number::Int(whole));
    }
    if text.bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E' | b'N' | b'I')) {
        // Rust reads every token that JSON has, and Python's three words.
        let float: f64 = text.parse().map_err(|_| "a number was expected".to_owned())?;
        let finite = float.is_finite().then_some(Number::Float(float));
        return finite.ok_or_else(|| "it is no finite number: no sum with it could be kept".to_owned());
    }
    Err("it is beyond 64 bits: add a float, as 1e19".to_owned())
}

/// Runs the command.
pub(super) fn run(args: &IncrementArgs, context: &Context) -> Result<(), Failure> {
    write::run(context, &args.target, &args.write, "", |batch, namespace, condition| {
        batch.increment_if(namespace, &args.target.key, &args.field, args.by, condition)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_stay_whole_and_all_else_is_a_float_or_nothing() {
        for (text, whole) in
            [("0", 0), ("-7", -7), ("9223372036854775807", i64::MAX), ("-9223372036854775808", i64::MIN)]
        {
            assert_eq!(number(text), Ok(Number::Int(whole)), "{text}");
        }
        for (text, float) in [("0.25", 0.25), ("-1e3", -1000.0), ("1E-2", 0.01), ("1e308", 1e308)] {
            assert_eq!(number(text), Ok(Number::Float(float)), "{text}");
        }
        for bad in [
            "",
            "x",
            "one",
            "+1",
            "01",
            "1.",
            ".5",
            "0x10",
            "inf",
            "nan",
            "\"1\"",
            "9223372036854775808",
            "1 2",
            "1e400",
            "NaN",
            "Infinity",
            "-Infinity",
        ] {
            assert!(number(bad).is_err(), "{bad}");
        }
    }
}
