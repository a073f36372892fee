//! `scan NS`: the records in insertion order, as JSON lines that `import --format lines` reads.

use clap::Args;

use super::context::Context;
use super::failure::Failure;
use super::output::{Out, push_record};

/// Options of `scan`.
#[derive(Debug, Args)]
pub(super) struct ScanArgs {
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
pub(super) fn run(args: &ScanArgs, context: &Context) -> Result<(), Failure> {
    let (_client, namespace) = context.namespace(&args.namespace)?;
    let mut out = Out::new();
    let mut line = Vec::new();
    let limit = args.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    for entry in namespace.scan().prefix(&args.prefix).take(limit) {
        let entry = entry?;
        line.clear();
        push_record(&mut line, &entry.key, Some(&entry.value), context.json().then_some(entry.seq.0));
        out.bytes(&line)?;
    }
    out.finish()
}
