//! What calls return and take, the same in every driver.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;

use commonhold_proto::Seq;
use serde::de::DeserializeOwned;

use super::error::Error;
use super::near::Held;
use crate::proto::names::shown;

/// A stored value: canonical JSON text, and the write that stored it.
///
/// The text is JSON as Python means it: it may be `NaN` or an infinity, and numbers are as they were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    text: Text,
    seq: Seq,
}

/// A text of its own, or one that the client's cache has, too.
#[derive(Clone)]
enum Text {
    Own(String),
    Kept(Held),
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Own(text) => text,
            Self::Kept(held) => held.text(),
        }
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Text {}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl Value {
    pub(super) fn new(text: &str, seq: Seq) -> Self {
        Self { text: Text::Own(text.to_owned()), seq }
    }

    pub(super) fn kept(held: Held) -> Self {
        Self { seq: held.seq, text: Text::Kept(held) }
    }

    /// The JSON text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The JSON text, without copying it unless the client keeps it, too
    /// ([`ConnectOptions::cache_bytes`](super::ConnectOptions::cache_bytes)).
    pub fn into_text(self) -> String {
        match self.text {
            Text::Own(text) => text,
            Text::Kept(held) => held.text().to_owned(),
        }
    }

    /// The write that stored it: its version, for [`Condition::IfSeq`](commonhold_proto::Condition::IfSeq).
    pub fn seq(&self) -> Seq {
        self.seq
    }
}

/// Reads a value's text as `T`.
pub(super) fn parse<T: DeserializeOwned>(key: &str, text: &str) -> Result<T, Error> {
    serde_json::from_str(text).map_err(|error| Error::NotRepresentable { key: shown(key), source: Arc::new(error) })
}

/// Writes a Rust value as JSON text.
pub(super) fn to_text<T: serde::Serialize + ?Sized>(key: &str, value: &T) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|error| Error::Json { key: shown(key), source: Arc::new(error) })
}

/// What a write did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its number in the order of the store, and the version of the records that it wrote.
    pub seq: Seq,
    /// How many keys were new.
    pub new: u64,
    /// How many keys were found: replaced, deleted or cleared.
    pub found: u64,
    /// How many lone surrogates, which are no characters, were removed from its strings.
    pub surrogates_removed: u64,
}

/// What a flush did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flushed {
    /// How many files were rewritten; the others were up to date.
    pub rewritten: u32,
    /// The files hold everything up to this write.
    pub seq: Seq,
}

/// What dropping a namespace did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// The drop's number in the order of the store.
    pub seq: Seq,
    /// How many records there were.
    pub records: u64,
}

/// How to flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlushOptions {
    /// Rewrite files even if they are up to date, as after a change of their format. Off by default.
    pub rewrite: bool,
    /// Answer when the files are up to date and not at once. On by default.
    pub wait: bool,
}

impl Default for FlushOptions {
    fn default() -> Self {
        Self { rewrite: false, wait: true }
    }
}

/// A record of a scan, or of all records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Canonical JSON text; empty, which no JSON text is, if only keys were asked for.
    pub value: String,
    /// The write that stored it.
    pub seq: Seq,
}

impl Entry {
    /// Reads the value as `T`.
    ///
    /// # Errors
    /// [`Error::NotRepresentable`], also if only keys were asked for.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, Error> {
        parse(&self.key, &self.value)
    }
}

/// Where a scan goes on. As text ([`Display`](fmt::Display) and [`FromStr`]) it can be kept and used again later, by
/// another process and after a restart of the daemon, too.
///
/// ```
/// # use commonhold::blocking::Cursor;
/// let cursor: Cursor = "3-1f-doc-12".parse()?;
/// assert_eq!(cursor.to_string(), "3-1f-doc-12");
/// # Ok::<(), commonhold::blocking::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub(super) load: u64,
    pub(super) ordinal: u64,
    pub(super) key: String,
}

impl Cursor {
    pub(super) fn from_wire(cursor: commonhold_proto::Cursor<'_>) -> Self {
        Self { load: cursor.load, ordinal: cursor.ordinal, key: cursor.key.to_owned() }
    }

    pub(super) fn to_wire(&self) -> commonhold_proto::Cursor<'_> {
        commonhold_proto::Cursor { load: self.load, ordinal: self.ordinal, key: &self.key }
    }
}

/// `<load>-<ordinal>-<key>`: two numbers in base 16, and the key as it is.
impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}-{}", self.load, self.ordinal, self.key)
    }
}

impl FromStr for Cursor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut pieces = text.splitn(3, '-');
        let mut number = || u64::from_str_radix(pieces.next()?, 16).ok();
        let (load, ordinal) = (number(), number());
        match (load, ordinal, pieces.next()) {
            (Some(load), Some(ordinal), Some(key)) => Ok(Self { load, ordinal, key: key.to_owned() }),
            _ => Err(Error::InvalidCursor { text: shown(text) }),
        }
    }
}

/// A piece of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Records in insertion order. There may be none although more follow.
    pub entries: Vec<Entry>,
    /// Where to go on; only a missing cursor is the end.
    pub next: Option<Cursor>,
    /// The last write that this page has seen.
    pub seq: Seq,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_the_same_after_it_was_text() {
        for key in ["", "k", "-", "a-b-c", "é\n-1"] {
            let cursor = Cursor { load: u64::MAX, ordinal: 10, key: key.to_owned() };
            assert_eq!(cursor.to_string().parse::<Cursor>().unwrap(), cursor);
        }
    }

    #[test]
    fn a_text_that_is_no_cursor_is_refused_by_name() {
        for text in ["", "1", "1-2", "x-2-k", "1--k", "1-2é-k", "10000000000000000-1-k"] {
            let error = text.parse::<Cursor>().unwrap_err();
            assert!(matches!(error, Error::InvalidCursor { .. }), "{text:?}: {error}");
        }
    }
}
