//! Requests that wait for others to give something back, and those that give back: they have a time limit of their own,
//! and nothing that was granted may be lost in them.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use commonhold_proto::Verb;
use parking_lot::MutexGuard;

use super::{Session, State, Until};
use crate::client::core::Reply;
use crate::client::error::Error;
use crate::client::grants::{LAST_WORD, LATER};
use crate::client::limits::{Limits, deadline_ms};
use crate::client::target::Target;

impl Session {
    /// Sends a request that waits in the daemon, for at most `timeout`, and waits for its answer.
    ///
    /// A caller whose time is up cancels it and hears for a moment what the daemon says to that: nobody may read from the
    /// connection for long after, and what was granted meanwhile would be held by nobody. Where the connection was lost
    /// meanwhile nothing is heard any more, and what another one grants too late is given back.
    pub(in crate::client::blocking) fn wait_for(
        &self,
        verb: Verb<'_>,
        timeout: Option<Duration>,
    ) -> Result<Reply, Error> {
        let limits = Limits::starting_now(timeout);
        let mut state = self.state.lock();
        let id = state.core.begin_wait(limits, verb)?;
        let connection = state.core.connection_number().load(Ordering::Acquire);
        if self.drive(&mut state, id, limits, Until::Settled) || self.hears_late(&mut state, id, connection, limits) {
            return state.core.take(id).expect("drive finds only what is settled");
        }
        let waiting_for = state.core.waits_for(id);
        self.give_up(&mut state, id, limits);
        Err(Error::TimedOut { waited: limits.began.elapsed(), waiting_for })
    }

    /// Whether an answer comes a moment after the time was up, on the connection on which the request was begun.
    fn hears_late(&self, state: &mut MutexGuard<'_, State>, id: u64, connection: u64, limits: Limits) -> bool {
        if state.core.waits_on(id, connection) && self.drive(state, id, limits.and(LATER), Until::Settled) {
            return true;
        }
        let now = state.core.connection_number().load(Ordering::Acquire);
        if !state.core.waits_on(id, now) {
            return false;
        }
        state.core.cancel(id);
        self.drive(state, id, limits.and(LATER + LAST_WORD), Until::Settled) && now == connection
    }

    /// Sends a request about something that was granted on this connection, and waits for its answer.
    pub(in crate::client::blocking) fn call_on(&self, connection: u64, verb: Verb<'_>) -> Result<Reply, Error> {
        if !self.is_own() {
            return Err(Error::Forked);
        }
        let limits = Limits::starting_now(self.options.timeout);
        let mut state = self.state.lock();
        let id = state.core.begin_on(connection, deadline_ms(self.options.timeout), verb)?;
        self.finish(&mut state, id, limits)
    }

    /// The same without an answer, and without waiting.
    pub(in crate::client::blocking) fn tell(&self, connection: u64, verb: Verb<'_>) {
        if self.is_own() {
            let mut state = self.state.lock();
            state.core.tell(connection, verb);
            self.push(&mut state);
            self.wake_for_free_places(&state);
        }
    }

    /// Registers an update flag; unless this fails, [`drop_flag`](Self::drop_flag) must follow.
    pub(in crate::client::blocking) fn register_flag(&self, target: &Target) -> Result<Reply, Error> {
        let timeout = self.options.timeout;
        let limits = Limits::starting_now(timeout);
        let mut state = self.state.lock();
        let id = state.core.begin_flag(deadline_ms(timeout), target)?;
        let registered = self.finish(&mut state, id, limits);
        if registered.is_err() {
            state.core.drop_flag(target);
        }
        registered
    }

    /// One object fewer has this update flag.
    pub(in crate::client::blocking) fn drop_flag(&self, target: &Target) {
        if self.is_own() {
            let mut state = self.state.lock();
            state.core.drop_flag(target);
            self.push(&mut state);
            self.wake_for_free_places(&state);
        }
    }

    /// Waits until more than `seen` restarts were found, and answers how many.
    pub(in crate::client::blocking) fn restarted(&self, seen: u64, timeout: Option<Duration>) -> Result<u64, Error> {
        let limits = Limits::starting_now(timeout);
        let mut state = self.state.lock();
        while self.restarts() <= seen {
            let id = state.core.begin_restart();
            self.finish(&mut state, id, limits)?;
        }
        Ok(self.restarts())
    }

    /// After its answer, the daemon says nothing more on this connection and only waits for its end. The connection then
    /// lives as long as some process has its descriptor, and is this client's no more.
    #[cfg(all(unix, feature = "daemon"))]
    pub(in crate::client::blocking) fn leave_holding(&self, connection: u64) -> Result<(), Error> {
        crate::client::read::done(&self.call_on(connection, Verb::Hold)?)?;
        let mut state = self.state.lock();
        let super::Line::Up(stream) = &state.line else {
            return Err(Error::unknown("the connection was lost when it was to be handed on"));
        };
        stream.outlive_exec().map_err(|e| crate::client::connect::unreachable(&e))?;
        // Its reference is never dropped: the descriptor stays open.
        std::mem::forget(std::sync::Arc::clone(stream));
        state.line = super::Line::Down(None);
        Ok(())
    }

    /// Waits until no other thread of this process elects for this name: the daemon would tell both that they have won, for to
    /// it they are one session. Answers whether it is this thread's turn.
    pub(in crate::client::blocking) fn take_turn(&self, name: &str, wait: bool, deadline: Option<Instant>) -> bool {
        let mut electing = self.electing.lock();
        while electing.contains(name) {
            match deadline {
                _ if !wait => return false,
                Some(deadline) => {
                    if self.elected.wait_until(&mut electing, deadline).timed_out() {
                        return false;
                    }
                }
                None => self.elected.wait(&mut electing),
            }
        }
        electing.insert(name.to_owned())
    }

    /// Another thread may elect for this name.
    pub(in crate::client::blocking) fn pass_turn(&self, name: &str) {
        if self.is_own() {
            self.electing.lock().remove(name);
            self.elected.notify_all();
        }
    }
}
