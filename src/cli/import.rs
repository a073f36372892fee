//! `import NS FILE|-`: stores the records of a file of any length, in requests bounded by bytes and operations, several of
//! them on their way at once.
//!
//! A record that exists is replaced, so an import that failed midway can simply be repeated; how far it came is said.

use std::collections::VecDeque;
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
use super::records::{self, At, Layout, Records};
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
    let name = name_of(&args.file);
    let mut records = Records::new(progress.wrap_read(input), layout);
    let mut writer = namespace.bulk_writer();
    let mut given = Given::default();
    let looked = records.look_ahead(args.format.is_some()).map_err(|error| Stopped::Input(unreadable(error, &name)));
    let loaded = looked.and_then(|()| load(&mut records, &mut writer, &mut given, &name));
    // What came before a mistake in the input is stored all the same, and put on the platter.
    let committed = match &loaded {
        Ok(()) | Err(Stopped::Input(_)) => writer.commit().map(|_| ()),
        Err(Stopped::Daemon(_)) => Ok(()),
    };
    progress.finish_and_clear();
    let done = writer.committed();
    let count = counted(done.records, "record", "records");
    let more = writer.stored().records - done.records;
    given.settle(writer.stored().records);
    let before = if writer.stored().records == 0 && given.places.is_empty() {
        "\nnothing was stored".to_owned()
    } else {
        let more = if more > 0 { format!(" and {} more stored", number(more)) } else { String::new() };
        format!(
            "\n{count} before that committed{more}; importing the whole file again is safe, it replaces what is there"
        )
    };
    match (loaded, committed) {
        (Ok(()), Ok(())) => {}
        (Err(Stopped::Input(failure)), Ok(())) => return Err(failure.and(&before)),
        (Err(Stopped::Input(failure)), Err(error)) => {
            return Err(failure.and(format_args!("\n{}", not_stored(error, &given, &name))).and(&before));
        }
        (Ok(()), Err(error)) | (Err(Stopped::Daemon(error)), _) => {
            return Err(not_stored(error, &given, &name).and(&before));
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
    let how = if args.namespace.volatile { "stored in memory" } else { "committed" };
    context.talk(format_args!("{}: {count} {how} ({new} new, {replaced} replaced)", namespace.place()));
    if surrogates > 0 {
        context.talk(human::surrogates_removed(surrogates));
    }
    Ok(())
}

/// The records that the writer took and that are not known to be stored, by their places in the input, oldest first.
#[derive(Default)]
struct Given {
    places: VecDeque<At>,
    stored: u64,
    /// A record that the writer did not take, because one before it had failed.
    left: Option<At>,
}

impl Given {
    /// So many of all that the writer took are stored.
    fn settle(&mut self, stored: u64) {
        let more = usize::try_from(stored - self.stored).expect("no more than are kept here");
        self.places.drain(..more);
        self.stored = stored;
    }
}

/// Hands all records to the writer, and notes where those lie that it took.
fn load<R: Read>(
    records: &mut Records<R>,
    writer: &mut BulkWriter,
    given: &mut Given,
    name: &str,
) -> Result<(), Stopped> {
    loop {
        let mut refused = None;
        let more = records.next(&mut |key, value| {
            refused =
                check(key, value).map(Stopped::Input).or_else(|| writer.put_raw(key, value).err().map(Stopped::Daemon));
        });
        match (more, refused) {
            (Err(error), _) => return Err(Stopped::Input(unreadable(error, name))),
            (Ok(_), Some(Stopped::Input(failure))) => {
                let at = records.last();
                let place = format!(" (record at {name}, line {}, column {})", at.line, at.column);
                return Err(Stopped::Input(failure.and(place)));
            }
            (Ok(_), Some(stopped)) => {
                given.left = Some(records.last());
                return Err(stopped);
            }
            (Ok(true), None) => {
                given.places.push_back(records.last());
                given.settle(writer.stored().records);
            }
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

/// A failure of the daemon's with the place of the first record that it kept from being stored. Records whose answers were
/// lost may have been stored; how many that concerns is said.
fn not_stored(error: client::Error, given: &Given, name: &str) -> Failure {
    let failure = Failure::from(error);
    let Some(first) = given.places.front().or(given.left.as_ref()) else { return failure };
    let place = format!("{name}, line {}, column {}", first.line, first.column);
    if failure.exit() == Exit::OutcomeUnknown {
        let records = counted(given.places.len() as u64, "record", "records");
        return failure.and(format_args!(" (this concerns {records}, the first at {place})"));
    }
    failure.and(format_args!(" (the first record that is not stored: {place})"))
}

fn unreadable(error: records::Error, name: &str) -> Failure {
    match error {
        records::Error::Read(error) => Failure::new(exit_of_io(&error), format_args!("reading {name} failed: {error}")),
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
