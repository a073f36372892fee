//! What the clients make of grants, against a daemon that says what its test tells it: whom it elects, which words its flags
//! have, and what it says too late.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use commonhold::blocking::{Client, Elected, Error, Fault};
use commonhold::proto::{Answer, Election};

use crate::fake::{Asked, Connection, FakeDaemon, encoded};

/// Serves one connection and answers by `answer`; gives all that was asked.
fn served(mut connection: Connection, answer: impl Fn(&Asked) -> Answer<'static>) -> Vec<String> {
    let mut asked_for = Vec::new();
    while let Some(asked) = connection.next() {
        connection.try_send(&encoded(asked.id, &answer(&asked)));
        asked_for.push(asked.verb);
    }
    asked_for
}

/// To the daemon a client is one session: it would tell each of its threads that it has won.
fn wins_always(asked: &Asked) -> Answer<'static> {
    let is_election = asked.verb.starts_with("Elect ");
    if is_election { Answer::Elected { state: Election::Won } } else { Answer::Done }
}

#[test]
fn one_thread_of_a_client_at_a_time_is_elected() {
    let fake = FakeDaemon::start();
    thread::scope(|scope| {
        let daemon = scope.spawn(|| served(fake.accept(1), wins_always));
        let client = Client::connect(fake.dir()).unwrap();
        let electing = AtomicU32::new(0);
        thread::scope(|scope| {
            for thread in 0..4 {
                let (client, electing) = (&client, &electing);
                scope.spawn(move || {
                    for round in 0..20 {
                        let Elected::Won(election) = client.elect("e").unwrap() else { panic!("it always wins") };
                        assert_eq!(electing.fetch_add(1, Ordering::SeqCst), 0, "two have won");
                        assert!(matches!(client.try_elect("e").unwrap(), Elected::Running));
                        let late = client.elect_within("e", Duration::from_millis(1)).unwrap_err();
                        assert!(late.is_timeout(), "{late}");
                        assert!(matches!(client.try_elect("other").unwrap(), Elected::Won(_) | Elected::Running));
                        electing.fetch_sub(1, Ordering::SeqCst);
                        if (thread + round) % 2 == 0 { election.done().unwrap() } else { drop(election) }
                    }
                });
            }
        });
        client.ping().unwrap();
        drop(client);
        let asked = daemon.join().unwrap();
        let count = |what: &str| asked.iter().filter(|asked| asked.as_str() == what).count();
        let ended = |done| count(&format!("Initialized {{ name: \"e\", done: {done} }}"));
        assert_eq!((count("Elect { name: \"e\", wait: true }"), ended(true), ended(false)), (80, 40, 40));
        assert_eq!(
            count("Elect { name: \"e\", wait: false }"),
            0,
            "while it is won here, nobody else needs to be asked"
        );
    });
}

#[test]
fn one_task_of_a_client_at_a_time_is_elected() {
    let fake = FakeDaemon::start();
    thread::scope(|scope| {
        let daemon = scope.spawn(|| served(fake.accept(1), wins_always));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let client = commonhold::Client::connect(fake.dir()).await.unwrap();
            let electing = std::sync::Arc::new(AtomicU32::new(0));
            let tasks: Vec<_> = (0..4)
                .map(|task| {
                    let (client, electing) = (client.clone(), std::sync::Arc::clone(&electing));
                    tokio::spawn(async move {
                        for round in 0..20 {
                            let commonhold::Elected::Won(election) = client.elect("e").await.unwrap() else {
                                panic!("it always wins")
                            };
                            assert_eq!(electing.fetch_add(1, Ordering::SeqCst), 0, "two have won");
                            let other = client.try_elect("e").await.unwrap();
                            assert!(matches!(other, commonhold::Elected::Running));
                            let dropped = tokio::time::timeout(Duration::from_micros(10), client.elect("e")).await;
                            assert!(dropped.is_err(), "it waits");
                            electing.fetch_sub(1, Ordering::SeqCst);
                            if (task + round) % 2 == 0 { election.done().await.unwrap() } else { drop(election) }
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
            client.ping().await.unwrap();
        });
        let asked = daemon.join().unwrap();
        let count = |what: &str| asked.iter().filter(|asked| asked.starts_with(what)).count();
        assert_eq!((count("Elect {"), count("Initialized {")), (80, 80));
    });
}

#[test]
fn the_flags_of_one_client_are_cleared_one_by_one_and_are_set_on_the_next_connection() {
    let fake = FakeDaemon::start();
    let word = Mutex::new(4_u64);
    let answer = |asked: &Asked| {
        let mut word = word.lock().unwrap();
        if asked.verb.contains("SetAll") {
            *word += 1 + *word % 2;
        }
        let is_flag = asked.verb.starts_with("Flag ");
        if is_flag { Answer::Flag { set: *word % 2 == 1, word: *word } } else { Answer::Done }
    };
    let sever = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        let daemon = scope.spawn(|| {
            let mut first = fake.accept(1);
            while let Some(asked) = first.next() {
                if sever.load(Ordering::SeqCst) {
                    break;
                }
                first.try_send(&encoded(asked.id, &answer(&asked)));
            }
            drop(first);
            served(fake.accept(1), answer)
        });
        let client = Client::connect(fake.dir()).unwrap();
        let graph = client.namespace("graph").unwrap();
        let (one, other) = (graph.update_flag().unwrap(), graph.update_flag().unwrap());
        let sets = |expected: (bool, bool)| assert_eq!((one.is_set().unwrap(), other.is_set().unwrap()), expected);
        sets((false, false));
        graph.set_all_flags().unwrap();
        sets((true, true));
        one.clear().unwrap();
        sets((false, true));
        graph.set_all_flags().unwrap();
        sets((true, true));
        one.clear().unwrap();
        other.clear().unwrap();
        sets((false, false));
        one.set();
        sets((true, false));
        one.clear().unwrap();
        // The answer to a clearing is lost with the connection: it is done, and set again by the loss.
        sever.store(true, Ordering::SeqCst);
        one.clear().unwrap();
        sets((true, true));
        one.clear().unwrap();
        sets((false, true));
        drop(one);
        assert!(other.is_set().unwrap());
        drop(other);
        client.ping().unwrap();
        drop((graph, client));
        let asked = daemon.join().unwrap();
        assert!(asked[0].contains("Register { set: true }"), "{asked:?}");
        let forgets = asked.iter().filter(|asked| asked.contains("Forget")).count();
        assert_eq!(forgets, 1, "{asked:?}");
    });
}

#[test]
fn slots_are_given_back_by_their_lease_and_refusals_are_told() {
    let fake = FakeDaemon::start();
    thread::scope(|scope| {
        let daemon = scope.spawn(|| {
            served(fake.accept(1), |asked| match asked.verb.as_str() {
                verb if verb.contains("wait: false") => {
                    Answer::Fault(Fault::WouldWait { what: "a slot".to_owned(), held_by: "session 1".to_owned() })
                }
                verb if verb.contains("limit: 9") => {
                    Answer::Fault(Fault::LimitMismatch { group: "g".to_owned(), limit: 4, asked: 9 })
                }
                verb if verb.starts_with("Acquire") => Answer::Acquired { lease: 77 },
                _ => Answer::Done,
            })
        });
        let client = Client::connect(fake.dir()).unwrap();
        let mut group = client.slots("g", 4);
        let slots = group.acquire(2).unwrap();
        assert_eq!((slots.slots(), slots.is_held()), (2, true));
        slots.release().unwrap();
        drop(group.acquire(1).unwrap());
        assert!(group.try_acquire(1).unwrap().is_none());
        let refused = client.slots("g", 9).acquire(1).unwrap_err();
        assert!(matches!(refused, Error::Fault(Fault::LimitMismatch { .. })), "{refused}");
        group.set_limit(2).unwrap();
        group.acquire(1).unwrap().release().unwrap();
        drop((group, client));
        let acquire =
            |limit, slots, wait| format!("Acquire {{ group: \"g\", limit: {limit}, slots: {slots}, wait: {wait} }}");
        let release = || "Release { lease: 77 }".to_owned();
        let expected = [
            acquire(4, 2, true),
            release(),
            acquire(4, 1, true),
            release(),
            acquire(4, 1, false),
            acquire(9, 1, true),
            "SetLimit { group: \"g\", limit: 2 }".to_owned(),
            acquire(2, 1, true),
            release(),
        ];
        assert_eq!(daemon.join().unwrap(), expected);
    });
}

#[test]
fn a_grant_that_comes_after_the_clients_own_clock_has_run_out_is_taken_and_not_lost() {
    let fake = FakeDaemon::start();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut connection = fake.accept(1);
            // It does not keep to the deadline, and says a word only to the cancel, which it does not know yet.
            let asked = connection.request();
            assert_eq!(asked.deadline_ms, 30);
            while connection.waiting() == 0 {
                thread::sleep(Duration::from_millis(1));
            }
            connection.answer(asked.id, &Answer::Locked { token: 5 });
            assert_eq!(connection.request().verb, "Unlock { token: 5 }");
        });
        let client = Client::connect(fake.dir()).unwrap();
        let guard = client.lock(["k"]).timeout(Duration::from_millis(30)).acquire().unwrap();
        assert_eq!(guard.token(), 5);
        drop(guard);
    });
}

/// Either client, and what it runs on.
enum Waiter {
    Blocking(Client),
    Async(tokio::runtime::Runtime, commonhold::Client),
}

impl Waiter {
    fn connect(dir: &Path, is_async: bool) -> Self {
        if !is_async {
            return Self::Blocking(Client::connect(dir).unwrap());
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let client = runtime.block_on(commonhold::Client::connect(dir)).unwrap();
        Self::Async(runtime, client)
    }

    /// Waits so long at most for a lock that it does not get. Answers why not; it has not waited much longer.
    fn waits_in_vain(&self, timeout: Duration) -> String {
        let began = Instant::now();
        let error = match self {
            Self::Blocking(client) => client.lock(["k"]).timeout(timeout).acquire().err(),
            Self::Async(runtime, client) => runtime.block_on(client.lock(["k"]).timeout(timeout).acquire()).err(),
        };
        let (waited, error) = (began.elapsed(), error.expect("it is too late"));
        assert!(error.is_timeout(), "{error}");
        assert!(waited >= timeout && waited < timeout + Duration::from_secs(3), "{waited:?}: {error}");
        error.to_string()
    }
}

#[test]
fn a_wait_ends_in_time_where_the_daemon_is_gone_and_where_it_says_nothing() {
    for is_async in [false, true] {
        let fake = FakeDaemon::start();
        let dir = fake.dir().to_owned();
        thread::scope(|scope| {
            let dying = scope.spawn(move || {
                drop(fake.accept(1).request());
                fake.die()
            });
            let waiter = Waiter::connect(&dir, is_async);
            let why = waiter.waits_in_vain(Duration::from_millis(300));
            assert!(why.contains("a daemon to connect to"), "{why}");
            drop(dying.join().unwrap());
        });
        let fake = FakeDaemon::start();
        thread::scope(|scope| {
            let silent = scope.spawn(|| {
                let mut connection = fake.accept(1);
                while connection.next().is_some() {}
            });
            let waiter = Waiter::connect(fake.dir(), is_async);
            let why = waiter.waits_in_vain(Duration::from_millis(300));
            assert!(why.contains("it may be stopped or very busy"), "{why}");
            drop(waiter);
            silent.join().unwrap();
        });
    }
}

#[test]
fn a_wish_that_is_sent_again_has_what_is_left_of_its_time_and_what_comes_too_late_is_given_back() {
    for is_async in [false, true] {
        let fake = FakeDaemon::start();
        thread::scope(|scope| {
            let daemon = scope.spawn(|| {
                let mut first = fake.accept(1);
                assert_eq!(first.request().deadline_ms, 600);
                thread::sleep(Duration::from_millis(100));
                drop(first);
                let mut next = fake.accept(2);
                let again = next.request();
                assert!((1..=500).contains(&again.deadline_ms), "{again:?}");
                // It cancels when its time is over, and the grant crosses that.
                while next.waiting() == 0 {
                    thread::sleep(Duration::from_millis(1));
                }
                next.answer(again.id, &Answer::Locked { token: 5 });
                assert_eq!(next.request().verb, "Unlock { token: 5 }");
            });
            let waiter = Waiter::connect(fake.dir(), is_async);
            waiter.waits_in_vain(Duration::from_millis(600));
            daemon.join().unwrap();
        });
    }
}
