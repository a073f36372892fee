//! The command line: one file per command, all of them thin, standing on the client library.
//!
//! Values go to standard output and talk to standard error, so that a pipe carries data and nothing else. Commands
//! never start a daemon: where none runs they end with exit code 3 and say how to start one. `failure` maps every
//! error to its exit code, `output` and `human` own what people see, `records` and `sibling` what `import`
//! reads and `export` writes. `docs/cli.md` is the reference.

mod append;
mod args;
mod bench;
mod check;
mod cleanup;
mod clear;
mod commit;
mod completions;
mod context;
mod count;
mod del;
mod detach;
mod drop;
mod examples;
mod excerpt;
mod export;
mod failure;
mod first_object;
mod flags;
mod flush;
mod get;
mod human;
mod import;
mod increment;
mod keys;
mod left_alone;
mod load;
mod lock;
mod merge;
mod namespaces;
mod numbers;
mod offline;
mod output;
mod parties;
mod put;
mod quantiles;
mod records;
mod repair;
mod scan;
mod serve;
mod sessions;
mod sibling;
mod status;
mod status_table;
mod stop;
mod watch;
mod workspaces;
mod write;

use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind;

use args::{Cli, Command};
use context::Context;
use failure::{Exit, Failure};

/// Runs the command line of this process and returns its exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse_from(numbers::marked(std::env::args_os())) {
        Ok(cli) => cli,
        Err(refusal) if refusal.kind() == ErrorKind::InvalidUtf8 => {
            let text = not_utf8();
            output::say(if wants_json() {
                context::as_json(Exit::Usage, &text).to_string()
            } else {
                format!("commonhold: {text}")
            });
            return Exit::Usage.into();
        }
        Err(refusal) => {
            if refusal.use_stderr() && wants_json() {
                output::say(context::as_json(Exit::Usage, &in_a_line(&refusal)));
                return Exit::Usage.into();
            }
            tell(&refusal);
            return if refusal.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() };
        }
    };
    let context = Context::new(cli.global);
    match run(cli.command, &context) {
        Ok(()) => Exit::Done.into(),
        Err(failure) => context.report(&failure).into(),
    }
}

/// What is wrong with what was typed, without the help that clap adds in paragraphs of its own.
fn in_a_line(refusal: &clap::Error) -> String {
    let text = numbers::without_marks(&refusal.to_string());
    let first = text.split("\n\n").next().unwrap_or_default();
    first.trim_start_matches("error: ").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Which words it is about, which clap does not say.
fn not_utf8() -> String {
    let words = std::env::args_os().skip(1).filter(|word| word.to_str().is_none());
    let shown: Vec<String> = words.map(|word| format!("\"{}\"", word.as_encoded_bytes().escape_ascii())).collect();
    format!("not UTF-8: {}; names, keys, fields and JSON must be, paths need not", shown.join(", "))
}

/// Whether `--json` was among options that could not be read.
fn wants_json() -> bool {
    std::env::args_os().skip(1).take_while(|word| word != "--").any(|word| word == "--json")
}

/// What was typed is repeated in a refusal, and may have come out of a file name.
fn tell(refusal: &clap::Error) {
    let text = refusal.render().to_string();
    let shown = numbers::without_marks(&text);
    let is_plain = |word: std::ffi::OsString| !word.to_string_lossy().chars().any(char::is_control);
    if refusal.use_stderr() && (shown != text || !std::env::args_os().all(is_plain)) {
        output::say(human::printable_lines(shown.trim_end()));
    } else {
        // Nobody is left to tell when this fails: help that is piped into `head` is one way.
        let _ = refusal.print();
    }
}

fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::Serve(args) => serve::run(args, context),
        Command::Status(args) => status::run(&args, context),
        Command::Get(args) => get::run(&args, context),
        Command::Put(args) => put::run(&args, context),
        Command::Merge(args) => merge::run(&args, context),
        Command::Increment(args) => increment::run(&args, context),
        Command::Append(args) => append::run(&args, context),
        Command::Del(args) => del::run(&args, context),
        Command::Keys(args) => keys::run(&args, context),
        Command::Scan(args) => scan::run(&args, context),
        Command::Count(args) => count::run(&args, context),
        Command::Clear(args) => clear::run(&args, context),
        Command::Drop(args) => drop::run(&args, context),
        Command::Namespaces => namespaces::run(context),
        Command::Workspaces => workspaces::run(context),
        Command::Sessions(args) => sessions::run(&args, context),
        Command::Locks => parties::locks(context),
        Command::Flags => flags::run(context),
        Command::Slots => parties::slots(context),
        Command::Lock(args) => lock::run(&args, context),
        Command::Watch(args) => watch::run(&args, context),
        Command::Commit => commit::run(context),
        Command::Flush(args) => flush::run(&args, context),
        Command::Import(args) => import::run(&args, context),
        Command::Export(args) => export::run(&args, context),
        Command::Check(args) => check::run(&args, context),
        Command::Repair(args) => repair::run(&args, context),
        Command::Bench(args) => bench::run(&args, context),
        Command::Stop => stop::run(context),
        Command::Completions(args) => completions::run(&args),
    }
}
