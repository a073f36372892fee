//! What there is to know of coordination: who holds what, and what became of it with connections and daemons.

use std::sync::atomic::Ordering;

use commonhold_proto::{FlagInfo, LockInfo, SlotInfo, Verb};

use super::{Client, Error};
use crate::client::read;

impl Client {
    /// The keys that are locked or waited for, by whom, and since when; in order of key.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), commonhold::Error> {
    /// # let client = commonhold::Client::connect("rag_storage").await?;
    /// for lock in client.locks().await? {
    ///     println!("{}: {} waiting for {:?}", lock.key, lock.waiters.len(), lock.holders[0].pid);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for any read: [`Error::NoDaemon`], [`Error::Lost`], [`Error::TimedOut`].
    pub async fn locks(&self) -> Result<Vec<LockInfo>, Error> {
        read::locks(&self.call(Verb::Locks).await?)
    }

    /// The groups of slots, who has some, and who waits; in order of name.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), commonhold::Error> {
    /// # let client = commonhold::Client::connect("rag_storage").await?;
    /// for group in client.slot_groups().await? {
    ///     println!("{}: {} of {}", group.group, group.taken, group.limit);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for any read.
    pub async fn slot_groups(&self) -> Result<Vec<SlotInfo>, Error> {
        read::slots(&self.call(Verb::Slots).await?)
    }

    /// The update flags of all clients, workspace by workspace.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), commonhold::Error> {
    /// # let client = commonhold::Client::connect("rag_storage").await?;
    /// for flags in client.flags().await? {
    ///     println!("{}: {} set", flags.namespace, flags.sessions.iter().filter(|flag| flag.set).count());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for any read.
    pub async fn flags(&self) -> Result<Vec<FlagInfo>, Error> {
        read::flags(&self.call(Verb::Flags).await?)
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
    /// # async fn example() -> Result<(), commonhold::Error> {
    /// # let client = commonhold::Client::connect("rag_storage").await?;
    /// let (watcher, mut seen) = (client.clone(), client.restarts());
    /// tokio::spawn(async move {
    ///     while let Ok(restarts) = watcher.restarted(seen).await {
    ///         seen = restarts;
    ///         println!("the daemon was restarted: volatile status is published anew");
    ///     }
    /// });
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::NoDaemon`] or [`Error::Lost`] if the connection was lost and could not be
    /// made again in the time that [`ConnectOptions`](super::ConnectOptions::reconnect_for) give.
    pub async fn restarted(&self, seen: u64) -> Result<u64, Error> {
        self.session().restarted(seen).await
    }
}
