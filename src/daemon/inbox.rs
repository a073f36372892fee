//! A session's read buffer: bytes from the socket, given out as whole frames.
//!
//! It never holds more than twice what the peer has really sent: a frame's announced length is checked when its header
//! arrives, but the buffer grows only as its bytes do. So a length of 64 MiB followed by silence costs nothing. And it
//! grows beyond [`KEPT_BYTES`] only in a [place](super::large) of which there are few, so that all sessions together
//! stay bounded, too.

use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use crate::proto::frame::{self, FrameError, FrameHeader};

use super::large::{LargeFramePlace, LargeFrames};

/// What a session begins with, and what it comes back to after large frames.
const INITIAL_BYTES: usize = 64 * 1024;

/// A buffer that is larger than this is given back as soon as it is empty.
const KEPT_BYTES: usize = 1024 * 1024;

/// The read buffer. `bytes[start..end]` has arrived and was not yet given out.
pub(super) struct Inbox {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    large: Arc<LargeFrames>,
    /// Held while the buffer is larger than [`KEPT_BYTES`]; it then ends where the large frame does.
    place: Option<LargeFramePlace>,
}

impl Inbox {
    pub(super) fn new(large: Arc<LargeFrames>) -> Self {
        Self { bytes: vec![0; INITIAL_BYTES], start: 0, end: 0, large, place: None }
    }

    /// When the frame that is being received must have arrived, if it is a large one.
    pub(super) fn due(&self) -> Option<Instant> {
        self.place.as_ref().map(|place| place.due)
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

    /// Gives back what is served, and sees to it that there is room for more; may wait for a place for a large frame.
    pub(super) fn make_room(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.bytes.len() > KEPT_BYTES {
                self.bytes = vec![0; INITIAL_BYTES];
                self.place = None;
            }
            return;
        }
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.bytes.len() {
            self.grow();
        }
    }

    /// The buffer is full without a whole frame. `next` has accepted the frame's length, so it is within the limit.
    fn grow(&mut self) {
        let frame = FrameHeader::parse(&self.bytes).ok().flatten().map_or(0, |header| header.frame_len());
        let doubled = self.bytes.len() * 2;
        if doubled > KEPT_BYTES && frame > KEPT_BYTES && self.place.is_none() {
            self.place = Some(self.large.take());
        }
        // Not beyond the end of a large frame: its place is free again when it is served, whatever follows it.
        self.bytes.resize(doubled.min(frame.max(KEPT_BYTES)), 0);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::proto::codec::encode_cancel;
    use crate::proto::frame::FrameKind;
    use crate::proto::limits::MAX_FRAME_BYTES;

    fn empty() -> Inbox {
        Inbox::new(LargeFrames::new(Duration::from_secs(30)))
    }

    #[test]
    fn frames_come_out_whole_however_the_bytes_arrive() {
        let mut sent = Vec::new();
        for id in 1..=200 {
            encode_cancel(&mut sent, id);
        }
        for step in [1, 2, 7, 13, 64, sent.len()] {
            let mut inbox = empty();
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
        let mut inbox = empty();
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
        let mut inbox = empty();
        let mut header = Vec::from((MAX_FRAME_BYTES as u32 + 1).to_le_bytes());
        header.extend_from_slice(&[0; 9]);
        inbox.fill(&header[..]).expect("a slice can be read");
        assert!(inbox.next().is_err());
    }

    #[test]
    fn a_large_buffer_is_given_back_once_it_is_empty() {
        let mut inbox = empty();
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

    #[test]
    fn a_large_frame_gives_its_place_back_whatever_follows_it() {
        let mut inbox = empty();
        let mut sent = Vec::new();
        for id in 1..=20u64 {
            let body = vec![0; 2 * 1024 * 1024 + id as usize];
            sent.extend_from_slice(&(body.len() as u32 + 9).to_le_bytes());
            sent.extend_from_slice(&id.to_le_bytes());
            sent.push(1);
            sent.extend_from_slice(&body);
            encode_cancel(&mut sent, 100 + id);
        }
        let (mut rest, mut ids, mut waited) = (&sent[..], Vec::new(), 0);
        while !rest.is_empty() {
            inbox.fill(&mut rest).expect("a slice can be read");
            waited += usize::from(inbox.due().is_some());
            while let Some((header, _)) = inbox.next().expect("the frames are good") {
                ids.push(header.id);
            }
        }
        assert_eq!(ids, (1..=20).flat_map(|id| [id, 100 + id]).collect::<Vec<_>>());
        assert!(waited > 20);
        assert!(inbox.due().is_none(), "what follows a large frame is small");
    }
}
