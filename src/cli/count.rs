//! `count NS`: how many records there are.

use clap::Args;
use serde_json::json;

use super::args::NamespaceArgs;
use super::context::Context;
use super::failure::Failure;
use super::output::Out;

/// Options of `count`.
#[derive(Debug, Args)]
pub(super) struct CountArgs {
    #[command(flatten)]
    namespace: NamespaceArgs,
}

/// Runs the command.
pub(super) fn run(args: &CountArgs, context: &Context) -> Result<(), Failure> {
    let (_client, namespace) = context.namespace(&args.namespace)?;
    let records = namespace.len()?;
    let mut out = Out::new();
    if context.json() {
        out.line(&json!({"records": records}).to_string())?;
    } else {
        out.line(&records.to_string())?;
    }
    out.finish()
}
