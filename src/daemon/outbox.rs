//! A session's way out: the answers of a batch leave in one `write`, and those that come later find their own way.
//!
//! Two threads may have something to say: the session's own, and whoever owes it a late answer (the flusher, the
//! syncer). The latter never wait for a client: they write what the socket takes at once, and leave the rest here for a
//! late writer, a thread that exists only while there is such a rest. So a client that does not read holds up nobody but
//! its own session.
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

/// The stack of the threads that serve connections: nothing in them recurses over what a client sends.
pub(super) const STACK_BYTES: usize = 512 * 1024;

/// A buffer that is larger than this is given back after it was written.
const KEPT_BYTES: usize = 1024 * 1024;

/// The writing half of a session, shared by its thread and by whoever owes it a late answer.
pub(super) struct Outbox {
    /// The session's number, for the log.
    pub(super) session: u64,
    stream: Arc<Stream>,
    stall_timeout: Duration,
    /// Held while bytes leave, so that frames do not mix. Inside is the rest of a frame that has left in part: it goes
    /// before anything else.
    turn: Mutex<Vec<u8>>,
    late: Mutex<Late>,
    late_changed: Condvar,
}

#[derive(Default)]
struct Late {
    /// Encoded answers that wait for the late writer.
    bytes: Vec<u8>,
    /// How many answers wait for it, those that have left in part included.
    frames: usize,
    /// Late answers that are promised and have not left.
    owed: usize,
    /// Whether the late writer runs.
    writer: bool,
    closed: bool,
}

impl Outbox {
    pub(super) fn new(session: u64, stream: Arc<Stream>, stall_timeout: Duration) -> Self {
        let (turn, late) = (Mutex::default(), Mutex::default());
        Self { session, stream, stall_timeout, turn, late, late_changed: Condvar::new() }
    }

    /// Writes all of `bytes`. A failure ends the session: nothing more is written, and its reader wakes up.
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = self.turn.lock();
        if !rest.is_empty() {
            self.write_all(&rest)?;
            *rest = Vec::new();
        }
        self.write_all(bytes)
    }

    fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
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

    /// Ends the session's writing: later answers are dropped, whoever is blocked in the stream wakes up.
    pub(super) fn close(&self) {
        self.late.lock().closed = true;
        self.late_changed.notify_all();
        self.stream.shutdown();
    }

    /// Waits until the late writer has ended; after [`close`](Self::close) that is at once.
    pub(super) fn wait_for_late_writer(&self) {
        let mut late = self.late.lock();
        while late.writer {
            self.late_changed.wait(&mut late);
        }
    }

    /// Tells the client why the connection is about to be closed, if it takes that at once.
    pub(super) fn say_closing(&self, fault: Fault) {
        let Some(rest) = self.turn.try_lock() else { return };
        let mut bytes = Vec::new();
        if rest.is_empty() && encode_event(&mut bytes, &Event::Closing(fault)).is_ok() {
            // The connection is closed in any case; what could not be said is not missed.
            let _ = self.stream.write_now(&bytes);
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

    /// Waits until no late answer is owed, the session is closed, or the deadline has passed.
    fn wait_until_settled(&self, deadline: Instant) {
        let mut late = self.late.lock();
        while late.owed > 0 && !late.closed {
            if self.late_changed.wait_until(&mut late, deadline).timed_out() {
                return;
            }
        }
    }

    /// Lets a late answer leave: now if the client takes it at once, else by the late writer.
    fn post(self: &Arc<Self>, id: u64, answer: &Answer<'_>) {
        let mut frame = Vec::new();
        encode_or_refuse(&mut frame, id, answer);
        let mut late = self.late.lock();
        let left = if late.closed {
            Left::All
        } else if late.frames > 0 {
            Left::Nothing
        } else {
            self.write_now(&frame)
        };
        if left == Left::All {
            late.owed -= 1;
        } else {
            if left == Left::Nothing {
                late.bytes.extend_from_slice(&frame);
            }
            late.frames += 1;
            self.start_late_writer(&mut late);
        }
        drop(late);
        self.late_changed.notify_all();
    }

    /// Writes what the socket takes without waiting for the client, or for whoever is writing.
    fn write_now(&self, frame: &[u8]) -> Left {
        let Some(mut rest) = self.turn.try_lock() else { return Left::Nothing };
        if !rest.is_empty() {
            return Left::Nothing;
        }
        let mut sent = 0;
        while sent < frame.len() {
            match self.stream.write_now(&frame[sent..]) {
                Ok(written) => sent += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {
                    // Nobody will read it; the session's own thread finds out as well, and ends.
                    self.stream.shutdown();
                    return Left::All;
                }
            }
        }
        match sent {
            0 => Left::Nothing,
            _ if sent == frame.len() => Left::All,
            _ => {
                *rest = frame[sent..].to_vec();
                Left::Part
            }
        }
    }

    fn start_late_writer(self: &Arc<Self>, late: &mut Late) {
        if late.writer {
            return;
        }
        let outbox = Arc::clone(self);
        let builder = std::thread::Builder::new().name("late-answers".to_owned()).stack_size(STACK_BYTES);
        match builder.spawn(move || outbox.write_late_answers()) {
            Ok(_) => late.writer = true,
            Err(error) => {
                tracing::error!(session = self.session, "no thread for late answers, the session ends: {error}");
                late.closed = true;
                self.stream.shutdown();
            }
        }
    }

    /// The late writer: ends when nothing is left to write, or the session is over.
    fn write_late_answers(&self) {
        let mut bytes = Vec::new();
        loop {
            let mut late = self.late.lock();
            if late.frames == 0 || late.closed {
                late.writer = false;
                break;
            }
            std::mem::swap(&mut bytes, &mut late.bytes);
            let frames = std::mem::take(&mut late.frames);
            drop(late);
            // A failure has closed the session, which ends this loop.
            let _ = self.write(&bytes);
            clear_and_shrink(&mut bytes);
            self.late.lock().owed -= frames;
            self.late_changed.notify_all();
        }
        self.late_changed.notify_all();
    }
}

/// How much of a frame has left.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    All,
    Part,
    Nothing,
}

/// An answer that is owed. One that is dropped unanswered says that the daemon is stopping, since nothing else drops it.
pub(super) struct LateAnswer {
    outbox: Arc<Outbox>,
    id: u64,
    answered: bool,
}

impl LateAnswer {
    /// The number of the session that it goes to.
    pub(super) fn session(&self) -> u64 {
        self.outbox.session
    }

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
            self.refuse(id, too_large(error));
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
        let refusal = Answer::Fault(too_large(error));
        encode_answer(out, id, &refusal).expect("a refusal is shorter than a frame");
    }
}

fn too_large(error: EncodeError) -> Fault {
    let EncodeError::TooLarge { bytes } = error;
    Fault::TooLarge { what: "bytes in the answer".to_owned(), got: bytes, limit: MAX_FRAME_BYTES as u64 }
}

fn clear_and_shrink(bytes: &mut Vec<u8>) {
    if bytes.capacity() > KEPT_BYTES {
        *bytes = Vec::new();
    } else {
        bytes.clear();
    }
}
