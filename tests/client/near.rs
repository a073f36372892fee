//! The near cache of both clients, against the real daemon: what is read again is served without asking, and never after it
//! was changed, by whomever and however.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use commonhold::blocking::{Client, ConnectOptions, Namespace};
use commonhold::testing::{TestStore, TestStoreOptions};
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_commonhold");

fn store() -> TestStore {
    TestStoreOptions::new().binary(BINARY).start().unwrap()
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The value of `k`, read until it is kept, so that the next read of it is a hit.
fn warm(docs: &Namespace) -> Option<Value> {
    let value = docs.get("k").unwrap();
    let hits = docs.client().cache_stats().hits;
    assert_eq!(docs.get::<Value>("k").unwrap(), value);
    assert_eq!(docs.client().cache_stats().hits, hits + 1, "what was just read is kept");
    value
}

#[test]
fn a_hit_is_never_older_than_the_last_write_that_anybody_was_told_of() {
    let store = store();
    let (own, other) = (store.client().unwrap(), store.client().unwrap());
    let (docs, others) = (own.namespace("docs").unwrap(), other.namespace("docs").unwrap());
    others.put("other", &1).unwrap();
    assert_eq!(warm(&docs), None, "absence is kept, too");
    others.put("k", &json!({"n": 1})).unwrap();
    assert_eq!(warm(&docs), Some(json!({"n": 1})));
    others.increment("k", "n", 2).unwrap();
    assert_eq!(warm(&docs), Some(json!({"n": 3})));
    others.merge("k", &json!({"m": true})).unwrap();
    assert_eq!(warm(&docs), Some(json!({"n": 3, "m": true})));
    others.append("k", "l", &[1], None).unwrap();
    assert_eq!(warm(&docs), Some(json!({"n": 3, "m": true, "l": [1]})));
    docs.put("k", &"own").unwrap();
    assert_eq!(warm(&docs), Some(json!("own")));
    others.delete("k").unwrap();
    assert_eq!(warm(&docs), None);
    others.put("k", &1).unwrap();
    assert_eq!(warm(&docs), Some(json!(1)));
    others.clear().unwrap();
    assert_eq!(warm(&docs), None);
    others.put("k", &2).unwrap();
    assert_eq!(warm(&docs), Some(json!(2)));
    others.drop_namespace().unwrap();
    assert_eq!(docs.get::<Value>("k").unwrap(), None);
}

#[test]
fn a_volatile_namespace_is_kept_alike_and_a_dropped_one_is_forgotten() {
    let store = store();
    let (own, other) = (store.client().unwrap(), store.client().unwrap());
    let docs = own.namespace("live").unwrap().volatile();
    let others = other.namespace("live").unwrap().volatile();
    for round in 0..3 {
        others.put("k", &round).unwrap();
        assert_eq!(warm(&docs), Some(json!(round)));
        others.drop_namespace().unwrap();
        assert_eq!(docs.get::<Value>("k").unwrap(), None);
    }
}

#[test]
fn several_values_are_of_one_moment_whoever_has_which_of_them() {
    let store = store();
    let (own, other) = (store.client().unwrap(), store.client().unwrap());
    let (docs, others) = (own.namespace("docs").unwrap(), other.namespace("docs").unwrap());
    let keys = ["a", "b", "c", "none"];
    let over = std::sync::atomic::AtomicBool::new(false);
    others.upsert([("a", 0), ("b", 0), ("c", 0)]).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 1..2_000 {
                others.upsert([("a", n), ("b", n), ("c", n)]).unwrap();
            }
            over.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        let mut last = 0;
        while !over.load(std::sync::atomic::Ordering::Relaxed) {
            let found: Vec<Option<u64>> = docs.get_many(&keys).unwrap();
            let first = found[0].unwrap();
            assert!(found == [Some(first), Some(first), Some(first), None] && first >= last, "{found:?} after {last}");
            last = first;
            // One of them alone is current now.
            assert!(docs.get::<u64>("b").unwrap().unwrap() >= last);
        }
    });
    let before = own.cache_stats();
    let all: Vec<Option<u64>> = docs.get_many(&keys).unwrap();
    assert_eq!(docs.get_many::<u64>(&keys).unwrap(), all);
    let raw = docs.get_many_raw(&keys).unwrap();
    assert_eq!(raw[0].as_ref().unwrap().text(), "1999");
    assert!(own.cache_stats().hits >= before.hits + 8, "{:?}", own.cache_stats());
}

#[test]
fn a_client_reads_what_it_has_sent_though_nobody_has_answered_yet() {
    let store = store();
    let own = store.client().unwrap();
    let docs = own.namespace("docs").unwrap();
    docs.put("k", &0).unwrap();
    for n in 1..500_u64 {
        warm(&docs);
        let sent = docs.put_later("k", &n).unwrap();
        assert_eq!(docs.get::<u64>("k").unwrap(), Some(n));
        if n % 2 == 0 {
            sent.wait().unwrap();
        }
    }
    // What nobody waits for was answered all the same.
    eventually("the key is served again", || {
        let hits = own.cache_stats().hits;
        docs.get::<u64>("k").unwrap();
        own.cache_stats().hits > hits
    });
}

#[test]
fn a_killed_daemons_values_are_served_no_more_and_the_next_ones_are() {
    let mut store = store();
    let own = store.client().unwrap();
    let docs = own.namespace("docs").unwrap();
    docs.put("k", &1).unwrap();
    warm(&docs);
    store.kill();
    eventually("the cache is off without a request", || !own.cache_stats().on);
    store.restart().unwrap();
    let other = store.client().unwrap();
    other.namespace("docs").unwrap().put("k", &2).unwrap();
    assert_eq!(docs.get::<u64>("k").unwrap(), Some(2));
    assert_eq!(warm(&docs), Some(json!(2)));
    // A clean stop, after which the file is another program's.
    store.restart().unwrap();
    assert_eq!(warm(&docs), Some(json!(2)));
}

/// A daemon whose user has this runtime directory; killed when dropped.
struct Serving(Child);

impl Serving {
    fn start(store: &Path, runtime_dir: &Path) -> Self {
        let mut command = Command::new(BINARY);
        command.args(["serve", "--announce", "--"]).arg(store).env("XDG_RUNTIME_DIR", runtime_dir);
        command.env_remove("COMMONHOLD_STORE").env_remove("RUST_LOG");
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut word = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut word).unwrap();
        assert_eq!(word.trim(), "ready");
        Self(child)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_killed_daemons_table_in_the_runtime_directory_is_the_next_ones() {
    let table_of = |client: &Client| -> PathBuf {
        let status: Value = serde_json::from_str(&client.status().unwrap()).unwrap();
        status["near_cache"]["table"].as_str().expect("there is a table").into()
    };
    let epoch_in = |table: &Path| fs::read(table).unwrap()[16..24].to_vec();
    let dir = tempfile::tempdir().unwrap();
    let runtime_dir = tempfile::Builder::new().prefix("commonhold-test-shelf.").tempdir_in("/dev/shm").unwrap();
    let daemon = Serving::start(dir.path(), runtime_dir.path());
    let own = Client::connect(dir.path()).unwrap();
    let docs = own.namespace("docs").unwrap();
    docs.put("k", &1).unwrap();
    warm(&docs);
    let (first, name) = (table_of(&own), table_of(&own).file_name().unwrap().to_owned());
    let epoch = epoch_in(&first);
    drop(daemon);
    // As if `/dev/shm` had been full when it was made: the file is the same, and its clients have it mapped.
    let left = runtime_dir.path().join(name);
    fs::rename(&first, &left).unwrap();
    let _daemon = Serving::start(dir.path(), runtime_dir.path());
    assert_ne!(epoch_in(&left), epoch, "who has it mapped sees that the killed daemon's epoch is gone");
    let other = Client::connect(dir.path()).unwrap();
    other.namespace("docs").unwrap().put("k", &2).unwrap();
    assert_eq!(docs.get::<u64>("k").unwrap(), Some(2));
    assert_eq!(table_of(&other), left);
    assert!(!first.exists(), "there is one table");
    // Who has the file goes on with it; who does not find it, as this process does not know that directory, asks.
    assert_eq!(warm(&docs), Some(json!(2)));
    assert!(own.cache_stats().on && !other.cache_stats().on);
    other.stop().unwrap();
}

#[test]
fn an_update_flag_is_looked_at_where_it_lies() {
    let mut store = store();
    let (own, other) = (store.client().unwrap(), store.client().unwrap());
    let (docs, others) = (own.namespace("docs").unwrap(), other.namespace("docs").unwrap());
    let flag = docs.update_flag().unwrap();
    let requests = || {
        let sessions = other.sessions().unwrap();
        sessions.iter().map(|session| session.requests).sum::<u64>()
    };
    for n in 0..50 {
        assert!(!flag.is_set().unwrap());
        others.put("k", &n).unwrap();
        assert!(flag.is_set().unwrap(), "a write that was answered has set it");
        flag.clear().unwrap();
        others.set_all_flags().unwrap();
        assert!(flag.is_set().unwrap());
        others.clear_all_flags().unwrap();
        assert!(!flag.is_set().unwrap());
        docs.put("k", &"own").unwrap();
        assert!(flag.is_set().unwrap());
        others.flush().unwrap();
        assert!(!flag.is_set().unwrap(), "a flush that leaves nothing unsaved clears it");
    }
    let before = requests();
    for _ in 0..100 {
        assert!(!flag.is_set().unwrap());
    }
    assert_eq!(requests(), before + 1, "looking sends nothing");
    store.kill();
    store.restart().unwrap();
    assert!(flag.is_set().unwrap(), "what was missed is not known");
}

#[test]
fn a_cache_of_no_bytes_asks_for_everything() {
    let store = store();
    let client = Client::connect_with(store.dir(), ConnectOptions::new().cache_bytes(0)).unwrap();
    let docs = client.namespace("docs").unwrap();
    docs.put("k", &1).unwrap();
    for _ in 0..3 {
        assert_eq!(docs.get::<u64>("k").unwrap(), Some(1));
        assert_eq!(docs.get_many::<u64>(&["k", "j"]).unwrap(), [Some(1), None]);
    }
    let flag = docs.update_flag().unwrap();
    assert!(!flag.is_set().unwrap());
    assert_eq!(client.cache_stats(), commonhold::blocking::CacheStats::default());
}

#[test]
fn the_async_client_keeps_values_as_well() {
    let store = store();
    let other = store.client().unwrap().namespace("docs").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = commonhold::Client::connect(store.dir()).await.unwrap();
        let docs = client.namespace("docs").unwrap();
        let flag = docs.update_flag().await.unwrap();
        for n in 0..100_u64 {
            other.put("k", &n).unwrap();
            assert!(flag.is_set().await.unwrap());
            flag.clear().await.unwrap();
            for _ in 0..3 {
                assert_eq!(docs.get::<u64>("k").await.unwrap(), Some(n));
                assert_eq!(docs.get_many::<u64>(&["k", "none"]).await.unwrap(), [Some(n), None]);
                assert!(!docs.contains("none").await.unwrap());
            }
            docs.put("k", &"own").await.unwrap();
            assert_eq!(docs.get_raw("k").await.unwrap().unwrap().into_text(), "\"own\"");
            assert!(flag.is_set().await.unwrap());
        }
        let stats = client.cache_stats();
        assert!(stats.on && stats.hits >= 800, "{stats:?}");
    });
}

#[test]
fn status_tells_where_the_table_lies() {
    let store = store();
    let client = store.client().unwrap();
    client.namespace("docs").unwrap().put("k", &1).unwrap();
    let status: Value = serde_json::from_str(&client.status().unwrap()).unwrap();
    let near = &status["near_cache"];
    let table = near["table"].as_str().expect("a Linux has a tmpfs");
    assert!(std::path::Path::new(table).exists());
    assert_eq!((near["off_because"].is_null(), near["namespaces"].as_u64()), (true, Some(1)), "{near}");
}
