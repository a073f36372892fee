//! A write request as the engine takes it: checked, canonical, its records built. All of that is done before the turn.

use std::sync::Arc;

use commonhold_proto::limits::{MAX_CHANGED_VALUE_BYTES, MAX_NESTING, MAX_OPERATIONS, MAX_VALUE_BYTES};
use commonhold_proto::names::check_key;
use commonhold_proto::{Condition, Durability, Number, Seq};
use smallvec::SmallVec;

use super::change::{Change, How, Stamp, changed_bytes};
use super::error::Error;
use super::grant::Grant;
use super::journal::{EFFECT_BYTES, Earlier, PLACE_BYTES, WRITE_BYTES, WriteHead};
use super::map::Record;
use super::once::{Fence, First, Numbered};
use super::table::Table;
use super::writer::FREED_LATER;
use crate::json::{self, Canonical, Canonicalizer};

/// A list that nearly always has one item, and then no memory of its own.
pub(super) type Few<T> = SmallVec<[T; 1]>;

/// An atomic write: all its operations take effect under one [`Seq`], or none does.
#[derive(Debug)]
pub struct WriteRequest {
    pub(super) client: u128,
    pub(super) number: u64,
    /// What it says of its number, if it is to be done only once.
    pub(super) once: Option<Numbered>,
    /// What its connection may be shut out by.
    pub(super) fence: Option<Fence>,
    /// It is done while this is live, or not at all.
    pub(super) grant: Option<Grant>,
    pub(super) durability: Option<Durability>,
    pub(super) tables: Few<Arc<Table>>,
    pub(super) ops: Few<Op>,
    pub(super) surrogates_removed: u64,
    /// What its operations add to the journal, at most.
    weight: usize,
    /// What reads its values, from the first of them on.
    reading: Option<Box<Canonicalizer>>,
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
    Change(Box<Change>),
}

impl What {
    /// The key that it is about; none for a clear.
    pub(super) fn key(&self) -> Option<&str> {
        match self {
            Self::Put(record) | Self::Delete(record) => Some(record.key()),
            Self::Change(change) => Some(&change.key),
            Self::Clear => None,
        }
    }
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

impl Written {
    /// What an earlier sending of a request was answered, and what follows from the request itself.
    pub(super) fn first(first: First, surrogates_removed: u64) -> Self {
        let First { seq, new, found } = first;
        Self { seq, new, found, surrogates_removed }
    }
}

/// What reads values is kept for the next request if it has no more memory than this.
const KEPT_BYTES: usize = 64 * 1024;

/// Longest piece of a key that an error repeats.
const SHOWN_KEY_CHARS: usize = 80;

impl WriteRequest {
    /// An empty request, numbered by its client.
    pub fn new(client: u128, number: u64) -> Self {
        Self {
            client,
            number,
            once: None,
            fence: None,
            grant: None,
            durability: None,
            tables: Few::new(),
            ops: Few::new(),
            surrogates_removed: 0,
            weight: 0,
            reading: None,
        }
    }

    /// Makes room for so many operations, which are yet to come.
    pub fn expect(&mut self, operations: usize) {
        self.ops.reserve(operations.min(MAX_OPERATIONS));
    }

    /// Its values are read with this, which [`complete`](Self::complete) gives back.
    pub fn read_with(&mut self, reading: Option<Box<Canonicalizer>>) {
        self.reading = reading;
    }

    /// It has all its operations: gives back what only reading them took, unless that has become large.
    pub fn complete(&mut self) -> Option<Box<Canonicalizer>> {
        self.reading.take().filter(|reading| reading.bytes() <= KEPT_BYTES)
    }

    /// It is done once, however often it is sent under its number: a repeat is answered as the first one was. The client
    /// knows what became of its writes below the number `settled`. `earlier` if it may have been sent before.
    ///
    /// A write whose first outcome cannot be known any more is [`Error::OutcomeUnknown`], and is not done.
    pub fn once(&mut self, settled: u64, earlier: Option<Earlier>) {
        self.once = Some(Numbered { client: self.client, number: self.number, settled, earlier });
    }

    /// It is not done once this fence is raised.
    pub fn behind(&mut self, fence: &Fence) {
        self.fence = Some(fence.clone());
    }

    /// It is done only while this grant is live.
    pub fn under(&mut self, grant: Grant) {
        self.grant = Some(grant);
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
        let canonical = checked(&mut self.reading, key, value, MAX_VALUE_BYTES, value_bytes)?;
        let record = Record::new(key, &canonical.text);
        self.push(table, What::Put(record), condition)?;
        self.surrogates_removed += canonical.surrogates_removed;
        Ok(())
    }

    /// As [`put`](Self::put) of an object in which `create_time`, `update_time` (`now_s`, seconds since 1970) and `_id`
    /// (the key) are set. A record that is replaced keeps its `create_time`.
    ///
    /// # Errors
    /// As for `put`, and [`Error::WrongType`] if the value is not an object.
    pub fn put_stamped(
        &mut self,
        table: &Arc<Table>,
        key: &str,
        value: &str,
        now_s: u64,
        condition: Condition,
    ) -> Result<(), Error> {
        let canonical = checked(&mut self.reading, key, value, MAX_VALUE_BYTES, value_bytes)?;
        let stamp = Stamp::new(key, &canonical.text, now_s, table.get(key)).ok_or_else(|| Error::WrongType {
            operation: self.ops.len() as u32,
            key: shown(key),
            field: None,
            needed: "an object to be stamped".to_owned(),
            found: format!("the one given is {}", json::type_words(&canonical.text)),
        })?;
        let weight = stamp.expected().bytes();
        self.push_change(table, key, How::Stamp(stamp), weight, condition)?;
        self.surrogates_removed += canonical.surrogates_removed;
        Ok(())
    }

    /// Sets the fields of a record's object, at its top level, to those of `fields`, the text of an object. Without a
    /// record one is made.
    ///
    /// # Errors
    /// [`Error::InvalidJson`], [`Error::TooLarge`], [`Error::Name`] for a long key; the request is then as before.
    pub fn merge(&mut self, table: &Arc<Table>, key: &str, fields: &str, condition: Condition) -> Result<(), Error> {
        let canonical = checked(&mut self.reading, key, fields, MAX_CHANGED_VALUE_BYTES, changed_bytes)?;
        let what = json::type_words(&canonical.text);
        let surrogates_removed = canonical.surrogates_removed;
        let fields = json::Fields::of(canonical.text.into_owned())
            .ok_or_else(|| no_operand(key, "an object of fields to merge", what))?;
        let weight = fields.bytes();
        self.push_change(table, key, How::Merge(fields), weight, condition)?;
        self.surrogates_removed += surrogates_removed;
        Ok(())
    }

    /// Adds `by` to the number in a field of a record's object. Without a record one is made, and a missing field is 0.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Name`] for a long key or field.
    pub fn increment(
        &mut self,
        table: &Arc<Table>,
        key: &str,
        field: &str,
        by: Number,
        condition: Condition,
    ) -> Result<(), Error> {
        check_key(key)?;
        check_key(field)?;
        let weight = field.len();
        self.push_change(table, key, How::Increment { field: field.into(), by }, weight, condition)
    }

    /// Adds `items`, the text of a list, to the end of the list in a field of a record's object, of which then only the
    /// last `keep_last` items stay. Without a record one is made, and a missing field is `[]`.
    ///
    /// # Errors
    /// [`Error::InvalidJson`], [`Error::TooLarge`], [`Error::Name`] for a long key or field.
    pub fn append(
        &mut self,
        table: &Arc<Table>,
        key: &str,
        field: &str,
        items: &str,
        keep_last: Option<u32>,
        condition: Condition,
    ) -> Result<(), Error> {
        check_key(field)?;
        let canonical = checked(&mut self.reading, key, items, MAX_CHANGED_VALUE_BYTES, changed_bytes)?;
        let items = &*canonical.text;
        if !items.starts_with('[') {
            return Err(no_operand(key, "a list of items to append", json::type_words(items)));
        }
        // The list will lie in an object: a value that nests too deep could not be loaded again.
        let nesting = json::nesting(items) + 1;
        if nesting > MAX_NESTING {
            let what = format!("levels of nesting in the value of key {:?}", shown(key));
            return Err(Error::TooLarge { what, got: nesting as u64, limit: MAX_NESTING as u64 });
        }
        let (weight, keep_last) = (items.len(), keep_last.map(|keep| keep as usize));
        let how = How::Append { field: field.into(), items: items.into(), keep_last };
        self.push_change(table, key, how, weight, condition)?;
        self.surrogates_removed += canonical.surrogates_removed;
        Ok(())
    }

    fn push_change(
        &mut self,
        table: &Arc<Table>,
        key: &str,
        how: How,
        adds: usize,
        condition: Condition,
    ) -> Result<(), Error> {
        let now = if matches!(how, How::Stamp(_)) { 0 } else { table.get(key).map_or(0, |record| record.bytes()) };
        let change = Change { key: key.into(), how, weight: now + adds };
        self.push(table, What::Change(Box::new(change)), condition)
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

    /// Whether it may have been sent before.
    pub(super) fn is_repeat(&self) -> bool {
        self.once.is_some_and(|once| once.earlier.is_some())
    }

    pub(super) fn head(&self) -> WriteHead {
        let behind = self.once.map_or(0, |once| behind(self.number, once.settled));
        WriteHead { client: self.client, number: self.number, behind, new: 0, found: 0 }
    }

    /// Whether it is to volatile namespaces.
    pub fn is_volatile(&self) -> bool {
        self.tables.first().is_some_and(|table| table.is_volatile())
    }

    fn push(&mut self, table: &Arc<Table>, what: What, condition: Condition) -> Result<(), Error> {
        if self.tables.first().is_some_and(|first| first.kind() != table.kind()) {
            return Err(Error::MixedKinds);
        }
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
        let adds = match &what {
            What::Put(record) | What::Delete(record) => record.bytes(),
            What::Change(change) => change.weight,
            What::Clear => 0,
        };
        self.weight += adds + EFFECT_BYTES;
        self.ops.push(Op { table: table as u16, what, condition });
        Ok(())
    }

    /// Names each table once, after some were replaced.
    pub(super) fn join_tables(&mut self) {
        let mut joined: Few<Arc<Table>> = Few::with_capacity(self.tables.len());
        let mut now_at = Vec::with_capacity(self.tables.len());
        for table in self.tables.drain(..) {
            let known = joined.iter().position(|known| Arc::ptr_eq(known, &table));
            now_at.push(known.unwrap_or(joined.len()) as u16);
            if known.is_none() {
                joined.push(table);
            }
        }
        self.tables = joined;
        for op in &mut self.ops {
            op.table = now_at[usize::from(op.table)];
        }
    }

    /// Whether it only deletes and clears: then it may use the room that is kept for that on a full disk.
    pub(super) fn only_frees(&self) -> bool {
        self.ops.iter().all(|op| matches!(op.what, What::Delete(_) | What::Clear))
    }

    /// Whether it may leave something to [`Store::free_replaced`](super::Store::free_replaced).
    pub fn may_replace_many(&self) -> bool {
        self.ops.len() >= FREED_LATER
    }

    /// At most how many bytes it adds to the journal; of changes, as far as that can be told before they are evaluated.
    pub fn weight(&self) -> usize {
        let of_place = |table: &Arc<Table>| {
            let place = table.place();
            place.workspace.as_str().len() + place.namespace.as_str().len() + PLACE_BYTES
        };
        let places: usize = self.tables.iter().map(of_place).sum();
        self.weight + places + WRITE_BYTES
    }
}

/// How many numbers below this one are not settled.
pub(super) fn behind(number: u64, settled: u64) -> u32 {
    u32::try_from(number.saturating_sub(settled)).unwrap_or(u32::MAX)
}

/// The canonical text of a value or an operand, both within `limit`.
fn checked<'a>(
    reading: &mut Option<Box<Canonicalizer>>,
    key: &str,
    text: &'a str,
    limit: usize,
    what: fn(&str) -> String,
) -> Result<Canonical<'a>, Error> {
    check_key(key)?;
    if text.len() > limit {
        return Err(Error::TooLarge { what: what(key), got: text.len() as u64, limit: limit as u64 });
    }
    reading.get_or_insert_default().canonical(text).map_err(|error| Error::InvalidJson {
        key: shown(key),
        offset: error.offset as u64,
        reason: error.reason(),
    })
}

fn value_bytes(key: &str) -> String {
    format!("bytes in the value of key {:?}", shown(key))
}

/// The text given with an operation is JSON of another type than it needs.
fn no_operand(key: &str, needed: &str, found: &str) -> Error {
    Error::InvalidJson { key: shown(key), offset: 0, reason: format!("found {found} where {needed} was expected") }
}

/// As much of a key or field as an error repeats.
pub(super) fn shown(key: &str) -> String {
    key.chars().take(SHOWN_KEY_CHARS).collect()
}
