//! Decoding costs memory in proportion to the bytes that came, whatever lengths they claim. Measured by an allocator that
//! counts, in a test binary of its own with a single test, so that nothing else allocates meanwhile.
//!
//! Unsafe code: the allocator. It hands every call on to the system's allocator unchanged and only counts beside it, so
//! what `GlobalAlloc` asks of an implementation holds because it holds for `System`.
#![expect(unsafe_code, reason = "a counting allocator cannot be written without")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use common::samples;
use commonhold_proto::limits::MAX_FRAME_BYTES;
use commonhold_proto::{FRAME_HEADER_BYTES, codec};

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: see the head of the file.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        MOST.fetch_max(NOW.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: the caller's promise about `layout` is handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: `pointer` came from `System` with this layout, because `alloc` above is the only source.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most bytes that decoding `body`, as anything, had allocated at one time.
fn cost(body: &[u8]) -> usize {
    let mut most = 0;
    for decode in [
        |body| drop(std::hint::black_box(codec::decode_request(body))),
        |body| drop(std::hint::black_box(codec::decode_answer(body))),
        |body| drop(std::hint::black_box(codec::decode_event(body))),
    ] as [fn(&[u8]); 3]
    {
        let before = NOW.load(Relaxed);
        MOST.store(before, Relaxed);
        decode(body);
        most = most.max(MOST.load(Relaxed) - before);
    }
    most
}

#[test]
fn claimed_lengths_cost_nothing() {
    const SMALL: usize = 128 * 1024;

    // A huge length written over every place of every sample, so also over each list and each text.
    for (name, message) in samples::messages() {
        let body = message.frame().split_off(FRAME_HEADER_BYTES);
        for claimed in [1 << 20, u64::from(u32::MAX), 1 << 40, u64::MAX / 16, u64::MAX] {
            for at in 0..body.len().saturating_sub(7) {
                let mut body = body.clone();
                body[at..at + 8].copy_from_slice(&claimed.to_le_bytes());
                let cost = cost(&body);
                assert!(cost <= SMALL, "{name}: {claimed} claimed at byte {at} cost {cost} bytes");
            }
        }
    }

    // A frame full of the smallest elements: eight bytes of each empty key, four million of them.
    let head: &[&[u8]] = &[&[0; 4], &2_u32.to_le_bytes(), &[0; 4], &[0; 16], &4_000_000_u64.to_le_bytes()];
    let mut keys = head.concat();
    keys.resize(keys.len() + 8 * 4_000_000, 0);
    assert!(codec::decode_request(&keys).is_ok(), "the test says what it means to say");
    let cost_of_keys = cost(&keys);
    assert!(cost_of_keys <= 1 << 20, "four million empty keys cost {cost_of_keys} bytes");

    // One byte of each value that is absent, in an answer.
    let mut absent = [&3_u32.to_le_bytes()[..], &30_000_000_u64.to_le_bytes()].concat();
    absent.resize(absent.len() + 30_000_000, 0);
    let cost_of_absent = cost(&absent);
    assert!(cost_of_absent <= SMALL, "thirty million absent values cost {cost_of_absent} bytes");

    // A fault in a larger frame whose text claims everything: in proportion to what is there, and at most one frame.
    for bytes in [100 << 10, 1 << 20, 2 << 20, 20 << 20] {
        for claimed in [1 << 20, 15 << 20, 60 << 20, MAX_FRAME_BYTES as u64 - 100] {
            let mut text = [&[0; 8][..], &u64::to_le_bytes(claimed)].concat();
            text.resize(bytes, b'x');
            let cost = cost(&text);
            let bound = MAX_FRAME_BYTES.min(16 * bytes + SMALL);
            assert!(cost <= bound, "a text that claims {claimed} bytes of {bytes} cost {cost}");
        }
    }
}
