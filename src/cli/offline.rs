//! The records of a namespace where no daemon runs, for `export`.
//!
//! A directory that no daemon has served yet has no journal: its file says all, and nothing at all is written. Elsewhere
//! the engine opens the store, under the owner lock; its start writes a new journal segment, as every start does, and
//! no namespace file is touched.

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::context::Context;
use super::failure::{Exit, Failure, exit_of_io};
use crate::engine::map::{Map, Record};
use crate::engine::{NextPage, ScanQuery, Store, StoreOptions, Surroundings, Table};
use crate::json;
use crate::proto::limits::SCAN_PAGE_BYTES;
use crate::proto::{Cursor, Place};

/// Records in insertion order: key and canonical value.
pub(super) type Records = Box<dyn Iterator<Item = Result<(String, String), Failure>>>;

/// The records of `place` in the store that `context` means. No daemon may run; one that starts meanwhile is refused,
/// because the store is owned here until the records are read.
pub(super) fn records(context: &Context, place: &Place) -> Result<Records, Failure> {
    let private = context.store().join(".commonhold");
    if fs::symlink_metadata(&private).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return unserved(context, place);
    }
    let store = Store::open(context.store(), StoreOptions::default(), Surroundings::real()?)?;
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

/// Reads the file of a directory that no daemon has served yet; a missing file is an empty namespace.
fn unserved(context: &Context, place: &Place) -> Result<Records, Failure> {
    let folder = context.store().join(place.workspace.as_str());
    let file = folder.join(place.namespace.file_name());
    for path in [&folder, &file] {
        let linked = fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
        if linked && path != context.store() {
            let text = format!("{} is a symbolic link: what it points to is not part of the store", path.display());
            return Err(Failure::new(Exit::Refused, text));
        }
    }
    let bytes = match fs::read(&file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(Failure::new(exit_of_io(&error), format!("cannot read {}: {error}", file.display()))),
    };
    // The map settles keys that are there twice: the place of the first, the value of the last.
    let mut map = Map::new();
    json::load_object(&bytes, &mut |key, value| drop(map.put(Record::new(key, value)))).map_err(|error| {
        let text = format!("{}, {error}; the file was not changed", file.display());
        Failure::new(Exit::Damage, text)
    })?;
    drop(bytes);
    let mut all = Vec::with_capacity(map.len());
    map.scan(None, usize::MAX, &mut |record| {
        all.push(record.clone());
        ControlFlow::Continue(())
    });
    Ok(Box::new(all.into_iter().map(|record| Ok((record.key().to_owned(), record.value().to_owned())))))
}
