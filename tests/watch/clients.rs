//! The clients' watches and mirrors.

use std::time::Duration;

use commonhold::blocking::{self, Change, ConnectOptions, Error, Fault, Seq, WatchEvent, WatchOptions};

use crate::daemon_support::{PATIENCE, Place};

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
