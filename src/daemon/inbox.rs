//! A session's read buffer: bytes from the socket, given out as whole frames.
//!
//! It never holds more than twice what the peer has really sent: a frame's announced length is checked when its header
//! arrives, but the buffer grows only as its bytes do. So a length of 64 MiB followed by silence costs nothing. And it
//! grows beyond [`KEPT_BYTES`] only in a [place](super::large) of which there are few, so that all sessions together
//! stay bounded, too. A session that shares its thread with many holds no buffer at all while it is idle.

use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::proto::frame::{self, FrameError, FrameHeader};

use super::large::{LargeFramePlace, LargeFrames};

/// What a session with a thread of its own begins with, and what it comes back to after large frames.
pub(super) const THREAD_BYTES: usize = 64 * 1024;

/// What a session on the runtime begins with whenever something arrives.
pub(super) const TASK_BYTES: usize = 4 * 1024;

/// A buffer that is larger than this is given back as soon as it is empty.
const KEPT_BYTES: usize = 1024 * 1024;

/// The read buffer. `bytes[start..end]` has arrived and was not yet given out.
pub(super) struct Inbox {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    initial: usize,
    large: Arc<LargeFrames>,
    /// Held while the buffer is larger than [`KEPT_BYTES`]; it then ends where the large frame does.
    place: Option<LargeFramePlace>,
}

/// Whether there is room for more bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Ready,
    /// A large frame is on its way, which needs a place.
    NeedsPlace,
}

/// A frame's body that was taken out, to be served elsewhere. A large one keeps its place until it is dropped.
#[derive(Default)]
pub(super) struct Body {
    bytes: Vec<u8>,
    range: Range<usize>,
    _place: Option<LargeFramePlace>,
}

impl Body {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.range.clone()]
    }

    pub(super) fn len(&self) -> usize {
        self.range.len()
    }
}

impl Inbox {
    /// An empty one that holds `initial` bytes unless it needs more.
    pub(super) fn new(large: Arc<LargeFrames>, initial: usize) -> Self {
        Self { bytes: Vec::new(), start: 0, end: 0, initial, large, place: None }
    }

    /// Until when to wait for more of the frame that is being received, if it is a large one: then to see whether its
    /// [time is over](Self::is_over).
    pub(super) fn look(&self) -> Option<Instant> {
        self.place.as_ref().map(LargeFramePlace::look)
    }

    /// So long bytes were waited for.
    pub(super) fn waited(&mut self, time: Duration) {
        if let Some(place) = &mut self.place {
            place.waited(time);
        }
    }

    /// How long the large frame that is being received has been on its way.
    pub(super) fn large_for(&self) -> Duration {
        self.place.as_ref().map_or(Duration::ZERO, LargeFramePlace::held)
    }

    /// Whether the large frame that is being received has had its time.
    pub(super) fn is_over(&self) -> bool {
        self.place.as_ref().is_some_and(|place| place.is_over(self.end - self.start))
    }

    /// Waits for bytes and takes what is there, with one `read`. `Ok(0)` is the end of the stream. May wait for a place.
    pub(super) fn fill(&mut self, mut from: impl Read) -> io::Result<usize> {
        self.make_room_or_wait();
        loop {
            match self.fill_with(|space| from.read(space)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    /// Takes what `read` puts into the free space, of which [`make_room`](Self::make_room) has seen to some.
    pub(super) fn fill_with(&mut self, read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<usize> {
        if self.bytes.is_empty() {
            self.bytes = vec![0; self.initial];
        }
        let read = read(&mut self.bytes[self.end..])?;
        self.end += read;
        Ok(read)
    }

    /// Whether the last read has filled the buffer, so that there may be more where that came from.
    pub(super) fn is_full(&self) -> bool {
        self.end == self.bytes.len()
    }

    /// The next whole frame: its header, and where its body lies, for [`body`](Self::body). The same one until it is
    /// [passed](Self::pass) or [taken](Self::take). None if more bytes are needed.
    pub(super) fn next(&mut self) -> Result<Option<(FrameHeader, Range<usize>)>, FrameError> {
        let Some((header, body, consumed)) = frame::split(&self.bytes[self.start..self.end])? else {
            return Ok(None);
        };
        let body_end = self.start + consumed;
        Ok(Some((header, body_end - body.len()..body_end)))
    }

    /// The bytes of a frame's body.
    pub(super) fn body(&self, range: Range<usize>) -> &[u8] {
        &self.bytes[range]
    }

    /// The frame with this body is served. A large one gives its place back: the client may take long over the answer.
    pub(super) fn pass(&mut self, range: &Range<usize>) {
        self.start = range.end;
        if self.start == self.end && self.bytes.len() > KEPT_BYTES {
            self.give_back();
        }
    }

    fn give_back(&mut self) {
        (self.start, self.end) = (0, 0);
        self.bytes = Vec::new();
        self.place = None;
    }

    /// Takes the body of a frame out, and passes the frame.
    pub(super) fn take(&mut self, range: Range<usize>) -> Body {
        self.start = range.end;
        if self.bytes.len() <= KEPT_BYTES {
            let bytes = self.bytes[range].to_vec();
            return Body { range: 0..bytes.len(), bytes, _place: None };
        }
        // A large one is moved and not copied. Little follows it: the buffer ends where the frame does.
        let rest = self.bytes[self.start..self.end].to_vec();
        (self.start, self.end) = (0, rest.len());
        let bytes = std::mem::replace(&mut self.bytes, rest);
        self.bytes.resize(self.end.max(self.initial), 0);
        Body { bytes, range, _place: self.place.take() }
    }

    /// Gives back what is served, and sees to it that there is room for more, unless that needs a place.
    pub(super) fn make_room(&mut self) -> Room {
        if self.start == self.end {
            let was_full = self.is_full();
            (self.start, self.end) = (0, 0);
            if self.bytes.len() > KEPT_BYTES {
                self.give_back();
            } else if was_full && !self.bytes.is_empty() && self.bytes.len() < THREAD_BYTES {
                // Who sends much at once is read much at once.
                self.bytes.resize(THREAD_BYTES, 0);
            }
            return Room::Ready;
        }
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.bytes.len() { self.grow() } else { Room::Ready }
    }

    /// As [`make_room`](Self::make_room); waits for a place where one is needed.
    pub(super) fn make_room_or_wait(&mut self) {
        while self.make_room() == Room::NeedsPlace {
            self.place = Some(self.large.take());
        }
    }

    /// As [`make_room`](Self::make_room); waits for a place where one is needed, on the runtime.
    pub(super) async fn make_room_later(&mut self) {
        while self.make_room() == Room::NeedsPlace {
            self.place = Some(self.large.take_later().await);
        }
    }

    /// Passes all that has arrived.
    pub(super) fn pass_all(&mut self) {
        self.start = self.end;
    }

    /// Holds no memory until something arrives, if nothing is waiting in it.
    pub(super) fn rest(&mut self) {
        if self.start == self.end && self.place.is_none() {
            (self.start, self.end) = (0, 0);
            self.bytes = Vec::new();
        }
    }

    /// The buffer is full without a whole frame. `next` has accepted the frame's length, so it is within the limit.
    fn grow(&mut self) -> Room {
        let frame = FrameHeader::parse(&self.bytes).ok().flatten().map_or(0, |header| header.frame_len());
        let doubled = self.bytes.len() * 2;
        if doubled > KEPT_BYTES && frame > KEPT_BYTES && self.place.is_none() {
            return Room::NeedsPlace;
        }
        // Not beyond the end of a large frame: its place is free again when it is served, whatever follows it.
        self.bytes.resize(doubled.min(frame.max(KEPT_BYTES)), 0);
        Room::Ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::codec::encode_cancel;
    use crate::proto::frame::FrameKind;
    use crate::proto::limits::MAX_FRAME_BYTES;

    fn empty() -> Inbox {
        Inbox::new(LargeFrames::new(Duration::from_secs(30)), THREAD_BYTES)
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
                    assert_eq!((header.kind, inbox.body(body.clone()).len()), (FrameKind::Cancel, 0));
                    inbox.pass(&body);
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
        assert_eq!(inbox.bytes.len(), THREAD_BYTES);
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
        assert_eq!((header.id, inbox.body(range.clone()).len()), (7, body.len()));
        inbox.pass(&range);
        inbox.fill(&b"x"[..]).expect("a slice can be read");
        assert_eq!(inbox.bytes.len(), THREAD_BYTES);
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
            waited += usize::from(inbox.look().is_some());
            while let Some((header, body)) = inbox.next().expect("the frames are good") {
                // Served here or elsewhere: it is the same to those that follow.
                if header.id % 2 == 0 {
                    drop(inbox.take(body));
                } else {
                    inbox.pass(&body);
                }
                ids.push(header.id);
            }
        }
        assert_eq!(ids, (1..=20).flat_map(|id| [id, 100 + id]).collect::<Vec<_>>());
        assert!(waited > 20);
        assert!(inbox.look().is_none(), "what follows a large frame is small");
    }

    #[test]
    fn an_idle_buffer_holds_nothing_and_what_was_taken_out_is_whole() {
        let mut inbox = Inbox::new(LargeFrames::new(Duration::from_secs(30)), TASK_BYTES);
        for size in [10_usize, 5_000, 100_000, 3_000_000] {
            let mut sent = Vec::from((size as u32 + 9).to_le_bytes());
            sent.extend_from_slice(&7u64.to_le_bytes());
            sent.push(1);
            sent.extend((0..size).map(|n| n as u8));
            let mut rest = &sent[..];
            while !rest.is_empty() {
                assert!(inbox.next().expect("the length is good").is_none());
                inbox.fill(&mut rest).expect("a slice can be read");
            }
            let (_, range) = inbox.next().expect("a good frame").expect("a whole frame");
            assert_eq!(inbox.take(range).bytes(), &sent[13..], "{size}");
            inbox.rest();
            assert_eq!((inbox.bytes.capacity(), inbox.look()), (0, None), "{size}");
        }
    }
}
