//! What a map and its views promise: small cases by name, then thousands of random steps against the model.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use commonhold_proto::Seq;
use parking_lot::RwLock;

use super::model::Model;
use super::{Cleared, Map, Record, View};

fn put(map: &mut Map, key: &str, value: &str) -> Option<String> {
    map.put(Record::new(key, value)).map(|old| old.value().to_owned())
}

fn pairs(records: &[Record]) -> Vec<(String, String)> {
    records.iter().map(|r| (r.key().to_owned(), r.value().to_owned())).collect()
}

fn content(map: &Map) -> Vec<(String, String)> {
    let mut records = Vec::new();
    let end = map.scan(None, usize::MAX, &mut |record| {
        records.push(record.clone());
        ControlFlow::Continue(())
    });
    assert!(!end.more);
    assert!(records.is_sorted_by_key(Record::ordinal));
    pairs(&records)
}

fn rest(view: &View, map: &Map) -> Vec<(String, String)> {
    let mut records = Vec::new();
    while view.next(map, 7, &mut records) {}
    pairs(&records)
}

fn numbered(records: usize) -> (Map, Model) {
    let (mut map, mut model) = (Map::new(), Model::default());
    for number in 0..records {
        put(&mut map, &format!("k{number}"), &number.to_string());
        model.put(&format!("k{number}"), &number.to_string());
    }
    (map, model)
}

#[test]
fn a_replaced_record_keeps_its_place_and_one_put_again_goes_to_the_end() {
    let mut map = Map::new();
    for (key, value) in [("a", "1"), ("", "2"), ("c", "3")] {
        assert_eq!(put(&mut map, key, value), None);
    }
    assert_eq!(put(&mut map, "a", "4").as_deref(), Some("1"));
    assert_eq!(map.remove("").map(|r| r.value().to_owned()).as_deref(), Some("2"));
    assert!(map.remove("").is_none());
    put(&mut map, "", "5");
    let expected = [("a", "4"), ("c", "3"), ("", "5")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    assert_eq!(content(&map), expected);
    assert_eq!((map.len(), map.bytes(), map.ordinal_bound()), (3, 5, 4));
    assert_eq!(map.at(3).map(Record::value), Some("5"));
    assert!(map.at(1).is_none());
}

#[test]
fn a_record_put_twice_has_two_places_and_one_text() {
    let mut map = Map::new();
    let record = Record::new("k", "1");
    record.set_seq(Seq(5));
    map.put(record.clone());
    assert_eq!(map.put(record.clone()).map(|r| r.ordinal()), Some(0));
    let view = map.view();
    map.remove("k");
    map.put(record);
    assert_eq!(map.get("k").map(|r| (r.ordinal(), r.seq())), Some((1, Seq(5))));
    let mut seen = Vec::new();
    view.next(&map, 10, &mut seen);
    assert_eq!(seen.iter().map(Record::ordinal).collect::<Vec<_>>(), [0]);
}

#[test]
fn a_view_is_the_content_of_its_moment_whatever_is_written_meanwhile() {
    let (mut map, _) = numbered(10);
    let before = content(&map);
    let view = map.view();
    let mut records = Vec::new();
    assert!(view.next(&map, 3, &mut records));
    for key in ["k0", "k3", "k5", "k9"] {
        put(&mut map, key, "\"new\"");
        put(&mut map, key, "\"newer\"");
    }
    for key in ["k1", "k4", "k5", "k8"] {
        map.remove(key);
    }
    put(&mut map, "k4", "\"back\"");
    put(&mut map, "k99", "\"late\"");
    assert_eq!(view.saved_bytes(), 15, "five records of three bytes lie ahead: what is behind the view is not kept");
    assert_eq!(map.saved_bytes(), 15);
    while view.next(&map, 2, &mut records) {}
    assert_eq!(pairs(&records), before);
    assert!(!view.next(&map, 2, &mut records));
    assert_eq!((view.len(), view.saved_bytes(), records.len()), (10, 0, 10));
}

#[test]
fn a_cleared_map_lives_on_in_the_views_that_have_not_read_it() {
    let (mut map, _) = numbered(5_000);
    map.remove("k17");
    let before = content(&map);
    let (early, dropped) = (map.view(), map.view());
    put(&mut map, "k3", "\"new\"");
    map.remove("k4000");
    let between = content(&map);
    let late = map.view();
    let mut cleared = map.clear();
    assert_eq!((cleared.len(), map.len(), map.bytes()), (4_998, 0, 0));
    put(&mut map, "k3", "\"another\"");
    drop(dropped);
    while cleared.drop_some(100) {}
    drop(cleared);
    let mut again = map.clear();
    put(&mut map, "z", "1");
    while again.drop_some(1) {}
    assert_eq!(rest(&early, &map), before);
    assert_eq!(rest(&late, &map), between);
    assert_eq!(content(&map), [("z".to_owned(), "1".to_owned())]);
}

#[test]
fn a_dropped_view_costs_the_writers_nothing_more() {
    let (mut map, _) = numbered(10);
    let view = map.view();
    put(&mut map, "k5", "1");
    drop(view);
    assert_eq!(map.saved_bytes(), 0);
    put(&mut map, "k6", "1");
    assert!(map.views.is_empty());
}

#[test]
#[should_panic(expected = "not taken from")]
fn a_view_refuses_to_read_another_map() {
    let (mut map, _) = numbered(3);
    let (other, _) = numbered(3);
    map.view().next(&other, 1, &mut Vec::new());
}

#[test]
fn clearing_frees_in_slices() {
    let (mut map, _) = numbered(20_000);
    let held = map.get("k77").cloned().expect("was put");
    let mut cleared = map.clear();
    let mut slices = 0;
    while cleared.drop_some(100) {
        slices += 1;
    }
    assert!(slices > 40, "{slices}");
    assert_eq!(held.value(), "77");
}

#[test]
fn ordinals_rise_through_a_clear_so_that_an_old_cursor_sees_what_came_after() {
    let (mut map, _) = numbered(1_500);
    let end = map.scan(None, 100, &mut |_| ControlFlow::Continue(()));
    assert_eq!((end.last_ordinal, end.more), (Some(99), true));
    drop(map.clear());
    assert!(!map.scan(end.last_ordinal, 10, &mut |_| ControlFlow::Continue(())).more);
    put(&mut map, "new", "1");
    let mut seen = Vec::new();
    let end = map.scan(end.last_ordinal, 10, &mut |record| {
        seen.push(record.ordinal());
        ControlFlow::Break(())
    });
    assert_eq!((seen.len(), end.last_ordinal, end.more), (1, Some(seen[0]), false));
    assert!(seen[0] >= 1_500);
}

#[test]
fn a_scan_with_cursors_sees_what_stays_exactly_once_while_others_go_and_come() {
    let mut random = fastrand::Rng::with_seed(11);
    let (mut map, _) = numbered(6_000);
    let mut seen = Vec::new();
    let mut cursor = None;
    let mut came = 0;
    loop {
        let end = map.scan(cursor, random.usize(1..200), &mut |record| {
            seen.push(record.key().to_owned());
            ControlFlow::Continue(())
        });
        cursor = end.last_ordinal;
        if !end.more {
            break;
        }
        for _ in 0..150 {
            // Keys whose number is a multiple of three stay.
            let key = format!("k{}", random.usize(0..2_000) * 3 + random.usize(1..3));
            map.remove(&key);
            if came < 1_000 {
                put(&mut map, &key, "\"again\"");
                came += 1;
            }
        }
    }
    let stayed = |keys: &[String]| -> Vec<usize> {
        keys.iter().filter_map(|k| k[1..].parse().ok()).filter(|n: &usize| n.is_multiple_of(3)).collect()
    };
    assert_eq!(stayed(&seen), (0..6_000).step_by(3).collect::<Vec<_>>());
}

/// A view under test: what it must give, and what it gave.
struct Watch {
    view: View,
    expected: Vec<(String, String)>,
    given: Vec<Record>,
    through: bool,
}

impl Watch {
    fn step(&mut self, map: &Map, records: usize) {
        let before = self.given.len();
        let more = self.view.next(map, records, &mut self.given);
        assert!(self.given.len() - before <= records);
        assert!(!self.through || !more);
        self.through = !more;
        let given = pairs(&self.given[before..]);
        assert_eq!(given, self.expected[before..self.given.len()]);
        assert_eq!(self.through, self.given.len() == self.expected.len());
    }
}

/// Random steps on keys `k0` to `k<keys>`, compared with the model.
fn compare_with_the_model(seed: u64, steps: usize, keys: usize, start: usize) {
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut map, mut model) = numbered(start);
    let mut watches: Vec<Watch> = Vec::new();
    let mut removing = false;
    for step in 0..steps {
        let key = format!("k{}", random.usize(0..keys));
        match random.u32(0..1_000) {
            0..12 => removing = !removing,
            12 if random.u8(0..4) == 0 => {
                let mut cleared = map.clear();
                model.clear();
                if random.bool() {
                    while cleared.drop_some(random.usize(1..3_000)) {}
                }
            }
            13..25 if watches.len() < 5 => {
                let (view, expected) = (map.view(), model.content());
                assert_eq!(view.len(), expected.len());
                let through = expected.is_empty();
                watches.push(Watch { view, expected, given: Vec::new(), through });
            }
            25..30 if !watches.is_empty() => drop(watches.swap_remove(random.usize(0..watches.len()))),
            30..130 if !watches.is_empty() => {
                let at = random.usize(0..watches.len());
                let records = random.usize(0..=start / 20 + 5);
                watches[at].step(&map, records);
                if watches[at].through {
                    watches.swap_remove(at);
                }
            }
            // Waves of removals make chunks sparse and tables merge; between them the map grows again.
            _ if random.u8(0..10) < if removing { 7 } else { 3 } => {
                let old = map.remove(&key).map(|r| r.value().to_owned());
                assert_eq!(old, model.remove(&key), "step {step}");
            }
            _ => {
                let value = step.to_string();
                assert_eq!(put(&mut map, &key, &value), model.put(&key, &value), "step {step}");
            }
        }
        assert_eq!(map.len(), model.len());
        assert_eq!(map.get(&key).map(Record::value), model.get(&key), "step {step}");
        if step % (steps / 20) == 0 {
            let expected = model.content();
            assert_eq!(content(&map), expected, "step {step}");
            assert_eq!(map.bytes(), expected.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>());
        }
    }
    for mut watch in watches {
        while !watch.through {
            watch.step(&map, 1_000);
        }
    }
    assert_eq!(content(&map), model.content());
    drop(map.clear());
    assert_eq!(map.bytes() + map.record_overhead, 0);
}

#[test]
fn random_steps_give_what_the_model_gives_in_small_maps() {
    for seed in 0..40 {
        compare_with_the_model(seed, 3_000, 40, 20);
    }
}

#[test]
fn random_steps_give_what_the_model_gives_across_splits_and_sparse_chunks() {
    for seed in 100..104 {
        compare_with_the_model(seed, 60_000, 12_000, 10_000);
    }
}

#[test]
fn views_read_on_other_threads_are_exact_while_a_writer_goes_on() {
    fn crosses_threads<T: Send + Sync>() {}
    crosses_threads::<(Map, Record, View, Cleared)>();

    let map = RwLock::new(numbered(5_000).0);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = fastrand::Rng::with_seed(5);
            for step in 0_u64.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                let key = format!("k{}", random.usize(0..5_000));
                let mut map = map.write();
                match random.u16(0..4_000) {
                    0 => {
                        let cleared = map.clear();
                        drop(map);
                        drop(cleared);
                    }
                    1..1_500 => drop(map.remove(&key)),
                    _ => drop(put(&mut map, &key, &step.to_string())),
                }
            }
        });
        let readers = [3, 40, 500].map(|slice| {
            let map = &map;
            scope.spawn(move || {
                for _ in 0..20 {
                    let (view, expected) = {
                        let mut map = map.write();
                        (map.view(), content(&map))
                    };
                    let mut given = Vec::new();
                    while view.next(&map.read(), slice, &mut given) {}
                    assert_eq!(pairs(&given), expected);
                }
            })
        });
        let ends = readers.map(thread::ScopedJoinHandle::join);
        done.store(true, Ordering::Relaxed);
        assert!(ends.iter().all(Result::is_ok), "a reader saw something else than its view");
    });
}
