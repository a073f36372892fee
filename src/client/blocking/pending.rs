//! A request that was sent and whose answer is not there yet: how one thread keeps many requests in flight.

use std::sync::Arc;

use super::Error;
use super::session::Session;
use crate::client::core::Reply;
use crate::client::limits::Limits;

/// The answer to come of a request that was sent.
///
/// Requests of one client take effect in the order in which they were begun, whatever is waited for first. Their time
/// limit runs from then. Dropping a `Pending` drops the answer; what was sent is done all the same. Many short ones are cheapest
/// in a [pipeline](super::Client::pipeline).
///
/// ```no_run
/// use commonhold::blocking::Client;
/// let client = Client::connect("rag_storage")?;
/// let cache = client.namespace("llm_response_cache")?;
/// let pending: Vec<_> = (0..100).map(|n| cache.put_later(&format!("k{n}"), &n)).collect::<Result<_, _>>()?;
/// for write in pending {
///     write.wait()?;
/// }
/// # Ok::<(), commonhold::blocking::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "the outcome of the request is known only after `wait`"]
pub struct Pending<T> {
    /// Taken by `wait`.
    session: Option<Arc<Session>>,
    id: u64,
    limits: Limits,
    read: fn(&Reply) -> Result<T, Error>,
}

impl<T> Pending<T> {
    pub(super) fn new(
        session: &Arc<Session>,
        (id, limits): (u64, Limits),
        read: fn(&Reply) -> Result<T, Error>,
    ) -> Self {
        Self { session: Some(Arc::clone(session)), id, limits, read }
    }

    /// Waits for the answer.
    ///
    /// # Errors
    /// As for the call that does the same without `later`.
    pub fn wait(mut self) -> Result<T, Error> {
        let session = self.session.take().expect("only waiting takes it, and waiting takes the whole");
        (self.read)(&session.wait(self.id, self.limits)?)
    }
}

impl<T> Drop for Pending<T> {
    fn drop(&mut self) {
        if let Some(session) = &self.session {
            session.forget(self.id);
        }
    }
}
