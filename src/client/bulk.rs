//! How a long load is cut into requests, and how far it is: the same for every driver, without I/O.

use std::collections::VecDeque;

use commonhold_proto::limits::MAX_OPERATIONS;
use commonhold_proto::names::check_key;
use commonhold_proto::{Durability, Kind, Seq};

use super::batch::Batch;
use super::error::Error;
use super::target::Target;
use super::values::Written;
use super::verbs::check_value;

/// The largest request that may be asked for: with one record of the longest kind it still fits into a frame.
const MOST_REQUEST_BYTES: usize = 16 * 1024 * 1024;

/// How a `BulkWriter` cuts and commits what it is given.
///
/// ```no_run
/// use commonhold::blocking::{BulkOptions, Client};
/// let client = Client::connect("rag_storage")?;
/// let options = BulkOptions { commit_every_records: 10_000, ..BulkOptions::default() };
/// let mut load = client.namespace("full_docs")?.bulk_writer_with(options);
/// load.put("doc-1", "…")?;
/// load.finish()?;
/// # Ok::<(), commonhold::blocking::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BulkOptions {
    /// About how many bytes of keys and values a request has; 1 MiB by default, 16 MiB at most.
    pub request_bytes: usize,
    /// Most records in a request; 2,000 by default.
    pub request_records: usize,
    /// How many requests may be on their way at once; 4 by default. A load holds about so many requests in memory.
    pub in_flight: usize,
    /// Commit when so many records were stored since the last commit; 100,000 by default. A load's writes are `buffered` at
    /// least, whatever the store's durability, so that a daemon that is killed between two commits takes none of them.
    pub commit_every_records: u64,
    /// Commit when so many bytes of keys and values were stored since the last commit; 64 MiB by default.
    pub commit_every_bytes: u64,
}

impl Default for BulkOptions {
    fn default() -> Self {
        Self {
            request_bytes: 1024 * 1024,
            request_records: 2_000,
            in_flight: 4,
            commit_every_records: 100_000,
            commit_every_bytes: 64 * 1024 * 1024,
        }
    }
}

/// How far a load has got: the records of it, in the order given, up to a point without a gap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BulkProgress {
    /// How many records, deletions included.
    pub records: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// How many keys were new.
    pub new: u64,
    /// How many keys were found: replaced or deleted.
    pub found: u64,
    /// How many lone surrogates, which are no characters, were removed.
    pub surrogates_removed: u64,
    /// The last write of them.
    pub seq: Seq,
    /// The last mark that the caller set before the last of them was given; 0 before the first mark.
    pub mark: u64,
}

/// What one request carries of the load.
#[derive(Clone, Copy, Debug)]
struct Piece {
    records: u64,
    bytes: u64,
    mark: u64,
}

/// What a driver is to reach before its caller goes on.
#[derive(Clone, Copy, Debug)]
pub(super) enum Towards {
    /// Room in the next request for a record of so many bytes.
    RoomFor(usize),
    /// Everything that was given on the platter.
    Platter,
}

/// What a driver does next. It does it, tells the load what came of it, and asks again.
#[derive(Debug)]
pub(super) enum Todo {
    /// Send this request, behind those that are on their way; [`Load::or_end`] takes a failure.
    Send(Batch),
    /// Wait for the answer of the oldest request that is on its way, and tell it to [`Load::settle_oldest`].
    TakeOldest,
    /// Commit, and tell [`Load::settle_commit`] what came of it, with this.
    Commit(BulkProgress),
    /// Go on.
    Nothing,
}

/// A load between its source and its requests.
#[derive(Debug)]
pub(super) struct Load {
    target: Target,
    durability: Option<Durability>,
    options: BulkOptions,
    /// The boot number of the daemon that was sent the first request.
    boot: Option<u64>,
    batch: Batch,
    mark: u64,
    /// What the requests that are on their way carry, the oldest first.
    on_their_way: VecDeque<Piece>,
    stored: BulkProgress,
    committed: BulkProgress,
    failed: Option<Error>,
}

impl Load {
    pub(super) fn new(target: Target, durability: Option<Durability>, options: BulkOptions) -> Self {
        let options = BulkOptions {
            request_bytes: options.request_bytes.clamp(1, MOST_REQUEST_BYTES),
            request_records: options.request_records.clamp(1, MAX_OPERATIONS),
            in_flight: options.in_flight.max(1),
            ..options
        };
        // A commit is asked of one daemon and may speak of what another one was told: that must have outlived it.
        let durability = match target.kind() {
            Kind::Persistent => durability.max(Some(Durability::Buffered)),
            Kind::Volatile => durability,
        };
        let (stored, committed) = (BulkProgress::default(), BulkProgress::default());
        let (batch, on_their_way) = (Batch::new(), VecDeque::new());
        Self { target, durability, options, boot: None, batch, mark: 0, on_their_way, stored, committed, failed: None }
    }

    pub(super) fn stored(&self) -> BulkProgress {
        self.stored
    }

    pub(super) fn committed(&self) -> BulkProgress {
        self.committed
    }

    /// The error that ended the load, if one did.
    fn check(&self) -> Result<(), Error> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// Ends the load where something failed: what follows it must not be taken for stored.
    pub(super) fn or_end<T>(&mut self, outcome: Result<T, Error>) -> Result<T, Error> {
        outcome.inspect_err(|error| self.failed = Some(error.clone()))
    }

    /// What is to be done next; the error is the one that ended the load.
    pub(super) fn next_step(&mut self, towards: Towards) -> Result<Todo, Error> {
        self.check()?;
        let (send, most_on_their_way, commit) = match towards {
            Towards::RoomFor(bytes) => (self.is_full_for(bytes), self.options.in_flight, self.commit_is_due()),
            Towards::Platter => (true, 0, self.stored.records != self.committed.records),
        };
        if let Some(batch) = send.then(|| self.cut()).flatten() {
            return Ok(Todo::Send(batch));
        }
        if self.on_their_way.len() > most_on_their_way {
            return Ok(Todo::TakeOldest);
        }
        Ok(if commit { Todo::Commit(self.stored) } else { Todo::Nothing })
    }

    /// Notes what came of the oldest request that was on its way.
    pub(super) fn settle_oldest(&mut self, outcome: Result<Written, Error>) -> Result<(), Error> {
        let piece = self.on_their_way.pop_front().expect("an answer belongs to a request that was sent");
        let written = self.or_end(outcome)?;
        self.stored.records += piece.records;
        self.stored.bytes += piece.bytes;
        self.stored.mark = piece.mark;
        self.stored.new += written.new;
        self.stored.found += written.found;
        self.stored.surrogates_removed += written.surrogates_removed;
        self.stored.seq = written.seq;
        Ok(())
    }

    /// A request is about to be sent to the daemon with this boot number.
    pub(super) fn sends_to(&mut self, boot: u64) {
        self.boot.get_or_insert(boot);
    }

    /// Notes what came of a commit that began when `stored` was stored, with the boot number of who answered it.
    pub(super) fn settle_commit(
        &mut self,
        stored: BulkProgress,
        outcome: Result<Seq, Error>,
        boot: u64,
    ) -> Result<(), Error> {
        self.or_end(outcome)?;
        if self.target.kind() == Kind::Volatile && self.boot.is_some_and(|first| first != boot) {
            let place = self.target.place();
            return self.or_end(Err(Error::unknown(format!(
                "the daemon was restarted during the load, and the volatile namespace {place} ends with its daemon: load all of it again"
            ))));
        }
        self.committed = stored;
        Ok(())
    }

    /// Refuses a record that no request can carry; the load goes on without it.
    pub(super) fn check_record(&self, key: &str, json_text: &str) -> Result<(), Error> {
        self.check()?;
        check_key(key)?;
        check_value(key, json_text)
    }

    /// Whether a record of so many bytes belongs into the next request.
    fn is_full_for(&self, bytes: usize) -> bool {
        let full = self.batch.bytes() + bytes > self.options.request_bytes;
        !self.batch.is_empty() && (full || self.batch.len() >= self.options.request_records)
    }

    /// Adds a record that [`check_record`](Self::check_record) let pass and there is room for.
    pub(super) fn put(&mut self, key: &str, json_text: &str) {
        let batch = std::mem::take(&mut self.batch).put_raw(&self.target, key, json_text);
        self.batch = batch.expect("key, value and number of operations were checked");
    }

    /// As [`put`](Self::put), a deletion.
    pub(super) fn delete(&mut self, key: &str) {
        let batch = std::mem::take(&mut self.batch).delete(&self.target, key);
        self.batch = batch.expect("key and number of operations were checked");
    }

    pub(super) fn mark(&mut self, mark: u64) {
        self.mark = mark;
    }

    /// The next request, if there is anything in it.
    fn cut(&mut self) -> Option<Batch> {
        if self.batch.is_empty() {
            return None;
        }
        let mut batch = std::mem::take(&mut self.batch);
        if let Some(durability) = self.durability {
            batch = batch.durability(durability);
        }
        let piece = Piece { records: batch.len() as u64, bytes: batch.bytes() as u64, mark: self.mark };
        self.on_their_way.push_back(piece);
        Some(batch)
    }

    fn commit_is_due(&self) -> bool {
        let (stored, committed) = (&self.stored, &self.committed);
        stored.records - committed.records >= self.options.commit_every_records.max(1)
            || stored.bytes - committed.bytes >= self.options.commit_every_bytes.max(1)
    }
}

#[cfg(test)]
mod tests {
    use commonhold_proto::{Kind, Place};

    use super::*;

    fn load(options: BulkOptions) -> Load {
        Load::new(Target::new(Place::new("", "n").unwrap(), Kind::Persistent), None, options)
    }

    const WRITTEN: Written = Written { seq: Seq(7), new: 1, found: 1, surrogates_removed: 0 };

    /// Does what a driver does, up to where it has to wait: what it sends is the number of its records.
    fn steps(load: &mut Load, towards: Towards) -> (Vec<usize>, Todo) {
        let mut sent = Vec::new();
        loop {
            match load.next_step(towards).unwrap() {
                Todo::Send(batch) => sent.push(batch.len()),
                todo => return (sent, todo),
            }
        }
    }

    fn give(load: &mut Load, key: &str, value: &str) -> (Vec<usize>, Todo) {
        load.check_record(key, value).unwrap();
        let steps = steps(load, Towards::RoomFor(key.len() + value.len()));
        load.put(key, value);
        steps
    }

    #[test]
    fn requests_are_bounded_by_bytes_and_by_records_and_lose_nothing() {
        let options = BulkOptions { request_bytes: 10, request_records: 3, in_flight: 9, ..BulkOptions::default() };
        let mut load = load(options);
        let mut sent = Vec::new();
        let long = "\"a value that is longer than a request\"";
        for value in ["1", "2", "3", "4", long, "5"] {
            sent.extend(give(&mut load, "k", value).0);
        }
        sent.extend(steps(&mut load, Towards::Platter).0);
        assert_eq!(sent, [3, 1, 1, 1]);
        assert_eq!(load.on_their_way.iter().map(|piece| piece.bytes).sum::<u64>(), (6 + 5 + long.len()) as u64);
    }

    #[test]
    fn progress_is_what_was_acknowledged_and_the_mark_is_its_own() {
        let options =
            BulkOptions { request_records: 2, commit_every_records: 4, in_flight: 1, ..BulkOptions::default() };
        let mut load = load(options);
        for n in 1..=4_u64 {
            assert!(matches!(give(&mut load, "k", &n.to_string()).1, Todo::Nothing));
            load.mark(n * 10);
        }
        // One request is on its way; a second one may only follow when the first is answered.
        let (sent, todo) = steps(&mut load, Towards::RoomFor(1));
        assert!(sent == [2] && matches!(todo, Todo::TakeOldest), "{sent:?}, {todo:?}");
        load.settle_oldest(Ok(WRITTEN)).unwrap();
        // The mark was set to 20 only after the second record, with which the first request was full, was given.
        assert_eq!((load.stored().records, load.stored().mark, load.stored().seq), (2, 20, Seq(7)));
        assert!(matches!(give(&mut load, "k", "5").1, Todo::Nothing));
        let (sent, todo) = steps(&mut load, Towards::Platter);
        assert!(sent == [1] && matches!(todo, Todo::TakeOldest), "{sent:?}, {todo:?}");
        load.settle_oldest(Ok(WRITTEN)).unwrap();
        assert_eq!(load.committed(), BulkProgress::default());
        // As many as a commit is due for, even where only room is wanted.
        let Todo::Commit(stored) = steps(&mut load, Towards::RoomFor(1)).1 else { panic!("a commit is due") };
        load.settle_oldest(Ok(WRITTEN)).unwrap();
        load.settle_commit(stored, Ok(Seq(8)), 1).unwrap();
        assert_eq!((load.committed().records, load.committed().new, load.committed().mark), (4, 2, 40));
        assert!(matches!(steps(&mut load, Towards::RoomFor(1)).1, Todo::Nothing));
        let Todo::Commit(stored) = steps(&mut load, Towards::Platter).1 else { panic!("the fifth is not committed") };
        load.settle_commit(stored, Ok(Seq(9)), 2).unwrap();
        assert!(load.committed() == load.stored() && load.committed().records == 5);
        assert!(matches!(steps(&mut load, Towards::Platter).1, Todo::Nothing));
    }

    #[test]
    fn an_error_ends_a_load_and_a_refused_record_does_not() {
        let mut load = load(BulkOptions { request_records: 1, ..BulkOptions::default() });
        let long = "k".repeat(commonhold_proto::limits::MAX_KEY_BYTES + 1);
        assert!(matches!(load.check_record(&long, "1"), Err(Error::Name(_))));
        give(&mut load, "k", "1");
        assert_eq!(give(&mut load, "k", "1").0, [1]);
        assert!(matches!(load.settle_oldest(Err(Error::Forked)), Err(Error::Forked)));
        assert!(matches!(load.check_record("k", "1"), Err(Error::Forked)));
        assert!(matches!(load.next_step(Towards::Platter), Err(Error::Forked)));
        assert_eq!(load.stored(), BulkProgress::default());
    }

    #[test]
    fn what_a_load_commits_outlives_a_daemon_that_was_killed_before_or_the_load_fails() {
        let target = |kind| Target::new(Place::new("", "n").unwrap(), kind);
        let mut kept = Load::new(target(Kind::Persistent), Some(Durability::Memory), BulkOptions::default());
        let mut fleeting = Load::new(target(Kind::Volatile), None, BulkOptions::default());
        for (load, holds) in [(&mut kept, true), (&mut fleeting, false)] {
            give(load, "k", "1");
            load.sends_to(1);
            let Todo::Send(batch) = load.next_step(Towards::Platter).unwrap() else { panic!("it is sent") };
            let commonhold_proto::Verb::Write(write) = batch.to_verb().unwrap() else { panic!("it is a write") };
            assert_eq!(write.durability, holds.then_some(Durability::Buffered));
            load.settle_oldest(Ok(WRITTEN)).unwrap();
            let Todo::Commit(stored) = load.next_step(Towards::Platter).unwrap() else { panic!("it is committed") };
            let outcome = load.settle_commit(stored, Ok(Seq(7)), 2);
            assert_eq!(outcome.is_ok(), holds, "{outcome:?}");
            assert_eq!(load.committed().records, u64::from(holds));
        }
    }
}
