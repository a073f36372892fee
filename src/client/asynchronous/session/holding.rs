//! Requests that wait for others to give something back, and those that give back: they have a time limit of their own,
//! and nothing that was granted may be lost in them. A future that is dropped while it waits is cancelled by the core,
//! which gives back what was granted before the cancel came.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use commonhold_proto::Verb;
use parking_lot::MutexGuard;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Answering, Session};
use crate::client::asynchronous::driver::State;
use crate::client::core::{Core, Reply};
use crate::client::error::Error;
use crate::client::limits::{Limits, deadline_ms};
use crate::client::target::Target;

impl Session {
    /// Begins a request that waits in the daemon, for at most `timeout`.
    pub(in crate::client::asynchronous) fn wait_for(
        self: &Arc<Self>,
        verb: Verb<'_>,
        timeout: Option<Duration>,
    ) -> Result<Answering, Error> {
        let limits = Limits::starting_now(timeout);
        let mut connection = 0;
        let mut answering = self.begin_with(limits, |core| {
            connection = core.connection_number().load(Ordering::Acquire);
            core.begin_wait(limits, verb)
        })?;
        answering.grace = Some(connection);
        Ok(answering)
    }

    /// Begins a request about something that was granted on this connection.
    pub(in crate::client::asynchronous) fn begin_on(
        self: &Arc<Self>,
        connection: u64,
        verb: Verb<'_>,
    ) -> Result<Answering, Error> {
        if !self.is_own() {
            return Err(Error::Forked);
        }
        let timeout = self.options().timeout;
        self.begin_with(Limits::starting_now(timeout), |core| core.begin_on(connection, deadline_ms(timeout), verb))
    }

    /// The same without an answer, and without waiting.
    pub(in crate::client::asynchronous) fn tell(&self, connection: u64, verb: Verb<'_>) {
        self.change(|core| core.tell(connection, verb));
    }

    /// Registers an update flag; unless this fails, [`drop_flag`](Self::drop_flag) must follow.
    pub(in crate::client::asynchronous) async fn register_flag(
        self: &Arc<Self>,
        target: &Target,
    ) -> Result<Registered, Error> {
        let timeout = self.options().timeout;
        let limits = Limits::starting_now(timeout);
        let answering = self.begin_with(limits, |core| core.begin_flag(deadline_ms(timeout), target))?;
        let mut registered = Registered { session: Arc::clone(self), target: target.clone(), reply: None };
        registered.reply = Some(answering.await?);
        Ok(registered)
    }

    /// Waits until more than `seen` restarts were found, and answers how many.
    pub(in crate::client::asynchronous) async fn restarted(self: &Arc<Self>, seen: u64) -> Result<u64, Error> {
        loop {
            let answering = self.begin_with(Limits::starting_now(None), |core| {
                // Looked at under the lock under which they are counted.
                Ok(if self.restarts() > seen { 0 } else { core.begin_restart() })
            })?;
            if answering.id == Some(0) {
                return Ok(self.restarts());
            }
            answering.await?;
        }
    }

    pub(super) fn begin_with(
        self: &Arc<Self>,
        limits: Limits,
        begin: impl FnOnce(&mut Core) -> Result<u64, Error>,
    ) -> Result<Answering, Error> {
        let mut state = self.wire.state.lock();
        let id = begin(&mut state.core)?;
        Self::push_and_wake(state);
        Ok(Answering::new(self, id, limits))
    }

    fn change(&self, change: impl FnOnce(&mut Core)) {
        if self.is_own() {
            let mut state = self.wire.state.lock();
            change(&mut state.core);
            Self::push_and_wake(state);
        }
    }

    fn push_and_wake(mut state: MutexGuard<'_, State>) {
        let woken = state.push();
        drop(state);
        woken.wake();
    }

    /// The right to elect for a name, of one task of this process at a time: the daemon would tell two that they have won,
    /// for to it they are one session.
    pub(in crate::client::asynchronous) fn turn(self: &Arc<Self>, name: &str) -> Arc<Semaphore> {
        let mut turns = self.turns.lock();
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(turns.entry(name.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(1))))
    }

    /// Whether a permit may be given back here: in a forked child, what guards it may be locked for ever.
    pub(in crate::client::asynchronous) fn end_turn(&self, turn: OwnedSemaphorePermit) {
        if self.is_own() { drop(turn) } else { std::mem::forget(turn) }
    }
}

/// A registered update flag, which is forgotten when this is dropped.
#[derive(Debug)]
pub(in crate::client::asynchronous) struct Registered {
    session: Arc<Session>,
    target: Target,
    /// Of the registering; taken by who asked for it.
    pub(in crate::client::asynchronous) reply: Option<Reply>,
}

impl Registered {
    pub(in crate::client::asynchronous) fn target(&self) -> &Target {
        &self.target
    }

    pub(in crate::client::asynchronous) fn session(&self) -> &Session {
        &self.session
    }

    /// Whether this process is the one that has registered it.
    pub(in crate::client::asynchronous) fn is_own(&self) -> bool {
        self.session.is_own()
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.session.change(|core| core.drop_flag(&self.target));
    }
}
