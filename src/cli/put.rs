//! `put NS KEY JSON|-`: stores one value.

use std::io::Read as _;

use clap::Args;
use serde_json::json;

use super::args::DurabilityArg;
use super::context::Context;
use super::excerpt;
use super::failure::{Exit, Failure};
use super::human;
use super::output::{print_json, shown_key};
use crate::client;
use crate::client::blocking::{Batch, Namespace};
use crate::proto::limits::MAX_FRAME_BYTES;
use crate::proto::{Condition, Fault, Seq};

/// Options of `put`.
#[derive(Debug, Args)]
pub(super) struct PutArgs {
    /// The namespace.
    #[arg(value_name = "NS")]
    namespace: String,
    /// The key; it may be empty.
    #[arg(value_name = "KEY")]
    key: String,
    /// The value as JSON text; `-` reads it from standard input.
    #[arg(value_name = "JSON", allow_hyphen_values = true)]
    pub(super) value: String,
    /// Only if there is no such record.
    #[arg(long, conflicts_with = "if_seq")]
    pub(super) if_absent: bool,
    /// Only if this Seq wrote the record that is there.
    #[arg(long, value_name = "SEQ")]
    pub(super) if_seq: Option<u64>,
    /// How durable the write must be before it is answered; less than the store has gives what the store has.
    #[arg(long, value_enum, value_name = "D")]
    durability: Option<DurabilityArg>,
}

/// Runs the command.
pub(super) fn run(args: &PutArgs, context: &Context) -> Result<(), Failure> {
    context.place(&args.namespace)?;
    let read;
    let value = if args.value == "-" {
        read = read_value()?;
        read.as_str()
    } else {
        args.value.as_str()
    };
    let (client, namespace) = context.namespace(&args.namespace)?;
    let condition = match (args.if_absent, args.if_seq) {
        (true, _) => Condition::IfAbsent,
        (false, Some(seq)) => Condition::IfSeq(Seq(seq)),
        (false, None) => Condition::Always,
    };
    let mut batch = Batch::new().put_raw_if(&namespace, &args.key, value, condition)?;
    if let Some(durability) = args.durability {
        batch = batch.durability(durability.into());
    }
    let written = client.write(&batch).map_err(|error| refused(error, args, &namespace, value))?;
    if context.json() {
        print_json(&json!({
            "seq": written.seq.0,
            "new": written.new,
            "found": written.found,
            "surrogates_removed": written.surrogates_removed,
        }))?;
    }
    let how = if written.new > 0 { "new" } else { "replaced" };
    context.talk(format_args!("{} {}: {how}, seq {}", namespace.place(), shown_key(&args.key), written.seq));
    if written.surrogates_removed > 0 {
        context.talk(human::surrogates_removed(written.surrogates_removed));
    }
    Ok(())
}

/// Reads the value from standard input. More than a frame could never be sent.
fn read_value() -> Result<String, Failure> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .lock()
        .take(MAX_FRAME_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::new(Exit::Unavailable, format_args!("reading standard input failed: {error}")))?;
    if bytes.len() > MAX_FRAME_BYTES {
        let text = format!("the value on standard input has more than {MAX_FRAME_BYTES} bytes: nothing was changed");
        return Err(Failure::new(Exit::Refused, text));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::new(
            Exit::Usage,
            format_args!("the value on standard input is not UTF-8 at byte {at}: nothing was changed"),
        )
    })
}

/// A refusal because of the value's text shows the place in it; one by the condition, what is there.
fn refused(error: client::Error, args: &PutArgs, namespace: &Namespace, value: &str) -> Failure {
    let offset = match &error {
        client::Error::Fault(Fault::InvalidJson { offset, .. }) => usize::try_from(*offset).unwrap_or(usize::MAX),
        client::Error::Fault(Fault::ConditionFailed { found, .. }) => {
            let (place, key) = (namespace.place(), shown_key(&args.key));
            let there =
                found.map_or_else(|| "has no record".into(), |seq| format!("has a record, written by seq {seq}"));
            let option = if args.if_absent { "--if-absent" } else { "--if-seq" };
            let text = format!("{place} {key} {there}: {option} refused the write, nothing was changed");
            return Failure::new(Exit::Refused, text);
        }
        _ => return error.into(),
    };
    let position = excerpt::position(value, offset.min(value.len()));
    let shown = excerpt::excerpt(value, offset.min(value.len()));
    Failure::from(error).and(format_args!(" (line {}, column {})\n{shown}", position.line, position.column))
}
