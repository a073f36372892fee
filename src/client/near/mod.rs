//! Values that a client has read, kept in its process, and served again for as long as the daemon's version table says that
//! they are current. `docs/near-cache.md` tells why that is linearizable.
//!
//! All clones of a client share one, and all threads. A hit is one look-up in one of several pieces, each behind a lock of
//! its own, and a few atomic loads: that the connection is up ([`Link`]), that no write of this client to that key is
//! under way ([`OwnWrites`]), and that the value's counts are what they were.

mod hangups;
mod held;
mod own_writes;
mod shard;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use commonhold_proto::Tag;
use commonhold_proto::limits::MAX_OPERATIONS;
use parking_lot::Mutex;

use super::core::Reply;
use super::target::Target;
use crate::ipc::{SocketName, Stream};
use crate::versions::Reader;
use hangups::Watched;
pub(super) use held::Held;
pub(super) use own_writes::{Mark, OwnWrites};
pub(super) use shard::Found;
use shard::Shard;

/// In so many pieces a cache lies; a value that is larger than one of them is not kept.
const SHARDS: usize = 16;

/// What came of looking for one value.
pub(super) enum Looked {
    /// It is kept, or was answered to be kept; none is that there is no such record.
    Kept(Option<Held>),
    /// Nothing is kept: this is the answer.
    Answered(Reply),
}

/// What a client's cache has done and holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Whether values can be kept now: there is a connection, and the daemon's table can be looked at.
    pub on: bool,
    /// Values that were served without asking the daemon, absences included.
    pub hits: u64,
    /// Values that had to be asked for.
    pub misses: u64,
    /// Values that are kept, current or not.
    pub entries: usize,
    /// What they take, keys and overhead included.
    pub bytes: usize,
    /// What they may take.
    pub limit_bytes: usize,
}

/// The table that belongs to a connection, and whether that is up.
#[derive(Debug)]
pub(super) struct Link {
    reader: Arc<Reader>,
    /// False for good once the connection was found to be gone: the *broken* word.
    up: Arc<AtomicBool>,
    /// Ends the watch of the socket when the link ends.
    _watched: Watched,
}

impl Link {
    #[inline]
    fn is_up(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Near {
    /// What nobody outside can know, so that nobody can choose keys that meet in one place.
    secret: u64,
    /// None if it is off.
    shards: Option<Box<[Mutex<Shard>; SHARDS]>>,
    limit_bytes: usize,
    link: Mutex<Option<Arc<Link>>>,
    own_writes: Arc<OwnWrites>,
}

impl Near {
    /// An empty one of at most so many bytes; of 0, it is off.
    pub(super) fn new(limit_bytes: usize) -> Self {
        let shard = |_| Mutex::new(Shard::within(limit_bytes / SHARDS));
        Self {
            secret: RandomState::new().hash_one(0),
            shards: (limit_bytes > 0).then(|| Box::new(std::array::from_fn(shard))),
            limit_bytes,
            link: Mutex::new(None),
            own_writes: Arc::default(),
        }
    }

    /// Whether anything can be kept or served now.
    pub(super) fn is_on(&self) -> bool {
        self.shards.is_some() && self.link.lock().as_ref().is_some_and(|link| link.is_up())
    }

    /// The client's writes that are under way are told here.
    pub(super) fn own_writes(&self) -> Option<Arc<OwnWrites>> {
        self.shards.as_ref().map(|_| Arc::clone(&self.own_writes))
    }

    /// A connection was made, to a daemon whose table has this nonce.
    pub(super) fn connected(&self, name: &SocketName, nonce: u64, stream: &Stream) {
        let Some(shards) = &self.shards else { return };
        let mut current = self.link.lock();
        let before = current.take();
        let known = before.as_ref().map(|link| Arc::clone(&link.reader)).filter(|reader| reader.nonce() == nonce);
        let is_new = known.is_none();
        let reader = known.or_else(|| table(name, nonce).map(Arc::new));
        *current = reader.and_then(|reader| {
            let up = Arc::new(AtomicBool::new(true));
            // A connection that nobody watches could be gone for long before it is noticed: nothing is kept on it.
            let watched = hangups::watch(stream, &up)?;
            Some(Arc::new(Link { reader, up, _watched: watched }))
        });
        for shard in &**shards {
            let mut shard = shard.lock();
            shard.link.clone_from(&current);
            if is_new {
                shard.clear();
            }
        }
    }

    /// The connection is gone.
    pub(super) fn lost(&self) {
        if self.shards.is_some()
            && let Some(link) = &*self.link.lock()
        {
            link.up.store(false, Ordering::Release);
        }
    }

    /// The value of a key, or its absence, if that is known to be current.
    #[inline]
    pub(super) fn find(&self, target: &Target, key: &str) -> Option<Found> {
        let hash = self.hash_of(target, key);
        let mut shard = self.shard(hash)?.lock();
        let found = if self.own_writes.are_done_to(key, target) { shard.find(hash, target, key) } else { None };
        let counter = if found.is_some() { &mut shard.hits } else { &mut shard.misses };
        *counter += 1;
        found
    }

    /// Keeps what the daemon has answered.
    pub(super) fn keep(&self, target: &Arc<Target>, key: &str, value: Option<&Held>, tag: Option<Tag>) {
        let hash = self.hash_of(target, key);
        if let Some(tag) = tag
            && let Some(shard) = self.shard(hash)
        {
            shard.lock().keep(hash, target, key, value, tag);
        }
    }

    /// Keeps what the daemon has answered for several keys, if it has told by what.
    pub(super) fn keep_many(
        &self,
        target: &Arc<Target>,
        keys: &[impl AsRef<str>],
        values: &[Option<Held>],
        tags: &[Tag],
    ) {
        for ((key, value), tag) in keys.iter().zip(values).zip(tags) {
            self.keep(target, key.as_ref(), value.as_ref(), Some(*tag));
        }
    }

    /// What is known of several keys.
    pub(super) fn gather(&self, target: &Target, keys: &[impl AsRef<str>]) -> Gathered {
        let (mut values, mut found_at, mut missing) = (Vec::with_capacity(keys.len()), Vec::new(), Vec::new());
        for (index, key) in keys.iter().enumerate() {
            if let Some(found) = self.find(target, key.as_ref()) {
                values.push(found.value);
                found_at.push((found.tag, found.place, found.slot));
            } else {
                values.push(None);
                missing.push(index);
            }
        }
        let link = self.link.lock().clone();
        Gathered { values, missing, found_at, link }
    }

    /// The flag word of a namespace can be looked at from here on, if what the daemon told between `before` and now is of
    /// the table's epoch. See [`epoch`](Self::epoch).
    pub(super) fn flag_of(&self, target: &Target, before: Option<u64>) -> Option<SharedFlag> {
        let link = self.link.lock().clone().filter(|link| link.is_up())?;
        let epoch = before.filter(|before| link.reader.epoch() == Some(*before))?;
        let entry = link.reader.entry_of(target.name())?;
        Some(SharedFlag { link, entry, epoch })
    }

    /// The table's epoch: what is told by a daemon between two looks at it that find the same is of that epoch.
    pub(super) fn epoch(&self) -> Option<u64> {
        self.link.lock().as_ref().filter(|link| link.is_up())?.reader.epoch()
    }

    /// Whether a write of this client is under way.
    pub(super) fn is_writing(&self) -> bool {
        self.own_writes.are_some_open()
    }

    pub(super) fn stats(&self) -> CacheStats {
        let mut stats = CacheStats { on: self.is_on(), limit_bytes: self.limit_bytes, ..CacheStats::default() };
        for shard in self.shards.iter().flat_map(|shards| shards.iter()) {
            let shard = shard.lock();
            stats.hits += shard.hits;
            stats.misses += shard.misses;
            stats.entries += shard.entries();
            stats.bytes += shard.bytes();
        }
        stats
    }

    #[inline]
    fn hash_of(&self, target: &Target, key: &str) -> u64 {
        target.name().hash_of(key, self.secret)
    }

    #[inline]
    fn shard(&self, hash: u64) -> Option<&Mutex<Shard>> {
        // Bits from the middle: the lowest and the highest choose the place within a shard.
        self.shards.as_ref().map(|shards| &shards[(hash >> 40) as usize % SHARDS])
    }
}

/// What a cache knew of several keys, each at a moment of its own.
pub(super) struct Gathered {
    /// In the order of the keys; what is missing is none here.
    pub(super) values: Vec<Option<Held>>,
    /// The indexes of the keys that must be asked for, rising.
    pub(super) missing: Vec<usize>,
    found_at: Vec<(Tag, u32, u32)>,
    link: Option<Arc<Link>>,
}

impl Gathered {
    /// The keys that are missing; none if all are, which is no use, or if there are more than may be asked for together.
    pub(super) fn to_ask_for<'k>(&self, keys: &'k [impl AsRef<str>]) -> Option<Vec<&'k str>> {
        let useful = self.missing.len() < keys.len() && keys.len() <= MAX_OPERATIONS;
        useful.then(|| self.missing.iter().map(|&index| keys[index].as_ref()).collect())
    }

    /// Puts what was asked for where it was missing.
    pub(super) fn fill(&mut self, values: Vec<Option<Held>>) {
        for (&index, value) in self.missing.iter().zip(values) {
            self.values[index] = value;
        }
    }

    /// Whether all that was found is current still: then it was so together, at the moment of the last of them and at that
    /// of whatever has been asked for since.
    pub(super) fn is_current(&self) -> bool {
        let current = |link: &Arc<Link>| {
            let is_current =
                |(tag, place, slot): &(Tag, u32, u32)| link.reader.is_current(tag, *place as usize, *slot as usize);
            self.found_at.iter().all(is_current) && link.is_up()
        };
        self.found_at.is_empty() || self.link.as_ref().is_some_and(current)
    }
}

/// A flag word in the table.
#[derive(Clone, Debug)]
pub(super) struct SharedFlag {
    link: Arc<Link>,
    entry: usize,
    epoch: u64,
}

impl SharedFlag {
    /// The word, if the connection is up on which it was learned where it is.
    #[inline]
    pub(super) fn word(&self) -> Option<u64> {
        let word = self.link.reader.flag_word(self.entry, self.epoch)?;
        self.link.is_up().then_some(word)
    }
}

#[cfg(all(test, feature = "daemon", target_os = "linux"))]
#[path = "tests.rs"]
mod tests;

/// The table of the daemon behind this name.
fn table(name: &SocketName, nonce: u64) -> Option<Reader> {
    Reader::open(name.identity().ok()?, name.owner().ok()?, nonce)
}
