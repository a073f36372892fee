//! `get NS KEY…`: the values, a line each, in the order asked for.

use clap::Args;

use super::args::NamespaceArgs;
use super::context::Context;
use super::failure::{Exit, Failure};
use super::numbers;
use super::output::{Out, push_record, shown_key};
use crate::json;
use crate::proto::limits::MAX_OPERATIONS;

/// Options of `get`.
#[derive(Debug, Args)]
pub(super) struct GetArgs {
    #[command(flatten)]
    namespace: NamespaceArgs,
    /// The keys; each 10,000 of them are read as they are at one moment.
    #[arg(value_name = "KEY", required = true, value_parser = numbers::unmarked)]
    pub(super) keys: Vec<String>,
}

/// Runs the command.
pub(super) fn run(args: &GetArgs, context: &Context) -> Result<(), Failure> {
    let (_client, namespace) = context.namespace(&args.namespace)?;
    let mut out = Out::new();
    let mut missing = Vec::new();
    let mut line = Vec::new();
    for keys in args.keys.chunks(MAX_OPERATIONS) {
        for (key, found) in keys.iter().zip(namespace.get_many_raw(keys)?) {
            let Some(found) = found else {
                missing.push(key);
                continue;
            };
            line.clear();
            if context.json() {
                push_record(&mut line, key, Some(found.text()), Some(found.seq().0));
            } else if out.is_terminal() {
                line.extend_from_slice(json::pretty(found.text(), 2).as_bytes());
                line.push(b'\n');
            } else {
                line.extend_from_slice(found.text().as_bytes());
                line.push(b'\n');
            }
            out.bytes(&line)?;
        }
    }
    out.finish()?;
    not_found(&missing, &namespace.place().to_string())
}

/// Ends with exit code 1 if keys were asked for that are not there, and names them.
pub(super) fn not_found(missing: &[&String], place: &str) -> Result<(), Failure> {
    /// How many missing keys are named before they are only counted.
    const NAMED_KEYS: usize = 20;
    if missing.is_empty() {
        return Ok(());
    }
    let mut names: Vec<String> = missing.iter().take(NAMED_KEYS).map(|key| shown_key(key)).collect();
    if missing.len() > NAMED_KEYS {
        names.push(format!("and {} more", missing.len() - NAMED_KEYS));
    }
    let text = format!("not found in {place}: {}", names.join(", "));
    Err(Failure::new(Exit::NotFound, text))
}
