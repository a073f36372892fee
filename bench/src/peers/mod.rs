//! Those beside whom we are measured: each started, filled and asked through its own client library.

pub mod bare;
pub mod lightrag;
pub mod lmdb;
pub mod redis;
