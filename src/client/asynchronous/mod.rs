//! The client for programs on a tokio runtime: every call is a future.
//!
//! It is what [`blocking`](super::blocking) is, call for call, and keeps the same promises; here is told only what is
//! different. One [`Client`] is one connection and one session of the daemon, its clones share it. A task on the runtime
//! reads for all of them; it lives as long as the client. The runtime needs I/O and time enabled, as those of
//! `#[tokio::main]` and `#[tokio::test]` have.
//!
//! ```no_run
//! # async fn example() -> Result<(), commonhold::Error> {
//! use commonhold::Client;
//! let client = Client::connect("rag_storage").await?;
//! let chunks = client.namespace("text_chunks")?;
//! chunks.put("chunk-1", &serde_json::json!({"tokens": 12})).await?;
//! let chunk: Option<serde_json::Value> = chunks.get("chunk-1").await?;
//! assert_eq!(chunk.unwrap()["tokens"], 12);
//! chunks.flush().await?;
//! # Ok(())
//! # }
//! ```
//!
//! **Several runtimes** may use one client, at once or one after another: whoever waits finds a task that reads for it on a
//! runtime that runs. Only a runtime that was shut down cannot be waited on.
//!
//! ```no_run
//! let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build();
//! let (first, second) = (runtime()?, runtime()?);
//! let client = first.block_on(commonhold::Client::connect("rag_storage"))?;
//! let docs = client.namespace("full_docs")?;
//! first.block_on(docs.put("doc-1", "from one"))?;
//! assert_eq!(second.block_on(docs.get::<String>("doc-1"))?.as_deref(), Some("from one"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **A future that is dropped** before it is ready, as by a time-out or `select!`, gives its request up: one that was not
//! sent is not sent, one that was is cancelled, and is not done if the daemon has not begun it. Nothing of it stays
//! behind, and no other request is disturbed. A write that is dropped so may have been done, once.

mod bulk;
mod client;
mod coordination;
mod driver;
mod elections;
mod flags;
mod get_all;
mod held;
mod locks;
mod mirror;
mod namespace;
mod own_line;
mod pending;
mod scan;
mod session;
mod sleepers;
mod slots;
mod watch;
mod writing;

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
pub use scan::Scan;
pub use slots::{SlotGuard, Slots};
pub use watch::Watch;
