//! The exit codes that a real daemon gives only in misfortune: a made-up daemon answers every request with one fault, or
//! leaves, or speaks another version. And those of `lock`, which are its command's.

mod common;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::{Ran, Store, command, ran, wait_for};
use commonhold::proto::{Answer, Entry, Fault, Hello, Kind, Seq, StoreIdentity, codec, frame};

/// What the made-up daemon does with a request.
#[derive(Clone)]
enum Manner {
    /// Answers it so.
    Says(Fault),
    /// Closes the connection.
    Leaves,
    /// Answers it with one record, of which more are to follow, and then no more.
    Begins,
    /// Says in its hello that it speaks these versions alone.
    Speaks(u16),
}

/// Makes a store whose socket is served in `manner`, by a thread that ends with the test's process.
fn store_served(manner: Manner) -> Store {
    let store = Store::new();
    let private = store.dir().join(".commonhold");
    fs::DirBuilder::new().mode(0o700).create(&private).expect("created");
    let listener = UnixListener::bind(private.join("socket")).expect("bound");
    fs::set_permissions(private.join("socket"), fs::Permissions::from_mode(0o600)).expect("chmod");
    let found = fs::metadata(store.dir()).expect("there");
    let identity = StoreIdentity { device: found.dev(), inode: found.ino() };
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let manner = manner.clone();
            // A client that ends in the midst of it is what several of these tests are about.
            thread::spawn(move || drop(serve(stream, identity, &manner)));
        }
    });
    store
}

fn serve(mut stream: UnixStream, identity: StoreIdentity, manner: &Manner) -> std::io::Result<()> {
    let mut theirs = [0; 64];
    stream.read_exact(&mut theirs)?;
    let theirs = Hello::from_bytes(&theirs).expect("a client's hello");
    let mut own = Hello::of_daemon(theirs.client, identity, 0, 1);
    if let Manner::Speaks(version) = manner {
        (own.lowest, own.highest) = (*version, *version);
    }
    stream.write_all(&own.to_bytes())?;
    let mut received = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let read = stream.read(&mut chunk)?;
        received.extend_from_slice(&chunk[..read]);
        if read == 0 || matches!(manner, Manner::Leaves) {
            return Ok(());
        }
        while let Some((header, _, consumed)) = frame::split(&received).expect("a client's frame") {
            received.drain(..consumed);
            let mut answer = Vec::new();
            match manner {
                Manner::Says(fault) => codec::encode_answer(&mut answer, header.id, &Answer::Fault(fault.clone())),
                Manner::Begins => {
                    let entries = vec![Entry { key: "k", seq: Seq(1), value: Some("1") }];
                    codec::encode_part(&mut answer, header.id, &Answer::Records { entries, seq: Seq(1) })
                }
                Manner::Leaves | Manner::Speaks(_) => Ok(()),
            }
            .expect("fits");
            stream.write_all(&answer)?;
        }
    }
}

#[test]
fn each_fault_has_its_exit_code() {
    let words = || "the words".to_owned();
    let denied = std::io::Error::from_raw_os_error(rustix::io::Errno::ACCESS.raw_os_error()).to_string();
    let cases = [
        (2, Fault::InvalidNamespace { name: words() }),
        (2, Fault::InvalidJson { key: "k".to_owned(), offset: 0, reason: words() }),
        (4, Fault::TooLarge { what: words(), got: 2, limit: 1 }),
        (4, Fault::ConditionFailed { operation: 0, found: Some(Seq(7)) }),
        (4, Fault::NameClash { namespace: words(), existing: "X".to_owned() }),
        (4, Fault::Forbidden { uid: 1, owner: 2 }),
        (5, Fault::NeedsRepair { place: "n".to_owned(), file: "f".to_owned(), reason: words() }),
        (6, Fault::OutcomeUnknown { reason: words() }),
        (7, Fault::Full { path: words() }),
        (4, Fault::DiskError { action: "open".to_owned(), path: "p".to_owned(), reason: denied }),
        (7, Fault::DiskError { action: "write".to_owned(), path: "p".to_owned(), reason: words() }),
        (7, Fault::Unavailable { reason: words() }),
        (7, Fault::FlushFailed { places: vec!["n".to_owned()], reason: words() }),
        (7, Fault::Stopping),
        (1, Fault::NoSuchSession { id: 7 }),
        (2, Fault::InvalidWorkspace { name: words() }),
        (4, Fault::KindMismatch { place: "n".to_owned(), kind: Kind::Volatile }),
        (4, Fault::Volatile { place: "n".to_owned(), what: "flushed".to_owned() }),
        (4, Fault::MixedKinds),
        (4, Fault::WrongType { operation: 0, key: "k".to_owned(), field: None, needed: words(), found: words() }),
        (4, Fault::Overflow { operation: 0, key: "k".to_owned(), field: "f".to_owned() }),
        (4, Fault::MemoryFull { used: 9, limit: 8, needed: 1 }),
        (4, Fault::SnapshotExpired),
        (4, Fault::CursorExpired),
        (4, Fault::SessionEnded),
        (4, Fault::Flooded { what: words(), got: 2, limit: 1 }),
        (2, Fault::Invalid { what: words(), rule: words() }),
        (4, Fault::WouldWait { what: words(), held_by: words() }),
        (4, Fault::AlreadyHeld { key: "k".to_owned(), token: 7 }),
        (4, Fault::Deadlock { cycle: Vec::new() }),
        (4, Fault::NotHeld { what: words() }),
        (4, Fault::TokenNotLive { token: 7 }),
        (4, Fault::LimitMismatch { group: "g".to_owned(), limit: 2, asked: 3 }),
        (4, Fault::Gone { oldest: Seq(7) }),
        (4, Fault::Rewound { to: Seq(7) }),
        (4, Fault::NotYet { asked: Seq(7), latest: Seq(6) }),
        (7, Fault::Unsupported { what: words(), tag: 99 }),
        (7, Fault::Cancelled),
        (8, Fault::Loading { place: "n".to_owned(), done_bytes: 1, total_bytes: 2 }),
        (8, Fault::TimedOut { waited_ms: 5, waiting_for: words() }),
        (8, Fault::FlushLockTimeout { place: "n".to_owned(), lock_file: words(), waited_ms: 5 }),
    ];
    for (code, fault) in cases {
        let store = store_served(Manner::Says(fault.clone()));
        let put = store.run(&["put", "n", "k", "1"]);
        // A condition of the one `put` is told in the command's words: which record, and what is there.
        let words = match fault {
            Fault::ConditionFailed { .. } => "n \"k\" has a record, written by seq 7".to_owned(),
            Fault::WrongType { .. } => "n \"k\": the value must be the words, but the words".to_owned(),
            Fault::Overflow { .. } => {
                "n \"k\": field \"f\" holds, or would come to, an integer beyond 64 bits".to_owned()
            }
            fault => fault.to_string(),
        };
        put.refused(code, &[&words]);
        let json = store.run(&["--json", "put", "n", "k", "1"]);
        let error: serde_json::Value = serde_json::from_str(&json.stderr).expect("JSON");
        assert_eq!(error["error"]["exit"], code, "{json:?}");
        assert_eq!(put.stdout, "", "{put:?}");
    }
}

/// Runs a command that asks again, and gives up, within a second.
fn soon(store: &Store, arguments: &[&str], input: &[u8]) -> Ran {
    let mut command = command(store.dir());
    command.args(arguments).env("COMMONHOLD_TIMEOUT", "1s");
    ran(command, input)
}

#[test]
fn a_time_that_is_none_is_refused() {
    let store = store_served(Manner::Leaves);
    let mut get = command(store.dir());
    get.args(["get", "n", "k"]).env("COMMONHOLD_TIMEOUT", "soon");
    ran(get, b"").refused(2, &["COMMONHOLD_TIMEOUT"]);
}

#[test]
fn a_daemon_that_leaves_in_a_write_leaves_its_outcome_unknown() {
    let store = store_served(Manner::Leaves);
    soon(&store, &["put", "n", "k", "1"], b"").refused(6, &["unknown", "once or not at all"]);
}

#[test]
fn a_daemon_that_leaves_in_an_import_leaves_the_outcome_of_its_request_unknown() {
    let store = store_served(Manner::Leaves);
    let import = soon(&store, &["import", "n", "-"], b"{\"a\": 1, \"b\": 2}");
    import.refused(
        6,
        &["this concerns 2 records, the first at standard input, line 1, column 2", "0 records before that"],
    );
}

#[test]
fn another_protocol_version_is_told_and_ends_with_7() {
    let store = store_served(Manner::Speaks(99));
    store.run(&["get", "n", "k"]).refused(7, &["99", "version"]);
}

#[test]
fn a_daemon_of_another_directory_is_not_taken_for_this_ones() {
    let fault = Fault::OtherStore { device: 1, inode: 2 };
    let store = store_served(Manner::Says(fault));
    store.run(&["get", "n", "k"]).refused(3, &["commonhold serve"]);
}

#[test]
#[cfg(target_os = "linux")]
fn an_export_that_a_signal_ends_leaves_the_file_as_it_was_and_nothing_beside_it() {
    use rustix::process::{Pid, Signal, kill_process};
    use std::os::unix::process::ExitStatusExt as _;
    // Whoever starts the tests in the background, or with `nohup`, has all that they start ignore some signals.
    let status = fs::read_to_string("/proc/self/status").expect("Linux tells");
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).expect("a line of it");
    let ignored = u64::from_str_radix(ignored.trim(), 16).expect("a mask");
    let is_heard = |signal: &Signal| ignored & 1 << (signal.as_raw() - 1) == 0;
    let signals = [Signal::TERM, Signal::INT, Signal::HUP, Signal::KILL].into_iter().filter(is_heard);
    assert!(signals.clone().count() >= 2, "SIGTERM and SIGKILL are heard");
    for signal in signals {
        let store = store_served(Manner::Begins);
        let target = store.beside("out.json");
        fs::write(&target, "old").expect("written");
        let names = || {
            let list = fs::read_dir(store.beside("")).expect("lists");
            list.map(|entry| entry.expect("listed").file_name()).collect::<std::collections::BTreeSet<_>>()
        };
        let before = names();
        let mut export = common::command(store.dir());
        let mut export = export.arg("export").arg("n").arg(&target).spawn().expect("the binary runs");
        let open_files = format!("/proc/{}/fd", export.id());
        let has_begun = || {
            let files =
                fs::read_dir(&open_files).expect("it runs").filter_map(|entry| entry.ok()?.path().read_link().ok());
            files.filter(|file| file.starts_with(store.beside("")) && !file.starts_with(store.dir())).count() > 0
        };
        common::wait_for("the export to have begun its file", || has_begun().then_some(()));
        kill_process(Pid::from_raw(export.id().cast_signed()).expect("a process id"), signal).expect("signalled");
        let ended = export.wait().expect("a child of ours");
        assert_eq!(ended.signal(), Some(signal.as_raw()), "{ended}");
        assert_eq!(names(), before, "{signal:?}");
        assert_eq!(fs::read_to_string(&target).expect("there"), "old");
    }
}

/// Starts `lock` with these arguments, and does not wait for it.
fn lock(store: &Store, arguments: &[&str]) -> Child {
    let mut command = command(store.dir());
    command.arg("lock").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the binary runs")
}

/// How many have the key, and how many wait for it.
fn parties(store: &Store, key: &str) -> (usize, usize) {
    let listed = store.ok(&["--json", "locks"]);
    let locks = listed.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    let count = |lock: &serde_json::Value, who: &str| lock[who].as_array().expect("a list").len();
    let found = locks.into_iter().find(|lock| lock["key"] == key);
    found.map_or((0, 0), |lock| (count(&lock, "holders"), count(&lock, "waiters")))
}

fn until(store: &Store, key: &str, wanted: (usize, usize)) {
    wait_for("the lock to be held and waited for", || (parties(store, key) == wanted).then_some(()));
}

#[test]
fn lock_ends_as_its_command_does_and_before_that_with_codes_of_its_own() {
    let store = Store::new();
    store.run(&["lock", "a", "--", "true"]).refused(125, &["no daemon serves", "true was not run"]);
    let _daemon = store.serve();
    for code in [0, 1, 8, 124, 255] {
        let script = format!("test -n \"$COMMONHOLD_TOKEN\" && exit {code}");
        assert_eq!(store.run(&["lock", "a", "--", "sh", "-c", &script]).code, code);
    }
    assert_eq!(store.run_with(&["lock", "a", "b", "--", "cat"], b"as it is").stdout, "as it is");
    assert_eq!(store.run(&["lock", "a", "--", "sh", "-c", "kill -9 $$"]).code, -1);
    store.run(&["lock", "a", "--", "./no-such-program"]).refused(127, &["cannot be run", "the lock was given back"]);
    let plain = store.beside("plain");
    fs::write(&plain, "text").expect("written");
    let plain = plain.to_str().expect("UTF-8");
    store.run(&["lock", "a", "--", plain]).refused(126, &["cannot be run", "the lock was given back"]);
    store.run(&["lock", "", "--", "true"]).refused(125, &["true was not run"]);
    store.run(&["lock", "a", "true"]).refused(2, &["COMMAND"]);
    assert_eq!(parties(&store, "a"), (0, 0));
}

#[test]
fn lock_lives_as_long_as_its_command_whatever_ends_it_and_whoever_inherits_the_connection() {
    let store = Store::new();
    let _daemon = store.serve();
    // The command goes on in the background with all that it has inherited; the lock ends with the command.
    let mut holder = lock(&store, &["a", "--", "sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!; read line; exit 3"]);
    let mut left = String::new();
    BufReader::new(holder.stdout.as_mut().expect("piped")).read_line(&mut left).expect("a number");
    until(&store, "a", (1, 0));
    store.run(&["lock", "a", "--timeout", "0s", "--", "true"]).refused(124, &["true was not run"]);
    store.run(&["lock", "a", "--timeout", "50ms", "--", "true"]).refused(124, &["true was not run"]);
    store.run(&["--json", "lock", "a", "--timeout", "0s", "--", "true"]).refused(124, &["lock_timed_out"]);
    // Who waits and is told to end is not waited for.
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::KILL] {
        let mut waiter = lock(&store, &["a", "--", "true"]);
        until(&store, "a", (1, 1));
        let pid = rustix::process::Pid::from_raw(i32::try_from(waiter.id()).expect("small")).expect("not zero");
        rustix::process::kill_process(pid, signal).expect("it lives");
        assert_eq!(waiter.wait().expect("it ends").code(), None);
        until(&store, "a", (1, 0));
    }
    let listed = store.ok(&["locks"]);
    assert!(listed.contains("has it") && listed.contains(&holder.id().to_string()), "{listed}");
    let mut heir = lock(&store, &["a", "--", "true"]);
    until(&store, "a", (1, 1));
    drop(holder.stdin.take());
    assert_eq!(holder.wait().expect("it ends").code(), Some(3));
    assert_eq!(heir.wait().expect("it ends").code(), Some(0));
    let left = rustix::process::Pid::from_raw(left.trim().parse().expect("a number")).expect("not zero");
    rustix::process::kill_process(left, rustix::process::Signal::KILL).expect("it was still there");
    // Killed outright.
    let mut holder = lock(&store, &["a", "--shared", "--", "sleep", "60"]);
    until(&store, "a", (1, 0));
    assert_eq!(store.run(&["lock", "a", "--shared", "--timeout", "10s", "--", "true"]).code, 0);
    holder.kill().expect("it lives");
    assert_eq!(store.run(&["lock", "a", "--timeout", "10s", "--", "true"]).code, 0);
    holder.wait().expect("it has ended");
}

fn send(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).expect("not zero");
    rustix::process::kill_process(pid, signal).expect("it lives");
}

#[test]
fn a_locked_key_is_the_stores_whatever_the_workspace() {
    let store = Store::new();
    let _daemon = store.serve();
    let mut holder = lock(&store, &["k", "--workspace", "tenant_a", "--", "cat"]);
    until(&store, "k", (1, 0));
    let other = ["--workspace", "tenant_b", "lock", "k", "--timeout", "0s", "--", "true"];
    store.run(&other).refused(124, &["true was not run"]);
    let listed = store.ok(&["--workspace", "tenant_b", "locks"]);
    assert!(listed.contains("has it"), "{listed}");
    drop(holder.stdin.take());
    assert!(holder.wait().expect("it ends").success());
}

#[test]
fn lock_waits_no_longer_than_it_was_told_whatever_becomes_of_the_daemon() {
    use rustix::process::Signal;
    let store = Store::new();
    let daemon = store.serve();
    let mut holder = lock(&store, &["k", "--", "sleep", "60"]);
    until(&store, "k", (1, 0));
    // It says nothing any more to who waits already, and to who comes.
    let waiter = lock(&store, &["k", "--timeout", "2s", "--", "echo", "got"]);
    until(&store, "k", (1, 1));
    send(daemon.pid(), Signal::STOP);
    let began = Instant::now();
    let late = lock(&store, &["k", "--timeout", "300ms", "--", "echo", "got"]);
    let at_once = lock(&store, &["k", "--timeout", "0s", "--", "echo", "got"]);
    let in_vain = |child: Child| {
        let ended = child.wait_with_output().expect("it ends");
        let said = String::from_utf8(ended.stderr).expect("UTF-8");
        assert!(said.contains("timed out after") && said.contains("echo was not run"), "{said}");
        assert_eq!((ended.status.code(), ended.stdout.as_slice()), (Some(124), &b""[..]), "{said}");
        said
    };
    for child in [waiter, late, at_once] {
        in_vain(child);
    }
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    send(daemon.pid(), Signal::CONT);
    until(&store, "k", (1, 0));
    // It is gone when the time is up, and another one would give the lock: it is not asked.
    let waiter = lock(&store, &["k", "--timeout", "1s", "--", "echo", "got"]);
    until(&store, "k", (1, 1));
    let began = Instant::now();
    daemon.kill();
    let said = in_vain(waiter);
    assert!(said.contains("a daemon to connect to") && began.elapsed() < Duration::from_secs(4), "{said}");
    let _daemon = store.serve();
    assert_eq!(parties(&store, "k"), (0, 0));
    holder.kill().expect("it lives");
    holder.wait().expect("it has ended");
}

#[test]
fn a_lock_under_another_knows_its_token_and_is_refused_what_would_never_end() {
    let (store, other) = (Store::new(), Store::new());
    let (_daemon, _other) = (store.serve(), other.serve());
    let binary = common::BINARY;
    let sh = |script: &str| {
        let mut command = command(store.dir());
        command.env("COMMONHOLD_STORE", store.dir()).args(["lock", "a", "--", "sh", "-c", script]);
        command
    };
    for timeout in ["", "--timeout 0s", "--timeout 20s"] {
        for shared in ["", "--shared"] {
            let again = sh(&format!("exec {binary} lock c a {timeout} {shared} -- true"));
            ran(again, b"").refused(125, &["\"a\" is locked already", "that this one runs under", "true was not run"]);
        }
    }
    // All of them, outermost first, and the innermost one for writes.
    let inner =
        format!("{binary} put n k 1 --if-token $COMMONHOLD_TOKEN >&2 && echo $COMMONHOLD_TOKEN $COMMONHOLD_TOKENS");
    let told = ran(sh(&format!("echo $COMMONHOLD_TOKEN; exec {binary} lock b c -- sh -c '{inner}'")), b"");
    assert_eq!(told.code, 0, "{told:?}");
    let words: Vec<&str> = told.stdout.split_whitespace().collect();
    let [outer, own, first, second] = words[..] else { panic!("{told:?}") };
    assert!(outer.parse::<u64>().unwrap() < own.parse::<u64>().unwrap(), "{told:?}");
    let here = fs::metadata(store.dir()).expect("there");
    let (device, inode) = (here.dev(), here.ino());
    assert_eq!((first, second), (&*format!("{device}:{inode}:{outer}"), &*format!("{device}:{inode}:{own}")));
    // Locks that have ended, and those of another store, stand in nobody's way; and they are told of no longer, or still.
    let elsewhere = "1:2:9";
    let mut command = common::command(store.dir());
    command.env("COMMONHOLD_TOKENS", format!("{first} {elsewhere}")).args(["lock", "a", "--timeout", "20s"]);
    command.args(["--", "sh", "-c", "echo $COMMONHOLD_TOKENS"]);
    let told = ran(command, b"");
    assert!(told.code == 0 && told.stdout.starts_with(&format!("{elsewhere} {device}:{inode}:")), "{told:?}");
    let mut command = common::command(store.dir());
    command.env("COMMONHOLD_TOKENS", "seven").args(["lock", "a", "--", "true"]);
    ran(command, b"").refused(125, &["COMMONHOLD_TOKENS has \"seven\"", "unset it", "true was not run"]);
    // The same key of another store is another key.
    let there = other.dir().to_str().expect("UTF-8");
    assert_eq!(ran(sh(&format!("COMMONHOLD_STORE={there} exec {binary} lock a --timeout 20s -- true")), b"").code, 0);
}

#[test]
fn commands_that_nest_two_keys_in_different_order_do_not_wait_for_each_other() {
    let store = Store::new();
    let _daemon = store.serve();
    let binary = common::BINARY;
    let nested = |outer: &str, inner: &str| {
        let script = format!("read line; {binary} lock {inner} -- true");
        let mut command = command(store.dir());
        command.env("COMMONHOLD_STORE", store.dir()).args(["lock", outer, "--", "sh", "-c", &script]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs")
    };
    let (mut first, mut second) = (nested("a", "b"), nested("b", "a"));
    for key in ["a", "b"] {
        until(&store, key, (1, 0));
    }
    drop(first.stdin.take());
    until(&store, "b", (1, 1));
    drop(second.stdin.take());
    // The one that would close the cycle is refused, and what it held lets the other one go on.
    let second = second.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(125), "{said}");
    assert!(said.contains("would never end") && said.contains("true was not run"), "{said}");
    assert_eq!(first.wait().expect("it ends").code(), Some(0));
}

#[test]
fn a_token_lets_writes_through_while_its_lock_is_held_and_what_is_held_is_listed() {
    let store = Store::new();
    let _daemon = store.serve();
    let binary = common::BINARY;
    let writes = format!(
        "{binary} put n a 1 --if-token $COMMONHOLD_TOKEN && {binary} increment n b x 1 --if-token $COMMONHOLD_TOKEN && \
         {binary} del n a --if-token $COMMONHOLD_TOKEN && echo $COMMONHOLD_TOKEN"
    );
    let mut command = command(store.dir());
    command.env("COMMONHOLD_STORE", store.dir()).args(["lock", "k", "--", "sh", "-c", &writes]);
    let written = ran(command, b"");
    assert_eq!(written.code, 0, "{written:?}");
    let token = written.stdout.trim();
    for write in [&["put", "n", "a", "1"][..], &["del", "n", "b"]] {
        store.run(&[write, &["--if-token", token]].concat()).refused(4, &["is not held any more"]);
    }
    assert_eq!(store.ok(&["scan", "n"]), "{\"key\":\"b\",\"value\":{\"x\":1}}\n");

    let client = commonhold::blocking::Client::connect(store.dir()).expect("it serves");
    let _slot = client.slots("llm", 4).acquire(3).expect("free");
    let _flag = client.namespace("n").and_then(|n| n.update_flag()).expect("a flag");
    let _lock = client.lock(["k"]).acquire().expect("free");
    let pid = std::process::id();
    for (listing, words) in [("slots", "3 of 4"), ("flags", "cleared"), ("locks", "has it")] {
        let listed = store.ok(&[listing]);
        assert!(listed.contains(words) && listed.contains(&pid.to_string()), "{listing}: {listed}");
        let json: serde_json::Value = serde_json::from_str(&store.ok(&["--json", listing])).expect("a line of JSON");
        let who = if listing == "flags" { &json["sessions"] } else { &json["holders"] };
        assert_eq!(who[0]["pid"], pid, "{json}");
    }
}
