//! Notices that the process at the other end of a session has died, also where the connection stays open.
//!
//! A socket ends when its last holder closes it. A worker that has forked, as gunicorn's do, may be killed while its child
//! holds the socket open: what the worker had locked would stay locked for as long as the child lives. So the daemon keeps
//! a descriptor of each process that has connected (pidfd, on Linux) and ends its sessions when that says that the process
//! is dead. Nothing polls: the runtime waits for the descriptors as it does for sockets.
//!
//! Where there is none (another platform, a pid namespace that this process cannot see into, a kernel before 5.3, descriptors
//! used up) a session ends with its connection only. The pid is the one that the socket names: should another process have got
//! it before the daemon took the connection, that one is waited for.
//!
//! There is one line of unsafe code here: the promise that a registered descriptor stays open.
#![expect(unsafe_code, reason = "tokio asks for the promise that a registered descriptor stays open")]

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::AbortHandle;

use super::outbox::Outbox;
use super::running::Daemon;

/// The processes at the other ends of sessions.
#[derive(Default)]
pub(super) struct Deaths {
    processes: Mutex<HashMap<u32, Process>>,
    /// How many there are, for whoever counts descriptors.
    count: AtomicUsize,
}

/// A process that has connected, and its sessions.
struct Process {
    descriptor: Arc<OwnedFd>,
    /// What waits for its death.
    waiting: AbortHandle,
    sessions: Vec<Arc<Outbox>>,
}

impl Deaths {
    /// How many descriptors are in use for this.
    pub(super) fn descriptors(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Ends the session when the process `pid` dies; at once, if it is dead.
    pub(super) fn watch(&self, daemon: &Arc<Daemon>, pid: u32, outbox: &Arc<Outbox>) {
        let mut processes = self.processes.lock();
        if let Some(process) = processes.get_mut(&pid) {
            if !is_dead(&process.descriptor) {
                return process.sessions.push(Arc::clone(outbox));
            }
            // Another process had this pid before, and its end is about to be noticed.
            if let Some(process) = processes.remove(&pid) {
                process.died(pid);
            }
        }
        match open(pid) {
            Ok(descriptor) => {
                let descriptor = Arc::new(descriptor);
                let task = daemon.runtime().spawn(notice(Arc::downgrade(daemon), pid, Arc::clone(&descriptor)));
                let sessions = vec![Arc::clone(outbox)];
                processes.insert(pid, Process { descriptor, waiting: task.abort_handle(), sessions });
            }
            Err(Errno::SRCH) => {
                tracing::debug!(session = outbox.session, pid, "its process was dead before it was served");
                outbox.close();
            }
            Err(error) => tracing::debug!(session = outbox.session, pid, "its process cannot be watched: {error}"),
        }
        self.count.store(processes.len(), Ordering::Relaxed);
    }

    /// Whether the death of its process ends this session.
    pub(super) fn is_watching(&self, pid: u32, session: u64) -> bool {
        let processes = self.processes.lock();
        processes.get(&pid).is_some_and(|process| process.sessions.iter().any(|outbox| outbox.session == session))
    }

    /// The session has ended: its process is not waited for on its account any more.
    pub(super) fn forget(&self, pid: u32, session: u64) {
        let mut processes = self.processes.lock();
        let Some(process) = processes.get_mut(&pid) else { return };
        process.sessions.retain(|outbox| outbox.session != session);
        if process.sessions.is_empty() {
            process.waiting.abort();
            processes.remove(&pid);
        }
        self.count.store(processes.len(), Ordering::Relaxed);
    }

    /// The process of this descriptor has died.
    fn died(&self, pid: u32, descriptor: &Arc<OwnedFd>) {
        let mut processes = self.processes.lock();
        // Unless that was noticed otherwise, and another process has its pid now.
        if processes.get(&pid).is_some_and(|process| Arc::ptr_eq(&process.descriptor, descriptor))
            && let Some(process) = processes.remove(&pid)
        {
            process.died(pid);
        }
        self.count.store(processes.len(), Ordering::Relaxed);
    }
}

impl Process {
    fn died(self, pid: u32) {
        for outbox in self.sessions {
            tracing::debug!(session = outbox.session, pid, "its process has died");
            outbox.close();
        }
        self.waiting.abort();
    }
}

/// Completes when the process has died, and its sessions are about to end.
async fn notice(daemon: Weak<Daemon>, pid: u32, descriptor: Arc<OwnedFd>) {
    let died = async {
        let shared = Shared(Arc::clone(&descriptor));
        // SAFETY: `shared` always answers the one descriptor of its `OwnedFd`, which nobody can close while that is
        // referred to, as it is from within the registration.
        let waited_for = unsafe { AsyncFd::register_with_interest(shared, Interest::READABLE) }?;
        waited_for.readable().await.map(|mut ready| ready.retain_ready())
    };
    let died: io::Result<()> = died.await;
    let Some(daemon) = daemon.upgrade() else { return };
    match died {
        Ok(()) => daemon.deaths.died(pid, &descriptor),
        Err(error) => tracing::warn!(pid, "the death of a process cannot be waited for: {error}"),
    }
}

/// A descriptor that the runtime waits for and that others look at.
struct Shared(Arc<OwnedFd>);

impl AsRawFd for Shared {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

fn is_dead(descriptor: &OwnedFd) -> bool {
    let mut polled = [PollFd::from_borrowed_fd(descriptor.as_fd(), PollFlags::IN)];
    poll(&mut polled, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

#[cfg(target_os = "linux")]
fn open(pid: u32) -> Result<OwnedFd, Errno> {
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::INVAL)?;
    pidfd_open(pid, PidfdFlags::empty())
}

#[cfg(not(target_os = "linux"))]
fn open(_pid: u32) -> Result<OwnedFd, Errno> {
    Err(Errno::NOSYS)
}
