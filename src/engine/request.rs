//! A write request as the engine takes it: checked, canonical, its records built. All of that is done before the turn.

use std::sync::Arc;

use commonhold_proto::limits::{MAX_OPERATIONS, MAX_VALUE_BYTES};
use commonhold_proto::names::check_key;
use commonhold_proto::{Condition, Durability, Seq};

use super::error::Error;
use super::map::Record;
use super::table::Table;
use crate::json;

/// An atomic write: all its operations take effect under one [`Seq`], or none does.
#[derive(Debug)]
pub struct WriteRequest {
    pub(super) client: u128,
    pub(super) number: u64,
    pub(super) durability: Option<Durability>,
    pub(super) tables: Vec<Arc<Table>>,
    pub(super) ops: Vec<Op>,
    pub(super) surrogates_removed: u64,
}

/// An operation. Deletes carry a record without a value, so that every key lies in the same kind of place.
#[derive(Debug)]
pub(super) struct Op {
    pub(super) table: u16,
    pub(super) what: What,
    pub(super) condition: Condition,
}

#[derive(Debug)]
pub(super) enum What {
    Put(Record),
    Delete(Record),
    Clear,
}

/// What became of a write request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its number in the order of the store.
    pub seq: Seq,
    /// How many keys were new.
    pub new: u64,
    /// How many keys were found: replaced, deleted or cleared.
    pub found: u64,
    /// How many lone surrogates were removed from strings.
    pub surrogates_removed: u64,
}

/// Longest piece of a key that an error repeats.
const SHOWN_KEY_CHARS: usize = 80;

impl WriteRequest {
    /// An empty request, numbered by its client.
    pub fn new(client: u128, number: u64) -> Self {
        Self { client, number, durability: None, tables: Vec::new(), ops: Vec::new(), surrogates_removed: 0 }
    }

    /// How durable it must be before [`Store::write`](super::Store::write) returns; less than the store's durability
    /// gives the store's.
    pub fn durability(&mut self, durability: Option<Durability>) {
        self.durability = durability;
    }

    /// How many lone surrogates were removed from strings so far.
    pub fn surrogates_removed(&self) -> u64 {
        self.surrogates_removed
    }

    /// Stores `value`, one JSON text. A key that exists keeps its place in the order, a new one goes to the end.
    ///
    /// # Errors
    /// [`Error::InvalidJson`], [`Error::TooLarge`], [`Error::Name`] for a long key; the request is then as before.
    pub fn put(&mut self, table: &Arc<Table>, key: &str, value: &str, condition: Condition) -> Result<(), Error> {
        check_key(key)?;
        if value.len() > MAX_VALUE_BYTES {
            return Err(Error::TooLarge {
                what: format!("bytes in the value of key {:?}", shown(key)),
                got: value.len() as u64,
                limit: MAX_VALUE_BYTES as u64,
            });
        }
        let canonical = json::canonical(value).map_err(|error| Error::InvalidJson {
            key: shown(key),
            offset: error.offset as u64,
            reason: error.reason(),
        })?;
        let record = Record::new(key, &canonical.text);
        self.push(table, What::Put(record), condition)?;
        self.surrogates_removed += canonical.surrogates_removed;
        Ok(())
    }

    /// Removes a record if there is one.
    ///
    /// # Errors
    /// [`Error::Name`] for a long key, [`Error::TooLarge`] for too many operations.
    pub fn delete(&mut self, table: &Arc<Table>, key: &str, condition: Condition) -> Result<(), Error> {
        check_key(key)?;
        self.push(table, What::Delete(Record::new(key, "")), condition)
    }

    /// Removes every record of a namespace.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for too many operations.
    pub fn clear(&mut self, table: &Arc<Table>) -> Result<(), Error> {
        self.push(table, What::Clear, Condition::Always)
    }

    fn push(&mut self, table: &Arc<Table>, what: What, condition: Condition) -> Result<(), Error> {
        if self.ops.len() == MAX_OPERATIONS {
            return Err(Error::TooLarge {
                what: "operations in one request".to_owned(),
                got: self.ops.len() as u64 + 1,
                limit: MAX_OPERATIONS as u64,
            });
        }
        // Nearly always the last one; a request names few namespaces.
        let known = self.tables.iter().rposition(|known| Arc::ptr_eq(known, table));
        let table = known.unwrap_or_else(|| {
            self.tables.push(Arc::clone(table));
            self.tables.len() - 1
        });
        self.ops.push(Op { table: table as u16, what, condition });
        Ok(())
    }

    /// About how many bytes it adds to the journal.
    pub(super) fn weight(&self) -> usize {
        let of = |op: &Op| match &op.what {
            What::Put(record) | What::Delete(record) => record.bytes(),
            What::Clear => 0,
        };
        self.ops.iter().map(|op| of(op) + super::journal::EFFECT_BYTES).sum::<usize>() + super::journal::WRITE_BYTES
    }
}

fn shown(key: &str) -> String {
    key.chars().take(SHOWN_KEY_CHARS).collect()
}
