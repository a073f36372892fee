//! The daemon's end of the socket: binding, accepting, being woken, and going away without taking another's socket.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use commonhold_proto::StoreIdentity;
use interprocess::local_socket::traits::Listener as _;
use interprocess::local_socket::{ListenerNonblockingMode, ListenerOptions};
use interprocess::os::unix::local_socket::ListenerOptionsExt;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::unix::{RawListener, SocketName};
use super::{IpcError, Stream};

/// Only the owner may connect; the kernel checks the write bit, the daemon the peer's user besides.
const SOCKET_MODE: u32 = 0o600;

/// Everybody may connect, and the daemon's check of the peer's user decides.
const SHARED_SOCKET_MODE: u32 = 0o666;

/// How long accepting pauses when the process or the system has no descriptor left: the connection stays in the
/// backlog, and those that are open go on.
const PAUSE_WITHOUT_DESCRIPTORS: Duration = Duration::from_millis(20);

/// A bound socket of a store. Share it by reference or [`Arc`](std::sync::Arc): one thread accepts, another wakes it.
#[derive(Debug)]
pub struct Listener {
    raw: RawListener,
    name: SocketName,
    /// The inode that was bound, so that at the end only that is unlinked.
    bound: StoreIdentity,
    /// A byte in here ends every accept, now and later.
    wake_sender: UnixStream,
    wake_receiver: UnixStream,
}

impl Listener {
    /// Binds the socket of the store in `dir`, whose `.commonhold` must exist, with mode 0600.
    ///
    /// The caller holds `owner.lock`: a socket that is already there belongs to a daemon that ended without removing
    /// it, and is unlinked first.
    ///
    /// # Errors
    /// [`IpcError::NotASocket`] if something else lies there; [`IpcError::Directory`], [`IpcError::PathTooLong`] and
    /// [`IpcError::Io`] as they say.
    pub fn bind(dir: &Path) -> Result<Self, IpcError> {
        Self::bind_to(SocketName::for_store(dir)?, SOCKET_MODE)
    }

    /// As [`bind`](Self::bind), at the socket for other users, with mode 0666; its directory must exist. Whoever serves it
    /// must check who comes.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub fn bind_shared(dir: &Path) -> Result<Self, IpcError> {
        Self::bind_to(SocketName::for_others(dir)?, SHARED_SOCKET_MODE)
    }

    fn bind_to(name: SocketName, mode: u32) -> Result<Self, IpcError> {
        if name.socket_inode()?.is_some() {
            name.unlink_socket()?;
        }
        // Reclaiming would unlink whatever lies at the path when the listener is dropped, overwriting whatever lies
        // there now: either may be a live daemon's socket. See `unlink_own`.
        let listener = ListenerOptions::new()
            .name(name.to_name().map_err(|e| name.error("bind", e))?)
            .reclaim_name(false)
            .mode(mode)
            .nonblocking(ListenerNonblockingMode::Accept)
            .create_sync_as::<RawListener>()
            .map_err(|e| name.error("bind", e))?;
        let bound = name.socket_inode()?.ok_or_else(|| name.error("find", io::ErrorKind::NotFound.into()))?;
        // This process's umask may have taken bits away; none that were not asked for were ever there.
        name.set_socket_mode(mode)?;
        let (wake_sender, wake_receiver) = UnixStream::pair().map_err(|e| name.error("make a waker for", e))?;
        Ok(Self { raw: listener, name, bound, wake_sender, wake_receiver })
    }

    /// The name it is bound to.
    pub fn name(&self) -> &SocketName {
        &self.name
    }

    /// Waits for the next connection; `None` when [`wake`](Self::wake) was called, and from then on at once.
    ///
    /// When descriptors are used up it waits until there is one again.
    ///
    /// # Errors
    /// [`IpcError::Io`]: the listener is broken for good.
    pub fn accept(&self) -> Result<Option<Stream>, IpcError> {
        loop {
            if !self.wait(None)? {
                return Ok(None);
            }
            match self.raw.accept() {
                Ok(raw) => return Ok(Some(Stream::from_raw(raw))),
                Err(e) if is_transient(&e) => {}
                Err(e) if is_shortage(&e) => {
                    if !self.pause()? {
                        return Ok(None);
                    }
                }
                Err(e) => return Err(self.name.error("accept a connection on", e)),
            }
        }
    }

    /// Ends the accept that is waiting and every later one. May be called from any thread, any number of times.
    pub fn wake(&self) {
        // It cannot fill up: a socket pair takes far more bytes than there are reasons to wake.
        let _ = (&self.wake_sender).write(&[1]);
    }

    /// Removes the socket if it still is the one that was bound; another daemon's stays.
    ///
    /// # Errors
    /// [`IpcError::Io`] if it is there and cannot be removed.
    pub fn unlink_own(&self) -> Result<(), IpcError> {
        if self.name.socket_inode()? == Some(self.bound) {
            self.name.unlink_socket()?;
        }
        Ok(())
    }

    /// Whether there is something to accept (true) or accepting has ended (false).
    fn wait(&self, timeout: Option<&Timespec>) -> Result<bool, IpcError> {
        let mut ends = [
            PollFd::from_borrowed_fd(self.wake_receiver.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.raw.as_fd(), PollFlags::IN),
        ];
        loop {
            match poll(&mut ends, timeout) {
                Ok(_) => return Ok(ends[0].revents().is_empty()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(self.name.error("wait for connections on", errno.into())),
            }
        }
    }

    /// Lets some time pass unless woken (false).
    fn pause(&self) -> Result<bool, IpcError> {
        let mut waker = [PollFd::from_borrowed_fd(self.wake_receiver.as_fd(), PollFlags::IN)];
        let pause = Timespec::try_from(PAUSE_WITHOUT_DESCRIPTORS).expect("20 ms fit");
        match poll(&mut waker, Some(&pause)) {
            Ok(_) | Err(Errno::INTR) => Ok(waker[0].revents().is_empty()),
            Err(errno) => Err(self.name.error("wait for connections on", errno.into())),
        }
    }
}

/// The connection went away again, or another signal came first: there may be a next one.
fn is_transient(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, Interrupted, WouldBlock};
    matches!(error.kind(), WouldBlock | Interrupted | ConnectionAborted)
}

/// Descriptors or memory are used up.
fn is_shortage(error: &io::Error) -> bool {
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
