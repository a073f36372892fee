//! `flush [NS]`: commits, and brings the JSON files up to date.

use clap::Args;
use serde_json::json;

use super::context::Context;
use super::failure::Failure;
use super::human::counted;
use super::left_alone::LeftAlone;
use super::output::print_json;
use crate::client::blocking::FlushOptions;

/// Options of `flush`.
#[derive(Debug, Args)]
pub(super) struct FlushArgs {
    /// The namespace; without it, every namespace of every workspace.
    #[arg(value_name = "NS")]
    namespace: Option<String>,
    /// Rewrite the files even if they are up to date, as after a change of --file-format.
    #[arg(long)]
    rewrite: bool,
    /// Do not wait until it is done.
    #[arg(long)]
    no_wait: bool,
}

/// Runs the command.
pub(super) fn run(args: &FlushArgs, context: &Context) -> Result<(), Failure> {
    let options = FlushOptions { rewrite: args.rewrite, wait: !args.no_wait };
    let mut left = LeftAlone { closed: Vec::new(), held: Vec::new() };
    let flushed = if let Some(name) = &args.namespace {
        context.persistent(name)?.1.flush_with(options)?
    } else {
        let client = context.connect()?;
        let flushed = client.flush_with(options)?;
        if flushed.is_some() {
            left = LeftAlone::of(&serde_json::from_str(&client.status()?).unwrap_or_default());
        }
        flushed
    };
    let answer = if let Some(flushed) = flushed {
        let files = counted(u64::from(flushed.rewritten), "file", "files");
        let seq = flushed.seq;
        context.talk(format_args!("{files} rewritten; the files hold everything up to seq {seq}{}", left.words()));
        json!({"rewritten": flushed.rewritten, "seq": seq.0, "closed": left.closed, "held": left.held})
    } else {
        context.talk("begun; `commonhold status` shows what is still dirty");
        json!({"begun": true})
    };
    if context.json() {
        print_json(&answer)?;
    }
    Ok(())
}
