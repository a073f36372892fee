//! One namespace: reading and writing its records.

use commonhold_proto::limits::MAX_OPERATIONS;
use commonhold_proto::names::check_key;
use commonhold_proto::{Condition, Op, Place, Space, Verb};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Batch, Client, Cursor, Error, FlushOptions, Flushed, Page, Pending, Scan, Value, Written};
use crate::client::batch::{check_value, write_verb};
use crate::client::core::Reply;
use crate::client::read;
use crate::client::values::{parse, to_text};

/// An ordered map of JSON values under string keys, shared by all clients of the store. Clones are the same namespace.
///
/// Every call that sends something fails with [`Error::NoDaemon`], [`Error::Lost`] or [`Error::TimedOut`] when it
/// cannot be sent or answered in time, with [`Error::Name`] or [`Error::TooLarge`] when a key, a value or a request is
/// over its [limit](commonhold_proto::limits), and with [`Error::Fault`] when the daemon refuses it, as
/// [`Fault::NeedsRepair`](super::Fault::NeedsRepair) for a namespace whose file could not be read. Writes may besides
/// end in [`Error::OutcomeUnknown`]. What is told below comes on top of that.
#[derive(Clone, Debug)]
pub struct Namespace {
    client: Client,
    place: Place,
}

impl AsRef<Place> for Namespace {
    fn as_ref(&self) -> &Place {
        &self.place
    }
}

impl Namespace {
    pub(super) fn new(client: Client, place: Place) -> Self {
        Self { client, place }
    }

    /// Its workspace and name.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The client it belongs to.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The value of `key` as a `T`; `None` if there is no such record.
    ///
    /// # Errors
    /// [`Error::NotRepresentable`] if there is a value, and it is no `T`: `NaN`, nesting deeper than serde reads, or
    /// another type. Integers beyond 64 bits become floats in a [`serde_json::Value`]; [`get_raw`](Self::get_raw)
    /// gives every value as it is.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        read::got(&self.ask_get(key)?, |text, _| parse(key, text))?.transpose()
    }

    /// The value of `key` as JSON text, with the write that stored it; `None` if there is no such record.
    ///
    /// # Errors
    /// Those of every call.
    pub fn get_raw(&self, key: &str) -> Result<Option<Value>, Error> {
        read::value(&self.ask_get(key)?)
    }

    /// Sends a [`get_raw`](Self::get_raw) without waiting for its answer.
    ///
    /// # Errors
    /// Those of every call; those that the daemon answers come from [`Pending::wait`].
    pub fn get_raw_later(&self, key: &str) -> Result<Pending<Option<Value>>, Error> {
        check_key(key)?;
        self.begin(Verb::Get { space: self.space(), key }, read::value)
    }

    /// The values of several keys as they are at one moment, in the order of the keys.
    ///
    /// # Errors
    /// As for [`get`](Self::get); [`Error::TooLarge`] for more than [`MAX_OPERATIONS`] keys.
    pub fn get_many<T: DeserializeOwned>(&self, keys: &[impl AsRef<str>]) -> Result<Vec<Option<T>>, Error> {
        let reply = self.ask_many(keys, |space, keys| Verb::GetMany { space, keys })?;
        let found = read::got_many(&reply, keys.len(), |index, text, _| parse(keys[index].as_ref(), text))?;
        found.into_iter().map(Option::transpose).collect()
    }

    /// As [`get_many`](Self::get_many), as JSON texts.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for more than [`MAX_OPERATIONS`] keys.
    pub fn get_many_raw(&self, keys: &[impl AsRef<str>]) -> Result<Vec<Option<Value>>, Error> {
        let reply = self.ask_many(keys, |space, keys| Verb::GetMany { space, keys })?;
        read::got_many(&reply, keys.len(), |_, text, seq| Value::new(text, seq))
    }

    /// Which of these keys have no record: indexes into `keys`, rising.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for more than [`MAX_OPERATIONS`] keys.
    pub fn filter_missing(&self, keys: &[impl AsRef<str>]) -> Result<Vec<usize>, Error> {
        let reply = self.ask_many(keys, |space, keys| Verb::FilterMissing { space, keys })?;
        read::missing(&reply, keys.len())
    }

    /// Whether there is a record of `key`.
    ///
    /// # Errors
    /// Those of every call.
    pub fn contains(&self, key: &str) -> Result<bool, Error> {
        check_key(key)?;
        read::contains(&self.ask(Verb::Contains { space: self.space(), key })?)
    }

    /// How many records there are.
    ///
    /// # Errors
    /// Those of every call.
    pub fn len(&self) -> Result<u64, Error> {
        read::len(&self.ask(Verb::Len { space: self.space() })?)
    }

    /// Whether there are no records.
    ///
    /// # Errors
    /// Those of every call.
    pub fn is_empty(&self) -> Result<bool, Error> {
        Ok(self.len()? == 0)
    }

    /// Stores `value` under `key`, replacing any earlier value.
    ///
    /// When it returns, the write is as durable as the store's `--durability` says; a [`Batch`] can ask for more.
    ///
    /// # Errors
    /// [`Error::Json`] if serde cannot write the value. A float that is `NaN` or infinite it writes as `null`;
    /// [`put_raw`](Self::put_raw) stores it as it is.
    pub fn put<T: Serialize + ?Sized>(&self, key: &str, value: &T) -> Result<Written, Error> {
        self.put_raw(key, &to_text(key, value)?)
    }

    /// Stores JSON text under `key`, replacing any earlier value.
    ///
    /// # Errors
    /// [`Error::Fault`] with [`Fault::InvalidJson`](super::Fault::InvalidJson), which tells the place in the text.
    pub fn put_raw(&self, key: &str, json_text: &str) -> Result<Written, Error> {
        read::written(&self.ask(self.put_verb(key, json_text)?)?)
    }

    /// Sends a [`put`](Self::put) without waiting for its answer.
    ///
    /// # Errors
    /// As for [`put`](Self::put); those that the daemon answers come from [`Pending::wait`].
    pub fn put_later<T: Serialize + ?Sized>(&self, key: &str, value: &T) -> Result<Pending<Written>, Error> {
        self.put_raw_later(key, &to_text(key, value)?)
    }

    /// Sends a [`put_raw`](Self::put_raw) without waiting for its answer.
    ///
    /// # Errors
    /// As for [`put_raw`](Self::put_raw); those that the daemon answers come from [`Pending::wait`].
    pub fn put_raw_later(&self, key: &str, json_text: &str) -> Result<Pending<Written>, Error> {
        self.begin(self.put_verb(key, json_text)?, read::written)
    }

    /// Removes the record of `key`; [`Written::found`] tells whether there was one.
    ///
    /// # Errors
    /// Those of every call.
    pub fn delete(&self, key: &str) -> Result<Written, Error> {
        check_key(key)?;
        let op = Op::Delete { space: 0, key, condition: Condition::Always };
        read::written(&self.ask(write_verb(vec![self.space()], vec![op], None))?)
    }

    /// Stores several records at once: all of them, under one Seq, or none.
    ///
    /// ```no_run
    /// # let client = commonhold::blocking::Client::connect("rag_storage")?;
    /// # let chunks = client.namespace("text_chunks")?;
    /// chunks.upsert([("chunk-1", "first"), ("chunk-2", "second")])?;
    /// # Ok::<(), commonhold::blocking::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`put`](Self::put); [`Error::TooLarge`] for more than [`MAX_OPERATIONS`] records.
    pub fn upsert<K: AsRef<str>, T: Serialize>(
        &self,
        records: impl IntoIterator<Item = (K, T)>,
    ) -> Result<Written, Error> {
        let batch =
            records.into_iter().try_fold(Batch::new(), |batch, (key, value)| batch.put(self, key.as_ref(), &value))?;
        self.client.write(&batch)
    }

    /// Removes several records at once; [`Written::found`] tells how many there were.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for more than [`MAX_OPERATIONS`] keys.
    pub fn delete_many(&self, keys: &[impl AsRef<str>]) -> Result<Written, Error> {
        let batch = keys.iter().try_fold(Batch::new(), |batch, key| batch.delete(self, key.as_ref()))?;
        self.client.write(&batch)
    }

    /// Removes every record.
    ///
    /// # Errors
    /// Those of every call.
    pub fn clear(&self) -> Result<Written, Error> {
        self.client.write(&Batch::new().clear(self)?)
    }

    /// All records in insertion order, page by page.
    ///
    /// ```no_run
    /// # let client = commonhold::blocking::Client::connect("rag_storage")?;
    /// # let docs = client.namespace("full_docs")?;
    /// for entry in docs.scan().prefix("doc-") {
    ///     let entry = entry?;
    ///     println!("{} was written by {}", entry.key, entry.seq);
    /// }
    /// # Ok::<(), commonhold::blocking::Error>(())
    /// ```
    pub fn scan(&self) -> Scan {
        Scan::new(self.clone())
    }

    /// One page of a scan, for callers that keep the cursor themselves: of at most `limit` records (0 leaves it to the
    /// daemon) whose keys begin with `prefix`, after `cursor`, with or without `values`.
    ///
    /// # Errors
    /// [`Error::Fault`] with [`Fault::CursorExpired`](super::Fault::CursorExpired) if the namespace was loaded anew and
    /// the cursor's record is gone.
    pub fn scan_page(&self, cursor: Option<&Cursor>, prefix: &str, limit: u32, values: bool) -> Result<Page, Error> {
        check_key(prefix)?;
        let cursor = cursor.map(Cursor::to_wire);
        read::page(&self.ask(Verb::Scan { space: self.space(), cursor, prefix, limit, values })?)
    }

    /// Commits, and brings the namespace's JSON file up to date; nothing to do is no error and quick.
    ///
    /// # Errors
    /// [`Error::Fault`] with [`Fault::FlushFailed`](super::Fault::FlushFailed) or
    /// [`Fault::FlushLockTimeout`](super::Fault::FlushLockTimeout): nothing is lost, flush again.
    pub fn flush(&self) -> Result<Flushed, Error> {
        self.flush_with(FlushOptions::default())?.ok_or_else(|| Error::protocol("it did not wait for the flush"))
    }

    /// As [`flush`](Self::flush), with options; `None` if it was not to be waited for.
    ///
    /// # Errors
    /// As for [`flush`](Self::flush).
    pub fn flush_with(&self, options: FlushOptions) -> Result<Option<Flushed>, Error> {
        let verb = Verb::Flush { space: Some(self.space()), rewrite: options.rewrite, wait: options.wait };
        let session = &self.client.session;
        read::flushed(&session.call(verb, session.options().flush_timeout)?)
    }

    fn space(&self) -> Space<'_> {
        Space::persistent(&self.place)
    }

    fn put_verb<'a>(&'a self, key: &'a str, json_text: &'a str) -> Result<Verb<'a>, Error> {
        check_key(key)?;
        check_value(key, json_text)?;
        let op = Op::Put { space: 0, key, value: json_text, condition: Condition::Always };
        Ok(write_verb(vec![self.space()], vec![op], None))
    }

    fn ask(&self, verb: Verb<'_>) -> Result<Reply, Error> {
        let session = &self.client.session;
        session.call(verb, session.options().timeout)
    }

    fn ask_get(&self, key: &str) -> Result<Reply, Error> {
        check_key(key)?;
        self.ask(Verb::Get { space: self.space(), key })
    }

    fn ask_many<'a>(
        &'a self,
        keys: &'a [impl AsRef<str>],
        verb: impl FnOnce(Space<'a>, Vec<&'a str>) -> Verb<'a>,
    ) -> Result<Reply, Error> {
        if keys.len() > MAX_OPERATIONS {
            return Err(Error::too_large("keys in the request", keys.len(), MAX_OPERATIONS));
        }
        let keys = keys.iter().map(|key| check_key(key.as_ref()).map(|()| key.as_ref()));
        self.ask(verb(self.space(), keys.collect::<Result<_, _>>()?))
    }

    fn begin<T>(&self, verb: Verb<'_>, read: fn(&Reply) -> Result<T, Error>) -> Result<Pending<T>, Error> {
        let session = &self.client.session;
        Ok(Pending::new(session, session.begin(verb, session.options().timeout)?, read))
    }
}
