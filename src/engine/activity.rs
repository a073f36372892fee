//! What keeping a namespace has cost since the store was opened, and how long something of it has been waiting for its
//! file: numbers for `status`, and nothing that decides about data.
//!
//! Whether anything waits is for the table to say ([`Table::is_dirty`](super::Table::is_dirty)); here is only since when. The
//! two moments are moved under the writer's turn, where writes, cuts and completions follow each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::clock::Clock;

/// A namespace's numbers, from its first load on; a later load goes on with them.
pub(super) struct Activity {
    clock: Arc<dyn Clock>,
    /// The word behind the update flags. It is here because it outlasts a load.
    flag_word: Arc<AtomicU64>,
    /// When the first write was applied that the file lacks; 0 for none, else one more than the clock's milliseconds.
    unsaved: AtomicU64,
    /// The same for the first write after the cut of the flush that is under way.
    beyond_cut: AtomicU64,
    counts: Mutex<Counts>,
    failed: Mutex<Option<FailedFlush>>,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    loads: u64,
    rewrites: u64,
    bytes_written: u64,
    last_flush: Option<LastFlush>,
}

/// What a namespace has cost since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Costs {
    /// How often it was loaded from its file.
    pub loads: u64,
    /// How often its file was rewritten.
    pub rewrites: u64,
    /// How many bytes that wrote.
    pub bytes_written: u64,
    /// The last of these times.
    pub last_flush: Option<LastFlush>,
    /// How long its oldest write that the file lacks has been waiting; nothing waits if there is none. What a start has
    /// found waiting in the journal counts from that start.
    pub waiting_for: Option<Duration>,
}

/// A flush that rewrote a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastFlush {
    /// When it ended, in milliseconds since 1970.
    pub unix_ms: u64,
    /// How long it took, waiting for the file's lock included.
    pub took: Duration,
    /// Bytes of the file.
    pub bytes: u64,
}

/// A flush that failed, and that none has followed which did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedFlush {
    /// When, in milliseconds since 1970.
    pub unix_ms: u64,
    /// Why, and what can be done.
    pub reason: String,
}

impl Activity {
    pub(super) fn new(clock: Arc<dyn Clock>, flag_word: Arc<AtomicU64>) -> Self {
        let (unsaved, beyond_cut) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { clock, flag_word, unsaved, beyond_cut, counts: Mutex::default(), failed: Mutex::default() }
    }

    pub(super) fn flag_word(&self) -> &AtomicU64 {
        &self.flag_word
    }

    pub(super) fn loaded(&self) {
        self.counts.lock().loads += 1;
    }

    /// Something was applied; `first` if the file lacked nothing before.
    pub(super) fn wrote(&self, first: bool) {
        for moment in [&self.unsaved, &self.beyond_cut] {
            if first || moment.load(Ordering::Relaxed) == 0 {
                moment.store(self.now_ms() + 1, Ordering::Relaxed);
            }
        }
    }

    /// A flush took its cut.
    pub(super) fn cut(&self) {
        self.beyond_cut.store(0, Ordering::Relaxed);
    }

    /// The file holds everything up to the last cut.
    pub(super) fn saved(&self) {
        self.unsaved.store(self.beyond_cut.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// The file was rewritten, with so many bytes, by a flush that began at `began` of the store's clock.
    pub(super) fn rewritten(&self, bytes: u64, began: Duration) {
        let took = self.clock.now().saturating_sub(began);
        let mut counts = self.counts.lock();
        counts.rewrites += 1;
        counts.bytes_written += bytes;
        counts.last_flush = Some(LastFlush { unix_ms: self.clock.unix_ms(), took, bytes });
    }

    /// A flush has ended, and failed for this reason if there is one.
    pub(super) fn flush_ended(&self, failed: Option<String>) {
        let unix_ms = self.clock.unix_ms();
        *self.failed.lock() = failed.map(|reason| FailedFlush { unix_ms, reason });
    }

    pub(super) fn failed_flush(&self) -> Option<FailedFlush> {
        self.failed.lock().clone()
    }

    pub(super) fn costs(&self, is_dirty: bool) -> Costs {
        let Counts { loads, rewrites, bytes_written, last_flush } = *self.counts.lock();
        let since = self.unsaved.load(Ordering::Relaxed);
        let waiting_for = is_dirty.then(|| Duration::from_millis((self.now_ms() + 1).saturating_sub(since.max(1))));
        Costs { loads, rewrites, bytes_written, last_flush, waiting_for }
    }

    fn now_ms(&self) -> u64 {
        self.clock.now().as_millis() as u64
    }
}
