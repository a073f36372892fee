//! When the connection is lost: what is repeated, what fails, and what is told.

use std::thread;
use std::time::{Duration, Instant};

use commonhold::blocking::{ConnectOptions, Fault, Seq};
use commonhold::proto::{Answer, Hello};

use crate::driver::{Driver, Later, Records, promises};
use crate::fake::FakeDaemon;
use crate::{WRITTEN, got};

/// Options with which a failing test does not wait long.
fn quick() -> ConnectOptions {
    ConnectOptions::new().timeout(Some(Duration::from_secs(5))).reconnect_for(Duration::from_secs(5))
}

fn a_write_of_which_no_byte_was_sent_is_sent_to_the_next_daemon<D: Driver>() {
    let fake = FakeDaemon::start();
    thread::scope(|scope| {
        let first = scope.spawn(|| drop(fake.accept(1)));
        let client = D::connect_with(fake.dir(), quick()).unwrap();
        first.join().unwrap();
        assert_eq!((client.boot(), client.restarts()), (1, 0));
        scope.spawn(|| {
            let mut connection = fake.accept(2);
            let asked = connection.request();
            assert_eq!(asked.write.unwrap().1, 1);
            connection.answer(asked.id, &WRITTEN);
            connection.next();
        });
        assert_eq!(client.namespace("n").put("a", &1).unwrap().seq, Seq(9));
        assert_eq!((client.boot(), client.restarts()), (2, 1));
    });
}

fn a_write_that_was_sent_is_sent_again_under_its_number_and_a_read_is_repeated<D: Driver>() {
    let fake = FakeDaemon::start();
    thread::scope(|scope| {
        scope.spawn(|| {
            // Dies after it has the whole write, then in the midst of it, then in the midst of a longer one, then after a read.
            let first = fake.accept(1).request().write;
            fake.accept(1).swallow(5);
            let mut connection = fake.accept(2);
            let again = connection.request();
            assert_eq!((again.write, again.first_boot), (first, Some(1)));
            connection.answer(again.id, &WRITTEN);
            connection.swallow(5);
            drop(connection);
            let mut connection = fake.accept(2);
            let again = connection.request();
            assert_eq!((again.write.unwrap().1, again.first_boot), (2, Some(2)));
            connection.answer(again.id, &WRITTEN);
            connection.request();
            drop(connection);
            let mut last = fake.accept(2);
            let asked = last.request();
            assert_eq!(asked.key, "a");
            last.answer(asked.id, &got("7"));
            last.next();
        });
        let client = D::connect_with(fake.dir(), quick()).unwrap();
        let namespace = client.namespace("n");
        for value in ["1".to_owned(), format!("\"{}\"", "x".repeat(4 << 20))] {
            assert_eq!(namespace.put_raw("a", &value).unwrap().seq, Seq(9));
        }
        assert_eq!(namespace.get::<u8>("a").unwrap(), Some(7));
        assert_eq!(client.restarts(), 1);
    });
}

fn a_write_that_was_sent_ends_as_unknown_where_nobody_can_tell<D: Driver>() {
    // Nobody comes back; somebody with an older journal does; somebody who does not look at numbers.
    for (boot, highest) in [(None, 0), (Some(1), 3), (Some(3), 2)] {
        let fake = FakeDaemon::start();
        let dir = fake.dir().to_owned();
        thread::scope(|scope| {
            scope.spawn(move || {
                fake.accept(2).request();
                let Some(boot) = boot else { return drop(fake.die()) };
                let mut connection = fake.accept_silently();
                let hello = connection.client_hello();
                let own = Hello { highest, ..Hello::of_daemon(hello.client, fake.identity(), 0, boot) };
                connection.send(&own.to_bytes());
                let asked = connection.request();
                assert!(asked.write.is_none(), "nothing is sent again: {asked:?}");
                connection.answer(asked.id, &Answer::Done);
                connection.next();
            });
            let options = quick().reconnect_for(Duration::from_millis(if boot.is_some() { 5_000 } else { 100 }));
            let client = D::connect_with(&dir, options).unwrap();
            let error = client.namespace("n").put("a", &1).unwrap_err();
            assert!(error.outcome_is_unknown(), "{error}");
            assert!(error.to_string().contains("done once or not at all"), "{error}");
            if boot.is_some() {
                client.ping().unwrap();
            }
        });
    }
}

fn a_read_waits_for_a_daemon_that_is_being_restarted<D: Driver>() {
    let fake = FakeDaemon::start();
    let dir = fake.dir().to_owned();
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut connection = fake.accept(1);
            connection.request();
            let dir = fake.die();
            drop(connection);
            // Long enough for the client to meet the dead socket, were it not quick; the test holds either way.
            thread::sleep(Duration::from_millis(50));
            let fake = FakeDaemon::start_in(dir);
            let mut connection = fake.accept(2);
            let asked = connection.request();
            connection.answer(asked.id, &got("7"));
            connection.next();
        });
        let client = D::connect_with(&dir, quick()).unwrap();
        assert_eq!(client.namespace("n").get::<u8>("a").unwrap(), Some(7));
        assert_eq!(client.restarts(), 1);
    });
}

fn when_nobody_comes_back_requests_fail_and_say_how_to_start_one<D: Driver>() {
    let fake = FakeDaemon::start();
    let reconnect_for = Duration::from_millis(200);
    thread::scope(|scope| {
        let path = fake.dir().to_owned();
        let daemon = scope.spawn(move || {
            drop(fake.accept(1));
            fake.die()
        });
        let client = D::connect_with(&path, quick().reconnect_for(reconnect_for)).unwrap();
        let dir = daemon.join().unwrap();
        let namespace = client.namespace("n");
        let began = Instant::now();
        let error = namespace.put("a", &1).unwrap_err();
        assert!(error.is_no_daemon(), "{error}");
        assert!(error.to_string().contains(&format!("commonhold serve {}", dir.path().display())), "{error}");
        assert!(began.elapsed() >= reconnect_for);
        assert!(namespace.get::<u8>("a").unwrap_err().is_no_daemon());
    });
}

fn without_a_daemon_connecting_fails_at_once<D: Driver>() {
    let dir = tempfile::tempdir().unwrap();
    let began = Instant::now();
    for dir in [dir.path().to_owned(), dir.path().join("missing")] {
        let error = D::connect_with(dir.as_ref(), ConnectOptions::new()).err().unwrap();
        assert!(error.is_no_daemon(), "{error}");
        assert!(error.to_string().contains("Start one with `commonhold serve"), "{error}");
    }
    assert!(began.elapsed() < Duration::from_secs(5));
}

fn a_daemon_that_stops_with_requests_in_flight_is_followed_to_the_next<D: Driver>() {
    let fake = FakeDaemon::start();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut first = fake.accept(1);
            let [read, write] = [first.request(), first.request()];
            assert!(read.write.is_none() && write.write.is_some());
            first.close_because(Fault::Stopping);
            drop(first);
            let mut second = fake.accept(2);
            let asked = second.request();
            assert_eq!(asked.id, read.id, "in the order in which they began");
            second.answer(asked.id, &got("1"));
            let asked = second.request();
            assert_eq!((asked.id, asked.write.unwrap().1, asked.first_boot), (write.id, 1, Some(1)));
            second.answer(asked.id, &WRITTEN);
            let asked = second.request();
            assert_eq!((asked.write.unwrap().1, asked.first_boot), (2, None));
            second.answer(asked.id, &WRITTEN);
            second.next();
        });
        let client = D::connect_with(fake.dir(), quick()).unwrap();
        let namespace = client.namespace("n");
        let read = namespace.get_raw_later("a").unwrap();
        let write = namespace.put_raw_later("a", "1").unwrap();
        assert_eq!(write.wait().unwrap().seq, Seq(9));
        assert_eq!(read.wait().unwrap().unwrap().text(), "1");
        namespace.put("a", &2).unwrap();
        assert_eq!(client.restarts(), 1);
    });
}

fn a_store_that_was_moved_is_found_again_and_another_in_its_place_is_not_taken_for_it<D: Driver>() {
    let fake = FakeDaemon::start();
    let dir = fake.dir().to_owned();
    let moved = dir.with_extension("moved");
    thread::scope(|scope| {
        let first = scope.spawn(|| drop(fake.accept(1)));
        let client = D::connect_with(&dir, quick()).unwrap();
        first.join().unwrap();
        std::fs::rename(&dir, &moved).unwrap();
        std::fs::create_dir(&dir).unwrap();
        scope.spawn(|| {
            let connection = fake.accept_silently();
            let hello = connection.client_hello();
            assert_eq!(hello.identity, commonhold::ipc::store_identity(&moved).unwrap());
            let identity = hello.identity;
            connection.send(&commonhold::proto::Hello::of_daemon(hello.client, identity, 0, 1).to_bytes());
            let mut connection = connection;
            let asked = connection.request();
            connection.answer(asked.id, &Answer::Done);
            connection.next();
        });
        client.ping().unwrap();
    });
    std::fs::remove_dir(&dir).unwrap();
    std::fs::rename(&moved, &dir).unwrap();
}

promises! {
    a_write_of_which_no_byte_was_sent_is_sent_to_the_next_daemon,
    a_write_that_was_sent_is_sent_again_under_its_number_and_a_read_is_repeated,
    a_write_that_was_sent_ends_as_unknown_where_nobody_can_tell,
    a_read_waits_for_a_daemon_that_is_being_restarted,
    when_nobody_comes_back_requests_fail_and_say_how_to_start_one,
    without_a_daemon_connecting_fails_at_once,
    a_daemon_that_stops_with_requests_in_flight_is_followed_to_the_next,
    a_store_that_was_moved_is_found_again_and_another_in_its_place_is_not_taken_for_it,
}
