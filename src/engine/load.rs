//! Bringing a namespace into memory: its file, and what the journal holds beyond that.
//!
//! A file counts for what the table of namespaces knows of it. Known by its hash, it holds every write up to the entry's
//! cut, and exactly the namespace's parts of later records are applied. Not known while nothing waits for it, somebody
//! else wrote it, and it is taken as it is. Not known while something waits, the namespace is closed: the records
//! belong to another file, and neither may be given up for the other.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use commonhold_proto::{Place, Seq, Workspace};
use hashbrown::HashMap;

use super::catalogue::{LoadProgress, clash};
use super::closing::{Closing, Why};
use super::disk::{DiskFile, How, Kind, Stat};
use super::error::Error;
use super::faultpoint::faultpoint;
use super::flag_word::set_flags;
use super::journal::{Contents, EffectKind, EffectRef, Entry, Fingerprint, Known, Range, for_each_effect};
use super::map::{Map, Record};
use super::pieces::{Loaded, Plan, load_in_pieces};
use super::store::Store;
use super::table::{FileState, Table};
use super::workspace::WorkspaceFound;
use crate::json;

/// A namespace on its way into memory.
pub(super) struct Base {
    pub(super) map: Map,
    pub(super) file: FileState,
    pub(super) covered: Seq,
    /// How much of that the journal knows to be in the file.
    completed: Seq,
    /// The last write to it, in file or journal.
    pub(super) last: Seq,
    /// What was noticed in the file.
    pub(super) report: json::LoadReport,
    /// The last drop of it that was replayed, or what stands for one where there is no file.
    dropped: Seq,
}

impl Base {
    fn replay(&mut self, seq: Seq, effect: EffectRef<'_>) {
        if effect.kind == EffectKind::Drop {
            self.dropped = seq;
        }
        replay(&mut self.map, seq, effect);
    }
}

impl Store {
    /// Loads namespaces together, reading the journal once. Each comes out loaded or closed; an error is the journal's.
    /// `progress` is told how far the file is read, of one place.
    pub(super) fn load(
        &self,
        places: &[Place],
        progress: Option<&LoadProgress>,
    ) -> Result<Vec<Result<Arc<Table>, Closing>>, Error> {
        let mut bases: Vec<Result<Base, Closing>> = Vec::with_capacity(places.len());
        let mut names = HashMap::new();
        for place in places {
            bases.push(self.base_among(place, progress, &mut names)?);
        }
        self.apply_journal(places, &mut bases)?;
        let table = |(place, base): (&Place, Result<Base, Closing>)| {
            let base = base?;
            let load = self.next_load();
            let activity = self.activity(place);
            activity.loaded();
            if base.file.unannounced.is_some_and(|entry| entry.file.is_some()) {
                // Another program's content: whoever has a copy has an older one.
                self.flag_moved(place, set_flags(activity.flag_word()));
            }
            if base.last > base.completed {
                activity.wrote(true);
            }
            let table = Table::new(
                place.clone(),
                load,
                base.map.measured(&self.shared.memory.gauge),
                (base.last, base.covered),
                base.file,
                activity,
            )
            .counted(self.counts_of_loaded(place));
            table.set_completed(base.completed);
            table.set_dropped(base.dropped);
            Ok(Arc::new(table))
        };
        Ok(places.iter().zip(bases).map(table).collect())
    }

    /// Applies to each base exactly its parts of the records above its cut, in order, each once.
    fn apply_journal(&self, places: &[Place], bases: &mut [Result<Base, Closing>]) -> Result<(), Error> {
        let mut waiting: HashMap<&Place, &mut Base> = HashMap::new();
        for (place, base) in places.iter().zip(bases) {
            if let Ok(base) = base
                && base.last > base.covered
            {
                waiting.insert(place, base);
            }
        }
        if waiting.is_empty() {
            return Ok(());
        }
        let mut applied = 0_u64;
        let mut wanted: Vec<(&Place, Seq)> = Vec::with_capacity(waiting.len());
        for (place, base) in &mut waiting {
            let mut above = base.covered;
            if let Some(quarantine) = self.quarantine_of(place) {
                // What it holds may be in the journal as well: from there only what is above it is taken.
                Contents::read(&*self.disk, &quarantine.path)?.for_each_effect(|seq, effect| {
                    if seq > base.covered {
                        base.replay(seq, effect);
                        applied += 1;
                    }
                });
                above = above.max(quarantine.through);
            }
            wanted.push((place, above));
        }
        let above: HashMap<&Place, Seq> = wanted.iter().copied().collect();
        let ranges = self.ranges_beyond(&wanted);
        for_each_effect(&*self.disk, &ranges, |seq, place, effect| {
            if let Some(base) = waiting.get_mut(place).filter(|_| seq > above[place]) {
                base.replay(seq, effect);
                applied += 1;
            }
        })?;
        faultpoint!("load-applied");
        tracing::debug!(applied, "effects of the journal were applied to what their files held");
        Ok(())
    }

    /// What the start found of the journal, as far as it holds writes to these namespaces above these Seqs. That stays
    /// until the writes are elsewhere.
    pub(super) fn ranges_beyond(&self, wanted: &[(&Place, Seq)]) -> Vec<Range> {
        let holders = self.turn.exclusive(|writer| writer.appender.segments_beyond(wanted));
        self.ranges.iter().filter(|range| holders.contains(&range.path)).cloned().collect()
    }

    /// What the file holds, and from where on the journal counts. The outer error is one that may pass.
    pub(super) fn base(&self, place: &Place, progress: Option<&LoadProgress>) -> Result<Result<Base, Closing>, Error> {
        self.base_among(place, progress, &mut HashMap::new())
    }

    /// The same; `names` keeps the namespaces of each workspace, so that they are listed once.
    fn base_among(
        &self,
        place: &Place,
        progress: Option<&LoadProgress>,
        names: &mut HashMap<Workspace, Vec<String>>,
    ) -> Result<Result<Base, Closing>, Error> {
        let unseen = LoadProgress::default();
        let progress = progress.unwrap_or(&unseen);
        let path = self.layout.namespace_file(place);
        let known = self.known(place);
        let mut held = known.covered;
        let closing = |why, held| {
            let waiting = self.waiting(place, &known);
            Ok(Err(Closing { why, waiting, lost: self.lost_beyond(place, held)? }))
        };
        let (stat, content) = match self.open_namespace_file(&path, progress)? {
            Ok(None) => (None, Content::Bytes(Vec::new())),
            Ok(Some((stat, file))) => {
                let content = Content::of(&*file, stat.bytes, known.cut_by_size(stat.bytes), progress);
                (Some(stat), content.map_err(Error::disk("read", &path))?)
            }
            Err(why) => return closing(why, held),
        };
        let file = stat.map(|_| content.fingerprint());
        held = self.present(place, stat.as_ref(), file).holds().map_or(held, |cut| held.max(cut));
        if let Some(why) = self.flaw_of_quarantine(place) {
            return closing(why, held);
        }
        if !names.contains_key(&place.workspace) {
            names.insert(place.workspace.clone(), self.names_in_use(&place.workspace)?);
        }
        if let Some(existing) = clash(names[&place.workspace].iter().map(String::as_str), place) {
            return closing(Why::NameClash { existing: existing.to_owned() }, held);
        }
        let cut = match self.cut_of(place, &known, file) {
            Ok(cut) => cut,
            Err(Why::OtherFile) => {
                // Where it is torn, the place of that says more.
                let why = content.flaw().map_or(Why::OtherFile, Why::NotJson);
                return closing(why, held);
            }
            Err(why) => return closing(why, held),
        };
        let (covered, unannounced) = if let Some(cut) = cut {
            (cut, None)
        } else if stat.is_some_and(|stat| self.has_decayed(place, &stat, &known)) {
            let why = content.flaw().map_or(Why::Decayed, Why::NotJson);
            return closing(why, held);
        } else {
            let cut = self.turn.exclusive(|writer| writer.appender.take_seq());
            (cut, Some(Entry { file, cut }))
        };
        faultpoint!("load-read");
        let (map, report) = match content.into_map(covered, progress) {
            Ok(loaded) => loaded,
            Err(error) => return closing(Why::NotJson(error), held),
        };
        if report.surrogates_removed > 0 {
            tracing::warn!(file = %path.display(), removed = report.surrogates_removed, "lone surrogates were removed at load");
        }
        let last = known.last.max(covered);
        // A flush that died after its rename: the file has what the journal still waits for. That the name is on the
        // platter is not known, so the next flush replaces the file once more.
        let completed = if known.is_waiting() { covered.min(known.covered) } else { covered };
        // A drop that died after it had removed the file: the next flush is not to make an empty one.
        let dropped = if stat.is_none() && covered >= last { last } else { Seq::ZERO };
        Ok(Ok(Base { map, file: FileState { stat, unannounced }, covered, completed, last, report, dropped }))
    }

    /// The file and its bytes; nothing and no bytes if there is none.
    #[expect(
        clippy::type_complexity,
        reason = "what was read, or why not; the outer error may pass, the inner may not"
    )]
    pub(super) fn read_namespace_file(&self, path: &Path) -> Result<Result<(Option<Stat>, Vec<u8>), Why>, Error> {
        Ok(match self.open_namespace_file(path, &LoadProgress::default())? {
            Ok(None) => Ok((None, Vec::new())),
            Ok(Some((stat, file))) => Ok((Some(stat), file.read_all().map_err(Error::disk("read", path))?)),
            Err(why) => Err(why),
        })
    }

    /// The file, open; none if there is none.
    #[expect(
        clippy::type_complexity,
        reason = "what was opened, or why not; the outer error may pass, the inner may not"
    )]
    fn open_namespace_file(
        &self,
        path: &Path,
        progress: &LoadProgress,
    ) -> Result<Result<Option<(Stat, Box<dyn DiskFile>)>, Why>, Error> {
        let workspace = path.parent().expect("a namespace's file lies in a directory");
        match self.workspace_at(workspace)? {
            WorkspaceFound::Link { target } => return Ok(Err(Why::LinkedWorkspace { target })),
            WorkspaceFound::Other => return Ok(Err(Why::NoWorkspace { path: workspace.to_owned() })),
            WorkspaceFound::Directory | WorkspaceFound::Nothing => {}
        }
        let found = match self.disk.lstat(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ok(None)),
            other => other.map_err(Error::disk("look at", path))?,
        };
        match found.kind {
            Kind::File => progress.begin(found.bytes),
            Kind::Link => {
                let target = self.disk.read_link(path).map_err(Error::disk("read the link", path))?;
                return Ok(Err(Why::Link { target }));
            }
            Kind::Dir | Kind::Other => {
                return Ok(Err(Why::NotAFile));
            }
        }
        let file = self.disk.open(path, &How::READ).map_err(Error::disk("open", path))?;
        let stat = file.stat().map_err(Error::disk("look at", path))?;
        Ok(Ok(Some((stat, file))))
    }

    /// The cut of the file that was found; none if it is to be taken as it is.
    fn cut_of(&self, place: &Place, known: &Known, file: Option<Fingerprint>) -> Result<Option<Seq>, Why> {
        let cut = known.cut_of(file).or_else(|| {
            // A namespace that was only ever written to the journal began without a file.
            (file.is_none() && known.entries.is_empty()).then_some(Seq::ZERO)
        });
        let through = self.complete_above(place);
        let had_a_file = known.entries.iter().any(|entry| entry.file.is_some());
        // That there was none once does not say that it may be missing now, when what it was replaced with is known.
        let is_missing = |cut: Seq| {
            let settled_since = !known.is_waiting() && known.covered > cut;
            file.is_none() && had_a_file && (through > cut || settled_since)
        };
        let cut = cut.filter(|cut| (*cut > Seq::ZERO || known.last > Seq::ZERO) && !is_missing(*cut));
        let Some(cut) = cut else {
            if known.is_waiting() {
                return Err(if file.is_some() { Why::OtherFile } else { Why::Missing });
            }
            if file.is_none() && had_a_file {
                tracing::warn!(%place, "the namespace's file is gone; nothing waited for it, so the namespace is empty");
            }
            return Ok(None);
        };
        if through > cut {
            return Err(Why::Gap { cut: file.map(|_| cut), through });
        }
        Ok(Some(cut))
    }
}

/// What a file holds.
enum Content {
    /// Read in pieces, without keeping its bytes; the records have this Seq.
    Records(Box<Loaded>, Seq),
    Bytes(Vec<u8>),
}

impl Content {
    /// Reads a file of about so many bytes. `cut` is what it holds, if it is the one that is known by its size.
    fn of(file: &dyn DiskFile, bytes: u64, cut: Option<Seq>, progress: &LoadProgress) -> io::Result<Self> {
        let seq = cut.unwrap_or(Seq::ZERO);
        if let Some(loaded) = load_in_pieces(file, bytes, seq, Plan::usual(), &progress.done_bytes) {
            return Ok(Self::Records(Box::new(loaded), seq));
        }
        progress.done_bytes.store(0, Ordering::Relaxed);
        file.read_all().map(Self::Bytes)
    }

    fn fingerprint(&self) -> Fingerprint {
        match self {
            Self::Records(loaded, _) => loaded.print,
            Self::Bytes(bytes) => Fingerprint::of(bytes),
        }
    }

    /// Where it is not a namespace's content, if so.
    fn flaw(&self) -> Option<json::FileError> {
        match self {
            Self::Records(..) => None,
            Self::Bytes(bytes) => json::load_object(bytes, &mut |_, _| {}).err(),
        }
    }

    /// Its records, which get this Seq.
    fn into_map(self, covered: Seq, progress: &LoadProgress) -> Result<(Map, json::LoadReport), json::FileError> {
        let bytes = match self {
            Self::Records(loaded, seq) => {
                let Loaded { map, report, .. } = *loaded;
                if seq != covered {
                    map.set_seqs(covered);
                }
                return Ok((map, report));
            }
            Self::Bytes(bytes) => bytes,
        };
        let mut map = Map::expecting(json::expected_records(&bytes));
        let report = json::load_object_telling(&bytes, &progress.done_bytes, &mut |key, value| {
            let record = Record::new(key, value);
            record.set_seq(covered);
            map.put(record);
        })?;
        Ok((map, report))
    }
}

pub(super) fn replay(map: &mut Map, seq: Seq, effect: EffectRef<'_>) {
    let record = || {
        let record = Record::new(effect.key, effect.value);
        record.set_seq(seq);
        record
    };
    match effect.kind {
        EffectKind::Put => drop(map.put(record())),
        EffectKind::PutAtEnd => {
            map.remove(effect.key);
            map.put(record());
        }
        EffectKind::Delete => drop(map.remove(effect.key)),
        EffectKind::Clear | EffectKind::Drop => drop(map.clear()),
    }
}
