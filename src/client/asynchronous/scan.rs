//! A namespace's records one by one, fetched page by page.

use std::vec;

use super::{Cursor, Entry, Error, Namespace};
use crate::client::paging::Paging;

/// The records of a namespace in insertion order; [`next`](Self::next) fetches a page when it has none.
///
/// Records that are written while it runs may or may not be seen; one that is there all the time is seen once. After an
/// error it ends.
#[derive(Debug)]
#[must_use = "nothing is fetched before the first record is asked for"]
pub struct Scan {
    namespace: Namespace,
    paging: Paging,
    entries: vec::IntoIter<Entry>,
}

impl Scan {
    pub(super) fn new(namespace: Namespace) -> Self {
        Self { namespace, paging: Paging::default(), entries: Vec::new().into_iter() }
    }

    /// Goes on after a cursor that an earlier scan, or [`scan_page`](Namespace::scan_page), gave.
    pub fn after(mut self, cursor: Cursor) -> Self {
        self.paging.go_on_after(cursor);
        self
    }

    /// Only records whose keys begin so.
    pub fn prefix(mut self, prefix: &str) -> Self {
        prefix.clone_into(&mut self.paging.prefix);
        self
    }

    /// Keys without values, which spares sending them: [`Entry::value`] is empty.
    pub fn keys_only(mut self) -> Self {
        self.paging.values = false;
        self
    }

    /// At most so many records a page; 0, the default, leaves it to the daemon, which bounds a page by its bytes.
    pub fn page(mut self, records: u32) -> Self {
        self.paging.page = records;
        self
    }

    /// Where to go on later, by [`after`](Self::after): at the beginning of the page under way, so records of it that
    /// were given already are given again. None is the beginning of the namespace.
    pub fn cursor(&self) -> Option<&Cursor> {
        self.paging.cursor(self.entries.as_slice().is_empty())
    }

    /// The next record; none is the end. Dropping its future loses nothing.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), commonhold::Error> {
    /// # let client = commonhold::Client::connect("rag_storage").await?;
    /// let mut docs = client.namespace("full_docs")?.scan().prefix("doc-");
    /// while let Some(entry) = docs.next().await {
    ///     println!("{}", entry?.key);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn next(&mut self) -> Option<Result<Entry, Error>> {
        loop {
            if let Some(entry) = self.entries.next() {
                return Some(Ok(entry));
            }
            let Paging { prefix, page, values, .. } = &self.paging;
            let fetched = self.namespace.scan_page(self.paging.next()?, prefix, *page, *values).await;
            match self.paging.fetched(fetched) {
                Ok(entries) => self.entries = entries.into_iter(),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
