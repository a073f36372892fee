//! The version table: a few words in shared memory by which a client knows, without asking, that a value it has read is
//! still the value.
//!
//! The daemon writes it ([`Writer`]), clients map it read-only ([`Reader`]). A count never goes back, so a value that was
//! read together with some counts is current for as long as they are what they were. `docs/near-cache.md` tells the
//! protocol, `layout` owns the bytes, `memory` has the unsafe code.
//!
//! There is a table on Linux only, and only where there is a tmpfs: without it, clients ask for every value.

mod layout;
mod memory;
mod reader;
mod shelf;
#[cfg(feature = "daemon")]
mod writer;

pub use layout::{NAMESPACES, Name};
pub use memory::wiped_at_fork;
pub use reader::Reader;
#[cfg(feature = "daemon")]
pub use writer::{Entry, Writer};
