//! Commit, flush and drop: what they mean is fixed here and now, in the order of their session, and they are answered later.

use std::time::Instant;

use crate::engine::Dropped;
use crate::proto::{Answer, Fault, Place, Seq};

use super::Daemon;
use super::fault::reason_of;
use super::flusher::{Done, Wish};
use super::late::LateAnswer;
use super::syncer::Commit;

/// How a client wants a flush.
#[derive(Clone, Copy)]
pub(super) struct FlushWish {
    pub(super) rewrite: bool,
    /// Whether the answer waits for the file.
    pub(super) wait: bool,
    /// When it was read.
    pub(super) since: Instant,
    pub(super) deadline: Option<Instant>,
}

/// Answers when everything that is applied now is on the platter.
pub(super) fn commit(daemon: &Daemon, answer: LateAnswer, since: Instant, deadline: Option<Instant>) {
    let store = daemon.store();
    let seq = store.applied();
    let synced = store.synced();
    if synced >= seq {
        return answer.give(&Answer::Committed { seq: synced });
    }
    let cancelled = Some(answer.cancellable());
    let waiter = move |outcome: Result<Seq, Fault>| match outcome {
        Ok(seq) => answer.give(&Answer::Committed { seq }),
        Err(fault) => answer.give(&Answer::Fault(fault)),
    };
    daemon.syncer().commit(Commit { seq, since, deadline, cancelled, waiter: Box::new(waiter) });
}

/// Answers when the namespace's file, or with no place every file, holds everything that is applied now.
pub(super) fn flush(daemon: &Daemon, answer: LateAnswer, place: Option<Place>, wish: FlushWish) {
    if !daemon.takes_writes() {
        return answer.give(&Answer::Fault(Fault::Stopping));
    }
    let FlushWish { rewrite, wait, since, deadline } = wish;
    if !wait {
        let wish = Wish { rewrite, since, deadline: None, cancelled: None };
        daemon.flusher().flush(place, wish, Box::new(|_| ()));
        return answer.give(&Answer::Done);
    }
    let wish = Wish { rewrite, since, deadline, cancelled: Some(answer.cancellable()) };
    let waiter = move |outcome: Result<Done, Fault>| match outcome {
        Ok(Done { rewritten, seq }) => answer.give(&Answer::Flushed { rewritten, seq }),
        Err(fault) => answer.give(&Answer::Fault(fault)),
    };
    daemon.flusher().flush(place, wish, Box::new(waiter));
}

/// Answers when the file of a namespace whose records were dropped has gone too.
pub(super) fn dropped(daemon: &Daemon, answer: LateAnswer, place: Place, dropped: Dropped, since: Instant) {
    let Dropped { seq, records, needs_flush } = dropped;
    if !needs_flush {
        return answer.give(&Answer::Dropped { seq, records });
    }
    let name = place.to_string();
    let waiter = move |outcome: Result<Done, Fault>| match outcome {
        Ok(_) => answer.give(&Answer::Dropped { seq, records }),
        Err(Fault::FlushLockTimeout { lock_file, waited_ms, .. }) => {
            let waiting_for = format!(
                "{lock_file}, which another program holds: the records are dropped, and the file goes with the next flush"
            );
            answer.give(&Answer::Fault(Fault::TimedOut { waited_ms, waiting_for }));
        }
        Err(fault) => {
            let reason =
                format!("its records are dropped, but its file could not be removed yet: {}", reason_of(fault));
            answer.give(&Answer::Fault(Fault::FlushFailed { places: vec![name], reason }));
        }
    };
    let wish = Wish { rewrite: false, since, deadline: None, cancelled: None };
    daemon.flusher().flush(Some(place), wish, Box::new(waiter));
}
