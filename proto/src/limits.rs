//! Every number that bounds what may travel, in one place and with its unit in its name.
//!
//! A length that comes from outside meets one of these before it becomes a buffer. The limits bind requests; a record
//! that is longer because it was loaded from a file is kept, flushed and exported all the same.

/// Largest frame, counted from after its length field: 64 MiB. Larger replies are streamed in parts.
pub const MAX_FRAME_BYTES: usize = 64 * 1024 * 1024;

/// Longest value a request may carry, in bytes of canonical JSON text: 32 MiB.
pub const MAX_VALUE_BYTES: usize = 32 * 1024 * 1024;

/// Longest value that merge, increment and append change, before and after, in bytes of canonical JSON text: 1 MiB.
/// They are evaluated in the writer's turn, where everybody waits for them.
pub const MAX_CHANGED_VALUE_BYTES: usize = 1024 * 1024;

/// Longest key a request may carry, in bytes of UTF-8: 64 KiB. The empty key is a key.
pub const MAX_KEY_BYTES: usize = 64 * 1024;

/// Most operations (or keys, in a read) in one request.
pub const MAX_OPERATIONS: usize = 10_000;

/// Most characters in the name of a namespace; all of them are ASCII.
pub const MAX_NAMESPACE_BYTES: usize = 128;

/// Most bytes in the name of a workspace: what one path component may have on common file systems.
pub const MAX_WORKSPACE_BYTES: usize = 255;

/// Deepest nesting of a JSON value: the scalar has depth 0, `[]` has depth 1.
pub const MAX_NESTING: usize = 1_024;

/// Most records one page of a scan visits, whether they match or not.
pub const MAX_SCAN_VISITS: usize = 10_000;

/// About how many bytes of keys and values one page of a scan carries before it ends (a single larger record travels
/// in a page of its own): 1 MiB.
pub const SCAN_PAGE_BYTES: usize = 1024 * 1024;

/// About how many bytes one part of a streamed reply carries before the next part begins: 1 MiB.
pub const REPLY_PART_BYTES: usize = 1024 * 1024;

/// Largest journal record, in bytes: 128 MiB. A write request that would pass it is refused before anything is written.
pub const MAX_RECORD_BYTES: usize = 128 * 1024 * 1024;

/// Most requests of one session that may wait or be answered later (by flush, commit, or a load) at a time; a client that
/// is owed more is not read from until it has some of the answers.
pub const MAX_IN_FLIGHT: usize = 1_024;

/// How far a client's writes may run ahead of its oldest unanswered one: number n is not sent while n minus this is
/// unanswered. So many outcomes of one client are remembered, so that whatever it sends again is known.
pub const MAX_OPEN_WRITES: usize = 4_096;

/// Most bytes of one session's requests that may wait to be carried out; above it the session is not read from: 16 MiB.
/// A single larger request is taken all the same.
pub const MAX_IN_FLIGHT_BYTES: usize = 16 * 1024 * 1024;

/// Bytes of requests that may wait to be carried out, of all sessions together: 256 MiB. Above it no request that would
/// have to wait is taken: its session is not read from until there is room.
pub const MAX_WAITING_BYTES: usize = 256 * 1024 * 1024;

/// Bytes of answers that clients have not taken, of all sessions together: 256 MiB. Above it nothing more is served, and
/// who takes nothing of what waits for it is closed with [`Fault::Flooded`](crate::Fault::Flooded), the greatest first.
pub const MAX_QUEUED_BYTES: usize = 256 * 1024 * 1024;

/// How long a new connection may take to send its hello, in milliseconds.
pub const HELLO_TIMEOUT_MS: u64 = 5_000;

/// Longest name of a lock's key, a group of slots or an election, in bytes of UTF-8: 4 KiB. The empty text is none.
pub const MAX_NAME_BYTES: usize = 4 * 1024;

/// Most keys of one lock.
pub const MAX_LOCK_KEYS: usize = 256;

/// Most grants that a request for a lock may name as held meanwhile.
pub const MAX_LOCK_HOLDS: usize = 256;

/// Most steps (keys, grants and waits looked at) of the search for a cycle that a request for a lock would close, which names
/// what it holds while it waits. The whole daemon's coordination stands still meanwhile, for a few milliseconds at most.
pub const MAX_CYCLE_STEPS: usize = 16_384;

/// Most locks, leases of slots, elections, update flags and watches, each, that one session may have or wait for.
pub const MAX_HOLDINGS: usize = 10_000;

/// Most bytes of the locks, slots, elections and update flags, each, that one session has or waits for: 16 MiB. A name counts 256
/// more than it has, a grant that a wish for a lock names 128.
pub const MAX_HOLDINGS_BYTES: usize = 16 * 1024 * 1024;

/// The same of all sessions together: 256 MiB, each.
pub const MAX_ALL_HOLDINGS_BYTES: usize = 256 * 1024 * 1024;

/// Most bytes of the names of elections that are done, which are kept until the daemon ends: 256 MiB. A name counts 256 more
/// than it has. Above it nobody is elected under a new name.
pub const MAX_DONE_ELECTIONS_BYTES: usize = 256 * 1024 * 1024;
