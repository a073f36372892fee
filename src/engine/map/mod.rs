//! The map of one namespace, in memory: records by key, in insertion order, with views of a moment for those who write
//! them out.
//!
//! Promises: look-up, put and remove are O(1) and never move more than about a thousand records, at any size; a replaced
//! record keeps its place, one that was removed and put again goes to the end, as in a Python dict; a [`View`] is exactly
//! the content at its moment, whatever is written while it is read; clearing is O(1). A record costs at most 64 bytes
//! beside its key and value (`tests/record_memory.rs` counts them).
//!
//! No locks and no I/O in here: the engine keeps each map behind a lock of its own. [`View`] alone is built to be shared
//! across that lock.

mod index;
mod order;
mod record;
mod view;

#[cfg(test)]
pub(crate) mod model;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;
use std::sync::Arc;

use commonhold_proto::Seq;

use super::memory::{Gauge, Held};
use index::Index;
pub(crate) use index::KeyHasher;
use order::Order;
pub use record::Record;
use view::Watched;
pub use view::{Cleared, View};

/// Records by key, in insertion order.
pub struct Map {
    index: Index,
    order: Order,
    views: Vec<Watched>,
    records: usize,
    bytes: usize,
    record_overhead: usize,
    held: Held,
}

/// Where a [`Map::scan`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanEnd {
    /// The ordinal of the last record visited, to be the next scan's `after`; that scan's own `after` if it visited none.
    pub last_ordinal: Option<u64>,
    /// Whether records follow that one.
    pub more: bool,
}

impl Default for Map {
    fn default() -> Self {
        Self::new()
    }
}

impl Map {
    /// An empty map, with a hash seed of its own.
    pub fn new() -> Self {
        let (index, order) = (Index::new(), Order::starting_at(0));
        Self { index, order, views: Vec::new(), records: 0, bytes: 0, record_overhead: 0, held: Held::default() }
    }

    /// An empty map that is laid out for about this many records. More or fewer may come; more cost what they always do.
    pub fn expecting(records: usize) -> Self {
        Self { index: Index::expecting(records), ..Self::new() }
    }

    /// This map, laid out anew if far fewer records than [`expected`](Self::expecting) have come.
    pub(crate) fn fit(&mut self, expected: usize) {
        let index = std::mem::replace(&mut self.index, Index::new());
        self.index = index.fitted(expected);
    }

    /// What hashes this map's keys, for those who have many to put.
    pub(crate) fn key_hasher(&self) -> KeyHasher {
        self.index.key_hasher()
    }

    /// Gives all records this Seq. To be called before others see the map.
    pub(crate) fn set_seqs(&self, seq: Seq) {
        self.order.range(0).for_each(|(_, record)| record.set_seq(seq));
    }

    /// This map, with what it holds counted in a sum, brought up to date by [`settle`](Self::settle).
    #[must_use]
    pub(crate) fn measured(mut self, gauge: &Gauge) -> Self {
        self.held = Held::of(gauge);
        self.settle();
        self
    }

    /// Brings the sum up to date, in O(1). To be called once after some changes.
    pub(crate) fn settle(&mut self) {
        self.held.set(self.bytes + self.overhead_bytes());
    }

    /// The record under `key`.
    #[inline]
    pub fn get(&self, key: &str) -> Option<&Record> {
        self.index.find(self.index.hash(key.as_bytes()), key.as_bytes())
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.records
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Bytes of all keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes asked of the allocator beside keys and values, what views hold not counted.
    pub fn overhead_bytes(&self) -> usize {
        self.record_overhead + self.index.allocated() + self.order.allocated()
    }

    /// Bytes of keys and values of old records that views hold, a cleared map's not counted.
    pub fn saved_bytes(&self) -> usize {
        self.views.iter().filter_map(Watched::upgrade).map(|state| state.lock().saved_bytes()).sum()
    }

    /// Puts `record` in the place of the one with its key, which is returned, or at the end.
    ///
    /// The record's Seq is set before. A record that already has (or had) a place in a map is copied.
    pub fn put(&mut self, record: Record) -> Option<Record> {
        self.put_hashed(self.index.hash(record.key_bytes()), record)
    }

    /// As [`put`](Self::put), with the key's hash by [`key_hasher`](Self::key_hasher).
    pub(crate) fn put_hashed(&mut self, hash: u64, record: Record) -> Option<Record> {
        let Some(slot) = self.index.find_mut(hash, record.key_bytes()) else {
            let record = record.placed(self.order.bound());
            self.count_in(&record);
            self.order.push(record.clone());
            self.index.insert(hash, record);
            return None;
        };
        let ordinal = slot.ordinal();
        let record = record.placed(ordinal);
        let old = std::mem::replace(slot, record.clone());
        self.count_in(&record);
        self.order.replace(ordinal, record).expect("index and order hold the same records");
        self.count_out(&old);
        self.keep_for_views(ordinal, &old);
        Some(old)
    }

    /// Takes the record under `key` out.
    pub fn remove(&mut self, key: &str) -> Option<Record> {
        let old = self.index.remove(self.index.hash(key.as_bytes()), key.as_bytes())?;
        self.order.remove(old.ordinal()).expect("index and order hold the same records");
        self.count_out(&old);
        self.keep_for_views(old.ordinal(), &old);
        Some(old)
    }

    /// Takes everything out, in O(1) and without freeing anything. Live views go on reading it; ordinals go on rising.
    pub fn clear(&mut self) -> Cleared {
        let fresh = Order::starting_at(self.order.bound());
        let all_bytes = self.bytes + self.record_overhead;
        let mut order = std::mem::replace(&mut self.order, fresh);
        // It is held until the last view of it is gone.
        let beside = self.held.beside();
        order.hold(std::mem::replace(&mut self.held, beside));
        let order = Arc::new(order);
        for state in self.views.drain(..).filter_map(|view| view.upgrade()) {
            state.lock().hand_over(&order, all_bytes);
        }
        let index = std::mem::replace(&mut self.index, Index::new());
        let cleared = Cleared::new(index, order, self.records, self.bytes);
        (self.records, self.bytes, self.record_overhead) = (0, 0, 0);
        cleared
    }

    /// Shows `each` the records after the ordinal `after` (from the first, without one) in insertion order, at most
    /// `max_visits` of them, until it breaks off; the record that it broke off at counts as visited.
    ///
    /// A scan continued at its `last_ordinal` sees every record that was there all the time, once.
    pub fn scan(
        &self,
        after: Option<u64>,
        max_visits: usize,
        each: &mut dyn FnMut(&Record) -> ControlFlow<()>,
    ) -> ScanEnd {
        let mut last_ordinal = after;
        let mut records = self.order.range(after.map_or(0, |ordinal| ordinal.saturating_add(1)));
        for (ordinal, record) in records.by_ref().take(max_visits) {
            last_ordinal = Some(ordinal);
            if each(record).is_break() {
                break;
            }
        }
        ScanEnd { last_ordinal, more: records.next().is_some() }
    }

    /// The record that has the place `ordinal`.
    pub fn at(&self, ordinal: u64) -> Option<&Record> {
        self.order.get(ordinal)
    }

    /// An ordinal above all that were ever given: the next new record's.
    pub fn ordinal_bound(&self) -> u64 {
        self.order.bound()
    }

    /// The content at this moment, to be read in slices while writers go on. Costs O(1); so does each later change of a
    /// record that the view has not reached, once a record.
    pub fn view(&mut self) -> View {
        self.view_within(usize::MAX)
    }

    /// As [`view`](Self::view), but one that gives up ([`View::is_expired`]) once it has to hold on to more than `limit`
    /// bytes of old records.
    pub fn view_within(&mut self, limit: usize) -> View {
        self.views.retain(|view| view.strong_count() > 0);
        let view = View::of(self, limit);
        self.views.push(view.watched());
        view
    }

    fn count_in(&mut self, record: &Record) {
        self.records += 1;
        self.bytes += record.bytes();
        self.record_overhead += record.overhead_bytes();
    }

    fn count_out(&mut self, record: &Record) {
        self.records -= 1;
        self.bytes -= record.bytes();
        self.record_overhead -= record.overhead_bytes();
    }

    #[inline]
    fn keep_for_views(&mut self, ordinal: u64, old: &Record) {
        if !self.views.is_empty() {
            self.views.retain(|view| view.upgrade().is_some_and(|state| state.lock().keep(ordinal, old)));
        }
    }
}
