//! Whatever comes over the socket, only its own connection suffers.
#![cfg(feature = "daemon")]

mod daemon_support;

use std::io::Write as _;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use commonhold::ipc::Stream;
use commonhold::proto::frame::FrameKind;
use commonhold::proto::hello::{HELLO_BYTES, Hello};
use commonhold::proto::limits::{HELLO_TIMEOUT_MS, MAX_FRAME_BYTES, MAX_NESTING};
use commonhold::proto::{Answer, Condition, Fault, Op, StoreIdentity, Verb, codec};
use daemon_support::{PATIENCE, Peer, Place, eventually, frame_of, get, put, space};

however_sessions_are_served! {
    another_protocol_version_is_told_both_ranges_and_closed,
    random_bytes_get_an_answer_or_a_closed_connection,
    what_is_no_hello_is_told_so,
    a_frame_of_an_impossible_length_or_kind_ends_the_session_after_what_came_before_it,
    a_body_that_does_not_decode_is_refused_and_the_session_goes_on,
    half_a_frame_and_then_silence_holds_up_nobody,
    a_client_that_dribbles_its_bytes_is_served_when_they_are_whole,
    a_client_that_sends_one_byte_a_second_is_served_when_it_may_take_so_long_and_holds_up_nobody,
    a_connection_that_says_nothing_is_closed_in_time,
    a_value_nested_a_hundred_thousand_deep_is_refused_and_the_session_goes_on,
    a_client_that_stops_reading_holds_up_nobody_and_is_closed,
    late_answers_that_nobody_reads_hold_up_no_flush_and_no_commit,
    cancels_of_what_is_not_there_are_passed_over,
    large_frames_that_never_end_give_their_places_to_those_that_do,
    large_requests_whose_answers_nobody_takes_keep_no_places,
    large_frames_without_progress_give_way_to_those_who_wait,
    a_client_of_a_copied_store_is_told_that_it_is_another_one,
}

fn header(length: u32, id: u64, kind: u8) -> Vec<u8> {
    [&length.to_le_bytes()[..], &id.to_le_bytes(), &[kind]].concat()
}

/// The daemon still serves others.
fn assert_serves(place: &Place) {
    let mut peer = place.connect();
    peer.call(put("alive", "a", "1"));
    assert_eq!(peer.call(get("alive", "a")).value().as_deref(), Some("1"));
}

fn another_protocol_version_is_told_both_ranges_and_closed(place: &Place) {
    let _daemon = place.serve();
    let mut peer = Peer::silent(place.path());
    let hello = peer.greet(&Hello { lowest: 40, highest: 41, ..Hello::of_client(9, StoreIdentity::ANY) });
    assert_eq!(hello.client, 9, "the daemon answers with its own hello all the same");
    let expected = Fault::Version {
        client_lowest: 40,
        client_highest: 41,
        daemon_lowest: hello.lowest,
        daemon_highest: hello.highest,
    };
    assert_eq!(peer.next().closing(), expected);
    assert!(peer.try_next().is_none());
}

fn a_client_of_a_copied_store_is_told_that_it_is_another_one(place: &Place) {
    let copy = Place::new();
    let _daemon = place.serve();
    let identity = commonhold::ipc::store_identity(copy.path()).unwrap();
    let mut peer = Peer::silent(place.path());
    let own = peer.greet(&Hello::of_client(9, identity)).identity;
    assert_eq!(own, commonhold::ipc::store_identity(place.path()).unwrap());
    assert_eq!(peer.next().closing(), Fault::OtherStore { device: own.device, inode: own.inode });
    assert!(peer.try_next().is_none());
}

fn random_bytes_get_an_answer_or_a_closed_connection(place: &Place) {
    let daemon = place.serve();
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for round in 0..200 {
        let peer = if round % 2 == 0 { Peer::silent(place.path()) } else { place.connect() };
        let mut bytes = vec![0; random.usize(1..5_000)];
        random.fill(&mut bytes);
        if round % 3 == 0 {
            // A good length before garbage gets further in.
            let body = bytes.len() as u32;
            bytes.splice(0..0, header(body + 9, 1, 1));
        }
        // The daemon may have closed the connection already.
        let _ = std::io::Write::write_all(&mut &*peer.stream, &bytes);
    }
    eventually("all of them are closed", || daemon.daemon().session_count() == 0);
    assert_serves(place);
}

fn what_is_no_hello_is_told_so(place: &Place) {
    let _daemon = place.serve();
    let mut peer = Peer::silent(place.path());
    peer.send(&[b'x'; HELLO_BYTES]);
    peer.daemon_hello();
    assert!(matches!(peer.next().closing(), Fault::Malformed { .. }));
    assert!(peer.try_next().is_none());
}

fn a_frame_of_an_impossible_length_or_kind_ends_the_session_after_what_came_before_it(place: &Place) {
    let _daemon = place.serve();
    let impossible = [
        header(MAX_FRAME_BYTES as u32 + 1, 3, 1),
        header(u32::MAX, 3, 1),
        header(8, 3, 1),
        header(9, 3, 77),
        header(9, 0, 1),
        header(9, 3, FrameKind::Answer as u8),
    ];
    for bad in impossible {
        let mut peer = place.connect();
        peer.send(&[frame_of(1, put("before", "a", "1")), frame_of(2, get("before", "a")), bad].concat());
        assert!(matches!(peer.next().answer(), Answer::Written { .. }));
        assert_eq!(peer.next().value().as_deref(), Some("1"));
        assert!(matches!(peer.next().closing(), Fault::Malformed { .. }));
        assert!(peer.try_next().is_none());
    }
}

fn a_body_that_does_not_decode_is_refused_and_the_session_goes_on(place: &Place) {
    let _daemon = place.serve();
    let mut peer = place.connect();
    // Deadline 0, then the number of a verb that no release has.
    let unknown = [header(9 + 8, 5, 1), vec![0; 4], 4_000_000u32.to_le_bytes().to_vec()].concat();
    peer.send(&unknown);
    assert!(matches!(peer.next().fault(), Fault::Unsupported { tag: 4_000_000, .. }));
    let mut cut = frame_of(6, put("m", "a", "1"));
    cut.truncate(cut.len() - 3);
    let length = (cut.len() - 4) as u32;
    cut[..4].copy_from_slice(&length.to_le_bytes());
    peer.send(&cut);
    let reply = peer.next();
    assert_eq!(reply.id, 6);
    assert!(matches!(reply.fault(), Fault::Malformed { .. }));
    assert_eq!(peer.call(Verb::Len { space: space("m") }).answer(), Answer::Len { records: 0 });
}

fn half_a_frame_and_then_silence_holds_up_nobody(place: &Place) {
    let daemon = place.serve();
    let halves: Vec<Peer> = (0..30)
        .map(|n| {
            let peer = place.connect();
            let frame = frame_of(1, put("half", "a", "\"0123456789\""));
            peer.send(&frame[..=n % (frame.len() - 1)]);
            peer
        })
        .collect();
    assert_serves(place);
    let began = Instant::now();
    daemon.stop().unwrap();
    assert!(began.elapsed() < PATIENCE / 2, "nor does it hold up the end");
    for mut peer in halves {
        assert_eq!(peer.next().closing(), Fault::Stopping);
        assert!(peer.try_next().is_none());
    }
}

fn a_client_that_dribbles_its_bytes_is_served_when_they_are_whole(place: &Place) {
    let _daemon = place.serve();
    let mut peer = Peer::silent(place.path());
    for byte in Hello::of_client(1, StoreIdentity::ANY).to_bytes() {
        peer.send(&[byte]);
    }
    peer.daemon_hello();
    for byte in frame_of(4, Verb::Ping) {
        peer.send(&[byte]);
    }
    assert_eq!(peer.next().id, 4);
}

fn a_connection_that_says_nothing_is_closed_in_time(place: &Place) {
    let _daemon = place.serve();
    let began = Instant::now();
    let mut silent = Peer::silent(place.path());
    let mut slow = Peer::silent(place.path());
    slow.send(&Hello::of_client(1, StoreIdentity::ANY).to_bytes()[..20]);
    assert_serves(place);
    assert!(silent.try_next().is_none());
    assert!(slow.try_next().is_none());
    let allowed = Duration::from_millis(HELLO_TIMEOUT_MS);
    let took = began.elapsed() + Duration::from_millis(50);
    assert!(took >= allowed && took < allowed * 3, "{took:?}");
}

fn a_client_that_sends_one_byte_a_second_is_served_when_it_may_take_so_long_and_holds_up_nobody(place: &Place) {
    const SECONDS: usize = 7;
    let daemon = place.serve();
    let mut greeting = Peer::silent(place.path());
    let hello = Hello::of_client(1, StoreIdentity::ANY).to_bytes();
    let mut asking = place.connect();
    let put = frame_of(4, put("slow", "a", "1"));
    let (at_once, slowly) = put.split_at(put.len() - SECONDS);
    asking.send(at_once);
    let began = Instant::now();
    for second in 0..SECONDS {
        // A hello may not take so long: at some time the daemon is gone.
        let _ = greeting.try_send(&hello[second..=second]);
        asking.send(&slowly[second..=second]);
        assert_serves(place);
        let next = Duration::from_secs(second as u64 + 1);
        std::thread::sleep(next.saturating_sub(began.elapsed()));
    }
    assert!(matches!(asking.next().answer(), Answer::Written { .. }));
    assert!(greeting.try_next().is_none());
    assert_eq!(daemon.daemon().session_count(), 1, "only the one whose frame is whole is left");
}

fn a_value_nested_a_hundred_thousand_deep_is_refused_and_the_session_goes_on(place: &Place) {
    const DEPTH: usize = 100_000;
    let _daemon = place.serve();
    let mut peer = place.connect();
    peer.call(put("deep", "a", "{\"list\":[]}"));
    let lists = format!("{}{}", "[".repeat(DEPTH), "]".repeat(DEPTH));
    let objects = format!("{}1{}", "{\"a\":".repeat(DEPTH), "}".repeat(DEPTH));
    let unfinished = "[{\"a\":".repeat(DEPTH);
    let condition = Condition::Always;
    for value in [&lists, &objects, &unfinished] {
        let merged = format!("{{\"m\":{value}}}");
        let ops = [
            Op::Put { space: 0, key: "a", value, condition },
            Op::Merge { space: 0, key: "a", fields: &merged, condition },
            Op::Append { space: 0, key: "a", field: "list", items: value, keep_last: None, condition },
        ];
        for op in ops {
            let fault = peer.call(daemon_support::write("deep", vec![op])).fault();
            assert!(matches!(fault, Fault::InvalidJson { .. } | Fault::TooLarge { .. }), "{fault:?}");
        }
    }
    assert_eq!(peer.call(get("deep", "a")).value().as_deref(), Some("{\"list\":[]}"));
    // As deep as may be: through journal, memory and file.
    let deepest = format!("{}{}", "[".repeat(MAX_NESTING), "]".repeat(MAX_NESTING));
    assert!(matches!(peer.call(put("deep", "b", &deepest)).answer(), Answer::Written { .. }));
    assert!(matches!(peer.call(daemon_support::flush("deep")).answer(), Answer::Flushed { .. }));
    // A file that somebody else wrote, deeper than that: its namespace is closed, and no other.
    std::fs::write(place.file("deeper"), format!("{{\"k\": {lists}}}")).unwrap();
    let fault = peer.call(get("deeper", "k")).fault();
    assert!(matches!(fault, Fault::NeedsRepair { .. }), "{fault:?}");
    assert_eq!(peer.call(get("deep", "b")).value(), Some(deepest));
}

fn a_client_that_stops_reading_holds_up_nobody_and_is_closed(place: &Place) {
    let mut options = place.options();
    options.stall_timeout = Duration::from_millis(300);
    let daemon = commonhold::daemon::Daemon::start(options).unwrap();
    let mut peer = place.connect();
    let value = format!("\"{}\"", "x".repeat(500_000));
    peer.call(put("big", "a", &value));
    // 50 MB of answers that nobody takes.
    let bytes: Vec<u8> = (1..=100).flat_map(|id| frame_of(id, get("big", "a"))).collect();
    peer.send(&bytes);
    assert_serves(place);
    eventually("the connection is given up", || daemon.daemon().session_count() == 0);
    while peer.try_next().is_some() {}
}

fn late_answers_that_nobody_reads_hold_up_no_flush_and_no_commit(place: &Place) {
    let _daemon = place.serve();
    let deaf = place.connect();
    let mut peer = place.connect();
    let value = format!("\"{}\"", "x".repeat(100_000));
    peer.call(put("big", "a", &value));
    // Its answers fill its socket, then it asks for commits and flushes whose answers cannot leave.
    let mut bytes = Vec::new();
    for id in 0..400 {
        bytes.extend(frame_of(4 * id + 1, put("deaf", "a", "1")));
        bytes.extend(frame_of(4 * id + 2, Verb::Commit));
        bytes.extend(frame_of(4 * id + 3, daemon_support::flush("deaf")));
    }
    for id in 0..20 {
        bytes.extend(frame_of(10_000 + id, get("big", "a")));
    }
    deaf.send(&bytes);
    for round in 0..20 {
        peer.call(put("other", "a", &round.to_string()));
        assert!(matches!(peer.call(Verb::Commit).answer(), Answer::Committed { .. }));
        assert!(matches!(peer.call(daemon_support::flush("other")).answer(), Answer::Flushed { .. }));
    }
    // When it reads at last, every answer is there, once.
    let mut deaf = deaf;
    let mut ids: Vec<u64> = (0..400 * 3 + 20).map(|_| deaf.next().id).collect();
    ids.sort_unstable();
    let mut expected: Vec<u64> = (0..400).flat_map(|id| [4 * id + 1, 4 * id + 2, 4 * id + 3]).collect();
    expected.extend(10_000..10_020);
    assert_eq!(ids, expected);
}

fn cancels_of_what_is_not_there_are_passed_over(place: &Place) {
    let _daemon = place.serve();
    let mut peer = place.connect();
    let mut bytes = Vec::new();
    (1..1_000).for_each(|id| codec::encode_cancel(&mut bytes, id));
    bytes.extend(frame_of(7, Verb::Ping));
    peer.send(&bytes);
    assert_eq!(peer.next().id, 7);
}

fn large_frames_that_never_end_give_their_places_to_those_that_do(place: &Place) {
    let mut options = place.options();
    options.stall_timeout = Duration::from_millis(500);
    let daemon = commonhold::daemon::Daemon::start(options).unwrap();
    let half = vec![0; 3 * 1024 * 1024];
    let unfinished: Vec<Peer> = (0..20)
        .map(|_| {
            let peer = place.connect();
            peer.stream.set_write_timeout(Some(Duration::from_millis(20))).unwrap();
            peer.send(&header(60 * 1024 * 1024, 1, 1));
            // Those that find no place are not read from, so not all of it leaves.
            let _ = (&*peer.stream).write_all(&half);
            peer
        })
        .collect();
    assert_serves(place);
    let mut peer = place.connect();
    let value = format!("\"{}\"", "x".repeat(8_000_000));
    assert!(matches!(peer.call(put("big", "a", &value)).answer(), Answer::Written { .. }));
    eventually("those that never end are closed", || daemon.daemon().session_count() == 1);
    for mut peer in unfinished {
        assert!(matches!(peer.next().closing(), Fault::TimedOut { .. }));
    }
}

/// Of a minute's patience, who waits for a place needs to wait some seconds.
fn large_frames_without_progress_give_way_to_those_who_wait(place: &Place) {
    let mut options = place.options();
    options.stall_timeout = Duration::from_mins(1);
    let daemon = commonhold::daemon::Daemon::start(options).unwrap();
    let half = vec![0; 3 * 1024 * 1024];
    let _unfinished: Vec<Peer> = (0..8)
        .map(|_| {
            let peer = place.connect();
            peer.send(&header(60 * 1024 * 1024, 1, 1));
            peer.send(&half);
            peer
        })
        .collect();
    let begun = Instant::now();
    let mut peer = place.connect();
    let value = format!("\"{}\"", "x".repeat(8_000_000));
    assert!(matches!(peer.call(put("big", "a", &value)).answer(), Answer::Written { .. }));
    let waited = begun.elapsed();
    assert!(waited < Duration::from_secs(30), "{waited:?} although eight others send nothing");
    eventually("who gave way is gone", || daemon.daemon().session_count() < 9);
}

/// They are served; that their clients do not read is nobody else's affair.
fn large_requests_whose_answers_nobody_takes_keep_no_places(place: &Place) {
    let mut options = place.options();
    options.stall_timeout = Duration::from_mins(10);
    let daemon = commonhold::daemon::Daemon::start(options).unwrap();
    let mut peer = place.connect();
    let key = "k".repeat(123);
    peer.call(put("much", &key, &format!("\"{}\"", "x".repeat(100_000))));
    let all = vec![key.as_str(); 10_000];
    let deaf: Vec<Peer> = (0..8)
        .map(|_| {
            let mut deaf = place.connect();
            deaf.ask(Verb::GetMany { space: space("much"), keys: all.clone() });
            deaf
        })
        .collect();
    let value = format!("\"{}\"", "x".repeat(8_000_000));
    assert!(matches!(peer.call(put("big", "a", &value)).answer(), Answer::Written { .. }));
    assert_eq!(daemon.daemon().session_count(), 9, "nobody had to go for it");
    drop(deaf);
}

/// A daemon that does not outlive a test that fails.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It has ended by itself when the test was passed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn when_descriptors_are_used_up_new_connections_wait_and_old_ones_go_on() {
    let place = Place::new();
    let script = format!("ulimit -n 64; exec {} serve \"$0\"", env!("CARGO_BIN_EXE_commonhold"));
    let log = std::fs::File::create(place.path().join("log")).unwrap();
    let mut command = std::process::Command::new("sh");
    command.arg("-c").arg(script).arg(place.path()).stdout(Stdio::null()).stderr(log);
    let mut daemon = Killed(command.spawn().unwrap());
    eventually("the daemon serves", || Stream::connect(place.path(), Instant::now()).is_ok());
    let mut old = place.connect();
    old.call(put("first", "a", "1"));
    let mut waiting: Vec<Peer> = (0..70).map(|_| Peer::silent(place.path())).collect();
    let hello = Hello::of_client(7, StoreIdentity::ANY).to_bytes();
    for peer in &waiting {
        peer.send(&hello);
    }
    for peer in &mut waiting[..20] {
        peer.daemon_hello();
    }
    let busy = daemon_support::busy_for(daemon.0.id(), Duration::from_secs(1));
    assert!(
        busy < Duration::from_millis(100),
        "it computes for {busy:?} of a second in which nobody asks for anything"
    );
    // Each of these needs files of its own: a list of the directory, a segment of the journal, a lock, a new file.
    let value = format!("\"{}\"", "x".repeat(8_000_000));
    for namespace in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"] {
        assert!(matches!(old.call(put(namespace, "a", &value)).answer(), Answer::Written { .. }));
    }
    let all = Verb::Flush { space: None, rewrite: false, wait: true };
    assert!(matches!(old.call(all).answer(), Answer::Flushed { rewritten: 13, .. }));
    // As room is made, those who waited are served.
    let mut late = waiting.split_off(40);
    drop(waiting);
    for peer in &mut late {
        peer.daemon_hello();
    }
    assert_eq!(late[29].call(Verb::Ping).answer(), Answer::Done);
    assert_eq!(old.call(Verb::Stop).answer(), Answer::Done);
    assert!(daemon.0.wait().unwrap().success());
    let log = std::fs::read_to_string(place.path().join("log")).unwrap();
    assert!(log.contains("further connections wait") && !log.contains('\u{1b}'), "{log}");
}

#[test]
fn a_limit_of_open_files_that_is_lowered_is_seen_and_one_that_is_too_low_refuses_the_start() {
    let place = Place::new();
    let start = |limit: u32, log: &str| {
        let script = format!("ulimit -n {limit}; exec {} serve \"$0\"", env!("CARGO_BIN_EXE_commonhold"));
        let log = std::fs::File::create(place.path().join(log)).unwrap();
        let mut command = std::process::Command::new("sh");
        command.arg("-c").arg(script).arg(place.path()).stdout(Stdio::null()).stderr(log);
        Killed(command.spawn().unwrap())
    };
    assert_eq!(start(63, "low").0.wait().unwrap().code(), Some(7));
    let words = std::fs::read_to_string(place.path().join("low")).unwrap();
    assert!(words.contains("may open 63 files") && words.contains("64 at least"), "{words}");
    let mut daemon = start(1_000, "log");
    eventually("the daemon serves", || Stream::connect(place.path(), Instant::now()).is_ok());
    let mut old = place.connect();
    old.call(put("first", "a", "1"));
    let set = |limit: u64| {
        let limit = rustix::process::Rlimit { current: Some(limit), maximum: Some(1_000) };
        let daemon = rustix::process::Pid::from_child(&daemon.0);
        rustix::process::prlimit(Some(daemon), rustix::process::Resource::Nofile, limit).unwrap();
    };
    set(48);
    let mut waiting: Vec<Peer> = (0..70).map(|_| Peer::silent(place.path())).collect();
    let hello = Hello::of_client(7, StoreIdentity::ANY).to_bytes();
    for peer in &waiting {
        peer.send(&hello);
    }
    for peer in &mut waiting[..12] {
        peer.daemon_hello();
    }
    let value = format!("\"{}\"", "x".repeat(8_000_000));
    for namespace in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"] {
        assert!(matches!(old.call(put(namespace, "a", &value)).answer(), Answer::Written { .. }));
    }
    let all = Verb::Flush { space: None, rewrite: false, wait: true };
    assert!(matches!(old.call(all).answer(), Answer::Flushed { rewritten: 13, .. }));
    // Raised again, it lets those in who wait, although nobody has left.
    set(1_000);
    for peer in &mut waiting[12..] {
        peer.daemon_hello();
    }
    assert_eq!(old.call(Verb::Stop).answer(), Answer::Done);
    assert!(daemon.0.wait().unwrap().success());
}
