//! Duplicate keys: noticing them at every depth, and taking them out of the text once it has been read.
//!
//! A *place* is a byte of the canonical text as it would stand with its duplicates. A member is known by the places of
//! its key; its value follows at once (`"` and `:` lie between) and ends where the next member's comma, or the end of
//! the object, is. So nothing but keys need be noted while reading. Duplicates become edits: the later member
//! is left out, and the last one's value stands where the first one's stood. The text is put together once, at the
//! end, however deep the edits nest; each byte of it is copied once.

use std::hash::{BuildHasher, RandomState};

/// With more keys than this in one object, comparing each with all costs more than a hash table.
const FEW: usize = 16;

/// The places of a key's canonical text, without its quotes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member {
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Member {
    /// Where the comma before this member is, which is where the member before it ends.
    fn comma(self) -> usize {
        self.start - 2
    }

    fn value(self) -> usize {
        self.end + 2
    }
}

/// The canonical text read so far: what was written, then a run of the input that needs no change.
pub(super) struct Written<'a> {
    pub(super) out: &'a [u8],
    pub(super) run: &'a [u8],
}

impl<'a> Written<'a> {
    fn key(&self, member: Member) -> &'a [u8] {
        // A key never lies in both: one that was changed was written out to its end.
        match member.start.checked_sub(self.out.len()) {
            None => &self.out[member.start..member.end],
            Some(start) => &self.run[start..member.end - self.out.len()],
        }
    }
}

/// What is remembered of an object that is still open.
#[derive(Debug, Clone, Copy)]
pub(super) struct Object {
    base: usize,
    twins: usize,
    /// A bit for each key so far, by a cheap mark of the key: most new keys show as new without a comparison.
    seen: u64,
    hashed: bool,
}

struct Edit {
    from: usize,
    to: usize,
    instead: Option<(usize, usize)>,
}

/// The keys of all open objects (those of the innermost last), and the edits so far.
#[derive(Default)]
pub(super) struct Members {
    list: Vec<Member>,
    /// A later member and the first of its key, as indices into `list`.
    twins: Vec<(usize, usize)>,
    edits: Vec<Edit>,
    tables: Vec<Table>,
    tables_in_use: usize,
    // Keyed at random, so that nobody can choose keys that collide.
    hasher: Option<RandomState>,
}

impl Members {
    /// How much memory they keep.
    pub(super) fn bytes(&self) -> usize {
        let slots: usize = self.tables.iter().map(Table::bytes).sum();
        let twins = self.twins.capacity() * size_of::<(usize, usize)>();
        self.list.capacity() * size_of::<Member>() + self.edits.capacity() * size_of::<Edit>() + twins + slots
    }

    /// Forgets everything but keeps the memory, also after a text that ended in the middle.
    pub(super) fn reset(&mut self) {
        self.list.clear();
        self.twins.clear();
        self.edits.clear();
        self.tables_in_use = 0;
    }

    pub(super) fn open(&mut self) -> Object {
        if self.list.is_empty() {
            self.list.reserve(FEW);
        }
        Object { base: self.list.len(), twins: self.twins.len(), seen: 0, hashed: false }
    }

    /// Notes a key of the innermost open object.
    #[inline]
    pub(super) fn add(&mut self, object: &mut Object, member: Member, written: &Written<'_>) {
        let key = written.key(member);
        let bit = 1 << mark(key);
        if object.hashed || object.seen & bit != 0 || self.list.len() - object.base >= FEW {
            self.look_closely(object, member, key, written);
        }
        object.seen |= bit;
        self.list.push(member);
    }

    fn look_closely(&mut self, object: &mut Object, member: Member, key: &[u8], written: &Written<'_>) {
        let Self { list, hasher, tables, tables_in_use, .. } = self;
        let new = list.len();
        let first = if !object.hashed && new - object.base < FEW {
            let same =
                |other: &Member| other.end - other.start == member.end - member.start && written.key(*other) == key;
            list[object.base..].iter().position(same).map(|at| object.base + at)
        } else {
            let hasher = hasher.get_or_insert_with(RandomState::new);
            if !object.hashed {
                object.hashed = true;
                if tables.len() == *tables_in_use {
                    tables.push(Table::default());
                }
                *tables_in_use += 1;
                let table = &mut tables[*tables_in_use - 1];
                table.restart();
                for index in object.base..new {
                    let key = written.key(list[index]);
                    table.find_or_insert(hasher.hash_one(key), index, |other| written.key(list[other]) == key);
                }
            }
            // The innermost object that has a table is the innermost open object.
            tables[*tables_in_use - 1]
                .find_or_insert(hasher.hash_one(key), new, |other| written.key(list[other]) == key)
        };
        self.twins.extend(first.map(|first| (new, first)));
    }

    /// Ends the innermost open object, whose closing brace is at the place `end`.
    #[inline]
    pub(super) fn close(&mut self, object: &Object, end: usize) {
        if self.twins.len() > object.twins {
            self.edit(object, end);
        }
        self.list.truncate(object.base);
        self.tables_in_use -= usize::from(object.hashed);
    }

    #[cold]
    fn edit(&mut self, object: &Object, end: usize) {
        let Self { list, twins, edits, .. } = self;
        let end_of = |index: usize| list.get(index + 1).map_or(end, |next| next.comma());
        let twins_here = &mut twins[object.twins..];
        twins_here.sort_unstable_by_key(|&(later, first)| (first, later));
        for same_key in twins_here.chunk_by(|one, other| one.1 == other.1) {
            for &(later, _) in same_key {
                edits.push(Edit { from: list[later].comma(), to: end_of(later), instead: None });
            }
            let (last, first) = same_key[same_key.len() - 1];
            let instead = Some((list[last].value(), end_of(last)));
            edits.push(Edit { from: list[first].value(), to: end_of(first), instead });
        }
        twins.truncate(object.twins);
    }

    pub(super) fn has_edits(&self) -> bool {
        !self.edits.is_empty()
    }

    /// How many members the edits leave out.
    pub(super) fn duplicates(&self) -> u64 {
        self.edits.iter().filter(|edit| edit.instead.is_none()).count() as u64
    }

    /// Appends `text`, whose bytes are at their places, to `out` without its duplicates.
    pub(super) fn apply_edits(&mut self, text: &str, out: &mut String) {
        let edits = &mut self.edits;
        edits.sort_unstable_by_key(|edit| edit.from);
        let mut to_do = vec![(0, text.len())];
        while let Some((from, end)) = to_do.pop() {
            // An edit within what another one leaves out is never met, or met only inside the value that moves.
            let next = edits.partition_point(|edit| edit.from < from);
            match edits.get(next) {
                Some(edit) if edit.from < end => {
                    out.push_str(&text[from..edit.from]);
                    to_do.push((edit.to, end));
                    to_do.extend(edit.instead);
                }
                _ => out.push_str(&text[from..end]),
            }
        }
    }
}

fn mark(key: &[u8]) -> u32 {
    let first = key.first().copied().map_or(0, u32::from);
    let last = key.last().copied().map_or(0, u32::from);
    let middle = key.get(key.len() / 2).copied().map_or(0, u32::from);
    ((key.len() as u32).wrapping_mul(11) ^ first ^ (last * 5) ^ (middle * 3)) & 63
}

/// Open addressing over indices into the list of members. A slot holds the upper half of the hash and the index + 1;
/// 0 is free. Only the first member of each key has a slot.
#[derive(Default)]
struct Table {
    slots: Vec<u64>,
    used: usize,
}

impl Table {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.slots.capacity() * size_of::<u64>()
    }

    /// Begins anew, small: what an earlier, larger object needed must not be cleared for each small one after it.
    fn restart(&mut self) {
        self.slots.clear();
        self.slots.resize(4 * FEW, 0);
        self.used = 0;
    }

    fn find_or_insert(&mut self, hash: u64, index: usize, mut is: impl FnMut(usize) -> bool) -> Option<usize> {
        if self.used * 2 >= self.slots.len() {
            self.grow();
        }
        let tag = hash & TAG;
        let mask = self.slots.len() - 1;
        let mut at = Self::home(tag) & mask;
        while self.slots[at] != 0 {
            let slot = self.slots[at];
            let other = (slot & !TAG) as usize - 1;
            if slot & TAG == tag && is(other) {
                return Some(other);
            }
            at = (at + 1) & mask;
        }
        self.slots[at] = tag | (index as u64 + 1);
        self.used += 1;
        None
    }

    #[cold]
    fn grow(&mut self) {
        let mut larger = vec![0; self.slots.len() * 4];
        let mask = larger.len() - 1;
        for &slot in self.slots.iter().filter(|&&slot| slot != 0) {
            let mut at = Self::home(slot & TAG) & mask;
            while larger[at] != 0 {
                at = (at + 1) & mask;
            }
            larger[at] = slot;
        }
        self.slots = larger;
    }

    fn home(tag: u64) -> usize {
        (tag >> 36) as usize
    }
}

/// The part of a slot that holds the hash; the 36 bits below hold the index: 2^36 keys do not fit in memory, as each
/// takes a [`Member`] and four bytes of text.
const TAG: u64 = !0 << 36;
