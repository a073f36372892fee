//! The requests about coordination, in the order in which their session sent them. Those that wait step aside: they are
//! promised an answer, and the session goes on.

use std::sync::Arc;

use crate::proto::{Answer, Verb};

use super::Daemon;
use super::coordination::Asking;
use super::holdings;
use super::replies::Replies;

/// Whether [`serve`] serves it.
pub(super) fn is_ours(verb: &Verb<'_>) -> bool {
    matches!(verb, Verb::Lock(_) | Verb::Unlock { .. } | Verb::Locks)
}

/// Does what is asked, or lets it wait.
pub(super) fn serve(daemon: &Arc<Daemon>, asking: &Asking<'_>, verb: Verb<'_>, replies: &mut Replies) {
    let answer = match verb {
        Verb::Lock(wish) => daemon.lock(asking, wish),
        Verb::Unlock { token } => Some(daemon.unlock(asking.outbox.session, token)),
        Verb::Locks => return replies.stream(asking.id, holdings::locks(daemon)),
        _ => unreachable!("asked for by `is_ours`"),
    };
    match answer {
        Some(Answer::Fault(fault)) => replies.refuse(asking.id, fault),
        Some(answer) => replies.answer(asking.id, &answer),
        None => {}
    }
}
