//! Who has what, and who waits for it: the state machines of [`coord`](crate::coord) behind one mutex, and the answers that are
//! owed to those who wait.
//!
//! The mutex is held for a few look-ups, never while something is sent or synced: what a step grants is collected under
//! it and answered after it. A request that waits is a promise to answer and, if it has a deadline, a timer of the
//! runtime; nothing looks at it until what it waits for is there.
//!
//! What a session holds is free when the last that acts for it is done: the session itself, and its line, where requests
//! that it sent before it ended may still be carried out. Each of them keeps its [`Stay`].

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};
use tokio::task::AbortHandle;

use crate::coord::{Begun, Elections, Flags, Locks, Need, Outcome, Refusal, Resolved, Slots, WaitId, Wish};
use crate::engine::{Grant, Store};
use crate::proto::{Answer, Election, Fault, LockWish};

use super::Daemon;
use super::fault::timed_out;
use super::late::LateAnswer;
use super::outbox::Outbox;
use super::refusal::{self, Asked};
use super::running::unix_ms;

/// All coordination of a daemon.
#[derive(Default)]
pub(super) struct Coordination {
    state: Mutex<State>,
    /// Called when a grant has ended and the last write under it is done.
    settled: OnceLock<Arc<dyn Fn(u64) + Send + Sync>>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) locks: Locks,
    pub(super) slots: Slots,
    pub(super) elections: Elections,
    pub(super) flags: Flags,
    /// Of the live locks, those that a write has named.
    grants: HashMap<u64, Grant>,
    waiting: HashMap<WaitId, Waiting>,
    /// By session and request; a client may use a number twice.
    requests: BTreeSet<(u64, u64, WaitId)>,
    last_wait: u64,
    /// Nobody waits any more: the daemon ends.
    stopping: bool,
}

/// A request that waits.
struct Waiting {
    answer: LateAnswer,
    asked: Asked,
    since: Instant,
    /// What ends the waiting when its time is over.
    expiry: Option<AbortHandle>,
}

/// A request, and where its answer goes.
#[derive(Clone, Copy)]
pub(super) struct Asking<'a> {
    pub(super) outbox: &'a Arc<Outbox>,
    pub(super) id: u64,
    /// When it was read.
    pub(super) since: Instant,
    pub(super) deadline: Option<Instant>,
}

/// What a request for slots asks for.
pub(super) struct AskSlots<'a> {
    pub(super) group: &'a str,
    pub(super) limit: u32,
    pub(super) slots: u32,
    pub(super) wait: bool,
}

/// An answer that is to leave once the mutex is free.
struct Owed {
    answer: LateAnswer,
    asked: Asked,
    outcome: Outcome,
}

/// Somebody acts for a session. With the last of these the session holds nothing more.
pub(super) struct Stay {
    daemon: Arc<Daemon>,
    session: u64,
}

impl Stay {
    pub(super) fn new(daemon: &Arc<Daemon>, session: u64) -> Arc<Self> {
        Arc::new(Self { daemon: Arc::clone(daemon), session })
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.daemon.end_holdings(self.session);
    }
}

impl Coordination {
    /// Changes the flags, for which nobody waits.
    pub(super) fn flags<T>(&self, change: impl FnOnce(&mut Flags) -> T) -> T {
        change(&mut self.state.lock().flags)
    }

    /// What is called when a grant has ended and the last write under it is done. Once, at the start.
    pub(super) fn settle_by(&self, settled: impl Fn(u64) + Send + Sync + 'static) {
        let _ = self.settled.set(Arc::new(settled));
    }

    /// Looks at the state: for listings and counts.
    pub(super) fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.lock())
    }
}

impl State {
    fn next_wait(&mut self) -> WaitId {
        self.last_wait += 1;
        WaitId(self.last_wait)
    }

    /// Takes those who wait no longer out of the books.
    fn take(&mut self, resolved: Vec<Resolved>) -> Vec<Owed> {
        let take = |Resolved { wait, outcome }| {
            let Waiting { answer, asked, .. } = self.forget(wait)?;
            Some(Owed { answer, asked, outcome })
        };
        resolved.into_iter().filter_map(take).collect()
    }

    fn forget(&mut self, wait: WaitId) -> Option<Waiting> {
        let waiting = self.waiting.remove(&wait)?;
        waiting.expiry.iter().for_each(AbortHandle::abort);
        self.requests.remove(&(waiting.answer.session(), waiting.answer.id(), wait));
        Some(waiting)
    }

    /// Ends the waiting of a request, and lets pass who waited behind it.
    fn give_up(&mut self, wait: WaitId, store: &Store) -> Option<(Waiting, Vec<Owed>)> {
        let waiting = self.forget(wait)?;
        let resolved = match waiting.asked {
            Asked::Lock => self.locks.cancel(wait, &mut tokens(store)),
            Asked::Slots => self.slots.cancel(wait, &mut tokens(store)),
            Asked::Election => self.elections.cancel(wait),
        };
        Some((waiting, self.take(resolved.unwrap_or_default())))
    }
}

/// Fencing tokens are Seqs of the store.
fn tokens(store: &Store) -> impl FnMut() -> Option<u64> {
    || store.take_seq().map(|seq| seq.0)
}

impl Daemon {
    /// Locks keys for a session. None if it waits: it is answered later.
    pub(super) fn lock(self: &Arc<Self>, asking: &Asking<'_>, wish: LockWish<'_>) -> Option<Answer<'static>> {
        if let Err(fault) = refusal::check_wish(&wish) {
            return Some(Answer::Fault(fault));
        }
        let LockWish { keys, shared, owner, holds, wait } = wish;
        let wish = Wish { session: asking.outbox.session, owner, shared, keys, holds, now_unix_ms: unix_ms() };
        let begin = |state: &mut State, wait| state.locks.lock(wish, wait, &mut tokens(&self.store));
        self.begin(asking, Asked::Lock, wait, begin)
    }

    /// Begins what may wait.
    fn begin(
        self: &Arc<Self>,
        asking: &Asking<'_>,
        asked: Asked,
        wait: bool,
        begin: impl FnOnce(&mut State, Option<WaitId>) -> Result<Begun, Refusal>,
    ) -> Option<Answer<'static>> {
        let mut state = self.coordination.state.lock();
        if wait && state.stopping {
            return Some(Answer::Fault(Fault::Stopping));
        }
        let number = wait.then(|| state.next_wait());
        let begun = begin(&mut state, number);
        if let (Ok(Begun::Waits), Some(wait)) = (&begun, number) {
            self.wait_for(&mut state, wait, asking, asked);
            return None;
        }
        drop(state);
        Some(match begun {
            Ok(Begun::Granted(token)) => granted(asked, token),
            Ok(Begun::Won) => Answer::Elected { state: Election::Won },
            Ok(Begun::Running) => Answer::Elected { state: Election::Running },
            Ok(Begun::Done) => Answer::Elected { state: Election::Done },
            Ok(Begun::Waits) => unreachable!("only what was given a number waits"),
            Err(refusal) => Answer::Fault(refusal::fault(self, asked, refusal)),
        })
    }

    fn wait_for(self: &Arc<Self>, state: &mut State, wait: WaitId, asking: &Asking<'_>, asked: Asked) {
        let Asking { outbox, id, since, deadline } = *asking;
        let daemon = Arc::downgrade(self);
        let give_up = |deadline| self.runtime().spawn(expire(daemon, wait, deadline)).abort_handle();
        let expiry = deadline.map(give_up);
        state.requests.insert((outbox.session, id, wait));
        state.waiting.insert(wait, Waiting { answer: outbox.promise_whenever(id), asked, since, expiry });
    }

    /// Gives a lock back.
    pub(super) fn unlock(&self, session: u64, token: u64) -> Answer<'static> {
        let state = self.coordination.state.lock();
        self.step(state, Asked::Lock, |State { locks, grants, .. }| {
            let busy = || ends_busy(grants, token);
            locks.unlock(session, token, busy, &mut tokens(&self.store))
        })
    }

    /// A write is to be done only while this lock is live.
    pub(super) fn grant_of(&self, token: u64) -> Result<Grant, Fault> {
        let mut state = self.coordination.state.lock();
        let settled = self.coordination.settled.get().filter(|_| state.locks.is_live(token));
        let settled = settled.ok_or(Fault::TokenNotLive { token })?;
        Ok(state.grants.entry(token).or_insert_with(|| Grant::new(token, Arc::clone(settled))).clone())
    }

    /// The last write under a lock that has ended is done: its keys are free.
    pub(super) fn settle_grant(&self, token: u64) {
        let state = self.coordination.state.lock();
        self.step(state, Asked::Lock, |state| Ok(state.locks.settle(token, &mut tokens(&self.store))));
    }

    /// Takes slots for a session. None if it waits: it is answered later.
    pub(super) fn acquire(self: &Arc<Self>, asking: &Asking<'_>, ask: &AskSlots<'_>) -> Option<Answer<'static>> {
        if let Err(fault) = refusal::check_slots(ask.group, ask.limit, Some(ask.slots)) {
            return Some(Answer::Fault(fault));
        }
        let AskSlots { group, limit, slots, wait } = *ask;
        let need = Need { session: asking.outbox.session, group, limit, slots, now_unix_ms: unix_ms() };
        let begin = |state: &mut State, wait| state.slots.acquire(need, wait, &mut tokens(&self.store));
        self.begin(asking, Asked::Slots, wait, begin)
    }

    /// Gives slots back.
    pub(super) fn release(&self, session: u64, lease: u64) -> Answer<'static> {
        let state = self.coordination.state.lock();
        self.step(state, Asked::Slots, |state| state.slots.release(session, lease, &mut tokens(&self.store)))
    }

    /// Changes how many slots a group has.
    pub(super) fn set_limit(&self, session: u64, group: &str, limit: u32) -> Answer<'static> {
        if let Err(fault) = refusal::check_slots(group, limit, None) {
            return Answer::Fault(fault);
        }
        let state = self.coordination.state.lock();
        self.step(state, Asked::Slots, |state| state.slots.set_limit(session, group, limit, &mut tokens(&self.store)))
    }

    /// Asks for a session to be the one who initialises something. None if it waits: it is answered later.
    pub(super) fn elect(self: &Arc<Self>, asking: &Asking<'_>, name: &str, wait: bool) -> Option<Answer<'static>> {
        if let Err(fault) = refusal::check_name("the name of an election", name) {
            return Some(Answer::Fault(fault));
        }
        let session = asking.outbox.session;
        self.begin(asking, Asked::Election, wait, |state, wait| state.elections.elect(session, name, wait))
    }

    /// The elected session has done it, or gives it up.
    pub(super) fn initialized(&self, session: u64, name: &str, done: bool) -> Answer<'static> {
        let state = self.coordination.state.lock();
        self.step(state, Asked::Election, |state| state.elections.initialized(session, name, done))
    }

    /// Gives something back, and answers those who have it now.
    fn step(
        &self,
        mut state: MutexGuard<'_, State>,
        asked: Asked,
        step: impl FnOnce(&mut State) -> Result<Vec<Resolved>, Refusal>,
    ) -> Answer<'static> {
        let resolved = match step(&mut state) {
            Ok(resolved) => resolved,
            Err(refusal) => {
                drop(state);
                return Answer::Fault(refusal::fault(self, asked, refusal));
            }
        };
        let owed = state.take(resolved);
        drop(state);
        self.settle_up(owed);
        Answer::Done
    }

    /// Answers those who wait no longer; nobody waits for their clients.
    fn settle_up(&self, owed: Vec<Owed>) {
        for Owed { answer, asked, outcome } in owed {
            answer.give(&match outcome {
                Outcome::Granted(token) => granted(asked, token),
                Outcome::Won => Answer::Elected { state: Election::Won },
                Outcome::Done => Answer::Elected { state: Election::Done },
                Outcome::Refused(refusal) => Answer::Fault(refusal::fault(self, asked, refusal)),
            });
        }
    }

    /// The client no longer wants request `id` of its session. False if it does not wait here.
    pub(super) fn cancel_wait(&self, outbox: &Outbox, id: u64) -> bool {
        // Most sessions that cancel something wait for nothing here.
        outbox.waits_whenever() && {
            let state = self.coordination.state.lock();
            let of_request = (outbox.session, id, WaitId(0))..=(outbox.session, id, WaitId(u64::MAX));
            let wait = state.requests.range(of_request).next_back().map(|(.., wait)| *wait);
            wait.is_some_and(|wait| self.give_up(state, wait, |_| Fault::Cancelled))
        }
    }

    fn give_up(&self, mut state: MutexGuard<'_, State>, wait: WaitId, fault: impl FnOnce(&Waiting) -> Fault) -> bool {
        let Some((waiting, owed)) = state.give_up(wait, &self.store) else { return false };
        drop(state);
        let fault = fault(&waiting);
        waiting.answer.give(&Answer::Fault(fault));
        self.settle_up(owed);
        true
    }

    /// Nobody acts for the session any more: what it holds is free, and goes to those who wait.
    fn end_holdings(&self, session: u64) {
        let mut state = self.coordination.state.lock();
        let mut next = tokens(&self.store);
        let next = &mut next;
        let of_session = (session, 0, WaitId(0))..=(session, u64::MAX, WaitId(u64::MAX));
        let waits: Vec<WaitId> = state.requests.range(of_session).map(|(.., wait)| *wait).collect();
        let unanswered: Vec<Option<Waiting>> = waits.into_iter().map(|wait| state.forget(wait)).collect();
        let State { locks, slots, elections, flags, grants, .. } = &mut *state;
        let mut resolved = locks.end_session(session, |token| ends_busy(grants, token), next);
        resolved.extend(slots.end_session(session, next));
        resolved.extend(elections.end_session(session));
        flags.end_session(session);
        let owed = state.take(resolved);
        drop(state);
        // Nobody reads them.
        drop(unanswered);
        self.settle_up(owed);
    }

    /// Nobody waits any more: those who do are told that the daemon is stopping.
    pub(super) fn end_waits(&self) {
        let mut state = self.coordination.state.lock();
        state.stopping = true;
        let waits: Vec<WaitId> = state.waiting.keys().copied().collect();
        let mut ended = Vec::with_capacity(waits.len());
        for wait in waits {
            // Nothing is granted by it: all are taken out of the books first.
            ended.extend(state.forget(wait).map(|waiting| (wait, waiting)));
        }
        for (wait, waiting) in &ended {
            match waiting.asked {
                Asked::Lock => drop(state.locks.cancel(*wait, &mut || None)),
                Asked::Slots => drop(state.slots.cancel(*wait, &mut || None)),
                Asked::Election => drop(state.elections.cancel(*wait)),
            }
        }
        drop(state);
        for (_, waiting) in ended {
            waiting.answer.give(&Answer::Fault(Fault::Stopping));
        }
    }
}

/// What somebody is told who has got what it asked for.
fn granted(asked: Asked, token: u64) -> Answer<'static> {
    match asked {
        Asked::Lock => Answer::Locked { token },
        Asked::Slots => Answer::Acquired { lease: token },
        Asked::Election => Answer::Elected { state: Election::Won },
    }
}

/// No further write is done under a lock. Answers whether one is being done.
fn ends_busy(grants: &mut HashMap<u64, Grant>, token: u64) -> bool {
    grants.remove(&token).is_some_and(|grant| grant.end())
}

async fn expire(daemon: Weak<Daemon>, wait: WaitId, deadline: Instant) {
    tokio::time::sleep_until(deadline.into()).await;
    if let Some(daemon) = daemon.upgrade() {
        let state = daemon.coordination.state.lock();
        daemon.give_up(state, wait, |waiting| timed_out(waiting.since.elapsed(), waiting.asked.waited_for()));
    }
}
