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
}

impl Room {
    pub(super) fn new(step: u64) -> Self {
        Self { end: 0, step }
    }

    /// The room of a new file, which has none yet.
    pub(super) fn successor(&self) -> Self {
        Self::new(self.step)
    }

    /// Whether room is set aside at all.
    pub(super) fn is_managed(&self) -> bool {
        self.step > 0
    }

    /// The file has no room beyond this byte.
    pub(super) fn ends_at(&mut self, end: u64) {
        self.end = end;
    }

    fn spare(&self) -> u64 {
        self.step / 4
    }

    /// Sees that there is room through byte `end`, and the spare behind it unless that is to be used.
    pub(super) fn make(&mut self, file: &dyn DiskFile, end: u64, spare: Spare) -> io::Result<()> {
        if self.step == 0 {
            return Ok(());
        }
        let with_spare = end + self.spare();
        if self.end >= with_spare || (spare == Spare::Use && self.end >= end) {
            return Ok(());
        }
        let stepped = with_spare.next_multiple_of(self.step);
        let least = if spare == Spare::Use { end } else { with_spare };
        for wanted in [stepped, with_spare, least] {
            match file.allocate(wanted) {
                Ok(()) => {
                    self.end = wanted;
                    return Ok(());
                }
                Err(error) if wanted == least || !is_full(&error) => return Err(error),
                Err(_) => {}
            }
        }
        unreachable!("the last of them returns either way")
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
