//! The clients' watches and mirrors.

use std::process::Child;
use std::time::{Duration, Instant};

use commonhold::blocking::{self, Change, ConnectOptions, Error, Fault, Seq, WatchEvent, WatchOptions};

use crate::daemon_support::{PATIENCE, Place, eventually};
use crate::torture::{connect, serve};

fn options() -> ConnectOptions {
    ConnectOptions::new().reconnect_for(PATIENCE)
}

fn keys(event: &WatchEvent) -> (Seq, Vec<String>) {
    let WatchEvent::Changes(set) = event else { panic!("{event:?}") };
    let key = |change: &Change| match change {
        Change::Put { key, .. } => key.clone(),
        Change::Delete { key } => format!("-{key}"),
        Change::Clear => "clear".to_owned(),
        Change::Drop => "drop".to_owned(),
    };
    (set.seq, set.changes.iter().map(key).collect())
}

#[test]
fn a_watch_goes_on_after_a_restart_and_ends_where_nothing_can_be_told() {
    let place = Place::new();
    let daemon = place.serve();
    let client = blocking::Client::connect_with(place.path(), options()).unwrap();
    let docs = client.namespace("docs").unwrap();
    let first = docs.put("a", &1).unwrap().seq;
    let mut watch = docs.watch(WatchOptions::new());
    assert_eq!(watch.through(), None);
    assert_eq!(watch.begin().unwrap(), first);
    assert_eq!(watch.next_timeout(Duration::ZERO).unwrap(), None);
    let second = docs.put("b", &1).unwrap().seq;
    assert_eq!(keys(&watch.next().unwrap().unwrap()), (second, vec!["b".to_owned()]));
    // Like a killed one: nothing is flushed.
    drop(daemon);
    let daemon = place.serve();
    let third = docs.put("c", &1).unwrap().seq;
    assert_eq!(keys(&watch.next().unwrap().unwrap()), (third, vec!["c".to_owned()]));
    assert_eq!(watch.through(), Some(third));
    let mut again = docs.watch(WatchOptions::new().after(first).prefix("c"));
    assert_eq!(keys(&again.next().unwrap().unwrap()), (third, vec!["c".to_owned()]));
    let mut future = docs.watch(WatchOptions::new().after(Seq(third.0 + 1_000)));
    assert!(matches!(future.next(), Some(Err(Error::Fault(Fault::NotYet { .. })))));
    assert!(future.is_over() && future.next().is_none());
    let volatile = client.namespace("status").unwrap().volatile();
    let busy = volatile.put("busy", &true).unwrap().seq;
    let mut watch = volatile.watch(WatchOptions::new().after(busy));
    watch.begin().unwrap();
    drop(daemon);
    let _daemon = place.serve();
    assert!(matches!(watch.next(), Some(Err(Error::Fault(Fault::Gone { .. })))));
}

#[test]
fn a_mirror_is_what_the_namespace_is_through_restarts() {
    let place = Place::new();
    let daemon = place.serve();
    let client = blocking::Client::connect_with(place.path(), options()).unwrap();
    let docs = client.namespace("docs").unwrap();
    docs.put("a", &1).unwrap();
    let mut mirror = client.mirror(&docs).unwrap();
    assert_eq!((mirror.len(), mirror.is_empty()), (1, false));
    docs.put("b", &2).unwrap();
    let deleted = docs.delete("a").unwrap();
    mirror.wait_for(deleted.seq, PATIENCE).unwrap();
    assert_eq!(mirror.iter().map(|(key, value)| (key, value.text())).collect::<Vec<_>>(), [("b", "2")]);
    let status = client.namespace("status").unwrap().volatile();
    status.put("busy", &true).unwrap();
    let mut live = client.mirror(&status).unwrap();
    assert_eq!(live.get("busy").map(blocking::Value::text), Some("true"));
    drop(daemon);
    let _daemon = place.serve();
    let put = docs.put("c", &3).unwrap();
    mirror.wait_for(put.seq, PATIENCE).unwrap();
    assert_eq!((mirror.len(), mirror.resyncs(), mirror.seq()), (2, 0, put.seq));
    // What was volatile is gone, and the mirror with it.
    let put = status.put("done", &true).unwrap();
    live.wait_for(put.seq, PATIENCE).unwrap();
    assert_eq!((live.get("busy"), live.len(), live.resyncs()), (None, 1, 1));
    live.refresh().unwrap();
    let never = mirror.wait_for(Seq(put.seq.0 + 1_000_000), Duration::from_millis(10));
    assert!(matches!(never, Err(Error::TimedOut { .. })), "{never:?}");
}

#[test]
fn who_asks_for_what_is_there_does_not_wait_for_a_daemon_and_is_told_when_none_was_found() {
    let place = Place::new();
    let daemon = place.serve();
    let client = blocking::Client::connect_with(place.path(), options()).unwrap();
    let docs = client.namespace("docs").unwrap();
    let first = docs.put("a", &1).unwrap().seq;
    let mut mirror = client.mirror(&docs).unwrap();
    let mut watch = docs.watch(WatchOptions::new().after(first));
    watch.begin().unwrap();
    let impatient = ConnectOptions::new().reconnect_for(Duration::from_millis(300));
    let impatient = blocking::Client::connect_with(place.path(), impatient).unwrap();
    let mut short = impatient.namespace("docs").unwrap().watch(WatchOptions::new().after(first));
    short.begin().unwrap();
    drop(daemon);
    let began = Instant::now();
    for _ in 0..3 {
        assert_eq!(watch.next_timeout(Duration::ZERO).unwrap(), None);
        assert_eq!(watch.next_timeout(Duration::from_millis(20)).unwrap(), None);
        mirror.refresh().unwrap();
    }
    // One look for a daemon takes as long as a client has for it.
    assert!(began.elapsed() < PATIENCE / 4, "{:?}", began.elapsed());
    // And many short ones together take no longer.
    let began = Instant::now();
    let error = loop {
        match short.next_timeout(Duration::from_millis(10)) {
            Ok(None) => assert!(began.elapsed() < PATIENCE / 2, "it is never told"),
            Ok(Some(event)) => panic!("{event:?}"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::NoDaemon { .. }) && began.elapsed() >= Duration::from_millis(250), "{error}");
    assert!(!short.is_over());
    let _daemon = place.serve();
    let second = docs.put("b", &1).unwrap().seq;
    for watch in [&mut watch, &mut short] {
        assert_eq!(keys(&watch.next_timeout(PATIENCE).unwrap().unwrap()).0, second);
    }
    mirror.wait_for(second, PATIENCE).unwrap();
    assert_eq!(mirror.resyncs(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_async_watch_and_mirror_go_on_after_a_restart() {
    let place = Place::new();
    let daemon = place.serve();
    let client = commonhold::Client::connect_with(place.path(), options()).await.unwrap();
    let docs = client.namespace("docs").unwrap();
    let first = docs.put("a", &1).await.unwrap().seq;
    let mut watch = docs.watch(WatchOptions::new());
    assert_eq!(watch.begin().await.unwrap(), first);
    let mirror = client.mirror(&docs).await.unwrap();
    assert_eq!(mirror.get("a").map(|value| value.text().to_owned()).as_deref(), Some("1"));
    let second = docs.put("b", &1).await.unwrap().seq;
    assert_eq!(keys(&watch.next().await.unwrap().unwrap()), (second, vec!["b".to_owned()]));
    mirror.wait_for(second).await.unwrap();
    drop(daemon);
    let _daemon = place.serve();
    let third = docs.put("c", &1).await.unwrap().seq;
    assert_eq!(keys(&watch.next().await.unwrap().unwrap()), (third, vec!["c".to_owned()]));
    while mirror.wait_for(third).await.is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!((mirror.len(), mirror.resyncs(), mirror.seq()), (3, 0, third));
    assert_eq!(mirror.records().iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
    // A future that is dropped takes nothing with it.
    let waited = tokio::time::timeout(Duration::from_millis(20), watch.next()).await;
    assert!(waited.is_err(), "nothing was written");
    let fourth = docs.put("d", &1).await.unwrap().seq;
    assert_eq!(keys(&watch.next().await.unwrap().unwrap()).0, fourth);
}

#[test]
fn a_runtime_ends_though_a_watch_of_it_still_looks_for_a_daemon() {
    let place = Place::new();
    let daemon = place.serve();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // Nobody would wait for so long.
    let patient = ConnectOptions::new().reconnect_for(100 * PATIENCE);
    let client = runtime.block_on(commonhold::Client::connect_with(place.path(), patient)).unwrap();
    let mirror = runtime.block_on(async { client.mirror(&client.namespace("docs").unwrap()).await.unwrap() });
    drop(daemon);
    // As long as this waits for a daemon, the mirror has the time to notice that there is none.
    let docs = client.namespace("docs").unwrap();
    let waited = runtime.block_on(async { tokio::time::timeout(Duration::from_millis(200), docs.get_raw("a")).await });
    assert!(waited.is_err(), "{waited:?}");
    let (ended, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        drop((mirror, docs, client, runtime));
        ended.send(()).unwrap();
    });
    heard.recv_timeout(PATIENCE).expect("the runtime ends");
}

/// What the namespace is.
fn records(of: &blocking::Namespace) -> Vec<(String, String)> {
    of.get_all().map(|entry| entry.map(|entry| (entry.key, entry.value))).collect::<Result<_, _>>().unwrap()
}

fn mirrored(mirror: &blocking::Mirror) -> Vec<(String, String)> {
    mirror.iter().map(|(key, value)| (key.to_owned(), value.text().to_owned())).collect()
}

fn mirrored_by_task(mirror: &commonhold::Mirror) -> Vec<(String, String)> {
    mirror.records().into_iter().map(|(key, value)| (key, value.into_text())).collect()
}

#[test]
fn a_blocking_mirror_that_met_an_error_stays_as_it_was_and_is_equal_again_when_it_is_over() {
    let place = Place::new();
    let daemon = place.serve();
    let impatient = ConnectOptions::new().reconnect_for(Duration::from_millis(20));
    let client = blocking::Client::connect_with(place.path(), impatient).unwrap();
    let docs = client.namespace("docs").unwrap();
    docs.put("a", &1).unwrap();
    let mut mirror = client.mirror(&docs).unwrap();
    let second = docs.put("b", &2).unwrap();
    mirror.wait_for(second.seq, PATIENCE).unwrap();
    // Without a daemon for a while.
    drop(daemon);
    eventually("it cannot be refreshed", || mirror.refresh().is_err());
    assert_eq!(mirrored(&mirror), [("a", "1"), ("b", "2")].map(|(key, value)| (key.to_owned(), value.to_owned())));
    let daemon = place.serve();
    docs.put("c", &3).unwrap();
    let deleted = docs.delete("a").unwrap();
    mirror.wait_for(deleted.seq, PATIENCE).unwrap();
    assert_eq!((mirrored(&mirror), mirror.resyncs()), (records(&docs), 0));
    // With one that cannot load the namespace: that ends its watch.
    let before = mirrored(&mirror);
    daemon.stop().unwrap();
    let right = std::fs::read(place.file("docs")).unwrap();
    std::fs::write(place.file("docs"), "{").unwrap();
    let daemon = place.serve();
    eventually("it cannot be refreshed", || mirror.refresh().is_err());
    let refused = mirror.refresh();
    assert!(matches!(refused, Err(Error::Fault(_))), "{refused:?}");
    assert_eq!(mirrored(&mirror), before);
    daemon.stop().unwrap();
    std::fs::write(place.file("docs"), right).unwrap();
    let _daemon = place.serve();
    let put = docs.put("d", &4).unwrap();
    eventually("it is current", || mirror.wait_for(put.seq, PATIENCE).is_ok());
    assert_eq!((mirrored(&mirror), mirror.resyncs()), (records(&docs), 1));
}

/// A daemon that a kill takes things from, which it had told.
struct Forgetful<'a>(&'a Place, Child);

impl<'a> Forgetful<'a> {
    fn serve(place: &'a Place) -> Self {
        Self(place, serve(place.path(), "memory"))
    }

    fn kill(&mut self) {
        self.1.kill().unwrap();
        self.1.wait().unwrap();
        self.1 = serve(self.0.path(), "memory");
    }
}

impl Drop for Forgetful<'_> {
    fn drop(&mut self) {
        let _ = self.1.kill();
        let _ = self.1.wait();
    }
}

#[test]
fn a_blocking_mirror_unlearns_what_a_crash_took() {
    let place = Place::new();
    let mut daemon = Forgetful::serve(&place);
    let client = connect(place.path());
    let docs = client.namespace("docs").unwrap();
    docs.put("a", &1).unwrap();
    client.commit().unwrap();
    let mut mirror = client.mirror(&docs).unwrap();
    let (mut round, mut taken) = (0, 0);
    // Within a second of it; a slow machine tries again.
    eventually("a crash has taken what was told", || {
        round += 1;
        let key = format!("k{round}");
        let told = docs.put(&key, &round).unwrap();
        mirror.wait_for(told.seq, PATIENCE).unwrap();
        daemon.kill();
        taken += u64::from(docs.get::<u64>(&key).unwrap().is_none());
        let last = docs.put("last", &round).unwrap();
        eventually("it is current", || mirror.wait_for(last.seq, PATIENCE).is_ok());
        assert_eq!((mirrored(&mirror), mirror.resyncs()), (records(&docs), taken));
        taken > 0
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_async_mirror_unlearns_what_a_crash_took() {
    let place = Place::new();
    let mut daemon = Forgetful::serve(&place);
    let plain = connect(place.path());
    let docs = plain.namespace("docs").unwrap();
    docs.put("a", &1).unwrap();
    plain.commit().unwrap();
    let client = commonhold::Client::connect_with(place.path(), options()).await.unwrap();
    let mirror = client.mirror(&client.namespace("docs").unwrap()).await.unwrap();
    let (mut round, mut taken) = (0, 0);
    while taken == 0 {
        round += 1;
        assert!(round < 30, "no crash takes what was told");
        let key = format!("k{round}");
        let told = docs.put(&key, &round).unwrap();
        mirror.wait_for(told.seq).await.unwrap();
        daemon.kill();
        taken += u64::from(docs.get::<u64>(&key).unwrap().is_none());
        let last = docs.put("last", &round).unwrap();
        // While there was no daemon that was told.
        while mirror.wait_for(last.seq).await.is_err() {
            tokio::task::yield_now().await;
        }
        assert_eq!((mirrored_by_task(&mirror), mirror.resyncs()), (records(&docs), taken));
    }
}

/// More than socket and memory hold for one who does not look.
fn write_much(to: &blocking::Namespace) -> Seq {
    let value = "x".repeat(1 << 20);
    let mut last = Seq(0);
    for n in 0..40 {
        last = to.put(&format!("k{}", n % 5), &format!("{n}{value}")).unwrap().seq;
    }
    last
}

#[test]
fn a_blocking_mirror_that_lagged_is_equal_again() {
    let place = Place::new();
    let _daemon = place.serve();
    let client = blocking::Client::connect_with(place.path(), options()).unwrap();
    let status = client.namespace("status").unwrap().volatile();
    status.put("a", &1).unwrap();
    let mut mirror = client.mirror(&status).unwrap();
    // Its watch is there before anything is missed.
    mirror.refresh().unwrap();
    let told = status.put("b", &1).unwrap();
    mirror.wait_for(told.seq, PATIENCE).unwrap();
    let last = write_much(&status);
    mirror.wait_for(last, PATIENCE).unwrap();
    assert!(mirrored(&mirror) == records(&status), "it is what the namespace is");
    assert!(mirror.len() == 7 && mirror.resyncs() > 0, "{} records, {} resyncs", mirror.len(), mirror.resyncs());
}

#[tokio::test]
async fn a_mirror_of_a_task_that_lagged_is_equal_again() {
    let place = Place::new();
    let _daemon = place.serve();
    let plain = blocking::Client::connect_with(place.path(), options()).unwrap();
    let status = plain.namespace("status").unwrap().volatile();
    status.put("a", &1).unwrap();
    let client = commonhold::Client::connect_with(place.path(), options()).await.unwrap();
    let mirror = client.mirror(&client.namespace("status").unwrap().volatile()).await.unwrap();
    let told = status.put("b", &1).unwrap();
    mirror.wait_for(told.seq).await.unwrap();
    // Nothing of this runtime runs meanwhile.
    let last = write_much(&status);
    mirror.wait_for(last).await.unwrap();
    assert!(mirrored_by_task(&mirror) == records(&status), "it is what the namespace is");
    assert!(mirror.resyncs() > 0, "it has lagged");
}
