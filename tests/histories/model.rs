//! What a store promises of one object (a key, or keys that only change together), as a sequential machine: what each
//! verb does to it, and which answers it may give. Where more than one state is possible (a request whose outcome nobody
//! knows, writes that `memory` may lose), the machine is in a set of states, and an answer narrows it.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

/// What lies under a key. All keys of a group hold the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Value {
    /// Which put it was; no two are equal. 0: made by a change of what was not there.
    pub(crate) stamp: u64,
    /// What `increment` raises.
    pub(crate) count: i64,
    /// What `append` adds to; no two items are equal.
    pub(crate) log: Vec<u64>,
    /// What `merge` sets; no two are equal.
    pub(crate) mark: u64,
}

impl Value {
    /// The numbers of the writes that made it what it is.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = u64> {
        [self.stamp, self.mark].into_iter().chain(self.log.iter().copied())
    }

    /// Whether it cannot come again once it has changed. What increments alone have made can: after a delete.
    pub(crate) fn comes_once(&self) -> bool {
        self.stamp != 0 || self.mark != 0 || !self.log.is_empty()
    }
}

/// What is asked of an object, and by [`Crash`](Action::Crash) what befalls it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Action {
    Put {
        stamp: u64,
    },
    Delete,
    Increment {
        by: i64,
    },
    Append {
        item: u64,
        keep_last: usize,
    },
    Merge {
        mark: u64,
    },
    /// Of the whole namespace, which holds nothing but the object.
    Clear,
    Drop,
    Get,
    Contains,
    /// Of the whole store: what is there by then outlives the daemon.
    Commit,
    /// The daemon ends, killed or not, and its successor keeps what it answers in memory or not.
    Crash {
        killed: bool,
        then_memory: bool,
    },
}

/// On what condition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum When {
    #[default]
    Always,
    IfAbsent,
    /// If the object is still as it was read, of a value that comes once, so that this is what `if_seq` promises.
    IfSeen {
        value: Value,
        /// Nanoseconds; when that reading began.
        since: u64,
    },
}

impl Action {
    /// The number that tells a write from every other one, where it has one.
    pub(crate) fn number(&mut self) -> Option<&mut u64> {
        match self {
            Self::Put { stamp } => Some(stamp),
            Self::Append { item, .. } => Some(item),
            Self::Merge { mark } => Some(mark),
            _ => None,
        }
    }
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    Written {
        /// Whether the object was there before.
        existed: bool,
    },
    /// The condition did not hold.
    Refused,
    Read(Option<Value>),
    Exists(bool),
    /// Some keys of a group were as no request left all of them. No state explains that.
    Mixed(String),
    Done,
    /// It was done at some time, or never.
    Unknown,
    /// It was not done, and never will be.
    NotDone,
}

/// A request, or an end of the daemon, as the checker takes it. Times are nanoseconds of one clock.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Operation {
    /// Who asked; 0 is the supervisor.
    pub(crate) process: u32,
    pub(crate) id: u64,
    pub(crate) object: String,
    pub(crate) action: Action,
    pub(crate) when: When,
    /// It asked for more than memory, so that what is answered outlives a killed daemon, and all before it.
    pub(crate) pins: bool,
    pub(crate) call: u64,
    /// When it was answered, or from when on it has no effect any more.
    pub(crate) until: u64,
    pub(crate) outcome: Outcome,
    /// A daemon ended after the reading of which the condition speaks: versions may have changed, so a refusal says
    /// nothing. That it was done still says all.
    pub(crate) weak: bool,
    /// What the same process asked for later took effect later. Not so where a daemon ended meanwhile: what had no effect
    /// there is done anew, and what came after it may have had its effect already.
    pub(crate) in_order: bool,
    /// A trace of an operation that is in the history with its answer, too: this daemon, by number from 0, may have done
    /// it, shown it to others and lost it, as it may what it keeps in memory, before it answered; a later one then did
    /// it, when it was repeated.
    pub(crate) lost_by: Option<u32>,
}

impl Operation {
    /// Whether it can leave the object as it was and nothing else.
    pub(crate) fn is_pure(&self) -> bool {
        matches!(self.outcome, Outcome::Refused | Outcome::Read(_) | Outcome::Exists(_))
    }
}

/// An object's value, by number, and the earlier ones that a kill may bring back.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct State {
    value: u32,
    /// Which daemon serves.
    boot: u32,
    /// The daemon answers from memory.
    memory: bool,
    /// A write since then is one that a kill takes, with all that came after it.
    doomed: bool,
    /// Which operations of unknown outcome took effect on the way here, of those that might still do; a bit each.
    pub(crate) used: u128,
    /// Sorted; empty unless `memory`.
    past: Vec<u32>,
}

/// Sorted, none twice. Empty: nothing explains what was answered.
pub(crate) type States = Vec<State>;

const ABSENT: u32 = 0;

/// Whether all that can be in `some` can be in `more`.
pub(crate) fn are_among(some: &[State], more: &[State]) -> bool {
    some.iter().all(|one| more.iter().any(|other| one.is_among(other)))
}

impl State {
    fn is_same_but_for_past(&self, other: &Self) -> bool {
        let of = |state: &Self| (state.value, state.boot, state.memory, state.doomed, state.used);
        of(self) == of(other)
    }

    /// Whether all that can come of it can come of `other`: of that more may come back at a kill, and more of what nobody
    /// knows to be done may still be done.
    fn is_among(&self, other: &Self) -> bool {
        let of = |state: &Self| (state.value, state.boot, state.memory, state.doomed);
        of(self) == of(other)
            && other.used & !self.used == 0
            && self.past.iter().all(|value| other.past.binary_search(value).is_ok())
    }
}

/// Leaves out of sorted states those of which nothing can come that cannot come of another one.
pub(crate) fn without_the_lesser(states: &mut States) {
    // Those of one value stand together.
    let mut kept: States = Vec::with_capacity(states.len());
    let mut of_value = 0;
    for state in states.drain(..) {
        if kept.last().is_some_and(|last| last.value != state.value) {
            of_value = kept.len();
        }
        if !kept[of_value..].iter().any(|other| state.is_among(other)) {
            let mut index = of_value;
            while index < kept.len() {
                if kept[index].is_among(&state) {
                    kept.remove(index);
                } else {
                    index += 1;
                }
            }
            kept.push(state);
        }
    }
    *states = kept;
}

/// The machine of one object.
pub(crate) struct Model {
    is_volatile: bool,
    /// By number minus one.
    values: Vec<Value>,
    numbers: HashMap<Value, u32>,
}

impl Model {
    pub(crate) fn new(is_volatile: bool) -> Self {
        Self { is_volatile, values: Vec::new(), numbers: HashMap::new() }
    }

    /// Before everything: nothing is there.
    pub(crate) fn initial(memory: bool) -> States {
        vec![State { value: ABSENT, boot: 0, memory, past: Vec::new(), doomed: false, used: 0 }]
    }

    /// The states in which the object can be after `operation`, with its answer.
    pub(crate) fn step(&mut self, states: &[State], operation: &Operation) -> States {
        let mut after = Vec::with_capacity(states.len());
        for state in states {
            if operation.outcome == Outcome::Unknown {
                after.push(state.clone());
                self.effects(state, operation, &mut after);
            } else if self.can_answer(state, operation) {
                self.effects(state, operation, &mut after);
            }
        }
        after.sort_unstable();
        // What may come back at a kill is no matter until then: states that differ in nothing else are one.
        after.dedup_by(|one, other| {
            let is_same = one.is_same_but_for_past(other);
            if is_same && one.past != other.past {
                other.past.append(&mut one.past);
                other.past.sort_unstable();
                other.past.dedup();
            }
            is_same
        });
        after
    }

    /// The state after `operation`, of unknown outcome, has taken effect; none if it has none.
    pub(crate) fn with_effect(&mut self, state: &State, operation: &Operation) -> Option<State> {
        let mut after = Vec::new();
        self.effects(state, operation, &mut after);
        after.pop().filter(|after| after != state)
    }

    /// What the object is in one of the states.
    pub(crate) fn value(&self, state: &State) -> Option<&Value> {
        state.value.checked_sub(1).map(|index| &self.values[index as usize])
    }

    fn can_answer(&self, state: &State, operation: &Operation) -> bool {
        let value = self.value(state);
        let holds = holds(&operation.when, value);
        match &operation.outcome {
            Outcome::Written { existed } => holds && *existed == value.is_some(),
            Outcome::Refused => !holds || operation.weak,
            Outcome::Read(read) => read.as_ref() == value,
            Outcome::Exists(exists) => *exists == value.is_some(),
            Outcome::Done => true,
            Outcome::Mixed(_) => false,
            Outcome::Unknown | Outcome::NotDone => unreachable!("neither is an answer"),
        }
    }

    /// Adds what the operation makes of one state.
    fn effects(&mut self, state: &State, operation: &Operation, after: &mut States) {
        let pins = operation.pins && operation.outcome != Outcome::Unknown;
        match &operation.action {
            _ if operation.is_pure() => after.push(state.clone()),
            Action::Get | Action::Contains => after.push(state.clone()),
            // What was lost later has not been committed.
            Action::Commit if state.doomed => {}
            Action::Commit => after.push(State { past: Vec::new(), ..state.clone() }),
            Action::Crash { killed, then_memory } => {
                let (boot, memory) = (state.boot + 1, *then_memory);
                let at = |value| State { value, boot, memory, past: Vec::new(), doomed: false, used: state.used };
                if self.is_volatile {
                    after.push(at(ABSENT));
                    return;
                }
                if !state.doomed {
                    after.push(at(state.value));
                }
                if *killed {
                    after.extend(state.past.iter().copied().map(at));
                }
            }
            action => {
                if !holds(&operation.when, self.value(state)) {
                    // Only of unknown outcome: it was refused, if it was done.
                    return;
                }
                if operation.lost_by.is_some_and(|boot| boot != state.boot) {
                    return;
                }
                let doomed = state.doomed || operation.lost_by.is_some() && !self.is_volatile;
                if doomed && (pins || !state.memory) {
                    return;
                }
                let changed = changed(self.value(state), action);
                let value = changed.map_or(ABSENT, |value| self.number(value));
                let mut past = if pins { Vec::new() } else { state.past.clone() };
                if state.memory
                    && !pins
                    && !state.doomed
                    && (value != state.value || doomed)
                    && let Err(at) = past.binary_search(&state.value)
                {
                    past.insert(at, state.value);
                }
                after.push(State { value, doomed, past, ..*state });
            }
        }
    }

    fn number(&mut self, value: Value) -> u32 {
        if let Some(number) = self.numbers.get(&value) {
            return *number;
        }
        self.values.push(value.clone());
        let number = u32::try_from(self.values.len()).expect("a history has fewer values");
        self.numbers.insert(value, number);
        number
    }
}

fn holds(when: &When, value: Option<&Value>) -> bool {
    match when {
        When::Always => true,
        When::IfAbsent => value.is_none(),
        When::IfSeen { value: seen, .. } => value == Some(seen),
    }
}

/// What a write makes of a value.
fn changed(value: Option<&Value>, action: &Action) -> Option<Value> {
    let mut changed = value.cloned().unwrap_or_default();
    match action {
        Action::Put { stamp } => changed = Value { stamp: *stamp, ..Value::default() },
        Action::Increment { by } => changed.count += by,
        Action::Append { item, keep_last } => {
            changed.log.push(*item);
            let beyond = changed.log.len().saturating_sub(*keep_last);
            changed.log.drain(..beyond);
        }
        Action::Merge { mark } => changed.mark = *mark,
        Action::Delete | Action::Clear | Action::Drop => return None,
        Action::Get | Action::Contains | Action::Commit | Action::Crash { .. } => unreachable!("no write"),
    }
    Some(changed)
}
