//! An example or more for the help of each command. A table, and a test that each of them can be typed.

pub(super) const SERVE: &str = "Examples:
  commonhold serve rag_storage
  commonhold serve rag_storage --durability synced --max-memory 2G
  commonhold serve --detach --idle-exit 10min";
pub(super) const STATUS: &str = "Examples:
  commonhold --store rag_storage status
  commonhold status --wait 10s
  commonhold --json status";
pub(super) const GET: &str = "Examples:
  commonhold get text_chunks chunk-1 chunk-2
  commonhold --workspace tenant_a get text_chunks chunk-1
  commonhold get text_chunks -- --a-key-with-hyphens";
pub(super) const PUT: &str = "Examples:
  commonhold put teas oolong '{\"minutes\": 3}'
  commonhold put teas oolong - <oolong.json
  commonhold put teas lock 1 --if-absent";
pub(super) const MERGE: &str = "Example:\n  commonhold merge teas oolong '{\"from\": \"Anxi\"}'";
pub(super) const INCREMENT: &str = "Examples:
  commonhold increment teas oolong cups 1
  commonhold increment teas oolong price -0.25";
pub(super) const APPEND: &str = "Examples:
  commonhold append jobs job-1 log '\"begun\"' '{\"at\": 7}'
  commonhold append jobs job-1 log '\"done\"' --keep-last 100";
pub(super) const DEL: &str = "Example:\n  commonhold del text_chunks chunk-1 chunk-2";
pub(super) const KEYS: &str = "Example:\n  commonhold keys text_chunks --prefix chunk- --limit 10";
pub(super) const SCAN: &str = "Examples:
  commonhold scan text_chunks --limit 10
  commonhold scan text_chunks --prefix doc-";
pub(super) const COUNT: &str = "Example:\n  commonhold count text_chunks";
pub(super) const CLEAR: &str = "Example:\n  commonhold clear text_chunks";
pub(super) const DROP: &str = "Examples:
  commonhold drop text_chunks
  commonhold --workspace tenant_a drop text_chunks";
pub(super) const NAMESPACES: &str = "Examples:\n  commonhold namespaces\n  commonhold --workspace tenant_a namespaces";
pub(super) const WORKSPACES: &str = "Example:\n  commonhold workspaces";
pub(super) const SESSIONS: &str = "Examples:\n  commonhold sessions\n  commonhold sessions end 7";
pub(super) const LOCKS: &str = "Examples:\n  commonhold locks\n  commonhold --json locks";
pub(super) const FLAGS: &str = "Example:\n  commonhold flags";
pub(super) const SLOTS: &str = "Example:\n  commonhold slots";
pub(super) const LOCK: &str = "Examples:
  commonhold lock nightly -- ./rebuild_index.sh
  commonhold lock graph chunks --timeout 10s -- python3 merge.py
  commonhold lock index --shared -- sh -c 'commonhold put state last 1 --if-token $COMMONHOLD_TOKEN'";
pub(super) const WATCH: &str = "Examples:
  commonhold watch pipeline_status --volatile
  commonhold watch doc_status --prefix doc- --from 4711";
pub(super) const COMMIT: &str = "Example:\n  commonhold commit";
pub(super) const FLUSH: &str = "Examples:\n  commonhold flush\n  commonhold flush text_chunks --no-wait";
pub(super) const IMPORT: &str = "Examples:
  commonhold import text_chunks kv_store_text_chunks.json
  commonhold import text_chunks - --format lines <chunks.jsonl";
pub(super) const EXPORT: &str = "Examples:
  commonhold export text_chunks chunks.json
  commonhold export text_chunks - --format lines";
pub(super) const CHECK: &str = "Examples:\n  commonhold --store rag_storage check\n  commonhold check --deep";
pub(super) const REPAIR: &str = "Examples:
  commonhold repair text_chunks --generation 42
  commonhold repair text_chunks --generation 42 --yes";
pub(super) const STOP: &str = "Example:\n  commonhold --store rag_storage stop";
pub(super) const BENCH: &str = "Examples:
  commonhold bench
  commonhold bench --connections 50 --reads 100
  commonhold --json bench --durability synced --reads 0 --time 10s";
pub(super) const COMPLETIONS: &str = "Examples:
  commonhold completions bash
  commonhold completions zsh
  commonhold completions fish";

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::super::args::Cli;

    /// The words of a line as a shell would part them, as far as the examples go: single quotes, and a file at the end.
    fn words(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
        for c in line.split(" <").next().unwrap_or_default().chars() {
            match c {
                '\'' => quoted = !quoted,
                ' ' if !quoted => words.push(std::mem::take(&mut word)),
                c => word.push(c),
            }
        }
        words.push(word);
        words
    }

    #[test]
    fn every_command_has_an_example_that_can_be_typed() {
        for command in Cli::command().get_subcommands_mut() {
            let name = command.get_name().to_owned();
            let help = command.render_long_help().to_string();
            let (_, examples) = help.split_once("\nExample").unwrap_or_else(|| panic!("{name} has no example: {help}"));
            let examples: Vec<&str> = examples.lines().skip(1).map(str::trim).filter(|line| !line.is_empty()).collect();
            assert!(!examples.is_empty(), "{name}: {help}");
            for example in examples {
                let words = words(example);
                assert!(words[0] == "commonhold" && words.contains(&name), "{example}");
                if let Err(refusal) = Cli::try_parse_from(words) {
                    panic!("{example}: {refusal}");
                }
            }
        }
    }
}
