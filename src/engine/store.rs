//! The store: one directory, opened by its one owner.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use commonhold_proto::{Durability, Namespace, Place, Seq, StoreIdentity, Workspace};
use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};

use super::activity::Activity;
use super::catalogue::Slot;
use super::clock::{Clock, SystemClock};
use super::counts::Counted;
use super::disk::{Disk, RealDisk};
use super::error::Error;
use super::files::Files;
use super::flag_word::{FlagWords, clear_flags_if_clean};
use super::flush::{FlushHow, Flushed};
use super::growth::Growth;
use super::journal::{Extent, Losses, Lost, Numbers, Progress, Quarantine, Range, Tail, Traces};
use super::layout::Layout;
use super::once::VolatileOutcomes;
use super::opening::Opening;
use super::ownership::Ownership;
use super::poison::Poison;
use super::request::{WriteRequest, Written};
use super::rescue::{Rescue, Via};
use super::turn::Turn;
use super::upkeep::Seen;
use super::writer::{Batch, Results, Shared, Writer};
use crate::json::FileFormat;
use crate::lock::{FileLocks, Locks};

/// What may be chosen about a store when it is opened. None of it changes what its files mean.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// How far a write has got before it is answered and seen.
    pub durability: Durability,
    /// How namespace files are written; every form is read.
    pub file_format: FileFormat,
    /// How long a flush waits for another program that holds a namespace's flush lock.
    pub flush_lock_timeout: Duration,
    /// How many earlier files of each namespace are kept.
    pub keep: u32,
    /// A journal segment that has grown to this many bytes is followed by the next.
    pub segment_bytes: u64,
    /// How large the journal may grow before [`Store::to_relieve_the_journal`] names namespaces to flush; none is the
    /// larger of 256 MiB and half the data in memory. Segments are made so small that several of them are within it.
    pub journal_limit: Option<u64>,
    /// With [`Durability::Memory`], records wait in the daemon until they are more than this many bytes.
    pub buffer_bytes: usize,
    /// How many bytes of room are set aside for the journal at once, ahead of its records; 0 for none. A quarter as many
    /// stay free for deletes and clears on a disk that is full otherwise.
    pub room_bytes: u64,
    /// How many bytes of old records are kept for one reader of all records ([`Table::snapshot`](super::Table::snapshot))
    /// before its snapshot expires.
    pub snapshot_bytes: usize,
    /// Most bytes that records, indexes, old versions and the journal's buffer may take; a write that would need more is
    /// refused.
    pub max_memory: Option<u64>,
}

/// What the journal may grow to, however little data there is.
const JOURNAL_LIMIT: u64 = 256 << 20;
/// How many segments a journal within its limit has at least.
const SEGMENTS_WITHIN_LIMIT: u64 = 4;
/// No smaller segments are made, however low the limit.
const LEAST_SEGMENT_BYTES: u64 = 64 << 10;

impl StoreOptions {
    /// What the journal may grow to, however little data there is.
    pub(super) fn least_journal_limit(&self) -> u64 {
        self.journal_limit.unwrap_or(JOURNAL_LIMIT)
    }

    /// At how many bytes the next segment is begun.
    pub(super) fn change_segment_at(&self) -> u64 {
        let within = |limit: u64| (limit / SEGMENTS_WITHIN_LIMIT).max(LEAST_SEGMENT_BYTES);
        self.journal_limit.map_or(self.segment_bytes, |limit| self.segment_bytes.min(within(limit)))
    }
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            durability: Durability::Buffered,
            file_format: FileFormat::Lines,
            flush_lock_timeout: Duration::from_secs(30),
            keep: 2,
            segment_bytes: 64 << 20,
            journal_limit: None,
            buffer_bytes: 4 << 20,
            room_bytes: 4 << 20,
            snapshot_bytes: 64 << 20,
            max_memory: None,
        }
    }
}

/// What a store stands on. Tests pass their own.
#[derive(Clone)]
pub struct Surroundings {
    /// All file work goes through it.
    pub disk: Arc<dyn Disk>,
    /// Owner lock and flush locks.
    pub locks: Arc<dyn Locks>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// A random number: a new store's id is made of it.
    pub entropy: u128,
}

impl Surroundings {
    /// The real disk, locks, clock and randomness.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the operating system gives no random bytes.
    pub fn real() -> Result<Self, Error> {
        let mut entropy = [0; 16];
        getrandom::fill(&mut entropy)
            .map_err(|error| Error::Unavailable { reason: format!("the system gives no random bytes: {error}") })?;
        Ok(Self {
            disk: Arc::new(RealDisk),
            locks: Arc::new(FileLocks),
            clock: Arc::new(SystemClock::new()),
            entropy: u128::from_le_bytes(entropy),
        })
    }
}

/// An open store. Dropping it gives up the owner lock; what is not synced yet is then in the operating system's hands,
/// and what a store of [`Durability::Memory`] has not written yet is gone, as after a kill: [`Store::sync_through`] before.
pub struct Store {
    pub(super) layout: Layout,
    pub(super) options: StoreOptions,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) locks: Arc<dyn Locks>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) poison: Arc<Poison>,
    pub(super) progress: Arc<Progress>,
    pub(super) shared: Arc<Shared>,
    pub(super) numbers: Arc<Numbers>,
    pub(super) extent: Arc<Extent>,
    pub(super) growth: Growth,
    /// What the journal waits for, as it was when somebody last looked under the turn.
    pub(super) seen: Mutex<Seen>,
    pub(super) turn: Turn<Writer, Batch, Results>,
    /// What the journal held at the start: namespaces that are loaded later may need it.
    pub(super) ranges: Vec<Range>,
    /// The last write to each namespace in segments that had left the journal by then.
    pub(super) gone: HashMap<Place, Seq>,
    /// How the namespace files that segments wait for were found.
    pub(super) files: Mutex<Files>,
    /// Waiting records that lie outside the journal.
    pub(super) quarantines: Mutex<HashMap<Place, Quarantine>>,
    /// What was cut off a damaged journal, if it was to be.
    pub(super) losses: Option<Losses>,
    /// Whether the journal, or its end, was not there any more.
    pub(super) lost: Option<Lost>,
    /// What the names of kept files told.
    pub(super) traces: Traces,
    /// The end of the journal that a reader does not read and a start would set aside.
    pub(super) tail: Option<Tail>,
    pub(super) foreign_files: AtomicU64,
    /// Workspaces whose directories' names are known to be on the platter, with the device and inode of each directory.
    pub(super) durable_workspaces: Mutex<HashMap<Workspace, (u64, u64)>>,
    pub(super) namespaces: RwLock<HashMap<Place, Arc<Slot>>>,
    /// The name by which each of them is known, whatever the letter case it is asked for in.
    pub(super) folded: Mutex<HashMap<Place, Namespace>>,
    /// What each of them has cost, whether it is loaded or not.
    pub(super) activities: Mutex<HashMap<Place, Arc<Activity>>>,
    pub(super) flag_words: Mutex<FlagWords>,
    /// Who counts changes for clients that keep values.
    pub(super) counted: Counted,
    pub(super) volatile_outcomes: VolatileOutcomes,
    pub(super) loads: AtomicU64,
    pub(super) identity: StoreIdentity,
    pub(super) boot: u64,
    pub(super) opening: Opening,
    pub(super) ownership: Arc<Ownership>,
    /// The segment that was appended to lost its name: what the journal held is in memory alone.
    pub(super) journal_was_taken: AtomicBool,
    pub(super) rescue: Mutex<Rescue>,
    pub(super) rescue_report: Mutex<Option<String>>,
    pub(super) read_only: bool,
}

impl Store {
    /// Commits one session's consecutive writes, in their order, and returns what became of each.
    ///
    /// It waits its turn, shares the journal's write with whoever waits beside it, and returns when every request is
    /// as durable as the store promises, or as the request asked if that is more.
    ///
    /// While the disk is so slow that a record has been unsynced for more than two seconds, it waits for that first.
    pub fn write(&self, requests: Vec<WriteRequest>) -> Vec<Result<Written, Error>> {
        if requests.iter().any(WriteRequest::is_volatile) {
            return self.write_mixed(requests);
        }
        self.write_persistent(requests)
    }

    fn write_persistent(&self, requests: Vec<WriteRequest>) -> Vec<Result<Written, Error>> {
        // Before anything is held: the flushes that are waited for may need it.
        let admitted = self.growth.admit(requests.iter().map(WriteRequest::weight).sum(), &self.extent);
        let results = self.write_admitted(requests);
        drop(admitted);
        self.shared.feed.ring();
        self.look_at_growth();
        results
    }

    fn write_admitted(&self, requests: Vec<WriteRequest>) -> Vec<Result<Written, Error>> {
        if let Err(error) = self.progress.wait_while_behind() {
            return requests.iter().map(|_| Err(error.repeat())).collect();
        }
        for request in &requests {
            for table in request.tables.iter().filter(|table| !table.is_announced()) {
                if let Err(error) = self.announce(table, &mut table.file.lock(), &self.via()) {
                    return requests.iter().map(|_| Err(error.repeat())).collect();
                }
            }
        }
        let asks_more = |request: &WriteRequest| {
            request.durability == Some(Durability::Synced) && self.options.durability != Durability::Synced
        };
        // Nearly never does one: then there is nothing to remember.
        let more: Vec<bool> =
            if requests.iter().any(asks_more) { requests.iter().map(asks_more).collect() } else { Vec::new() };
        let mut results = self.turn.submit(Batch(requests), Writer::commit);
        let last = results.iter().zip(&more).filter(|(_, more)| **more).filter_map(|(result, _)| result.as_ref().ok());
        if let Some(last) = last.map(|written| written.seq).max()
            && let Err(error) = self.progress.sync_through(last)
        {
            let reason = error.to_string();
            for (result, _) in results.iter_mut().zip(more).filter(|(result, more)| *more && result.is_ok()) {
                *result = Err(Error::OutcomeUnknown { reason: reason.clone() });
            }
        }
        results
    }

    /// Whether a write can be answered as soon as it is in the journal: the store does not sync for it alone, and neither
    /// is it the first to a namespace that was loaded.
    pub fn needs_no_sync_of_its_own(&self, request: &WriteRequest) -> bool {
        let asks_more = request.durability == Some(Durability::Synced) && self.options.durability != Durability::Synced;
        request.is_volatile() || !asks_more && request.tables.iter().all(|table| table.is_announced())
    }

    /// Frees what large requests have replaced. To be called when they are answered, while their clients do something else; what nobody
    /// calls it for is freed by the next large request, or the next tick.
    pub fn free_replaced(&self) {
        self.shared.memory.free_replaced();
    }

    /// Whether it is the first to a namespace that was loaded: the journal is then told of the file, and synced, before it.
    pub fn is_first_write(&self, request: &WriteRequest) -> bool {
        !request.is_volatile() && request.tables.iter().any(|table| !table.is_announced())
    }

    /// Also where nothing was to be done: an `Ok` would promise what nobody sees to.
    pub(super) fn refuse_if_read_only(&self) -> Result<(), Error> {
        if self.read_only { self.poison.check() } else { Ok(()) }
    }

    /// What the opening found and did.
    pub fn opening(&self) -> &Opening {
        &self.opening
    }

    /// Which directory this is.
    pub fn identity(&self) -> StoreIdentity {
        self.identity
    }

    /// How often the store has been opened, this time included.
    pub fn boot(&self) -> u64 {
        self.boot
    }

    /// The store's directory, as it was given.
    pub fn dir(&self) -> &Path {
        self.layout.root()
    }

    /// What was chosen when the store was opened.
    pub fn options(&self) -> &StoreOptions {
        &self.options
    }

    /// What the namespace at `place` has cost; nothing yet if it was never loaded.
    pub(super) fn activity(&self, place: &Place) -> Arc<Activity> {
        let new = || Arc::new(Activity::new(Arc::clone(&self.clock), self.flag_word(place)));
        Arc::clone(self.activities.lock().entry(place.clone()).or_insert_with(new))
    }

    /// Seconds since 1970, by the clock that the store was given.
    pub fn unix_s(&self) -> u64 {
        self.clock.unix_ms() / 1_000
    }

    pub(super) fn next_load(&self) -> u64 {
        self.loads.fetch_add(1, Ordering::Relaxed)
    }

    /// The last Seq whose effects readers see.
    pub fn applied(&self) -> Seq {
        self.shared.applied()
    }

    /// The last Seq on the platter.
    pub fn synced(&self) -> Seq {
        self.progress.synced()
    }

    /// Returns when everything through `seq` is on the platter, and says how far that has got. Callers share syncs.
    ///
    /// # Errors
    /// [`Error::OutcomeUnknown`] when the sync fails, [`Error::Unavailable`] after that.
    pub fn sync_through(&self, seq: Seq) -> Result<Seq, Error> {
        self.refuse_if_read_only()?;
        self.write_out()?;
        // Seqs that were burnt after the last record never reach the journal.
        let target = seq.min(self.progress.written());
        self.progress.sync_through(target).map(|synced| synced.max(seq))
    }

    /// Hands what waits in the journal's buffer to the operating system.
    pub(super) fn write_out(&self) -> Result<(), Error> {
        if self.progress.appended() <= self.progress.written() {
            return Ok(());
        }
        self.turn.exclusive(|writer| {
            let written = writer.appender.write_out();
            writer.count_buffer();
            written
        })
    }

    /// Brings the namespace's file up to date with everything applied before this call.
    ///
    /// # Errors
    /// [`Error::FlushLockTimeout`], [`Error::Disk`], [`Error::Full`], [`Error::Unavailable`], [`Error::NeedsRepair`]:
    /// the file is as it was or as it was to become, and nothing is lost.
    pub fn flush(&self, place: &Place, how: FlushHow) -> Result<Flushed, Error> {
        self.refuse_if_read_only()?;
        if self.is_volatile(place) {
            return Err(Error::Volatile { place: place.to_string(), what: "flushed".to_owned() });
        }
        let table = self.namespace(place)?;
        let flushed = match self.flush_table(&table, how, &self.via()) {
            // What a full disk has left may be what the journal holds for what frees some, and that is what this does.
            Err(Error::Full { .. }) if self.lend_room() => self.flush_table(&table, how, &self.via())?,
            flushed => flushed?,
        };
        clear_flags_if_clean(&table);
        // On a full disk, writes are to go on as soon as that is possible. What ends writing here is told to the next one.
        let _ = self.give_room_back();
        self.look_at_growth();
        Ok(flushed)
    }

    /// Notes for [`Table::failed_flush`](super::Table::failed_flush) how a flush has ended: why it failed, if it did.
    pub fn flush_ended(&self, place: &Place, failed: Option<String>) {
        let activity = self.activities.lock().get(place).cloned();
        if let Some(activity) = activity {
            activity.flush_ended(failed);
        }
    }

    pub(super) fn via(&self) -> Via {
        Via { poison: Arc::clone(&self.poison), progress: Arc::clone(&self.progress) }
    }

    /// Why writes are refused, if they are, and what became of what was in memory then.
    pub fn refuses_writes(&self) -> Option<String> {
        let reason = self.poison.reason()?;
        let report = self.rescue_report.lock().as_ref().map_or_else(String::new, |report| format!("; {report}"));
        Some(format!("{reason}{report}"))
    }

    /// What the data takes in memory, and the most that it may.
    pub fn memory(&self) -> (u64, Option<u64>) {
        (self.shared.memory.gauge.bytes(), self.shared.memory.limit)
    }

    /// Sees that the owner lock is the file that we hold.
    pub(super) fn check_owner(&self) -> Result<(), Error> {
        self.ownership.check()?;
        self.poison.check()
    }
}
