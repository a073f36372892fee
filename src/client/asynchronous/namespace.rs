//! One namespace: what it is, and reading its records. `writing` has what changes them.

use std::sync::Arc;

#[cfg(doc)]
use commonhold_proto::limits::MAX_OPERATIONS;
use commonhold_proto::{Durability, Kind, Place, Verb};
use serde::de::DeserializeOwned;

#[cfg(doc)]
use super::Batch;
use super::{
    Client, Cursor, Error, FlushOptions, Flushed, GetAll, Page, Pending, Scan, Target, Value, Watch, WatchOptions,
};
use crate::client::core::Reply;
use crate::client::near::{Held, Looked};
use crate::client::values::parse;
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
    /// # async fn example() -> Result<(), commonhold::Error> {
    /// # let client = commonhold::Client::connect("rag_storage").await?;
    /// let progress = client.namespace("pipeline_status")?.volatile();
    /// progress.put("busy", &true).await?;
    /// # Ok(())
    /// # }
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
    /// # async fn example() -> Result<(), commonhold::Error> {
    /// use commonhold::{Client, Durability};
    /// let client = Client::connect("rag_storage").await?;
    /// let docs = client.namespace("full_docs")?;
    /// docs.with(Durability::Synced).put("doc-1", "survives a power cut from here on").await?;
    /// # Ok(())
    /// # }
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
    pub async fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        match self.look(key).await? {
            Looked::Kept(held) => held.map(|held| parse(key, held.text())).transpose(),
            Looked::Answered(reply) => read::got(&reply, |text, _| parse(key, text))?.transpose(),
        }
    }

    /// The value of `key` as JSON text, with the write that stored it; `None` if there is no such record.
    ///
    /// # Errors
    /// Those of every call.
    pub async fn get_raw(&self, key: &str) -> Result<Option<Value>, Error> {
        match self.look(key).await? {
            Looked::Kept(held) => Ok(held.map(Value::kept)),
            Looked::Answered(reply) => read::value(&reply),
        }
    }

    /// Sends a [`get_raw`](Self::get_raw) without waiting for its answer.
    ///
    /// # Errors
    /// Those of every call; those that the daemon answers come from the [`Pending`].
    pub async fn get_raw_later(&self, key: &str) -> Result<Pending<Option<Value>>, Error> {
        self.begin(verbs::get(&self.target, key)?, read::value).await
    }

    /// The values of several keys as they are at one moment, in the order of the keys.
    ///
    /// # Errors
    /// As for [`get`](Self::get); [`Error::TooLarge`] for more than [`MAX_OPERATIONS`] keys.
    pub async fn get_many<T: DeserializeOwned>(&self, keys: &[impl AsRef<str>]) -> Result<Vec<Option<T>>, Error> {
        if let Some(values) = self.look_at_many(keys).await? {
            let value = |(key, held): (_, Option<Held>)| held.map(|held| parse(key, held.text())).transpose();
            return keys.iter().map(AsRef::as_ref).zip(values).map(value).collect();
        }
        let reply = self.ask(verbs::get_many(&self.target, keys)?).await?;
        let found = read::got_many(&reply, keys.len(), |index, text, _| parse(keys[index].as_ref(), text))?;
        found.into_iter().map(Option::transpose).collect()
    }

    /// As [`get_many`](Self::get_many), as JSON texts.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for more than [`MAX_OPERATIONS`] keys.
    pub async fn get_many_raw(&self, keys: &[impl AsRef<str>]) -> Result<Vec<Option<Value>>, Error> {
        if let Some(values) = self.look_at_many(keys).await? {
            return Ok(values.into_iter().map(|held| held.map(Value::kept)).collect());
        }
        let reply = self.ask(verbs::get_many(&self.target, keys)?).await?;
        read::got_many(&reply, keys.len(), |_, text, seq| Value::new(text, seq))
    }

    /// Which of these keys have no record: indexes into `keys`, rising.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for more than [`MAX_OPERATIONS`] keys.
    pub async fn filter_missing(&self, keys: &[impl AsRef<str>]) -> Result<Vec<usize>, Error> {
        let reply = self.ask(verbs::filter_missing(&self.target, keys)?).await?;
        read::missing(&reply, keys.len())
    }

    /// Whether there is a record of `key`.
    ///
    /// # Errors
    /// Those of every call.
    pub async fn contains(&self, key: &str) -> Result<bool, Error> {
        if let Some(found) = self.client.session().near().find(&self.target, key) {
            return Ok(found.value.is_some());
        }
        read::contains(&self.ask(verbs::contains(&self.target, key)?).await?)
    }

    /// How many records there are.
    ///
    /// # Errors
    /// Those of every call.
    pub async fn len(&self) -> Result<u64, Error> {
        read::len(&self.ask(Verb::Len { space: self.target.space() }).await?)
    }

    /// Whether there are no records.
    ///
    /// # Errors
    /// Those of every call.
    pub async fn is_empty(&self) -> Result<bool, Error> {
        Ok(self.len().await? == 0)
    }

    /// All records in insertion order, page by page.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), commonhold::Error> {
    /// # let client = commonhold::Client::connect("rag_storage").await?;
    /// # let docs = client.namespace("full_docs")?;
    /// let mut found = docs.scan().prefix("doc-");
    /// while let Some(entry) = found.next().await {
    ///     let entry = entry?;
    ///     println!("{} was written by {}", entry.key, entry.seq);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn scan(&self) -> Scan {
        Scan::new(self.clone())
    }

    /// All records in insertion order as they all are at one moment, whatever is written meanwhile.
    ///
    /// An error, which may come last, voids all that came before it.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), commonhold::Error> {
    /// # let client = commonhold::Client::connect("rag_storage").await?;
    /// # let docs = client.namespace("full_docs")?;
    /// let mut all = docs.get_all();
    /// while let Some(entry) = all.next().await {
    ///     println!("{}", entry?.key);
    /// }
    /// # Ok(())
    /// # }
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
    pub async fn scan_page(
        &self,
        cursor: Option<&Cursor>,
        prefix: &str,
        limit: u32,
        values: bool,
    ) -> Result<Page, Error> {
        read::page(&self.ask(verbs::scan(&self.target, cursor, prefix, limit, values)?).await?)
    }

    /// Commits, and brings the namespace's JSON file up to date; nothing to do is no error and quick.
    ///
    /// # Errors
    /// [`Error::Fault`] with [`Fault::FlushFailed`](super::Fault::FlushFailed) or
    /// [`Fault::FlushLockTimeout`](super::Fault::FlushLockTimeout): nothing is lost, flush again.
    pub async fn flush(&self) -> Result<Flushed, Error> {
        self.flush_with(FlushOptions::default()).await?.ok_or_else(|| Error::protocol("it did not wait for the flush"))
    }

    /// As [`flush`](Self::flush), with options; `None` if it was not to be waited for.
    ///
    /// # Errors
    /// As for [`flush`](Self::flush).
    pub async fn flush_with(&self, options: FlushOptions) -> Result<Option<Flushed>, Error> {
        read::flushed(&self.client.call_long(verbs::flush(Some(&self.target), options)).await?)
    }

    pub(super) async fn ask(&self, verb: Verb<'_>) -> Result<Reply, Error> {
        let session = self.client.session();
        session.call(verb, session.options().timeout).await
    }

    /// The value of a key: as it is kept, or as the daemon answers, and then it is kept if anything is.
    #[inline]
    async fn look(&self, key: &str) -> Result<Looked, Error> {
        let session = self.client.session();
        let near = session.near();
        if let Some(found) = near.find(&self.target, key) {
            return Ok(Looked::Kept(found.value));
        }
        let reply = self.ask(verbs::get(&self.target, key)?).await?;
        if !near.is_on() {
            return Ok(Looked::Answered(reply));
        }
        let (held, tag) = read::got_to_keep(&reply, key)?;
        near.keep(&self.target, key, held.as_ref(), tag);
        Ok(Looked::Kept(held))
    }

    /// The values of several keys, of one moment. None where nothing is kept: then they are to be asked for.
    async fn look_at_many(&self, keys: &[impl AsRef<str>]) -> Result<Option<Vec<Option<Held>>>, Error> {
        let session = self.client.session();
        let near = session.near();
        if !near.is_on() {
            return Ok(None);
        }
        let mut gathered = near.gather(&self.target, keys);
        if let Some(missing) = gathered.to_ask_for(keys) {
            if !missing.is_empty() {
                let reply = self.ask(verbs::get_many(&self.target, &missing)?).await?;
                let (values, tags) = read::got_many_to_keep(&reply, &missing)?;
                near.keep_many(&self.target, &missing, &values, &tags);
                gathered.fill(values);
            }
            if gathered.is_current() {
                return Ok(Some(gathered.values));
            }
        }
        let reply = self.ask(verbs::get_many(&self.target, keys)?).await?;
        let (values, tags) = read::got_many_to_keep(&reply, keys)?;
        near.keep_many(&self.target, keys, &values, &tags);
        Ok(Some(values))
    }

    pub(super) async fn begin<T>(
        &self,
        verb: Verb<'_>,
        read: fn(&Reply) -> Result<T, Error>,
    ) -> Result<Pending<T>, Error> {
        let session = self.client.session();
        let mut pending = Pending::new(session.begin(verb, session.options().timeout)?, read);
        pending.sent().await?;
        Ok(pending)
    }
}
