//! The way out of bincode stays open: `wincode`, which is maintained, writes every sample as the golden frames have it,
//! and reads it back. Its derives on the messages exist for these tests only.

use wincode::{SchemaRead, SchemaWrite};

use crate::frame::FRAME_HEADER_BYTES;

#[path = "../tests/common/mod.rs"]
mod common;

use common::{Message, samples};

/// Asserts that wincode writes `body` for `message`, and reads `message` from `body`.
#[track_caller]
fn assert_same<'a, T>(name: &str, body: &'a [u8], message: &T)
where
    T: SchemaWrite<wincode::config::DefaultConfig, Src = T> + SchemaRead<'a, wincode::config::DefaultConfig, Dst = T>,
    T: PartialEq + std::fmt::Debug,
{
    assert_eq!(wincode::serialize(message).unwrap(), body, "{name}");
    assert_eq!(wincode::deserialize::<T>(body).unwrap(), *message, "{name}");
}

#[test]
fn wincode_writes_and_reads_every_sample_as_bincode_does() {
    for (name, message) in samples::messages() {
        let frame = message.frame();
        let body = &frame[FRAME_HEADER_BYTES..];
        match message {
            Message::Request(_, request) => assert_same(name, body, &request),
            Message::Answer(_, answer) | Message::Part(_, answer) => assert_same(name, body, &answer),
            Message::Event(event) => assert_same(name, body, &event),
            Message::Cancel(_) => assert!(body.is_empty(), "{name}"),
        }
    }
}
