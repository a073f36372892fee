//! How client and daemon find and reach each other: the socket of a store, listening on it, connecting to it, and the
//! stream of bytes between them. Frames are not known here; `commonhold-proto` splits and fills them.
//!
//! This is the only folder that names the crate `interprocess`, and `unix` the only file that knows what a path to a
//! socket may look like. On Windows, `windows` has a named pipe in the socket's place, and says at its head what that
//! cannot do. What it promises:
//!
//! - A socket is reached through the store's directory itself (on Linux by its descriptor, so that long paths work and
//!   a directory renamed in the meantime is still the one that was opened).
//! - A socket that may be a live daemon's is never unlinked: [`Listener::bind`] removes a dead one only because its
//!   caller holds the owner lock, and [`Listener::unlink_own`] removes only the inode that was bound.
//! - The socket has mode 0600 from the moment it exists.
//! - Whoever waits can be woken: [`Listener::wake`] ends an accept, [`Stream::shutdown`] a read or write.

mod connection;
#[cfg(target_os = "linux")]
mod credentials;
#[cfg(unix)]
mod listener;
#[cfg(any(windows, test))]
mod pipe;
#[cfg(unix)]
mod stream;
#[cfg(all(unix, any(feature = "daemon", feature = "async")))]
mod task;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use connection::{Peer, Readiness, Wanted};
#[cfg(unix)]
pub use listener::Listener;
#[cfg(unix)]
pub use stream::Stream;
#[cfg(all(unix, any(feature = "daemon", feature = "async")))]
pub use task::AsyncStream;
#[cfg(unix)]
pub use unix::{SocketName, own_uid, store_identity};
#[cfg(windows)]
pub use windows::{Listener, SocketName, Stream, own_uid, store_identity};

/// The directory inside a store that holds everything of Commonhold's own.
pub const OWN_DIRECTORY: &str = ".commonhold";

/// The socket, seen from the store's directory.
pub const SOCKET: &str = ".commonhold/socket";

/// The directory inside a store in which other users find its daemon, where they may.
pub const SHARED_DIRECTORY: &str = ".commonhold-shared";

/// The socket for other users, seen from the store's directory.
pub const SHARED_SOCKET: &str = ".commonhold-shared/socket";

/// Where the socket of the store in `dir` is, for people to read; [`SocketName`] is what one connects through.
pub fn socket_path(dir: &Path) -> PathBuf {
    dir.join(SOCKET)
}

/// Why a socket could not be bound or reached.
#[derive(Debug, thiserror::Error)]
pub enum IpcError {
    /// There is no such directory, or it cannot be opened.
    #[error("cannot open the store's directory {dir}: {source}", dir = dir.display())]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// The operating system's words.
        source: io::Error,
    },
    /// Nobody listens: there is no socket, or it was left behind by a daemon that was killed.
    #[error("no daemon serves {dir}: {reason}", dir = dir.display())]
    NoDaemon {
        /// The store's directory.
        dir: PathBuf,
        /// "there is no socket" or "nobody listens on the socket".
        reason: &'static str,
    },
    /// The path does not fit into a socket address.
    #[error(
        "the path {path} has {bytes} bytes, a socket's may have {limit} on this platform: use a shorter path to the store, or a symbolic link to it",
        path = path.display()
    )]
    PathTooLong {
        /// The socket's path.
        path: PathBuf,
        /// Its length.
        bytes: usize,
        /// The longest there may be.
        limit: usize,
    },
    /// Something that is no socket lies where the socket belongs. It was not touched.
    #[error("{path} is not a socket and was left as it is: move it away and start again", path = path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// Nobody accepted the connection in time: the daemon is there, and busy or stopped.
    #[error("the daemon at {path} did not accept the connection within {} ms", .waited.as_millis(), path = path.display())]
    TimedOut {
        /// The socket's path.
        path: PathBuf,
        /// How long it was tried.
        waited: Duration,
    },
    /// The operating system refused something else.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        /// What was being done, as "bind".
        action: &'static str,
        /// The socket's path.
        path: PathBuf,
        /// The operating system's words.
        source: io::Error,
    },
}

#[cfg(all(test, unix))]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::sync::Arc;
    use std::time::Instant;

    use super::*;

    fn store() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(OWN_DIRECTORY)).unwrap();
        dir
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    #[test]
    fn bytes_go_both_ways_and_each_side_knows_the_other() {
        let dir = store();
        let listener = Listener::bind(dir.path()).unwrap();
        let client = Stream::connect(dir.path(), soon()).unwrap();
        let daemon = listener.accept().unwrap().unwrap();
        (&client).write_all(b"ping").unwrap();
        let mut four = [0; 4];
        (&daemon).read_exact(&mut four).unwrap();
        assert_eq!(&four, b"ping");
        let own = Peer { uid: Some(own_uid()), pid: Some(std::process::id()) };
        assert_eq!(client.peer().unwrap(), own);
        assert_eq!(daemon.peer().unwrap(), own);
        assert_eq!(SocketName::for_store(dir.path()).unwrap().identity().unwrap(), store_identity(dir.path()).unwrap());
    }

    #[test]
    fn the_socket_is_for_its_owner_alone() {
        let dir = store();
        let _listener = Listener::bind(dir.path()).unwrap();
        let mode = std::fs::metadata(socket_path(dir.path())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn long_paths_work_for_binding_and_connecting() {
        let dir = tempfile::tempdir().unwrap();
        let mut long = dir.path().to_owned();
        for _ in 0..5 {
            long.push("x".repeat(200));
        }
        std::fs::create_dir_all(long.join(OWN_DIRECTORY)).unwrap();
        let listener = Listener::bind(&long).unwrap();
        Stream::connect(&long, soon()).unwrap();
        assert!(listener.accept().unwrap().is_some());
        listener.unlink_own().unwrap();
        assert!(!socket_path(&long).exists());
    }

    #[test]
    fn without_a_daemon_connecting_says_so_at_once() {
        let dir = store();
        let began = Instant::now();
        let error = Stream::connect(dir.path(), soon()).unwrap_err();
        assert!(matches!(error, IpcError::NoDaemon { reason: "there is no socket", .. }), "{error}");
        drop(Listener::bind(dir.path()).unwrap());
        let error = Stream::connect(dir.path(), soon()).unwrap_err();
        assert!(matches!(error, IpcError::NoDaemon { reason: "nobody listens on the socket", .. }), "{error}");
        assert!(began.elapsed() < Duration::from_secs(4));
        let error = Stream::connect(&dir.path().join("missing"), soon()).unwrap_err();
        assert!(matches!(error, IpcError::Directory { .. }), "{error}");
    }

    #[test]
    fn binding_replaces_a_dead_socket_and_nothing_else() {
        let dir = store();
        drop(Listener::bind(dir.path()).unwrap());
        assert!(socket_path(dir.path()).exists(), "dropping a listener removes nothing");
        let listener = Listener::bind(dir.path()).unwrap();
        Stream::connect(dir.path(), soon()).unwrap();
        listener.unlink_own().unwrap();

        std::fs::write(socket_path(dir.path()), "precious").unwrap();
        let error = Listener::bind(dir.path()).unwrap_err();
        assert!(matches!(error, IpcError::NotASocket { .. }), "{error}");
        assert_eq!(std::fs::read(socket_path(dir.path())).unwrap(), b"precious");
    }

    #[test]
    fn only_the_own_socket_is_unlinked() {
        let dir = store();
        let first = Listener::bind(dir.path()).unwrap();
        // The first inode is kept alive by its listener, so that the second cannot be given the same number.
        std::fs::rename(socket_path(dir.path()), dir.path().join("kept")).unwrap();
        let _second = Listener::bind(dir.path()).unwrap();
        let inode = std::fs::symlink_metadata(socket_path(dir.path())).unwrap().ino();
        first.unlink_own().unwrap();
        assert_eq!(std::fs::symlink_metadata(socket_path(dir.path())).unwrap().ino(), inode);
    }

    #[test]
    fn a_waiting_accept_can_be_woken_and_stays_so() {
        let dir = store();
        let listener = Arc::new(Listener::bind(dir.path()).unwrap());
        let waiting = std::thread::spawn({
            let listener = Arc::clone(&listener);
            move || listener.accept().unwrap().is_none()
        });
        listener.wake();
        assert!(waiting.join().unwrap());
        assert!(listener.accept().unwrap().is_none());
    }

    #[test]
    fn a_waiting_read_ends_when_the_stream_is_shut_down_or_its_time_is_up() {
        let dir = store();
        let listener = Listener::bind(dir.path()).unwrap();
        let client = Arc::new(Stream::connect(dir.path(), soon()).unwrap());
        let _daemon = listener.accept().unwrap().unwrap();
        client.set_read_timeout(Some(Duration::ZERO)).unwrap();
        assert_eq!((&*client).read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        client.set_read_timeout(None).unwrap();
        let waiting = std::thread::spawn({
            let client = Arc::clone(&client);
            move || (&*client).read(&mut [0]).unwrap()
        });
        client.shutdown();
        assert_eq!(waiting.join().unwrap(), 0);
    }

    #[test]
    fn what_would_wait_says_so_and_can_be_waited_for() {
        let dir = store();
        let listener = Listener::bind(dir.path()).unwrap();
        let client = Stream::connect(dir.path(), soon()).unwrap();
        let daemon = listener.accept().unwrap().unwrap();
        assert_eq!(client.read_now(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(client.wait(Wanted::Read, Some(Duration::ZERO)).unwrap(), Readiness::default());
        let full = loop {
            if let Err(error) = client.write_now(&[7; 4096]) {
                break error;
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        (&daemon).write_all(b"x").unwrap();
        let ready = client.wait(Wanted::Both, Some(Duration::from_secs(5))).unwrap();
        assert_eq!(ready, Readiness { read: true, write: false });
        drop(daemon);
        assert!(client.wait(Wanted::Read, None).unwrap().read);
    }

    #[test]
    fn a_full_backlog_is_waited_for_until_the_deadline() {
        use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, accept, bind, listen, socket};
        let dir = store();
        // Not through `Listener`, whose backlog is as long as the system allows.
        let listener = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        bind(&listener, &SocketAddrUnix::new(socket_path(dir.path())).unwrap()).unwrap();
        listen(&listener, 1).unwrap();
        let name = SocketName::for_store(dir.path()).unwrap();
        let mut waiting = Vec::new();
        let error = loop {
            match Stream::connect_to(&name, Instant::now()) {
                Ok(stream) => waiting.push(stream),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, IpcError::TimedOut { .. }), "{error}");
        let late = std::thread::spawn(move || Stream::connect_to(&name, soon()));
        accept(&listener).unwrap();
        (&late.join().unwrap().unwrap()).write_all(b"in").unwrap();
    }
}
