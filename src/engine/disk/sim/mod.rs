//! A disk in memory that can lose power, lose its process, fail any call, and tell how often it was called.
//!
//! It does to unsynced data, sizes and names whatever the [contract](crate::engine::disk) allows, chosen by a seed, and
//! nothing that the contract forbids. [`SimDisk::kill`] and [`SimDisk::power_cut`] give images: disks of their own that
//! share what neither changes, so that a test can look at tens of thousands of crash points.
//!
//! A failed sync loses for good what was unsynced: it can be read until the power goes, later syncs succeed and do not
//! bring it back, as on Linux.
//!
//! Simplified: permission bits count for opening files and changing names, as if for their owner, and are durable at
//! once; only files can be renamed; there are no pipes or devices.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};
use rustix::io::Errno;

use super::{Disk, DiskFile, Entry, How, Kind, Stat};
use cut::Dice;
use world::{Body, Change, DirBody, FileBody, InodeNumber, NewName, Spot, World};

mod calls;
mod content;
mod cut;
mod film;
mod hold;
mod inspect;
mod world;

#[cfg(test)]
mod tests;

pub use calls::{Call, Calls, FailWith, Failure};
pub use cut::{Fate, Rules};
pub use film::Frame;
pub use hold::Hold;

/// A simulated disk. Clones are the same disk.
///
/// ```
/// use std::path::Path;
/// use commonhold::engine::disk::{Disk, How, Rules, SimDisk};
///
/// let disk = SimDisk::new(1);
/// let file = disk.open(Path::new("/a"), &How::CREATE_NEW)?;
/// file.write_at(b"data", 0)?;
/// file.sync()?;
/// assert_eq!(disk.kill().read_file("/a"), b"data");
/// assert!(!disk.power_cut(7, Rules::DROP_ALL).exists("/a"), "the name was not synced");
/// disk.sync_dir(Path::new("/"))?;
/// assert_eq!(disk.power_cut(7, Rules::DROP_ALL).read_file("/a"), b"data");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
    gates: Arc<Mutex<Vec<Weak<hold::Gate>>>>,
}

#[derive(Debug)]
struct State {
    world: World,
    calls: Calls,
    failures: Vec<Failure>,
    /// How many calls are left, the fatal one included.
    crash_in: Option<u64>,
    is_dead: bool,
    dice: Dice,
    trace: Option<Vec<(Call, PathBuf)>>,
    film: Option<Vec<(Call, World)>>,
}

/// What a call is to do instead of its work.
#[derive(Clone, Copy)]
enum Trouble {
    Fail(FailWith),
    Crash,
}

impl Trouble {
    fn error(self) -> io::Error {
        match self {
            Self::Fail(with) => with.error(),
            Self::Crash => dead(),
        }
    }
}

fn dead() -> io::Error {
    io::Error::other("the simulated process is dead")
}

impl State {
    fn new(world: World, dice: Dice) -> Self {
        Self {
            world,
            calls: Calls::default(),
            failures: Vec::new(),
            crash_in: None,
            is_dead: false,
            dice,
            trace: None,
            film: None,
        }
    }

    /// Counts a call and tells what is wrong with it.
    fn trouble(&mut self, call: Call, path: &Path) -> Option<Trouble> {
        if self.is_dead {
            return Some(Trouble::Crash);
        }
        self.calls.count(call);
        if let Some(trace) = &mut self.trace {
            trace.push((call, path.to_owned()));
        }
        self.film(call, None);
        if let Some(left) = &mut self.crash_in {
            *left -= 1;
            if *left == 0 {
                self.is_dead = true;
                return Some(Trouble::Crash);
            }
        }
        let met: Vec<FailWith> = self.failures.iter_mut().filter_map(|failure| failure.meets(call, path)).collect();
        self.failures.retain(|failure| !failure.is_over());
        met.first().copied().map(Trouble::Fail)
    }

    /// For calls that do nothing at all when something is wrong with them.
    fn begin(&mut self, call: Call, path: &Path) -> io::Result<()> {
        self.trouble(call, path).map_or(Ok(()), |trouble| Err(trouble.error()))
    }
}

impl SimDisk {
    /// An empty disk. `seed` decides how much of a write is done that [`crash_after`](Self::crash_after) interrupts.
    pub fn new(seed: u64) -> Self {
        Self::with(World::new(), Dice::new(seed))
    }

    fn with(world: World, dice: Dice) -> Self {
        Self { state: Arc::new(Mutex::new(State::new(world, dice))), gates: Arc::default() }
    }

    /// How often it was called, since it was made. Calls after the crash do not count.
    pub fn calls(&self) -> Calls {
        self.state.lock().calls
    }

    /// The `n`-th call from now (1 is the next) fails once. More is said by [`fail`](Self::fail).
    ///
    /// # Panics
    /// If `n` is 0.
    pub fn fail_call(&self, n: u64, with: FailWith) {
        self.fail(Failure::nth(n, with));
    }

    /// Orders a failure, beside those ordered before. The first that meets a call decides.
    pub fn fail(&self, failure: Failure) {
        self.state.lock().failures.push(failure);
    }

    /// Takes back all failures that are still to come.
    pub fn mend(&self) {
        self.state.lock().failures.clear();
    }

    /// The process dies in the `n`-th call from now (1 is the next): that call and all later ones fail. Of a write, some
    /// first part is done.
    ///
    /// # Panics
    /// If `n` is 0.
    pub fn crash_after(&self, n: u64) {
        assert!(n > 0, "the next call is number 1");
        self.state.lock().crash_in = Some(n);
    }

    /// Whether [`crash_after`](Self::crash_after) has come true.
    pub fn is_dead(&self) -> bool {
        self.state.lock().is_dead
    }

    /// Begins to write down every call with its path.
    pub fn trace(&self) {
        self.state.lock().trace = Some(Vec::new());
    }

    /// What was written down since [`trace`](Self::trace), and forgets it.
    pub fn take_trace(&self) -> Vec<(Call, PathBuf)> {
        self.state.lock().trace.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The disk as a killed process leaves it: everything done is there, and what is unsynced can still be lost.
    #[must_use]
    pub fn kill(&self) -> Self {
        let state = self.state.lock();
        let mut world = state.world.clone();
        world.forget_nameless();
        Self::with(world, state.dice.clone())
    }

    /// The disk as it may be found after a power cut at this moment. The same seed gives the same disk.
    #[must_use]
    pub fn power_cut(&self, seed: u64, rules: Rules) -> Self {
        Self::with(cut::power_cut(&self.state.lock().world, seed, rules), Dice::new(seed))
    }

    /// Where every call comes in.
    fn enter(&self, call: Call, path: &Path) -> MutexGuard<'_, State> {
        self.pass_gates(call, path);
        self.state.lock()
    }

    /// Begins a call that does nothing when something is wrong with it, and gives the world to do it in.
    fn begin(&self, call: Call, path: &Path) -> io::Result<MappedMutexGuard<'_, World>> {
        let mut state = self.enter(call, path);
        state.begin(call, path)?;
        Ok(MutexGuard::map(state, |state| &mut state.world))
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, how: &How) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.enter(Call::Open, path);
        let spot = state.world.resolve(path, !how.no_follow && !how.create_new);
        let makes = (how.create || how.create_new) && spot.as_ref().is_ok_and(|spot| spot.inode.is_none());
        state.begin(if makes { Call::Create } else { Call::Open }, path)?;
        let inode = open_inode(&mut state.world, spot?, how)?;
        drop(state);
        let file = SimFile { disk: self.clone(), path: path.to_owned(), inode, read: how.read, write: how.write };
        Ok(Box::new(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.begin(Call::Rename, to)?;
        let (from, to) = (world.resolve(from, false)?, world.resolve(to, false)?);
        let inode = named_non_dir(&world, &from)?;
        if to.inode == Some(inode) {
            return Ok(()); // two names of one file: nothing to do, as POSIX has it
        }
        if to.inode.is_some() {
            named_non_dir(&world, &to)?;
        }
        world.check_writable(from.dir)?;
        world.check_writable(to.dir)?;
        world.rename(vec![
            NewName { dir: from.dir, name: from.name, inode: None },
            NewName { dir: to.dir, name: to.name, inode: Some(inode) },
        ]);
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.begin(Call::Link, to)?;
        let from = world.resolve(from, false)?;
        let inode = named_non_dir(&world, &from)?;
        let to = free_spot(&world, to)?;
        world.rename(vec![NewName { dir: to.dir, name: to.name, inode: Some(inode) }]);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut world = self.begin(Call::Remove, path)?;
        let spot = world.resolve(path, false)?;
        named_non_dir(&world, &spot)?;
        world.check_writable(spot.dir)?;
        world.rename(vec![NewName { dir: spot.dir, name: spot.name, inode: None }]);
        Ok(())
    }

    fn create_dir(&self, path: &Path, mode: u32) -> io::Result<()> {
        let mut world = self.begin(Call::CreateDir, path)?;
        let spot = free_spot(&world, path)?;
        let inode = world.add_inode(mode, Body::Dir(DirBody::default()));
        world.rename(vec![NewName { dir: spot.dir, name: spot.name, inode: Some(inode) }]);
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.enter(Call::SyncDir, path);
        let trouble = state.trouble(Call::SyncDir, path);
        if let Some(trouble @ Trouble::Crash) = trouble {
            return Err(trouble.error());
        }
        let dir = state.world.find(path, true)?;
        state.world.dir(dir)?;
        if let Some(trouble) = trouble {
            state.world.fail_sync_dir(dir);
            return Err(trouble.error());
        }
        state.world.sync_dir(dir);
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let world = self.begin(Call::List, path)?;
        let dir = world.find(path, true)?;
        let names = world.dir(dir)?.now.iter();
        Ok(names.map(|(name, inode)| Entry { name: name.clone(), kind: world.stat(*inode).kind }).collect())
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        let world = self.begin(Call::Stat, path)?;
        Ok(world.stat(world.find(path, true)?))
    }

    fn lstat(&self, path: &Path) -> io::Result<Stat> {
        let world = self.begin(Call::Stat, path)?;
        Ok(world.stat(world.find(path, false)?))
    }

    fn set_mode(&self, path: &Path, mode: u32) -> io::Result<()> {
        let mut world = self.begin(Call::SetMode, path)?;
        let inode = world.find(path, false)?;
        if world.stat(inode).kind == Kind::Link {
            return Err(Errno::LOOP.into());
        }
        world.inode_mut(inode).mode = mode;
        Ok(())
    }

    fn free_bytes(&self, directory: &Path) -> io::Result<u64> {
        let world = self.begin(Call::Stat, directory)?;
        world.find(directory, true)?;
        Ok(world.free_bytes())
    }

    fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        let world = self.begin(Call::ReadLink, path)?;
        match &world.inode(world.find(path, false)?).body {
            Body::Link(target) => Ok(target.clone()),
            Body::File(_) | Body::Dir(_) => Err(Errno::INVAL.into()),
        }
    }
}

fn open_inode(world: &mut World, spot: Spot, how: &How) -> io::Result<InodeNumber> {
    let Some(inode) = spot.inode else {
        if !how.create && !how.create_new {
            return Err(Errno::NOENT.into());
        }
        world.check_writable(spot.dir)?;
        let inode = world.add_inode(how.mode, Body::File(FileBody::default()));
        world.rename(vec![NewName { dir: spot.dir, name: spot.name, inode: Some(inode) }]);
        return Ok(inode);
    };
    if how.create_new {
        return Err(Errno::EXIST.into());
    }
    let from = world.file(inode)?.now.bytes();
    let wanted = if how.read { 0o400 } else { 0 } | if how.write { 0o200 } else { 0 };
    if world.inode(inode).mode & wanted != wanted {
        return Err(Errno::ACCESS.into());
    }
    if how.truncate && how.write {
        world.change_file(inode, Change::Resize { from, to: 0 })?;
    }
    Ok(inode)
}

fn named_non_dir(world: &World, spot: &Spot) -> io::Result<InodeNumber> {
    let inode = spot.inode.ok_or(Errno::NOENT)?;
    if world.stat(inode).kind == Kind::Dir { Err(Errno::ISDIR.into()) } else { Ok(inode) }
}

fn free_spot(world: &World, path: &Path) -> io::Result<Spot> {
    let spot = world.resolve(path, false)?;
    if spot.inode.is_some() || spot.name == OsStr::new("") {
        return Err(Errno::EXIST.into());
    }
    world.check_writable(spot.dir)?;
    Ok(spot)
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    /// The name that it was opened under.
    path: PathBuf,
    inode: InodeNumber,
    read: bool,
    write: bool,
}

impl SimFile {
    fn check(allowed: bool) -> io::Result<()> {
        if allowed { Ok(()) } else { Err(Errno::BADF.into()) }
    }

    fn resize(&self, call: Call, new_size: impl Fn(u64) -> u64) -> io::Result<()> {
        Self::check(self.write)?;
        let mut world = self.disk.begin(call, &self.path)?;
        let from = world.file(self.inode)?.now.bytes();
        let to = new_size(from);
        if from == to { Ok(()) } else { world.change_file(self.inode, Change::Resize { from, to }) }
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        Self::check(self.read)?;
        let world = self.disk.begin(Call::Read, &self.path)?;
        Ok(world.file(self.inode)?.now.read_at(buffer, offset))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        Self::check(self.write)?;
        let mut state = self.disk.enter(Call::Write, &self.path);
        let was_dead = state.is_dead;
        let trouble = state.trouble(Call::Write, &self.path);
        if trouble.is_none() {
            let half = Change::Write { offset, bytes: bytes[..bytes.len() / 2].into() };
            state.film(Call::Write, Some((self.inode, half)));
        }
        let done = match trouble {
            None => bytes.len(),
            Some(Trouble::Fail(FailWith::ShortWrite)) => bytes.len() / 2,
            Some(Trouble::Crash) if !was_dead => state.dice.below(bytes.len() + 1),
            Some(_) => 0,
        };
        if done > 0 {
            let change = Change::Write { offset, bytes: bytes[..done].into() };
            state.world.change_file(self.inode, change)?;
        }
        trouble.map_or(Ok(()), |trouble| Err(trouble.error()))
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.resize(Call::Allocate, |present| present.max(bytes))
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.resize(Call::Truncate, |_| bytes)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.enter(Call::Sync, &self.path);
        let trouble = state.trouble(Call::Sync, &self.path);
        match trouble {
            None => state.world.file_mut(self.inode)?.sync(),
            Some(Trouble::Fail(_)) => state.world.file_mut(self.inode)?.fail_sync(),
            Some(Trouble::Crash) => {}
        }
        trouble.map_or(Ok(()), |trouble| Err(trouble.error()))
    }

    fn stat(&self) -> io::Result<Stat> {
        let world = self.disk.begin(Call::Stat, &self.path)?;
        Ok(world.stat(self.inode))
    }
}
