//! How the header of a segment and that of a quarantine file are told to be whole: both begin and end alike.
//!
//! ```text
//!   0  8  magic
//!   8  4  format version
//!  12  4  length of the whole header, its checksum included; a multiple of 8
//!  16  …  what the header says
//!   …  4  CRC-32 of all before it
//!   …  4  zero
//! ```

use std::ops::RangeInclusive;

use super::bytes::{Fields, align};

/// Bytes after what a header says.
pub(super) const CHECK_BYTES: usize = 8;
/// Where the length stands.
const LENGTH_AT: usize = 12;
/// Where what the header says begins.
const BODY_AT: usize = 16;

/// A kind of header.
pub(super) struct Form {
    pub(super) magic: &'static [u8; 8],
    /// The versions that are read; the last is written.
    pub(super) versions: RangeInclusive<u32>,
    /// The shortest and the longest header, its checksum included.
    pub(super) lengths: RangeInclusive<usize>,
    /// What is said of a file that is too short, of other bytes, of an impossible length, of another checksum.
    pub(super) words: [&'static str; 4],
}

/// Why a header could not be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeaderError {
    /// Not the bytes that were written.
    Bad(&'static str),
    /// Whole, but of a newer format version.
    Newer(u32),
}

impl Form {
    /// The beginning of a header; its length is entered by [`finish`](Self::finish).
    pub(super) fn begin(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        out.extend_from_slice(self.magic);
        out.extend_from_slice(&self.versions.end().to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out
    }

    /// Ends a header, with its length and its checksum.
    pub(super) fn finish(mut out: Vec<u8>) -> Vec<u8> {
        out.resize(align(out.len()), 0);
        let length = (out.len() + CHECK_BYTES) as u32;
        out[LENGTH_AT..BODY_AT].copy_from_slice(&length.to_le_bytes());
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out
    }

    /// How long the header at the start of `file` says that it is; 0 if there is none. Not to be believed yet.
    pub(super) fn length(&self, file: &[u8]) -> usize {
        let mut fields = Fields::new(file.get(LENGTH_AT..).unwrap_or_default());
        let named = fields.u32().map_or(0, |length| length as usize);
        if file.starts_with(self.magic) { named.min(*self.lengths.end()) } else { 0 }
    }

    /// What the header at the start of `file` says, and how long it is, if its bytes are those that were written.
    pub(super) fn check<'a>(&self, file: &'a [u8]) -> Result<(&'a [u8], usize), HeaderError> {
        use HeaderError::{Bad, Newer};
        let [short, foreign, length_words, checksum] = self.words;
        let mut fields = Fields::new(file);
        if fields.bytes(self.magic.len()).ok_or(Bad(short))? != self.magic {
            return Err(Bad(foreign));
        }
        let version = fields.u32().ok_or(Bad(short))?;
        let length = fields.u32().ok_or(Bad(short))? as usize;
        if !length.is_multiple_of(8) || !self.lengths.contains(&length) {
            return Err(Bad(length_words));
        }
        let header = file.get(..length).ok_or(Bad(short))?;
        let (body, check) = header.split_at(length - CHECK_BYTES);
        // The checksum comes first: a version that does not match it is a flipped bit and not a newer release.
        if check[4..] != [0; 4] || check[..4] != crc32fast::hash(body).to_le_bytes() {
            return Err(Bad(checksum));
        }
        if !self.versions.contains(&version) {
            return Err(Newer(version));
        }
        Ok((&body[BODY_AT..], length))
    }
}
