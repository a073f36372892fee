//! A session's way out: the answers of a batch leave in one `write`, and those that come later find their own way.
//!
//! Two threads may have something to say: the session's own, and its late writer, which exists only once the session
//! has asked for something that is answered later. Neither the flusher nor the syncer ever writes to a socket: they
//! leave the encoded answer here, so a client that does not read holds up nobody but its own session.
//!
//! What can pile up is bounded: the session's buffer is written out above [`SPILL_BYTES`], and at most
//! [`MAX_IN_FLIGHT`] late answers are owed at once, counted until they have left.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::ipc::Stream;
use crate::proto::codec::{EncodeError, encode_answer, encode_event, encode_part};
use crate::proto::limits::{MAX_FRAME_BYTES, MAX_IN_FLIGHT};
use crate::proto::{Answer, Event, Fault};

/// A batch's answers are written out early when they pass this many bytes.
const SPILL_BYTES: usize = 256 * 1024;

/// A buffer that is larger than this is given back after it was written.
const KEPT_BYTES: usize = 1024 * 1024;

/// The writing half of a session, shared by its thread, its late writer, and whoever owes it a late answer.
pub(super) struct Outbox {
    /// The session's number, for the log.
    pub(super) session: u64,
    stream: Arc<Stream>,
    stall_timeout: Duration,
    /// Held while bytes leave, so that frames do not mix.
    turn: Mutex<()>,
    late: Mutex<Late>,
    late_changed: Condvar,
}

#[derive(Default)]
struct Late {
    /// Encoded answers that wait for the late writer.
    bytes: Vec<u8>,
    /// How many answers `bytes` holds.
    frames: usize,
    /// Late answers that are promised and have not left.
    owed: usize,
    closed: bool,
}

impl Outbox {
    pub(super) fn new(session: u64, stream: Arc<Stream>, stall_timeout: Duration) -> Self {
        Self {
            session,
            stream,
            stall_timeout,
            turn: Mutex::new(()),
            late: Mutex::default(),
            late_changed: Condvar::new(),
        }
    }

    /// Writes all of `bytes`. A failure ends the session: nothing more is written, and its reader wakes up.
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let _turn = self.turn.lock();
        self.write_in_turn(bytes)
    }

    fn write_in_turn(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            // The stream's write time-out makes this return when nothing at all could be written for so long.
            match (&*self.stream).write(bytes) {
                Ok(0) => return self.broken(io::ErrorKind::WriteZero.into()),
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.broken(error),
            }
        }
        Ok(())
    }

    fn broken(&self, error: io::Error) -> io::Result<()> {
        let already = std::mem::replace(&mut self.late.lock().closed, true);
        self.late_changed.notify_all();
        if !already && matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
            let seconds = self.stall_timeout.as_secs_f64();
            tracing::warn!(session = self.session, "the client has not read for {seconds} s: its connection is closed");
        }
        self.stream.shutdown();
        Err(error)
    }

    /// Ends the session's writing: later answers are dropped, the late writer ends, a blocked reader wakes up.
    pub(super) fn close(&self) {
        self.late.lock().closed = true;
        self.late_changed.notify_all();
        self.stream.shutdown();
    }

    /// Tells the client why the connection is about to be closed, if that can be done before `deadline`.
    pub(super) fn say_closing(&self, fault: Fault, deadline: Instant) {
        let Some(_turn) = self.turn.try_lock_until(deadline) else { return };
        let left = deadline.saturating_duration_since(Instant::now());
        // A time-out of zero would mean none at all.
        if self.stream.set_write_timeout(Some(left.max(Duration::from_millis(1)))).is_err() {
            return;
        }
        let mut bytes = Vec::new();
        if encode_event(&mut bytes, &Event::Closing(fault)).is_ok() {
            // The connection is closed in any case; what could not be said is not missed.
            let _ = (&*self.stream).write_all(&bytes);
        }
    }

    /// Promises a late answer to request `id`; waits while [`MAX_IN_FLIGHT`] of them are owed.
    pub(super) fn promise(self: &Arc<Self>, id: u64) -> LateAnswer {
        let mut late = self.late.lock();
        while late.owed >= MAX_IN_FLIGHT && !late.closed {
            self.late_changed.wait(&mut late);
        }
        late.owed += 1;
        LateAnswer { outbox: Arc::clone(self), id, answered: false }
    }

    /// Whether [`promise`](Self::promise) would wait.
    pub(super) fn is_owing_much(&self) -> bool {
        self.late.lock().owed >= MAX_IN_FLIGHT
    }

    /// How many late answers are owed.
    pub(super) fn owed(&self) -> usize {
        self.late.lock().owed
    }

    /// Waits until no late answer is owed, the session is closed, or the deadline has passed.
    pub(super) fn wait_until_settled(&self, deadline: Instant) {
        let mut late = self.late.lock();
        while late.owed > 0 && !late.closed {
            if self.late_changed.wait_until(&mut late, deadline).timed_out() {
                return;
            }
        }
    }

    fn post(&self, id: u64, answer: &Answer<'_>) {
        let mut late = self.late.lock();
        if late.closed {
            late.owed -= 1;
        } else {
            encode_or_refuse(&mut late.bytes, id, answer);
            late.frames += 1;
        }
        drop(late);
        self.late_changed.notify_all();
    }

    /// The late writer: runs on a thread of its own until the session is closed.
    pub(super) fn write_late_answers(&self) {
        let mut bytes = Vec::new();
        loop {
            let mut late = self.late.lock();
            while late.frames == 0 && !late.closed {
                self.late_changed.wait(&mut late);
            }
            if late.closed {
                return;
            }
            std::mem::swap(&mut bytes, &mut late.bytes);
            let frames = std::mem::take(&mut late.frames);
            drop(late);
            let outcome = self.write(&bytes);
            clear_and_shrink(&mut bytes);
            self.late.lock().owed -= frames;
            self.late_changed.notify_all();
            if outcome.is_err() {
                return;
            }
        }
    }
}

/// An answer that is owed. One that is dropped unanswered says that the daemon is stopping, since nothing else drops it.
pub(super) struct LateAnswer {
    outbox: Arc<Outbox>,
    id: u64,
    answered: bool,
}

impl LateAnswer {
    /// Gives the answer, without waiting for the client.
    pub(super) fn give(mut self, answer: &Answer<'_>) {
        self.answered = true;
        self.outbox.post(self.id, answer);
    }

    /// Gives the answer, and waits until it has left, the session is closed, or `patience` is over.
    pub(super) fn give_and_wait(self, answer: &Answer<'_>, patience: Duration) {
        let outbox = Arc::clone(&self.outbox);
        self.give(answer);
        outbox.wait_until_settled(Instant::now() + patience);
    }
}

impl Drop for LateAnswer {
    fn drop(&mut self) {
        if !self.answered {
            self.outbox.post(self.id, &Answer::Fault(Fault::Stopping));
        }
    }
}

/// The answers of a batch on their way to one `write`.
pub(super) struct Replies {
    bytes: Vec<u8>,
    outbox: Arc<Outbox>,
    broken: bool,
}

impl Replies {
    pub(super) fn new(outbox: Arc<Outbox>) -> Self {
        Self { bytes: Vec::new(), outbox, broken: false }
    }

    /// The answer to request `id`.
    pub(super) fn answer(&mut self, id: u64, answer: &Answer<'_>) {
        encode_or_refuse(&mut self.bytes, id, answer);
        self.spill();
    }

    /// A refusal as the answer to request `id`.
    pub(super) fn refuse(&mut self, id: u64, fault: Fault) {
        self.answer(id, &Answer::Fault(fault));
    }

    /// A part of the answer to request `id`; [`answer`](Self::answer) gives the last one. False if it was refused as
    /// too large: the request is then answered.
    pub(super) fn part(&mut self, id: u64, answer: &Answer<'_>) -> bool {
        if let Err(error) = encode_part(&mut self.bytes, id, answer) {
            self.refuse(id, too_large(&error));
            return false;
        }
        self.spill();
        true
    }

    /// An event, written out with what is there.
    pub(super) fn event(&mut self, event: &Event) {
        if encode_event(&mut self.bytes, event).is_ok() {
            self.send();
        }
    }

    /// Writes out what is there, with one `write`.
    pub(super) fn send(&mut self) {
        if !self.bytes.is_empty() && !self.broken {
            self.broken = self.outbox.write(&self.bytes).is_err();
        }
        clear_and_shrink(&mut self.bytes);
    }

    /// Whether the connection is gone, so that nothing more need be done for it.
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    fn spill(&mut self) {
        if self.bytes.len() >= SPILL_BYTES {
            self.send();
        }
    }
}

/// An answer can only be too large when a single record is: one that was loaded from a file, or the list of a store
/// with very many namespaces.
fn encode_or_refuse(out: &mut Vec<u8>, id: u64, answer: &Answer<'_>) {
    if let Err(error) = encode_answer(out, id, answer) {
        let refusal = Answer::Fault(too_large(&error));
        encode_answer(out, id, &refusal).expect("a refusal is shorter than a frame");
    }
}

fn too_large(error: &EncodeError) -> Fault {
    let EncodeError::TooLarge { bytes } = error;
    Fault::TooLarge { what: "the answer (bytes)".to_owned(), got: *bytes as u64, limit: MAX_FRAME_BYTES as u64 }
}

fn clear_and_shrink(bytes: &mut Vec<u8>) {
    if bytes.capacity() > KEPT_BYTES {
        *bytes = Vec::new();
    } else {
        bytes.clear();
    }
}
