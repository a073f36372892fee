//! Reading a namespace's file on several processors: cut into pieces, each read, parsed and put by whichever thread is free.
//!
//! Every thread takes what is nearest to the end: put the next piece's records into the map, in the order of the file; else parse
//! a piece and make its records; else, or where few pieces wait to be parsed, read a piece and hash it. One at a time reads and
//! one at a time puts, all others parse. The pieces lie in a few buffers that go round, so a file is never in memory as a whole:
//! the most that is held beside the records is [`Plan::most_bytes`] for each buffer, and usually [`Plan::piece_bytes`].
//!
//! What a piece says counts only if all pieces together prove that it was cut off at the right places ([`PieceReader`]). If they
//! do not, or anything else is unusual, nothing comes of it, and the file has to be read as a whole: that is where errors get
//! their words and places.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZero;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use commonhold_proto::Seq;
use parking_lot::{Condvar, Mutex};
use xxhash_rust::xxh3::Xxh3;

use super::disk::DiskFile;
use super::journal::Fingerprint;
use super::map::{KeyHasher, Map, Record};
use crate::json::{self, FileFormat, LoadReport, PieceReader};

/// How a file is read in pieces.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// Files below this are read as a whole.
    pub(super) least_bytes: u64,
    /// How much is read at once; a piece ends with the last whole record in it.
    pub(super) piece_bytes: usize,
    /// A piece that would have to be longer than this, for a single record's sake, is not made.
    pub(super) most_bytes: usize,
    /// Threads, the caller's among them.
    pub(super) threads: usize,
}

/// More threads would wait for the two things that are done by one at a time.
const MOST_THREADS: usize = 8;
/// Where the file is looked at to see how many records it has, and how many bytes at each place.
const SAMPLES: u64 = 16;
const SAMPLE_BYTES: usize = 16 << 10;

impl Plan {
    /// For this machine.
    pub(super) fn usual() -> Self {
        Self {
            least_bytes: 1 << 20,
            // A piece and its records fit into a processor's own cache.
            piece_bytes: 256 << 10,
            most_bytes: 16 << 20,
            threads: thread::available_parallelism().map_or(1, NonZero::get).min(MOST_THREADS),
        }
    }
}

/// What a file holds.
pub(super) struct Loaded {
    pub(super) map: Map,
    pub(super) report: LoadReport,
    pub(super) print: Fingerprint,
}

/// Reads a file that has about so many bytes; its records get the Seq `seq`. `done_bytes` follows how far it has come. None if
/// it cannot be read in pieces: then nothing is known about it.
pub(super) fn load_in_pieces(
    file: &dyn DiskFile,
    bytes: u64,
    seq: Seq,
    plan: Plan,
    done_bytes: &AtomicU64,
) -> Option<Loaded> {
    if bytes < plan.least_bytes {
        return None;
    }
    let (layout, expected) = look_at(file, bytes)?;
    let map = Map::expecting(expected);
    let loading = Loading {
        plan,
        seq,
        done_bytes,
        layout,
        keys: map.key_hasher(),
        line: Mutex::new(Line { free: vec![Vec::new(); 2 * plan.threads + 1], ..Line::default() }),
        changed: Condvar::new(),
        source: Mutex::new(Source { file, offset: 0, carried: Vec::new(), hasher: Xxh3::new() }),
        put: Mutex::new(Put { map, report: LoadReport::default() }),
    };
    thread::scope(|scope| {
        for _ in 1..plan.threads {
            // Where there are no more threads to be had, fewer do it.
            let _ = thread::Builder::new().name("load".into()).spawn_scoped(scope, || loading.work());
        }
        loading.work();
    });
    let (line, source) = (loading.line.into_inner(), loading.source.into_inner());
    let Put { mut map, report } = loading.put.into_inner();
    if line.failed {
        return None;
    }
    map.fit(expected);
    Some(Loaded { map, report, print: Fingerprint { hash: source.hasher.digest128(), bytes: source.offset } })
}

/// The layout that the file begins in, and about how many records it has.
fn look_at(file: &dyn DiskFile, bytes: u64) -> Option<(FileFormat, usize)> {
    let mut sample = vec![0; SAMPLE_BYTES];
    let got = file.read_at(&mut sample, 0).ok()?;
    let layout = json::layout_of(&sample[..got])?;
    let (mut records, mut seen) = (0, 0);
    for place in 0..SAMPLES {
        let got = file.read_at(&mut sample, bytes / SAMPLES * place).ok()?;
        records += json::records_in(&sample[..got], layout) as u64;
        seen += got as u64;
    }
    let expected = u128::from(records) * u128::from(bytes) / u128::from(seen.max(1));
    Some((layout, json::believable(expected as u64, bytes)))
}

/// A piece of the file, in a buffer that goes round.
struct Piece {
    number: u64,
    buffer: Vec<u8>,
    /// Where in the buffer it begins and ends.
    from: usize,
    to: usize,
    is_last: bool,
}

/// Its records, with the hashes of their keys.
struct Parsed {
    records: Vec<(u64, Record)>,
    report: LoadReport,
    bytes: u64,
}

/// Where the pieces are.
#[derive(Default)]
struct Line {
    free: Vec<Vec<u8>>,
    read: VecDeque<Piece>,
    parsed: BTreeMap<u64, Parsed>,
    /// How many pieces have been read, and put.
    pieces_read: u64,
    pieces_put: u64,
    reading: Reading,
    somebody_puts: bool,
    failed: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Reading {
    #[default]
    Paused,
    GoesOn,
    IsOver,
}

enum Job {
    Read(u64, Vec<u8>),
    Parse(Piece),
    Put(Vec<Parsed>),
}

/// What only the thread that reads has in hand.
struct Source<'a> {
    file: &'a dyn DiskFile,
    offset: u64,
    /// The beginning of a record that was read with the piece before.
    carried: Vec<u8>,
    hasher: Xxh3,
}

/// What only the thread that puts has in hand.
struct Put {
    map: Map,
    report: LoadReport,
}

struct Loading<'a> {
    plan: Plan,
    seq: Seq,
    done_bytes: &'a AtomicU64,
    layout: FileFormat,
    keys: KeyHasher,
    line: Mutex<Line>,
    changed: Condvar,
    source: Mutex<Source<'a>>,
    put: Mutex<Put>,
}

/// Lets the others go if this thread panics.
struct Leaving<'l, 'a>(&'l Loading<'a>);

impl Drop for Leaving<'_, '_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.fail();
        }
    }
}

impl Line {
    /// What is nearest to the end of those things that can be done; but first a few pieces are read ahead, so that nobody waits
    /// for the one who reads.
    fn next_job(&mut self, ahead: usize) -> Option<Job> {
        if !self.somebody_puts && self.parsed.contains_key(&self.pieces_put) {
            let mut ready = Vec::new();
            while let Some(parsed) = self.parsed.remove(&(self.pieces_put + ready.len() as u64)) {
                ready.push(parsed);
            }
            self.somebody_puts = true;
            return Some(Job::Put(ready));
        }
        if self.reading == Reading::Paused
            && self.read.len() < ahead
            && let Some(buffer) = self.free.pop()
        {
            self.reading = Reading::GoesOn;
            return Some(Job::Read(self.pieces_read, buffer));
        }
        self.read.pop_front().map(Job::Parse)
    }

    fn is_over(&self) -> bool {
        self.failed || (self.reading == Reading::IsOver && self.pieces_put == self.pieces_read)
    }
}

impl Loading<'_> {
    fn work(&self) {
        let _leaving = Leaving(self);
        let mut reader = PieceReader::default();
        while let Some(job) = self.wait_for_job() {
            let done = match job {
                Job::Read(number, buffer) => self.read(number, buffer),
                Job::Parse(piece) => self.parse(piece, &mut reader),
                Job::Put(ready) => {
                    self.put(ready);
                    Some(())
                }
            };
            if done.is_none() {
                self.fail();
            }
        }
    }

    fn wait_for_job(&self) -> Option<Job> {
        let mut line = self.line.lock();
        loop {
            if line.is_over() {
                return None;
            }
            if let Some(job) = line.next_job(self.plan.threads) {
                return Some(job);
            }
            self.changed.wait(&mut line);
        }
    }

    fn change(&self, change: impl FnOnce(&mut Line)) {
        change(&mut self.line.lock());
        self.changed.notify_all();
    }

    fn fail(&self) {
        self.change(|line| line.failed = true);
    }

    /// Reads on, at least to the end of the next record.
    fn read(&self, number: u64, mut buffer: Vec<u8>) -> Option<()> {
        let source = &mut *self.source.lock();
        let mut filled = source.carried.len();
        let mut more = self.plan.piece_bytes;
        let piece = loop {
            if filled + more > self.plan.most_bytes {
                return None;
            }
            if buffer.len() < filled + more {
                buffer.resize(filled + more, 0);
            }
            buffer[..source.carried.len()].copy_from_slice(&source.carried);
            let got = source.file.read_at(&mut buffer[filled..filled + more], source.offset).ok()?;
            source.hasher.update(&buffer[filled..filled + got]);
            source.offset += got as u64;
            filled += got;
            let from = usize::from(number == 0); // behind the file's `{`
            if from > 0 && buffer[..filled].first() != Some(&b'{') {
                // Since it was looked at, another program has begun to write it anew.
                return None;
            }
            if got < more {
                break Piece { number, buffer, from, to: filled, is_last: true };
            }
            if let Some(to) = json::cut(&buffer[..filled], self.layout) {
                source.carried.clear();
                source.carried.extend_from_slice(&buffer[to..filled]);
                break Piece { number, buffer, from, to, is_last: false };
            }
            more = filled;
        };
        self.change(|line| {
            line.pieces_read += 1;
            line.reading = if piece.is_last { Reading::IsOver } else { Reading::Paused };
            line.read.push_back(piece);
        });
        Some(())
    }

    fn parse(&self, piece: Piece, reader: &mut PieceReader) -> Option<()> {
        let Piece { number, buffer, from, to, is_last } = piece;
        ask_for_room(to - from);
        let mut records = Vec::new();
        let report = reader.read(&buffer[from..to], is_last, &mut |key, value| {
            let record = Record::new(key, value);
            record.set_seq(self.seq);
            records.push((self.keys.hash(key), record));
        })?;
        let parsed = Parsed { records, report, bytes: (to - from) as u64 };
        self.change(|line| {
            line.parsed.insert(number, parsed);
            line.free.push(buffer);
        });
        Some(())
    }

    fn put(&self, ready: Vec<Parsed>) {
        let pieces = ready.len() as u64;
        let put = &mut *self.put.lock();
        for Parsed { records, report, bytes } in ready {
            for (hash, record) in records {
                put.map.put_hashed(hash, record);
            }
            put.report.records_seen += report.records_seen;
            put.report.surrogates_removed += report.surrogates_removed;
            put.report.duplicate_keys_inside += report.duplicate_keys_inside;
            self.done_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        self.change(|line| {
            line.pieces_put += pieces;
            line.somebody_puts = false;
        });
    }
}

/// Has the allocator make room for this many bytes of records at once. The heap of a thread that is not the first one otherwise
/// grows by a page at a time in glibc, with a system call for each.
fn ask_for_room(bytes: usize) {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(bytes + bytes / 4)));
}
