//! What can be done about a finding: command lines that exist, and which kept generation gives back how much.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use commonhold_proto::{Place, Seq};

use super::super::closing::{Closing, Why};
use super::super::disk::Kind;
use super::super::error::Error;
use super::super::journal::Fingerprint;
use super::super::note::Present;
use super::super::repair::{FromNothing, REACHES_BACK, Settle};
use super::super::store::Store;
use super::super::words::{counted, span_of};
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

/// The kept generations of a namespace: its own first, then those of other programs, each newest first.
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
    kept.sort_by_key(|kept| (kept.foreign, std::cmp::Reverse(kept.number)));
    Ok(kept)
}

/// A command line for the store at `dir`, and for the workspace of `place` if it has one.
pub(in crate::engine) fn command(dir: &Path, place: Option<&Place>, rest: &str) -> String {
    let mut line = format!("commonhold --store {}", quoted(&dir.display().to_string()));
    if let Some(place) = place {
        line += &workspace_option(place);
    }
    format!("{line} {rest}")
}

/// The command line that settles a namespace of the store at `dir` so.
pub(in crate::engine) fn repair_command(dir: &Path, place: &Place, how: &str) -> String {
    command(dir, Some(place), &of_namespace("repair", how, place))
}

/// The command line that flushes a namespace, where the reader knows which store is meant.
pub(in crate::engine) fn flush_command(place: &Place) -> String {
    format!("commonhold{} {}", workspace_option(place), of_namespace("flush", "", place))
}

/// With the blank before it; nothing for the root.
fn workspace_option(place: &Place) -> String {
    let name = place.workspace.as_str();
    match name {
        _ if place.workspace.is_root() => String::new(),
        // Else it would be read as an option.
        _ if name.starts_with('-') => format!(" --workspace={}", quoted(name)),
        _ => format!(" --workspace {}", quoted(name)),
    }
}

fn of_namespace(verb: &str, how: &str, place: &Place) -> String {
    let name = quoted(place.namespace.as_str());
    let (name, blank) = (name.as_str(), if how.is_empty() { "" } else { " " });
    if place.namespace.as_str().starts_with('-') {
        format!("{verb}{blank}{how} -- {name}")
    } else {
        format!("{verb} {name}{blank}{how}")
    }
}

fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+@%,:=".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else if word.chars().any(char::is_control) {
        // As shells read it that know `$'…'`: what moves a cursor is not to be copied off a terminal.
        let mut escaped = String::new();
        for c in word.chars() {
            match c {
                '\'' | '\\' => escaped.extend(['\\', c]),
                c if c.is_control() => {
                    for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                        write!(escaped, "\\x{byte:02x}").expect("a string takes everything");
                    }
                }
                c => escaped.push(c),
            }
        }
        format!("$'{escaped}'")
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
    let repair = |how: &str| repair_command(store.dir(), place, how);
    if let Why::NoWorkspace { path } = &closing.why {
        return Ok(
            finding.remedy(format!("move {} out of the store, and put the directory itself there", path.display()))
        );
    }
    if let Why::Link { .. } | Why::LinkedWorkspace { .. } | Why::NotAFile = closing.why {
        return Ok(
            finding.remedy("put the namespace's own file there, a regular one, or move what is there out of the store")
        );
    }
    if let Why::NameClash { .. } = closing.why {
        return Ok(finding.remedy("move the file of one of the two out of the store, or give it another name"));
    }
    let present = store.present_of(place)?;
    let (own, others): (Vec<_>, Vec<_>) = generations(store, place)?.into_iter().partition(|kept| kept.holds.is_some());
    let held = |kept: &Offered| kept.holds.unwrap_or(Seq::ZERO);
    // A present file that is known holds more than older ones do; a torn one, or one that nothing knows, counts for nothing.
    let is_whole = !matches!(closing.why, Why::NotJson(_));
    let reach = present.holds().filter(|_| is_whole);
    let (newer, older): (Vec<_>, Vec<_>) =
        own.into_iter().partition(|kept| reach.is_none_or(|reach| held(kept) > reach));
    let offer = |mut finding: Finding, kept: Vec<Offered>| -> Result<Finding, Error> {
        for one in kept {
            let what = what_it_gives_back(store, place, held(&one), present)?;
            finding = finding.command(what, repair(&format!("--generation {}", one.name)));
        }
        Ok(finding)
    };
    let waits = closing.waiting.is_some();
    let file = store.layout.namespace_file(place);
    let is_behind = is_whole && present == Present::Unknown { is_foreign: false };
    if let Some(end) = store.end_of_a_cut_journal().filter(|_| is_behind || matches!(present, Present::Own(_))) {
        finding = finding.remedy(format!(
            "put the journal back from a copy of the whole store, if there is one that goes beyond sequence number {end}"
        ));
        if is_behind {
            finding = finding.command(
                format!(
                    "look whether {} has what was written last: since the journal has lost its end, it may be newer than any kept file. Then keep it, and set the waiting writes aside",
                    file.display()
                ),
                repair("--keep file"),
            );
        }
    }
    if closing.lost.is_some() || matches!(closing.why, Why::Quarantine { .. }) {
        let quarantine = store.layout.quarantine(place);
        let segments = if matches!(closing.why, Why::Gap { .. }) { "the missing journal segments, or " } else { "" };
        finding = finding.remedy(format!(
            "put {segments}{} back from a backup, if there is one, and start the daemon",
            quarantine.display()
        ));
    }
    let from_nothing = store.what_nothing_gives(place)?;
    let gives_up =
        format!("give the file up, which is kept in generations, and {}", with_nothing(store, place, &from_nothing));
    // Where the file is known, it holds as much; where there is none, and where it is torn, the same is offered below.
    let may_give_up = reach.is_none()
        && from_nothing.changes > 0
        && !matches!(closing.why, Why::NotJson(_) | Why::Missing | Why::Gap { cut: None, .. });
    finding = offer(finding, newer)?;
    if may_give_up && from_nothing.is_all {
        finding = finding.command(gives_up.clone(), repair("--set-aside"));
    }
    let lacks = |held: Seq| {
        matches!(closing.why, Why::Quarantine { .. } | Why::OtherJournal { .. })
            || closing.waiting.is_some_and(|(_, last)| last > held)
    };
    if let Some(held) = reach {
        finding = finding.command(
            with_the_known_file(store, place, present, held, closing)?,
            repair(if lacks(held) { "--apply journal" } else { "--keep file" }),
        );
    }
    finding = offer(finding, older)?;
    let then = if closing.lost.is_some() {
        "check again: unless it has them, what is to become of the writes that cannot be read is settled then"
    } else {
        "start the daemon"
    };
    let put_back = format!("put the right file back as {}, and {then}", file.display());
    match closing.why {
        Why::NotJson(_) => {
            let is_lacking = closing.lost.is_some();
            let then = match (waits, is_lacking) {
                (true, _) => "and have the waiting writes applied to it",
                (false, true) => "and go on with it without the writes that cannot be read any more",
                (false, false) => "and start the daemon",
            };
            let what = format!("mend {} by hand at that place, {then}", file.display());
            finding = match (waits, is_lacking) {
                (true, _) => finding.command(what, repair("--apply journal")),
                (false, true) => finding.command(what, repair("--keep file")),
                (false, false) => finding.remedy(what),
            };
            let what = if from_nothing.changes > 0 {
                gives_up.clone()
            } else {
                "give the file up: it is kept in generations, and the namespace begins with what the journal still holds"
                    .to_owned()
            };
            finding = finding.command(what, repair("--set-aside"));
        }
        Why::Missing | Why::Gap { cut: None, .. } => {
            finding = finding.remedy(put_back);
            if from_nothing.changes > 0 {
                finding = finding.command(with_nothing(store, place, &from_nothing), repair("--apply journal"));
            }
            let what = if waits {
                "begin without a file, and set the waiting writes aside"
            } else {
                "begin without a file, and without any record"
            };
            finding = finding.command(what, repair("--keep file"));
        }
        Why::OtherFile if reach.is_none() => {
            finding = finding.remedy(put_back);
            if waits {
                finding = finding.command(
                    "keep the file that is there, and apply the waiting writes to it; what the journal has from before is set aside in quarantine, and does not count any more",
                    repair("--apply journal"),
                );
            }
            if !is_behind || store.end_of_a_cut_journal().is_none() {
                let what = if waits {
                    "keep the file that is there, and set the waiting writes aside"
                } else {
                    "keep the file that is there, as it is: of the writes that wait for another one, none can be read"
                };
                finding = finding.command(what, repair("--keep file"));
            }
        }
        Why::OtherFile | Why::Gap { cut: Some(_), .. } | Why::Quarantine { .. } | Why::OtherJournal { .. } => {
            if reach.is_none() {
                finding = finding
                    .command("keep the file, and apply to it what waits and can be read", repair("--apply journal"));
            }
            if reach.is_none_or(lacks) {
                finding = finding.command("keep the file as it is, and set what waits aside", repair("--keep file"));
            }
        }
        Why::Decayed => {
            finding = finding.remedy(put_back).command("keep the file that is there, as it is", repair("--keep file"));
        }
        Why::Link { .. }
        | Why::LinkedWorkspace { .. }
        | Why::NoWorkspace { .. }
        | Why::NotAFile
        | Why::NameClash { .. } => {}
    }
    if may_give_up && !from_nothing.is_all {
        finding = finding.command(gives_up.clone(), repair("--set-aside"));
    }
    for Offered { name, .. } in others {
        finding = finding.command(
            "take another program's content that was found and kept: it is not known to hold any write of this store, and only the waiting writes are applied to it",
            repair(&format!("--generation {name}")),
        );
    }
    Ok(finding)
}

/// What keeping the present file comes to, which holds every write up to `held`.
fn with_the_known_file(
    store: &Store,
    place: &Place,
    present: Present,
    held: Seq,
    closing: &Closing,
) -> Result<String, Error> {
    let whose = match (present, store.end_of_a_cut_journal()) {
        (Present::Own(_), Some(end)) => format!(
            "keep the file that is there: the store itself left it at its last clean end, and it holds every write up to sequence number {held}, while the journal ends with {end}"
        ),
        (Present::Own(_), None) => format!(
            "keep the file that is there: the store itself left it at its last clean end, and it holds every write up to sequence number {held}"
        ),
        _ => format!("keep the file that is there, which holds every write up to sequence number {held}"),
    };
    let what = match closing.waiting {
        Some((_, last)) if last > held => format!("{whose}, and apply to it what waits and can be read"),
        Some(_) => format!("{whose}; nothing of what waits is missing in it"),
        None => whose,
    };
    let lacks = store.what_it_would_lack(place, held, Present::Absent)?;
    Ok(if lacks.is_empty() { what } else { format!("{what}: {}", lacks.join("; ")) })
}

/// What beginning with nothing comes to.
fn with_nothing(store: &Store, place: &Place, from: &FromNothing) -> String {
    let losses = store.prepare(place, Settle::SetAside).map(|prepared| prepared.plan.losses.join("; "));
    let losses =
        losses.ok().filter(|losses| !losses.is_empty()).map_or_else(String::new, |losses| format!(": {losses}"));
    if from.changes == 0 {
        return format!("begin with nothing; the journal has nothing of the namespace any more{losses}");
    }
    let changes = counted(from.changes, "change", "changes");
    if from.is_all {
        format!("begin with nothing, and apply all that the journal has, {changes}. It {REACHES_BACK}{losses}")
    } else {
        format!("begin with nothing, and apply what the journal still has, {changes}{losses}")
    }
}

/// A kept generation that can be gone back to.
pub(super) struct Offered {
    pub(super) name: String,
    /// It holds every write up to this one; none if nothing tells that it holds any.
    pub(super) holds: Option<Seq>,
}

/// Those that can be read: what holds most first, what holds nothing that is known last.
pub(super) fn generations(store: &Store, place: &Place) -> Result<Vec<Offered>, Error> {
    let known = store.known(place);
    let mut offered = Vec::new();
    let (mut own, mut others) = (0, 0);
    for kept in generations_of(store, place)? {
        let told = if kept.foreign { &mut others } else { &mut own };
        *told += 1;
        if *told > GENERATIONS_TOLD {
            continue;
        }
        // One that cannot be read cannot be gone back to, and a deep check says so.
        let Ok(bytes) = store.disk.read(&kept.path) else { continue };
        if json::load_object(&bytes, &mut |_, _| {}).is_ok() {
            // A repair may have put aside as another program's what the journal knows all the same.
            let holds = known.cut_of(Some(Fingerprint::of(&bytes))).or((!kept.foreign).then_some(kept.number));
            offered.push(Offered { name: kept.name(), holds });
        }
    }
    offered.sort_by_key(|kept| std::cmp::Reverse(kept.holds));
    Ok(offered)
}

/// A namespace may have many, above all of other programs.
const GENERATIONS_TOLD: usize = 5;

/// What going back to a file comes to that holds every write up to `cut`.
pub(super) fn what_it_gives_back(store: &Store, place: &Place, cut: Seq, present: Present) -> Result<String, Error> {
    let before = store.traces.lost_through;
    if cut < before {
        return Ok(format!(
            "take the kept file that holds every write up to sequence number {cut}; it is from before the journal was lost, and what was written after it with {} is lost",
            span_of(cut.next(), before)
        ));
    }
    let mut lacks = store.what_it_would_lack(place, cut, present)?;
    if store.end_of_a_cut_journal().is_some() || matches!(present, Present::Own(_)) {
        lacks.extend(store.what_only_the_present_file_has(cut, present, &store.layout.namespace_file(place)));
    }
    let lacks = lacks.join("; ");
    Ok(if lacks.is_empty() {
        format!(
            "take the kept file that holds every write up to sequence number {cut}, and apply all later ones that the journal knows. Do it before a daemon is started here: a start lets go of what no file waits for"
        )
    } else {
        format!(
            "take the kept file that holds every write up to sequence number {cut}, and apply the later ones that are left: {lacks}"
        )
    })
}
