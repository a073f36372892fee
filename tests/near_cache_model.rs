//! The protocol of the near cache (`docs/near-cache.md`) as a state machine, of which every interleaving is looked at: two
//! keys on one slot, three writes and a clear, two readers of which one also writes, a kill of the daemon and a start after
//! it; and, with one reader that fills its cache itself, clean stops and another program that changes the file, too.
//!
//! A read is right if it stands somewhere in the order of the writes: not before one that was answered before it began, nor
//! before what an earlier read has seen, nor before what its own session sent of that key; and the values of `get_many` at one place.
//! With all rules there is no wrong read. With any one left out there is, or the rule would not be needed.

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
    /// 4: the next daemon writes the file that clients have mapped.
    SameFile,
    /// 5: a hang-up ends the hits.
    HangUp,
    /// 6: `get_many` checks again.
    CheckAgain,
    /// The client asks while a write of its own is under way.
    OwnWrites,
}

const RULES: [Rule; 12] = [
    Rule::OneSection,
    Rule::BeforeTheReply,
    Rule::TagWithValue,
    Rule::CompareEpoch,
    Rule::CompareClears,
    Rule::CompareSlot,
    Rule::FreshEpoch,
    Rule::DeadAfterStop,
    Rule::SameFile,
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
    /// Comparing what is kept of a key: the epoch, then the clear count, then the slot and the connection.
    Epoch(usize),
    Clears(usize),
    Slot(usize),
    /// The same in one step, as the second reader does.
    AtOnce(usize),
    Ask(usize),
    /// Only without a rule: the value is read, its tag is not.
    Untagged(usize, u8),
    Answer(usize, Kept),
    /// `get_many`: each key in turn, those that were kept again in turn, and all together if that fails.
    ManyFirst,
    ManySecond(u8),
    ManyAskSecond(u8),
    /// The values, and whether the second was kept, too.
    ManyAgain([u8; 2], bool),
    ManyAgainSecond([u8; 2]),
    ManyAsk,
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
    edited: bool,
    hit: bool,
    wrong: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Action {
    Send,
    Write(usize),
    Kill,
    KillIn(usize),
    Stop,
    Edit,
    Start,
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
        let tables = self.tables;
        let one = |reader: &mut Reader| {
            let table = tables[reader.table];
            let relative = |tag: &mut Tag| {
                tag.clears = u8::from(tag.clears == table.clears);
                tag.slot = u8::from(tag.slot == table.slot);
            };
            let is_idle = reader.doing == Doing::Nothing;
            for kept in &mut reader.kept {
                *kept = kept.filter(|kept| !is_idle || kept.tag == table);
                if let Some(kept) = kept {
                    relative(&mut kept.tag);
                }
            }
            if let Doing::Answer(_, kept) = &mut reader.doing {
                relative(&mut kept.tag);
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
    reads: [u8; 2],
    /// Whether they have both keys in their caches from the start, as absent.
    warm: bool,
    /// Whether the daemon may also stop cleanly, and another program change the file while none runs.
    edits: bool,
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

    fn start(&self, state: &mut State) {
        // What was journalled and not visible yet becomes so, and what was half done is whole.
        for write in 0..WRITES {
            if matches!(state.writes[write], Phase::Journaled | Phase::Half) {
                state.writes[write] = Phase::Visible(Self::show(state, write));
            }
        }
        state.starts += 1;
        if !self.keeps(Rule::SameFile) {
            state.table = 1;
        }
        let epoch = if self.keeps(Rule::FreshEpoch) { state.starts + 1 } else { 1 };
        state.tables[state.table].epoch = epoch;
        state.daemon = Daemon::Up;
    }

    /// A reader asks: it is connected to the daemon that there is, and what its session sent before has been done.
    fn asks(state: &mut State, reader: usize) -> bool {
        let own_is_done = reader != 0 || !matches!(state.writes[OWN], Phase::Sent | Phase::Journaled | Phase::Half);
        if state.daemon != Daemon::Up || !own_is_done {
            return false;
        }
        let one = &mut state.readers[reader];
        if one.daemon != state.starts || one.broken {
            (one.daemon, one.table, one.broken) = (state.starts, state.table, false);
        }
        true
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

    /// Whether the reader must ask because of its own write.
    fn must_ask(&self, state: &State, reader: usize, key: usize) -> bool {
        let open = matches!(state.writes[OWN], Phase::Sent | Phase::Journaled | Phase::Half | Phase::Visible(_));
        reader == 0 && key == 0 && open && self.keeps(Rule::OwnWrites)
    }

    fn finish(state: &mut State, reader: usize, got: &[(usize, u8)], hit: bool) {
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
        state.hit |= hit;
    }

    /// The next step of a read, if there is one now.
    fn go(&self, state: &mut State, reader: usize) -> bool {
        let map = *state.versions.last().expect("there is always a map");
        let one = state.readers[reader];
        let table = state.tables[one.table];
        let step = |state: &mut State, doing: Doing| state.readers[reader].doing = doing;
        // Where what is kept of a key no longer holds, or nothing is, the daemon is asked.
        let compare = |state: &mut State, key: usize, same: bool, next: Doing| {
            step(state, if same { next } else { Doing::Ask(key) });
        };
        match one.doing {
            Doing::Nothing => return false,
            Doing::Epoch(key) => {
                let kept = one.kept[key].filter(|_| !self.must_ask(state, reader, key));
                let same = kept.is_some_and(|kept| kept.tag.epoch == table.epoch || !self.keeps(Rule::CompareEpoch));
                compare(state, key, same, Doing::Clears(key));
            }
            Doing::Clears(key) => {
                let kept = one.kept[key].expect("it was compared");
                let same = kept.tag.clears == table.clears || !self.keeps(Rule::CompareClears);
                compare(state, key, same, Doing::Slot(key));
            }
            Doing::Slot(key) => {
                let kept = one.kept[key].expect("it was compared");
                if (kept.tag.slot == table.slot || !self.keeps(Rule::CompareSlot)) && !one.broken {
                    Self::finish(state, reader, &[(key, kept.value)], true);
                } else {
                    step(state, Doing::Ask(key));
                }
            }
            Doing::AtOnce(key) => match self.is_current(state, reader, key) {
                Some(value) => Self::finish(state, reader, &[(key, value)], true),
                None => step(state, Doing::Ask(key)),
            },
            Doing::Ask(key) => {
                if !Self::asks(state, reader) {
                    return false;
                }
                let tag = state.tables[state.table];
                let doing = if self.keeps(Rule::TagWithValue) {
                    Doing::Answer(key, Kept { value: map[key], tag })
                } else {
                    Doing::Untagged(key, map[key])
                };
                step(state, doing);
            }
            Doing::Untagged(key, value) => {
                let tag = state.tables[state.table];
                step(state, Doing::Answer(key, Kept { value, tag }));
            }
            Doing::Answer(key, kept) => {
                state.readers[reader].kept[key] = Some(kept);
                Self::finish(state, reader, &[(key, kept.value)], false);
            }
            Doing::ManyFirst => {
                let found = self.is_current(state, reader, 0).filter(|_| !self.must_ask(state, reader, 0));
                step(state, found.map_or(Doing::ManyAsk, Doing::ManySecond));
            }
            Doing::ManySecond(first) => match self.is_current(state, reader, 1) {
                Some(second) if self.keeps(Rule::CheckAgain) => step(state, Doing::ManyAgain([first, second], true)),
                Some(second) => Self::finish(state, reader, &[(0, first), (1, second)], true),
                None => step(state, Doing::ManyAskSecond(first)),
            },
            Doing::ManyAskSecond(first) => {
                if !Self::asks(state, reader) {
                    return false;
                }
                let tag = state.tables[state.table];
                state.readers[reader].kept[1] = Some(Kept { value: map[1], tag });
                if self.keeps(Rule::CheckAgain) {
                    step(state, Doing::ManyAgain([first, map[1]], false));
                } else {
                    Self::finish(state, reader, &[(0, first), (1, map[1])], true);
                }
            }
            Doing::ManyAgain(values, both) => match self.is_current(state, reader, 0) {
                Some(_) if both => step(state, Doing::ManyAgainSecond(values)),
                Some(_) => Self::finish(state, reader, &[(0, values[0]), (1, values[1])], true),
                None => step(state, Doing::ManyAsk),
            },
            Doing::ManyAgainSecond(values) => match self.is_current(state, reader, 1) {
                Some(_) => Self::finish(state, reader, &[(0, values[0]), (1, values[1])], true),
                None => step(state, Doing::ManyAsk),
            },
            Doing::ManyAsk => {
                if !Self::asks(state, reader) {
                    return false;
                }
                let tag = state.tables[state.table];
                state.readers[reader].kept = map.map(|value| Some(Kept { value, tag }));
                Self::finish(state, reader, &[(0, map[0]), (1, map[1])], false);
            }
        }
        true
    }

    fn begin(state: &mut State, reader: usize, doing: Doing) -> bool {
        // A read of the other key is done at once, if it is a hit.
        let touches = doing != Doing::Epoch(1);
        let after_own = reader == 0 && touches && state.writes[OWN] != Phase::Waiting;
        let told = state.told;
        let one = &mut state.readers[reader];
        if one.doing != Doing::Nothing || one.left == 0 {
            return false;
        }
        (one.doing, one.floor, one.after_own) = (doing, told, after_own);
        one.left -= 1;
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
            Action::Start => {
                let can = state.daemon != Daemon::Up;
                self.start(state);
                can
            }
            Action::Notice(reader) => {
                let (daemon, starts) = (state.daemon, state.starts);
                let one = &mut state.readers[reader];
                let gone = daemon != Daemon::Up || one.daemon != starts;
                gone && self.keeps(Rule::HangUp) && !std::mem::replace(&mut one.broken, true)
            }
            Action::Get(0, key) => Self::begin(state, 0, Doing::Epoch(key)),
            Action::Get(reader, key) => Self::begin(state, reader, Doing::AtOnce(key)),
            Action::GetMany(reader) => Self::begin(state, reader, Doing::ManyFirst),
            Action::Go(reader) => self.go(state, reader),
        }
    }
}

impl Model for NearCache {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let table = |epoch| Tag { epoch, clears: 0, slot: 0 };
        let reader = |which: usize| Reader {
            daemon: 0,
            table: 0,
            broken: false,
            kept: [Some(Kept { value: 0, tag: table(1) }).filter(|_| self.warm); 2],
            doing: Doing::Nothing,
            left: self.reads[which],
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
            readers: [reader(0), reader(1)],
            told: 0,
            edited: false,
            hit: false,
            wrong: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.wrong {
            return;
        }
        actions.extend([Action::Send, Action::Kill, Action::Start]);
        if self.edits {
            actions.extend([Action::Stop, Action::Edit]);
        }
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
            Property::always("every read stands in the order of the writes", |_, state: &State| !state.wrong),
            Property::sometimes("a value is served from the cache after a restart", |_, state: &State| {
                state.hit && state.starts > 0
            }),
        ]
    }
}

const RIGHT: &str = "every read stands in the order of the writes";

/// Two readers with something in their caches, and one that fills its own: what is looked at all over.
fn models(without: Option<Rule>) -> [NearCache; 2] {
    [
        NearCache { without, reads: [1, 1], warm: true, edits: false },
        NearCache { without, reads: [2, 0], warm: false, edits: true },
    ]
}

#[test]
fn with_all_rules_every_read_stands_in_the_order_of_the_writes() {
    for model in models(None) {
        let words = format!("reads {:?}", model.reads);
        let checker = model.checker().threads(2).spawn_dfs().join();
        println!("{words}: {} states, all of them looked at", checker.unique_state_count());
        checker.assert_properties();
        assert!(checker.unique_state_count() > 100_000, "{}", checker.unique_state_count());
    }
}

#[test]
fn without_any_one_rule_a_read_is_wrong() {
    for rule in RULES {
        let wrong = models(Some(rule)).into_iter().rev().find_map(|model| {
            let path = model.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join().discovery(RIGHT)?;
            Some(path.into_actions())
        });
        let Some(actions) = wrong else { panic!("without {rule:?} no read is wrong") };
        println!("without {rule:?}: {actions:?}");
    }
}
