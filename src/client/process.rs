//! Which process this is, without asking the system each time: a child that was forked must find out at once that what it
//! has inherited is its parent's.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::versions::wiped_at_fork;

/// The process that made something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process {
    /// A number that no process above it has, kept in memory that a fork wipes.
    generation: u64,
    /// What is compared where there is no such memory.
    pid: u32,
}

impl Process {
    /// This process.
    pub(super) fn this() -> Self {
        /// The greatest generation of this process and of those above it.
        static LAST: AtomicU64 = AtomicU64::new(0);
        let pid = std::process::id();
        let Some(word) = wiped_at_fork() else { return Self { generation: 0, pid } };
        let mut generation = word.load(Ordering::Acquire);
        if generation == 0 {
            let next = LAST.fetch_add(1, Ordering::AcqRel) + 1;
            // Another thread may have been quicker.
            let stored = word.compare_exchange(0, next, Ordering::AcqRel, Ordering::Acquire);
            generation = stored.map_or_else(|quicker| quicker, |_| next);
        }
        Self { generation, pid }
    }

    /// Whether it is the one that asks.
    #[inline]
    pub(super) fn is_this(self) -> bool {
        match wiped_at_fork() {
            Some(word) => word.load(Ordering::Acquire) == self.generation,
            None => std::process::id() == self.pid,
        }
    }
}
