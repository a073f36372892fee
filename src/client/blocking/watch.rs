//! A namespace's changes as they are made: an iterator that goes on for ever.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use commonhold_proto::Seq;

use super::own_line::OwnLine;
use super::{Error, Namespace, WatchEvent, WatchOptions};
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
}

impl Watch {
    pub(super) fn new(namespace: Namespace, options: WatchOptions) -> Self {
        Self { namespace, watching: Watching::new(options), line: None }
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
            if !self.read(deadline)? {
                return Err(Error::TimedOut {
                    waited: timeout.unwrap_or_default(),
                    waiting_for: "the daemon to begin a watch",
                });
            }
        }
        Ok(self.watching.through().unwrap_or_default())
    }

    /// The next event, if it comes within `time`; zero takes only what is there.
    ///
    /// # Errors
    /// See [`Watch`].
    pub fn next_timeout(&mut self, time: Duration) -> Result<Option<WatchEvent>, Error> {
        let deadline = Instant::now() + time;
        loop {
            match self.watching.next() {
                Next::Give(event) => return Ok(Some(event)),
                Next::End => return Ok(None),
                Next::Read => {
                    if !self.read(Some(deadline))? {
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

    /// Reads once from the connection, which it makes before if there is none. False if nothing came in time.
    fn read(&mut self, deadline: Option<Instant>) -> Result<bool, Error> {
        let session = self.namespace.client().session();
        if self.line.is_none() {
            let frame = self.watching.ask(deadline_ms(session.options().timeout), self.namespace.target())?;
            let stream = session.open_stream_for(&frame)?;
            self.line = Some(OwnLine::over(stream));
        }
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
                    if let Err(error) = self.read(None) {
                        return Some(Err(error));
                    }
                }
            }
        }
    }
}
