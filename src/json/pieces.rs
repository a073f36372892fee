//! Namespace files in pieces, so that several threads can read one: where a file can be cut, and what a piece says.
//!
//! A cut stands behind a comma that is followed by a line break and a key with the indentation of a record. In a file that was
//! written here no such comma stands inside a value, but in any other file it may, so a cut is only a guess. What proves it is
//! the piece before: a reader that begins between two records of the file's object, reads whole records and comes to the end of
//! its piece just behind a comma, is again between two records. So once all pieces are read, each to its own end, they said what
//! a reader of the whole would have said. Where one of them is not, nothing is known about the file but that it has to be read
//! as a whole.

use super::error::JsonError;
use super::load::{LoadReport, end_of_file, is_followed, member};
use super::reader::{Reader, Scratch};
use super::write::FileFormat;

/// The layout that a file begins in; `None` if that is neither of the two which are written here.
pub fn layout_of(bytes: &[u8]) -> Option<FileFormat> {
    if bytes.starts_with(b"{\n  \"") {
        Some(FileFormat::Pretty)
    } else if bytes.starts_with(b"{\n\"") {
        Some(FileFormat::Lines)
    } else {
        None
    }
}

/// What stands between two records, with the quote of the second one's key.
fn between(layout: FileFormat) -> &'static [u8] {
    match layout {
        FileFormat::Lines => b",\n\"",
        FileFormat::Pretty => b",\n  \"",
    }
}

/// The last place in `bytes` where a piece may end: just behind a comma. `None` if there is none.
pub fn cut(bytes: &[u8], layout: FileFormat) -> Option<usize> {
    memchr::memmem::rfind(bytes, between(layout)).map(|comma| comma + 1)
}

/// How many records seem to begin in a sample of a file.
pub fn records_in(sample: &[u8], layout: FileFormat) -> usize {
    memchr::memmem::find_iter(sample, between(layout)).count()
}

/// Reads pieces, one after the other and of any file; it keeps the memory that reading needs.
#[derive(Default)]
pub struct PieceReader {
    scratch: Scratch,
    key_text: String,
}

impl PieceReader {
    /// Hands each record of the piece to `record`, as [`load_object`](super::load_object) does for a whole file. The first piece
    /// begins behind the file's `{`, every other one where the one before ends; the last one ends with the file.
    ///
    /// `None` if the piece does not consist of whole records up to its end; some may have been handed over.
    pub fn read(&mut self, piece: &[u8], is_last: bool, record: &mut dyn FnMut(&str, &str)) -> Option<LoadReport> {
        let Self { scratch, key_text } = self;
        (scratch.surrogates_removed, scratch.duplicate_keys) = (0, 0);
        let text = std::str::from_utf8(piece).ok()?;
        let mut reader = Reader::new(text, 0, scratch);
        let records_seen = members(&mut reader, text, key_text, is_last, record).ok()?;
        Some(LoadReport {
            records_seen,
            surrogates_removed: scratch.surrogates_removed,
            duplicate_keys_inside: scratch.duplicate_keys,
        })
    }
}

fn members(
    reader: &mut Reader<'_, '_>,
    text: &str,
    key_text: &mut String,
    is_last: bool,
    record: &mut dyn FnMut(&str, &str),
) -> Result<u64, JsonError> {
    let mut seen = 0;
    reader.after_blank();
    loop {
        let (key, value) = member(reader, text, key_text)?;
        record(key, value);
        seen += 1;
        if !is_followed(reader)? {
            break;
        }
        if !is_last && reader.passed() == text.len() {
            return Ok(seen);
        }
    }
    if !is_last {
        return Err(reader.unexpected("a further record"));
    }
    end_of_file(reader)?;
    Ok(seen)
}
