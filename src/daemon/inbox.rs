//! A session's read buffer: bytes from the socket, given out as whole frames.
//!
//! It never holds more than twice what the peer has really sent: a frame's announced length is checked when its header
//! arrives, but the buffer grows only as its bytes do. So a length of 64 MiB followed by silence costs nothing.

use std::io::{self, Read};
use std::ops::Range;

use crate::proto::frame::{self, FRAME_HEADER_BYTES, FrameError, FrameHeader};
use crate::proto::limits::MAX_FRAME_BYTES;

/// What a session begins with, and what it comes back to after large frames.
const INITIAL_BYTES: usize = 64 * 1024;

/// A buffer that is larger than this is given back as soon as it is empty.
const KEPT_BYTES: usize = 1024 * 1024;

/// Most bytes a buffer can need: one whole frame with its length field.
const MOST_BYTES: usize = MAX_FRAME_BYTES + FRAME_HEADER_BYTES;

/// The read buffer. `bytes[start..end]` has arrived and was not yet given out.
pub(super) struct Inbox {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Inbox {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; INITIAL_BYTES], start: 0, end: 0 }
    }

    /// Waits for bytes and takes what is there, with one `read`. `Ok(0)` is the end of the stream.
    pub(super) fn fill(&mut self, mut from: impl Read) -> io::Result<usize> {
        self.make_room();
        loop {
            match from.read(&mut self.bytes[self.end..]) {
                Ok(read) => {
                    self.end += read;
                    return Ok(read);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The next whole frame: its header, and where its body lies, for [`body`](Self::body). None if more bytes are
    /// needed.
    pub(super) fn next(&mut self) -> Result<Option<(FrameHeader, Range<usize>)>, FrameError> {
        let Some((header, body, consumed)) = frame::split(&self.bytes[self.start..self.end])? else {
            return Ok(None);
        };
        let body_end = self.start + consumed;
        let range = body_end - body.len()..body_end;
        self.start = body_end;
        Ok(Some((header, range)))
    }

    /// The bytes of a frame's body; valid until the next [`fill`](Self::fill).
    pub(super) fn body(&self, range: Range<usize>) -> &[u8] {
        &self.bytes[range]
    }

    fn make_room(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.bytes.len() > KEPT_BYTES {
                self.bytes = vec![0; INITIAL_BYTES];
            }
            return;
        }
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.bytes.len() {
            // Full without a whole frame: `next` has accepted its length, so it is within the limit.
            let grown = (self.bytes.len() * 2).min(MOST_BYTES);
            self.bytes.resize(grown, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::codec::encode_cancel;
    use crate::proto::frame::FrameKind;

    #[test]
    fn frames_come_out_whole_however_the_bytes_arrive() {
        let mut sent = Vec::new();
        for id in 1..=200 {
            encode_cancel(&mut sent, id);
        }
        for step in [1, 2, 7, 13, 64, sent.len()] {
            let mut inbox = Inbox::new();
            let mut ids = Vec::new();
            for piece in sent.chunks(step) {
                assert_eq!(inbox.fill(piece).expect("a slice can be read"), piece.len());
                while let Some((header, body)) = inbox.next().expect("the frames are good") {
                    assert_eq!((header.kind, inbox.body(body).len()), (FrameKind::Cancel, 0));
                    ids.push(header.id);
                }
            }
            assert_eq!(ids, (1..=200).collect::<Vec<_>>(), "in steps of {step}");
        }
    }

    #[test]
    fn a_large_announced_length_costs_nothing_before_its_bytes_arrive() {
        let mut inbox = Inbox::new();
        let mut header = Vec::from((MAX_FRAME_BYTES as u32).to_le_bytes());
        header.extend_from_slice(&1u64.to_le_bytes());
        header.push(1);
        inbox.fill(&header[..]).expect("a slice can be read");
        assert!(inbox.next().expect("the length is within the limit").is_none());
        assert_eq!(inbox.bytes.len(), INITIAL_BYTES);
        let half = vec![0; 300_000];
        let mut rest = &half[..];
        while !rest.is_empty() {
            inbox.fill(&mut rest).expect("a slice can be read");
        }
        assert!(inbox.bytes.len() <= 2 * (half.len() + header.len()), "{}", inbox.bytes.len());
    }

    #[test]
    fn a_length_above_the_limit_is_refused() {
        let mut inbox = Inbox::new();
        let mut header = Vec::from((MAX_FRAME_BYTES as u32 + 1).to_le_bytes());
        header.extend_from_slice(&[0; 9]);
        inbox.fill(&header[..]).expect("a slice can be read");
        assert!(inbox.next().is_err());
    }

    #[test]
    fn a_large_buffer_is_given_back_once_it_is_empty() {
        let mut inbox = Inbox::new();
        let body = vec![0; 3 * 1024 * 1024];
        let mut sent = Vec::from((body.len() as u32 + 9).to_le_bytes());
        sent.extend_from_slice(&7u64.to_le_bytes());
        sent.push(1);
        sent.extend_from_slice(&body);
        let mut rest = &sent[..];
        while !rest.is_empty() {
            inbox.fill(&mut rest).expect("a slice can be read");
        }
        let (header, range) = inbox.next().expect("a good frame").expect("a whole frame");
        assert_eq!((header.id, inbox.body(range).len()), (7, body.len()));
        inbox.fill(&b"x"[..]).expect("a slice can be read");
        assert_eq!(inbox.bytes.len(), INITIAL_BYTES);
    }
}
