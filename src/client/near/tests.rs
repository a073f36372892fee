//! The cache over a real table, without a daemon: the table's writer stands in for it.

use std::time::{Duration, Instant};

use commonhold_proto::{Kind, Place, Seq};

use super::*;
use crate::ipc::{Listener, OWN_DIRECTORY, store_identity};
use crate::versions::{Entry, Writer};

/// A store's directory with a table and a socket, and a client's end of a connection to it.
struct Host {
    _dir: tempfile::TempDir,
    table: Arc<Writer>,
    docs: Entry,
    target: Arc<Target>,
    name: SocketName,
    listener: Listener,
    client: Stream,
    daemon: Option<Stream>,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(OWN_DIRECTORY)).unwrap();
        let listener = Listener::bind(dir.path()).unwrap();
        let client = Stream::connect(dir.path(), Instant::now() + Duration::from_secs(5)).unwrap();
        let daemon = listener.accept().unwrap();
        let identity = store_identity(dir.path()).unwrap();
        let table = Arc::new(Writer::take_over(dir.path(), identity, false).unwrap());
        let place = Place::new("", "docs").unwrap();
        let docs = table.entry(&place).unwrap();
        let name = SocketName::for_store(dir.path()).unwrap();
        let target = Arc::new(Target::new(place, Kind::Persistent));
        Self { table, docs, target, name, listener, client, daemon, _dir: dir }
    }

    fn near(&self, bytes: usize) -> Near {
        let near = Near::new(bytes);
        near.connected(&self.name, self.table.nonce(), &self.client);
        near
    }

    fn keep(&self, near: &Near, key: &str, text: &str) {
        let held = Held::new(key, text, Seq(1));
        near.keep(&self.target, key, Some(&held), Some(self.docs.tag(key)));
    }

    /// What is served: a text, that there is none, or nothing.
    fn served(&self, near: &Near, key: &str) -> String {
        match near.find(&self.target, key) {
            None => "nothing".to_owned(),
            Some(found) => found.value.map_or_else(|| "absent".to_owned(), |held| held.text().to_owned()),
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.table.retire();
    }
}

fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_value_and_an_absence_are_served_until_they_change() {
    let host = Host::new();
    let near = host.near(1 << 20);
    assert_eq!(host.served(&near, "k"), "nothing");
    host.keep(&near, "k", "1");
    near.keep(&host.target, "absent", None, Some(host.docs.tag("absent")));
    assert_eq!(host.served(&near, "k"), "1");
    assert_eq!(host.served(&near, "absent"), "absent");
    let other = Target::new(host.target.place().clone(), Kind::Volatile);
    assert!(near.find(&other, "k").is_none(), "a namespace of another kind is another one");
    host.docs.moved("k");
    assert_eq!((&*host.served(&near, "k"), &*host.served(&near, "absent")), ("nothing", "absent"));
    host.docs.cleared();
    assert_eq!(host.served(&near, "absent"), "nothing");
    let stats = near.stats();
    assert_eq!((stats.hits, stats.misses, stats.entries, stats.on), (3, 4, 2, true));
}

#[test]
fn an_answer_that_is_old_when_it_comes_is_not_kept() {
    let host = Host::new();
    let near = host.near(1 << 20);
    let tag = host.docs.tag("k");
    host.docs.moved("k");
    near.keep(&host.target, "k", None, Some(tag));
    near.keep(&host.target, "untagged", None, None);
    assert_eq!(near.stats().entries, 0);
}

#[test]
fn what_is_kept_stays_within_its_bytes_and_what_is_used_stays_longest() {
    let host = Host::new();
    let near = host.near(SHARDS * 4_096);
    let text = "x".repeat(500);
    host.keep(&near, "used", &text);
    for n in 0..1_000 {
        host.keep(&near, &format!("k{n}"), &text);
        assert_eq!(host.served(&near, "used"), text, "after {n}");
    }
    let stats = near.stats();
    assert!(stats.bytes <= stats.limit_bytes && stats.entries > SHARDS, "{stats:?}");
    host.keep(&near, "large", &"x".repeat(5_000));
    assert_eq!(host.served(&near, "large"), "nothing", "a value larger than its piece of the cache");
    assert!(Near::new(0).shards.is_none());
}

#[test]
fn a_connection_that_hung_up_ends_all_hits_without_a_request() {
    let mut host = Host::new();
    let near = host.near(1 << 20);
    host.keep(&near, "k", "1");
    assert_eq!(host.served(&near, "k"), "1");
    drop(host.daemon.take());
    eventually("the hang-up is noticed", || !near.is_on());
    assert_eq!(host.served(&near, "k"), "nothing");
    let again = Host::new();
    near.connected(&again.name, again.table.nonce(), &again.client);
    assert_eq!(near.stats().entries, 0, "another table, another cache");
}

#[test]
fn a_lost_connection_that_is_made_again_to_the_same_daemon_finds_what_was_kept() {
    let host = Host::new();
    let near = host.near(1 << 20);
    host.keep(&near, "k", "1");
    near.lost();
    assert_eq!(host.served(&near, "k"), "nothing");
    let again = Stream::connect(host.name.dir(), Instant::now() + Duration::from_secs(5)).unwrap();
    let _accepted = host.listener.accept().unwrap();
    near.connected(&host.name, host.table.nonce(), &again);
    assert_eq!(host.served(&near, "k"), "1");
    near.connected(&host.name, 0, &again);
    assert_eq!(host.served(&near, "k"), "nothing", "a daemon without a table");
}

#[test]
fn several_values_are_of_one_moment_or_are_asked_for_again() {
    let host = Host::new();
    let near = host.near(1 << 20);
    host.keep(&near, "a", "1");
    host.keep(&near, "b", "2");
    let gathered = near.gather(&host.target, &["a", "b", "c"]);
    assert_eq!(gathered.to_ask_for(&["a", "b", "c"]), Some(vec!["c"]));
    assert!(gathered.is_current());
    host.docs.moved("a");
    assert!(!gathered.is_current());
    assert_eq!(near.gather(&host.target, &["x"]).to_ask_for(&["x"]), None);
}
