//! A journal that has outgrown its limit: who is told, and how long writers wait for the flushes that bring it down.
//!
//! The engine starts no threads, so somebody beside it (the daemon's tick thread) says how to be woken. It is woken by the
//! writers themselves, as soon as the limit is passed. From then until it says that its flushes are over, writers wait
//! before their turn while the journal, with what other writers have on their way, is beyond one and a half times the limit.
//! They hold nothing meanwhile, so flushes come through.
//!
//! Nobody waits for ever: where flushes take longer than [`LONGEST_WAIT`], or do not help, writes go on. A journal that is too
//! large does less harm than a store that refuses everything for the sake of it.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::journal::Extent;

/// One request waits no longer than this for flushes.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// Who could not help is not woken again by writers before this.
const ASK_AGAIN: Duration = Duration::from_millis(100);

type Wake = Box<dyn Fn() + Send + Sync>;

/// What is known of the journal's growth.
#[derive(Default)]
pub(super) struct Growth {
    wake: OnceLock<Wake>,
    /// Beyond this the journal is to be brought down.
    limit: AtomicU64,
    /// Bytes of writes between their admission and their end.
    on_their_way: AtomicU64,
    /// How many wait: those who come through need not look at the lock otherwise.
    waiting: AtomicUsize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Somebody was woken and has not said yet that the flushes are over.
    under_way: bool,
    not_before: Option<Instant>,
}

/// A write that was let through; it is on its way until this is dropped.
pub(super) struct Admitted<'a> {
    growth: &'a Growth,
    bytes: u64,
}

impl Growth {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit: AtomicU64::new(limit), ..Self::default() }
    }

    pub(super) fn set_limit(&self, limit: u64) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Says how the one is woken who brings the journal down. The first one stays.
    pub(super) fn wake_by(&self, wake: Wake) {
        let _ = self.wake.set(wake);
    }

    pub(super) fn wake(&self) {
        if let Some(wake) = self.wake.get() {
            wake();
        }
    }

    /// Lets a write of so many bytes through, at once unless the journal has outgrown its limit by half and somebody is at work
    /// on it.
    pub(super) fn admit(&self, bytes: usize, extent: &Extent) -> Admitted<'_> {
        let bytes = bytes as u64;
        let others = self.on_their_way.fetch_add(bytes, Ordering::SeqCst);
        let most = self.most();
        if extent.bytes().saturating_add(others) > most {
            self.waiting.fetch_add(1, Ordering::SeqCst);
            self.wait(bytes, most, extent);
            self.waiting.fetch_sub(1, Ordering::SeqCst);
        }
        Admitted { growth: self, bytes }
    }

    /// What writers are held back at.
    fn most(&self) -> u64 {
        let limit = self.limit.load(Ordering::Relaxed);
        limit.saturating_add(limit / 2)
    }

    fn wait(&self, own: u64, most: u64, extent: &Extent) {
        let until = Instant::now() + LONGEST_WAIT;
        let mut state = self.state.lock();
        // One write always passes, however large: alone it can but begin.
        let is_beyond = || {
            let others = self.on_their_way.load(Ordering::SeqCst).saturating_sub(own);
            extent.bytes() > most || (others > 0 && extent.bytes().saturating_add(others) > most)
        };
        while state.under_way && is_beyond() {
            if self.changed.wait_until(&mut state, until).timed_out() {
                tracing::warn!(
                    bytes = extent.bytes(),
                    most,
                    "flushes take long: the journal grows on beyond its limit"
                );
                return;
            }
        }
    }

    /// Wakes the one who brings the journal down, if it has outgrown its limit and nobody is at work on it.
    pub(super) fn look(&self, extent: &Extent) {
        if extent.bytes() <= self.limit.load(Ordering::Relaxed) || self.wake.get().is_none() {
            return;
        }
        let mut state = self.state.lock();
        if state.under_way || state.not_before.is_some_and(|time| Instant::now() < time) {
            return;
        }
        state.under_way = true;
        drop(state);
        self.wake();
    }

    /// Flushes have begun, whoever asked for them: writers wait for these too.
    pub(super) fn begins(&self) {
        let mut state = self.state.lock();
        (state.under_way, state.not_before) = (true, None);
    }

    /// The flushes are over, or there were none to do: nobody waits any longer.
    pub(super) fn is_over(&self, extent: &Extent) {
        let mut state = self.state.lock();
        state.under_way = false;
        let helped = extent.bytes() <= self.limit.load(Ordering::Relaxed);
        state.not_before = (!helped).then(|| Instant::now() + ASK_AGAIN);
        drop(state);
        self.changed.notify_all();
    }

    /// The journal may have become smaller.
    pub(super) fn look_again(&self) {
        // Under the lock, or one who has just looked would miss it.
        drop(self.state.lock());
        self.changed.notify_all();
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.growth.on_their_way.fetch_sub(self.bytes, Ordering::SeqCst);
        if self.growth.waiting.load(Ordering::SeqCst) > 0 {
            self.growth.look_again();
        }
    }
}

impl fmt::Debug for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Growth").field("limit", &self.limit).finish_non_exhaustive()
    }
}
