//! Just enough of Rust's grammar to read the paths that a source names: comments, strings and characters are skipped,
//! `use` groups are unfolded.

/// A word or a punctuation mark of the source, and the line it stands on, from 1.
#[derive(Debug)]
pub(crate) struct Token {
    pub(crate) word: String,
    pub(crate) line: usize,
}

impl Token {
    pub(crate) fn is(&self, word: &str) -> bool {
        self.word == word
    }

    fn is_name(&self) -> bool {
        self.word.starts_with(|c: char| c.is_alphabetic() || c == '_')
    }
}

/// The source as words and marks; `::` is one mark. Comments, strings, characters and lifetimes are left out.
pub(crate) fn tokens(text: &str) -> Vec<Token> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let (mut at, mut line) = (0, 1);
    while let Some(&byte) = bytes.get(at) {
        let rest = &text[at..];
        let (length, word) = if rest.starts_with("//") {
            (rest.find('\n').unwrap_or(rest.len()), "")
        } else if rest.starts_with("/*") {
            (block_comment(rest), "")
        } else if let Some(length) = string(rest) {
            (length, "")
        } else if byte == b'\'' {
            (character_or_lifetime(rest), "")
        } else if byte.is_ascii_alphanumeric() || byte == b'_' {
            let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            (length, &rest[..length])
        } else if rest.starts_with("::") {
            (2, "::")
        } else {
            let length = rest.chars().next().map_or(1, char::len_utf8);
            (length, rest[..length].trim())
        };
        if !word.is_empty() {
            found.push(Token { word: word.to_owned(), line });
        }
        line += text[at..at + length].matches('\n').count();
        at += length;
    }
    found
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    loop {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
        } else {
            at += rest[at..].chars().next().map_or(0, char::len_utf8);
        }
        if depth == 0 || at >= rest.len() {
            return at;
        }
    }
}

/// The length of a string literal (plain, raw, byte, C) at the beginning of `rest`.
fn string(rest: &str) -> Option<usize> {
    let prefix = rest.find(|c: char| !matches!(c, 'b' | 'c' | 'r'))?;
    if prefix > 2 {
        return None;
    }
    let raw = rest[..prefix].contains('r');
    let hashes = if raw { rest[prefix..].bytes().take_while(|byte| *byte == b'#').count() } else { 0 };
    let open = prefix + hashes;
    if rest.as_bytes().get(open) != Some(&b'"') {
        return None;
    }
    if raw {
        let close = format!("\"{}", "#".repeat(hashes));
        return Some(rest[open + 1..].find(&close).map_or(rest.len(), |at| open + 1 + at + close.len()));
    }
    let mut escaped = false;
    for (at, byte) in rest.bytes().enumerate().skip(open + 1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(at + 1),
            _ => {}
        }
    }
    Some(rest.len())
}

fn character_or_lifetime(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => rest[3..].find('\'').map_or(rest.len(), |at| 3 + at + 1),
        Some((at, c)) if rest[at + c.len_utf8()..].starts_with('\'') => at + c.len_utf8() + 1,
        _ => 1,
    }
}

/// Every path that begins with `root`, without it: (line, `a::b`). A group gives one path for each of its leaves, and
/// `root` alone gives the empty path.
pub(crate) fn paths(tokens: &[Token], root: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for at in 0..tokens.len() {
        let begins = at == 0 || !tokens[at - 1].is("::");
        if tokens[at].is(root) && begins {
            tree(tokens, at + 1, &mut Vec::new(), &mut found);
        }
    }
    found
}

/// Reads what follows a path segment: `::name…`, `::{a, b::c}`, `::*`, or the end of the path. Answers where it ended.
fn tree(tokens: &[Token], at: usize, before: &mut Vec<String>, found: &mut Vec<(usize, String)>) -> usize {
    let here = |at: usize| tokens.get(at).map_or("", |token| token.word.as_str());
    let next_is_name = tokens.get(at + 1).is_some_and(Token::is_name);
    if here(at) == "::" && (next_is_name || here(at + 1) == "*") {
        before.push(here(at + 1).to_owned());
        let end = tree(tokens, at + 2, before, found);
        before.pop();
        return end;
    }
    if here(at) == "::" && here(at + 1) == "{" {
        let mut at = at + 2;
        while at < tokens.len() && here(at) != "}" {
            if tokens[at].is_name() && here(at) != "as" {
                let own = here(at) == "self";
                before.extend((!own).then(|| here(at).to_owned()));
                at = tree(tokens, at + 1, before, found);
                if !own {
                    before.pop();
                }
            } else if here(at) == "as" {
                at += 2;
            } else {
                if here(at) == "*" {
                    found.push((tokens[at].line, [before.as_slice(), &["*".to_owned()]].concat().join("::")));
                }
                at += 1;
            }
        }
        return at + 1;
    }
    let line = tokens.get(at.saturating_sub(1)).map_or(0, |token| token.line);
    found.push((line, before.join("::")));
    at
}
