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
    pub(super) cache_bytes: usize,
}

/// What a client keeps of what it has read, unless it is told otherwise.
const CACHE_BYTES: usize = 16 << 20;

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            timeout: Some(Duration::from_secs(30)),
            flush_timeout: None,
            reconnect_for: Duration::from_secs(10),
            cache_bytes: CACHE_BYTES,
        }
    }
}

impl ConnectOptions {
    /// 30 s for a request, no limit for flush, commit and stop, 10 s for making a lost connection again, 16 MiB of values kept.
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

    /// The same, if less is not said already.
    #[cfg(all(unix, feature = "daemon"))]
    #[must_use]
    pub(crate) fn timeout_at_most(mut self, timeout: Duration) -> Self {
        self.timeout = Some(self.timeout.map_or(timeout, |known| known.min(timeout)));
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

    /// How many bytes of values that it has read the client keeps, keys and overhead included, to serve them again without
    /// asking for as long as they are current; 16 MiB by default. A value larger than a sixteenth of it is not kept. With 0
    /// it keeps none, and asks for update flags, too.
    #[must_use]
    pub fn cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }
}
