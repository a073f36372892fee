//! Watching: what was written after some Seq, in order, none missing and none twice, and each gap told as what it is.

use std::sync::Arc;

use commonhold_proto::{Condition, Durability, Seq};

use super::rig::{Rig, file, options, place};
use crate::engine::disk::Rules;
use crate::engine::{Error, Next, Table, TellChange, Told, Watch, WriteRequest};

/// What is told of one write, in short: `k=1`, `-k`, `clear`, `drop`.
pub(super) fn words(told: &Told) -> (u64, String) {
    let word = |change: &TellChange| match change {
        TellChange::Put(record) => format!("{}={}", record.key(), record.value()),
        TellChange::Delete(record) => format!("-{}", record.key()),
        TellChange::Clear => "clear".to_owned(),
        TellChange::Drop => "drop".to_owned(),
    };
    (told.seq.0, told.changes.iter().map(word).collect::<Vec<_>>().join(" "))
}

/// Everything that there is to tell now; a lag as its two Seqs.
pub(super) fn drain(watch: &mut Watch) -> Vec<(u64, String)> {
    let mut seen = Vec::new();
    loop {
        match watch.next(100).expect("the journal can be read") {
            Next::Told(told) => seen.extend(told.iter().map(|told| words(told))),
            Next::Lagged { lost_from, next } => seen.push((lost_from.0, format!("lagged until {next}"))),
            Next::Nothing => return seen,
        }
    }
}

pub(super) fn watch(rig: &Rig, name: &str, after: Option<Seq>) -> Result<Watch, Error> {
    rig.store().watch(&rig.table(name), "", after)
}

/// Many writes of all kinds to two namespaces; what was done to `a`.
pub(super) fn busy(rig: &Rig, count: u64) -> Vec<(u64, String)> {
    let mut done = Vec::new();
    for n in 0..count {
        let key = format!("k{}", n % 7);
        match n % 11 {
            3 => {
                let written = rig.delete("a", &key);
                if written.found > 0 {
                    done.push((written.seq.0, format!("-{key}")));
                }
            }
            5 => {
                rig.put("b", &key, "0");
            }
            7 => {
                // What follows a clear in a request follows it, and a key that went and came is last.
                let written = rig
                    .write(|request, table| {
                        request.put(&table("a"), "void", "0", Condition::Always).unwrap();
                        request.clear(&table("a")).unwrap();
                        request.put(&table("b"), "k", "1", Condition::Always).unwrap();
                        request.put(&table("a"), "x", &n.to_string(), Condition::Always).unwrap();
                    })
                    .unwrap();
                done.push((written.seq.0, format!("clear x={n}")));
            }
            9 => {
                let written = rig
                    .write(|request, table| {
                        request.delete(&table("a"), "x", Condition::Always).unwrap();
                        request.put(&table("a"), "x", &n.to_string(), Condition::Always).unwrap();
                    })
                    .unwrap();
                let was_there = written.found > 0;
                done.push((written.seq.0, if was_there { format!("-x x={n}") } else { format!("x={n}") }));
            }
            _ => done.push((rig.put("a", &key, &n.to_string()).0, format!("{key}={n}"))),
        }
    }
    done
}

fn small(durability: Durability) -> Rig {
    let mut rig = Rig::new(options(durability));
    rig.options.segment_bytes = 700;
    rig.opened()
}

pub(super) fn after(all: &[(u64, String)], seq: u64) -> Vec<(u64, String)> {
    all.iter().filter(|(of, _)| *of > seq).cloned().collect()
}

#[test]
fn a_watcher_is_told_each_write_once_in_order_and_from_now_on_means_exactly_that() {
    for durability in [Durability::Memory, Durability::Buffered, Durability::Synced] {
        let rig = small(durability);
        busy(&rig, 20);
        let mut watching = watch(&rig, "a", None).unwrap();
        assert_eq!(drain(&mut watching), []);
        for _ in 0..5 {
            let done = busy(&rig, 30);
            assert!(!watching.needs_the_disk());
            assert_eq!(drain(&mut watching), done);
        }
    }
}

#[test]
fn a_watcher_begins_at_every_seq_in_the_journal_and_goes_over_to_memory_without_a_seam() {
    for durability in [Durability::Memory, Durability::Buffered] {
        let rig = small(durability);
        let first = rig.put("a", "first", "1");
        let mut all = vec![(first.0, "first=1".to_owned())];
        all.extend(busy(&rig, 60));
        // The channel begins here, in the middle.
        let _holds = watch(&rig, "a", None).unwrap();
        all.extend(busy(&rig, 60));
        assert!(durability == Durability::Memory || rig.segments().len() > 4, "{}", rig.segments().len());
        let last = rig.store().applied();
        for seq in first.0..=last.0 {
            let mut watching = watch(&rig, "a", Some(Seq(seq))).unwrap();
            assert_eq!(drain(&mut watching), after(&all, seq), "after {seq}");
        }
        let mut watching = watch(&rig, "a", Some(first)).unwrap();
        // Writes come while it catches up: each look is followed by one.
        let mut seen = Vec::new();
        for n in 0..300 {
            match watching.next(1).unwrap() {
                Next::Told(told) => seen.extend(told.iter().map(|told| words(told))),
                other => assert!(matches!(other, Next::Nothing), "{other:?}"),
            }
            if n % 3 == 0 {
                all.push((rig.put("a", "late", &n.to_string()).0, format!("late={n}")));
                rig.put("b", "late", "1");
            }
        }
        seen.extend(drain(&mut watching));
        assert_eq!(seen, after(&all, first.0));
    }
}

#[test]
fn a_prefix_is_told_its_keys_and_every_clear() {
    let rig = small(Durability::Buffered);
    let from = rig.put("a", "x", "1");
    busy(&rig, 60);
    let begun = rig.store().watch(&rig.table("a"), "x", None).unwrap();
    let mut late = rig.store().watch(&rig.table("a"), "x", Some(from)).unwrap();
    drop(begun);
    busy(&rig, 60);
    let seen = drain(&mut late);
    assert!(seen.iter().all(|(_, what)| what.split(' ').all(|word| word == "clear" || word.contains('x'))), "{seen:?}");
    assert_eq!(seen.iter().filter(|(_, what)| what.starts_with("clear")).count(), 10);
    assert_eq!(late.through(), rig.table("a").last(), "who is told nothing learns all the same how far it is");
}

#[test]
fn one_that_falls_behind_the_channel_reads_the_journal_and_is_told_only_what_the_journal_lacks() {
    let rig = small(Durability::Buffered);
    let mut slow = watch(&rig, "a", None).unwrap();
    let big = format!("\"{}\"", "x".repeat(100_000));
    let mut all = Vec::new();
    for n in 0..120 {
        all.push((rig.put("a", &format!("k{n}"), &big).0, format!("k{n}={big}")));
    }
    assert!(slow.needs_the_disk(), "12 MB are more than a channel holds");
    assert_eq!(drain(&mut slow), all);
    assert!(!slow.needs_the_disk());
    // Once more, and the journal lets go.
    for n in 0..120 {
        rig.put("a", &format!("k{n}"), &big);
    }
    rig.flush("a").unwrap();
    rig.put("a", "k", "1");
    rig.store().tick().unwrap();
    let seen = drain(&mut slow);
    let (lost_from, lag) = &seen[0];
    assert!(*lost_from == all[119].0 + 1 && lag.starts_with("lagged until "), "{lost_from} {lag}");
    let next: u64 = lag.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(seen[1..].iter().all(|(seq, what)| *seq >= next && !what.starts_with("lagged")));
    assert_eq!(seen.last().unwrap().1, "k=1");
    // Who comes anew is told so at once.
    let oldest = match watch(&rig, "a", Some(Seq(all[119].0))) {
        Err(Error::Gone { oldest }) => oldest,
        other => panic!("{other:?}"),
    };
    assert!(oldest.0 <= next, "{oldest} {next}");
}

#[test]
fn a_segment_that_goes_while_it_is_read_is_a_lag_and_nothing_else() {
    for stop in 0..25 {
        let rig = small(Durability::Buffered);
        let first = rig.put("a", "k", "0");
        let all = busy(&rig, 100);
        let mut slow = watch(&rig, "a", Some(first)).unwrap();
        let mut seen = Vec::new();
        for _ in 0..stop {
            if let Next::Told(told) = slow.next(1).unwrap() {
                seen.extend(told.iter().map(|told| words(told)));
            }
        }
        rig.flush("a").unwrap();
        rig.flush("b").unwrap();
        rig.store().tick().unwrap();
        let rest = drain(&mut slow);
        let (read, lag) = match rest.iter().position(|(_, what)| what.starts_with("lagged")) {
            Some(at) => (rest[..at].to_vec(), Some(rest[at].clone())),
            None => (rest.clone(), None),
        };
        seen.extend(read);
        assert_eq!(seen, all[..seen.len()], "no write is missed without a word, stopped after {stop}");
        match lag {
            Some((lost_from, _)) => assert_eq!(lost_from, seen.last().map_or(first.0, |(seq, _)| *seq) + 1),
            None => assert_eq!(seen.len(), all.len()),
        }
        let more = busy(&rig, 10);
        assert_eq!(drain(&mut slow), more);
    }
}

#[test]
fn a_restart_is_no_gap_and_what_a_crash_took_is_told_over_several_restarts() {
    // In one segment, so that what is not committed is in memory only.
    let rig = Rig::memory();
    let mut all = busy(&rig, 40);
    rig.commit().unwrap();
    let kept = rig.store().applied();
    let told = busy(&rig, 10);
    let lost = told.last().unwrap().0;
    let mut rig = rig.killed();
    for round in 0..4 {
        for seq in [1, all[0].0, all[3].0, kept.0] {
            let mut watching = watch(&rig, "a", Some(Seq(seq))).unwrap();
            assert_eq!(drain(&mut watching), after(&all, seq), "after {seq}, start {round}");
        }
        for seq in [told[0].0, lost, kept.0 + 1] {
            let rewound = watch(&rig, "a", Some(Seq(seq)));
            assert!(matches!(rewound, Err(Error::Rewound { to }) if to == kept), "{rewound:?} start {round}");
        }
        let future = rig.store().applied().0 + 1_000_000;
        assert!(matches!(watch(&rig, "a", Some(Seq(future))), Err(Error::NotYet { .. })));
        all.extend(busy(&rig, 15));
        rig.commit().unwrap();
        rig = if round % 2 == 0 { rig.killed() } else { rig.reopened() };
    }
    rig.flush("a").unwrap();
    rig.flush("b").unwrap();
    let last = rig.put("a", "k", "9");
    rig.commit().unwrap();
    rig.store().tick().unwrap();
    assert!(matches!(watch(&rig, "a", Some(kept)), Err(Error::Gone { .. })));
    assert!(matches!(watch(&rig, "a", Some(Seq(lost))), Err(Error::Gone { .. })), "it cannot be known any more");
    assert_eq!(drain(&mut watch(&rig, "a", Some(Seq(last.0))).unwrap()), []);
}

#[test]
fn power_cuts_leave_a_first_part_and_no_watcher_goes_on_where_it_cannot() {
    for seed in 0..60 {
        let rig = small(Durability::Buffered);
        let mut all = busy(&rig, 25);
        rig.commit().unwrap();
        all.extend(busy(&rig, 25));
        let first = all[0].0;
        let found = Rig::on(rig.disk.power_cut(seed, Rules::any(seed)), rig.options.clone()).opened();
        let there = drain(&mut watch(&found, "a", Some(Seq(first))).unwrap());
        assert_eq!(there, all[1..=there.len()], "seed {seed}");
        for (seq, _) in &all {
            match watch(&found, "a", Some(Seq(*seq))) {
                Ok(mut watching) => {
                    assert!(there.iter().any(|(kept, _)| kept == seq) || *seq == first, "seed {seed}: {seq} is lost");
                    assert_eq!(drain(&mut watching), after(&there, *seq));
                }
                Err(Error::Rewound { to }) => {
                    assert!(*seq > to.0, "seed {seed}");
                    assert!(there.iter().all(|(kept, _)| kept < seq), "seed {seed}: {seq} is there");
                }
                Err(other) => panic!("seed {seed}: {other}"),
            }
        }
    }
}

#[test]
fn a_drop_is_one_change_in_the_channel_as_in_the_journal() {
    let rig = small(Durability::Buffered);
    let first = rig.put("a", "k", "1");
    let mut near = watch(&rig, "a", None).unwrap();
    let dropped = rig.drop_records("a").unwrap().seq;
    let put = rig.put("a", "k", "2");
    let expected = [(dropped.0, "drop".to_owned()), (put.0, "k=2".to_owned())];
    assert_eq!(drain(&mut near), expected);
    drop(near);
    let rig = rig.killed();
    assert_eq!(drain(&mut watch(&rig, "a", Some(first)).unwrap()), expected);
}

#[test]
fn a_file_that_another_program_wrote_ends_what_can_be_told() {
    let rig = Rig::buffered();
    let first = rig.put("a", "k", "1");
    rig.flush("a").unwrap();
    rig.commit().unwrap();
    let mut rig = rig.reopened();
    rig.close();
    rig.disk.write_file(file("a"), b"{\"other\":1}");
    let rig = rig.opened();
    let begins = rig.table("a").last();
    assert!(matches!(watch(&rig, "a", Some(first)), Err(Error::Gone { oldest }) if oldest == begins.next()));
    let put = rig.put("a", "k", "2");
    assert_eq!(drain(&mut watch(&rig, "a", Some(begins)).unwrap()), [(put.0, "k=2".to_owned())]);
    // The next start knows it, too.
    let rig = rig.killed();
    assert!(matches!(watch(&rig, "a", Some(first)), Err(Error::Gone { .. })));
    assert_eq!(drain(&mut watch(&rig, "a", Some(begins)).unwrap()), [(put.0, "k=2".to_owned())]);
}

#[test]
fn a_volatile_namespace_is_told_from_memory_alone() {
    let rig = Rig::buffered();
    let put = |table: &Arc<Table>, key: &str, value: &str| {
        let mut request = WriteRequest::new(1, 1);
        request.put(table, key, value, Condition::Always).unwrap();
        rig.store().write(vec![request]).pop().unwrap().unwrap().seq
    };
    let table = rig.store().volatile(&place("v")).unwrap();
    let mut watching = rig.store().watch(&table, "", None).unwrap();
    let first = put(&table, "k", "1");
    rig.put("a", "k", "1");
    let second = put(&table, "k", "2");
    assert_eq!(drain(&mut watching), [(first.0, "k=1".to_owned()), (second.0, "k=2".to_owned())]);
    let mut again = rig.store().watch(&table, "", Some(first)).unwrap();
    assert_eq!(drain(&mut again), [(second.0, "k=2".to_owned())]);
    let dropped = rig.store().drop_volatile(&place("v")).unwrap().seq;
    let table = rig.store().volatile(&place("v")).unwrap();
    let third = put(&table, "k", "3");
    let expected = [(dropped.0, "drop".to_owned()), (third.0, "k=3".to_owned())];
    assert_eq!(drain(&mut watching), expected);
    assert_eq!(drain(&mut again), expected);
    let big = format!("\"{}\"", "x".repeat(1 << 20));
    for _ in 0..10 {
        put(&table, "k", &big);
    }
    let seen = drain(&mut watching);
    assert!(seen[0].1.starts_with("lagged until"), "{}", seen[0].1);
    assert_eq!(seen[0].0, third.0 + 1);
    assert!(matches!(rig.store().watch(&table, "", Some(third)), Err(Error::Gone { .. })));
    let old = table.last();
    let rig = rig.killed();
    let table = rig.store().volatile(&place("v")).unwrap();
    assert!(matches!(rig.store().watch(&table, "", Some(old)), Err(Error::Gone { .. })));
}

#[test]
fn what_nobody_watches_is_not_kept_and_what_is_kept_is_counted() {
    let rig = Rig::buffered();
    let empty = rig.store().memory().0;
    let watching = watch(&rig, "a", None).unwrap();
    for n in 0..100 {
        rig.put("a", "k", &format!("\"{}{n}\"", "x".repeat(1_000)));
    }
    let (kept, _) = rig.store().memory();
    assert!(kept > empty + 100_000, "{empty} {kept}");
    drop(watching);
    for _ in 0..40 {
        rig.store().tick().unwrap();
    }
    assert!(rig.store().memory().0 < empty + 10_000, "{empty} {}", rig.store().memory().0);
}

#[test]
fn watchers_among_writers_see_the_order_of_the_journal() {
    let rig = small(Durability::Buffered);
    let first = rig.put("a", "k", "0");
    let done = std::sync::atomic::AtomicUsize::new(0);
    let seen: Vec<Vec<(u64, String)>> = std::thread::scope(|scope| {
        for writer in 0..3 {
            let (rig, done) = (&rig, &done);
            scope.spawn(move || {
                for n in 0..400 {
                    rig.put(["a", "a", "b"][n % 3], &format!("w{writer}"), &n.to_string());
                }
                done.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            });
        }
        let watchers: Vec<_> = (0..3)
            .map(|number| {
                let (rig, done) = (&rig, &done);
                scope.spawn(move || {
                    let (mut seen, mut through) = (Vec::new(), first);
                    loop {
                        let over = done.load(std::sync::atomic::Ordering::SeqCst) == 3;
                        // Each comes back again and again, after different times.
                        let mut watching = watch(rig, "a", Some(through)).unwrap();
                        for _ in 0..=number * 20 {
                            seen.extend(drain(&mut watching));
                        }
                        through = watching.through();
                        if over {
                            return seen;
                        }
                    }
                })
            })
            .collect();
        watchers.into_iter().map(|watcher| watcher.join().unwrap()).collect()
    });
    let expected = drain(&mut watch(&rig, "a", Some(first)).unwrap());
    assert_eq!(expected.len(), 3 * 267, "{}", expected.len());
    for seen in seen {
        assert_eq!(seen, expected);
    }
}
