//! The daemon's version table: the counts of the engine, in memory that clients look at.
//!
//! Where there can be none, the daemon serves without: answers carry no tags, the handshake no nonce, and clients ask for
//! every value. `status` says so, and why.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::engine::{Counts, PlaceCounts, Store};
use crate::proto::{Place, Tag};
use crate::versions::{Entry, NAMESPACES, Writer};

/// The table, or why there is none.
pub(super) struct VersionTable(Result<Arc<Writer>, String>);

/// What `status` tells of it.
#[derive(Serialize)]
pub(super) struct Told {
    /// Where the table lies; none if there is none.
    table: Option<String>,
    /// Why there is none.
    off_because: Option<String>,
    /// How many namespaces have an entry: values of others are not kept by clients.
    namespaces: usize,
    /// How many there may be.
    namespaces_limit: usize,
    slots: usize,
}

impl VersionTable {
    /// Takes the table of a store that was just opened, and has its changes counted there. Nobody has been answered yet.
    pub(super) fn of(store: &Store, for_others: bool) -> Self {
        let taken = Writer::take_over(store.dir(), store.identity(), for_others).map(Arc::new);
        match &taken {
            Ok(table) => {
                tracing::debug!(table = %table.path().display(), "clients may keep values that they have read");
                store.count_by(Arc::new(Counting(Arc::clone(table))));
            }
            Err(error) => tracing::warn!(%error, "clients ask for every value: there is no memory to share with them"),
        }
        Self(taken.map_err(|error| error.to_string()))
    }

    /// For the handshake: 0 is none.
    pub(super) fn nonce(&self) -> u64 {
        self.0.as_ref().map_or(0, |table| table.nonce())
    }

    /// A session registers a flag: it may look at the word itself from here on.
    pub(super) fn flag(&self, place: &Place, word: &AtomicU64) {
        if let Ok(table) = &self.0
            && let Some(entry) = table.entry(place)
        {
            // After the entry is there: who has moved the word before that has told nobody, who moves it later does.
            entry.flagged(word.load(Ordering::Acquire));
        }
    }

    /// No value is current any more.
    pub(super) fn retire(&self) {
        if let Ok(table) = &self.0 {
            table.retire();
        }
    }

    pub(super) fn told(&self) -> Told {
        let table = self.0.as_ref().ok();
        let removed =
            || "its file was removed: clients that connect now ask for every value, until the daemon is restarted";
        let is_gone = table.is_some_and(|table| !table.is_there());
        Told {
            table: table.map(|table| Path::display(table.path()).to_string()),
            off_because: self.0.as_ref().err().cloned().or_else(|| is_gone.then(|| removed().to_owned())),
            namespaces: table.map_or(0, |table| table.namespaces()),
            namespaces_limit: NAMESPACES,
            slots: table.map_or(0, |table| table.slots()),
        }
    }
}

struct Counting(Arc<Writer>);

fn counts(entry: Entry) -> Arc<dyn PlaceCounts> {
    Arc::new(entry)
}

impl Counts for Counting {
    fn of(&self, place: &Place) -> Option<Arc<dyn PlaceCounts>> {
        self.0.entry(place).map(counts)
    }

    fn known(&self, place: &Place) -> Option<Arc<dyn PlaceCounts>> {
        self.0.known_entry(place).map(counts)
    }
}

impl PlaceCounts for Entry {
    fn moved(&self, key: &str) {
        Self::moved(self, key);
    }

    fn all_moved(&self, keys: &mut dyn Iterator<Item = &str>) {
        Self::all_moved(self, keys);
    }

    fn cleared(&self) {
        Self::cleared(self);
    }

    fn flagged(&self, word: u64) {
        Self::flagged(self, word);
    }

    fn tag(&self, key: &str) -> Tag {
        Self::tag(self, key)
    }
}
