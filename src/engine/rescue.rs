//! After the disk has ended all writing: what is in memory is brought into the files, through a fresh piece of journal.
//!
//! A journal whose sync failed cannot be relied on, and no file may be replaced before an intent is. So the
//! rescue does what a start does: it begins a new segment, on a new file, that names as predecessor the last place known
//! to be synced, with a copy of every record beyond that can still be read. Only records of writes that nobody ever saw stay
//! behind: those were answered as of unknown outcome, and are not done. Then it flushes every dirty namespace through
//! that segment. A start afterwards finds a journal like any other, and files that it knows.
//!
//! If the segment cannot be made and synced, no file is replaced. Writing does not begin again either way.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use commonhold_proto::Place;

use super::error::Error;
use super::flush::FlushHow;
use super::housekeeping::make_private_directories;
use super::journal::{Fresh, Progress, Reading, rescue_journal};
use super::poison::{Cause, Poison};
use super::store::Store;
use super::table::Table;

/// The journal that a flush goes through: the store's, or after that has failed the rescue's.
#[derive(Clone)]
pub(super) struct Via {
    pub(super) poison: Arc<Poison>,
    pub(super) progress: Arc<Progress>,
}

/// How far the rescue has got.
#[derive(Default)]
pub(super) struct Rescue {
    /// The fresh journal, or why there can be none.
    via: Option<Result<Via, String>>,
    files: usize,
    is_over: bool,
}

impl Store {
    /// Whether the disk has ended writing while files lack something, and trying again may bring it there.
    pub fn needs_rescue(&self) -> bool {
        self.poison.cause() == Some(Cause::Disk) && self.rescue.try_lock().is_some_and(|rescue| !rescue.is_over)
    }

    /// Brings what is in memory into the files after the disk has ended writing; does nothing otherwise. What became of
    /// it is told by [`refuses_writes`](Self::refuses_writes) and in the log. Flush locks that others hold are waited
    /// for as long as `lock_timeout`, each; as long as [`needs_rescue`](Self::needs_rescue) it can be called again.
    pub fn rescue(&self, lock_timeout: Duration) {
        let mut rescue = self.rescue.lock();
        if self.poison.cause() != Some(Cause::Disk) || rescue.is_over {
            return;
        }
        let via = match rescue.via.get_or_insert_with(|| self.fresh_journal().map_err(|error| error.to_string())) {
            Ok(via) => via.clone(),
            Err(reason) => {
                let report = format!(
                    "no fresh journal segment could be made for a rescue ({reason}), so no file was replaced and what no file holds yet is in memory only: export it before the daemon is stopped"
                );
                rescue.is_over = true;
                return self.report(report);
            }
        };
        let mut failed: Vec<(Place, String)> = Vec::new();
        // Where the journal's end is gone, it does not know the files either that were written since it began.
        let rewrite = self.journal_was_taken.load(Ordering::Acquire);
        for place in if rewrite { self.written_to() } else { self.dirty() } {
            let how = FlushHow { rewrite, lock_timeout: Some(lock_timeout) };
            let flushed = self.namespace(&place).and_then(|table| self.flush_table(&table, how, &via));
            self.flush_ended(&place, flushed.as_ref().err().map(reason_of));
            match flushed {
                Ok(_) => rescue.files += 1,
                Err(error) => failed.push((place, reason_of(&error))),
            }
        }
        // The completions too: a start is to find everything settled.
        if let Err(error) = via.progress.sync_through(via.progress.written()) {
            tracing::warn!("the completions of the rescue are not on the platter: {error}");
        }
        rescue.is_over = failed.is_empty();
        self.report(told(rescue.files, &failed));
    }

    /// Every loaded namespace whose file the journal was told of.
    fn written_to(&self) -> Vec<Place> {
        let is_known = |table: &Arc<Table>| !table.is_volatile() && table.is_announced();
        self.loaded().into_iter().filter(is_known).map(|table| table.place().clone()).collect()
    }

    /// What a segment is begun with, in the middle of an owner's life.
    pub(super) fn fresh(&self, store: u128) -> Fresh {
        Fresh {
            had_owner: self.opening.journal_is_gone,
            store,
            segment_bytes: self.options.change_segment_at(),
            buffer_bytes: self.options.buffer_bytes,
            room_bytes: self.options.room_bytes,
            clock: Arc::clone(&self.clock),
            ownership: Arc::clone(&self.ownership),
            reading: Reading::Strict,
        }
    }

    /// Puts a fresh journal in the place of the one that failed, as a start would begin it.
    fn fresh_journal(&self) -> Result<Via, Error> {
        self.ownership.check()?;
        let poison = Arc::new(Poison::default());
        // Should somebody have deleted the journal: it is begun anew, with the same id and above all numbers that were given.
        make_private_directories(&*self.disk, &self.layout)?;
        let store = self.turn.exclusive(|writer| writer.appender.store());
        let fresh = self.fresh(store);
        self.turn.exclusive(|writer| {
            writer.appender.leave_readable();
            let given = writer.appender.last_given();
            let seen = (self.shared.applied(), given);
            let opened = rescue_journal(&self.disk, &self.layout, Arc::clone(&poison), &fresh, seen)?;
            tracing::warn!(copied = opened.copied, "the rescue has begun a fresh journal segment");
            let progress = opened.progress;
            writer.appender.succeed(opened.appender);
            Ok(Via { poison, progress })
        })
    }

    fn report(&self, report: String) {
        let mut last = self.rescue_report.lock();
        if last.as_ref() != Some(&report) {
            tracing::error!("{report}");
            *last = Some(report);
        }
    }
}

/// With the cause, which a disk's error does not say itself.
fn reason_of(error: &Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

fn told(files: usize, failed: &[(Place, String)]) -> String {
    let written = match files {
        0 => "the rescue had no file to write".to_owned(),
        1 => "the rescue wrote 1 namespace to its file".to_owned(),
        files => format!("the rescue wrote {files} namespaces to their files"),
    };
    let Some((_, reason)) = failed.first() else {
        return format!("{written}, and every file holds what is in memory");
    };
    let places: Vec<_> = failed.iter().map(|(place, _)| place.to_string()).collect();
    format!("{written}, but could not write {}: {reason}", places.join(", "))
}
