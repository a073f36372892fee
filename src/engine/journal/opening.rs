//! Beginning the next segment at a start. A start never appends to an old one.
//!
//! The new segment is built as `<n>.log.new`: a header that names its predecessor and the byte through which that
//! counts (everything known to be on the platter), then a copy of every valid record beyond. It is synced, renamed, and
//! the directory synced; only then does it exist, and only then is anything answered. A crash before that leaves the
//! old segments as they were, and the next start does the same again.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use commonhold_proto::{Place, Seq};
use hashbrown::{HashMap, HashSet};

use super::CEILING_STEP;
use super::appender::Appender;
use super::chain::{self, Chain, Link, Range, Reading, Tail};
use super::extent::Extent;
use super::losses::Losses;
use super::numbers::Numbers;
use super::outcomes::Outcomes;
use super::payload::encode_file;
use super::quarantine::Quarantine;
use super::record::{self, Kind, Stamp};
use super::releasing::Segment;
use super::room::Room;
use super::segment::{Predecessor, SegmentHeader};
use super::sync::Progress;
use super::table::FileTable;
use super::traces::{self, Lost, Traces, floor_without_a_journal};
use crate::engine::clock::Clock;
use crate::engine::disk::{Disk, How};
use crate::engine::error::Error;
use crate::engine::faultpoint::faultpoint;
use crate::engine::layout::Layout;
use crate::engine::ownership::Ownership;
use crate::engine::poison::Poison;

/// A journal that is ready to be appended to, and what its opening found.
#[derive(Debug)]
pub(crate) struct OpenJournal {
    pub(crate) appender: Appender,
    pub(crate) progress: Arc<Progress>,
    /// What may have to be applied to namespaces when they are loaded.
    pub(crate) ranges: Vec<Range>,
    /// The last write to each namespace in segments that have left the journal.
    pub(crate) gone: HashMap<Place, Seq>,
    /// Waiting records that lie outside the journal.
    pub(crate) quarantines: HashMap<Place, Quarantine>,
    pub(crate) tail: Option<Tail>,
    /// What was cut off a damaged journal, if it was to be.
    pub(crate) losses: Option<Losses>,
    /// Whether the journal, or its end, is not there any more.
    pub(crate) lost: Option<Lost>,
    /// What the names of kept files tell.
    pub(crate) traces: Traces,
    /// Files of the journal that do not count any more.
    pub(super) superseded: Vec<PathBuf>,
    /// Records that were copied because they were not known to be on the platter.
    pub(crate) copied: u64,
    /// How many of the oldest segments a start lets go of, once nothing waits for them; it copies what is in the others.
    pub(crate) kept: usize,
}

/// What does not lie in the journal itself.
pub(crate) struct Fresh {
    /// Becomes the store's id if it has none yet.
    pub(crate) store: u128,
    pub(crate) segment_bytes: u64,
    /// How much may wait in the appender's buffer.
    pub(crate) buffer_bytes: usize,
    /// How much room is set aside at once.
    pub(crate) room_bytes: u64,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ownership: Arc<Ownership>,
    /// Whether somebody has owned the store before.
    pub(crate) had_owner: bool,
    /// What is to be done where the journal is damaged.
    pub(crate) reading: Reading,
}

/// Reads what an earlier owner left and begins the next segment. Records through `settled` are known to be on the platter,
/// whatever the journal itself tells.
pub(crate) fn continue_journal(
    disk: &Arc<dyn Disk>,
    layout: &Layout,
    poison: Arc<Poison>,
    fresh: &Fresh,
    settled: Seq,
) -> Result<OpenJournal, Error> {
    let mut chain = chain::read(&**disk, layout, fresh.reading)?;
    chain.synced = chain.synced.max(settled);
    // Not before: where the chain is refused, nothing is to be changed.
    let is_marked = remove_unfinished(&**disk, layout)?;
    let tail = set_aside(&**disk, layout, &chain)
        .map_err(|error| no_room_to_begin(&**disk, layout, chain.bytes_cut_off(), error))?;
    let traces = Traces::read(&**disk, layout)?;
    let lost = chain.lost(&traces, fresh.had_owner && !is_marked);
    let floor = if lost == Some(Lost::Whole) { floor_without_a_journal(&traces, fresh) } else { traces.floor() };
    let next = Next::after(&chain, fresh.store, floor);
    if let Some(lost) = lost {
        traces::note(&**disk, layout, fresh, lost, traces.greatest(Some(next.store)), next.given)?;
    }
    let mut opened = begin_segment(disk, layout, poison, fresh, chain, next, None)?;
    (opened.tail, opened.lost, opened.traces) = (tail, lost, traces);
    // From here on the segment exists. What does not count any more would only be read again for nothing.
    for path in opened.superseded.drain(..) {
        disk.remove(&path).map_err(Error::disk("remove", &path))?;
    }
    if is_marked {
        let marker = layout.no_segment_yet();
        disk.remove(&marker).map_err(Error::disk("remove", &marker))?;
    }
    Ok(opened)
}

/// The same in the middle of an owner's life, after the disk has ended writing: writes above `visible` were never seen by
/// anybody and are not copied; no Seq through `given` is given again. Nothing is removed, so that a next owner finds what this one could not read.
pub(crate) fn rescue_journal(
    disk: &Arc<dyn Disk>,
    layout: &Layout,
    poison: Arc<Poison>,
    fresh: &Fresh,
    (visible, given): (Seq, Seq),
) -> Result<OpenJournal, Error> {
    let chain = chain::read(&**disk, layout, fresh.reading)?;
    let next = Next::after(&chain, fresh.store, Seq(given.0.next_multiple_of(CEILING_STEP)));
    begin_segment(disk, layout, poison, fresh, chain, next, Some(visible))
}

fn begin_segment(
    disk: &Arc<dyn Disk>,
    layout: &Layout,
    poison: Arc<Poison>,
    fresh: &Fresh,
    chain: Chain,
    next: Next,
    visible: Option<Seq>,
) -> Result<OpenJournal, Error> {
    let number = chain.greatest + 1;
    let Next { store, boot, given } = next;
    let (base, table, mut outcomes) = base_of(&**disk, &chain)?
        .map_or_else(Default::default, |base| (Some((base.index, base.before)), base.table, base.outcomes));
    if chain.losses.is_some() {
        outcomes = chain.outcomes.clone();
    }
    // A header is to be small beside its segment.
    outcomes.limit(fresh.segment_bytes as usize / 4);
    let header = SegmentHeader {
        number,
        boot,
        store,
        ceiling: Seq(given.0 + CEILING_STEP),
        synced: chain.synced,
        predecessor: base.map(|(_, before)| before),
        table,
        outcomes: outcomes.encode(),
    };
    let mut bytes = header.encode();
    let start = Link {
        byte: bytes.len() as u64,
        seq: base.map_or(Seq::ZERO, |(_, before)| before.seq),
        crc: base.map_or(0, |(_, before)| before.crc),
    };
    let mut copy = Copy {
        salt: header.salt(),
        crc: start.crc,
        last: start.seq,
        count: 0,
        writes: HashMap::new(),
        table: header.table.clone(),
        outcomes,
    };
    if let Some((index, before)) = base {
        copy.records_beyond(&**disk, &chain, (index, before), visible, &mut bytes)?;
    }
    // What records behind a cut knew of files goes on as records of this segment, so that newer files stay known.
    let mut next = given.next();
    for (place, entry) in chain.losses.iter().flat_map(|losses| &losses.entries) {
        let stamp = Stamp { seq: next, synced: chain.synced, previous_crc: copy.crc, kind: Kind::Intent };
        copy.crc = record::encode(&mut bytes, copy.salt, stamp, |out| encode_file(out, place, entry));
        copy.last = next;
        next = next.next();
    }

    let (path, new) = (layout.segment(number), layout.new_segment(number));
    let needed = bytes.len() as u64;
    let told = |error| no_room_to_begin(&**disk, layout, needed, error);
    let file = disk.open(&new, &How::CREATE_NEW).map_err(Error::disk("create", &new)).map_err(told)?;
    if let Err(error) = file.write_at(&bytes, 0) {
        // A start that failed on a full disk must not leave it fuller; what cannot be removed the next start removes.
        let _ = disk.remove(&new);
        return Err(told(Error::disk("write", &new)(error)));
    }
    file.sync().map_err(Error::disk("sync", &new))?;
    faultpoint!("load-built");
    disk.rename(&new, &path).map_err(Error::disk("rename into place", &new))?;
    let directory = layout.journal();
    // Never as a full disk, which a start waits for: the segment's name is there by now, and may go again.
    disk.sync_dir(&directory).map_err(|source| Error::Disk { action: "sync", path: directory.clone(), source })?;
    faultpoint!("load-begun");
    let kept = base.map_or(0, |(index, _)| index + 1);
    let beyond = chain.segments[kept..].iter().map(|read| read.path.clone());
    let superseded = chain.superseded.iter().cloned().chain(beyond).collect();

    let mut ranges = Vec::with_capacity(kept + 1);
    let mut segments = VecDeque::with_capacity(kept + 1);
    for (index, read) in chain.segments[..kept].iter().enumerate() {
        let end = base.filter(|(last, _)| *last == index).map_or(read.end.byte, |(_, before)| before.byte);
        let bytes = read.bytes.clone();
        ranges.push(Range { path: read.path.clone(), salt: read.header.salt(), first: read.first, end, bytes });
        segments.push_back(Segment {
            number: read.header.number,
            path: read.path.clone(),
            bytes: end,
            last: read.end.seq,
            durable_from: Some(Seq::ZERO),
            writes: read.writes.clone(),
        });
    }
    let length = bytes.len() as u64;
    let bytes = Some(Arc::from(bytes));
    ranges.push(Range { path: path.clone(), salt: copy.salt, first: start, end: length, bytes });
    segments.push_back(Segment {
        number,
        path: path.clone(),
        bytes: length,
        last: copy.last,
        durable_from: Some(Seq::ZERO),
        writes: copy.writes,
    });

    // Seqs begin above everything that the owners before may have given out, acknowledged or not.
    let file: Arc<dyn crate::engine::disk::DiskFile> = Arc::from(file);
    let current = (path, Arc::clone(&file));
    let (clock, poisoned) = (Arc::clone(&fresh.clock), Arc::clone(&poison));
    let progress = Arc::new(Progress::new(Arc::clone(disk), clock, directory, poisoned, current, copy.last));
    let appender = Appender {
        disk: Arc::clone(disk),
        layout: layout.clone(),
        poison,
        progress: Arc::clone(&progress),
        store: header.store,
        boot: header.boot,
        unfounded: None,
        segment_bytes: fresh.segment_bytes,
        ownership: Arc::clone(&fresh.ownership),
        room: Room::new(fresh.room_bytes),
        ready: None,
        extent: Arc::new(Extent::default()),
        buffer_bytes: fresh.buffer_bytes,
        outcomes: copy.outcomes,
        ceiling: header.ceiling,
        numbers: Arc::new(Numbers::new(next, header.ceiling)),
        // What was left out in a rescue is not to be waited for.
        table: if visible.is_some() { copy.table } else { chain.table },
        segments,
        file,
        salt: copy.salt,
        last_crc: copy.crc,
        buffer: Vec::new(),
        group_at: 0,
        group_crc: copy.crc,
        group_last: copy.last,
        last_done: Seq::ZERO,
        group_ceiling: None,
        released: HashMap::new(),
        quarantined: HashMap::new(),
        held: HashSet::new(),
        history: chain.history.end(given),
    };
    appender.tell_extent();
    Ok(OpenJournal {
        appender,
        progress,
        ranges,
        gone: chain.gone,
        quarantines: chain.quarantines,
        tail: None,
        losses: chain.losses,
        lost: None,
        traces: Traces::default(),
        superseded,
        copied: copy.count,
        kept,
    })
}

/// Says of a full disk how much room a start needs, and how much there is.
fn no_room_to_begin(disk: &dyn Disk, layout: &Layout, needed: u64, error: Error) -> Error {
    match error {
        Error::Full { path } => {
            Error::NoRoomToBegin { file: path, needed, free: disk.free_bytes(&layout.journal()).ok() }
        }
        other => other,
    }
}

/// What the next owner begins with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Next {
    pub(super) store: u128,
    pub(super) boot: u64,
    /// Seqs up to this one may have been given out.
    pub(super) given: Seq,
}

impl Next {
    /// After the owners that left `chain`; `fresh` becomes the store's id if it has none. No Seq up to `floor` is given.
    pub(super) fn after(chain: &Chain, fresh: u128, floor: Seq) -> Self {
        let last_header = chain.segments.last().map(|read| &read.header);
        // A segment beyond the chain may have been begun by an owner of whom nothing else is left, not even a header
        // that can be read: its Seqs and its boot number are not given again.
        let lost = chain.greatest - last_header.map_or(0, |header| header.number);
        // A journal that was cut or is gone may end before what was quarantined from it.
        let quarantined = chain.quarantines.values().map(|quarantine| quarantine.through.0).max().unwrap_or(0);
        let given = Seq((chain.ceiling.0 + lost * CEILING_STEP).max(quarantined)).max(floor);
        // Each owner takes a step of the Seqs at least, so that where no header tells, there were not more owners than steps.
        let boots = last_header.map_or(given.0 / CEILING_STEP, |header| header.boot + lost);
        Self { store: last_header.map_or(fresh, |header| header.store), boot: boots + 1, given }
    }
}

/// A segment that was being built when its owner died does not exist yet. Says whether the journal is marked as one that has
/// not begun; the mark stays until it has.
fn remove_unfinished(disk: &dyn Disk, layout: &Layout) -> Result<bool, Error> {
    let (directory, marker) = (layout.journal(), layout.no_segment_yet());
    let mut is_marked = false;
    for entry in disk.list(&directory).map_err(Error::disk("list", &directory))? {
        if entry.name.to_str().is_some_and(|name| name.ends_with(".log.new")) {
            let path = directory.join(&entry.name);
            if path == marker {
                is_marked = true;
            } else {
                disk.remove(&path).map_err(Error::disk("remove", &path))?;
            }
        }
    }
    Ok(is_marked)
}

/// Marks a journal that has never had a segment, before anybody's name is in the owner lock: whoever finds that name and no
/// segment would take the journal for lost, although its first owner has only died too early.
///
/// The mark is for a warning alone. Where it cannot be made for want of room, the start goes on without.
pub(crate) fn mark_if_not_begun(disk: &dyn Disk, layout: &Layout) -> Result<(), Error> {
    let (directory, marker) = (layout.journal(), layout.no_segment_yet());
    let entries = disk.list(&directory).map_err(Error::disk("list", &directory))?;
    let is_segment = |name: &str| name.strip_suffix(".log").is_some() || directory.join(name) == marker;
    if entries.iter().any(|entry| entry.name.to_str().is_some_and(is_segment)) {
        return Ok(());
    }
    let made = disk.open(&marker, &How::CREATE_NEW).map(drop).and_then(|()| disk.sync_dir(&directory));
    match made.map_err(Error::disk("create", &marker)) {
        Err(Error::Full { .. }) => Ok(()),
        made => made,
    }
}

/// Whether the journal is marked as one that has not begun.
pub(super) fn is_marked_as_not_begun(disk: &dyn Disk, layout: &Layout) -> bool {
    disk.lstat(&layout.no_segment_yet()).is_ok()
}

/// Keeps what was cut off the end, before the next segment makes it unreachable.
fn set_aside(disk: &dyn Disk, layout: &Layout, chain: &Chain) -> Result<Option<Tail>, Error> {
    let Some((_, segment, offset)) = chain.cut_off.first() else { return Ok(None) };
    let aside = layout.aside();
    make_directory(disk, &aside)?;
    let mut bytes = 0;
    for (number, path, offset) in &chain.cut_off {
        let whole = chain::read_file(disk, path)?;
        let rest = &whole[*offset as usize..];
        let kept = aside.join(format!("{number:08}-{offset}.tail"));
        let file = disk.make_anew(&kept).map_err(Error::disk("create", &kept))?;
        file.write_at(rest, 0).map_err(Error::disk("write", &kept))?;
        file.sync().map_err(Error::disk("sync", &kept))?;
        bytes += rest.len() as u64;
    }
    disk.sync_dir(&aside).map_err(Error::disk("sync", &aside))?;
    Ok(Some(Tail { segment: segment.clone(), offset: *offset, bytes }))
}

pub(super) fn make_directory(disk: &dyn Disk, path: &Path) -> Result<(), Error> {
    match disk.create_dir(path, 0o700) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(Error::disk("create", path)(error)),
        _ => Ok(()),
    }
}

/// What the next segment is built upon.
pub(super) struct Base {
    /// Which segment of the chain.
    pub(super) index: usize,
    /// Through where that counts.
    before: Predecessor,
    /// As of there.
    table: FileTable,
    outcomes: Outcomes,
}

impl Base {
    /// From this byte on, nothing of its segment is known to be on the platter.
    pub(super) fn end(&self) -> u64 {
        self.before.byte
    }
}

/// The last place in the chain that is known to be on the platter: which segment, through where it counts, and the table
/// as of there.
///
/// A segment without a record that is known to be synced may itself be lost to the next power cut, header and all, so
/// it cannot be built upon. The oldest one can: what was before it went only after it was on the platter.
pub(super) fn base_of(disk: &dyn Disk, chain: &Chain) -> Result<Option<Base>, Error> {
    for (index, read) in chain.segments.iter().enumerate().rev() {
        let bytes = read.bytes(disk)?;
        let mut table = read.header.table.clone();
        let mut outcomes = Outcomes::decode(&read.header.outcomes).expect("the header was read, and this with it");
        let end = chain::for_each_record(&bytes, read.header.salt(), read.first, read.end.byte, |record, _| {
            let is_synced = record.stamp.seq <= chain.synced;
            let known = (&mut table, &mut outcomes);
            is_synced && chain::note(record, read.header.boot, known, &mut Seq(0), &mut HashMap::new()).is_some()
        });
        if end.byte > read.first.byte || index == 0 {
            let before = Predecessor { segment: read.header.number, byte: end.byte, seq: end.seq, crc: end.crc };
            return Ok(Some(Base { index, before, table, outcomes }));
        }
    }
    Ok(None)
}

/// The records that are copied into the new segment.
struct Copy {
    salt: u64,
    crc: u32,
    last: Seq,
    count: u64,
    writes: HashMap<Place, Seq>,
    /// As of the last record copied.
    table: FileTable,
    outcomes: Outcomes,
}

impl Copy {
    fn records_beyond(
        &mut self,
        disk: &dyn Disk,
        chain: &Chain,
        (index, before): (usize, Predecessor),
        visible: Option<Seq>,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let was_seen = |stamp: &Stamp| {
            !matches!(stamp.kind, Kind::Write | Kind::Drop) || visible.is_none_or(|visible| stamp.seq <= visible)
        };
        for (at, read) in chain.segments.iter().enumerate().skip(index) {
            let bytes = read.bytes(disk)?;
            let first =
                if at == index { Link { byte: before.byte, seq: before.seq, crc: before.crc } } else { read.first };
            chain::for_each_record(&bytes, read.header.salt(), first, read.end.byte, |record, _| {
                if !was_seen(&record.stamp) {
                    return true;
                }
                let stamp = Stamp { synced: chain.synced, previous_crc: self.crc, ..record.stamp };
                self.crc = record::encode(out, self.salt, stamp, |out| out.extend_from_slice(record.payload));
                self.last = record.stamp.seq;
                self.count += 1;
                let known = (&mut self.table, &mut self.outcomes);
                chain::note(record, read.header.boot, known, &mut Seq(0), &mut self.writes)
                    .expect("the record was read once already");
                true
            });
        }
        Ok(())
    }
}
