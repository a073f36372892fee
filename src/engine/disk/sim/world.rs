//! What lies on a simulated disk: inodes, each with what a reader sees now and with what a power cut would leave, and
//! the changes of names that no `sync_dir` has made durable yet.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use super::content::Content;
use crate::engine::disk::{Kind, Stat};

pub(super) type InodeNumber = u64;
pub(super) const ROOT: InodeNumber = 1;

const DEVICE: u64 = 0x51D;
const MAX_LINKS: usize = 40;
const MAX_NAME_BYTES: usize = 255;
const MAX_PATH_BYTES: usize = 4095;
/// 14 November 2023; each change is a microsecond later than the one before.
const FIRST_MTIME_NS: i128 = 1_700_000_000_000_000_000;

/// All of a disk. A clone is an image: it shares what neither changes.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) inodes: BTreeMap<InodeNumber, Arc<Inode>>,
    /// In the order in which they were done.
    pub(super) unsynced_names: Vec<NameChange>,
    next_inode: InodeNumber,
    changes: u32,
    /// How many bytes all files that have a name may have together.
    pub(super) room: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Inode {
    pub(super) mode: u32,
    pub(super) mtime_ns: i128,
    pub(super) body: Body,
}

#[derive(Clone, Debug)]
pub(super) enum Body {
    File(FileBody),
    Dir(DirBody),
    Link(PathBuf),
}

#[derive(Clone, Debug, Default)]
pub(super) struct FileBody {
    pub(super) now: Content,
    pub(super) durable: Content,
    /// What was done since the last sync, in order.
    pub(super) unsynced: Vec<Change>,
    /// A sync failed: `now` has something that `durable` will never get by another sync.
    pub(super) lost: bool,
}

/// A change of a file's content.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Write { offset: u64, bytes: Arc<[u8]> },
    Resize { from: u64, to: u64 },
}

#[derive(Clone, Debug, Default)]
pub(super) struct DirBody {
    pub(super) now: BTreeMap<OsString, InodeNumber>,
    pub(super) durable: BTreeMap<OsString, InodeNumber>,
}

/// A change of one name, or of the two names of a rename, which go together.
#[derive(Clone, Debug)]
pub(super) struct NameChange {
    pub(super) names: Vec<NewName>,
    /// The directories that still have to be synced for it to be durable.
    unsynced_dirs: BTreeSet<InodeNumber>,
}

#[derive(Clone, Debug)]
pub(super) struct NewName {
    pub(super) dir: InodeNumber,
    pub(super) name: OsString,
    pub(super) inode: Option<InodeNumber>,
}

/// Where a path leads.
pub(super) struct Spot {
    pub(super) dir: InodeNumber,
    pub(super) name: OsString,
    pub(super) inode: Option<InodeNumber>,
}

impl NameChange {
    /// The directories that still have to be synced for it to be durable.
    pub(super) fn unsynced_dirs(&self) -> impl Iterator<Item = InodeNumber> {
        self.unsynced_dirs.iter().copied()
    }
}

impl Change {
    pub(super) fn apply(&self, content: &mut Content) {
        match self {
            Self::Write { offset, bytes } => content.write_at(bytes, *offset),
            Self::Resize { to, .. } => content.set_len(*to),
        }
    }

    pub(super) fn size_after(&self, before: u64) -> u64 {
        match self {
            Self::Write { bytes, .. } if bytes.is_empty() => before,
            Self::Write { offset, bytes } => before.max(offset + bytes.len() as u64),
            Self::Resize { to, .. } => *to,
        }
    }
}

impl FileBody {
    pub(super) fn change(&mut self, change: Change) {
        change.apply(&mut self.now);
        self.unsynced.push(change);
    }

    pub(super) fn sync(&mut self) {
        if self.lost {
            // What was lost stays lost: only what was written since is brought to the platter.
            for change in &self.unsynced {
                change.apply(&mut self.durable);
            }
        } else {
            self.durable = self.now.clone();
        }
        self.unsynced.clear();
    }

    pub(super) fn fail_sync(&mut self) {
        self.lost |= !self.unsynced.is_empty();
        self.unsynced.clear();
    }

    pub(super) fn is_settled(&self) -> bool {
        self.unsynced.is_empty() && !self.lost
    }

    pub(super) fn settled(content: Content) -> Self {
        Self { now: content.clone(), durable: content, unsynced: Vec::new(), lost: false }
    }
}

impl World {
    pub(super) fn new() -> Self {
        let root = Inode { mode: 0o755, mtime_ns: FIRST_MTIME_NS, body: Body::Dir(DirBody::default()) };
        let inodes = BTreeMap::from([(ROOT, Arc::new(root))]);
        Self { inodes, unsynced_names: Vec::new(), next_inode: ROOT + 1, changes: 0, room: u64::MAX }
    }

    pub(super) fn inode(&self, number: InodeNumber) -> &Inode {
        self.inodes.get(&number).expect("a name or an open file keeps its inode")
    }

    /// An inode to change; its time moves on.
    pub(super) fn change_inode(&mut self, number: InodeNumber) -> &mut Inode {
        self.changes += 1;
        let mtime_ns = FIRST_MTIME_NS + i128::from(self.changes) * 1_000;
        let inode = self.inode_mut(number);
        inode.mtime_ns = mtime_ns;
        inode
    }

    pub(super) fn inode_mut(&mut self, number: InodeNumber) -> &mut Inode {
        Arc::make_mut(self.inodes.get_mut(&number).expect("a name or an open file keeps its inode"))
    }

    pub(super) fn add_inode(&mut self, mode: u32, body: Body) -> InodeNumber {
        let number = self.next_inode;
        self.next_inode += 1;
        self.inodes.insert(number, Arc::new(Inode { mode, mtime_ns: FIRST_MTIME_NS, body }));
        self.change_inode(number);
        number
    }

    pub(super) fn file(&self, number: InodeNumber) -> io::Result<&FileBody> {
        match &self.inode(number).body {
            Body::File(file) => Ok(file),
            Body::Dir(_) => Err(Errno::ISDIR.into()),
            Body::Link(_) => Err(Errno::LOOP.into()),
        }
    }

    pub(super) fn file_mut(&mut self, number: InodeNumber) -> io::Result<&mut FileBody> {
        self.file(number)?;
        match &mut self.inode_mut(number).body {
            Body::File(file) => Ok(file),
            Body::Dir(_) | Body::Link(_) => unreachable!("just seen to be a file"),
        }
    }

    /// What is left of the room. A file that has no name any more takes none, also while it is open.
    pub(super) fn free_bytes(&self) -> u64 {
        if self.room == u64::MAX {
            return u64::MAX;
        }
        let is_dir = |inode: &Arc<Inode>| if let Body::Dir(dir) = &inode.body { Some(dir.now.clone()) } else { None };
        let named: BTreeSet<_> = self.inodes.values().filter_map(is_dir).flat_map(BTreeMap::into_values).collect();
        let used: u64 = named.iter().filter_map(|number| self.file(*number).ok()).map(|file| file.now.bytes()).sum();
        self.room.saturating_sub(used)
    }

    pub(super) fn change_file(&mut self, number: InodeNumber, change: Change) -> io::Result<()> {
        let before = self.file(number)?.now.bytes();
        if change.size_after(before).saturating_sub(before) > self.free_bytes() {
            return Err(Errno::NOSPC.into());
        }
        self.file_mut(number)?.change(change);
        self.change_inode(number);
        Ok(())
    }

    pub(super) fn dir(&self, number: InodeNumber) -> io::Result<&DirBody> {
        match &self.inode(number).body {
            Body::Dir(dir) => Ok(dir),
            Body::File(_) | Body::Link(_) => Err(Errno::NOTDIR.into()),
        }
    }

    pub(super) fn dir_mut(&mut self, number: InodeNumber) -> &mut DirBody {
        match &mut self.inode_mut(number).body {
            Body::Dir(dir) => dir,
            Body::File(_) | Body::Link(_) => unreachable!("names are only ever changed in directories"),
        }
    }

    /// Finds where a path leads; its last name need not exist.
    pub(super) fn resolve(&self, path: &Path, follow_last: bool) -> io::Result<Spot> {
        if path.as_os_str().len() > MAX_PATH_BYTES {
            return Err(Errno::NAMETOOLONG.into());
        }
        let mut left = parts(path)?;
        let mut stack = vec![ROOT];
        let mut links = 0;
        while let Some(name) = left.pop_front() {
            let dir = *stack.last().expect("the root is never popped");
            if name == ".." {
                stack.truncate((stack.len() - 1).max(1));
                continue;
            }
            let is_last = left.is_empty();
            let Some(&inode) = self.dir(dir)?.now.get(&name) else {
                return if is_last { Ok(Spot { dir, name, inode: None }) } else { Err(Errno::NOENT.into()) };
            };
            match &self.inode(inode).body {
                Body::Link(target) if follow_last || !is_last => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::LOOP.into());
                    }
                    if target.is_absolute() {
                        stack.truncate(1);
                    }
                    for part in parts(target)?.into_iter().rev() {
                        left.push_front(part);
                    }
                }
                _ if is_last => return Ok(Spot { dir, name, inode: Some(inode) }),
                _ => stack.push(inode), // if it is no directory, looking into it says so
            }
        }
        let dir = *stack.last().expect("the root is never popped");
        Ok(Spot { dir, name: OsString::new(), inode: Some(dir) })
    }

    /// Finds what must exist.
    pub(super) fn find(&self, path: &Path, follow_last: bool) -> io::Result<InodeNumber> {
        self.resolve(path, follow_last)?.inode.ok_or_else(|| Errno::NOENT.into())
    }

    pub(super) fn stat(&self, number: InodeNumber) -> Stat {
        let inode = self.inode(number);
        let (kind, bytes) = match &inode.body {
            Body::File(file) => (Kind::File, file.now.bytes()),
            Body::Dir(_) => (Kind::Dir, 0),
            Body::Link(target) => (Kind::Link, target.as_os_str().len() as u64),
        };
        Stat { device: DEVICE, inode: number, bytes, mtime_ns: inode.mtime_ns, mode: inode.mode, kind }
    }

    /// Whether names in this directory may be changed.
    pub(super) fn check_writable(&self, dir: InodeNumber) -> io::Result<()> {
        if self.inode(dir).mode & 0o200 == 0 { Err(Errno::ACCESS.into()) } else { Ok(()) }
    }

    /// Changes names, for readers at once and for a power cut when their directories are synced.
    pub(super) fn rename(&mut self, names: Vec<NewName>) {
        let unsynced_dirs = names.iter().map(|new| new.dir).collect();
        for new in &names {
            self.change_inode(new.dir);
            set(&mut self.dir_mut(new.dir).now, new);
        }
        self.unsynced_names.push(NameChange { names, unsynced_dirs });
    }

    pub(super) fn sync_dir(&mut self, dir: InodeNumber) {
        let mut settled: BTreeSet<(InodeNumber, OsString)> = BTreeSet::new();
        // From the last to the first: an older change of a name must not undo a newer one that is durable.
        let mut kept = Vec::new();
        for mut change in std::mem::take(&mut self.unsynced_names).into_iter().rev() {
            let names = change.names.len();
            change.names.retain(|new| !settled.contains(&(new.dir, new.name.clone())));
            change.unsynced_dirs.remove(&dir);
            if change.names.len() < names {
                change.unsynced_dirs.clear(); // one name has moved on for good, so the other goes with it
            }
            if change.unsynced_dirs.is_empty() {
                for new in change.names {
                    set(&mut self.dir_mut(new.dir).durable, &new);
                    settled.insert((new.dir, new.name));
                }
            } else if !change.names.is_empty() {
                kept.push(change);
            }
        }
        kept.reverse();
        self.unsynced_names = kept;
    }

    pub(super) fn fail_sync_dir(&mut self, dir: InodeNumber) {
        self.unsynced_names.retain(|change| !change.unsynced_dirs.contains(&dir));
    }

    /// Sets a name at once and for good, as if all had been synced after it.
    pub(super) fn set_durably(&mut self, new: &NewName) {
        for change in &mut self.unsynced_names {
            change.names.retain(|old| (old.dir, &old.name) != (new.dir, &new.name));
        }
        let dir = self.dir_mut(new.dir);
        set(&mut dir.now, new);
        set(&mut dir.durable, new);
    }

    /// Forgets the inodes that no name, present, durable or on its way, leads to. Only for an image: on a disk in use
    /// files may be open that have no name.
    pub(super) fn forget_nameless(&mut self) {
        let mut reached = BTreeSet::from([ROOT]);
        let mut left = vec![ROOT];
        left.extend(self.unsynced_names.iter().flat_map(|change| &change.names).filter_map(|new| new.inode));
        reached.extend(&left);
        while let Some(number) = left.pop() {
            if let Body::Dir(dir) = &self.inode(number).body {
                left.extend(dir.now.values().chain(dir.durable.values()).filter(|number| reached.insert(**number)));
            }
        }
        self.inodes.retain(|number, _| reached.contains(number));
    }
}

pub(super) fn set(names: &mut BTreeMap<OsString, InodeNumber>, new: &NewName) {
    match new.inode {
        Some(inode) => names.insert(new.name.clone(), inode),
        None => names.remove(&new.name),
    };
}

/// The names in a path. A relative path begins at the root or, in a link, at the link's directory.
fn parts(path: &Path) -> io::Result<VecDeque<OsString>> {
    let names = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name),
        Component::ParentDir => Some(OsStr::new("..")),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    });
    names
        .map(
            |name| {
                if name.as_bytes().len() > MAX_NAME_BYTES {
                    Err(Errno::NAMETOOLONG.into())
                } else {
                    Ok(name.to_owned())
                }
            },
        )
        .collect()
}
