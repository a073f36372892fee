//! How the daemon is, as one JSON object: for `commonhold status`, and for whatever watches it.
//!
//! The object gains members over time and loses none. It leads with what must be done: `refuses_writes` tells why
//! writing has ended, `warnings` what else is not as it should be. Times are in milliseconds since 1970 or, where the
//! name says so, in seconds; sizes are in bytes.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;

use crate::engine::{Opening, Stats, Table};
use crate::proto::{Durability, Kind, NamespaceInfo, Place};

use super::Daemon;
use super::fault::with_causes;
use super::watches::Counts;

#[derive(Serialize)]
struct Status<'a> {
    refuses_writes: Option<String>,
    /// What kind of reason that is: `full` (a disk on which the journal could not be begun: it is, as soon as there is room),
    /// `taken` (the lock file was removed or replaced), `disk` (it has failed).
    refuses_because: Option<&'static str>,
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
    /// Namespaces that were to be loaded at the start are not loaded yet.
    preloading: bool,
    /// What is being loaded right now.
    loading: Vec<Loading>,
    boot: u64,
    seq: Seqs,
    sessions: usize,
    coordination: Coordinated,
    watches: Watched,
    near_cache: super::version_table::Told,
    memory: Memory,
    journal: Journal,
    outcomes: Outcomes,
    opening: Opened,
    foreign_files: u64,
    /// The journal finds no room: writes are refused but for deletes and clears, and these too where it could not be begun.
    disk_full: bool,
    totals: Totals,
    namespaces: Vec<OneNamespace<'a>>,
}

#[derive(Serialize)]
struct Memory {
    /// Records, indexes, old versions that somebody still reads, the journal's buffer, and the clients' outcomes.
    used_bytes: u64,
    /// The most that may be, if there is a limit.
    limit_bytes: Option<u64>,
}

#[derive(Serialize)]
struct Loading {
    namespace: String,
    /// Bytes of its file that are done.
    done_bytes: u64,
    total_bytes: u64,
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
    /// What waits in the daemon's buffer: a killed daemon loses it.
    unwritten_bytes: usize,
    /// Beyond this the daemon flushes by itself.
    limit: u64,
    /// How many files it has rewritten because of that.
    auto_flushes: u64,
    syncs: u64,
    /// The namespaces whose files the oldest segment waits for.
    waiting: Vec<String>,
    /// The namespaces whose files are not what was flushed, and why: segments with writes to them are kept.
    held: Vec<Held>,
    /// The namespace with the oldest write that its file lacks.
    oldest_waiting: Option<Oldest>,
}

/// What became of clients' last writes, kept so that one that is sent again is not done again.
#[derive(Serialize)]
struct Outcomes {
    clients: usize,
    kept: usize,
    /// About what that takes in memory.
    bytes: usize,
}

#[derive(Serialize)]
struct Held {
    namespace: String,
    reason: String,
    /// Whether a flush of everything, and a stop, leave the file as it is.
    left_by_flush: bool,
}

#[derive(Serialize)]
struct Oldest {
    namespace: String,
    /// How long that write has been waiting.
    waiting_ms: u64,
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
    /// Files rewritten since the start.
    rewrites: u64,
    /// What that wrote.
    bytes_written: u64,
}

#[derive(Serialize)]
struct OneNamespace<'a> {
    workspace: &'a str,
    namespace: &'a str,
    /// `persistent` or `volatile`.
    kind: &'static str,
    /// `loaded`, `unloaded` or `closed`.
    state: &'static str,
    records: Option<u64>,
    bytes: u64,
    file_bytes: Option<u64>,
    /// Whether the file lacks something that the namespace holds.
    dirty: bool,
    /// Why it is closed, if it is.
    reason: Option<&'a str>,
    /// What its records and index take in memory beside keys and values.
    overhead_bytes: u64,
    /// How often it was loaded since the start.
    loads: u64,
    /// How often its file was rewritten since then.
    rewrites: u64,
    /// What that wrote.
    bytes_written: u64,
    last_flush: Option<LastFlush>,
    /// The last flush, if it failed.
    failed_flush: Option<FailedFlush>,
    /// How long its oldest write that the file lacks has been waiting.
    waiting_ms: Option<u64>,
}

#[derive(Serialize)]
struct FailedFlush {
    unix_ms: u64,
    reason: String,
}

#[derive(Serialize)]
struct LastFlush {
    unix_ms: u64,
    took_ms: f64,
    bytes: u64,
}

/// How much is held and waited for.
#[derive(Serialize)]
struct Coordinated {
    locks_held: usize,
    locks_waiting: usize,
    slots_taken: u64,
    slots_waiting: usize,
    elections_running: usize,
    elections_waiting: usize,
    flags: usize,
}

/// Who watches, and what that takes.
#[derive(Serialize)]
struct Watched {
    count: usize,
    /// How many sessions watch, and how many watches that one has that has the most.
    sessions: usize,
    most_of_one_session: usize,
    namespaces: usize,
    /// The newest changes of the namespaces that are watched.
    kept_bytes: u64,
    /// How often a watch was looked at since the start: once or twice for each write to its namespace.
    looks: u64,
}

fn watches(daemon: &Daemon) -> Watched {
    let Counts { watches, sessions, most_of_one_session, namespaces, looks } = daemon.watches.counts();
    let kept_bytes = daemon.store().kept_for_watches();
    Watched { count: watches, sessions, most_of_one_session, namespaces, kept_bytes, looks }
}

fn coordination(daemon: &Daemon) -> Coordinated {
    daemon.coordination().look(|state| {
        let (locks_held, locks_waiting) = state.locks.counts();
        let (slots_taken, slots_waiting) = state.slots.counts();
        let (elections_running, elections_waiting) = state.elections.counts();
        let flags = state.flags.count();
        Coordinated {
            locks_held,
            locks_waiting,
            slots_taken,
            slots_waiting,
            elections_running,
            elections_waiting,
            flags,
        }
    })
}

/// The object's text.
pub(super) fn json(daemon: &Daemon) -> String {
    let store = daemon.store();
    let mut warnings = Vec::new();
    let list = store.namespaces().unwrap_or_else(|error| {
        warnings.push(with_causes(&error));
        Vec::new()
    });
    // Asked for first: what has been loaded meanwhile is rather told twice than not at all.
    let progress = |(place, done_bytes, total_bytes): (Place, u64, u64)| Loading {
        namespace: place.to_string(),
        done_bytes,
        total_bytes,
    };
    let loading: Vec<Loading> = store.loading().into_iter().map(progress).collect();
    let tables = store.loaded();
    let names_of = |table: &Arc<Table>| (table.place().workspace.to_string(), table.place().namespace.to_string());
    let tables: HashMap<_, _> = tables.iter().map(|table| (names_of(table), table)).collect();
    let one = |info| one(info, tables.get(&(info.workspace.clone(), info.namespace.clone())).copied());
    let namespaces: Vec<OneNamespace<'_>> = list.iter().map(one).collect();
    let totals = total(&namespaces);
    warn(&mut warnings, store.opening(), &totals);
    let (disk_full, waits_for_room) = (store.is_disk_full(), store.waits_for_room());
    if disk_full && waits_for_room.is_none() {
        warnings.push(
            "the disk is full: writes are refused, deletes and clears go on as long as the room lasts that is kept for them; writes go on by themselves when there is room".to_owned(),
        );
    }
    let refuses_because = match store.refuses_writes() {
        Some(_) if store.has_lost_its_lock_file() => Some("taken"),
        Some(_) => Some("disk"),
        None => waits_for_room.as_ref().map(|_| "full"),
    };
    let Stats {
        applied,
        synced,
        syncs,
        segments,
        journal_bytes,
        unwritten_bytes,
        pinned_by,
        foreign_files,
        outcomes: (clients, kept, bytes),
    } = store.stats();
    let held = |(place, reason): (Place, String)| {
        let left_by_flush = store.is_left_by_flush(&place);
        Held { namespace: place.to_string(), reason, left_by_flush }
    };
    let held: Vec<Held> = store.held().into_iter().map(held).collect();
    warnings.extend(namespaces.iter().filter_map(|one| {
        let reason = &one.failed_flush.as_ref()?.reason;
        Some(format!("the last flush of {} failed: {reason}", name_of(one)))
    }));
    warnings.extend(held.iter().map(|held| format!("namespace {}: {}", held.namespace, held.reason)));
    warnings.extend(taken_as_found(&names(&store.taken_as_found())));
    let options = store.options();
    let (used_bytes, limit_bytes) = store.memory();
    let status = Status {
        refuses_writes: store.refuses_writes().or(waits_for_room),
        refuses_because,
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
        stopping: !daemon.takes_writes(),
        preloading: daemon.is_preloading(),
        loading,
        boot: store.boot(),
        seq: Seqs { applied: applied.0, synced: synced.0 },
        sessions: daemon.session_count(),
        coordination: coordination(daemon),
        watches: watches(daemon),
        near_cache: daemon.versions().told(),
        memory: Memory { used_bytes, limit_bytes },
        journal: Journal {
            segments,
            bytes: journal_bytes,
            unwritten_bytes,
            limit: store.journal_limit(),
            auto_flushes: daemon.flusher().relief_files(),
            syncs,
            waiting: names(&pinned_by),
            held,
            oldest_waiting: oldest(&namespaces),
        },
        outcomes: Outcomes { clients, kept, bytes },
        opening: opened(store.opening()),
        foreign_files,
        disk_full,
        totals,
        namespaces,
    };
    serde_json::to_string(&status).expect("a status is made of text, numbers and lists")
}

fn names(places: &[Place]) -> Vec<String> {
    places.iter().map(Place::to_string).collect()
}

fn one<'a>(info: &'a NamespaceInfo, table: Option<&Arc<Table>>) -> OneNamespace<'a> {
    let costs = table.map(|table| table.costs()).unwrap_or_default();
    OneNamespace {
        workspace: &info.workspace,
        namespace: &info.namespace,
        kind: match info.kind {
            Kind::Persistent => "persistent",
            Kind::Volatile => "volatile",
        },
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
        overhead_bytes: table.map_or(0, |table| table.overhead_bytes()),
        loads: costs.loads,
        rewrites: costs.rewrites,
        bytes_written: costs.bytes_written,
        last_flush: costs.last_flush.map(|flush| LastFlush {
            unix_ms: flush.unix_ms,
            took_ms: flush.took.as_secs_f64() * 1_000.0,
            bytes: flush.bytes,
        }),
        failed_flush: table
            .and_then(|table| table.failed_flush())
            .map(|failed| FailedFlush { unix_ms: failed.unix_ms, reason: failed.reason }),
        waiting_ms: costs.waiting_for.map(|span| span.as_millis() as u64),
    }
}

/// The namespace that has been waiting for its file for the longest time.
fn oldest(list: &[OneNamespace<'_>]) -> Option<Oldest> {
    let oldest = list.iter().max_by_key(|one| one.waiting_ms)?;
    oldest.waiting_ms.map(|waiting_ms| Oldest { namespace: name_of(oldest), waiting_ms })
}

fn name_of(one: &OneNamespace<'_>) -> String {
    if one.workspace.is_empty() { one.namespace.to_owned() } else { format!("{}/{}", one.workspace, one.namespace) }
}

fn total(list: &[OneNamespace<'_>]) -> Totals {
    let mut totals = Totals { namespaces: list.len(), ..Totals::default() };
    for one in list {
        totals.loaded += usize::from(one.records.is_some());
        totals.dirty += usize::from(one.dirty);
        totals.closed += usize::from(one.reason.is_some());
        totals.records += one.records.unwrap_or(0);
        totals.bytes += one.bytes;
        totals.overhead_bytes += one.overhead_bytes;
        totals.file_bytes += one.file_bytes.unwrap_or(0);
        totals.rewrites += one.rewrites;
        totals.bytes_written += one.bytes_written;
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

/// Files that are not those that were flushed, and are served all the same.
fn taken_as_found(places: &[String]) -> Option<String> {
    let what = match places {
        [] => return None,
        [place] => format!("the file of namespace {place} is not the one"),
        places => format!("the files of namespaces {} are not those", places.join(", ")),
    };
    Some(format!(
        "{what} that the store last wrote or loaded, and taken as found, for nothing waits in the journal: another program wrote it, or it was damaged or put back from elsewhere. The next write settles it; `commonhold check --deep` with the daemon stopped tells how to go back"
    ))
}

fn warn(warnings: &mut Vec<String>, opening: &Opening, totals: &Totals) {
    if opening.journal_is_gone {
        warnings.push(
            "the journal of an earlier owner was gone at the start: the files were taken as they are, and what only the journal held is lost; put its files back if you have them, and start again".to_owned(),
        );
    }
    if let Some(end) = opening.journal_ends_at {
        warnings.push(format!(
            "at the start, kept files had greater sequence numbers than the journal, which ended with {end}: its end was cut off, or it is an older one that was put back, and writes that only its end held are lost; put its files back if you have them, and start again"
        ));
    }
    if let Some(tail) = &opening.set_aside {
        warnings.push(format!(
            "the start set aside the last {} bytes of {}, which are no whole records: nothing in the journal shows that they had been synced; they are kept in .commonhold/journal/aside",
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
        warnings.push(format!("{what}: see each reason; put the right file back and start the daemon again, or let `commonhold check` tell what can be done"));
    }
}
