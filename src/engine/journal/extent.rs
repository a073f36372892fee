//! How large the journal is, for those who must not wait for the writer's turn to know.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Kept by the holder of the turn, read by anybody.
#[derive(Debug, Default)]
pub(crate) struct Extent {
    segments: AtomicUsize,
    bytes: AtomicU64,
    short: AtomicBool,
    /// The newest segment is half full, and the next one is not made yet.
    wants_successor: AtomicBool,
    /// Somebody was told so.
    told: AtomicBool,
}

impl Extent {
    pub(super) fn is(&self, segments: usize, bytes: u64) {
        self.segments.store(segments, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn grew(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn is_short(&self, short: bool) {
        self.short.store(short, Ordering::Relaxed);
    }

    pub(super) fn wants_successor(&self, wants: bool) {
        if self.wants_successor.load(Ordering::Relaxed) != wants {
            self.wants_successor.store(wants, Ordering::Relaxed);
            self.told.store(false, Ordering::Relaxed);
        }
    }

    /// Whether the next segment's file is to be made.
    pub(crate) fn wants_a_successor(&self) -> bool {
        self.wants_successor.load(Ordering::Relaxed)
    }

    /// The same, to the first who asks.
    pub(crate) fn begins_to_want_a_successor(&self) -> bool {
        self.wants_a_successor() && !self.told.load(Ordering::Relaxed) && !self.told.swap(true, Ordering::Relaxed)
    }

    /// How many segments are kept.
    pub(crate) fn segments(&self) -> usize {
        self.segments.load(Ordering::Relaxed)
    }

    /// Their bytes, records that are still in the buffer included.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether the disk is short of room.
    pub(crate) fn wants_room(&self) -> bool {
        self.short.load(Ordering::Relaxed)
    }
}
