//! The order of what one session sends while a namespace is being loaded: what is given back, what is done under it before, and
//! what is asked for after.

use std::collections::HashMap;

use commonhold::daemon::{Daemon, Running};
use commonhold::proto::{Answer, Condition, Election, Fault, FlagAction, Op, Seq, Verb, Write, codec};

use super::support::{lock, take, token, try_lock, waiting, wish};
use crate::daemon_support::{Peer, Place, Reply, eventually, frame_of, frame_with_deadline, get, put, space};
use crate::slow_disk::{Held, slow};

crate::however_sessions_are_served! {
    an_election_that_is_given_up_behind_a_load_is_asked_for_anew_only_then,
    nothing_under_a_lock_is_done_after_it_was_given_back_behind_a_load,
    a_change_is_seen_only_when_what_was_given_back_before_it_is_free,
    what_is_asked_for_behind_a_load_is_asked_for_in_the_order_sent,
    what_changes_behind_a_give_back_keeps_its_order,
    a_wait_without_end_holds_up_nothing_that_follows_it,
    a_listing_shows_what_was_written_before_it,
    what_gives_back_is_done_however_late_and_whoever_still_wants_it,
}

/// A store with a namespace `slow` whose file cannot be opened yet, and one that is in memory.
fn serve_slow(place: &Place) -> (Running, Held) {
    std::fs::write(place.file("slow"), "{\"a\":\"file\"}").unwrap();
    let (around, held) = slow("kv_store_slow.json");
    let daemon = Daemon::start_in(place.options(), around).unwrap();
    place.connect().call(put("warm", "k", "0"));
    (daemon, held)
}

/// The answers to these requests, in whatever order they come.
fn answers(peer: &mut Peer, ids: &[u64]) -> Vec<Reply> {
    let mut found: HashMap<u64, Reply> = ids.iter().map(|_| peer.next()).map(|reply| (reply.id, reply)).collect();
    ids.iter().map(|id| found.remove(id).expect("each is answered once, and nothing else is")).collect()
}

fn seq(reply: &Reply) -> Seq {
    match reply.answer() {
        Answer::Written { seq, .. } => seq,
        other => panic!("not written: {other:?}"),
    }
}

fn under(namespace: &str, held: u64, number: u64) -> Verb<'_> {
    match put(namespace, "k", "1") {
        Verb::Write(write) => Verb::Write(Write { if_token: Some(held), number, settled: 1, ..write }),
        _ => unreachable!("it is a write"),
    }
}

fn elect(wait: bool) -> Verb<'static> {
    Verb::Elect { name: "n", wait }
}

fn elected(state: Election) -> Answer<'static> {
    Answer::Elected { state }
}

fn waiting_for(peer: &mut Peer, what: &str, count: u64) {
    eventually(what, || {
        let reply = peer.call(Verb::Status);
        let Answer::Status { json } = reply.answer() else { panic!("{reply:?}") };
        let status: serde_json::Value = serde_json::from_str(json).unwrap();
        status["coordination"][what].as_u64() == Some(count)
    });
}

fn an_election_that_is_given_up_behind_a_load_is_asked_for_anew_only_then(place: &Place) {
    let (_daemon, held) = serve_slow(place);
    let (mut first, mut second, mut looker) = (place.connect(), place.connect(), place.connect());
    assert_eq!(first.call(elect(true)).answer(), elected(Election::Won));
    second.ask(elect(true));
    waiting_for(&mut looker, "elections_waiting", 1);
    let ids =
        [first.ask(get("slow", "a")), first.ask(Verb::Initialized { name: "n", done: false }), first.ask(elect(false))];
    assert_eq!(first.call(Verb::Ping).answer(), Answer::Done, "what has to do with neither passes");
    drop(held);
    let told = answers(&mut first, &ids);
    assert_eq!(told[1].answer(), Answer::Done);
    assert_eq!(second.next().answer(), elected(Election::Won));
    assert_eq!(told[2].answer(), elected(Election::Running), "one wins, and it is the other one");
    // Done, and asked for behind another load.
    let ids = [
        second.ask(put("new", "k", "1")),
        second.ask(Verb::Initialized { name: "n", done: true }),
        second.ask(elect(false)),
    ];
    let told = answers(&mut second, &ids);
    assert_eq!([told[1].answer(), told[2].answer()], [Answer::Done, elected(Election::Done)]);
}

fn nothing_under_a_lock_is_done_after_it_was_given_back_behind_a_load(place: &Place) {
    let (_daemon, held) = serve_slow(place);
    let mut peer = place.connect();
    let lock_of_k = take(&mut peer, &["k"]);
    let ids = [
        peer.ask(under("slow", lock_of_k, 1)),
        peer.ask(Verb::Unlock { token: lock_of_k }),
        peer.ask(under("warm", lock_of_k, 2)),
        peer.ask(under("slow", lock_of_k, 3)),
        peer.ask(lock(&["k"])),
    ];
    assert_eq!(peer.call(Verb::Ping).answer(), Answer::Done);
    drop(held);
    let told = answers(&mut peer, &ids);
    let written = seq(&told[0]);
    assert_eq!(told[1].answer(), Answer::Done);
    let not_live = Fault::TokenNotLive { token: lock_of_k };
    assert_eq!([told[2].fault(), told[3].fault()], [not_live.clone(), not_live]);
    assert!(Seq(token(told[4].answer())) > written, "its owner has given it back, and has it anew");
    assert_eq!(peer.call(get("warm", "k")).value().as_deref(), Some("0"));
}

fn a_change_is_seen_only_when_what_was_given_back_before_it_is_free(place: &Place) {
    let (_daemon, held) = serve_slow(place);
    let (mut peer, mut other) = (place.connect(), place.connect());
    let lock_of_k = take(&mut peer, &["k"]);
    peer.call(Verb::Flag { space: space("flag"), action: FlagAction::Register { set: false } });
    let ids = [
        peer.ask(get("slow", "a")),
        peer.ask(Verb::Unlock { token: lock_of_k }),
        peer.ask(put("warm", "k", "\"k is free\"")),
        peer.ask(Verb::Flag { space: space("flag"), action: FlagAction::SetAll }),
        // A read of what waits waits, too.
        peer.ask(get("warm", "k")),
    ];
    // Looking at records that have nothing to do with it passes, and so do changes by others.
    assert_eq!(peer.call(Verb::Len { space: space("else") }).answer(), Answer::Len { records: 0 });
    assert_eq!(other.call(get("warm", "k")).value().as_deref(), Some("0"));
    assert!(matches!(other.call(try_lock(&["k"])).fault(), Fault::WouldWait { .. }));
    drop(held);
    eventually("it is told", || other.call(get("warm", "k")).value().as_deref() == Some("\"k is free\""));
    token(other.call(try_lock(&["k"])).answer());
    let told = answers(&mut peer, &ids);
    assert_eq!(told[0].value().as_deref(), Some("\"file\""));
    assert!(matches!(told[3].answer(), Answer::Flag { set: true, .. }));
    assert_eq!(told[4].value().as_deref(), Some("\"k is free\""));
}

fn what_changes_behind_a_give_back_keeps_its_order(place: &Place) {
    let (_daemon, held) = serve_slow(place);
    let mut peer = place.connect();
    let names: Vec<String> = (0..8).map(|number| format!("warm{number}")).collect();
    for name in &names {
        peer.call(put(name, "k", "0"));
    }
    let lock = take(&mut peer, &["k"]);
    let first = [peer.ask(get("slow", "a")), peer.ask(Verb::Unlock { token: lock })];
    let mut ids: Vec<u64> = names.iter().map(|name| peer.ask(put(name, "k", "1"))).collect();
    // It comes behind those that wait, and sees them done: what it gets is not given before.
    let again = peer.ask(try_lock(&["k"]));
    drop(held);
    // Some come when the give-back has left, perhaps, and others still stand behind it.
    ids.extend(names.iter().map(|name| peer.ask(put(name, "k", "2"))));
    let all: Vec<u64> = first.into_iter().chain(ids.iter().copied()).chain([again]).collect();
    let told = answers(&mut peer, &all);
    let seqs: Vec<Seq> = told[2..2 + ids.len()].iter().map(seq).collect();
    assert!(seqs.is_sorted(), "{seqs:?}");
    assert!(token(told[2 + ids.len()].answer()) > seqs[7].0, "{seqs:?}");
}

fn what_is_asked_for_behind_a_load_is_asked_for_in_the_order_sent(place: &Place) {
    let (_daemon, held) = serve_slow(place);
    let mut peer = place.connect();
    let acquire = |limit, slots| Verb::Acquire { group: "g", limit, slots, wait: false };
    let Answer::Acquired { lease } = peer.call(acquire(3, 3)).answer() else { panic!("there are three") };
    let lock_of_k = take(&mut peer, &["k"]);
    let owned_by = |owner| Verb::Lock(commonhold::proto::LockWish { owner, wait: false, ..wish(&["k"]) });
    let mut ids = vec![
        peer.ask(under("slow", lock_of_k, 1)),
        peer.ask(Verb::Release { lease }),
        peer.ask(acquire(3, 3)),
        peer.ask(Verb::SetLimit { group: "g", limit: 4 }),
        peer.ask(acquire(3, 1)),
        peer.ask(acquire(4, 1)),
        peer.ask(Verb::Slots),
        peer.ask(Verb::Unlock { token: lock_of_k }),
    ];
    // Of many, so that one which is asked for out of turn is found.
    ids.extend((2..20).map(|owner| peer.ask(owned_by(owner))));
    assert_eq!(peer.call(Verb::Ping).answer(), Answer::Done);
    drop(held);
    let told = answers(&mut peer, &ids);
    seq(&told[0]);
    assert_eq!(told[1].answer(), Answer::Done);
    assert!(matches!(told[2].answer(), Answer::Acquired { .. }));
    assert_eq!(told[3].answer(), Answer::Done);
    assert_eq!(told[4].fault(), Fault::LimitMismatch { group: "g".to_owned(), limit: 4, asked: 3 });
    assert!(matches!(told[5].answer(), Answer::Acquired { .. }));
    let Answer::Slots { list } = told[6].answer() else { panic!("{:?}", told[6]) };
    assert_eq!((list[0].limit, list[0].taken), (4, 4));
    assert_eq!(told[7].answer(), Answer::Done);
    token(told[8].answer());
    for later in &told[9..] {
        assert!(matches!(later.fault(), Fault::WouldWait { .. }), "the first has it: {later:?}");
    }
}

fn a_wait_without_end_holds_up_nothing_that_follows_it(place: &Place) {
    let (_daemon, held) = serve_slow(place);
    let (mut peer, mut other) = (place.connect(), place.connect());
    let theirs = take(&mut other, &["theirs"]);
    let own = take(&mut peer, &["own"]);
    let ids = [peer.ask(get("slow", "a")), peer.ask(Verb::Unlock { token: own })];
    let never = peer.ask(lock(&["theirs"]));
    let behind =
        [peer.ask(put("warm", "k", "1")), peer.ask(lock(&["own"])), peer.ask(Verb::Commit), peer.ask(Verb::Namespaces)];
    drop(held);
    let told = answers(&mut peer, &[&ids[..], &behind[..]].concat());
    seq(&told[2]);
    let again = token(told[3].answer());
    assert!(matches!(told[4].answer(), Answer::Committed { .. }));
    assert_eq!(peer.call(Verb::Unlock { token: again }).answer(), Answer::Done);
    waiting(&mut other, "theirs", 1);
    assert_eq!(other.call(Verb::Unlock { token: theirs }).answer(), Answer::Done);
    let granted = peer.next();
    assert_eq!(granted.id, never);
    token(granted.answer());
}

fn a_listing_shows_what_was_written_before_it(place: &Place) {
    let (_daemon, held) = serve_slow(place);
    let mut peer = place.connect();
    let set = |space| Op::Put { space, key: "k", value: "1", condition: Condition::Always };
    let both = match put("slow", "k", "1") {
        Verb::Write(write) => {
            let (spaces, ops) = (vec![space("slow"), space("fresh")], vec![set(0), set(1)]);
            Verb::Write(Write { spaces, ops, ..write })
        }
        _ => unreachable!("it is a write"),
    };
    let ids = [peer.ask(both), peer.ask(Verb::Namespaces)];
    assert_eq!(peer.call(Verb::Ping).answer(), Answer::Done);
    drop(held);
    let told = answers(&mut peer, &ids);
    let Answer::Namespaces { list } = told[1].answer() else { panic!("{:?}", told[1]) };
    assert!(list.iter().any(|info| info.namespace == "fresh"), "{list:?}");
}

fn what_gives_back_is_done_however_late_and_whoever_still_wants_it(place: &Place) {
    let (_daemon, held) = serve_slow(place);
    let (mut peer, mut other) = (place.connect(), place.connect());
    let lock_of_k = take(&mut peer, &["k"]);
    let acquire = Verb::Acquire { group: "g", limit: 1, slots: 1, wait: true };
    let Answer::Acquired { lease } = peer.call(acquire.clone()).answer() else { panic!("it is free") };
    assert_eq!(peer.call(elect(true)).answer(), elected(Election::Won));
    peer.call(Verb::Flag { space: space("slow"), action: FlagAction::Register { set: false } });
    let give_backs = [
        Verb::Unlock { token: lock_of_k },
        Verb::Release { lease },
        Verb::Initialized { name: "n", done: true },
        Verb::Flag { space: space("slow"), action: FlagAction::Forget },
    ];
    let mut bytes = frame_of(100, get("slow", "a"));
    for (id, verb) in (101..).zip(give_backs) {
        bytes.extend(frame_with_deadline(id, 5, verb));
        codec::encode_cancel(&mut bytes, id);
    }
    // Whose time is over after theirs, and who is refused for it.
    bytes.extend(frame_with_deadline(105, 10, get("slow", "a")));
    peer.send(&bytes);
    let refused = peer.next();
    assert_eq!(refused.id, 105, "{refused:?}");
    assert!(matches!(refused.fault(), Fault::Loading { .. }));
    let waits = [other.ask(lock(&["k"])), other.ask(acquire), other.ask(elect(true))];
    drop(held);
    let told = answers(&mut peer, &[100, 101, 102, 103, 104]);
    assert_eq!([1, 2, 3].map(|at: usize| told[at].answer()), [Answer::Done, Answer::Done, Answer::Done]);
    assert!(matches!(told[4].answer(), Answer::Flag { .. }), "{:?}", told[4]);
    let had = answers(&mut other, &waits);
    token(had[0].answer());
    assert!(matches!(had[1].answer(), Answer::Acquired { .. }));
    assert_eq!(had[2].answer(), elected(Election::Done));
    // Nor is it refused where it is late because the session was busy, and not because it stood in line.
    let mine = take(&mut peer, &["busy"]);
    let keys: Vec<String> = (0..10_000).map(|n| format!("key {n}")).collect();
    let keys = keys.iter().map(String::as_str).collect();
    let many = Verb::GetMany { space: space("warm"), keys };
    peer.send(&[frame_of(200, many), frame_with_deadline(201, 1, Verb::Unlock { token: mine })].concat());
    loop {
        let reply = peer.next();
        if reply.id == 201 {
            break assert_eq!(reply.answer(), Answer::Done);
        }
    }
    take(&mut other, &["busy"]);
}
