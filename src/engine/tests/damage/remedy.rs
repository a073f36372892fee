//! Carries out what a check offers, command by command, as a person would who copies the lines: each does what it says,
//! and in the end the store starts with every namespace open, and a second check finds no error.

use std::path::Path;

use commonhold_proto::Seq;

use super::super::rig::{DIR, place};
use super::blow::{Blow, file_of, take_over};
use super::stores::{Lived, NAMES, private};
use super::verdict::{Counts, all_found, all_of, around, cannot_be_told, checked, rig};
use crate::engine::disk::{Disk, SimDisk};
use crate::engine::{Finding, Repair, Report, Settle, Severity, plan, repair};

/// No store needs more steps than this.
const STEPS: usize = 12;

/// Tries each remedy on a copy of its own.
pub(super) fn remedied(lived: &Lived, blow: &Blow, struck: &SimDisk, report: &Report, counts: &mut Counts) {
    // Where the journal is damaged, that is what is to be settled first, and the rest is told of what comes then.
    let is_damaged = report.findings.iter().any(|finding| finding.kind == "journal_damage");
    for finding in report.findings.iter().filter(|finding| !is_damaged || finding.kind == "journal_damage") {
        for remedy in &finding.remedies {
            let Some(command) = &remedy.command else { continue };
            let disk = struck.kill();
            carry_out(lived, blow, &disk, finding, command);
            gives_what_it_says(lived, blow, &disk, finding, &remedy.what);
            counts.remedies += 1;
            settles(lived, blow, &disk);
        }
        if finding.remedies.iter().all(|remedy| remedy.command.is_none()) && finding.severity == Severity::Error {
            let disk = struck.kill();
            if by_hand(lived, blow, &disk, finding) {
                settles(lived, blow, &disk);
            }
        }
    }
}

/// Where a remedy says that nothing is missing afterwards, nothing is.
fn gives_what_it_says(lived: &Lived, blow: &Blow, disk: &SimDisk, finding: &Finding, what: &str) {
    let says_all =
        what.ends_with("everything of the last file that it knows") || what.contains("Nothing is lost by it");
    let is_kept = what.contains("tell the journal so");
    if !says_all || is_kept || cannot_be_told(blow, lived) {
        return;
    }
    let of = finding.place.as_ref().expect("of a namespace");
    let name = NAMES.into_iter().find(|name| place(name) == *of).expect("a namespace of the store");
    let next = rig(&disk.kill(), lived).opened();
    assert_eq!(next.all(name), lived.last[name], "{what}");
}

/// Does what is first offered about each error, until there is none.
fn settles(lived: &Lived, blow: &Blow, disk: &SimDisk) {
    for _ in 0..STEPS {
        let report = checked(disk, lived, true).unwrap_or_else(|error| panic!("after a remedy: {error}"));
        let Some(finding) = report.findings.iter().find(|finding| finding.severity == Severity::Error) else {
            let next = rig(&disk.kill(), lived);
            let next = next.opened();
            assert!(next.store().opening().closed.is_empty(), "{:?}", next.store().opening().closed);
            for (name, what) in all_found(next.store()) {
                what.unwrap_or_else(|reason| panic!("{name} is still closed: {reason}"));
            }
            next.put("new", "k", "1");
            return;
        };
        match finding.remedies.iter().find_map(|remedy| remedy.command.as_ref()) {
            Some(command) => carry_out(lived, blow, disk, finding, command),
            None if by_hand(lived, blow, disk, finding) => {}
            // What only goes by a start.
            None if ["journal_gone", "journal_end_gone"].contains(&finding.kind) => {
                rig(disk, lived).opened().close();
            }
            None => panic!("nothing can be done about {finding:#?} after {blow}"),
        }
    }
    panic!("after {STEPS} steps there still are errors");
}

/// Runs the command: first to see what it would do, then to do it.
fn carry_out(lived: &Lived, blow: &Blow, disk: &SimDisk, finding: &Finding, command: &str) {
    let what = parsed(command);
    if finding.kind == "not_json" && ["--apply journal", "--keep file"].iter().any(|how| command.ends_with(how)) {
        // "Mend it by hand at that place, and have the waiting writes applied to it", or go on with it as it is.
        let at = file_of(&finding.place.as_ref().expect("of a namespace").to_string());
        let bytes = if lived.disk.exists(&at) { lived.disk.read_file(&at) } else { b"{}".to_vec() };
        disk.write_file(&at, &[bytes, b"\n ".to_vec()].concat());
    }
    let before = all_of(disk);
    let told = plan(Path::new(DIR), &what, around(disk, lived))
        .unwrap_or_else(|error| panic!("`{command}` is offered for {}: {error}", finding.kind));
    assert!(all_of(disk) == before, "a plan changes nothing");
    let done =
        repair(Path::new(DIR), &what, around(disk, lived)).unwrap_or_else(|error| panic!("`{command}`: {error}"));
    assert_eq!(done, told, "what was told is what was done");
    let report = checked(disk, lived, true).unwrap();
    let is_left = |left: &&Finding| match &what {
        Repair::CutJournal => left.kind == finding.kind,
        Repair::Namespace(..) => {
            let is_it = left.severity == Severity::Error || left.kind == finding.kind;
            is_it && left.place == finding.place
        }
    };
    assert!(report.findings.iter().find(is_left).is_none(), "`{command}` has not settled {finding:#?}: {report:#?}");
    if let Repair::Namespace(of, how) = &what {
        let next = rig(&disk.kill(), lived).opened();
        let records = next.all(&of.to_string());
        // A namespace that was damaged elsewhere as well may have lost something in an earlier step, which told it.
        let name = NAMES.into_iter().find(|name| place(name) == *of).expect("a namespace of the store");
        let is_whole = told.losses.is_empty() && !matches!(how, Settle::KeepFile) && !cannot_be_told(blow, lived);
        assert!(
            !is_whole || records == lived.last[name] || lived.seen[name].contains(&records),
            "`{command}` tells of no loss and leaves {records:?}"
        );
    }
}

/// What a person does who is told to do it by hand. Says whether there was anything.
fn by_hand(lived: &Lived, blow: &Blow, disk: &SimDisk, finding: &Finding) -> bool {
    match finding.kind {
        "link" | "not_a_file" | "workspace_link" => {
            let path = &finding.file;
            if disk.exists(path) {
                disk.remove_path(path);
            }
            take_over(&lived.disk, disk, path);
            true
        }
        "not_a_directory" => {
            disk.remove_path(&finding.file);
            true
        }
        "unreadable" => {
            // A file stands where the workspace is to be, or nobody may read what is there.
            if let (Blow::File(path), true) = (blow, !blow.hits(&private(""))) {
                take_over(&lived.disk, disk, path);
            }
            for (path, _) in all_of(disk) {
                disk.set_mode(&path, 0o600).expect("it is there");
            }
            true
        }
        _ => false,
    }
}

/// The command that a remedy prints, as the command line understands it.
fn parsed(command: &str) -> Repair {
    let words: Vec<&str> = command.split(' ').collect();
    assert_eq!(words[..3], ["commonhold", "--store", DIR], "{command}");
    let (workspace, words) = match &words[3..] {
        ["--workspace", workspace, rest @ ..] => (format!("{workspace}/"), rest),
        rest => (String::new(), rest),
    };
    let of = |name: &str| place(&format!("{workspace}{name}"));
    match words {
        ["repair", "--cut-journal"] => Repair::CutJournal,
        ["repair", name, "--keep", "file"] => Repair::Namespace(of(name), Settle::KeepFile),
        ["repair", name, "--apply", "journal"] => Repair::Namespace(of(name), Settle::ApplyJournal),
        ["repair", name, "--set-aside"] => Repair::Namespace(of(name), Settle::SetAside),
        ["repair", name, "--generation", number] => {
            let (number, foreign) = number.strip_suffix(".foreign").map_or((*number, false), |number| (number, true));
            Repair::Namespace(of(name), Settle::Generation { number: Seq(number.parse().unwrap()), foreign })
        }
        _ => panic!("`{command}` cannot be read"),
    }
}
