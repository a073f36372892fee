//! What came that nobody was told of yet: each thing once, however often it came. Writers add, those who tell take all of it, and what
//! nobody cares for any more is forgotten; whatever of that happens in the same moment, what comes after it is news again
//! (`tests/loom.rs`).

use super::atomic::{AtomicBool, Mutex, Ordering};

/// On whatever may be news: whether it is.
#[derive(Debug)]
pub(super) struct Mark(AtomicBool);

/// What may be news.
pub(super) trait Newsworthy {
    /// Its own.
    fn mark(&self) -> &Mark;
}

/// See the head of this file.
pub(super) struct News<T> {
    list: Mutex<Vec<T>>,
    is_any: AtomicBool,
}

impl Mark {
    pub(super) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// It is no news any more.
    fn clear(&self) {
        // Exchanged, not stored: loom lets a store and an exchange come in an order that the language excludes.
        self.0.swap(false, Ordering::SeqCst);
    }
}

impl<T: Newsworthy> News<T> {
    pub(super) fn new() -> Self {
        Self { list: Mutex::new(Vec::new()), is_any: AtomicBool::new(false) }
    }

    /// There is something new of it, and it can be seen already.
    pub(super) fn add(&self, one: T) {
        if !one.mark().0.swap(true, Ordering::SeqCst) {
            let mut list = self.list.lock();
            list.push(one);
            self.is_any.store(true, Ordering::Relaxed);
        }
    }

    /// Whether there are any, for whoever has added some.
    pub(super) fn is_any(&self) -> bool {
        self.is_any.load(Ordering::Relaxed)
    }

    /// All of them, for whoever looks at each afterwards.
    pub(super) fn take(&self) -> Vec<T> {
        let mut list = self.list.lock();
        self.is_any.store(false, Ordering::Relaxed);
        let news = std::mem::take(&mut *list);
        for one in &news {
            // Before anybody looks at it: what comes after that is news again.
            one.mark().clear();
        }
        news
    }

    /// Forgets those that nobody cares for, which whoever begins to care looks at first.
    pub(super) fn keep_only(&self, mut is_kept: impl FnMut(&T) -> bool) {
        self.list.lock().retain(|one| {
            let is_kept = is_kept(one);
            if !is_kept {
                // Or it would never be news again, for whoever cares for it next.
                one.mark().clear();
            }
            is_kept
        });
    }
}
