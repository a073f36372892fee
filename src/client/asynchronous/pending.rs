//! A request that was sent and whose answer is not there yet: how one task keeps many requests in flight.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::Error;
use super::session::Answering;
use crate::client::core::Reply;

/// The answer to come of a request that was sent: a future.
///
/// Requests of one client take effect in the order in which they were begun, whatever is awaited first. Their time limit
/// runs from then. Dropping a `Pending` drops the answer; what was sent is done all the same.
///
/// ```no_run
/// # async fn example() -> Result<(), commonhold::Error> {
/// use commonhold::Client;
/// let client = Client::connect("rag_storage").await?;
/// let cache = client.namespace("llm_response_cache")?;
/// let mut pending = Vec::new();
/// for n in 0..100 {
///     pending.push(cache.put_later(&format!("k{n}"), &n).await?);
/// }
/// for write in pending {
///     write.await?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "the outcome of the request is known only after awaiting it"]
pub struct Pending<T> {
    answering: Answering,
    read: fn(&Reply) -> Result<T, Error>,
}

impl<T> Pending<T> {
    pub(super) fn new(answering: Answering, read: fn(&Reply) -> Result<T, Error>) -> Self {
        Self { answering: answering.without_cancel(), read }
    }

    /// Waits until all bytes of the request were sent.
    pub(super) async fn sent(&mut self) -> Result<(), Error> {
        self.answering.sent().await
    }
}

impl<T> Future for Pending<T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let reply = std::task::ready!(Pin::new(&mut self.answering).poll(context));
        Poll::Ready(reply.and_then(|reply| (self.read)(&reply)))
    }
}
