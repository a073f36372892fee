//! The unsafe code of the version table: mapping a file, and a page that a fork wipes.
//!
//! A mapping is only ever seen as `&[AtomicU64]`: what another process writes there meanwhile is what atomics are for. It
//! ends with its [`Mapping`], which hands out no reference that outlives it. That a page of it could be missing (SIGBUS) is
//! kept out by whoever opens the file: it has all its blocks from the start, lies in memory, and nobody shortens it.
#![cfg_attr(target_os = "linux", expect(unsafe_code, reason = "memory that processes share cannot be mapped without"))]

use std::fs::File;
use std::io;
use std::sync::atomic::AtomicU64;

/// What may be done with a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Loads only: a store would end the process.
    Read,
    /// Loads and stores.
    #[cfg(feature = "daemon")]
    Write,
}

#[cfg(target_os = "linux")]
mod linux {
    use std::ffi::c_void;
    use std::ptr::{NonNull, null_mut};

    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

    use super::{Access, AtomicU64, File, io};

    /// A file's first bytes, shared with every process that maps it.
    #[derive(Debug)]
    pub(in crate::versions) struct Mapping {
        start: NonNull<AtomicU64>,
        words: usize,
    }

    // SAFETY: it is memory that belongs to no thread, reached through atomics only, and freed once, by the drop of the owner.
    unsafe impl Send for Mapping {}
    // SAFETY: as above: all that a shared reference gives is `&[AtomicU64]`.
    unsafe impl Sync for Mapping {}

    impl Mapping {
        /// Maps the first `bytes` of a file, which must have them allocated for as long as the mapping lives.
        pub(in crate::versions) fn of(file: &File, bytes: usize, access: Access) -> io::Result<Self> {
            let words = bytes / size_of::<AtomicU64>();
            if words == 0 {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            let protection = match access {
                Access::Read => ProtFlags::READ,
                #[cfg(feature = "daemon")]
                Access::Write => ProtFlags::READ | ProtFlags::WRITE,
            };
            // SAFETY: no address is asked for, so nothing that is in use is mapped over.
            let start = unsafe { mmap(null_mut(), bytes, protection, MapFlags::SHARED, file, 0)? };
            let start = NonNull::new(start.cast::<AtomicU64>()).ok_or(io::ErrorKind::InvalidData)?;
            Ok(Self { start, words })
        }

        /// Its words. A mapping that is read-only has loads alone done to them: 64-bit loads are plain loads, which such a
        /// page allows.
        pub(in crate::versions) fn words(&self) -> &[AtomicU64] {
            // SAFETY: `of` has mapped so many words there, a page is aligned for them, any bits are a good u64, and they stay
            // mapped until the drop, which the borrow of `self` rules out.
            unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.words) }
        }
    }

    impl Drop for Mapping {
        fn drop(&mut self) {
            let bytes = self.words * size_of::<AtomicU64>();
            // SAFETY: exactly what `of` has mapped, which nobody borrows any more.
            let _ = unsafe { munmap(self.start.as_ptr().cast::<c_void>(), bytes) };
        }
    }

    /// See [`wiped_at_fork`](super::wiped_at_fork).
    pub(super) fn wiped_word() -> Option<&'static AtomicU64> {
        const PAGE: usize = 4_096;
        // SAFETY: no address is asked for, so nothing that is in use is mapped over.
        let page = unsafe { mmap_anonymous(null_mut(), PAGE, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE) };
        let page = NonNull::new(page.ok()?)?;
        // SAFETY: it is the page that was just mapped; in this process the advice changes nothing of its content.
        if unsafe { madvise(page.as_ptr(), PAGE, Advice::LinuxWipeOnFork) }.is_err() {
            // SAFETY: as above, and nothing has been made of it yet.
            let _ = unsafe { munmap(page.as_ptr(), PAGE) };
            return None;
        }
        // SAFETY: it is zeroed, aligned, large enough, and never unmapped: it lives as long as the process.
        Some(unsafe { page.cast::<AtomicU64>().as_ref() })
    }
}

#[cfg(target_os = "linux")]
pub(super) use linux::Mapping;

/// There is none elsewhere.
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
pub(super) enum Mapping {}

#[cfg(not(target_os = "linux"))]
impl Mapping {
    pub(super) fn of(_file: &File, _bytes: usize, _access: Access) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn words(&self) -> &[AtomicU64] {
        match *self {}
    }
}

/// A word that is 0 when the process begins and, whatever was stored there, in every child that it forks. None where the
/// system has no such memory.
pub fn wiped_at_fork() -> Option<&'static AtomicU64> {
    #[cfg(target_os = "linux")]
    {
        static WORD: std::sync::OnceLock<Option<&'static AtomicU64>> = std::sync::OnceLock::new();
        *WORD.get_or_init(linux::wiped_word)
    }
    #[cfg(not(target_os = "linux"))]
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn what_one_mapping_stores_the_other_loads() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4_096).unwrap();
        #[cfg(feature = "daemon")]
        {
            let writer = Mapping::of(&file, 4_096, Access::Write).unwrap();
            let reader = Mapping::of(&file, 4_096, Access::Read).unwrap();
            assert_eq!(reader.words().len(), 512);
            writer.words()[511].store(7, Ordering::Release);
            assert_eq!(reader.words()[511].load(Ordering::Acquire), 7);
        }
        assert!(Mapping::of(&file, 0, Access::Read).is_err());
    }
}
