//! Answers on their way from dispatch to the socket: encoded frames, and what is left of an answer that comes in parts.
//!
//! Nothing here waits. An answer in parts is a [`Parts`]: its next piece is asked for when the client has taken the one
//! before, so that a long answer never lies in memory as a whole.

use crate::proto::codec::{EncodeError, encode_answer, encode_event, encode_part};
use crate::proto::limits::MAX_FRAME_BYTES;
use crate::proto::{Answer, Event, Fault};

/// Answers are sent before further requests are served when they pass this many bytes.
pub(super) const SPILL_BYTES: usize = 256 * 1024;

/// A buffer that is larger than this is given back after it was written.
const KEPT_BYTES: usize = 1024 * 1024;

/// An answer that is made piece by piece.
pub(super) trait Parts: Send {
    /// Gives the next piece: [`Piece::part`] when more will come, [`Piece::last`] when not.
    fn next(&mut self, piece: &mut Piece<'_>);
}

/// Where a piece of an answer goes.
pub(super) struct Piece<'a> {
    bytes: &'a mut Vec<u8>,
    id: u64,
    more: bool,
}

/// What is left of an answer in parts, and which request it answers.
pub(super) struct Rest {
    id: u64,
    parts: Box<dyn Parts>,
}

/// The answers of a batch.
#[derive(Default)]
pub(super) struct Replies {
    pub(super) bytes: Vec<u8>,
    /// What follows the bytes.
    pub(super) rest: Option<Rest>,
}

impl Piece<'_> {
    /// A piece that is not the last.
    pub(super) fn part(&mut self, answer: &Answer<'_>) {
        match encode_part(self.bytes, self.id, answer) {
            Ok(()) => self.more = true,
            Err(error) => encode_refusal(self.bytes, self.id, error),
        }
    }

    /// The last piece.
    pub(super) fn last(&mut self, answer: &Answer<'_>) {
        encode_or_refuse(self.bytes, self.id, answer);
    }
}

impl Rest {
    /// Adds the next piece; what is left then.
    pub(super) fn pull(mut self, bytes: &mut Vec<u8>) -> Option<Self> {
        let mut piece = Piece { bytes, id: self.id, more: false };
        self.parts.next(&mut piece);
        piece.more.then_some(self)
    }
}

impl Replies {
    /// The answer to request `id`.
    pub(super) fn answer(&mut self, id: u64, answer: &Answer<'_>) {
        encode_or_refuse(&mut self.bytes, id, answer);
    }

    /// A refusal as the answer to request `id`.
    pub(super) fn refuse(&mut self, id: u64, fault: Fault) {
        self.answer(id, &Answer::Fault(fault));
    }

    /// An answer to request `id` that comes in parts. Its first is made now; nothing else may be answered before the last.
    pub(super) fn stream(&mut self, id: u64, parts: Box<dyn Parts>) {
        debug_assert!(self.rest.is_none(), "one answer in parts at a time");
        self.rest = Rest { id, parts }.pull(&mut self.bytes);
    }

    /// Adds the next part of the answer that is not whole yet.
    pub(super) fn pull(&mut self) {
        self.rest = self.rest.take().and_then(|rest| rest.pull(&mut self.bytes));
    }

    pub(super) fn event(&mut self, event: &Event) {
        // An event is short; should it not be, the connection is closed without it.
        let _ = encode_event(&mut self.bytes, event);
    }

    /// Whether they should be sent before anything else is served.
    pub(super) fn must_leave(&self) -> bool {
        self.rest.is_some() || self.bytes.len() >= SPILL_BYTES
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.rest.is_none()
    }

    /// Forgets the bytes, which have been sent.
    pub(super) fn sent(&mut self) {
        clear_and_shrink(&mut self.bytes);
    }
}

/// The frame of one answer.
pub(super) fn frame_of(id: u64, answer: &Answer<'_>) -> Vec<u8> {
    let mut frame = Vec::new();
    encode_or_refuse(&mut frame, id, answer);
    frame
}

pub(super) fn clear_and_shrink(bytes: &mut Vec<u8>) {
    if bytes.capacity() > KEPT_BYTES {
        *bytes = Vec::new();
    } else {
        bytes.clear();
    }
}

/// An answer can only be too large when a single record is: one that was loaded from a file, or the status of a store
/// with very many namespaces.
fn encode_or_refuse(out: &mut Vec<u8>, id: u64, answer: &Answer<'_>) {
    if let Err(error) = encode_answer(out, id, answer) {
        encode_refusal(out, id, error);
    }
}

fn encode_refusal(out: &mut Vec<u8>, id: u64, error: EncodeError) {
    let EncodeError::TooLarge { bytes } = error;
    let fault = Fault::TooLarge { what: "bytes in the answer".to_owned(), got: bytes, limit: MAX_FRAME_BYTES as u64 };
    encode_answer(out, id, &Answer::Fault(fault)).expect("a refusal is shorter than a frame");
}
