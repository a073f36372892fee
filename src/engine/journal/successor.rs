//! Going on in the next segment: because the newest one is full, or because a full disk needs the room that it takes.
//!
//! The successor takes records at once. It is synced after its predecessor, when either is synced next.

use std::path::Path;
use std::sync::Arc;

use commonhold_proto::Seq;
use hashbrown::HashMap;

use super::appender::{Appender, Reach, Spare};
use super::record::{FRAME_BYTES, Kind};
use super::releasing::Segment;
use super::room::Room;
use super::segment::{Predecessor, SegmentHeader};
use crate::engine::disk::{DiskFile, How};
use crate::engine::error::Error;

/// A successor is begun for the sake of room only if more than this comes free: what its own file takes at most beside
/// its header, on file systems with blocks of usual size.
const LEAST_GAIN_BYTES: u64 = 8 << 10;

/// The record that a renewed segment begins with.
const CEILING_BYTES: u64 = (FRAME_BYTES + 8) as u64;

impl Appender {
    /// Begins a successor although the newest segment is not full, where the disk is short of room and nothing waits in
    /// the journal: then all before the successor can go, once the Seq that is returned is on the platter. None if
    /// there would be nothing to gain.
    ///
    /// # Errors
    /// [`Error::Full`] where there is no room for the successor either, [`Error::Disk`], [`Error::Unavailable`]; the newest
    /// segment goes on as it was.
    pub(crate) fn renew(&mut self) -> Result<Option<Seq>, Error> {
        self.poison.check()?;
        if self.segments.iter().any(|segment| self.is_waited_for(segment)) {
            return Ok(None);
        }
        // One without a record came of an earlier try, which the disk ended half way.
        if self.current().durable_from.is_some() {
            let kept = self.header().encode().len() as u64;
            if self.size().1 < kept + LEAST_GAIN_BYTES {
                return Ok(None);
            }
            self.change_segment_for_room()?;
        }
        self.begin()?;
        let ceiling = self.ceiling;
        let seq = self.record(Kind::Ceiling, |out| out.extend_from_slice(&ceiling.0.to_le_bytes()))?;
        self.finish(Reach::System, Spare::UseUp)?;
        Ok(Some(seq))
    }

    /// Where there is no other room, gives up what the newest segment has beyond its records; takes it again if that is not
    /// enough either.
    fn change_segment_for_room(&mut self) -> Result<(), Error> {
        match self.change_segment(Spare::UseUp) {
            Err(Error::Full { .. }) if self.room.is_managed() => self.poison.check()?,
            changed => return changed,
        }
        let (end, had) = (self.current().bytes, self.room.end());
        if self.file.truncate(end).is_ok() {
            self.room.ends_at(end);
        }
        self.change_segment(Spare::UseUp).inspect_err(|_| {
            if had > end && self.file.allocate(had).is_ok() {
                self.room.ends_at(had);
            }
        })
    }

    fn header(&self) -> SegmentHeader {
        let full = self.current();
        SegmentHeader {
            number: full.number + 1,
            boot: self.boot,
            store: self.store,
            ceiling: self.ceiling,
            synced: self.progress.synced(),
            predecessor: Some(Predecessor {
                segment: full.number,
                byte: full.bytes,
                seq: full.last,
                crc: self.last_crc,
            }),
            table: self.table.clone(),
            outcomes: self.outcomes.encode(),
        }
    }

    /// Writes what waits in the buffer, and goes on in a new segment.
    pub(super) fn change_segment(&mut self, spare: Spare) -> Result<(), Error> {
        self.write_out()?;
        self.ownership.check()?;
        let header = self.header();
        let (last, full_bytes) = (self.current().last, self.current().bytes);
        let path = self.layout.segment(header.number);
        let bytes = header.encode();
        let (file, room) = match self.take_ready(&path, &bytes) {
            Some(ready) => ready,
            None => self.make_segment(&path, &bytes, spare)?,
        };
        if self.room.is_managed() {
            // The rest of its room is only zeros; where they cannot be given back they are left.
            let _ = self.file.truncate(full_bytes);
        }
        self.file = file;
        self.room = room;
        self.salt = header.salt();
        self.progress.begin_segment(path.clone(), Arc::clone(&self.file));
        self.segments.push_back(Segment {
            number: header.number,
            path,
            bytes: bytes.len() as u64,
            last,
            durable_from: None,
            writes: HashMap::new(),
        });
        self.tell_extent();
        self.look_for_successor();
        Ok(())
    }

    /// A new file with room and this header.
    fn make_segment(&mut self, path: &Path, header: &[u8], spare: Spare) -> Result<(Arc<dyn DiskFile>, Room), Error> {
        let file = self.disk.open(path, &How::CREATE_NEW).map_err(Error::disk("create", path))?;
        // The room first: on a full disk the spare of the segment before is not to be given up for none.
        let mut room = self.room.successor();
        let end = header.len() as u64 + if spare == Spare::Keep { 0 } else { CEILING_BYTES };
        let made = room.make(&*file, end, spare).and_then(|()| file.write_at(header, 0));
        if let Err(error) = made {
            // Without its header the file is no segment; leave none behind, or the next try would meet its name.
            if let Err(undo) = self.disk.remove(path) {
                self.poison.trip(format!("{} could not be written ({error}) nor removed ({undo})", path.display()));
            }
            return Err(Error::disk("write", path)(error));
        }
        Ok((Arc::from(file), room))
    }
}
