//! Dropping a namespace: its records go at once, and its file with the flush that follows.
//!
//! The drop is a record of the journal like any write. From then on the namespace is empty, and until something is
//! written to it again a flush means that there is to be no file: an intent for "no file", synced; the old file kept;
//! its name removed, the directory synced; the completion in the journal. A crash anywhere leaves the file or leaves none,
//! the journal knows either, and the next flush finishes what was begun.

use std::io;
use std::sync::Arc;

use commonhold_proto::{Place, Seq};

use super::error::Error;
use super::faultpoint::faultpoint;
use super::journal::{Kind, Reach, Spare, encode_drop, encode_write};
use super::once::{Fence, First, Numbered};
use super::store::Store;
use super::table::{FileState, Table};
use super::writer::Writer;
use crate::lock::FlushLock;

/// What a drop did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Its number in the order of the store; of a namespace that was not there, and without a number of its client's, the last
    /// write's.
    pub seq: Seq,
    /// How many records there were.
    pub records: u64,
    /// Whether a flush is to follow, which removes the file. Of a namespace that was not there none is, nor of a volatile one.
    pub needs_flush: bool,
}

impl Dropped {
    /// What an earlier sending of the drop was answered. Its file may still be there.
    pub(super) fn first(first: First, needs_flush: bool) -> Self {
        Self { seq: first.seq, records: first.found, needs_flush }
    }
}

impl Store {
    /// Removes every record of a namespace, and lets its next flush remove its file.
    ///
    /// # Errors
    /// As for a write; [`Error::NeedsRepair`] for a namespace that is closed.
    pub fn drop_namespace(&self, place: &Place) -> Result<Dropped, Error> {
        self.drop_namespace_once(place, &Numbered::default(), &Fence::default())
    }

    /// As [`drop_namespace`](Self::drop_namespace), once, however often it is asked for under this number.
    ///
    /// # Errors
    /// As for [`drop_namespace`](Self::drop_namespace), and [`Error::OutcomeUnknown`] if that of an earlier sending cannot be known.
    pub fn drop_namespace_once(&self, place: &Place, numbered: &Numbered, fence: &Fence) -> Result<Dropped, Error> {
        self.refuse_if_read_only()?;
        if numbered.number > 0
            && let Some(first) = self.turn.exclusive(|writer| writer.appender.outcomes().first(numbered))?
        {
            return Ok(Dropped::first(first, true));
        }
        let table = self.namespace(place)?;
        let mut file = table.file.lock();
        let path = self.layout.namespace_file(place);
        let has_file = match self.disk.lstat(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            other => other.map(|_| true).map_err(Error::disk("look at", &path))?,
        };
        if !has_file
            && let Some(nothing) = self.turn.exclusive(|writer| writer.drop_nothing(&table, numbered, fence))?
        {
            return Ok(nothing);
        }
        // The drop builds on the file that was loaded, as any write does.
        self.announce(&table, &mut file, &self.via())?;
        drop(file);
        let dropped = self.turn.exclusive(|writer| writer.drop_records(&table, numbered, fence));
        self.shared.feed.ring();
        dropped
    }

    /// Removes a dropped namespace's file. Only who holds the flush lock can ask for it.
    pub(super) fn remove(&self, _lock: &FlushLock, table: &Table, file: &mut FileState, cut: Seq) -> Result<(), Error> {
        let place = table.place();
        let path = self.layout.namespace_file(place);
        self.keep_old_file(table, &path, file.stat, cut)?;
        // What was kept is all that is left of the file: its name is to be on the platter before the other goes.
        let kept = self.layout.generations(place);
        match self.disk.sync_dir(&kept) {
            Ok(()) => self.sync_private_above(&kept)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::disk("sync", &kept)(error)),
        }
        // Below a link it would be another one's file.
        self.look_at_workspace(place)?;
        match self.disk.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::disk("remove", &path)(error)),
            _ => file.stat = None,
        }
        faultpoint!("drop-removed");
        let directory = self.layout.workspace(&place.workspace);
        match self.disk.sync_dir(&directory) {
            // A workspace that never had a file has no directory either.
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::disk("sync", &directory)(error)),
            _ => Ok(()),
        }
    }
}

impl Writer {
    /// Drops a namespace that has no file, if it has nothing to write to one either: only that it was asked for is journalled, if
    /// its client numbers it. A repeat must not be done to what came later.
    fn drop_nothing(&mut self, table: &Table, numbered: &Numbered, fence: &Fence) -> Result<Option<Dropped>, Error> {
        if !table.is_empty() || table.is_dirty() {
            return Ok(None);
        }
        if numbered.number == 0 {
            return Ok(Some(Dropped { seq: self.shared.applied(), records: 0, needs_flush: false }));
        }
        fence.check()?;
        if let Some(first) = self.appender.outcomes().first(numbered)? {
            return Ok(Some(Dropped::first(first, true)));
        }
        self.check_poison()?;
        self.appender.begin()?;
        let head = numbered.head(0);
        // A write of nothing to no namespace: that one need not be brought into its file.
        let seq = self.appender.record(Kind::Write, |out| encode_write(out, head, &[], std::iter::empty()))?;
        self.append_and_sync(Reach::System, Spare::Use)?;
        self.appender.answered(head, seq);
        self.shared.set_applied(seq);
        Ok(Some(Dropped { seq, records: 0, needs_flush: false }))
    }

    /// Journals a drop and makes it visible, in the order of every write: journal, sync, map.
    fn drop_records(&mut self, table: &Arc<Table>, numbered: &Numbered, fence: &Fence) -> Result<Dropped, Error> {
        fence.check()?;
        if numbered.number > 0
            && let Some(first) = self.appender.outcomes().first(numbered)?
        {
            return Ok(Dropped::first(first, true));
        }
        self.check_poison()?;
        self.appender.begin()?;
        let head = numbered.head(table.len());
        let seq = self.appender.record(Kind::Drop, |out| encode_drop(out, table.place(), head))?;
        // It frees more than it takes, and the flush that follows writes everything out.
        self.append_and_sync(Reach::System, Spare::Use)?;
        let shared = Arc::clone(&self.shared);
        let telling = shared.feed.begin(std::slice::from_ref(table));
        let cleared = {
            let mut map = table.map.write();
            let cleared = map.clear();
            if let Some(counts) = table.counts() {
                counts.cleared();
            }
            map.settle();
            table.applied(seq);
            table.set_dropped(seq);
            cleared
        };
        if let Some(mut telling) = telling {
            telling.note_drop();
            telling.tell(seq);
        }
        let records = cleared.len() as u64;
        self.shared.discard(cleared);
        self.appender.wrote(table.place(), seq);
        self.appender.answered(head, seq);
        self.shared.set_applied(seq);
        Ok(Dropped { seq, records, needs_flush: true })
    }
}
