//! A streamed answer on a connection that carries nothing else, without I/O: bytes go in, parts come out one by one.
//!
//! `get_all` has a connection of its own for as long as it runs. On the shared one, a caller that takes its records
//! slowly would either hold up everybody's answers or have them gathered in memory without bound; here the socket's
//! own buffers hold the daemon back, and dropping the iterator is closing the connection.

use std::collections::VecDeque;

use commonhold_proto::{DecodeError, Event, FrameKind, Request, Seq, Verb, codec};

use super::error::Error;
use super::inbox::{Body, Inbox};
use super::read;
use super::values::Entry;

/// The only request of its connection.
const ID: u64 = 1;

/// Some of the records, and whether they are the last.
pub(super) struct Part {
    pub(super) entries: Vec<Entry>,
    pub(super) seq: Seq,
    pub(super) last: bool,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Parts {
    inbox: Inbox,
    arrived: VecDeque<(FrameKind, Body)>,
}

impl Parts {
    /// The bytes that ask for the stream.
    pub(super) fn ask(deadline_ms: u32, verb: Verb<'_>) -> Result<Vec<u8>, Error> {
        let mut frame = Vec::new();
        codec::encode_request(&mut frame, ID, &Request { deadline_ms, verb })?;
        Ok(frame)
    }

    /// Takes what the connection gave.
    pub(super) fn receive(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while let Some(frame) = self.inbox.next(&mut bytes)? {
            match frame.kind {
                FrameKind::Part | FrameKind::Answer if frame.id == ID => {
                    self.arrived.push_back((frame.kind, frame.body));
                }
                FrameKind::Event => match codec::decode_event(frame.body.bytes()) {
                    Ok(Event::Closing(fault)) => return Err(Error::Fault(fault)),
                    // An event of a newer daemon, which an older client may pass over.
                    Err(DecodeError::Unsupported { .. }) => {}
                    Err(error) => return Err(error.into()),
                },
                _ => return Err(Error::protocol("it sent something else than the parts that were asked for")),
            }
        }
        Ok(())
    }

    /// The next part that has arrived. A fault, which may come at the end, voids all parts before it.
    pub(super) fn next(&mut self) -> Option<Result<Part, Error>> {
        let (kind, body) = self.arrived.pop_front()?;
        let last = kind == FrameKind::Answer;
        Some(read::records(body.bytes()).map(|(entries, seq)| Part { entries, seq, last }))
    }
}

#[cfg(test)]
mod tests {
    use commonhold_proto::{Answer, Entry as Wire, Fault};

    use super::*;

    fn records(keys: &[&'static str]) -> Answer<'static> {
        let entries = keys.iter().map(|&key| Wire { key, seq: Seq(1), value: Some("1") }).collect();
        Answer::Records { entries, seq: Seq(5) }
    }

    #[test]
    fn parts_come_out_as_they_arrive_and_the_last_one_says_so() {
        let mut bytes = Vec::new();
        codec::encode_part(&mut bytes, ID, &records(&["a", "b"])).unwrap();
        codec::encode_answer(&mut bytes, ID, &records(&["c"])).unwrap();
        let mut parts = Parts::default();
        let (first, second) = bytes.split_at(bytes.len() - 1);
        parts.receive(first).unwrap();
        let part = parts.next().unwrap().unwrap();
        assert_eq!((part.entries.len(), part.seq, part.last), (2, Seq(5), false));
        assert!(parts.next().is_none());
        parts.receive(second).unwrap();
        let part = parts.next().unwrap().unwrap();
        assert_eq!((part.entries[0].key.as_str(), part.last), ("c", true));
    }

    #[test]
    fn a_fault_at_the_end_is_an_error_and_so_is_another_answer() {
        let mut bytes = Vec::new();
        codec::encode_part(&mut bytes, ID, &records(&["a"])).unwrap();
        codec::encode_answer(&mut bytes, ID, &Answer::Fault(Fault::SnapshotExpired)).unwrap();
        let mut parts = Parts::default();
        parts.receive(&bytes).unwrap();
        assert!(parts.next().unwrap().is_ok());
        assert!(matches!(parts.next().unwrap(), Err(Error::Fault(Fault::SnapshotExpired))));

        let mut bytes = Vec::new();
        codec::encode_answer(&mut bytes, ID, &Answer::Done).unwrap();
        parts.receive(&bytes).unwrap();
        assert!(matches!(parts.next().unwrap(), Err(Error::Protocol { .. })));
        let mut bytes = Vec::new();
        codec::encode_answer(&mut bytes, ID + 1, &records(&[])).unwrap();
        assert!(matches!(parts.receive(&bytes), Err(Error::Protocol { .. })));
    }
}
