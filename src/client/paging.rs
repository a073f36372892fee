//! How far a scan is: which page comes next, and where it could go on later. The same for every driver.

use super::error::Error;
use super::values::{Cursor, Entry, Page};

/// A scan between two pages.
#[derive(Debug)]
pub(super) struct Paging {
    pub(super) prefix: String,
    pub(super) values: bool,
    pub(super) page: u32,
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

impl Default for Paging {
    fn default() -> Self {
        Self { prefix: String::new(), values: true, page: 0, next: Next::First, began: None }
    }
}

impl Paging {
    pub(super) fn go_on_after(&mut self, cursor: Cursor) {
        self.began = Some(cursor.clone());
        self.next = Next::After(cursor);
    }

    /// The cursor of the next page, none within for the first; none is the end.
    #[expect(clippy::option_option, reason = "the end, the beginning, and a place between them")]
    pub(super) fn next(&self) -> Option<Option<&Cursor>> {
        match &self.next {
            Next::First => Some(None),
            Next::After(cursor) => Some(Some(cursor)),
            Next::End => None,
        }
    }

    /// Takes the page that was fetched; an error is the end.
    pub(super) fn fetched(&mut self, page: Result<Page, Error>) -> Result<Vec<Entry>, Error> {
        let next = match &page {
            Ok(Page { next: Some(next), .. }) => Next::After(next.clone()),
            _ => Next::End,
        };
        if let Next::After(cursor) = std::mem::replace(&mut self.next, next) {
            self.began = Some(cursor);
        }
        page.map(|page| page.entries)
    }

    /// Where to go on so that no record that was not `all_given` is passed over.
    pub(super) fn cursor(&self, all_given: bool) -> Option<&Cursor> {
        match &self.next {
            Next::After(cursor) if all_given => Some(cursor),
            _ => self.began.as_ref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use commonhold_proto::Seq;

    use super::*;

    fn cursor(text: &str) -> Cursor {
        text.parse().unwrap()
    }

    fn page(next: Option<&str>) -> Page {
        Page { entries: Vec::new(), next: next.map(cursor), seq: Seq(1) }
    }

    #[test]
    fn a_scan_that_is_given_up_goes_on_with_the_page_that_was_under_way() {
        let mut paging = Paging::default();
        assert_eq!((paging.next(), paging.cursor(true)), (Some(None), None));
        paging.fetched(Ok(page(Some("1-1-a")))).unwrap();
        assert_eq!((paging.cursor(false), paging.cursor(true)), (None, Some(&cursor("1-1-a"))));
        paging.fetched(Ok(page(Some("1-2-b")))).unwrap();
        assert_eq!((paging.cursor(false), paging.cursor(true)), (Some(&cursor("1-1-a")), Some(&cursor("1-2-b"))));
        paging.fetched(Ok(page(None))).unwrap();
        assert_eq!((paging.next(), paging.cursor(true)), (None, Some(&cursor("1-2-b"))));
    }

    #[test]
    fn an_error_ends_a_scan_and_tells_where_it_was() {
        let mut paging = Paging::default();
        paging.go_on_after(cursor("1-1-a"));
        assert!(paging.fetched(Err(Error::Forked)).is_err());
        assert_eq!((paging.next(), paging.cursor(true)), (None, Some(&cursor("1-1-a"))));
    }
}
