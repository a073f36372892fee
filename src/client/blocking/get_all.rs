//! Every record of a namespace as they all were at one moment, without holding all of them.

use std::io::{ErrorKind, Read as _};
use std::time::Instant;

use commonhold_proto::{Seq, Verb};

use super::own_line::OwnLine;
use super::{Entry, Error, Namespace};
use crate::client::connect::{Search, ask_for_stream};
use crate::client::parts::{Arriving, Next};

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
    arriving: Arriving,
    /// None before the first record was asked for, and when no more will come.
    line: Option<OwnLine>,
}

impl GetAll {
    pub(super) fn new(namespace: Namespace) -> Self {
        Self { namespace, values: true, arriving: Arriving::default(), line: None }
    }

    /// Keys without values, which spares sending them: [`Entry::value`] is empty.
    pub fn keys_only(mut self) -> Self {
        self.values = false;
        self
    }

    /// The last write that the records have seen; none before the first part has arrived.
    pub fn seq(&self) -> Option<Seq> {
        self.arriving.seq()
    }

    /// Makes the connection by this deadline. False if there was none in time.
    pub(super) fn connect(&mut self, search: &mut Search, deadline: Option<Instant>) -> Result<bool, Error> {
        let session = self.namespace.client().session();
        let verb = Verb::GetAll { space: self.namespace.target().space(), values: self.values };
        let frame = ask_for_stream(session.options(), verb)?;
        self.line = session.open_stream_by(&frame, search, deadline)?.map(OwnLine::over);
        Ok(self.line.is_some())
    }

    /// Reads once from the connection, which it makes before if there is none.
    fn read(&mut self) -> Result<(), Error> {
        let session = self.namespace.client().session();
        let up = match &mut self.line {
            Some(up) => up,
            none => {
                let verb = Verb::GetAll { space: self.namespace.target().space(), values: self.values };
                let stream = session.open_stream(verb)?;
                none.insert(OwnLine::over(stream))
            }
        };
        if !up.is_ours() {
            return Err(Error::Forked);
        }
        match (&up.stream).read(&mut up.buffer) {
            Ok(0) => Err(session.broke_off("the daemon closed the connection")),
            Ok(read) => self.arriving.receive(&up.buffer[..read]),
            Err(e) if e.kind() == ErrorKind::Interrupted => Ok(()),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                let waited = session.options().timeout.unwrap_or_default();
                Err(Error::TimedOut { waited, waiting_for: "the next part of the records" })
            }
            Err(e) => Err(session.broke_off(&e.to_string())),
        }
    }
}

impl Iterator for GetAll {
    type Item = Result<Entry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let next = self.arriving.next();
            if self.arriving.is_over() {
                self.line = None;
            }
            match next {
                Next::Give(given) => return Some(given),
                Next::End => return None,
                Next::Read => {
                    if let Err(error) = self.read() {
                        self.line = None;
                        return Some(Err(self.arriving.end(error)));
                    }
                }
            }
        }
    }
}

impl std::iter::FusedIterator for GetAll {}
