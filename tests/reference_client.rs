//! The client that was written from `PROTOCOL.md` alone: it reads and writes the golden frames, and talks to the daemon.

mod common;

use std::path::Path;
use std::process::Command;

use common::Store;

#[test]
fn the_reference_client_reads_and_writes_the_golden_frames_and_talks_to_the_daemon() {
    let store = Store::new();
    let daemon = store.serve();
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto/reference_client_test.py");
    let mut python = Command::new("python3");
    python.args(["-W", "error"]).arg(tests).env("COMMONHOLD_TEST_STORE", store.dir());
    let output = python.output().expect("the tests need python3");
    let said = String::from_utf8_lossy(&output.stderr);
    // Not "OK (skipped=…)".
    assert!(output.status.success() && said.ends_with("\nOK\n"), "{said}");
    daemon.stop();
}
