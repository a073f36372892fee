//! A map from the numbers of requests, which this client gives itself: nobody else chooses them, so it needs no hasher that
//! withstands chosen keys, and a look-up costs a multiplication.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// What is kept by the number of a request.
pub(super) type IdMap<T> = HashMap<u64, T, BuildHasherDefault<IdHasher>>;

/// See the head of this file.
#[derive(Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    #[inline]
    fn write_u64(&mut self, id: u64) {
        // Spreads numbers that follow each other over the highest bits, which a map looks at first.
        self.0 = id.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only numbers of requests are looked up");
    }
}
