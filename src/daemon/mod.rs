//! The daemon: owns a store, listens on its socket, and serves each connection as a session.
//!
//! It promises three things beside what the [engine](crate::engine) promises. The requests of one session take effect
//! in the order sent, whatever their answers do. A client that is slow, silent, hostile or gone holds up nobody but
//! itself, in bounded memory. And a clean stop leaves every namespace's file up to date, or says which is not.
//!
//! | file | what it is for |
//! |---|---|
//! | `run` | one daemon from start to end, with signals: what `commonhold serve` calls |
//! | `running`, `ending` | the same without signals, for whoever has its own idea of when to stop; the threads and their end |
//! | `premises` | is this directory safe to own? |
//! | `accept`, `registry`, `deaths` | who is connected, who gets a thread, who is shown out, who has died |
//! | `session` | one connection without its I/O: frames in, answers out, and what must be done in between |
//! | `on_thread`, `on_task` | the two ways to do that: a blocking thread of its own, a task among many |
//! | `handshake`, `inbox`, `outbox`, `posting`, `replies`, `late` | its bytes: hello, frames in, answers out, answers that come later |
//! | `line`, `aside`, `helpers`, `loader` | requests that a session does not wait for: loads, and what takes long |
//! | `large`, `budget`, `relief` | what all sessions may hold together, and who ends when it is too much |
//! | `dispatch`, `tables` | from a request to its answer, in one synchronous function |
//! | `committer` | the writes of sessions that are tasks |
//! | `later`, `flusher`, `syncer` | the requests that are answered later |
//! | `coordinate`, `coordination`, `refusal`, `holdings` | flags, elections, locks, slots: who has what, who waits, and who is told |
//! | `watches`, `watch_line`, `watch_flow`, `untaken` | who watches, whose turn it is, and what is on its way to whom |
//! | `fault`, `status` | what the engine says, in the words of the wire |
//! | `version_table` | the counts by which clients know that a value they keep is current |
//!
//! The first sessions are served by a blocking thread each. A lone `get` therefore costs one `read`, one look-up and one
//! `write`, and no hand-over to any other thread. All further ones share a tokio runtime of a few threads, which
//! takes no turn, syncs nothing and reads no disk: 10,000 connections cost memory and little else.

mod accept;
mod again;
mod aside;
mod budget;
mod chores;
mod committer;
mod coordinate;
mod coordination;
mod crew;
mod deaths;
mod dispatch;
mod ending;
mod error;
mod fault;
mod flusher;
mod handed;
mod handshake;
mod heap;
mod helpers;
mod holdings;
#[cfg(any(test, feature = "fuzzing"))]
mod hostile;
mod inbox;
mod large;
mod late;
mod later;
mod line;
mod loader;
mod log;
mod on_task;
mod on_thread;
mod options;
mod order;
mod outbox;
mod posting;
mod preload;
mod premises;
mod refusal;
mod registry;
mod relief;
mod replies;
mod run;
mod running;
mod session;
mod status;
mod sync;
mod syncer;
mod tables;
mod untaken;
mod version_table;
mod watch_flow;
mod watch_line;
mod watches;

pub use error::Error;
pub(crate) use fault::with_causes;
pub use heap::use_one_heap;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use hostile::{end_held, frames_in_pieces};
pub use log::{LogFormat, install_panic_hook, set_up_logging};
pub use options::{OnDiskFailure, OnReady, Preload, ServeOptions};
pub(crate) use premises::check_owner;
pub use run::{Shutdown, Stopper, run};
pub use running::{Daemon, Running};
