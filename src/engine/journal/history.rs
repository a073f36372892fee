//! What a start learns of the Seqs of earlier starts: where the journal begins, which Seqs a crash took, and which files were
//! loaded that no entry knew. Who watches from a Seq of an earlier start is answered by it.
//!
//! The Seqs of each start begin above its predecessor's ceiling, and that lies half a [`CEILING_STEP`] above its last record at
//! least. So two records that follow each other with such a leap between them are of two starts, whatever became of the headers that
//! said so. What was given out shortly below the second of them belongs to the later start; all else between them is not there
//! any more: it was given out by the earlier start, or by one between them of which no record is left.

use commonhold_proto::{Place, Seq};
use hashbrown::HashMap;

use super::CEILING_STEP;
use super::payload::decode_file;
use super::record::{Kind, Record};

/// What is known of the Seqs before this start's.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// Every record above it is in the journal.
    kept_above: Seq,
    /// The last record before a leap, and the first one after it.
    leaps: Vec<(Seq, Seq)>,
    /// The greatest cut at which a file was loaded that no entry knew.
    loaded: HashMap<Place, Seq>,
    /// This start's Seqs are above it.
    given: Seq,
    /// The record before the next one.
    previous: Seq,
    has_begun: bool,
    /// Segments were let go of whose writes nobody knows any more.
    forgets: bool,
}

/// Where to go on for one who has seen everything through some Seq of an earlier start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    /// What followed it is in the journal.
    Kept,
    /// The journal begins later.
    Gone,
    /// A crash took it; this is the last one before it that is there.
    Lost(Seq),
}

impl History {
    /// A segment's records follow, the first of them behind `previous`.
    pub(super) fn begin_segment(&mut self, previous: Seq) {
        if !std::mem::replace(&mut self.has_begun, true) {
            (self.kept_above, self.previous) = (previous, previous);
        }
    }

    pub(super) fn note(&mut self, record: &Record<'_>) {
        let seq = record.stamp.seq;
        self.leap_to(seq);
        if record.stamp.kind == Kind::Loaded
            && let Some((place, entry)) = decode_file(record.payload)
        {
            let cut = self.loaded.entry(place).or_insert(entry.cut);
            *cut = entry.cut.max(*cut);
        }
    }

    fn leap_to(&mut self, seq: Seq) {
        if seq.0.saturating_sub(self.previous.0) >= LEAP {
            self.leaps.push((self.previous, seq));
        }
        self.previous = self.previous.max(seq);
    }

    /// The journal was read; this start's Seqs are above `given`. Where there was none, nothing is kept that came before.
    pub(super) fn end(mut self, given: Seq) -> Self {
        if !self.has_begun {
            self.kept_above = given;
        }
        self.leap_to(given.next());
        self.given = given;
        self
    }

    /// A fresh journal goes on in the place of the one that this is the history of.
    pub(super) fn goes_on(&mut self, knows_what_was_released: bool) {
        self.forgets |= !knows_what_was_released;
    }

    /// All records up to this one have left the journal.
    pub(super) fn released(&mut self, through: Seq) {
        self.kept_above = self.kept_above.max(through);
    }

    /// Every record above it is in the journal.
    pub(crate) fn kept_above(&self) -> Seq {
        self.kept_above
    }

    /// Whether it was given out before this start.
    pub(crate) fn is_earlier(&self, seq: Seq) -> bool {
        seq <= self.given || self.forgets
    }

    /// Through where a file that no entry knew was taken as it is, before this start.
    pub(crate) fn loaded(&self, place: &Place) -> Seq {
        self.loaded.get(place).copied().unwrap_or(Seq::ZERO)
    }

    /// Whether writes after this one may have left the journal that nobody knows of any more.
    pub(crate) fn may_lack(&self, after: Seq) -> bool {
        self.forgets && after < self.kept_above
    }

    /// What became of a Seq of an earlier start.
    pub(crate) fn look_up(&self, seq: Seq) -> Before {
        if seq < self.kept_above {
            return Before::Gone;
        }
        // Of this start nothing is below its first one.
        let is_of_later = |first: Seq| first <= self.given && first.0 - seq.0 < LEAP;
        let lost = |(last, first): &&(Seq, Seq)| seq > *last && seq < *first && !is_of_later(*first);
        self.leaps.iter().find(lost).map_or(Before::Kept, |(last, _)| Before::Lost(*last))
    }
}

/// No start gives out so many Seqs between two of its records, and each begins at least so far above the last record before it.
const LEAP: u64 = CEILING_STEP / 4;

#[cfg(test)]
mod tests {
    use super::*;

    /// Three starts: records 1 to 5, then 1 to 3 of the next, then this one's.
    fn history() -> History {
        let mut history = History::default();
        history.begin_segment(Seq(0));
        for seq in [1, 2, 4, 5, CEILING_STEP + 1, CEILING_STEP + 3] {
            history.leap_to(Seq(seq));
        }
        history.end(Seq(2 * CEILING_STEP))
    }

    #[test]
    fn what_a_crash_took_is_told_by_the_last_record_before_it() {
        let history = history();
        for kept in [0, 1, 3, 5, CEILING_STEP, CEILING_STEP + 1, CEILING_STEP + 2, CEILING_STEP + 3] {
            assert_eq!(history.look_up(Seq(kept)), Before::Kept, "{kept}");
        }
        for lost in [6, 7, 1_000_000] {
            assert_eq!(history.look_up(Seq(lost)), Before::Lost(Seq(5)), "{lost}");
        }
        assert_eq!(history.look_up(Seq(CEILING_STEP + 4)), Before::Lost(Seq(CEILING_STEP + 3)));
        assert!(history.is_earlier(Seq(2 * CEILING_STEP)) && !history.is_earlier(Seq(2 * CEILING_STEP + 1)));
    }

    #[test]
    fn what_a_start_gave_out_of_which_no_record_is_left_is_lost() {
        let mut history = History::default();
        history.begin_segment(Seq(0));
        for seq in [1, 5] {
            history.leap_to(Seq(seq));
        }
        let mut later = history.clone();
        let history = history.end(Seq(2 * CEILING_STEP));
        for lost in [6, CEILING_STEP + 1, CEILING_STEP + 1_000_000, 2 * CEILING_STEP] {
            assert_eq!(history.look_up(Seq(lost)), Before::Lost(Seq(5)), "{lost}");
        }
        later.leap_to(Seq(2 * CEILING_STEP + 9));
        let later = later.end(Seq(3 * CEILING_STEP));
        for lost in [6, CEILING_STEP + 1, CEILING_STEP + 1_000_000] {
            assert_eq!(later.look_up(Seq(lost)), Before::Lost(Seq(5)), "{lost}");
        }
        assert_eq!(later.look_up(Seq(2 * CEILING_STEP + 8)), Before::Kept);
    }

    #[test]
    fn what_lies_before_the_oldest_segment_is_gone() {
        let mut history = history();
        history.released(Seq(4));
        assert_eq!((history.look_up(Seq(3)), history.look_up(Seq(4))), (Before::Gone, Before::Kept));
        assert_eq!(
            History::default().end(Seq(9)).look_up(Seq(8)),
            Before::Gone,
            "a journal that is gone keeps nothing"
        );
    }
}
