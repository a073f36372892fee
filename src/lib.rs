//! Commonhold keeps JSON values for many processes and does not lose them.
//!
//! One daemon owns a directory of JSON namespaces and holds them in memory; worker processes share them through the
//! client library in this crate. `docs/architecture.md` shows the rooms of the code and which may know which.

pub mod json;

#[cfg(feature = "daemon")]
pub mod coord;
#[cfg(feature = "daemon")]
pub mod engine;
#[cfg(feature = "daemon")]
pub mod lock;

pub mod client;
pub mod ipc;
#[cfg(feature = "testing")]
pub mod testing;
pub mod versions;

#[cfg(feature = "daemon")]
pub mod cli;
#[cfg(feature = "daemon")]
pub mod daemon;
#[cfg(all(feature = "daemon", any(test, feature = "fuzzing")))]
#[doc(hidden)]
pub mod fuzzing;

#[cfg(all(unix, feature = "async"))]
pub use client::asynchronous::*;
pub use client::blocking;
pub use commonhold_proto as proto;
