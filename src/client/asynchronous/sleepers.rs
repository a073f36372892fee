//! Who sleeps until a request is settled, and until when at most.
//!
//! A timer for each request would be put among the runtime's and taken out again, under a lock of all its threads, and nearly
//! none ever goes off. So there is one for all, the alarm, which the drivers set: it goes off at the first deadline of those
//! who slept when it was set, and is not set back when they are answered before.

use std::task::Waker;
use std::time::Instant;

use crate::client::ids::IdMap;

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Sleepers {
    by_id: IdMap<Sleeper>,
    /// No deadline is earlier.
    alarm: Option<Instant>,
}

#[derive(Debug)]
struct Sleeper {
    waker: Waker,
    /// None if there is none, or if the sleeper looks at its own clock.
    deadline: Option<Instant>,
}

/// What the runtime's timers go by, which in a test may be another clock than the system's.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

pub(super) fn has_passed(deadline: Instant) -> bool {
    deadline <= now()
}

/// Who is to be woken when the lock is free again.
#[must_use]
#[derive(Default)]
pub(super) struct Woken(Vec<Waker>);

impl Woken {
    pub(super) fn add(&mut self, sleepers: &mut Sleepers, id: u64) {
        self.0.extend(sleepers.remove(id));
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    pub(super) fn wake(self) {
        self.0.into_iter().for_each(Waker::wake);
    }
}

impl Sleepers {
    /// Whether the drivers must be told of this deadline.
    pub(super) fn is_first(&self, deadline: Instant) -> bool {
        self.alarm.is_none_or(|alarm| deadline < alarm)
    }

    /// Panics as timers do where the runtime has none, if one will be needed for this deadline: in a driver, nobody would see that.
    pub(super) fn check_timers(&self, deadline: Option<Instant>) {
        if let Some(deadline) = deadline.filter(|&deadline| self.is_first(deadline)) {
            drop(tokio::time::sleep_until(deadline.into()));
        }
    }

    /// Answers who slept for this request before: to be dropped where no lock is held.
    pub(super) fn add(&mut self, id: u64, waker: Waker, deadline: Option<Instant>) -> Option<Waker> {
        if let Some(deadline) = deadline.filter(|&deadline| self.is_first(deadline)) {
            self.alarm = Some(deadline);
        }
        self.by_id.insert(id, Sleeper { waker, deadline }).map(|sleeper| sleeper.waker)
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<Waker> {
        self.by_id.remove(&id).map(|sleeper| sleeper.waker)
    }

    pub(super) fn take_all(&mut self) -> Woken {
        Woken(self.by_id.drain().map(|(_, sleeper)| sleeper.waker).collect())
    }

    /// Takes those whose time is up, and answers when to look again.
    pub(super) fn take_late(&mut self, now: Instant) -> (Woken, Option<Instant>) {
        if self.alarm.is_none_or(|alarm| now < alarm) {
            return (Woken::default(), self.alarm);
        }
        let is_late = |sleeper: &Sleeper| sleeper.deadline.is_some_and(|deadline| deadline <= now);
        let late = self.by_id.extract_if(|_, sleeper| is_late(sleeper)).map(|(_, sleeper)| sleeper.waker).collect();
        self.alarm = self.by_id.values().filter_map(|sleeper| sleeper.deadline).min();
        (Woken(late), self.alarm)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_alarm_is_never_later_than_a_deadline_and_wakes_those_who_are_late() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut sleepers = Sleepers::default();
        let add = |sleepers: &mut Sleepers, id, seconds: Option<u64>| {
            assert!(sleepers.add(id, Waker::noop().clone(), seconds.map(at)).is_none());
        };
        add(&mut sleepers, 1, None);
        let (late, next) = sleepers.take_late(at(9));
        assert_eq!((late.count(), next), (0, None), "who has no deadline is never late");
        assert!(sleepers.is_first(at(5)));
        add(&mut sleepers, 2, Some(5));
        assert!(!sleepers.is_first(at(5)) && !sleepers.is_first(at(7)) && sleepers.is_first(at(4)));
        add(&mut sleepers, 3, Some(7));
        add(&mut sleepers, 4, Some(4));
        assert!(sleepers.remove(4).is_some());
        let (late, next) = sleepers.take_late(at(3));
        assert_eq!((late.count(), next), (0, Some(at(4))), "it goes off for one who is gone");
        let (late, next) = sleepers.take_late(at(4));
        assert_eq!((late.count(), next), (0, Some(at(5))));
        let (late, next) = sleepers.take_late(at(7));
        assert_eq!((late.count(), next), (2, None));
        assert!(sleepers.remove(3).is_none() && sleepers.remove(1).is_some());
    }
}
