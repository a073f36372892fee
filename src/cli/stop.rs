//! `stop`: ends the daemon, and returns when its process is gone, so that another can be started at once. That holds for a
//! daemon that could not flush everything, too: its outcome is told when it has ended.

use std::time::Duration;

use serde_json::{Value, json};

use super::context::Context;
use super::failure::{Exit, Failure};
use super::left_alone::LeftAlone;
use super::output::print_json;
use crate::client;
use crate::engine::Layout;
use crate::lock::{FileLocks, Locks};
use crate::proto::Fault;

/// How long the process may take to end after it has said how its flushes went: it waits a minute for a rewrite that still
/// runs, and some seconds for sessions.
const END_TIMEOUT: Duration = Duration::from_secs(90);

/// Runs the command.
pub(super) fn run(context: &Context) -> Result<(), Failure> {
    let client = context.connect()?;
    let status: Value = serde_json::from_str(&client.status()?).unwrap_or_default();
    let pid = status["pid"].as_u64().and_then(|pid| i32::try_from(pid).ok());
    let process = pid.and_then(Process::find);
    let left = LeftAlone::of(&status);
    let outcome = client.stop();
    drop(client);
    if outcome.as_ref().err().is_none_or(daemon_ends) && !is_gone_within(END_TIMEOUT, context, process.as_ref()) {
        let (pid, seconds) = (pid.unwrap_or_default(), END_TIMEOUT.as_secs());
        let still_there = format!("process {pid} is still there after {seconds} s: see its log");
        return Err(match outcome {
            Ok(()) => Failure::new(Exit::TimedOut, format!("the daemon has flushed everything but {still_there}")),
            Err(error) => Failure::from(error).and(format!("; {still_there}")),
        });
    }
    outcome?;
    if context.json() {
        print_json(&json!({"stopped": true, "pid": pid, "closed": left.closed, "held": left.held}))?;
    }
    context.talk(format_args!("stopped; all files are up to date{}", left.words()));
    Ok(())
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

/// Waits until the daemon's process has ended; where there is no way to see it, until it has given the store up.
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
