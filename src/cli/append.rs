//! `append NS KEY FIELD JSON…`: adds items to the end of a list in a field of a record.

use clap::Args;

use super::context::Context;
use super::failure::{Exit, Failure};
use super::numbers;
use super::output::shown_key;
use super::write::{self, KeyArgs, WriteArgs};

/// Options of `append`.
#[derive(Debug, Args)]
pub(super) struct AppendArgs {
    #[command(flatten)]
    target: KeyArgs,
    /// The field, at the top level of the record.
    #[arg(value_name = "FIELD", value_parser = numbers::unmarked)]
    pub(super) field: String,
    /// The items, each a JSON text; `-` reads one from standard input.
    #[arg(value_name = "JSON", required = true, value_parser = numbers::unmarked)]
    pub(super) items: Vec<String>,
    /// Keep only so many items, the last ones of the list.
    #[arg(long, value_name = "N")]
    keep_last: Option<u32>,
    #[command(flatten)]
    pub(super) write: WriteArgs,
}

/// Runs the command.
pub(super) fn run(args: &AppendArgs, context: &Context) -> Result<(), Failure> {
    context.place(&args.target.namespace.name)?;
    if args.items.iter().filter(|item| *item == "-").count() > 1 {
        return Err(Failure::new(Exit::Usage, "only one item can come from standard input"));
    }
    let key = shown_key(&args.target.key);
    let mut items = "[".to_owned();
    for (index, item) in args.items.iter().enumerate() {
        if index > 0 {
            items.push(',');
        }
        items += &write::checked_value(item, &format!("item {} for key {key}", index + 1))?;
    }
    items.push(']');
    write::run(context, &args.target, &args.write, &items, |batch, namespace, condition| {
        batch.append_raw_if(namespace, &args.target.key, &args.field, &items, args.keep_last, condition)
    })
}
