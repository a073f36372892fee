//! What is to be said of the journal: whether it is whole, and what is lost where it is not.

use std::fmt::Write as _;
use std::path::PathBuf;

use commonhold_proto::{Place, Seq};

use super::super::journal::Fingerprint;
use super::super::store::Store;
use super::{Check, Finding, Severity, command};

impl Check<'_> {
    pub(super) fn newer_format(&mut self, file: PathBuf, version: u32, known: u32) {
        let what = format!("it has format version {version}, and this release knows up to {known}");
        let finding = Finding::new(Severity::Error, "newer_format", file, what)
            .so("the store does not start with this release; nothing is wrong with it")
            .remedy("use the newer release of commonhold");
        self.report.findings.push(finding);
    }

    /// `store` is what is left when the journal is cut at its last good record.
    pub(super) fn journal_damage(&mut self, store: &Store, file: PathBuf, offset: u64, reason: &str) {
        let mut finding = Finding::new(Severity::Error, "journal_damage", file, reason)
            .so(format!("the store does not start. If the journal is cut there: {}", what_a_cut_loses(store)))
            .remedy("put the journal back from a copy of the whole store, if there is one")
            .command(
                "cut it at the last good record; the rest is kept in .commonhold/journal/aside",
                command(store.dir(), None, "repair --cut-journal"),
            );
        finding.offset = Some(offset);
        self.report.findings.push(finding);
    }

    pub(super) fn journal(&mut self, store: &Store, had_an_owner: bool) {
        if let Some(tail) = store.tail.as_ref().filter(|_| store.losses.is_none()) {
            let what = format!(
                "the journal ends in {} bytes that are no whole records and had not been synced, as a power cut or a full disk leaves them",
                tail.bytes
            );
            let mut finding = Finding::new(Severity::Note, "journal_tail", &tail.segment, what).so(
                "the next start sets them aside in .commonhold/journal/aside and goes on; no synced write is in them",
            );
            finding.offset = Some(tail.offset);
            self.report.findings.push(finding);
        }
        let (segments, _) = store.turn.exclusive(|writer| writer.appender.size());
        let directory = self.layout.journal();
        if segments == 0 && had_an_owner && !self.has_segments() {
            let flushed = ["flush", "generations"].map(|room| self.layout.private().join(room));
            let has_served = flushed.iter().any(|room| self.disk.lstat(room).is_ok());
            let severity = if has_served { Severity::Error } else { Severity::Warning };
            let finding = Finding::new(severity, "journal_gone", directory, "a daemon has owned this store, and its journal has no segment")
                .so("the next start takes the JSON files as they are; writes that only the journal held are lost, and sequence numbers begin anew")
                .remedy("put the journal's files back, if you have them; otherwise start the daemon, which begins a new journal");
            self.report.findings.push(finding);
        }
    }

    fn has_segments(&self) -> bool {
        let listed = self.disk.list(&self.layout.journal()).unwrap_or_default();
        listed.iter().any(|entry| entry.name.to_str().is_some_and(|name| name.strip_suffix(".log").is_some()))
    }
}

/// Which writes are lost when the journal is cut, as a sentence; `store` was opened so.
pub(in crate::engine) fn what_a_cut_loses(store: &Store) -> String {
    let Some(losses) = &store.losses else { return "nothing is lost".to_owned() };
    let mut told = format!("what counts then ends with sequence number {}", losses.after);
    let greatest = losses.greatest.max(losses.synced);
    if greatest > losses.after {
        let _ = write!(told, "; sequence numbers {} to at least {greatest} are behind it", losses.after.next());
    }
    let by_place = losses.by_place();
    for (place, seqs) in by_place {
        let cut = cut_of_file(store, place);
        let lost: Vec<Seq> = seqs.iter().copied().filter(|seq| *seq > cut).collect();
        let in_file = seqs.len() - lost.len();
        match (lost.first(), lost.last()) {
            (Some(first), Some(last)) => {
                let _ = write!(told, "; {place} loses {} ({first} to {last})", writes(lost.len()));
                if in_file > 0 {
                    let _ = write!(told, ", {} more are in its file", writes(in_file));
                }
            }
            _ => {
                let _ = write!(told, "; {place} loses nothing, its file has them");
            }
        }
    }
    told.push_str("; of damaged bytes it cannot be told which namespaces they were for");
    told
}

fn writes(count: usize) -> String {
    if count == 1 { "1 write".to_owned() } else { format!("{count} writes") }
}

/// Everything up to this Seq is in the namespace's file, as far as is known.
fn cut_of_file(store: &Store, place: &Place) -> Seq {
    let path = store.layout.namespace_file(place);
    let found = match store.disk.read(&path) {
        Ok(bytes) => Some(Fingerprint::of(&bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        // A link or a directory: nothing is known to be in it.
        Err(_) => return Seq::ZERO,
    };
    store.known(place).cut_of(found).unwrap_or(Seq::ZERO)
}
