//! A session's line: requests that cannot be served where they were read, in the order in which they take effect.
//!
//! A request stands in line when a namespace that it names is being loaded, when one before it in the line names the same
//! namespace, or when it may take long and its session shares a thread with others. It is carried out by a helper as soon
//! as its namespaces are in memory and nothing before it in the line touches them. Others pass those that wait for a load,
//! which holds up only those that ask for it; nothing passes one that merely takes long: its session waits until it
//! has taken effect, as one with a thread of its own does.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::task::AbortHandle;

use crate::proto::limits::MAX_IN_FLIGHT_BYTES;
use crate::proto::{Answer, Fault, Place};

use super::Daemon;
use super::aside::carry_out;
use super::fault::{loading, timed_out};
use super::inbox::Body;
use super::late::LateAnswer;
use super::outbox::Outbox;

/// What a request in line takes beside its frame and the names in it: its place, the promise of its answer, its deadline's
/// task.
const WAITING_BYTES: usize = 512;

/// Who waits.
pub(super) struct Line {
    daemon: Arc<Daemon>,
    /// Of the session, which is told when somebody has left.
    outbox: Arc<Outbox>,
    state: Mutex<State>,
    /// Read without the lock: a session whose line is empty looks at nothing else.
    length: AtomicUsize,
    /// Requests that have left the line unserved and are about to be answered.
    answering: AtomicUsize,
    /// One of them holds up all of its session.
    holding: AtomicBool,
}

#[derive(Default)]
struct State {
    waiting: Vec<Waiting>,
    /// What they weigh together.
    bytes: usize,
    last: u64,
}

/// How a request came to stand in line.
pub(super) struct Standing {
    pub(super) touches: Touches,
    /// Those of its namespaces that are not in memory.
    pub(super) loading: Vec<Place>,
    /// It waits for nothing and may take long: its session goes on when it has taken effect.
    pub(super) holds: bool,
}

/// What a request touches, and so what it must not overtake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Touches {
    /// Nothing that other requests change.
    Nothing,
    /// These namespaces.
    Places(Vec<Place>),
    /// Whatever was sent before.
    Everything,
}

impl Touches {
    /// About what it takes in memory. It is kept twice where the namespaces are being loaded.
    fn bytes(&self) -> usize {
        let of = |place: &Place| place.workspace.as_str().len() + place.namespace.as_str().len() + size_of::<Place>();
        match self {
            Self::Nothing | Self::Everything => 0,
            Self::Places(places) => 2 * places.iter().map(of).sum::<usize>(),
        }
    }
}

/// A request that stands in line.
struct Waiting {
    /// Its number in the line.
    number: u64,
    id: u64,
    request: AsideRequest,
    /// None while it runs.
    answer: Option<LateAnswer>,
    touches: Touches,
    /// Its namespaces that are not in memory yet.
    loading: Vec<Place>,
    /// A helper was asked to carry it out.
    runs: bool,
    /// Nothing of its session is served before it has taken effect.
    holds: bool,
    /// What is counted of it.
    bytes: usize,
    /// What gives it up when its time is over; it ends with the request, however late that time is.
    expiry: Option<AbortHandle>,
}

/// A request with all that it needs to be carried out elsewhere.
pub(super) struct AsideRequest {
    pub(super) body: Body,
    pub(super) deadline_ms: u32,
    pub(super) read_at: Instant,
    /// Whether its client's numbers count.
    pub(super) counts: bool,
}

impl AsideRequest {
    /// How long it has waited, if that is longer than its client wanted.
    pub(super) fn overdue(&self) -> Option<Duration> {
        self.deadline().filter(|deadline| *deadline <= Instant::now()).map(|_| self.read_at.elapsed())
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        (self.deadline_ms != 0).then(|| self.read_at + Duration::from_millis(u64::from(self.deadline_ms)))
    }
}

impl Line {
    pub(super) fn new(daemon: Arc<Daemon>, outbox: Arc<Outbox>) -> Arc<Self> {
        let (length, answering, holding) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
        Arc::new(Self { daemon, outbox, state: Mutex::default(), length, answering, holding })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length.load(Ordering::Acquire) == 0
    }

    /// Whether all that stood in it are answered.
    pub(super) fn is_settled(&self) -> bool {
        // In this order: who leaves is counted as being answered before that.
        self.is_empty() && self.answering.load(Ordering::Acquire) == 0
    }

    /// Whether its session may go on: nothing in it holds up the others, and there is room for more.
    pub(super) fn may_go_on(&self) -> bool {
        self.is_empty() || !self.holding.load(Ordering::Acquire) && self.state.lock().bytes < MAX_IN_FLIGHT_BYTES
    }

    /// Whether a request that touches this must not pass those who wait.
    pub(super) fn is_before(&self, touches: &Touches) -> bool {
        if self.is_empty() {
            return false;
        }
        let state = self.state.lock();
        match touches {
            Touches::Nothing => false,
            Touches::Everything => !state.waiting.is_empty(),
            Touches::Places(places) => state.waiting.iter().any(|earlier| match &earlier.touches {
                Touches::Places(held) => held.iter().any(|held| places.contains(held)),
                Touches::Nothing | Touches::Everything => false,
            }),
        }
    }

    /// Puts a request at the end of the line.
    pub(super) fn stand(self: &Arc<Self>, request: AsideRequest, answer: LateAnswer, standing: Standing) {
        let Standing { touches, loading, holds } = standing;
        let deadline = request.deadline();
        let bytes = request.body.len() + touches.bytes() + WAITING_BYTES;
        let mut state = self.state.lock();
        state.last += 1;
        let number = state.last;
        state.bytes += bytes;
        self.daemon.waiting_requests().add(bytes);
        if holds {
            self.holding.store(true, Ordering::Release);
        }
        let (id, answer) = (answer.id(), Some(answer));
        let line = Arc::downgrade(self);
        let give_up = |deadline| self.daemon.runtime().spawn(expire(line, number, deadline)).abort_handle();
        let expiry = deadline.map(give_up);
        let (loads, runs) = (loading.clone(), false);
        let waiting = Waiting { number, id, request, answer, touches, loading: loads, runs, holds, bytes, expiry };
        state.waiting.push(waiting);
        self.length.store(state.waiting.len(), Ordering::Release);
        drop(state);
        for place in loading {
            // It keeps the line: what was read is carried out, whether or not its client still listens.
            let (line, loaded) = (Arc::clone(self), place.clone());
            self.daemon.loader().load(&place, Box::new(move || line.loaded(&loaded)));
        }
        self.advance();
    }

    fn loaded(self: &Arc<Self>, place: &Place) {
        for waiting in &mut self.state.lock().waiting {
            waiting.loading.retain(|loading| loading != place);
        }
        self.advance();
    }

    /// Has everything carried out that need not wait any more.
    fn advance(self: &Arc<Self>) {
        let mut state = self.state.lock();
        let mut before = HashSet::new();
        let mut ready = Vec::new();
        for (at, waiting) in state.waiting.iter().enumerate() {
            let is_free = match &waiting.touches {
                Touches::Nothing => true,
                Touches::Everything => at == 0,
                Touches::Places(places) => !places.iter().any(|place| before.contains(place)),
            };
            if is_free && !waiting.runs && waiting.loading.is_empty() {
                ready.push(at);
            }
            if let Touches::Places(places) = &waiting.touches {
                before.extend(places);
            }
        }
        let mut numbers = Vec::with_capacity(ready.len());
        for at in ready {
            state.waiting[at].runs = true;
            numbers.push(state.waiting[at].number);
        }
        drop(state);
        for number in numbers {
            let line = Arc::clone(self);
            self.daemon.helpers().run(move || line.run(number));
        }
    }

    /// On a helper's thread: carries one out.
    fn run(self: &Arc<Self>, number: u64) {
        // It stays in the line until it is answered, so that nothing that touches the same passes it.
        let mut state = self.state.lock();
        let Some(waiting) = state.waiting.iter_mut().find(|waiting| waiting.number == number) else { return };
        let Some(answer) = waiting.answer.take() else { return };
        let request = AsideRequest { body: std::mem::take(&mut waiting.request.body), ..waiting.request };
        drop(state);
        let outcome = carry_out(&self.daemon, answer.id(), &request);
        outcome.give(&self.daemon, answer, &request);
        let mut state = self.state.lock();
        if let Some(at) = state.waiting.iter().position(|waiting| waiting.number == number) {
            self.remove(&mut state, at);
        }
        drop(state);
        self.outbox.tell();
        self.advance();
    }

    fn remove(&self, state: &mut State, at: usize) -> Waiting {
        let waiting = state.waiting.remove(at);
        waiting.expiry.iter().for_each(AbortHandle::abort);
        state.bytes -= waiting.bytes;
        if waiting.holds {
            self.holding.store(false, Ordering::Release);
        }
        self.length.store(state.waiting.len(), Ordering::Release);
        self.daemon.waiting_requests().give_back(waiting.bytes);
        waiting
    }

    /// Takes a request that has not begun out of the line, and answers it with this.
    fn give_up(self: &Arc<Self>, which: impl Fn(&Waiting) -> bool, fault: impl FnOnce(&Waiting) -> Fault) -> bool {
        let mut state = self.state.lock();
        let Some(at) = state.waiting.iter().position(|waiting| !waiting.runs && which(waiting)) else { return false };
        self.answering.fetch_add(1, Ordering::Release);
        let waiting = self.remove(&mut state, at);
        drop(state);
        let fault = fault(&waiting);
        if let Some(answer) = waiting.answer {
            answer.give(&Answer::Fault(fault));
        }
        self.answering.fetch_sub(1, Ordering::Release);
        self.outbox.tell();
        self.advance();
        true
    }

    /// The client no longer wants request `id`. False if it does not wait here.
    pub(super) fn cancel(self: &Arc<Self>, id: u64) -> bool {
        !self.is_empty() && self.give_up(|waiting| waiting.id == id, |_| Fault::Cancelled)
    }

    fn expired(self: &Arc<Self>, number: u64) {
        let fault = |waiting: &Waiting| {
            let waited = waiting.request.read_at.elapsed();
            match waiting.loading.first() {
                Some(place) => loading(place, self.daemon.store().load_progress(place)),
                None => timed_out(waited, "the requests sent before it"),
            }
        };
        self.give_up(|waiting| waiting.number == number, fault);
    }
}

async fn expire(line: Weak<Line>, number: u64, deadline: Instant) {
    tokio::time::sleep_until(deadline.into()).await;
    if let Some(line) = line.upgrade() {
        line.expired(number);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // Whoever has not begun is not carried out: the session has ended.
        let state = self.state.get_mut();
        state.waiting.iter().filter_map(|waiting| waiting.expiry.as_ref()).for_each(AbortHandle::abort);
        self.daemon.waiting_requests().give_back(state.bytes);
    }
}
