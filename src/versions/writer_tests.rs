//! Tables on a real tmpfs: `/dev/shm`, which every Linux has.

use super::*;
use crate::versions::Reader;

fn store() -> (tempfile::TempDir, StoreIdentity) {
    let dir = tempfile::tempdir().unwrap();
    let found = fs::metadata(dir.path()).unwrap();
    (dir, StoreIdentity { device: found.dev(), inode: found.ino() })
}

fn place(name: &str) -> Place {
    Place::new("", name).unwrap()
}

fn reader(table: &Writer, identity: StoreIdentity) -> Reader {
    Reader::open(identity, own_uid(), table.nonce()).expect("a table that is there is found")
}

#[test]
fn a_value_is_current_until_its_key_or_its_namespace_is_changed() {
    let (dir, identity) = store();
    let table = Arc::new(Writer::take_over(dir.path(), identity, false).unwrap());
    let reader = reader(&table, identity);
    let place = place("docs");
    assert_eq!(reader.entry_of(Name::of(&place)), None, "nobody has asked for it");
    let docs = table.entry(&place).unwrap();
    let name = Name::of(&place);
    let entry = reader.entry_of(name).unwrap();
    let (one, other) = (reader.slot_of(name, "one"), reader.slot_of(name, "other"));
    assert_ne!(one, other);
    let (tag, tag_of_other) = (docs.tag("one"), docs.tag("other"));
    assert!(reader.is_current(&tag, entry, one));
    docs.moved("one");
    assert!(!reader.is_current(&tag, entry, one) && reader.is_current(&tag_of_other, entry, other));
    docs.cleared();
    assert!(!reader.is_current(&tag_of_other, entry, other));
    table.retire();
    assert!(!reader.is_current(&docs.tag("one"), entry, one), "the epoch is dead after a clean stop");
    assert!(!table.path().exists());
}

#[test]
fn the_next_daemon_takes_over_what_a_killed_one_left_and_voids_it() {
    let (dir, identity) = store();
    let first = Arc::new(Writer::take_over(dir.path(), identity, false).unwrap());
    let (reader, docs) = (reader(&first, identity), first.entry(&place("docs")).unwrap());
    let name = Name::of(&place("docs"));
    docs.moved("k");
    docs.flagged(9);
    let tag = docs.tag("k");
    let (entry, slot) = (reader.entry_of(name).unwrap(), reader.slot_of(name, "k"));
    let epoch = reader.epoch().unwrap();
    assert_eq!(reader.flag_word(entry, epoch), Some(9));
    let path = first.path().to_owned();
    drop((docs, first)); // As a kill does: nobody has retired it.
    assert!(reader.is_current(&tag, entry, slot));
    let second = Arc::new(Writer::take_over(dir.path(), identity, true).unwrap());
    assert_eq!(second.path(), path);
    assert!(!reader.is_current(&tag, entry, slot) && reader.epoch().unwrap() != epoch);
    assert_eq!(reader.flag_word(entry, epoch), None);
    assert_eq!(reader.entry_of(name), None, "entries are given anew");
    let again = second.entry(&place("docs")).unwrap().tag("k");
    assert_eq!((again.slot_count, again.clear_count), (tag.slot_count, tag.clear_count), "counts never go back");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o644);
    second.retire();
}

#[test]
fn a_daemon_that_lives_on_without_its_store_voids_nothing_of_the_next_one() {
    let (dir, identity) = store();
    let first = Arc::new(Writer::take_over(dir.path(), identity, false).unwrap());
    let old = reader(&first, identity);
    let second = Arc::new(Writer::take_over(dir.path(), identity, false).unwrap());
    assert_ne!(first.nonce(), second.nonce());
    assert_eq!(old.epoch(), None, "its clients ask for every value");
    let new = reader(&second, identity);
    first.retire();
    assert!(new.epoch().is_some() && second.path().exists());
    second.retire();
}

#[test]
fn a_table_of_another_layout_is_made_dead_and_another_one_is_named() {
    let (dir, identity) = store();
    let first = Arc::new(Writer::take_over(dir.path(), identity, false).unwrap());
    let old = reader(&first, identity);
    let (path, nonce) = (first.path().to_owned(), first.nonce());
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    drop(first);
    file.write_all_at(&2_u64.to_ne_bytes(), 8).unwrap();
    let second = Arc::new(Writer::take_over(dir.path(), identity, false).unwrap());
    assert_ne!(second.nonce(), nonce);
    assert_eq!(old.epoch(), None);
    assert!(!path.exists() && Reader::open(identity, own_uid(), nonce).is_none());
    second.retire();
}

#[test]
fn the_table_of_a_store_that_is_gone_is_removed_by_the_next_daemon() {
    let (gone, identity) = store();
    let left = Writer::take_over(gone.path(), identity, false).unwrap();
    let path = left.path().to_owned();
    let reader = reader(&left, identity);
    let (dir, other) = store();
    // Not removed: its inode would be another test's store at once.
    let moved = dir.path().join("moved");
    fs::rename(gone.path(), &moved).unwrap();
    Writer::take_over(dir.path(), other, false).unwrap().retire();
    assert!(path.exists(), "its daemon lives");
    drop(left);
    Writer::take_over(dir.path(), other, false).unwrap().retire();
    assert!(!path.exists() && reader.epoch().is_none());
}

#[test]
fn a_name_has_one_entry_and_the_last_one_is_followed_by_none() {
    let (dir, identity) = store();
    let table = Arc::new(Writer::take_over(dir.path(), identity, false).unwrap());
    for n in 0..NAMESPACES {
        assert!(table.entry(&place(&format!("n{n}"))).is_some());
    }
    assert!(table.entry(&place("one-more")).is_none() && table.known_entry(&place("n7")).is_some());
    let reader = reader(&table, identity);
    assert!(reader.entry_of(Name::of(&place("n4095"))).is_some());
    assert_eq!(reader.entry_of(Name::of(&place("one-more"))), None);
    assert_eq!(table.namespaces(), NAMESPACES);
    table.retire();
}

#[test]
fn what_others_could_write_or_what_is_a_link_is_no_table() {
    let (dir, identity) = store();
    let table = Writer::take_over(dir.path(), identity, false).unwrap();
    fs::set_permissions(table.path(), fs::Permissions::from_mode(0o622)).unwrap();
    assert!(Reader::open(identity, own_uid(), table.nonce()).is_none());
    fs::set_permissions(table.path(), fs::Permissions::from_mode(0o600)).unwrap();
    assert!(Reader::open(identity, own_uid(), table.nonce()).is_some());
    assert!(Reader::open(identity, own_uid() + 1, table.nonce()).is_none());
    let nonce = table.nonce() ^ 1;
    let link = table.path().with_file_name(shelf::file_name(own_uid(), identity, nonce));
    std::os::unix::fs::symlink(table.path(), &link).unwrap();
    assert!(Reader::open(identity, own_uid(), nonce).is_none());
    fs::remove_file(&link).unwrap();
    table.retire();
}

#[test]
fn a_table_that_is_none_any_more_is_dead_before_it_is_removed_and_what_never_was_one_is_not_written_to() {
    let (dir, identity) = store();
    let first = Arc::new(Writer::take_over(dir.path(), identity, false).unwrap());
    let old = reader(&first, identity);
    let (path, nonce) = (first.path().to_owned(), first.nonce());
    drop(first);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let text = "of a letter\n".repeat(700);
    let letter = path.with_file_name("commonhold-test-letter");
    fs::write(&letter, &text).unwrap();
    let named = path.with_file_name(shelf::file_name(own_uid(), identity, nonce ^ 1));
    fs::hard_link(&letter, &named).unwrap();
    let second = Arc::new(Writer::take_over(dir.path(), identity, false).unwrap());
    assert_eq!(old.epoch(), None, "whoever has it mapped sees that it is over");
    assert!(!path.exists() && second.nonce() != nonce && second.is_there());
    assert_eq!(fs::read_to_string(&letter).unwrap(), text);
    fs::remove_file(&letter).unwrap();
    let _ = fs::remove_file(&named);
    fs::remove_file(second.path()).unwrap();
    assert!(!second.is_there(), "who connects now does not find it");
    second.retire();
}

/// Two directories on a tmpfs, as `/dev/shm` and a user's runtime directory are.
fn two_shelves() -> ([tempfile::TempDir; 2], Vec<PathBuf>) {
    let shelf = || tempfile::Builder::new().prefix("commonhold-test-shelf.").tempdir_in("/dev/shm").unwrap();
    let dirs = [shelf(), shelf()];
    let paths = dirs.iter().map(|shelf| shelf.path().to_owned()).collect();
    (dirs, paths)
}

fn tables_on(shelf: &Path) -> usize {
    fs::read_dir(shelf).unwrap().count()
}

#[test]
fn a_table_on_another_shelf_than_the_first_is_taken_over_where_it_lies() {
    let ((dir, identity), (_dirs, shelves)) = (store(), two_shelves());
    // For the first daemon there was no room on the first shelf.
    let first = Arc::new(Writer::take_over_on(&shelves[1..], dir.path(), identity, false).unwrap());
    assert_eq!(first.path().parent(), Some(&*shelves[1]));
    let old = Reader::at(first.path(), own_uid(), first.nonce()).unwrap();
    let (docs, name) = (first.entry(&place("docs")).unwrap(), Name::of(&place("docs")));
    let (tag, entry, slot) = (docs.tag("k"), old.entry_of(name).unwrap(), old.slot_of(name, "k"));
    let path = first.path().to_owned();
    drop((docs, first)); // As a kill does.
    assert!(old.is_current(&tag, entry, slot));
    let second = Writer::take_over_on(&shelves, dir.path(), identity, false).unwrap();
    assert!(!old.is_current(&tag, entry, slot), "what the killed daemon told is void");
    assert_eq!((second.path(), second.nonce()), (&*path, old.nonce()));
    assert_eq!(shelves.iter().map(|shelf| tables_on(shelf)).collect::<Vec<_>>(), [0, 1]);
    second.retire();
}

#[test]
fn of_tables_on_two_shelves_one_is_taken_over_and_the_other_is_dead() {
    let ((dir, identity), (_dirs, shelves)) = (store(), two_shelves());
    // As two daemons leave them, of which the second did not see the directory that the first one used.
    let left = [0, 1].map(|at| Writer::take_over_on(&shelves[at..=at], dir.path(), identity, false).unwrap());
    let old = left.each_ref().map(|left| Reader::at(left.path(), own_uid(), left.nonce()).unwrap());
    let epochs = old.each_ref().map(|old| old.epoch().unwrap());
    drop(left);
    let next = Writer::take_over_on(&shelves, dir.path(), identity, false).unwrap();
    assert_eq!(next.nonce(), old[0].nonce());
    assert!(old[0].epoch().is_some_and(|epoch| epoch != epochs[0]));
    assert_eq!(old[1].epoch(), None, "nobody goes on with it");
    assert_eq!(shelves.iter().map(|shelf| tables_on(shelf)).collect::<Vec<_>>(), [1, 0]);
    next.retire();
}

#[test]
fn a_shelf_that_two_paths_lead_to_is_looked_through_once() {
    let ((dir, identity), (dirs, shelves)) = (store(), two_shelves());
    let again = dirs[1].path().join("again");
    std::os::unix::fs::symlink(&shelves[0], &again).unwrap();
    let shelves = [shelves[0].clone(), again];
    let first = Writer::take_over_on(&shelves, dir.path(), identity, false).unwrap();
    let nonce = first.nonce();
    drop(first);
    let second = Writer::take_over_on(&shelves, dir.path(), identity, false).unwrap();
    assert!(second.nonce() == nonce && second.is_there(), "who connects now finds it");
    second.retire();
}

#[test]
fn a_shelf_that_is_no_memory_is_passed_over() {
    let ((dir, identity), (_dirs, shelves)) = (store(), two_shelves());
    let shelves = [PathBuf::from("/proc"), dir.path().join("none"), shelves[0].clone()];
    let table = Writer::take_over_on(&shelves, dir.path(), identity, false).unwrap();
    assert_eq!(table.path().parent(), Some(&*shelves[2]));
    table.retire();
    let error = Writer::take_over_on(&shelves[..1], dir.path(), identity, false).unwrap_err();
    assert_eq!(error.to_string(), "/proc: it is no tmpfs");
}
