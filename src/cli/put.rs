//! `put NS KEY JSON|-`: stores one value.

use clap::Args;

use super::context::Context;
use super::failure::Failure;
use super::numbers;
use super::write::{self, KeyArgs, WriteArgs};

/// Options of `put`.
#[derive(Debug, Args)]
pub(super) struct PutArgs {
    #[command(flatten)]
    target: KeyArgs,
    /// The value as JSON text; `-` reads it from standard input.
    #[arg(value_name = "JSON", allow_hyphen_values = true, value_parser = numbers::unmarked)]
    pub(super) value: String,
    /// Set `_id`, `create_time` and `update_time` in the value, an object; a record that is replaced keeps its `create_time`.
    #[arg(long)]
    stamp: bool,
    #[command(flatten)]
    pub(super) write: WriteArgs,
}

/// Runs the command.
pub(super) fn run(args: &PutArgs, context: &Context) -> Result<(), Failure> {
    context.place(&args.target.namespace.name)?;
    let key = &args.target.key;
    let value = if args.stamp { write::object(&args.value, "a stamped value")? } else { write::value(&args.value)? };
    write::run(context, &args.target, &args.write, &value, |batch, namespace, condition| {
        if args.stamp {
            batch.put_stamped_raw_if(namespace, key, &value, condition)
        } else {
            batch.put_raw_if(namespace, key, &value, condition)
        }
    })
}
