//! `commit`: every write acknowledged before is on the platter when it ends.

use serde_json::json;

use super::context::Context;
use super::failure::Failure;
use super::output::print_json;

/// Runs the command.
pub(super) fn run(context: &Context) -> Result<(), Failure> {
    let seq = context.connect()?.commit()?;
    if context.json() {
        print_json(&json!({"seq": seq.0}))?;
    }
    context.talk(format_args!("on the platter: everything up to seq {seq}"));
    Ok(())
}
