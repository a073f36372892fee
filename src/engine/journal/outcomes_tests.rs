//! What the table of outcomes promises: that a number it calls "not done" was not.

use hashbrown::{HashMap, HashSet};

use super::*;

fn head(client: u128, number: u64, settled: u64) -> WriteHead {
    WriteHead { client, number, behind: (number - settled) as u32, new: 1, found: number }
}

fn seq_of(known: Recall) -> Option<Seq> {
    match known {
        Recall::Done(outcome) => Some(outcome.seq),
        Recall::Not => None,
        Recall::Unknown(reason) => panic!("unknown: {reason}"),
    }
}

const NEW: Option<Earlier> = Some(Earlier { boot: 1, after: Seq::ZERO });

#[test]
fn a_repeat_finds_the_first_answer_until_the_client_says_that_it_has_it() {
    let mut table = Outcomes::default();
    for number in 1..=3 {
        table.note(head(7, number, 1), Seq(10 + number), 1);
    }
    let expected = Outcome { number: 2, seq: Seq(12), found: 2, new: 1 };
    assert_eq!(table.look_up(7, 2, NEW), Recall::Done(expected));
    assert_eq!(table.look_up(7, 4, NEW), Recall::Not);
    assert_eq!(table.look_up(8, 2, NEW), Recall::Not, "nothing was ever forgotten");
    table.note(head(7, 4, 3), Seq(14), 1);
    assert!(matches!(table.look_up(7, 2, NEW), Recall::Unknown(_)));
    assert_eq!(seq_of(table.look_up(7, 3, NEW)), Some(Seq(13)));
    assert_eq!(table.extent(), (1, 2));
}

#[test]
fn numbers_may_come_out_of_order_and_a_hole_is_not_done() {
    let mut table = Outcomes::default();
    for number in [3, 5, 1, 4] {
        table.note(head(7, number, 1), Seq(20 + number), 1);
    }
    for number in 1..=6 {
        let known = seq_of(table.look_up(7, number, NEW));
        assert_eq!(known, [3, 5, 1, 4].contains(&number).then_some(Seq(20 + number)), "number {number}");
    }
}

#[test]
fn who_was_forgotten_is_told_so_and_who_is_newer_than_all_that_was_forgotten_is_not() {
    let mut table = Outcomes::default();
    table.limit(HEAD_BYTES + 2 * (CLIENT_BYTES + OUTCOME_BYTES));
    for client in 1..=3 {
        table.note(head(client, 5, 5), Seq(100 + client as u64), 4);
    }
    let earlier = |boot, after| Some(Earlier { boot, after: Seq(after) });
    assert!(matches!(table.look_up(1, 5, earlier(4, 0)), Recall::Unknown(_)));
    assert!(matches!(table.look_up(9, 1, earlier(3, 100)), Recall::Unknown(_)));
    assert_eq!(table.look_up(9, 1, earlier(5, 0)), Recall::Not, "first sent to a later daemon");
    assert_eq!(table.look_up(9, 1, earlier(4, 101)), Recall::Not, "first sent after all that was forgotten");
    assert_eq!(table.look_up(1, 6, None), Recall::Not, "it is sent for the first time");
    // It comes back, with 4 still unanswered, which may have been done and forgotten.
    table.note(head(1, 6, 4), Seq(200), 4);
    assert!(matches!(table.look_up(1, 4, earlier(4, 0)), Recall::Unknown(_)));
    assert!(matches!(table.look_up(1, 5, earlier(4, 0)), Recall::Unknown(_)));
    assert_eq!(seq_of(table.look_up(1, 6, NEW)), Some(Seq(200)));
    assert_eq!(table.look_up(1, 7, earlier(4, 200)), Recall::Not, "first sent after its client came back");
}

#[test]
fn a_write_that_waited_while_its_client_was_forgotten_says_nothing_of_those_that_passed_it() {
    let mut table = Outcomes::default();
    table.limit(HEAD_BYTES + 2 * (CLIENT_BYTES + OUTCOME_BYTES));
    // 1 waits for a namespace that is being loaded, and 2 is done before it.
    table.note(head(7, 2, 1), Seq(10), 1);
    for client in 20..23 {
        table.note(head(client, 1, 1), Seq(client as u64), 1);
    }
    table.note(head(7, 1, 1), Seq(30), 1);
    assert_eq!(seq_of(table.look_up(7, 1, NEW)), Some(Seq(30)));
    for table in [Outcomes::decode(&table.encode()).unwrap(), table] {
        assert!(matches!(table.look_up(7, 2, NEW), Recall::Unknown(_)), "it was done");
        let later = Some(Earlier { boot: 1, after: Seq(30) });
        assert_eq!(table.look_up(7, 3, later), Recall::Not, "nothing of that time is forgotten");
    }
}

#[test]
fn of_one_client_so_many_are_kept_and_the_oldest_go() {
    let mut table = Outcomes::default();
    let most = MAX_OPEN_WRITES as u64;
    for number in 1..=most + 10 {
        table.note(head(7, number, 1), Seq(number), 1);
    }
    assert_eq!(table.extent(), (1, MAX_OPEN_WRITES));
    assert!(matches!(table.look_up(7, 10, NEW), Recall::Unknown(_)));
    assert_eq!(seq_of(table.look_up(7, 11, NEW)), Some(Seq(11)));
    table.limit(HEAD_BYTES + CLIENT_BYTES + OUTCOME_BYTES);
    assert_eq!(table.extent(), (1, 1));
    assert_eq!(seq_of(table.look_up(7, most + 10, NEW)), Some(Seq(most + 10)));
    assert!(matches!(table.look_up(7, most + 9, NEW), Recall::Unknown(_)));
}

#[test]
fn a_refused_repeat_is_not_done_later_and_its_refusal_does_not_outlive_the_daemon() {
    let mut table = Outcomes::default();
    table.note(head(7, 1, 1), Seq(1), 1);
    table.refuse(7, 2);
    assert!(matches!(table.look_up(7, 2, None), Recall::Unknown(_)));
    assert_eq!(seq_of(table.look_up(7, 1, NEW)), Some(Seq(1)));
    let read = Outcomes::decode(&table.encode()).unwrap();
    assert_eq!(read.look_up(7, 2, NEW), Recall::Not);
    assert_eq!(seq_of(read.look_up(7, 1, NEW)), Some(Seq(1)));
}

#[test]
fn what_was_cut_off_the_journal_is_unknown() {
    let mut table = Outcomes::default();
    table.note(head(7, 1, 1), Seq(1), 1);
    table.forget_all(3, Seq(50));
    assert_eq!(table.extent(), (0, 0));
    assert!(matches!(table.look_up(7, 2, NEW), Recall::Unknown(_)));
    assert_eq!(table.look_up(7, 2, Some(Earlier { boot: 4, after: Seq::ZERO })), Recall::Not);
}

#[test]
fn bytes_that_are_no_section_are_refused_and_cuts_of_one_too() {
    let mut table = Outcomes::default();
    for client in [1, 2] {
        for number in 1..=3 {
            table.note(head(client, number, 1), Seq(number), 1);
        }
    }
    let section = table.encode();
    assert_eq!(section.len(), table.bytes);
    for end in 1..section.len() {
        assert!(Outcomes::decode(&section[..end]).is_none(), "cut at {end}");
    }
    assert!(Outcomes::decode(&[&section[..], &[0]].concat()).is_none());
}

/// Any course of writes, losses of memory and restarts: a number is called done exactly with the Seq that it got, and
/// "not done" only if it was not.
#[test]
fn whatever_happens_nothing_that_was_done_is_called_not_done() {
    for seed in 0..60 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut table = Outcomes::default();
        table.limit(HEAD_BYTES + random.usize(2..6) * (CLIENT_BYTES + 3 * OUTCOME_BYTES));
        let mut done: HashMap<(u128, u64), Seq> = HashMap::new();
        let mut open: HashMap<u128, HashSet<u64>> = HashMap::new();
        let mut next: HashMap<u128, u64> = HashMap::new();
        let (mut boot, mut seq) = (1, 0);
        let mut firsts: HashMap<(u128, u64), Earlier> = HashMap::new();
        // First sendings that wait for a load; later ones of the same client pass them.
        let mut waiting: HashMap<u128, Vec<(u64, u64)>> = HashMap::new();
        for _ in 0..600 {
            let client = random.u128(1..9);
            let open = open.entry(client).or_default();
            let waits = waiting.entry(client).or_default();
            match random.u32(..12) {
                // A new write, executed or lost; or one that is sent again.
                0..7 => {
                    let again = (!open.is_empty() && random.bool())
                        .then(|| *open.iter().nth(random.usize(..open.len())).unwrap());
                    if again.is_some() {
                        // The connection was given up, and with it what waits there.
                        waits.clear();
                    }
                    let number = again.unwrap_or_else(|| {
                        let number = next.entry(client).or_insert(1);
                        *number += 1;
                        *number - 1
                    });
                    let first = *firsts.entry((client, number)).or_insert(Earlier { boot, after: Seq(seq) });
                    open.insert(number);
                    let known = table.look_up(client, number, again.map(|_| first));
                    match known {
                        Recall::Done(outcome) => {
                            assert_eq!(done.get(&(client, number)), Some(&outcome.seq), "seed {seed}");
                        }
                        Recall::Not => assert!(!done.contains_key(&(client, number)), "seed {seed}: done twice"),
                        Recall::Unknown(_) => {}
                    }
                    if known == Recall::Not && random.u32(..4) > 0 {
                        seq += 1;
                        let settled = open.iter().min().copied().unwrap_or(number);
                        table.note(head(client, number, settled.min(number)), Seq(seq), boot);
                        done.insert((client, number), Seq(seq));
                    }
                }
                7 => {
                    let number = next.entry(client).or_insert(1);
                    *number += 1;
                    let number = *number - 1;
                    firsts.insert((client, number), Earlier { boot, after: Seq(seq) });
                    open.insert(number);
                    waits.push((number, open.iter().min().copied().unwrap_or(number)));
                }
                8 => {
                    if !waits.is_empty() {
                        let (number, settled) = waits.remove(0);
                        if open.contains(&number) && table.look_up(client, number, None) == Recall::Not {
                            seq += 1;
                            table.note(head(client, number, settled), Seq(seq), boot);
                            done.insert((client, number), Seq(seq));
                        }
                    }
                }
                9..11 => {
                    // An answer arrives, or is given up.
                    if let Some(&number) = open.iter().next() {
                        open.remove(&number);
                    }
                }
                _ => {
                    let capacity = table.capacity;
                    table = Outcomes::decode(&table.encode()).unwrap_or_else(|| panic!("seed {seed}"));
                    table.limit(capacity);
                    boot += 1;
                    waiting.clear();
                }
            }
        }
    }
}
