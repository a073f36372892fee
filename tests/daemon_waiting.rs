//! What waits, and what need not: requests for a namespace that is being loaded, requests that nobody wants any more,
//! answers that nobody takes; and who is told what.
#![cfg(feature = "daemon")]

mod daemon_support;
#[path = "daemon_support/slow_disk.rs"]
mod slow_disk;

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use commonhold::daemon::{Daemon, Running};
use commonhold::proto::frame::FrameKind;
use commonhold::proto::hello::Hello;
use commonhold::proto::limits::MAX_QUEUED_BYTES;
use commonhold::proto::{Answer, Condition, Fault, Op, SessionInfo, StoreIdentity, Verb, Write, codec};
use daemon_support::{PATIENCE, Peer, Place, eventually, flush, frame_of, frame_with_deadline, get, put, space, write};
use slow_disk::{Held, slow};

however_sessions_are_served! {
    requests_for_a_namespace_that_is_being_loaded_wait_in_order_and_others_pass,
    a_write_is_not_overtaken_by_a_later_one_of_its_session_to_the_same_namespace,
    a_request_whose_time_is_over_while_its_namespace_is_loaded_is_told_how_far_that_is,
    a_wait_for_a_load_can_be_cancelled,
    what_was_read_of_a_client_that_is_gone_is_carried_out,
    a_flush_that_waits_can_be_cancelled_before_it_runs,
    answers_that_nobody_takes_are_bounded_over_all_sessions,
    sessions_are_listed_and_can_be_ended,
    a_held_session_outlives_its_connection_for_as_long_as_its_process_lives,
    a_session_that_only_holds_is_told_nothing_more_nor_listened_to,
    a_session_ends_when_its_process_dies_although_a_forked_child_holds_the_connection,
    a_client_of_an_older_or_newer_version_is_spoken_to_in_a_common_one,
    clients_that_take_a_little_now_and_then_do_not_hold_back_all_others,
    a_client_that_waits_to_send_a_large_request_is_given_the_answers_that_it_is_owed,
    a_client_that_writes_and_takes_no_answers_holds_up_no_other_that_writes,
}

fn clients_that_take_a_little_now_and_then_do_not_hold_back_all_others(place: &Place) {
    let daemon = place.serve();
    let mut peer = place.connect();
    let value = format!("\"{}\"", "x".repeat(24_000_000));
    peer.call(put("big", "a", &value));
    // Together they ask for far more than may wait, and take what would let it all leave in many minutes.
    let count = MAX_QUEUED_BYTES / value.len() + 6;
    let slow: Vec<Peer> = (0..count).map(|_| place.connect()).collect();
    for peer in &slow {
        peer.send(&frame_of(1, get("big", "a")));
    }
    let over = Arc::new(AtomicBool::new(false));
    let until = Arc::clone(&over);
    let taking = std::thread::spawn(move || {
        let mut bytes = vec![0; 8_000];
        while !until.load(Ordering::Relaxed) {
            for peer in &slow {
                // One that was closed answers with the end of its stream.
                let _ = peer.stream.read_now(&mut bytes);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        slow
    });
    eventually("it is more than may wait", || daemon.daemon().answers_waiting() >= MAX_QUEUED_BYTES as u64);
    let began = Instant::now();
    assert!(matches!(peer.call(put("big", "b", "1")).answer(), Answer::Written { .. }));
    assert!(began.elapsed() < PATIENCE, "who reads is served: {:?}", began.elapsed());
    eventually("one is closed", || daemon.daemon().session_count() < count + 1);
    assert!(daemon.daemon().session_count() > count / 2, "only as many as must be");
    over.store(true, Ordering::Relaxed);
    taking.join().unwrap();
}

fn a_client_that_writes_and_takes_no_answers_holds_up_no_other_that_writes(place: &Place) {
    const WRITES: u64 = 100_000;
    let _daemon = place.serve();
    let mut other = place.connect();
    other.call(put("docs", "first", "1"));
    let mut deaf = place.connect();
    let (stream, sent) = (Arc::clone(&deaf.stream), Arc::new(AtomicU64::new(0)));
    let counting = Arc::clone(&sent);
    let sender = std::thread::spawn(move || {
        let sender = Peer::over(stream);
        for id in 1..=WRITES {
            sender.send(&frame_of(id, put("docs", "deaf", &id.to_string())));
            counting.store(id, Ordering::Relaxed);
        }
    });
    // Until nothing more is taken of the one, over many writes of the other.
    let (mut seen, mut since) = (0, 0);
    eventually("no more is taken of who takes no answers", || {
        assert!(matches!(other.call(put("docs", "other", "1")).answer(), Answer::Written { .. }));
        let now = sent.load(Ordering::Relaxed);
        since = if now == seen { since + 1 } else { 0 };
        seen = now;
        now > 0 && since > 1_000
    });
    assert!(seen < WRITES, "its answers wait, and so does it");
    for id in 1..=WRITES {
        let reply = deaf.next();
        assert_eq!(reply.id, id, "answers to writes come in their order");
        assert!(matches!(reply.answer(), Answer::Written { .. }));
    }
    sender.join().unwrap();
    assert_eq!(other.call(get("docs", "deaf")).value(), Some(WRITES.to_string()));
}

fn a_client_that_waits_to_send_a_large_request_is_given_the_answers_that_it_is_owed(place: &Place) {
    let daemon = place.serve();
    let header = |length: u32| [&length.to_le_bytes()[..], &9_u64.to_le_bytes(), &[1]].concat();
    let mut peer = place.connect();
    let value = format!("\"{}\"", "x".repeat(1_000_000));
    for key in ["a", "b", "c", "d", "e", "f"] {
        peer.call(put("parts", key, &value));
    }
    // More than may send large requests at once have begun one.
    let begin_large = |peer: &Peer| {
        peer.stream.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
        peer.send(&header(40 << 20));
        // What finds no place is not read, so not all of it leaves.
        let _ = (&*peer.stream).write_all(&vec![0; 3 << 20]);
    };
    let others: Vec<Peer> = (0..8).map(|_| place.connect()).collect();
    others.iter().for_each(&begin_large);
    let owed = peer.ask(Verb::GetAll { space: space("parts"), values: true });
    begin_large(&peer);
    let mut records = 0;
    loop {
        let reply = peer.next();
        assert_eq!(reply.id, owed);
        let Answer::Records { entries, .. } = reply.answer() else { panic!("{:?}", reply.answer()) };
        records += entries.len();
        if reply.kind == FrameKind::Answer {
            break;
        }
    }
    assert_eq!(records, 6);
    // Nor does such a wait hold up the end.
    let began = Instant::now();
    daemon.stop().unwrap();
    assert!(began.elapsed() < PATIENCE / 5, "{:?}", began.elapsed());
}

/// A store with a namespace `slow` whose file cannot be opened yet.
fn serve_slow(place: &Place) -> (Running, Held) {
    std::fs::write(place.file("slow"), "{\"a\":\"file\"}").unwrap();
    let (around, held) = slow("kv_store_slow.json");
    (Daemon::start_in(place.options(), around).unwrap(), held)
}

fn replies(peer: &mut Peer, count: usize) -> Vec<daemon_support::Reply> {
    (0..count).map(|_| peer.next()).collect()
}

fn requests_for_a_namespace_that_is_being_loaded_wait_in_order_and_others_pass(place: &Place) {
    let (_daemon, held) = serve_slow(place);
    let mut peer = place.connect();
    let waiting = [
        frame_of(1, get("slow", "a")),
        frame_of(2, put("slow", "a", "1")),
        frame_of(3, get("slow", "a")),
        frame_of(4, put("slow", "a", "2")),
        frame_of(5, Verb::Len { space: space("slow") }),
    ];
    peer.send(&waiting.concat());
    // Others pass: another namespace, which is loaded meanwhile, what needs none, and another session.
    peer.send(&[frame_of(10, put("quick", "k", "1")), frame_of(11, get("quick", "k"))].concat());
    let passed: HashMap<u64, _> = replies(&mut peer, 2).into_iter().map(|reply| (reply.id, reply)).collect();
    assert!(matches!(passed[&10].answer(), Answer::Written { .. }), "{:?}", passed[&10]);
    assert_eq!(passed[&11].value().as_deref(), Some("1"), "in the order sent");
    peer.send(&frame_of(12, Verb::Ping));
    assert_eq!(peer.next().id, 12);
    assert_eq!(place.connect().call(get("quick", "k")).value().as_deref(), Some("1"));
    drop(held);
    let found: HashMap<u64, _> = replies(&mut peer, 5).into_iter().map(|reply| (reply.id, reply)).collect();
    assert_eq!(found[&1].value().as_deref(), Some("\"file\""));
    assert_eq!(found[&3].value().as_deref(), Some("1"));
    assert_eq!(found[&5].answer(), Answer::Len { records: 1 });
    assert_eq!(peer.call(get("slow", "a")).value().as_deref(), Some("2"));
}

fn a_write_is_not_overtaken_by_a_later_one_of_its_session_to_the_same_namespace(place: &Place) {
    let (_daemon, held) = serve_slow(place);
    let mut peer = place.connect();
    peer.call(put("b", "k", "0"));
    peer.call(put("c", "k", "0"));
    let (b, c) = (space("b"), space("c"));
    let set = |space, value| Op::Put { space, key: "k", value, condition: Condition::Always };
    let both = |spaces, ops| {
        let (client, number, settled, durability, if_token) = (1, 0, 0, None, None);
        Verb::Write(Write { client, number, settled, durability, if_token, spaces, ops })
    };
    // The first waits for `slow`, and so holds up `b`; the second is held up in `b`, and holds up `c`.
    let frames = [
        frame_of(1, both(vec![space("slow"), b], vec![set(0, "1"), set(1, "1")])),
        frame_of(2, both(vec![b, c], vec![set(0, "2"), set(1, "2")])),
        frame_of(3, put("c", "k", "3")),
        frame_of(4, get("b", "k")),
        frame_of(5, Verb::Commit),
        frame_of(6, put("free", "k", "1")),
    ];
    peer.send(&frames.concat());
    let reply = peer.next();
    assert_eq!(reply.id, 6, "what touches none of them passes: {reply:?}");
    assert_eq!(place.connect().call(get("c", "k")).value().as_deref(), Some("0"));
    drop(held);
    let found: HashMap<u64, _> = replies(&mut peer, 5).into_iter().map(|reply| (reply.id, reply)).collect();
    let seq = |id: u64| match found[&id].answer() {
        Answer::Written { seq, .. } | Answer::Committed { seq } => seq,
        other => panic!("request {id}: {other:?}"),
    };
    assert!(seq(1) < seq(2) && seq(2) < seq(3), "in the order sent");
    assert!(seq(5) >= seq(3), "a commit covers what was sent before it");
    assert_eq!(found[&4].value().as_deref(), Some("2"));
    assert_eq!(peer.call(get("c", "k")).value().as_deref(), Some("3"));
}

fn a_request_whose_time_is_over_while_its_namespace_is_loaded_is_told_how_far_that_is(place: &Place) {
    let (_daemon, held) = serve_slow(place);
    let mut peer = place.connect();
    peer.send(&[frame_with_deadline(1, 30, put("slow", "a", "1")), frame_of(2, get("slow", "a"))].concat());
    let reply = peer.next();
    assert_eq!(reply.id, 1);
    let expected = Fault::Loading { place: "slow".to_owned(), done_bytes: 0, total_bytes: 12 };
    assert_eq!(reply.fault(), expected);
    drop(held);
    assert_eq!(peer.next().value().as_deref(), Some("\"file\""), "what timed out was not done");
}

fn a_wait_for_a_load_can_be_cancelled(place: &Place) {
    let (_daemon, held) = serve_slow(place);
    let mut peer = place.connect();
    let mut bytes = [frame_of(1, put("slow", "a", "1")), frame_of(2, put("slow", "b", "1"))].concat();
    codec::encode_cancel(&mut bytes, 1);
    peer.send(&bytes);
    let reply = peer.next();
    assert_eq!((reply.id, reply.fault()), (1, Fault::Cancelled));
    drop(held);
    assert!(matches!(peer.next().answer(), Answer::Written { .. }));
    assert_eq!(peer.call(get("slow", "a")).value().as_deref(), Some("\"file\""));
}

fn what_was_read_of_a_client_that_is_gone_is_carried_out(place: &Place) {
    let (daemon, held) = serve_slow(place);
    let mut peer = place.connect();
    peer.ask(put("slow", "left", "1"));
    peer.call(Verb::Ping);
    drop(peer);
    eventually("its session has ended", || daemon.daemon().session_count() == 0);
    drop(held);
    let mut other = place.connect();
    eventually("its write is done", || other.call(get("slow", "left")).value().is_some());
}

fn a_flush_that_waits_can_be_cancelled_before_it_runs(place: &Place) {
    let _daemon = place.serve();
    let mut peer = place.connect();
    peer.call(put("held", "a", "1"));
    let lock = place.hold("held");
    let all = Verb::Flush { space: None, rewrite: false, wait: true };
    let mut bytes = [frame_of(10, flush("held")), frame_of(11, flush("held")), frame_of(12, all)].concat();
    codec::encode_cancel(&mut bytes, 10);
    codec::encode_cancel(&mut bytes, 12);
    peer.send(&bytes);
    let mut cancelled: Vec<u64> = (0..2)
        .map(|_| {
            let reply = peer.next();
            assert_eq!(reply.fault(), Fault::Cancelled);
            reply.id
        })
        .collect();
    cancelled.sort_unstable();
    assert_eq!(cancelled, [10, 12]);
    drop(lock);
    let reply = peer.next();
    assert_eq!(reply.id, 11);
    assert!(matches!(reply.answer(), Answer::Flushed { rewritten: 1, .. }), "{:?}", reply.answer());
}

fn answers_that_nobody_takes_are_bounded_over_all_sessions(place: &Place) {
    let daemon = place.serve();
    let mut peer = place.connect();
    let value = format!("\"{}\"", "x".repeat(24_000_000));
    peer.call(put("big", "a", &value));
    // Each of these keeps one answer waiting; together they are more than may wait.
    let count = MAX_QUEUED_BYTES / value.len() + 4;
    let deaf: Vec<Peer> = (0..count).map(|_| place.connect()).collect();
    for peer in &deaf {
        peer.send(&frame_of(1, get("big", "a")));
    }
    eventually("some are closed", || daemon.daemon().session_count() < count + 1);
    let began = Instant::now();
    assert!(matches!(peer.call(put("big", "b", "1")).answer(), Answer::Written { .. }));
    assert!(began.elapsed() < PATIENCE / 2, "who reads is served: {:?}", began.elapsed());
    assert!(daemon.daemon().session_count() > count / 2, "only as many as must be");
}

fn sessions_of(peer: &mut Peer) -> Vec<SessionInfo> {
    let reply = peer.call(Verb::Sessions);
    let Answer::Sessions { list } = reply.answer() else { panic!("{:?}", reply.answer()) };
    list
}

fn sessions_are_listed_and_can_be_ended(place: &Place) {
    let daemon = place.serve();
    let mut operator = place.connect();
    let mut other = Peer::silent(place.path());
    other.greet(&Hello { lowest: 1, highest: 1, ..Hello::of_client(0xabc, StoreIdentity::ANY) });
    other.call(put("s", "a", "1"));
    let lock = place.hold("s");
    other.ask(flush("s"));
    other.call(Verb::Ping);
    // An answer is counted out just after its client has it.
    eventually("only the flush is in flight", || {
        sessions_of(&mut operator).iter().any(|session| session.in_flight == 1 && session.client == 0xabc)
    });
    let list = sessions_of(&mut operator);
    assert_eq!(list.len(), 2);
    let [own, theirs] = &list[..] else { panic!("{list:?}") };
    assert!(own.id < theirs.id, "oldest first");
    assert_eq!((own.client, own.version), (7, commonhold::proto::hello::PROTOCOL_VERSION));
    assert_eq!((theirs.client, theirs.version, theirs.requests, theirs.in_flight), (0xabc, 1, 3, 1));
    assert_eq!((theirs.pid, theirs.uid), (Some(std::process::id()), Some(commonhold::ipc::own_uid())));
    let name = std::fs::read_to_string("/proc/self/comm").unwrap_or_default();
    assert_eq!(theirs.command, name.trim_end());
    assert!(theirs.since_unix_ms > 1_700_000_000_000);
    let id = theirs.id;
    assert_eq!(operator.call(Verb::EndSession { id }).answer(), Answer::Done);
    assert_eq!(other.next().closing(), Fault::SessionEnded);
    assert!(other.try_next().is_none());
    eventually("it is gone", || daemon.daemon().session_count() == 1);
    assert_eq!(operator.call(Verb::EndSession { id }).fault(), Fault::NoSuchSession { id });
    drop(lock);
}

fn a_session_that_only_holds_is_told_nothing_more_nor_listened_to(place: &Place) {
    let daemon = place.serve();
    let (mut operator, mut holder) = (place.connect(), place.connect());
    operator.call(put("s", "a", "1"));
    // What it is still to be told would never be heard.
    let lock = place.hold("s");
    let flushing = holder.ask(flush("s"));
    let Fault::Invalid { rule, .. } = holder.call(Verb::Hold).fault() else { panic!("refused") };
    assert_eq!(rule, "wait for their answers, or cancel them, first");
    drop(lock);
    let flushed = holder.next();
    assert_eq!(flushed.id, flushing);
    assert_eq!(holder.call(Verb::Hold).answer(), Answer::Done);
    // Neither requests nor bytes that are none have any effect, also when they are many.
    holder.send(&frame_of(9, put("s", "b", "2")));
    for _ in 0..20 {
        holder.send(&[0xff; 8 * 1024]);
    }
    assert_eq!(operator.call(get("s", "b")).value(), None);
    assert_eq!(daemon.daemon().session_count(), 2);
    // Nor is it told of its end.
    let id = sessions_of(&mut operator).last().expect("two").id;
    assert_eq!(operator.call(Verb::EndSession { id }).answer(), Answer::Done);
    assert!(holder.try_next().is_none(), "the end, and nothing before it");
    eventually("it is gone", || daemon.daemon().session_count() == 1);
}

/// One side sees no pid of the other: whoever may come in is told by the user alone.
#[cfg(target_os = "linux")]
#[test]
fn client_and_daemon_in_different_pid_namespaces_speak_with_each_other() {
    let apart = ["--pid", "--fork", "--kill-child"];
    let may = std::process::Command::new("unshare").args(apart).arg("true").status();
    if !may.is_ok_and(|status| status.success()) {
        return println!("SKIPPED: this user may not make a pid namespace");
    }
    let run_apart = |place: &Place, arguments: &[&str]| {
        let mut command = std::process::Command::new("unshare");
        command.args(apart).arg(env!("CARGO_BIN_EXE_commonhold")).arg("--store").arg(place.path()).args(arguments);
        command
    };
    let place = Place::new();
    let daemon = place.serve();
    let put = run_apart(&place, &["put", "n", "k", "1"]).output().expect("it was there a moment ago");
    assert!(put.status.success(), "{put:?}");
    assert_eq!(place.connect().call(get("n", "k")).value().as_deref(), Some("1"));
    daemon.stop().expect("it stops");

    let place = Place::new();
    let mut served = run_apart(&place, &["serve", "--quiet"]).spawn().expect("it was there a moment ago");
    eventually("it serves", || {
        commonhold::ipc::Stream::connect(place.path(), Instant::now() + Duration::from_secs(1)).is_ok()
    });
    let (mut first, second) = (place.connect(), place.connect());
    let pids = |first: &mut Peer| sessions_of(first).iter().map(|session| session.pid).collect::<Vec<_>>();
    eventually("both are there, and their processes are not seen", || pids(&mut first) == [None, None]);
    drop(second);
    eventually("a session ends with its connection", || pids(&mut first) == [None]);
    assert_eq!(first.call(Verb::Stop).answer(), Answer::Done);
    assert!(served.wait().expect("it runs").success());

    // The number that the daemon has there is no process here, or another one: nobody waits for the end of that.
    let mut served = run_apart(&place, &["serve", "--quiet"]).spawn().expect("it was there a moment ago");
    eventually("it serves again", || {
        commonhold::ipc::Stream::connect(place.path(), Instant::now() + Duration::from_secs(1)).is_ok()
    });
    let mut stop = std::process::Command::new(env!("CARGO_BIN_EXE_commonhold"));
    let began = Instant::now();
    let stopped = stop.arg("--store").arg(place.path()).arg("stop").output().expect("the binary runs");
    assert!(stopped.status.success() && began.elapsed() < Duration::from_mins(1), "{stopped:?}");
    assert!(served.wait().expect("it runs").success());
}

/// A command that closes what it has inherited keeps its lock all the same.
#[cfg(target_os = "linux")]
fn a_held_session_outlives_its_connection_for_as_long_as_its_process_lives(place: &Place) {
    let daemon = place.serve();
    let holding = r#"
import sys, time
sys.path.insert(0, sys.argv[1])
sys.dont_write_bytecode = True
from reference_client import Session
session = Session(sys.argv[2])
session.ask("Hold")
session.socket.close()
print("closed", flush=True)
time.sleep(120)
"#;
    let mut holder = std::process::Command::new("python3")
        .args(["-c", holding, concat!(env!("CARGO_MANIFEST_DIR"), "/proto")])
        .arg(place.path())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the tests need python3");
    let mut closed = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(holder.stdout.take().expect("piped")), &mut closed)
        .expect("it tells that it has closed");
    assert_eq!(closed, "closed\n");
    // Others come and go meanwhile, each served after the end of the connection could have been seen.
    for _ in 0..20 {
        assert_eq!(place.connect().call(Verb::Ping).answer(), Answer::Done);
    }
    eventually("the others are gone", || daemon.daemon().session_count() <= 1);
    assert_eq!(daemon.daemon().session_count(), 1, "the process lives");
    holder.kill().expect("it runs");
    eventually("it ends with its process", || daemon.daemon().session_count() == 0);
    holder.wait().expect("it was killed");
}

#[cfg(not(target_os = "linux"))]
fn a_held_session_outlives_its_connection_for_as_long_as_its_process_lives(_place: &Place) {}

/// Connects, has a request answered, forks a child that keeps the connection and lives on, says so, and waits for its end.
const FORKING: &str = r#"
import os, sys, time
sys.path.insert(0, sys.argv[1])
sys.dont_write_bytecode = True
from reference_client import Session
session = Session(sys.argv[2])
session.ask("Ping")
child = os.fork()
if child == 0:
    session.socket.settimeout(120)
    if session.socket.recv(1) == b"":
        open(sys.argv[3], "x").close()
    os._exit(0)
print("forked", flush=True)
time.sleep(120)
"#;

#[cfg(target_os = "linux")]
fn a_session_ends_when_its_process_dies_although_a_forked_child_holds_the_connection(place: &Place) {
    let daemon = place.serve();
    let mut operator = place.connect();
    let proto = concat!(env!("CARGO_MANIFEST_DIR"), "/proto");
    let heard = place.path().join("heard");
    let mut worker = std::process::Command::new("python3")
        .args(["-c", FORKING, proto])
        .args([place.path(), &heard])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the tests need python3");
    let mut forked = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(worker.stdout.take().expect("piped")), &mut forked)
        .expect("it tells that it has forked");
    assert_eq!(forked, "forked\n");
    let is_listed =
        |operator: &mut Peer, pid: u32| sessions_of(operator).iter().any(|session| session.pid == Some(pid));
    assert!(is_listed(&mut operator, worker.id()));
    worker.kill().expect("it runs");
    let killed = Instant::now();
    eventually("its session ends", || daemon.daemon().session_count() == 1);
    println!("ended {:?} after the kill", killed.elapsed());
    assert!(!is_listed(&mut operator, worker.id()));
    worker.wait().expect("it was killed");
    eventually("the child, which has lived on with the connection, hears of its end", || heard.exists());
}

#[cfg(not(target_os = "linux"))]
fn a_session_ends_when_its_process_dies_although_a_forked_child_holds_the_connection(_place: &Place) {}

fn a_client_of_an_older_or_newer_version_is_spoken_to_in_a_common_one(place: &Place) {
    let _daemon = place.serve();
    let own = commonhold::proto::hello::PROTOCOL_VERSION;
    let mut operator = place.connect();
    for (lowest, highest, agreed) in [(1, 1, Some(1)), (1, 99, Some(own)), (own + 1, own + 2, None)] {
        let mut peer = Peer::silent(place.path());
        let hello = peer.greet(&Hello { lowest, highest, ..Hello::of_client(500, StoreIdentity::ANY) });
        if agreed.is_some() {
            assert_eq!(peer.call(Verb::Ping).answer(), Answer::Done);
            let list = sessions_of(&mut operator);
            assert_eq!(list.iter().find(|info| info.client == 500).map(|info| info.version), agreed);
        } else {
            let expected = Fault::Version {
                client_lowest: lowest,
                client_highest: highest,
                daemon_lowest: hello.lowest,
                daemon_highest: hello.highest,
            };
            assert_eq!(peer.next().closing(), expected);
        }
        drop(peer);
        eventually("it is gone", || sessions_of(&mut operator).len() == 1);
    }
}

#[test]
fn a_status_shows_how_far_a_load_is() {
    let place = Place::new();
    let (_daemon, held) = serve_slow(&place);
    let mut peer = place.connect();
    peer.ask(get("slow", "a"));
    let mut other = place.connect();
    let mut state = || {
        let reply = other.call(Verb::Status);
        let Answer::Status { json } = reply.answer() else { panic!("{:?}", reply.answer()) };
        let status: serde_json::Value = serde_json::from_str(json).unwrap();
        (status["loading"].clone(), status["namespaces"][0]["state"].clone())
    };
    let expected = serde_json::json!([{ "namespace": "slow", "done_bytes": 0, "total_bytes": 12 }]);
    eventually("it is being loaded", || state().0 == expected);
    drop(held);
    assert_eq!(peer.next().value().as_deref(), Some("\"file\""));
    assert_eq!(state(), (serde_json::json!([]), "loaded".into()));
}

#[test]
fn names_that_were_only_asked_for_are_forgotten() {
    let place = Place::new();
    let mut peer_names = Vec::new();
    let daemon = place.serve();
    let mut peer = place.connect();
    peer.call(put("kept", "a", "1"));
    for n in 0..2_000 {
        let name = format!("never_{n}");
        assert_eq!(peer.call(get(&name, "a")).value(), None);
        peer_names.push(name);
    }
    // A name in other letter case is then free to use.
    eventually("they are forgotten", || {
        let fault = place.connect().call(get("NEVER_7", "a"));
        matches!(fault.answer(), Answer::Got { found: None, .. })
    });
    // A session that has asked and is idle keeps nobody from a name in other letter case, nor does one that has dropped it.
    assert_eq!(peer.call(get("Asked", "a")).value(), None);
    let mut other = place.connect();
    eventually("that name is free", || matches!(other.call(put("asked", "a", "1")).answer(), Answer::Written { .. }));
    peer.call(put("gone", "a", "1"));
    peer.call(Verb::Drop { space: space("gone") });
    eventually("its file is gone", || !place.file("gone").exists());
    eventually("the name is free", || matches!(peer.call(put("GONE", "a", "1")).answer(), Answer::Written { .. }));
    assert_eq!(peer.call(get("kept", "a")).value().as_deref(), Some("1"));
    // One that was forgotten can be written as if it had never been asked for.
    peer.call(write("never_9", vec![Op::Put { space: 0, key: "k", value: "1", condition: Condition::IfAbsent }]));
    assert_eq!(peer.call(get("never_9", "k")).value().as_deref(), Some("1"));
    daemon.stop().unwrap();
    assert!(place.file("never_9").exists() && !place.file("never_8").exists());
}

#[test]
fn a_daemon_that_nobody_uses_ends_in_order() {
    let place = Place::new();
    let mut options = place.options();
    options.idle_exit = Some(Duration::from_millis(300));
    let daemon = Daemon::start(options).unwrap();
    let mut peer = place.connect();
    peer.call(put("left", "a", "1"));
    let waiting = std::thread::spawn(move || daemon.wait());
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(peer.call(Verb::Ping).answer(), Answer::Done, "an open session keeps it, however idle it is");
    let began = Instant::now();
    drop(peer);
    waiting.join().unwrap().unwrap();
    assert!(began.elapsed() >= Duration::from_millis(300) && began.elapsed() < PATIENCE);
    assert_eq!(std::fs::read_to_string(place.file("left")).unwrap(), "{\n\"a\":1\n}\n");
}
