//! Finds a record by its key: many small hash tables, so that growing never moves more than one of them.
//!
//! The hash chooses one of eight regions, and in a region linear hashing chooses a table: each time the region has
//! grown by [`TARGET`] records, the next table in turn is split in two. Tables have a power of two of buckets, so evenly
//! filled tables would all be half empty at the same time, just after they all had to grow, and cost twice what they
//! cost before. The regions' shares differ by steps of 2^(1/8): at any number of records some regions have full tables
//! and some have half empty ones, and the index costs about 14.5 bytes a record at every size.
//!
//! Bits of the hash: 0 to 15 and 57 to 63 belong to the small tables, 16 to 47 choose the table, 48 to 55 the region.

use std::hash::{BuildHasher, Hasher};

use foldhash::quality::RandomState;
use hashbrown::HashTable;

use super::Record;

/// Records a table holds on average; those whose turn to be split has not come hold up to twice as many.
const TARGET: usize = 400;

/// Buckets of the smallest table worth shrinking.
const SMALLEST: usize = 32;

/// Shares of the regions in 256ths: each 2^(1/8) times the one before, so that the last is nearly twice the first.
const SHARES: [u8; 8] = [23, 25, 28, 30, 33, 36, 39, 42];

/// The region of each value of the hash's bits 48 to 55.
const REGION_OF: [u8; 256] = {
    let mut regions = [0; 256];
    let (mut at, mut region, mut left) = (0, 0, SHARES[0]);
    while at < 256 {
        if left == 0 {
            region += 1;
            left = SHARES[region];
        }
        regions[at] = region as u8;
        left -= 1;
        at += 1;
    }
    regions
};

/// The records of a map by key.
pub(super) struct Index {
    hasher: RandomState,
    regions: [Region; SHARES.len()],
}

/// Hashes keys as a map does.
pub(crate) struct KeyHasher(RandomState);

impl KeyHasher {
    #[inline]
    pub(crate) fn hash(&self, key: &str) -> u64 {
        hash(&self.0, key.as_bytes())
    }
}

/// One share of the hashes. Has no table until its first record.
#[derive(Default)]
struct Region {
    tables: Vec<HashTable<Record>>,
    records: usize,
    allocated: usize,
}

impl Index {
    pub(super) fn new() -> Self {
        Self { hasher: RandomState::default(), regions: std::array::from_fn(|_| Region::default()) }
    }

    /// An index with its tables laid out for about this many records, so that filling it moves none of them.
    pub(super) fn expecting(records: usize) -> Self {
        let mut index = Self::new();
        for (region, share) in index.regions.iter_mut().zip(SHARES) {
            region.lay_out(records / 256 * usize::from(share));
        }
        index
    }

    /// This index laid out anew if that was done for many more records than have come, so that it costs no more than one that
    /// has grown.
    pub(super) fn fitted(self, expected: usize) -> Self {
        let records: usize = self.regions.iter().map(|region| region.records).sum();
        if expected - expected / 8 <= records {
            return self;
        }
        let Self { hasher, regions } = self;
        let mut fitted = Self { hasher: hasher.clone(), ..Self::expecting(records) };
        for table in regions.into_iter().flat_map(|region| region.tables) {
            for (hash, record) in with_hashes(table, &hasher) {
                fitted.insert(hash, record);
            }
        }
        fitted
    }

    pub(super) fn key_hasher(&self) -> KeyHasher {
        KeyHasher(self.hasher.clone())
    }

    #[inline]
    pub(super) fn hash(&self, key: &[u8]) -> u64 {
        hash(&self.hasher, key)
    }

    #[inline]
    pub(super) fn find(&self, hash: u64, key: &[u8]) -> Option<&Record> {
        let region = &self.regions[region_of(hash)];
        region.tables.get(region.table_of(hash))?.find(hash, |record| record.key_bytes() == key)
    }

    #[inline]
    pub(super) fn find_mut(&mut self, hash: u64, key: &[u8]) -> Option<&mut Record> {
        let region = &mut self.regions[region_of(hash)];
        let at = region.table_of(hash);
        region.tables.get_mut(at)?.find_mut(hash, |record| record.key_bytes() == key)
    }

    /// Adds a record whose key is not in the index.
    pub(super) fn insert(&mut self, hash: u64, record: Record) {
        let region = &mut self.regions[region_of(hash)];
        if region.records >= region.tables.len() * TARGET {
            region.split(&self.hasher);
        }
        let at = region.table_of(hash);
        let table = &mut region.tables[at];
        if table.len() == table.capacity() {
            region.allocated -= table.allocation_size();
            refit(table, table.len() + 1, &self.hasher);
            region.allocated += table.allocation_size();
        }
        table.insert_unique(hash, record, |record| hash_of(&self.hasher, record));
        region.records += 1;
    }

    pub(super) fn remove(&mut self, hash: u64, key: &[u8]) -> Option<Record> {
        let region = &mut self.regions[region_of(hash)];
        let at = region.table_of(hash);
        let table = region.tables.get_mut(at)?;
        let (record, _) = table.find_entry(hash, |record| record.key_bytes() == key).ok()?.remove();
        region.records -= 1;
        if table.num_buckets() >= SMALLEST && table.len() < table.num_buckets() / 16 * 5 {
            region.allocated -= table.allocation_size();
            refit(table, table.len(), &self.hasher);
            region.allocated += table.allocation_size();
        }
        if region.tables.len() > 1 && region.records < (region.tables.len() - 1) * TARGET / 2 {
            region.merge(&self.hasher);
        }
        Some(record)
    }

    /// Bytes asked of the allocator.
    pub(super) fn allocated(&self) -> usize {
        self.regions.iter().map(|r| r.allocated + r.tables.capacity() * size_of::<HashTable<Record>>()).sum()
    }

    /// Drops whole tables until at least `records` records are gone, and tells how many were; 0 when none is left.
    pub(super) fn drop_some(&mut self, records: usize) -> usize {
        let mut dropped = 0;
        for region in &mut self.regions {
            while dropped < records
                && let Some(table) = region.tables.pop()
            {
                dropped += table.len();
            }
        }
        dropped
    }
}

impl Region {
    /// The table of a hash: as many bits as there are tables, and one less where that table does not exist yet.
    #[inline]
    fn table_of(&self, hash: u64) -> usize {
        let bits = (hash >> 16) as u32 as usize;
        let tables = self.tables.len();
        let mask = tables.next_power_of_two().wrapping_sub(1);
        let at = bits & mask;
        if at < tables { at } else { at & (mask >> 1) }
    }

    /// Makes the tables that this many records will need, each with room for its part of them.
    fn lay_out(&mut self, records: usize) {
        let tables = records.div_ceil(TARGET);
        let parts = tables.next_power_of_two();
        self.tables = (0..tables)
            .map(|at| {
                // A table whose turn to be split has not come has its twin's part as well.
                let is_whole = at < parts / 2 && at + parts / 2 >= tables;
                HashTable::with_capacity(records / parts * (1 + usize::from(is_whole)))
            })
            .collect();
        self.allocated = self.tables.iter().map(HashTable::allocation_size).sum();
    }

    /// Adds a table and moves to it what is now its own, all of it from one other table.
    fn split(&mut self, hasher: &RandomState) {
        let new = self.tables.len();
        self.tables.push(HashTable::new());
        if new == 0 {
            return;
        }
        let donor = new & ((new + 1).next_power_of_two() / 2 - 1);
        let old = std::mem::take(&mut self.tables[donor]);
        self.allocated -= old.allocation_size();
        let old = with_hashes(old, hasher);
        let moved = old.iter().filter(|(hash, _)| self.table_of(*hash) == new).count();
        let mut tables = [old.len() - moved, moved].map(HashTable::with_capacity);
        for (hash, record) in old {
            let at = usize::from(self.table_of(hash) == new);
            tables[at].insert_unique(hash, record, |record| hash_of(hasher, record));
        }
        self.allocated += tables.iter().map(HashTable::allocation_size).sum::<usize>();
        [self.tables[donor], self.tables[new]] = tables;
    }

    /// Takes the last split back.
    fn merge(&mut self, hasher: &RandomState) {
        let Some(last) = self.tables.pop() else { return };
        let at = self.tables.len();
        let donor = &mut self.tables[at & ((at + 1).next_power_of_two() / 2 - 1)];
        self.allocated -= last.allocation_size() + donor.allocation_size();
        refit(donor, donor.len() + last.len(), hasher);
        for (hash, record) in with_hashes(last, hasher) {
            donor.insert_unique(hash, record, |record| hash_of(hasher, record));
        }
        self.allocated += donor.allocation_size();
        if self.tables.len() < self.tables.capacity() / 4 {
            self.tables.shrink_to(self.tables.len() * 2);
        }
    }
}

/// Builds `table` anew for `records` records (at least as many as it has), in as few buckets as will do.
///
/// hashbrown itself would double a table in which deleted entries have used up the room; under steady churn every table
/// would end up at twice its size. Where there are deleted entries an eighth more room is left, so that the next few of
/// them do not cause this again.
fn refit(table: &mut HashTable<Record>, records: usize, hasher: &RandomState) {
    let full = table.num_buckets() / 8 * 7;
    let room = if records <= full { records + records / 8 } else { records };
    let old = std::mem::replace(table, HashTable::with_capacity(room));
    for (hash, record) in with_hashes(old, hasher) {
        table.insert_unique(hash, record, |record| hash_of(hasher, record));
    }
}

/// The records of a table with their hashes. The keys are seldom in the processor's caches, and a loop that does nothing
/// but hash waits for many of them at once; one that also inserts would wait for one after the other.
fn with_hashes(table: HashTable<Record>, hasher: &RandomState) -> Vec<(u64, Record)> {
    table.into_iter().map(|record| (hash_of(hasher, &record), record)).collect()
}

#[inline]
fn region_of(hash: u64) -> usize {
    usize::from(REGION_OF[usize::from((hash >> 48) as u8)])
}

#[inline]
fn hash(hasher: &RandomState, key: &[u8]) -> u64 {
    let mut hasher = hasher.build_hasher();
    hasher.write(key);
    hasher.finish()
}

fn hash_of(hasher: &RandomState, record: &Record) -> u64 {
    hash(hasher, record.key_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(number: usize) -> Record {
        Record::new(&format!("key-{number}"), "0")
    }

    fn allocated_anew(index: &Index) -> usize {
        let tables = |r: &Region| r.tables.iter().map(HashTable::allocation_size).sum::<usize>();
        index.regions.iter().map(|r| tables(r) + r.tables.capacity() * size_of::<HashTable<Record>>()).sum()
    }

    #[test]
    fn no_table_outgrows_a_thousand_records_and_the_cost_is_even_at_every_size() {
        let mut index = Index::new();
        for number in 0..200_000 {
            let record = record(number);
            index.insert(index.hash(record.key_bytes()), record);
            if number > 20_000 && number % 1_000 == 0 {
                let allocated = index.allocated();
                assert!(allocated < 17 * number, "{allocated} bytes at {number}");
            }
        }
        let largest = index.regions.iter().flat_map(|r| &r.tables).map(HashTable::len).max();
        assert!(largest < Some(1_000), "{largest:?}");
        assert_eq!(index.allocated(), allocated_anew(&index));
        for number in 0..200_000 {
            let record = record(number);
            assert!(index.find(index.hash(record.key_bytes()), record.key_bytes()).is_some(), "{number}");
        }
    }

    #[test]
    fn an_index_that_expects_its_records_is_the_one_that_grew() {
        const RECORDS: usize = 300_000;
        let mut index = Index::expecting(RECORDS);
        let tables: Vec<_> = index.regions.iter().map(|region| region.tables.len()).collect();
        for number in 0..RECORDS {
            let record = record(number);
            index.insert(index.hash(record.key_bytes()), record);
        }
        let after: Vec<_> = index.regions.iter().map(|region| region.tables.len()).collect();
        for (before, after) in tables.into_iter().zip(after) {
            assert!(after - before <= 1 + before / 50, "{before} tables were laid out and {after} needed");
        }
        assert_eq!(index.allocated(), allocated_anew(&index));
        assert!(index.allocated() < 17 * RECORDS);
        for number in 0..RECORDS {
            let record = record(number);
            assert!(index.find(index.hash(record.key_bytes()), record.key_bytes()).is_some(), "{number}");
        }
    }

    #[test]
    fn removing_gives_the_tables_back() {
        let mut index = Index::new();
        for number in 0..50_000 {
            let record = record(number);
            index.insert(index.hash(record.key_bytes()), record);
        }
        for number in 0..49_900 {
            let record = record(number);
            let hash = index.hash(record.key_bytes());
            assert!(index.remove(hash, record.key_bytes()).is_some());
            assert!(index.remove(hash, record.key_bytes()).is_none());
        }
        assert!(index.allocated() < 16_000, "{}", index.allocated());
        assert_eq!(index.allocated(), allocated_anew(&index));
        for number in 49_900..50_000 {
            let record = record(number);
            assert!(index.find(index.hash(record.key_bytes()), record.key_bytes()).is_some(), "{number}");
        }
    }

    #[test]
    fn churn_does_not_blow_the_tables_up() {
        let mut index = Index::new();
        for number in 0..300_000 {
            let new = record(number);
            index.insert(index.hash(new.key_bytes()), new);
            if number >= 20_000 {
                let old = record(number - 20_000);
                index.remove(index.hash(old.key_bytes()), old.key_bytes());
            }
        }
        assert!(index.allocated() < 22 * 20_000, "{}", index.allocated());
    }
}
