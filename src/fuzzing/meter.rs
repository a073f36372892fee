//! An allocator that counts: how much memory reading some bytes took, on this thread or in the whole process.
//!
//! This file contains unsafe code: `GlobalAlloc` is an unsafe trait. Every call is handed on to the system's allocator
//! unchanged and only counted beside it, so what the trait asks of an implementation holds because it holds for `System`.
//! The counters of a thread are plain cells that are never dropped, so they may be used from within an allocation.
#![expect(unsafe_code, reason = "a counting allocator cannot be written without")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicIsize, Ordering::Relaxed};

/// Bytes asked for and not given back, and the most of them: of the whole process.
static HELD: AtomicIsize = AtomicIsize::new(0);
static MOST: AtomicIsize = AtomicIsize::new(0);

thread_local! {
    /// The same of this thread; what another thread gives back counts there.
    static HELD_HERE: Cell<isize> = const { Cell::new(0) };
    static MOST_HERE: Cell<isize> = const { Cell::new(0) };
}

/// The allocator. A program that runs the targets makes it its own with `#[global_allocator]`.
#[derive(Clone, Copy, Debug)]
pub struct Counting;

#[cfg(test)]
#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(bytes: isize) {
    MOST.fetch_max(HELD.fetch_add(bytes, Relaxed) + bytes, Relaxed);
    // A thread that is ending may have none any more.
    let _ = HELD_HERE.try_with(|held| {
        held.set(held.get() + bytes);
        let _ = MOST_HERE.try_with(|most| most.set(most.get().max(held.get())));
    });
}

// SAFETY: every call is passed on to `System` unchanged, with the same layout; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller keeps `alloc`'s contract, which is `System`'s.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: the caller got `pointer` from this allocator, so from `System`, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both may be there while one is copied to the other.
        count(size.cast_signed());
        count(-layout.size().cast_signed());
        // SAFETY: as in `dealloc`; `size` is the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Whether this program's allocator is [`Counting`]; where it is not, the targets find no memory too much.
pub fn is_counting() -> bool {
    let (_kept, most) = here(|| std::hint::black_box(vec![0_u8; 1000]));
    most >= 1000
}

/// Does `work`, and says how many bytes this thread has held at most meanwhile, beyond those that it held before.
pub(super) fn here<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD_HERE.get();
    MOST_HERE.set(before);
    let done = work();
    (done, (MOST_HERE.get() - before).cast_unsigned())
}

/// As [`here`], of the whole process.
pub(super) fn everywhere<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.load(Relaxed);
    MOST.store(before, Relaxed);
    let done = work();
    (done, usize::try_from(MOST.load(Relaxed) - before).unwrap_or(0))
}
