//! The one loop that reads JSON: it checks a value and writes its canonical text in the same pass, without recursion.
//!
//! Most text needs no change, so nothing is copied until something must change: a *run* of the input is left pending,
//! and written out only when white space or an escape interrupts it. A text that is canonical already is one run from
//! beginning to end, and is lent back.

use commonhold_proto::limits::MAX_NESTING;

use super::error::{Found, JsonError, Reason};
use super::members::{Member, Members, Object, Written};
use super::scan;

const VALUE: &str = "a value";

/// The memory that reading needs, kept from one value to the next.
#[derive(Default)]
pub(super) struct Scratch {
    out: String,
    without_duplicates: String,
    open: Vec<Open>,
    members: Members,
    pub(super) surrogates_removed: u64,
    pub(super) duplicate_keys: u64,
}

impl Scratch {
    /// The text that [`Reader::value`] or [`Reader::string`] wrote last.
    pub(super) fn written(&self) -> &str {
        if self.members.has_edits() { &self.without_duplicates } else { &self.out }
    }

    /// How much memory it keeps.
    pub(super) fn bytes(&self) -> usize {
        let texts = self.out.capacity() + self.without_duplicates.capacity();
        texts + self.open.capacity() * size_of::<Open>() + self.members.bytes()
    }

    pub(super) fn into_written(self) -> String {
        if self.members.has_edits() { self.without_duplicates } else { self.out }
    }
}

/// An array or object whose end has not been read.
enum Open {
    Array,
    Object(Object),
}

/// Where the canonical text of a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Text {
    /// In the input, between these two bytes.
    Input(usize, usize),
    /// In [`Scratch::written`].
    Scratch,
}

/// A place in a text, and what has been read of the value there.
pub(super) struct Reader<'t, 's> {
    text: &'t str,
    bytes: &'t [u8],
    /// The next byte to read.
    at: usize,
    /// Where the pending run begins; it ends at `at`.
    run: usize,
    scratch: &'s mut Scratch,
}

impl<'t, 's> Reader<'t, 's> {
    pub(super) fn new(text: &'t str, at: usize, scratch: &'s mut Scratch) -> Self {
        Self { text, bytes: text.as_bytes(), at, run: at, scratch }
    }

    pub(super) fn scratch(&self) -> &Scratch {
        self.scratch
    }

    /// The next byte, which is not white space; `None` at the end.
    pub(super) fn after_blank(&mut self) -> Option<u8> {
        self.at = scan::blank_end(self.bytes, self.at);
        self.bytes.get(self.at).copied()
    }

    /// Passes the next byte.
    pub(super) fn pass(&mut self) {
        self.at += 1;
    }

    /// How many bytes of the text are behind it.
    pub(super) fn passed(&self) -> usize {
        self.at
    }

    /// Reads one value, which begins at the next byte.
    pub(super) fn value(&mut self) -> Result<Text, JsonError> {
        let began = self.begin();
        self.tree()?;
        if self.scratch.members.has_edits() {
            self.write_run();
            let Scratch { out, without_duplicates, members, duplicate_keys, .. } = &mut *self.scratch;
            *duplicate_keys += members.duplicates();
            without_duplicates.clear();
            members.apply_edits(out, without_duplicates);
        }
        Ok(self.end(began))
    }

    /// Reads one string, which begins at the next byte.
    pub(super) fn string(&mut self) -> Result<Text, JsonError> {
        let began = self.begin();
        if self.bytes.get(self.at) != Some(&b'"') {
            return Err(self.unexpected("a key in quotes"));
        }
        self.quoted()?;
        Ok(self.end(began))
    }

    fn begin(&mut self) -> usize {
        self.scratch.out.clear();
        self.scratch.open.clear();
        self.scratch.members.reset();
        self.run = self.at;
        self.at
    }

    fn end(&mut self, began: usize) -> Text {
        if self.scratch.out.is_empty() {
            return Text::Input(began, self.at);
        }
        self.write_run();
        Text::Scratch
    }

    fn tree(&mut self) -> Result<(), JsonError> {
        loop {
            match self.bytes.get(self.at) {
                Some(b'"') => drop(self.quoted()?),
                Some(b'{') => {
                    self.enter()?;
                    if self.blank() == Some(b'}') {
                        self.at += 1;
                    } else {
                        let object = self.scratch.members.open();
                        self.scratch.open.push(Open::Object(object));
                        self.key("a key in quotes or `}`")?;
                        continue;
                    }
                }
                Some(b'[') => {
                    self.enter()?;
                    if self.blank() == Some(b']') {
                        self.at += 1;
                    } else {
                        self.scratch.open.push(Open::Array);
                        continue;
                    }
                }
                Some(b'-' | b'0'..=b'9') => self.number()?,
                Some(b't') => self.word("true", "`true`")?,
                Some(b'f') => self.word("false", "`false`")?,
                Some(b'n') => self.word("null", "`null`")?,
                Some(b'N') => self.word("NaN", "`NaN`")?,
                Some(b'I') => self.word("Infinity", "`Infinity`")?,
                _ => return Err(self.unexpected(VALUE)),
            }
            if self.after_value()? {
                return Ok(());
            }
        }
    }

    /// Ends what ends here, up to the next value. True if the outermost value has ended.
    fn after_value(&mut self) -> Result<bool, JsonError> {
        loop {
            let in_object = match self.scratch.open.last() {
                None => return Ok(true),
                Some(Open::Array) => false,
                Some(Open::Object(_)) => true,
            };
            match self.blank() {
                Some(b',') => {
                    self.at += 1;
                    self.blank();
                    if in_object {
                        self.key("a key in quotes")?;
                    }
                    return Ok(false);
                }
                Some(b'}') if in_object => {
                    let end = self.place();
                    if let Some(Open::Object(object)) = self.scratch.open.pop() {
                        self.scratch.members.close(&object, end);
                    }
                }
                Some(b']') if !in_object => drop(self.scratch.open.pop()),
                _ => return Err(self.unexpected(if in_object { "`,` or `}`" } else { "`,` or `]`" })),
            }
            self.at += 1;
        }
    }

    /// Passes an opening bracket.
    fn enter(&mut self) -> Result<(), JsonError> {
        match self.scratch.open.len() {
            MAX_NESTING.. => return Err(self.error(Reason::TooDeep)),
            // Room for what most values need, at once and not in steps.
            0 => self.scratch.open.reserve(8),
            _ => {}
        }
        self.at += 1;
        Ok(())
    }

    /// Reads a key of the innermost object, and its colon, up to the value.
    fn key(&mut self, expected: &'static str) -> Result<(), JsonError> {
        if self.bytes.get(self.at) != Some(&b'"') {
            return Err(self.unexpected(expected));
        }
        let start = self.place() + 1;
        if self.quoted()? {
            // What was changed inside lies in `out`, so its end must too: a key is compared as one slice.
            self.write_run();
        }
        let member = Member { start, end: self.place() - 1 };
        let Scratch { out, open, members, .. } = &mut *self.scratch;
        if let Some(Open::Object(object)) = open.last_mut() {
            let written = Written { out: out.as_bytes(), run: &self.bytes[self.run..self.at] };
            members.add(object, member, &written);
        }
        if self.blank() != Some(b':') {
            return Err(self.unexpected("`:`"));
        }
        self.at += 1;
        self.blank();
        Ok(())
    }

    /// Reads a string. True if its canonical text is not that of the input.
    fn quoted(&mut self) -> Result<bool, JsonError> {
        let began = self.at;
        let mut changed = false;
        self.at += 1;
        loop {
            self.at = scan::plain_end(self.bytes, self.at);
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(changed);
                }
                Some(b'\\') => changed |= self.escape()?,
                Some(&control) => return Err(self.error(Reason::ControlInString(control))),
                None => return Err(self.error(Reason::UnfinishedString { began })),
            }
        }
    }

    /// Reads an escape. True if its canonical text is not that of the input.
    fn escape(&mut self) -> Result<bool, JsonError> {
        match self.bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 2;
                Ok(false)
            }
            Some(b'/') => {
                self.write_run();
                self.run = self.at + 1; // the slash alone
                self.at += 2;
                Ok(true)
            }
            Some(b'u') => self.numbered_escape(),
            _ => {
                self.at += 1;
                Err(self.unexpected("one of the escapes `\\\" \\\\ \\/ \\b \\f \\n \\r \\t \\uXXXX`"))
            }
        }
    }

    fn numbered_escape(&mut self) -> Result<bool, JsonError> {
        let unit = self.unit(self.at + 2)?;
        let mut length = 6;
        let c = match unit {
            0xd800..0xdc00 if self.bytes[self.at + 6..].starts_with(b"\\u") => {
                let low = self.unit(self.at + 8)?;
                if (0xdc00..0xe000).contains(&low) {
                    length = 12;
                    char::from_u32(0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00))
                } else {
                    None
                }
            }
            _ => char::from_u32(unit),
        };
        let (mut plain, lower_case);
        let short = match c {
            None => {
                self.scratch.surrogates_removed += 1;
                ""
            }
            Some('"') => "\\\"",
            Some('\\') => "\\\\",
            Some('\u{8}') => "\\b",
            Some('\u{c}') => "\\f",
            Some('\n') => "\\n",
            Some('\r') => "\\r",
            Some('\t') => "\\t",
            Some('\0'..='\u{1f}') if self.bytes[self.at + 2..self.at + 6].iter().all(|b| !b.is_ascii_uppercase()) => {
                self.at += length;
                return Ok(false);
            }
            Some(c @ '\0'..='\u{1f}') => {
                lower_case = super::write::numbered(c as u8);
                std::str::from_utf8(&lower_case).expect("an escape is ASCII")
            }
            Some(c) => {
                plain = [0; 4];
                c.encode_utf8(&mut plain)
            }
        };
        self.write_run();
        self.scratch.out.push_str(short);
        self.at += length;
        self.run = self.at;
        Ok(true)
    }

    /// The four hexadecimal digits at `at`.
    fn unit(&mut self, at: usize) -> Result<u32, JsonError> {
        let mut unit = 0;
        for place in at..at + 4 {
            let digit = self.bytes.get(place).and_then(|&byte| char::from(byte).to_digit(16));
            let Some(digit) = digit else {
                self.at = place;
                return Err(self.unexpected("one of the four hexadecimal digits of `\\u`"));
            };
            unit = unit << 4 | digit;
        }
        Ok(unit)
    }

    fn number(&mut self) -> Result<(), JsonError> {
        if self.bytes[self.at] == b'-' {
            self.at += 1;
        }
        match self.bytes.get(self.at) {
            Some(b'0') => self.at += 1,
            Some(b'I') => return self.word("Infinity", "`-Infinity`"),
            _ => self.digits()?,
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.bytes.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = self.bytes.get(self.at) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let began = self.at;
        while let Some(b'0'..=b'9') = self.bytes.get(self.at) {
            self.at += 1;
        }
        if self.at == began { Err(self.unexpected("a digit")) } else { Ok(()) }
    }

    fn word(&mut self, word: &'static str, expected: &'static str) -> Result<(), JsonError> {
        if self.bytes[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            return Ok(());
        }
        self.at += word.bytes().zip(&self.bytes[self.at..]).take_while(|(one, other)| one == *other).count();
        Err(self.unexpected(expected))
    }

    /// Leaves white space out, and gives the byte after it.
    #[inline]
    fn blank(&mut self) -> Option<u8> {
        match self.bytes.get(self.at) {
            Some(b' ' | b'\n' | b'\r' | b'\t') => self.leave_blank_out(),
            next => next.copied(),
        }
    }

    fn leave_blank_out(&mut self) -> Option<u8> {
        self.write_run();
        self.at = scan::blank_end(self.bytes, self.at);
        self.run = self.at;
        self.bytes.get(self.at).copied()
    }

    /// Writes out the pending run; what was read so far is then in `out`.
    #[inline]
    fn write_run(&mut self) {
        if self.scratch.out.capacity() == 0 {
            // Most values fit at once. What is longer grows by doubling: the text may be a whole file.
            self.scratch.out.reserve(self.text.len().min(4096));
        }
        self.scratch.out.push_str(&self.text[self.run..self.at]);
        self.run = self.at;
    }

    /// Where the next byte stands in the canonical text.
    #[inline]
    fn place(&self) -> usize {
        self.scratch.out.len() + (self.at - self.run)
    }

    #[cold]
    pub(super) fn unexpected(&self, expected: &'static str) -> JsonError {
        self.error(Reason::Unexpected { found: Found::at(self.text, self.at), expected })
    }

    #[cold]
    fn error(&self, reason: Reason) -> JsonError {
        JsonError::new(self.at, reason)
    }
}
