//! Update flags: a boolean for each worker and namespace, which one worker sets for all.

use std::sync::Arc;

use commonhold_proto::{FlagAction, Verb};

use super::session::Session;
use super::{Client, Error, Namespace, Target};
use crate::client::core::Reply;
use crate::client::flags::{At, Cleared};
use crate::client::read;

impl Namespace {
    /// An update flag of this namespace, for this object alone: it begins cleared, and is set by
    /// [`set_all_flags`](Self::set_all_flags) and by every write to the namespace, of any client, this one included. Of a volatile
    /// namespace only `set_all_flags` sets it: a [`watch`](Self::watch) tells of writes to that.
    ///
    /// ```no_run
    /// use commonhold::blocking::Client;
    /// let client = Client::connect("rag_storage")?;
    /// let chunks = client.namespace("text_chunks")?;
    /// let flag = chunks.update_flag()?;
    /// if flag.is_set()? {
    ///     flag.clear()?;
    ///     // Read anew whatever was made of the namespace.
    /// }
    /// # Ok::<(), commonhold::blocking::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Fault`] with [`Fault::TooLarge`](super::Fault::TooLarge) for too many flags of one client. Otherwise as for any
    /// read.
    pub fn update_flag(&self) -> Result<UpdateFlag, Error> {
        let session = self.client().session();
        let before = session.near().epoch();
        let reply = session.register_flag(self.target())?;
        let (session, target) = (Arc::clone(session), self.target().clone());
        // From here on dropping it forgets it, whatever the daemon said.
        let mut flag = UpdateFlag { client: self.client().clone(), session, target, cleared: Cleared::unknown() };
        let now = At::read(&reply)?;
        flag.cleared = Cleared::at(now);
        flag.cleared.share(now, flag.session.near().flag_of(&flag.target, before));
        Ok(flag)
    }

    /// Sets the update flags of this namespace, of all clients.
    ///
    /// ```no_run
    /// # let client = commonhold::blocking::Client::connect("rag_storage")?;
    /// // A graph file that is none of Commonhold's was written: all who have read it must read it anew, but for this one.
    /// let graph = client.namespace("chunk_entity_relation")?;
    /// let own = graph.update_flag()?;
    /// graph.set_all_flags()?;
    /// own.clear()?;
    /// # Ok::<(), commonhold::blocking::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for any read: it is repeated if the connection is lost.
    pub fn set_all_flags(&self) -> Result<(), Error> {
        self.flag(FlagAction::SetAll)
    }

    /// Clears the update flags of this namespace, of all clients.
    ///
    /// # Errors
    /// [`Error::OutcomeUnknown`] if the connection was lost before the answer came: it is not repeated, for it could clear
    /// what others have set since.
    pub fn clear_all_flags(&self) -> Result<(), Error> {
        self.flag(FlagAction::ClearAll)
    }

    fn flag(&self, action: FlagAction) -> Result<(), Error> {
        read::flag(&self.client().call(Verb::Flag { space: self.target().space(), action })?).map(drop)
    }
}

/// An update flag: set until it is cleared, and again by whatever sets it later. Dropping it forgets it.
///
/// If the connection is lost, nobody knows what was missed: the flag is set then.
#[derive(Debug)]
pub struct UpdateFlag {
    client: Client,
    /// That it was registered with; a forked child has registered none.
    session: Arc<Session>,
    target: Target,
    cleared: Cleared,
}

impl UpdateFlag {
    /// Whether it is set. Where the client may look at the daemon's words itself, nothing is sent.
    ///
    /// # Errors
    /// As for any read.
    pub fn is_set(&self) -> Result<bool, Error> {
        if !self.session.is_own() {
            // It begins anew there: what the parent has registered is the parent's.
            return Err(Error::Forked);
        }
        let near = self.session.near();
        // What this client has sent counts for it, whether or not it is done by now.
        if !near.is_writing()
            && let Some(is_set) = self.cleared.look()
        {
            return Ok(is_set);
        }
        let before = near.epoch();
        let now = At::read(&self.ask(FlagAction::Look)?)?;
        self.cleared.share(now, near.flag_of(&self.target, before));
        Ok(self.cleared.is_set(now))
    }

    /// Clears it, and no other. What was written before is taken for seen: so clear it first, and then read.
    ///
    /// # Errors
    /// As for any read. If the connection was lost meanwhile, it is set again.
    pub fn clear(&self) -> Result<(), Error> {
        match self.ask(FlagAction::Clear) {
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

    fn ask(&self, action: FlagAction) -> Result<Reply, Error> {
        if !self.session.is_own() {
            // It begins anew there: what the parent has registered is the parent's.
            return Err(Error::Forked);
        }
        self.client.call(Verb::Flag { space: self.target.space(), action })
    }
}

impl Drop for UpdateFlag {
    fn drop(&mut self) {
        self.session.drop_flag(&self.target);
    }
}
