//! The model test: random requests, reads, commits, flushes and restarts on the simulated disk, with kills, power cuts,
//! failing calls and full disks thrown in, against plain lists of records in insertion order.
//!
//! The model remembers the state after every request. After a kill the store must be in the last state that was
//! acknowledged, or in that of the request in flight (in a store of durability `memory`, in any from the last one known
//! to be written on); after a power cut in any state from the last one known to be on the platter on. A state spans all namespaces, so a request of which one half survived is found at once.
//!
//! `COMMONHOLD_MODEL_RUNS` sets how many runs there are and `COMMONHOLD_MODEL_SEED` which is the first; a failure names
//! its seed. `scripts/mutants` breaks the store on purpose and expects this test to fail.

use std::collections::BTreeMap;
use std::time::Duration;

use commonhold_proto::message::Kind;
use commonhold_proto::{Condition, Durability, Number, Seq};
use fastrand::Rng;

use super::rig::{Rig, contents, file, options, place};
use crate::engine::disk::{Call, FailWith, Failure, Rules};
use crate::engine::{Earlier, Error, FlushHow, Numbered, WriteRequest, Written};
use crate::json;

const PLACES: [&str; 3] = ["a", "b", "w/a"];
const KEYS: usize = 6;

const DURABILITIES: [Durability; 3] = [Durability::Memory, Durability::Buffered, Durability::Synced];

/// Every namespace's records, in insertion order.
pub(super) type State = BTreeMap<&'static str, Vec<(String, String)>>;

#[derive(Clone, Debug)]
pub(super) enum Op {
    Put(&'static str, String, String, Wish),
    Delete(&'static str, String, Wish),
    Clear(&'static str),
    Change(&'static str, String, Change, Wish),
}

/// What becomes of an object; of anything else the request is refused.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change {
    /// Sets field `m`.
    Merge(u64),
    /// Adds to field `n`.
    Increment(i64),
    /// Adds to the list in field `l` and keeps three items.
    Append(u64),
}

impl Change {
    fn of(self, value: Option<&str>) -> Option<String> {
        let mut fields: Vec<(String, String)> =
            json::members(value.unwrap_or("{}"))?.map(|m| (m.key.to_owned(), m.value.to_owned())).collect();
        let (name, none) = match self {
            Self::Merge(_) => ("\"m\"", "null"),
            Self::Increment(_) => ("\"n\"", "0"),
            Self::Append(_) => ("\"l\"", "[]"),
        };
        let at = fields.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
            fields.push((name.to_owned(), none.to_owned()));
            fields.len() - 1
        });
        let old = &mut fields[at].1;
        *old = match self {
            Self::Merge(value) => value.to_string(),
            Self::Increment(by) => (old.parse::<i64>().unwrap() + by).to_string(),
            Self::Append(item) => {
                let item = item.to_string();
                let items: Vec<_> = json::elements(old).unwrap().chain([item.as_str()]).collect();
                format!("[{}]", items[items.len().saturating_sub(3)..].join(","))
            }
        };
        let fields: Vec<_> = fields.into_iter().map(|(name, value)| format!("{name}:{value}")).collect();
        Some(format!("{{{}}}", fields.join(",")))
    }
}

/// A condition, before it is known what it has to be compared with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Wish {
    Always,
    IfAbsent,
    /// The version that the record has.
    IfCurrent,
    /// A version that no record has.
    IfOther,
}

/// What operations make of a state, with how many keys were new and found; none if they are refused.
pub(super) fn step(state: &State, ops: &[Op]) -> Option<(State, u64, u64)> {
    let (mut state, mut new, mut found) = (state.clone(), 0, 0);
    for (index, op) in ops.iter().enumerate() {
        let (name, key, wish) = match op {
            Op::Put(name, key, _, wish) | Op::Delete(name, key, wish) | Op::Change(name, key, _, wish) => {
                (*name, key, *wish)
            }
            Op::Clear(name) => {
                let records = state.entry(name).or_default();
                found += records.len() as u64;
                records.clear();
                continue;
            }
        };
        // What an earlier operation of this request wrote has no version that could be named.
        let touched = ops[..index].iter().any(|earlier| match earlier {
            Op::Put(n, k, ..) | Op::Delete(n, k, _) | Op::Change(n, k, ..) => *n == name && k == key,
            Op::Clear(n) => *n == name,
        });
        let records = state.entry(name).or_default();
        let at = records.iter().position(|(known, _)| known == key);
        let holds = match wish {
            Wish::Always => true,
            Wish::IfAbsent => at.is_none(),
            Wish::IfCurrent => at.is_some() && !touched,
            Wish::IfOther => false,
        };
        if !holds {
            return None;
        }
        let changed = match op {
            Op::Change(_, _, change, _) => Some(change.of(at.map(|at| records[at].1.as_str()))?),
            Op::Put(_, _, value, _) => Some(value.clone()),
            _ => None,
        };
        found += u64::from(at.is_some());
        match (changed, at) {
            (Some(value), Some(at)) => records[at].1 = value,
            (Some(value), None) => {
                new += 1;
                records.push((key.clone(), value));
            }
            (_, Some(at)) => drop(records.remove(at)),
            (_, None) => {}
        }
    }
    Some((state, new, found))
}

/// One run: a rig, and what it should be in.
struct Run {
    rig: Rig,
    rng: Rng,
    durability: Durability,
    /// After each acknowledged request; the last is the current one.
    states: Vec<State>,
    /// The state that is known to be in the operating system's hands.
    written: usize,
    /// The state that is known to be on the platter.
    platter: usize,
    /// The greatest Seq that was ever answered.
    greatest: Seq,
    next_value: u64,
    /// The client's number for its last request.
    number: u64,
    /// After a restart, the first and the last of the states that the store was found in.
    found: Option<(usize, usize)>,
    /// The requests that were sent last, whose answers it may lose.
    sent: Vec<Sent>,
    crashes: u64,
    rescues: u64,
}

/// A request, and what its client knows of it.
struct Sent {
    ops: Vec<Op>,
    number: u64,
    /// The number of the first one that was sent together with it.
    settled: u64,
    earlier: Earlier,
    answer: Option<Written>,
    /// In which state it was done, as far as that can be told.
    state: Option<usize>,
}

/// What a step may have left undecided.
#[derive(Debug)]
enum Outcome {
    Fine,
    /// The process died in it; these states may have come about.
    Died(Vec<State>),
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let durability = DURABILITIES[rng.usize(..3)];
        let mut options = options(durability);
        options.buffer_bytes = rng.usize(100..3_000);
        options.room_bytes = if rng.bool() { rng.u64(64..3_000) } else { 0 };
        options.segment_bytes = rng.u64(300..3_000);
        options.keep = rng.u32(0..3);
        let rig = Rig::new(options).opened();
        let states = vec![PLACES.iter().map(|name| (*name, Vec::new())).collect()];
        Self {
            rig,
            rng,
            durability,
            states,
            written: 0,
            platter: 0,
            greatest: Seq::ZERO,
            next_value: 0,
            number: 0,
            found: None,
            sent: Vec::new(),
            crashes: 0,
            rescues: 0,
        }
    }

    fn current(&self) -> &State {
        self.states.last().expect("there is always the state in the beginning")
    }

    fn random_ops(&mut self) -> Vec<Op> {
        let count = if self.rng.u8(..4) == 0 { self.rng.usize(1..6) } else { 1 };
        let wish = |rng: &mut Rng| match rng.u8(..16) {
            0 => Wish::IfAbsent,
            1 | 2 => Wish::IfCurrent,
            3 => Wish::IfOther,
            _ => Wish::Always,
        };
        (0..count)
            .map(|_| {
                let name = PLACES[self.rng.usize(..PLACES.len())];
                let key = format!("k{}", self.rng.usize(..KEYS));
                match self.rng.u8(..20) {
                    0 => Op::Clear(name),
                    1..=5 => Op::Delete(name, key, wish(&mut self.rng)),
                    6..=9 => {
                        self.next_value += 1;
                        let change = match self.rng.u8(..3) {
                            0 => Change::Merge(self.next_value),
                            1 => Change::Increment(self.rng.i64(-9..9)),
                            _ => Change::Append(self.next_value),
                        };
                        Op::Change(name, key, change, wish(&mut self.rng))
                    }
                    _ => {
                        self.next_value += 1;
                        let padding = "x".repeat(self.rng.usize(..40));
                        let value = match self.rng.u8(..8) {
                            0 => format!("[{},\"{padding}\"]", self.next_value),
                            _ => format!("{{\"n\":{},\"p\":\"{padding}\"}}", self.next_value),
                        };
                        Op::Put(name, key, value, wish(&mut self.rng))
                    }
                }
            })
            .collect()
    }

    /// Built from a request that was or will be sent; `again` if it may be the second time.
    fn request(&self, sent: &Sent, again: bool) -> Result<WriteRequest, Error> {
        let ops = &sent.ops;
        let mut request = WriteRequest::new(9, sent.number);
        request.once(sent.settled, again.then_some(sent.earlier));
        for op in ops {
            let (Op::Put(name, ..) | Op::Delete(name, ..) | Op::Clear(name) | Op::Change(name, ..)) = op;
            let table = self.rig.store().namespace(&place(name))?;
            let condition = |key: &str, wish| match wish {
                Wish::Always => Condition::Always,
                Wish::IfAbsent => Condition::IfAbsent,
                Wish::IfCurrent => Condition::IfSeq(table.get(key).map_or(Seq(u64::MAX), |record| record.seq())),
                Wish::IfOther => Condition::IfSeq(Seq(u64::MAX - 1)),
            };
            match op {
                Op::Put(_, key, value, wish) => request.put(&table, key, value, condition(key, *wish))?,
                Op::Delete(_, key, wish) => request.delete(&table, key, condition(key, *wish))?,
                Op::Clear(_) => request.clear(&table)?,
                Op::Change(_, key, change, wish) => {
                    let condition = condition(key, *wish);
                    match change {
                        Change::Merge(value) => request.merge(&table, key, &format!("{{\"m\":{value}}}"), condition)?,
                        Change::Increment(by) => request.increment(&table, key, "n", Number::Int(*by), condition)?,
                        Change::Append(item) => {
                            request.append(&table, key, "l", &format!("[{item}]"), Some(3), condition)?;
                        }
                    }
                }
            }
        }
        Ok(request)
    }

    /// Several requests at once, as a session sends them. They are one group of the journal.
    fn write(&mut self) -> Outcome {
        let count = if self.rng.u8(..4) == 0 { self.rng.usize(2..5) } else { 1 };
        let mut batch = Vec::new();
        let earlier = Earlier { boot: self.rig.store().boot(), after: self.greatest };
        let settled = self.number + 1;
        self.sent.clear();
        for _ in 0..count {
            let mut ops = self.random_ops();
            if count > 1 {
                // Versions that requests of the same group give are not known when the next is built.
                for op in &mut ops {
                    if let Op::Put(.., wish) | Op::Delete(.., wish) | Op::Change(.., wish) = op
                        && *wish == Wish::IfCurrent
                    {
                        *wish = Wish::Always;
                    }
                }
            }
            self.number += 1;
            let sent = Sent { ops, number: self.number, settled, earlier, answer: None, state: None };
            match self.request(&sent, false) {
                Ok(request) => batch.push(request),
                Err(error) => {
                    self.sent.clear();
                    return self.failed(&error, &[]);
                }
            }
            self.sent.push(sent);
        }
        let asked = (self.rng.u8(..6) == 0).then(|| DURABILITIES[self.rng.usize(..3)]);
        if let Some(request) = batch.last_mut() {
            request.durability(asked);
        }
        let results = self.rig.store().write(batch);
        // It is the last one that asked for more, and it got that if it was done.
        let asked = asked.filter(|_| results.last().is_some_and(Result::is_ok));
        let before = self.states.len();
        let mut in_flight = Vec::new();
        // As if those that failed had been done, because a request of the same group was evaluated over them; and as it is.
        let mut as_if = self.current().clone();
        let mut failure = None;
        let mut sent = std::mem::take(&mut self.sent);
        for (sent, result) in sent.iter_mut().zip(results) {
            let ops = &sent.ops;
            let (done, expected) = (step(self.current(), ops), step(&as_if, ops));
            match result {
                Ok(written) => {
                    let (next, new, found) = done.unwrap_or_else(|| panic!("{ops:?} was done against its conditions"));
                    self.acknowledged(written, new, found);
                    as_if = expected.map_or_else(|| next.clone(), |(as_if, ..)| as_if);
                    self.states.push(next);
                    (sent.answer, sent.state) = (Some(written), Some(self.states.len() - 1));
                }
                Err(Error::ConditionFailed { .. } | Error::WrongType { .. }) => {
                    assert!(done.is_none() || expected.is_none(), "{ops:?}");
                }
                Err(
                    error @ (Error::Full { .. }
                    | Error::Disk { .. }
                    | Error::OutcomeUnknown { .. }
                    | Error::Unavailable { .. }),
                ) => {
                    // The whole group failed together, or on a full disk all but what frees space: what it would have
                    // come to may still be found if the process died.
                    in_flight.extend([&done, &expected].into_iter().flatten().map(|(next, ..)| next.clone()));
                    as_if = expected.map_or(as_if, |(next, ..)| next);
                    failure = Some(error);
                }
                Err(other) => panic!("{ops:?}: {other:?}"),
            }
        }
        if self.states.len() > before {
            self.reached(self.durability.max(asked.unwrap_or(Durability::Memory)));
        }
        let outcome = failure.map_or(Outcome::Fine, |error| self.failed(&error, &in_flight));
        if let ([sent], Outcome::Died(_)) = (&mut sent[..], &outcome) {
            // What was in flight comes behind all that is known.
            sent.state = Some(self.states.len());
        }
        self.sent = sent;
        outcome
    }

    /// The connection was lost before the answers came, and the client sends its requests again: to the same owner, whom
    /// nothing has befallen.
    fn repeat(&mut self) -> Outcome {
        let sent = std::mem::take(&mut self.sent);
        for sent in &sent {
            let Some(answer) = sent.answer else { continue };
            let (number, settled, earlier) = (sent.number, sent.settled, Some(sent.earlier));
            let numbered = Numbered { client: 9, number, settled, earlier };
            match self.rig.store().first_outcome(&numbered, Kind::Persistent) {
                Ok(first) => assert_eq!(first.map(|first| first.seq), Some(answer.seq), "{:?}", sent.ops),
                Err(error) => assert!(self.may_forget(), "{:?}: {error:?}", sent.ops),
            }
            let again = self.request(sent, true).and_then(|request| self.rig.store().write(vec![request]).remove(0));
            match again {
                Ok(again) => assert_eq!(again, answer, "{:?}", sent.ops),
                Err(Error::OutcomeUnknown { .. }) if self.may_forget() => {}
                // The disk fails just now.
                Err(error) => return self.failed(&error, &[]),
            }
        }
        self.sent = sent;
        Outcome::Fine
    }

    /// Whether the table of outcomes is smaller than what one client may have open.
    fn may_forget(&self) -> bool {
        self.rig.options.segment_bytes < 1_000
    }

    /// The same to the next owner. `found` are the first and the last state that the store can be in, and `given` is the
    /// last Seq that earlier owners can have given.
    fn repeat_after_a_restart(&mut self, found: (usize, usize), given: Seq) {
        for sent in std::mem::take(&mut self.sent) {
            let done = step(self.current(), &sent.ops);
            let request = self.request(&sent, true).expect("the disk works");
            let again = self.rig.store().write(vec![request]).pop().expect("one request, one result");
            match again {
                Ok(written) if written.seq <= given => {
                    assert!(
                        sent.state.is_none_or(|state| state <= found.1),
                        "{:?} was lost, and is answered",
                        sent.ops
                    );
                    assert!(sent.answer.is_none_or(|answer| answer == written), "it is the first answer");
                }
                Ok(written) => {
                    assert!(sent.state.is_none_or(|state| state > found.0), "{:?} was done twice", sent.ops);
                    let (next, new, found) = done.expect("it was done against its conditions");
                    self.acknowledged(written, new, found);
                    self.states.push(next);
                    self.reached(self.durability);
                }
                Err(Error::ConditionFailed { .. } | Error::WrongType { .. }) => assert!(done.is_none()),
                Err(Error::OutcomeUnknown { .. }) if self.may_forget() => {}
                Err(other) => panic!("a repeat of {:?}: {other:?}", sent.ops),
            }
        }
        self.check_reads();
    }

    /// All that was acknowledged so far has got so far.
    fn reached(&mut self, durability: Durability) {
        if durability >= Durability::Buffered {
            self.written = self.states.len() - 1;
        }
        if durability == Durability::Synced {
            self.platter = self.states.len() - 1;
        }
    }

    fn acknowledged(&mut self, written: Written, new: u64, found: u64) {
        assert!(written.seq > self.greatest, "a Seq was given twice, or out of order");
        self.greatest = written.seq;
        assert_eq!((written.new, written.found), (new, found));
    }

    /// A call failed: because the process died, or because the disk refused it.
    fn failed(&mut self, error: &Error, in_flight: &[State]) -> Outcome {
        if self.rig.disk.is_dead() {
            return Outcome::Died(in_flight.to_vec());
        }
        match error {
            // Undone in place: nothing has changed, as the reads after every step will see.
            Error::Full { .. } | Error::Disk { .. } => Outcome::Fine,
            // The journal cannot be trusted any more. What was in flight may be found at the next start.
            Error::OutcomeUnknown { .. } | Error::Unavailable { .. } => Outcome::Died(in_flight.to_vec()),
            other => panic!("unexpected: {other:?}"),
        }
    }

    fn commit(&mut self) -> Outcome {
        match self.rig.commit() {
            Ok(_) => {
                self.reached(Durability::Synced);
                Outcome::Fine
            }
            Err(error) => self.failed(&error, &[]),
        }
    }

    fn flush(&mut self) -> Outcome {
        let name = PLACES[self.rng.usize(..PLACES.len())];
        let how = FlushHow { rewrite: self.rng.u8(..4) == 0, lock_timeout: None };
        match self.rig.store().flush(&place(name), how) {
            Ok(flushed) => {
                if flushed.rewritten {
                    // Without a file there is nothing in it: what a drop that no write followed comes to.
                    let in_file = if self.rig.has_file(name) { self.rig.in_file(name) } else { Vec::new() };
                    assert_eq!(in_file, self.current()[name], "the file is the state at the cut");
                    // The intent was synced, and with it everything before.
                    self.reached(Durability::Synced);
                }
                Outcome::Fine
            }
            Err(error) => self.failed(&error, &[]),
        }
    }

    /// A drop without the flush that removes the file; that may come, or a write, or a crash.
    fn drop_records(&mut self) -> Outcome {
        let name = PLACES[self.rng.usize(..PLACES.len())];
        let mut next = self.current().clone();
        let records = std::mem::take(next.get_mut(name).unwrap()).len() as u64;
        match self.rig.drop_records(name) {
            Ok(dropped) => {
                assert_eq!(dropped.records, records);
                if dropped.needs_flush {
                    assert!(dropped.seq > self.greatest, "a Seq was given twice, or out of order");
                    self.greatest = dropped.seq;
                    self.states.push(next);
                    if self.durability == Durability::Synced {
                        self.platter = self.states.len() - 1;
                    }
                }
                Outcome::Fine
            }
            Err(error) => self.failed(&error, &[next]),
        }
    }

    fn check_reads(&self) {
        for name in PLACES {
            // A namespace that cannot be loaded because the disk fails right now is looked at later.
            if let Ok(table) = self.rig.store().namespace(&place(name)) {
                assert_eq!(contents(&table), self.current()[name], "namespace {name}");
                for key in 0..KEYS {
                    let key = format!("k{key}");
                    let expected = self.current()[name].iter().find(|(known, _)| *known == key);
                    assert_eq!(
                        table.get(&key).map(|record| record.value().to_owned()),
                        expected.map(|(_, v)| v.clone())
                    );
                }
            }
        }
    }

    /// Leaves the disk as the next owner finds it, with no store open on it.
    fn lose_the_owner(&mut self, power_cut: bool) {
        let disk = if power_cut {
            let seed = self.rng.u64(..);
            self.rig.disk.power_cut(seed, Rules::any(seed))
        } else {
            self.rig.disk.kill()
        };
        self.rig = Rig::on(disk, self.rig.options.clone());
    }

    /// The owner is gone; opens the store as the next owner finds it.
    fn restart(&mut self, power_cut: bool, in_flight: Vec<State>) {
        self.crashes += 1;
        self.rig.close();
        self.lose_the_owner(power_cut);
        // The next owner may die while it opens the store, more than once.
        while self.rng.u8(..4) == 0 {
            self.crashes += 1;
            self.rig.disk.crash_after(self.rng.u64(1..40));
            // It may also come through, if the crash was set for later than its last call.
            drop(self.rig.try_open());
            self.rig.close();
            self.lose_the_owner(power_cut);
        }
        if self.rng.u8(..4) == 0 {
            self.serve_with_a_torn_file(power_cut);
        }
        self.rig.try_open().unwrap_or_else(|error| panic!("the store does not open after a crash: {error:?}"));
        let opening = self.rig.store().opening();
        assert!(opening.closed.is_empty(), "a crash closed {:?}", opening.closed);
        let found: State = PLACES.iter().map(|name| (*name, self.rig.all(name))).collect();
        let oldest = if power_cut { self.platter } else { self.written };
        self.states.extend(in_flight);
        let which = (oldest..self.states.len()).rev().find(|index| self.states[*index] == found);
        let first = (oldest..self.states.len()).find(|index| self.states[*index] == found);
        let Some(which) = which else {
            let older = self.states.iter().position(|state| *state == found);
            panic!(
                "after a {} the store is in {} (allowed: {oldest} to {}): {found:?}",
                if power_cut { "power cut" } else { "kill" },
                older.map_or("no state it ever was in".to_owned(), |older| format!("state {older}")),
                self.states.len() - 1,
            );
        };
        self.states.truncate(which + 1);
        // What was read here was read from what the platter holds, and the start has synced it anew.
        (self.written, self.platter) = (which, which);
        self.found = Some((first.unwrap_or(which), which));
    }

    /// For a while one namespace's file is not what it should be; owners come and go, and then the right one is back.
    fn serve_with_a_torn_file(&mut self, power_cut: bool) {
        let torn = PLACES[self.rng.usize(..PLACES.len())];
        let directory = file(torn).parent().expect("a file has a directory").to_owned();
        if !self.rig.disk.exists(&directory) {
            return;
        }
        let right = self.rig.disk.exists(file(torn)).then(|| self.rig.disk.read_file(file(torn)));
        self.rig.disk.write_file(file(torn), b"{\n\"torn\": 1,");
        for _ in 0..self.rng.u8(1..4) {
            self.crashes += 1;
            self.rig.disk.crash_after(self.rng.u64(1..120));
            if self.rig.try_open().is_ok() {
                // Without writes: what the others have in memory goes to their files, and segments go.
                for name in PLACES {
                    let outcome = self.rig.store().flush(&place(name), FlushHow { rewrite: true, lock_timeout: None });
                    assert!(name != torn || outcome.is_err(), "a torn file was replaced");
                    let _ = self.rig.store().tick();
                }
            }
            self.rig.close();
            self.lose_the_owner(power_cut);
        }
        match right {
            Some(bytes) => self.rig.disk.write_file(file(torn), &bytes),
            None => self.rig.disk.remove_path(file(torn)),
        }
    }

    /// What is in the files for good, if the journal has failed and the rescue has come through.
    fn rescue(&mut self) -> Option<State> {
        let store = self.rig.store();
        if store.refuses_writes().is_none() || self.rng.u8(..4) == 0 {
            return None;
        }
        if self.rng.bool() {
            self.rig.disk.mend();
        }
        store.rescue(Duration::ZERO);
        // Over without anything left to do; or over because it could not begin.
        let is_safe = !store.needs_rescue() && store.dirty().is_empty() && !self.rig.disk.is_dead();
        is_safe.then(|| PLACES.iter().map(|name| (*name, self.rig.all(name))).collect())
    }

    fn random_failure(&mut self) -> Failure {
        const CALLS: [Call; 9] = [
            Call::Write,
            Call::Sync,
            Call::Rename,
            Call::Create,
            Call::Link,
            Call::Remove,
            Call::Truncate,
            Call::Allocate,
            Call::SyncDir,
        ];
        let nth = self.rng.u64(1..6);
        match self.rng.u8(..5) {
            3 | 4 => Failure::nth(nth.min(2), FailWith::Io).of(Call::Sync).on("journal"),
            0 => Failure::nth(nth, FailWith::NoSpace),
            1 => Failure::nth(nth, FailWith::ShortWrite),
            _ => match CALLS[self.rng.usize(..CALLS.len())] {
                // A new workspace whose name the disk lost in a failed sync cannot be told from one that is there, not
                // even by the next owner: `docs/storage.md` names it among what is assumed of disks.
                Call::SyncDir => Failure::nth(nth, FailWith::Io).of(Call::SyncDir).on("journal"),
                call => Failure::nth(nth, FailWith::Io).of(call),
            },
        }
    }

    fn step(&mut self) {
        let outcome = match self.rng.u8(..40) {
            0 | 1 => {
                self.rig.disk.crash_after(self.rng.u64(1..60));
                Outcome::Fine
            }
            2 => {
                let failure = self.random_failure();
                self.rig.disk.fail(failure);
                Outcome::Fine
            }
            3 => {
                let power_cut = self.rng.bool();
                self.restart(power_cut, Vec::new());
                Outcome::Fine
            }
            4..=6 => self.commit(),
            7..=10 => self.flush(),
            11 => match self.rig.store().tick() {
                Ok(()) => {
                    self.reached(Durability::Synced);
                    Outcome::Fine
                }
                Err(error) => self.failed(&error, &[]),
            },
            12 => self.drop_records(),
            13 | 14 => self.repeat(),
            _ => self.write(),
        };
        // A write that asked for more than the store promises may be seen although its outcome is unknown.
        let undecided = matches!(&outcome, Outcome::Died(in_flight) if !in_flight.is_empty());
        if !self.rig.disk.is_dead() && !undecided {
            self.check_reads();
        }
        let died = match outcome {
            Outcome::Died(in_flight) => Some(in_flight),
            Outcome::Fine => self.rig.disk.is_dead().then(Vec::new),
        };
        if let Some(in_flight) = died {
            let rescued = self.rescue();
            let power_cut = self.rng.bool();
            self.restart(power_cut, in_flight);
            if let Some(rescued) = rescued {
                self.rescues += 1;
                assert_eq!(*self.current(), rescued, "a rescue that says it is over has brought all of it to safety");
            }
        }
        if let Some(found) = self.found.take() {
            if self.rng.u8(..4) > 0 {
                self.repeat_after_a_restart(found, self.rig.store().opening().last);
            }
            self.sent.clear();
        }
    }
}

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

#[test]
fn model_of_a_store_through_crashes_power_cuts_and_failing_disks() {
    let first = setting("COMMONHOLD_MODEL_SEED", 1);
    let runs = setting("COMMONHOLD_MODEL_RUNS", 300);
    let (mut crashes, mut rescues) = (0, 0);
    for seed in first..first + runs {
        let run = std::panic::catch_unwind(|| {
            let mut run = Run::new(seed);
            for _ in 0..120 {
                run.step();
            }
            (run.crashes, run.rescues)
        });
        match run {
            Ok(counts) => (crashes, rescues) = (crashes + counts.0, rescues + counts.1),
            Err(panic) => {
                eprintln!("the model test failed: repeat it with COMMONHOLD_MODEL_SEED={seed} COMMONHOLD_MODEL_RUNS=1");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{runs} runs from seed {first}, {crashes} crashes survived, {rescues} rescues came through");
    assert!(crashes >= runs * 5, "the runs hardly crashed, so they show nothing");
    assert!(runs < 100 || rescues >= runs / 10, "hardly any journal failed, so the rescue was not tried");
}
