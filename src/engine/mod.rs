//! The store: records in memory, a journal that says what was written, and JSON files that follow.
//!
//! ```text
//!   write ── request ── turn ── evaluate ── journal (── sync) ── map ── reply
//!   flush ── cut, view ── sibling file ── intent ── rename ── done
//!   open  ── owner lock ── chain of segments ── new segment ── namespaces with waiting records
//!   open_read_only ── owner lock ── chain of segments ── namespaces with waiting records
//! ```
//!
//! The engine is synchronous, starts no threads, and has not heard of messages or sockets. It is handed its [`disk`],
//! its locks and its [`clock`], so that its tests run on a disk that loses power and a clock that stands still.
//!
//! **What it promises.** A write that [`Store::write`] has returned is as durable as the store's durability says. What a
//! crash takes is always a suffix of the writes, never part of a request. A namespace's file is always the old one or
//! the new one, whole. Nothing is ever started empty over data that could not be read.

mod activity;
mod atomic;
mod catalogue;
mod change;
mod check;
pub mod clock;
mod closing;
mod copies;
mod counts;
pub mod disk;
mod dropping;
mod error;
mod evaluate;
mod faultpoint;
mod feed;
mod files;
mod flag_word;
mod flush;
mod grant;
mod growth;
mod housekeeping;
mod journal;
mod layout;
mod load;
pub mod map;
mod memory;
mod news;
mod note;
mod once;
mod opening;
mod ownership;
mod pieces;
mod poison;
mod quarantine;
mod repair;
mod request;
mod rescue;
mod seeded_fault;
mod snapshot;
mod stats;
mod store;
mod table;
#[cfg(test)]
mod tests;
mod turn;
mod upkeep;
mod volatile;
mod watch;
pub mod words;
mod workspace;
mod writer;

pub use crate::json::Canonicalizer;
pub use activity::{Costs, FailedFlush, LastFlush};
pub use check::{Finding, Remedy, Report, Severity, check};
pub use closing::{Closing, Why};
pub use counts::{Counts, PlaceCounts};
pub use dropping::Dropped;
pub use error::Error;
pub use feed::{TellChange, Told};
pub use flag_word::{clear_flags, set_flags};
pub use flush::{FlushHow, Flushed};
pub use grant::Grant;
pub use journal::Earlier;
#[cfg(any(test, feature = "fuzzing"))]
pub use journal::{HostileJournal, seal as seal_journal};
pub use layout::{Layout, PRIVATE_DIR};
pub use map::Record;
pub use once::{Fence, First, Numbered};
pub use opening::{Opening, SetAside};
pub use repair::{Plan, Repair, Settle, plan, repair};
pub use request::{WriteRequest, Written};
pub use snapshot::Snapshot;
pub use stats::Stats;
pub use store::{Store, StoreOptions, Surroundings};
pub use table::{NextPage, Page, ScanQuery, Table};
pub use watch::{Next, Watch};
