//! The requests about coordination, in the order in which their session sent them. Those that wait step aside: they are
//! promised an answer, and the session goes on.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::engine::{clear_flags, set_flags};
use crate::proto::{Answer, Fault, FlagAction, Space, Verb};

use super::Daemon;
use super::coordination::{AskSlots, Asking};
use super::holdings;
use super::refusal::flag_fault;
use super::replies::Replies;

/// Whether [`serve`] serves it.
pub(super) fn is_ours(verb: &Verb<'_>) -> bool {
    matches!(
        verb,
        Verb::Flag { .. }
            | Verb::Flags
            | Verb::Elect { .. }
            | Verb::Initialized { .. }
            | Verb::Lock(_)
            | Verb::Unlock { .. }
            | Verb::Locks
            | Verb::Acquire { .. }
            | Verb::Release { .. }
            | Verb::SetLimit { .. }
            | Verb::Slots
    )
}

/// Does what is asked, or lets it wait.
pub(super) fn serve(daemon: &Arc<Daemon>, asking: &Asking<'_>, verb: Verb<'_>, replies: &mut Replies) {
    let answer = match verb {
        Verb::Lock(wish) => daemon.lock(asking, wish),
        Verb::Unlock { token } => Some(daemon.unlock(asking.outbox.session, token)),
        Verb::Elect { name, wait } => daemon.elect(asking, name, wait),
        Verb::Initialized { name, done } => Some(daemon.initialized(asking.outbox.session, name, done)),
        Verb::Acquire { group, limit, slots, wait } => daemon.acquire(asking, &AskSlots { group, limit, slots, wait }),
        Verb::Release { lease } => Some(daemon.release(asking.outbox.session, lease)),
        Verb::SetLimit { group, limit } => Some(daemon.set_limit(asking.outbox.session, group, limit)),
        Verb::Flag { space, action } => {
            Some(flag(daemon, asking.outbox.session, &space, action).unwrap_or_else(Answer::Fault))
        }
        Verb::Flags => return replies.stream(asking.id, holdings::flags(daemon)),
        Verb::Slots => return replies.stream(asking.id, holdings::slots(daemon)),
        Verb::Locks => return replies.stream(asking.id, holdings::locks(daemon)),
        _ => unreachable!("asked for by `is_ours`"),
    };
    match answer {
        Some(Answer::Fault(fault)) => replies.refuse(asking.id, fault),
        Some(answer) => replies.answer(asking.id, &answer),
        None => {}
    }
}

fn flag(daemon: &Daemon, session: u64, space: &Space<'_>, action: FlagAction) -> Result<Answer<'static>, Fault> {
    let place = space.place()?;
    let word = daemon.store().flag_word(&place);
    let not_held = || Fault::NotHeld { what: format!("a flag of {place}") };
    daemon.coordination().flags(|flags| {
        match action {
            FlagAction::Register { set } => {
                flags.register(session, &place, &word, set).map_err(|refusal| flag_fault(&refusal))?;
                daemon.versions().flag(&place, &word);
            }
            FlagAction::Look => drop(flags.look(session, &place).ok_or_else(not_held)?),
            FlagAction::Clear => drop(flags.clear(session, &place).ok_or_else(not_held)?),
            FlagAction::Forget => drop(flags.forget(session, &place).ok_or_else(not_held)?),
            FlagAction::SetAll => daemon.store().flag_moved(&place, set_flags(&word)),
            FlagAction::ClearAll => daemon.store().flag_moved(&place, clear_flags(&word)),
        }
        let (set, word) = flags.look(session, &place).unwrap_or_else(|| (false, word.load(Ordering::Acquire)));
        Ok(Answer::Flag { set, word })
    })
}
