//! Requests that leave together: those of a blocking client that gathers them, and those of tasks that ask at the same time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use commonhold::blocking::{Client, ConnectOptions, Error, Namespace};

use tokio::runtime::Builder;

use crate::fake::{Connection, FakeDaemon, encoded};
use crate::{WRITTEN, got, serve};

#[test]
fn tasks_that_are_answered_together_ask_together() {
    const TASKS: usize = 32;
    let runtimes = [Builder::new_multi_thread().worker_threads(1).enable_all().build(), {
        Builder::new_current_thread().enable_all().build()
    }];
    for runtime in runtimes {
        let runtime = runtime.unwrap();
        let daemon = |mut connection: Connection| {
            let mut asked: Vec<_> = (0..TASKS).map(|_| connection.request().id).collect();
            for _ in 0..10 {
                connection.send(&asked.iter().flat_map(|&id| encoded(id, &got("1"))).collect::<Vec<_>>());
                asked = vec![connection.request().id];
                assert_eq!(connection.waiting(), TASKS - 1, "they are there with the first");
                asked.extend((1..TASKS).map(|_| connection.request().id));
            }
            for id in asked {
                connection.answer(id, &got("1"));
            }
        };
        let fake = FakeDaemon::start();
        thread::scope(|scope| {
            scope.spawn(|| daemon(fake.accept(1)));
            runtime.block_on(async {
                let client = commonhold::Client::connect(fake.dir()).await.unwrap();
                let namespace = client.namespace("n").unwrap();
                let tasks: Vec<_> = (0..TASKS)
                    .map(|task| {
                        let namespace = namespace.clone();
                        tokio::spawn(async move {
                            for _ in 0..11 {
                                namespace.get_raw(&task.to_string()).await.unwrap().unwrap();
                            }
                        })
                    })
                    .collect();
                for task in tasks {
                    task.await.unwrap();
                }
            });
        });
    }
}

/// A client whose daemon is told what to do by the test itself, in the same thread.
fn connected(options: ConnectOptions) -> (FakeDaemon, Connection, Client) {
    let fake = FakeDaemon::start();
    let (connection, client) = thread::scope(|scope| {
        let accepted = scope.spawn(|| fake.accept(1));
        let client = Client::connect_with(fake.dir(), options).unwrap();
        (accepted.join().unwrap(), client)
    });
    (fake, connection, client)
}

fn begin(
    namespace: &Namespace,
    keys: &[&str],
) -> Vec<commonhold::blocking::Pending<Option<commonhold::blocking::Value>>> {
    keys.iter().map(|key| namespace.get_raw_later(key).unwrap()).collect()
}

#[test]
fn what_is_gathered_leaves_when_it_is_said_and_not_before() {
    let (_fake, mut connection, client) = connected(ConnectOptions::new());
    let namespace = client.namespace("n").unwrap();
    let alone = begin(&namespace, &["0"]);
    assert_eq!(connection.waiting(), 1, "without a pipeline each leaves at once");
    let pipeline = client.pipeline();
    let gathered = begin(&namespace, &["1", "2", "3"]);
    assert_eq!(connection.waiting(), 1);
    pipeline.send().unwrap();
    assert_eq!(connection.waiting(), 4);
    let later = begin(&namespace, &["4"]);
    assert_eq!(connection.waiting(), 4, "it gathers on");
    drop(pipeline);
    assert_eq!(connection.waiting(), 5);
    let last = begin(&namespace, &["5"]);
    assert_eq!(connection.waiting(), 6, "and is over");
    thread::scope(|scope| {
        scope.spawn(|| serve(connection, |asked| encoded(asked.id, &got(&format!("\"{}\"", asked.key)))));
        let values = [alone, gathered, later, last].into_iter().flatten();
        let texts: Vec<_> = values.map(|value| value.wait().unwrap().unwrap().text().to_owned()).collect();
        assert_eq!(texts, ["\"0\"", "\"1\"", "\"2\"", "\"3\"", "\"4\"", "\"5\""]);
        drop((namespace, client));
    });
}

#[test]
fn several_pipelines_are_one_until_the_last_is_dropped() {
    let (_fake, mut connection, client) = connected(ConnectOptions::new());
    let namespace = client.namespace("n").unwrap();
    let (one, two) = (client.pipeline(), client.clone().pipeline());
    let first = begin(&namespace, &["1"]);
    drop(one);
    assert_eq!(connection.waiting(), 1, "what was gathered is sent with each that ends");
    let second = begin(&namespace, &["2"]);
    assert_eq!(connection.waiting(), 1);
    drop(two);
    assert_eq!(connection.waiting(), 2);
    drop((first, second));
}

#[test]
fn what_is_much_leaves_and_so_does_what_is_waited_for_or_given_up() {
    let (_fake, mut connection, client) = connected(ConnectOptions::new());
    let namespace = client.namespace("n").unwrap();
    let pipeline = client.pipeline();
    let value = format!("\"{}\"", "x".repeat(10_000));
    let begun: Vec<_> = (0..6).map(|_| namespace.put_raw_later("k", &value).unwrap()).collect();
    assert_eq!(connection.waiting(), 0, "60,000 bytes");
    let more = namespace.put_raw_later("k", &value).unwrap();
    assert_eq!(connection.waiting(), 7, "70,000 bytes");
    // Nobody waits for its answer; that it is done was promised.
    drop(namespace.put_raw_later("forgotten", "1").unwrap());
    pipeline.send().unwrap();
    assert_eq!(connection.waiting(), 8);
    let one = namespace.put_raw_later("k", "1").unwrap();
    let two = namespace.put_raw_later("k", "2").unwrap();
    assert_eq!(connection.waiting(), 8);
    thread::scope(|scope| {
        scope.spawn(move || {
            // The answer to the first is waited for, so all are sent.
            let asked: Vec<_> = (0..10).map(|_| connection.request()).collect();
            for asked in &asked {
                connection.answer(asked.id, &WRITTEN);
            }
        });
        for put in begun.into_iter().chain([more, one, two]) {
            put.wait().unwrap();
        }
        drop(pipeline);
    });
}

#[test]
fn what_was_gathered_for_too_long_is_not_sent_to_him_who_waits_no_more() {
    let (_fake, mut connection, client) = connected(ConnectOptions::new().timeout(Some(Duration::from_millis(20))));
    let namespace = client.namespace("n").unwrap();
    let pipeline = client.pipeline();
    let put = namespace.put_raw_later("k", "1").unwrap();
    thread::sleep(Duration::from_millis(30));
    let late = put.wait();
    assert!(matches!(late, Err(Error::TimedOut { .. })), "{late:?}");
    pipeline.send().unwrap();
    assert_eq!(connection.waiting(), 0);
}

#[test]
fn what_was_gathered_is_sent_on_the_next_connection_where_the_first_is_lost() {
    let options = ConnectOptions::new().reconnect_for(Duration::from_secs(30));
    let (fake, connection, client) = connected(options);
    let namespace = client.namespace("n").unwrap();
    let pipeline = client.pipeline();
    let begun: Vec<_> = (0..3).map(|n| namespace.put_raw_later("k", &n.to_string()).unwrap()).collect();
    // Nobody waits for it; that it is sent with the others was promised.
    drop(namespace.put_raw_later("forgotten", "1").unwrap());
    drop(connection);
    let forgotten = AtomicUsize::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            serve(fake.accept(1), |asked| {
                forgotten.fetch_add(usize::from(asked.verb.contains("forgotten")), Ordering::SeqCst);
                encoded(asked.id, &WRITTEN)
            });
        });
        // Whether or not they could be written into the connection that was lost: each is done, and once.
        let _ = pipeline.send();
        for put in begun {
            put.wait().unwrap();
        }
        // Answered after the one that nobody waited for.
        namespace.put_raw("k", "3").unwrap();
        drop((pipeline, namespace, client));
    });
    assert_eq!(forgotten.into_inner(), 1);
}

#[test]
fn threads_that_wait_beside_an_open_pipeline_get_their_own_answers_and_nobody_is_left_waiting() {
    const THREADS: usize = 4;
    const ROUNDS: usize = 100;
    let (_fake, connection, client) = connected(ConnectOptions::new());
    thread::scope(|scope| {
        scope.spawn(|| serve(connection, |asked| encoded(asked.id, &got(&format!("\"{}\"", asked.key)))));
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let client = client.clone();
                scope.spawn(move || {
                    let namespace = client.namespace("n").unwrap();
                    // Some gather, some wait at once; what either begins, the other may send.
                    let pipeline = thread.is_multiple_of(2).then(|| client.pipeline());
                    for round in 0..ROUNDS {
                        let keys: Vec<String> = (0..8).map(|n| format!("{thread}-{round}-{n}")).collect();
                        let begun: Vec<_> = keys.iter().map(|key| namespace.get_raw_later(key).unwrap()).collect();
                        if let Some(pipeline) = &pipeline
                            && round.is_multiple_of(3)
                        {
                            pipeline.send().unwrap();
                        }
                        // Backwards: the last one is waited for while the others are there already.
                        for (key, get) in keys.iter().zip(begun).rev() {
                            assert_eq!(get.wait().unwrap().unwrap().text(), format!("\"{key}\""));
                        }
                        assert_eq!(namespace.get::<String>("alone").unwrap().as_deref(), Some("alone"));
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        drop(client);
    });
}

#[test]
fn a_daemon_that_does_not_read_holds_up_a_pipeline_no_longer_than_a_request_may_take() {
    let timeout = Duration::from_millis(300);
    let (_fake, connection, client) = connected(ConnectOptions::new().timeout(Some(timeout)));
    let namespace = client.namespace("n").unwrap();
    let pipeline = client.pipeline();
    let value = format!("\"{}\"", "x".repeat(60_000));
    // More than a socket takes: some of it stays here.
    let begun: Vec<_> = (0..40).map_while(|_| namespace.put_raw_later("k", &value).ok()).collect();
    let began = Instant::now();
    let sent = pipeline.send();
    assert!(matches!(sent, Err(Error::TimedOut { .. })), "{sent:?}");
    for put in begun {
        let error = put.wait().unwrap_err();
        assert!(matches!(error, Error::TimedOut { .. } | Error::OutcomeUnknown { .. }), "{error}");
    }
    drop(pipeline);
    // Not one time limit each: all of them had begun before.
    assert!(began.elapsed() < 10 * timeout, "{:?}", began.elapsed());
    drop(connection);
}
