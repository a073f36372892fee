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
//! [`ConnectOptions::reconnect_for`]. Requests that were in flight: reads, commits and flushes are repeated; a write of
//! which no byte was sent is sent; any other write ends as [`Error::OutcomeUnknown`]. [`Client::restarts`] counts how
//! often another daemon was found.
//!
//! **Time.** Each call ends within [`ConnectOptions::timeout`]. An answer that comes later is dropped.

mod bulk;
mod client;
mod get_all;
mod namespace;
mod pending;
mod scan;
mod session;

pub use super::{
    Batch, BulkOptions, BulkProgress, ConnectOptions, Cursor, Dropped, Entry, Error, FlushOptions, Flushed,
    OpenOptions, Page, Target, Value, Written,
};
pub use bulk::BulkWriter;
pub use client::{Client, Workspace};
pub use commonhold_proto::{
    Condition, Durability, Fault, Kind, NamespaceInfo, Number, Place, Seq, SessionInfo, WorkspaceInfo,
};
pub use get_all::GetAll;
pub use namespace::Namespace;
pub use pending::Pending;
pub use scan::Scan;
