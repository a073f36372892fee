//! Many requests in flight on one connection, from one thread and from many.

use std::thread;
use std::time::{Duration, Instant};

use commonhold::blocking::{ConnectOptions, Error};
use commonhold::proto::Answer;

use tokio::runtime::Builder;

use crate::driver::{Driver, Later, Records, promises};
use crate::fake::{Connection, FakeDaemon, encoded};
use crate::{WRITTEN, got, serve, with};

fn threads_share_a_client_and_each_gets_its_own_answers_in_any_order<D: Driver>() {
    const THREADS: usize = 8;
    const ROUNDS: usize = 200;
    let daemon = |mut connection: Connection| {
        for round in 0..ROUNDS {
            // Each thread waits for one answer at a time, so there are as many requests as threads.
            let mut asked: Vec<_> = (0..THREADS).map(|_| connection.request()).collect();
            let middle = round % THREADS;
            asked.rotate_left(middle);
            asked.reverse();
            for asked in asked {
                connection.answer(asked.id, &got(&format!("\"{}\"", asked.key)));
            }
        }
    };
    with(ConnectOptions::new(), daemon, |client: D| {
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let namespace = client.namespace("n");
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let key = format!("{thread}-{round}");
                        assert_eq!(namespace.get::<String>(&key).unwrap().unwrap(), key);
                    }
                });
            }
        });
    });
}

fn one_thread_keeps_many_requests_in_flight_without_a_deadlock<D: Driver>() {
    // The daemon reads nothing while it cannot get rid of an answer: were the client not to read while it writes, both
    // would wait for ever.
    let value = format!("\"{}\"", "x".repeat(8_000));
    let daemon = |connection| {
        serve(connection, |asked| encoded(asked.id, &if asked.write.is_some() { WRITTEN } else { got(&value) }));
    };
    with(ConnectOptions::new(), daemon, |client: D| {
        let namespace = client.namespace("n");
        let reads: Vec<_> = (0..1_000).map(|n| namespace.get_raw_later(&n.to_string()).unwrap()).collect();
        let writes: Vec<_> = (0..1_000).map(|_| namespace.put_raw_later("a", &value).unwrap()).collect();
        for read in reads.into_iter().rev() {
            assert_eq!(read.wait().unwrap().unwrap().text(), value);
        }
        for write in writes {
            write.wait().unwrap();
        }
    });
}

fn threads_that_write_more_than_the_socket_takes_all_get_through<D: Driver>() {
    let value = format!("\"{}\"", "x".repeat(300_000));
    let daemon = |connection| {
        serve(connection, |asked| encoded(asked.id, &if asked.write.is_some() { WRITTEN } else { got(&value) }));
    };
    with(ConnectOptions::new(), daemon, |client: D| {
        thread::scope(|scope| {
            for thread in 0..6 {
                let namespace = client.namespace("n");
                let value = &value;
                scope.spawn(move || {
                    for _ in 0..30 {
                        if thread % 2 == 0 {
                            namespace.put_raw("a", value).unwrap();
                        } else {
                            assert_eq!(namespace.get_raw("a").unwrap().unwrap().text().len(), value.len());
                        }
                    }
                });
            }
        });
    });
}

fn a_dropped_pending_request_is_done_and_disturbs_nobody<D: Driver>() {
    let daemon = |mut connection: Connection| {
        let dropped = connection.request();
        assert!(dropped.write.is_some());
        let kept = connection.request();
        connection.answer(dropped.id, &WRITTEN);
        connection.answer(kept.id, &got("1"));
    };
    with(ConnectOptions::new(), daemon, |client: D| {
        let namespace = client.namespace("n");
        drop(namespace.put_raw_later("a", "1").unwrap());
        assert_eq!(namespace.get::<u8>("a").unwrap(), Some(1));
    });
}

fn who_waits_beside_a_reader_times_out_by_its_own_clock<D: Driver>() {
    let (told, timed_out) = std::sync::mpsc::channel();
    let (tell_sent, sent) = std::sync::mpsc::channel();
    let daemon = move |mut connection: Connection| {
        let commit = connection.request();
        tell_sent.send(()).unwrap();
        let get = connection.request();
        assert_eq!(get.key, "a");
        timed_out.recv().unwrap();
        connection.answer(commit.id, &Answer::Committed { seq: commonhold::blocking::Seq(3) });
    };
    let options = ConnectOptions::new().timeout(Some(Duration::from_millis(100)));
    with(options, daemon, |client: D| {
        thread::scope(|scope| {
            let committing = scope.spawn(|| client.commit());
            // The commit is there, so its thread reads for all by now or very soon.
            sent.recv().unwrap();
            let began = Instant::now();
            let error = client.namespace("n").get::<u8>("a").unwrap_err();
            assert!(matches!(error, Error::TimedOut { .. }), "{error}");
            assert!(began.elapsed() < Duration::from_secs(3));
            told.send(()).unwrap();
            assert!(committing.join().unwrap().is_ok());
        });
    });
}

fn a_reader_that_times_out_leaves_its_place_to_who_waits_longer<D: Driver>() {
    let (told, timed_out) = std::sync::mpsc::channel();
    let (tell_sent, sent) = std::sync::mpsc::channel();
    let daemon = move |mut connection: Connection| {
        let get = connection.request();
        assert_eq!(get.key, "a");
        tell_sent.send(()).unwrap();
        let commit = connection.request();
        timed_out.recv().unwrap();
        connection.answer(commit.id, &Answer::Committed { seq: commonhold::blocking::Seq(3) });
    };
    let options = ConnectOptions::new().timeout(Some(Duration::from_millis(300)));
    with(options, daemon, |client: D| {
        thread::scope(|scope| {
            let getting = scope.spawn(|| client.namespace("n").get::<u8>("a"));
            // The get is there, so its thread reads for all by now or very soon.
            sent.recv().unwrap();
            let committing = scope.spawn(|| client.commit());
            assert!(matches!(getting.join().unwrap(), Err(Error::TimedOut { .. })));
            told.send(()).unwrap();
            assert!(committing.join().unwrap().is_ok());
        });
    });
}

#[test]
fn each_task_times_out_by_its_own_clock_and_where_the_runtime_that_reads_is_held_up() {
    const LIMIT: Duration = Duration::from_millis(200);
    let first = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let second = Builder::new_current_thread().enable_all().build().unwrap();
    let fake = FakeDaemon::start();
    thread::scope(|scope| {
        // It answers the first request and no other.
        let daemon = scope.spawn(|| {
            let mut connection = fake.accept(1);
            let id = connection.request().id;
            connection.answer(id, &got("1"));
            connection
        });
        let options = ConnectOptions::new().timeout(Some(LIMIT));
        let client = first.block_on(commonhold::Client::connect_with(fake.dir(), options)).unwrap();
        let namespace = client.namespace("n").unwrap();
        let get = |namespace: commonhold::Namespace| async move {
            let began = Instant::now();
            (namespace.get_raw("a").await, began.elapsed())
        };
        assert!(first.block_on(get(namespace.clone())).0.is_ok());
        let connection = daemon.join().unwrap();
        let timed_out = |(outcome, took): (Result<_, Error>, Duration)| {
            assert!(matches!(outcome, Err(Error::TimedOut { .. })));
            assert!(took >= LIMIT && took < LIMIT * 50, "{took:?}");
        };
        let tasks: Vec<_> = (0..5)
            .map(|_| {
                thread::sleep(LIMIT / 8);
                first.spawn(get(namespace.clone()))
            })
            .collect();
        for task in tasks {
            timed_out(first.block_on(task).unwrap());
        }
        // From here on the task that reads cannot run, and is not needed for that.
        let (release, released) = std::sync::mpsc::channel::<()>();
        let (tell_held, held) = std::sync::mpsc::channel();
        first.spawn(async move {
            tell_held.send(()).unwrap();
            // Until it is released.
            let _ = released.recv();
        });
        held.recv().unwrap();
        timed_out(second.block_on(get(namespace.clone())));
        drop((release, connection));
    });
}

promises! {
    threads_share_a_client_and_each_gets_its_own_answers_in_any_order,
    one_thread_keeps_many_requests_in_flight_without_a_deadlock,
    threads_that_write_more_than_the_socket_takes_all_get_through,
    a_dropped_pending_request_is_done_and_disturbs_nobody,
    who_waits_beside_a_reader_times_out_by_its_own_clock,
    a_reader_that_times_out_leaves_its_place_to_who_waits_longer,
}
