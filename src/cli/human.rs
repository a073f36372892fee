//! Numbers, spans of time and tables as people read them. Pure, so that their looks can be tested.

use std::time::Duration;

use unicode_width::UnicodeWidthStr as _;

pub(super) use crate::engine::words::{counted, number, size};

/// What to say of lone surrogates in what was stored.
pub(super) fn surrogates_removed(count: u64) -> String {
    let were = if count == 1 { "was" } else { "were" };
    format!("{} {were} removed: half a character is none", counted(count, "lone surrogate", "lone surrogates"))
}

/// A span of time in its two greatest units: `3 d 4 h`, `12 s`, `840 ms`.
pub(super) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    if days > 0 {
        format!("{days} d {hours} h")
    } else if hours > 0 {
        format!("{hours} h {minutes} min")
    } else if minutes > 0 {
        format!("{minutes} min {} s", seconds % 60)
    } else if seconds > 0 {
        format!("{seconds} s")
    } else {
        format!("{} ms", span.as_millis())
    }
}

/// Reads a span of time as people type it: `30s`, `500ms`, `2min`; a bare number is seconds.
pub(super) fn parse_span(text: &str) -> Result<Duration, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| "a number with ms, s, min or h was expected, as 30s".to_owned())?;
    let seconds = |factor: u64| number.checked_mul(factor).map(Duration::from_secs);
    let span = match unit.trim() {
        "ms" => Some(Duration::from_millis(number)),
        "" | "s" => seconds(1),
        "m" | "min" => seconds(60),
        "h" => seconds(3_600),
        other => return Err(format!("{other:?} is no unit of time: ms, s, min and h are")),
    };
    // Nobody means more, and a clock cannot tell a time that is further off than it goes.
    span.filter(|span| *span <= LONGEST_SPAN).ok_or_else(|| format!("{text} is too long: 100 years are the most"))
}

/// Refuses what is less than makes sense, naming what is the least; `instead` says what is to be done by one who wanted none.
pub(super) fn at_least<T: Copy + PartialOrd>(value: T, least: T, least_text: &str, instead: &str) -> Result<T, String> {
    if value >= least { Ok(value) } else { Err(format!("{least_text} is the least; {instead}")) }
}

/// The longest time that is taken.
const LONGEST_SPAN: Duration = Duration::from_hours(100 * 366 * 24);

/// Reads an amount of bytes as people type it: `512MiB`, `2G`, `65536`. Units are powers of 1,024, however they are
/// written; a bare number is bytes.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| "a number with B, K, M, G or T was expected, as 512M".to_owned())?;
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(format!("{:?} is no unit of size: B, K, M, G and T are", unit.trim())),
    };
    number.checked_mul(1 << shift).ok_or_else(|| format!("{text} is more than 64 bits hold"))
}

/// How many columns of a terminal a text takes: the characters of East Asian scripts take two, accents none.
pub(super) fn width(text: &str) -> usize {
    text.width()
}

/// A text without what would move a terminal's cursor or worse: control characters, also those that turn the direction
/// of writing, are shown as escapes, `\u{1b}`.
pub(super) fn printable(text: &str) -> String {
    printable_but(text, |_| false)
}

/// The same for a text of several lines.
pub(super) fn printable_lines(text: &str) -> String {
    printable_but(text, |c| c == '\n')
}

fn printable_but(text: &str, stays: impl Fn(char) -> bool) -> String {
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if (c.is_control() || turns(c)) && !stays(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

/// A table with a head, aligned for a terminal: text to the left, numbers to the right.
pub(super) struct Table {
    columns: Vec<(&'static str, Side)>,
    rows: Vec<Vec<String>>,
}

/// To which side a column is aligned.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

impl Table {
    /// A table without rows.
    pub(super) fn new(columns: &[(&'static str, Side)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row with as many cells as there are columns.
    pub(super) fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.columns.len(), "a row has a cell for each column");
        self.rows.push(cells);
    }

    /// The lines, head first, without trailing blanks.
    pub(super) fn lines(&self) -> Vec<String> {
        let width_of = |column: usize| {
            let cells = self.rows.iter().map(|row| width(&row[column]));
            cells.chain([self.columns[column].0.len()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width_of).collect();
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let mut line = String::new();
            for (i, cell) in cells.enumerate() {
                let gap = if i == 0 { "" } else { "  " };
                let room = " ".repeat(widths[i] - width(cell));
                match self.columns[i].1 {
                    Side::Left => line.extend([gap, cell, &room]),
                    Side::Right => line.extend([gap, &room, cell]),
                }
            }
            line.truncate(line.trim_end().len());
            line
        };
        let head = line(&mut self.columns.iter().map(|(name, _)| *name));
        let rows = self.rows.iter().map(|row| line(&mut row.iter().map(String::as_str)));
        [head].into_iter().chain(rows).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_unit_and_at_most_one_decimal() {
        for (bytes, shown) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (4_404_019, "4.2 MiB"),
            (104_857_600, "100 MiB"),
            (1_048_575, "1.0 MiB"),
            (u64::MAX, "16384 PiB"),
        ] {
            assert_eq!(size(bytes), shown, "{bytes}");
        }
    }

    #[test]
    fn numbers_have_commas_between_thousands() {
        for (n, shown) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(number(n), shown);
        }
    }

    #[test]
    fn spans_show_two_units() {
        for (seconds, shown) in [(12, "12 s"), (75, "1 min 15 s"), (3_700, "1 h 1 min"), (273_600, "3 d 4 h")] {
            assert_eq!(span(Duration::from_secs(seconds)), shown);
        }
        assert_eq!(span(Duration::from_millis(840)), "840 ms");
    }

    #[test]
    fn spans_are_read_as_people_type_them() {
        for (text, millis) in [("500ms", 500), ("30s", 30_000), ("30", 30_000), ("2 min", 120_000), ("1h", 3_600_000)] {
            assert_eq!(parse_span(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "s", "-1s", "1d", "900000h", "99999999999999999999s", "9999999999999999999h"] {
            assert!(parse_span(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_too_little_is_refused_with_the_least_that_is_taken() {
        assert_eq!(at_least(1 << 20, 1 << 20, "1M", "leave it out for none"), Ok(1 << 20));
        assert_eq!(at_least(0, 1 << 20, "1M", "leave it out"), Err("1M is the least; leave it out".to_owned()));
    }

    #[test]
    fn tables_are_aligned() {
        let mut table = Table::new(&[("NAME", Side::Left), ("RECORDS", Side::Right), ("STATE", Side::Left)]);
        table.row(vec!["a".into(), "1,000".into(), String::new()]);
        table.row(vec!["tenant/b".into(), "7".into(), "dirty".into()]);
        let expected = ["NAME      RECORDS  STATE", "a           1,000", "tenant/b        7  dirty"];
        assert_eq!(table.lines(), expected);
    }

    #[test]
    fn wide_characters_take_two_columns_and_accents_none() {
        let mut table = Table::new(&[("NAME", Side::Left), ("N", Side::Right)]);
        table.row(vec!["租户/a".into(), "1".into()]);
        table.row(vec!["cafe\u{301}".into(), "2".into()]);
        table.row(vec!["plain".into(), "3".into()]);
        assert_eq!(table.lines(), ["NAME    N", "租户/a  1", "cafe\u{301}    2", "plain   3"]);
    }

    #[test]
    fn sizes_are_read_as_people_type_them() {
        for (text, bytes) in [("0", 0), ("64k", 65_536), ("512MiB", 512 << 20), ("2 G", 2 << 30), ("1tb", 1 << 40)] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "M", "-1", "1.5G", "12 parsecs", "99999999999999999999", "99999999T"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
