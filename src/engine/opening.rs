//! What a start found: told in the log and in `status`, so that nothing is put right behind anybody's back.

use std::path::PathBuf;

use commonhold_proto::{Place, Seq};

/// What the opening of a store found and did.
#[derive(Clone, Debug, Default)]
pub struct Opening {
    /// Namespaces that had writes which no file held yet; they were loaded and the writes applied.
    pub recovered: Vec<Place>,
    /// Records that were copied into the new journal segment, because they were not known to be on the platter.
    pub copied_records: u64,
    /// An owner before has been here, and its journal is not: what only the journal held is lost.
    pub journal_is_gone: bool,
    /// The unsynced end of an interrupted write, set aside.
    pub set_aside: Option<SetAside>,
    /// Namespaces that would not open, and why.
    pub closed: Vec<(Place, String)>,
    /// Temporary files of earlier owners that were removed.
    pub temporaries_removed: Vec<PathBuf>,
    /// The last Seq that was found in the journal or given out before.
    pub last: Seq,
}

/// A tail that was cut off the journal. It had not been synced: it is what a power cut or a full disk interrupted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// The segment it was cut off from.
    pub segment: PathBuf,
    /// From which byte on.
    pub offset: u64,
    /// How many bytes. They are kept in `.commonhold/journal/aside/`.
    pub bytes: u64,
}
