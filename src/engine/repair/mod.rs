//! `repair`: settles what keeps a namespace closed, or the store from starting, as a person has decided it.
//!
//! What would be done is worked out by the code that does it, on a store that is opened to be read. Nothing is destroyed:
//! a file that is replaced is kept in `generations/`, writes that are not to count in `quarantine/`, what is cut off the
//! journal in `journal/aside/`. New things are written, synced and named before old ones go, and whatever a crash
//! interrupts, the next start or the same repair again finds either state.

mod from_nothing;
mod losses;
mod namespace;

pub(super) use from_nothing::{FromNothing, REACHES_BACK};

use std::path::Path;

use commonhold_proto::{Place, Seq};

use super::check::{names_of_segments, repair_command};
use super::closing::{Closing, Why};
use super::error::Error;
use super::journal::Reading;
use super::store::{Store, StoreOptions, Surroundings};
use super::words::size;
use crate::json::FileFormat;

/// What is to be settled, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repair {
    /// A namespace.
    Namespace(Place, Settle),
    /// The damaged journal: it is cut at its last good record.
    CutJournal,
}

/// How a namespace is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settle {
    /// Its file, or that there is none, is right as it is; the waiting writes are set aside.
    KeepFile,
    /// The waiting writes are applied to the file that is there.
    ApplyJournal,
    /// A kept generation takes the file's place, and later writes are applied to it.
    Generation {
        /// The number in its name.
        number: Seq,
        /// Another program had written it.
        foreign: bool,
    },
    /// The file is given up; the namespace begins with what the journal still holds.
    SetAside,
}

/// What a repair does, or would do, a sentence a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In order.
    pub steps: Vec<String>,
    /// What is lost by it, or not known to be kept.
    pub losses: Vec<String>,
}

/// Tells what [`repair`] would do, and changes nothing.
///
/// # Errors
/// [`Error::NothingToRepair`], [`Error::CannotRepair`], and as [`Store::open_read_only`].
pub fn plan(dir: &Path, what: &Repair, around: Surroundings) -> Result<Plan, Error> {
    match what {
        Repair::CutJournal => {
            damage_of(dir, &around)?;
            let store = Store::open_read_only_reading(dir, around, Reading::Cut)?;
            Ok(plan_of_cut(&store))
        }
        Repair::Namespace(place, settle) => {
            let store = Store::open_read_only_reading(dir, around, Reading::Whole)?;
            Ok(store.prepare(place, *settle)?.plan)
        }
    }
}

/// Settles it. Returns what was done.
///
/// # Errors
/// As [`plan`], and [`Error::Disk`], [`Error::Full`], [`Error::FlushLockTimeout`]: then what was there is there still.
pub fn repair(dir: &Path, what: &Repair, around: Surroundings) -> Result<Plan, Error> {
    match what {
        Repair::CutJournal => {
            // Told of a store that is read: the one that is opened has done it.
            let told = plan(dir, what, around.clone())?;
            let store = Store::open_reading(dir, StoreOptions::default(), around, Reading::Cut)?;
            drop(store);
            Ok(told)
        }
        Repair::Namespace(place, settle) => {
            // Whether it can be done is found out before anything is opened to be written.
            let prepared =
                Store::open_read_only_reading(dir, around.clone(), Reading::Whole)?.prepare(place, *settle)?;
            let options = StoreOptions { file_format: prepared.format, ..StoreOptions::default() };
            let store = Store::open_reading(dir, options, around, Reading::Whole)?;
            let prepared = store.prepare(place, *settle)?;
            store.settle(place, prepared)
        }
    }
}

/// Where the journal is damaged.
fn damage_of(dir: &Path, around: &Surroundings) -> Result<(), Error> {
    match Store::open_read_only(dir, around.clone()) {
        Ok(_) => Err(Error::NothingToRepair { what: "the journal is not damaged".to_owned() }),
        Err(Error::Damage { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

fn plan_of_cut(store: &Store) -> Plan {
    let mut plan = Plan::default();
    let unread = store.losses.as_ref().map(|losses| losses.unread.as_slice()).unwrap_or_default();
    if let Some(tail) = store.tail.as_ref().filter(|tail| unread.contains(&tail.segment)) {
        plan.steps.push(format!(
            "keep {}, which cannot be read without a whole header, in {}: {}",
            names_of_segments(unread),
            store.layout.aside().display(),
            size(tail.bytes)
        ));
    } else if let Some(tail) = &store.tail {
        plan.steps.push(format!(
            "keep what follows byte {} of {}, and all later segments, in {}: {}",
            tail.offset,
            tail.segment.display(),
            store.layout.aside().display(),
            size(tail.bytes)
        ));
    }
    plan.steps.push(
        "begin the next segment behind the last good record, with sequence numbers above all that were given"
            .to_owned(),
    );
    plan.losses.push(super::check::what_a_cut_loses(store));
    for (place, reason) in &store.opening().closed {
        plan.losses.push(format!(
            "namespace {place} is then still closed: {reason}; settle it with `{}`",
            repair_command(store.dir(), place, "…")
        ));
    }
    plan
}

/// `pretty` where the file is laid out so, else `lines`.
fn format_of(bytes: &[u8]) -> FileFormat {
    if bytes.starts_with(b"{\n  \"") { FileFormat::Pretty } else { FileFormat::Lines }
}

/// Refuses what a person has to do.
fn refuse_what_is_no_file(place: &Place, closing: &Closing) -> Result<(), Error> {
    match closing.why {
        Why::NameClash { .. } | Why::NoWorkspace { .. } => {
            Err(Error::CannotRepair { place: place.to_string(), reason: closing.what() })
        }
        Why::Link { .. } | Why::LinkedWorkspace { .. } | Why::NotAFile => Err(Error::CannotRepair {
            place: place.to_string(),
            reason: format!(
                "{}; put the namespace's own file there, a regular one, or move what is there out of the store",
                closing.what()
            ),
        }),
        _ => Ok(()),
    }
}
