//! The directories of workspaces: what stands where one is to be, and making one that is missing.
//!
//! A symbolic link is refused in a workspace's place, whether it is read, listed or written to. Only here it is looked for.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use commonhold_proto::{Place, Seq, Workspace};

use super::disk::Kind;
use super::error::Error;
use super::store::Store;

/// What stands where a workspace's directory is to be.
pub(super) enum WorkspaceFound {
    /// A directory of its own; or the store's, which may be reached through a link.
    Directory,
    Nothing,
    Link {
        /// Where it leads.
        target: PathBuf,
    },
    Other,
}

impl fmt::Display for WorkspaceFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory => f.write_str("a directory"),
            Self::Nothing => f.write_str("nothing"),
            Self::Link { target } => write!(f, "a symbolic link to {}", target.display()),
            Self::Other => f.write_str("a file"),
        }
    }
}

/// The workspaces whose names differ from one's only in letter case, as far as they have a directory.
pub(super) struct Beside {
    folded: String,
    /// It has a directory of its own, under just its name.
    is_there: bool,
    others: Vec<String>,
}

impl Beside {
    /// Whether these two are in workspaces whose names differ only in letter case, and the one of `place` has no directory yet.
    pub(super) fn clashes(&self, known: &Place, place: &Place) -> bool {
        !self.is_there && known.workspace != place.workspace && known.workspace.as_str().to_lowercase() == self.folded
    }

    /// Refuses to make `place`, where its workspace has no directory yet and another one, on the disk or among the namespaces that
    /// are `known`, would be the same on a disk that makes no difference between letter cases.
    pub(super) fn refuse_clash<'a>(
        &self,
        place: &Place,
        known: impl IntoIterator<Item = &'a Place>,
    ) -> Result<(), Error> {
        if place.workspace.is_root() || self.is_there {
            return Ok(());
        }
        let known =
            || known.into_iter().find(|known| self.clashes(known, place)).map(|known| known.workspace.to_string());
        match self.others.first().cloned().or_else(known) {
            None => Ok(()),
            Some(existing) => Err(Error::NameClash { namespace: place.to_string(), existing: format!("{existing}/") }),
        }
    }
}

impl Store {
    /// What there is on the disk that [`Beside`] tells.
    pub(super) fn workspaces_on_disk_beside(&self, workspace: &Workspace) -> Result<Beside, Error> {
        let mut beside = Beside { folded: workspace.as_str().to_lowercase(), is_there: false, others: Vec::new() };
        if workspace.is_root() {
            return Ok(beside);
        }
        let root = self.layout.root();
        for entry in self.disk.list(root).map_err(Error::disk("list", root))? {
            let Some(name) = entry.name.to_str().filter(|name| name.to_lowercase() == beside.folded) else { continue };
            if name == workspace.as_str() {
                beside.is_there = true;
            } else if entry.kind == Kind::Dir {
                beside.others.push(name.to_owned());
            }
        }
        // What is no workspace of the store is nobody's business, unless the disk takes the two names for one.
        let found_by_own_name = !beside.is_there && self.disk.lstat(&self.layout.workspace(workspace)).is_ok();
        let mut others = std::mem::take(&mut beside.others);
        others.retain(|name| found_by_own_name || Workspace::new(name).is_ok_and(|other| self.has_namespaces(&other)));
        beside.others = others;
        Ok(beside)
    }

    /// What stands at a workspace's path.
    pub(super) fn workspace_at(&self, directory: &Path) -> Result<WorkspaceFound, Error> {
        if directory == self.layout.root() {
            return Ok(WorkspaceFound::Directory);
        }
        match self.disk.lstat(directory) {
            Ok(stat) if stat.kind == Kind::Dir => Ok(WorkspaceFound::Directory),
            Ok(stat) if stat.kind == Kind::Link => {
                let target = self.disk.read_link(directory).map_err(Error::disk("read the link", directory))?;
                Ok(WorkspaceFound::Link { target })
            }
            Ok(_) => Ok(WorkspaceFound::Other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(WorkspaceFound::Nothing),
            Err(error) => Err(Error::disk("look at", directory)(error)),
        }
    }

    /// Whether a namespace of it was ever flushed, or has something in the journal.
    pub(super) fn is_used(&self, workspace: &Workspace) -> Result<bool, Error> {
        let in_journal = self.turn.exclusive(|writer| {
            writer.appender.table().iter().any(|(place, known)| place.workspace == *workspace && known.last > Seq::ZERO)
        });
        let locks = self.layout.flush_room(workspace);
        match self.disk.lstat(&locks) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::disk("look at", &locks)(error)),
            found => Ok(in_journal || found.is_ok()),
        }
    }

    /// Makes the directory of a workspace where it is missing, and sees that its name is on the platter: whoever made it may
    /// have died before that. Asked before each flush, for it can be removed, moved, or replaced by a link at any time.
    pub(super) fn make_workspace(&self, place: &Place) -> Result<(), Error> {
        if place.workspace.is_root() {
            return Ok(());
        }
        let path = self.layout.workspace(&place.workspace);
        if !self.look_at_workspace(place)? {
            match self.disk.create_dir(&path, 0o755) {
                // Another namespace's flush may have made it in the meantime.
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(Error::disk("create", &path)(error));
                }
                _ => {}
            }
        }
        let found = self.disk.lstat(&path).map_err(Error::disk("look at", &path))?;
        let directory = (found.device, found.inode);
        if self.durable_workspaces.lock().get(&place.workspace) == Some(&directory) {
            return Ok(());
        }
        let root = self.layout.root();
        self.disk.sync_dir(root).map_err(|error| {
            // The name may be lost for good, with everything that would be flushed below it, and no later sync would tell.
            self.poison.trip(format!("a sync of {} failed: {error}", root.display()));
            Error::disk("sync", root)(error)
        })?;
        self.durable_workspaces.lock().insert(place.workspace.clone(), directory);
        Ok(())
    }

    /// Whether the namespace's workspace has its directory; refuses what else stands in its place.
    pub(super) fn look_at_workspace(&self, place: &Place) -> Result<bool, Error> {
        let path = self.layout.workspace(&place.workspace);
        match self.workspace_at(&path)? {
            WorkspaceFound::Directory => Ok(true),
            WorkspaceFound::Nothing => Ok(false),
            other => {
                let (what, whose) = (other.to_string(), format!("workspace {}", place.workspace));
                Err(Error::InTheWay { path, what, whose, needed: "a directory" })
            }
        }
    }
}
