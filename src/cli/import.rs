//! `import NS FILE|-`: stores the records of a file of any length, in requests bounded by bytes and operations.
//!
//! A record that exists is replaced, so an import that failed midway can simply be repeated; how far it came is said.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use super::args::NamespaceArgs;
use super::context::Context;
use super::failure::{Exit, Failure, exit_of_io};
use super::human::{self, counted, number};
use super::output::{print_json, shown_key};
use super::records::{self, Layout, Records};
use crate::client;
use crate::client::blocking::{Batch, Client, Namespace};
use crate::proto::limits::{MAX_KEY_BYTES, MAX_VALUE_BYTES};
use crate::proto::{Condition, Seq};

/// A request is sent when it has about so many bytes of keys and values…
const BATCH_BYTES: usize = 2 * 1024 * 1024;
/// …or so many operations.
const BATCH_OPERATIONS: u64 = 2_000;

/// Options of `import`.
#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    #[command(flatten)]
    namespace: NamespaceArgs,
    /// The file; `-` reads standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// How the records are laid out; by default `lines` for a file named .jsonl or .ndjson, else `object`.
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<ImportFormat>,
}

/// How the records of a file are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ImportFormat {
    /// One JSON object whose members are the records, as in a namespace file.
    Object,
    /// One {"key":…,"value":…} a line.
    Lines,
}

/// Whether a file's name says that it holds a record a line.
pub(super) fn named_lines(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "jsonl" || extension == "ndjson")
}

/// What the daemon has acknowledged so far.
#[derive(Default)]
struct Stored {
    records: u64,
    new: u64,
    replaced: u64,
    seq: Seq,
}

/// Runs the command.
pub(super) fn run(args: &ImportArgs, context: &Context) -> Result<(), Failure> {
    context.place(&args.namespace.name)?;
    let (input, length) = open(&args.file)?;
    let (client, namespace) = context.namespace(&args.namespace)?;
    let layout = match args.format {
        Some(ImportFormat::Lines) => Layout::Lines,
        None if named_lines(&args.file) => Layout::Lines,
        Some(ImportFormat::Object) | None => Layout::Object,
    };
    let progress = progress(context, length);
    let mut records = Records::new(progress.wrap_read(input), layout);
    let mut stored = Stored::default();
    let loaded = load(&mut records, &client, &namespace, &mut stored, &name_of(&args.file));
    progress.finish_and_clear();
    // What was acknowledged is put on the platter even when the rest failed: that is what is said to be committed.
    let committed = if stored.records > 0 { client.commit().map(|_| ()).map_err(Failure::from) } else { Ok(()) };
    let count = counted(stored.records, "record", "records");
    match (loaded, committed) {
        (Ok(()), Ok(())) => {}
        (Ok(()), Err(failure)) => {
            return Err(failure.and(format_args!("; {count} stored, but not known to be on the platter")));
        }
        (Err(failure), Ok(())) => {
            let again = "importing the whole file again is safe, it replaces what is there";
            return Err(failure.and(format_args!("\n{count} before that committed; {again}")));
        }
        (Err(failure), Err(_)) => {
            return Err(failure.and(format_args!("\n{count} before that stored, but not known to be on the platter")));
        }
    }
    let surrogates = records.surrogates_removed();
    if context.json() {
        print_json(&json!({
            "records": stored.records,
            "new": stored.new,
            "found": stored.replaced,
            "seq": stored.seq.0,
            "surrogates_removed": surrogates,
        }))?;
    }
    let (new, replaced) = (number(stored.new), number(stored.replaced));
    context.talk(format_args!("{}: {count} committed ({new} new, {replaced} replaced)", namespace.place()));
    if surrogates > 0 {
        context.talk(human::surrogates_removed(surrogates));
    }
    Ok(())
}

fn load<R: Read>(
    records: &mut Records<R>,
    client: &Client,
    namespace: &Namespace,
    stored: &mut Stored,
    name: &str,
) -> Result<(), Failure> {
    loop {
        let mut batch = Batch::new();
        let (mut operations, mut bytes) = (0, 0);
        let mut end = None;
        while end.is_none() && operations < BATCH_OPERATIONS && bytes < BATCH_BYTES {
            let mut refused = None;
            let more = records.next(&mut |key, value| {
                refused = check(key, value).or_else(|| put(&mut batch, namespace, key, value).err().map(Failure::from));
                bytes += key.len() + value.len();
                operations += 1;
            });
            if refused.is_some() {
                operations -= 1; // it was not taken into the batch
            }
            end = match (more, refused) {
                (Ok(true), None) => None,
                (Ok(false), None) => Some(Ok(())),
                (Err(error), _) => Some(Err(unreadable(error, name))),
                (Ok(_), Some(failure)) => {
                    let at = records.last();
                    Some(Err(failure.and(format_args!(" (record at {name}, line {}, column {})", at.line, at.column))))
                }
            };
        }
        if operations > 0 {
            let written = client.write(&batch).map_err(|error| unknown(error, operations))?;
            stored.records += operations;
            stored.new += written.new;
            stored.replaced += written.found;
            stored.seq = written.seq;
        }
        if let Some(end) = end {
            return end;
        }
    }
}

fn put(batch: &mut Batch, namespace: &Namespace, key: &str, value: &str) -> Result<(), client::Error> {
    *batch = std::mem::take(batch).put_raw_if(namespace, key, value, Condition::Always)?;
    Ok(())
}

/// A record over a limit is refused here, where its place in the file is known, and before its batch is sent.
fn check(key: &str, value: &str) -> Option<Failure> {
    let too_long = |what: &str, bytes: usize, limit: usize| {
        let key = shown_key(key);
        let text = format!("the {what} of record {key} has {bytes} bytes, the limit is {limit}");
        Some(Failure::new(Exit::Refused, text))
    };
    match (key.len(), value.len()) {
        (bytes, _) if bytes > MAX_KEY_BYTES => too_long("key", bytes, MAX_KEY_BYTES),
        (_, bytes) if bytes > MAX_VALUE_BYTES => too_long("value", bytes, MAX_VALUE_BYTES),
        _ => None,
    }
}

/// A batch whose answer was lost may have been stored; how many records that concerns is said.
fn unknown(error: client::Error, operations: u64) -> Failure {
    let failure = Failure::from(error);
    if failure.exit() == Exit::OutcomeUnknown {
        return failure.and(format_args!(" (this concerns {})", counted(operations, "record", "records")));
    }
    failure
}

fn unreadable(error: records::Error, name: &str) -> Failure {
    match error {
        records::Error::Read(error) => Failure::new(Exit::Unavailable, format_args!("reading {name} failed: {error}")),
        records::Error::Invalid { at, reason, excerpt } => Failure::new(
            Exit::Usage,
            format_args!("{name}, line {}, column {} (byte {}): {reason}\n{excerpt}", at.line, at.column, at.offset),
        ),
    }
}

fn name_of(file: &Path) -> String {
    if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() }
}

/// Opens the input and tells its length if it has one.
fn open(file: &Path) -> Result<(Box<dyn Read>, Option<u64>), Failure> {
    if file == Path::new("-") {
        return Ok((Box::new(io::stdin().lock()), None));
    }
    let failed = |error: io::Error| {
        let exit = exit_of_io(&error);
        Failure::new(exit, format_args!("{} cannot be read: {error}; nothing was stored", file.display()))
    };
    let opened = File::open(file).map_err(failed)?;
    let found = opened.metadata().map_err(failed)?;
    if found.is_dir() {
        let text = format!("{} is a directory, a file was expected; nothing was stored", file.display());
        return Err(Failure::new(Exit::Usage, text));
    }
    Ok((Box::new(opened), found.is_file().then_some(found.len())))
}

/// A bar on a terminal; nothing elsewhere.
pub(super) fn progress(context: &Context, length: Option<u64>) -> ProgressBar {
    if context.quiet() || context.json() {
        return ProgressBar::with_draw_target(length, ProgressDrawTarget::hidden());
    }
    // indicatif draws on a terminal alone.
    let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr());
    let template = if length.is_some() {
        "{bar:30} {binary_bytes}/{binary_total_bytes}  {binary_bytes_per_sec}  {eta} left"
    } else {
        "{spinner} {binary_bytes}  {binary_bytes_per_sec}"
    };
    bar.with_style(ProgressStyle::with_template(template).expect("the template is a constant that was tried"))
}
