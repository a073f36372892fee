//! `lock KEY… -- COMMAND`: waits for the keys, and becomes the command. The lock lives exactly as long as the command's
//! process does, whatever happens to it: nobody is left in between who could be killed and leave one without the other.
//!
//! The session is told to hold what it has, its socket outlives the exec, and so it ends with the process. While this
//! command waits it handles no signal: one that ends it closes the socket, and so takes it out of the queue.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use clap::Args;

use super::context::Context;
use super::failure::{Exit, Failure};
use super::human;
use crate::client::blocking::ConnectOptions;

/// In the environment of the command: the lock's fencing token, for `--if-token` and its like.
const TOKEN: &str = "COMMONHOLD_TOKEN";

/// Options of `lock`.
#[derive(Debug, Args)]
pub(super) struct LockArgs {
    /// What to lock: any text; all of them at once.
    #[arg(value_name = "KEY", required = true)]
    keys: Vec<String>,
    /// Others may hold the keys at the same time, all of them shared.
    #[arg(long)]
    shared: bool,
    /// How long to wait at most; without it, for ever.
    #[arg(long, value_name = "T", value_parser = human::parse_span)]
    timeout: Option<Duration>,
    /// The command to run under the lock, with its arguments. It finds the fencing token in `COMMONHOLD_TOKEN`.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Runs the command: it returns only if it failed.
pub(super) fn run(args: &LockArgs, context: &Context) -> Result<(), Failure> {
    let guard = locked(args, context).map_err(|failure| before_command(failure, args))?;
    let token = guard.token();
    let refused = |error| before_command(Failure::from(error), args);
    guard.leave().map_err(refused)?;
    let (program, arguments) = args.command.split_first().expect("clap asks for one");
    let error = Command::new(program).args(arguments).env(TOKEN, token.to_string()).exec();
    let exit = if error.kind() == io::ErrorKind::NotFound { Exit::CommandNotFound } else { Exit::CommandNotRun };
    let program = program.to_string_lossy();
    Err(Failure::new(exit, format_args!("{program} cannot be run: {error}; the lock was given back")))
}

fn locked(args: &LockArgs, context: &Context) -> Result<crate::client::blocking::LockGuard, Failure> {
    let client = context.connect_with(&Context::in_time(ConnectOptions::new())?)?;
    let mut lock = client.lock(&args.keys);
    if args.shared {
        lock = lock.shared();
    }
    if let Some(timeout) = args.timeout {
        lock = lock.timeout(timeout);
        if timeout.is_zero() {
            let free = lock.try_acquire()?;
            let text = "somebody else has the lock, or came before; `commonhold locks` tells who";
            return free.ok_or_else(|| Failure::new(Exit::TimedOut, text));
        }
    }
    Ok(lock.acquire()?)
}

/// What went wrong before the command ran, in exit codes that commands rarely have.
fn before_command(failure: Failure, args: &LockArgs) -> Failure {
    let what = args.command[0].to_string_lossy();
    match failure {
        Failure::Said { exit: Exit::TimedOut, text } => {
            Failure::new(Exit::LockTimedOut, format_args!("{text}; {what} was not run"))
        }
        Failure::Said { text, .. } => Failure::new(Exit::LockRefused, format_args!("{text}; {what} was not run")),
        gone @ Failure::ReaderGone => gone,
    }
}
