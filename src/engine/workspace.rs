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

impl Store {
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

    /// Makes the directory of a workspace where it is missing, and sees once that its name is on the platter: whoever
    /// made it may have died before that.
    pub(super) fn make_workspace(&self, place: &Place) -> Result<(), Error> {
        if place.workspace.is_root() || self.durable_workspaces.lock().contains(&place.workspace) {
            return Ok(());
        }
        let path = self.layout.workspace(&place.workspace);
        match self.workspace_at(&path)? {
            WorkspaceFound::Directory => {}
            WorkspaceFound::Nothing => match self.disk.create_dir(&path, 0o755) {
                // Another namespace's flush may have made it in the meantime.
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(Error::disk("create", &path)(error));
                }
                _ => {}
            },
            other => {
                let (what, whose) = (other.to_string(), format!("workspace {}", place.workspace));
                return Err(Error::InTheWay { path, what, whose, needed: "a directory" });
            }
        }
        let root = self.layout.root();
        self.disk.sync_dir(root).map_err(|error| {
            // The name may be lost for good, with everything that would be flushed below it, and no later sync would tell.
            self.poison.trip(format!("a sync of {} failed: {error}", root.display()));
            Error::disk("sync", root)(error)
        })?;
        self.durable_workspaces.lock().insert(place.workspace.clone());
        Ok(())
    }
}
