//! The header of a journal segment.
//!
//! ```text
//!   0  8  magic "CMNHJRNL"
//!   8  4  format version (2; 1 is read, too)
//!  12  4  length of the whole header, a multiple of 8, its checksum included
//!  16  8  segment number
//!  24  8  boot number: how often the store had been opened
//!  32 16  store id (random, given when the store was first opened)
//!  48  8  salt: what the checksums of this segment's records begin with
//!  56  8  Seq ceiling: no Seq above it is given out by records of this segment without a `ceiling` record
//!  64  8  synced-through Seq known when the header was written
//!  72  8  predecessor: segment number, 0 if there is none
//!  80  8  predecessor: the byte through which it counts
//!  88  8  predecessor: Seq of the last record that counts
//!  96  4  predecessor: checksum of that record
//! 100  4  number of sections
//! 104  …  sections: u32 kind, u32 zero, u64 length, bytes, zeros up to a multiple of 8
//!   …  4  CRC-32 of all before it
//!   …  4  zero
//! ```
//!
//! Section kind 1 is the table of namespaces ([`FileTable`]), kind 2, where there are any, the clients' last outcomes
//! ([`Outcomes`]), since format version 2. A reader skips a
//! section whose kind has the top bit set and that it does not know, and refuses any other.
//!
//! The salt is made of the store id and the segment number, so that the records of a segment whose header is lost can
//! still be told from noise: that is how damage is told from a tail there.

use commonhold_proto::Seq;
use xxhash_rust::xxh3::xxh3_64;

use super::bytes::{Fields, align};
pub(super) use super::header::HeaderError;
use super::header::{CHECK_BYTES, Form};
use super::outcomes::Outcomes;
use super::table::FileTable;

/// The first bytes of every segment.
pub(super) const MAGIC: &[u8; 8] = b"CMNHJRNL";
/// The newest format version that this code reads and the one it writes.
pub(super) const FORMAT_VERSION: u32 = 2;
/// The oldest format version that this code reads.
const OLDEST_VERSION: u32 = 1;
/// Bytes of a header up to its sections.
const FIXED_BYTES: usize = 104;
/// No header is longer: the table of a million namespaces fits.
const MAX_HEADER_BYTES: usize = 1 << 30;
const SECTION_TABLE: u32 = 1;
const SECTION_OUTCOMES: u32 = 2;
const MAY_BE_SKIPPED: u32 = 1 << 31;

/// Through where the segment before this one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Predecessor {
    pub(super) segment: u64,
    pub(super) byte: u64,
    pub(super) seq: Seq,
    pub(super) crc: u32,
}

/// What the header of a segment says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) number: u64,
    pub(super) boot: u64,
    pub(super) store: u128,
    pub(super) ceiling: Seq,
    pub(super) synced: Seq,
    pub(super) predecessor: Option<Predecessor>,
    pub(super) table: FileTable,
    /// The section of the clients' last outcomes; empty where there are none.
    pub(super) outcomes: Vec<u8>,
}

/// What all headers have in common.
const FORM: Form = Form {
    magic: MAGIC,
    versions: OLDEST_VERSION..=FORMAT_VERSION,
    lengths: FIXED_BYTES + CHECK_BYTES..=MAX_HEADER_BYTES,
    words: [
        "the file ends inside the segment's header",
        "the file does not begin as a journal segment does",
        "the segment's header has an impossible length",
        "the segment's header does not match its checksum",
    ],
};

/// What the checksums of a segment's records begin with.
pub(super) fn salt(store: u128, number: u64) -> u64 {
    let mut bytes = [0; 24];
    bytes[..16].copy_from_slice(&store.to_le_bytes());
    bytes[16..].copy_from_slice(&number.to_le_bytes());
    xxh3_64(&bytes)
}

impl SegmentHeader {
    pub(super) fn salt(&self) -> u64 {
        salt(self.store, self.number)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = FORM.begin();
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.boot.to_le_bytes());
        out.extend_from_slice(&self.store.to_le_bytes());
        out.extend_from_slice(&self.salt().to_le_bytes());
        out.extend_from_slice(&self.ceiling.0.to_le_bytes());
        out.extend_from_slice(&self.synced.0.to_le_bytes());
        let before = self.predecessor.unwrap_or(Predecessor { segment: 0, byte: 0, seq: Seq::ZERO, crc: 0 });
        out.extend_from_slice(&before.segment.to_le_bytes());
        out.extend_from_slice(&before.byte.to_le_bytes());
        out.extend_from_slice(&before.seq.0.to_le_bytes());
        out.extend_from_slice(&before.crc.to_le_bytes());
        let sections = 1 + u32::from(!self.outcomes.is_empty());
        out.extend_from_slice(&sections.to_le_bytes());
        debug_assert_eq!(out.len(), FIXED_BYTES);
        let mut table = Vec::new();
        self.table.encode(&mut table);
        encode_section(&mut out, SECTION_TABLE, &table);
        if !self.outcomes.is_empty() {
            encode_section(&mut out, SECTION_OUTCOMES, &self.outcomes);
        }
        Form::finish(out)
    }

    /// How long the header at the start of `segment` says that it is; 0 if there is none. Not to be believed yet.
    pub(super) fn length(segment: &[u8]) -> usize {
        FORM.length(segment)
    }

    /// Reads the header at the start of `segment` and says how long it is.
    pub(super) fn decode(segment: &[u8]) -> Result<(Self, usize), HeaderError> {
        let (body, length) = FORM.check(segment)?;
        let read = Self::decode_fields(body).ok_or(HeaderError::Bad("the segment's header has impossible contents"))?;
        Ok((read, length))
    }

    fn decode_fields(body: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(body);
        let number = fields.u64()?;
        let boot = fields.u64()?;
        let store = fields.u128()?;
        if fields.u64()? != salt(store, number) {
            return None;
        }
        let ceiling = Seq(fields.u64()?);
        let synced = Seq(fields.u64()?);
        let before =
            Predecessor { segment: fields.u64()?, byte: fields.u64()?, seq: Seq(fields.u64()?), crc: fields.u32()? };
        let predecessor = (before.segment != 0).then_some(before);
        let (mut table, mut outcomes) = (FileTable::default(), Vec::new());
        for _ in 0..fields.u32()? {
            let kind = fields.u32()?;
            fields.u32()?;
            let length = usize::try_from(fields.u64()?).ok()?;
            let bytes = fields.bytes(length)?;
            fields.bytes(align(length) - length)?;
            match kind {
                SECTION_TABLE => table = FileTable::decode(bytes)?,
                SECTION_OUTCOMES => {
                    Outcomes::decode(bytes)?;
                    bytes.clone_into(&mut outcomes);
                }
                _ if kind & MAY_BE_SKIPPED != 0 => {}
                _ => return None,
            }
        }
        fields.is_empty().then_some(Self { number, boot, store, ceiling, synced, predecessor, table, outcomes })
    }
}

fn encode_section(out: &mut Vec<u8>, kind: u32, bytes: &[u8]) {
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    out.extend_from_slice(bytes);
    out.resize(align(out.len()), 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::journal::WriteHead;

    fn outcomes() -> Vec<u8> {
        let mut outcomes = Outcomes::default();
        let head = WriteHead { client: 7, number: 3, behind: 0, new: 1, found: 0 };
        outcomes.note(head, Seq(99), 3);
        outcomes.encode()
    }

    fn sample() -> SegmentHeader {
        SegmentHeader {
            number: 7,
            boot: 3,
            store: 0x1234_5678_9abc_def0_1122_3344_5566_7788,
            ceiling: Seq(1 << 32),
            synced: Seq(99),
            predecessor: Some(Predecessor { segment: 6, byte: 4096, seq: Seq(99), crc: 0xdead_beef }),
            table: FileTable::sample(),
            outcomes: outcomes(),
        }
    }

    #[test]
    fn a_header_reads_back_as_it_was_written() {
        let bare = SegmentHeader { predecessor: None, table: FileTable::default(), outcomes: Vec::new(), ..sample() };
        for header in [sample(), bare] {
            let mut bytes = header.encode();
            let length = bytes.len();
            bytes.extend_from_slice(b"records follow");
            assert_eq!(SegmentHeader::decode(&bytes), Ok((header, length)));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_of_a_header_is_noticed() {
        let bytes = sample().encode();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(SegmentHeader::decode(&flipped), Err(HeaderError::Bad(_))), "bit {bit}");
        }
        for end in 0..bytes.len() {
            assert!(matches!(SegmentHeader::decode(&bytes[..end]), Err(HeaderError::Bad(_))), "cut at {end}");
        }
    }

    #[test]
    fn a_newer_version_is_told_from_damage_and_the_first_one_is_read() {
        let of_version = |version: u32| {
            let mut bytes = SegmentHeader { outcomes: Vec::new(), ..sample() }.encode();
            bytes[8..12].copy_from_slice(&version.to_le_bytes());
            let end = bytes.len() - CHECK_BYTES;
            let crc = crc32fast::hash(&bytes[..end]);
            bytes[end..end + 4].copy_from_slice(&crc.to_le_bytes());
            SegmentHeader::decode(&bytes)
        };
        assert_eq!(of_version(3), Err(HeaderError::Newer(3)));
        assert_eq!(of_version(1).map(|(header, _)| header.table), Ok(FileTable::sample()));
    }
}
