//! Looking through bytes many at a time: where the text of a string stops being plain, and where white space ends.
//!
//! Loading is bound by these two loops, so they read eight bytes as one word (and long strings 64 bytes at once, in a
//! form the compiler turns into vector instructions) instead of asking about each byte.

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;
const SPACES: u64 = ONES * 0x20;

/// How far a string is read word by word before the wider loop, which costs more to enter, is worth it.
const SHORT: usize = 64;

/// The place, at `at` or after, of the first byte that is not plain inside a string: `"`, `\` or a control character.
/// The length of `bytes` if there is none.
#[inline]
pub(super) fn plain_end(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    let mut passed = 0;
    while passed < SHORT {
        let Some(word) = rest[passed..].first_chunk::<8>() else { return at + plain_tail(rest, passed) };
        let stops = stops(u64::from_le_bytes(*word));
        if stops != 0 {
            return at + passed + first(stops);
        }
        passed += 8;
    }
    at + plain_end_of_long(rest, passed)
}

fn plain_end_of_long(rest: &[u8], mut passed: usize) -> usize {
    while let Some(block) = rest[passed..].first_chunk::<64>() {
        // No early exit inside the block: that is what lets it become vector compares.
        if block.iter().fold(false, |stop, &byte| stop | is_stop(byte)) {
            break;
        }
        passed += 64;
    }
    while let Some(word) = rest[passed..].first_chunk::<8>() {
        let stops = stops(u64::from_le_bytes(*word));
        if stops != 0 {
            return passed + first(stops);
        }
        passed += 8;
    }
    plain_tail(rest, passed)
}

fn plain_tail(rest: &[u8], passed: usize) -> usize {
    rest[passed..].iter().position(|&byte| is_stop(byte)).map_or(rest.len(), |more| passed + more)
}

fn is_stop(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// The high bit of each byte that is a stop. A borrow may set bits above a true one, never below it, so the lowest
/// bit is exact.
fn stops(word: u64) -> u64 {
    let quote = word ^ (ONES * 0x22);
    let backslash = word ^ (ONES * 0x5c);
    let zero_in = |word: u64| word.wrapping_sub(ONES) & !word;
    (zero_in(quote) | zero_in(backslash) | (word.wrapping_sub(SPACES) & !word)) & HIGHS
}

fn first(marks: u64) -> usize {
    (marks.trailing_zeros() / 8) as usize
}

/// The place, at `at` or after, of the first byte that is not JSON's white space.
#[inline]
pub(super) fn blank_end(bytes: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\r' | b'\t') = bytes.get(at) {
        at += 1;
        // Indentation: a line break, then spaces.
        while let Some(word) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
            let other = u64::from_le_bytes(*word) ^ SPACES;
            at += if other == 0 { 8 } else { first(other) };
            if other != 0 {
                break;
            }
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stop_is_found_at_every_distance() {
        for length in 0..200 {
            let plain = vec![b'\x7f'; length];
            assert_eq!(plain_end(&plain, 0), length);
            for place in 0..length {
                for stop in (0..0x20).chain([b'"', b'\\']) {
                    let mut bytes = plain.clone();
                    bytes[place] = stop;
                    assert_eq!(plain_end(&bytes, 0), place, "{stop:#x} at {place} of {length}");
                    assert_eq!(plain_end(&bytes, place), place);
                    assert_eq!(plain_end(&bytes, place + 1), length);
                }
            }
        }
    }

    #[test]
    fn all_other_bytes_are_plain() {
        let bytes: Vec<u8> = (0x20..=0xff).filter(|byte| !b"\"\\".contains(byte)).collect();
        assert_eq!(plain_end(&bytes, 0), bytes.len());
    }

    #[test]
    fn white_space_ends_where_something_else_begins() {
        for spaces in 0..40 {
            for lead in ["", "\n", "\r\n", "\n\n\t", " \n"] {
                let text = format!("{lead}{}", " ".repeat(spaces));
                assert_eq!(blank_end(text.as_bytes(), 0), text.len());
                assert_eq!(blank_end(format!("{text}x        y").as_bytes(), 0), text.len());
                assert_eq!(blank_end(format!("{text}\u{a0} ").as_bytes(), 0), text.len());
            }
        }
    }
}
