//! The driver: moves the core's bytes, with one task and with whoever calls.
//!
//! A caller encodes its request, sends what there is room for, and sleeps until its request is settled. The task, the
//! *driver*, does what has to be waited for: it reads for all, sends what there was no room for, and makes a lost
//! connection again. It is spawned by whoever needs it and finds none, on that caller's runtime; when a runtime ends, and
//! the driver with it, those who wait on another one are woken and spawn the next. It ends with the last clone of the
//! client.
//!
//! Dropping a future gives its request up, which the core does at once and whole: a request that was not sent is not
//! sent, one that was is cancelled, and its answer, should it come, is dropped.

use std::collections::HashMap;
use std::future::Future;
use std::io::ErrorKind;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use commonhold_proto::Verb;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::Sleep;

use super::{ConnectOptions, Error, OpenOptions};
use crate::client::connect::{self, First, LAST_TRY, NotConnected, PAUSE, establish, in_words};
use crate::client::core::{Broken, Core, Reply};
use crate::client::identity::random_client_id;
use crate::client::launch;
use crate::client::limits::{Limits, deadline_ms};
use crate::ipc::{AsyncStream, SocketName, Stream};

/// Bytes read at once.
const READ_BUFFER_BYTES: usize = 128 * 1024;

/// What the clones of a client share. Dropping it ends the connection, and the driver.
#[derive(Debug)]
pub(super) struct Session {
    wire: Arc<Wire>,
    /// What a forked child of this process uses instead; see `blocking/session.rs`.
    in_child: OnceLock<Arc<Session>>,
}

/// One connection at a time, and the requests on it. Shared with the driver.
#[derive(Debug)]
struct Wire {
    options: ConnectOptions,
    /// The process that may use it.
    pid: u32,
    /// The directory stays open: a connection is always made again to the same store, whatever becomes of the path.
    name: Arc<SocketName>,
    client: u128,
    state: Mutex<State>,
    /// Tells the driver that there is something to do.
    bell: Notify,
    boot: AtomicU64,
    restarts: AtomicU64,
}

#[derive(Debug)]
struct State {
    core: Core,
    line: Line,
    has_driver: bool,
    closed: bool,
    /// Who waits for which request.
    sleepers: HashMap<u64, Waker>,
}

#[derive(Debug)]
enum Line {
    Up(Arc<Stream>),
    /// The daemon takes no more bytes. What it has sent before, answers and its reason, is read to the end.
    Ending(Arc<Stream>),
    /// Until when it is tried to make the connection again; none until somebody tries.
    Down(Option<Instant>),
}

/// What the driver does next.
enum Step {
    Serve { stream: Arc<Stream>, unsent: bool },
    Reconnect { give_up: Instant },
    Rest,
    End,
}

impl Session {
    pub(super) async fn connect(dir: &Path, options: ConnectOptions) -> Result<Self, Error> {
        let (dir, timeout) = (dir.to_owned(), options.timeout);
        Ok(Self::begun(waiting_allowed(move || connect::first(&dir, timeout)).await??, options))
    }

    pub(super) async fn open(dir: &Path, options: OpenOptions) -> Result<Self, Error> {
        let dir = dir.to_owned();
        let opened = waiting_allowed(move || launch::open(&dir, &options).map(|first| (first, options)));
        let (first, options) = opened.await??;
        Ok(Self::begun(first, options.into_connect()))
    }

    fn begun(first: First, options: ConnectOptions) -> Self {
        let line = Line::Up(Arc::new(first.stream));
        Self::over(Arc::new(first.name), options, first.client, line, first.boot)
    }

    fn over(name: Arc<SocketName>, options: ConnectOptions, client: u128, line: Line, boot: u64) -> Self {
        let core = Core::new(client);
        let state = State { core, line, has_driver: false, closed: false, sleepers: HashMap::new() };
        let wire = Wire {
            options,
            pid: std::process::id(),
            name,
            client,
            state: Mutex::new(state),
            bell: Notify::new(),
            boot: AtomicU64::new(boot),
            restarts: AtomicU64::new(0),
        };
        Self { wire: Arc::new(wire), in_child: OnceLock::new() }
    }

    /// The session that this process may use: this one, or after a fork one of the child's own.
    pub(super) fn of_this_process(self: &Arc<Self>) -> &Arc<Self> {
        let mut session = self;
        while !session.is_own() {
            session = session.in_child.get_or_init(|| {
                let wire = &session.wire;
                let (name, boot) = (Arc::clone(&wire.name), wire.boot.load(Ordering::Acquire));
                Arc::new(Self::over(name, wire.options.clone(), random_client_id(), Line::Down(None), boot))
            });
        }
        session
    }

    fn is_own(&self) -> bool {
        self.wire.pid == std::process::id()
    }

    pub(super) fn options(&self) -> &ConnectOptions {
        &self.wire.options
    }

    pub(super) fn boot(&self) -> u64 {
        self.wire.boot.load(Ordering::Acquire)
    }

    pub(super) fn restarts(&self) -> u64 {
        self.wire.restarts.load(Ordering::Acquire)
    }

    /// Queues a request behind those before it, and sends what there is room for.
    pub(super) fn begin(self: &Arc<Self>, verb: Verb<'_>, timeout: Option<Duration>) -> Result<Answering, Error> {
        let limits = Limits::starting_now(timeout);
        let mut state = self.wire.state.lock();
        let id = state.core.begin(deadline_ms(timeout), verb)?;
        let woken = self.wire.push(&mut state);
        drop(state);
        woken.wake();
        let session = Arc::clone(self);
        Ok(Answering { session, id: Some(id), limits, sleep: None, cancel: true })
    }

    /// A connection beside this session's, on which this verb has been sent.
    pub(super) async fn open_stream(&self, verb: Verb<'_>) -> Result<Stream, Error> {
        let Wire { name, client, options, .. } = &*self.wire;
        let frame = connect::ask_for_stream(options, verb)?;
        let (name, client, options) = (Arc::clone(name), *client, options.clone());
        waiting_allowed(move || connect::open_stream(&name, client, &options, &frame)).await?
    }

    /// What ended such a connection before its stream was whole.
    pub(super) fn broke_off(&self, reason: &str) -> Error {
        connect::broke_off(&self.wire.name, reason)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // In a forked child, the parent's lock may be held for ever and its connection is not to be touched.
        if self.is_own() {
            let mut state = self.wire.state.lock();
            state.closed = true;
            if let Line::Up(stream) | Line::Ending(stream) = &state.line {
                stream.shutdown();
            }
            drop(state);
            self.wire.bell.notify_one();
        }
    }
}

/// The answer to come of a request that was begun. It is given up when this is dropped before.
#[derive(Debug)]
pub(super) struct Answering {
    session: Arc<Session>,
    /// None when it has been answered or given up.
    id: Option<u64>,
    limits: Limits,
    sleep: Option<Pin<Box<Sleep>>>,
    /// Whether giving it up cancels it, too.
    cancel: bool,
}

impl Answering {
    /// Being dropped, it does not keep the daemon from doing what was asked.
    pub(super) fn without_cancel(mut self) -> Self {
        self.cancel = false;
        self
    }

    /// Waits until all bytes of the request were sent: how a caller with many requests in flight keeps to the pace of
    /// the daemon.
    pub(super) async fn sent(&mut self) -> Result<(), Error> {
        std::future::poll_fn(|context| match self.id {
            Some(id) => self.poll_for(context, |core| core.is_sent(id).then_some(())),
            None => Poll::Ready(Ok(())),
        })
        .await
    }

    /// Ready when `done` finds it so, or when the time is up.
    fn poll_for<T>(
        &mut self,
        context: &mut Context<'_>,
        done: impl FnOnce(&mut Core) -> Option<T>,
    ) -> Poll<Result<T, Error>> {
        let id = self.id.expect("a request that was answered is not asked for again");
        if !self.session.is_own() {
            self.id = None;
            return Poll::Ready(Err(Error::Forked));
        }
        let wire = &self.session.wire;
        let mut state = wire.state.lock();
        if let Some(done) = done(&mut state.core) {
            let sleeper = state.sleepers.remove(&id);
            drop(state);
            drop(sleeper); // Outside the lock: the last reference to a task may go with it, and its futures with that.
            return Poll::Ready(Ok(done));
        }
        let before = state.sleepers.insert(id, context.waker().clone());
        // Before the flag is set: outside a runtime this panics, and nobody would ever drive the connection.
        let runtime = Handle::current();
        let needs_driver = !std::mem::replace(&mut state.has_driver, true);
        drop(state);
        drop(before);
        if needs_driver {
            // Spawned outside the lock: a runtime that is ending drops the task at once, which takes the lock.
            runtime.spawn(drive(Driver(Arc::clone(wire))));
        }
        let Some(deadline) = self.limits.deadline else { return Poll::Pending };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.into())));
        match sleep.as_mut().poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => {
                self.id = None;
                let how = wire.give_up(id, true);
                Poll::Ready(Err(self.limits.given_up(how)))
            }
        }
    }
}

impl Future for Answering {
    type Output = Result<Reply, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let id = self.id.expect("a future that was ready is not polled again");
        let polled = self.poll_for(context, |core| core.take(id));
        if polled.is_ready() {
            self.id = None;
        }
        polled.map(|outcome| outcome.and_then(|outcome| outcome))
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if let Some(id) = self.id.take()
            && self.session.is_own()
        {
            self.session.wire.give_up(id, self.cancel);
        }
    }
}

/// Who is to be woken when the lock is free again.
#[must_use]
#[derive(Default)]
struct Woken(Vec<Waker>);

impl Woken {
    fn add(&mut self, sleepers: &mut HashMap<u64, Waker>, id: u64) {
        self.0.extend(sleepers.remove(&id));
    }

    fn wake(self) {
        self.0.into_iter().for_each(Waker::wake);
    }
}

impl Wire {
    fn give_up(&self, id: u64, cancel: bool) -> crate::client::core::GivenUp {
        let mut state = self.state.lock();
        let sleeper = state.sleepers.remove(&id);
        let how = state.core.give_up(id, cancel);
        let woken = self.push(&mut state);
        drop(state);
        drop(sleeper);
        woken.wake();
        how
    }

    /// Sends what there is room for; calls the driver for what there is not. Never waits.
    fn push(&self, state: &mut State) -> Woken {
        let mut woken = Woken::default();
        while let Line::Up(stream) = &state.line {
            let bytes = state.core.to_send();
            if bytes.is_empty() {
                return woken;
            }
            match stream.write_now(bytes) {
                Ok(written) => {
                    if let Some(id) = state.core.sent(written) {
                        woken.add(&mut state.sleepers, id);
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    stream.end_writing();
                    state.line = Line::Ending(Arc::clone(stream));
                }
            }
        }
        if state.core.has_unsent() {
            self.bell.notify_one();
        }
        woken
    }

    fn next_step(&self) -> Step {
        let mut state = self.state.lock();
        if state.closed {
            return Step::End;
        }
        let unsent = state.core.has_unsent();
        match &mut state.line {
            Line::Up(stream) => Step::Serve { stream: Arc::clone(stream), unsent },
            Line::Ending(stream) => Step::Serve { stream: Arc::clone(stream), unsent: false },
            Line::Down(give_up) if unsent => {
                let give_up = give_up.get_or_insert_with(|| Instant::now() + self.options.reconnect_for);
                Step::Reconnect { give_up: *give_up }
            }
            Line::Down(give_up) => {
                *give_up = None;
                Step::Rest
            }
        }
    }

    fn receive(&self, bytes: &[u8]) {
        let mut woken = Woken::default();
        let mut state = self.state.lock();
        let State { core, sleepers, .. } = &mut *state;
        let received = core.receive(bytes, |id| woken.add(sleepers, id));
        drop(state);
        woken.wake();
        if let Err(broken) = received {
            self.lose(&broken);
        }
    }

    /// The connection is of no use any more.
    fn lose(&self, broken: &Broken) {
        let mut woken = Woken::default();
        let mut state = self.state.lock();
        if let Line::Up(stream) | Line::Ending(stream) = &state.line {
            stream.shutdown();
        }
        state.line = Line::Down(None);
        let State { core, sleepers, .. } = &mut *state;
        core.connection_lost(&broken.why(), |id| woken.add(sleepers, id));
        if let Broken::ForGood(error) = broken {
            core.fail_all(error, |id| woken.add(sleepers, id));
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
        match tried {
            Ok((stream, boot)) => {
                if self.boot.swap(boot, Ordering::AcqRel) != boot {
                    self.restarts.fetch_add(1, Ordering::AcqRel);
                }
                state.line = Line::Up(Arc::new(stream));
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

/// Held by the driver's task, wherever it ends: those who wait then look for another.
struct Driver(Arc<Wire>);

impl Drop for Driver {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.has_driver = false;
        let woken = Woken(state.sleepers.drain().map(|(_, waker)| waker).collect());
        drop(state);
        woken.wake();
    }
}

async fn drive(driver: Driver) {
    let wire = &driver.0;
    let mut buffer = vec![0; READ_BUFFER_BYTES];
    let mut registered: Option<(Arc<Stream>, AsyncStream)> = None;
    let mut pause = PAUSE.0;
    loop {
        match wire.next_step() {
            Step::End => return,
            Step::Rest => {
                registered = None;
                wire.bell.notified().await;
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
                    None => AsyncStream::new(Arc::clone(&stream)).map(|line| (stream, line)),
                };
                match known {
                    Ok(known) => serve(wire, &registered.insert(known).1, unsent, &mut buffer).await,
                    Err(e) => wire.lose(&Broken::Ended(format!("the runtime refused the connection ({e})"))),
                }
            }
        }
    }
}

/// Waits for bytes, for room if there are bytes to send, or to be called.
async fn serve(wire: &Wire, line: &AsyncStream, unsent: bool, buffer: &mut [u8]) {
    let full = buffer.len();
    let room = || {
        let mut state = wire.state.lock();
        let woken = wire.push(&mut state);
        let done = !state.core.has_unsent() || !matches!(state.line, Line::Up(_));
        drop(state);
        woken.wake();
        Ok(done)
    };
    tokio::select! {
        read = line.read_with(|stream| stream.read_now(buffer).map(|read| (read, read == full))) => match read {
            Ok(0) => wire.lose(&Broken::Ended("the daemon closed the connection".to_owned())),
            Ok(read) => wire.receive(&buffer[..read]),
            Err(e) => wire.lose(&Broken::Ended(format!("reading from the daemon failed ({e})"))),
        },
        // What goes wrong there shows in the line's state.
        _ = line.write_with(room), if unsent => {}
        () = wire.bell.notified() => {}
    }
}

/// Runs what waits on a thread where that is allowed.
pub(super) async fn waiting_allowed<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    let ended = |_| Error::Unreachable { reason: "the runtime that this was called on is ending".to_owned() };
    spawn_blocking(work).await.map_err(ended)
}
