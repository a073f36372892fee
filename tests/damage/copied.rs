//! A store copied file by file while its daemon takes writes, flushes and lets segments go: the copy is no moment of the
//! store. What was synced before it began is in it, or its start, its closed namespaces or `check` name what is not.

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use commonhold::blocking::{Client, ConnectOptions};
use serde_json::Value;

use super::common::{Store, command, ran};

const COPIES: u64 = 6;
const NAMES: [&str; 3] = ["a", "b", "c"];

/// Ends the writers, also when something fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[test]
fn a_copy_of_a_running_store_has_what_was_synced_before_or_says_what_it_has_not() {
    let store = Store::new();
    let daemon = store.serve_with(&["--journal-limit", "1M"]);
    let options = || ConnectOptions::new().timeout(Some(Duration::from_mins(1)));
    let (over, written) = (AtomicBool::new(false), NAMES.map(|_| AtomicU64::new(0)));
    let (mut opened, mut closed, mut refused) = (0, 0, 0);
    thread::scope(|scope| {
        for (name, written) in NAMES.iter().zip(&written) {
            let (over, dir) = (&over, store.dir());
            scope.spawn(move || {
                let client = Client::connect_with(dir, options()).expect("connected");
                let namespace = client.namespace(name).expect("opened");
                let filling = "x".repeat(900);
                for number in 0_u64.. {
                    if over.load(Ordering::Acquire) {
                        break;
                    }
                    namespace.put(&format!("k{}", number % 500), &(number, &filling)).expect("put");
                    written.store(number, Ordering::Release);
                    if number % 97 == 0 {
                        namespace.flush().expect("flushed");
                    }
                }
            });
        }
        let _ends = Ends(&over);
        let client = Client::connect_with(store.dir(), options()).expect("connected");
        for copy in 0..COPIES {
            let far = Instant::now() + Duration::from_secs(30);
            let enough = (copy + 1) * 400;
            while written.iter().any(|written| written.load(Ordering::Acquire) < enough) && Instant::now() < far {
                thread::sleep(Duration::from_millis(2));
            }
            let before: Vec<u64> = written.iter().map(|written| written.load(Ordering::Acquire)).collect();
            client.commit().expect("committed");
            let target = store.beside(&format!("copy{copy}"));
            let copied = Command::new("cp").arg("-a").arg(store.dir()).arg(&target).output().expect("cp runs");
            // What went while it was copied is named by cp, and the rest is a copy all the same.
            let gone = String::from_utf8_lossy(&copied.stderr).into_owned();
            assert!(copied.status.success() || gone.contains("No such file"), "{gone}");
            let mut check = command(&target);
            check.args(["--json", "check", "--deep"]);
            let check = ran(check, b"");
            assert!([0, 5].contains(&check.code), "{check:?}");
            if check.stdout.contains("\"journal_damage\"") {
                refused += 1;
                continue;
            }
            for (name, before) in NAMES.iter().zip(before) {
                let mut export = command(&target);
                export.args(["export", name, "-"]);
                let export = ran(export, b"");
                if export.code != 0 {
                    let findings: Value = serde_json::from_str(&check.stdout).expect("JSON");
                    let findings = findings["findings"].as_array().expect("a list");
                    let is_named = findings.iter().any(|finding| finding["namespace"] == *name);
                    assert!(export.code == 5 && check.code == 5 && is_named, "{export:?} {check:?}");
                    closed += 1;
                    continue;
                }
                opened += 1;
                let records: serde_json::Map<String, Value> = serde_json::from_str(&export.stdout).expect("one object");
                for number in before.saturating_sub(499)..=before {
                    let found = records.get(&format!("k{}", number % 500)).and_then(|value| value[0].as_u64());
                    assert!(
                        found >= Some(number),
                        "copy {copy}, {name}: write {number} was synced before it began, and {found:?} is there: {}",
                        check.stdout
                    );
                }
            }
        }
    });
    println!(
        "{COPIES} copies: {opened} namespaces had everything, {closed} were closed, {refused} copies were refused"
    );
    daemon.stop();
}
