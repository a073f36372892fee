//! `drop NS`: removes a namespace with its file, as if there had never been one.
//!
//! It does not ask back, as `DROP TABLE` and `FLUSHDB` do not. What can be had back is said instead: the last file that
//! was written, if it stays among the generations.

use std::fs::{File, Metadata};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::args::NamespaceArgs;
use super::context::Context;
use super::failure::{Exit, Failure};
use super::human::counted;
use super::output::print_json;
use crate::engine::Layout;
use crate::proto::{NamespaceInfo, Place};

/// Options of `drop`.
#[derive(Debug, Args)]
pub(super) struct DropArgs {
    #[command(flatten)]
    namespace: NamespaceArgs,
}

/// Runs the command.
pub(super) fn run(args: &DropArgs, context: &Context) -> Result<(), Failure> {
    let (client, namespace) = context.namespace(&args.namespace)?;
    let place = namespace.place();
    let is_it =
        |info: &NamespaceInfo| info.workspace == place.workspace.as_str() && info.namespace == place.namespace.as_str();
    let Some(before) = client.namespaces()?.into_iter().find(is_it) else {
        return Err(Failure::new(Exit::NotFound, format_args!("there is no namespace {place}; nothing was dropped")));
    };
    let file = present_file(context, place);
    let dropped = namespace.drop_namespace()?;
    let kept = file.and_then(|file| last_kept(context, place, &file));
    if context.json() {
        let kept = kept.as_ref().map(|path| path.display().to_string());
        print_json(&json!({"seq": dropped.seq.0, "records": dropped.records, "kept": kept}))?;
    }
    let records = counted(dropped.records, "record", "records");
    context.talk(format_args!("{place}: dropped with {records}, seq {}", dropped.seq));
    match kept {
        Some(path) if before.dirty => context.talk(format_args!(
            "its last file is kept as {}; what had been written since that file's flush is gone",
            path.display()
        )),
        Some(path) => context.talk(format_args!("its last file is kept as {}", path.display())),
        None => {}
    }
    Ok(())
}

/// The namespace's file as it is before the drop: what the daemon keeps is told only if it is this one.
fn present_file(context: &Context, place: &Place) -> Option<File> {
    let path = Layout::new(context.store()).namespace_file(place);
    // What is no regular file is not kept, and opening it might wait for ever.
    std::fs::symlink_metadata(&path).ok().filter(Metadata::is_file)?;
    File::open(path).ok()
}

/// The newest file of the namespace that the daemon keeps, if it is the one that was dropped: with `--keep 0` none is, and
/// older files and those of other programs may lie there all the same.
fn last_kept(context: &Context, place: &Place, dropped: &File) -> Option<PathBuf> {
    let directory = Layout::new(context.store()).generations(place);
    // Names begin with the Seq of the file's cut, in 20 digits. What cannot be listed or read is not told.
    let listed = std::fs::read_dir(directory).ok()?.filter_map(Result::ok);
    let newest = listed.map(|entry| entry.path()).max_by(|a, b| a.file_name().cmp(&b.file_name()))?;
    is_same(dropped, &File::open(&newest).ok()?).ok()?.then_some(newest)
}

/// Whether both hold the same bytes. The daemon links what it keeps where it can, and copies it elsewhere.
fn is_same(one: &File, other: &File) -> io::Result<bool> {
    let (first, second) = (one.metadata()?, other.metadata()?);
    if (first.dev(), first.ino()) == (second.dev(), second.ino()) {
        return Ok(true);
    }
    if first.len() != second.len() {
        return Ok(false);
    }
    let mut bytes = BufReader::new(other).bytes();
    for byte in BufReader::new(one).bytes() {
        if bytes.next().transpose()? != Some(byte?) {
            return Ok(false);
        }
    }
    Ok(bytes.next().is_none())
}
