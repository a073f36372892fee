//! What a watcher is told, without I/O: bytes of a connection go in, events come out, and what is known of how far they go
//! lets the next connection continue.
//!
//! A watch has a connection of its own for as long as it runs, as [`parts`](super::parts) have: a caller who takes its events
//! slowly holds up nobody but the daemon's watcher, through the socket's own buffers, and falls behind there. When the
//! connection is lost, the next one asks for what follows the last write that was received whole.

use std::collections::VecDeque;

use commonhold_proto as wire;
use commonhold_proto::{Answer, DecodeError, Event, Fault, FrameKind, Request, Seq, Verb, codec};

use super::error::Error;
use super::inbox::Inbox;
use super::target::Target;

/// The only request of its connection.
const ID: u64 = 1;

/// Connections that end so often in a row without a word end the watch.
const MOST_BARREN: u32 = 5;

/// What to watch, and from where on.
///
/// ```
/// use commonhold::blocking::{Seq, WatchOptions};
/// let options = WatchOptions::new().prefix("doc-").after(Seq(17));
/// # let _ = options;
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchOptions {
    pub(super) prefix: String,
    pub(super) after: Option<Seq>,
}

impl WatchOptions {
    /// All keys, from now on.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only keys that begin so, and whatever concerns all keys.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Everything after this write: the Seq that `scan`, `get_all` or a write of this namespace gave, or
    /// [`through`](super::blocking::Watch::through) of an earlier watch.
    #[must_use]
    pub fn after(mut self, seq: Seq) -> Self {
        self.after = Some(seq);
        self
    }
}

/// What a watcher is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// One write.
    Changes(ChangeSet),
    /// Some writes are not told: this watcher fell behind farther than they are kept. It goes on.
    Lagged {
        /// The first write of which nothing is told.
        lost_from: Seq,
        /// The first one that is told again.
        next: Seq,
    },
}

/// All that one write changed in what is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeSet {
    /// The write.
    pub seq: Seq,
    /// In the order in which they can be done again.
    pub changes: Vec<Change>,
}

/// One change of a namespace: what is there afterwards. Done twice it does no harm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The key has this value now: the last one, if it was not there.
    Put {
        /// The key.
        key: String,
        /// Canonical JSON text.
        value: String,
    },
    /// The key has no record any more.
    Delete {
        /// The key.
        key: String,
    },
    /// There are no records any more.
    Clear,
    /// There are no records any more, and the namespace was dropped.
    Drop,
}

impl From<wire::Change<'_>> for Change {
    fn from(change: wire::Change<'_>) -> Self {
        match change {
            wire::Change::Put { key, value } => Self::Put { key: key.to_owned(), value: value.to_owned() },
            wire::Change::Delete { key } => Self::Delete { key: key.to_owned() },
            wire::Change::Clear => Self::Clear,
            wire::Change::Drop => Self::Drop,
        }
    }
}

/// What is to be done for the next event.
pub(super) enum Next {
    /// Give it.
    Give(WatchEvent),
    /// Read more from the connection, or make one.
    Read,
    /// There is none, because of this, which was told.
    End,
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Watching {
    options: WatchOptions,
    inbox: Inbox,
    events: VecDeque<(WatchEvent, Seq)>,
    /// A write of which more is to come.
    begun: Option<ChangeSet>,
    /// Everything through this write has been received; none before the daemon has said from where on it tells.
    received: Option<Seq>,
    /// Everything through this write has been given.
    given: Option<Seq>,
    barren: u32,
    /// Something has come on this connection.
    is_told: bool,
    is_over: bool,
}

impl Watching {
    pub(super) fn new(options: WatchOptions) -> Self {
        let (received, given) = (options.after, options.after);
        let (inbox, events) = (Inbox::default(), VecDeque::new());
        Self { options, inbox, events, begun: None, received, given, barren: 0, is_told: false, is_over: false }
    }

    /// The bytes that a new connection begins with.
    pub(super) fn ask(&mut self, deadline_ms: u32, target: &Target) -> Result<Vec<u8>, Error> {
        self.inbox.clear();
        (self.begun, self.is_told) = (None, false);
        let verb = Verb::Watch { space: target.space(), prefix: &self.options.prefix, after: self.received };
        let mut frame = Vec::new();
        codec::encode_request(&mut frame, ID, &Request { deadline_ms, verb })?;
        Ok(frame)
    }

    /// Everything through this write has been given.
    pub(super) fn through(&self) -> Option<Seq> {
        self.given
    }

    /// Whether the daemon has said on this connection from where on it tells.
    pub(super) fn has_begun(&self) -> bool {
        self.is_told
    }

    /// The next event, if it is here.
    pub(super) fn next(&mut self) -> Next {
        if let Some((event, through)) = self.events.pop_front() {
            self.given = Some(through);
            return Next::Give(event);
        }
        if self.is_over {
            return Next::End;
        }
        // What was of other keys needs no event.
        self.given = self.received;
        Next::Read
    }

    /// The connection ended, for this reason: another one is to be made, unless that would end so, too.
    pub(super) fn lost(&mut self, error: Error) -> Result<(), Error> {
        self.is_told = false;
        self.barren += 1;
        if self.barren > MOST_BARREN { Err(self.end(error)) } else { Ok(()) }
    }

    /// Nothing more will come, because of `error`.
    pub(super) fn end(&mut self, error: Error) -> Error {
        self.is_over = true;
        error
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Takes what the connection gave. False if the daemon ends the connection, and another one may be made.
    ///
    /// # Errors
    /// What ends the watch.
    pub(super) fn receive(&mut self, mut bytes: &[u8]) -> Result<bool, Error> {
        match self.try_receive(&mut bytes) {
            Ok(goes_on) => Ok(goes_on),
            Err(error) => Err(self.end(error)),
        }
    }

    fn try_receive(&mut self, bytes: &mut &[u8]) -> Result<bool, Error> {
        while let Some(frame) = self.inbox.next(bytes)? {
            match frame.kind {
                FrameKind::Part if frame.id == ID => {
                    (self.barren, self.is_told) = (0, true);
                    self.part(codec::decode_answer(frame.body.bytes())?)?;
                }
                FrameKind::Answer if frame.id == ID => match codec::decode_answer(frame.body.bytes())? {
                    Answer::Fault(Fault::Stopping) => return Ok(false),
                    Answer::Fault(fault) => return Err(Error::Fault(fault)),
                    _ => return Err(Error::protocol("a watch ended without a reason")),
                },
                FrameKind::Event => match codec::decode_event(frame.body.bytes()) {
                    Ok(Event::Closing(_)) => return Ok(false),
                    // An event of a newer daemon, which an older client may pass over.
                    Err(DecodeError::Unsupported { .. }) => {}
                    Err(error) => return Err(error.into()),
                },
                _ => return Err(Error::protocol("it sent something else than what is watched")),
            }
        }
        Ok(true)
    }

    fn part(&mut self, answer: Answer<'_>) -> Result<(), Error> {
        match answer {
            Answer::Changes { list, through } => {
                // A watch from now on: it begins before the first write of which it is told.
                self.given.get_or_insert(list.first().map_or(through, |set| before(set.seq)));
                for set in list {
                    let more = set.more;
                    let mut whole = match self.begun.take() {
                        Some(begun) if begun.seq == set.seq => begun,
                        Some(_) => return Err(Error::protocol("it began a write before it had told all of another")),
                        None => ChangeSet { seq: set.seq, changes: Vec::with_capacity(set.changes.len()) },
                    };
                    whole.changes.extend(set.changes.into_iter().map(Change::from));
                    if more {
                        self.begun = Some(whole);
                    } else {
                        let seq = whole.seq;
                        self.received = Some(seq);
                        self.events.push_back((WatchEvent::Changes(whole), seq));
                    }
                }
                self.received = self.received.max(Some(through));
            }
            Answer::Lagged { lost_from, next } => {
                let through = before(next);
                self.given.get_or_insert(before(lost_from));
                self.received = Some(through);
                self.events.push_back((WatchEvent::Lagged { lost_from, next }, through));
            }
            _ => return Err(Error::protocol("its answer is of another kind than the request asks for")),
        }
        Ok(())
    }
}

/// What is told through this is told up to, and without, that write.
fn before(write: Seq) -> Seq {
    Seq(write.0.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use commonhold_proto::ChangeSet as WireSet;

    use super::*;

    fn part(list: Vec<WireSet<'_>>, through: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        codec::encode_part(&mut bytes, ID, &Answer::Changes { list, through: Seq(through) }).unwrap();
        bytes
    }

    fn put(seq: u64, key: &str, more: bool) -> WireSet<'_> {
        WireSet { seq: Seq(seq), more, changes: vec![wire::Change::Put { key, value: "1" }] }
    }

    fn given(watching: &mut Watching) -> Vec<(u64, usize)> {
        let mut given = Vec::new();
        while let Next::Give(WatchEvent::Changes(set)) = watching.next() {
            given.push((set.seq.0, set.changes.len()));
        }
        given
    }

    #[test]
    fn a_write_in_pieces_is_one_event_and_half_of_it_is_asked_for_again() {
        let mut watching = Watching::new(WatchOptions::new());
        assert_eq!((watching.through(), watching.has_begun()), (None, false));
        watching.receive(&part(vec![], 4)).unwrap();
        assert!(watching.has_begun());
        watching.receive(&part(vec![put(5, "a", false), put(6, "b", true)], 5)).unwrap();
        assert_eq!((given(&mut watching), watching.through()), (vec![(5, 1)], Some(Seq(5))));
        watching.receive(&part(vec![put(6, "c", false)], 9)).unwrap();
        assert_eq!((given(&mut watching), watching.through()), (vec![(6, 2)], Some(Seq(9))));
        watching.receive(&part(vec![put(10, "b", true)], 9)).unwrap();
        watching.lost(Error::Forked).unwrap();
        let target = Target::new(wire::Place::new("", "a").unwrap(), wire::Kind::Persistent);
        let frame = watching.ask(0, &target).unwrap();
        let request = codec::decode_request(&frame[wire::FRAME_HEADER_BYTES..]).unwrap();
        assert!(matches!(request.verb, Verb::Watch { after: Some(Seq(9)), .. }), "{request:?}");
        watching.receive(&part(vec![put(10, "b", false)], 10)).unwrap();
        assert_eq!(given(&mut watching), [(10, 1)]);
    }

    #[test]
    fn what_was_received_and_not_given_is_not_told_as_given() {
        let mut watching = Watching::new(WatchOptions::new().after(Seq(2)));
        watching.receive(&part(vec![put(3, "a", false), put(4, "b", false)], 4)).unwrap();
        assert_eq!(watching.through(), Some(Seq(2)));
        assert!(matches!(watching.next(), Next::Give(_)));
        assert_eq!(watching.through(), Some(Seq(3)));
        let mut from_now_on = Watching::new(WatchOptions::new());
        from_now_on.receive(&[part(vec![], 4), part(vec![put(5, "a", false)], 5)].concat()).unwrap();
        assert_eq!(from_now_on.through(), Some(Seq(4)));
        let mut at_once = Watching::new(WatchOptions::new());
        at_once.receive(&part(vec![put(5, "a", false)], 9)).unwrap();
        assert_eq!(at_once.through(), Some(Seq(4)));
    }

    #[test]
    fn what_cannot_go_on_ends_with_its_reason_and_a_daemon_that_stops_does_not() {
        let mut watching = Watching::new(WatchOptions::new().after(Seq(3)));
        let mut bytes = Vec::new();
        codec::encode_answer(&mut bytes, ID, &Answer::Fault(Fault::Stopping)).unwrap();
        assert!(!watching.receive(&bytes).unwrap());
        bytes.clear();
        codec::encode_answer(&mut bytes, ID, &Answer::Fault(Fault::Rewound { to: Seq(2) })).unwrap();
        assert!(matches!(watching.receive(&bytes), Err(Error::Fault(Fault::Rewound { to: Seq(2) }))));
        assert!(matches!(watching.next(), Next::End));
        let mut watching = Watching::new(WatchOptions::new());
        let lost = (0..=MOST_BARREN).map(|_| watching.lost(Error::Forked).is_ok());
        assert_eq!(lost.filter(|goes_on| *goes_on).count(), MOST_BARREN as usize);
    }
}
