//! What became of each client's last writes, so that a write that is sent again is answered and not done again.
//!
//! A client numbers its writes. For each client the table keeps the outcomes of those whose answer it may not have got:
//! each write says below which number all are *settled*, and those are let go of. What is kept of a write is what its
//! answer said: its Seq and two counts. Section 2 of a segment's header, little-endian:
//!
//! ```text
//! u64 boot, u64 Seq: the greatest of any outcome that was forgotten with its client
//! u32 clients; each, the one least recently heard of first:
//!   u128 client
//!   u64 boot number of the daemon that last wrote for it, u64 Seq of its last write
//!   u64 floor: of numbers up to this one nothing is known that is not below
//!   u64 since: outcomes of this client up to this Seq may have been forgotten with it, once
//!   u32 outcomes; each, by number: u64 number, u64 Seq, u64 found, u32 new
//! ```
//!
//! A number that is not there was provably not done if it is above its client's floor and nothing of that time was
//! forgotten; [`Outcomes::look_up`] decides. A number alone cannot tell what was forgotten: a write that waits for a
//! load is passed by others, so numbers are not done in their order. Of one client at most [`MAX_OPEN_WRITES`] outcomes are kept, and of all
//! together as many as the table's capacity in bytes of that section allows: the client that was least recently heard of
//! goes first, whole. A write costs one look-up and one entry, and allocates nothing once its client is known.

use std::collections::VecDeque;
use std::hash::BuildHasher;

use commonhold_proto::Seq;
use commonhold_proto::limits::MAX_OPEN_WRITES;
use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::bytes::Fields;
use super::payload::WriteHead;

/// The most that the section of a header takes; as much is kept. Less than the room that a segment keeps in reserve.
pub(crate) const MAX_OUTCOME_BYTES: usize = 512 << 10;
/// Bytes before the first client.
const HEAD_BYTES: usize = 20;
/// Bytes of a client beside its outcomes.
const CLIENT_BYTES: usize = 52;
/// Bytes of an outcome.
const OUTCOME_BYTES: usize = 28;
/// No slot.
const NONE: u32 = u32::MAX;

/// What a write was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) number: u64,
    /// [`Seq::ZERO`]: it was refused when it was repeated, and is not to be done any more.
    pub(crate) seq: Seq,
    /// Keys that were found; of a drop the records that there were.
    pub(crate) found: u64,
    /// Keys that were new.
    pub(crate) new: u32,
}

/// What is known of an earlier sending of a write that is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Earlier {
    /// The boot number of the daemon that it was first sent to.
    pub boot: u64,
    /// A Seq that had been given out by then.
    pub after: Seq,
}

/// What is known of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recall {
    /// It was not done.
    Not,
    /// It was done, and this came of it.
    Done(Outcome),
    /// Nobody can say, for this reason.
    Unknown(&'static str),
}

const FORGOTTEN: &str = "it was sent before, and the daemon has forgotten what became of its client's writes";
const REFUSED: &str = "it was sent again, and refused then";

/// See the head of this file.
#[derive(Clone, Debug)]
pub(crate) struct Outcomes {
    /// Places in `clients`, by the client's id.
    places: HashTable<u32>,
    hasher: RandomState,
    clients: Vec<Client>,
    /// Places in `clients` that are free.
    free: Vec<u32>,
    newest: u32,
    oldest: u32,
    /// Bytes of the section.
    bytes: usize,
    capacity: usize,
    /// The greatest boot number and Seq of what was forgotten with its client.
    forgotten: (u64, Seq),
}

#[derive(Clone, Debug)]
struct Client {
    id: u128,
    boot: u64,
    last: Seq,
    floor: u64,
    /// The greatest Seq of what had been forgotten when the client came to the table.
    since: Seq,
    /// By number.
    outcomes: VecDeque<Outcome>,
    newer: u32,
    older: u32,
}

impl Default for Outcomes {
    fn default() -> Self {
        Self {
            places: HashTable::new(),
            hasher: RandomState::default(),
            clients: Vec::new(),
            free: Vec::new(),
            newest: NONE,
            oldest: NONE,
            bytes: HEAD_BYTES,
            capacity: MAX_OUTCOME_BYTES,
            forgotten: (0, Seq::ZERO),
        }
    }
}

impl Client {
    fn bytes(&self) -> usize {
        CLIENT_BYTES + self.outcomes.len() * OUTCOME_BYTES
    }

    fn find(&self, number: u64) -> Result<usize, usize> {
        // Nearly always the newest, or none.
        match self.outcomes.back() {
            Some(last) if number > last.number => Err(self.outcomes.len()),
            None => Err(0),
            _ => self.outcomes.binary_search_by_key(&number, |outcome| outcome.number),
        }
    }

    /// Lets go of the outcome with the smallest number, of which nothing will be known from then on.
    fn drop_first(&mut self) {
        if let Some(first) = self.outcomes.pop_front() {
            self.floor = self.floor.max(first.number);
        }
    }
}

impl Outcomes {
    /// Keeps no more than so many bytes of section from now on.
    pub(crate) fn limit(&mut self, bytes: usize) {
        self.capacity = bytes.min(MAX_OUTCOME_BYTES);
        self.shrink();
    }

    /// About how many bytes it takes in memory.
    pub(crate) fn memory(&self) -> usize {
        // An outcome takes a few bytes more than in the section, and its queue up to twice as many.
        2 * self.bytes + self.clients.capacity() * size_of::<Client>()
    }

    /// How many clients, and how many outcomes of theirs.
    pub(crate) fn extent(&self) -> (usize, usize) {
        let clients = self.places.len();
        (clients, (self.bytes - HEAD_BYTES - clients * CLIENT_BYTES) / OUTCOME_BYTES)
    }

    fn place(&self, id: u128) -> Option<u32> {
        let clients = &self.clients;
        self.places.find(self.hasher.hash_one(id), |&at| clients[at as usize].id == id).copied()
    }

    /// What is known of a client's write; `earlier` if it says that it may have sent it before.
    pub(crate) fn look_up(&self, client: u128, number: u64, earlier: Option<Earlier>) -> Recall {
        let mut forgotten = self.forgotten.1;
        if let Some(at) = self.place(client) {
            let client = &self.clients[at as usize];
            match client.find(number) {
                Ok(found) if client.outcomes[found].seq == Seq::ZERO => return Recall::Unknown(REFUSED),
                Ok(found) => return Recall::Done(client.outcomes[found]),
                Err(_) if number <= client.floor => return Recall::Unknown(FORGOTTEN),
                Err(_) => forgotten = client.since,
            }
        }
        match earlier {
            // Had it been done, its outcome would be of that boot or a later one, and of a greater Seq.
            Some(earlier) if earlier.boot <= self.forgotten.0 && earlier.after < forgotten => {
                Recall::Unknown(FORGOTTEN)
            }
            _ => Recall::Not,
        }
    }

    /// Notes what became of a write, which was given `seq` by the daemon of this boot number.
    pub(crate) fn note(&mut self, head: WriteHead, seq: Seq, boot: u64) {
        let WriteHead { client, number, behind, new, found } = head;
        if number == 0 {
            return;
        }
        let settled = number.saturating_sub(u64::from(behind)).max(1);
        let at = self.heard_of(client, settled);
        let known = &mut self.clients[at as usize];
        let before = known.bytes();
        known.boot = known.boot.max(boot);
        known.last = known.last.max(seq);
        if settled - 1 > known.floor {
            while known.outcomes.front().is_some_and(|first| first.number < settled) {
                known.outcomes.pop_front();
            }
            known.floor = settled - 1;
        }
        let outcome = Outcome { number, seq, found, new: u32::try_from(new).unwrap_or(u32::MAX) };
        match known.find(number) {
            Ok(at) => known.outcomes[at] = outcome,
            Err(at) if at == known.outcomes.len() => known.outcomes.push_back(outcome),
            Err(at) => known.outcomes.insert(at, outcome),
        }
        if known.outcomes.len() > MAX_OPEN_WRITES {
            known.drop_first();
        }
        self.bytes = self.bytes + known.bytes() - before;
        if self.bytes > self.capacity {
            self.shrink();
        }
    }

    /// A repeated write is refused: an earlier sending of it, should it still be on its way, is not to be done either.
    pub(crate) fn refuse(&mut self, client: u128, number: u64) {
        let behind = u32::try_from(number - 1).unwrap_or(u32::MAX);
        self.note(WriteHead { client, number, behind, new: 0, found: 0 }, Seq::ZERO, 0);
    }

    /// Forgets all that may have happened up to now: what of it was lost with a part of the journal cannot be told.
    pub(crate) fn forget_all(&mut self, boot: u64, through: Seq) {
        while self.oldest != NONE {
            self.forget_oldest();
        }
        self.forgotten = (self.forgotten.0.max(boot), self.forgotten.1.max(through));
    }

    /// The client's place; it is the newest now.
    fn heard_of(&mut self, id: u128, settled: u64) -> u32 {
        if let Some(at) = self.place(id) {
            if at != self.newest {
                self.unlink(at);
                self.link(at);
            }
            return at;
        }
        let client = Client {
            id,
            boot: 0,
            last: Seq::ZERO,
            floor: settled - 1,
            since: self.forgotten.1,
            outcomes: VecDeque::new(),
            newer: NONE,
            older: NONE,
        };
        self.bytes += client.bytes();
        let at = if let Some(at) = self.free.pop() {
            // The queue that the one before has left is used again.
            let outcomes = std::mem::take(&mut self.clients[at as usize].outcomes);
            self.clients[at as usize] = Client { outcomes, ..client };
            at
        } else {
            self.clients.push(client);
            self.clients.len() as u32 - 1
        };
        let (clients, hasher) = (&self.clients, &self.hasher);
        self.places.insert_unique(hasher.hash_one(id), at, |&at| hasher.hash_one(clients[at as usize].id));
        self.link(at);
        at
    }

    fn link(&mut self, at: u32) {
        let before = std::mem::replace(&mut self.newest, at);
        let client = &mut self.clients[at as usize];
        (client.older, client.newer) = (before, NONE);
        match before {
            NONE => self.oldest = at,
            before => self.clients[before as usize].newer = at,
        }
    }

    fn unlink(&mut self, at: u32) {
        let Client { older, newer, .. } = self.clients[at as usize];
        match older {
            NONE => self.oldest = newer,
            older => self.clients[older as usize].newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            newer => self.clients[newer as usize].older = older,
        }
    }

    fn forget_oldest(&mut self) {
        let at = self.oldest;
        self.unlink(at);
        let client = &mut self.clients[at as usize];
        self.bytes -= client.bytes();
        self.forgotten = (self.forgotten.0.max(client.boot), self.forgotten.1.max(client.last));
        // A long queue is not kept for whoever comes next.
        if client.outcomes.capacity() > 8 {
            client.outcomes = VecDeque::new();
        } else {
            client.outcomes.clear();
        }
        let id = client.id;
        let clients = &self.clients;
        if let Ok(found) = self.places.find_entry(self.hasher.hash_one(id), |&at| clients[at as usize].id == id) {
            found.remove();
        }
        self.free.push(at);
    }

    fn shrink(&mut self) {
        while self.bytes > self.capacity && self.oldest != self.newest {
            self.forget_oldest();
        }
        if self.newest == NONE {
            return;
        }
        let client = &mut self.clients[self.newest as usize];
        while self.bytes > self.capacity && client.outcomes.len() > 1 {
            client.drop_first();
            self.bytes -= OUTCOME_BYTES;
        }
    }

    /// The section; empty when there is nothing to say.
    pub(crate) fn encode(&self) -> Vec<u8> {
        if self.newest == NONE && self.forgotten == (0, Seq::ZERO) {
            return Vec::new();
        }
        let mut out = Vec::with_capacity(self.bytes);
        out.extend_from_slice(&self.forgotten.0.to_le_bytes());
        out.extend_from_slice(&self.forgotten.1.0.to_le_bytes());
        out.extend_from_slice(&(self.places.len() as u32).to_le_bytes());
        let mut at = self.oldest;
        while at != NONE {
            let client = &self.clients[at as usize];
            out.extend_from_slice(&client.id.to_le_bytes());
            for field in [client.boot, client.last.0, client.floor, client.since.0] {
                out.extend_from_slice(&field.to_le_bytes());
            }
            // That one was refused concerns only requests that are on their way in this daemon.
            let done = client.outcomes.iter().filter(|outcome| outcome.seq != Seq::ZERO);
            out.extend_from_slice(&(done.clone().count() as u32).to_le_bytes());
            for outcome in done {
                out.extend_from_slice(&outcome.number.to_le_bytes());
                out.extend_from_slice(&outcome.seq.0.to_le_bytes());
                out.extend_from_slice(&outcome.found.to_le_bytes());
                out.extend_from_slice(&outcome.new.to_le_bytes());
            }
            at = client.newer;
        }
        out
    }

    /// What [`encode`](Self::encode) has written; `None` if the bytes are not that.
    pub(crate) fn decode(section: &[u8]) -> Option<Self> {
        let mut outcomes = Self::default();
        if section.is_empty() {
            return Some(outcomes);
        }
        let mut fields = Fields::new(section);
        outcomes.forgotten = (fields.u64()?, Seq(fields.u64()?));
        for _ in 0..fields.u32()? {
            let id = fields.u128()?;
            let (boot, last, floor, since) = (fields.u64()?, Seq(fields.u64()?), fields.u64()?, Seq(fields.u64()?));
            if outcomes.place(id).is_some() {
                return None;
            }
            let at = outcomes.heard_of(id, floor.checked_add(1)?);
            let client = &mut outcomes.clients[at as usize];
            (client.boot, client.last, client.since) = (boot, last, since);
            let mut before = 0;
            for _ in 0..fields.u32()? {
                let outcome = Outcome {
                    number: fields.u64()?,
                    seq: Seq(fields.u64()?),
                    found: fields.u64()?,
                    new: fields.u32()?,
                };
                if outcome.number <= before {
                    return None;
                }
                before = outcome.number;
                client.outcomes.push_back(outcome);
                outcomes.bytes += OUTCOME_BYTES;
            }
        }
        fields.is_empty().then_some(outcomes)
    }
}

#[cfg(test)]
#[path = "outcomes_tests.rs"]
mod tests;
