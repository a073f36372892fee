//! `lock KEY… -- COMMAND`: waits for the keys, and becomes the command. The lock lives exactly as long as the command's
//! process does, whatever happens to it: nobody is left in between who could be killed and leave one without the other.
//!
//! The session is told to hold what it has, its socket outlives the exec, and so it ends with the process. While this
//! command waits it handles no signal: one that ends it closes the socket, and so takes it out of the queue.
//!
//! A command may run `lock` again. The inner one finds the outer ones' tokens in its environment and names them as held, so that it
//! is told where it would wait for itself.

use std::collections::HashSet;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, fmt, fs, io};

use clap::Args;

use super::context::Context;
use super::failure::{Exit, Failure};
use super::human;
use crate::client::blocking::{Client, ConnectOptions, Error, Fault, LockGuard};
use crate::proto::limits::MAX_LOCK_HOLDS;

/// In the environment of the command: the lock's fencing token, for `--if-token` and its like.
const TOKEN: &str = "COMMONHOLD_TOKEN";

/// Likewise: the tokens of all locks that it runs under, outermost first, each with its store: `DEVICE:INODE:TOKEN`, a space
/// between them.
const TOKENS: &str = "COMMONHOLD_TOKENS";

/// Options of `lock`.
#[derive(Debug, Args)]
pub(super) struct LockArgs {
    /// What to lock: any text; all of them at once.
    #[arg(value_name = "KEY", required = true)]
    keys: Vec<String>,
    /// Others may hold the keys at the same time, all of them shared.
    #[arg(long)]
    shared: bool,
    /// How long to wait at most, connecting included; without it, for ever.
    #[arg(long, value_name = "T", value_parser = human::parse_span)]
    timeout: Option<Duration>,
    /// The command to run under the lock, with its arguments. It finds the fencing token in `COMMONHOLD_TOKEN`, and in
    /// `COMMONHOLD_TOKENS` also those of the locks that this one runs under.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// How long a command that does not want to wait for the lock waits for the daemon.
const CONNECTING: Duration = Duration::from_secs(1);

/// How long to wait for the lock, and since when.
#[derive(Clone, Copy)]
struct Limit {
    began: Instant,
    timeout: Option<Duration>,
}

/// A lock that this process runs under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Outer {
    /// Device and inode of its store's directory: another store may give the same token.
    store: (u64, u64),
    token: u64,
}

impl fmt::Display for Outer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.store.0, self.store.1, self.token)
    }
}

/// The locks that the environment tells of.
fn outer_of(text: &str) -> Result<Vec<Outer>, Failure> {
    let outer = |word: &str| {
        let mut numbers = word.split(':').map(|number| number.parse().ok());
        let mut next = || numbers.next().flatten();
        let outer = Outer { store: (next()?, next()?), token: next()? };
        numbers.next().is_none().then_some(outer)
    };
    let refused = |word| {
        let text = format_args!(
            "{TOKENS} has {word:?}, which is not DEVICE:INODE:TOKEN as `commonhold lock` gives it: unset it"
        );
        Failure::new(Exit::LockRefused, text)
    };
    text.split_whitespace().map(|word| outer(word).ok_or_else(|| refused(word))).collect()
}

/// Runs the command: it returns only if it failed.
pub(super) fn run(args: &LockArgs, context: &Context) -> Result<(), Failure> {
    let (guard, outer) = locked(args, context).map_err(|failure| before_command(failure, args))?;
    let token = guard.token();
    let refused = |error| before_command(Failure::from(error), args);
    guard.leave().map_err(refused)?;
    let (program, arguments) = args.command.split_first().expect("clap asks for one");
    let tokens = outer.iter().map(Outer::to_string).collect::<Vec<_>>().join(" ");
    let error = Command::new(program).args(arguments).env(TOKEN, token.to_string()).env(TOKENS, tokens).exec();
    let exit = if error.kind() == io::ErrorKind::NotFound { Exit::CommandNotFound } else { Exit::CommandNotRun };
    let program = program.to_string_lossy();
    Err(Failure::new(exit, format_args!("{program} cannot be run: {error}; the lock was given back")))
}

/// Waits for the lock. Answers with it all locks that are held then, this one the last.
fn locked(args: &LockArgs, context: &Context) -> Result<(LockGuard, Vec<Outer>), Failure> {
    let text = env::var_os(TOKENS).unwrap_or_default();
    let mut outer = outer_of(&text.to_string_lossy())?;
    let limit = Limit { began: Instant::now(), timeout: args.timeout };
    let mut options = Context::in_time(ConnectOptions::new())?;
    if let Some(timeout) = args.timeout {
        // Who does not want to wait is given the moment that connecting takes.
        options = options.timeout_at_most(timeout.max(CONNECTING));
    }
    let client = context.connect_with(&options)?;
    let directory = fs::metadata(context.store()).map_err(|error| {
        Failure::new(Exit::LockRefused, format_args!("{} cannot be looked at: {error}", context.store().display()))
    })?;
    let store = (directory.dev(), directory.ino());
    if outer.iter().filter(|outer| outer.store == store).count() > MAX_LOCK_HOLDS {
        leave_out_ended(&client, store, &mut outer)?;
    }
    loop {
        let holds: Vec<u64> = outer.iter().filter(|outer| outer.store == store).map(|outer| outer.token).collect();
        match acquired(args, limit, &client, &holds) {
            Ok(Some(guard)) => {
                outer.push(Outer { store, token: guard.token() });
                return Ok((guard, outer));
            }
            Ok(None) => {
                let text = "somebody else has the lock, or came before; `commonhold locks` tells who";
                return Err(Failure::new(Exit::TimedOut, text));
            }
            // One that this process outlives, or that was lost, keeps nobody waiting.
            Err(Error::Fault(Fault::NotHeld { .. })) if !holds.is_empty() => {
                leave_out_ended(&client, store, &mut outer)?;
            }
            Err(Error::Fault(Fault::AlreadyHeld { key, token })) if holds.contains(&token) => {
                let text = format_args!(
                    "key {key:?} is locked already by a `commonhold lock` that this one runs under, with token {token}, and would be waited for without end: leave it out here"
                );
                return Err(Failure::new(Exit::LockRefused, text));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Only what is held still counts.
fn leave_out_ended(client: &Client, store: (u64, u64), outer: &mut Vec<Outer>) -> Result<(), Error> {
    let locks = client.locks()?;
    let held: HashSet<u64> = locks.iter().flat_map(|lock| &lock.holders).map(|holder| holder.token).collect();
    outer.retain(|outer| outer.store != store || held.contains(&outer.token));
    Ok(())
}

/// The lock; none if it is not free and not to be waited for.
fn acquired(args: &LockArgs, limit: Limit, client: &Client, holds: &[u64]) -> Result<Option<LockGuard>, Error> {
    let mut lock = client.lock(&args.keys).holding_tokens(holds);
    if args.shared {
        lock = lock.shared();
    }
    match limit.timeout {
        Some(timeout) if timeout.is_zero() => lock.try_acquire(),
        Some(timeout) => lock.timeout(timeout.saturating_sub(limit.began.elapsed())).acquire().map(Some),
        None => lock.acquire().map(Some),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_to_an_inner_lock_is_read_by_it_and_anything_else_is_refused() {
        let outer = [Outer { store: (64_769, 12), token: 4_294_967_297 }, Outer { store: (1, 2), token: 3 }];
        let text = outer.map(|outer| outer.to_string()).join(" ");
        assert_eq!(text, "64769:12:4294967297 1:2:3");
        assert_eq!(outer_of(&text).ok().as_deref(), Some(&outer[..]));
        assert_eq!(outer_of("").ok().as_deref(), Some(&[][..]));
        for text in ["7", "1:2", "1:2:x", "1:2:3:4", "1:2:-3", "1:2:3,4:5:6"] {
            assert!(outer_of(text).is_err(), "{text}");
        }
    }
}
