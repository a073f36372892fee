//! One namespace: reading and writing its records.

use std::sync::Arc;

#[cfg(doc)]
use commonhold_proto::limits::MAX_OPERATIONS;
use commonhold_proto::{Durability, Kind, Number, Op, Place, Verb};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{
    Batch, BulkOptions, BulkWriter, Client, Cursor, Dropped, Error, FlushOptions, Flushed, GetAll, Page, Pending, Scan,
    Target, Value, Watch, WatchOptions, Written,
};
use crate::client::core::Reply;
use crate::client::near::{Held, Looked};
use crate::client::values::{parse, to_text};
use crate::client::{read, verbs};

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
    target: Arc<Target>,
    durability: Option<Durability>,
}

impl AsRef<Target> for Namespace {
    fn as_ref(&self) -> &Target {
        &self.target
    }
}

impl Namespace {
    pub(super) fn new(client: Client, place: Place) -> Self {
        Self { client, target: Arc::new(Target::new(place, Kind::Persistent)), durability: None }
    }

    /// The volatile namespace of this name: it lives in the daemon's memory alone, never has a file, and is gone with
    /// the daemon. Of which kind a namespace is, its first opener decides; the other kind is then refused with
    /// [`Fault::KindMismatch`](super::Fault::KindMismatch).
    ///
    /// ```no_run
    /// # let client = commonhold::blocking::Client::connect("rag_storage")?;
    /// let progress = client.namespace("pipeline_status")?.volatile();
    /// progress.put("busy", &true)?;
    /// # Ok::<(), commonhold::blocking::Error>(())
    /// ```
    #[must_use]
    pub fn volatile(mut self) -> Self {
        self.target = Arc::new(Target::new(self.target.place().clone(), Kind::Volatile));
        self
    }

    /// The same namespace, whose writes (not those of a [`Batch`] of your own, which has its own) are acknowledged only
    /// when they are so durable. Less than the store has gives what the store has.
    ///
    /// ```no_run
    /// use commonhold::blocking::{Client, Durability};
    /// let client = Client::connect("rag_storage")?;
    /// let docs = client.namespace("full_docs")?;
    /// docs.with(Durability::Synced).put("doc-1", "survives a power cut from here on")?;
    /// # Ok::<(), commonhold::blocking::Error>(())
    /// ```
    #[must_use]
    pub fn with(&self, durability: Durability) -> Self {
        Self { durability: Some(durability), ..self.clone() }
    }

    /// Its workspace and name.
    pub fn place(&self) -> &Place {
        self.target.place()
    }

    /// Whether it is kept or lives in memory only.
    pub fn kind(&self) -> Kind {
        self.target.kind()
    }

    pub(super) fn asked_durability(&self) -> Option<Durability> {
        self.durability
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
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
        match self.look(key)? {
            Looked::Kept(held) => held.map(|held| parse(key, held.text())).transpose(),
            Looked::Answered(reply) => read::got(&reply, |text, _| parse(key, text))?.transpose(),
        }
    }

    /// The value of `key` as JSON text, with the write that stored it; `None` if there is no such record.
    ///
    /// # Errors
    /// Those of every call.
    pub fn get_raw(&self, key: &str) -> Result<Option<Value>, Error> {
        match self.look(key)? {
            Looked::Kept(held) => Ok(held.map(Value::kept)),
            Looked::Answered(reply) => read::value(&reply),
        }
    }

    /// Sends a [`get_raw`](Self::get_raw) without waiting for its answer. A [`Pipeline`](super::Pipeline) gathers it.
    ///
    /// # Errors
    /// Those of every call; those that the daemon answers come from [`Pending::wait`].
    pub fn get_raw_later(&self, key: &str) -> Result<Pending<Option<Value>>, Error> {
        self.begin(verbs::get(&self.target, key)?, read::value)
    }

    /// The values of several keys as they are at one moment, in the order of the keys.
    ///
    /// # Errors
    /// As for [`get`](Self::get); [`Error::TooLarge`] for more than [`MAX_OPERATIONS`] keys.
    pub fn get_many<T: DeserializeOwned>(&self, keys: &[impl AsRef<str>]) -> Result<Vec<Option<T>>, Error> {
        if let Some(values) = self.look_at_many(keys)? {
            let value = |(key, held): (_, Option<Held>)| held.map(|held| parse(key, held.text())).transpose();
            return keys.iter().map(AsRef::as_ref).zip(values).map(value).collect();
        }
        let reply = self.ask(verbs::get_many(&self.target, keys)?)?;
        let found = read::got_many(&reply, keys.len(), |index, text, _| parse(keys[index].as_ref(), text))?;
        found.into_iter().map(Option::transpose).collect()
    }

    /// As [`get_many`](Self::get_many), as JSON texts.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for more than [`MAX_OPERATIONS`] keys.
    pub fn get_many_raw(&self, keys: &[impl AsRef<str>]) -> Result<Vec<Option<Value>>, Error> {
        if let Some(values) = self.look_at_many(keys)? {
            return Ok(values.into_iter().map(|held| held.map(Value::kept)).collect());
        }
        let reply = self.ask(verbs::get_many(&self.target, keys)?)?;
        read::got_many(&reply, keys.len(), |_, text, seq| Value::new(text, seq))
    }

    /// Which of these keys have no record: indexes into `keys`, rising.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for more than [`MAX_OPERATIONS`] keys.
    pub fn filter_missing(&self, keys: &[impl AsRef<str>]) -> Result<Vec<usize>, Error> {
        let reply = self.ask(verbs::filter_missing(&self.target, keys)?)?;
        read::missing(&reply, keys.len())
    }

    /// Whether there is a record of `key`.
    ///
    /// # Errors
    /// Those of every call.
    pub fn contains(&self, key: &str) -> Result<bool, Error> {
        if let Some(found) = self.client.session().near().find(&self.target, key) {
            return Ok(found.value.is_some());
        }
        read::contains(&self.ask(verbs::contains(&self.target, key)?)?)
    }

    /// How many records there are.
    ///
    /// # Errors
    /// Those of every call.
    pub fn len(&self) -> Result<u64, Error> {
        read::len(&self.ask(Verb::Len { space: self.target.space() })?)
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
    /// When it returns, the write is as durable as the store's `--durability` says; [`with`](Self::with)
    /// asks for more.
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
        self.write(verbs::put(key, json_text)?)
    }

    /// Sends a [`put`](Self::put) without waiting for its answer. A [`Pipeline`](super::Pipeline) gathers it.
    ///
    /// # Errors
    /// As for [`put`](Self::put); those that the daemon answers come from [`Pending::wait`].
    pub fn put_later<T: Serialize + ?Sized>(&self, key: &str, value: &T) -> Result<Pending<Written>, Error> {
        self.put_raw_later(key, &to_text(key, value)?)
    }

    /// Sends a [`put_raw`](Self::put_raw) without waiting for its answer. A [`Pipeline`](super::Pipeline) gathers it.
    ///
    /// # Errors
    /// As for [`put_raw`](Self::put_raw); those that the daemon answers come from [`Pending::wait`].
    pub fn put_raw_later(&self, key: &str, json_text: &str) -> Result<Pending<Written>, Error> {
        self.begin(verbs::one(&self.target, verbs::put(key, json_text)?, self.durability), read::written)
    }

    /// Removes the record of `key`; [`Written::found`] tells whether there was one.
    ///
    /// # Errors
    /// Those of every call.
    pub fn delete(&self, key: &str) -> Result<Written, Error> {
        self.write(verbs::delete(key)?)
    }

    /// Stores a JSON object in which the daemon sets `create_time` and `update_time` (whole seconds since 1970) and
    /// `_id` (the key), as LightRAG does. A record that is replaced keeps its `create_time`.
    ///
    /// ```no_run
    /// # let client = commonhold::blocking::Client::connect("rag_storage")?;
    /// # let docs = client.namespace("full_docs")?;
    /// docs.put_stamped("doc-1", &serde_json::json!({"content": "…"}))?;
    /// # Ok::<(), commonhold::blocking::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`put`](Self::put); [`Error::Fault`] with [`Fault::WrongType`](super::Fault::WrongType) for a value that
    /// is no object.
    pub fn put_stamped<T: Serialize + ?Sized>(&self, key: &str, value: &T) -> Result<Written, Error> {
        self.write(verbs::put_stamped(key, &to_text(key, value)?)?)
    }

    /// Sets the fields of `fields`, a map or struct, in the JSON object under `key`, and leaves its others as they are.
    /// Without a record one is made of them. What other clients do to other fields meanwhile is not lost.
    ///
    /// ```no_run
    /// # let client = commonhold::blocking::Client::connect("rag_storage")?;
    /// # let status = client.namespace("doc_status")?;
    /// status.merge("doc-1", &serde_json::json!({"status": "processed"}))?;
    /// # Ok::<(), commonhold::blocking::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`put`](Self::put); [`Error::Fault`] with [`Fault::WrongType`](super::Fault::WrongType) when the record,
    /// or `fields`, is no object, and with [`Fault::TooLarge`](super::Fault::TooLarge) when the value is or becomes
    /// longer than [`MAX_CHANGED_VALUE_BYTES`](commonhold_proto::limits::MAX_CHANGED_VALUE_BYTES).
    pub fn merge<T: Serialize + ?Sized>(&self, key: &str, fields: &T) -> Result<Written, Error> {
        self.merge_raw(key, &to_text(key, fields)?)
    }

    /// As [`merge`](Self::merge), of the text of a JSON object.
    ///
    /// # Errors
    /// As for [`merge`](Self::merge) and [`put_raw`](Self::put_raw).
    pub fn merge_raw(&self, key: &str, fields: &str) -> Result<Written, Error> {
        self.write(verbs::merge(key, fields)?)
    }

    /// Adds `by`, a whole number or a float, to the number in a field of the JSON object under `key`. A missing field
    /// counts as 0, a missing record as `{}`. No addition of any client is lost.
    ///
    /// ```no_run
    /// # let client = commonhold::blocking::Client::connect("rag_storage")?;
    /// # let usage = client.namespace("usage")?;
    /// usage.increment("today", "calls", 1)?;
    /// usage.increment("today", "cost", 0.25)?;
    /// # Ok::<(), commonhold::blocking::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Fault`] with [`Fault::WrongType`](super::Fault::WrongType) when the record is no object or the field no
    /// number, and with [`Fault::Overflow`](super::Fault::Overflow) for a whole sum beyond 64 bits and
    /// for a float that is not finite.
    pub fn increment(&self, key: &str, field: &str, by: impl Into<Number>) -> Result<Written, Error> {
        self.write(verbs::increment(key, field, by.into())?)
    }

    /// Adds items to the end of the list in a field of the JSON object under `key`. A missing field counts as `[]`, a
    /// missing record as `{}`. With `keep_last`, only so many items at the end of the list are kept.
    ///
    /// ```no_run
    /// # let client = commonhold::blocking::Client::connect("rag_storage")?;
    /// # let jobs = client.namespace("jobs")?;
    /// jobs.append("job-1", "log", &["started", "parsed"], Some(100))?;
    /// # Ok::<(), commonhold::blocking::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`merge`](Self::merge); [`Fault::WrongType`](super::Fault::WrongType) also when the field is no list.
    pub fn append<T: Serialize>(
        &self,
        key: &str,
        field: &str,
        items: &[T],
        keep_last: Option<u32>,
    ) -> Result<Written, Error> {
        self.append_raw(key, field, &to_text(key, items)?, keep_last)
    }

    /// As [`append`](Self::append), of the text of a JSON array.
    ///
    /// # Errors
    /// As for [`append`](Self::append) and [`put_raw`](Self::put_raw).
    pub fn append_raw(&self, key: &str, field: &str, items: &str, keep_last: Option<u32>) -> Result<Written, Error> {
        self.write(verbs::append(key, field, items, keep_last)?)
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
        self.write_batch(batch)
    }

    /// Removes several records at once; [`Written::found`] tells how many there were.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for more than [`MAX_OPERATIONS`] keys.
    pub fn delete_many(&self, keys: &[impl AsRef<str>]) -> Result<Written, Error> {
        let batch = keys.iter().try_fold(Batch::new(), |batch, key| batch.delete(self, key.as_ref()))?;
        self.write_batch(batch)
    }

    /// Removes every record.
    ///
    /// # Errors
    /// Those of every call.
    pub fn clear(&self) -> Result<Written, Error> {
        self.write(Op::Clear { space: 0 })
    }

    /// Removes every record and the namespace's file: as if there never had been one. Earlier files of it are kept
    /// among the generations. When it returns, the file is gone.
    ///
    /// ```no_run
    /// # let client = commonhold::blocking::Client::connect("rag_storage")?;
    /// # let old = client.namespace("old_docs")?;
    /// println!("{} records are gone", old.drop_namespace()?.records);
    /// # Ok::<(), commonhold::blocking::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Fault`] with [`Fault::FlushLockTimeout`](super::Fault::FlushLockTimeout) while another program holds the
    /// file's lock.
    pub fn drop_namespace(&self) -> Result<Dropped, Error> {
        read::dropped(&self.client.call_long(Verb::Drop { space: self.target.space() })?)
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

    /// All records in insertion order as they all are at one moment, whatever is written meanwhile.
    ///
    /// An error, which may come last, voids all that came before it.
    ///
    /// ```no_run
    /// # let client = commonhold::blocking::Client::connect("rag_storage")?;
    /// # let docs = client.namespace("full_docs")?;
    /// let all: Vec<_> = docs.get_all().collect::<Result<_, _>>()?;
    /// println!("{} records", all.len());
    /// # Ok::<(), commonhold::blocking::Error>(())
    /// ```
    pub fn get_all(&self) -> GetAll {
        GetAll::new(self.clone())
    }

    /// What is changed from now on, or from another write on, write by write.
    ///
    /// To know a namespace and all that comes after, watch from the Seq of [`get_all`](Self::get_all), or let
    /// [`Client::mirror`] do both.
    pub fn watch(&self, options: WatchOptions) -> Watch {
        Watch::new(self.clone(), options)
    }

    /// One page of a scan, for callers that keep the cursor themselves: of at most `limit` records (0 leaves it to the
    /// daemon) whose keys begin with `prefix`, after `cursor`, with or without `values`.
    ///
    /// # Errors
    /// [`Error::Fault`] with [`Fault::CursorExpired`](super::Fault::CursorExpired) if the namespace was loaded anew and
    /// the cursor's record is gone.
    pub fn scan_page(&self, cursor: Option<&Cursor>, prefix: &str, limit: u32, values: bool) -> Result<Page, Error> {
        read::page(&self.ask(verbs::scan(&self.target, cursor, prefix, limit, values)?)?)
    }

    /// Stores a stream of records of any length.
    ///
    /// ```no_run
    /// # let client = commonhold::blocking::Client::connect("rag_storage")?;
    /// let mut load = client.namespace("full_docs")?.bulk_writer();
    /// for n in 0..1_000_000 {
    ///     load.put(&format!("doc-{n}"), &n)?;
    /// }
    /// load.finish()?;
    /// # Ok::<(), commonhold::blocking::Error>(())
    /// ```
    pub fn bulk_writer(&self) -> BulkWriter {
        self.bulk_writer_with(BulkOptions::default())
    }

    /// As [`bulk_writer`](Self::bulk_writer), with options.
    pub fn bulk_writer_with(&self, options: BulkOptions) -> BulkWriter {
        BulkWriter::new(self.clone(), options)
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
        read::flushed(&self.client.call_long(verbs::flush(Some(&self.target), options))?)
    }

    fn write(&self, op: Op<'_>) -> Result<Written, Error> {
        read::written(&self.ask(verbs::one(&self.target, op, self.durability))?)
    }

    fn write_batch(&self, batch: Batch) -> Result<Written, Error> {
        self.client.write(&match self.durability {
            Some(durability) => batch.durability(durability),
            None => batch,
        })
    }

    fn ask(&self, verb: Verb<'_>) -> Result<Reply, Error> {
        let session = self.client.session();
        session.call(verb, session.options().timeout)
    }

    /// The value of a key: as it is kept, or as the daemon answers, and then it is kept if anything is.
    #[inline]
    fn look(&self, key: &str) -> Result<Looked, Error> {
        let session = self.client.session();
        let near = session.near();
        if let Some(found) = near.find(&self.target, key) {
            return Ok(Looked::Kept(found.value));
        }
        let reply = session.call(verbs::get(&self.target, key)?, session.options().timeout)?;
        if !near.is_on() {
            return Ok(Looked::Answered(reply));
        }
        let (held, tag) = read::got_to_keep(&reply, key)?;
        near.keep(&self.target, key, held.as_ref(), tag);
        Ok(Looked::Kept(held))
    }

    /// The values of several keys, of one moment. None where nothing is kept: then they are to be asked for.
    fn look_at_many(&self, keys: &[impl AsRef<str>]) -> Result<Option<Vec<Option<Held>>>, Error> {
        let session = self.client.session();
        let near = session.near();
        if !near.is_on() {
            return Ok(None);
        }
        let mut gathered = near.gather(&self.target, keys);
        if let Some(missing) = gathered.to_ask_for(keys) {
            if !missing.is_empty() {
                let reply = self.ask(verbs::get_many(&self.target, &missing)?)?;
                let (values, tags) = read::got_many_to_keep(&reply, &missing)?;
                near.keep_many(&self.target, &missing, &values, &tags);
                gathered.fill(values);
            }
            if gathered.is_current() {
                return Ok(Some(gathered.values));
            }
        }
        let reply = self.ask(verbs::get_many(&self.target, keys)?)?;
        let (values, tags) = read::got_many_to_keep(&reply, keys)?;
        near.keep_many(&self.target, keys, &values, &tags);
        Ok(Some(values))
    }

    fn begin<T>(&self, verb: Verb<'_>, read: fn(&Reply) -> Result<T, Error>) -> Result<Pending<T>, Error> {
        let session = self.client.session();
        Ok(Pending::new(session, session.begin(verb, session.options().timeout)?, read))
    }
}
