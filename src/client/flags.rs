//! What an object that stands for an update flag knows of it, the same for every driver.
//!
//! The daemon keeps one flag for a session and namespace. Several objects of one client, as of two libraries in one process, must
//! not clear each other's: so each remembers the flag word that it has cleared itself, and which connection that was on.
//! Words of another connection mean nothing; what was missed between the two is not known, so the flag is set then.

use parking_lot::Mutex;

use super::core::Reply;
use super::error::Error;
use super::read;

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Cleared(Mutex<Option<At>>);

/// A flag word, and the number of the connection on which it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At {
    connection: u64,
    word: u64,
}

impl At {
    pub(super) fn read(reply: &Reply) -> Result<Self, Error> {
        Ok(Self { connection: reply.connection(), word: read::flag(reply)?.1 })
    }
}

impl Cleared {
    /// Of a flag that begins cleared.
    pub(super) fn at(at: At) -> Self {
        Self(Mutex::new(Some(at)))
    }

    /// Of a flag of which nothing is known.
    pub(super) fn unknown() -> Self {
        Self(Mutex::new(None))
    }

    /// Whether the flag is set, by what was told just now.
    pub(super) fn is_set(&self, now: At) -> bool {
        match *self.0.lock() {
            Some(cleared) if cleared.connection == now.connection => now.word % 2 == 1 && now.word != cleared.word,
            _ => true,
        }
    }

    /// All that was told until now has been seen. A clearing that was begun earlier does not take back a later one.
    pub(super) fn clear(&self, now: At) {
        let mut cleared = self.0.lock();
        if cleared.is_none_or(|cleared| (cleared.connection, cleared.word) <= (now.connection, now.word)) {
            *cleared = Some(now);
        }
    }

    /// It is set until it is cleared.
    pub(super) fn set(&self) {
        *self.0.lock() = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_is_set_by_a_later_odd_word_and_by_another_connection() {
        let at = |connection, word| At { connection, word };
        let flag = Cleared::at(at(0, 4));
        assert!(!flag.is_set(at(0, 4)) && flag.is_set(at(0, 5)) && !flag.is_set(at(0, 6)));
        flag.clear(at(0, 7));
        assert!(!flag.is_set(at(0, 7)) && flag.is_set(at(0, 9)));
        // A daemon that was restarted counts from 0, and one that was not may have moved on: what was missed is not known.
        for word in [0, 7, 8] {
            assert!(flag.is_set(at(1, word)));
        }
        flag.clear(at(1, 1));
        assert!(!flag.is_set(at(1, 1)));
        flag.clear(at(0, 11));
        assert!(!flag.is_set(at(1, 1)), "an answer that came late takes nothing back");
        flag.set();
        assert!(flag.is_set(at(1, 1)) && flag.is_set(at(1, 2)));
    }
}
