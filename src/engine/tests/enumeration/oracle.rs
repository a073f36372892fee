//! What must be there: everything that was acknowledged at its durability, never part of a request, files that are whole
//! and some state that the namespace was once in, what other programs wrote, and Seqs that nobody was given before.

use commonhold_proto::{Durability, Seq};

use super::super::model::State;
use super::super::rig::{DIR, Rig, contents, file, place};
use crate::engine::Error;
use crate::engine::disk::SimDisk;
use crate::json;

/// The namespace that most letters are about.
pub(in crate::engine::tests) const ONE: &str = "a";
/// The other one, in a workspace.
pub(in crate::engine::tests) const OTHER: &str = "w/a";

type Records = Vec<(String, String)>;

/// A file that another program put in the place of a namespace's, and that the store has not loaded.
#[derive(Clone, Debug, Hash)]
pub(in crate::engine::tests) struct Foreign {
    pub(in crate::engine::tests) bytes: Vec<u8>,
    pub(in crate::engine::tests) records: Records,
    /// The file that the store loaded or wrote last; none if there was none.
    pub(in crate::engine::tests) right: Option<Vec<u8>>,
}

/// What a test knows of a store, and so what a next owner must find.
#[derive(Clone, Debug, Hash)]
pub(in crate::engine::tests) struct Known {
    /// After each acknowledged request; the last is the current one.
    pub(in crate::engine::tests) states: Vec<State>,
    /// The state that is in the operating system's hands.
    pub(in crate::engine::tests) written: usize,
    /// The state that is on the platter.
    pub(in crate::engine::tests) platter: usize,
    /// The state that a request which is not answered yet would lead to.
    pub(in crate::engine::tests) in_flight: Option<State>,
    /// The greatest Seq that was ever answered.
    pub(in crate::engine::tests) greatest: Seq,
    /// What files of the two namespaces may hold from before.
    pub(in crate::engine::tests) earlier: [Vec<Records>; 2],
    /// The state that the file of [`ONE`] holds, as far as flushes were answered.
    pub(in crate::engine::tests) covered: usize,
    /// The first state already has a write that no file holds.
    pub(in crate::engine::tests) waits_at_start: bool,
    /// What another program wrote and nobody has loaded.
    pub(in crate::engine::tests) foreign: Option<Foreign>,
    /// What other programs wrote and a flush replaced.
    pub(in crate::engine::tests) kept: Vec<Vec<u8>>,
}

/// What a store shows.
#[derive(Clone, Debug)]
pub(in crate::engine::tests) struct Found {
    /// Of [`ONE`]; none if it is closed.
    pub(in crate::engine::tests) one: Option<Records>,
    /// Of [`OTHER`].
    pub(in crate::engine::tests) other: Records,
    /// The bytes of the file of [`ONE`].
    pub(in crate::engine::tests) file: Option<Vec<u8>>,
}

impl Known {
    /// A store in this state, durably.
    pub(in crate::engine::tests) fn begin(state: State) -> Self {
        Self {
            states: vec![state],
            written: 0,
            platter: 0,
            in_flight: None,
            greatest: Seq::ZERO,
            earlier: [Vec::new(), Vec::new()],
            covered: 0,
            waits_at_start: false,
            foreign: None,
            kept: Vec::new(),
        }
    }

    pub(in crate::engine::tests) fn current(&self) -> &State {
        self.states.last().expect("there is always the state in the beginning")
    }

    /// A request was answered.
    pub(in crate::engine::tests) fn acknowledged(&mut self, next: State, durability: Durability) {
        self.states.push(next);
        self.reached(durability);
    }

    /// All that was acknowledged so far has got so far.
    pub(in crate::engine::tests) fn reached(&mut self, durability: Durability) {
        if durability >= Durability::Buffered {
            self.written = self.states.len() - 1;
        }
        if durability == Durability::Synced {
            self.platter = self.states.len() - 1;
        }
    }

    /// The file of [`ONE`] was replaced.
    pub(in crate::engine::tests) fn flushed(&mut self) {
        (self.covered, self.waits_at_start) = (self.states.len() - 1, false);
        self.kept.extend(self.foreign.take().map(|foreign| foreign.bytes));
    }

    /// Whether writes to [`ONE`] that must be there after a loss are in no file.
    fn waits(&self, floor: usize) -> bool {
        let changed = |index: usize| self.states[index][ONE] != self.states[index - 1][ONE];
        (self.waits_at_start && floor >= self.covered) || (self.covered + 1..=floor).any(changed)
    }

    /// Sees that what a store shows is all that must be there and nothing that must not, and goes on from that: it is
    /// the only state there is now, and on the platter.
    ///
    /// `floor` is the oldest state that may be found.
    pub(in crate::engine::tests) fn survived(&mut self, found: &Found, floor: usize) {
        self.states.extend(self.in_flight.take());
        let last = self.states.len() - 1;
        let is_other = |index: &usize| self.states[*index][OTHER] == found.other;
        let is_foreign = self.foreign.as_ref().is_some_and(|foreign| found.file.as_ref() == Some(&foreign.bytes));
        match &found.one {
            None => {
                assert!(is_foreign, "a namespace is closed and its file is that of no other program");
                let (first, last) = ((floor..=last).find(is_other), (floor..=last).rev().find(is_other));
                let (Some(first), Some(last)) = (first, last) else {
                    panic!("{OTHER} is in no state that it may be in ({floor} to {last:?}): {found:?}");
                };
                self.states.truncate(last + 1);
                (self.written, self.platter) = (first, first);
            }
            Some(one) if is_foreign => {
                let foreign = self.foreign.take().expect("just seen");
                assert_eq!(*one, foreign.records, "another program's file was not taken as it is");
                assert!(!self.waits(floor), "writes were given up for another program's file, silently");
                let Some(index) = (floor..=last).rev().find(is_other) else {
                    panic!("{OTHER} is in no state that it may be in ({floor} to {last}): {found:?}");
                };
                self.states.truncate(index + 1);
                let mut next = self.current().clone();
                next.insert(ONE, foreign.records);
                self.states.push(next);
                self.reached(Durability::Synced);
                (self.covered, self.waits_at_start) = (self.states.len() - 1, false);
            }
            Some(one) => {
                let is_this = |index: &usize| self.states[*index][ONE] == *one && is_other(index);
                let Some(index) = (floor..=last).rev().find(is_this) else {
                    let older = (0..floor).rev().find(is_this);
                    panic!("the store is in {older:?} of the states, and {floor} to {last} are allowed: {found:?}");
                };
                self.states.truncate(index + 1);
                self.covered = self.covered.min(index);
                self.reached(Durability::Synced);
            }
        }
    }

    /// Sees that every file is whole and some state that its namespace was in, and that nothing of others is lost.
    pub(in crate::engine::tests) fn check_files(&self, disk: &SimDisk) {
        let mut theirs: Vec<&[u8]> = self.kept.iter().map(Vec::as_slice).collect();
        let pending = self.foreign.as_ref().map(|foreign| foreign.bytes.as_slice());
        theirs.extend(pending);
        let mut missing = theirs.clone();
        for path in disk.all_files() {
            let text = path.to_string_lossy();
            let (is_kept, is_theirs) = (text.contains("/generations/"), text.ends_with(".foreign.json"));
            let which = usize::from(if is_kept { text.contains("/w/w/") } else { path == file(OTHER) });
            if !is_kept && path != file(ONE) && path != file(OTHER) {
                continue;
            }
            let bytes = disk.read_file(&path);
            if (is_theirs || path == file(ONE)) && theirs.contains(&&bytes[..]) {
                missing.retain(|kept| *kept != bytes);
                continue;
            }
            // One that a flush had kept before it died, and the next owner took as it was, is a state by now.
            let mut records = Vec::new();
            let whole = json::load_object(&bytes, &mut |key, value| records.push((key.to_owned(), value.to_owned())));
            assert!(whole.is_ok(), "{text} is not whole: {whole:?}");
            let name = [ONE, OTHER][which];
            let was_once = self.states.iter().chain(&self.in_flight).any(|state| state[name] == records);
            assert!(
                was_once || self.earlier[which].contains(&records),
                "{text} is no state of its namespace: {records:?}"
            );
        }
        assert!(missing.is_empty(), "what another program wrote is gone");
    }
}

/// Whether the namespace is closed.
pub(in crate::engine::tests) fn is_closed(rig: &Rig, name: &str) -> bool {
    rig.store().namespace(&place(name)).is_err()
}

/// Sees that a start found a journal. An owner that never had room to begin one leaves none, and nothing that is missed.
pub(in crate::engine::tests) fn found_journal(rig: &Rig, found: &Found) {
    let is_empty = found.file.is_none() && found.other.is_empty() && found.one.as_ref().is_none_or(Vec::is_empty);
    assert!(is_empty || !rig.store().opening().journal_is_gone, "a crash took the journal from {DIR}");
}

/// Loads both namespaces and tells what is in them.
///
/// # Errors
/// When one cannot be loaded that is not closed for another program's file.
pub(in crate::engine::tests) fn found(rig: &Rig) -> Result<Found, Error> {
    let path = file(ONE);
    let file = rig.disk.exists(&path).then(|| rig.disk.read_file(&path));
    let one = match rig.store().namespace(&place(ONE)) {
        Ok(table) => Some(contents(&table)),
        Err(Error::NeedsRepair { .. }) => None,
        Err(error) => return Err(error),
    };
    let other = contents(&*rig.store().namespace(&place(OTHER))?);
    Ok(Found { one, other, file })
}
