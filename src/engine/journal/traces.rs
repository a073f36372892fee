//! Sequence numbers that the journal has left outside itself: in the names of kept generations, of writes that were set
//! aside, and of what an earlier start noted of a lost journal; and in the note of the last clean end.
//!
//! Each was given out by this store's journal, and whatever a kept generation's name or that note tells had been synced before
//! the file was kept or left. So a journal that has not come as far has lost its end, or is not the one that was here; and new numbers must be
//! above all of them, or a record could be taken for an earlier one with the same number.

use std::io;
use std::path::Path;

use commonhold_proto::{Place, Seq};

use super::CEILING_STEP;
use super::chain::Chain;
use super::opening::Fresh;
use crate::engine::disk::{Disk, Kind};
use crate::engine::error::Error;
use crate::engine::layout::Layout;
use crate::engine::note::Noted;

/// What names tell.
#[derive(Clone, Debug, Default)]
pub(crate) struct Traces {
    /// The greatest number in the name of a kept file of each namespace, in no order.
    pub(crate) kept: Vec<(Place, Seq)>,
    /// The greatest number in the name of writes that were set aside; the journal need not have been synced as far.
    aside: Seq,
    /// A start found the journal lost and went on; what it noted begins numbers above this one.
    pub(crate) lost_through: Seq,
    /// How the last clean end left the namespaces' files.
    pub(in crate::engine) noted: Noted,
}

/// No journal gets there; a greater number in a name is none of ours.
const GREATEST: u64 = 1 << 62;
/// What a start that found the journal lost notes in `aside/`, before the number above which it goes on.
const NOTE: &str = "lost-";

impl Traces {
    /// Reads names, and the note of the last clean end.
    pub(crate) fn read(disk: &dyn Disk, layout: &Layout) -> Result<Self, Error> {
        let mut traces = Self { noted: Noted::read(disk, layout), ..Self::default() };
        for room in ["generations", "quarantine"] {
            let room = layout.private().join(room);
            let mut workspaces = vec![(String::new(), room.join("@"))];
            for (name, _) in names(disk, &room.join("w"))? {
                workspaces.push((name.clone(), room.join("w").join(name)));
            }
            for (workspace, directory) in workspaces {
                for (name, kind) in names(disk, &directory)? {
                    if kind == Kind::Dir {
                        let Ok(place) = Place::new(&workspace, &name) else { continue };
                        let files = names(disk, &directory.join(&name))?;
                        let numbers = files.iter().filter_map(|(name, _)| number(name.split_once('.')?.0));
                        traces.kept.extend(numbers.max().map(|seq| (place, seq)));
                    } else if let Some((name, through)) = name.strip_suffix(".aside").and_then(|n| n.rsplit_once('.')) {
                        let is_ours = Place::new(&workspace, name).is_ok();
                        traces.aside = traces.aside.max(number(through).filter(|_| is_ours).unwrap_or(Seq::ZERO));
                    }
                }
            }
        }
        let notes = names(disk, &layout.aside())?;
        let noted = notes.iter().filter_map(|(name, _)| number(name.strip_prefix(NOTE)?.strip_suffix(".json")?));
        traces.lost_through = noted.max().unwrap_or(Seq::ZERO);
        Ok(traces)
    }

    /// The greatest number in the name of a kept file.
    fn greatest_kept(&self) -> Seq {
        self.kept.iter().map(|(_, seq)| *seq).max().unwrap_or(Seq::ZERO)
    }

    /// The greatest number that a kept file's name or the note of the last clean end tells: the journal had been synced as far.
    pub(super) fn greatest(&self, store: Option<u128>) -> Seq {
        self.greatest_kept().max(self.noted.greatest(store))
    }

    /// Above which numbers are to be given: whoever gave these may have given more of the same step.
    pub(super) fn floor(&self) -> Seq {
        let noted = Some(self.noted.greatest(None)).filter(|noted| noted.0 < GREATEST).unwrap_or(Seq::ZERO);
        let greatest = self.greatest_kept().max(noted).max(self.aside).max(self.lost_through).0;
        Seq(greatest.next_multiple_of(CEILING_STEP))
    }
}

fn number(text: &str) -> Option<Seq> {
    text.parse().ok().filter(|number| *number < GREATEST).map(Seq)
}

/// What lies in a directory; nothing if it is not there.
fn names(disk: &dyn Disk, directory: &Path) -> Result<Vec<(String, Kind)>, Error> {
    let listed = match disk.list(directory) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Vec::new(),
        listed => listed.map_err(Error::disk("list", directory))?,
    };
    Ok(listed.into_iter().filter_map(|entry| Some((entry.name.into_string().ok()?, entry.kind))).collect())
}

/// How a journal is not what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// An owner has been here, and there is no segment.
    Whole,
    /// It ends with this number, and kept files have greater ones.
    End(Seq),
}

impl Chain {
    /// How far the journal has come, by its own account: its last record, or what its newest header begins above.
    fn reached(&self) -> Seq {
        let end = self.segments.last().map_or(Seq::ZERO, |read| read.end.seq);
        end.max(Seq(self.ceiling.0.saturating_sub(CEILING_STEP)))
    }

    /// Whether it, or its end, is not there any more, as what lies beside it tells. What was cut off a damaged one is known.
    pub(super) fn lost(&self, traces: &Traces, had_owner: bool) -> Option<Lost> {
        if self.losses.is_some() {
            None
        } else if self.greatest == 0 {
            had_owner.then_some(Lost::Whole)
        } else {
            let store = self.segments.last().map(|read| read.header.store);
            let ours = self.quarantines.values().filter(|quarantine| Some(quarantine.store) == store);
            let seen = ours.map(|quarantine| quarantine.through).max().unwrap_or(Seq::ZERO).max(traces.greatest(store));
            (seen > self.reached()).then_some(Lost::End(self.reached()))
        }
    }
}

/// Above which number a start goes on whose journal is gone as a whole: where no kept file tells a number, the time does. Each
/// start takes a step, and no store has had as many as there have been hours since 1970; and whoever reads numbers as
/// floating-point ones can read these.
pub(super) fn floor_without_a_journal(traces: &Traces, fresh: &Fresh) -> Seq {
    let hours = fresh.clock.unix_ms() / 3_600_000;
    traces.floor().max(Seq(hours.min(1 << 20) * CEILING_STEP))
}

/// Leaves word of it where `check` finds it, before anything makes the loss invisible.
pub(super) fn note(
    disk: &dyn Disk,
    layout: &Layout,
    fresh: &Fresh,
    lost: Lost,
    seen: Seq,
    above: Seq,
) -> Result<(), Error> {
    let what = match lost {
        Lost::Whole => "the journal of an earlier owner was gone when a daemon started here".to_owned(),
        Lost::End(end) => format!(
            "when a daemon started here, the journal ended with sequence number {end}, and kept files, or the note of the last clean end, had {seen}"
        ),
    };
    let text = serde_json::json!({ "what": what, "unix_ms": fresh.clock.unix_ms(), "numbers_go_on_above": above.0 });
    let aside = layout.aside();
    super::opening::make_directory(disk, &aside)?;
    let path = aside.join(format!("{NOTE}{:020}.json", above.0));
    let file = disk.make_anew(&path).map_err(Error::disk("create", &path))?;
    file.write_at(format!("{text}\n").as_bytes(), 0).map_err(Error::disk("write", &path))?;
    file.sync().map_err(Error::disk("sync", &path))?;
    disk.sync_dir(&aside).map_err(Error::disk("sync", &aside))?;
    let journal = layout.journal();
    disk.sync_dir(&journal).map_err(Error::disk("sync", &journal))
}
