//! A note of a clean end: how each namespace's file was left, so that the next start need not hash it to know it again, and
//! so that a file is known to be the store's own where the journal does not know it any more.
//!
//! `.commonhold/files.json` is one JSON object: `format` (1), `store` (the id of the journal's store, in hexadecimal),
//! `boot` (the number of the start that ended so), and `files`, each with `workspace`, `namespace`, `cut` (every write up
//! to it is in the file) and `file`: null where there is none, else `device`, `inode`, `bytes`, `mtime_ns` and, where the
//! journal's table has it, `hash` (XXH3-128, in hexadecimal). It is a hint: it is not synced, and without it files are
//! hashed. That a file need not be hashed is believed of the very last end alone, and never before a segment goes; that a
//! file with this hash, or this very inode where none was noted, holds every write up to the cut stays true whatever came later.

use commonhold_proto::{Place, Seq};
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::disk::{Disk, Kind, Stat};
use super::error::Error;
use super::files::{Seen, is_same_file};
use super::journal::{Fingerprint, Lost};
use super::layout::Layout;
use super::store::Store;

const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Note {
    format: u32,
    store: String,
    boot: u64,
    files: Vec<NotedFile>,
}

#[derive(Serialize, Deserialize)]
struct NotedFile {
    workspace: String,
    namespace: String,
    cut: u64,
    file: Option<NotedStat>,
}

#[derive(Serialize, Deserialize)]
struct NotedStat {
    device: u64,
    inode: u64,
    bytes: u64,
    mtime_ns: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
}

/// What a clean end noted; nothing where there is no note that can be read.
#[derive(Clone, Debug, Default)]
pub(super) struct Noted {
    /// The id of the journal's store.
    store: u128,
    /// The number of the start that ended so.
    boot: u64,
    files: HashMap<Place, Left>,
}

/// How a file was left.
#[derive(Clone, Copy, Debug)]
struct Left {
    seen: Seen,
    hash: Option<u128>,
}

/// What stands in the place of a namespace's file, as far as journal and note tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Present {
    /// Nothing.
    Absent,
    /// A file that the journal's table knows, or that is the same as a kept one: it holds every write up to this one.
    Known(Seq),
    /// A file that the journal does not know, and the store itself left there: it holds every write up to this one.
    Own(Seq),
    /// What neither knows.
    Unknown {
        /// The store left another one there at its last end: somebody else has put this one there since.
        is_foreign: bool,
    },
}

impl Present {
    /// It is known to hold every write up to this one.
    pub(super) fn holds(self) -> Option<Seq> {
        match self {
            Self::Known(cut) | Self::Own(cut) => Some(cut),
            Self::Absent | Self::Unknown { .. } => None,
        }
    }
}

impl Noted {
    /// Reads the note.
    pub(super) fn read(disk: &dyn Disk, layout: &Layout) -> Self {
        let note = disk.read(&layout.files_note()).ok().and_then(|text| serde_json::from_slice::<Note>(&text).ok());
        let id = |note: &Note| u128::from_str_radix(&note.store, 16).ok();
        let note = note.filter(|note| note.format == FORMAT);
        let Some((store, note)) = note.and_then(|note| Some((id(&note)?, note))) else {
            return Self::default();
        };
        let left = |noted: NotedFile| {
            let place = Place::new(&noted.workspace, &noted.namespace).ok()?;
            let hash = noted.file.as_ref().and_then(|file| u128::from_str_radix(file.hash.as_deref()?, 16).ok());
            let stat = noted.file.map(|file| Stat {
                device: file.device,
                inode: file.inode,
                bytes: file.bytes,
                mtime_ns: i128::from(file.mtime_ns),
                mode: 0,
                kind: Kind::File,
            });
            Some((place, Left { seen: Seen { stat, cut: Seq(noted.cut) }, hash }))
        };
        Self { store, boot: note.boot, files: note.files.into_iter().filter_map(left).collect() }
    }

    /// What files need not be hashed in the owner's life with this number, if this is its store's id.
    pub(super) fn seen_before(&self, store: u128, boot: u64) -> HashMap<Place, Seen> {
        if self.boot + 1 == boot { self.seen_of(store) } else { HashMap::new() }
    }

    /// How the last clean end left the files, however long ago, if this is its store's id.
    pub(super) fn seen_of(&self, store: u128) -> HashMap<Place, Seen> {
        if self.store != store {
            return HashMap::new();
        }
        self.files.iter().map(|(place, left)| (place.clone(), left.seen)).collect()
    }

    /// The greatest Seq that a file was left with, in a store with this id or, if none is given, in any.
    pub(super) fn greatest(&self, store: Option<u128>) -> Seq {
        let is_ours = store.is_none_or(|store| store == self.store);
        self.cuts().map(|(_, cut)| cut).filter(|_| is_ours).max().unwrap_or(Seq::ZERO)
    }

    /// Up to which Seq the file of each namespace held everything when it was left.
    pub(super) fn cuts(&self) -> impl Iterator<Item = (&Place, Seq)> {
        self.files.iter().map(|(place, left)| (place, left.seen.cut))
    }
}

impl Left {
    fn is(&self, stat: &Stat, print: Fingerprint) -> bool {
        self.seen.stat.is_some_and(|left| match self.hash {
            // Inode, size and time stay as they were when the disk changes the bytes.
            Some(hash) => hash == print.hash && left.bytes == print.bytes,
            None => is_same_file(&left, stat),
        })
    }
}

impl Store {
    /// Notes how the files are left, for the next start. To be called when everything is flushed and nothing is written
    /// any more; what is noted of a store that goes on is not believed.
    pub fn note_files(&self) {
        let mut seen = self.files.lock().seen.clone();
        for table in self.loaded().into_iter().filter(|table| !table.is_volatile()) {
            let Some(file) = table.file.try_lock() else { continue };
            if file.unannounced.is_none() && !table.is_dirty() {
                seen.insert(table.place().clone(), Seen { stat: file.stat, cut: table.covered() });
            } else {
                seen.remove(table.place());
            }
        }
        let store = self.turn.exclusive(|writer| writer.appender.store());
        let earlier = Some(&self.traces.noted).filter(|noted| noted.store == store);
        let earlier = earlier.into_iter().flat_map(|noted| &noted.files);
        // What is closed stays as it was left, until it is settled.
        let mut left: HashMap<Place, Left> = earlier
            .filter(|(place, left)| self.is_closed(place) || seen.get(*place) == Some(&left.seen))
            .map(|(place, left)| (place.clone(), *left))
            .collect();
        self.turn.exclusive(|writer| {
            for (place, seen) in seen {
                let known = writer.appender.table().get(&place);
                let entry = known.and_then(|known| known.entries.iter().rfind(|entry| entry.cut == seen.cut));
                let print = entry.and_then(|entry| entry.file);
                let hash = print.filter(|print| seen.stat.is_some_and(|stat| stat.bytes == print.bytes));
                let new = Left { seen, hash: hash.map(|print| print.hash) };
                if new.hash.is_some() || !left.contains_key(&place) {
                    left.insert(place, new);
                }
            }
        });
        let noted = |(place, Left { seen, hash }): (Place, Left)| NotedFile {
            workspace: place.workspace.to_string(),
            namespace: place.namespace.to_string(),
            cut: seen.cut.0,
            file: seen.stat.map(|stat| NotedStat {
                device: stat.device,
                inode: stat.inode,
                bytes: stat.bytes,
                mtime_ns: i64::try_from(stat.mtime_ns).unwrap_or(i64::MAX),
                hash: hash.map(|hash| format!("{hash:032x}")),
            }),
        };
        let mut files: Vec<NotedFile> = left.into_iter().map(noted).collect();
        files.sort_unstable_by(|a, b| (&a.workspace, &a.namespace).cmp(&(&b.workspace, &b.namespace)));
        let note = Note { format: FORMAT, store: format!("{store:032x}"), boot: self.boot, files };
        let text = serde_json::to_vec(&note).expect("a note is made of texts and numbers");
        let (path, new) = (self.layout.files_note(), self.layout.files_note().with_added_extension("new"));
        let written = self.disk.make_anew(&new).and_then(|file| {
            file.write_at(&text, 0)?;
            self.disk.rename(&new, &path)
        });
        if let Err(error) = written {
            tracing::debug!(%error, "how the files were left is not noted: the next start hashes them");
        }
    }

    /// What this file, found in the namespace's place, is known to hold.
    pub(super) fn present(&self, place: &Place, stat: Option<&Stat>, print: Option<Fingerprint>) -> Present {
        let (Some(stat), Some(print)) = (stat, print) else { return Present::Absent };
        let known = self.known(place);
        if let Some(cut) = known.cut_of(Some(print)) {
            return Present::Known(cut);
        }
        if self.has_decayed(place, stat, &known) {
            return Present::Unknown { is_foreign: false };
        }
        let noted = &self.traces.noted;
        let is_ours = noted.store == self.turn.exclusive(|writer| writer.appender.store());
        match noted.files.get(place).filter(|_| is_ours) {
            Some(left) if left.is(stat, print) => Present::Own(left.seen.cut),
            left => {
                if let Some(cut) = self.cut_of_a_kept_file(place, print).filter(|cut| *cut <= known.covered) {
                    return Present::Known(cut);
                }
                // By inode, size and time it may be the store's own, whose bytes the disk has changed.
                let is_another = |left: &Left| left.seen.stat.is_none_or(|left| !is_same_file(&left, stat));
                Present::Unknown { is_foreign: left.is_some_and(is_another) && noted.boot + 1 == self.boot }
            }
        }
    }

    /// Whether the last clean end left another file with everything that is flushed, by inode, size or time: somebody has put
    /// this one there since, and its bytes have to tell which it is.
    pub(super) fn is_other_than_it_was_left(&self, place: &Place, found: &Stat) -> bool {
        let noted = self.files.lock().noted.get(place).copied();
        let covered = self.known(place).covered;
        noted.is_some_and(|left| left.cut >= covered && left.stat.is_none_or(|left| !is_same_file(&left, found)))
    }

    /// The same of what is there now. What cannot be read is not known.
    pub(super) fn present_of(&self, place: &Place) -> Result<Present, Error> {
        let path = self.layout.namespace_file(place);
        Ok(match self.read_namespace_file(&path)? {
            Ok((stat, bytes)) => self.present(place, stat.as_ref(), stat.map(|_| Fingerprint::of(&bytes))),
            Err(_) => Present::Unknown { is_foreign: false },
        })
    }

    /// The last Seq that the journal holds, where it is known to have held more.
    pub(super) fn end_of_a_cut_journal(&self) -> Option<Seq> {
        match self.lost {
            Some(Lost::End(end)) => Some(end),
            Some(Lost::Whole) | None => None,
        }
    }
}
