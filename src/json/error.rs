//! What is wrong with a text, and where: every error names a byte, what was found there and what was expected.

use std::fmt;

use commonhold_proto::limits::MAX_NESTING;

/// Why a text is not one JSON value, and the byte at which that shows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid JSON at byte {offset}: {reason}")]
pub struct JsonError {
    /// The byte, counted from 0 at the beginning of the text; the text's length if the text ends too early.
    pub offset: usize,
    reason: Reason,
}

impl JsonError {
    pub(super) fn new(offset: usize, reason: Reason) -> Self {
        Self { offset, reason }
    }

    /// What was found and what was expected, without the place.
    pub fn reason(&self) -> String {
        self.reason.to_string()
    }
}

/// Why the bytes of a namespace file are not one JSON object, and where that shows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column} (byte {offset}): {reason}")]
pub struct FileError {
    /// The byte, counted from 0 at the beginning of the file.
    pub offset: usize,
    /// The line, counted from 1.
    pub line: u64,
    /// The character within the line, counted from 1; a byte order mark is not counted.
    pub column: u64,
    /// What was found and what was expected, without the place.
    pub reason: String,
}

impl FileError {
    #[cold]
    pub(super) fn new(bytes: &[u8], offset: usize, reason: &Reason) -> Self {
        let before = &bytes[..offset.min(bytes.len())];
        let line = memchr::memchr_iter(b'\n', before).count() as u64 + 1;
        let line_start = memchr::memrchr(b'\n', before).map_or(0, |newline| newline + 1);
        let in_line = String::from_utf8_lossy(&before[line_start..]);
        let column = in_line.chars().filter(|&c| c != '\u{feff}').count() as u64 + 1;
        Self { offset, line, column, reason: reason.to_string() }
    }

    #[cold]
    pub(super) fn at(bytes: &[u8], error: &JsonError) -> Self {
        Self::new(bytes, error.offset, &error.reason)
    }
}

/// What stands at the place of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    End,
    Char(char),
}

impl Found {
    pub(super) fn at(text: &str, offset: usize) -> Self {
        text.get(offset..).and_then(|rest| rest.chars().next()).map_or(Self::End, Self::Char)
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::End => f.write_str("the end of the text"),
            Self::Char('`') => f.write_str("a backquote"),
            Self::Char(c) if c.is_control() || c.is_whitespace() || ('\u{fe00}'..='\u{ffff}').contains(&c) => {
                write!(f, "the character U+{:04X}", u32::from(c))
            }
            Self::Char(c) => write!(f, "`{c}`"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    Unexpected { found: Found, expected: &'static str },
    UnfinishedString { began: usize },
    ControlInString(u8),
    TooDeep,
    NotUtf8(u8),
    CutUtf8,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Unexpected { found, expected } => write!(f, "found {found} where {expected} was expected"),
            Self::UnfinishedString { began } => {
                write!(f, "found the end of the text in a string that began at byte {began}, where `\"` was expected")
            }
            Self::ControlInString(byte) => {
                write!(f, "found the raw control character U+{byte:04X} in a string, where an escape was expected")
            }
            Self::TooDeep => {
                write!(
                    f,
                    "found arrays or objects nested more than {MAX_NESTING} deep, where at most that was expected"
                )
            }
            Self::NotUtf8(byte) => write!(f, "found the byte 0x{byte:02x} where UTF-8 text was expected"),
            Self::CutUtf8 => f.write_str("found the end of the file in the middle of a UTF-8 character"),
        }
    }
}
