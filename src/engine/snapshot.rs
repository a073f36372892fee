//! All records of a namespace as they are at one moment, read in slices while writers go on.

use std::sync::Arc;

use commonhold_proto::Seq;

use super::error::Error;
use super::map::{Record, View};
use super::table::Table;

/// Records looked at in one hold of the readers' lock.
const SLICE_RECORDS: usize = 256;
/// About how many bytes of keys and values are handed out at once: the reader holds on to them, whatever is changed.
const SLICE_BYTES: usize = 256 * 1024;

/// The content of a namespace when [`Table::snapshot`] was called. What writers change meanwhile is kept for it, up to a
/// limit.
pub struct Snapshot {
    table: Arc<Table>,
    view: View,
    seq: Seq,
}

impl Table {
    /// Every record as it is now. It costs nothing until something changes; once more than `limit` bytes of old records
    /// would have to be kept for it, it expires.
    pub fn snapshot(self: &Arc<Self>, limit: usize) -> Snapshot {
        let mut map = self.map.write();
        // Both under the lock: the records are exactly those that this write has left.
        let (view, seq) = (map.view_within(limit), self.last());
        drop(map);
        Snapshot { table: Arc::clone(self), view, seq }
    }
}

impl Snapshot {
    /// The last write that the records have seen.
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// Appends the next records to `out`, in insertion order, and tells whether there are more.
    ///
    /// # Errors
    /// [`Error::SnapshotExpired`].
    pub fn next(&mut self, out: &mut Vec<Record>) -> Result<bool, Error> {
        let more = self.view.next_within(&self.table.map.read(), SLICE_RECORDS, SLICE_BYTES, out);
        if !more && self.view.is_expired() {
            return Err(Error::SnapshotExpired);
        }
        Ok(more)
    }
}
