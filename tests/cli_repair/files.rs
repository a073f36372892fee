//! Namespace files that are torn, foreign, missing, or no files at all.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::common::Store;
use crate::support::{ALL, check, finding, left_behind, names, private, remedied, repaired, serves};

#[test]
fn a_torn_file_is_gone_back_from_to_a_generation_and_nothing_is_lost() {
    let store = left_behind();
    fs::write(store.file("n"), "{\n\"a\":1,\n\"b").expect("written");
    let findings = check(&store, 5, &[]);
    let torn = finding(&findings, "not_json");
    assert_eq!((&torn["namespace"], &torn["line"], &torn["offset"]), (&"n".into(), &3.into(), &11.into()));
    assert!(torn["file"].as_str().is_some_and(|file| file.ends_with("kv_store_n.json")), "{torn}");
    assert!(torn["consequence"].as_str().is_some_and(|text| text.contains("the others are served")), "{torn}");
    let told = store.run(&["check"]);
    told.refused(5, &["needs repair: 1 error"]);
    assert!(told.stdout.contains("kv_store_n.json, line 3, column 3, byte 11"), "{told:?}");
    // Also after a daemon has been there, and the records are in quarantine.
    let daemon = store.serve();
    store.run(&["get", "n", "a"]).refused(5, &["kv_store_n.json", "line 3", "commonhold check"]);
    assert_eq!(store.ok(&["get", "other", "k"]), "1\n");
    daemon.stop();
    assert!(private(&store, "quarantine/@/n.records").exists());
    let findings = check(&store, 5, &[]);
    assert!(finding(&findings, "not_json")["consequence"].as_str().is_some_and(|text| text.contains("n.records")));
    finding(&findings, "quarantine");
    let (would, _) = remedied(&store, finding(&findings, "not_json"), "--generation");
    assert!(would.stdout.contains("with 3 records") && !would.stdout.contains("mind"), "{would:?}");
    let foreign = names(&private(&store, "generations/@/n"));
    let kept = foreign.iter().filter(|path| path.to_string_lossy().ends_with(".foreign.json"));
    assert_eq!(kept.map(|path| fs::read(path).expect("read")).collect::<Vec<_>>(), [b"{\n\"a\":1,\n\"b"]);
    serves(&store, ALL);
    assert!(!private(&store, "quarantine/@/n.records").exists());
}

#[test]
fn a_torn_file_is_mended_by_hand_and_gets_the_waiting_writes() {
    let store = left_behind();
    fs::write(store.file("n"), "{\n\"a\":1,\n\"b").expect("written");
    store.run(&["repair", "n", "--apply", "journal"]).refused(4, &["line 3, column 3", "mend it by hand"]);
    store.run(&["repair", "n", "--keep", "file"]).refused(4, &["line 3, column 3"]);
    store.run(&["repair", "n", "--generation", "5"]).refused(4, &["no such generation; kept are"]);
    store.run(&["repair", "n", "--generation", "x"]).refused(2, &["is no generation"]);
    fs::write(store.file("n"), "{\n  \"mended\": 1\n}").expect("written");
    let findings = check(&store, 5, &[]);
    remedied(&store, finding(&findings, "other_file"), "--apply journal");
    assert_eq!(fs::read_to_string(store.file("n")).expect("there"), "{\n  \"mended\": 1,\n  \"c\": 3\n}");
    serves(&store, "{\"key\":\"mended\",\"value\":1}\n{\"key\":\"c\",\"value\":3}\n");
}

#[test]
fn a_torn_file_can_be_given_up_and_is_kept() {
    let store = left_behind();
    fs::write(store.file("n"), "torn").expect("written");
    let findings = check(&store, 5, &[]);
    let (would, _) = remedied(&store, finding(&findings, "not_json"), "--set-aside");
    assert!(would.stdout.contains("the file is kept"), "{would:?}");
    serves(&store, ALL);
}

#[test]
fn a_torn_file_without_waiting_writes_has_its_place_told_and_goes_back_too() {
    let store = Store::new();
    let daemon = store.serve();
    store.ok(&["put", "other", "k", "1"]);
    store.ok(&["put", "n", "a", "1"]);
    store.ok(&["flush", "n"]);
    store.ok(&["put", "n", "b", "2"]);
    daemon.stop();
    fs::write(store.file("n"), "{\"a\":1,").expect("written");
    let findings = check(&store, 5, &[]);
    remedied(&store, finding(&findings, "not_json"), "--generation");
    serves(&store, "{\"key\":\"a\",\"value\":1}\n{\"key\":\"b\",\"value\":2}\n");
}

#[test]
fn a_file_that_nobody_knows_is_kept_and_the_waiting_writes_are_set_aside() {
    let store = left_behind();
    fs::write(store.file("n"), "{\"found\": 1.10}").expect("written");
    let findings = check(&store, 5, &[]);
    let (would, _) = remedied(&store, finding(&findings, "other_file"), "--keep file");
    assert!(would.stdout.contains("do not count any more"), "{would:?}");
    assert_eq!(fs::read_to_string(store.file("n")).expect("there"), "{\"found\": 1.10}", "it is kept as it is");
    let findings = check(&store, 0, &[]);
    let aside = finding(&findings, "quarantine_aside")["file"].as_str().expect("a path").to_owned();
    serves(&store, "{\"key\":\"found\",\"value\":1.10}\n");
    assert!(Path::new(&aside).exists(), "what was set aside stays");
}

#[test]
fn a_file_that_is_missing_while_writes_wait() {
    for (words, expected) in [
        ("--apply journal", "{\"key\":\"c\",\"value\":3}\n"),
        ("--keep file", ""),
        ("--generation", "{\"key\":\"a\",\"value\":1}\n{\"key\":\"c\",\"value\":3}\n"),
    ] {
        let store = Store::new();
        let daemon = store.serve();
        store.ok(&["put", "other", "k", "1"]);
        store.ok(&["put", "n", "a", "1"]);
        store.ok(&["flush"]);
        store.ok(&["put", "n", "b", "2"]);
        daemon.stop();
        // This one lets go of the journal so far; before that the journal alone would have everything.
        let daemon = store.serve();
        store.ok(&["put", "n", "c", "3"]);
        store.ok(&["commit"]);
        daemon.kill();
        fs::remove_file(store.file("n")).expect("removed");
        let findings = check(&store, 5, &[]);
        let missing = finding(&findings, "missing_file");
        assert!(missing["what"].as_str().is_some_and(|what| what.contains("is missing")), "{missing}");
        let (would, _) = remedied(&store, missing, words);
        assert!(
            would.stdout.contains("mind:\n") && would.stdout.contains("are nowhere any more"),
            "{words}: {would:?}"
        );
        serves(&store, expected);
    }
}

#[test]
fn a_file_that_is_missing_or_changed_while_nothing_waits_is_a_warning() {
    let store = Store::new();
    let daemon = store.serve();
    store.ok(&["put", "other", "k", "1"]);
    store.ok(&["put", "n", "a", "1"]);
    store.ok(&["flush"]);
    store.ok(&["put", "n", "b", "2"]);
    daemon.stop();
    let right = fs::read(store.file("n")).expect("there");
    fs::remove_file(store.file("n")).expect("removed");
    assert_eq!(finding(&check(&store, 0, &[]), "file_gone")["severity"], "warning");
    let changed = String::from_utf8(right).expect("UTF-8").replace('2', "7");
    fs::write(store.file("n"), changed).expect("written");
    assert_eq!(check(&store, 0, &[]).len(), 0, "its size is right, and only a deep check reads it");
    let findings = check(&store, 0, &["--deep"]);
    let foreign = finding(&findings, "foreign_file");
    assert_eq!(foreign["severity"], "warning");
    remedied(&store, foreign, "--generation");
    serves(&store, "{\"key\":\"a\",\"value\":1}\n{\"key\":\"b\",\"value\":2}\n");
}

#[test]
fn what_is_no_file_of_its_own_is_explained() {
    let store = left_behind();
    let target = store.beside("elsewhere.json");
    fs::rename(store.file("n"), &target).expect("moved");
    std::os::unix::fs::symlink(&target, store.file("n")).expect("linked");
    fs::create_dir(store.file("dir")).expect("made");
    fs::create_dir(store.beside("tenant")).expect("made");
    fs::write(store.beside("tenant/kv_store_x.json"), "{}").expect("written");
    std::os::unix::fs::symlink(store.beside("tenant"), store.dir().join("tenant")).expect("linked");
    std::os::unix::fs::symlink(store.beside(""), store.dir().join("none_of_ours")).expect("linked");
    fs::write(store.file("Case"), "{}").expect("written");
    fs::write(store.file("case"), "{}").expect("written");
    let findings = check(&store, 5, &[]);
    assert!(finding(&findings, "link")["what"].as_str().is_some_and(|what| what.contains("elsewhere.json")));
    finding(&findings, "not_a_file");
    let workspace = finding(&findings, "workspace_link");
    assert!(workspace["what"].as_str().is_some_and(|what| what.contains("tenant")), "{workspace}");
    finding(&findings, "case_clash");
    store.run(&["repair", "n", "--keep", "file", "--yes"]).refused(4, &["symbolic link", "elsewhere.json"]);
    store.run(&["repair", "dir", "--set-aside", "--yes"]).refused(4, &["not a regular file"]);
    // The explanation is all it takes.
    fs::remove_file(store.file("n")).expect("removed");
    fs::rename(&target, store.file("n")).expect("moved");
    for path in [store.file("case"), store.dir().join("tenant"), store.dir().join("none_of_ours")] {
        fs::remove_file(path).expect("removed");
    }
    fs::remove_dir(store.file("dir")).expect("removed");
    serves(&store, ALL);
}

/// The commands that a finding offers, in order.
fn commands(finding: &Value) -> Vec<&str> {
    let remedies = finding["remedies"].as_array().expect("a list");
    remedies.iter().filter_map(|remedy| remedy["command"].as_str()).collect()
}

#[test]
fn another_programs_kept_file_is_offered_last_and_is_not_said_to_hold_our_writes() {
    let store = left_behind();
    let kept = private(&store, "generations/@/n/00000000000000000008.foreign.json");
    fs::write(kept, "{\"z\": 9}").expect("written");
    fs::write(store.file("n"), "{\"found\": 1.10}").expect("written");
    let findings = check(&store, 5, &[]);
    let offered = finding(&findings, "other_file");
    let commands = commands(offered);
    assert!(commands[0].contains("--generation") && !commands[0].contains("foreign"), "{commands:?}");
    assert!(commands.last().is_some_and(|last| last.ends_with("--generation 8.foreign")), "{commands:?}");
    let told = offered["remedies"].as_array().expect("a list");
    assert!(told[0]["what"].as_str().is_some_and(|what| what.contains("holds every write up to sequence number")));
    let last = told.last().expect("one")["what"].as_str().expect("a text");
    assert!(last.contains("another program's content") && last.contains("not known to hold any write"), "{last}");
    // What cannot be vouched for is told before and when it is done.
    let (would, _) = remedied(&store, offered, "8.foreign");
    let told = "for none of the acknowledged writes up to sequence number";
    assert!(would.stdout.contains("mind:\n") && would.stdout.contains(told), "{would:?}");
    serves(&store, "{\"key\":\"z\",\"value\":9}\n{\"key\":\"c\",\"value\":3}\n");
}

#[test]
fn every_choice_that_may_give_up_acknowledged_writes_names_them() {
    for how in [["--keep", "file"], ["--apply", "journal"]] {
        let store = left_behind();
        fs::write(store.file("n"), "{\"found\": 1.10}").expect("written");
        let (would, _) = repaired(&store, &[&["repair", "n"], how.as_slice()].concat());
        let told = "for none of the acknowledged writes up to sequence number";
        assert!(would.stdout.contains(told), "{how:?}: {would:?}");
    }
    let store = left_behind();
    fs::write(store.file("n"), "{\"found\": 1.10}").expect("written");
    let plan = store.ok(&["--json", "repair", "n", "--keep", "file"]);
    let plan: Value = serde_json::from_str(&plan).expect("JSON");
    let losses = plan["losses"].to_string();
    assert!(losses.contains("do not count any more: 1 write (sequence number "), "{losses}");
    // The journal has all that the kept file lacks: nothing is to be minded.
    let number = names(&private(&store, "generations/@/n"))[0].file_stem().expect("a name").to_owned();
    let plan = store.ok(&["--json", "repair", "n", "--generation", number.to_str().expect("UTF-8")]);
    assert!(plan.contains("\"losses\":[]"), "{plan}");
}
