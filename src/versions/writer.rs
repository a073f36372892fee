//! What a daemon does with its table: take it over or make one, move its counts, and end it.
//!
//! A table outlives its daemon where that is killed, and the next daemon of the store takes it over: its clients still look
//! there, and see the epoch go. At a clean stop the epoch is made dead first and the file removed then; whoever has it
//! mapped goes on seeing that it is dead. A table whose store is gone is removed in the same way by the next daemon of the
//! same user that begins. The file is locked (flock) for as long as its daemon lives, so nobody takes a living one's.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use commonhold_proto::{Place, StoreIdentity, Tag};
use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};

use super::layout::{self, DEAD, EPOCH_OFFSET, HEADER_BYTES, NAMESPACES, Name, Occupant, PATH_OFFSET, SLOTS, Words};
use super::memory::{Access, Mapping};
use super::shelf::{self, shelves};

/// At most so many tables of stores that are gone are removed at one start.
const MOST_REAPED: usize = 1_000;

/// So many slots are looked at before the first of them is moved.
const SIDE_BY_SIDE: usize = 64;

/// The table of a daemon that serves.
#[derive(Debug)]
pub struct Writer {
    words: Words,
    path: PathBuf,
    /// Its lock says that the table's daemon lives.
    file: File,
    epoch: u64,
    nonce: u64,
    entries: Mutex<HashMap<Place, Option<usize>>>,
}

/// A namespace's entry in it.
#[derive(Clone, Debug)]
pub struct Entry {
    table: Arc<Writer>,
    name: Name,
    at: usize,
}

impl Writer {
    /// The table for the store in `dir`, which the caller owns: what an earlier daemon has left, or a new one. Whatever was
    /// read before is void from here on. With `for_others`, other users may read it.
    ///
    /// # Errors
    /// Why there is none: no tmpfs, or no room on it.
    pub fn take_over(dir: &Path, identity: StoreIdentity, for_others: bool) -> io::Result<Self> {
        if !cfg!(target_os = "linux") {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Self::take_over_on(&shelves(), dir, identity, for_others)
    }

    fn take_over_on(shelves: &[PathBuf], dir: &Path, identity: StoreIdentity, for_others: bool) -> io::Result<Self> {
        // On all of them, before there is one: a killed daemon's clients must find its epoch gone, wherever its table lies.
        let (mut found, mut unseen) = (None, None);
        for shelf in memory_among(shelves) {
            match clear_away(shelf, identity, found.is_none()) {
                Ok(taken) => found = found.or(taken),
                Err(error) => unseen = Some(error),
            }
        }
        match (found, unseen) {
            (None, None) => {}
            // Where it lies, also where another directory would come first now: its clients look at it.
            (Some(found), None) => return Self::begin(found, for_others),
            (found, Some(error)) => {
                if let Some((_, path, file)) = found {
                    make_dead(&path, &file);
                }
                return Err(error);
            }
        }
        let mut error = io::Error::other("there is no directory for it");
        for shelf in shelves {
            match found_table(shelf, dir, identity).and_then(|founded| Self::begin(founded, for_others)) {
                Ok(table) => return Ok(table),
                Err(why) => error = io::Error::new(why.kind(), format!("{}: {why}", shelf.display())),
            }
        }
        Err(error)
    }

    /// A daemon begins with this table.
    fn begin((words, path, file): Found, for_others: bool) -> io::Result<Self> {
        // No client finds an entry while there is no epoch, and none that has found one believes it afterwards.
        words.epoch().store(DEAD, Release);
        for entry in 0..NAMESPACES {
            words.vacate(entry);
            words.flag_word(entry).store(0, Release);
        }
        let mode = if for_others { 0o644 } else { 0o600 };
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        let epoch = random()?;
        words.epoch().store(epoch, Release);
        let nonce = words.nonce().load(Acquire);
        Ok(Self { words, path, file, epoch, nonce, entries: Mutex::default() })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its nonce, for the handshake.
    pub fn nonce(&self) -> u64 {
        self.nonce
    }

    /// Whether clients that connect now find it.
    pub fn is_there(&self) -> bool {
        is_named(&self.path, &self.file)
    }

    /// How many slots it has.
    pub fn slots(&self) -> usize {
        self.words.slots()
    }

    /// How many namespaces have an entry.
    pub fn namespaces(&self) -> usize {
        self.entries.lock().values().flatten().count()
    }

    /// The entry of a namespace, given to it if it has none. None if there is none to be had: nobody may keep values of it.
    pub fn entry(self: &Arc<Self>, place: &Place) -> Option<Entry> {
        let name = Name::of(place);
        let mut entries = self.entries.lock();
        let known = entries.get(place).copied();
        if known.is_none() && entries.len() >= NAMESPACES {
            // What there is no entry for is not kept here either: there may be any number of names.
            return None;
        }
        let entry = known.unwrap_or_else(|| {
            let entry = self.take_entry(name);
            entries.insert(place.clone(), entry);
            if entries.len() == NAMESPACES {
                tracing::warn!(
                    "{NAMESPACES} namespaces are in the version table: clients ask for every value of further ones"
                );
            }
            entry
        })?;
        Some(Entry { table: Arc::clone(self), name, at: entry })
    }

    /// The entry of a namespace, if it has been given one.
    pub fn known_entry(self: &Arc<Self>, place: &Place) -> Option<Entry> {
        let at = self.entries.lock().get(place).copied().flatten()?;
        Some(Entry { table: Arc::clone(self), name: Name::of(place), at })
    }

    fn take_entry(&self, name: Name) -> Option<usize> {
        for entry in Words::entries_for(name) {
            match self.words.look(entry, name) {
                Occupant::Another => {}
                Occupant::Nobody => {
                    self.words.occupy(entry, name);
                    return Some(entry);
                }
                // Two namespaces of one hash. The first one's counts go on being moved; nobody who does not have it yet finds it.
                Occupant::Own => {
                    self.words.close(entry);
                    return None;
                }
            }
        }
        None
    }

    /// Ends it: no value that was read with it is current any more. Before this the daemon has done its last write, and after
    /// it, it answers nobody whom that could surprise.
    pub fn retire(&self) {
        // Another daemon that took the store has marked it dead already, and the name may be its own table's.
        if self.words.epoch().compare_exchange(self.epoch, DEAD, AcqRel, Acquire).is_ok() {
            remove_if_same(&self.path, &self.file);
        }
    }
}

impl Entry {
    /// The value of this key changes.
    #[inline]
    pub fn moved(&self, key: &str) {
        let words = &self.table.words;
        words.slot(words.slot_of(self.name, key)).fetch_add(1, AcqRel);
    }

    /// The values of all these keys change. Their slots lie far apart: each has to come from memory, and a count that is moved waits
    /// for its own. So some of them are looked at first, which the processor does side by side.
    pub fn all_moved(&self, keys: &mut dyn Iterator<Item = &str>) {
        let words = &self.table.words;
        let mut slots = [0; SIDE_BY_SIDE];
        loop {
            let mut count = 0;
            for (slot, key) in slots.iter_mut().zip(&mut *keys) {
                *slot = words.slot_of(self.name, key);
                std::hint::black_box(words.slot(*slot).load(Relaxed));
                count += 1;
            }
            for slot in &slots[..count] {
                words.slot(*slot).fetch_add(1, AcqRel);
            }
            if count < SIDE_BY_SIDE {
                return;
            }
        }
    }

    /// The values of all keys change.
    pub fn cleared(&self) {
        self.table.words.clear_count(self.at).fetch_add(1, AcqRel);
    }

    /// The namespace's flag word is this now, or a greater one that was told meanwhile.
    #[inline]
    pub fn flagged(&self, word: u64) {
        self.table.words.flag_word(self.at).fetch_max(word, AcqRel);
    }

    /// What a client compares later. To be called where the value is read, under the lock under which it is changed.
    #[inline]
    pub fn tag(&self, key: &str) -> Tag {
        let words = &self.table.words;
        Tag {
            // This daemon's own: if the table has another one by now, the value is not one to be kept.
            epoch: self.table.epoch,
            clear_count: words.clear_count(self.at).load(Acquire),
            slot_count: words.slot(words.slot_of(self.name, key)).load(Acquire),
        }
    }
}

/// A table that an earlier daemon has left, its path, and its file.
type Found = (Words, PathBuf, File);

/// Those that are on a tmpfs, each once: two paths may lead to one, and its table is not to be found there again and taken for
/// another.
fn memory_among(shelves: &[PathBuf]) -> Vec<&PathBuf> {
    let mut seen = Vec::new();
    let is_new_memory = |shelf: &&PathBuf| {
        let opened = File::open(shelf).ok().filter(is_memory);
        let found = opened.and_then(|opened| opened.metadata().ok()).map(|found| (found.dev(), found.ino()));
        let is_new = found.is_some_and(|found| !seen.contains(&found));
        seen.extend(found);
        is_new
    };
    shelves.iter().filter(is_new_memory).collect()
}

fn is_memory(file: &File) -> bool {
    #[cfg(target_os = "linux")]
    return shelf::is_memory(file);
    #[cfg(not(target_os = "linux"))]
    return file.metadata().is_err();
}

fn random() -> io::Result<u64> {
    loop {
        match getrandom::u64().map_err(|error| io::Error::other(error.to_string()))? {
            // Dead, and no table.
            0 => {}
            random => return Ok(random),
        }
    }
}

/// Makes a new table, all of it allocated.
fn found_table(shelf: &Path, dir: &Path, identity: StoreIdentity) -> io::Result<Found> {
    if !is_memory(&File::open(shelf)?) {
        return Err(io::Error::other("it is no tmpfs"));
    }
    let nonce = random()?;
    let path = shelf.join(shelf::file_name(own_uid(), identity, nonce));
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    let made = (|| {
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        let bytes = layout::table_bytes(SLOTS);
        fallocate(&file, FallocateFlags::empty(), 0, bytes as u64)?;
        let mapping = Mapping::of(&file, bytes, Access::Write)?;
        Words::founded(mapping, SLOTS, nonce, dir.as_os_str().as_bytes())
            .ok_or_else(|| io::ErrorKind::InvalidData.into())
    })();
    match made {
        Ok(words) => Ok((words, path, file)),
        Err(error) => {
            remove_if_same(&path, &file);
            Err(error)
        }
    }
}

/// Looks through the tables of this user. Answers the one of this store that can be taken over, if one is wanted; others of
/// this store, and those of stores that are gone, are made dead and removed.
fn clear_away(shelf: &Path, identity: StoreIdentity, wanted: bool) -> io::Result<Option<Found>> {
    let uid = own_uid();
    let (mut taken, mut reaped) = (None, 0);
    for entry in fs::read_dir(shelf)?.flatten() {
        let name = entry.file_name();
        let Some(store) = name.to_str().and_then(|name| shelf::store_of(name, uid)) else { continue };
        let (path, is_ours) = (entry.path(), store == identity);
        if !is_ours && reaped >= MOST_REAPED {
            continue;
        }
        let Ok((file, bytes)) = shelf::open(&path, uid, true) else {
            if is_ours {
                // It is no table now, but may have been one when somebody mapped it.
                if let Ok(file) = shelf::open_any(&path, uid) {
                    make_dead(&path, &file);
                }
                let _ = fs::remove_file(&path);
            }
            continue;
        };
        let is_free = || flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        if !is_ours {
            // In this order: the lock of a table that is not to go is its own daemon's, who may be taking it just now.
            if is_gone(&file, store) && is_free() {
                make_dead(&path, &file);
                reaped += 1;
            }
            continue;
        }
        let words = Mapping::of(&file, bytes, Access::Write).ok().and_then(Words::of);
        match words.filter(|_| wanted && is_free() && taken.is_none() && is_named(&path, &file)) {
            Some(words) => taken = Some((words, path, file)),
            // Of another layout; or of a daemon that has lost the store to this one and lives on.
            None => make_dead(&path, &file),
        }
    }
    Ok(taken)
}

/// Whether the directory that a table was made for is not that store any more.
fn is_gone(file: &File, store: StoreIdentity) -> bool {
    let mut header = vec![0; HEADER_BYTES];
    if file.read_exact_at(&mut header, 0).is_err() || !layout::is_table(&header) {
        return false;
    }
    let mut length = [0; 8];
    length.copy_from_slice(&header[PATH_OFFSET - 8..PATH_OFFSET]);
    let length = usize::try_from(u64::from_ne_bytes(length)).unwrap_or(usize::MAX);
    let Some(path) = header.get(PATH_OFFSET..PATH_OFFSET.saturating_add(length)).filter(|path| !path.is_empty()) else {
        return false;
    };
    match fs::metadata(Path::new(std::ffi::OsStr::from_bytes(path))) {
        Ok(found) => found.dev() != store.device || found.ino() != store.inode,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// In this order: whoever has it mapped sees the first, and nobody finds it after the second. What is no table, or has another
/// name, too, which may be anything's, is not touched.
fn make_dead(path: &Path, file: &File) {
    let mut header = [0; HEADER_BYTES];
    let is_table = file.read_exact_at(&mut header, 0).is_ok() && layout::is_table(&header);
    if !is_table || file.metadata().is_ok_and(|found| found.nlink() > 1) {
        return;
    }
    if file.write_all_at(&DEAD.to_ne_bytes(), EPOCH_OFFSET).is_ok() {
        remove_if_same(path, file);
    }
}

fn is_named(path: &Path, file: &File) -> bool {
    let (Ok(named), Ok(own)) = (fs::symlink_metadata(path), file.metadata()) else { return false };
    named.dev() == own.dev() && named.ino() == own.ino()
}

fn remove_if_same(path: &Path, file: &File) {
    if is_named(path, file) {
        let _ = fs::remove_file(path);
    }
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(all(test, target_os = "linux"))]
#[path = "writer_tests.rs"]
mod tests;
