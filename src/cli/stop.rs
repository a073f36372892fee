//! `stop`: ends the daemon, and returns when its process is gone, so that another can be started at once. That holds for a
//! daemon that could not flush everything, too: its outcome is told when it has ended.
//!
//! Several may stop one daemon at the same time, or a signal may have been first. Who finds the daemon going, or gone since the
//! command began, waits for its end like the others: what was asked for is so.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::context::Context;
use super::failure::{Exit, Failure};
use super::left_alone::LeftAlone;
use super::output::print_json;
use crate::client;
use crate::client::blocking::Client;
use crate::engine::Layout;
use crate::lock::{FileLocks, Locks, read_holder};
use crate::proto::Fault;

/// How long the process may take to end after it has said how its flushes went: it waits a minute for a rewrite that still
/// runs, and some seconds for sessions.
const END_TIMEOUT: Duration = Duration::from_secs(90);

/// How long to pause before a daemon that cannot be reached is asked again.
const PAUSE: Duration = Duration::from_millis(50);

/// Runs the command.
pub(super) fn run(context: &Context) -> Result<(), Failure> {
    let owner = Owner::find(context);
    let Some(client) = connect(context, owner.as_ref())? else {
        return told_as_going(context, owner.map(|owner| owner.pid));
    };
    let status = match (client.status(), &owner) {
        (Err(error), Some(owner)) if is_going(&error) => {
            return owner.must_end().and_then(|()| told_as_going(context, Some(owner.pid)));
        }
        (status, _) => status?,
    };
    let status: Value = serde_json::from_str(&status).unwrap_or_default();
    let pid = status["pid"].as_u64().and_then(|pid| i32::try_from(pid).ok());
    // By what the socket says: the daemon's own word for it is another process here if it lives in another pid namespace.
    let seen = client.daemon_pid().and_then(|pid| i32::try_from(pid).ok());
    let process = seen.and_then(Process::find);
    let left = LeftAlone::of(&status);
    let outcome = client.stop();
    drop(client);
    if outcome.as_ref().err().is_none_or(daemon_ends) && !is_gone_within(END_TIMEOUT, context, process.as_ref()) {
        let seconds = END_TIMEOUT.as_secs();
        let still_there = match seen.filter(|_| process.is_some()) {
            Some(pid) => format!("process {pid} is still there after {seconds} s: see its log"),
            None => format!("it still owns the store after {seconds} s: see its log"),
        };
        return Err(match outcome {
            Ok(()) => Failure::new(Exit::TimedOut, format!("the daemon has flushed everything but {still_there}")),
            Err(error) => Failure::from(error).and(format!("; {still_there}")),
        });
    }
    match outcome {
        Ok(()) => {}
        Err(error) if is_going(&error) => return told_as_going(context, pid),
        Err(error) => return Err(in_words(error)),
    }
    if context.json() {
        print_json(&json!({"stopped": true, "pid": pid, "closed": left.closed, "held": left.held}))?;
    }
    context.talk(format_args!("stopped; all files are up to date{}", left.words()));
    Ok(())
}

/// Connects; none if the daemon has ended meanwhile. One that owns the store and cannot be reached is ending, or just beginning.
fn connect(context: &Context, owner: Option<&Owner>) -> Result<Option<Client>, Failure> {
    let deadline = Instant::now() + END_TIMEOUT;
    loop {
        match (context.connect(), owner) {
            (Err(failure), Some(owner)) if failure.exit() == Exit::NoDaemon => {
                if owner.process.ends_within(PAUSE) {
                    return Ok(None);
                }
                if Instant::now() >= deadline {
                    return Err(owner.stays());
                }
            }
            (connected, _) => return connected.map(Some),
        }
    }
}

/// Whether the daemon was ending already, and answers nobody any more.
fn is_going(error: &client::Error) -> bool {
    matches!(
        error,
        client::Error::Fault(Fault::Stopping)
            | client::Error::Lost { .. }
            | client::Error::NoDaemon { .. }
            | client::Error::OutcomeUnknown { .. }
    )
}

/// Others have stopped it, and know how its flushes went.
fn told_as_going(context: &Context, pid: Option<i32>) -> Result<(), Failure> {
    if context.json() {
        print_json(&json!({"stopped": true, "pid": pid, "closed": []}))?;
    }
    context.talk("stopped; it was stopping already, and whoever began that was told whether all files are up to date");
    Ok(())
}

/// What could not be written, and what helps now that there is no daemon any more that could flush again.
fn in_words(error: client::Error) -> Failure {
    match error {
        client::Error::Fault(Fault::FlushFailed { places, reason }) => Failure::new(
            Exit::Unavailable,
            format_args!(
                "the daemon has ended, but could not flush {}: {reason}. What is not in the files is safe in the journal: mend the cause, then start a daemon, which serves it and brings the files up to date with its next flush or stop",
                places.join(", ")
            ),
        ),
        client::Error::Fault(Fault::Unavailable { reason }) => Failure::new(
            Exit::Unavailable,
            format_args!("the daemon has ended, but could not write the store any more: {reason}"),
        ),
        error => Failure::from(error),
    }
}

/// Whether the daemon ends although it answered so: what it could not write is told, and ends nothing but itself.
fn daemon_ends(error: &client::Error) -> bool {
    match error {
        client::Error::Fault(fault) => {
            matches!(fault, Fault::FlushFailed { .. } | Fault::Unavailable { .. } | Fault::Stopping)
        }
        client::Error::Lost { .. } | client::Error::OutcomeUnknown { .. } => true,
        _ => false,
    }
}

/// Waits until the daemon's process has ended; where it cannot be seen, as in another pid namespace, until it has given the store up.
fn is_gone_within(timeout: Duration, context: &Context, process: Option<&Process>) -> bool {
    match process {
        Some(process) => process.ends_within(timeout),
        None => FileLocks.share(&Layout::new(context.store()).owner_lock(), timeout).is_ok(),
    }
}

/// The daemon's process, held by a descriptor where the platform has one: a pid could be given to another process.
#[cfg(target_os = "linux")]
struct Process(std::os::fd::OwnedFd);

#[cfg(target_os = "linux")]
impl Process {
    fn find(pid: i32) -> Option<Self> {
        let pid = rustix::process::Pid::from_raw(pid)?;
        rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok().map(Self)
    }

    /// A process descriptor becomes readable when its process ends.
    fn ends_within(&self, timeout: Duration) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let deadline = std::time::Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            let left = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: i64::from(left.subsec_nanos()) };
            match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&left)) {
                Err(rustix::io::Errno::INTR) => {}
                other => return other.is_ok_and(|ready| ready > 0),
            }
        }
    }
}

/// The daemon that owned the store when the command began.
struct Owner {
    pid: i32,
    process: Process,
}

impl Owner {
    /// The process that the lock file names, if it has that file open: its number may be another's by now. To try the lock would
    /// tell, too, and could be in the way of a daemon that starts.
    #[cfg(target_os = "linux")]
    fn find(context: &Context) -> Option<Self> {
        use std::os::unix::fs::MetadataExt as _;
        let lock = Layout::new(context.store()).owner_lock();
        let pid = i32::try_from(read_holder(&lock)?.pid).ok()?;
        let process = Process::find(pid)?;
        let lock = std::fs::symlink_metadata(lock).ok()?;
        let is_lock = |open: std::fs::DirEntry| {
            let found = std::fs::metadata(open.path());
            found.is_ok_and(|found| (found.dev(), found.ino()) == (lock.dev(), lock.ino()))
        };
        let mut open = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
        open.any(is_lock).then_some(Self { pid, process })
    }

    #[cfg(not(target_os = "linux"))]
    fn find(_context: &Context) -> Option<Self> {
        None
    }

    /// It answers nobody any more: it ends.
    fn must_end(&self) -> Result<(), Failure> {
        if self.process.ends_within(END_TIMEOUT) { Ok(()) } else { Err(self.stays()) }
    }

    fn stays(&self) -> Failure {
        let (pid, seconds) = (self.pid, END_TIMEOUT.as_secs());
        let words =
            format!("the daemon (process {pid}) answers nobody, and is still there after {seconds} s: see its log");
        Failure::new(Exit::TimedOut, words)
    }
}

/// Elsewhere the owner lock tells.
#[cfg(not(target_os = "linux"))]
struct Process;

#[cfg(not(target_os = "linux"))]
impl Process {
    fn find(_pid: i32) -> Option<Self> {
        None
    }

    fn ends_within(&self, _timeout: Duration) -> bool {
        true
    }
}
