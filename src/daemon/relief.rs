//! When clients leave more answers untaken than may wait for all of them, no session serves on; the tick then looks who
//! is the cause, and ends those sessions.
//!
//! A client that takes nothing goes as soon as that is certain. One that takes a little, now and then, would hold back
//! everybody for as long as it likes: when the shortage has lasted for a while, of those that are slow the one with the most
//! goes. Sessions only call; nobody but the tick looks, so that two never act on the same picture.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::proto::Fault;

use super::outbox::Outbox;
use super::running::Daemon;

/// A client that has taken nothing for so long, while too much waits for clients, is the first to go.
const SILENT: Duration = Duration::from_secs(1);

/// A shortage that has lasted for so long is ended, whatever it takes.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often the tick looks during a shortage.
const LOOK: Duration = Duration::from_millis(50);

/// A shortage in which nobody was held back for so long is over.
const CALM: Duration = Duration::from_millis(500);

/// When slow clients are ended, there is to be room for this part of what may wait.
const ROOM_PART: usize = 16;

/// Wakes the tick before its time.
#[derive(Default)]
pub(super) struct Bell {
    rung: Mutex<Rung>,
    changed: Condvar,
}

#[derive(Default)]
struct Rung {
    /// A session is held back.
    called: bool,
    /// The journal needs somebody.
    journal: bool,
    ended: bool,
}

/// What the tick remembers of clients that are slow.
#[derive(Default)]
pub(super) struct SlowClients {
    shortage: Option<Shortage>,
}

struct Shortage {
    /// When it began, or somebody was ended because of it.
    since: Instant,
    /// When somebody was last held back.
    last: Instant,
    /// What each session's client had taken by `since`.
    taken: HashMap<u64, u64>,
}

impl Bell {
    /// A session waits for clients to take some of what waits for them.
    pub(super) fn call(&self) {
        let mut rung = self.rung.lock();
        if !std::mem::replace(&mut rung.called, true) {
            self.changed.notify_all();
        }
    }

    /// The journal has grown, or can be made smaller.
    pub(super) fn call_for_the_journal(&self) {
        let mut rung = self.rung.lock();
        if !std::mem::replace(&mut rung.journal, true) {
            self.changed.notify_all();
        }
    }

    /// Whether there was such a call since the last time.
    pub(super) fn takes_call_for_the_journal(&self) -> bool {
        std::mem::take(&mut self.rung.lock().journal)
    }

    /// The tick is to end.
    pub(super) fn end(&self) {
        self.rung.lock().ended = true;
        self.changed.notify_all();
    }

    /// Waits until then, for a call for the journal, or, with `heed`, for one of a session. Answers whether there was one; none at the end.
    pub(super) fn wait(&self, until: Instant, heed: bool) -> Option<bool> {
        let mut rung = self.rung.lock();
        while !(rung.ended || rung.journal || heed && rung.called) {
            if self.changed.wait_until(&mut rung, until).timed_out() {
                break;
            }
        }
        (!rung.ended).then(|| std::mem::take(&mut rung.called))
    }
}

impl SlowClients {
    /// When to look again, if not at the next call.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.shortage.as_ref().map(|_| Instant::now() + LOOK)
    }

    /// Looks, and ends the sessions that are the cause of a shortage. `called` tells that somebody was held back.
    pub(super) fn look(&mut self, daemon: &Daemon, called: bool) {
        let now = Instant::now();
        let is_short = called || daemon.queued.is_used_up();
        if is_short {
            self.shortage.get_or_insert_with(|| Shortage::begin(daemon, now)).last = now;
        }
        let Some(shortage) = &mut self.shortage else { return };
        if now - shortage.last >= CALM {
            self.shortage = None;
            return;
        }
        if daemon.queued.is_used_up() {
            end_silent(daemon);
        }
        if is_short && now - shortage.since >= PATIENCE {
            shortage.end_slowest(daemon);
            *shortage = Shortage::begin(daemon, now);
        }
    }
}

impl Shortage {
    fn begin(daemon: &Daemon, now: Instant) -> Self {
        let of = |outbox: &Outbox| (outbox.session, outbox.taken());
        let taken = daemon.guests().iter().map(|guest| of(&guest.outbox)).collect();
        Self { since: now, last: now, taken }
    }

    /// Ends the sessions with the most of those whose clients are slow, until there is some room. Slow is one who took less
    /// in all this time than still waits for it.
    fn end_slowest(&self, daemon: &Daemon) {
        let enough = daemon.queued.limit() - daemon.queued.limit() / ROOM_PART;
        end_greatest(
            daemon,
            enough,
            "the client that takes too slowly is closed, of those the one with the most",
            |outbox| {
                let before = self.taken.get(&outbox.session);
                before.is_some_and(|before| outbox.taken() - before < outbox.queued() as u64)
            },
        );
    }
}

/// Ends sessions whose clients take nothing, the one with the most first, until less waits than may.
fn end_silent(daemon: &Daemon) {
    let is_silent = |outbox: &Outbox| outbox.stalled() >= SILENT;
    end_greatest(daemon, daemon.queued.limit(), "the client that takes nothing of the most is closed", is_silent);
}

fn end_greatest(daemon: &Daemon, enough: usize, words: &str, which: impl Fn(&Outbox) -> bool) {
    let mut slow = daemon.guests();
    // A session that was closed gives its bytes back when its thread wakes up: they are as good as gone.
    let leaving: usize = slow.iter().filter(|guest| guest.outbox.is_closed()).map(|guest| guest.outbox.queued()).sum();
    let mut used = daemon.queued.used().saturating_sub(leaving);
    slow.retain(|guest| !guest.outbox.is_closed() && guest.outbox.queued() > 0 && which(&guest.outbox));
    slow.sort_unstable_by_key(|guest| guest.outbox.queued());
    while used >= enough
        && let Some(guest) = slow.pop()
    {
        let outbox = &guest.outbox;
        let queued = outbox.queued();
        used = used.saturating_sub(queued);
        let fault = Fault::Flooded {
            what: "bytes of answers that clients have not taken, in the whole daemon".to_owned(),
            got: daemon.queued.used() as u64,
            limit: daemon.queued.limit() as u64,
        };
        tracing::warn!(session = outbox.session, queued, "{words}: {fault}");
        outbox.say_closing(fault);
        outbox.close();
    }
}
