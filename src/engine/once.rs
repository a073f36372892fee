//! Doing once what may be sent twice: what a request says of its number, and what became of an earlier sending.
//!
//! Whether a number was done is decided where its request is done: under the writer's turn, from the journal's
//! [`Outcomes`], or for volatile namespaces under the lock of that client's part of [`VolatileOutcomes`]. So a repeat
//! that meets its first sending waits for it there, and finds its outcome. What is here asks ahead of that, for
//! requests that may be refused for another reason before they get there.
//!
//! A number that is forgotten can be told from one that was never done only by what a repeat says of its first sending. A first
//! sending says nothing, so it must not come after its repeat: [`Fence`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use commonhold_proto::Seq;
use commonhold_proto::message::Kind;
use parking_lot::Mutex;

use super::error::Error;
use super::journal::{Earlier, Outcome, Outcomes, Recall, WriteHead};
use super::memory::{Gauge, Held};
use super::request::behind;
use super::seeded_fault::is_seeded;
use super::store::Store;

/// A client's number for a request that is to be done once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbered {
    /// The client.
    pub client: u128,
    /// Its number for the request, from 1, rising; 0 for none.
    pub number: u64,
    /// It knows what became of its requests below this number.
    pub settled: u64,
    /// What it knows of an earlier sending, if there may have been one.
    pub earlier: Option<Earlier>,
}

impl Numbered {
    pub(super) fn head(&self, found: u64) -> WriteHead {
        let Self { client, number, settled, .. } = *self;
        WriteHead { client, number, behind: behind(number, settled), new: 0, found }
    }
}

/// What an earlier sending was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct First {
    /// Its number in the order of the store.
    pub seq: Seq,
    /// How many keys were new.
    pub new: u64,
    /// How many keys were found; of a drop, the records that there were.
    pub found: u64,
}

/// What stands between a connection and the store once its client has repeated a write on a later one: of what was sent on the
/// earlier one and is still on its way, nothing is done any more.
///
/// It is looked at where the request is done, under the same lock as what became of it. So whoever has raised it and comes
/// there finds all that was done before, and nothing is done after.
#[derive(Clone, Debug, Default)]
pub struct Fence(Arc<AtomicBool>);

impl Fence {
    /// Nothing that is not done yet passes from here on.
    pub fn raise(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// # Errors
    /// [`Error::OutcomeUnknown`] once it is raised: whether it was done, who repeats it is told.
    pub(super) fn check(&self) -> Result<(), Error> {
        if !self.0.load(Ordering::Acquire) {
            return Ok(());
        }
        let reason = "its client has gone on on a later connection and sent writes of this one again there";
        Err(Error::OutcomeUnknown { reason: reason.to_owned() })
    }
}

impl From<Outcome> for First {
    fn from(outcome: Outcome) -> Self {
        Self { seq: outcome.seq, new: outcome.new.into(), found: outcome.found }
    }
}

impl Outcomes {
    /// What became of the request, if it was done; an error if that cannot be known.
    pub(super) fn first(&self, numbered: &Numbered) -> Result<Option<First>, Error> {
        if is_seeded("repeat-done-twice") {
            return Ok(None);
        }
        match self.look_up(numbered.client, numbered.number, numbered.earlier) {
            Recall::Not => Ok(None),
            Recall::Done(outcome) => Ok(Some(outcome.into())),
            Recall::Unknown(reason) => Err(Error::OutcomeUnknown { reason: reason.to_owned() }),
        }
    }
}

/// Parts of the table of volatile outcomes: clients in different ones do not wait for each other.
const PARTS: usize = 16;
/// Bytes, as in the journal's section, of each part.
const PART_BYTES: usize = 64 << 10;

/// What became of writes to volatile namespaces, for as long as the daemon lives, as they do.
#[derive(Debug)]
pub(super) struct VolatileOutcomes([Mutex<Part>; PARTS]);

/// What became of some clients' writes to volatile namespaces, and what that takes.
#[derive(Debug)]
pub(super) struct Part {
    known: Outcomes,
    memory: Held,
}

impl Part {
    /// What became of the request, if it was done; an error if that cannot be known.
    pub(super) fn first(&self, numbered: &Numbered) -> Result<Option<First>, Error> {
        self.known.first(numbered)
    }

    /// Notes what became of a write.
    pub(super) fn note(&mut self, head: WriteHead, seq: Seq, boot: u64) {
        self.known.note(head, seq, boot);
        self.count();
    }

    fn count(&mut self) {
        self.memory.set(self.known.memory());
    }
}

impl VolatileOutcomes {
    /// Nothing yet; what it will take counts.
    pub(super) fn measured(gauge: &Gauge) -> Self {
        Self(std::array::from_fn(|_| {
            let mut known = Outcomes::default();
            known.limit(PART_BYTES);
            Mutex::new(Part { known, memory: Held::of(gauge) })
        }))
    }

    /// The part of this client. Whoever holds it may take the orders of namespaces, and not the other way round.
    pub(super) fn of(&self, client: u128) -> &Mutex<Part> {
        &self.0[client as usize % PARTS]
    }

    /// How many clients and outcomes, and about how many bytes they take.
    fn extent(&self) -> (usize, usize, usize) {
        self.0.iter().fold((0, 0, 0), |sum, part| {
            let part = part.lock();
            let (clients, outcomes) = part.known.extent();
            (sum.0 + clients, sum.1 + outcomes, sum.2 + part.memory.bytes())
        })
    }
}

impl Store {
    /// What became of an earlier sending of a request to namespaces of this kind; none if it was not done.
    ///
    /// # Errors
    /// [`Error::OutcomeUnknown`] if that cannot be known; the request is not to be done then.
    pub fn first_outcome(&self, numbered: &Numbered, kind: Kind) -> Result<Option<First>, Error> {
        let first = self.in_outcomes(numbered.client, kind, |outcomes| outcomes.first(numbered))?;
        self.or_unknown(first, kind)
    }

    /// A repeated request is refused for a reason of its own: an earlier sending that is still on its way will not be done
    /// either. If that was done meanwhile, this is what became of it.
    ///
    /// # Errors
    /// As [`first_outcome`](Self::first_outcome).
    pub fn refuse_repeat(&self, numbered: &Numbered, kind: Kind) -> Result<Option<First>, Error> {
        let first = self.in_outcomes(numbered.client, kind, |outcomes| {
            let first = outcomes.first(numbered)?;
            if first.is_none() && numbered.number > 0 {
                outcomes.refuse(numbered.client, numbered.number);
            }
            Ok::<_, Error>(first)
        })?;
        self.or_unknown(first, kind)
    }

    /// How many clients and outcomes of theirs are remembered, and about how many bytes that takes.
    pub fn outcomes(&self) -> (usize, usize, usize) {
        let kept = self.turn.exclusive(|writer| {
            let outcomes = writer.appender.outcomes();
            (outcomes.extent(), outcomes.memory())
        });
        self.with_volatile((kept.0.0, kept.0.1, kept.1))
    }

    /// The same where those of persistent writes are known already.
    pub(super) fn with_volatile(&self, kept: (usize, usize, usize)) -> (usize, usize, usize) {
        let volatile = self.volatile_outcomes.extent();
        (kept.0 + volatile.0, kept.1 + volatile.1, kept.2 + volatile.2)
    }

    fn in_outcomes<T>(&self, client: u128, kind: Kind, ask: impl FnOnce(&mut Outcomes) -> T) -> T {
        match kind {
            Kind::Persistent => self.turn.exclusive(|writer| ask(writer.appender.outcomes())),
            Kind::Volatile => {
                let mut part = self.volatile_outcomes.of(client).lock();
                let answer = ask(&mut part.known);
                part.count();
                answer
            }
        }
    }

    /// After the disk has ended writing, what was in the journal and never seen may come back at the next start.
    fn or_unknown(&self, first: Option<First>, kind: Kind) -> Result<Option<First>, Error> {
        match self.poison.reason() {
            Some(reason) if first.is_none() && kind == Kind::Persistent => {
                Err(Error::OutcomeUnknown { reason: reason.to_owned() })
            }
            _ => Ok(first),
        }
    }
}
