//! A record in one allocation: what the map, the views and the readers share by counting references.
//!
//! This file contains unsafe code: `key` and `value` skip the UTF-8 check of bytes that [`Record::new`] copied from a
//! `&str` (checking 830 bytes again would cost more than the look-up that found them), and `new` writes them where they stay,
//! into memory that nothing was in before. The argument stands beside each block.
//!
//! ```text
//! count 8 | seq 8 | ordinal 8 | length of the rest 8 | key length, LEB128, 1 to 10 | key | value
//! ```
#![expect(unsafe_code, reason = "text that came from &str is copied once, and is not checked again at every read")]

use std::fmt;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU64, Ordering};

use commonhold_proto::Seq;
use triomphe::{Arc, HeaderSlice, HeaderWithLength, ThinArc, UniqueArc};

/// The ordinal of a record that is in no map yet.
const UNPLACED: u64 = u64::MAX;

/// What stands before the text: reference count, Seq, ordinal and length, 8 bytes each.
const HEAD_BYTES: usize = 32;

struct Header {
    seq: AtomicU64,
    ordinal: AtomicU64,
}

/// A key, its value (canonical JSON text) and the Seq that wrote it. Cloning counts a reference; the text never changes.
#[derive(Clone)]
pub struct Record(ThinArc<Header, u8>);

impl Record {
    /// Copies `key` and `value` into one allocation. The Seq is [`Seq::ZERO`] until [`set_seq`](Self::set_seq).
    pub fn new(key: &str, value: &str) -> Self {
        let (mut length, mut length_bytes, mut rest) = ([0; 10], 0, key.len());
        while rest >= 0x80 {
            length[length_bytes] = (rest & 0x7f) as u8 | 0x80;
            rest >>= 7;
            length_bytes += 1;
        }
        length[length_bytes] = rest as u8;
        length_bytes += 1;
        let bytes = length_bytes + key.len() + value.len();
        let header = Header { seq: AtomicU64::new(0), ordinal: AtomicU64::new(UNPLACED) };
        let header = HeaderWithLength::new(header, bytes);
        let mut record: UniqueArc<HeaderSlice<_, [MaybeUninit<u8>]>> =
            UniqueArc::from_header_and_uninit_slice(header, bytes);
        let (length_room, text_room) = record.slice.split_at_mut(length_bytes);
        let (key_room, value_room) = text_room.split_at_mut(key.len());
        length_room.write_copy_of_slice(&length[..length_bytes]);
        key_room.write_copy_of_slice(key.as_bytes());
        value_room.write_copy_of_slice(value.as_bytes());
        // SAFETY: each of the three parts was written whole (`write_copy_of_slice` panics where the lengths differ), and together
        // they are the slice.
        let record = unsafe { record.assume_init_slice_with_header() };
        Self(Arc::into_thin(record.shareable()))
    }

    /// Key and value as bytes.
    #[inline]
    fn parts(&self) -> (&[u8], &[u8]) {
        let text = &self.0.slice;
        // Nearly every key is shorter than 128 bytes.
        if text[0] < 0x80 {
            return text[1..].split_at(usize::from(text[0]));
        }
        let (mut length, mut at) = (0, 0);
        loop {
            let byte = text[at];
            length |= usize::from(byte & 0x7f) << (7 * at);
            at += 1;
            if byte < 0x80 {
                return text[at..].split_at(length);
            }
        }
    }

    /// The key's bytes: what look-ups hash and compare.
    #[inline]
    pub(super) fn key_bytes(&self) -> &[u8] {
        self.parts().0
    }

    /// The key.
    #[inline]
    pub fn key(&self) -> &str {
        // SAFETY: `new`, the only constructor, wrote the length of a `&str` and then exactly that `&str`; nothing
        // writes to the slice afterwards, and `parts` decodes that length. So these bytes are that `&str`.
        unsafe { std::str::from_utf8_unchecked(self.parts().0) }
    }

    /// The value: canonical JSON text.
    #[inline]
    pub fn value(&self) -> &str {
        // SAFETY: as in `key`; what follows the key, to the end of the slice, is the other `&str` that `new` copied.
        unsafe { std::str::from_utf8_unchecked(self.parts().1) }
    }

    /// The Seq that wrote this record.
    pub fn seq(&self) -> Seq {
        Seq(self.0.header.header.seq.load(Ordering::Relaxed))
    }

    /// Gives the record its Seq. To be called before others see it: readers expect that a record's Seq never changes,
    /// and whatever shares the record (a lock, a channel) makes the Seq visible with it.
    pub fn set_seq(&self, seq: Seq) {
        self.0.header.header.seq.store(seq.0, Ordering::Relaxed);
    }

    /// The record's place in the insertion order of its map; `u64::MAX` before a map took it.
    pub fn ordinal(&self) -> u64 {
        self.0.header.header.ordinal.load(Ordering::Relaxed)
    }

    /// This record with its place in a map. A record is placed once in its life; one that already was (a caller put a
    /// clone of a record that is or was in a map) is copied, so that two places can never share one ordinal.
    pub(super) fn placed(self, ordinal: u64) -> Self {
        let place = &self.0.header.header.ordinal;
        if place.compare_exchange(UNPLACED, ordinal, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            return self;
        }
        let copy = Self::new(self.key(), self.value());
        copy.set_seq(self.seq());
        copy.placed(ordinal)
    }

    /// Bytes of key and value together.
    pub fn bytes(&self) -> usize {
        let (key, value) = self.parts();
        key.len() + value.len()
    }

    /// Bytes that the record asks of the allocator beside key and value: 33 and the padding to a multiple of 8, for a
    /// key shorter than 128 bytes.
    pub fn overhead_bytes(&self) -> usize {
        (HEAD_BYTES + self.0.slice.len()).next_multiple_of(8) - self.bytes()
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {} (seq {}, ordinal {})", self.key(), self.value(), self.seq(), self.ordinal())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_gives_back_what_it_was_made_of() {
        for key_bytes in [0, 1, 14, 127, 128, 129, 16_383, 16_384, 70_000] {
            for value in ["", "1", "{\"租户\":\"é\"}", &"9".repeat(100_000)] {
                let key: String = "ключ键k".chars().cycle().take(key_bytes).collect();
                let record = Record::new(&key, value);
                assert_eq!((record.key(), record.value()), (key.as_str(), value));
                assert_eq!(record.bytes(), key.len() + value.len());
                assert_eq!((record.seq(), record.ordinal()), (Seq::ZERO, u64::MAX));
            }
        }
    }

    #[test]
    fn a_record_is_one_pointer_and_its_clones_share_seq_and_text() {
        assert_eq!(size_of::<Option<Record>>(), 8);
        let record = Record::new("k", "[1]");
        let clone = record.clone();
        record.set_seq(Seq(7));
        assert_eq!((clone.seq(), clone.value().as_ptr()), (Seq(7), record.value().as_ptr()));
    }

    #[test]
    fn a_record_that_has_a_place_is_copied_to_get_another() {
        let first = Record::new("k", "1").placed(3);
        first.set_seq(Seq(9));
        let second = first.clone().placed(4);
        assert_eq!((first.ordinal(), second.ordinal(), second.seq()), (3, 4, Seq(9)));
        assert_eq!((second.key(), second.value()), ("k", "1"));
    }
}
