//! Which namespaces a store has: those somebody has asked for, in memory, and those that only have a file.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use commonhold_proto::{Namespace, NamespaceInfo, Place, Seq, Workspace, WorkspaceInfo};
use hashbrown::{Equivalent, HashMap};
use parking_lot::RwLock;

use super::closing::{Closing, Why};
use super::disk::{Entry, Kind};
use super::error::Error;
use super::layout::namespace_of_file;
use super::store::Store;
use super::table::Table;
use super::workspace::WorkspaceFound;

/// A namespace that somebody has asked for.
pub(super) struct Slot {
    pub(super) place: Place,
    /// Its lock is held while the file is loaded: requests for it wait, others pass.
    pub(super) state: RwLock<State>,
    /// How far a load has got.
    pub(super) progress: LoadProgress,
}

/// How much of a namespace's file has been loaded, for those who look on.
#[derive(Debug, Default)]
pub(super) struct LoadProgress {
    pub(super) done_bytes: AtomicU64,
    pub(super) total_bytes: AtomicU64,
}

impl Slot {
    pub(super) fn new(place: Place, state: State) -> Self {
        Self { place, state: RwLock::new(state), progress: LoadProgress::default() }
    }
}

pub(super) enum State {
    Unloaded,
    Loaded(Arc<Table>),
    Closed(Closing),
}

impl State {
    pub(super) fn is_volatile(&self) -> bool {
        matches!(self, Self::Loaded(table) if table.is_volatile())
    }
}

impl LoadProgress {
    fn get(&self) -> (u64, u64) {
        (self.done_bytes.load(Ordering::Relaxed), self.total_bytes.load(Ordering::Relaxed))
    }

    /// A load of so many bytes begins.
    pub(super) fn begin(&self, total_bytes: u64) {
        self.done_bytes.store(0, Ordering::Relaxed);
        self.total_bytes.store(total_bytes, Ordering::Relaxed);
    }
}

impl Slot {
    /// Whether it is in memory with nothing in it, and nobody else holds its table.
    fn is_blank(&self) -> bool {
        self.is_free(Table::is_blank)
    }

    /// The same of one that was dropped, too: it need not be forgotten, but its name can be had.
    fn is_vacant(&self) -> bool {
        self.is_free(|table| table.is_blank() || table.is_dropped_for_good())
    }

    fn is_free(&self, has_nothing: impl Fn(&Table) -> bool) -> bool {
        self.state.try_read().is_some_and(|state| match &*state {
            State::Loaded(table) => Arc::strong_count(table) == 1 && has_nothing(table),
            State::Unloaded | State::Closed(_) => false,
        })
    }
}

/// Looks up a [`Place`] by its two names without making one.
#[derive(Hash)]
struct Names<'a> {
    workspace: &'a str,
    namespace: &'a str,
}

impl Equivalent<Place> for Names<'_> {
    fn equivalent(&self, place: &Place) -> bool {
        place.namespace.as_str() == self.namespace && place.workspace.as_str() == self.workspace
    }
}

/// The same place for all names that differ only in letter case.
pub(super) fn fold(place: &Place) -> Place {
    let folded = place.namespace.as_str().to_ascii_lowercase();
    Place::new(place.workspace.as_str(), &folded).expect("a valid name is valid in lower case")
}

/// The one of these names that differs from the namespace's only in letter case.
pub(super) fn clash<'a>(mut names: impl Iterator<Item = &'a str>, place: &Place) -> Option<&'a str> {
    let own = place.namespace.as_str();
    names.find(|name| name.eq_ignore_ascii_case(own) && *name != own)
}

impl Store {
    /// The namespace of these names, loaded from its file if it was not.
    ///
    /// # Errors
    /// [`Error::Name`], [`Error::NameClash`], [`Error::NeedsRepair`], [`Error::Disk`].
    pub fn find(&self, workspace: &str, namespace: &str) -> Result<Arc<Table>, Error> {
        let known = self.namespaces.read().get(&Names { workspace, namespace }).cloned();
        if let Some(slot) = known {
            return self.table(&slot);
        }
        self.namespace(&Place::new(workspace, namespace)?)
    }

    /// The namespace at `place`, loaded from its file if it was not.
    ///
    /// # Errors
    /// [`Error::NameClash`], [`Error::NeedsRepair`], [`Error::Disk`].
    pub fn namespace(&self, place: &Place) -> Result<Arc<Table>, Error> {
        let known = self.namespaces.read().get(place).cloned();
        let slot = match known {
            Some(slot) => slot,
            None => self.new_slot(place, || State::Unloaded)?,
        };
        self.table(&slot)
    }

    fn table(&self, slot: &Slot) -> Result<Arc<Table>, Error> {
        let opened = |state: &State| match state {
            State::Unloaded => None,
            State::Loaded(table) if table.is_volatile() => {
                Some(Err(Error::KindMismatch { place: slot.place.to_string(), kind: table.kind() }))
            }
            State::Loaded(table) => Some(Ok(Arc::clone(table))),
            State::Closed(closing) => Some(Err(Error::NeedsRepair {
                place: slot.place.to_string(),
                file: self.layout.namespace_file(&slot.place),
                reason: closing.to_string(),
            })),
        };
        if let Some(outcome) = opened(&slot.state.read()) {
            return outcome;
        }
        let mut state = slot.state.write();
        if let Some(outcome) = opened(&state) {
            return outcome;
        }
        let mut loaded = self.load(std::slice::from_ref(&slot.place), Some(&slot.progress))?;
        *state = match loaded.pop().expect("one place was asked for") {
            Ok(table) => State::Loaded(table),
            Err(closing) => {
                tracing::error!(place = %slot.place, reason = %closing, "the namespace is closed");
                self.quarantine(&slot.place);
                State::Closed(closing)
            }
        };
        opened(&state).expect("it was just opened or closed")
    }

    /// A slot in this state, unless somebody else is first; a volatile namespace is not to have a file's name.
    pub(super) fn new_slot(&self, place: &Place, state: impl FnOnce() -> State) -> Result<Arc<Slot>, Error> {
        let on_disk = self.namespaces_in(&place.workspace)?;
        let workspaces = self.workspaces_on_disk_beside(&place.workspace)?;
        let mut state = state();
        let has_file = on_disk.iter().any(|name| *name == place.namespace.as_str());
        if state.is_volatile() && has_file {
            // As if it had been opened: the file decides.
            state = State::Unloaded;
        }
        let mut namespaces = self.namespaces.write();
        let mut folded = self.folded.lock();
        // A name that was only asked for, or dropped, keeps nobody from another one.
        let same_folded = folded.get(&fold(place)).filter(|known| **known != place.namespace);
        let mut in_the_way: Vec<Place> =
            namespaces.keys().filter(|known| workspaces.clashes(known, place)).cloned().collect();
        in_the_way.extend(same_folded.map(|known| Place { namespace: known.clone(), ..place.clone() }));
        self.forget(&mut namespaces, &mut folded, in_the_way, Slot::is_vacant);
        workspaces.refuse_clash(place, namespaces.keys())?;
        let in_memory = folded.get(&fold(place)).map(Namespace::as_str);
        let on_disk = on_disk.iter().map(String::as_str);
        // Where each has a file, neither is opened: the load closes it and says why.
        let both_on_disk = has_file && clash(on_disk.clone(), place).is_some();
        if let Some(existing) = clash(on_disk.chain(in_memory), place).filter(|_| !both_on_disk) {
            let (namespace, existing) = (place.namespace.to_string(), existing.to_owned());
            return Err(Error::NameClash { namespace, existing });
        }
        folded.entry(fold(place)).or_insert_with(|| place.namespace.clone());
        let slot = namespaces.entry(place.clone()).or_insert_with(|| Arc::new(Slot::new(place.clone(), state)));
        Ok(Arc::clone(slot))
    }

    /// The names of the namespaces that have a file or waiting records in a workspace.
    pub(super) fn names_in_use(&self, workspace: &Workspace) -> Result<Vec<String>, Error> {
        let mut names = self.namespaces_in(workspace)?;
        let is_here = |place: &Place| place.workspace == *workspace;
        self.turn.exclusive(|writer| {
            let waiting = writer.appender.table().iter().filter(|(place, known)| is_here(place) && known.is_waiting());
            names.extend(waiting.map(|(place, _)| place.namespace.to_string()));
        });
        names.extend(self.quarantined().into_iter().filter(is_here).map(|place| place.namespace.to_string()));
        Ok(names)
    }

    /// The names of the namespaces that have a file in a workspace; none if there is no such directory.
    fn namespaces_in(&self, workspace: &Workspace) -> Result<Vec<String>, Error> {
        let directory = self.layout.workspace(workspace);
        match self.workspace_at(&directory)? {
            WorkspaceFound::Directory => {}
            WorkspaceFound::Nothing => return Ok(Vec::new()),
            WorkspaceFound::Other if !self.is_used(workspace)? => {
                let (what, whose) = (WorkspaceFound::Other.to_string(), format!("workspace {workspace}"));
                return Err(Error::InTheWay { path: directory, what, whose, needed: "a directory" });
            }
            other => {
                return Err(Error::NeedsRepair {
                    place: format!("{workspace}/"),
                    file: directory,
                    reason: format!(
                        "its workspace is not a directory of its own, but {other}: put the directory itself there"
                    ),
                });
            }
        }
        let listed = self.disk.list(&directory).map_err(Error::disk("list", &directory))?;
        let name = |entry: Entry| entry.name.to_str().and_then(namespace_of_file).map(str::to_owned);
        Ok(listed.into_iter().filter_map(name).collect())
    }

    /// Whether there is a namespace file in a workspace's directory.
    pub(super) fn has_namespaces(&self, workspace: &Workspace) -> bool {
        self.namespaces_in(workspace).is_ok_and(|names| !names.is_empty())
    }

    /// The loaded namespaces that a flush has something to do for, in order of name.
    pub fn dirty(&self) -> Vec<Place> {
        let mut dirty: Vec<_> =
            self.loaded().into_iter().filter(|table| table.is_dirty()).map(|table| table.place().clone()).collect();
        dirty.sort_unstable();
        dirty
    }

    /// Whether [`find`](Self::find) would answer at once: the namespace is in memory, or known not to open.
    pub fn is_open(&self, workspace: &str, namespace: &str) -> bool {
        let slot = self.namespaces.read().get(&Names { workspace, namespace }).cloned();
        slot.is_some_and(|slot| slot.state.try_read().is_some_and(|state| !matches!(*state, State::Unloaded)))
    }

    /// Whether the namespace is known not to open.
    pub(super) fn is_closed(&self, place: &Place) -> bool {
        let slot = self.namespaces.read().get(place).cloned();
        slot.is_some_and(|slot| slot.state.try_read().is_some_and(|state| matches!(*state, State::Closed(_))))
    }

    /// How many bytes of a namespace's file have been loaded, and of how many. Both are 0 before a load begins.
    pub fn load_progress(&self, place: &Place) -> (u64, u64) {
        let slot = self.namespaces.read().get(place).cloned();
        slot.map_or((0, 0), |slot| slot.progress.get())
    }

    /// The namespaces that are being loaded right now, in order of name: bytes of the file that are done, and of how many.
    pub fn loading(&self) -> Vec<(Place, u64, u64)> {
        let mut loading = self.slots();
        loading.retain(|slot| slot.state.try_read().is_none());
        loading.sort_unstable_by(|one, other| one.place.cmp(&other.place));
        loading
            .iter()
            .map(|slot| {
                let (done, total) = slot.progress.get();
                (slot.place.clone(), done, total)
            })
            .collect()
    }

    /// Forgets the namespaces that somebody has asked for, that have no file and no record and never had a write, and that
    /// nobody holds. Returns how many there were.
    pub fn forget_blank(&self) -> usize {
        let candidates: Vec<Place> = {
            let namespaces = self.namespaces.read();
            namespaces.iter().filter(|(_, slot)| slot.is_blank()).map(|(place, _)| place.clone()).collect()
        };
        if candidates.is_empty() {
            return 0;
        }
        self.forget(&mut self.namespaces.write(), &mut self.folded.lock(), candidates, Slot::is_blank)
    }

    /// Forgets those of these namespaces that nobody holds and of which this is so. Returns how many there were.
    fn forget(
        &self,
        namespaces: &mut HashMap<Place, Arc<Slot>>,
        folded: &mut HashMap<Place, Namespace>,
        candidates: Vec<Place>,
        has_nothing: impl Fn(&Slot) -> bool,
    ) -> usize {
        // Whoever asks now waits for the lock; whoever has asked before holds the slot or the table.
        let mut forgotten = 0;
        for place in candidates {
            if namespaces.get(&place).is_some_and(|slot| Arc::strong_count(slot) == 1 && has_nothing(slot)) {
                namespaces.remove(&place);
                folded.remove(&fold(&place));
                self.activities.lock().remove(&place);
                forgotten += 1;
            }
        }
        forgotten
    }

    fn slots(&self) -> Vec<Arc<Slot>> {
        self.namespaces.read().values().cloned().collect()
    }

    /// The loaded namespaces. One that is being loaded right now is not among them.
    pub fn loaded(&self) -> Vec<Arc<Table>> {
        let table = |slot: Arc<Slot>| match slot.state.try_read().as_deref() {
            Some(State::Loaded(table)) => Some(Arc::clone(table)),
            _ => None,
        };
        self.slots().into_iter().filter_map(table).collect()
    }

    /// Every namespace that has a file, a record, or a reason to be closed, and every volatile one that was ever written to,
    /// in order of workspace and name.
    ///
    /// # Errors
    /// [`Error::Disk`] when a directory cannot be listed.
    pub fn namespaces(&self) -> Result<Vec<NamespaceInfo>, Error> {
        let mut places: Vec<Place> = self.namespaces.read().keys().cloned().collect();
        let root = self.layout.root();
        let mut workspaces = vec![Workspace::root()];
        for entry in self.disk.list(root).map_err(Error::disk("list", root))? {
            let name = entry.name.to_str().filter(|_| entry.kind == Kind::Dir);
            workspaces.extend(name.and_then(|name| Workspace::new(name).ok()));
        }
        let mut clashes = HashMap::new();
        for workspace in workspaces {
            let names = self.namespaces_in(&workspace)?;
            let mut seen: HashMap<String, &String> = HashMap::new();
            for namespace in &names {
                let Ok(place) = Place::new(workspace.as_str(), namespace) else { continue };
                if let Some(other) = seen.insert(namespace.to_ascii_lowercase(), namespace) {
                    clashes.insert(place.clone(), other.clone());
                    clashes.extend(Place::new(workspace.as_str(), other).map(|other| (other, namespace.clone())));
                }
                places.push(place);
            }
        }
        places.sort_unstable();
        places.dedup();
        Ok(places.iter().filter_map(|place| self.info(place, clashes.get(place))).collect())
    }

    /// The workspaces that have a namespace, in order of name; the store's own directory first, always.
    ///
    /// # Errors
    /// [`Error::Disk`] when a directory cannot be listed.
    pub fn workspaces(&self) -> Result<Vec<WorkspaceInfo>, Error> {
        let info = |workspace: &str| WorkspaceInfo {
            workspace: workspace.to_owned(),
            namespaces: 0,
            loaded: 0,
            records: 0,
            bytes: 0,
            file_bytes: 0,
        };
        let mut found: BTreeMap<String, WorkspaceInfo> = BTreeMap::new();
        found.insert(String::new(), info(""));
        for namespace in self.namespaces()? {
            let workspace = namespace.workspace;
            let sums = found.entry(workspace.clone()).or_insert_with(|| info(&workspace));
            sums.namespaces += 1;
            sums.loaded += u64::from(namespace.records.is_some());
            sums.records += namespace.records.unwrap_or(0);
            sums.bytes += namespace.bytes;
            sums.file_bytes += namespace.file_bytes.unwrap_or(0);
        }
        Ok(found.into_values().collect())
    }

    /// `clash` is another one that has a file, and a name that differs only in letter case.
    fn info(&self, place: &Place, clash: Option<&String>) -> Option<NamespaceInfo> {
        let file = self.disk.lstat(&self.layout.namespace_file(place)).ok();
        let mut info = NamespaceInfo {
            workspace: place.workspace.to_string(),
            namespace: place.namespace.to_string(),
            kind: commonhold_proto::message::Kind::Persistent,
            records: None,
            bytes: 0,
            file_bytes: file.map(|stat| stat.bytes),
            dirty: false,
            closed: None,
        };
        let slot = self.namespaces.read().get(place).cloned();
        let mut is_written = false;
        match slot.as_ref().and_then(|slot| slot.state.try_read()).as_deref() {
            Some(State::Loaded(table)) => {
                info.kind = table.kind();
                info.records = Some(table.len());
                info.bytes = table.bytes();
                info.dirty = table.is_dirty();
                // Asking for a name makes no namespace of it, of whichever kind.
                is_written = table.is_volatile() && table.last() > Seq::ZERO;
            }
            Some(State::Closed(closing)) => info.closed = Some(closing.to_string()),
            // It was not asked for yet, and will not open.
            Some(State::Unloaded) | None => {
                let why = clash.map(|existing| Why::NameClash { existing: existing.clone() });
                info.closed = why.map(|why| why.to_string());
            }
        }
        let is_something = info.file_bytes.is_some()
            || info.records.unwrap_or(0) > 0
            || info.dirty
            || info.closed.is_some()
            || is_written;
        is_something.then_some(info)
    }
}
