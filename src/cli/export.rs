//! `export NS FILE|-`: the records of a namespace in a file that Python's `json.load` reads, or as JSON lines.
//!
//! Where a daemon runs, it is asked for all records as they are at one moment. Where none runs, the store is opened here
//! to be read, under the owner lock, and nothing is changed in it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::json;

use super::args::NamespaceArgs;
use super::context::Context;
use super::failure::{Exit, Failure, exit_of_io};
use super::human::counted;
use super::output::{Out, print_json, push_record};
use super::sibling::{self, Sibling};
use super::{import, offline};
use crate::json::{FileFormat, FileWriter};

/// Options of `export`.
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    namespace: NamespaceArgs,
    /// The file; `-` writes to standard output.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// How to lay the records out; by default `lines` for a file named .jsonl or .ndjson, else `object`.
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<ExportFormat>,
}

/// How the records are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ExportFormat {
    /// One JSON object with a record a line, as `serve --file-format lines` writes it.
    Object,
    /// One JSON object, indented as Python's json.dump(indent=2) does, as `serve --file-format pretty` writes it.
    Pretty,
    /// One {"key":…,"value":…} a line.
    Lines,
}

/// Runs the command.
pub(super) fn run(args: &ExportArgs, context: &Context) -> Result<(), Failure> {
    let place = context.place(&args.namespace.name)?;
    context.check_directory()?;
    let format =
        args.format.unwrap_or(if import::named_lines(&args.file) { ExportFormat::Lines } else { ExportFormat::Object });
    let to_stdout = args.file == Path::new("-") || sibling::is_standard_output(&args.file);
    if !to_stdout {
        refuse_own_file(&args.file, context.store())?;
    }
    // The namespace is opened before the file is made, so that a refusal leaves nothing behind.
    let source = match context.namespace(&args.namespace) {
        Ok((_client, namespace)) => {
            let mut entries = namespace.get_all();
            let first = entries.next().transpose()?;
            Source(Box::new(first.into_iter().map(Ok).chain(entries).map(|entry| {
                let entry = entry?;
                Ok((entry.key, entry.value))
            })))
        }
        Err(failure) if failure.exit() == Exit::NoDaemon && !args.namespace.volatile => {
            Source(offline::records(context, &place)?)
        }
        Err(failure) => return Err(failure),
    };
    let progress = import::progress(context, None);
    let records = if to_stdout {
        let mut out = Out::new();
        let records = write(source, format, &mut |bytes| out.bytes(bytes))?;
        out.finish()?;
        records
    } else {
        let failed = |error: io::Error| write_failure(&args.file, &error);
        let mut sibling = Sibling::create(&args.file).map_err(failed)?;
        let records = write(source, format, &mut |bytes| {
            progress.inc(bytes.len() as u64);
            sibling.write_all(bytes).map_err(failed)
        })?;
        sibling.finish().map_err(failed)?;
        records
    };
    progress.finish_and_clear();
    if context.json() && !to_stdout {
        print_json(&json!({"records": records}))?;
    }
    context.talk(format_args!("{place}: {} exported", counted(records, "record", "records")));
    Ok(())
}

/// The records to export, in order.
struct Source(Box<dyn Iterator<Item = Result<(String, String), Failure>>>);

/// Lays the records out and hands them on, piece by piece; returns how many there were.
fn write(
    source: Source,
    format: ExportFormat,
    take: &mut dyn FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<u64, Failure> {
    let mut object = match format {
        ExportFormat::Object => Some(FileWriter::new(FileFormat::Lines)),
        ExportFormat::Pretty => Some(FileWriter::new(FileFormat::Pretty)),
        ExportFormat::Lines => None,
    };
    let mut piece = Vec::new();
    let mut records = 0;
    if let Some(object) = &mut object {
        object.begin(&mut piece);
    }
    for record in source.0 {
        let (key, value) = record?;
        match &mut object {
            Some(object) => object.record(&mut piece, &key, &value),
            None => push_record(&mut piece, &key, Some(&value), None),
        }
        take(&piece)?;
        piece.clear();
        records += 1;
    }
    if let Some(object) = &mut object {
        object.finish(&mut piece);
    }
    take(&piece)?;
    Ok(records)
}

/// Under a daemon that is writing it, or would take it for damage, no other hand may replace a namespace's file.
fn refuse_own_file(file: &Path, store: &Path) -> Result<(), Failure> {
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (Ok(parent), Ok(store)) = (parent.canonicalize(), store.canonicalize()) else { return Ok(()) };
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let beside = parent == store || parent.parent() == Some(&store);
    let own = beside && name.starts_with("kv_store_") && name.split('.').next_back() == Some("json");
    if own || parent.starts_with(store.join(".commonhold")) {
        let text = format!(
            "{} belongs to the store itself: export to another file, or use `commonhold flush`",
            file.display()
        );
        return Err(Failure::new(Exit::Usage, text));
    }
    Ok(())
}

fn write_failure(file: &Path, error: &io::Error) -> Failure {
    let exit = exit_of_io(error);
    // What went into a device or a pipe cannot be taken back.
    let kept = match std::fs::metadata(file) {
        Ok(found) if !found.is_file() && !found.is_dir() => "",
        _ => "; what was there before is as it was",
    };
    let text = format!("{} cannot be written: {error}{kept}", file.display());
    Failure::new(exit, text)
}
