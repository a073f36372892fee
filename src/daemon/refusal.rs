//! What is said of coordination: what may be asked for at all, and why something is not granted, in the words of the wire.

use crate::coord::{Refusal, Step, Whose};
use crate::proto::limits::{MAX_LOCK_HOLDS, MAX_LOCK_KEYS, MAX_NAME_BYTES};
use crate::proto::names::shown;
use crate::proto::{CycleStep, Fault, LockWish};

use super::Daemon;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Keys.
    Lock,
    /// Slots of a group.
    Slots,
    /// To be the one who initialises something.
    Election,
}

impl Asked {
    /// What it waits for, for one whose time is over.
    pub(super) fn waited_for(self) -> &'static str {
        match self {
            Self::Lock => "the keys, which others hold or were first to ask for",
            Self::Slots => "the slots, which others have or were first to ask for",
            Self::Election => "the session that was elected to be done",
        }
    }

    /// Several of what it asks for.
    fn things(self) -> &'static str {
        match self {
            Self::Lock => "locks",
            Self::Slots => "slots",
            Self::Election => "elections",
        }
    }

    fn one(self, name: &str) -> String {
        match self {
            Self::Lock => format!("lock {:?}", shown(name)),
            Self::Slots => format!("as many slots of {:?}", shown(name)),
            Self::Election => format!("election {:?}", shown(name)),
        }
    }

    fn held(self, token: u64) -> String {
        match self {
            Self::Lock => format!("the lock of token {token}"),
            Self::Slots => format!("the slots of lease {token}"),
            Self::Election => "that election".to_owned(),
        }
    }
}

/// Whether a lock of this kind can be asked for.
pub(super) fn check_wish(wish: &LockWish<'_>) -> Result<(), Fault> {
    if wish.keys.is_empty() {
        let rule = format!("name 1 to {MAX_LOCK_KEYS} keys");
        return Err(Fault::Invalid { what: "a lock of no keys".to_owned(), rule });
    }
    check_most("keys of one lock", wish.keys.len(), MAX_LOCK_KEYS)?;
    check_most("tokens that a request for a lock names", wish.holds.len(), MAX_LOCK_HOLDS)?;
    wish.keys.iter().try_for_each(|key| check_name("a lock's key", key))
}

/// Whether there can be a group of this name and limit, and so many slots of it taken.
pub(super) fn check_slots(group: &str, limit: u32, slots: Option<u32>) -> Result<(), Fault> {
    check_name("the name of a group", group)?;
    let rule = || "name at least 1".to_owned();
    if limit == 0 {
        return Err(Fault::Invalid { what: "a group of no slots".to_owned(), rule: rule() });
    }
    if slots == Some(0) {
        return Err(Fault::Invalid { what: "to take no slots".to_owned(), rule: rule() });
    }
    Ok(())
}

fn check_most(what: &str, got: usize, limit: usize) -> Result<(), Fault> {
    if got <= limit {
        return Ok(());
    }
    Err(Fault::TooLarge { what: what.to_owned(), got: got as u64, limit: limit as u64 })
}

/// Whether something can have this name.
pub(super) fn check_name(of: &str, name: &str) -> Result<(), Fault> {
    if name.is_empty() {
        let rule = format!("a name has 1 to {MAX_NAME_BYTES} bytes");
        return Err(Fault::Invalid { what: format!("the empty text as {of}"), rule });
    }
    check_most(&format!("bytes in {of}"), name.len(), MAX_NAME_BYTES)
}

/// A refusal in the words of the wire.
pub(super) fn fault(daemon: &Daemon, asked: Asked, refusal: Refusal) -> Fault {
    match refusal {
        Refusal::WouldWait { name, session } => {
            Fault::WouldWait { what: asked.one(&name), held_by: daemon.name_of_session(session) }
        }
        Refusal::AlreadyHeld { key, token } => Fault::AlreadyHeld { key: shown(&key), token },
        Refusal::AlreadyWaits { key } => Fault::AlreadyHeld { key: shown(&key), token: 0 },
        Refusal::Deadlock(cycle) => {
            Fault::Deadlock { cycle: cycle.iter().map(|step| cycle_step(daemon, step)).collect() }
        }
        Refusal::NotHeld { token } => Fault::NotHeld { what: asked.held(token) },
        Refusal::LimitMismatch { group, limit, asked } => Fault::LimitMismatch { group: shown(&group), limit, asked },
        Refusal::MoreThanLimit { limit } => {
            Fault::Invalid { what: "to take more slots than the group has".to_owned(), rule: format!("it has {limit}") }
        }
        Refusal::TooMany { got, limit } => {
            Fault::TooLarge { what: format!("{} that one session has or waits for", asked.things()), got, limit }
        }
        Refusal::TooLarge { of, got, limit } => {
            too_large(asked.things(), of, " or wait for", " or waits for", got, limit)
        }
        Refusal::TooTangled { limit } => {
            let what = "steps in the search for a cycle that this lock would close, through those who wait".to_owned();
            Fault::TooLarge { what, got: limit + 1, limit }
        }
        Refusal::NoToken => {
            let reason = "the journal takes no records, so no more sequence numbers can be given out";
            Fault::Unavailable { reason: reason.to_owned() }
        }
    }
}

fn too_large(things: &str, of: Whose, or_wait: &str, or_waits: &str, got: u64, limit: u64) -> Fault {
    let what = match of {
        Whose::Session => format!("bytes of the {things} that one session has{or_waits}"),
        Whose::All => format!("bytes of the {things} that all sessions together have{or_wait}"),
        Whose::Done => format!("bytes in the names of {things} that are done, which are kept until the daemon ends"),
    };
    Fault::TooLarge { what, got, limit }
}

/// Why a session can have no further update flag.
pub(super) fn flag_fault(refusal: &Refusal) -> Fault {
    match *refusal {
        Refusal::TooMany { got, limit } => {
            Fault::TooLarge { what: "update flags that one session has".to_owned(), got, limit }
        }
        Refusal::TooLarge { of, got, limit } => too_large("update flags", of, "", "", got, limit),
        ref other => unreachable!("only their number and room are bounded: {other:?}"),
    }
}

fn cycle_step(daemon: &Daemon, step: &Step) -> CycleStep {
    let Step { session, owner, holds, ref waits_for } = *step;
    CycleStep {
        session,
        pid: daemon.guest_of(session).and_then(|guest| guest.pid()),
        owner,
        waits_for: shown(waits_for),
        holds,
    }
}

impl Daemon {
    /// A session as people are told of it.
    fn name_of_session(&self, session: u64) -> String {
        let Some(guest) = self.guest_of(session) else { return format!("session {session}") };
        match (guest.command(), guest.pid()) {
            (_, None) => format!("session {session}"),
            (command, Some(pid)) if command.is_empty() => format!("session {session} (process {pid})"),
            (command, Some(pid)) => format!("session {session} ({command}, process {pid})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_was_met_is_told_with_what_there_is_too_much_of() {
        let flags = flag_fault(&Refusal::TooLarge { of: Whose::All, got: 11, limit: 10 }).to_string();
        assert!(flags.contains("bytes of the update flags that all sessions together have: 11"), "{flags}");
        let many = flag_fault(&Refusal::TooMany { got: 11, limit: 10 }).to_string();
        assert!(many.contains("update flags that one session has: 11, and the limit is 10"), "{many}");
        let done = too_large("elections", Whose::Done, "", "", 11, 10).to_string();
        assert!(done.contains("names of elections that are done, which are kept until the daemon ends: 11"), "{done}");
        let waits = too_large("locks", Whose::Session, " or wait for", " or waits for", 11, 10).to_string();
        assert!(waits.contains("bytes of the locks that one session has or waits for: 11"), "{waits}");
    }
}
