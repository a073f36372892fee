//! The memory limit: what would grow beyond it is refused whole, and everything else goes on.

use commonhold_proto::{Condition, Durability};

use super::rig::{Rig, options, place};
use crate::engine::{Error, Table, WriteRequest};

const LIMIT: u64 = 400_000;

/// By how much a record that was admitted may make the index grow.
const INDEX_STEP: u64 = 4_096;

fn limited(limit: u64) -> Rig {
    let mut options = options(Durability::Buffered);
    options.max_memory = Some(limit);
    Rig::new(options).opened()
}

fn used(rig: &Rig) -> u64 {
    rig.store().memory().0
}

/// Puts records of 1,000 bytes until one is refused; how many there were.
fn fill(rig: &Rig) -> u64 {
    let value = format!("\"{}\"", "x".repeat(1_000));
    for number in 0.. {
        match rig.try_put("a", &format!("k{number:05}"), &value) {
            Ok(_) => {}
            Err(Error::MemoryFull { used, limit, needed }) => {
                assert!(limit == LIMIT && used <= limit + INDEX_STEP && used + needed > limit, "{used} and {needed}");
                return number;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    unreachable!("the limit is met")
}

#[test]
fn a_write_that_would_pass_the_limit_is_refused_whole_and_all_else_goes_on() {
    let rig = limited(LIMIT);
    let records = fill(&rig);
    assert!((200..400).contains(&records), "{records} records of 1,000 bytes");
    assert!(used(&rig) <= LIMIT + INDEX_STEP);
    let refused = rig.write(|request, table| {
        request.put(&table("a"), "small", "1", Condition::Always).unwrap();
        request.put(&table("b"), "large", &format!("\"{}\"", "x".repeat(200_000)), Condition::Always).unwrap();
    });
    assert!(matches!(refused, Err(Error::MemoryFull { .. })));
    assert_eq!(rig.get("a", "small"), None, "nothing of it is done");
    assert!(rig.get("a", "k00007").is_some());
    rig.put("a", "k00007", "\"smaller\"");
    rig.flush("a").unwrap();
    (0..100).for_each(|number| assert_eq!(rig.delete("a", &format!("k{number:05}")).found, 1));
    assert!((90..110).contains(&fill_again(&rig)), "as many fit as were deleted");
    rig.clear("a");
    assert!(fill(&rig).abs_diff(records) <= 5, "as many fit as in the beginning, at once");
    rig.clear("a");
    rig.store().tick().unwrap();
    assert!(used(&rig) < LIMIT / 10, "{} after a clear", used(&rig));
}

fn fill_again(rig: &Rig) -> usize {
    let value = format!("\"{}\"", "x".repeat(1_000));
    (0..1_000).take_while(|number| rig.try_put("a", &format!("n{number:05}"), &value).is_ok()).count()
}

#[test]
fn what_is_above_the_limit_already_loads_and_serves_and_may_only_shrink() {
    let rig = limited(LIMIT);
    fill(&rig);
    rig.flush("a").unwrap();
    let records = rig.table("a").len();
    let mut rig = rig.killed();
    rig.close();
    rig.options.max_memory = Some(LIMIT / 4);
    rig.try_open().unwrap();
    assert_eq!(rig.table("a").len(), records);
    assert!(used(&rig) > LIMIT / 4);
    assert!(matches!(rig.try_put("a", "new", "1"), Err(Error::MemoryFull { .. })));
    rig.put("a", "k00001", "\"smaller\"");
    assert_eq!(rig.delete("a", "k00002").found, 1);
    rig.flush("a").unwrap();
    rig.clear("a");
    rig.store().tick().unwrap();
    rig.put("a", "new", "1");
}

#[test]
fn old_versions_that_a_view_holds_count_until_it_is_gone() {
    let rig = limited(10_000_000);
    let value = |byte: &str| format!("\"{}\"", byte.repeat(1_000));
    (0..300).for_each(|number| assert!(rig.try_put("a", &number.to_string(), &value("x")).is_ok()));
    rig.store().tick().unwrap();
    let before = used(&rig);
    let snapshot = rig.table("a").snapshot(1 << 20);
    (0..300).for_each(|number| assert!(rig.try_put("a", &number.to_string(), &value("y")).is_ok()));
    assert!(used(&rig) > before + 300_000, "{} after {before}", used(&rig));
    drop(snapshot);
    assert!(used(&rig) < before + 50_000, "{} after {before}", used(&rig));
    let mut snapshot = rig.table("a").snapshot(1 << 20);
    snapshot.next(&mut Vec::new()).unwrap();
    rig.clear("a");
    rig.store().tick().unwrap();
    assert!(used(&rig) > 300_000, "a cleared table that a view reads is still there");
    drop(snapshot);
    assert!(used(&rig) < 50_000, "{}", used(&rig));
}

#[test]
fn the_sum_is_what_the_namespaces_say_and_volatile_ones_are_in_it() {
    let rig = limited(LIMIT);
    let volatile = rig.store().volatile(&place("v")).unwrap();
    for number in 0..50 {
        rig.put("a", &format!("k{number}"), "\"value\"");
        let mut request = WriteRequest::new(1, 1);
        request.put(&volatile, &format!("k{number}"), "\"value\"", Condition::Always).unwrap();
        rig.store().write(vec![request]).pop().unwrap().unwrap();
    }
    let of = |table: &Table| table.bytes() + table.overhead_bytes();
    let tables = of(&rig.table("a")) + of(&volatile);
    let journal_buffer = used(&rig) - tables;
    assert!(journal_buffer < 10_000, "{journal_buffer}");
    let large = format!("\"{}\"", "x".repeat(500_000));
    let mut request = WriteRequest::new(1, 1);
    request.put(&volatile, "large", &large, Condition::Always).unwrap();
    assert!(matches!(rig.store().write(vec![request]).pop().unwrap(), Err(Error::MemoryFull { .. })));
    rig.store().drop_volatile(&place("v")).unwrap();
    drop(volatile);
    assert_eq!(used(&rig), of(&rig.table("a")) + journal_buffer);
}

#[test]
fn requests_of_one_group_do_not_pass_the_limit_together() {
    let rig = limited(LIMIT);
    let table = rig.table("a");
    let value = format!("\"{}\"", "x".repeat(50_000));
    let requests = (0..20)
        .map(|number| {
            let mut request = WriteRequest::new(1, 1);
            request.put(&table, &number.to_string(), &value, Condition::Always).unwrap();
            request
        })
        .collect();
    let outcomes = rig.store().write(requests);
    let done = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert!((6..=7).contains(&done), "{done} of 20");
    assert!(outcomes[done..].iter().all(|outcome| matches!(outcome, Err(Error::MemoryFull { .. }))));
}

#[test]
fn many_small_records_that_were_cleared_and_a_buffer_that_is_empty_leave_their_room_at_once() {
    for durability in [Durability::Memory, Durability::Buffered] {
        let mut options = options(durability);
        (options.max_memory, options.buffer_bytes) = (Some(LIMIT), 64 << 10);
        let rig = Rig::new(options).opened();
        let fill = || (0..10_000).take_while(|number| rig.try_put("a", &format!("k{number:05}"), "1").is_ok()).count();
        let first = fill();
        assert!((1_500..9_000).contains(&first), "{first}: more than is freed without being put aside");
        for _ in 0..3 {
            rig.clear("a");
            assert!(fill().abs_diff(first) <= first / 10, "no tick in between");
        }
        rig.clear("a");
        rig.store().tick().unwrap();
        let outcomes = rig.store().turn.exclusive(|writer| writer.appender.outcomes().memory()) as u64;
        assert_eq!(used(&rig), rig.table("a").bytes() + rig.table("a").overhead_bytes() + outcomes, "{durability:?}");
    }
}

#[test]
fn what_a_large_request_replaces_is_freed_when_it_is_answered_or_by_the_next_one_or_the_tick() {
    let rig = Rig::new(options(Durability::Buffered)).opened();
    let waiting = || rig.store().shared.memory.waits_to_be_freed();
    let write = |records: usize, value: &str| {
        let (table, mut request) = (rig.table("a"), WriteRequest::new(1, 0));
        for key in 0..records {
            request.put(&table, &format!("k{key}"), value, Condition::Always).unwrap();
        }
        let many = request.may_replace_many();
        rig.store().write(vec![request]).pop().unwrap().unwrap();
        many
    };
    assert!(!write(10, "0"));
    assert_eq!(waiting(), 0, "a small one waits for nothing");
    assert!(write(100, "1"));
    assert!(write(80, "2"));
    assert_eq!(waiting(), 80, "only of the last one");
    let before = rig.store().shared.memory.gauge.bytes();
    rig.store().free_replaced();
    assert_eq!(waiting(), 0);
    let freed = before - rig.store().shared.memory.gauge.bytes();
    assert!(freed >= 80 * 3, "what waits to be freed counts: {freed} bytes");
    write(70, "3");
    rig.store().tick().unwrap();
    assert_eq!(waiting(), 0);
    assert_eq!((rig.get("a", "k69").unwrap(), rig.get("a", "k79").unwrap()), ("3".into(), "2".into()));
}
