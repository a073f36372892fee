//! Every record of a namespace as they all were at one moment, without holding all of them.

use std::io::{ErrorKind, Read as _};
use std::vec;

use commonhold_proto::{Seq, Verb};

use super::{Entry, Error, Namespace};
use crate::client::parts::Parts;
use crate::ipc::Stream;

/// Bytes read at once.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// The records of a namespace in insertion order, all as they were at one moment: an iterator.
///
/// It has a connection of its own, made when the first record is asked for, and ended when it is dropped; so a caller
/// that takes its time holds up nobody, and memory holds no more than a part of the records. It sees every write that
/// was acknowledged before it began. An error ends it, and voids what came before: the records were not all.
#[derive(Debug)]
#[must_use = "nothing is fetched before the first record is asked for"]
pub struct GetAll {
    namespace: Namespace,
    values: bool,
    entries: vec::IntoIter<Entry>,
    seq: Option<Seq>,
    line: Line,
}

#[derive(Debug)]
enum Line {
    Unasked,
    Up(Box<Up>),
    End,
}

#[derive(Debug)]
struct Up {
    /// Whose connection it is: a forked child must not take its parent's parts.
    pid: u32,
    stream: Stream,
    parts: Parts,
    buffer: Vec<u8>,
}

impl Drop for Up {
    fn drop(&mut self) {
        if self.pid == std::process::id() {
            // A child that was forked may hold the socket open: closing it would not tell the daemon.
            self.stream.shutdown();
        }
    }
}

impl GetAll {
    pub(super) fn new(namespace: Namespace) -> Self {
        Self { namespace, values: true, entries: Vec::new().into_iter(), seq: None, line: Line::Unasked }
    }

    /// Keys without values, which spares sending them: [`Entry::value`] is empty.
    pub fn keys_only(mut self) -> Self {
        self.values = false;
        self
    }

    /// The last write that the records have seen; none before the first part has arrived.
    pub fn seq(&self) -> Option<Seq> {
        self.seq
    }

    /// The next part; none is the end.
    fn fetch(&mut self) -> Result<Option<Vec<Entry>>, Error> {
        let session = self.namespace.client().session();
        if matches!(self.line, Line::Unasked) {
            let verb = Verb::GetAll { space: self.namespace.target().space(), values: self.values };
            let stream = session.open_stream(verb)?;
            let (pid, buffer) = (std::process::id(), vec![0; READ_BUFFER_BYTES]);
            self.line = Line::Up(Box::new(Up { pid, stream, parts: Parts::default(), buffer }));
        }
        let Line::Up(up) = &mut self.line else { return Ok(None) };
        if up.pid != std::process::id() {
            return Err(Error::Forked);
        }
        loop {
            if let Some(part) = up.parts.next() {
                let part = part?;
                self.seq = Some(part.seq);
                if part.last {
                    self.line = Line::End;
                }
                return Ok(Some(part.entries));
            }
            match (&up.stream).read(&mut up.buffer) {
                Ok(0) => return Err(session.broke_off("the daemon closed the connection")),
                Ok(read) => up.parts.receive(&up.buffer[..read])?,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    let waited = session.options().timeout.unwrap_or_default();
                    return Err(Error::TimedOut { waited, waiting_for: "the next part of the records" });
                }
                Err(e) => return Err(session.broke_off(&e.to_string())),
            }
        }
    }
}

impl Iterator for GetAll {
    type Item = Result<Entry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.entries.next() {
                return Some(Ok(entry));
            }
            match self.fetch() {
                Ok(Some(entries)) => self.entries = entries.into_iter(),
                Ok(None) => return None,
                Err(error) => {
                    self.line = Line::End;
                    return Some(Err(error));
                }
            }
        }
    }
}

impl std::iter::FusedIterator for GetAll {}
