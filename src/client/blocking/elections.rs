//! Elections: one worker initialises something for all, and if it dies before it is done, the next one does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use commonhold_proto::{Election, Verb};

use super::held::Held;
use super::session::Session;
use super::{Client, Error};
use crate::client::grants::{Grant, in_time};
use crate::client::read;

impl Client {
    /// Waits until whatever `name` stands for is initialised, or this client is elected to do that.
    ///
    /// ```no_run
    /// use commonhold::blocking::{Client, Elected};
    /// let client = Client::connect("rag_storage")?;
    /// if let Elected::Won(election) = client.elect("warm up the cache")? {
    ///     // Exactly one worker is here. Should it fail or die before `done`, the next one is.
    ///     election.done()?;
    /// }
    /// # Ok::<(), commonhold::blocking::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Fault`] with [`Fault::Invalid`](super::Fault::Invalid) or [`Fault::TooLarge`](super::Fault::TooLarge) for an empty or
    /// too long name. [`Error::NoDaemon`] and [`Error::Lost`] when no daemon could be reached.
    pub fn elect(&self, name: &str) -> Result<Elected, Error> {
        self.elect_for(name, true, None)
    }

    /// As [`elect`](Self::elect), for at most this long.
    ///
    /// ```no_run
    /// # let client = commonhold::blocking::Client::connect("rag_storage")?;
    /// # use std::time::Duration;
    /// let elected = client.elect_within("warm up the cache", Duration::from_secs(60));
    /// # Ok::<(), commonhold::blocking::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`elect`](Self::elect), and [`Error::is_timeout`] when the time was up.
    pub fn elect_within(&self, name: &str, timeout: Duration) -> Result<Elected, Error> {
        self.elect_for(name, true, Some(timeout))
    }

    /// As [`elect`](Self::elect), without waiting: while another one is at it, it is [`Elected::Running`].
    ///
    /// ```no_run
    /// # let client = commonhold::blocking::Client::connect("rag_storage")?;
    /// # use commonhold::blocking::Elected;
    /// match client.try_elect("migrate")? {
    ///     Elected::Won(election) => election.done()?,
    ///     Elected::Running => println!("somebody is at it"),
    ///     Elected::Done => println!("it was done before"),
    /// }
    /// # Ok::<(), commonhold::blocking::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`elect`](Self::elect).
    pub fn try_elect(&self, name: &str) -> Result<Elected, Error> {
        self.elect_for(name, false, self.session().options().timeout)
    }

    fn elect_for(&self, name: &str, wait: bool, timeout: Option<Duration>) -> Result<Elected, Error> {
        let (session, began) = (self.session(), Instant::now());
        let deadline = timeout.and_then(|timeout| began.checked_add(timeout));
        let Some(turn) = Turn::take(session, name, wait, deadline) else {
            let waiting_for = "another thread of this process that was elected";
            return if wait {
                Err(Error::TimedOut { waited: began.elapsed(), waiting_for })
            } else {
                Ok(Elected::Running)
            };
        };
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let reply = session.wait_for(Verb::Elect { name, wait }, left)?;
        Ok(match in_time(read::elected(&reply), began)? {
            Election::Won => {
                let held = Held::new(session, Grant::election(name, &reply, session.lost()));
                Elected::Won(ElectionGuard { held, _turn: turn })
            }
            Election::Running => Elected::Running,
            Election::Done => Elected::Done,
        })
    }
}

/// How far the initialisation of something is that one worker does for all.
#[derive(Debug)]
#[must_use = "who has won and drops this gives the election up"]
pub enum Elected {
    /// It is for the caller to do.
    Won(ElectionGuard),
    /// It is done; whoever did it has said so.
    Done,
    /// Somebody else is at it.
    Running,
}

/// An election that was won: to be ended with [`done`](Self::done). Dropping it gives it up, and the one that has waited
/// longest is elected; so does the end of the process, and the loss of the connection.
#[derive(Debug)]
#[must_use = "the election is given up when this is dropped"]
pub struct ElectionGuard {
    held: Held,
    /// The next thread of this process asks after this has been given back.
    _turn: Turn,
}

impl ElectionGuard {
    /// It is done: everybody who asks is told so from now on, until the daemon ends.
    ///
    /// # Errors
    /// [`Error::Fault`] with [`Fault::NotHeld`](super::Fault::NotHeld) if the election was lost before: somebody else may be
    /// elected. [`Error::OutcomeUnknown`] if the connection was lost just then.
    pub fn done(self) -> Result<(), Error> {
        self.held.end(true)
    }

    /// Gives it up, and returns when the daemon knows. Dropping the guard does not wait for that.
    ///
    /// # Errors
    /// As for [`done`](Self::done).
    pub fn give_up(self) -> Result<(), Error> {
        self.held.end(false)
    }

    /// Whether the connection that it was won on still is the client's, as far as it knows: one atomic load.
    pub fn is_held(&self) -> bool {
        self.held.grant().is_held()
    }
}

/// The right to elect for a name, of one thread of a process at a time.
#[derive(Debug)]
struct Turn {
    session: Arc<Session>,
    name: String,
}

impl Turn {
    fn take(session: &Arc<Session>, name: &str, wait: bool, deadline: Option<Instant>) -> Option<Self> {
        let turn = || Self { session: Arc::clone(session), name: name.to_owned() };
        session.take_turn(name, wait, deadline).then(turn)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.session.pass_turn(&self.name);
    }
}
