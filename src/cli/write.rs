//! What the commands that write one record have in common: their options, the values they read, and how they tell what
//! became of the write.

use std::io::{self, Read as _};

use clap::Args;
use serde_json::json;

use super::args::{DurabilityArg, NamespaceArgs};
use super::context::Context;
use super::excerpt;
use super::failure::{Exit, Failure, exit_of_io};
use super::human;
use super::numbers;
use super::output::{print_json, shown_key};
use crate::client;
use crate::client::blocking::{Batch, Namespace};
use crate::json;
use crate::proto::limits::MAX_FRAME_BYTES;
use crate::proto::{Condition, Fault, Seq};

/// Which record is written.
#[derive(Debug, Args)]
pub(super) struct KeyArgs {
    #[command(flatten)]
    pub(super) namespace: NamespaceArgs,
    /// The key; it may be empty.
    #[arg(value_name = "KEY", value_parser = numbers::unmarked)]
    pub(super) key: String,
}

/// On which conditions, and how durably.
#[derive(Debug, Args)]
pub(super) struct WriteArgs {
    /// Only if there is no such record.
    #[arg(long, conflicts_with = "if_seq")]
    pub(super) if_absent: bool,
    /// Only if this Seq wrote the record that is there.
    #[arg(long, value_name = "SEQ")]
    pub(super) if_seq: Option<u64>,
    /// Only while the lock with this fencing token is held, by whomever; `lock` gives it to its command as `COMMONHOLD_TOKEN`.
    #[arg(long, value_name = "TOKEN")]
    if_token: Option<u64>,
    /// How durable the write must be before it is answered; less than the store has gives what the store has.
    #[arg(long, value_enum, value_name = "D")]
    durability: Option<DurabilityArg>,
}

impl WriteArgs {
    /// What must hold of the record.
    fn condition(&self) -> Condition {
        match (self.if_absent, self.if_seq) {
            (true, _) => Condition::IfAbsent,
            (false, Some(seq)) => Condition::IfSeq(Seq(seq)),
            (false, None) => Condition::Always,
        }
    }
}

/// Writes the one operation that `build` puts into an empty batch, and tells what became of it. `value` is the JSON text
/// in it that the daemon may find fault with.
pub(super) fn run(
    context: &Context,
    target: &KeyArgs,
    args: &WriteArgs,
    value: &str,
    build: impl FnOnce(Batch, &Namespace, Condition) -> Result<Batch, client::Error>,
) -> Result<(), Failure> {
    let (client, namespace) = context.namespace(&target.namespace)?;
    let mut batch = build(Batch::new(), &namespace, args.condition())?;
    if let Some(durability) = args.durability {
        batch = batch.durability(durability.into());
    }
    if let Some(token) = args.if_token {
        batch = batch.if_token(token);
    }
    let written = client.write(&batch).map_err(|error| refused(error, args, &namespace, &target.key, value))?;
    if context.json() {
        print_json(&json!({
            "seq": written.seq.0,
            "new": written.new,
            "found": written.found,
            "surrogates_removed": written.surrogates_removed,
        }))?;
    }
    let how = if written.new > 0 { "new" } else { "replaced" };
    context.talk(format_args!("{} {}: {how}, seq {}", namespace.place(), shown_key(&target.key), written.seq));
    if written.surrogates_removed > 0 {
        context.talk(human::surrogates_removed(written.surrogates_removed));
    }
    Ok(())
}

/// The value that was typed; `-` stands for standard input.
pub(super) fn value(typed: &str) -> Result<String, Failure> {
    if typed == "-" { read_value() } else { Ok(typed.to_owned()) }
}

/// A value that must be an object: where it is another one, that is said before anything is sent. What is no JSON at all
/// the daemon finds fault with.
pub(super) fn object(typed: &str, what: &str) -> Result<String, Failure> {
    let text = value(typed)?;
    if json::canonical(&text).is_ok_and(|canonical| !canonical.text.starts_with('{')) {
        return Err(Failure::new(Exit::Usage, format_args!("{what} must be a JSON object; nothing was changed")));
    }
    Ok(text)
}

/// A value that is put together with others before it is sent: that each is one JSON text is checked here.
pub(super) fn checked_value(typed: &str, what: &str) -> Result<String, Failure> {
    let text = value(typed)?;
    if let Err(error) = json::canonical(&text) {
        let failure =
            Failure::new(Exit::Usage, format_args!("{what} is not JSON: {}; nothing was changed", error.reason()));
        return Err(failure.and(place(&text, error.offset)));
    }
    Ok(text)
}

/// Reads the value from standard input. More than a frame could never be sent.
fn read_value() -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let failed = |error: io::Error| {
        let text = format!("reading standard input failed: {error}; nothing was changed");
        Failure::new(exit_of_io(&error), text)
    };
    std::io::stdin().lock().take(MAX_FRAME_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
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

/// Where in a text something is wrong: line and column, and the text around them.
fn place(text: &str, offset: usize) -> String {
    let offset = offset.min(text.len());
    let position = excerpt::position(text, offset);
    format!(" (line {}, column {})\n{}", position.line, position.column, excerpt::excerpt(text, offset))
}

/// A refusal in the words of a command that writes one record: because of the value's text it shows the place in it, by
/// a condition what is there.
fn refused(error: client::Error, args: &WriteArgs, namespace: &Namespace, key: &str, value: &str) -> Failure {
    let (at, key) = (namespace.place(), shown_key(key));
    let fault = match error {
        client::Error::Fault(fault) => fault,
        other => return other.into(),
    };
    match &fault {
        Fault::InvalidJson { offset, .. } => {
            let offset = usize::try_from(*offset).unwrap_or(usize::MAX);
            Failure::from(client::Error::Fault(fault)).and(place(value, offset))
        }
        Fault::ConditionFailed { found, .. } => {
            let there =
                found.map_or_else(|| "has no record".into(), |seq| format!("has a record, written by seq {seq}"));
            let option = if args.if_absent { "--if-absent" } else { "--if-seq" };
            let text = format!("{at} {key} {there}: {option} refused the write, nothing was changed");
            Failure::new(Exit::Refused, text)
        }
        Fault::WrongType { field, needed, found, .. } => {
            let what = field.as_ref().map_or_else(|| "the value".to_owned(), |field| format!("field {field:?}"));
            let text = format!("{at} {key}: {what} must be {needed}, but {found}; nothing was changed");
            Failure::new(Exit::Refused, text)
        }
        Fault::Overflow { field, .. } => {
            let text = format!(
                "{at} {key}: field {field:?} holds, or would come to, an integer beyond 64 bits or a float that is not finite; nothing was changed. Put another number there: a float, as 1e19, holds more with less exactness"
            );
            Failure::new(Exit::Refused, text)
        }
        _ => client::Error::Fault(fault).into(),
    }
}
