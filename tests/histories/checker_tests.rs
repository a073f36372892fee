//! What the checker accepts and what it does not, on histories small enough to be read, and on many small ones against
//! a checker that tries every order.

use std::{fs, slice};

use super::checker::{Partition, Verdict, check};
use super::history::{Boot, History};
use super::model::{Action, Model, Operation, Outcome, State, Value, When};
use super::objects::STORE;
use super::recorder::Recorder;
use super::report::{check_all, shrunk};

/// Each test and its name, as in `main.rs`.
pub(crate) const TESTS: &[(&str, fn())] = &[
    ("writes_at_the_same_time_may_come_in_either_order", writes_at_the_same_time_may_come_in_either_order),
    ("a_read_never_goes_back", a_read_never_goes_back),
    ("a_lost_write_is_noticed", a_lost_write_is_noticed),
    ("two_increments_of_one_base_are_noticed", two_increments_of_one_base_are_noticed),
    ("an_unknown_write_is_done_once_or_never", an_unknown_write_is_done_once_or_never),
    ("an_unknown_write_has_no_effect_after_its_daemon", an_unknown_write_has_no_effect_after_its_daemon),
    ("what_one_process_sends_takes_effect_in_order", what_one_process_sends_takes_effect_in_order),
    ("conditions_are_answered_truly", conditions_are_answered_truly),
    ("a_refusal_after_a_restart_says_nothing", a_refusal_after_a_restart_says_nothing),
    ("memory_loses_only_by_a_kill_and_not_what_is_pinned", memory_loses_only_by_a_kill_and_not_what_is_pinned),
    ("what_was_lost_before_it_was_answered_may_be_done_again", what_was_lost_before_it_was_answered_may_be_done_again),
    ("volatile_values_end_with_their_daemon", volatile_values_end_with_their_daemon),
    ("a_mixture_is_never_explained", a_mixture_is_never_explained),
    ("the_verdict_is_that_of_trying_every_order", the_verdict_is_that_of_trying_every_order),
    ("a_contradiction_is_made_small_and_told", a_contradiction_is_made_small_and_told),
    ("a_killed_process_leaves_its_last_request_unknown", a_killed_process_leaves_its_last_request_unknown),
    ("a_history_is_the_same_after_it_was_a_file", a_history_is_the_same_after_it_was_a_file),
];

const NAME: &str = "chunks/a";

fn operation(call: u64, until: u64, action: Action, outcome: Outcome) -> Operation {
    Operation {
        process: 1,
        id: call,
        object: NAME.to_owned(),
        action,
        when: When::Always,
        pins: false,
        call,
        until,
        outcome,
        weak: false,
        in_order: false,
        lost_by: None,
    }
}

fn put(call: u64, until: u64, stamp: u64, existed: bool) -> Operation {
    operation(call, until, Action::Put { stamp }, Outcome::Written { existed })
}

fn get(call: u64, until: u64, stamp: u64) -> Operation {
    let value = (stamp > 0).then(|| stamped(stamp));
    operation(call, until, Action::Get, Outcome::Read(value))
}

fn increment(call: u64, until: u64, existed: bool) -> Operation {
    operation(call, until, Action::Increment { by: 1 }, Outcome::Written { existed })
}

fn count(call: u64, until: u64, count: i64) -> Operation {
    operation(call, until, Action::Get, Outcome::Read(Some(Value { count, ..Value::default() })))
}

fn unknown(call: u64, until: u64, action: Action) -> Operation {
    operation(call, until, action, Outcome::Unknown)
}

fn crash(call: u64, until: u64, killed: bool) -> Operation {
    operation(call, until, Action::Crash { killed, then_memory: true }, Outcome::Done)
}

fn stamped(stamp: u64) -> Value {
    Value { stamp, ..Value::default() }
}

fn partition(operations: &[Operation]) -> Partition {
    Partition { object: NAME.to_owned(), is_volatile: false, memory: false, operations: operations.to_vec() }
}

fn from_memory(operations: &[Operation]) -> Partition {
    Partition { memory: true, ..partition(operations) }
}

#[track_caller]
fn holds(partition: &Partition) {
    assert_eq!(check(partition).verdict, Verdict::Linearizable, "{partition:#?}");
}

#[track_caller]
fn contradicts(partition: &Partition) {
    let verdict = check(partition).verdict;
    assert!(matches!(verdict, Verdict::NotLinearizable(_)), "{verdict:?}: {partition:?}");
}

fn writes_at_the_same_time_may_come_in_either_order() {
    for (last, first_existed) in [(1, true), (2, false)] {
        let writes = [put(0, 10, 1, first_existed), put(5, 15, 2, !first_existed)];
        holds(&partition(&[&writes[..], &[get(20, 30, last)]].concat()));
        contradicts(&partition(&[&writes[..], &[get(20, 30, 3 - last)]].concat()));
    }
    holds(&partition(&[put(0, 10, 1, false), get(10, 20, 0), get(10, 20, 1)]));
}

fn a_read_never_goes_back() {
    holds(&partition(&[put(0, 100, 1, false), get(10, 20, 0), get(30, 40, 1)]));
    contradicts(&partition(&[put(0, 100, 1, false), get(10, 20, 1), get(30, 40, 0)]));
}

fn a_lost_write_is_noticed() {
    contradicts(&partition(&[put(0, 10, 1, false), put(20, 30, 2, true), get(40, 50, 1)]));
    // Nobody reads, and still: what is put then was answered to be new.
    contradicts(&partition(&[put(0, 10, 1, false), put(20, 30, 2, false)]));
    contradicts(&partition(&[put(0, 10, 1, false), operation(20, 30, Action::Contains, Outcome::Exists(false))]));
}

fn two_increments_of_one_base_are_noticed() {
    let both = [increment(0, 10, false), increment(20, 50, true), increment(20, 50, true)];
    holds(&partition(&[&both[..], &[count(60, 70, 3)]].concat()));
    contradicts(&partition(&[&both[..], &[count(60, 70, 2)]].concat()));
    let append = |item| operation(20, 50, Action::Append { item, keep_last: 2 }, Outcome::Written { existed: true });
    let list = |log: &[u64]| {
        let value = Value { stamp: 9, log: log.to_vec(), ..Value::default() };
        operation(60, 70, Action::Get, Outcome::Read(Some(value)))
    };
    let appends = [put(0, 10, 9, false), append(1), append(2), append(3)];
    holds(&partition(&[&appends[..], &[list(&[3, 1])]].concat()));
    contradicts(&partition(&[&appends[..], &[list(&[3])]].concat()));
}

fn an_unknown_write_is_done_once_or_never() {
    let raised = [increment(0, 10, false), unknown(20, u64::MAX, Action::Increment { by: 1 })];
    holds(&partition(&[&raised[..], &[count(60, 70, 1)]].concat()));
    holds(&partition(&[&raised[..], &[count(60, 70, 2)]].concat()));
    holds(&partition(&[&raised[..], &[count(60, 70, 1), count(80, 90, 2)]].concat()));
    contradicts(&partition(&[&raised[..], &[count(60, 70, 3)]].concat()));
    contradicts(&partition(&[&raised[..], &[count(60, 70, 2), count(80, 90, 1)]].concat()));
    // A condition that does not hold when its time comes.
    let claim = Operation { when: When::IfAbsent, ..unknown(20, u64::MAX, Action::Put { stamp: 2 }) };
    contradicts(&partition(&[put(0, 10, 1, false), claim, get(60, 70, 2)]));
}

fn an_unknown_write_has_no_effect_after_its_daemon() {
    let late = unknown(0, 50, Action::Put { stamp: 1 });
    holds(&partition(&[late.clone(), get(10, 20, 0), get(40, 60, 1)]));
    holds(&partition(&[late.clone(), get(60, 70, 1)]));
    contradicts(&partition(&[late, get(60, 70, 0), get(80, 90, 1)]));
}

fn what_one_process_sends_takes_effect_in_order() {
    let sent = |in_order, process| {
        let first = Operation { in_order, ..put(0, 50, 1, true) };
        let second = Operation { process, ..put(10, 60, 2, false) };
        partition(&[first, second, get(70, 80, 1)])
    };
    contradicts(&sent(true, 1));
    // Another process may come first, and so may the second if the first was repeated at the next daemon.
    holds(&sent(true, 2));
    holds(&sent(false, 1));
}

fn conditions_are_answered_truly() {
    let when = |when, outcome| Operation { when, outcome, ..put(20, 30, 2, true) };
    let if_seen = |stamp| When::IfSeen { value: stamped(stamp), since: 0 };
    let done = |existed| Outcome::Written { existed };
    let after_one = |operation| partition(&[put(0, 10, 1, false), operation]);
    holds(&after_one(when(if_seen(1), done(true))));
    holds(&after_one(when(if_seen(7), Outcome::Refused)));
    holds(&after_one(when(When::IfAbsent, Outcome::Refused)));
    contradicts(&after_one(when(if_seen(7), done(true))));
    contradicts(&after_one(when(if_seen(1), Outcome::Refused)));
    contradicts(&after_one(when(When::IfAbsent, done(false))));
    contradicts(&partition(&[when(When::IfAbsent, Outcome::Refused)]));
}

fn a_refusal_after_a_restart_says_nothing() {
    let when = When::IfSeen { value: stamped(1), since: 0 };
    let refused = Operation { when, outcome: Outcome::Refused, weak: true, ..put(20, 30, 2, true) };
    let done = Operation { outcome: Outcome::Written { existed: true }, ..refused.clone() };
    holds(&partition(&[put(0, 10, 1, false), refused]));
    contradicts(&partition(&[put(0, 10, 7, false), done]));
}

fn memory_loses_only_by_a_kill_and_not_what_is_pinned() {
    let three = [put(0, 10, 1, false), put(20, 30, 2, true), put(40, 50, 3, true)];
    for last in [0, 1, 2, 3] {
        let after = |end: Operation| [&three[..], &[end, get(80, 90, last)]].concat();
        holds(&from_memory(&after(crash(60, 70, true))));
        let keeps = if last == 3 { holds } else { contradicts };
        keeps(&from_memory(&after(crash(60, 70, false))));
        keeps(&partition(&after(crash(60, 70, true))));
        // The second was answered as one that outlives the daemon, or a commit came after it.
        let mut pinned = after(crash(60, 70, true));
        pinned[1].pins = true;
        let keeps = if last >= 2 { holds } else { contradicts };
        keeps(&from_memory(&pinned));
        let mut committed = after(crash(60, 70, true));
        committed.push(operation(32, 38, Action::Commit, Outcome::Done));
        keeps(&from_memory(&committed));
    }
    contradicts(&from_memory(&[&three[..], &[crash(60, 70, true), get(80, 90, 1), get(100, 110, 2)]].concat()));
}

fn what_was_lost_before_it_was_answered_may_be_done_again() {
    let trace = Operation { lost_by: Some(0), ..unknown(10, 60, Action::Increment { by: 1 }) };
    let killed = |between: &[Operation], after: i64| {
        let ends = [crash(50, 60, true), increment(10, 80, true), count(90, 95, after)];
        from_memory(&[&[increment(0, 5, false), trace.clone()], between, &ends].concat())
    };
    let shown = count(20, 30, 2);
    holds(&killed(slice::from_ref(&shown), 2));
    contradicts(&killed(slice::from_ref(&shown), 3));
    // What was committed after it was shown is not lost, and was not done again.
    let committed = operation(32, 40, Action::Commit, Outcome::Done);
    let again = Operation { pins: true, ..increment(32, 40, true) };
    contradicts(&killed(&[shown.clone(), committed, count(64, 66, 1)], 2));
    contradicts(&killed(&[shown.clone(), again, count(64, 66, 1)], 2));
    holds(&killed(&[shown.clone(), count(64, 66, 1)], 2));
    // A daemon that does not answer from memory has nothing that it may lose.
    contradicts(&Partition { memory: false, ..killed(&[shown, count(64, 66, 1)], 2) });
}

fn volatile_values_end_with_their_daemon() {
    for killed in [true, false] {
        let lives = [put(0, 10, 1, false), crash(20, 30, killed)];
        let volatile = |read| Partition { is_volatile: true, ..partition(&[&lives[..], &[read]].concat()) };
        holds(&volatile(get(40, 50, 0)));
        contradicts(&volatile(get(40, 50, 1)));
    }
}

fn a_mixture_is_never_explained() {
    contradicts(&partition(&[
        put(0, 100, 1, false),
        operation(10, 20, Action::Get, Outcome::Mixed("half of it".to_owned())),
    ]));
}

fn comes_first(one: &Operation, other: &Operation) -> bool {
    one.until < other.call || one.in_order && one.process == other.process && one.call < other.call
}

/// Whether some order of the operations is one that the model explains, by trying all of them.
fn any_order_holds(partition: &Partition) -> bool {
    fn goes_on(partition: &Partition, model: &mut Model, order: &mut Vec<usize>, states: &[State]) -> bool {
        let operations = &partition.operations;
        let is_unknown = |index: usize| operations[index].outcome == Outcome::Unknown;
        if states.is_empty() || (0..operations.len()).all(|index| order.contains(&index) || is_unknown(index)) {
            return !states.is_empty();
        }
        (0..operations.len()).any(|next| {
            // What nobody knows to be done may be left out; then it holds up nothing, and has no place later.
            let holds_up = |other: usize| !is_unknown(other) && comes_first(&operations[other], &operations[next]);
            let is_too_late = |&done: &usize| comes_first(&operations[next], &operations[done]);
            let may_be_next = !order.contains(&next)
                && (0..operations.len()).all(|other| order.contains(&other) || !holds_up(other))
                && !order.iter().any(is_too_late);
            if !may_be_next {
                return false;
            }
            // Each state goes its own way.
            let step = |state| model.step(slice::from_ref(state), &operations[next]);
            let after: Vec<State> = states.iter().flat_map(step).collect();
            order.push(next);
            let holds = goes_on(partition, model, order, &after);
            order.pop();
            holds
        })
    }
    let mut model = Model::new(partition.is_volatile);
    goes_on(partition, &mut model, &mut Vec::new(), &Model::initial(partition.memory))
}

fn the_verdict_is_that_of_trying_every_order() {
    let seed = 7;
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut seen = [0, 0];
    for _ in 0..3_000 {
        let mut operations = Vec::new();
        for number in 1..=random.u64(2..7) {
            // No two at the same moment: a process does one thing after the other.
            let call = random.u64(..40) * 8 + number;
            let action = match random.u32(..8) {
                0 | 1 => Action::Put { stamp: number },
                2 => Action::Delete,
                3 | 4 => Action::Increment { by: 1 },
                5 => Action::Crash { killed: random.bool(), then_memory: random.bool() },
                6 => Action::Commit,
                _ => Action::Get,
            };
            let when = if random.u32(..4) == 0 { When::IfAbsent } else { When::Always };
            let outcome = match &action {
                Action::Get if random.bool() => Outcome::Read(None),
                Action::Get => Outcome::Read(Some(Value {
                    stamp: random.u64(..number),
                    count: random.i64(..2),
                    ..Value::default()
                })),
                Action::Commit | Action::Crash { .. } => Outcome::Done,
                _ if random.u32(..3) == 0 => Outcome::Unknown,
                _ if when == When::IfAbsent && random.bool() => Outcome::Refused,
                _ => Outcome::Written { existed: random.bool() },
            };
            let until = call + random.u64(1..30) * 8;
            let process = random.u32(..5);
            let in_order = outcome != Outcome::Unknown && random.bool();
            operations.push(Operation {
                process,
                when,
                pins: random.bool(),
                in_order,
                lost_by: (outcome == Outcome::Unknown && random.bool()).then(|| random.u32(..2)),
                ..operation(call, until, action, outcome)
            });
        }
        operations.sort_by_key(|operation| operation.call);
        let (memory, is_volatile) = (random.bool(), random.u32(..5) == 0);
        let partition = Partition { is_volatile, memory, ..partition(&operations) };
        let expected = any_order_holds(&partition);
        seen[usize::from(expected)] += 1;
        if expected { holds(&partition) } else { contradicts(&partition) }
    }
    assert!(seen.iter().all(|count| *count > 300), "both verdicts occur: {seen:?}");
}

fn a_contradiction_is_made_small_and_told() {
    let mut operations = Vec::new();
    for round in 0..30 {
        let at = round * 100;
        operations.push(put(at, at + 20, round + 1, round > 0));
        operations.push(get(at + 5, at + 30, if round % 2 == 0 { round } else { round + 1 }));
        // The seventh is lost between two reads, and shows again later.
        operations.push(get(at + 40, at + 50, if round == 7 { 7 } else { round + 1 }));
    }
    let long = partition(&operations);
    let Verdict::NotLinearizable(order) = check(&long).verdict else { panic!("a write is lost") };
    let small = shrunk(&long, order);
    assert_eq!((small.of, small.partition.operations.len()), (90, 9), "eight puts and the read that missed one");
    let text = small.text();
    for words in ["9 of its 90 operations", "put 8", "(stamp 7)", "the object is then: (stamp 8)", "cannot be next"] {
        assert!(text.contains(words), "{words:?} is not in:\n{text}");
    }
    let other = partition(&[put(0, 10, 1, false), get(20, 30, 2)]);
    let (smallest, explored, undecided) = check_all(&[long, other]);
    assert_eq!(smallest.map(|smallest| smallest.partition.operations.len()), Some(2), "a put, and a read of another");
    assert!(explored > 0 && undecided.is_empty());
}

/// A directory for the files of a process, and what it recorded there: one request answered, one not, and half a line.
fn recorded(history: &mut History) {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("worker-3.log");
    let mut recorder = Recorder::create(&log).unwrap();
    let id = recorder.begin(NAME, Action::Put { stamp: 1 }, When::Always, true).unwrap();
    recorder.end(id, Outcome::Written { existed: false }).unwrap();
    recorder.begin(NAME, Action::Get, When::Always, false).unwrap();
    recorder.begin(NAME, Action::Delete, When::Always, false).unwrap();
    let torn = [fs::read(&log).unwrap(), b"{\"Ended\":{\"id\":3".to_vec()].concat();
    fs::write(&log, torn).unwrap();
    assert!(history.add(3, &log, None).is_err(), "a process that was not killed leaves nothing open");
    history.operations.clear();
    history.add(3, &log, Some(u64::MAX - 10)).unwrap();
}

fn a_killed_process_leaves_its_last_request_unknown() {
    let mut history = History::new(1, Vec::new());
    recorded(&mut history);
    let [put, delete] = &history.operations[..] else { panic!("a read without an answer says nothing: {history:?}") };
    assert!(put.pins && put.call <= put.until && put.outcome == Outcome::Written { existed: false });
    assert_eq!((delete.id, delete.until, &delete.outcome), (3, u64::MAX, &Outcome::Unknown));

    // As long as the daemon lives that may have got it.
    let boot = |gone| Boot { memory: false, gone, killed: true };
    let mut history = History::new(1, vec![boot(Some((1, 2))), boot(Some((u64::MAX - 9, u64::MAX - 8))), boot(None)]);
    recorded(&mut history);
    assert_eq!(history.operations[1].until, u64::MAX - 8);
}

fn a_history_is_the_same_after_it_was_a_file() {
    let boots = vec![
        Boot { memory: true, gone: Some((5, 6)), killed: true },
        Boot { memory: false, gone: None, killed: false },
    ];
    let mut history = History::new(11, boots);
    recorded(&mut history);
    history.operations.push(Operation { object: STORE.to_owned(), ..operation(1, 2, Action::Commit, Outcome::Done) });
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("history.json");
    history.save(&file).unwrap();
    let again = History::load(&file).unwrap();
    assert_eq!(format!("{history:?}"), format!("{again:?}"));
    let kinds = |name: &str| {
        let partitions = again.partitions();
        let partition = partitions.into_iter().find(|partition| partition.object == name).expect("an object");
        partition.operations.into_iter().map(|operation| operation.action).collect::<Vec<_>>()
    };
    let crash = Action::Crash { killed: true, then_memory: false };
    assert_eq!(kinds(NAME), [Action::Commit, crash.clone(), Action::Put { stamp: 1 }, Action::Delete]);
    assert_eq!(kinds("fleeting/a"), [crash], "no commit keeps what is volatile");
}
