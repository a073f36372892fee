//! Namespace files that are torn, foreign, missing, or no files at all.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::common::Store;
use crate::support::{
    ALL, check, commands, finding, left_behind, names, plan as plan_of, private, remedied, repaired, segments, serves,
};

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
    assert!(would.stdout.contains("keep the present file in") && !would.stdout.contains("mind:"), "{would:?}");
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
    finding(&check(&store, 0, &[]), "foreign_file");
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
    // The journal has all that the kept file lacks, if it is the right one: no note tells whose the present file is.
    let number = names(&private(&store, "generations/@/n"))[0].file_stem().expect("a name").to_owned();
    let number = number.to_str().expect("UTF-8").to_owned();
    let losses = plan_of(&store, &["n", "--generation", &number]);
    assert!(
        losses.lines().count() == 1 && losses.contains("if it is the store's own, and the journal an older"),
        "{losses}"
    );
    // Here one does: it is another program's.
    store.ok(&["repair", "n", "--generation", &number, "--yes"]);
    let daemon = store.serve();
    store.ok(&["get", "n", "a"]);
    daemon.stop();
    fs::write(store.file("n"), "{\"found\": 1.10}").expect("written");
    let number = names(&private(&store, "generations/@/n")).iter().rev().find_map(|path| {
        let stem = path.file_stem()?.to_str()?.to_owned();
        (!stem.contains("foreign")).then_some(stem)
    });
    let losses = plan_of(&store, &["n", "--generation", &number.expect("one is kept")]);
    assert!(!losses.contains("if it is the store's own"), "{losses}");
}

#[test]
fn going_back_in_a_healthy_store_says_what_only_the_present_file_has() {
    let store = Store::new();
    let daemon = store.serve();
    store.ok(&["put", "other", "k", "1"]);
    for number in ["1", "2", "3"] {
        store.ok(&["put", "n", "k", number]);
        // Numbers that were never in this namespace.
        store.ok(&["put", "other", "k", "1"]);
        store.ok(&["flush"]);
    }
    daemon.stop();
    // Starts that let go of the journal so far.
    store.serve().stop();
    store.serve().stop();
    let number = names(&private(&store, "generations/@/n"))[0].file_stem().expect("a name").to_owned();
    let losses = plan_of(&store, &["n", "--generation", number.to_str().expect("UTF-8")]);
    assert!(losses.contains("is in the present file, which is kept") && !losses.contains("nowhere"), "{losses}");
    assert!(losses.contains("It is also in the kept file of sequence number "), "a newer one has some of it: {losses}");
    // Without the present file, the newer kept one has some, and the last write is nowhere; no other number is named.
    fs::remove_file(store.file("n")).expect("removed");
    let losses = plan_of(&store, &["n", "--generation", number.to_str().expect("UTF-8")]);
    assert!(losses.contains("is in the kept file of sequence number "), "{losses}");
    assert!(losses.contains("the acknowledged write to it with sequence number "), "{losses}");
}

#[test]
fn what_a_put_builds_upon_another_programs_file_leaves_the_journals_own_writes_aside() {
    let store = Store::new();
    let daemon = store.serve();
    store.ok(&["put", "other", "k", "1"]);
    store.ok(&["put", "n", "ours", "1"]);
    store.ok(&["commit"]);
    daemon.stop();
    fs::write(store.file("n"), "{\"theirs\": 1}").expect("written");
    let daemon = store.serve();
    // Neither a flush of everything nor `status` calls the file up to date.
    let status = store.ok(&["status"]);
    assert!(status.contains("warning: namespace n: ") && status.contains("is not what was flushed"), "{status}");
    let flushed = store.run(&["flush"]);
    assert!(flushed.code == 0 && flushed.stderr.contains("were left alone: n."), "{flushed:?}");
    assert!(store.ok(&["--json", "flush"]).contains("\"held\":[\"n\"]"));
    store.ok(&["put", "n", "new", "2"]);
    let aside = names(&private(&store, "quarantine/@"));
    assert!(aside.len() == 1 && aside[0].extension().is_some_and(|end| end == "aside"), "{aside:?}");
    let kept = fs::read(&aside[0]).expect("there");
    assert!(kept.windows(4).any(|window| window == b"ours"), "the write is in it");
    assert!(!store.run(&["flush"]).stderr.contains("left alone"));
    daemon.stop();
    let findings = check(&store, 0, &["--deep"]);
    let told = finding(&findings, "quarantine_aside");
    assert!(
        told["what"].as_str().is_some_and(|what| what.contains("or the daemon did when it took another file")),
        "{told}"
    );
}

#[test]
fn a_stop_names_what_status_warns_of() {
    let store = Store::new();
    let daemon = store.serve();
    store.ok(&["put", "other", "k", "1"]);
    store.ok(&["put", "n", "ours", "1"]);
    daemon.stop();
    fs::write(store.file("n"), "{\"theirs\": 1}").expect("written");
    let _daemon = store.serve();
    let stopped = store.run(&["stop"]);
    assert!(stopped.code == 0 && stopped.stderr.contains("except those that are not what was flushed"), "{stopped:?}");
    assert!(stopped.stderr.contains("were left alone: n."), "{stopped:?}");
}

#[test]
fn a_file_where_a_workspace_should_be_is_named_with_what_to_do() {
    let store = Store::new();
    let daemon = store.serve();
    store.ok(&["--workspace", "w", "put", "n", "k", "1"]);
    // One that nothing was ever stored in is no damage: the file may be somebody's.
    fs::write(store.dir().join("notes"), "mine").expect("written");
    let refused = store.run(&["--workspace", "notes", "put", "n", "k", "1"]);
    refused.refused(7, &["store/notes", "stands where workspace notes needs a directory", "move it out of the store"]);
    assert!(!refused.stderr.contains("commonhold check"), "{refused:?}");
    daemon.stop();
    fs::rename(store.dir().join("w"), store.beside("w")).expect("moved");
    fs::write(store.dir().join("w"), "mine").expect("written");
    let findings = check(&store, 5, &[]);
    assert!(finding(&findings, "workspace_file")["file"].as_str().is_some_and(|file| file.ends_with("/store/w")));
    let daemon = store.serve();
    store.run(&["--workspace", "w", "get", "n", "k"]).refused(5, &["not a directory of its own, but a file"]);
    daemon.stop();
    fs::remove_file(store.dir().join("w")).expect("removed");
    fs::rename(store.beside("w"), store.dir().join("w")).expect("moved back");
    check(&store, 0, &["--deep"]);
}

#[test]
fn a_store_starts_where_a_file_stands_in_the_place_of_a_workspace_that_something_waits_for() {
    let store = left_behind();
    let daemon = store.serve();
    store.ok(&["--workspace", "w", "put", "m", "k", "1"]);
    store.ok(&["commit"]);
    daemon.kill();
    fs::write(store.dir().join("w"), "mine").expect("written");
    check(&store, 5, &[]);
    let daemon = store.serve();
    assert_eq!(store.ok(&["count", "n"]), "3\n", "the others are served");
    daemon.stop();
    fs::remove_file(store.dir().join("w")).expect("removed");
    let daemon = store.serve();
    assert_eq!(store.ok(&["--workspace", "w", "get", "m", "k"]), "1\n");
    daemon.stop();
}

#[test]
fn a_flush_that_fails_says_why_the_same_way_for_one_and_for_all_and_status_shows_it_until_one_comes_through() {
    let store = Store::new();
    let daemon = store.serve();
    store.ok(&["put", "n", "k", "1"]);
    fs::create_dir(store.file("n")).expect("made");
    for arguments in [["flush", "n"].as_slice(), &["flush"]] {
        let refused = store.run(arguments);
        refused.refused(7, &["could not flush n: ", "kv_store_n.json is a directory", "move it out of the store"]);
        assert!(!refused.stderr.contains("closed"), "{refused:?}");
    }
    let status = store.ok(&["status"]);
    assert!(
        status.contains("n: the last flush failed ") && status.contains("kv_store_n.json is a directory"),
        "{status}"
    );
    let status: Value = serde_json::from_str(&store.ok(&["--json", "status"])).expect("JSON");
    let failed = &status["namespaces"][0]["failed_flush"];
    assert!(
        failed["unix_ms"].is_u64() && failed["reason"].as_str().is_some_and(|why| why.contains("a directory")),
        "{failed}"
    );
    assert_eq!(store.ok(&["get", "n", "k"]), "1\n");
    fs::remove_dir(store.file("n")).expect("removed");
    store.ok(&["flush"]);
    let status: Value = serde_json::from_str(&store.ok(&["--json", "status"])).expect("JSON");
    assert!(status["namespaces"][0]["failed_flush"].is_null(), "{status}");
    daemon.stop();
}

#[test]
fn a_missing_segment_has_the_present_file_kept_before_any_older_one() {
    let store = Store::new();
    let daemon = store.serve();
    store.ok(&["put", "n", "a", "1"]);
    store.ok(&["flush", "n"]);
    store.ok(&["put", "n", "b", "2"]);
    store.ok(&["flush", "n"]);
    store.ok(&["put", "n", "c", "3"]);
    store.ok(&["commit"]);
    // This one tells that the write before it is synced: the next start leaves it in its segment.
    store.ok(&["put", "other", "k", "1"]);
    daemon.kill();
    store.serve().kill();
    let all = segments(&store);
    assert_eq!(all.len(), 2, "{all:?}");
    fs::remove_file(&all[0]).expect("removed");
    let findings = check(&store, 5, &[]);
    let Some(gap) = findings.iter().find(|one| one["kind"] == "missing_segments") else { panic!("{findings:#?}") };
    let told = commands(gap);
    assert!(!told[0].contains("--generation"), "the present file has more than an older one: {gap:#}");
    assert!(!gap.to_string().contains("apply the waiting writes"), "nothing waits: {gap:#}");
}

/// One flushed file of which none is kept, killed before the journal has let go of anything.
fn flushed_once() -> Store {
    let store = Store::new();
    let daemon = store.serve_with(&["--keep", "0"]);
    store.ok(&["put", "other", "k", "1"]);
    store.ok(&["put", "n", "a", "1"]);
    store.ok(&["put", "n", "b", "2"]);
    store.ok(&["flush"]);
    daemon.kill();
    store
}

const BOTH: &str = "{\"key\":\"a\",\"value\":1}\n{\"key\":\"b\",\"value\":2}\n";

#[test]
fn what_was_flushed_comes_back_from_a_journal_that_has_all_of_it_when_the_file_is_gone_emptied_or_another() {
    for (found, kind, how) in [
        (None, "file_gone", "--apply journal"),
        (Some("{}"), "foreign_file", "--set-aside"),
        (Some(""), "foreign_file", "--set-aside"),
        (Some("{\"theirs\":7}"), "foreign_file", "--set-aside"),
        (Some("{\"a\":1"), "not_json", "--set-aside"),
    ] {
        let store = flushed_once();
        match found {
            None => fs::remove_file(store.file("n")).expect("removed"),
            Some(text) => fs::write(store.file("n"), text).expect("written"),
        }
        // Also after a daemon has been there: it serves what it has found, and the journal waits.
        let daemon = store.serve();
        daemon.kill();
        let findings = check(&store, if kind == "not_json" { 5 } else { 0 }, &[]);
        let found_so = finding(&findings, kind);
        let offers = found_so["remedies"].to_string();
        assert!(offers.contains("2 changes") && offers.contains(how), "{found:?}: {offers}");
        let (would, _) = remedied(&store, found_so, how);
        // What another program wrote is a loss, if it is one: it is said, and the file is kept.
        assert_eq!(would.stdout.contains("mind:\n"), found == Some("{\"theirs\":7}"), "{found:?}: {would:?}");
        assert!(would.stdout.contains("has everything of the last file that it knows"), "{would:?}");
        assert!(!check(&store, 0, &["--deep"]).iter().any(|left| left["kind"] == kind), "{found:?}: it is settled");
        serves(&store, BOTH);
        let kept = names(&private(&store, "generations/@/n"));
        let foreign = kept.iter().find(|path| path.to_string_lossy().ends_with(".foreign.json"));
        assert_eq!(
            foreign.map(|path| fs::read_to_string(path).expect("read")).as_deref(),
            found,
            "what was found is kept"
        );
    }
}

#[test]
fn that_a_file_is_gone_or_another_can_be_said_to_be_right_and_what_the_journal_has_is_set_aside() {
    for (found, kind, expected) in
        [(None, "file_gone", ""), (Some("{\"theirs\":7}"), "foreign_file", "{\"key\":\"theirs\",\"value\":7}\n")]
    {
        let store = flushed_once();
        match found {
            None => fs::remove_file(store.file("n")).expect("removed"),
            Some(text) => fs::write(store.file("n"), text).expect("written"),
        }
        let (would, _) = remedied(&store, finding(&check(&store, 0, &[]), kind), "--keep file");
        assert!(would.stdout.contains("set what the journal has of it, 2 writes"), "{would:?}");
        let findings = check(&store, 0, &["--deep"]);
        assert!(!findings.iter().any(|left| left["kind"] == kind), "{findings:#?}");
        let aside = finding(&findings, "quarantine_aside")["file"].as_str().expect("a path").to_owned();
        assert!(Path::new(&aside).exists());
        store.run(&["repair", "n", "--set-aside"]).refused(4, &["namespace n opens"]);
        serves(&store, expected);
    }
}

#[test]
fn what_was_flushed_is_set_aside_when_the_waiting_writes_are_put_over_another_file() {
    let store = flushed_once();
    let daemon = store.serve_with(&["--keep", "0"]);
    store.ok(&["put", "n", "c", "3"]);
    store.ok(&["commit"]);
    daemon.kill();
    fs::write(store.file("n"), "{\"theirs\":7}").expect("written");
    let findings = check(&store, 5, &[]);
    let other = finding(&findings, "other_file");
    let held = other["remedies"].to_string();
    assert!(held.contains("--set-aside"), "{held}");
    let (would, _) = remedied(&store, other, "--apply journal");
    assert!(would.stdout.contains("aside in") && would.stdout.contains("quarantine"), "{would:?}");
    let aside = names(&private(&store, "quarantine/@"));
    let aside: Vec<_> = aside.iter().filter(|path| path.extension().is_some_and(|is| is == "aside")).collect();
    assert_eq!(aside.len(), 1, "{aside:?}");
    serves(&store, "{\"key\":\"theirs\",\"value\":7}\n{\"key\":\"c\",\"value\":3}\n");
    assert!(aside[0].exists(), "what was set aside stays");
}

#[test]
fn an_emptied_file_with_waiting_writes_gets_everything_back_from_a_journal_that_has_it() {
    let store = Store::new();
    let daemon = store.serve_with(&["--keep", "0"]);
    store.ok(&["put", "other", "k", "1"]);
    store.ok(&["put", "n", "a", "1"]);
    store.ok(&["flush", "n"]);
    store.ok(&["put", "n", "b", "2"]);
    daemon.kill();
    fs::write(store.file("n"), "{}").expect("emptied");
    let findings = check(&store, 5, &[]);
    let (would, _) = remedied(&store, finding(&findings, "other_file"), "--set-aside");
    assert!(!would.stdout.contains("mind:\n"), "{would:?}");
    serves(&store, BOTH);
}

#[test]
fn an_older_copy_that_was_put_back_is_told_for_what_it_is() {
    for is_ended in [false, true] {
        let store = Store::new();
        let daemon = store.serve();
        store.ok(&["put", "other", "k", "1"]);
        store.ok(&["put", "n", "a", "1"]);
        store.ok(&["flush", "n"]);
        let older = fs::read(store.file("n")).expect("there");
        store.ok(&["put", "n", "a", "2"]);
        store.ok(&["flush", "n"]);
        if is_ended {
            daemon.stop();
        } else {
            daemon.kill();
        }
        let whole = fs::read(store.file("n")).expect("there");
        assert_eq!(older.len(), whole.len(), "its size does not tell");
        if is_ended {
            // Under a daemon, which leaves it alone when it ends.
            let daemon = store.serve();
            fs::write(store.file("n"), &older).expect("put back");
            daemon.stop();
            let findings = check(&store, 0, &[]);
            let told = finding(&findings, "foreign_file");
            assert!(told["what"].as_str().is_some_and(|what| what.contains("it is an older file")), "{told}");
            assert!(!told.to_string().contains(" alone"), "{told}");
            remedied(&store, told, "--keep file");
            serves(&store, "{\"key\":\"a\",\"value\":1}\n");
        } else {
            // The journal has all that is missing in it, and a start gives it.
            fs::write(store.file("n"), &older).expect("put back");
            let findings = check(&store, 0, &["--deep"]);
            let told = finding(&findings, "earlier_file");
            assert_eq!(told["severity"], "note");
            assert!(told["consequence"].as_str().is_some_and(|so| so.contains("nothing is lost")), "{told}");
            serves(&store, "{\"key\":\"a\",\"value\":2}\n");
        }
        assert!(
            check(&store, 0, &["--deep"]).iter().all(|left| left["namespace"] != "n" || left["severity"] == "note")
        );
    }
}

#[test]
fn a_name_that_a_drop_has_freed_is_no_clash_with_who_has_it_since() {
    let store = Store::new();
    let daemon = store.serve();
    for (name, is_dropped) in [("Foo", true), ("foo", true), ("FOO", false)] {
        store.ok(&["put", name, "k", "1"]);
        if is_dropped {
            store.ok(&["drop", name]);
        }
    }
    daemon.stop();
    assert!(check(&store, 0, &["--deep"]).iter().all(|finding| finding["severity"] != "error"));
    let daemon = store.serve();
    assert_eq!(store.ok(&["get", "FOO", "k"]), "1\n");
    daemon.stop();
}
