//! Keyed locks: several keys at once, held while a guard lives.

use std::time::{Duration, Instant};

use super::held::Held;
use super::{Client, Error};
use crate::client::grants::{Grant, Wish, if_free, in_time};

impl Client {
    /// A lock of one or more keys, to be acquired. Nothing is sent yet.
    ///
    /// Keys are any text, and have nothing to do with keys of records. Each object is an owner of its own: one that asks for a key that
    /// it has already is refused, instead of waiting for itself. A clone is another owner.
    ///
    /// ```no_run
    /// use commonhold::blocking::{Batch, Client};
    /// let client = Client::connect("rag_storage")?;
    /// let entities = client.namespace("entities")?;
    /// let guard = client.lock(["entity Alice", "entity Bob"]).acquire()?;
    /// let merged = format!("{:?}", entities.get_many::<String>(&["Alice", "Bob"])?);
    /// client.write(&Batch::new().put(&entities, "Alice", &merged)?.fenced_by(&guard))?;
    /// guard.release()?;
    /// # Ok::<(), commonhold::blocking::Error>(())
    /// ```
    pub fn lock(&self, keys: impl IntoIterator<Item = impl Into<String>>) -> Lock {
        Lock { client: self.clone(), wish: Wish::new(keys) }
    }
}

/// Keys to be locked together, and how. See [`Client::lock`].
#[derive(Clone, Debug)]
#[must_use = "nothing is locked before `acquire`"]
pub struct Lock {
    client: Client,
    wish: Wish,
}

impl Lock {
    /// Others may hold the keys at the same time, all of them shared.
    ///
    /// ```no_run
    /// # let client = commonhold::blocking::Client::connect("rag_storage")?;
    /// let reading = client.lock(["index"]).shared().acquire()?;
    /// # Ok::<(), commonhold::blocking::Error>(())
    /// ```
    pub fn shared(mut self) -> Self {
        self.wish.shared = true;
        self
    }

    /// How long to wait at most; without it, for ever, whatever [`ConnectOptions`](super::ConnectOptions) say of requests.
    ///
    /// ```no_run
    /// # let client = commonhold::blocking::Client::connect("rag_storage")?;
    /// use std::time::Duration;
    /// match client.lock(["index"]).timeout(Duration::from_millis(500)).acquire() {
    ///     Err(error) if error.is_timeout() => println!("somebody else has it: {error}"),
    ///     guard => drop(guard?),
    /// }
    /// # Ok::<(), commonhold::blocking::Error>(())
    /// ```
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.wish.timeout = Some(timeout);
        self
    }

    /// Tells what whoever asks holds meanwhile, so that two who wait for each other are found out: the wish that would close
    /// such a cycle is refused with [`Fault::Deadlock`](super::Fault::Deadlock) instead of never being served. May be
    /// called for several guards.
    ///
    /// ```no_run
    /// # let client = commonhold::blocking::Client::connect("rag_storage")?;
    /// let outer = client.lock(["documents"]).acquire()?;
    /// let inner = client.lock(["document 7"]).holding(&outer).acquire()?;
    /// # Ok::<(), commonhold::blocking::Error>(())
    /// ```
    pub fn holding(mut self, held: &impl AsRef<Grant>) -> Self {
        self.wish.holds.push(held.as_ref().token());
        self
    }

    /// The same by tokens, which may be those of other sessions' locks under which this process was started.
    #[cfg(all(unix, feature = "daemon"))]
    pub(crate) fn holding_tokens(mut self, tokens: &[u64]) -> Self {
        self.wish.holds.extend(tokens);
        self
    }

    /// The keys, as they were given.
    pub fn keys(&self) -> &[String] {
        self.wish.keys()
    }

    /// Waits until all keys are this owner's: first come, first served, and all of them or none.
    ///
    /// If the connection is lost meanwhile, the wish is sent again on the next one, as the last that came. One that tells
    /// what is held fails then, for that was lost.
    ///
    /// # Errors
    /// [`Error::is_timeout`] when the time was up. [`Error::Fault`] with [`Fault::AlreadyHeld`](super::Fault::AlreadyHeld)
    /// and [`Fault::Deadlock`](super::Fault::Deadlock) for what would never end, with
    /// [`Fault::NotHeld`](super::Fault::NotHeld) if what is said to be [held](Self::holding) is not, and with
    /// [`Fault::Invalid`](super::Fault::Invalid) or [`Fault::TooLarge`](super::Fault::TooLarge) for no or too many keys, or
    /// one that is empty or too long. [`Error::NoDaemon`] and [`Error::Lost`] when no daemon could be reached.
    pub fn acquire(&self) -> Result<LockGuard, Error> {
        let began = Instant::now();
        in_time(self.ask(true, self.wish.timeout), began)
    }

    /// Takes the keys if all of them are free now, and nobody who came before waits for one; else answers none.
    ///
    /// ```no_run
    /// # let client = commonhold::blocking::Client::connect("rag_storage")?;
    /// match client.lock(["nightly job"]).try_acquire()? {
    ///     Some(guard) => println!("it is ours, under token {}", guard.token()),
    ///     None => println!("somebody is at it"),
    /// }
    /// # Ok::<(), commonhold::blocking::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`acquire`](Self::acquire), but for the waiting.
    pub fn try_acquire(&self) -> Result<Option<LockGuard>, Error> {
        if_free(self.ask(false, self.client.session().options().timeout))
    }

    fn ask(&self, wait: bool, timeout: Option<Duration>) -> Result<LockGuard, Error> {
        let session = self.client.session();
        let asked = session.wait_for(self.wish.verb(wait), timeout);
        let reply = asked.inspect_err(|error| self.wish.in_doubt(error))?;
        Ok(LockGuard { held: Held::new(session, Grant::lock(&reply, session.lost())?) })
    }
}

/// Keys that are locked until this is dropped, the process ends, or the connection is lost.
///
/// Dropping it gives the lock back without waiting, behind what was begun before. In a forked child it does nothing: the
/// lock is the parent's.
#[derive(Debug)]
#[must_use = "the lock is given back when this is dropped"]
pub struct LockGuard {
    held: Held,
}

impl AsRef<Grant> for LockGuard {
    fn as_ref(&self) -> &Grant {
        self.held.grant()
    }
}

impl LockGuard {
    /// The fencing token: greater than those of all earlier locks of the store and the Seqs of all earlier writes, and never given twice. A
    /// write [with it](super::Batch::fenced_by) is done only while this lock is held.
    pub fn token(&self) -> u64 {
        self.held.grant().token()
    }

    /// Whether the connection that it was granted on still is the client's: one atomic load.
    ///
    /// It is what the client knows, and a client without threads of its own learns that a connection is lost from the
    /// next call that uses it. What must not happen without the lock is a [fenced](super::Batch::fenced_by) write, which
    /// the daemon judges.
    pub fn is_held(&self) -> bool {
        self.held.grant().is_held()
    }

    /// Gives the lock back, and returns when the daemon has it. Dropping the guard does not wait for that.
    ///
    /// # Errors
    /// [`Error::Fault`] with [`Fault::NotHeld`](super::Fault::NotHeld) if it was lost before. [`Error::OutcomeUnknown`] if the
    /// connection was lost just then: nobody holds it now.
    pub fn release(self) -> Result<(), Error> {
        self.held.end(false)
    }

    /// Leaves the lock to the program that this process is about to become: it is held until that ends.
    #[cfg(all(unix, feature = "daemon"))]
    pub(crate) fn leave(self) -> Result<(), Error> {
        self.held.leave()
    }
}
