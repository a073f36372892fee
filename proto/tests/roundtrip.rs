//! Any message that can be said is heard as it was said. Messages are drawn from a list of numbers and a pool of texts,
//! so that proptest, which makes numbers smaller and lists shorter, ends at the simplest message that fails.

use commonhold_proto::{
    Answer, Change, ChangeSet, Condition, Cursor, CycleStep, Durability, Earlier, Election, Entry, Event,
    FRAME_HEADER_BYTES, Fault, FlagAction, FlagInfo, FlagOf, Found, FrameKind, Hello, Kind, LockInfo, LockWish,
    NamespaceInfo, Number, Op, Party, Request, Seq, SessionInfo, SlotInfo, Space, StoreIdentity, Tag, Verb,
    WorkspaceInfo, Write, codec, frame,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

/// Decisions for one message; when they run out, all further ones are 0.
struct Draw<'a> {
    numbers: std::slice::Iter<'a, u64>,
    texts: &'a [String],
}

impl<'a> Draw<'a> {
    fn u64(&mut self) -> u64 {
        self.numbers.next().copied().unwrap_or(0)
    }

    fn u32(&mut self) -> u32 {
        self.u64() as u32
    }

    fn one_of(&mut self, choices: usize) -> usize {
        (self.u64() % choices as u64) as usize
    }

    fn bool(&mut self) -> bool {
        self.one_of(2) == 1
    }

    fn text(&mut self) -> &'a str {
        let at = self.one_of(self.texts.len().max(1));
        self.texts.get(at).map_or("", String::as_str)
    }

    fn string(&mut self) -> String {
        self.text().to_owned()
    }

    fn seq(&mut self) -> Seq {
        Seq(self.u64())
    }

    fn some<T>(&mut self, of: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.bool().then(|| of(self))
    }

    fn list<T>(&mut self, mut of: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.one_of(6)).map(|_| of(self)).collect()
    }

    fn kind(&mut self) -> Kind {
        [Kind::Persistent, Kind::Volatile][self.one_of(2)]
    }

    fn number(&mut self) -> Number {
        if self.bool() { Number::Int(self.u64().cast_signed()) } else { Number::Float(f64::from(self.u32()) / 8.0) }
    }

    fn space(&mut self) -> Space<'a> {
        Space { kind: self.kind(), workspace: self.text(), namespace: self.text() }
    }

    fn cursor(&mut self) -> Cursor<'a> {
        Cursor { load: self.u64(), ordinal: self.u64(), key: self.text() }
    }

    fn condition(&mut self) -> Condition {
        [Condition::Always, Condition::IfSeq(self.seq()), Condition::IfAbsent][self.one_of(3)]
    }

    fn op(&mut self) -> Op<'a> {
        let space = self.u32();
        match self.one_of(7) {
            0 => Op::Clear { space },
            2 => Op::PutStamped { space, key: self.text(), value: self.text(), condition: self.condition() },
            3 => Op::Merge { space, key: self.text(), fields: self.text(), condition: self.condition() },
            4 => Op::Increment {
                space,
                key: self.text(),
                field: self.text(),
                by: self.number(),
                condition: self.condition(),
            },
            5 => Op::Append {
                space,
                key: self.text(),
                field: self.text(),
                items: self.text(),
                keep_last: self.some(Self::u32),
                condition: self.condition(),
            },
            1 => Op::Delete { space, key: self.text(), condition: self.condition() },
            _ => Op::Put { space, key: self.text(), value: self.text(), condition: self.condition() },
        }
    }

    fn write(&mut self) -> Write<'a> {
        Write {
            client: u128::from(self.u64()) << 64 | u128::from(self.u64()),
            number: self.u64(),
            settled: self.u64(),
            durability: self
                .some(|draw| [Durability::Memory, Durability::Buffered, Durability::Synced][draw.one_of(3)]),
            if_token: self.some(Self::u64),
            spaces: self.list(Self::space),
            ops: self.list(Self::op),
        }
    }

    fn earlier(&mut self) -> Earlier {
        Earlier { boot: self.u64(), after: self.seq() }
    }

    fn request(&mut self) -> Request<'a> {
        let verb = match self.one_of(Verb::NAMES.len()) {
            0 => Verb::Ping,
            1 => Verb::Get { space: self.space(), key: self.text() },
            2 => Verb::GetMany { space: self.space(), keys: self.list(Self::text) },
            3 => Verb::FilterMissing { space: self.space(), keys: self.list(Self::text) },
            4 => Verb::Contains { space: self.space(), key: self.text() },
            5 => Verb::Len { space: self.space() },
            6 => Verb::Scan {
                space: self.space(),
                cursor: self.some(Self::cursor),
                prefix: self.text(),
                limit: self.u32(),
                values: self.bool(),
            },
            7 => Verb::Write(self.write()),
            8 => Verb::Commit,
            9 => Verb::Flush { space: self.some(Self::space), rewrite: self.bool(), wait: self.bool() },
            10 => Verb::Namespaces,
            11 => Verb::Status,
            12 => Verb::Stop,
            13 => Verb::GetAll { space: self.space(), values: self.bool() },
            14 => Verb::Drop { space: self.space() },
            15 => Verb::Workspaces,
            16 => Verb::Sessions,
            17 => Verb::EndSession { id: self.u64() },
            18 => Verb::WriteAgain { earlier: self.earlier(), write: self.write() },
            19 => Verb::DropOnce {
                space: self.space(),
                client: u128::from(self.u64()) << 64 | u128::from(self.u64()),
                number: self.u64(),
                settled: self.u64(),
                earlier: self.some(Self::earlier),
            },
            20 => Verb::Flag { space: self.space(), action: self.flag_action() },
            21 => Verb::Flags,
            22 => Verb::Elect { name: self.text(), wait: self.bool() },
            23 => Verb::Initialized { name: self.text(), done: self.bool() },
            24 => Verb::Lock(LockWish {
                keys: self.list(Self::text),
                shared: self.bool(),
                owner: self.u64(),
                holds: self.list(Self::u64),
                wait: self.bool(),
            }),
            25 => Verb::Unlock { token: self.u64() },
            26 => Verb::Locks,
            27 => Verb::Acquire { group: self.text(), limit: self.u32(), slots: self.u32(), wait: self.bool() },
            28 => Verb::Release { lease: self.u64() },
            29 => Verb::SetLimit { group: self.text(), limit: self.u32() },
            30 => Verb::Slots,
            31 => Verb::Watch { space: self.space(), prefix: self.text(), after: self.some(Self::seq) },
            32 => Verb::Hold,
            verb => panic!("verb {verb} is never drawn: add it here"),
        };
        Request { deadline_ms: self.u32(), verb }
    }

    fn flag_action(&mut self) -> FlagAction {
        match self.one_of(FlagAction::NAMES.len()) {
            0 => FlagAction::Register { set: self.bool() },
            1 => FlagAction::Look,
            2 => FlagAction::Clear,
            3 => FlagAction::SetAll,
            4 => FlagAction::ClearAll,
            _ => FlagAction::Forget,
        }
    }

    fn party(&mut self) -> Party {
        Party {
            session: self.u64(),
            pid: self.some(Self::u32),
            command: self.string(),
            owner: self.u64(),
            token: self.u64(),
            shared: self.bool(),
            slots: self.u32(),
            since_unix_ms: self.u64(),
        }
    }

    fn lock_info(&mut self) -> LockInfo {
        LockInfo { key: self.string(), holders: self.list(Self::party), waiters: self.list(Self::party) }
    }

    fn slot_info(&mut self) -> SlotInfo {
        SlotInfo {
            group: self.string(),
            limit: self.u32(),
            taken: self.u32(),
            holders: self.list(Self::party),
            waiters: self.list(Self::party),
        }
    }

    fn flag_info(&mut self) -> FlagInfo {
        let flag_of = |draw: &mut Self| FlagOf { session: draw.u64(), pid: draw.some(Self::u32), set: draw.bool() };
        FlagInfo { workspace: self.string(), namespace: self.string(), word: self.u64(), sessions: self.list(flag_of) }
    }

    fn change_set(&mut self) -> ChangeSet<'a> {
        ChangeSet { seq: self.seq(), more: self.bool(), changes: self.list(Self::change) }
    }

    fn change(&mut self) -> Change<'a> {
        match self.one_of(Change::NAMES.len()) {
            0 => Change::Put { key: self.text(), value: self.text() },
            1 => Change::Delete { key: self.text() },
            2 => Change::Clear,
            _ => Change::Drop,
        }
    }

    fn found(&mut self) -> Found<'a> {
        Found { value: self.text(), seq: self.seq() }
    }

    fn tag(&mut self) -> Tag {
        Tag { epoch: self.u64(), clear_count: self.u64(), slot_count: self.u64() }
    }

    fn namespace_info(&mut self) -> NamespaceInfo {
        NamespaceInfo {
            kind: self.kind(),
            workspace: self.string(),
            namespace: self.string(),
            records: self.some(Self::u64),
            bytes: self.u64(),
            file_bytes: self.some(Self::u64),
            dirty: self.bool(),
            closed: self.some(Self::string),
        }
    }

    fn workspace_info(&mut self) -> WorkspaceInfo {
        WorkspaceInfo {
            workspace: self.string(),
            namespaces: self.u64(),
            loaded: self.u64(),
            records: self.u64(),
            bytes: self.u64(),
            file_bytes: self.u64(),
        }
    }

    fn session_info(&mut self) -> SessionInfo {
        SessionInfo {
            id: self.u64(),
            client: u128::from(self.u64()) << 64 | u128::from(self.u64()),
            pid: self.some(Self::u32),
            uid: self.some(Self::u32),
            command: self.string(),
            version: self.u32() as u16,
            since_unix_ms: self.u64(),
            requests: self.u64(),
            in_flight: self.u64(),
            queued_bytes: self.u64(),
        }
    }

    fn entry(&mut self) -> Entry<'a> {
        Entry { key: self.text(), seq: self.seq(), value: self.some(Self::text) }
    }

    fn answer(&mut self) -> Answer<'a> {
        match self.one_of(Answer::NAMES.len()) {
            0 => Answer::Fault(self.fault()),
            1 => Answer::Done,
            2 => Answer::Got { found: self.some(Self::found), tag: self.some(Self::tag) },
            3 => Answer::GotMany { found: self.list(|draw| draw.some(Self::found)), tags: self.list(Self::tag) },
            4 => Answer::Missing { keys: self.list(Self::u32) },
            5 => Answer::Contains { found: self.bool() },
            6 => Answer::Len { records: self.u64() },
            7 => Answer::Page { entries: self.list(Self::entry), next: self.some(Self::cursor), seq: self.seq() },
            8 => {
                Answer::Written { seq: self.seq(), new: self.u64(), found: self.u64(), surrogates_removed: self.u64() }
            }
            9 => Answer::Committed { seq: self.seq() },
            10 => Answer::Flushed { rewritten: self.u32(), seq: self.seq() },
            11 => Answer::Namespaces { list: self.list(Self::namespace_info) },
            12 => Answer::Status { json: self.text() },
            13 => Answer::Records { entries: self.list(Self::entry), seq: self.seq() },
            14 => Answer::Dropped { seq: self.seq(), records: self.u64() },
            15 => Answer::Workspaces { list: self.list(Self::workspace_info) },
            16 => Answer::Sessions { list: self.list(Self::session_info) },
            17 => Answer::Flag { set: self.bool(), word: self.u64() },
            18 => Answer::Flags { list: self.list(Self::flag_info) },
            19 => Answer::Elected { state: [Election::Won, Election::Running, Election::Done][self.one_of(3)] },
            20 => Answer::Locked { token: self.u64() },
            21 => Answer::Locks { list: self.list(Self::lock_info) },
            22 => Answer::Acquired { lease: self.u64() },
            23 => Answer::Slots { list: self.list(Self::slot_info) },
            24 => Answer::Changes { list: self.list(Self::change_set), through: self.seq() },
            25 => Answer::Lagged { lost_from: self.seq(), next: self.seq() },
            answer => panic!("answer {answer} is never drawn: add it here"),
        }
    }

    fn fault(&mut self) -> Fault {
        let s = Self::string;
        match self.one_of(Fault::NAMES.len()) {
            0 => Fault::Malformed { reason: s(self) },
            1 => Fault::Unsupported { what: s(self), tag: self.u32() },
            2 => Fault::InvalidNamespace { name: s(self) },
            3 => Fault::InvalidWorkspace { name: s(self) },
            4 => Fault::NameClash { namespace: s(self), existing: s(self) },
            5 => Fault::InvalidJson { key: s(self), offset: self.u64(), reason: s(self) },
            6 => Fault::TooLarge { what: s(self), got: self.u64(), limit: self.u64() },
            7 => Fault::ConditionFailed { operation: self.u32(), found: self.some(Self::seq) },
            8 => Fault::NeedsRepair { place: s(self), file: s(self), reason: s(self) },
            9 => Fault::Full { path: s(self) },
            10 => Fault::DiskError { action: s(self), path: s(self), reason: s(self) },
            11 => Fault::Unavailable { reason: s(self) },
            12 => Fault::OutcomeUnknown { reason: s(self) },
            13 => Fault::TimedOut { waited_ms: self.u64(), waiting_for: s(self) },
            14 => Fault::FlushLockTimeout { place: s(self), lock_file: s(self), waited_ms: self.u64() },
            15 => Fault::FlushFailed { places: self.list(s), reason: s(self) },
            16 => Fault::CursorExpired,
            17 => Fault::Stopping,
            18 => Fault::Version {
                client_lowest: self.u64() as u16,
                client_highest: self.u64() as u16,
                daemon_lowest: self.u64() as u16,
                daemon_highest: self.u64() as u16,
            },
            19 => Fault::OtherStore { device: self.u64(), inode: self.u64() },
            20 => Fault::Forbidden { uid: self.u32(), owner: self.u32() },
            21 => Fault::Cancelled,
            22 => Fault::KindMismatch { place: s(self), kind: self.kind() },
            23 => Fault::Volatile { place: s(self), what: s(self) },
            24 => Fault::MixedKinds,
            25 => Fault::WrongType {
                operation: self.u32(),
                key: s(self),
                field: self.some(s),
                needed: s(self),
                found: s(self),
            },
            26 => Fault::Overflow { operation: self.u32(), key: s(self), field: s(self) },
            27 => Fault::MemoryFull { used: self.u64(), limit: self.u64(), needed: self.u64() },
            28 => Fault::SnapshotExpired,
            29 => Fault::Loading { place: s(self), done_bytes: self.u64(), total_bytes: self.u64() },
            30 => Fault::NoSuchSession { id: self.u64() },
            31 => Fault::SessionEnded,
            32 => Fault::Flooded { what: s(self), got: self.u64(), limit: self.u64() },
            33 => Fault::Invalid { what: s(self), rule: s(self) },
            34 => Fault::WouldWait { what: s(self), held_by: s(self) },
            35 => Fault::AlreadyHeld { key: s(self), token: self.u64() },
            36 => Fault::Deadlock {
                cycle: self.list(|draw| CycleStep {
                    session: draw.u64(),
                    pid: draw.some(Self::u32),
                    owner: draw.u64(),
                    waits_for: draw.string(),
                    holds: draw.u64(),
                }),
            },
            37 => Fault::NotHeld { what: s(self) },
            38 => Fault::TokenNotLive { token: self.u64() },
            39 => Fault::LimitMismatch { group: s(self), limit: self.u32(), asked: self.u32() },
            40 => Fault::Gone { oldest: self.seq() },
            41 => Fault::Rewound { to: self.seq() },
            42 => Fault::NotYet { asked: self.seq(), latest: self.seq() },
            fault => panic!("fault {fault} is never drawn: add it here"),
        }
    }
}

/// The body of the single frame in `bytes`, which must be of this id and kind.
fn body(bytes: &[u8], id: u64, kind: FrameKind) -> &[u8] {
    let (header, body, consumed) = frame::split(bytes).expect("a good frame").expect("a whole frame");
    assert_eq!((header.id, header.kind, consumed), (id, kind, bytes.len()));
    assert_eq!(consumed, FRAME_HEADER_BYTES + body.len());
    body
}

fn decisions() -> impl Strategy<Value = Vec<u64>> {
    vec(prop_oneof![3 => 0..32_u64, 1 => any::<u64>()], 0..80)
}

fn texts() -> impl Strategy<Value = Vec<String>> {
    vec(vec(any::<char>(), 0..24).prop_map(String::from_iter), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2_000,
        rng_seed: RngSeed::Fixed(0xc0_88_0b),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_request_is_heard_as_it_was_said(numbers in decisions(), texts in texts(), id in 1..=u64::MAX) {
        let request = Draw { numbers: numbers.iter(), texts: &texts }.request();
        let mut out = Vec::new();
        codec::encode_request(&mut out, id, &request).unwrap();
        prop_assert_eq!(codec::decode_request(body(&out, id, FrameKind::Request)), Ok(request));
    }

    #[test]
    fn every_answer_and_part_is_heard_as_it_was_said(numbers in decisions(), texts in texts(), id in 1..=u64::MAX) {
        let answer = Draw { numbers: numbers.iter(), texts: &texts }.answer();
        let (mut out, mut part) = (Vec::new(), Vec::new());
        codec::encode_answer(&mut out, id, &answer).unwrap();
        codec::encode_part(&mut part, id, &answer).unwrap();
        prop_assert_eq!(body(&out, id, FrameKind::Answer), body(&part, id, FrameKind::Part));
        prop_assert_eq!(codec::decode_answer(body(&out, id, FrameKind::Answer)), Ok(answer));
    }

    #[test]
    fn every_event_is_heard_as_it_was_said(numbers in decisions(), texts in texts()) {
        let event = Event::Closing(Draw { numbers: numbers.iter(), texts: &texts }.fault());
        let mut out = Vec::new();
        codec::encode_event(&mut out, &event).unwrap();
        prop_assert_eq!(codec::decode_event(body(&out, 0, FrameKind::Event)), Ok(event));
    }

    #[test]
    fn every_hello_is_heard_as_it_was_said(numbers in vec(any::<u64>(), 7), lowest in any::<u16>(), more in any::<u16>()) {
        let hello = Hello {
            lowest,
            highest: lowest.saturating_add(more),
            flags: numbers[0] as u32,
            identity: StoreIdentity { device: numbers[1], inode: numbers[2] },
            client: u128::from(numbers[3]) << 64 | u128::from(numbers[4]),
            table_nonce: numbers[5],
            boot: numbers[6],
        };
        prop_assert_eq!(Hello::from_bytes(&hello.to_bytes()), Ok(hello));
    }
}
