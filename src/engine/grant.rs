//! A grant that writes depend on: each is done while the grant is live, or not at all.
//!
//! Who gave the grant ends it, and is told whether a write is being done under it right now. If so, it is told again when
//! that is done, and gives what was granted to nobody before. Both are decided by one atomic word, so that neither a write
//! nor an end ever waits for the other. `tests/loom.rs` tries every order in which they may meet.

use std::fmt;
use std::sync::Arc;

use super::atomic::{AtomicU64, Ordering};
use super::error::Error;

/// In the word: the grant has ended. Below it is the number of writes that are being done.
const ENDED: u64 = 1 << 63;

/// What a write may depend on. Clones are the same grant.
#[derive(Clone)]
pub struct Grant(Arc<State>);

struct State {
    token: u64,
    word: AtomicU64,
    settled: Arc<dyn Fn(u64) + Send + Sync>,
}

impl Grant {
    /// One that is live. `settled` is called with its token when it has ended and the last write under it is done; it must
    /// not wait, since whoever does that write has the writer's turn.
    pub fn new(token: u64, settled: Arc<dyn Fn(u64) + Send + Sync>) -> Self {
        Self(Arc::new(State { token, word: AtomicU64::new(0), settled }))
    }

    /// No further write is done under it. Answers whether one is being done: then `settled` is called.
    pub fn end(&self) -> bool {
        self.0.word.fetch_or(ENDED, Ordering::AcqRel) & !ENDED > 0
    }

    /// A write begins under it, and is being done until what this answers is dropped.
    ///
    /// # Errors
    /// [`Error::TokenNotLive`] once it has ended.
    pub(super) fn enter(&self) -> Result<Under, Error> {
        let one_more = |word| (word & ENDED == 0).then_some(word + 1);
        match self.0.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more) {
            Ok(_) => Ok(Under(self.clone())),
            Err(_) => Err(Error::TokenNotLive { token: self.0.token }),
        }
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant").field("token", &self.0.token).finish_non_exhaustive()
    }
}

/// A write is being done.
#[derive(Debug)]
pub(super) struct Under(Grant);

impl Drop for Under {
    fn drop(&mut self) {
        let state = &self.0.0;
        if state.word.fetch_sub(1, Ordering::AcqRel) == ENDED + 1 {
            (state.settled)(state.token);
        }
    }
}
