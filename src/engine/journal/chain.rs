//! Reading what an earlier owner left: which segments count, through which byte, and whether what follows the last
//! good record is the unsynced tail of a crash or damage.
//!
//! The newest whole header begins the chain; each header names its predecessor and through where that counts. A
//! predecessor that is not there any more has left the journal because nothing waited for it. Should something wait all
//! the same, its name was lost to a power cut, and the chain is what was before it; and if there is nothing before it,
//! [`Chain::gone`] closes the namespaces concerned when they are loaded. Where the chain breaks off, everything after it is searched
//! for a valid header or record that names a synced-through Seq above the last good one: if there is one, bytes that
//! had been on the platter are gone, and that is damage. If not, it is a tail.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use commonhold_proto::{Place, Seq};
use hashbrown::HashMap;

use super::headers::{self, Headers};
use super::history::History;
use super::losses::Losses;
use super::outcomes::Outcomes;
use super::payload::{EffectKind, EffectRef, WritePayload, decode_ceiling, decode_done, decode_drop, decode_file};
use super::quarantine::{self, Quarantine};
use super::record::{Kind, Record, UncheckedRecord};
use super::segment::{Predecessor, SegmentHeader, salt};
use super::table::FileTable;
use crate::engine::disk::Disk;
use crate::engine::error::Error;
use crate::engine::layout::Layout;

/// A place between two records: where the next one begins, and what it must follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) byte: u64,
    pub(super) seq: Seq,
    pub(super) crc: u32,
}

/// A segment of the chain.
#[derive(Clone, Debug)]
pub(super) struct Read {
    pub(super) path: PathBuf,
    pub(super) header: SegmentHeader,
    /// Before its first record.
    pub(super) first: Link,
    /// After its last record that counts.
    pub(super) end: Link,
    /// The last write in it to each namespace.
    pub(super) writes: HashMap<Place, Seq>,
    /// The file, as long as there is room for it.
    pub(super) bytes: Option<Arc<[u8]>>,
}

/// The newest segments are kept in memory while a start goes on, so that each is read once. Of a larger journal the older
/// ones are read again.
const KEPT_BYTES: usize = 256 << 20;

impl Read {
    pub(super) fn bytes(&self, disk: &dyn Disk) -> Result<Arc<[u8]>, Error> {
        self.bytes.clone().map_or_else(|| read_file(disk, &self.path).map(Arc::from), Ok)
    }
}

/// Lets go of the oldest ones' bytes beyond what may be kept.
fn keep_newest(segments: &mut [Read]) {
    let mut bytes = 0;
    for read in segments.iter_mut().rev() {
        bytes += read.bytes.as_ref().map_or(0, |bytes| bytes.len());
        if bytes > KEPT_BYTES {
            read.bytes = None;
        }
    }
}

/// What was cut off the end of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    /// The segment.
    pub(crate) segment: PathBuf,
    /// From which byte on.
    pub(crate) offset: u64,
    /// How many bytes, with those of later segments that went with them.
    pub(crate) bytes: u64,
}

/// What is to be done where the journal is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// It is refused.
    Strict,
    /// It is refused; and where it is whole, nothing is let go of that a repair may want.
    Whole,
    /// It counts up to its last good record, and what is behind that is told as [`Losses`].
    Cut,
}

/// What an earlier owner left.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    /// Oldest first; empty in a new store.
    pub(super) segments: Vec<Read>,
    /// As of the last record.
    pub(super) table: FileTable,
    /// What became of the clients' last writes, as of the last record.
    pub(super) outcomes: Outcomes,
    /// The greatest synced-through Seq that a header or record of the chain names.
    pub(super) synced: Seq,
    pub(super) ceiling: Seq,
    /// The last write to each namespace in segments that have left the journal.
    pub(super) gone: HashMap<Place, Seq>,
    /// What comes after the chain, by segment: its bytes from there on are to be set aside.
    pub(super) cut_off: Vec<(u64, PathBuf, u64)>,
    /// Files that do not count any more and may go once the next segment exists.
    pub(super) superseded: Vec<PathBuf>,
    /// Waiting records that lie outside the journal.
    pub(super) quarantines: HashMap<Place, Quarantine>,
    /// What lies behind the place where it was cut, if it was to be.
    pub(super) losses: Option<Losses>,
    /// The greatest number that any file has.
    pub(super) greatest: u64,
    /// Its Seqs, and what is missing among them.
    pub(super) history: History,
}

impl Chain {
    /// About how many bytes are to be set aside.
    pub(super) fn bytes_cut_off(&self) -> u64 {
        let cut_in = |read: &Read| self.cut_off.iter().any(|(_, path, _)| *path == read.path);
        let beyond = |read: &Read| read.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64 - read.end.byte);
        self.segments.iter().filter(|read| cut_in(read)).map(beyond).sum()
    }

    /// Whether a namespace's file lacks writes that only a missing segment can hold.
    fn waits_for_what_is_gone(&self) -> bool {
        let covered = |place: &Place| self.table.get(place).map_or(Seq::ZERO, |known| known.covered);
        let quarantined = |place: &Place| match self.quarantines.get(place) {
            // How much it holds is not known then, so nobody can say that something is missing.
            Some(quarantine) if quarantine.flaw.is_some() => Seq(u64::MAX),
            Some(quarantine) => quarantine.through,
            None => Seq::ZERO,
        };
        self.gone.iter().any(|(place, last)| *last > covered(place).max(quarantined(place)))
    }
}

/// Finds the chain. Reads only; nothing is changed on the disk.
pub(super) fn read(disk: &dyn Disk, layout: &Layout, reading: Reading) -> Result<Chain, Error> {
    let files = headers::list(disk, layout)?;
    let quarantines = quarantine::read_all(disk, layout)?;
    let Some(greatest) = files.last().map(|(number, _)| *number) else {
        return Ok(Chain { quarantines, ..Chain::default() });
    };

    let headers = headers::read(disk, &files, reading)?;
    let mut reader = Reader { disk, files, headers, quarantines, cut: reading == Reading::Cut, skip_bad: false };
    let mut chain = reader.chain()?;
    if let Some(losses) = &chain.losses {
        // A file that is newer than what is left of the journal stays known, and no Seq is given again.
        for (place, entry) in &losses.entries {
            chain.table.intends(place, *entry);
        }
        let ceilings = reader.headers.values().flatten().map(|(header, _)| header.ceiling).max();
        chain.ceiling = chain.ceiling.max(losses.greatest).max(ceilings.unwrap_or(Seq::ZERO));
        // Writes behind the cut are gone from the journal, and may be in files: nobody can say that they were not done.
        let boots = reader.headers.values().flatten().map(|(header, _)| header.boot).max();
        chain.outcomes.forget_all(boots.unwrap_or(0), chain.ceiling);
    }
    chain.greatest = greatest;
    let is_too_high = |read: &&Read| {
        read.header.boot > MOST_BOOTS || read.header.ceiling.max(read.header.synced).max(read.end.seq) > MOST_SEQS
    };
    chain.segments.iter().find(is_too_high).map_or(Ok(()), |read| Err(too_high(&read.path)))?;
    // A record may have raised it, or a header behind the cut.
    if chain.ceiling.max(chain.synced) > MOST_SEQS {
        return Err(chain.segments.last().map_or_else(|| too_high(&layout.journal()), |read| too_high(&read.path)));
    }
    Ok(chain)
}

/// No store gets so far, and beyond them no number could be given any more without some being given twice.
const MOST_BOOTS: u64 = 1 << 30;
const MOST_SEQS: Seq = Seq(1 << 62);

fn too_high(path: &Path) -> Error {
    let reason =
        "its numbers are too high to go on from: no daemon has got there. If the file is a stray copy, move it away";
    Error::Damage { file: path.to_owned(), offset: 0, reason: reason.to_owned() }
}

pub(super) fn read_file(disk: &dyn Disk, path: &Path) -> Result<Vec<u8>, Error> {
    disk.read(path).map_err(Error::disk("read", path))
}

struct Reader<'a> {
    disk: &'a dyn Disk,
    files: Vec<(u64, PathBuf)>,
    headers: Headers,
    quarantines: HashMap<Place, Quarantine>,
    cut: bool,
    /// Segments with bad headers are taken as if they were gone.
    skip_bad: bool,
}

impl Reader<'_> {
    fn path(&self, number: u64) -> Option<&PathBuf> {
        self.files.binary_search_by_key(&number, |(number, _)| *number).ok().map(|index| &self.files[index].1)
    }

    fn whole(&self, number: u64) -> Option<&(SegmentHeader, usize)> {
        self.headers.get(&number)?.as_ref().ok()
    }

    /// The chain that the newest whole header begins, shortened to before a break that is a tail.
    fn chain(&mut self) -> Result<Chain, Error> {
        let mut below = u64::MAX;
        loop {
            let Some(newest) =
                self.files.iter().rev().map(|(n, _)| *n).find(|n| *n < below && self.whole(*n).is_some())
            else {
                if self.cut {
                    let mut chain = self.chain_without_bad_headers()?;
                    chain.losses.get_or_insert_default();
                    return Ok(chain);
                }
                let (number, path) = &self.files[0];
                let reason = self.headers[number].as_ref().err().copied().unwrap_or("no segment before it can be read");
                return Err(Error::Damage { file: path.clone(), offset: 0, reason: reason.to_owned() });
            };
            let numbers = match self.numbers_back_from(newest) {
                Ok(numbers) => numbers,
                // A segment whose header is bad stands between: what was before it may still be a chain.
                Err(bad) => {
                    below = bad;
                    continue;
                }
            };
            let chain = self.read_chain(&numbers)?;
            let oldest = numbers[0];
            if chain.waits_for_what_is_gone() && self.files.iter().any(|(n, _)| *n < oldest && self.whole(*n).is_some())
            {
                // A segment goes only when nothing waits for it, so this one's predecessor has not gone: its name was
                // lost to a power cut that kept this one's. What was before them is the chain.
                below = oldest;
                continue;
            }
            return Ok(chain);
        }
    }

    /// Where no chain is whole, what comes after the bad headers may still be read: what the segments before it
    /// held is gone then, and namespaces that wait for it will be closed.
    fn chain_without_bad_headers(&mut self) -> Result<Chain, Error> {
        let bad: Vec<_> = self.files.iter().filter(|(number, _)| self.whole(*number).is_none()).cloned().collect();
        self.skip_bad = true;
        let mut chain = if bad.len() == self.files.len() {
            Chain { quarantines: self.quarantines.clone(), ..Chain::default() }
        } else {
            self.chain()?
        };
        let mut losses = chain.losses.take().unwrap_or_default();
        if let Some(read) = chain.segments.last() {
            losses.after = read.end.seq;
            losses.unread = bad.iter().map(|(_, path)| path.clone()).collect();
        }
        for (number, path) in bad {
            if let Some(read) = chain.segments.first() {
                losses.search(&read_file(self.disk, &path)?, salt(read.header.store, number), Seq::ZERO);
            }
            if !chain.cut_off.iter().any(|(known, ..)| *known == number) {
                chain.superseded.push(path.clone());
                chain.cut_off.push((number, path, 0));
            }
        }
        chain.superseded.sort_unstable();
        chain.superseded.dedup();
        chain.losses = Some(losses);
        Ok(chain)
    }

    /// The numbers of the chain that ends with `newest`, oldest first; or the number of a bad one in it.
    fn numbers_back_from(&self, newest: u64) -> Result<Vec<u64>, u64> {
        let mut numbers = vec![newest];
        let mut at = newest;
        while let Some(before) = self.whole(at).and_then(|(header, _)| header.predecessor) {
            match self.headers.get(&before.segment) {
                None => break,
                Some(Err(_)) if self.skip_bad => break,
                Some(Err(_)) => return Err(before.segment),
                Some(Ok(_)) => numbers.push(before.segment),
            }
            at = before.segment;
        }
        numbers.reverse();
        Ok(numbers)
    }

    fn read_chain(&self, numbers: &[u64]) -> Result<Chain, Error> {
        let mut chain = Chain { quarantines: self.quarantines.clone(), ..Chain::default() };
        let (oldest, _) = self.whole(numbers[0]).expect("the numbers of a chain have whole headers");
        if oldest.predecessor.is_some() {
            chain.gone = oldest.table.iter().map(|(place, known)| (place.clone(), known.last)).collect();
        }
        for (index, number) in numbers.iter().enumerate() {
            let successor = numbers.get(index + 1).and_then(|next| self.whole(*next)?.0.predecessor);
            let bytes = self.read_segment(*number, successor, &mut chain)?;
            let read = chain.segments.last().expect("a segment was just read");
            let whole = successor.map_or(read.end.byte == bytes.len() as u64, |named| {
                (named.byte, named.seq, named.crc) == (read.end.byte, read.end.seq, read.end.crc)
            });
            let broken_off = !whole || (successor.is_none() && self.files.iter().any(|(n, _)| n > number));
            if broken_off {
                self.judge(*number, &bytes, &mut chain)?;
                break;
            }
        }
        let counts = |number: &u64| chain.segments.iter().any(|read| read.header.number == *number);
        chain.superseded =
            self.files.iter().filter(|(number, _)| !counts(number)).map(|(_, path)| path.clone()).collect();
        Ok(chain)
    }

    /// Reads the records of one segment, as far as its successor says, into the chain.
    fn read_segment(&self, number: u64, until: Option<Predecessor>, chain: &mut Chain) -> Result<Arc<[u8]>, Error> {
        let (header, length) = self.whole(number).expect("the numbers of a chain have whole headers");
        let path = self.path(number).expect("a header was read from a file").clone();
        let bytes: Arc<[u8]> = Arc::from(read_file(self.disk, &path)?);
        let before = header.predecessor;
        let first = Link {
            byte: *length as u64,
            seq: before.map_or(Seq::ZERO, |before| before.seq),
            crc: before.map_or(0, |before| before.crc),
        };
        let limit = until.map_or(bytes.len() as u64, |successor| successor.byte);
        chain.table = header.table.clone();
        chain.outcomes = Outcomes::decode(&header.outcomes).expect("the header was read, and this with it");
        chain.synced = chain.synced.max(header.synced);
        chain.ceiling = chain.ceiling.max(header.ceiling);
        let mut writes = HashMap::new();
        let mut unread = None;
        chain.history.begin_segment(first.seq);
        let end = for_each_record(&bytes, header.salt(), first, limit, |record, offset| {
            chain.history.note(record);
            chain.synced = chain.synced.max(record.stamp.synced);
            let known = (&mut chain.table, &mut chain.outcomes);
            if note(record, header.boot, known, &mut chain.ceiling, &mut writes).is_none() {
                unread = Some((offset, record.stamp.kind));
            }
            unread.is_none()
        });
        if let Some((offset, kind)) = unread.filter(|_| !self.cut) {
            let reason = format!("a record of kind {kind:?} cannot be read by this release");
            return Err(Error::Damage { file: path, offset, reason });
        }
        let kept = Some(Arc::clone(&bytes));
        chain.segments.push(Read { path, header: header.clone(), first, end, writes, bytes: kept });
        keep_newest(&mut chain.segments);
        Ok(bytes)
    }

    /// The chain breaks off in segment `number`: sets what follows aside, or says that it is damage.
    fn judge(&self, number: u64, bytes: &[u8], chain: &mut Chain) -> Result<(), Error> {
        let read = chain.segments.last().expect("the chain breaks off in a segment that was read");
        let end = read.end;
        let later: Vec<_> = self.files.iter().filter(|(n, _)| *n > number).collect();
        let mut evidence = greatest_synced(&bytes[end.byte as usize..], read.header.salt(), end.seq);
        for (number, path) in &later {
            if let Some((header, _)) = self.whole(*number) {
                evidence = evidence.max(header.synced);
            }
            let bytes = read_file(self.disk, path)?;
            evidence = evidence.max(greatest_synced(&bytes, salt(read.header.store, *number), end.seq));
        }
        if self.cut {
            let losses = self.losses_behind(read, bytes, &later, evidence)?;
            chain.losses = Some(losses);
        } else if evidence > end.seq {
            let reason = format!(
                "the journal breaks off after sequence number {}, although it had been synced through {evidence}",
                end.seq
            );
            return Err(Error::Damage { file: read.path.clone(), offset: end.byte, reason });
        }
        if bytes[end.byte as usize..].iter().any(|byte| *byte != 0) {
            chain.cut_off.push((number, read.path.clone(), end.byte));
        }
        chain.cut_off.extend(later.into_iter().map(|(number, path)| (*number, path.clone(), 0)));
        Ok(())
    }
}

impl Reader<'_> {
    /// What is behind the last good record of the chain.
    fn losses_behind(
        &self,
        read: &Read,
        bytes: &[u8],
        later: &[&(u64, PathBuf)],
        synced: Seq,
    ) -> Result<Losses, Error> {
        let after = read.end.seq;
        let mut losses = Losses { after, synced, ..Losses::default() };
        losses.search(&bytes[read.end.byte as usize..], read.header.salt(), after);
        for (number, path) in later {
            losses.search(&read_file(self.disk, path)?, salt(read.header.store, *number), after);
        }
        Ok(losses)
    }
}

/// Enters a record of a segment of this boot into what is known. `None` if its payload cannot be read.
pub(super) fn note(
    record: &Record<'_>,
    boot: u64,
    (table, outcomes): (&mut FileTable, &mut Outcomes),
    ceiling: &mut Seq,
    writes: &mut HashMap<Place, Seq>,
) -> Option<()> {
    match record.stamp.kind {
        Kind::Write => {
            let payload = WritePayload::decode(record.payload)?;
            outcomes.note(payload.head, record.stamp.seq, boot);
            for place in payload.places {
                table.wrote(&place, record.stamp.seq);
                writes.insert(place, record.stamp.seq);
            }
        }
        Kind::Loaded => {
            let (place, entry) = decode_file(record.payload)?;
            table.loaded(&place, entry);
        }
        Kind::Intent => {
            let (place, entry) = decode_file(record.payload)?;
            table.intends(&place, entry);
        }
        Kind::Done => {
            let (place, cut) = decode_done(record.payload)?;
            table.covered(&place, cut);
        }
        Kind::Ceiling => *ceiling = (*ceiling).max(decode_ceiling(record.payload)?),
        Kind::Drop => {
            let (place, head) = decode_drop(record.payload)?;
            outcomes.note(head, record.stamp.seq, boot);
            table.wrote(&place, record.stamp.seq);
            writes.insert(place, record.stamp.seq);
        }
        Kind::Carried => return None,
    }
    Some(())
}

/// Hands each valid record from `from` up to byte `limit` to `each`, until one is not valid or `each` says no; says
/// where that was.
pub(super) fn for_each_record(
    bytes: &[u8],
    salt: u64,
    from: Link,
    limit: u64,
    mut each: impl FnMut(&Record<'_>, u64) -> bool,
) -> Link {
    let mut link = from;
    let limit = (limit as usize).min(bytes.len());
    while let Some(record) = bytes.get(link.byte as usize..limit).and_then(UncheckedRecord::at_start_of) {
        let Some(record) = record.verify(salt) else { break };
        if record.stamp.previous_crc != link.crc || record.stamp.seq <= link.seq {
            break;
        }
        if !each(&record, link.byte) {
            break;
        }
        link = Link { byte: link.byte + record.stride as u64, seq: record.stamp.seq, crc: record.crc };
    }
    link
}

/// The greatest synced-through Seq named by a valid record anywhere in these bytes.
fn greatest_synced(bytes: &[u8], salt: u64, above: Seq) -> Seq {
    let mut greatest = Seq::ZERO;
    // Segments are made of whole multiples of 8, but a cut file may begin its search anywhere in them.
    for start in (0..bytes.len()).step_by(8) {
        let record = UncheckedRecord::at_start_of(&bytes[start..]).filter(|record| record.is_plausible(above));
        if let Some(record) = record.and_then(|record| record.verify(salt)) {
            greatest = greatest.max(record.stamp.synced);
        }
    }
    greatest
}

/// A range of the journal that does not change any more: what namespaces that are loaded later read from.
#[derive(Clone, Debug)]
pub(crate) struct Range {
    pub(crate) path: PathBuf,
    pub(super) salt: u64,
    pub(super) first: Link,
    pub(super) end: u64,
    /// The file, while a start goes on and as long as there is room for it.
    pub(super) bytes: Option<Arc<[u8]>>,
}

impl Range {
    /// From here on the file is read when it is needed.
    pub(crate) fn let_go(&mut self) {
        self.bytes = None;
    }
}

/// Hands every effect of every write in these ranges to `each`, in order.
pub(crate) fn for_each_effect(
    disk: &dyn Disk,
    ranges: &[Range],
    mut each: impl FnMut(Seq, &Place, EffectRef<'_>),
) -> Result<(), Error> {
    for range in ranges {
        let bytes = range.bytes.clone().map_or_else(|| read_file(disk, &range.path).map(Arc::from), Ok)?;
        let mut unread = None;
        let end = for_each_record(&bytes, range.salt, range.first, range.end, |record, offset| {
            let seq = record.stamp.seq;
            let read = match record.stamp.kind {
                Kind::Write => WritePayload::decode(record.payload)
                    .and_then(|payload| payload.for_each(|place, effect| each(seq, place, effect))),
                Kind::Drop => decode_drop(record.payload).map(|(place, _)| {
                    each(seq, &place, EffectRef { kind: EffectKind::Drop, space: 0, key: "", value: "" });
                }),
                _ => Some(()),
            };
            if read.is_none() {
                unread = Some(offset);
            }
            unread.is_none()
        });
        let bad = unread.or((end.byte != range.end).then_some(end.byte));
        if let Some(offset) = bad {
            let reason = "the journal cannot be read again as it was read at the start".to_owned();
            return Err(Error::Damage { file: range.path.clone(), offset, reason });
        }
    }
    Ok(())
}
