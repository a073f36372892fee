//! `check` and `repair` on stores that are damaged in every way that the design names: what is told (file, place,
//! consequence, remedy), that nothing is changed until `--yes`, and that the daemon starts and serves afterwards.

#[path = "../common/mod.rs"]
mod common;
mod files;
mod journal;
mod quarantine;
mod support;

use std::fs;

use serde_json::Value;
use support::{check, finding, left_behind, names, private, segments};

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
fn what_dead_owners_and_other_programs_left_are_notes() {
    let store = left_behind();
    fs::write(store.dir().join("kv_store_n.json.tmp.1.2.3"), "{").expect("written");
    fs::write(private(&store, "journal/00000099.log.new"), "begun").expect("written");
    fs::write(private(&store, "generations/@/n/00000000000000000001.foreign.json"), "{}").expect("written");
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
fn control_characters_in_names_never_reach_a_terminal() {
    let store = left_behind();
    let workspace = "e\u{1b}[2J";
    fs::create_dir(store.dir().join(workspace)).expect("made");
    fs::write(store.dir().join(workspace).join("kv_store_n.json"), "torn").expect("written");
    let told = store.run(&["check", "--deep"]);
    assert_eq!(told.code, 5, "{told:?}");
    assert!(!told.stdout.contains('\u{1b}') && told.stdout.contains("e\\u{1b}[2J"), "{told:?}");
    assert!(told.stdout.contains("--workspace $'e\\x1b[2J' repair n"), "{told:?}");
    let refused = store.run(&["--workspace", workspace, "repair", "n", "--apply", "journal"]);
    assert!(!refused.stderr.contains('\u{1b}') && refused.stderr.contains("\\u{1b}[2J/n"), "{refused:?}");
    let unknown = store.run(&["repair", "n", "--keep", "\u{7}bell"]);
    assert!(!unknown.stderr.contains('\u{7}') && unknown.stderr.contains("bell"), "{unknown:?}");
}
