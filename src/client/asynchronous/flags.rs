//! Update flags: a boolean for each worker and namespace, which one worker sets for all.

use commonhold_proto::{FlagAction, Verb};

use super::session::Registered;
use super::{Client, Error, Namespace};
use crate::client::core::Reply;
use crate::client::flags::{At, Cleared};
use crate::client::read;

impl Namespace {
    /// An update flag of this namespace, for this object alone: it begins cleared, and is set by
    /// [`set_all_flags`](Self::set_all_flags) and by every write to the namespace, of any client, this one included. Of a volatile
    /// namespace only `set_all_flags` sets it: a [`watch`](Self::watch) tells of writes to that.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), commonhold::Error> {
    /// use commonhold::Client;
    /// let client = Client::connect("rag_storage").await?;
    /// let chunks = client.namespace("text_chunks")?;
    /// let flag = chunks.update_flag().await?;
    /// if flag.is_set().await? {
    ///     flag.clear().await?;
    ///     // Read anew whatever was made of the namespace.
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Fault`] with [`Fault::TooLarge`](super::Fault::TooLarge) for too many flags of one client. Otherwise as for any
    /// read.
    pub async fn update_flag(&self) -> Result<UpdateFlag, Error> {
        let before = self.client().session().near().epoch();
        let mut registered = self.client().session().register_flag(self.target()).await?;
        let reply = registered.reply.take().expect("registering answers");
        let now = At::read(&reply)?;
        let cleared = Cleared::at(now);
        cleared.share(now, registered.session().near().flag_of(self.target(), before));
        Ok(UpdateFlag { client: self.client().clone(), registered, cleared })
    }

    /// Sets the update flags of this namespace, of all clients.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), commonhold::Error> {
    /// # let client = commonhold::Client::connect("rag_storage").await?;
    /// // A graph file that is none of Commonhold's was written: all who have read it must read it anew, but for this one.
    /// let graph = client.namespace("chunk_entity_relation")?;
    /// let own = graph.update_flag().await?;
    /// graph.set_all_flags().await?;
    /// own.clear().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for any read: it is repeated if the connection is lost.
    pub async fn set_all_flags(&self) -> Result<(), Error> {
        self.flag(FlagAction::SetAll).await
    }

    /// Clears the update flags of this namespace, of all clients.
    ///
    /// # Errors
    /// [`Error::OutcomeUnknown`] if the connection was lost before the answer came: it is not repeated, for it could clear
    /// what others have set since.
    pub async fn clear_all_flags(&self) -> Result<(), Error> {
        self.flag(FlagAction::ClearAll).await
    }

    async fn flag(&self, action: FlagAction) -> Result<(), Error> {
        read::flag(&self.client().call(Verb::Flag { space: self.target().space(), action }).await?).map(drop)
    }
}

/// An update flag: set until it is cleared, and again by whatever sets it later. Dropping it forgets it.
///
/// If the connection is lost, nobody knows what was missed: the flag is set then.
#[derive(Debug)]
pub struct UpdateFlag {
    client: Client,
    /// That it was registered with; a forked child has registered none.
    registered: Registered,
    cleared: Cleared,
}

impl UpdateFlag {
    /// Whether it is set. Where the client may look at the daemon's words itself, nothing is sent.
    ///
    /// # Errors
    /// As for any read.
    pub async fn is_set(&self) -> Result<bool, Error> {
        if !self.registered.is_own() {
            // It begins anew there: what the parent has registered is the parent's.
            return Err(Error::Forked);
        }
        let near = self.registered.session().near();
        // What this client has sent counts for it, whether or not it is done by now.
        if !near.is_writing()
            && let Some(is_set) = self.cleared.look()
        {
            return Ok(is_set);
        }
        let before = near.epoch();
        let now = At::read(&self.ask(FlagAction::Look).await?)?;
        self.cleared.share(now, near.flag_of(self.registered.target(), before));
        Ok(self.cleared.is_set(now))
    }

    /// Clears it, and no other. What was written before is taken for seen: so clear it first, and then read.
    ///
    /// # Errors
    /// As for any read. If the connection was lost meanwhile, it is set again.
    pub async fn clear(&self) -> Result<(), Error> {
        match self.ask(FlagAction::Clear).await {
            Ok(reply) => self.cleared.clear(At::read(&reply)?),
            // It is as if it had been cleared and the connection lost after that.
            Err(Error::OutcomeUnknown { .. } | Error::Fault(super::Fault::NotHeld { .. })) => self.cleared.set(),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Sets it, and no other. Nothing is sent: others do not see it in [`Client::flags`].
    pub fn set(&self) {
        self.cleared.set();
    }

    async fn ask(&self, action: FlagAction) -> Result<Reply, Error> {
        if !self.registered.is_own() {
            // It begins anew there: what the parent has registered is the parent's.
            return Err(Error::Forked);
        }
        self.client.call(Verb::Flag { space: self.registered.target().space(), action }).await
    }
}
