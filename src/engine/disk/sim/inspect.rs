//! What another program, a person or a decaying disk does to a [`SimDisk`]: at once, durably, uncounted, also after the
//! simulated process died. These panic where a test has the disk wrong.

use std::path::{Path, PathBuf};

use super::content::Content;
use super::world::{Body, DirBody, FileBody, InodeNumber, NewName, ROOT, World};
use super::{Kind, SimDisk, Stat};

impl SimDisk {
    /// The content of a file, as a reader sees it now. Links are followed.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn read_file(&self, path: impl AsRef<Path>) -> Vec<u8> {
        let path = path.as_ref();
        let world = &self.state.lock().world;
        world.file(find(world, path)).expect("the test reads a file").now.to_vec()
    }

    /// Writes a file, durably: an existing one keeps its inode and mode, a new one gets mode 0644.
    ///
    /// # Panics
    /// If its directory does not exist, or the name is a directory's.
    pub fn write_file(&self, path: impl AsRef<Path>, bytes: &[u8]) {
        let world = &mut self.state.lock().world;
        let spot = world.resolve(path.as_ref(), true).expect("the test made the directory");
        let content = FileBody::settled(Content::new(bytes));
        let inode = if let Some(inode) = spot.inode {
            *world.file_mut(inode).expect("the test writes a file") = content;
            world.change_inode(inode);
            inode
        } else {
            world.add_inode(0o644, Body::File(content))
        };
        world.set_durably(&NewName { dir: spot.dir, name: spot.name, inode: Some(inode) });
    }

    /// Whether a failure is still to come, or the process is to die.
    pub fn has_failures(&self) -> bool {
        let state = self.state.lock();
        !state.failures.is_empty() || state.crash_in.is_some()
    }

    /// From now on all files together may have so many bytes, as they are now: what would need more meets `ENOSPC`.
    pub fn set_room(&self, bytes: u64) {
        self.state.lock().world.room = bytes;
    }

    /// Makes a file shorter or longer, durably.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn truncate_file(&self, path: impl AsRef<Path>, bytes: u64) {
        let mut content = self.read_file(path.as_ref());
        content.resize(bytes as usize, 0);
        self.write_file(path, &content);
    }

    /// Flips one bit (0 is the lowest) of the byte at `offset`, as a decaying disk does: the file's time stays.
    ///
    /// # Panics
    /// If there is no such file or byte.
    pub fn flip_bit(&self, path: impl AsRef<Path>, offset: u64, bit: u8) {
        let world = &mut self.state.lock().world;
        let inode = find(world, path.as_ref());
        let file = world.file_mut(inode).expect("the test flips a bit of a file");
        assert!(offset < file.now.bytes(), "byte {offset} of a file of {} bytes", file.now.bytes());
        for content in [&mut file.now, &mut file.durable] {
            let mut byte = [0];
            if content.read_at(&mut byte, offset) == 1 {
                content.write_at(&[byte[0] ^ (1 << bit)], offset);
            }
        }
    }

    /// Removes a name, durably. A directory goes with all it holds.
    ///
    /// # Panics
    /// If there is no such name.
    pub fn remove_path(&self, path: impl AsRef<Path>) {
        let world = &mut self.state.lock().world;
        let spot = world.resolve(path.as_ref(), false).expect("the test removes what is there");
        assert!(spot.inode.is_some(), "{} is not there", path.as_ref().display());
        world.set_durably(&NewName { dir: spot.dir, name: spot.name, inode: None });
    }

    /// Makes a symbolic link at `path`, durably.
    ///
    /// # Panics
    /// If its directory does not exist.
    pub fn symlink(&self, target: impl Into<PathBuf>, path: impl AsRef<Path>) {
        let world = &mut self.state.lock().world;
        let spot = world.resolve(path.as_ref(), false).expect("the test made the directory");
        let inode = world.add_inode(0o777, Body::Link(target.into()));
        world.set_durably(&NewName { dir: spot.dir, name: spot.name, inode: Some(inode) });
    }

    /// Makes a directory and those above it, with mode 0755, durably. Those that exist stay.
    ///
    /// # Panics
    /// If a file is in the way.
    pub fn make_dirs(&self, path: impl AsRef<Path>) {
        let world = &mut self.state.lock().world;
        let mut steps: Vec<&Path> = path.as_ref().ancestors().collect();
        steps.reverse();
        for step in steps {
            let spot = world.resolve(step, true).expect("no file is in the way");
            if spot.inode.is_none() {
                let inode = world.add_inode(0o755, Body::Dir(DirBody::default()));
                world.set_durably(&NewName { dir: spot.dir, name: spot.name, inode: Some(inode) });
            }
        }
    }

    /// Whether there is anything at `path`; a link counts wherever it leads.
    pub fn exists(&self, path: impl AsRef<Path>) -> bool {
        self.state.lock().world.find(path.as_ref(), false).is_ok()
    }

    /// What is at `path`, without following a link.
    pub fn stat_of(&self, path: impl AsRef<Path>) -> Option<Stat> {
        let world = &self.state.lock().world;
        world.find(path.as_ref(), false).ok().map(|inode| world.stat(inode))
    }

    /// The names in a directory, sorted; none if there is no such directory.
    pub fn names(&self, path: impl AsRef<Path>) -> Vec<String> {
        let world = &self.state.lock().world;
        let Ok(dir) = world.find(path.as_ref(), true) else { return Vec::new() };
        let names = world.dir(dir).map(|dir| dir.now.keys().map(|name| name.to_string_lossy().into_owned()).collect());
        names.unwrap_or_default()
    }

    /// The paths of all files below the root, sorted: what a failing test prints.
    pub fn all_files(&self) -> Vec<PathBuf> {
        let world = &self.state.lock().world;
        let mut files = Vec::new();
        collect(world, ROOT, Path::new("/"), &mut files);
        files
    }
}

fn find(world: &World, path: &Path) -> InodeNumber {
    match world.find(path, true) {
        Ok(inode) => inode,
        Err(error) => panic!("{}: {error}", path.display()),
    }
}

fn collect(world: &World, dir: InodeNumber, path: &Path, files: &mut Vec<PathBuf>) {
    let Ok(dir) = world.dir(dir) else { return };
    for (name, inode) in &dir.now {
        let path = path.join(name);
        match world.stat(*inode).kind {
            Kind::Dir => collect(world, *inode, &path, files),
            _ => files.push(path),
        }
    }
}
