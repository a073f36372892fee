//! Shows where in a text something is wrong: the place in words, the text around it, and a caret below.

use super::human;

/// Most characters shown on each side of the place.
const SHOWN_CHARS: usize = 36;

/// Where a byte offset of a text lies, for people: line and column count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// The line.
    pub(super) line: usize,
    /// The column.
    pub(super) column: usize,
}

/// Finds line and column of byte `offset`, which may be the end of `text` and need not be a character boundary.
pub(super) fn position(text: &str, offset: usize) -> Position {
    let before = &text[..floor(text, offset)];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Position { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
}

/// Two lines: the text around byte `offset`, and a caret below that byte's character.
pub(super) fn excerpt(text: &str, offset: usize) -> String {
    let offset = floor(text, offset);
    let line_start = text[..offset].rfind('\n').map_or(0, |newline| newline + 1);
    let line_end = text[offset..].find('\n').map_or(text.len(), |newline| offset + newline);
    let before: Vec<char> = text[line_start..offset].chars().collect();
    let skipped = before.len().saturating_sub(SHOWN_CHARS);
    let after: Vec<char> = text[offset..line_end].chars().take(SHOWN_CHARS + 1).collect();
    let left_dots = if skipped > 0 { "…" } else { "" };
    let right_dots = if after.len() > SHOWN_CHARS { "…" } else { "" };
    let head = human::printable(&before[skipped..].iter().collect::<String>());
    let tail = human::printable(&after.iter().take(SHOWN_CHARS).collect::<String>());
    let indent = " ".repeat(human::width(left_dots) + human::width(&head));
    format!("  {left_dots}{head}{tail}{right_dots}\n  {indent}^")
}

fn floor(text: &str, offset: usize) -> usize {
    text.floor_char_boundary(offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_stands_below_the_offending_character() {
        assert_eq!(excerpt("{\"a\":1 2}", 7), "  {\"a\":1 2}\n         ^");
        assert_eq!(excerpt("租户 x", 7), "  租户 x\n       ^");
        assert_eq!(excerpt("[1,", 3), "  [1,\n     ^");
        assert_eq!(excerpt("[\n 1\n tru]\n", 6), "   tru]\n   ^");
    }

    #[test]
    fn a_long_text_is_shown_only_around_the_place() {
        let text = format!("\"{}\u{1}{}\"", "a".repeat(5_000), "b".repeat(5_000));
        let shown = excerpt(&text, 5_001);
        assert!(shown.chars().count() < 200);
        assert!(shown.contains("\\u{1}") && shown.starts_with("  …a"));
        assert_eq!(position(&text, 5_001), Position { line: 1, column: 5_002 });
        assert_eq!(position("a\nbc", 3), Position { line: 2, column: 2 });
    }
}
