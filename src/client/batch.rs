//! An atomic write before it is sent.

use std::ops::Range;

use commonhold_proto::limits::{MAX_OPERATIONS, MAX_VALUE_BYTES};
use commonhold_proto::names::check_key;
use commonhold_proto::{Condition, Durability, Op, Place, Space, Verb, Write};
use serde::Serialize;

use super::error::Error;
use super::values::to_text;
use crate::proto::names::shown;

/// Operations that take effect together, under one Seq, or not at all.
///
/// Each sees the effects of those before it. A batch may name several namespaces of one store; it holds at most
/// [`MAX_OPERATIONS`] operations. It can be written more than once.
///
/// ```no_run
/// use commonhold::blocking::{Batch, Client, Condition};
/// let client = Client::connect("rag_storage")?;
/// let (docs, chunks) = (client.namespace("full_docs")?, client.namespace("text_chunks")?);
/// let batch = Batch::new()
///     .put(&docs, "doc-1", &serde_json::json!({"content": "…"}))?
///     .put_raw_if(&chunks, "chunk-1", r#"{"tokens": 12}"#, Condition::IfAbsent)?
///     .delete(&chunks, "chunk-0")?;
/// let written = client.write(&batch)?;
/// println!("stored as {}", written.seq);
/// # Ok::<(), commonhold::blocking::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Batch {
    places: Vec<Place>,
    /// Keys and values, one after another: a batch of many records is few allocations.
    text: String,
    operations: Vec<Operation>,
    durability: Option<Durability>,
}

#[derive(Clone, Debug)]
struct Operation {
    space: u32,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Put { key: Range<usize>, value: Range<usize>, condition: Condition },
    Delete { key: Range<usize>, condition: Condition },
    Clear,
}

impl Batch {
    /// A batch without operations.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many operations it has.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether it has no operations.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// Bytes of its keys and values.
    pub fn bytes(&self) -> usize {
        self.text.len()
    }

    /// Stores `value` under `key`. A key that exists keeps its place in the order, a new one goes to the end.
    ///
    /// # Errors
    /// [`Error::Json`] if serde cannot write the value (a float that is `NaN` it writes as `null`);
    /// [`Error::Name`] and [`Error::TooLarge`] for a key or value over its limit.
    pub fn put<T: Serialize + ?Sized>(
        self,
        namespace: &impl AsRef<Place>,
        key: &str,
        value: &T,
    ) -> Result<Self, Error> {
        self.put_if(namespace, key, value, Condition::Always)
    }

    /// As [`put`](Self::put), if `condition` holds; if it does not, nothing of the whole batch is done.
    ///
    /// # Errors
    /// As for [`put`](Self::put).
    pub fn put_if<T: Serialize + ?Sized>(
        self,
        namespace: &impl AsRef<Place>,
        key: &str,
        value: &T,
        condition: Condition,
    ) -> Result<Self, Error> {
        self.put_raw_if(namespace, key, &to_text(key, value)?, condition)
    }

    /// Stores JSON text under `key`; the daemon checks that it is JSON.
    ///
    /// # Errors
    /// [`Error::Name`] and [`Error::TooLarge`] for a key or value over its limit.
    pub fn put_raw(self, namespace: &impl AsRef<Place>, key: &str, json_text: &str) -> Result<Self, Error> {
        self.put_raw_if(namespace, key, json_text, Condition::Always)
    }

    /// As [`put_raw`](Self::put_raw), if `condition` holds; if it does not, nothing of the whole batch is done.
    ///
    /// # Errors
    /// As for [`put_raw`](Self::put_raw).
    pub fn put_raw_if(
        mut self,
        namespace: &impl AsRef<Place>,
        key: &str,
        json_text: &str,
        condition: Condition,
    ) -> Result<Self, Error> {
        check_key(key)?;
        check_value(key, json_text)?;
        let what = What::Put { key: self.keep(key), value: self.keep(json_text), condition };
        self.push(namespace, what)
    }

    /// Removes the record of `key` if there is one.
    ///
    /// # Errors
    /// [`Error::Name`] for a key over its limit, [`Error::TooLarge`] for too many operations.
    pub fn delete(self, namespace: &impl AsRef<Place>, key: &str) -> Result<Self, Error> {
        self.delete_if(namespace, key, Condition::Always)
    }

    /// As [`delete`](Self::delete), if `condition` holds; if it does not, nothing of the whole batch is done.
    ///
    /// # Errors
    /// As for [`delete`](Self::delete).
    pub fn delete_if(mut self, namespace: &impl AsRef<Place>, key: &str, condition: Condition) -> Result<Self, Error> {
        check_key(key)?;
        let what = What::Delete { key: self.keep(key), condition };
        self.push(namespace, what)
    }

    /// Removes every record of a namespace.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for too many operations.
    pub fn clear(self, namespace: &impl AsRef<Place>) -> Result<Self, Error> {
        self.push(namespace, What::Clear)
    }

    /// How durable the write must be before it is acknowledged; less than the store has gives what the store has.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    fn keep(&mut self, text: &str) -> Range<usize> {
        let start = self.text.len();
        self.text.push_str(text);
        start..self.text.len()
    }

    fn push(mut self, namespace: &impl AsRef<Place>, what: What) -> Result<Self, Error> {
        if self.operations.len() == MAX_OPERATIONS {
            return Err(Error::too_large("operations in the batch", MAX_OPERATIONS + 1, MAX_OPERATIONS));
        }
        let place = namespace.as_ref();
        // The last one is the likely one.
        let known = self.places.iter().rposition(|known| known == place);
        let space = known.unwrap_or_else(|| {
            self.places.push(place.clone());
            self.places.len() - 1
        }) as u32;
        self.operations.push(Operation { space, what });
        Ok(self)
    }

    /// The request; the driver's core fills in who sends it and as what number.
    pub(super) fn to_verb(&self) -> Verb<'_> {
        let ops = self.operations.iter().map(|operation| {
            let space = operation.space;
            match &operation.what {
                What::Put { key, value, condition } => Op::Put {
                    space,
                    key: &self.text[key.clone()],
                    value: &self.text[value.clone()],
                    condition: *condition,
                },
                What::Delete { key, condition } => {
                    Op::Delete { space, key: &self.text[key.clone()], condition: *condition }
                }
                What::Clear => Op::Clear { space },
            }
        });
        write_verb(self.places.iter().map(Space::persistent).collect(), ops.collect(), self.durability)
    }
}

/// A write request that has not been given its client and number yet.
pub(super) fn write_verb<'a>(spaces: Vec<Space<'a>>, ops: Vec<Op<'a>>, durability: Option<Durability>) -> Verb<'a> {
    Verb::Write(Write { client: 0, number: 0, settled: 0, durability, if_token: None, spaces, ops })
}

/// Refuses a value that no request may carry, before it is copied and sent.
pub(super) fn check_value(key: &str, json_text: &str) -> Result<(), Error> {
    if json_text.len() > MAX_VALUE_BYTES {
        let what = format!("bytes in the value of key {:?}", shown(key));
        return Err(Error::too_large(what, json_text.len(), MAX_VALUE_BYTES));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct At(Place);

    impl AsRef<Place> for At {
        fn as_ref(&self) -> &Place {
            &self.0
        }
    }

    fn at(namespace: &str) -> At {
        At(Place::new("", namespace).unwrap())
    }

    #[test]
    fn a_batch_names_each_namespace_once_and_keeps_its_order() {
        let batch = Batch::new()
            .put(&at("a"), "k", &1)
            .and_then(|batch| batch.clear(&at("b")))
            .and_then(|batch| batch.delete_if(&at("a"), "l", Condition::IfAbsent))
            .unwrap()
            .durability(Durability::Synced);
        let Verb::Write(write) = batch.to_verb() else { panic!("a batch is a write") };
        let names: Vec<_> = write.spaces.iter().map(|space| space.namespace).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(
            write.ops,
            [
                Op::Put { space: 0, key: "k", value: "1", condition: Condition::Always },
                Op::Clear { space: 1 },
                Op::Delete { space: 0, key: "l", condition: Condition::IfAbsent },
            ]
        );
        assert_eq!(write.durability, Some(Durability::Synced));
    }

    #[test]
    fn what_is_over_a_limit_is_refused_before_it_is_sent() {
        let long = "k".repeat(commonhold_proto::limits::MAX_KEY_BYTES + 1);
        assert!(matches!(Batch::new().put(&at("a"), &long, &1), Err(Error::Name(_))));
        assert!(matches!(Batch::new().delete(&at("a"), &long), Err(Error::Name(_))));
        let huge = "1".repeat(MAX_VALUE_BYTES + 1);
        let error = Batch::new().put_raw(&at("a"), "k", &huge).unwrap_err();
        assert_eq!(
            error.to_string(),
            "too many bytes in the value of key \"k\": 33554433, and the limit is 33554432. Nothing was sent; make it smaller or cut it into parts"
        );
        let mut batch = Batch::new();
        for _ in 0..MAX_OPERATIONS {
            batch = batch.clear(&at("a")).unwrap();
        }
        assert!(matches!(batch.clear(&at("a")), Err(Error::TooLarge { limit: 10_000, .. })));
    }
}
