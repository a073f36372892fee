//! A daemon that serves: its threads, and how they end.
//!
//! | thread | what it does | ends when |
//! |---|---|---|
//! | accept | takes connections, at each of one or two sockets | the listener is woken |
//! | session (one each) | serves one of the first connections | its stream ends |
//! | late-answers | what such a session's client did not take at once | it has left, or the session is over |
//! | runtime | serves all further connections | the daemon ends |
//! | commit, commit-sync | the writes of those, and what a session that commits has left undone | the daemon ends |
//! | load, aside | what a session does not wait for itself: a load, and what waited for it | the daemon ends |
//! | flush, sync | the requests that are answered later | nothing is asked any more |
//! | watch | tells watchers | the daemon ends |
//! | tick | every second the engine's chores | the daemon ends |
//! | preload | loads namespaces at the start | they are loaded |

use std::fmt;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::{Condvar, Mutex, RwLock};
use rustix::process::{Resource, getrlimit};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::engine::{self, Store, Surroundings, WriteRequest, Written};
use crate::ipc::{Listener, own_uid};
use crate::proto::limits::{MAX_QUEUED_BYTES, MAX_WAITING_BYTES};
use crate::proto::{Kind, Place};

use super::budget::Budget;
use super::chores::Chores;
use super::committer::{self, Committer};
use super::coordination::Coordination;
use super::crew::Crew;
use super::deaths::Deaths;
use super::flusher::Flusher;
use super::handshake::Host;
use super::heap::GiveBack;
use super::helpers::Helpers;
use super::large::LargeFrames;
use super::late::LateAnswer;
use super::loader::Loader;
use super::options::{Preload, ServeOptions};
use super::registry::Sessions;
use super::relief::{Bell, SlowClients};
use super::syncer::Syncer;
use super::version_table::VersionTable;
use super::watches::Watches;
use super::{Error, premises};

/// How often the engine does its chores.
const TICK: Duration = Duration::from_secs(1);

/// Descriptors that connections leave to the journal, to namespaces' files and to their locks; of fewer than twice as
/// many, half, ...
const OWN_DESCRIPTORS: u64 = 128;

/// ... but not fewer than these.
const LEAST_OWN_DESCRIPTORS: u64 = 32;

/// With a lower limit of open files no daemon starts: it needs its own ones, and connections theirs.
const LEAST_DESCRIPTORS: u64 = 2 * LEAST_OWN_DESCRIPTORS;

/// How long a session waits before it looks again whether clients have taken what is too much.
pub(super) const RELIEF: Duration = Duration::from_millis(10);

/// Most namespaces that are loaded at the same time.
const LOADS: usize = 4;

/// Most threads that carry out what sessions do not wait for themselves.
const ASIDE: usize = 4;

/// Most threads of the runtime: they do nothing that waits.
const RUNTIME_THREADS: usize = 4;

/// What became of each of some writes; none if the daemon is stopping.
pub(super) type Outcomes = Option<Vec<Result<Written, engine::Error>>>;

/// What all threads of a daemon share.
pub struct Daemon {
    pub(super) store: Arc<Store>,
    pub(super) options: ServeOptions,
    pub(super) host: Host,
    pub(super) versions: VersionTable,
    pub(super) started: Instant,
    pub(super) since_unix_ms: u64,
    /// Namespaces that were to be loaded at the start are not loaded yet.
    pub(super) preloading: AtomicBool,
    /// True while writes are taken.
    pub(super) open_gate: AtomicBool,
    /// Held shared by writes that run, so that a stop can wait for them.
    pub(super) gate: RwLock<()>,
    pub(super) syncer: Arc<Syncer>,
    pub(super) flusher: Arc<Flusher>,
    pub(super) large_frames: Arc<LargeFrames>,
    /// Serves the sessions that have no thread of their own, and keeps the time for all.
    pub(super) runtime: Handle,
    pub(super) committer: Committer,
    pub(super) loads: Arc<Helpers>,
    pub(super) loader: Arc<Loader>,
    pub(super) aside: Arc<Helpers>,
    pub(super) watches: Arc<Watches>,
    /// Answers that clients have not taken.
    pub(super) queued: Arc<Budget>,
    /// Wakes the tick when that is too much.
    pub(super) bell: Bell,
    /// Requests that wait to be carried out.
    pub(super) waiting_requests: Arc<Budget>,
    pub(super) sessions: Mutex<Sessions>,
    /// The processes that have connected.
    pub(super) deaths: Deaths,
    /// Who holds what, and who waits for it.
    pub(super) coordination: Coordination,
    /// Held by each connection of a user who may not come in.
    pub(super) strangers: Arc<()>,
    /// A session has ended, or no more are taken.
    pub(super) session_ended: Condvar,
    /// The sessions: their threads, and their tasks.
    pub(super) crew: Crew,
    pub(super) stop_requests: UnboundedSender<Option<LateAnswer>>,
}

/// A daemon in this process, until it is stopped. Dropped without [`stop`](Self::stop) or [`wait`](Self::wait) it ends
/// like a killed one: nothing is flushed, its socket stays behind.
pub struct Running {
    pub(super) daemon: Arc<Daemon>,
    /// The socket, and that for other users if there is one.
    pub(super) listeners: Vec<Arc<Listener>>,
    /// None once it was told to end.
    pub(super) runtime: Option<Runtime>,
    pub(super) stop_requests: UnboundedReceiver<Option<LateAnswer>>,
    pub(super) threads: Vec<JoinHandle<()>>,
    pub(super) ended: bool,
}

impl Daemon {
    /// Checks the directory, opens the store in it, binds its socket and serves.
    ///
    /// # Errors
    /// [`Error`] says what is in the way; then nothing runs and the store is not owned.
    pub fn start(options: ServeOptions) -> Result<Running, Error> {
        Self::start_in(options, Surroundings::real()?)
    }

    /// As [`start`](Self::start), on another disk, other locks or another clock; the directory and the socket in it are
    /// real all the same.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub fn start_in(options: ServeOptions, around: Surroundings) -> Result<Running, Error> {
        let dir = premises::check(&options.dir, options.allow_network_fs)?;
        check_descriptor_limit()?;
        let store = Arc::new(Store::open(&dir, options.store.clone(), around)?);
        // Before anybody can ask: values of the daemon before are void from here on.
        let versions = VersionTable::of(&store, !options.allow_uids.is_empty());
        let mut listeners = vec![Arc::new(Listener::bind(&dir)?)];
        if !options.allow_uids.is_empty() {
            premises::make_shared_directory(&dir)?;
            listeners.push(Arc::new(Listener::bind_shared(&dir)?));
        }
        let allowed = options.allow_uids.clone();
        let (identity, boot, table_nonce) = (store.identity(), store.boot(), versions.nonce());
        let host = Host { identity, boot, table_nonce, owner: own_uid(), allowed };
        let threads = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, RUNTIME_THREADS);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("runtime")
            .enable_io()
            .enable_time()
            .build()
            .map_err(Error::system("start the runtime that serves sessions"))?;
        let loads = Helpers::start("load", LOADS).map_err(Error::system("start a thread"))?;
        let aside = Helpers::start("aside", ASIDE).map_err(Error::system("start a thread"))?;
        let watches = Watches::start(&store).map_err(Error::system("start a thread"))?;
        let loader = Loader::new(Arc::clone(&store), Arc::clone(&loads));
        let syncer = Syncer::new(Arc::clone(&store));
        let flusher = Flusher::new(Arc::clone(&store), Arc::clone(&syncer), options.store.flush_lock_timeout);
        let (stop_sender, stop_requests) = unbounded_channel();
        let large_frames = LargeFrames::new(options.stall_timeout);
        let daemon = Arc::new(Self {
            preloading: AtomicBool::new(options.preload != Preload::None),
            store,
            options,
            host,
            versions,
            started: Instant::now(),
            since_unix_ms: unix_ms(),
            open_gate: AtomicBool::new(true),
            gate: RwLock::new(()),
            syncer,
            flusher,
            large_frames,
            runtime: runtime.handle().clone(),
            committer: Committer::default(),
            loads,
            loader,
            aside,
            watches,
            queued: Budget::new(MAX_QUEUED_BYTES),
            bell: Bell::default(),
            waiting_requests: Budget::new(MAX_WAITING_BYTES),
            sessions: Mutex::new(Sessions::new()),
            deaths: Deaths::default(),
            coordination: Coordination::default(),
            strangers: Arc::default(),
            session_ended: Condvar::new(),
            crew: Crew::default(),
            stop_requests: stop_sender,
        });
        // Weakly, or the store would keep the daemon.
        let woken = Arc::downgrade(&daemon);
        daemon.store.wake_by(move || {
            if let Some(daemon) = woken.upgrade() {
                daemon.bell.call_for_the_journal();
            }
        });
        let settling = Arc::downgrade(&daemon);
        daemon.coordination.settle_by(move |token| {
            if let Some(daemon) = settling.upgrade() {
                daemon.settle_grant(token);
            }
        });
        let mut running = Running {
            daemon: Arc::clone(&daemon),
            listeners: listeners.clone(),
            runtime: Some(runtime),
            stop_requests,
            threads: Vec::new(),
            ended: false,
        };
        let (syncer, ticked, loading) = (Arc::clone(&daemon.syncer), Arc::clone(&daemon), Arc::clone(&daemon));
        running.spawn("sync", move || syncer.run())?;
        running.spawn("tick", move || ticked.tick())?;
        if daemon.options.preload != Preload::None {
            running.spawn("preload", move || loading.preload())?;
        }
        for (name, kind) in [("commit", committer::Kind::Quick), ("commit-sync", committer::Kind::Patient)] {
            let committing = Arc::clone(&daemon);
            running.spawn(name, move || committing.committer.run(&committing, kind))?;
        }
        if !daemon.options.gate.opens() {
            return Err(Error::system("serve, for the start was given up")(ErrorKind::Interrupted.into()));
        }
        for listener in listeners {
            let accepting = Arc::clone(&daemon);
            running.spawn("accept", move || accepting.accept(&listener))?;
        }
        daemon.announce();
        Ok(running)
    }

    fn announce(&self) {
        let (dir, opening) = (self.store.dir(), self.store.opening());
        for place in &opening.recovered {
            tracing::info!(%place, "brought up to date from the journal; its file follows at the next flush");
        }
        if let Some(tail) = &opening.set_aside {
            tracing::warn!(
                segment = %tail.segment.display(),
                offset = tail.offset,
                bytes = tail.bytes,
                "the unsynced end of an interrupted write was set aside"
            );
        }
        for (place, reason) in &opening.closed {
            tracing::error!(%place, reason, "the namespace is closed; the others are served");
        }
        tracing::info!(
            dir = %dir.display(),
            pid = std::process::id(),
            durability = ?self.options.store.durability,
            "serving; clients can connect"
        );
        if let Some(ready) = &self.options.on_ready {
            ready(dir);
        }
    }

    /// Asks for the daemon's end, for a reason that has been logged.
    pub(super) fn ask_for_the_end(&self) {
        // The receiver lives as long as the daemon can be stopped.
        let _ = self.stop_requests.send(None);
    }

    fn tick(&self) {
        let (mut chores, mut slow, mut heap) = (Chores::default(), SlowClients::default(), GiveBack::default());
        let mut due = Instant::now() + self.until_next_tick();
        loop {
            let look = slow.next_look();
            let Some(called) = self.bell.wait(look.map_or(due, |look| look.min(due)), look.is_none()) else { return };
            slow.look(self, called);
            // It has grown, or what was flushed for its sake can go: that does not wait for a second.
            let journal_calls = self.bell.takes_call_for_the_journal();
            if Instant::now() < due {
                if journal_calls {
                    chores.for_the_engine(self);
                }
                continue;
            }
            due = Instant::now() + self.until_next_tick();
            if self.has_been_idle() {
                tracing::info!("no session has been open for as long as it was told to wait: stopping");
                self.ask_for_the_end();
            }
            let forgotten = self.store.forget_blank();
            tracing::trace!(forgotten, "namespaces that were only asked for");
            chores.for_the_engine(self);
            heap.look(self);
        }
    }

    /// The chores' own pace, unless the daemon may have to end sooner.
    fn until_next_tick(&self) -> Duration {
        let idle_exit = self.options.idle_exit.unwrap_or(TICK);
        TICK.min(idle_exit / 2).max(Duration::from_millis(10))
    }

    pub(super) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    pub(super) fn options(&self) -> &ServeOptions {
        &self.options
    }

    pub(super) fn versions(&self) -> &VersionTable {
        &self.versions
    }

    pub(super) fn host(&self) -> &Host {
        &self.host
    }

    pub(super) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn since_unix_ms(&self) -> u64 {
        self.since_unix_ms
    }

    pub(super) fn syncer(&self) -> &Syncer {
        &self.syncer
    }

    pub(super) fn large_frames(&self) -> &Arc<LargeFrames> {
        &self.large_frames
    }

    pub(super) fn flusher(&self) -> &Arc<Flusher> {
        &self.flusher
    }

    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    pub(super) fn committer(&self) -> &Committer {
        &self.committer
    }

    pub(super) fn loader(&self) -> &Arc<Loader> {
        &self.loader
    }

    /// Threads that carry out what sessions do not wait for themselves.
    pub(super) fn helpers(&self) -> &Arc<Helpers> {
        &self.aside
    }

    pub(super) fn coordination(&self) -> &Coordination {
        &self.coordination
    }

    pub(super) fn waiting_requests(&self) -> &Budget {
        &self.waiting_requests
    }

    /// Whether writes are taken: until the daemon begins to stop.
    pub(super) fn takes_writes(&self) -> bool {
        self.open_gate.load(Ordering::Acquire)
    }

    /// Commits one session's consecutive writes, or those of several that wait together; waits for its turn. None if the
    /// daemon is stopping.
    pub(super) fn commit(&self, requests: Vec<WriteRequest>) -> Outcomes {
        // Held shared while writes run: a stop waits for them, and those that come later are refused.
        let _gate = self.gate.read();
        self.takes_writes().then(|| self.store.write(requests))
    }

    /// Drops the records of a namespace; its file goes with the next flush. None if the daemon is stopping.
    pub(super) fn drop_records(
        &self,
        place: &Place,
        kind: Kind,
        numbered: &engine::Numbered,
        fence: &engine::Fence,
    ) -> Option<Result<engine::Dropped, engine::Error>> {
        let _gate = self.gate.read();
        self.takes_writes().then(|| match kind {
            Kind::Persistent => self.store.drop_namespace_once(place, numbered, fence),
            Kind::Volatile => self.store.drop_volatile_once(place, numbered, fence),
        })
    }

    /// Asks for the daemon's end; the answer is given when all is flushed.
    pub(super) fn request_stop(&self, answer: LateAnswer) {
        tracing::info!(session = answer.session(), "a client asks the daemon to stop");
        // When nobody listens any more the daemon is ending already, and the answer, dropped, says so.
        let _ = self.stop_requests.send(Some(answer));
    }
}

impl Running {
    /// The daemon that runs.
    pub fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    /// The store's canonical directory.
    pub fn dir(&self) -> &std::path::Path {
        self.daemon.store.dir()
    }

    /// Stops as SIGTERM does: takes no more connections and writes, finishes what runs, syncs, flushes, ends.
    ///
    /// # Errors
    /// [`Error::FlushFailed`] and [`Error::Unavailable`]: the daemon has ended all the same, and nothing that was
    /// acknowledged is lost but what the disk has lost.
    pub fn stop(mut self) -> Result<(), Error> {
        self.end(&mut Vec::new())
    }

    /// Serves until a client asks for the end, and stops then.
    ///
    /// # Errors
    /// As for [`stop`](Self::stop).
    ///
    /// # Panics
    /// When called on a thread of a tokio runtime.
    pub fn wait(mut self) -> Result<(), Error> {
        let asker = self.stop_requests.blocking_recv();
        self.end(&mut asker.flatten().into_iter().collect())
    }

    /// Completes when a client has asked for the end, with the answer that is owed to it.
    pub(super) async fn stop_requested(&mut self) -> Option<LateAnswer> {
        self.stop_requests.recv().await.flatten()
    }

    fn spawn(&mut self, name: &'static str, work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work);
        self.threads.push(thread.map_err(Error::system("start a thread"))?);
        Ok(())
    }
}

impl fmt::Debug for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Daemon").field("dir", &self.store.dir()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("daemon", &self.daemon).finish_non_exhaustive()
    }
}

/// How many connections leave enough of this process's descriptors for everything else. More wait in the socket's backlog, so
/// that those that are served can go on opening files. Asked for each connection: the limit of a running process may be changed.
pub(super) fn most_sessions() -> usize {
    let limit = descriptor_limit();
    let own = OWN_DESCRIPTORS.min(limit / 2).max(LEAST_OWN_DESCRIPTORS);
    usize::try_from(limit.saturating_sub(own)).unwrap_or(usize::MAX)
}

fn descriptor_limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

fn check_descriptor_limit() -> Result<(), Error> {
    let limit = descriptor_limit();
    if limit >= LEAST_DESCRIPTORS {
        return Ok(());
    }
    Err(Error::TooFewDescriptors { limit, least: LEAST_DESCRIPTORS })
}

pub(super) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
