//! A start on a disk that has no room for the next segment: the store is opened all the same and its reads are served,
//! and the segment is begun as soon as there is room.
//!
//! Until then nothing can be written, so nothing is appended, flushed or let go of: what an earlier owner left stays as it is, for
//! this owner's next try or for another start.

use std::sync::Arc;

use super::appender::Appender;
use super::chain::{self, Reading, Tail};
use super::opening::{Fresh, OpenJournal, continue_journal};
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
    let begin = || continue_journal(disk, layout, Arc::clone(poison), fresh);
    match begin() {
        Err(Error::Full { .. } | Error::NoRoomToBegin { .. }) if fresh.reading == Reading::Strict => {}
        begun => return begun,
    }
    settle(&**disk, layout)?;
    let no_room = match begin() {
        Err(full @ (Error::Full { .. } | Error::NoRoomToBegin { .. })) => full,
        begun => return begun,
    };
    let (clock, ownership) = (Arc::clone(&fresh.clock), Arc::clone(&fresh.ownership));
    let mut read = read_journal(disk, layout, Arc::clone(poison), clock, ownership, fresh.had_owner, fresh.reading)?;
    read.tail = None;
    let appender = &mut read.appender;
    if appender.segments.is_empty() {
        appender.store = fresh.store;
    }
    appender.progress.settle();
    appender.unfounded = Some(no_room);
    Ok(read)
}

/// Sees that what can be read of the journal is on the platter, since nothing will be copied for now, and gives back the
/// room that an earlier owner had set aside beyond its last record: that is only zeros.
fn settle(disk: &dyn Disk, layout: &Layout) -> Result<(), Error> {
    for read in chain::read(disk, layout, Reading::Strict)?.segments {
        let path = read.path;
        let bytes = chain::read_file(disk, &path)?;
        let file = disk.open(&path, &How::WRITE).map_err(Error::disk("open", &path))?;
        let rest = &bytes[read.end.byte as usize..];
        if !rest.is_empty() && rest.iter().all(|byte| *byte == 0) {
            file.truncate(read.end.byte).map_err(Error::disk("give back the room beyond the records of", &path))?;
        }
        file.sync().map_err(Error::disk("sync", &path))?;
    }
    let directory = layout.journal();
    disk.sync_dir(&directory).map_err(Error::disk("sync", &directory))
}

impl Appender {
    /// Why nothing can be appended yet, if the journal still waits for room to begin.
    pub(crate) fn waits_for_room(&self) -> Option<&Error> {
        self.unfounded.as_ref()
    }

    /// Begins the segment for which there was no room at the start. Says what was set aside by that.
    ///
    /// # Errors
    /// [`Error::NoRoomToBegin`] and [`Error::Full`] where there still is none, and as at a start; all is as it was.
    pub(crate) fn found(&mut self, fresh: &Fresh) -> Result<Option<Tail>, Error> {
        let opened = continue_journal(&self.disk, &self.layout, Arc::clone(&self.poison), fresh)
            .inspect_err(|error| self.unfounded = Some(error.repeat()))?;
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
