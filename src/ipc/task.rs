//! A connection on a tokio runtime: the same stream, whose calls that never wait are made when they have something to do.
//!
//! There are two lines of unsafe code here: the promise that a registered descriptor stays open, and the end of a
//! registration, which a forked child must not bring about.
#![expect(unsafe_code, reason = "tokio asks for the promise that a registered descriptor stays open")]

use std::io;
use std::mem::ManuallyDrop;
use std::sync::Arc;

use tokio::io::unix::AsyncFd;

use super::Stream;

/// A connection that is waited for by a task.
///
/// The stream itself stays usable by others: nothing about it is changed, in particular not whether its calls block.
#[derive(Debug)]
pub struct AsyncStream {
    registered: ManuallyDrop<AsyncFd<Arc<Stream>>>,
    /// The process that registered it.
    pid: u32,
}

impl Drop for AsyncStream {
    fn drop(&mut self) {
        // A forked child shares its parent's registrations (on Linux, one epoll instance): to end this one would make the
        // parent deaf. What the child leaves behind here, it ends with.
        if self.pid == std::process::id() {
            // SAFETY: this is the only place that drops it, and nothing uses it afterwards.
            unsafe { ManuallyDrop::drop(&mut self.registered) };
        }
    }
}

impl AsyncStream {
    /// Registers the connection with the runtime that this is called on.
    ///
    /// # Errors
    /// What the operating system answers.
    ///
    /// # Panics
    /// When called outside of a runtime.
    pub fn new(stream: Arc<Stream>) -> io::Result<Self> {
        // SAFETY: a stream keeps its one descriptor for as long as it exists, always answers that one, and closes it only
        // when it is dropped; the reference held in the registration keeps it from that.
        let registered = unsafe { AsyncFd::register(stream) }?;
        Ok(Self { registered: ManuallyDrop::new(registered), pid: std::process::id() })
    }

    /// The connection.
    pub fn get(&self) -> &Stream {
        self.registered.get_ref()
    }

    /// Calls `read` when there is something to read, or the end, until it does not answer
    /// [`io::ErrorKind::WouldBlock`]. `read` answers how many bytes it has read, and whether there may be more right now.
    /// Nothing is lost when this is dropped before it completes.
    ///
    /// # Errors
    /// What `read` answers, and what the operating system does.
    pub async fn read_with(&self, mut read: impl FnMut(&Stream) -> io::Result<(usize, bool)>) -> io::Result<usize> {
        loop {
            let mut ready = self.registered.readable().await?;
            match read(self.get()) {
                Ok((bytes, more)) => {
                    if !more && bytes > 0 {
                        ready.clear_ready();
                    }
                    return Ok(bytes);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Calls `write` when there may be room to write, until it answers that it is done.
    ///
    /// # Errors
    /// What `write` answers, and what the operating system does.
    pub async fn write_with(&self, mut write: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
        loop {
            let mut ready = self.registered.writable().await?;
            if write()? {
                return Ok(());
            }
            ready.clear_ready();
        }
    }
}
