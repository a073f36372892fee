//! The core's promises, with byte strings alone.

use commonhold_proto::{Answer, Condition, Kind, Op, Space, Write, codec, frame};

use super::*;

#[path = "core/holds_tests.rs"]
mod holds;

const SPACE: Space<'static> = Space { kind: Kind::Persistent, workspace: "", namespace: "n" };

fn get(key: &'static str) -> Verb<'static> {
    Verb::Get { space: SPACE, key }
}

fn put(key: &'static str) -> Verb<'static> {
    let op = Op::Put { space: 0, key, value: "1", condition: Condition::Always };
    let (spaces, ops) = (vec![SPACE], vec![op]);
    Verb::Write(Write { client: 0, number: 0, settled: 0, durability: None, if_token: None, spaces, ops })
}

/// Sends at most `bytes` bytes and returns them.
fn send(core: &mut Core, bytes: usize) -> Vec<u8> {
    let mut sent = Vec::new();
    while sent.len() < bytes && core.has_unsent() {
        let mut together = Vec::new();
        let piece = core.to_send(&mut together);
        let piece = piece[..piece.len().min(bytes - sent.len())].to_vec();
        core.sent(piece.len(), |_| {});
        sent.extend(piece);
    }
    sent
}

/// What the requests in `bytes` say of an earlier sending.
fn earlier(mut bytes: &[u8]) -> Vec<Option<Earlier>> {
    let mut earlier = Vec::new();
    while let Some((_, body, consumed)) = frame::split(bytes).unwrap() {
        earlier.push(match codec::decode_request(body).unwrap().verb {
            Verb::WriteAgain { earlier, .. } => Some(earlier),
            Verb::DropOnce { earlier, .. } => earlier,
            _ => None,
        });
        bytes = &bytes[consumed..];
    }
    earlier
}

/// Ids and kinds of the frames in `bytes`.
fn frames(mut bytes: &[u8]) -> Vec<(u64, FrameKind)> {
    let mut frames = Vec::new();
    while let Some((header, _, consumed)) = frame::split(bytes).unwrap() {
        frames.push((header.id, header.kind));
        bytes = &bytes[consumed..];
    }
    assert!(bytes.is_empty(), "the last frame is whole");
    frames
}

fn ids(bytes: &[u8]) -> Vec<u64> {
    frames(bytes).into_iter().map(|(id, _)| id).collect()
}

fn answer(id: u64, answer: &Answer<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::encode_answer(&mut bytes, id, answer).unwrap();
    bytes
}

fn receive(core: &mut Core, bytes: &[u8]) -> Vec<u64> {
    let mut settled = Vec::new();
    core.receive(bytes, |id| settled.push(id)).unwrap();
    settled
}

fn lose(core: &mut Core) -> Vec<u64> {
    let mut settled = Vec::new();
    core.connection_lost("it broke", |id| settled.push(id));
    settled.sort_unstable();
    settled
}

fn records(reply: &Reply) -> u64 {
    match codec::decode_answer(reply.single().unwrap()).unwrap() {
        Answer::Len { records } => records,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_request_ends_in_its_own_answer_whatever_the_order() {
    let mut core = Core::new(7);
    let [a, b, c] = ["a", "b", "c"].map(|key| core.begin(0, get(key)).unwrap());
    assert_eq!(ids(&send(&mut core, usize::MAX)), [a, b, c]);
    assert_eq!(receive(&mut core, &answer(c, &Answer::Len { records: 3 })), [c]);
    assert!(core.take(a).is_none() && !core.is_settled(a));
    let both = [answer(b, &Answer::Len { records: 2 }), answer(a, &Answer::Len { records: 1 })].concat();
    assert_eq!(receive(&mut core, &both), [b, a]);
    for (id, expected) in [(a, 1), (b, 2), (c, 3)] {
        assert_eq!(records(&core.take(id).unwrap().unwrap()), expected);
        assert!(core.take(id).is_none(), "an outcome is taken once");
    }
}

#[test]
fn parts_are_joined_in_order_even_when_they_alternate_with_those_of_another_request() {
    let mut core = Core::new(7);
    let [a, b] = ["a", "b"].map(|key| core.begin(0, get(key)).unwrap());
    send(&mut core, usize::MAX);
    let mut bytes = Vec::new();
    for (id, records) in [(a, 1), (b, 10), (a, 2), (b, 20)] {
        codec::encode_part(&mut bytes, id, &Answer::Len { records }).unwrap();
    }
    assert!(receive(&mut core, &bytes).is_empty());
    receive(&mut core, &answer(b, &Answer::Len { records: 30 }));
    receive(&mut core, &answer(a, &Answer::Len { records: 3 }));
    for (id, expected) in [(a, [1, 2, 3]), (b, [10, 20, 30])] {
        let reply = core.take(id).unwrap().unwrap();
        let joined: Vec<_> = reply.bodies().map(|body| codec::decode_answer(body).unwrap()).collect();
        assert_eq!(joined, expected.map(|records| Answer::Len { records }));
        assert!(reply.single().is_none());
    }
}

#[test]
fn after_a_loss_everything_but_what_would_be_another_request_is_sent_again_in_order() {
    let mut core = Core::new(7);
    let sent_write = core.begin(0, put("sent")).unwrap();
    let sent_read = core.begin(0, get("sent")).unwrap();
    let commit = core.begin(0, Verb::Commit).unwrap();
    let stop = core.begin(0, Verb::Stop).unwrap();
    send(&mut core, usize::MAX);
    let partly_sent_write = core.begin(0, put("partly")).unwrap();
    assert_eq!(send(&mut core, 1).len(), 1);
    let unsent_write = core.begin(0, put("unsent")).unwrap();
    let unsent_read = core.begin(0, get("unsent")).unwrap();

    assert_eq!(lose(&mut core), [stop]);
    assert!(core.take(stop).unwrap().unwrap_err().outcome_is_unknown());
    core.connected(3, 0, |id| panic!("{id} ends"));
    let bytes = send(&mut core, usize::MAX);
    let all = [sent_write, sent_read, commit, partly_sent_write, unsent_write, unsent_read];
    assert_eq!(ids(&bytes), all);
    let first = Earlier { boot: 0, after: Seq(0) };
    assert_eq!(earlier(&bytes), [Some(first), None, None, Some(first), None, None]);
    assert_eq!(receive(&mut core, &answer(sent_read, &Answer::Done)), [sent_read]);
}

#[test]
fn a_half_received_answer_is_forgotten_with_its_connection() {
    let mut core = Core::new(7);
    let id = core.begin(0, get("a")).unwrap();
    send(&mut core, usize::MAX);
    let mut part = Vec::new();
    codec::encode_part(&mut part, id, &Answer::Len { records: 1 }).unwrap();
    let whole = answer(id, &Answer::Len { records: 2 });
    receive(&mut core, &part);
    receive(&mut core, &whole[..whole.len() - 1]);
    lose(&mut core);
    send(&mut core, usize::MAX);
    receive(&mut core, &whole);
    assert_eq!(records(&core.take(id).unwrap().unwrap()), 2);
}

#[test]
fn an_answer_that_came_before_the_loss_counts() {
    let mut core = Core::new(7);
    let id = core.begin(0, put("a")).unwrap();
    send(&mut core, usize::MAX);
    receive(&mut core, &answer(id, &Answer::Done));
    assert!(lose(&mut core).is_empty());
    assert!(core.take(id).unwrap().is_ok());
}

#[test]
fn without_a_new_connection_what_was_not_done_fails_and_says_why() {
    let mut core = Core::new(7);
    let read = core.begin(0, get("a")).unwrap();
    let sent = core.begin(0, put("a")).unwrap();
    send(&mut core, usize::MAX);
    let write = core.begin(0, put("a")).unwrap();
    lose(&mut core);
    core.fail_all(&Error::protocol("it is another one"), |_| {});
    for id in [read, write] {
        assert!(matches!(core.take(id).unwrap(), Err(Error::Protocol { .. })));
    }
    let error = core.take(sent).unwrap().unwrap_err();
    assert!(error.outcome_is_unknown() && error.to_string().contains("it broke"), "{error}");
    assert!(!core.has_unsent() && core.open_numbers.is_empty());
}

#[test]
fn writes_are_numbered_from_1_and_tell_the_lowest_number_without_an_outcome() {
    let mut core = Core::new(7);
    // To a daemon that looks at no numbers.
    core.connected(2, 1, |_| {});
    let numbers = |core: &mut Core| {
        let id = core.begin(0, put("a")).unwrap();
        let bytes = send(core, usize::MAX);
        let (_, body, _) = frame::split(&bytes).unwrap().unwrap();
        match codec::decode_request(body).unwrap().verb {
            Verb::Write(write) => (id, write.client, write.number, write.settled),
            other => panic!("{other:?}"),
        }
    };
    let (first, ..) = numbers(&mut core);
    assert_eq!(numbers(&mut core), (first + 1, 7, 2, 1));
    assert_eq!(numbers(&mut core), (first + 2, 7, 3, 1));
    receive(&mut core, &answer(first, &Answer::Done));
    assert_eq!(numbers(&mut core), (first + 3, 7, 4, 2));
    lose(&mut core);
    assert_eq!(numbers(&mut core), (first + 4, 7, 5, 5), "unknown outcomes were told and are settled");
}

#[test]
fn a_request_given_up_before_it_was_sent_is_never_sent() {
    let mut core = Core::new(7);
    let kept = core.begin(0, put("kept")).unwrap();
    let dropped = core.begin(0, put("dropped")).unwrap();
    assert_eq!(core.give_up(dropped, true), GivenUp::Unsent);
    assert_eq!(frames(&send(&mut core, usize::MAX)), [(kept, FrameKind::Request)]);
}

#[test]
fn a_request_given_up_half_sent_is_sent_to_its_end_and_its_answer_dropped() {
    let mut core = Core::new(7);
    let write = core.begin(0, put("a")).unwrap();
    let mut bytes = send(&mut core, 5);
    assert_eq!(core.give_up(write, true), GivenUp::Unknown);
    let read = core.begin(0, get("a")).unwrap();
    bytes.extend(send(&mut core, usize::MAX));
    assert_eq!(ids(&bytes), [write, read]);
    assert!(receive(&mut core, &answer(write, &Answer::Done)).is_empty());
    assert_eq!(receive(&mut core, &answer(read, &Answer::Done)), [read]);
}

#[test]
fn a_request_given_up_after_it_was_sent_is_cancelled_and_its_late_answer_dropped() {
    let mut core = Core::new(7);
    let read = core.begin(0, get("a")).unwrap();
    let write = core.begin(0, put("a")).unwrap();
    send(&mut core, usize::MAX);
    assert_eq!(core.give_up(read, true), GivenUp::Read);
    assert_eq!(core.give_up(write, false), GivenUp::Unknown);
    assert_eq!(frames(&send(&mut core, usize::MAX)), [(read, FrameKind::Cancel)]);
    let mut late = Vec::new();
    codec::encode_part(&mut late, read, &Answer::Done).unwrap();
    late.extend([answer(read, &Answer::Done), answer(write, &Answer::Done)].concat());
    assert!(receive(&mut core, &late).is_empty());
    assert!(core.requests.is_empty() && core.open_numbers.is_empty(), "nothing is left of them");
}

#[test]
fn an_answer_to_what_was_never_asked_ends_the_connection() {
    let mut core = Core::new(7);
    let id = core.begin(0, get("a")).unwrap();
    for bad in [answer(id + 1, &Answer::Done), answer(id, &Answer::Done)] {
        assert!(matches!(core.receive(&bad, |_| {}), Err(Broken::ForGood(Error::Protocol { .. }))));
    }
}

#[test]
fn a_stopping_daemon_may_be_followed_by_another_and_a_refusing_one_not() {
    let closing = |fault: Fault| {
        let mut bytes = Vec::new();
        codec::encode_event(&mut bytes, &Event::Closing(fault)).unwrap();
        Core::new(7).receive(&bytes, |_| {}).unwrap_err()
    };
    assert!(matches!(closing(Fault::Stopping), Broken::Closing(Fault::Stopping)));
    let forbidden = closing(Fault::Forbidden { uid: 1, owner: 2 });
    assert!(matches!(forbidden, Broken::ForGood(Error::Fault(Fault::Forbidden { .. }))));
}

#[test]
fn what_does_not_fit_into_a_frame_is_refused_and_costs_no_number() {
    let mut core = Core::new(7);
    let value = "1".repeat(commonhold_proto::limits::MAX_FRAME_BYTES);
    let op = Op::Put { space: 0, key: "a", value: &value, condition: Condition::Always };
    let (spaces, ops) = (vec![SPACE], vec![op]);
    let write = Write { client: 0, number: 0, settled: 0, durability: None, if_token: None, spaces, ops };
    assert!(matches!(core.begin(0, Verb::Write(write)), Err(Error::TooLarge { .. })));
    assert!(!core.has_unsent());
    core.begin(0, put("a")).unwrap();
    assert_eq!((core.last_number, core.open_numbers.len()), (1, 1));
}

#[test]
fn any_bytes_are_taken_or_refused() {
    let seed = 0x00c0_ffee;
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..2_000 {
        let mut core = Core::new(7);
        let id = core.begin(0, get("a")).unwrap();
        send(&mut core, usize::MAX);
        let mut bytes = answer(id, &Answer::Status { json: "{\"a\":1}" });
        for _ in 0..random.usize(..4) {
            let at = random.usize(..bytes.len());
            bytes[at] = random.u8(..);
        }
        let more = random.usize(..40);
        bytes.extend(std::iter::repeat_with(|| random.u8(..)).take(more));
        for piece in bytes.chunks(random.usize(1..30)) {
            if core.receive(piece, |_| {}).is_err() {
                break;
            }
        }
        if let Some(Ok(reply)) = core.take(id) {
            reply.bodies().for_each(|body| drop(codec::decode_answer(body)));
        }
    }
}

fn drop_of(namespace: &'static str) -> Verb<'static> {
    Verb::Drop { space: Space { namespace, ..SPACE } }
}

const WRITTEN: Answer<'static> = Answer::Written { seq: Seq(40), new: 1, found: 0, surrogates_removed: 0 };

#[test]
fn what_is_sent_again_says_to_whom_it_was_first_sent_and_what_was_known_then() {
    let mut core = Core::new(7);
    core.connected(3, 5, |_| {});
    let first = core.begin(0, put("a")).unwrap();
    send(&mut core, usize::MAX);
    receive(&mut core, &answer(first, &WRITTEN));
    let second = core.begin(0, put("a")).unwrap();
    let dropped = core.begin(0, drop_of("n")).unwrap();
    send(&mut core, usize::MAX);
    for boot in [5, 6, 7] {
        assert!(lose(&mut core).is_empty());
        core.connected(3, boot, |id| panic!("{id} ends"));
        let bytes = send(&mut core, usize::MAX);
        assert_eq!(ids(&bytes), [second, dropped]);
        assert_eq!(earlier(&bytes), [Some(Earlier { boot: 5, after: Seq(40) }); 2]);
    }
    assert_eq!(receive(&mut core, &answer(second, &WRITTEN)), [second]);
    assert_eq!(receive(&mut core, &answer(dropped, &Answer::Dropped { seq: Seq(50), records: 2 })), [dropped]);
    assert!(core.open_numbers.is_empty() && core.unanswered_bytes == 0);
}

#[test]
fn an_older_daemon_or_another_journal_cannot_tell_what_was_done() {
    for (version, boot) in [(2, 6), (3, 4)] {
        let mut core = Core::new(7);
        core.connected(3, 5, |_| {});
        let sent = core.begin(0, put("a")).unwrap();
        send(&mut core, usize::MAX);
        let drop = core.begin(0, drop_of("n")).unwrap();
        lose(&mut core);
        let mut ended = Vec::new();
        core.connected(version, boot, |id| ended.push(id));
        assert_eq!(ended, [sent]);
        assert!(core.take(sent).unwrap().unwrap_err().outcome_is_unknown());
        let bytes = send(&mut core, usize::MAX);
        assert_eq!(ids(&bytes), [drop], "what was never sent is sent");
        let (_, body, _) = frame::split(&bytes).unwrap().unwrap();
        let is_numbered = matches!(codec::decode_request(body).unwrap().verb, Verb::DropOnce { .. });
        assert_eq!(is_numbered, version == 3);
    }
}

#[test]
fn an_answer_that_says_nothing_about_the_first_sending_leaves_the_outcome_unknown() {
    let repeated = || {
        let mut core = Core::new(7);
        let id = core.begin(0, put("a")).unwrap();
        send(&mut core, usize::MAX);
        lose(&mut core);
        core.connected(3, 1, |_| {});
        send(&mut core, usize::MAX);
        (core, id)
    };
    let (mut core, id) = repeated();
    let late = Fault::TimedOut { waited_ms: 1, waiting_for: "a load".to_owned() };
    receive(&mut core, &answer(id, &Answer::Fault(late)));
    assert!(core.take(id).unwrap().unwrap_err().outcome_is_unknown());
    // The daemon stops: the next one is asked.
    let (mut core, id) = repeated();
    assert!(receive(&mut core, &answer(id, &Answer::Fault(Fault::Stopping))).is_empty());
    lose(&mut core);
    core.connected(3, 2, |_| {});
    assert_eq!(ids(&send(&mut core, usize::MAX)), [id]);
    // Refused for good: it was not done.
    receive(&mut core, &answer(id, &Answer::Fault(Fault::MixedKinds)));
    assert!(matches!(codec::decode_answer(core.take(id).unwrap().unwrap().single().unwrap()), Ok(Answer::Fault(_))));
}

#[test]
fn a_repeat_that_is_given_up_before_it_was_sent_may_have_been_done() {
    let mut core = Core::new(7);
    let id = core.begin(0, put("a")).unwrap();
    send(&mut core, usize::MAX);
    lose(&mut core);
    assert_eq!(core.give_up(id, true), GivenUp::Unknown);
    assert!(!core.has_unsent() && core.open_numbers.is_empty());
}

#[test]
fn short_requests_leave_together_and_each_is_sent_when_its_last_byte_is() {
    let mut core = Core::new(7);
    let ids: Vec<_> = (0..3).map(|_| core.begin(0, put("a")).unwrap()).collect();
    let mut together = Vec::new();
    let all = core.to_send(&mut together).to_vec();
    assert_eq!(frames(&all).iter().map(|(id, _)| *id).collect::<Vec<_>>(), ids);
    let each = all.len() / 3;
    let mut done = Vec::new();
    core.sent(2 * each - 1, |id| done.push(id));
    assert_eq!(done, ids[..1], "of the second a byte is missing");
    assert_eq!(core.to_send(&mut together), &all[2 * each - 1..]);
    core.sent(each + 1, |id| done.push(id));
    assert_eq!((done, core.has_unsent()), (ids, false));
    let long = "a".repeat(TOGETHER_BYTES);
    core.begin(0, get("short")).unwrap();
    core.begin(0, Verb::Get { space: SPACE, key: &long[..60_000] }).unwrap();
    core.begin(0, Verb::Get { space: SPACE, key: &long[..60_000] }).unwrap();
    assert_eq!(frames(core.to_send(&mut together)).len(), 2, "what would be too much leaves with the next");
}

#[test]
fn writes_do_not_run_further_ahead_of_an_unanswered_one_than_is_remembered() {
    let mut core = Core::new(7);
    let ids: Vec<_> = (0..MAX_OPEN_WRITES + 10).map(|_| core.begin(0, put("a")).unwrap()).collect();
    let read = core.begin(0, get("a")).unwrap();
    let sent = frames(&send(&mut core, usize::MAX)).len();
    assert_eq!((sent, core.has_unsent()), (MAX_OPEN_WRITES, false));
    receive(&mut core, &answer(ids[1], &WRITTEN));
    assert!(!core.has_unsent(), "the oldest counts");
    receive(&mut core, &answer(ids[0], &WRITTEN));
    assert_eq!(frames(&send(&mut core, usize::MAX)).len(), 2);
    lose(&mut core);
    core.connected(3, 1, |_| {});
    assert_eq!(frames(&send(&mut core, usize::MAX)).len(), MAX_OPEN_WRITES);
    for &id in &ids[2..] {
        send(&mut core, usize::MAX);
        receive(&mut core, &answer(id, &WRITTEN));
    }
    send(&mut core, usize::MAX);
    assert!(core.is_sent(read) && core.unanswered_bytes == 0);
}

#[test]
fn what_nobody_waits_for_is_done_as_if_somebody_did_and_leaves_nothing() {
    let written = Answer::Written { seq: Seq(9), new: 1, found: 0, surrogates_removed: 0 };
    let mut core = Core::new(7);
    let (one, two) = (core.begin(0, put("a")).unwrap(), core.begin(0, put("b")).unwrap());
    let read = core.begin(0, get("c")).unwrap();
    for id in [one, two, read] {
        assert!(core.forget_gathered(id));
    }
    assert_eq!(lose(&mut core), [] as [u64; 0]);
    core.connected(PROTOCOL_VERSION, 1, |_| {});
    assert_eq!(ids(&send(&mut core, usize::MAX)), [one, two, read], "none was sent on the first connection");
    assert_eq!(receive(&mut core, &answer(one, &written)), [one]);
    assert!(core.has_unattended());
    lose(&mut core);
    core.connected(PROTOCOL_VERSION, 1, |_| {});
    assert_eq!(ids(&send(&mut core, usize::MAX)), [two], "the write that was not answered, and no read");
    receive(&mut core, &answer(two, &written));
    assert!(!core.has_unattended());
    assert!(core.requests.is_empty() && core.open_numbers.is_empty());

    let never = core.begin(0, put("d")).unwrap();
    core.forget_gathered(never);
    lose(&mut core);
    core.fail_all(&Error::unknown("there is no daemon"), |_| {});
    assert!(core.requests.is_empty() && core.open_numbers.is_empty() && core.is_sent(never));
}
