//! From a request to its answer, in one synchronous function, however sessions are served.
//!
//! Reads are answered here and now. A write is prepared here (names, limits, JSON, records: all that needs no turn) and
//! committed by the session together with its neighbours. Commit, flush and stop are not reads: the session hands them
//! on before it comes here.

use std::cell::LazyCell;
use std::sync::Arc;

use crate::engine::{Record, ScanQuery, Snapshot, Store, Table, WriteRequest};
use crate::proto::limits::{MAX_OPERATIONS, REPLY_PART_BYTES, SCAN_PAGE_BYTES};
use crate::proto::names::check_key;
use crate::proto::{
    Answer, Cursor, Entry, Fault, FlagAction, Found, Kind, NamespaceInfo, Op, Place, Space, Tag, Verb, WorkspaceInfo,
    Write,
};

use super::Daemon;
use super::fault::check_count;
use super::order::Touches;
use super::registry;
use super::replies::{Parts, Piece, Replies};
use super::session::hold_refused;
use super::tables::Tables;

/// Answers a request that changes nothing and waits for nothing but the load of its namespace.
pub(super) fn read(daemon: &Daemon, tables: &mut Tables, id: u64, verb: &Verb<'_>, replies: &mut Replies) {
    if let Err(fault) = try_read(daemon, tables, id, verb, replies) {
        replies.refuse(id, fault);
    }
    tables.let_go();
}

fn try_read(
    daemon: &Daemon,
    tables: &mut Tables,
    id: u64,
    verb: &Verb<'_>,
    replies: &mut Replies,
) -> Result<(), Fault> {
    match verb {
        Verb::Ping => replies.answer(id, &Answer::Done),
        Verb::Get { space, key } => {
            check_key(key)?;
            let (record, tag) = tables.get(space)?.get_tagged(key);
            replies.answer(id, &Answer::Got { found: record.as_ref().map(found), tag });
        }
        Verb::GetMany { space, keys } => {
            check_keys(keys)?;
            let (records, tags) = tables.get(space)?.get_many_tagged(keys);
            replies.stream(id, Box::new(Many { records, tags, at: 0 }));
        }
        Verb::FilterMissing { space, keys } => {
            check_keys(keys)?;
            let missing = tables.get(space)?.filter_missing(keys);
            replies.answer(id, &Answer::Missing { keys: missing });
        }
        Verb::Contains { space, key } => {
            check_key(key)?;
            let found = tables.get(space)?.contains(key);
            replies.answer(id, &Answer::Contains { found });
        }
        Verb::Len { space } => {
            let records = tables.get(space)?.len();
            replies.answer(id, &Answer::Len { records });
        }
        Verb::Scan { space, cursor, prefix, limit, values } => {
            let (cursor, limit, max_bytes) = (*cursor, *limit as usize, SCAN_PAGE_BYTES);
            scan(tables, id, space, &ScanQuery { cursor, prefix, limit, max_bytes }, *values, replies)?;
        }
        Verb::Namespaces => list_namespaces(daemon.store(), id, replies)?,
        Verb::Status => replies.answer(id, &Answer::Status { json: &super::status::json(daemon) }),
        Verb::Write(_)
        | Verb::WriteAgain { .. }
        | Verb::Commit
        | Verb::Flush { .. }
        | Verb::Drop { .. }
        | Verb::DropOnce { .. }
        | Verb::Flag { .. }
        | Verb::Flags
        | Verb::Elect { .. }
        | Verb::Initialized { .. }
        | Verb::Lock(_)
        | Verb::Unlock { .. }
        | Verb::Locks
        | Verb::Acquire { .. }
        | Verb::Release { .. }
        | Verb::SetLimit { .. }
        | Verb::Slots
        | Verb::Watch { .. }
        | Verb::Stop => {
            unreachable!("the session serves what changes or waits itself")
        }
        Verb::Sessions => replies.stream(id, registry::listing(daemon.guests())),
        Verb::EndSession { id: number } => {
            daemon.end_session_of(*number)?;
            replies.answer(id, &Answer::Done);
        }
        Verb::GetAll { space, values } => {
            let snapshot = tables.get(space)?.snapshot(daemon.store().options().snapshot_bytes);
            replies.stream(id, Box::new(All { snapshot, values: *values, records: Vec::new() }));
        }
        // It has stood in line behind others of its session.
        Verb::Hold => return Err(hold_refused()),
        Verb::Workspaces => {
            let list = daemon.store().workspaces().map_err(|error| Fault::from(&error))?;
            replies.stream(id, Box::new(Workspaces(list)));
        }
    }
    Ok(())
}

fn check_keys(keys: &[&str]) -> Result<(), Fault> {
    check_count("keys", keys.len())?;
    keys.iter().try_for_each(|key| check_key(key)).map_err(Fault::from)
}

fn found(record: &Record) -> Found<'_> {
    Found { value: record.value(), seq: record.seq() }
}

/// Records on their way out, in parts of about [`REPLY_PART_BYTES`]. They are one moment's, and stay what they were
/// however long the client takes: a record is immutable, and holding it keeps it.
struct Many {
    records: Vec<Option<Record>>,
    /// As many, or none.
    tags: Vec<Tag>,
    at: usize,
}

impl Parts for Many {
    fn next(&mut self, piece: &mut Piece<'_>) {
        let rest = &self.records[self.at..];
        let mut bytes = 0;
        let full = rest.iter().position(|record| {
            let is_full = bytes >= REPLY_PART_BYTES;
            bytes += record.as_ref().map_or(0, |record| record.value().len());
            is_full
        });
        let end = full.unwrap_or(rest.len());
        let found = rest[..end].iter().map(|record| record.as_ref().map(found)).collect();
        let tags = self.tags.get(self.at..self.at + end).map(<[Tag]>::to_vec).unwrap_or_default();
        let answer = Answer::GotMany { found, tags };
        if full.is_some() {
            piece.part(&answer);
        } else {
            piece.last(&answer);
        }
        self.at += end;
    }
}

fn scan(
    tables: &mut Tables,
    id: u64,
    space: &Space<'_>,
    query: &ScanQuery<'_>,
    values: bool,
    replies: &mut Replies,
) -> Result<(), Fault> {
    let page = tables.get(space)?.scan(query).map_err(|error| Fault::from(&error))?;
    let entries = entries(&page.records, values);
    let next = page.next.as_ref().map(|next| Cursor { load: next.load, ordinal: next.ordinal, key: &next.key });
    replies.answer(id, &Answer::Page { entries, next, seq: page.seq });
    Ok(())
}

/// So many short records end a part, too: with the slice that passes it, it still is a list that may travel.
const PART_RECORDS: usize = MAX_OPERATIONS / 2;

/// Every record of one moment on its way out, in parts of about [`REPLY_PART_BYTES`]. Between them writers go on, and what
/// is kept for a client that takes them slowly is bounded.
struct All {
    snapshot: Snapshot,
    values: bool,
    records: Vec<Record>,
}

impl Parts for All {
    fn next(&mut self, piece: &mut Piece<'_>) {
        self.records.clear();
        let size = |record: &Record| if self.values { record.bytes() } else { record.key().len() };
        let (mut counted, mut bytes, mut more) = (0, 0, true);
        while more && bytes < REPLY_PART_BYTES && counted < PART_RECORDS {
            more = match self.snapshot.next(&mut self.records) {
                Ok(more) => more,
                Err(error) => return piece.last(&Answer::Fault(Fault::from(&error))),
            };
            bytes += self.records[counted..].iter().map(size).sum::<usize>();
            counted = self.records.len();
        }
        let part = Answer::Records { entries: entries(&self.records, self.values), seq: self.snapshot.seq() };
        if more { piece.part(&part) } else { piece.last(&part) }
    }
}

fn entries(records: &[Record], values: bool) -> Vec<Entry<'_>> {
    records
        .iter()
        .map(|record| Entry { key: record.key(), seq: record.seq(), value: values.then(|| record.value()) })
        .collect()
}

struct Workspaces(Vec<WorkspaceInfo>);

impl Parts for Workspaces {
    fn next(&mut self, piece: &mut Piece<'_>) {
        let rest = self.0.split_off(self.0.len().min(NAMESPACES_A_PART));
        let answer = Answer::Workspaces { list: std::mem::replace(&mut self.0, rest) };
        if self.0.is_empty() { piece.last(&answer) } else { piece.part(&answer) }
    }
}

/// Namespaces or workspaces in one part of a listing; far below a frame, whatever their names.
const NAMESPACES_A_PART: usize = 4_096;

fn list_namespaces(store: &Store, id: u64, replies: &mut Replies) -> Result<(), Fault> {
    let list = store.namespaces().map_err(|error| Fault::from(&error))?;
    replies.stream(id, Box::new(Listing(list)));
    Ok(())
}

struct Listing(Vec<NamespaceInfo>);

impl Parts for Listing {
    fn next(&mut self, piece: &mut Piece<'_>) {
        let rest = self.0.split_off(self.0.len().min(NAMESPACES_A_PART));
        let answer = Answer::Namespaces { list: std::mem::replace(&mut self.0, rest) };
        if self.0.is_empty() { piece.last(&answer) } else { piece.part(&answer) }
    }
}

/// Does all of a write that needs no turn: names, limits, JSON, records.
pub(super) fn prepare_write(daemon: &Daemon, tables: &mut Tables, write: &Write<'_>) -> Result<WriteRequest, Fault> {
    check_count("operations", write.ops.len())?;
    check_count("namespaces", write.spaces.len())?;
    let mut request = WriteRequest::new(write.client, write.number);
    request.durability(write.durability);
    if let Some(token) = write.if_token {
        request.under(daemon.grant_of(token)?);
    }
    request.expect(write.ops.len());
    request.read_with(tables.reading.take());
    let added = match &write.spaces[..] {
        // Nearly always. The count of those who have it is all sessions', and each look at it takes it away from another processor.
        [space] => {
            tables.get(space).and_then(|table| add_ops(daemon, &mut request, std::slice::from_ref(table), write))
        }
        spaces => {
            let cloned: Result<Vec<_>, _> = spaces.iter().map(|space| tables.get(space).map(Arc::clone)).collect();
            cloned.and_then(|cloned| add_ops(daemon, &mut request, &cloned, write))
        }
    };
    tables.let_go();
    tables.reading = request.complete();
    added.map(|()| request)
}

/// Adds the operations of a write to `request`; they name the namespaces by their places in `spaces`.
fn add_ops(daemon: &Daemon, request: &mut WriteRequest, spaces: &[Arc<Table>], write: &Write<'_>) -> Result<(), Fault> {
    let table = |index: u32| {
        spaces.get(index as usize).ok_or_else(|| Fault::Malformed {
            reason: format!("an operation names namespace {index} of the {} that the request lists", spaces.len()),
        })
    };
    // One moment for all that the request stamps.
    let now_s = LazyCell::new(|| daemon.store().unix_s());
    for op in &write.ops {
        match *op {
            Op::Put { space, key, value, condition } => request.put(table(space)?, key, value, condition),
            Op::Delete { space, key, condition } => request.delete(table(space)?, key, condition),
            Op::Clear { space } => request.clear(table(space)?),
            Op::PutStamped { space, key, value, condition } => {
                request.put_stamped(table(space)?, key, value, *now_s, condition)
            }
            Op::Merge { space, key, fields, condition } => request.merge(table(space)?, key, fields, condition),
            Op::Increment { space, key, field, by, condition } => {
                request.increment(table(space)?, key, field, by, condition)
            }
            Op::Append { space, key, field, items, keep_last, condition } => {
                request.append(table(space)?, key, field, items, keep_last, condition)
            }
        }
        .map_err(|error| Fault::from(&error))?;
    }
    Ok(())
}

/// The one namespace that a flush means.
pub(super) fn place_to_flush(space: &Space<'_>) -> Result<Place, Fault> {
    let place = space.place()?;
    match space.kind {
        Kind::Persistent => Ok(place),
        Kind::Volatile => Err(Fault::Volatile { place: place.to_string(), what: "flushed".to_owned() }),
    }
}

/// The namespaces that must be in memory before a request can be served.
pub(super) fn spaces<'v, 'a>(verb: &'v Verb<'a>) -> &'v [Space<'a>] {
    match verb {
        Verb::Get { space, .. }
        | Verb::GetMany { space, .. }
        | Verb::FilterMissing { space, .. }
        | Verb::Contains { space, .. }
        | Verb::Len { space }
        | Verb::Scan { space, .. }
        | Verb::GetAll { space, .. }
        | Verb::Watch { space, .. }
        | Verb::Drop { space }
        | Verb::DropOnce { space, .. } => std::slice::from_ref(space),
        Verb::Write(write) | Verb::WriteAgain { write, .. } => &write.spaces,
        // A flag needs no records.
        Verb::Flag { .. }
        | Verb::Flags
        | Verb::Elect { .. }
        | Verb::Initialized { .. }
        | Verb::Lock(_)
        | Verb::Unlock { .. }
        | Verb::Locks
        | Verb::Acquire { .. }
        | Verb::Release { .. }
        | Verb::SetLimit { .. }
        | Verb::Slots
        | Verb::Hold
        | Verb::Ping
        | Verb::Commit
        | Verb::Flush { .. }
        | Verb::Namespaces
        | Verb::Workspaces
        | Verb::Status
        | Verb::Sessions
        | Verb::EndSession { .. }
        | Verb::Stop => &[],
    }
}

/// What a request must not overtake, nor be overtaken by, where others of its session wait.
pub(super) fn touches(verb: &Verb<'_>) -> Touches {
    match verb {
        // What was sent before them was meant to be done under what is given back here.
        Verb::Unlock { .. } | Verb::Release { .. } | Verb::Initialized { .. } => Touches::GivesBack,
        Verb::Commit
        | Verb::Flush { space: None, .. }
        | Verb::Namespaces
        | Verb::Workspaces
        | Verb::Flags
        | Verb::Hold => Touches::Everything,
        Verb::Lock(_)
        | Verb::Acquire { .. }
        | Verb::Elect { .. }
        | Verb::SetLimit { .. }
        | Verb::Locks
        | Verb::Slots => Touches::Holdings,
        Verb::Write(write) | Verb::WriteAgain { write, .. } => {
            Touches::Changes { places: places(&write.spaces), fenced: write.if_token.is_some() }
        }
        Verb::Drop { space }
        | Verb::DropOnce { space, .. }
        | Verb::Flag { space, .. }
        | Verb::Flush { space: Some(space), .. } => {
            Touches::Changes { places: places(std::slice::from_ref(space)), fenced: false }
        }
        _ => match spaces(verb) {
            [] => Touches::Nothing,
            spaces => Touches::Reads(places(spaces)),
        },
    }
}

/// A name that breaks its rule is no place: the request is refused where it is served.
fn places(spaces: &[Space<'_>]) -> Vec<Place> {
    let mut places: Vec<Place> = spaces.iter().filter_map(|space| space.place().ok()).collect();
    places.sort_unstable();
    places.dedup();
    places
}

/// Whether a request gives back something that nobody else can give back while its session lives. It is carried out however
/// long it waits, also if nobody wants its answer any more.
pub(super) fn gives_back(verb: &Verb<'_>) -> bool {
    matches!(
        verb,
        Verb::Unlock { .. }
            | Verb::Release { .. }
            | Verb::Initialized { .. }
            | Verb::Flag { action: FlagAction::Forget, .. }
    )
}

/// Reads of more keys than this may take long.
const MANY_KEYS: usize = 1_000;

/// A request of more bytes than this may take long: its JSON must be read.
const MANY_BYTES: usize = 256 * 1024;

/// Whether a request may read the disk, or keep a processor for longer than others should wait for it.
pub(super) fn may_take_long(verb: &Verb<'_>, bytes: usize) -> bool {
    match verb {
        Verb::GetMany { keys, .. } | Verb::FilterMissing { keys, .. } => keys.len() > MANY_KEYS || bytes > MANY_BYTES,
        Verb::Write(_) => bytes > MANY_BYTES,
        Verb::Flush { space, rewrite, .. } => space.is_none() && *rewrite,
        Verb::GetAll { .. }
        | Verb::WriteAgain { .. }
        | Verb::Drop { .. }
        | Verb::DropOnce { .. }
        | Verb::Namespaces
        | Verb::Workspaces
        | Verb::Status
        | Verb::Sessions
        | Verb::Flags
        | Verb::Locks
        | Verb::Slots
        // It takes the writer's turn.
        | Verb::Watch { .. }
        // It may wait a moment for the other session's turn.
        | Verb::EndSession { .. } => true,
        _ => false,
    }
}
