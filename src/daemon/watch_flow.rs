//! What is on its way from the engine to one watcher: writes become parts, each about as long as is told by [`PART_BYTES`], and
//! several of them, of one watch or of many of the same session, become a [`Piece`] that leaves in one go.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::engine::{Next, TellChange, Told, Watch};
use crate::proto::codec::{EncodeError, encode_answer, encode_part};
use crate::proto::limits::MAX_FRAME_BYTES;
use crate::proto::{Answer, Change, ChangeSet, Fault, Seq};

/// A part is sent when it has about so many bytes, ...
const PART_BYTES: usize = 64 * 1024;
/// ... or so many writes. A piece is as long, ...
const PART_WRITES: usize = 1_000;
/// ... or has cost so many looks.
const LOOKS_A_PIECE: usize = 256;
/// What a change takes in a frame beside its key and value, at most.
const CHANGE_BYTES: usize = 24;
/// After so many looks at writes of which nothing is told, the client learns how far it is.
const QUIET_LOOKS: usize = 64;

/// What leaves in one go.
#[derive(Default)]
pub(super) struct Piece {
    pub(super) bytes: Vec<u8>,
    /// How often a watch was asked for what there is to tell.
    pub(super) looks: usize,
    /// The disk was read for it, and nothing found.
    has_waited: bool,
}

/// What is on its way to one client.
pub(super) struct Flow {
    id: u64,
    watch: Watch,
    /// Taken from the engine, and not told yet.
    told: VecDeque<Arc<Told>>,
    /// So many changes of the first of them are told.
    at: usize,
    /// Everything through this write is told.
    through: Seq,
    quiet: usize,
    /// The client knows from where on it is told.
    has_begun: bool,
}

/// What became of a look at what there is to tell.
enum Made {
    Part,
    /// There is nothing to tell for now.
    Nothing,
    /// There may be more to tell.
    NothingYet,
}

impl Piece {
    /// Whether others get their turn before more is added.
    pub(super) fn is_enough(&self) -> bool {
        self.bytes.len() >= PART_BYTES || self.looks >= LOOKS_A_PIECE || self.has_waited
    }
}

impl Flow {
    /// Of request `id`; nothing of it is told yet.
    pub(super) fn new(id: u64, watch: Watch) -> Self {
        let through = watch.through();
        Self { id, watch, told: VecDeque::new(), at: 0, through, quiet: 0, has_begun: false }
    }

    /// Adds what there is to tell, until that is all, or enough for now. False if that was the last word.
    pub(super) fn tell(&mut self, piece: &mut Piece) -> bool {
        while !piece.is_enough() {
            piece.looks += 1;
            let needs_the_disk = self.watch.needs_the_disk();
            match self.make(&mut piece.bytes) {
                Ok(Made::Part) => {}
                Ok(Made::Nothing) => break,
                // One that searches the journal gets of it what one look reads.
                Ok(Made::NothingYet) => piece.has_waited = needs_the_disk,
                Err(fault) => {
                    self.end(piece, fault);
                    return false;
                }
            }
        }
        true
    }

    /// Adds the last word.
    pub(super) fn end(&self, piece: &mut Piece, fault: Fault) {
        // A refusal is shorter than a frame.
        let _ = encode_answer(&mut piece.bytes, self.id, &Answer::Fault(fault));
    }

    /// Makes the next part.
    fn make(&mut self, bytes: &mut Vec<u8>) -> Result<Made, Fault> {
        if !self.has_begun || self.quiet >= QUIET_LOOKS {
            (self.has_begun, self.quiet) = (true, 0);
            let began = Answer::Changes { list: Vec::new(), through: self.through };
            return encode(bytes, self.id, &began).map(|()| Made::Part);
        }
        if self.told.is_empty() {
            match self.watch.next(PART_BYTES).map_err(|error| Fault::from(&error))? {
                Next::Nothing => return Ok(Made::Nothing),
                Next::Lagged { lost_from, next } => {
                    self.through = self.watch.through();
                    return encode(bytes, self.id, &Answer::Lagged { lost_from, next }).map(|()| Made::Part);
                }
                Next::Told(told) if told.is_empty() => {
                    self.through = self.watch.through();
                    self.quiet += 1;
                    return Ok(Made::NothingYet);
                }
                Next::Told(told) => self.told = told.into(),
            }
        }
        self.quiet = 0;
        let mut list = Vec::new();
        let (mut size, mut left) = (0, self.told.iter());
        let (mut whole, mut at, mut through) = (0, self.at, self.through);
        while size < PART_BYTES
            && list.len() < PART_WRITES
            && let Some(told) = left.next()
        {
            let rest = &told.changes[at..];
            let fits = rest.iter().take_while(|change| {
                let fits = size < PART_BYTES;
                size += CHANGE_BYTES + change.bytes();
                fits
            });
            let fits = fits.count();
            let more = fits < rest.len();
            let changes = rest[..fits].iter().map(change).collect();
            list.push(ChangeSet { seq: told.seq, more, changes });
            if more {
                at += fits;
            } else {
                (whole, at, through) = (whole + 1, 0, told.seq);
            }
        }
        if whole == self.told.len() {
            through = self.watch.through();
        }
        encode(bytes, self.id, &Answer::Changes { list, through })?;
        self.told.drain(..whole);
        (self.at, self.through) = (at, through);
        Ok(Made::Part)
    }
}

fn change(change: &TellChange) -> Change<'_> {
    match change {
        TellChange::Put(record) => Change::Put { key: record.key(), value: record.value() },
        TellChange::Delete(record) => Change::Delete { key: record.key() },
        TellChange::Clear => Change::Clear,
        TellChange::Drop => Change::Drop,
    }
}

fn encode(bytes: &mut Vec<u8>, id: u64, answer: &Answer<'_>) -> Result<(), Fault> {
    encode_part(bytes, id, answer).map_err(|error| {
        let EncodeError::TooLarge { bytes } = error;
        Fault::TooLarge { what: "bytes in the answer".to_owned(), got: bytes, limit: MAX_FRAME_BYTES as u64 }
    })
}
