//! The client for programs that wait: every call returns when it is done.
//!
//! One [`Client`] is one connection, and one connection is one session of the daemon. A client can be cloned and shared
//! by any number of threads; it starts none of its own. Whoever calls writes its request, and of those who wait for
//! answers one reads for all. A single thread pays one write and one read for a request; many threads have as many
//! requests in flight at once.
//!
//! ```no_run
//! use commonhold::blocking::Client;
//! let client = Client::connect("rag_storage")?;
//! let chunks = client.namespace("text_chunks")?;
//! chunks.put("chunk-1", &serde_json::json!({"tokens": 12}))?;
//! let chunk: Option<serde_json::Value> = chunks.get("chunk-1")?;
//! assert_eq!(chunk.unwrap()["tokens"], 12);
//! chunks.flush()?;
//! # Ok::<(), commonhold::blocking::Error>(())
//! ```
//!
//! **When the connection is lost** (the daemon was killed, or stopped), the next call makes a new one, for up to
//! [`ConnectOptions::reconnect_for`]. Requests that were in flight are sent again, in the order in which they were begun, and
//! before anything new. Writes and drops are done once all the same, across the daemon's restarts: it remembers what became
//! of them, and answers what it answered first. [`Error::OutcomeUnknown`] is left for those that no daemon could be asked
//! about in time, or none that knows. What a killed daemon lost (writes of
//! [`Durability::Memory`], volatile namespaces) is gone, and a write that had no answer yet is done anew, as the only time.
//! [`Client::restarts`] counts how often another daemon was found.
//!
//! **Many short requests** are cheapest together: see [`Client::pipeline`].
//!
//! **What is bounded.** At most 4,096 writes (or 64 MiB of them) may be without an answer; further ones wait for answers
//! before they are sent, and so does what was begun after them.
//!
//! **Time.** Each call ends within [`ConnectOptions::timeout`]. An answer that comes later is dropped.

mod bulk;
mod client;
mod coordination;
mod elections;
mod flags;
mod get_all;
mod held;
mod locks;
mod mirror;
mod namespace;
mod own_line;
mod pending;
mod pipeline;
mod scan;
mod session;
mod slots;
mod watch;

pub use super::{
    Batch, BulkOptions, BulkProgress, CacheStats, Change, ChangeSet, ConnectOptions, Cursor, Dropped, Entry, Error,
    FlushOptions, Flushed, Grant, OpenOptions, Page, Target, Value, WatchEvent, WatchOptions, Written,
};
pub use bulk::BulkWriter;
pub use client::{Client, Workspace};
pub use commonhold_proto::{
    Condition, Durability, Fault, FlagInfo, FlagOf, Kind, LockInfo, NamespaceInfo, Number, Party, Place, Seq,
    SessionInfo, SlotInfo, WorkspaceInfo,
};
pub use elections::{Elected, ElectionGuard};
pub use flags::UpdateFlag;
pub use get_all::GetAll;
pub use locks::{Lock, LockGuard};
pub use mirror::Mirror;
pub use namespace::Namespace;
pub use pending::Pending;
pub use pipeline::Pipeline;
pub use scan::Scan;
pub use slots::{SlotGuard, Slots};
pub use watch::Watch;
