//! One connection of an async client, and the requests on it.
//!
//! A caller encodes its request, sends what there is room for, and sleeps until its request is settled. What has to be
//! waited for is done by a task, the driver (see [`driver`](super::driver)), which is spawned here by whoever needs one.
//!
//! Dropping a future gives its request up, which the core does at once and whole: a request that was not sent is not
//! sent, one that was is cancelled, and its answer, should it come, is dropped.

use std::collections::HashMap;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use commonhold_proto::Verb;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::Sleep;

use super::driver::{Driver, Drivers, Help, Line, Pace, State, Wire, drive};
use super::sleepers::{Sleepers, has_passed};
use super::{ConnectOptions, Error, OpenOptions};
use crate::client::connect::{self, Connected, First};
use crate::client::core::{Core, Reply};
use crate::client::grants::{LAST_WORD, LATER};
use crate::client::identity::random_client_id;
use crate::client::launch;
use crate::client::limits::{Limits, deadline_ms};
use crate::client::near::Near;
use crate::client::process::Process;
use crate::ipc::{SocketName, Stream};

mod holding;

pub(super) use holding::Registered;

/// What the clones of a client share. Dropping it ends the connection, and the driver.
#[derive(Debug)]
pub(super) struct Session {
    wire: Arc<Wire>,
    /// What a forked child of this process uses instead; see `blocking/session.rs`.
    in_child: OnceLock<Arc<Session>>,
    /// How many connections were lost: the number of the one that there is.
    lost: Arc<AtomicU64>,
    /// The names that tasks elect for, one at a time each.
    turns: Mutex<HashMap<String, Arc<Semaphore>>>,
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
        let Connected { stream, version, boot, table_nonce } = first.connected;
        let stream = Arc::new(stream);
        let line = Line::Up(Arc::clone(&stream));
        let session = Self::over(Arc::new(first.name), options, first.client, line, boot);
        session.near().connected(&session.wire.name, table_nonce, &stream);
        session.wire.state.lock().core.connected(version, boot, |_| {});
        session
    }

    fn over(name: Arc<SocketName>, options: ConnectOptions, client: u128, line: Line, boot: u64) -> Self {
        let mut core = Core::new(client);
        let near = Near::new(options.cache_bytes);
        core.tell_writes(near.own_writes());
        let lost = core.connection_number();
        let state = State {
            core,
            line,
            drivers: Drivers::default(),
            closed: false,
            sleepers: Sleepers::default(),
            pace: Pace::default(),
            together: Vec::new(),
        };
        let wire = Wire {
            options,
            process: Process::this(),
            name,
            client,
            near,
            state: Mutex::new(state),
            boot: AtomicU64::new(boot),
            restarts: AtomicU64::new(0),
        };
        Self { wire: Arc::new(wire), in_child: OnceLock::new(), lost, turns: Mutex::default() }
    }

    /// The session that this process may use: this one, or after a fork one of the child's own.
    pub(super) fn of_this_process(self: &Arc<Self>) -> &Arc<Self> {
        let mut session = self;
        while !session.is_own() {
            session = session.in_child.get_or_init(|| {
                let wire = &session.wire;
                // What was granted on the parent's connection is the parent's.
                session.lost.fetch_add(1, Ordering::AcqRel);
                let (name, boot) = (Arc::clone(&wire.name), wire.boot.load(Ordering::Acquire));
                Arc::new(Self::over(name, wire.options.clone(), random_client_id(), Line::Down(None), boot))
            });
        }
        session
    }

    fn is_own(&self) -> bool {
        self.wire.process.is_this()
    }

    pub(super) fn options(&self) -> &ConnectOptions {
        &self.wire.options
    }

    /// The values that are kept.
    #[inline]
    pub(super) fn near(&self) -> &Near {
        &self.wire.near
    }

    pub(super) fn boot(&self) -> u64 {
        self.wire.boot.load(Ordering::Acquire)
    }

    pub(super) fn restarts(&self) -> u64 {
        self.wire.restarts.load(Ordering::Acquire)
    }

    /// How many connections were lost.
    pub(super) fn lost(&self) -> &Arc<AtomicU64> {
        &self.lost
    }

    /// Queues a request behind those before it, and sends what there is room for.
    pub(super) fn begin(self: &Arc<Self>, verb: Verb<'_>, timeout: Option<Duration>) -> Result<Answering, Error> {
        self.begin_with(Limits::starting_now(timeout), |core| core.begin(deadline_ms(timeout), verb))
    }

    /// Sends a request and waits for its answer. It may leave together with others that are asked for just now.
    pub(super) async fn call(self: &Arc<Self>, verb: Verb<'_>, timeout: Option<Duration>) -> Result<Reply, Error> {
        let limits = Limits::starting_now(timeout);
        let id = {
            let mut state = self.wire.state.lock();
            let id = state.core.begin(deadline_ms(timeout), verb)?;
            let woken = state.push_soon();
            drop(state);
            woken.wake();
            id
        };
        Answering::new(self, id, limits).await
    }

    /// A connection beside this session's, on which this verb has been sent.
    pub(super) async fn open_stream(&self, verb: Verb<'_>) -> Result<Stream, Error> {
        self.open_stream_for(connect::ask_for_stream(&self.wire.options, verb)?).await
    }

    /// The same, with this frame sent.
    pub(super) async fn open_stream_for(&self, frame: Vec<u8>) -> Result<Stream, Error> {
        let Wire { name, client, options, .. } = &*self.wire;
        let (name, client, options) = (Arc::clone(name), *client, options.clone());
        // Goes with this future: the thread that tries does so no longer than its caller, or a runtime could not end.
        let caller = Arc::new(());
        let waits = Arc::downgrade(&caller);
        waiting_allowed(move || connect::open_stream(&name, client, &options, &frame, &|| waits.strong_count() > 0))
            .await?
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
            state.drivers.ring();
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
    /// It has been polled before, so its time may be up by now.
    has_slept: bool,
    /// Where no driver tells it that its time is up.
    sleep: Option<Pin<Box<Sleep>>>,
    /// Whether giving it up cancels it, too.
    cancel: bool,
    /// It waits for something to be free, and has been asked for on this connection: the daemon ends it, a moment later than
    /// the time is up.
    grace: Option<u64>,
}

impl Answering {
    fn new(session: &Arc<Session>, id: u64, limits: Limits) -> Self {
        let (has_slept, sleep, cancel, grace) = (false, None, true, None);
        Self { session: Arc::clone(session), id: Some(id), limits, has_slept, sleep, cancel, grace }
    }

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
            let sleeper = state.sleepers.remove(id);
            drop(state);
            drop(sleeper); // Outside the lock: the last reference to a task may go with it, and its futures with that.
            return Poll::Ready(Ok(done));
        }
        let driver_tells = self.grace.is_none();
        if std::mem::replace(&mut self.has_slept, true) && driver_tells && self.limits.deadline.is_some_and(has_passed)
        {
            drop(state);
            return Poll::Ready(Err(self.late(id)));
        }
        // Before there is a post: outside a runtime this panics, and nobody would ever drive the connection.
        let runtime = Handle::current();
        state.sleepers.check_timers(self.limits.deadline);
        let help = state.drivers.help(&runtime);
        // One on another runtime may be held up there.
        let driver_tells = driver_tells && !matches!(help, Help::Elsewhere);
        let before = state.sleep(id, context.waker().clone(), self.limits.deadline.filter(|_| driver_tells));
        drop(state);
        drop(before);
        if let Help::Wanted(post) = help {
            // Spawned outside the lock: a runtime that is ending drops the task at once, which takes the lock.
            runtime.spawn(drive(Driver::new(Arc::clone(wire), post)));
        }
        let Some(deadline) = self.limits.deadline.filter(|_| !driver_tells) else { return Poll::Pending };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.into())));
        if sleep.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        let later = deadline + LATER + LAST_WORD;
        if let Some(connection) = self.grace
            && Instant::now() < later
            && wire.state.lock().core.waits_on(id, connection)
        {
            sleep.as_mut().reset(later.into());
            if sleep.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
        Poll::Ready(Err(self.late(id)))
    }

    /// Gives the request up because its time is.
    fn late(&mut self, id: u64) -> Error {
        self.id = None;
        let wire = &self.session.wire;
        let waiting_for = self.grace.map(|_| wire.state.lock().core.waits_for(id));
        let how = wire.give_up(id, true);
        match waiting_for {
            Some(waiting_for) => Error::TimedOut { waited: self.limits.began.elapsed(), waiting_for },
            None => self.limits.given_up(how),
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

/// Runs what waits on a thread where that is allowed.
pub(super) async fn waiting_allowed<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    let ended = |_| Error::Unreachable { reason: "the runtime that this was called on is ending".to_owned() };
    spawn_blocking(work).await.map_err(ended)
}
