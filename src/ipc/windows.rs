//! Named pipes in the place of sockets: the same items as `unix.rs`, `listener.rs` and `stream.rs` offer, with the same
//! promises where a pipe can keep them. It is type-checked, and has never been run.
//!
//! What differs. A pipe has no half that can be closed alone: after [`Stream::end_writing`] the peer sees nothing until
//! the whole stream is dropped, and after [`Stream::shutdown`], too. Nothing waits for a pipe with a time limit, so
//! waiting is asking again, at most every [`PAUSE`]. A pipe leaves nothing behind when its daemon is killed, so there is
//! nothing to unlink. Users have no numbers: that a peer is the owner is what the pipe's security descriptor sees to.
//! What it cannot see to is a stranger who makes a pipe of this name first: then the daemon does not start, and a client
//! that comes before it speaks to the stranger.
//!
//! There is unsafe code here: two calls of Windows that no safe interface offers, with their reasons beside them.
#![expect(unsafe_code, reason = "how many bytes wait in a pipe, and which directory a handle is, no safe call tells")]

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::windows::fs::OpenOptionsExt as _;
use std::os::windows::io::{AsHandle as _, AsRawHandle as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use commonhold_proto::StoreIdentity;
use interprocess::ConnectWaitMode;
use interprocess::os::windows::named_pipe::{DuplexPipeStream, PipeListener, PipeListenerOptions, pipe_mode::Bytes};
use interprocess::os::windows::security_descriptor::SecurityDescriptor;
use parking_lot::{Condvar, Mutex};
use widestring::U16CString;
use windows_sys::Win32::Storage::FileSystem::{
    BY_HANDLE_FILE_INFORMATION, FILE_FLAG_BACKUP_SEMANTICS, GetFileInformationByHandle,
};
use windows_sys::Win32::System::Pipes::PeekNamedPipe;

use super::pipe::{owner_only, pipe_name};
use super::{IpcError, Peer, Readiness, Wanted};

/// How long passes between two questions whether a pipe has something, or room, or a client.
const PAUSE: Duration = Duration::from_millis(1);

/// Bytes that a pipe holds each way before its writer has to wait.
const BUFFER_BYTES: u32 = 64 * 1024;

/// The name under which a store's pipe is made and reached. It keeps the directory open, so that nobody renames it.
#[derive(Debug)]
pub struct SocketName {
    dir: PathBuf,
    directory: File,
    pipe: String,
}

impl SocketName {
    /// Opens the store's directory and names its pipe; there need not be one yet.
    ///
    /// # Errors
    /// [`IpcError::Directory`] if `dir` cannot be opened.
    pub fn for_store(dir: &Path) -> Result<Self, IpcError> {
        let refused = |source| IpcError::Directory { dir: dir.to_owned(), source };
        let directory = open_directory(dir).map_err(refused)?;
        // All names of one directory lead to one pipe: links are followed, and each part is spelt as it is on the disk.
        let canonical = std::fs::canonicalize(dir).map_err(refused)?;
        Ok(Self { dir: dir.to_owned(), directory, pipe: pipe_name(canonical.as_os_str().as_encoded_bytes()) })
    }

    /// The store's directory, as it was given.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The pipe, for people to read.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(&self.pipe)
    }

    /// The user to whom the store's directory belongs.
    ///
    /// # Errors
    /// Always [`io::ErrorKind::Unsupported`]: users have no numbers here, and no pipe tells one.
    pub fn owner(&self) -> io::Result<u32> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Which directory this is.
    ///
    /// # Errors
    /// What the operating system answers.
    pub fn identity(&self) -> io::Result<StoreIdentity> {
        identity_of(&self.directory)
    }

    fn error(&self, action: &'static str, source: io::Error) -> IpcError {
        IpcError::Io { action, path: self.path(), source }
    }
}

fn open_directory(dir: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(FILE_FLAG_BACKUP_SEMANTICS).open(dir)
}

/// Which directory `dir` is: its volume and its index there, which a copy of it does not share.
///
/// # Errors
/// What opening the directory answers.
pub fn store_identity(dir: &Path) -> io::Result<StoreIdentity> {
    let directory = open_directory(dir)?;
    if !directory.metadata()?.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    identity_of(&directory)
}

fn identity_of(directory: &File) -> io::Result<StoreIdentity> {
    let mut found = BY_HANDLE_FILE_INFORMATION::default();
    // SAFETY: the handle is open for as long as `directory` is borrowed, and the structure is ours and of the size that
    // the call fills.
    let done = unsafe { GetFileInformationByHandle(directory.as_raw_handle(), &raw mut found) };
    if done == 0 {
        return Err(io::Error::last_os_error());
    }
    let inode = u64::from(found.nFileIndexHigh) << 32 | u64::from(found.nFileIndexLow);
    Ok(StoreIdentity { device: u64::from(found.dwVolumeSerialNumber), inode })
}

/// Users have no numbers here; a peer's is none, too, and so is never another one.
pub fn own_uid() -> u32 {
    0
}

/// The pipe of a store. Share it by reference or [`Arc`](std::sync::Arc): one thread accepts, another wakes it.
#[derive(Debug)]
pub struct Listener {
    raw: PipeListener<Bytes, Bytes>,
    name: SocketName,
    woken: Flag,
}

impl Listener {
    /// Makes the pipe of the store in `dir`, which only its owner can open.
    ///
    /// # Errors
    /// [`IpcError::Io`] also if there is a pipe of this name: it is somebody's who lives.
    pub fn bind(dir: &Path) -> Result<Self, IpcError> {
        let name = SocketName::for_store(dir)?;
        let raw = make_pipe(&name.pipe).map_err(|e| name.error("make the pipe", e))?;
        Ok(Self { raw, name, woken: Flag::default() })
    }

    /// The name it is bound to.
    pub fn name(&self) -> &SocketName {
        &self.name
    }

    /// Waits for the next connection; `None` when [`wake`](Self::wake) was called, and from then on at once.
    ///
    /// # Errors
    /// [`IpcError::Io`]: the listener is broken for good.
    pub fn accept(&self) -> Result<Option<Stream>, IpcError> {
        while !self.woken.is_set() {
            match self.raw.accept() {
                Ok(raw) => return Ok(Some(Stream::from_raw(raw))),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.woken.wait(PAUSE),
                Err(e) => return Err(self.name.error("accept a connection on", e)),
            }
        }
        Ok(None)
    }

    /// Ends the accept that is waiting and every later one. May be called from any thread, any number of times.
    pub fn wake(&self) {
        self.woken.set();
    }

    /// A pipe goes with the last handle of it: there is nothing to remove.
    ///
    /// # Errors
    /// None.
    pub fn unlink_own(&self) -> Result<(), IpcError> {
        Ok(())
    }
}

fn make_pipe(name: &str) -> io::Result<PipeListener<Bytes, Bytes>> {
    let wide = |text: &str| U16CString::from_str(text).map_err(io::Error::other);
    let mut options = PipeListenerOptions::new();
    options.path = wide(name)?.into();
    options.nonblocking = true;
    options.security_descriptor = Some(SecurityDescriptor::deserialize(&wide(&owner_only())?)?);
    options.input_buffer_size_hint = BUFFER_BYTES;
    options.output_buffer_size_hint = BUFFER_BYTES;
    options.create_duplex::<Bytes>()
}

/// A blocking connection. All calls take `&self`: share it by reference or [`Arc`](std::sync::Arc).
#[derive(Debug)]
pub struct Stream {
    /// Never waits by itself.
    raw: DuplexPipeStream<Bytes>,
    read_timeout: Mutex<Option<Duration>>,
    write_timeout: Mutex<Option<Duration>>,
    ended: Flag,
    writing_ended: Flag,
}

impl Stream {
    fn from_raw(raw: DuplexPipeStream<Bytes>) -> Self {
        Self {
            raw,
            read_timeout: Mutex::new(None),
            write_timeout: Mutex::new(None),
            ended: Flag::default(),
            writing_ended: Flag::default(),
        }
    }

    /// Connects to the daemon of the store in `dir`. One that is busy with other connections is waited for until
    /// `deadline`.
    ///
    /// # Errors
    /// [`IpcError::NoDaemon`] at once if there is no pipe; [`IpcError::TimedOut`] if nobody accepts;
    /// [`IpcError::Directory`] and [`IpcError::Io`] as they say.
    pub fn connect(dir: &Path, deadline: Instant) -> Result<Self, IpcError> {
        Self::connect_to(&SocketName::for_store(dir)?, deadline)
    }

    /// As [`connect`](Self::connect), through a name that is already there.
    ///
    /// # Errors
    /// As for [`connect`](Self::connect).
    pub fn connect_to(name: &SocketName, deadline: Instant) -> Result<Self, IpcError> {
        let began = Instant::now();
        let left = deadline.saturating_duration_since(began).max(PAUSE);
        let connected = DuplexPipeStream::connect_by_path_with_wait_mode(&*name.pipe, ConnectWaitMode::Timeout(left))
            .and_then(|raw: DuplexPipeStream<Bytes>| raw.set_nonblocking(true).map(|()| raw));
        connected.map(Self::from_raw).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => IpcError::NoDaemon { dir: name.dir.clone(), reason: "there is no pipe" },
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
                IpcError::TimedOut { path: name.path(), waited: began.elapsed() }
            }
            _ => name.error("connect to", e),
        })
    }

    /// How long a read may wait before it answers [`io::ErrorKind::WouldBlock`]; none is for ever.
    ///
    /// # Errors
    /// None.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        *self.read_timeout.lock() = timeout;
        Ok(())
    }

    /// How long a write may wait before it answers [`io::ErrorKind::WouldBlock`]; none is for ever.
    ///
    /// # Errors
    /// None.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        *self.write_timeout.lock() = timeout;
        Ok(())
    }

    /// Who is at the other end.
    ///
    /// # Errors
    /// What the operating system answers.
    pub fn peer(&self) -> io::Result<Peer> {
        Ok(Peer { uid: None, pid: Some(self.raw.peer_process_id()?) })
    }

    /// Ends the connection for this side: whoever waits in a read or write on it returns. The peer sees the end when the
    /// stream is dropped.
    pub fn shutdown(&self) {
        self.ended.set();
    }

    /// Refuses further writes. The peer is not told: see the head of this file.
    pub fn end_writing(&self) {
        self.writing_ended.set();
    }

    /// Reads what is there without waiting; [`io::ErrorKind::WouldBlock`] if nothing is, 0 at the end.
    ///
    /// # Errors
    /// What the operating system answers.
    pub fn read_now(&self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || self.ended.is_set() {
            return Ok(0);
        }
        // An empty pipe and one whose writer is gone answer a read that does not wait with one and the same error, which
        // is why it is looked at first. Only one thread reads a connection, so what was seen is still there.
        match self.waiting_bytes() {
            Ok(0) => Err(io::ErrorKind::WouldBlock.into()),
            Ok(_) => (&self.raw).read(buffer),
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(0),
            Err(e) => Err(e),
        }
    }

    /// Writes as much as there is room for without waiting; [`io::ErrorKind::WouldBlock`] if there is none.
    ///
    /// # Errors
    /// What the operating system answers.
    pub fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        if self.ended.is_set() || self.writing_ended.is_set() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        match (&self.raw).write(bytes) {
            Ok(0) if !bytes.is_empty() => Err(io::ErrorKind::WouldBlock.into()),
            other => other,
        }
    }

    /// Waits until reading or writing would not wait, or the time is up; no timeout is for ever.
    ///
    /// Whether there is room to write a pipe does not tell: where that is wanted, too, the answer comes after one pause at
    /// the latest, and says that it may be tried.
    ///
    /// # Errors
    /// What the operating system answers.
    pub fn wait(&self, wanted: Wanted, timeout: Option<Duration>) -> io::Result<Readiness> {
        let look = || {
            if wanted != Wanted::Write && (self.ended.is_set() || self.waiting_bytes().map_or(true, |bytes| bytes > 0))
            {
                return Ok(Readiness { read: true, write: false });
            }
            Err(io::Error::from(io::ErrorKind::WouldBlock))
        };
        let found = match wanted {
            Wanted::Read => self.until(timeout, look),
            Wanted::Write | Wanted::Both => self.until(Some(timeout.unwrap_or(PAUSE).min(PAUSE)), look),
        };
        let read = match found {
            Ok(readiness) => readiness.read,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => false,
            Err(e) => return Err(e),
        };
        Ok(Readiness { read, write: wanted != Wanted::Read })
    }

    /// How many bytes could be read now.
    fn waiting_bytes(&self) -> io::Result<u32> {
        let mut waiting = 0;
        let none = std::ptr::null_mut();
        // SAFETY: the handle is open for as long as `self` is borrowed; of the pointers, those that are null are allowed to
        // be, and the other is to a number of ours that outlives the call.
        let done = unsafe {
            PeekNamedPipe(self.raw.as_handle().as_raw_handle(), none, 0, none.cast(), &raw mut waiting, none.cast())
        };
        if done == 0 { Err(io::Error::last_os_error()) } else { Ok(waiting) }
    }

    /// Repeats what would wait until it does not, or the time is up.
    fn until<T>(&self, timeout: Option<Duration>, mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        let began = Instant::now();
        loop {
            match attempt() {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
            if timeout.is_some_and(|timeout| began.elapsed() >= timeout) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.ended.wait(PAUSE);
        }
    }
}

impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let timeout = *self.read_timeout.lock();
        self.until(timeout, || self.read_now(buffer))
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let timeout = *self.write_timeout.lock();
        self.until(timeout, || self.write_now(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Something that happens once, and that may be waited for.
#[derive(Debug, Default)]
struct Flag {
    set: Mutex<bool>,
    changed: Condvar,
}

impl Flag {
    fn set(&self) {
        *self.set.lock() = true;
        self.changed.notify_all();
    }

    fn is_set(&self) -> bool {
        *self.set.lock()
    }

    /// Waits for it, no longer than `time`.
    fn wait(&self, time: Duration) {
        let mut set = self.set.lock();
        if !*set {
            // Whether it was set or the time was up, the caller looks itself.
            let _ = self.changed.wait_for(&mut set, time);
        }
    }
}
