//! What a watcher is told over the socket, however its session is served.

use std::collections::{HashMap, HashSet};

use commonhold::proto::frame::FrameKind;
use commonhold::proto::limits::{MAX_HOLDINGS, MAX_KEY_BYTES};
use commonhold::proto::{Answer, Change, Condition, Fault, Kind, Op, Seq, Space, Verb, codec};

use crate::daemon_support::{Peer, Place, eventually, put, space, write};
use crate::however_sessions_are_served;

however_sessions_are_served! {
    a_watch_tells_what_is_written_from_now_on_until_it_is_cancelled,
    a_watch_begins_after_any_write_that_is_kept,
    a_watch_that_cannot_be_is_refused_and_the_session_goes_on,
    a_watcher_that_does_not_read_holds_up_nobody_and_misses_nothing,
    a_write_that_is_larger_than_a_part_comes_in_pieces_of_one_write,
    a_session_has_so_many_watches_and_they_end_with_it,
    a_write_costs_each_watch_of_its_namespace_two_looks_however_many_its_session_has,
    a_client_that_does_not_read_has_one_piece_made_for_it_however_much_it_watches,
    a_volatile_namespace_is_watched_as_the_others_are,
}

fn watch<'a>(namespace: &'a str, prefix: &'a str, after: Option<Seq>) -> Verb<'a> {
    Verb::Watch { space: space(namespace), prefix, after }
}

fn word(change: &Change<'_>) -> String {
    match change {
        Change::Put { key, value } => format!("{key}={value}"),
        Change::Delete { key } => format!("-{key}"),
        Change::Clear => "clear".to_owned(),
        Change::Drop => "drop".to_owned(),
    }
}

/// The next part of watch `id`: its writes, and through where it has told all.
fn part(peer: &mut Peer, id: u64) -> (Vec<(Seq, String)>, Seq) {
    let reply = peer.next();
    assert_eq!((reply.id, reply.kind), (id, FrameKind::Part), "{:?}", reply.answer());
    match reply.answer() {
        Answer::Changes { list, through } => {
            let words = |changes: &[Change<'_>]| changes.iter().map(word).collect::<Vec<_>>().join(" ");
            (list.iter().map(|set| (set.seq, words(&set.changes))).collect(), through)
        }
        other => panic!("{other:?}"),
    }
}

fn written(peer: &mut Peer, verb: Verb<'_>) -> Seq {
    match peer.call(verb).answer() {
        Answer::Written { seq, .. } | Answer::Dropped { seq, .. } => seq,
        other => panic!("{other:?}"),
    }
}

/// What is told until a write, in order.
fn told_through(peer: &mut Peer, id: u64, last: Seq) -> Vec<(Seq, String)> {
    let mut told = Vec::new();
    loop {
        let (more, through) = part(peer, id);
        told.extend(more);
        if through >= last {
            return told;
        }
    }
}

fn a_watch_tells_what_is_written_from_now_on_until_it_is_cancelled(place: &Place) {
    let _daemon = place.serve();
    let (mut watcher, mut writer) = (place.connect(), place.connect());
    written(&mut writer, put("a", "before", "0"));
    let id = watcher.ask(watch("a", "", None));
    let (told, _) = part(&mut watcher, id);
    assert!(told.is_empty(), "the first part says from where on: {told:?}");
    let first = written(&mut writer, put("a", "k", "1"));
    assert_eq!(part(&mut watcher, id), (vec![(first, "k=1".to_owned())], first));
    // Other requests of the session are answered meanwhile, and what is written to others is not told.
    written(&mut writer, put("b", "k", "1"));
    assert!(matches!(watcher.call(Verb::Ping).answer(), Answer::Done));
    let ops = vec![Op::Clear { space: 0 }, Op::Put { space: 0, key: "x", value: "2", condition: Condition::Always }];
    let second = written(&mut writer, write("a", ops));
    let third = written(&mut writer, Verb::Drop { space: space("a") });
    let told = told_through(&mut watcher, id, third);
    assert_eq!(told, [(second, "clear x=2".to_owned()), (third, "drop".to_owned())]);
    let mut cancel = Vec::new();
    codec::encode_cancel(&mut cancel, id);
    watcher.send(&cancel);
    let last = watcher.next();
    assert_eq!((last.id, last.kind, last.fault()), (id, FrameKind::Answer, Fault::Cancelled));
    written(&mut writer, put("a", "after", "3"));
    assert!(matches!(watcher.call(Verb::Ping).answer(), Answer::Done), "nothing is told any more");
}

fn a_watch_begins_after_any_write_that_is_kept(place: &Place) {
    let daemon = place.serve();
    let mut peer = place.connect();
    let seqs: Vec<Seq> = (0..20).map(|n| written(&mut peer, put("a", &format!("k{n}"), "1"))).collect();
    let expected = |after: usize, prefix: &str| -> Vec<(Seq, String)> {
        let all = seqs.iter().enumerate().skip(after + 1).map(|(n, seq)| (*seq, format!("k{n}=1")));
        all.filter(|(_, word)| word.starts_with(prefix)).collect()
    };
    for (after, prefix) in [(0, ""), (7, ""), (19, ""), (3, "k1")] {
        let id = peer.ask(watch("a", prefix, Some(seqs[after])));
        assert_eq!(told_through(&mut peer, id, seqs[19]), expected(after, prefix));
    }
    drop(peer);
    daemon.stop().unwrap();
    let daemon = place.serve();
    let mut peer = place.connect();
    let id = peer.ask(watch("a", "", Some(seqs[7])));
    // All of it is in the file, but the journal still has it, or it says that it has not.
    let reply = peer.next();
    match reply.answer() {
        Answer::Changes { list, .. } => {
            assert!(list.is_empty());
            assert_eq!(told_through(&mut peer, id, seqs[19]), expected(7, ""));
        }
        Answer::Fault(Fault::Gone { oldest }) => assert!(oldest > seqs[7]),
        other => panic!("{other:?}"),
    }
    daemon.stop().unwrap();
}

fn a_watch_that_cannot_be_is_refused_and_the_session_goes_on(place: &Place) {
    let _daemon = place.serve();
    let mut peer = place.connect();
    let last = written(&mut peer, put("a", "k", "1"));
    let future = peer.call(watch("a", "", Some(Seq(last.0 + 1_000)))).fault();
    assert!(matches!(future, Fault::NotYet { asked, latest } if asked.0 == last.0 + 1_000 && latest >= last));
    let long = "x".repeat(MAX_KEY_BYTES + 1);
    let refused = peer.call(watch("a", &long, None)).fault();
    assert!(matches!(refused, Fault::TooLarge { .. }), "{refused:?}");
    assert!(matches!(peer.call(watch("no/name", "", None)).fault(), Fault::InvalidNamespace { .. }));
    let other = Space { kind: Kind::Volatile, ..space("a") };
    let mismatch = peer.call(Verb::Watch { space: other, prefix: "", after: None }).fault();
    assert!(matches!(mismatch, Fault::KindMismatch { .. }), "{mismatch:?}");
    assert!(matches!(peer.call(Verb::Ping).answer(), Answer::Done));
}

fn a_watcher_that_does_not_read_holds_up_nobody_and_misses_nothing(place: &Place) {
    let _daemon = place.serve();
    let (mut watcher, mut writer) = (place.connect(), place.connect());
    let id = watcher.ask(watch("a", "", None));
    part(&mut watcher, id);
    let value = format!("\"{}\"", "x".repeat(100_000));
    // More than the socket, and the memory that is kept for watchers, can hold.
    let seqs: Vec<Seq> = (0..150).map(|n| written(&mut writer, put("a", &format!("k{n}"), &value))).collect();
    let told = told_through(&mut watcher, id, seqs[149]);
    assert!(told.iter().map(|(seq, _)| seq).eq(&seqs), "each write, once, in order");
    assert!(told.iter().enumerate().all(|(n, (_, word))| *word == format!("k{n}={value}")));
    let next = written(&mut writer, put("a", "k", "1"));
    assert_eq!(told_through(&mut watcher, id, next), [(next, "k=1".to_owned())]);
}

fn a_write_that_is_larger_than_a_part_comes_in_pieces_of_one_write(place: &Place) {
    let _daemon = place.serve();
    let (mut watcher, mut writer) = (place.connect(), place.connect());
    let id = watcher.ask(watch("a", "", None));
    part(&mut watcher, id);
    let keys: Vec<String> = (0..9_000).map(|n| format!("key number {n}")).collect();
    let value = format!("\"{}\"", "x".repeat(60));
    let put = |key| Op::Put { space: 0, key, value: &value, condition: Condition::Always };
    let seq = written(&mut writer, write("a", keys.iter().map(|key| put(key)).collect()));
    let (mut told, mut pieces) = (Vec::new(), 0);
    loop {
        let reply = watcher.next();
        let Answer::Changes { list, through } = reply.answer() else { panic!("{:?}", reply.answer()) };
        assert!(reply.body.len() < 200_000, "{}", reply.body.len());
        let [set] = &list[..] else { panic!("{} writes", list.len()) };
        assert_eq!(set.seq, seq);
        told.extend(set.changes.iter().map(word));
        pieces += 1;
        assert_eq!(through == seq, !set.more, "it is told through there with its last piece");
        if !set.more {
            break;
        }
    }
    assert!(pieces > 5, "{pieces}");
    assert!(told.iter().zip(&keys).all(|(told, key)| *told == format!("{key}={value}")));
    assert_eq!(told.len(), keys.len());
}

fn a_session_has_so_many_watches_and_they_end_with_it(place: &Place) {
    let _daemon = place.serve();
    let mut peer = place.connect();
    for _ in 0..MAX_HOLDINGS {
        let id = peer.ask(watch("a", "", None));
        part(&mut peer, id);
    }
    assert!(matches!(peer.call(watch("a", "", None)).fault(), Fault::TooLarge { .. }));
    drop(peer);
    let mut peer = place.connect();
    let id = peer.ask(watch("a", "", None));
    part(&mut peer, id);
    let seq = written(&mut place.connect(), put("a", "k", "1"));
    assert_eq!(told_through(&mut peer, id, seq), [(seq, "k=1".to_owned())]);
}

/// What `status` says of watches.
fn figure(peer: &mut Peer, name: &str) -> u64 {
    let reply = peer.call(Verb::Status);
    let Answer::Status { json } = reply.answer() else { panic!("{reply:?}") };
    let status: serde_json::Value = serde_json::from_str(json).unwrap();
    status["watches"][name].as_u64().unwrap()
}

fn a_write_costs_each_watch_of_its_namespace_two_looks_however_many_its_session_has(place: &Place) {
    const WATCHES: u64 = 2_000;
    let _daemon = place.serve();
    let (mut watcher, mut other, mut writer) = (place.connect(), place.connect(), place.connect());
    for _ in 0..WATCHES {
        let id = watcher.ask(watch("a", "", None));
        part(&mut watcher, id);
    }
    for _ in 0..3 {
        let id = other.ask(watch("b", "", None));
        part(&mut other, id);
    }
    let counts = ["count", "sessions", "most_of_one_session", "namespaces"].map(|name| figure(&mut writer, name));
    assert_eq!(counts, [WATCHES + 3, 2, WATCHES, 2]);
    // Each has said from where on it tells, and found no more.
    eventually("they rest", || figure(&mut writer, "looks") == 2 * (WATCHES + 3));
    let value = format!("\"{}\"", "x".repeat(2_000));
    for round in 1..=3 {
        let before = figure(&mut writer, "looks");
        // Some 4 MB of parts, which the socket takes in many pieces.
        let seq = written(&mut writer, put("a", "k", &value));
        let told = (0..WATCHES).map(|_| {
            let reply = watcher.next();
            let Answer::Changes { through, .. } = reply.answer() else { panic!("{:?}", reply.answer()) };
            assert_eq!(through, seq);
            reply.id
        });
        assert_eq!(told.collect::<HashSet<_>>().len() as u64, WATCHES, "each is told");
        eventually("they rest", || figure(&mut writer, "looks") == before + 2 * WATCHES);
        assert!(figure(&mut writer, "kept_bytes") >= round * 2_000);
        // Who watches another namespace is not looked at, nor is anybody where nothing was written.
        written(&mut writer, put("c", "k", "1"));
    }
    assert_eq!(figure(&mut writer, "looks"), 2 * (WATCHES + 3) + 3 * 2 * WATCHES);
    drop((watcher, other));
    eventually("they end with their sessions", || figure(&mut writer, "count") == 0);
}

fn a_client_that_does_not_read_has_one_piece_made_for_it_however_much_it_watches(place: &Place) {
    let _daemon = place.serve();
    let (mut watcher, mut writer) = (place.connect(), place.connect());
    let names: Vec<String> = (0..8).map(|n| format!("n{n}")).collect();
    let mut ids = Vec::new();
    for name in &names {
        ids.push(watcher.ask(watch(name, "", None)));
        part(&mut watcher, ids[ids.len() - 1]);
    }
    eventually("they rest", || figure(&mut writer, "looks") == 16);
    // More than a socket takes.
    let value = format!("\"{}\"", "x".repeat(4 << 20));
    for _ in 0..3 {
        for name in &names {
            written(&mut writer, put(name, "k", &value));
        }
    }
    // Those who serve had begun with all of it when they came to this one.
    let mut late = place.connect();
    let id = late.ask(watch("late", "", None));
    part(&mut late, id);
    eventually("they rest", || figure(&mut writer, "looks") >= 19);
    assert_eq!(figure(&mut writer, "looks"), 19, "one part was made, and nobody else was looked at");
    let last = written(&mut writer, put("n0", "k", "1"));
    // Who reads again is told all of it, of each.
    let mut told: HashMap<u64, Vec<Seq>> = HashMap::new();
    while told.get(&ids[0]).is_none_or(|seqs| *seqs.last().unwrap() < last) || told.values().flatten().count() < 25 {
        let reply = watcher.next();
        let Answer::Changes { list, .. } = reply.answer() else { panic!("{:?}", reply.answer()) };
        told.entry(reply.id).or_default().extend(list.iter().map(|set| set.seq));
    }
    assert!(told.values().all(|seqs| seqs.is_sorted()) && told.len() == 8, "{told:?}");
}

fn a_volatile_namespace_is_watched_as_the_others_are(place: &Place) {
    let _daemon = place.serve();
    let (mut watcher, mut writer) = (place.connect(), place.connect());
    let space = Space { kind: Kind::Volatile, ..space("status") };
    let id = watcher.ask(Verb::Watch { space, prefix: "", after: None });
    part(&mut watcher, id);
    let Verb::Write(mut verb) = put("status", "busy", "true") else { unreachable!("it is a write") };
    verb.spaces = vec![space];
    let first = written(&mut writer, Verb::Write(verb));
    assert_eq!(told_through(&mut watcher, id, first), [(first, "busy=true".to_owned())]);
    let dropped = written(&mut writer, Verb::Drop { space });
    assert_eq!(told_through(&mut watcher, id, dropped), [(dropped, "drop".to_owned())]);
}
