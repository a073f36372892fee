//! The driver: moves the core's bytes with the threads that call, and with none of its own.
//!
//! All is under one lock, which is never held while waiting. A thread that needs something sends what there is room
//! for, and then takes the first of these places that is free, until it has what it needs:
//!
//! - the *leader* reads for all, or makes the lost connection again; nobody else finds a connection lost or makes one;
//! - the *pusher* waits for room, while bytes are unsent and the leader already waits for something to read;
//! - a *follower* sleeps until its request is settled, or a place is free.
//!
//! Whoever leaves wakes a follower for the place that it leaves free. So there is always somebody reading while anybody
//! waits, and the daemon, whose own buffers are bounded, never waits for a client that waits for it.
//!
//! **After a fork** the child finds, by a word that a fork wipes and each call looks at, that the session is its parent's. It
//! never touches that one again: its lock may have been held by a thread that does not exist in the child, and what is
//! written to its socket would mix with what the parent writes. It closes its descriptor if it can, and goes on with a
//! session of its own, which hangs on the parent's so that every clone of the client finds the same one.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind, Read};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use commonhold_proto::Verb;
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::{ConnectOptions, Error, OpenOptions};
use crate::client::connect::{
    self, Connected, First, NotConnected, Search, ask_for_stream, broke_off, establish_again, in_words, open_stream,
    open_stream_by, unreachable,
};
use crate::client::core::{Broken, Core, Reply, TOGETHER_BYTES};
use crate::client::identity::random_client_id;
use crate::client::launch;
use crate::client::limits::{Limits, deadline_ms};
use crate::client::near::Near;
use crate::client::process::Process;
use crate::ipc::{SocketName, Stream, Wanted};

mod holding;

/// Bytes read at once.
const READ_BUFFER_BYTES: usize = 128 * 1024;

/// Followers sleep on the one of these that their request's id selects, so that few are woken in vain.
const BEDS: usize = 16;

/// A read that ends this much after its request's deadline is still in time: a plain read with the socket's own time
/// limit then spares the call that would wait more exactly.
const DEADLINE_SLACK: Duration = Duration::from_millis(20);

/// How far a caller waits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    Sent,
    Settled,
}

/// One connection at a time, and the requests on it. Shared by all clones of a client.
#[derive(Debug)]
pub(super) struct Session {
    options: ConnectOptions,
    /// The process that may use it.
    process: Process,
    /// What a forked child of that process uses instead.
    in_child: OnceLock<Arc<Session>>,
    /// The directory stays open: a connection is always made again to the same store, whatever becomes of the path.
    name: Arc<SocketName>,
    client: u128,
    near: Near,
    state: Mutex<State>,
    beds: [Condvar; BEDS],
    boot: AtomicU64,
    restarts: AtomicU64,
    /// How many connections were lost: the number of the one that there is.
    lost: Arc<AtomicU64>,
    /// The names that somebody in this process elects for, or has won.
    electing: Mutex<BTreeSet<String>>,
    elected: Condvar,
}

#[derive(Debug)]
struct State {
    core: Core,
    line: Line,
    has_leader: bool,
    has_pusher: bool,
    /// How many sleep until something becomes of a request.
    followers: BTreeMap<u64, usize>,
    /// Where short requests come together to be sent.
    together: Vec<u8>,
    /// How many have asked that requests are gathered, and about how many bytes of them are.
    gatherers: usize,
    gathered: usize,
    /// The leader has it while it reads.
    buffer: Vec<u8>,
}

#[derive(Debug)]
enum Line {
    Up(Arc<Stream>),
    /// The daemon takes no more bytes. What it has sent before, answers and its reason, is read to the end.
    Ending(Arc<Stream>),
    /// Until when it is tried to make the connection again; none until somebody tries.
    Down(Option<Instant>),
}

impl Session {
    pub(super) fn connect(dir: &Path, options: ConnectOptions) -> Result<Self, Error> {
        Self::begun(connect::first(dir, options.timeout)?, options)
    }

    pub(super) fn open(dir: &Path, options: OpenOptions) -> Result<Self, Error> {
        Self::begun(launch::open(dir, &options)?, options.into_connect())
    }

    fn begun(First { name, client, connected }: First, options: ConnectOptions) -> Result<Self, Error> {
        let Connected { stream, version, boot, table_nonce } = connected;
        stream.set_read_timeout(options.timeout).map_err(|e| unreachable(&e))?;
        let stream = Arc::new(stream);
        let session = Self::over(Arc::new(name), options, client, Line::Up(Arc::clone(&stream)), boot);
        session.near.connected(&session.name, table_nonce, &stream);
        session.state.lock().core.connected(version, boot, |_| {});
        Ok(session)
    }

    fn over(name: Arc<SocketName>, options: ConnectOptions, client: u128, line: Line, boot: u64) -> Self {
        let mut core = Core::new(client);
        let near = Near::new(options.cache_bytes);
        core.tell_writes(near.own_writes());
        let lost = core.connection_number();
        let state = State {
            core,
            line,
            has_leader: false,
            has_pusher: false,
            followers: BTreeMap::new(),
            together: Vec::new(),
            gatherers: 0,
            gathered: 0,
            buffer: vec![0; READ_BUFFER_BYTES],
        };
        Self {
            options,
            process: Process::this(),
            in_child: OnceLock::new(),
            name,
            client,
            near,
            state: Mutex::new(state),
            beds: [const { Condvar::new() }; BEDS],
            boot: AtomicU64::new(boot),
            restarts: AtomicU64::new(0),
            lost,
            electing: Mutex::default(),
            elected: Condvar::new(),
        }
    }

    /// The session that this process may use: this one, or after a fork one of the child's own, which connects at its
    /// first use.
    pub(super) fn of_this_process(self: &Arc<Self>) -> &Arc<Self> {
        let mut session = self;
        while !session.is_own() {
            session = session.in_child.get_or_init(|| session.inherit());
        }
        session
    }

    /// Whether it is this process's and not that of one which forked.
    pub(super) fn is_own(&self) -> bool {
        self.process.is_this()
    }

    fn inherit(&self) -> Arc<Self> {
        // Only closed, never shut down: that would end the connection for the parent, too. While a thread of the parent
        // was reading, its reference keeps the descriptor open, which does no harm: nobody uses it.
        if let Some(mut state) = self.state.try_lock() {
            state.line = Line::Down(None);
        }
        // What was granted on the parent's connection is the parent's.
        self.lost.fetch_add(1, Ordering::AcqRel);
        let boot = self.boot.load(Ordering::Acquire);
        Arc::new(Self::over(Arc::clone(&self.name), self.options.clone(), random_client_id(), Line::Down(None), boot))
    }

    pub(super) fn options(&self) -> &ConnectOptions {
        &self.options
    }

    /// The values that are kept.
    #[inline]
    pub(super) fn near(&self) -> &Near {
        &self.near
    }

    pub(super) fn boot(&self) -> u64 {
        self.boot.load(Ordering::Acquire)
    }

    pub(super) fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Acquire)
    }

    /// How many connections were lost.
    pub(super) fn lost(&self) -> &Arc<AtomicU64> {
        &self.lost
    }

    /// Sends a request and waits for its answer.
    pub(super) fn call(&self, verb: Verb<'_>, timeout: Option<Duration>) -> Result<Reply, Error> {
        let limits = Limits::starting_now(timeout);
        let mut state = self.state.lock();
        let id = state.core.begin(deadline_ms(timeout), verb)?;
        self.finish(&mut state, id, limits)
    }

    /// Sends a request and returns as soon as it is sent, or is one of those that are gathered; [`wait`](Self::wait) or
    /// [`forget`](Self::forget) must follow.
    pub(super) fn begin(&self, verb: Verb<'_>, timeout: Option<Duration>) -> Result<(u64, Limits), Error> {
        let limits = Limits::starting_now(timeout);
        let mut state = self.state.lock();
        let id = state.core.begin(deadline_ms(timeout), verb)?;
        if state.gatherers > 0 {
            state.gathered += state.core.unsent_bytes(id);
            if state.gathered < TOGETHER_BYTES {
                return Ok((id, limits));
            }
        }
        if self.drive(&mut state, id, limits, Until::Sent) {
            return Ok((id, limits));
        }
        Err(self.give_up(&mut state, id, limits))
    }

    /// Waits for the answer to a request that was begun.
    pub(super) fn wait(&self, id: u64, limits: Limits) -> Result<Reply, Error> {
        if !self.is_own() {
            return Err(Error::Forked);
        }
        let mut state = self.state.lock();
        if limits.passed() && !state.core.is_sent(id) {
            // Nobody waits for it any more, so it is not begun.
            return Err(self.give_up(&mut state, id, limits));
        }
        self.finish(&mut state, id, limits)
    }

    /// Drops the answer to a request that was begun. What was sent is done all the same, and what was gathered is sent with the
    /// others. Never waits.
    pub(super) fn forget(&self, id: u64) {
        if self.is_own() {
            let mut state = self.state.lock();
            if !state.core.forget_gathered(id) {
                state.core.give_up(id, false);
            }
        }
    }

    /// Requests are gathered from here on; [`end_gathering`](Self::end_gathering) must follow.
    pub(super) fn gather(&self) {
        self.state.lock().gatherers += 1;
    }

    pub(super) fn end_gathering(&self) {
        if self.is_own() {
            self.state.lock().gatherers -= 1;
        }
    }

    /// Sends what was gathered.
    pub(super) fn send_gathered(&self) -> Result<(), Error> {
        if !self.is_own() {
            return Err(Error::Forked);
        }
        let limits = Limits::starting_now(self.options.timeout);
        let mut state = self.state.lock();
        let Some(last) = state.core.last_unsent() else { return Ok(()) };
        // The first of them, again and again: the last may be another thread's, and given up meanwhile.
        while let Some(first) = state.core.first_unsent().filter(|&first| first <= last) {
            if !self.drive(&mut state, first, limits, Until::Sent) {
                let waiting_for = "gathered requests to be sent; some are not yet";
                return Err(Error::TimedOut { waited: limits.began.elapsed(), waiting_for });
            }
        }
        if state.core.has_unattended() {
            self.take_what_is_there(&mut state);
        }
        Ok(())
    }

    /// Reads what has come, without waiting: answers for which nobody waits would hold up the daemon.
    fn take_what_is_there(&self, state: &mut MutexGuard<'_, State>) {
        while !state.has_leader
            && let Line::Up(stream) = &state.line
        {
            let stream = Arc::clone(stream);
            let mut buffer = std::mem::take(&mut state.buffer);
            // What ends the connection is found again by whoever waits for something.
            let read = stream.read_now(&mut buffer).ok().filter(|read| *read > 0);
            if let Some(read) = read {
                let State { core, followers, .. } = &mut **state;
                if let Err(broken) = core.receive(&buffer[..read], |id| self.wake(followers, id)) {
                    self.lose(state, broken);
                }
            }
            state.buffer = buffer;
            if read.is_none() {
                return;
            }
        }
    }

    /// The process that listens, where there is a connection and the operating system tells: as this process sees it.
    #[cfg(all(unix, feature = "daemon"))]
    pub(super) fn daemon_pid(&self) -> Option<u32> {
        let state = self.state.lock();
        let Line::Up(stream) = &state.line else { return None };
        stream.peer().ok()?.pid
    }

    /// A connection beside this session's, on which this verb has been sent.
    pub(super) fn open_stream(&self, verb: Verb<'_>) -> Result<Stream, Error> {
        open_stream(&self.name, self.client, &self.options, &ask_for_stream(&self.options, verb)?, &|| true)
    }

    /// The same, by this deadline, or none if the search is to go on.
    pub(super) fn open_stream_by(
        &self,
        frame: &[u8],
        search: &mut Search,
        deadline: Option<Instant>,
    ) -> Result<Option<Stream>, Error> {
        open_stream_by(&self.name, self.client, &self.options, frame, search, deadline)
    }

    /// What ended such a connection before its stream was whole.
    pub(super) fn broke_off(&self, reason: &str) -> Error {
        broke_off(&self.name, reason)
    }

    fn finish(&self, state: &mut MutexGuard<'_, State>, id: u64, limits: Limits) -> Result<Reply, Error> {
        if !self.drive(state, id, limits, Until::Settled) {
            return Err(self.give_up(state, id, limits));
        }
        state.core.take(id).expect("drive finds only what is settled")
    }

    /// Gives up a request whose time is up. That it is cancelled is told the daemon at once, for nobody may call for long.
    fn give_up(&self, state: &mut MutexGuard<'_, State>, id: u64, limits: Limits) -> Error {
        let error = limits.given_up(state.core.give_up(id, true));
        // Another one may wait for it to be sent, with what he gathered behind it.
        self.wake(&state.followers, id);
        self.push(state);
        self.wake_for_free_places(state);
        error
    }

    /// Does whatever is needed until the request is sent, or settled; answers whether it came to that in time.
    fn drive(&self, state: &mut MutexGuard<'_, State>, id: u64, limits: Limits, until: Until) -> bool {
        let driven = loop {
            self.push(state);
            let there = match until {
                Until::Sent => state.core.is_sent(id),
                Until::Settled => state.core.is_settled(id),
            };
            if there {
                break true;
            }
            if limits.passed() {
                break false;
            }
            if !state.has_leader {
                state.has_leader = true;
                self.lead(state, limits);
                state.has_leader = false;
            } else if !state.has_pusher && state.core.has_unsent() && matches!(state.line, Line::Up(_)) {
                state.has_pusher = true;
                Self::wait_for_room(state, limits);
                state.has_pusher = false;
            } else {
                self.follow(state, id, limits);
            }
        };
        self.wake_for_free_places(state);
        driven
    }

    /// Sends what there is room for. Never waits.
    fn push(&self, state: &mut State) {
        state.gathered = 0;
        while let Line::Up(stream) = &state.line {
            let bytes = state.core.to_send(&mut state.together);
            if bytes.is_empty() {
                return;
            }
            match stream.write_now(bytes) {
                Ok(written) => {
                    let State { core, followers, .. } = &mut *state;
                    core.sent(written, |id| self.wake(followers, id));
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    stream.end_writing();
                    state.line = Line::Ending(Arc::clone(stream));
                }
            }
        }
    }

    /// One step for all: reads what comes, or makes the connection again.
    fn lead(&self, state: &mut MutexGuard<'_, State>, limits: Limits) {
        let (stream, unsent) = match &state.line {
            Line::Up(stream) => (Arc::clone(stream), state.core.has_unsent()),
            Line::Ending(stream) => (Arc::clone(stream), false),
            Line::Down(_) => return self.reconnect(state, limits),
        };
        let mut buffer = std::mem::take(&mut state.buffer);
        let read = MutexGuard::unlocked(state, || self.read(&stream, &mut buffer, unsent, limits));
        match read {
            Ok(0) => self.lose(state, Broken::Ended("the daemon closed the connection".to_owned())),
            Ok(read) => {
                let State { core, followers, .. } = &mut **state;
                let received = core.receive(&buffer[..read], |id| self.wake(followers, id));
                if let Err(broken) = received {
                    self.lose(state, broken);
                }
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::TimedOut) => {}
            Err(e) => self.lose(state, Broken::Ended(format!("reading from the daemon failed ({e})"))),
        }
        state.buffer = buffer;
    }

    /// Waits for bytes, or for room if there are bytes to send, and reads what is there.
    fn read(&self, mut stream: &Stream, buffer: &mut [u8], unsent: bool, limits: Limits) -> io::Result<usize> {
        let left = limits.left();
        let plain = match (self.options.timeout, left) {
            (_, None) => true,
            (Some(socket), Some(left)) => socket <= left + DEADLINE_SLACK,
            (None, Some(_)) => false,
        };
        if plain && !unsent {
            return stream.read(buffer);
        }
        let ready = stream.wait(if unsent { Wanted::Both } else { Wanted::Read }, left)?;
        if ready.read { stream.read_now(buffer) } else { Err(ErrorKind::WouldBlock.into()) }
    }

    /// Waits until there is room in the socket. That there is something to read wakes, too: were the leader to leave
    /// just now, this thread would have to take its place.
    fn wait_for_room(state: &mut MutexGuard<'_, State>, limits: Limits) {
        let Line::Up(stream) = &state.line else { return };
        let stream = Arc::clone(stream);
        MutexGuard::unlocked(state, || match stream.wait(Wanted::Both, limits.left()) {
            Ok(ready) if ready.write => {}
            // Bytes that the leader is about to read.
            _ => std::thread::yield_now(),
        });
    }

    fn follow(&self, state: &mut MutexGuard<'_, State>, id: u64, limits: Limits) {
        *state.followers.entry(id).or_default() += 1;
        match limits.deadline {
            Some(deadline) => {
                self.bed(id).wait_until(state, deadline);
            }
            None => self.bed(id).wait(state),
        }
        if let Entry::Occupied(mut sleepers) = state.followers.entry(id) {
            *sleepers.get_mut() -= 1;
            if *sleepers.get() == 0 {
                sleepers.remove();
            }
        }
    }

    fn bed(&self, id: u64) -> &Condvar {
        &self.beds[id as usize % BEDS]
    }

    fn wake(&self, followers: &BTreeMap<u64, usize>, id: u64) {
        if followers.contains_key(&id) {
            self.bed(id).notify_all();
        }
    }

    fn wake_for_free_places(&self, state: &State) {
        let pusher_missing = !state.has_pusher && state.core.has_unsent() && matches!(state.line, Line::Up(_));
        if (!state.has_leader || pusher_missing)
            && let Some((&id, _)) = state.followers.first_key_value()
        {
            self.bed(id).notify_all();
        }
    }

    /// The connection is of no use any more.
    fn lose(&self, state: &mut State, broken: Broken) {
        self.near.lost();
        if let Line::Up(stream) | Line::Ending(stream) = &state.line {
            // Wakes whoever waits for room on it.
            stream.shutdown();
        }
        state.line = Line::Down(None);
        let State { core, followers, .. } = state;
        core.connection_lost(&broken.why(), |id| self.wake(followers, id));
        if let Broken::ForGood(error) = broken {
            core.fail_all(&error, |id| self.wake(followers, id));
        }
    }

    /// Tries to connect until it succeeds or the time for it is up: for good, or only this caller's.
    fn reconnect(&self, state: &mut MutexGuard<'_, State>, limits: Limits) {
        let Line::Down(give_up) = &mut state.line else { return };
        let give_up = *give_up.get_or_insert_with(|| Instant::now() + self.options.reconnect_for);
        let tried = MutexGuard::unlocked(state, || {
            establish_again(&self.name, self.client, give_up, limits.deadline, &|| true)
        });
        let tried = tried.and_then(|connected| match connected.stream.set_read_timeout(self.options.timeout) {
            Ok(()) => Ok(connected),
            Err(e) => Err(NotConnected { error: unreachable(&e), may_pass: true }),
        });
        match tried {
            Ok(Connected { stream, version, boot, table_nonce }) => {
                if self.boot.swap(boot, Ordering::AcqRel) != boot {
                    self.restarts.fetch_add(1, Ordering::AcqRel);
                }
                let stream = Arc::new(stream);
                self.near.connected(&self.name, table_nonce, &stream);
                state.line = Line::Up(stream);
                let State { core, followers, .. } = &mut **state;
                core.connected(version, boot, |id| self.wake(followers, id));
            }
            Err(NotConnected { may_pass: true, .. }) if Instant::now() < give_up => {}
            Err(refused) => {
                state.line = Line::Down(None);
                let error = in_words(&self.name, refused.error);
                let State { core, followers, .. } = &mut **state;
                core.fail_all(&error, |id| self.wake(followers, id));
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let own = self.is_own();
        if let Line::Up(stream) | Line::Ending(stream) = &self.state.get_mut().line
            && own
        {
            // A child that was forked may hold the socket open: closing it would not tell the daemon.
            stream.shutdown();
        }
    }
}
