//! A history: what all processes recorded, put together, and kept in a file when it does not hold.

use std::collections::HashMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::checker::Partition;
use super::model::{Action, Operation, Outcome, When};
use super::objects::{OBJECTS, Object, STORE, object};
use super::recorder::{Failure, Line, read};

/// A daemon's life. Times as in [`Operation`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Boot {
    /// It answers from memory, and may lose what was not asked to be more durable.
    pub(crate) memory: bool,
    /// When its end began, and when it was certainly over; none while it serves.
    pub(crate) gone: Option<(u64, u64)>,
    pub(crate) killed: bool,
}

/// What happened in one run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct History {
    pub(crate) seed: u64,
    pub(crate) boots: Vec<Boot>,
    pub(crate) operations: Vec<Operation>,
}

impl History {
    pub(crate) fn new(seed: u64, boots: Vec<Boot>) -> Self {
        Self { seed, boots, operations: Vec::new() }
    }

    /// Adds what a process recorded. `gone`: when it was certainly over, if it was killed.
    pub(crate) fn add(&mut self, process: u32, log: &Path, gone: Option<u64>) -> Result<(), Failure> {
        let mut begun = Vec::new();
        let mut ended = HashMap::new();
        for line in read(log)? {
            match line {
                Line::Begun(request) => begun.push(request),
                Line::Ended(end) => {
                    ended.insert(end.id, (end.at, end.outcome));
                }
            }
        }
        for request in begun {
            let open = || format!("process {process} left request {} open", request.id);
            let (at, outcome) = match (ended.remove(&request.id), gone) {
                (Some(end), _) => end,
                (None, Some(gone)) => (gone, Outcome::Unknown),
                (None, None) => return Err(open().into()),
            };
            let is_write = !matches!(request.action, Action::Get | Action::Contains | Action::Commit);
            // What has no effect and no answer says nothing.
            if outcome == Outcome::NotDone || outcome == Outcome::Unknown && !is_write {
                continue;
            }
            let until = if outcome == Outcome::Unknown { self.end_of_effects(at) } else { at };
            let weak = match &request.when {
                When::IfSeen { since, .. } => self.has_restarted_between(*since, at),
                When::Always | When::IfAbsent => false,
            };
            let in_order = outcome != Outcome::Unknown && !self.has_restarted_between(request.at, at);
            let operation = Operation {
                process,
                id: request.id,
                object: request.object,
                action: request.action,
                when: request.when,
                pins: request.pins,
                call: request.at,
                until,
                outcome,
                weak,
                in_order,
                lost_by: None,
            };
            if is_write {
                self.operations.extend(self.traces(&operation, at));
            }
            self.operations.push(operation);
        }
        Ok(())
    }

    /// What daemons may have shown of a write before they lost it, where the client was still asking when the next one came.
    fn traces(&self, operation: &Operation, asked_until: u64) -> Vec<Operation> {
        let is_volatile = object(&operation.object).is_some_and(Object::is_volatile);
        let trace = |(boot, daemon): (usize, &Boot)| {
            let (_, until) = daemon.gone?;
            let loses = is_volatile || daemon.memory && daemon.killed;
            (loses && (operation.call..asked_until).contains(&until)).then(|| Operation {
                until,
                outcome: Outcome::Unknown,
                in_order: false,
                lost_by: u32::try_from(boot).ok(),
                ..operation.clone()
            })
        };
        self.boots.iter().enumerate().filter_map(trace).collect()
    }

    /// Nobody asks any more from `at` on, so what was asked is done, if ever, by the daemon that serves then.
    fn end_of_effects(&self, at: u64) -> u64 {
        self.boots
            .iter()
            .filter_map(|boot| boot.gone)
            .map(|(_, over)| over)
            .find(|over| *over >= at)
            .unwrap_or(u64::MAX)
    }

    fn has_restarted_between(&self, from: u64, to: u64) -> bool {
        self.boots.iter().filter_map(|boot| boot.gone).any(|(begun, over)| over >= from && begun <= to)
    }

    /// How many reads a process sent of an object while it waited for the answer to a write of its own to that.
    pub(crate) fn reads_behind_own_writes(&self) -> u64 {
        let is_read = |one: &&Operation| matches!(one.outcome, Outcome::Read(_));
        let is_behind = |read: &&Operation| {
            let is_open_write = |one: &Operation| {
                let is_own = (one.process, &one.object) == (read.process, &read.object);
                is_own && matches!(one.outcome, Outcome::Written { .. }) && (one.call..one.until).contains(&read.call)
            };
            self.operations.iter().any(is_open_write)
        };
        self.operations.iter().filter(is_read).filter(is_behind).count() as u64
    }

    /// The operations on each object, with the ends of daemons that concern it.
    pub(crate) fn partitions(&self) -> Vec<Partition> {
        let from_memory = self.boots.iter().any(|boot| boot.memory);
        let of = |name: &str| {
            let is_volatile = object(name).is_some_and(Object::is_volatile);
            let mut operations: Vec<Operation> =
                self.operations.iter().filter(|operation| operation.object == name).cloned().collect();
            if from_memory && !is_volatile {
                operations.extend(self.operations.iter().filter(|operation| operation.object == STORE).cloned());
            }
            if from_memory || is_volatile {
                operations.extend(self.crashes(name));
            }
            operations.sort_by_key(|operation| operation.call);
            let memory = self.boots.first().is_some_and(|boot| boot.memory);
            Partition { object: name.to_owned(), is_volatile, memory, operations }
        };
        OBJECTS.iter().map(|object| of(object.name)).collect()
    }

    fn crashes(&self, object: &str) -> impl Iterator<Item = Operation> {
        self.boots.iter().enumerate().filter_map(move |(index, boot)| {
            let (call, until) = boot.gone?;
            let then_memory = self.boots.get(index + 1).is_some_and(|next| next.memory);
            Some(Operation {
                process: 0,
                id: 0,
                object: object.to_owned(),
                action: Action::Crash { killed: boot.killed, then_memory },
                when: When::Always,
                pins: false,
                call,
                until,
                outcome: Outcome::Done,
                weak: false,
                in_order: false,
                lost_by: None,
            })
        })
    }

    pub(crate) fn save(&self, path: &Path) -> Result<(), Failure> {
        Ok(std::fs::write(path, serde_json::to_string(self)?)?)
    }

    pub(crate) fn load(path: &Path) -> Result<Self, Failure> {
        Ok(serde_json::from_slice(&std::fs::read(path)?)?)
    }
}
