//! Requests that a client sends again because it got no answer: each is done once, or answered as it was the first time.
//!
//! The engine decides under the turn. What is here sees to what may end a request before it gets there: a repeat is not
//! refused before it is known that it was not done, and one that is refused is noted. With its first repeat a client shuts
//! out what is left of the connections that it gave up ([`Fence`]), so that a first sending cannot be done later, when its
//! repeat is forgotten. Repeats are few, so each is committed by itself.

use crate::engine::{Dropped, Earlier, Fence, First, Numbered, WriteRequest, Written};
use crate::proto::message;
use crate::proto::{Durability, Fault, Kind, Place, Space, Verb, Write};

use super::Daemon;
use super::dispatch::prepare_write;
use super::tables::Tables;

/// Since this version of the wire a client's numbers count: before it nobody sent anything again.
pub(super) const NUMBERS_COUNT_SINCE: u16 = 3;

/// What a client knows of an earlier sending, in the engine's words.
pub(super) fn earlier(told: message::Earlier) -> Earlier {
    Earlier { boot: told.boot, after: told.after }
}

/// Whether a request says that it was sent before.
pub(super) fn is_repeat(verb: &Verb<'_>) -> bool {
    matches!(verb, Verb::WriteAgain { .. } | Verb::DropOnce { earlier: Some(_), .. })
}

/// Does a write that may have been done, or answers what it was answered then.
pub(super) fn write(
    daemon: &Daemon,
    tables: &mut Tables,
    write: &Write<'_>,
    told: message::Earlier,
    fence: &Fence,
) -> Result<Written, Fault> {
    let store = daemon.store();
    let kind = write.spaces.first().map_or(Kind::Persistent, |space| space.kind);
    let Write { client, number, settled, .. } = *write;
    let numbered = Numbered { client, number, settled, earlier: Some(earlier(told)) };
    let prepared = prepare_write(daemon, tables, write);
    // What was removed from strings follows from the request, and is not kept.
    let surrogates_removed = prepared.as_ref().map_or(0, WriteRequest::surrogates_removed);
    let answered = |First { seq, new, found }| {
        // The first sending may have been about to wait for this.
        if kind == Kind::Persistent && write.durability > Some(Durability::Memory) {
            store.sync_through(seq).map_err(|error| Fault::from(&error))?;
        }
        Ok(Written { seq, new, found, surrogates_removed })
    };
    if let Some(first) = store.first_outcome(&numbered, kind).map_err(|error| Fault::from(&error))? {
        return answered(first);
    }
    let done = prepared.and_then(|mut request| {
        request.once(settled, numbered.earlier);
        request.behind(fence);
        let outcome = daemon.commit(vec![request]).and_then(|mut outcomes| outcomes.pop()).ok_or(Fault::Stopping)?;
        outcome.map_err(|error| Fault::from(&error))
    });
    match done {
        Ok(written) => Ok(written),
        Err(fault) => refused(daemon, &numbered, kind, fault).and_then(answered),
    }
}

/// Drops a namespace's records; its file is for the flush that is to follow. Once, if the client numbers it.
pub(super) fn drop_records(
    daemon: &Daemon,
    space: &Space<'_>,
    numbered: &Numbered,
    fence: &Fence,
) -> Result<(Place, Dropped), Fault> {
    let place = space.place()?;
    let dropped = daemon.drop_records(&place, space.kind, numbered, fence).ok_or(Fault::Stopping);
    match dropped.and_then(|dropped| dropped.map_err(|error| Fault::from(&error))) {
        Ok(dropped) => Ok((place, dropped)),
        Err(fault) if numbered.earlier.is_some() => {
            let First { seq, found, .. } = refused(daemon, numbered, space.kind, fault)?;
            Ok((place, Dropped { seq, records: found, needs_flush: space.kind == Kind::Persistent }))
        }
        Err(fault) => Err(fault),
    }
}

/// Refuses a repeat, unless its first sending was done meanwhile.
fn refused(daemon: &Daemon, numbered: &Numbered, kind: Kind, fault: Fault) -> Result<First, Fault> {
    // After these the client does not take it for refused, and may send it once more.
    if matches!(fault, Fault::OutcomeUnknown { .. } | Fault::Stopping) {
        return Err(fault);
    }
    let first = daemon.store().refuse_repeat(numbered, kind).map_err(|error| Fault::from(&error))?;
    first.ok_or(fault)
}
