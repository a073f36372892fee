//! Letting go of segments: what each of them waits for, and when it may be removed.
//!
//! A segment goes when every write in it is in its namespace's file, or in a quarantine file, and the platter knows so. The
//! table says so as of the last flush; whether the file still is what was flushed then, the store looks before it asks
//! for the release, and holds back what is not ([`set_held`](Appender::set_held)). Only
//! the oldest can go, and never the one that is appended to; where a full disk needs the room of that one, a successor is
//! begun for it ([`renew`](Appender::renew)).

use std::path::PathBuf;

use commonhold_proto::{Place, Seq};
use hashbrown::{HashMap, HashSet};

use super::appender::Appender;
use super::shrink::{self, Holding};
use crate::engine::disk::{DiskFile, How};

/// A segment whose records may still be needed.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    /// Through where it counts, records that are still in the buffer included.
    pub(super) bytes: u64,
    pub(super) last: Seq,
    /// Once this Seq is on the platter, so is this segment; none until it has a record.
    pub(super) durable_from: Option<Seq>,
    /// The last write in it to each namespace: what it waits for.
    pub(super) writes: HashMap<Place, Seq>,
}

/// The oldest segments that nothing waits for, as far as the table knows.
#[derive(Debug)]
pub(crate) struct Releasable {
    /// The number of the last of them.
    pub(crate) through: u64,
    /// The last write in them to each namespace whose file must hold it.
    pub(crate) writes: HashMap<Place, Seq>,
}

impl Appender {
    /// Notes that a namespace's writes through this Seq lie in a quarantine file, or no longer do.
    pub(crate) fn set_quarantined(&mut self, place: &Place, through: Option<Seq>) {
        match through {
            Some(through) => drop(self.quarantined.insert(place.clone(), through)),
            None => drop(self.quarantined.remove(place)),
        }
    }

    /// The last write to the namespace in segments that were let go of since the start.
    pub(crate) fn released(&self, place: &Place) -> Seq {
        self.released.get(place).copied().unwrap_or(Seq::ZERO)
    }

    /// Whether the namespace's file holds everything through this Seq, and the record that says so is on the platter.
    pub(crate) fn is_settled(&self, place: &Place, through: Seq) -> bool {
        let covered = self.table.get(place).map_or(Seq::ZERO, |known| known.covered);
        covered >= through && self.last_done <= self.progress.synced()
    }

    /// Number and bytes of the segments that are kept.
    pub(crate) fn size(&self) -> (usize, u64) {
        (self.segments.len(), self.segments.iter().map(|segment| segment.bytes).sum())
    }

    /// Tells others how large the journal is.
    pub(super) fn tell_extent(&self) {
        let (segments, bytes) = self.size();
        self.extent.is(segments, bytes);
    }

    /// The segments that go next, if the files are what the table says; none where something waits for the oldest one.
    ///
    /// Beside every write in them being in its file, the record that says so must be on the platter (or a start would take
    /// the segment for lost), and so must the segment after them (were both lost, the Seqs given out would be
    /// forgotten with them).
    pub(crate) fn releasable(&self) -> Option<Releasable> {
        let synced = self.progress.synced();
        if self.last_done > synced {
            return None;
        }
        let is_durable = |segment: &Segment| segment.durable_from.is_some_and(|seq| seq <= synced);
        let count = (1..self.segments.len())
            .take_while(|next| is_durable(&self.segments[*next]) && !self.lacks_a_file(&self.segments[next - 1]))
            .count();
        self.first(count)
    }

    /// The same where nothing is written: at most so many of the oldest segments.
    pub(crate) fn unneeded(&self, oldest: usize) -> Option<Releasable> {
        let count = self.segments.iter().take(oldest).take_while(|segment| !self.lacks_a_file(segment)).count();
        self.first(count)
    }

    fn first(&self, count: usize) -> Option<Releasable> {
        let mut writes = HashMap::new();
        for (place, last) in self.segments.iter().take(count).flat_map(|segment| &segment.writes) {
            if !self.is_quarantined(place, *last) {
                let through = writes.entry(place.clone()).or_insert(*last);
                *through = (*through).max(*last);
            }
        }
        let through = self.segments.get(count.checked_sub(1)?)?.number;
        Some(Releasable { through, writes })
    }

    /// Notes whose files are not what was flushed. What was noted before does not count any more.
    pub(crate) fn set_held(&mut self, held: HashSet<Place>) {
        self.held = held;
    }

    /// Removes the oldest segments up to this one, as far as nothing is held back in them.
    ///
    /// A segment that cannot be removed is only kept longer: what is in it is applied again by nobody, because the
    /// files' cuts are above it.
    ///
    /// They lose their names here and their room on the disk with what this returns, which takes far longer, tens of milliseconds
    /// where the system tells the disk of each block: to be dropped where nobody waits for the turn.
    #[must_use = "it is to be dropped without the turn"]
    pub(crate) fn release_segments(&mut self, through: u64) -> Vec<Box<dyn DiskFile>> {
        let mut nameless = Vec::new();
        let kept = self.segments.len();
        while let Some(segment) = self.segments.front()
            && segment.number <= through
            && !self.is_waited_for(segment)
        {
            // One that cannot be opened gives its room back at once.
            nameless.extend(self.disk.open(&segment.path, &How::READ));
            if let Err(error) = self.disk.remove(&segment.path) {
                tracing::warn!(segment = %segment.path.display(), %error, "a journal segment that is no longer needed stays");
                break;
            }
            self.let_go_of_oldest();
        }
        if self.segments.len() < kept {
            self.tell_extent();
        }
        nameless
    }

    /// Lets go, in memory, of what a start would remove.
    pub(crate) fn forget_segments(&mut self, through: u64) {
        while self.segments.front().is_some_and(|segment| segment.number <= through && !self.is_waited_for(segment)) {
            self.let_go_of_oldest();
        }
        self.tell_extent();
    }

    fn let_go_of_oldest(&mut self) {
        if let Some(segment) = self.segments.pop_front() {
            self.table.forget(segment.last);
            self.history.released(segment.last);
            self.released.extend(segment.writes);
        }
    }

    fn lacks_a_file(&self, segment: &Segment) -> bool {
        segment.writes.iter().any(|(place, last)| !self.is_in_a_file(place, *last))
    }

    pub(super) fn is_waited_for(&self, segment: &Segment) -> bool {
        segment.writes.iter().any(|(place, last)| self.waits(place, *last))
    }

    /// Whether the journal is all that is left of a write to the namespace, or may be.
    fn waits(&self, place: &Place, seq: Seq) -> bool {
        !self.is_in_a_file(place, seq) || self.held.contains(place) && !self.is_quarantined(place, seq)
    }

    fn is_in_a_file(&self, place: &Place, seq: Seq) -> bool {
        self.table.get(place).is_some_and(|known| seq <= known.covered) || self.is_quarantined(place, seq)
    }

    fn is_quarantined(&self, place: &Place, seq: Seq) -> bool {
        self.quarantined.get(place).is_some_and(|through| seq <= *through)
    }

    /// What the oldest segment still waits for.
    pub(crate) fn pinned_by(&self) -> Vec<Place> {
        // Only a journal that was opened read-only can be without a segment.
        let Some(oldest) = self.segments.front() else { return Vec::new() };
        oldest.writes.iter().filter(|(place, last)| self.waits(place, **last)).map(|(place, _)| place.clone()).collect()
    }

    /// The namespaces to flush so that the journal comes down to so many bytes, the most urgent first.
    pub(crate) fn to_flush(&self, limit: u64, can_be_flushed: impl Fn(&Place) -> bool) -> Vec<Place> {
        if self.size().1 <= limit {
            return Vec::new();
        }
        let waits_for = |segment: &Segment| {
            let waiting = segment.writes.iter().filter(|(place, last)| self.waits(place, **last));
            waiting.map(|(place, _)| place.clone()).collect()
        };
        let holding = |segment: &Segment| Holding { bytes: segment.bytes, waits_for: waits_for(segment) };
        let segments: Vec<_> = self.segments.iter().map(holding).collect();
        shrink::to_flush(&segments, limit, can_be_flushed)
    }

    /// The segments that hold writes to these namespaces above these Seqs. They stay until the writes are in files.
    pub(crate) fn segments_beyond(&self, wanted: &[(&Place, Seq)]) -> Vec<PathBuf> {
        let holds = |segment: &&Segment| {
            wanted.iter().any(|(place, covered)| segment.writes.get(*place).is_some_and(|last| last > covered))
        };
        self.segments.iter().filter(holds).map(|segment| segment.path.clone()).collect()
    }
}
