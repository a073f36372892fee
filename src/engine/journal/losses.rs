//! What a damaged journal would lose if it were cut at its last good record.
//!
//! Records behind the damage are found one by one, as the judge finds them: whole ones tell which namespaces they wrote
//! to and which files hold what. What the damaged bytes themselves held cannot be told, only between which sequence numbers.

use std::collections::BTreeMap;
use std::path::PathBuf;

use commonhold_proto::{Place, Seq};

use super::payload::{WritePayload, decode_drop, decode_file};
use super::record::{Kind, UncheckedRecord};
use super::table::Entry;

/// What lies behind the damage.
#[derive(Clone, Debug, Default)]
pub(crate) struct Losses {
    /// The last sequence number that counts.
    pub(crate) after: Seq,
    /// Something was synced through this one.
    pub(crate) synced: Seq,
    /// Whole records behind the damage, and the namespaces that they wrote to.
    pub(crate) writes: BTreeMap<Seq, Vec<Place>>,
    /// What records behind the damage know of files.
    pub(crate) entries: Vec<(Place, Entry)>,
    /// The greatest sequence number of any record behind the damage.
    pub(crate) greatest: Seq,
    /// Segments without a header that can be read, while others count without them.
    pub(crate) unread: Vec<PathBuf>,
}

impl Losses {
    /// Searches bytes behind the damage for whole records.
    pub(super) fn search(&mut self, bytes: &[u8], salt: u64, above: Seq) {
        let mut start = 0;
        while start < bytes.len() {
            let record = UncheckedRecord::at_start_of(&bytes[start..]).filter(|record| record.is_plausible(above));
            let Some(record) = record.and_then(|record| record.verify(salt)) else {
                start += 8;
                continue;
            };
            start += record.stride;
            let seq = record.stamp.seq;
            self.greatest = self.greatest.max(seq);
            match record.stamp.kind {
                Kind::Write => {
                    let places = WritePayload::decode(record.payload).map(|payload| payload.places);
                    self.writes.insert(seq, places.unwrap_or_default());
                }
                Kind::Drop => drop(
                    self.writes.insert(seq, decode_drop(record.payload).into_iter().map(|(place, _)| place).collect()),
                ),
                Kind::Loaded | Kind::Intent => self.entries.extend(decode_file(record.payload)),
                _ => {}
            }
        }
    }

    /// The sequence numbers of the whole records behind the damage that wrote to each namespace.
    pub(crate) fn by_place(&self) -> BTreeMap<&Place, Vec<Seq>> {
        let mut by_place: BTreeMap<&Place, Vec<Seq>> = BTreeMap::new();
        for (seq, places) in &self.writes {
            for place in places {
                by_place.entry(place).or_default().push(*seq);
            }
        }
        by_place
    }
}
