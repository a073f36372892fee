//! A namespace's records in this process, in insertion order, and how a watcher's events change them; without I/O.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use commonhold_proto::{Fault, Seq};

use super::error::Error;
use super::values::{Entry, Value};
use super::watching::{Change, ChangeSet};

/// The records, as of some write.
#[derive(Debug, Default)]
pub(super) struct Mirrored {
    places: HashMap<Arc<str>, u64>,
    records: BTreeMap<u64, (Arc<str>, Value)>,
    next: u64,
    seq: Seq,
}

impl Mirrored {
    /// Takes a record of those that all are read from.
    pub(super) fn add(&mut self, entry: &Entry) {
        self.put(&entry.key, Value::new(&entry.value, entry.seq));
    }

    /// All records were read, as they are after this write.
    pub(super) fn is_as_of(&mut self, seq: Seq) {
        self.seq = self.seq.max(seq);
    }

    pub(super) fn apply(&mut self, set: ChangeSet) {
        for change in set.changes {
            match change {
                Change::Put { key, value } => self.put(&key, Value::new(&value, set.seq)),
                Change::Delete { key } => {
                    if let Some(place) = self.places.remove(key.as_str()) {
                        self.records.remove(&place);
                    }
                }
                Change::Clear | Change::Drop => {
                    self.places.clear();
                    self.records.clear();
                }
            }
        }
        self.seq = set.seq;
    }

    fn put(&mut self, key: &str, value: Value) {
        if let Some(place) = self.places.get(key) {
            if let Some((_, known)) = self.records.get_mut(place) {
                *known = value;
            }
            return;
        }
        let key: Arc<str> = Arc::from(key);
        self.places.insert(Arc::clone(&key), self.next);
        self.records.insert(self.next, (key, value));
        self.next += 1;
    }

    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.records.get(self.places.get(key)?).map(|(_, value)| value)
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.records.values().map(|(key, value)| (&**key, value))
    }

    pub(super) fn seq(&self) -> Seq {
        self.seq
    }
}

/// Whether a watch that ended so only missed something, which reading all records again makes good.
pub(super) fn is_gap(error: &Error) -> bool {
    matches!(error, Error::Fault(Fault::Gone { .. } | Fault::Rewound { .. } | Fault::NotYet { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_keep_the_order_that_the_namespace_has() {
        let put = |key: &str, value: &str| Change::Put { key: key.to_owned(), value: value.to_owned() };
        let delete = |key: &str| Change::Delete { key: key.to_owned() };
        let mut mirrored = Mirrored::default();
        for (key, value) in [("a", "1"), ("b", "2")] {
            mirrored.add(&Entry { key: key.to_owned(), value: value.to_owned(), seq: Seq(1) });
        }
        mirrored.is_as_of(Seq(4));
        let words = |mirrored: &Mirrored| {
            mirrored.iter().map(|(key, value)| format!("{key}={}", value.text())).collect::<Vec<_>>().join(" ")
        };
        assert_eq!((words(&mirrored).as_str(), mirrored.seq()), ("a=1 b=2", Seq(4)));
        mirrored.apply(ChangeSet { seq: Seq(5), changes: vec![put("c", "3"), put("a", "4"), delete("x")] });
        assert_eq!(words(&mirrored), "a=4 b=2 c=3");
        mirrored.apply(ChangeSet { seq: Seq(6), changes: vec![delete("a"), put("a", "5")] });
        assert_eq!((words(&mirrored).as_str(), mirrored.len()), ("b=2 c=3 a=5", 3));
        assert_eq!(mirrored.get("a").map(Value::seq), Some(Seq(6)));
        mirrored.apply(ChangeSet { seq: Seq(7), changes: vec![Change::Clear, put("d", "6")] });
        assert_eq!((words(&mirrored).as_str(), mirrored.seq()), ("d=6", Seq(7)));
    }
}
