//! Damage that is done to a real store on a real disk, under a real daemon: stores mixed, files replaced by things that are no
//! files, `.commonhold` deleted, and copies made under load. The engine's own tests go through every byte
//! (`src/engine/tests/damage`).
#![cfg(feature = "daemon")]

#[path = "../common/mod.rs"]
mod common;
mod copied;
mod deleted;
mod mixed;
mod strange;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Daemon, Store};
use serde_json::Value;

/// A store with a flushed namespace `n`, a write beyond its file, and `other`, of which no file tells. Its daemon was killed.
fn killed(value: &str) -> Store {
    let (store, daemon) = lived(value);
    daemon.kill();
    store
}

/// The same, ended in order.
fn ended(value: &str) -> Store {
    let (store, daemon) = lived(value);
    daemon.stop();
    store
}

fn lived(value: &str) -> (Store, Daemon) {
    let store = Store::new();
    let daemon = store.serve();
    store.ok(&["put", "n", "a", value]);
    store.ok(&["flush", "n"]);
    store.ok(&["put", "n", "b", value]);
    store.ok(&["put", "other", "k", value]);
    store.ok(&["commit"]);
    (store, daemon)
}

/// What the records of `n` are then.
fn both(value: &str) -> String {
    format!("{{\"key\":\"a\",\"value\":{value}}}\n{{\"key\":\"b\",\"value\":{value}}}\n")
}

fn other(value: &str) -> String {
    format!("{{\"key\":\"k\",\"value\":{value}}}\n")
}

fn private(store: &Store, path: &str) -> PathBuf {
    store.dir().join(".commonhold").join(path)
}

/// The journal's segments, oldest first.
fn segments(store: &Store) -> Vec<PathBuf> {
    let listed = fs::read_dir(private(store, "journal")).expect("a journal");
    let mut found: Vec<PathBuf> = listed.map(|entry| entry.expect("an entry").path()).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    found.sort();
    found
}

/// What `check --deep` finds, with its exit code.
fn checked(store: &Store) -> (i32, Vec<Value>) {
    let ran = store.run(&["--json", "check", "--deep"]);
    let report: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
    (ran.code, report["findings"].as_array().expect("a list").clone())
}

fn kinds(findings: &[Value]) -> Vec<&str> {
    findings.iter().map(|finding| finding["kind"].as_str().expect("a word")).collect()
}

/// The warnings of the daemon that runs.
fn warnings(store: &Store) -> String {
    let status: Value = serde_json::from_str(&store.ok(&["--json", "status"])).expect("JSON");
    status["warnings"].to_string()
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir(to).expect("made");
    for entry in fs::read_dir(from).expect("listed") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a kind").is_dir() {
            copy_tree(&entry.path(), &target);
        } else if entry.file_type().expect("a kind").is_file() {
            fs::copy(entry.path(), target).expect("copied");
        }
    }
}
