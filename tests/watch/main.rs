//! Watches: over the raw socket, through the clients, and through everything that a daemon may go through.
#![cfg(feature = "daemon")]

mod checker;
#[cfg(unix)]
mod clients;
#[path = "../daemon_support/mod.rs"]
mod daemon_support;
mod torture;
mod wire;
