//! The wire of Commonhold: what client and daemon say to each other, and the words both use.
//!
//! This crate holds the [messages](message), the checked [names], the [limits], the [faults](fault), and the bytes
//! they travel as: [`frame`], [`hello`] and [`codec`]. It does no I/O, reads no clock and starts no threads, so it can
//! be tested with byte strings alone. `PROTOCOL.md` beside it describes the same bytes for those who write a client in
//! another language, and `golden/` holds one frame of every message for them to check against.
//!
//! **Version rule.** Enum variants are only ever appended and their fields never change. A changed request is a new
//! variant; a request the daemon does not know is answered [`Fault::Unsupported`].

// The samples that a test borrows from the integration tests name this crate as its users do.
#[cfg(test)]
extern crate self as commonhold_proto;

mod answer;
pub mod codec;
mod coord;
pub mod fault;
pub mod frame;
pub mod hello;
pub mod limits;
pub mod message;
pub mod names;
mod tags;
#[cfg(test)]
mod wincode_tests;

pub use codec::{DecodeError, EncodeError};
pub use fault::Fault;
pub use frame::{FRAME_HEADER_BYTES, FrameError, FrameHeader, FrameKind};
pub use hello::{HELLO_BYTES, Hello, HelloError, LOWEST_VERSION, PROTOCOL_VERSION, StoreIdentity};
pub use message::{
    Answer, Change, ChangeSet, Condition, Cursor, CycleStep, Durability, Earlier, Election, Entry, Event, FlagAction,
    FlagInfo, FlagOf, Found, Kind, LockInfo, LockWish, NamespaceInfo, Number, Op, Party, Request, SessionInfo,
    SlotInfo, Space, Tag, Verb, WorkspaceInfo, Write,
};
pub use names::{NameError, Namespace, Place, Seq, Workspace};
