//! Quarantine files that are damaged or gone.

use std::fs;
use std::path::PathBuf;

use crate::common::Store;
use crate::support::{ALL, check, finding, left_behind, names, private, remedied, serves};

/// A store with the right file of `n` back in its place, and the write beyond it in quarantine alone: there.
fn quarantined() -> (Store, PathBuf) {
    let store = left_behind();
    let right = fs::read(store.file("n")).expect("there");
    fs::write(store.file("n"), "torn").expect("written");
    let daemon = store.serve();
    store.ok(&["flush"]);
    daemon.stop();
    // One more start, and the journal has nothing of it any more.
    store.serve().stop();
    fs::write(store.file("n"), right).expect("written");
    let path = private(&store, "quarantine/@/n.records");
    (store, path)
}

#[test]
fn a_damaged_quarantine_file_is_set_aside() {
    for (words, expected) in [
        ("--keep file", "{\"key\":\"a\",\"value\":1}\n{\"key\":\"b\",\"value\":2}\n"),
        ("--apply journal", "{\"key\":\"a\",\"value\":1}\n{\"key\":\"b\",\"value\":2}\n"),
    ] {
        let (store, path) = quarantined();
        let mut bytes = fs::read(&path).expect("there");
        let last = bytes.len() - 3;
        bytes[last] ^= 1;
        fs::write(&path, &bytes).expect("written");
        let findings = check(&store, 5, &[]);
        let damage = finding(&findings, "quarantine_damage");
        assert!(damage["file"].as_str().is_some_and(|file| file.ends_with("n.records")), "{damage}");
        remedied(&store, damage, words);
        serves(&store, expected);
        let aside = names(&private(&store, "quarantine/@"));
        assert!(aside.iter().any(|path| fs::read(path).expect("there") == bytes), "{aside:?}");
    }
}

#[test]
fn writes_that_were_in_a_quarantine_file_which_is_bad_or_gone_are_named_and_not_said_to_be_kept() {
    let (store, path) = quarantined();
    let right = fs::read(&path).expect("there");
    let bad_at = |at: usize| {
        let mut bytes = right.clone();
        bytes[at] ^= 1;
        Some(bytes)
    };
    for (bytes, kind, told) in [
        (bad_at(20), "quarantine_damage", "of which nothing can be read"),
        (bad_at(right.len() - 3), "quarantine_damage", "of whose 3 records only 2 can be read"),
        (None, "missing_segments", "neither a journal segment nor the quarantine file "),
    ] {
        match bytes {
            Some(bytes) => fs::write(&path, bytes).expect("written"),
            None => fs::remove_file(&path).expect("removed"),
        }
        let findings = check(&store, 5, &[]);
        let finding = finding(&findings, kind);
        let consequence = finding["consequence"].as_str().expect("a text");
        for words in ["Its write with sequence number ", " cannot be read: ", told, "n.records", "a backup of that"] {
            assert!(consequence.contains(words), "{words:?} is not in {consequence}");
        }
        assert!(!consequence.contains("are kept in"), "{consequence}");
        let backup = finding["remedies"].to_string();
        assert!(backup.contains("n.records back from a backup"), "{backup}");
        for how in [["--keep", "file"], ["--apply", "journal"]] {
            let plan = store.ok(&[&["--json", "repair", "n"], how.as_slice()].concat());
            for words in
                ["the acknowledged write to it with sequence number ", " nowhere any more: ", told, "n.records"]
            {
                assert!(plan.contains(words), "{words:?} is not in {plan}");
            }
        }
    }
    // The namespace says so, too, when it is asked.
    let daemon = store.serve();
    let refused = store.run(&["get", "n", "a"]);
    refused.refused(5, &["nothing can be read any more"]);
    assert!(!refused.stderr.contains("are kept)"), "{refused:?}");
    daemon.stop();
    // With a backup of the file nothing is lost.
    fs::write(&path, &right).expect("put back");
    serves(&store, ALL);
}
