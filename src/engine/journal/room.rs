//! Room on the disk that is set aside for a segment before its records need it.
//!
//! Two things come of it. A sync of records that lie within the room need not make a new size durable, which takes about a third
//! off its time (`docs/performance.md`). And a full disk is met by the step that finds no room, while a spare is left:
//! it is for deletes, clears and what flushes tell, so that space can be freed on a full disk, and is made up for
//! as soon as there is room again.
//!
//! What lies beyond the last record reads as zeros. A reader takes zeros for the end.

use std::io;

use super::appender::Spare;
use crate::engine::disk::DiskFile;

/// The room of the segment that is appended to.
#[derive(Debug)]
pub(super) struct Room {
    /// Through where the file is known to have its room.
    end: u64,
    /// How much is set aside at once; 0 for none, where a write finds its room by itself.
    step: u64,
    /// The disk last had less than a whole step, or has been given some back because it was full.
    tight: bool,
}

impl Room {
    pub(super) fn new(step: u64) -> Self {
        Self { end: 0, step, tight: false }
    }

    /// The room of a new file, which has none yet.
    pub(super) fn successor(&self) -> Self {
        Self::new(self.step)
    }

    /// Whether room is set aside at all.
    pub(super) fn is_managed(&self) -> bool {
        self.step > 0
    }

    /// Whether the disk is short of room.
    pub(super) fn is_tight(&self) -> bool {
        self.tight
    }

    /// Through where the file is known to have its room.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// The file has no room beyond this byte.
    pub(super) fn ends_at(&mut self, end: u64) {
        self.end = end;
    }

    fn spare(&self) -> u64 {
        self.step / 4
    }

    /// Gives back what is beyond the last quarter of the spare behind byte `end`, and says whether there was any.
    pub(super) fn lend(&mut self, file: &dyn DiskFile, end: u64) -> bool {
        let least = end + self.spare() / 4;
        let lends = self.end > least && file.truncate(least).is_ok();
        if lends {
            self.end = least;
        }
        self.tight = true;
        lends
    }

    /// After a start on a full disk: takes of the spare behind byte `end` what there is, before another program does.
    pub(super) fn take_what_there_is(&mut self, file: &dyn DiskFile, end: u64) {
        let wanted = (1..=8).rev().map(|eighths| end + self.spare() * eighths / 8);
        if let Some(end) = wanted.filter(|end| *end > self.end).find(|wanted| file.allocate(*wanted).is_ok()) {
            self.end = end;
        }
        self.tight = true;
    }

    /// Sees that there is room through byte `end`, and behind it what is left of the spare.
    pub(super) fn make(&mut self, file: &dyn DiskFile, end: u64, spare: Spare) -> io::Result<()> {
        if self.step == 0 {
            return Ok(());
        }
        let kept = match spare {
            Spare::Keep => self.spare(),
            Spare::Use => self.spare() / 4,
            Spare::UseUp => 0,
        };
        let (least, with_spare) = (end + kept, end + self.spare());
        if self.end >= least {
            return Ok(());
        }
        let stepped = with_spare.next_multiple_of(self.step);
        for wanted in [stepped, with_spare, least] {
            match file.allocate(wanted) {
                Ok(()) => {
                    self.end = wanted;
                    self.tight = wanted < stepped;
                    return Ok(());
                }
                Err(error) if wanted == least || !is_full(&error) => {
                    self.tight |= is_full(&error);
                    return Err(error);
                }
                Err(_) => {}
            }
        }
        unreachable!("the last of them returns either way")
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
