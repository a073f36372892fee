//! A session's own note of the namespaces it uses, so that a request for one it has used before costs neither a
//! checked name nor a look into the store's shared list.

use std::sync::Arc;

use crate::engine::{Canonicalizer, Store, Table};
use crate::proto::{Fault, Kind, Space};

/// A session that uses more namespaces than this looks the others up in the store each time.
const MOST_NOTED: usize = 64;

/// The namespaces that a session has used, the busy ones in front.
pub(super) struct Tables {
    store: Arc<Store>,
    noted: Vec<Noted>,
    /// The one of the request that is being served, where it has nothing in it.
    blank: Option<Arc<Table>>,
    /// What reads the values of writes, kept from one to the next.
    pub(super) reading: Option<Box<Canonicalizer>>,
}

struct Noted {
    workspace: Box<str>,
    namespace: Box<str>,
    table: Arc<Table>,
}

impl Noted {
    /// Whether it is the one that a request means. Nearly always both workspaces are the root, and their bytes are compared only
    /// if there are some: see the comparison of `Workspace`s.
    #[inline]
    fn is_of(&self, space: &Space<'_>) -> bool {
        let workspace = space.workspace;
        *self.namespace == *space.namespace
            && self.workspace.len() == workspace.len()
            && (workspace.is_empty() || *self.workspace == *workspace)
            && self.table.kind() == space.kind
    }
}

impl Tables {
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self { store, noted: Vec::new(), blank: None, reading: None }
    }

    /// Whether [`get`](Self::get) would answer at once: the namespace is in memory, or known not to open.
    pub(super) fn is_ready(&mut self, space: &Space<'_>) -> bool {
        let here = |noted: &Noted| noted.is_of(space) && !noted.table.is_gone();
        if space.kind == Kind::Volatile || self.noted.iter().any(here) {
            return true;
        }
        space.place().is_err() || self.store.is_open(space.workspace, space.namespace)
    }

    /// The request is served: what had nothing in it is not held any more.
    pub(super) fn let_go(&mut self) {
        self.blank = None;
    }

    /// The namespace that a request means. Waits while it is being loaded.
    pub(super) fn get(&mut self, space: &Space<'_>) -> Result<&Arc<Table>, Fault> {
        self.noted.retain(|noted| !noted.table.is_gone());
        if let Some(at) = self.noted.iter().position(|noted| noted.is_of(space)) {
            // One step forward each time: the list sorts itself by use, and two that take turns do not jump about.
            let at = if at > 0 {
                self.noted.swap(at, at - 1);
                at - 1
            } else {
                0
            };
            return Ok(&self.noted[at].table);
        }
        let place = space.place()?;
        self.blank = None;
        // What was dropped is not held on to either, or its name in other letter case could not be had.
        self.noted.retain(|noted| !noted.table.is_dropped_for_good());
        let found = match space.kind {
            Kind::Persistent => self.store.namespace(&place),
            Kind::Volatile => self.store.volatile(&place),
        };
        let table = found.map_err(|error| Fault::from(&error))?;
        if self.noted.len() == MOST_NOTED {
            self.noted.pop();
        }
        if table.is_blank() && !table.is_volatile() {
            // Not held on to beyond the request: a name that was only asked for costs memory no longer than it must, and
            // keeps nobody from one in other letter case.
            return Ok(self.blank.insert(table));
        }
        self.noted.push(Noted { workspace: space.workspace.into(), namespace: space.namespace.into(), table });
        Ok(&self.noted[self.noted.len() - 1].table)
    }
}
