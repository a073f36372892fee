//! How much memory the store's data takes, and how much it may.
//!
//! Whoever holds much (a map, a view's old records, the journal's buffer) keeps a [`Held`] and sets it when what it holds
//! changes, once a request; so the sum is there at any time for one load. What a session has in flight is bounded by
//! limits of its own and not counted here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::error::Error;
use super::map::{Cleared, Record};

/// A sum of bytes, kept by all who hold some.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gauge(Arc<AtomicU64>);

impl Gauge {
    /// The sum.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A part of the sum, taken off when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Held {
    gauge: Gauge,
    bytes: u64,
}

impl Held {
    /// Nothing yet, of this sum.
    pub(crate) fn of(gauge: &Gauge) -> Self {
        Self { gauge: gauge.clone(), bytes: 0 }
    }

    /// Another part of the same sum, nothing yet.
    pub(crate) fn beside(&self) -> Self {
        Self::of(&self.gauge)
    }

    /// What is held.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes as usize
    }

    /// This much is held from now on.
    pub(crate) fn set(&mut self, bytes: usize) {
        let bytes = bytes as u64;
        match bytes.checked_sub(self.bytes) {
            Some(0) => return,
            Some(more) => self.gauge.0.fetch_add(more, Ordering::Relaxed),
            None => self.gauge.0.fetch_sub(self.bytes - bytes, Ordering::Relaxed),
        };
        self.bytes = bytes;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// What the data takes, and its limit.
#[derive(Default)]
pub(super) struct Memory {
    /// Maps that were cleared, to be freed where nobody waits for it.
    pub(super) garbage: Mutex<Vec<Cleared>>,
    /// What the last large request has replaced, until whoever asked for it has its answer.
    replaced: Mutex<Replaced>,
    pub(super) gauge: Gauge,
    pub(super) limit: Option<u64>,
}

/// Records that are nobody's any more, and count until they are freed.
#[derive(Default)]
struct Replaced {
    records: Vec<Option<Record>>,
    /// Only for its end.
    _held: Held,
}

impl Memory {
    /// Nothing yet, of at most so many bytes.
    pub(super) fn within(limit: Option<u64>) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Frees what clears have left.
    pub(super) fn collect_garbage(&self) {
        let garbage = std::mem::take(&mut *self.garbage.lock());
        drop(garbage);
        self.free_replaced();
    }

    /// Frees what the last large request has replaced.
    pub(super) fn free_replaced(&self) {
        let replaced = std::mem::take(&mut *self.replaced.lock());
        drop(replaced.records);
    }

    /// Takes what a large request has replaced, to be freed when it is answered; its bytes count until then.
    pub(super) fn free_later(&self, records: Vec<Option<Record>>) {
        let mut held = Held::of(&self.gauge);
        held.set(records.iter().flatten().map(Record::bytes).sum());
        let earlier = std::mem::replace(&mut *self.replaced.lock(), Replaced { records, _held: held });
        // Nearly always nothing: it was freed when its own request had been answered.
        drop(earlier.records);
    }

    /// How many records wait to be freed.
    #[cfg(test)]
    pub(super) fn waits_to_be_freed(&self) -> usize {
        self.replaced.lock().records.len()
    }

    /// Refuses what would take it above the limit. What takes nothing more passes even there.
    ///
    /// `promised` is what writes before this one will take that are not counted yet.
    pub(super) fn admit(&self, needed: i64, promised: u64) -> Result<u64, Error> {
        let needed = u64::try_from(needed).unwrap_or(0);
        let Some(limit) = self.limit.filter(|_| needed > 0) else { return Ok(needed) };
        if self.gauge.bytes() + promised + needed > limit {
            // What was cleared a moment ago is nobody's any more: better to wait for its end than to be refused for it.
            self.collect_garbage();
        }
        let used = self.gauge.bytes() + promised;
        if used + needed > limit { Err(Error::MemoryFull { used, limit, needed }) } else { Ok(needed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_what_is_held() {
        let gauge = Gauge::default();
        let mut one = Held::of(&gauge);
        let mut other = one.beside();
        one.set(10);
        other.set(5);
        one.set(7);
        assert_eq!(gauge.bytes(), 12);
        drop(one);
        assert_eq!(gauge.bytes(), 5);
    }

    #[test]
    fn growth_beyond_the_limit_is_refused_and_nothing_else() {
        let memory = Memory { limit: Some(100), ..Memory::default() };
        let mut held = Held::of(&memory.gauge);
        held.set(90);
        assert_eq!(memory.admit(10, 0).unwrap(), 10);
        assert!(matches!(memory.admit(10, 1), Err(Error::MemoryFull { used: 91, limit: 100, needed: 10 })));
        held.set(500);
        assert!(memory.admit(0, 0).is_ok() && memory.admit(-5, 0).is_ok());
        assert!(memory.admit(1, 0).is_err());
    }
}
