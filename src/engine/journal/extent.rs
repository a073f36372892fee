//! How large the journal is, for those who must not wait for the writer's turn to know.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Kept by the holder of the turn, read by anybody.
#[derive(Debug, Default)]
pub(crate) struct Extent {
    segments: AtomicUsize,
    bytes: AtomicU64,
    short: AtomicBool,
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
