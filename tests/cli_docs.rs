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

#[test]
fn a_store_is_looked_at_as_the_document_on_testing_shows() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let session = blocks(include_str!("../docs/testing.md"), "console").concat();
    Session::read(&session).prints_what_it_shows(folder.path());
}
