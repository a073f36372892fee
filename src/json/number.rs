//! Number tokens as Python understands and writes them: a token with `.`, `e`, `NaN` or `Infinity` is a float, any
//! other an integer of any length.

use std::borrow::Cow;

/// What a number token stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NumberToken {
    /// An integer that 64 bits hold.
    Int(i64),
    /// An integer beyond that.
    Big,
    /// A float; a token that no float can hold is an infinity, as in Python.
    Float(f64),
}

impl NumberToken {
    /// `None` if the text is not that of a number.
    pub fn of(text: &str) -> Option<Self> {
        match text {
            "NaN" => return Some(Self::Float(f64::NAN)),
            "Infinity" => return Some(Self::Float(f64::INFINITY)),
            "-Infinity" => return Some(Self::Float(f64::NEG_INFINITY)),
            _ => {}
        }
        if !matches!(text.as_bytes().first(), Some(b'-' | b'0'..=b'9')) {
            return None;
        }
        if text.bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E')) {
            return text.parse().ok().map(Self::Float);
        }
        Some(text.parse().map_or(Self::Big, Self::Int))
    }
}

/// A float as Python's `json.dumps` writes it, which is its `repr`: the fewest digits that read back as the same float,
/// with an exponent from 1e16 up and below 1e-4.
pub fn python_float(float: f64) -> String {
    if float.is_nan() {
        return "NaN".to_owned();
    }
    if float.is_infinite() {
        return if float > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    // Rust's exponent form has the same digits: the shortest that read back.
    let text = format!("{float:e}");
    let (sign, text) = text.strip_prefix('-').map_or(("", text.as_str()), |rest| ("-", rest));
    let (mantissa, exponent) = text.split_once('e').expect("the exponent form has an exponent");
    let exponent: i32 = exponent.parse().expect("an exponent is a small integer");
    if !(-4..16).contains(&exponent) {
        let exponent_sign = if exponent < 0 { '-' } else { '+' };
        return format!("{sign}{mantissa}e{exponent_sign}{:02}", exponent.abs());
    }
    let digits = mantissa.replace('.', "");
    if exponent < 0 {
        let zeros = "0".repeat(exponent.unsigned_abs() as usize - 1);
        return format!("{sign}0.{zeros}{digits}");
    }
    let whole = exponent.unsigned_abs() as usize + 1;
    if digits.len() <= whole {
        let zeros = "0".repeat(whole - digits.len());
        return format!("{sign}{digits}{zeros}.0");
    }
    format!("{sign}{}.{}", &digits[..whole], &digits[whole..])
}

/// A moment as whole seconds: an integer stays as it is, a float loses its fraction, and what is neither (no number, not
/// a number, infinite) is 0.
pub fn whole_seconds(token: &str) -> Cow<'_, str> {
    match NumberToken::of(token) {
        Some(NumberToken::Int(_) | NumberToken::Big) => Cow::Borrowed(token),
        Some(NumberToken::Float(float)) if float.is_finite() => {
            // Adding 0 makes -0 a plain 0, as an integer is.
            Cow::Owned(format!("{:.0}", float.trunc() + 0.0))
        }
        _ => Cow::Borrowed("0"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_python_writes_them() {
        // Each of these is what `json.dumps` of Python 3.12 gave.
        for (float, expected) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (-1.5, "-1.5"),
            (0.1 + 0.2, "0.30000000000000004"),
            (100.0, "100.0"),
            (123_456.789, "123456.789"),
            (1e15, "1000000000000000.0"),
            (9_999_999_999_999_998.0, "9999999999999998.0"),
            (1e16, "1e+16"),
            (1.5e16, "1.5e+16"),
            (1.234_567_890_123_456_8e17, "1.2345678901234568e+17"),
            (1e22, "1e+22"),
            (1e100, "1e+100"),
            (-1e300, "-1e+300"),
            (0.0001, "0.0001"),
            (0.000_123, "0.000123"),
            (0.00001, "1e-05"),
            (1.5e-7, "1.5e-07"),
            (1e-10, "1e-10"),
            (5e-324, "5e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
            (f64::MIN_POSITIVE, "2.2250738585072014e-308"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "Infinity"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(python_float(float), expected);
        }
    }

    #[test]
    fn every_float_reads_back_as_itself() {
        let mut rng = fastrand::Rng::with_seed(4);
        for _ in 0..100_000 {
            let float = f64::from_bits(rng.u64(..));
            if float.is_nan() {
                continue;
            }
            let text = python_float(float);
            match NumberToken::of(&text) {
                Some(NumberToken::Float(again)) => assert_eq!(again.to_bits(), float.to_bits(), "{text}"),
                other => panic!("{text} is {other:?}"),
            }
        }
    }

    #[test]
    fn tokens_are_integers_floats_or_neither() {
        for (text, expected) in [
            ("0", Some(NumberToken::Int(0))),
            ("-0", Some(NumberToken::Int(0))),
            ("9223372036854775807", Some(NumberToken::Int(i64::MAX))),
            ("9223372036854775808", Some(NumberToken::Big)),
            ("-9223372036854775808", Some(NumberToken::Int(i64::MIN))),
            ("1.10", Some(NumberToken::Float(1.1))),
            ("1E2", Some(NumberToken::Float(100.0))),
            ("1e400", Some(NumberToken::Float(f64::INFINITY))),
            ("-Infinity", Some(NumberToken::Float(f64::NEG_INFINITY))),
            ("null", None),
            ("\"1\"", None),
            ("[1]", None),
        ] {
            assert_eq!(NumberToken::of(text), expected, "{text}");
        }
    }

    #[test]
    fn a_moment_is_whole_seconds_or_zero() {
        for (token, expected) in [
            ("1700000000", "1700000000"),
            ("1700000000.9", "1700000000"),
            ("-1.9", "-1"),
            ("-0.5", "0"),
            ("1e20", "100000000000000000000"),
            ("123456789012345678901234567890", "123456789012345678901234567890"),
            ("NaN", "0"),
            ("-Infinity", "0"),
            ("1e400", "0"),
            ("null", "0"),
            ("\"5\"", "0"),
            ("true", "0"),
        ] {
            assert_eq!(whole_seconds(token), expected, "{token}");
        }
    }
}
