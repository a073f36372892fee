//! What a connection is beside its requests: what the daemon has granted on it ends with it, and the client's update flags
//! are registered again on the next one.
//!
//! Three things follow for requests. What is about something granted (giving back a lock, say) is sent on the connection
//! of the grant or not at all. What may be granted something is never just forgotten: if nobody waits for it any more, it
//! is cancelled, and if the grant crossed the cancel it is given back when it arrives. And what is repeated on the
//! next connection is only what does no harm there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use commonhold_proto::{Answer, Election, Fault, FlagAction, Request, Verb, codec};

use super::{Core, GivenUp, InFlight, Reply, repeat};
use crate::client::error::Error;
use crate::client::grants;
use crate::client::inbox::Body;
use crate::client::limits::Limits;
use crate::client::target::Target;

/// How a request is tied to the connection that it was begun on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tie {
    /// Not at all.
    None,
    /// It is about something that ends with that connection, and is not sent on another one. Who begins it wants it done,
    /// whether or not they wait for its answer.
    Bound,
    /// It may be granted something, which must not be lost when nobody waits for it.
    Grants,
    /// It is never sent: it waits for a daemon of another boot number than this one's.
    Restart(u64),
}

impl Tie {
    /// How a request of this verb is tied, and whether sending it again on another connection does no harm. Writes, which
    /// are numbered, are not asked about.
    pub(super) fn of(verb: &Verb<'_>) -> (Self, bool) {
        match verb {
            Verb::Unlock { .. }
            | Verb::Release { .. }
            | Verb::Initialized { .. }
            | Verb::Hold
            | Verb::Flag { action: FlagAction::Clear | FlagAction::Forget, .. } => (Self::Bound, false),
            Verb::Lock(_) | Verb::Acquire { .. } | Verb::Elect { .. } => (Self::Grants, true),
            // Again, it would undo what others have done since. A session's number may be another's after a restart.
            Verb::Flag { action: FlagAction::ClearAll, .. }
            | Verb::SetLimit { .. }
            | Verb::Stop
            | Verb::EndSession { .. } => (Self::None, false),
            _ => (Self::None, true),
        }
    }
}

/// What a core knows of its connections.
#[derive(Debug)]
pub(super) struct Holds {
    /// How many connections were lost, which is the number of the one that there is. Grants compare with it.
    lost: Arc<AtomicU64>,
    is_up: bool,
    /// The update flags of this client, and how many objects share each.
    flags: Vec<(Target, usize)>,
}

impl Holds {
    pub(super) fn new() -> Self {
        Self { lost: Arc::default(), is_up: true, flags: Vec::new() }
    }

    /// The number of the connection that there is.
    pub(super) fn connection(&self) -> u64 {
        self.lost.load(Ordering::Acquire)
    }

    /// The connection is gone, and with it all that was granted on it.
    pub(super) fn lose(&mut self) {
        self.is_up = false;
        self.lost.fetch_add(1, Ordering::AcqRel);
    }
}

impl Core {
    /// The number of the connection that there is, for grants to compare with.
    pub(in crate::client) fn connection_number(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.holds.lost)
    }

    /// Begins a request about something that was granted on this connection.
    pub(in crate::client) fn begin_on(&mut self, connection: u64, deadline: u32, verb: Verb<'_>) -> Result<u64, Error> {
        if connection != self.holds.connection() || !self.holds.is_up {
            return Err(lapsed(&verb));
        }
        self.begin(deadline, verb)
    }

    /// As [`begin_on`](Self::begin_on), for a caller who will not ask what became of it. With the connection, what it is
    /// about has ended, too.
    pub(in crate::client) fn tell(&mut self, connection: u64, verb: Verb<'_>) {
        if let Ok(id) = self.begin_on(connection, 0, verb) {
            self.forget(id);
        }
    }

    fn forget(&mut self, id: u64) {
        if let Some(request) = self.requests.get_mut(&id) {
            request.forgotten = true;
        }
    }

    /// Begins to wait for a daemon of another boot number than the one that was last connected to.
    pub(in crate::client) fn begin_restart(&mut self) -> u64 {
        self.last_id += 1;
        let request = InFlight { tie: Tie::Restart(self.boot), ..InFlight::new(Vec::new(), true, None) };
        self.requests.insert(self.last_id, request);
        self.last_id
    }

    /// Whether a connection is wanted although there is nothing to send.
    #[cfg(any(test, all(unix, feature = "async")))]
    pub(in crate::client) fn wants_connection(&self) -> bool {
        let waits = |request: &InFlight| matches!(request.tie, Tie::Restart(_)) && request.outcome.is_none();
        self.requests.values().any(waits)
    }

    /// Ends the waiting for a restart: with the daemon that was waited for, or with an error.
    pub(super) fn end_restarts(&mut self, error: Option<&Error>, settled: &mut impl FnMut(u64)) {
        let (boot, connection) = (self.boot, self.holds.connection());
        for (&id, request) in &mut self.requests {
            let Tie::Restart(old) = request.tie else { continue };
            if request.outcome.is_none() && (error.is_some() || old != boot) {
                let reply = || Reply { parts: Vec::new(), last: Body::default(), connection };
                request.outcome = Some(error.map_or_else(|| Ok(reply()), |error| Err(error.clone())));
                settled(id);
            }
        }
    }

    /// Registers an update flag, or only looks at it if it is registered already. Unless this fails,
    /// [`drop_flag`](Self::drop_flag) must follow.
    pub(in crate::client) fn begin_flag(&mut self, deadline: u32, target: &Target) -> Result<u64, Error> {
        let known = self.holds.flags.iter().position(|(known, _)| known == target);
        let action = if known.is_some() { FlagAction::Look } else { FlagAction::Register { set: false } };
        let id = self.begin(deadline, Verb::Flag { space: target.space(), action })?;
        match known {
            Some(known) => self.holds.flags[known].1 += 1,
            None => self.holds.flags.push((target.clone(), 1)),
        }
        Ok(id)
    }

    /// One object fewer shares an update flag; the last one takes it along.
    pub(in crate::client) fn drop_flag(&mut self, target: &Target) {
        let Some(at) = self.holds.flags.iter().position(|(known, _)| known == target) else { return };
        self.holds.flags[at].1 -= 1;
        if self.holds.flags[at].1 == 0 {
            self.holds.flags.swap_remove(at);
            self.tell(self.holds.connection(), Verb::Flag { space: target.space(), action: FlagAction::Forget });
        }
    }

    /// A connection was made: before anything else the update flags are registered on it, set, for nobody knows what was
    /// missed.
    pub(super) fn holds_connected(&mut self) {
        self.holds.is_up = true;
        let later = std::mem::take(&mut self.unsent);
        for at in 0..self.holds.flags.len() {
            let target = self.holds.flags[at].0.clone();
            let verb = Verb::Flag { space: target.space(), action: FlagAction::Register { set: true } };
            if let Ok(id) = self.begin(0, verb) {
                self.forget(id);
            }
        }
        self.unsent.extend(later);
    }

    /// Begins a request that waits in the daemon until something is free.
    pub(in crate::client) fn begin_wait(&mut self, limits: Limits, verb: Verb<'_>) -> Result<u64, Error> {
        let id = self.begin(grants::waiting_ms(limits.whole()), verb)?;
        if let Some(request) = self.requests.get_mut(&id) {
            request.waits = Some(limits);
        }
        Ok(id)
    }

    /// Whether the daemon of this connection has been asked, and may answer yet.
    pub(in crate::client) fn waits_on(&self, id: u64, connection: u64) -> bool {
        let is_asked = |request: &InFlight| request.sent > 0 && request.outcome.is_none();
        connection == self.holds.connection() && self.holds.is_up && self.requests.get(&id).is_some_and(is_asked)
    }

    /// What is waited for by a request that waits and whose time is up.
    pub(in crate::client) fn waits_for(&self, id: u64) -> &'static str {
        if self.is_settled(id) {
            grants::TO_BE_FREE
        } else if self.waits_on(id, self.holds.connection()) {
            "the daemon's answer; it may be stopped or very busy"
        } else {
            "a daemon to connect to, to be asked for it again"
        }
    }

    /// Cancels a request whose outcome is still waited for.
    pub(in crate::client) fn cancel(&mut self, id: u64) {
        if self.requests.get(&id).is_some_and(|request| request.sent > 0 && request.outcome.is_none()) {
            let mut frame = self.frame_of(0);
            codec::encode_cancel(&mut frame, id);
            self.last_id += 1;
            let own_id = self.last_id;
            self.enqueue(own_id, InFlight { forgotten: true, ..InFlight::new(frame, false, None) });
        }
    }

    /// What giving up means for a request that is tied to its connection; none if it means what it does for others.
    pub(super) fn give_up_tied(&mut self, id: u64) -> Option<GivenUp> {
        let request = self.requests.get_mut(&id)?;
        match request.tie {
            Tie::Bound if request.outcome.is_none() && !request.is_sent() => {
                request.forgotten = true;
                Some(GivenUp::Unknown)
            }
            // Not cancelled: it would leave held what is to be given back.
            Tie::Bound => {
                self.remove(id);
                Some(GivenUp::Unknown)
            }
            Tie::Grants if request.outcome.is_some() => {
                let request = self.requests.remove(&id)?;
                if let Some(Ok(reply)) = request.outcome
                    && let Some(answer) = reply.single()
                    && reply.connection == self.holds.connection()
                {
                    self.give_back(&request.frame, answer);
                }
                self.recycle(request.frame);
                Some(GivenUp::Read)
            }
            Tie::Grants if request.sent > 0 => {
                self.cancel(id);
                self.forget(id);
                Some(GivenUp::Read)
            }
            Tie::Restart(_) => {
                self.requests.remove(&id);
                Some(GivenUp::Read)
            }
            _ => None,
        }
    }

    /// Takes the answer to a request that was given up while it might be granted something, and gives that back. Answers
    /// whether it was one.
    pub(super) fn take_unwanted(&mut self, id: u64, answer: &[u8]) -> bool {
        let is_unwanted = |request: &InFlight| request.forgotten && request.tie == Tie::Grants && request.is_sent();
        if !self.requests.get(&id).is_some_and(is_unwanted) {
            return false;
        }
        if let Some(request) = self.requests.remove(&id) {
            self.give_back(&request.frame, answer);
            self.recycle(request.frame);
        }
        true
    }

    /// Gives back what `answer` grants to the request in the frame `asked`.
    fn give_back(&mut self, asked: &[u8], answer: &[u8]) {
        let connection = self.holds.connection();
        match codec::decode_answer(answer) {
            Ok(Answer::Locked { token }) => self.tell(connection, Verb::Unlock { token }),
            Ok(Answer::Acquired { lease }) => self.tell(connection, Verb::Release { lease }),
            Ok(Answer::Elected { state: Election::Won }) => {
                // The session has won, whichever of its requests is told so: another one that asks has it then.
                let others = || self.requests.values().filter(|request| !request.forgotten);
                if let Some(name) = elects(asked)
                    && !others().any(|request| elects(&request.frame) == Some(name))
                {
                    self.tell(connection, Verb::Initialized { name, done: false });
                }
            }
            _ => {}
        }
    }
}

/// Makes a request that waits, and is to be sent on another connection than it was begun for, one that waits no longer than its
/// caller does.
pub(super) fn cut(frame: &mut Vec<u8>, waits: Limits) -> Result<(), Error> {
    let left = waits.left();
    if left == Some(Duration::ZERO) {
        return Err(Error::TimedOut { waited: waits.began.elapsed(), waiting_for: grants::TO_BE_FREE });
    }
    Ok(repeat::with_deadline(frame, grants::waiting_ms(left))?)
}

/// The name that the request in a frame elects for.
fn elects(bytes: &[u8]) -> Option<&str> {
    let (_, body, _) = commonhold_proto::frame::split(bytes).ok()??;
    match codec::decode_request(body).ok()? {
        Request { verb: Verb::Elect { name, .. }, .. } => Some(name),
        _ => None,
    }
}

/// What a caller is told whose request is about something that ended with its connection.
fn lapsed(verb: &Verb<'_>) -> Error {
    let what = match verb {
        Verb::Unlock { token } => format!("the lock of token {token}"),
        Verb::Release { lease } => format!("the slots of lease {lease}"),
        Verb::Initialized { name, .. } => format!("the election of {:?}", crate::proto::names::shown(name)),
        _ => "what it had on an earlier connection".to_owned(),
    };
    Error::Fault(Fault::NotHeld { what })
}

/// The same for one that was begun in time and not sent.
pub(super) fn lapsed_in(frame: &[u8]) -> Error {
    let request = commonhold_proto::frame::split(frame).ok().flatten();
    let verb = request.and_then(|(_, body, _)| codec::decode_request(body).ok()).map(|request| request.verb);
    lapsed(&verb.unwrap_or(Verb::Hold))
}
