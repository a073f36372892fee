//! `check`: what is wrong with a store that no daemon owns, what follows from it, and what can be done. It reads and
//! changes nothing.
//!
//! What a start would make of journal and files is asked of the code that a start runs, on a disk that refuses every
//! change, so that the two cannot disagree. [`namespaces`] looks at the files that users see, [`private`] at what lies in
//! `.commonhold`, [`journal`] tells what a damaged journal would lose, [`remedies`] knows which command settles what, and [`taken`] what can be done
//! about files that are served as they were found.

mod journal;
mod namespaces;
mod private;
mod remedies;
mod taken;

use std::path::{Path, PathBuf};

use commonhold_proto::Place;

use super::closing::Closing;
use super::disk::Disk;
use super::error::Error;
use super::journal::Reading;
use super::layout::Layout;
use super::store::{Store, Surroundings};

pub(super) use journal::{names as names_of_segments, what_a_cut_loses};
pub use remedies::Remedy;
pub(super) use remedies::{Kept, flush_command, generations_of, repair_command};

use remedies::command;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As it should be, or put right by the next start; it deserves to be known.
    Note,
    /// The store and the namespace are served, but something may be other than was meant.
    Warning,
    /// The store does not start, a namespace is not served, or something is lost.
    Error,
}

/// Something that was found.
#[derive(Clone, Debug)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// A word that stays the same, for programs; `docs/cli.md` lists them.
    pub kind: &'static str,
    /// The namespace concerned.
    pub place: Option<Place>,
    /// The file concerned.
    pub file: PathBuf,
    /// From which byte of it on.
    pub offset: Option<u64>,
    /// Line and column, counted from 1, where it is text.
    pub line: Option<(u64, u64)>,
    /// What is the case.
    pub what: String,
    /// What follows from it.
    pub consequence: String,
    /// What can be done, the best first.
    pub remedies: Vec<Remedy>,
}

impl Finding {
    fn new(severity: Severity, kind: &'static str, file: impl Into<PathBuf>, what: impl Into<String>) -> Self {
        Self {
            severity,
            kind,
            place: None,
            file: file.into(),
            offset: None,
            line: None,
            what: what.into(),
            consequence: String::new(),
            remedies: Vec::new(),
        }
    }

    fn of(self, place: &Place) -> Self {
        Self { place: Some(place.clone()), ..self }
    }

    fn so(self, consequence: impl Into<String>) -> Self {
        Self { consequence: consequence.into(), ..self }
    }

    fn remedy(mut self, what: impl Into<String>) -> Self {
        self.remedies.push(Remedy { what: what.into(), command: None });
        self
    }

    fn command(mut self, what: impl Into<String>, command: String) -> Self {
        self.remedies.push(Remedy { what: what.into(), command: Some(command) });
        self
    }
}

/// What a check found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The worst first, and of one severity in the order of journal, namespaces, other files.
    pub findings: Vec<Finding>,
    /// Namespaces that were looked at.
    pub namespaces: u64,
    /// Records that were read, in a deep check.
    pub records: Option<u64>,
    /// Kept generations that were read, in a deep check.
    pub generations: Option<u64>,
}

impl Report {
    /// How many findings there are of a severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }
}

/// What ails a namespace.
enum Unsettled {
    Closed(Closing),
    /// It is served with another file than the journal knows, or without one.
    Taken,
}

/// One run of a check.
struct Check<'a> {
    layout: Layout,
    disk: &'a dyn Disk,
    deep: bool,
    report: Report,
    /// What is closed or served as it was found, by index of its finding: what can be done about it is found out at the end.
    unsettled: Vec<(usize, Place, Unsettled)>,
}

/// Checks the store at `dir`, which no daemon may own. `deep` reads every namespace file and every kept generation,
/// compares them with the hashes that the journal knows, and replays the journal.
///
/// # Errors
/// [`Error::Owned`], [`Error::NotADirectory`], [`Error::Disk`] where so much cannot be read that nothing can be told.
pub fn check(dir: &Path, deep: bool, around: Surroundings) -> Result<Report, Error> {
    let disk = around.disk.clone();
    let layout = Layout::new(dir);
    let mut check = Check { layout, disk: &*disk, deep, report: Report::default(), unsettled: Vec::new() };
    if deep {
        (check.report.records, check.report.generations) = (Some(0), Some(0));
    }
    let mut reading = Reading::Whole;
    let store = match Store::open_read_only(dir, around.clone()) {
        Ok(store) => store,
        Err(Error::Damage { file, offset, reason }) => {
            reading = Reading::Cut;
            let store = Store::open_read_only_reading(dir, around.clone(), reading)?;
            check.journal_damage(&store, file, offset, &reason);
            store
        }
        Err(Error::NewerFormat { file, version, known }) => {
            check.newer_format(file, version, known);
            return Ok(check.report);
        }
        Err(error) => return Err(error),
    };
    check.journal(&store);
    check.namespaces(&store)?;
    check.private_files(&store)?;
    drop(store);
    if !check.unsettled.is_empty() {
        // A start lets go of what nothing waits for, and a repair looks at it first: it may give back more.
        let store = Store::open_read_only_reading(dir, around, reading)?;
        for (index, place, ailment) in std::mem::take(&mut check.unsettled) {
            let finding = &mut check.report.findings[index];
            match ailment {
                Unsettled::Closed(closing) => remedies::add(&store, &place, &closing, finding)?,
                Unsettled::Taken => taken::add(&store, &place, finding)?,
            }
        }
    }
    if reading == Reading::Cut {
        for finding in
            check.report.findings.iter_mut().filter(|finding| finding.remedies.iter().any(|r| r.command.is_some()))
        {
            if finding.place.is_some() {
                finding.consequence =
                    format!("when the journal is cut, which is to be settled first: {}", finding.consequence);
            }
        }
    }
    check.report.findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    Ok(check.report)
}
