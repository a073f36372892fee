//! A namespace's changes as they are made: an iterator that goes on for ever.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use commonhold_proto::Seq;

use super::own_line::OwnLine;
use super::{Error, Namespace, WatchEvent, WatchOptions};
use crate::client::connect::Search;
use crate::client::limits::deadline_ms;
use crate::client::watching::{Next, Watching};
use crate::ipc::Wanted;

/// What is changed in a namespace, write by write, in order, none missing and none twice: an iterator that waits for the next.
///
/// It has a connection of its own, made when the first event is asked for and ended when it is dropped. When that is lost
/// (the daemon is restarted, or this caller took no event for half a minute) the next call makes another and goes on after what was
/// received. A gap is told as what it is: [`WatchEvent::Lagged`] in between, or one of these as the last item, after which there are no more:
/// [`Fault::Gone`](super::Fault::Gone) (what followed is not kept any more), [`Fault::Rewound`](super::Fault::Rewound) (a crash
/// took writes that were told) and [`Fault::NotYet`](super::Fault::NotYet). Read all records then, and watch from there, or let a [`Mirror`](super::Mirror)
/// do it. Other errors, as [`Error::NoDaemon`], end nothing: the next call tries again.
#[derive(Debug)]
#[must_use = "nothing is watched before the first event is asked for"]
pub struct Watch {
    namespace: Namespace,
    watching: Watching,
    line: Option<OwnLine>,
    search: Search,
}

impl Watch {
    pub(super) fn new(namespace: Namespace, options: WatchOptions) -> Self {
        Self { namespace, watching: Watching::new(options), line: None, search: Search::default() }
    }

    /// Everything through this write was given: where to go on with another watch. None before it is known from where on this
    /// one tells.
    pub fn through(&self) -> Option<Seq> {
        self.watching.through()
    }

    /// Sees to it that there is a connection, so that what is written from here on will be told, though nothing is asked for yet.
    /// Returns the write after which its next event tells, as [`through`](Self::through): what has come and was not given yet is not
    /// counted.
    ///
    /// # Errors
    /// As for the events.
    pub fn begin(&mut self) -> Result<Seq, Error> {
        let timeout = self.namespace.client().session().options().timeout;
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        while !self.watching.has_begun() {
            self.connect(None)?;
            if !self.read(deadline)? {
                return Err(Error::TimedOut {
                    waited: timeout.unwrap_or_default(),
                    waiting_for: "the daemon to begin a watch",
                });
            }
        }
        Ok(self.watching.through().unwrap_or_default())
    }

    /// The next event, if it comes within `time`; zero takes only what is there. Where there is no connection, one try to make
    /// it is made in any case, for a fifth of a second at the most.
    ///
    /// # Errors
    /// See [`Watch`]. That no daemon can be reached is an error when one has been looked for as long as
    /// [`reconnect_for`](super::ConnectOptions::reconnect_for) says, in this call and those before it; until then it answers none.
    pub fn next_timeout(&mut self, time: Duration) -> Result<Option<WatchEvent>, Error> {
        let deadline = Instant::now() + time;
        loop {
            match self.watching.next() {
                Next::Give(event) => return Ok(Some(event)),
                Next::End => return Ok(None),
                Next::Read => {
                    if !self.connect(Some(deadline))? || !self.read(Some(deadline))? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Whether it has ended with an error that cannot be gone on from.
    pub fn is_over(&self) -> bool {
        self.watching.is_over()
    }

    /// Makes a connection if there is none. False if there was none in time.
    fn connect(&mut self, deadline: Option<Instant>) -> Result<bool, Error> {
        if self.line.is_none() {
            let session = self.namespace.client().session();
            let frame = self.watching.ask(deadline_ms(session.options().timeout), self.namespace.target())?;
            self.line = session.open_stream_by(&frame, &mut self.search, deadline)?.map(OwnLine::over);
        }
        Ok(self.line.is_some())
    }

    /// Reads once from the connection. False if nothing came in time.
    fn read(&mut self, deadline: Option<Instant>) -> Result<bool, Error> {
        let session = self.namespace.client().session();
        let Some(up) = &mut self.line else { return Ok(true) };
        if !up.is_ours() {
            return Err(self.watching.end(Error::Forked));
        }
        let read = loop {
            match up.stream.read_now(&mut up.buffer) {
                Ok(0) => break Err("the daemon closed the connection".to_owned()),
                Ok(read) => break Ok(read),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
                    if left == Some(Duration::ZERO) {
                        return Ok(false);
                    }
                    if let Err(e) = up.stream.wait(Wanted::Read, left) {
                        break Err(e.to_string());
                    }
                }
                Err(e) => break Err(e.to_string()),
            }
        };
        let goes_on = match read {
            Ok(read) => self.watching.receive(&up.buffer[..read]).inspect_err(|_| self.line = None)?,
            Err(reason) => {
                self.line = None;
                self.watching.lost(session.broke_off(&reason))?;
                return Ok(true);
            }
        };
        if !goes_on {
            self.line = None;
            self.watching.lost(session.broke_off("the daemon closed the connection"))?;
        }
        Ok(true)
    }
}

impl Iterator for Watch {
    type Item = Result<WatchEvent, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.watching.next() {
                Next::Give(event) => return Some(Ok(event)),
                Next::End => return None,
                Next::Read => {
                    if let Err(error) = self.connect(None).and_then(|_| self.read(None)) {
                        return Some(Err(error));
                    }
                }
            }
        }
    }
}
