//! Locks, slots, elections and flags against the real daemon: who has them, what ends them, and that no wait that is cut short leaves any behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use commonhold::blocking::{Batch, Client, Elected, Error, Fault};
use commonhold::testing::{TestStore, TestStoreOptions};

const BINARY: &str = env!("CARGO_BIN_EXE_commonhold");

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

fn store() -> TestStore {
    TestStoreOptions::new().binary(BINARY).start().unwrap()
}

/// Waits until something holds.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// How many hold the key, and how many wait for it.
fn parties(client: &Client, key: &str) -> (usize, usize) {
    let locks = client.locks().unwrap();
    locks.iter().find(|lock| lock.key == key).map_or((0, 0), |lock| (lock.holders.len(), lock.waiters.len()))
}

#[test]
fn a_lock_excludes_others_until_it_is_given_back_or_dropped_and_its_tokens_rise() {
    let store = store();
    let (one, other) = (store.client().unwrap(), store.client().unwrap());
    let written = one.namespace("n").unwrap().put("k", &1).unwrap();
    let mut last = written.seq.0;
    for round in 0..4 {
        let guard = one.lock(["a", "b"]).acquire().unwrap();
        assert!(guard.is_held() && guard.token() > last);
        last = guard.token();
        assert!(other.lock(["b", "c"]).try_acquire().unwrap().is_none());
        assert!(one.lock(["b"]).try_acquire().unwrap().is_none(), "another object of the client is another owner");
        let passes = other.lock(["c"]).try_acquire().unwrap().expect("other keys are free");
        thread::scope(|scope| {
            let waiting = scope.spawn(|| other.lock(["a"]).acquire().unwrap().token());
            eventually("it waits", || parties(&one, "a") == (1, 1));
            if round % 2 == 0 {
                guard.release().unwrap();
            } else {
                drop(guard);
            }
            let token = waiting.join().unwrap();
            assert!(token > last);
            last = token;
        });
        drop(passes);
    }
    let reading = [&one, &other].map(|client| client.lock(["a"]).shared().acquire().unwrap());
    assert_eq!(parties(&one, "a"), (2, 0));
    assert!(one.lock(["a"]).try_acquire().unwrap().is_none());
    drop(reading);
    eventually("nothing is locked", || {
        other.ping().unwrap();
        one.locks().unwrap().is_empty()
    });
}

#[test]
fn a_wait_ends_when_its_time_is_up_and_leaves_the_queue() {
    let store = store();
    let (one, other) = (store.client().unwrap(), store.client().unwrap());
    let guard = one.lock(["a"]).acquire().unwrap();
    let began = Instant::now();
    let lock = other.lock(["a"]).timeout(Duration::from_millis(60));
    for _ in 0..3 {
        assert!(lock.acquire().unwrap_err().is_timeout());
    }
    assert!(began.elapsed() >= Duration::from_millis(180));
    assert_eq!(parties(&one, "a"), (1, 0));
    guard.release().unwrap();
    // The object is as good as new.
    let guard = lock.acquire().unwrap();
    let again = lock.acquire().unwrap_err();
    assert!(matches!(again, Error::Fault(Fault::AlreadyHeld { .. })), "{again}");
    drop(guard);
    lock.acquire().unwrap().release().unwrap();
}

#[test]
fn a_lock_object_that_waits_for_a_key_is_told_so_when_another_thread_asks_it_again() {
    let store = store();
    let (one, other) = (store.client().unwrap(), store.client().unwrap());
    let guard = one.lock(["a"]).acquire().unwrap();
    let lock = other.lock(["a"]);
    thread::scope(|scope| {
        let first = scope.spawn(|| lock.acquire().map(|guard| guard.token()));
        eventually("it waits", || parties(&one, "a") == (1, 1));
        for again in [lock.acquire().map(Some), lock.try_acquire()] {
            let refused = again.unwrap_err();
            assert!(matches!(&refused, Error::Fault(Fault::AlreadyHeld { token: 0, .. })), "{refused}");
            assert!(refused.to_string().contains("waits for key \"a\" already"), "{refused}");
        }
        drop(guard);
        first.join().unwrap().unwrap();
    });
}

#[test]
fn a_wait_without_a_limit_of_its_own_outlasts_the_limit_of_requests() {
    let store = store();
    let options = commonhold::blocking::ConnectOptions::new().timeout(Some(Duration::from_millis(100)));
    let (one, other) = (store.client().unwrap(), Client::connect_with(store.dir(), options).unwrap());
    let guard = one.lock(["a"]).acquire().unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| other.lock(["a"]).acquire().map(|guard| guard.token()));
        thread::sleep(Duration::from_millis(350));
        assert_eq!(parties(&one, "a"), (1, 1));
        drop(guard);
        waiting.join().unwrap().unwrap();
    });
}

#[test]
fn two_who_tell_what_they_hold_and_wait_for_each_other_are_a_cycle_and_bad_wishes_are_refused() {
    let store = store();
    let client = store.client().unwrap();
    let (a, b) = (client.lock(["a"]).acquire().unwrap(), client.lock(["b"]).acquire().unwrap());
    thread::scope(|scope| {
        // Two tasks of one client.
        let first = scope.spawn(|| client.lock(["b"]).holding(&a).acquire().map(|guard| guard.token()));
        eventually("it waits", || parties(&client, "b") == (1, 1));
        let refused = client.lock(["a"]).holding(&b).acquire().unwrap_err();
        assert!(matches!(&refused, Error::Fault(Fault::Deadlock { cycle }) if cycle.len() == 2), "{refused}");
        // Who does not tell is no part of a cycle.
        let silent = client.lock(["a"]).timeout(Duration::from_millis(20)).acquire().unwrap_err();
        assert!(silent.is_timeout(), "{silent}");
        drop(b);
        first.join().unwrap().unwrap();
    });
    let itself = client.lock(["a", "x"]).holding(&a).acquire().unwrap_err();
    assert!(matches!(itself, Error::Fault(Fault::AlreadyHeld { .. })), "{itself}");
    let none: [&str; 0] = [];
    let too_many: Vec<String> = (0..1_000).map(|n| n.to_string()).collect();
    let refusals = [
        client.lock(none).acquire().unwrap_err(),
        client.lock([""]).acquire().unwrap_err(),
        client.lock(["k".repeat(64 * 1024)]).acquire().unwrap_err(),
        client.lock(too_many).acquire().unwrap_err(),
    ];
    for refused in refusals {
        assert!(matches!(refused, Error::Fault(Fault::Invalid { .. } | Fault::TooLarge { .. })), "{refused}");
    }
    client.ping().unwrap();
}

#[test]
fn a_lock_ends_with_its_session_and_its_guard_knows() {
    let store = store();
    let (one, other) = (store.client().unwrap(), store.client().unwrap());
    let guard = one.lock(["a"]).acquire().unwrap();
    let held = one.lock(["b"]).acquire().unwrap();
    let session = one.locks().unwrap()[0].holders[0].session;
    thread::scope(|scope| {
        let waiting = scope.spawn(|| other.lock(["a"]).acquire().map(|guard| guard.token()));
        eventually("it waits", || parties(&other, "a") == (1, 1));
        other.end_session(session).unwrap();
        assert!(waiting.join().unwrap().unwrap() > guard.token());
    });
    eventually("the client has found out", || one.ping().is_ok() && one.connections_lost() == 1);
    assert!(!guard.is_held() && !held.is_held());
    assert_eq!(one.restarts(), 0);
    let refused = guard.release().unwrap_err();
    assert!(matches!(&refused, Error::Fault(Fault::NotHeld { .. })), "{refused}");
    let refused = one.lock(["c"]).holding(&held).acquire().unwrap_err();
    assert!(matches!(&refused, Error::Fault(Fault::NotHeld { .. })), "{refused}");
    drop(held);
    assert!(one.lock(["a", "b"]).acquire().unwrap().is_held());
}

#[test]
fn a_restart_ends_what_was_held_and_who_waited_waits_on() {
    let mut store = store();
    let clients: Vec<Client> = (0..3).map(|_| store.client().unwrap()).collect();
    let guard = clients[0].lock(["a"]).acquire().unwrap();
    let last = Arc::new(AtomicU32::new(0));
    thread::scope(|scope| {
        let told = scope.spawn(|| clients[2].restarted(0, Some(PATIENCE)).unwrap());
        let waiting = scope.spawn(|| {
            let guard = clients[1].lock(["a"]).acquire().unwrap();
            last.fetch_add(1, Ordering::Relaxed);
            guard
        });
        eventually("it waits", || parties(&clients[0], "a") == (1, 1));
        store.kill();
        store.restart().unwrap();
        assert_eq!(told.join().unwrap(), 1);
        let heir = waiting.join().unwrap();
        assert!(heir.is_held() && heir.token() > guard.token(), "tokens rise across restarts");
        clients[0].ping().unwrap();
        assert!(!guard.is_held());
        assert!(clients[0].lock(["a"]).try_acquire().unwrap().is_none(), "the heir has it");
        drop(heir);
    });
    assert!(matches!(clients[2].restarted(1, Some(Duration::from_millis(20))), Err(Error::TimedOut { .. })));
}

#[test]
fn a_write_with_a_token_is_done_only_while_its_lock_is_held() {
    let mut store = store();
    let (one, other) = (store.client().unwrap(), store.client().unwrap());
    let records = one.namespace("n").unwrap();
    let write = |client: &Client, token: u64| {
        client.write(&Batch::new().put(&records, "k", &token).unwrap().if_token(token)).map(|written| written.seq)
    };
    let guard = one.lock(["a"]).acquire().unwrap();
    let token = guard.token();
    one.write(&Batch::new().put(&records, "k", &1).unwrap().fenced_by(&guard)).unwrap();
    assert!(write(&other, token).unwrap().0 > token, "whose grant it is does not matter");
    guard.release().unwrap();
    let not_live = |tried: Result<_, Error>| {
        let refused = tried.unwrap_err();
        assert!(matches!(refused, Error::Fault(Fault::TokenNotLive { .. })), "{refused}");
    };
    not_live(write(&one, token));
    let guard = one.lock(["a"]).acquire().unwrap();
    let volatile = one.namespace("v").unwrap().volatile();
    one.write(&Batch::new().put(&volatile, "k", &1).unwrap().fenced_by(&guard)).unwrap();
    store.kill();
    store.restart().unwrap();
    not_live(write(&other, guard.token()));
    let fenced = Batch::new().put(&records, "k", &2).unwrap().fenced_by(&guard);
    not_live(one.write(&fenced).map(|written| written.seq));
    assert!(!guard.is_held());
}

#[test]
fn slots_are_shared_by_all_clients_and_end_with_who_has_them() {
    let store = store();
    let (one, other) = (store.client().unwrap(), store.client().unwrap());
    let (mut mine, theirs) = (one.slots("g", 3), other.slots("g", 3));
    let two = mine.acquire(2).unwrap();
    assert!(theirs.try_acquire(2).unwrap().is_none());
    let third = theirs.try_acquire(1).unwrap().expect("one is left");
    let refused = other.slots("g", 4).acquire(1).unwrap_err();
    assert!(matches!(refused, Error::Fault(Fault::LimitMismatch { .. })), "{refused}");
    for refused in [mine.acquire(0), mine.acquire(4), one.slots("h", 0).acquire(1), one.slots("", 1).acquire(1)] {
        let refused = refused.unwrap_err();
        assert!(matches!(refused, Error::Fault(Fault::Invalid { .. })), "{refused}");
    }
    assert!(theirs.clone().timeout(Duration::from_millis(20)).acquire(1).unwrap_err().is_timeout());
    let group = &one.slot_groups().unwrap()[0];
    assert_eq!((group.limit, group.taken, group.holders.len(), group.waiters.len()), (3, 3, 2, 0));
    thread::scope(|scope| {
        let waiting = scope.spawn(|| theirs.acquire(2).unwrap().slots());
        eventually("it waits", || one.slot_groups().unwrap()[0].waiters.len() == 1);
        drop(two);
        assert_eq!(waiting.join().unwrap(), 2);
    });
    mine.set_limit(1).unwrap();
    drop(third);
    mine.acquire(1).unwrap().release().unwrap();
}

#[test]
fn an_election_passes_to_the_next_until_one_says_that_it_is_done() {
    let mut store = store();
    let (one, other) = (store.client().unwrap(), store.client().unwrap());
    let Elected::Won(first) = one.elect("e").unwrap() else { panic!("nobody else asks") };
    assert!(matches!(other.try_elect("e").unwrap(), Elected::Running));
    assert!(other.elect_within("e", Duration::from_millis(20)).unwrap_err().is_timeout());
    thread::scope(|scope| {
        let next = scope.spawn(|| other.elect("e").unwrap());
        drop(first);
        let Elected::Won(second) = next.join().unwrap() else { panic!("the first has given up") };
        let last = scope.spawn(|| one.elect("e").unwrap());
        second.done().unwrap();
        assert!(matches!(last.join().unwrap(), Elected::Done));
    });
    assert!(matches!(one.try_elect("e").unwrap(), Elected::Done));
    // What was initialised in the daemon's memory is gone with it, and so is that it was done.
    let Elected::Won(lost) = one.elect("f").unwrap() else { panic!("nobody else asks") };
    store.kill();
    store.restart().unwrap();
    let Elected::Won(again) = other.elect("f").unwrap() else { panic!("the daemon is another one") };
    one.ping().unwrap();
    let refused = lost.done().unwrap_err();
    assert!(matches!(refused, Error::Fault(Fault::NotHeld { .. })), "{refused}");
    again.done().unwrap();
    assert!(matches!(one.elect("e").unwrap(), Elected::Won(_)));
}

#[test]
fn flags_are_set_by_writes_and_for_all_and_go_with_who_has_them() {
    let mut store = store();
    let (one, other) = (store.client().unwrap(), store.client().unwrap());
    let (mine, theirs) = (one.namespace("n").unwrap(), other.namespace("n").unwrap());
    let (flag, theirs_flag) = (mine.update_flag().unwrap(), theirs.update_flag().unwrap());
    let sets = |expected: (bool, bool)| assert_eq!((flag.is_set().unwrap(), theirs_flag.is_set().unwrap()), expected);
    sets((false, false));
    mine.put("k", &1).unwrap();
    sets((true, true));
    flag.clear().unwrap();
    sets((false, true));
    theirs.set_all_flags().unwrap();
    theirs_flag.clear().unwrap();
    sets((true, false));
    mine.clear_all_flags().unwrap();
    sets((false, false));
    mine.put("k", &2).unwrap();
    mine.flush().unwrap();
    sets((false, false));
    assert_eq!(one.flags().unwrap()[0].sessions.len(), 2);
    store.kill();
    store.restart().unwrap();
    sets((true, true));
    flag.clear().unwrap();
    sets((false, true));
    drop(theirs_flag);
    other.ping().unwrap();
    assert_eq!(one.flags().unwrap()[0].sessions.len(), 1);
    drop(other);
    drop(flag);
    eventually("nobody has a flag", || one.flags().unwrap().is_empty());
}

mod asynchronous {
    use commonhold::{Client, Elected, blocking};
    use tokio::runtime::{Builder, Runtime};
    use tokio::time::timeout;

    use super::*;

    fn runtime() -> Runtime {
        Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    }

    #[test]
    fn waits_that_are_cut_short_under_load_leave_no_lock_behind() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let store = store();
        let watcher = store.client().unwrap();
        runtime().block_on(async {
            let held = Arc::new([const { AtomicU32::new(0) }; 3]);
            let mut tasks = Vec::new();
            let mut clients = Vec::new();
            for client in 0..3 {
                let client_of = Client::connect(store.dir()).await.unwrap();
                for task in 0..6 {
                    let (client_of, held) = (client_of.clone(), Arc::clone(&held));
                    let mut random = fastrand::Rng::with_seed(seed + client * 100 + task);
                    tasks.push(tokio::spawn(async move {
                        for _ in 0..150 {
                            let keys: Vec<usize> = (0..3).filter(|_| random.bool()).collect();
                            let keys = if keys.is_empty() { vec![0] } else { keys };
                            let lock = client_of.lock(keys.iter().map(|key| format!("key {key}")));
                            let patience = Duration::from_micros(random.u64(0..3_000));
                            // The object is used again after a future of it was dropped.
                            let cut = timeout(patience, client_of.slots("g", 2).acquire(1)).await;
                            if let Ok(slot) = cut {
                                assert!(slot.unwrap().is_held());
                            }
                            if let Ok(elected) = timeout(patience, client_of.elect("e")).await {
                                assert!(matches!(elected.unwrap(), Elected::Won(_)), "nobody says that it is done");
                            }
                            for _ in 0..2 {
                                let Ok(guard) = timeout(patience, lock.acquire()).await else { continue };
                                let guard = guard.unwrap();
                                for &key in &keys {
                                    assert_eq!(held[key].fetch_add(1, Ordering::SeqCst), 0, "two hold key {key}");
                                }
                                tokio::task::yield_now().await;
                                for &key in &keys {
                                    held[key].fetch_sub(1, Ordering::SeqCst);
                                }
                                if random.bool() { guard.release().await.unwrap() } else { drop(guard) }
                            }
                        }
                    }));
                }
                clients.push(client_of);
            }
            for task in tasks {
                task.await.unwrap();
            }
            // The clients live: what a cut wait had been granted was given back by them.
            eventually("nothing is locked", || watcher.locks().unwrap().is_empty());
            eventually("no slot is taken", || watcher.slot_groups().unwrap().iter().all(|group| group.taken == 0));
            assert!(matches!(watcher.elect_within("e", PATIENCE).unwrap(), blocking::Elected::Won(_)));
            for client in clients {
                assert_eq!(client.connections_lost(), 0);
            }
        });
    }

    #[test]
    fn an_idle_client_learns_at_once_that_its_lock_was_lost() {
        let store = store();
        let operator = store.client().unwrap();
        runtime().block_on(async {
            let client = Client::connect(store.dir()).await.unwrap();
            let guard = client.lock(["a"]).acquire().await.unwrap();
            operator.end_session(operator.locks().unwrap()[0].holders[0].session).unwrap();
            eventually("the guard knows", || !guard.is_held());
            assert!(matches!(guard.release().await, Err(Error::Fault(Fault::NotHeld { .. }))));
            client.lock(["a"]).acquire().await.unwrap().release().await.unwrap();
            assert!(client.lock(["a"]).try_acquire().await.unwrap().is_some());
        });
    }

    #[test]
    fn a_restart_is_told_to_who_waits_for_it() {
        let mut store = store();
        runtime().block_on(async {
            let client = Client::connect(store.dir()).await.unwrap();
            let told = tokio::spawn({
                let client = client.clone();
                async move { client.restarted(0).await }
            });
            store.kill();
            store.restart().unwrap();
            assert_eq!(timeout(PATIENCE, told).await.unwrap().unwrap().unwrap(), 1);
        });
    }
}
