//! A store on a simulated disk, and short ways to ask it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use commonhold_proto::{Condition, Durability, Place, Seq};

use super::faults::LockFailures;
use crate::engine::clock::ManualClock;
use crate::engine::disk::SimDisk;
use crate::engine::{
    Dropped, Error, FlushHow, Flushed, ScanQuery, Store, StoreOptions, Surroundings, Table, WriteRequest, Written,
};
use crate::json::{self, FileFormat};
use crate::lock::MemoryLocks;

pub(super) const DIR: &str = "/store";

/// A disk, and the store on it while it is open.
pub(super) struct Rig {
    pub(super) disk: SimDisk,
    pub(super) locks: MemoryLocks,
    pub(super) lock_failures: LockFailures,
    pub(super) clock: ManualClock,
    pub(super) options: StoreOptions,
    /// A new store's id is made of it.
    pub(super) entropy: u128,
    store: Option<Arc<Store>>,
}

pub(super) fn options(durability: Durability) -> StoreOptions {
    StoreOptions {
        durability,
        file_format: FileFormat::Lines,
        flush_lock_timeout: Duration::ZERO,
        keep: 2,
        segment_bytes: 1 << 20,
        journal_limit: None,
        buffer_bytes: 4 << 20,
        room_bytes: 0,
        snapshot_bytes: 64 << 10,
        max_memory: None,
    }
}

pub(super) fn place(name: &str) -> Place {
    let (workspace, namespace) = name.split_once('/').unwrap_or(("", name));
    Place::new(workspace, namespace).unwrap()
}

pub(super) fn file(name: &str) -> PathBuf {
    let place = place(name);
    let workspace = Path::new(DIR).join(place.workspace.as_str());
    workspace.join(place.namespace.file_name())
}

impl Rig {
    /// Whether a store is open.
    pub(super) fn is_open(&self) -> bool {
        self.store.is_some()
    }

    /// An empty directory, not opened yet.
    pub(super) fn new(options: StoreOptions) -> Self {
        let disk = SimDisk::new(1);
        disk.make_dirs(DIR);
        Self::on(disk, options)
    }

    pub(super) fn on(disk: SimDisk, options: StoreOptions) -> Self {
        Self {
            disk,
            locks: MemoryLocks::new(),
            lock_failures: LockFailures::default(),
            clock: ManualClock::new(1_700_000_000_000),
            options,
            entropy: 42,
            store: None,
        }
    }

    pub(super) fn buffered() -> Self {
        Self::new(options(Durability::Buffered)).opened()
    }

    pub(super) fn memory() -> Self {
        Self::new(options(Durability::Memory)).opened()
    }

    pub(super) fn synced() -> Self {
        Self::new(options(Durability::Synced)).opened()
    }

    pub(super) fn try_open(&mut self) -> Result<(), Error> {
        let around = Surroundings {
            disk: Arc::new(self.disk.clone()),
            locks: Arc::new(self.lock_failures.of(self.locks.clone())),
            clock: Arc::new(self.clock.clone()),
            entropy: self.entropy,
        };
        self.store = Some(Arc::new(Store::open(Path::new(DIR), self.options.clone(), around)?));
        Ok(())
    }

    pub(super) fn opened(mut self) -> Self {
        self.try_open().expect("the store opens");
        self
    }

    pub(super) fn store(&self) -> &Arc<Store> {
        self.store.as_ref().expect("the store is open")
    }

    pub(super) fn close(&mut self) {
        self.store = None;
    }

    /// The owner dies and another process opens the store.
    pub(super) fn killed(mut self) -> Self {
        self.close();
        Self::on(self.disk.kill(), self.options.clone()).opened()
    }

    /// What another process would find if this owner were killed now.
    pub(super) fn killed_copy(&self) -> Self {
        Self::on(self.disk.kill(), self.options.clone()).opened()
    }

    /// The owner is killed and the store stays closed.
    pub(super) fn killed_and_closed(mut self) -> Self {
        self.close();
        Self::on(self.disk.kill(), self.options.clone())
    }

    pub(super) fn table(&self, name: &str) -> Arc<Table> {
        self.store().namespace(&place(name)).expect("the namespace opens")
    }

    pub(super) fn write(
        &self,
        build: impl FnOnce(&mut WriteRequest, &dyn Fn(&str) -> Arc<Table>),
    ) -> Result<Written, Error> {
        let mut request = WriteRequest::new(7, 1);
        build(&mut request, &|name| self.table(name));
        self.store().write(vec![request]).pop().expect("one request, one result")
    }

    pub(super) fn try_put(&self, name: &str, key: &str, value: &str) -> Result<Written, Error> {
        self.write(|request, table| request.put(&table(name), key, value, Condition::Always).expect("is JSON"))
    }

    pub(super) fn put(&self, name: &str, key: &str, value: &str) -> Seq {
        self.try_put(name, key, value).expect("the put is done").seq
    }

    /// A put that asks for a durability of its own.
    pub(super) fn put_as(&self, asked: Durability, name: &str, key: &str, value: &str) -> Result<Written, Error> {
        self.write(|request, table| {
            request.durability(Some(asked));
            request.put(&table(name), key, value, Condition::Always).expect("is JSON");
        })
    }

    pub(super) fn delete(&self, name: &str, key: &str) -> Written {
        self.write(|request, table| request.delete(&table(name), key, Condition::Always).unwrap()).expect("is done")
    }

    pub(super) fn clear(&self, name: &str) -> Written {
        self.write(|request, table| request.clear(&table(name)).unwrap()).expect("the clear is done")
    }

    pub(super) fn get(&self, name: &str, key: &str) -> Option<String> {
        self.table(name).get(key).map(|record| record.value().to_owned())
    }

    /// Every record in order.
    pub(super) fn all(&self, name: &str) -> Vec<(String, String)> {
        contents(&self.table(name))
    }

    pub(super) fn flush(&self, name: &str) -> Result<Flushed, Error> {
        self.store().flush(&place(name), FlushHow::default())
    }

    pub(super) fn commit(&self) -> Result<Seq, Error> {
        self.store().sync_through(self.store().applied())
    }

    /// What the namespace's file holds.
    pub(super) fn in_file(&self, name: &str) -> Vec<(String, String)> {
        let mut records = Vec::new();
        json::load_object(&self.disk.read_file(file(name)), &mut |key, value| {
            records.push((key.to_owned(), value.to_owned()));
        })
        .expect("a namespace's file is always whole");
        records
    }

    pub(super) fn has_file(&self, name: &str) -> bool {
        self.disk.all_files().contains(&file(name))
    }

    /// Drops the namespace, and does not flush it.
    pub(super) fn drop_records(&self, name: &str) -> Result<Dropped, Error> {
        self.store().drop_namespace(&place(name))
    }

    /// The owner ends in order and another process opens the store.
    pub(super) fn reopened(mut self) -> Self {
        self.close();
        self.opened()
    }

    /// Why the store does not open.
    pub(super) fn refused(&mut self) -> Error {
        match self.try_open() {
            Ok(()) => panic!("the store opens, with {:?}", self.store().opening()),
            Err(error) => error,
        }
    }

    /// Why the namespace is closed.
    pub(super) fn closed(&self, name: &str) -> String {
        match self.store().namespace(&place(name)) {
            Err(Error::NeedsRepair { reason, .. }) => reason,
            other => panic!("namespace {name} is not closed but {other:?}"),
        }
    }

    /// Every file on the disk with its bytes.
    pub(super) fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        self.disk.all_files().into_iter().map(|path| (path.clone(), self.disk.read_file(path))).collect()
    }

    /// The kept files of a namespace in the root, by name.
    pub(super) fn generations(&self, name: &str) -> Vec<String> {
        self.disk.names(Path::new(DIR).join(".commonhold/generations/@").join(name))
    }

    /// The lock file that guards a namespace's file.
    pub(super) fn flush_lock(name: &str) -> PathBuf {
        Path::new(DIR).join(".commonhold/flush/@").join(format!("{name}.lock"))
    }

    /// The journal's segments, oldest first.
    pub(super) fn segments(&self) -> Vec<PathBuf> {
        let directory = Path::new(DIR).join(".commonhold/journal");
        let names = self.disk.names(&directory).into_iter().filter(|name| name.strip_suffix(".log").is_some());
        names.map(|name| directory.join(name)).collect()
    }
}

pub(super) fn contents(table: &Table) -> Vec<(String, String)> {
    let page = table.scan(&ScanQuery::default()).expect("a scan from the start has no cursor to expire");
    assert!(page.next.is_none(), "the model's namespaces fit in one page");
    page.records.iter().map(|record| (record.key().to_owned(), record.value().to_owned())).collect()
}

pub(super) fn pair(key: &str, value: &str) -> (String, String) {
    (key.to_owned(), value.to_owned())
}
