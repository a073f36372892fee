//! Opening a store: becoming its owner, reading what owners before have left, and loading what waits.
//!
//! What a start found is kept as [`Opening`] and told in the log and in `status`, so that nothing is put right behind
//! anybody's back.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use commonhold_proto::{Place, Seq, StoreIdentity};
use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};

use super::catalogue::{Slot, State, fold};
use super::disk::{Disk, Kind, ReadOnlyDisk, Stat};
use super::error::Error;
use super::files::Files;
use super::growth::Growth;
use super::housekeeping::{make_private_directories, remove_temporaries};
use super::journal::{
    Fresh, Lost, OpenJournal, Range, Reading, Tail, continue_journal_or_wait, mark_if_not_begun, read_journal,
};
use super::layout::Layout;
use super::once::VolatileOutcomes;
use super::ownership::Ownership;
use super::poison::Poison;
use super::store::{Store, StoreOptions, Surroundings};
use super::turn::Turn;
use super::writer::{Shared, Writer};
use crate::lock::Holder;

/// What the opening of a store found and did.
#[derive(Clone, Debug, Default)]
pub struct Opening {
    /// Namespaces that had writes which no file held yet; they were loaded and the writes applied.
    pub recovered: Vec<Place>,
    /// Records that were copied into the new journal segment, because they were not known to be on the platter.
    pub copied_records: u64,
    /// An owner before has been here, and its journal is not: what only the journal held is lost.
    pub journal_is_gone: bool,
    /// Kept files have greater Seqs than this, the last of the journal: it has lost its end, or is an older one.
    pub journal_ends_at: Option<Seq>,
    /// The unsynced end of an interrupted write, set aside.
    pub set_aside: Option<SetAside>,
    /// Namespaces that would not open, and why.
    pub closed: Vec<(Place, String)>,
    /// Temporary files of earlier owners that were removed.
    pub temporaries_removed: Vec<PathBuf>,
    /// The last Seq that was found in the journal or given out before.
    pub last: Seq,
}

/// A tail that was cut off the journal. It had not been synced: it is what a power cut or a full disk interrupted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// The segment it was cut off from.
    pub segment: PathBuf,
    /// From which byte on.
    pub offset: u64,
    /// How many bytes. They are kept in `.commonhold/journal/aside/`.
    pub bytes: u64,
}

/// What an opening comes by, one way or the other, and makes a store of.
struct Found {
    layout: Layout,
    stat: Stat,
    ownership: Arc<Ownership>,
    poison: Arc<Poison>,
    journal: OpenJournal,
    opening: Opening,
}

impl Store {
    /// Opens the store at `dir` and becomes its owner. `.commonhold` is made where it is missing; namespaces with
    /// writes that no file holds yet are loaded, the others at first use.
    ///
    /// # Errors
    /// [`Error::Owned`] by another, [`Error::Damage`] in the journal, [`Error::NewerFormat`], [`Error::NotADirectory`],
    /// [`Error::Disk`]. After an error nothing that was readable before is gone. A disk without room for the next piece of
    /// journal is no error: reads are served, writes refused as [`Error::NoRoomToBegin`] until [`tick`](Self::tick) finds
    /// some.
    pub fn open(dir: &Path, options: StoreOptions, around: Surroundings) -> Result<Self, Error> {
        Self::open_reading(dir, options, around, Reading::Strict)
    }

    /// As [`open`](Self::open); a damaged journal is cut at its last good record where `reading` says so.
    pub(super) fn open_reading(
        dir: &Path,
        options: StoreOptions,
        around: Surroundings,
        reading: Reading,
    ) -> Result<Self, Error> {
        let layout = Layout::new(dir);
        let disk = Arc::clone(&around.disk);
        let stat = stat_of_directory(&*disk, dir)?;
        make_private_directories(&*disk, &layout)?;
        let earlier =
            disk.read(&layout.owner_lock()).ok().and_then(|text| serde_json::from_slice::<Holder>(&text).ok());
        if earlier.is_none() {
            mark_if_not_begun(&*disk, &layout)?;
        }
        let owner = around.locks.own(&layout.owner_lock())?;

        let poison = Arc::new(Poison::default());
        let ownership = Arc::new(Ownership::new(Some(owner), layout.owner_lock(), Arc::clone(&poison)));
        let fresh = Fresh {
            store: around.entropy,
            segment_bytes: options.change_segment_at(),
            buffer_bytes: options.buffer_bytes,
            room_bytes: options.room_bytes,
            clock: Arc::clone(&around.clock),
            ownership: Arc::clone(&ownership),
            had_owner: earlier.is_some(),
            reading,
        };
        let mut journal = continue_journal_or_wait(&disk, &layout, &poison, &fresh)?;
        let (at, journal_is_gone) = (layout.journal(), journal.lost == Some(Lost::Whole));
        match journal.lost {
            Some(Lost::Whole) => {
                tracing::warn!(journal = %at.display(), "the journal of an earlier owner is gone: the files are taken as they are, and what only the journal held is lost");
            }
            Some(Lost::End(end)) => {
                tracing::warn!(journal = %at.display(), %end, "kept files, or the note of the last clean end, have greater sequence numbers than the journal: its end was cut off, or it is an older one that was put back, and what only its end held is lost");
            }
            None => {}
        }
        let set_aside = |tail: Tail| SetAside { segment: tail.segment, offset: tail.offset, bytes: tail.bytes };
        let opening = Opening {
            copied_records: journal.copied,
            journal_is_gone,
            journal_ends_at: if let Some(Lost::End(end)) = journal.lost { Some(end) } else { None },
            set_aside: journal.tail.take().map(set_aside),
            temporaries_removed: remove_temporaries(&*disk, &*around.clock, &layout, earlier)?,
            ..Opening::default()
        };
        Self::assemble(options, around, Found { layout, stat, ownership, poison, journal, opening }, reading)
    }

    /// Opens the store at `dir` to read it, and changes nothing on the disk but what taking the owner lock writes into
    /// its own file. What is read is what [`open`](Self::open) would give: files, and the journal through its last good
    /// record. Where there is no `.commonhold`, none is made, and there is no owner lock to take.
    ///
    /// Writes, flushes and syncs are refused as [`Error::Unavailable`]. [`opening`](Self::opening) tells which namespaces
    /// had waiting records or are closed, and of nothing done.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_read_only(dir: &Path, around: Surroundings) -> Result<Self, Error> {
        Self::open_read_only_reading(dir, around, Reading::Strict)
    }

    /// As [`open_read_only`](Self::open_read_only); a damaged journal counts up to its last good record where `reading` says so.
    pub(super) fn open_read_only_reading(dir: &Path, around: Surroundings, reading: Reading) -> Result<Self, Error> {
        let layout = Layout::new(dir);
        let disk: Arc<dyn Disk> = Arc::new(ReadOnlyDisk(Arc::clone(&around.disk)));
        let stat = stat_of_directory(&*disk, dir)?;
        let private = layout.private();
        // Before the lock is taken, which writes into it.
        let had_owner = disk.read(&layout.owner_lock()).is_ok_and(|text| !text.is_empty());
        let owner = match disk.lstat(private) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(Error::disk("look at", private)(error)),
            Ok(found) if found.kind != Kind::Dir => return Err(Error::NotADirectory { path: private.to_owned() }),
            Ok(_) => Some(around.locks.own(&layout.owner_lock())?),
        };
        let poison = Arc::new(Poison::from_the_start("the store was opened read-only"));
        let ownership = Arc::new(Ownership::new(owner, layout.owner_lock(), Arc::clone(&poison)));
        let (clock, owned) = (Arc::clone(&around.clock), Arc::clone(&ownership));
        let journal = read_journal(&disk, &layout, Arc::clone(&poison), clock, owned, had_owner, reading)?;
        let found = Found { layout, stat, ownership, poison, journal, opening: Opening::default() };
        let mut store = Self::assemble(StoreOptions::default(), Surroundings { disk, ..around }, found, reading)?;
        store.read_only = true;
        Ok(store)
    }

    fn assemble(options: StoreOptions, around: Surroundings, found: Found, reading: Reading) -> Result<Self, Error> {
        let Found { layout, stat, ownership, poison, journal, mut opening } = found;
        let OpenJournal { appender, progress, ranges, gone, quarantines, losses, lost, traces, tail, kept, .. } =
            journal;
        opening.last = appender.last_given();
        let mut waiting: Vec<Place> =
            appender.table().iter().filter(|(_, known)| known.is_waiting()).map(|(place, _)| place.clone()).collect();
        waiting.extend(quarantines.keys().cloned());
        let boot = appender.boot();
        let seen = traces.noted.seen_before(appender.store(), boot);
        let noted = traces.noted.seen_of(appender.store());
        let numbers = appender.numbers();
        let extent = appender.shared_extent();
        let growth = Growth::new(options.least_journal_limit());
        let shared = Arc::new(Shared::within(options.max_memory));
        let volatile_outcomes = VolatileOutcomes::measured(&shared.memory.gauge);
        let (poisoned, progressed) = (Arc::clone(&poison), Arc::clone(&progress));
        let writer = Writer::new(appender, poisoned, progressed, options.durability, Arc::clone(&shared));
        let mut store = Self {
            layout,
            options,
            disk: around.disk,
            locks: around.locks,
            clock: around.clock,
            poison,
            progress,
            shared,
            numbers,
            extent,
            growth,
            seen: Mutex::default(),
            turn: Turn::new(writer),
            ranges,
            gone,
            files: Mutex::new(Files { seen, noted, ..Files::default() }),
            quarantines: Mutex::new(quarantines),
            losses,
            lost,
            traces,
            tail,
            foreign_files: AtomicU64::new(0),
            durable_workspaces: Mutex::new(HashMap::new()),
            namespaces: RwLock::new(HashMap::new()),
            folded: Mutex::new(HashMap::new()),
            activities: Mutex::new(HashMap::new()),
            flag_words: Mutex::default(),
            counted: Arc::default(),
            volatile_outcomes,
            loads: AtomicU64::new(boot << 32),
            identity: StoreIdentity { device: stat.device, inode: stat.inode },
            boot,
            opening,
            ownership,
            journal_was_taken: AtomicBool::new(false),
            rescue: Mutex::default(),
            rescue_report: Mutex::default(),
            read_only: false,
        };
        let no_room = store.turn.exclusive(|writer| {
            if writer.appender.has_begun_on_a_full_disk() {
                writer.shared.disk_is_full();
            }
            writer.appender.waits_for_room().map(Error::repeat)
        });
        if let Some(no_room) = &no_room {
            tracing::error!("{no_room}");
            store.seen.get_mut().no_room = Some(no_room.repeat());
        } else if store.poison.reason().is_none() {
            store.release_quarantines();
            store.rely_on_quarantines()?;
        }
        waiting.retain(|place| store.known(place).is_waiting() || store.flaw_of_quarantine(place).is_some());
        store.recover(waiting)?;
        store.ranges.iter_mut().for_each(Range::let_go);
        // Not before: what waits for closed namespaces has been quarantined, and the files have been looked at.
        match (reading, store.poison.reason()) {
            _ if no_room.is_some() => {}
            (Reading::Strict, None) => store.release_segments(),
            (Reading::Strict, Some(_)) => store.forget_segments(kept),
            (Reading::Whole | Reading::Cut, _) => {}
        }
        Ok(store)
    }

    /// Loads the namespaces for which the journal holds something that their files lack.
    fn recover(&mut self, mut waiting: Vec<Place>) -> Result<(), Error> {
        waiting.sort_unstable();
        waiting.dedup();
        let loaded = self.load(&waiting, None)?;
        for (place, outcome) in waiting.into_iter().zip(loaded) {
            let state = match outcome {
                Ok(table) => {
                    if table.last() > table.covered() {
                        self.opening.recovered.push(place.clone());
                    }
                    State::Loaded(table)
                }
                Err(closing) => {
                    self.quarantine(&place);
                    self.opening.closed.push((place.clone(), closing.to_string()));
                    State::Closed(closing)
                }
            };
            let slot = Slot::new(place.clone(), state);
            self.folded.get_mut().insert(fold(&place), place.namespace.clone());
            self.namespaces.get_mut().insert(place, Arc::new(slot));
        }
        Ok(())
    }
}

fn stat_of_directory(disk: &dyn Disk, dir: &Path) -> Result<Stat, Error> {
    let stat = disk.stat(dir).map_err(Error::disk("look at", dir))?;
    if stat.kind == Kind::Dir { Ok(stat) } else { Err(Error::NotADirectory { path: dir.to_owned() }) }
}
