//! `del NS KEY…`: deletes records, all of them in one write as far as a request reaches.

use clap::Args;
use serde_json::json;

use super::args::NamespaceArgs;
use super::context::Context;
use super::failure::{Exit, Failure};
use super::human::counted;
use super::numbers;
use super::output::print_json;
use crate::client::blocking::Batch;
use crate::proto::Seq;
use crate::proto::limits::MAX_OPERATIONS;

/// Options of `del`.
#[derive(Debug, Args)]
pub(super) struct DelArgs {
    #[command(flatten)]
    namespace: NamespaceArgs,
    /// The keys; up to 10,000 are deleted together under one Seq.
    #[arg(value_name = "KEY", required = true, value_parser = numbers::unmarked)]
    keys: Vec<String>,
    /// Only while the lock with this fencing token is held, by whomever.
    #[arg(long, value_name = "TOKEN")]
    if_token: Option<u64>,
}

/// Runs the command.
pub(super) fn run(args: &DelArgs, context: &Context) -> Result<(), Failure> {
    let (client, namespace) = context.namespace(&args.namespace)?;
    // A key named twice is one record.
    let mut keys: Vec<&String> = args.keys.iter().collect();
    keys.sort_unstable();
    keys.dedup();
    let (mut found, mut seq) = (0, Seq::ZERO);
    for (piece, keys) in keys.chunks(MAX_OPERATIONS).enumerate() {
        let batch = keys.iter().try_fold(Batch::new(), |batch, key| batch.delete(&namespace, key))?;
        let batch = args.if_token.into_iter().fold(batch, Batch::if_token);
        let written = client.write(&batch).map_err(|error| {
            let deleted = counted(found, "record", "records");
            let before =
                format!("; {deleted} of the {} keys before had been deleted, which stays", piece * MAX_OPERATIONS);
            Failure::from(error).and(if piece == 0 { "" } else { &before })
        })?;
        found += written.found;
        seq = written.seq;
    }
    let missing = keys.len() as u64 - found;
    if context.json() {
        print_json(&json!({"seq": seq.0, "found": found, "missing": missing}))?;
    }
    let deleted = counted(found, "record", "records");
    context.talk(format_args!("{}: {deleted} deleted, seq {seq}", namespace.place()));
    if missing > 0 {
        let had = counted(missing, "key", "keys");
        let text = format!("not found in {}: {had} of {} had no record to delete", namespace.place(), keys.len());
        return Err(Failure::new(Exit::NotFound, text));
    }
    Ok(())
}
