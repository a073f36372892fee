//! Hostile bytes: what must hold whatever bytes come, for everything that reads bytes of others.
//!
//! Each target is a function of any bytes that panics when a promise is broken. `fuzz/` gives them to libFuzzer, which
//! looks for bytes that reach new code; the tests in `replay` give them the corpora in `fuzz/corpus/` and a seeded mutation
//! of those, on any toolchain. Built for tests, and with the feature `fuzzing`.
//!
//! | target | what reads the bytes | what must hold beside "no panic" |
//! |---|---|---|
//! | [`frame`] | the frame decoder, and a session's read buffer | the same frames however the bytes are cut |
//! | [`message`] | the codec, as every kind of message | what decodes encodes to the same bytes |
//! | [`journal`] | the journal reader, then an opening of the store and `check` | nothing whose checksum is wrong is believed; what counts is a prefix |
//! | [`namespace`] | the loader of namespace files | the records that `serde_json` reads, in their order; written and loaded again they are the same |
//! | [`session`] | a whole session of a daemon in this process | every request is answered once, or the session ends and says why; another session is served |
//!
//! And in each: memory in proportion to the bytes, as the [`Counting`] allocator counts it.

mod frame;
mod journal;
mod message;
mod meter;
#[cfg(test)]
mod mutate;
mod namespace;
#[cfg(test)]
mod replay;
#[cfg(test)]
mod seeds;
mod session;
mod session_host;
mod tree;

pub use frame::frame;
pub use journal::journal;
pub use message::message;
pub use meter::{Counting, is_counting};
pub use namespace::namespace;
pub use session::session;
pub use session_host::end_session_host;
