//! What a lock promises, on real files and in memory alike.

use std::os::unix::fs::symlink;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a promise on both implementations.
fn on_both(promise: impl Fn(&dyn Locks, &Path)) {
    let folder = tempfile::tempdir().unwrap();
    promise(&FileLocks, folder.path());
    promise(&MemoryLocks::new(), folder.path());
}

#[test]
fn a_store_has_one_owner_and_the_loser_learns_who() {
    on_both(|locks, folder| {
        let path = folder.join("owner.lock");
        let owner = locks.own(&path).unwrap();
        let Err(LockError::Held { holder, .. }) = locks.own(&path) else { panic!("owned twice") };
        assert_eq!(holder.map(|holder| holder.pid), Some(std::process::id()));
        assert!(owner.still_ours().unwrap());
        drop(owner);
        assert!(locks.own(&path).is_ok(), "given up");
    });
}

#[test]
fn readers_share_and_keep_a_flush_waiting_until_they_are_done() {
    on_both(|locks, folder| {
        let path = folder.join("flush/@/a.lock");
        let first = locks.share(&path, Duration::ZERO).unwrap();
        let second = locks.share(&path, Duration::ZERO).unwrap();
        let waited = locks.flush_lock(&path, Duration::from_millis(5));
        assert!(matches!(waited, Err(LockError::TimedOut { .. })), "{waited:?}");
        drop(first);
        assert!(locks.flush_lock(&path, Duration::ZERO).is_err(), "one reader is left");
        std::thread::scope(|scope| {
            let flusher = scope.spawn(|| locks.flush_lock(&path, PATIENCE).is_ok());
            drop(second);
            assert!(flusher.join().unwrap());
        });
        let _flush = locks.flush_lock(&path, Duration::ZERO).unwrap();
        assert!(locks.share(&path, Duration::ZERO).is_err(), "a flush is alone");
        assert!(locks.share(&folder.join("flush/@/b.lock"), Duration::ZERO).is_ok(), "another file is free");
    });
}

#[test]
fn a_waiting_flush_can_be_seen_in_memory() {
    let locks = MemoryLocks::new();
    let path = Path::new("a.lock");
    let reader = locks.hold_shared(path);
    assert!(!locks.wait_until_someone_waits(path, Duration::from_millis(1)));
    std::thread::scope(|scope| {
        let flusher = scope.spawn(|| locks.flush_lock(path, PATIENCE).map(|_flush| locks.holders(path)));
        assert!(locks.wait_until_someone_waits(path, PATIENCE));
        assert_eq!((locks.holders(path), locks.waiting(path)), (1, 1));
        drop(reader);
        assert_eq!(flusher.join().unwrap().unwrap(), 1);
    });
    assert_eq!((locks.holders(path), locks.waiting(path)), (0, 0));
}

#[test]
fn a_stolen_lock_is_noticed_and_its_old_holder_cannot_free_the_new_one() {
    let locks = MemoryLocks::new();
    let path = Path::new("owner.lock");
    let old = locks.own(path).unwrap();
    locks.steal(path);
    assert!(!old.still_ours().unwrap());
    let new = locks.own(path).unwrap();
    drop(old);
    assert!(new.still_ours().unwrap());
    assert!(locks.own(path).is_err());
}

#[test]
fn a_deleted_or_replaced_owner_file_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("owner.lock");
    let owner = FileLocks.own(&path).unwrap();
    fs::remove_file(&path).unwrap();
    assert!(!owner.still_ours().unwrap());
    let second = FileLocks.own(&path).expect("the name is free, so another daemon can take the store");
    assert!(!owner.still_ours().unwrap());
    assert!(second.still_ours().unwrap());
}

#[test]
fn a_file_that_lost_its_name_before_it_was_locked_is_no_lock() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("owner.lock");
    let opened = open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    assert!(try_lock(opened, &path, How::Alone).unwrap().is_none());
}

#[test]
fn the_owner_file_is_private_names_its_owner_and_stays_when_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("owner.lock");
    drop(FileLocks.own(&path).unwrap());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(read_holder(&path).map(|holder| holder.pid), Some(std::process::id()));
    fs::write(&path, "{\"pid\":1,\"since_unix_ms\":2,\"something\":\"longer than what is written now\"}\n").unwrap();
    drop(FileLocks.own(&path).unwrap());
    assert!(fs::read_to_string(&path).unwrap().ends_with("}\n"), "nothing of the owner before is left");
    assert_eq!(read_holder(&path).map(|holder| holder.pid), Some(std::process::id()));
}

#[test]
fn a_symlinked_lock_file_is_refused_and_what_it_leads_to_is_untouched() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("precious");
    fs::write(&target, "data").unwrap();
    for (name, target) in [("owner.lock", target.clone()), ("dangling.lock", folder.path().join("nowhere"))] {
        let path = folder.path().join(name);
        symlink(&target, &path).unwrap();
        let error = FileLocks.own(&path).unwrap_err();
        assert!(matches!(error, LockError::Link { .. }), "{error}");
        assert!(error.to_string().contains(&target.display().to_string()), "{error}");
        assert!(FileLocks.flush_lock(&path, Duration::ZERO).is_err());
    }
    assert_eq!(fs::read_to_string(&target).unwrap(), "data");
    assert!(!folder.path().join("nowhere").exists());
}

#[test]
fn what_is_not_a_file_cannot_be_a_lock() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("owner.lock");
    fs::create_dir(&path).unwrap();
    let error = FileLocks.own(&path).unwrap_err();
    assert!(error.to_string().contains("owner.lock"), "{error}");
}

#[test]
fn a_refusal_tells_where_who_and_what_to_do() {
    let path = PathBuf::from("/data/rag/.commonhold/owner.lock");
    let holder = Some(Holder { pid: 4711, since_unix_ms: 1_700_000_000_123 });
    let held = LockError::Held { holder, path: path.clone() }.to_string();
    assert!(held.contains("/data/rag is owned by the daemon with pid 4711 since 2023-11-14T22:13:20Z"), "{held}");
    assert!(held.contains("commonhold --store /data/rag stop"), "{held}");
    let held = LockError::Held { holder: None, path: path.clone() }.to_string();
    assert!(held.contains("owned by another daemon"), "{held}");
    for errno in [rustix::io::Errno::ACCESS, rustix::io::Errno::ROFS] {
        let refused = LockError::from_io("open the lock file", &path, errno.into()).to_string();
        assert!(refused.contains("open the lock file /data/rag/.commonhold/owner.lock is not allowed"), "{refused}");
        assert!(refused.contains("Make the directory /data/rag/.commonhold writable"), "{refused}");
    }
}

#[test]
fn a_lock_file_with_another_name_elsewhere_is_refused_and_not_written_into() {
    let dir = tempfile::tempdir().unwrap();
    let (lock, elsewhere) = (dir.path().join("owner.lock"), dir.path().join("elsewhere"));
    std::fs::write(&elsewhere, "precious").unwrap();
    std::fs::hard_link(&elsewhere, &lock).unwrap();
    let error = FileLocks.own(&lock).unwrap_err();
    assert!(matches!(error, LockError::Shared { names: 2, .. }), "{error}");
    assert_eq!(std::fs::read_to_string(&elsewhere).unwrap(), "precious");
    std::fs::remove_file(&elsewhere).unwrap();
    FileLocks.own(&lock).unwrap();
}
