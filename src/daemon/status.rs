//! How the daemon is, as one JSON object: for `commonhold status`, and for whatever watches it.
//!
//! The object gains members over time and loses none. It leads with what must be done: `refuses_writes` tells why
//! writing has ended, `warnings` what else is not as it should be. Times are in milliseconds since 1970 or, where the
//! name says so, in seconds; sizes are in bytes.

use serde::Serialize;

use crate::engine::{Opening, Stats};
use crate::proto::{Durability, NamespaceInfo, Place};

use super::Daemon;
use super::fault::with_causes;

#[derive(Serialize)]
struct Status<'a> {
    refuses_writes: Option<&'a str>,
    warnings: Vec<String>,
    version: &'static str,
    commit: &'static str,
    pid: u32,
    since_unix_ms: u64,
    uptime_s: f64,
    dir: String,
    durability: &'static str,
    file_format: String,
    stopping: bool,
    boot: u64,
    seq: Seqs,
    sessions: usize,
    journal: Journal,
    opening: Opened,
    foreign_files: u64,
    totals: Totals,
    namespaces: Vec<OneNamespace<'a>>,
}

#[derive(Serialize)]
struct Seqs {
    /// The last write that readers see.
    applied: u64,
    /// The last write on the platter.
    synced: u64,
}

#[derive(Serialize)]
struct Journal {
    segments: usize,
    bytes: u64,
    syncs: u64,
    /// The namespaces whose files the oldest segment waits for.
    waiting: Vec<String>,
}

#[derive(Serialize)]
struct Opened {
    /// Namespaces that were brought up to date from the journal.
    recovered: Vec<String>,
    /// Journal records that were carried over because they were not known to be on the platter.
    copied_records: u64,
    set_aside: Option<Tail>,
    closed: Vec<Closed>,
    temporaries_removed: usize,
}

#[derive(Serialize)]
struct Tail {
    segment: String,
    offset: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct Closed {
    place: String,
    reason: String,
}

#[derive(Default, Serialize)]
struct Totals {
    namespaces: usize,
    loaded: usize,
    dirty: usize,
    closed: usize,
    records: u64,
    /// Of keys and values in memory.
    bytes: u64,
    /// What records and indexes take in memory beside them.
    overhead_bytes: u64,
    file_bytes: u64,
}

#[derive(Serialize)]
struct OneNamespace<'a> {
    workspace: &'a str,
    namespace: &'a str,
    /// `loaded`, `unloaded` or `closed`.
    state: &'static str,
    records: Option<u64>,
    bytes: u64,
    file_bytes: Option<u64>,
    /// Whether the file lacks something that the namespace holds.
    dirty: bool,
    /// Why it is closed, if it is.
    reason: Option<&'a str>,
}

/// The object's text.
pub(super) fn json(daemon: &Daemon) -> String {
    let store = daemon.store();
    let mut warnings = Vec::new();
    let list = store.namespaces().unwrap_or_else(|error| {
        warnings.push(with_causes(&error));
        Vec::new()
    });
    let mut totals = total(&list);
    totals.overhead_bytes = store.loaded().iter().map(|table| table.overhead_bytes()).sum();
    warn(&mut warnings, store.opening(), &totals);
    let Stats { applied, synced, syncs, segments, journal_bytes, pinned_by, foreign_files } = store.stats();
    let options = store.options();
    let status = Status {
        refuses_writes: store.refuses_writes(),
        warnings,
        version: env!("CARGO_PKG_VERSION"),
        commit: env!("COMMONHOLD_COMMIT"),
        pid: std::process::id(),
        since_unix_ms: daemon.since_unix_ms(),
        uptime_s: daemon.uptime().as_secs_f64(),
        dir: store.dir().display().to_string(),
        durability: match options.durability {
            Durability::Memory => "memory",
            Durability::Buffered => "buffered",
            Durability::Synced => "synced",
        },
        file_format: options.file_format.to_string(),
        stopping: !*daemon.gate(),
        boot: store.boot(),
        seq: Seqs { applied: applied.0, synced: synced.0 },
        sessions: daemon.session_count(),
        journal: Journal { segments, bytes: journal_bytes, syncs, waiting: names(&pinned_by) },
        opening: opened(store.opening()),
        foreign_files,
        totals,
        namespaces: list.iter().map(one).collect(),
    };
    serde_json::to_string(&status).expect("a status is made of text, numbers and lists")
}

fn names(places: &[Place]) -> Vec<String> {
    places.iter().map(Place::to_string).collect()
}

fn one(info: &NamespaceInfo) -> OneNamespace<'_> {
    OneNamespace {
        workspace: &info.workspace,
        namespace: &info.namespace,
        state: match (&info.closed, info.records) {
            (Some(_), _) => "closed",
            (None, Some(_)) => "loaded",
            (None, None) => "unloaded",
        },
        records: info.records,
        bytes: info.bytes,
        file_bytes: info.file_bytes,
        dirty: info.dirty,
        reason: info.closed.as_deref(),
    }
}

fn total(list: &[NamespaceInfo]) -> Totals {
    let mut totals = Totals { namespaces: list.len(), ..Totals::default() };
    for info in list {
        totals.loaded += usize::from(info.records.is_some());
        totals.dirty += usize::from(info.dirty);
        totals.closed += usize::from(info.closed.is_some());
        totals.records += info.records.unwrap_or(0);
        totals.bytes += info.bytes;
        totals.file_bytes += info.file_bytes.unwrap_or(0);
    }
    totals
}

fn opened(opening: &Opening) -> Opened {
    Opened {
        recovered: names(&opening.recovered),
        copied_records: opening.copied_records,
        set_aside: opening.set_aside.as_ref().map(|tail| Tail {
            segment: tail.segment.display().to_string(),
            offset: tail.offset,
            bytes: tail.bytes,
        }),
        closed: opening
            .closed
            .iter()
            .map(|(place, reason)| Closed { place: place.to_string(), reason: reason.clone() })
            .collect(),
        temporaries_removed: opening.temporaries_removed.len(),
    }
}

fn warn(warnings: &mut Vec<String>, opening: &Opening, totals: &Totals) {
    if let Some(tail) = &opening.set_aside {
        warnings.push(format!(
            "the start set aside the last {} bytes of {}: they had not been synced when the machine stopped; they are kept in .commonhold/journal/aside",
            tail.bytes,
            tail.segment.display()
        ));
    }
    if totals.closed > 0 {
        let what = if totals.closed == 1 {
            "1 namespace is closed"
        } else {
            &format!("{} namespaces are closed", totals.closed)
        };
        warnings.push(format!("{what}: see each reason, put the right file back and start the daemon again"));
    }
}
