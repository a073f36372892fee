//! One sample of every message that can travel. Each field has a value of its own, so that two fields that change places
//! do not go unnoticed. The frames of these are kept in `golden/` for ever: samples are only ever added.

use commonhold_proto::{
    Answer, Change, ChangeSet, Condition, Cursor, CycleStep, Durability, Earlier, Election, Entry, Event, Fault,
    FlagAction, FlagInfo, FlagOf, Found, Hello, Kind, LockInfo, LockWish, NamespaceInfo, Number, Op, Party, Request,
    Seq, SessionInfo, SlotInfo, Space, StoreIdentity, Tag, Verb, WorkspaceInfo, Write,
};

use super::Message;

const CHUNKS: Space<'static> = Space { kind: Kind::Persistent, workspace: "", namespace: "text_chunks" };
const DOCS: Space<'static> = Space { kind: Kind::Persistent, workspace: "tenant_a", namespace: "full_docs" };
const STATUS: Space<'static> = Space { kind: Kind::Volatile, workspace: "", namespace: "pipeline_status" };
const CLIENT: u128 = 0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100;
const HERE: StoreIdentity = StoreIdentity { device: 0x0000_fd01, inode: 0x0012_3456 };

/// The hellos of the client and of the daemon, with the names of their golden files.
pub fn hellos() -> [(&'static str, Hello); 8] {
    let of = |highest, hello| Hello { highest, ..hello };
    let (client, daemon) = (Hello::of_client(CLIENT, HERE), Hello::of_daemon(CLIENT, HERE, 0x7ab1e, 3));
    [
        ("hello-client", of(1, client)),
        ("hello-daemon", of(1, daemon)),
        ("hello-client-2", of(2, client)),
        ("hello-daemon-2", of(2, daemon)),
        ("hello-client-3", of(3, client)),
        ("hello-daemon-3", of(3, daemon)),
        ("hello-client-4", client),
        ("hello-daemon-4", daemon),
    ]
}

/// Every message, with the name of its golden file.
pub fn messages() -> Vec<(&'static str, Message)> {
    let mut all = requests();
    all.extend(answers());
    all.extend(faults().map(|(name, fault)| (name, Message::Answer(21, Answer::Fault(fault)))));
    all.push((
        "part-got-many",
        Message::Part(
            17,
            Answer::GotMany { found: vec![Some(Found { value: "[1,2]", seq: Seq(40) }), None], tags: vec![] },
        ),
    ));
    all.push(("event-closing", Message::Event(Event::Closing(Fault::Stopping))));
    all.push(("cancel", Message::Cancel(19)));
    all
}

fn requests() -> Vec<(&'static str, Message)> {
    let write = |durability, if_token, spaces, ops| {
        Verb::Write(Write { client: CLIENT, number: 12, settled: 11, durability, if_token, spaces, ops })
    };
    let verbs = [
        ("request-ping", Verb::Ping),
        ("request-get", Verb::Get { space: CHUNKS, key: "chunk-1" }),
        ("request-get-many", Verb::GetMany { space: DOCS, keys: vec!["doc-1", "", "文档"] }),
        ("request-filter-missing", Verb::FilterMissing { space: CHUNKS, keys: vec!["chunk-1", "chunk-2"] }),
        ("request-contains", Verb::Contains { space: CHUNKS, key: "chunk-2" }),
        ("request-len", Verb::Len { space: DOCS }),
        ("request-scan", Verb::Scan { space: CHUNKS, cursor: None, prefix: "", limit: 0, values: false }),
        (
            "request-scan-from-cursor",
            Verb::Scan {
                space: DOCS,
                cursor: Some(Cursor { load: 2, ordinal: 999, key: "doc-9" }),
                prefix: "doc-",
                limit: 100,
                values: true,
            },
        ),
        (
            "request-write",
            write(
                None,
                Some(77),
                vec![CHUNKS, DOCS],
                vec![
                    Op::Put { space: 0, key: "chunk-1", value: "{\"tokens\":12}", condition: Condition::Always },
                    Op::Put { space: 1, key: "doc-1", value: "1.10", condition: Condition::IfSeq(Seq(41)) },
                    Op::Put { space: 0, key: "chunk-2", value: "\"\u{e9}\"", condition: Condition::IfAbsent },
                    Op::Delete { space: 1, key: "doc-2", condition: Condition::IfSeq(Seq(42)) },
                    Op::Clear { space: 0 },
                ],
            ),
        ),
        ("request-write-memory", write(Some(Durability::Memory), None, vec![], vec![])),
        ("request-write-buffered", write(Some(Durability::Buffered), None, vec![], vec![])),
        ("request-write-synced", write(Some(Durability::Synced), None, vec![], vec![])),
        ("request-commit", Verb::Commit),
        ("request-flush", Verb::Flush { space: Some(DOCS), rewrite: true, wait: false }),
        ("request-flush-all", Verb::Flush { space: None, rewrite: false, wait: true }),
        ("request-namespaces", Verb::Namespaces),
        ("request-status", Verb::Status),
        ("request-stop", Verb::Stop),
        (
            "request-write-changes",
            write(
                None,
                None,
                vec![STATUS],
                vec![
                    Op::PutStamped { space: 0, key: "doc-1", value: "{}", condition: Condition::IfAbsent },
                    Op::Merge { space: 0, key: "doc-2", fields: "{\"a\":1}", condition: Condition::Always },
                    Op::Increment {
                        space: 0,
                        key: "doc-3",
                        field: "n",
                        by: Number::Int(-2),
                        condition: Condition::IfSeq(Seq(50)),
                    },
                    Op::Increment {
                        space: 0,
                        key: "doc-4",
                        field: "cost",
                        by: Number::Float(0.25),
                        condition: Condition::Always,
                    },
                    Op::Append {
                        space: 0,
                        key: "doc-5",
                        field: "messages",
                        items: "[\"m\"]",
                        keep_last: Some(100),
                        condition: Condition::Always,
                    },
                ],
            ),
        ),
        ("request-get-all", Verb::GetAll { space: STATUS, values: true }),
        ("request-drop", Verb::Drop { space: DOCS }),
        ("request-workspaces", Verb::Workspaces),
        ("request-sessions", Verb::Sessions),
        ("request-end-session", Verb::EndSession { id: 51 }),
        (
            "request-write-again",
            Verb::WriteAgain {
                earlier: Earlier { boot: 3, after: Seq(41) },
                write: Write {
                    client: CLIENT,
                    number: 12,
                    settled: 11,
                    durability: None,
                    if_token: None,
                    spaces: vec![CHUNKS],
                    ops: vec![Op::Delete { space: 0, key: "chunk-1", condition: Condition::Always }],
                },
            },
        ),
        ("request-drop-once", Verb::DropOnce { space: DOCS, client: CLIENT, number: 13, settled: 11, earlier: None }),
        (
            "request-drop-again",
            Verb::DropOnce {
                space: DOCS,
                client: CLIENT,
                number: 13,
                settled: 11,
                earlier: Some(Earlier { boot: 3, after: Seq(41) }),
            },
        ),
    ];
    let all = verbs.into_iter().chain(coordination());
    all.map(|(name, verb)| (name, Message::Request(17, Request { deadline_ms: 30_000, verb }))).collect()
}

fn coordination() -> Vec<(&'static str, Verb<'static>)> {
    vec![
        ("request-flag-register", Verb::Flag { space: DOCS, action: FlagAction::Register { set: true } }),
        ("request-flag-look", Verb::Flag { space: DOCS, action: FlagAction::Look }),
        ("request-flag-clear", Verb::Flag { space: DOCS, action: FlagAction::Clear }),
        ("request-flag-set-all", Verb::Flag { space: DOCS, action: FlagAction::SetAll }),
        ("request-flag-clear-all", Verb::Flag { space: DOCS, action: FlagAction::ClearAll }),
        ("request-flag-forget", Verb::Flag { space: DOCS, action: FlagAction::Forget }),
        ("request-flags", Verb::Flags),
        ("request-elect", Verb::Elect { name: "load", wait: true }),
        ("request-initialized", Verb::Initialized { name: "load", done: true }),
        (
            "request-lock",
            Verb::Lock(LockWish { keys: vec!["a", "b"], shared: true, owner: 70, holds: vec![71, 72], wait: false }),
        ),
        ("request-unlock", Verb::Unlock { token: 73 }),
        ("request-locks", Verb::Locks),
        ("request-acquire", Verb::Acquire { group: "llm", limit: 16, slots: 2, wait: true }),
        ("request-release", Verb::Release { lease: 74 }),
        ("request-set-limit", Verb::SetLimit { group: "llm", limit: 8 }),
        ("request-slots", Verb::Slots),
        ("request-watch", Verb::Watch { space: STATUS, prefix: "doc-", after: Some(Seq(75)) }),
        ("request-watch-from-now", Verb::Watch { space: DOCS, prefix: "", after: None }),
        ("request-hold", Verb::Hold),
    ]
}

fn answers() -> Vec<(&'static str, Message)> {
    let tag = |slot_count| Tag { epoch: 5, clear_count: 6, slot_count };
    let found = Some(Found { value: "{\"tokens\":12}", seq: Seq(43) });
    let closed = NamespaceInfo {
        kind: Kind::Persistent,
        workspace: "tenant_a".to_owned(),
        namespace: "full_docs".to_owned(),
        records: None,
        bytes: 0,
        file_bytes: Some(8_192),
        dirty: true,
        closed: Some("line 3: expected a comma".to_owned()),
    };
    let open = NamespaceInfo {
        workspace: String::new(),
        namespace: "text_chunks".to_owned(),
        records: Some(48),
        bytes: 40_960,
        file_bytes: None,
        dirty: false,
        closed: None,
        ..closed.clone()
    };
    let answers = [
        ("answer-done", Answer::Done),
        ("answer-got", Answer::Got { found, tag: Some(tag(7)) }),
        ("answer-got-nothing", Answer::Got { found: None, tag: None }),
        ("answer-got-many", Answer::GotMany { found: vec![found, None], tags: vec![tag(8), tag(9)] }),
        ("answer-missing", Answer::Missing { keys: vec![0, 2] }),
        ("answer-contains", Answer::Contains { found: true }),
        ("answer-len", Answer::Len { records: 48 }),
        (
            "answer-page",
            Answer::Page {
                entries: vec![
                    Entry { key: "chunk-1", seq: Seq(43), value: Some("null") },
                    Entry { key: "chunk-2", seq: Seq(44), value: None },
                ],
                next: Some(Cursor { load: 2, ordinal: 1_001, key: "chunk-2" }),
                seq: Seq(45),
            },
        ),
        ("answer-written", Answer::Written { seq: Seq(46), new: 2, found: 1, surrogates_removed: 3 }),
        ("answer-committed", Answer::Committed { seq: Seq(47) }),
        ("answer-flushed", Answer::Flushed { rewritten: 8, seq: Seq(48) }),
        ("answer-namespaces", Answer::Namespaces { list: vec![open, closed] }),
        ("answer-status", Answer::Status { json: "{\"version\":\"0.1.0\"}" }),
        (
            "answer-records",
            Answer::Records { entries: vec![Entry { key: "chunk-3", seq: Seq(52), value: Some("{}") }], seq: Seq(53) },
        ),
        ("answer-dropped", Answer::Dropped { seq: Seq(54), records: 49 }),
        (
            "answer-workspaces",
            Answer::Workspaces {
                list: vec![WorkspaceInfo {
                    workspace: "tenant_a".to_owned(),
                    namespaces: 8,
                    loaded: 3,
                    records: 55,
                    bytes: 5_600,
                    file_bytes: 57_000,
                }],
            },
        ),
        (
            "answer-sessions",
            Answer::Sessions {
                list: vec![SessionInfo {
                    id: 58,
                    client: CLIENT,
                    pid: Some(5_900),
                    uid: None,
                    command: "gunicorn".to_owned(),
                    version: 2,
                    since_unix_ms: 1_700_000_000_060,
                    requests: 61,
                    in_flight: 62,
                    queued_bytes: 63,
                }],
            },
        ),
    ];
    let all = answers.into_iter().chain(coordination_answers());
    all.map(|(name, answer)| (name, Message::Answer(17, answer))).collect()
}

fn coordination_answers() -> Vec<(&'static str, Answer<'static>)> {
    let party = |session, token| Party {
        session,
        pid: Some(5_900),
        command: "gunicorn".to_owned(),
        owner: 70,
        token,
        shared: true,
        slots: 1,
        since_unix_ms: 1_700_000_000_080,
    };
    let changes =
        vec![Change::Clear, Change::Put { key: "doc-1", value: "{}" }, Change::Delete { key: "doc-2" }, Change::Drop];
    vec![
        ("answer-flag", Answer::Flag { set: true, word: 81 }),
        (
            "answer-flags",
            Answer::Flags {
                list: vec![FlagInfo {
                    workspace: "tenant_a".to_owned(),
                    namespace: "full_docs".to_owned(),
                    word: 83,
                    sessions: vec![FlagOf { session: 84, pid: None, set: true }],
                }],
            },
        ),
        ("answer-elected-won", Answer::Elected { state: Election::Won }),
        ("answer-elected-running", Answer::Elected { state: Election::Running }),
        ("answer-elected-done", Answer::Elected { state: Election::Done }),
        ("answer-locked", Answer::Locked { token: 85 }),
        (
            "answer-locks",
            Answer::Locks {
                list: vec![LockInfo { key: "a".to_owned(), holders: vec![party(86, 87)], waiters: vec![party(88, 0)] }],
            },
        ),
        ("answer-acquired", Answer::Acquired { lease: 89 }),
        (
            "answer-slots",
            Answer::Slots {
                list: vec![SlotInfo {
                    group: "llm".to_owned(),
                    limit: 16,
                    taken: 15,
                    holders: vec![party(90, 91)],
                    waiters: vec![party(92, 0)],
                }],
            },
        ),
        (
            "answer-changes",
            Answer::Changes { list: vec![ChangeSet { seq: Seq(93), more: true, changes }], through: Seq(94) },
        ),
        ("answer-lagged", Answer::Lagged { lost_from: Seq(95), next: Seq(96) }),
    ]
}

/// Every fault, with the name of its golden file.
pub fn faults() -> impl Iterator<Item = (&'static str, Fault)> {
    let place = || "tenant_a/full_docs".to_owned();
    let path = || "/data/rag/.commonhold/journal/00000001.log".to_owned();
    [
        ("fault-malformed", Fault::Malformed { reason: "a truth value is 7, not 0 or 1".to_owned() }),
        ("fault-unsupported", Fault::Unsupported { what: "verb".to_owned(), tag: 99 }),
        ("fault-invalid-namespace", Fault::InvalidNamespace { name: "../etc".to_owned() }),
        ("fault-invalid-workspace", Fault::InvalidWorkspace { name: "a/b".to_owned() }),
        ("fault-name-clash", Fault::NameClash { namespace: "Docs".to_owned(), existing: "docs".to_owned() }),
        (
            "fault-invalid-json",
            Fault::InvalidJson { key: "k".to_owned(), offset: 9, reason: "expected a value".to_owned() },
        ),
        (
            "fault-too-large",
            Fault::TooLarge { what: "operations in the request".to_owned(), got: 10_001, limit: 10_000 },
        ),
        ("fault-condition-failed", Fault::ConditionFailed { operation: 3, found: Some(Seq(41)) }),
        ("fault-condition-failed-absent", Fault::ConditionFailed { operation: 4, found: None }),
        (
            "fault-needs-repair",
            Fault::NeedsRepair {
                place: place(),
                file: "/data/rag/tenant_a/kv_store_full_docs.json".to_owned(),
                reason: "line 3, byte 120: expected a comma".to_owned(),
            },
        ),
        ("fault-full", Fault::Full { path: path() }),
        (
            "fault-disk-error",
            Fault::DiskError { action: "append to".to_owned(), path: path(), reason: "I/O error".to_owned() },
        ),
        ("fault-unavailable", Fault::Unavailable { reason: "syncing the journal failed".to_owned() }),
        ("fault-outcome-unknown", Fault::OutcomeUnknown { reason: "syncing the journal failed".to_owned() }),
        ("fault-timed-out", Fault::TimedOut { waited_ms: 1_500, waiting_for: "the namespace to be loaded".to_owned() }),
        (
            "fault-flush-lock-timeout",
            Fault::FlushLockTimeout {
                place: place(),
                lock_file: "/data/rag/.commonhold/flush/w/tenant_a/full_docs.lock".to_owned(),
                waited_ms: 30_000,
            },
        ),
        (
            "fault-flush-failed",
            Fault::FlushFailed { places: vec![place(), "text_chunks".to_owned()], reason: "no space".to_owned() },
        ),
        ("fault-cursor-expired", Fault::CursorExpired),
        ("fault-stopping", Fault::Stopping),
        ("fault-version", Fault::Version { client_lowest: 1, client_highest: 2, daemon_lowest: 3, daemon_highest: 4 }),
        ("fault-other-store", Fault::OtherStore { device: HERE.device, inode: HERE.inode }),
        ("fault-forbidden", Fault::Forbidden { uid: 1_001, owner: 1_000 }),
        ("fault-cancelled", Fault::Cancelled),
        ("fault-kind-mismatch", Fault::KindMismatch { place: place(), kind: Kind::Volatile }),
        ("fault-volatile", Fault::Volatile { place: "pipeline_status".to_owned(), what: "flushed".to_owned() }),
        ("fault-mixed-kinds", Fault::MixedKinds),
        (
            "fault-wrong-type",
            Fault::WrongType {
                operation: 5,
                key: "doc-1".to_owned(),
                field: Some("n".to_owned()),
                needed: "a number".to_owned(),
                found: "it is a string".to_owned(),
            },
        ),
        ("fault-overflow", Fault::Overflow { operation: 6, key: "doc-1".to_owned(), field: "n".to_owned() }),
        ("fault-memory-full", Fault::MemoryFull { used: 1_000, limit: 1_024, needed: 64 }),
        ("fault-snapshot-expired", Fault::SnapshotExpired),
        ("fault-loading", Fault::Loading { place: place(), done_bytes: 65, total_bytes: 66 }),
        ("fault-no-such-session", Fault::NoSuchSession { id: 67 }),
        ("fault-session-ended", Fault::SessionEnded),
        (
            "fault-flooded",
            Fault::Flooded { what: "bytes of answers that were not taken".to_owned(), got: 68, limit: 69 },
        ),
    ]
    .into_iter()
    .chain(coordination_faults())
}

fn coordination_faults() -> Vec<(&'static str, Fault)> {
    let step = CycleStep { session: 97, pid: Some(5_900), owner: 70, waits_for: "b".to_owned(), holds: 98 };
    vec![
        ("fault-invalid", Fault::Invalid { what: "a lock of no keys".to_owned(), rule: "name one".to_owned() }),
        ("fault-would-wait", Fault::WouldWait { what: "lock \"a\"".to_owned(), held_by: "session 99".to_owned() }),
        ("fault-already-held", Fault::AlreadyHeld { key: "a".to_owned(), token: 100 }),
        ("fault-deadlock", Fault::Deadlock { cycle: vec![step] }),
        ("fault-not-held", Fault::NotHeld { what: "the lock of token 101".to_owned() }),
        ("fault-token-not-live", Fault::TokenNotLive { token: 102 }),
        ("fault-limit-mismatch", Fault::LimitMismatch { group: "llm".to_owned(), limit: 16, asked: 8 }),
        ("fault-gone", Fault::Gone { oldest: Seq(103) }),
        ("fault-rewound", Fault::Rewound { to: Seq(104) }),
        ("fault-not-yet", Fault::NotYet { asked: Seq(105), latest: Seq(106) }),
    ]
}
