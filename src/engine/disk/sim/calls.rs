//! What a test sees and orders of a simulated disk: counts of calls, and failures of calls.

use std::fmt;
use std::io;
use std::path::Path;

use rustix::io::Errno;

/// The kinds of calls that [`Disk`](crate::engine::disk::Disk) and its files know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// Opening a file that exists, or failing to.
    Open,
    /// Opening that makes a file.
    Create,
    /// `read_at`.
    Read,
    /// `write_at`.
    Write,
    /// `allocate`.
    Allocate,
    /// `truncate`.
    Truncate,
    /// `sync` of a file.
    Sync,
    /// `sync_dir`.
    SyncDir,
    /// `rename`.
    Rename,
    /// `link`.
    Link,
    /// `remove`.
    Remove,
    /// `create_dir`.
    CreateDir,
    /// `list`.
    List,
    /// `stat`, `lstat`, and `stat` of an open file.
    Stat,
    /// `set_mode`.
    SetMode,
    /// `read_link`.
    ReadLink,
}

impl Call {
    /// Every kind, in order.
    pub const ALL: [Self; 16] = [
        Self::Open,
        Self::Create,
        Self::Read,
        Self::Write,
        Self::Allocate,
        Self::Truncate,
        Self::Sync,
        Self::SyncDir,
        Self::Rename,
        Self::Link,
        Self::Remove,
        Self::CreateDir,
        Self::List,
        Self::Stat,
        Self::SetMode,
        Self::ReadLink,
    ];

    /// Whether the call takes room on the disk.
    fn takes_room(self) -> bool {
        matches!(self, Self::Create | Self::Write | Self::Allocate | Self::Link | Self::CreateDir)
    }
}

/// How many calls of each kind there were.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Calls([u64; Call::ALL.len()]);

impl Calls {
    /// The calls of one kind.
    pub fn of(&self, call: Call) -> u64 {
        self.0[call as usize]
    }

    /// All calls.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The calls made since `earlier` was taken.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self(std::array::from_fn(|kind| self.0[kind] - earlier.0[kind]))
    }

    pub(super) fn count(&mut self, call: Call) {
        self.0[call as usize] += 1;
    }
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(Call::ALL.iter().map(|call| (call, self.of(*call))).filter(|(_, times)| *times > 0))
            .finish()
    }
}

/// What a failing call answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailWith {
    /// `EIO`.
    Io,
    /// `ENOSPC`. Unless [`Failure::of`] names a kind, only calls that take room on the disk meet it.
    NoSpace,
    /// `EDQUOT`. Met by the same calls as [`NoSpace`](Self::NoSpace).
    Quota,
    /// `EINTR`.
    Interrupted,
    /// Half of the bytes are written, then `ENOSPC`. Only writes meet it.
    ShortWrite,
}

impl FailWith {
    pub(super) fn error(self) -> io::Error {
        match self {
            Self::Io => Errno::IO,
            Self::NoSpace | Self::ShortWrite => Errno::NOSPC,
            Self::Quota => Errno::DQUOT,
            Self::Interrupted => Errno::INTR,
        }
        .into()
    }

    /// Whether a call is one that fails so.
    fn befalls(self, call: Call) -> bool {
        match self {
            Self::Io | Self::Interrupted => true,
            Self::NoSpace | Self::Quota => call.takes_room(),
            Self::ShortWrite => call == Call::Write,
        }
    }
}

/// A failure to come, as `Failure::nth(1, FailWith::Io).of(Call::Sync).on("journal").for_good()`.
#[derive(Clone, Debug)]
pub struct Failure {
    left: u64,
    with: FailWith,
    call: Option<Call>,
    any: bool,
    path_part: Option<String>,
    for_good: bool,
}

impl Failure {
    /// The `n`-th call from now fails; 1 is the next.
    ///
    /// # Panics
    /// If `n` is 0.
    pub fn nth(n: u64, with: FailWith) -> Self {
        assert!(n > 0, "the next call is number 1");
        Self { left: n, with, call: None, any: false, path_part: None, for_good: false }
    }

    /// Only calls of this kind count and fail.
    #[must_use]
    pub fn of(self, call: Call) -> Self {
        Self { call: Some(call), ..self }
    }

    /// Every call counts, also those which such an error does not usually meet, and the n-th fails. A failure
    /// [for good](Self::for_good) goes on with those that it does usually meet.
    #[must_use]
    pub fn of_any(self) -> Self {
        Self { any: true, ..self }
    }

    /// Only calls on paths that contain `part` count and fail. A rename or link goes by its new name; an open file by
    /// the name that it was opened under.
    #[must_use]
    pub fn on(self, part: &str) -> Self {
        Self { path_part: Some(part.to_owned()), ..self }
    }

    /// All later such calls fail too, until [`SimDisk::mend`](super::SimDisk::mend).
    #[must_use]
    pub fn for_good(self) -> Self {
        Self { for_good: true, ..self }
    }

    /// Counts this call and tells whether it fails.
    pub(super) fn meets(&mut self, call: Call, path: &Path) -> Option<FailWith> {
        let kind_counts = match (self.call, self.with) {
            _ if self.any => true,
            (_, FailWith::ShortWrite) => call == Call::Write,
            (Some(kind), _) => call == kind,
            (None, with) => with.befalls(call),
        };
        let path_counts = self.path_part.as_ref().is_none_or(|part| path.to_string_lossy().contains(part));
        if self.left == 0 || !kind_counts || !path_counts {
            return None;
        }
        self.left -= 1;
        if self.left > 0 {
            return None;
        }
        self.left = u64::from(self.for_good);
        self.any = false;
        Some(self.with)
    }

    pub(super) fn is_over(&self) -> bool {
        self.left == 0
    }
}
