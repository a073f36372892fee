//! A value as a cache keeps it and hands it out: in one block of memory with its key and the count of those who have it, since
//! whoever looks for the key counts himself next. Where it is not in the processor's cache, that is waited for once.
//!
//! ```text
//! | counts | key | value |
//! ```

use std::sync::Arc;

use commonhold_proto::Seq;

/// See the head of this file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::client) struct Held {
    both: Arc<str>,
    key_bytes: u32,
    pub(in crate::client) seq: Seq,
}

impl Held {
    pub(in crate::client) fn new(key: &str, text: &str, seq: Seq) -> Self {
        let mut both = String::with_capacity(key.len() + text.len());
        both.push_str(key);
        both.push_str(text);
        // No frame holds a key of 4 GiB.
        Self { both: both.into(), key_bytes: key.len() as u32, seq }
    }

    #[inline]
    pub(in crate::client) fn key(&self) -> &str {
        &self.both[..self.key_bytes as usize]
    }

    /// The value's JSON text.
    #[inline]
    pub(in crate::client) fn text(&self) -> &str {
        &self.both[self.key_bytes as usize..]
    }

    /// Bytes of key and value.
    pub(super) fn bytes(&self) -> usize {
        self.both.len()
    }
}
