//! What the workers fight for: single keys of all kinds, and groups of keys that only change together.

use commonhold::blocking::{Client, Error, Namespace};

/// How an object lies in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One key, changed by every verb.
    Key,
    /// One key, mostly raised.
    Tally,
    /// One key of a volatile namespace, gone with each daemon.
    Volatile,
    /// The same keys in each namespace, always written together and with one stamp.
    Group,
    /// As a group, and alone in its namespace, which is also cleared and dropped.
    Wiped,
}

/// Something that is written and read as one. A history is checked for each object alone.
pub(crate) struct Object {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// Workspace and namespace.
    pub(crate) spaces: &'static [(&'static str, &'static str)],
    pub(crate) keys: &'static [&'static str],
}

const fn key(
    name: &'static str,
    space: &'static [(&'static str, &'static str)],
    key: &'static [&'static str],
) -> Object {
    Object { name, kind: Kind::Key, spaces: space, keys: key }
}

pub(crate) const OBJECTS: &[Object] = &[
    key("chunks/a", &[("", "chunks")], &["a"]),
    key("chunks/b", &[("", "chunks")], &["b"]),
    key("docs/a", &[("", "docs")], &["a"]),
    key("tenant_a/chunks/a", &[("tenant_a", "chunks")], &["a"]),
    Object { name: "tallies/a", kind: Kind::Tally, spaces: &[("", "tallies")], keys: &["a"] },
    Object { name: "fleeting/a", kind: Kind::Volatile, spaces: &[("", "fleeting")], keys: &["a"] },
    Object {
        name: "group",
        kind: Kind::Group,
        spaces: &[("", "chunks"), ("tenant_a", "docs")],
        keys: &["group-1", "group-2", "group-3", "group-4", "group-5"],
    },
    Object {
        name: "scratch",
        kind: Kind::Wiped,
        spaces: &[("", "scratch")],
        keys: &["s-1", "s-2", "s-3", "s-4", "s-5", "s-6"],
    },
];

/// The name under which what concerns the whole store is recorded.
pub(crate) const STORE: &str = "store";

/// The object of a name.
pub(crate) fn object(name: &str) -> Option<&'static Object> {
    OBJECTS.iter().find(|object| object.name == name)
}

impl Object {
    pub(crate) fn is_volatile(&self) -> bool {
        self.kind == Kind::Volatile
    }

    /// How many records it has when it is there.
    pub(crate) fn records(&self) -> u64 {
        (self.spaces.len() * self.keys.len()) as u64
    }

    /// Its namespaces, as a client sees them.
    pub(crate) fn namespaces(&self, client: &Client) -> Result<Vec<Namespace>, Error> {
        let open = |(workspace, name): &(&str, &str)| {
            let namespace = match *workspace {
                "" => client.namespace(name)?,
                _ => client.workspace(workspace)?.namespace(name)?,
            };
            Ok(if self.is_volatile() { namespace.volatile() } else { namespace })
        };
        self.spaces.iter().map(open).collect()
    }
}
