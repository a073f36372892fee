//! Flushes: namespaces are rewritten side by side, each by one thread at a time, and whoever waits for the same one
//! shares its rewrite.
//!
//! A few workers, started when there is work, do all I/O. One that finds a namespace's flush lock held by an outside
//! reader leaves the group and goes on waiting by itself, so that a reader who keeps a file for long holds up the flush
//! of that file alone.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::engine::{self, FlushHow, Store};
use crate::proto::{Fault, Kind, Place, Seq};

use super::crew::Crew;
use super::fault::{flush_failed, flush_lock_timeout, reason_of, timed_out, with_causes};
use super::syncer::{Commit, Syncer};

/// Most namespaces that are rewritten at the same time: beyond this a disk only seeks more.
const WORKERS: usize = 4;

/// How long a worker waits for a flush lock before it looks again whether the daemon is stopping, whether somebody's
/// patience is over, and whether others have come who can share the rewrite.
const LOCK_SLICE: Duration = Duration::from_millis(200);

/// How long the end waits for rewrites that nobody asked for any more.
const LAST_REWRITES: Duration = Duration::from_mins(1);

/// How long it is until flushes for the journal's sake are tried again after some have failed.
const RELIEF_AGAIN: Duration = Duration::from_secs(10);

/// The stack of a worker, which writes whole files.
const WORKER_STACK_BYTES: usize = 2 * 1024 * 1024;

/// What a flush has done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Done {
    /// How many files were rewritten.
    pub(super) rewritten: u32,
    /// The files hold everything up to here.
    pub(super) seq: Seq,
}

/// Called once with what became of a flush, on a flusher's thread: it must not wait.
pub(super) type Waiter = Box<dyn FnOnce(Result<Done, Fault>) + Send>;

/// How a flush is wanted.
#[derive(Clone)]
pub(super) struct Wish {
    /// Rewrite even what is up to date.
    pub(super) rewrite: bool,
    /// When it was asked for.
    pub(super) since: Instant,
    /// When the client no longer wants it to be begun.
    pub(super) deadline: Option<Instant>,
    /// Set when the client no longer wants it at all.
    pub(super) cancelled: Option<Arc<AtomicBool>>,
}

impl Wish {
    fn is_cancelled(&self) -> bool {
        self.cancelled.as_ref().is_some_and(|cancelled| cancelled.load(Ordering::Relaxed))
    }
}

/// Rewrites namespaces, and tells whoever waits.
pub(super) struct Flusher {
    store: Arc<Store>,
    syncer: Arc<Syncer>,
    lock_timeout: Duration,
    stopping: AtomicBool,
    state: Mutex<State>,
    /// All threads: the workers, and those that wait for a lock by themselves.
    crew: Crew,
    relief: Mutex<Relief>,
}

/// The flushes that the daemon does by itself because the journal has outgrown its limit.
#[derive(Default)]
struct Relief {
    running: bool,
    /// Not before, because the last ones failed.
    not_before: Option<Instant>,
    /// Files that were rewritten so.
    files: u64,
}

#[derive(Default)]
struct State {
    /// Namespaces that are being rewritten or wait for a worker, and who waits for the next rewrite of each.
    lines: HashMap<Place, Vec<Ask>>,
    /// Those that wait for a worker.
    ready: VecDeque<Place>,
    /// Threads that take what is ready.
    workers: usize,
}

struct Ask {
    wish: Wish,
    /// What was applied when it was asked for: all of it must be on the platter too, in whatever namespace.
    applied: Seq,
    waiter: Waiter,
}

impl Flusher {
    pub(super) fn new(store: Arc<Store>, syncer: Arc<Syncer>, lock_timeout: Duration) -> Arc<Self> {
        Arc::new(Self {
            store,
            syncer,
            lock_timeout,
            stopping: AtomicBool::new(false),
            state: Mutex::default(),
            crew: Crew::default(),
            relief: Mutex::default(),
        })
    }

    /// Flushes one namespace, or all that need it, and calls `waiter` when that is done or has failed.
    pub(super) fn flush(self: &Arc<Self>, place: Option<Place>, wish: Wish, waiter: Waiter) {
        match place {
            Some(place) => self.flush_one(place, wish, waiter),
            None => self.flush_all(wish, waiter),
        }
    }

    fn flush_one(self: &Arc<Self>, place: Place, wish: Wish, waiter: Waiter) {
        let ask = Ask { wish, applied: self.store.applied(), waiter };
        let mut state = self.state.lock();
        if let Some(line) = state.lines.get_mut(&place) {
            // A rewrite that runs is too old for this one; those who wait share the next.
            return line.push(ask);
        }
        state.lines.insert(place.clone(), vec![ask]);
        state.ready.push_back(place);
        if state.workers < WORKERS {
            self.add_worker(&mut state);
        }
        if state.workers > 0 {
            return;
        }
        // Out of threads, and nobody is there who could do it later: better refused than forgotten.
        let place = state.ready.pop_back();
        let asks = place.and_then(|place| state.lines.remove(&place)).unwrap_or_default();
        drop(state);
        for ask in asks {
            (ask.waiter)(Err(Fault::Unavailable { reason: "no thread could be started for the flush".to_owned() }));
        }
    }

    fn flush_all(self: &Arc<Self>, wish: Wish, waiter: Waiter) {
        let applied = self.store.applied();
        let places = match self.places(wish.rewrite) {
            Ok(places) => places,
            Err(error) => return waiter(Err(Fault::from(&error))),
        };
        self.store.clear_flags_of_clean();
        if places.is_empty() {
            let done = move |synced: Result<Seq, Fault>| waiter(synced.map(|_| Done { rewritten: 0, seq: applied }));
            let Wish { since, deadline, cancelled, .. } = wish;
            return self.syncer.commit(Commit { seq: applied, since, deadline, cancelled, waiter: Box::new(done) });
        }
        // At the end nobody waits for a lock: there it is not the time that was too short.
        let at_the_end = self.stopping.load(Ordering::Relaxed);
        let gather = Gather::new(places.len(), applied, at_the_end, waiter);
        for place in places {
            let gather = Arc::clone(&gather);
            let name = place.to_string();
            self.flush_one(place, wish.clone(), Box::new(move |outcome| gather.take(name, outcome)));
        }
    }

    /// Flushes what pins the oldest segments of a journal that has outgrown its limit, once at a time.
    pub(super) fn relieve_journal(self: &Arc<Self>) {
        let mut relief = self.relief.lock();
        if relief.running {
            return;
        }
        let is_too_soon = relief.not_before.is_some_and(|time| Instant::now() < time);
        let places = if is_too_soon { Vec::new() } else { self.store.to_relieve_the_journal() };
        if places.is_empty() {
            // Writers are not to wait for what nobody does.
            return self.store.journal_is_relieved();
        }
        relief.running = true;
        drop(relief);
        self.store.journal_is_being_relieved();
        let names: Vec<_> = places.iter().take(MOST_NAMED).map(Place::to_string).collect();
        let limit = self.store.journal_limit();
        tracing::info!(limit, namespaces = names.join(", "), "the journal has outgrown its limit: flushing");
        let flusher = Arc::clone(self);
        let done = move |outcome: Result<Done, Fault>| {
            let mut relief = flusher.relief.lock();
            relief.running = false;
            relief.not_before = outcome.is_err().then(|| Instant::now() + RELIEF_AGAIN);
            let rewritten = outcome.as_ref().map_or(0, |done| u64::from(done.rewritten));
            relief.files += rewritten;
            drop(relief);
            if rewritten > 0 || outcome.is_err() {
                // The segments that were waited for can go, and perhaps it is not enough yet. Where nothing was done, a
                // second is soon enough.
                flusher.store.wake();
            }
        };
        let wish = Wish { rewrite: false, since: Instant::now(), deadline: None, cancelled: None };
        let gather = Gather::new(places.len(), self.store.applied(), false, Box::new(done));
        for place in places {
            let (gather, name) = (Arc::clone(&gather), place.to_string());
            self.flush_one(place, wish.clone(), Box::new(move |outcome| gather.take(name, outcome)));
        }
    }

    /// How many files were rewritten because the journal had outgrown its limit.
    pub(super) fn relief_files(&self) -> u64 {
        self.relief.lock().files
    }

    /// What `flush` of everything means: what is dirty or no longer has its file as it was left, or with `rewrite` whatever has records or a file.
    fn places(&self, rewrite: bool) -> Result<Vec<Place>, engine::Error> {
        if !rewrite {
            return Ok(self.store.to_flush());
        }
        let known = self.store.namespaces()?;
        Ok(known
            .iter()
            .filter(|info| info.kind == Kind::Persistent)
            .filter_map(|info| Place::new(&info.workspace, &info.namespace).ok())
            .collect())
    }

    /// Somebody no longer wants what they asked for: those who wait in line for a rewrite are looked through at once. One
    /// who waits for a lock looks by itself.
    pub(super) fn look_again(&self) {
        let mut unwanted = Vec::new();
        for line in self.state.lock().lines.values_mut() {
            unwanted.extend(take_if(line, |ask| ask.wish.is_cancelled()));
        }
        for ask in unwanted {
            (ask.waiter)(Err(Fault::Cancelled));
        }
    }

    /// From now on nobody waits for a flush lock: the daemon ends.
    pub(super) fn hurry(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Waits until all threads have ended; nothing may be asked any more.
    pub(super) fn wait_until_idle(&self) {
        if !self.crew.wait_until_empty(Instant::now() + LAST_REWRITES) {
            tracing::warn!("some files are still being rewritten and are left as they are");
        }
    }

    fn add_worker(self: &Arc<Self>, state: &mut State) {
        let flusher = Arc::clone(self);
        match self.crew.spawn("flush", WORKER_STACK_BYTES, move || flusher.work()) {
            Ok(()) => state.workers += 1,
            Err(error) => tracing::error!("cannot start a thread to flush: {error}"),
        }
    }

    fn work(self: Arc<Self>) {
        let mut in_group = true;
        while in_group {
            let mut state = self.state.lock();
            let Some(place) = state.ready.pop_front() else {
                state.workers -= 1;
                return;
            };
            let asks = state.lines.get_mut(&place).map(std::mem::take).unwrap_or_default();
            drop(state);
            self.serve(&place, asks, &mut in_group);
            let mut state = self.state.lock();
            if state.lines.get(&place).is_some_and(|next| !next.is_empty()) {
                state.ready.push_back(place);
                if !in_group && state.workers < WORKERS {
                    self.add_worker(&mut state);
                }
            } else {
                state.lines.remove(&place);
            }
        }
    }

    /// Rewrites one namespace for all who ask, however long its flush lock is held by others.
    fn serve(self: &Arc<Self>, place: &Place, mut asks: Vec<Ask>, in_group: &mut bool) {
        let now = Instant::now();
        for ask in take_if(&mut asks, |ask| ask.wish.deadline.is_some_and(|deadline| deadline < now)) {
            (ask.waiter)(Err(timed_out(now - ask.wish.since, "its turn to flush")));
        }
        let mut slice = Duration::ZERO;
        loop {
            // Nothing was cut yet, so who no longer wants it can still be let go.
            for ask in take_if(&mut asks, |ask| ask.wish.is_cancelled()) {
                (ask.waiter)(Err(Fault::Cancelled));
            }
            let Some(applied) = asks.iter().map(|ask| ask.applied).max() else { return };
            let how = FlushHow { rewrite: asks.iter().any(|ask| ask.wish.rewrite), lock_timeout: Some(slice) };
            let outcome = self.store.sync_through(applied).and_then(|_| self.store.flush(place, how));
            let Err(engine::Error::FlushLockTimeout { lock_file, .. }) = &outcome else {
                return self.answer_all(asks, place, outcome);
            };
            if *in_group {
                tracing::info!(%place, lock_file = %lock_file.display(), "another program holds the flush lock: waiting");
                self.leave_group();
                *in_group = false;
            }
            // Nothing was cut yet, so those who have come meanwhile can share this rewrite.
            asks.append(&mut self.state.lock().lines.get_mut(place).map(std::mem::take).unwrap_or_default());
            for ask in take_if(&mut asks, |ask| self.patience(ask).is_zero()) {
                let waited = ask.wish.since.elapsed();
                let fault = flush_lock_timeout(place.to_string(), lock_file, waited);
                self.store.flush_ended(place, Some(fault.to_string()));
                (ask.waiter)(Err(fault));
            }
            slice = asks.iter().map(|ask| self.patience(ask)).min().unwrap_or_default().min(LOCK_SLICE);
        }
    }

    fn answer_all(&self, asks: Vec<Ask>, place: &Place, outcome: Result<engine::Flushed, engine::Error>) {
        let outcome = outcome
            .map(|flushed| Done { rewritten: u32::from(flushed.rewritten), seq: flushed.cut })
            .inspect_err(|error| {
                // Only a name that was asked for wrongly, and whoever asked is told.
                if !matches!(error, engine::Error::Volatile { .. }) {
                    tracing::error!(%place, "flush failed: {}", with_causes(error));
                }
            })
            .map_err(|error| flush_failed(place, &error));
        match &outcome {
            Ok(_) => self.store.flush_ended(place, None),
            Err(Fault::FlushFailed { reason, .. }) => self.store.flush_ended(place, Some(reason.clone())),
            // Nothing was tried: there is no file, or `status` tells of it in another place.
            Err(_) => {}
        }
        for ask in asks {
            (ask.waiter)(outcome.clone());
        }
    }

    /// How much longer this one waits for a flush lock.
    fn patience(&self, ask: &Ask) -> Duration {
        if self.stopping.load(Ordering::Relaxed) {
            return Duration::ZERO;
        }
        let until = ask.wish.since + self.lock_timeout;
        let until = ask.wish.deadline.map_or(until, |deadline| deadline.min(until));
        until.saturating_duration_since(Instant::now())
    }

    fn leave_group(self: &Arc<Self>) {
        let mut state = self.state.lock();
        state.workers -= 1;
        if !state.ready.is_empty() {
            self.add_worker(&mut state);
        }
    }
}

fn take_if(asks: &mut Vec<Ask>, which: impl Fn(&Ask) -> bool) -> Vec<Ask> {
    asks.extract_if(.., |ask| which(ask)).collect()
}

/// The outcomes of several flushes on their way to one answer.
struct Gather {
    state: Mutex<Gathered>,
}

struct Gathered {
    missing: usize,
    done: Done,
    failed: Vec<String>,
    /// The first failure.
    reason: Option<Fault>,
    /// Nothing has failed but that the time was over.
    only_late: bool,
    waiter: Option<Waiter>,
}

/// Most namespaces that an answer names one by one.
const MOST_NAMED: usize = 100;

impl Gather {
    fn new(missing: usize, applied: Seq, at_the_end: bool, waiter: Waiter) -> Arc<Self> {
        let done = Done { rewritten: 0, seq: applied };
        let (failed, only_late) = (Vec::new(), !at_the_end);
        let state = Gathered { missing, done, failed, reason: None, only_late, waiter: Some(waiter) };
        Arc::new(Self { state: Mutex::new(state) })
    }

    fn take(&self, name: String, outcome: Result<Done, Fault>) {
        let mut state = self.state.lock();
        match outcome {
            Ok(done) => state.done.rewritten += done.rewritten,
            Err(fault) => {
                state.failed.push(name);
                state.only_late &= matches!(fault, Fault::FlushLockTimeout { .. } | Fault::TimedOut { .. });
                state.reason.get_or_insert(fault);
            }
        }
        state.missing -= 1;
        if state.missing > 0 {
            return;
        }
        let mut places = std::mem::take(&mut state.failed);
        places.sort_unstable();
        if places.len() > MOST_NAMED {
            let others = places.len() - MOST_NAMED;
            places.truncate(MOST_NAMED);
            places.push(format!("{others} more"));
        }
        let outcome = match state.reason.take() {
            None => Ok(state.done),
            // Some may have been rewritten before the client thought better of it, which does no harm.
            Some(Fault::Cancelled) => Err(Fault::Cancelled),
            // It means the same as for one namespace: try again when the other program is done.
            Some(Fault::FlushLockTimeout { lock_file, waited_ms, .. }) if state.only_late => {
                Err(Fault::FlushLockTimeout { place: places.join(", "), lock_file, waited_ms })
            }
            Some(late) if state.only_late => Err(late),
            Some(fault) => Err(Fault::FlushFailed { places, reason: reason_of(fault) }),
        };
        let waiter = state.waiter.take();
        drop(state);
        if let Some(waiter) = waiter {
            waiter(outcome);
        }
    }
}
