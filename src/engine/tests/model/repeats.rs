//! Requests whose answers the model's client loses, and that it sends again.

use commonhold_proto::Seq;
use commonhold_proto::message::Kind;

use super::ops::{Op, step};
use super::{Outcome, Run};
use crate::engine::{Earlier, Error, Numbered, Written};

/// A request, and what its client knows of it.
pub(super) struct Sent {
    pub(super) ops: Vec<Op>,
    pub(super) number: u64,
    /// The number of the first one that was sent together with it.
    pub(super) settled: u64,
    pub(super) earlier: Earlier,
    pub(super) answer: Option<Written>,
    /// In which state it was done, as far as that can be told.
    pub(super) state: Option<usize>,
}

impl Run {
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
    pub(super) fn repeat_after_a_restart(&mut self, found: (usize, usize), given: Seq) {
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
}
