//! Writes that are done only under a lock: while it is live, and before the next one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use commonhold::proto::{Answer, Condition, Earlier, Fault, Kind, Op, Seq, Space, Verb, Write};

use super::support::{lock, take, token, unlock, waiting};
use crate::daemon_support::{Peer, Place, get};

crate::however_sessions_are_served! {
    a_write_is_done_while_its_lock_is_live_whoever_has_it,
    a_token_from_before_a_restart_is_dead,
    a_repeated_write_is_answered_as_it_was_whatever_its_token_is_now,
    no_write_under_a_lock_comes_after_the_next_grant,
}

const CLIENT: u128 = 7;

fn fenced(kind: Kind, key: &str, token: u64, number: u64) -> Write<'_> {
    let spaces = vec![Space { kind, workspace: "", namespace: if kind == Kind::Volatile { "live" } else { "kept" } }];
    let ops = vec![Op::Put { space: 0, key, value: "1", condition: Condition::Always }];
    Write { client: CLIENT, number, settled: 1, durability: None, if_token: Some(token), spaces, ops }
}

fn a_write_is_done_while_its_lock_is_live_whoever_has_it(place: &Place) {
    let _daemon = place.serve();
    let (mut first, mut second) = (place.connect(), place.connect());
    let mut number = 0;
    for kind in [Kind::Persistent, Kind::Volatile] {
        let held = take(&mut first, &["k"]);
        for peer in [&mut first, &mut second] {
            number += 1;
            assert!(matches!(peer.call(Verb::Write(fenced(kind, "a", held, number))).answer(), Answer::Written { .. }));
        }
        for never in [0, 5, held + 1_000, u64::MAX] {
            number += 1;
            let fault = second.call(Verb::Write(fenced(kind, "b", never, number))).fault();
            assert_eq!(fault, Fault::TokenNotLive { token: never });
        }
        // Sent together: the write is done, the lock is given back, and the second one comes too late.
        let (one, two) = (number + 1, number + 2);
        number += 2;
        let ids = [
            first.ask(Verb::Write(fenced(kind, "c", held, one))),
            first.ask(Verb::Unlock { token: held }),
            first.ask(Verb::Write(fenced(kind, "d", held, two))),
        ];
        // Which answer comes first is not promised.
        let mut replies = [first.next(), first.next(), first.next()];
        replies.sort_by_key(|reply| reply.id);
        assert_eq!(replies.each_ref().map(|reply| reply.id), ids);
        assert!(matches!(replies[0].answer(), Answer::Written { .. }));
        assert_eq!(replies[1].answer(), Answer::Done);
        assert_eq!(replies[2].fault(), Fault::TokenNotLive { token: held });
        let namespace = if kind == Kind::Volatile { "live" } else { "kept" };
        let found = |peer: &mut Peer, key| {
            peer.call(Verb::Get { space: Space { kind, workspace: "", namespace }, key }).value().is_some()
        };
        assert_eq!(["a", "b", "c", "d"].map(|key| found(&mut second, key)), [true, false, true, false]);
    }
}

fn a_token_from_before_a_restart_is_dead(place: &Place) {
    let daemon = place.serve();
    let held = take(&mut place.connect(), &["k"]);
    daemon.stop().unwrap();
    let _daemon = place.serve();
    let mut peer = place.connect();
    let fault = peer.call(Verb::Write(fenced(Kind::Persistent, "a", held, 1))).fault();
    assert_eq!(fault, Fault::TokenNotLive { token: held });
    assert!(matches!(peer.call(Verb::Unlock { token: held }).fault(), Fault::NotHeld { .. }));
    assert!(take(&mut peer, &["k"]) > held);
}

fn a_repeated_write_is_answered_as_it_was_whatever_its_token_is_now(place: &Place) {
    let _daemon = place.serve();
    let mut first = place.connect();
    let held = take(&mut first, &["k"]);
    let Answer::Written { seq, .. } = first.call(Verb::Write(fenced(Kind::Persistent, "a", held, 1))).answer() else {
        panic!("written")
    };
    drop(first);
    let mut second = place.connect();
    let next = take(&mut second, &["k"]);
    let earlier = Earlier { boot: 1, after: Seq::ZERO };
    let again = |number| Verb::WriteAgain { earlier, write: fenced(Kind::Persistent, "a", held, number) };
    match second.call(again(1)).answer() {
        Answer::Written { seq: then, new: 1, .. } => assert_eq!(then, seq),
        other => panic!("not the first outcome: {other:?}"),
    }
    // One that was never done is refused: its lock is gone.
    assert_eq!(second.call(again(2)).fault(), Fault::TokenNotLive { token: held });
    unlock(&mut second, next);
}

fn no_write_under_a_lock_comes_after_the_next_grant(place: &Place) {
    let _daemon = place.serve();
    let mut looker = place.connect();
    for round in 0..25_u32 {
        let (mut holder, mut next) = (place.connect(), place.connect());
        let held = take(&mut holder, &["k"]);
        next.ask(lock(&["k"]));
        waiting(&mut looker, "k", 1);
        // Others write under the token of a session that is being killed.
        let over = Arc::new(AtomicBool::new(false));
        let mut writers: Vec<_> = (0..2).map(|_| place.connect()).collect();
        let writing = writers.drain(..).enumerate().map(|(at, mut peer)| {
            let over = Arc::clone(&over);
            std::thread::spawn(move || {
                let (mut number, mut last) = (0, Seq::ZERO);
                while !over.load(Ordering::Relaxed) {
                    number += 1;
                    let write = Write {
                        client: 1_000 + 10 * u128::from(round) + at as u128,
                        ..fenced(Kind::Persistent, "a", held, number)
                    };
                    match peer.call(Verb::Write(write)).answer() {
                        Answer::Written { seq, .. } => last = seq,
                        Answer::Fault(Fault::TokenNotLive { .. }) => break,
                        other => panic!("{other:?}"),
                    }
                }
                last
            })
        });
        let writing: Vec<_> = writing.collect();
        std::thread::sleep(std::time::Duration::from_micros(200 * u64::from(round % 5)));
        drop(holder);
        let granted = token(next.next().answer());
        let seen = match next.call(get("kept", "a")).answer() {
            Answer::Got { found, .. } => found.map_or(Seq::ZERO, |found| found.seq),
            other => panic!("{other:?}"),
        };
        let last = writing.into_iter().map(|thread| thread.join().unwrap()).max().unwrap();
        over.store(true, Ordering::Relaxed);
        assert!(last <= seen, "round {round}: {last} was done after the grant {granted}, which saw {seen}");
        assert!(last < Seq(granted), "round {round}");
    }
}
