//! What the corpora in `fuzz/corpus/` begin with: golden frames, small journals, files like LightRAG's.
//!
//! `BLESS=1 cargo test --lib fuzzing` writes files that are missing and never touches one that is there, so that journals
//! of earlier releases stay. What a fuzzer has found is put beside them by hand.

use std::fs;
use std::path::{Path, PathBuf};

use super::journal::{around, options};
use crate::engine::disk::SimDisk;
use crate::engine::{FlushHow, Layout, Store, StoreOptions, WriteRequest};
use crate::proto::frame::FRAME_HEADER_BYTES;
use crate::proto::{Condition, Place};

/// An input and its name.
pub(super) type Seed = (String, Vec<u8>);

/// The files of a target's corpus, in order of name.
pub(super) fn corpus(target: &str) -> Vec<Seed> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    if std::env::var_os("BLESS").is_some() {
        bless(&folder, target);
    }
    let mut found: Vec<Seed> = fs::read_dir(&folder)
        .expect("every target has a corpus")
        .map(|entry| entry.expect("an entry of it").path())
        .map(|path| (name_of(&path), fs::read(&path).expect("a file")))
        .collect();
    found.sort_unstable();
    found
}

fn name_of(path: &Path) -> String {
    path.file_name().expect("it lies in a folder").to_string_lossy().into_owned()
}

fn bless(folder: &Path, target: &str) {
    let seeds = match target {
        "frame" => frames(),
        "message" => bodies(),
        "journal" => journals(),
        "namespace" => namespaces(),
        "session" => sessions(),
        other => panic!("nobody knows the target {other}"),
    };
    fs::create_dir_all(folder).expect("the repository can be written");
    for (name, bytes) in seeds {
        let path = folder.join(name);
        if !path.exists() {
            fs::write(path, bytes).expect("the repository can be written");
        }
    }
}

fn golden_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("proto/golden")
}

/// The golden files whose names begin so, as bytes: pairs of hex digits, `#` begins a comment.
fn golden(begin: &str) -> Vec<Seed> {
    let mut found = Vec::new();
    for entry in fs::read_dir(golden_folder()).expect("the golden frames") {
        let path = entry.expect("an entry of it").path();
        let Some(name) = name_of(&path).strip_suffix(".hex").filter(|name| name.starts_with(begin)).map(str::to_owned)
        else {
            continue;
        };
        let text = fs::read_to_string(path).expect("text");
        let digits: String =
            text.lines().filter_map(|line| line.split('#').next()).flat_map(str::split_whitespace).collect();
        found.push((name, from_hex(&digits)));
    }
    found.sort_unstable();
    found
}

fn from_hex(digits: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex digits");
    (0..digits.len()).step_by(2).map(byte).collect()
}

fn joined(seeds: &[Seed]) -> Vec<u8> {
    seeds.iter().flat_map(|(_, bytes)| bytes.clone()).collect()
}

/// With a first byte that says how.
fn how(how: u8, bytes: &[u8]) -> Vec<u8> {
    [&[how], bytes].concat()
}

fn frames() -> Vec<Seed> {
    let (requests, answers) = (golden("request"), golden("answer"));
    let mut seeds = vec![
        ("requests".to_owned(), how(0, &joined(&requests))),
        ("requests-byte-by-byte".to_owned(), how(1, &joined(&requests[..6]))),
        ("answers-mixed".to_owned(), how(9, &joined(&answers))),
        ("events".to_owned(), how(4, &joined(&golden("event")))),
        (
            "longest".to_owned(),
            how(0, &[&(64_u32 << 20).to_le_bytes()[..], &[1, 0, 0, 0, 0, 0, 0, 0, 1], b"no more"].concat()),
        ),
        ("too-long".to_owned(), how(0, &((64_u32 << 20) + 1).to_le_bytes())),
        ("all-ones".to_owned(), how(0, &[0xff; 16])),
        ("short".to_owned(), how(0, &[8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0])),
    ];
    seeds.extend(golden("cancel").into_iter().map(|(name, bytes)| (name, how(3, &bytes))));
    seeds
}

fn bodies() -> Vec<Seed> {
    let mut seeds: Vec<Seed> = ["request", "answer", "fault", "event", "part"]
        .into_iter()
        .flat_map(golden)
        .map(|(name, bytes)| (name, bytes[FRAME_HEADER_BYTES..].to_vec()))
        .collect();
    seeds.extend(golden("hello"));
    seeds
}

fn sessions() -> Vec<Seed> {
    let requests = golden("request");
    let quiet: Vec<Seed> = requests
        .iter()
        .filter(|(name, _)| !["request-stop", "request-end-session"].contains(&name.as_str()))
        .cloned()
        .collect();
    let mut seeds = vec![
        ("all".to_owned(), how(0, &joined(&quiet))),
        ("all-on-tasks".to_owned(), how(1, &joined(&quiet))),
        ("all-read-late".to_owned(), how(4, &joined(&quiet))),
        ("all-byte-by-byte".to_owned(), how(1 << 3, &joined(&quiet[..8]))),
        ("end-sessions-on-tasks".to_owned(), how(1, &joined(&requests[..4]))),
    ];
    for (at, (name, bytes)) in requests.iter().enumerate() {
        seeds.push((name.clone(), how(at as u8 & 1, bytes)));
    }
    for (name, bytes) in golden("hello-client") {
        seeds.push((name, how(2, &bytes)));
    }
    let recorded = fs::read_to_string(golden_folder().join("session-v1.txt")).expect("text");
    let said: Vec<u8> = recorded.lines().filter_map(|line| line.strip_prefix("> ")).flat_map(from_hex).collect();
    // Its last request ends the daemon.
    seeds.push(("recorded".to_owned(), how(2, &said)));
    seeds
}

fn namespaces() -> Vec<Seed> {
    let text = |name: &str, text: &str| (name.to_owned(), text.as_bytes().to_vec());
    let chunk = r#"{
  "chunk-1f3a": {
    "tokens": 1200,
    "content": "\u4e2d\u6587 und \"Anf\u00fchrung\" \\ / \n",
    "chunk_order_index": 0,
    "full_doc_id": "doc-77",
    "llm_cache_list": ["default:extract:9c", "default:extract:9d"],
    "create_time": 1712345678,
    "_id": "chunk-1f3a"
  },
  "chunk-2b": {"tokens": 1.10, "content": "", "score": -0.0, "big": 123456789012345678901234567890, "e": 1e-7}
}"#;
    vec![
        text("chunks", chunk),
        text(
            "status",
            "{\n\"doc-1\":{\"status\":\"processed\",\"error\":null,\"ok\":true,\"no\":false},\n\"doc-2\":{}\n}\n",
        ),
        text("empty", "{}\n"),
        text("blank", " \r\n\t"),
        text("byte-order-mark", "\u{feff}{\"a\": 1}"),
        text(
            "python",
            "{\"nan\": NaN, \"inf\": [Infinity, -Infinity], \"lone\": \"\\ud83d\", \"pair\": \"\\ud83d\\ude00\"}",
        ),
        text(
            "twice",
            "{\"k\": 1, \"in\": {\"a\": 1, \"b\": {\"x\": [], \"x\": {}}, \"a\": 2, \"\\u0061\": 3}, \"k\": [2]}",
        ),
        text("escapes", "{\"\\u0000\\u001F\\/\\b\\f\\n\\r\\t\\\"\\\\\": \"\\u2028\\uFFFF\u{7f}\u{10ffff}\"}"),
        text("numbers", "{\"n\": [0, -0, 1E5, 1e+16, -2.50e-07, 1e400, 18446744073709551616, -9223372036854775808]}"),
        ("deep".to_owned(), format!("{{\"k\": {}{}}}", "[".repeat(100), "]".repeat(100)).into_bytes()),
        ("deeper".to_owned(), format!("{{\"k\": {}{}}}", "[{\"a\":".repeat(520), "").into_bytes()),
        ("deepest".to_owned(), format!("{{\"k\": {}1{}}}", "[".repeat(1024), "]".repeat(1024)).into_bytes()),
        text("torn", &chunk[..300]),
    ]
}

fn place(name: &str) -> Place {
    let (workspace, namespace) = name.split_once('/').unwrap_or(("", name));
    Place::new(workspace, namespace).expect("a good name")
}

fn write(store: &Store, number: u64, name: &str, ops: &[(&str, Option<&str>)]) {
    let table = store.namespace(&place(name)).expect("it opens");
    let mut request = WriteRequest::new(1 << 70, number);
    for (key, value) in ops {
        match value {
            Some(value) => request.put(&table, key, value, Condition::Always).expect("it is JSON"),
            None => request.delete(&table, key, Condition::Always).expect("the table is open"),
        }
    }
    request.once(number.saturating_sub(2), None);
    store.write(vec![request]).pop().expect("one request, one result").expect("the disk is good");
}

fn small_journal(segment_bytes: u64, work: impl Fn(&Store, u64)) -> Vec<u8> {
    let (disk, dir) = (SimDisk::new(1), Path::new("/store"));
    disk.make_dirs(dir);
    for round in 0..2 {
        let store = Store::open(dir, StoreOptions { segment_bytes, ..options() }, around(disk.clone()));
        // Its client's numbers rise, also over a restart.
        work(&store.expect("the store opens"), 100 * round);
    }
    let journal = Layout::new(dir).journal();
    let segments = disk.all_files().into_iter().filter(|path| path.parent() == Some(&journal));
    segments.flat_map(|path| disk.read_file(path)).collect()
}

fn journals() -> Vec<Seed> {
    let few = small_journal(1 << 20, |store, before| {
        write(store, before + 1, "chunks", &[("a", Some("1")), ("b", Some("{\"x\":[null]}"))]);
        write(store, before + 2, "tenant/docs", &[("", Some("\"\u{4e2d}\""))]);
        write(store, before + 3, "chunks", &[("a", None)]);
    });
    let flushed = small_journal(1 << 20, |store, before| {
        write(store, before + 1, "chunks", &[("a", Some("1"))]);
        store.flush(&place("chunks"), FlushHow::default()).expect("the disk is good");
        write(store, before + 2, "chunks", &[("a", Some("2"))]);
        write(store, before + 3, "gone", &[("k", Some("0"))]);
        store.drop_namespace(&place("gone")).expect("the disk is good");
    });
    let many = small_journal(1_500, |store, before| {
        for number in 0..40 {
            let value = format!("\"{}\"", "x".repeat(40 + number));
            write(store, before + number as u64 + 1, ["a", "b", "w/c"][number % 3], &[("k", Some(&value))]);
        }
    });
    let mut seeds = Vec::new();
    for (name, bytes) in [("few", few), ("flushed", flushed), ("segments", many)] {
        seeds.push((name.to_owned(), how(0, &bytes)));
        seeds.push((format!("{name}-sealed"), how(1, &bytes)));
        seeds.push((format!("{name}-torn"), how(0, &bytes[..bytes.len() - 21])));
    }
    seeds
}
