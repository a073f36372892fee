//! Is there an order of the operations in which each took effect at one moment between its call and its answer, and all
//! answers are what a store gives that does one after the other?
//!
//! The search is that of Wing and Gong with Lowe's memory: it goes forward from the first call, takes any operation
//! that may be next and whose answer fits, and goes back where an answer is passed that does not fit. A pair of (which
//! operations are done, which states are possible) is not entered again, nor one with fewer states. Linearizability is
//! local, so each object is searched alone.
//!
//! An operation of unknown outcome is no step of the search: after each step the states are those before and after any of
//! them that may have taken effect by then, and each state knows which did on the way to it. An answer narrows them. So
//! "never done" needs no search of its own, nor does the order of what nobody has seen.

use std::collections::{HashMap, HashSet};

use super::model::{Model, Operation, Outcome, State, States, When, are_among, without_the_lesser};

/// The operations on one object.
#[derive(Clone, Debug)]
pub(crate) struct Partition {
    pub(crate) object: String,
    pub(crate) is_volatile: bool,
    /// Whether the first daemon answers from memory.
    pub(crate) memory: bool,
    pub(crate) operations: Vec<Operation>,
}

/// Whether there is such an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Linearizable,
    /// The longest order that explains its answers, as indexes into the operations.
    NotLinearizable(Vec<usize>),
    /// More steps than were allowed, or more operations of unknown outcome than a state can tell apart.
    Undecided,
}

/// A verdict, and how many states it took.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    pub(crate) verdict: Verdict,
    pub(crate) explored: u64,
}

/// States that are made. No history that holds has needed a tenth of it.
pub(crate) const MOST_STEPS: u64 = 40_000_000;

/// So many operations of unknown outcome have a bit in [`State::used`].
const MOST_UNKNOWN: usize = 128;

/// In the place of the numbers of writes that nobody has read.
const NEVER_READ: u64 = u64::MAX;

/// Searches for an order.
pub(crate) fn check(partition: &Partition) -> Checked {
    check_within(partition, MOST_STEPS)
}

/// As [`check`], in at most so many steps.
pub(crate) fn check_within(partition: &Partition, steps: u64) -> Checked {
    let operations = blurred(&partition.operations);
    let mut search = Search::new(&operations, partition.is_volatile);
    let verdict = search.run(Model::initial(partition.memory), steps);
    Checked { verdict, explored: search.explored }
}

/// What the object can be after a part of an order.
pub(crate) fn replay(partition: &Partition, order: &[usize]) -> (Model, States) {
    let mut search = Search::new(&partition.operations, partition.is_volatile);
    let mut states = search.with_unknown(Model::initial(partition.memory));
    for &index in order {
        states = search.model.step(&states, &partition.operations[index]);
        search.lift(index);
        states = search.with_unknown(states);
    }
    (search.model, states)
}

/// The operations without the difference between writes that nobody has read: no answer can tell them apart, and what is
/// tried with one of them needs not be tried with another.
fn blurred(operations: &[Operation]) -> Vec<Operation> {
    let mut read = HashSet::new();
    for operation in operations {
        if let Outcome::Read(Some(value)) = &operation.outcome {
            read.extend(value.numbers());
        }
        if let When::IfSeen { value, .. } = &operation.when {
            read.extend(value.numbers());
        }
    }
    let mut blurred = operations.to_vec();
    for number in blurred.iter_mut().filter_map(|operation| operation.action.number()) {
        if !read.contains(number) {
            *number = NEVER_READ;
        }
    }
    blurred
}

struct Search<'a> {
    operations: &'a [Operation],
    model: Model,
    /// The calls (2 × index) and answers (2 × index + 1) of all that is not done yet, by time, as a list; the last node
    /// is its head.
    next: Vec<usize>,
    previous: Vec<usize>,
    /// Those of unknown outcome, which are not in the list; their place here is their bit.
    unknown: Vec<Unknown>,
    /// The latest call of what is done, and those before it.
    latest_calls: Vec<u64>,
    explored: u64,
}

/// An operation of unknown outcome.
struct Unknown {
    index: usize,
    /// Those that it comes before if both are done.
    before: u128,
    /// An earlier one that is the same from both calls on: where both may be next, that one is.
    after: Option<usize>,
}

/// A moment of the search: what may come next.
struct Moment {
    states: States,
    candidates: std::vec::IntoIter<usize>,
}

fn is_call(node: usize) -> bool {
    node.is_multiple_of(2)
}

/// Of two of unknown outcome that were both called.
fn same_once_called(one: &Operation, other: &Operation) -> bool {
    (one.until, one.lost_by, &one.action, &one.when) == (other.until, other.lost_by, &other.action, &other.when)
}

impl<'a> Search<'a> {
    fn new(operations: &'a [Operation], is_volatile: bool) -> Self {
        let head = operations.len() * 2;
        let time = |node: &usize| {
            let operation = &operations[node / 2];
            // What is called at the very moment of an answer may have come first.
            if is_call(*node) { (operation.call, 0) } else { (operation.until, 1) }
        };
        let is_unknown = |index: &usize| operations[*index].outcome == Outcome::Unknown;
        let mut nodes: Vec<usize> = (0..head).filter(|node| !is_unknown(&(node / 2))).collect();
        nodes.sort_by_key(time);
        let (mut next, mut previous) = (vec![head; head + 1], vec![head; head + 1]);
        let mut last = head;
        for node in nodes {
            (next[last], previous[node]) = (node, last);
            last = node;
        }
        (next[last], previous[head]) = (head, last);
        let indexes: Vec<usize> = (0..operations.len()).filter(is_unknown).collect();
        let unknown = |(bit, &index): (usize, &usize)| {
            let is_after = |other: &&usize| operations[**other].call > operations[index].until;
            let bits = indexes.iter().enumerate().filter(|(_, other)| is_after(other));
            let before = bits.take(MOST_UNKNOWN).filter(|(bit, _)| *bit < MOST_UNKNOWN).map(|(bit, _)| 1 << bit).sum();
            // Sorted by call or not: the one called first takes its turn first.
            let is_twin = |other: &usize| {
                let call = |index: usize| (operations[index].call, index);
                same_once_called(&operations[index], &operations[indexes[*other]])
                    && call(indexes[*other]) < call(index)
            };
            let after = (0..indexes.len()).filter(|other| *other != bit && is_twin(other));
            let after = after.max_by_key(|other| (operations[indexes[*other]].call, indexes[*other]));
            Unknown { index, before, after }
        };
        let unknown = indexes.iter().enumerate().map(unknown).collect();
        let model = Model::new(is_volatile);
        Self { operations, model, next, previous, unknown, latest_calls: vec![0], explored: 0 }
    }

    fn run(&mut self, initial: States, most_steps: u64) -> Verdict {
        let head = self.operations.len() * 2;
        let mut done = vec![0_u64; self.operations.len().div_ceil(64)];
        let mut met: HashMap<Box<[u64]>, Vec<States>> = HashMap::new();
        let (mut order, mut longest) = (Vec::new(), Vec::new());
        let mut past: Vec<Moment> = Vec::new();
        if self.unknown.len() > MOST_UNKNOWN {
            return Verdict::Undecided;
        }
        let initial = self.with_unknown(initial);
        let mut now = self.moment(initial);
        while self.next[head] != head {
            if let Some(index) = now.candidates.next() {
                if self.explored >= most_steps {
                    return Verdict::Undecided;
                }
                self.explored += now.states.len() as u64;
                let states = self.model.step(&now.states, &self.operations[index]);
                if states.is_empty() {
                    continue;
                }
                self.lift(index);
                let states = self.with_unknown(states);
                done[index / 64] |= 1 << (index % 64);
                let before = met.entry(done.clone().into()).or_default();
                // What could not go on from more possible states cannot go on from some of them.
                if before.iter().any(|more| are_among(&states, more)) {
                    done[index / 64] &= !(1 << (index % 64));
                    self.put_back(index);
                    continue;
                }
                before.push(states.clone());
                order.push(index);
                if order.len() > longest.len() {
                    longest.clone_from(&order);
                }
                let later = self.moment(states);
                past.push(std::mem::replace(&mut now, later));
            } else {
                let (Some(earlier), Some(index)) = (past.pop(), order.pop()) else {
                    return Verdict::NotLinearizable(longest);
                };
                self.put_back(index);
                done[index / 64] &= !(1 << (index % 64));
                now = earlier;
            }
        }
        Verdict::Linearizable
    }

    /// What may come next: everything that was called before the first answer, and of what a process sent without waiting
    /// for answers only the first.
    fn moment(&mut self, states: States) -> Moment {
        let (mut candidates, mut waiting) = (Vec::new(), Vec::new());
        let mut node = self.next[self.operations.len() * 2];
        while is_call(node) && node / 2 < self.operations.len() {
            let operation = &self.operations[node / 2];
            if waiting.contains(&operation.process) {
                node = self.next[node];
                continue;
            }
            if operation.in_order {
                waiting.push(operation.process);
            }
            if operation.is_pure() && self.changes_nothing(&states, node / 2) {
                // Whatever else may come, it may as well come now: no other order needs to be tried.
                return Moment { states, candidates: vec![node / 2].into_iter() };
            }
            candidates.push(node / 2);
            node = self.next[node];
        }
        Moment { states, candidates: candidates.into_iter() }
    }

    /// The states, and those after each operation of unknown outcome that may have taken effect by now.
    fn with_unknown(&mut self, mut states: States) -> States {
        // What is done next may come after it, and nothing that is done was called after its end.
        let first = self.next[self.operations.len() * 2];
        let (mut at, mut waiting) = (first, Vec::new());
        while at < self.operations.len() * 2 && is_call(at) {
            let operation = &self.operations[at / 2];
            waiting.extend(operation.in_order.then_some((operation.process, operation.call)));
            at = self.next[at];
        }
        let first_answer = self.operations.get(at / 2).map_or(u64::MAX, |operation| operation.until);
        let latest_call = self.latest_calls.last().copied().unwrap_or_default();
        let (mut open, mut over) = (Vec::new(), 0);
        for (bit, unknown) in self.unknown.iter().enumerate() {
            let operation = &self.operations[unknown.index];
            if operation.until < latest_call {
                over |= 1_u128 << bit;
            } else if operation.call <= first_answer
                && !waiting.iter().any(|(process, call)| *process == operation.process && *call < operation.call)
            {
                open.push(bit);
            }
        }
        for state in &mut states {
            state.used &= !over;
        }
        let mut new = states.clone();
        while !new.is_empty() {
            let mut newer = Vec::new();
            for state in &new {
                for &bit in &open {
                    let Unknown { index, before, after } = self.unknown[bit];
                    let has_turn = after.is_none_or(|twin| state.used >> twin & 1 == 1 || !open.contains(&twin));
                    if state.used >> bit & 1 == 1 || state.used & before != 0 || !has_turn {
                        continue;
                    }
                    if let Some(mut changed) = self.model.with_effect(state, &self.operations[index]) {
                        changed.used |= 1 << bit;
                        newer.push(changed);
                    }
                }
            }
            self.explored += newer.len() as u64;
            newer.sort_unstable();
            newer.dedup();
            newer.retain(|state| !are_among(std::slice::from_ref(state), &states));
            without_the_lesser(&mut newer);
            states.extend(newer.iter().cloned());
            states.sort_unstable();
            without_the_lesser(&mut states);
            new = newer;
        }
        states
    }

    fn changes_nothing(&mut self, states: &[State], index: usize) -> bool {
        self.model.step(states, &self.operations[index]) == states
    }

    fn lift(&mut self, index: usize) {
        let latest = self.latest_calls.last().copied().unwrap_or_default();
        self.latest_calls.push(latest.max(self.operations[index].call));
        for node in [index * 2, index * 2 + 1] {
            self.next[self.previous[node]] = self.next[node];
            self.previous[self.next[node]] = self.previous[node];
        }
    }

    fn put_back(&mut self, index: usize) {
        self.latest_calls.pop();
        for node in [index * 2 + 1, index * 2] {
            self.next[self.previous[node]] = node;
            self.previous[self.next[node]] = node;
        }
    }
}
