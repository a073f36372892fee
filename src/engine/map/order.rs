//! The insertion order of a map: records by ordinal, in chunks of 1,024 ordinals.
//!
//! Ordinals are never reused, so a place is found by arithmetic and a cursor or a view can name it for ever. A chunk that
//! has lost a quarter of its records is stored sparse, an empty one is gone. Chunks stand in a B-tree and not in one long
//! array: growth moves a few entries at a time, and a single old record before a million deleted ones holds on to
//! nothing but its own chunk.

use std::collections::btree_map::{self, BTreeMap};
use std::iter::{Copied, Enumerate, Zip};
use std::slice;

use super::Record;
use crate::engine::memory::Held;

/// Ordinals of one chunk.
const CHUNK: u64 = 1_024;

/// A full chunk with no more live records than this is stored sparse.
const SPARSE_AT: usize = 768;

/// About what an entry of the B-tree costs: keys ascend, so its nodes are half full.
const ENTRY_BYTES: usize = 2 * (size_of::<u64>() + size_of::<Chunk>());

/// Records by ordinal.
pub(super) struct Order {
    chunks: BTreeMap<u64, Chunk>,
    next: u64,
    allocated: usize,
    /// What a cleared map held: counted until its order is freed.
    held: Held,
}

enum Chunk {
    /// A slot for each ordinal given so far; the last chunk of an order is always dense.
    Dense { slots: Vec<Option<Record>>, live: usize },
    /// The ordinals (less the chunk's first) that are left, ascending, and beside them their records.
    Sparse { offsets: Vec<u16>, records: Vec<Record> },
}

impl Order {
    /// An empty order whose first ordinal is at least `first`.
    pub(super) fn starting_at(first: u64) -> Self {
        Self { chunks: BTreeMap::new(), next: first.next_multiple_of(CHUNK), allocated: 0, held: Held::default() }
    }

    /// Counts this until the order is freed.
    pub(super) fn hold(&mut self, held: Held) {
        self.held = held;
    }

    /// The ordinal that the next record gets: above every one given so far.
    pub(super) fn bound(&self) -> u64 {
        self.next
    }

    /// Adds a record under the ordinal [`bound`](Self::bound).
    pub(super) fn push(&mut self, record: Record) {
        let ordinal = self.next;
        self.next += 1;
        if ordinal.is_multiple_of(CHUNK) {
            self.settle_last();
            self.chunks.insert(ordinal / CHUNK, Chunk::Dense { slots: Vec::new(), live: 0 });
        }
        // An order begins at a chunk's first ordinal and never drops or thins the chunk that it is filling.
        let mut last = self.chunks.last_entry().expect("the chunk being filled is kept");
        let Chunk::Dense { slots, live } = last.get_mut() else { unreachable!("the chunk being filled is dense") };
        let before = slots.capacity();
        slots.push(Some(record));
        *live += 1;
        self.allocated += (slots.capacity() - before) * size_of::<Record>();
    }

    /// The last chunk has become a full one: it is stored as full ones are.
    fn settle_last(&mut self) {
        if let Some(mut last) = self.chunks.last_entry() {
            self.allocated -= last.get().allocated();
            if last.get().live() == 0 {
                last.remove();
            } else {
                last.get_mut().thin();
                self.allocated += last.get().allocated();
            }
        }
    }

    /// Puts a record in the place of another one. `None`, and nothing done, if there is none at `ordinal`.
    pub(super) fn replace(&mut self, ordinal: u64, record: Record) -> Option<Record> {
        let slot = self.chunks.get_mut(&(ordinal / CHUNK))?.slot_mut(offset(ordinal))?;
        Some(std::mem::replace(slot, record))
    }

    pub(super) fn get(&self, ordinal: u64) -> Option<&Record> {
        match self.chunks.get(&(ordinal / CHUNK))? {
            Chunk::Dense { slots, .. } => slots.get(usize::from(offset(ordinal)))?.as_ref(),
            Chunk::Sparse { offsets, records } => Some(&records[offsets.binary_search(&offset(ordinal)).ok()?]),
        }
    }

    pub(super) fn remove(&mut self, ordinal: u64) -> Option<Record> {
        let number = ordinal / CHUNK;
        let filling = self.next.div_ceil(CHUNK) == number + 1 && !self.next.is_multiple_of(CHUNK);
        let chunk = self.chunks.get_mut(&number)?;
        let before = chunk.allocated();
        let record = chunk.take(offset(ordinal))?;
        if !filling && chunk.live() == 0 {
            self.chunks.remove(&number);
            self.allocated -= before;
        } else if !filling {
            chunk.thin();
            self.allocated = self.allocated - before + chunk.allocated();
        }
        Some(record)
    }

    /// The records from ordinal `first` on, in order.
    pub(super) fn range(&self, first: u64) -> Range<'_> {
        let mut chunks = self.chunks.range(first / CHUNK..);
        let current = match chunks.next() {
            Some((&number, chunk)) if number == first / CHUNK => Some((number * CHUNK, chunk.from(offset(first)))),
            Some((&number, chunk)) => Some((number * CHUNK, chunk.from(0))),
            None => None,
        };
        Range { chunks, current }
    }

    /// Bytes asked of the allocator, the B-tree's own by estimate.
    pub(super) fn allocated(&self) -> usize {
        self.allocated + self.chunks.len() * ENTRY_BYTES
    }

    /// Drops whole chunks until at least `records` records are gone, and tells how many were; 0 when none is left.
    pub(super) fn drop_some(&mut self, records: usize) -> usize {
        let mut dropped = 0;
        while dropped < records
            && let Some((_, chunk)) = self.chunks.pop_first()
        {
            dropped += chunk.live();
        }
        dropped
    }
}

impl Chunk {
    fn live(&self) -> usize {
        match self {
            Self::Dense { live, .. } => *live,
            Self::Sparse { records, .. } => records.len(),
        }
    }

    fn allocated(&self) -> usize {
        match self {
            Self::Dense { slots, .. } => slots.capacity() * size_of::<Record>(),
            Self::Sparse { offsets, records } => {
                offsets.capacity() * size_of::<u16>() + records.capacity() * size_of::<Record>()
            }
        }
    }

    fn slot_mut(&mut self, offset: u16) -> Option<&mut Record> {
        match self {
            Self::Dense { slots, .. } => slots.get_mut(usize::from(offset))?.as_mut(),
            Self::Sparse { offsets, records } => Some(&mut records[offsets.binary_search(&offset).ok()?]),
        }
    }

    fn take(&mut self, offset: u16) -> Option<Record> {
        match self {
            Self::Dense { slots, live } => {
                let record = slots.get_mut(usize::from(offset))?.take()?;
                *live -= 1;
                Some(record)
            }
            Self::Sparse { offsets, records } => {
                let at = offsets.binary_search(&offset).ok()?;
                offsets.remove(at);
                Some(records.remove(at))
            }
        }
    }

    /// Gives back the room of what is gone, once that is a quarter.
    fn thin(&mut self) {
        match self {
            Self::Dense { slots, live } if *live <= SPARSE_AT => {
                let mut offsets = Vec::with_capacity(*live);
                let mut records = Vec::with_capacity(*live);
                for (offset, slot) in (0..).zip(std::mem::take(slots)) {
                    if let Some(record) = slot {
                        offsets.push(offset);
                        records.push(record);
                    }
                }
                *self = Self::Sparse { offsets, records };
            }
            Self::Sparse { offsets, records } if records.len() <= records.capacity() / 4 * 3 => {
                offsets.shrink_to_fit();
                records.shrink_to_fit();
            }
            _ => {}
        }
    }

    fn from(&self, offset: u16) -> ChunkRange<'_> {
        match self {
            Self::Dense { slots, .. } => {
                let mut slots = slots.iter().enumerate();
                if offset > 0 {
                    slots.nth(usize::from(offset) - 1);
                }
                ChunkRange::Dense(slots)
            }
            Self::Sparse { offsets, records } => {
                let at = offsets.partition_point(|o| *o < offset);
                ChunkRange::Sparse(offsets[at..].iter().copied().zip(&records[at..]))
            }
        }
    }
}

/// Records with their ordinals, ascending.
pub(super) struct Range<'a> {
    chunks: btree_map::Range<'a, u64, Chunk>,
    current: Option<(u64, ChunkRange<'a>)>,
}

enum ChunkRange<'a> {
    Dense(Enumerate<slice::Iter<'a, Option<Record>>>),
    Sparse(Zip<Copied<slice::Iter<'a, u16>>, slice::Iter<'a, Record>>),
}

impl<'a> Iterator for Range<'a> {
    type Item = (u64, &'a Record);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (first, chunk) = self.current.as_mut()?;
            let found = match chunk {
                ChunkRange::Dense(slots) => slots.find_map(|(at, slot)| Some((at as u64, slot.as_ref()?))),
                ChunkRange::Sparse(pairs) => pairs.next().map(|(offset, record)| (u64::from(offset), record)),
            };
            if let Some((offset, record)) = found {
                return Some((*first + offset, record));
            }
            self.current = self.chunks.next().map(|(number, chunk)| (number * CHUNK, chunk.from(0)));
        }
    }
}

fn offset(ordinal: u64) -> u16 {
    (ordinal % CHUNK) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(records: u64) -> Order {
        let mut order = Order::starting_at(0);
        for number in 0..records {
            order.push(Record::new(&number.to_string(), "0"));
        }
        order
    }

    fn ordinals(order: &Order, first: u64) -> Vec<u64> {
        order
            .range(first)
            .map(|(ordinal, record)| {
                assert_eq!(record.key(), ordinal.to_string());
                ordinal
            })
            .collect()
    }

    #[test]
    fn every_place_is_found_whether_its_chunk_is_dense_or_sparse() {
        let mut order = filled(5_000);
        let kept: Vec<u64> = (0..5_000).filter(|o| !matches!(o, 1_024..2_048) && (*o < 1_024 || o % 7 == 0)).collect();
        for ordinal in (0..5_000).filter(|o| !kept.contains(o)) {
            assert_eq!(order.remove(ordinal).map(|r| r.key().to_owned()), Some(ordinal.to_string()));
            assert!(order.remove(ordinal).is_none());
        }
        assert_eq!(order.chunks.len(), 4, "the empty chunk is gone");
        for first in [0, 1, 1_023, 1_024, 2_047, 2_050, 4_999, 5_000, 90_000] {
            let expected: Vec<u64> = kept.iter().copied().filter(|o| *o >= first).collect();
            assert_eq!(ordinals(&order, first), expected, "from {first}");
        }
        for ordinal in 0..6_000 {
            assert_eq!(order.get(ordinal).is_some(), kept.contains(&ordinal), "{ordinal}");
        }
        assert_eq!(order.allocated, order.chunks.values().map(Chunk::allocated).sum::<usize>());
    }

    #[test]
    fn a_queue_of_any_length_holds_on_to_nothing() {
        let mut order = filled(1);
        for ordinal in 1..100_000 {
            order.push(Record::new(&ordinal.to_string(), "0"));
            order.remove(ordinal);
        }
        assert!(order.chunks.len() <= 2, "{}", order.chunks.len());
        assert!(order.allocated() < 10_000);
        assert_eq!(ordinals(&order, 0), [0]);
        assert_eq!(order.bound(), 100_000);
    }
}
