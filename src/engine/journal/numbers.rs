//! The Seqs: one counter for all writes of the store, those that never reach the journal included.

use std::sync::atomic::{AtomicU64, Ordering};

use commonhold_proto::Seq;

use super::CEILING_STEP;

/// Gives out Seqs, each once, rising.
#[derive(Debug)]
pub(crate) struct Numbers {
    next: AtomicU64,
    /// No Seq above it may be given out: after a crash, numbering goes on from there.
    ceiling: AtomicU64,
}

impl Numbers {
    pub(crate) fn new(next: Seq, ceiling: Seq) -> Self {
        Self { next: AtomicU64::new(next.0), ceiling: AtomicU64::new(ceiling.0) }
    }

    /// For the journal's records: each group of them raises the ceiling long before it is reached.
    pub(super) fn take(&self) -> Seq {
        Seq(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// For writes without a record; none when the ceiling is reached, which only happens to a journal that takes no
    /// records any more, and then not before some billions of writes.
    pub(crate) fn take_below_ceiling(&self) -> Option<Seq> {
        let ceiling = self.ceiling.load(Ordering::Relaxed);
        let given =
            self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| (next < ceiling).then_some(next + 1));
        given.ok().map(Seq)
    }

    /// Whether so many are left that the ceiling need not be raised.
    pub(crate) fn are_plenty(&self) -> bool {
        self.next().0 + CEILING_STEP / 2 <= self.ceiling.load(Ordering::Relaxed)
    }

    /// As if so many had been given out.
    #[cfg(test)]
    pub(crate) fn skip(&self, count: u64) {
        self.next.fetch_add(count, Ordering::Relaxed);
    }

    /// The last one that was given out.
    pub(crate) fn last(&self) -> Seq {
        Seq(self.next().0 - 1)
    }

    pub(super) fn next(&self) -> Seq {
        Seq(self.next.load(Ordering::Relaxed))
    }

    /// As a journal has it that was begun after some were given out.
    pub(super) fn go_on_from(&self, next: Seq, ceiling: Seq) {
        self.next.fetch_max(next.0, Ordering::Relaxed);
        self.raise_ceiling(ceiling);
    }

    pub(super) fn raise_ceiling(&self, ceiling: Seq) {
        self.ceiling.store(ceiling.0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_given_out_above_the_ceiling() {
        let numbers = Numbers::new(Seq(7), Seq(9));
        assert_eq!(numbers.take_below_ceiling(), Some(Seq(7)));
        assert_eq!(numbers.take(), Seq(8));
        assert_eq!((numbers.take_below_ceiling(), numbers.next()), (None, Seq(9)));
        numbers.raise_ceiling(Seq(20));
        assert_eq!(numbers.take_below_ceiling(), Some(Seq(9)));
    }
}
