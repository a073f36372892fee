//! Writes that a session's thread has left to somebody else, who is just committing.
//!
//! A thread that waited for the writer's turn would have to be woken when its writes are done, and once more by its
//! client's next request. So it leaves its writes to the [`committer`](super::committer)'s leader and goes back to its socket, and
//! whoever commits them answers them together with those of all others who came meanwhile. Until then the session serves nothing
//! further: what it would be asked next was sent after these writes, and must see them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::coordination::Stay;
use super::registry::Guest;
use super::replies::Replies;
use super::running::Outcomes;
use super::session::answer_writes;

/// The answers that one session is owed for them. Dropped, it says that the daemon is stopping.
pub(super) struct Handed {
    guest: Arc<Guest>,
    /// The requests, in order; empty when they are answered.
    ids: Vec<u64>,
    /// What the session holds stays held until its writes are done.
    _stay: Arc<Stay>,
}

impl Handed {
    /// Promises an answer to each of these requests.
    pub(super) fn new(guest: &Arc<Guest>, ids: Vec<u64>, stay: &Arc<Stay>) -> Self {
        guest.outbox.owe(ids.len());
        guest.is_handed.store(true, Ordering::Relaxed);
        Self { guest: Arc::clone(guest), ids, _stay: Arc::clone(stay) }
    }

    /// Answers all of them, without waiting for the client.
    pub(super) fn give(mut self, outcomes: Outcomes) {
        self.answer(outcomes);
    }

    fn answer(&mut self, outcomes: Outcomes) {
        let ids = std::mem::take(&mut self.ids);
        if ids.is_empty() {
            return;
        }
        let mut replies = Replies::default();
        answer_writes(&mut replies, ids.iter().copied(), outcomes);
        // First, for the client may have its answer, and have sent what comes next, before this thread goes on.
        self.guest.is_handed.store(false, Ordering::Release);
        self.guest.outbox.post_answers(replies.bytes, ids.len());
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        self.answer(None);
    }
}
