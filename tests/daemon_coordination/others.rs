//! Elections, slots and update flags on the real daemon.

use commonhold::proto::limits::MAX_NAME_BYTES;
use commonhold::proto::{
    Answer, Earlier, Election, Fault, FlagAction, FlagInfo, Hello, Seq, SlotInfo, StoreIdentity, Verb, Write,
};

use super::support::lock;
use crate::daemon_support::{Peer, Place, eventually, flush, get, put, space};

crate::however_sessions_are_served! {
    the_next_one_is_elected_when_the_winner_ends_and_all_are_told_when_it_is_done,
    slots_are_for_as_many_as_the_group_has_and_free_when_their_session_ends,
    what_cannot_be_asked_of_slots_and_elections_is_refused,
    a_flag_is_set_by_every_write_and_cleared_by_a_flush_of_all_of_it,
    flags_belong_to_their_sessions_and_words_need_no_namespace,
    the_status_counts_what_is_held_and_waited_for,
    a_session_of_an_older_version_is_served_no_verb_that_came_later,
}

fn a_session_of_an_older_version_is_served_no_verb_that_came_later(place: &Place) {
    let _daemon = place.serve();
    let older = |highest| {
        let mut peer = Peer::silent(place.path());
        peer.greet(&Hello { highest, ..Hello::of_client(u128::from(highest), StoreIdentity::ANY) });
        peer
    };
    let (mut third, mut second, mut first) = (older(3), older(2), older(1));
    let unsupported = |tag| Fault::Unsupported { what: "verb".to_owned(), tag };
    let earlier = || Earlier { boot: 1, after: Seq::ZERO };
    let put_again = || match put("n", "k", "1") {
        Verb::Write(write) => Verb::WriteAgain { earlier: earlier(), write },
        _ => unreachable!("it is a write"),
    };
    let fourth = [
        (20, Verb::Flag { space: space("n"), action: FlagAction::SetAll }),
        (21, Verb::Flags),
        (22, elect("n", true)),
        (23, Verb::Initialized { name: "n", done: true }),
        (24, lock(&["k"])),
        (25, Verb::Unlock { token: 1 }),
        (26, Verb::Locks),
        (27, acquire(1, 1, false)),
        (28, Verb::Release { lease: 1 }),
        (29, Verb::SetLimit { group: "g", limit: 1 }),
        (30, Verb::Slots),
        (31, Verb::Watch { space: space("n"), prefix: "", after: None }),
        (32, Verb::Hold),
    ];
    for (tag, verb) in fourth {
        for peer in [&mut first, &mut second, &mut third] {
            assert_eq!(peer.call(verb.clone()).fault(), unsupported(tag));
        }
    }
    // Such a client could not read that the token is not live.
    let fenced = || match put("n", "k", "1") {
        Verb::Write(write) => Verb::Write(Write { if_token: Some(7), ..write }),
        _ => unreachable!("it is a write"),
    };
    for peer in [&mut first, &mut second, &mut third] {
        assert!(matches!(peer.call(fenced()).fault(), Fault::Unsupported { tag: 1, .. }));
    }
    let mut own = place.connect();
    assert_eq!(own.call(fenced()).fault(), Fault::TokenNotLive { token: 7 });
    assert_eq!(first.call(Verb::Sessions).fault(), unsupported(16));
    for peer in [&mut first, &mut second] {
        assert_eq!(peer.call(put_again()).fault(), unsupported(18));
    }
    // Nothing of it was done, and what these versions know is served.
    assert_eq!(own.call(get("n", "k")).value(), None);
    assert!(matches!(second.call(Verb::Sessions).answer(), Answer::Sessions { .. }));
    assert!(matches!(third.call(put_again()).answer(), Answer::Written { .. }));
    for peer in [&mut first, &mut second, &mut third] {
        assert_eq!(peer.call(get("n", "k")).value().as_deref(), Some("1"));
    }
}

fn elect(name: &str, wait: bool) -> Verb<'_> {
    Verb::Elect { name, wait }
}

fn elected(state: Election) -> Answer<'static> {
    Answer::Elected { state }
}

fn status(peer: &mut Peer) -> serde_json::Value {
    match peer.call(Verb::Status).answer() {
        Answer::Status { json } => serde_json::from_str(json).unwrap(),
        other => panic!("not a status: {other:?}"),
    }
}

fn count(peer: &mut Peer, what: &str) -> u64 {
    status(peer)["coordination"][what].as_u64().unwrap()
}

fn the_next_one_is_elected_when_the_winner_ends_and_all_are_told_when_it_is_done(place: &Place) {
    let _daemon = place.serve();
    let (mut first, mut second, mut third, mut looker) =
        (place.connect(), place.connect(), place.connect(), place.connect());
    assert_eq!(first.call(elect("n", true)).answer(), elected(Election::Won));
    assert_eq!(first.call(elect("n", true)).answer(), elected(Election::Won));
    assert_eq!(second.call(elect("n", false)).answer(), elected(Election::Running));
    second.ask(elect("n", true));
    eventually("one waits", || count(&mut looker, "elections_waiting") == 1);
    third.ask(elect("n", true));
    eventually("two wait", || count(&mut looker, "elections_waiting") == 2);
    // Killed while it was at it.
    drop(first);
    assert_eq!(second.next().answer(), elected(Election::Won));
    let done = |done| Verb::Initialized { name: "n", done };
    assert!(matches!(looker.call(done(true)).fault(), Fault::NotHeld { .. }));
    assert_eq!(second.call(done(false)).answer(), Answer::Done);
    assert_eq!(third.next().answer(), elected(Election::Won));
    second.ask(elect("n", true));
    eventually("one waits", || count(&mut looker, "elections_waiting") == 1);
    assert_eq!(third.call(done(true)).answer(), Answer::Done);
    assert_eq!(second.next().answer(), elected(Election::Done));
    drop(third);
    assert_eq!(looker.call(elect("n", true)).answer(), elected(Election::Done));
    assert_eq!(count(&mut looker, "elections_running"), 0);
}

fn acquire(limit: u32, slots: u32, wait: bool) -> Verb<'static> {
    Verb::Acquire { group: "llm", limit, slots, wait }
}

fn lease(answer: Answer<'_>) -> u64 {
    match answer {
        Answer::Acquired { lease } => lease,
        other => panic!("no slots: {other:?}"),
    }
}

fn groups(peer: &mut Peer) -> Vec<SlotInfo> {
    match peer.call(Verb::Slots).answer() {
        Answer::Slots { list } => list,
        other => panic!("not a listing: {other:?}"),
    }
}

fn slots_are_for_as_many_as_the_group_has_and_free_when_their_session_ends(place: &Place) {
    let _daemon = place.serve();
    let (mut first, mut second, mut third) = (place.connect(), place.connect(), place.connect());
    let two = lease(first.call(acquire(3, 2, true)).answer());
    assert!(matches!(second.call(acquire(3, 2, false)).fault(), Fault::WouldWait { .. }));
    assert_eq!(
        second.call(acquire(4, 1, true)).fault(),
        Fault::LimitMismatch { group: "llm".to_owned(), limit: 3, asked: 4 }
    );
    second.ask(acquire(3, 3, true));
    eventually("one waits", || groups(&mut third)[0].waiters.len() == 1);
    // There is room for one, but not before the one that waits for more.
    assert!(matches!(third.call(acquire(3, 1, false)).fault(), Fault::WouldWait { .. }));
    third.ask(acquire(3, 1, true));
    eventually("two wait", || groups(&mut first)[0].waiters.len() == 2);
    let info = groups(&mut first).remove(0);
    assert_eq!((info.group.as_str(), info.limit, info.taken), ("llm", 3, 2));
    assert_eq!((info.holders[0].token, info.holders[0].slots, info.holders[0].session), (two, 2, 1));
    assert_eq!((info.waiters[0].slots, info.waiters[0].session), (3, 2));
    drop(first);
    let three = lease(second.next().answer());
    assert_eq!(second.call(Verb::SetLimit { group: "llm", limit: 4 }).answer(), Answer::Done);
    let one = lease(third.next().answer());
    // Who has some keeps them; who waits for more than there are is refused.
    third.ask(acquire(4, 3, true));
    eventually("one waits", || groups(&mut second)[0].waiters.len() == 1);
    assert_eq!(second.call(Verb::SetLimit { group: "llm", limit: 2 }).answer(), Answer::Done);
    assert!(matches!(third.next().fault(), Fault::LimitMismatch { limit: 2, asked: 4, .. }));
    assert_eq!(groups(&mut second)[0].taken, 4);
    assert!(matches!(third.call(Verb::Release { lease: three }).fault(), Fault::NotHeld { .. }));
    assert_eq!(second.call(Verb::Release { lease: three }).answer(), Answer::Done);
    assert_eq!(third.call(Verb::Release { lease: one }).answer(), Answer::Done);
    assert!(matches!(third.call(Verb::Release { lease: one }).fault(), Fault::NotHeld { .. }));
    // Forgotten with the last that has named it: another limit may be chosen.
    drop((second, third));
    let mut fourth = place.connect();
    eventually("the group is forgotten", || groups(&mut fourth).is_empty());
    lease(fourth.call(acquire(7, 7, true)).answer());
}

fn what_cannot_be_asked_of_slots_and_elections_is_refused(place: &Place) {
    let _daemon = place.serve();
    let mut peer = place.connect();
    let long = "x".repeat(MAX_NAME_BYTES + 1);
    for name in ["", &long] {
        for verb in [
            elect(name, true),
            Verb::Acquire { group: name, limit: 1, slots: 1, wait: true },
            Verb::SetLimit { group: name, limit: 1 },
        ] {
            let fault = peer.call(verb).fault();
            let is_right = if name.is_empty() {
                matches!(fault, Fault::Invalid { .. })
            } else {
                matches!(fault, Fault::TooLarge { limit: 4_096, .. })
            };
            assert!(is_right, "{fault}");
        }
    }
    for verb in [acquire(0, 1, true), acquire(3, 0, true), acquire(3, 4, true), Verb::SetLimit { group: "g", limit: 0 }]
    {
        let fault = peer.call(verb).fault();
        assert!(matches!(fault, Fault::Invalid { .. }), "{fault}");
    }
    assert!(matches!(peer.call(Verb::Initialized { name: "never", done: true }).fault(), Fault::NotHeld { .. }));
    assert!(matches!(peer.call(Verb::Release { lease: 7 }).fault(), Fault::NotHeld { .. }));
    for action in [FlagAction::Look, FlagAction::Clear, FlagAction::Forget] {
        assert!(matches!(peer.call(flag("n", action)).fault(), Fault::NotHeld { .. }));
    }
    assert!(matches!(peer.call(flag("../n", FlagAction::SetAll)).fault(), Fault::InvalidNamespace { .. }));
    assert_eq!(groups(&mut peer), []);
}

fn flag(namespace: &str, action: FlagAction) -> Verb<'_> {
    Verb::Flag { space: space(namespace), action }
}

fn told(answer: Answer<'_>) -> (bool, u64) {
    match answer {
        Answer::Flag { set, word } => (set, word),
        other => panic!("no flag: {other:?}"),
    }
}

fn look(peer: &mut Peer, namespace: &str) -> bool {
    told(peer.call(flag(namespace, FlagAction::Look)).answer()).0
}

fn a_flag_is_set_by_every_write_and_cleared_by_a_flush_of_all_of_it(place: &Place) {
    let _daemon = place.serve();
    let (mut first, mut second) = (place.connect(), place.connect());
    for peer in [&mut first, &mut second] {
        assert_eq!(told(peer.call(flag("n", FlagAction::Register { set: false })).answer()), (false, 0));
    }
    let both = |first: &mut Peer, second: &mut Peer| [look(first, "n"), look(second, "n")];
    // What changes nothing sets nothing.
    first.call(get("n", "k"));
    assert_eq!(both(&mut first, &mut second), [false, false]);
    first.call(put("n", "k", "1"));
    assert_eq!(both(&mut first, &mut second), [true, true]);
    assert!(!told(first.call(flag("n", FlagAction::Clear)).answer()).0);
    assert_eq!(both(&mut first, &mut second), [false, true]);
    second.call(put("n", "k", "2"));
    assert_eq!(both(&mut first, &mut second), [true, true]);
    assert!(matches!(second.call(flush("n")).answer(), Answer::Flushed { rewritten: 1, .. }));
    assert_eq!(both(&mut first, &mut second), [false, false]);
    // A flush of what is clean already clears what was set by hand, and so does one of all.
    for verb in [flush("n"), Verb::Flush { space: None, rewrite: false, wait: true }] {
        assert!(told(first.call(flag("n", FlagAction::SetAll)).answer()).0);
        assert_eq!(both(&mut first, &mut second), [true, true]);
        second.call(verb);
        assert_eq!(both(&mut first, &mut second), [false, false]);
    }
    assert!(matches!(second.call(Verb::Drop { space: space("n") }).answer(), Answer::Dropped { .. }));
    let held = place.hold("m");
    first.call(flag("m", FlagAction::Register { set: false }));
    first.call(put("m", "k", "1"));
    second.ask(flush("m"));
    // Written to after the cut of that flush, or before: it is not clean, or its file has both.
    first.call(put("m", "k", "2"));
    assert!(look(&mut first, "m"));
    drop(held);
    assert!(matches!(second.next().answer(), Answer::Flushed { .. }));
}

fn flags_belong_to_their_sessions_and_words_need_no_namespace(place: &Place) {
    let _daemon = place.serve();
    let (mut first, mut second) = (place.connect(), place.connect());
    // As after a connection that was lost: set, whatever the word says.
    assert_eq!(told(first.call(flag("vectors", FlagAction::Register { set: true })).answer()), (true, 0));
    assert_eq!(told(second.call(flag("vectors", FlagAction::Register { set: false })).answer()), (false, 0));
    assert_eq!(told(second.call(flag("vectors", FlagAction::SetAll)).answer()), (true, 1));
    // The writer sets all and clears its own.
    assert_eq!(told(second.call(flag("vectors", FlagAction::Clear)).answer()), (false, 1));
    assert!(look(&mut first, "vectors") && !look(&mut second, "vectors"));
    assert_eq!(told(second.call(flag("vectors", FlagAction::ClearAll)).answer()), (false, 2));
    assert!(!look(&mut first, "vectors"));
    let list = |peer: &mut Peer| -> Vec<FlagInfo> {
        let (id, mut told) = (peer.ask(Verb::Flags), Vec::new());
        loop {
            let reply = peer.next();
            assert_eq!(reply.id, id);
            let Answer::Flags { list } = reply.answer() else { panic!("{reply:?}") };
            told.extend(list);
            if reply.kind == commonhold::proto::frame::FrameKind::Answer {
                return told;
            }
        }
    };
    let told = list(&mut second);
    assert_eq!((told.len(), told[0].namespace.as_str(), told[0].word), (1, "vectors", 2));
    let sessions: Vec<_> = told[0].sessions.iter().map(|of| (of.session, of.pid, of.set)).collect();
    let pid = Some(std::process::id());
    assert_eq!(sessions, [(1, pid, false), (2, pid, false)]);
    drop(first);
    eventually("the flag has gone with its session", || list(&mut second)[0].sessions.len() == 1);
    second.call(flag("vectors", FlagAction::Forget));
    assert_eq!(list(&mut second), []);
}

fn the_status_counts_what_is_held_and_waited_for(place: &Place) {
    let _daemon = place.serve();
    let mut peer = place.connect();
    super::support::take(&mut peer, &["k"]);
    peer.call(acquire(3, 2, true));
    peer.call(elect("n", true));
    peer.call(flag("n", FlagAction::Register { set: false }));
    let status = status(&mut peer)["coordination"].clone();
    let expected = serde_json::json!({
        "locks_held": 1, "locks_waiting": 0, "slots_taken": 2, "slots_waiting": 0, "elections_running": 1,
        "elections_waiting": 0, "flags": 1,
    });
    assert_eq!(status, expected);
}
