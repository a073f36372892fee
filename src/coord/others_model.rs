//! Slots and elections against naive models, and what a flag says: random sessions ask, give back, cancel and die.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use commonhold_proto::Place;

use super::*;

const NAMES: [&str; 3] = ["a", "b", "c"];
const SESSIONS: u64 = 5;

/// Slots that are had or waited for, in the order they were asked for.
#[derive(Clone, Debug)]
struct Ask {
    wait: WaitId,
    session: u64,
    name: &'static str,
    limit: u32,
    slots: u32,
    lease: Option<u64>,
}

/// The groups, with the sessions that have named them, and all asks.
#[derive(Default)]
struct Groups {
    limits: Vec<(&'static str, u32, Vec<u64>)>,
    asks: Vec<Ask>,
}

impl Groups {
    fn limit(&self, name: &str) -> Option<u32> {
        self.limits.iter().find(|(group, ..)| *group == name).map(|(_, limit, _)| *limit)
    }

    fn taken(&self, name: &str) -> u32 {
        self.asks.iter().filter(|ask| ask.name == name && ask.lease.is_some()).map(|ask| ask.slots).sum()
    }

    fn name(&mut self, session: u64, name: &'static str, limit: u32) {
        match self.limits.iter_mut().find(|(group, ..)| *group == name) {
            Some((.., sessions)) if sessions.contains(&session) => {}
            Some((.., sessions)) => sessions.push(session),
            None => self.limits.push((name, limit, vec![session])),
        }
    }

    /// Who waits first of a group, if there is room for it.
    fn next(&self) -> Option<usize> {
        NAMES.iter().find_map(|name| {
            let first = self.asks.iter().position(|ask| ask.name == *name && ask.lease.is_none())?;
            (self.taken(name) + self.asks[first].slots <= self.limit(name)?).then_some(first)
        })
    }

    fn resolve(&mut self, mut resolved: Vec<Resolved>) {
        for Resolved { wait, outcome } in resolved.extract_if(.., |told| matches!(told.outcome, Outcome::Refused(_))) {
            let at = self.asks.iter().position(|ask| ask.wait == wait && ask.lease.is_none()).unwrap();
            let ask = self.asks.remove(at);
            assert!(matches!(outcome, Outcome::Refused(Refusal::LimitMismatch { asked, .. }) if asked == ask.limit));
            assert!(ask.slots > self.limit(ask.name).unwrap());
        }
        while let Some(next) = self.next() {
            let told = resolved.iter().position(|told| told.wait == self.asks[next].wait);
            let Resolved { outcome, .. } = resolved.remove(told.expect("for whom there is room is served at once"));
            let Outcome::Granted(lease) = outcome else { panic!("{outcome:?}") };
            self.asks[next].lease = Some(lease);
        }
        assert_eq!(resolved, [], "granted although there is no room, or to the dead");
    }

    fn check(&self, slots: &Slots) {
        let mut names = slots.names();
        names.sort_unstable();
        let mut expected: Vec<_> = self.limits.iter().map(|(name, ..)| *name).collect();
        expected.sort_unstable();
        assert!(names.iter().map(|name| &**name).eq(expected), "{names:?}");
        for (name, limit, _) in &self.limits {
            let info = slots.info(name, usize::MAX).unwrap();
            assert_eq!((info.limit, info.taken), (*limit, u64::from(self.taken(name))));
            let waiters: Vec<_> = info.waiters.iter().map(|party| (party.session, party.slots)).collect();
            let waiting = self.asks.iter().filter(|ask| ask.name == *name && ask.lease.is_none());
            assert_eq!(waiters, waiting.map(|ask| (ask.session, ask.slots)).collect::<Vec<_>>());
        }
        let waiting = self.asks.iter().filter(|ask| ask.lease.is_none()).count();
        assert_eq!(slots.counts().1, waiting);
    }
}

fn random_slots(seed: u64) {
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let (mut slots, mut model, mut last) = (Slots::default(), Groups::default(), 0);
    let mut next = move || {
        last += 1;
        Some(last)
    };
    for number in 1..400 {
        let (session, name) = (rng.u64(..SESSIONS), NAMES[rng.usize(..NAMES.len())]);
        let wait = WaitId(number);
        let some_lease = |rng: &mut fastrand::Rng, model: &Groups| {
            let leases: Vec<_> = model.asks.iter().filter_map(|ask| Some((ask.session, ask.lease?))).collect();
            (!leases.is_empty()).then(|| leases[rng.usize(..leases.len())])
        };
        match rng.u32(..100) {
            0..50 => {
                let usual = model.limit(name).unwrap_or(rng.u32(1..6));
                let limit = if rng.u32(..10) == 0 { 9 } else { usual };
                let (count, waits) = (rng.u32(1..5), rng.u32(..4) > 0);
                let need = Need { session, group: name, limit, slots: count, now_unix_ms: 0 };
                let before = model.limit(name);
                let outcome = slots.acquire(need, waits.then_some(wait), &mut next);
                if before.is_some_and(|before| before != limit) {
                    assert!(matches!(outcome, Err(Refusal::LimitMismatch { .. })), "{outcome:?}");
                } else if count > limit {
                    assert_eq!(outcome, Err(Refusal::MoreThanLimit { limit }));
                } else {
                    model.name(session, name, limit);
                    let waiting = model.asks.iter().any(|ask| ask.name == name && ask.lease.is_none());
                    let free = !waiting && model.taken(name) + count <= limit;
                    let lease = match outcome {
                        Ok(Begun::Granted(lease)) if free => Some(lease),
                        Ok(Begun::Waits) if !free && waits => None,
                        Err(Refusal::WouldWait { .. }) if !free && !waits => continue,
                        other => panic!("{other:?}"),
                    };
                    model.asks.push(Ask { wait, session, name, limit, slots: count, lease });
                }
            }
            50..75 => {
                let Some((of, lease)) = some_lease(&mut rng, &model) else { continue };
                assert_eq!(slots.release(of + 1, lease, &mut next), Err(Refusal::NotHeld { token: lease }));
                let resolved = slots.release(of, lease, &mut next).unwrap();
                model.asks.retain(|ask| ask.lease != Some(lease));
                model.resolve(resolved);
            }
            75..83 => {
                let limit = rng.u32(1..6);
                let resolved = slots.set_limit(session, name, limit, &mut next).unwrap();
                model.name(session, name, limit);
                model.limits.iter_mut().filter(|(group, ..)| *group == name).for_each(|(_, of, _)| *of = limit);
                model.resolve(resolved);
            }
            83..91 => {
                let waits: Vec<_> = model.asks.iter().filter(|ask| ask.lease.is_none()).map(|ask| ask.wait).collect();
                if waits.is_empty() {
                    continue;
                }
                let wait = waits[rng.usize(..waits.len())];
                let resolved = slots.cancel(wait, &mut next).unwrap();
                model.asks.retain(|ask| ask.wait != wait);
                model.resolve(resolved);
            }
            _ => {
                let resolved = slots.end_session(session, &mut next);
                model.asks.retain(|ask| ask.session != session);
                model.limits.iter_mut().for_each(|(.., sessions)| sessions.retain(|of| *of != session));
                model.limits.retain(|(.., sessions)| !sessions.is_empty());
                model.resolve(resolved);
            }
        }
        model.check(&slots);
    }
    for session in 0..SESSIONS {
        slots.end_session(session, &mut next);
    }
    assert!(slots.is_empty(), "something is left: {slots:?}");
}

#[test]
fn slots_go_in_order_to_as_many_as_there_is_room_for() {
    (0..120).for_each(random_slots);
}

/// One election: nobody has won, or a session and those who wait, or it is done.
#[derive(Clone, Debug, Default)]
struct Election {
    winner: Option<u64>,
    queue: Vec<(WaitId, u64)>,
    done: bool,
}

impl Election {
    /// The winner has ended or given up. Answers who is told.
    fn pass_on(&mut self) -> Vec<WaitId> {
        self.winner = self.queue.first().map(|(_, session)| *session);
        let won = self.winner;
        self.queue.extract_if(.., |(_, session)| Some(*session) == won).map(|(wait, _)| wait).collect()
    }
}

fn check_told(resolved: &[Resolved], mut expected: Vec<WaitId>, outcome: &Outcome) {
    let mut told: Vec<_> = resolved.iter().map(|told| told.wait).collect();
    told.sort_unstable();
    expected.sort_unstable();
    assert_eq!(told, expected);
    assert!(resolved.iter().all(|told| told.outcome == *outcome), "{resolved:?}");
}

fn random_elections(seed: u64) {
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut elections = Elections::default();
    let mut model = vec![Election::default(); NAMES.len()];
    for number in 1..300 {
        let (session, at) = (rng.u64(..SESSIONS), rng.usize(..NAMES.len()));
        let one = &mut model[at];
        match rng.u32(..100) {
            0..60 => {
                let wait = (rng.u32(..4) > 0).then_some(WaitId(number));
                let expected = match (one.done, one.winner, wait) {
                    (true, ..) => Begun::Done,
                    (_, Some(winner), _) if winner == session => Begun::Won,
                    (_, None, _) => Begun::Won,
                    (.., None) => Begun::Running,
                    (.., Some(_)) => Begun::Waits,
                };
                assert_eq!(elections.elect(session, NAMES[at], wait), Ok(expected));
                match expected {
                    Begun::Won => one.winner = Some(session),
                    Begun::Waits => one.queue.extend(wait.map(|wait| (wait, session))),
                    _ => {}
                }
            }
            60..75 => {
                let done = rng.u32(..6) == 0;
                let outcome = elections.initialized(session, NAMES[at], done);
                if one.winner != Some(session) {
                    assert!(outcome.is_err());
                } else if done {
                    (one.done, one.winner) = (true, None);
                    let told = std::mem::take(&mut one.queue).into_iter().map(|(wait, _)| wait).collect();
                    check_told(&outcome.unwrap(), told, &Outcome::Done);
                } else {
                    check_told(&outcome.unwrap(), one.pass_on(), &Outcome::Won);
                }
            }
            75..88 => {
                if one.queue.is_empty() {
                    continue;
                }
                let (wait, _) = one.queue.remove(rng.usize(..one.queue.len()));
                assert_eq!(elections.cancel(wait), Some(Vec::new()));
                assert_eq!(elections.cancel(wait), None);
            }
            _ => {
                let resolved = elections.end_session(session);
                let mut told = Vec::new();
                for one in &mut model {
                    one.queue.retain(|(_, of)| *of != session);
                    if one.winner == Some(session) {
                        told.extend(one.pass_on());
                    }
                }
                check_told(&resolved, told, &Outcome::Won);
            }
        }
        let running = model.iter().filter(|one| one.winner.is_some()).count();
        assert_eq!(elections.counts(), (running, model.iter().map(|one| one.queue.len()).sum()));
        let lost = model.iter().find(|one| one.winner.is_none() && !one.queue.is_empty());
        assert!(lost.is_none(), "somebody waits for nobody: {lost:?}");
    }
    for session in 0..SESSIONS {
        elections.end_session(session);
    }
    assert!(elections.is_idle(), "something is left: {elections:?}");
}

#[test]
fn there_is_one_winner_at_a_time_and_the_longest_waiter_follows_it() {
    (0..120).for_each(random_elections);
}

#[test]
fn a_flag_is_what_its_session_knows_of_the_word_and_nothing_is_left_of_sessions_that_ended() {
    let (mut flags, word) = (Flags::default(), Arc::new(AtomicU64::new(0)));
    let place = Place::new("w", "n").unwrap();
    let set = |flags: &Flags| [1, 2].map(|session| flags.look(session, &place).map(|(set, _)| set));
    assert_eq!(flags.look(1, &place), None);
    flags.register(1, &place, &word, false).unwrap();
    // One that had a flag on a connection that was lost: it is set although the word says otherwise.
    flags.register(2, &place, &word, true).unwrap();
    assert_eq!(set(&flags), [Some(false), Some(true)]);
    word.store(2, Ordering::Relaxed);
    assert_eq!(set(&flags), [Some(false), Some(false)]);
    word.store(3, Ordering::Relaxed);
    assert_eq!(set(&flags), [Some(true), Some(true)]);
    assert_eq!(flags.clear(1, &place), Some(3));
    assert_eq!(set(&flags), [Some(false), Some(true)]);
    word.store(5, Ordering::Relaxed);
    assert_eq!(set(&flags), [Some(true), Some(true)]);
    assert_eq!((flags.count(), flags.list(None, 10).len()), (2, 1));
    assert_eq!((flags.forget(1, &place), flags.forget(1, &place)), (Some(5), None));
    flags.end_session(2);
    flags.end_session(1);
    assert!(flags.is_empty());
}
