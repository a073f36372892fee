//! Files that are served as they were found, although the journal knows others: what is the case, and the way back from it.
//!
//! Nothing waits for another file, so nobody is stopped. What the journal and the kept files still give is worked out by
//! the code that a repair runs, and so are the losses that are told.

use std::path::Path;

use commonhold_proto::{Place, Seq};

use super::super::error::Error;
use super::super::load::Base;
use super::super::note::Present;
use super::super::repair::Settle;
use super::super::store::Store;
use super::super::words::counted;
use super::remedies::{generations, what_it_gives_back};
use super::{Finding, Severity, repair_command};

/// Tells of a file that the journal does not know, or of one that is gone.
pub(super) fn finding(store: &Store, place: &Place, path: &Path, base: &Base) -> Finding {
    let Some(stat) = &base.file.stat else {
        let what = "it is gone, and the journal knows that there was one";
        return Finding::new(Severity::Warning, "file_gone", path, what)
            .of(place)
            .so("the namespace is empty; nothing waits in the journal for the file");
    };
    let print = base.file.unannounced.and_then(|entry| entry.file);
    if let Present::Known(cut) = store.present(place, Some(stat), print) {
        let covered = store.known(place).covered;
        let what = format!(
            "it is an older file of the namespace, with the same bytes as the kept one of sequence number {cut}: somebody has put it back. What was flushed last held every write up to {covered}"
        );
        return Finding::new(Severity::Warning, "foreign_file", path, what)
            .of(place)
            .so("the namespace is what this file holds; what was written to it later does not count");
    }
    let what = "another program wrote it, or it was put back from somewhere: the journal does not know it";
    Finding::new(Severity::Warning, "foreign_file", path, what)
        .of(place)
        .so("the namespace is what this file holds; nothing waits in the journal for another one")
}

/// Tells of an older file that the journal knows, and has everything for that was written later.
pub(super) fn earlier_file(store: &Store, place: &Place, path: &Path, base: &Base) -> Result<Finding, Error> {
    let (cut, covered) = (base.covered, store.known(place).covered);
    let mut changes = 0;
    store.for_each_left(place, cut, |_, _| changes += 1)?;
    let what = format!(
        "it is an earlier file of the namespace, which holds every write up to sequence number {cut}, and not the one that was flushed last, with every write up to {covered}: somebody has put it back"
    );
    let so = format!(
        "nothing is lost: the journal keeps what is missing in it, {}, and a daemon serves the namespace with them",
        counted(changes, "change", "changes")
    );
    Ok(Finding::new(Severity::Note, "earlier_file", path, what)
        .of(place)
        .so(so)
        .remedy("start the daemon and flush the namespace by name: then its file holds everything again"))
}

/// Adds what can be done: whatever gives something back, and that all is right as it is.
pub(super) fn add(store: &Store, place: &Place, finding: &mut Finding) -> Result<(), Error> {
    let mut told = finding.clone();
    let repair = |how: &str| repair_command(store.dir(), place, how);
    let losses_of = |settle| -> Option<(u64, String)> {
        // What cannot be done is not offered.
        let prepared = store.prepare(place, settle).ok()?;
        Some((prepared.applied(), prepared.plan.losses.join("; ")))
    };
    let but =
        |losses: &str| if losses.is_empty() { ". Nothing is lost by it".to_owned() } else { format!(": {losses}") };
    let present = store.present_of(place)?;
    if let Some(cut) = present.holds()
        && let Some((applied, losses)) = losses_of(Settle::ApplyJournal)
    {
        let changes = counted(
            applied,
            "change that it lacks and that the journal still has",
            "changes that it lacks and that the journal still has",
        );
        told = told.command(
            format!(
                "keep the file, which holds every write up to sequence number {cut}, and apply to it the {changes}{}",
                but(&losses)
            ),
            repair("--apply journal"),
        );
    }
    let (settle, how) = match present {
        Present::Absent => (Settle::ApplyJournal, "--apply journal"),
        _ => (Settle::SetAside, "--set-aside"),
    };
    let from_nothing = losses_of(settle).map(|(applied, losses)| {
        let kept = if present == Present::Absent { "" } else { ", while the present file is kept in generations" };
        let what = format!(
            "begin with nothing{kept}, and apply what the journal still has: {}{}",
            counted(applied, "change", "changes"),
            but(&losses)
        );
        (what, losses.is_empty())
    });
    if let Some((what, true)) = &from_nothing {
        told = told.command(what.clone(), repair(how));
    }
    // The present file itself, under another name, gives nothing back.
    let gives_more = |holds: &Seq| present.holds().is_none_or(|reach| *holds > reach);
    let newest =
        generations(store, place)?.into_iter().find_map(|kept| Some((kept.name, kept.holds.filter(gives_more)?)));
    if let Some((name, holds)) = newest {
        let what = format!("go back: {}", what_it_gives_back(store, place, holds, present)?);
        told = told.command(what, repair(&format!("--generation {name}")));
    }
    if let Some((what, false)) = from_nothing {
        told = told.command(what, repair(how));
    }
    if let Some((_, losses)) = losses_of(Settle::KeepFile) {
        let right = if present == Present::Absent {
            "if it is right that there is none"
        } else {
            "if the file is right as it is"
        };
        told = told.command(
            format!(
                "{right}, tell the journal so; what the journal has of the namespace is set aside in quarantine{}",
                but(&losses)
            ),
            repair("--keep file"),
        );
    }
    *finding = told;
    Ok(())
}
