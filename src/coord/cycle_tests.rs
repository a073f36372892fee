//! What the search for a cycle costs, in steps and not in time, and what is counted of what is named.

use commonhold_proto::limits::{MAX_CYCLE_STEPS, MAX_HOLDINGS_BYTES, MAX_LOCK_HOLDS};

use super::*;

const CROWD: u64 = 10_000;

/// Locks whose tokens and waits count up.
#[derive(Default)]
struct Test {
    locks: Locks,
    tokens: u64,
    waits: u64,
    /// Of the last search.
    steps: usize,
}

impl Test {
    fn ask(&mut self, session: u64, owner: u64, keys: &[&str], holds: &[u64]) -> Result<Begun, Refusal> {
        let (keys, holds) = (keys.to_vec(), holds.to_vec());
        let wish = Wish { session, owner, shared: false, keys, holds, now_unix_ms: 0 };
        self.steps = 0;
        // The same search, for its steps.
        let _ = self.locks.cycle_of(&wish, &mut self.steps);
        self.waits += 1;
        let tokens = &mut self.tokens;
        let mut next = || {
            *tokens += 1;
            Some(*tokens)
        };
        self.locks.lock(wish, Some(WaitId(self.waits)), &mut next)
    }

    fn take(&mut self, session: u64, owner: u64, key: &str) -> u64 {
        let begun = self.ask(session, owner, &[key], &[]);
        let Ok(Begun::Granted(token)) = begun else { panic!("{begun:?}") };
        token
    }

    fn wait(&mut self, session: u64, owner: u64, keys: &[&str], holds: &[u64]) -> usize {
        assert_eq!(self.ask(session, owner, keys, holds), Ok(Begun::Waits));
        self.steps
    }
}

fn step(session: u64, waits_for: &str, holds: u64) -> Step {
    Step { session, owner: 1, waits_for: waits_for.into(), holds }
}

#[test]
fn ten_thousand_who_wait_for_one_key_and_name_what_they_hold_cost_a_few_steps_each() {
    let mut test = Test::default();
    let first = test.take(0, 1, "k");
    for session in 1..=CROWD {
        let own = format!("own {session}");
        let token = test.take(session, 1, &own);
        // Of every other one somebody waits for what it holds: the search goes all the way.
        if session % 2 == 0 {
            test.wait(CROWD + session, 1, &[&own], &[]);
        }
        let steps = test.wait(session, 1, &["k"], &[token]);
        assert!(steps <= 8, "{steps} steps with {session} in the queue");
    }
    // It finds what it must through all of them.
    let own = format!("own {CROWD}");
    let token = test.tokens;
    let cycle = vec![step(0, &own, first), step(CROWD, "k", token)];
    assert_eq!(test.ask(0, 1, &[&own], &[first]), Err(Refusal::Deadlock(cycle)));
}

#[test]
fn ten_thousand_who_name_one_grant_cost_a_search_through_it_a_few_steps() {
    let mut test = Test::default();
    let (named, k) = (test.take(0, 1, "named"), test.take(1, 1, "k"));
    test.wait(1, 2, &["named"], &[]);
    for owner in 2..CROWD {
        let steps = test.wait(0, owner, &["k"], &[named]);
        assert!(steps <= 8, "{steps} steps with {owner} who name it");
    }
    // Through the grant that all of them name, to the key for which they wait.
    test.wait(2, 1, &["k"], &[]);
    let cycle = test.ask(1, 3, &["named"], &[k]);
    assert_eq!(test.steps.min(16), test.steps);
    let Err(Refusal::Deadlock(cycle)) = cycle else { panic!("{cycle:?}") };
    assert_eq!(cycle.len(), 2);
    assert_eq!((cycle[0].session, cycle[0].holds, cycle[1].session, cycle[1].holds), (1, k, 0, named));
}

#[test]
fn a_search_through_more_than_the_limit_is_refused_and_changes_nothing() {
    let mut test = Test::default();
    let (_, own) = (test.take(0, 1, "k"), test.take(1, 1, "own"));
    test.wait(2, 1, &["own"], &[]);
    // Whoever waits for several keys may lead anywhere.
    let many = MAX_CYCLE_STEPS as u64;
    for session in 10..10 + many {
        test.wait(session, 1, &["k", &format!("other {session}")], &[]);
    }
    let (counts, bytes) = (test.locks.counts(), test.locks.bytes());
    assert_eq!(test.ask(1, 2, &["k"], &[own]), Err(Refusal::TooTangled { limit: MAX_CYCLE_STEPS as u64 }));
    assert!(test.steps <= MAX_CYCLE_STEPS + MAX_CYCLE_STEPS / 4 + 32, "{} steps", test.steps);
    assert_eq!((test.locks.counts(), test.locks.bytes()), (counts, bytes));
    // Who names nothing, or only what nobody waits for, waits as ever.
    test.wait(1, 3, &["k"], &[]);
    let free = test.take(1, 4, "free");
    assert!(test.wait(1, 4, &["k"], &[free]) <= 2);
}

#[test]
fn what_a_wait_names_counts_towards_the_room_of_its_session_and_no_longer_than_it_waits() {
    let mut test = Test::default();
    test.take(0, 1, "k");
    let tokens: Vec<u64> = (0..MAX_LOCK_HOLDS as u64).map(|at| test.take(1, 1, &format!("own {at}"))).collect();
    let before = test.locks.bytes();
    test.wait(1, 2, &["k"], &[]);
    let plain = test.locks.bytes() - before;
    test.wait(1, 3, &["k"], &tokens);
    let naming = test.locks.bytes() - before - plain;
    assert!(naming >= plain + MAX_LOCK_HOLDS * 64, "{naming} beside {plain}");
    // So a session's limit is reached long before its number of waits is.
    let refused = (4..).find_map(|owner| test.ask(1, owner, &["k"], &tokens).err());
    let Some(Refusal::TooLarge { of: Whose::Session, got, limit }) = refused else { panic!("{refused:?}") };
    assert!(limit == MAX_HOLDINGS_BYTES as u64 && got > limit && test.locks.counts().1 < 1_000, "{got} {limit}");
    let tokens = &mut test.tokens;
    let mut next = || {
        *tokens += 1;
        Some(*tokens)
    };
    test.locks.end_session(1, |_| false, &mut next);
    test.locks.end_session(0, |_| false, &mut next);
    assert!(test.locks.is_empty(), "something is left");
}
