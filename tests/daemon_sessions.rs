//! What one session may rely on: its order, its answers, its bounds.
#![cfg(feature = "daemon")]

mod daemon_support;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use commonhold::proto::frame::FrameKind;
use commonhold::proto::hello::Hello;
use commonhold::proto::limits::{MAX_IN_FLIGHT, MAX_OPERATIONS, MAX_SCAN_VISITS, REPLY_PART_BYTES};
use commonhold::proto::{Answer, Condition, Durability, Earlier, Fault, Op, Seq, StoreIdentity, Verb, Write, codec};
use daemon_support::{PATIENCE, Peer, Place, eventually, flush, frame_of, frame_with_deadline, get, put, space, write};

however_sessions_are_served! {
    ten_thousand_pipelined_requests_take_effect_in_the_order_sent,
    what_follows_a_write_in_its_session_sees_it_whoever_commits_it,
    an_answer_that_comes_later_is_passed_by_others_and_found_by_its_id,
    a_file_that_is_held_by_a_reader_does_not_hold_up_the_flush_of_others,
    a_lock_file_that_cannot_be_opened_fails_that_flush_and_nothing_else,
    those_who_wait_for_the_same_file_share_its_rewrite,
    more_late_answers_than_may_be_owed_are_all_given_in_the_end,
    a_commit_covers_every_write_that_was_sent_before_it,
    a_request_is_not_begun_after_its_deadline,
    a_flush_with_a_deadline_does_not_wait_longer_for_a_lock,
    a_cancelled_write_that_has_not_begun_is_not_done,
    a_long_answer_comes_in_parts_of_one_moment,
    a_scan_visits_every_record_once_over_its_pages,
    a_page_visits_so_many_records_and_one_without_any_is_not_the_end,
    refused_requests_change_nothing_and_the_session_goes_on,
    session_threads_end_when_their_clients_go,
    a_status_is_a_json_object,
    a_write_that_takes_long_is_overtaken_by_nothing_of_its_session_in_whatever_namespace,
    a_crowd_of_synced_writes_shares_its_syncs,
    a_repeat_shuts_out_what_its_client_has_sent_on_earlier_connections,
}

/// A put of a client's number 1 to 9, under its number as key.
fn numbered(client: u128, number: u64) -> Write<'static> {
    let keys = ["1", "2", "3", "4", "5", "6", "7", "8", "9"];
    let put = Op::Put { space: 0, key: keys[number as usize - 1], value: "1", condition: Condition::Always };
    let Verb::Write(write) = write("once", vec![put]) else { unreachable!("it is a write") };
    Write { client, number, settled: 1, ..write }
}

fn a_repeat_shuts_out_what_its_client_has_sent_on_earlier_connections(place: &Place) {
    const CLIENT: u128 = 71;
    let daemon = place.serve();
    let connect = |client| {
        let mut peer = Peer::silent(place.path());
        peer.greet(&Hello::of_client(client, StoreIdentity::ANY));
        peer
    };
    let again = |number| {
        // Of the store's first daemon.
        let earlier = Earlier { boot: 1, after: Seq::ZERO };
        Verb::WriteAgain { earlier, write: numbered(CLIENT, number) }
    };
    let (mut first, mut second, mut third) = (connect(CLIENT), connect(CLIENT), connect(CLIENT));
    let mut other = connect(CLIENT + 1);
    assert!(matches!(first.call(Verb::Write(numbered(CLIENT, 1))).answer(), Answer::Written { .. }));
    assert!(matches!(second.call(again(1)).answer(), Answer::Written { new: 1, .. }));
    // What was on its way comes after it.
    for verb in [
        Verb::Write(numbered(CLIENT, 2)),
        again(2),
        Verb::DropOnce { space: space("once"), client: CLIENT, number: 2, settled: 1, earlier: None },
    ] {
        let refused = first.call(verb).fault();
        assert!(matches!(refused, Fault::OutcomeUnknown { .. }), "{refused:?}");
    }
    assert_eq!(first.call(get("once", "1")).value().as_deref(), Some("1"), "it reads on");
    assert_eq!(first.call(get("once", "2")).value(), None);
    // The connection itself, later ones and other clients' write on.
    for (peer, client, number) in [
        (&mut second, CLIENT, 3),
        (&mut third, CLIENT, 4),
        (&mut connect(CLIENT), CLIENT, 5),
        (&mut other, CLIENT + 1, 6),
    ] {
        assert!(matches!(peer.call(Verb::Write(numbered(client, number))).answer(), Answer::Written { .. }));
    }
    assert!(matches!(third.call(again(4)).answer(), Answer::Written { .. }));
    assert!(matches!(second.call(Verb::Write(numbered(CLIENT, 7))).fault(), Fault::OutcomeUnknown { .. }));
    daemon.stop().unwrap();
}

fn a_crowd_of_synced_writes_shares_its_syncs(place: &Place) {
    const SESSIONS: u64 = 200;
    const ROUNDS: u64 = 20;
    let _daemon = place.serve();
    let mut peers: Vec<Peer> = (0..SESSIONS).map(|_| place.connect()).collect();
    let syncs = |peer: &mut Peer| {
        let reply = peer.call(Verb::Status);
        let Answer::Status { json } = reply.answer() else { panic!("{:?}", reply.answer()) };
        let status: serde_json::Value = serde_json::from_str(json).unwrap();
        (status["journal"]["syncs"].as_u64().unwrap(), status["seq"]["synced"].as_u64().unwrap())
    };
    peers[0].call(put("crowd", "k", "0"));
    let ((before, _), began) = (syncs(&mut peers[0]), Instant::now());
    let mut last = 0;
    for round in 0..ROUNDS {
        for (n, peer) in peers.iter_mut().enumerate() {
            let (key, value) = (n.to_string(), round.to_string());
            let put = Op::Put { space: 0, key: &key, value: &value, condition: Condition::Always };
            let Verb::Write(write) = write("crowd", vec![put]) else { unreachable!("it is a write") };
            peer.ask(Verb::Write(Write { durability: Some(Durability::Synced), ..write }));
        }
        for peer in &mut peers {
            let reply = peer.next();
            let Answer::Written { seq, .. } = reply.answer() else { panic!("{:?}", reply.answer()) };
            last = last.max(seq.0);
        }
    }
    let (took, (after, synced)) = (began.elapsed(), syncs(&mut peers[0]));
    let (writes, syncs) = (SESSIONS * ROUNDS, after - before);
    let a_second = u128::from(writes) * 1_000_000 / took.as_micros().max(1);
    println!("{writes} synced writes in {took:.2?} with {syncs} syncs: {a_second} a second");
    assert!(synced >= last, "each was on the platter when it was answered");
    // The first that finds the disk free goes alone; those that come meanwhile go together.
    assert!(syncs < writes / 4, "{syncs} syncs for {writes} writes");
}

fn a_write_that_takes_long_is_overtaken_by_nothing_of_its_session_in_whatever_namespace(place: &Place) {
    let _daemon = place.serve();
    let mut peer = place.connect();
    let large = |bytes: usize| format!("[{}0]", "0,".repeat(bytes / 2));
    let (first, second) = (large(1_500_000), large(400_000));
    let mut seen = place.connect();
    for namespace in ["a", "b", "c", "d"] {
        // From here on it is in memory: what waits for a load may be passed.
        peer.call(put(namespace, "k", "0"));
    }
    for round in 0..10 {
        // The second is done sooner than the first, and all others at once, if they may pass.
        let small = round.to_string();
        let frames = [
            frame_of(1, put("a", "k", &first)),
            frame_of(2, put("b", "k", &small)),
            frame_of(3, put("c", "k", &second)),
            frame_of(4, Verb::Drop { space: space("d") }),
            frame_of(5, put("d", "k", &small)),
            frame_of(6, get("b", "k")),
            frame_of(7, put("a", "small", &small)),
        ];
        peer.send(&frames.concat());
        let found: HashMap<u64, _> = (0..7).map(|_| peer.next()).map(|reply| (reply.id, reply)).collect();
        let seqs: Vec<_> = (1..=7)
            .filter(|id| *id != 6)
            .map(|id| match found[&id].answer() {
                Answer::Written { seq, .. } | Answer::Dropped { seq, .. } => seq,
                other => panic!("round {round}, request {id}: {other:?}"),
            })
            .collect();
        assert_eq!(found[&6].value().as_ref(), Some(&small));
        assert!(seqs.is_sorted_by(|one, next| one < next), "round {round}: in the order sent, not {seqs:?}");
        assert_eq!(seen.call(get("d", "k")).value(), Some(small));
    }
}

fn ten_thousand_pipelined_requests_take_effect_in_the_order_sent(place: &Place) {
    let _daemon = place.serve();
    const REQUESTS: u64 = 10_000;
    let mut peer = place.connect();
    peer.call(put("order", "first", "1"));
    let stream = peer.stream;
    let sending = Arc::clone(&stream);
    let sender = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        for id in 1..=REQUESTS {
            let (key, value) = ((id % 7).to_string(), id.to_string());
            bytes.extend(match id % 5 {
                0 => frame_of(id, get("order", &((id - 1) % 7).to_string())),
                1 => frame_of(id, Verb::Contains { space: space("order"), key: "never" }),
                _ => frame_of(id, put("order", &key, &value)),
            });
            if id % 1_000 == 0 {
                std::io::Write::write_all(&mut &*sending, &bytes).unwrap();
                bytes.clear();
            }
        }
    });
    let mut reader = Peer::over(stream);
    // The first of them may find that what loaded the namespace still stands in line, and are answered by another thread.
    let replies: HashMap<u64, _> = (0..REQUESTS).map(|_| reader.next()).map(|reply| (reply.id, reply)).collect();
    let mut last_seq = None;
    for id in 1..=REQUESTS {
        match (id % 5, replies[&id].answer()) {
            (0, Answer::Got { found: Some(found), .. }) => assert_eq!(found.value, (id - 1).to_string()),
            (1, Answer::Contains { found }) => assert!(!found),
            (_, Answer::Written { seq, .. }) => {
                assert!(last_seq.replace(seq) < Some(seq), "sequence numbers rise in the order sent");
            }
            (_, other) => panic!("request {id}: {other:?}"),
        }
    }
    sender.join().unwrap();
}

fn what_follows_a_write_in_its_session_sees_it_whoever_commits_it(place: &Place) {
    let _daemon = place.serve();
    place.connect().call(put("own", "first", "1"));
    // So many write at once that most find somebody else writing.
    std::thread::scope(|scope| {
        for worker in 0..8 {
            scope.spawn(move || {
                let (mut peer, key) = (place.connect(), worker.to_string());
                for round in 0..400_u64 {
                    let (one, two) = (round.to_string(), (round + 1_000_000).to_string());
                    let ids = 4 * round + 1..4 * round + 5;
                    peer.send(
                        &[frame_of(ids.start, put("own", &key, &one)), frame_of(ids.start + 1, get("own", &key))]
                            .concat(),
                    );
                    let last =
                        [frame_of(ids.start + 2, put("own", &key, &two)), frame_of(ids.start + 3, get("own", &key))];
                    peer.send(&last.concat());
                    let replies: HashMap<u64, _> = (0..4).map(|_| peer.next()).map(|reply| (reply.id, reply)).collect();
                    let seen = [1, 3].map(|at| replies[&(ids.start + at)].value());
                    assert_eq!(seen, [Some(one), Some(two)], "worker {worker}, round {round}");
                    for at in [0, 2] {
                        assert!(matches!(replies[&(ids.start + at)].answer(), Answer::Written { .. }));
                    }
                }
            });
        }
    });
}

fn an_answer_that_comes_later_is_passed_by_others_and_found_by_its_id(place: &Place) {
    let _daemon = place.serve();
    let mut peer = place.connect();
    peer.call(put("held", "a", "1"));
    let lock = place.hold("held");
    let bytes = [frame_of(900, flush("held")), frame_of(5, get("held", "a")), frame_of(77, put("held", "a", "2"))];
    peer.send(&bytes.concat());
    assert_eq!(peer.next().id, 5);
    assert_eq!(peer.next().id, 77);
    assert_eq!(peer.call(get("held", "a")).value().as_deref(), Some("2"), "writers go on while a flush waits");
    drop(lock);
    let reply = peer.next();
    assert_eq!(reply.id, 900);
    assert!(matches!(reply.answer(), Answer::Flushed { rewritten: 1, .. }), "{:?}", reply.answer());
}

fn a_file_that_is_held_by_a_reader_does_not_hold_up_the_flush_of_others(place: &Place) {
    let _daemon = place.serve();
    let mut peer = place.connect();
    let held: Vec<String> = (0..10).map(|n| format!("held_{n}")).collect();
    let locks: Vec<_> = held
        .iter()
        .map(|name| {
            peer.call(put(name, "a", "1"));
            place.hold(name)
        })
        .collect();
    let ids: Vec<u64> = held.iter().map(|name| peer.ask(flush(name))).collect();
    peer.call(put("free", "a", "1"));
    let reply = peer.call(flush("free"));
    assert!(matches!(reply.answer(), Answer::Flushed { rewritten: 1, .. }), "{:?}", reply.answer());
    drop(locks);
    let mut answered: Vec<u64> = ids.iter().map(|_| peer.next().id).collect();
    answered.sort_unstable();
    assert_eq!(answered, ids);
}

fn a_lock_file_that_cannot_be_opened_fails_that_flush_and_nothing_else(place: &Place) {
    let _daemon = place.serve();
    let mut peer = place.connect();
    peer.call(put("a", "k", "1"));
    let lock = place.path().join(".commonhold/flush/@/a.lock");
    std::fs::create_dir_all(&lock).unwrap();
    let fault = peer.call(flush("a")).fault();
    assert!(matches!(&fault, Fault::FlushFailed { reason, .. } if reason.contains("a.lock")), "{fault:?}");
    assert!(matches!(peer.call(put("a", "k", "2")).answer(), Answer::Written { .. }));
    std::fs::remove_dir(&lock).unwrap();
    assert!(matches!(peer.call(flush("a")).answer(), Answer::Flushed { rewritten: 1, .. }));
}

fn those_who_wait_for_the_same_file_share_its_rewrite(place: &Place) {
    let _daemon = place.serve();
    let mut peer = place.connect();
    peer.call(put("shared", "a", "1"));
    let lock = place.hold("shared");
    let ids: Vec<u64> = (0..50).map(|_| peer.ask(flush("shared"))).collect();
    peer.call(Verb::Ping);
    drop(lock);
    let mut rewritten = 0;
    for _ in &ids {
        match peer.next().answer() {
            // Each of the sharers is told of the one rewrite; a second rewrite would find nothing to do and say 0.
            Answer::Flushed { rewritten: 1, .. } => rewritten += 1,
            Answer::Flushed { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(rewritten >= 1);
    let kept = std::fs::read_dir(place.path().join(".commonhold/generations/@")).map_or(0, Iterator::count);
    assert!(kept <= 1, "{kept} generations for one change");
}

fn more_late_answers_than_may_be_owed_are_all_given_in_the_end(place: &Place) {
    let _daemon = place.serve();
    let mut peer = place.connect();
    peer.call(put("many", "a", "1"));
    let lock = place.hold("many");
    let asked = MAX_IN_FLIGHT as u64 * 2 + 5;
    let bytes: Vec<u8> = (1..=asked).flat_map(|id| frame_of(10_000 + id, flush("many"))).collect();
    peer.send(&bytes);
    // The session takes no further request now; others are served.
    assert!(matches!(place.connect().call(Verb::Ping).answer(), Answer::Done));
    drop(lock);
    let mut answered: Vec<u64> = (1..=asked).map(|_| peer.next().id - 10_000).collect();
    answered.sort_unstable();
    assert_eq!(answered, (1..=asked).collect::<Vec<_>>());
}

fn a_commit_covers_every_write_that_was_sent_before_it(place: &Place) {
    let _daemon = place.serve();
    let mut peer = place.connect();
    for round in 0..50 {
        let bytes = [frame_of(1, put("c", "a", "1")), frame_of(2, Verb::Commit), frame_of(3, Verb::Ping)].concat();
        peer.send(&bytes);
        let (mut written, mut committed) = (None, None);
        for _ in 0..3 {
            match peer.next().answer() {
                Answer::Written { seq, .. } => written = Some(seq),
                Answer::Committed { seq } => committed = Some(seq),
                Answer::Done => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(committed >= written && written.is_some(), "round {round}: {written:?} {committed:?}");
    }
}

fn a_request_is_not_begun_after_its_deadline(place: &Place) {
    let _daemon = place.serve();
    let mut peer = place.connect();
    let value = format!("\"{}\"", "x".repeat(100_000));
    let keys: Vec<String> = (0..40).map(|n| n.to_string()).collect();
    for key in &keys {
        peer.call(put("big", key, &value));
    }
    // The answer to the first does not fit into the socket, so the session waits until this side reads. All are in one
    // small write and so are read together: their time runs from then.
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let bytes = [
        frame_of(1, Verb::GetMany { space: space("big"), keys }),
        frame_with_deadline(2, 20, get("big", "0")),
        frame_with_deadline(3, 20, put("big", "late", "1")),
        frame_with_deadline(4, 60_000, get("big", "late")),
    ]
    .concat();
    peer.send(&bytes);
    std::thread::sleep(std::time::Duration::from_millis(60));
    let mut faults = HashMap::new();
    loop {
        let reply = peer.next();
        match reply.id {
            1 => {}
            4 => {
                assert_eq!(reply.value(), None, "what timed out was not done");
                break;
            }
            id => drop(faults.insert(id, reply.fault())),
        }
    }
    for id in [2, 3] {
        assert!(matches!(faults[&id], Fault::TimedOut { waited_ms: 20.., .. }), "{:?}", faults[&id]);
    }
}

fn a_flush_with_a_deadline_does_not_wait_longer_for_a_lock(place: &Place) {
    let _daemon = place.serve();
    let mut peer = place.connect();
    peer.call(put("held", "a", "1"));
    let lock = place.hold("held");
    let patient = peer.ask(flush("held"));
    peer.send(&frame_with_deadline(500, 100, flush("held")));
    let reply = peer.next();
    assert_eq!(reply.id, 500);
    assert!(matches!(reply.fault(), Fault::FlushLockTimeout { waited_ms: 100..10_000, .. }), "{:?}", reply.fault());
    drop(lock);
    let reply = peer.next();
    assert_eq!(reply.id, patient);
    assert!(matches!(reply.answer(), Answer::Flushed { .. }));
}

fn a_cancelled_write_that_has_not_begun_is_not_done(place: &Place) {
    let _daemon = place.serve();
    let mut peer = place.connect();
    let mut bytes = [frame_of(1, put("c", "a", "1")), frame_of(2, put("c", "b", "1"))].concat();
    codec::encode_cancel(&mut bytes, 2);
    codec::encode_cancel(&mut bytes, 99);
    bytes.extend(frame_of(3, Verb::Len { space: space("c") }));
    peer.send(&bytes);
    let replies: HashMap<u64, _> = (0..3).map(|_| peer.next()).map(|reply| (reply.id, reply)).collect();
    assert!(matches!(replies[&1].answer(), Answer::Written { .. }));
    assert_eq!(replies[&2].fault(), Fault::Cancelled);
    assert_eq!(replies[&3].answer(), Answer::Len { records: 1 });
}

fn a_long_answer_comes_in_parts_of_one_moment(place: &Place) {
    let _daemon = place.serve();
    let mut peer = place.connect();
    let value = format!("\"{}\"", "x".repeat(50_000));
    let keys: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    for key in &keys {
        peer.call(put("big", key, &value));
    }
    let mut asked: Vec<&str> = keys.iter().map(String::as_str).collect();
    asked.insert(50, "missing");
    let id = peer.ask(Verb::GetMany { space: space("big"), keys: asked });
    // Another client changes everything when the first part is on its way, before it is read.
    assert!(peer.stream.wait(commonhold::ipc::Wanted::Read, Some(PATIENCE)).unwrap().read);
    let mut other = place.connect();
    other.call(write("big", vec![Op::Clear { space: 0 }]));
    let (mut found_all, mut parts) = (Vec::new(), 0);
    loop {
        let reply = peer.next();
        assert_eq!(reply.id, id);
        assert!(reply.body.len() < 2 * REPLY_PART_BYTES);
        let Answer::GotMany { found, .. } = reply.answer() else { panic!("{:?}", reply.answer()) };
        found_all.extend(found.iter().map(|found| found.map(|found| found.value.len())));
        parts += 1;
        if reply.kind == FrameKind::Answer {
            break;
        }
    }
    assert!(parts > 3, "{parts}");
    assert_eq!(found_all.len(), 101);
    assert_eq!(found_all.iter().filter(|found| found.is_none()).count(), 1);
    assert_eq!(found_all[50], None);
}

fn a_scan_visits_every_record_once_over_its_pages(place: &Place) {
    let _daemon = place.serve();
    let mut peer = place.connect();
    let keys: Vec<String> = (0..2_500).map(|n| format!("k{n}")).collect();
    let ops = keys.iter().map(|key| Op::Put { space: 0, key, value: "1", condition: Condition::Always }).collect();
    peer.call(write("s", ops));
    let (mut seen, mut cursor) = (Vec::new(), None::<(u64, u64, String)>);
    loop {
        let at = cursor.as_ref().map(|(load, ordinal, key)| commonhold::proto::Cursor {
            load: *load,
            ordinal: *ordinal,
            key,
        });
        let reply = peer.call(Verb::Scan { space: space("s"), cursor: at, prefix: "", limit: 400, values: false });
        let Answer::Page { entries, next, .. } = reply.answer() else { panic!("{:?}", reply.answer()) };
        assert!(entries.len() <= 400 && entries.iter().all(|entry| entry.value.is_none()));
        seen.extend(entries.iter().map(|entry| entry.key.to_owned()));
        cursor = next.map(|next| (next.load, next.ordinal, next.key.to_owned()));
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, keys);
}

fn a_page_visits_so_many_records_and_one_without_any_is_not_the_end(place: &Place) {
    let _daemon = place.serve();
    let mut peer = place.connect();
    let keys: Vec<String> = (0..=MAX_SCAN_VISITS).map(|n| format!("k{n}")).collect();
    for keys in keys.chunks(MAX_OPERATIONS) {
        let ops = keys.iter().map(|key| Op::Put { space: 0, key, value: "1", condition: Condition::Always }).collect();
        peer.call(write("s", ops));
    }
    let scan = |cursor| Verb::Scan { space: space("s"), cursor, prefix: "none", limit: 0, values: true };
    let reply = peer.call(scan(None));
    let Answer::Page { entries, next: Some(next), .. } = reply.answer() else { panic!("{:?}", reply.answer()) };
    assert_eq!((entries.len(), next.key), (0, keys[MAX_SCAN_VISITS - 1].as_str()));
    let reply = peer.call(scan(Some(next)));
    let Answer::Page { entries, next: None, .. } = reply.answer() else { panic!("{:?}", reply.answer()) };
    assert_eq!(entries, []);
}

fn refused_requests_change_nothing_and_the_session_goes_on(place: &Place) {
    let _daemon = place.serve();
    let mut peer = place.connect();
    let long_key = "k".repeat(65 * 1024);
    assert!(matches!(peer.call(put("r", "a", "{nonsense")).fault(), Fault::InvalidJson { .. }));
    assert!(matches!(peer.call(put("../r", "a", "1")).fault(), Fault::InvalidNamespace { .. }));
    assert!(matches!(peer.call(get("r", &long_key)).fault(), Fault::TooLarge { .. }));
    assert!(matches!(peer.call(put("r", &long_key, "1")).fault(), Fault::TooLarge { .. }));
    let too_many = vec!["a"; MAX_OPERATIONS + 1];
    let reply = peer.call(Verb::FilterMissing { space: space("r"), keys: too_many });
    assert!(matches!(reply.fault(), Fault::TooLarge { .. }));
    let stray = write("r", vec![Op::Clear { space: 3 }]);
    assert!(matches!(peer.call(stray).fault(), Fault::Malformed { .. }));
    let half_good = vec![
        Op::Put { space: 0, key: "a", value: "1", condition: Condition::Always },
        Op::Put { space: 0, key: "b", value: "[", condition: Condition::Always },
    ];
    assert!(matches!(peer.call(write("r", half_good)).fault(), Fault::InvalidJson { .. }));
    assert_eq!(peer.call(Verb::Len { space: space("r") }).answer(), Answer::Len { records: 0 });
}

fn session_threads_end_when_their_clients_go(place: &Place) {
    let daemon = place.serve();
    let mut peers: Vec<Peer> = (0..20).map(|_| place.connect()).collect();
    for peer in &mut peers {
        peer.call(put("s", "a", "1"));
        peer.ask(Verb::Commit);
    }
    assert_eq!(daemon.daemon().session_count(), 20);
    let lock = place.hold("s");
    for peer in &mut peers {
        peer.ask(flush("s"));
    }
    drop(peers);
    eventually("sessions end though their flushes wait", || daemon.daemon().session_count() == 0);
    drop(lock);
    daemon.stop().unwrap();
}

fn a_status_is_a_json_object(place: &Place) {
    let _daemon = place.serve();
    let mut peer = place.connect();
    peer.call(put("s", "a", "1"));
    let reply = peer.call(Verb::Status);
    let Answer::Status { json } = reply.answer() else { panic!("{:?}", reply.answer()) };
    let status: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!(status["pid"], std::process::id());
    assert_eq!(status["sessions"], 1);
    assert_eq!(status["namespaces"][0]["namespace"], "s");
    assert_eq!(status["totals"]["records"], 1);
    assert!(status["uptime_s"].as_f64().unwrap() < PATIENCE.as_secs_f64() * 10.0);
}
