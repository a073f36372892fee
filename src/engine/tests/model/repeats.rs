//! Requests whose answers the model's client loses, and that it sends again.

use commonhold_proto::Seq;
use commonhold_proto::message::Kind;

use super::ops::{Op, step};
use super::{Outcome, Run, State};
use crate::engine::tests::rig::place;
use crate::engine::{Dropped, Earlier, Error, Fence, Numbered, Written};

/// A request, and what its client knows of it.
pub(super) struct Sent {
    pub(super) ops: Vec<Op>,
    /// The namespace that it drops, instead.
    pub(super) drops: Option<&'static str>,
    pub(super) number: u64,
    /// The number of the first one that was sent together with it.
    pub(super) settled: u64,
    pub(super) earlier: Earlier,
    pub(super) answer: Option<Written>,
    /// In which state it was done, as far as that can be told.
    pub(super) state: Option<usize>,
}

impl Sent {
    /// What it makes of a state; none if it is refused.
    fn step(&self, state: &State) -> Option<(State, u64, u64)> {
        let Some(name) = self.drops else { return step(state, &self.ops) };
        let mut next = state.clone();
        let records = std::mem::take(next.get_mut(name).expect("the state has all namespaces")).len() as u64;
        Some((next, 0, records))
    }
}

/// The answer to a drop in the words of that to a write.
pub(super) fn answer_of(dropped: Dropped) -> Written {
    Written { seq: dropped.seq, new: 0, found: dropped.records, surrogates_removed: 0 }
}

impl Run {
    /// Sends a request again.
    fn send_again(&self, sent: &Sent) -> Result<Written, Error> {
        let Some(name) = sent.drops else {
            return self.rig.store().write(vec![self.request(sent, true)?]).remove(0);
        };
        let numbered = Numbered { client: 9, number: sent.number, settled: sent.settled, earlier: Some(sent.earlier) };
        self.rig.store().drop_namespace_once(&place(name), &numbered, &Fence::default()).map(answer_of)
    }

    /// The connection was lost before the answers came, and the client sends its requests again: to the same owner, whom
    /// nothing has befallen.
    pub(super) fn repeat(&mut self) -> Outcome {
        let sent = std::mem::take(&mut self.sent);
        for sent in &sent {
            let Some(answer) = sent.answer else { continue };
            let (number, settled, earlier) = (sent.number, sent.settled, Some(sent.earlier));
            let numbered = Numbered { client: 9, number, settled, earlier };
            match self.rig.store().first_outcome(&numbered, Kind::Persistent) {
                Ok(first) => assert_eq!(first.map(|first| first.seq), Some(answer.seq), "{:?}", sent.ops),
                Err(error) => assert!(self.may_forget(), "{:?}: {error:?}", sent.ops),
            }
            match self.send_again(sent) {
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
    pub(super) fn repeat_after_a_restart(&mut self, found: (usize, usize), given: Seq) {
        for sent in std::mem::take(&mut self.sent) {
            let done = sent.step(self.current());
            match self.send_again(&sent) {
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
}
