//! What the tests of the wire share: one sample of every message, and a small seeded source of numbers.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of this")]

pub mod samples;

use commonhold_proto::{Answer, EncodeError, Event, Request, codec};

/// A message with the frame it travels in.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    Request(u64, Request<'static>),
    Answer(u64, Answer<'static>),
    Part(u64, Answer<'static>),
    Event(Event),
    Cancel(u64),
}

impl Message {
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match self {
            Self::Request(id, request) => codec::encode_request(out, *id, request),
            Self::Answer(id, answer) => codec::encode_answer(out, *id, answer),
            Self::Part(id, answer) => codec::encode_part(out, *id, answer),
            Self::Event(event) => codec::encode_event(out, event),
            Self::Cancel(id) => {
                codec::encode_cancel(out, *id);
                Ok(())
            }
        }
    }

    pub fn frame(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out).expect("the samples are small");
        out
    }
}

/// `SplitMix64`: the same numbers for the same seed, on every machine.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}
