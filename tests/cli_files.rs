//! `import` and `export`: what goes in comes out, whatever JSON it is, with a daemon and without one; and a file is
//! whole or untouched.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Store, wait_for};

/// JSON that is easily mangled: number tokens, Python's own words, escapes, duplicates, emptiness, other scripts.
const WEIRD: &str = r#"{
"": {},
"numbers": [1.10, 1E5, -0, -0.0, 12345678901234567890123456789, 1e400, NaN, Infinity, -Infinity],
"text": "\u79df \ud83d\ude00 \"\\\/\b\f\n\r\t\u0001\u007f",
"\"},{\"": ["}", "]", ",", ":"],
"nested": {"a": {"b": [[], [{}], [[[0]]]]}},
"twice": {"x": 1, "y": 2, "x": 3},
"租户": null
}"#;

const WEIRD_CANONICAL: [(&str, &str); 7] = [
    ("", "{}"),
    ("numbers", "[1.10,1E5,-0,-0.0,12345678901234567890123456789,1e400,NaN,Infinity,-Infinity]"),
    ("text", "\"租 😀 \\\"\\\\/\\b\\f\\n\\r\\t\\u0001\u{7f}\""),
    ("\"},{\"", "[\"}\",\"]\",\",\",\":\"]"),
    ("nested", "{\"a\":{\"b\":[[],[{}],[[[0]]]]}}"),
    ("twice", "{\"x\":3,\"y\":2}"),
    ("租户", "null"),
];

fn path(store: &Store, name: &str) -> String {
    store.beside(name).to_str().expect("UTF-8").to_owned()
}

#[test]
fn weird_json_survives_import_export_and_import_again() {
    let store = Store::new();
    let daemon = store.serve();
    let source = path(&store, "weird.json");
    fs::write(&source, WEIRD).expect("written");
    let import = store.run(&["import", "n", &source]);
    assert!(import.code == 0 && import.stderr.contains("7 records committed (7 new, 0 replaced)"), "{import:?}");
    for (key, value) in WEIRD_CANONICAL {
        assert_eq!(store.ok(&["get", "n", key]), format!("{value}\n"), "{key:?}");
    }
    let keys = store.ok(&["keys", "n"]);
    assert_eq!(keys.lines().collect::<Vec<_>>(), WEIRD_CANONICAL.map(|(key, _)| key));
    for (format, name) in [("object", "a.json"), ("pretty", "b.json"), ("lines", "c.jsonl")] {
        let (file, copy) = (path(&store, name), format!("copy_{format}"));
        assert_eq!(store.run(&["export", "n", &file, "--format", format]).code, 0);
        assert_eq!(store.run(&["import", &copy, &file]).code, 0, "the format follows from the name");
        assert_eq!(store.ok(&["scan", &copy]), store.ok(&["scan", "n"]), "{format}");
    }
    assert_eq!(store.ok(&["export", "n", "-", "--format", "lines"]), store.ok(&["scan", "n"]));
    store.ok(&["flush"]);
    assert_eq!(store.ok(&["export", "n", "-"]), fs::read_to_string(store.file("n")).expect("flushed"));
    daemon.stop();
}

#[test]
fn python_reads_what_export_writes() {
    let store = Store::new();
    let _daemon = store.serve();
    let (source, object, pretty) = (path(&store, "weird.json"), path(&store, "o.json"), path(&store, "p.json"));
    fs::write(&source, WEIRD).expect("written");
    store.ok(&["import", "n", &source]);
    store.ok(&["export", "n", &object]);
    store.ok(&["export", "n", &pretty, "--format", "pretty"]);
    let script = "import json, sys\n\
                  texts = [json.dumps(json.load(open(f, encoding='utf-8'))) for f in sys.argv[1:]]\n\
                  sys.exit(0 if len(set(texts)) == 1 else 'they differ')";
    let python = Command::new("python3").args(["-c", script, &source, &object, &pretty]).output();
    let python = python.expect("the tests need python3");
    assert!(python.status.success(), "{python:?}");
}

#[test]
fn an_import_of_many_batches_keeps_order_and_counts() {
    let store = Store::new();
    let daemon = store.serve();
    let lines = (0..25_000).map(|n| format!("{{\"key\":\"k{n}\",\"value\":[{n}]}}\n")).collect::<Vec<_>>().concat();
    let import = store.run_with(&["--json", "import", "n", "-", "--format", "lines"], lines.as_bytes());
    assert_eq!(import.code, 0, "{import:?}");
    let told: serde_json::Value = serde_json::from_str(&import.stdout).expect("JSON");
    assert_eq!((&told["records"], &told["new"], &told["found"]), (&25_000.into(), &25_000.into(), &0.into()));
    assert_eq!(store.ok(&["scan", "n"]), lines);
    let again = store.run_with(&["--json", "import", "n", "-", "--format", "lines"], lines.as_bytes());
    let told: serde_json::Value = serde_json::from_str(&again.stdout).expect("JSON");
    assert_eq!((&told["new"], &told["found"]), (&0.into(), &25_000.into()));
    daemon.kill();
    let _daemon = store.serve();
    assert_eq!(store.ok(&["count", "n"]), "25000\n");
}

#[test]
fn an_import_that_fails_midway_says_where_and_how_many_records_are_committed() {
    let store = Store::new();
    let _daemon = store.serve();
    let mut lines = (0..5_000).map(|n| format!("{{\"key\":\"k{n}\",\"value\":{n}}}\n")).collect::<Vec<_>>().concat();
    lines.push_str("{\"key\":\"bad\",\"value\":tru}\n");
    let import = store.run_with(&["import", "n", "-", "--format", "lines"], lines.as_bytes());
    import.refused(2, &["standard input, line 5001, column 25", "5,000 records before that committed", "tru}\n"]);
    assert_eq!(store.ok(&["count", "n"]), "5000\n");
    let object = store.run_with(&["import", "m", "-"], b"{\"a\": 1,\n \"b\": 2,\n}");
    object.refused(2, &["line 3, column 1", "2 records before that committed"]);
    store.run_with(&["import", "m", "-"], b"[1]").refused(2, &["line 1, column 1", "nothing was stored"]);
    let long = format!("{{\"ok\":1,\n\"{}\":2}}", "k".repeat(70_000));
    store.run_with(&["import", "l", "-"], long.as_bytes()).refused(4, &["70000 bytes", "65536", "1 record before"]);
    store.run(&["import", "n", &path(&store, "missing.json")]).refused(2, &["missing.json", "cannot be read"]);
    store.run(&["import", "n", store.dir().to_str().expect("UTF-8")]).refused(2, &["is a directory"]);
}

#[test]
fn lines_that_are_imported_as_an_object_are_refused_before_anything_is_stored() {
    let store = Store::new();
    let _daemon = store.serve();
    let lines = "{\"key\":\"a\",\"value\":1}\n{\"key\":\"b\",\"value\":2}\n";
    let (one, other) = (&lines[..lines.len() / 2], "{\"id\":1}\n{\"id\":2}\n");
    let file = path(&store, "scanned.json");
    fs::write(&file, lines).expect("written");
    store
        .run(&["import", "n", &file])
        .refused(2, &["scanned.json, line 1, column 1", "--format lines", "nothing was stored"]);
    store.run_with(&["import", "n", "-"], one.as_bytes()).refused(2, &["--format lines or --format object"]);
    store.run_with(&["import", "n", "-"], other.as_bytes()).refused(2, &["line 2, column 1", "--format lines"]);
    let said = store.run_with(&["import", "n", "-", "--format", "object"], lines.as_bytes());
    said.refused(2, &["line 1, column 1", "--format lines"]);
    assert_eq!(store.ok(&["count", "n"]), "0\n");
    store.ok(&["import", "n", &file, "--format", "lines"]);
    assert_eq!(store.ok(&["scan", "n"]), lines);
    assert_eq!(store.run_with(&["import", "m", "-", "--format", "object"], one.as_bytes()).code, 0);
    assert_eq!(store.ok(&["keys", "m"]), "key\nvalue\n");
}

#[test]
fn an_import_that_the_daemon_refuses_names_the_first_record_that_is_not_stored() {
    let store = Store::new();
    let _daemon = store.serve_with(&["--max-memory", "4M"]);
    let record = |n: usize| format!("{{\"key\":\"k{n}\",\"value\":\"{}\"}}\n", "x".repeat(1_000));
    let file = path(&store, "in.jsonl");
    fs::write(&file, (1..=20_000).map(record).collect::<String>()).expect("written");
    let import = store.run(&["import", "n", &file]);
    import.refused(
        4,
        &["memory", "the first record that is not stored: ", "in.jsonl, line ", "importing the whole file"],
    );
    let number = |text: &str, before: &str| -> usize {
        let rest = text.split(before).nth(1).unwrap_or_else(|| panic!("no {before:?} in {text}"));
        rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().expect("a number")
    };
    let line = number(&import.stderr, "in.jsonl, line ");
    assert!(import.stderr.contains(", column 1)"), "{import:?}");
    store.run(&["get", "n", &format!("k{line}")]).refused(1, &["not found"]);
    assert_eq!(store.ok(&["get", "n", &format!("k{}", line - 1)]).len(), 1_003);
    let told = import.stderr.lines().last().unwrap_or_default().replace(',', "");
    let stored: usize = told.split_whitespace().filter_map(|word| word.parse::<usize>().ok()).sum();
    assert_eq!(stored, line - 1, "committed and stored are all before that line: {import:?}");

    store.ok(&["put", "live", "k", "1", "--volatile"]);
    let volatile = store.run_with(&["import", "live", "-"], b"\n{\"a\": 1,\n\"b\": 2}");
    volatile.refused(4, &["live is volatile", "not stored: standard input, line 2, column 2", "0 records before that"]);
    let json = store.run_with(&["--json", "import", "live", "-"], b"{\"a\": 1}");
    let error: serde_json::Value = serde_json::from_str(&json.stderr).expect("one line of JSON");
    assert!(error["error"]["message"].as_str().is_some_and(|words| words.contains("line 1, column 2")), "{json:?}");
}

#[test]
fn lone_surrogates_are_removed_and_counted() {
    let store = Store::new();
    let _daemon = store.serve();
    let import = store.run_with(&["--json", "import", "n", "-"], b"{\"a\": \"\\ud800x\", \"\\udfffb\": 1}");
    let told: serde_json::Value = serde_json::from_str(&import.stdout).expect("JSON");
    assert_eq!(told["surrogates_removed"], 2);
    assert_eq!(store.ok(&["scan", "n"]), "{\"key\":\"a\",\"value\":\"x\"}\n{\"key\":\"b\",\"value\":1}\n");
    let put = store.run(&["--json", "put", "n", "c", "\"\\ud800\""]);
    assert!(put.stdout.contains("\"surrogates_removed\":1"), "{put:?}");
}

#[test]
fn export_replaces_a_file_whole_or_not_at_all() {
    let store = Store::new();
    let _daemon = store.serve();
    store.ok(&["put", "n", "k", "1"]);
    let target = path(&store, "out.json");
    fs::write(&target, "old").expect("written");
    store.ok(&["export", "n", &target]);
    assert_eq!(fs::read_to_string(&target).expect("there"), "{\n\"k\":1\n}\n");
    store.run(&["export", "n", &path(&store, "no/such/dir.json")]).refused(2, &["dir.json", "cannot be written"]);
    store.run(&["export", "n", store.file("n").to_str().expect("UTF-8")]).refused(2, &["belongs to the store"]);
    assert!(!store.file("n").exists());
    let names: Vec<_> = fs::read_dir(store.beside("")).expect("lists").map(|e| e.expect("entry").file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().contains(".tmp.")), "{names:?}");
}

/// Runs `export n FILE` by a shell, which redirects it.
#[cfg(unix)]
fn shell(store: &Store, script: &str) -> common::Ran {
    let mut shell = std::process::Command::new("sh");
    shell.args(["-euc", script]).env("B", common::BINARY).env("COMMONHOLD_STORE", store.dir());
    shell.current_dir(store.beside(""));
    common::ran(shell, b"")
}

#[test]
#[cfg(target_os = "linux")]
fn export_writes_into_what_is_no_file_of_its_own_and_replaces_nothing_there() {
    use std::os::unix::fs::FileTypeExt as _;
    let store = Store::new();
    let _daemon = store.serve();
    store.ok(&["put", "n", "k", "1"]);
    let exported = "{\n\"k\":1\n}\n";
    // A log that standard output is appended to; it must not become another file with the export alone.
    for name in ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
        let ran =
            shell(&store, &format!("echo before > log; \"$B\" export n {name} >> log; echo after >> log; cat log"));
        assert_eq!((ran.code, ran.stdout), (0, format!("before\n{exported}after\n")), "{name}: {}", ran.stderr);
    }
    let ran = shell(&store, "echo before > log; \"$B\" export n /dev/fd/3 3>> log; echo after >> log; cat log");
    assert_eq!((ran.code, ran.stdout), (0, format!("before\n{exported}after\n")), "{}", ran.stderr);
    let ran = shell(&store, "mkfifo pipe; cat pipe & \"$B\" export n pipe; wait $!; \"$B\" export n /dev/null");
    assert_eq!((ran.code, ran.stdout.as_str()), (0, exported), "{}", ran.stderr);
    assert!(fs::symlink_metadata(store.beside("pipe")).expect("there").file_type().is_fifo());
    assert!(fs::symlink_metadata("/dev/null").expect("there").file_type().is_char_device());
    let full = shell(&store, "\"$B\" export n /dev/full");
    assert!(full.code != 0 && full.stderr.contains("/dev/full cannot be written"), "{full:?}");
}

#[test]
fn export_works_without_a_daemon_and_leaves_the_namespace_files_alone() {
    let store = Store::new();
    fs::write(store.file("idle"), "{\"x\":  1.10}").expect("written");
    let daemon = store.serve();
    store.ok(&["put", "n", "k", "1"]);
    store.ok(&["flush"]);
    store.ok(&["put", "n", "unflushed", "2"]);
    daemon.kill();
    let before = fs::read(store.file("n")).expect("there");
    assert_eq!(store.ok(&["export", "n", "-"]), "{\n\"k\":1,\n\"unflushed\":2\n}\n");
    assert_eq!(store.ok(&["export", "idle", "-", "--format", "lines"]), "{\"key\":\"x\",\"value\":1.10}\n");
    assert_eq!(fs::read(store.file("n")).expect("there"), before);
    assert_eq!(fs::read_to_string(store.file("idle")).expect("there"), "{\"x\":  1.10}");
    let _daemon = store.serve();
    assert_eq!(store.ok(&["get", "n", "unflushed"]), "2\n", "what waited in the journal still does");
}

/// All files below a directory, with their bytes; a lock's file and sockets left out.
fn files_below(directory: &Path) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("lists") {
        let entry = entry.expect("an entry");
        let (path, kind) = (entry.path(), entry.file_type().expect("a kind"));
        if kind.is_dir() {
            found.extend(files_below(&path));
        }
        let is_read = kind.is_file() && entry.file_name() != "owner.lock";
        let bytes = is_read.then(|| fs::read(&path).expect("read"));
        found.push((path, bytes));
    }
    found.sort_unstable();
    found
}

#[test]
fn export_of_a_killed_daemons_store_leaves_every_file_as_it_is() {
    let store = Store::new();
    let daemon = store.serve();
    store.ok(&["put", "n", "k", "1"]);
    store.ok(&["flush"]);
    store.ok(&["put", "n", "unflushed", "2"]);
    store.ok(&["--workspace", "w", "put", "m", "k", "3"]);
    daemon.kill();
    fs::write(store.dir().join("kv_store_n.json.tmp.1.2.3"), "{").expect("written");
    fs::write(store.dir().join(".commonhold/journal/00000099.log.new"), "begun").expect("written");
    let before = files_below(store.dir());
    assert!(before.iter().any(|(path, bytes)| path.extension().is_some_and(|e| e == "log") && bytes.is_some()));
    assert_eq!(store.ok(&["export", "n", "-"]), "{\n\"k\":1,\n\"unflushed\":2\n}\n");
    assert_eq!(store.ok(&["--workspace", "w", "export", "m", "-"]), "{\n\"k\":3\n}\n");
    assert_eq!(store.ok(&["export", "nothing", "-"]), "{}\n");
    assert_eq!(files_below(store.dir()), before);
}

#[test]
fn export_sees_an_import_that_is_still_running_and_loses_nothing() {
    let store = Store::new();
    let _daemon = store.serve();
    let lines = (0..30_000).map(|n| format!("{{\"key\":\"k{n}\",\"value\":{n}}}\n")).collect::<Vec<_>>().concat();
    let source = path(&store, "in.jsonl");
    fs::write(&source, &lines).expect("written");
    let mut import = common::command(store.dir()).args(["--quiet", "import", "n", &source]).spawn().expect("runs");
    let mut seen = 0;
    let status = wait_for("the import ends", || {
        let exported = store.ok(&["export", "n", "-", "--format", "lines"]);
        assert!(lines.starts_with(&exported), "an export is a beginning of what is imported");
        assert!(exported.len() >= seen);
        seen = exported.len();
        import.try_wait().expect("asked")
    });
    assert!(status.success());
    assert_eq!(store.ok(&["export", "n", "-", "--format", "lines"]), lines);
}

#[test]
fn a_directory_that_no_daemon_has_served_is_exported_without_a_trace() {
    let store = Store::new();
    fs::write(store.file("n"), "{\"b\": 1, \"a\": 2, \"b\": [3, {\"c\": NaN}]}").expect("written");
    fs::write(store.file("torn"), "{\"b\": 1, \"a\"").expect("written");
    std::os::unix::fs::symlink(store.file("n"), store.file("linked")).expect("linked");
    assert_eq!(store.ok(&["export", "n", "-"]), "{\n\"b\":[3,{\"c\":NaN}],\n\"a\":2\n}\n");
    assert_eq!(store.ok(&["export", "missing", "-"]), "{}\n");
    store.run(&["export", "torn", "-"]).refused(5, &["kv_store_torn.json", "line 1, column 13"]);
    store.run(&["export", "linked", "-"]).refused(5, &["symbolic link"]);
    assert!(!store.dir().join(".commonhold").exists());
}

#[test]
fn an_offline_export_does_not_take_a_store_that_a_daemon_owns() {
    let store = Store::new();
    let daemon = store.serve();
    store.ok(&["put", "n", "k", "1"]);
    // A daemon that cannot be reached still owns its store.
    fs::remove_file(store.dir().join(".commonhold/socket")).expect("removed");
    store.run(&["export", "n", "-"]).refused(4, &[&format!("pid {}", daemon.pid())]);
}
