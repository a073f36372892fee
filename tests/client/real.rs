//! Against the real daemon: stores for tests, opening and what is said when that fails, bulk loads, and futures that are
//! dropped.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use commonhold::blocking::{BulkOptions, BulkProgress, Client, ConnectOptions, Error, Fault, OpenOptions, Seq};
use commonhold::testing::{TestStore, TestStoreOptions};

use crate::fake::FakeDaemon;

const BINARY: &str = env!("CARGO_BIN_EXE_commonhold");

fn store() -> TestStore {
    TestStoreOptions::new().binary(BINARY).start().unwrap()
}

/// Waits until something holds.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_test_store_survives_a_kill_and_is_gone_when_it_is_dropped() {
    let mut store = store();
    let (dir, pid) = (store.dir().to_owned(), store.pid().unwrap());
    let notes = store.client().unwrap().namespace("notes").unwrap();
    notes.put("n1", "remember").unwrap();
    store.kill();
    assert_eq!(store.pid(), None);
    store.restart().unwrap();
    assert_eq!(notes.get::<String>("n1").unwrap().as_deref(), Some("remember"));
    store.restart().unwrap();
    assert_eq!(fs::read_to_string(store.file("notes")).unwrap(), "{\n\"n1\":\"remember\"\n}\n");
    assert_ne!(store.pid(), Some(pid));
    assert!(!store.log().is_empty());
    let pid = store.pid().unwrap();
    drop(store);
    assert!(!dir.exists());
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    assert!(rustix::process::test_kill_process(pid).is_err(), "the daemon is gone, too");
}

#[test]
fn a_test_store_begins_as_a_copy_and_leaves_the_folder_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kv_store_docs.json");
    fs::write(&file, "{\"a\": {\"x\": 1}}").unwrap();
    fs::create_dir(folder.path().join("tenant")).unwrap();
    fs::write(folder.path().join("tenant/kv_store_docs.json"), "{\"b\": 2}").unwrap();
    let store = TestStoreOptions::new().binary(BINARY).folder(folder.path()).start().unwrap();
    let client = store.client().unwrap();
    let docs = client.namespace("docs").unwrap();
    assert_eq!(docs.get_raw("a").unwrap().unwrap().text(), "{\"x\":1}");
    assert_eq!(client.workspace("tenant").unwrap().namespace("docs").unwrap().get::<u8>("b").unwrap(), Some(2));
    docs.put("c", &3).unwrap();
    docs.flush().unwrap();
    assert_eq!(fs::read_to_string(file).unwrap(), "{\"a\": {\"x\": 1}}");
    assert!(!folder.path().join(".commonhold").exists());
}

#[test]
fn a_store_whose_program_is_missing_says_how_to_get_it() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("no-such-program");
    let error = Client::open_with(dir.path(), OpenOptions::new().binary(&missing)).unwrap_err();
    for word in [missing.to_str().unwrap(), "does not exist", "cargo install commonhold", "COMMONHOLD_BIN"] {
        assert!(error.to_string().contains(word), "{word:?} is not in {error}");
    }
    let error = TestStoreOptions::new().binary(&missing).start().unwrap_err();
    assert!(error.to_string().contains("cargo install commonhold"), "{error}");
}

/// A program in the place of the daemon's.
fn script(dir: &Path, text: &str) -> std::path::PathBuf {
    let path = dir.join("program");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    path
}

#[test]
fn a_daemon_that_dies_at_its_start_gives_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let error = Client::open_with(dir.path(), OpenOptions::new().binary(BINARY)).unwrap_err();
    assert!(matches!(error, Error::NotStarted { .. }), "{error}");
    assert!(error.to_string().contains("everybody may write into"), "{error}");
    let missing = dir.path().join("missing");
    let error = Client::open_with(&missing, OpenOptions::new().binary(BINARY)).unwrap_err();
    assert!(error.to_string().contains("there is no directory"), "{error}");

    let other = tempfile::tempdir().unwrap();
    let program = script(other.path(), "#!/bin/sh\nexit 9\n");
    let error = Client::open_with(other.path(), OpenOptions::new().binary(program)).unwrap_err();
    assert!(error.to_string().contains("did not say why"), "{error}");
}

#[test]
fn an_open_that_takes_too_long_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let program = script(dir.path(), "#!/bin/sh\nsleep 2\n");
    let options = OpenOptions::new().binary(program).start_within(Duration::from_millis(200));
    let error = Client::open_with(dir.path(), options).unwrap_err();
    assert!(error.to_string().contains("not become ready in time"), "{error}");
}

#[test]
fn an_open_waits_for_a_daemon_that_is_ending_and_starts_the_next_one() {
    // One that flushes at its end takes connections and says nothing.
    let ending = FakeDaemon::start();
    let dir = ending.dir().to_owned();
    fs::set_permissions(dir.join(".commonhold"), fs::Permissions::from_mode(0o700)).unwrap();
    let impatient = ConnectOptions::new().timeout(Some(Duration::from_millis(50)));
    let options = OpenOptions::new().binary(BINARY).connect_options(impatient);

    let error = Client::open_with(&dir, options.clone().start_within(Duration::from_millis(300))).unwrap_err();
    assert!(error.is_timeout(), "{error}");
    assert!(error.to_string().contains("ending with much to flush"), "{error}");

    let opening = std::thread::spawn({
        let (dir, options) = (dir.clone(), options.clone().idle_exit(Some(Duration::from_secs(5))));
        move || Client::open_with(dir, options)
    });
    std::thread::sleep(Duration::from_millis(300));
    assert!(!opening.is_finished(), "it waits");
    let kept = ending.die();
    let client = opening.join().unwrap().unwrap();
    client.namespace("n").unwrap().put("a", &1).unwrap();
    client.stop().unwrap();
    assert!(kept.path().join("kv_store_n.json").exists());
}

#[test]
fn an_opened_daemon_outlives_its_opener_and_ends_when_it_is_idle() {
    let dir = tempfile::tempdir().unwrap();
    let options = OpenOptions::new().binary(BINARY).idle_exit(Some(Duration::from_millis(200)));
    let client = Client::open_with(dir.path(), options.clone()).unwrap();
    client.namespace("n").unwrap().put("a", &1).unwrap();
    let second = Client::open_with(dir.path(), options.clone()).unwrap();
    assert_eq!(second.boot(), client.boot(), "one that runs is used");
    drop((client, second));
    eventually("the daemon ends", || !dir.path().join(".commonhold/socket").exists());
    assert_eq!(fs::read_to_string(dir.path().join("kv_store_n.json")).unwrap(), "{\n\"a\":1\n}\n");
    let again = Client::open_with(dir.path(), options).unwrap();
    assert_eq!(again.namespace("n").unwrap().get::<u8>("a").unwrap(), Some(1));
    again.stop().unwrap();
}

#[test]
fn a_bulk_load_stores_everything_and_says_how_far_it_is() {
    let store = store();
    let client = store.client().unwrap();
    let numbers = client.namespace("numbers").unwrap();
    let options = BulkOptions { request_records: 100, commit_every_records: 1_000, ..BulkOptions::default() };
    let mut load = numbers.bulk_writer_with(options);
    for n in 0..5_000_u64 {
        load.put(&format!("k{n}"), &n).unwrap();
        load.mark((n + 1) * 10);
    }
    assert!(load.committed().records >= 3_000, "{:?}", load.committed());
    assert_eq!(load.committed().mark, load.committed().records * 10);
    load.delete("k0").unwrap();
    let done = load.finish().unwrap();
    let BulkProgress { records, new, found, mark, seq, .. } = done;
    assert_eq!((records, new, found, mark), (5_001, 5_000, 1, 50_000));
    assert!(seq > Seq(0));
    assert_eq!(numbers.len().unwrap(), 4_999);
    let keys: Vec<_> = numbers.scan().keys_only().map(|entry| entry.unwrap().key).take(2).collect();
    assert_eq!(keys, ["k1", "k2"]);
}

#[test]
fn a_bulk_load_that_meets_a_bad_record_ends_and_what_it_tells_is_true() {
    let store = store();
    let numbers = store.client().unwrap().namespace("numbers").unwrap();
    let mut load = numbers.bulk_writer_with(BulkOptions { request_records: 10, ..BulkOptions::default() });
    let too_long = "k".repeat(100_000);
    assert!(matches!(load.put(&too_long, &1), Err(Error::Name(_))), "it goes on without this one");
    for n in 0..25 {
        load.put(&format!("k{n}"), &n).unwrap();
    }
    load.put_raw("bad", "{no json").unwrap();
    let error = load.commit().unwrap_err();
    assert!(matches!(error, Error::Fault(Fault::InvalidJson { .. })), "{error}");
    assert_eq!(load.stored().records, 20);
    assert!(load.put("later", &1).is_err());
    assert_eq!(numbers.len().unwrap(), 20);
}

#[test]
fn the_async_client_does_what_the_blocking_one_does() {
    let store = store();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = commonhold::Client::connect(store.dir()).await.unwrap();
        let notes = client.namespace("notes").unwrap();
        notes.put("a", &1).await.unwrap();
        notes.merge("m", &serde_json::json!({"x": 1})).await.unwrap();
        notes.increment("m", "x", 2).await.unwrap();
        notes.append("m", "l", &[1, 2, 3], Some(2)).await.unwrap();
        assert_eq!(notes.get_raw("m").await.unwrap().unwrap().text(), r#"{"x":3,"l":[2,3]}"#);
        assert_eq!(notes.get_many::<u8>(&["a", "b"]).await.unwrap(), [Some(1), None]);
        let mut load = notes.bulk_writer();
        for n in 0..3_000 {
            load.put(&format!("k{n}"), &n).await.unwrap();
        }
        assert_eq!(load.finish().await.unwrap().records, 3_000);
        let mut scan = notes.scan().prefix("k").keys_only();
        let mut count = 0;
        while let Some(entry) = scan.next().await {
            assert!(entry.unwrap().key.starts_with('k'));
            count += 1;
        }
        assert_eq!(count, 3_000);
        notes.flush().await.unwrap();
    });
    assert!(store.file("notes").exists());
}

#[test]
fn a_future_that_is_dropped_leaves_nothing_behind() {
    let store = store();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = commonhold::Client::connect(store.dir()).await.unwrap();
        let notes = client.namespace("notes").unwrap();
        for n in 0..1_000_u32 {
            let key = format!("k{n}");
            let dropped = notes.put(&key, &n);
            let raced = async {
                if n % 2 == 0 {
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! {
                biased;
                written = dropped => drop(written.unwrap()),
                () = raced => {}
            }
        }
        // Whatever became of the dropped ones, the connection is as good as new.
        notes.put("last", &1).await.unwrap();
        assert_eq!(notes.get::<u8>("last").await.unwrap(), Some(1));
        let in_flight = client.sessions().await.map(|sessions| sessions[0].in_flight);
        assert!(in_flight.is_err() || in_flight.unwrap() <= 1);
        assert_eq!(client.restarts(), 0);
    });
}

#[test]
fn a_client_outlives_the_runtime_it_was_made_on() {
    let store = store();
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let first = runtime();
    let client = first.block_on(commonhold::Client::connect(store.dir())).unwrap();
    let notes = client.namespace("notes").unwrap();
    first.block_on(notes.put("a", &1)).unwrap();
    drop(first);
    let second = runtime();
    assert_eq!(second.block_on(notes.get::<u8>("a")).unwrap(), Some(1));
    assert_eq!(client.restarts(), 0);
}

#[test]
fn a_client_is_used_on_one_runtime_after_another_while_both_are_there() {
    // Neither runs but while somebody blocks on it; the first has the task that reads for the client.
    let store = store();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (first, second) = (runtime(), runtime());
    let client = first.block_on(commonhold::Client::connect(store.dir())).unwrap();
    let notes = client.namespace("notes").unwrap();
    let patience = Duration::from_secs(20);
    for round in 0..50_u32 {
        let runtime = if round % 2 == 0 { &first } else { &second };
        let turn = async {
            notes.put("turn", &round).await.unwrap();
            notes.get::<u32>("turn").await.unwrap()
        };
        let turn = runtime.block_on(async { tokio::time::timeout(patience, turn).await });
        assert_eq!(turn.expect("an answer comes on either runtime"), Some(round));
    }
    drop(first);
    assert_eq!(second.block_on(notes.get::<u32>("turn")).unwrap(), Some(49));
    assert_eq!(client.restarts(), 0);
}

#[test]
fn a_client_is_used_on_several_runtimes_at_once() {
    let mut store = store();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = runtime().block_on(commonhold::Client::connect(store.dir())).unwrap();
    let notes = client.namespace("notes").unwrap();
    let work = |name: String, rounds: u32| {
        let notes = notes.clone();
        move || {
            // A runtime for each few requests: some end while others wait, with the task that reads.
            for round in 0..rounds {
                let key = format!("{name}-{round}");
                runtime().block_on(async {
                    let value = "x".repeat(20_000);
                    let (put, got) = tokio::join!(notes.put(&key, &value), notes.get::<String>(&key));
                    put.unwrap();
                    assert!(got.unwrap().is_none_or(|found| found == value));
                    assert_eq!(notes.get::<String>(&key).await.unwrap(), Some(value));
                });
            }
        }
    };
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(work(format!("t{thread}"), 100));
        }
    });
    assert_eq!(runtime().block_on(notes.len()).unwrap(), 400);
    assert_eq!(client.restarts(), 0);
    store.restart().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(work(format!("after-{thread}"), 20));
        }
    });
    assert_eq!(client.restarts(), 1);
    assert_eq!(runtime().block_on(notes.len()).unwrap(), 480);
}

#[test]
fn a_test_store_does_not_outlive_a_killed_test_for_long_and_not_go_before_it_ends() {
    let mut store = store();
    let status = || -> serde_json::Value {
        let client = store.client().unwrap();
        serde_json::from_str(&client.status().unwrap()).unwrap()
    };
    let command = fs::read(format!("/proc/{}/cmdline", store.pid().unwrap()));
    if let Ok(command) = command {
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        assert!(command.contains("--idle-exit 60s"), "{command}");
    }
    // Its own session is there as long as the store, so that the daemon is not idle before the test has ended.
    eventually("no session but the store's own and the one that asks", || status()["sessions"] == 2);
    store.kill();
    store.restart().unwrap();
    eventually("the same again after a restart", || {
        let client = store.client().unwrap();
        client.sessions().unwrap().len() == 2
    });
    store.stop().unwrap();

    // One whose user has asked for another time has no session of its own, and may end by itself.
    let mut brief = TestStoreOptions::new().binary(BINARY).serve_options(["--idle-exit", "100ms"]).start().unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(brief.pid().unwrap()).unwrap()).unwrap();
    let stat = format!("/proc/{}/stat", pid.as_raw_nonzero());
    eventually("the daemon has ended", || fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") Z ")));
    brief.restart().unwrap();
    brief.stop().unwrap();
}
