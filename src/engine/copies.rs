//! What a namespace would lack if it began with an older file: which of its writes another file has, and which nothing has.
//!
//! Of writes that have left the journal nobody knows the numbers any more, but for the last one. So what is told is that one
//! for certain, and of the others only between which numbers they would be.

use std::path::Path;

use commonhold_proto::{Place, Seq};

use super::check::generations_of;
use super::error::Error;
use super::journal::Fingerprint;
use super::note::Present;
use super::store::Store;
use super::words::span_of;
use crate::json;

/// A file that is known, or may be thought, to hold more than the one that is begun with.
struct Copy {
    through: Seq,
    words: String,
}

impl Store {
    /// What is to be said of writes above `cut` that neither journal nor quarantine has: nothing where there are none.
    /// `present` is the file that is given up, if that is another one than what is begun with.
    pub(super) fn what_it_would_lack(&self, place: &Place, cut: Seq, present: Present) -> Result<Vec<String>, Error> {
        let Some((first, last)) = self.lost_beyond(place, cut)? else { return Ok(Vec::new()) };
        let mut told = Vec::new();
        let mut from = first;
        let copies = self.copies(place, present, from)?;
        if let [copy, others @ ..] = copies.as_slice() {
            let through = copy.through.min(last);
            let others: Vec<String> = others
                .iter()
                .map(|other| {
                    if other.through >= through {
                        other.words.clone()
                    } else {
                        format!("{} (up to sequence number {})", other.words, other.through)
                    }
                })
                .collect();
            let (alone, also) = match others.as_slice() {
                [] => (" alone", String::new()),
                others => ("", format!(". It is also in {}", others.join(" and in "))),
            };
            told.push(format!(
                "whatever was written to it with {} is in {}{alone}, which is kept, and does not count any more{also}",
                span_of(from, through),
                copy.words
            ));
            from = through.next();
        }
        let covered = self.known(place).covered;
        if matches!(present, Present::Unknown { .. }) && from <= last && covered >= from {
            let through = covered.min(last);
            told.push(format!(
                "whatever was written to it with {} can only be in the present file, as far as that is the namespace's own; it is kept, and does not count any more",
                span_of(from, through)
            ));
            from = through.next();
        }
        if from <= last {
            told.push(format!("{} nowhere any more: {}", lost_words(from, last), self.what_held_the_lost(place)?));
        }
        Ok(told)
    }

    /// Up to which write a file with these bytes holds everything, if one is kept that has them.
    pub(super) fn cut_of_a_kept_file(&self, place: &Place, print: Fingerprint) -> Option<Seq> {
        let kept = generations_of(self, place).ok()?;
        let is_it = |path: &Path| {
            self.disk.lstat(path).is_ok_and(|found| found.bytes == print.bytes)
                && self.disk.read(path).is_ok_and(|bytes| Fingerprint::of(&bytes) == print)
        };
        kept.into_iter().find(|kept| !kept.foreign && is_it(&kept.path)).map(|kept| kept.number)
    }

    /// The files that hold a write from this one on, the fullest first: the present one, and the kept generations that can be
    /// read.
    fn copies(&self, place: &Place, present: Present, from: Seq) -> Result<Vec<Copy>, Error> {
        let mut copies: Vec<Copy> = Vec::new();
        copies.extend(present.holds().map(|through| Copy { through, words: "the present file".to_owned() }));
        for kept in generations_of(self, place)?.into_iter().filter(|kept| !kept.foreign && kept.number >= from) {
            let bytes = self.disk.read(&kept.path).map_err(Error::disk("read", &kept.path))?;
            if json::load_object(&bytes, &mut |_, _| {}).is_ok() {
                let words = format!("the kept file of sequence number {} (`--generation {0}`)", kept.number);
                copies.push(Copy { through: kept.number, words });
            }
        }
        copies.retain(|copy| copy.through >= from);
        copies.sort_by_key(|copy| std::cmp::Reverse(copy.through));
        Ok(copies)
    }
}

/// `the acknowledged write to it with sequence number 9, and any other from 4 on, are`: the last one is known, and of those
/// before it only where they would be.
fn lost_words(first: Seq, last: Seq) -> String {
    let one = format!("the acknowledged write to it with sequence number {last}");
    if first == last { format!("{one} is") } else { format!("{one}, and any other from {first} on, are") }
}
