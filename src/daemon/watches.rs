//! Watches: answers in parts without end, made as the client takes them.
//!
//! A watch is served by whoever of a few threads is free, one at a time, for as long as there is something to tell and the
//! client takes it. Then it rests: until something is written to its namespace, which the writers' bell tells, or until the
//! client has taken what waits for it, which its [`Outbox`] tells. So a watch that rests costs nothing, and a client that does
//! not read has one part encoded for it and falls behind in the engine, not here.
//!
//! The writer's part is one call of the bell, after its turn, however many watch. A watch is not among the answers that a session
//! owes: it holds up neither the session's other requests nor its end.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;

use crate::engine::{Next, Store, TellChange, Told, Watch};
use crate::proto::codec::{encode_answer, encode_part};
use crate::proto::limits::{MAX_FRAME_BYTES, MAX_HOLDINGS};
use crate::proto::names::check_key;
use crate::proto::{Answer, Change, ChangeSet, Fault, Seq, Space};

use super::helpers::Helpers;
use super::late::LateAnswer;
use super::outbox::Outbox;
use super::tables::Tables;

/// A part is sent when it has about so many bytes, ...
const PART_BYTES: usize = 64 * 1024;
/// ... or so many writes.
const PART_WRITES: usize = 1_000;
/// What a change takes in a frame beside its key and value, at most.
const CHANGE_BYTES: usize = 24;
/// So many parts of one watch are made before others get their turn.
const PARTS_IN_A_ROW: usize = 8;
/// After so many looks at writes of which nothing is told, the client learns how far it is.
const QUIET_LOOKS: usize = 64;
/// Most threads that serve watches.
const THREADS: usize = 2;

/// All watches of a daemon.
pub(super) struct Watches {
    store: Weak<Store>,
    state: Mutex<State>,
    helpers: Arc<Helpers>,
    /// Somebody is about to hear what there is of news: to ring again changes nothing.
    rung: AtomicBool,
}

#[derive(Default)]
struct State {
    /// By session and request.
    watchers: HashMap<(u64, u64), Arc<Watcher>>,
    /// By the engine's channel.
    listening: HashMap<u64, Vec<Arc<Watcher>>>,
    /// The requests of each session.
    of_session: HashMap<u64, HashSet<u64>>,
    closed: bool,
}

struct Watcher {
    outbox: Arc<Outbox>,
    id: u64,
    channel: u64,
    /// It is queued, or about to look once more.
    called: AtomicBool,
    cancelled: AtomicBool,
    /// None once it is over.
    flow: Mutex<Option<Flow>>,
}

/// What is on its way to one client.
struct Flow {
    watch: Watch,
    /// Taken from the engine, and not told yet.
    told: VecDeque<Arc<Told>>,
    /// So many changes of the first of them are told.
    at: usize,
    /// Everything through this write is told.
    through: Seq,
    quiet: usize,
    /// The client knows from where on it is told.
    has_begun: bool,
}

/// What became of the attempt to make a part.
enum Made {
    Part,
    /// There is nothing to tell for now.
    Nothing,
    /// There may be more to tell, but others come first.
    NothingYet,
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
        let watches = Arc::new(Self { store: Arc::downgrade(store), state, helpers, rung: AtomicBool::new(false) });
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
        let (session, id, through) = (answer.session(), answer.id(), watch.through());
        let mut state = self.state.lock();
        if state.closed {
            return drop((state, answer));
        }
        let of_session = state.of_session.entry(session).or_default();
        if of_session.len() >= MAX_HOLDINGS {
            drop(state);
            let (what, limit) = ("watches of one session".to_owned(), MAX_HOLDINGS as u64);
            return answer.give(&Answer::Fault(Fault::TooLarge { what, got: limit + 1, limit }));
        }
        if !of_session.insert(id) {
            drop(state);
            let reason = format!("request {id} is a watch that goes on, so no other request can have its number");
            return answer.give(&Answer::Fault(Fault::Malformed { reason }));
        }
        let channel = watch.channel();
        let outbox = answer.go_on_in_parts();
        outbox.watched_by(self);
        let flow = Flow { watch, told: VecDeque::new(), at: 0, through, quiet: 0, has_begun: false };
        let watcher = Arc::new(Watcher {
            outbox,
            id,
            channel,
            called: AtomicBool::new(false),
            cancelled: AtomicBool::new(false),
            flow: Mutex::new(Some(flow)),
        });
        state.watchers.insert((session, id), Arc::clone(&watcher));
        state.listening.entry(channel).or_default().push(Arc::clone(&watcher));
        drop(state);
        self.call(&watcher);
    }

    /// The client wants no more of it. False if there is no such watch.
    pub(super) fn cancel(self: &Arc<Self>, session: u64, id: u64) -> bool {
        let watcher = self.state.lock().watchers.get(&(session, id)).cloned();
        watcher.is_some_and(|watcher| {
            watcher.cancelled.store(true, Ordering::Relaxed);
            self.call(&watcher);
            true
        })
    }

    /// Whether a session has any.
    pub(super) fn are_of(&self, session: u64) -> bool {
        self.state.lock().of_session.contains_key(&session)
    }

    /// The session has ended, or has taken what waited for it.
    pub(super) fn look_at(self: &Arc<Self>, session: u64) {
        let state = self.state.lock();
        let ids = state.of_session.get(&session).into_iter().flatten();
        let watchers: Vec<_> = ids.filter_map(|id| state.watchers.get(&(session, *id)).cloned()).collect();
        drop(state);
        for watcher in watchers {
            self.call(&watcher);
        }
    }

    /// The outbox of `session` has become empty. Called with its locks held: all else is done elsewhere.
    pub(super) fn has_drained(self: &Arc<Self>, session: u64) {
        let watches = Arc::clone(self);
        self.helpers.run(move || watches.look_at(session));
    }

    /// No more is told; what is being made is waited for until the deadline. False if some is still being made then.
    pub(super) fn close(&self, deadline: Instant) -> bool {
        let mut state = self.state.lock();
        state.closed = true;
        let State { watchers, listening, .. } = std::mem::take(&mut *state);
        state.closed = true;
        drop(state);
        drop((watchers, listening));
        self.helpers.close(deadline)
    }

    /// Something was written: calls those who listen.
    fn hear(self: &Arc<Self>) {
        // Before it is looked: what comes after that rings again.
        self.rung.store(false, Ordering::SeqCst);
        let Some(store) = self.store.upgrade() else { return };
        for channel in store.news() {
            let listening = self.state.lock().listening.get(&channel).cloned();
            for watcher in listening.into_iter().flatten() {
                self.call(&watcher);
            }
        }
    }

    fn call(self: &Arc<Self>, watcher: &Arc<Watcher>) {
        if !watcher.called.swap(true, Ordering::SeqCst) {
            let (watches, watcher) = (Arc::clone(self), Arc::clone(watcher));
            self.helpers.run(move || watches.serve(&watcher));
        }
    }

    /// Tells what there is to tell, as long as the client takes it.
    fn serve(self: &Arc<Self>, watcher: &Arc<Watcher>) {
        let mut guard = watcher.flow.lock();
        // Whoever calls from here on finds that it is to be called again.
        watcher.called.store(false, Ordering::SeqCst);
        let Some(flow) = guard.as_mut() else { return };
        let outbox = &watcher.outbox;
        for _ in 0..PARTS_IN_A_ROW {
            if outbox.is_closed() {
                return self.end(watcher, guard.take());
            }
            let mut bytes = Vec::new();
            if watcher.cancelled.load(Ordering::Relaxed) {
                say_last(&mut bytes, watcher.id, Fault::Cancelled);
                outbox.post_part(bytes);
                return self.end(watcher, guard.take());
            }
            if !outbox.is_drained_or_will_tell() {
                return;
            }
            match flow.make(watcher.id, &mut bytes) {
                Ok(Made::Part) => outbox.post_part(bytes),
                Ok(Made::Nothing) => return,
                Ok(Made::NothingYet) => {}
                Err(fault) => {
                    bytes.clear();
                    say_last(&mut bytes, watcher.id, fault);
                    outbox.post_part(bytes);
                    return self.end(watcher, guard.take());
                }
            }
        }
        drop(guard);
        self.call(watcher);
    }

    fn end(&self, watcher: &Arc<Watcher>, flow: Option<Flow>) {
        let mut state = self.state.lock();
        let key = (watcher.outbox.session, watcher.id);
        state.watchers.remove(&key);
        if let Some(listening) = state.listening.get_mut(&watcher.channel) {
            listening.retain(|known| !Arc::ptr_eq(known, watcher));
            if listening.is_empty() {
                state.listening.remove(&watcher.channel);
            }
        }
        if let Some(ids) = state.of_session.get_mut(&key.0) {
            ids.remove(&key.1);
            if ids.is_empty() {
                state.of_session.remove(&key.0);
            }
        }
        drop(state);
        drop(flow);
    }
}

impl Flow {
    /// Makes the next part.
    fn make(&mut self, id: u64, bytes: &mut Vec<u8>) -> Result<Made, Fault> {
        if !self.has_begun || self.quiet >= QUIET_LOOKS {
            (self.has_begun, self.quiet) = (true, 0);
            let began = Answer::Changes { list: Vec::new(), through: self.through };
            return encode(bytes, id, &began).map(|()| Made::Part);
        }
        if self.told.is_empty() {
            match self.watch.next(PART_BYTES).map_err(|error| Fault::from(&error))? {
                Next::Nothing => return Ok(Made::Nothing),
                Next::Lagged { lost_from, next } => {
                    self.through = self.watch.through();
                    return encode(bytes, id, &Answer::Lagged { lost_from, next }).map(|()| Made::Part);
                }
                Next::Told(told) if told.is_empty() => {
                    self.through = self.watch.through();
                    self.quiet += 1;
                    return Ok(Made::NothingYet);
                }
                Next::Told(told) => self.told = told.into(),
            }
        }
        self.quiet = 0;
        let mut list = Vec::new();
        let (mut size, mut left) = (0, self.told.iter());
        let (mut whole, mut at, mut through) = (0, self.at, self.through);
        while size < PART_BYTES
            && list.len() < PART_WRITES
            && let Some(told) = left.next()
        {
            let rest = &told.changes[at..];
            let fits = rest.iter().take_while(|change| {
                let fits = size < PART_BYTES;
                size += CHANGE_BYTES + change.bytes();
                fits
            });
            let fits = fits.count();
            let more = fits < rest.len();
            let changes = rest[..fits].iter().map(change).collect();
            list.push(ChangeSet { seq: told.seq, more, changes });
            if more {
                at += fits;
            } else {
                (whole, at, through) = (whole + 1, 0, told.seq);
            }
        }
        if whole == self.told.len() {
            through = self.watch.through();
        }
        encode(bytes, id, &Answer::Changes { list, through })?;
        self.told.drain(..whole);
        (self.at, self.through) = (at, through);
        Ok(Made::Part)
    }
}

fn change(change: &TellChange) -> Change<'_> {
    match change {
        TellChange::Put(record) => Change::Put { key: record.key(), value: record.value() },
        TellChange::Delete(record) => Change::Delete { key: record.key() },
        TellChange::Clear => Change::Clear,
        TellChange::Drop => Change::Drop,
    }
}

fn encode(bytes: &mut Vec<u8>, id: u64, answer: &Answer<'_>) -> Result<(), Fault> {
    encode_part(bytes, id, answer).map_err(|error| {
        let crate::proto::codec::EncodeError::TooLarge { bytes } = error;
        Fault::TooLarge { what: "bytes in the answer".to_owned(), got: bytes, limit: MAX_FRAME_BYTES as u64 }
    })
}

fn say_last(bytes: &mut Vec<u8>, id: u64, fault: Fault) {
    // A refusal is shorter than a frame.
    let _ = encode_answer(bytes, id, &Answer::Fault(fault));
}
