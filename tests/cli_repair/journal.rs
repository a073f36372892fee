//! Journals that are damaged, cut short, or gone.

use std::fs;

use serde_json::Value;

use crate::common::{Daemon, Store};
use crate::support::{
    check, commands, finding, flip_in_record, left_behind, names, plan, private, remedied, repaired, segments, serves,
};

#[test]
fn a_damaged_journal_is_cut_at_its_last_good_record() {
    let store = Store::new();
    let daemon = store.serve();
    store.ok(&["put", "other", "k", "1"]);
    store.ok(&["put", "n", "a", "1"]);
    store.ok(&["commit"]);
    store.ok(&["put", "n", "damaged", "2"]);
    store.ok(&["commit"]);
    store.ok(&["put", "n", "behind", "3"]);
    store.ok(&["--workspace", "w", "put", "m", "behind", "3"]);
    store.ok(&["commit"]);
    store.ok(&["put", "n", "last", "4"]);
    daemon.kill();
    let path = segments(&store).pop().expect("a segment");
    flip_in_record(&path, b"damaged");
    let daemon = Daemon::spawn(store.dir(), &store.beside("daemon.log"), &[] as &[&str]);
    let log = store.beside("daemon.log");
    assert_eq!(daemon.ended().code(), Some(5));
    let log = fs::read_to_string(log).expect("a log");
    for words in ["00000001.log, byte", "commonhold check", "commonhold repair --cut-journal"] {
        assert!(log.contains(words), "{words:?} is not in {log}");
    }
    let findings = check(&store, 5, &[]);
    let damage = finding(&findings, "journal_damage");
    assert!(damage["offset"].as_u64().is_some_and(|offset| offset > 0), "{damage}");
    let consequence = damage["consequence"].as_str().expect("a text");
    for words in [
        "the store does not start",
        "; n loses 2 writes (",
        "; w/m loses 1 write (",
        "; 3 whole writes behind the damage can be read and are given up",
    ] {
        assert!(consequence.contains(words), "{words:?} is not in {consequence}");
    }
    let before = fs::read(&path).expect("there");
    let offset = usize::try_from(damage["offset"].as_u64().expect("a number")).expect("fits");
    remedied(&store, damage, "--cut-journal");
    let aside = names(&private(&store, "journal/aside"));
    assert_eq!(aside.len(), 1, "{aside:?}");
    assert_eq!(fs::read(&aside[0]).expect("there"), before[offset..], "what was cut off is kept");
    let findings = check(&store, 0, &[]);
    assert_eq!(finding(&findings, "aside")["severity"], "note");
    serves(&store, "{\"key\":\"a\",\"value\":1}\n");
}

#[test]
fn what_a_cut_journal_has_lost_may_be_in_a_file_and_then_counts() {
    let store = Store::new();
    let daemon = store.serve();
    store.ok(&["put", "other", "k", "1"]);
    store.ok(&["put", "n", "a", "1"]);
    store.ok(&["commit"]);
    store.ok(&["put", "n", "damaged", "2"]);
    store.ok(&["put", "n", "b", "3"]);
    store.ok(&["flush", "n"]);
    store.ok(&["put", "other", "lost", "1"]);
    daemon.kill();
    flip_in_record(&segments(&store)[0], b"damaged");
    let findings = check(&store, 5, &[]);
    let damage = finding(&findings, "journal_damage");
    let consequence = damage["consequence"].as_str().expect("a text");
    assert!(consequence.contains("; n loses nothing, its file has them"), "{consequence}");
    assert!(consequence.contains("; other loses 1 write ("), "{consequence}");
    remedied(&store, damage, "--cut-journal");
    serves(&store, "{\"key\":\"a\",\"value\":1}\n{\"key\":\"damaged\",\"value\":2}\n{\"key\":\"b\",\"value\":3}\n");
}

#[test]
fn a_journal_whose_only_header_is_damaged_is_set_aside_whole() {
    let store = left_behind();
    let path = segments(&store).pop().expect("a segment");
    let mut bytes = fs::read(&path).expect("there");
    bytes[40] ^= 1;
    fs::write(&path, &bytes).expect("written");
    let findings = check(&store, 5, &[]);
    let damage = finding(&findings, "journal_damage");
    assert_eq!(damage["offset"], 0, "{damage}");
    remedied(&store, damage, "--cut-journal");
    let aside = names(&private(&store, "journal/aside"));
    assert_eq!(fs::read(&aside[0]).expect("there"), bytes);
    check(&store, 0, &["--deep"]);
    let daemon = store.serve();
    assert_eq!(store.ok(&["count", "n"]), "2\n", "what the file has");
    daemon.stop();
}

#[test]
fn a_journal_of_a_newer_format_is_told_as_such() {
    let store = left_behind();
    let path = segments(&store).pop().expect("a segment");
    let mut bytes = fs::read(&path).expect("there");
    bytes[8..12].copy_from_slice(&9_u32.to_le_bytes());
    let length = u32::from_le_bytes(bytes[12..16].try_into().expect("four bytes")) as usize;
    let crc = crc32fast::hash(&bytes[..length - 8]);
    bytes[length - 8..length - 4].copy_from_slice(&crc.to_le_bytes());
    fs::write(&path, &bytes).expect("written");
    let findings = check(&store, 5, &[]);
    assert!(finding(&findings, "newer_format")["what"].as_str().is_some_and(|what| what.contains("version 9")));
    store.run(&["repair", "--cut-journal", "--yes"]).refused(7, &["version 9"]);
    assert_eq!(fs::read(&path).expect("there"), bytes);
}

#[test]
fn an_older_segment_that_is_gone_closes_the_namespaces_that_need_it() {
    for (words, expected) in [("--keep file", ""), ("--apply journal", "{\"key\":\"late\",\"value\":3}\n")] {
        let store = Store::new();
        let daemon = store.serve();
        store.ok(&["put", "n", "a", "1"]);
        store.ok(&["commit"]);
        store.ok(&["put", "n", "b", "2"]);
        daemon.kill();
        let daemon = store.serve();
        store.ok(&["put", "other", "k", "1"]);
        store.ok(&["flush", "other"]);
        store.ok(&["put", "n", "late", "3"]);
        daemon.kill();
        let all = segments(&store);
        assert_eq!(all.len(), 2, "{all:?}");
        fs::remove_file(&all[0]).expect("removed");
        let findings = check(&store, 5, &[]);
        let gap = finding(&findings, "missing_segments");
        let what = gap["what"].as_str().expect("a text");
        assert!(what.contains("it has no file, and the journal segments"), "{what}");
        remedied(&store, gap, words);
        check(&store, 0, &["--deep"]);
        let daemon = store.serve();
        let found = store.ok(&["scan", "n"]);
        assert!(found.ends_with(expected) && !found.contains("\"a\""), "{found}");
        assert_eq!(store.ok(&["scan", "other"]), "{\"key\":\"k\",\"value\":1}\n");
        daemon.stop();
    }
}

/// The sequence number of a record.
fn seq_of(store: &Store, namespace: &str, key: &str) -> u64 {
    let told: Value = serde_json::from_str(&store.ok(&["--json", "get", namespace, key])).expect("JSON");
    told["seq"].as_u64().expect("a number")
}

#[test]
fn a_journal_without_any_segment_is_told_before_and_after_and_no_number_is_given_again() {
    for flushes in [1, 3] {
        let store = Store::new();
        let daemon = store.serve();
        for number in 0..flushes {
            store.ok(&["put", "n", &format!("k{number}"), "1"]);
            store.ok(&["flush"]);
        }
        store.ok(&["put", "n", "lost", "1"]);
        let last = seq_of(&store, "n", "lost");
        let boot: Value = serde_json::from_str(&store.ok(&["--json", "status"])).expect("JSON");
        daemon.kill();
        for path in segments(&store) {
            fs::remove_file(path).expect("removed");
        }
        let findings = check(&store, 5, &[]);
        let gone = finding(&findings, "journal_gone");
        let consequence = gone["consequence"].as_str().expect("a text");
        let known = if flushes > 1 { "n at " } else { "no kept file tells how far it had come" };
        for words in ["only the journal held are lost", "since the last flush", known] {
            assert!(consequence.contains(words), "{words:?} is not in {consequence}");
        }
        let daemon = store.serve();
        let status = store.ok(&["status"]);
        assert!(status.contains("the journal of an earlier owner was gone"), "{status}");
        assert_eq!(store.ok(&["count", "n"]), format!("{flushes}\n"));
        store.ok(&["put", "n", "new", "1"]);
        assert!(seq_of(&store, "n", "new") > last, "a number is given again");
        assert!(seq_of(&store, "n", "k0") > last, "what was loaded has a new number too");
        let now: Value = serde_json::from_str(&store.ok(&["--json", "status"])).expect("JSON");
        assert!(now["boot"].as_u64() > boot["boot"].as_u64(), "{now}");
        daemon.stop();
        let findings = check(&store, 0, &["--deep"]);
        let lost = finding(&findings, "journal_lost");
        assert_eq!(lost["severity"], "warning", "{lost}");
        fs::remove_file(lost["file"].as_str().expect("a path")).expect("removed");
        assert!(check(&store, 0, &[]).iter().all(|finding| finding["kind"] != "journal_lost"));
    }
}

#[test]
fn a_journal_that_is_behind_the_kept_files_is_told_and_no_number_is_given_again() {
    let store = Store::new();
    let daemon = store.serve();
    store.ok(&["put", "other", "k", "1"]);
    store.ok(&["put", "n", "a", "1"]);
    store.ok(&["commit"]);
    let older = fs::read(&segments(&store)[0]).expect("there");
    for key in ["b", "c", "d"] {
        store.ok(&["put", "n", key, "1"]);
        store.ok(&["flush", "n"]);
    }
    let last = seq_of(&store, "n", "d");
    daemon.stop();
    fs::write(&segments(&store)[0], older).expect("put back");
    let findings = check(&store, 5, &[]);
    let behind = finding(&findings, "journal_end_gone");
    let what = behind["what"].as_str().expect("a text");
    for words in ["the journal ends with sequence number ", "kept files have greater ones: n at ", "was cut off"] {
        assert!(what.contains(words), "{words:?} is not in {what}");
    }
    let closed = findings.iter().find(|finding| finding["kind"] == "other_file").expect("it is closed");
    let closed = closed["consequence"].as_str().expect("a text");
    assert!(closed.contains("it is the journal that is not what it was, for it ends with"), "{closed}");
    store.ok(&["repair", "n", "--keep", "file", "--yes"]);
    let findings = check(&store, 5, &[]);
    let lost = finding(&findings, "journal_lost")["what"].as_str().expect("a text");
    assert!(lost.contains("the journal ended with sequence number"), "{lost}");
    // The first flush of the other one is unknown to this journal as well.
    store.ok(&["repair", "other", "--keep", "file", "--yes"]);
    check(&store, 0, &[]);
    let daemon = store.serve();
    assert_eq!(store.ok(&["count", "n"]), "4\n", "the file is newer than the journal");
    store.ok(&["put", "n", "new", "1"]);
    assert!(seq_of(&store, "n", "new") > last, "a number is given again");
    daemon.stop();
}

#[test]
fn an_unfinished_tail_is_said_to_be_unsynced_only_as_far_as_the_journal_shows() {
    let store = left_behind();
    let path = segments(&store).pop().expect("a segment");
    let mut bytes = fs::read(&path).expect("there");
    // Inside an early record; a kept file tells that the journal had been longer.
    bytes.truncate(330);
    fs::write(&path, bytes).expect("written");
    let findings = check(&store, 5, &[]);
    finding(&findings, "journal_end_gone");
    let tail = finding(&findings, "journal_tail");
    assert!(!tail.to_string().contains("had not been synced"), "{tail}");
    assert!(tail["consequence"].as_str().is_some_and(|text| text.contains("see the error")), "{tail}");
}

/// `n` was flushed twice and ended in order; then its journal was cut in its synced part, with only the first write to `n` left
/// in it. `k` has been given values 1 to 3.
fn cut_before_the_first_flush() -> Store {
    let store = Store::new();
    let daemon = store.serve();
    store.ok(&["put", "other", "k", "1"]);
    store.ok(&["put", "n", "k", "1"]);
    store.ok(&["commit"]);
    let early = fs::read(&segments(&store)[0]).expect("there");
    let end = early.iter().rposition(|byte| *byte != 0).expect("records") / 8 * 8 + 8;
    store.ok(&["put", "n", "k", "2"]);
    store.ok(&["flush"]);
    store.ok(&["put", "n", "k", "3"]);
    daemon.stop();
    let path = segments(&store).remove(0);
    let mut bytes = fs::read(&path).expect("there");
    bytes.truncate(end);
    fs::write(&path, bytes).expect("written");
    store
}

#[test]
fn the_file_that_the_store_left_at_its_end_is_known_where_the_journal_has_lost_its_end_and_no_newer_value_goes() {
    let store = cut_before_the_first_flush();
    let number = names(&private(&store, "generations/@/n"))[0].file_stem().expect("a name").to_owned();
    let number = number.to_str().expect("UTF-8").trim_start_matches('0').to_owned();
    let findings = check(&store, 5, &[]);
    let end = finding(&findings, "journal_end_gone");
    assert!(end["what"].as_str().is_some_and(|what| what.contains("the last clean end noted greater ones")), "{end}");
    let other: Vec<_> = findings.iter().filter(|finding| finding["kind"] == "other_file").collect();
    let closed = other.iter().find(|finding| finding["namespace"] == "n").expect("it is closed");
    assert!(closed["consequence"].as_str().is_some_and(|so| so.contains("the store itself left there")), "{closed}");
    let offered = commands(closed);
    assert!(offered[0].ends_with("repair n --keep file"), "what loses nothing comes first: {offered:?}");
    for how in [vec!["--generation", &number], vec!["--generation", &number, "--yes"]] {
        // With another store, since it does it.
        let store = cut_before_the_first_flush();
        let told = store.run(&[&["repair", "n"], how.as_slice()].concat());
        assert!(told.stdout.contains("mind:\n") && told.stdout.contains("is in it alone"), "{told:?}");
    }
    // The waiting write is older than the file, and is not put over it.
    let (would, _) = repaired(&store, &["repair", "n", "--apply", "journal"]);
    assert!(would.stdout.contains("apply no writes"), "{would:?}");
    store.ok(&["repair", "other", "--keep", "file", "--yes"]);
    let daemon = store.serve();
    assert_eq!(store.ok(&["get", "n", "k"]), "3\n");
    daemon.stop();
    check(&store, 0, &["--deep"]);
}

#[test]
fn the_note_of_the_last_end_outlives_daemons_that_find_the_journal_cut() {
    let store = cut_before_the_first_flush();
    for _ in 0..2 {
        let daemon = store.serve();
        store.run(&["get", "n", "k"]).refused(5, &["is not the one that the journal's records for it belong to"]);
        daemon.stop();
    }
    let findings = check(&store, 5, &[]);
    let closed = findings.iter().find(|one| one["kind"] == "other_file" && one["namespace"] == "n").expect("closed");
    assert!(commands(closed)[0].ends_with("repair n --keep file"), "{closed}");
    // A copy of the whole store has other inodes and times, and the same bytes.
    let bytes = fs::read(store.file("n")).expect("there");
    fs::remove_file(store.file("n")).expect("removed");
    fs::write(store.file("n"), bytes).expect("written");
    remedied(&store, closed, "--keep file");
    let daemon = store.serve();
    assert_eq!(store.ok(&["get", "n", "k"]), "3\n");
    daemon.stop();
}

#[test]
fn where_no_note_tells_whose_the_file_is_it_is_said_what_it_may_hold() {
    let store = cut_before_the_first_flush();
    fs::remove_file(private(&store, "files.json")).expect("removed");
    let number = names(&private(&store, "generations/@/n"))[0].file_stem().expect("a name").to_owned();
    let number = number.to_str().expect("UTF-8").trim_start_matches('0').to_owned();
    let findings = check(&store, 5, &[]);
    let closed = findings.iter().find(|one| one["kind"] == "other_file" && one["namespace"] == "n").expect("closed");
    assert!(commands(closed)[0].ends_with("--keep file"), "what may lose later writes is not the first: {closed}");
    let losses = plan(&store, &["n", "--generation", &number]);
    assert!(losses.contains("the journal has lost its end") && losses.contains("can only be in "), "{losses}");
    let losses = plan(&store, &["n", "--apply", "journal"]);
    assert!(losses.contains("older values over its newer ones"), "{losses}");
}

#[test]
fn an_empty_oldest_segment_is_set_aside_alone_and_nothing_is_said_of_later_ones() {
    let store = Store::new();
    let daemon = store.serve();
    store.ok(&["put", "n", "a", "1"]);
    store.ok(&["commit"]);
    store.ok(&["put", "n", "b", "2"]);
    daemon.kill();
    let daemon = store.serve();
    store.ok(&["put", "other", "k", "1"]);
    store.ok(&["flush", "other"]);
    daemon.kill();
    let all = segments(&store);
    assert_eq!(all.len(), 2, "{all:?}");
    fs::write(&all[0], "").expect("written");
    let findings = check(&store, 5, &[]);
    let damage = finding(&findings, "journal_damage");
    let so = damage["consequence"].as_str().expect("a text");
    assert!(so.contains("00000001.log cannot be read without a whole header") && !so.contains("number 0"), "{so}");
    let (would, _) = remedied(&store, damage, "--cut-journal");
    assert!(would.stdout.contains("keep 00000001.log, which cannot be read"), "{would:?}");
    assert!(!would.stdout.contains("all later segments"), "{would:?}");
    let daemon = store.serve();
    assert_eq!(store.ok(&["get", "other", "k"]), "1\n");
    daemon.stop();
}
