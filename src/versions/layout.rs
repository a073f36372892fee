//! The bytes of a version table, and which of them a key means.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | magic `COMNTABL` |
//! | 8 | 8 | layout version: 1 |
//! | 16 | 8 | epoch: 0 is dead, every other value is one daemon's |
//! | 24 | 8 | nonce: random, never 0, the same for as long as the file lives, repeated in its name and in the daemon's hello |
//! | 32 | 8 | N, the number of slots, a power of two |
//! | 40 | 8 | bytes of the store's path; 0 where it is too long to be kept |
//! | 48 | 4,048 | the store's path, for people and for whoever clears away the tables of stores that are gone |
//! | 4,096 | 16 × 4,096 | the namespaces' names: XXH3-128, its low half first; both halves 0 is free, all ones is closed |
//! | 69,632 | 8 × 4,096 | their clear counts |
//! | 102,400 | 8 × 4,096 | their flag words |
//! | 135,168 | 8 × N | slots |
//!
//! All are u64 in the machine's own byte order: the file never leaves the memory that it is in. The first four are the same
//! in every layout, so that a daemon of another version can mark the file dead.
//!
//! A namespace's name is hashed as workspace, a zero byte, namespace. It has the first entry, from (low half mod 4,096) on,
//! that was free or its own when the daemon first needed one; entries are given back when the next daemon begins. A key's
//! slot is XXH3-64 of the key, seeded with the low half of the namespace's hash, mod N.

use std::sync::atomic::AtomicU64;
#[cfg(feature = "daemon")]
use std::sync::atomic::Ordering;

use commonhold_proto::Place;
use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128};

use super::memory::Mapping;

/// What a table begins with.
pub(super) const MAGIC: u64 = u64::from_ne_bytes(*b"COMNTABL");

/// Whether a file that begins so is a table, of whatever layout.
#[cfg(feature = "daemon")]
pub(super) fn is_table(header: &[u8]) -> bool {
    header.starts_with(&MAGIC.to_ne_bytes())
}

/// The layout that the map above shows.
pub(super) const LAYOUT: u64 = 1;

/// How many namespaces can have an entry.
pub const NAMESPACES: usize = 4_096;

/// No daemon has this epoch.
pub(super) const DEAD: u64 = 0;

/// How many slots a new table has.
#[cfg(feature = "daemon")]
pub(super) const SLOTS: usize = 131_072;

pub(super) const HEADER_BYTES: usize = 4_096;
#[cfg(feature = "daemon")]
pub(super) const EPOCH_OFFSET: u64 = 16;
#[cfg(feature = "daemon")]
pub(super) const PATH_OFFSET: usize = 48;

// Places of words, not bytes, from here on.
const EPOCH: usize = 2;
const NONCE: usize = 3;
const COUNT_OF_SLOTS: usize = 4;
const NAMES: usize = HEADER_BYTES / 8;
const CLEARS: usize = NAMES + 2 * NAMESPACES;
const FLAGS: usize = CLEARS + NAMESPACES;
const FIRST_SLOT: usize = FLAGS + NAMESPACES;

/// Bytes of a table of so many slots.
pub(super) const fn table_bytes(slots: usize) -> usize {
    (FIRST_SLOT + slots) * 8
}

/// A namespace, as the table knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Name(u128);

/// Both halves of a name that two namespaces have: neither is found.
const CLOSED: u128 = u128::MAX;

impl Name {
    /// The name of the namespace at `place`.
    pub fn of(place: &Place) -> Self {
        let (workspace, namespace) = (place.workspace.as_str(), place.namespace.as_str());
        let mut text = Vec::with_capacity(workspace.len() + 1 + namespace.len());
        text.extend_from_slice(workspace.as_bytes());
        text.push(0);
        text.extend_from_slice(namespace.as_bytes());
        // Nobody's hash is what stands for none and for closed.
        Self(xxh3_128(&text).clamp(1, CLOSED - 1))
    }

    /// The half that seeds the hashes of its keys.
    pub(super) fn low(self) -> u64 {
        self.0 as u64
    }

    /// A hash of one of its keys, for tables of the process's own; `secret` is what others do not know.
    pub fn hash_of(self, key: &str, secret: u64) -> u64 {
        xxh3_64_with_seed(key.as_bytes(), self.low() ^ secret)
    }
}

/// A mapped table of this layout.
#[derive(Debug)]
pub(super) struct Words {
    mapping: Mapping,
    slot_mask: usize,
}

impl Words {
    /// Takes a mapping for a table if it is one: of this layout, and as long as it says.
    pub(super) fn of(mapping: Mapping) -> Option<Self> {
        let word = |at: usize| mapping.words().get(at).map(|word| word.load(std::sync::atomic::Ordering::Acquire));
        let slots = usize::try_from(word(COUNT_OF_SLOTS)?).ok()?;
        let is_table = word(0)? == MAGIC && word(1)? == LAYOUT && word(NONCE)? != 0;
        let fits = slots.is_power_of_two() && slots <= 1 << 30 && mapping.words().len() * 8 == table_bytes(slots);
        (is_table && fits).then(|| Self { slot_mask: slots - 1, mapping })
    }

    /// Makes a table of a zeroed mapping.
    #[cfg(feature = "daemon")]
    pub(super) fn founded(mapping: Mapping, slots: usize, nonce: u64, path: &[u8]) -> Option<Self> {
        let put = |at: usize, value: u64| {
            if let Some(word) = mapping.words().get(at) {
                word.store(value, Ordering::Release);
            }
        };
        if path.len() <= HEADER_BYTES - PATH_OFFSET {
            for (at, piece) in path.chunks(8).enumerate() {
                let mut bytes = [0; 8];
                bytes[..piece.len()].copy_from_slice(piece);
                put(PATH_OFFSET / 8 + at, u64::from_ne_bytes(bytes));
            }
            put(5, path.len() as u64);
        }
        put(COUNT_OF_SLOTS, slots as u64);
        put(NONCE, nonce);
        put(1, LAYOUT);
        put(0, MAGIC);
        Self::of(mapping)
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        &self.mapping.words()[at]
    }

    pub(super) fn epoch(&self) -> &AtomicU64 {
        self.word(EPOCH)
    }

    pub(super) fn nonce(&self) -> &AtomicU64 {
        self.word(NONCE)
    }

    /// The two halves of an entry's name.
    pub(super) fn name(&self, entry: usize) -> [&AtomicU64; 2] {
        [self.word(NAMES + 2 * entry), self.word(NAMES + 2 * entry + 1)]
    }

    pub(super) fn clear_count(&self, entry: usize) -> &AtomicU64 {
        self.word(CLEARS + entry)
    }

    pub(super) fn flag_word(&self, entry: usize) -> &AtomicU64 {
        self.word(FLAGS + entry)
    }

    pub(super) fn slot(&self, slot: usize) -> &AtomicU64 {
        self.word(FIRST_SLOT + (slot & self.slot_mask))
    }

    /// Which slot a key has.
    pub(super) fn slot_of(&self, name: Name, key: &str) -> usize {
        xxh3_64_with_seed(key.as_bytes(), name.low()) as usize & self.slot_mask
    }

    /// How many slots there are.
    #[cfg(feature = "daemon")]
    pub(super) fn slots(&self) -> usize {
        self.slot_mask + 1
    }

    /// The entries that a name may have, in the order in which they are tried.
    pub(super) fn entries_for(name: Name) -> impl Iterator<Item = usize> {
        let first = name.low() as usize % NAMESPACES;
        (first..NAMESPACES).chain(0..first)
    }

    /// What lies in an entry.
    pub(super) fn look(&self, entry: usize, name: Name) -> Occupant {
        use std::sync::atomic::Ordering::Acquire;
        let [low, high] = self.name(entry).map(|half| half.load(Acquire));
        match u128::from(high) << 64 | u128::from(low) {
            0 => Occupant::Nobody,
            found if found == name.0 => Occupant::Own,
            _ => Occupant::Another,
        }
    }

    /// Writes a name into an entry.
    #[cfg(feature = "daemon")]
    pub(super) fn occupy(&self, entry: usize, name: Name) {
        self.put_name(entry, name.0);
    }

    /// Two namespaces have this name, so that nobody may find it.
    #[cfg(feature = "daemon")]
    pub(super) fn close(&self, entry: usize) {
        self.put_name(entry, CLOSED);
    }

    /// The entry is nobody's.
    #[cfg(feature = "daemon")]
    pub(super) fn vacate(&self, entry: usize) {
        self.put_name(entry, 0);
    }

    #[cfg(feature = "daemon")]
    fn put_name(&self, entry: usize, value: u128) {
        let [low, high] = self.name(entry);
        // Readers load the low half first: who finds it new finds the other one new, too.
        high.store((value >> 64) as u64, Ordering::Release);
        low.store(value as u64, Ordering::Release);
    }
}

/// Who has an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Occupant {
    Nobody,
    Own,
    Another,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_slots_are_the_ones_that_the_protocol_tells() {
        let place = Place::new("", "text_chunks").unwrap();
        let name = Name::of(&place);
        assert_eq!(name, Name(xxh3_128(b"\0text_chunks")));
        assert_ne!(name, Name::of(&Place::new("text_chunks", "x").unwrap()));
        assert_eq!(table_bytes(SLOTS), 135_168 + 8 * SLOTS);
        assert_eq!((NAMES * 8, CLEARS * 8, FLAGS * 8, FIRST_SLOT * 8), (4_096, 69_632, 102_400, 135_168));
    }
}
