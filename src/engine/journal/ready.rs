//! The next segment's file, made before a writer needs it: with its room set aside and synced, under a name that does not
//! count. A change of segment then writes a header and renames it.
//!
//! A kill leaves the file behind, and the next start removes it like any segment that was not finished.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::appender::Appender;
use super::room::Room;
use crate::engine::disk::{Disk, DiskFile};

/// A file with room, and without a header.
#[derive(Debug)]
pub(crate) struct Ready {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    bytes: u64,
}

impl Ready {
    /// Makes the file, with so much room. Nobody needs to have the turn for it.
    pub(crate) fn make(disk: &dyn Disk, path: &Path, bytes: u64) -> io::Result<Self> {
        // There may be an earlier one, of which nobody knows any more since the rescue.
        let file = disk.make_anew(path)?;
        // The room's size too: the first sync of a record in it then need not make that durable.
        file.allocate(bytes).and_then(|()| file.sync()).inspect_err(|_| {
            // The error is told by what it keeps from being done; a file that stays the next try removes.
            let _ = disk.remove(path);
        })?;
        Ok(Self { path: path.to_owned(), file: Arc::from(file), bytes })
    }
}

impl Appender {
    /// Keeps a file for the next change of segment.
    pub(crate) fn keep_ready(&mut self, ready: Ready) {
        self.ready = Some(ready);
        self.extent.wants_successor(false);
    }

    /// Tells others once the newest segment is half full. Where no room is set aside, a file is made quickly enough; and
    /// where the disk is short of it, the room is better left for what needs it now.
    pub(super) fn look_for_successor(&self) {
        let is_half = self.current().bytes.saturating_mul(2) >= self.segment_bytes;
        self.extent.wants_successor(is_half && self.ready.is_none() && self.room.is_managed() && !self.room.is_tight());
    }

    /// Makes the file that was kept the segment at `path`, with this header. None if there is none, or the disk refuses: then
    /// it is gone, and one is to be made.
    pub(super) fn take_ready(&mut self, path: &Path, header: &[u8]) -> Option<(Arc<dyn DiskFile>, Room)> {
        let ready = self.ready.take()?;
        let named = ready.file.write_at(header, 0).and_then(|()| self.disk.rename(&ready.path, path));
        if let Err(error) = named {
            tracing::debug!(%error, "the segment that was made ahead cannot be used");
            let _ = self.disk.remove(&ready.path);
            return None;
        }
        let mut room = self.room.successor();
        room.ends_at(ready.bytes.max(header.len() as u64));
        Some((ready.file, room))
    }

    /// Gives back the room of the file that was kept; says whether there was one.
    pub(super) fn give_up_ready(&mut self) -> bool {
        self.ready.take().is_some_and(|ready| self.disk.remove(&ready.path).is_ok())
    }
}
