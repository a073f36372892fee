//! What was changed last, for those who watch: where a write becomes visible, what it did is kept here, in memory, bounded.
//!
//! ```text
//!   write ── … ── map ── channel of the namespace ── turn passed on ── bell ── whoever serves the watchers
//! ```
//!
//! There is a [`Channel`] for each namespace that is watched, and none otherwise: a write to a store that nobody watches pays
//! one load. A channel holds the newest changes, as the records that the map holds, too; how many watchers there are is nothing
//! to the writer. All changes of the namespace above the channel's floor are in it. Whoever is behind that reads the
//! journal ([`watch`](super::watch)); nobody ever waits for a watcher.
//!
//! Within a namespace changes enter in the order of their Seqs: the writer's turn sees to that or, where it is volatile, its
//! own order. The bell is rung when the turn has been passed on.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use commonhold_proto::message::Kind;
use commonhold_proto::{Place, Seq};
use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};

use super::evaluate::Effect;
use super::journal::EffectKind;
use super::map::Record;
use super::memory::{Gauge, Held};
use super::news::{Mark, News, Newsworthy};
use super::table::Table;

/// What all channels together hold, about.
const FEED_BYTES: usize = 8 << 20;
/// However many channels there are, each may hold so much.
const LEAST_CHANNEL_BYTES: usize = 16 << 10;
/// What a change takes beside its record.
const CHANGE_BYTES: usize = 24;
/// What a write takes beside its changes.
const TOLD_BYTES: usize = 96;
/// A channel without watchers is kept for so many ticks of the store, for those who only lost their connection.
const LINGERS_TICKS: u32 = 30;

/// What one write did to one namespace.
#[derive(Debug)]
pub struct Told {
    /// The write.
    pub seq: Seq,
    /// In the order in which they are to be done.
    pub changes: Box<[TellChange]>,
}

/// One change of a namespace.
#[derive(Clone, Debug)]
pub enum TellChange {
    /// The key has this record now.
    Put(Record),
    /// The key has none any more. The record is without a value.
    Delete(Record),
    /// There are no records any more.
    Clear,
    /// As [`Clear`](Self::Clear), and there is to be no file.
    Drop,
}

impl TellChange {
    /// About how many bytes it takes on its way.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Put(record) | Self::Delete(record) => CHANGE_BYTES + record.bytes(),
            Self::Clear | Self::Drop => CHANGE_BYTES,
        }
    }

    /// Whether it touches keys that begin so. What happens to all keys does.
    pub(super) fn touches(&self, prefix: &str) -> bool {
        match self {
            Self::Put(record) | Self::Delete(record) => record.key().starts_with(prefix),
            Self::Clear | Self::Drop => true,
        }
    }

    /// Adds what an effect comes to.
    pub(super) fn add(out: &mut Vec<Self>, kind: EffectKind, record: Option<Record>) {
        match (kind, record) {
            (EffectKind::Put, Some(record)) => out.push(Self::Put(record)),
            // Who keeps a map in order is to take the key out first.
            (EffectKind::PutAtEnd, Some(record)) => out.extend([Self::Delete(record.clone()), Self::Put(record)]),
            (EffectKind::Delete, Some(record)) => out.push(Self::Delete(record)),
            (EffectKind::Clear, _) => out.push(Self::Clear),
            (EffectKind::Drop, _) => out.push(Self::Drop),
            (_, None) => {}
        }
    }
}

/// All channels of a store.
pub(super) struct Feed {
    /// How many channels there are.
    count: AtomicUsize,
    channels: RwLock<HashMap<(Place, Kind), Arc<Channel>>>,
    /// Those in which something came that nobody was told of yet.
    news: News<Arc<Channel>>,
    bell: OnceLock<Box<dyn Fn() + Send + Sync>>,
    gauge: Gauge,
}

/// The newest changes of one namespace that is watched.
pub(super) struct Channel {
    number: u64,
    ring: Mutex<Ring>,
    mark: Mark,
    watchers: AtomicUsize,
    idle_ticks: AtomicU32,
}

struct Ring {
    told: VecDeque<Arc<Told>>,
    bytes: usize,
    /// All changes above it are there.
    floor: Seq,
    held: Held,
}

static NUMBERS: AtomicU64 = AtomicU64::new(1);

impl Newsworthy for Arc<Channel> {
    fn mark(&self) -> &Mark {
        &self.mark
    }
}

impl Channel {
    /// One watcher less.
    pub(super) fn leave(&self) {
        self.idle_ticks.store(0, Ordering::Relaxed);
        self.watchers.fetch_sub(1, Ordering::Relaxed);
    }

    /// No other channel has it.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// All changes above it are there.
    pub(super) fn floor(&self) -> Seq {
        self.ring.lock().floor
    }

    /// The last write that is there, or that came before all of them.
    pub(super) fn newest(&self) -> Seq {
        let ring = self.ring.lock();
        ring.told.back().map_or(ring.floor, |told| told.seq)
    }

    /// The next writes after `at`, so many at most; or the floor, if some of them are not there any more.
    pub(super) fn after(&self, at: Seq, most: usize) -> Result<Vec<Arc<Told>>, Seq> {
        let ring = self.ring.lock();
        if at < ring.floor {
            return Err(ring.floor);
        }
        let first = ring.told.partition_point(|told| told.seq <= at);
        Ok(ring.told.range(first..).take(most).cloned().collect())
    }

    fn tell(&self, seq: Seq, changes: Vec<TellChange>, most: usize) {
        let bytes = |told: &Told| TOLD_BYTES + told.changes.iter().map(TellChange::bytes).sum::<usize>();
        let told = Arc::new(Told { seq, changes: changes.into_boxed_slice() });
        let mut old = Vec::new();
        let mut ring = self.ring.lock();
        ring.bytes += bytes(&told);
        ring.told.push_back(told);
        // The newest stays, however large: it is in the map, too.
        while ring.bytes > most && ring.told.len() > 1 {
            let Some(oldest) = ring.told.pop_front() else { break };
            ring.bytes -= bytes(&oldest);
            ring.floor = oldest.seq;
            old.push(oldest);
        }
        let bytes = ring.bytes;
        ring.held.set(bytes);
        drop(ring);
        // What is freed is freed here, where nobody who reads waits for it.
        drop(old);
    }
}

/// The channels of the namespaces that a write touches, and what it does to each of them.
pub(super) struct Telling<'a> {
    feed: &'a Feed,
    /// By the write's own numbers of the namespaces.
    channels: Vec<Option<(Arc<Channel>, Vec<TellChange>)>>,
}

impl Feed {
    pub(super) fn measured(gauge: &Gauge) -> Self {
        Self {
            count: AtomicUsize::new(0),
            channels: RwLock::default(),
            news: News::new(),
            bell: OnceLock::new(),
            gauge: gauge.clone(),
        }
    }

    /// The channel of a namespace; begun now, above `floor`, if there is none. To be called by whoever keeps the namespace's writes
    /// away.
    pub(super) fn open(&self, table: &Table, floor: Seq) -> Arc<Channel> {
        let mut channels = self.channels.write();
        let channel = channels.entry((table.place().clone(), table.kind())).or_insert_with(|| {
            let ring = Ring { told: VecDeque::new(), bytes: 0, floor, held: Held::of(&self.gauge) };
            Arc::new(Channel {
                number: NUMBERS.fetch_add(1, Ordering::Relaxed),
                ring: Mutex::new(ring),
                mark: Mark::new(),
                watchers: AtomicUsize::new(0),
                idle_ticks: AtomicU32::new(0),
            })
        });
        channel.watchers.fetch_add(1, Ordering::Relaxed);
        let channel = Arc::clone(channel);
        self.count.store(channels.len(), Ordering::Relaxed);
        channel
    }

    /// What all of them hold, about.
    pub(super) fn kept_bytes(&self) -> u64 {
        self.channels.read().values().map(|channel| channel.ring.lock().bytes as u64).sum()
    }

    /// Lets go of channels that nobody has watched for a while.
    pub(super) fn tick(&self) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut channels = self.channels.write();
        channels.retain(|_, channel| {
            channel.watchers.load(Ordering::Relaxed) > 0
                || channel.idle_ticks.fetch_add(1, Ordering::Relaxed) < LINGERS_TICKS
        });
        self.count.store(channels.len(), Ordering::Relaxed);
        self.news.keep_only(|channel| channel.watchers.load(Ordering::Relaxed) > 0);
    }

    /// What is to be told of a write to these namespaces; none if nobody watches any of them.
    ///
    /// The load is relaxed: who begins to watch does so in the writers' order, and the lock that makes it one shows it.
    pub(super) fn begin(&self, tables: &[Arc<Table>]) -> Option<Telling<'_>> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let known = self.channels.read();
        let channel = |table: &Arc<Table>| {
            let channel = known.get(&(table.place().clone(), table.kind()))?;
            Some((Arc::clone(channel), Vec::new()))
        };
        let channels: Vec<_> = tables.iter().map(channel).collect();
        channels.iter().any(Option::is_some).then_some(Telling { feed: self, channels })
    }

    /// Says whom to tell that there are [`news`](Self::take_news). The first one stays.
    pub(super) fn ring_by(&self, bell: Box<dyn Fn() + Send + Sync>) {
        let _ = self.bell.set(bell);
    }

    /// Rings, if something came since the last time. Not under the turn.
    pub(super) fn ring(&self) {
        if self.news.is_any()
            && let Some(bell) = self.bell.get()
        {
            bell();
        }
    }

    /// The channels in which something came.
    pub(super) fn take_news(&self) -> Vec<Arc<Channel>> {
        self.news.take()
    }
}

impl Telling<'_> {
    /// Takes note of an effect, as it is applied.
    pub(super) fn note(&mut self, effect: &Effect) {
        if let Some((_, changes)) = &mut self.channels[usize::from(effect.table)]
            && let Some(kind) = effect.kind
        {
            TellChange::add(changes, kind, effect.record.clone());
        }
    }

    /// Takes note of a drop of the only namespace.
    pub(super) fn note_drop(&mut self) {
        for (_, changes) in self.channels.iter_mut().flatten() {
            changes.push(TellChange::Drop);
        }
    }

    /// The write is visible: it is told.
    pub(super) fn tell(self, seq: Seq) {
        let share = FEED_BYTES / self.feed.count.load(Ordering::Relaxed).max(1);
        for (channel, changes) in self.channels.into_iter().flatten().filter(|(_, changes)| !changes.is_empty()) {
            channel.tell(seq, changes, share.max(LEAST_CHANNEL_BYTES));
            self.feed.news.add(channel);
        }
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("number", &self.number).finish_non_exhaustive()
    }
}
