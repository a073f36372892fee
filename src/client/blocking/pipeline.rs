//! Requests that leave together: a call into the system for many of them instead of one for each.

use std::sync::Arc;

use super::session::Session;
use super::{Client, Error};

/// While one exists, requests of its client that are begun without waiting for their answers ([`Namespace::get_raw_later`],
/// [`Namespace::put_later`], [`Client::begin`]) are gathered, and leave together: when they are 64 KiB, when any thread
/// waits for an answer of this client, or when this is told to [`send`](Self::send) or dropped. So a client that many threads
/// share at once gathers little; and what goes over connections of its own (`get_all`, a watch, a mirror) does not wait for what
/// is gathered.
///
/// What many short requests cost is mostly the calls that send them one by one. They take effect in the order in which they were
/// begun, each has its own answer, and its own time limit, which runs from its beginning. One whose [`Pending`](super::Pending) is
/// dropped is sent with the others.
///
/// To drop it sends what is gathered, which takes as long as the daemon is behind, and at most
/// [`ConnectOptions::timeout`](super::ConnectOptions::timeout).
///
/// ```no_run
/// use commonhold::blocking::Client;
/// let client = Client::connect("rag_storage")?;
/// let chunks = client.namespace("text_chunks")?;
/// let pipeline = client.pipeline();
/// let pending: Vec<_> = (0..64).map(|n| chunks.get_raw_later(&format!("chunk-{n}"))).collect::<Result<_, _>>()?;
/// pipeline.send()?;
/// for get in pending {
///     println!("{:?}", get.wait()?);
/// }
/// # Ok::<(), commonhold::blocking::Error>(())
/// ```
///
/// [`Namespace::get_raw_later`]: super::Namespace::get_raw_later
/// [`Namespace::put_later`]: super::Namespace::put_later
#[derive(Debug)]
#[must_use = "requests are gathered for as long as it exists"]
pub struct Pipeline {
    session: Arc<Session>,
}

impl Client {
    /// Gathers what is begun from here on, until the pipeline is dropped.
    pub fn pipeline(&self) -> Pipeline {
        let session = Arc::clone(self.session());
        session.gather();
        Pipeline { session }
    }
}

impl Pipeline {
    /// Sends what was gathered. It returns when all is sent, or has failed without, which takes as long as the daemon is behind.
    ///
    /// # Errors
    /// [`Error::Forked`] in a forked child of the process that made it. [`Error::TimedOut`] if some are not sent within
    /// [`ConnectOptions::timeout`](super::ConnectOptions::timeout): they are when they can be. What becomes of each is told where
    /// its answer is waited for.
    pub fn send(&self) -> Result<(), Error> {
        self.session.send_gathered()
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.session.end_gathering();
        // Each request tells what became of it.
        let _ = self.send();
    }
}
