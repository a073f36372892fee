//! Threads that nobody joins one by one, but whose end as a whole is waited for.
//!
//! A thread is counted out only after all that it held is dropped. So when a crew is empty, nothing of the store is held
//! by it any more, and the owner lock can be given up.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

/// A number of threads.
#[derive(Clone, Default)]
pub(super) struct Crew(Arc<Count>);

#[derive(Default)]
struct Count {
    threads: Mutex<usize>,
    changed: Condvar,
}

/// Counts a thread out, also when it panics.
pub(super) struct Leaving(Crew);

impl Crew {
    /// Counts somebody in who is no thread, until what this answers is dropped.
    pub(super) fn enter(&self) -> Leaving {
        *self.0.threads.lock() += 1;
        Leaving(self.clone())
    }

    /// Starts a thread of the crew.
    pub(super) fn spawn(
        &self,
        name: impl Into<String>,
        stack_bytes: usize,
        work: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let leaving = self.enter();
        let counted = move || {
            let _leaving = leaving;
            work();
        };
        // When no thread can be started the closure is dropped here, and counted out by that.
        std::thread::Builder::new().name(name.into()).stack_size(stack_bytes).spawn(counted).map(drop)
    }

    /// Waits until all have ended; false if some have not by the deadline.
    pub(super) fn wait_until_empty(&self, deadline: Instant) -> bool {
        let mut threads = self.0.threads.lock();
        while *threads > 0 {
            if self.0.changed.wait_until(&mut threads, deadline).timed_out() {
                return *threads == 0;
            }
        }
        true
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        *self.0.0.threads.lock() -= 1;
        self.0.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_crew_is_empty_only_when_its_threads_hold_nothing_more() {
        let (crew, held) = (Crew::default(), Arc::new(()));
        for _ in 0..50 {
            let held = Arc::clone(&held);
            crew.spawn("test", 64 * 1024, move || drop(Arc::clone(&held))).expect("a thread can be started");
        }
        assert!(crew.wait_until_empty(Instant::now() + Duration::from_secs(30)));
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[test]
    fn a_crew_at_work_is_not_waited_for_beyond_the_deadline() {
        let crew = Crew::default();
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        crew.spawn("test", 64 * 1024, move || assert!(receiver.recv().is_err())).expect("a thread can be started");
        assert!(!crew.wait_until_empty(Instant::now() + Duration::from_millis(10)));
        drop(sender);
        assert!(crew.wait_until_empty(Instant::now() + Duration::from_secs(30)));
    }
}
