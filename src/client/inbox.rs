//! Cuts what the daemon sends into frames, however it arrives, and gives each body a buffer of its own.

use commonhold_proto::{FRAME_HEADER_BYTES, FrameError, FrameHeader, FrameKind, frame};

/// The body of one frame.
#[derive(Debug, Default)]
pub(super) struct Body {
    bytes: Vec<u8>,
    start: usize,
}

impl Body {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

/// A whole frame.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) id: u64,
    pub(super) kind: FrameKind,
    pub(super) body: Body,
}

/// The beginning of a frame whose end has not arrived; empty between frames.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    partial: Vec<u8>,
}

impl Inbox {
    /// Takes the next whole frame off the front of `bytes`; `None` when they are used up.
    ///
    /// A frame that arrives in one piece is copied once. One that does not is gathered, and its buffer grows with what
    /// has arrived and not with what its header claims.
    pub(super) fn next(&mut self, bytes: &mut &[u8]) -> Result<Option<Frame>, FrameError> {
        if self.partial.is_empty()
            && let Some((header, body, consumed)) = frame::split(bytes)?
        {
            let body = Body { bytes: body.to_vec(), start: 0 };
            *bytes = &bytes[consumed..];
            return Ok(Some(Frame { id: header.id, kind: header.kind, body }));
        }
        if self.partial.len() < FRAME_HEADER_BYTES {
            self.take(bytes, FRAME_HEADER_BYTES);
        }
        let Some(header) = FrameHeader::parse(&self.partial)? else { return Ok(None) };
        self.take(bytes, header.frame_len());
        if self.partial.len() < header.frame_len() {
            return Ok(None);
        }
        let body = Body { bytes: std::mem::take(&mut self.partial), start: FRAME_HEADER_BYTES };
        Ok(Some(Frame { id: header.id, kind: header.kind, body }))
    }

    /// Forgets a frame whose end will never come.
    pub(super) fn clear(&mut self) {
        self.partial = Vec::new();
    }

    /// Moves bytes over until `partial` has `until` of them or there are no more.
    fn take(&mut self, bytes: &mut &[u8], until: usize) {
        let (now, later) = bytes.split_at(bytes.len().min(until - self.partial.len()));
        self.partial.extend_from_slice(now);
        *bytes = later;
    }
}

#[cfg(test)]
mod tests {
    use commonhold_proto::{Answer, codec};

    use super::*;

    #[test]
    fn frames_come_out_whole_however_they_are_cut() {
        let mut stream = Vec::new();
        let long = "\"x\"".repeat(100);
        codec::encode_answer(&mut stream, 1, &Answer::Done).unwrap();
        codec::encode_part(&mut stream, 2, &Answer::Status { json: &long }).unwrap();
        codec::encode_answer(&mut stream, 3, &Answer::Len { records: 7 }).unwrap();
        for piece in 1..=stream.len() {
            let mut inbox = Inbox::default();
            let mut frames = Vec::new();
            for mut bytes in stream.chunks(piece) {
                while let Some(frame) = inbox.next(&mut bytes).unwrap() {
                    frames.push(frame);
                }
                assert!(bytes.is_empty());
            }
            let ids: Vec<_> = frames.iter().map(|frame| (frame.id, frame.kind)).collect();
            assert_eq!(
                ids,
                [(1, FrameKind::Answer), (2, FrameKind::Part), (3, FrameKind::Answer)],
                "pieces of {piece}"
            );
            assert_eq!(codec::decode_answer(frames[1].body.bytes()).unwrap(), Answer::Status { json: &long });
            assert_eq!(codec::decode_answer(frames[2].body.bytes()).unwrap(), Answer::Len { records: 7 });
        }
    }

    #[test]
    fn a_claimed_length_is_not_believed_before_its_bytes_arrive() {
        let mut inbox = Inbox::default();
        let mut header = (60_u32 << 20).to_le_bytes().to_vec();
        header.extend([1, 0, 0, 0, 0, 0, 0, 0, 2, 0xff]);
        assert!(inbox.next(&mut &header[..]).unwrap().is_none());
        assert!(inbox.partial.capacity() < 1_024);
        assert!(Inbox::default().next(&mut &[0xff; 20][..]).is_err());
    }
}
