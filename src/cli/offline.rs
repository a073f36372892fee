//! The records of a namespace where no daemon runs, for `export`.
//!
//! The engine opens the store read-only, under the owner lock: files and journal are read as a start would read them,
//! and nothing is changed on the disk. Only taking the lock writes, into `owner.lock`; a directory that no daemon has
//! served yet has none, and stays without.

use std::sync::Arc;

use super::context::Context;
use super::failure::Failure;
use crate::engine::{NextPage, Record, ScanQuery, Store, Surroundings, Table};
use crate::proto::limits::SCAN_PAGE_BYTES;
use crate::proto::{Cursor, Place};

/// Records in insertion order: key and canonical value.
pub(super) type Records = Box<dyn Iterator<Item = Result<(String, String), Failure>>>;

/// The records of `place` in the store that `context` means. No daemon may run; one that starts meanwhile is refused,
/// because the store is owned here until the records are read.
pub(super) fn records(context: &Context, place: &Place) -> Result<Records, Failure> {
    let store = Store::open_read_only(context.store(), Surroundings::real()?)?;
    let table = store.namespace(place)?;
    Ok(Box::new(Pages { _store: store, table, page: Vec::new().into_iter(), next: None, begun: false }))
}

/// The records of a store that is open here, page by page.
struct Pages {
    /// Keeps the store owned.
    _store: Store,
    table: Arc<Table>,
    page: std::vec::IntoIter<Record>,
    next: Option<NextPage>,
    begun: bool,
}

impl Iterator for Pages {
    type Item = Result<(String, String), Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(record) = self.page.next() {
                return Some(Ok((record.key().to_owned(), record.value().to_owned())));
            }
            let last = self.next.take();
            if self.begun && last.is_none() {
                return None;
            }
            self.begun = true;
            let cursor = last.as_ref().map(|last| Cursor { load: last.load, ordinal: last.ordinal, key: &last.key });
            match self.table.scan(&ScanQuery { cursor, max_bytes: SCAN_PAGE_BYTES, ..ScanQuery::default() }) {
                Ok(page) => (self.page, self.next) = (page.records.into_iter(), page.next),
                Err(error) => return Some(Err(error.into())),
            }
        }
    }
}
