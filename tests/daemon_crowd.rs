//! The real daemon as a process of its own, with thousands of clients, with other users, and with clients of earlier
//! releases.
#![cfg(feature = "daemon")]

mod daemon_support;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use commonhold::ipc::{SocketName, Stream};
use commonhold::proto::frame::FrameKind;
use commonhold::proto::hello::{HELLO_BYTES, Hello};
use commonhold::proto::{Answer, Event, Fault, StoreIdentity, Verb, codec, frame};
use daemon_support::{PATIENCE, Peer, Place, eventually, frame_of, get, put};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

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
