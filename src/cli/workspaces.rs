//! `workspaces`: the subdirectories of the store that hold namespaces, and what they hold.

use serde_json::json;

use super::context::Context;
use super::failure::Failure;
use super::human::{Side, Table, number, printable, size};
use super::output::{FAINT, Out, print_styled};

/// Runs the command.
pub(super) fn run(context: &Context) -> Result<(), Failure> {
    let list = context.connect()?.workspaces()?;
    if context.json() {
        let mut out = Out::new();
        for info in &list {
            out.line(
                &json!({
                    "workspace": info.workspace,
                    "namespaces": info.namespaces,
                    "loaded": info.loaded,
                    "records": info.records,
                    "bytes": info.bytes,
                    "file_bytes": info.file_bytes,
                })
                .to_string(),
            )?;
        }
        return out.finish();
    }
    let mut table = Table::new(&[
        ("WORKSPACE", Side::Left),
        ("NAMESPACES", Side::Right),
        ("LOADED", Side::Right),
        ("RECORDS", Side::Right),
        ("BYTES", Side::Right),
        ("FILES", Side::Right),
    ]);
    for info in &list {
        // The store's own directory has no name, and a name cannot hold a slash: nobody is taken for it.
        let name = if info.workspace.is_empty() { "./".to_owned() } else { printable(&info.workspace) };
        table.row(vec![
            name,
            number(info.namespaces),
            number(info.loaded),
            number(info.records),
            size(info.bytes),
            size(info.file_bytes),
        ]);
    }
    let mut lines = table.lines();
    lines[0] = format!("{FAINT}{}{FAINT:#}", lines[0]);
    print_styled(&(lines.join("\n") + "\n"))
}
