//! What `commonhold serve` can be told.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::engine::StoreOptions;
use crate::proto::Place;

/// How a store is served. [`ServeOptions::new`] gives what is right for most.
#[derive(Clone)]
pub struct ServeOptions {
    /// The store's directory; it must exist.
    pub dir: PathBuf,
    /// How the engine keeps it: durability, file format, kept generations, flush lock time-out.
    pub store: StoreOptions,
    /// Namespaces that are loaded at the start instead of at their first use.
    pub preload: Preload,
    /// Serve even on a file system that is shared over a network, where locks and syncs may promise less.
    pub allow_network_fs: bool,
    /// A client that has not taken a single byte for so long, while there are answers for it, is disconnected.
    pub stall_timeout: Duration,
    /// So many sessions have a thread each, which answers fastest; all further ones share a few.
    pub thread_sessions: usize,
    /// End, as when told to stop, when no session has been open for so long.
    pub idle_exit: Option<Duration>,
    /// Other users who may connect, at a socket of their own (`.commonhold-shared/socket`).
    pub allow_uids: Vec<u32>,
    /// What becomes of the daemon when the disk has ended all writing.
    pub on_disk_failure: OnDiskFailure,
    /// Called once, with the canonical directory, when clients can connect.
    pub on_ready: Option<OnReady>,
    /// Of this start.
    pub(super) gate: Gate,
}

/// Which came first: that clients are served, or that the start was given up. Never both.
#[derive(Clone, Debug, Default)]
pub(super) struct Gate(Arc<OnceLock<bool>>);

impl Gate {
    /// Whether clients may be served from now on; not if the start was given up.
    pub(super) fn opens(&self) -> bool {
        *self.0.get_or_init(|| true)
    }

    /// Whether the start can be given up; not if clients may have been answered.
    pub(super) fn gives_up(&self) -> bool {
        !*self.0.get_or_init(|| false)
    }
}

/// What a daemon does that cannot write any more, after it has brought to safety what it can.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDiskFailure {
    /// It goes on serving reads until it is stopped.
    #[default]
    Stay,
    /// It ends.
    Exit,
}

/// What is done when a store is served; it gets the store's canonical directory.
pub type OnReady = Arc<dyn Fn(&Path) + Send + Sync>;

/// Which namespaces are loaded at the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Preload {
    /// Only those with waiting records.
    #[default]
    None,
    /// These.
    These(Vec<Place>),
    /// All that have a file.
    All,
}

impl ServeOptions {
    /// The defaults, for the store in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            store: StoreOptions::default(),
            preload: Preload::None,
            allow_network_fs: false,
            stall_timeout: Duration::from_secs(30),
            thread_sessions: 64,
            idle_exit: None,
            allow_uids: Vec::new(),
            on_disk_failure: OnDiskFailure::Stay,
            on_ready: None,
            gate: Gate::default(),
        }
    }
}

impl fmt::Debug for ServeOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServeOptions")
            .field("dir", &self.dir)
            .field("store", &self.store)
            .field("preload", &self.preload)
            .field("allow_network_fs", &self.allow_network_fs)
            .field("stall_timeout", &self.stall_timeout)
            .field("thread_sessions", &self.thread_sessions)
            .field("idle_exit", &self.idle_exit)
            .field("allow_uids", &self.allow_uids)
            .field("on_disk_failure", &self.on_disk_failure)
            .finish_non_exhaustive()
    }
}
