//! A daemon that does what its test tells it, over a real socket: it speaks the protocol, and nothing else of a daemon.

use std::io::{Read, Write};
use std::path::Path;

use commonhold::ipc::{Listener, OWN_DIRECTORY, Stream, store_identity};
use commonhold::proto::{Answer, Event, Fault, HELLO_BYTES, Hello, StoreIdentity, Verb, codec, frame};
use tempfile::TempDir;

/// A store's directory with somebody listening.
pub(crate) struct FakeDaemon {
    dir: TempDir,
    listener: Listener,
}

impl FakeDaemon {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(OWN_DIRECTORY)).unwrap();
        Self::start_in(dir)
    }

    /// Listens again where another has died.
    pub(crate) fn start_in(dir: TempDir) -> Self {
        let listener = Listener::bind(dir.path()).unwrap();
        Self { dir, listener }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn identity(&self) -> StoreIdentity {
        store_identity(self.dir()).unwrap()
    }

    /// Nobody listens any more; the directory and the dead socket stay.
    pub(crate) fn die(self) -> TempDir {
        self.dir
    }

    /// The next connection, before anything was said.
    pub(crate) fn accept_silently(&self) -> Connection {
        Connection { stream: self.listener.accept().unwrap().unwrap(), received: Vec::new() }
    }

    /// The next connection, after hellos as a daemon of this boot number.
    pub(crate) fn accept(&self, boot: u64) -> Connection {
        let connection = self.accept_silently();
        let client = connection.client_hello();
        connection.send(&Hello::of_daemon(client.client, self.identity(), 0, boot).to_bytes());
        connection
    }
}

/// The daemon's end of a connection.
pub(crate) struct Connection {
    stream: Stream,
    received: Vec<u8>,
}

/// A request, with the verb told by what the tests look at.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) id: u64,
    /// The first key it names, if it names any.
    pub(crate) key: String,
    pub(crate) deadline_ms: u32,
    /// For a write: the client's id, the number and what is settled.
    pub(crate) write: Option<(u128, u64, u64)>,
    /// For a write that says it was sent before: to the daemon of which boot number.
    pub(crate) first_boot: Option<u64>,
    /// The bytes of the body.
    pub(crate) bytes: usize,
    /// What is asked, as Rust shows it.
    pub(crate) verb: String,
}

impl Connection {
    pub(crate) fn client_hello(&self) -> Hello {
        let mut hello = [0; HELLO_BYTES];
        (&self.stream).read_exact(&mut hello).unwrap();
        Hello::from_bytes(&hello).unwrap()
    }

    pub(crate) fn send(&self, bytes: &[u8]) {
        (&self.stream).write_all(bytes).unwrap();
    }

    /// As [`send`](Self::send), for when the client may be gone.
    pub(crate) fn try_send(&self, bytes: &[u8]) {
        let _ = (&self.stream).write_all(bytes);
    }

    pub(crate) fn answer(&self, id: u64, answer: &Answer<'_>) {
        self.send(&encoded(id, answer));
    }

    pub(crate) fn close_because(&self, fault: Fault) {
        let mut bytes = Vec::new();
        codec::encode_event(&mut bytes, &Event::Closing(fault)).unwrap();
        self.try_send(&bytes);
    }

    /// The next request; cancels are passed over. `None` when the client has gone.
    pub(crate) fn next(&mut self) -> Option<Asked> {
        loop {
            if let Some((header, body, consumed)) = frame::split(&self.received).unwrap() {
                let asked = (!body.is_empty()).then(|| asked(header.id, body));
                self.received.drain(..consumed);
                if asked.is_some() {
                    return asked;
                }
                continue;
            }
            let mut buffer = [0; 8 * 1024];
            match (&self.stream).read(&mut buffer) {
                Ok(0) | Err(_) => return None,
                Ok(read) => self.received.extend_from_slice(&buffer[..read]),
            }
        }
    }

    pub(crate) fn request(&mut self) -> Asked {
        self.next().expect("the client sends a request")
    }

    /// How many whole requests are there, with those that were read before. Never waits.
    pub(crate) fn waiting(&mut self) -> usize {
        let mut buffer = [0; 8 * 1024];
        while let Ok(read @ 1..) = self.stream.read_now(&mut buffer) {
            self.received.extend_from_slice(&buffer[..read]);
        }
        let (mut at, mut requests) = (0, 0);
        while let Some((_, _, consumed)) = frame::split(&self.received[at..]).unwrap() {
            (at, requests) = (at + consumed, requests + 1);
        }
        requests
    }

    /// Reads exactly this many bytes and throws them away.
    pub(crate) fn swallow(&self, bytes: usize) {
        (&self.stream).read_exact(&mut vec![0; bytes]).unwrap();
    }
}

pub(crate) fn encoded(id: u64, answer: &Answer<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::encode_answer(&mut bytes, id, answer).unwrap();
    bytes
}

fn asked(id: u64, body: &[u8]) -> Asked {
    let request = codec::decode_request(body).unwrap();
    let (key, write) = match &request.verb {
        Verb::Get { key, .. } | Verb::Contains { key, .. } => (*key, None),
        Verb::GetMany { keys, .. } | Verb::FilterMissing { keys, .. } => (keys.first().copied().unwrap_or(""), None),
        Verb::Scan { cursor, .. } => (cursor.map_or("", |cursor| cursor.key), None),
        Verb::Write(write) | Verb::WriteAgain { write, .. } => ("", Some((write.client, write.number, write.settled))),
        _ => ("", None),
    };
    let first_boot = match &request.verb {
        Verb::WriteAgain { earlier, .. } => Some(earlier.boot),
        _ => None,
    };
    let (key, verb) = (key.to_owned(), format!("{:?}", request.verb));
    Asked { id, key, deadline_ms: request.deadline_ms, write, first_boot, bytes: body.len(), verb }
}
