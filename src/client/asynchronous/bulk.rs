//! A stream of records of any length into one namespace.

use std::collections::VecDeque;

use serde::Serialize;

use super::{BulkOptions, BulkProgress, Error, Namespace, Pending, Written};
use crate::client::bulk::{Load, Todo, Towards};
use crate::client::values::to_text;

/// Stores a stream of records of any length: it cuts it into requests, keeps several of them on their way, commits now
/// and then, and tells how far it has got, so that a load that was interrupted can go on there.
///
/// An error of the daemon or of the connection ends the load: every later call returns it, too.
/// [`committed`](Self::committed) then says what is safe; records behind it may have been stored, once each, and giving
/// them again is safe. Dropping the future of any call loses nothing that was given before. Dropping a writer drops what was not sent; [`finish`](Self::finish) it.
///
/// ```no_run
/// # async fn example() -> Result<(), commonhold::Error> {
/// # let client = commonhold::Client::connect("rag_storage").await?;
/// # let records = (0..1_000_000_u64).map(|n| (format!("k{n}"), n));
/// # let done_before = 0;
/// let mut load = client.namespace("numbers")?.bulk_writer();
/// for (key, value) in records.skip(done_before) {
///     if let Err(error) = load.put(&key, &value).await {
///         eprintln!("{error}; go on after record {}", load.committed().records);
///         return Err(error);
///     }
/// }
/// println!("{} records are on the platter", load.finish().await?.records);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "what was not sent is lost without `finish`"]
pub struct BulkWriter {
    namespace: Namespace,
    load: Load,
    on_their_way: VecDeque<Pending<Written>>,
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
    pub async fn put<T: Serialize + ?Sized>(&mut self, key: &str, value: &T) -> Result<(), Error> {
        let json_text = to_text(key, value)?;
        self.put_raw(key, &json_text).await
    }

    /// As [`put`](Self::put), of a JSON text; the daemon checks that it is JSON.
    ///
    /// # Errors
    /// As for [`put`](Self::put); [`Error::Fault`] with [`Fault::InvalidJson`](super::Fault::InvalidJson), which names
    /// the key, ends the load.
    pub async fn put_raw(&mut self, key: &str, json_text: &str) -> Result<(), Error> {
        self.make_room(key, json_text).await?;
        self.load.put(key, json_text);
        Ok(())
    }

    /// Removes the record of `key` if there is one, sooner or later.
    ///
    /// # Errors
    /// As for [`put`](Self::put).
    pub async fn delete(&mut self, key: &str) -> Result<(), Error> {
        self.make_room(key, "").await?;
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
    pub async fn commit(&mut self) -> Result<BulkProgress, Error> {
        self.reach(Towards::Platter).await?;
        Ok(self.committed())
    }

    /// Sends the rest, puts all on the platter, and tells how much it was.
    ///
    /// # Errors
    /// As for [`commit`](Self::commit).
    pub async fn finish(mut self) -> Result<BulkProgress, Error> {
        self.commit().await
    }

    async fn make_room(&mut self, key: &str, json_text: &str) -> Result<(), Error> {
        self.load.check_record(key, json_text)?;
        self.reach(Towards::RoomFor(key.len() + json_text.len())).await
    }

    /// Does what the load has to do, step by step.
    async fn reach(&mut self, towards: Towards) -> Result<(), Error> {
        let client = self.namespace.client();
        loop {
            match self.load.next_step(towards)? {
                Todo::Send(batch) => {
                    self.load.sends_to(client.boot());
                    let begun = client.begin_now(&batch);
                    self.on_their_way.push_back(self.load.or_end(begun)?);
                }
                Todo::TakeOldest => {
                    // It stays in its place while it is waited for: nothing is lost when this future is dropped.
                    let oldest = self.on_their_way.front_mut().expect("the load counts what is on its way");
                    let outcome = oldest.await;
                    self.on_their_way.pop_front();
                    self.load.settle_oldest(outcome)?;
                }
                Todo::Commit(stored) => {
                    let outcome = client.commit().await;
                    self.load.settle_commit(stored, outcome, client.boot())?;
                }
                Todo::Nothing => return Ok(()),
            }
        }
    }
}
