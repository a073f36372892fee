//! `clear NS`: deletes every record of a namespace in one write.

use clap::Args;
use serde_json::json;

use super::args::NamespaceArgs;
use super::context::Context;
use super::failure::Failure;
use super::human::counted;
use super::output::print_json;

/// Options of `clear`.
#[derive(Debug, Args)]
pub(super) struct ClearArgs {
    #[command(flatten)]
    namespace: NamespaceArgs,
}

/// Runs the command.
pub(super) fn run(args: &ClearArgs, context: &Context) -> Result<(), Failure> {
    let (_client, namespace) = context.namespace(&args.namespace)?;
    let written = namespace.clear()?;
    if context.json() {
        print_json(&json!({"seq": written.seq.0, "found": written.found}))?;
    }
    let deleted = counted(written.found, "record", "records");
    context.talk(format_args!("{}: {deleted} deleted, seq {}", namespace.place(), written.seq));
    Ok(())
}
