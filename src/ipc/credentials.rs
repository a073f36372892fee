//! Who is at the other end of a connection, on Linux: asked of the kernel itself, for a process in another pid namespace has a
//! user and no pid here, and the crates at hand take that for an error.
//!
//! There is one unsafe call here, to `getsockopt`.
#![expect(unsafe_code, reason = "no safe crate answers for a peer whose pid is not seen here")]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::Peer;

/// The credentials that the peer had when it connected or began to listen.
pub(super) fn of(socket: BorrowedFd<'_>) -> io::Result<Peer> {
    let mut found = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let whole = size_of::<libc::ucred>();
    let mut bytes = libc::socklen_t::try_from(whole).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open while it is borrowed; `found` and `bytes` live through the call, `bytes` says how many bytes
    // may be written to `found`, and any bytes are a good `ucred`, which is three integers.
    let failed = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut found).cast::<libc::c_void>(),
            &raw mut bytes,
        ) != 0
    };
    if failed {
        return Err(io::Error::last_os_error());
    }
    // A peer that is not there any more has no user.
    if bytes as usize != whole || found.uid == u32::MAX {
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    Ok(Peer { uid: Some(found.uid), pid: u32::try_from(found.pid).ok().filter(|&pid| pid != 0) })
}
