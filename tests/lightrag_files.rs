//! LightRAG's files through the real daemon: the eight that it wrote itself, and one with everything that Python's
//! `json.dump` can write, come back byte for byte.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::Store;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// A store with LightRAG's eight files and what `odd.py` writes.
fn store_of_lightrag() -> Store {
    let store = Store::new();
    for entry in fs::read_dir(data("lightrag_store")).expect("lists") {
        let entry = entry.expect("entry");
        let bytes = fs::read(entry.path()).expect("reads");
        fs::write(store.dir().join(entry.file_name()), bytes).expect("writes");
    }
    let odd = Command::new("python3").arg(data("odd.py")).arg(store.file("odd")).status();
    assert!(odd.expect("the tests need python3").success());
    store
}

/// Name, bytes and inode of each namespace file.
fn files(store: &Store) -> BTreeMap<String, (Vec<u8>, u64)> {
    let list = fs::read_dir(store.dir()).expect("lists").map(|entry| entry.expect("entry"));
    let list = list.filter(|entry| entry.file_type().expect("type").is_file());
    let read = |path: PathBuf| (fs::read(&path).expect("reads"), fs::metadata(&path).expect("there").ino());
    list.map(|entry| (entry.file_name().into_string().expect("UTF-8"), read(entry.path()))).collect()
}

/// Asserts that every file has the bytes it had, and is another file than it was.
#[track_caller]
fn assert_rewritten_alike(before: &BTreeMap<String, (Vec<u8>, u64)>, after: &BTreeMap<String, (Vec<u8>, u64)>) {
    assert!(before.keys().eq(after.keys()), "the same names: {:?}", after.keys());
    for (name, (bytes, inode)) in before {
        assert!(after[name].0 == *bytes, "{name} has other bytes");
        assert_ne!(after[name].1, *inode, "{name} was not rewritten");
    }
}

#[test]
fn files_of_lightrag_are_rewritten_byte_for_byte_as_new_files_also_after_a_key_came_and_went() {
    let store = store_of_lightrag();
    let before = files(&store);
    assert_eq!(before.len(), 9, "LightRAG's eight and the odd one");
    let daemon = store.serve_with(&["--file-format", "pretty"]);
    let told = store.ok(&["--json", "flush", "--rewrite"]);
    assert!(told.contains("\"rewritten\":9"), "{told}");
    let rewritten = files(&store);
    assert_rewritten_alike(&before, &rewritten);

    for name in before.keys() {
        let namespace = name.strip_prefix("kv_store_").and_then(|rest| rest.strip_suffix(".json")).expect("its name");
        store.ok(&["put", namespace, "a key that was never there", "{\"x\": [1.10, NaN, \"烏龍茶\"]}"]);
        store.ok(&["del", namespace, "a key that was never there"]);
    }
    daemon.kill();
    let daemon = store.serve_with(&["--file-format", "pretty"]);
    store.ok(&["flush", "--rewrite"]);
    assert_rewritten_alike(&rewritten, &files(&store));
    daemon.stop();
    assert!(files(&store).iter().all(|(name, (bytes, _))| before[name].0 == *bytes), "a clean stop changes nothing");
}

#[test]
fn what_other_programs_write_into_a_file_loads_as_documented() {
    let store = Store::new();
    let write = |namespace: &str, bytes: &[u8]| fs::write(store.file(namespace), bytes).expect("written");
    write("bom", b"\xef\xbb\xbf{\"a\": 1}");
    write("empty", b"");
    write("blank", b" \r\n\t\n");
    write("twice", br#"{"a": 1, "b": {"x": 1, "y": 2, "x": 3}, "a": 4}"#);
    write("escaped", br#"{"\u4eba": "\ud83d\ude00 \u00e9\u001f\/"}"#);
    write("lone", br#"{"\ud800k": "a\udfffb"}"#);
    let _daemon = store.serve();
    let scan = |namespace: &str| store.ok(&["scan", namespace]);
    assert_eq!(scan("bom"), "{\"key\":\"a\",\"value\":1}\n");
    assert_eq!(scan("empty") + &scan("blank"), "");
    assert_eq!(scan("twice"), "{\"key\":\"a\",\"value\":4}\n{\"key\":\"b\",\"value\":{\"x\":3,\"y\":2}}\n");
    assert_eq!(scan("escaped"), "{\"key\":\"人\",\"value\":\"😀 é\\u001f/\"}\n");
    assert_eq!(scan("lone"), "{\"key\":\"k\",\"value\":\"ab\"}\n");
}
