//! A whole session: a daemon in this process is sent a stream of any bytes over its socket, as any client may.
//!
//! What it must answer is told from the bytes by [`Expected`], which knows the frames and nothing else: every whole request
//! is answered once, unless the session has ended; and it ends only for a reason that the bytes give, and says which.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use crate::ipc::{Stream, Wanted};
use crate::proto::frame::{self, FrameKind};
use crate::proto::hello::{HELLO_BYTES, Hello, PROTOCOL_VERSION};
use crate::proto::limits::MAX_IN_FLIGHT_BYTES;
use crate::proto::{Event, Fault, LockWish, Request, StoreIdentity, Verb, codec};

use super::frame::{Pieces, split_all};
use super::meter;
use super::session_host::{Host, PATIENCE, with_host};

/// How long a client that reads late tries to send before it reads.
const LATE: Duration = Duration::from_millis(5);

/// The first byte says how the rest is sent: bit 0 which daemon serves it, bit 1 whether it begins with a hello of its own,
/// bit 2 whether its client reads only when nothing more can be sent, the others in which pieces.
///
/// # Panics
/// When a promise is broken.
pub fn session(data: &[u8]) {
    let Some((&how, rest)) = data.split_first() else { return };
    let on_tasks = how & 1 != 0;
    with_host(on_tasks, |host| {
        let (hello, stream) = if how & 2 == 0 {
            (Hello::of_client(1, StoreIdentity::ANY).to_bytes().to_vec(), rest)
        } else {
            let (hello, stream) = rest.split_at(rest.len().min(HELLO_BYTES));
            (hello.to_vec(), stream)
        };
        let expected = Expected::of(version_of(&hello), stream);
        let (ends, most) = meter::everywhere(|| {
            let bytes = [&hello[..], stream].concat();
            let (mut talk, pieces) = (Talk::new(host), Pieces { seed: how >> 3 });
            if expected.stops {
                // What follows a stop may wait for the end of the daemon, which comes below.
                talk.send_until(Some(LATE), &bytes, pieces, how & 4 != 0);
                return Some((talk, bytes, pieces));
            }
            talk.send(&bytes, pieces, how & 4 != 0);
            talk.holds(&hello, &expected);
            None
        });
        // This side has the input three times.
        let bound = MAX_IN_FLIGHT_BYTES + 4 * data.len();
        assert!(most <= bound, "{} bytes took {most} bytes of memory", data.len());
        if let Some((mut talk, bytes, pieces)) = ends {
            // Whoever has the daemon ends it, as `commonhold serve` does when a client asks.
            return host.ends_during(on_tasks, || {
                talk.send(&bytes, pieces, false);
                talk.listen_until("the end of the daemon ends its sessions", |_| false);
                talk.answers_no_more_than(&expected);
            });
        }
        host.serves_another();
        let deadline = Instant::now() + PATIENCE;
        while host.others() > 0 {
            if expected.holds.is_some() {
                // It goes on for as long as this process lives.
                host.end_held();
            }
            assert!(Instant::now() < deadline, "the session of a client that is gone has not ended");
            std::thread::yield_now();
        }
    });
}

/// The version that a session of this hello speaks, if it begins at all.
fn version_of(hello: &[u8]) -> u16 {
    let hello = hello.first_chunk::<HELLO_BYTES>().and_then(|bytes| Hello::from_bytes(bytes).ok());
    hello.map_or(PROTOCOL_VERSION, |hello| hello.highest.min(PROTOCOL_VERSION))
}

/// What a stream must be answered, if it is that of a session.
#[expect(clippy::struct_excessive_bools, reason = "each is a thing that a stream may do by itself")]
struct Expected {
    /// How many answers to which id.
    answers: HashMap<u64, usize>,
    /// What comes after the good frames ends the session.
    ends: bool,
    /// There is a request to end some session, which may be this one.
    ends_sessions: bool,
    /// There is a request to end the daemon.
    stops: bool,
    /// The request after whose answer nothing may be said or heard.
    holds: Option<u64>,
    /// How many answers to which id may never come: what they wait for may be the session's own, and a watch goes on.
    may_wait: HashMap<u64, usize>,
    /// No frame is left unfinished.
    is_whole: bool,
}

impl Expected {
    fn of(version: u16, stream: &[u8]) -> Self {
        let (frames, error) = split_all(stream);
        let mut expected = Self {
            answers: HashMap::new(),
            ends: error.is_some(),
            ends_sessions: false,
            stops: false,
            holds: None,
            may_wait: HashMap::new(),
            is_whole: frames.last().map_or(0, |(at, header, _)| at + header.frame_len()) == stream.len(),
        };
        for (_, header, body) in frames {
            match header.kind {
                FrameKind::Request => expected.request(version, header.id, body),
                FrameKind::Cancel => {}
                // Only daemons send these; nothing that follows is looked at.
                FrameKind::Answer | FrameKind::Part | FrameKind::Event => {
                    expected.ends = true;
                    break;
                }
            }
        }
        expected
    }

    fn request(&mut self, version: u16, id: u64, body: &[u8]) {
        *self.answers.entry(id).or_default() += 1;
        match codec::decode_request_of(version, body) {
            Ok(Request { verb: Verb::Stop, .. }) => self.stops = true,
            Ok(Request { verb: Verb::EndSession { .. }, .. }) => self.ends_sessions = true,
            Ok(Request { verb: Verb::Hold, .. }) => self.holds = self.holds.or(Some(id)),
            Ok(Request {
                verb:
                    Verb::Lock(LockWish { wait: true, .. })
                    | Verb::Acquire { wait: true, .. }
                    | Verb::Elect { wait: true, .. }
                    | Verb::Watch { .. },
                ..
            }) => *self.may_wait.entry(id).or_default() += 1,
            _ => {}
        }
    }

    /// Whether all that must be answered is.
    fn are_all_in(&self, answers: &HashMap<u64, usize>) -> bool {
        self.answers.iter().all(|(id, count)| {
            let may_wait = self.may_wait.get(id).copied().unwrap_or(0);
            answers.get(id).copied().unwrap_or(0) >= count - may_wait
        })
    }

    fn count(&self) -> usize {
        self.answers.values().sum()
    }
}

/// A client that sends what it is told to and writes down what it hears.
struct Talk {
    stream: Stream,
    sent: usize,
    came: Vec<u8>,
    hello: Option<Hello>,
    /// Final answers, by id.
    answers: HashMap<u64, usize>,
    answered: usize,
    closing: Option<Fault>,
    /// The daemon has closed the connection.
    is_over: bool,
}

impl Talk {
    fn new(host: &Host) -> Self {
        Self {
            stream: host.connect(),
            sent: 0,
            came: Vec::new(),
            hello: None,
            answers: HashMap::new(),
            answered: 0,
            closing: None,
            is_over: false,
        }
    }

    /// Sends what of `bytes` was not sent yet, all of it.
    fn send(&mut self, bytes: &[u8], pieces: Pieces, reads_late: bool) {
        self.send_until(None, bytes, pieces, reads_late);
    }

    /// As [`send`](Self::send), or until the daemon has taken nothing for `stuck`.
    fn send_until(&mut self, stuck: Option<Duration>, bytes: &[u8], pieces: Pieces, reads_late: bool) {
        // However small the pieces are to be, their number is bounded.
        let least = bytes.len() / 512;
        let mut piece = 0;
        let (began, mut taken) = (Instant::now(), Instant::now());
        while self.sent < bytes.len() && !self.is_over {
            assert!(began.elapsed() < PATIENCE, "neither reads nor answers: {} of {} bytes", self.sent, bytes.len());
            let rest = &bytes[self.sent..];
            match self.stream.write_now(&rest[..rest.len().min(pieces.length(piece).max(least))]) {
                Ok(written) => {
                    (self.sent, piece, taken) = (self.sent + written, piece + 1, Instant::now());
                    if reads_late {
                        continue;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if stuck.is_some_and(|stuck| taken.elapsed() >= stuck) {
                        return;
                    }
                    let late = reads_late && taken.elapsed() < LATE;
                    let wanted = if late { Wanted::Write } else { Wanted::Both };
                    let patience = if late || stuck.is_some() { LATE } else { PATIENCE };
                    // That it was for nothing shows in the next round.
                    let _ = self.stream.wait(wanted, Some(patience));
                    if late {
                        continue;
                    }
                }
                // What it has said before can still be read.
                Err(_) => break,
            }
            self.take_what_is_there();
        }
    }

    /// Without waiting.
    fn take_what_is_there(&mut self) {
        let mut buffer = [0; 16 * 1024];
        while !self.is_over {
            match self.stream.read_now(&mut buffer) {
                Ok(0) => self.is_over = true,
                Ok(read) => self.came.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.is_over = true,
            }
            self.understand();
        }
    }

    fn understand(&mut self) {
        let mut at = 0;
        if self.hello.is_none() {
            let Some(hello) = self.came.first_chunk::<HELLO_BYTES>() else { return };
            self.hello = Some(Hello::from_bytes(hello).expect("the daemon's hello is a good one"));
            at = HELLO_BYTES;
        }
        while let Some((header, body, consumed)) = frame::split(&self.came[at..]).expect("the daemon sends good frames")
        {
            assert_eq!(self.closing, None, "nothing comes after the last word");
            match header.kind {
                FrameKind::Answer => {
                    codec::decode_answer(body).expect("the daemon sends good answers");
                    *self.answers.entry(header.id).or_default() += 1;
                    self.answered += 1;
                }
                FrameKind::Part => drop(codec::decode_answer(body).expect("the daemon sends good answers")),
                FrameKind::Event => {
                    let Event::Closing(fault) = codec::decode_event(body).expect("the daemon sends good events");
                    self.closing = Some(fault);
                }
                FrameKind::Request | FrameKind::Cancel => panic!("a daemon asks for nothing"),
            }
            at += consumed;
        }
        self.came.drain(..at);
    }

    fn listen_until(&mut self, what: &str, enough: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        self.take_what_is_there();
        while !self.is_over && !enough(self) {
            assert!(Instant::now() < deadline, "{what}: {} answers came, closing {:?}", self.answered, self.closing);
            self.stream.wait(Wanted::Read, Some(PATIENCE)).expect("a socket can be waited for");
            self.take_what_is_there();
        }
    }

    /// All that was promised for this stream.
    fn holds(mut self, hello: &[u8], expected: &Expected) {
        let Some(hello) = hello.first_chunk::<HELLO_BYTES>() else {
            // It waits for the rest; that it does not come ends it.
            self.stream.end_writing();
            self.listen_until("half a hello ends a connection", |_| false);
            return assert_eq!((self.answered, self.hello), (0, None));
        };
        self.listen_until("a hello is answered", |talk| talk.hello.is_some());
        let own = self.hello.expect("the daemon answers a hello with its own");
        let welcome = Hello::from_bytes(hello).is_ok_and(|hello| Hello::agree(&hello, &own).is_ok());
        if !welcome {
            self.listen_until("who is not welcome is shown out", |_| false);
            assert_eq!(self.answered, 0);
            let closing = self.closing.expect("who is not welcome is told why");
            return assert!(!closing.to_string().is_empty());
        }
        if let Some(id) = expected.holds {
            self.listen_until("that it only holds what it has is answered", |talk| talk.answers.contains_key(&id));
            return self.answers_no_more_than(expected);
        }
        if expected.ends_sessions {
            // It may be this one. Of what comes before the end, any part may be answered.
            self.listen_until("all is answered", |talk| expected.are_all_in(&talk.answers) && !expected.ends);
            return self.answers_no_more_than(expected);
        }
        if expected.ends {
            self.listen_until("a bad frame ends a session", |_| false);
            self.answers_no_more_than(expected);
            assert!(matches!(self.closing, Some(Fault::Malformed { .. })), "{:?}", self.closing);
            if !expected.may_wait.is_empty() {
                return assert!(expected.are_all_in(&self.answers), "what comes before a bad frame is answered");
            }
            return assert_eq!(self.answers, expected.answers, "what comes before a bad frame is answered");
        }
        if !expected.may_wait.is_empty() {
            self.listen_until("all that waits for nobody is answered", |talk| expected.are_all_in(&talk.answers));
            return self.answers_no_more_than(expected);
        }
        self.listen_until("all is answered", |talk| talk.answered >= expected.count());
        assert!(!self.is_over, "the session has ended without a reason: {:?}", self.closing);
        if expected.is_whole {
            self.still_serves(expected);
        }
        assert_eq!(self.answers, expected.answers, "every request is answered once");
        // A frame that is not whole waits for its rest, and ends with the connection.
        self.stream.end_writing();
        self.listen_until("a session ends with its client", |_| false);
        assert_eq!(self.answers, expected.answers, "nothing is answered that was not asked");
    }

    fn answers_no_more_than(&self, expected: &Expected) {
        for (id, count) in &self.answers {
            let asked = expected.answers.get(id).copied().unwrap_or(0);
            assert!(*count <= asked, "request {id} was sent {asked} times and answered {count} times");
        }
    }

    /// Whatever has come, a session that was not ended goes on.
    fn still_serves(&mut self, expected: &Expected) {
        let id =
            (1..=u64::MAX).find(|id| !expected.answers.contains_key(id)).expect("there are more ids than requests");
        let mut ping = Vec::new();
        codec::encode_request(&mut ping, id, &Request { deadline_ms: 0, verb: Verb::Ping }).expect("it is small");
        self.sent = 0;
        self.send(&ping, Pieces { seed: 0 }, false);
        self.listen_until("a session goes on", |talk| talk.answers.contains_key(&id));
        assert_eq!(self.answers.remove(&id), Some(1), "a session that has sent this goes on");
    }
}
