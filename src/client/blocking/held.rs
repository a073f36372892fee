//! What a session holds, for as long as a guard lives.

use std::sync::Arc;

use super::Error;
use super::session::Session;
use crate::client::grants::Grant;
use crate::client::read;

/// A grant that is given back when this is dropped, without waiting and behind whatever was begun before.
#[derive(Debug)]
pub(super) struct Held {
    /// Taken by what ends it otherwise.
    session: Option<Arc<Session>>,
    grant: Grant,
}

impl Held {
    pub(super) fn new(session: &Arc<Session>, grant: Grant) -> Self {
        Self { session: Some(Arc::clone(session)), grant }
    }

    pub(super) fn grant(&self) -> &Grant {
        &self.grant
    }

    /// Gives it back and waits for the daemon's word; `done` is for elections.
    pub(super) fn end(mut self, done: bool) -> Result<(), Error> {
        let session = self.session.take().expect("only what ends it takes it, and takes the whole");
        read::done(&session.call_on(self.grant.connection(), self.grant.ending(done))?)
    }

    /// Leaves it to whatever program this process becomes.
    #[cfg(all(unix, feature = "daemon"))]
    pub(super) fn leave(mut self) -> Result<(), Error> {
        let session = self.session.take().expect("only what ends it takes it, and takes the whole");
        session.leave_holding(self.grant.connection())?;
        // Its socket is closed by the end of the process, whichever program that is by then.
        std::mem::forget(session);
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(session) = &self.session {
            session.tell(self.grant.connection(), self.grant.ending(false));
        }
    }
}
