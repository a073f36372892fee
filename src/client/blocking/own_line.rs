//! A connection for one answer of many parts, beside the session's.

use crate::client::parts::READ_BUFFER_BYTES;
use crate::ipc::Stream;

/// Ends with what it serves, and with nothing that a forked child does.
#[derive(Debug)]
pub(super) struct OwnLine {
    /// Whose connection it is: a forked child must not take its parent's parts.
    pid: u32,
    pub(super) stream: Stream,
    pub(super) buffer: Box<[u8]>,
}

impl OwnLine {
    pub(super) fn over(stream: Stream) -> Self {
        Self { pid: std::process::id(), stream, buffer: vec![0; READ_BUFFER_BYTES].into() }
    }

    pub(super) fn is_ours(&self) -> bool {
        self.pid == std::process::id()
    }
}

impl Drop for OwnLine {
    fn drop(&mut self) {
        if self.is_ours() {
            // A child that was forked may hold the socket open: closing it would not tell the daemon.
            self.stream.shutdown();
        }
    }
}
