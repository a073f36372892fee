//! From a store's directory to a connection on which both sides have said who they are. It waits where it must: the
//! async driver calls it where waiting is allowed.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::{Duration, Instant};

use commonhold_proto::{HELLO_BYTES, Hello, Verb};

use super::error::Error;
use super::identity::random_client_id;
use super::limits::{Limits, deadline_ms};
use super::options::ConnectOptions;
use super::parts::Parts;
use crate::ipc::{IpcError, SocketName, Stream, Wanted, own_uid};

/// How long connecting may take where the caller sets no limit.
const UNLIMITED: Duration = Duration::from_hours(24);

/// Why there is no connection.
#[derive(Debug)]
pub(super) struct NotConnected {
    pub(super) error: Error,
    /// Whether a later try may do better.
    pub(super) may_pass: bool,
}

impl NotConnected {
    fn for_good(error: Error) -> Self {
        Self { error, may_pass: false }
    }

    fn for_now(error: Error) -> Self {
        Self { error, may_pass: true }
    }
}

/// A client's first connection.
pub(super) struct First {
    pub(super) name: SocketName,
    pub(super) client: u128,
    pub(super) connected: Connected,
}

/// A connection on which both sides have said who they are.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) stream: Stream,
    /// The version that both speak.
    pub(super) version: u16,
    /// The daemon's boot number.
    pub(super) boot: u64,
    /// Of the daemon's version table; 0 is none.
    pub(super) table_nonce: u64,
}

/// Connects to the daemon that serves the store in `dir`, if there is one now.
pub(super) fn first(dir: &Path, timeout: Option<Duration>) -> Result<First, Error> {
    let name = name_of(dir)?;
    let client = random_client_id();
    let connected =
        establish(&name, client, Limits::starting_now(timeout).deadline).map_err(|refused| refused.error)?;
    Ok(First { name, client, connected })
}

/// The socket's name for the store in `dir`.
fn name_of(dir: &Path) -> Result<SocketName, Error> {
    SocketName::for_store(dir).map_err(|error| match error {
        IpcError::Directory { source, .. } if source.kind() == ErrorKind::NotFound => {
            Error::NoDaemon { dir: dir.to_owned(), reason: "there is no such directory".to_owned() }
        }
        error => Error::Unreachable { reason: error.to_string() },
    })
}

/// Connects once, and exchanges hellos.
pub(super) fn establish(name: &SocketName, client: u128, deadline: Option<Instant>) -> Result<Connected, NotConnected> {
    let began = Instant::now();
    let deadline = deadline.unwrap_or(began + UNLIMITED);
    let stream = Stream::connect_to(name, deadline).map_err(refused)?;
    check_owner(name, &stream)?;
    let identity = name.identity().map_err(|e| NotConnected::for_good(unreachable(&e)))?;
    let own = Hello::of_client(client, identity);
    let mut theirs = [0; HELLO_BYTES];
    let broke_off = |error: io::Error| {
        NotConnected::for_now(match error.kind() {
            ErrorKind::TimedOut => Error::TimedOut {
                waited: began.elapsed(),
                waiting_for: "the daemon to answer the handshake; it may be stopped or very busy",
            },
            _ => Error::Lost {
                dir: name.dir().to_owned(),
                reason: format!("the daemon ended the connection during the handshake ({error})"),
            },
        })
    };
    // A peer that hangs up at once may have said before who it is, or that it is no daemon: that is read first.
    let written = write_all(&stream, &own.to_bytes(), deadline);
    let hung_up = matches!(&written, Err(error) if error.kind() == ErrorKind::BrokenPipe);
    let outcome = match written {
        Err(error) if hung_up => read_exact(&stream, &mut theirs, deadline).map_err(|_| error),
        written => written.and_then(|()| read_exact(&stream, &mut theirs, deadline)),
    };
    outcome.map_err(broke_off)?;
    let theirs = Hello::from_bytes(&theirs).map_err(|e| NotConnected::for_good(Error::protocol(e.to_string())))?;
    let version = Hello::agree(&own, &theirs).map_err(|fault| NotConnected::for_good(Error::Fault(fault)))?;
    if hung_up {
        return Err(broke_off(ErrorKind::BrokenPipe.into()));
    }
    Ok(Connected { stream, version, boot: theirs.boot, table_nonce: theirs.table_nonce })
}

/// First and longest pause between two tries to connect again.
pub(super) const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(200));

/// The least time that a try to connect again is given.
pub(super) const LAST_TRY: Duration = Duration::from_secs(1);

/// The same, for a caller who does not want to wait.
const SHORT_TRY: Duration = Duration::from_millis(200);

/// Tries to connect again until it succeeds, or the time for it (`give_up`), or the caller's (`deadline`), is up, or nobody wants
/// the connection any more.
pub(super) fn establish_again(
    name: &SocketName,
    client: u128,
    give_up: Instant,
    deadline: Option<Instant>,
    is_wanted: &dyn Fn() -> bool,
) -> Result<Connected, NotConnected> {
    let until = deadline.map_or(give_up, |deadline| deadline.min(give_up));
    // The last try may take a moment, or there would be none where the time to reconnect is zero.
    let last_try = give_up.max(Instant::now() + LAST_TRY);
    let last_try = deadline.map_or(last_try, |deadline| deadline.min(last_try));
    let mut pause = PAUSE.0;
    loop {
        match establish(name, client, Some(last_try)) {
            Err(NotConnected { may_pass: true, .. }) if Instant::now() < until && is_wanted() => {}
            done => return done,
        }
        std::thread::sleep(pause.min(until.saturating_duration_since(Instant::now())));
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// A connection of its own for one streamed answer, with the request for it sent, unless nobody wants it any more.
pub(super) fn open_stream(
    name: &SocketName,
    client: u128,
    options: &ConnectOptions,
    frame: &[u8],
    is_wanted: &dyn Fn() -> bool,
) -> Result<Stream, Error> {
    let limits = Limits::starting_now(options.timeout);
    let give_up = limits.began + options.reconnect_for;
    let Connected { stream, .. } = establish_again(name, client, give_up, limits.deadline, is_wanted)
        .map_err(|refused| in_words(name, refused.error))?;
    asked(name, options, stream, frame, limits)
}

/// A daemon that is looked for by several calls of a caller who waits only a little in each.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// Until when, in all; none when nobody looks for one.
    give_up: Option<Instant>,
}

/// The same, for a caller who waits until `deadline`; one try is made at the least. None if there is no connection by then and
/// the `search` is to go on.
pub(super) fn open_stream_by(
    name: &SocketName,
    client: u128,
    options: &ConnectOptions,
    frame: &[u8],
    search: &mut Search,
    deadline: Option<Instant>,
) -> Result<Option<Stream>, Error> {
    let limits = Limits::starting_now(options.timeout);
    let give_up = *search.give_up.get_or_insert(limits.began + options.reconnect_for);
    let by = deadline.map(|deadline| deadline.max(limits.began + SHORT_TRY));
    let by = by.into_iter().chain(limits.deadline).min();
    let in_time = || deadline.is_none_or(|deadline| Instant::now() < deadline);
    match establish_again(name, client, give_up, by, &in_time) {
        Ok(Connected { stream, .. }) => {
            search.give_up = None;
            asked(name, options, stream, frame, limits).map(Some)
        }
        Err(NotConnected { may_pass: true, .. }) if !in_time() && Instant::now() < give_up => Ok(None),
        Err(refused) => {
            search.give_up = None;
            Err(in_words(name, refused.error))
        }
    }
}

fn asked(
    name: &SocketName,
    options: &ConnectOptions,
    stream: Stream,
    frame: &[u8],
    limits: Limits,
) -> Result<Stream, Error> {
    stream.set_read_timeout(options.timeout).map_err(|e| unreachable(&e))?;
    let deadline = limits.deadline.unwrap_or(limits.began + UNLIMITED);
    write_all(&stream, frame, deadline).map_err(|e| broke_off(name, &e.to_string()))?;
    Ok(stream)
}

/// The frame that asks for a streamed answer.
pub(super) fn ask_for_stream(options: &ConnectOptions, verb: Verb<'_>) -> Result<Vec<u8>, Error> {
    Parts::ask(deadline_ms(options.timeout), verb)
}

/// What ended a stream before it was whole.
pub(super) fn broke_off(name: &SocketName, reason: &str) -> Error {
    Error::BrokeOff { dir: name.dir().to_owned(), reason: reason.to_owned() }
}

/// A time-out of a try to connect again says too little to a caller whose request was never sent.
pub(super) fn in_words(name: &SocketName, error: Error) -> Error {
    match error {
        Error::TimedOut { waiting_for, .. } => {
            Error::Lost { dir: name.dir().to_owned(), reason: format!("waited for {waiting_for}") }
        }
        error => error,
    }
}

/// Whoever listens must be this user, root, or the one whose store it is: anybody else could read what is sent and answer
/// anything.
fn check_owner(name: &SocketName, stream: &Stream) -> Result<(), NotConnected> {
    let peer = stream.peer().map_err(|e| NotConnected::for_now(unreachable(&e)))?;
    let own = own_uid();
    match peer.uid {
        // Where the platform does not tell, the mode of the socket and of its directory are what there is.
        None => Ok(()),
        Some(uid) if uid == own || uid == 0 => Ok(()),
        // Another user's store, served by that user: its own socket can be reached by nobody else but root, who works on
        // anybody's store as with any file; the one for others was made for them. Whoever owns the directory decides what
        // is in it anyway.
        Some(uid) if name.owner().is_ok_and(|owner| owner == uid) => Ok(()),
        Some(uid) => Err(NotConnected::for_good(Error::ForeignDaemon { dir: name.dir().to_owned(), uid, own })),
    }
}

fn refused(error: IpcError) -> NotConnected {
    match error {
        IpcError::NoDaemon { dir, reason } => NotConnected::for_now(Error::NoDaemon { dir, reason: reason.to_owned() }),
        IpcError::TimedOut { waited, .. } => {
            NotConnected::for_now(Error::TimedOut { waited, waiting_for: "the daemon to accept the connection" })
        }
        IpcError::Io { .. } => NotConnected::for_now(Error::Unreachable { reason: error.to_string() }),
        error => NotConnected::for_good(Error::Unreachable { reason: error.to_string() }),
    }
}

pub(super) fn unreachable(error: &io::Error) -> Error {
    Error::Unreachable { reason: error.to_string() }
}

fn write_all(stream: &Stream, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.write_now(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(e) if e.kind() == ErrorKind::WouldBlock => wait(stream, Wanted::Write, deadline)?,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Reads exactly as many bytes: what the daemon may have sent after them stays in the socket.
fn read_exact(stream: &Stream, mut buffer: &mut [u8], deadline: Instant) -> io::Result<()> {
    while !buffer.is_empty() {
        match stream.read_now(buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => buffer = &mut buffer[read..],
            Err(e) if e.kind() == ErrorKind::WouldBlock => wait(stream, Wanted::Read, deadline)?,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn wait(stream: &Stream, wanted: Wanted, deadline: Instant) -> io::Result<()> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(ErrorKind::TimedOut.into());
    }
    stream.wait(wanted, Some(left)).map(|_| ())
}
