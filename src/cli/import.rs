//! `import NS FILE|-`: stores the records of a file of any length, in requests bounded by bytes and operations, several of
//! them on their way at once.
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
use crate::client::blocking::BulkWriter;
use crate::proto::limits::{MAX_KEY_BYTES, MAX_VALUE_BYTES};

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

/// Why an import ended before the end of its input.
enum Stopped {
    /// The input is not what it should be; what came before it is good.
    Input(Failure),
    /// The daemon, or the connection to it.
    Daemon(client::Error),
}

/// Runs the command.
pub(super) fn run(args: &ImportArgs, context: &Context) -> Result<(), Failure> {
    context.place(&args.namespace.name)?;
    let (input, length) = open(&args.file)?;
    let (_client, namespace) = context.namespace(&args.namespace)?;
    let layout = match args.format {
        Some(ImportFormat::Lines) => Layout::Lines,
        None if named_lines(&args.file) => Layout::Lines,
        Some(ImportFormat::Object) | None => Layout::Object,
    };
    let progress = progress(context, length);
    let mut records = Records::new(progress.wrap_read(input), layout);
    let mut writer = namespace.bulk_writer();
    let mut given = 0;
    let loaded = load(&mut records, &mut writer, &mut given, &name_of(&args.file));
    // What came before a mistake in the input is stored all the same, and put on the platter.
    let committed = match &loaded {
        Ok(()) | Err(Stopped::Input(_)) => writer.commit().map(|_| ()),
        Err(Stopped::Daemon(_)) => Ok(()),
    };
    progress.finish_and_clear();
    let done = writer.committed();
    let count = counted(done.records, "record", "records");
    let stored = writer.stored().records - done.records;
    let more = if stored > 0 { format!(" and {} more stored", number(stored)) } else { String::new() };
    let before = format!(
        "{count} before that committed{more}; importing the whole file again is safe, it replaces what is there"
    );
    match (loaded, committed) {
        (Ok(()), Ok(())) => {}
        (Err(Stopped::Input(failure)), Ok(())) => return Err(failure.and(format_args!("\n{before}"))),
        (Err(Stopped::Input(failure)), Err(error)) => {
            return Err(failure.and(format_args!("\n{error}\n{before}")));
        }
        (Ok(()), Err(error)) | (Err(Stopped::Daemon(error)), _) => {
            return Err(unknown(error, given - writer.stored().records).and(format_args!("\n{before}")));
        }
    }
    let surrogates = records.surrogates_removed();
    if context.json() {
        print_json(&json!({
            "records": done.records,
            "new": done.new,
            "found": done.found,
            "seq": done.seq.0,
            "surrogates_removed": surrogates,
        }))?;
    }
    let (new, replaced) = (number(done.new), number(done.found));
    context.talk(format_args!("{}: {count} committed ({new} new, {replaced} replaced)", namespace.place()));
    if surrogates > 0 {
        context.talk(human::surrogates_removed(surrogates));
    }
    Ok(())
}

/// Hands all records to the writer, and counts those that it took.
fn load<R: Read>(
    records: &mut Records<R>,
    writer: &mut BulkWriter,
    given: &mut u64,
    name: &str,
) -> Result<(), Stopped> {
    loop {
        let mut refused = None;
        let more = records.next(&mut |key, value| {
            refused = check(key, value).map(Stopped::Input).or_else(|| {
                let put = writer.put_raw(key, value).err().map(Stopped::Daemon);
                *given += u64::from(put.is_none());
                put
            });
        });
        match (more, refused) {
            (Err(error), _) => return Err(Stopped::Input(unreadable(error, name))),
            (Ok(_), Some(Stopped::Input(failure))) => {
                let at = records.last();
                let place = format!(" (record at {name}, line {}, column {})", at.line, at.column);
                return Err(Stopped::Input(failure.and(place)));
            }
            (Ok(_), Some(stopped)) => return Err(stopped),
            (Ok(true), None) => {}
            (Ok(false), None) => return Ok(()),
        }
    }
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

/// Records whose answers were lost may have been stored; how many that concerns is said.
fn unknown(error: client::Error, records: u64) -> Failure {
    let failure = Failure::from(error);
    if failure.exit() == Exit::OutcomeUnknown {
        return failure.and(format_args!(" (this concerns {})", counted(records, "record", "records")));
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
