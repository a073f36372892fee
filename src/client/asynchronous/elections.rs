//! Elections: one worker initialises something for all, and if it dies before it is done, the next one does.

use std::sync::Arc;
use std::time::Duration;

use commonhold_proto::{Election, Verb};
use tokio::sync::OwnedSemaphorePermit;

use super::held::Held;
use super::session::Session;
use super::{Client, Error};
use crate::client::grants::Grant;
use crate::client::read;

impl Client {
    /// Waits until whatever `name` stands for is initialised, or this client is elected to do that. For a limit of time, and to end the waiting, drop the future.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), commonhold::Error> {
    /// use commonhold::{Client, Elected};
    /// let client = Client::connect("rag_storage").await?;
    /// if let Elected::Won(election) = client.elect("warm up the cache").await? {
    ///     // Exactly one worker is here. Should it fail or die before `done`, the next one is.
    ///     election.done().await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Fault`] with [`Fault::Invalid`](super::Fault::Invalid) or [`Fault::TooLarge`](super::Fault::TooLarge) for an empty or
    /// too long name. [`Error::NoDaemon`] and [`Error::Lost`] when no daemon could be reached.
    pub async fn elect(&self, name: &str) -> Result<Elected, Error> {
        self.elect_for(name, true, None).await
    }

    /// As [`elect`](Self::elect), without waiting: while another one is at it, it is [`Elected::Running`].
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), commonhold::Error> {
    /// # let client = commonhold::Client::connect("rag_storage").await?;
    /// # use commonhold::Elected;
    /// match client.try_elect("migrate").await? {
    ///     Elected::Won(election) => election.done().await?,
    ///     Elected::Running => println!("somebody is at it"),
    ///     Elected::Done => println!("it was done before"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for [`elect`](Self::elect).
    pub async fn try_elect(&self, name: &str) -> Result<Elected, Error> {
        self.elect_for(name, false, self.session().options().timeout).await
    }

    async fn elect_for(&self, name: &str, wait: bool, timeout: Option<Duration>) -> Result<Elected, Error> {
        let session = self.session();
        let turn = session.turn(name);
        let turn = if wait { turn.acquire_owned().await.ok() } else { turn.try_acquire_owned().ok() };
        // Never closed: without one, another task is at it.
        let Some(turn) = turn else { return Ok(Elected::Running) };
        let turn = Turn { session: Arc::clone(session), permit: Some(turn) };
        let reply = session.wait_for(Verb::Elect { name, wait }, timeout)?.await?;
        Ok(match read::elected(&reply)? {
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
    /// The next task of this process asks after this has been given back.
    _turn: Turn,
}

impl ElectionGuard {
    /// It is done: everybody who asks is told so from now on, until the daemon ends.
    ///
    /// # Errors
    /// [`Error::Fault`] with [`Fault::NotHeld`](super::Fault::NotHeld) if the election was lost before: somebody else may be
    /// elected. [`Error::OutcomeUnknown`] if the connection was lost just then.
    pub async fn done(self) -> Result<(), Error> {
        self.held.end(true).await
    }

    /// Gives it up, and returns when the daemon knows. Dropping the guard does not wait for that.
    ///
    /// # Errors
    /// As for [`done`](Self::done).
    pub async fn give_up(self) -> Result<(), Error> {
        self.held.end(false).await
    }

    /// Whether the connection that it was won on still is the client's, as far as it knows: one atomic load.
    pub fn is_held(&self) -> bool {
        self.held.grant().is_held()
    }
}

/// The right to elect for a name, of one task of a process at a time.
#[derive(Debug)]
struct Turn {
    session: Arc<Session>,
    /// Taken when this is dropped.
    permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            self.session.end_turn(permit);
        }
    }
}
