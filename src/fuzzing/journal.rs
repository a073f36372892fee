//! The journal reader, and what stands on it: a start of the store, another one after that, and `check`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::engine::clock::ManualClock;
use crate::engine::disk::SimDisk;
use crate::engine::{
    Error, HostileJournal, ScanQuery, Store, StoreOptions, Surroundings, WriteRequest, check, seal_journal,
};
use crate::lock::MemoryLocks;
use crate::proto::{Condition, Place};

use super::meter;

const DIR: &str = "/store";

/// The first byte says whether the checksums in the rest are made right before it is read (odd), so that what they cover
/// is hostile, too; the rest is one segment after the other.
///
/// # Panics
/// When a promise is broken.
pub fn journal(data: &[u8]) {
    let Some((&how, segments)) = data.split_first() else { return };
    let (mut segments, sealed) = (segments.to_vec(), how % 2 == 1);
    if sealed {
        seal_journal(&mut segments);
    }
    let journal = HostileJournal::new(Path::new(DIR), &segments);
    let (read, most) = meter::here(|| journal.read());
    // Each segment's header is read by itself, into 64 KiB; outcomes, effects in words and the check cost some each.
    let bound = 96 * segments.len() + (journal.segments().len() + 2) * (160 << 10);
    assert!(most <= bound, "{} bytes took {most} bytes of memory", segments.len());
    let cut = journal.read_cut();
    match (&read, cut) {
        (Ok(read), Ok(cut)) => assert!(cut.starts_with(read) || sealed, "a repair keeps what a start reads"),
        (Err(error), _) => assert!(!error.to_string().is_empty()),
        // A repair also goes on from what lies behind the cut, where sealed numbers may be too high.
        (Ok(_), Err(error)) => assert!(sealed, "a start reads it, and a repair does not: {error}"),
    }
    starts(&journal, read.is_ok(), sealed);
    if let Err(error) = check(Path::new(DIR), true, around(journal.disk().kill())) {
        assert!(!error.to_string().is_empty());
    }
}

fn starts(journal: &HostileJournal, is_read: bool, sealed: bool) {
    let disk = journal.disk().kill();
    let first = match Store::open(Path::new(DIR), options(), around(disk.clone())) {
        Ok(store) => records(&store),
        Err(error) => {
            assert!(!is_read || sealed, "the journal is read, and the store does not start: {error}");
            return assert!(!error.to_string().is_empty());
        }
    };
    assert!(is_read || sealed, "the journal is not read, and the store starts");
    if sealed {
        // Numbers that no daemon has written need not go on. That another start does not panic is all that is asked.
        return drop(Store::open(Path::new(DIR), options(), around(disk.kill())));
    }
    // Whoever starts after that finds the same, and takes writes.
    let disk = disk.kill();
    match Store::open(Path::new(DIR), options(), around(disk.clone())) {
        Ok(store) => {
            assert_eq!(records(&store), first, "a second start finds something else");
            write(&store);
        }
        Err(error) => panic!("a second start is refused: {error}"),
    }
    let again = Store::open(Path::new(DIR), options(), around(disk.kill())).expect("it was just open");
    let mut after = records(&again);
    assert_eq!(after.remove("written-after"), Some(Ok(vec![("k".to_owned(), "1".to_owned())])));
    assert_eq!(after, first, "a write changes nothing else");
}

/// What each namespace holds that is in memory, or why it is closed.
type Records = BTreeMap<String, Result<Vec<(String, String)>, String>>;

fn records(store: &Store) -> Records {
    let mut found = Records::new();
    for info in store.namespaces().expect("the disk answers") {
        let place = Place::new(&info.workspace, &info.namespace).expect("a namespace has a good name");
        let table = match store.namespace(&place) {
            Ok(table) => table,
            // The words may tell a time or a file's name that changes.
            Err(error) => {
                found.insert(place.to_string(), Err(format!("{:?}", std::mem::discriminant(&error))));
                continue;
            }
        };
        let page = table.scan(&ScanQuery::default()).expect("a scan from the start has no cursor");
        let page = page.records.iter().map(|record| (record.key().to_owned(), record.value().to_owned()));
        found.insert(place.to_string(), Ok(page.collect()));
    }
    found
}

fn write(store: &Store) {
    let table = store.namespace(&Place::new("", "written-after").expect("a good name"));
    let table = table.expect("a namespace of its own opens");
    let mut request = WriteRequest::new(7, 0);
    request.put(&table, "k", "1", Condition::Always).expect("it is JSON");
    let result: Result<_, Error> = store.write(vec![request]).pop().expect("one request, one result");
    result.expect("a store that has started takes writes");
}

pub(super) fn options() -> StoreOptions {
    StoreOptions { segment_bytes: 1 << 20, room_bytes: 0, buffer_bytes: 64 << 10, ..StoreOptions::default() }
}

pub(super) fn around(disk: SimDisk) -> Surroundings {
    Surroundings {
        disk: Arc::new(disk),
        locks: Arc::new(MemoryLocks::new()),
        clock: Arc::new(ManualClock::new(1_700_000_000_000)),
        entropy: 42,
    }
}
