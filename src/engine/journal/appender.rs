//! The end of the journal: where records are appended, segment after segment.
//!
//! There is one [`Appender`] and it lies behind the writer's turn. A group of records is encoded first and then written
//! with one call; if that fails it is undone in place, and the Seqs that it had are never given out again. Where less is
//! promised, groups wait in the buffer for one another; what is written is always all of it, in order.
//!
//! Room is set aside ahead of the records, in steps ([`room`](super::room)): a sync then need not make a new size durable, and a full
//! disk is met while there is still room for what frees some.

use std::collections::VecDeque;
use std::sync::Arc;

use commonhold_proto::limits::MAX_RECORD_BYTES;
use commonhold_proto::{Place, Seq};
use hashbrown::{HashMap, HashSet};

use super::extent::Extent;
use super::founding::Unfounded;
use super::history::History;
use super::numbers::Numbers;
use super::outcomes::Outcomes;
use super::ready::Ready;
use super::record::{self, Kind, Stamp};
use super::releasing::Segment;
use super::room::Room;
use super::sync::Progress;
use super::table::{Entry, FileTable};
use super::{CEILING_STEP, WriteHead, payload};
use crate::engine::disk::{Disk, DiskFile};
use crate::engine::error::Error;
use crate::engine::faultpoint::faultpoint;
use crate::engine::layout::Layout;
use crate::engine::ownership::Ownership;
use crate::engine::poison::Poison;

/// The end of the journal.
#[derive(Debug)]
pub(crate) struct Appender {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) layout: Layout,
    pub(super) poison: Arc<Poison>,
    pub(super) progress: Arc<Progress>,
    pub(super) store: u128,
    pub(super) boot: u64,
    /// Why there is no segment to append to yet, after a start on a full disk.
    pub(super) unfounded: Option<Unfounded>,
    pub(super) segment_bytes: u64,
    pub(super) ownership: Arc<Ownership>,
    pub(super) room: Room,
    /// The next segment's file, made ahead.
    pub(super) ready: Option<Ready>,
    /// What others may know of the journal's size.
    pub(super) extent: Arc<Extent>,
    /// The buffer is written once it holds more than this.
    pub(super) buffer_bytes: usize,
    pub(super) ceiling: Seq,
    pub(super) numbers: Arc<Numbers>,
    pub(super) table: FileTable,
    /// What became of the clients' last writes.
    pub(super) outcomes: Outcomes,
    /// Oldest first; the last one is appended to.
    pub(super) segments: VecDeque<Segment>,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) salt: u64,
    pub(super) last_crc: u32,
    /// Records that are not written yet, those of the group that is being encoded last.
    pub(super) buffer: Vec<u8>,
    /// Where in the buffer the group begins.
    pub(super) group_at: usize,
    /// The checksum of the group's last record.
    pub(super) group_crc: u32,
    pub(super) group_last: Seq,
    /// The last record that says a file is in place.
    pub(super) last_done: Seq,
    /// The ceiling that the group raises, once it is written.
    pub(super) group_ceiling: Option<Seq>,
    /// The last write to each namespace in segments that were let go of.
    pub(super) released: HashMap<Place, Seq>,
    /// Writes through this Seq lie in a quarantine file, durably: no segment need keep them for the namespace.
    pub(super) quarantined: HashMap<Place, Seq>,
    /// Namespaces whose files are not what was flushed: segments with writes to them are kept, whatever the table says.
    pub(super) held: HashSet<Place>,
    /// What is known of the Seqs before this start's, and where the journal begins by now.
    pub(super) history: History,
}

/// How far a group has got when [`Appender::finish`] returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// At least in the buffer.
    Buffer,
    /// In the operating system's hands, with all before it.
    System,
}

/// Whether a group may use the room that is kept for what frees some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spare {
    /// It stays untouched.
    Keep,
    /// Deletes and clears: most of it. Were they to use up all of it, no flush could be told any more.
    Use,
    /// What flushes tell: all of it, for without them no room would ever come free.
    UseUp,
}

/// A buffer that has grown larger than this is given back after use.
const KEPT_BUFFER_BYTES: usize = 8 << 20;

impl Appender {
    /// The table of namespaces as of the last record.
    pub(crate) fn table(&self) -> &FileTable {
        &self.table
    }

    /// Gives out the next Seq.
    pub(crate) fn take_seq(&mut self) -> Seq {
        self.numbers.take()
    }

    /// Where the Seqs come from.
    pub(crate) fn numbers(&self) -> Arc<Numbers> {
        Arc::clone(&self.numbers)
    }

    /// The last Seq that was given out.
    pub(crate) fn last_given(&self) -> Seq {
        Seq(self.numbers.next().0 - 1)
    }

    /// The store's id.
    pub(crate) fn store(&self) -> u128 {
        self.store
    }

    /// The journal's size, for others.
    pub(crate) fn shared_extent(&self) -> Arc<Extent> {
        Arc::clone(&self.extent)
    }

    /// How often the store has been opened, this time included.
    pub(crate) fn boot(&self) -> u64 {
        self.boot
    }

    pub(super) fn current(&self) -> &Segment {
        self.segments.back().expect("a journal always has the segment that is appended to")
    }

    /// Begins a group of records: changes segment where the current one is full, and raises the ceiling in time.
    pub(crate) fn begin(&mut self) -> Result<(), Error> {
        self.poison.check()?;
        if let Some(no_room) = self.waits_for_room() {
            return Err(no_room.repeat());
        }
        if self.current().bytes >= self.segment_bytes {
            match self.change_segment(Spare::Keep) {
                // There may be room left in this one, and what frees some must get through.
                Err(Error::Full { .. }) if self.room.is_managed() => self.poison.check()?,
                changed => changed?,
            }
        }
        self.buffer.truncate(self.group_at);
        self.group_crc = self.last_crc;
        self.group_ceiling = None;
        let next = self.numbers.next();
        if next.0 + CEILING_STEP / 2 > self.ceiling.0 {
            let raised = Seq(next.0 + CEILING_STEP);
            self.record(Kind::Ceiling, |out| out.extend_from_slice(&raised.0.to_le_bytes()))?;
            self.group_ceiling = Some(raised);
        }
        Ok(())
    }

    /// Sees that there is room on the disk for so many more bytes, and for the spare beside them.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Disk`]; nothing was changed.
    pub(crate) fn make_room(&mut self, bytes: usize, spare: Spare) -> Result<(), Error> {
        let segment = self.segments.back().expect("a journal always has the segment that is appended to");
        let end = segment.bytes + bytes as u64;
        let made = self.room.make(&*self.file, end, spare).map_err(Error::disk("set room aside in", &segment.path));
        self.extent.is_short(self.room.is_tight());
        made
    }

    /// Gives back the room beyond the records, but for what flushes need to tell; says whether there was any.
    pub(crate) fn lend_room(&mut self) -> bool {
        if self.unfounded.is_some() {
            return false;
        }
        let gave = self.give_up_ready();
        let end = self.current().bytes;
        let lends = self.room.lend(&*self.file, end);
        self.extent.is_short(self.room.is_tight());
        gave || lends
    }

    /// Adds a record to the group and returns the Seq that it got.
    ///
    /// # Errors
    /// [`Error::TooLarge`] above [`MAX_RECORD_BYTES`]; the group is then as before.
    pub(crate) fn record(&mut self, kind: Kind, write: impl FnOnce(&mut Vec<u8>)) -> Result<Seq, Error> {
        let (start, seq) = (self.buffer.len(), self.take_seq());
        let stamp = Stamp { seq, synced: self.progress.synced(), previous_crc: self.group_crc, kind };
        let crc = record::encode(&mut self.buffer, self.salt, stamp, write);
        let bytes = self.buffer.len() - start;
        if bytes > MAX_RECORD_BYTES {
            self.buffer.truncate(start);
            return Err(Error::TooLarge {
                what: "bytes in one write request".to_owned(),
                got: bytes as u64,
                limit: MAX_RECORD_BYTES as u64,
            });
        }
        self.group_crc = crc;
        self.group_last = seq;
        Ok(seq)
    }

    /// Takes the group into the journal: into the buffer, or with all that waits there into the operating system's hands,
    /// with one call.
    ///
    /// # Errors
    /// [`Error::Full`] or [`Error::Disk`]: the group was undone, and what waited before it still waits.
    /// [`Error::OutcomeUnknown`] if it could not be undone, which ends all writing.
    pub(crate) fn finish(&mut self, reach: Reach, spare: Spare) -> Result<(), Error> {
        let added = self.buffer.len() - self.group_at;
        if added == 0 {
            return if reach == Reach::System { self.write_out() } else { Ok(()) };
        }
        if let Err(error) = self.make_room(added, spare) {
            self.buffer.truncate(self.group_at);
            return Err(error);
        }
        let writes = reach == Reach::System || self.buffer.len() > self.buffer_bytes;
        if writes {
            self.write_buffer_or_undo_group()?;
        }
        let segment = self.segments.back_mut().expect("a journal always has the segment that is appended to");
        segment.bytes += added as u64;
        segment.last = self.group_last;
        segment.durable_from = segment.durable_from.or(Some(self.group_last));
        self.last_crc = self.group_crc;
        if let Some(raised) = self.group_ceiling {
            self.ceiling = raised;
            self.numbers.raise_ceiling(raised);
        }
        self.progress.appended_through(self.group_last);
        if writes {
            self.buffer_is_written();
        } else {
            self.group_at = self.buffer.len();
        }
        self.extent.grew(added as u64);
        self.look_for_successor();
        Ok(())
    }

    fn write_buffer_or_undo_group(&mut self) -> Result<(), Error> {
        let segment = self.segments.back().expect("a journal always has the segment that is appended to");
        let offset = segment.bytes - self.group_at as u64;
        faultpoint!("append-before");
        faultpoint!("append-torn", self.file.write_at(&self.buffer[..self.buffer.len() / 2], offset));
        let Err(error) = self.file.write_at(&self.buffer, offset) else {
            faultpoint!("append-after");
            return Ok(());
        };
        self.buffer.truncate(self.group_at);
        // Synced too: a power cut could bring back the longer file, and with it a request that was refused.
        if let Err(undo) = self.file.truncate(offset).and_then(|()| self.file.sync()) {
            // Some of the group's records may be there whole, and a later start would find them.
            let path = segment.path.display();
            let reason = format!("an append to {path} failed ({error}) and could not be undone ({undo})");
            self.poison.trip(reason.clone());
            return Err(Error::OutcomeUnknown { reason });
        }
        self.room.ends_at(offset);
        Err(Error::disk("append to", &segment.path)(error))
    }

    /// Hands all that waits in the buffer to the operating system. Called between groups.
    ///
    /// # Errors
    /// [`Error::Full`] or [`Error::Disk`]: it still waits, and nothing of it is lost. [`Error::Unavailable`] once writing
    /// has ended.
    pub(crate) fn write_out(&mut self) -> Result<(), Error> {
        if self.group_at == 0 {
            return Ok(());
        }
        self.poison.check()?;
        self.write_out_regardless()
    }

    /// The same after writing has ended, for those who read the file again.
    pub(super) fn write_out_regardless(&mut self) -> Result<(), Error> {
        self.buffer.truncate(self.group_at);
        let segment = self.segments.back().expect("a journal always has the segment that is appended to");
        let offset = segment.bytes - self.group_at as u64;
        // What a failed write leaves is a first part of the same bytes, which the next try writes again.
        faultpoint!("append-before");
        faultpoint!("append-torn", self.file.write_at(&self.buffer[..self.buffer.len() / 2], offset));
        self.file.write_at(&self.buffer, offset).map_err(Error::disk("append to", &segment.path))?;
        faultpoint!("append-after");
        self.buffer_is_written();
        Ok(())
    }

    fn buffer_is_written(&mut self) {
        self.progress.wrote(self.progress.appended());
        self.group_at = 0;
        if self.buffer.capacity() > KEPT_BUFFER_BYTES { self.buffer = Vec::new() } else { self.buffer.clear() }
    }

    /// After writing has ended: lets whoever reads the segment find all that was acknowledged, if the disk takes it.
    pub(crate) fn leave_readable(&mut self) {
        if self.group_at > 0
            && let Err(error) = self.write_out_regardless()
        {
            tracing::warn!(%error, "records that waited in memory cannot be written to the journal that failed");
        }
    }

    /// The segment that is appended to, if it is not under its name any more. Where that cannot be seen, it is taken to be.
    pub(crate) fn lost_segment(&self) -> Option<std::path::PathBuf> {
        let segment = self.segments.back().filter(|_| self.unfounded.is_none())?;
        let ours = self.file.stat().ok()?;
        let is_there = match self.disk.lstat(&segment.path) {
            Ok(found) => (found.device, found.inode) == (ours.device, ours.inode),
            Err(error) => error.kind() != std::io::ErrorKind::NotFound,
        };
        (!is_there).then(|| segment.path.clone())
    }

    /// Gives its place to the appender of a fresh journal.
    pub(crate) fn succeed(&mut self, fresh: Self) {
        let failed = std::mem::replace(self, fresh);
        self.quarantined = failed.quarantined;
        self.held = failed.held;
        self.history = failed.history;
        self.history.goes_on(failed.released.is_empty());
        self.extent = failed.extent;
        self.tell_extent();
    }

    /// Bytes of records that wait in the buffer.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.group_at
    }

    /// Notes that a record of the finished group wrote to a namespace.
    pub(crate) fn wrote(&mut self, place: &Place, seq: Seq) {
        self.table.wrote(place, seq);
        let writes = &mut self.segments.back_mut().expect("a journal always has a segment").writes;
        match writes.get_mut(place) {
            Some(last) => *last = seq,
            None => drop(writes.insert(place.clone(), seq)),
        }
    }

    /// What became of the clients' last writes.
    pub(crate) fn outcomes(&mut self) -> &mut Outcomes {
        &mut self.outcomes
    }

    /// Notes what became of a client's write, of which a record of the finished group tells.
    pub(crate) fn answered(&mut self, head: WriteHead, seq: Seq) {
        self.outcomes.note(head, seq, self.boot);
    }

    /// Appends that a file which nothing knew was loaded; the caller syncs.
    pub(crate) fn append_loaded(&mut self, place: &Place, entry: Entry) -> Result<Seq, Error> {
        self.begin()?;
        let seq = self.record(Kind::Loaded, |out| payload::encode_file(out, place, &entry))?;
        self.finish(Reach::System, Spare::UseUp)?;
        self.table.loaded(place, entry);
        Ok(seq)
    }

    /// Appends what a namespace's file is about to become; the caller syncs.
    pub(crate) fn append_intent(&mut self, place: &Place, entry: Entry) -> Result<Seq, Error> {
        self.begin()?;
        let seq = self.record(Kind::Intent, |out| payload::encode_file(out, place, &entry))?;
        self.finish(Reach::System, Spare::UseUp)?;
        self.table.intends(place, entry);
        Ok(seq)
    }

    /// Appends that a namespace's file is in place, durably.
    pub(crate) fn append_done(&mut self, place: &Place, cut: Seq) -> Result<Seq, Error> {
        self.begin()?;
        let seq = self.record(Kind::Done, |out| payload::encode_done(out, place, cut))?;
        self.finish(Reach::System, Spare::UseUp)?;
        self.table.covered(place, cut);
        self.last_done = seq;
        Ok(seq)
    }
}
