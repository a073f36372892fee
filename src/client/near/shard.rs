//! One piece of a cache: entries by hash, within a number of bytes. What is over that goes, the longest unused first as
//! far as one bit an entry tells (the clock's hand passes over an entry that was used since it last came by).

use std::sync::Arc;

use commonhold_proto::{Seq, Tag};
use hashbrown::HashTable;

use super::{Held, Link};
use crate::client::target::Target;

/// At most about what an entry takes beside its key and value: its place in the table, of which more than half may be empty, and the
/// heads of what it owns.
const ENTRY_BYTES: usize = 5 * size_of::<Entry>() / 2 + 48;

#[derive(Debug)]
struct Entry {
    hash: u64,
    target: Arc<Target>,
    /// The key, and the value, which is empty where there is no such record.
    held: Held,
    is_there: bool,
    used: bool,
    tag: Tag,
    /// The namespace's place in the version table, and the key's slot.
    place: u32,
    slot: u32,
}

impl Entry {
    fn bytes(&self) -> usize {
        ENTRY_BYTES + self.held.bytes()
    }

    #[inline]
    fn is_of(&self, target: &Target, key: &str) -> bool {
        self.held.key() == key && (std::ptr::eq(&raw const *self.target, target) || *self.target == *target)
    }
}

/// A value that is current, and by what.
pub(in crate::client) struct Found {
    pub(in crate::client) value: Option<Held>,
    pub(super) tag: Tag,
    pub(super) place: u32,
    pub(super) slot: u32,
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) link: Option<Arc<Link>>,
    pub(super) hits: u64,
    pub(super) misses: u64,
    /// By hash. Two keys of one hash are not kept side by side.
    entries: HashTable<Entry>,
    bytes: usize,
    limit: usize,
    /// The bucket that the clock's hand is at.
    hand: usize,
}

impl Shard {
    pub(super) fn within(limit: usize) -> Self {
        Self { link: None, hits: 0, misses: 0, entries: HashTable::new(), bytes: 0, limit, hand: 0 }
    }

    pub(super) fn entries(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What is kept of a key, if it is current.
    #[inline]
    pub(super) fn find(&mut self, hash: u64, target: &Target, key: &str) -> Option<Found> {
        let link = self.link.as_ref()?;
        let entry = self.entries.find_mut(hash, |entry| entry.hash == hash)?;
        let is_current = entry.is_of(target, key)
            && link.reader.is_current(&entry.tag, entry.place as usize, entry.slot as usize)
            && link.is_up();
        if !is_current {
            return None;
        }
        entry.used = true;
        let value = entry.is_there.then(|| entry.held.clone());
        Some(Found { value, tag: entry.tag, place: entry.place, slot: entry.slot })
    }

    /// Keeps a value, in place of what is kept of that key.
    pub(super) fn keep(&mut self, hash: u64, target: &Arc<Target>, key: &str, value: Option<&Held>, tag: Tag) {
        let Some(link) = &self.link else { return };
        // An answer that was given long ago, or by another daemon, would only take room.
        let Some(place) = link.reader.entry_of(target.name()) else { return };
        let slot = link.reader.slot_of(target.name(), key);
        if !link.reader.is_current(&tag, place, slot) {
            return;
        }
        let (place, slot) = (place as u32, slot as u32);
        let kept = Entry {
            hash,
            target: Arc::clone(target),
            held: value.map_or_else(|| Held::new(key, "", Seq(0)), Held::clone),
            is_there: value.is_some(),
            used: false,
            tag,
            place,
            slot,
        };
        self.remove(hash);
        let bytes = kept.bytes();
        if bytes > self.limit {
            return;
        }
        while self.bytes + bytes > self.limit && !self.entries.is_empty() {
            self.evict_one();
        }
        self.bytes += bytes;
        self.entries.insert_unique(hash, kept, |entry| entry.hash);
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.entries = HashTable::new();
        (self.bytes, self.hand) = (0, 0);
    }

    /// Moves the hand to the next entry that was not used since it came by, which goes.
    fn evict_one(&mut self) {
        loop {
            if self.hand >= self.entries.num_buckets() {
                self.hand = 0;
            }
            if let Some(entry) = self.entries.get_bucket_mut(self.hand)
                && !std::mem::take(&mut entry.used)
            {
                let hash = entry.hash;
                return self.remove(hash);
            }
            self.hand += 1;
        }
    }

    fn remove(&mut self, hash: u64) {
        if let Ok(found) = self.entries.find_entry(hash, |entry| entry.hash == hash) {
            self.bytes -= found.remove().0.bytes();
        }
    }
}
