//! A session's line: requests that cannot be served where they were read, in the order in which they take effect.
//!
//! A request stands in line when a namespace that it names is being loaded, when it must see the effects of one that stands
//! there, or when it may take long and its session shares a thread with others. It is carried out by a helper as soon
//! as its namespaces are in memory and nobody before it has to be waited for.
//!
//! **Who waits for whom.** Requests of one session take effect in the order sent wherever that can be seen, and a load
//! holds up only what has to do with it ([`Touches`]):
//!
//! - One that names a namespace waits for those before it that name the same one.
//! - One that *gives back* (a lock, slots, an election) waits for all before it, which may have been meant to be done while
//!   it was held. So do those that are about everything sent before them: a commit, a flush of all, a listing of namespaces.
//! - Nothing that changes anything passes one that gives back, whatever namespace it names: who sees the change may
//!   count on what was given back before it. Only what looks at records does, and what tells how the daemon is just now.
//!   Those that stand behind it for that are done one after the other, and what changes anything and comes later behind them.
//! - One that *asks for* something that sessions hold, or lists who holds it, also waits for those before it that do the
//!   same, and for writes that depend on a lock. It holds up others no longer than until it has begun: then it waits
//!   elsewhere, perhaps for ever, and those that are to end its waiting are not behind it.
//!
//! A listing of namespaces or flags that waits may show what was sent after it and passed it.
//!
//! So each waits for earlier ones only, and whatever is in line is carried out when its loads have ended. Nothing passes
//! one that merely takes long: its session waits until it has taken effect, as one with a thread of its own does.
//!
//! What gives something back is neither refused when its time is over nor taken back by a cancel, wherever it waits: its
//! client counts on it, and nobody else could give that back while the session lives.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::task::AbortHandle;

use crate::engine::Fence;
use crate::proto::limits::MAX_IN_FLIGHT_BYTES;
use crate::proto::{Answer, Fault, Place};

use super::Daemon;
use super::aside::carry_out;
use super::coordination::Stay;
use super::fault::{loading, timed_out};
use super::inbox::Body;
use super::late::LateAnswer;
use super::order::{Order, Touches};
use super::outbox::Outbox;

/// What a request in line takes beside its frame and the names in it: its place, the promise of its answer, its deadline's
/// task.
const WAITING_BYTES: usize = 512;

/// So many that have become free are carried out in a row, before other sessions' helpers have their turn.
const IN_A_ROW: usize = 64;

/// Who waits.
pub(super) struct Line {
    daemon: Arc<Daemon>,
    /// Of the session, which is told when somebody has left.
    outbox: Arc<Outbox>,
    /// What is carried out here is done before the session gives back what it holds.
    _stay: Arc<Stay>,
    state: Mutex<State>,
    /// Read without the lock: a session whose line is empty looks at nothing else.
    length: AtomicUsize,
    /// One of them holds up all of its session.
    holding: AtomicBool,
}

#[derive(Default)]
struct State {
    /// By number.
    waiting: BTreeMap<u64, Waiting>,
    order: Order,
    /// Namespaces whose load will be told.
    loads: HashSet<Place>,
    /// By the client's ids.
    ids: HashMap<u64, u64>,
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
    /// It gives something back, and is carried out whatever comes.
    pub(super) gives_back: bool,
}

/// A request that stands in line.
#[expect(clippy::struct_excessive_bools, reason = "each says something else of it, and most go together")]
struct Waiting {
    id: u64,
    request: AsideRequest,
    /// None while it runs.
    answer: Option<LateAnswer>,
    touches: Touches,
    /// Its namespaces that are not in memory yet.
    loading: Vec<Place>,
    /// A helper was asked to carry it out.
    runs: bool,
    /// Its client no longer wants it, and said so when a helper was asked already.
    cancelled: bool,
    /// Nothing of its session is served before it has taken effect.
    holds: bool,
    /// It is not given up.
    gives_back: bool,
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
    /// Its session's.
    pub(super) fence: Fence,
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
    pub(super) fn new(daemon: Arc<Daemon>, outbox: Arc<Outbox>, stay: Arc<Stay>) -> Arc<Self> {
        let (length, holding) = (AtomicUsize::new(0), AtomicBool::new(false));
        Arc::new(Self { daemon, outbox, _stay: stay, state: Mutex::default(), length, holding })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length.load(Ordering::Acquire) == 0
    }

    /// Whether its session may go on: nothing in it holds up the others, and there is room for more.
    pub(super) fn may_go_on(&self) -> bool {
        self.is_empty() || !self.holding.load(Ordering::Acquire) && self.state.lock().bytes < MAX_IN_FLIGHT_BYTES
    }

    /// Whether a request that touches this must wait for one in the line.
    pub(super) fn is_before(&self, touches: &Touches) -> bool {
        !self.is_empty() && !self.state.lock().order.lets_pass(touches)
    }

    /// Puts a request at the end of the line.
    pub(super) fn stand(self: &Arc<Self>, request: AsideRequest, answer: LateAnswer, standing: Standing) {
        let Standing { touches, loading, holds, gives_back } = standing;
        let deadline = request.deadline().filter(|_| !gives_back);
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
        let loads: Vec<Place> = loading.iter().filter(|place| state.loads.insert((*place).clone())).cloned().collect();
        let (runs, cancelled) = (false, false);
        state.add(
            number,
            Waiting { id, request, answer, touches, loading, runs, cancelled, holds, gives_back, bytes, expiry },
        );
        self.length.store(state.waiting.len(), Ordering::Release);
        let is_free = state.begin(number);
        drop(state);
        for place in loads {
            // It keeps the line: what was read is carried out, whether or not its client still listens.
            let (line, loaded) = (Arc::clone(self), place.clone());
            self.daemon.loader().load(&place, Box::new(move || line.loaded(&loaded)));
        }
        if is_free {
            self.have_run(number);
        }
    }

    fn loaded(self: &Arc<Self>, place: &Place) {
        let mut state = self.state.lock();
        state.loads.remove(place);
        let those: Vec<u64> = state.order.of_place(place).collect();
        for number in &those {
            if let Some(waiting) = state.waiting.get_mut(number) {
                waiting.loading.retain(|loading| loading != place);
            }
        }
        // Those behind the first wait for it, loaded or not.
        let is_free = those.first().copied().filter(|number| state.begin(*number));
        drop(state);
        if let Some(number) = is_free {
            self.have_run(number);
        }
    }

    fn have_run(self: &Arc<Self>, number: u64) {
        let line = Arc::clone(self);
        self.daemon.helpers().run(move || line.run(number));
    }

    /// On a helper's thread: carries one out, and some of those that waited for it.
    fn run(self: &Arc<Self>, number: u64) {
        let mut free = vec![number];
        for _ in 0..IN_A_ROW {
            let Some(number) = free.pop() else { return };
            free.extend(self.run_one(number));
            // One goes on here; others need not wait for it.
            for other in free.drain(..free.len().saturating_sub(1)) {
                self.have_run(other);
            }
        }
        for number in free {
            self.have_run(number);
        }
    }

    /// Carries one out. Answers which of the others are free now, and begun.
    fn run_one(self: &Arc<Self>, number: u64) -> Vec<u64> {
        // It stays in the line until it is answered, so that nothing that touches the same passes it.
        let mut state = self.state.lock();
        let Some(waiting) = state.waiting.get_mut(&number) else { return Vec::new() };
        let Some(answer) = waiting.answer.take() else { return Vec::new() };
        let (id, cancelled) = (waiting.id, waiting.cancelled);
        let AsideRequest { deadline_ms, read_at, counts, ref fence, .. } = waiting.request;
        let (fence, body) = (fence.clone(), std::mem::take(&mut waiting.request.body));
        let request = AsideRequest { body, deadline_ms, read_at, counts, fence };
        drop(state);
        if cancelled {
            answer.give(&Answer::Fault(Fault::Cancelled));
        } else {
            let outcome = carry_out(&self.daemon, &self.outbox, id, &request);
            outcome.give(&self.daemon, answer, &request);
        }
        let mut state = self.state.lock();
        let (waiting, free) = self.remove(&mut state, number);
        drop(state);
        if waiting.is_some_and(|waiting| waiting.cancelled) {
            // It may have begun to wait for other sessions since its cancel was looked for there.
            self.daemon.cancel_wait(&self.outbox, id);
        }
        self.outbox.tell();
        free
    }

    /// Takes it out, and begins those that need not wait any more.
    fn remove(&self, state: &mut State, number: u64) -> (Option<Waiting>, Vec<u64>) {
        let Some((waiting, free)) = state.remove(number) else { return (None, Vec::new()) };
        waiting.expiry.iter().for_each(AbortHandle::abort);
        if waiting.holds {
            self.holding.store(false, Ordering::Release);
        }
        self.length.store(state.waiting.len(), Ordering::Release);
        self.daemon.waiting_requests().give_back(waiting.bytes);
        (Some(waiting), free)
    }

    /// Takes a request that has not begun out of the line, and answers it with this; but not one that gives something back.
    fn give_up(
        self: &Arc<Self>,
        number: impl FnOnce(&State) -> Option<u64>,
        fault: impl FnOnce(&Waiting) -> Fault,
    ) -> bool {
        let mut state = self.state.lock();
        let may_go =
            |number: &u64| state.waiting.get(number).is_some_and(|waiting| !waiting.runs && !waiting.gives_back);
        let number = number(&state).filter(may_go);
        let Some(number) = number else { return false };
        let (waiting, free) = self.remove(&mut state, number);
        drop(state);
        if let Some(waiting) = waiting {
            let fault = fault(&waiting);
            if let Some(answer) = waiting.answer {
                answer.give(&Answer::Fault(fault));
            }
        }
        self.outbox.tell();
        for number in free {
            self.have_run(number);
        }
        true
    }

    /// The client no longer wants request `id`. False if it does not wait here.
    pub(super) fn cancel(self: &Arc<Self>, id: u64) -> bool {
        if self.is_empty() {
            return false;
        }
        let mut state = self.state.lock();
        let State { waiting, ids, .. } = &mut *state;
        if let Some(waiting) = ids.get(&id).and_then(|number| waiting.get_mut(number))
            && !waiting.gives_back
        {
            waiting.cancelled = true;
        }
        drop(state);
        self.give_up(|state| state.ids.get(&id).copied(), |_| Fault::Cancelled)
    }

    fn expired(self: &Arc<Self>, number: u64) {
        let fault = |waiting: &Waiting| {
            let waited = waiting.request.read_at.elapsed();
            match waiting.loading.first() {
                Some(place) => loading(place, self.daemon.store().load_progress(place)),
                None => timed_out(waited, "the requests sent before it"),
            }
        };
        self.give_up(|_| Some(number), fault);
    }
}

impl State {
    fn add(&mut self, number: u64, waiting: Waiting) {
        self.order.add(number, &waiting.touches);
        self.ids.insert(waiting.id, number);
        self.waiting.insert(number, waiting);
    }

    /// Whether a request need not wait any more and nobody was asked to carry it out: whoever asks does so now.
    fn begin(&mut self, number: u64) -> bool {
        let Some(waiting) = self.waiting.get_mut(&number) else { return false };
        let is_free = self.order.is_free(number, &waiting.touches);
        let begins = is_free && !waiting.runs && waiting.loading.is_empty();
        waiting.runs |= begins;
        begins
    }

    /// Takes one out, and begins those that it alone held up.
    fn remove(&mut self, number: u64) -> Option<(Waiting, Vec<u64>)> {
        let waiting = self.waiting.remove(&number)?;
        self.bytes -= waiting.bytes;
        if self.ids.get(&waiting.id) == Some(&number) {
            self.ids.remove(&waiting.id);
        }
        let mut next = self.order.remove(number, &waiting.touches);
        next.retain(|number| self.begin(*number));
        Some((waiting, next))
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
        state.waiting.values().filter_map(|waiting| waiting.expiry.as_ref()).for_each(AbortHandle::abort);
        self.daemon.waiting_requests().give_back(state.bytes);
    }
}
