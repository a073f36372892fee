//! A namespace in memory: what readers hold.
//!
//! One `RwLock` a namespace. Readers share it for as long as they look something up; the holder of the writer's turn takes
//! it alone to apply a request, all of it in one hold. Nothing here does any I/O.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use commonhold_proto::limits::MAX_SCAN_VISITS;
use commonhold_proto::message::Kind;
use commonhold_proto::{Cursor, Place, Seq, Tag};
use parking_lot::{Mutex, RwLock};

use super::activity::{Activity, Costs, FailedFlush};
use super::counts::{OwnCounts, PlaceCounts};
use super::disk::Stat;
use super::error::Error;
use super::flag_word::set_flags;
use super::journal::Entry;
use super::map::{Map, Record};

/// A loaded namespace.
pub struct Table {
    place: Place,
    /// Which load of the namespace this is, so that a cursor of an earlier one is recognised.
    load: u64,
    pub(super) map: RwLock<Map>,
    /// The last write that was applied.
    last: AtomicU64,
    /// The file that was loaded is in the journal's table, or needs not be: writes may follow.
    announced: AtomicBool,
    /// The last drop; while no write has followed it, a flush removes the file.
    dropped: AtomicU64,
    /// Everything up to this Seq is in the file.
    covered: AtomicU64,
    /// The journal knows that everything up to this Seq is in the file, so it need not keep it.
    completed: AtomicU64,
    /// The Seq at which its file was taken as it is, which nothing knew; else zero. Of what was changed before, nothing can be told.
    taken_at: Seq,
    pub(super) file: Mutex<FileState>,
    pub(super) activity: Arc<Activity>,
    counts: OwnCounts,
    kind: Kind,
    /// Of a volatile namespace: held by whoever writes to it, as the turn is for the persistent ones.
    pub(super) order: Mutex<()>,
    /// Of a volatile namespace: it was dropped, and another may have its name.
    pub(super) gone: AtomicBool,
}

/// What is known of a namespace's file. Its lock is held while the file is replaced.
#[derive(Debug, Default)]
pub(super) struct FileState {
    /// The file as it was last loaded or written; none if there is none.
    pub(super) stat: Option<Stat>,
    /// What the journal is to be told before the first write.
    pub(super) unannounced: Option<Entry>,
}

/// One page of a scan.
#[derive(Debug)]
pub struct Page {
    /// In insertion order.
    pub records: Vec<Record>,
    /// Where the next page begins; none at the end.
    pub next: Option<NextPage>,
    /// The last write that the page has seen.
    pub seq: Seq,
}

/// What a cursor holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextPage {
    /// Which load of the namespace.
    pub load: u64,
    /// Ordinal of the last record visited.
    pub ordinal: u64,
    /// Its key.
    pub key: String,
}

/// What a scan asks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct ScanQuery<'a> {
    /// Where the page before this one ended.
    pub cursor: Option<Cursor<'a>>,
    /// Only keys that begin so.
    pub prefix: &'a str,
    /// Most records in the page; 0 is as many as it may visit.
    pub limit: usize,
    /// About how many bytes of keys and values end the page; 0 is no bound.
    pub max_bytes: usize,
}

impl Table {
    pub(super) fn new(
        place: Place,
        load: u64,
        map: Map,
        (last, covered): (Seq, Seq),
        file: FileState,
        activity: Arc<Activity>,
    ) -> Self {
        Self {
            place,
            load,
            map: RwLock::new(map),
            last: AtomicU64::new(last.0),
            announced: AtomicBool::new(file.unannounced.is_none()),
            taken_at: file.unannounced.map_or(Seq::ZERO, |entry| entry.cut),
            dropped: AtomicU64::new(0),
            covered: AtomicU64::new(covered.0),
            completed: AtomicU64::new(covered.0),
            file: Mutex::new(file),
            activity,
            counts: OwnCounts::default(),
            kind: Kind::Persistent,
            order: Mutex::new(()),
            gone: AtomicBool::new(false),
        }
    }

    /// An empty volatile one.
    pub(super) fn volatile(place: Place, load: u64, map: Map, activity: Arc<Activity>) -> Self {
        let none = (Seq::ZERO, Seq::ZERO);
        Self { kind: Kind::Volatile, ..Self::new(place, load, map, none, FileState::default(), activity) }
    }

    /// Its changes are counted, by whoever counts those of the store.
    pub(super) fn counted(self, counts: OwnCounts) -> Self {
        Self { counts, ..self }
    }

    /// Who counts its changes. To be called by whoever makes one visible, with the map in hand.
    pub(super) fn counts(&self) -> Option<&dyn PlaceCounts> {
        self.counts.get(&self.place)
    }

    /// The same, if anybody may keep something of it.
    pub(super) fn counts_if_used(&self) -> Option<&dyn PlaceCounts> {
        self.counts.if_used()
    }

    /// What becomes of it when the daemon ends.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether it is in memory only.
    pub fn is_volatile(&self) -> bool {
        self.kind == Kind::Volatile
    }

    /// Whether it is volatile and was dropped: whoever holds it is to look its name up again.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Which namespace this is.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The last write that was applied to it, or the cut of its file.
    pub fn last(&self) -> Seq {
        Seq(self.last.load(Ordering::Acquire))
    }

    /// Its file holds every write up to this one.
    pub fn covered(&self) -> Seq {
        Seq(self.covered.load(Ordering::Acquire))
    }

    /// Whether its file lacks something that it holds, or has it all but the flush did not get to tell the journal so:
    /// until another one does, the journal keeps what it need not.
    pub fn is_dirty(&self) -> bool {
        !self.is_volatile() && self.last() > Seq(self.completed.load(Ordering::Acquire))
    }

    pub(super) fn set_completed(&self, cut: Seq) {
        self.completed.store(cut.0, Ordering::Release);
    }

    pub(super) fn set_covered(&self, cut: Seq) {
        self.covered.store(cut.0, Ordering::Release);
    }

    /// Something of it was changed by this write. Called with its map in hand: a flush that finds it clean under that lock
    /// has seen the change.
    pub(super) fn applied(&self, seq: Seq) {
        self.activity.wrote(!self.is_dirty());
        self.last.store(seq.0, Ordering::Release);
        if !self.is_volatile() {
            self.flag_moved(set_flags(self.activity.flag_word()));
        }
    }

    /// The flag word was moved to `word`.
    pub(super) fn flag_moved(&self, word: u64) {
        self.counts.flagged(&self.place, word);
    }

    /// Whether its last write was a drop, so that it is to have no file.
    pub(super) fn is_dropped(&self) -> bool {
        let dropped = self.dropped.load(Ordering::Acquire);
        dropped > 0 && dropped == self.last().0
    }

    pub(super) fn set_dropped(&self, seq: Seq) {
        self.dropped.store(seq.0, Ordering::Release);
    }

    /// What keeping it has cost since the store was opened.
    pub fn costs(&self) -> Costs {
        self.activity.costs(self.is_dirty())
    }

    /// The last flush of it, if that failed.
    pub fn failed_flush(&self) -> Option<FailedFlush> {
        self.activity.failed_flush()
    }

    /// Whether there is nothing that would be missed: no record, no file, and no write since it was loaded.
    pub fn is_blank(&self) -> bool {
        if self.is_volatile() {
            return self.last() == Seq::ZERO;
        }
        !self.is_announced()
            && self.is_empty()
            && !self.is_dirty()
            && self.file.try_lock().is_some_and(|file| file.stat.is_none())
    }

    /// Whether it was dropped and its file is gone, and the journal knows that: nothing of it is left but its name.
    pub fn is_dropped_for_good(&self) -> bool {
        self.is_dropped()
            && self.is_empty()
            && !self.is_dirty()
            && self.file.try_lock().is_some_and(|file| file.stat.is_none())
    }

    /// The Seq at which its file was taken as it is, which nothing knew; else zero.
    pub(super) fn taken_at(&self) -> Seq {
        self.taken_at
    }

    pub(super) fn is_announced(&self) -> bool {
        self.announced.load(Ordering::Acquire)
    }

    pub(super) fn set_announced(&self) {
        self.announced.store(true, Ordering::Release);
    }

    /// The record of a key.
    pub fn get(&self, key: &str) -> Option<Record> {
        self.map.read().get(key).cloned()
    }

    /// The records of several keys, as they are at one moment.
    pub fn get_many<K: AsRef<str>>(&self, keys: &[K]) -> Vec<Option<Record>> {
        let map = self.map.read();
        keys.iter().map(|key| map.get(key.as_ref()).cloned()).collect()
    }

    /// The record of a key, with what it is current by; both are of one moment.
    pub fn get_tagged(&self, key: &str) -> (Option<Record>, Option<Tag>) {
        let counts = self.counts_to_tag();
        let map = self.map.read();
        let record = map.get(key).cloned();
        (record, counts.and_then(|counts| self.tag(counts, key)))
    }

    /// The records of several keys, as they are at one moment, each with what it is current by; or none has that.
    pub fn get_many_tagged<K: AsRef<str>>(&self, keys: &[K]) -> (Vec<Option<Record>>, Vec<Tag>) {
        let counts = self.counts_to_tag();
        let map = self.map.read();
        let records = keys.iter().map(|key| map.get(key.as_ref()).cloned()).collect();
        let tag = |key: &K| counts.and_then(|counts| self.tag(counts, key.as_ref()));
        let tags: Option<Vec<Tag>> = keys.iter().map(tag).collect();
        (records, tags.unwrap_or_default())
    }

    /// A name that was only asked for uses up none of the counts that there are for namespaces.
    fn counts_to_tag(&self) -> Option<&dyn PlaceCounts> {
        self.counts.if_used().or_else(|| if self.is_blank() { None } else { self.counts() })
    }

    /// To be called with the map in hand.
    fn tag(&self, counts: &dyn PlaceCounts, key: &str) -> Option<Tag> {
        let tag = counts.tag(key);
        // After the counts: the next namespace of a dropped one's name moves the same ones, and begins when this is set.
        (!self.is_gone()).then_some(tag)
    }

    /// The indexes of the keys that have no record.
    pub fn filter_missing<K: AsRef<str>>(&self, keys: &[K]) -> Vec<u32> {
        let map = self.map.read();
        let is_missing = |(index, key): (usize, &K)| map.get(key.as_ref()).is_none().then_some(index as u32);
        keys.iter().enumerate().filter_map(is_missing).collect()
    }

    /// Whether a key has a record.
    pub fn contains(&self, key: &str) -> bool {
        self.map.read().get(key).is_some()
    }

    /// How many records there are.
    pub fn len(&self) -> u64 {
        self.map.read().len() as u64
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of keys and values.
    pub fn bytes(&self) -> u64 {
        self.map.read().bytes() as u64
    }

    /// Bytes that records and index take beside keys and values.
    pub fn overhead_bytes(&self) -> u64 {
        self.map.read().overhead_bytes() as u64
    }

    /// The next records in insertion order. Visits at most [`MAX_SCAN_VISITS`], so an empty page may have a next one.
    ///
    /// # Errors
    /// [`Error::CursorExpired`] for a cursor of an earlier load whose key is gone.
    pub fn scan(&self, query: &ScanQuery<'_>) -> Result<Page, Error> {
        let map = self.map.read();
        let after = match query.cursor {
            None => None,
            Some(cursor) if cursor.load == self.load => Some(cursor.ordinal),
            Some(cursor) => Some(map.get(cursor.key).ok_or(Error::CursorExpired)?.ordinal()),
        };
        let limit = if query.limit == 0 { usize::MAX } else { query.limit };
        let max_bytes = if query.max_bytes == 0 { usize::MAX } else { query.max_bytes };
        let (mut records, mut bytes, mut last) = (Vec::new(), 0, None);
        let end = map.scan(after, MAX_SCAN_VISITS, &mut |record| {
            last = Some(record.clone());
            if record.key().starts_with(query.prefix) {
                bytes += record.bytes();
                records.push(record.clone());
            }
            if records.len() >= limit || bytes >= max_bytes {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        let next = last.filter(|_| end.more).map(|record| NextPage {
            load: self.load,
            ordinal: record.ordinal(),
            key: record.key().to_owned(),
        });
        Ok(Page { records, next, seq: self.last() })
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("place", &self.place).field("load", &self.load).finish_non_exhaustive()
    }
}
