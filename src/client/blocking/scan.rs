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
    /// Where the page under way began.
    began: Option<Cursor>,
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
            began: None,
        }
    }

    /// Goes on after a cursor that an earlier scan, or [`scan_page`](Namespace::scan_page), gave.
    ///
    /// ```no_run
    /// # let client = commonhold::blocking::Client::connect("rag_storage")?;
    /// # let docs = client.namespace("full_docs")?;
    /// # let kept = String::from("3-1f-doc-12");
    /// for entry in docs.scan().after(kept.parse()?) {
    ///     println!("{}", entry?.key);
    /// }
    /// # Ok::<(), commonhold::blocking::Error>(())
    /// ```
    pub fn after(mut self, cursor: Cursor) -> Self {
        self.next = Next::After(cursor);
        self
    }

    /// Where to go on later, by [`after`](Self::after): at the beginning of the page under way, so records of it that
    /// were given already are given again. None is the beginning of the namespace.
    pub fn cursor(&self) -> Option<&Cursor> {
        match &self.next {
            Next::After(cursor) if self.entries.as_slice().is_empty() => Some(cursor),
            _ => self.began.as_ref(),
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
                    self.began = cursor.cloned();
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
