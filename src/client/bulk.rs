//! How a long load is cut into requests, and how far it is: the same for every driver, without I/O.

use commonhold_proto::limits::MAX_OPERATIONS;
use commonhold_proto::names::check_key;
use commonhold_proto::{Durability, Seq};

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
    /// Commit when so many records were stored since the last commit; 100,000 by default.
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
pub(super) struct Piece {
    records: u64,
    bytes: u64,
    mark: u64,
}

/// A load between its source and its requests.
#[derive(Debug)]
pub(super) struct Load {
    target: Target,
    durability: Option<Durability>,
    options: BulkOptions,
    batch: Batch,
    mark: u64,
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
        let (stored, committed) = (BulkProgress::default(), BulkProgress::default());
        Self { target, durability, options, batch: Batch::new(), mark: 0, stored, committed, failed: None }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.options.in_flight
    }

    pub(super) fn stored(&self) -> BulkProgress {
        self.stored
    }

    pub(super) fn committed(&self) -> BulkProgress {
        self.committed
    }

    /// The error that ended the load, if one did.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// Ends the load: what follows a request that failed must not be taken for stored.
    pub(super) fn fail(&mut self, error: Error) -> Error {
        self.failed = Some(error.clone());
        error
    }

    /// Refuses a record that no request can carry; the load goes on without it.
    pub(super) fn check_record(&self, key: &str, json_text: &str) -> Result<(), Error> {
        self.check()?;
        check_key(key)?;
        check_value(key, json_text)
    }

    /// Whether a record of so many bytes belongs into the next request.
    pub(super) fn is_full_for(&self, bytes: usize) -> bool {
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
    pub(super) fn cut(&mut self) -> Option<(Batch, Piece)> {
        if self.batch.is_empty() {
            return None;
        }
        let mut batch = std::mem::take(&mut self.batch);
        if let Some(durability) = self.durability {
            batch = batch.durability(durability);
        }
        let piece = Piece { records: batch.len() as u64, bytes: batch.bytes() as u64, mark: self.mark };
        Some((batch, piece))
    }

    /// Notes the oldest request that is on its way as stored.
    pub(super) fn note_stored(&mut self, piece: Piece, written: Written) {
        self.stored.records += piece.records;
        self.stored.bytes += piece.bytes;
        self.stored.mark = piece.mark;
        self.stored.new += written.new;
        self.stored.found += written.found;
        self.stored.surrogates_removed += written.surrogates_removed;
        self.stored.seq = written.seq;
    }

    pub(super) fn commit_is_due(&self) -> bool {
        let (stored, committed) = (&self.stored, &self.committed);
        stored.records - committed.records >= self.options.commit_every_records.max(1)
            || stored.bytes - committed.bytes >= self.options.commit_every_bytes.max(1)
    }

    /// Notes that a commit which began when `stored` was stored has been answered.
    pub(super) fn note_committed(&mut self, stored: BulkProgress) {
        self.committed = stored;
    }
}

#[cfg(test)]
mod tests {
    use commonhold_proto::{Kind, Place};

    use super::*;

    fn load(options: BulkOptions) -> Load {
        Load::new(Target::new(Place::new("", "n").unwrap(), Kind::Persistent), None, options)
    }

    /// Cuts where the drivers do.
    fn give(load: &mut Load, key: &str, value: &str) -> Option<Piece> {
        load.check_record(key, value).unwrap();
        let cut = load.is_full_for(key.len() + value.len()).then(|| load.cut().unwrap().1);
        load.put(key, value);
        cut
    }

    #[test]
    fn requests_are_bounded_by_bytes_and_by_records_and_lose_nothing() {
        let mut load = load(BulkOptions { request_bytes: 10, request_records: 3, ..BulkOptions::default() });
        let mut pieces = Vec::new();
        let long = "\"a value that is longer than a request\"";
        for value in ["1", "2", "3", "4", long, "5"] {
            pieces.extend(give(&mut load, "k", value));
        }
        pieces.push(load.cut().unwrap().1);
        assert!(load.cut().is_none());
        let records: Vec<_> = pieces.iter().map(|piece| piece.records).collect();
        assert_eq!(records, [3, 1, 1, 1]);
        assert_eq!(pieces.iter().map(|piece| piece.bytes).sum::<u64>(), (6 + 5 + long.len()) as u64);
    }

    #[test]
    fn progress_is_what_was_acknowledged_and_the_mark_is_its_own() {
        let options = BulkOptions { request_records: 2, commit_every_records: 4, ..BulkOptions::default() };
        let mut load = load(options);
        let mut pieces = Vec::new();
        for n in 1..=6_u64 {
            pieces.extend(give(&mut load, "k", &n.to_string()));
            load.mark(n * 10);
        }
        let written = Written { seq: Seq(7), new: 1, found: 1, surrogates_removed: 0 };
        load.note_stored(pieces[0], written);
        // The mark was set to 20 only after the second record, with which the first request was full, was given.
        assert_eq!((load.stored().records, load.stored().mark, load.stored().seq), (2, 20, Seq(7)));
        assert!(!load.commit_is_due());
        load.note_stored(pieces[1], written);
        assert!(load.commit_is_due());
        assert_eq!(load.committed(), BulkProgress::default());
        load.note_committed(load.stored());
        assert_eq!((load.committed().records, load.committed().new, load.committed().mark), (4, 2, 40));
        assert!(!load.commit_is_due());
    }

    #[test]
    fn an_error_ends_a_load_and_a_refused_record_does_not() {
        let mut load = load(BulkOptions::default());
        let long = "k".repeat(commonhold_proto::limits::MAX_KEY_BYTES + 1);
        assert!(matches!(load.check_record(&long, "1"), Err(Error::Name(_))));
        load.check_record("k", "1").unwrap();
        load.fail(Error::Forked);
        assert!(matches!(load.check_record("k", "1"), Err(Error::Forked)));
    }
}
