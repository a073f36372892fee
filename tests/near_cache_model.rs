//! The protocol of the near cache (`docs/near-cache.md`) as a state machine, of which every interleaving is looked at: two
//! keys on one slot, three writes and a clear, two readers of which one also writes, and one restart: after a kill or a clean
//! stop, by a daemon of the same layout or of another, with a program that changes the file in between. Both readers begin
//! with nothing, and each has reads enough to fill its cache and be served from it before the restart or after it.
//!
//! A read is right if it stands somewhere in the order of the writes: not before one that was answered before it began, nor
//! before what an earlier read has seen, nor before what its own session sent of that key; and the values of `get_many` at one place.
//! With all rules there is no wrong read. With any one left out there is, or the rule would not be needed.
//!
//! Of interleavings that differ in nothing that a read could tell, one is looked at, the one that allows the reads least. So a
//! read begins with its first look at the cache or the table, and is over with its last one or with its answer: what is
//! told to others earlier binds them more. A read that will find something else than it has kept, and ask, is taken
//! for one that has not begun: it is as one that begins where it asks.

use std::ops::Range;

use stateright::{Checker, HasDiscoveries, Model, Property};

/// What may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Rule {
    /// 1: counts and map in one critical section. Without, counts move first and the map later.
    OneSection,
    /// 1: before the reply. Without, counts move after it.
    BeforeTheReply,
    /// 2: value and tag in one critical section. Without, the tag is read later.
    TagWithValue,
    /// 3: the hit compares the epoch.
    CompareEpoch,
    /// 3: the hit compares the clear count.
    CompareClears,
    /// 3: the hit compares the slot.
    CompareSlot,
    /// 4: a daemon that starts sets an epoch of its own.
    FreshEpoch,
    /// 4: a clean stop leaves the epoch dead.
    DeadAfterStop,
    /// 4: and it has it before it answers anything. Without, some time after.
    EpochFirst,
    /// 4: the next daemon writes the file that clients have mapped.
    SameFile,
    /// 4: and goes on counting where the one before has left off. Without, from nothing.
    CountsKept,
    /// 4: a daemon of another layout marks the old file dead.
    OldFileDead,
    /// 4: and makes one of another name. Without, it writes its own words into the old file, which clients go on reading as
    /// they have learned to; the epoch is in the same place in every layout.
    AnotherName,
    /// 5: a hang-up ends the hits.
    HangUp,
    /// 6: `get_many` checks again.
    CheckAgain,
    /// The client asks while a write of its own is under way.
    OwnWrites,
}

const RULES: [Rule; 16] = [
    Rule::OneSection,
    Rule::BeforeTheReply,
    Rule::TagWithValue,
    Rule::CompareEpoch,
    Rule::CompareClears,
    Rule::CompareSlot,
    Rule::FreshEpoch,
    Rule::DeadAfterStop,
    Rule::EpochFirst,
    Rule::SameFile,
    Rule::CountsKept,
    Rule::OldFileDead,
    Rule::AnotherName,
    Rule::HangUp,
    Rule::CheckAgain,
    Rule::OwnWrites,
];

/// The writes: what each does to the map of two keys. The third is sent by the first reader.
const WRITES: usize = 4;
const OWN: usize = 2;

fn done(write: usize, mut map: [u8; 2]) -> [u8; 2] {
    match write {
        0 => map[0] = 1,
        1 => map[1] = 2,
        OWN => map[0] = 3,
        _ => map = [0, 0],
    }
    map
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// Of the reader's own: it is not sent yet.
    Waiting,
    Sent,
    /// In the journal when the daemon was killed. A daemon that lives shows nobody that it is there and not visible.
    Journaled,
    /// Only without a rule: one half of the critical section is done.
    Half,
    /// Visible in this version of the map.
    Visible(u8),
    Answered(u8),
    /// Only without a rule: the counts follow the answer.
    Settled(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Tag {
    epoch: u8,
    clears: u8,
    slot: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Kept {
    value: u8,
    tag: Tag,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Daemon {
    Up,
    Killed,
    Stopped,
}

/// What a reader is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Doing {
    Nothing,
    /// Comparing what is kept of a key, the epoch being what it was: the clear count, then the slot and the connection.
    Clears(usize),
    Slot(usize),
    /// Only without a rule: the value is read, its tag is not.
    Untagged(usize, u8),
    /// `get_many`, the first key being kept: the second, those that were kept again in turn, and all together if that fails.
    ManySecond(u8),
    /// The values, and whether the second was kept, too.
    ManyAgain([u8; 2], bool),
    ManyAgainSecond([u8; 2]),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Reader {
    /// Which daemon it is connected to, which table it has mapped, and whether its connection is known to be gone.
    daemon: u8,
    table: usize,
    broken: bool,
    kept: [Option<Kept>; 2],
    doing: Doing,
    left: u8,
    /// The oldest version of the map that its read may give.
    floor: u8,
    /// Its own write was sent before the read.
    after_own: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    daemon: Daemon,
    /// How often one has started.
    starts: u8,
    table: usize,
    tables: [Tag; 2],
    /// Every content that the map has had, the present one last.
    versions: Vec<[u8; 2]>,
    writes: [Phase; WRITES],
    readers: [Reader; 2],
    /// The newest version that anybody outside has been told of.
    told: u8,
    /// Only without a rule: a daemon answers whose epoch is not in the table yet.
    late: bool,
    edited: bool,
    wrong: bool,
}

/// The daemon that is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Successor {
    /// Of the same layout: it writes the file that it finds.
    Alike,
    /// Of another layout; or of the same, after a clean stop has removed the file.
    Another,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Action {
    Send,
    Write(usize),
    Kill,
    KillIn(usize),
    Stop,
    Edit,
    Start(Successor),
    /// Only without a rule: the daemon's epoch comes into the table.
    SetEpoch,
    Notice(usize),
    Get(usize, usize),
    GetMany(usize),
    Go(usize),
}

impl State {
    /// The same without what no step to come can ask for, so that states which differ in nothing else are one.
    fn without_the_past(mut self) -> Self {
        let done = |one: &Reader| one.left == 0 && one.doing == Doing::Nothing;
        for one in &mut self.readers {
            if done(one) {
                (one.kept, one.daemon, one.table, one.broken) = ([None; 2], 0, 0, false);
            }
            if one.doing == Doing::Nothing {
                (one.floor, one.after_own) = (0, false);
            }
        }
        let floors = self.readers.iter().filter(|one| one.doing != Doing::Nothing).map(|one| one.floor);
        let base = floors.fold(self.told, u8::min);
        self.versions.drain(..usize::from(base));
        self.told -= base;
        for one in &mut self.readers {
            one.floor = one.floor.saturating_sub(base);
        }
        for (write, phase) in self.writes.iter_mut().enumerate() {
            let is_own = write == OWN && !done(&self.readers[0]);
            match phase {
                Phase::Visible(version) => *version = version.saturating_sub(base),
                Phase::Answered(version) | Phase::Settled(version) if is_own => *version = version.saturating_sub(base),
                Phase::Answered(version) | Phase::Settled(version) => *version = 0,
                Phase::Waiting | Phase::Sent | Phase::Journaled | Phase::Half => {}
            }
        }
        self
    }
}

impl State {
    /// The same with counts that say only whether a tag has them still. Counts do not go back, so one that has not will not
    /// again; and what is kept by it is as good as nothing, unless a read is just looking at it. That is so with all rules.
    fn with_tags_by_what_they_are_good_for(mut self) -> Self {
        let up = self.daemon == Daemon::Up;
        let tables = self.tables;
        let one = |reader: &mut Reader| {
            let table = tables[reader.table];
            let relative = |tag: &mut Tag| {
                tag.clears = u8::from(tag.clears == table.clears);
                tag.slot = u8::from(tag.slot == table.slot);
            };
            // A read that will find something else than it has kept will ask, as one does that begins only then.
            let moved = |key: usize| reader.broken || reader.kept[key].is_none_or(|kept| kept.tag != table);
            let counts = |tag: Tag| (tag.clears, tag.slot);
            let counted = |key: usize| reader.kept[key].is_none_or(|kept| counts(kept.tag) != counts(table));
            let is_in_vain = match reader.doing {
                Doing::Nothing | Doing::Untagged(..) => false,
                Doing::Clears(key) | Doing::Slot(key) => reader.broken || counted(key),
                Doing::ManySecond(_) | Doing::ManyAgain(_, false) => moved(0),
                Doing::ManyAgain(_, true) => moved(0) || moved(1),
                Doing::ManyAgainSecond(_) => moved(1),
            };
            if is_in_vain {
                reader.doing = Doing::Nothing;
                reader.left += 1;
            }
            let is_idle = reader.doing == Doing::Nothing;
            for kept in &mut reader.kept {
                *kept = kept.filter(|kept| !is_idle || kept.tag == table);
                if let Some(kept) = kept {
                    relative(&mut kept.tag);
                }
            }
            if is_idle && reader.kept == [None; 2] && up {
                (reader.daemon, reader.table, reader.broken) = (0, 0, false);
            }
        };
        self.readers.iter_mut().for_each(one);
        for table in &mut self.tables {
            (table.clears, table.slot) = (1, 1);
        }
        self
    }
}

struct NearCache {
    without: Option<Rule>,
    /// How often each reader reads.
    reads: u8,
}

impl NearCache {
    fn keeps(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    fn count(state: &mut State, write: usize) {
        let table = &mut state.tables[state.table];
        if write == 3 {
            table.clears += 1;
        } else {
            table.slot += 1;
        }
    }

    fn show(state: &mut State, write: usize) -> u8 {
        let map = done(write, *state.versions.last().expect("there is always a map"));
        state.versions.push(map);
        (state.versions.len() - 1) as u8
    }

    /// The next step of a write, if there is one now.
    fn write(&self, state: &mut State, write: usize) -> bool {
        if state.daemon != Daemon::Up {
            return false;
        }
        let is_free = !state.writes.contains(&Phase::Half);
        state.writes[write] = match state.writes[write] {
            Phase::Sent if !self.keeps(Rule::OneSection) && is_free => {
                Self::count(state, write);
                Phase::Half
            }
            Phase::Half | Phase::Sent if is_free || state.writes[write] == Phase::Half => {
                if self.keeps(Rule::OneSection) && self.keeps(Rule::BeforeTheReply) {
                    Self::count(state, write);
                }
                let version = Self::show(state, write);
                if write % 2 == 1 && self.keeps(Rule::BeforeTheReply) {
                    // It is answered as soon as it is visible; the others at any time after.
                    state.told = version;
                    Phase::Answered(version)
                } else {
                    Phase::Visible(version)
                }
            }
            Phase::Visible(version) => {
                state.told = state.told.max(version);
                Phase::Answered(version)
            }
            Phase::Answered(version) if !self.keeps(Rule::BeforeTheReply) => {
                Self::count(state, write);
                Phase::Settled(version)
            }
            _ => return false,
        };
        true
    }

    fn start(&self, state: &mut State, successor: Successor) {
        // What was journalled and not visible yet becomes so, and what was half done is whole.
        for write in 0..WRITES {
            if matches!(state.writes[write], Phase::Journaled | Phase::Half) {
                state.writes[write] = Phase::Visible(Self::show(state, write));
            }
        }
        state.starts += 1;
        state.daemon = Daemon::Up;
        match successor {
            Successor::Alike if self.keeps(Rule::SameFile) => {
                if !self.keeps(Rule::CountsKept) {
                    (state.tables[0].clears, state.tables[0].slot) = (0, 0);
                }
            }
            Successor::Alike => state.table = 1,
            Successor::Another => {
                state.table = 1;
                if self.keeps(Rule::AnotherName) && self.keeps(Rule::OldFileDead) {
                    state.tables[0].epoch = 0;
                }
            }
        }
        state.late = !self.keeps(Rule::EpochFirst);
        if !state.late {
            self.set_epoch(state);
        }
    }

    /// The epoch of the daemon that serves, which is in the tags of its answers.
    fn own_epoch(&self, state: &State) -> u8 {
        if self.keeps(Rule::FreshEpoch) { state.starts + 1 } else { 1 }
    }

    fn set_epoch(&self, state: &mut State) {
        state.tables[state.table].epoch = self.own_epoch(state);
        if !self.keeps(Rule::AnotherName) {
            // Two layouts in one file.
            state.tables[0].epoch = self.own_epoch(state);
        }
    }

    /// A reader asks: it is connected to the daemon that there is, and what its session sent before has been done.
    fn asks(&self, state: &mut State, reader: usize) -> Option<Tag> {
        let own_is_done = reader != 0 || !matches!(state.writes[OWN], Phase::Sent | Phase::Journaled | Phase::Half);
        if state.daemon != Daemon::Up || !own_is_done {
            return None;
        }
        let one = &mut state.readers[reader];
        if one.daemon != state.starts || one.broken {
            (one.daemon, one.broken) = (state.starts, false);
            // A file of the name that it has mapped already is not looked at again.
            if self.keeps(Rule::AnotherName) {
                one.table = state.table;
            }
        }
        Some(Tag { epoch: self.own_epoch(state), ..state.tables[state.table] })
    }

    fn is_current(&self, state: &State, reader: usize, key: usize) -> Option<u8> {
        let one = &state.readers[reader];
        let (kept, table) = (one.kept[key]?, state.tables[one.table]);
        let is_current = (kept.tag.epoch == table.epoch || !self.keeps(Rule::CompareEpoch))
            && (kept.tag.clears == table.clears || !self.keeps(Rule::CompareClears))
            && (kept.tag.slot == table.slot || !self.keeps(Rule::CompareSlot))
            && !one.broken;
        is_current.then_some(kept.value)
    }

    /// Whether both readers keep something that they will be served if they read it now.
    fn both_are_served_next(&self, state: &State) -> bool {
        let is_kept = |reader: usize, key: usize| {
            self.is_current(state, reader, key).is_some() && !self.must_ask(state, reader, key)
        };
        let is_next = |(reader, one): (usize, &Reader)| {
            one.left > 0 && one.doing == Doing::Nothing && (is_kept(reader, 0) || is_kept(reader, 1))
        };
        state.readers.iter().enumerate().all(is_next)
    }

    /// Whether the reader must ask because of its own write.
    fn must_ask(&self, state: &State, reader: usize, key: usize) -> bool {
        let open = matches!(state.writes[OWN], Phase::Sent | Phase::Journaled | Phase::Half | Phase::Visible(_));
        reader == 0 && key == 0 && open && self.keeps(Rule::OwnWrites)
    }

    fn finish(state: &mut State, reader: usize, got: &[(usize, u8)]) {
        let one = &mut state.readers[reader];
        one.doing = Doing::Nothing;
        let mut floor = one.floor;
        if one.after_own {
            match state.writes[OWN] {
                Phase::Visible(version) | Phase::Answered(version) | Phase::Settled(version) => {
                    floor = floor.max(version);
                }
                _ => state.wrong = true,
            }
        }
        let stands = |map: &[u8; 2]| got.iter().all(|(key, value)| map[*key] == *value);
        let at = (usize::from(floor)..state.versions.len()).find(|at| stands(&state.versions[*at]));
        match at {
            Some(at) => state.told = state.told.max(at as u8),
            None => state.wrong = true,
        }
    }

    /// A read begins: with its first look at the cache, or with the question where that finds nothing.
    fn begin(&self, state: &mut State, reader: usize, keys: Range<usize>) -> bool {
        // A read of the other key is done at once, if it is a hit.
        let after_own = reader == 0 && keys.start == 0 && state.writes[OWN] != Phase::Waiting;
        let told = state.told;
        let one = &mut state.readers[reader];
        if one.doing != Doing::Nothing || one.left == 0 {
            return false;
        }
        (one.floor, one.after_own) = (told, after_own);
        one.left -= 1;
        let (key, one) = (keys.start, *one);
        let kept = one.kept[key].filter(|_| !self.must_ask(state, reader, key));
        let epoch = state.tables[one.table].epoch;
        let is_of_epoch = kept.is_some_and(|kept| kept.tag.epoch == epoch || !self.keeps(Rule::CompareEpoch));
        let found = kept.and_then(|_| self.is_current(state, reader, key));
        if let (Some(first), 2) = (found, keys.len()) {
            state.readers[reader].doing = Doing::ManySecond(first);
        } else if keys.len() == 2 {
            let second = self.is_current(state, reader, 1);
            let Some(first) = self.ask_for(state, reader, 0) else { return false };
            let Some(second) = second else {
                let Some(second) = self.ask_for(state, reader, 1) else { return false };
                Self::finish(state, reader, &[(0, first), (1, second)]);
                return true;
            };
            state.readers[reader].doing = Doing::ManyAgainSecond([first, second]);
        } else if is_of_epoch {
            state.readers[reader].doing = Doing::Clears(key);
        } else {
            let Some(value) = self.ask_for(state, reader, key) else { return false };
            if self.keeps(Rule::TagWithValue) {
                Self::finish(state, reader, &[(key, value)]);
            } else {
                state.readers[reader].doing = Doing::Untagged(key, value);
            }
        }
        true
    }

    /// A question for a key and its answer, if there can be one now; and the value is kept.
    fn ask_for(&self, state: &mut State, reader: usize, key: usize) -> Option<u8> {
        let tag = self.asks(state, reader)?;
        let value = state.versions.last().expect("there is always a map")[key];
        state.readers[reader].kept[key] = Some(Kept { value, tag });
        Some(value)
    }

    /// The next step of a read, if there is one now.
    fn go(&self, state: &mut State, reader: usize) -> bool {
        let one = state.readers[reader];
        let table = state.tables[one.table];
        let is_current = |key| self.is_current(state, reader, key).is_some();
        let finish = |state: &mut State, values: [u8; 2]| {
            Self::finish(state, reader, &[(0, values[0]), (1, values[1])]);
            true
        };
        let next = match one.doing {
            Doing::Nothing => return false,
            Doing::Clears(key) => {
                let kept = one.kept[key].expect("it was compared");
                let same = kept.tag.clears == table.clears || !self.keeps(Rule::CompareClears);
                same.then_some(Doing::Slot(key))
            }
            Doing::Slot(key) => {
                let kept = one.kept[key].expect("it was compared");
                if (kept.tag.slot == table.slot || !self.keeps(Rule::CompareSlot)) && !one.broken {
                    Self::finish(state, reader, &[(key, kept.value)]);
                    return true;
                }
                None
            }
            Doing::Untagged(key, value) => {
                let tag = state.tables[state.table];
                state.readers[reader].kept[key] = Some(Kept { value, tag });
                Self::finish(state, reader, &[(key, value)]);
                return true;
            }
            Doing::ManySecond(first) => {
                let kept = self.is_current(state, reader, 1);
                let Some(second) = kept.or_else(|| self.ask_for(state, reader, 1)) else { return false };
                if !self.keeps(Rule::CheckAgain) {
                    return finish(state, [first, second]);
                }
                Some(Doing::ManyAgain([first, second], kept.is_some()))
            }
            Doing::ManyAgain(values, true) => is_current(0).then_some(Doing::ManyAgainSecond(values)),
            Doing::ManyAgain(values, false) if is_current(0) => return finish(state, values),
            Doing::ManyAgainSecond(values) if is_current(1) => return finish(state, values),
            Doing::ManyAgain(..) | Doing::ManyAgainSecond(_) => None,
        };
        let one = &mut state.readers[reader];
        one.doing = next.unwrap_or_else(|| {
            // It asks, which is as if it began only now.
            one.left += 1;
            Doing::Nothing
        });
        true
    }

    fn act(&self, state: &mut State, action: Action) -> bool {
        match action {
            Action::Send => {
                let can = state.writes[OWN] == Phase::Waiting && state.readers[0].doing == Doing::Nothing;
                if can {
                    state.writes[OWN] = Phase::Sent;
                }
                can
            }
            Action::Write(write) => self.write(state, write),
            Action::Kill => {
                let can = state.daemon == Daemon::Up && state.starts == 0;
                state.daemon = Daemon::Killed;
                can
            }
            Action::KillIn(write) => {
                let can = state.daemon == Daemon::Up && state.starts == 0 && state.writes[write] == Phase::Sent;
                state.daemon = Daemon::Killed;
                state.writes[write] = Phase::Journaled;
                can && !state.writes.contains(&Phase::Half)
            }
            Action::Stop => {
                let is_free = !state.writes.contains(&Phase::Half);
                let can = state.daemon == Daemon::Up && state.starts == 0 && is_free;
                state.daemon = Daemon::Stopped;
                if self.keeps(Rule::DeadAfterStop) {
                    state.tables[state.table].epoch = 0;
                }
                can
            }
            Action::Edit => {
                // After a kill it is seen only by those who know of the kill: what comes between is not promised.
                let known = |one: &Reader| one.broken || one.left == 0 && one.doing == Doing::Nothing;
                let known = |one: &Reader| known(one) || !self.keeps(Rule::HangUp);
                let can = match state.daemon {
                    Daemon::Up => false,
                    Daemon::Killed => state.readers.iter().all(known),
                    Daemon::Stopped => true,
                };
                let [first, _] = *state.versions.last().expect("there is always a map");
                state.versions.push([first, 9]);
                state.told = (state.versions.len() - 1) as u8;
                can && !std::mem::replace(&mut state.edited, true)
            }
            Action::Start(successor) => {
                let can = state.daemon != Daemon::Up;
                self.start(state, successor);
                can
            }
            Action::SetEpoch => {
                self.set_epoch(state);
                std::mem::take(&mut state.late)
            }
            Action::Notice(reader) => {
                let (daemon, starts) = (state.daemon, state.starts);
                let one = &mut state.readers[reader];
                let gone = daemon != Daemon::Up || one.daemon != starts;
                gone && self.keeps(Rule::HangUp) && !std::mem::replace(&mut one.broken, true)
            }
            Action::Get(reader, key) => self.begin(state, reader, key..key + 1),
            Action::GetMany(reader) => self.begin(state, reader, 0..2),
            Action::Go(reader) => self.go(state, reader),
        }
    }
}

impl Model for NearCache {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let table = |epoch| Tag { epoch, clears: 0, slot: 0 };
        let reader = Reader {
            daemon: 0,
            table: 0,
            broken: false,
            kept: [None; 2],
            doing: Doing::Nothing,
            left: self.reads,
            floor: 0,
            after_own: false,
        };
        let mut writes = [Phase::Sent; WRITES];
        writes[OWN] = Phase::Waiting;
        vec![State {
            daemon: Daemon::Up,
            starts: 0,
            table: 0,
            tables: [table(1), table(0)],
            versions: vec![[0, 0]],
            writes,
            readers: [reader; 2],
            told: 0,
            late: false,
            edited: false,
            wrong: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let is_done = |one: &Reader| one.left == 0 && one.doing == Doing::Nothing;
        if state.wrong || state.readers.iter().all(is_done) {
            return;
        }
        actions.extend([Action::Send, Action::Kill, Action::Stop, Action::Edit, Action::SetEpoch]);
        actions.extend([Successor::Alike, Successor::Another].map(Action::Start));
        actions.extend((0..WRITES).map(Action::Write));
        actions.extend((0..WRITES).map(Action::KillIn));
        for reader in 0..2 {
            actions.push(Action::Get(reader, 0));
            actions.extend([Action::Get(reader, 1), Action::GetMany(reader)]);
            actions.extend([Action::Go(reader), Action::Notice(reader)]);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        self.act(&mut state, action).then(|| {
            let state = if self.without.is_none() { state.with_tags_by_what_they_are_good_for() } else { state };
            state.without_the_past()
        })
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(RIGHT, |_, state: &State| !state.wrong),
            Property::sometimes("both readers have filled their caches and are served next", |model: &Self, state| {
                model.both_are_served_next(state) && state.starts == 0
            }),
            Property::sometimes("the same after a restart in the same file", |model: &Self, state| {
                model.both_are_served_next(state) && state.starts > 0 && state.table == 0
            }),
            Property::sometimes("the same after a restart in another file", |model: &Self, state| {
                model.both_are_served_next(state) && state.starts > 0 && state.table == 1
            }),
        ]
    }
}

const RIGHT: &str = "every read stands in the order of the writes";

#[test]
fn with_all_rules_every_read_stands_in_the_order_of_the_writes() {
    let model = NearCache { without: None, reads: 3 };
    let checker = model.checker().threads(2).spawn_dfs().join();
    println!("{} states, all of them looked at", checker.unique_state_count());
    checker.assert_properties();
    assert!(checker.unique_state_count() > 1_000_000, "{}", checker.unique_state_count());
}

#[test]
fn without_any_one_rule_a_read_is_wrong() {
    for rule in RULES {
        let model = NearCache { without: Some(rule), reads: 2 };
        let checker = model.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
        let Some(path) = checker.discovery(RIGHT) else { panic!("without {rule:?} no read is wrong") };
        println!("without {rule:?}: {:?}", path.into_actions());
    }
}
