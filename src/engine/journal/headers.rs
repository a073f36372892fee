//! The segments that there are, and their headers: what begins the reading of a journal.
//!
//! A file counts by its name, which is that of a segment, letter by letter; a copy by hand under another name is none of
//! ours. A header that cannot be read is kept as such, because what lies behind it decides what that means.

use std::io;
use std::path::{Path, PathBuf};

use hashbrown::HashMap;

use super::chain::Reading;
use super::segment::{FORMAT_VERSION, HeaderError, SegmentHeader};
use crate::engine::disk::{Disk, DiskFile, How};
use crate::engine::error::Error;
use crate::engine::layout::Layout;

/// The header of each segment with its length, or why it cannot be read.
pub(super) type Headers = HashMap<u64, Result<(SegmentHeader, usize), &'static str>>;

/// No store comes to so many segments, and the Seqs that a number stands for can be counted.
const GREATEST_NUMBER: u64 = 1 << 29;

/// Whether a segment can have this path.
pub(crate) fn is_segment(layout: &Layout, path: &Path) -> bool {
    number_of(layout, path).is_some()
}

fn number_of(layout: &Layout, path: &Path) -> Option<u64> {
    let number = path.file_name()?.to_str()?.strip_suffix(".log")?.parse().ok()?;
    (number < GREATEST_NUMBER && path == layout.segment(number)).then_some(number)
}

/// The files of the segments, oldest first.
pub(super) fn list(disk: &dyn Disk, layout: &Layout) -> Result<Vec<(u64, PathBuf)>, Error> {
    let directory = layout.journal();
    let mut files = Vec::new();
    for entry in disk.list(&directory).map_err(Error::disk("list", &directory))? {
        let path = directory.join(&entry.name);
        match number_of(layout, &path) {
            Some(number) => files.push((number, path)),
            None if path.extension().is_some_and(|extension| extension == "log") => {
                tracing::warn!(file = %path.display(), "it is in the journal's directory, and no segment has this name: it does not count");
            }
            None => {}
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// Reads their headers.
///
/// # Errors
/// [`Error::NewerFormat`], [`Error::Disk`], and [`Error::Damage`] where segments of two stores are mixed, unless the journal
/// is to be cut: then those of the other store cannot be read.
pub(super) fn read(disk: &dyn Disk, files: &[(u64, PathBuf)], reading: Reading) -> Result<Headers, Error> {
    let mut headers = HashMap::new();
    for (number, path) in files {
        let bytes = read_header(disk, path).map_err(Error::disk("read", path))?;
        let header = match SegmentHeader::decode(&bytes) {
            Ok((header, _)) if header.number != *number => Err("the file's name is not that of the segment in it"),
            // Or the way back would have no end.
            Ok((header, _)) if header.predecessor.is_some_and(|before| before.segment >= *number) => {
                Err("the segment's header names a predecessor that is not before it")
            }
            Ok(read) => Ok(read),
            Err(HeaderError::Bad(reason)) => Err(reason),
            Err(HeaderError::Newer(version)) => {
                let known = FORMAT_VERSION;
                return Err(Error::NewerFormat { file: path.clone(), version, known });
            }
        };
        headers.insert(*number, header);
    }
    strangers(files, &mut headers, reading)?;
    Ok(headers)
}

/// Segments of another store among those of this one: whichever is the newest, taking it for the end of the journal would
/// give up the others. Those are the strangers that are fewer, or came later.
fn strangers(files: &[(u64, PathBuf)], headers: &mut Headers, reading: Reading) -> Result<(), Error> {
    let of = |number: &u64| headers[number].as_ref().ok().map(|(header, _)| header.store);
    let stores: Vec<u128> = files.iter().filter_map(|(number, _)| of(number)).collect();
    let count = |store: u128| stores.iter().filter(|other| **other == store).count();
    // Of as many, the first.
    let Some(ours) = stores.iter().copied().rev().max_by_key(|store| count(*store)) else { return Ok(()) };
    let strangers: Vec<&(u64, PathBuf)> =
        files.iter().filter(|(number, _)| of(number).is_some_and(|store| store != ours)).collect();
    let Some((_, file)) = strangers.first() else { return Ok(()) };
    if reading != Reading::Cut {
        let reason = format!(
            "it is a segment of another store's journal, of store {:032x}, and most of the others are of {ours:032x}: put each where it belongs",
            of(&strangers[0].0).unwrap_or_default()
        );
        return Err(Error::Damage { file: file.clone(), offset: 32, reason });
    }
    let numbers: Vec<u64> = strangers.into_iter().map(|(number, _)| *number).collect();
    for number in numbers {
        headers.insert(number, Err("it is a segment of another store's journal"));
    }
    Ok(())
}

/// The beginning of a file, as far as the header goes that it may have.
pub(super) fn read_header(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path, &How::READ)?;
    let mut bytes = vec![0; MIN_HEADER_BYTES];
    let mut got = read_up_to(&*file, &mut bytes, 0)?;
    let named = SegmentHeader::length(&bytes[..got]).min(file.stat()?.bytes as usize);
    if named > got {
        bytes.resize(named, 0);
        got += read_up_to(&*file, &mut bytes[got..], got as u64)?;
    }
    bytes.truncate(got);
    Ok(bytes)
}

fn read_up_to(file: &dyn DiskFile, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut got = 0;
    while got < bytes.len() {
        match file.read_at(&mut bytes[got..], offset + got as u64)? {
            0 => break,
            more => got += more,
        }
    }
    Ok(got)
}

/// Most headers fit into this.
const MIN_HEADER_BYTES: usize = 64 << 10;
