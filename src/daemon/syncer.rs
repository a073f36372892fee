//! Commits: one thread that syncs the journal for whoever waits, so that all who came while a sync ran share the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use crate::engine::Store;
use crate::proto::{Fault, Seq};

use super::fault::timed_out;

/// The thread's queue.
pub(super) struct Syncer {
    store: Arc<Store>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<Commit>,
    closed: bool,
}

/// A commit that waits.
pub(super) struct Commit {
    /// Everything applied up to here must be on the platter: what was applied when the request was read.
    pub(super) seq: Seq,
    /// When it was asked for.
    pub(super) since: Instant,
    /// When the client no longer wants it to be begun.
    pub(super) deadline: Option<Instant>,
    /// Set when the client no longer wants it at all.
    pub(super) cancelled: Option<Arc<AtomicBool>>,
    /// Called once with what became of it, on the syncer's thread: it must not wait.
    pub(super) waiter: Box<dyn FnOnce(Result<Seq, Fault>) + Send>,
}

impl Commit {
    fn is_cancelled(&self) -> bool {
        self.cancelled.as_ref().is_some_and(|cancelled| cancelled.load(Ordering::Relaxed))
    }
}

impl Syncer {
    pub(super) fn new(store: Arc<Store>) -> Arc<Self> {
        Arc::new(Self { store, state: Mutex::default(), changed: Condvar::new() })
    }

    /// Queues a commit. After [`close`](Self::close) it is refused: the daemon is stopping.
    pub(super) fn commit(&self, commit: Commit) {
        let mut state = self.state.lock();
        if state.closed {
            drop(state);
            return (commit.waiter)(Err(Fault::Stopping));
        }
        state.waiting.push(commit);
        self.changed.notify_one();
    }

    /// The thread: ends when closed and empty.
    pub(super) fn run(&self) {
        loop {
            let mut state = self.state.lock();
            while state.waiting.is_empty() && !state.closed {
                self.changed.wait(&mut state);
            }
            let group = std::mem::take(&mut state.waiting);
            drop(state);
            if group.is_empty() {
                return;
            }
            self.serve(group);
        }
    }

    fn serve(&self, group: Vec<Commit>) {
        let (unwanted, group): (Vec<_>, Vec<_>) = group.into_iter().partition(Commit::is_cancelled);
        for commit in unwanted {
            (commit.waiter)(Err(Fault::Cancelled));
        }
        let now = Instant::now();
        let (late, group): (Vec<_>, Vec<_>) =
            group.into_iter().partition(|commit| commit.deadline.is_some_and(|deadline| deadline < now));
        for commit in late {
            (commit.waiter)(Err(timed_out(now - commit.since, "the sync before this one to end")));
        }
        let Some(through) = group.iter().map(|commit| commit.seq).max() else { return };
        let outcome = self.store.sync_through(through).map_err(|error| Fault::from(&error));
        for commit in group {
            (commit.waiter)(outcome.clone());
        }
    }

    /// What is queued is served; then the thread ends.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }
}
