//! Who is told, in the moment in which a change becomes visible, that it does: whoever counts changes for clients that keep
//! values they have read.
//!
//! The engine does not know where the counts are. It promises when they move: under the namespace's lock, after the journal
//! and before the reply, so that a value and its [`Tag`], read in one hold of that lock, belong together; and that nothing
//! becomes visible without it, be it written, cleared, dropped, or loaded anew.

use std::fmt;
use std::sync::{Arc, OnceLock};

use commonhold_proto::{Place, Tag};

use super::store::Store;

/// The counts of all namespaces.
pub trait Counts: Send + Sync {
    /// Those of one; none if it can have none, and then it never has.
    fn of(&self, place: &Place) -> Option<Arc<dyn PlaceCounts>>;

    /// Those of one, if anybody has asked for them before.
    fn known(&self, place: &Place) -> Option<Arc<dyn PlaceCounts>>;
}

/// The counts of one namespace. They are the same for the name, however often it is dropped and made again.
pub trait PlaceCounts: Send + Sync {
    /// The value of this key changes.
    fn moved(&self, key: &str);

    /// The values of all these keys change.
    fn all_moved(&self, keys: &mut dyn Iterator<Item = &str>) {
        keys.for_each(|key| self.moved(key));
    }

    /// The values of all keys change.
    fn cleared(&self);

    /// The flag word has become this, or is greater by now.
    fn flagged(&self, word: u64);

    /// What a value that is read now is current by.
    fn tag(&self, key: &str) -> Tag;
}

/// Where all namespaces of a store find their counts, once there are any.
pub(super) type Counted = Arc<OnceLock<Arc<dyn Counts>>>;

/// A loaded namespace's own.
#[derive(Default)]
pub(super) struct OwnCounts {
    all: Counted,
    own: OnceLock<Option<Arc<dyn PlaceCounts>>>,
}

impl OwnCounts {
    pub(super) fn of(all: &Counted) -> Self {
        Self { all: Arc::clone(all), own: OnceLock::new() }
    }

    /// The counts, asked for if they were not before. For whoever changes something.
    #[inline]
    pub(super) fn get(&self, place: &Place) -> Option<&dyn PlaceCounts> {
        if let Some(own) = self.own.get() {
            return own.as_deref();
        }
        let all = self.all.get()?;
        self.own.get_or_init(|| all.of(place)).as_deref()
    }

    /// The flag word has become this. A namespace that has no counts by now gets none for that.
    pub(super) fn flagged(&self, place: &Place, word: u64) {
        if let Some(counts) = self.if_used() {
            counts.flagged(word);
        } else if let Some(counts) = self.all.get().and_then(|all| all.known(place)) {
            counts.flagged(word);
        }
    }

    /// The counts, if somebody has changed or tagged something here.
    #[inline]
    pub(super) fn if_used(&self) -> Option<&dyn PlaceCounts> {
        self.own.get().and_then(Option::as_deref)
    }
}

impl fmt::Debug for OwnCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnCounts").finish_non_exhaustive()
    }
}

impl Store {
    /// Changes are counted by `counts` from here on. To be called once, before anybody is answered.
    pub fn count_by(&self, counts: Arc<dyn Counts>) {
        // A second one would find the first's counts in use.
        let _ = self.counted.set(counts);
    }

    /// Tells that a name's flag word was moved to `word`, by whomever.
    pub fn flag_moved(&self, place: &Place, word: u64) {
        if let Some(counts) = self.counted.get().and_then(|counts| counts.known(place)) {
            counts.flagged(word);
        }
    }

    /// A namespace comes into memory: what was known of its name, be it that it is empty, may not be so.
    pub(super) fn counts_of_loaded(&self, place: &Place) -> OwnCounts {
        if let Some(counts) = self.counted.get().and_then(|counts| counts.known(place)) {
            counts.cleared();
        }
        OwnCounts::of(&self.counted)
    }
}
