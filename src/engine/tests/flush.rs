//! Flushes: what they replace, what they keep, whom they wait for, and what they leave alone.

use std::path::{Path, PathBuf};
use std::time::Duration;

use commonhold_proto::Durability;

use super::rig::{DIR, Rig, file, options, pair, place};
use crate::engine::disk::Call;
use crate::engine::{Error, FlushHow};
use crate::json::FileFormat;
use crate::lock::Holder;

const LONG: Duration = Duration::from_mins(1);

const REWRITE: FlushHow = FlushHow { rewrite: true, lock_timeout: None };

#[test]
fn flush_waits_for_a_reader_of_the_file() {
    let rig = Rig::buffered();
    rig.put("a", "k", "1");
    rig.flush("a").unwrap();
    rig.put("a", "k", "2");
    let lock = Rig::flush_lock("a");
    let reader = rig.locks.hold_shared(&lock);
    let before = rig.disk.stat_of(file("a"));
    std::thread::scope(|scope| {
        let flush =
            scope.spawn(|| rig.store().flush(&place("a"), FlushHow { rewrite: false, lock_timeout: Some(LONG) }));
        assert!(rig.locks.wait_until_someone_waits(&lock, LONG));
        assert_eq!(rig.disk.stat_of(file("a")), before, "the reader reads on undisturbed");
        // Nobody else waits: other namespaces are flushed, and this one is written.
        rig.put("b", "k", "1");
        rig.flush("b").unwrap();
        rig.put("a", "l", "3");
        drop(reader);
        assert!(flush.join().unwrap().unwrap().rewritten);
    });
    assert_eq!(rig.in_file("a"), [pair("k", "2"), pair("l", "3")], "the cut is taken when the lock is had");
}

#[test]
fn flush_gives_up_after_its_time_and_says_who_is_to_be_waited_for() {
    let rig = Rig::buffered();
    rig.put("a", "k", "1");
    let reader = rig.locks.hold_shared(&Rig::flush_lock("a"));
    for lock_timeout in [None, Some(Duration::from_millis(5))] {
        match rig.store().flush(&place("a"), FlushHow { rewrite: false, lock_timeout }) {
            Err(Error::FlushLockTimeout { lock_file, .. }) => assert_eq!(lock_file, Rig::flush_lock("a")),
            other => panic!("{other:?}"),
        }
    }
    assert!(!rig.disk.exists(file("a")));
    assert_eq!(rig.store().dirty(), [place("a")], "it is still to be done");
    drop(reader);
    rig.flush("a").unwrap();
    assert_eq!(rig.in_file("a"), [pair("k", "1")]);
    assert_eq!(rig.locks.holders(&Rig::flush_lock("a")), 0);
}

#[test]
fn the_first_writer_of_a_namespace_does_not_wait_for_its_flush() {
    let mut rig = Rig::new(options(Durability::Buffered));
    rig.disk.write_file(file("a"), b"{\"k\": 1}");
    rig.try_open().unwrap();
    let lock = Rig::flush_lock("a");
    let reader = rig.locks.hold_shared(&lock);
    let (done, finished) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let flush =
            scope.spawn(|| rig.store().flush(&place("a"), FlushHow { rewrite: true, lock_timeout: Some(LONG) }));
        assert!(rig.locks.wait_until_someone_waits(&lock, LONG));
        scope.spawn(|| {
            rig.put("a", "k", "2");
            done.send(()).unwrap();
        });
        let outcome = finished.recv_timeout(Duration::from_secs(10));
        drop(reader);
        flush.join().unwrap().unwrap();
        outcome.expect("the writer got through while the flush waited");
    });
    assert_eq!(rig.in_file("a"), [pair("k", "2")]);
}

#[test]
fn two_namespaces_are_flushed_at_once() {
    let rig = Rig::buffered();
    rig.put("a", "k", "1");
    rig.put("b", "k", "2");
    let hold = rig.disk.hold(Call::Sync, "kv_store_a.json.tmp");
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| rig.flush("a"));
        assert!(hold.wait_until_reached(LONG));
        // While the disk takes its time with one file, the other is written, and writers go on.
        rig.flush("b").unwrap();
        rig.put("a", "l", "3");
        rig.put("b", "l", "3");
        assert_eq!(rig.in_file("b"), [pair("k", "2")]);
        assert!(!rig.disk.exists(file("a")));
        drop(hold);
        slow.join().unwrap().unwrap();
    });
    assert_eq!(rig.in_file("a"), [pair("k", "1")], "what came after the cut is not in it");
    assert_eq!(rig.store().dirty(), [place("a"), place("b")]);
}

#[test]
fn callers_of_one_namespace_share_rewrites() {
    let rig = Rig::buffered();
    rig.put("a", "k", "1");
    let hold = rig.disk.hold(Call::Sync, "kv_store_a.json.tmp");
    let before = rig.disk.calls();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| rig.flush("a"));
        assert!(hold.wait_until_reached(LONG));
        let others: Vec<_> = (0..6).map(|_| scope.spawn(|| rig.flush("a").unwrap())).collect();
        drop(hold);
        first.join().unwrap().unwrap();
        assert!(others.into_iter().all(|thread| !thread.join().unwrap().rewritten));
    });
    assert_eq!(rig.disk.calls().since(&before).of(Call::Rename), 1, "the others found it done");
}

#[test]
fn the_last_files_are_kept_as_generations() {
    for keep in 0..4 {
        let mut rig = Rig::new(options(Durability::Buffered));
        rig.options.keep = keep;
        rig.try_open().unwrap();
        for round in 0..6 {
            rig.put("a", "k", &round.to_string());
            rig.flush("a").unwrap();
        }
        let kept = rig.generations("a");
        assert_eq!(kept.len(), keep as usize, "{kept:?}");
        let directory = Path::new(DIR).join(".commonhold/generations/@/a");
        for (name, round) in kept.iter().rev().zip((0..5).rev()) {
            assert_eq!(rig.disk.read_file(directory.join(name)), format!("{{\n\"k\":{round}\n}}\n").as_bytes());
        }
    }
}

#[test]
fn a_file_of_another_program_is_kept_before_it_is_replaced() {
    let rig = Rig::buffered();
    rig.put("a", "k", "1");
    rig.flush("a").unwrap();
    let foreign: [&[u8]; 3] = [b"{\"other\": 1}", b"not even JSON", b"{\"other\": 2}"];
    for (count, bytes) in foreign.into_iter().enumerate() {
        // Its inode stays, as when a program writes in place.
        rig.disk.write_file(file("a"), bytes);
        rig.put("a", "k", &count.to_string());
        rig.flush("a").unwrap();
        assert_eq!(rig.in_file("a"), [pair("k", &count.to_string())]);
    }
    let directory = Path::new(DIR).join(".commonhold/generations/@/a");
    let kept: Vec<_> = rig.generations("a").into_iter().filter(|name| name.ends_with(".foreign.json")).collect();
    let kept: Vec<_> = kept.into_iter().map(|name| rig.disk.read_file(directory.join(name))).collect();
    assert_eq!(kept, foreign, "every one of them, however many generations are kept");
    assert_eq!(rig.store().stats().foreign_files, 3);
}

#[test]
fn what_stands_in_the_files_place_is_not_replaced() {
    let rig = Rig::buffered();
    rig.put("a", "k", "1");
    rig.disk.make_dirs(file("a"));
    assert!(matches!(rig.flush("a"), Err(Error::InTheWay { .. })));
    rig.disk.remove_path(file("a"));
    rig.disk.write_file("/elsewhere", b"{}");
    rig.disk.symlink("/elsewhere", file("a"));
    assert!(matches!(rig.flush("a"), Err(Error::InTheWay { .. })));
    assert_eq!(rig.disk.read_file("/elsewhere"), b"{}");
    rig.disk.remove_path(file("a"));
    rig.flush("a").unwrap();
    let names = rig.disk.names(DIR);
    assert_eq!(names, [".commonhold", "kv_store_a.json"], "no temporary stays");
}

#[test]
fn a_start_removes_the_temporaries_of_the_owner_before_it_and_old_ones_and_no_others() {
    let mut rig = Rig::new(options(Durability::Buffered));
    let holder = Holder { pid: 4711, since_unix_ms: 1 };
    rig.disk.make_dirs(format!("{DIR}/.commonhold"));
    rig.disk.make_dirs(format!("{DIR}/w"));
    rig.disk.write_file(format!("{DIR}/.commonhold/owner.lock"), &serde_json::to_vec(&holder).unwrap());
    let temporary = |name: &str, rest: &str| format!("{}.tmp.{rest}", file(name).display());
    let gone = [temporary("a", "4711.1.5"), temporary("w/a", "4711.2.5")];
    let stays = [temporary("a", "4712.1.5"), temporary("w/a", "12.2.5"), format!("{DIR}/notes.json.tmp.4711.1.5")];
    for path in gone.iter().chain(&stays) {
        rig.disk.write_file(path, b"{");
    }
    let written = rig.disk.stat_of(&stays[0]).unwrap().mtime_ns;
    rig.clock.set_unix_ms(u64::try_from(written / 1_000_000).unwrap() + 60_000);
    rig.try_open().unwrap();
    assert!(gone.iter().all(|path| !rig.disk.exists(path)) && stays.iter().all(|path| rig.disk.exists(path)));
    assert_eq!(rig.store().opening().temporaries_removed.len(), 2);
    rig.close();
    rig.clock.advance(Duration::from_hours(1));
    rig.try_open().unwrap();
    assert!(stays[..2].iter().all(|path| !rig.disk.exists(path)), "an hour old: nobody is writing them any more");
    assert!(rig.disk.exists(&stays[2]), "not one of ours or LightRAG's");
}

#[test]
fn rewrite_changes_the_format_and_only_on_request() {
    let mut rig = Rig::new(options(Durability::Buffered));
    let pretty = "{\n  \"k\": {\n    \"b\": 1.10,\n    \"a\": [\n      1e5,\n      NaN\n    ]\n  }\n}";
    rig.disk.write_file(file("a"), pretty.as_bytes());
    rig.try_open().unwrap();
    assert!(!rig.flush("a").unwrap().rewritten);
    assert_eq!(rig.disk.read_file(file("a")), pretty.as_bytes());
    let inode = rig.disk.stat_of(file("a")).unwrap().inode;
    assert!(rig.store().flush(&place("a"), REWRITE).unwrap().rewritten);
    assert_eq!(rig.disk.read_file(file("a")), b"{\n\"k\":{\"b\":1.10,\"a\":[1e5,NaN]}\n}\n");
    rig.close();
    rig.options.file_format = FileFormat::Pretty;
    rig.try_open().unwrap();
    rig.store().flush(&place("a"), REWRITE).unwrap();
    assert_eq!(rig.disk.read_file(file("a")), pretty.as_bytes());
    assert_ne!(rig.disk.stat_of(file("a")).unwrap().inode, inode);
    // A new namespace that nobody wrote to gets no file.
    rig.table("new");
    assert!(!rig.store().flush(&place("new"), REWRITE).unwrap().rewritten);
    assert!(!rig.disk.exists(file("new")));
}

#[test]
fn a_replaced_file_keeps_its_mode() {
    use crate::engine::disk::Disk;
    let mut rig = Rig::new(options(Durability::Buffered));
    rig.disk.write_file(file("a"), b"{}");
    rig.disk.set_mode(&file("a"), 0o640).unwrap();
    rig.try_open().unwrap();
    for name in ["a", "b"] {
        rig.put(name, "k", "1");
        rig.flush(name).unwrap();
    }
    assert_eq!(rig.disk.stat_of(file("a")).unwrap().mode, 0o640);
    assert_eq!(rig.disk.stat_of(file("b")).unwrap().mode, 0o644);
}

#[test]
fn the_costs_tell_what_was_rewritten_and_how_long_something_has_been_waiting() {
    let rig = Rig::buffered();
    let seconds = Duration::from_secs;
    let costs = |name: &str| rig.table(name).costs();
    let fresh = costs("a");
    assert_eq!((fresh.loads, fresh.rewrites, fresh.waiting_for, fresh.last_flush), (1, 0, None, None));
    rig.put("a", "k", "1");
    rig.clock.advance(seconds(5));
    rig.put("a", "k", "2");
    rig.clock.advance(seconds(2));
    assert_eq!(costs("a").waiting_for, Some(seconds(7)), "the oldest write counts");

    rig.flush("a").unwrap();
    let (first, file_bytes) = (costs("a"), rig.disk.stat_of(file("a")).unwrap().bytes);
    assert_eq!((first.rewrites, first.bytes_written, first.waiting_for), (1, file_bytes, None));
    assert_eq!(first.last_flush.map(|flush| (flush.unix_ms, flush.bytes)), Some((1_700_000_007_000, file_bytes)));
    rig.flush("a").unwrap();
    assert_eq!(costs("a"), first, "a clean namespace is not rewritten");

    // A flush that fails saves nothing; one that works leaves what was written beyond its cut.
    rig.put("a", "k", "3");
    rig.clock.advance(seconds(1));
    let reader = rig.locks.hold_shared(&Rig::flush_lock("a"));
    rig.flush("a").unwrap_err();
    assert_eq!((costs("a").rewrites, costs("a").waiting_for), (1, Some(seconds(1))));
    drop(reader);
    rig.flush("a").unwrap();
    assert_eq!((costs("a").rewrites, costs("a").bytes_written), (2, 2 * file_bytes));
    assert_eq!(costs("b"), crate::engine::Costs { loads: 1, ..Default::default() });
}

#[test]
fn what_was_written_during_a_flush_waits_from_then_on() {
    let rig = Rig::buffered();
    rig.put("a", "k", "1");
    rig.clock.advance(Duration::from_secs(9));
    let hold = rig.disk.hold(Call::Sync, "kv_store_a.json.tmp");
    std::thread::scope(|scope| {
        let flush = scope.spawn(|| rig.flush("a"));
        assert!(hold.wait_until_reached(LONG));
        rig.put("a", "k", "2");
        rig.clock.advance(Duration::from_secs(4));
        assert_eq!(rig.table("a").costs().waiting_for, Some(Duration::from_secs(13)), "nothing is in the file yet");
        drop(hold);
        flush.join().unwrap().unwrap();
    });
    let costs = rig.table("a").costs();
    assert_eq!(costs.waiting_for, Some(Duration::from_secs(4)));
    assert_eq!(costs.last_flush.map(|flush| flush.took), Some(Duration::from_secs(4)));
}

#[test]
fn what_a_start_finds_waiting_waits_from_that_start() {
    let rig = Rig::buffered();
    rig.put("a", "k", "1");
    let rig = rig.killed();
    rig.clock.advance(Duration::from_secs(3));
    assert_eq!(rig.table("a").costs().waiting_for, Some(Duration::from_secs(3)));
    rig.flush("a").unwrap();
    assert_eq!(rig.table("a").costs().waiting_for, None);
}

#[test]
fn a_workspace_that_was_removed_is_made_again_and_its_name_is_on_the_platter() {
    for made_by_others in [false, true] {
        let rig = Rig::buffered();
        rig.put("w/a", "k", "1");
        rig.flush("w/a").unwrap();
        rig.disk.remove_path(file("w/a"));
        rig.disk.remove_path(format!("{DIR}/w"));
        if made_by_others {
            rig.disk.make_dirs(format!("{DIR}/w"));
        }
        rig.put("w/a", "k", "2");
        rig.disk.trace();
        rig.flush("w/a").unwrap();
        let synced = (Call::SyncDir, PathBuf::from(DIR));
        assert!(rig.disk.take_trace().contains(&synced), "made by others: {made_by_others}");
        assert_eq!(rig.in_file("w/a"), [pair("k", "2")]);
        rig.put("w/a", "k", "3");
        rig.disk.trace();
        rig.flush("w/a").unwrap();
        assert!(!rig.disk.take_trace().contains(&synced), "once is enough");
    }
}
