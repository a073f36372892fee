//! Reads the records of an import one by one, from a stream of any length, in memory bounded by the longest record.
//!
//! The grammar is the loader's alone ([`json::load_object`]). Here only the ends of records are found: in a large object,
//! a record lies between two of the object's own braces and commas. These two bytes become `{` and `}` for a moment, and
//! the loader reads an object of one record.

use std::io::{self, Read};

use super::excerpt;
use super::first_object;
use crate::json;

/// Longest text of one record: the longest value with each character as a `\u` escape, and as much again for white
/// space. What is longer is not a record that a request could carry.
const MAX_RECORD_TEXT_BYTES: usize = 8 * crate::proto::limits::MAX_VALUE_BYTES;

/// How much is read at once.
const READ_BYTES: usize = 256 * 1024;

/// How the records of a file are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// One JSON object; its members are the records.
    Object,
    /// One `{"key":…,"value":…}` a line.
    Lines,
}

/// Where in the input a record or an error lies; lines and columns count from 1, columns in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct At {
    /// Bytes from the beginning of the input.
    pub(super) offset: u64,
    /// The line.
    pub(super) line: u64,
    /// The column.
    pub(super) column: u64,
}

/// Why there is no next record.
#[derive(Debug)]
pub(super) enum Error {
    /// The input could not be read.
    Read(io::Error),
    /// The input is not what it should be.
    Invalid {
        /// Where.
        at: At,
        /// What was found and what was expected.
        reason: String,
        /// The text around the place, with a caret.
        excerpt: String,
    },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Begin,
    /// In the object: the byte at `start` is the brace or comma before the next record.
    Inside,
    End,
}

/// The records of an input.
pub(super) struct Records<R> {
    input: R,
    layout: Layout,
    state: State,
    buffer: Vec<u8>,
    /// Where in the buffer the next record begins.
    start: usize,
    /// Where in the input `start` lies.
    at: At,
    /// Where the record lies that was given last.
    last: At,
    ended: bool,
    surrogates_removed: u64,
}

impl<R: Read> Records<R> {
    /// Begins to read.
    pub(super) fn new(input: R, layout: Layout) -> Self {
        let at = At { offset: 0, line: 1, column: 1 };
        let buffer = Vec::new();
        Self { input, layout, state: State::Begin, buffer, start: 0, at, last: at, ended: false, surrogates_removed: 0 }
    }

    /// Where the record lies that was given last.
    pub(super) fn last(&self) -> At {
        self.last
    }

    /// How many lone surrogates were removed so far.
    pub(super) fn surrogates_removed(&self) -> u64 {
        self.surrogates_removed
    }

    /// Looks at the beginning of what is to be one object, before a record of it is given: lines that hold a record each
    /// are refused, and, unless the layout `is_said`, also what could be such a line alone.
    pub(super) fn look_ahead(&mut self, is_said: bool) -> Result<(), Error> {
        if self.layout == Layout::Lines {
            return Ok(());
        }
        self.begin()?;
        if self.state == State::End {
            return Ok(());
        }
        let (mut end, mut follows) = (None, None);
        while follows.is_none() {
            let text = &self.buffer[self.start..];
            end = end.or_else(|| first_object::end(text));
            follows = end.and_then(|end| Some(end + text[end..].iter().position(|byte| !byte.is_ascii_whitespace())?));
            if follows.is_none() && (text.len() >= first_object::LOOK_BYTES || !self.fill()?) {
                break;
            }
        }
        let text = &self.buffer[self.start..];
        let object = end.map(|end| &text[..end]);
        match follows {
            Some(_) if object.is_some_and(|object| first_object::is_record(object, true)) => Err(self.invalid(
                self.start,
                "this is a record a line, {\"key\":…,\"value\":…}, and not one object: read it with --format lines",
            )),
            Some(at) => Err(self.invalid(
                self.start + at,
                "nothing may follow the object; where each line is a record, it must be {\"key\":…,\"value\":…}, and be read with --format lines",
            )),
            None if !is_said
                && (object.is_some_and(|object| first_object::is_record(object, false))
                    || first_object::begins_as_record(text)) =>
            {
                Err(self.invalid(
                    self.start,
                    "this may be a record a line, {\"key\":…,\"value\":…}, or one object with a record named \"key\": say which with --format lines or --format object",
                ))
            }
            None => Ok(()),
        }
    }

    /// Gives the next record's key and canonical value to `take`; false at the end.
    pub(super) fn next(&mut self, take: &mut dyn FnMut(&str, &str)) -> Result<bool, Error> {
        if self.state == State::Begin {
            self.begin()?;
        }
        match self.layout {
            _ if self.state == State::End => Ok(false),
            Layout::Object => self.next_member(take),
            Layout::Lines => self.next_line(take),
        }
    }

    fn begin(&mut self) -> Result<(), Error> {
        while self.buffer.len() < 3 && self.fill()? {}
        if self.buffer.starts_with(b"\xef\xbb\xbf") {
            self.start = 3;
            self.at.offset = 3;
        }
        self.state = State::Inside;
        if self.layout == Layout::Object {
            match self.skip_blank()? {
                None => self.state = State::End,
                Some(b'{') => {}
                Some(_) => return Err(self.invalid(self.start, "the file must be one JSON object, beginning with {")),
            }
        }
        Ok(())
    }

    fn next_member(&mut self, take: &mut dyn FnMut(&str, &str)) -> Result<bool, Error> {
        let end = self.find_member_end()?;
        let inside = &self.buffer[self.start + 1..end];
        let blank = inside.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        self.last = self.place_of(self.start + 1 + blank);
        let opener = self.buffer[self.start];
        let closer = self.buffer[end];
        self.buffer[self.start] = b'{';
        self.buffer[end] = b'}';
        let mut given = 0_u64;
        let loaded = json::load_object(&self.buffer[self.start..=end], &mut |key, value| {
            given += 1;
            take(key, value);
        });
        self.buffer[self.start] = opener;
        self.buffer[end] = closer;
        match loaded {
            Ok(report) => self.surrogates_removed += report.surrogates_removed,
            Err(error) => {
                let at = self.start + error.offset;
                // The loader has met the brace that stood in for the comma.
                let reason =
                    if at == end && closer == b',' { error.reason.replace("`}`", "`,`") } else { error.reason };
                return Err(self.invalid(at, reason));
            }
        }
        if given == 0 && (opener, closer) != (b'{', b'}') {
            return Err(self.invalid(end, "a record was expected between the commas"));
        }
        self.advance(end);
        if closer == b'}' {
            self.advance(end + 1);
            self.state = State::End;
            if self.skip_blank()?.is_some() {
                return Err(self.invalid(self.start, "nothing may follow the object"));
            }
        }
        Ok(given > 0)
    }

    /// Finds the comma or brace after the member that begins at `start`.
    fn find_member_end(&mut self) -> Result<usize, Error> {
        let (mut i, mut depth, mut in_string) = (1, 0_usize, false);
        loop {
            while self.start + i < self.buffer.len() {
                let here = self.start + i;
                let rest = &self.buffer[here..];
                if in_string {
                    match memchr::memchr2(b'"', b'\\', rest) {
                        // What is escaped may not have been read yet: the skip may point past the buffer's end.
                        Some(found) if rest[found] == b'\\' => i += found + 2,
                        Some(found) => {
                            in_string = false;
                            i += found + 1;
                        }
                        None => i += rest.len(),
                    }
                    continue;
                }
                match rest[0] {
                    b',' | b'}' if depth == 0 => return Ok(here),
                    b'"' => in_string = true,
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                i += 1;
            }
            let too_long = self.buffer.len() - self.start > MAX_RECORD_TEXT_BYTES;
            if too_long || !self.fill()? {
                return Err(self.unfinished(too_long));
            }
        }
    }

    /// The loader knows best what is wrong with a record whose end was not found.
    fn unfinished(&mut self, too_long: bool) -> Error {
        // Only for the loader: what is shown of the text is to be the user's.
        let opener = std::mem::replace(&mut self.buffer[self.start], b'{');
        let loaded = json::load_object(&self.buffer[self.start..], &mut |_, _| {});
        self.buffer[self.start] = opener;
        match loaded {
            Err(error) if (self.start + error.offset) < self.buffer.len() => {
                self.invalid(self.start + error.offset, error.reason)
            }
            _ if too_long => self.invalid(self.start, "no record may be as long as the text that begins here"),
            _ => self.invalid(self.buffer.len(), "the file ends within a record"),
        }
    }

    fn next_line(&mut self, take: &mut dyn FnMut(&str, &str)) -> Result<bool, Error> {
        loop {
            let Some(end) = self.find_line_end()? else {
                self.state = State::End;
                return Ok(false);
            };
            if self.buffer[self.start..end].iter().all(u8::is_ascii_whitespace) {
                self.advance((end + 1).min(self.buffer.len()));
                continue;
            }
            self.last = self.at;
            let (mut key, mut value) = (None, None);
            let loaded = json::load_object(&self.buffer[self.start..end], &mut |name, text| match name {
                "key" => key = Some(serde_json::from_str::<String>(text)),
                "value" => value = Some(text.to_owned()),
                _ => {} // `seq`, as `scan --json` writes it, and whatever later releases add
            });
            match loaded {
                Ok(report) => self.surrogates_removed += report.surrogates_removed,
                Err(error) => return Err(self.invalid(self.start + error.offset, error.reason)),
            }
            let (Some(Ok(key)), Some(value)) = (key, value) else {
                return Err(self.invalid(self.start, "a line must be {\"key\":\"…\",\"value\":…}"));
            };
            take(&key, &value);
            self.advance((end + 1).min(self.buffer.len()));
            return Ok(true);
        }
    }

    fn find_line_end(&mut self) -> Result<Option<usize>, Error> {
        let mut searched = 0;
        loop {
            if let Some(found) = memchr::memchr(b'\n', &self.buffer[self.start + searched..]) {
                return Ok(Some(self.start + searched + found));
            }
            searched = self.buffer.len() - self.start;
            if searched > MAX_RECORD_TEXT_BYTES {
                return Err(self.invalid(self.start, "no record may be as long as the line that begins here"));
            }
            if !self.fill()? {
                return Ok((searched > 0).then_some(self.buffer.len()));
            }
        }
    }

    fn skip_blank(&mut self) -> Result<Option<u8>, Error> {
        loop {
            let rest = &self.buffer[self.start..];
            let blank = rest.iter().take_while(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r')).count();
            let next = rest.get(blank).copied();
            self.advance(self.start + blank);
            if next.is_some() || !self.fill()? {
                return Ok(next);
            }
        }
    }

    /// Moves `start` forward to `to`.
    fn advance(&mut self, to: usize) {
        self.at = self.place_of(to);
        self.start = to;
    }

    fn place_of(&self, index: usize) -> At {
        let passed = &self.buffer[self.start..index];
        let characters = |bytes: &[u8]| bytes.iter().filter(|b| (**b & 0xc0) != 0x80).count() as u64;
        let offset = self.at.offset + passed.len() as u64;
        match memchr::memrchr(b'\n', passed) {
            None => At { offset, line: self.at.line, column: self.at.column + characters(passed) },
            Some(last) => {
                let lines = memchr::memchr_iter(b'\n', passed).count() as u64;
                At { offset, line: self.at.line + lines, column: 1 + characters(&passed[last + 1..]) }
            }
        }
    }

    /// Reads more, and drops what lies before `start` when it is in the way; false at the end of the input.
    fn fill(&mut self) -> Result<bool, Error> {
        if self.ended {
            return Ok(false);
        }
        self.buffer.drain(..self.start);
        self.start = 0;
        let filled = self.buffer.len();
        self.buffer.resize(filled + READ_BYTES.max(filled), 0);
        let read = loop {
            match self.input.read(&mut self.buffer[filled..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.buffer.truncate(filled + *read.as_ref().unwrap_or(&0));
        let read = read.map_err(Error::Read)?;
        self.ended = read == 0;
        Ok(!self.ended)
    }

    fn invalid(&self, index: usize, reason: impl Into<String>) -> Error {
        const AROUND_BYTES: usize = 200;
        let index = index.min(self.buffer.len());
        let before = String::from_utf8_lossy(&self.buffer[index.saturating_sub(AROUND_BYTES)..index]);
        let after = String::from_utf8_lossy(&self.buffer[index..(index + AROUND_BYTES).min(self.buffer.len())]);
        let excerpt = excerpt::excerpt(&format!("{before}{after}"), before.len());
        Error::Invalid { at: self.place_of(index.max(self.start)), reason: reason.into(), excerpt }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader that gives `step` bytes at a time, so that every boundary is met.
    struct Drip<'a>(&'a [u8], usize);

    impl Read for Drip<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let n = self.1.min(self.0.len()).min(buffer.len());
            buffer[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    fn read(text: &[u8], layout: Layout, step: usize) -> Result<Vec<(String, String)>, Error> {
        let mut records = Records::new(Drip(text, step), layout);
        let mut all = Vec::new();
        while records.next(&mut |key, value| all.push((key.to_owned(), value.to_owned())))? {}
        Ok(all)
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn an_object_gives_its_members_wherever_the_reads_end() {
        let text = "\u{feff} {\n \"a\" : [1, {\"x\": \"}],\\\"\"}],\n\"\\u79df,{\":NaN ,\"\":{} }\n ";
        let expected = pairs(&[("a", "[1,{\"x\":\"}],\\\"\"}]"), ("租,{", "NaN"), ("", "{}")]);
        for step in [1, 2, 3, 7, 1_000] {
            assert_eq!(read(text.as_bytes(), Layout::Object, step).expect("valid"), expected, "step {step}");
        }
        for empty in ["", " \n", "{}", " { } \n", "\u{feff}"] {
            assert_eq!(read(empty.as_bytes(), Layout::Object, 1).expect("valid"), pairs(&[]), "{empty:?}");
        }
    }

    #[test]
    fn lines_give_key_and_value_and_ignore_the_rest() {
        let text = "{\"key\":\"a\",\"value\":1.10}\r\n\n  \n{\"seq\":7,\"value\":{\"b\": null},\"key\":\"\\n\"}";
        let expected = pairs(&[("a", "1.10"), ("\n", "{\"b\":null}")]);
        for step in [1, 5, 1_000] {
            assert_eq!(read(text.as_bytes(), Layout::Lines, step).expect("valid"), expected, "step {step}");
        }
    }

    #[test]
    fn errors_tell_line_and_column_in_the_whole_input() {
        let cases: [(&str, Layout, u64, u64); 11] = [
            ("[1]", Layout::Object, 1, 1),
            ("{\"a\":1,}", Layout::Object, 1, 8),
            ("{\"a\":1,,\"b\":2}", Layout::Object, 1, 8),
            ("{,\"a\":1}", Layout::Object, 1, 2),
            ("{\n\"a\":1,\n\"租\":tru}\n", Layout::Object, 3, 8),
            ("{\"a\":tru,\"b\":1}", Layout::Object, 1, 9),
            ("{\"a\":1} x", Layout::Object, 1, 9),
            ("{\"a\":[1,2", Layout::Object, 1, 10),
            ("{\"key\":\"a\",\"value\":1}\n{\"key\":\"a\"}", Layout::Lines, 2, 1),
            ("{\"key\":1,\"value\":1}", Layout::Lines, 1, 1),
            ("{\"key\":\"a\",\"value\":01}", Layout::Lines, 1, 21),
        ];
        for (text, layout, line, column) in cases {
            for step in [1, 1_000] {
                match read(text.as_bytes(), layout, step) {
                    Err(Error::Invalid { at, reason, .. }) => {
                        assert_eq!((at.line, at.column), (line, column), "{text:?} by {step}: {reason}");
                    }
                    other => panic!("{text:?} gave {other:?}"),
                }
            }
        }
    }

    #[test]
    fn what_is_shown_of_the_text_is_the_text_that_was_given() {
        for step in [1, 1_000] {
            let Err(Error::Invalid { excerpt, .. }) = read(b"{\"a\":1,\"b\":", Layout::Object, step) else {
                panic!("refused")
            };
            // Of what was read before, not everything need be there any more.
            let shown = excerpt.lines().next().expect("a line").trim_start();
            assert!("{\"a\":1,\"b\":".ends_with(shown) && !shown.is_empty(), "{excerpt}");
        }
    }

    #[test]
    fn an_error_names_the_character_that_stands_in_the_file() {
        let Err(Error::Invalid { reason, .. }) = read(b"{\"a\":tru,\"b\":1}", Layout::Object, 9) else {
            panic!("refused")
        };
        assert!(reason.contains("`,`") && !reason.contains("`}`"), "{reason}");
    }

    #[test]
    fn lines_that_are_read_as_an_object_are_refused_before_the_first_record() {
        let look = |text: &str, is_said: bool, step: usize| {
            let mut records = Records::new(Drip(text.as_bytes(), step), Layout::Object);
            match records.look_ahead(is_said) {
                Err(Error::Invalid { at, reason, .. }) => Err((at.line, at.column, reason.contains("--format lines"))),
                Err(Error::Read(error)) => panic!("{error}"),
                Ok(()) => {
                    let mut given = 0;
                    while records.next(&mut |_, _| given += 1).expect("an object") {}
                    Ok(given)
                }
            }
        };
        let line = "{\"key\":\"a\",\"value\":1}\n";
        let long = format!("{{\"key\":\"a\",\"value\":\"{}\"}}\n", "x".repeat(3_000_000));
        for step in [3, 100_000] {
            assert_eq!(look(&line.repeat(2), true, step), Err((1, 1, true)));
            assert_eq!(look(&format!("\u{feff} {line} "), false, step), Err((1, 2, true)));
            assert_eq!(look(line, true, step), Ok(2));
            assert_eq!(look("{\"id\":1}\n\n{\"id\":2}\n", true, step), Err((3, 1, true)));
            for object in ["", "{}", "{\"value\":1,\"key\":2}", "{\"key\":\"a\",\"b\":1,\"value\":1}\n\n"] {
                assert!(look(object, false, step).is_ok(), "{object}");
            }
        }
        assert_eq!(look(&long, false, 100_000), Err((1, 1, true)));
        assert_eq!(look(&long, true, 100_000), Ok(2));
    }

    #[test]
    fn lone_surrogates_are_counted() {
        let mut records = Records::new(&b"{\"a\":\"\\ud800x\",\"b\":\"\\udfff\"}"[..], Layout::Object);
        while records.next(&mut |_, _| {}).expect("valid") {}
        assert_eq!(records.surrogates_removed(), 2);
    }

    #[test]
    fn memory_is_bounded_by_the_longest_record_and_not_by_the_input() {
        let record = format!("{{\"key\":\"k\",\"value\":\"{}\"}}\n", "x".repeat(1_000));
        let text = record.repeat(5_000);
        let mut records = Records::new(text.as_bytes(), Layout::Lines);
        let mut most = 0;
        while records.next(&mut |_, _| {}).expect("valid") {
            most = most.max(records.buffer.capacity());
        }
        assert!(most <= 4 * READ_BYTES, "the buffer grew to {most} bytes");
    }
}
