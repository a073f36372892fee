//! Mutations of a corpus: few and blunt, for a fuzzer that knows what code it reaches does the rest.

use fastrand::Rng;

use super::seeds::Seed;

/// No input is made longer.
const LONGEST: usize = 64 << 10;

/// Pieces that mean something to the readers of namespace files.
const WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"",
    "\\",
    "\\u",
    "\\ud800",
    "\\udc00",
    "\\u0000",
    "null",
    "true",
    "NaN",
    "-Infinity",
    "1e400",
    "-0",
    "0.",
    "1E",
    "\u{feff}",
    "\u{2028}",
    " ",
    "\n",
    "{\"a\":",
    "\"a\":1,\"a\":2",
    "\u{1}",
];

/// Lengths and numbers at which something may give way.
const NUMBERS: &[u64] = &[
    0,
    1,
    8,
    9,
    13,
    255,
    1 << 16,
    (64 << 20) - 9,
    64 << 20,
    (64 << 20) + 1,
    1 << 31,
    u32::MAX as u64,
    1 << 40,
    u64::MAX,
];

/// One input, made of one or more of the corpus.
pub(super) fn mutated(random: &mut Rng, target: &str, corpus: &[Seed]) -> Vec<u8> {
    let mut bytes = corpus[random.usize(..corpus.len())].1.clone();
    for _ in 0..random.usize(1..8) {
        if bytes.is_empty() {
            bytes.push(random.u8(..));
        }
        edit(random, target, corpus, &mut bytes);
    }
    bytes.truncate(LONGEST);
    bytes
}

fn edit(random: &mut Rng, target: &str, corpus: &[Seed], bytes: &mut Vec<u8>) {
    let at = random.usize(..bytes.len());
    let to = (at + random.usize(1..64)).min(bytes.len());
    match random.u8(..11) {
        0 => bytes[at] ^= 1 << random.u8(..8),
        1 => bytes[at] = random.u8(..),
        2 => bytes[at] = bytes[at].wrapping_add(1),
        3 => {
            let number = NUMBERS[random.usize(..NUMBERS.len())].to_le_bytes();
            let number = &number[..[2, 4, 8][random.usize(..3)]];
            let to = (at + number.len()).min(bytes.len());
            bytes[at..to].copy_from_slice(&number[..to - at]);
        }
        4 => bytes.truncate(at),
        5 => drop(bytes.drain(at..to)),
        6 => {
            let piece = bytes[at..to].to_vec();
            let place = random.usize(..=bytes.len());
            bytes.splice(place..place, piece);
        }
        7 if target == "namespace" => {
            let word = WORDS[random.usize(..WORDS.len())];
            bytes.splice(at..at, word.bytes());
        }
        7 | 8 => {
            // Another one goes on where this one stops, without the byte that says how.
            let other = &corpus[random.usize(..corpus.len())].1;
            bytes.extend_from_slice(other.get(1..).unwrap_or_default());
        }
        9 => {
            let other = &corpus[random.usize(..corpus.len())].1;
            let from = random.usize(..=other.len());
            let to = (from + random.usize(..200)).min(other.len());
            bytes.splice(at..at, other[from..to].iter().copied());
        }
        _ => bytes[0] = random.u8(..),
    }
}
