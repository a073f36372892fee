//! Carrying out a request elsewhere than in its session: on a helper's thread, which may wait.

use std::sync::Arc;

use crate::engine::{Dropped, Numbered, Watch};
use crate::proto::codec::decode_request;
use crate::proto::{Fault, Place, Request, Verb};

use super::Daemon;
use super::again;
use super::coordinate;
use super::coordination::Asking;
use super::dispatch::{gives_back, place_to_flush, prepare_write, read};
use super::fault::timed_out;
use super::late::LateAnswer;
use super::later;
use super::line::AsideRequest;
use super::outbox::Outbox;
use super::replies::Replies;
use super::session::answer_of;
use super::tables::Tables;
use super::watches;

/// What came of it.
pub(super) enum Outcome {
    /// This is the answer.
    Answer(Replies),
    /// The syncer or the flusher will answer.
    Commit,
    /// As [`Commit`](Self::Commit).
    Flush { place: Option<Place>, rewrite: bool, wait: bool },
    /// As [`Commit`](Self::Commit): its records are gone, and its file is to follow.
    Dropped { place: Place, dropped: Dropped },
    /// It is told from here on.
    Watch(Box<Watch>),
}

/// Carries out request `id`; what it changes is changed when this returns.
pub(super) fn carry_out(daemon: &Arc<Daemon>, outbox: &Arc<Outbox>, id: u64, request: &AsideRequest) -> Outcome {
    let mut replies = Replies::default();
    match try_carry_out(daemon, outbox, id, request, &mut replies) {
        Ok(Some(later)) => return later,
        Ok(None) => {}
        Err(fault) => replies.refuse(id, fault),
    }
    Outcome::Answer(replies)
}

fn try_carry_out(
    daemon: &Arc<Daemon>,
    outbox: &Arc<Outbox>,
    id: u64,
    aside: &AsideRequest,
    replies: &mut Replies,
) -> Result<Option<Outcome>, Fault> {
    let Request { verb, .. } = decode_request(aside.body.bytes())?;
    if let Some(waited) = aside.overdue().filter(|_| !gives_back(&verb)) {
        return Err(timed_out(waited, "the requests sent before it"));
    }
    let mut tables = Tables::new(daemon.store().clone());
    match verb {
        Verb::Write(write) => {
            let mut request = prepare_write(daemon, &mut tables, &write)?;
            if aside.counts && write.number > 0 {
                request.once(write.settled, None);
                request.behind(&aside.fence);
            }
            let outcome =
                daemon.commit(vec![request]).and_then(|mut outcomes| outcomes.pop()).ok_or(Fault::Stopping)?;
            replies.answer(id, &answer_of(outcome.map_err(|error| Fault::from(&error))?));
        }
        Verb::WriteAgain { earlier, write } => {
            replies.answer(id, &answer_of(again::write(daemon, &mut tables, &write, earlier, &aside.fence)?));
        }
        Verb::Commit => return Ok(Some(Outcome::Commit)),
        Verb::Flush { space, rewrite, wait } => {
            let place = space.as_ref().map(place_to_flush).transpose()?;
            return Ok(Some(Outcome::Flush { place, rewrite, wait }));
        }
        Verb::Drop { space } => {
            let (place, dropped) = again::drop_records(daemon, &space, &Numbered::default(), &aside.fence)?;
            return Ok(Some(Outcome::Dropped { place, dropped }));
        }
        Verb::DropOnce { space, client, number, settled, earlier } => {
            let earlier = earlier.map(again::earlier);
            let numbered = Numbered { client, number, settled, earlier };
            let (place, dropped) = again::drop_records(daemon, &space, &numbered, &aside.fence)?;
            return Ok(Some(Outcome::Dropped { place, dropped }));
        }
        Verb::Watch { space, prefix, after } => {
            let watch = watches::begin(daemon.store(), &mut tables, &space, prefix, after)?;
            return Ok(Some(Outcome::Watch(Box::new(watch))));
        }
        verb if coordinate::is_ours(&verb) => {
            let asking = Asking { outbox, id, since: aside.read_at, deadline: aside.deadline() };
            coordinate::serve(daemon, &asking, verb, replies);
        }
        _ => read(daemon, &mut tables, id, &verb, replies),
    }
    Ok(None)
}

impl Outcome {
    /// Sees to it that the request is answered.
    pub(super) fn give(self, daemon: &Daemon, answer: LateAnswer, request: &AsideRequest) {
        let (since, deadline) = (request.read_at, request.deadline());
        match self {
            Self::Answer(replies) => answer.give_replies(replies),
            Self::Dropped { place, dropped } => later::dropped(daemon, answer, place, dropped, since),
            Self::Watch(watch) => daemon.watches.add(answer, Ok(*watch)),
            Self::Commit => later::commit(daemon, answer, since, deadline),
            Self::Flush { place, rewrite, wait } => {
                later::flush(daemon, answer, place, later::FlushWish { rewrite, wait, since, deadline });
            }
        }
    }
}
