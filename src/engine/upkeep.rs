//! What is done for an open store beside its requests: about once a second, and when its journal grows or its disk is full.

use std::sync::atomic::Ordering;

use commonhold_proto::Place;
use hashbrown::HashSet;

use super::error::Error;
use super::journal::{Reach, Ready, Spare};
use super::stats::Stats;
use super::store::Store;
use super::writer::Writer;

/// What only the holder of the turn can tell of the journal.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Why there is no journal to append to yet.
    pub(super) no_room: Option<Error>,
    waiting: Waiting,
}

#[derive(Clone, Debug, Default)]
struct Waiting {
    unwritten_bytes: usize,
    pinned_by: Vec<Place>,
    /// Clients, outcomes, bytes; of persistent writes.
    outcomes: (usize, usize, usize),
}

impl Waiting {
    fn now(writer: &mut Writer) -> Self {
        let known = writer.appender.outcomes();
        let ((clients, kept), bytes) = (known.extent(), known.memory());
        let (unwritten_bytes, pinned_by) = (writer.appender.waiting_bytes(), writer.appender.pinned_by());
        Self { unwritten_bytes, pinned_by, outcomes: (clients, kept, bytes) }
    }
}

impl Store {
    /// The size that the journal is to be kept within.
    pub fn journal_limit(&self) -> u64 {
        self.options.journal_limit.unwrap_or_else(|| {
            let data: u64 = self.loaded().iter().map(|table| table.bytes()).sum();
            self.options.least_journal_limit().max(data / 2)
        })
    }

    /// The namespaces to flush because the journal has outgrown its limit, those that pin its oldest segment first; none
    /// while it is within it, or where no flush would help.
    pub fn to_relieve_the_journal(&self) -> Vec<Place> {
        let least = self.options.least_journal_limit();
        if self.poison.reason().is_some() || self.extent.bytes() <= least {
            return Vec::new();
        }
        let limit = self.journal_limit();
        let loaded: HashSet<Place> = self.loaded().iter().map(|table| table.place().clone()).collect();
        // One that is held for a file that was never loaded is settled by a flush, too.
        let can_be = |place: &Place| loaded.contains(place) || self.is_held(place) && !self.is_closed(place);
        let pins: Vec<Place> = self.turn.exclusive(|writer| writer.appender.to_flush(0, |_| true));
        let can_be: HashSet<Place> = pins.into_iter().filter(can_be).collect();
        self.turn.exclusive(|writer| writer.appender.to_flush(limit, |place| can_be.contains(place)))
    }

    /// Says how the one is woken who calls [`tick`](Self::tick), flushes what [`to_relieve_the_journal`](Self::to_relieve_the_journal)
    /// names and then says [`journal_is_relieved`](Self::journal_is_relieved). Writers do it, so it must return at once.
    ///
    /// From a call of `wake` until it says so, writers wait while the journal is beyond one and a half times its limit, each
    /// for ten seconds at most.
    pub fn wake_by(&self, wake: impl Fn() + Send + Sync + 'static) {
        self.growth.wake_by(Box::new(wake));
    }

    /// Wakes the one who was named by [`wake_by`](Self::wake_by).
    pub fn wake(&self) {
        self.growth.wake();
    }

    /// Flushes for the journal's sake have begun; until [`journal_is_relieved`](Self::journal_is_relieved) writers wait for them.
    pub fn journal_is_being_relieved(&self) {
        self.growth.begins();
    }

    /// The flushes for the journal's sake are over, or there is nothing that a flush could do.
    pub fn journal_is_relieved(&self) {
        self.growth.is_over(&self.extent);
    }

    pub(super) fn look_at_growth(&self) {
        if self.extent.begins_to_want_a_successor() {
            self.growth.wake();
        }
        self.growth.look(&self.extent);
    }

    /// Makes the next segment's file before a writer needs it: its name, its room, and a sync of both take long.
    fn make_next_segment(&self) {
        if !self.extent.wants_a_successor() {
            return;
        }
        let path = self.layout.spare_segment();
        match Ready::make(&*self.disk, &path, self.options.room_bytes) {
            Ok(ready) => self.turn.exclusive(|writer| writer.appender.keep_ready(ready)),
            // Whoever needs it makes it then, and meets what is wrong here.
            Err(error) => tracing::debug!(%error, "no segment could be made ahead"),
        }
    }

    /// Numbers for `status`. It waits for no writer: what the journal waits for is, while one is at work, as of the last
    /// look.
    pub fn stats(&self) -> Stats {
        let now = self.turn.if_free(Waiting::now);
        let seen = match now {
            Some(now) => {
                self.seen.lock().waiting.clone_from(&now);
                now
            }
            None => self.seen.lock().waiting.clone(),
        };
        // The Seqs of intents and a start's raised ceiling lie above the last write: what counts here is how much of what
        // readers see is on the platter. Read in this order, for a write is in the journal before it is seen.
        let (applied, appended) = (self.applied(), self.progress.appended());
        let synced = if self.synced() >= appended { applied } else { self.synced().min(applied) };
        Stats {
            applied,
            synced,
            syncs: self.progress.syncs(),
            segments: self.extent.segments(),
            journal_bytes: self.extent.bytes(),
            unwritten_bytes: seen.unwritten_bytes,
            pinned_by: seen.pinned_by,
            foreign_files: self.foreign_files.load(Ordering::Relaxed),
            outcomes: self.with_volatile(seen.outcomes),
        }
    }

    /// What is to be done about once a second: write and sync what is not on the platter, see that the store still is
    /// ours, let go of what nobody needs, set aside again what a full disk has used up.
    ///
    /// # Errors
    /// As [`sync_through`](Self::sync_through); [`Error::Full`] or [`Error::Disk`] when the journal's buffer could not be
    /// written: it waits, and nothing of it is lost. [`Error::Unavailable`] when the owner lock was taken away.
    pub fn tick(&self) -> Result<(), Error> {
        self.refuse_if_read_only()?;
        self.shared.collect_garbage();
        self.shared.feed.tick();
        self.begin_if_there_is_room()?;
        let written_out = self.write_out();
        // The sync comes first: it waits for nobody's opinion of the lock file.
        self.progress.sync_through(self.progress.written())?;
        self.check_owner()?;
        self.check_journal()?;
        self.raise_ceiling_in_time();
        self.release_segments();
        let seen = self.turn.exclusive(|writer| {
            // Where there is no room now, the next second is soon.
            writer.look_for_room();
            writer.count_buffer();
            Waiting::now(writer)
        });
        self.seen.lock().waiting = seen;
        self.growth.set_limit(self.journal_limit());
        self.growth.look_again();
        self.give_room_back()?;
        self.make_next_segment();
        self.release_quarantines();
        written_out
    }

    /// Where only locks are granted and volatile namespaces written, no record raises the ceiling of their numbers.
    fn raise_ceiling_in_time(&self) {
        if self.numbers.are_plenty() {
            return;
        }
        let raised = self.turn.exclusive(|writer| {
            writer.appender.begin()?;
            writer.append_and_sync(Reach::System, Spare::Use)
        });
        // There are half of them left: more than can be used up before the next second.
        if let Err(error) = raised {
            tracing::warn!(%error, "the journal could not be told that more sequence numbers will be given out");
        }
    }

    /// Sees that what is appended to still is what a start would find. A segment without its name takes all that is written and
    /// synced to it, and is gone with this process.
    fn check_journal(&self) -> Result<(), Error> {
        let Some(lost) = self.turn.exclusive(|writer| writer.appender.lost_segment()) else { return Ok(()) };
        self.journal_was_taken.store(true, Ordering::Release);
        self.poison.trip(format!("{} was deleted or replaced while the daemon ran", lost.display()));
        self.poison.check()
    }

    /// Why writes are refused for want of room since the start, if they are; they are taken as soon as there is some.
    pub fn waits_for_room(&self) -> Option<String> {
        self.seen.lock().no_room.as_ref().map(ToString::to_string)
    }

    /// Begins the journal for which there was no room at the start.
    fn begin_if_there_is_room(&self) -> Result<(), Error> {
        if self.seen.lock().no_room.is_none() {
            return Ok(());
        }
        self.check_owner()?;
        let begun = self.turn.exclusive(|writer| {
            let fresh = self.fresh(writer.appender.store());
            writer.appender.found(&fresh)
        });
        match begun {
            Ok(tail) => {
                self.seen.lock().no_room = None;
                if let Some(tail) = tail {
                    tracing::warn!(segment = %tail.segment.display(), offset = tail.offset, bytes = tail.bytes, "the unsynced end of an interrupted write was set aside");
                }
                tracing::info!("the disk has room again: writes are taken");
                self.rely_on_quarantines()?;
                self.release_segments();
                Ok(())
            }
            Err(error) => {
                self.seen.lock().no_room = Some(error.repeat());
                Err(error)
            }
        }
    }

    /// Gives the disk most of the room that is set aside for the journal, so that a file can be written to it; it is taken
    /// again as soon as nothing is short of it. Says whether there was any.
    pub(super) fn lend_room(&self) -> bool {
        self.poison.reason().is_none() && self.turn.exclusive(|writer| writer.appender.lend_room())
    }

    /// Where the disk is short of room and nothing waits in the journal, gives back what it takes: without that a full
    /// disk would stay full until the next start, because the segment that is appended to never goes.
    pub(super) fn give_room_back(&self) -> Result<(), Error> {
        if !self.extent.wants_room() {
            return Ok(());
        }
        // That every file holds what the journal holds must be on the platter before the successor says so.
        self.progress.sync_through(self.progress.written())?;
        self.release_segments();
        let renewed = self.turn.exclusive(|writer| writer.appender.renew());
        let seq = match renewed {
            Ok(Some(seq)) => seq,
            // There is nothing to gain, or not even room for this: the next second is soon.
            Ok(None) | Err(Error::Full { .. } | Error::Disk { .. }) => return Ok(()),
            Err(ended) => return Err(ended),
        };
        self.progress.sync_through(seq)?;
        self.release_segments();
        // Where there is no room now, the next second is soon.
        self.turn.exclusive(Writer::look_for_room);
        Ok(())
    }
}
