//! Slots: so many of something may be used at once, by all workers together.

use std::time::{Duration, Instant};

use commonhold_proto::Verb;

use super::held::Held;
use super::{Client, Error};
use crate::client::grants::{Grant, if_free, in_time};
use crate::client::read;

impl Client {
    /// A group of slots of which all clients together have `limit`, as of requests to a model. Nothing is sent yet.
    ///
    /// The first who uses a group decides how many slots it has; it is forgotten with the last session that has used it.
    ///
    /// ```no_run
    /// use commonhold::blocking::Client;
    /// let client = Client::connect("rag_storage")?;
    /// let llm = client.slots("llm:extract", 4);
    /// let slot = llm.acquire(1)?;
    /// // At most four workers are here at once.
    /// drop(slot);
    /// # Ok::<(), commonhold::blocking::Error>(())
    /// ```
    pub fn slots(&self, group: impl Into<String>, limit: u32) -> Slots {
        Slots { client: self.clone(), group: group.into(), limit, timeout: None }
    }
}

/// A group of slots. See [`Client::slots`].
#[derive(Clone, Debug)]
#[must_use = "no slot is taken before `acquire`"]
pub struct Slots {
    client: Client,
    group: String,
    limit: u32,
    timeout: Option<Duration>,
}

impl Slots {
    /// How long to wait at most; without it, for ever.
    ///
    /// ```no_run
    /// # let client = commonhold::blocking::Client::connect("rag_storage")?;
    /// # use std::time::Duration;
    /// let slot = client.slots("embedding", 8).timeout(Duration::from_secs(5)).acquire(1)?;
    /// # Ok::<(), commonhold::blocking::Error>(())
    /// ```
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// The group's name.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// Waits until so many slots are free and nobody who came before waits for some, and takes them.
    ///
    /// # Errors
    /// [`Error::is_timeout`] when the time was up. [`Error::Fault`] with [`Fault::LimitMismatch`](super::Fault::LimitMismatch) if
    /// the group has another limit, and with [`Fault::Invalid`](super::Fault::Invalid) for none or more than there are.
    /// [`Error::NoDaemon`] and [`Error::Lost`] when no daemon could be reached.
    pub fn acquire(&self, slots: u32) -> Result<SlotGuard, Error> {
        let began = Instant::now();
        in_time(self.ask(slots, true, self.timeout), began)
    }

    /// Takes so many slots if they are free now, and nobody who came before waits for some; else answers none.
    ///
    /// ```no_run
    /// # let client = commonhold::blocking::Client::connect("rag_storage")?;
    /// if let Some(slot) = client.slots("rerank", 2).try_acquire(1)? {
    ///     println!("rerank now, under {} slot", slot.slots());
    /// }
    /// # Ok::<(), commonhold::blocking::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`acquire`](Self::acquire), but for the waiting.
    pub fn try_acquire(&self, slots: u32) -> Result<Option<SlotGuard>, Error> {
        if_free(self.ask(slots, false, self.client.session().options().timeout))
    }

    /// Changes how many slots the group has, for all, and for what this object asks from now on. Who has some keeps them.
    ///
    /// ```no_run
    /// # let client = commonhold::blocking::Client::connect("rag_storage")?;
    /// let mut llm = client.slots("llm:extract", 4);
    /// llm.set_limit(2)?;
    /// # Ok::<(), commonhold::blocking::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Fault`] with [`Fault::Invalid`](super::Fault::Invalid) for 0. [`Error::OutcomeUnknown`] if the connection was lost
    /// before the answer came.
    pub fn set_limit(&mut self, limit: u32) -> Result<(), Error> {
        read::done(&self.client.call(Verb::SetLimit { group: &self.group, limit })?)?;
        self.limit = limit;
        Ok(())
    }

    fn ask(&self, slots: u32, wait: bool, timeout: Option<Duration>) -> Result<SlotGuard, Error> {
        let session = self.client.session();
        let verb = Verb::Acquire { group: &self.group, limit: self.limit, slots, wait };
        let reply = session.wait_for(verb, timeout)?;
        Ok(SlotGuard { held: Held::new(session, Grant::of_slots(slots, &reply, session.lost())?) })
    }
}

/// Slots that are taken until this is dropped, the process ends, or the connection is lost.
#[derive(Debug)]
#[must_use = "the slots are given back when this is dropped"]
pub struct SlotGuard {
    held: Held,
}

impl SlotGuard {
    /// How many.
    pub fn slots(&self) -> u32 {
        self.held.grant().slots()
    }

    /// Whether the connection that they were granted on still is the client's, as far as it knows: one atomic load.
    pub fn is_held(&self) -> bool {
        self.held.grant().is_held()
    }

    /// Gives the slots back, and returns when the daemon has them. Dropping the guard does not wait for that.
    ///
    /// # Errors
    /// As for [`LockGuard::release`](super::LockGuard::release).
    pub fn release(self) -> Result<(), Error> {
        self.held.end(false)
    }
}
