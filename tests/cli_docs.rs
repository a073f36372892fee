//! `docs/cli.md` says what the command line does: it names every command and option, and its example runs.

mod common;
mod golden_json;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use common::session::{Session, blocks};
use common::{BINARY, Store, ran};

const REFERENCE: &str = include_str!("../docs/cli.md");

fn help(arguments: &[&str]) -> String {
    let mut command = Command::new(BINARY);
    command.args(arguments).arg("--help");
    let ran = ran(command, b"");
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.stdout
}

/// The commands that the help lists, without `help` itself.
fn commands() -> Vec<String> {
    let help = help(&[]);
    let list = help.split("Commands:\n").nth(1).expect("a list of commands");
    let names = list.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

/// What the reference says of one command, its heading first.
fn section(command: &str) -> Option<&'static str> {
    let heads = [format!("\n### `{command}`"), format!("\n### `{command} ")];
    let at = heads.iter().find_map(|head| REFERENCE.find(head))?;
    let section = REFERENCE[at + 1..].split("\n## ").next().expect("a beginning");
    section.split("\n### ").next()
}

/// The long options that a help text declares.
fn options(help: &str) -> BTreeSet<&str> {
    let declared = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let words = declared.flat_map(|line| line.split([' ', ',', '.']).filter(|word| word.starts_with("--")));
    words.collect()
}

/// The long options that a document names.
fn named(document: &str) -> BTreeSet<&str> {
    let words = document.split(|c: char| !(c.is_ascii_lowercase() || c == '-'));
    words.filter(|word| word.strip_prefix("--").is_some_and(|name| name.starts_with(char::is_alphabetic))).collect()
}

/// The options that a document declares: in the heading of a command and in tables of options.
fn declared(document: &str) -> BTreeSet<&str> {
    let lines = document.lines().filter(|line| line.starts_with("| `-") || line.starts_with("### `"));
    lines.flat_map(|line| named(line.split("` |").next().unwrap_or_default())).collect()
}

#[test]
fn every_command_and_every_option_is_in_the_reference() {
    let commands = commands();
    assert!(commands.len() > 20, "{commands:?}");
    let general = REFERENCE.split("\n## Exit codes").next().expect("a beginning");
    let global_help = help(&[]);
    let global = options(&global_help);
    for option in &global {
        assert!(general.contains(option), "docs/cli.md does not name {option}");
    }
    let mut everywhere: BTreeSet<String> = global.iter().map(|&option| option.to_owned()).collect();
    for command in &commands {
        let section = section(command).unwrap_or_else(|| panic!("docs/cli.md has no {command}"));
        // What a chapter says before its first command holds for all of its commands.
        let before = REFERENCE.split(section).next().expect("a beginning");
        let chapter = before.rsplit("\n## ").next().expect("a chapter");
        let chapter = chapter.split("\n### ").next().expect("a beginning");
        let own_help = help(&[command]);
        let own = options(&own_help);
        for option in &own {
            let known = section.contains(option) || chapter.contains(option) || global.contains(option);
            assert!(known, "docs/cli.md does not name {option} of {command}");
        }
        for option in declared(section) {
            assert!(own.contains(option), "docs/cli.md gives {command} the option {option}, which it does not have");
        }
        everywhere.extend(own.iter().map(|&option| option.to_owned()));
    }
    for option in named(REFERENCE) {
        assert!(everywhere.contains(option), "docs/cli.md names {option}, which no command has");
    }
}

#[test]
fn no_command_stands_in_the_reference_that_does_not_exist() {
    let commands = commands();
    for heading in REFERENCE.lines().filter_map(|line| line.strip_prefix("### `")) {
        let name = heading.split([' ', '`']).next().unwrap_or_default();
        assert!(commands.iter().any(|command| command == name), "{name} is described and does not exist");
    }
}

#[test]
fn the_example_runs_as_it_stands() {
    let example = REFERENCE.split("## A minute of it").nth(1).expect("the example");
    let example = example.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a block of shell");
    let store = Store::new();
    let folder = std::path::Path::new(BINARY).parent().expect("a folder");
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
    let mut shell = Command::new("sh");
    // The daemon is ended however far the example comes.
    let script = format!("trap 'kill $! 2>/dev/null || :' EXIT\n{example}");
    shell.args(["-eu", "-c", &script]).env("PATH", path).env_remove("COMMONHOLD_STORE").current_dir(store.beside(""));
    let ran = ran(shell, b"");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.contains("{\"tokens\":12,\"content\":\"…\"}"), "{ran:?}");
    let exported = std::fs::read_to_string(store.beside("chunks.json")).expect("exported");
    assert_eq!(exported, "{\n\"chunk-1\":{\"tokens\":12,\"content\":\"…\"}\n}\n");
}

/// A directory that LightRAG wrote, as `rag_storage` in a folder of its own.
fn lightrag_directory() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let store = folder.path().join("rag_storage");
    fs::create_dir(&store).expect("an empty directory");
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/lightrag_store");
    for entry in fs::read_dir(data).expect("lists").map(|entry| entry.expect("entry")) {
        fs::copy(entry.path(), store.join(entry.file_name())).expect("copied");
    }
    folder
}

#[test]
fn a_directory_of_lightrag_is_taken_over_and_given_back_as_the_document_shows() {
    let session = blocks(include_str!("../docs/from-lightrag.md"), "console").concat();
    Session::read(&session).prints_what_it_shows(lightrag_directory().path());
}

/// A store and its daemon, where a document does not begin with its own.
const SERVED: &str = "$ mkdir rag_storage && export COMMONHOLD_STORE=rag_storage
$ commonhold serve 2>daemon.log &
$ commonhold status --wait 10s >status.txt
";

#[test]
fn the_sessions_of_the_reference_print_what_it_shows() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let session = blocks(REFERENCE, "console").concat();
    Session::read(&format!("{SERVED}{session}")).prints_what_it_shows(folder.path());
}

#[test]
fn every_shell_session_of_a_document_is_typed_by_a_test_or_says_that_it_was_measured() {
    /// Those whose `console` blocks tests of this file and of `readme.rs` type.
    const TYPED: [&str; 5] =
        ["README.md", "docs/cli.md", "docs/coordination.md", "docs/from-lightrag.md", "docs/testing.md"];
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = fs::read_dir(root.join("docs")).expect("lists").map(|entry| entry.expect("entry").path());
    let documents = docs.chain(["README.md", "CHANGELOG.md", "proto/PROTOCOL.md"].map(|name| root.join(name)));
    for document in documents.filter(|path| path.extension().is_some_and(|extension| extension == "md")) {
        let text = fs::read_to_string(&document).expect("a document");
        let name = document.strip_prefix(root).expect("below it").to_str().expect("UTF-8");
        let mut language = None;
        for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line)) {
            if let Some(fence) = line.trim_start().strip_prefix("```") {
                language = if language.is_none() { Some(fence) } else { None };
            }
            let is_typed = language == Some("console") && TYPED.contains(&name);
            let is_known = language.is_none() || is_typed || language == Some("measured");
            assert!(is_known || !line.starts_with("$ "), "{name}, line {number}: no test types this session");
            assert!(is_known || language != Some("console"), "{name}, line {number}: no test types this session");
        }
    }
}

#[test]
fn the_limits_in_the_reference_are_those_of_the_protocol() {
    use commonhold::proto::limits::*;
    let section = REFERENCE.split("\n## Limits\n").nth(1).and_then(|rest| rest.split("\n## ").next()).expect("limits");
    let mib = |bytes: usize| format!("{} MiB", bytes / (1024 * 1024));
    for (what, limit) in [
        ("the name of a namespace", format!("{MAX_NAMESPACE_BYTES} characters")),
        ("the name of a workspace", format!("{MAX_WORKSPACE_BYTES} bytes")),
        ("a key", format!("{} KiB", MAX_KEY_BYTES / 1024)),
        ("a value, in canonical JSON", mib(MAX_VALUE_BYTES)),
        ("a value that `merge`", mib(MAX_CHANGED_VALUE_BYTES)),
        ("nesting of a value", "1,024".to_owned()),
        ("operations of a write", "10,000".to_owned()),
        ("a request or answer", mib(MAX_FRAME_BYTES)),
        ("what a write is in the journal", mib(MAX_RECORD_BYTES)),
        (
            "requests of one session",
            format!("1,024, and {}; of all sessions {}", mib(MAX_IN_FLIGHT_BYTES), mib(MAX_WAITING_BYTES)),
        ),
        ("answers that clients", mib(MAX_QUEUED_BYTES)),
    ] {
        let row = section.lines().find(|line| line.starts_with(&format!("| {what}")));
        assert!(row.is_some_and(|row| row.contains(&limit)), "{what}: {limit} is not in {row:?}");
    }
    assert_eq!((MAX_NESTING, MAX_OPERATIONS, MAX_IN_FLIGHT), (1_024, 10_000, 1_024), "as the words above have them");
}

#[test]
fn a_store_is_looked_at_as_the_document_on_testing_shows() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let session = blocks(include_str!("../docs/testing.md"), "console").concat();
    Session::read(&session).prints_what_it_shows(folder.path());
}

#[test]
fn the_session_of_the_guide_to_coordination_prints_what_it_shows() {
    let store = Store::new();
    let _daemon = store.serve();
    let session = blocks(include_str!("../docs/coordination.md"), "console").concat();
    Session::read(&session).prints_what_it_shows(store.dir());
}
