//! The client library: how a worker process reaches the daemon of a store.
//!
//! `core` knows which requests are in flight, how far their bytes have been sent, which of them may be repeated after
//! the connection was lost, and whose answer a frame is; it does no I/O. Two drivers move the bytes: [`blocking`] with
//! the threads that call it and none of its own, `asynchronous` (feature `async`) with a task on a tokio runtime. What
//! both share, the values, the [`Batch`] and the [`Error`], is here
//! and re-exported from each driver.
//!
//! What it promises: an acknowledged write was done once, however often it had to be sent; a write of which no byte was
//! sent was not done; what cannot be known is told as [`Error::OutcomeUnknown`] and never guessed.

#[cfg(all(unix, feature = "async"))]
pub mod asynchronous;
mod batch;
pub mod blocking;
mod bulk;
mod connect;
mod core;
mod error;
mod flags;
mod grants;
mod identity;
mod ids;
mod inbox;
pub(crate) mod launch;
mod limits;
mod mirrored;
mod near;
mod options;
mod paging;
mod parts;
mod process;
mod read;
mod repeat;
mod spare;
mod target;
mod values;
mod verbs;
mod watching;

/// The examples of the guide, which must compile.
#[cfg(doctest)]
#[doc = include_str!("../../docs/coordination.md")]
mod guide {}

pub use batch::Batch;
pub use bulk::{BulkOptions, BulkProgress};
pub use error::Error;
pub use grants::Grant;
pub use launch::OpenOptions;
pub use near::CacheStats;
pub use options::ConnectOptions;
pub use target::Target;
pub use values::{Cursor, Dropped, Entry, FlushOptions, Flushed, Page, Value, Written};
pub use watching::{Change, ChangeSet, WatchEvent, WatchOptions};

/// The example of the text on watches is compiled.
#[cfg(all(doctest, feature = "daemon"))]
#[doc = include_str!("../../docs/watches.md")]
struct WatchesText;
