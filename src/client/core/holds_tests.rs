//! What the core promises of grants, with byte strings alone: none is lost, and none outlives its connection.

use std::time::{Duration, Instant};

use commonhold_proto::{Election, FlagAction, LockWish, Place};

use super::*;
use crate::client::limits::Limits;
use crate::client::target::Target;

fn lock() -> Verb<'static> {
    Verb::Lock(LockWish { keys: vec!["k"], shared: false, owner: 1, holds: Vec::new(), wait: true })
}

const ELECT: Verb<'static> = Verb::Elect { name: "e", wait: true };
const ACQUIRE: Verb<'static> = Verb::Acquire { group: "g", limit: 2, slots: 1, wait: true };
const LOCKED: Answer<'static> = Answer::Locked { token: 7 };
const WON: Answer<'static> = Answer::Elected { state: Election::Won };

/// The requests in `bytes`, a cancel as none.
fn verbs(mut bytes: &[u8]) -> Vec<Option<Verb<'_>>> {
    let mut verbs = Vec::new();
    while let Some((header, body, consumed)) = frame::split(bytes).unwrap() {
        let is_request = header.kind == FrameKind::Request;
        verbs.push(is_request.then(|| codec::decode_request(body).unwrap().verb));
        bytes = &bytes[consumed..];
    }
    verbs
}

fn flag_target(name: &str) -> Target {
    Target::new(Place::new("", name).unwrap(), Kind::Persistent)
}

#[test]
fn a_grant_that_crosses_the_cancel_is_given_back_and_nothing_stays_behind() {
    let cases = [
        (lock(), LOCKED, Verb::Unlock { token: 7 }),
        (ACQUIRE, Answer::Acquired { lease: 3 }, Verb::Release { lease: 3 }),
        (ELECT, WON, Verb::Initialized { name: "e", done: false }),
    ];
    for (asks, grants, gives_back) in cases {
        // Given up when it was sent, when half of it was, and when the answer had come and nobody had taken it.
        for sent in [usize::MAX, 10] {
            let mut core = Core::new(7);
            let id = core.begin(0, asks.clone()).unwrap();
            send(&mut core, sent);
            assert_eq!(core.give_up(id, true), GivenUp::Read);
            let rest = send(&mut core, usize::MAX);
            let cancelled = if sent == usize::MAX { &rest[..] } else { &rest[rest.len() - 13..] };
            assert_eq!(frames(cancelled), [(id, FrameKind::Cancel)]);
            assert!(receive(&mut core, &answer(id, &grants)).is_empty());
            assert_eq!(verbs(&send(&mut core, usize::MAX)), [Some(gives_back.clone())]);
            assert!(core.requests.is_empty());
        }
        let mut core = Core::new(7);
        let id = core.begin(0, asks).unwrap();
        send(&mut core, usize::MAX);
        assert_eq!(receive(&mut core, &answer(id, &grants)), [id]);
        core.give_up(id, true);
        assert_eq!(verbs(&send(&mut core, usize::MAX)), [Some(gives_back)]);
        assert!(core.requests.is_empty());
    }
}

#[test]
fn a_wait_that_is_given_up_before_it_was_sent_or_is_refused_leaves_nothing() {
    let mut core = Core::new(7);
    let id = core.begin(0, lock()).unwrap();
    assert_eq!(core.give_up(id, true), GivenUp::Unsent);
    assert!(!core.has_unsent() && core.requests.is_empty());
    let id = core.begin(0, lock()).unwrap();
    send(&mut core, usize::MAX);
    core.give_up(id, true);
    send(&mut core, usize::MAX);
    receive(&mut core, &answer(id, &Answer::Fault(Fault::Cancelled)));
    assert!(!core.has_unsent() && core.requests.is_empty());
}

#[test]
fn a_grant_of_a_lost_connection_is_not_given_back_on_the_next() {
    let mut core = Core::new(7);
    core.connected(4, 1, |_| {});
    let taken = core.begin(0, lock()).unwrap();
    let untaken = core.begin(0, lock()).unwrap();
    let given_up = core.begin(0, lock()).unwrap();
    send(&mut core, usize::MAX);
    receive(&mut core, &[answer(taken, &LOCKED), answer(untaken, &LOCKED)].concat());
    core.give_up(given_up, true);
    let connection = core.take(taken).unwrap().unwrap().connection();
    assert_eq!(connection, core.connection_number().load(std::sync::atomic::Ordering::Relaxed));
    core.tell(connection, Verb::Unlock { token: 7 });
    lose(&mut core);
    core.connected(4, 1, |_| {});
    core.give_up(untaken, true);
    core.tell(connection, Verb::Unlock { token: 7 });
    let error = core.begin_on(connection, 0, Verb::Unlock { token: 7 }).unwrap_err();
    assert!(matches!(&error, Error::Fault(Fault::NotHeld { what }) if what == "the lock of token 7"), "{error}");
    assert!(!core.has_unsent() && core.requests.is_empty());
}

#[test]
fn a_wait_is_sent_again_on_the_next_connection_and_what_gives_back_is_not() {
    let mut core = Core::new(7);
    core.connected(4, 1, |_| {});
    let wish = core.begin(0, lock()).unwrap();
    let sent = core.begin_on(0, 0, Verb::Unlock { token: 5 }).unwrap();
    send(&mut core, usize::MAX);
    let unsent = core.begin_on(0, 0, Verb::Release { lease: 6 }).unwrap();
    assert_eq!(lose(&mut core), [sent, unsent]);
    assert!(core.take(sent).unwrap().unwrap_err().outcome_is_unknown());
    let error = core.take(unsent).unwrap().unwrap_err();
    assert!(matches!(&error, Error::Fault(Fault::NotHeld { what }) if what == "the slots of lease 6"), "{error}");
    let error = core.begin_on(1, 0, Verb::Unlock { token: 5 }).unwrap_err();
    assert!(matches!(error, Error::Fault(Fault::NotHeld { .. })), "there is no connection: {error}");
    core.connected(4, 2, |_| {});
    assert_eq!(ids(&send(&mut core, usize::MAX)), [wish]);
    receive(&mut core, &answer(wish, &LOCKED));
    assert_eq!(core.take(wish).unwrap().unwrap().connection(), 1);
}

#[test]
fn a_wait_that_is_sent_again_has_only_what_is_left_of_its_time_and_is_not_sent_when_that_is_over() {
    let mut core = Core::new(7);
    core.connected(4, 1, |_| {});
    let began = Instant::now().checked_sub(Duration::from_secs(40)).expect("the machine runs longer than that");
    let within = |seconds| Limits { began, deadline: Some(began + Duration::from_secs(seconds)) };
    let for_ever = core.begin_wait(Limits { began, deadline: None }, lock()).unwrap();
    let wish = core.begin_wait(within(100), lock()).unwrap();
    let late = core.begin_wait(within(30), lock()).unwrap();
    assert_eq!(ids(&send(&mut core, usize::MAX)), [for_ever, wish, late]);
    assert!(core.waits_on(wish, 0) && lose(&mut core).is_empty() && !core.waits_on(wish, 0));
    let unsent = core.begin_wait(within(30), ELECT).unwrap();
    let mut settled = Vec::new();
    core.connected(4, 2, |id| settled.push(id));
    assert_eq!(settled, [late, unsent]);
    let error = core.take(late).unwrap().unwrap_err();
    assert!(matches!(error, Error::TimedOut { waited, .. } if waited >= Duration::from_secs(40)), "{error}");
    let again = send(&mut core, usize::MAX);
    assert_eq!(ids(&again), [for_ever, wish]);
    let (_, body, first) = frame::split(&again).unwrap().unwrap();
    assert_eq!(codec::decode_request(body).unwrap().deadline_ms, 0);
    let (_, body, _) = frame::split(&again[first..]).unwrap().unwrap();
    let request = codec::decode_request(body).unwrap();
    assert!((1..=60_000).contains(&request.deadline_ms) && request.verb == lock(), "{request:?}");
    assert!(core.waits_on(wish, 1));
}

#[test]
fn a_wait_outlasts_a_daemon_that_stops() {
    let mut core = Core::new(7);
    core.connected(4, 1, |_| {});
    let wish = core.begin(0, lock()).unwrap();
    send(&mut core, usize::MAX);
    assert!(receive(&mut core, &answer(wish, &Answer::Fault(Fault::Stopping))).is_empty());
    assert!(lose(&mut core).is_empty());
    core.connected(4, 2, |_| {});
    assert_eq!(ids(&send(&mut core, usize::MAX)), [wish]);
}

#[test]
fn giving_back_is_never_taken_back_by_who_waits_for_its_answer_no_longer() {
    let mut core = Core::new(7);
    for sent in [0, 10, usize::MAX] {
        let id = core.begin_on(0, 0, Verb::Unlock { token: 5 }).unwrap();
        let mut bytes = send(&mut core, sent);
        core.give_up(id, true);
        bytes.extend(send(&mut core, usize::MAX));
        assert_eq!(verbs(&bytes), [Some(Verb::Unlock { token: 5 })]);
        assert!(receive(&mut core, &answer(id, &Answer::Done)).is_empty());
        assert!(core.requests.is_empty());
    }
}

#[test]
fn a_win_that_nobody_waits_for_passes_to_another_of_the_client_who_elects() {
    let mut core = Core::new(7);
    let first = core.begin(0, ELECT).unwrap();
    send(&mut core, usize::MAX);
    core.give_up(first, true);
    let second = core.begin(0, ELECT).unwrap();
    send(&mut core, usize::MAX);
    receive(&mut core, &answer(first, &WON));
    assert!(!core.has_unsent(), "the session has won, and the second is about to be told so");
    assert_eq!(receive(&mut core, &answer(second, &WON)), [second]);
}

#[test]
fn flags_are_registered_again_set_and_before_anything_else() {
    let mut core = Core::new(7);
    let (a, b) = (flag_target("a"), flag_target("b"));
    let action = |verb: &Option<Verb<'_>>| match verb {
        Some(Verb::Flag { space, action }) => (space.namespace.to_owned(), *action),
        other => panic!("{other:?}"),
    };
    let of = |bytes: &[u8]| verbs(bytes).iter().map(action).collect::<Vec<_>>();
    let named = |name: &str, action| (name.to_owned(), action);
    for target in [&a, &a, &b, &b] {
        core.begin_flag(0, target).unwrap();
    }
    let (new, again) = (FlagAction::Register { set: false }, FlagAction::Register { set: true });
    let look = FlagAction::Look;
    let begun = of(&send(&mut core, usize::MAX));
    assert_eq!(begun, [named("a", new), named("a", look), named("b", new), named("b", look)]);
    core.drop_flag(&b);
    assert!(!core.has_unsent(), "another object has it");
    core.drop_flag(&b);
    assert_eq!(of(&send(&mut core, usize::MAX)), [named("b", FlagAction::Forget)]);
    // What was begun is repeated, and comes after.
    lose(&mut core);
    core.connected(4, 2, |_| {});
    let sent = of(&send(&mut core, usize::MAX));
    assert_eq!(sent[0], named("a", again));
    assert_eq!(sent.len(), 5);
    lose(&mut core);
    core.drop_flag(&a);
    core.drop_flag(&a);
    core.connected(4, 2, |_| {});
    assert!(!of(&send(&mut core, usize::MAX)).contains(&named("a", again)), "nobody has it any more");
}

#[test]
fn a_restart_is_told_when_another_daemon_was_found_and_not_before() {
    let mut core = Core::new(7);
    core.connected(4, 5, |_| {});
    let id = core.begin_restart();
    assert!(core.wants_connection() && !core.has_unsent());
    assert!(lose(&mut core).is_empty());
    core.connected(4, 5, |id| panic!("{id} ends"));
    lose(&mut core);
    let mut ended = Vec::new();
    core.connected(4, 6, |id| ended.push(id));
    assert_eq!(ended, [id]);
    assert!(core.take(id).unwrap().is_ok() && !core.wants_connection());
    // Nobody there: it ends, and so does one that is given up.
    let id = core.begin_restart();
    lose(&mut core);
    let mut ended = Vec::new();
    core.fail_all(&Error::Protocol { reason: "none".to_owned() }, |id| ended.push(id));
    assert_eq!(ended, [id]);
    assert!(core.take(id).unwrap().is_err());
    let id = core.begin_restart();
    core.give_up(id, true);
    assert!(!core.wants_connection() && core.requests.is_empty());
}
