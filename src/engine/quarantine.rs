//! Quarantine: the waiting records of a namespace that would not open lie in a file of their own, so that the journal
//! need not keep them and can go on shrinking.
//!
//! Nothing is moved, only copied: the file is written, synced and named durably before any segment may go. So each
//! record is in the file, in the journal, or in both, and a start takes it from the file and then, above the last one
//! there, from the journal. The quarantine file goes when the namespace's own file is known to hold what is in it,
//! which is after its next completed flush.

use std::path::Path;

use commonhold_proto::{Place, Seq};

use super::closing::Why;
use super::error::Error;
use super::journal::{Contents, Known, Quarantine, Wanted, gather};
use super::store::Store;
use super::words::counted;

impl Store {
    /// The namespace's quarantine file, unless everything in it is in the namespace's own file already.
    pub(super) fn quarantine_of(&self, place: &Place) -> Option<Quarantine> {
        let quarantine = self.quarantines.lock().get(place).cloned()?;
        let covered = self.turn.exclusive(|writer| {
            let same = writer.appender.store() == quarantine.store;
            writer.appender.table().get(place).filter(|_| same).map_or(Seq::ZERO, |known| known.covered)
        });
        // Of a file whose header cannot be read nobody knows through where it goes.
        (covered < quarantine.through || quarantine.through == Seq::ZERO).then_some(quarantine)
    }

    /// What the journal's table knows of the namespace, and what its quarantine file keeps of that.
    pub(super) fn known(&self, place: &Place) -> Known {
        let mut known = self.turn.exclusive(|writer| writer.appender.table().get(place).cloned()).unwrap_or_default();
        if let Some(quarantine) = self.quarantine_of(place) {
            known.last = known.last.max(quarantine.through);
            quarantine.known.entries.iter().for_each(|entry| known.add(*entry));
        }
        known
    }

    /// Why the quarantine file of the namespace cannot be used, if it cannot.
    pub(super) fn flaw_of_quarantine(&self, place: &Place) -> Option<Why> {
        let quarantine = self.quarantine_of(place)?;
        let file = quarantine.path;
        if let Some(flaw) = quarantine.flaw {
            return Some(Why::Quarantine { file, offset: flaw.offset, reason: flaw.reason });
        }
        let store = self.turn.exclusive(|writer| writer.appender.store());
        (quarantine.store != store).then_some(Why::OtherJournal { file })
    }

    /// The last write to the namespace in segments that are not there any more.
    fn left_the_journal(&self, place: &Place) -> Seq {
        let released = self.turn.exclusive(|writer| writer.appender.released(place));
        self.gone.get(place).copied().unwrap_or(Seq::ZERO).max(released)
    }

    /// Between which Seqs there were writes to the namespace that neither a file with this cut holds nor quarantine nor
    /// journal. The last of them was a write to it; which of the others were is not known any more.
    pub(super) fn lost_beyond(&self, place: &Place, cut: Seq) -> Result<Option<(Seq, Seq)>, Error> {
        let gone = self.left_the_journal(place);
        // What can be read of the quarantine file: above the one, up to the other.
        let readable = match self.quarantine_of(place) {
            None => None,
            Some(quarantine) if quarantine.flaw.is_none() => Some((quarantine.from, quarantine.through)),
            Some(quarantine) => {
                let mut last = None;
                Contents::read(&*self.disk, &quarantine.path)?.for_each_effect(|seq, _| last = Some(seq));
                last.map(|last| (quarantine.from, last))
            }
        };
        let (first, last) = match readable {
            Some((from, through)) if from <= cut => (cut.max(through).next(), gone),
            Some((from, through)) if through >= gone => (cut.next(), gone.min(from)),
            _ => (cut.next(), gone),
        };
        Ok((first <= last).then_some((first, last)))
    }

    /// Where that was which [`lost_beyond`](Self::lost_beyond) tells of, as a sentence.
    pub(super) fn what_held_the_lost(&self, place: &Place) -> Result<String, Error> {
        let path = self.layout.quarantine(place);
        let flawed = self.quarantine_of(place).and_then(|quarantine| Some((quarantine.records, quarantine.flaw?)));
        let Some((records, flaw)) = flawed else {
            return Ok(format!(
                "neither a journal segment nor the quarantine file {} has them any more",
                path.display()
            ));
        };
        let (mut readable, mut at) = (0, Seq::ZERO);
        Contents::read(&*self.disk, &path)?.for_each_effect(|seq, _| {
            readable += u64::from(seq != at);
            at = seq;
        });
        Ok(match records {
            // Its header cannot be read.
            0 => format!("they were in {}, of which nothing can be read", path.display()),
            all => format!(
                "they were in {}, of whose {} only {readable} can be read, those before byte {}",
                path.display(),
                counted(all, "record", "records"),
                flaw.offset
            ),
        })
    }

    /// The first and the last write to the namespace that its file may lack and that can be read.
    pub(super) fn waiting(&self, place: &Place, known: &Known) -> Option<(Seq, Seq)> {
        let mut waiting = None;
        if known.is_waiting() {
            // What cannot be read is told by whoever needs it.
            let _ = self.for_each_left(place, known.covered, |seq, _| {
                waiting = Some((waiting.map_or(seq, |(first, _)| first), seq));
            });
        }
        waiting
    }

    /// Every write to the namespace above this Seq is in its quarantine file or in the journal.
    pub(super) fn complete_above(&self, place: &Place) -> Seq {
        let gone = self.left_the_journal(place);
        match self.quarantine_of(place) {
            Some(quarantine) if quarantine.through >= gone => quarantine.from.min(gone),
            _ => gone,
        }
    }

    /// Copies the waiting records of a closed namespace into its quarantine file, together with those that are there.
    /// Should that fail, they stay in the journal.
    pub(super) fn quarantine(&self, place: &Place) {
        if self.poison.reason().is_some() || self.flaw_of_quarantine(place).is_some() {
            return;
        }
        let known = self.known(place);
        let there = self.quarantine_of(place);
        if !known.is_waiting() || there.as_ref().is_some_and(|there| there.through >= known.last) {
            return;
        }
        match self.write_quarantine(place, known, there) {
            Ok(quarantine) => {
                tracing::warn!(%place, file = %quarantine.path.display(), records = quarantine.records, "the records that wait for the closed namespace are kept in quarantine");
                let through = Some(quarantine.through);
                self.quarantines.lock().insert(place.clone(), quarantine);
                self.turn.exclusive(|writer| writer.appender.set_quarantined(place, through));
            }
            Err(error) => {
                tracing::warn!(%place, %error, "the records that wait for the closed namespace stay in the journal");
            }
        }
    }

    fn write_quarantine(&self, place: &Place, known: Known, there: Option<Quarantine>) -> Result<Quarantine, Error> {
        let path = self.layout.quarantine(place);
        let before = there.map(|there| Contents::read(&*self.disk, &there.path)).transpose()?;
        let store = self.turn.exclusive(|writer| writer.appender.store());
        let from = self.complete_above(place);
        let ranges = self.ranges_beyond(&[(place, from)]);
        let wanted = Wanted { path: path.clone(), place, store, from, known };
        let gathered = gather(&*self.disk, &ranges, wanted, before.as_ref())?;
        self.write_private(&path, &gathered.bytes)?;
        Ok(gathered.head)
    }

    /// Keeps what the journal has of a namespace's writes in a file that nothing applies: another file than it knows, or that
    /// there is none, is now taken for right, and the journal will go. Where the journal has nothing of it, nothing is kept.
    pub(super) fn keep_waiting_aside(&self, place: &Place) -> Result<(), Error> {
        if self.turn.exclusive(|writer| writer.appender.segments_beyond(&[(place, Seq::ZERO)])).is_empty() {
            return Ok(());
        }
        let known = self.known(place);
        let mut number = known.last;
        let mut path = self.layout.quarantine_aside(place, number);
        let store = self.turn.exclusive(|writer| writer.appender.store());
        let from = self.complete_above(place);
        let wanted = Wanted { path: path.clone(), place, store, from, known };
        let gathered = gather(&*self.disk, &self.ranges_beyond(&[(place, from)]), wanted, None)?;
        // What was set aside before may have what has left the journal since.
        while self.disk.lstat(&path).is_ok() {
            if self.disk.read(&path).is_ok_and(|there| there == gathered.bytes) {
                return self.sync_private_above(&path);
            }
            number = number.next();
            path = self.layout.quarantine_aside(place, number);
        }
        self.write_private(&path, &gathered.bytes)?;
        tracing::warn!(%place, file = %path.display(), records = gathered.head.records, "another file than the journal knows is taken for right: what the journal still has of the namespace was set aside");
        Ok(())
    }

    /// Writes a whole file inside `.commonhold`, durably and with its name: a crash leaves the old one or the new one.
    pub(super) fn write_private(&self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        let new = path.with_added_extension("new");
        self.make_directories(path.parent().expect("a path inside .commonhold has a parent"))?;
        let file = self.disk.make_anew(&new).map_err(Error::disk("create", &new))?;
        let written = file.write_at(bytes, 0).map_err(Error::disk("write", &new));
        let written = written.and_then(|()| file.sync().map_err(Error::disk("sync", &new)));
        if let Err(error) = written {
            // The room is wanted for other things; should this fail too, the next try overwrites what is left.
            let _ = self.disk.remove(&new);
            return Err(error);
        }
        self.disk.rename(&new, path).map_err(Error::disk("rename into place", &new))?;
        self.sync_private_above(path)
    }

    /// Makes the name of something inside `.commonhold` durable, and those of the directories above it.
    pub(super) fn sync_private_above(&self, path: &Path) -> Result<(), Error> {
        for directory in path.ancestors().skip(1).take_while(|above| above.starts_with(self.layout.private())) {
            self.disk.sync_dir(directory).map_err(Error::disk("sync", directory))?;
        }
        Ok(())
    }

    /// At a start: sees that the names of the quarantine files are on the platter, for whoever made them may have died
    /// before that. From then on the journal need not keep what is in them.
    pub(super) fn rely_on_quarantines(&self) -> Result<(), Error> {
        let places: Vec<Place> = self.quarantines.lock().keys().cloned().collect();
        for place in places {
            let Some(quarantine) = self.quarantine_of(&place) else { continue };
            if self.flaw_of_quarantine(&place).is_none() {
                self.sync_private_above(&quarantine.path)?;
                let through = Some(quarantine.through);
                self.turn.exclusive(|writer| writer.appender.set_quarantined(&place, through));
            }
        }
        Ok(())
    }

    /// Removes the quarantine files of namespaces whose own files are known to hold what is in them.
    pub(super) fn release_quarantines(&self) {
        let settled: Vec<(Place, Quarantine)> = {
            let quarantines = self.quarantines.lock();
            if quarantines.is_empty() {
                return;
            }
            let is_settled = |place: &Place, quarantine: &Quarantine| {
                quarantine.through > Seq::ZERO
                    && self.turn.exclusive(|writer| {
                        writer.appender.store() == quarantine.store
                            && writer.appender.is_settled(place, quarantine.through)
                    })
            };
            let settled = quarantines.iter().filter(|(place, quarantine)| is_settled(place, quarantine));
            settled.map(|(place, quarantine)| (place.clone(), quarantine.clone())).collect()
        };
        for (place, quarantine) in settled {
            match self.disk.remove(&quarantine.path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(file = %quarantine.path.display(), %error, "a quarantine file that is no longer needed stays");
                }
                _ => {
                    self.quarantines.lock().remove(&place);
                    self.turn.exclusive(|writer| writer.appender.set_quarantined(&place, None));
                }
            }
        }
    }

    /// The namespaces whose waiting records are in quarantine, in order of name.
    pub fn quarantined(&self) -> Vec<Place> {
        let mut places: Vec<Place> = self.quarantines.lock().keys().cloned().collect();
        places.retain(|place| self.quarantine_of(place).is_some());
        places.sort_unstable();
        places
    }
}
