//! A promise to answer a request later: by whoever carries it out, on whatever thread, without waiting for the client.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crate::proto::{Answer, Fault};

use super::outbox::Outbox;
use super::replies::Replies;

/// An answer that is owed. One that is dropped unanswered says that the daemon is stopping, since nothing else drops it.
pub(super) struct LateAnswer {
    outbox: Arc<Outbox>,
    id: u64,
    answered: bool,
    /// It may come at any time or never, and is no reason to let the client wait with anything.
    whenever: bool,
}

impl LateAnswer {
    /// For [`Outbox::promise`], which counts it.
    pub(super) fn new(outbox: Arc<Outbox>, id: u64) -> Self {
        Self { outbox, id, answered: false, whenever: false }
    }

    /// For [`Outbox::promise_whenever`], which counts it.
    pub(super) fn whenever(outbox: Arc<Outbox>, id: u64) -> Self {
        Self { outbox, id, answered: false, whenever: true }
    }

    /// From here on it is owed like any other.
    fn comes_now(&mut self) {
        self.answered = true;
        if std::mem::take(&mut self.whenever) {
            self.outbox.owe_now();
        }
    }

    /// The number of the session that it goes to.
    pub(super) fn session(&self) -> u64 {
        self.outbox.session
    }

    /// The request that it answers.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// What a cancel of the request sets, from here until the answer.
    pub(super) fn cancellable(&self) -> Arc<AtomicBool> {
        self.outbox.cancellable(self.id)
    }

    /// Gives the answer, without waiting for the client.
    pub(super) fn give(mut self, answer: &Answer<'_>) {
        self.comes_now();
        self.outbox.post(self.id, answer);
    }

    /// Gives an answer that was encoded already, and may come in parts.
    pub(super) fn give_replies(mut self, replies: Replies) {
        self.comes_now();
        self.outbox.post_replies(self.id, replies);
    }

    /// The request is answered in parts from here on, by whoever has what this returns: nothing more is owed to it.
    pub(super) fn go_on_in_parts(mut self) -> Arc<Outbox> {
        self.answered = true;
        self.outbox.settle(1);
        Arc::clone(&self.outbox)
    }

    /// Gives the answer, and waits until it has left, the session is closed, or `patience` is over.
    pub(super) fn give_and_wait(self, answer: &Answer<'_>, patience: Duration) {
        let outbox = Arc::clone(&self.outbox);
        self.give(answer);
        outbox.wait_until_settled(Instant::now() + patience);
    }
}

impl Drop for LateAnswer {
    fn drop(&mut self) {
        if !self.answered {
            self.comes_now();
            self.outbox.post(self.id, &Answer::Fault(Fault::Stopping));
        }
    }
}
