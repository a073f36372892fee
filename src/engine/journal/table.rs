//! The table of namespaces: which file of a namespace holds which of its writes.
//!
//! An entry is (hash of the file or "no file", size, cut): a file with that hash holds every write to the namespace up
//! to the cut. An intent adds an entry beside the old one, because until the rename is known to have happened either
//! file may be the one that is found after a crash. Of the entries that know a file, the one with the greatest cut counts.
//!
//! In a segment's header (section kind 1) the table is: u32 count, then for each namespace: u16 length of the
//! workspace's name, u16 length of the namespace's name, both names, u64 Seq of the last write to it, u64 Seq through
//! which its file is known to hold them, u32 number of entries, and each entry: u8 kind (0 no file, 1 file), u128 hash, u64 size, u64 cut.

use commonhold_proto::{Place, Seq};
use hashbrown::HashMap;
use xxhash_rust::xxh3::xxh3_128;

use super::bytes::Fields;

/// What a file is known by: its XXH3-128 hash and its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    pub(crate) hash: u128,
    pub(crate) bytes: u64,
}

impl Fingerprint {
    /// That of a file with these bytes.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self { hash: xxh3_128(bytes), bytes: bytes.len() as u64 }
    }
}

/// A file, or its absence, that holds every write to a namespace up to the cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// None: there is no file.
    pub(crate) file: Option<Fingerprint>,
    pub(crate) cut: Seq,
}

/// What is known of one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// The last write to it that the journal has seen.
    pub(crate) last: Seq,
    /// Its file is known to hold every write up to this one.
    pub(crate) covered: Seq,
    /// In order of their cuts.
    pub(crate) entries: Vec<Entry>,
}

impl Known {
    /// Whether the journal holds something that the file may lack.
    pub(crate) fn is_waiting(&self) -> bool {
        self.last > self.covered
    }

    /// The cut of the newest entry that knows this file.
    pub(crate) fn cut_of(&self, file: Option<Fingerprint>) -> Option<Seq> {
        self.entries.iter().rev().find(|entry| entry.file == file).map(|entry| entry.cut)
    }

    /// The cut of the newest entry that knows a file of this size: probably that file's.
    pub(crate) fn cut_by_size(&self, bytes: u64) -> Option<Seq> {
        let is_so_large = |entry: &&Entry| entry.file.is_some_and(|file| file.bytes == bytes);
        self.entries.iter().rev().find(is_so_large).map(|entry| entry.cut)
    }

    /// Adds an entry at its place.
    pub(crate) fn add(&mut self, entry: Entry) {
        // A copied record is read beside a table that knows it already.
        if self.entries.contains(&entry) {
            return;
        }
        let at = self.entries.partition_point(|known| known.cut <= entry.cut);
        self.entries.insert(at, entry);
    }
}

/// The table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FileTable {
    known: HashMap<Place, Known>,
}

impl FileTable {
    pub(crate) fn get(&self, place: &Place) -> Option<&Known> {
        self.known.get(place)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Place, &Known)> {
        self.known.iter()
    }

    fn of(&mut self, place: &Place) -> &mut Known {
        // A look-up first: every write passes here, and a key is only to be cloned for a namespace's first one.
        if !self.known.contains_key(place) {
            self.known.insert(place.clone(), Known::default());
        }
        self.known.get_mut(place).expect("it was there or was just inserted")
    }

    /// A write to the namespace entered the journal.
    pub(crate) fn wrote(&mut self, place: &Place, seq: Seq) {
        let known = self.of(place);
        known.last = known.last.max(seq);
    }

    /// A file that nothing knew was loaded, while nothing waited for it.
    pub(crate) fn loaded(&mut self, place: &Place, entry: Entry) {
        let known = self.of(place);
        known.add(entry);
        known.covered = known.covered.max(entry.cut);
    }

    /// A file is about to be replaced by one that holds everything up to the cut.
    pub(crate) fn intends(&mut self, place: &Place, entry: Entry) {
        self.of(place).add(entry);
    }

    /// The file that holds everything up to the cut is in place, and durably so.
    pub(crate) fn covered(&mut self, place: &Place, cut: Seq) {
        let known = self.of(place);
        known.covered = known.covered.max(cut);
    }

    /// Every record up to and with `removed` has left the journal: an entry that would need one of them is of no use
    /// any more, unless it may still be the file that is found.
    pub(crate) fn forget(&mut self, removed: Seq) {
        for known in self.known.values_mut() {
            let (covered, last) = (known.covered, known.entries.len().saturating_sub(1));
            let mut index = 0;
            known.entries.retain(|entry| {
                let keep = entry.cut >= removed || entry.cut >= covered || index == last;
                index += 1;
                keep
            });
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.known.len() as u32).to_le_bytes());
        // In order of name, so that the same table has the same bytes.
        let mut sorted: Vec<_> = self.known.iter().collect();
        sorted.sort_unstable_by_key(|(place, _)| *place);
        for (place, known) in sorted {
            encode_known(out, place, known);
        }
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(bytes);
        let mut table = Self::default();
        for _ in 0..fields.u32()? {
            let (place, known) = decode_known(&mut fields)?;
            table.known.insert(place, known);
        }
        fields.is_empty().then_some(table)
    }

    #[cfg(test)]
    pub(super) fn sample() -> Self {
        let mut table = Self::default();
        let place = Place::new("tenant_a", "text_chunks").unwrap();
        table.loaded(&place, Entry { file: Some(Fingerprint { hash: 1 << 100, bytes: 123 }), cut: Seq(4) });
        table.wrote(&place, Seq(9));
        table.intends(&place, Entry { file: None, cut: Seq(9) });
        table.wrote(&Place::new("", "doc_status").unwrap(), Seq(3));
        table
    }
}

pub(super) fn encode_known(out: &mut Vec<u8>, place: &Place, known: &Known) {
    encode_place(out, place);
    out.extend_from_slice(&known.last.0.to_le_bytes());
    out.extend_from_slice(&known.covered.0.to_le_bytes());
    out.extend_from_slice(&(known.entries.len() as u32).to_le_bytes());
    for entry in &known.entries {
        encode_entry(out, entry);
    }
}

pub(super) fn decode_known(fields: &mut Fields<'_>) -> Option<(Place, Known)> {
    let place = decode_place(fields)?;
    let mut known = Known { last: Seq(fields.u64()?), covered: Seq(fields.u64()?), entries: Vec::new() };
    for _ in 0..fields.u32()? {
        known.entries.push(decode_entry(fields)?);
    }
    Some((place, known))
}

pub(super) fn encode_place(out: &mut Vec<u8>, place: &Place) {
    let (workspace, namespace) = (place.workspace.as_str(), place.namespace.as_str());
    out.extend_from_slice(&(workspace.len() as u16).to_le_bytes());
    out.extend_from_slice(&(namespace.len() as u16).to_le_bytes());
    out.extend_from_slice(workspace.as_bytes());
    out.extend_from_slice(namespace.as_bytes());
}

pub(super) fn decode_place(fields: &mut Fields<'_>) -> Option<Place> {
    let (workspace, namespace) = (fields.u16()?.into(), fields.u16()?.into());
    Place::new(fields.text(workspace)?, fields.text(namespace)?).ok()
}

pub(super) fn encode_entry(out: &mut Vec<u8>, entry: &Entry) {
    let none = Fingerprint { hash: 0, bytes: 0 };
    let file = entry.file.unwrap_or(none);
    out.push(u8::from(entry.file.is_some()));
    out.extend_from_slice(&file.hash.to_le_bytes());
    out.extend_from_slice(&file.bytes.to_le_bytes());
    out.extend_from_slice(&entry.cut.0.to_le_bytes());
}

pub(super) fn decode_entry(fields: &mut Fields<'_>) -> Option<Entry> {
    let has_file = match fields.u8()? {
        0 => false,
        1 => true,
        _ => return None,
    };
    let file = Fingerprint { hash: fields.u128()?, bytes: fields.u64()? };
    Some(Entry { file: has_file.then_some(file), cut: Seq(fields.u64()?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(hash: u128) -> Fingerprint {
        Fingerprint { hash, bytes: 1 }
    }

    #[test]
    fn a_table_reads_back_as_it_was_written() {
        let mut bytes = Vec::new();
        FileTable::sample().encode(&mut bytes);
        assert_eq!(FileTable::decode(&bytes), Some(FileTable::sample()));
        for end in 0..bytes.len() {
            assert_eq!(FileTable::decode(&bytes[..end]), None);
        }
    }

    #[test]
    fn the_newest_entry_that_knows_a_file_counts() {
        let mut known = Known::default();
        for (hash, cut) in [(1, 5), (2, 9), (1, 7)] {
            known.add(Entry { file: Some(of(hash)), cut: Seq(cut) });
        }
        assert_eq!(known.cut_of(Some(of(1))), Some(Seq(7)));
        assert_eq!(known.cut_of(Some(of(3))), None);
        assert_eq!(known.cut_of(None), None);
    }

    #[test]
    fn entries_are_forgotten_only_when_their_records_are_gone_and_a_newer_file_is_in_place() {
        let place = Place::new("", "a").unwrap();
        let mut table = FileTable::default();
        table.loaded(&place, Entry { file: Some(of(1)), cut: Seq(5) });
        table.wrote(&place, Seq(8));
        table.intends(&place, Entry { file: Some(of(2)), cut: Seq(8) });
        table.forget(Seq(20));
        let known = table.get(&place).unwrap();
        assert_eq!(known.entries.len(), 2, "the rename may not have happened");
        table.covered(&place, Seq(8));
        table.forget(Seq(5));
        assert_eq!(table.get(&place).unwrap().entries.len(), 2, "all records after the first cut are there");
        table.forget(Seq(6));
        assert_eq!(table.get(&place).unwrap().cut_of(Some(of(1))), None);
        assert_eq!(table.get(&place).unwrap().cut_of(Some(of(2))), Some(Seq(8)));
    }
}
