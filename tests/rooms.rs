//! The room rule: which part of the code may know which other part.
//!
//! The table below is the one of `docs/architecture.md`, made to fail. The test reads the paths that the sources name
//! (`crate::…`, `super::…` where it leaves a room, `commonhold::…`, `commonhold_proto::…`) and refuses an arrow that
//! the table does not allow; comments and string literals do not count. It also holds a few crates to the one place
//! that may name them, and unsafe code to the files that announce it.

#[path = "rooms/paths.rs"]
mod paths;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use paths::{Token, paths, tokens};

/// What a room may name. `names` is the part of the wire that is vocabulary and not messages, `limits` its numbers.
const TABLE: &[(&str, &[&str])] = &[
    ("json", &["limits"]),
    ("lock", &[]),
    ("engine", &["json", "lock", "names", "limits"]),
    ("coord", &["names", "limits"]),
    ("ipc", &["proto"]),
    ("versions", &["names"]),
    ("daemon", &["ipc", "engine", "coord", "lock", "json", "versions", "proto"]),
    ("client", &["ipc", "json", "versions", "proto"]),
    ("testing", &["client", "proto"]),
    ("cli", &["client", "json", "lock", "proto", "daemon", "engine"]),
    ("fuzzing", &["daemon", "engine", "ipc", "json", "lock", "proto"]),
    ("main", &["cli"]),
];

/// The words of the wire that the storing rooms share with it: names, and what a request asks for; no message, frame or
/// fault.
const NAMES: &[&str] = &[
    "Condition",
    "Cursor",
    "Durability",
    "Kind",
    "NameError",
    "Namespace",
    "NamespaceInfo",
    "Number",
    "Place",
    "Seq",
    "StoreIdentity",
    "Tag",
    "Workspace",
    "WorkspaceInfo",
    "names",
];

/// Crates that are named in one place only, so that replacing one is a small job.
const NAMED_ONLY_IN: &[(&str, &[&str])] = &[
    ("bincode", &["proto/src/codec.rs"]),
    ("fs4", &["src/lock.rs"]),
    ("interprocess", &["src/ipc/"]),
    (
        "tokio",
        &[
            "src/ipc/",
            "src/daemon/",
            "src/client/",
            // Its signals are those of the one crate in the binary that hears any.
            "src/cli/cleanup.rs",
            "tests/client/",
            "tests/histories/",
            "tests/processes.rs",
            "tests/watch/",
            "tests/worker_crate/",
        ],
    ),
    ("clap", &["src/cli/"]),
];

/// How many of a file's first lines may hold the word that says there is unsafe code in it.
const UNSAFE_NOTICE_LINES: usize = 15;

#[test]
fn every_arrow_is_one_that_the_table_allows() {
    let mut wrong = String::new();
    for (path, text) in sources(&["src"]) {
        for arrow in forbidden_arrows(&path, &text) {
            writeln!(wrong, "{path}:{}: room `{}` names `{}`", arrow.line, arrow.from, arrow.path)
                .expect("to a String");
        }
    }
    assert!(wrong.is_empty(), "arrows that docs/architecture.md does not allow:\n{wrong}");
}

#[test]
fn every_room_of_the_sources_stands_in_the_table() {
    for (path, _) in sources(&["src"]) {
        let room = room_of(&path);
        assert!(room == "lib" || is_room(&room), "{path}: the table does not know the room `{room}`");
    }
}

#[test]
fn the_wire_knows_no_room_and_touches_nothing() {
    for (path, text) in sources(&["proto/src"]) {
        let tokens = tokens(&text);
        assert!(!tokens.iter().any(|token| token.is("commonhold")), "{path} names the crate that stands on it");
        for (line, named) in paths(&tokens, "std") {
            let effect = ["fs", "net", "thread", "time", "process", "os", "io", "env"]
                .iter()
                .any(|module| named.split("::").next() == Some(module));
            assert!(
                !effect,
                "{path}:{line} names std::{named}: the wire does no I/O, reads no clock, starts no threads"
            );
        }
    }
}

#[test]
fn coordination_decides_without_io_clock_or_threads() {
    for (path, text) in sources(&["src/coord"]) {
        let tokens = tokens(&text);
        for (line, named) in paths(&tokens, "std") {
            let effect = ["fs", "net", "thread", "time", "process", "os", "io", "env"]
                .iter()
                .any(|module| named.split("::").next() == Some(module));
            assert!(!effect, "{path}:{line} names std::{named}: time, tokens and waits are brought by the caller");
        }
        for crate_name in ["parking_lot", "tokio", "tracing", "rustix", "getrandom"] {
            let named = tokens.iter().find(|token| token.is(crate_name));
            assert!(named.is_none(), "{path} names {crate_name}: it decides, and does nothing else");
        }
    }
}

#[test]
fn some_crates_are_named_in_one_place_only() {
    for (path, text) in sources(&["src", "proto/src", "tests", "benches", "examples"]) {
        for token in tokens(&text) {
            for (name, places) in NAMED_ONLY_IN {
                let at_home = places.iter().any(|place| path.starts_with(place));
                assert!(at_home || !token.is(name), "{path}:{} names {name}, allowed in {places:?}", token.line);
            }
        }
    }
}

#[test]
fn a_file_with_unsafe_code_says_so_at_its_head() {
    for (path, text) in sources(&["src", "proto/src", "tests", "benches", "examples"]) {
        let Some(line) = tokens(&text).iter().find(|token| token.is("unsafe")).map(|token| token.line) else {
            continue;
        };
        let mut head = text.lines().take(UNSAFE_NOTICE_LINES).filter(|line| line.starts_with("//"));
        let says_so = head.any(|line| line.to_lowercase().contains("unsafe"));
        assert!(says_so, "{path}:{line} has unsafe code that the file's first lines do not announce");
    }
}

/// The test of the test: each of these is forbidden, and the rule sees it however it is written.
#[test]
fn a_forbidden_arrow_is_seen_however_it_is_written() {
    let forbidden = [
        ("src/client/core.rs", "use crate::engine::Store;", "engine::Store"),
        (
            "src/client/blocking/mod.rs",
            "use crate::{\n    json::canonical,\n    daemon::{self, run},\n};",
            "daemon::run",
        ),
        ("src/engine/map/mod.rs", "fn f() -> crate::coord::Held { g() }", "coord::Held"),
        ("src/engine/write.rs", "use commonhold_proto::{Place, message::Request};", "message::Request"),
        ("src/engine/write.rs", "use crate::proto::Fault;", "Fault"),
        ("src/engine/write.rs", "use commonhold_proto as wire;", ""),
        ("src/ipc/unix.rs", "use super::super::daemon::run;", "daemon::run"),
        ("src/ipc/mod.rs", "use super::client;", "client"),
        ("src/daemon/session.rs", "let c = crate::blocking::Client::connect(dir);", "blocking::Client::connect"),
        ("src/json/read.rs", "use commonhold_proto::{Seq, limits::MAX_NESTING};", "Seq"),
        ("src/lock.rs", "use crate::engine;", "engine"),
        ("src/cli/get.rs", "use commonhold::ipc::Stream;", "ipc::Stream"),
    ];
    for (path, text, expected) in forbidden {
        let seen: Vec<String> = forbidden_arrows(path, text).into_iter().map(|arrow| arrow.path).collect();
        assert!(seen.iter().any(|path| path == expected), "{path}: {text}: saw only {seen:?}");
    }
}

#[test]
fn an_allowed_arrow_is_not_mistaken_for_a_forbidden_one() {
    let allowed = [
        ("src/client/core.rs", "use crate::client::Error; use crate::proto::message::{Verb, Answer};"),
        (
            "src/client/core.rs",
            "// crate::engine\nconst S: &str = \"crate::engine \\\" crate::daemon\"; /* crate::cli */",
        ),
        ("src/engine/journal.rs", "use commonhold_proto::{Durability, names::{Place, Seq}, limits::MAX_RECORD_BYTES};"),
        ("src/engine/disk/real.rs", "use super::super::error::Error; mod tests { use super::*; }"),
        ("src/engine/disk/real.rs", "pub(in crate::engine) fn f<'a>(s: &'a str) -> crate::engine::Stats { g(s) }"),
        ("src/cli/serve.rs", "crate::daemon::run(options, r#\"crate::ipc \" \"#, 'x', b'\"', '\"', '\\'')"),
    ];
    for (path, text) in allowed {
        let wrong = forbidden_arrows(path, text);
        assert!(wrong.is_empty(), "{path}: {text}: {wrong:?}");
    }
}

/// One room naming another.
#[derive(Debug)]
struct Arrow {
    from: String,
    to: String,
    path: String,
    line: usize,
}

impl Arrow {
    fn is_allowed(&self) -> bool {
        let may = TABLE.iter().find(|(room, _)| *room == self.from).map_or(&[][..], |(_, may)| may);
        let wire = ["names", "limits"].contains(&self.to.as_str()) && may.contains(&"proto");
        self.from == "lib" || self.from == self.to || wire || may.contains(&self.to.as_str())
    }
}

fn forbidden_arrows(path: &str, text: &str) -> Vec<Arrow> {
    arrows(path, &tokens(text)).into_iter().filter(|arrow| !arrow.is_allowed()).collect()
}

/// The arrows of one source file. `path` is relative to the repository, with forward slashes.
fn arrows(path: &str, tokens: &[Token]) -> Vec<Arrow> {
    let from = room_of(path);
    // How many `super` lead from the file's own module to the crate: one for src/ipc/mod.rs, two for src/ipc/unix.rs.
    let depth = path.trim_end_matches(".rs").split('/').skip(1).filter(|part| *part != "mod").count();
    let arrow =
        |line, to: &str, path: &str| Arrow { from: from.clone(), to: to.to_owned(), path: path.to_owned(), line };

    let mut found: Vec<Arrow> = paths(tokens, "commonhold_proto")
        .into_iter()
        .map(|(line, named)| arrow(line, wire_part(&named), &named))
        .collect();
    for (line, named) in ["crate", "commonhold"].into_iter().flat_map(|root| paths(tokens, root)) {
        match named.split("::").next() {
            Some("proto") => {
                let word = named.strip_prefix("proto::").unwrap_or_default();
                found.push(arrow(line, wire_part(word), word));
            }
            Some("blocking") => found.push(arrow(line, "client", &named)),
            Some(first) if is_room(first) => found.push(arrow(line, first, &named)),
            _ => {}
        }
    }
    for (line, named) in paths(tokens, "super") {
        let supers = 1 + named.split("::").take_while(|segment| *segment == "super").count();
        let rest: Vec<&str> = named.split("::").skip(supers - 1).collect();
        // A chain of `super` may begin in an inline module: it has left the room only if what follows is a room.
        if let Some(first) = rest.first().filter(|first| supers >= depth && is_room(first)) {
            found.push(arrow(line, first, &rest.join("::")));
        }
    }
    found
}

fn room_of(path: &str) -> String {
    let inside = path.strip_prefix("src/").expect("a file of the root package");
    inside.split('/').next().expect("split gives at least one part").trim_end_matches(".rs").to_owned()
}

fn is_room(name: &str) -> bool {
    TABLE.iter().any(|(room, _)| *room == name)
}

fn wire_part(path: &str) -> &'static str {
    match path.split("::").next() {
        Some("limits") => "limits",
        _ if path.split("::").any(|segment| NAMES.contains(&segment)) => "names",
        _ => "proto",
    }
}

/// Every Rust source below the folders, as (path from the repository with forward slashes, text), in order of path.
fn sources(folders: &[&str]) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut waiting: Vec<_> = folders.iter().map(|folder| root.join(folder)).filter(|folder| folder.exists()).collect();
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of this repository") {
            let path = entry.expect("an entry of it").path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).expect("found below it").to_string_lossy().replace('\\', "/");
                found.push((name, fs::read_to_string(&path).expect("Rust sources are text")));
            }
        }
    }
    assert!(!found.is_empty(), "no sources below {folders:?}");
    found.sort();
    found
}
