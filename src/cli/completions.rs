//! `completions SHELL`: a completion script for a shell, made from the declarations of the options themselves.

use clap::{Args, CommandFactory as _};
use clap_complete::{Shell, generate};

use super::args::Cli;
use super::failure::Failure;
use super::output::Out;

/// Options of `completions`.
#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell.
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

/// Runs the command.
pub(super) fn run(args: &CompletionsArgs) -> Result<(), Failure> {
    // Made in memory first: clap would panic where a pipe's reader leaves early.
    let mut script = Vec::new();
    generate(args.shell, &mut Cli::command(), "commonhold", &mut script);
    let mut out = Out::new();
    out.bytes(&script)?;
    out.finish()
}
