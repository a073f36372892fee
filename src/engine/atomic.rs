//! The atomics and the lock of the files that `tests/loom.rs` tries in every order of their steps: there they are loom's.

pub(super) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

pub(super) use parking_lot::Mutex;
