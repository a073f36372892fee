//! One group of writes, from evaluation to visibility: journal, sync, map, and only then the replies.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use commonhold_proto::{Durability, Seq};

use super::counts::PlaceCounts;
use super::error::Error;
use super::evaluate::{Effect, Evaluated, Evaluation};
use super::feed::Feed;
use super::grant::Grant;
use super::journal::{Appender, EffectKind, Kind, Progress, Reach, Spare, encode_write};
use super::map::{Cleared, Record};
use super::memory::{Held, Memory};
use super::once::Fence;
use super::poison::Poison;
use super::request::{Few, WriteRequest, Written};
use super::seeded_fault::is_seeded;
use super::turn::Weight;

/// What became of the requests of one batch, in their order.
pub(super) type Results = Vec<Result<Written, Error>>;

/// What is to be answered to a request of a group.
enum Judged {
    /// It is done with the group: the request of this index among those that are.
    Now(usize),
    /// It was done before, and this came of it.
    Before(Written),
}

/// One session's consecutive writes.
pub(super) struct Batch(pub(super) Vec<WriteRequest>);

impl Weight for Batch {
    fn weight(&self) -> usize {
        self.0.iter().map(WriteRequest::weight).sum()
    }
}

/// The one who writes. It lies behind the turn, so there is one at a time.
pub(super) struct Writer {
    pub(super) appender: Appender,
    poison: Arc<Poison>,
    progress: Arc<Progress>,
    durability: Durability,
    pub(super) shared: Arc<Shared>,
    /// What the journal's buffer and the clients' outcomes take.
    buffer_memory: Held,
}

/// What others may look at while a writer works.
pub(super) struct Shared {
    /// The last Seq whose effects readers see.
    applied: AtomicU64,
    /// What all of it takes.
    pub(super) memory: Memory,
    /// For how many bytes the journal found no room on the disk when it last looked for some; 0 when it found it.
    no_room_for: AtomicU64,
    /// What was changed last, for those who watch.
    pub(super) feed: Feed,
}

/// So many records that a request has replaced are not freed before it is answered.
pub(super) const FREED_LATER: usize = 64;

/// A cleared map that is no larger than this is freed at once.
const FREED_AT_ONCE: usize = 1_000;

impl Shared {
    pub(super) fn within(max_memory: Option<u64>) -> Self {
        let memory = Memory::within(max_memory);
        let feed = Feed::measured(&memory.gauge);
        Self { applied: AtomicU64::new(0), memory, no_room_for: AtomicU64::new(0), feed }
    }

    pub(super) fn applied(&self) -> Seq {
        Seq(self.applied.load(Ordering::Acquire))
    }

    pub(super) fn set_applied(&self, seq: Seq) {
        self.applied.store(seq.0, Ordering::Release);
    }

    pub(super) fn is_disk_full(&self) -> bool {
        self.no_room_for() > 0
    }

    /// For how much the journal found no room. To look for less would find what is kept for deletes, and call the disk well.
    pub(super) fn no_room_for(&self) -> usize {
        self.no_room_for.load(Ordering::Relaxed) as usize
    }

    /// What came of looking for room for so many bytes in the journal.
    pub(super) fn looked_for_room(&self, bytes: usize, outcome: &Result<(), Error>) {
        let no_room_for = if matches!(outcome, Err(Error::Full { .. })) { bytes.max(1) } else { 0 };
        // Read first: a line that everybody looks at is not written for nothing.
        if self.no_room_for() != no_room_for {
            self.no_room_for.store(no_room_for as u64, Ordering::Relaxed);
        }
    }

    /// There is no room for a single byte beside what is kept for deletes.
    pub(super) fn disk_is_full(&self) {
        self.no_room_for.store(1, Ordering::Relaxed);
    }

    /// Takes what a clear has left; it is freed where nobody waits for it.
    pub(super) fn discard(&self, cleared: Cleared) {
        if cleared.len() > FREED_AT_ONCE {
            self.memory.garbage.lock().push(cleared);
        }
    }

    /// Frees what clears have left.
    pub(super) fn collect_garbage(&self) {
        self.memory.collect_garbage();
    }
}

impl Writer {
    pub(super) fn new(
        appender: Appender,
        poison: Arc<Poison>,
        progress: Arc<Progress>,
        durability: Durability,
        shared: Arc<Shared>,
    ) -> Self {
        shared.applied.store(appender.last_given().0, Ordering::Release);
        let buffer_memory = Held::of(&shared.memory.gauge);
        Self { appender, poison, progress, durability, shared, buffer_memory }
    }

    /// Commits a group: the consecutive writes of one or more sessions. Where changes make many bytes of few, it is done
    /// in several goes, so that no group outgrows the memory.
    pub(super) fn commit(&mut self, mut group: Vec<Batch>) -> Vec<Results> {
        let mut results = self.commit_some(&mut group);
        while group.iter().any(|batch| !batch.0.is_empty()) {
            for (results, more) in results.iter_mut().zip(self.commit_some(&mut group)) {
                results.extend(more);
            }
        }
        results
    }

    /// Commits the first requests of a group, and leaves the others in it: those that come after more than enough, and
    /// a second sending of one, which is to find the outcome of the first.
    fn commit_some(&mut self, group: &mut [Batch]) -> Vec<Results> {
        let alone = group.iter().map(|batch| batch.0.len()).sum::<usize>() == 1;
        let reach = self.reach(group);
        let repeats = group.iter().any(|batch| batch.0.iter().any(WriteRequest::is_repeat));
        let mut meets_itself = false;
        let shared = Arc::clone(&self.shared);
        let mut evaluation = Evaluation::within(&shared.memory);
        let mut outcomes = Vec::with_capacity(group.len());
        // An earlier failed sync ended all writing.
        if let Err(error) = self.poison.check().and_then(|()| self.appender.begin()) {
            return refuse(group, &error);
        }
        // On a full disk only what frees space goes on, in the room that is kept for it.
        let weight = weight(group);
        let room = self.appender.make_room(weight, Spare::Keep);
        shared.looked_for_room(weight, &room);
        let full = room.err();
        for batch in group {
            let mut requests = std::mem::take(&mut batch.0).into_iter().peekable();
            let mut some = Vec::with_capacity(requests.len());
            while !evaluation.is_large() && !meets_itself {
                meets_itself = repeats && requests.peek().is_some_and(|request| evaluation.has(request));
                let Some(request) = requests.next_if(|_| !meets_itself) else { break };
                some.push(self.evaluate(&mut evaluation, request, alone, full.as_ref()));
            }
            outcomes.push(some);
            batch.0 = requests.collect();
        }
        let spare = if full.is_some() { Spare::Use } else { Spare::Keep };
        let mut requests = evaluation.requests;
        if is_seeded("apply-first") {
            self.apply(&mut requests);
        }
        let done = self.append_and_sync(reach, spare); // the journal first, and as far as was promised
        if done.is_ok() && !is_seeded("apply-first") {
            self.apply(&mut requests); // then what readers see: nothing that failed to get there
        }
        let answer = |outcome: Result<Judged, Error>| {
            let request = match outcome? {
                Judged::Now(index) => &requests[index],
                Judged::Before(written) => return Ok(written),
            };
            done.as_ref().map_err(Error::repeat)?;
            Ok(request.written())
        };
        outcomes.into_iter().map(|batch| batch.into_iter().map(answer).collect()).collect()
    }

    /// Evaluates one request and adds it to the journal's group, unless it was done before.
    fn evaluate(
        &mut self,
        evaluation: &mut Evaluation<'_>,
        request: WriteRequest,
        alone: bool,
        full: Option<&Error>,
    ) -> Result<Judged, Error> {
        request.fence.as_ref().map_or(Ok(()), Fence::check)?;
        if let Some(once) = &request.once
            && let Some(first) = self.appender.outcomes().first(once)?
        {
            return Ok(Judged::Before(Written::first(first, request.surrogates_removed())));
        }
        if let Some(error) = full.filter(|_| !request.only_frees()) {
            return Err(error.repeat());
        }
        let under = request.grant.as_ref().map(Grant::enter).transpose()?;
        evaluation.add(request, alone)?;
        let index = evaluation.requests.len() - 1;
        let evaluated = &evaluation.requests[index];
        let encode = |out: &mut Vec<u8>| {
            let effects = evaluated.effect_refs();
            if let [table] = &evaluated.tables[..] {
                encode_write(out, evaluated.head, &[table.place()], effects);
            } else {
                let places: Vec<_> = evaluated.tables.iter().map(|table| table.place()).collect();
                encode_write(out, evaluated.head, &places, effects);
            }
        };
        let recorded = self.appender.record(Kind::Write, encode);
        match recorded {
            Ok(seq) => {
                evaluation.requests[index].seq = seq;
                evaluation.requests[index].under = under;
            }
            Err(error) => {
                evaluation.take_back();
                return Err(error);
            }
        }
        Ok(Judged::Now(index))
    }

    /// Looks whether there is room by now for what there was none for.
    pub(super) fn look_for_room(&mut self) {
        let bytes = self.shared.no_room_for();
        self.shared.looked_for_room(bytes, &self.appender.make_room(bytes, Spare::Keep));
    }

    /// Whether an earlier failure ended all writing.
    pub(super) fn check_poison(&self) -> Result<(), Error> {
        self.poison.check()
    }

    /// How far the group's records must get: as far as the store promises, or one of the requests asks.
    fn reach(&self, group: &[Batch]) -> Reach {
        let asks_more =
            |request: &WriteRequest| request.durability.is_some_and(|durability| durability > Durability::Memory);
        let more = self.durability > Durability::Memory || group.iter().any(|batch| batch.0.iter().any(asks_more));
        if more && !is_seeded("answer-before-journal") { Reach::System } else { Reach::Buffer }
    }

    pub(super) fn append_and_sync(&mut self, reach: Reach, spare: Spare) -> Result<(), Error> {
        self.appender.finish(reach, spare)?;
        if self.durability == Durability::Synced {
            self.progress.sync_through(self.progress.written())?;
        }
        Ok(())
    }

    fn apply(&mut self, requests: &mut [Evaluated]) {
        for request in requests.iter_mut() {
            apply_one(&self.shared, request);
            self.appender.answered(request.head, request.seq);
            for table in &request.tables {
                self.appender.wrote(table.place(), request.seq);
            }
        }
        if let Some(last) = requests.last() {
            self.shared.set_applied(last.seq);
        }
        self.count_buffer();
    }

    /// What waits in the journal's buffer counts, and the table of outcomes; the room of an empty one, which is kept for the next, does not.
    pub(super) fn count_buffer(&mut self) {
        let outcomes = self.appender.outcomes().memory();
        self.buffer_memory.set(self.appender.waiting_bytes() + outcomes);
    }
}

/// Makes one request visible, all of it in one hold of the namespaces that it touches.
pub(super) fn apply_one(shared: &Shared, request: &mut Evaluated) {
    let tables = std::mem::take(&mut request.tables);
    // What is replaced is freed after the hold. Locks are taken in any order: only the turn's
    // holder takes several, and whoever has the orders of the volatile namespaces that it takes several of.
    let mut replaced: Few<Option<Record>> = Few::with_capacity(request.effects.len());
    let mut cleared = Vec::new();
    let mut telling = shared.feed.begin(&tables);
    let mut maps: Few<_> = tables.iter().map(|table| table.map.write()).collect();
    // Others who keep a value are told in the hold in which it changes.
    for effects in request.effects.chunk_by(|one, next| one.table == next.table) {
        // None of the tables is left where every effect is void.
        let table = tables.get(usize::from(effects[0].table));
        if let Some(counts) = table.and_then(|table| table.counts()) {
            count(counts, effects);
        }
    }
    for effect in &mut request.effects {
        let Some(kind) = effect.kind else { continue };
        if let Some(telling) = &mut telling {
            telling.note(effect);
        }
        let map = &mut maps[usize::from(effect.table)];
        match (kind, effect.record.take()) {
            (EffectKind::Put, Some(record)) => {
                record.set_seq(request.seq);
                replaced.push(map.put(record));
            }
            (EffectKind::PutAtEnd, Some(record)) => {
                record.set_seq(request.seq);
                replaced.push(map.remove(record.key()));
                map.put(record);
            }
            (EffectKind::Delete, Some(record)) => replaced.push(map.remove(record.key())),
            (EffectKind::Clear | EffectKind::Drop, _) => cleared.push(map.clear()),
            (_, None) => unreachable!("every effect on a key has a record"),
        }
        if is_seeded("half-visible") {
            maps.clear();
            std::thread::sleep(std::time::Duration::from_millis(1));
            maps.extend(tables.iter().map(|table| table.map.write()));
        }
    }
    for table in &tables {
        table.applied(request.seq);
    }
    for map in &mut maps {
        map.settle();
    }
    drop(maps);
    if let Some(telling) = telling {
        telling.tell(request.seq);
    }
    request.tables = tables;
    if replaced.len() >= FREED_LATER {
        shared.memory.free_later(replaced.into_vec());
    }
    for cleared in cleared {
        shared.discard(cleared);
    }
}

/// Of effects on one namespace: one key moves its own count, a clear the namespace's alone.
fn count(counts: &dyn PlaceCounts, effects: &[Effect]) {
    if is_seeded("counts-not-moved") {
        return;
    }
    let clears = |effect: &&Effect| matches!(effect.kind, Some(EffectKind::Clear | EffectKind::Drop));
    for _ in effects.iter().filter(clears) {
        counts.cleared();
    }
    let changed = effects.iter().filter(|effect| effect.kind.is_some() && !clears(effect));
    counts.all_moved(&mut changed.filter_map(|effect| effect.record.as_ref()).map(Record::key));
}

fn weight(group: &[Batch]) -> usize {
    group.iter().map(Weight::weight).sum()
}

fn refuse(group: &mut [Batch], error: &Error) -> Vec<Results> {
    group.iter_mut().map(|batch| batch.0.drain(..).map(|_| Err(error.repeat())).collect()).collect()
}
