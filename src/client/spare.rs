//! The memory of large batches and their frames, kept for the next ones.
//!
//! An allocator gives memory of this size back to the kernel as soon as it is free, and the kernel clears it anew, page by
//! page, at its next use: for a request of 1,000 records that took longer than all else that a client does. So a few buffers
//! are kept, for the whole process and bounded all together.

use parking_lot::Mutex;

/// Smaller buffers are the allocator's matter.
pub(super) const LARGE_BYTES: usize = 64 * 1024;

/// What all that are kept may hold together.
const KEPT_BYTES: usize = 8 * 1024 * 1024;

/// How many are kept.
const KEPT: usize = 4;

static SPARE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// An empty buffer with room for so many bytes.
pub(super) fn with_room(bytes: usize) -> Vec<u8> {
    let mut buffer = if bytes > LARGE_BYTES { take(bytes) } else { Vec::new() };
    buffer.reserve(bytes);
    buffer
}

/// The smallest that is large enough, or the largest. None while another thread looks, or looked when this process was forked.
fn take(bytes: usize) -> Vec<u8> {
    let Some(mut spare) = SPARE.try_lock() else { return Vec::new() };
    let by_room = |buffer: &Vec<u8>| (buffer.capacity() < bytes, buffer.capacity().abs_diff(bytes));
    let best = (0..spare.len()).min_by_key(|&at| by_room(&spare[at]));
    best.map_or_else(Vec::new, |at| spare.swap_remove(at))
}

/// Keeps a buffer that is not needed any more, if it is a large one and there is room for it.
pub(super) fn keep(mut buffer: Vec<u8>) {
    if !(LARGE_BYTES..=KEPT_BYTES).contains(&buffer.capacity()) {
        return;
    }
    let Some(mut spare) = SPARE.try_lock() else { return };
    let kept: usize = spare.iter().map(Vec::capacity).sum();
    if spare.len() < KEPT && kept + buffer.capacity() <= KEPT_BYTES {
        buffer.clear();
        spare.push(buffer);
    }
}

/// Text that grows in large buffers, and leaves its own to the next one.
#[derive(Debug, Default)]
pub(super) struct Text(String);

impl Text {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Adds some at the end.
    #[inline]
    pub(super) fn push_str(&mut self, text: &str) {
        if self.0.capacity() - self.0.len() < text.len() {
            self.grow(text.len());
        }
        self.0.push_str(text);
    }

    #[cold]
    fn grow(&mut self, more: usize) {
        let wanted = (self.0.len() + more).max(self.0.capacity() * 2);
        if wanted <= LARGE_BYTES {
            return self.0.reserve(wanted - self.0.len());
        }
        let mut larger = String::from_utf8(with_room(wanted)).unwrap_or_default();
        larger.push_str(&self.0);
        keep(std::mem::replace(&mut self.0, larger).into_bytes());
    }
}

impl Clone for Text {
    fn clone(&self) -> Self {
        let mut copy = Self::default();
        copy.push_str(&self.0);
        copy
    }
}

impl Drop for Text {
    fn drop(&mut self) {
        keep(std::mem::take(&mut self.0).into_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_what_was_added_however_its_memory_came() {
        let mut random = fastrand::Rng::with_seed(11);
        for round in 0..50 {
            let (mut text, mut expected) = (Text::default(), String::new());
            for _ in 0..random.usize(1..60) {
                let piece = "é".repeat(random.usize(0..20_000));
                text.push_str(&piece);
                expected.push_str(&piece);
            }
            assert_eq!(text.as_str(), expected, "round {round}");
            assert_eq!(text.clone().as_str(), expected, "round {round}");
        }
    }

    #[test]
    fn what_is_kept_is_empty_and_bounded() {
        for bytes in [100, LARGE_BYTES, 1 << 20, 3 << 20, 5 << 20, 9 << 20, 2 << 20, 1 << 20] {
            keep(vec![b'x'; bytes]);
            let spare = SPARE.lock();
            assert!(spare.len() <= KEPT && spare.iter().map(Vec::capacity).sum::<usize>() <= KEPT_BYTES);
            assert!(spare.iter().all(|buffer| buffer.is_empty() && buffer.capacity() >= LARGE_BYTES));
        }
        for bytes in [1, LARGE_BYTES + 1, 4 << 20] {
            let buffer = with_room(bytes);
            assert!(buffer.is_empty() && buffer.capacity() >= bytes);
        }
    }
}
