//! Namespace files as they were left and as they are found: compared before the last other copy of what they hold goes.
//!
//! The journal's table says which writes each file holds, as of its last flush. Whether the file still is the one that was
//! flushed, nobody knows without looking: it can have been removed, torn by the file system, or replaced by another
//! program. So before a segment goes, and before a flush calls a namespace up to date, the file is looked at. Device,
//! inode, size and time are compared first, and the bytes are hashed only where these are not those of a file that was read or
//! written in this life of the store: what an earlier one noted does not tell what the disk has done to the bytes since.
//! A file that is not what was flushed **holds** the segments with its writes: they are the only copy.

use std::io;
use std::path::Path;
use std::sync::Arc;

use commonhold_proto::{Place, Seq};
use hashbrown::{HashMap, HashSet};
use xxhash_rust::xxh3::Xxh3;

use super::catalogue::State;
use super::check::flush_command;
use super::disk::{Disk, How, Kind, Stat};
use super::error::Error;
use super::journal::{Entry, Fingerprint, Known, Releasable};
use super::load::Base;
use super::note::Present;
use super::store::Store;
use super::table::{FileState, Table};

/// What is known of the files that segments wait for.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// Files of namespaces that need not be loaded.
    pub(super) seen: HashMap<Place, Seen>,
    /// How a clean end has left them, however long ago that was.
    pub(super) noted: HashMap<Place, Seen>,
    /// Those of the seen ones whose bytes were hashed since the start, not only noted before it.
    pub(super) hashed: HashSet<Place>,
    pub(super) held: HashMap<Place, Held>,
}

/// A file that was compared: with this stat (none: there is no file) it holds every write up to the cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) stat: Option<Stat>,
    pub(super) cut: Seq,
}

/// A file that is not what was flushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    found: Option<Stat>,
    why: String,
}

/// Why a file does not count.
enum Mismatch {
    /// It is being replaced or loaded right now: the next look will tell.
    Busy,
    Is(String),
}

/// Bytes of a file that are hashed at once.
const HASH_BYTES: usize = 1 << 20;

impl Store {
    /// Removes the journal segments that nobody needs any more. The files that hold what is in them are looked at first.
    pub(super) fn release_segments(&self) {
        let Some(next) = self.turn.exclusive(|writer| writer.appender.releasable()) else { return self.hold(None) };
        self.hold(Some(&next));
        let nameless = self.turn.exclusive(|writer| writer.appender.release_segments(next.through));
        // Not under the turn.
        drop(nameless);
    }

    /// The same where nothing is written: in memory, as far as a start would do it with the `oldest` first segments.
    pub(super) fn forget_segments(&self, oldest: usize) {
        let Some(next) = self.turn.exclusive(|writer| writer.appender.unneeded(oldest)) else { return };
        self.hold(Some(&next));
        self.turn.exclusive(|writer| writer.appender.forget_segments(next.through));
    }

    /// Sees which of the files that are to hold these writes do not, and lets them hold the journal back.
    fn hold(&self, next: Option<&Releasable>) {
        let mut held = HashMap::new();
        let mut names = HashSet::new();
        for (place, through) in next.iter().flat_map(|next| &next.writes) {
            match self.compare(place, *through) {
                Ok(()) => continue,
                Err(Mismatch::Busy) => {}
                Err(Mismatch::Is(why)) => {
                    let found = self.disk.lstat(&self.layout.namespace_file(place)).ok();
                    let hold = Held { found, why };
                    if self.files.lock().held.get(place).is_none_or(|known| known.why != hold.why) {
                        self.warn_of(place, &hold.why);
                    }
                    held.insert(place.clone(), hold);
                }
            }
            names.insert(place.clone());
        }
        self.files.lock().held = held;
        self.turn.exclusive(|writer| writer.appender.set_held(names));
    }

    fn warn_of(&self, place: &Place, why: &str) {
        let file = self.layout.namespace_file(place);
        tracing::warn!(%place, file = %file.display(), "{why}; the journal keeps the writes that it held. {}", self.way_out(place));
    }

    fn way_out(&self, place: &Place) -> String {
        match self.loaded_or_busy(place) {
            Ok(Some(table)) if table.is_announced() => format!(
                "Flush the namespace (`{}`): what is in memory is written, and the file that is found is kept",
                flush_command(place)
            ),
            _ => "Put the right file back and start again, or go back to a kept one with these writes: stop the daemon, and `commonhold check --deep` tells how. \
                  If the file is right as it is, the next write to the namespace or a flush of it settles that, and what the journal has is set aside"
                .to_owned(),
        }
    }

    /// The namespaces whose files are not what was flushed, why, and what can be done: the journal is kept for them.
    pub fn held(&self) -> Vec<(Place, String)> {
        let held: Vec<(Place, String)> =
            self.files.lock().held.iter().map(|(place, held)| (place.clone(), held.why.clone())).collect();
        let mut told: Vec<_> = held
            .into_iter()
            .map(|(place, why)| {
                let way_out = self.way_out(&place);
                (place, format!("{why}; the journal keeps the writes that it held. {way_out}"))
            })
            .collect();
        told.sort_unstable();
        told
    }

    /// Whether a flush of everything, and a clean end, leave the file of this held namespace as it is: it is another one than was
    /// flushed, and nothing in memory is newer.
    pub fn is_left_by_flush(&self, place: &Place) -> bool {
        !matches!(self.loaded_or_busy(place), Ok(Some(table)) if table.is_announced())
    }

    /// Whether the journal is kept because of this namespace's file.
    pub(super) fn is_held(&self, place: &Place) -> bool {
        self.files.lock().held.contains_key(place)
    }

    /// Whether the namespace's file holds every write to it up to this one.
    fn compare(&self, place: &Place, through: Seq) -> Result<(), Mismatch> {
        let path = self.layout.namespace_file(place);
        let found = stat_if_there(&*self.disk, &path)
            .map_err(|error| Mismatch::Is(format!("{} cannot be looked at ({error})", path.display())))?;
        let Some(table) = self.loaded_or_busy(place)? else {
            let is_seen = {
                let files = self.files.lock();
                let seen = files.seen.get(place).filter(|seen| is_same(seen.stat, found) && seen.cut >= through);
                // The last copy of the writes is about to go: once since the start, the bytes themselves are read.
                seen.is_some_and(|seen| seen.stat.is_none() || files.hashed.contains(place))
            };
            if is_seen {
                return Ok(());
            }
            return self.compare_bytes(place, &path, found, through).map(drop);
        };
        let mut file = table.file.try_lock().ok_or(Mismatch::Busy)?;
        if file.unannounced.is_some() {
            let what = if found.is_some() { "was written by another program" } else { "is missing" };
            return Err(Mismatch::Is(format!("{} {what}", path.display())));
        }
        if is_same(file.stat, found) && table.covered() >= through {
            return Ok(());
        }
        let cut = self.compare_bytes(place, &path, found, through)?;
        if cut == table.covered() {
            // Touched, or replaced by a copy of itself.
            file.stat = found;
        }
        Ok(())
    }

    /// The long way: by the file's hash. Returns the cut of the file that is there.
    fn compare_bytes(&self, place: &Place, path: &Path, found: Option<Stat>, through: Seq) -> Result<Seq, Mismatch> {
        let held =
            self.files.lock().held.get(place).filter(|held| held.found.is_some() && held.found == found).cloned();
        if let Some(held) = held {
            return Err(Mismatch::Is(held.why));
        }
        let known = self.turn.exclusive(|writer| writer.appender.table().get(place).cloned()).unwrap_or_default();
        let (stat, cut) = self.cut_of_file(path, found, &known).map_err(Mismatch::Is)?;
        match cut {
            Some(cut) if cut >= through => {
                let mut files = self.files.lock();
                files.seen.insert(place.clone(), Seen { stat, cut });
                files.hashed.insert(place.clone());
                Ok(cut)
            }
            // That there was none once is no earlier file.
            _ if found.is_none() => Err(Mismatch::Is(format!("{} is missing", path.display()))),
            Some(cut) => {
                Err(Mismatch::Is(format!("{} is an earlier file, that of sequence number {cut}", path.display())))
            }
            None => Err(Mismatch::Is(format!("{} is not what was flushed", path.display()))),
        }
    }

    /// What the file that is there is known to hold, if it is known.
    fn cut_of_file(
        &self,
        path: &Path,
        found: Option<Stat>,
        known: &Known,
    ) -> Result<(Option<Stat>, Option<Seq>), String> {
        let Some(found) = found else { return Ok((None, known.cut_of(None))) };
        if found.kind != Kind::File {
            return Err(format!("{} is {}", path.display(), what_stands_there(&*self.disk, path, &found)));
        }
        if !known.entries.iter().any(|entry| entry.file.is_some_and(|file| file.bytes == found.bytes)) {
            return Ok((Some(found), None));
        }
        let hashed = fingerprint(&*self.disk, path);
        let (stat, print) = hashed.map_err(|error| format!("{} cannot be read ({error})", path.display()))?;
        Ok((Some(stat), known.cut_of(Some(print))))
    }

    /// The namespace in memory, if it is; busy while it is being loaded.
    fn loaded_or_busy(&self, place: &Place) -> Result<Option<Arc<Table>>, Mismatch> {
        let Some(slot) = self.namespaces.read().get(place).cloned() else { return Ok(None) };
        let state = slot.state.try_read().ok_or(Mismatch::Busy)?;
        Ok(match &*state {
            State::Loaded(table) if !table.is_volatile() => Some(Arc::clone(table)),
            _ => None,
        })
    }

    /// Whether a file that the journal does not know is one that it does know, with other bytes: nobody has written to it
    /// since it was flushed or compared, by all that the file system tells.
    pub(super) fn has_decayed(&self, place: &Place, found: &Stat, known: &Known) -> bool {
        let files = self.files.lock();
        let as_left = [files.seen.get(place), files.noted.get(place)].into_iter().flatten();
        as_left.filter(|seen| is_same(seen.stat, Some(*found))).any(|seen| {
            let is_its = |entry: &Entry| entry.cut == seen.cut && entry.file.is_some_and(|f| f.bytes == found.bytes);
            known.entries.iter().any(is_its)
        })
    }

    /// Whether the namespace opens with a file that the journal does not know, or without one, although it knows one.
    pub(super) fn is_taken_for_another(&self, place: &Place, base: &Base) -> bool {
        let Some(taken) = base.file.unannounced else { return false };
        let had_a_file = self.known(place).entries.iter().any(|entry| entry.file.is_some());
        // Of the store's own file, left when the journal was longer, the error about its end tells.
        had_a_file && !matches!(self.present(place, base.file.stat.as_ref(), taken.file), Present::Own(_))
    }

    /// The loaded namespaces whose files are not the ones that were last flushed or loaded before: nothing waited for another
    /// one, so they were taken as they are, and no write has built upon them yet.
    pub fn taken_as_found(&self) -> Vec<Place> {
        let is_taken = |table: &Table| {
            let had_a_file = || self.known(table.place()).entries.iter().any(|entry| entry.file.is_some());
            !table.is_announced() && !table.is_volatile() && had_a_file()
        };
        let mut taken: Vec<Place> =
            self.loaded().into_iter().filter(|table| is_taken(table)).map(|table| table.place().clone()).collect();
        taken.sort_unstable();
        taken
    }

    /// The loaded namespaces that a flush of everything has something to do for, in order of name: what their files lack
    /// is to be written, or their files are not there any more as they were left.
    pub fn to_flush(&self) -> Vec<Place> {
        let is_wanted = |table: &Table| {
            if table.is_volatile() || table.is_dirty() {
                return !table.is_volatile();
            }
            // Held by a flush, which the one that is asked for now shares or follows.
            let Some(file) = table.file.try_lock() else { return true };
            let found = stat_if_there(&*self.disk, &self.layout.namespace_file(table.place()));
            !found.is_ok_and(|found| is_same(file.stat, found)) && !is_nothing(table, &file)
        };
        let mut wanted: Vec<_> =
            self.loaded().into_iter().filter(|table| is_wanted(table)).map(|table| table.place().clone()).collect();
        wanted.sort_unstable();
        wanted
    }

    /// Whether the file of a namespace that has nothing to write still is there as it was left. If not, what is in memory is
    /// the last copy of it.
    pub(super) fn is_as_left(&self, table: &Table, file: &mut FileState) -> Result<bool, Error> {
        let path = self.layout.namespace_file(table.place());
        let found = stat_if_there(&*self.disk, &path).map_err(Error::disk("look at", &path))?;
        if is_same(file.stat, found) || is_nothing(table, file) {
            return Ok(true);
        }
        let Some(stat) = found else {
            tracing::warn!(place = %table.place(), file = %path.display(), "the file is gone: it is written again, with what is in memory");
            return Ok(false);
        };
        let known = self.known(table.place());
        let ours = file.unannounced.or_else(|| known.entries.iter().rfind(|e| e.cut == table.covered()).copied());
        let ours = ours.and_then(|entry| entry.file).filter(|ours| ours.bytes == stat.bytes);
        if let Some(ours) = ours.filter(|_| stat.kind == Kind::File) {
            let (stat, print) = fingerprint(&*self.disk, &path).map_err(Error::disk("read", &path))?;
            if print == ours {
                // Touched, or replaced by a copy of itself.
                file.stat = Some(stat);
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Nothing was ever in the namespace, or it was dropped: should another program have put a file there since, it is not to
/// be replaced by nothing.
fn is_nothing(table: &Table, file: &FileState) -> bool {
    file.stat.is_none() && table.is_empty()
}

/// What the file system says about a file; nothing if there is none.
pub(super) fn stat_if_there(disk: &dyn Disk, path: &Path) -> io::Result<Option<Stat>> {
    match disk.lstat(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// What stands in a file's place, in words: a link with where it leads.
pub(super) fn what_stands_there(disk: &dyn Disk, path: &Path, found: &Stat) -> String {
    match found.kind {
        Kind::Link => disk
            .read_link(path)
            .map_or_else(|_| "a symbolic link".to_owned(), |target| format!("a symbolic link to {}", target.display())),
        Kind::Dir => "a directory".to_owned(),
        Kind::File | Kind::Other => "not a regular file".to_owned(),
    }
}

/// Whether this is the file that we loaded or wrote ourselves. Linking it elsewhere changes none of these.
pub(super) fn is_same_file(ours: &Stat, found: &Stat) -> bool {
    (ours.device, ours.inode, ours.bytes, ours.mtime_ns) == (found.device, found.inode, found.bytes, found.mtime_ns)
}

fn is_same(ours: Option<Stat>, found: Option<Stat>) -> bool {
    match (ours, found) {
        (Some(ours), Some(found)) => found.kind == Kind::File && is_same_file(&ours, &found),
        (ours, found) => ours.is_none() && found.is_none(),
    }
}

/// Hashes a file in pieces.
fn fingerprint(disk: &dyn Disk, path: &Path) -> io::Result<(Stat, Fingerprint)> {
    let file = disk.open(path, &How::READ)?;
    let stat = file.stat()?;
    let mut hasher = Xxh3::new();
    let mut piece = vec![0; HASH_BYTES];
    let mut bytes = 0;
    loop {
        let got = file.read_at(&mut piece, bytes)?;
        if got == 0 {
            return Ok((stat, Fingerprint { hash: hasher.digest128(), bytes }));
        }
        hasher.update(&piece[..got]);
        bytes += got as u64;
    }
}
