//! Time as the engine sees it: passed in, so that a test can turn it by hand instead of waiting for it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

/// Where the engine reads the time.
pub trait Clock: Send + Sync {
    /// Milliseconds since 1970 in UTC. May jump, also backwards: for people and file names only.
    fn unix_ms(&self) -> u64;

    /// Time since some fixed moment. Never goes backwards: for intervals and deadlines.
    fn now(&self) -> Duration;
}

/// The machine's own time.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// A clock whose [`now`](Clock::now) counts from this call.
    pub fn new() -> Self {
        Self { started: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn unix_ms(&self) -> u64 {
        // A machine whose clock stands before 1970 gets 1970.
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }
}

/// A clock that stands still until a test moves it. Clones are the same clock.
#[derive(Clone, Debug, Default)]
pub struct ManualClock {
    times: Arc<Mutex<Times>>,
}

#[derive(Debug, Default)]
struct Times {
    unix_ms: u64,
    now: Duration,
}

impl ManualClock {
    /// A clock that shows `unix_ms`.
    pub fn new(unix_ms: u64) -> Self {
        Self { times: Arc::new(Mutex::new(Times { unix_ms, now: Duration::ZERO })) }
    }

    /// Lets time pass, on both of its readings.
    pub fn advance(&self, by: Duration) {
        let mut times = self.times.lock();
        times.unix_ms = times.unix_ms.saturating_add(by.as_millis() as u64);
        times.now += by;
    }

    /// Sets the wall clock only, as an administrator does.
    pub fn set_unix_ms(&self, unix_ms: u64) {
        self.times.lock().unix_ms = unix_ms;
    }
}

impl Clock for ManualClock {
    fn unix_ms(&self) -> u64 {
        self.times.lock().unix_ms
    }

    fn now(&self) -> Duration {
        self.times.lock().now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_by_hand_and_its_clones_move_with_it() {
        let clock = ManualClock::new(1_000);
        let other = clock.clone();
        other.advance(Duration::from_secs(2));
        assert_eq!((clock.unix_ms(), clock.now()), (3_000, Duration::from_secs(2)));
        clock.set_unix_ms(5);
        assert_eq!((other.unix_ms(), other.now()), (5, Duration::from_secs(2)));
    }

    #[test]
    fn the_system_clock_knows_the_century_and_does_not_run_backwards() {
        let clock = SystemClock::new();
        let first = clock.now();
        assert!(clock.now() >= first);
        assert!(clock.unix_ms() > 1_700_000_000_000);
    }
}
