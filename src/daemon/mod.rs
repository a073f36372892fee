//! The daemon: owns a store, listens on its socket, and serves each connection as a session.
//!
//! It promises three things beside what the [engine](crate::engine) promises. The requests of one session take effect
//! in the order sent, whatever their answers do. A client that is slow, silent, hostile or gone holds up nobody but
//! itself, in bounded memory. And a clean stop leaves every namespace's file up to date, or says which is not.
//!
//! | file | what it is for |
//! |---|---|
//! | `run` | one daemon from start to end, with signals: what `commonhold serve` calls |
//! | `running` | the same without signals, for whoever has its own idea of when to stop; the threads and their end |
//! | `premises` | is this directory safe to own? |
//! | `session`, `inbox`, `outbox`, `handshake` | one connection: bytes in, batches, bytes out |
//! | `large` | how many large frames may be on their way in at once |
//! | `dispatch`, `tables` | from a request to its answer, in one synchronous function |
//! | `flusher`, `syncer` | the requests that are answered later |
//! | `fault`, `status` | what the engine says, in the words of the wire |
//!
//! A session is served by a blocking thread of its own. A lone `get` therefore costs one `read`, one look-up and one
//! `write`, and no hand-over to any other thread.

mod crew;
mod dispatch;
mod error;
mod fault;
mod flusher;
mod handshake;
mod inbox;
mod large;
mod log;
mod options;
mod outbox;
mod premises;
mod run;
mod running;
mod session;
mod status;
mod syncer;
mod tables;

pub use error::Error;
pub use log::{LogFormat, install_panic_hook, set_up_logging};
pub use options::{OnReady, Preload, ServeOptions};
pub use run::{Shutdown, Stopper, run};
pub use running::{Daemon, Running};
