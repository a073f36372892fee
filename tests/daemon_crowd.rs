//! The real daemon as a process of its own, with thousands of clients, with other users, and with clients of earlier
//! releases.
#![cfg(feature = "daemon")]

mod daemon_support;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use commonhold::ipc::{SocketName, Stream};
use commonhold::proto::frame::FrameKind;
use commonhold::proto::hello::{HELLO_BYTES, Hello};
use commonhold::proto::limits::HELLO_TIMEOUT_MS;
use commonhold::proto::{Answer, Condition, Event, Fault, Op, StoreIdentity, Verb, codec, frame};
use daemon_support::{PATIENCE, Peer, Place, busy_for, eventually, frame_of, get, put, write};
use rustix::process::{Resource, Rlimit, getrlimit, prlimit, setrlimit};

const BINARY: &str = env!("CARGO_BIN_EXE_commonhold");

/// A daemon that does not outlive a test that fails.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It has ended by itself when the test was passed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Killed {
    fn serve(place: &Place, options: &[&str]) -> Self {
        let log = std::fs::File::create(place.path().join("log")).unwrap();
        let mut command = Command::new(BINARY);
        command.arg("serve").args(options).arg(place.path()).stdout(Stdio::null()).stderr(log);
        let daemon = Self(command.spawn().unwrap());
        eventually("the daemon serves", || Stream::connect(place.path(), Instant::now()).is_ok());
        daemon
    }

    /// A number of `/proc/<pid>/status`.
    fn status(&self, what: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':')).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }
}

/// Raises this process's soft limit of open files; how many connections that allows, of those wanted.
fn connections_allowed(wanted: u64) -> u64 {
    const OTHERS: u64 = 200;
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    let allowed = wanted.min(maximum.unwrap_or(u64::MAX).saturating_sub(OTHERS));
    if allowed < wanted {
        // Past the harness, which keeps what a passing test prints.
        let _ =
            writeln!(std::io::stderr(), "NOT {wanted} CONNECTIONS BUT {allowed}: the limit of open files forbids more");
    }
    assert!(allowed >= 2_000, "the hard limit of open files is {maximum:?}: this test needs 2,200 at least");
    allowed
}

#[test]
fn ten_thousand_connections_are_held_at_once_and_each_is_served() {
    let count = connections_allowed(10_000);
    let place = Place::new();
    let daemon = Killed::serve(&place, &[]);
    let name = SocketName::for_store(place.path()).unwrap();
    place.connect().call(put("crowd", "shared", "1"));
    let (before_kib, began) = (daemon.status("VmRSS"), Instant::now());
    let hello = Hello::of_client(7, StoreIdentity::ANY).to_bytes();
    let mut peers: Vec<Peer> = (0..count)
        .map(|_| {
            let stream = Stream::connect_to(&name, Instant::now() + PATIENCE).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut peer = Peer::over(Arc::new(stream));
            peer.send(&hello);
            peer.daemon_hello();
            peer
        })
        .collect();
    let opened = began.elapsed();
    let after_kib = daemon.status("VmRSS");
    let bytes_each = (after_kib - before_kib) * 1024 / count;
    // All ask before anybody is answered.
    let began = Instant::now();
    for (n, peer) in peers.iter().enumerate() {
        let key = n.to_string();
        peer.send(
            &[frame_of(1, Verb::Ping), frame_of(2, get("crowd", "shared")), frame_of(3, put("crowd", &key, &key))]
                .concat(),
        );
    }
    for (n, peer) in peers.iter_mut().enumerate() {
        assert_eq!((peer.next().answer(), peer.next().value().as_deref()), (Answer::Done, Some("1")), "client {n}");
        assert!(matches!(peer.next().answer(), Answer::Written { new: 1, .. }), "client {n}");
    }
    let asked = began.elapsed();
    let idle_kib = daemon.status("VmRSS");
    let threads = daemon.status("Threads");
    println!(
        "{count} connections in {opened:.1?}: {bytes_each} bytes of the daemon's memory each, {} KiB more after 3 requests of each in {asked:.1?}; {threads} threads",
        idle_kib - after_kib
    );
    assert!(bytes_each < 6 * 1024, "{bytes_each} bytes for an idle connection");
    assert!(threads < 64 + 32, "{threads} threads");
    // One that comes now is served beside them, and the whole ends in time.
    let mut late = place.connect();
    assert_eq!(
        late.call(Verb::Len { space: daemon_support::space("crowd") }).answer(),
        Answer::Len { records: count + 1 }
    );
    let began = Instant::now();
    assert_eq!(late.call(Verb::Stop).answer(), Answer::Done);
    let mut daemon = daemon;
    assert!(daemon.0.wait().unwrap().success());
    assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
}

#[test]
fn a_thousand_half_open_handshakes_cost_little_and_end_in_time() {
    const HALF_OPEN: usize = 1_000;
    connections_allowed(2_000);
    let place = Place::new();
    let daemon = Killed::serve(&place, &[]);
    let mut peer = place.connect();
    peer.call(put("open", "a", "1"));
    let before_kib = daemon.status("VmRSS");
    let hello = Hello::of_client(7, StoreIdentity::ANY).to_bytes();
    let began = Instant::now();
    let half_open: Vec<Peer> = (0..HALF_OPEN)
        .map(|n| {
            let peer = Peer::silent(place.path());
            peer.send(&hello[..n % HELLO_BYTES]);
            peer
        })
        .collect();
    let sessions = |peer: &mut Peer| {
        let reply = peer.call(Verb::Status);
        let Answer::Status { json } = reply.answer() else { panic!("{:?}", reply.answer()) };
        serde_json::from_str::<serde_json::Value>(json).unwrap()["sessions"].as_u64().unwrap()
    };
    eventually("all of them are taken", || sessions(&mut peer) == HALF_OPEN as u64 + 1);
    // Those who were there and those who come are served beside them, at the pace of an idle daemon.
    let asked = Instant::now();
    for n in 0..1_000 {
        assert_eq!(peer.call(get("open", "a")).value().as_deref(), Some("1"), "request {n}");
    }
    assert_eq!(place.connect().call(get("open", "a")).value().as_deref(), Some("1"));
    let (asked, kib) = (asked.elapsed(), daemon.status("VmRSS").saturating_sub(before_kib));
    let threads = daemon.status("Threads");
    assert!(asked < Duration::from_secs(3), "{asked:?}");
    assert!(threads < 64 + 32, "{threads} threads");
    assert!(kib < 32 * 1024, "{kib} KiB for half-open connections");
    let busy = busy_for(daemon.0.id(), Duration::from_secs(1));
    assert!(busy < Duration::from_millis(200), "it computes for {busy:?} of a second for those who say nothing");
    eventually("they are shown out", || sessions(&mut peer) == 1);
    let took = began.elapsed();
    println!("{HALF_OPEN} half-open: {kib} KiB, {threads} threads, busy {busy:?} of a second, gone after {took:.1?}");
    assert!(took < Duration::from_millis(HELLO_TIMEOUT_MS * 3), "{took:?}");
    for mut peer in half_open {
        assert!(peer.try_next().is_none());
    }
}

#[test]
fn a_million_tiny_requests_in_one_go_are_answered_in_order_in_little_memory() {
    const REQUESTS: u64 = 1_000_000;
    const MOST_KIB: u64 = 48 * 1024;
    let place = Place::new();
    let daemon = Killed::serve(&place, &[]);
    let mut peer = place.connect();
    peer.call(put("tiny", "0", "0"));
    let before_kib = daemon.status("VmRSS");
    let began = Instant::now();
    let sending = Arc::clone(&peer.stream);
    let sender = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        for id in 1..=REQUESTS {
            let key = (id % 100).to_string();
            bytes.extend(match id % 4 {
                0 => frame_of(id, put("tiny", &key, &key)),
                1 => frame_of(id, get("tiny", "0")),
                _ => frame_of(id, Verb::Ping),
            });
            // In one go: without waiting for any answer.
            if bytes.len() > 1 << 20 || id == REQUESTS {
                (&*sending).write_all(&bytes).unwrap();
                bytes.clear();
            }
        }
    });
    let (mut bytes, mut end, mut next, mut most_kib) = (vec![0; 256 * 1024], 0, 1, 0);
    while next <= REQUESTS {
        end += (&*peer.stream).read(&mut bytes[end..]).unwrap();
        let mut at = 0;
        while let Some((header, body, consumed)) = frame::split(&bytes[at..end]).unwrap() {
            assert_eq!((header.id, header.kind), (next, FrameKind::Answer));
            let answer = codec::decode_answer(body).unwrap();
            let good = match next % 4 {
                0 => matches!(answer, Answer::Written { .. }),
                1 => matches!(answer, Answer::Got { found: Some(_), .. }),
                _ => answer == Answer::Done,
            };
            assert!(good, "request {next}: {answer:?}");
            (at, next) = (at + consumed, next + 1);
            if next % 50_000 == 0 {
                most_kib = most_kib.max(daemon.status("VmRSS"));
            }
        }
        bytes.copy_within(at..end, 0);
        end -= at;
    }
    sender.join().unwrap();
    let (took, more_kib) = (began.elapsed(), most_kib.saturating_sub(before_kib));
    println!("{REQUESTS} requests in {took:.1?}, {more_kib} KiB more at most");
    assert!(more_kib < MOST_KIB, "{more_kib} KiB more for one client");
}

/// The limit of a daemon that may open nothing more; its hard limit stays what this process's is.
#[test]
fn records_of_other_sizes_take_the_room_of_those_they_replace_and_a_cleared_namespace_gives_it_back() {
    const RECORDS: u32 = 100_000;
    let place = Place::new();
    let text = "x".repeat(1_300);
    let mut file = String::from("{");
    for n in 0..RECORDS {
        let comma = if n == 0 { "" } else { "," };
        write!(file, "{comma}\n  \"doc-{n:010}\": \"{}\"", &text[..828]).unwrap();
    }
    file.push_str("\n}\n");
    std::fs::write(place.file("docs"), &file).unwrap();
    let daemon = Killed::serve(&place, &[]);
    let empty_kib = daemon.status("VmRSS");
    let mut peer = place.connect();
    // Loaded by several threads, and written by one of another kind.
    assert!(peer.call(get("docs", "doc-0000000000")).value().is_some());
    let loaded_kib = daemon.status("VmRSS") - empty_kib;
    let mut random = fastrand::Rng::with_seed(20_261_124);
    for _ in 0..4 * RECORDS / 1_000 {
        let records: Vec<(String, String)> = (0..1_000)
            .map(|_| {
                (format!("doc-{:010}", random.u32(0..RECORDS)), format!("\"{}\"", &text[..random.usize(400..1_256)]))
            })
            .collect();
        let put = |(key, value)| Op::Put { space: 0, key, value, condition: Condition::Always };
        let ops = records.iter().map(|(key, value)| put((key.as_str(), value.as_str()))).collect();
        let reply = peer.call(write("docs", ops));
        assert!(matches!(reply.answer(), Answer::Written { .. }), "{reply:?}");
    }
    let replaced_kib = daemon.status("VmRSS") - empty_kib;
    println!("{loaded_kib} KiB loaded, {replaced_kib} KiB when all were replaced");
    assert!(
        replaced_kib < loaded_kib * 3 / 2,
        "as many bytes as before take {replaced_kib} KiB instead of {loaded_kib}"
    );
    assert!(matches!(peer.call(write("docs", vec![Op::Clear { space: 0 }])).answer(), Answer::Written { .. }));
    eventually("what was cleared is given back", || daemon.status("VmRSS") < empty_kib + loaded_kib / 4);
}

fn only(current: u64) -> Rlimit {
    Rlimit { current: Some(current), ..getrlimit(Resource::Nofile) }
}

#[test]
fn a_daemon_that_gets_no_descriptor_for_a_connection_waits_without_spinning_and_recovers() {
    let place = Place::new();
    let daemon = Killed::serve(&place, &[]);
    let pid = rustix::process::Pid::from_raw(daemon.0.id().cast_signed()).unwrap();
    let mut old = place.connect();
    old.call(put("few", "a", "1"));
    let open = std::fs::read_dir(format!("/proc/{}/fd", daemon.0.id())).unwrap().count() as u64;
    let before = prlimit(Some(pid), Resource::Nofile, only(open)).unwrap();
    let hello = Hello::of_client(7, StoreIdentity::ANY).to_bytes();
    let mut waiting: Vec<Peer> = (0..20)
        .map(|_| {
            let peer = Peer::silent(place.path());
            peer.send(&hello);
            peer
        })
        .collect();
    let busy = busy_for(daemon.0.id(), Duration::from_secs(1));
    println!("busy {busy:?} of a second in which no connection could be taken");
    assert!(busy < Duration::from_millis(200), "it spins: {busy:?} of a second");
    // Those that are open go on.
    assert_eq!(old.call(get("few", "a")).value().as_deref(), Some("1"));
    assert!(matches!(old.call(put("few", "a", "2")).answer(), Answer::Written { .. }));
    prlimit(Some(pid), Resource::Nofile, before).unwrap();
    for peer in &mut waiting {
        peer.daemon_hello();
        assert_eq!(peer.call(get("few", "a")).value().as_deref(), Some("2"));
    }
}

/// A user who is neither this one nor root.
const STRANGER: u32 = 65_534;

/// A user of whom nothing else runs: its limit of threads counts all that does.
const BUSY_USER: u32 = 65_533;

/// The binary where any user can reach it.
fn reachable_binary() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let binary = directory.path().join("commonhold");
    std::fs::copy(BINARY, &binary).unwrap();
    eventually("the copy can be run", || Command::new(&binary).arg("--version").stdout(Stdio::null()).status().is_ok());
    (directory, binary)
}

#[test]
fn a_connection_for_which_no_thread_can_be_had_is_served_all_the_same() {
    if commonhold::ipc::own_uid() != 0 {
        let _ = writeln!(std::io::stderr(), "NOT TRIED WITHOUT THREADS: only root can run a daemon as a user with few");
        return;
    }
    let place = Place::new();
    let (_directory, binary) = reachable_binary();
    std::os::unix::fs::chown(place.path(), Some(BUSY_USER), Some(BUSY_USER)).unwrap();
    let log = std::fs::File::create(place.path().join("log")).unwrap();
    // Its own threads fit, and those of some sessions, but not of all. Shells differ in the name of that limit.
    let limit = "(ulimit -u 32) 2>/dev/null && ulimit -u 32 || ulimit -p 32";
    let script = format!("{limit}; exec {} serve {}", binary.display(), place.path().display());
    let mut command = Command::new("sh");
    command.uid(BUSY_USER).gid(BUSY_USER).arg("-c").arg(script).stdout(Stdio::null()).stderr(log);
    let daemon = Killed(command.spawn().unwrap());
    eventually("the daemon serves", || Stream::connect(place.path(), Instant::now()).is_ok());
    let mut peers: Vec<Peer> = (0..60).map(|_| place.connect()).collect();
    for (n, peer) in peers.iter_mut().enumerate() {
        assert!(matches!(peer.call(put("few", &n.to_string(), "1")).answer(), Answer::Written { .. }), "client {n}");
    }
    let log = std::fs::read_to_string(place.path().join("log")).unwrap();
    assert!(log.contains("it shares one with others"), "{log}");
    assert!(daemon.status("Threads") <= 32);
}

/// Runs the binary, from where a stranger can reach it, as that user.
fn as_stranger(binary: &Path, store: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(binary);
    command.uid(STRANGER).gid(STRANGER).current_dir("/").arg("--store").arg(store).args(arguments);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

#[test]
fn other_users_come_in_where_they_are_allowed_and_nowhere_else() {
    let place = Place::new();
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let own = commonhold::ipc::own_uid();
    let daemon = Killed::serve(&place, &["--allow-uid", &STRANGER.to_string()]);
    let shared = place.path().join(".commonhold-shared");
    // The daemon's own socket answers first; this one is opened to others when all else is ready.
    let mode = |path: &Path| std::fs::metadata(path).map_or(0, |found| found.mode() & 0o777);
    eventually("the socket for others is open to them", || mode(&shared.join("socket")) == 0o666);
    assert_eq!(mode(&shared), 0o711);
    let mut peer = place.connect();
    peer.call(put("s", "a", "1"));
    if own != 0 {
        let _ = writeln!(std::io::stderr(), "NOT TRIED AS ANOTHER USER: that takes root, and this is user {own}");
        return;
    }
    let (_directory, binary) = reachable_binary();
    assert_eq!(as_stranger(&binary, place.path(), &["get", "s", "a"]), (0, "1\n".to_owned(), String::new()));
    drop((peer, daemon));
    // The same socket is still there; the next daemon lets nobody else in.
    let daemon = Killed::serve(&place, &["--allow-uid", "12345"]);
    let (code, _, words) = as_stranger(&binary, place.path(), &["get", "s", "a"]);
    assert_eq!(code, 4, "{words}");
    assert!(words.contains(&format!("--allow-uid {STRANGER}")), "{words}");
    drop(daemon);
    let _daemon = Killed::serve(&place, &[]);
    let (code, _, words) = as_stranger(&binary, place.path(), &["get", "s", "a"]);
    assert_ne!(code, 0, "{words}");
}

/// One side's turn in a recorded session.
struct Line {
    /// What the step is, for a failure.
    step: String,
    from_client: bool,
    bytes: Vec<u8>,
}

fn recorded(text: &str) -> Vec<Line> {
    let mut step = String::new();
    let mut lines = Vec::new();
    for line in text.lines() {
        match line.split_once(' ') {
            Some(("#", words)) => words.clone_into(&mut step),
            Some((side @ (">" | "<"), hex)) => {
                let digits = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
                let bytes = (0..hex.len()).step_by(2).map(digits).collect();
                lines.push(Line { step: step.clone(), from_client: side == ">", bytes });
            }
            _ => assert!(line.is_empty(), "{line}"),
        }
    }
    lines
}

/// An answer in words in which Seqs are told by their order alone: which numbers are given is not part of the protocol.
fn told(answer: &Answer<'_>, seqs: &BTreeMap<u64, usize>) -> String {
    let mut words = format!("{answer:?}");
    // From the last, so that no replacement is replaced.
    for (seq, order) in seqs.iter().rev() {
        words = words.replace(&format!("Seq({seq})"), &format!("Seq #{order}"));
    }
    let load = words.find("load: ").map(|at| (at, words[at..].find(',').unwrap() + at));
    if let Some((from, to)) = load {
        words.replace_range(from..to, "load");
    }
    // There were none then, and a client may do without.
    for (begins, ends, none) in [("tag: Some(", "})", "tag: None"), ("tags: [", "]", "tags: []")] {
        if let Some(from) = words.find(begins) {
            let to = words[from..].find(ends).unwrap() + from + ends.len();
            words.replace_range(from..to, none);
        }
    }
    words
}

/// The Seqs that are named in the answers of a session, by their order.
fn seqs(answers: &[Answer<'_>]) -> BTreeMap<u64, usize> {
    let words = format!("{answers:?}");
    let mut seqs: Vec<u64> =
        words.split("Seq(").skip(1).map(|rest| rest.split(')').next().unwrap().parse().unwrap()).collect();
    seqs.sort_unstable();
    seqs.dedup();
    seqs.into_iter().enumerate().map(|(order, seq)| (seq, order)).collect()
}

/// Whether `now` has every member that `then` had, of the same type.
fn lacks(then: &serde_json::Value, now: &serde_json::Value, path: &str) -> Option<String> {
    match (then, now) {
        (serde_json::Value::Object(then), serde_json::Value::Object(now)) => then.iter().find_map(|(name, value)| {
            let path = format!("{path}.{name}");
            now.get(name).map_or_else(|| Some(path.clone()), |now| lacks(value, now, &path))
        }),
        (serde_json::Value::Array(then), serde_json::Value::Array(now)) => match (then.first(), now.first()) {
            (Some(then), Some(now)) => lacks(then, now, path),
            _ => None,
        },
        _ => (std::mem::discriminant(then) != std::mem::discriminant(now)).then(|| path.to_owned()),
    }
}

#[test]
fn a_recorded_session_of_version_1_is_answered_as_it_was() {
    let lines = recorded(include_str!("../proto/golden/session-v1.txt"));
    for place in [Place::new(), Place::of_tasks()] {
        let daemon = place.serve();
        let waiting = std::thread::spawn(move || daemon.wait());
        let mut peer = Peer::silent(place.path());
        let mut answered: Vec<(String, u64, Vec<u8>, Vec<u8>)> = Vec::new();
        for (at, Line { step, from_client, bytes }) in lines.iter().enumerate() {
            match (at, from_client) {
                (_, true) => peer.send(bytes),
                (1, false) => {
                    let then = Hello::from_bytes(bytes.first_chunk::<HELLO_BYTES>().unwrap()).unwrap();
                    let now = peer.daemon_hello();
                    assert_eq!((now.client, now.lowest, now.boot), (then.client, 1, then.boot));
                    assert!(now.highest >= then.highest, "version 1 is still spoken");
                }
                (_, false) => {
                    let (header, body, _) = frame::split(bytes).unwrap().unwrap();
                    let reply = peer.next();
                    assert_eq!((reply.id, reply.kind), (header.id, header.kind), "{step}");
                    if header.kind == FrameKind::Event {
                        assert_eq!(codec::decode_event(&reply.body), codec::decode_event(body), "{step}");
                        assert_eq!(codec::decode_event(body), Ok(Event::Closing(Fault::Stopping)));
                    } else {
                        answered.push((step.clone(), reply.id, body.to_vec(), reply.body));
                    }
                }
            }
        }
        waiting.join().unwrap().unwrap();
        let then: Vec<_> = answered.iter().map(|(_, _, then, _)| codec::decode_answer(then).unwrap()).collect();
        let now: Vec<_> = answered.iter().map(|(_, _, _, now)| codec::decode_answer(now).unwrap()).collect();
        let (then_seqs, now_seqs) = (seqs(&then), seqs(&now));
        for ((step, ..), (then, now)) in answered.iter().zip(then.iter().zip(&now)) {
            if let (Answer::Status { json: then }, Answer::Status { json: now }) = (then, now) {
                let [then, now] = [then, now].map(|text| serde_json::from_str::<serde_json::Value>(text).unwrap());
                assert_eq!(lacks(&then, &now, "status"), None, "{step}");
                continue;
            }
            assert_eq!(told(now, &now_seqs), told(then, &then_seqs), "{step}");
        }
        assert!(answered.len() > 30, "{}", answered.len());
    }
}
