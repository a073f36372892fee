//! `flags`: the update flags of the namespaces, a row for each session that has one.

use serde_json::{Value, json};

use super::context::Context;
use super::failure::Failure;
use super::human::{Side, Table, number};
use super::parties::{print_lines, print_table, shown};
use crate::proto::{FlagInfo, FlagOf};

/// Runs the command.
pub(super) fn run(context: &Context) -> Result<(), Failure> {
    let mut list = context.connect()?.flags()?;
    if let Some(workspace) = context.workspace() {
        list.retain(|info| info.workspace == workspace);
    }
    if context.json() {
        return print_lines(list.iter().map(as_json));
    }
    if list.is_empty() {
        context.talk("no session has an update flag");
    }
    print_table(&table(&list))
}

fn as_json(info: &FlagInfo) -> Value {
    let flag = |flag: &FlagOf| json!({"session": flag.session, "pid": flag.pid, "set": flag.set});
    let sessions: Vec<_> = info.sessions.iter().map(flag).collect();
    json!({"workspace": info.workspace, "namespace": info.namespace, "word": info.word, "sessions": sessions})
}

fn table(list: &[FlagInfo]) -> Table {
    let mut table = Table::new(&[
        ("WORKSPACE", Side::Left),
        ("NAMESPACE", Side::Left),
        ("WORD", Side::Right),
        ("SESSION", Side::Right),
        ("PID", Side::Right),
        ("FLAG", Side::Left),
    ]);
    for info in list {
        let workspace = if info.workspace.is_empty() { "-".to_owned() } else { shown(&info.workspace) };
        for flag in &info.sessions {
            table.row(vec![
                workspace.clone(),
                info.namespace.clone(),
                number(info.word),
                flag.session.to_string(),
                flag.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
                if flag.set { "set" } else { "cleared" }.to_owned(),
            ]);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_session_has_a_row() {
        let (workspace, namespace) = (String::new(), "text_chunks".to_owned());
        let sessions =
            vec![FlagOf { session: 3, pid: Some(4_711), set: true }, FlagOf { session: 10, pid: None, set: false }];
        let expected = "\
WORKSPACE  NAMESPACE     WORD  SESSION   PID  FLAG
-          text_chunks  1,235        3  4711  set
-          text_chunks  1,235       10     -  cleared";
        let table = table(&[FlagInfo { workspace, namespace, word: 1_235, sessions }]);
        assert_eq!(table.lines().join("\n"), expected);
    }
}
