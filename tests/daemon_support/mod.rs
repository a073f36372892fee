//! A daemon in this process and clients that speak in raw frames, so that what is tested is the daemon and not a client
//! library's idea of it.

#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test file uses its own part of this")]

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use commonhold::daemon::{Daemon, Running, ServeOptions};
use commonhold::ipc::Stream;
use commonhold::lock::{FileLocks, Locks, SharedLock};
use commonhold::proto::frame::FrameKind;
use commonhold::proto::hello::{HELLO_BYTES, Hello};
use commonhold::proto::{Answer, Condition, Event, Fault, Kind, Op, Request, Space, StoreIdentity, Verb, codec, frame};

/// Longer than anything here takes; a test that waits so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A store in a directory of its own.
pub struct Place {
    pub dir: tempfile::TempDir,
    thread_sessions: usize,
}

/// Each promise is kept however its session is served: makes two tests of each function, one in which every session has
/// a thread of its own, one in which all are tasks on the runtime.
#[macro_export]
macro_rules! however_sessions_are_served {
    ($($promise:ident),+ $(,)?) => {
        mod on_threads {
            $(#[test] fn $promise() { super::$promise(&$crate::daemon_support::Place::new()); })+
        }
        mod on_tasks {
            $(#[test] fn $promise() { super::$promise(&$crate::daemon_support::Place::of_tasks()); })+
        }
    };
}

impl Place {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), thread_sessions: 64 }
    }

    /// Its daemon gives no session a thread of its own.
    pub fn of_tasks() -> Self {
        Self { thread_sessions: 0, ..Self::new() }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn options(&self) -> ServeOptions {
        let mut options = ServeOptions::new(self.path());
        options.thread_sessions = self.thread_sessions;
        options
    }

    pub fn serve(&self) -> Running {
        Daemon::start(self.options()).unwrap()
    }

    pub fn connect(&self) -> Peer {
        Peer::connect(self.path())
    }

    pub fn file(&self, namespace: &str) -> PathBuf {
        self.path().join(format!("kv_store_{namespace}.json"))
    }

    /// Keeps the namespace's file from being replaced, as an outside reader does.
    pub fn hold(&self, namespace: &str) -> SharedLock {
        FileLocks.share(&self.path().join(format!(".commonhold/flush/@/{namespace}.lock")), PATIENCE).unwrap()
    }
}

pub fn space(namespace: &str) -> Space<'_> {
    Space { kind: Kind::Persistent, workspace: "", namespace }
}

pub fn put<'a>(namespace: &'a str, key: &'a str, value: &'a str) -> Verb<'a> {
    write(namespace, vec![Op::Put { space: 0, key, value, condition: Condition::Always }])
}

pub fn write<'a>(namespace: &'a str, ops: Vec<Op<'a>>) -> Verb<'a> {
    Verb::Write(commonhold::proto::Write {
        client: 1,
        number: 0,
        settled: 0,
        durability: None,
        if_token: None,
        spaces: vec![space(namespace)],
        ops,
    })
}

pub fn get<'a>(namespace: &'a str, key: &'a str) -> Verb<'a> {
    Verb::Get { space: space(namespace), key }
}

pub fn flush(namespace: &str) -> Verb<'_> {
    Verb::Flush { space: Some(space(namespace)), rewrite: false, wait: true }
}

pub fn frame_of(id: u64, verb: Verb<'_>) -> Vec<u8> {
    frame_with_deadline(id, 0, verb)
}

pub fn frame_with_deadline(id: u64, deadline_ms: u32, verb: Verb<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::encode_request(&mut bytes, id, &Request { deadline_ms, verb }).unwrap();
    bytes
}

/// A frame from the daemon.
#[derive(Debug)]
pub struct Reply {
    pub id: u64,
    pub kind: FrameKind,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn answer(&self) -> Answer<'_> {
        assert!(matches!(self.kind, FrameKind::Answer | FrameKind::Part), "{self:?}");
        codec::decode_answer(&self.body).unwrap()
    }

    pub fn value(&self) -> Option<String> {
        match self.answer() {
            Answer::Got { found, .. } => found.map(|found| found.value.to_owned()),
            other => panic!("not an answer to get: {other:?}"),
        }
    }

    pub fn fault(&self) -> Fault {
        match self.answer() {
            Answer::Fault(fault) => fault,
            other => panic!("no fault: {other:?}"),
        }
    }

    pub fn closing(&self) -> Fault {
        assert_eq!(self.kind, FrameKind::Event, "{self:?}");
        let Event::Closing(fault) = codec::decode_event(&self.body).unwrap();
        fault
    }
}

/// A client that says what it is told to.
pub struct Peer {
    pub stream: Arc<Stream>,
    buffer: Vec<u8>,
    id: u64,
}

impl Peer {
    /// Connects without a word.
    pub fn silent(dir: &Path) -> Self {
        let stream = Stream::connect(dir, Instant::now() + PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self::over(Arc::new(stream))
    }

    /// On a connection whose hellos were said.
    pub fn over(stream: Arc<Stream>) -> Self {
        Self { stream, buffer: Vec::new(), id: 0 }
    }

    pub fn connect(dir: &Path) -> Self {
        let mut peer = Self::silent(dir);
        let hello = peer.greet(&Hello::of_client(7, StoreIdentity::ANY));
        assert_eq!(hello.client, 7);
        peer
    }

    /// Says this hello and answers the daemon's.
    pub fn greet(&mut self, hello: &Hello) -> Hello {
        self.send(&hello.to_bytes());
        self.daemon_hello()
    }

    pub fn daemon_hello(&mut self) -> Hello {
        let mut bytes = [0; HELLO_BYTES];
        (&*self.stream).read_exact(&mut bytes).unwrap();
        Hello::from_bytes(&bytes).unwrap()
    }

    pub fn send(&self, bytes: &[u8]) {
        assert!(self.try_send(bytes), "the daemon has closed the connection");
    }

    /// Whether the daemon still took it.
    pub fn try_send(&self, bytes: &[u8]) -> bool {
        (&*self.stream).write_all(bytes).is_ok()
    }

    /// Sends a request and answers its id.
    pub fn ask(&mut self, verb: Verb<'_>) -> u64 {
        self.id += 1;
        self.send(&frame_of(self.id, verb));
        self.id
    }

    /// Sends a request and waits for the frame that comes next.
    pub fn call(&mut self, verb: Verb<'_>) -> Reply {
        let id = self.ask(verb);
        let reply = self.next();
        assert_eq!(reply.id, id, "{reply:?}");
        reply
    }

    /// The next frame.
    pub fn next(&mut self) -> Reply {
        self.try_next().expect("the daemon has closed the connection")
    }

    /// The next frame; none when the daemon has closed the connection.
    pub fn try_next(&mut self) -> Option<Reply> {
        loop {
            if let Some((header, body, consumed)) = frame::split(&self.buffer).unwrap() {
                let reply = Reply { id: header.id, kind: header.kind, body: body.to_vec() };
                self.buffer.drain(..consumed);
                return Some(reply);
            }
            let mut bytes = vec![0; 64 * 1024];
            match (&*self.stream).read(&mut bytes) {
                Ok(0) => return None,
                Ok(read) => self.buffer.extend_from_slice(&bytes[..read]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("the daemon says nothing: {error}"),
            }
        }
    }
}

/// Waits until something holds; fails when it does not in time.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// How much processor time a process takes in the time that follows.
pub fn busy_for(pid: u32, time: Duration) -> Duration {
    let used = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        // After the name, which may hold anything: state is field 3, user and system time are 14 and 15, in hundredths.
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let before = used();
    std::thread::sleep(time);
    Duration::from_millis(10 * (used() - before))
}
