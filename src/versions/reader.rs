//! What a client does with a table: find it, and load from it.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Acquire;

use commonhold_proto::{StoreIdentity, Tag};

use super::layout::{DEAD, Name, Occupant, Words};
use super::memory::{Access, Mapping};
use super::shelf::{self, shelves};

/// A daemon's table, mapped to be read.
#[derive(Debug)]
pub struct Reader {
    words: Words,
    path: PathBuf,
}

impl Reader {
    /// The table of this nonce, of the store with this identity, which belongs to user `uid`. None if it cannot be had, for
    /// whatever reason: then there is nothing to compare with, and every value is asked for.
    pub fn open(identity: StoreIdentity, uid: u32, nonce: u64) -> Option<Self> {
        let name = shelf::file_name(uid, identity, nonce);
        (nonce != 0).then(|| shelves().iter().find_map(|shelf| Self::at(&shelf.join(&name), uid, nonce))).flatten()
    }

    pub(super) fn at(path: &Path, uid: u32, nonce: u64) -> Option<Self> {
        let (file, bytes) = shelf::open(path, uid, false).ok()?;
        let words = Words::of(Mapping::of(&file, bytes, Access::Read).ok()?)?;
        (words.nonce().load(Acquire) == nonce).then(|| Self { words, path: path.to_owned() })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its nonce.
    pub fn nonce(&self) -> u64 {
        self.words.nonce().load(Acquire)
    }

    /// The entry of a namespace, if it has one that can be told from others'. It is the same for as long as the epoch is.
    pub fn entry_of(&self, name: Name) -> Option<usize> {
        let found = Words::entries_for(name).map(|entry| (entry, self.words.look(entry, name)));
        let mut tried = found.take_while(|(_, occupant)| *occupant != Occupant::Nobody);
        tried.find(|(_, occupant)| *occupant == Occupant::Own).map(|(entry, _)| entry)
    }

    /// Which slot a key has.
    pub fn slot_of(&self, name: Name, key: &str) -> usize {
        self.words.slot_of(name, key)
    }

    /// Whether a value that was read with this tag still is what the daemon holds.
    #[inline]
    pub fn is_current(&self, tag: &Tag, entry: usize, slot: usize) -> bool {
        // Counts only rise: if all three are what they were, they were so when the first of them was loaded.
        tag.epoch != DEAD
            && self.words.epoch().load(Acquire) == tag.epoch
            && self.words.clear_count(entry).load(Acquire) == tag.clear_count
            && self.words.slot(slot).load(Acquire) == tag.slot_count
    }

    /// The epoch, if a daemon has it.
    #[inline]
    pub fn epoch(&self) -> Option<u64> {
        Some(self.words.epoch().load(Acquire)).filter(|epoch| *epoch != DEAD)
    }

    /// The flag word of an entry, if this epoch is the table's still.
    #[inline]
    pub fn flag_word(&self, entry: usize, epoch: u64) -> Option<u64> {
        // The word first: a daemon that begins resets it only when the epoch of the one before is gone.
        let word = self.words.flag_word(entry).load(Acquire);
        (epoch != DEAD && self.words.epoch().load(Acquire) == epoch).then_some(word)
    }
}
