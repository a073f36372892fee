//! A session's own note of the namespaces it uses, so that a request for one it has used before costs neither a
//! checked name nor a look into the store's shared list.

use std::sync::Arc;

use crate::engine::{Store, Table};
use crate::proto::{Fault, Kind, Space};

/// A session that uses more namespaces than this looks the others up in the store each time.
const MOST_NOTED: usize = 64;

/// The namespaces that a session has used, the busy ones in front.
pub(super) struct Tables {
    store: Arc<Store>,
    noted: Vec<Noted>,
}

struct Noted {
    workspace: Box<str>,
    namespace: Box<str>,
    table: Arc<Table>,
}

impl Tables {
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self { store, noted: Vec::new() }
    }

    /// The namespace that a request means. Waits while it is being loaded.
    pub(super) fn get(&mut self, space: &Space<'_>) -> Result<&Arc<Table>, Fault> {
        if space.kind != Kind::Persistent {
            return Err(Fault::Unsupported { what: "kind of namespace".to_owned(), tag: 1 });
        }
        let here = |noted: &Noted| *noted.namespace == *space.namespace && *noted.workspace == *space.workspace;
        if let Some(at) = self.noted.iter().position(here) {
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
        let table = self.store.namespace(&place).map_err(|error| Fault::from(&error))?;
        if self.noted.len() == MOST_NOTED {
            self.noted.pop();
        }
        self.noted.push(Noted { workspace: space.workspace.into(), namespace: space.namespace.into(), table });
        Ok(&self.noted[self.noted.len() - 1].table)
    }
}
