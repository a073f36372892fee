//! How answers that come later leave a session: by whoever gives them, as far as the client takes them at once, and the
//! rest by a thread that exists only while there is one, or by the session's own task.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;

use crate::proto::Answer;

use super::outbox::{Begun, Late, Outbox, STACK_BYTES, Waiting};
use super::replies::{Replies, frame_of};

/// How far [`Outbox::push`] has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// Everything has left.
    All,
    /// The socket takes no more for now.
    Full,
}

/// How much of a frame has left.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    All,
    Part,
    Nothing,
}

impl Outbox {
    /// Lets a late answer leave: now if the client takes it at once, else when it does.
    pub(super) fn post(self: &Arc<Self>, id: u64, answer: &Answer<'_>) {
        self.post_replies(id, Replies { bytes: frame_of(id, answer), rest: None });
    }

    /// As [`post`](Self::post), for an answer that may come in parts.
    pub(super) fn post_replies(self: &Arc<Self>, id: u64, replies: Replies) {
        self.ungiven.fetch_sub(1, Ordering::Release);
        let mut late = self.late.lock();
        late.wishes.retain(|(wished, _)| *wished != id);
        self.post_in(late, replies, 1);
    }

    /// As [`post`](Self::post), for so many answers at once that no cancel can reach.
    pub(super) fn post_answers(self: &Arc<Self>, bytes: Vec<u8>, answers: usize) {
        self.ungiven.fetch_sub(answers, Ordering::Release);
        self.post_in(self.late.lock(), Replies { bytes, rest: None }, answers);
    }

    fn post_in(self: &Arc<Self>, mut late: MutexGuard<'_, Late>, replies: Replies, answers: usize) {
        let Replies { bytes, rest } = replies;
        let ending = if rest.is_none() { answers } else { 0 };
        let left = if self.is_silent() {
            Left::All
        } else if late.waiting.is_empty() {
            self.begin(&bytes, ending)
        } else {
            Left::Nothing
        };
        if left == Left::All && (rest.is_none() || self.is_silent()) {
            drop(late);
            return self.settle(answers);
        }
        if left == Left::Nothing {
            self.count(bytes.len());
            match late.waiting.back_mut() {
                Some(Waiting::Frames { bytes: last, answers: of }) => {
                    last.extend_from_slice(&bytes);
                    *of += ending;
                }
                _ => late.waiting.push_back(Waiting::Frames { bytes, answers: ending }),
            }
        }
        late.waiting.extend(rest.map(Waiting::Rest));
        self.start_late_writer(&mut late);
        drop(late);
        self.wake();
    }

    /// Lets a piece of an answer that goes on leave, as [`post`](Self::post) does. It is not counted among those that are owed.
    pub(super) fn post_part(self: &Arc<Self>, bytes: Vec<u8>) {
        let mut late = self.late.lock();
        if self.is_silent() {
            return;
        }
        let left = if late.waiting.is_empty() { self.begin(&bytes, 0) } else { Left::Nothing };
        match left {
            Left::All => return,
            Left::Part => {}
            Left::Nothing => {
                self.count(bytes.len());
                late.waiting.push_back(Waiting::Frames { bytes, answers: 0 });
            }
        }
        self.start_late_writer(&mut late);
        drop(late);
        self.wake();
    }

    /// Sends the session's own answers as far as the client takes them at once, by a thread that others wait for. False if some
    /// have left in part: the rest goes before anything else, and [`write`](Self::write) waits for it.
    pub(super) fn write_at_once(&self, replies: &mut Replies) -> bool {
        debug_assert!(replies.rest.is_none(), "the rest of an answer leaves before anything is committed");
        let left = self.begin(&replies.bytes, 0);
        if left != Left::Nothing {
            replies.sent();
        }
        left != Left::Part
    }

    /// Writes what the socket takes without waiting for the client, or for whoever is writing. The rest of a frame that
    /// has left in part is kept for whoever writes next.
    fn begin(&self, frames: &[u8], answers: usize) -> Left {
        let Some(mut begun) = self.turn.try_lock() else { return Left::Nothing };
        if !begun.bytes.is_empty() {
            return Left::Nothing;
        }
        match self.write_now(frames) {
            // The session finds out as well, and ends.
            Err(_) => Left::All,
            Ok(sent) if sent == frames.len() => Left::All,
            Ok(0) => Left::Nothing,
            Ok(sent) => {
                self.count(frames.len() - sent);
                *begun = Begun { bytes: frames[sent..].to_vec(), at: 0, late: answers };
                Left::Part
            }
        }
    }

    /// Writes as much as the socket takes. An error means that nobody will read any more.
    fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut sent = 0;
        while sent < bytes.len() {
            match self.stream.write_now(&bytes[sent..]) {
                Ok(written) => sent += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    self.stream.shutdown();
                    return Err(error);
                }
            }
        }
        Ok(sent)
    }

    /// Writes what the socket takes: what was begun, then the session's own answers, then late ones. What has left in part
    /// is kept here, so that `replies` is empty when this returns [`Pushed::All`], and its bytes are always taken over.
    pub(super) fn push(&self, replies: &mut Replies) -> io::Result<Pushed> {
        let mut begun = self.turn.lock();
        let outcome = self.push_in_turn(&mut begun, replies);
        if outcome.is_err() {
            self.uncount_begun(&mut begun);
            drop(begun);
            self.close();
        }
        outcome
    }

    fn push_in_turn(&self, begun: &mut Begun, replies: &mut Replies) -> io::Result<Pushed> {
        loop {
            if self.is_closed() || self.said.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::NotConnected.into());
            }
            if begun.at < begun.bytes.len() {
                let sent = self.write_now(&begun.bytes[begun.at..])?;
                begun.at += sent;
                self.uncount(sent);
                if begun.at < begun.bytes.len() {
                    return Ok(Pushed::Full);
                }
            }
            let done = std::mem::take(begun);
            self.settle(done.late);
            if !replies.bytes.is_empty() {
                let sent = self.write_now(&replies.bytes)?;
                if sent < replies.bytes.len() {
                    self.count(replies.bytes.len() - sent);
                    *begun = Begun { bytes: std::mem::take(&mut replies.bytes), at: sent, late: 0 };
                    return Ok(Pushed::Full);
                }
                replies.sent();
            }
            match self.next_late() {
                None => return Ok(Pushed::All),
                Some((bytes, late)) => *begun = Begun { bytes, at: 0, late },
            }
        }
    }

    /// What waits longest, or its next piece, and how many late answers end in it. It is counted.
    fn next_late(&self) -> Option<(Vec<u8>, usize)> {
        let waiting = self.late.lock().waiting.pop_front()?;
        Some(match waiting {
            Waiting::Frames { bytes, answers } => (bytes, answers),
            Waiting::Rest(rest) => {
                let mut bytes = Vec::new();
                let more = rest.pull(&mut bytes);
                self.count(bytes.len());
                let is_last = more.is_none();
                if let Some(more) = more {
                    self.late.lock().waiting.push_front(Waiting::Rest(more));
                }
                (bytes, usize::from(is_last))
            }
        })
    }

    /// So many late answers have left.
    pub(super) fn settle(&self, answers: usize) {
        if answers > 0 {
            self.owed.fetch_sub(answers, Ordering::Relaxed);
            self.tell();
        }
    }

    fn start_late_writer(self: &Arc<Self>, late: &mut Late) {
        if late.writer || self.task.is_some() {
            return;
        }
        let outbox = Arc::clone(self);
        let builder = std::thread::Builder::new().name("late-answers".to_owned()).stack_size(STACK_BYTES);
        match builder.spawn(move || outbox.write_late_answers()) {
            Ok(_) => late.writer = true,
            Err(error) => {
                tracing::error!(session = self.session, "no thread for late answers, the session ends: {error}");
                self.closed.store(true, Ordering::Release);
                self.stream.shutdown();
            }
        }
    }

    /// The late writer: ends when nothing is left to write, or the session is over.
    fn write_late_answers(&self) {
        loop {
            let mut late = self.late.lock();
            // Whoever has the turn now writes what was begun, before anything of its own.
            let is_idle = || late.waiting.is_empty() && self.turn.try_lock().is_none_or(|begun| begun.bytes.is_empty());
            if self.is_silent() || is_idle() {
                late.writer = false;
                break;
            }
            drop(late);
            let (bytes, answers) = self.next_late().unwrap_or_default();
            let mut begun = self.turn.lock();
            if self.is_silent() || self.finish(&mut begun).is_err() {
                // The session is closed, or has sent its last word meanwhile: that ends this loop.
                self.uncount(bytes.len());
                continue;
            }
            *begun = Begun { bytes, at: 0, late: answers };
            let _ = self.finish(&mut begun);
        }
        self.late_changed.notify_all();
    }
}
