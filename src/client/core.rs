//! What a connection's requests are up to, without any I/O: bytes to send come out, bytes received go in, and each
//! request ends in exactly one outcome, whatever happens to the connection in between.
//!
//! A request is *unsent* while bytes of it are missing, then *in flight*, then *settled* until it is taken. When the
//! connection is lost, a request goes back to unsent if repeating it does no harm: if it only reads (or is done as well
//! twice as once, as a commit), if no byte of it was sent, and if it has a number, by which the daemon knows what it has
//! done: then it says that it was sent before. All are sent again in their old order, before anything new. The others
//! settle as "outcome unknown", and so do numbered ones that are given up, or find no daemon, or a journal that is not
//! the one that they were sent to.
//!
//! What is kept for that is bounded: a numbered request is not sent while too many, or too many bytes, that were sent
//! before it are unanswered. Nor is anything behind it, for requests take effect in the order in which they began.

use std::collections::VecDeque;
use std::sync::Arc;

use commonhold_proto::limits::MAX_OPEN_WRITES;
use commonhold_proto::{Answer, Earlier, Event, Fault, FrameKind, Op, PROTOCOL_VERSION, Request, Seq, Verb, codec};

use super::error::Error;
use super::ids::IdMap;
use super::inbox::{Body, Inbox};
use super::limits::Limits;
use super::near::{Mark, OwnWrites};
use super::repeat::{self, NUMBERS_COUNT_SINCE};
use super::spare;
use holds::{Holds, Tie};

mod holds;

/// Buffers of sent requests that are kept for the next ones: so many, and bytes in all.
const SPARE_BUFFERS: usize = 64;
const SPARE_BYTES: usize = 1024 * 1024;

/// A buffer has room for at least so many bytes: most requests that carry no value.
const LEAST_FRAME_BYTES: usize = 128;

/// A buffer that grew beyond this is not kept for each client but by [`spare`], for all.
const SPARE_BUFFER_BYTES: usize = spare::LARGE_BYTES;

/// Requests leave together up to so many bytes; a longer one leaves alone.
pub(super) const TOGETHER_BYTES: usize = 64 * 1024;

/// Numbered requests that were sent and have no answer are kept in so many bytes; a single larger one is sent all the same.
const MAX_UNANSWERED_BYTES: usize = 64 * 1024 * 1024;

/// The frames of one answer: the parts, and the frame that ends it.
#[derive(Debug)]
pub(super) struct Reply {
    parts: Vec<Body>,
    last: Body,
    connection: u64,
}

impl Reply {
    /// The number of the connection that it came on: what it grants ends with that.
    pub(super) fn connection(&self) -> u64 {
        self.connection
    }

    /// The bodies in the order in which they came; the last one is the one that may be a fault.
    pub(super) fn bodies(&self) -> impl Iterator<Item = &[u8]> {
        self.parts.iter().chain([&self.last]).map(Body::bytes)
    }

    /// The last body, when there are no others.
    pub(super) fn single(&self) -> Option<&[u8]> {
        self.parts.is_empty().then(|| self.last.bytes())
    }
}

/// What became of a request that its caller gave up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GivenUp {
    /// No byte of it was sent and none will be: it was not done.
    Unsent,
    /// It was sent, or the rest of it will be: it only reads.
    Read,
    /// It was sent, or the rest of it will be, and may be done.
    Unknown,
}

/// Why the connection cannot go on.
#[derive(Debug)]
pub(super) enum Broken {
    /// It ended, for this reason; another one may be made.
    Ended(String),
    /// The daemon closes it and another one may be made: it stops.
    Closing(Fault),
    /// Another connection would end as this one did.
    ForGood(Error),
}

impl Broken {
    /// Why a request that was sent has no answer.
    pub(super) fn why(&self) -> String {
        match self {
            Self::Ended(why) => format!("{why} before the answer came"),
            Self::Closing(fault) => format!("the daemon closed the connection before the answer came: {fault}"),
            Self::ForGood(error) => error.to_string(),
        }
    }
}

#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each says something else of the request, and any may be so with any"
)]
struct InFlight {
    /// The whole frame while it may have to be sent (again); empty after that.
    frame: Vec<u8>,
    sent: usize,
    /// Whether doing it twice is as good as doing it once.
    repeatable: bool,
    /// The number of a write or a drop.
    number: Option<u64>,
    /// What was known when the first byte of it was sent, on whatever connection.
    first: Option<Earlier>,
    /// Whether its frame says that it was sent before.
    again: bool,
    /// Nobody waits for it; it is here until the rest of its frame is sent, or until what it may be granted is known.
    forgotten: bool,
    /// Nobody waits for it, and it is done as if somebody did.
    unattended: bool,
    tie: Tie,
    /// How long it waits for something to be free, if it does.
    waits: Option<Limits>,
    /// Of a write: what it may change is under way until the daemon has answered.
    mark: Option<Mark>,
    parts: Vec<Body>,
    outcome: Option<Result<Reply, Error>>,
}

impl InFlight {
    fn new(frame: Vec<u8>, repeatable: bool, number: Option<u64>) -> Self {
        let (parts, outcome) = (Vec::new(), None);
        let (first, again, forgotten, unattended, tie) = (None, false, false, false, Tie::None);
        let (waits, mark) = (None, None);
        Self {
            frame,
            sent: 0,
            repeatable,
            number,
            first,
            again,
            forgotten,
            unattended,
            tie,
            waits,
            mark,
            parts,
            outcome,
        }
    }

    fn is_sent(&self) -> bool {
        self.sent >= self.frame.len()
    }

    /// Whether the daemon may have done it although its answer is not here.
    fn may_be_done(&self) -> bool {
        self.first.is_some() && !self.repeatable
    }

    /// Bytes that are kept so that it can be sent again.
    fn kept(&self) -> usize {
        if self.number.is_some() && self.is_sent() { self.frame.len() } else { 0 }
    }
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Core {
    client: u128,
    last_id: u64,
    last_number: u64,
    /// Numbers of the writes whose outcome is not known yet, rising.
    open_numbers: VecDeque<u64>,
    requests: IdMap<InFlight>,
    /// Requests of which bytes are missing, in the order in which they began. Only the first may be partly sent.
    unsent: VecDeque<u64>,
    inbox: Inbox,
    holds: Holds,
    /// Whom to tell which keys are being written.
    own_writes: Option<Arc<OwnWrites>>,
    /// Of writes that were sent and given up: they are done all the same, when they are answered.
    given_up: IdMap<Mark>,
    /// There may be requests for which nobody waits.
    some_unattended: bool,
    spare: Vec<Vec<u8>>,
    spare_bytes: usize,
    /// Of the last connection that was made.
    version: u16,
    boot: u64,
    /// The greatest Seq that a write was answered.
    greatest: Seq,
    /// Bytes of numbered requests that were sent and have no answer.
    unanswered_bytes: usize,
    /// Why the last connection was lost.
    lost: String,
}

impl Core {
    /// Nothing has been sent or received; writes will be numbered from 1 under the id `client`.
    pub(super) fn new(client: u128) -> Self {
        Self {
            client,
            last_id: 0,
            last_number: 0,
            open_numbers: VecDeque::new(),
            requests: IdMap::default(),
            unsent: VecDeque::new(),
            inbox: Inbox::default(),
            holds: Holds::new(),
            own_writes: None,
            given_up: IdMap::default(),
            some_unattended: false,
            spare: Vec::new(),
            spare_bytes: 0,
            version: PROTOCOL_VERSION,
            boot: 0,
            greatest: Seq::ZERO,
            unanswered_bytes: 0,
            lost: String::new(),
        }
    }

    /// From here on `writes` is told which keys are being written.
    pub(super) fn tell_writes(&mut self, writes: Option<Arc<OwnWrites>>) {
        self.own_writes = writes;
    }

    /// A connection was made, to the daemon of this boot number, on which this version is spoken. What is to be sent again
    /// is made ready; `settled` is told each request that ends here instead.
    pub(super) fn connected(&mut self, version: u16, boot: u64, mut settled: impl FnMut(u64)) {
        (self.version, self.boot) = (version, boot);
        for id in std::mem::take(&mut self.unsent) {
            match self.prepare(id) {
                Ok(()) => self.unsent.push_back(id),
                Err(error) => self.end(id, error, &mut settled),
            }
        }
        self.end_restarts(None, &mut settled);
        self.holds_connected();
    }

    /// Makes the frame of an unsent request one that this daemon understands.
    fn prepare(&mut self, id: u64) -> Result<(), Error> {
        let Some(request) = self.requests.get_mut(&id) else { return Ok(()) };
        if let Some(waits) = request.waits {
            return holds::cut(&mut request.frame, waits);
        }
        let counts = self.version >= NUMBERS_COUNT_SINCE;
        let Some(first) = request.first.filter(|_| request.number.is_some()) else {
            if request.number.is_some() && !counts {
                repeat::without_number(&mut request.frame)?;
            }
            return Ok(());
        };
        if !counts {
            return Err(Error::unknown(format!("{}, and the daemon now is an older one that cannot tell", self.lost)));
        }
        if self.boot < first.boot {
            let reason = format!("{}, and the store now has another journal, which cannot tell", self.lost);
            return Err(Error::unknown(reason));
        }
        if !request.again {
            repeat::with_earlier(&mut request.frame, first)
                .map_err(|_| Error::unknown(format!("{}, and it is too large to be sent again", self.lost)))?;
            request.again = true;
        }
        Ok(())
    }

    fn end(&mut self, id: u64, error: Error, settled: &mut impl FnMut(u64)) {
        if let Some(request) = self.requests.get_mut(&id) {
            request.frame.clear();
            request.sent = 0;
            request.outcome = Some(Err(error));
            request.mark = None;
            let number = request.number;
            self.settle_number(number);
            self.drop_unattended(id);
            settled(id);
        }
    }

    /// The outcome of a request for which nobody waits is nobody's.
    fn drop_unattended(&mut self, id: u64) {
        if self.requests.get(&id).is_some_and(|request| request.unattended && request.outcome.is_some()) {
            self.requests.remove(&id);
        }
    }

    /// Encodes a request and queues it behind those that are not sent yet; a write is given its client and number here,
    /// so that numbers rise in the order of sending.
    pub(super) fn begin(&mut self, deadline_ms: u32, mut verb: Verb<'_>) -> Result<u64, Error> {
        // A drop would take what others have stored since.
        let changes = matches!(verb, Verb::Write(_) | Verb::Drop { .. });
        let (tie, harmless) = Tie::of(&verb);
        let repeatable = !changes && harmless;
        let mark = self.own_writes.as_ref().filter(|_| changes).and_then(|writes| writes.begin(&verb));
        let number = changes.then_some(self.last_number + 1);
        if let Some(number) = number {
            let settled = self.open_numbers.front().copied().unwrap_or(number);
            match &mut verb {
                Verb::Write(write) => {
                    (write.client, write.number, write.settled) = (self.client, number, settled);
                }
                Verb::Drop { space } if self.version >= NUMBERS_COUNT_SINCE => {
                    let (space, client) = (*space, self.client);
                    verb = Verb::DropOnce { space, client, number, settled, earlier: None };
                }
                _ => {}
            }
        }
        let id = self.last_id + 1;
        let mut frame = self.frame_of(about_bytes(&verb));
        if let Err(error) = codec::encode_request(&mut frame, id, &Request { deadline_ms, verb }) {
            self.recycle(frame);
            return Err(error.into());
        }
        self.last_id = id;
        if let Some(number) = number {
            self.last_number = number;
            self.open_numbers.push_back(number);
        }
        self.enqueue(id, InFlight { tie, mark, ..InFlight::new(frame, repeatable, number) });
        Ok(id)
    }

    /// An empty buffer with room for so many bytes.
    fn frame_of(&mut self, bytes: usize) -> Vec<u8> {
        if bytes > SPARE_BUFFER_BYTES {
            return spare::with_room(bytes);
        }
        let mut frame = self.spare.pop().unwrap_or_default();
        self.spare_bytes -= frame.capacity();
        frame.reserve(bytes.max(LEAST_FRAME_BYTES));
        frame
    }

    fn enqueue(&mut self, id: u64, request: InFlight) {
        self.requests.insert(id, request);
        self.unsent.push_back(id);
    }

    /// The next bytes to send; empty when there are none, or when answers must come first. Several short requests leave
    /// together, for which they are copied into `together`.
    pub(super) fn to_send<'a>(&'a self, together: &'a mut Vec<u8>) -> &'a [u8] {
        let mut unsent = self.unsent.iter().map_while(|id| self.requests.get(id));
        let Some(first) = unsent.next().filter(|request| request.sent > 0 || self.may_begin(request, 0)) else {
            return &[];
        };
        let first = &first.frame[first.sent..];
        let mut kept = first.len();
        together.clear();
        for request in unsent {
            if kept + request.frame.len() > TOGETHER_BYTES || !self.may_begin(request, kept) {
                break;
            }
            if together.is_empty() {
                together.extend_from_slice(first);
            }
            together.extend_from_slice(&request.frame);
            kept += request.frame.len();
        }
        if together.is_empty() { first } else { together }
    }

    /// Whether what was sent before and is unanswered, and so many more bytes, leave room for this one.
    fn may_begin(&self, request: &InFlight, more: usize) -> bool {
        let Some(number) = request.number else { return true };
        let open = self.open_numbers.front().is_some_and(|oldest| number - oldest >= MAX_OPEN_WRITES as u64);
        let unanswered = self.unanswered_bytes + more;
        !open && (unanswered == 0 || unanswered + request.frame.len() <= MAX_UNANSWERED_BYTES)
    }

    /// Notes that the first `bytes` of [`to_send`](Self::to_send) were sent; `done` is told each request that this completed.
    pub(super) fn sent(&mut self, mut bytes: usize, mut done: impl FnMut(u64)) {
        while bytes > 0
            && let Some(request) = self.unsent.front().and_then(|id| self.requests.get(id))
        {
            let some = bytes.min(request.frame.len() - request.sent);
            bytes -= some;
            if let Some(id) = self.sent_of_first(some) {
                done(id);
            }
        }
    }

    fn sent_of_first(&mut self, bytes: usize) -> Option<u64> {
        let &id = self.unsent.front()?;
        let request = self.requests.get_mut(&id)?;
        request.sent += bytes;
        request.first.get_or_insert(Earlier { boot: self.boot, after: self.greatest });
        if !request.is_sent() {
            return None;
        }
        self.unsent.pop_front();
        self.unanswered_bytes += request.kept();
        let is_over = request.forgotten && request.tie != Tie::Grants || request.unattended && request.number.is_none();
        if is_over {
            self.remove(id);
        } else if !request.repeatable && request.number.is_none() {
            let frame = std::mem::take(&mut request.frame);
            self.recycle(frame);
        }
        Some(id)
    }

    /// Whether there are bytes to send, now.
    pub(super) fn has_unsent(&self) -> bool {
        let first = self.unsent.front().and_then(|id| self.requests.get(id));
        first.is_some_and(|request| request.sent > 0 || self.may_begin(request, 0))
    }

    /// The request that was begun last, of those that are not sent.
    pub(super) fn last_unsent(&self) -> Option<u64> {
        self.unsent.back().copied()
    }

    /// The request that is sent next.
    pub(super) fn first_unsent(&self) -> Option<u64> {
        self.unsent.front().copied()
    }

    /// Nobody waits for the answer to this request, which is sent in its turn, and again where a write must be. False if it is
    /// sent already, or only its rest is to be.
    pub(super) fn forget_gathered(&mut self, id: u64) -> bool {
        let Some(request) = self.requests.get_mut(&id) else { return true };
        let is_write = request.number.is_some() && request.tie == Tie::None;
        let is_kept = (request.first.is_none() || is_write) && request.outcome.is_none() && !request.is_sent();
        request.unattended |= is_kept;
        self.some_unattended |= is_kept;
        is_kept
    }

    /// Whether answers may come for which nobody waits, and which are to be read all the same.
    pub(super) fn has_unattended(&mut self) -> bool {
        self.some_unattended = self.some_unattended && self.requests.values().any(|request| request.unattended);
        self.some_unattended
    }

    /// Bytes of this request that are to be sent.
    pub(super) fn unsent_bytes(&self, id: u64) -> usize {
        self.requests.get(&id).map_or(0, |request| request.frame.len().saturating_sub(request.sent))
    }

    /// Whether all bytes of this request were sent, or it is settled without.
    pub(super) fn is_sent(&self, id: u64) -> bool {
        self.requests.get(&id).is_none_or(|request| request.is_sent() || request.outcome.is_some())
    }

    /// Whether the request has its outcome, or is none of this core's (any more).
    pub(super) fn is_settled(&self, id: u64) -> bool {
        self.requests.get(&id).is_none_or(|request| request.outcome.is_some())
    }

    /// Takes bytes from the connection; `settled` is told each request that they settled.
    pub(super) fn receive(&mut self, mut bytes: &[u8], mut settled: impl FnMut(u64)) -> Result<(), Broken> {
        while let Some(frame) = self.inbox.next(&mut bytes).map_err(|e| Broken::ForGood(e.into()))? {
            match frame.kind {
                FrameKind::Answer => {
                    self.given_up.remove(&frame.id);
                    if self.take_unwanted(frame.id, frame.body.bytes()) {
                        continue;
                    }
                    if let Some(request) = self.expecting(frame.id)? {
                        let (number, again, tie) = (request.number, request.again, request.tie);
                        if tie == Tie::Grants && is_stopping(frame.body.bytes()) {
                            // It waits on, and asks the next daemon when this one has closed the connection.
                            continue;
                        }
                        let unknown = match number.map(|_| codec::decode_answer(frame.body.bytes())) {
                            Some(Ok(Answer::Written { seq, .. } | Answer::Dropped { seq, .. })) => {
                                self.greatest = self.greatest.max(seq);
                                None
                            }
                            // It says nothing about the first sending, and the next daemon will know.
                            Some(Ok(Answer::Fault(Fault::Stopping))) if again => continue,
                            Some(Ok(Answer::Fault(fault))) if again => repeat::leaves_unknown(&fault),
                            _ => None,
                        };
                        self.answered(frame.id, unknown.map_or(Ok(frame.body), Err));
                        settled(frame.id);
                    }
                }
                FrameKind::Part => {
                    if let Some(request) = self.expecting(frame.id)? {
                        request.parts.push(frame.body);
                    }
                }
                FrameKind::Event => {
                    match codec::decode_event(frame.body.bytes()) {
                        Ok(Event::Closing(fault)) => return Err(broken_by(fault)),
                        // An event of a newer daemon, which an older client may pass over.
                        Err(commonhold_proto::DecodeError::Unsupported { .. }) => {}
                        Err(error) => return Err(Broken::ForGood(error.into())),
                    }
                }
                FrameKind::Request | FrameKind::Cancel => {
                    let reason = "it sent a request, which only a client does";
                    return Err(Broken::ForGood(Error::protocol(reason)));
                }
            }
        }
        Ok(())
    }

    fn answered(&mut self, id: u64, answer: Result<Body, Error>) {
        let connection = self.holds.connection();
        let Some(request) = self.requests.get_mut(&id) else { return };
        request.mark = None;
        self.unanswered_bytes -= request.kept();
        let parts = std::mem::take(&mut request.parts);
        // What was granted may have to be given back yet, for which it must be known what was asked.
        let is_done = request.tie != Tie::Grants;
        let (number, spare) = (request.number, if is_done { std::mem::take(&mut request.frame) } else { Vec::new() });
        request.sent = 0;
        request.outcome = Some(answer.map(|last| Reply { parts, last, connection }));
        self.settle_number(number);
        self.recycle(spare);
        self.drop_unattended(id);
    }

    /// The request an answer belongs to; none if its caller gave it up.
    fn expecting(&mut self, id: u64) -> Result<Option<&mut InFlight>, Broken> {
        if id > self.last_id {
            let reason = format!("it answered request {id}, which was never sent");
            return Err(Broken::ForGood(Error::protocol(reason)));
        }
        match self.requests.get_mut(&id) {
            Some(request) if request.forgotten || request.outcome.is_some() => Ok(None),
            Some(request) if !request.is_sent() => {
                let reason = format!("it answered request {id} before it was sent");
                Err(Broken::ForGood(Error::protocol(reason)))
            }
            found => Ok(found),
        }
    }

    /// The request's outcome, once; `None` while it has none.
    pub(super) fn take(&mut self, id: u64) -> Option<Result<Reply, Error>> {
        self.requests.get(&id)?.outcome.as_ref()?;
        self.requests.remove(&id)?.outcome
    }

    /// Gives up a request: its answer, should it come, is dropped. A request that was sent is also cancelled if
    /// `cancel`, which spares the daemon one that it has not begun.
    pub(super) fn give_up(&mut self, id: u64, cancel: bool) -> GivenUp {
        if let Some(how) = self.give_up_tied(id) {
            return how;
        }
        let Some(request) = self.requests.get_mut(&id) else { return GivenUp::Read };
        let repeatable = request.repeatable;
        if request.outcome.is_none() && !request.is_sent() {
            if request.sent > 0 {
                // The frame must be finished, or what follows it would be taken for its rest.
                request.forgotten = true;
                let number = request.number;
                self.settle_number(number);
                return if repeatable { GivenUp::Read } else { GivenUp::Unknown };
            }
            let how = if request.may_be_done() { GivenUp::Unknown } else { GivenUp::Unsent };
            self.unsent.retain(|&unsent| unsent != id);
            self.remove(id);
            return how;
        }
        if cancel {
            self.cancel(id);
        }
        self.remove(id);
        if repeatable { GivenUp::Read } else { GivenUp::Unknown }
    }

    /// The connection is gone: what may be repeated is queued again, the rest settles as unknown. `settled` is told
    /// each request that this settled.
    pub(super) fn connection_lost(&mut self, why: &str, mut settled: impl FnMut(u64)) {
        self.holds.lose();
        self.inbox.clear();
        self.unsent.clear();
        self.unanswered_bytes = 0;
        why.clone_into(&mut self.lost);
        let counts = self.version >= NUMBERS_COUNT_SINCE;
        let mut again = Vec::new();
        let mut gone = Vec::new();
        for (&id, request) in &mut self.requests {
            request.parts.clear();
            if request.forgotten {
                gone.push(id);
            } else if matches!(request.tie, Tie::Restart(_)) {
                // It was never sent, and never will be.
            } else if request.tie == Tie::Bound && request.outcome.is_none() {
                let ended =
                    if request.first.is_some() { Error::unknown(why) } else { holds::lapsed_in(&request.frame) };
                request.frame.clear();
                request.sent = 0;
                request.outcome = Some(Err(ended));
                settled(id);
            } else if request.outcome.is_none()
                && (request.repeatable
                    || (request.number.is_some() && counts)
                    || (!request.may_be_done() && !request.frame.is_empty()))
            {
                request.sent = 0;
                again.push(id);
            } else if request.outcome.is_none() {
                request.frame = Vec::new();
                request.sent = 0;
                request.mark = None;
                request.outcome = Some(Err(Error::unknown(why)));
                if let Some(number) = request.number {
                    // Its caller is told, and it will never be repeated: the daemon may forget it.
                    self.open_numbers.retain(|&open| open != number);
                }
                settled(id);
            }
            if request.unattended && request.outcome.is_some() {
                gone.push(id);
            }
        }
        for id in gone {
            self.remove(id);
            // Somebody may wait for it to be sent, with what he gathered behind it.
            settled(id);
        }
        self.given_up.clear();
        again.sort_unstable();
        self.unsent.extend(again);
    }

    /// No connection will be made: everything that is not settled ends in `error`, or as of unknown outcome if it may have
    /// been done. Call it only after [`connection_lost`](Self::connection_lost).
    pub(super) fn fail_all(&mut self, error: &Error, mut settled: impl FnMut(u64)) {
        for id in std::mem::take(&mut self.unsent) {
            let may_be_done = self.requests.get(&id).is_some_and(InFlight::may_be_done);
            let unknown = || Error::unknown(format!("{}, and it could not be asked for again: {error}", self.lost));
            let error = if may_be_done { unknown() } else { error.clone() };
            self.end(id, error, &mut settled);
        }
        self.end_restarts(Some(error), &mut settled);
    }

    fn remove(&mut self, id: u64) {
        if let Some(mut request) = self.requests.remove(&id) {
            if let Some(mark) = request.mark.take().filter(|_| request.first.is_some() && request.outcome.is_none()) {
                self.given_up.insert(id, mark);
            }
            self.unanswered_bytes -= request.kept().min(self.unanswered_bytes);
            self.settle_number(request.number);
            self.recycle(request.frame);
        }
    }

    fn settle_number(&mut self, number: Option<u64>) {
        if let Some(at) = number.and_then(|number| self.open_numbers.binary_search(&number).ok()) {
            self.open_numbers.remove(at);
        }
    }

    fn recycle(&mut self, mut frame: Vec<u8>) {
        if frame.capacity() > SPARE_BUFFER_BYTES {
            spare::keep(frame);
        } else if frame.capacity() > 0
            && self.spare.len() < SPARE_BUFFERS
            && self.spare_bytes + frame.capacity() <= SPARE_BYTES
        {
            self.spare_bytes += frame.capacity();
            frame.clear();
            self.spare.push(frame);
        }
    }
}

/// Bytes that the frame of a write will have at most, about; of others, which are small or rare, nothing is told.
fn about_bytes(verb: &Verb<'_>) -> usize {
    // Tags, lengths and a condition; beside the head of the request.
    const OF_AN_OPERATION: usize = 64;
    let Verb::Write(write) = verb else { return 0 };
    let text = |op: &Op<'_>| match op {
        Op::Put { key, value, .. } | Op::PutStamped { key, value, .. } => key.len() + value.len(),
        Op::Merge { key, fields, .. } => key.len() + fields.len(),
        Op::Append { key, field, items, .. } => key.len() + field.len() + items.len(),
        Op::Increment { key, field, .. } => key.len() + field.len(),
        Op::Delete { key, .. } => key.len(),
        Op::Clear { .. } => 0,
    };
    OF_AN_OPERATION * (1 + write.spaces.len()) + write.ops.iter().map(|op| text(op) + OF_AN_OPERATION).sum::<usize>()
}

fn is_stopping(answer: &[u8]) -> bool {
    matches!(codec::decode_answer(answer), Ok(Answer::Fault(Fault::Stopping)))
}

/// A daemon that stops may be followed by another one; what else it closes a connection for would happen again.
fn broken_by(fault: Fault) -> Broken {
    match fault {
        Fault::Stopping | Fault::TimedOut { .. } => Broken::Closing(fault),
        fault => Broken::ForGood(Error::Fault(fault)),
    }
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
