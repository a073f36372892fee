//! The listings of coordination, made part by part as the client takes them: each part is one moment's.

use std::collections::HashMap;
use std::sync::Arc;

use crate::coord;
use crate::proto::{Answer, FlagInfo, FlagOf, LockInfo, Party, SlotInfo};

use super::Daemon;
use super::coordination::State;
use super::replies::{Parts, Piece};

/// Holders and waiters in one part of a listing, about; far below a frame.
const PARTIES_A_PART: usize = 4_096;

/// Most holders, and most waiters, that are told of one key or group. All of one must fit into a part.
const MOST_PARTIES: usize = 100_000;

/// The locks that are held or waited for, in order of key.
pub(super) fn locks(daemon: &Arc<Daemon>) -> Box<dyn Parts> {
    let names = daemon.coordination().look(|state| state.locks.names());
    by_name(daemon, names, |state, name| state.locks.info(name, MOST_PARTIES))
}

/// The groups of slots, in order of name.
pub(super) fn slots(daemon: &Arc<Daemon>) -> Box<dyn Parts> {
    let names = daemon.coordination().look(|state| state.slots.names());
    by_name(daemon, names, |state, name| state.slots.info(name, MOST_PARTIES))
}

/// What a listing by name tells of one of its names.
trait Told: Sized + 'static {
    /// How many hold and wait.
    fn parties(&self) -> usize;
    /// The answer that carries so many of them.
    fn answer(list: Vec<Self>, people: &mut People, daemon: &Daemon) -> Answer<'static>;
}

impl Told for coord::KeyInfo {
    fn parties(&self) -> usize {
        self.holders.len() + self.waiters.len()
    }

    fn answer(list: Vec<Self>, people: &mut People, daemon: &Daemon) -> Answer<'static> {
        let list = list.into_iter().map(|info| LockInfo {
            key: info.key.to_string(),
            holders: people.parties(daemon, info.holders),
            waiters: people.parties(daemon, info.waiters),
        });
        Answer::Locks { list: list.collect() }
    }
}

impl Told for coord::GroupInfo {
    fn parties(&self) -> usize {
        self.holders.len() + self.waiters.len()
    }

    fn answer(list: Vec<Self>, people: &mut People, daemon: &Daemon) -> Answer<'static> {
        let list = list.into_iter().map(|info| SlotInfo {
            group: info.group.to_string(),
            limit: info.limit,
            taken: u32::try_from(info.taken).unwrap_or(u32::MAX),
            holders: people.parties(daemon, info.holders),
            waiters: people.parties(daemon, info.waiters),
        });
        Answer::Slots { list: list.collect() }
    }
}

type LookUp<T> = fn(&State, &str) -> Option<T>;

fn by_name<T: Told>(daemon: &Arc<Daemon>, mut names: Vec<Arc<str>>, look_up: LookUp<T>) -> Box<dyn Parts> {
    names.sort_unstable_by(|one, other| other.cmp(one));
    Box::new(ByName { daemon: Arc::clone(daemon), names, look_up, people: People::default() })
}

struct ByName<T> {
    daemon: Arc<Daemon>,
    /// The first is the last.
    names: Vec<Arc<str>>,
    look_up: LookUp<T>,
    people: People,
}

impl<T: Told> Parts for ByName<T> {
    fn next(&mut self, piece: &mut Piece<'_>) {
        let Self { daemon, names, look_up, people } = self;
        let found = daemon.coordination().look(|state| {
            let (mut found, mut parties) = (Vec::new(), 0);
            while parties < PARTIES_A_PART
                && let Some(name) = names.pop()
            {
                // What is free by now is left out; it counts all the same, so that a part ends.
                let info = look_up(state, &name);
                parties += 1 + info.as_ref().map_or(0, T::parties);
                found.extend(info);
            }
            found
        });
        let answer = T::answer(found, people, daemon);
        if names.is_empty() { piece.last(&answer) } else { piece.part(&answer) }
    }
}

/// The update flags, workspace by workspace, in order of name.
pub(super) fn flags(daemon: &Arc<Daemon>) -> Box<dyn Parts> {
    Box::new(Flags { daemon: Arc::clone(daemon), last: None, people: People::default() })
}

struct Flags {
    daemon: Arc<Daemon>,
    /// The one that was told last.
    last: Option<coord::PlaceInfo>,
    people: People,
}

impl Parts for Flags {
    fn next(&mut self, piece: &mut Piece<'_>) {
        let Self { daemon, last, people } = self;
        let found = daemon.coordination().look(|state| state.flags.list(last.as_ref(), PARTIES_A_PART));
        let is_last = found.is_empty();
        if let Some(end) = found.last() {
            *last = Some(coord::PlaceInfo { sessions: Vec::new(), ..end.clone() });
        }
        let mut of = |session, set| FlagOf { session, pid: people.person(daemon, session).0, set };
        let list = found.into_iter().map(|info| FlagInfo {
            workspace: info.workspace,
            namespace: info.namespace,
            word: info.word,
            sessions: info.sessions.into_iter().map(|(session, set)| of(session, set)).collect(),
        });
        let answer = Answer::Flags { list: list.collect() };
        if is_last { piece.last(&answer) } else { piece.part(&answer) }
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
