//! A session's way out: the answers of a batch leave in one `write`, and those that come later find their own way.
//!
//! Several may have something to say: the session itself, and whoever owes it a late answer (the flusher, the syncer,
//! a thread that carries out what had to wait). The latter never wait for a client: they write what the socket takes at
//! once, and leave the rest here. A session with a thread of its own has it written by a late writer, a thread that
//! exists only while there is such a rest; a session on the runtime is woken and writes it itself. So a client that
//! does not read holds up nobody but its own session.
//!
//! What can pile up is bounded: at most [`MAX_IN_FLIGHT`] late answers are owed at once, counted until they have left,
//! a session makes no further answers before its own have left, and what all clients together have not taken is counted
//! in a [`Budget`] beyond which no session serves on.

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use crate::ipc::Stream;
use crate::proto::codec::encode_event;
use crate::proto::limits::MAX_IN_FLIGHT;
use crate::proto::{Event, Fault};

use super::budget::Budget;
use super::late::LateAnswer;
use super::replies;
use super::untaken::Untaken;
use super::watches::Watches;

/// The stack of the threads that serve connections: nothing in them recurses over what a client sends.
pub(super) const STACK_BYTES: usize = 512 * 1024;

/// A blocking write hands the kernel so much at once, so that it shows whether the client takes anything.
const CHUNK_BYTES: usize = 128 * 1024;

/// Whoever waits for a session's state to change looks again after so long, should nobody have told.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// How long the end of a session waits for whoever is writing; one that waits for its client holds the turn for longer.
const TURN_PATIENCE: Duration = Duration::from_millis(20);

/// The same where nobody waits for the client: only for a thread that was not given the processor since it wrote.
const IDLE_TURN_PATIENCE: Duration = Duration::from_secs(1);

/// Answers that a session's own thread is writing are counted from this size on; smaller ones the socket takes at once.
const COUNTED_BYTES: usize = 16 * 1024;

/// The writing half of a session, shared by the session and by whoever owes it a late answer.
pub(super) struct Outbox {
    /// The session's number.
    pub(super) session: u64,
    pub(super) stream: Arc<Stream>,
    stall_timeout: Duration,
    budget: Arc<Budget>,
    /// Held while bytes leave, so that frames do not mix. Inside is what has been begun and not left whole: it goes
    /// before anything else.
    pub(super) turn: Mutex<Begun>,
    pub(super) late: Mutex<Late>,
    pub(super) late_changed: Condvar,
    /// For a session on the runtime: there is something to write, to settle, or the end.
    pub(super) task: Option<Notify>,
    /// Late answers that are promised and have not left.
    pub(super) owed: AtomicUsize,
    /// Those that are not given yet.
    pub(super) ungiven: AtomicUsize,
    /// Late answers that may come at any time or never: what waits for other sessions.
    whenever: AtomicUsize,
    /// Bytes that wait here, counted in the budget. The watches want to be told when there are none.
    queued: Untaken,
    /// Bytes of those that have left since the session began.
    taken: AtomicU64,
    /// When the client last took something, or had nothing to take, in milliseconds since `began`.
    taken_ms: AtomicU64,
    began: Instant,
    pub(super) closed: AtomicBool,
    /// The last word is about to be said: late answers do not leave any more.
    silent: AtomicBool,
    /// The last word was said: nothing leaves any more. Set with the turn in hand.
    pub(super) said: AtomicBool,
    /// The client only holds what it has, and is told nothing more, nor listened to.
    is_held: AtomicBool,
    /// To be told when the client has taken all that waits for it; none where nothing is watched.
    watches: OnceLock<Weak<Watches>>,
}

/// Bytes of which some have left.
#[derive(Default)]
pub(super) struct Begun {
    pub(super) bytes: Vec<u8>,
    pub(super) at: usize,
    /// How many late answers end in them.
    pub(super) late: usize,
}

#[derive(Default)]
pub(super) struct Late {
    pub(super) waiting: VecDeque<Waiting>,
    /// What a cancel can still reach.
    pub(super) wishes: Vec<(u64, Arc<AtomicBool>)>,
    /// Whether the late writer runs.
    pub(super) writer: bool,
}

/// What waits until the client takes it.
pub(super) enum Waiting {
    /// Whole frames, the last ones of so many late answers.
    Frames { bytes: Vec<u8>, answers: usize },
    /// The rest of a late answer that comes in parts.
    Rest(replies::Rest),
}

impl Outbox {
    /// For a session with a thread of its own, or, with `on_task`, for one on the runtime.
    pub(super) fn new(
        session: u64,
        stream: Arc<Stream>,
        stall_timeout: Duration,
        budget: Arc<Budget>,
        on_task: bool,
    ) -> Self {
        Self {
            session,
            stream,
            stall_timeout,
            budget,
            turn: Mutex::default(),
            late: Mutex::default(),
            late_changed: Condvar::new(),
            task: on_task.then(Notify::new),
            owed: AtomicUsize::new(0),
            ungiven: AtomicUsize::new(0),
            whenever: AtomicUsize::new(0),
            queued: Untaken::new(),
            taken: AtomicU64::new(0),
            taken_ms: AtomicU64::new(0),
            began: Instant::now(),
            closed: AtomicBool::new(false),
            silent: AtomicBool::new(false),
            said: AtomicBool::new(false),
            is_held: AtomicBool::new(false),
            watches: OnceLock::new(),
        }
    }

    /// The connection.
    pub(super) fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// Whether more answers wait for clients, of all sessions, than may.
    pub(super) fn is_budget_used_up(&self) -> bool {
        self.budget.is_used_up()
    }

    /// Bytes of answers that the client has not taken yet.
    pub(super) fn queued(&self) -> usize {
        self.queued.bytes()
    }

    /// Bytes that had to wait for the client and were taken since, in the whole session.
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// How many late answers are promised and have not left.
    pub(super) fn owed(&self) -> usize {
        self.owed.load(Ordering::Relaxed)
    }

    /// How long the client has taken nothing although there was something.
    pub(super) fn stalled(&self) -> Duration {
        let now = self.now_ms();
        Duration::from_millis(now.saturating_sub(self.taken_ms.load(Ordering::Relaxed)))
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Whether late answers are dropped: the session is over, or what it sends next is its last word.
    pub(super) fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Acquire) || self.is_closed()
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn count(&self, bytes: usize) {
        // First the time: whoever looks for clients that take nothing must not find an idle one's old time beside new bytes.
        if self.queued() == 0 {
            self.taken_ms.store(self.now_ms(), Ordering::Relaxed);
        }
        self.queued.add(bytes);
        self.budget.add(bytes);
    }

    pub(super) fn uncount(&self, bytes: usize) {
        let tells = self.queued.take(bytes);
        self.taken.fetch_add(bytes as u64, Ordering::Relaxed);
        self.taken_ms.store(self.now_ms(), Ordering::Relaxed);
        self.budget.give_back(bytes);
        if tells && let Some(watches) = self.watches.get().and_then(Weak::upgrade) {
            watches.has_drained(self.session);
        }
    }

    /// The session is watching: it tells these when its client has taken all that waits for it.
    pub(super) fn watched_by(&self, watches: &Arc<Watches>) {
        let _ = self.watches.set(Arc::downgrade(watches));
    }

    /// Whether nothing waits for the client. If something does, the watches are told when that is over.
    pub(super) fn is_drained_or_will_tell(&self) -> bool {
        self.queued.is_none_or_tells()
    }

    /// Writes all of `bytes`, waiting for the client. A failure ends the session: nothing more is written, and its
    /// reader wakes up.
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut begun = self.turn.lock();
        if self.said.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::NotConnected.into());
        }
        self.finish(&mut begun)?;
        if bytes.len() < COUNTED_BYTES {
            return self.write_all(bytes, false);
        }
        self.count(bytes.len());
        let mut left = bytes.len();
        let mut outcome = Ok(());
        for chunk in bytes.chunks(CHUNK_BYTES) {
            outcome = self.write_all(chunk, false);
            if outcome.is_err() {
                break;
            }
            left -= chunk.len();
            self.uncount(chunk.len());
        }
        if left > 0 {
            self.uncount(left);
        }
        outcome
    }

    /// Writes what was begun, waiting for the client.
    pub(super) fn finish(&self, begun: &mut Begun) -> io::Result<()> {
        if begun.bytes.is_empty() {
            return Ok(());
        }
        let outcome = self.write_all(&begun.bytes[begun.at..], true);
        self.settle(std::mem::take(&mut begun.late));
        *begun = Begun::default();
        outcome
    }

    fn write_all(&self, mut bytes: &[u8], counted: bool) -> io::Result<()> {
        while !bytes.is_empty() {
            // The stream's write time-out makes this return when nothing at all could be written for so long.
            match (&*self.stream).write(bytes) {
                Ok(0) => return self.broken(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    bytes = &bytes[written..];
                    if counted {
                        self.uncount(written);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    if counted {
                        self.uncount(bytes.len());
                    }
                    return self.broken(error);
                }
            }
        }
        Ok(())
    }

    /// Ends the session, whose client takes nothing.
    pub(super) fn give_up(&self) -> io::Result<()> {
        self.broken(io::ErrorKind::TimedOut.into())
    }

    fn broken(&self, error: io::Error) -> io::Result<()> {
        let already = self.closed.load(Ordering::Acquire);
        if !already && matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
            let seconds = self.stall_timeout.as_secs_f64();
            tracing::warn!(session = self.session, "the client has not read for {seconds} s: its connection is closed");
        }
        self.close();
        Err(error)
    }

    /// Whether a late answer is promised and not given yet. One that is given counts as [owed](Self::owed) until it has left,
    /// and a client may have it a moment before.
    pub(super) fn is_promising(&self) -> bool {
        self.ungiven.load(Ordering::Acquire) > 0
    }

    /// From the answer on that is about to leave, the client is told nothing more: it becomes a program that knows nothing of
    /// this connection.
    pub(super) fn hold(&self) {
        self.is_held.store(true, Ordering::Release);
    }

    pub(super) fn is_held(&self) -> bool {
        self.is_held.load(Ordering::Acquire)
    }

    /// Drops what has not begun to leave of late answers, and all later ones: what leaves next is the last word.
    pub(super) fn end_late_answers(&self) {
        self.drop_late_answers(&self.silent);
    }

    /// Under the lock, so that whoever looks before it posts or waits misses nothing.
    fn drop_late_answers(&self, because: &AtomicBool) {
        let mut late = self.late.lock();
        because.store(true, Ordering::Release);
        let bytes: usize = late.waiting.drain(..).map(|waiting| waiting.bytes()).sum();
        if bytes > 0 {
            self.uncount(bytes);
        }
    }

    /// Ends the session's writing: later answers are dropped, whoever is blocked in the stream wakes up.
    pub(super) fn close(&self) {
        self.drop_late_answers(&self.closed);
        self.stream.shutdown();
        self.wake();
        // Whoever is writing notices by itself, and gives back what it holds.
        if let Some(mut begun) = self.turn.try_lock() {
            self.uncount_begun(&mut begun);
        }
    }

    pub(super) fn uncount_begun(&self, begun: &mut Begun) {
        let left = begun.bytes.len() - begun.at;
        if left > 0 {
            self.uncount(left);
        }
        *begun = Begun::default();
    }

    /// Wakes whoever waits for a change of this session's state.
    pub(super) fn wake(&self) {
        match &self.task {
            Some(task) => task.notify_one(),
            None => drop(self.late_changed.notify_all()),
        }
    }

    /// As [`wake`](Self::wake), also for one that has just looked and is about to wait.
    pub(super) fn tell(&self) {
        drop(self.late.lock());
        self.wake();
    }

    /// Completes when there may be something to write or to settle, or the session has ended: on the runtime only.
    pub(super) async fn woken(&self) {
        match &self.task {
            Some(task) => task.notified().await,
            None => std::future::pending().await,
        }
    }

    /// Waits until the late writer has ended; after [`close`](Self::close) that is at once.
    pub(super) fn wait_for_late_writer(&self) {
        let mut late = self.late.lock();
        while late.writer {
            self.late_changed.wait(&mut late);
        }
    }

    /// Tells the client why the connection is about to be closed, if it takes that at once. May wait a moment for whoever
    /// is writing: not on the runtime.
    pub(super) fn say_closing(&self, fault: Fault) {
        // Whoever has just written an answer may still hold the turn when its client has read it already.
        // When nothing is counted, nobody waits for the client with the turn in hand, and it is free in a moment.
        let patience = if self.queued() == 0 { IDLE_TURN_PATIENCE } else { TURN_PATIENCE };
        self.say_closing_within(patience, fault);
    }

    /// As [`say_closing`](Self::say_closing), if nobody is writing: where a session refuses itself, nobody is.
    pub(super) fn say_closing_at_once(&self, fault: Fault) {
        self.say_closing_within(Duration::ZERO, fault);
    }

    fn say_closing_within(&self, patience: Duration, fault: Fault) {
        if self.is_held() {
            return;
        }
        let Some(begun) = self.turn.try_lock_for(patience) else { return };
        let mut bytes = Vec::new();
        // A session that ends itself has its last word among its answers.
        if !self.is_silent() && begun.bytes.is_empty() && encode_event(&mut bytes, &Event::Closing(fault)).is_ok() {
            self.end_late_answers();
            self.said.store(true, Ordering::Relaxed);
            // The connection is closed in any case; what could not be said is not missed.
            let _ = self.stream.write_now(&bytes);
        }
    }

    /// Promises a late answer to request `id`. The session has seen to it that it does not owe too many.
    pub(super) fn promise(self: &Arc<Self>, id: u64) -> LateAnswer {
        self.owe(1);
        LateAnswer::new(Arc::clone(self), id)
    }

    /// Promises as many late answers, to be given together by [`post_answers`](Self::post_answers).
    pub(super) fn owe(&self, answers: usize) {
        self.owed.fetch_add(answers, Ordering::Relaxed);
        self.ungiven.fetch_add(answers, Ordering::Relaxed);
    }

    /// Promises an answer to request `id` that waits for other sessions. It holds up nothing of this one: not its further
    /// requests, which may be what ends the waiting, and not its end. How many there may be is bounded where they wait.
    pub(super) fn promise_whenever(self: &Arc<Self>, id: u64) -> LateAnswer {
        self.whenever.fetch_add(1, Ordering::Relaxed);
        self.ungiven.fetch_add(1, Ordering::Relaxed);
        LateAnswer::whenever(Arc::clone(self), id)
    }

    /// One of those comes now.
    pub(super) fn owe_now(&self) {
        self.owed.fetch_add(1, Ordering::Relaxed);
        self.whenever.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether a request of this session waits for other sessions.
    pub(super) fn waits_whenever(&self) -> bool {
        self.whenever.load(Ordering::Relaxed) > 0
    }

    /// Requests that are not answered yet, whatever they wait for.
    pub(super) fn unanswered(&self) -> usize {
        self.owed() + self.whenever.load(Ordering::Relaxed)
    }

    /// Whether so many late answers are owed that no further request may be begun.
    pub(super) fn is_owing_much(&self) -> bool {
        self.owed() >= MAX_IN_FLIGHT
    }

    /// Waits until `met` or the session is closed; looks again after each change, and after a while.
    pub(super) fn wait_until(&self, met: impl Fn() -> bool) {
        let mut late = self.late.lock();
        while !met() && !self.is_closed() {
            self.late_changed.wait_for(&mut late, LOOK_AGAIN);
        }
    }

    /// Waits until `met`, also when the session is closed meanwhile.
    pub(super) fn wait_whatever_comes(&self, met: impl Fn() -> bool) {
        let mut late = self.late.lock();
        while !met() {
            self.late_changed.wait_for(&mut late, LOOK_AGAIN);
        }
    }

    /// Waits until the session is closed, by somebody else.
    pub(super) fn wait_until_closed(&self) {
        let mut late = self.late.lock();
        while !self.is_closed() {
            self.late_changed.wait(&mut late);
        }
    }

    /// Waits until no late answer is owed, the session is closed, or the deadline has passed.
    pub(super) fn wait_until_settled(&self, deadline: Instant) {
        self.wait_until(|| self.owed() == 0 || Instant::now() >= deadline);
    }

    /// From here on a cancel of request `id` sets what this answers, until the request is answered.
    pub(super) fn cancellable(&self, id: u64) -> Arc<AtomicBool> {
        let wish = Arc::new(AtomicBool::new(false));
        self.late.lock().wishes.push((id, Arc::clone(&wish)));
        wish
    }

    /// The client no longer wants request `id`: whoever carries it out sees it before it begins.
    pub(super) fn cancel(&self, id: u64) -> bool {
        let late = self.late.lock();
        let wish = late.wishes.iter().find(|(wished, _)| *wished == id);
        wish.inspect(|(_, wish)| wish.store(true, Ordering::Relaxed)).is_some()
    }
}

impl Waiting {
    /// What is counted of it.
    fn bytes(&self) -> usize {
        match self {
            Self::Frames { bytes, .. } => bytes.len(),
            Self::Rest(_) => 0,
        }
    }
}
