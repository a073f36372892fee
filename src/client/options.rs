//! How long a client waits, and for what.

use std::time::Duration;

/// How to connect, with either client. The defaults are those of [`Client::connect`](super::blocking::Client::connect).
///
/// ```no_run
/// use commonhold::blocking::{Client, ConnectOptions};
/// use std::time::Duration;
/// let options = ConnectOptions::new().timeout(Some(Duration::from_secs(2))).reconnect_for(Duration::from_secs(60));
/// let client = Client::connect_with("rag_storage", options)?;
/// # Ok::<(), commonhold::blocking::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    pub(super) timeout: Option<Duration>,
    pub(super) flush_timeout: Option<Duration>,
    pub(super) reconnect_for: Duration,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self { timeout: Some(Duration::from_secs(30)), flush_timeout: None, reconnect_for: Duration::from_secs(10) }
    }
}

impl ConnectOptions {
    /// 30 s for a request, no limit for flush, commit and stop, 10 s for making a lost connection again.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long a request may take, waiting for a lost connection included; none is for ever. The daemon is told, so
    /// that it does not begin what nobody waits for any more. It bounds connecting, too.
    #[must_use]
    pub fn timeout(mut self, timeout: Option<Duration>) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long a flush, a commit or a stop may take; none, the default, is for ever. Their time is that of the disk
    /// and of the amount of data.
    #[must_use]
    pub fn flush_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.flush_timeout = timeout;
        self
    }

    /// How long a lost connection is tried to be made again before the requests that need it fail with
    /// [`Error::NoDaemon`](super::Error::NoDaemon) or [`Error::Lost`](super::Error::Lost). The next request then tries anew. Zero tries once.
    #[must_use]
    pub fn reconnect_for(mut self, time: Duration) -> Self {
        self.reconnect_for = time;
        self
    }
}
