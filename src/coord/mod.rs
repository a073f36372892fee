//! Coordination: who holds which lock, has which slots, initialises what, and whose update flag is set.
//!
//! Each file is a state machine without any I/O: no sockets, disk, clock or threads. Whoever calls brings the time, the
//! tokens and the numbers of those who wait, and is told what is granted or refused by what it did, and to whom. So all of
//! it can be tested by random steps against a naive model, and the daemon needs one mutex around it that is held for
//! no longer than a few look-ups.
//!
//! | file | what it decides |
//! |---|---|
//! | `locks` | keyed locks: several keys at once, exclusive or shared, first come first served |
//! | `key` | who is next at one key |
//! | `cycle` | whether a wish for a lock would wait for itself |
//! | `slots` | groups of slots, and who has how many |
//! | `elections` | who initialises something for all |
//! | `flags` | which session's update flag is set |
//! | `parties` | what they share: waits, refusals, and what one session may have |
//!
//! What a session has ends with it. When a grant has ended while a write that depends on it is still being done, its keys
//! are not free before that write is: [`Locks::settle`].

mod cycle;
mod elections;
mod flags;
mod key;
mod locks;
mod parties;
mod slots;

pub use cycle::Step;
pub use elections::Elections;
pub use flags::{Flags, PlaceInfo};
pub use locks::{KeyInfo, Locks, Wish};
pub use parties::{Begun, Outcome, Party, Refusal, Resolved, WaitId, Whose};
pub use slots::{GroupInfo, Need, Slots};

#[cfg(test)]
mod cycle_tests;
#[cfg(test)]
mod flags_model;
#[cfg(test)]
mod limits_tests;
#[cfg(test)]
mod locks_model;
#[cfg(test)]
mod others_model;
