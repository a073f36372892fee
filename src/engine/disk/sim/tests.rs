//! What the simulated disk does to those who rely on more than the contract, and that it does no more than that.

use std::collections::BTreeSet;

use super::*;
use crate::engine::disk::DiskFile;

const A: &str = "/a";

fn path(name: &str) -> &Path {
    Path::new(name)
}

fn create(disk: &SimDisk, name: &str) -> Box<dyn DiskFile> {
    disk.open(path(name), &How::CREATE_NEW).unwrap()
}

/// A disk with one durable file.
fn with_file(bytes: &[u8]) -> (SimDisk, Box<dyn DiskFile>) {
    let disk = SimDisk::new(1);
    disk.write_file(A, bytes);
    let file = disk.open(path(A), &How::WRITE).unwrap();
    (disk, file)
}

/// Everything that a power cut under `rules` can leave of file `A`.
fn outcomes(disk: &SimDisk, rules: Rules) -> BTreeSet<Option<Vec<u8>>> {
    (0..2_000).map(|seed| disk.power_cut(seed, rules)).map(|disk| disk.exists(A).then(|| disk.read_file(A))).collect()
}

#[test]
fn a_killed_process_loses_nothing_and_a_power_cut_may_still_follow() {
    let disk = SimDisk::new(1);
    create(&disk, A).write_at(b"data", 0).unwrap();
    let killed = disk.kill();
    assert_eq!(killed.read_file(A), b"data");
    assert!(!killed.power_cut(1, Rules::DROP_ALL).exists(A));
    assert_eq!(killed.power_cut(1, Rules::KEEP_ALL).read_file(A), b"data");
}

#[test]
fn what_was_synced_survives_every_power_cut() {
    let (disk, file) = with_file(b"");
    file.write_at(&[1; 3000], 0).unwrap();
    file.sync().unwrap();
    create(&disk, "/b");
    disk.sync_dir(path("/")).unwrap();
    for seed in 0..500 {
        let found = disk.power_cut(seed, Rules::any(seed));
        assert_eq!(found.read_file(A), [1; 3000], "seed {seed}");
        assert!(found.exists("/b"), "seed {seed}");
    }
}

#[test]
fn an_unsynced_overwrite_is_torn_at_512_bytes_in_any_order() {
    let (disk, file) = with_file(&[0; 1536]);
    file.write_at(&[1; 1536], 0).unwrap();
    let found = outcomes(&disk, Rules::TEAR);
    assert_eq!(found.len(), 8, "each of three sectors is old or new");
    for bytes in found.into_iter().flatten() {
        assert!(bytes.chunks(512).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
    }
}

#[test]
fn a_sector_never_has_a_later_write_without_the_earlier_ones() {
    let (disk, file) = with_file(b"..");
    file.write_at(b"1", 0).unwrap();
    file.write_at(b"2", 1).unwrap();
    let expected: [&[u8]; 3] = [b"..", b"1.", b"12"];
    assert_eq!(outcomes(&disk, Rules::REORDER_ALL), expected.map(|bytes| Some(bytes.to_vec())).into());
}

#[test]
fn size_and_data_of_an_append_survive_independently() {
    let (disk, file) = with_file(b"ab");
    file.write_at(b"cd", 2).unwrap();
    let expected: [&[u8]; 3] = [b"ab", b"abcd", b"ab\0\0"];
    assert_eq!(outcomes(&disk, Rules::REORDER_ALL), expected.map(|bytes| Some(bytes.to_vec())).into());
    let expected: [&[u8]; 2] = [b"ab", b"abcd"];
    assert_eq!(outcomes(&disk, Rules::ORDERED), expected.map(|bytes| Some(bytes.to_vec())).into());
}

#[test]
fn a_truncation_that_was_not_synced_can_come_undone() {
    let (disk, file) = with_file(b"abcd");
    file.truncate(1).unwrap();
    file.write_at(b"X", 1).unwrap();
    let found = outcomes(&disk, Rules::REORDER_ALL);
    assert!(found.contains(&Some(b"abcd".to_vec())) && found.contains(&Some(b"aX".to_vec())), "{found:?}");
    file.sync().unwrap();
    assert_eq!(outcomes(&disk, Rules::REORDER_ALL), [Some(b"aX".to_vec())].into());
}

#[test]
fn syncing_a_file_does_not_keep_its_name_and_syncing_a_name_does_not_keep_its_bytes() {
    let disk = SimDisk::new(1);
    let file = create(&disk, A);
    file.write_at(b"x", 0).unwrap();
    file.sync().unwrap();
    assert_eq!(outcomes(&disk, Rules::REORDER_ALL), [None, Some(b"x".to_vec())].into());
    disk.sync_dir(path("/")).unwrap();
    file.write_at(b"y", 0).unwrap();
    assert_eq!(outcomes(&disk, Rules::DROP_ALL), [Some(b"x".to_vec())].into());
}

#[test]
fn a_rename_is_whole_or_not_at_all() {
    let (disk, _file) = with_file(b"old");
    disk.write_file("/new", b"new");
    disk.rename(path("/new"), path(A)).unwrap();
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let found = disk.power_cut(seed, Rules::REORDER_ALL);
        seen.insert((found.read_file(A), found.names("/")));
    }
    let old = (b"old".to_vec(), vec!["a".to_owned(), "new".to_owned()]);
    let new = (b"new".to_vec(), vec!["a".to_owned()]);
    assert_eq!(seen, [old, new].into());
}

#[test]
fn a_rename_between_directories_needs_both_synced() {
    let (disk, _file) = with_file(b"x");
    disk.make_dirs("/to");
    disk.rename(path(A), path("/to/a")).unwrap();
    disk.sync_dir(path("/to")).unwrap();
    let found = disk.power_cut(1, Rules::DROP_ALL);
    assert!(found.exists(A) && !found.exists("/to/a"));
    disk.sync_dir(path("/")).unwrap();
    let found = disk.power_cut(1, Rules::DROP_ALL);
    assert!(!found.exists(A) && found.exists("/to/a"));
}

#[test]
fn an_older_unsynced_change_of_a_name_never_undoes_a_newer_durable_one() {
    let (disk, _file) = with_file(b"x");
    disk.make_dirs("/to");
    disk.rename(path(A), path("/to/a")).unwrap();
    create(&disk, A).write_at(b"y", 0).unwrap();
    disk.sync_dir(path("/")).unwrap();
    for seed in 0..100 {
        let found = disk.power_cut(seed, Rules::any(seed));
        assert!(found.exists(A), "seed {seed}: it was synced");
        assert_eq!(found.read_file("/to/a"), b"x", "seed {seed}: the rename is whole");
    }
}

#[test]
fn unsynced_names_survive_one_by_one() {
    let disk = SimDisk::new(1);
    create(&disk, "/x");
    create(&disk, "/y");
    let found: BTreeSet<_> = (0..200).map(|seed| disk.power_cut(seed, Rules::REORDER_ALL).names("/")).collect();
    assert_eq!(found.len(), 4);
    let found: BTreeSet<_> = (0..200).map(|seed| disk.power_cut(seed, Rules::ORDERED).names("/")).collect();
    assert_eq!(found.len(), 3, "in order, /y is never there without /x");
}

#[test]
fn a_file_in_an_unsynced_directory_is_lost_with_it() {
    let disk = SimDisk::new(1);
    disk.create_dir(path("/dir"), 0o700).unwrap();
    create(&disk, "/dir/a").sync().unwrap();
    disk.sync_dir(path("/dir")).unwrap();
    assert!(!disk.power_cut(1, Rules::DROP_ALL).exists("/dir"));
    disk.sync_dir(path("/")).unwrap();
    assert!(disk.power_cut(1, Rules::DROP_ALL).exists("/dir/a"));
}

#[test]
fn what_a_failed_sync_lost_no_later_sync_brings_back() {
    let (disk, file) = with_file(b"....");
    file.write_at(b"1", 0).unwrap();
    disk.fail(Failure::nth(1, FailWith::Io).of(Call::Sync));
    assert!(file.sync().is_err());
    file.sync().expect("as on Linux, the next sync says that all is well");
    assert_eq!(disk.read_file(A), b"1...", "it can still be read");
    assert_eq!(disk.power_cut(1, Rules::KEEP_ALL).read_file(A), b"....");
    file.write_at(b"2", 1).unwrap();
    file.sync().unwrap();
    assert_eq!(disk.power_cut(1, Rules::KEEP_ALL).read_file(A), b".2..");
    assert_eq!(disk.kill().read_file(A), b"12..");
}

#[test]
fn what_a_failed_directory_sync_lost_no_later_one_brings_back() {
    let disk = SimDisk::new(1);
    create(&disk, A);
    disk.fail_call(1, FailWith::Io);
    assert!(disk.sync_dir(path("/")).is_err());
    create(&disk, "/b");
    disk.sync_dir(path("/")).unwrap();
    assert_eq!(disk.names("/"), ["a", "b"]);
    assert_eq!(disk.power_cut(1, Rules::KEEP_ALL).names("/"), ["b"]);
}

#[test]
fn failures_strike_the_call_they_were_ordered_for() {
    let (disk, file) = with_file(b"1234");
    disk.fail_call(2, FailWith::Io);
    file.write_at(b"a", 0).unwrap();
    assert_eq!(file.write_at(b"b", 0).unwrap_err().raw_os_error(), Some(Errno::IO.raw_os_error()));
    file.write_at(b"c", 0).unwrap();

    disk.fail(Failure::nth(1, FailWith::NoSpace).for_good());
    assert_eq!(file.read_all().unwrap(), b"c234", "a full disk reads");
    for _ in 0..2 {
        let error = file.write_at(b"d", 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
    assert!(disk.open(path("/b"), &How::CREATE).is_err());
    file.sync().unwrap();
    disk.mend();
    file.write_at(b"d", 0).unwrap();

    disk.fail(Failure::nth(1, FailWith::ShortWrite));
    assert_eq!(file.write_at(b"WXYZ", 0).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(file.read_all().unwrap(), b"WX34");

    disk.fail(Failure::nth(1, FailWith::Interrupted).on("other"));
    file.write_at(b"e", 0).unwrap();
    assert_eq!(create(&disk, "/b").write_at(b"", 0).ok(), Some(()));
    assert_eq!(disk.open(path("/other"), &How::CREATE).unwrap_err().kind(), io::ErrorKind::Interrupted);
    assert!(!disk.exists("/other"), "a failed call has done nothing");
}

#[test]
fn after_the_crash_every_call_fails_and_the_fatal_write_is_done_in_part() {
    let mut lengths = BTreeSet::new();
    for seed in 0..200 {
        let disk = SimDisk::new(seed);
        let file = create(&disk, A);
        disk.crash_after(2);
        file.write_at(b"a", 0).unwrap();
        assert!(!disk.is_dead());
        assert!(file.write_at(b"bcd", 1).is_err());
        assert!(disk.is_dead());
        assert!(file.write_at(b"never", 0).is_err() && file.sync().is_err() && disk.list(path("/")).is_err());
        let left = disk.kill().read_file(A);
        assert!(b"abcd".starts_with(&left), "seed {seed}: {left:?}");
        lengths.insert(left.len());
    }
    assert_eq!(lengths, [1, 2, 3, 4].into());
}

#[test]
fn calls_are_counted_by_kind() {
    let (disk, file) = with_file(b"x");
    let before = disk.calls();
    disk.trace();
    file.read_all().unwrap();
    file.write_at(b"y", 0).unwrap();
    create(&disk, "/b");
    disk.rename(path("/b"), path(A)).unwrap();
    let calls = disk.calls().since(&before);
    let kinds = [Call::Stat, Call::Read, Call::Write, Call::Create, Call::Rename];
    assert!(kinds.iter().all(|kind| calls.of(*kind) == 1), "{calls:?}");
    assert_eq!(calls.total(), 5);
    assert_eq!(disk.take_trace().iter().map(|(call, _)| *call).collect::<Vec<_>>(), kinds);
    assert_eq!((disk.read_file(A), disk.calls().since(&before)), (vec![], calls), "looking on does not count");
}

#[test]
fn the_same_seed_gives_the_same_disk() {
    let (disk, file) = with_file(&vec![0; 20_000]);
    for step in 0..50_u64 {
        file.write_at(&[step as u8 + 1; 700], step * 397).unwrap();
        create(&disk, &format!("/{step}"));
    }
    let look = |seed| {
        let found = disk.power_cut(seed, Rules::REORDER_ALL);
        (found.read_file(A), found.names("/"))
    };
    assert_eq!(look(5), look(5));
    assert_ne!(look(5), look(6));
}

#[test]
fn an_image_is_a_disk_of_its_own() {
    let (disk, file) = with_file(b"one");
    let image = disk.kill();
    file.write_at(b"two", 0).unwrap();
    image.write_file("/b", b"");
    assert_eq!((image.read_file(A), disk.exists("/b")), (b"one".to_vec(), false));
}

#[test]
fn a_flipped_bit_is_on_the_platter_and_leaves_the_time_alone() {
    let (disk, _file) = with_file(&[0; 5000]);
    let before = disk.stat_of(A);
    disk.flip_bit(A, 4999, 7);
    assert_eq!(disk.power_cut(1, Rules::DROP_ALL).read_file(A)[4999], 0x80);
    assert_eq!(disk.stat_of(A), before);
    disk.truncate_file(A, 3);
    assert_eq!(disk.read_file(A).len(), 3);
    assert_ne!(disk.stat_of(A), before);
    disk.remove_path(A);
    assert_eq!(disk.all_files(), Vec::<PathBuf>::new());
}

#[test]
fn a_directory_without_write_permission_keeps_its_names() {
    let (disk, _file) = with_file(b"");
    disk.set_mode(path("/"), 0o500).unwrap();
    assert_eq!(disk.remove(path(A)).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    assert_eq!(disk.open(path("/b"), &How::CREATE).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    disk.set_mode(path(A), 0o400).unwrap();
    assert!(disk.open(path(A), &How::WRITE).is_err() && disk.open(path(A), &How::READ).is_ok());
}

#[test]
fn a_held_call_waits_until_it_is_let_go_and_others_pass() {
    let (disk, file) = with_file(b"");
    let patience = std::time::Duration::from_secs(20);
    let hold = disk.hold(Call::Sync, "a");
    assert!(!hold.wait_until_reached(std::time::Duration::from_millis(1)));
    std::thread::scope(|scope| {
        let sync = scope.spawn(|| file.sync());
        assert!(hold.wait_until_reached(patience));
        file.write_at(b"meanwhile", 0).unwrap();
        create(&disk, "/b").sync().unwrap();
        assert!(!sync.is_finished());
        drop(hold);
        sync.join().unwrap().unwrap();
    });
    assert_eq!(disk.power_cut(1, Rules::DROP_ALL).read_file(A), b"meanwhile", "it was done when it was let go");
}
