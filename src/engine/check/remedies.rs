//! What can be done about a finding: command lines that exist, and which kept generation gives back how much.

use std::path::{Path, PathBuf};

use commonhold_proto::{Place, Seq};

use super::super::closing::{Closing, Why};
use super::super::disk::Kind;
use super::super::error::Error;
use super::super::journal::Fingerprint;
use super::super::store::Store;
use super::Finding;
use crate::json;

/// One thing that can be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remedy {
    /// What it comes to.
    pub what: String,
    /// The command that does it (`repair` shows what it would do until it is given `--yes`); none where a person must.
    pub command: Option<String>,
}

/// A kept generation of a namespace.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Kept {
    pub(in crate::engine) path: PathBuf,
    /// The number in its name.
    pub(in crate::engine) number: Seq,
    /// Another program had written it.
    pub(in crate::engine) foreign: bool,
}

impl Kept {
    /// How it is named to `repair --generation`.
    pub(in crate::engine) fn name(&self) -> String {
        if self.foreign { format!("{}.foreign", self.number) } else { self.number.to_string() }
    }
}

/// The kept generations of a namespace, newest first.
pub(in crate::engine) fn generations_of(store: &Store, place: &Place) -> Result<Vec<Kept>, Error> {
    let directory = store.layout.generations(place);
    let listed = match store.disk.list(&directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.map_err(Error::disk("list", &directory))?,
    };
    let kept = |name: &str| {
        let stem = name.strip_suffix(".json")?;
        let (number, foreign) = stem.strip_suffix(".foreign").map_or((stem, false), |number| (number, true));
        Some(Kept { path: directory.join(name), number: Seq(number.parse().ok()?), foreign })
    };
    let files = listed.iter().filter(|entry| entry.kind == Kind::File);
    let mut kept: Vec<Kept> = files.filter_map(|entry| kept(entry.name.to_str()?)).collect();
    kept.sort_by_key(|kept| std::cmp::Reverse((kept.number, !kept.foreign)));
    Ok(kept)
}

/// A command line for the store at `dir`, and for the workspace of `place` if it has one.
pub(in crate::engine) fn command(dir: &Path, place: Option<&Place>, rest: &str) -> String {
    let mut line = format!("commonhold --store {}", quoted(&dir.display().to_string()));
    if let Some(place) = place.filter(|place| !place.workspace.is_root()) {
        line = format!("{line} --workspace {}", quoted(place.workspace.as_str()));
    }
    format!("{line} {rest}")
}

fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+@%,:=".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Adds what can be done about a closed namespace.
pub(super) fn add(store: &Store, place: &Place, closing: &Closing, finding: &mut Finding) -> Result<(), Error> {
    let told = remedies(store, place, closing, finding.clone())?;
    *finding = told;
    Ok(())
}

fn remedies(store: &Store, place: &Place, closing: &Closing, mut finding: Finding) -> Result<Finding, Error> {
    let repair = |how: &str| command(store.dir(), Some(place), &format!("repair {} {how}", place.namespace));
    if let Why::Link { .. } | Why::LinkedWorkspace { .. } | Why::NotAFile = closing.why {
        return Ok(
            finding.remedy("put the namespace's own file there, a regular one, or move what is there out of the store")
        );
    }
    if let Why::NameClash { .. } = closing.why {
        return Ok(finding.remedy("move the file of one of the two out of the store, or give it another name"));
    }
    for kept in generations_of(store, place)?.iter().take(GENERATIONS_TOLD) {
        let bytes = store.disk.read(&kept.path).map_err(Error::disk("read", &kept.path))?;
        if json::load_object(&bytes, &mut |_, _| {}).is_err() {
            continue;
        }
        let what = what_it_gives_back(store, place, kept, &bytes);
        finding = finding.command(what, repair(&format!("--generation {}", kept.name())));
    }
    let waits = closing.waiting.is_some();
    let file = store.layout.namespace_file(place);
    match closing.why {
        Why::NotJson(_) => {
            let then = if waits { "and have the waiting writes applied to it" } else { "and start the daemon" };
            let what = format!("mend {} by hand at that place, {then}", file.display());
            finding = if waits { finding.command(what, repair("--apply journal")) } else { finding.remedy(what) };
            finding = finding.command(
                "give the file up: it is kept in generations, and the namespace begins with what the journal still holds",
                repair("--set-aside"),
            );
        }
        Why::Missing | Why::Gap { cut: None, .. } => {
            finding = finding
                .remedy(format!("put the right file back as {}, and start the daemon", file.display()))
                .command("begin without a file, and apply the waiting writes", repair("--apply journal"))
                .command("begin without a file, and set the waiting writes aside", repair("--keep file"));
        }
        Why::OtherFile => {
            finding = finding
                .remedy(format!("put the right file back as {}, and start the daemon", file.display()))
                .command("keep the file that is there, and apply the waiting writes to it", repair("--apply journal"))
                .command("keep the file that is there, and set the waiting writes aside", repair("--keep file"));
        }
        Why::Gap { cut: Some(_), .. } | Why::Quarantine { .. } | Why::OtherJournal { .. } => {
            finding = finding
                .command("keep the file, and apply to it what waits and can be read", repair("--apply journal"))
                .command("keep the file as it is, and set what waits aside", repair("--keep file"));
        }
        Why::Link { .. } | Why::LinkedWorkspace { .. } | Why::NotAFile | Why::NameClash { .. } => {}
    }
    Ok(finding)
}

/// A namespace may have many that other programs wrote.
const GENERATIONS_TOLD: usize = 5;

fn what_it_gives_back(store: &Store, place: &Place, kept: &Kept, bytes: &[u8]) -> String {
    let known = store.known(place).cut_of(Some(Fingerprint::of(bytes)));
    let complete = store.complete_above(place);
    let cut = known.or((!kept.foreign).then_some(kept.number));
    match cut {
        Some(cut) if cut >= complete => {
            format!(
                "take the file of sequence number {cut}, and apply all later writes that the journal knows. Do it before a daemon is started here: a start lets go of what no file waits for"
            )
        }
        Some(cut) => format!(
            "take the file of sequence number {cut}, and apply the later writes that are left: those from {} to {complete} are lost",
            cut.next()
        ),
        None => format!(
            "take the file of another program that was found at sequence number {}, and apply the waiting writes",
            kept.number
        ),
    }
}
