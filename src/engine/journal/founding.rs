//! A start on a disk that is short of room.
//!
//! What an earlier owner had set aside beyond its last record is only zeros, and each start gives it back: the next segment
//! has room of its own. Where little is left besides, that is set aside at once, for deletes and clears.
//!
//! Where there is no room even for the next segment, this comes first, and what would be copied because nobody knows it to be
//! on the platter is brought there instead, where it lies. Then a segment needs no more than its header.
//!
//! Where even that is too much, the store is opened all the same and its reads are served, and the segment is begun as soon as
//! there is room. Until then nothing can be written, so nothing is appended, flushed or let go of: what an earlier owner left stays as it is, for
//! this owner's next try or for another start.

use std::sync::Arc;

use commonhold_proto::Seq;

use super::appender::{Appender, Spare};
use super::chain::{self, Reading, Tail};
use super::opening::{Fresh, OpenJournal, base_of, continue_journal};
use super::reading::read_journal;
use crate::engine::disk::{Disk, How};
use crate::engine::error::Error;
use crate::engine::layout::Layout;
use crate::engine::poison::Poison;

/// As [`continue_journal`]; where the disk has no room for that, the journal is read, and waits for some
/// ([`Appender::found`]).
pub(crate) fn continue_journal_or_wait(
    disk: &Arc<dyn Disk>,
    layout: &Layout,
    poison: &Arc<Poison>,
    fresh: &Fresh,
) -> Result<OpenJournal, Error> {
    let begin = |settled| continue_journal(disk, layout, Arc::clone(poison), fresh, settled);
    match begin(Seq::ZERO) {
        // A damaged journal that is to be cut is left as it is.
        Err(Error::Full { .. } | Error::NoRoomToBegin { .. }) if fresh.reading != Reading::Cut => {}
        Ok(mut begun) if fresh.reading == Reading::Strict => {
            give_back_room(&**disk, &begun);
            begun.appender.keep_room_where_it_is_short(fresh.room_bytes);
            return Ok(begun);
        }
        begun => return begun,
    }
    let settled = settle(&**disk, layout, fresh.reading)?;
    let no_room = match begin(settled) {
        Err(full @ (Error::Full { .. } | Error::NoRoomToBegin { .. })) if fresh.reading == Reading::Strict => full,
        Ok(mut begun) => {
            begun.appender.keep_what_room_there_is();
            return Ok(begun);
        }
        Err(error) => return Err(error),
    };
    let (clock, ownership) = (Arc::clone(&fresh.clock), Arc::clone(&fresh.ownership));
    let mut read = read_journal(disk, layout, Arc::clone(poison), clock, ownership, fresh.had_owner, fresh.reading)?;
    read.tail = None;
    let appender = &mut read.appender;
    if appender.segments.is_empty() {
        appender.store = fresh.store;
    }
    appender.progress.settle();
    appender.unfounded = Some(Unfounded { no_room, settled });
    Ok(read)
}

/// Why there is no segment yet, and how far the journal is on the platter all the same.
#[derive(Debug)]
pub(super) struct Unfounded {
    no_room: Error,
    settled: Seq,
}

/// Gives back the room that an earlier owner had set aside beyond its last record, and sees that what can be read of the journal
/// is on the platter. Says through which Seq that is certain.
///
/// It is certain where the bytes are written once more: a sync of what is there already may come after one that failed, and
/// then it tells nothing. The same bytes in the same place harm nobody, whatever becomes of them in a crash. A segment without
/// any record that is known to be synced is left out, since its name might not be on the platter.
fn settle(disk: &dyn Disk, layout: &Layout, reading: Reading) -> Result<Seq, Error> {
    let chain = chain::read(disk, layout, reading)?;
    let base = base_of(disk, &chain)?.map(|base| (base.index, base.end()));
    let mut settled = Seq::ZERO;
    for (index, read) in chain.segments.iter().enumerate() {
        let path = &read.path;
        let bytes = chain::read_file(disk, path)?;
        let file = disk.open(path, &How::WRITE).map_err(Error::disk("open", path))?;
        let used = used(&bytes, read.end.byte);
        if used < bytes.len() as u64 {
            file.truncate(used).map_err(Error::disk("give back the room beyond the records of", path))?;
        }
        if let Some((_, from)) = base.filter(|(base, from)| *base == index && *from < read.end.byte) {
            let unsure = &bytes[from as usize..read.end.byte as usize];
            match file.write_at(unsure, from).map_err(Error::disk("write once more what is in", path)) {
                Ok(()) => settled = read.end.seq,
                // A file system that never writes in place has no room for it either.
                Err(Error::Full { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        file.sync().map_err(Error::disk("sync", path))?;
    }
    let directory = layout.journal();
    disk.sync_dir(&directory).map_err(Error::disk("sync", &directory))?;
    Ok(settled)
}

/// Gives back the room that an earlier owner had set aside beyond its last record. Nothing counts on it: where it cannot be
/// given back, it is left.
fn give_back_room(disk: &dyn Disk, begun: &OpenJournal) {
    for range in &begun.ranges[..begun.kept] {
        let path = &range.path;
        // The room reaches beyond the records; a segment that ends with them need not be read again.
        if disk.stat(path).is_ok_and(|found| found.bytes <= range.end.next_multiple_of(8)) {
            continue;
        }
        let read = || chain::read_file(disk, path).map(Arc::from);
        let Ok(bytes) = range.bytes.clone().map_or_else(read, Ok) else { continue };
        let used = used(&bytes, range.end);
        if used < bytes.len() as u64
            && let Err(error) = disk.open(path, &How::WRITE).and_then(|file| file.truncate(used))
        {
            tracing::debug!(segment = %path.display(), "its room stays set aside: {error}");
        }
    }
}

/// Through where a segment is in use: to its last record, and to whatever else is not zero.
fn used(bytes: &[u8], records_end: u64) -> u64 {
    let last = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
    last.max(records_end).next_multiple_of(8)
}

impl Appender {
    /// Why nothing can be appended yet, if the journal still waits for room to begin.
    pub(crate) fn waits_for_room(&self) -> Option<&Error> {
        self.unfounded.as_ref().map(|unfounded| &unfounded.no_room)
    }

    /// Whether the journal was begun although the disk was full.
    pub(crate) fn has_begun_on_a_full_disk(&self) -> bool {
        self.unfounded.is_none() && self.room.is_tight()
    }

    /// Where the disk has little left, sets the first step of room aside before another program takes it; what there is of it.
    fn keep_room_where_it_is_short(&mut self, step: u64) {
        let is_short = self.disk.free_bytes(&self.layout.journal()).is_ok_and(|free| free < 2 * step);
        if !is_short || !self.room.is_managed() {
            return;
        }
        let end = self.current().bytes;
        if self.room.make(&*self.file, end, Spare::Keep).is_err() {
            self.room.take_what_there_is(&*self.file, end);
        }
        self.extent.is_short(self.room.is_tight());
    }

    /// Holds what the disk has left for what frees some.
    fn keep_what_room_there_is(&mut self) {
        let end = self.current().bytes;
        self.room.take_what_there_is(&*self.file, end);
        self.extent.is_short(true);
    }

    /// Begins the segment for which there was no room at the start. Says what was set aside by that.
    ///
    /// # Errors
    /// [`Error::NoRoomToBegin`] and [`Error::Full`] where there still is none, and as at a start; all is as it was.
    pub(crate) fn found(&mut self, fresh: &Fresh) -> Result<Option<Tail>, Error> {
        let settled = self.unfounded.as_ref().map_or(Seq::ZERO, |unfounded| unfounded.settled);
        let opened = continue_journal(&self.disk, &self.layout, Arc::clone(&self.poison), fresh, settled)
            .inspect_err(|error| self.unfounded = Some(Unfounded { no_room: error.repeat(), settled }))?;
        let mut begun = opened.appender;
        // Others hold these; and Seqs may have been given since, to files that were loaded.
        self.progress.go_on_as(&begun.progress);
        self.numbers.go_on_from(begun.numbers.next(), begun.ceiling);
        begun.progress = Arc::clone(&self.progress);
        begun.numbers = Arc::clone(&self.numbers);
        // The same outcomes, and what was refused for good since.
        std::mem::swap(&mut begun.outcomes, &mut self.outcomes);
        begun.outcomes.limit(fresh.segment_bytes as usize / 4);
        self.succeed(begun);
        Ok(opened.tail)
    }
}
