//! Messages to bytes and back. The only file that names bincode, so that leaving it is a small job.
//!
//! The layout is bincode's legacy one: integers little-endian in their full width, lengths as u64, enum tags as u32,
//! an `Option` as one byte 0 or 1 before its value; `PROTOCOL.md` tells it all. Strings of a decoded request are
//! borrowed from the frame. Whatever the bytes, decoding ends in a message or an error, in memory bounded by the frame:
//! a claimed length is believed only as far as there are bytes for it.

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use bincode::enc::write::Writer;
use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameKind, LENGTH_BYTES, MAX_BODY_BYTES};
use crate::hello::PROTOCOL_VERSION;
use crate::limits::{MAX_FRAME_BYTES, MAX_OPERATIONS};
use crate::message::{Answer, Event, Request, Verb};

/// The layout with a limit on what is read.
type Layout<const N: usize> = Configuration<LittleEndian, Fixint, Limit<N>>;

/// Up to each of these sizes a body is decoded under a limit of that size. An owned string (they are in faults and
/// listings) is allocated by its claimed length before its bytes are looked for; so a body cannot ask for more than sixteen
/// times what it has, or for [`SMALL_BODY_BYTES`].
const SMALL_BODY_BYTES: usize = 64 * 1024;
const MIDDLE_BODY_BYTES: usize = 16 * SMALL_BODY_BYTES;
const LARGE_BODY_BYTES: usize = 16 * MIDDLE_BODY_BYTES;

/// Why a message cannot be sent. The output is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The frame would pass [`MAX_FRAME_BYTES`].
    #[error("the message has {bytes} bytes, a frame has at most {MAX_FRAME_BYTES}: send it in several requests")]
    TooLarge {
        /// What the frame would have, counted as its length field counts.
        bytes: u64,
    },
}

/// Why bytes are no message. Where the frame was whole, the session goes on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The message, or a part of it, is of a kind that this side does not know: the other side is newer.
    #[error("{what} number {tag} is not known to this side, which is older than the other")]
    Unsupported {
        /// What is not known: `verb`, `answer` or `event`, or `part of the …` for something inside of one.
        what: &'static str,
        /// Its number.
        tag: u32,
    },
    /// The bytes are not what they should be.
    #[error("{reason}")]
    Malformed {
        /// What was wrong with them.
        reason: String,
    },
}

impl From<DecodeError> for Fault {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Unsupported { what, tag } => Self::Unsupported { what: what.to_owned(), tag },
            DecodeError::Malformed { reason } => Self::Malformed { reason },
        }
    }
}

/// Appends the frame of a request to `out`.
///
/// ```
/// use commonhold_proto::{Request, Verb, codec, frame};
/// let ping = Request { deadline_ms: 500, verb: Verb::Ping };
/// let mut out = Vec::new();
/// codec::encode_request(&mut out, 1, &ping)?;
/// let (_, body, _) = frame::split(&out)?.expect("the frame is whole");
/// assert_eq!(codec::decode_request(body)?, ping);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`EncodeError::TooLarge`]; `out` is then as it was.
pub fn encode_request(out: &mut Vec<u8>, id: u64, request: &Request<'_>) -> Result<(), EncodeError> {
    encode(out, id, FrameKind::Request, request)
}

/// Appends the frame of an answer, the last of those to the request `id`, to `out`.
///
/// # Errors
/// [`EncodeError::TooLarge`]; `out` is then as it was.
pub fn encode_answer(out: &mut Vec<u8>, id: u64, answer: &Answer<'_>) -> Result<(), EncodeError> {
    encode(out, id, FrameKind::Answer, answer)
}

/// Appends the frame of an answer of which more follows to `out`.
///
/// # Errors
/// [`EncodeError::TooLarge`]; `out` is then as it was.
pub fn encode_part(out: &mut Vec<u8>, id: u64, part: &Answer<'_>) -> Result<(), EncodeError> {
    encode(out, id, FrameKind::Part, part)
}

/// Appends the frame of an event to `out`.
///
/// # Errors
/// [`EncodeError::TooLarge`]; `out` is then as it was.
pub fn encode_event(out: &mut Vec<u8>, event: &Event) -> Result<(), EncodeError> {
    encode(out, 0, FrameKind::Event, event)
}

/// Appends the frame that cancels request `id` to `out`.
pub fn encode_cancel(out: &mut Vec<u8>, id: u64) {
    debug_assert_ne!(id, 0, "id 0 is for events");
    out.extend_from_slice(&FrameHeader { body_len: 0, id, kind: FrameKind::Cancel }.to_bytes());
}

/// Reads the body of a request frame.
///
/// A list longer than [`MAX_OPERATIONS`] is cut after one element more than that, so that whoever serves the request can
/// answer [`Fault::TooLarge`].
///
/// # Errors
/// [`DecodeError`]; as a [`Fault`] it is the answer.
pub fn decode_request(body: &[u8]) -> Result<Request<'_>, DecodeError> {
    decode_request_of(PROTOCOL_VERSION, body)
}

/// The same in a session of this version: a verb that came later is none.
///
/// # Errors
/// [`DecodeError`]; as a [`Fault`] it is the answer.
pub fn decode_request_of(version: u16, body: &[u8]) -> Result<Request<'_>, DecodeError> {
    if let Some(tag) = body.get(4..).and_then(tag_of)
        && tag >= Verb::count_in(version)
    {
        return Err(DecodeError::Unsupported { what: "verb", tag });
    }
    decode::<_, MAX_BODY_BYTES>(body, "part of the request")
}

/// Reads the body of an answer frame or of a part.
///
/// # Errors
/// [`DecodeError`]: the daemon is newer than it admits, or not one.
pub fn decode_answer(body: &[u8]) -> Result<Answer<'_>, DecodeError> {
    if let Some(tag) = tag_of(body)
        && tag as usize >= Answer::NAMES.len()
    {
        return Err(DecodeError::Unsupported { what: "answer", tag });
    }
    decode_owned(body, "part of the answer")
}

/// Reads the body of an event frame. An event that is [`DecodeError::Unsupported`] may be passed over.
///
/// # Errors
/// [`DecodeError`]: the daemon is newer than it admits, or not one.
pub fn decode_event(body: &[u8]) -> Result<Event, DecodeError> {
    if let Some(tag) = tag_of(body)
        && tag as usize >= Event::NAMES.len()
    {
        return Err(DecodeError::Unsupported { what: "event", tag });
    }
    decode_owned(body, "part of the event")
}

fn tag_of(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|tag| u32::from_le_bytes(*tag))
}

fn encode(out: &mut Vec<u8>, id: u64, kind: FrameKind, message: &impl Serialize) -> Result<(), EncodeError> {
    debug_assert_eq!(id == 0, kind == FrameKind::Event, "id 0 is for events and for nothing else");
    let start = out.len();
    out.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
    let mut body = BodyWriter { out, written: 0 };
    bincode::serde::encode_into_writer(message, &mut body, bincode::config::legacy())
        .expect("the writer never refuses, and messages are made of integers, text, lists and options only");
    let body_len = body.written;
    if body_len > MAX_BODY_BYTES {
        out.truncate(start);
        return Err(EncodeError::TooLarge { bytes: (body_len + FRAME_HEADER_BYTES - LENGTH_BYTES) as u64 });
    }
    let header = FrameHeader { body_len, id, kind }.to_bytes();
    out[start..start + FRAME_HEADER_BYTES].copy_from_slice(&header);
    Ok(())
}

/// Appends to a buffer; past the limit it only counts, so that a message too large is told by its true size and costs
/// no memory.
struct BodyWriter<'a> {
    out: &'a mut Vec<u8>,
    written: usize,
}

impl Writer for &mut BodyWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), bincode::error::EncodeError> {
        self.written = self.written.saturating_add(bytes.len());
        if self.written <= MAX_BODY_BYTES {
            self.out.extend_from_slice(bytes);
        }
        Ok(())
    }
}

/// Decodes what may own strings.
fn decode_owned<'a, T: Deserialize<'a>>(body: &'a [u8], part: &'static str) -> Result<T, DecodeError> {
    if body.len() <= SMALL_BODY_BYTES {
        decode::<T, SMALL_BODY_BYTES>(body, part)
    } else if body.len() <= MIDDLE_BODY_BYTES {
        decode::<T, MIDDLE_BODY_BYTES>(body, part)
    } else if body.len() <= LARGE_BODY_BYTES {
        decode::<T, LARGE_BODY_BYTES>(body, part)
    } else {
        decode::<T, MAX_BODY_BYTES>(body, part)
    }
}

fn decode<'a, T: Deserialize<'a>, const LIMIT: usize>(body: &'a [u8], part: &'static str) -> Result<T, DecodeError> {
    if body.len() > LIMIT {
        let reason = format!("the body has {} bytes, the limit is {LIMIT}", body.len());
        return Err(DecodeError::Malformed { reason });
    }
    let (message, used): (T, usize) = bincode::serde::borrow_decode_from_slice(body, Layout::<LIMIT>::default())
        .map_err(|error| in_our_words(&error, part))?;
    if used != body.len() {
        let reason = format!("the message ends at byte {used} of {}: the rest belongs to nothing", body.len());
        return Err(DecodeError::Malformed { reason });
    }
    Ok(message)
}

fn in_our_words(error: &bincode::error::DecodeError, part: &'static str) -> DecodeError {
    use bincode::error::DecodeError as Bincode;
    let reason = match error {
        Bincode::UnexpectedEnd { .. } => "the message is cut short, or a length in it is too great".to_owned(),
        Bincode::LimitExceeded => "a length in the message is greater than the message".to_owned(),
        Bincode::Utf8 { inner } => format!("a text is not UTF-8: {inner}"),
        Bincode::InvalidBooleanValue(found) => format!("a truth value is {found}, not 0 or 1"),
        Bincode::UnexpectedVariant { found, .. } => format!("an option begins with {found}, not 0 or 1"),
        Bincode::OutsideUsizeRange(length) => format!("a length of {length} is too great"),
        Bincode::OtherString(words) => {
            if let Some(tag) = unknown_variant(words) {
                return DecodeError::Unsupported { what: part, tag };
            }
            words.clone()
        }
        other => other.to_string(),
    };
    DecodeError::Malformed { reason }
}

/// The number in serde's sentence about an enum variant that it does not know, the only form in which serde tells it:
/// ``invalid value: integer `7`, expected variant index 0 <= i < 3``. Should serde change its words, an unknown operation
/// is answered `Malformed` instead, and a test below fails.
fn unknown_variant(words: &str) -> Option<u32> {
    let number = words.strip_prefix("invalid value: integer `")?;
    let (number, rest) = number.split_once('`')?;
    if !rest.starts_with(", expected variant index") {
        return None;
    }
    number.parse().ok()
}

/// Lists in messages: what they hold is bounded, whatever their claimed length.
pub(crate) mod list {
    use std::fmt;
    use std::marker::PhantomData;

    use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

    use super::MAX_OPERATIONS;

    /// For requests: reads the whole list and keeps at most one element more than [`MAX_OPERATIONS`], enough to see that
    /// it is too long.
    pub(crate) fn cut<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
    where
        D: Deserializer<'de>,
        T: Deserialize<'de>,
    {
        deserializer.deserialize_seq(List { longest: usize::MAX, keep: MAX_OPERATIONS + 1, of: PhantomData })
    }

    /// For answers: refuses a list longer than [`MAX_OPERATIONS`], for a shorter one would be a wrong answer.
    pub(crate) fn whole<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
    where
        D: Deserializer<'de>,
        T: Deserialize<'de>,
    {
        deserializer.deserialize_seq(List { longest: MAX_OPERATIONS, keep: MAX_OPERATIONS, of: PhantomData })
    }

    /// For lists of things larger than a few bytes on the wire: as many as fit into the frame.
    pub(crate) fn any<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
    where
        D: Deserializer<'de>,
        T: Deserialize<'de>,
    {
        deserializer.deserialize_seq(List { longest: usize::MAX, keep: usize::MAX, of: PhantomData })
    }

    /// Room made for a list before any of its elements is seen.
    const TRUSTED_ELEMENTS: usize = 64;

    struct List<T> {
        /// A longer list is refused.
        longest: usize,
        /// Elements beyond these are read and dropped.
        keep: usize,
        of: PhantomData<T>,
    }

    impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {} elements", self.longest)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
            let claimed = elements.size_hint().unwrap_or(0);
            if claimed > self.longest {
                return Err(Error::invalid_length(claimed, &self));
            }
            let mut list = Vec::with_capacity(claimed.min(TRUSTED_ELEMENTS));
            while let Some(element) = elements.next_element()? {
                if list.len() < self.keep {
                    list.push(element);
                }
            }
            Ok(list)
        }
    }
}
