//! Keyed locks: in order, for as long as their session lives, and with every refusal told.

use std::time::{Duration, Instant};

use commonhold::daemon::Daemon;
use commonhold::proto::limits::{MAX_HOLDINGS, MAX_LOCK_HOLDS, MAX_LOCK_KEYS, MAX_NAME_BYTES};
use commonhold::proto::{Answer, CycleStep, Fault, LockWish, SessionInfo, Verb, codec};

use super::support::{listing, lock, lock_shared, send_waiting, take, token, try_lock, unlock, waiting, wish};
use crate::daemon_support::{PATIENCE, Peer, Place, eventually, frame_of, get, put};
use crate::slow_disk::{Held, slow};

crate::however_sessions_are_served! {
    grants_come_in_the_order_of_the_wishes_and_other_keys_pass,
    tokens_rise_above_all_earlier_grants_and_writes_and_never_come_again,
    a_wait_is_cancelled_and_those_behind_it_go_on,
    a_wait_ends_with_its_deadline,
    a_session_that_ends_frees_what_it_holds_and_waits_for_nothing,
    a_session_that_ends_in_the_middle_of_a_frame_frees_what_it_holds,
    an_operator_frees_what_a_session_holds_by_ending_it,
    what_a_session_sent_before_it_ended_is_done_before_its_lock_is_free,
    requests_of_a_session_that_waits_are_served,
    as_many_may_wait_as_a_session_may_have_and_it_is_read_all_the_same,
    a_cycle_is_refused_with_the_names_of_all_who_are_in_it,
    locks_that_cannot_be_asked_for_are_refused_and_nothing_is_held,
    the_listing_tells_who_holds_and_who_waits,
    those_who_wait_are_told_that_the_daemon_stops,
}

fn grants_come_in_the_order_of_the_wishes_and_other_keys_pass(place: &Place) {
    let _daemon = place.serve();
    let (mut first, mut looker) = (place.connect(), place.connect());
    let held = take(&mut first, &["a", "b"]);
    let mut waiters: Vec<Peer> = (0..5).map(|_| place.connect()).collect();
    for (at, peer) in waiters.iter_mut().enumerate() {
        let keys: &[&str] = if at % 2 == 0 { &["a"] } else { &["b", "a"] };
        peer.ask(lock(keys));
        waiting(&mut looker, "a", at + 1);
    }
    // Nobody waits for that, and `c` is not held though others wish for it later.
    let other = take(&mut looker, &["c"]);
    unlock(&mut looker, other);
    unlock(&mut first, held);
    let mut last = held;
    for peer in &mut waiters {
        let token = token(peer.next().answer());
        assert!(token > last, "{token} after {last}");
        assert!(matches!(looker.call(try_lock(&["a"])).fault(), Fault::WouldWait { .. }));
        unlock(peer, token);
        last = token;
    }
    // Shared with others, but not before an exclusive wish that was earlier.
    let (one, two) =
        (token(first.call(lock_shared(&["s"])).answer()), token(looker.call(lock_shared(&["s"])).answer()));
    waiters[0].ask(lock(&["s"]));
    waiting(&mut looker, "s", 1);
    waiters[1].ask(lock_shared(&["s"]));
    waiting(&mut looker, "s", 2);
    unlock(&mut first, one);
    unlock(&mut looker, two);
    let exclusive = token(waiters[0].next().answer());
    unlock(&mut waiters[0], exclusive);
    assert!(token(waiters[1].next().answer()) > exclusive);
}

fn tokens_rise_above_all_earlier_grants_and_writes_and_never_come_again(place: &Place) {
    let mut last = 0;
    for _ in 0..3 {
        let daemon = place.serve();
        let mut peer = place.connect();
        for _ in 0..5 {
            let Answer::Written { seq, .. } = peer.call(put("n", "k", "1")).answer() else { panic!("written") };
            assert!(seq.0 > last);
            let token = take(&mut peer, &["k"]);
            assert!(token > seq.0);
            unlock(&mut peer, token);
            last = token;
        }
        // As a killed one: nothing tells the next one what was given out but never journalled.
        drop(peer);
        drop(daemon);
    }
}

fn a_wait_is_cancelled_and_those_behind_it_go_on(place: &Place) {
    let _daemon = place.serve();
    let (mut first, mut second, mut third) = (place.connect(), place.connect(), place.connect());
    let held = token(first.call(lock_shared(&["k"])).answer());
    send_waiting(&second, 77, 0, lock(&["k"]));
    waiting(&mut first, "k", 1);
    third.ask(lock_shared(&["k"]));
    waiting(&mut first, "k", 2);
    let mut cancel = Vec::new();
    codec::encode_cancel(&mut cancel, 77);
    second.send(&cancel);
    let reply = second.next();
    assert_eq!((reply.id, reply.fault()), (77, Fault::Cancelled));
    // It waited only behind the one that does not wait any more.
    let shared = token(third.next().answer());
    // A cancel that comes too late does nothing.
    let mut cancel = Vec::new();
    codec::encode_cancel(&mut cancel, 1);
    third.send(&cancel);
    unlock(&mut third, shared);
    unlock(&mut first, held);
    assert_eq!(listing(&mut first), []);
}

fn a_wait_ends_with_its_deadline(place: &Place) {
    let _daemon = place.serve();
    let (mut first, mut second, mut third) = (place.connect(), place.connect(), place.connect());
    let held = token(first.call(lock_shared(&["k"])).answer());
    let began = Instant::now();
    send_waiting(&second, 5, 80, lock(&["k"]));
    waiting(&mut first, "k", 1);
    third.ask(lock_shared(&["k"]));
    let reply = second.next();
    let Fault::TimedOut { waited_ms, .. } = reply.fault() else { panic!("{reply:?}") };
    assert!(waited_ms >= 80 && began.elapsed() >= Duration::from_millis(80), "{waited_ms}");
    assert!(began.elapsed() < PATIENCE);
    token(third.next().answer());
    unlock(&mut first, held);
    // Granted in time, it is not answered once more.
    send_waiting(&second, 6, 60, try_lock(&["other"]));
    let granted = token(second.next().answer());
    send_waiting(&second, 7, 60, lock(&["more"]));
    token(second.next().answer());
    std::thread::sleep(Duration::from_millis(100));
    unlock_as(&mut second, 8, granted);
}

fn unlock_as(peer: &mut Peer, id: u64, token: u64) {
    peer.send(&frame_of(id, Verb::Unlock { token }));
    let reply = peer.next();
    assert_eq!((reply.id, reply.answer()), (id, Answer::Done));
}

fn a_session_that_ends_frees_what_it_holds_and_waits_for_nothing(place: &Place) {
    let _daemon = place.serve();
    let mut third = place.connect();
    for _ in 0..20 {
        let (mut first, mut second) = (place.connect(), place.connect());
        take(&mut first, &["k", "l"]);
        second.ask(lock(&["k"]));
        waiting(&mut third, "k", 1);
        third.ask(lock(&["k"]));
        // The one that waits first has gone when the lock is free.
        drop(second);
        drop(first);
        let granted = token(third.next().answer());
        let free = take(&mut third, &["l"]);
        unlock(&mut third, granted);
        unlock(&mut third, free);
    }
    eventually("nothing is held", || listing(&mut third).is_empty());
}

fn a_session_that_ends_in_the_middle_of_a_frame_frees_what_it_holds(place: &Place) {
    let _daemon = place.serve();
    let (mut first, mut second) = (place.connect(), place.connect());
    take(&mut first, &["k"]);
    let frame = frame_of(9, put("n", "never", "1"));
    first.send(&frame[..frame.len() - 3]);
    second.ask(lock(&["k"]));
    waiting(&mut place.connect(), "k", 1);
    drop(first);
    token(second.next().answer());
    assert_eq!(second.call(get("n", "never")).value(), None);
}

fn an_operator_frees_what_a_session_holds_by_ending_it(place: &Place) {
    let _daemon = place.serve();
    let (mut first, mut second, mut operator) = (place.connect(), place.connect(), place.connect());
    let held = take(&mut first, &["k"]);
    second.ask(lock(&["k"]));
    waiting(&mut operator, "k", 1);
    let holder = listing(&mut operator)[0].holders[0].clone();
    assert_eq!(holder.token, held);
    assert_eq!(operator.call(Verb::EndSession { id: holder.session }).answer(), Answer::Done);
    assert!(token(second.next().answer()) > held);
    assert_eq!(first.next().closing(), Fault::SessionEnded);
}

fn what_a_session_sent_before_it_ended_is_done_before_its_lock_is_free(place: &Place) {
    std::fs::write(place.file("slow"), "{}").unwrap();
    let (around, held): (_, Held) = slow("kv_store_slow.json");
    let _daemon = Daemon::start_in(place.options(), around).unwrap();
    let (mut first, mut second) = (place.connect(), place.connect());
    take(&mut first, &["k"]);
    first.ask(put("slow", "by", "\"the first\""));
    second.ask(lock(&["k"]));
    waiting(&mut place.connect(), "k", 1);
    // Its write waits for the namespace, and it is gone.
    drop(first);
    let mut looker = place.connect();
    eventually("the session is not listed any more", || sessions(&mut looker).len() == 2);
    assert!(listing(&mut looker)[0].holders.len() == 1, "the lock is held for as long as the write is not done");
    drop(held);
    token(second.next().answer());
    assert_eq!(second.call(get("slow", "by")).value().as_deref(), Some("\"the first\""));
}

fn sessions(peer: &mut Peer) -> Vec<SessionInfo> {
    match peer.call(Verb::Sessions).answer() {
        Answer::Sessions { list } => list,
        other => panic!("not a listing: {other:?}"),
    }
}

fn requests_of_a_session_that_waits_are_served(place: &Place) {
    let _daemon = place.serve();
    let (mut first, mut second) = (place.connect(), place.connect());
    let held = take(&mut first, &["k"]);
    let waits = second.ask(lock(&["k"]));
    waiting(&mut first, "k", 1);
    assert!(matches!(second.call(put("n", "k", "1")).answer(), Answer::Written { .. }));
    assert_eq!(second.call(get("n", "k")).value().as_deref(), Some("1"));
    assert!(matches!(second.call(Verb::Commit).answer(), Answer::Committed { .. }));
    let counts = || sessions(&mut first).iter().any(|session| session.in_flight == 1);
    eventually("the request that waits, and no other, counts as not answered", counts);
    unlock(&mut first, held);
    let reply = second.next();
    assert_eq!(reply.id, waits);
    token(reply.answer());
}

fn as_many_may_wait_as_a_session_may_have_and_it_is_read_all_the_same(place: &Place) {
    let _daemon = place.serve();
    let (mut first, mut second) = (place.connect(), place.connect());
    let held = take(&mut first, &["k"]);
    let by = |owner| Verb::Lock(LockWish { owner, ..wish(&["k"]) });
    let frames: Vec<u8> = (1..=MAX_HOLDINGS as u64).flat_map(|id| frame_of(id, by(id))).collect();
    second.send(&frames);
    waiting(&mut first, "k", MAX_HOLDINGS);
    second.send(&frame_of(1 << 40, by(1 << 40)));
    let reply = second.next();
    assert!(matches!(reply.fault(), Fault::TooLarge { got: 10_001, limit: 10_000, .. }), "{reply:?}");
    second.send(&frame_of(1 << 41, get("n", "k")));
    assert_eq!(second.next().value(), None);
    // Nothing of it is used up for the next ones.
    drop(second);
    eventually("nobody waits", || listing(&mut first)[0].waiters.is_empty());
    unlock(&mut first, held);
    assert_eq!(listing(&mut first), []);
}

fn a_cycle_is_refused_with_the_names_of_all_who_are_in_it(place: &Place) {
    let _daemon = place.serve();
    let (mut first, mut second) = (place.connect(), place.connect());
    let (a, b) = (take(&mut first, &["a"]), take(&mut second, &["b"]));
    first.ask(Verb::Lock(LockWish { holds: vec![a], owner: 11, ..wish(&["b"]) }));
    waiting(&mut place.connect(), "b", 1);
    let refused = second.call(Verb::Lock(LockWish { holds: vec![b], owner: 22, ..wish(&["c", "a"]) })).fault();
    let pid = Some(std::process::id());
    let step =
        |session, owner, waits_for: &str, holds| CycleStep { session, pid, owner, waits_for: waits_for.into(), holds };
    assert_eq!(refused, Fault::Deadlock { cycle: vec![step(2, 22, "a", b), step(1, 11, "b", a)] });
    assert!(refused.to_string().contains("would never end"), "{refused}");
    // Who does not say what it holds is not part of one, and nothing of the refused wish is left.
    let c = take(&mut second, &["c"]);
    unlock(&mut second, c);
    unlock(&mut second, b);
    let got = token(first.next().answer());
    unlock(&mut first, got);
    unlock(&mut first, a);
    assert_eq!(listing(&mut first), []);
}

fn locks_that_cannot_be_asked_for_are_refused_and_nothing_is_held(place: &Place) {
    let _daemon = place.serve();
    let (mut peer, mut other) = (place.connect(), place.connect());
    let many: Vec<String> = (0..1_000).map(|n| n.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let long = "x".repeat(64 * 1024);
    assert!(matches!(peer.call(lock(&[])).fault(), Fault::Invalid { .. }));
    assert!(matches!(peer.call(lock(&["a", ""])).fault(), Fault::Invalid { .. }));
    let fault = peer.call(lock(&many)).fault();
    assert!(matches!(fault, Fault::TooLarge { got: 1_000, .. }), "{fault}");
    let fault = peer.call(lock(&["a", &long])).fault();
    assert!(matches!(fault, Fault::TooLarge { limit, .. } if limit == MAX_NAME_BYTES as u64), "{fault}");
    let holds = Verb::Lock(LockWish { holds: vec![1; MAX_LOCK_HOLDS + 1], ..wish(&["a"]) });
    assert!(matches!(peer.call(holds).fault(), Fault::TooLarge { .. }));
    // Of what is not held, or another's, or from before.
    let held = take(&mut peer, &["k", "k"]);
    assert!(matches!(peer.call(Verb::Unlock { token: held + 100 }).fault(), Fault::NotHeld { .. }));
    assert!(matches!(other.call(Verb::Unlock { token: held }).fault(), Fault::NotHeld { .. }));
    let holds = Verb::Lock(LockWish { holds: vec![held, held + 100], ..wish(&["a"]) });
    assert!(matches!(other.call(holds).fault(), Fault::NotHeld { .. }));
    // Of what another session holds, under which this one runs.
    let under = |keys| Verb::Lock(LockWish { holds: vec![held], ..wish(keys) });
    assert_eq!(other.call(under(&["k"])).fault(), Fault::AlreadyHeld { key: "k".into(), token: held });
    let inner = token(other.call(under(&["a"])).answer());
    unlock(&mut other, inner);
    // By its own owner, or by one that says that it has it.
    assert_eq!(peer.call(lock(&["a", "k"])).fault(), Fault::AlreadyHeld { key: "k".into(), token: held });
    let again = Verb::Lock(LockWish { owner: 2, holds: vec![held], ..wish(&["k"]) });
    assert_eq!(peer.call(again).fault(), Fault::AlreadyHeld { key: "k".into(), token: held });
    // By its own owner, which waits for it.
    other.ask(lock(&["k"]));
    waiting(&mut peer, "k", 1);
    for again in [lock(&["j", "k"]), lock_shared(&["k"]), try_lock(&["k"])] {
        assert_eq!(other.call(again).fault(), Fault::AlreadyHeld { key: "k".into(), token: 0 });
    }
    other = place.connect();
    eventually("nobody waits", || listing(&mut peer)[0].waiters.is_empty());
    let fault = other.call(try_lock(&["a", "k"])).fault();
    let Fault::WouldWait { what, held_by } = fault else { panic!("{fault}") };
    assert!(what.contains("\"k\"") && held_by.starts_with("session 1 ("), "{what} {held_by}");
    unlock(&mut peer, held);
    assert!(matches!(peer.call(Verb::Unlock { token: held }).fault(), Fault::NotHeld { .. }));
    assert_eq!(listing(&mut peer), []);
    // As many keys as there may be, of the greatest length: so many that their names take too much room in the end.
    let keys: Vec<String> = (0..MAX_LOCK_KEYS).map(|n| format!("{n:x>MAX_NAME_BYTES$}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    take(&mut peer, &keys);
    let mut owner = 1;
    let fault = loop {
        owner += 1;
        peer.ask(Verb::Lock(LockWish { owner, ..wish(&keys) }));
        peer.ask(Verb::Lock(LockWish { owner, ..wish(&keys[..0]) }));
        // The refusal of the second one shows that the first one waits.
        let fault = peer.next().fault();
        if !matches!(fault, Fault::Invalid { .. }) {
            break fault;
        }
    };
    assert!(matches!(fault, Fault::TooLarge { .. }) && owner > 3, "{fault} {owner}");
}

fn the_listing_tells_who_holds_and_who_waits(place: &Place) {
    let _daemon = place.serve();
    let (mut first, mut second) = (place.connect(), place.connect());
    let held = take(&mut first, &["b", "a"]);
    second.ask(Verb::Lock(LockWish { owner: 9, shared: true, ..wish(&["b"]) }));
    waiting(&mut first, "b", 1);
    let list = listing(&mut first);
    let [a, b] = &list[..] else { panic!("{list:?}") };
    assert_eq!((a.key.as_str(), b.key.as_str()), ("a", "b"));
    let holder = &b.holders[0];
    assert_eq!((holder.session, holder.token, holder.owner, holder.shared, holder.slots), (1, held, 1, false, 1));
    assert_eq!(holder.pid, Some(std::process::id()));
    let comm = std::fs::read_to_string("/proc/self/comm").unwrap();
    assert_eq!(holder.command, comm.trim_end());
    assert!(holder.since_unix_ms > 1_600_000_000_000);
    let waiter = &b.waiters[0];
    assert_eq!((waiter.session, waiter.token, waiter.owner, waiter.shared), (2, 0, 9, true));
    assert!(a.waiters.is_empty());
    // A long one comes in parts.
    let keys: Vec<String> = (0..9_000).map(|n| format!("{n:05}")).collect();
    for some in keys.chunks(MAX_LOCK_KEYS) {
        let keys: Vec<&str> = some.iter().map(String::as_str).collect();
        take(&mut first, &keys);
    }
    let id = first.ask(Verb::Locks);
    let (mut told, mut parts) = (Vec::new(), 0);
    while told.len() < keys.len() + 2 {
        let reply = first.next();
        assert_eq!(reply.id, id);
        let Answer::Locks { list } = reply.answer() else { panic!("{reply:?}") };
        told.extend(list.into_iter().map(|info| info.key));
        parts += 1;
    }
    assert!(parts > 1 && told.is_sorted() && told[..9_000] == keys[..]);
}

fn those_who_wait_are_told_that_the_daemon_stops(place: &Place) {
    let daemon = place.serve();
    let (mut first, mut second) = (place.connect(), place.connect());
    take(&mut first, &["k"]);
    let waits = second.ask(lock(&["k"]));
    waiting(&mut first, "k", 1);
    let stopped = std::thread::spawn(move || daemon.stop());
    let reply = second.next();
    assert_eq!((reply.id, reply.fault()), (waits, Fault::Stopping));
    stopped.join().unwrap().unwrap();
}
