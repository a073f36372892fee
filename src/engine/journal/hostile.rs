//! A journal of any bytes, for those who feed it some: [`fuzzing`](crate::fuzzing), which cannot see inside.
//!
//! What the reader believes is compared with the checksums, which are walked here once more: by the maps at the heads of
//! `segment.rs` and `record.rs`, and not by the code there.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use commonhold_proto::Seq;
use commonhold_proto::limits::MAX_RECORD_BYTES;
use xxhash_rust::xxh3::xxh3_64;

use super::chain::{self, Chain, Range, Reading, for_each_effect};
use super::segment::MAGIC;
use crate::engine::disk::{Disk, SimDisk};
use crate::engine::error::Error;
use crate::engine::layout::Layout;

/// More segments than these are not made of one input.
const MOST_SEGMENTS: usize = 8;

/// Segments, with their numbers, on a disk of their own.
#[derive(Debug)]
pub struct HostileJournal {
    disk: SimDisk,
    dir: PathBuf,
    layout: Layout,
    segments: Vec<u64>,
}

impl HostileJournal {
    /// Puts the journal of the store at `dir` on a disk: a segment begins wherever the bytes say so, and what is before the
    /// first is one, too.
    pub fn new(dir: &Path, bytes: &[u8]) -> Self {
        let (disk, layout) = (SimDisk::new(1), Layout::new(dir));
        disk.make_dirs(layout.journal());
        let mut begins: Vec<usize> =
            (0..bytes.len()).filter(|at| bytes[*at..].starts_with(MAGIC)).take(MOST_SEGMENTS).collect();
        if begins.first() != Some(&0) {
            begins.insert(0, 0);
        }
        let mut segments = Vec::new();
        for (index, begin) in begins.iter().enumerate() {
            let segment = &bytes[*begin..begins.get(index + 1).copied().unwrap_or(bytes.len())];
            let named = u64_at(segment, 16).filter(|_| segment.starts_with(MAGIC));
            let number = named.unwrap_or(index as u64 + 1);
            disk.write_file(layout.segment(number), segment);
            segments.push(number);
        }
        Self { disk, dir: dir.to_owned(), layout, segments }
    }

    /// Where it lies.
    pub fn disk(&self) -> &SimDisk {
        &self.disk
    }

    /// The directory of its store.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The numbers in the names of the segments.
    pub fn segments(&self) -> &[u64] {
        &self.segments
    }

    /// Reads it as a start does: each effect of a write in words, in order.
    ///
    /// # Errors
    /// What a start would answer.
    ///
    /// # Panics
    /// If something counts whose checksum is wrong.
    pub fn read(&self) -> Result<Vec<String>, Error> {
        self.read_as(Reading::Strict)
    }

    /// Reads it as a repair does that cuts it at its last good record.
    ///
    /// # Errors
    /// What a repair would answer.
    ///
    /// # Panics
    /// As [`read`](Self::read).
    pub fn read_cut(&self) -> Result<Vec<String>, Error> {
        self.read_as(Reading::Cut)
    }

    fn read_as(&self, reading: Reading) -> Result<Vec<String>, Error> {
        let chain = chain::read(&self.disk, &self.layout, reading)?;
        self.only_good_records_count(&chain);
        let ranges: Vec<Range> = chain
            .segments
            .into_iter()
            .map(|read| Range {
                salt: read.header.salt(),
                path: read.path,
                first: read.first,
                end: read.end.byte,
                bytes: read.bytes,
            })
            .collect();
        let mut told = Vec::new();
        for_each_effect(&self.disk, &ranges, |seq, place, effect| {
            let mut words = String::new();
            let (kind, key, value) = (effect.kind, effect.key, effect.value);
            write!(words, "{seq} {place} {kind:?} {key:?} {value:?}").expect("a String takes everything");
            told.push(words);
        })?;
        Ok(told)
    }

    fn only_good_records_count(&self, chain: &Chain) {
        let mut last = Seq::ZERO;
        for read in &chain.segments {
            let bytes = self.disk.read(&read.path).expect("it was just read");
            let header = header_length(&bytes).expect("a segment that counts has a header");
            let body = &bytes[..header - 8];
            assert_eq!(
                u32_at(&bytes, header - 8),
                Some(crc32fast::hash(body)),
                "a header whose checksum is wrong counts"
            );
            assert_eq!(read.first.byte, header as u64, "records begin where the header ends");
            let salt = salt_of(&bytes);
            let (mut at, mut before) = (header, read.first.crc);
            last = last.max(read.first.seq);
            while (at as u64) < read.end.byte {
                let record = record_at(&bytes, at).expect("a record that counts is whole");
                let crc = checksum(salt, record);
                assert_eq!(u32_at(record, 4), Some(crc), "the record at byte {at} counts, and its checksum is wrong");
                assert_eq!(u32_at(record, 24), Some(before), "the record at byte {at} counts and follows another one");
                let seq = Seq(u64_at(record, 8).expect("it is whole"));
                assert!(seq > last, "Seq {seq} at byte {at} counts after {last}");
                (at, before, last) = (at + record.len(), crc, seq);
            }
            assert_eq!(at as u64, read.end.byte, "what counts ends with a record");
        }
    }
}

/// Makes checksums right, as far as the bytes have the shape of segments and records: what is in them is then looked at.
pub fn seal(bytes: &mut [u8]) {
    let mut rest = bytes;
    loop {
        let next = (1..rest.len()).find(|at| rest[*at..].starts_with(MAGIC)).unwrap_or(rest.len());
        let (segment, after) = rest.split_at_mut(next);
        seal_segment(segment);
        if after.is_empty() {
            return;
        }
        rest = after;
    }
}

fn seal_segment(bytes: &mut [u8]) {
    let Some(header) = header_length(bytes) else { return };
    let salt = salt_of(bytes);
    bytes[48..56].copy_from_slice(&salt.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..header - 8]);
    bytes[header - 8..header - 4].copy_from_slice(&crc.to_le_bytes());
    bytes[header - 4..header].fill(0);
    let (mut at, mut before) = (header, u32_at(bytes, 96).expect("within the header"));
    if u64_at(bytes, 72) == Some(0) {
        before = 0;
    }
    while let Some(length) = record_at(bytes, at).map(<[u8]>::len) {
        let record = &mut bytes[at..at + length];
        record[24..28].copy_from_slice(&before.to_le_bytes());
        record[29..32].fill(0);
        before = checksum(salt, record);
        record[4..8].copy_from_slice(&before.to_le_bytes());
        at += length;
    }
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

/// Of a segment that has the shape of one.
fn header_length(segment: &[u8]) -> Option<usize> {
    let length = u32_at(segment, 12)? as usize;
    let fits = length.is_multiple_of(8) && (112..=segment.len()).contains(&length);
    (segment.starts_with(MAGIC) && fits).then_some(length)
}

fn salt_of(segment: &[u8]) -> u64 {
    xxh3_64(&[&segment[32..48], &segment[16..24]].concat())
}

/// A record and its padding, if the bytes there have that shape.
fn record_at(segment: &[u8], at: usize) -> Option<&[u8]> {
    let length = u32_at(segment, at)? as usize;
    let fits = (32..=MAX_RECORD_BYTES).contains(&length);
    segment.get(at..at + length.next_multiple_of(8)).filter(|_| fits)
}

fn checksum(salt: u64, record: &[u8]) -> u32 {
    crc32fast::hash(&[&salt.to_le_bytes()[..], &record[..4], &record[8..]].concat())
}
