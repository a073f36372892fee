//! The frame decoder, alone and in a session's read buffer, which gets the bytes in pieces as a socket gives them.

use crate::daemon::frames_in_pieces;
use crate::proto::frame::{self, FRAME_HEADER_BYTES, FrameError, FrameHeader, FrameKind, Split};
use crate::proto::{codec, limits};

use super::meter;

/// The first byte says in which pieces the rest arrives.
///
/// # Panics
/// When a promise is broken.
pub fn frame(data: &[u8]) {
    let Some((&pieces, stream)) = data.split_first() else { return };
    let (frames, end) = split_all(stream);
    for (at, header, body) in &frames {
        assert_eq!(written(header, body), stream[*at..*at + header.frame_len()], "a frame is written as it was read");
        for cut in 0..FRAME_HEADER_BYTES {
            assert_eq!(
                FrameHeader::parse(&stream[*at..*at + cut]),
                Ok(None),
                "a header that is good is never refused early"
            );
        }
    }
    let mut next = frames.iter();
    let pieces = Pieces { seed: pieces };
    let (ended, most) = meter::here(|| {
        frames_in_pieces(
            stream,
            |n| pieces.length(n),
            |header, body| {
                let (_, expected, expected_body) = next.next().expect("no frame that the bytes as a whole do not hold");
                assert_eq!((header, body), (*expected, *expected_body));
            },
        )
    });
    assert_eq!(ended, end);
    assert_eq!(next.next(), None, "every whole frame comes out");
    let bound = 4 * stream.len() + (256 << 10);
    assert!(most <= bound, "{} bytes took {most} bytes of memory", stream.len());
}

/// A frame: its place in the stream, its header, its body.
pub(super) type Placed<'a> = (usize, FrameHeader, &'a [u8]);

/// The whole frames at the beginning of a stream, and what is wrong with what follows.
pub(super) fn split_all(stream: &[u8]) -> (Vec<Placed<'_>>, Option<FrameError>) {
    let (mut frames, mut at) = (Vec::new(), 0);
    loop {
        let split: Result<Option<Split<'_>>, FrameError> = frame::split(&stream[at..]);
        match split {
            Ok(None) => return (frames, None),
            Err(error) => return (frames, Some(error)),
            Ok(Some((header, body, consumed))) => {
                assert_eq!((header.body_len, header.frame_len()), (body.len(), consumed));
                assert!(consumed <= limits::MAX_FRAME_BYTES + 4);
                frames.push((at, header, body));
                at += consumed;
            }
        }
    }
}

/// By the table at the head of `proto/src/frame.rs`, and not by the code there.
fn written(header: &FrameHeader, body: &[u8]) -> Vec<u8> {
    if header.kind == FrameKind::Cancel {
        let mut bytes = Vec::new();
        codec::encode_cancel(&mut bytes, header.id);
        return bytes;
    }
    let length = (body.len() + 9) as u32;
    [&length.to_le_bytes()[..], &header.id.to_le_bytes(), &[header.kind as u8], body].concat()
}

/// How a stream is cut: by one byte, so that it can be said in the first byte of an input.
#[derive(Clone, Copy)]
pub(super) struct Pieces {
    pub(super) seed: u8,
}

impl Pieces {
    /// Most bytes of the `n`-th piece.
    pub(super) fn length(self, n: usize) -> usize {
        const LENGTHS: [usize; 8] = [usize::MAX, 1, 2, 7, 13, 64, 1_000, 70_000];
        match self.seed % 16 {
            fixed @ 0..8 => LENGTHS[usize::from(fixed)],
            // Of mixed lengths.
            mixed => LENGTHS[1 + (n * 5 + usize::from(mixed)) % 7],
        }
    }
}
