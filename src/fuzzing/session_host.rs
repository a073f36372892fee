//! The daemons that the session target talks to: one that gives each session a thread, one on whose runtime all are tasks.
//!
//! They serve many inputs, since starting one takes longer than most of those, and are replaced before what the inputs have
//! written grows large. The store is on a simulated disk; only the socket is real.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::daemon::{Daemon, Running, ServeOptions, end_held};
use crate::engine::disk::SimDisk;
use crate::ipc::{OWN_DIRECTORY, Stream};
use crate::proto::frame::{self, FrameKind};
use crate::proto::hello::{HELLO_BYTES, Hello};
use crate::proto::{Answer, Condition, Kind, Op, Request, Space, StoreIdentity, Verb, Write, codec};

use super::journal::{around, options};

/// Longer than anything here takes; whoever waits so long has found something.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// So many inputs are served before a daemon is replaced.
const INPUTS: u32 = 2_000;

static HOSTS: [Mutex<Option<Host>>; 2] = [Mutex::new(None), Mutex::new(None)];

/// A daemon, and a session of it that behaves.
pub(super) struct Host {
    dir: PathBuf,
    running: Option<Running>,
    witness: Option<Stream>,
    inputs: u32,
    asked: u64,
}

/// Does `work` with a daemon; `on_tasks` says which.
pub(super) fn with_host(on_tasks: bool, work: impl FnOnce(&mut Host)) {
    let mut host = HOSTS[usize::from(on_tasks)].lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if host.as_ref().is_some_and(|host| host.inputs >= INPUTS)
        && let Some(host) = host.take()
    {
        host.end();
    }
    let host = host.get_or_insert_with(|| Host::start(on_tasks));
    host.inputs += 1;
    work(host);
}

/// Ends the daemons of [`session`](super::session()), and removes what they leave; the next input starts another one.
pub fn end_session_host() {
    for host in &HOSTS {
        if let Some(host) = host.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take() {
            host.end();
        }
    }
}

impl Host {
    fn start(on_tasks: bool) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("commonhold-session-{}-{number}", std::process::id()));
        fs::create_dir_all(dir.join(OWN_DIRECTORY)).expect("the temporary directory can be written");
        let dir = dir.canonicalize().expect("it was just made");
        let disk = SimDisk::new(number);
        disk.make_dirs(&dir);
        let mut serve = ServeOptions::new(&dir);
        serve.store = options();
        serve.thread_sessions = if on_tasks { 0 } else { 64 };
        let running = Daemon::start_in(serve, around(disk)).expect("a daemon of an empty store starts");
        let mut host = Self { dir, running: Some(running), witness: None, inputs: 0, asked: 0 };
        // Once before anything is measured: it makes what every session needs.
        host.serves_another();
        host
    }

    fn end(mut self) {
        self.witness = None;
        if let Some(running) = self.running.take() {
            running.stop().expect("a daemon on a good disk ends in order");
        }
        self.remove();
    }

    fn remove(&self) {
        // Left behind in the temporary directory, should it not go.
        let _ = fs::remove_dir_all(&self.dir);
    }

    /// Ends the daemon while `work` is done, as a signal would, and begins another one.
    pub(super) fn ends_during(&mut self, on_tasks: bool, work: impl FnOnce()) {
        self.witness = None;
        let running = self.running.take().expect("a host is made with a daemon");
        std::thread::scope(|scope| {
            let ending = scope.spawn(|| running.stop());
            work();
            ending.join().expect("it does not panic").expect("a daemon on a good disk ends in order");
        });
        self.remove();
        *self = Self::start(on_tasks);
    }

    /// How many sessions are open beside the one that behaves.
    pub(super) fn others(&self) -> usize {
        let open = self.running.as_ref().map_or(0, |running| running.daemon().session_count());
        open.saturating_sub(usize::from(self.witness.is_some()))
    }

    /// Ends the sessions that only hold what they have.
    pub(super) fn end_held(&self) {
        if let Some(running) = &self.running {
            end_held(running.daemon());
        }
    }

    pub(super) fn connect(&self) -> Stream {
        connect(&self.dir)
    }

    /// The session that behaves is served; it is begun anew where the bytes that came before have ended it.
    pub(super) fn serves_another(&mut self) {
        for _ in 0..2 {
            let stream = self.witness.take().unwrap_or_else(|| greeted(&self.dir));
            self.asked += 1;
            if put_and_get(&stream, &self.asked.to_string()) {
                self.witness = Some(stream);
                return;
            }
        }
        panic!("a session that behaves is not served any more");
    }
}

fn connect(dir: &Path) -> Stream {
    let stream = Stream::connect(dir, Instant::now() + PATIENCE).expect("the daemon takes connections");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes a time limit");
    stream.set_write_timeout(Some(PATIENCE)).expect("a socket takes a time limit");
    stream
}

fn greeted(dir: &Path) -> Stream {
    let stream = connect(dir);
    (&stream).write_all(&Hello::of_client(1, StoreIdentity::ANY).to_bytes()).expect("a daemon that serves reads");
    (&stream).read_exact(&mut [0; HELLO_BYTES]).expect("a daemon that serves says who it is");
    stream
}

/// Whether it was served; false if the session has been ended.
fn put_and_get(stream: &Stream, value: &str) -> bool {
    let space = Space { kind: Kind::Persistent, workspace: "", namespace: "of-one-that-behaves" };
    let put = Op::Put { space: 0, key: "k", value, condition: Condition::Always };
    let write = Write {
        client: 1,
        number: 0,
        settled: 0,
        durability: None,
        if_token: None,
        spaces: vec![space],
        ops: vec![put],
    };
    let mut bytes = Vec::new();
    for (id, verb) in [(1, Verb::Write(write)), (2, Verb::Get { space, key: "k" })] {
        codec::encode_request(&mut bytes, id, &Request { deadline_ms: 0, verb }).expect("it is small");
    }
    if (&*stream).write_all(&bytes).is_err() {
        return false;
    }
    let (mut came, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let mut rest = &came[..];
        while let Some((header, body, consumed)) = frame::split(rest).expect("the daemon sends good frames") {
            if header.kind == FrameKind::Event {
                return false;
            }
            if header.id == 2 {
                let Ok(Answer::Got { found: Some(found), .. }) = codec::decode_answer(body) else {
                    panic!("a session that behaves gets {:?}", codec::decode_answer(body));
                };
                assert_eq!(found.value, value, "a session that behaves reads what it wrote");
                return true;
            }
            rest = &rest[consumed..];
        }
        match (&*stream).read(&mut buffer) {
            Ok(0) => return false,
            Ok(read) => came.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return false,
            Err(error) => panic!("a session that behaves is not answered: {error}"),
        }
    }
}
