//! One connection: bytes both ways, with time limits, the peer's credentials, and calls that never wait, so that one
//! thread can write while it also reads what would otherwise block the other side.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::Path;
use std::time::{Duration, Instant};

use interprocess::ConnectWaitMode;
use interprocess::local_socket::ConnectOptions;
use interprocess::local_socket::traits::Stream as _;
#[cfg(not(target_os = "linux"))]
use interprocess::local_socket::traits::StreamCommon as _;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown};

use super::unix::{RawStream, SocketName, nobody_listens};
use super::{IpcError, Peer, Readiness, Wanted};

/// First and longest pause between two tries to enter a full backlog.
const BACKLOG_PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));

/// A blocking connection. All calls take `&self`: share it by reference or [`Arc`](std::sync::Arc).
#[derive(Debug)]
pub struct Stream {
    raw: RawStream,
}

impl Stream {
    pub(super) fn from_raw(raw: RawStream) -> Self {
        Self { raw }
    }

    /// Connects to the daemon of the store in `dir`. A full backlog is waited for until `deadline`.
    ///
    /// # Errors
    /// [`IpcError::NoDaemon`] at once if nobody listens; [`IpcError::TimedOut`] if nobody accepts;
    /// [`IpcError::Directory`], [`IpcError::PathTooLong`] and [`IpcError::Io`] as they say.
    pub fn connect(dir: &Path, deadline: Instant) -> Result<Self, IpcError> {
        Self::connect_to(&SocketName::for_store(dir)?, deadline)
    }

    /// As [`connect`](Self::connect), through a name that is already there. Where the socket is another user's and may
    /// not be reached, the one for others beside it is.
    ///
    /// # Errors
    /// As for [`connect`](Self::connect).
    pub fn connect_to(name: &SocketName, deadline: Instant) -> Result<Self, IpcError> {
        let began = Instant::now();
        let mut pause = BACKLOG_PAUSE.0;
        loop {
            match try_connect(name, deadline.saturating_duration_since(Instant::now())) {
                Ok(stream) => return Ok(stream),
                Err(e) if is_full_backlog(&e) => {}
                // Another user's store: its daemon may have a socket for others.
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied && !name.is_for_others() => {
                    let at_others = name.others().and_then(|name| Self::connect_to(&name, deadline));
                    return match at_others {
                        Err(IpcError::NoDaemon { .. }) => Err(name.error("connect to", e)),
                        other => other,
                    };
                }
                Err(e) => {
                    return Err(match nobody_listens(&e) {
                        Some(reason) => IpcError::NoDaemon { dir: name.dir().to_owned(), reason },
                        None => name.error("connect to", e),
                    });
                }
            }
            let now = Instant::now();
            if now >= deadline {
                return Err(IpcError::TimedOut { path: name.path(), waited: now - began });
            }
            std::thread::sleep(pause.min(deadline - now));
            pause = (pause * 2).min(BACKLOG_PAUSE.1);
        }
    }

    /// How long a read may wait before it answers [`io::ErrorKind::WouldBlock`]; none is for ever.
    ///
    /// # Errors
    /// What the operating system answers.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.raw.set_recv_timeout(timeout.map(at_least_a_moment))
    }

    /// How long a write may wait before it answers [`io::ErrorKind::WouldBlock`]; none is for ever.
    ///
    /// # Errors
    /// What the operating system answers.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.raw.set_send_timeout(timeout.map(at_least_a_moment))
    }

    /// Who is at the other end.
    ///
    /// # Errors
    /// What the operating system answers.
    #[cfg(target_os = "linux")]
    pub fn peer(&self) -> io::Result<Peer> {
        super::credentials::of(self.raw.as_fd())
    }

    /// Who is at the other end.
    ///
    /// # Errors
    /// What the operating system answers.
    #[cfg(not(target_os = "linux"))]
    pub fn peer(&self) -> io::Result<Peer> {
        let credentials = self.raw.peer_creds()?;
        Ok(Peer {
            uid: credentials.euid(),
            pid: credentials.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|&pid| pid != 0),
        })
    }

    /// Ends the connection both ways: whoever waits in a read or write on it returns, the peer sees the end.
    pub fn shutdown(&self) {
        // The only failure is that the peer was quicker.
        let _ = rustix::net::shutdown(self.raw.as_fd(), Shutdown::Both);
    }

    /// Ends only what this side sends: the peer sees the end, and what it sent can still be read.
    pub fn end_writing(&self) {
        // As above.
        let _ = rustix::net::shutdown(self.raw.as_fd(), Shutdown::Write);
    }

    /// Lets whatever program this process becomes have the connection, under the descriptor's number.
    ///
    /// # Errors
    /// What the operating system answers.
    pub fn outlive_exec(&self) -> io::Result<()> {
        let flags = rustix::io::fcntl_getfd(self.raw.as_fd())?;
        Ok(rustix::io::fcntl_setfd(self.raw.as_fd(), flags - rustix::io::FdFlags::CLOEXEC)?)
    }

    /// Reads what is there without waiting; [`io::ErrorKind::WouldBlock`] if nothing is, 0 at the end.
    ///
    /// # Errors
    /// What the operating system answers.
    pub fn read_now(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let (bytes, _) = rustix::net::recv(self.raw.as_fd(), buffer, RecvFlags::DONTWAIT)?;
        Ok(bytes)
    }

    /// Writes as much as there is room for without waiting; [`io::ErrorKind::WouldBlock`] if there is none.
    ///
    /// # Errors
    /// What the operating system answers.
    pub fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(self.raw.as_fd(), bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
    }

    /// Waits until reading or writing would not wait, or the time is up; no timeout is for ever.
    ///
    /// # Errors
    /// What the operating system answers; [`io::ErrorKind::Interrupted`] never.
    pub fn wait(&self, wanted: Wanted, timeout: Option<Duration>) -> io::Result<Readiness> {
        let flags = match wanted {
            Wanted::Read => PollFlags::IN,
            Wanted::Write => PollFlags::OUT,
            Wanted::Both => PollFlags::IN | PollFlags::OUT,
        };
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut ends = [PollFd::from_borrowed_fd(self.raw.as_fd(), flags)];
        match poll(&mut ends, timeout.as_ref()) {
            Ok(_) => {
                let found = ends[0].revents();
                let broken = found.intersects(PollFlags::HUP | PollFlags::ERR);
                Ok(Readiness { read: broken || found.contains(PollFlags::IN), write: found.contains(PollFlags::OUT) })
            }
            // As if the time was up: the caller looks at its own clock anyway.
            Err(Errno::INTR) => Ok(Readiness::default()),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.raw.as_fd()
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        self.raw.as_fd().as_raw_fd()
    }
}

impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.raw).read(buffer)
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // `send` and not `write`: a peer that is gone is an error here and must not be a signal for the whole process,
        // whatever the program around this library has made of SIGPIPE.
        Ok(rustix::net::send(self.raw.as_fd(), bytes, SendFlags::NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn try_connect(name: &SocketName, timeout: Duration) -> io::Result<Stream> {
    let raw = ConnectOptions::new()
        .name(name.to_name()?)
        .wait_mode(ConnectWaitMode::Timeout(at_least_a_moment(timeout)))
        .connect_sync_as::<RawStream>()?;
    // interprocess takes EAGAIN for "under way", but a Unix socket's full backlog leaves nothing under way: the stream
    // would answer ENOTCONN at its first use. Asking for the peer's name finds that out here.
    rustix::net::getpeername(raw.as_fd())?;
    Ok(Stream { raw })
}

fn is_full_backlog(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, NotConnected, TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | NotConnected | TimedOut | Interrupted)
}

/// The operating system takes a time limit of zero for none at all.
fn at_least_a_moment(timeout: Duration) -> Duration {
    timeout.max(Duration::from_millis(1))
}
