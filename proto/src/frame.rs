//! The envelope of every message: how a stream of bytes is cut into messages, before anybody knows what they mean.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 4 | length, u32 little-endian: the bytes after this field, so 9 + body |
//! | 4 | 8 | request id, u64 little-endian: chosen by the client, repeated in the answer; 0 in an event and nowhere else |
//! | 12 | 1 | kind: 1 request, 2 answer, 3 part, 4 event, 5 cancel |
//! | 13 | length - 9 | body: one message, see [`codec`](crate::codec); a cancel has none |
//!
//! A length is checked before anything is allocated for it.

use crate::fault::Fault;
use crate::limits::MAX_FRAME_BYTES;

/// Bytes of a frame before its body.
pub const FRAME_HEADER_BYTES: usize = 13;

/// Bytes of the length field, which does not count itself.
pub(crate) const LENGTH_BYTES: usize = 4;

/// Largest body, so that the frame is within [`MAX_FRAME_BYTES`].
pub const MAX_BODY_BYTES: usize = MAX_FRAME_BYTES - (FRAME_HEADER_BYTES - LENGTH_BYTES);

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// A [`Request`](crate::Request), from the client.
    Request = 1,
    /// An [`Answer`](crate::Answer): the last, and mostly the only, frame of what the daemon says to a request.
    Answer = 2,
    /// An [`Answer`](crate::Answer) of which more will come: its list goes on in the next frame of the same id.
    Part = 3,
    /// An [`Event`](crate::Event), from the daemon, unasked.
    Event = 4,
    /// The client no longer wants the request of this id done. No body.
    Cancel = 5,
}

impl FrameKind {
    /// The kind of this number, if there is one.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Request),
            2 => Some(Self::Answer),
            3 => Some(Self::Part),
            4 => Some(Self::Event),
            5 => Some(Self::Cancel),
            _ => None,
        }
    }
}

/// Why the stream can no longer be cut into frames: the connection must be closed, for what follows has no beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length does not even cover id and kind.
    #[error(
        "a frame says that it has {bytes} bytes, the shortest has 9: the stream is not Commonhold's or out of step"
    )]
    TooShort {
        /// The length field.
        bytes: u32,
    },
    /// The length is above [`MAX_FRAME_BYTES`].
    #[error("a frame says that it has {bytes} bytes, the limit is {MAX_FRAME_BYTES}: send less in one request")]
    TooLong {
        /// The length field.
        bytes: u32,
    },
    /// The kind is none that is known.
    #[error("a frame is of kind {kind}, the kinds are 1 to 5: the stream is not Commonhold's or out of step")]
    Kind {
        /// The kind's byte.
        kind: u8,
    },
    /// Id 0 is for events, and events have no other.
    #[error("a frame of kind {} has request id {id}: events have id 0 and all others another", *.kind as u8)]
    Id {
        /// The kind.
        kind: FrameKind,
        /// The id.
        id: u64,
    },
    /// A cancel has a body.
    #[error("a cancel frame carries {bytes} bytes of body, it has none")]
    CancelBody {
        /// The body's length.
        bytes: usize,
    },
}

impl From<FrameError> for Fault {
    fn from(error: FrameError) -> Self {
        Self::Malformed { reason: error.to_string() }
    }
}

/// The first 13 bytes of a frame, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Bytes that follow the header.
    pub body_len: usize,
    /// Which request this belongs to; 0 for an event.
    pub id: u64,
    /// What the body is.
    pub kind: FrameKind,
}

impl FrameHeader {
    /// Reads the header at the beginning of `bytes`; `None` while there are fewer than [`FRAME_HEADER_BYTES`].
    ///
    /// A bad length is refused as soon as its four bytes are there.
    ///
    /// # Errors
    /// [`FrameError`]: nothing that follows on this connection can be trusted.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, FrameError> {
        let Some(length) = bytes.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length);
        if (length as usize) < FRAME_HEADER_BYTES - LENGTH_BYTES {
            return Err(FrameError::TooShort { bytes: length });
        }
        if length as usize > MAX_FRAME_BYTES {
            return Err(FrameError::TooLong { bytes: length });
        }
        let Some(header) = bytes.first_chunk::<FRAME_HEADER_BYTES>() else { return Ok(None) };
        let [_, _, _, _, id @ .., kind] = *header;
        let id = u64::from_le_bytes(id);
        let kind = FrameKind::from_byte(kind).ok_or(FrameError::Kind { kind })?;
        if (id == 0) != (kind == FrameKind::Event) {
            return Err(FrameError::Id { kind, id });
        }
        let body_len = length as usize - (FRAME_HEADER_BYTES - LENGTH_BYTES);
        if kind == FrameKind::Cancel && body_len != 0 {
            return Err(FrameError::CancelBody { bytes: body_len });
        }
        Ok(Some(Self { body_len, id, kind }))
    }

    /// Bytes of the whole frame, its length field included.
    pub const fn frame_len(&self) -> usize {
        FRAME_HEADER_BYTES + self.body_len
    }

    /// The header's bytes. `body_len` must be at most [`MAX_BODY_BYTES`].
    pub(crate) fn to_bytes(self) -> [u8; FRAME_HEADER_BYTES] {
        debug_assert!(self.body_len <= MAX_BODY_BYTES, "the codec refuses longer bodies");
        let mut bytes = [0; FRAME_HEADER_BYTES];
        let length = (self.body_len + FRAME_HEADER_BYTES - LENGTH_BYTES) as u32;
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        bytes[4..12].copy_from_slice(&self.id.to_le_bytes());
        bytes[12] = self.kind as u8;
        bytes
    }
}

/// A whole frame: its header, its body, and how many bytes of the stream both took.
pub type Split<'a> = (FrameHeader, &'a [u8], usize);

/// Takes the first whole frame off `bytes`: its header, its body, and how many bytes both took. `None` while the frame
/// is not whole; [`FrameHeader::parse`] then tells how many bytes to read for it.
///
/// ```
/// use commonhold_proto::{FrameKind, codec, frame};
/// let mut stream = Vec::new();
/// codec::encode_cancel(&mut stream, 7);
/// assert_eq!(frame::split(&stream[..12])?, None);
/// let (header, body, consumed) = frame::split(&stream)?.expect("the frame is whole");
/// assert_eq!((header.kind, header.id, body, consumed), (FrameKind::Cancel, 7, &[][..], 13));
/// # Ok::<(), commonhold_proto::FrameError>(())
/// ```
///
/// # Errors
/// [`FrameError`]: nothing that follows on this connection can be trusted.
pub fn split(bytes: &[u8]) -> Result<Option<Split<'_>>, FrameError> {
    let Some(header) = FrameHeader::parse(bytes)? else { return Ok(None) };
    let consumed = header.frame_len();
    Ok(bytes.get(FRAME_HEADER_BYTES..consumed).map(|body| (header, body, consumed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(length: u32, id: u64, kind: u8) -> Vec<u8> {
        [&length.to_le_bytes()[..], &id.to_le_bytes(), &[kind]].concat()
    }

    #[test]
    fn a_bad_length_is_refused_from_its_four_bytes_alone() {
        let limit = MAX_FRAME_BYTES as u32;
        for bytes in [0_u32, 1, 8] {
            assert_eq!(FrameHeader::parse(&bytes.to_le_bytes()), Err(FrameError::TooShort { bytes }));
        }
        for bytes in [limit + 1, u32::MAX] {
            assert_eq!(FrameHeader::parse(&bytes.to_le_bytes()), Err(FrameError::TooLong { bytes }));
        }
        for bytes in [9_u32, limit] {
            assert_eq!(FrameHeader::parse(&bytes.to_le_bytes()), Ok(None));
        }
    }

    #[test]
    fn the_longest_frame_is_taken() {
        let parsed = FrameHeader::parse(&header(MAX_FRAME_BYTES as u32, 1, 1)).unwrap().unwrap();
        assert_eq!(parsed.body_len, MAX_BODY_BYTES);
        assert_eq!(parsed.frame_len(), MAX_FRAME_BYTES + 4);
        assert_eq!(parsed.to_bytes().as_slice(), header(MAX_FRAME_BYTES as u32, 1, 1));
    }

    #[test]
    fn every_kind_is_known_and_no_other() {
        for byte in 0..=u8::MAX {
            let id = u64::from(byte != 4);
            match FrameHeader::parse(&header(9, id, byte)) {
                Ok(Some(parsed)) => assert_eq!(parsed.kind as u8, byte),
                Err(FrameError::Kind { kind }) => assert!(kind == byte && !(1..=5).contains(&kind)),
                other => panic!("{byte}: {other:?}"),
            }
        }
    }

    #[test]
    fn id_0_is_for_events_and_events_have_no_other() {
        for kind in [1, 2, 3, 5] {
            assert!(matches!(FrameHeader::parse(&header(9, 0, kind)), Err(FrameError::Id { id: 0, .. })));
        }
        assert!(matches!(FrameHeader::parse(&header(9, 3, 4)), Err(FrameError::Id { id: 3, .. })));
    }

    #[test]
    fn a_cancel_has_no_body() {
        assert_eq!(FrameHeader::parse(&header(10, 1, 5)), Err(FrameError::CancelBody { bytes: 1 }));
    }
}
