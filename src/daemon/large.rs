//! How many large frames may be on their way in at once, which bounds what all read buffers hold together.
//!
//! Who finds no place waits, unread, so that its client waits too. A place is given for a time only: one client that
//! begins a large frame and never ends it must not keep the others from theirs.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

/// Most large frames that are received or served at once, of at most 64 MiB each.
const PLACES: usize = 8;

/// The places, shared by all sessions.
pub(super) struct LargeFrames {
    free: Mutex<usize>,
    /// For sessions with a thread.
    freed: Condvar,
    /// For sessions on the runtime.
    freed_for_tasks: Notify,
    /// How long a large frame may take to arrive.
    patience: Duration,
}

/// A place for one large frame, free again when this is dropped.
pub(super) struct LargeFramePlace {
    of: Arc<LargeFrames>,
    /// When the frame must have arrived.
    pub(super) due: Instant,
}

impl LargeFrames {
    pub(super) fn new(patience: Duration) -> Arc<Self> {
        let (freed, freed_for_tasks) = (Condvar::new(), Notify::new());
        Arc::new(Self { free: Mutex::new(PLACES), freed, freed_for_tasks, patience })
    }

    /// Waits for a place. It ends, since each of the others is due at some time.
    pub(super) fn take(self: &Arc<Self>) -> LargeFramePlace {
        let mut free = self.free.lock();
        while *free == 0 {
            self.freed.wait(&mut free);
        }
        self.taken(&mut free)
    }

    /// As [`take`](Self::take), on the runtime.
    pub(super) async fn take_later(self: &Arc<Self>) -> LargeFramePlace {
        loop {
            let mut freed = pin!(self.freed_for_tasks.notified());
            // Counted among those who wait from here on: of two places that are free at once, each wakes another one.
            freed.as_mut().enable();
            if let Some(place) = self.try_take() {
                return place;
            }
            freed.await;
        }
    }

    fn try_take(self: &Arc<Self>) -> Option<LargeFramePlace> {
        let mut free = self.free.lock();
        (*free > 0).then(|| self.taken(&mut free))
    }

    fn taken(self: &Arc<Self>, free: &mut usize) -> LargeFramePlace {
        *free -= 1;
        LargeFramePlace { of: Arc::clone(self), due: Instant::now() + self.patience }
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
