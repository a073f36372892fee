//! The bytes of a simulated file, in pages that copies share until one of them writes: an image of a whole disk costs a
//! reference a file.

use std::hash::Hasher;
use std::sync::Arc;

const PAGE_BYTES: usize = 4096;

type Page = Arc<[u8; PAGE_BYTES]>;

/// A file's size and bytes. A page that is not there reads as zeros, and so does everything of a page beyond the size.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    bytes: u64,
    pages: Arc<Vec<Option<Page>>>,
}

impl Content {
    pub(super) fn new(bytes: &[u8]) -> Self {
        let mut content = Self::default();
        content.write_at(bytes, 0);
        content
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut all = vec![0; self.bytes as usize];
        self.read_at(&mut all, 0);
        all
    }

    /// Feeds size and bytes to a hash. A hole and a page of zeros are the same.
    pub(super) fn hash_into(&self, hasher: &mut impl Hasher) {
        hasher.write_u64(self.bytes);
        for (number, page) in self.pages.iter().enumerate() {
            if let Some(page) = page.as_ref().filter(|page| page.iter().any(|byte| *byte != 0)) {
                hasher.write_usize(number);
                hasher.write(&page[..]);
            }
        }
    }

    /// Fills `buffer` as far as there are bytes.
    pub(super) fn read_at(&self, buffer: &mut [u8], offset: u64) -> usize {
        let got = (self.bytes.saturating_sub(offset)).min(buffer.len() as u64) as usize;
        for (at, length, range) in pieces(offset, got) {
            let target = &mut buffer[range];
            match self.pages.get(at / PAGE_BYTES).and_then(Option::as_ref) {
                Some(page) => target.copy_from_slice(&page[at % PAGE_BYTES..][..length]),
                None => target.fill(0),
            }
        }
        got
    }

    pub(super) fn write_at(&mut self, bytes: &[u8], offset: u64) {
        for (at, length, range) in pieces(offset, bytes.len()) {
            self.write_in_page(at, length, &bytes[range]);
        }
        if !bytes.is_empty() {
            self.bytes = self.bytes.max(offset + bytes.len() as u64);
        }
    }

    pub(super) fn set_len(&mut self, bytes: u64) {
        if bytes < self.bytes {
            let kept = (bytes as usize).div_ceil(PAGE_BYTES);
            if kept < self.pages.len() {
                Arc::make_mut(&mut self.pages).truncate(kept);
            }
            let in_last = bytes as usize % PAGE_BYTES;
            if in_last > 0 {
                self.write_in_page(bytes as usize, PAGE_BYTES - in_last, &[0; PAGE_BYTES][in_last..]);
            }
        }
        self.bytes = bytes;
    }

    fn write_in_page(&mut self, at: usize, length: usize, bytes: &[u8]) {
        let number = at / PAGE_BYTES;
        let hole = self.pages.get(number).is_none_or(Option::is_none);
        if hole && bytes.iter().all(|byte| *byte == 0) {
            return; // a file filled with zeros ahead of its use stays a hole
        }
        let pages = Arc::make_mut(&mut self.pages);
        if pages.len() <= number {
            pages.resize(number + 1, None);
        }
        let page = pages[number].get_or_insert_with(|| Arc::new([0; PAGE_BYTES]));
        Arc::make_mut(page)[at % PAGE_BYTES..][..length].copy_from_slice(bytes);
    }
}

/// Cuts `length` bytes at `offset` at page borders: position in the file, length, and range in the caller's bytes.
fn pieces(offset: u64, length: usize) -> impl Iterator<Item = (usize, usize, std::ops::Range<usize>)> {
    let start = offset as usize;
    let mut done = 0;
    std::iter::from_fn(move || {
        (done < length).then(|| {
            let at = start + done;
            let piece = (PAGE_BYTES - at % PAGE_BYTES).min(length - done);
            let range = done..done + piece;
            done += piece;
            (at, piece, range)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_share_pages_until_one_of_them_writes() {
        let mut first = Content::new(&[1; 3 * PAGE_BYTES]);
        let second = first.clone();
        first.write_at(&[2], PAGE_BYTES as u64);
        assert!(Arc::ptr_eq(first.pages[0].as_ref().unwrap(), second.pages[0].as_ref().unwrap()));
        assert_eq!((first.to_vec()[PAGE_BYTES], second.to_vec()[PAGE_BYTES]), (2, 1));
    }

    #[test]
    fn what_was_cut_off_reads_as_zeros_when_the_file_grows_again() {
        let mut content = Content::new(&[7; 5000]);
        content.set_len(4100);
        content.set_len(5000);
        let bytes = content.to_vec();
        assert!(bytes[..4100].iter().all(|byte| *byte == 7) && bytes[4100..].iter().all(|byte| *byte == 0));
        content.set_len(0);
        content.write_at(b"x", 2);
        assert_eq!(content.to_vec(), b"\0\0x");
    }

    #[test]
    fn zeros_ahead_take_no_room() {
        let mut content = Content::default();
        content.write_at(&vec![0; 64 * 1024], 0);
        assert_eq!((content.bytes(), content.pages.len()), (64 * 1024, 0));
    }
}
