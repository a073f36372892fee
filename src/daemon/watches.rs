//! Watches: answers in parts without end, made as the client takes them.
//!
//! ```text
//!   write ── bell ── watches of the namespace ── lines of their sessions ── a thread that is free ── outbox
//!                                                        ▲ the client has taken what waited for it
//! ```
//!
//! The watches of a session that have something to tell, or that have to see whether they have, stand in a [line](WatchLine). It is
//! served by whoever of a few threads is free, one at a time, for as long as there is something to tell and the client takes it.
//! Then it rests: until something is written, which the writers' bell tells, or until the client has taken what waits for it,
//! which its [`Outbox`] tells. So a watch that rests costs nothing, a client that does not read has one piece of answers made for it
//! and falls behind in the engine, not here, and a write costs each watch of its namespace a look, and no other.
//!
//! The writer's part is one call of the bell, after its turn, however many watch. A watch is not among the answers that a session
//! owes: it holds up neither the session's other requests nor its end.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;

use crate::engine::{Store, Watch};
use crate::proto::limits::MAX_HOLDINGS;
use crate::proto::names::check_key;
use crate::proto::{Answer, Fault, Seq, Space};

use super::helpers::Helpers;
use super::late::LateAnswer;
use super::outbox::Outbox;
use super::tables::Tables;
use super::watch_flow::{Flow, Piece};
use super::watch_line::WatchLine;

/// So many pieces are made for one session before others get their turn.
const PIECES_IN_A_ROW: usize = 8;
/// Most threads that serve watches.
const THREADS: usize = 2;

/// All watches of a daemon.
pub(super) struct Watches {
    store: Weak<Store>,
    state: Mutex<State>,
    helpers: Arc<Helpers>,
    /// Somebody is about to hear what there is of news: to ring again changes nothing.
    rung: AtomicBool,
    /// How often a watch was asked what there is to tell.
    looks: AtomicU64,
}

#[derive(Default)]
struct State {
    sessions: HashMap<u64, Watching>,
    /// By the engine's channel; then by session and request.
    listening: HashMap<u64, HashMap<(u64, u64), Arc<Watcher>>>,
    closed: bool,
}

/// A session that watches.
struct Watching {
    queue: Arc<Queue>,
    /// By request.
    watchers: HashMap<u64, Arc<Watcher>>,
}

/// Where the watches of one session stand in line.
struct Queue {
    outbox: Arc<Outbox>,
    line: WatchLine<Arc<Watcher>>,
}

struct Watcher {
    /// Weakly: it stands in it.
    queue: Weak<Queue>,
    session: u64,
    id: u64,
    channel: u64,
    /// It stands in line.
    called: AtomicBool,
    cancelled: AtomicBool,
    /// None once it is over.
    flow: Mutex<Option<Flow>>,
}

/// How much there is of watches.
pub(super) struct Counts {
    pub(super) watches: usize,
    pub(super) sessions: usize,
    pub(super) most_of_one_session: usize,
    pub(super) namespaces: usize,
    /// How often one was looked at since the start.
    pub(super) looks: u64,
}

/// Begins to watch; the answer says from where on.
pub(super) fn begin(
    store: &Arc<Store>,
    tables: &mut Tables,
    space: &Space<'_>,
    prefix: &str,
    after: Option<Seq>,
) -> Result<Watch, Fault> {
    check_key(prefix)?;
    let table = tables.get(space)?.clone();
    tables.let_go();
    store.watch(&table, prefix, after).map_err(|error| Fault::from(&error))
}

impl Watches {
    /// Serves nobody yet; it is told of what is written to `store`.
    pub(super) fn start(store: &Arc<Store>) -> io::Result<Arc<Self>> {
        let (state, helpers) = (Mutex::default(), Helpers::start("watch", THREADS)?);
        // Weakly, or each would keep the other.
        let (store_of, rung, looks) = (Arc::downgrade(store), AtomicBool::new(false), AtomicU64::new(0));
        let watches = Arc::new(Self { store: store_of, state, helpers, rung, looks });
        let told: Weak<Self> = Arc::downgrade(&watches);
        store.ring_by(move || {
            if let Some(watches) = told.upgrade()
                && !watches.rung.swap(true, Ordering::SeqCst)
            {
                let ringing = Arc::clone(&watches);
                watches.helpers.run(move || ringing.hear());
            }
        });
        Ok(watches)
    }

    /// Serves a watch that has begun, or says why it has not.
    pub(super) fn add(self: &Arc<Self>, answer: LateAnswer, begun: Result<Watch, Fault>) {
        let watch = match begun {
            Ok(watch) => watch,
            Err(fault) => return answer.give(&Answer::Fault(fault)),
        };
        let (session, id) = (answer.session(), answer.id());
        let mut state = self.state.lock();
        if state.closed {
            return drop((state, answer));
        }
        let of_session = state.sessions.get(&session).map(|watching| &watching.watchers);
        if of_session.is_some_and(|watchers| watchers.len() >= MAX_HOLDINGS) {
            drop(state);
            let (what, limit) = ("watches of one session".to_owned(), MAX_HOLDINGS as u64);
            return answer.give(&Answer::Fault(Fault::TooLarge { what, got: limit + 1, limit }));
        }
        if of_session.is_some_and(|watchers| watchers.contains_key(&id)) {
            drop(state);
            let reason = format!("request {id} is a watch that goes on, so no other request can have its number");
            return answer.give(&Answer::Fault(Fault::Malformed { reason }));
        }
        let channel = watch.channel();
        let outbox = answer.go_on_in_parts();
        outbox.watched_by(self);
        let watching = state.sessions.entry(session).or_insert_with(|| Watching {
            queue: Arc::new(Queue { outbox, line: WatchLine::default() }),
            watchers: HashMap::new(),
        });
        let watcher = Arc::new(Watcher {
            queue: Arc::downgrade(&watching.queue),
            session,
            id,
            channel,
            called: AtomicBool::new(false),
            cancelled: AtomicBool::new(false),
            flow: Mutex::new(Some(Flow::new(id, watch))),
        });
        watching.watchers.insert(id, Arc::clone(&watcher));
        state.listening.entry(channel).or_default().insert((session, id), Arc::clone(&watcher));
        drop(state);
        self.call(&watcher);
    }

    /// The client wants no more of it. False if there is no such watch.
    pub(super) fn cancel(self: &Arc<Self>, session: u64, id: u64) -> bool {
        let watcher = self.state.lock().sessions.get(&session).and_then(|of| of.watchers.get(&id).cloned());
        watcher.is_some_and(|watcher| {
            watcher.cancelled.store(true, Ordering::Relaxed);
            self.call(&watcher);
            true
        })
    }

    /// Whether a session has any.
    pub(super) fn are_of(&self, session: u64) -> bool {
        self.state.lock().sessions.contains_key(&session)
    }

    /// How many there are, and what they have cost.
    pub(super) fn counts(&self) -> Counts {
        let state = self.state.lock();
        let of_each = || state.sessions.values().map(|watching| watching.watchers.len());
        Counts {
            watches: of_each().sum(),
            sessions: state.sessions.len(),
            most_of_one_session: of_each().max().unwrap_or(0),
            namespaces: state.listening.len(),
            looks: self.looks.load(Ordering::Relaxed),
        }
    }

    /// The session has ended: its watches do.
    pub(super) fn session_ended(&self, session: u64) {
        let mut state = self.state.lock();
        let ended = state.sessions.remove(&session);
        for watcher in ended.iter().flat_map(|watching| watching.watchers.values()) {
            state.forget_listener(watcher);
        }
        drop(state);
        // Not under the lock: each lets go of what it holds of the store.
        drop(ended);
    }

    /// The outbox of `session` has become empty. Called with its locks held: all else is done elsewhere.
    pub(super) fn has_drained(self: &Arc<Self>, session: u64) {
        let watches = Arc::clone(self);
        self.helpers.run(move || {
            let queue = watches.state.lock().sessions.get(&session).map(|watching| Arc::clone(&watching.queue));
            if let Some(queue) = queue.filter(|queue| queue.line.is_called()) {
                watches.serve(&queue);
            }
        });
    }

    /// No more is told; what is being made is waited for until the deadline. False if some is still being made then.
    pub(super) fn close(&self, deadline: Instant) -> bool {
        let all = std::mem::replace(&mut *self.state.lock(), State { closed: true, ..State::default() });
        drop(all);
        self.helpers.close(deadline)
    }

    /// Something was written: calls those who listen.
    fn hear(self: &Arc<Self>) {
        // Before it is looked: what comes after that rings again.
        self.rung.store(false, Ordering::SeqCst);
        let Some(store) = self.store.upgrade() else { return };
        for channel in store.news() {
            let listening: Vec<_> =
                self.state.lock().listening.get(&channel).into_iter().flat_map(HashMap::values).cloned().collect();
            for watcher in &listening {
                self.call(watcher);
            }
        }
    }

    /// Has it stand in line, unless it does.
    fn call(self: &Arc<Self>, watcher: &Arc<Watcher>) {
        if let Some(queue) = watcher.queue.upgrade()
            && !watcher.called.swap(true, Ordering::SeqCst)
            && queue.line.join(Arc::clone(watcher))
        {
            let watches = Arc::clone(self);
            self.helpers.run(move || watches.serve(&queue));
        }
    }

    /// Tells what there is to tell to one client, as long as it takes it.
    fn serve(self: &Arc<Self>, queue: &Arc<Queue>) {
        for _ in 0..PIECES_IN_A_ROW {
            if queue.outbox.is_closed() {
                return self.session_ended(queue.outbox.session);
            }
            if !queue.outbox.is_drained_or_will_tell() {
                if queue.line.rests() {
                    return;
                }
                continue;
            }
            let piece = self.make_piece(queue);
            if !piece.bytes.is_empty() {
                queue.outbox.post_part(piece.bytes);
            } else if queue.line.is_done() {
                return;
            }
        }
        let (watches, queue) = (Arc::clone(self), Arc::clone(queue));
        self.helpers.run(move || watches.serve(&queue));
    }

    /// Parts of one watch or of several, together about as long as one.
    fn make_piece(&self, queue: &Queue) -> Piece {
        let mut piece = Piece::default();
        while !piece.is_enough()
            && let Some(watcher) = queue.line.next()
        {
            let mut guard = watcher.flow.lock();
            // Whoever calls from here on has it stand in line once more.
            watcher.called.store(false, Ordering::SeqCst);
            let Some(flow) = guard.as_mut() else { continue };
            let goes_on = if watcher.cancelled.load(Ordering::Relaxed) {
                flow.end(&mut piece, Fault::Cancelled);
                false
            } else {
                flow.tell(&mut piece)
            };
            let over = if goes_on { None } else { guard.take() };
            drop(guard);
            if over.is_some() {
                self.end(&watcher);
            } else if piece.is_enough() && !watcher.called.swap(true, Ordering::SeqCst) {
                // There may be more to tell, but others come first.
                queue.line.join(watcher);
            }
        }
        self.looks.fetch_add(piece.looks as u64, Ordering::Relaxed);
        piece
    }

    fn end(&self, watcher: &Watcher) {
        let mut state = self.state.lock();
        state.forget_listener(watcher);
        if let Some(watching) = state.sessions.get_mut(&watcher.session) {
            watching.watchers.remove(&watcher.id);
            if watching.watchers.is_empty() {
                state.sessions.remove(&watcher.session);
            }
        }
    }
}

impl State {
    fn forget_listener(&mut self, watcher: &Watcher) {
        if let Some(listening) = self.listening.get_mut(&watcher.channel) {
            listening.remove(&(watcher.session, watcher.id));
            if listening.is_empty() {
                self.listening.remove(&watcher.channel);
            }
        }
    }
}
