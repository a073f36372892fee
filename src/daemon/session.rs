//! One session: what becomes of the frames that its client sends, however it is served.
//!
//! A [`Session`] does no I/O and waits for nothing. [`Session::step`] serves what has arrived until something must be
//! done that may wait, and says what: read, commit, send. A thread of its own does that at once (`on_thread`), a
//! task on the runtime without holding up others (`on_task`). Writes that follow each other are committed together;
//! anything else first has what is queued committed, so that the effects of one session come in the order sent.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::engine::{Numbered, WriteRequest, Written};
use crate::proto::codec::decode_request_of;
use crate::proto::frame::FrameKind;
use crate::proto::{Answer, Event, Fault, Place, Request, Space, Verb};

use super::Daemon;
use super::again::{self, NUMBERS_COUNT_SINCE};
use super::committer::{Kind, Lead, Leader, weight_of};
use super::coordinate;
use super::coordination::{Asking, Stay};
use super::dispatch::{gives_back, may_take_long, place_to_flush, prepare_write, read, spaces, touches};
use super::fault::timed_out;
use super::handed::Handed;
use super::inbox::Inbox;
use super::later::{self, FlushWish};
use super::line::{AsideRequest, Line, Standing};
use super::outbox::Outbox;
use super::registry::Guest;
use super::replies::Replies;
use super::running::Outcomes;
use super::tables::Tables;
use super::watches;

/// Queued writes are committed when their frames pass this many bytes together, whatever else has been read.
const COMMIT_BYTES: usize = 4 * 1024 * 1024;

/// Since this version of the wire there are locks, and writes that depend on them.
const LOCKS_SINCE: u16 = 4;

/// Writes that weigh more are committed by their own thread, without others'.
const SHARED_BYTES: usize = 256 * 1024;

/// A session that shares its thread serves no longer than this before others get their turn.
const SLICE: Duration = Duration::from_millis(1);

/// What a session needs done before it can go on.
#[derive(Debug)]
pub(super) enum Want {
    /// More bytes: all that has arrived is served and answered.
    Read,
    /// The writes of [`Session::take_queue`] committed.
    Commit,
    /// Its answers sent.
    Send,
    /// Nothing but that some of what it owes is done or answered: see [`Session::may_go_on`].
    Settle,
    /// That clients take some of what waits for them, in the whole daemon.
    Relief,
    /// That others get their turn.
    Pause,
    /// An end, for this reason.
    Close(Fault),
}

/// The state of a session between two frames.
pub(super) struct Session {
    daemon: Arc<Daemon>,
    guest: Arc<Guest>,
    outbox: Arc<Outbox>,
    pub(super) replies: Replies,
    tables: Tables,
    queue: WriteQueue,
    /// What it holds is given back when it and its line are done.
    stay: Arc<Stay>,
    /// Those that cannot be served where they are read; made when there is the first.
    line: Option<Arc<Line>>,
    /// When the bytes that are being served were read: where their deadlines begin.
    read_at: Instant,
    /// Whether it shares its thread with others.
    on_task: bool,
    /// What the next request waits for.
    wants: Wanting,
    /// It takes no further request, and waits for those that were good.
    ends: bool,
}

/// Who commits a session's writes.
pub(super) enum Committing<'a> {
    /// The session, with what others have left.
    Leads(Lead<'a>, Vec<WriteRequest>),
    /// The session, without others.
    Alone(Vec<WriteRequest>),
    /// Somebody else.
    Left,
}

/// What a request waits for before it is looked at.
enum Wanting {
    Nothing,
    /// It must see writes that are being committed by somebody else.
    Commits,
    /// It must stand in line, and all sessions together have too much waiting.
    Room,
}

/// Writes that wait for the next commit, and whom to answer.
#[derive(Default)]
struct WriteQueue {
    requests: Vec<WriteRequest>,
    askers: Vec<Asker>,
    /// Bytes of their frames.
    bytes: usize,
    /// Whether any of them has a deadline.
    timed: bool,
}

#[derive(Clone, Copy)]
struct Asker {
    id: u64,
    deadline_ms: u32,
    read_at: Instant,
}

impl Asker {
    /// How long it has waited, if that is longer than its client wanted.
    fn overdue(&self) -> Option<Duration> {
        if self.deadline_ms == 0 {
            return None;
        }
        let waited = self.read_at.elapsed();
        (waited >= Duration::from_millis(u64::from(self.deadline_ms))).then_some(waited)
    }

    fn deadline(&self) -> Option<Instant> {
        (self.deadline_ms != 0).then(|| self.read_at + Duration::from_millis(u64::from(self.deadline_ms)))
    }
}

/// What became of a frame.
enum Served {
    /// It is served, or was refused.
    Here,
    /// It is served again when the writes before it are committed.
    CommitFirst,
    /// It is served again when there is room for it to wait in.
    NoRoom,
    /// It is to be served elsewhere.
    Aside { deadline_ms: u32, standing: Standing },
}

impl Session {
    pub(super) fn new(daemon: &Arc<Daemon>, guest: &Arc<Guest>, on_task: bool) -> Self {
        Self {
            daemon: Arc::clone(daemon),
            guest: Arc::clone(guest),
            outbox: Arc::clone(&guest.outbox),
            replies: Replies::default(),
            tables: Tables::new(Arc::clone(daemon.store())),
            queue: WriteQueue::default(),
            stay: Stay::new(daemon, guest.outbox.session),
            line: None,
            read_at: Instant::now(),
            on_task,
            wants: Wanting::Nothing,
            ends: false,
        }
    }

    /// Bytes have arrived: the deadlines of the requests in them begin now.
    pub(super) fn has_read(&mut self) {
        self.read_at = Instant::now();
    }

    /// Serves whole frames of `inbox` until something must be done that may wait.
    pub(super) fn step(&mut self, inbox: &mut Inbox) -> Want {
        let until = self.on_task.then(|| Instant::now() + SLICE);
        loop {
            if self.replies.must_leave() {
                return Want::Send;
            }
            if self.outbox.is_budget_used_up() {
                return if self.replies.is_empty() { Want::Relief } else { Want::Send };
            }
            if !self.may_go_on() {
                return self.unfinished().unwrap_or(Want::Settle);
            }
            if self.outbox.is_held() {
                // Whatever comes: the program that holds the connection does not know what it is.
                inbox.pass_all();
                return self.unfinished().unwrap_or(Want::Read);
            }
            let fault = match inbox.next() {
                Ok(None) => return self.unfinished().unwrap_or(Want::Read),
                Ok(Some((header, body))) => match header.kind {
                    FrameKind::Request => match self.request(header.id, inbox, &body) {
                        Some(want) => return want,
                        None => None,
                    },
                    FrameKind::Cancel => {
                        inbox.pass(&body);
                        self.cancel(header.id);
                        None
                    }
                    kind => {
                        let reason = format!("a client sent a frame of kind {}: only daemons send it", kind as u8);
                        Some(Fault::Malformed { reason })
                    }
                },
                Err(error) => Some(error.into()),
            };
            if let Some(fault) = fault {
                // What came before the bad frame was good: it is served and answered first, the late answers too.
                self.ends = self.outbox.owed() > 0;
                let want = if self.ends { Want::Settle } else { Want::Close(fault) };
                return self.unfinished().unwrap_or(want);
            }
            if self.queue.bytes >= COMMIT_BYTES {
                return Want::Commit;
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                return Want::Pause;
            }
        }
    }

    /// What is left to do before the session may wait for its client.
    fn unfinished(&self) -> Option<Want> {
        if !self.queue.requests.is_empty() {
            return Some(Want::Commit);
        }
        (!self.replies.is_empty()).then_some(Want::Send)
    }

    /// Whether it owes little enough to take a further request.
    pub(super) fn may_go_on(&self) -> bool {
        if self.ends {
            return self.outbox.owed() == 0;
        }
        let waits = match self.wants {
            Wanting::Nothing => false,
            Wanting::Commits => self.is_in_commit(),
            Wanting::Room => self.daemon.waiting_requests().is_used_up(),
        };
        !waits && !self.outbox.is_owing_much() && self.line.as_ref().is_none_or(|line| line.may_go_on())
    }

    /// Serves a request, or says what must be done before it.
    fn request(&mut self, id: u64, inbox: &mut Inbox, body: &Range<usize>) -> Option<Want> {
        if self.is_in_commit() {
            self.wants = Wanting::Commits;
            return Some(self.unfinished().unwrap_or(Want::Settle));
        }
        let served = self.serve(id, inbox.body(body.clone()));
        self.wants = if matches!(served, Served::NoRoom) { Wanting::Room } else { Wanting::Nothing };
        match served {
            Served::CommitFirst => return Some(Want::Commit),
            Served::NoRoom => return Some(self.unfinished().unwrap_or(Want::Settle)),
            Served::Here => inbox.pass(body),
            Served::Aside { deadline_ms, standing } => {
                let request = AsideRequest {
                    body: inbox.take(body.clone()),
                    deadline_ms,
                    read_at: self.read_at,
                    counts: self.numbers_count(),
                    fence: self.guest.fence.clone(),
                };
                let answer = self.outbox.promise(id);
                let (daemon, outbox, stay) = (&self.daemon, &self.outbox, &self.stay);
                let new = || Line::new(Arc::clone(daemon), Arc::clone(outbox), Arc::clone(stay));
                let line = self.line.get_or_insert_with(new);
                line.stand(request, answer, standing);
            }
        }
        self.guest.requests.fetch_add(1, Ordering::Relaxed);
        None
    }

    fn serve(&mut self, id: u64, body: &[u8]) -> Served {
        let version = self.guest.version();
        let decoded = decode_request_of(version, body).map_err(Fault::from);
        let Request { deadline_ms, verb } = match decoded.and_then(|request| known_in(version, request)) {
            Ok(request) => request,
            Err(fault) => {
                self.replies.refuse(id, fault);
                return Served::Here;
            }
        };
        if again::is_repeat(&verb) {
            // Before it is looked for what became of the first sending.
            self.daemon.sessions.lock().shut_out_earlier(&self.guest);
        }
        if let Some(standing) = self.must_stand(&verb, body.len()) {
            return if !self.queue.requests.is_empty() {
                // What is queued was sent before it.
                Served::CommitFirst
            } else if !standing.holds && self.daemon.waiting_requests().is_used_up() {
                // One that holds up its own session is the only one of it, and waits for no load.
                Served::NoRoom
            } else {
                Served::Aside { deadline_ms, standing }
            };
        }
        let asker = Asker { id, deadline_ms, read_at: self.read_at };
        if let Verb::Write(write) = &verb {
            match prepare_write(&self.daemon, &mut self.tables, write) {
                Ok(mut request) => {
                    if self.numbers_count() && write.number > 0 {
                        request.once(write.settled, None);
                        request.behind(&self.guest.fence);
                    }
                    self.queue_write(asker, request, body.len());
                }
                Err(fault) => self.replies.refuse(id, fault),
            }
            return Served::Here;
        }
        if !self.queue.requests.is_empty() {
            return Served::CommitFirst;
        }
        if let Some(waited) = asker.overdue().filter(|_| !gives_back(&verb)) {
            self.replies.refuse(id, timed_out(waited, "the requests sent before it"));
            return Served::Here;
        }
        let (since, deadline) = (asker.read_at, asker.deadline());
        match verb {
            Verb::Commit => later::commit(&self.daemon, self.outbox.promise(id), since, deadline),
            Verb::Flush { space, rewrite, wait } => match space.as_ref().map(place_to_flush).transpose() {
                Ok(place) => {
                    let wish = FlushWish { rewrite, wait, since, deadline };
                    later::flush(&self.daemon, self.outbox.promise(id), place, wish);
                }
                Err(fault) => self.replies.refuse(id, fault),
            },
            Verb::Drop { space } => self.drop_records(id, &space, &Numbered::default()),
            Verb::DropOnce { space, client, number, settled, earlier } => {
                let earlier = earlier.map(again::earlier);
                self.drop_records(id, &space, &Numbered { client, number, settled, earlier });
            }
            Verb::WriteAgain { earlier, write } => {
                match again::write(&self.daemon, &mut self.tables, &write, earlier, &self.guest.fence) {
                    Ok(written) => self.replies.answer(id, &answer_of(written)),
                    Err(fault) => self.replies.refuse(id, fault),
                }
            }
            Verb::Hold if !self.outbox.is_promising() && !self.daemon.watches.are_of(self.outbox.session) => {
                self.replies.answer(id, &Answer::Done);
                self.outbox.hold();
            }
            Verb::Hold => self.replies.refuse(id, hold_refused()),
            Verb::Watch { space, prefix, after } => {
                let begun = watches::begin(self.daemon.store(), &mut self.tables, &space, prefix, after);
                self.daemon.watches.add(self.outbox.promise(id), begun);
            }
            Verb::Stop => self.daemon.request_stop(self.outbox.promise(id)),
            verb if coordinate::is_ours(&verb) => {
                let asking = Asking { outbox: &self.outbox, id, since, deadline };
                coordinate::serve(&self.daemon, &asking, verb, &mut self.replies);
            }
            _ => read(&self.daemon, &mut self.tables, id, &verb, &mut self.replies),
        }
        Served::Here
    }

    /// Whether its client's numbers count.
    fn numbers_count(&self) -> bool {
        self.guest.version() >= NUMBERS_COUNT_SINCE
    }

    fn drop_records(&mut self, id: u64, space: &Space<'_>, numbered: &Numbered) {
        match again::drop_records(&self.daemon, space, numbered, &self.guest.fence) {
            Ok((place, dropped)) => {
                later::dropped(&self.daemon, self.outbox.promise(id), place, dropped, self.read_at);
            }
            Err(fault) => self.replies.refuse(id, fault),
        }
    }

    /// Whether a request must be served elsewhere, and why.
    fn must_stand(&mut self, verb: &Verb<'_>, bytes: usize) -> Option<Standing> {
        let tables = &mut self.tables;
        let is_loading = |space: &&Space<'_>| !tables.is_ready(space);
        // A name that breaks its rule is refused where it is served.
        let loading: Vec<Place> =
            spaces(verb).iter().filter(is_loading).filter_map(|space| space.place().ok()).collect();
        let line = self.line.as_ref().filter(|line| !line.is_empty());
        let takes_long = self.on_task && may_take_long(verb, bytes);
        if loading.is_empty() && !takes_long && line.is_none() {
            return None;
        }
        let touches = touches(verb);
        let waits = !loading.is_empty() || line.is_some_and(|line| line.is_before(&touches));
        (waits || takes_long).then(|| Standing { touches, loading, holds: !waits, gives_back: gives_back(verb) })
    }

    fn queue_write(&mut self, asker: Asker, request: WriteRequest, bytes: usize) {
        // What a small request changes may be large.
        self.queue.bytes += bytes.max(request.weight());
        self.queue.requests.push(request);
        self.queue.askers.push(asker);
        self.queue.timed |= asker.deadline_ms != 0;
    }

    /// The writes that are to be committed; [`committed`](Self::committed) takes what became of them. None if none is left
    /// whose time is not over.
    pub(super) fn take_queue(&mut self) -> Option<Vec<WriteRequest>> {
        if self.queue.timed {
            self.refuse_overdue();
        }
        self.queue.bytes = 0;
        self.queue.timed = false;
        self.guest.in_commit.store(self.queue.askers.len(), Ordering::Relaxed);
        let requests = std::mem::take(&mut self.queue.requests);
        (!requests.is_empty()).then_some(requests)
    }

    /// Finds who commits the writes of [`take_queue`](Self::take_queue): this session, with those of others or alone, or somebody
    /// else, who answers them as well.
    pub(super) fn find_committer<'a>(&mut self, daemon: &'a Daemon, mut requests: Vec<WriteRequest>) -> Committing<'a> {
        let store = daemon.store();
        if weight_of(&requests) > SHARED_BYTES
            || requests.iter().any(|request| request.is_volatile() || store.is_first_write(request))
        {
            return Committing::Alone(requests);
        }
        let is_quick = requests.iter().all(|request| store.needs_no_sync_of_its_own(request));
        // Answers to what came before leave before these.
        let may_leave = self.replies.is_empty();
        let (queue, guest, stay) = (&mut self.queue, &self.guest, &self.stay);
        let hand = || {
            may_leave.then(|| {
                let ids = queue.askers.drain(..).map(|asker| asker.id).collect();
                // From here on they are owed.
                guest.in_commit.store(0, Ordering::Relaxed);
                (std::mem::take(&mut requests), Handed::new(guest, ids, stay))
            })
        };
        let kind = if is_quick { Kind::Quick } else { Kind::Patient };
        match daemon.committer().lead_or_leave(daemon, kind, hand) {
            Leader::Session(lead) => Committing::Leads(lead, requests),
            Leader::Other => Committing::Left,
            Leader::Busy => Committing::Alone(requests),
        }
    }

    /// Whether writes of this session are being committed by somebody else.
    fn is_in_commit(&self) -> bool {
        self.guest.is_handed.load(Ordering::Acquire)
    }

    /// Waits for those writes: a session is known, and can be shut out by its client's next connection, until they are done.
    pub(super) fn wait_for_commit(&self) {
        self.outbox.wait_whatever_comes(|| !self.is_in_commit());
    }

    /// Answers the writes that were committed.
    pub(super) fn committed(&mut self, outcomes: Outcomes) {
        let askers = std::mem::take(&mut self.queue.askers);
        self.guest.in_commit.store(0, Ordering::Relaxed);
        answer_writes(&mut self.replies, askers.iter().map(|asker| asker.id), outcomes);
        self.queue.askers = askers;
        self.queue.askers.clear();
    }

    fn refuse_overdue(&mut self) {
        let queue = &mut self.queue;
        if queue.askers.iter().all(|asker| asker.overdue().is_none()) {
            return;
        }
        let mut overdue = queue.askers.iter().map(Asker::overdue).collect::<Vec<_>>().into_iter();
        let mut again = overdue.clone();
        queue.requests.retain(|_| overdue.next().is_some_and(|waited| waited.is_none()));
        queue.askers.retain(|asker| match again.next().flatten() {
            None => true,
            Some(waited) => {
                self.replies.refuse(asker.id, timed_out(waited, "the requests sent before it"));
                false
            }
        });
    }

    /// What is still queued or waits is not begun; all else was begun when its frame was read, and is finished.
    fn cancel(&mut self, id: u64) {
        if let Some(at) = self.queue.askers.iter().position(|asker| asker.id == id) {
            self.queue.askers.remove(at);
            self.queue.requests.remove(at);
            return self.replies.refuse(id, Fault::Cancelled);
        }
        if self.line.as_ref().is_some_and(|line| line.cancel(id)) || self.daemon.cancel_wait(&self.outbox, id) {
            return;
        }
        if !self.daemon.watches.cancel(self.outbox.session, id) && self.outbox.cancel(id) {
            self.daemon.flusher().look_again();
        }
    }

    /// Tells the client why its connection is about to be closed: the last that is sent.
    pub(super) fn close(&mut self, fault: Fault) {
        tracing::warn!(session = self.outbox.session, "connection closed: {fault}");
        self.outbox.end_late_answers();
        self.replies.event(&Event::Closing(fault));
    }
}

/// The request, unless a part of it is newer than the session's version. A daemon of that version knew no locks, and answered
/// a write that depends on one likewise.
fn known_in(version: u16, request: Request<'_>) -> Result<Request<'_>, Fault> {
    match &request.verb {
        Verb::Write(write) | Verb::WriteAgain { write, .. } if version < LOCKS_SINCE && write.if_token.is_some() => {
            Err(Fault::Unsupported { what: "part of the request (if_token)".to_owned(), tag: 1 })
        }
        _ => Ok(request),
    }
}

/// A session that is owed answers cannot only hold what it has: it would never hear them.
pub(super) fn hold_refused() -> Fault {
    Fault::Invalid {
        what: "holding a session that has requests outstanding".to_owned(),
        rule: "wait for their answers, or cancel them, first".to_owned(),
    }
}

/// Answers these writes, in their order, with what became of them.
pub(super) fn answer_writes(replies: &mut Replies, ids: impl Iterator<Item = u64>, outcomes: Outcomes) {
    let Some(outcomes) = outcomes else {
        return ids.for_each(|id| replies.refuse(id, Fault::Stopping));
    };
    for (id, outcome) in ids.zip(outcomes) {
        match outcome {
            Ok(written) => replies.answer(id, &answer_of(written)),
            Err(error) => replies.refuse(id, Fault::from(&error)),
        }
    }
}

/// What a write is answered.
pub(super) fn answer_of(written: Written) -> Answer<'static> {
    let Written { seq, new, found, surrogates_removed } = written;
    Answer::Written { seq, new, found, surrogates_removed }
}
