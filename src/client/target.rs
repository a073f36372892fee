//! Which namespace a call or an operation means: shared by the drivers, and what a [`Batch`](super::Batch) asks of theirs.

use commonhold_proto::{Kind, Place, Space};

use crate::versions::Name;

/// A namespace's place, and its kind: what becomes of it when the daemon ends.
///
/// The `Namespace` of every driver gives its own by `AsRef`, so that one [`Batch`](super::Batch) serves them all.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    place: Place,
    kind: Kind,
    /// What the version table knows it by.
    name: Name,
}

impl Target {
    /// The namespace of this kind at `place`.
    pub fn new(place: Place, kind: Kind) -> Self {
        Self { name: Name::of(&place), place, kind }
    }

    /// Its workspace and name.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Whether it is kept or lives in memory only.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub(super) fn name(&self) -> Name {
        self.name
    }

    pub(super) fn space(&self) -> Space<'_> {
        Space { kind: self.kind, ..Space::persistent(&self.place) }
    }
}

impl AsRef<Self> for Target {
    fn as_ref(&self) -> &Self {
        self
    }
}
