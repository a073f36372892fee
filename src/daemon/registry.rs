//! Who is connected: the sessions of a daemon, for the listing, for an operator's end, and for the end of all.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::engine::Fence;
use crate::ipc::Peer;
use crate::proto::{Answer, Fault, SessionInfo};

use super::Daemon;
use super::accept::Stranger;
use super::handshake::Agreed;
use super::outbox::Outbox;
use super::replies::{Parts, Piece};

/// A connection: who is there and how it goes.
pub(super) struct Guest {
    pub(super) outbox: Arc<Outbox>,
    peer: Option<Peer>,
    since_unix_ms: u64,
    agreed: OnceLock<Agreed>,
    /// Requests that it has sent.
    pub(super) requests: AtomicU64,
    /// Writes of it that are being committed.
    pub(super) in_commit: AtomicUsize,
    /// Writes of it were handed over and are not answered yet.
    pub(super) is_handed: AtomicBool,
    /// Raised when its client repeats a write on a later connection.
    pub(super) fence: Fence,
    /// It has repeated a write itself.
    has_repeated: AtomicBool,
    /// It may not come in, and is among those that are counted.
    _stranger: Option<Stranger>,
}

/// The sessions that are open, those in their handshake included.
pub(super) struct Sessions {
    last: u64,
    /// No more are taken: the daemon ends.
    pub(super) closed: bool,
    /// The log has been told that connections wait.
    pub(super) told_full: bool,
    /// How many have a thread of their own.
    pub(super) on_threads: usize,
    open: HashMap<u64, Arc<Guest>>,
    /// The sessions of each client: nearly always one, since a client has one connection at a time for what it writes.
    of_client: HashMap<u128, Vec<u64>>,
    /// Since when there has been none.
    empty_since: Instant,
}

/// Sessions in one part of a listing; far below a frame, whatever their commands.
const SESSIONS_A_PART: usize = 4_096;

impl Guest {
    pub(super) fn new(outbox: Arc<Outbox>, since_unix_ms: u64, stranger: Option<Stranger>) -> Self {
        let peer = outbox.stream().peer().ok();
        let (agreed, requests, in_commit) = (OnceLock::new(), AtomicU64::new(0), AtomicUsize::new(0));
        let is_handed = AtomicBool::new(false);
        let (fence, has_repeated) = (Fence::default(), AtomicBool::new(false));
        Self {
            outbox,
            peer,
            since_unix_ms,
            agreed,
            requests,
            in_commit,
            is_handed,
            fence,
            has_repeated,
            _stranger: stranger,
        }
    }

    /// The process at the other end, where the platform tells.
    pub(super) fn pid(&self) -> Option<u32> {
        self.peer.and_then(|peer| peer.pid)
    }

    /// That process's command, as far as it can be read; else empty.
    pub(super) fn command(&self) -> String {
        self.pid().map(command).unwrap_or_default()
    }

    /// The peer may come in, and is about to be told so: the session begins.
    fn begins(&self, agreed: Agreed) {
        let client = format_args!("{:032x}", agreed.client);
        tracing::debug!(session = self.outbox.session, client, pid = self.pid(), "session begins");
        // Once a connection, by the one who serves it.
        let _ = self.agreed.set(agreed);
    }

    /// Whether it goes on without its connection: it only holds what it has, for as long as its process lives, which may have
    /// closed a descriptor that it knows nothing of.
    pub(super) fn outlives_its_connection(&self, daemon: &Daemon) -> bool {
        let session = self.outbox.session;
        self.outbox.is_held() && self.pid().is_some_and(|pid| daemon.deaths.is_watching(pid, session))
    }

    /// It may not come in, and is told so.
    pub(super) fn refuse(&self, fault: Fault) {
        tracing::warn!(pid = self.pid(), "connection refused: {fault}");
        self.outbox.say_closing_at_once(fault);
    }

    /// The protocol version that both sides agreed upon; 0 before that.
    pub(super) fn version(&self) -> u16 {
        self.agreed.get().map_or(0, |agreed| agreed.version)
    }

    /// What there is to tell of it; nothing before the handshake is done.
    fn info(&self) -> Option<SessionInfo> {
        let Agreed { client, version } = *self.agreed.get()?;
        let in_flight = self.outbox.unanswered() + self.in_commit.load(Ordering::Relaxed);
        Some(SessionInfo {
            id: self.outbox.session,
            client,
            pid: self.pid(),
            uid: self.peer.and_then(|peer| peer.uid),
            command: self.command(),
            version,
            since_unix_ms: self.since_unix_ms,
            requests: self.requests.load(Ordering::Relaxed),
            in_flight: in_flight as u64,
            queued_bytes: self.outbox.queued() as u64,
        })
    }
}

impl Sessions {
    pub(super) fn new() -> Self {
        let (closed, told_full, empty_since) = (false, false, Instant::now());
        Self { last: 0, closed, told_full, on_threads: 0, open: HashMap::new(), of_client: HashMap::new(), empty_since }
    }

    /// A number that no session has had.
    pub(super) fn next_number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    pub(super) fn add(&mut self, guest: Arc<Guest>) {
        self.open.insert(guest.outbox.session, guest);
    }

    /// How many requests those that are open have sent, and how many they are.
    pub(super) fn asked(&self) -> (u64, usize) {
        (self.open.values().map(|guest| guest.requests.load(Ordering::Relaxed)).sum(), self.open.len())
    }

    /// The session has ended; its process.
    pub(super) fn remove(&mut self, number: u64, on_thread: bool) -> Option<u32> {
        self.on_threads -= usize::from(on_thread);
        let guest = self.open.remove(&number)?;
        if self.open.is_empty() {
            self.empty_since = Instant::now();
        }
        if let Some(Agreed { client, .. }) = guest.agreed.get()
            && let Some(numbers) = self.of_client.get_mut(client)
        {
            numbers.retain(|known| *known != number);
            if numbers.is_empty() {
                self.of_client.remove(client);
            }
        }
        guest.pid()
    }

    /// The session begins. Its client learns of that later, so nothing of it can be repeated before it is known here.
    pub(super) fn begins(&mut self, guest: &Guest, agreed: Agreed) {
        guest.begins(agreed);
        if agreed.client != 0 {
            self.of_client.entry(agreed.client).or_default().push(guest.outbox.session);
        }
    }

    /// This session's client has sent a write again: of what it sent on earlier connections nothing more is done.
    pub(super) fn shut_out_earlier(&self, guest: &Guest) {
        if guest.has_repeated.swap(true, Ordering::Relaxed) {
            return;
        }
        let own = guest.outbox.session;
        let all = guest.agreed.get().and_then(|agreed| self.of_client.get(&agreed.client));
        let earlier = all.into_iter().flatten().filter(|number| **number < own);
        for earlier in earlier.filter_map(|number| self.open.get(number)) {
            tracing::debug!(
                session = earlier.outbox.session,
                by = own,
                "what it has sent and is not done stays undone"
            );
            earlier.fence.raise();
        }
    }

    pub(super) fn count(&self) -> usize {
        self.open.len()
    }

    /// Where the answers of session `number` go.
    pub(super) fn find(&self, number: u64) -> Option<Arc<Outbox>> {
        self.open.get(&number).map(|guest| Arc::clone(&guest.outbox))
    }

    /// Who has session `number`.
    pub(super) fn guest(&self, number: u64) -> Option<Arc<Guest>> {
        self.open.get(&number).cloned()
    }

    pub(super) fn all(&self) -> Vec<Arc<Guest>> {
        self.open.values().cloned().collect()
    }

    /// How long there has been none; none if there is one.
    pub(super) fn idle(&self) -> Option<Duration> {
        self.open.is_empty().then(|| self.empty_since.elapsed())
    }
}

/// The listing: oldest first, made as the client takes it.
pub(super) fn listing(mut guests: Vec<Arc<Guest>>) -> Box<dyn Parts> {
    guests.sort_unstable_by_key(|guest| guest.outbox.session);
    guests.reverse();
    Box::new(Listing { guests })
}

struct Listing {
    /// The oldest is the last.
    guests: Vec<Arc<Guest>>,
}

impl Parts for Listing {
    fn next(&mut self, piece: &mut Piece<'_>) {
        let rest = self.guests.len().saturating_sub(SESSIONS_A_PART);
        let list = self.guests.drain(rest..).rev().filter_map(|guest| guest.info()).collect();
        let answer = Answer::Sessions { list };
        if rest > 0 { piece.part(&answer) } else { piece.last(&answer) }
    }
}

/// The command of a process, as far as it can be read.
fn command(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).map(|name| name.trim_end().to_owned()).unwrap_or_default()
}
