//! The names that cross every room: checked once, at the edge. Holding one means that it is valid.

use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};

use crate::limits::{MAX_KEY_BYTES, MAX_NAMESPACE_BYTES, MAX_WORKSPACE_BYTES};

/// A sequence number: given to each write request in commit order, never given twice, crashes included.
///
/// It is also the version of the records that the request wrote. [`Seq::ZERO`] is before every write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(wincode::SchemaRead, wincode::SchemaWrite))]
#[serde(transparent)]
pub struct Seq(pub u64);

impl Seq {
    /// Before every write.
    pub const ZERO: Self = Self(0);
    /// After every write.
    pub const MAX: Self = Self(u64::MAX);

    /// The Seq that follows this one; none follows [`MAX`](Self::MAX), which is never given.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Why a name was refused. The sentence tells the rule, so that it need not be looked up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name of a namespace breaks its rule.
    #[error("{}", Self::namespace_rule(name))]
    Namespace {
        /// The name as it was given, shortened when very long.
        name: String,
    },
    /// The name of a workspace breaks its rule.
    #[error("{}", Self::workspace_rule(name))]
    Workspace {
        /// The name as it was given, shortened when very long.
        name: String,
    },
    /// A key is longer than a request may carry.
    #[error(
        "a key of {bytes} bytes is too long: the limit is {MAX_KEY_BYTES} bytes; use a shorter one, as a hash of it"
    )]
    Key {
        /// The key's length.
        bytes: usize,
    },
}

impl NameError {
    pub(crate) fn namespace_rule(name: &str) -> String {
        format!(
            "{name:?} cannot name a namespace: a name has 1 to {MAX_NAMESPACE_BYTES} of the characters A-Z a-z 0-9 . _ - \
             and does not begin with a dot"
        )
    }

    pub(crate) fn workspace_rule(name: &str) -> String {
        format!(
            "{name:?} cannot name a workspace: a name is one path component of at most {MAX_WORKSPACE_BYTES} bytes, \
             without slash, backslash or NUL, is neither . nor .. and does not begin with .commonhold"
        )
    }
}

/// Longest piece of a refused name that is repeated in an error.
const SHOWN_CHARS: usize = 80;

/// The piece of a name or key that an error repeats: all of it, or its first 80 characters and an ellipsis.
pub fn shown(name: &str) -> String {
    if name.chars().count() <= SHOWN_CHARS {
        return name.to_owned();
    }
    let mut short: String = name.chars().take(SHOWN_CHARS).collect();
    short.push('…');
    short
}

/// The name of a namespace: `[A-Za-z0-9._-]{1,128}`, without a leading dot.
///
/// ```
/// use commonhold_proto::Namespace;
/// assert_eq!(Namespace::new("text_chunks")?.as_str(), "text_chunks");
/// assert!(Namespace::new("../etc/passwd").is_err());
/// # Ok::<(), commonhold_proto::NameError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(Box<str>);

impl Namespace {
    /// Checks `name`.
    ///
    /// # Errors
    /// [`NameError::Namespace`] tells the rule that the name breaks.
    pub fn new(name: &str) -> Result<Self, NameError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if name.is_empty() || name.len() > MAX_NAMESPACE_BYTES || name.starts_with('.') || !name.bytes().all(allowed) {
            return Err(NameError::Namespace { name: shown(name) });
        }
        Ok(Self(name.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The file that holds this namespace, inside its workspace: `kv_store_<name>.json`.
    pub fn file_name(&self) -> String {
        format!("kv_store_{}.json", self.0)
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the names of the daemon's own directories begin with.
const OWN_PREFIX: &str = ".commonhold";

/// The name of a workspace: any single path component except `.`, `..` and names that begin with `.commonhold` (in any
/// letter case); or the store's own directory, [`Workspace::root`], which has the empty name.
#[derive(Clone, Debug, Default, Eq, PartialOrd, Ord, Hash)]
#[expect(clippy::derived_hash_with_manual_eq, reason = "they are equal where the derived comparison finds them equal")]
pub struct Workspace(Box<str>);

impl PartialEq for Workspace {
    /// Nearly every comparison is of the root with itself. It never comes to comparing bytes: an empty box points nowhere,
    /// and C libraries with masked vector loads take some hundred cycles to compare no bytes at such an address.
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && (self.0.is_empty() || self.0 == other.0)
    }
}

impl Workspace {
    /// The store's own directory.
    pub fn root() -> Self {
        Self::default()
    }

    /// Checks `name`; the empty name is the root.
    ///
    /// # Errors
    /// [`NameError::Workspace`] tells the rule that the name breaks.
    pub fn new(name: &str) -> Result<Self, NameError> {
        // In any letter case: where the file system folds case, `.Commonhold` is the store's own directory too.
        let own = name.get(..OWN_PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(OWN_PREFIX));
        let trick = name == "." || name == ".." || own;
        if trick || name.len() > MAX_WORKSPACE_BYTES || name.contains(['/', '\\', '\0']) {
            return Err(NameError::Workspace { name: shown(name) });
        }
        Ok(Self(name.into()))
    }

    /// Whether this is the store's own directory.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The name; empty for the root.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Workspace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A namespace and the workspace it lies in: what identifies one ordered map of a store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The workspace.
    pub workspace: Workspace,
    /// The namespace.
    pub namespace: Namespace,
}

impl Place {
    /// Checks both names.
    ///
    /// # Errors
    /// [`NameError`] for the name that breaks its rule.
    pub fn new(workspace: &str, namespace: &str) -> Result<Self, NameError> {
        Ok(Self { workspace: Workspace::new(workspace)?, namespace: Namespace::new(namespace)? })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.workspace.is_root() {
            // A line break in a name is not to break a message; whoever needs the names themselves takes them one by one.
            for c in self.workspace.as_str().chars() {
                if c.is_control() { write!(f, "{}", c.escape_default())? } else { f.write_char(c)? }
            }
            f.write_char('/')?;
        }
        write!(f, "{}", self.namespace)
    }
}

/// Checks the length of a key that a request carries.
///
/// # Errors
/// [`NameError::Key`] above [`MAX_KEY_BYTES`].
pub fn check_key(key: &str) -> Result<(), NameError> {
    if key.len() > MAX_KEY_BYTES {
        return Err(NameError::Key { bytes: key.len() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_break_in_a_name_is_shown_as_an_escape() {
        let place = Place::new("a\n\u{1b}é", "n").expect("valid");
        assert_eq!(place.to_string(), "a\\n\\u{1b}é/n");
        assert_eq!(place.workspace.as_str(), "a\n\u{1b}é", "the name itself stays");
    }

    #[test]
    fn namespaces_are_plain_file_names_and_nothing_else() {
        for good in ["a", "text_chunks", "A-b.c_9", &"x".repeat(MAX_NAMESPACE_BYTES)] {
            assert!(Namespace::new(good).is_ok(), "{good}");
        }
        for bad in ["", ".hidden", "a/b", "a b", "é", "..", "a\0", &"x".repeat(MAX_NAMESPACE_BYTES + 1)] {
            assert!(Namespace::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn workspaces_cannot_leave_the_store_or_enter_its_own_directory() {
        for good in ["", "tenant_a", "with space", "租户", "a.b", "...", ".commonhol", ".租户的名字很长"] {
            assert!(Workspace::new(good).is_ok(), "{good}");
        }
        for bad in [".", "..", ".commonhold", ".commonhold-shared", ".CommonHold", "a/b", "a\\b", "/", "a\0b"] {
            assert!(Workspace::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_refused_name_is_repeated_only_in_part() {
        let error = Namespace::new(&"?".repeat(10_000)).expect_err("has a question mark");
        assert!(error.to_string().len() < 400);
    }
}
