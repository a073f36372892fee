//! What the journal alone gives of a namespace: whether it reaches back to where that had no record, and what it makes of it.
//!
//! That nothing has left the journal does not say it: a file of another program may have been loaded on the way. So what
//! the journal makes is compared with the newest file that the table knows, by its hash.

use commonhold_proto::{Place, Seq};

use super::super::error::Error;
use super::super::journal::Fingerprint;
use super::super::load::replay;
use super::super::map::Map;
use super::super::store::Store;
use super::super::words::{counted, span_of};
use crate::json::{FileFormat, FileWriter};

/// What a namespace comes to that begins with nothing.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct FromNothing {
    /// Where it begins: then the namespace had no record.
    pub(in crate::engine) cut: Seq,
    /// How many changes quarantine and journal still have above that, …
    pub(in crate::engine) changes: u64,
    /// … and the last of them.
    pub(in crate::engine) last: Seq,
    /// Nothing of the newest file that the journal knows is missing in them, and nothing that was written later.
    pub(in crate::engine) is_all: bool,
}

/// What is said of the journal where that is so.
pub(in crate::engine) const REACHES_BACK: &str =
    "reaches back to when the namespace was empty, and has everything of the last file that it knows";

/// Records taken from a view at once.
const SLICE_RECORDS: usize = 256;

impl Store {
    /// Finds out what beginning with nothing gives.
    pub(in crate::engine) fn what_nothing_gives(&self, place: &Place) -> Result<FromNothing, Error> {
        let known = self.known(place);
        let cut = known.cut_of(None).unwrap_or(Seq::ZERO);
        // One that was only intended may not be there, and counts if nothing else does.
        let files = || known.entries.iter().filter(|entry| entry.file.is_some() && entry.cut > cut);
        let newest = files().rfind(|entry| entry.cut <= known.covered).or_else(|| files().next()).copied();
        let (mut map, mut changes, mut last) = (Map::new(), 0_u64, cut);
        // Of a namespace that never had a file, the one that is there is another program's.
        let mut is_that_file = newest.is_none().then_some(false);
        let compared = |map: &mut Map| newest.and_then(|entry| entry.file).is_some_and(|file| is_file_of(map, file));
        self.for_each_left(place, cut, |seq, effect| {
            if is_that_file.is_none() && newest.is_some_and(|entry| seq > entry.cut) {
                is_that_file = Some(compared(&mut map));
            }
            replay(&mut map, seq, effect);
            changes += 1;
            last = last.max(seq);
        })?;
        let is_that_file = is_that_file.unwrap_or_else(|| compared(&mut map));
        // Of a journal that was lost, or has lost its end, what is left makes an earlier file.
        let is_whole = self.lost.is_none() && self.traces.lost_through <= cut;
        let is_all = is_that_file
            && is_whole
            && self.flaw_of_quarantine(place).is_none()
            && self.lost_beyond(place, cut)?.is_none();
        Ok(FromNothing { cut, changes, last, is_all })
    }

    /// What the journal has of a namespace for which nothing waits, in words: nothing where it has nothing.
    pub(super) fn left_in_the_journal(&self, place: &Place) -> Result<Option<String>, Error> {
        let (mut writes, mut first, mut last) = (0_u64, None, Seq::ZERO);
        self.for_each_left(place, self.complete_above(place), |seq, _| {
            writes += u64::from(seq != last);
            first = first.or(Some(seq));
            last = seq;
        })?;
        Ok(first.map(|first| format!("{} ({})", counted(writes, "write", "writes"), span_of(first, last))))
    }
}

/// Whether these records make that file, as the store writes it in one way or the other.
fn is_file_of(map: &mut Map, file: Fingerprint) -> bool {
    [FileFormat::Lines, FileFormat::Pretty].into_iter().any(|format| {
        let (mut writer, mut bytes, mut slice) = (FileWriter::new(format), Vec::new(), Vec::new());
        writer.begin(&mut bytes);
        let view = map.view();
        loop {
            let more = view.next(map, SLICE_RECORDS, &mut slice);
            slice.drain(..).for_each(|record| writer.record(&mut bytes, record.key(), record.value()));
            // What is longer already is another one.
            if !more || bytes.len() as u64 > file.bytes {
                break;
            }
        }
        writer.finish(&mut bytes);
        Fingerprint::of(&bytes) == file
    })
}
