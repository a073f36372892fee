//! A note of a clean end: how each namespace's file was left, so that the next start need not hash it to know it again.
//!
//! `.commonhold/files.json` is one JSON object: `format` (1), `store` (the id of the journal's store, in hexadecimal),
//! `boot` (the number of the start that ended so), and `files`, each with `workspace`, `namespace`, `cut` (every write up
//! to it is in the file) and `file`: null where there is none, else `device`, `inode`, `bytes`, `mtime_ns`. It is a hint
//! and no more: it is not synced, one that cannot be read or is not of the very last start is as good as none, and
//! nothing but the time of hashing is lost with it.

use commonhold_proto::{Place, Seq};
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::disk::{Disk, Kind, Stat};
use super::files::Seen;
use super::layout::Layout;
use super::store::Store;

const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Note {
    format: u32,
    store: String,
    boot: u64,
    files: Vec<Noted>,
}

#[derive(Serialize, Deserialize)]
struct Noted {
    workspace: String,
    namespace: String,
    cut: u64,
    file: Option<NotedFile>,
}

#[derive(Serialize, Deserialize)]
struct NotedFile {
    device: u64,
    inode: u64,
    bytes: u64,
    mtime_ns: i64,
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
        let noted = |(place, seen): (Place, Seen)| Noted {
            workspace: place.workspace.to_string(),
            namespace: place.namespace.to_string(),
            cut: seen.cut.0,
            file: seen.stat.map(|stat| NotedFile {
                device: stat.device,
                inode: stat.inode,
                bytes: stat.bytes,
                mtime_ns: i64::try_from(stat.mtime_ns).unwrap_or(i64::MAX),
            }),
        };
        let mut files: Vec<Noted> = seen.into_iter().map(noted).collect();
        files.sort_unstable_by(|a, b| (&a.workspace, &a.namespace).cmp(&(&b.workspace, &b.namespace)));
        let store = self.turn.exclusive(|writer| writer.appender.store());
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
}

/// What the end before the start with this number noted.
pub(super) fn read(disk: &dyn Disk, layout: &Layout, store: u128, boot: u64) -> HashMap<Place, Seen> {
    let note = disk.read(&layout.files_note()).ok().and_then(|text| serde_json::from_slice::<Note>(&text).ok());
    let is_of_the_last_end =
        |note: &Note| note.format == FORMAT && note.store == format!("{store:032x}") && note.boot + 1 == boot;
    let Some(note) = note.filter(is_of_the_last_end) else { return HashMap::new() };
    let seen = |noted: Noted| {
        let place = Place::new(&noted.workspace, &noted.namespace).ok()?;
        let stat = noted.file.map(|file| Stat {
            device: file.device,
            inode: file.inode,
            bytes: file.bytes,
            mtime_ns: i128::from(file.mtime_ns),
            mode: 0,
            kind: Kind::File,
        });
        Some((place, Seen { stat, cut: Seq(noted.cut) }))
    };
    note.files.into_iter().filter_map(seen).collect()
}
