//! Is there an order of the operations in which each took effect at one moment between its call and its answer, and all
//! answers are what a store gives that does one after the other?
//!
//! The search is that of Wing and Gong with Lowe's memory: it goes forward from the first call, takes any operation
//! that may be next and whose answer fits, and goes back where an answer is passed that does not fit. A pair of (which
//! operations are done, which states are possible) that was met before is not entered again. Linearizability is local,
//! so each object is searched alone.
//!
//! An operation of unknown outcome is taken at any place before `until`, and leaves the states with and without its
//! effect; so "never done" needs no search of its own.

use std::collections::HashSet;

use super::model::{Model, Operation, Outcome, State, States, When};

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
    /// More steps than were allowed.
    Undecided,
}

/// A verdict, and how many steps it took.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    pub(crate) verdict: Verdict,
    pub(crate) explored: u64,
}

/// No history that holds has needed a thousandth of it.
pub(crate) const MOST_STEPS: u64 = 4_000_000;

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
    let mut model = Model::new(partition.is_volatile);
    let mut states = Model::initial(partition.memory);
    for &index in order {
        states = model.step(&states, &partition.operations[index]);
    }
    (model, states)
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
    explored: u64,
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
fn same_from_now_on(one: &Operation, other: &Operation) -> bool {
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
        let mut nodes: Vec<usize> = (0..head).collect();
        nodes.sort_by_key(time);
        let (mut next, mut previous) = (vec![head; head + 1], vec![head; head + 1]);
        let mut last = head;
        for node in nodes {
            (next[last], previous[node]) = (node, last);
            last = node;
        }
        (next[last], previous[head]) = (head, last);
        Self { operations, model: Model::new(is_volatile), next, previous, explored: 0 }
    }

    fn run(&mut self, initial: States, most_steps: u64) -> Verdict {
        let head = self.operations.len() * 2;
        let mut done = vec![0_u64; self.operations.len().div_ceil(64)];
        let mut met: HashSet<(Box<[u64]>, States)> = HashSet::new();
        let (mut order, mut longest) = (Vec::new(), Vec::new());
        let mut past: Vec<Moment> = Vec::new();
        let mut now = self.moment(initial);
        while self.next[head] != head {
            if let Some(index) = now.candidates.next() {
                if self.explored == most_steps {
                    return Verdict::Undecided;
                }
                self.explored += 1;
                let states = self.model.step(&now.states, &self.operations[index]);
                if states.is_empty() {
                    continue;
                }
                done[index / 64] |= 1 << (index % 64);
                if !met.insert((done.clone().into(), states.clone())) {
                    done[index / 64] &= !(1 << (index % 64));
                    continue;
                }
                self.lift(index);
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
        let (mut known, mut unknown, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
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
            // What nobody knows to be done is tried last: mostly it is an answer that tells. Of several that are the same from
            // here on, one is enough.
            let is_same = |&other: &usize| same_from_now_on(operation, &self.operations[other]);
            if operation.outcome != Outcome::Unknown {
                known.push(node / 2);
            } else if !unknown.iter().any(is_same) {
                unknown.push(node / 2);
            }
            node = self.next[node];
        }
        known.append(&mut unknown);
        Moment { states, candidates: known.into_iter() }
    }

    fn changes_nothing(&mut self, states: &[State], index: usize) -> bool {
        self.model.step(states, &self.operations[index]) == states
    }

    fn lift(&mut self, index: usize) {
        for node in [index * 2, index * 2 + 1] {
            self.next[self.previous[node]] = self.next[node];
            self.previous[self.next[node]] = self.previous[node];
        }
    }

    fn put_back(&mut self, index: usize) {
        for node in [index * 2 + 1, index * 2] {
            self.next[self.previous[node]] = node;
            self.previous[self.next[node]] = node;
        }
    }
}
