//! Coordination on the real daemon: what sessions hold and wait for, and what becomes of it when they end.
#![cfg(feature = "daemon")]

mod daemon_coordination {
    pub(crate) mod fenced;
    pub(crate) mod locks;
    pub(crate) mod order;
    pub(crate) mod others;
    pub(crate) mod support;
}
mod daemon_support;
#[path = "daemon_support/slow_disk.rs"]
mod slow_disk;
