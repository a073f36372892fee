//! The listings of coordination, made part by part as the client takes them: each part is one moment's.

use std::collections::HashMap;
use std::sync::Arc;

use crate::coord;
use crate::proto::{Answer, LockInfo, Party};

use super::Daemon;
use super::replies::{Parts, Piece};

/// Holders and waiters in one part of a listing, about; far below a frame.
const PARTIES_A_PART: usize = 4_096;

/// Most holders, and most waiters, that are told of one key or group. All of one must fit into a part.
const MOST_PARTIES: usize = 100_000;

/// The locks that are held or waited for, in order of key.
pub(super) fn locks(daemon: &Arc<Daemon>) -> Box<dyn Parts> {
    let mut names = daemon.coordination().look(|state| state.locks.names());
    names.sort_unstable_by(|one, other| other.cmp(one));
    Box::new(Locks { daemon: Arc::clone(daemon), names, people: People::default() })
}

struct Locks {
    daemon: Arc<Daemon>,
    /// The first is the last.
    names: Vec<Arc<str>>,
    people: People,
}

impl Parts for Locks {
    fn next(&mut self, piece: &mut Piece<'_>) {
        let Self { daemon, names, people } = self;
        let found = daemon.coordination().look(|state| {
            let (mut found, mut parties) = (Vec::new(), 0);
            while parties < PARTIES_A_PART
                && let Some(name) = names.pop()
            {
                // What is free by now is left out; it counts all the same, so that a part ends.
                let info = state.locks.info(&name, MOST_PARTIES);
                parties += 1 + info.as_ref().map_or(0, |info| info.holders.len() + info.waiters.len());
                found.extend(info);
            }
            found
        });
        let list = found.into_iter().map(|info| LockInfo {
            key: info.key.to_string(),
            holders: people.parties(daemon, info.holders),
            waiters: people.parties(daemon, info.waiters),
        });
        let answer = Answer::Locks { list: list.collect() };
        if names.is_empty() { piece.last(&answer) } else { piece.part(&answer) }
    }
}

/// What is known of the sessions in a listing: each is looked up once.
#[derive(Default)]
struct People(HashMap<u64, (Option<u32>, String)>);

impl People {
    fn parties(&mut self, daemon: &Daemon, parties: Vec<coord::Party>) -> Vec<Party> {
        parties.into_iter().map(|party| self.party(daemon, &party)).collect()
    }

    fn party(&mut self, daemon: &Daemon, party: &coord::Party) -> Party {
        let coord::Party { session, owner, token, shared, slots, since_unix_ms } = *party;
        let (pid, command) = self.person(daemon, session).clone();
        Party { session, pid, command, owner, token, shared, slots, since_unix_ms }
    }

    fn person(&mut self, daemon: &Daemon, session: u64) -> &(Option<u32>, String) {
        self.0.entry(session).or_insert_with(|| {
            let guest = daemon.guest_of(session);
            guest.map_or((None, String::new()), |guest| (guest.pid(), guest.command()))
        })
    }
}
