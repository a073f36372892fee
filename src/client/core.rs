//! What a connection's requests are up to, without any I/O: bytes to send come out, bytes received go in, and each
//! request ends in exactly one outcome, whatever happens to the connection in between.
//!
//! A request is *unsent* while bytes of it are missing, then *in flight*, then *settled* until it is taken. When the
//! connection is lost, a request goes back to unsent if repeating it does no harm: always if it only reads (or is done
//! as well twice as once, as a commit), and if no byte of it was sent otherwise. The others settle as "outcome unknown".

use std::collections::{HashMap, VecDeque};

use commonhold_proto::{Event, Fault, FrameKind, Request, Verb, codec};

use super::error::Error;
use super::inbox::{Body, Inbox};

/// Buffers of sent requests that are kept for the next ones.
const SPARE_BUFFERS: usize = 16;

/// A buffer that grew beyond this is given back instead.
const SPARE_BUFFER_BYTES: usize = 64 * 1024;

/// The frames of one answer: the parts, and the frame that ends it.
#[derive(Debug)]
pub(super) struct Reply {
    parts: Vec<Body>,
    last: Body,
}

impl Reply {
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
struct InFlight {
    /// The whole frame while it may have to be sent (again); empty after that.
    frame: Vec<u8>,
    sent: usize,
    /// Whether doing it twice is as good as doing it once.
    repeatable: bool,
    /// The number of a write.
    number: Option<u64>,
    /// Nobody waits for it; it is here until the rest of its frame is sent.
    forgotten: bool,
    parts: Vec<Body>,
    outcome: Option<Result<Reply, Error>>,
}

impl InFlight {
    fn is_sent(&self) -> bool {
        self.sent >= self.frame.len()
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
    requests: HashMap<u64, InFlight>,
    /// Requests of which bytes are missing, in the order in which they began. Only the first may be partly sent.
    unsent: VecDeque<u64>,
    inbox: Inbox,
    spare: Vec<Vec<u8>>,
}

impl Core {
    /// Nothing has been sent or received; writes will be numbered from 1 under the id `client`.
    pub(super) fn new(client: u128) -> Self {
        Self {
            client,
            last_id: 0,
            last_number: 0,
            open_numbers: VecDeque::new(),
            requests: HashMap::new(),
            unsent: VecDeque::new(),
            inbox: Inbox::default(),
            spare: Vec::new(),
        }
    }

    /// Encodes a request and queues it behind those that are not sent yet; a write is given its client and number here,
    /// so that numbers rise in the order of sending.
    pub(super) fn begin(&mut self, deadline_ms: u32, mut verb: Verb<'_>) -> Result<u64, Error> {
        // A drop would take what others have stored since, and a session's number may be another's after a restart.
        let repeatable = !matches!(verb, Verb::Write(_) | Verb::Stop | Verb::Drop { .. } | Verb::EndSession { .. });
        let mut number = None;
        if let Verb::Write(write) = &mut verb {
            write.client = self.client;
            write.number = self.last_number + 1;
            write.settled = self.open_numbers.front().copied().unwrap_or(write.number);
            number = Some(write.number);
        }
        let id = self.last_id + 1;
        let mut frame = self.spare.pop().unwrap_or_default();
        if let Err(error) = codec::encode_request(&mut frame, id, &Request { deadline_ms, verb }) {
            self.recycle(frame);
            return Err(error.into());
        }
        self.last_id = id;
        if let Some(number) = number {
            self.last_number = number;
            self.open_numbers.push_back(number);
        }
        self.enqueue(
            id,
            InFlight { frame, sent: 0, repeatable, number, forgotten: false, parts: Vec::new(), outcome: None },
        );
        Ok(id)
    }

    fn enqueue(&mut self, id: u64, request: InFlight) {
        self.requests.insert(id, request);
        self.unsent.push_back(id);
    }

    /// The next bytes to send; empty when there are none.
    pub(super) fn to_send(&self) -> &[u8] {
        self.unsent.front().and_then(|id| self.requests.get(id)).map_or(&[], |request| &request.frame[request.sent..])
    }

    /// Notes that the first `bytes` of [`to_send`](Self::to_send) were sent; tells the request that this completed.
    pub(super) fn sent(&mut self, bytes: usize) -> Option<u64> {
        let &id = self.unsent.front()?;
        let request = self.requests.get_mut(&id)?;
        request.sent += bytes;
        if !request.is_sent() {
            return None;
        }
        self.unsent.pop_front();
        if request.forgotten {
            self.remove(id);
        } else if !request.repeatable {
            let frame = std::mem::take(&mut request.frame);
            self.recycle(frame);
        }
        Some(id)
    }

    /// Whether bytes of any request are missing.
    pub(super) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
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
                    if let Some(request) = self.expecting(frame.id)? {
                        let parts = std::mem::take(&mut request.parts);
                        let number = request.number;
                        let spare = std::mem::take(&mut request.frame);
                        request.sent = 0;
                        request.outcome = Some(Ok(Reply { parts, last: frame.body }));
                        self.settle_number(number);
                        self.recycle(spare);
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
            self.unsent.retain(|&unsent| unsent != id);
            self.remove(id);
            return GivenUp::Unsent;
        }
        let answered = request.outcome.is_some();
        self.remove(id);
        if cancel && !answered {
            let mut frame = self.spare.pop().unwrap_or_default();
            codec::encode_cancel(&mut frame, id);
            self.last_id += 1;
            let own_id = self.last_id;
            self.enqueue(
                own_id,
                InFlight {
                    frame,
                    sent: 0,
                    repeatable: false,
                    number: None,
                    forgotten: true,
                    parts: Vec::new(),
                    outcome: None,
                },
            );
        }
        if repeatable { GivenUp::Read } else { GivenUp::Unknown }
    }

    /// The connection is gone: what may be repeated is queued again, the rest settles as unknown. `settled` is told
    /// each request that this settled.
    pub(super) fn connection_lost(&mut self, why: &str, mut settled: impl FnMut(u64)) {
        self.inbox.clear();
        self.unsent.clear();
        let mut again = Vec::new();
        let mut gone = Vec::new();
        for (&id, request) in &mut self.requests {
            request.parts.clear();
            if request.forgotten {
                gone.push(id);
            } else if request.outcome.is_none()
                && (request.repeatable || (request.sent == 0 && !request.frame.is_empty()))
            {
                request.sent = 0;
                again.push(id);
            } else if request.outcome.is_none() {
                request.outcome = Some(Err(Error::unknown(why)));
                if let Some(number) = request.number {
                    // Its caller is told, and it will never be repeated: the daemon may forget it.
                    self.open_numbers.retain(|&open| open != number);
                }
                settled(id);
            }
        }
        for id in gone {
            self.remove(id);
        }
        again.sort_unstable();
        self.unsent.extend(again);
    }

    /// No connection will be made: everything that is not settled ends in `error`. Call it only after
    /// [`connection_lost`](Self::connection_lost), when none of it can have been done.
    pub(super) fn fail_all(&mut self, error: &Error, mut settled: impl FnMut(u64)) {
        for id in std::mem::take(&mut self.unsent) {
            if let Some(request) = self.requests.get_mut(&id) {
                request.frame.clear();
                request.sent = 0;
                request.outcome = Some(Err(error.clone()));
                let number = request.number;
                self.settle_number(number);
                settled(id);
            }
        }
    }

    fn remove(&mut self, id: u64) {
        if let Some(request) = self.requests.remove(&id) {
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
        if frame.capacity() > 0 && frame.capacity() <= SPARE_BUFFER_BYTES && self.spare.len() < SPARE_BUFFERS {
            frame.clear();
            self.spare.push(frame);
        }
    }
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
