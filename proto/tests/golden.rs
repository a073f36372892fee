//! The frames in `golden/` are the wire as it was released. These tests hold the code to them, byte for byte, and hold
//! the folder to the code: no message without its frame. `BLESS=1 cargo test -p commonhold-proto` writes files that are
//! missing and never touches one that is there.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use common::{Message, samples};
use commonhold_proto::{
    Answer, Change, Condition, Durability, Election, Event, FRAME_HEADER_BYTES, Fault, FlagAction, FrameKind, Hello,
    Kind, Number, Op, Request, Space, Verb, codec, frame,
};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

/// The bytes of a golden file: pairs of hex digits, white space anywhere, `#` begins a comment.
fn read_hex(text: &str) -> Vec<u8> {
    let digits: String =
        text.lines().filter_map(|line| line.split('#').next()).flat_map(str::split_whitespace).collect();
    assert_eq!(digits.len() % 2, 0, "an odd number of hex digits");
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex digits")).collect()
}

/// A golden file: what it is, then its bytes, a frame's header on a line of its own.
fn write_hex(what: &str, header: usize, bytes: &[u8]) -> String {
    let line = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ") + "\n";
    let (header, body) = bytes.split_at(header);
    let mut text = format!("# {what}\n");
    if !header.is_empty() {
        text += &line(header);
    }
    text.extend(body.chunks(16).map(line));
    text
}

fn title(message: &Message) -> String {
    match message {
        Message::Request(id, request) => format!("request {id}: {request:?}"),
        Message::Answer(id, answer) => format!("answer {id}: {answer:?}"),
        Message::Part(id, answer) => format!("part {id}: {answer:?}"),
        Message::Event(event) => format!("event: {event:?}"),
        Message::Cancel(id) => format!("cancel {id}"),
    }
}

/// Every golden file: its name, its comment, the length of its header, its bytes.
fn expected() -> BTreeMap<String, (String, usize, Vec<u8>)> {
    let mut files = BTreeMap::new();
    for (name, hello) in samples::hellos() {
        files.insert(format!("{name}.hex"), (format!("{hello:?}"), 0, hello.to_bytes().to_vec()));
    }
    for (name, message) in samples::messages() {
        let old = files.insert(format!("{name}.hex"), (title(&message), FRAME_HEADER_BYTES, message.frame()));
        assert!(old.is_none(), "two samples are named {name}");
    }
    files
}

/// The text of a golden file; with `BLESS` set, one that is missing is written first.
fn golden(name: &str, what: &str, header: usize, bytes: &[u8]) -> String {
    let path = folder().join(name);
    if !path.exists() && std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, write_hex(what, header, bytes)).expect("golden/ can be written to");
    }
    std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; BLESS=1 writes it if it is new", path.display()))
}

#[test]
fn every_message_travels_as_it_did_when_it_was_released() {
    for (name, (what, header, bytes)) in expected() {
        let text = golden(&name, &what, header, &bytes);
        assert_eq!(text.lines().next(), Some(format!("# {what}").as_str()), "the comment of {name}");
        assert_eq!(read_hex(&text), bytes, "the bytes of {name}: the wire of a released message never changes");
    }
}

#[test]
fn golden_holds_nothing_that_no_sample_explains() {
    let expected = expected();
    for entry in std::fs::read_dir(folder()).expect("golden/ exists") {
        let name = entry.expect("golden/ can be listed").file_name().into_string().expect("its names are ASCII");
        // Whole sessions are replayed against the real daemon, by its tests.
        let is_session = name.starts_with("session-v");
        assert!(
            is_session || expected.contains_key(&name),
            "golden/{name} belongs to no sample; released frames stay for ever"
        );
    }
}

#[test]
fn golden_frames_decode_to_what_was_said() {
    for (name, hello) in samples::hellos() {
        let text = golden(&format!("{name}.hex"), &format!("{hello:?}"), 0, &hello.to_bytes());
        let bytes = read_hex(&text).try_into().expect("a hello has 64 bytes");
        assert_eq!(Hello::from_bytes(&bytes), Ok(hello));
    }
    for (name, message) in samples::messages() {
        let text = golden(&format!("{name}.hex"), &title(&message), FRAME_HEADER_BYTES, &message.frame());
        let bytes = read_hex(&text);
        let (header, body, consumed) = frame::split(&bytes).unwrap().expect("a golden frame is whole");
        assert_eq!(consumed, bytes.len(), "{name}");
        match (header.kind, message) {
            (FrameKind::Request, Message::Request(id, request)) => {
                assert_eq!((header.id, codec::decode_request(body)), (id, Ok(request)), "{name}");
            }
            (FrameKind::Answer, Message::Answer(id, answer)) | (FrameKind::Part, Message::Part(id, answer)) => {
                assert_eq!((header.id, codec::decode_answer(body)), (id, Ok(answer)), "{name}");
            }
            (FrameKind::Event, Message::Event(event)) => assert_eq!(codec::decode_event(body), Ok(event), "{name}"),
            (FrameKind::Cancel, Message::Cancel(id)) => assert_eq!((header.id, body), (id, &[][..]), "{name}"),
            (kind, message) => panic!("{name}: a frame of kind {kind:?} holds {message:?}"),
        }
    }
}

/// Notes each variant met in the samples, by enum, and that its place in `NAMES` is its number on the wire where the
/// number is at a known place of the body.
#[derive(Default)]
struct Met(BTreeMap<&'static str, BTreeSet<&'static str>>);

impl Met {
    fn note(&mut self, of: &'static str, name: &'static str) {
        self.0.entry(of).or_default().insert(name);
    }

    fn request(&mut self, request: &Request<'static>) {
        self.note("Verb", request.verb.name());
        match &request.verb {
            Verb::Write(write) => {
                write.durability.iter().for_each(|durability| self.note("Durability", durability.name()));
                write.spaces.iter().for_each(|space| self.space(space));
                for op in &write.ops {
                    self.note("Op", op.name());
                    if let Op::Put { condition, .. } | Op::Delete { condition, .. } = op {
                        self.note("Condition", condition.name());
                    }
                    if let Op::Increment { by, .. } = op {
                        self.note("Number", by.name());
                    }
                }
            }
            Verb::Get { space, .. } => self.space(space),
            Verb::Flag { action, .. } => self.note("FlagAction", action.name()),
            _ => {}
        }
    }

    fn space(&mut self, space: &Space<'_>) {
        self.note("Kind", space.kind.name());
    }

    fn all(&self, of: &'static str, names: &[&'static str]) {
        let met = self.0.get(of).cloned().unwrap_or_default();
        let missing: Vec<_> = names.iter().filter(|name| !met.contains(*name)).collect();
        assert!(missing.is_empty(), "{of}: no golden frame for {missing:?}; add samples, then BLESS=1");
    }
}

fn number_at(body: &[u8], at: usize) -> usize {
    u32::from_le_bytes(body[at..at + 4].try_into().expect("four bytes")) as usize
}

#[test]
fn every_variant_of_every_enum_has_a_golden_frame_and_its_own_number() {
    let mut met = Met::default();
    for (name, message) in samples::messages() {
        let frame = message.frame();
        let body = &frame[FRAME_HEADER_BYTES..];
        match message {
            Message::Request(_, request) => {
                assert_eq!(Verb::NAMES[number_at(body, 4)], request.verb.name(), "{name}");
                met.request(&request);
            }
            Message::Answer(_, answer) | Message::Part(_, answer) => {
                assert_eq!(Answer::NAMES[number_at(body, 0)], answer.name(), "{name}");
                met.note("Answer", answer.name());
                if let Answer::Elected { state } = &answer {
                    met.note("Election", state.name());
                }
                if let Answer::Changes { list, .. } = &answer {
                    list.iter().flat_map(|set| &set.changes).for_each(|change| met.note("Change", change.name()));
                }
                if let Answer::Fault(fault) = answer {
                    assert_eq!(Fault::NAMES[number_at(body, 4)], fault.name(), "{name}");
                    met.note("Fault", fault.name());
                }
            }
            Message::Event(event) => {
                assert_eq!(Event::NAMES[number_at(body, 0)], event.name(), "{name}");
                met.note("Event", event.name());
            }
            Message::Cancel(_) => {}
        }
    }
    met.all("Verb", Verb::NAMES);
    met.all("Op", Op::NAMES);
    met.all("Condition", Condition::NAMES);
    met.all("Durability", Durability::NAMES);
    met.all("Kind", Kind::NAMES);
    met.all("Number", Number::NAMES);
    met.all("Answer", Answer::NAMES);
    met.all("Event", Event::NAMES);
    met.all("Fault", Fault::NAMES);
    met.all("FlagAction", FlagAction::NAMES);
    met.all("Election", Election::NAMES);
    met.all("Change", Change::NAMES);
}
