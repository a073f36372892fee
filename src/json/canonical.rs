//! The canonical text of one value: what requests carry is made canonical before it is stored.

use std::borrow::Cow;
use std::fmt;

use super::error::JsonError;
use super::reader::{Reader, Scratch, Text};

/// One JSON text in its canonical form, and what had to be left out for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canonical<'a> {
    /// The canonical text; borrowed where the given text has it as it is (between white space).
    pub text: Cow<'a, str>,
    /// How many lone surrogates (`\ud800` without its other half) were removed from strings and keys.
    pub surrogates_removed: u64,
    /// How many members were left out because a later one of the same object has the same key.
    pub duplicate_keys: u64,
}

/// Checks that `text` is one JSON value as Python means it, and gives its canonical text.
///
/// Canonical is: no white space; in strings only the escapes `\" \\ \b \f \n \r \t` and `\u00xx` (lower case, for the
/// other control characters), all else as itself; surrogate pairs joined and lone surrogates removed; of members with
/// the same key, at every depth, one with the place of the first and the value of the last; number tokens byte for
/// byte. Making a canonical text canonical changes nothing and copies nothing.
///
/// # Errors
/// [`JsonError`], with the place, if `text` is not one value of RFC 8259 plus `NaN`, `Infinity` and `-Infinity`, or nests
/// deeper than [`MAX_NESTING`](commonhold_proto::limits::MAX_NESTING).
///
/// ```
/// let canonical = commonhold::json::canonical(r#" {"a": 1.10, "b": "\u00e9", "a": [NaN, 1e400]} "#)?;
/// assert_eq!(canonical.text, r#"{"a":[NaN,1e400],"b":"é"}"#);
/// assert_eq!(canonical.duplicate_keys, 1);
/// # Ok::<(), commonhold::json::JsonError>(())
/// ```
pub fn canonical(text: &str) -> Result<Canonical<'_>, JsonError> {
    Canonicalizer::default().canonical(text)
}

/// Makes one text after another canonical in the same memory, which most of them need very little of.
#[derive(Default)]
pub struct Canonicalizer(Scratch);

impl Canonicalizer {
    /// As the function [`canonical`].
    ///
    /// # Errors
    /// As that.
    pub fn canonical<'t>(&mut self, text: &'t str) -> Result<Canonical<'t>, JsonError> {
        let scratch = &mut self.0;
        (scratch.surrogates_removed, scratch.duplicate_keys) = (0, 0);
        let mut reader = Reader::new(text, 0, scratch);
        reader.after_blank();
        let value = reader.value()?;
        if reader.after_blank().is_some() {
            return Err(reader.unexpected("the end of the text"));
        }
        let (surrogates_removed, duplicate_keys) = (scratch.surrogates_removed, scratch.duplicate_keys);
        let text = match value {
            Text::Input(from, to) => Cow::Borrowed(&text[from..to]),
            // With its memory: what had to be rewritten once is not kept to be rewritten into.
            Text::Scratch => Cow::Owned(std::mem::take(scratch).into_written()),
        };
        Ok(Canonical { text, surrogates_removed, duplicate_keys })
    }
}

impl Canonicalizer {
    /// How much memory it keeps.
    pub fn bytes(&self) -> usize {
        self.0.bytes()
    }
}

impl fmt::Debug for Canonicalizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canonicalizer").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use commonhold_proto::limits::MAX_NESTING;

    #[track_caller]
    fn gives(text: &str, expected: &str) {
        assert_eq!(canonical(text).unwrap().text, expected, "from {text}");
        let again = canonical(expected).unwrap();
        assert_eq!(again.text, expected);
        assert!(matches!(again.text, Cow::Borrowed(_)), "canonical text is lent back: {expected}");
    }

    #[track_caller]
    fn fails(text: &str, offset: usize, reason: &str) {
        let error = canonical(text).unwrap_err();
        assert_eq!((error.offset, error.reason().as_str()), (offset, reason), "from {text}");
    }

    #[test]
    fn tokens_are_kept_and_white_space_is_not() {
        for token in ["0", "-0", "-0.0", "1.10", "1E5", "1e+16", "1e400", "-12.5e-07", "123456789012345678901234567890"]
        {
            gives(token, token);
            gives(&format!("\r\n\t {token} "), token);
            gives(&format!("[ {token} ,\n{token}]"), &format!("[{token},{token}]"));
        }
        for word in ["true", "false", "null", "NaN", "Infinity", "-Infinity"] {
            gives(word, word);
            gives(&format!("{{ \"a\" :{word} }}"), &format!("{{\"a\":{word}}}"));
        }
        gives("[ ]", "[]");
        gives("{\n}", "{}");
        gives(" [ [ ] , { } , \" a  b \" ] ", "[[],{},\" a  b \"]");
    }

    #[test]
    fn white_space_around_canonical_text_copies_nothing() {
        assert!(matches!(canonical("  {\"a\":[1,2]}\n").unwrap().text, Cow::Borrowed("{\"a\":[1,2]}")));
    }

    #[test]
    fn one_canonicalizer_makes_of_each_text_what_a_new_one_does() {
        let texts = [
            r#"{"id":"1","content":"plain"}"#,
            r#"{ "a" : 1, "a" : "\ud800", "b":[] }"#,
            r#"{"a":[1,{"b":2"#,
            "[[[[[[[[[[1]]]]]]]]]]",
            "",
            r#"{"k":1,"\u006b":{"\udc00":2},"l":"\u00e9"}"#,
            "\"\n\"",
            "1 2",
            r#"{"a":{"x":1,"x":2},"b":0,"a":{"y":{"z":1,"z":2},"y":{"w":3,"w":4}}}"#,
            "null",
        ];
        let mut random = fastrand::Rng::with_seed(830);
        let mut one = Canonicalizer::default();
        for _ in 0..2_000 {
            let text = texts[random.usize(..texts.len())];
            let text = &text[..if random.bool() { text.len() } else { random.usize(..=text.len()) }];
            assert_eq!(one.canonical(text), canonical(text), "{text:?}");
        }
    }

    #[test]
    fn escapes_are_only_those_that_must_be() {
        gives(r#""\/\b\f\n\r\t\"\\""#, r#""/\b\f\n\r\t\"\\""#);
        gives(
            r#""\u0041\u00e9\u00E9\u4e2d\uD83D\uDE00\u2028\u007f\uFFFE\uffff""#,
            "\"Aéé中\u{1f600}\u{2028}\x7f\u{fffe}\u{ffff}\"",
        );
        gives(
            r#""\u0000\u001f\u001F\u0008\u0009\u000A\u000c\u000D\u0022\u005C\u002f""#,
            r#""\u0000\u001f\u001f\b\t\n\f\r\"\\/""#,
        );
    }

    #[test]
    fn lone_surrogates_are_removed_and_counted() {
        for (text, expected, removed) in [
            (r#""a\ud800b\udc00c""#, r#""abc""#, 2),
            (r#""\ud83d\ud83d\ude00\ude00""#, "\"\u{1f600}\"", 2),
            (r#""\ud800\u0041""#, r#""A""#, 1),
            (r#""\ud800\n\udc00""#, r#""\n""#, 2),
            (r#"{"\udfff":"\uDBFF"}"#, r#"{"":""}"#, 2),
            (r#"{"k":1,"k\ud800":{"\udc00":2}}"#, r#"{"k":{"":2}}"#, 2),
        ] {
            let canonical = canonical(text).unwrap();
            assert_eq!((&*canonical.text, canonical.surrogates_removed), (expected, removed));
        }
    }

    #[test]
    fn of_duplicate_keys_the_place_of_the_first_and_the_value_of_the_last_stay() {
        for (text, expected, duplicates) in [
            (r#"{"a":1,"b":2,"a":3}"#, r#"{"a":3,"b":2}"#, 1),
            (r#"{"a":1,"a":2,"a":3,"b":4,"a":[5]}"#, r#"{"a":[5],"b":4}"#, 3),
            (r#"{"a":1,"b":2,"b":3,"a":4}"#, r#"{"a":4,"b":3}"#, 2),
            (r#"{"":0,"":1}"#, r#"{"":1}"#, 1),
            (r#"{"a/b":1,"x":2,"a\/b":3,"\u0061/b":4}"#, r#"{"a/b":4,"x":2}"#, 2),
            (r#"{ "a\/" : 1 , "x" : [ {"y":1, "y" : {} } ] , "a/" : 3 }"#, r#"{"a/":3,"x":[{"y":{}}]}"#, 2),
            // Duplicates within what goes, within what moves, and within what moved over it.
            (
                r#"{"a":{"x":1,"x":2},"b":0,"a":{"y":{"z":1,"z":2},"y":{"w":3,"w":4}}}"#,
                r#"{"a":{"y":{"w":4}},"b":0}"#,
                5,
            ),
            (r#"[{"a":1,"a":2},{"a":1},{"b":1,"a":2,"b":3}]"#, r#"[{"a":2},{"a":1},{"b":3,"a":2}]"#, 2),
        ] {
            let canonical = canonical(text).unwrap();
            assert_eq!((&*canonical.text, canonical.duplicate_keys), (expected, duplicates), "from {text}");
        }
    }

    #[test]
    fn duplicates_are_found_among_many_keys_at_several_depths_at_once() {
        const KEYS: usize = 3_000;
        let members = |from: usize, value: &str| -> Vec<String> {
            (from..KEYS).map(|key| format!("\"{key}\":{value}")).collect()
        };
        let once = |inner: &str| format!("{{{}}}", members(0, inner).join(","));
        let twice = |inner: &str| format!("{{{},{}}}", members(0, "0").join(","), members(0, inner).join(","));
        let deep = format!("{{\"a\":{},\"b\":{},\"a\":{}}}", once("1"), twice("2"), twice("3"));
        let wide = |inner: &str| {
            format!("{{{},\"in\":{inner},{}}}", members(0, "0").join(","), members(KEYS / 2, "1").join(","))
        };
        let text = wide(&deep);
        let canonical = canonical(&text).unwrap();
        let halves = [members(0, "0")[..KEYS / 2].join(","), members(KEYS / 2, "1").join(",")].join(",");
        let expected = format!("{{{halves},\"in\":{{\"a\":{},\"b\":{}}}}}", once("3"), once("2"));
        assert_eq!(canonical.text, expected);
        assert_eq!(canonical.duplicate_keys as usize, 2 * KEYS + KEYS / 2 + 1);
    }

    #[test]
    fn duplicates_at_every_depth_cost_one_copy() {
        let deep = (0..MAX_NESTING).fold("1".to_owned(), |inner, _| format!("{{\"k\":[],\"k\":{inner}}}"));
        // Arrays inside would nest one deeper than the objects.
        let deep = deep.replacen("[]", "0", MAX_NESTING);
        let expected = (0..MAX_NESTING).fold("1".to_owned(), |inner, _| format!("{{\"k\":{inner}}}"));
        assert_eq!(canonical(&deep).unwrap().text, expected);
    }

    #[test]
    fn nesting_ends_at_the_limit() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"a\": ", "}]")] {
            let levels = open.matches(['[', '{']).count();
            let nested = |depth: usize| format!("{}0{}", open.repeat(depth / levels), close.repeat(depth / levels));
            assert!(canonical(&nested(MAX_NESTING)).is_ok());
            let error = canonical(&nested(MAX_NESTING + levels)).unwrap_err();
            assert_eq!(error.offset, open.len() * (MAX_NESTING / levels));
            assert!(error.reason().contains("1024 deep"), "{error}");
        }
        assert_eq!(canonical(&"[".repeat(1_000_000)).unwrap_err().offset, MAX_NESTING);
    }

    #[test]
    fn errors_say_what_was_found_and_what_was_expected() {
        fails("", 0, "found the end of the text where a value was expected");
        fails(" \n", 2, "found the end of the text where a value was expected");
        fails("\u{feff}1", 0, "found the character U+FEFF where a value was expected");
        fails("1 2", 2, "found `2` where the end of the text was expected");
        fails("01", 1, "found `1` where the end of the text was expected");
        fails("[1,]", 3, "found `]` where a value was expected");
        fails("[1}", 2, "found `}` where `,` or `]` was expected");
        fails("{\"a\":1]", 6, "found `]` where `,` or `}` was expected");
        fails("{\"a\":1,}", 7, "found `}` where a key in quotes was expected");
        fails("{a:1}", 1, "found `a` where a key in quotes or `}` was expected");
        fails("{\"a\" 1}", 5, "found `1` where `:` was expected");
        fails("'a'", 0, "found `'` where a value was expected");
        fails("1.", 2, "found the end of the text where a digit was expected");
        fails("-x", 1, "found `x` where a digit was expected");
        fails("[1e+]", 4, "found `]` where a digit was expected");
        fails("+1", 0, "found `+` where a value was expected");
        fails(".5", 0, "found `.` where a value was expected");
        fails("tru ", 3, "found the character U+0020 where `true` was expected");
        fails("-Inf", 4, "found the end of the text where `-Infinity` was expected");
        fails("\"é\n\"", 3, "found the raw control character U+000A in a string, where an escape was expected");
        fails("[\"abc", 5, "found the end of the text in a string that began at byte 1, where `\"` was expected");
        fails(r#""\x""#, 2, r#"found `x` where one of the escapes `\" \\ \/ \b \f \n \r \t \uXXXX` was expected"#);
        fails(r#""\u12é""#, 5, r"found `é` where one of the four hexadecimal digits of `\u` was expected");
        fails(r#""\ud800\uzz""#, 9, r"found `z` where one of the four hexadecimal digits of `\u` was expected");
        assert_eq!(
            canonical("[").unwrap_err().to_string(),
            "invalid JSON at byte 1: found the end of the text where a value was expected"
        );
    }
}
