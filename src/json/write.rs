//! Writing: strings with the canonical escapes, namespace files in both formats, and the indented text people read.

use std::fmt;
use std::str::FromStr;

use super::scan;

/// How a namespace file is laid out. Both hold the same tokens; Python's `json.load` reads both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum FileFormat {
    /// A line for each record, in canonical text: fast to write, and `grep` and `diff` see records.
    #[default]
    Lines,
    /// The white space of Python's `json.dump(…, indent=2, ensure_ascii=False)`, as in the files of existing stores.
    Pretty,
}

impl fmt::Display for FileFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Lines => "lines",
            Self::Pretty => "pretty",
        })
    }
}

/// A file format of which nobody has heard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a file format: use `lines` or `pretty`")]
pub struct UnknownFormat(String);

impl FromStr for FileFormat {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> Result<Self, UnknownFormat> {
        match name {
            "lines" => Ok(Self::Lines),
            "pretty" => Ok(Self::Pretty),
            _ => Err(UnknownFormat(name.to_owned())),
        }
    }
}

/// Writes the bytes of a namespace file: [`begin`](Self::begin), [`record`](Self::record) for each, [`finish`](Self::finish).
///
/// All methods append to a buffer of the caller, who may write it out and empty it between any two calls.
///
/// ```
/// use commonhold::json::{FileFormat, FileWriter};
/// let mut file = Vec::new();
/// let mut writer = FileWriter::new(FileFormat::Lines);
/// writer.begin(&mut file);
/// writer.record(&mut file, "k1", r#"{"n":1}"#);
/// writer.record(&mut file, "k2", "2");
/// writer.finish(&mut file);
/// assert_eq!(file, b"{\n\"k1\":{\"n\":1},\n\"k2\":2\n}\n");
/// ```
#[derive(Debug, Clone)]
pub struct FileWriter {
    format: FileFormat,
    records: u64,
}

impl FileWriter {
    /// A writer of one file.
    pub fn new(format: FileFormat) -> Self {
        Self { format, records: 0 }
    }

    /// Writes what stands before the first record.
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        self.records = 0;
        out.push(b'{');
    }

    /// Writes one record; `canonical_value` must be canonical text.
    pub fn record(&mut self, out: &mut Vec<u8>, key: &str, canonical_value: &str) {
        if self.records > 0 {
            out.push(b',');
        }
        self.records += 1;
        out.push(b'\n');
        match self.format {
            FileFormat::Lines => {
                write_string(out, key);
                out.push(b':');
                out.extend_from_slice(canonical_value.as_bytes());
            }
            FileFormat::Pretty => {
                out.extend_from_slice(b"  ");
                write_string(out, key);
                out.extend_from_slice(b": ");
                write_indented(out, canonical_value, 2, 2);
            }
        }
    }

    /// Writes what stands after the last record.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if self.records > 0 {
            out.push(b'\n');
        }
        out.push(b'}');
        if self.format == FileFormat::Lines {
            out.push(b'\n');
        }
    }
}

/// Appends `text` as a JSON string, quotes included, with the canonical escapes (those of Python's
/// `ensure_ascii=False`).
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    out.push(b'"');
    let mut from = 0;
    loop {
        let stop = scan::plain_end(bytes, from);
        out.extend_from_slice(&bytes[from..stop]);
        let Some(&byte) = bytes.get(stop) else { break };
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            control => out.extend_from_slice(&numbered(control)),
        }
        from = stop + 1;
    }
    out.push(b'"');
}

/// `\u00xx` of a control character.
pub(super) fn numbered(control: u8) -> [u8; 6] {
    let digit = |digit: u8| b"0123456789abcdef"[usize::from(digit)];
    [b'\\', b'u', b'0', b'0', digit(control >> 4), digit(control & 15)]
}

/// What a canonical string (without its quotes) says; written into `out`, in place of what is there.
pub(super) fn unescape<'o>(canonical: &str, out: &'o mut String) -> &'o str {
    out.clear();
    let mut rest = canonical;
    while let Some(place) = memchr::memchr(b'\\', rest.as_bytes()) {
        out.push_str(&rest[..place]);
        let (c, length) = match rest.as_bytes()[place + 1] {
            b'b' => ('\u{8}', 2),
            b'f' => ('\u{c}', 2),
            b'n' => ('\n', 2),
            b'r' => ('\r', 2),
            b't' => ('\t', 2),
            b'u' => {
                let code = u8::from_str_radix(&rest[place + 4..place + 6], 16);
                (char::from(code.expect("canonical text has two hexadecimal digits after \\u00")), 6)
            }
            itself => (char::from(itself), 2),
        };
        out.push(c);
        rest = &rest[place + length..];
    }
    out.push_str(rest);
    out
}

/// The text as people read it: what Python's `json.dumps(…, indent=indent, ensure_ascii=False)` would give around the
/// same tokens.
///
/// ```
/// let text = commonhold::json::pretty(r#"{"a":[1,2],"b":{}}"#, 2);
/// assert_eq!(text, "{\n  \"a\": [\n    1,\n    2\n  ],\n  \"b\": {}\n}");
/// ```
pub fn pretty(canonical: &str, indent: usize) -> String {
    let mut out = Vec::with_capacity(canonical.len() * 2);
    write_indented(&mut out, canonical, indent, 0);
    String::from_utf8(out).expect("only ASCII was added, and between characters")
}

/// Appends canonical text with line breaks, as it stands at `margin` spaces. A depth is all that must be known, as
/// each bracket says itself what it is.
fn write_indented(out: &mut Vec<u8>, canonical: &str, indent: usize, mut margin: usize) {
    let bytes = canonical.as_bytes();
    let mut from = 0;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at += 1;
                while bytes.get(at).is_some_and(|&byte| byte != b'"') {
                    // In canonical text only a backslash or the closing quote stops the scan.
                    at += if bytes[at] == b'\\' { 2 } else { 0 };
                    at = scan::plain_end(bytes, at);
                }
            }
            b'{' | b'[' if !matches!(bytes.get(at + 1), Some(b'}' | b']')) => {
                out.extend_from_slice(&bytes[from..=at]);
                from = at + 1;
                margin += indent;
                new_line(out, margin);
            }
            b'{' | b'[' => at += 1,
            b'}' | b']' => {
                out.extend_from_slice(&bytes[from..at]);
                from = at;
                margin -= indent;
                new_line(out, margin);
            }
            b',' => {
                out.extend_from_slice(&bytes[from..=at]);
                from = at + 1;
                new_line(out, margin);
            }
            b':' => {
                out.extend_from_slice(&bytes[from..=at]);
                from = at + 1;
                out.push(b' ');
            }
            _ => {}
        }
        at += 1;
    }
    out.extend_from_slice(&bytes[from..]);
}

fn new_line(out: &mut Vec<u8>, margin: usize) {
    out.push(b'\n');
    out.resize(out.len() + margin, b' ');
}
