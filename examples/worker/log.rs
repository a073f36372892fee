//! What a worker did, for those who check it afterwards: one JSON line a change of a key, and a summary at the end.
//!
//! A change is `{"seq": 17, "side": 1, "kind": "put", "request": 9, "namespace": …, "key": …, "state": …}`. Its `seq`
//! is `"unknown"` when the outcome is; its `state` is the value's hash or `"deleted"`. Lines of one request stand
//! together and share its number; lines stand in the order in which the worker learned the outcomes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;

use serde_json::json;

use crate::change::{Change, Outcome};

/// The log file and the counts.
pub(crate) struct Log {
    file: BufWriter<File>,
    requests: u64,
    /// By side (1, 2) and kind.
    counts: BTreeMap<(usize, &'static str), u64>,
}

impl Log {
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        Ok(Self { file: BufWriter::new(File::create(path)?), requests: 0, counts: BTreeMap::new() })
    }

    /// Counts one acknowledged operation, or one that was refused or whose outcome is unknown.
    pub(crate) fn count(&mut self, side: usize, kind: &'static str) {
        *self.counts.entry((side, kind)).or_default() += 1;
    }

    /// How many operations were acknowledged on this side. A refusal is an answer, too; an unknown outcome is none.
    pub(crate) fn operations(&self, side: usize) -> u64 {
        self.counts.iter().filter(|((of, kind), _)| *of == side && *kind != "unknown").map(|(_, count)| count).sum()
    }

    pub(crate) fn write(
        &mut self,
        side: usize,
        kind: &'static str,
        changes: &[Change],
        outcome: &Outcome,
    ) -> io::Result<()> {
        if matches!(outcome, Outcome::Refused) {
            self.count(side, "refused");
            return Ok(());
        }
        self.count(side, if matches!(outcome, Outcome::Unknown) { "unknown" } else { kind });
        self.requests += 1;
        for change in changes {
            let mut line = change.line(kind, self.requests, outcome);
            line["side"] = json!(side);
            writeln!(self.file, "{line}")?;
        }
        Ok(())
    }

    /// Writes the summary, which is also the sign that the log is whole.
    pub(crate) fn finish(&mut self, worker: u64) -> io::Result<()> {
        let side = |side: usize| {
            let of = self.counts.iter().filter(|((of, _), _)| *of == side);
            of.map(|((_, kind), count)| ((*kind).to_owned(), json!(count))).collect::<serde_json::Map<_, _>>()
        };
        let summary = json!({ "worker": worker, "sides": [side(1), side(2)] });
        writeln!(self.file, "{summary}")?;
        self.file.flush()?;
        self.file.get_ref().sync_all()
    }
}
