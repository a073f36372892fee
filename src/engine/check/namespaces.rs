//! What is to be said of the namespaces: of their files, and of the records that wait for them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use commonhold_proto::{Place, Seq, Workspace};

use super::super::closing::{Closing, Why};
use super::super::disk::{Entry, Kind, Stat};
use super::super::error::Error;
use super::super::layout::{namespace_of_file, pid_of_temporary};
use super::super::load::Base;
use super::super::note::Present;
use super::super::store::Store;
use super::super::words::{counted, span_of};
use super::{Check, Finding, Severity, Unsettled};
use crate::json;

impl Check<'_> {
    pub(super) fn namespaces(&mut self, store: &Store) -> Result<(), Error> {
        let mut places = BTreeSet::new();
        let mut linked = BTreeSet::new();
        let root = self.layout.root().to_owned();
        let mut workspaces = vec![Workspace::root()];
        for entry in self.disk.list(&root).map_err(Error::disk("list", &root))? {
            let Some(workspace) = entry.name.to_str().and_then(|name| Workspace::new(name).ok()) else { continue };
            match entry.kind {
                Kind::Dir => workspaces.push(workspace),
                Kind::Link if self.is_meant_as_a_workspace(store, &workspace) => {
                    self.linked_workspace(&workspace);
                    linked.insert(workspace);
                }
                Kind::File | Kind::Other if store.is_used(&workspace)? => {
                    self.no_workspace(&workspace);
                    linked.insert(workspace);
                }
                _ => {}
            }
        }
        for workspace in &workspaces {
            let directory = self.layout.workspace(workspace);
            let listed = self.disk.list(&directory).map_err(Error::disk("list", &directory))?;
            self.directory(workspace, &directory, &listed, &mut places);
        }
        let known = store.turn.exclusive(|writer| {
            let places = writer.appender.table().iter().map(|(place, _)| place.clone());
            places.collect::<Vec<_>>()
        });
        places.extend(known);
        places.extend(store.quarantined());
        for place in places.iter().filter(|place| !linked.contains(&place.workspace)) {
            self.namespace(store, place)?;
        }
        Ok(())
    }

    /// A link of any other kind is none of the store's business.
    fn is_meant_as_a_workspace(&self, store: &Store, workspace: &Workspace) -> bool {
        let listed = self.disk.list(&self.layout.workspace(workspace)).unwrap_or_default();
        listed.iter().any(|entry| entry.name.to_str().is_some_and(|name| namespace_of_file(name).is_some()))
            || store
                .turn
                .exclusive(|writer| writer.appender.table().iter().any(|(place, _)| place.workspace == *workspace))
    }

    fn linked_workspace(&mut self, workspace: &Workspace) {
        let path = self.layout.workspace(workspace);
        let target = self.disk.read_link(&path).unwrap_or_default();
        let what = format!("the workspace is a symbolic link to {}", target.display());
        let finding = Finding::new(Severity::Error, "workspace_link", path, what)
            .so("no namespace in it is served; nothing of it is lost")
            .remedy("put the directory itself there, or serve the directory it leads to as a store of its own");
        self.report.findings.push(finding);
    }

    fn no_workspace(&mut self, workspace: &Workspace) {
        let finding = Finding::new(
            Severity::Error,
            "workspace_file",
            self.layout.workspace(workspace),
            format!("it is a file, where the directory of workspace {workspace} should be, which had namespaces"),
        )
        .so("no namespace in it is served; what the journal has of them is kept, and what only their files held is wherever the directory is")
        .remedy("move this file out of the store, and put the workspace's directory back");
        self.report.findings.push(finding);
    }

    fn directory(&mut self, workspace: &Workspace, path: &Path, listed: &[Entry], places: &mut BTreeSet<Place>) {
        let mut by_folded: BTreeMap<String, Vec<Place>> = BTreeMap::new();
        for name in listed.iter().filter_map(|entry| entry.name.to_str()) {
            if let Some(place) = namespace_of_file(name).and_then(|name| Place::new(workspace.as_str(), name).ok()) {
                by_folded.entry(place.namespace.as_str().to_ascii_lowercase()).or_default().push(place.clone());
                places.insert(place);
            } else if pid_of_temporary(name).is_some() {
                let finding = Finding::new(
                    Severity::Note,
                    "temporary",
                    path.join(name),
                    "it is the unfinished file of a flush that died",
                )
                .so("a later start removes it when it is an hour old; the namespace's file is whole without it");
                self.report.findings.push(finding);
            }
        }
        for clashing in by_folded.values().filter(|places| places.len() > 1) {
            let names: Vec<String> = clashing.iter().map(|place| place.namespace.file_name()).collect();
            let what = format!("{} differ only in letter case", names.join(" and "));
            let finding = Finding::new(Severity::Error, "case_clash", path.join(&names[0]), what)
                .of(&clashing[0])
                .so("none of these namespaces is served; their files are not touched")
                .remedy("merge them by hand into one, and move the others out of the store");
            self.report.findings.push(finding);
        }
    }

    fn namespace(&mut self, store: &Store, place: &Place) -> Result<(), Error> {
        self.report.namespaces += 1;
        let path = self.layout.namespace_file(place);
        let known = store.known(place);
        let found = self.disk.lstat(&path).ok();
        // Of the newest file; where its flush was not completed, of any.
        let newest = known.entries.iter().filter(|entry| entry.cut >= known.covered).filter_map(|entry| entry.file);
        let has_its_size =
            |found: &Stat| found.kind == Kind::File && newest.clone().any(|file| file.bytes == found.bytes);
        let looks_right = found.as_ref().is_some_and(|found| {
            has_its_size(found) && !store.is_held(place) && !store.is_other_than_it_was_left(place, found)
        });
        let waits = known.is_waiting() || store.flaw_of_quarantine(place).is_some();
        let was_dropped = found.is_none() && !waits && known.entries.iter().any(|entry| entry.file.is_none());
        if was_dropped && newest.clone().next().is_none() {
            // All is as the drop left it, and others may have the name since, in another letter case.
            self.report.namespaces -= 1;
            return Ok(());
        }
        if !self.deep && !waits && looks_right {
            return Ok(());
        }
        match store.base(place, None) {
            Ok(Ok(base)) => self.opens(store, place, &path, &base, waits),
            Ok(Err(closing)) => self.closed(store, place, &path, &closing),
            Err(error) => {
                let cause = std::error::Error::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
                let finding = Finding::new(Severity::Error, "unreadable", &path, format!("{error}{cause}"))
                    .of(place)
                    .so("requests to the namespace fail; nothing of it was changed")
                    .remedy("let the daemon's user read it, or mend the disk, and check again");
                self.report.findings.push(finding);
                Ok(())
            }
        }
    }

    fn opens(&mut self, store: &Store, place: &Place, path: &Path, base: &Base, waits: bool) -> Result<(), Error> {
        if store.is_taken_for_another(place, base) {
            let finding = super::taken::finding(store, place, path, base);
            self.unsettled.push((self.report.findings.len(), place.clone(), Unsettled::Taken));
            self.report.findings.push(finding);
        } else if base.file.unannounced.is_none() && base.covered < store.known(place).covered {
            self.report.findings.push(super::taken::earlier_file(store, place, path, base)?);
        }
        let inside = base.report.duplicate_keys_inside;
        let twice = base.report.records_seen.saturating_sub(base.map.len() as u64) + inside;
        for (kind, count, what, consequence) in [
            (
                "duplicate_keys",
                twice,
                ["key is there twice in one object", "keys are there twice in one object"],
                "the last value of each counts, at the place of the first",
            ),
            (
                "lone_surrogates",
                base.report.surrogates_removed,
                ["lone surrogate, half a character, is in it", "lone surrogates, half a character each, are in it"],
                "they are removed when it is loaded",
            ),
        ] {
            if count > 0 {
                let finding = Finding::new(Severity::Note, kind, path, counted(count, what[0], what[1]));
                self.report.findings.push(finding.of(place).so(consequence));
            }
        }
        if let Some(records) = &mut self.report.records {
            // The journal is applied as a start would do it; where nothing waits there is nothing to apply.
            let loaded = if waits { store.load(std::slice::from_ref(place), None)?.pop() } else { None };
            *records += loaded.and_then(Result::ok).map_or(base.map.len() as u64, |table| table.len());
        }
        Ok(())
    }

    fn closed(&mut self, store: &Store, place: &Place, path: &Path, closing: &Closing) -> Result<(), Error> {
        if let Why::NameClash { existing } = &closing.why
            && let Ok(other) = Place::new(place.workspace.as_str(), existing)
            && self.disk.lstat(path).is_ok()
            && self.disk.lstat(&self.layout.namespace_file(&other)).is_ok()
        {
            // Told of the two files together.
            return Ok(());
        }
        let kind = match &closing.why {
            Why::NotJson(_) => "not_json",
            Why::Link { .. } | Why::LinkedWorkspace { .. } => "link",
            Why::NoWorkspace { .. } => "workspace_file",
            Why::NotAFile => "not_a_file",
            Why::NameClash { .. } => "case_clash",
            Why::OtherFile => "other_file",
            Why::Decayed => "decayed_file",
            Why::Missing => "missing_file",
            Why::Gap { .. } => "missing_segments",
            Why::Quarantine { .. } => "quarantine_damage",
            Why::OtherJournal { .. } => "quarantine_of_another_journal",
        };
        let mut finding = Finding::new(Severity::Error, kind, path, closing.what()).of(place);
        match &closing.why {
            Why::NotJson(error) => {
                finding.offset = Some(error.offset as u64);
                finding.line = Some((error.line, error.column));
            }
            Why::Quarantine { file, offset, .. } => {
                finding.file.clone_from(file);
                finding.offset = Some(*offset);
            }
            Why::OtherJournal { file } => finding.file.clone_from(file),
            _ => {}
        }
        self.unsettled.push((self.report.findings.len(), place.clone(), Unsettled::Closed(closing.clone())));
        self.report.findings.push(finding.so(what_of_its_writes(store, place, closing)?));
        Ok(())
    }

    /// Reads a kept generation in a deep check, and compares it with what the journal knows of it.
    pub(super) fn generation(&mut self, store: &Store, place: &Place, kept: &super::Kept) {
        let bytes = match self.disk.read(&kept.path) {
            Ok(bytes) => bytes,
            Err(error) => {
                let what = format!("it cannot be read: {error}");
                let finding = Finding::new(Severity::Warning, "generation_damage", &kept.path, what)
                    .of(place)
                    .so("this kept file cannot be gone back to; the namespace's own file is another");
                self.report.findings.push(finding);
                return;
            }
        };
        *self.report.generations.get_or_insert_default() += 1;
        if let Err(error) = json::load_object(&bytes, &mut |_, _| {}) {
            let mut finding = Finding::new(
                Severity::Warning,
                "generation_damage",
                &kept.path,
                format!("it is not a JSON object: {error}"),
            )
            .of(place)
            .so("this kept file cannot be gone back to; the namespace's own file is another");
            finding.offset = Some(error.offset as u64);
            finding.line = Some((error.line, error.column));
            self.report.findings.push(finding);
            return;
        }
        let found = super::super::journal::Fingerprint::of(&bytes);
        let known = store.known(place);
        let expected = known.entries.iter().find(|entry| entry.cut == kept.number).and_then(|entry| entry.file);
        if !kept.foreign && expected.is_some_and(|expected| expected != found) {
            let finding = Finding::new(
                Severity::Warning,
                "generation_damage",
                &kept.path,
                "its bytes are not those that were flushed at its sequence number",
            )
            .of(place)
            .so("it parses, but something in it was changed since");
            self.report.findings.push(finding);
        }
    }
}

/// What follows from it that a namespace is closed: where its waiting writes are, and which of them are nowhere.
fn what_of_its_writes(store: &Store, place: &Place, closing: &Closing) -> Result<String, Error> {
    let mut told = "the namespace is closed and the others are served; nothing of it is changed".to_owned();
    let quarantine = store.quarantine_of(place).map(|quarantine| quarantine.path.display().to_string());
    let kept = quarantine.unwrap_or_else(|| "the journal".to_owned());
    if let Some((first, last)) = closing.lost {
        if let Some((from, _)) = closing.waiting.filter(|(from, _)| *from < first) {
            let before = Seq(first.0 - 1);
            told = format!("{told}. Its writes with {} can be read and are kept in {kept}", span_of(from, before));
        }
        let held = store.what_held_the_lost(place)?;
        // Of what is gone only the last one is known to have been a write to this namespace.
        let others = if first == last { String::new() } else { format!(", and any other from {first} on,") };
        told = format!(
            "{told}. Its write with sequence number {last}{others} cannot be read: {held}. It is lost unless a backup of that is put back"
        );
        if let Some((from, end)) = closing.waiting.filter(|(_, end)| *end > last) {
            let from = from.max(last.next());
            told = format!("{told}. Its writes with {} wait and are kept in the journal", span_of(from, end));
        }
    } else if let Some((first, last)) = closing.waiting {
        told = format!("{told}. Its writes with {} wait and are kept in {kept}", span_of(first, last));
    }
    let end = store.progress.appended();
    if !matches!(closing.why, Why::OtherFile) {
        return Ok(told);
    }
    let present = store.present_of(place)?;
    if let Present::Known(held) = present {
        told = format!(
            "{told}. The file is an older one of the namespace's own, which somebody has put back: it has the bytes of a kept one, and holds every write up to sequence number {held}"
        );
    } else if let Present::Own(held) = present {
        told = format!(
            "{told}. The file is the one that the store itself left there at its last clean end, and holds every write up to sequence number {held}: it is the journal that is not what it was, for it ends with sequence number {end}"
        );
    } else {
        told = format!(
            "{told}. Where the file comes from is not known: another program wrote it, or it was put back from elsewhere, or the journal is the wrong one, an older one or one whose end after sequence number {end} was cut off"
        );
    }
    Ok(told)
}
