//! What every command prints with `--json`, word for word, against a daemon with fixed data. What varies from run to run
//! (times, pids, paths, Seqs) is replaced by its name. A file a command is kept beside this one; `BLESS=1` writes those
//! that are missing and changes none.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::common::{Ran, Store};

/// One command line and what it reads; or `!write`, a file of the store, and what is written to it.
type Line = (&'static [&'static str], &'static [u8]);

/// The commands in the order in which they are typed; each builds on those before it.
const SESSION: [(&str, &[Line]); 31] = [
    (
        "import",
        &[(&["import", "teas", "-"], b"{\"oolong\": {\"minutes\": 3}, \"sencha\": {\"minutes\": 2}, \"\": null}")],
    ),
    (
        "put",
        &[
            (&["put", "teas", "matcha", "[1, {\"x\": \"\\ud800\"}]"], b""),
            (&["put", "teas", "matcha", "-"], b"true"),
            (&["put", "teas", "matcha", "1", "--if-absent"], b""),
            (&["put", "teas", "matcha", "tru"], b""),
            (&["put", "a b", "matcha", "1"], b""),
            (&["put", "other", "k", "1", "--workspace", "t"], b""),
            (&["put", "live", "k", "1", "--volatile"], b""),
            (&["get", "live", "k"], b""),
        ],
    ),
    (
        "merge",
        &[
            (&["merge", "teas", "sencha", "{\"from\": \"Uji\"}"], b""),
            (&["merge", "teas", "matcha", "{}"], b""),
            (&["merge", "teas", "sencha", "7"], b""),
        ],
    ),
    (
        "increment",
        &[
            (&["increment", "teas", "sencha", "minutes", "-1"], b""),
            (&["increment", "teas", "counts", "cups", "9223372036854775807"], b""),
            (&["increment", "teas", "counts", "cups", "1"], b""),
        ],
    ),
    (
        "append",
        &[
            (&["append", "teas", "log", "cups", "\"first\"", "2"], b""),
            (&["append", "teas", "sencha", "from", "1"], b""),
        ],
    ),
    ("get", &[(&["get", "teas", "sencha", "oolong", "", "log"], b""), (&["get", "teas", "nothing"], b"")]),
    ("del", &[(&["del", "teas", "counts", "log"], b""), (&["del", "teas", "counts"], b"")]),
    ("keys", &[(&["keys", "teas"], b""), (&["keys", "teas", "--prefix", "s"], b""), (&["keys", "none"], b"")]),
    ("scan", &[(&["scan", "teas", "--limit", "2"], b"")]),
    ("count", &[(&["count", "teas"], b""), (&["count", "none"], b"")]),
    ("commit", &[(&["commit"], b"")]),
    (
        "flush",
        &[
            (&["flush", "teas"], b""),
            (&["flush"], b""),
            (&["flush", "--rewrite"], b""),
            (&["flush", "live"], b""),
            (&["flush", "--no-wait"], b""),
        ],
    ),
    ("export", &[(&["export", "teas", "../teas.json"], b""), (&["export", "teas", "-"], b"")]),
    ("clear", &[(&["clear", "none"], b"")]),
    ("namespaces", &[(&["namespaces"], b"")]),
    ("workspaces", &[(&["workspaces"], b"")]),
    ("status", &[(&["status"], b"")]),
    (
        "lock",
        &[
            (&["lock", "a", "--", "sh", "-c", "exit 3"], b""),
            (&["lock", "a", "--", "/no/such/program"], b""),
            (&["lock", "a", "--", "<binary>", "--json", "lock", "a", "--timeout", "0s", "--", "true"], b""),
        ],
    ),
    ("locks", &[(&["lock", "a", "b", "--shared", "--", "<binary>", "--json", "locks"], b""), (&["locks"], b"")]),
    ("slots", &[(&["slots"], b"")]),
    ("flags", &[(&["flags"], b"")]),
    ("sessions", &[(&["sessions"], b""), (&["sessions", "end", "123456789"], b"")]),
    ("watch", &[(&["watch", "teas", "--limit", "0"], b"")]),
    ("drop", &[(&["drop", "teas"], b""), (&["drop", "teas"], b"")]),
    (
        "bench",
        &[
            (&["bench", "--requests", "20", "--connections", "2", "--keys", "5", "--reads", "100"], b""),
            (&["bench", "--namespace", "other", "--workspace", "t"], b""),
        ],
    ),
    ("stop", &[(&["stop"], b"")]),
    (
        "check",
        &[
            (&["check"], b""),
            (&["check", "--deep"], b""),
            // A file that a crash of another program has torn.
            (&["!write", "kv_store_torn.json"], b"{\n\"a\": 1,\n\"b\": tr"),
            (&["check", "--deep"], b""),
        ],
    ),
    (
        "repair",
        &[
            (&["repair", "torn", "--set-aside"], b""),
            (&["repair", "torn", "--set-aside", "--yes"], b""),
            (&["repair", "torn", "--generation", "7"], b""),
        ],
    ),
    (
        "after",
        &[
            (&["get", "teas", "k"], b""),
            (&["stop"], b""),
            (&["gett", "teas"], b""),
            (&["get"], b""),
            (&["get", "n", "k", "--x"], b""),
        ],
    ),
    // From here on a daemon in the background is there again.
    ("serve", &[(&["serve", "--detach"], b"")]),
    ("ended", &[(&["stop"], b"")]),
];

/// Members whose values differ from run to run.
const VARYING: [&str; 35] = [
    "applied",
    "boot",
    "client",
    "command",
    "commit",
    "dir",
    "last_flush_unix_ms",
    "overhead_bytes",
    "pid",
    "queued_bytes",
    "requests",
    "segments",
    "seq",
    "session",
    "sessions",
    "id",
    "since_unix_ms",
    "synced",
    "syncs",
    "token",
    "took_ms",
    "uid",
    "unix_ms",
    "unwritten_bytes",
    "used_bytes",
    "uptime_s",
    "version",
    "waiting_ms",
    "in_flight",
    "max_us",
    "p50_us",
    "p99_us",
    "p99_9_us",
    "per_second",
    "took_s",
];

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden_json").join(name).with_extension("txt")
}

/// Types the whole session and gives what each command's lines printed.
fn play() -> Vec<(&'static str, String)> {
    let store = Store::new();
    let _daemon = store.serve();
    let mut printed = Vec::new();
    for (name, lines) in SESSION {
        let mut text = String::new();
        for (arguments, input) in lines {
            if let ["!write", file] = arguments {
                fs::write(store.dir().join(file), input).expect("a writable directory");
                continue;
            }
            let mut arguments = arguments.to_vec();
            let outside = store.beside("teas.json");
            if let Some(file) = arguments.iter_mut().find(|argument| argument.starts_with("../")) {
                *file = outside.to_str().expect("UTF-8");
            }
            arguments.insert(0, "--json");
            let shown = arguments.iter().map(|argument| format!("{argument:?}")).collect::<Vec<_>>().join(" ");
            writeln!(text, "$ commonhold {shown}").expect("a string takes everything");
            // What `lock` runs is this program, on the same store.
            if let Some(at) = arguments.iter().position(|argument| *argument == "<binary>") {
                let dir = store.dir().to_str().expect("UTF-8");
                arguments.splice(at..=at, [super::BINARY, "--store", dir]);
            }
            shown_of(&mut text, &store.run_with(&arguments, input), name);
        }
        let root = store.beside("").display().to_string();
        printed.push((name, normalised(&text, root.trim_end_matches('/'))));
    }
    printed
}

fn shown_of(text: &mut String, ran: &Ran, name: &str) {
    let mut lines: Vec<&str> = ran.stdout.lines().collect();
    if name == "sessions" && lines.len() > 1 {
        // Sessions of the commands before may still be ending; the last is the command's own.
        lines.drain(..lines.len() - 1);
    }
    for line in lines {
        writeln!(text, "{line}").expect("a string takes everything");
    }
    for line in ran.stderr.lines() {
        writeln!(text, "stderr: {line}").expect("a string takes everything");
    }
    writeln!(text, "exit code {}", ran.code).expect("a string takes everything");
}

/// The text with everything that varies replaced by its name.
fn normalised(text: &str, root: &str) -> String {
    let mut text = text.replace(root, "<root>");
    for name in VARYING {
        let member = format!("\"{name}\":");
        text = replaced_after(&text, &member, &format!("\"<{name}>\""), value_length);
    }
    let digits = |rest: &str| rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    text = replaced_after(&text, "seq ", "<seq>", digits);
    text = replaced_after(&text, "kept are ", "<seq>", digits);
    text = replaced_after(&text, "with token ", "<token>", digits);
    text = replaced_after(&text, "/generations/@/teas/", "<seq>", digits);
    // How much the journal holds is for its own tests to say.
    text = replaced_after(&text, "\"segments\":\"<segments>\",\"bytes\":", "\"<bytes>\"", value_length);
    // Of two that were written in the same millisecond either may be told.
    replaced_after(&text, "\"oldest_waiting\":{\"namespace\":", "\"<namespace>\"", value_length)
}

/// The length of the number or text at the beginning; 0 for anything else.
fn value_length(rest: &str) -> usize {
    match rest.as_bytes().first() {
        Some(b'"') => rest[1..].find('"').map_or(0, |end| end + 2),
        Some(b'0'..=b'9') => rest.len() - rest.trim_start_matches(|c: char| "0123456789.eE+-".contains(c)).len(),
        _ => 0,
    }
}

fn replaced_after(text: &str, mark: &str, with: &str, length: impl Fn(&str) -> usize) -> String {
    let mut parts = text.split(mark);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for rest in parts {
        let length = length(rest);
        out.push_str(mark);
        out.push_str(if length > 0 { with } else { "" });
        out.push_str(&rest[length..]);
    }
    out
}

/// Whether `told` has everything that `kept` has. A status gains members over time and loses none.
fn holds(told: &Value, kept: &Value) -> bool {
    match (told, kept) {
        (Value::Object(told), Value::Object(kept)) => {
            kept.iter().all(|(name, kept)| told.get(name).is_some_and(|told| holds(told, kept)))
        }
        (Value::Array(told), Value::Array(kept)) => {
            told.len() == kept.len() && told.iter().zip(kept).all(|(told, kept)| holds(told, kept))
        }
        (told, kept) => told == kept,
    }
}

fn agrees(name: &str, told: &str, kept: &str) -> bool {
    let object = |text: &str| -> Option<Value> { serde_json::from_str(text.lines().nth(1)?).ok() };
    match (name, object(told), object(kept)) {
        ("status", Some(told), Some(kept)) => holds(&told, &kept),
        _ => told == kept,
    }
}

#[test]
fn every_command_answers_in_json_as_it_always_did() {
    let bless = std::env::var_os("BLESS").is_some();
    let mut wrong = Vec::new();
    for (name, told) in play() {
        let file = golden(name);
        match fs::read_to_string(&file) {
            Ok(kept) if agrees(name, &told, &kept) => {}
            Ok(kept) => wrong.push(format!("--- {name} says\n{told}--- and {} has\n{kept}", file.display())),
            Err(_) if bless => fs::write(&file, told).expect("a writable checkout"),
            Err(error) => wrong.push(format!("{}: {error}; BLESS=1 writes it, with\n{told}", file.display())),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_command_with_a_json_answer_has_a_golden_one() {
    // `completions` has a script.
    for command in super::commands().iter().filter(|name| *name != "completions") {
        assert!(SESSION.iter().any(|(name, _)| name == command), "no golden answer of {command}");
    }
}

/// The names of all members, but for those of records' own values.
fn members(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                names.insert(name.clone());
                if name != "value" {
                    members(value, names);
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|value| members(value, names)),
        _ => {}
    }
}

#[test]
fn the_reference_names_every_member_of_every_json_answer() {
    for (command, told) in play() {
        let mut names = BTreeSet::new();
        // An exported object is the user's own.
        let lines = told.lines().filter(|line| line.starts_with("{\"") && command != "export");
        for line in lines {
            members(
                &serde_json::from_str(line).unwrap_or_else(|error| panic!("{command}: {error}: {line}")),
                &mut names,
            );
        }
        // What one-record writes answer is said once.
        let command = if ["increment", "append"].contains(&command) { "merge" } else { command };
        let command = if command == "ended" { "stop" } else { command };
        let section = super::section(command).unwrap_or("");
        for name in names {
            let known = [format!("`{name}`"), format!("`{name}."), format!("\"{name}\""), format!(".{name}`")];
            assert!(known.iter().any(|known| section.contains(known)), "docs/cli.md does not name {name} of {command}");
        }
    }
}
