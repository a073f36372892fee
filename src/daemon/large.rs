//! How many large frames may be on their way in at once, which bounds what all read buffers hold together.
//!
//! Who finds no place waits, unread, so that its client waits too. A place is given for a time only: one client that
//! begins a large frame and never ends it must not keep the others from theirs. While somebody waits, that time is short:
//! what counts is how long the daemon has waited for the frame's bytes, beside how many of them have come.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

/// Most large frames that are received or served at once, of at most 64 MiB each.
const PLACES: usize = 8;

/// How long bytes of a large frame may be waited for, all in all, while somebody else waits for its place, ...
const BREATH: Duration = Duration::from_secs(2);

/// ... and how many bytes a second lengthen that: a client of this machine sends some hundred times as many.
const LEAST_RATE: usize = 8 << 20;

/// How often it is seen whether somebody waits.
const LOOK: Duration = Duration::from_millis(250);

/// The places, shared by all sessions.
pub(super) struct LargeFrames {
    free: Mutex<usize>,
    /// How many sessions wait for one.
    waiting: AtomicUsize,
    /// For sessions with a thread.
    freed: Condvar,
    /// For sessions on the runtime.
    freed_for_tasks: Notify,
    /// How long a large frame may take to arrive.
    patience: Duration,
    /// How long it may be waited for while others wait for its place, beside what its bytes add.
    breath: Duration,
}

/// A place for one large frame, free again when this is dropped.
pub(super) struct LargeFramePlace {
    of: Arc<LargeFrames>,
    /// When the frame must have arrived.
    due: Instant,
    /// How long its bytes were waited for.
    waited: Duration,
}

/// One who waits for a place, for as long as this lives.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn counted(all: &'a AtomicUsize) -> Self {
        all.fetch_add(1, Ordering::Relaxed);
        Self(all)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl LargeFramePlace {
    /// So long its bytes were waited for, besides.
    pub(super) fn waited(&mut self, time: Duration) {
        self.waited += time;
    }

    /// Whether the frame, of which so many bytes have come, has had its time.
    pub(super) fn is_over(&self, arrived: usize) -> bool {
        let at_rate = Duration::from_millis((arrived / (LEAST_RATE / 1000)) as u64);
        Instant::now() >= self.due
            || (self.of.waiting.load(Ordering::Relaxed) > 0 && self.waited >= self.of.breath + at_rate)
    }

    /// How long it has been held.
    pub(super) fn held(&self) -> Duration {
        self.of.patience.saturating_sub(self.due.saturating_duration_since(Instant::now()))
    }

    /// When to look again, should nothing come until then.
    pub(super) fn look(&self) -> Instant {
        self.due.min(Instant::now() + LOOK.min(self.of.breath))
    }
}

impl LargeFrames {
    pub(super) fn new(patience: Duration) -> Arc<Self> {
        let (freed, freed_for_tasks) = (Condvar::new(), Notify::new());
        let (free, waiting) = (Mutex::new(PLACES), AtomicUsize::new(0));
        Arc::new(Self { free, waiting, freed, freed_for_tasks, patience, breath: BREATH.min(patience) })
    }

    /// Waits for a place. It ends, since each of the others is due at some time.
    pub(super) fn take(self: &Arc<Self>) -> LargeFramePlace {
        let mut free = self.free.lock();
        let _waiting = (*free == 0).then(|| Waiting::counted(&self.waiting));
        while *free == 0 {
            self.freed.wait(&mut free);
        }
        self.taken(&mut free)
    }

    /// As [`take`](Self::take), on the runtime.
    pub(super) async fn take_later(self: &Arc<Self>) -> LargeFramePlace {
        let mut waiting = None;
        loop {
            let mut freed = pin!(self.freed_for_tasks.notified());
            // Counted among those who wait from here on: of two places that are free at once, each wakes another one.
            freed.as_mut().enable();
            if let Some(place) = self.try_take() {
                return place;
            }
            waiting.get_or_insert_with(|| Waiting::counted(&self.waiting));
            freed.await;
        }
    }

    fn try_take(self: &Arc<Self>) -> Option<LargeFramePlace> {
        let mut free = self.free.lock();
        (*free > 0).then(|| self.taken(&mut free))
    }

    fn taken(self: &Arc<Self>, free: &mut usize) -> LargeFramePlace {
        *free -= 1;
        LargeFramePlace { of: Arc::clone(self), due: Instant::now() + self.patience, waited: Duration::ZERO }
    }
}

impl Drop for LargeFramePlace {
    fn drop(&mut self) {
        *self.of.free.lock() += 1;
        // One of each kind, whoever is quicker: the other looks, and waits on.
        self.of.freed.notify_one();
        self.of.freed_for_tasks.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    #[test]
    fn who_sends_little_loses_its_place_to_those_who_wait_and_to_nobody_else() {
        let large = LargeFrames::new(Duration::from_mins(1));
        let mut held: Vec<_> = (0..PLACES).map(|_| large.take()).collect();
        let [silent, busy, ..] = &mut held[..] else { panic!("there are more places") };
        silent.waited(BREATH);
        busy.waited(BREATH + Duration::from_secs(1));
        assert!(!silent.is_over(1 << 20), "nobody waits");
        let other = Arc::clone(&large);
        let waits = std::thread::spawn(move || drop(other.take()));
        while large.waiting.load(Ordering::Relaxed) == 0 {
            std::thread::yield_now();
        }
        assert!(held[0].is_over(0) && held[1].is_over(7 << 20));
        assert!(!held[1].is_over(9 << 20), "it has sent what lengthens its time");
        assert!(!held[2].is_over(0), "it was not waited for");
        held.remove(0);
        waits.join().expect("it found the place");
        assert!(!held[0].is_over(0), "nobody waits any more");
    }

    #[test]
    fn two_places_that_are_free_at_once_wake_two_who_wait() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build();
        let runtime = runtime.expect("a runtime can be started");
        for round in 0..2_000 {
            let large = LargeFrames::new(Duration::from_secs(1));
            let mut held: Vec<_> = (0..PLACES).map(|_| large.take()).collect();
            let waiting: Vec<_> = (0..2)
                .map(|_| {
                    let large = Arc::clone(&large);
                    runtime.spawn(async move { large.take_later().await })
                })
                .collect();
            // Both at once, so that each may come between a look and the wait.
            drop(held.split_off(PLACES - 2));
            for task in waiting {
                let taken = runtime.block_on(async { timeout(Duration::from_secs(20), task).await });
                taken
                    .unwrap_or_else(|_| panic!("round {round}: a place is free, and one still waits"))
                    .expect("it ends");
            }
        }
    }
}
