//! What is done to a store that nobody has open: to single bytes, to files, to directories.

use std::fmt;
use std::path::{Path, PathBuf};

use super::super::rig::{DIR, place};
use super::stores::{Lived, NAMES, private};
use crate::engine::disk::{Disk, Kind, SimDisk};

/// One thing that happens to a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Blow {
    /// One bit, as a disk decays: the file's time stays.
    Flip(PathBuf, u64, u8),
    /// Only so many bytes are left.
    Cut(PathBuf, u64),
    /// From this byte on there are zeros.
    Zeros(PathBuf, u64),
    /// Something follows the end.
    Longer(PathBuf),
    /// These are not there any more.
    Gone(Vec<PathBuf>),
    /// A directory stands there.
    Directory(PathBuf),
    /// A link stands there, to a copy of the file.
    Link(PathBuf),
    /// A file stands where a directory was.
    File(PathBuf),
    /// Nobody may read it.
    Unreadable(PathBuf),
    Swapped(PathBuf, PathBuf),
    /// The first also stands in the place of the second.
    Copied(PathBuf, PathBuf),
    Renamed(PathBuf, PathBuf),
    /// That of another store, file or directory.
    Stranger(PathBuf),
    /// As it was at an earlier moment, file or directory.
    Earlier(PathBuf),
}

impl fmt::Display for Blow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = |path: &Path| path.strip_prefix(DIR).unwrap_or(path).display().to_string();
        match self {
            Self::Flip(path, byte, bit) => write!(f, "flip:{}@{byte}.{bit}", short(path)),
            Self::Cut(path, bytes) => write!(f, "cut:{}@{bytes}", short(path)),
            Self::Zeros(path, from) => write!(f, "zeros:{}@{from}", short(path)),
            Self::Longer(path) => write!(f, "longer:{}", short(path)),
            Self::Gone(paths) => {
                write!(f, "gone:{}", paths.iter().map(|path| short(path)).collect::<Vec<_>>().join("+"))
            }
            Self::Directory(path) => write!(f, "directory:{}", short(path)),
            Self::Link(path) => write!(f, "link:{}", short(path)),
            Self::File(path) => write!(f, "file:{}", short(path)),
            Self::Unreadable(path) => write!(f, "unreadable:{}", short(path)),
            Self::Swapped(one, other) => write!(f, "swapped:{}+{}", short(one), short(other)),
            Self::Copied(from, to) => write!(f, "copied:{}>{}", short(from), short(to)),
            Self::Renamed(from, to) => write!(f, "renamed:{}>{}", short(from), short(to)),
            Self::Stranger(path) => write!(f, "stranger:{}", short(path)),
            Self::Earlier(path) => write!(f, "earlier:{}", short(path)),
        }
    }
}

impl Blow {
    /// One of very many, of which a share is enough.
    pub(super) fn is_of_bytes(&self) -> bool {
        matches!(self, Self::Flip(..) | Self::Cut(..) | Self::Zeros(..))
    }

    /// What it hits.
    pub(super) fn paths(&self) -> Vec<&Path> {
        match self {
            Self::Gone(paths) => paths.iter().map(PathBuf::as_path).collect(),
            Self::Swapped(one, other) | Self::Copied(one, other) | Self::Renamed(one, other) => vec![one, other],
            Self::Flip(path, ..)
            | Self::Cut(path, _)
            | Self::Zeros(path, _)
            | Self::Longer(path)
            | Self::Directory(path)
            | Self::Link(path)
            | Self::File(path)
            | Self::Unreadable(path)
            | Self::Stranger(path)
            | Self::Earlier(path) => vec![path],
        }
    }

    /// Whether it hits this or something in it.
    pub(super) fn hits(&self, path: &Path) -> bool {
        self.paths().iter().any(|hit| path.starts_with(hit) || hit.starts_with(path))
    }

    /// Does it.
    pub(super) fn strike(&self, disk: &SimDisk, lived: &Lived) {
        match self {
            Self::Flip(path, byte, bit) => disk.flip_bit(path, *byte, *bit),
            Self::Cut(path, bytes) => disk.truncate_file(path, *bytes),
            Self::Zeros(path, from) => {
                let mut bytes = disk.read_file(path);
                bytes[*from as usize..].fill(0);
                disk.write_file(path, &bytes);
            }
            Self::Longer(path) => {
                let bytes = [disk.read_file(path), b"and nobody knows where this comes from".to_vec()].concat();
                disk.write_file(path, &bytes);
            }
            Self::Gone(paths) => paths.iter().for_each(|path| disk.remove_path(path)),
            Self::Directory(path) => {
                disk.remove_path(path);
                disk.make_dirs(path);
            }
            Self::Link(path) => {
                disk.make_dirs("/elsewhere");
                disk.write_file("/elsewhere/copy", &disk.read_file(path));
                disk.remove_path(path);
                disk.symlink("/elsewhere/copy", path);
            }
            Self::File(path) => {
                disk.remove_path(path);
                disk.write_file(path, b"a file");
            }
            Self::Unreadable(path) => disk.set_mode(path, 0).expect("it is there"),
            Self::Swapped(one, other) => {
                let (first, second) = (disk.read_file(one), disk.read_file(other));
                disk.write_file(one, &second);
                disk.write_file(other, &first);
            }
            Self::Copied(from, to) => disk.write_file(to, &disk.read_file(from)),
            Self::Renamed(from, to) => {
                disk.write_file(to, &disk.read_file(from));
                disk.remove_path(from);
            }
            Self::Stranger(path) => take_over(&lived.stranger, disk, path),
            Self::Earlier(path) => take_over(&lived.earlier, disk, path),
        }
    }
}

/// Makes what is at `path` on one disk what it is on another.
pub(super) fn take_over(from: &SimDisk, to: &SimDisk, path: &Path) {
    if to.exists(path) {
        to.remove_path(path);
    }
    match from.stat_of(path).map(|stat| stat.kind) {
        None => {}
        Some(Kind::Dir) => {
            to.make_dirs(path);
            from.names(path).iter().for_each(|name| take_over(from, to, &path.join(name)));
        }
        Some(_) => {
            to.make_dirs(path.parent().expect("a file lies in a directory"));
            to.write_file(path, &from.read_file(path));
        }
    }
}

/// Every file of the store, and every directory below its own.
fn tree(disk: &SimDisk) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let (mut files, mut directories, mut left) = (Vec::new(), Vec::new(), vec![PathBuf::from(DIR)]);
    while let Some(directory) = left.pop() {
        for name in disk.names(&directory) {
            let path = directory.join(name);
            if disk.stat_of(&path).is_some_and(|stat| stat.kind == Kind::Dir) {
                left.push(path.clone());
                directories.push(path);
            } else {
                files.push(path);
            }
        }
    }
    (files, directories)
}

/// Whether the same bytes are there on both disks.
fn is_same(one: &SimDisk, other: &SimDisk, path: &Path) -> bool {
    match (one.stat_of(path).map(|stat| stat.kind), other.stat_of(path).map(|stat| stat.kind)) {
        (None, None) => true,
        (Some(Kind::File), Some(Kind::File)) => one.read_file(path) == other.read_file(path),
        (Some(Kind::Dir), Some(Kind::Dir)) => {
            one.names(path) == other.names(path) && one.names(path).iter().all(|n| is_same(one, other, &path.join(n)))
        }
        _ => false,
    }
}

/// Everything that is done to a store.
pub(super) fn blows(lived: &Lived) -> Vec<Blow> {
    let disk = &lived.disk;
    let (files, directories) = tree(disk);
    let mut all = Vec::new();
    for path in &files {
        let bytes = disk.read_file(path);
        let length = bytes.len() as u64;
        for byte in 0..length {
            all.extend((0..8).map(|bit| Blow::Flip(path.clone(), byte, bit)));
            all.push(Blow::Cut(path.clone(), byte));
            if byte % 8 == 0 && bytes[byte as usize..].iter().any(|byte| *byte != 0) {
                all.push(Blow::Zeros(path.clone(), byte));
            }
        }
        let whole = [Blow::Longer, Blow::Directory, Blow::Link, Blow::Unreadable].map(|blow| blow(path.clone()));
        all.extend(whole);
        all.push(Blow::Gone(vec![path.clone()]));
    }
    all.extend(directories.iter().flat_map(|path| [Blow::Gone(vec![path.clone()]), Blow::File(path.clone())]));
    let known = files.iter().chain(&directories);
    for path in known {
        all.extend((!is_same(disk, &lived.stranger, path)).then(|| Blow::Stranger(path.clone())));
        all.extend((!is_same(disk, &lived.earlier, path)).then(|| Blow::Earlier(path.clone())));
    }
    all.extend(of_segments(lived));
    let namespaces: Vec<PathBuf> = NAMES.iter().map(|name| file_of(name)).filter(|path| disk.exists(path)).collect();
    for (index, path) in namespaces.iter().enumerate() {
        all.extend(namespaces[index + 1..].iter().map(|other| Blow::Swapped(path.clone(), other.clone())));
    }
    all.push(Blow::Gone(namespaces));
    all
}

pub(super) fn file_of(name: &str) -> PathBuf {
    let place = place(name);
    Path::new(DIR).join(place.workspace.as_str()).join(place.namespace.file_name())
}

/// Whole segments lost, doubled, exchanged, and taken from another store.
fn of_segments(lived: &Lived) -> Vec<Blow> {
    let segment = |number: u64| private("journal").join(format!("{number:08}.log"));
    let mut all = Vec::new();
    let numbers = numbers_of(&lived.disk);
    let newest = *numbers.last().expect("every store has a journal");
    for (index, number) in numbers.iter().enumerate() {
        let path = segment(*number);
        for to in [newest + 1, newest + 7, 99_999_999, 1 << 40, u64::MAX] {
            all.push(Blow::Copied(path.clone(), segment(to)));
            all.push(Blow::Renamed(path.clone(), segment(to)));
        }
        // Names that nobody gives.
        all.push(Blow::Copied(path.clone(), private("journal").join(format!("{number}.log"))));
        all.push(Blow::Copied(path.clone(), private("journal").join(format!("{number:08}.log.copy"))));
        for other in &numbers[index + 1..] {
            all.push(Blow::Swapped(path.clone(), segment(*other)));
            all.push(Blow::Copied(path.clone(), segment(*other)));
            all.push(Blow::Copied(segment(*other), path.clone()));
            all.push(Blow::Gone(vec![path.clone(), segment(*other)]));
        }
    }
    let theirs = numbers_of(&lived.stranger);
    let beyond = theirs.iter().filter(|number| !numbers.contains(number));
    all.extend(beyond.map(|number| Blow::Stranger(segment(*number))));
    all
}

fn numbers_of(disk: &SimDisk) -> Vec<u64> {
    let names = disk.names(private("journal"));
    names.iter().filter_map(|name| name.strip_suffix(".log")?.parse().ok()).collect()
}
