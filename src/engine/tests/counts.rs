//! What is told to whoever counts changes: each change of what is visible moves the counts of what it changed, whatever the
//! way by which it came.

use std::collections::HashMap;
use std::sync::Arc;

use commonhold_proto::{Condition, Number, Place, Tag};
use parking_lot::Mutex;

use super::rig::{Rig, file, place};
use crate::engine::{Counts, FlushHow, PlaceCounts, Table, WriteRequest};

const ALWAYS: Condition = Condition::Always;

/// Counts without collisions: a number a key, and one a namespace.
#[derive(Default)]
struct Exact(Mutex<HashMap<Place, Arc<ExactPlace>>>);

#[derive(Default)]
struct ExactPlace {
    keys: Mutex<HashMap<String, u64>>,
    clears: Mutex<u64>,
    flag: Mutex<u64>,
}

impl Counts for Exact {
    fn of(&self, place: &Place) -> Option<Arc<dyn PlaceCounts>> {
        Some(self.0.lock().entry(place.clone()).or_default().clone())
    }

    fn known(&self, place: &Place) -> Option<Arc<dyn PlaceCounts>> {
        self.0.lock().get(place).cloned().map(|counts| counts as Arc<dyn PlaceCounts>)
    }
}

impl PlaceCounts for ExactPlace {
    fn moved(&self, key: &str) {
        *self.keys.lock().entry(key.to_owned()).or_default() += 1;
    }

    fn cleared(&self) {
        *self.clears.lock() += 1;
    }

    fn flagged(&self, word: u64) {
        let mut flag = self.flag.lock();
        *flag = (*flag).max(word);
    }

    fn tag(&self, key: &str) -> Tag {
        let slot_count = self.keys.lock().get(key).copied().unwrap_or_default();
        Tag { epoch: 1, clear_count: *self.clears.lock(), slot_count }
    }
}

fn counted(rig: &Rig) -> Arc<Exact> {
    let counts = Arc::new(Exact::default());
    rig.store().count_by(counts.clone());
    counts
}

fn write(rig: &Rig, build: impl FnOnce(&mut WriteRequest)) {
    let mut request = WriteRequest::new(1, 0);
    build(&mut request);
    rig.store().write(vec![request]).pop().unwrap().unwrap();
}

fn tag(table: &Table, key: &str) -> Option<Tag> {
    table.get_tagged(key).1
}

#[test]
fn every_kind_of_change_to_a_key_moves_its_tag_and_no_other_one() {
    let rig = Rig::buffered();
    let counts = counted(&rig);
    for table in [rig.store().namespace(&place("p")).unwrap(), rig.store().volatile(&place("v")).unwrap()] {
        write(&rig, |request| request.put(&table, "other", "1", ALWAYS).unwrap());
        let other = tag(&table, "other").expect("it was written to");
        let mut last = tag(&table, "k").expect("absence has a tag, too");
        let mut moved = |what: &str| {
            let now = tag(&table, "k").unwrap();
            assert_ne!(now, last, "{what}");
            assert_eq!(tag(&table, "other").unwrap(), other, "{what} moved another key's");
            last = now;
        };
        write(&rig, |request| request.put(&table, "k", "{}", ALWAYS).unwrap());
        moved("put");
        write(&rig, |request| request.put_stamped(&table, "k", "{}", 7, ALWAYS).unwrap());
        moved("stamped put");
        write(&rig, |request| request.merge(&table, "k", r#"{"a":1}"#, ALWAYS).unwrap());
        moved("merge");
        write(&rig, |request| request.increment(&table, "k", "a", Number::Int(1), ALWAYS).unwrap());
        moved("increment");
        write(&rig, |request| request.append(&table, "k", "l", "[1]", None, ALWAYS).unwrap());
        moved("append");
        write(&rig, |request| request.delete(&table, "k", ALWAYS).unwrap());
        moved("delete");
        write(&rig, |request| {
            request.delete(&table, "k", ALWAYS).unwrap();
            request.put(&table, "k", "2", ALWAYS).unwrap();
        });
        moved("two in one request");
        let (slots, clears) = (tag(&table, "k").unwrap().slot_count, tag(&table, "k").unwrap().clear_count);
        write(&rig, |request| request.clear(&table).unwrap());
        let cleared = tag(&table, "k").unwrap();
        assert_eq!(cleared.slot_count, slots, "a clear moves the clear count alone");
        assert!(cleared.clear_count > clears);
        let (found, tags) = table.get_many_tagged(&["k", "other"]);
        assert_eq!((found.len(), tags.as_slice()), (2, [cleared, tag(&table, "other").unwrap()].as_slice()));
    }
    let flag = *counts.0.lock()[&place("p")].flag.lock();
    assert_eq!(flag % 2, 1, "a write sets the flags");
    rig.store().flush(&place("p"), FlushHow::default()).unwrap();
    assert!(*counts.0.lock()[&place("p")].flag.lock() > flag, "a flush clears them");
}

#[test]
fn a_drop_moves_the_clear_count_and_what_comes_after_it_goes_on_from_there() {
    let rig = Rig::buffered();
    let _counts = counted(&rig);
    let table = rig.store().namespace(&place("p")).unwrap();
    write(&rig, |request| request.put(&table, "k", "1", ALWAYS).unwrap());
    let before = tag(&table, "k").unwrap();
    rig.store().drop_namespace(&place("p")).unwrap();
    let dropped = tag(&table, "k").unwrap();
    assert!(dropped.clear_count > before.clear_count);

    let old = rig.store().volatile(&place("v")).unwrap();
    write(&rig, |request| request.put(&old, "k", "1", ALWAYS).unwrap());
    let before = tag(&old, "k").unwrap();
    rig.store().drop_volatile(&place("v")).unwrap();
    assert_eq!(tag(&old, "k"), None, "what is gone vouches for nothing");
    let new = rig.store().volatile(&place("v")).unwrap();
    write(&rig, |request| request.put(&new, "k", "2", ALWAYS).unwrap());
    let after = tag(&new, "k").unwrap();
    assert!(after.clear_count > before.clear_count && after.slot_count > before.slot_count);
}

#[test]
fn a_name_that_was_only_asked_for_has_no_tag_and_one_that_is_loaded_anew_has_another() {
    let rig = Rig::buffered();
    let counts = counted(&rig);
    let asked = rig.store().namespace(&place("p")).unwrap();
    assert_eq!(tag(&asked, "k"), None);
    assert!(counts.0.lock().is_empty(), "a name that is asked for uses up no counts");
    write(&rig, |request| request.put(&asked, "k", "1", ALWAYS).unwrap());
    rig.store().drop_namespace(&place("p")).unwrap();
    rig.store().flush(&place("p"), FlushHow::default()).unwrap();
    let absent = tag(&asked, "k").expect("it was written to");
    drop(asked);
    // Its name in other letter case is asked for, which takes its place, and is forgotten in turn.
    drop(rig.store().namespace(&place("P")).unwrap());
    rig.store().forget_blank();
    rig.disk.write_file(file("p"), br#"{"k": 2}"#);
    let loaded = rig.store().namespace(&place("p")).unwrap();
    assert!(loaded.get("k").is_some());
    assert_ne!(tag(&loaded, "k").unwrap(), absent, "another program's file is not what it was");
}
