//! Changing a value at its top level as text: what merge, increment, append and stamp do.
//!
//! A value is split into the raw slices of its members and put together again, so that whatever is not meant stays
//! byte for byte: number tokens, order, nested values. All texts here are canonical ones, in which a key has one
//! spelling and no twin; with other text the result is unspecified.

use std::ops::Range;

use super::scan::plain_end;
use super::write::write_string;

/// A member of an object, as it stands in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// With its quotes.
    pub key: &'a str,
    /// Its value's text.
    pub value: &'a str,
}

/// The members of an object, in order; `None` if the text is that of another type.
pub fn members(text: &str) -> Option<impl Iterator<Item = Member<'_>>> {
    let mut items = Items::of(text, b'{')?;
    Some(std::iter::from_fn(move || {
        let (key, value) = items.next_member()?;
        Some(Member { key: &text[key], value: &text[value] })
    }))
}

/// The elements of a list, in order; `None` if the text is that of another type.
pub fn elements(text: &str) -> Option<impl Iterator<Item = &str>> {
    let mut items = Items::of(text, b'[')?;
    Some(std::iter::from_fn(move || items.next_element().map(|range| &text[range])))
}

/// What a text is, as `an object`.
pub fn type_words(text: &str) -> &'static str {
    match text.as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "a list",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

/// How deep lists and objects nest: 0 for a scalar, 1 for `[]`.
pub fn nesting(text: &str) -> usize {
    let (bytes, mut at, mut depth, mut deepest) = (text.as_bytes(), 0, 0_usize, 0);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at = string_end(bytes, at);
                continue;
            }
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    deepest
}

/// `text` as a JSON string, quotes included: how a key is spelled in canonical text.
pub fn quoted(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len() + 2);
    write_string(&mut bytes, text);
    String::from_utf8(bytes).expect("quotes and escapes between pieces of a str leave it UTF-8")
}

/// Where the value of a member is; `key` is with its quotes. `None` if the object has no such member, or is none.
pub fn value_of(object: &str, key: &str) -> Option<Range<usize>> {
    let mut items = Items::of(object, b'{')?;
    while let Some((found, value)) = items.next_member() {
        if &object[found] == key {
            return Some(value);
        }
    }
    None
}

/// The object with one value replaced where `place` says, or else with a new member at its end.
pub fn with_value(object: &str, key: &str, place: Option<Range<usize>>, value: &str) -> String {
    let mut out = String::with_capacity(object.len() + key.len() + value.len() + 2);
    if let Some(place) = place {
        out.extend([&object[..place.start], value, &object[place.end..]]);
    } else {
        out.push_str(&object[..object.len() - 1]);
        push_member(&mut out, key, value);
        out.push('}');
    }
    out
}

fn push_member(out: &mut String, key: &str, value: &str) {
    if !out.ends_with('{') {
        out.push(',');
    }
    out.extend([key, ":", value]);
}

/// The members of a canonical object, ready to be merged into others.
#[derive(Clone, Debug)]
pub struct Fields {
    text: String,
    members: Vec<(Range<usize>, Range<usize>)>,
    /// Indexes of the members in the order of their keys: a look-up that nobody can make slow by choosing keys.
    by_key: Vec<u32>,
}

impl Fields {
    /// `None` if the text is not an object.
    pub fn of(text: String) -> Option<Self> {
        let mut items = Items::of(&text, b'{')?;
        let members: Vec<_> = std::iter::from_fn(|| items.next_member()).collect();
        let mut by_key: Vec<u32> = (0..members.len() as u32).collect();
        by_key.sort_unstable_by_key(|index| &text[members[*index as usize].0.clone()]);
        Some(Self { text, members, by_key })
    }

    /// Bytes of its text.
    pub fn bytes(&self) -> usize {
        self.text.len()
    }

    /// The object with these members set, as Python's `dict.update` does it: keys that exist keep their place, new ones
    /// go to the end. `None` if `object` is none.
    pub fn merged_into(&self, object: &str) -> Option<String> {
        let key = |index: u32| &self.text[self.members[index as usize].0.clone()];
        let value = |index: u32| &self.text[self.members[index as usize].1.clone()];
        let mut out = String::with_capacity(object.len() + self.text.len());
        let mut used = vec![false; self.members.len()];
        out.push('{');
        for member in members(object)? {
            match self.by_key.binary_search_by_key(&member.key, |index| key(*index)) {
                Ok(at) => {
                    let index = self.by_key[at];
                    used[index as usize] = true;
                    push_member(&mut out, member.key, value(index));
                }
                Err(_) => push_member(&mut out, member.key, member.value),
            }
        }
        for index in (0..self.members.len() as u32).filter(|index| !used[*index as usize]) {
            push_member(&mut out, key(index), value(index));
        }
        out.push('}');
        Some(out)
    }
}

/// The list with these items (each an element's text) after those it has, or only the last `keep_last` of all.
/// `None` if `list` is none.
pub fn appended(list: &str, items: &[&str], keep_last: Option<usize>) -> Option<String> {
    let keep = keep_last.unwrap_or(usize::MAX);
    let new = &items[items.len().saturating_sub(keep)..];
    let mut existing = Items::of(list, b'[')?;
    let mut out = String::with_capacity(list.len() + new.iter().map(|item| item.len() + 1).sum::<usize>());
    out.push('[');
    if keep == usize::MAX {
        out.push_str(&list[1..list.len() - 1]);
    } else {
        let starts: Vec<usize> = std::iter::from_fn(|| existing.next_element().map(|range| range.start)).collect();
        let wanted = (keep - new.len()).min(starts.len());
        if wanted > 0 {
            out.push_str(&list[starts[starts.len() - wanted]..list.len() - 1]);
        }
    }
    for item in new {
        if out.len() > 1 {
            out.push(',');
        }
        out.push_str(item);
    }
    out.push(']');
    Some(out)
}

/// Walks the members or elements of one object or list.
struct Items<'a> {
    bytes: &'a [u8],
    /// Where the next one begins; at the closing bracket or behind it, there is none.
    at: usize,
}

impl<'a> Items<'a> {
    fn of(text: &'a str, opens_with: u8) -> Option<Self> {
        let bytes = text.as_bytes();
        (bytes.first() == Some(&opens_with)).then_some(Self { bytes, at: 1 })
    }

    fn next_element(&mut self) -> Option<Range<usize>> {
        if self.at + 1 >= self.bytes.len() {
            return None;
        }
        let element = self.at..value_end(self.bytes, self.at);
        self.at = element.end + 1;
        Some(element)
    }

    fn next_member(&mut self) -> Option<(Range<usize>, Range<usize>)> {
        if self.at + 1 >= self.bytes.len() {
            return None;
        }
        let key = self.at..string_end(self.bytes, self.at);
        self.at = key.end + 1;
        Some((key, self.next_element()?))
    }
}

/// Behind the string that begins at `at`.
fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut at = plain_end(bytes, at + 1);
    while bytes.get(at).is_some_and(|byte| *byte != b'"') {
        // Canonical text has nothing else here than an escape; its second byte may be a quote.
        at = plain_end(bytes, at + 2);
    }
    at + 1
}

/// Behind the value that begins at `at`.
fn value_end(bytes: &[u8], mut at: usize) -> usize {
    let mut depth = 0_usize;
    loop {
        match bytes.get(at) {
            None => return bytes.len(),
            Some(b'"') => {
                at = string_end(bytes, at);
                if depth == 0 {
                    return at;
                }
                continue;
            }
            Some(b'{' | b'[') => depth += 1,
            Some(b'}' | b']') if depth <= 1 => return at + depth,
            Some(b'}' | b']') => depth -= 1,
            Some(b',') if depth == 0 => return at,
            Some(_) => {}
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::canonical;

    /// Values of every type and shape, canonical.
    fn value(rng: &mut fastrand::Rng, depth: usize) -> String {
        const SCALARS: [&str; 12] = [
            "0",
            "-1.10",
            "123456789012345678901234567890",
            "1e400",
            "NaN",
            "-Infinity",
            "true",
            "null",
            "\"\"",
            r#""a\"b\\""#,
            r#""]},{[:\u0001\\""#,
            "\"键\u{2028}\"",
        ];
        match rng.u8(..if depth == 0 { 6 } else { 10 }) {
            6 | 7 => {
                let items: Vec<_> = (0..rng.usize(..4)).map(|_| value(rng, depth - 1)).collect();
                format!("[{}]", items.join(","))
            }
            8 | 9 => object_text(&object(rng, depth - 1)),
            _ => SCALARS[rng.usize(..SCALARS.len())].to_owned(),
        }
    }

    fn object(rng: &mut fastrand::Rng, depth: usize) -> Vec<(String, String)> {
        const KEYS: [&str; 8] = ["", "a", "a\"", "\\", "b\n", "键", ":", "{"];
        let mut members: Vec<(String, String)> = Vec::new();
        for _ in 0..rng.usize(..6) {
            let key = KEYS[rng.usize(..KEYS.len())].to_owned();
            if members.iter().all(|(known, _)| *known != key) {
                members.push((key, value(rng, depth)));
            }
        }
        members
    }

    fn object_text(members: &[(String, String)]) -> String {
        let members: Vec<_> = members.iter().map(|(key, value)| format!("{}:{value}", quoted(key))).collect();
        let text = format!("{{{}}}", members.join(","));
        assert_eq!(canonical(&text).unwrap().text, text, "the test makes canonical text");
        text
    }

    #[test]
    fn an_object_comes_apart_into_the_members_that_it_was_made_of() {
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..5_000 {
            let expected = object(&mut rng, 3);
            let text = object_text(&expected);
            let found: Vec<_> =
                members(&text).unwrap().map(|member| (member.key.to_owned(), member.value.to_owned())).collect();
            let quoted_keys: Vec<_> = expected.iter().map(|(key, value)| (quoted(key), value.clone())).collect();
            assert_eq!(found, quoted_keys, "{text}");
            assert_eq!(elements(&text).map(Iterator::count), None);
            for (key, value) in &expected {
                assert_eq!(text.get(value_of(&text, &quoted(key)).unwrap()), Some(value.as_str()));
            }
            let list: Vec<_> = expected.iter().map(|(_, value)| value.as_str()).collect();
            let text = format!("[{}]", list.join(","));
            assert_eq!(elements(&text).unwrap().collect::<Vec<_>>(), list);
        }
    }

    #[test]
    fn a_merge_is_what_update_of_a_python_dict_is() {
        let mut rng = fastrand::Rng::with_seed(2);
        for _ in 0..5_000 {
            let (mut model, fields) = (object(&mut rng, 2), object(&mut rng, 2));
            let text = object_text(&model);
            for (key, value) in &fields {
                match model.iter_mut().find(|(known, _)| known == key) {
                    Some(member) => member.1.clone_from(value),
                    None => model.push((key.clone(), value.clone())),
                }
            }
            let merged = Fields::of(object_text(&fields)).unwrap().merged_into(&text).unwrap();
            assert_eq!(merged, object_text(&model), "{fields:?} into {text}");
        }
        assert!(Fields::of("[]".to_owned()).is_none());
        assert_eq!(Fields::of("{}".to_owned()).unwrap().merged_into("1"), None);
    }

    #[test]
    fn a_value_is_set_in_place_or_at_the_end() {
        let set = |text: &str, key: &str| with_value(text, key, value_of(text, key), "9");
        assert_eq!(set("{}", "\"a\""), r#"{"a":9}"#);
        assert_eq!(set(r#"{"b":{"a":1}}"#, "\"a\""), r#"{"b":{"a":1},"a":9}"#);
        assert_eq!(set(r#"{"a":[1,{"a":2}],"b":1.10}"#, "\"a\""), r#"{"a":9,"b":1.10}"#);
    }

    #[test]
    fn an_append_keeps_the_last_items_of_old_and_new_together() {
        let mut rng = fastrand::Rng::with_seed(3);
        for _ in 0..5_000 {
            let list = |rng: &mut fastrand::Rng| (0..rng.usize(..5)).map(|_| value(rng, 2)).collect::<Vec<_>>();
            let (old, new) = (list(&mut rng), list(&mut rng));
            let keep = rng.bool().then(|| rng.usize(..8));
            let all = [old.clone(), new.clone()].concat();
            let expected = &all[all.len().saturating_sub(keep.unwrap_or(usize::MAX))..];
            let items: Vec<_> = new.iter().map(String::as_str).collect();
            let text = appended(&format!("[{}]", old.join(",")), &items, keep).unwrap();
            assert_eq!(text, format!("[{}]", expected.join(",")), "{old:?} and {new:?}, keeping {keep:?}");
        }
        assert_eq!(appended("{}", &["1"], None), None);
    }

    #[test]
    fn nesting_counts_brackets_outside_of_strings() {
        for (text, depth) in [("1", 0), ("\"[[\"", 0), ("[]", 1), (r#"{"[":[{"a":"{"}],"b":[]}"#, 3)] {
            assert_eq!(nesting(text), depth, "{text}");
        }
    }
}
