//! What the tests of `check` and `repair` share: a store as a killed daemon leaves it, and runs that see that nothing is
//! changed before `--yes`.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::common::{Ran, Store};

/// Two flushed files of `n`, the older one kept, and a write beyond both; `other` waits too. No daemon runs.
pub(crate) fn left_behind() -> Store {
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

pub(crate) const ALL: &str = "{\"key\":\"a\",\"value\":1}\n{\"key\":\"b\",\"value\":2}\n{\"key\":\"c\",\"value\":3}\n";

pub(crate) fn private(store: &Store, path: &str) -> PathBuf {
    store.dir().join(".commonhold").join(path)
}

pub(crate) fn segments(store: &Store) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = names(&private(store, "journal"))
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    found.sort();
    found
}

/// What lies in a directory; nothing if it is not there.
pub(crate) fn names(directory: &Path) -> Vec<PathBuf> {
    let Ok(listed) = fs::read_dir(directory) else { return Vec::new() };
    let mut found: Vec<_> = listed.map(|entry| entry.expect("an entry").path()).collect();
    found.sort();
    found
}

/// All files below a directory with their bytes; the lock's file and sockets left out.
pub(crate) fn files_below(directory: &Path) -> Vec<(PathBuf, Option<Vec<u8>>)> {
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
pub(crate) fn check(store: &Store, code: i32, options: &[&str]) -> Vec<Value> {
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
pub(crate) fn finding<'a>(findings: &'a [Value], kind: &str) -> &'a Value {
    let mut found = findings.iter().filter(|finding| finding["kind"] == kind);
    let first = found.next().unwrap_or_else(|| panic!("no {kind} in {findings:#?}"));
    assert!(found.next().is_none(), "more than one {kind} in {findings:#?}");
    first
}

/// The commands that a finding offers, in order.
pub(crate) fn commands(finding: &Value) -> Vec<&str> {
    let remedies = finding["remedies"].as_array().expect("a list");
    remedies.iter().filter_map(|remedy| remedy["command"].as_str()).collect()
}

/// What a repair says beforehand that is lost by it.
#[track_caller]
pub(crate) fn plan(store: &Store, arguments: &[&str]) -> String {
    let told = store.ok(&[&["--json", "repair"], arguments].concat());
    let told: Value = serde_json::from_str(&told).expect("JSON");
    let losses = told["losses"].as_array().expect("a list");
    losses.iter().map(|loss| loss.as_str().expect("a text")).collect::<Vec<_>>().join("\n")
}

/// Runs the command that a finding offers and that has these words in it: first without, then with `--yes`.
#[track_caller]
pub(crate) fn remedied(store: &Store, finding: &Value, words: &str) -> (Ran, Ran) {
    let remedies = finding["remedies"].as_array().expect("a list");
    let command = remedies.iter().filter_map(|remedy| remedy["command"].as_str()).find(|line| line.contains(words));
    let command = command.unwrap_or_else(|| panic!("no {words:?} in {finding:#}"));
    let mut arguments: Vec<&str> = command.split(' ').collect();
    let named: Vec<&str> = arguments.drain(..3).collect();
    assert_eq!(named, ["commonhold", "--store", store.dir().to_str().expect("UTF-8")]);
    repaired(store, &arguments)
}

#[track_caller]
pub(crate) fn repaired(store: &Store, arguments: &[&str]) -> (Ran, Ran) {
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
pub(crate) fn serves(store: &Store, expected: &str) {
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

/// Flips a byte of the record that holds `needle`.
pub(crate) fn flip_in_record(path: &Path, needle: &[u8]) {
    let mut bytes = fs::read(path).expect("there");
    let at = bytes.windows(needle.len()).position(|window| window == needle).expect("it is in there");
    bytes[at] ^= 1;
    fs::write(path, bytes).expect("written");
}
