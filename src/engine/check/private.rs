//! What lies in `.commonhold` beside the journal's segments: kept files, quarantine, and what dead owners left.

use std::path::{Path, PathBuf};

use commonhold_proto::Place;

use super::super::disk::{Entry, Kind};
use super::super::error::Error;
use super::super::journal::{Fingerprint, is_segment};
use super::super::store::Store;
use super::super::words::size;
use super::{Check, Finding, Kept, Severity, generations_of};

impl Check<'_> {
    pub(super) fn private_files(&mut self, store: &Store) -> Result<(), Error> {
        for place in self.rooms("generations", Kind::Dir) {
            for kept in generations_of(store, &place)? {
                if kept.foreign {
                    let finding = Finding::new(
                        Severity::Note,
                        "foreign_generation",
                        &kept.path,
                        self.whose(store, &place, &kept),
                    )
                    .of(&place)
                    .so("it stays until you delete it");
                    self.report.findings.push(finding);
                }
                if self.deep {
                    self.generation(store, &place, &kept);
                }
            }
        }
        for entry in self.list(&self.layout.journal()) {
            let path = self.layout.journal().join(&entry.name);
            if entry.name.to_str().is_some_and(|name| name.ends_with(".log.new")) {
                let finding = Finding::new(
                    Severity::Note,
                    "unfinished_segment",
                    path,
                    "it is a journal segment that was not in use yet when its daemon ended",
                )
                .so("it does not count, and the next start removes it");
                self.report.findings.push(finding);
            } else if let Some(number) = entry.name.to_str().and_then(|name| name.strip_suffix(".log"))
                && number.bytes().all(|byte| byte.is_ascii_digit())
                && !is_segment(&self.layout, &path)
            {
                let finding = Finding::new(
                    Severity::Warning,
                    "stray_segment",
                    path,
                    "it ends as the name of a journal segment does, and no segment has this name",
                )
                .so("it does not count: if it is a segment that was renamed, what only it holds is missing")
                .remedy("give it its own name again, eight digits with the number that is in byte 16 of it, or move it out of the journal's directory");
                self.report.findings.push(finding);
            }
        }
        for path in self.layout.inner_directories() {
            if self.disk.lstat(&path).is_ok_and(|found| found.kind != Kind::Dir) {
                let finding = Finding::new(Severity::Error, "not_a_directory", path, "it is no directory of its own")
                    .so("the store does not start, and can be exported; nothing of it is changed")
                    .remedy("move what is there out of the store, and put the directory back if you have it");
                self.report.findings.push(finding);
            }
        }
        for entry in self.list(&self.layout.aside()) {
            let path = self.layout.aside().join(&entry.name);
            let finding = if let Some(what) = self.what_was_lost(&path) {
                Finding::new(Severity::Warning, "journal_lost", path, what).so(
                    "writes that only the journal held are lost, and which they were cannot be known; whoever needs them has to bring them again, or put the whole store back from a copy. Delete this file when that is settled",
                )
            } else {
                let bytes = self.disk.lstat(&path).map_or(0, |found| found.bytes);
                let what = format!("{} were cut off the end of the journal", size(bytes));
                Finding::new(Severity::Note, "aside", path, what)
                    .so("they do not count; the file stays until you delete it")
            };
            self.report.findings.push(finding);
        }
        self.quarantine(store);
        Ok(())
    }

    /// Where a file comes from that was kept as foreign.
    fn whose(&self, store: &Store, place: &Place, kept: &Kept) -> String {
        let known = store.known(place);
        let bytes = self.disk.lstat(&kept.path).map_or(0, |found| found.bytes);
        let may_be_known = known.entries.iter().any(|entry| entry.file.is_some_and(|file| file.bytes == bytes));
        let print = may_be_known.then(|| self.disk.read(&kept.path).ok()).flatten().map(|read| Fingerprint::of(&read));
        match print.and_then(|print| known.cut_of(Some(print))) {
            Some(cut) => format!("this file, which holds every write up to sequence number {cut}, was kept when a repair replaced it"),
            None => "this file was kept when it was replaced: by a flush, because it was not the file that the store had left there (another program wrote it, or it was damaged or put back from elsewhere), or by a repair, which keeps whatever it replaces, also the store's own".to_owned(),
        }
    }

    /// What a start noted of a lost journal.
    fn what_was_lost(&self, path: &Path) -> Option<String> {
        path.file_name()?.to_str()?.strip_suffix(".json")?;
        let text = self.disk.read(path).ok()?;
        let noted: serde_json::Value = serde_json::from_slice(&text).ok()?;
        Some(format!(
            "{}; new sequence numbers began above {}",
            noted["what"].as_str()?,
            noted["numbers_go_on_above"].as_u64()?
        ))
    }

    fn quarantine(&mut self, store: &Store) {
        for (workspace, room) in self.rooms_of("quarantine") {
            for entry in self.list(&room) {
                let Some(name) = entry.name.to_str() else { continue };
                let path = room.join(name);
                let place = name.strip_suffix(".records").and_then(|name| Place::new(&workspace, name).ok());
                let waits = place.as_ref().filter(|place| store.quarantine_of(place).is_some());
                if place.as_ref().is_some_and(|place| store.flaw_of_quarantine(place).is_some()) {
                    // An error tells of it.
                    continue;
                }
                let finding = match (place.as_ref(), waits) {
                    (_, Some(place)) => Finding::new(
                        Severity::Note,
                        "quarantine",
                        path,
                        "it holds writes that wait for the namespace's file",
                    )
                    .of(place)
                    .so(
                        "it is needed: they are applied when the right file is there, and it goes after the next flush",
                    ),
                    (Some(place), None) => Finding::new(
                        Severity::Note,
                        "quarantine_settled",
                        path,
                        "everything in it is in the namespace's file",
                    )
                    .of(place)
                    .so("the next start removes it"),
                    (None, None) => Finding::new(
                        Severity::Note,
                        "quarantine_aside",
                        path,
                        if name.strip_suffix(".new").is_some() {
                            "it is an unfinished quarantine file, of a daemon or a repair that died while it wrote it"
                        } else {
                            "writes of a namespace that do not count any more: a repair set them aside, or the daemon did when it took another file than the journal knew for right"
                        },
                    )
                    .so("they do not count; the file stays until you delete it"),
                };
                self.report.findings.push(finding);
            }
        }
    }

    /// The namespaces that have a directory or a file in a room of `.commonhold`.
    fn rooms(&self, room: &str, kind: Kind) -> Vec<Place> {
        let mut places = Vec::new();
        for (workspace, path) in self.rooms_of(room) {
            let names = self.list(&path).into_iter().filter(|entry| entry.kind == kind).map(|entry| entry.name);
            places.extend(names.filter_map(|name| Place::new(&workspace, name.to_str()?).ok()));
        }
        places
    }

    /// The directory of the root and of each workspace in a room of `.commonhold`.
    fn rooms_of(&self, room: &str) -> Vec<(String, PathBuf)> {
        let room = self.layout.private().join(room);
        let workspaces = room.join("w");
        let mut rooms = vec![(String::new(), room.join("@"))];
        for entry in self.list(&workspaces) {
            if let Some(name) = entry.name.to_str() {
                rooms.push((name.to_owned(), workspaces.join(name)));
            }
        }
        rooms
    }

    /// The names in a directory; of one that is not there, or cannot be read, there is nothing to tell.
    fn list(&self, path: &Path) -> Vec<Entry> {
        self.disk.list(path).unwrap_or_default()
    }
}
