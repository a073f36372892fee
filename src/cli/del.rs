//! `del NS KEY…`: deletes records, all of them in one write or none.

use clap::Args;
use serde_json::json;

use super::args::NamespaceArgs;
use super::context::Context;
use super::failure::{Exit, Failure};
use super::human::counted;
use super::output::print_json;

/// Options of `del`.
#[derive(Debug, Args)]
pub(super) struct DelArgs {
    #[command(flatten)]
    namespace: NamespaceArgs,
    /// The keys, deleted together under one Seq.
    #[arg(value_name = "KEY", required = true)]
    keys: Vec<String>,
}

/// Runs the command.
pub(super) fn run(args: &DelArgs, context: &Context) -> Result<(), Failure> {
    let (_client, namespace) = context.namespace(&args.namespace)?;
    // A key named twice is one record.
    let mut keys: Vec<&String> = args.keys.iter().collect();
    keys.sort_unstable();
    keys.dedup();
    let written = namespace.delete_many(&keys)?;
    let missing = keys.len() as u64 - written.found;
    if context.json() {
        print_json(&json!({"seq": written.seq.0, "found": written.found, "missing": missing}))?;
    }
    let deleted = counted(written.found, "record", "records");
    context.talk(format_args!("{}: {deleted} deleted, seq {}", namespace.place(), written.seq));
    if missing > 0 {
        let had = counted(missing, "key", "keys");
        let text = format!("not found in {}: {had} of {} had no record to delete", namespace.place(), keys.len());
        return Err(Failure::new(Exit::NotFound, text));
    }
    Ok(())
}
