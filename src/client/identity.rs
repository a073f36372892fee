//! A client's own random number, which the daemon keeps with its writes so that it recognises a repeated one.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::SystemTime;

/// A number that no other client has, with the certainty of 128 random bits.
///
/// Made of std's per-process hash keys, which come from the operating system, so that the client needs no crate for it.
/// The process id and the time keep a forked child, which inherits the keys, apart from its parent.
pub(super) fn random_client_id() -> u128 {
    let half = |which: u8| {
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u8(which);
        hasher.write_u32(std::process::id());
        if let Ok(since) = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
            hasher.write_u128(since.as_nanos());
        }
        u128::from(hasher.finish())
    };
    half(1) << 64 | half(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_clients_are_the_same() {
        let ids: std::collections::HashSet<_> = (0..1_000).map(|_| random_client_id()).collect();
        assert_eq!(ids.len(), 1_000);
    }
}
