//! `watch NS`: what is changed, as it is changed, a line of JSON for each write.

use std::time::Duration;

use clap::Args;

use super::args::NamespaceArgs;
use super::context::Context;
use super::failure::Failure;
use super::output::Out;
use crate::client::blocking::{Change, Seq, WatchEvent, WatchOptions};
use crate::json;

/// Options of `watch`.
#[derive(Debug, Args)]
pub(super) struct WatchArgs {
    #[command(flatten)]
    namespace: NamespaceArgs,
    /// Only keys that begin so, and whatever concerns all keys.
    #[arg(long, value_name = "P", default_value = "", hide_default_value = true)]
    prefix: String,
    /// Begin with what followed this write; else with what comes from now on.
    #[arg(long, value_name = "SEQ")]
    from: Option<u64>,
    /// End after so many lines.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

/// Runs the command.
pub(super) fn run(args: &WatchArgs, context: &Context) -> Result<(), Failure> {
    let (_client, namespace) = context.namespace(&args.namespace)?;
    let mut options = WatchOptions::new().prefix(&args.prefix);
    if let Some(seq) = args.from {
        options = options.after(Seq(seq));
    }
    let mut watch = namespace.watch(options);
    let mut out = Out::new();
    let begins = watch.begin()?;
    context.talk(format_args!("watching {} after {begins}", namespace.place()));
    let (mut line, mut printed) = (Vec::new(), 0);
    while args.limit.is_none_or(|limit| printed < limit) {
        // What has come is printed together, and handed over before anything more is waited for.
        let event = if let Some(event) = watch.next_timeout(Duration::ZERO)? {
            event
        } else {
            out.hand_over()?;
            let Some(event) = watch.next() else { break };
            event?
        };
        line.clear();
        push_event(&mut line, &event);
        out.bytes(&line)?;
        printed += 1;
    }
    out.finish()
}

/// Appends an event and the line's end.
fn push_event(out: &mut Vec<u8>, event: &WatchEvent) {
    let set = match event {
        WatchEvent::Changes(set) => set,
        WatchEvent::Lagged { lost_from, next } => {
            let words = format!("{{\"lagged\":{{\"lost_from\":{lost_from},\"next\":{next}}}}}\n");
            return out.extend_from_slice(words.as_bytes());
        }
    };
    out.extend_from_slice(format!("{{\"seq\":{},\"changes\":[", set.seq).as_bytes());
    for (index, change) in set.changes.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        match change {
            Change::Put { key, value } => {
                out.extend_from_slice(b"{\"op\":\"put\",\"key\":");
                json::write_string(out, key);
                out.extend_from_slice(b",\"value\":");
                out.extend_from_slice(value.as_bytes());
                out.push(b'}');
            }
            Change::Delete { key } => {
                out.extend_from_slice(b"{\"op\":\"delete\",\"key\":");
                json::write_string(out, key);
                out.push(b'}');
            }
            Change::Clear => out.extend_from_slice(b"{\"op\":\"clear\"}"),
            Change::Drop => out.extend_from_slice(b"{\"op\":\"drop\"}"),
        }
    }
    out.extend_from_slice(b"]}\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::blocking::ChangeSet;

    #[test]
    fn an_event_is_a_line_of_json_whose_values_are_as_they_were_written() {
        let changes = vec![
            Change::Clear,
            Change::Put { key: "a\"b".to_owned(), value: "[1.10,NaN]".to_owned() },
            Change::Delete { key: "c".to_owned() },
            Change::Drop,
        ];
        let mut line = Vec::new();
        push_event(&mut line, &WatchEvent::Changes(ChangeSet { seq: Seq(7), changes }));
        push_event(&mut line, &WatchEvent::Lagged { lost_from: Seq(8), next: Seq(11) });
        let expected = "{\"seq\":7,\"changes\":[{\"op\":\"clear\"},{\"op\":\"put\",\"key\":\"a\\\"b\",\"value\":[1.10,NaN]},\
                        {\"op\":\"delete\",\"key\":\"c\"},{\"op\":\"drop\"}]}\n{\"lagged\":{\"lost_from\":8,\"next\":11}}\n";
        assert_eq!(String::from_utf8(line).unwrap(), expected);
    }
}
