//! One connection, served by a blocking thread of its own.
//!
//! The loop reads whatever is there, serves every whole frame of it, and writes all answers at once. Writes that follow
//! each other are committed together; anything else first commits what is queued, so that the effects of one session
//! come in the order sent. Nothing here can hold up another session: what waits, waits on this thread.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::engine::WriteRequest;
use crate::ipc::Stream;
use crate::proto::codec::decode_request;
use crate::proto::frame::FrameKind;
use crate::proto::{Answer, Event, Fault, Place, Request, Seq, Verb};

use super::Daemon;
use super::dispatch::{prepare_write, read};
use super::fault::timed_out;
use super::flusher::{Done, Wish};
use super::handshake::{Greeting, greet};
use super::inbox::Inbox;
use super::outbox::{LateAnswer, Outbox, Replies};
use super::syncer::Commit;
use super::tables::Tables;

/// Queued writes are committed when their frames pass this many bytes together, whatever else has been read.
const COMMIT_BYTES: usize = 4 * 1024 * 1024;

/// Serves a connection from its first byte to its last.
pub(super) fn serve(daemon: &Arc<Daemon>, stream: &Arc<Stream>, outbox: &Arc<Outbox>) {
    let span = tracing::debug_span!("session", number = outbox.session);
    let _in_span = span.enter();
    match greet(stream, daemon.host()) {
        Greeting::Welcome { client } => {
            if stream.set_write_timeout(Some(daemon.options().stall_timeout)).is_err() {
                return;
            }
            tracing::debug!(client = format_args!("{client:032x}"), pid = pid_of(stream), "session begins");
            Session::new(daemon, outbox).run(stream);
            tracing::debug!("session ends");
        }
        Greeting::Unwanted(fault) => {
            tracing::warn!(pid = pid_of(stream), "connection refused: {fault}");
            outbox.say_closing(fault);
        }
        Greeting::Nobody(error) => tracing::debug!("a connection ended before its hello: {error}"),
    }
}

/// Makes a read end when the frame that is being received is due.
fn limit_reading(stream: &Stream, due: Option<Instant>) -> io::Result<()> {
    stream.set_read_timeout(due.map(|due| due.saturating_duration_since(Instant::now())))
}

fn pid_of(stream: &Stream) -> Option<u32> {
    stream.peer().ok()?.pid
}

struct Session<'a> {
    daemon: &'a Arc<Daemon>,
    outbox: &'a Arc<Outbox>,
    replies: Replies,
    tables: Tables,
    queue: WriteQueue,
    /// When the bytes that are being served were read: where their deadlines begin.
    read_at: Instant,
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

/// Whether the session goes on.
enum Next {
    Read,
    Close(Fault),
    End,
}

impl<'a> Session<'a> {
    fn new(daemon: &'a Arc<Daemon>, outbox: &'a Arc<Outbox>) -> Self {
        Self {
            daemon,
            outbox,
            replies: Replies::new(Arc::clone(outbox)),
            tables: Tables::new(Arc::clone(daemon.store())),
            queue: WriteQueue::default(),
            read_at: Instant::now(),
        }
    }

    fn run(mut self, stream: &Stream) {
        let mut inbox = Inbox::new(Arc::clone(self.daemon.large_frames()));
        let mut due = None;
        loop {
            inbox.make_room();
            // A large frame is due at a time; nothing else is waited for in haste.
            if (due.is_some() || inbox.due().is_some()) && limit_reading(stream, inbox.due()).is_err() {
                break;
            }
            due = inbox.due();
            match inbox.fill(stream) {
                Ok(0) => break,
                Ok(_) => self.read_at = Instant::now(),
                Err(error) if due.is_some() && error.kind() == ErrorKind::WouldBlock => {
                    let fault = timed_out(self.daemon.options().stall_timeout, "the rest of a large frame");
                    tracing::warn!(session = self.outbox.session, "connection closed: {fault}");
                    self.replies.event(&Event::Closing(fault));
                    break;
                }
                Err(error) => {
                    tracing::debug!("the connection broke: {error}");
                    break;
                }
            }
            match self.serve_batch(&mut inbox) {
                Next::Read => {}
                Next::Close(fault) => {
                    tracing::warn!(session = self.outbox.session, "connection closed: {fault}");
                    self.replies.event(&Event::Closing(fault));
                    break;
                }
                Next::End => break,
            }
        }
        self.outbox.close();
        self.outbox.wait_for_late_writer();
    }

    /// Serves every whole frame that was read, and sends the answers.
    fn serve_batch(&mut self, inbox: &mut Inbox) -> Next {
        let fault = loop {
            match inbox.next() {
                Ok(None) => break None,
                Ok(Some((header, body))) => {
                    let body = inbox.body(body);
                    match header.kind {
                        FrameKind::Request => self.request(header.id, body),
                        FrameKind::Cancel => self.cancel(header.id),
                        kind => {
                            let reason = format!("a client sent a frame of kind {}: only daemons send it", kind as u8);
                            break Some(Fault::Malformed { reason });
                        }
                    }
                }
                Err(error) => break Some(error.into()),
            }
            if self.replies.is_broken() {
                return Next::End;
            }
        };
        // What came before the bad frame was good: it is served and answered first.
        self.commit_queue();
        self.replies.send();
        match fault {
            Some(fault) => Next::Close(fault),
            None if self.replies.is_broken() => Next::End,
            None => Next::Read,
        }
    }

    fn request(&mut self, id: u64, body: &[u8]) {
        let Request { deadline_ms, verb } = match decode_request(body) {
            Ok(request) => request,
            Err(error) => return self.replies.refuse(id, error.into()),
        };
        let asker = Asker { id, deadline_ms, read_at: self.read_at };
        if let Verb::Write(write) = &verb {
            return match prepare_write(self.daemon.store(), &mut self.tables, write) {
                Ok(request) => self.queue_write(asker, request, body.len()),
                Err(fault) => self.replies.refuse(id, fault),
            };
        }
        self.commit_queue();
        if let Some(waited) = asker.overdue() {
            return self.replies.refuse(id, timed_out(waited, "the requests sent before it"));
        }
        match verb {
            Verb::Commit => self.commit(asker),
            Verb::Flush { space, rewrite, wait } => {
                let place = space.map(|space| space.place()).transpose();
                match place {
                    Ok(place) => self.flush(asker, place, rewrite, wait),
                    Err(error) => self.replies.refuse(id, error.into()),
                }
            }
            Verb::Stop => {
                let answer = self.promise(id);
                self.daemon.request_stop(answer);
            }
            _ => read(self.daemon, &mut self.tables, id, &verb, &mut self.replies),
        }
    }

    fn queue_write(&mut self, asker: Asker, request: WriteRequest, bytes: usize) {
        // What a small request changes may be large.
        self.queue.bytes += bytes.max(request.weight());
        self.queue.requests.push(request);
        self.queue.askers.push(asker);
        self.queue.timed |= asker.deadline_ms != 0;
        if self.queue.bytes >= COMMIT_BYTES {
            self.commit_queue();
        }
    }

    /// Commits the writes that are queued, as one call, and answers them.
    fn commit_queue(&mut self) {
        if self.queue.requests.is_empty() {
            return;
        }
        if self.queue.timed {
            self.refuse_overdue();
        }
        let queue = &mut self.queue;
        let requests = std::mem::take(&mut queue.requests);
        // Held shared while writes run: a stop waits for them, and those that come later are refused.
        let gate = self.daemon.gate();
        let outcomes = if *gate { self.daemon.store().write(requests) } else { Vec::new() };
        drop(gate);
        if outcomes.is_empty() {
            queue.askers.iter().for_each(|asker| self.replies.refuse(asker.id, Fault::Stopping));
        }
        for (asker, outcome) in queue.askers.iter().zip(outcomes) {
            match outcome {
                Ok(written) => {
                    let crate::engine::Written { seq, new, found, surrogates_removed } = written;
                    self.replies.answer(asker.id, &Answer::Written { seq, new, found, surrogates_removed });
                }
                Err(error) => self.replies.refuse(asker.id, Fault::from(&error)),
            }
        }
        queue.askers.clear();
        queue.bytes = 0;
        queue.timed = false;
    }

    fn refuse_overdue(&mut self) {
        let queue = &mut self.queue;
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

    /// A write that is still queued is not begun; all else was begun when its frame was read, and is finished.
    fn cancel(&mut self, id: u64) {
        if let Some(at) = self.queue.askers.iter().position(|asker| asker.id == id) {
            self.queue.askers.remove(at);
            self.queue.requests.remove(at);
            self.replies.refuse(id, Fault::Cancelled);
        }
    }

    fn commit(&mut self, asker: Asker) {
        let store = self.daemon.store();
        let seq = store.applied();
        let synced = store.synced();
        if synced >= seq {
            return self.replies.answer(asker.id, &Answer::Committed { seq: synced });
        }
        let answer = self.promise(asker.id);
        let waiter = move |outcome: Result<Seq, Fault>| match outcome {
            Ok(seq) => answer.give(&Answer::Committed { seq }),
            Err(fault) => answer.give(&Answer::Fault(fault)),
        };
        let (since, deadline) = (asker.read_at, asker.deadline());
        self.daemon.syncer().commit(Commit { seq, since, deadline, waiter: Box::new(waiter) });
    }

    fn flush(&mut self, asker: Asker, place: Option<Place>, rewrite: bool, wait: bool) {
        if !*self.daemon.gate() {
            return self.replies.refuse(asker.id, Fault::Stopping);
        }
        let wish = Wish { rewrite, since: asker.read_at, deadline: asker.deadline() };
        if !wait {
            self.daemon.flusher().flush(place, Wish { deadline: None, ..wish }, Box::new(|_| ()));
            return self.replies.answer(asker.id, &Answer::Done);
        }
        let answer = self.promise(asker.id);
        let waiter = move |outcome: Result<Done, Fault>| match outcome {
            Ok(Done { rewritten, seq }) => answer.give(&Answer::Flushed { rewritten, seq }),
            Err(fault) => answer.give(&Answer::Fault(fault)),
        };
        self.daemon.flusher().flush(place, wish, Box::new(waiter));
    }

    /// A place for an answer that comes later. While too many are owed the session takes no further request, which is
    /// what bounds it; the answers it has are sent before it waits.
    fn promise(&mut self, id: u64) -> LateAnswer {
        if self.outbox.is_owing_much() {
            self.replies.send();
        }
        self.outbox.promise(id)
    }
}
