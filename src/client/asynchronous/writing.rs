//! Changing the records of a namespace: one by one, several at once, or a stream of them.

#[cfg(doc)]
use commonhold_proto::limits::MAX_OPERATIONS;
use commonhold_proto::{Number, Op, Verb};
use serde::Serialize;

use super::{Batch, BulkOptions, BulkWriter, Dropped, Error, Namespace, Pending, Written};
use crate::client::values::to_text;
use crate::client::{read, verbs};

impl Namespace {
    /// Stores `value` under `key`, replacing any earlier value.
    ///
    /// When it returns, the write is as durable as the store's `--durability` says; [`with`](Self::with)
    /// asks for more.
    ///
    /// # Errors
    /// [`Error::Json`] if serde cannot write the value. A float that is `NaN` or infinite it writes as `null`;
    /// [`put_raw`](Self::put_raw) stores it as it is.
    pub async fn put<T: Serialize + ?Sized>(&self, key: &str, value: &T) -> Result<Written, Error> {
        self.put_raw(key, &to_text(key, value)?).await
    }

    /// Stores JSON text under `key`, replacing any earlier value.
    ///
    /// # Errors
    /// [`Error::Fault`] with [`Fault::InvalidJson`](super::Fault::InvalidJson), which tells the place in the text.
    pub async fn put_raw(&self, key: &str, json_text: &str) -> Result<Written, Error> {
        self.write(verbs::put(key, json_text)?).await
    }

    /// Sends a [`put`](Self::put) without waiting for its answer.
    ///
    /// # Errors
    /// As for [`put`](Self::put); those that the daemon answers come from the [`Pending`].
    pub async fn put_later<T: Serialize + ?Sized>(&self, key: &str, value: &T) -> Result<Pending<Written>, Error> {
        self.put_raw_later(key, &to_text(key, value)?).await
    }

    /// Sends a [`put_raw`](Self::put_raw) without waiting for its answer.
    ///
    /// # Errors
    /// As for [`put_raw`](Self::put_raw); those that the daemon answers come from the [`Pending`].
    pub async fn put_raw_later(&self, key: &str, json_text: &str) -> Result<Pending<Written>, Error> {
        self.begin(verbs::one(self.target(), verbs::put(key, json_text)?, self.asked_durability()), read::written).await
    }

    /// Removes the record of `key`; [`Written::found`] tells whether there was one.
    ///
    /// # Errors
    /// Those of every call.
    pub async fn delete(&self, key: &str) -> Result<Written, Error> {
        self.write(verbs::delete(key)?).await
    }

    /// Stores a JSON object in which the daemon sets `create_time` and `update_time` (whole seconds since 1970) and
    /// `_id` (the key), as LightRAG does. A record that is replaced keeps its `create_time`.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), commonhold::Error> {
    /// # let client = commonhold::Client::connect("rag_storage").await?;
    /// # let docs = client.namespace("full_docs")?;
    /// docs.put_stamped("doc-1", &serde_json::json!({"content": "…"})).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for [`put`](Self::put); [`Error::Fault`] with [`Fault::WrongType`](super::Fault::WrongType) for a value that
    /// is no object.
    pub async fn put_stamped<T: Serialize + ?Sized>(&self, key: &str, value: &T) -> Result<Written, Error> {
        self.write(verbs::put_stamped(key, &to_text(key, value)?)?).await
    }

    /// Sets the fields of `fields`, a map or struct, in the JSON object under `key`, and leaves its others as they are.
    /// Without a record one is made of them. What other clients do to other fields meanwhile is not lost.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), commonhold::Error> {
    /// # let client = commonhold::Client::connect("rag_storage").await?;
    /// # let status = client.namespace("doc_status")?;
    /// status.merge("doc-1", &serde_json::json!({"status": "processed"})).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for [`put`](Self::put); [`Error::Fault`] with [`Fault::WrongType`](super::Fault::WrongType) when the record,
    /// or `fields`, is no object, and with [`Fault::TooLarge`](super::Fault::TooLarge) when the value is or becomes
    /// longer than [`MAX_CHANGED_VALUE_BYTES`](commonhold_proto::limits::MAX_CHANGED_VALUE_BYTES).
    pub async fn merge<T: Serialize + ?Sized>(&self, key: &str, fields: &T) -> Result<Written, Error> {
        self.merge_raw(key, &to_text(key, fields)?).await
    }

    /// As [`merge`](Self::merge), of the text of a JSON object.
    ///
    /// # Errors
    /// As for [`merge`](Self::merge) and [`put_raw`](Self::put_raw).
    pub async fn merge_raw(&self, key: &str, fields: &str) -> Result<Written, Error> {
        self.write(verbs::merge(key, fields)?).await
    }

    /// Adds `by`, a whole number or a float, to the number in a field of the JSON object under `key`. A missing field
    /// counts as 0, a missing record as `{}`. No addition of any client is lost.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), commonhold::Error> {
    /// # let client = commonhold::Client::connect("rag_storage").await?;
    /// # let usage = client.namespace("usage")?;
    /// usage.increment("today", "calls", 1).await?;
    /// usage.increment("today", "cost", 0.25).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Fault`] with [`Fault::WrongType`](super::Fault::WrongType) when the record is no object or the field no
    /// number, and with [`Fault::Overflow`](super::Fault::Overflow) for a whole sum beyond 64 bits and
    /// for a float that is not finite.
    pub async fn increment(&self, key: &str, field: &str, by: impl Into<Number>) -> Result<Written, Error> {
        self.write(verbs::increment(key, field, by.into())?).await
    }

    /// Adds items to the end of the list in a field of the JSON object under `key`. A missing field counts as `[]`, a
    /// missing record as `{}`. With `keep_last`, only so many items at the end of the list are kept.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), commonhold::Error> {
    /// # let client = commonhold::Client::connect("rag_storage").await?;
    /// # let jobs = client.namespace("jobs")?;
    /// jobs.append("job-1", "log", &["started", "parsed"], Some(100)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for [`merge`](Self::merge); [`Fault::WrongType`](super::Fault::WrongType) also when the field is no list.
    pub async fn append<T: Serialize>(
        &self,
        key: &str,
        field: &str,
        items: &[T],
        keep_last: Option<u32>,
    ) -> Result<Written, Error> {
        self.append_raw(key, field, &to_text(key, items)?, keep_last).await
    }

    /// As [`append`](Self::append), of the text of a JSON array.
    ///
    /// # Errors
    /// As for [`append`](Self::append) and [`put_raw`](Self::put_raw).
    pub async fn append_raw(
        &self,
        key: &str,
        field: &str,
        items: &str,
        keep_last: Option<u32>,
    ) -> Result<Written, Error> {
        self.write(verbs::append(key, field, items, keep_last)?).await
    }

    /// Stores several records at once: all of them, under one Seq, or none.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), commonhold::Error> {
    /// # let client = commonhold::Client::connect("rag_storage").await?;
    /// # let chunks = client.namespace("text_chunks")?;
    /// chunks.upsert([("chunk-1", "first"), ("chunk-2", "second")]).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for [`put`](Self::put); [`Error::TooLarge`] for more than [`MAX_OPERATIONS`] records.
    pub async fn upsert<K: AsRef<str>, T: Serialize>(
        &self,
        records: impl IntoIterator<Item = (K, T)>,
    ) -> Result<Written, Error> {
        let batch =
            records.into_iter().try_fold(Batch::new(), |batch, (key, value)| batch.put(self, key.as_ref(), &value))?;
        self.write_batch(batch).await
    }

    /// Removes several records at once; [`Written::found`] tells how many there were.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for more than [`MAX_OPERATIONS`] keys.
    pub async fn delete_many(&self, keys: &[impl AsRef<str>]) -> Result<Written, Error> {
        let batch = keys.iter().try_fold(Batch::new(), |batch, key| batch.delete(self, key.as_ref()))?;
        self.write_batch(batch).await
    }

    /// Removes every record.
    ///
    /// # Errors
    /// Those of every call.
    pub async fn clear(&self) -> Result<Written, Error> {
        self.write(Op::Clear { space: 0 }).await
    }

    /// Removes every record and the namespace's file: as if there never had been one. Earlier files of it are kept
    /// among the generations. When it returns, the file is gone.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), commonhold::Error> {
    /// # let client = commonhold::Client::connect("rag_storage").await?;
    /// # let old = client.namespace("old_docs")?;
    /// println!("{} records are gone", old.drop_namespace().await?.records);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Fault`] with [`Fault::FlushLockTimeout`](super::Fault::FlushLockTimeout) while another program holds the
    /// file's lock.
    pub async fn drop_namespace(&self) -> Result<Dropped, Error> {
        read::dropped(&self.client().call_long(Verb::Drop { space: self.target().space() }).await?)
    }

    /// Stores a stream of records of any length.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), commonhold::Error> {
    /// # let client = commonhold::Client::connect("rag_storage").await?;
    /// let mut load = client.namespace("full_docs")?.bulk_writer();
    /// for n in 0..1_000_000 {
    ///     load.put(&format!("doc-{n}"), &n).await?;
    /// }
    /// load.finish().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn bulk_writer(&self) -> BulkWriter {
        self.bulk_writer_with(BulkOptions::default())
    }

    /// As [`bulk_writer`](Self::bulk_writer), with options.
    pub fn bulk_writer_with(&self, options: BulkOptions) -> BulkWriter {
        BulkWriter::new(self.clone(), options)
    }

    async fn write(&self, op: Op<'_>) -> Result<Written, Error> {
        read::written(&self.ask(verbs::one(self.target(), op, self.asked_durability())).await?)
    }

    async fn write_batch(&self, batch: Batch) -> Result<Written, Error> {
        let batch = match self.asked_durability() {
            Some(durability) => batch.durability(durability),
            None => batch,
        };
        self.client().write(&batch).await
    }
}
