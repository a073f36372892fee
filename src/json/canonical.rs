//! The canonical text of one value: what requests carry is made canonical before it is stored.

use std::borrow::Cow;

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
    let mut scratch = Scratch::default();
    let mut reader = Reader::new(text, 0, &mut scratch);
    reader.after_blank();
    let value = reader.value()?;
    if reader.after_blank().is_some() {
        return Err(reader.unexpected("the end of the text"));
    }
    let (surrogates_removed, duplicate_keys) = (scratch.surrogates_removed, scratch.duplicate_keys);
    let text = match value {
        Text::Input(from, to) => Cow::Borrowed(&text[from..to]),
        Text::Scratch => Cow::Owned(scratch.into_written()),
    };
    Ok(Canonical { text, surrogates_removed, duplicate_keys })
}
