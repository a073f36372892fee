//! Numbers about a store, for `status`.

use commonhold_proto::{Place, Seq};

use super::poison::Cause;
use super::store::Store;

/// A store's numbers at one moment.
#[derive(Clone, Debug)]
pub struct Stats {
    /// The last Seq whose effects readers see.
    pub applied: Seq,
    /// The last Seq on the platter.
    pub synced: Seq,
    /// Bytes of records that are in the journal's buffer only: a killed daemon loses them.
    pub unwritten_bytes: usize,
    /// How often the journal was synced since the store was opened.
    pub syncs: u64,
    /// Journal segments that are kept.
    pub segments: usize,
    /// Their bytes.
    pub journal_bytes: u64,
    /// The namespaces whose files the oldest segment waits for.
    pub pinned_by: Vec<Place>,
    /// Files of other programs that a flush found and kept, since the store was opened.
    pub foreign_files: u64,
    /// Of how many clients how many outcomes are remembered, and about how many bytes that takes.
    pub outcomes: (usize, usize, usize),
}

impl Store {
    /// Whether the journal found no room on the disk when it last looked for some, which is at least once a second:
    /// while that is so, only deletes and clears are taken, and nothing where the journal could not be begun for want of room.
    pub fn is_disk_full(&self) -> bool {
        self.shared.is_disk_full() || self.seen.lock().no_room.is_some()
    }

    /// Whether writes are refused because the owner lock's file was removed or replaced.
    pub fn has_lost_its_lock_file(&self) -> bool {
        self.poison.cause() == Some(Cause::Taken)
    }
}
