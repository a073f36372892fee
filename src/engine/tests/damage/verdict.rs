//! What must be so after a blow: a check changes nothing and agrees with the start; what was acknowledged is read, or it is told
//! what is not; what is there stays there; no Seq is given again; and what was put out of place can be put back.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::rig::{DIR, Rig, contents, place};
use super::blow::{Blow, file_of, take_over};
use super::remedy::remedied;
use super::stores::{Lived, NAMES, Records, private};
use crate::engine::disk::SimDisk;
use crate::engine::{Error, Finding, Report, Severity, Store, Surroundings, check};
use crate::lock::MemoryLocks;

/// What became of the cases.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    /// The store did not start, and said why.
    refused: u64,
    /// It started with namespaces closed.
    closed: u64,
    /// It started, with something older or something else, and said so.
    told: u64,
    /// Only `check` tells that something is not what it was.
    told_by_check: u64,
    /// Nothing can tell.
    untold: u64,
    /// Everything was there.
    whole: u64,
    /// Remedies that were carried out.
    pub(super) remedies: u64,
}

impl Counts {
    pub(super) fn add(&mut self, more: Self) {
        self.refused += more.refused;
        self.closed += more.closed;
        self.told += more.told;
        self.told_by_check += more.told_by_check;
        self.untold += more.untold;
        self.whole += more.whole;
        self.remedies += more.remedies;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { refused, closed, told, told_by_check, untold, whole, remedies } = self;
        write!(
            f,
            "{refused} refused to start, {closed} started with namespaces closed, {told} told what is not there, {told_by_check} \
             are told by check alone, {untold} cannot be told, {whole} had everything; {remedies} remedies carried out"
        )
    }
}

pub(super) fn around(disk: &SimDisk, lived: &Lived) -> Surroundings {
    let rig = rig(disk, lived);
    // Not the number that the store began with: a journal that is begun anew is another one.
    let entropy = 77;
    Surroundings {
        disk: Arc::new(disk.clone()),
        locks: Arc::new(MemoryLocks::new()),
        clock: Arc::new(rig.clock.clone()),
        entropy,
    }
}

/// The next owner's, not open yet.
pub(super) fn rig(disk: &SimDisk, lived: &Lived) -> Rig {
    let mut rig = Rig::on(disk.clone(), lived.options.clone());
    rig.entropy = 77;
    rig
}

/// Every file with its bytes, and every directory.
pub(super) fn all_of(disk: &SimDisk) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let mut found = Vec::new();
    for path in disk.all_files() {
        let is_file = disk.stat_of(&path).is_some_and(|stat| stat.kind == crate::engine::disk::Kind::File);
        let bytes = is_file.then(|| disk.read_file(&path));
        found.push((path, bytes));
    }
    found
}

/// What `check` says, which changes nothing.
pub(super) fn checked(disk: &SimDisk, lived: &Lived, deep: bool) -> Result<Report, Error> {
    let before = all_of(disk);
    let report = check(Path::new(DIR), deep, around(disk, lived));
    assert!(all_of(disk) == before, "a check changes nothing");
    for finding in report.iter().flat_map(|report| &report.findings) {
        assert!(!finding.what.is_empty() && !finding.consequence.is_empty(), "{finding:?}");
        assert!(finding.severity < Severity::Error || !finding.remedies.is_empty(), "what can be done? {finding:?}");
    }
    report
}

type Found = BTreeMap<&'static str, Result<Records, String>>;

pub(super) fn all_found(store: &Store) -> Found {
    let of = |name| match store.namespace(&place(name)) {
        Ok(table) => Ok(contents(&table)),
        Err(error) => {
            names_something(&error);
            Err(error.to_string())
        }
    };
    NAMES.into_iter().map(|name| (name, of(name))).collect()
}

/// An error names a file, or the namespace.
fn names_something(error: &Error) {
    let text = error.to_string();
    assert!(text.contains(DIR) || text.contains("namespace"), "{text}");
}

/// What a report tells of the namespace, or of the journal that it lies in.
fn is_told_by(report: &Report, name: &str) -> bool {
    let of_journal = ["journal_damage", "journal_gone", "journal_end_gone", "journal_tail", "newer_format"];
    let tells = |finding: &Finding| {
        of_journal.contains(&finding.kind)
            || finding.severity > Severity::Note && finding.place.as_ref().is_none_or(|told| *told == place(name))
    };
    report.findings.iter().any(tells)
}

/// What a start tells: in its opening, or of what it holds and has taken as it found it.
fn is_told_by_start(store: &Store, name: &str) -> bool {
    let opening = store.opening();
    opening.set_aside.is_some()
        || opening.journal_is_gone
        || opening.journal_ends_at.is_some()
        || store.held().iter().any(|(held, _)| *held == place(name))
        || store.taken_as_found().contains(&place(name))
}

/// Cases in which every trace of what is gone is gone with it; `docs/storage.md` names them.
pub(super) fn cannot_be_told(blow: &Blow, lived: &Lived) -> bool {
    let newest = rig(&lived.disk, lived).segments().pop().expect("every store has a journal");
    let (journal, all) = (private("journal"), private(""));
    let is_wholesale = |path: &Path| path == journal || path == all.as_path() || path == all.parent().unwrap();
    match blow {
        // Between two records, with nothing behind them.
        Blow::Cut(path, _) | Blow::Zeros(path, _) => *path == newest,
        Blow::Gone(paths) => paths.contains(&newest) || paths.iter().any(|path| is_wholesale(path)),
        // The journal of another moment, or of another store, with all that is beside it.
        Blow::Earlier(path) | Blow::Stranger(path) => is_wholesale(path) || *path == newest,
        Blow::File(path) => is_wholesale(path),
        _ => false,
    }
}

/// Strikes the store and looks at everything.
pub(super) fn judge(lived: &Lived, blow: &Blow) -> Counts {
    let mut counts = Counts::default();
    let struck = lived.disk.kill();
    blow.strike(&struck, lived);
    let shallow = checked(&struck, lived, false);
    let report = checked(&struck, lived, true);
    if let (Ok(shallow), Ok(deep)) = (&shallow, &report) {
        assert!(shallow.count(Severity::Error) <= deep.count(Severity::Error), "{shallow:#?} {deep:#?}");
    }
    let read = Store::open_read_only(Path::new(DIR), around(&struck.kill(), lived)).map(|store| all_found(&store));
    let mut next = rig(&struck.kill(), lived);
    if let Err(error) = next.try_open() {
        names_something(&error);
        // Where there is no room to write into, what is there can be read all the same, and is all there is.
        for (name, records) in read.into_iter().flatten() {
            assert!(matches!(blow, Blow::File(_)) && records.as_ref() == Ok(&lived.last[name]), "{name}: {records:?}");
        }
        match &report {
            Err(told) => names_something(told),
            Ok(report) => assert!(report.count(Severity::Error) > 0, "a check finds nothing, and yet: {error}"),
        }
        counts.refused += 1;
    } else {
        let report = report.as_ref().expect("what starts can be checked");
        let found = started(&next, lived, blow, report, &mut counts);
        assert_eq!(read.expect("what starts can be read"), found, "an export is what a start gives");
        stays(next, lived, blow, &found);
    }
    match &report {
        Ok(report) => remedied(lived, blow, &struck, report, &mut counts),
        Err(error) => names_something(error),
    }
    counts
}

/// Everything is there, or it is told what is not.
fn started(next: &Rig, lived: &Lived, blow: &Blow, report: &Report, counts: &mut Counts) -> Found {
    // What is held is known at once; asking for a namespace may settle something.
    let store = next.store();
    let found = all_found(store);
    let (mut by_start, mut by_check, mut untold, mut closed) = (0, 0, 0, 0);
    for (name, what) in &found {
        let errors = report.findings.iter().filter(|finding| finding.severity == Severity::Error);
        let is_named = errors.filter_map(|finding| finding.place.as_ref()).any(|told| *told == place(name));
        match what {
            Err(reason) => {
                // Where the workspace itself is not what it should be, that is told instead.
                let is_of_workspace =
                    report.findings.iter().any(|f| matches!(f.kind, "workspace_link" | "workspace_file"));
                assert!(is_named || is_of_workspace, "{name}: {reason}: {report:#?}");
                closed += 1;
            }
            Ok(records) => {
                assert!(!is_named, "{name} is served, and a check says that it is not: {report:#?}");
                if *records == lived.last[name] {
                    continue;
                }
                // With another store's journal and no file of our own, nothing says whose it is.
                let is_theirs = matches!(blow, Blow::Stranger(_)) && cannot_be_told(blow, lived);
                let is_known = is_theirs || lived.seen[name].contains(records);
                assert!(is_known || blow.hits(&file_of(name)), "{name} never was so: {records:?}");
                if is_told_by_start(store, name) {
                    by_start += 1;
                } else if is_told_by(report, name) {
                    by_check += 1;
                } else {
                    assert!(cannot_be_told(blow, lived), "{name}: silently {records:?}, was {:?}", lived.last[name]);
                    untold += 1;
                }
            }
        }
    }
    match (untold, by_check, closed, by_start) {
        (1.., ..) => counts.untold += 1,
        (0, 1.., ..) => counts.told_by_check += 1,
        (0, 0, 1.., _) => counts.closed += 1,
        (0, 0, 0, 1..) => counts.told += 1,
        _ => counts.whole += 1,
    }
    found
}

/// What an owner has found, the next one finds, too; a new write is above all that were answered; and a file that was out of
/// place gives everything when it is back.
fn stays(next: Rig, lived: &Lived, blow: &Blow, found: &Found) {
    let seq = next.put("new", "k", "1");
    // Where the newest owners' segments are gone without a trace, so are the numbers that they gave.
    assert!(seq > lived.greatest || cannot_be_told(blow, lived), "{seq} was given before, up to {}", lived.greatest);
    next.store().tick().unwrap();
    next.flush("new").unwrap();
    next.store().tick().unwrap();
    let mut again = next.killed_and_closed();
    again.try_open().unwrap_or_else(|error| panic!("it has opened before: {error}"));
    let later = all_found(again.store());
    for (name, what) in found {
        match (what, &later[name]) {
            (Ok(before), Ok(now)) => assert_eq!(before, now, "{name}"),
            (Err(_), Err(_)) => {}
            (before, now) => panic!("{name} was {before:?} and is {now:?}"),
        }
    }
    assert_eq!(again.all("new"), [("k".to_owned(), "1".to_owned())]);
    let again = again.killed_and_closed();
    let places: BTreeSet<&'static str> =
        NAMES.into_iter().filter(|name| blow.hits(&file_of(name)) && !blow.hits(&private("journal"))).collect();
    if places.is_empty() {
        return;
    }
    for path in blow.paths().into_iter().filter(|path| !path.starts_with(private(""))) {
        take_over(&lived.disk, &again.disk, path);
    }
    let back = again.opened();
    for name in places {
        assert_eq!(back.all(name), lived.last[name], "{name}, when its file is back");
    }
}
