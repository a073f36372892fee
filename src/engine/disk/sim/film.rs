//! Images of a [`SimDisk`] at every moment that a crash could tell apart, taken while it is used, and a number that says
//! whether two disks are alike: what it takes to crash a workload everywhere by running it once.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::hash::Hash;
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use super::world::{Body, Change, DirBody, FileBody, InodeNumber, ROOT, World};
use super::{Call, SimDisk, State};

/// The disk as a process leaves it that dies right before a call, or in the middle of a write.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The call that is not done, or only in its first half.
    pub call: Call,
    /// What was there: as after [`SimDisk::kill`].
    pub disk: SimDisk,
}

impl Call {
    /// Whether the call can change what a next owner, or a power cut, finds.
    fn changes_something(self) -> bool {
        !matches!(self, Self::Open | Self::Read | Self::List | Self::Stat | Self::ReadLink)
    }
}

impl State {
    /// Takes a frame before a call that changes something, and one more of a write that is half done.
    pub(super) fn film(&mut self, call: Call, half: Option<(InodeNumber, Change)>) {
        let Some(film) = &mut self.film else { return };
        if half.is_none() && !call.changes_something() {
            return;
        }
        let mut world = self.world.clone();
        if let Some((inode, change)) = half
            && world.change_file(inode, change).is_err()
        {
            return;
        }
        film.push((call, world));
    }
}

impl SimDisk {
    /// Begins to take a [`Frame`] before every call that changes something, and of every write a second one with its
    /// first half done.
    pub fn film(&self) {
        self.state.lock().film = Some(Vec::new());
    }

    /// How many frames there are since [`film`](Self::film).
    pub fn filmed(&self) -> usize {
        self.state.lock().film.as_ref().map_or(0, Vec::len)
    }

    /// The frames since [`film`](Self::film), in order; no more are taken.
    pub fn take_film(&self) -> Vec<Frame> {
        let (film, dice) = {
            let mut state = self.state.lock();
            (state.film.take().unwrap_or_default(), state.dice.clone())
        };
        let frame = |(call, mut world): (Call, World)| {
            world.forget_nameless();
            Frame { call, disk: Self::with(world, dice.clone()) }
        };
        film.into_iter().map(frame).collect()
    }

    /// A number that is the same for disks that hold the same: names, modes and bytes, as a reader finds them, as a power
    /// cut would leave them, and what is between. Which inode numbers and times they have does not count, nor a name
    /// beyond what `same_name` leaves of it.
    pub fn fingerprint(&self, same_name: impl Fn(&OsStr) -> &OsStr) -> u128 {
        let state = self.state.lock();
        let mut hasher = Fingerprint { world: &state.world, met: HashMap::new(), sum: Xxh3::new(), same_name };
        hasher.inode(ROOT);
        for change in &state.world.unsynced_names {
            for new in &change.names {
                hasher.inode(new.dir);
                hasher.name(&new.name);
                new.inode.is_some().hash(&mut hasher.sum);
                new.inode.into_iter().for_each(|inode| hasher.inode(inode));
            }
            hasher.sum.update(b"/");
            change.unsynced_dirs().for_each(|dir| hasher.inode(dir));
        }
        hasher.sum.digest128()
    }
}

struct Fingerprint<'a, F> {
    world: &'a World,
    /// Inodes in the order in which they were met: their numbers differ between two ways to the same disk.
    met: HashMap<InodeNumber, usize>,
    sum: Xxh3,
    same_name: F,
}

impl<F: Fn(&OsStr) -> &OsStr> Fingerprint<'_, F> {
    fn name(&mut self, name: &OsStr) {
        (self.same_name)(name).hash(&mut self.sum);
    }

    fn inode(&mut self, number: InodeNumber) {
        let next = self.met.len();
        let place = *self.met.entry(number).or_insert(next);
        place.hash(&mut self.sum);
        if place < next {
            return;
        }
        let inode = self.world.inode(number);
        inode.mode.hash(&mut self.sum);
        match &inode.body {
            Body::File(file) => self.file(file),
            Body::Dir(dir) => self.dir(dir),
            Body::Link(target) => target.hash(&mut self.sum),
        }
    }

    fn dir(&mut self, dir: &DirBody) {
        let is_settled = dir.now == dir.durable;
        is_settled.hash(&mut self.sum);
        for names in [&dir.now, &dir.durable].into_iter().take(if is_settled { 1 } else { 2 }) {
            names.len().hash(&mut self.sum);
            for (name, inode) in names {
                self.name(name);
                self.inode(*inode);
            }
        }
    }

    fn file(&mut self, file: &FileBody) {
        file.now.hash_into(&mut self.sum);
        file.is_settled().hash(&mut self.sum);
        if file.is_settled() {
            return;
        }
        file.lost.hash(&mut self.sum);
        file.durable.hash_into(&mut self.sum);
        file.unsynced.len().hash(&mut self.sum);
        for change in &file.unsynced {
            match change {
                Change::Write { offset, bytes } => (0_u8, offset, Arc::as_ref(bytes)).hash(&mut self.sum),
                Change::Resize { from, to } => (1_u8, from, to).hash(&mut self.sum),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::Path;

    use super::*;
    use crate::engine::disk::{Disk, How};

    fn path(name: &str) -> &Path {
        Path::new(name)
    }

    /// Some calls of every kind that changes something.
    fn use_everything(disk: &SimDisk) -> io::Result<()> {
        disk.create_dir(path("/d"), 0o700)?;
        let file = disk.open(path("/d/f"), &How::CREATE_NEW)?;
        file.write_at(&[1; 2_000], 100)?;
        file.sync()?;
        file.write_at(b"more", 0)?;
        file.truncate(1_500)?;
        file.allocate(4_000)?;
        disk.sync_dir(path("/d"))?;
        disk.link(path("/d/f"), path("/d/second"))?;
        disk.rename(path("/d/f"), path("/d/first"))?;
        disk.set_mode(path("/d/first"), 0o400)?;
        disk.list(path("/d"))?;
        disk.remove(path("/d/second"))
    }

    #[test]
    fn a_film_shows_what_a_crash_in_every_call_leaves() {
        let name: fn(&OsStr) -> &OsStr = |name| name;
        let filmed = SimDisk::new(1);
        filmed.film();
        use_everything(&filmed).unwrap();
        let frames: Vec<u128> = filmed.take_film().iter().map(|frame| frame.disk.fingerprint(name)).collect();
        assert_eq!(filmed.take_film().len(), 0, "a film that was taken is over");
        let mut calls = 0;
        loop {
            calls += 1;
            let crashed = SimDisk::new(1);
            crashed.crash_after(calls);
            if use_everything(&crashed).is_ok() {
                break;
            }
            let trace_free = crashed.kill().fingerprint(name);
            // How much of a write is done is the disk's choice; all else is in the film.
            let is_write = {
                let counted = crashed.calls();
                counted.of(Call::Write) > 0 && !frames.contains(&trace_free)
            };
            assert!(is_write || frames.contains(&trace_free), "call {calls}");
        }
        assert_eq!(
            frames.len() as u64,
            calls - 1 - 1 + 2,
            "one list changes nothing, and two writes are shown half done"
        );
        assert!(frames.contains(&SimDisk::new(5).fingerprint(name)), "before the first call there is nothing");
    }

    #[test]
    fn a_fingerprint_tells_contents_apart_and_not_the_ways_to_them() {
        let name: fn(&OsStr) -> &OsStr = |name| name;
        let make = |steps: &dyn Fn(&SimDisk)| {
            let disk = SimDisk::new(1);
            steps(&disk);
            disk.fingerprint(name)
        };
        let direct = make(&|disk| disk.write_file("/a", b"1"));
        let detour = make(&|disk| {
            disk.write_file("/b", b"other");
            disk.remove_path("/b");
            disk.write_file("/a", b"0");
            disk.write_file("/a", b"1");
        });
        assert_eq!(direct, detour);
        let unsynced = make(&|disk| {
            disk.write_file("/a", b"0");
            disk.open(path("/a"), &How::WRITE).unwrap().write_at(b"1", 0).unwrap();
        });
        let others: [&dyn Fn(&SimDisk); 4] = [
            &|disk| disk.write_file("/a", b"2"),
            &|disk| disk.write_file("/b", b"1"),
            &|disk| disk.make_dirs("/a"),
            &|disk| {
                disk.write_file("/a", b"1");
                disk.link(path("/a"), path("/b")).unwrap();
            },
        ];
        let mut all: Vec<u128> = others.iter().map(|steps| make(steps)).chain([direct, unsynced]).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 6);
    }
}
