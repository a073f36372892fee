//! JSON texts at random: Commonhold and Python's `json` accept the same ones and mean the same by them, canonical text
//! stays as it is, and no text, however damaged, does worse than an error with its place.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use commonhold::json::{canonical, load_object, pretty};
use fastrand::Rng;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

const SEED: u64 = 0x00c0_ffee;

/// Writes texts with all the liberties that JSON leaves: white space, escapes, duplicate keys, odd numbers.
struct Author {
    rng: Rng,
    text: String,
}

impl Author {
    fn text(rng: Rng) -> String {
        let mut author = Self { rng, text: String::new() };
        let depth = author.rng.u32(0..6);
        author.space();
        author.value(depth);
        author.space();
        author.text
    }

    fn value(&mut self, depth: u32) {
        match self.rng.u32(0..if depth == 0 { 4 } else { 9 }) {
            0 | 1 => self.string(),
            2 => {
                let number = self.one_of(&[
                    "0",
                    "-0",
                    "1.10",
                    "1E5",
                    "1e+16",
                    "-2.50e-07",
                    "1e400",
                    "340282366920938463463374607431768211457",
                    "5",
                    "17",
                    "0.1",
                ]);
                self.text.push_str(number);
            }
            3 => {
                let word = self.one_of(&["true", "false", "null", "NaN", "Infinity", "-Infinity"]);
                self.text.push_str(word);
            }
            4 | 5 => self.list('[', ']', |author| author.value(depth - 1)),
            _ => self.list('{', '}', |author| {
                author.string();
                author.space();
                author.text.push(':');
                author.space();
                author.value(depth - 1);
            }),
        }
    }

    fn list(&mut self, open: char, close: char, element: impl Fn(&mut Self)) {
        self.text.push(open);
        // Now and then enough for the hash table of keys.
        let elements = if self.rng.u32(0..40) == 0 { self.rng.u32(10..60) } else { self.rng.u32(0..6) };
        for number in 0..elements {
            if number > 0 {
                self.text.push(',');
            }
            self.space();
            element(self);
            self.space();
        }
        self.text.push(close);
    }

    /// Short and of few letters, so that keys often meet.
    fn string(&mut self) {
        self.text.push('"');
        for _ in 0..self.rng.u32(0..4) {
            let piece = self.one_of(&[
                "a",
                "b",
                "k1",
                "/",
                "\\/",
                "\\\"",
                "\\\\",
                "\\n",
                "\\u000a",
                "\\u000A",
                "\\u0000",
                "\\u001F",
                "\\u0061",
                "\\u00e9",
                "é",
                "中文",
                "\u{1f600}",
                "\\ud83d\\ude00",
                "\\uD83D",
                "\\ude00",
                "\\ud83d\\u0062",
                "\u{7f}",
                "\u{2028}",
                "\\uffff",
                "\u{fffe}",
                "\\b\\f\\r\\t",
                "a rather long piece of text, past one word or two",
            ]);
            self.text.push_str(piece);
        }
        self.text.push('"');
    }

    fn space(&mut self) {
        if self.rng.u32(0..3) == 0 {
            let space = self.one_of(&[" ", "\n", "\r\n\t", "\n          ", "  \n \t "]);
            self.text.push_str(space);
        }
    }

    fn one_of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.rng.usize(0..choices.len())]
    }
}

/// Replaces, drops, doubles or moves a few pieces of a text.
fn damaged(text: &str, rng: &mut Rng) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for _ in 0..rng.usize(1..4) {
        let place = rng.usize(0..=chars.len());
        match rng.u32(0..4) {
            0 => {
                let letters: Vec<char> = "{}[]:,\"\\ u0d9-+.eENItfn/\n\u{1}é\u{feff}".chars().collect();
                chars.insert(place, letters[rng.usize(0..letters.len())]);
            }
            1 => chars.truncate(place),
            2 if place < chars.len() => drop(chars.remove(place)),
            _ => {
                let piece = chars[place.saturating_sub(rng.usize(0..6))..place].to_vec();
                let to = rng.usize(0..=chars.len());
                chars.splice(to..to, piece);
            }
        }
    }
    chars.into_iter().collect()
}

/// Reads a text a line, in hexadecimal, and answers with `-` or the number of lone surrogates and the canonical text as
/// the design defines it, made of what Python's own parser reads.
const PYTHON: &str = r#"
import json, re, sys
class Token:
    def __init__(self, text): self.text = text
removed = 0
def clean(text):
    global removed
    text, count = re.subn("[\ud800-\udfff]", "", text)
    removed += count
    return text
def settled(x):
    if isinstance(x, str): return clean(x)
    if isinstance(x, list): return [settled(y) for y in x]
    return x  # an object has been through members()
def members(pairs):
    found = {}
    for key, value in pairs: found[clean(key)] = settled(value)
    return found
def text_of(x):
    if isinstance(x, str): return json.dumps(x, ensure_ascii=False)
    if isinstance(x, list): return "[" + ",".join(map(text_of, x)) + "]"
    if isinstance(x, dict): return "{" + ",".join(text_of(k) + ":" + text_of(v) for k, v in x.items()) + "}"
    if isinstance(x, Token): return x.text
    return {True: "true", False: "false", None: "null"}[x]
decoder = json.JSONDecoder(object_pairs_hook=members, parse_float=Token, parse_int=Token, parse_constant=Token)
for line in open(sys.argv[1]):
    removed = 0
    try: text = text_of(settled(decoder.decode(bytes.fromhex(line).decode("utf-8"))))
    except json.JSONDecodeError: print("-")
    else: print(removed, text.encode("utf-8").hex())
"#;

fn hex(text: &str) -> String {
    text.bytes().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

#[test]
fn python_accepts_the_same_texts_and_means_the_same() {
    let mut rng = Rng::with_seed(SEED);
    let mut texts: Vec<String> = (0..4_000).map(|_| Author::text(rng.fork())).collect();
    texts.extend(texts.clone().iter().map(|text| damaged(text, &mut rng)));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("texts");
    fs::write(&file, texts.iter().map(|text| hex(text) + "\n").collect::<String>()).unwrap();
    let run = Command::new("python3").args(["-c", PYTHON, file.to_str().unwrap()]).output().unwrap();
    assert!(run.status.success(), "python3 said: {}", String::from_utf8_lossy(&run.stderr));
    let answers = String::from_utf8(run.stdout).unwrap();
    assert_eq!(answers.lines().count(), texts.len());

    let mut refused = 0;
    for (number, (text, answer)) in texts.iter().zip(answers.lines()).enumerate() {
        let ours = match canonical(text) {
            Ok(canonical) => format!("{} {}", canonical.surrogates_removed, hex(&canonical.text)),
            Err(_) => "-".to_owned(),
        };
        assert_eq!(ours, answer, "seed {SEED:#x}, text {number}: {text}");
        refused += usize::from(ours == "-");
    }
    assert!((1_000..4_000).contains(&refused), "a test of both answers: {refused} of {} were refused", texts.len());
}

#[test]
fn canonical_text_is_lent_back_and_survives_indenting() {
    let mut rng = Rng::with_seed(SEED ^ 1);
    for number in 0..4_000 {
        let text = Author::text(rng.fork());
        let first = canonical(&text).unwrap();
        let again = canonical(&first.text).unwrap();
        assert_eq!(again.text, first.text, "seed {SEED:#x}, text {number}: {text}");
        assert!(matches!(again.text, Cow::Borrowed(_)));
        assert_eq!((again.surrogates_removed, again.duplicate_keys), (0, 0));
        assert_eq!(canonical(&pretty(&first.text, 3)).unwrap().text, first.text);
    }
}

#[test]
fn a_namespace_file_gives_the_values_that_canonical_gives() {
    let mut rng = Rng::with_seed(SEED ^ 2);
    for number in 0..1_000 {
        let values: Vec<String> = (0..rng.u32(0..8)).map(|_| Author::text(rng.fork())).collect();
        let mut file = String::from("\u{feff} { ");
        for (key, value) in values.iter().enumerate() {
            write!(file, "{}\"\\u006b{key}\" :{value}", if key > 0 { "," } else { "" }).unwrap();
        }
        file.push('}');
        let mut loaded = Vec::new();
        let report =
            load_object(file.as_bytes(), &mut |key, value| loaded.push((key.to_owned(), value.to_owned()))).unwrap();
        let canonicals: Vec<_> = values.iter().map(|value| canonical(value).unwrap()).collect();
        let expected: Vec<_> =
            canonicals.iter().enumerate().map(|(key, c)| (format!("k{key}"), c.text.to_string())).collect();
        assert_eq!(loaded, expected, "seed {SEED:#x}, file {number}: {file}");
        assert_eq!(report.surrogates_removed, canonicals.iter().map(|c| c.surrogates_removed).sum::<u64>());
        assert_eq!(report.duplicate_keys_inside, canonicals.iter().map(|c| c.duplicate_keys).sum::<u64>());
    }
}

#[test]
fn damaged_files_give_records_or_an_error_inside_the_file() {
    let mut rng = Rng::with_seed(SEED ^ 3);
    let mut failed = 0;
    for number in 0..20_000 {
        let mut bytes = format!("{{\"a\": {}}}", Author::text(rng.fork())).into_bytes();
        for _ in 0..rng.usize(1..5) {
            let place = rng.usize(0..bytes.len());
            match rng.u32(0..3) {
                0 => bytes[place] = rng.u8(..),
                1 => bytes[place] ^= 1 << rng.u32(0..8),
                _ => bytes.truncate(place.max(1)),
            }
        }
        if let Err(error) = load_object(&bytes, &mut |_, value| assert!(canonical(value).unwrap().text == value)) {
            failed += 1;
            assert!(error.offset <= bytes.len(), "seed {SEED:#x}, file {number}: {error}");
            let lines = bytes[..error.offset].split(|&byte| byte == b'\n').count() as u64;
            assert_eq!(error.line, lines);
            assert!(!error.reason.is_empty());
        }
    }
    assert!(failed > 1_000, "only {failed} files were damaged");
}

fn any_value() -> impl Strategy<Value = serde_json::Value> {
    let scalar = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    scalar.prop_recursive(5, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(serde_json::Value::Array),
            prop::collection::btree_map(any::<String>(), inner, 0..8)
                .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, rng_seed: RngSeed::Fixed(SEED), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn plain_json_is_what_serde_json_writes(value in any_value()) {
        let compact = value.to_string();
        let canonical = canonical(&compact).unwrap();
        prop_assert_eq!(&canonical.text, &compact);
        prop_assert!(matches!(canonical.text, Cow::Borrowed(_)));
        let indented = serde_json::to_string_pretty(&value).unwrap();
        prop_assert_eq!(&pretty(&compact, 2), &indented);
        prop_assert_eq!(&commonhold::json::canonical(&indented).unwrap().text, &compact);
    }

    #[test]
    fn any_text_gives_a_value_or_an_error_inside_the_text(text in "[\\[\\]{}:,\"\\\\ \\nu0-9a-fA-FNInty.+\u{e9}\u{1}-]{0,40}") {
        match canonical(&text) {
            Ok(one) => prop_assert_eq!(&canonical(&one.text).unwrap().text, &one.text),
            Err(error) => prop_assert!(error.offset <= text.len() && text.is_char_boundary(error.offset)),
        }
    }
}
