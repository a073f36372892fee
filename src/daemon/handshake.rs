//! The first words of a connection: who is there, which store is meant, and which version both will speak.
//!
//! A peer that says nothing within [`HELLO_TIMEOUT_MS`] is gone; one that is not wanted is told why.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use crate::ipc::{AsyncStream, Stream};
use crate::proto::hello::{HELLO_BYTES, Hello};
use crate::proto::limits::HELLO_TIMEOUT_MS;
use crate::proto::{Fault, StoreIdentity};

/// What the daemon says of itself in every handshake.
pub(super) struct Host {
    pub(super) identity: StoreIdentity,
    pub(super) boot: u64,
    /// Of the version table; 0 is none.
    pub(super) table_nonce: u64,
    /// The user who owns the store: he and root may come in.
    pub(super) owner: u32,
    /// Others who may.
    pub(super) allowed: Vec<u32>,
}

/// What a handshake has settled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Agreed {
    /// The client's id.
    pub(super) client: u128,
    /// The protocol version that both speak.
    pub(super) version: u16,
}

/// How a handshake ended.
#[derive(Debug)]
pub(super) enum Greeting {
    /// The session may begin.
    Welcome,
    /// The peer is told why it may not come in.
    Unwanted(Fault),
    /// There is nobody to talk to: it hung up, or said nothing in time.
    Nobody(io::Error),
}

/// Reads the client's hello and answers with the daemon's own, within the time a new connection has for that. `welcome` is
/// told what is agreed upon before the client is.
pub(super) fn greet(stream: &Stream, host: &Host, welcome: impl Fn(Agreed)) -> Greeting {
    let deadline = Instant::now() + Duration::from_millis(HELLO_TIMEOUT_MS);
    exchange(stream, host, &welcome, deadline).unwrap_or_else(Greeting::Nobody)
}

/// As [`greet`], on the runtime.
pub(super) async fn greet_later(stream: &AsyncStream, host: &Host, welcome: impl Fn(Agreed)) -> Greeting {
    let patience = Duration::from_millis(HELLO_TIMEOUT_MS);
    let exchanged = tokio::time::timeout(patience, exchange_later(stream, host, &welcome)).await;
    exchanged.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).unwrap_or_else(Greeting::Nobody)
}

fn exchange(stream: &Stream, host: &Host, welcome: &impl Fn(Agreed), deadline: Instant) -> io::Result<Greeting> {
    let mut bytes = [0; HELLO_BYTES];
    let mut have = 0;
    while have < HELLO_BYTES {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match (&*stream).read(&mut bytes[have..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => have += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    stream.set_read_timeout(None)?;
    let (own, greeting) = judge(&bytes, stream, host, welcome);
    stream.set_write_timeout(Some(deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))))?;
    (&*stream).write_all(&own)?;
    Ok(greeting)
}

async fn exchange_later(stream: &AsyncStream, host: &Host, welcome: &impl Fn(Agreed)) -> io::Result<Greeting> {
    let mut bytes = [0; HELLO_BYTES];
    let mut have = 0;
    while have < HELLO_BYTES {
        let read = stream.read_with(|stream| stream.read_now(&mut bytes[have..]).map(|read| (read, true))).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        have += read;
    }
    let (own, greeting) = judge(&bytes, stream.get(), host, welcome);
    let mut rest = &own[..];
    stream
        .write_with(|| {
            match stream.get().write_now(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
            Ok(rest.is_empty())
        })
        .await?;
    Ok(greeting)
}

/// The daemon's hello to a client's, and whether that one may come in.
fn judge(
    bytes: &[u8; HELLO_BYTES],
    stream: &Stream,
    host: &Host,
    welcome: &impl Fn(Agreed),
) -> ([u8; HELLO_BYTES], Greeting) {
    let hello = Hello::from_bytes(bytes);
    let client = hello.as_ref().map_or(0, |hello| hello.client);
    let own = Hello::of_daemon(client, host.identity, host.table_nonce, host.boot);
    let agreed = check_user(stream, host).and_then(|()| match hello {
        Err(error) => Err(Fault::Malformed { reason: error.to_string() }),
        Ok(hello) => Hello::agree(&hello, &own),
    });
    let greeting = match agreed {
        Ok(version) => {
            welcome(Agreed { client, version });
            Greeting::Welcome
        }
        Err(fault) => Greeting::Unwanted(fault),
    };
    (own.to_bytes(), greeting)
}

/// The modes of `.commonhold` and of the socket keep others out already; this holds even where somebody changed them,
/// and it alone decides at the socket for other users.
pub(super) fn check_user(stream: &Stream, host: &Host) -> Result<(), Fault> {
    match stream.peer().ok().and_then(|peer| peer.uid) {
        Some(uid) if uid == host.owner || uid == 0 || host.allowed.contains(&uid) => Ok(()),
        // Where the platform does not tell who is there, the socket's own permissions have decided.
        None if !cfg!(unix) => Ok(()),
        other => Err(Fault::Forbidden { uid: other.unwrap_or(u32::MAX), owner: host.owner }),
    }
}
