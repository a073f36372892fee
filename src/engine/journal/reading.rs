//! Reading the journal where nothing is to be changed on the disk.
//!
//! What counts is what counts at a start, from the same chain: a tail is left where it is and not read, and segments
//! that a start would remove are let go of in memory only, later. The appender that comes out knows the table and gives
//! out Seqs for files that nothing knows; its poison is tripped, and it has no file to append to.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use commonhold_proto::Seq;
use hashbrown::{HashMap, HashSet};

use super::appender::Appender;
use super::chain::{self, Chain, Link, Range, Reading, Tail};
use super::extent::Extent;
use super::numbers::Numbers;
use super::opening::{Next, OpenJournal, base_of, is_marked_as_not_begun};
use super::quarantine;
use super::releasing::Segment;
use super::room::Room;
use super::sync::Progress;
use super::traces::Traces;
use crate::engine::clock::Clock;
use crate::engine::disk::{Disk, DiskFile, NoFile};
use crate::engine::error::Error;
use crate::engine::layout::Layout;
use crate::engine::ownership::Ownership;
use crate::engine::poison::Poison;

/// Reads what an earlier owner left; a directory without a journal is a new store. `poison` must have been tripped.
pub(crate) fn read_journal(
    disk: &Arc<dyn Disk>,
    layout: &Layout,
    poison: Arc<Poison>,
    clock: Arc<dyn Clock>,
    ownership: Arc<Ownership>,
    had_owner: bool,
    reading: Reading,
) -> Result<OpenJournal, Error> {
    let directory = layout.journal();
    let chain = match disk.lstat(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Chain { quarantines: quarantine::read_all(&**disk, layout)?, ..Chain::default() }
        }
        _ => chain::read(&**disk, layout, reading)?,
    };
    if let Some((_, segment, offset)) = chain.cut_off.first() {
        tracing::warn!(segment = %segment.display(), offset, "the journal has an unsynced tail; it is not read");
    }
    let tail = tail_of(&**disk, &chain)?;
    // Through here the segments stay at a start, until nothing waits for them; the later ones are copied.
    let kept = base_of(&**disk, &chain)?.map_or(0, |base| base.index + 1);
    // A store's id is only needed to write a segment, so it does not matter here.
    let traces = Traces::read(&**disk, layout)?;
    let had_journal = had_owner && !is_marked_as_not_begun(&**disk, layout);
    let lost = chain.lost(&traces, had_journal);
    let next = Next::after(&chain, 0, traces.floor());
    let number = chain.greatest + 1;
    let end = chain.segments.last().map_or(Link { byte: 0, seq: Seq::ZERO, crc: 0 }, |read| read.end);

    let mut ranges = Vec::with_capacity(chain.segments.len());
    let mut segments = VecDeque::with_capacity(chain.segments.len());
    for read in chain.segments {
        let (salt, end) = (read.header.salt(), read.end.byte);
        ranges.push(Range { path: read.path.clone(), salt, first: read.first, end, bytes: read.bytes });
        segments.push_back(Segment {
            number: read.header.number,
            path: read.path,
            bytes: end,
            last: read.end.seq,
            durable_from: Some(Seq::ZERO),
            writes: read.writes,
        });
    }
    let file: Arc<dyn DiskFile> = Arc::new(NoFile);
    let current = (layout.segment(number), Arc::clone(&file));
    let progress = Progress::new(Arc::clone(disk), clock, directory, Arc::clone(&poison), current, chain.synced);
    progress.appended_through(end.seq);
    progress.wrote(end.seq);
    let progress = Arc::new(progress);
    let appender = Appender {
        disk: Arc::clone(disk),
        layout: layout.clone(),
        poison,
        progress: Arc::clone(&progress),
        store: next.store,
        boot: next.boot,
        unfounded: None,
        segment_bytes: u64::MAX,
        ownership,
        room: Room::new(0),
        ready: None,
        extent: Arc::new(Extent::default()),
        buffer_bytes: 0,
        ceiling: next.given,
        numbers: Arc::new(Numbers::new(next.given.next(), next.given)),
        table: chain.table,
        outcomes: chain.outcomes,
        segments,
        file,
        salt: 0,
        last_crc: end.crc,
        buffer: Vec::new(),
        group_at: 0,
        group_crc: end.crc,
        group_last: end.seq,
        last_done: Seq::ZERO,
        group_ceiling: None,
        released: HashMap::new(),
        quarantined: HashMap::new(),
        held: HashSet::new(),
        history: chain.history.end(next.given),
    };
    appender.tell_extent();
    Ok(OpenJournal {
        appender,
        progress,
        ranges,
        gone: chain.gone,
        quarantines: chain.quarantines,
        tail,
        losses: chain.losses,
        lost,
        traces,
        superseded: Vec::new(),
        copied: 0,
        kept,
    })
}

/// What a start would set aside.
fn tail_of(disk: &dyn Disk, chain: &Chain) -> Result<Option<Tail>, Error> {
    let Some((_, segment, offset)) = chain.cut_off.first() else { return Ok(None) };
    let mut bytes = 0;
    for (_, path, offset) in &chain.cut_off {
        bytes += disk.lstat(path).map_err(Error::disk("look at", path))?.bytes - offset;
    }
    Ok(Some(Tail { segment: segment.clone(), offset: *offset, bytes }))
}
