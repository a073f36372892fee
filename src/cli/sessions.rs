//! `sessions [end ID]`: who is connected to the daemon; an operator ends a session and so frees what a hung worker holds.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use serde_json::json;

use super::context::Context;
use super::failure::Failure;
use super::human::{Side, Table, number, printable, size, span};
use super::output::{FAINT, Out, print_json, print_styled};
use crate::proto::SessionInfo;

/// Options of `sessions`.
#[derive(Debug, Args)]
pub(super) struct SessionsArgs {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Action {
    /// End a session: its connection is closed, and what it holds is free.
    End {
        /// Its number in the list.
        #[arg(value_name = "ID")]
        id: u64,
    },
}

/// Runs the command.
pub(super) fn run(args: &SessionsArgs, context: &Context) -> Result<(), Failure> {
    let client = context.connect()?;
    if let Some(Action::End { id }) = args.action {
        client.end_session(id)?;
        if context.json() {
            print_json(&json!({"ended": id}))?;
        }
        context.talk(format_args!("session {id} has ended"));
        return Ok(());
    }
    let list = client.sessions()?;
    if context.json() {
        let mut out = Out::new();
        for info in &list {
            out.line(
                &json!({
                    "id": info.id,
                    // Beyond what JSON's readers take for a number.
                    "client": format!("{:032x}", info.client),
                    "pid": info.pid,
                    "uid": info.uid,
                    "command": info.command,
                    "version": info.version,
                    "since_unix_ms": info.since_unix_ms,
                    "requests": info.requests,
                    "in_flight": info.in_flight,
                    "queued_bytes": info.queued_bytes,
                })
                .to_string(),
            )?;
        }
        return out.finish();
    }
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    print_styled(&(table(&list, now_ms).join("\n") + "\n"))
}

fn table(list: &[SessionInfo], now_ms: u64) -> Vec<String> {
    let mut table = Table::new(&[
        ("ID", Side::Right),
        ("PID", Side::Right),
        ("UID", Side::Right),
        ("FOR", Side::Left),
        ("REQUESTS", Side::Right),
        ("IN FLIGHT", Side::Right),
        ("QUEUED", Side::Right),
        ("COMMAND", Side::Left),
    ]);
    let told = |n: Option<u32>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
    for info in list {
        table.row(vec![
            info.id.to_string(),
            told(info.pid),
            told(info.uid),
            span(Duration::from_millis(now_ms.saturating_sub(info.since_unix_ms))),
            number(info.requests),
            number(info.in_flight),
            size(info.queued_bytes),
            printable(&info.command),
        ]);
    }
    let mut lines = table.lines();
    lines[0] = format!("{FAINT}{}{FAINT:#}", lines[0]);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_told_with_what_it_has_outstanding_and_a_command_moves_no_cursor() {
        let info = SessionInfo {
            id: 7,
            client: 1,
            pid: Some(4711),
            uid: None,
            command: "python3 \u{1b}[2Jworker.py".to_owned(),
            version: 2,
            since_unix_ms: 1_000,
            requests: 12_345,
            in_flight: 2,
            queued_bytes: 2_048,
        };
        let lines = table(&[info], 66_000).join("\n");
        let expected = "\
ID   PID  UID  FOR        REQUESTS  IN FLIGHT   QUEUED  COMMAND
 7  4711    -  1 min 5 s    12,345          2  2.0 KiB  python3 \\u{1b}[2Jworker.py";
        assert_eq!(anstream::adapter::strip_str(&lines).to_string(), expected);
    }
}
