//! All records of one moment: part by part, on a connection of their own, and void after a fault.

use std::thread;
use std::time::Duration;

use commonhold::blocking::{ConnectOptions, Error, Fault, Seq};
use commonhold::proto::{Answer, Entry, codec};

use crate::driver::{Driver, Records, Stream, promises};
use crate::fake::{Connection, FakeDaemon, encoded};
use crate::{got, serve};

fn records(keys: &[&'static str]) -> Answer<'static> {
    let entries = keys.iter().map(|&key| Entry { key, seq: Seq(1), value: Some("1") }).collect();
    Answer::Records { entries, seq: Seq(5) }
}

fn part(id: u64, keys: &[&'static str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::encode_part(&mut bytes, id, &records(keys)).unwrap();
    bytes
}

/// A client whose own connection answers every get, and what the daemon does on the connection of the stream.
fn streaming<D: Driver>(daemon: impl FnOnce(Connection) + Send, client: impl FnOnce(&D)) {
    let fake = FakeDaemon::start();
    thread::scope(|scope| {
        scope.spawn(|| {
            let first = fake.accept(1);
            scope.spawn(|| serve(first, |asked| encoded(asked.id, &got("7"))));
            daemon(fake.accept(1));
        });
        let options = ConnectOptions::new().timeout(Some(Duration::from_secs(5)));
        client(&D::connect_with(fake.dir(), options).unwrap());
    });
}

fn a_record_is_there_before_the_last_part_was_sent_and_others_are_not_held_up<D: Driver>() {
    let (tell, told) = std::sync::mpsc::channel();
    let daemon = move |mut connection: Connection| {
        let id = connection.request().id;
        connection.send(&part(id, &["a", "b"]));
        told.recv().unwrap();
        connection.send(&part(id, &[]));
        connection.answer(id, &records(&["c"]));
        assert!(connection.next().is_none(), "the connection ends with the stream");
    };
    streaming(daemon, |client: &D| {
        let namespace = client.namespace("n");
        let mut all = namespace.get_all();
        assert_eq!(all.seq(), None);
        assert_eq!(all.next().unwrap().unwrap().key, "a");
        assert_eq!(all.seq(), Some(Seq(5)));
        assert_eq!(namespace.get::<u8>("x").unwrap(), Some(7));
        tell.send(()).unwrap();
        let rest: Vec<_> = all.map(|entry| entry.unwrap().key).collect();
        assert_eq!(rest, ["b", "c"]);
    });
}

fn a_fault_at_the_end_voids_what_came_before<D: Driver>() {
    let daemon = |mut connection: Connection| {
        let id = connection.request().id;
        connection.send(&part(id, &["a"]));
        connection.answer(id, &Answer::Fault(Fault::SnapshotExpired));
    };
    streaming(daemon, |client: &D| {
        let mut all = client.namespace("n").get_all();
        assert!(all.next().unwrap().is_ok());
        let error = all.next().unwrap().unwrap_err();
        assert!(matches!(error, Error::Fault(Fault::SnapshotExpired)), "{error}");
        assert!(all.next().is_none());
    });
}

fn a_stream_that_breaks_off_says_that_it_is_incomplete<D: Driver>() {
    let daemon = |mut connection: Connection| {
        let id = connection.request().id;
        connection.send(&part(id, &["a"]));
    };
    streaming(daemon, |client: &D| {
        let mut all = client.namespace("n").get_all();
        assert!(all.next().unwrap().is_ok());
        let error = all.next().unwrap().unwrap_err();
        assert!(matches!(error, Error::BrokeOff { .. }), "{error}");
        assert!(error.to_string().contains("incomplete"), "{error}");
    });
}

fn a_stream_that_is_dropped_midway_ends_its_connection<D: Driver>() {
    let daemon = |mut connection: Connection| {
        let id = connection.request().id;
        connection.send(&part(id, &["a"]));
        assert!(connection.next().is_none());
    };
    streaming(daemon, |client: &D| {
        let namespace = client.namespace("n");
        assert!(namespace.get_all().next().unwrap().is_ok());
        assert_eq!(namespace.get::<u8>("x").unwrap(), Some(7));
    });
}

promises! {
    a_record_is_there_before_the_last_part_was_sent_and_others_are_not_held_up,
    a_fault_at_the_end_voids_what_came_before,
    a_stream_that_breaks_off_says_that_it_is_incomplete,
    a_stream_that_is_dropped_midway_ends_its_connection,
}
