//! A namespace's records one by one, fetched page by page.

use std::vec;

use super::{Cursor, Entry, Error, Namespace};

/// The records of a namespace in insertion order: an iterator that fetches a page when it has none.
///
/// Records that are written while it runs may or may not be seen; one that is there all the time is seen once. After an
/// error it ends.
#[derive(Debug)]
#[must_use = "nothing is fetched before the first record is asked for"]
pub struct Scan {
    namespace: Namespace,
    prefix: String,
    values: bool,
    page: u32,
    entries: vec::IntoIter<Entry>,
    next: Next,
}

#[derive(Debug)]
enum Next {
    First,
    After(Cursor),
    End,
}

impl Scan {
    pub(super) fn new(namespace: Namespace) -> Self {
        Self {
            namespace,
            prefix: String::new(),
            values: true,
            page: 0,
            entries: Vec::new().into_iter(),
            next: Next::First,
        }
    }

    /// Only records whose keys begin so.
    pub fn prefix(mut self, prefix: &str) -> Self {
        prefix.clone_into(&mut self.prefix);
        self
    }

    /// Keys without values, which spares sending them: [`Entry::value`] is empty.
    pub fn keys_only(mut self) -> Self {
        self.values = false;
        self
    }

    /// At most so many records a page; 0, the default, leaves it to the daemon, which bounds a page by its bytes.
    pub fn page(mut self, records: u32) -> Self {
        self.page = records;
        self
    }
}

impl Iterator for Scan {
    type Item = Result<Entry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.entries.next() {
                return Some(Ok(entry));
            }
            let cursor = match &self.next {
                Next::First => None,
                Next::After(cursor) => Some(cursor),
                Next::End => return None,
            };
            match self.namespace.scan_page(cursor, &self.prefix, self.page, self.values) {
                Ok(page) => {
                    self.entries = page.entries.into_iter();
                    self.next = page.next.map_or(Next::End, Next::After);
                }
                Err(error) => {
                    self.next = Next::End;
                    return Some(Err(error));
                }
            }
        }
    }
}

impl std::iter::FusedIterator for Scan {}
