//! What the model's users ask for, and what a plain list of records makes of it.

use std::collections::BTreeMap;

use commonhold_proto::{Condition, Number, Seq};
use fastrand::Rng;

use super::repeats::Sent;
use super::{KEYS, PLACES, Run};
use crate::engine::tests::rig::place;
use crate::engine::{Error, WriteRequest};
use crate::json;

/// Every namespace's records, in insertion order.
pub(in crate::engine::tests) type State = BTreeMap<&'static str, Vec<(String, String)>>;

#[derive(Clone, Debug)]
pub(in crate::engine::tests) enum Op {
    Put(&'static str, String, String, Wish),
    Delete(&'static str, String, Wish),
    Clear(&'static str),
    Change(&'static str, String, Change, Wish),
}

/// What becomes of an object; of anything else the request is refused.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine::tests) enum Change {
    /// Sets field `m`.
    Merge(u64),
    /// Adds to field `n`.
    Increment(i64),
    /// Adds to the list in field `l` and keeps three items.
    Append(u64),
}

impl Change {
    pub(super) fn of(self, value: Option<&str>) -> Option<String> {
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
pub(in crate::engine::tests) enum Wish {
    Always,
    IfAbsent,
    /// The version that the record has.
    IfCurrent,
    /// A version that no record has.
    IfOther,
}

/// What operations make of a state, with how many keys were new and found; none if they are refused.
pub(in crate::engine::tests) fn step(state: &State, ops: &[Op]) -> Option<(State, u64, u64)> {
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

impl Run {
    pub(super) fn random_ops(&mut self) -> Vec<Op> {
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
    pub(super) fn request(&self, sent: &Sent, again: bool) -> Result<WriteRequest, Error> {
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
}
