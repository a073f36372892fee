//! Volatile namespaces: in memory only, never in the journal, never a file, gone with the daemon.
//!
//! Each has its own order, a lock that whoever writes to it holds from evaluation to visibility; the writer's turn is not
//! taken, so nobody waits for a disk. A request over several takes their locks in one order for all. The Seqs are the
//! store's. Who opens a name first decides its kind, until the daemon ends or the volatile namespace is dropped.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use commonhold_proto::{Place, Seq};

use super::catalogue::{Slot, State, fold};
use super::dropping::Dropped;
use super::error::Error;
use super::evaluate::Evaluation;
use super::grant::Grant;
use super::journal::WriteHead;
use super::map::Map;
use super::once::{Fence, Numbered};
use super::request::{WriteRequest, Written};
use super::store::Store;
use super::table::Table;
use super::writer::apply_one;

impl Store {
    /// The volatile namespace at `place`, made if there is none.
    ///
    /// # Errors
    /// [`Error::KindMismatch`] where there is a persistent one, [`Error::NameClash`], [`Error::Disk`].
    pub fn volatile(&self, place: &Place) -> Result<Arc<Table>, Error> {
        let known = self.namespaces.read().get(place).cloned();
        let slot = match known {
            Some(slot) => slot,
            None => self.new_slot(place, || self.new_volatile(place))?,
        };
        // Only who loads a persistent namespace holds that lock for long, and nobody is to wait for that here.
        let volatile = match slot.state.try_read().as_deref() {
            Some(State::Loaded(table)) if table.is_volatile() => Some(Arc::clone(table)),
            _ => None,
        };
        volatile.ok_or_else(|| Error::KindMismatch {
            place: place.to_string(),
            kind: commonhold_proto::message::Kind::Persistent,
        })
    }

    fn new_volatile(&self, place: &Place) -> State {
        let map = Map::new().measured(&self.shared.memory.gauge);
        let table = Table::volatile(place.clone(), self.next_load(), map, self.activity(place));
        State::Loaded(Arc::new(table.counted(self.counts_of_loaded(place))))
    }

    /// Requests of both kinds, in their order: each run of persistent ones is committed together.
    pub(super) fn write_mixed(&self, requests: Vec<WriteRequest>) -> Vec<Result<Written, Error>> {
        let mut results = Vec::with_capacity(requests.len());
        let mut run = Vec::new();
        for request in requests {
            if !request.is_volatile() {
                run.push(request);
                continue;
            }
            if !run.is_empty() {
                results.extend(self.write(std::mem::take(&mut run)));
            }
            results.push(self.write_volatile(request));
        }
        if !run.is_empty() {
            results.extend(self.write(run));
        }
        results
    }

    /// Whether the name is that of a volatile namespace.
    pub(super) fn is_volatile(&self, place: &Place) -> bool {
        let slot = self.namespaces.read().get(place).cloned();
        slot.and_then(|slot| slot.state.try_read().map(|state| state.is_volatile())).unwrap_or(false)
    }

    /// Does a request to volatile namespaces, once if it says so.
    fn write_volatile(&self, request: WriteRequest) -> Result<Written, Error> {
        let Some(once) = request.once else { return self.do_volatile(request) };
        let mut outcomes = self.volatile_outcomes.of(once.client).lock();
        request.fence.as_ref().map_or(Ok(()), Fence::check)?;
        if let Some(first) = outcomes.first(&once)? {
            return Ok(Written::first(first, request.surrogates_removed()));
        }
        let head = request.head();
        let written = self.do_volatile(request)?;
        outcomes.note(WriteHead { new: written.new, found: written.found, ..head }, written.seq, self.boot());
        Ok(written)
    }

    fn do_volatile(&self, mut request: WriteRequest) -> Result<Written, Error> {
        loop {
            let mut tables = request.tables.clone();
            tables.sort_unstable_by_key(|table| Arc::as_ptr(table).addr());
            let orders: Vec<_> = tables.iter().map(|table| table.order.lock()).collect();
            if tables.iter().any(|table| table.is_gone()) {
                // Dropped since the request was built: the write brings it back, as with any namespace.
                drop(orders);
                for table in request.tables.iter_mut().filter(|table| table.is_gone()) {
                    *table = self.volatile(table.place())?;
                }
                // It may have found the one that was made again already.
                request.join_tables();
                continue;
            }
            let mut evaluation = Evaluation::within(&self.shared.memory);
            let under = request.grant.as_ref().map(Grant::enter).transpose()?;
            evaluation.add(request, true)?;
            let mut evaluated = evaluation.requests.pop().expect("the request was just evaluated");
            evaluated.seq = self.take_volatile_seq()?;
            evaluated.under = under;
            apply_one(&self.shared, &mut evaluated);
            drop(orders);
            self.shared.feed.ring();
            return Ok(evaluated.written());
        }
    }

    /// A number of the store's order for something that is not stored at all: above those of all earlier writes, and never
    /// given again, after a crash neither. None when there are no more: the journal takes no records.
    pub fn take_seq(&self) -> Option<Seq> {
        self.numbers.take_below_ceiling()
    }

    fn take_volatile_seq(&self) -> Result<Seq, Error> {
        let reason = || "the journal takes no records, so no more sequence numbers can be given out".to_owned();
        self.take_seq().ok_or_else(|| Error::Unavailable { reason: reason() })
    }

    /// Drops a volatile namespace; its name is free again.
    ///
    /// # Errors
    /// [`Error::KindMismatch`] for a persistent one.
    pub fn drop_volatile(&self, place: &Place) -> Result<Dropped, Error> {
        self.drop_volatile_once(place, &Numbered::default(), &Fence::default())
    }

    /// As [`drop_volatile`](Self::drop_volatile), once, however often it is asked for under this number.
    ///
    /// # Errors
    /// As for [`drop_volatile`](Self::drop_volatile), and [`Error::OutcomeUnknown`] if that of an earlier sending cannot be known.
    pub fn drop_volatile_once(&self, place: &Place, numbered: &Numbered, fence: &Fence) -> Result<Dropped, Error> {
        if numbered.number == 0 {
            return self.do_drop_volatile(place);
        }
        let mut outcomes = self.volatile_outcomes.of(numbered.client).lock();
        fence.check()?;
        if let Some(first) = outcomes.first(numbered)? {
            return Ok(Dropped::first(first, false));
        }
        let mut dropped = self.do_drop_volatile(place)?;
        if dropped.seq == Seq::ZERO {
            // Nothing was ever written; it is noted all the same, so that it is not done to what will be.
            dropped.seq = self.take_volatile_seq()?;
        }
        outcomes.note(numbered.head(dropped.records), dropped.seq, self.boot());
        Ok(dropped)
    }

    fn do_drop_volatile(&self, place: &Place) -> Result<Dropped, Error> {
        if !self.namespaces.read().contains_key(place) {
            return Ok(Dropped { seq: self.applied(), records: 0, needs_flush: false });
        }
        let table = self.volatile(place)?;
        let order = table.order.lock();
        // One that was only read is nothing that could be dropped, as with the others.
        let was_written = table.last() > Seq::ZERO;
        let seq = if was_written { self.take_volatile_seq()? } else { self.applied() };
        let mut namespaces = self.namespaces.write();
        let is_this = |slot: &Arc<Slot>| {
            slot.state
                .try_read()
                .is_some_and(|state| matches!(&*state, State::Loaded(known) if Arc::ptr_eq(known, &table)))
        };
        if namespaces.get(place).is_some_and(is_this) {
            namespaces.remove(place);
            self.folded.lock().remove(&fold(place));
            self.activities.lock().remove(place);
        }
        table.gone.store(true, Ordering::Release);
        let mut map = table.map.write();
        let cleared = map.clear();
        if let Some(counts) = table.counts_if_used() {
            counts.cleared();
        }
        table.applied(seq);
        drop(map);
        if was_written && let Some(mut telling) = self.shared.feed.begin(std::slice::from_ref(&table)) {
            telling.note_drop();
            telling.tell(seq);
        }
        // Not before: who finds the name free makes the next one of it, and what is written to that is told after this.
        drop((namespaces, order));
        self.shared.feed.ring();
        let records = cleared.len() as u64;
        self.shared.discard(cleared);
        Ok(Dropped { seq, records, needs_flush: false })
    }
}
