//! The content of a map at one moment, read in slices while writers go on: what a flush writes.
//!
//! A view owns nothing at first. It walks the map's order; whoever changes or removes a record that a view has not yet
//! reached leaves the old one in the view's side list, under its ordinal. So at every ordinal below the view's bound and
//! not yet visited, the truth is: the side list's record if there is one, else the map's. Records put later have ordinals
//! at or above the bound. A clear moves the old order, whole, into the views, which from then on ask the map for nothing.
//!
//! What keeps this right: the map changes only under its write lock, [`View::next`] runs under its read lock, and both
//! hold the view's own mutex, which therefore is contended only by a view that is being dropped.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::order::Order;
use super::{Index, Map, Record};
use crate::engine::memory::Held;

/// The exact content of a map when [`Map::view`] was called. Dropping it ends it.
pub struct View {
    state: Arc<Mutex<State>>,
    records: usize,
    bytes: usize,
}

/// The map's side of a view.
pub(super) type Watched = Weak<Mutex<State>>;

pub(super) struct State {
    /// Everything below this ordinal has been handed out.
    position: u64,
    /// Everything from this ordinal on was put after the view was taken. At most `position` once the view is through.
    bound: u64,
    /// Old records whose ordinals are in `position..bound` and whose places in the map have changed since.
    saved: BTreeMap<u64, Record>,
    saved_bytes: usize,
    /// The order that a clear took from the map.
    cleared: Option<Arc<Order>>,
    /// Once it holds on to more bytes than this, it gives up.
    limit: usize,
    expired: bool,
    held: Held,
}

/// What an old record costs a view beside key and value: its head, and its place in the side list.
const SAVED_OVERHEAD: usize = 64;

impl View {
    pub(super) fn of(map: &Map, limit: usize) -> Self {
        let state = State {
            position: 0,
            bound: map.order.bound(),
            saved: BTreeMap::new(),
            saved_bytes: 0,
            cleared: None,
            limit,
            expired: false,
            held: map.held.beside(),
        };
        Self { state: Arc::new(Mutex::new(state)), records: map.len(), bytes: map.bytes() }
    }

    pub(super) fn watched(&self) -> Watched {
        Arc::downgrade(&self.state)
    }

    /// How many records the view has in all, handed out or not.
    pub fn len(&self) -> usize {
        self.records
    }

    /// Whether the map was empty.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Bytes of all its keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of keys and values of old records that only this view (and other views) may still hold, a cleared map's not
    /// counted.
    pub fn saved_bytes(&self) -> usize {
        self.state.lock().saved_bytes
    }

    /// Whether it had to hold on to more than it may, and gave up: what it has not handed out yet is lost to it.
    pub fn is_expired(&self) -> bool {
        self.state.lock().expired
    }

    /// Appends the next records, at most `max_records`, to `out`, in insertion order, and tells whether there are more.
    ///
    /// `map` is the map that the view was taken from, borrowed for no longer than this call.
    ///
    /// # Panics
    /// With another map: what it would hand out would be wrong, and a flush would write it.
    pub fn next(&self, map: &Map, max_records: usize, out: &mut Vec<Record>) -> bool {
        self.next_within(map, max_records, usize::MAX, out)
    }

    /// As [`next`](Self::next), but no further record once those appended have `max_bytes` of keys and values.
    ///
    /// # Panics
    /// With another map, as `next`.
    pub fn next_within(&self, map: &Map, max_records: usize, max_bytes: usize, out: &mut Vec<Record>) -> bool {
        let mut state = self.state.lock();
        let state = &mut *state;
        if state.position >= state.bound || state.expired {
            return false;
        }
        let order = if let Some(order) = &state.cleared {
            order
        } else {
            let watched = map.views.iter().any(|view| std::ptr::eq(view.as_ptr(), Arc::as_ptr(&self.state)));
            assert!(watched, "a view was asked to read a map that it was not taken from");
            &map.order
        };
        let bound = state.bound;
        let mut present = order.range(state.position).take_while(|(ordinal, _)| *ordinal < bound).peekable();
        let (first, mut bytes) = (out.len(), 0);
        while out.len() - first < max_records && bytes < max_bytes {
            let saved = state.saved.first_entry().filter(|saved| match present.peek() {
                Some((ordinal, _)) => saved.key() <= ordinal,
                None => true,
            });
            if let Some(saved) = saved {
                let (ordinal, record) = saved.remove_entry();
                present.next_if(|(newer, _)| *newer == ordinal);
                state.position = ordinal + 1;
                state.saved_bytes -= record.bytes();
                bytes += record.bytes();
                out.push(record);
            } else if let Some((ordinal, record)) = present.next() {
                state.position = ordinal + 1;
                bytes += record.bytes();
                out.push(record.clone());
            } else {
                break;
            }
        }
        let more = !state.saved.is_empty() || present.peek().is_some();
        state.held.set(state.saved_bytes + state.saved.len() * SAVED_OVERHEAD);
        if !more {
            // A cleared order is kept until the view is dropped: freeing it here would hold up the caller's lock.
            state.position = bound;
        }
        more
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // Emptied here, so that a writer which holds the state at this moment does not free a side list under its lock.
        let (saved, cleared) = {
            let mut state = self.state.lock();
            state.bound = 0;
            state.saved_bytes = 0;
            state.held.set(0);
            (std::mem::take(&mut state.saved), state.cleared.take())
        };
        drop((saved, cleared));
    }
}

impl State {
    /// Keeps `old`, whose place in the map is about to change, if the view will still want it. `false`: the view is
    /// through, or has a table of its own, and need not be told of anything any more.
    /// Bytes of keys and values in the side list.
    pub(super) fn saved_bytes(&self) -> usize {
        self.saved_bytes
    }

    pub(super) fn keep(&mut self, ordinal: u64, old: &Record) -> bool {
        if self.position >= self.bound || self.cleared.is_some() || self.expired {
            return false;
        }
        if (self.position..self.bound).contains(&ordinal) {
            // Only the first change counts: what stands there after it is newer than the view.
            self.saved.entry(ordinal).or_insert_with(|| {
                self.saved_bytes += old.bytes();
                old.clone()
            });
            // What it holds is freed by its reader, and not here under the lock.
            let bytes = self.saved_bytes + self.saved.len() * SAVED_OVERHEAD;
            self.held.set(bytes);
            self.expired = bytes > self.limit;
        }
        !self.expired
    }

    /// Hands the view the whole order that a clear took from the map, whose records have so many bytes in all.
    pub(super) fn hand_over(&mut self, order: &Arc<Order>, bytes: usize) {
        if self.position >= self.bound || self.cleared.is_some() || self.expired {
            return;
        }
        if bytes > self.limit {
            self.expired = true;
        } else {
            self.cleared = Some(Arc::clone(order));
        }
    }
}

/// What a map held when it was cleared. To be dropped outside of all locks, in slices or at once; what a view has not
/// yet read lives until the view is through.
#[must_use = "what was cleared is to be dropped after the lock has been released"]
pub struct Cleared {
    index: Index,
    order: Arc<Order>,
    records: usize,
    bytes: usize,
}

impl Cleared {
    pub(super) fn new(index: Index, order: Arc<Order>, records: usize, bytes: usize) -> Self {
        Self { index, order, records, bytes }
    }

    /// How many records the map held.
    pub fn len(&self) -> usize {
        self.records
    }

    /// Whether the map was empty.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Bytes of keys and values the map held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Drops about `records` records (whole tables and chunks, so up to a thousand more) and tells whether there is more
    /// to drop. What a view still reads is left to the view.
    pub fn drop_some(&mut self, records: usize) -> bool {
        // Each record is held twice: by the index, which is dropped first, and by the order, which then frees it.
        if self.index.drop_some(records) > 0 {
            return true;
        }
        Arc::get_mut(&mut self.order).is_some_and(|order| order.drop_some(records) > 0)
    }
}
