//! The locks against a naive model: a list of wishes in the order they came, looked through as a whole at each step.
//!
//! Random sessions ask, give back, cancel and die, also while a write under their grant is being done. After each step
//! nobody has what excludes another, nobody waits whom nothing excludes, and nothing was granted to anybody but in order.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

const KEYS: [&str; 5] = ["a", "b", "c", "d", "e"];
const SESSIONS: u64 = 6;

/// A wish that waits or was granted.
#[derive(Clone, Debug)]
struct One {
    wait: WaitId,
    session: u64,
    owner: u64,
    shared: bool,
    keys: BTreeSet<&'static str>,
    holds: BTreeSet<u64>,
    token: Option<u64>,
    /// It has ended, and a write under it has not.
    retired: bool,
}

impl One {
    fn excludes(&self, other: &Self) -> bool {
        (!self.shared || !other.shared) && !self.keys.is_disjoint(&other.keys)
    }
}

/// In the order they came.
#[derive(Default)]
struct Model(Vec<One>);

#[derive(Debug, PartialEq, Eq)]
enum Said {
    Granted,
    Waits,
    WouldWait,
    AlreadyHeld,
    AlreadyWaits,
    Deadlock,
    NotHeld,
}

impl Model {
    fn held(&self) -> impl Iterator<Item = &One> {
        self.0.iter().filter(|one| one.token.is_some())
    }

    fn waiting(&self) -> impl Iterator<Item = &One> {
        self.0.iter().filter(|one| one.token.is_none())
    }

    fn live(&self, token: u64) -> Option<&One> {
        self.held().find(|one| one.token == Some(token) && !one.retired)
    }

    /// Whom a wish waits for: whoever holds, and whoever came before.
    fn before<'a>(&'a self, wish: &'a One) -> impl Iterator<Item = &'a One> {
        let comes_before = |one: &&One| one.token.is_some() || one.wait < wish.wait;
        self.0.iter().filter(comes_before).filter(|one| one.excludes(wish))
    }

    /// What is said of the first key, in order of name, that the wish's owner has or waits for, or one that it names has.
    fn already(&self, wish: &One) -> Option<Said> {
        let same = |one: &One| (one.session, one.owner) == (wish.session, wish.owner);
        let named = |one: &One| one.token.is_some_and(|token| wish.holds.contains(&token));
        wish.keys.iter().find_map(|key| {
            let has = |one: &One| !one.retired && (same(one) || named(one)) && one.keys.contains(key);
            if self.held().any(has) {
                return Some(Said::AlreadyHeld);
            }
            self.waiting().any(|one| same(one) && one.keys.contains(key)).then_some(Said::AlreadyWaits)
        })
    }

    /// Whether a wish waits, however indirectly, for something that it holds.
    fn is_cycle(&self, wish: &One) -> bool {
        let (mut reached, mut queue) = (BTreeSet::new(), vec![wish]);
        while let Some(at) = queue.pop() {
            for one in self.before(at) {
                let next: Vec<&One> = match one.token {
                    Some(_) if one.retired => continue,
                    Some(token) if wish.holds.contains(&token) => return true,
                    Some(token) => self.waiting().filter(|other| other.holds.contains(&token)).collect(),
                    None => vec![one],
                };
                queue.extend(next.into_iter().filter(|one| reached.insert(one.wait)));
            }
        }
        false
    }

    fn lock(&mut self, wish: One, wait: bool) -> Said {
        if !wish.holds.iter().all(|token| self.live(*token).is_some()) {
            return Said::NotHeld;
        }
        if let Some(said) = self.already(&wish) {
            return said;
        }
        if self.before(&wish).next().is_none() {
            self.0.push(wish);
            return Said::Granted;
        }
        if !wait {
            return Said::WouldWait;
        }
        if self.is_cycle(&wish) {
            return Said::Deadlock;
        }
        self.0.push(wish);
        Said::Waits
    }

    /// Takes over what was granted or refused, which must be exactly what nothing excludes any more.
    fn resolve(&mut self, resolved: Vec<Resolved>) {
        let mut told: BTreeMap<WaitId, Outcome> = BTreeMap::new();
        for Resolved { wait, outcome } in resolved {
            assert_eq!(told.insert(wait, outcome), None, "told once");
        }
        while let Some(at) = self.0.iter().position(|one| one.token.is_none() && self.before(one).next().is_none()) {
            let outcome = told.remove(&self.0[at].wait).expect("whom nothing excludes is granted at once");
            let Outcome::Granted(token) = outcome else { panic!("{outcome:?} for {:?}", self.0[at]) };
            self.0[at].token = Some(token);
        }
        assert!(told.is_empty(), "granted although something excludes it: {told:?}");
    }

    fn check(&self, locks: &Locks) {
        let held: Vec<&One> = self.held().collect();
        for (at, one) in held.iter().enumerate() {
            assert!(held[..at].iter().all(|other| !one.excludes(other)), "{one:?} is not alone");
        }
        for one in self.waiting() {
            assert!(self.before(one).next().is_some(), "nothing excludes {one:?}, and it waits");
        }
        let live = held.iter().filter(|one| !one.retired).count();
        assert_eq!(locks.counts(), (live, self.waiting().count()));
        for one in &held {
            assert_eq!(locks.is_live(one.token.unwrap()), !one.retired);
        }
        for key in KEYS {
            let info = locks.info(key, usize::MAX);
            let of = |parties: fn(&KeyInfo) -> &Vec<Party>| {
                info.as_ref().map_or_else(Vec::new, |info| parties(info).clone())
            };
            let waiters: Vec<_> = of(|info| &info.waiters).iter().map(|party| (party.session, party.owner)).collect();
            let expected: Vec<_> =
                self.waiting().filter(|one| one.keys.contains(key)).map(|one| (one.session, one.owner)).collect();
            assert_eq!(waiters, expected, "the waiters of {key} in the order they came");
            let holders: BTreeSet<_> = of(|info| &info.holders).iter().map(|party| party.token).collect();
            let expected: BTreeSet<_> =
                held.iter().filter(|one| one.keys.contains(key)).filter_map(|one| one.token).collect();
            assert_eq!(holders, expected, "the holders of {key}");
        }
    }
}

struct Test {
    rng: fastrand::Rng,
    locks: Locks,
    model: Model,
    tokens: u64,
    waits: u64,
    already_waits: u32,
    /// Whether wishes name what their session holds.
    names_holds: bool,
}

impl Test {
    fn one_of<T: Copy>(&mut self, list: &[T]) -> Option<T> {
        (!list.is_empty()).then(|| list[self.rng.usize(..list.len())])
    }

    fn step(&mut self) {
        match self.rng.u32(..100) {
            0..55 => self.lock(),
            55..80 => self.unlock(),
            80..88 => self.settle(),
            88..96 => self.cancel(),
            _ => self.end(),
        }
        self.model.check(&self.locks);
    }

    fn lock(&mut self) {
        let session = self.rng.u64(..SESSIONS);
        let keys: Vec<&'static str> = (0..self.rng.usize(1..4)).map(|_| KEYS[self.rng.usize(..KEYS.len())]).collect();
        let own: Vec<u64> =
            self.model.held().filter(|one| one.session == session).filter_map(|one| one.token).collect();
        let mut holds: Vec<u64> = own.into_iter().filter(|_| self.names_holds && self.rng.bool()).collect();
        // Now and then another session's.
        let any: Vec<u64> = self.model.held().filter_map(|one| one.token).collect();
        holds.extend(self.one_of(&any).filter(|_| self.names_holds && self.rng.u32(..4) == 0));
        if self.rng.u32(..50) == 0 {
            holds.push(self.rng.u64(..self.tokens + 2));
        }
        self.waits += 1;
        let (wait, owner, shared) = (WaitId(self.waits), self.rng.u64(..3), self.rng.bool());
        let one = One {
            wait,
            session,
            owner,
            shared,
            keys: keys.iter().copied().collect(),
            holds: holds.iter().copied().collect(),
            token: None,
            retired: false,
        };
        let waits = self.rng.u32(..5) > 0;
        let wish = Wish { session, owner, shared, keys, holds: holds.clone(), now_unix_ms: 0 };
        let mut next = || {
            self.tokens += 1;
            Some(self.tokens)
        };
        let begun = self.locks.lock(wish, waits.then_some(wait), &mut next);
        let said = self.model.lock(one, waits);
        match begun {
            Ok(Begun::Granted(token)) => {
                assert_eq!(said, Said::Granted);
                self.model.0.last_mut().unwrap().token = Some(token);
            }
            Ok(Begun::Waits) => assert_eq!(said, Said::Waits),
            Err(Refusal::WouldWait { .. }) => assert_eq!(said, Said::WouldWait),
            Err(Refusal::AlreadyHeld { .. }) => assert_eq!(said, Said::AlreadyHeld),
            Err(Refusal::AlreadyWaits { .. }) => {
                assert_eq!(said, Said::AlreadyWaits);
                self.already_waits += 1;
            }
            Err(Refusal::NotHeld { .. }) => assert_eq!(said, Said::NotHeld),
            Err(Refusal::Deadlock(cycle)) => {
                assert_eq!(said, Said::Deadlock);
                self.check_cycle(&cycle, session, owner, &holds);
            }
            other => panic!("{other:?}"),
        }
    }

    /// Each waits at its key for what the next one holds, or behind it, and the last one for the first.
    fn check_cycle(&self, cycle: &[Step], session: u64, owner: u64, holds: &[u64]) {
        assert_eq!((cycle[0].session, cycle[0].owner), (session, owner));
        assert!(holds.contains(&cycle[0].holds), "the last one waits for something that the wish names");
        for (at, step) in cycle.iter().enumerate() {
            let next = &cycle[(at + 1) % cycle.len()];
            let info = self.locks.info(&step.waits_for, usize::MAX).expect("the key is held or waited for");
            let holds = info.holders.iter().any(|party| party.token == next.holds);
            let waits = info.waiters.iter().any(|party| (party.session, party.owner) == (next.session, next.owner));
            assert!(if next.holds == 0 { waits } else { holds }, "{step:?} then {next:?}");
        }
    }

    fn unlock(&mut self) {
        let held: Vec<(u64, u64)> = self.model.held().filter_map(|one| Some((one.session, one.token?))).collect();
        let Some((session, token)) = self.one_of(&held) else { return };
        let busy = self.rng.u32(..4) == 0;
        let is_foreign = self.rng.u32(..20) == 0;
        let mut next = || {
            self.tokens += 1;
            Some(self.tokens)
        };
        let unlocked = self.locks.unlock(session + u64::from(is_foreign), token, || busy, &mut next);
        let is_live = self.model.live(token).is_some();
        match unlocked {
            Ok(resolved) => {
                assert!(is_live && !is_foreign);
                self.end_grant(token, busy);
                self.model.resolve(resolved);
            }
            Err(refusal) => assert!(!is_live || is_foreign, "{refusal:?}"),
        }
    }

    fn end_grant(&mut self, token: u64, busy: bool) {
        if busy {
            self.model.0.iter_mut().filter(|one| one.token == Some(token)).for_each(|one| one.retired = true);
        } else {
            self.model.0.retain(|one| one.token != Some(token));
        }
    }

    fn settle(&mut self) {
        let retired: Vec<u64> = self.model.held().filter(|one| one.retired).filter_map(|one| one.token).collect();
        let Some(token) = self.one_of(&retired) else { return };
        let mut next = || {
            self.tokens += 1;
            Some(self.tokens)
        };
        let resolved = self.locks.settle(token, &mut next);
        self.end_grant(token, false);
        self.model.resolve(resolved);
    }

    fn cancel(&mut self) {
        let waiting: Vec<WaitId> = self.model.waiting().map(|one| one.wait).collect();
        let Some(wait) = self.one_of(&waiting) else { return };
        let mut next = || {
            self.tokens += 1;
            Some(self.tokens)
        };
        let resolved = self.locks.cancel(wait, &mut next).expect("it waits");
        assert_eq!(self.locks.cancel(wait, &mut next), None, "it waits no more");
        self.model.0.retain(|one| one.wait != wait);
        self.model.resolve(resolved);
    }

    fn end(&mut self) {
        let session = self.rng.u64(..SESSIONS);
        let busy: BTreeSet<u64> = self
            .model
            .held()
            .filter(|one| one.session == session && !one.retired)
            .filter_map(|one| one.token)
            .filter(|token| token.is_multiple_of(3))
            .collect();
        let mut next = || {
            self.tokens += 1;
            Some(self.tokens)
        };
        let resolved = self.locks.end_session(session, |token| busy.contains(&token), &mut next);
        self.model.0.retain(|one| {
            one.session != session || one.retired || one.token.is_some_and(|token| busy.contains(&token))
        });
        for token in busy {
            self.end_grant(token, true);
        }
        let dead = |wait: WaitId| self.model.0.iter().all(|one| one.wait != wait);
        assert!(!resolved.iter().any(|resolved| dead(resolved.wait)), "nothing is granted to the dead");
        self.model.resolve(resolved);
    }
}

/// Answers how many wishes were refused because their owner waited for one of the keys already.
fn run(seed: u64, names_holds: bool) -> u32 {
    println!("seed {seed}");
    let rng = fastrand::Rng::with_seed(seed);
    let (locks, model) = (Locks::default(), Model::default());
    let mut test = Test { rng, locks, model, tokens: 0, waits: 0, already_waits: 0, names_holds };
    for _ in 0..400 {
        test.step();
    }
    // All end; then nothing is left.
    for session in 0..SESSIONS {
        let mut next = || {
            test.tokens += 1;
            Some(test.tokens)
        };
        let resolved = test.locks.end_session(session, |_| false, &mut next);
        test.model.0.retain(|one| one.session != session || one.retired);
        test.model.resolve(resolved);
    }
    for token in test.model.held().filter_map(|one| one.token).collect::<Vec<_>>() {
        assert_eq!(test.locks.settle(token, &mut || None), []);
    }
    assert!(test.locks.is_empty(), "something is left: {:?}", test.locks);
    test.already_waits
}

#[test]
fn random_sessions_get_what_a_naive_list_of_wishes_would_give_them() {
    let already_waits: u32 = (0..120).map(|seed| run(seed, false)).sum();
    assert!(already_waits > 1_000, "who waits twice for one key is among what is tried: {already_waits}");
}

#[test]
fn a_wish_is_refused_as_a_deadlock_exactly_when_it_would_wait_for_itself() {
    for seed in 1_000..1_120 {
        let _ = run(seed, true);
    }
}

#[test]
fn an_owner_that_waits_for_a_key_is_refused_at_once_when_it_asks_again() {
    let mut locks = Locks::default();
    let mut last = 0;
    let mut next = move || {
        last += 1;
        Some(last)
    };
    let wish = |session, owner, shared, keys| Wish { session, owner, shared, keys, holds: Vec::new(), now_unix_ms: 0 };
    assert_eq!(locks.lock(wish(1, 1, false, vec!["k"]), None, &mut next), Ok(Begun::Granted(1)));
    let mut number = 0;
    for (first, second) in [(false, false), (false, true), (true, false), (true, true)] {
        number += 10;
        assert_eq!(locks.lock(wish(2, 7, first, vec!["k", "l"]), Some(WaitId(number)), &mut next), Ok(Begun::Waits));
        let refused = Err(Refusal::AlreadyWaits { key: "l".into() });
        for wait in [Some(WaitId(number + 1)), None] {
            assert_eq!(locks.lock(wish(2, 7, second, vec!["l", "m"]), wait, &mut next), refused);
        }
        // Others of the same session, and the same owner for other keys, are not concerned.
        assert_eq!(locks.lock(wish(2, 8, second, vec!["k"]), Some(WaitId(number + 2)), &mut next), Ok(Begun::Waits));
        assert!(matches!(locks.lock(wish(2, 7, second, vec!["m"]), None, &mut next), Ok(Begun::Granted(_))));
        // Once it waits no more it may ask again.
        locks.cancel(WaitId(number), &mut next).expect("it waits");
        assert_eq!(locks.lock(wish(2, 7, second, vec!["l"]), None, &mut next).map(|_| ()), Ok(()));
        locks.end_session(2, |_| false, &mut next);
    }
}

#[test]
fn a_thousand_who_wait_for_one_key_are_served_in_order_at_the_cost_of_one_each() {
    let mut locks = Locks::default();
    let mut last = 0;
    let mut next = move || {
        last += 1;
        Some(last)
    };
    let wish = |session| Wish { session, owner: 1, shared: false, keys: vec!["k"], holds: Vec::new(), now_unix_ms: 0 };
    assert_eq!(locks.lock(wish(0), None, &mut next), Ok(Begun::Granted(1)));
    for session in 1..=100_000 {
        assert_eq!(locks.lock(wish(session), Some(WaitId(session)), &mut next), Ok(Begun::Waits));
    }
    // Were each of them a look at all who wait, this would be ten thousand million looks.
    for session in 0..100_000 {
        let resolved = locks.unlock(session, session + 1, || false, &mut next).unwrap();
        assert_eq!(resolved, [Resolved { wait: WaitId(session + 1), outcome: Outcome::Granted(session + 2) }]);
    }
}
