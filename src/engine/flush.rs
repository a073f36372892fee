//! Bringing a namespace's JSON file up to date.
//!
//! A flush takes a cut under the turn and writes exactly the state at the cut, while writers go on. In order: the
//! flush lock; a new sibling file, synced; the intent in the journal, synced; the old file kept; the rename; the
//! directory synced; the completion in the journal. A crash anywhere leaves the old file or the new one, whole, and the
//! journal knows either.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use commonhold_proto::{Place, Seq};
use parking_lot::MutexGuard;
use xxhash_rust::xxh3::Xxh3;

use super::disk::{DiskFile, How, Kind, Stat};
use super::error::Error;
use super::faultpoint::faultpoint;
use super::files::{is_same_file, what_stands_there};
use super::journal::{Entry, Fingerprint};
use super::map::{Record, View};
use super::rescue::Via;
use super::store::Store;
use super::table::{FileState, Table};
use crate::json::FileWriter;
use crate::lock::{FlushLock, LockError};

/// How a flush is to be done.
#[derive(Clone, Copy, Debug, Default)]
pub struct FlushHow {
    /// Rewrite a file that is up to date, as after a change of format.
    pub rewrite: bool,
    /// How long to wait for other holders of the flush lock; none is as the store has it.
    pub lock_timeout: Option<Duration>,
}

/// What a flush did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flushed {
    /// Whether the file was replaced; otherwise it was up to date.
    pub rewritten: bool,
    /// The file holds every write to the namespace up to this one.
    pub cut: Seq,
}

/// A new file that is to replace a namespace's. It is removed again unless it did.
struct Sibling<'a> {
    store: &'a Store,
    path: PathBuf,
    fingerprint: Fingerprint,
    replaced: bool,
}

/// Permission bits of a namespace's first file: what Python's `open` gives under the usual umask.
const NEW_FILE_MODE: u32 = 0o644;
/// Records taken from a view at once; the readers' lock is held for as long as that takes.
const SLICE_RECORDS: usize = 256;
/// Bytes written to the new file at once.
const WRITE_BYTES: usize = 1 << 20;
/// Distinguishes the temporaries of threads; `ThreadId` has no stable number.
static NEXT_TEMPORARY: AtomicU64 = AtomicU64::new(1);

impl Store {
    /// Flushes one namespace. Callers that come while its file is being replaced wait, and share the next rewrite.
    pub(super) fn flush_table(&self, table: &Arc<Table>, how: FlushHow, via: &Via) -> Result<Flushed, Error> {
        let mut file = table.file.lock();
        if table.is_dirty() || file.stat.is_some() {
            // Before its file is looked at: below a link that would be another one's.
            self.look_at_workspace(table.place())?;
        }
        if !how.rewrite && !table.is_dirty() && self.is_as_left(table, &mut file)? {
            if self.is_held(table.place()) {
                // Somebody wants the journal to count on the file that is there.
                self.announce(table, &mut file, via)?;
            }
            return Ok(Flushed { rewritten: false, cut: self.shared.applied() });
        }
        if file.stat.is_none() && !table.is_dirty() && table.is_empty() {
            // Nobody ever wrote to it: a rewrite makes no file of nothing.
            return Ok(Flushed { rewritten: false, cut: self.shared.applied() });
        }
        via.poison.check()?;
        let began = self.clock.now();
        if file.unannounced.is_some() {
            self.announce(table, &mut file, via)?;
            // Whoever waits to write for the first time passes now, and not after the flush.
            MutexGuard::bump(&mut file);
        }
        let lock = self.take_flush_lock(table.place(), how)?;
        let (cut, view) = self.turn.exclusive(|writer| {
            table.activity.cut();
            (writer.appender.last_given(), (!table.is_dropped()).then(|| table.map.write().view()))
        });
        // Dropped and not written to since: then no file is what is to be there.
        let mut sibling = view.map(|view| self.write_sibling(table, &file, &view)).transpose()?;
        faultpoint!("flush-written");
        let fingerprint = sibling.as_ref().map(|sibling| sibling.fingerprint);
        let entry = Entry { file: fingerprint, cut };
        let intent = self.turn.exclusive(|writer| writer.appender.append_intent(table.place(), entry))?;
        via.progress.sync_through(intent)?;
        faultpoint!("flush-intended");
        self.ownership.check()?;
        via.poison.check()?;
        match &mut sibling {
            Some(sibling) => self.replace(&lock, table, &mut file, sibling, cut)?,
            None => self.remove(&lock, table, &mut file, cut)?,
        }
        table.set_covered(cut);
        self.turn.exclusive(|writer| {
            let done = writer.appender.append_done(table.place(), cut);
            done.inspect(|_| table.activity.saved())
        })?;
        faultpoint!("flush-done");
        table.set_completed(cut);
        table.activity.rewritten(fingerprint.map_or(0, |fingerprint| fingerprint.bytes), began);
        Ok(Flushed { rewritten: true, cut })
    }

    /// Tells the journal which file was loaded, if it does not know, before anything builds on that.
    pub(super) fn announce(&self, table: &Table, file: &mut FileState, via: &Via) -> Result<(), Error> {
        let Some(entry) = file.unannounced else { return Ok(()) };
        via.poison.check()?;
        // The journal lets go of what it has for the file that was there before: that may be the last copy.
        self.keep_waiting_aside(table.place())?;
        let seq = self.turn.exclusive(|writer| writer.appender.append_loaded(table.place(), entry))?;
        via.progress.sync_through(seq)?;
        file.unannounced = None;
        table.set_announced();
        Ok(())
    }

    fn take_flush_lock(&self, place: &Place, how: FlushHow) -> Result<FlushLock, Error> {
        let timeout = how.lock_timeout.unwrap_or(self.options.flush_lock_timeout);
        self.locks.flush_lock(&self.layout.flush_lock(place), timeout).map_err(|error| match error {
            LockError::TimedOut { path, waited } => {
                Error::FlushLockTimeout { place: place.to_string(), lock_file: path, waited }
            }
            // This flush has failed and nothing else: writes go on.
            LockError::Io { action, path, source } | LockError::NotAllowed { action, path, source } => {
                Error::disk(action, &path)(source)
            }
            other => other.into(),
        })
    }

    fn write_sibling(&self, table: &Table, file: &FileState, view: &View) -> Result<Sibling<'_>, Error> {
        self.make_workspace(table.place())?;
        let number = NEXT_TEMPORARY.fetch_add(1, Ordering::Relaxed);
        let time_ns = u128::from(self.clock.unix_ms()) * 1_000_000;
        let path = self.layout.temporary(table.place(), std::process::id(), number, time_ns);
        // Not the bits beyond those: another program's file may have any, and this one will belong to the daemon's user.
        let mode = file.stat.map_or(NEW_FILE_MODE, |stat| stat.mode & 0o777);
        let how = How::CREATE_NEW.with_mode(mode);
        let target = self.disk.open(&path, &how).map_err(Error::disk("create", &path))?;
        let none = Fingerprint { hash: 0, bytes: 0 };
        let mut sibling = Sibling { store: self, path, fingerprint: none, replaced: false };
        let written = self.write_view(table, view, &*target);
        sibling.fingerprint = written.map_err(Error::disk("write", &sibling.path))?;
        target.sync().map_err(Error::disk("sync", &sibling.path))?;
        Ok(sibling)
    }

    fn write_view(&self, table: &Table, view: &View, target: &dyn DiskFile) -> io::Result<Fingerprint> {
        let mut writer = FileWriter::new(self.options.file_format);
        let mut hasher = Xxh3::new();
        let mut slice: Vec<Record> = Vec::with_capacity(SLICE_RECORDS);
        let mut buffer = Vec::with_capacity(WRITE_BYTES + WRITE_BYTES / 4);
        let mut offset = 0;
        let mut put = |buffer: &mut Vec<u8>| {
            hasher.update(buffer);
            target.write_at(buffer, offset)?;
            offset += buffer.len() as u64;
            buffer.clear();
            io::Result::Ok(())
        };
        writer.begin(&mut buffer);
        loop {
            let more = view.next(&table.map.read(), SLICE_RECORDS, &mut slice);
            for record in slice.drain(..) {
                writer.record(&mut buffer, record.key(), record.value());
                if buffer.len() >= WRITE_BYTES {
                    put(&mut buffer)?;
                }
            }
            if !more {
                break;
            }
        }
        writer.finish(&mut buffer);
        faultpoint!("flush-torn");
        put(&mut buffer)?;
        Ok(Fingerprint { hash: hasher.digest128(), bytes: offset })
    }

    /// Puts the new file in the old one's place. Only who holds the flush lock can ask for it.
    fn replace(
        &self,
        _lock: &FlushLock,
        table: &Table,
        file: &mut FileState,
        sibling: &mut Sibling<'_>,
        cut: Seq,
    ) -> Result<(), Error> {
        let place = table.place();
        let path = self.layout.namespace_file(place);
        self.keep_old_file(table, &path, file.stat, cut)?;
        faultpoint!("flush-linked");
        let stat = self.disk.lstat(&sibling.path).map_err(Error::disk("look at", &sibling.path))?;
        // A large file takes its time: what stood there when it was begun may be a link by now.
        self.look_at_workspace(place)?;
        self.disk.rename(&sibling.path, &path).map_err(Error::disk("replace", &path))?;
        sibling.replaced = true;
        faultpoint!("flush-renamed");
        // From here on the new file is the one that readers of the directory see, whatever fails below.
        file.stat = Some(stat);
        let directory = self.layout.workspace(&place.workspace);
        self.disk.sync_dir(&directory).map_err(Error::disk("sync", &directory))?;
        faultpoint!("flush-named");
        Ok(())
    }

    /// Keeps the file that is about to be replaced: the last ones of our own, and every one that another program wrote.
    pub(super) fn keep_old_file(&self, table: &Table, path: &Path, ours: Option<Stat>, cut: Seq) -> Result<(), Error> {
        let (place, covered) = (table.place(), table.covered());
        let found = match self.disk.lstat(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(Error::disk("look at", path))?,
        };
        if found.kind != Kind::File {
            let (path, what) = (path.to_owned(), what_stands_there(&*self.disk, path, &found));
            return Err(Error::InTheWay { path, what, whose: format!("namespace {place}"), needed: "a regular file" });
        }
        let foreign = ours.is_none_or(|ours| !is_same_file(&ours, &found));
        if !foreign && self.options.keep == 0 {
            return Ok(());
        }
        let kept = self.layout.generation(place, if foreign { cut } else { covered }, foreign);
        let directory = self.layout.generations(place);
        self.make_directories(&directory)?;
        if let Err(error) = self.disk.link(path, &kept) {
            if error.kind() == io::ErrorKind::AlreadyExists {
                // Kept by a flush that failed after this point.
                self.disk.remove(&kept).map_err(Error::disk("remove", &kept))?;
            }
            self.disk.copy(path, &kept).map_err(Error::disk("keep the old file as", &kept))?;
        }
        if foreign {
            for directory in directory.ancestors().take_while(|above| above.starts_with(self.layout.private())) {
                self.disk.sync_dir(directory).map_err(Error::disk("sync", directory))?;
            }
            self.foreign_files.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(%place, kept = %kept.display(), "another program had written the file; it was kept");
        }
        self.drop_old_generations(&directory)
    }

    fn drop_old_generations(&self, directory: &Path) -> Result<(), Error> {
        let listed = self.disk.list(directory).map_err(Error::disk("list", directory))?;
        // Ours are `<cut>.json`; another program's `<cut>.foreign.json`.
        let own = |name: &str| name.strip_suffix(".json").is_some_and(|cut| cut.bytes().all(|b| b.is_ascii_digit()));
        let own: Vec<_> = listed.iter().filter(|entry| entry.name.to_str().is_some_and(own)).collect();
        let surplus = own.len().saturating_sub(self.options.keep as usize);
        for entry in &own[..surplus] {
            let path = directory.join(&entry.name);
            self.disk.remove(&path).map_err(Error::disk("remove", &path))?;
        }
        Ok(())
    }

    /// Makes a directory inside `.commonhold`, with those above it.
    pub(super) fn make_directories(&self, path: &Path) -> Result<(), Error> {
        match self.disk.create_dir(path, 0o700) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound && path.starts_with(self.layout.private()) => {
                self.make_directories(path.parent().expect("a path inside .commonhold has a parent"))?;
                // From the top once more: another namespace's flush may have made it in the meantime.
                self.make_directories(path)
            }
            Err(error) => Err(Error::disk("create", path)(error)),
        }
    }
}

impl Drop for Sibling<'_> {
    fn drop(&mut self) {
        if !self.replaced
            && let Err(error) = self.store.disk.remove(&self.path)
        {
            tracing::warn!(file = %self.path.display(), %error, "a temporary file stays; it is removed at a later start");
        }
    }
}
