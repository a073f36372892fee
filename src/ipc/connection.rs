//! What the streams of all platforms have in common: who is at the other end, and what is waited for.

/// Who is at the other end, as the operating system says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The effective user id it had when it connected or began to listen; none where users have no numbers.
    pub uid: Option<u32>,
    /// Its process id then, where the platform tells it.
    pub pid: Option<u32>,
}

/// What [`Stream::wait`](super::Stream::wait) waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Bytes to read, or the end.
    Read,
    /// Room to write.
    Write,
    /// Either.
    Both,
}

/// What [`Stream::wait`](super::Stream::wait) found; neither means that the time was up. A broken connection shows as
/// readable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// A read would not wait.
    pub read: bool,
    /// A write would not wait.
    pub write: bool,
}
