//! `keys NS`: the keys in insertion order, a line each.

use super::context::Context;
use super::failure::Failure;
use super::output::{Out, push_record};
use super::scan::ScanArgs;
use crate::json;

/// Runs the command.
pub(super) fn run(args: &ScanArgs, context: &Context) -> Result<(), Failure> {
    let (_client, namespace) = context.namespace(args.namespace())?;
    let mut out = Out::new();
    let mut line = Vec::new();
    for entry in args.records(namespace.scan().keys_only()) {
        let entry = entry?;
        line.clear();
        if context.json() {
            push_record(&mut line, &entry.key, None, Some(entry.seq.0));
        } else if out.is_terminal() && entry.key.chars().any(char::is_control) {
            // A key may hold anything, escape sequences too; a terminal gets them quoted.
            json::write_string(&mut line, &entry.key);
            line.push(b'\n');
        } else {
            line.extend_from_slice(entry.key.as_bytes());
            line.push(b'\n');
        }
        out.bytes(&line)?;
    }
    out.finish()
}
