//! A request that is sent twice under one number is done once, whatever happens between the two.

use std::sync::Arc;

use commonhold_proto::message::Kind;
use commonhold_proto::{Condition, Durability, Number, Seq};

use super::rig::{Rig, options, place};
use crate::engine::disk::{Call, FailWith, Failure};
use crate::engine::{Earlier, Error, Fence, Numbered, Table, WriteRequest, Written};

/// Not the one of [`Rig::put`].
const CLIENT: u128 = 70;
const AGAIN: Option<Earlier> = Some(Earlier { boot: 1, after: Seq::ZERO });

/// An increment under a client's number, with all before it settled.
fn increment(table: &Arc<Table>, client: u128, number: u64, earlier: Option<Earlier>) -> WriteRequest {
    let mut request = WriteRequest::new(client, number);
    request.once(number, earlier);
    request.increment(table, "count", "n", Number::Int(1), Condition::Always).unwrap();
    request
}

fn send(rig: &Rig, client: u128, number: u64, earlier: Option<Earlier>) -> Result<Written, Error> {
    rig.store().write(vec![increment(&rig.table("a"), client, number, earlier)]).pop().unwrap()
}

fn count(rig: &Rig) -> Option<String> {
    rig.get("a", "count")
}

#[test]
fn a_repeat_gets_the_first_answer_and_changes_nothing() {
    for rig in [Rig::memory(), Rig::buffered(), Rig::synced()] {
        let first = send(&rig, CLIENT, 1, None).unwrap();
        assert_eq!((first.new, first.found), (1, 0));
        assert_eq!(send(&rig, CLIENT, 1, AGAIN).unwrap(), first);
        // Also one that does not know that it is a repeat, as the rest of a connection that was given up.
        assert_eq!(send(&rig, CLIENT, 1, None).unwrap(), first);
        assert_eq!(count(&rig).unwrap(), r#"{"n":1}"#);
        assert!(send(&rig, CLIENT, 2, None).unwrap().seq > first.seq);
        assert!(matches!(send(&rig, CLIENT, 1, AGAIN), Err(Error::OutcomeUnknown { .. })), "its client has its answer");
        assert_eq!(count(&rig).unwrap(), r#"{"n":2}"#);
    }
}

#[test]
fn a_killed_owner_has_left_the_answer_and_what_it_had_not_begun_is_done() {
    for (rig, survives) in [(Rig::buffered(), true), (Rig::synced(), true), (Rig::memory(), false)] {
        let first = send(&rig, CLIENT, 1, None).unwrap();
        let rig = rig.killed();
        let again = send(&rig, CLIENT, 1, AGAIN).unwrap();
        assert_eq!(again == first, survives, "what is lost is done again, as the only time");
        assert_eq!(count(&rig).unwrap(), r#"{"n":1}"#);
        let begun = send(&rig, CLIENT, 2, AGAIN).unwrap();
        assert_eq!((begun.new, begun.found), (0, 1));
    }
}

#[test]
fn answers_survive_segments_that_go_and_owners_that_follow_each_other() {
    let mut rig = Rig::new(options(Durability::Buffered));
    rig.options.segment_bytes = 1_000;
    let mut rig = rig.opened();
    let first = send(&rig, CLIENT, 1, None).unwrap();
    for round in 0..5 {
        for number in 0..30 {
            rig.put("b", "k", &format!("[{round},{number}]"));
        }
        for name in ["a", "b"] {
            rig.flush(name).unwrap();
        }
        rig.store().tick().unwrap();
        assert!(rig.segments().len() <= 2, "{:?}", rig.segments());
        assert_eq!(send(&rig, CLIENT, 1, AGAIN).unwrap(), first, "round {round}");
        rig = if round % 2 == 0 { rig.killed() } else { rig.reopened() };
        assert_eq!(send(&rig, CLIENT, 1, AGAIN).unwrap(), first, "round {round}");
    }
    assert_eq!(count(&rig).unwrap(), r#"{"n":1}"#);
}

#[test]
fn many_clients_are_remembered_the_last_ones_longest_in_bounded_memory() {
    let mut rig = Rig::new(options(Durability::Buffered));
    rig.options.segment_bytes = 64 << 10;
    let rig = rig.opened();
    let before = rig.store().memory().0;
    for client in 1..=2_000 {
        send(&rig, client, 1, None).unwrap();
    }
    let (clients, outcomes, bytes) = rig.store().outcomes();
    assert!((150..400).contains(&clients) && clients == outcomes, "{clients} clients, {outcomes} outcomes");
    assert!(bytes < 100_000 && rig.store().memory().0 > before, "{bytes} bytes");
    assert!(matches!(send(&rig, 1, 1, AGAIN), Err(Error::OutcomeUnknown { .. })));
    assert!(send(&rig, 2_000, 1, AGAIN).is_ok() && send(&rig, 1, 2, None).is_ok());
    let rig = rig.killed();
    assert!(send(&rig, 1_999, 1, AGAIN).is_ok());
    assert!(matches!(send(&rig, 2, 1, AGAIN), Err(Error::OutcomeUnknown { .. })));
    assert!(
        matches!(send(&rig, 5_000, 1, AGAIN), Err(Error::OutcomeUnknown { .. })),
        "nobody knows whether it was one"
    );
    let of_this_owner = Some(Earlier { boot: 2, after: Seq::ZERO });
    assert!(send(&rig, 5_001, 1, of_this_owner).is_ok(), "all that was forgotten is older");
    assert_eq!(count(&rig).unwrap(), r#"{"n":2002}"#);
}

#[test]
fn a_repeat_in_the_group_of_its_first_sending_finds_its_outcome() {
    let rig = Rig::buffered();
    let table = rig.table("a");
    let request = |number, earlier| {
        let mut request = WriteRequest::new(CLIENT, number);
        request.once(1, earlier);
        request.increment(&table, "count", "n", Number::Int(1), Condition::Always).unwrap();
        request
    };
    let group = [(1, None), (2, None), (1, AGAIN), (2, AGAIN), (3, AGAIN), (3, AGAIN)];
    let results = rig.store().write(group.into_iter().map(|(number, earlier)| request(number, earlier)).collect());
    let seqs: Vec<_> = results.into_iter().map(|result| result.unwrap().seq).collect();
    assert_eq!((seqs[0], seqs[1], seqs[4]), (seqs[2], seqs[3], seqs[5]));
    assert!(seqs[0] < seqs[1] && seqs[1] < seqs[4]);
    assert_eq!(count(&rig).unwrap(), r#"{"n":3}"#);
}

#[test]
fn sendings_that_race_are_one_write() {
    let rig = Rig::buffered();
    for round in 1..=200 {
        let answers: Vec<_> = std::thread::scope(|scope| {
            let sender = |earlier| {
                let rig = &rig;
                move || send(rig, CLIENT, round, earlier).unwrap()
            };
            let threads = [None, AGAIN, AGAIN].map(|earlier| scope.spawn(sender(earlier)));
            threads.map(|thread| thread.join().unwrap()).into()
        });
        assert!(answers.iter().all(|answer| *answer == answers[0]), "round {round}: {answers:?}");
    }
    assert_eq!(count(&rig).unwrap(), r#"{"n":200}"#);
}

#[test]
fn a_refused_write_is_decided_anew_and_one_that_was_refused_as_a_repeat_is_never_done() {
    let rig = Rig::buffered();
    let table = rig.table("a");
    let claim = |number, earlier| {
        let mut request = WriteRequest::new(CLIENT, number);
        request.once(number, earlier);
        request.put(&table, "k", "1", Condition::IfAbsent).unwrap();
        rig.store().write(vec![request]).pop().unwrap()
    };
    rig.put("a", "k", "0");
    assert!(matches!(claim(1, None), Err(Error::ConditionFailed { .. })));
    rig.delete("a", "k");
    assert!(claim(1, AGAIN).is_ok());
    let numbered = Numbered { client: CLIENT, number: 2, settled: 2, earlier: AGAIN };
    assert_eq!(rig.store().refuse_repeat(&numbered, Kind::Persistent).unwrap(), None);
    rig.delete("a", "k");
    assert!(matches!(claim(2, None), Err(Error::OutcomeUnknown { .. })), "the first sending, which was late");
    assert_eq!(rig.get("a", "k"), None);
}

#[test]
fn a_drop_is_not_done_to_what_came_after_it() {
    let rig = Rig::buffered();
    let numbered = Numbered { client: CLIENT, number: 1, settled: 1, earlier: None };
    let again = Numbered { earlier: AGAIN, ..numbered };
    rig.put("a", "k1", "1");
    rig.put("a", "k2", "1");
    let first = rig.store().drop_namespace_once(&place("a"), &numbered, &Fence::default()).unwrap();
    assert_eq!(first.records, 2);
    rig.put("a", "later", "1");
    assert_eq!(rig.store().drop_namespace_once(&place("a"), &again, &Fence::default()).unwrap(), first);
    let rig = rig.killed();
    assert_eq!(rig.store().drop_namespace_once(&place("a"), &again, &Fence::default()).unwrap(), first);
    assert_eq!(rig.get("a", "later").unwrap(), "1");
}

#[test]
fn a_drop_of_nothing_is_not_done_to_what_came_after_it() {
    for rig in [Rig::memory(), Rig::buffered(), Rig::synced()] {
        let numbered = Numbered { client: CLIENT, number: 1, settled: 1, earlier: None };
        let again = Numbered { earlier: AGAIN, ..numbered };
        let drop = |rig: &Rig, numbered| rig.store().drop_namespace_once(&place("a"), numbered, &Fence::default());
        let first = drop(&rig, &numbered).unwrap();
        assert_eq!((first.records, first.needs_flush), (0, false));
        let mut put = WriteRequest::new(CLIENT, 2);
        put.once(1, None);
        put.durability(Some(Durability::Synced));
        put.put(&rig.table("a"), "k", "1", Condition::Always).unwrap();
        assert!(rig.store().write(vec![put]).remove(0).unwrap().seq > first.seq);
        let repeated = drop(&rig, &again).unwrap();
        assert_eq!((repeated.seq, repeated.records), (first.seq, 0));
        let rig = rig.killed();
        let repeated = drop(&rig, &again).unwrap();
        assert_eq!((repeated.seq, repeated.records), (first.seq, 0));
        assert_eq!(rig.get("a", "k").unwrap(), "1");
        // What its client has given up asks nothing any more, and nobody's number leaves nothing.
        let fence = Fence::default();
        fence.raise();
        let late = Numbered { number: 3, settled: 3, ..numbered };
        assert!(rig.store().drop_namespace_once(&place("none"), &late, &fence).is_err());
        let last = rig.store().applied();
        assert_eq!(rig.store().drop_namespace(&place("none")).unwrap().seq, last);
        assert!(rig.flush("none").is_ok() && !rig.has_file("none"));
    }
}

#[test]
fn a_drop_of_no_volatile_namespace_is_not_done_to_the_one_that_came_after_it() {
    let rig = Rig::buffered();
    let numbered = Numbered { client: CLIENT, number: 1, settled: 1, earlier: None };
    let drop = |numbered| rig.store().drop_volatile_once(&place("v"), numbered, &Fence::default()).unwrap();
    let first = drop(&numbered);
    let table = rig.store().volatile(&place("v")).unwrap();
    let mut request = increment(&table, CLIENT, 2, None);
    request.once(1, None);
    rig.store().write(vec![request]).remove(0).unwrap();
    assert_eq!(drop(&Numbered { earlier: AGAIN, ..numbered }), first);
    assert!(!rig.store().volatile(&place("v")).unwrap().is_empty());
}

#[test]
fn volatile_outcomes_live_as_long_as_the_daemon_as_the_namespaces_do() {
    let rig = Rig::buffered();
    let send = |rig: &Rig, number, earlier| {
        let table = rig.store().volatile(&place("v")).unwrap();
        rig.store().write(vec![increment(&table, CLIENT, number, earlier)]).pop().unwrap()
    };
    let first = send(&rig, 1, None).unwrap();
    assert_eq!(send(&rig, 1, AGAIN).unwrap(), first);
    let numbered = Numbered { client: CLIENT, number: 2, settled: 2, earlier: None };
    let dropped = rig.store().drop_volatile_once(&place("v"), &numbered, &Fence::default()).unwrap();
    let third = send(&rig, 3, None).unwrap();
    let again = Numbered { number: 3, settled: 3, earlier: AGAIN, ..numbered };
    assert_eq!(rig.store().first_outcome(&again, Kind::Volatile).unwrap().map(|first| first.seq), Some(third.seq));
    assert!(dropped.records == 1 && third.new == 1);
    // The namespace begins anew, and what is sent again is done in the new one.
    let rig = rig.killed();
    assert_eq!(send(&rig, 3, AGAIN).unwrap().new, 1);
}

#[test]
fn a_first_sending_that_comes_after_its_repeat_is_not_done_however_much_was_forgotten_meanwhile() {
    let mut rig = Rig::new(options(Durability::Buffered));
    rig.options.segment_bytes = 64 << 10;
    let rig = rig.opened();
    let fence = Fence::default();
    let late = |number| {
        let mut request = increment(&rig.table("a"), CLIENT, number, None);
        request.behind(&fence);
        request
    };
    let (first, second) = (late(1), late(2));
    assert!(rig.store().write(vec![late(1)]).remove(0).is_ok(), "it is done while its connection is the only one");
    fence.raise();
    assert!(send(&rig, CLIENT, 1, AGAIN).is_ok());
    for client in 1_000..3_000 {
        send(&rig, client, 1, None).unwrap();
    }
    assert!(rig.store().outcomes().0 < 500, "the client is forgotten");
    for late in [first, second] {
        let refused = rig.store().write(vec![late]).remove(0);
        assert!(matches!(refused, Err(Error::OutcomeUnknown { .. })), "{refused:?}");
    }
    assert_eq!(count(&rig).unwrap(), r#"{"n":2001}"#);
    let numbered = Numbered { client: CLIENT, number: 3, settled: 3, earlier: None };
    assert!(rig.store().drop_namespace_once(&place("a"), &numbered, &fence).is_err());
    let volatile = rig.store().volatile(&place("v")).unwrap();
    let mut request = increment(&volatile, CLIENT, 4, None);
    request.behind(&fence);
    assert!(rig.store().write(vec![request]).remove(0).is_err());
    assert!(rig.store().drop_volatile_once(&place("v"), &numbered, &fence).is_err());
    assert!(volatile.is_empty() && !rig.table("a").is_empty());
}

#[test]
fn what_volatile_outcomes_take_counts_in_the_memory() {
    let rig = Rig::buffered();
    let table = rig.store().volatile(&place("v")).unwrap();
    let send = |client| rig.store().write(vec![increment(&table, client, 1, None)]).remove(0).unwrap();
    send(1);
    let (before, (_, _, known)) = (rig.store().memory().0, rig.store().outcomes());
    for client in 2..=200 {
        send(client);
    }
    let (clients, outcomes, bytes) = rig.store().outcomes();
    assert_eq!((clients, outcomes), (200, 200));
    let grew = rig.store().memory().0 - before;
    assert!(bytes > known + 199 * 80 && grew >= (bytes - known) as u64, "{grew} more for {known} to {bytes} bytes");
}

#[test]
fn after_a_failed_sync_nobody_says_that_a_write_was_not_done_and_the_next_owner_knows() {
    let rig = Rig::synced();
    send(&rig, CLIENT, 1, None).unwrap();
    rig.disk.fail(Failure::nth(1, FailWith::Io).of(Call::Sync).on("journal"));
    assert!(matches!(send(&rig, CLIENT, 2, None), Err(Error::OutcomeUnknown { .. })));
    let numbered = Numbered { client: CLIENT, number: 2, settled: 2, earlier: AGAIN };
    assert!(matches!(rig.store().first_outcome(&numbered, Kind::Persistent), Err(Error::OutcomeUnknown { .. })));
    assert!(matches!(rig.store().refuse_repeat(&numbered, Kind::Persistent), Err(Error::OutcomeUnknown { .. })));
    let rig = rig.killed();
    let was_done = count(&rig).unwrap() == r#"{"n":2}"#;
    assert_eq!(rig.store().first_outcome(&numbered, Kind::Persistent).unwrap().is_some(), was_done);
    send(&rig, CLIENT, 2, AGAIN).unwrap();
    assert_eq!(count(&rig).unwrap(), r#"{"n":2}"#);
}
