//! Repairs that die: every call of one is a crash point, by a kill or a power cut in turn. What is found then is the store as
//! it was before, where the same repair comes to the same, or as it was to become. The real binary is tried in
//! `tests/cli_repair/`.

use std::path::Path;
use std::sync::Arc;

use commonhold_proto::{Durability, Seq};

use super::rig::{DIR, Rig, file, options, pair, place};
use crate::engine::disk::{Rules, SimDisk};
use crate::engine::{Error, Plan, Repair, Settle, Severity, Surroundings, check, plan, repair};

type Records = Vec<(String, String)>;

fn around(rig: &Rig) -> Surroundings {
    Surroundings {
        disk: Arc::new(rig.disk.clone()),
        locks: Arc::new(rig.locks.clone()),
        clock: Arc::new(rig.clock.clone()),
        entropy: 42,
    }
}

fn repaired(rig: &Rig, what: &Repair) -> Result<Plan, Error> {
    repair(Path::new(DIR), what, around(rig))
}

/// A closed store of several segments: `a` has a kept generation, a file, and writes beyond it.
fn left_behind() -> Rig {
    let mut rig = Rig::new(options(Durability::Synced));
    rig.options.segment_bytes = 600;
    rig.try_open().unwrap();
    rig.put("b", "pins", "1");
    for number in 0..3 {
        rig.put("a", &format!("k{number}"), "1");
    }
    rig.flush("a").unwrap();
    rig.put("a", "k3", "1");
    rig.flush("a").unwrap();
    for number in 2..6 {
        rig.put("a", &format!("k{number}"), "2");
    }
    rig.delete("a", "k0");
    // Names of kept generations need not survive a power cut; here they have.
    Rig::on(rig.killed_and_closed().disk.power_cut(1, Rules::KEEP_ALL), options(Durability::Synced))
}

fn state(rig: &Rig) -> [Records; 2] {
    [rig.all("a"), rig.all("b")]
}

/// The next owner finds the settled state, or the damage, and then the same repair settles it.
fn goes_on(disk: SimDisk, rig: &Rig, what: &Repair, expected: &[Records; 2], told: &str) {
    let mut next = Rig::on(disk, rig.options.clone());
    let is_settled = match next.try_open() {
        Ok(()) => next.store().opening().closed.is_empty(),
        Err(Error::Damage { .. }) => false,
        Err(error) => panic!("{told}: {error}"),
    };
    next.close();
    if !is_settled {
        repaired(&next, what).unwrap_or_else(|error| panic!("{told}, and once more: {error}"));
    }
    next.try_open().unwrap();
    assert_eq!(state(&next), *expected, "{told}");
}

/// What the repair comes to when nothing interrupts it; then the same with every call of it as the last one.
fn dies_anywhere(rig: &Rig, what: &Repair) -> [Records; 2] {
    let whole = Rig::on(rig.disk.kill(), rig.options.clone());
    let before = whole.files();
    let told = plan(Path::new(DIR), what, around(&whole)).unwrap();
    assert!(whole.files() == before, "{what:?}: a plan changes nothing");
    assert_eq!(repaired(&whole, what).unwrap(), told, "{what:?}: what was told is what was done");
    let expected = state(&whole.opened());
    let mut calls = 0;
    loop {
        calls += 1;
        let dying = Rig::on(rig.disk.kill(), rig.options.clone());
        dying.disk.crash_after(calls);
        let outcome = repaired(&dying, what);
        if !dying.disk.is_dead() {
            outcome.unwrap();
            break;
        }
        // By turns, for the sake of time: a kill keeps all, a power cut any part of what was not synced.
        let power_cut = calls % 2 == 0;
        let disk = if power_cut { dying.disk.power_cut(calls, Rules::any(calls)) } else { dying.disk.kill() };
        let told = format!("{what:?}, {} in call {calls}", if power_cut { "power cut" } else { "killed" });
        goes_on(disk, rig, what, &expected, &told);
    }
    assert!(calls > 40, "{what:?} has more calls than {calls}");
    expected
}

#[test]
fn a_repair_of_a_namespace_that_dies_anywhere_can_be_made_again() {
    let rig = left_behind();
    let right = Rig::on(rig.disk.kill(), rig.options.clone()).opened().all("a");
    let number = rig.generations("a")[0].strip_suffix(".json").unwrap().parse().unwrap();
    rig.disk.write_file(file("a"), b"{\"found\": 1.0}");
    let settle = |how| dies_anywhere(&rig, &Repair::Namespace(place("a"), how))[0].clone();
    assert_eq!(settle(Settle::KeepFile), [pair("found", "1.0")]);
    let waiting = ["k2", "k3", "k4", "k5"].map(|key| pair(key, "2"));
    assert_eq!(settle(Settle::ApplyJournal), [[pair("found", "1.0")].as_slice(), &waiting].concat());
    assert_eq!(settle(Settle::Generation { number: Seq(number), foreign: false }), right);
    rig.disk.write_file(file("a"), b"{\"torn\": ");
    let settle = |how| dies_anywhere(&rig, &Repair::Namespace(place("a"), how))[0].clone();
    assert_eq!(settle(Settle::SetAside), right, "the journal is whole in this store");
}

#[test]
fn a_cut_of_the_journal_that_dies_anywhere_can_be_made_again() {
    let rig = left_behind();
    let paths = rig.segments();
    assert!(paths.len() > 2, "{paths:?}");
    // Behind the segment's middle, and segments follow.
    let middle = rig.disk.read_file(&paths[1]).len() as u64 / 2;
    rig.disk.flip_bit(&paths[1], middle, 3);
    let expected = dies_anywhere(&rig, &Repair::CutJournal);
    assert_eq!(expected[1], [pair("pins", "1")]);
    let cut = Rig::on(rig.disk.kill(), rig.options.clone());
    repaired(&cut, &Repair::CutJournal).unwrap();
    let aside = Path::new(DIR).join(".commonhold/journal/aside");
    assert_eq!(cut.disk.names(&aside).len(), paths.len() - 1, "the rest of one, and all after it");
    assert!(matches!(repaired(&cut, &Repair::CutJournal), Err(Error::NothingToRepair { .. })));
    let cut = cut.opened();
    assert!(cut.put("a", "new", "1") > Seq(1 << 32), "no sequence number is given again");
}

#[test]
fn a_check_agrees_with_a_start_on_what_is_closed() {
    let mut rig = left_behind();
    for torn in [b"{\"torn\": ".as_slice(), b"{\"foreign\": 1}", b""] {
        rig.disk.write_file(file("a"), torn);
        rig.disk.write_file(file("c"), torn);
        let before = rig.files();
        let report = check(Path::new(DIR), true, around(&rig)).unwrap();
        assert!(rig.files() == before, "a check changes nothing");
        let errors = report.findings.iter().filter(|finding| finding.severity == Severity::Error);
        let told: Vec<String> = errors.map(|finding| finding.place.as_ref().unwrap().to_string()).collect();
        rig.try_open().unwrap();
        let closed = ["a", "b", "c"].into_iter().filter(|name| rig.store().namespace(&place(name)).is_err());
        assert_eq!(told, closed.collect::<Vec<_>>(), "{}", String::from_utf8_lossy(torn));
        rig.close();
    }
}

#[test]
fn a_repair_whose_last_write_is_a_drop_ends_as_the_drop_would() {
    for keeps_file in [true, false] {
        let rig = Rig::synced();
        rig.put("b", "pins", "1");
        rig.put("a", "k", "1");
        rig.flush("a").unwrap();
        rig.put("a", "k", "2");
        rig.drop_records("a").unwrap();
        let rig = rig.killed_and_closed();
        if keeps_file {
            rig.disk.write_file(file("a"), b"{\"found\": 1.0}");
        } else {
            rig.disk.write_file(file("a"), b"{\"torn\": ");
        }
        let how = if keeps_file { Settle::ApplyJournal } else { Settle::SetAside };
        let told = repaired(&rig, &Repair::Namespace(place("a"), how)).unwrap();
        assert!(told.steps.iter().any(|step| step.starts_with("remove ") && step.ends_with("is a drop")), "{told:?}");
        assert!(!rig.has_file("a"), "it is to have no file");
        assert!(rig.generations("a").iter().any(|name| name.ends_with(".foreign.json")), "what was there is kept");
        let rig = rig.opened();
        assert!(rig.store().opening().closed.is_empty() && rig.all("a").is_empty());
        rig.put("a", "later", "1");
        rig.flush("a").unwrap();
        assert!(rig.has_file("a"), "it is a namespace like any other");
    }
}

#[test]
fn a_decayed_file_is_not_taken_for_the_stores_own() {
    let mut rig = Rig::new(options(Durability::Synced));
    rig.try_open().unwrap();
    rig.put("a", "k", "1");
    rig.flush("a").unwrap();
    rig.put("a", "k", "2");
    rig.flush("a").unwrap();
    rig.commit().unwrap();
    rig.store().note_files();
    let rig = rig.killed_and_closed();
    // The value 2 becomes a 6, in place: inode, size and time stay.
    let at = rig.disk.read_file(file("a")).iter().position(|byte| *byte == b'2').unwrap();
    rig.disk.flip_bit(file("a"), at as u64, 2);
    let report = check(Path::new(DIR), true, around(&rig)).unwrap();
    let decayed = report.findings.iter().find(|finding| finding.kind == "decayed_file").expect("it is found");
    let commands: Vec<&str> = decayed.remedies.iter().filter_map(|remedy| remedy.command.as_deref()).collect();
    assert!(commands[0].contains("--generation"), "{commands:?}");
    assert!(commands.last().unwrap().contains("--keep file"), "{commands:?}");
    assert!(decayed.remedies.iter().all(|remedy| !remedy.what.contains("the store itself left it")), "{decayed:?}");
    let told = plan(Path::new(DIR), &Repair::Namespace(place("a"), Settle::KeepFile), around(&rig)).unwrap();
    assert!(!told.losses.is_empty(), "it is said that nothing vouches for the file: {told:?}");
}

#[test]
fn commands_that_are_suggested_for_names_with_a_dash_in_front_can_be_run() {
    let mut rig = Rig::new(options(Durability::Synced));
    rig.try_open().unwrap();
    rig.put("-w/-x", "k", "1");
    rig.flush("-w/-x").unwrap();
    rig.put("-w/-x", "k", "2");
    let rig = rig.killed_and_closed();
    rig.disk.write_file(file("-w/-x"), b"{}");
    let report = check(Path::new(DIR), true, around(&rig)).unwrap();
    let commands: Vec<&str> = report
        .findings
        .iter()
        .flat_map(|finding| &finding.remedies)
        .filter_map(|remedy| remedy.command.as_deref())
        .collect();
    assert!(commands.iter().any(|line| line.ends_with(" --workspace=-w repair --keep file -- -x")), "{commands:?}");
    assert!(commands.iter().all(|line| line.ends_with(" -- -x")), "{commands:?}");
}
