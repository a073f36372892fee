//! What a store's socket is called on Unix, and what else differs there from Windows: users, identities of directories,
//! and which error means what. `windows.rs` offers the same items for named pipes.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use commonhold_proto::StoreIdentity;
use interprocess::local_socket::{GenericFilePath, Name, ToFsName};
// The concrete types and not the enums around them: those do not tell their descriptor.
pub(super) use interprocess::os::unix::uds_local_socket::{Listener as RawListener, Stream as RawStream};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{IpcError, SHARED_SOCKET, SOCKET};

/// Longest path that fits into a `sockaddr_un` on every Unix with its terminating NUL.
const MAX_SOCKET_PATH_BYTES: usize = if cfg!(target_os = "macos") { 103 } else { 107 };

/// The name under which a store's socket is bound and reached.
///
/// It keeps the directory open: what is bound, reached and unlinked through one value is in one directory, whatever
/// happens to the path in the meantime.
#[derive(Debug)]
pub struct SocketName {
    dir: PathBuf,
    directory: OwnedFd,
    /// The socket, seen from the directory.
    socket: &'static str,
    /// What goes into the socket address.
    address: PathBuf,
}

impl SocketName {
    /// Opens the store's directory and names the socket in it; there need not be one yet.
    ///
    /// # Errors
    /// [`IpcError::Directory`] if `dir` cannot be opened, [`IpcError::PathTooLong`] where the socket can only be named
    /// by its path and that has too many bytes (never on Linux with `/proc`).
    pub fn for_store(dir: &Path) -> Result<Self, IpcError> {
        Self::of(dir, SOCKET)
    }

    /// As [`for_store`](Self::for_store), for the socket at which other users may connect.
    ///
    /// # Errors
    /// As [`for_store`](Self::for_store).
    pub fn for_others(dir: &Path) -> Result<Self, IpcError> {
        Self::of(dir, SHARED_SOCKET)
    }

    pub(super) fn is_for_others(&self) -> bool {
        self.socket == SHARED_SOCKET
    }

    /// The socket for other users in the very directory that this one names.
    pub(super) fn others(&self) -> Result<Self, IpcError> {
        let directory = self.directory.try_clone().map_err(|e| self.error("open the directory of", e))?;
        let address = address(&self.dir, &directory, SHARED_SOCKET)?;
        Ok(Self { dir: self.dir.clone(), directory, socket: SHARED_SOCKET, address })
    }

    fn of(dir: &Path, socket: &'static str) -> Result<Self, IpcError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(dir, flags, Mode::empty())
            .map_err(|errno| IpcError::Directory { dir: dir.to_owned(), source: errno.into() })?;
        let address = address(dir, &directory, socket)?;
        Ok(Self { dir: dir.to_owned(), directory, socket, address })
    }

    /// The store's directory, as it was given.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the socket is, for people to read.
    pub fn path(&self) -> PathBuf {
        self.dir.join(self.socket)
    }

    /// The user to whom the store's directory belongs.
    ///
    /// # Errors
    /// What `fstat` answers.
    pub fn owner(&self) -> io::Result<u32> {
        Ok(rustix::fs::fstat(&self.directory)?.st_uid)
    }

    /// Which directory this is.
    ///
    /// # Errors
    /// What `fstat` answers.
    pub fn identity(&self) -> io::Result<StoreIdentity> {
        Ok(identity_of(&rustix::fs::fstat(&self.directory)?))
    }

    pub(super) fn to_name(&self) -> io::Result<Name<'_>> {
        self.address.as_path().to_fs_name::<GenericFilePath>()
    }

    pub(super) fn error(&self, action: &'static str, source: io::Error) -> IpcError {
        IpcError::Io { action, path: self.path(), source }
    }

    /// The identity of the socket's inode, if there is a socket.
    ///
    /// # Errors
    /// [`IpcError::NotASocket`] for anything else of that name, a symbolic link included.
    pub(super) fn socket_inode(&self) -> Result<Option<StoreIdentity>, IpcError> {
        match rustix::fs::statat(&self.directory, self.socket, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Socket => Ok(Some(identity_of(&stat))),
            Ok(_) => Err(IpcError::NotASocket { path: self.path() }),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.error("look at", errno.into())),
        }
    }

    /// Gives the socket exactly these permission bits.
    pub(super) fn set_socket_mode(&self, mode: u32) -> Result<(), IpcError> {
        let mode = Mode::from_bits_truncate(mode);
        rustix::fs::chmodat(&self.directory, self.socket, mode, AtFlags::empty())
            .map_err(|errno| self.error("set the mode of", errno.into()))
    }

    pub(super) fn unlink_socket(&self) -> Result<(), IpcError> {
        match rustix::fs::unlinkat(&self.directory, self.socket, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(self.error("remove", errno.into())),
        }
    }
}

/// On Linux the socket is named through the open directory, which has a short name whatever the path is. Where `/proc`
/// is not mounted, and elsewhere, the path itself must fit.
fn address(dir: &Path, directory: &OwnedFd, socket: &str) -> Result<PathBuf, IpcError> {
    if cfg!(target_os = "linux") {
        let through = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
        if through.exists() {
            return Ok(through.join(socket));
        }
    }
    let path = dir.join(socket);
    let bytes = path.as_os_str().as_bytes().len();
    if bytes > MAX_SOCKET_PATH_BYTES {
        return Err(IpcError::PathTooLong { path, bytes, limit: MAX_SOCKET_PATH_BYTES });
    }
    Ok(path)
}

#[allow(clippy::unnecessary_cast, reason = "the types of st_dev and st_ino differ between platforms")]
fn identity_of(stat: &rustix::fs::Stat) -> StoreIdentity {
    StoreIdentity { device: stat.st_dev as u64, inode: stat.st_ino as u64 }
}

/// Which directory `dir` is: its device and inode, which a copy of it does not share.
///
/// # Errors
/// What opening the directory answers.
pub fn store_identity(dir: &Path) -> io::Result<StoreIdentity> {
    let stat = rustix::fs::fstat(File::open(dir)?)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    Ok(identity_of(&stat))
}

/// The user as whom this process acts: its effective user id, which a peer sees.
pub fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Whether a failed connect means that nobody listens, and in which words.
///
/// Elsewhere than on Linux a full backlog, too, is answered `ECONNREFUSED`; the two cannot be told apart there.
pub(super) fn nobody_listens(error: &io::Error) -> Option<&'static str> {
    match error.kind() {
        io::ErrorKind::NotFound => Some("there is no socket"),
        io::ErrorKind::ConnectionRefused => Some("nobody listens on the socket"),
        _ => None,
    }
}
