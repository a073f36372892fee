//! The name of each variant of each enum on the wire, in the order of their numbers: for logs, for the golden frames and
//! for the tables of `PROTOCOL.md`, which tests compare with these.

use crate::fault::Fault;
use crate::message::{Answer, Change, Condition, Durability, Election, Event, FlagAction, Kind, Number, Op, Verb};

/// Gives an enum `NAMES`, its variants in the order of their numbers, and `name()`. A variant that is missing here does
/// not compile; one in the wrong place fails the test of the golden frames.
macro_rules! tags {
    ($enum:ty { $($variant:ident),+ $(,)? }) => {
        impl $enum {
            /// The names of the variants; the place in this list is the number on the wire.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($variant)),+];

            /// The name of this variant.
            pub const fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant { .. } => stringify!($variant),)+
                }
            }
        }
    };
}

tags!(Verb<'_> {
    Ping,
    Get,
    GetMany,
    FilterMissing,
    Contains,
    Len,
    Scan,
    Write,
    Commit,
    Flush,
    Namespaces,
    Status,
    Stop,
    GetAll,
    Drop,
    Workspaces,
    Sessions,
    EndSession,
    WriteAgain,
    DropOnce,
    Flag,
    Flags,
    Elect,
    Initialized,
    Lock,
    Unlock,
    Locks,
    Acquire,
    Release,
    SetLimit,
    Slots,
    Watch,
    Hold,
});
impl Verb<'_> {
    /// How many verbs a session of this version may use: the numbers of those that it may not begin there.
    pub const fn count_in(version: u16) -> u32 {
        match version {
            0 => 0,
            1 => 13,
            2 => 18,
            3 => 20,
            _ => Self::NAMES.len() as u32,
        }
    }
}

tags!(FlagAction { Register, Look, Clear, SetAll, ClearAll, Forget });
tags!(Election { Won, Running, Done });
tags!(Change<'_> { Put, Delete, Clear, Drop });
tags!(Op<'_> {
    Put,
    Delete,
    Clear,
    PutStamped,
    Merge,
    Increment,
    Append,
});
tags!(Number { Int, Float });
tags!(Condition { Always, IfSeq, IfAbsent });
tags!(Durability { Memory, Buffered, Synced });
tags!(Kind { Persistent, Volatile });
tags!(Answer<'_> {
    Fault,
    Done,
    Got,
    GotMany,
    Missing,
    Contains,
    Len,
    Page,
    Written,
    Committed,
    Flushed,
    Namespaces,
    Status,
    Records,
    Dropped,
    Workspaces,
    Sessions,
    Flag,
    Flags,
    Elected,
    Locked,
    Locks,
    Acquired,
    Slots,
    Changes,
    Lagged,
});
tags!(Event { Closing });
tags!(Fault {
    Malformed,
    Unsupported,
    InvalidNamespace,
    InvalidWorkspace,
    NameClash,
    InvalidJson,
    TooLarge,
    ConditionFailed,
    NeedsRepair,
    Full,
    DiskError,
    Unavailable,
    OutcomeUnknown,
    TimedOut,
    FlushLockTimeout,
    FlushFailed,
    CursorExpired,
    Stopping,
    Version,
    OtherStore,
    Forbidden,
    Cancelled,
    KindMismatch,
    Volatile,
    MixedKinds,
    WrongType,
    Overflow,
    MemoryFull,
    SnapshotExpired,
    Loading,
    NoSuchSession,
    SessionEnded,
    Flooded,
    Invalid,
    WouldWait,
    AlreadyHeld,
    Deadlock,
    NotHeld,
    TokenNotLive,
    LimitMismatch,
    Gone,
    Rewound,
    NotYet,
});
