//! What a request does: its operations, evaluated over the map and the earlier effects of the same group.
//!
//! Requests of one group are journaled together and applied only after that, so a request cannot see those before it
//! in the map yet. It sees them in the [`Overlay`]: for each key that the group has touched, whether it exists by now and
//! which effect says so. Of each key only the last result is kept, at the place that the order needs.

use std::sync::Arc;

use commonhold_proto::limits::MAX_RECORD_BYTES;
use commonhold_proto::{Condition, Seq};
use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashTable};

use super::change::Refused;
use super::error::Error;
use super::grant::Under;
use super::journal::{EffectKind, EffectRef, WriteHead};
use super::map::{Map, Record};
use super::memory::Memory;
use super::request::{Few, Op, What, WriteRequest, Written};
use super::seeded_fault::is_seeded;
use super::table::Table;
use std::hash::BuildHasher;

/// What a request does to one key or, with [`EffectKind::Clear`], to a whole namespace.
#[derive(Debug)]
pub(super) struct Effect {
    pub(super) table: u16,
    /// None: a later operation of the request made it void. It stays because the overlay may still point at its key.
    pub(super) kind: Option<EffectKind>,
    /// None for a clear.
    pub(super) record: Option<Record>,
}

/// A request that will be done.
#[derive(Debug)]
pub(super) struct Evaluated {
    pub(super) head: WriteHead,
    pub(super) tables: Few<Arc<Table>>,
    pub(super) effects: Few<Effect>,
    pub(super) surrogates_removed: u64,
    /// Bytes of the values that its changes made, those that later ones replaced included.
    changed_bytes: usize,
    /// How much more memory its records take than those that they replace.
    growth: i64,
    /// Given when it is journaled.
    pub(super) seq: Seq,
    /// What it depends on does not end before it is visible.
    pub(super) under: Option<Under>,
}

impl Evaluated {
    /// Leaves out the namespaces that nothing happens to, so that they do not become dirty.
    fn drop_unused_tables(&mut self) {
        if self.tables.len() == 1 && self.effects.iter().any(|effect| effect.kind.is_some()) {
            // Nearly always: the only one there is.
            return;
        }
        let mut renumbered = vec![u16::MAX; self.tables.len()];
        let mut used = Few::with_capacity(self.tables.len());
        for effect in self.effects.iter_mut().filter(|effect| effect.kind.is_some()) {
            let number = &mut renumbered[usize::from(effect.table)];
            if *number == u16::MAX {
                *number = used.len() as u16;
                used.push(Arc::clone(&self.tables[usize::from(effect.table)]));
            }
        }
        // Void effects keep a number too: the overlay never asks for theirs, but it must not be out of range.
        for effect in &mut self.effects {
            effect.table = renumbered[usize::from(effect.table)].min(used.len().saturating_sub(1) as u16);
        }
        self.tables = used;
    }

    /// The effects as the journal writes them.
    pub(super) fn effect_refs(&self) -> impl Iterator<Item = EffectRef<'_>> {
        self.effects.iter().filter_map(|effect| {
            let kind = effect.kind?;
            let (key, value) = match (&effect.record, kind) {
                (Some(record), EffectKind::Put | EffectKind::PutAtEnd) => (record.key(), record.value()),
                (Some(record), _) => (record.key(), ""),
                (None, _) => ("", ""),
            };
            Some(EffectRef { kind, space: effect.table, key, value })
        })
    }
}

/// What an operation finds under its key.
struct Current {
    seq: Seq,
    /// What its record takes in memory.
    takes: i64,
    /// The record, for an operation that makes another one of it.
    record: Option<Record>,
}

impl Current {
    /// As far as this operation needs it: the others are spared a count of references, which are all over the memory.
    #[inline]
    fn of(record: &Record, what: &What) -> Self {
        let needed = matches!(what, What::Change(_)).then(|| record.clone());
        Self { seq: record.seq(), takes: takes(record), record: needed }
    }
}

/// Memory that a record takes.
fn takes(record: &Record) -> i64 {
    (record.bytes() + record.overhead_bytes() + INDEX_BYTES).cast_signed() as i64
}

/// What lies in the maps under the key of each operation. They do not change before these operations are applied: whoever
/// evaluates them is the one who may. Each look-up waits for memory, several times; here, where nothing else is done, several of them
/// wait at the same time.
fn look_up(tables: &[Arc<Table>], ops: &[Op]) -> Vec<Option<Current>> {
    let mut found = Vec::with_capacity(ops.len());
    for ops in ops.chunk_by(|one, next| one.table == next.table) {
        let map = tables[usize::from(ops[0].table)].map.read();
        found.extend(ops.iter().map(|op| look_up_in(&map, op)));
    }
    found
}

#[inline]
fn look_up_in(map: &Map, op: &Op) -> Option<Current> {
    map.get(op.what.key()?).map(|record| Current::of(record, &op.what))
}

/// The effects of a group so far.
#[derive(Default)]
pub(super) struct Overlay {
    /// By address; the requests keep the tables alive.
    tables: HashMap<usize, TableOverlay>,
    hasher: RandomState,
}

impl Overlay {
    /// A request of so many operations is about to be evaluated.
    fn expect(&mut self, tables: &[Arc<Table>], operations: usize) {
        // That more than one namespace is meant is rare, and then room is made as it is needed.
        if let [table] = tables {
            let keys = &mut self.tables.entry(Arc::as_ptr(table).addr()).or_default().keys;
            keys.reserve(operations, |touched| touched.hash);
        }
    }
}

#[derive(Default)]
struct TableOverlay {
    /// What lies in the map does not count any more.
    cleared: bool,
    keys: HashTable<Touched>,
}

/// A key that the group has touched.
struct Touched {
    hash: u64,
    /// The effect that holds the key: request of the group, and effect of the request.
    request: u32,
    effect: u32,
    exists: bool,
    /// Whether the key was there before the request that touched it last.
    existed_before: bool,
}

/// The group's requests that will be done, and what they come to.
pub(super) struct Evaluation<'a> {
    pub(super) requests: Vec<Evaluated>,
    overlay: Overlay,
    /// Bytes of the values that changes made.
    changed_bytes: usize,
    memory: &'a Memory,
    /// Memory that the requests will take when they are applied.
    growth: u64,
}

/// A group takes no further request once its changes have made values of so many bytes.
const GROUP_CHANGED_BYTES: usize = 32 << 20;

/// From so many operations on, what lies under their keys is looked up for all of them first.
const SIDE_BY_SIDE: usize = 4;

/// About what index and order take for a record.
const INDEX_BYTES: usize = 24;

impl<'a> Evaluation<'a> {
    /// Of no request yet; those that would take the memory above its limit are refused.
    pub(super) fn within(memory: &'a Memory) -> Self {
        Self { requests: Vec::new(), overlay: Overlay::default(), changed_bytes: 0, memory, growth: 0 }
    }

    /// Evaluates a request after those before it.
    ///
    /// `alone`: it is the only request of its group, so that a single operation needs no overlay.
    ///
    /// # Errors
    /// [`Error::ConditionFailed`]; the evaluation is then as before.
    pub(super) fn add(&mut self, request: WriteRequest, alone: bool) -> Result<(), Error> {
        let mut evaluated = Evaluated {
            head: request.head(),
            tables: request.tables,
            effects: Few::with_capacity(request.ops.len()),
            surrogates_removed: request.surrogates_removed,
            changed_bytes: 0,
            growth: 0,
            seq: Seq::ZERO,
            under: None,
        };
        let mut ops = request.ops;
        if alone && ops.len() == 1 {
            evaluated.single(ops.swap_remove(0))?;
            self.growth += self.memory.admit(evaluated.growth, self.growth)?;
            evaluated.drop_unused_tables();
            self.changed_bytes += evaluated.changed_bytes;
            self.requests.push(evaluated);
            return Ok(());
        }
        let mut ahead = Vec::new().into_iter();
        if ops.len() >= SIDE_BY_SIDE {
            ahead = look_up(&evaluated.tables, &ops).into_iter();
            self.overlay.expect(&evaluated.tables, ops.len());
        }
        self.requests.push(evaluated);
        for (index, op) in ops.into_iter().enumerate() {
            let there = ahead.next().unwrap_or_else(|| self.look_up_one(&op));
            if let Err(refused) = self.operation(op, there) {
                self.take_back();
                return Err(refused.in_operation(index as u32));
            }
        }
        let evaluated = self.requests.last_mut().expect("it was just pushed");
        match self.memory.admit(evaluated.growth, self.growth) {
            Ok(growth) => self.growth += growth,
            Err(error) => {
                self.take_back();
                return Err(error);
            }
        }
        evaluated.drop_unused_tables();
        self.changed_bytes += evaluated.changed_bytes;
        Ok(())
    }

    /// Whether the group has a sending of this request already.
    pub(super) fn has(&self, request: &WriteRequest) -> bool {
        let is_same = |known: &Evaluated| (known.head.client, known.head.number) == (request.client, request.number);
        self.requests.iter().any(is_same)
    }

    /// Whether changes have made so much that the group is to be committed before more is evaluated.
    pub(super) fn is_large(&self) -> bool {
        self.changed_bytes > GROUP_CHANGED_BYTES
    }

    /// The last request is not done after all.
    pub(super) fn take_back(&mut self) {
        self.requests.pop();
        self.rebuild_overlay();
    }

    fn look_up_one(&self, op: &Op) -> Option<Current> {
        let tables = &self.requests.last()?.tables;
        look_up_in(&tables[usize::from(op.table)].map.read(), op)
    }

    /// One operation of the last request; `there` is what lies in the map under its key.
    fn operation(&mut self, op: Op, there: Option<Current>) -> Result<(), Refused> {
        let at = self.requests.len() - 1;
        let Some(key) = op.what.key() else {
            let table = Arc::clone(&self.requests[at].tables[usize::from(op.table)]);
            self.clear(op.table, &table);
            return Ok(());
        };
        let hash = self.overlay.hasher.hash_one(key);
        let requests = &mut self.requests;
        let table = &requests[at].tables[usize::from(op.table)];
        let overlay = self.overlay.tables.entry(Arc::as_ptr(table).addr()).or_default();
        let same_key = |touched: &Touched| {
            let effect = &requests[touched.request as usize].effects[touched.effect as usize];
            touched.hash == hash && effect.record.as_ref().is_some_and(|known| known.key() == key)
        };
        let touched = overlay.keys.find_mut(hash, same_key);
        let current = match &touched {
            Some(touched)
                if touched.request as usize != at && matches!(op.what, What::Change(_)) && is_seeded("same-base") =>
            {
                there
            }
            Some(touched) if !touched.exists => None,
            Some(touched) => {
                let request = &requests[touched.request as usize];
                let record = request.effects[touched.effect as usize].record.as_ref();
                // The request under evaluation has no Seq yet, so its own records are of version 0, which none names.
                record.map(|record| Current { seq: request.seq, ..Current::of(record, &op.what) })
            }
            None if overlay.cleared => None,
            None => there,
        };
        let exists = current.as_ref().map(|current| current.seq);
        check(op.condition, exists)?;
        let evaluated = &mut requests[at];
        let is_put = !matches!(op.what, What::Delete(_));
        let record = evaluated.result(op.what, current.as_ref())?;
        evaluated.weigh(is_put.then_some(&record), current.as_ref());
        evaluated.count(is_put, exists.is_some());
        // An earlier effect of this very request on this key is absorbed, so that only the last result is kept.
        let mut existed_before = exists.is_some();
        let mut kind = match (is_put, exists) {
            (true, _) => Some(EffectKind::Put),
            (false, Some(_)) => Some(EffectKind::Delete),
            (false, None) => None,
        };
        if let Some(touched) = &touched
            && touched.request as usize == at
        {
            existed_before = touched.existed_before;
            let earlier = &mut evaluated.effects[touched.effect as usize];
            match (earlier.kind, is_put) {
                (Some(EffectKind::Put | EffectKind::PutAtEnd), true) => {
                    // The place of the first, the value of the last.
                    earlier.record = Some(record);
                    return Ok(());
                }
                (Some(EffectKind::Put | EffectKind::PutAtEnd), false) => {
                    earlier.kind = None;
                    kind = existed_before.then_some(EffectKind::Delete);
                }
                (Some(EffectKind::Delete), true) => {
                    earlier.kind = None;
                    kind = Some(EffectKind::PutAtEnd);
                }
                _ => {}
            }
        }
        let effect = Effect { table: op.table, kind, record: Some(record) };
        let effect_at = evaluated.effects.len() as u32;
        evaluated.effects.push(effect);
        let state = Touched { hash, request: at as u32, effect: effect_at, exists: is_put, existed_before };
        match touched {
            Some(touched) => *touched = state,
            None => drop(overlay.keys.insert_unique(hash, state, |touched| touched.hash)),
        }
        Ok(())
    }

    fn clear(&mut self, index: u16, table: &Arc<Table>) {
        let at = self.requests.len() - 1;
        let overlay = self.overlay.tables.entry(Arc::as_ptr(table).addr()).or_default();
        let map = table.map.read();
        let mut present = if overlay.cleared { 0 } else { map.len() as u64 };
        for touched in &overlay.keys {
            let effect = &self.requests[touched.request as usize].effects[touched.effect as usize];
            let key = effect.record.as_ref().expect("the overlay points at effects that have a key").key();
            let in_map = !overlay.cleared && map.get(key).is_some();
            present = present + u64::from(touched.exists) - u64::from(in_map);
        }
        drop(map);
        let was_cleared = std::mem::replace(&mut overlay.cleared, true);
        overlay.keys.clear();
        let evaluated = &mut self.requests[at];
        for effect in evaluated.effects.iter_mut().filter(|effect| effect.table == index) {
            effect.kind = None;
        }
        evaluated.head.found += present;
        // What the group itself has put since is not taken off: it counts a little too much, never too little.
        evaluated.growth -= if was_cleared { 0 } else { (table.bytes() + table.overhead_bytes()).cast_signed() };
        evaluated.effects.push(Effect { table: index, kind: Some(EffectKind::Clear), record: None });
    }

    /// After a request was refused half-way: what those before it come to, once more.
    fn rebuild_overlay(&mut self) {
        self.overlay.tables.clear();
        for (request, evaluated) in self.requests.iter().enumerate() {
            for (index, effect) in evaluated.effects.iter().enumerate() {
                let Some(kind) = effect.kind else { continue };
                let table = &evaluated.tables[usize::from(effect.table)];
                let overlay = self.overlay.tables.entry(Arc::as_ptr(table).addr()).or_default();
                let Some(record) = &effect.record else {
                    overlay.cleared = true;
                    overlay.keys.clear();
                    continue;
                };
                let hash = self.overlay.hasher.hash_one(record.key());
                let requests = &self.requests;
                let same_key = |touched: &Touched| {
                    let effect = &requests[touched.request as usize].effects[touched.effect as usize];
                    touched.hash == hash && effect.record.as_ref().is_some_and(|known| known.key() == record.key())
                };
                let exists = kind != EffectKind::Delete;
                let state = Touched {
                    hash,
                    request: request as u32,
                    effect: index as u32,
                    exists,
                    existed_before: false, // read only for touches of the request under evaluation
                };
                match overlay.keys.find_mut(hash, same_key) {
                    Some(touched) => *touched = state,
                    None => drop(overlay.keys.insert_unique(hash, state, |touched| touched.hash)),
                }
            }
        }
    }
}

impl Evaluated {
    /// The one operation of the one request of a group.
    fn single(&mut self, op: Op) -> Result<(), Error> {
        let table = &self.tables[usize::from(op.table)];
        if matches!(op.what, What::Clear) {
            self.head.found = table.len();
            self.effects.push(Effect { table: op.table, kind: Some(EffectKind::Clear), record: None });
            return Ok(());
        }
        let current = look_up_in(&table.map.read(), &op);
        let exists = current.as_ref().map(|current| current.seq);
        check(op.condition, exists).map_err(|refused| refused.in_operation(0))?;
        let is_put = !matches!(op.what, What::Delete(_));
        let record = self.result(op.what, current.as_ref()).map_err(|refused| refused.in_operation(0))?;
        let kind = if is_put { EffectKind::Put } else { EffectKind::Delete };
        self.weigh(is_put.then_some(&record), current.as_ref());
        self.count(is_put, exists.is_some());
        let kind = (is_put || exists.is_some()).then_some(kind);
        self.effects.push(Effect { table: op.table, kind, record: Some(record) });
        Ok(())
    }

    /// What an operation on one key leaves there; of a delete, the record that names the key.
    fn result(&mut self, what: What, current: Option<&Current>) -> Result<Record, Refused> {
        let change = match what {
            What::Put(record) | What::Delete(record) => return Ok(record),
            What::Change(change) => change,
            What::Clear => unreachable!("a clear is not about one key"),
        };
        let record = change.apply(current.and_then(|current| current.record.as_ref()))?;
        // A request is small beside what it may change, and all of that is copied while the others wait: it is bounded
        // by what one record of the journal may hold, whether or not a later change of the same key makes it void.
        self.changed_bytes += record.bytes();
        if self.changed_bytes > MAX_RECORD_BYTES {
            return Err(Refused::TooLarge {
                what: "bytes of values that one request changes".to_owned(),
                got: self.changed_bytes as u64,
                limit: MAX_RECORD_BYTES as u64,
            });
        }
        Ok(record)
    }

    /// What was answered when it is done.
    pub(super) fn written(&self) -> Written {
        let WriteHead { new, found, .. } = self.head;
        Written { seq: self.seq, new, found, surrogates_removed: self.surrogates_removed }
    }

    fn weigh(&mut self, new: Option<&Record>, old: Option<&Current>) {
        self.growth += new.map_or(0, takes) - old.map_or(0, |old| old.takes);
    }

    fn count(&mut self, is_put: bool, exists: bool) {
        if exists {
            self.head.found += 1;
        } else if is_put {
            self.head.new += 1;
        }
    }
}

fn check(condition: Condition, exists: Option<Seq>) -> Result<(), Refused> {
    let holds = match condition {
        Condition::Always => true,
        Condition::IfSeq(seq) => exists == Some(seq) && seq != Seq::ZERO,
        Condition::IfAbsent => exists.is_none(),
    };
    if holds { Ok(()) } else { Err(Refused::Condition(exists)) }
}
