//! The README stays true: its shell session is typed into a shell and compared line by line, its Rust is run.

mod common;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use common::BINARY;
use common::session::{SESSION_TIMEOUT, Session, blocks, wait_for};

/// The README's Rust example: the same text, compiled.
#[path = "../examples/minute.rs"]
mod minute;

const README: &str = include_str!("../README.md");
const MINUTE: &str = include_str!("../examples/minute.rs");

#[test]
fn the_shell_session_of_the_readme_prints_what_the_readme_shows() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    Session::read(&blocks(README, "console").concat()).prints_what_it_shows(folder.path());
}

#[test]
fn the_rust_of_the_readme_is_the_example_and_runs() {
    let shown = blocks(README, "rust").concat();
    let (_, example) = MINUTE.split_once("// README begins\n").expect("the example marks where the README begins");
    // Only this test needs its main from outside.
    let example = example.replace("pub(crate) fn main", "fn main");
    assert_eq!(shown, example, "README.md and examples/minute.rs must be the same");

    let folder = tempfile::tempdir().expect("a temporary directory");
    let store = folder.path().join("rag_storage");
    fs::create_dir(&store).expect("an empty directory");
    let mut daemon = Daemon::serve(&store);
    // The example names its store by a relative path. No other test of this file depends on the current directory.
    std::env::set_current_dir(folder.path()).expect("it exists");
    let ended = minute::main();
    std::env::set_current_dir(env!("CARGO_MANIFEST_DIR")).expect("it exists");
    ended.expect("the example runs");
    let file = fs::read_to_string(store.join("kv_store_teas.json")).expect("the example flushed it");
    assert_eq!(file, "{\n\"sencha\":{\"name\":\"煎茶\",\"minutes\":2}\n}\n");
    daemon.stop(&store);
}

#[test]
fn the_commands_and_files_that_the_readme_names_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for line in blocks(README, "sh").concat().lines() {
        let command = line.split_whitespace().next().expect("a command");
        assert!(root.join(command).is_file(), "{command} is not there");
    }
    for target in README.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        assert!(target.contains("://") || root.join(target).exists(), "{target} is not there");
    }
}

/// A daemon that does not outlive its test.
struct Daemon(Child);

impl Daemon {
    fn serve(store: &Path) -> Self {
        let daemon = Command::new(BINARY).arg("serve").arg(store).stderr(Stdio::null()).spawn().expect("it was built");
        let mut daemon = Self(daemon);
        let deadline = Instant::now() + SESSION_TIMEOUT;
        while !commonhold(store, "status") {
            assert!(daemon.0.try_wait().expect("a child of ours").is_none(), "the daemon ended");
            assert!(Instant::now() < deadline, "the daemon did not answer within {SESSION_TIMEOUT:?}");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        daemon
    }

    fn stop(&mut self, store: &Path) {
        assert!(commonhold(store, "stop"), "commonhold stop failed");
        wait_for(&mut self.0, "the daemon");
        assert!(self.0.wait().expect("a child of ours").success(), "the daemon's exit code");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already: then there is nothing to kill.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a command; answers whether it succeeded.
fn commonhold(store: &Path, command: &str) -> bool {
    let mut run = Command::new(BINARY);
    run.arg("--store").arg(store).arg(command).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    run.status().expect("it was built").success()
}
