//! How long a request may take, and what is told when it took longer: the same for every driver.

use std::time::{Duration, Instant};

use super::core::GivenUp;
use super::error::Error;

/// When a request was begun, and when it ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) began: Instant,
    pub(super) deadline: Option<Instant>,
}

impl Limits {
    pub(super) fn starting_now(timeout: Option<Duration>) -> Self {
        let began = Instant::now();
        Self { began, deadline: timeout.and_then(|timeout| began.checked_add(timeout)) }
    }

    /// As long, and `more`.
    pub(super) fn and(&self, more: Duration) -> Self {
        Self { began: self.began, deadline: self.deadline.and_then(|deadline| deadline.checked_add(more)) }
    }

    /// What there was at the beginning, none is for ever.
    pub(super) fn whole(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(self.began))
    }

    /// What is left, none is for ever.
    pub(super) fn left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    pub(super) fn passed(&self) -> bool {
        self.left() == Some(Duration::ZERO)
    }

    /// What a caller is told whose request was given up.
    pub(super) fn given_up(&self, how: GivenUp) -> Error {
        let waited = self.began.elapsed();
        match how {
            GivenUp::Unsent => Error::TimedOut { waited, waiting_for: "the request to be sent; it was not" },
            GivenUp::Read => Error::TimedOut { waited, waiting_for: "the daemon's answer" },
            GivenUp::Unknown => Error::unknown(format!("no answer came within {} ms", waited.as_millis())),
        }
    }
}

/// The daemon is told a little less than the caller waits, so that its answer that the time is up arrives in time.
pub(super) fn deadline_ms(timeout: Option<Duration>) -> u32 {
    let Some(timeout) = timeout else { return 0 };
    let told = timeout.as_millis() / 16 * 15;
    u32::try_from(told).unwrap_or(u32::MAX).max(1)
}
