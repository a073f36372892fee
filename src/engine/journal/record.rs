//! A journal record: the frame around one payload.
//!
//! ```text
//!   0  4  length: of this frame and the payload, 32 at least; the record then ends at the next multiple of 8
//!   4  4  CRC-32 over the segment's salt, the length, and all that follows to the end of the record
//!   8  8  Seq
//!  16  8  synced-through Seq known when the record was written
//!  24  4  checksum of the record before this one
//!  28  1  kind
//!  29  3  zero
//!  32  …  payload, then zeros up to a multiple of 8
//! ```
//!
//! Every bit of a record is covered: the padding by the checksum's reach, the length by being mixed into it. Bytes from
//! disk are an [`UncheckedRecord`] until [`UncheckedRecord::verify`] consumes them into a [`Record`].

use commonhold_proto::Seq;
use commonhold_proto::limits::MAX_RECORD_BYTES;

use super::bytes::align;

/// Bytes before the payload.
pub(super) const FRAME_BYTES: usize = 32;

/// What a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A write request.
    Write = 1,
    /// A namespace file that no entry of the table knew was loaded.
    Loaded = 2,
    /// A namespace file is about to be replaced.
    Intent = 3,
    /// A namespace file was replaced.
    Done = 4,
    /// A namespace was dropped.
    Drop = 5,
    /// The Seq ceiling was raised.
    Ceiling = 6,
    /// An old record's part for one namespace, carried forward.
    Carried = 7,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Write, Self::Loaded, Self::Intent, Self::Done, Self::Drop, Self::Ceiling, Self::Carried]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// The frame's fields that do not follow from the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) seq: Seq,
    pub(super) synced: Seq,
    pub(super) previous_crc: u32,
    pub(super) kind: Kind,
}

/// A record that matches its checksum.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    pub(super) stamp: Stamp,
    pub(super) crc: u32,
    pub(super) payload: &'a [u8],
    /// Bytes from this record's start to the next one's.
    pub(super) stride: usize,
}

/// Bytes that have the shape of a record. Nothing in them may be believed yet.
pub(super) struct UncheckedRecord<'a> {
    length: usize,
    bytes: &'a [u8],
}

fn checksum(salt: u64, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&salt.to_le_bytes());
    hasher.update(&bytes[..4]);
    hasher.update(&bytes[8..]);
    hasher.finalize()
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes were sliced"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes were sliced"))
}

impl<'a> UncheckedRecord<'a> {
    /// The record that `bytes` may begin with.
    pub(super) fn at_start_of(bytes: &'a [u8]) -> Option<Self> {
        if bytes.len() < FRAME_BYTES {
            return None;
        }
        let length = u32_at(bytes, 0) as usize;
        if !(FRAME_BYTES..=MAX_RECORD_BYTES).contains(&length) {
            return None;
        }
        Some(Self { length, bytes: bytes.get(..align(length))? })
    }

    /// Whether the fields outside the payload could be those of a record above this Seq. Cheap, so
    /// that a search need not checksum at every offset.
    pub(super) fn is_plausible(&self, above: Seq) -> bool {
        let seq = Seq(u64_at(self.bytes, 8));
        let synced = Seq(u64_at(self.bytes, 16));
        seq > above && synced < seq && Kind::from_byte(self.bytes[28]).is_some()
    }

    /// Compares the bytes with their checksum.
    pub(super) fn verify(self, salt: u64) -> Option<Record<'a>> {
        let crc = u32_at(self.bytes, 4);
        if self.bytes[29..32] != [0; 3] || checksum(salt, self.bytes) != crc {
            return None;
        }
        Some(Record {
            stamp: Stamp {
                seq: Seq(u64_at(self.bytes, 8)),
                synced: Seq(u64_at(self.bytes, 16)),
                previous_crc: u32_at(self.bytes, 24),
                kind: Kind::from_byte(self.bytes[28])?,
            },
            crc,
            payload: &self.bytes[FRAME_BYTES..self.length],
            stride: self.bytes.len(),
        })
    }
}

/// Appends a record to `out`, its payload written by `payload`, and returns its checksum.
pub(super) fn encode(out: &mut Vec<u8>, salt: u64, stamp: Stamp, payload: impl FnOnce(&mut Vec<u8>)) -> u32 {
    let start = out.len();
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&stamp.seq.0.to_le_bytes());
    out.extend_from_slice(&stamp.synced.0.to_le_bytes());
    out.extend_from_slice(&stamp.previous_crc.to_le_bytes());
    out.extend_from_slice(&[stamp.kind as u8, 0, 0, 0]);
    payload(out);
    let length = out.len() - start;
    out.resize(start + align(length), 0);
    out[start..start + 4].copy_from_slice(&(length as u32).to_le_bytes());
    let crc = checksum(salt, &out[start..]);
    out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    crc
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: u64 = 0x0102_0304_0506_0708;

    fn sample(payload: &[u8]) -> (Stamp, Vec<u8>) {
        let stamp = Stamp { seq: Seq(5), synced: Seq(3), previous_crc: 77, kind: Kind::Write };
        let mut bytes = Vec::new();
        encode(&mut bytes, SALT, stamp, |out| out.extend_from_slice(payload));
        (stamp, bytes)
    }

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        for length in 0..20 {
            let payload = vec![b'x'; length];
            let (stamp, bytes) = sample(&payload);
            assert_eq!(bytes.len() % 8, 0);
            let record = UncheckedRecord::at_start_of(&bytes).and_then(|r| r.verify(SALT)).expect("is whole");
            assert_eq!((record.stamp, record.payload, record.stride), (stamp, &payload[..], bytes.len()));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_of_a_record_is_noticed_padding_included() {
        let (_, bytes) = sample(b"13 bytes long");
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(UncheckedRecord::at_start_of(&flipped).and_then(|r| r.verify(SALT)).is_none(), "bit {bit}");
        }
        for end in 0..bytes.len() {
            assert!(UncheckedRecord::at_start_of(&bytes[..end]).and_then(|r| r.verify(SALT)).is_none());
        }
    }

    #[test]
    fn a_record_of_another_segment_is_not_believed() {
        let (_, bytes) = sample(b"recycled");
        assert!(UncheckedRecord::at_start_of(&bytes).and_then(|r| r.verify(SALT + 1)).is_none());
    }
}
