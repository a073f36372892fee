//! Reading a namespace file: everything that Python's `json.dump` can have written, record by record.

use std::sync::atomic::{AtomicU64, Ordering};

use super::error::{FileError, JsonError, Reason};
use super::pieces::layout_of;
use super::reader::{Reader, Scratch, Text};
use super::write::{FileFormat, unescape};

const BYTE_ORDER_MARK: &str = "\u{feff}";

/// What was noticed while a namespace file was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LoadReport {
    /// Records in the file; of those with the same key each is counted.
    pub records_seen: u64,
    /// Lone surrogates (`\ud800` without its other half) removed from strings and keys, those of records included.
    pub surrogates_removed: u64,
    /// Members left out inside values because a later one of the same object has the same key.
    pub duplicate_keys_inside: u64,
}

/// No record is expected to take fewer bytes than this, so that no file can claim room for more records than it has.
const LEAST_BYTES_A_RECORD: u64 = 32;

/// About how many records a namespace file has, told by its line ends alone: for those who make room before they load.
/// 0 where the file is in neither of the two layouts that are written here.
pub fn expected_records(bytes: &[u8]) -> usize {
    let records = match layout_of(bytes) {
        Some(FileFormat::Pretty) => memchr::memmem::find_iter(bytes, b"\n  \"").count(),
        Some(FileFormat::Lines) => memchr::memchr_iter(b'\n', bytes).count().saturating_sub(2),
        None => 0,
    };
    believable(records as u64, bytes.len() as u64)
}

/// This number of records, or as many as a file of this size may claim.
pub fn believable(records: u64, file_bytes: u64) -> usize {
    records.min(file_bytes / LEAST_BYTES_A_RECORD) as usize
}

/// Reads the bytes of a namespace file and hands each record, in the order of the file, to `record`: its key, and its
/// value in canonical text (see [`canonical`](super::canonical())). A key that is there twice is handed over twice.
///
/// A byte order mark may lead; a file that is empty or blank has no records. No limit on lengths applies, only that on
/// nesting. Nothing is allocated for a record; the strings are valid during the call only.
///
/// # Errors
/// [`FileError`], with byte, line and column, if the bytes are not one JSON object in UTF-8. Records before the error may
/// have been handed over.
pub fn load_object(bytes: &[u8], record: &mut dyn FnMut(&str, &str)) -> Result<LoadReport, FileError> {
    load_object_telling(bytes, &AtomicU64::new(0), record)
}

/// As [`load_object`]; how many bytes have been read stands in `done_bytes`, for those who look on.
///
/// # Errors
/// As [`load_object`].
pub fn load_object_telling(
    bytes: &[u8],
    done_bytes: &AtomicU64,
    record: &mut dyn FnMut(&str, &str),
) -> Result<LoadReport, FileError> {
    let text = utf8(bytes)?;
    let mut scratch = Scratch::default();
    let mut key_text = String::new();
    let mut report = LoadReport::default();
    let at = if text.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
    let mut reader = Reader::new(text, at, &mut scratch);
    let mut members = || {
        match reader.after_blank() {
            None => return Ok(()),
            Some(b'{') => reader.pass(),
            Some(_) => return Err(reader.unexpected("the `{` of a namespace file")),
        }
        let mut more = reader.after_blank() != Some(b'}');
        while more {
            let (key, value) = member(&mut reader, text, &mut key_text)?;
            record(key, value);
            report.records_seen += 1;
            done_bytes.store(reader.passed() as u64, Ordering::Relaxed);
            more = is_followed(&mut reader)?;
        }
        end_of_file(&mut reader)
    };
    members().map_err(|error| FileError::at(bytes, &error))?;
    report.surrogates_removed = scratch.surrogates_removed;
    report.duplicate_keys_inside = scratch.duplicate_keys;
    Ok(report)
}

/// Reads a key, which begins at the next byte, and its value.
pub(super) fn member<'r>(
    reader: &'r mut Reader<'_, '_>,
    text: &'r str,
    key_text: &'r mut String,
) -> Result<(&'r str, &'r str), JsonError> {
    let key = match reader.string()? {
        Text::Input(from, to) if memchr::memchr(b'\\', &text.as_bytes()[from..to]).is_none() => &text[from + 1..to - 1],
        Text::Input(from, to) => unescape(&text[from + 1..to - 1], key_text),
        Text::Scratch => {
            let quoted = reader.scratch().written();
            unescape(&quoted[1..quoted.len() - 1], key_text)
        }
    };
    if reader.after_blank() != Some(b':') {
        return Err(reader.unexpected("`:`"));
    }
    reader.pass();
    reader.after_blank();
    let value = match reader.value()? {
        Text::Input(from, to) => &text[from..to],
        Text::Scratch => reader.scratch().written(),
    };
    Ok((key, value))
}

/// Whether a comma stands behind a member, which is then passed, and not the brace that ends the file's object.
pub(super) fn is_followed(reader: &mut Reader<'_, '_>) -> Result<bool, JsonError> {
    match reader.after_blank() {
        Some(b',') => {
            reader.pass();
            reader.after_blank();
            Ok(true)
        }
        Some(b'}') => Ok(false),
        _ => Err(reader.unexpected("`,` or `}`")),
    }
}

/// Passes the brace that ends the file's object.
pub(super) fn end_of_file(reader: &mut Reader<'_, '_>) -> Result<(), JsonError> {
    reader.pass();
    match reader.after_blank() {
        None => Ok(()),
        Some(_) => Err(reader.unexpected("the end of the file")),
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, FileError> {
    std::str::from_utf8(bytes).map_err(|error| {
        let offset = error.valid_up_to();
        let reason = if error.error_len().is_none() { Reason::CutUtf8 } else { Reason::NotUtf8(bytes[offset]) };
        FileError::new(bytes, offset, &reason)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn fails(bytes: &[u8], place: (usize, u64, u64), reason: &str) {
        let error = load_object(bytes, &mut |_, _| {}).unwrap_err();
        assert_eq!((error.offset, error.line, error.column), place, "{error}");
        assert_eq!(error.reason, reason);
    }

    #[test]
    fn errors_name_byte_line_and_column() {
        fails(b"[]", (0, 1, 1), "found `[` where the `{` of a namespace file was expected");
        fails(b"{} x", (3, 1, 4), "found `x` where the end of the file was expected");
        fails(b"{\n  \"a\": 1,\n}", (12, 3, 1), "found `}` where a key in quotes was expected");
        fails("{\"中文\": \"é\", \"b\": é}".as_bytes(), (22, 1, 18), "found `é` where a value was expected");
        fails(b"\xef\xbb\xbf{\n1}", (5, 2, 1), "found `1` where a key in quotes was expected");
        fails(b"\xef\xbb\xbf{1}", (4, 1, 2), "found `1` where a key in quotes was expected");
        fails(b"{\"a\":\n\"b\xff\"}", (8, 2, 3), "found the byte 0xff where UTF-8 text was expected");
        fails(b"{\"a\":\"\xed\xa0\x80\"}", (6, 1, 7), "found the byte 0xed where UTF-8 text was expected");
        fails(b"{\"a\":\"\xe4\xb8", (6, 1, 7), "found the end of the file in the middle of a UTF-8 character");
        fails(
            b"{\"a\":\"x\0\"}",
            (7, 1, 8),
            "found the raw control character U+0000 in a string, where an escape was expected",
        );
        fails(b"{\"a\":1", (6, 1, 7), "found the end of the text where `,` or `}` was expected");
        fails(b"{\"a\":1\n\"b\":2}", (7, 2, 1), "found `\"` where `,` or `}` was expected");
    }

    #[test]
    fn keys_are_handed_over_as_they_are_meant() {
        let mut keys = Vec::new();
        let text = r#"{"": 0, "plain": 0, "q\"uote": 0, "\u0000\u001f\b\f\n\r\t\\\/": 0, "\u4e2d\ud83d\ude00": 0, "\ud800": 0, "plain": 1}"#;
        load_object(text.as_bytes(), &mut |key, _| keys.push(key.to_owned())).unwrap();
        let expected = ["", "plain", "q\"uote", "\0\u{1f}\u{8}\u{c}\n\r\t\\/", "中\u{1f600}", "", "plain"];
        assert_eq!(keys, expected);
    }

    #[test]
    fn the_nesting_of_a_value_counts_and_not_that_of_the_file() {
        let file = |depth: usize| format!("{{\"k\": {}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(load_object(file(1024).as_bytes(), &mut |_, _| {}).is_ok());
        assert!(load_object(file(1025).as_bytes(), &mut |_, _| {}).is_err());
    }
}
