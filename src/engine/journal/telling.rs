//! Reading the journal while it is written: for watchers whose place is no longer in memory.
//!
//! What may be read is fixed under the turn, as [`Stretches`]: through where each segment counts then. That never changes
//! again, so the reading itself holds up nobody; should a segment leave the journal meanwhile, its file is not found, and the
//! reader asks again. Records are read in pieces, however large the segment is.

use std::io;
use std::path::PathBuf;

use commonhold_proto::{Place, Seq};

use super::appender::Appender;
use super::chain::Link;
use super::headers::read_header;
use super::history::History;
use super::payload::{EffectKind, EffectRef, WritePayload, decode_drop};
use super::record::{Kind, UncheckedRecord};
use super::segment::SegmentHeader;
use crate::engine::disk::{Disk, DiskFile, How};
use crate::engine::error::Error;

/// How much of a segment is read at once; a longer record is read whole.
const PIECE_BYTES: usize = 128 * 1024;

/// Bytes of a record that tell its length.
const LENGTH_BYTES: usize = 4;

/// A segment that holds writes to a namespace, as of some moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    number: u64,
    path: PathBuf,
    /// Through which byte it counts.
    end: u64,
}

impl Appender {
    /// What is known of the Seqs before this start's.
    pub(crate) fn history(&self) -> &History {
        &self.history
    }

    /// The segments that hold writes to the namespace above `after`, oldest first. What waits in the buffer is written first.
    ///
    /// # Errors
    /// As [`write_out`](Self::write_out): then what is only in the buffer cannot be read.
    pub(crate) fn stretches(&mut self, place: &Place, after: Seq) -> Result<Vec<Stretch>, Error> {
        self.write_out()?;
        let holds = |segment: &&super::releasing::Segment| segment.writes.get(place).is_some_and(|last| *last > after);
        let stretch = |segment: &super::releasing::Segment| Stretch {
            number: segment.number,
            path: segment.path.clone(),
            end: segment.bytes,
        };
        Ok(self.segments.iter().filter(holds).map(stretch).collect())
    }

    /// The last write to the namespace in segments that have left the journal since the start.
    pub(crate) fn last_released(&self, place: &Place) -> Seq {
        self.released(place)
    }
}

/// A reader's place in one segment.
#[derive(Debug)]
pub(crate) struct Teller {
    stretch: Stretch,
    file: Box<dyn DiskFile>,
    salt: u64,
    /// Before the next record.
    link: Link,
    piece: Vec<u8>,
    /// Where in the segment the piece begins.
    piece_at: u64,
}

impl Teller {
    /// At the first record of a segment. None if it has left the journal.
    pub(crate) fn open(disk: &dyn Disk, stretch: Stretch) -> Result<Option<Self>, Error> {
        let path = &stretch.path;
        let opened = read_header(disk, path).and_then(|header| Ok((header, disk.open(path, &How::READ)?)));
        let (header, file) = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(Error::disk("read", path))?,
        };
        let Ok((header, length)) = SegmentHeader::decode(&header) else {
            let reason = "the header of a segment cannot be read again".to_owned();
            return Err(Error::Damage { file: path.clone(), offset: 0, reason });
        };
        let before = header.predecessor;
        let link = Link {
            byte: length as u64,
            seq: before.map_or(Seq::ZERO, |before| before.seq),
            crc: before.map_or(0, |before| before.crc),
        };
        let (salt, piece_at) = (header.salt(), link.byte);
        Ok(Some(Self { stretch, file, salt, link, piece: Vec::new(), piece_at }))
    }

    /// Whether the stretch is of the same segment.
    pub(crate) fn is_in(&self, stretch: &Stretch) -> bool {
        (self.stretch.number, &self.stretch.path) == (stretch.number, &stretch.path) && stretch.end >= self.link.byte
    }

    /// Goes on where it is, through the end of this stretch.
    pub(crate) fn go_on(self, stretch: Stretch) -> Self {
        Self { stretch, ..self }
    }

    /// Hands the effects of the next record on a namespace to `each`. The record's Seq; none at the end of the stretch.
    ///
    /// # Errors
    /// [`Error::Damage`] if what was read at the start cannot be read again, [`Error::Disk`].
    pub(crate) fn next(&mut self, place: &Place, mut each: impl FnMut(EffectRef<'_>)) -> Result<Option<Seq>, Error> {
        if self.link.byte >= self.stretch.end {
            return Ok(None);
        }
        self.see_to_a_whole_record()?;
        let at = (self.link.byte - self.piece_at) as usize;
        let record = UncheckedRecord::at_start_of(&self.piece[at..]).and_then(|record| record.verify(self.salt));
        let record =
            record.filter(|record| record.stamp.previous_crc == self.link.crc && record.stamp.seq > self.link.seq);
        let Some(record) = record else { return Err(self.unreadable()) };
        let read = match record.stamp.kind {
            Kind::Write => WritePayload::decode(record.payload).and_then(|payload| {
                payload.for_each(|of, effect| {
                    if of == place {
                        each(effect);
                    }
                })
            }),
            Kind::Drop => decode_drop(record.payload).map(|(of, _)| {
                if of == *place {
                    each(EffectRef { kind: EffectKind::Drop, space: 0, key: "", value: "" });
                }
            }),
            _ => Some(()),
        };
        let next = Link { byte: self.link.byte + record.stride as u64, seq: record.stamp.seq, crc: record.crc };
        if read.is_none() {
            return Err(self.unreadable());
        }
        self.link = next;
        Ok(Some(next.seq))
    }

    /// Holds no more of the segment than its place, until it goes on.
    pub(crate) fn rest(&mut self) {
        (self.piece, self.piece_at) = (Vec::new(), self.link.byte);
    }

    fn see_to_a_whole_record(&mut self) -> Result<(), Error> {
        let wanted = |piece: &[u8]| match piece.first_chunk::<LENGTH_BYTES>() {
            None => LENGTH_BYTES,
            Some(length) => (u32::from_le_bytes(*length) as usize).next_multiple_of(8),
        };
        loop {
            let at = (self.link.byte - self.piece_at) as usize;
            let rest = self.piece.get(at..).unwrap_or_default();
            let wanted = wanted(rest);
            let left = (self.stretch.end - self.link.byte) as usize;
            if rest.len() >= wanted {
                return Ok(());
            }
            if rest.len() >= left {
                return Err(self.unreadable());
            }
            let mut piece = vec![0; left.min(wanted.max(PIECE_BYTES))];
            let read =
                self.file.read_at(&mut piece, self.link.byte).map_err(Error::disk("read", &self.stretch.path))?;
            if read < piece.len() {
                return Err(self.unreadable());
            }
            (self.piece, self.piece_at) = (piece, self.link.byte);
        }
    }

    fn unreadable(&self) -> Error {
        let reason = "the journal cannot be read again as it was written".to_owned();
        Error::Damage { file: self.stretch.path.clone(), offset: self.link.byte, reason }
    }
}
