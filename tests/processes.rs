//! What concerns whole processes: a client in a process that forks, and processes that open a store at once. Threads of
//! a test harness cannot fork safely, and are no processes; so this file is a program of its own, which runs itself.
//!
//! There is unsafe code here: `fork` itself, and the child's end by `_exit`.

#![allow(missing_docs, reason = "a test")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use commonhold::blocking::{Batch, Client, Error, Namespace, OpenOptions};
use commonhold::testing::TestStoreOptions;

const BINARY: &str = env!("CARGO_BIN_EXE_commonhold");

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_mins(1);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [word, dir, name] = &arguments[..]
        && word == "--as-opener"
    {
        return open(Path::new(dir), name);
    }
    if let [word, dir] = &arguments[..]
        && word == "--as-starved"
    {
        return open_starved(Path::new(dir));
    }
    if let [word, dir, key] = &arguments[..]
        && word == "--as-holder"
    {
        return hold(Path::new(dir), key);
    }
    let tests: [(&str, fn()); 10] = [
        ("guards_dropped_in_a_forked_child_release_nothing", guards_dropped_in_a_forked_child_release_nothing),
        (
            "a_killed_holder_frees_its_lock_and_a_killed_waiter_its_place",
            a_killed_holder_frees_its_lock_and_a_killed_waiter_its_place,
        ),
        ("parent_and_child_use_one_client_at_once_after_a_fork", parent_and_child_use_one_client_at_once_after_a_fork),
        ("a_forked_child_can_fork_again", a_forked_child_can_fork_again),
        ("what_a_parent_has_gathered_is_the_parents", what_a_parent_has_gathered_is_the_parents),
        (
            "a_forked_child_keeps_values_of_its_own_and_none_that_are_old",
            a_forked_child_keeps_values_of_its_own_and_none_that_are_old,
        ),
        (
            "a_child_that_drops_its_copy_of_a_test_store_leaves_the_parents_alone",
            a_child_that_drops_its_copy_of_a_test_store_leaves_the_parents_alone,
        ),
        (
            "a_child_that_ends_a_runtime_leaves_the_parents_async_client_alone",
            a_child_that_ends_a_runtime_leaves_the_parents_async_client_alone,
        ),
        ("an_open_without_a_thread_to_spare_is_an_error", an_open_without_a_thread_to_spare_is_an_error),
        ("ten_processes_that_open_at_once_start_one_daemon", ten_processes_that_open_at_once_start_one_daemon),
    ];
    // As a harness does: words select tests by their names.
    let wanted = |name: &str| {
        let words: Vec<_> = arguments.iter().filter(|word| !word.starts_with('-')).collect();
        words.is_empty() || words.iter().any(|word| name.contains(*word))
    };
    for (name, test) in tests {
        if wanted(name) {
            test();
            println!("test {name} ... ok");
        }
    }
}

/// Runs `body` in a child that `fork` makes; answers the child's process id.
fn in_child(body: impl FnOnce()) -> libc::pid_t {
    // SAFETY: the child calls nothing but the client, the allocator (which glibc and macOS keep usable after a fork, with
    // handlers of their own) and `_exit`; it takes no lock that a thread of the parent can hold: that the client keeps to
    // this is what these tests are about.
    #[expect(unsafe_code, reason = "fork is what is tested")]
    match unsafe { libc::fork() } {
        -1 => panic!("fork failed: {}", std::io::Error::last_os_error()),
        0 => {
            let code = i32::from(catch_unwind(AssertUnwindSafe(body)).is_err());
            // SAFETY: it ends the process without running anything of the parent's, such as its destructors.
            unsafe { libc::_exit(code) }
        }
        child => child,
    }
}

/// Waits for a child that must end well.
fn join(child: libc::pid_t) {
    let deadline = Instant::now() + PATIENCE;
    let child = rustix::process::Pid::from_raw(child).expect("a child has a number");
    loop {
        let options = rustix::process::WaitOptions::NOHANG;
        if let Some((_, status)) = rustix::process::waitpid(Some(child), options).expect("it is a child") {
            assert_eq!(status.exit_status(), Some(0), "the child failed: {status:?}");
            return;
        }
        assert!(Instant::now() < deadline, "the child does not end: it waits for something of the parent's");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Writes and reads `rounds` keys of its own, and finds what it wrote.
fn work(namespace: &Namespace, who: &str, rounds: u32) {
    for round in 0..rounds / 2 {
        let key = format!("{who}-{}", round % 100);
        namespace.put(&key, &round).expect("a put");
        assert_eq!(namespace.get::<u32>(&key).expect("a get"), Some(round), "{key}");
    }
}

fn parent_and_child_use_one_client_at_once_after_a_fork() {
    const ROUNDS: u32 = 10_000;
    let store = TestStoreOptions::new().binary(BINARY).start().expect("a store");
    let client = store.client().expect("a client");
    let namespace = client.namespace("n").expect("a name");
    namespace.upsert((0..1_000).map(|n| (format!("old-{n}"), "x".repeat(4_000)))).expect("records");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        // So that locks are held, and the socket is being read, at the moment of the fork.
        for thread in 0..2 {
            let (namespace, stop) = (namespace.clone(), &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    work(&namespace, &format!("thread-{thread}"), 100);
                }
            });
        }
        for fork in 0..3 {
            let rounds = if fork == 0 { ROUNDS } else { 100 };
            let mut pending = Some(namespace.put_later("pending", &fork).expect("a put"));
            let mut all = namespace.get_all();
            all.next().expect("a record").expect("of the daemon");
            let stream = &mut all;
            let child = in_child(|| {
                work(&namespace, &format!("child-{fork}"), rounds);
                assert!(matches!(pending.take().map(commonhold::blocking::Pending::wait), Some(Err(Error::Forked))));
                // What had arrived before the fork may be given; nothing is read from the parent's socket.
                assert!(matches!(stream.last(), Some(Err(Error::Forked))), "the stream is the parent's");
                drop(client.clone());
            });
            work(&namespace, &format!("parent-{fork}"), rounds);
            join(child);
            let rest: Vec<_> = all.collect::<Result<_, _>>().expect("the child took nothing of the stream");
            assert!(rest.len() >= 999, "{}", rest.len());
            pending.take().expect("it is the parent's").wait().expect("the child took nothing of it");
            for (who, last) in [("parent", rounds / 2), ("child", rounds / 2)] {
                let key = format!("{who}-{fork}-{}", (last - 1) % 100);
                assert_eq!(namespace.get::<u32>(&key).expect("a get"), Some(last - 1), "{key}");
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(client.restarts(), 0);
}

fn a_forked_child_can_fork_again() {
    let store = TestStoreOptions::new().binary(BINARY).start().expect("a store");
    let client = store.client().expect("a client");
    let namespace = client.namespace("n").expect("a name");
    let child = in_child(|| {
        work(&namespace, "child", 100);
        let grandchild = in_child(|| work(&namespace, "grandchild", 100));
        work(&namespace, "child", 100);
        join(grandchild);
    });
    work(&namespace, "parent", 100);
    join(child);
    assert_eq!(namespace.len().expect("a number"), 150);
}

fn what_a_parent_has_gathered_is_the_parents() {
    let store = TestStoreOptions::new().binary(BINARY).start().expect("a store");
    let client = store.client().expect("a client");
    let namespace = client.namespace("n").expect("a name");
    let increment = Batch::new().increment(&namespace, "count", "n", 1).expect("a batch");
    let mut pipeline = Some(client.pipeline());
    let mut gathered: Option<Vec<_>> = Some((0..3).map(|_| client.begin(&increment).expect("begun")).collect());
    let child = in_child(|| {
        let pipeline = pipeline.take().expect("the parent's");
        assert!(matches!(pipeline.send(), Err(Error::Forked)));
        for increment in gathered.take().expect("the parent's") {
            assert!(matches!(increment.wait(), Err(Error::Forked)));
        }
        drop(pipeline);
        work(&namespace, "child", 100);
        let own = client.pipeline();
        let put = namespace.put_later("of-the-child", &1).expect("a put");
        own.send().expect("it is the child's");
        put.wait().expect("a put");
    });
    join(child);
    assert_eq!(namespace.get::<u32>("of-the-child").expect("a get"), Some(1));
    for increment in gathered.take().expect("the child took its own copy") {
        increment.wait().expect("it is the parent's");
    }
    drop(pipeline);
    let count = namespace.get::<std::collections::HashMap<String, u32>>("count").expect("a get");
    assert_eq!(count.expect("it is there")["n"], 3, "each once");
}

fn a_forked_child_keeps_values_of_its_own_and_none_that_are_old() {
    let store = TestStoreOptions::new().binary(BINARY).start().expect("a store");
    let client = store.client().expect("a client");
    let namespace = client.namespace("n").expect("a name");
    let read = || namespace.get::<u32>("k").expect("a get");
    // The second time from what the client keeps, where there can be such a thing.
    let read_twice = || (read(), read());
    namespace.put("k", &1).expect("a put");
    assert_eq!(read_twice(), (Some(1), Some(1)));
    let warm = client.cache_stats();
    assert_eq!((warm.hits, warm.entries), if warm.on { (1, 1) } else { (0, 0) }, "{warm:?}");
    let (mut from_child, mut to_parent) = std::io::pipe().expect("a pipe");
    let (mut from_parent, mut to_child) = std::io::pipe().expect("a pipe");
    let child = in_child(|| {
        assert_eq!(client.cache_stats().entries, 0, "what the parent has kept is the parent's");
        assert_eq!(read_twice(), (Some(1), Some(1)));
        assert_eq!(client.cache_stats().hits, u64::from(warm.on), "it keeps values, too");
        to_parent.write_all(b"r").expect("the parent listens");
        from_parent.read_exact(&mut [0]).expect("the parent says when");
        assert_eq!(read_twice(), (Some(2), Some(2)), "the parent has written");
        namespace.put("k", &3).expect("a put");
    });
    // A child that fails is heard of, too.
    drop((to_parent, from_parent));
    from_child.read_exact(&mut [0]).expect("the child has read");
    assert_eq!(read_twice(), (Some(1), Some(1)));
    namespace.put("k", &2).expect("a put");
    to_child.write_all(b"w").expect("the child listens");
    join(child);
    assert_eq!(read_twice(), (Some(3), Some(3)), "the child has written");
    assert!(!warm.on || client.cache_stats().hits > warm.hits);
}

fn a_child_that_drops_its_copy_of_a_test_store_leaves_the_parents_alone() {
    let mut store = Some(TestStoreOptions::new().binary(BINARY).start().expect("a store"));
    let (pid, dir) = store.as_ref().map(|store| (store.pid(), store.dir().to_owned())).expect("there");
    join(in_child(|| drop(store.take())));
    let mut store = store.expect("the child took its own copy");
    assert_eq!(store.pid(), pid);
    store.client().expect("the daemon serves").namespace("n").expect("a name").put("k", &1).expect("a put");
    store.stop().expect("nobody else has ended it");
    assert!(store.file("n").exists());
    drop(store);
    assert!(!dir.exists());
}

fn a_child_that_ends_a_runtime_leaves_the_parents_async_client_alone() {
    let store = TestStoreOptions::new().binary(BINARY).start().expect("a store");
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut first = Some(runtime());
    let in_first = first.as_ref().expect("just made");
    let mut client = Some(in_first.block_on(commonhold::Client::connect(store.dir())).expect("a client"));
    let namespace = client.as_ref().expect("just made").namespace("n").expect("a name");
    in_first.block_on(namespace.put("k", &0)).expect("a put");
    let mut all = Some(namespace.get_all());
    in_first.block_on(all.as_mut().expect("just made").next()).expect("a record").expect("of the daemon");
    for round in 1..=5 {
        // With the runtime go the driver's task and its registration of the socket. Only so can a child end one: the
        // threads that tokio would wait for did not come along.
        join(in_child(|| {
            drop(all.take());
            first.take().map(tokio::runtime::Runtime::shutdown_background).expect("the child's own copy");
            drop(client.take());
        }));
        let runtime = first.as_ref().expect("the child ended its own copy");
        let written = runtime.block_on(async { tokio::time::timeout(PATIENCE, namespace.put("k", &round)).await });
        written.expect("the parent still hears the daemon").expect("a put");
    }
    assert_eq!(client.expect("the child dropped its own copy").restarts(), 0);
    drop(first);
}

fn guards_dropped_in_a_forked_child_release_nothing() {
    let store = TestStoreOptions::new().binary(BINARY).start().expect("a store");
    let (client, other) = (store.client().expect("a client"), store.client().expect("a client"));
    let mut guards =
        Some((client.lock(["a"]).acquire().expect("it is free"), client.lock(["b"]).acquire().expect("it is free")));
    let child = in_child(|| {
        let (dropped, released) = guards.take().expect("the child's own copies");
        drop(dropped);
        assert!(matches!(released.release(), Err(Error::Forked)));
        // The child is a session of its own.
        assert!(client.lock(["a"]).try_acquire().expect("an answer").is_none(), "the parent has it");
        client.lock(["c"]).acquire().expect("it is free").release().expect("it was held");
        drop(client.clone());
    });
    join(child);
    let guards = guards.expect("the child took its own copies");
    assert!(guards.0.is_held() && guards.1.is_held());
    assert!(other.lock(["a"]).try_acquire().expect("an answer").is_none());
    guards.0.release().expect("it is held");
    guards.1.release().expect("it is held");
    other.lock(["a", "b"]).acquire().expect("they are free").release().expect("they were held");
}

/// A process that locks a key, says so, and waits for its end. A child that it has forked goes on, with its socket.
fn hold(dir: &Path, key: &str) {
    let client = Client::connect(dir).expect("a daemon");
    let guard = client.lock([key]).acquire().expect("a lock");
    let child = in_child(|| thread::sleep(PATIENCE));
    println!("{} {child}", guard.token());
    thread::sleep(PATIENCE);
}

fn a_killed_holder_frees_its_lock_and_a_killed_waiter_its_place() {
    let store = TestStoreOptions::new().binary(BINARY).start().expect("a store");
    let client = store.client().expect("a client");
    let own = std::env::current_exe().expect("this program");
    let start = || {
        let mut command = Command::new(&own);
        command.arg("--as-holder").arg(store.dir()).arg("k").stdout(Stdio::piped());
        command.spawn().expect("a holder")
    };
    let waiters = |count: usize| {
        let deadline = Instant::now() + PATIENCE;
        while client.locks().expect("a list").first().map_or(0, |lock| lock.waiters.len()) != count {
            assert!(Instant::now() < deadline, "{count} never wait: {:?}", client.locks());
            thread::sleep(Duration::from_millis(2));
        }
    };
    let said = |holder: &mut Child| {
        let mut line = String::new();
        BufReader::new(holder.stdout.take().expect("piped")).read_line(&mut line).expect("text");
        let (token, child) = line.trim().split_once(' ').expect("two numbers");
        (token.parse::<u64>().expect("a token"), child.parse::<i32>().expect("a number"))
    };
    let mut holder = start();
    let (mut last, mut child) = said(&mut holder);
    for _ in 0..5 {
        let mut dies_waiting = start();
        waiters(1);
        let mut heir = start();
        waiters(2);
        dies_waiting.kill().and_then(|()| dies_waiting.wait()).expect("it dies");
        waiters(1);
        // Its child goes on, and has the socket.
        holder.kill().and_then(|()| holder.wait()).expect("it dies");
        let began = Instant::now();
        let (token, next_child) = said(&mut heir);
        assert!(began.elapsed() < PATIENCE / 2, "it had to wait for the child");
        assert!(token > last);
        let pid = rustix::process::Pid::from_raw(child).expect("a child has a number");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("the child lives");
        (holder, last, child) = (heir, token, next_child);
    }
    holder.kill().and_then(|()| holder.wait()).expect("it dies");
    let pid = rustix::process::Pid::from_raw(child).expect("a child has a number");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("the child lives");
    client.lock(["k"]).acquire().expect("it is free").release().expect("it was held");
}

/// The bytes of address space that this process has.
fn address_space() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells");
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).expect("its size");
    size.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

/// A process into whose address space no stack of another thread fits.
fn open_starved(dir: &Path) {
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::As);
    limit.current = Some(address_space() + (3 << 19));
    rustix::process::setrlimit(rustix::process::Resource::As, limit).expect("a process may have less");
    let opened = Client::open_with(dir, OpenOptions::new().binary(BINARY)).map(|_| "a daemon");
    let error = opened.expect_err("no thread can be had");
    assert!(matches!(error, Error::NotStarted { .. }), "{error}");
    assert!(error.to_string().contains("no thread can be had"), "{error}");
}

fn an_open_without_a_thread_to_spare_is_an_error() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    // In a process that never had another thread: the stacks of old ones are kept for new ones.
    let own = std::env::current_exe().expect("this program");
    let starved = Command::new(own).arg("--as-starved").arg(dir.path()).status().expect("it runs");
    assert!(starved.success(), "{starved}");
    assert!(!dir.path().join(".commonhold").exists(), "nothing was started");
}

/// One of the ten: opens the store when it is told to, and says whose daemon answered.
fn open(dir: &Path, name: &str) {
    println!("there");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("the word to begin");
    let client = Client::open_with(dir, OpenOptions::new().binary(BINARY)).expect("it opens");
    client.namespace("n").expect("a name").put(name, &1).expect("a put");
    println!("{}", client.boot());
}

fn ten_processes_that_open_at_once_start_one_daemon() {
    let dir = tempfile::tempdir().expect("a directory");
    let marker = tempfile::NamedTempFile::new().expect("a file");
    // A copy of a descriptor is inherited by whatever is started from here.
    let leaked = rustix::io::dup(marker.as_file()).expect("a descriptor");
    let own = std::env::current_exe().expect("this program");
    let mut openers: Vec<Child> = (0..10)
        .map(|n| {
            let mut command = Command::new(&own);
            command.arg("--as-opener").arg(dir.path()).arg(format!("opener-{n}"));
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("an opener")
        })
        .collect();
    let mut said: Vec<_> =
        openers.iter_mut().map(|opener| BufReader::new(opener.stdout.take().expect("piped"))).collect();
    for said in &mut said {
        said.read_line(&mut String::new()).expect("it is there");
    }
    for opener in &mut openers {
        opener.stdin.take().expect("piped").write_all(b"go\n").expect("it listens");
    }
    let mut boots: Vec<String> = said
        .into_iter()
        .map(|mut said| {
            let mut boot = String::new();
            said.read_to_string(&mut boot).expect("text");
            boot
        })
        .collect();
    for mut opener in openers {
        assert!(opener.wait().expect("it ends").success());
    }
    boots.dedup();
    assert_eq!(boots.len(), 1, "one daemon answered them all");

    let client = Client::connect(dir.path()).expect("it outlives who started it");
    assert_eq!(client.namespace("n").expect("a name").len().expect("a number"), 10);
    let status: serde_json::Value = serde_json::from_str(&client.status().expect("a status")).expect("JSON");
    let pid = i32::try_from(status["pid"].as_u64().expect("its number")).expect("small");
    let daemon = rustix::process::Pid::from_raw(pid);
    assert_eq!(rustix::process::getsid(daemon).ok(), daemon, "it has a session of its own");
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors");
    let targets = descriptors.filter_map(|entry| std::fs::read_link(entry.expect("one").path()).ok());
    let targets: Vec<_> = targets.collect();
    assert!(!targets.iter().any(|target| target == marker.path()), "it inherited nothing: {targets:?}");
    assert!(targets.iter().any(|target| target.ends_with("daemon.log")), "it has its log: {targets:?}");
    let log = std::fs::read_to_string(dir.path().join(".commonhold/daemon.log")).expect("its log");
    assert!(!log.is_empty());
    client.stop().expect("it stops");
    drop(leaked);
}
