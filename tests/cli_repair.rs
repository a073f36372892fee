//! `check` and `repair` on stores that are damaged in every way that the design names: what is told (file, place,
//! consequence, remedy), that nothing is changed until `--yes`, and that the daemon starts and serves afterwards.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Daemon, Ran, Store};
use serde_json::Value;

/// Two flushed files of `n`, the older one kept, and a write beyond both; `other` waits too. No daemon runs.
fn left_behind() -> Store {
    let store = Store::new();
    let daemon = store.serve();
    store.ok(&["put", "other", "k", "1"]);
    store.ok(&["put", "n", "a", "1"]);
    store.ok(&["flush", "n"]);
    store.ok(&["put", "n", "b", "2"]);
    store.ok(&["flush", "n"]);
    store.ok(&["put", "n", "c", "3"]);
    store.ok(&["commit"]);
    daemon.kill();
    store
}

const ALL: &str = "{\"key\":\"a\",\"value\":1}\n{\"key\":\"b\",\"value\":2}\n{\"key\":\"c\",\"value\":3}\n";

fn private(store: &Store, path: &str) -> PathBuf {
    store.dir().join(".commonhold").join(path)
}

fn segments(store: &Store) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = names(&private(store, "journal"))
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    found.sort();
    found
}

/// What lies in a directory; nothing if it is not there.
fn names(directory: &Path) -> Vec<PathBuf> {
    let Ok(listed) = fs::read_dir(directory) else { return Vec::new() };
    let mut found: Vec<_> = listed.map(|entry| entry.expect("an entry").path()).collect();
    found.sort();
    found
}

/// All files below a directory with their bytes; the lock's file and sockets left out.
fn files_below(directory: &Path) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let mut found = Vec::new();
    for path in names(directory) {
        let kind = fs::symlink_metadata(&path).expect("it is there").file_type();
        if kind.is_dir() {
            found.extend(files_below(&path));
        }
        let is_read = kind.is_file() && path.file_name().is_some_and(|name| name != "owner.lock");
        let bytes = is_read.then(|| fs::read(&path).expect("read"));
        found.push((path, bytes));
    }
    found
}

/// Checks, sees that nothing was changed by it, and returns the findings.
#[track_caller]
fn check(store: &Store, code: i32, options: &[&str]) -> Vec<Value> {
    let before = files_below(store.dir());
    let ran = store.run(&[&["--json", "check"], options].concat());
    assert_eq!(ran.code, code, "{ran:?}");
    assert!(files_below(store.dir()) == before, "a check changes nothing");
    let report: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    let findings = report["findings"].as_array().expect("a list").clone();
    for finding in &findings {
        assert!(finding["what"].as_str().is_some_and(|text| !text.is_empty()), "{finding}");
        assert!(finding["consequence"].as_str().is_some_and(|text| !text.is_empty()), "{finding}");
        if finding["severity"] == "error" {
            assert!(!finding["remedies"].as_array().expect("a list").is_empty(), "{finding}");
        }
    }
    findings
}

/// The one finding of a kind.
#[track_caller]
fn finding<'a>(findings: &'a [Value], kind: &str) -> &'a Value {
    let mut found = findings.iter().filter(|finding| finding["kind"] == kind);
    let first = found.next().unwrap_or_else(|| panic!("no {kind} in {findings:#?}"));
    assert!(found.next().is_none(), "more than one {kind} in {findings:#?}");
    first
}

/// Runs the command that a finding offers and that has these words in it: first without, then with `--yes`.
#[track_caller]
fn remedied(store: &Store, finding: &Value, words: &str) -> (Ran, Ran) {
    let remedies = finding["remedies"].as_array().expect("a list");
    let command = remedies.iter().filter_map(|remedy| remedy["command"].as_str()).find(|line| line.contains(words));
    let command = command.unwrap_or_else(|| panic!("no {words:?} in {finding:#}"));
    let mut arguments: Vec<&str> = command.split(' ').collect();
    let named: Vec<&str> = arguments.drain(..3).collect();
    assert_eq!(named, ["commonhold", "--store", store.dir().to_str().expect("UTF-8")]);
    repaired(store, &arguments)
}

#[track_caller]
fn repaired(store: &Store, arguments: &[&str]) -> (Ran, Ran) {
    let before = files_below(store.dir());
    let would = store.run(arguments);
    assert_eq!(would.code, 0, "{would:?}");
    assert!(would.stderr.contains("nothing was changed"), "{would:?}");
    assert!(files_below(store.dir()) == before, "nothing is changed without --yes");
    let done = store.run(&[arguments, &["--yes"]].concat());
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(would.stdout.split_once('\n').map(|(_, rest)| rest), done.stdout.split_once('\n').map(|(_, rest)| rest));
    (would, done)
}

/// The daemon serves the namespace with these records, also after one more start, and a check finds no error.
#[track_caller]
fn serves(store: &Store, expected: &str) {
    check(store, 0, &["--deep"]);
    let daemon = store.serve();
    assert_eq!(store.ok(&["scan", "n"]), expected);
    assert_eq!(store.ok(&["scan", "other"]), "{\"key\":\"k\",\"value\":1}\n");
    store.ok(&["put", "n", "later", "4"]);
    daemon.kill();
    let daemon = store.serve();
    assert_eq!(store.ok(&["scan", "n"]), format!("{expected}{{\"key\":\"later\",\"value\":4}}\n"));
    daemon.stop();
    check(store, 0, &["--deep"]);
}

#[test]
fn a_store_as_a_killed_daemon_leaves_it_is_clean() {
    let store = left_behind();
    assert_eq!(check(&store, 0, &[]), Vec::<Value>::new());
    let told = store.run(&["check", "--deep"]);
    assert!(told.code == 0 && told.stdout.starts_with("no damage: 0 errors"), "{told:?}");
    assert!(told.stdout.contains("2 namespaces, 4 records, 1 generation"), "{told:?}");
    let daemon = store.serve();
    store.run(&["check"]).refused(4, &[&format!("pid {}", daemon.pid())]);
    store.run(&["repair", "n", "--keep", "file"]).refused(4, &[&format!("pid {}", daemon.pid())]);
    daemon.stop();
    store.run(&["repair", "n", "--keep", "file", "--yes"]).refused(4, &["nothing to repair: namespace n opens"]);
    store.run(&["repair", "--cut-journal", "--yes"]).refused(4, &["the journal is not damaged"]);
}

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
        assert_eq!(would.stdout.contains("are nowhere any more"), words != "--keep file", "{would:?}");
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

/// Flips a byte of the record that holds `needle`.
fn flip_in_record(path: &Path, needle: &[u8]) {
    let mut bytes = fs::read(path).expect("there");
    let at = bytes.windows(needle.len()).position(|window| window == needle).expect("it is in there");
    bytes[at] ^= 1;
    fs::write(path, bytes).expect("written");
}

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
    for words in ["the store does not start", "; n loses 2 writes (", "; w/m loses 1 write ("] {
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
        assert!(what.contains("it has no file, and journal segments"), "{what}");
        remedied(&store, gap, words);
        check(&store, 0, &["--deep"]);
        let daemon = store.serve();
        let found = store.ok(&["scan", "n"]);
        assert!(found.ends_with(expected) && !found.contains("\"a\""), "{found}");
        assert_eq!(store.ok(&["scan", "other"]), "{\"key\":\"k\",\"value\":1}\n");
        daemon.stop();
    }
}

#[test]
fn a_journal_without_any_segment_is_told_by_check_and_status() {
    let store = left_behind();
    for path in segments(&store) {
        fs::remove_file(path).expect("removed");
    }
    let findings = check(&store, 5, &[]);
    let gone = finding(&findings, "journal_gone");
    assert!(gone["consequence"].as_str().is_some_and(|text| text.contains("only the journal held are lost")), "{gone}");
    let daemon = store.serve();
    let status = store.ok(&["status"]);
    assert!(status.contains("the journal of an earlier owner was gone"), "{status}");
    assert_eq!(store.ok(&["count", "n"]), "2\n");
    daemon.stop();
    check(&store, 0, &[]);
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
fn what_dead_owners_and_other_programs_left_are_notes() {
    let store = left_behind();
    fs::write(store.dir().join("kv_store_n.json.tmp.1.2.3"), "{").expect("written");
    fs::write(private(&store, "journal/00000099.log.new"), "begun").expect("written");
    fs::write(private(&store, "generations/@/n/00000000000000000099.foreign.json"), "{}").expect("written");
    fs::write(store.file("twice"), "{\"a\": {\"x\": 1, \"x\": 2}, \"a\": \"\\ud800\"}").expect("written");
    let last = segments(&store).pop().expect("a segment");
    let mut bytes = fs::read(&last).expect("there");
    bytes.extend_from_slice(b"half a record");
    fs::write(&last, bytes).expect("written");
    let findings = check(&store, 0, &["--deep"]);
    for kind in
        ["temporary", "unfinished_segment", "foreign_generation", "duplicate_keys", "lone_surrogates", "journal_tail"]
    {
        assert_eq!(finding(&findings, kind)["severity"], "note");
    }
    assert!(finding(&findings, "duplicate_keys")["what"].as_str().is_some_and(|what| what.starts_with("2 keys")));
    fs::write(names(&private(&store, "generations/@/n"))[0].as_path(), "{").expect("written");
    assert_eq!(finding(&check(&store, 0, &["--deep"]), "generation_damage")["severity"], "warning");
    let quiet = store.run(&["--quiet", "check", "--deep"]);
    assert!(quiet.stdout.contains("warning:") && !quiet.stdout.contains("note:"), "{quiet:?}");
}

#[test]
fn a_damaged_quarantine_file_is_set_aside() {
    for (words, expected) in [
        ("--keep file", "{\"key\":\"a\",\"value\":1}\n{\"key\":\"b\",\"value\":2}\n"),
        ("--apply journal", "{\"key\":\"a\",\"value\":1}\n{\"key\":\"b\",\"value\":2}\n"),
    ] {
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
