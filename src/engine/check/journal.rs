//! What is to be said of the journal: whether it is whole, and what is lost where it is not.

use std::fmt::Write as _;
use std::path::PathBuf;

use commonhold_proto::{Place, Seq};

use super::super::journal::{Fingerprint, Lost};
use super::super::store::Store;
use super::super::words::{counted, size, span_of};
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
                match store.losses.as_ref().map_or(0, |losses| losses.unread.len()) {
                    0 => "cut it at the last good record; the rest is kept in .commonhold/journal/aside",
                    1 => "go on without this segment; it is kept in .commonhold/journal/aside",
                    _ => "go on without the segments that have no readable header; they are kept in .commonhold/journal/aside",
                },
                command(store.dir(), None, "repair --cut-journal"),
            );
        finding.offset = Some(offset);
        self.report.findings.push(finding);
    }

    pub(super) fn journal(&mut self, store: &Store) {
        if let Some(tail) = store.tail.as_ref().filter(|_| store.losses.is_none()) {
            let what = format!(
                "the journal ends in {} that are no whole records, as a power cut or a full disk leaves them",
                size(tail.bytes)
            );
            let so = if store.lost.is_some() {
                "the next start sets them aside in .commonhold/journal/aside and goes on; see the error about the journal's end"
            } else {
                "the next start sets them aside in .commonhold/journal/aside and goes on; nothing in the journal shows that they had been synced"
            };
            let mut finding = Finding::new(Severity::Note, "journal_tail", &tail.segment, what).so(so);
            finding.offset = Some(tail.offset);
            self.report.findings.push(finding);
        }
        match store.lost {
            Some(Lost::Whole) => self.whole_journal_gone(store),
            Some(Lost::End(end)) => self.end_of_journal_gone(store, end),
            None => {}
        }
    }

    fn whole_journal_gone(&mut self, store: &Store) {
        let flushed = ["flush", "generations"].map(|room| self.layout.private().join(room));
        let has_served = flushed.iter().any(|room| self.disk.lstat(room).is_ok());
        let severity = if has_served { Severity::Error } else { Severity::Warning };
        let what = "a daemon has owned this store, and its journal has no segment";
        let traces = store.traces.kept.iter().cloned();
        let traces = traces.chain(store.traces.noted.cuts().map(|(place, cut)| (place.clone(), cut)));
        let numbers = match newest(traces, Seq::ZERO) {
            Some(newest) => format!(
                "kept files, and what the last clean end noted, tell that it had come to these sequence numbers at least: {newest}"
            ),
            None => "no kept file tells how far it had come".to_owned(),
        };
        let so = format!(
            "the next start takes the JSON files as they are, notes it, and gives sequence numbers above all that any file's name tells. Writes that only the journal held are lost: those since the last flush of each namespace; {numbers}. Which writes are missing cannot be known"
        );
        let finding = Finding::new(severity, "journal_gone", self.layout.journal(), what).so(so).remedy(
            "put the journal's files back before a daemon is started, if you have them; otherwise start it, which begins a new journal",
        );
        self.report.findings.push(finding);
    }

    fn end_of_journal_gone(&mut self, store: &Store, end: Seq) {
        let told = [
            ("kept files have greater ones: ", newest(store.traces.kept.iter().cloned(), end)),
            (
                "the last clean end noted greater ones of the files that it left: ",
                newest(store.traces.noted.cuts().map(|(place, cut)| (place.clone(), cut)), end),
            ),
        ];
        let told = told.into_iter().filter_map(|(what, places)| Some(format!("{what}{}", places?)));
        let told = told.collect::<Vec<_>>().join(", and ");
        let told = if told.is_empty() { "quarantine files have greater ones".to_owned() } else { told };
        let what = format!(
            "the journal ends with sequence number {end}, and {told}. It had come as far and was synced then, so its end was cut off, or it is an older journal that was put back, or the files are another store's"
        );
        let finding = Finding::new(Severity::Error, "journal_end_gone", self.layout.journal(), what)
            .so(format!(
                "the next start takes what is left, notes it, and gives sequence numbers above all that any file's name tells. The namespaces' files hold at least what the files kept before them did; writes after {end} that only the journal held are lost, and which they were cannot be known"
            ))
            .remedy("put the journal's files back before a daemon is started, if you have them; otherwise start it, and look at the namespaces that stay closed");
        self.report.findings.push(finding);
    }
}

/// The names of segments: `00000001.log and 00000002.log`.
pub(in crate::engine) fn names(segments: &[PathBuf]) -> String {
    let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    segments.iter().map(name).collect::<Vec<_>>().join(" and ")
}

/// How many namespaces are named in a sentence.
const PLACES_TOLD: usize = 5;

/// The greatest number of each namespace that has one above this Seq, the greatest first: `n at 12, w/m at 9 and 3 more`.
fn newest(told: impl Iterator<Item = (Place, Seq)>, above: Seq) -> Option<String> {
    let mut kept: Vec<_> = told.filter(|(_, seq)| *seq > above).collect();
    kept.sort_by_key(|(place, seq)| (std::cmp::Reverse(*seq), place.clone()));
    let mut seen = std::collections::HashSet::new();
    kept.retain(|(place, _)| seen.insert(place.clone()));
    let more = kept.len().saturating_sub(PLACES_TOLD);
    let named: Vec<String> = kept.iter().take(PLACES_TOLD).map(|(place, seq)| format!("{place} at {seq}")).collect();
    let more = if more == 0 { String::new() } else { format!(" and {}", counted(more as u64, "more", "more")) };
    (!named.is_empty()).then(|| named.join(", ") + &more)
}

/// Which writes are lost when the journal is cut, as a sentence; `store` was opened so.
pub(in crate::engine) fn what_a_cut_loses(store: &Store) -> String {
    let Some(losses) = &store.losses else { return "nothing is lost".to_owned() };
    let mut told = String::new();
    if !losses.unread.is_empty() {
        let _ = write!(
            told,
            "{} cannot be read without a whole header: what no file and no later segment has of it is lost, and namespaces that need it stay closed; the other segments count; ",
            names(&losses.unread)
        );
    }
    let _ = write!(told, "what counts then ends with sequence number {}", losses.after);
    let greatest = losses.greatest.max(losses.synced);
    if greatest > losses.after {
        let _ = write!(told, "; sequence numbers {} to at least {greatest} are behind it", losses.after.next());
    }
    if !losses.writes.is_empty() {
        let whole = counted(losses.writes.len() as u64, "whole write", "whole writes");
        let _ = write!(
            told,
            "; {whole} {} can be read and {} given up all the same, kept only among what is set aside: what is damaged came before, and they may build on it",
            if losses.unread.is_empty() { "behind the damage" } else { "in what is set aside" },
            if losses.writes.len() == 1 { "is" } else { "are" }
        );
    }
    let by_place = losses.by_place();
    for (place, seqs) in by_place {
        let cut = cut_of_file(store, place);
        let lost: Vec<Seq> = seqs.iter().copied().filter(|seq| *seq > cut).collect();
        let in_file = seqs.len() - lost.len();
        match (lost.first(), lost.last()) {
            (Some(first), Some(last)) => {
                let _ = write!(told, "; {place} loses {} ({})", writes(lost.len()), span_of(*first, *last));
                if in_file > 0 {
                    let _ = write!(told, ", and its file has {}", counted(in_file as u64, "other", "others"));
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
    counted(count as u64, "write", "writes")
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
