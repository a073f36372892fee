//! `keys NS`: the keys in insertion order, a line each.

use clap::Args;

use super::context::Context;
use super::failure::Failure;
use super::output::{Out, push_record};
use crate::json;

/// Options of `keys`.
#[derive(Debug, Args)]
pub(super) struct KeysArgs {
    /// The namespace.
    #[arg(value_name = "NS")]
    namespace: String,
    /// Only keys that begin so.
    #[arg(long, value_name = "P", default_value = "", hide_default_value = true)]
    prefix: String,
    /// At most so many.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

/// Runs the command.
pub(super) fn run(args: &KeysArgs, context: &Context) -> Result<(), Failure> {
    let (_client, namespace) = context.namespace(&args.namespace)?;
    let mut out = Out::new();
    let mut line = Vec::new();
    let limit = args.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    for entry in namespace.scan().prefix(&args.prefix).keys_only().take(limit) {
        let entry = entry?;
        line.clear();
        if context.json() {
            push_record(&mut line, &entry.key, None, Some(entry.seq.0));
        } else if out.is_terminal() && entry.key.chars().any(char::is_control) {
            // A key may hold anything, escape sequences too; a terminal gets them quoted.
            json::write_string(&mut line, &entry.key);
            line.push(b'\n');
        } else {
            line.extend_from_slice(entry.key.as_bytes());
            line.push(b'\n');
        }
        out.bytes(&line)?;
    }
    out.finish()
}
