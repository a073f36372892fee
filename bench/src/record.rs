//! The record that all sides store: a key of 14 bytes, a value of 830 bytes of JSON, as a cache of a language model's
//! answers has. No two values are the same, and their text is too random to be compressed to nothing.

use std::fmt::Write as _;
use std::sync::LazyLock;

pub const VALUE_BYTES: usize = 830;
pub const KEY_BYTES: usize = 14;

const WORDS: [&str; 24] = [
    "entity", "relation", "chunk", "summary", "query", "answer", "context", "keyword", "vector", "graph", "source",
    "document", "token", "model", "prompt", "cache", "status", "pending", "merged", "weight", "degree", "node", "edge",
    "rank",
];
/// How many different texts there are; beside them each value has its own number.
const TEXTS: usize = 64;
const HEAD: usize = r#"{"id":"0000000000","content":""#.len();

static CONTENTS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut random = fastrand::Rng::with_seed(830);
    let text = |_| {
        let mut text = String::new();
        while text.len() < VALUE_BYTES {
            text.push_str(WORDS[random.usize(..WORDS.len())]);
            let _ = write!(text, " {} ", random.u16(..));
        }
        text.truncate(VALUE_BYTES - HEAD - r#""}"#.len());
        text
    };
    (0..TEXTS).map(text).collect()
});

pub fn key(number: usize) -> String {
    format!("key-{number:010}")
}

pub fn value(number: usize) -> String {
    format!(r#"{{"id":"{number:010}","content":"{}"}}"#, content(number))
}

/// A value of 32 bytes, for the cases that go up to ten million records.
pub fn small_value(number: usize) -> String {
    format!(r#"{{"id":"{number:010}","weight":0.5}}"#)
}

/// The text in a value; LightRAG's side makes its rows of it.
pub fn content(number: usize) -> &'static str {
    &CONTENTS[number % TEXTS]
}

/// Numbers below `count`, each once, in an order that no cache can foresee.
pub fn shuffled(count: usize) -> Vec<usize> {
    let mut numbers: Vec<usize> = (0..count).collect();
    fastrand::Rng::with_seed(count as u64).shuffle(&mut numbers);
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_as_large_as_the_table_says() {
        for number in [0, 1, 999_999, 9_999_999] {
            assert_eq!((key(number).len(), value(number).len()), (KEY_BYTES, VALUE_BYTES));
            assert_eq!(small_value(number).len(), 32);
            serde_json::from_str::<serde_json::Value>(&value(number)).expect("it is JSON");
        }
    }
}
