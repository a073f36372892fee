//! A namespace's changes as they are made: a stream that goes on for ever.

use commonhold_proto::Seq;

use super::own_line::OwnLine;
use super::{Error, Namespace, WatchEvent, WatchOptions};
use crate::client::limits::deadline_ms;
use crate::client::watching::{Next, Watching};

/// What is changed in a namespace, write by write, in order, none missing and none twice; given by [`next`](Self::next).
///
/// It has a connection of its own, made when the first event is asked for and ended when it is dropped. When that is lost
/// (the daemon is restarted, or nobody took an event for half a minute) the next call makes another and goes on after what was
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

    /// Whether it has ended with an error that cannot be gone on from.
    pub fn is_over(&self) -> bool {
        self.watching.is_over()
    }

    /// Sees to it that there is a connection, so that what is written from here on will be told, though nothing is asked for yet.
    /// Returns the write after which its next event tells, as [`through`](Self::through): what has come and was not given yet is not
    /// counted.
    ///
    /// # Errors
    /// As for the events.
    pub async fn begin(&mut self) -> Result<Seq, Error> {
        while !self.watching.has_begun() {
            self.read().await?;
        }
        Ok(self.watching.through().unwrap_or_default())
    }

    /// The next event; waits for it. Dropping its future loses nothing.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), commonhold::Error> {
    /// use commonhold::{WatchEvent, WatchOptions};
    /// # let client = commonhold::Client::connect("rag_storage").await?;
    /// let mut watch = client.namespace("pipeline_status")?.volatile().watch(WatchOptions::new());
    /// while let Some(event) = watch.next().await {
    ///     match event? {
    ///         WatchEvent::Changes(set) => println!("{}: {:?}", set.seq, set.changes),
    ///         WatchEvent::Lagged { lost_from, next } => println!("missed {lost_from} to {next}"),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// See [`Watch`].
    pub async fn next(&mut self) -> Option<Result<WatchEvent, Error>> {
        loop {
            match self.watching.next() {
                Next::Give(event) => return Some(Ok(event)),
                Next::End => return None,
                Next::Read => {
                    if let Err(error) = self.read().await {
                        return Some(Err(error));
                    }
                }
            }
        }
    }

    /// Reads once from the connection, which it makes before if there is none.
    async fn read(&mut self) -> Result<(), Error> {
        let session = self.namespace.client().session();
        if self.line.is_none() {
            let frame = self.watching.ask(deadline_ms(session.options().timeout), self.namespace.target())?;
            let stream = session.open_stream_for(frame).await?;
            self.line = Some(OwnLine::over(stream).map_err(|e| session.broke_off(&e.to_string()))?);
        }
        let Some(up) = &mut self.line else { return Ok(()) };
        if !up.is_ours() {
            return Err(self.watching.end(Error::Forked));
        }
        let full = up.buffer.len();
        let read = up.stream.read_with(|stream| stream.read_now(&mut up.buffer).map(|read| (read, read == full))).await;
        let goes_on = match read {
            Ok(0) | Err(_) => false,
            Ok(read) => self.watching.receive(&up.buffer[..read]).inspect_err(|_| self.line = None)?,
        };
        if !goes_on {
            self.line = None;
            self.watching.lost(session.broke_off("the daemon closed the connection"))?;
        }
        Ok(())
    }
}
