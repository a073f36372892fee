//! A stream of records of any length into one namespace.

use std::collections::VecDeque;

use serde::Serialize;

use super::{BulkOptions, BulkProgress, Error, Namespace, Pending, Written};
use crate::client::bulk::{Load, Piece};
use crate::client::values::to_text;

/// Stores a stream of records of any length: it cuts it into requests, keeps several of them on their way, commits now
/// and then, and tells how far it has got, so that a load that was interrupted can go on there.
///
/// An error of the daemon or of the connection ends the load: every later call returns it, too.
/// [`committed`](Self::committed) then says what is safe; records behind it may have been stored, once each, and giving
/// them again is safe. Dropping a writer drops what was not sent; [`finish`](Self::finish) it.
///
/// ```no_run
/// # let client = commonhold::blocking::Client::connect("rag_storage")?;
/// # let records = (0..1_000_000_u64).map(|n| (format!("k{n}"), n));
/// # let done_before = 0;
/// let mut load = client.namespace("numbers")?.bulk_writer();
/// for (key, value) in records.skip(done_before) {
///     if let Err(error) = load.put(&key, &value) {
///         eprintln!("{error}; go on after record {}", load.committed().records);
///         return Err(error);
///     }
/// }
/// println!("{} records are on the platter", load.finish()?.records);
/// # Ok::<(), commonhold::blocking::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "what was not sent is lost without `finish`"]
pub struct BulkWriter {
    namespace: Namespace,
    load: Load,
    on_their_way: VecDeque<(Pending<Written>, Piece)>,
}

impl BulkWriter {
    pub(super) fn new(namespace: Namespace, options: BulkOptions) -> Self {
        let load = Load::new(namespace.target().clone(), namespace.asked_durability(), options);
        Self { namespace, load, on_their_way: VecDeque::new() }
    }

    /// Stores `value` under `key`, sooner or later.
    ///
    /// # Errors
    /// [`Error::Json`], [`Error::Name`] and [`Error::TooLarge`] for this record, without which the load can go on. Any
    /// other ends it, and may concern records that were given before.
    pub fn put<T: Serialize + ?Sized>(&mut self, key: &str, value: &T) -> Result<(), Error> {
        self.put_raw(key, &to_text(key, value)?)
    }

    /// As [`put`](Self::put), of a JSON text; the daemon checks that it is JSON.
    ///
    /// # Errors
    /// As for [`put`](Self::put); [`Error::Fault`] with [`Fault::InvalidJson`](super::Fault::InvalidJson), which names
    /// the key, ends the load.
    pub fn put_raw(&mut self, key: &str, json_text: &str) -> Result<(), Error> {
        self.make_room(key, json_text)?;
        self.load.put(key, json_text);
        Ok(())
    }

    /// Removes the record of `key` if there is one, sooner or later.
    ///
    /// # Errors
    /// As for [`put`](Self::put).
    pub fn delete(&mut self, key: &str) -> Result<(), Error> {
        self.make_room(key, "")?;
        self.load.delete(key);
        Ok(())
    }

    /// Notes where the source is after what was given so far, as the offset in a file, to be told in
    /// [`BulkProgress::mark`].
    pub fn mark(&mut self, mark: u64) {
        self.load.mark(mark);
    }

    /// How far the load is acknowledged: as durable as the store, or [`Namespace::with`], has it.
    pub fn stored(&self) -> BulkProgress {
        self.load.stored()
    }

    /// How far the load is on the platter: what nothing takes back any more.
    pub fn committed(&self) -> BulkProgress {
        self.load.committed()
    }

    /// Sends what was given so far, and puts it on the platter.
    ///
    /// # Errors
    /// Those of a write and of a commit; they end the load.
    pub fn commit(&mut self) -> Result<BulkProgress, Error> {
        self.load.check()?;
        self.send()?;
        while !self.on_their_way.is_empty() {
            self.take_oldest()?;
        }
        self.commit_stored()?;
        Ok(self.committed())
    }

    /// Sends the rest, puts all on the platter, and tells how much it was.
    ///
    /// # Errors
    /// As for [`commit`](Self::commit).
    pub fn finish(mut self) -> Result<BulkProgress, Error> {
        self.commit()
    }

    fn make_room(&mut self, key: &str, json_text: &str) -> Result<(), Error> {
        self.load.check_record(key, json_text)?;
        if self.load.is_full_for(key.len() + json_text.len()) {
            self.send()?;
        }
        Ok(())
    }

    fn send(&mut self) -> Result<(), Error> {
        if let Some((batch, piece)) = self.load.cut() {
            let pending = self.namespace.client().begin(&batch).map_err(|error| self.load.fail(error))?;
            self.on_their_way.push_back((pending, piece));
        }
        while self.on_their_way.len() > self.load.in_flight() {
            self.take_oldest()?;
        }
        if self.load.commit_is_due() {
            self.commit_stored()?;
        }
        Ok(())
    }

    fn take_oldest(&mut self) -> Result<(), Error> {
        if let Some((pending, piece)) = self.on_their_way.pop_front() {
            let written = pending.wait().map_err(|error| self.load.fail(error))?;
            self.load.note_stored(piece, written);
        }
        Ok(())
    }

    fn commit_stored(&mut self) -> Result<(), Error> {
        let stored = self.load.stored();
        if stored.records == self.load.committed().records {
            return Ok(());
        }
        self.namespace.client().commit().map_err(|error| self.load.fail(error))?;
        self.load.note_committed(stored);
        Ok(())
    }
}
