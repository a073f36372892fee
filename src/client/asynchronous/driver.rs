//! The drivers: tasks that do for an async client what has to be waited for. A driver reads for all, sends what there was no
//! room for and what may leave together, wakes those whose time is up, and makes a lost connection again.
//!
//! It is spawned on the runtime of a caller that finds none to rely on: none on its own runtime, and none on one that has
//! threads of its own. A runtime of the current thread runs only while somebody blocks on it, so its driver serves all who
//! wait while it runs, and is never counted on by callers elsewhere. So there may be several; whoever finds bytes first
//! takes them, and what they do, they do to the line they have found, under the lock. A driver ends with its runtime, and
//! those who wait elsewhere are woken to find another; or with the last clone of the client.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, Waker};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::runtime::{self, Handle, RuntimeFlavor};
use tokio::sync::Notify;

use super::ConnectOptions;
use super::session::waiting_allowed;
use super::sleepers::{Sleepers, Woken, now};
use crate::client::connect::{Connected, LAST_TRY, NotConnected, PAUSE, establish, in_words};
use crate::client::core::{Broken, Core, GivenUp};
use crate::client::near::Near;
use crate::client::process::Process;
use crate::ipc::{AsyncStream, SocketName, Stream};

/// Bytes read at once.
const READ_BUFFER_BYTES: usize = 128 * 1024;

/// One connection at a time, and the requests on it. Shared with the driver.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) options: ConnectOptions,
    /// The process that may use it.
    pub(super) process: Process,
    /// The directory stays open: a connection is always made again to the same store, whatever becomes of the path.
    pub(super) name: Arc<SocketName>,
    pub(super) client: u128,
    pub(super) near: Near,
    pub(super) state: Mutex<State>,
    pub(super) boot: AtomicU64,
    pub(super) restarts: AtomicU64,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) core: Core,
    pub(super) line: Line,
    pub(super) drivers: Drivers,
    pub(super) closed: bool,
    pub(super) sleepers: Sleepers,
    pub(super) pace: Pace,
    /// Where short requests come together to be sent.
    pub(super) together: Vec<u8>,
}

#[derive(Debug)]
pub(super) enum Line {
    Up(Arc<Stream>),
    /// The daemon takes no more bytes. What it has sent before, answers and its reason, is read to the end.
    Ending(Arc<Stream>),
    /// Until when it is tried to make the connection again; none until somebody tries.
    Down(Option<Instant>),
}

/// What is done with a request that may leave together with those that follow at once.
///
/// It stays `Called` no longer than until the first of the drivers that were called has its turn, and each of them sends what
/// there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Pace {
    /// It is sent at once: nothing was, since a driver last looked.
    #[default]
    AtOnce,
    /// The drivers are called to send it, and what has come until then.
    Gather,
    /// They have been called, and will send it.
    Called,
}

/// What the driver does next.
enum Step {
    Serve { stream: Arc<Stream>, unsent: bool },
    Reconnect { give_up: Instant },
    Rest,
    End,
}

/// The drivers that there are.
#[derive(Debug, Default)]
pub(super) struct Drivers(Vec<Arc<Post>>);

/// Where a driver is.
#[derive(Debug)]
pub(super) struct Post {
    runtime: runtime::Id,
    /// Its runtime runs it whether or not somebody blocks on it.
    has_threads: bool,
    /// Tells it that there is something to do.
    bell: Notify,
    /// Tells it that the alarm goes off earlier than it knew.
    clock: Notify,
}

/// Who does for a caller what has to be waited for.
pub(super) enum Help {
    /// Nobody yet: a driver is to be spawned at this post.
    Wanted(Arc<Post>),
    /// A driver on its runtime.
    Here,
    /// One on another runtime, which has threads.
    Elsewhere,
}

impl Drivers {
    /// Who helps a caller on this runtime; if nobody does, there is a post from here on.
    pub(super) fn help(&mut self, runtime: &Handle) -> Help {
        let here = runtime.id();
        if self.0.iter().any(|post| post.runtime == here) {
            return Help::Here;
        }
        if self.0.iter().any(|post| post.has_threads) {
            return Help::Elsewhere;
        }
        let has_threads = !matches!(runtime.runtime_flavor(), RuntimeFlavor::CurrentThread);
        let (bell, clock) = (Notify::new(), Notify::new());
        let post = Arc::new(Post { runtime: here, has_threads, bell, clock });
        self.0.push(Arc::clone(&post));
        Help::Wanted(post)
    }

    pub(super) fn are_there(&self) -> bool {
        !self.0.is_empty()
    }

    /// Tells all of them that there is something to do: which of them runs is not known.
    pub(super) fn ring(&self) {
        self.0.iter().for_each(|post| post.bell.notify_one());
    }

    /// Tells all of them that the alarm goes off earlier.
    fn set_clocks(&self) {
        self.0.iter().for_each(|post| post.clock.notify_one());
    }
}

impl Line {
    /// Whether this is the connection.
    fn is(&self, stream: &Arc<Stream>) -> bool {
        matches!(self, Self::Up(own) | Self::Ending(own) if Arc::ptr_eq(own, stream))
    }
}

/// What a driver has read.
enum Read {
    /// Bytes; whether there may be more right now, and how many requests they have settled.
    Some { more: bool, settled: usize },
    /// Nothing more will come of this connection.
    Over,
}

impl State {
    /// Sends what there is room for; calls the drivers for what there is not. Never waits.
    pub(super) fn push(&mut self) -> Woken {
        let mut woken = Woken::default();
        while let Line::Up(stream) = &self.line {
            let bytes = self.core.to_send(&mut self.together);
            if bytes.is_empty() {
                return woken;
            }
            match stream.write_now(bytes) {
                Ok(written) => {
                    let Self { core, sleepers, .. } = self;
                    core.sent(written, |id| woken.add(sleepers, id));
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    stream.end_writing();
                    self.line = Line::Ending(Arc::clone(stream));
                }
            }
        }
        if self.core.has_unsent() {
            self.drivers.ring();
        }
        woken
    }

    /// Sends what there is room for, or has a driver send it: after one request, those that follow at once leave together.
    pub(super) fn push_soon(&mut self) -> Woken {
        if self.pace == Pace::AtOnce || !self.drivers.are_there() {
            self.pace = Pace::Gather;
            return self.push();
        }
        if self.pace == Pace::Gather {
            self.pace = Pace::Called;
            self.drivers.ring();
        }
        Woken::default()
    }

    /// Has this waker woken when the request is settled, and at this time; answers the one that was to be woken before.
    pub(super) fn sleep(&mut self, id: u64, waker: Waker, deadline: Option<Instant>) -> Option<Waker> {
        if deadline.is_some_and(|deadline| self.sleepers.is_first(deadline)) {
            self.drivers.set_clocks();
        }
        self.sleepers.add(id, waker, deadline)
    }

    fn lose(&mut self, broken: &Broken, woken: &mut Woken) {
        if let Line::Up(stream) | Line::Ending(stream) = &self.line {
            stream.shutdown();
        }
        self.line = Line::Down(None);
        let Self { core, sleepers, .. } = self;
        core.connection_lost(&broken.why(), |id| woken.add(sleepers, id));
        if let Broken::ForGood(error) = broken {
            core.fail_all(error, |id| woken.add(sleepers, id));
        }
    }
}

impl Wire {
    pub(super) fn give_up(&self, id: u64, cancel: bool) -> GivenUp {
        let mut state = self.state.lock();
        let sleeper = state.sleepers.remove(id);
        let how = state.core.give_up(id, cancel);
        let woken = state.push();
        drop(state);
        drop(sleeper);
        woken.wake();
        how
    }

    /// Wakes those whose time is up, and answers when the alarm goes off next.
    fn wake_late(&self) -> Option<Instant> {
        let (late, next) = self.state.lock().sleepers.take_late(now());
        late.wake();
        next
    }

    fn next_step(&self) -> Step {
        let mut state = self.state.lock();
        if state.closed {
            return Step::End;
        }
        let unsent = state.core.has_unsent();
        if !unsent {
            state.pace = Pace::AtOnce;
        }
        let State { core, line, .. } = &mut *state;
        match line {
            Line::Up(stream) => Step::Serve { stream: Arc::clone(stream), unsent },
            Line::Ending(stream) => Step::Serve { stream: Arc::clone(stream), unsent: false },
            Line::Down(give_up) if unsent || core.wants_connection() => {
                let give_up = give_up.get_or_insert_with(|| Instant::now() + self.options.reconnect_for);
                Step::Reconnect { give_up: *give_up }
            }
            Line::Down(give_up) => {
                *give_up = None;
                Step::Rest
            }
        }
    }

    /// Reads once from a connection, and settles what the bytes settle. Both are one step under the lock: with several
    /// drivers, bytes that were read first must be taken first.
    fn read(&self, stream: &Arc<Stream>, buffer: &mut [u8]) -> std::io::Result<Read> {
        let mut woken = Woken::default();
        let mut state = self.state.lock();
        if !state.line.is(stream) {
            return Ok(Read::Over);
        }
        let read = match stream.read_now(buffer) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return Err(error),
            Err(error) => Err(Broken::Ended(format!("reading from the daemon failed ({error})"))),
            Ok(0) => Err(Broken::Ended("the daemon closed the connection".to_owned())),
            Ok(read) => {
                let State { core, sleepers, .. } = &mut *state;
                core.receive(&buffer[..read], |id| woken.add(sleepers, id)).map(|()| read)
            }
        };
        let read = match read {
            Ok(read) => {
                let settled = woken.count();
                // Several who go on now ask for their next together; see `serve`.
                state.pace = if settled > 1 { Pace::Gather } else { Pace::AtOnce };
                Read::Some { more: read == buffer.len(), settled }
            }
            Err(broken) => {
                self.near.lost();
                state.lose(&broken, &mut woken);
                Read::Over
            }
        };
        drop(state);
        woken.wake();
        Ok(read)
    }

    /// This connection is of no use any more, if it is the one that there is.
    fn lose(&self, stream: &Arc<Stream>, broken: &Broken) {
        let mut woken = Woken::default();
        let mut state = self.state.lock();
        if state.line.is(stream) {
            self.near.lost();
            state.lose(broken, &mut woken);
        }
        drop(state);
        woken.wake();
    }

    /// Tries to connect once, and settles what cannot be sent any more; answers whether to try again.
    async fn try_again(self: &Arc<Self>, give_up: Instant) -> bool {
        let wire = Arc::clone(self);
        let last_try = give_up.max(Instant::now() + LAST_TRY);
        let Ok(tried) = waiting_allowed(move || establish(&wire.name, wire.client, Some(last_try))).await else {
            return false; // The runtime is ending, and this task with it.
        };
        let mut woken = Woken::default();
        let mut state = self.state.lock();
        if !matches!(state.line, Line::Down(_)) {
            return false; // Another driver was faster.
        }
        match tried {
            Ok(Connected { stream, version, boot, table_nonce }) => {
                if self.boot.swap(boot, Ordering::AcqRel) != boot {
                    self.restarts.fetch_add(1, Ordering::AcqRel);
                }
                let stream = Arc::new(stream);
                self.near.connected(&self.name, table_nonce, &stream);
                state.line = Line::Up(stream);
                let State { core, sleepers, .. } = &mut *state;
                core.connected(version, boot, |id| woken.add(sleepers, id));
            }
            Err(NotConnected { may_pass: true, .. }) if Instant::now() < give_up => return true,
            Err(refused) => {
                state.line = Line::Down(None);
                let error = in_words(&self.name, refused.error);
                let State { core, sleepers, .. } = &mut *state;
                core.fail_all(&error, |id| woken.add(sleepers, id));
            }
        }
        drop(state);
        woken.wake();
        false
    }
}

pub(super) async fn drive(driver: Driver) {
    let Driver { wire, post } = &driver;
    tokio::select! {
        () = work(wire, post) => {}
        () = keep_time(wire, post) => {}
    }
}

/// Wakes those whose time is up, and never ends.
async fn keep_time(wire: &Wire, post: &Post) {
    loop {
        let Some(next) = wire.wake_late() else {
            post.clock.notified().await;
            continue;
        };
        tokio::select! {
            () = tokio::time::sleep_until(next.into()) => {}
            () = post.clock.notified() => {}
        }
    }
}

async fn work(wire: &Arc<Wire>, post: &Post) {
    let mut buffer = vec![0; READ_BUFFER_BYTES];
    let mut registered: Option<(Arc<Stream>, AsyncStream)> = None;
    let mut pause = PAUSE.0;
    loop {
        match wire.next_step() {
            Step::End => return,
            Step::Rest => {
                registered = None;
                post.bell.notified().await;
            }
            Step::Reconnect { give_up } => {
                registered = None;
                if wire.try_again(give_up).await {
                    tokio::time::sleep(pause.min(give_up.saturating_duration_since(Instant::now()))).await;
                    pause = (pause * 2).min(PAUSE.1);
                }
            }
            Step::Serve { stream, unsent } => {
                pause = PAUSE.0;
                let known = registered.take_if(|(known, _)| Arc::ptr_eq(known, &stream));
                let known = match known {
                    Some(known) => Ok(known),
                    None => AsyncStream::new(Arc::clone(&stream)).map(|line| (Arc::clone(&stream), line)),
                };
                match known {
                    Ok(known) => {
                        let (stream, line) = &*registered.insert(known);
                        serve(wire, post, stream, line, unsent, &mut buffer).await;
                    }
                    Err(e) => wire.lose(&stream, &Broken::Ended(format!("the runtime refused the connection ({e})"))),
                }
            }
        }
    }
}

/// Waits for bytes, for room if there are bytes to send, or to be called.
async fn serve(wire: &Wire, post: &Post, stream: &Arc<Stream>, line: &AsyncStream, unsent: bool, buffer: &mut [u8]) {
    let room = || {
        let mut state = wire.state.lock();
        state.pace = Pace::AtOnce;
        let woken = state.push();
        let done = !state.core.has_unsent() || !matches!(state.line, Line::Up(_));
        drop(state);
        woken.wake();
        Ok(done)
    };
    let mut settled = 0;
    let read = |_: &Stream| {
        wire.read(stream, buffer).map(|read| match read {
            Read::Some { more, settled: some } => {
                settled = some;
                (1, more)
            }
            Read::Over => (0, false),
        })
    };
    let called = tokio::select! {
        read = line.read_with(read) => {
            if let Err(e) = read {
                wire.lose(stream, &Broken::Ended(format!("reading from the daemon failed ({e})")));
            }
            false
        }
        // What goes wrong there shows in the line's state.
        _ = line.write_with(room), if unsent => false,
        () = post.bell.notified() => true,
    };
    if called || settled > 1 {
        behind_others().await;
    }
}

/// Lets all tasks run that are ready, so that what they ask for leaves together. A task that is woken by another one would be
/// the next to run on a runtime with threads, and would send the requests of a crowd one by one.
async fn behind_others() {
    let mut has_waited = false;
    poll_fn(|context| {
        if std::mem::replace(&mut has_waited, true) {
            return Poll::Ready(());
        }
        // A task that wakes itself goes to the end of its queue, from where any thread may take it.
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Held by the driver's task, wherever it ends: those who wait then look for another.
pub(super) struct Driver {
    wire: Arc<Wire>,
    post: Arc<Post>,
}

impl Driver {
    pub(super) fn new(wire: Arc<Wire>, post: Arc<Post>) -> Self {
        Self { wire, post }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if !self.wire.process.is_this() {
            // A forked child that ends a runtime of its parent's: the lock may be held for ever, and who sleeps is there.
            return;
        }
        let mut state = self.wire.state.lock();
        state.drivers.0.retain(|post| !Arc::ptr_eq(post, &self.post));
        let woken = state.sleepers.take_all();
        drop(state);
        woken.wake();
    }
}
