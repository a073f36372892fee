//! A streamed answer on a connection that carries nothing else, without I/O: bytes go in, records come out one by one.
//!
//! `get_all` has a connection of its own for as long as it runs. On the shared one, a caller that takes its records
//! slowly would either hold up everybody's answers or have them gathered in memory without bound; here the socket's
//! own buffers hold the daemon back, and dropping the iterator is closing the connection.

use std::collections::VecDeque;
use std::vec;

use commonhold_proto::{DecodeError, Event, FrameKind, Request, Seq, Verb, codec};

use super::error::Error;
use super::inbox::{Body, Inbox};
use super::read;
use super::values::Entry;

/// The only request of its connection.
const ID: u64 = 1;

/// Bytes read at once from such a connection.
pub(super) const READ_BUFFER_BYTES: usize = 64 * 1024;

/// All records of a namespace while they arrive: what has come, how far it is, and what the driver is to do for the next.
#[derive(Debug, Default)]
pub(super) struct Arriving {
    parts: Parts,
    entries: vec::IntoIter<Entry>,
    seq: Option<Seq>,
    /// The last part has come, or nothing more will.
    is_over: bool,
}

/// What is to be done for the next record.
pub(super) enum Next {
    /// Give it, or the error that voids all before it.
    Give(Result<Entry, Error>),
    /// Read more from the connection.
    Read,
    /// There is none.
    End,
}

impl Arriving {
    /// The next record, if it is here.
    pub(super) fn next(&mut self) -> Next {
        loop {
            if let Some(entry) = self.entries.next() {
                return Next::Give(Ok(entry));
            }
            if self.is_over {
                return Next::End;
            }
            match self.parts.next() {
                None => return Next::Read,
                Some(Ok(part)) => {
                    self.seq = Some(part.seq);
                    self.is_over = part.last;
                    self.entries = part.entries.into_iter();
                }
                Some(Err(error)) => return Next::Give(Err(self.end(error))),
            }
        }
    }

    /// Takes what the connection gave.
    pub(super) fn receive(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.parts.receive(bytes)
    }

    /// Nothing more will come, because of `error`.
    pub(super) fn end(&mut self, error: Error) -> Error {
        self.is_over = true;
        error
    }

    /// Whether the connection has done its work.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// The last write that the records have seen.
    pub(super) fn seq(&self) -> Option<Seq> {
        self.seq
    }
}

/// Some of the records, and whether they are the last.
struct Part {
    entries: Vec<Entry>,
    seq: Seq,
    last: bool,
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
    fn receive(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
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
    fn next(&mut self) -> Option<Result<Part, Error>> {
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

    #[test]
    fn records_are_given_one_by_one_and_a_fault_or_the_last_part_ends_them() {
        let key = |next: Next| match next {
            Next::Give(entry) => entry.unwrap().key,
            Next::Read => "read".to_owned(),
            Next::End => "end".to_owned(),
        };
        let mut bytes = Vec::new();
        codec::encode_part(&mut bytes, ID, &records(&["a", "b"])).unwrap();
        codec::encode_part(&mut bytes, ID, &records(&[])).unwrap();
        let mut arriving = Arriving::default();
        assert_eq!((key(arriving.next()).as_str(), arriving.seq()), ("read", None));
        arriving.receive(&bytes).unwrap();
        let mut given: Vec<_> = (0..3).map(|_| key(arriving.next())).collect();
        assert_eq!((arriving.seq(), arriving.is_over()), (Some(Seq(5)), false));
        let mut bytes = Vec::new();
        codec::encode_answer(&mut bytes, ID, &records(&["c"])).unwrap();
        arriving.receive(&bytes).unwrap();
        given.extend((0..3).map(|_| key(arriving.next())));
        assert_eq!(given, ["a", "b", "read", "c", "end", "end"]);

        let mut bytes = Vec::new();
        codec::encode_answer(&mut bytes, ID, &Answer::Fault(Fault::SnapshotExpired)).unwrap();
        let mut arriving = Arriving::default();
        arriving.receive(&bytes).unwrap();
        assert!(matches!(arriving.next(), Next::Give(Err(Error::Fault(Fault::SnapshotExpired)))));
        assert!(arriving.is_over() && matches!(arriving.next(), Next::End));
    }
}
