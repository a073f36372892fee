//! `PROTOCOL.md` is enough to write a client from. Its tables are read as a schema, by which every sample frame is decoded
//! here without the codec and must come out as the message it was: tags, names, order and types of all fields. Its limits
//! and its worked dump are compared with the code.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use common::{Message, samples};
use commonhold_proto::{
    Answer, Change, Condition, DecodeError, Durability, Election, Event, FRAME_HEADER_BYTES, Fault, FlagAction, Found,
    Hello, Kind, Number, Op, PROTOCOL_VERSION, Request, Seq, Space, StoreIdentity, Verb, Write, codec, limits,
};

const TEXT: &str = include_str!("../PROTOCOL.md");

enum Shape {
    /// Fields: name and type.
    Struct(Vec<(String, String)>),
    /// Variants in the order of their tags: name and fields.
    Enum(Vec<(String, Fields)>),
}

enum Fields {
    None,
    One(String),
    Named(Vec<(String, String)>),
}

/// The cells of a row of a table, or nothing for any other line.
fn cells(line: &str) -> Option<Vec<&str>> {
    Some(line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ").map(str::trim).collect())
}

fn fields(cell: &str) -> Fields {
    if cell == "-" {
        return Fields::None;
    }
    if let Some(of) = cell.strip_prefix('(') {
        return Fields::One(of.trim_end_matches(')').to_owned());
    }
    let named = cell.split(", ").map(|field| field.split_once(": ").expect("a field is name: type"));
    Fields::Named(named.map(|(name, of)| (name.to_owned(), of.to_owned())).collect())
}

/// The tables under a heading `### Name`, by that name.
fn schema() -> BTreeMap<String, Shape> {
    let mut schema = BTreeMap::new();
    for section in TEXT.split("\n### ").skip(1) {
        let name = section.lines().next().expect("a section begins with its name").to_owned();
        let section = section.split("\n## ").next().expect("split gives at least one piece");
        let mut rows = section.lines().filter_map(cells);
        let head = rows.next().unwrap_or_else(|| panic!("{name} has no table"));
        let shape = if head[0] == "tag" {
            let variants = rows.enumerate().map(|(tag, row)| {
                assert_eq!(row[0], tag.to_string(), "the tags of {name} count from 0");
                (row[1].to_owned(), fields(row[2]))
            });
            Shape::Enum(variants.collect())
        } else {
            assert_eq!(head[..2], ["field", "type"], "{name}");
            Shape::Struct(rows.map(|row| (row[0].to_owned(), row[1].to_owned())).collect())
        };
        schema.insert(name, shape);
    }
    schema
}

/// Reads bytes by the schema and writes what they say as Rust's `Debug` does.
struct Reader<'a> {
    schema: &'a BTreeMap<String, Shape>,
    rest: &'a [u8],
    said: String,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (taken, rest) = self.rest.split_first_chunk().expect("the bytes end too early");
        self.rest = rest;
        *taken
    }

    fn len(&mut self) -> usize {
        u64::from_le_bytes(self.take()) as usize
    }

    fn say(&mut self, what: &str) {
        self.said.push_str(what);
    }

    fn named(&mut self, name: &str, fields: &[(String, String)]) {
        self.say(name);
        for (at, (field, of)) in fields.iter().enumerate() {
            self.say(if at == 0 { " { " } else { ", " });
            self.say(&format!("{field}: "));
            self.read(of);
        }
        self.say(" }");
    }

    fn read(&mut self, of: &str) {
        if let Some(of) = of.strip_suffix('?') {
            match self.take::<1>() {
                [0] => self.say("None"),
                [1] => {
                    self.say("Some(");
                    self.read(of);
                    self.say(")");
                }
                other => panic!("an option begins with {other:?}"),
            }
            return;
        }
        if let Some(of) = of.strip_prefix('[').and_then(|of| of.strip_suffix(']')) {
            self.say("[");
            for at in 0..self.len() {
                self.say(if at == 0 { "" } else { ", " });
                self.read(of);
            }
            return self.say("]");
        }
        match of {
            "bool" => {
                let truth = self.take::<1>() == [1];
                self.say(&truth.to_string());
            }
            "u16" => {
                let number = u16::from_le_bytes(self.take());
                self.say(&number.to_string());
            }
            "u32" => {
                let number = u32::from_le_bytes(self.take());
                self.say(&number.to_string());
            }
            "u64" => {
                let number = u64::from_le_bytes(self.take());
                self.say(&number.to_string());
            }
            "u128" => {
                let number = u128::from_le_bytes(self.take());
                self.say(&number.to_string());
            }
            "i64" => {
                let number = i64::from_le_bytes(self.take());
                self.say(&number.to_string());
            }
            "f64" => {
                let number = f64::from_le_bytes(self.take());
                self.say(&format!("{number:?}"));
            }
            "Seq" => {
                let number = u64::from_le_bytes(self.take());
                self.say(&format!("Seq({number})"));
            }
            "text" => {
                let len = self.len();
                let (text, rest) = self.rest.split_at(len);
                self.rest = rest;
                let text = std::str::from_utf8(text).expect("text is UTF-8");
                write!(self.said, "{text:?}").expect("a String takes all");
            }
            name => match self.schema.get(name).unwrap_or_else(|| panic!("PROTOCOL.md has no table of {name}")) {
                Shape::Struct(fields) => self.named(name, fields),
                Shape::Enum(variants) => {
                    let tag = u32::from_le_bytes(self.take()) as usize;
                    let (variant, fields) = &variants[tag];
                    match fields {
                        Fields::None => self.say(variant),
                        Fields::Named(fields) => self.named(variant, fields),
                        Fields::One(of) => {
                            self.say(&format!("{variant}("));
                            self.read(of);
                            self.say(")");
                        }
                    }
                }
            },
        }
    }
}

#[test]
fn every_sample_can_be_read_by_the_tables_alone() {
    let schema = schema();
    for (name, message) in samples::messages() {
        let frame = message.frame();
        let (of, debug) = match &message {
            Message::Request(_, request) => ("Request", format!("{request:?}")),
            Message::Answer(_, answer) | Message::Part(_, answer) => ("Answer", format!("{answer:?}")),
            Message::Event(event) => ("Event", format!("{event:?}")),
            Message::Cancel(_) => continue,
        };
        let mut reader = Reader { schema: &schema, rest: &frame[FRAME_HEADER_BYTES..], said: String::new() };
        reader.read(of);
        assert_eq!(reader.said, debug, "{name}");
        assert!(reader.rest.is_empty(), "{name}: {} bytes are in no table", reader.rest.len());
    }
}

#[test]
fn the_tables_list_every_variant_and_no_other() {
    let schema = schema();
    let mut enums: BTreeSet<_> =
        schema.iter().filter(|(_, shape)| matches!(shape, Shape::Enum(_))).map(|(name, _)| name.as_str()).collect();
    for (name, names) in [
        ("Verb", Verb::NAMES),
        ("Op", Op::NAMES),
        ("Condition", Condition::NAMES),
        ("Durability", Durability::NAMES),
        ("Kind", Kind::NAMES),
        ("Number", Number::NAMES),
        ("Answer", Answer::NAMES),
        ("Event", Event::NAMES),
        ("Fault", Fault::NAMES),
        ("FlagAction", FlagAction::NAMES),
        ("Election", Election::NAMES),
        ("Change", Change::NAMES),
    ] {
        let Some(Shape::Enum(variants)) = schema.get(name) else { panic!("PROTOCOL.md has no table of {name}") };
        let listed: Vec<_> = variants.iter().map(|(variant, _)| variant.as_str()).collect();
        assert_eq!(listed, names, "{name}");
        enums.remove(name);
    }
    assert!(enums.is_empty(), "enums that the code does not have: {enums:?}");
}

#[test]
fn a_session_of_a_version_may_use_the_verbs_that_came_with_it_or_before() {
    let table = TEXT.split_once("\n### Verb\n").expect("a table of verbs").1.split_once("\n### ").expect("it ends").0;
    let rows: Vec<_> = table.lines().filter_map(cells).filter(|row| row[0].parse::<u32>().is_ok()).collect();
    assert_eq!(rows.len(), Verb::NAMES.len());
    for row in rows {
        let tag: u32 = row[0].parse().expect("a number");
        let since: u16 =
            row[3].rsplit_once("since version ").map_or(1, |(_, since)| since.trim().parse().expect("a number"));
        for version in 1..=PROTOCOL_VERSION {
            let body = [&0_u32.to_le_bytes()[..], &tag.to_le_bytes(), &[0xff; 3]].concat();
            let refused = codec::decode_request_of(version, &body);
            let is_unknown = matches!(refused, Err(DecodeError::Unsupported { what: "verb", tag: at }) if at == tag);
            assert_eq!(is_unknown, version < since, "verb {tag} in version {version}");
        }
    }
}

#[test]
fn the_limits_are_those_of_the_code() {
    let listed: BTreeMap<&str, u64> = TEXT
        .lines()
        .filter_map(cells)
        .filter_map(|row| Some((row[0].strip_prefix('`')?.strip_suffix('`')?, row.get(1)?.parse().ok()?)))
        .collect();
    let limits = BTreeMap::from([
        ("MAX_FRAME_BYTES", limits::MAX_FRAME_BYTES as u64),
        ("MAX_VALUE_BYTES", limits::MAX_VALUE_BYTES as u64),
        ("MAX_CHANGED_VALUE_BYTES", limits::MAX_CHANGED_VALUE_BYTES as u64),
        ("MAX_KEY_BYTES", limits::MAX_KEY_BYTES as u64),
        ("MAX_OPERATIONS", limits::MAX_OPERATIONS as u64),
        ("MAX_NAMESPACE_BYTES", limits::MAX_NAMESPACE_BYTES as u64),
        ("MAX_WORKSPACE_BYTES", limits::MAX_WORKSPACE_BYTES as u64),
        ("MAX_NESTING", limits::MAX_NESTING as u64),
        ("MAX_SCAN_VISITS", limits::MAX_SCAN_VISITS as u64),
        ("MAX_NAME_BYTES", limits::MAX_NAME_BYTES as u64),
        ("MAX_LOCK_KEYS", limits::MAX_LOCK_KEYS as u64),
        ("MAX_LOCK_HOLDS", limits::MAX_LOCK_HOLDS as u64),
        ("MAX_CYCLE_STEPS", limits::MAX_CYCLE_STEPS as u64),
        ("MAX_HOLDINGS", limits::MAX_HOLDINGS as u64),
        ("MAX_HOLDINGS_BYTES", limits::MAX_HOLDINGS_BYTES as u64),
        ("MAX_ALL_HOLDINGS_BYTES", limits::MAX_ALL_HOLDINGS_BYTES as u64),
        ("MAX_DONE_ELECTIONS_BYTES", limits::MAX_DONE_ELECTIONS_BYTES as u64),
        ("MAX_RECORD_BYTES", limits::MAX_RECORD_BYTES as u64),
        ("MAX_IN_FLIGHT", limits::MAX_IN_FLIGHT as u64),
        ("MAX_OPEN_WRITES", limits::MAX_OPEN_WRITES as u64),
        ("MAX_IN_FLIGHT_BYTES", limits::MAX_IN_FLIGHT_BYTES as u64),
        ("MAX_WAITING_BYTES", limits::MAX_WAITING_BYTES as u64),
        ("MAX_QUEUED_BYTES", limits::MAX_QUEUED_BYTES as u64),
        ("HELLO_TIMEOUT_MS", limits::HELLO_TIMEOUT_MS),
    ]);
    assert_eq!(listed, limits);
}

/// The bytes of the block that begins with ```` ```hex name ````; what follows a `|` is a remark.
fn dump(name: &str) -> Vec<u8> {
    let begin = format!("```hex {name}\n");
    let block = TEXT.split_once(&begin).unwrap_or_else(|| panic!("PROTOCOL.md has no dump {name}")).1;
    let block = block.split_once("```").expect("the block ends").0;
    let pairs = block.lines().filter_map(|line| line.split('|').next()).flat_map(str::split_whitespace);
    pairs.map(|pair| u8::from_str_radix(pair, 16).expect("pairs of hex digits")).collect()
}

#[test]
fn the_worked_exchange_is_what_the_codec_says() {
    let client = u128::from_le_bytes(std::array::from_fn(|at| at as u8 + 1));
    let store = StoreIdentity { device: 64_769, inode: 1_193_046 };
    let space = Space { kind: Kind::Persistent, workspace: "", namespace: "notes" };
    let (key, value, seq) = ("k1", "{\"a\":1}", Seq(4_294_967_297));

    assert_eq!(dump("hello-client"), Hello::of_client(client, StoreIdentity::ANY).to_bytes());
    assert_eq!(dump("hello-daemon"), Hello::of_daemon(client, store, 0, 3).to_bytes());

    let write = Write {
        client,
        number: 1,
        settled: 1,
        durability: None,
        if_token: None,
        spaces: vec![space],
        ops: vec![Op::Put { space: 0, key, value, condition: Condition::Always }],
    };
    let exchange = [
        ("put", Message::Request(1, Request { deadline_ms: 5_000, verb: Verb::Write(write) })),
        ("written", Message::Answer(1, Answer::Written { seq, new: 1, found: 0, surrogates_removed: 0 })),
        ("get", Message::Request(2, Request { deadline_ms: 5_000, verb: Verb::Get { space, key } })),
        ("got", Message::Answer(2, Answer::Got { found: Some(Found { value, seq }), tag: None })),
    ];
    for (name, message) in exchange {
        assert_eq!(dump(name), message.frame(), "{name}");
    }
}
