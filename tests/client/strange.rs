//! A peer that is no daemon, another daemon, or one that refuses.

use std::thread;
use std::time::{Duration, Instant};

use commonhold::blocking::{ConnectOptions, Error, Fault};
use commonhold::proto::{Hello, StoreIdentity};

use crate::driver::{Driver, promises};
use crate::fake::{Connection, FakeDaemon};

/// What connecting answers when the daemon does `daemon` on the first connection.
fn connecting<D: Driver>(daemon: impl FnOnce(&FakeDaemon, Connection) + Send) -> Error {
    let fake = FakeDaemon::start();
    thread::scope(|scope| {
        scope.spawn(|| daemon(&fake, fake.accept_silently()));
        D::connect_with(fake.dir(), ConnectOptions::new().timeout(Some(Duration::from_millis(500)))).err().unwrap()
    })
}

fn a_daemon_of_another_version_is_told<D: Driver>() {
    let error = connecting::<D>(|fake, connection| {
        let client = connection.client_hello();
        let hello = Hello { lowest: 7, highest: 9, ..Hello::of_daemon(client.client, fake.identity(), 0, 1) };
        connection.send(&hello.to_bytes());
    });
    assert!(matches!(error, Error::Fault(Fault::Version { daemon_lowest: 7, daemon_highest: 9, .. })), "{error}");
}

fn a_copied_store_is_not_taken_for_the_original<D: Driver>() {
    let error = connecting::<D>(|_, connection| {
        let client = connection.client_hello();
        let other = StoreIdentity { device: 1, inode: 2 };
        connection.send(&Hello::of_daemon(client.client, other, 0, 1).to_bytes());
    });
    assert!(matches!(error, Error::Fault(Fault::OtherStore { device: 1, inode: 2 })), "{error}");
}

fn something_else_on_the_socket_is_told<D: Driver>() {
    let error = connecting::<D>(|_, connection| connection.send(&[b'x'; 64]));
    assert!(matches!(error, Error::Protocol { .. }), "{error}");
}

fn a_peer_that_says_nothing_costs_no_more_than_the_time_limit<D: Driver>() {
    let began = Instant::now();
    let error = connecting::<D>(|_, connection| {
        connection.client_hello();
        // Until the client has had enough.
        let mut connection = connection;
        assert!(connection.next().is_none());
    });
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    assert!((Duration::from_millis(500)..Duration::from_secs(4)).contains(&began.elapsed()));
}

fn a_peer_that_ends_the_handshake_is_told<D: Driver>() {
    let error = connecting::<D>(|_, connection| drop(connection));
    assert!(matches!(error, Error::Lost { .. }), "{error}");
}

fn a_refusal_after_the_hello_is_the_answer_and_is_not_tried_again<D: Driver>() {
    let fake = FakeDaemon::start();
    thread::scope(|scope| {
        scope.spawn(|| fake.accept(1).close_because(Fault::Forbidden { uid: 1, owner: 2 }));
        let client = D::connect_with(fake.dir(), ConnectOptions::new()).unwrap();
        let error = client.ping().unwrap_err();
        assert!(matches!(error, Error::Fault(Fault::Forbidden { uid: 1, owner: 2 })), "{error}");
    });
}

fn random_bytes_end_in_an_error_and_the_next_connection_works<D: Driver>() {
    let seed = 0xbad_5eed;
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..50 {
        let fake = FakeDaemon::start();
        let noise: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(64).collect();
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut connection = fake.accept(1);
                connection.request();
                connection.try_send(&noise);
                drop(connection);
                let mut second = fake.accept(2);
                let asked = second.request();
                second.answer(asked.id, &commonhold::proto::Answer::Done);
                second.next();
            });
            let client =
                D::connect_with(fake.dir(), ConnectOptions::new().timeout(Some(Duration::from_secs(5)))).unwrap();
            // Noise that looks like the beginning of a long frame ends with the connection, and the read is repeated.
            let first = client.ping();
            assert!(matches!(first, Ok(()) | Err(Error::Protocol { .. })), "{first:?}");
            if first.is_err() {
                client.ping().unwrap();
            }
        });
    }
}

promises! {
    a_daemon_of_another_version_is_told,
    a_copied_store_is_not_taken_for_the_original,
    something_else_on_the_socket_is_told,
    a_peer_that_says_nothing_costs_no_more_than_the_time_limit,
    a_peer_that_ends_the_handshake_is_told,
    a_refusal_after_the_hello_is_the_answer_and_is_not_tried_again,
    random_bytes_end_in_an_error_and_the_next_connection_works,
}
