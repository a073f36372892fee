//! The C library's heap: that it is one, and that it goes back to the system when much of it is free and nobody asks for anything.
//!
//! The GNU library gives each thread a heap of its own, up to eight for each processor. What one thread has allocated and another
//! frees goes back to the first one's heap, where nobody may ever ask for it again: records that a load has put there and sessions
//! replace with others of other sizes then take twice their bytes. With one heap for all, whoever frees makes room for whoever
//! comes next, and small blocks are still kept by each thread.
//!
//! This file contains unsafe code, two calls of the C library. Where that is another than the GNU one, nothing is done here.

use super::Daemon;

/// As much must have become free before it is given back.
const WORTH_IT: u64 = 64 << 20;

/// Has all threads allocate from one heap. To be called by a program that does nothing but serve, before it starts any.
pub fn use_one_heap() {
    system::use_one_heap();
}

/// Gives back what has become free, once nobody is held up by that.
#[derive(Default)]
pub(super) struct GiveBack {
    /// The most that the data took since it was done last.
    most: u64,
    /// What all sessions together had asked, the last time it was looked.
    asked: (u64, usize),
}

impl GiveBack {
    /// Every second: looks whether it is time.
    pub(super) fn look(&mut self, daemon: &Daemon) {
        let (bytes, _) = daemon.store().memory();
        self.most = self.most.max(bytes);
        if self.most - bytes < WORTH_IT {
            return;
        }
        // It takes a tenth of a second for a gigabyte, and who allocates waits for it.
        let asked = daemon.sessions.lock().asked();
        if std::mem::replace(&mut self.asked, asked) == asked {
            self.most = bytes;
            system::give_back();
            tracing::debug!("what had become free was given back to the system");
        }
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "no safe crate tells the C library how to keep its heap")]
mod system {
    pub(super) fn use_one_heap() {
        // SAFETY: `mallopt` takes two integers and keeps the allocator's own locks; a value that it does not know it refuses.
        let done = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) } == 1;
        // Without it the daemon takes more memory, and is right all the same.
        debug_assert!(done, "the C library knows the option");
    }

    pub(super) fn give_back() {
        // SAFETY: `malloc_trim` takes an integer, keeps the allocator's own locks, and gives back nothing that is allocated.
        unsafe { libc::malloc_trim(0) };
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
mod system {
    pub(super) fn use_one_heap() {}

    pub(super) fn give_back() {}
}
