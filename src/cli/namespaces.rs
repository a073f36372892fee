//! `namespaces`: what the store holds, loaded or not.

use serde_json::json;

use super::context::Context;
use super::failure::Failure;
use super::human::{Side, Table, number, printable, size};
use super::output::{BAD, FAINT, NOTE, Out, print_styled};
use crate::proto::{Kind, NamespaceInfo, Workspace};

/// Runs the command.
pub(super) fn run(context: &Context) -> Result<(), Failure> {
    if let Some(workspace) = context.workspace() {
        Workspace::new(workspace)?;
    }
    let mut list = context.connect()?.namespaces()?;
    if let Some(workspace) = context.workspace() {
        list.retain(|info| info.workspace == workspace);
    }
    if context.json() {
        let mut out = Out::new();
        for info in &list {
            out.line(
                &json!({
                    "workspace": info.workspace,
                    "namespace": info.namespace,
                    "kind": kind(info),
                    "records": info.records,
                    "bytes": info.bytes,
                    "file_bytes": info.file_bytes,
                    "dirty": info.dirty,
                    "closed": info.closed,
                })
                .to_string(),
            )?;
        }
        return out.finish();
    }
    if list.is_empty() {
        context.talk("there are no namespaces yet; the first `put` or `import` makes one");
        return Ok(());
    }
    print_styled(&(table(&list).join("\n") + "\n"))
}

/// The list as a table for people; the reasons of closed namespaces stand below it.
fn table(list: &[NamespaceInfo]) -> Vec<String> {
    let mut table = Table::new(&[
        ("NAMESPACE", Side::Left),
        ("RECORDS", Side::Right),
        ("MEMORY", Side::Right),
        ("FILE", Side::Right),
        ("STATE", Side::Left),
    ]);
    for info in list {
        table.row(vec![
            name(info),
            info.records.map_or_else(|| "-".to_owned(), number),
            info.records.map_or_else(|| "-".to_owned(), |_| size(info.bytes)),
            info.file_bytes.map_or_else(|| "-".to_owned(), size),
            state(info).to_owned(),
        ]);
    }
    let mut lines = table.lines();
    lines[0] = format!("{FAINT}{}{FAINT:#}", lines[0]);
    for (line, info) in lines[1..].iter_mut().zip(list) {
        // The state is the last cell of its line, so that colouring it moves nothing.
        let style = if info.closed.is_some() { BAD } else { NOTE };
        if let Some(head) = line.strip_suffix(state(info)).filter(|_| info.closed.is_some() || info.dirty) {
            *line = format!("{head}{style}{}{style:#}", state(info));
        }
    }
    for info in list {
        if let Some(reason) = &info.closed {
            lines.push(format!("{BAD}{} is closed:{BAD:#} {reason}", name(info)));
        }
    }
    lines
}

fn name(info: &NamespaceInfo) -> String {
    if info.workspace.is_empty() {
        info.namespace.clone()
    } else {
        format!("{}/{}", printable(&info.workspace), info.namespace)
    }
}

/// `persistent` or `volatile`.
fn kind(info: &NamespaceInfo) -> &'static str {
    match info.kind {
        Kind::Persistent => "persistent",
        Kind::Volatile => "volatile",
    }
}

fn state(info: &NamespaceInfo) -> &'static str {
    if info.closed.is_some() {
        "closed"
    } else if info.kind == Kind::Volatile {
        "volatile"
    } else if info.records.is_none() {
        "not loaded"
    } else if info.dirty {
        "dirty"
    } else {
        "clean"
    }
}
