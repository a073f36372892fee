//! An atomic write before it is sent.

use std::ops::Range;

use commonhold_proto::limits::MAX_OPERATIONS;
use commonhold_proto::names::check_key;
use commonhold_proto::{Condition, Durability, Fault, Number, Op, Verb};
use serde::Serialize;

use super::error::Error;
use super::grants::Grant;
use super::spare::Text;
use super::target::Target;
use super::values::to_text;
use super::verbs::{self, check_value};

/// Operations that take effect together, under one Seq, or not at all.
///
/// Each sees the effects of those before it. A batch may name several namespaces of one store; it holds at most
/// [`MAX_OPERATIONS`] operations. It can be written more than once. Namespaces that are kept and volatile ones cannot be
/// in one batch.
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
    targets: Vec<Target>,
    /// Keys and values, one after another: a batch of many records is few allocations.
    text: Text,
    operations: Vec<Operation>,
    durability: Option<Durability>,
    if_token: Option<u64>,
    /// Another token that was asked for, too, which no write can be.
    other_token: Option<u64>,
}

#[derive(Clone, Debug)]
struct Operation {
    space: u32,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Put { key: Range<usize>, value: Range<usize>, condition: Condition },
    PutStamped { key: Range<usize>, value: Range<usize>, condition: Condition },
    Merge { key: Range<usize>, fields: Range<usize>, condition: Condition },
    Increment { key: Range<usize>, field: Range<usize>, by: Number, condition: Condition },
    Append { key: Range<usize>, field: Range<usize>, items: Range<usize>, keep_last: Option<u32>, condition: Condition },
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
        self.text.as_str().len()
    }

    /// Stores `value` under `key`. A key that exists keeps its place in the order, a new one goes to the end.
    ///
    /// # Errors
    /// [`Error::Json`] if serde cannot write the value (a float that is `NaN` it writes as `null`);
    /// [`Error::Name`] and [`Error::TooLarge`] for a key or value over its limit.
    pub fn put<T: Serialize + ?Sized>(
        self,
        namespace: &impl AsRef<Target>,
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
        namespace: &impl AsRef<Target>,
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
    pub fn put_raw(self, namespace: &impl AsRef<Target>, key: &str, json_text: &str) -> Result<Self, Error> {
        self.put_raw_if(namespace, key, json_text, Condition::Always)
    }

    /// As [`put_raw`](Self::put_raw), if `condition` holds; if it does not, nothing of the whole batch is done.
    ///
    /// # Errors
    /// As for [`put_raw`](Self::put_raw).
    pub fn put_raw_if(
        self,
        namespace: &impl AsRef<Target>,
        key: &str,
        json_text: &str,
        condition: Condition,
    ) -> Result<Self, Error> {
        self.put_as(namespace, key, json_text, |key, value| What::Put { key, value, condition })
    }

    /// Stores a JSON object under `key` in which the daemon sets `create_time` and `update_time` (whole seconds since
    /// 1970) and `_id` (the key), as LightRAG does; a record that is replaced keeps its `create_time`.
    ///
    /// ```no_run
    /// # use commonhold::blocking::{Batch, Client};
    /// # let client = Client::connect("rag_storage")?;
    /// # let docs = client.namespace("full_docs")?;
    /// client.write(&Batch::new().put_stamped(&docs, "doc-1", &serde_json::json!({"content": "…"}))?)?;
    /// # Ok::<(), commonhold::blocking::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`put`](Self::put). The daemon answers [`Fault::WrongType`](Fault::WrongType) for a value that is no
    /// object.
    pub fn put_stamped<T: Serialize + ?Sized>(
        self,
        namespace: &impl AsRef<Target>,
        key: &str,
        value: &T,
    ) -> Result<Self, Error> {
        self.put_stamped_raw_if(namespace, key, &to_text(key, value)?, Condition::Always)
    }

    /// As [`put_stamped`](Self::put_stamped), of a JSON text and if `condition` holds.
    ///
    /// # Errors
    /// As for [`put_raw`](Self::put_raw).
    pub fn put_stamped_raw_if(
        self,
        namespace: &impl AsRef<Target>,
        key: &str,
        json_text: &str,
        condition: Condition,
    ) -> Result<Self, Error> {
        self.put_as(namespace, key, json_text, |key, value| What::PutStamped { key, value, condition })
    }

    /// A whole value under `key`, to be stored as `what` says.
    fn put_as(
        mut self,
        namespace: &impl AsRef<Target>,
        key: &str,
        json_text: &str,
        what: impl FnOnce(Range<usize>, Range<usize>) -> What,
    ) -> Result<Self, Error> {
        check_key(key)?;
        check_value(key, json_text)?;
        let what = what(self.keep(key), self.keep(json_text));
        self.push(namespace, what)
    }

    /// Sets the fields of `fields`, a map or struct, in the JSON object under `key`, and leaves its others as they are.
    /// Without a record one is made of them.
    ///
    /// ```no_run
    /// # use commonhold::blocking::{Batch, Client};
    /// # let client = Client::connect("rag_storage")?;
    /// # let status = client.namespace("doc_status")?;
    /// client.write(&Batch::new().merge(&status, "doc-1", &serde_json::json!({"status": "processed"}))?)?;
    /// # Ok::<(), commonhold::blocking::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`put`](Self::put). The daemon answers [`Fault::WrongType`](Fault::WrongType) when the record, or
    /// `fields`, is no object, and [`Fault::TooLarge`](Fault::TooLarge) when the value is or becomes longer than
    /// [`MAX_CHANGED_VALUE_BYTES`](commonhold_proto::limits::MAX_CHANGED_VALUE_BYTES).
    pub fn merge<T: Serialize + ?Sized>(
        self,
        namespace: &impl AsRef<Target>,
        key: &str,
        fields: &T,
    ) -> Result<Self, Error> {
        self.merge_raw_if(namespace, key, &to_text(key, fields)?, Condition::Always)
    }

    /// As [`merge`](Self::merge), of the text of a JSON object and if `condition` holds.
    ///
    /// # Errors
    /// As for [`put_raw`](Self::put_raw).
    pub fn merge_raw_if(
        mut self,
        namespace: &impl AsRef<Target>,
        key: &str,
        fields: &str,
        condition: Condition,
    ) -> Result<Self, Error> {
        check_key(key)?;
        check_value(key, fields)?;
        let what = What::Merge { key: self.keep(key), fields: self.keep(fields), condition };
        self.push(namespace, what)
    }

    /// Adds `by`, a whole number or a float, to the number in a field of the JSON object under `key`. A missing field
    /// counts as 0, a missing record as `{}`.
    ///
    /// ```no_run
    /// # use commonhold::blocking::{Batch, Client};
    /// # let client = Client::connect("rag_storage")?;
    /// # let usage = client.namespace("usage")?;
    /// client.write(&Batch::new().increment(&usage, "today", "calls", 1)?.increment(&usage, "today", "cost", 0.25)?)?;
    /// # Ok::<(), commonhold::blocking::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Name`] and [`Error::TooLarge`] for a key over its limit or too many operations. The daemon answers
    /// [`Fault::WrongType`](Fault::WrongType) when the record is no object or the field no number, and
    /// [`Fault::Overflow`](Fault::Overflow) for a whole sum beyond 64 bits and
    /// for a float that is not finite.
    pub fn increment(
        self,
        namespace: &impl AsRef<Target>,
        key: &str,
        field: &str,
        by: impl Into<Number>,
    ) -> Result<Self, Error> {
        self.increment_if(namespace, key, field, by, Condition::Always)
    }

    /// As [`increment`](Self::increment), if `condition` holds; if it does not, nothing of the whole batch is done.
    ///
    /// # Errors
    /// As for [`increment`](Self::increment).
    pub fn increment_if(
        mut self,
        namespace: &impl AsRef<Target>,
        key: &str,
        field: &str,
        by: impl Into<Number>,
        condition: Condition,
    ) -> Result<Self, Error> {
        check_key(key)?;
        check_value(key, field)?;
        let what = What::Increment { key: self.keep(key), field: self.keep(field), by: by.into(), condition };
        self.push(namespace, what)
    }

    /// Adds items to the end of the list in a field of the JSON object under `key`. A missing field counts as `[]`, a
    /// missing record as `{}`. With `keep_last`, only so many items at the end of the list are kept.
    ///
    /// ```no_run
    /// # use commonhold::blocking::{Batch, Client};
    /// # let client = Client::connect("rag_storage")?;
    /// # let jobs = client.namespace("jobs")?;
    /// client.write(&Batch::new().append(&jobs, "job-1", "log", &["started", "parsed"], Some(100))?)?;
    /// # Ok::<(), commonhold::blocking::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`merge`](Self::merge); [`Fault::WrongType`](Fault::WrongType) also when the field is no list.
    pub fn append<T: Serialize>(
        self,
        namespace: &impl AsRef<Target>,
        key: &str,
        field: &str,
        items: &[T],
        keep_last: Option<u32>,
    ) -> Result<Self, Error> {
        self.append_raw_if(namespace, key, field, &to_text(key, items)?, keep_last, Condition::Always)
    }

    /// As [`append`](Self::append), of the text of a JSON array and if `condition` holds.
    ///
    /// # Errors
    /// As for [`append`](Self::append).
    pub fn append_raw_if(
        mut self,
        namespace: &impl AsRef<Target>,
        key: &str,
        field: &str,
        items: &str,
        keep_last: Option<u32>,
        condition: Condition,
    ) -> Result<Self, Error> {
        check_key(key)?;
        check_value(key, field)?;
        check_value(key, items)?;
        let (key, field, items) = (self.keep(key), self.keep(field), self.keep(items));
        self.push(namespace, What::Append { key, field, items, keep_last, condition })
    }

    /// Removes the record of `key` if there is one.
    ///
    /// # Errors
    /// [`Error::Name`] for a key over its limit, [`Error::TooLarge`] for too many operations.
    pub fn delete(self, namespace: &impl AsRef<Target>, key: &str) -> Result<Self, Error> {
        self.delete_if(namespace, key, Condition::Always)
    }

    /// As [`delete`](Self::delete), if `condition` holds; if it does not, nothing of the whole batch is done.
    ///
    /// # Errors
    /// As for [`delete`](Self::delete).
    pub fn delete_if(mut self, namespace: &impl AsRef<Target>, key: &str, condition: Condition) -> Result<Self, Error> {
        check_key(key)?;
        let what = What::Delete { key: self.keep(key), condition };
        self.push(namespace, what)
    }

    /// Removes every record of a namespace.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for too many operations.
    pub fn clear(self, namespace: &impl AsRef<Target>) -> Result<Self, Error> {
        self.push(namespace, What::Clear)
    }

    /// How durable the write must be before it is acknowledged; less than the store has gives what the store has.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// Only if the grant with this fencing token is still live when the write takes effect; if it is not, nothing is done.
    ///
    /// A write has one token: a batch that is given another one, too, is refused with
    /// [`Fault::Invalid`](Fault::Invalid) when it is written. What needs several keys takes them in one lock.
    #[must_use]
    pub fn if_token(mut self, token: u64) -> Self {
        let first = *self.if_token.get_or_insert(token);
        self.other_token = self.other_token.or((token != first).then_some(token));
        self
    }

    /// Only while this lock is held: [`if_token`](Self::if_token) with its token. If the lock was lost, nothing of the batch
    /// is done, and the daemon answers [`Fault::TokenNotLive`](Fault::TokenNotLive). One lock for each batch.
    ///
    /// ```no_run
    /// # use commonhold::blocking::{Batch, Client};
    /// # let client = Client::connect("rag_storage")?;
    /// # let docs = client.namespace("full_docs")?;
    /// let guard = client.lock(["doc-1"]).acquire()?;
    /// client.write(&Batch::new().put(&docs, "doc-1", "…")?.fenced_by(&guard))?;
    /// # Ok::<(), commonhold::blocking::Error>(())
    /// ```
    #[must_use]
    pub fn fenced_by(self, lock: &impl AsRef<Grant>) -> Self {
        let token = lock.as_ref().token();
        self.if_token(token)
    }

    fn keep(&mut self, text: &str) -> Range<usize> {
        let start = self.bytes();
        self.text.push_str(text);
        start..self.bytes()
    }

    fn push(mut self, namespace: &impl AsRef<Target>, what: What) -> Result<Self, Error> {
        if self.operations.len() == MAX_OPERATIONS {
            return Err(Error::too_large("operations in the batch", MAX_OPERATIONS + 1, MAX_OPERATIONS));
        }
        let target = namespace.as_ref();
        // The last one is the likely one.
        let known = self.targets.iter().rposition(|known| known == target);
        let space = known.unwrap_or_else(|| {
            self.targets.push(target.clone());
            self.targets.len() - 1
        }) as u32;
        self.operations.push(Operation { space, what });
        Ok(self)
    }

    /// The request; the driver's core fills in who sends it and as what number.
    pub(super) fn to_verb(&self) -> Result<Verb<'_>, Error> {
        if let (Some(token), Some(other)) = (self.if_token, self.other_token) {
            return Err(Error::Fault(Fault::Invalid {
                what: format!("a write that is fenced by two locks, of tokens {token} and {other},"),
                rule: "a batch has one token: take all keys in one lock".to_owned(),
            }));
        }
        let spaces = self.targets.iter().map(Target::space).collect();
        let ops = self.operations.iter().map(|operation| self.to_op(operation)).collect();
        Ok(verbs::write(spaces, ops, self.durability, self.if_token))
    }

    fn to_op(&self, Operation { space, what }: &Operation) -> Op<'_> {
        let (space, text) = (*space, |range: &Range<usize>| &self.text.as_str()[range.clone()]);
        match what {
            What::Put { key, value, condition } => {
                Op::Put { space, key: text(key), value: text(value), condition: *condition }
            }
            What::PutStamped { key, value, condition } => {
                Op::PutStamped { space, key: text(key), value: text(value), condition: *condition }
            }
            What::Merge { key, fields, condition } => {
                Op::Merge { space, key: text(key), fields: text(fields), condition: *condition }
            }
            What::Increment { key, field, by, condition } => {
                Op::Increment { space, key: text(key), field: text(field), by: *by, condition: *condition }
            }
            What::Append { key, field, items, keep_last, condition } => Op::Append {
                space,
                key: text(key),
                field: text(field),
                items: text(items),
                keep_last: *keep_last,
                condition: *condition,
            },
            What::Delete { key, condition } => Op::Delete { space, key: text(key), condition: *condition },
            What::Clear => Op::Clear { space },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use commonhold_proto::limits::MAX_VALUE_BYTES;
    use commonhold_proto::{Kind, Place};

    fn at(namespace: &str) -> Target {
        Target::new(Place::new("", namespace).unwrap(), Kind::Persistent)
    }

    #[test]
    fn a_batch_names_each_namespace_once_and_keeps_its_order() {
        let batch = Batch::new()
            .put(&at("a"), "k", &1)
            .and_then(|batch| batch.clear(&at("b")))
            .and_then(|batch| batch.delete_if(&at("a"), "l", Condition::IfAbsent))
            .unwrap()
            .durability(Durability::Synced);
        let Verb::Write(write) = batch.to_verb().unwrap() else { panic!("a batch is a write") };
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
    fn changes_of_a_value_travel_as_they_were_asked_for() {
        let volatile = Target::new(Place::new("", "v").unwrap(), Kind::Volatile);
        let if_seq = Condition::IfSeq(commonhold_proto::Seq(7));
        let batch = Batch::new()
            .put_stamped(&volatile, "k", &serde_json::json!({"a": 1}))
            .and_then(|batch| batch.merge_raw_if(&volatile, "k", r#"{"b":2}"#, if_seq))
            .and_then(|batch| batch.increment(&volatile, "k", "n", 2)?.increment(&volatile, "k", "x", 0.5))
            .and_then(|batch| batch.append(&volatile, "k", "l", &["é", "f"], Some(3)))
            .unwrap()
            .if_token(11);
        let Verb::Write(write) = batch.to_verb().unwrap() else { panic!("a batch is a write") };
        assert_eq!((write.if_token, write.spaces.len(), write.spaces[0].kind), (Some(11), 1, Kind::Volatile));
        let (space, key, condition) = (0, "k", Condition::Always);
        assert_eq!(
            write.ops,
            [
                Op::PutStamped { space, key, value: r#"{"a":1}"#, condition },
                Op::Merge { space, key, fields: r#"{"b":2}"#, condition: if_seq },
                Op::Increment { space, key, field: "n", by: Number::Int(2), condition },
                Op::Increment { space, key, field: "x", by: Number::Float(0.5), condition },
                Op::Append { space, key, field: "l", items: r#"["é","f"]"#, keep_last: Some(3), condition },
            ]
        );
    }

    #[test]
    fn a_batch_has_one_token_and_another_one_is_refused_when_it_is_written() {
        let batch = Batch::new().delete(&at("a"), "k").unwrap().if_token(5).if_token(5);
        assert!(batch.to_verb().is_ok());
        let error = batch.if_token(7).if_token(5).to_verb().unwrap_err();
        assert!(matches!(error, Error::Fault(Fault::Invalid { .. })), "{error}");
        assert!(error.to_string().contains("of tokens 5 and 7, is not possible"), "{error}");
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
