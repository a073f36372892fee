//! How a daemon begins and ends, and what is there afterwards.
#![cfg(feature = "daemon")]

mod daemon_support;

use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::{Arc, mpsc};

use commonhold::daemon::{Daemon, Error, OnDiskFailure, Preload, Running, ServeOptions, Shutdown, run};
use commonhold::engine::clock::SystemClock;
use commonhold::engine::disk::{Call, FailWith, Failure, SimDisk};
use commonhold::engine::{self, Surroundings};
use commonhold::lock::MemoryLocks;
use commonhold::proto::{Answer, Durability, Fault, Verb};
use daemon_support::{PATIENCE, Peer, Place, eventually, flush, frame_of, get, put};

however_sessions_are_served! {
    a_second_owner_is_refused_and_told_who_the_first_is,
    what_a_killed_daemon_leaves_does_not_stop_the_next_and_nothing_acknowledged_is_lost,
    a_stop_flushes_what_is_dirty_and_removes_the_socket,
    a_client_that_asks_for_the_stop_is_answered_when_the_files_are_up_to_date,
    a_stop_does_not_wait_for_a_reader_of_a_file_and_names_what_is_not_flushed,
    writes_acknowledged_while_the_daemon_stops_are_in_the_files,
    a_daemon_that_lost_its_owner_lock_reads_on_writes_no_more_and_says_so_at_the_end,
    run_tells_when_it_is_ready_and_ends_when_told,
    run_ends_when_a_client_asks,
    a_stop_right_after_the_first_answer_flushes_as_any_other,
    a_directory_that_cannot_be_served_is_refused_in_words,
    a_very_long_path_is_served,
    a_preloaded_namespace_is_in_memory_before_anybody_asks,
    a_synced_store_has_committed_what_it_answers,
    a_second_stop_skips_the_flush_and_says_so_and_nothing_is_lost,
    a_journal_beyond_its_limit_is_flushed_by_the_daemon_itself_and_told,
    a_daemon_whose_disk_fails_rescues_what_is_in_memory_and_says_so_when_it_is_stopped,
    a_daemon_whose_disk_fails_ends_if_it_was_told_to,
    a_stop_that_cannot_write_what_is_in_memory_says_what_is_lost,
    a_full_disk_is_told_by_the_status_until_there_is_room_again,
}

fn a_stop_right_after_the_first_answer_flushes_as_any_other(place: &Place) {
    let (stopper, shutdown) = Shutdown::by_hand();
    let mut options = place.options();
    let dir = place.path().to_owned();
    options.on_ready = Some(Arc::new(move |_| {
        // Clients are served, and the start has not returned.
        let mut peer = Peer::connect(&dir);
        assert!(matches!(peer.call(put("n", "a", "1")).answer(), Answer::Written { .. }));
        stopper.stop();
        // Nothing is waited for: this gives a daemon that takes it for a stop of the start the time to end wrongly.
        std::thread::sleep(std::time::Duration::from_millis(200));
    }));
    run(options, shutdown).unwrap();
    assert_eq!(std::fs::read_to_string(place.file("n")).unwrap(), "{\n\"a\":1\n}\n");
}

/// A daemon on a simulated disk, which can be made to fail; its directory and socket are real.
fn on_a_simulated_disk(place: &Place, change: impl FnOnce(&mut ServeOptions)) -> (Running, SimDisk) {
    let dir = std::fs::canonicalize(place.path()).unwrap();
    std::fs::DirBuilder::new().mode(0o700).create(dir.join(".commonhold")).unwrap();
    let disk = SimDisk::new(1);
    disk.make_dirs(&dir);
    let around = Surroundings {
        disk: Arc::new(disk.clone()),
        locks: Arc::new(MemoryLocks::new()),
        clock: Arc::new(SystemClock::new()),
        entropy: 7,
    };
    let mut options = place.options();
    change(&mut options);
    (Daemon::start_in(options, around).unwrap(), disk)
}

fn a_full_disk_is_told_by_the_status_until_there_is_room_again(place: &Place) {
    let (daemon, disk) = on_a_simulated_disk(place, |options| options.store.room_bytes = 4_096);
    let mut peer = place.connect();
    peer.call(put("f", "a", "1"));
    assert_eq!(status(&mut peer)["disk_full"], false);
    for call in [Call::Allocate, Call::Create] {
        disk.fail(Failure::nth(1, FailWith::NoSpace).of(call).for_good());
    }
    let value = format!("\"{}\"", "x".repeat(500));
    eventually("a write is refused", || {
        matches!(peer.call(put("f", "b", &value)).answer(), Answer::Fault(Fault::Full { .. }))
    });
    let told = status(&mut peer);
    assert_eq!(told["disk_full"], true);
    assert!(told["warnings"].to_string().contains("the disk is full"), "{told}");
    disk.mend();
    eventually("there is room again, without a write", || status(&mut peer)["disk_full"] == false);
    assert!(matches!(peer.call(put("f", "b", &value)).answer(), Answer::Written { .. }));
    daemon.stop().unwrap();
}

fn status(peer: &mut Peer) -> serde_json::Value {
    let reply = peer.call(Verb::Status);
    let Answer::Status { json } = reply.answer() else { panic!("{:?}", reply.answer()) };
    serde_json::from_str(json).unwrap()
}

fn a_second_stop_skips_the_flush_and_says_so_and_nothing_is_lost(place: &Place) {
    // A flush may be faster than the look at the second stop; then all went well, and it is tried again.
    eventually("a second stop has come in time", || {
        let (sender, ready) = mpsc::channel();
        let mut options = place.options();
        options.on_ready = Some(Arc::new(move |_: &Path| sender.send(()).unwrap()));
        let (stopper, shutdown) = Shutdown::by_hand();
        let running = std::thread::spawn(move || run(options, shutdown));
        ready.recv_timeout(PATIENCE).unwrap();
        place.connect().call(put("two", "a", "1"));
        // Both before the daemon has looked at the first, so that the second is there when the flush begins.
        stopper.stop();
        stopper.stop();
        match running.join().unwrap() {
            Ok(()) => false,
            Err(Error::FlushSkipped) => true,
            Err(error) => panic!("{error:?}"),
        }
    });
    // What was left behind of it ends by itself: here it shares the process with the test.
    eventually("the store is free", || match Daemon::start(place.options()) {
        Ok(_daemon) => place.connect().call(get("two", "a")).value().as_deref() == Some("1"),
        Err(_) => false,
    });
}

fn a_journal_beyond_its_limit_is_flushed_by_the_daemon_itself_and_told(place: &Place) {
    let mut options = place.options();
    options.store.journal_limit = Some(200 << 10);
    let daemon = Daemon::start(options).unwrap();
    let mut peer = place.connect();
    let value = format!("\"{}\"", "x".repeat(10_000));
    peer.call(put("rare", "k", "1"));
    for number in 0..200 {
        peer.call(put("busy", &(number % 4).to_string(), &value));
        let bytes = status(&mut peer)["journal"]["bytes"].as_u64().unwrap();
        // Two megabytes come, and flushes that did not help at once let writers pass for a moment.
        assert!(bytes <= 1 << 20, "the writer waits for the flushes: {bytes} after {number} writes");
    }
    assert_eq!(status(&mut peer)["journal"]["limit"], 200 << 10);
    eventually("it has flushed by itself", || {
        let journal = &status(&mut peer)["journal"];
        journal["auto_flushes"].as_u64() >= Some(2) && journal["bytes"].as_u64() <= Some(200 << 10)
    });
    assert_eq!(text(&place.file("rare")), "{\n\"k\":1\n}\n");
    assert!(place.file("busy").exists());
    daemon.stop().unwrap();
}

fn a_daemon_whose_disk_fails_rescues_what_is_in_memory_and_says_so_when_it_is_stopped(place: &Place) {
    let (daemon, disk) = on_a_simulated_disk(place, |_| {});
    let mut peer = place.connect();
    peer.call(put("r", "a", "1"));
    disk.fail(Failure::nth(1, FailWith::Io).of(Call::Sync).on("journal"));
    eventually("the rescue has come through and says so", || {
        let words = status(&mut peer)["refuses_writes"].as_str().unwrap_or_default().to_owned();
        words.contains("a sync of ") && words.contains("every file holds what is in memory")
    });
    let file = std::fs::canonicalize(place.path()).unwrap().join("kv_store_r.json");
    assert_eq!(disk.read_file(file), b"{\n\"a\":1\n}\n");
    assert_eq!(peer.call(get("r", "a")).value().as_deref(), Some("1"));
    let error = daemon.stop().unwrap_err();
    let Error::Unavailable { reason } = &error else { panic!("{error:?}") };
    assert!(reason.contains("every file holds what is in memory"), "{reason}");
}

fn a_daemon_whose_disk_fails_ends_if_it_was_told_to(place: &Place) {
    let (daemon, disk) = on_a_simulated_disk(place, |options| options.on_disk_failure = OnDiskFailure::Exit);
    place.connect().call(put("r", "a", "1"));
    disk.fail(Failure::nth(1, FailWith::Io).of(Call::Sync).on("journal"));
    let error = daemon.wait().unwrap_err();
    assert!(matches!(&error, Error::Unavailable { reason } if reason.contains("every file holds")), "{error:?}");
}

fn a_stop_that_cannot_write_what_is_in_memory_says_what_is_lost(place: &Place) {
    let (daemon, disk) = on_a_simulated_disk(place, |options| options.store.durability = Durability::Memory);
    let mut peer = place.connect();
    peer.call(put("m", "a", "1"));
    disk.fail(Failure::nth(1, FailWith::NoSpace).for_good());
    peer.call(put("m", "b", "2"));
    let error = daemon.stop().unwrap_err();
    let Error::Unavailable { reason } = &error else { panic!("{error:?}") };
    assert!(reason.contains("could not flush m:") && reason.contains("in memory only"), "{reason}");
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

fn a_second_owner_is_refused_and_told_who_the_first_is(place: &Place) {
    let _daemon = place.serve();
    let error = Daemon::start(place.options()).unwrap_err();
    let Error::Store(engine::Error::Owned { holder: Some(holder), .. }) = &error else { panic!("{error:?}") };
    assert_eq!(holder.pid, std::process::id());
    assert!(holder.since_unix_ms > 0);
    assert!(error.to_string().contains(&format!("pid {}", holder.pid)), "{error}");
    // The first was not disturbed: its socket is still there and answers.
    assert!(matches!(place.connect().call(Verb::Ping).answer(), Answer::Done));
}

fn what_a_killed_daemon_leaves_does_not_stop_the_next_and_nothing_acknowledged_is_lost(place: &Place) {
    let mut inodes = Vec::new();
    for round in 0..3 {
        let daemon = place.serve();
        let mut peer = place.connect();
        for earlier in 0..round {
            let found = peer.call(get("kept", &earlier.to_string())).value();
            assert_eq!(found.as_deref(), Some("\"here\""), "round {round} misses what round {earlier} wrote");
        }
        let temporary = place.path().join(format!("kv_store_kept.json.tmp.{}.1.1", std::process::id()));
        std::fs::write(&temporary, "{").unwrap();
        assert!(matches!(peer.call(put("kept", &round.to_string(), "\"here\"")).answer(), Answer::Written { .. }));
        drop(daemon);
        assert!(peer.try_next().is_none(), "a killed daemon says nothing");
        let socket = std::fs::symlink_metadata(commonhold::ipc::socket_path(place.path())).unwrap();
        assert!(socket.file_type().is_socket());
        assert_eq!(socket.mode() & 0o777, 0o600);
        inodes.push(socket.ino());
        assert!(place.path().join(".commonhold/owner.lock").exists());
    }
    assert!(!place.file("kept").exists(), "nobody flushed it");
    place.serve().stop().unwrap();
    assert!(text(&place.file("kept")).contains("\"2\":\"here\""));
}

fn a_stop_flushes_what_is_dirty_and_removes_the_socket(place: &Place) {
    let daemon = place.serve();
    let mut peer = place.connect();
    for name in ["one", "two", "three"] {
        peer.call(put(name, "a", "{\"x\": 1}"));
    }
    daemon.stop().unwrap();
    assert_eq!(peer.next().closing(), Fault::Stopping);
    assert!(peer.try_next().is_none());
    for name in ["one", "two", "three"] {
        assert_eq!(text(&place.file(name)), "{\n\"a\":{\"x\":1}\n}\n");
    }
    assert!(!commonhold::ipc::socket_path(place.path()).exists());
    place.serve().stop().unwrap();
}

fn a_client_that_asks_for_the_stop_is_answered_when_the_files_are_up_to_date(place: &Place) {
    let daemon = place.serve();
    let waiting = std::thread::spawn(move || daemon.wait());
    let mut peer = place.connect();
    peer.call(put("s", "a", "1"));
    // Another asks at the same time: both are answered.
    let mut other = place.connect();
    other.call(Verb::Ping);
    let id = other.ask(Verb::Stop);
    assert_eq!(peer.call(Verb::Stop).answer(), Answer::Done);
    assert_eq!(text(&place.file("s")), "{\n\"a\":1\n}\n");
    let reply = other.next();
    assert_eq!((reply.id, reply.answer()), (id, Answer::Done));
    assert_eq!(peer.next().closing(), Fault::Stopping);
    waiting.join().unwrap().unwrap();
}

fn a_stop_does_not_wait_for_a_reader_of_a_file_and_names_what_is_not_flushed(place: &Place) {
    let daemon = place.serve();
    let mut peer = place.connect();
    peer.call(put("free", "a", "1"));
    peer.call(put("held", "a", "1"));
    let lock = place.hold("held");
    // Somebody waits for this file already, with 30 s of patience.
    let id = peer.ask(flush("held"));
    peer.call(Verb::Ping);
    let began = std::time::Instant::now();
    let error = daemon.stop().unwrap_err();
    assert!(began.elapsed() < PATIENCE / 2);
    let Error::FlushFailed { places, .. } = &error else { panic!("{error:?}") };
    assert_eq!(places, &["held"]);
    assert!(error.to_string().contains("held"), "{error}");
    assert_eq!(text(&place.file("free")), "{\n\"a\":1\n}\n");
    let reply = peer.next();
    assert_eq!(reply.id, id);
    assert!(matches!(reply.fault(), Fault::FlushLockTimeout { .. }));
    drop(lock);
    // The journal has kept it.
    let daemon = place.serve();
    assert_eq!(place.connect().call(get("held", "a")).value().as_deref(), Some("1"));
    daemon.stop().unwrap();
    assert_eq!(text(&place.file("held")), "{\n\"a\":1\n}\n");
}

fn writes_acknowledged_while_the_daemon_stops_are_in_the_files(place: &Place) {
    let daemon = place.serve();
    let writers: Vec<_> = (0..4)
        .map(|worker| {
            let mut peer = place.connect();
            std::thread::spawn(move || {
                let mut acknowledged = 0;
                for n in 0.. {
                    if !peer.try_send(&frame_of(1, put("busy", &format!("{worker}"), &n.to_string()))) {
                        break;
                    }
                    // A refusal or the end: the daemon is stopping.
                    let Some(reply) = peer.try_next() else { break };
                    if reply.id == 0 || !matches!(reply.answer(), Answer::Written { .. }) {
                        break;
                    }
                    acknowledged = n;
                }
                acknowledged
            })
        })
        .collect();
    let mut peer = place.connect();
    eventually("the writers write", || (0..4).all(|n: u32| peer.call(get("busy", &n.to_string())).value().is_some()));
    daemon.stop().unwrap();
    let file: serde_json::Value = serde_json::from_str(&text(&place.file("busy"))).unwrap();
    for (worker, writer) in writers.into_iter().enumerate() {
        assert_eq!(file[worker.to_string()], writer.join().unwrap(), "worker {worker}");
    }
}

fn a_daemon_that_lost_its_owner_lock_reads_on_writes_no_more_and_says_so_at_the_end(place: &Place) {
    let daemon = place.serve();
    let mut peer = place.connect();
    peer.call(put("o", "a", "1"));
    peer.call(flush("o"));
    std::fs::remove_file(place.path().join(".commonhold/owner.lock")).unwrap();
    eventually("writes are refused", || {
        let reply = peer.call(put("o", "b", "1"));
        matches!(reply.answer(), Answer::Fault(Fault::Unavailable { .. }))
    });
    assert_eq!(peer.call(get("o", "a")).value().as_deref(), Some("1"));
    let reply = peer.call(Verb::Status);
    let Answer::Status { json } = reply.answer() else { panic!("{:?}", reply.answer()) };
    assert!(json.starts_with("{\"refuses_writes\":\""), "{json}");
    // A put that came before the loss was noticed left the namespace dirty, and then the stop names it too.
    let error = daemon.stop().unwrap_err();
    let (Error::Unavailable { reason } | Error::FlushFailed { reason, .. }) = &error else { panic!("{error:?}") };
    assert!(reason.contains("owner.lock"), "{error:?}");
}

fn run_tells_when_it_is_ready_and_ends_when_told(place: &Place) {
    let (sender, ready) = mpsc::channel();
    let mut options = place.options();
    options.on_ready = Some(Arc::new(move |dir: &Path| sender.send(dir.to_owned()).unwrap()));
    let (stopper, shutdown) = Shutdown::by_hand();
    let running = std::thread::spawn(move || run(options, shutdown));
    assert_eq!(ready.recv_timeout(PATIENCE).unwrap(), std::fs::canonicalize(place.path()).unwrap());
    let mut peer = place.connect();
    peer.call(put("r", "a", "1"));
    stopper.stop();
    running.join().unwrap().unwrap();
    assert_eq!(text(&place.file("r")), "{\n\"a\":1\n}\n");
}

fn run_ends_when_a_client_asks(place: &Place) {
    let (sender, ready) = mpsc::channel();
    let mut options = place.options();
    options.on_ready = Some(Arc::new(move |_: &Path| sender.send(()).unwrap()));
    let (_stopper, shutdown) = Shutdown::by_hand();
    let running = std::thread::spawn(move || run(options, shutdown));
    ready.recv_timeout(PATIENCE).unwrap();
    assert_eq!(place.connect().call(Verb::Stop).answer(), Answer::Done);
    running.join().unwrap().unwrap();
}

fn a_directory_that_cannot_be_served_is_refused_in_words(place: &Place) {
    let file = place.path().join("file");
    std::fs::write(&file, "x").unwrap();
    for (dir, word) in [(file, "not a directory"), (place.path().join("nowhere"), "create it first")] {
        let error = Daemon::start(commonhold::daemon::ServeOptions::new(dir)).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    }
}

fn a_very_long_path_is_served(place: &Place) {
    let dir = place.path().join("d".repeat(120)).join("e".repeat(120));
    std::fs::create_dir_all(&dir).unwrap();
    let daemon = Daemon::start(commonhold::daemon::ServeOptions::new(&dir)).unwrap();
    assert!(matches!(daemon_support::Peer::connect(&dir).call(Verb::Ping).answer(), Answer::Done));
    daemon.stop().unwrap();
}

fn a_preloaded_namespace_is_in_memory_before_anybody_asks(place: &Place) {
    std::fs::write(place.file("early"), "{\"a\": 1}").unwrap();
    let mut options = place.options();
    options.preload = Preload::All;
    let _daemon = Daemon::start(options).unwrap();
    let mut peer = place.connect();
    eventually("it is loaded", || match peer.call(Verb::Namespaces).answer() {
        Answer::Namespaces { list } => list.iter().any(|info| info.namespace == "early" && info.records == Some(1)),
        other => panic!("{other:?}"),
    });
}

fn a_synced_store_has_committed_what_it_answers(place: &Place) {
    let mut options = place.options();
    options.store.durability = Durability::Synced;
    let daemon = Daemon::start(options).unwrap();
    let mut peer = place.connect();
    let reply = peer.call(put("s", "a", "1"));
    let Answer::Written { seq: written, .. } = reply.answer() else { panic!("{:?}", reply.answer()) };
    let reply = peer.call(Verb::Status);
    let Answer::Status { json } = reply.answer() else { panic!("{:?}", reply.answer()) };
    let status: serde_json::Value = serde_json::from_str(json).unwrap();
    assert!(status["seq"]["synced"].as_u64().unwrap() >= written.0, "{status}");
    daemon.stop().unwrap();
}
