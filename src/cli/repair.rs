//! `repair …`: settles what `check` names. It shows what it would do until it is given `--yes`.

use clap::{ArgGroup, Args, ValueEnum};
use serde_json::json;

use super::context::Context;
use super::failure::{Exit, Failure};
use super::human::printable;
use super::output::{FAINT, GOOD, NOTE, print_json, print_styled};
use crate::daemon;
use crate::engine::{self, Plan, Repair, Settle, Surroundings};
use crate::proto::Seq;

/// Options of `repair`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("how").required(true).args(["keep", "apply", "generation", "set_aside", "cut_journal"]))]
pub(super) struct RepairArgs {
    /// The namespace.
    #[arg(value_name = "NS", required_unless_present = "cut_journal", conflicts_with = "cut_journal")]
    namespace: Option<String>,
    /// `file`: the namespace's file, or that there is none, is right as it is; the waiting writes are set aside.
    #[arg(long, value_enum, value_name = "WHAT")]
    keep: Option<Keep>,
    /// `journal`: the waiting writes are applied to the file that is there.
    #[arg(long, value_enum, value_name = "WHAT")]
    apply: Option<Apply>,
    /// This kept generation takes the file's place, and later writes are applied to it; N or N.foreign.
    #[arg(long, value_name = "N")]
    generation: Option<String>,
    /// Give the file up: it is kept, and the namespace begins with what the journal still holds.
    #[arg(long)]
    set_aside: bool,
    /// Cut a damaged journal at its last good record; the rest is kept in .commonhold/journal/aside.
    #[arg(long)]
    cut_journal: bool,
    /// Do it. Without this, only what would be done is told.
    #[arg(long)]
    yes: bool,
}

/// What can be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Keep {
    /// The namespace's file.
    File,
}

/// What can be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Apply {
    /// The writes that wait in the journal or in quarantine.
    Journal,
}

/// Runs the command.
pub(super) fn run(args: &RepairArgs, context: &Context) -> Result<(), Failure> {
    let what = what(args, context)?;
    context.check_directory()?;
    if args.yes {
        // What root makes in another user's store, that user's daemon could not use.
        daemon::check_owner(context.store())?;
    }
    let around = Surroundings::real()?;
    let run = if args.yes { engine::repair } else { engine::plan };
    let plan = run(context.store(), &what, around)?;
    if context.json() {
        print_json(&json!({"done": args.yes, "steps": plan.steps, "losses": plan.losses}))?;
    } else {
        print_styled(&told(&plan, args.yes))?;
    }
    if !args.yes {
        context.talk("nothing was changed; the same command with --yes does it");
    }
    Ok(())
}

fn what(args: &RepairArgs, context: &Context) -> Result<Repair, Failure> {
    let Some(namespace) = &args.namespace else { return Ok(Repair::CutJournal) };
    let place = context.place(namespace)?;
    let settle = match args {
        RepairArgs { keep: Some(Keep::File), .. } => Settle::KeepFile,
        RepairArgs { apply: Some(Apply::Journal), .. } => Settle::ApplyJournal,
        RepairArgs { generation: Some(name), .. } => generation(name)?,
        _ => Settle::SetAside,
    };
    Ok(Repair::Namespace(place, settle))
}

fn generation(name: &str) -> Result<Settle, Failure> {
    let (number, foreign) = name.strip_suffix(".foreign").map_or((name, false), |number| (number, true));
    number.parse().map(|number| Settle::Generation { number: Seq(number), foreign }).map_err(|_| {
        let text =
            format!("{name:?} is no generation: `commonhold check` names those that are kept, as 42 or 42.foreign");
        Failure::new(Exit::Usage, text)
    })
}

fn told(plan: &Plan, done: bool) -> String {
    let head = if done { format!("{GOOD}done{GOOD:#}") } else { format!("{FAINT}would do{FAINT:#}") };
    let mut lines = vec![format!("{head}:")];
    lines.extend(plan.steps.iter().map(|step| format!("  {}", printable(step))));
    if !plan.losses.is_empty() {
        lines.push(format!("{NOTE}mind{NOTE:#}:"));
        lines.extend(plan.losses.iter().map(|loss| format!("  {}", printable(loss))));
    }
    lines.push(String::new());
    lines.join("\n")
}
