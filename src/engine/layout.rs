//! Where everything lies in a store's directory. `docs/storage.md` shows it as a tree.

use std::path::{Path, PathBuf};

use commonhold_proto::{Place, Seq, Workspace};

/// The directory inside the store that holds all but the namespace files; mode 0700.
pub const PRIVATE_DIR: &str = ".commonhold";
/// The owner lock inside [`PRIVATE_DIR`]; never deleted.
pub(super) const OWNER_LOCK: &str = "owner.lock";

/// The paths of one store.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
    private: PathBuf,
}

impl Layout {
    /// The paths of the store at `root`.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), private: root.join(PRIVATE_DIR) }
    }

    /// The store's directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory for all but the namespace files.
    pub fn private(&self) -> &Path {
        &self.private
    }

    /// The file whose lock makes its holder the owner.
    pub fn owner_lock(&self) -> PathBuf {
        self.private.join(OWNER_LOCK)
    }

    /// How the namespace files were left at a clean end; a hint for the next start.
    pub fn files_note(&self) -> PathBuf {
        self.private.join("files.json")
    }

    /// The journal's directory.
    pub fn journal(&self) -> PathBuf {
        self.private.join("journal")
    }

    /// A segment of the journal.
    pub fn segment(&self, number: u64) -> PathBuf {
        self.journal().join(format!("{number:08}.log"))
    }

    /// Where a segment is built before it exists.
    pub fn new_segment(&self, number: u64) -> PathBuf {
        self.journal().join(format!("{number:08}.log.new"))
    }

    /// A segment's file that is made before it is needed. A start removes it, as anything with this ending.
    pub fn spare_segment(&self) -> PathBuf {
        self.journal().join("spare.log.new")
    }

    /// An empty file that says that the journal has never had a segment. The first one takes it away.
    pub fn no_segment_yet(&self) -> PathBuf {
        self.journal().join("none-yet.log.new")
    }

    /// Where tails that were cut off the journal are kept.
    pub fn aside(&self) -> PathBuf {
        self.journal().join("aside")
    }

    /// Every other directory that a store of any age has in its own, but those of workspaces.
    pub(super) fn inner_directories(&self) -> impl Iterator<Item = PathBuf> {
        let names = ["flush", "flush/@", "flush/w", "generations", "generations/@", "generations/w"];
        let quarantine = ["quarantine", "quarantine/@", "quarantine/w"];
        let rooms: Vec<PathBuf> = names.iter().chain(&quarantine).map(|name| self.private.join(name)).collect();
        rooms.into_iter().chain([self.aside()])
    }

    /// The directory of a workspace.
    pub fn workspace(&self, workspace: &Workspace) -> PathBuf {
        if workspace.is_root() { self.root.clone() } else { self.root.join(workspace.as_str()) }
    }

    /// The JSON file of a namespace.
    pub fn namespace_file(&self, place: &Place) -> PathBuf {
        self.workspace(&place.workspace).join(place.namespace.file_name())
    }

    /// The file that is locked while a namespace's file is replaced.
    pub fn flush_lock(&self, place: &Place) -> PathBuf {
        self.in_room("flush", place).join(format!("{}.lock", place.namespace))
    }

    /// The directory of the flush locks of a workspace other than the root: it is there once a namespace of it was flushed.
    pub(super) fn flush_room(&self, workspace: &Workspace) -> PathBuf {
        self.private.join("flush").join("w").join(workspace.as_str())
    }

    /// Where earlier files of a namespace are kept.
    pub fn generations(&self, place: &Place) -> PathBuf {
        self.in_room("generations", place).join(place.namespace.as_str())
    }

    /// A kept file: `<cut>.json`, or `<cut>.foreign.json` when another program wrote it.
    pub fn generation(&self, place: &Place, cut: Seq, foreign: bool) -> PathBuf {
        let name = if foreign { format!("{:020}.foreign.json", cut.0) } else { format!("{:020}.json", cut.0) };
        self.generations(place).join(name)
    }

    /// The waiting records of a namespace that would not open.
    pub fn quarantine(&self, place: &Place) -> PathBuf {
        self.in_room("quarantine", place).join(format!("{}.records", place.namespace))
    }

    /// Records of a namespace that do not count any more, kept for whoever misses them.
    pub(super) fn quarantine_aside(&self, place: &Place, through: Seq) -> PathBuf {
        self.in_room("quarantine", place).join(format!("{}.{:020}.aside", place.namespace, through.0))
    }

    /// Where the quarantine files of a workspace lie; those of the root without one.
    pub(super) fn quarantine_room(&self, workspace: Option<&str>) -> PathBuf {
        let room = self.private.join("quarantine");
        workspace.map_or_else(|| room.join("@"), |name| room.join("w").join(name))
    }

    /// The directory of the quarantine rooms of all workspaces.
    pub(super) fn quarantine_workspaces(&self) -> PathBuf {
        self.private.join("quarantine").join("w")
    }

    /// A new file beside the one that it will replace, named as LightRAG names its own, so that each cleans up after
    /// the other.
    pub fn temporary(&self, place: &Place, pid: u32, thread: u64, time_ns: u128) -> PathBuf {
        let name = format!("{}.tmp.{pid}.{thread}.{time_ns}", place.namespace.file_name());
        self.workspace(&place.workspace).join(name)
    }

    /// `@` for the root and `w/<workspace>` for the others, so that no workspace's name can meet the root's.
    fn in_room(&self, room: &str, place: &Place) -> PathBuf {
        let room = self.private.join(room);
        if place.workspace.is_root() { room.join("@") } else { room.join("w").join(place.workspace.as_str()) }
    }
}

/// The namespace that a file name belongs to: `kv_store_<name>.json`.
pub(super) fn namespace_of_file(file_name: &str) -> Option<&str> {
    file_name.strip_prefix("kv_store_")?.strip_suffix(".json")
}

/// The pid in the name of a temporary `kv_store_<name>.json.tmp.<pid>.<tid>.<time_ns>`.
pub(super) fn pid_of_temporary(file_name: &str) -> Option<u32> {
    let (file, numbers) = file_name.split_once(".tmp.")?;
    namespace_of_file(file)?;
    numbers.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workspace_named_like_the_roots_folder_does_not_meet_it() {
        let layout = Layout::new(Path::new("/s"));
        let root = Place::new("", "a").unwrap();
        let at = Place::new("@", "a").unwrap();
        assert_ne!(layout.flush_lock(&root), layout.flush_lock(&at));
        assert_eq!(layout.flush_lock(&at), Path::new("/s/.commonhold/flush/w/@/a.lock"));
    }

    #[test]
    fn temporaries_tell_their_pid_and_other_files_do_not() {
        assert_eq!(pid_of_temporary("kv_store_a.json.tmp.12.3.456"), Some(12));
        assert_eq!(pid_of_temporary("kv_store_a.json"), None);
        assert_eq!(pid_of_temporary("notes.tmp.12.3.4"), None);
    }
}
