//! What an object that stands for an update flag knows of it, the same for every driver.
//!
//! The daemon keeps one flag for a session and namespace. Several objects of one client, as of two libraries in one process, must
//! not clear each other's: so each remembers the flag word that it has cleared itself, and which connection that was on.
//! Words of another connection mean nothing; what was missed between the two is not known, so the flag is set then.

use parking_lot::Mutex;

use super::core::Reply;
use super::error::Error;
use super::near::SharedFlag;
use super::read;

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Cleared(Mutex<Known>);

#[derive(Debug)]
struct Known {
    cleared: Option<At>,
    /// Where the word can be looked at without asking, and the connection on which that was learned.
    shared: Option<(SharedFlag, u64)>,
}

impl Known {
    fn is_set(&self, now: At) -> bool {
        match self.cleared {
            // Words only rise. One that is told late, or moved and not shared yet, says nothing new.
            Some(cleared) if cleared.connection == now.connection => now.word % 2 == 1 && now.word > cleared.word,
            _ => true,
        }
    }
}

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

    /// The number of the connection on which the word was told.
    pub(super) fn connection(self) -> u64 {
        self.connection
    }
}

impl Cleared {
    /// Of a flag that begins cleared.
    pub(super) fn at(at: At) -> Self {
        Self(Mutex::new(Known { cleared: Some(at), shared: None }))
    }

    /// Of a flag of which nothing is known.
    pub(super) fn unknown() -> Self {
        Self(Mutex::new(Known { cleared: None, shared: None }))
    }

    /// Whether the flag is set, by what was told just now.
    pub(super) fn is_set(&self, now: At) -> bool {
        self.0.lock().is_set(now)
    }

    /// Whether the flag is set, by the shared word; none if that cannot be told without asking.
    #[inline]
    pub(super) fn look(&self) -> Option<bool> {
        let known = self.0.lock();
        let (shared, connection) = known.shared.as_ref()?;
        let now = At { connection: *connection, word: shared.word()? };
        Some(known.is_set(now))
    }

    /// The word can be looked at here from now on.
    pub(super) fn share(&self, at: At, shared: Option<SharedFlag>) {
        self.0.lock().shared = shared.map(|shared| (shared, at.connection()));
    }

    /// All that was told until now has been seen. A clearing that was begun earlier does not take back a later one.
    pub(super) fn clear(&self, now: At) {
        let mut known = self.0.lock();
        if known.cleared.is_none_or(|cleared| (cleared.connection, cleared.word) <= (now.connection, now.word)) {
            known.cleared = Some(now);
        }
    }

    /// It is set until it is cleared.
    pub(super) fn set(&self) {
        self.0.lock().cleared = None;
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
