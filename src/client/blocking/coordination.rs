//! What there is to know of coordination: who holds what, and what became of it with connections and daemons.

use std::sync::atomic::Ordering;
use std::time::Duration;

use commonhold_proto::{FlagInfo, LockInfo, SlotInfo, Verb};

use super::{Client, Error};
use crate::client::read;

impl Client {
    /// The keys that are locked or waited for, by whom, and since when; in order of key.
    ///
    /// ```no_run
    /// # let client = commonhold::blocking::Client::connect("rag_storage")?;
    /// for lock in client.locks()? {
    ///     println!("{}: {} waiting for {:?}", lock.key, lock.waiters.len(), lock.holders[0].pid);
    /// }
    /// # Ok::<(), commonhold::blocking::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for any read: [`Error::NoDaemon`], [`Error::Lost`], [`Error::TimedOut`].
    pub fn locks(&self) -> Result<Vec<LockInfo>, Error> {
        read::locks(&self.call(Verb::Locks)?)
    }

    /// The groups of slots, who has some, and who waits; in order of name.
    ///
    /// ```no_run
    /// # let client = commonhold::blocking::Client::connect("rag_storage")?;
    /// for group in client.slot_groups()? {
    ///     println!("{}: {} of {}", group.group, group.taken, group.limit);
    /// }
    /// # Ok::<(), commonhold::blocking::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for any read.
    pub fn slot_groups(&self) -> Result<Vec<SlotInfo>, Error> {
        read::slots(&self.call(Verb::Slots)?)
    }

    /// The update flags of all clients, workspace by workspace.
    ///
    /// ```no_run
    /// # let client = commonhold::blocking::Client::connect("rag_storage")?;
    /// for flags in client.flags()? {
    ///     println!("{}: {} set", flags.namespace, flags.sessions.iter().filter(|flag| flag.set).count());
    /// }
    /// # Ok::<(), commonhold::blocking::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for any read.
    pub fn flags(&self) -> Result<Vec<FlagInfo>, Error> {
        read::flags(&self.call(Verb::Flags)?)
    }

    /// How often this client has lost its connection. Each time, all that it had been granted ended; its update flags
    /// are registered again on the next connection, set.
    pub fn connections_lost(&self) -> u64 {
        self.session().lost().load(Ordering::Acquire)
    }

    /// Waits until [`restarts`](Self::restarts) is above `seen`, and returns it: volatile namespaces, elections and all that
    /// was held are gone then. The connection is made again if it is lost.
    ///
    /// ```no_run
    /// # let client = commonhold::blocking::Client::connect("rag_storage")?;
    /// let (watcher, mut seen) = (client.clone(), client.restarts());
    /// std::thread::spawn(move || {
    ///     while let Ok(restarts) = watcher.restarted(seen, None) {
    ///         seen = restarts;
    ///         println!("the daemon was restarted: volatile status is published anew");
    ///     }
    /// });
    /// # Ok::<(), commonhold::blocking::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::TimedOut`] when the time was up. [`Error::NoDaemon`] or [`Error::Lost`] if the connection was lost and could not be
    /// made again in the time that [`ConnectOptions`](super::ConnectOptions::reconnect_for) give.
    pub fn restarted(&self, seen: u64, timeout: Option<Duration>) -> Result<u64, Error> {
        self.session().restarted(seen, timeout)
    }
}
