//! How many bytes wait for a client, and who wants to be told when there are none: whoever asks and whoever takes the last of
//! them may do so in the same moment, and one of the two knows (`tests/loom.rs`).

use super::sync::{AtomicBool, AtomicUsize, Ordering};

/// Bytes that a client has not taken.
pub(super) struct Untaken {
    bytes: AtomicUsize,
    /// Somebody is to be told when there are none.
    is_asked: AtomicBool,
}

impl Untaken {
    pub(super) fn new() -> Self {
        Self { bytes: AtomicUsize::new(0), is_asked: AtomicBool::new(false) }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Release);
    }

    /// So many were taken. True if there are none left and whoever has asked is to be told.
    pub(super) fn take(&self, bytes: usize) -> bool {
        let left = self.bytes.fetch_sub(bytes, Ordering::AcqRel) - bytes;
        left == 0 && self.is_asked.swap(false, Ordering::AcqRel)
    }

    /// Whether there are none. If there are, [`take`](Self::take) tells when that is over.
    pub(super) fn is_none_or_tells(&self) -> bool {
        let is_none = || self.bytes.load(Ordering::Acquire) == 0;
        if is_none() {
            return true;
        }
        // Exchanged, not stored: then either this is seen by whoever takes the last ones, or what they took is seen here.
        self.is_asked.swap(true, Ordering::AcqRel);
        is_none() && self.is_asked.swap(false, Ordering::AcqRel)
    }
}
