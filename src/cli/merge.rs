//! `merge NS KEY JSON|-`: sets fields of a record and leaves its others as they are.

use clap::Args;

use super::context::Context;
use super::failure::Failure;
use super::numbers;
use super::write::{self, KeyArgs, WriteArgs};

/// Options of `merge`.
#[derive(Debug, Args)]
pub(super) struct MergeArgs {
    #[command(flatten)]
    target: KeyArgs,
    /// The fields and their values as a JSON object; `-` reads it from standard input.
    #[arg(value_name = "JSON", value_parser = numbers::unmarked)]
    fields: String,
    #[command(flatten)]
    write: WriteArgs,
}

/// Runs the command.
pub(super) fn run(args: &MergeArgs, context: &Context) -> Result<(), Failure> {
    context.place(&args.target.namespace.name)?;
    let fields = write::object(&args.fields, "the fields")?;
    write::run(context, &args.target, &args.write, &fields, |batch, namespace, condition| {
        batch.merge_raw_if(namespace, &args.target.key, &fields, condition)
    })
}
