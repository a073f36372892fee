//! What an import's input begins with, as far as that can be told before a record of it is stored: an object that holds all
//! of it, or the first of many lines.
//!
//! Both begin with `{`. Taken for the other, a record a line would be stored as records named `key` and `value`.

use crate::json;

/// How far the end of the first object is looked for.
pub(super) const LOOK_BYTES: usize = 1024 * 1024;

/// The end of the object that `text` begins with, if it is in there. Whether it is JSON is not looked at.
pub(super) fn end(text: &[u8]) -> Option<usize> {
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(byte) = text.get(at) {
        at += 1;
        match byte {
            b'"' => at += string_end(&text[at..])?,
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth <= 1 => return Some(at),
            b'}' | b']' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// The end of a string, its opening quote left out and its closing one included.
fn string_end(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += memchr::memchr2(b'"', b'\\', text.get(at..)?)? + 1;
        if text[at - 1] == b'"' {
            return Some(at);
        }
        at += 1;
    }
}

/// Whether an object is `{"key":"…","value":…}`, in whatever order and with `seq` or without; with other members only if
/// `others` may be there.
pub(super) fn is_record(object: &[u8], others: bool) -> bool {
    let (mut key, mut value, mut other) = (false, false, false);
    let loaded = json::load_object(object, &mut |name, text| match name {
        "key" => key = text.starts_with('"'),
        "value" => value = true,
        "seq" => {}
        _ => other = true,
    });
    loaded.is_ok() && key && value && (others || !other)
}

/// Whether a text begins with `{"key":"…","value":`, as `scan` and `export` write it.
pub(super) fn begins_as_record(text: &[u8]) -> bool {
    let behind_key = after(text, &["{", "\"key\"", ":", "\""]).and_then(|rest| rest.get(string_end(rest)?..));
    behind_key.is_some_and(|rest| after(rest, &[",", "\"value\"", ":"]).is_some())
}

/// What follows these tokens, if a text begins with them.
fn after<'a>(text: &'a [u8], tokens: &[&str]) -> Option<&'a [u8]> {
    tokens.iter().try_fold(text, |text, token| text.trim_ascii_start().strip_prefix(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_objects_end_is_found_behind_strings_and_nested_values() {
        for object in ["{}", "{\"a\":{\"b\":[1,{}]}}", "{\"}\\\\\":\"\\\"}\"}", " {\"a\":\"]\"}"] {
            for more in ["", "\n{}", "x"] {
                assert_eq!(end(format!("{object}{more}").as_bytes()), Some(object.len()), "{object}");
            }
            for length in 0..object.len() {
                assert_eq!(end(&object.as_bytes()[..length]), None, "{object}");
            }
        }
    }

    #[test]
    fn a_record_is_told_from_an_object_by_its_members() {
        for record in ["{\"key\":\"a\",\"value\":1}", " { \"value\": {}, \"seq\": 7, \"key\": \"\" }"] {
            assert!(is_record(record.as_bytes(), false), "{record}");
        }
        for other in ["{}", "{\"key\":\"a\"}", "{\"key\":1,\"value\":1}", "{\"key\":\"a\",\"value\":tru}"] {
            assert!(!is_record(other.as_bytes(), true), "{other}");
        }
        let more = b"{\"key\":\"a\",\"value\":1,\"more\":2}";
        assert!(is_record(more, true) && !is_record(more, false));
        for begun in ["{\"key\":\"a\\\"\",\"value\":[1", " {\n \"key\" : \"\" , \"value\" : "] {
            assert!(begins_as_record(begun.as_bytes()), "{begun}");
        }
        for other in
            ["{", "{\"key\":\"a\",\"values\":1", "{\"key\":7,\"value\":1", "{\"key\":\"a", "{\"value\":1,\"key\":\"a\""]
        {
            assert!(!begins_as_record(other.as_bytes()), "{other}");
        }
    }
}
