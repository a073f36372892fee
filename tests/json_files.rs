//! Namespace files between Python and Commonhold: what Python's `json` wrote is loaded and rewritten byte for byte, and
//! what Commonhold writes is read by Python as the same object.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use commonhold::json::{FileFormat, FileWriter, LoadReport, load_object};

fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(path)
}

fn python(arguments: &[&str]) -> String {
    let run = Command::new("python3").args(arguments).output().expect("the tests need python3");
    assert!(run.status.success(), "python3 said: {}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8(run.stdout).unwrap()
}

fn records(bytes: &[u8]) -> (Vec<(String, String)>, LoadReport) {
    let mut records = Vec::new();
    let report = load_object(bytes, &mut |key, value| records.push((key.to_owned(), value.to_owned()))).unwrap();
    assert_eq!(report.records_seen, records.len() as u64);
    (records, report)
}

fn written(records: &[(String, String)], format: FileFormat) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = FileWriter::new(format);
    writer.begin(&mut bytes);
    for (key, value) in records {
        writer.record(&mut bytes, key, value);
    }
    writer.finish(&mut bytes);
    bytes
}

/// Compares two files as Python reads them: NaN equals NaN, 1 is not 1.0, order counts.
const SAME_OBJECT: &str = r"
import json, sys
sys.setrecursionlimit(100_000)
sys.set_int_max_str_digits(0) if hasattr(sys, 'set_int_max_str_digits') else None
def read(path):
    with open(path, encoding='utf-8') as file:
        return json.load(file)
one, other = (repr(read(path)) for path in sys.argv[1:])
assert one == other and len(one) > 2
";

fn assert_rewritten_byte_for_byte(file: &Path) {
    let original = fs::read(file).unwrap();
    let (records, report) = records(&original);
    assert_eq!((report.surrogates_removed, report.duplicate_keys_inside), (0, 0));
    let pretty = written(&records, FileFormat::Pretty);
    let differs = original.iter().zip(&pretty).position(|(one, other)| one != other);
    assert_eq!(differs, None, "{} is not what it was", file.display());
    assert_eq!(original.len(), pretty.len());

    let folder = tempfile::tempdir().unwrap();
    let lines = folder.path().join("lines.json");
    fs::write(&lines, written(&records, FileFormat::Lines)).unwrap();
    python(&["-c", SAME_OBJECT, file.to_str().unwrap(), lines.to_str().unwrap()]);
    assert_eq!(self::records(&fs::read(&lines).unwrap()).0, records, "read back from lines");
}

#[test]
fn files_of_a_real_store_are_rewritten_byte_for_byte() {
    let files: Vec<_> = fs::read_dir(data("lightrag_store")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 8);
    for file in files {
        assert_rewritten_byte_for_byte(&file);
    }
}

#[test]
fn everything_json_dump_can_write_is_rewritten_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("odd.json");
    python(&[data("odd.py").to_str().unwrap(), file.to_str().unwrap()]);
    assert_rewritten_byte_for_byte(&file);
}

#[test]
fn an_empty_namespace_is_written_as_the_formats_say() {
    assert_eq!(written(&[], FileFormat::Lines), b"{}\n");
    assert_eq!(written(&[], FileFormat::Pretty), b"{}");
}

/// Loads a file as Python's storage does, and prints what a namespace file with its content would be. A lone surrogate
/// is removed, as the storage's sanitiser does.
const READ_BY_PYTHON: &str = r"
import json, re, sys
def clean(x):
    if isinstance(x, str): return re.sub('[\ud800-\udfff]', '', x)
    if isinstance(x, list): return [clean(y) for y in x]
    if isinstance(x, dict): return {clean(k): clean(v) for k, v in x.items()}
    return x
with open(sys.argv[1], encoding='utf-8-sig') as file:
    text = file.read()
sys.stdout.reconfigure(encoding='utf-8', newline='\n')
json.dump(clean(json.loads(text)) if text.strip() else {}, sys.stdout, indent=2, ensure_ascii=False)
";

#[track_caller]
fn assert_read_as_by_python(bytes: &[u8]) -> LoadReport {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file.json");
    fs::write(&file, bytes).unwrap();
    let by_python = python(&["-c", READ_BY_PYTHON, file.to_str().unwrap()]);
    let (all, report) = records(bytes);
    let mut ours: Vec<(String, String)> = Vec::new();
    for (key, value) in all {
        match ours.iter_mut().find(|(other, _)| *other == key) {
            Some(first) => first.1 = value,
            None => ours.push((key, value)),
        }
    }
    assert_eq!(String::from_utf8(written(&ours, FileFormat::Pretty)).unwrap(), by_python);
    report
}

#[test]
fn a_byte_order_mark_is_passed_over() {
    assert_read_as_by_python(b"\xef\xbb\xbf{\"a\": 1}");
    assert_read_as_by_python(b"\xef\xbb\xbf\n { }\n");
}

#[test]
fn an_empty_or_blank_file_is_an_empty_namespace() {
    for blank in [&b""[..], b" ", b"\n", b"\r\n\t  \n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"] {
        assert_read_as_by_python(blank);
    }
}

#[test]
fn escaped_text_is_read_as_python_reads_it() {
    let escaped = r#"{"\u4e2d\u6587": "\u6625\u7720\u00e9\u00E9\u00Ff", "\ud83d\ude00": ["\uD83D\uDE00", "\/\b\f\n\r\t\"\\"],
        "\u0000\u001F\u001f\u0022\u005c\u002f": "\u0008\u0009\u000a\u000b\u000c\u000d\u007f\u2028\ufffe\uffff\ufeff"}"#;
    assert_eq!(assert_read_as_by_python(escaped.as_bytes()).surrogates_removed, 0);
    let store = data("lightrag_store/kv_store_text_chunks.json");
    let ascii = python(&[
        "-c",
        "import json,sys;print(json.dumps(json.load(open(sys.argv[1], encoding='utf-8'))))",
        store.to_str().unwrap(),
    ]);
    assert!(ascii.is_ascii());
    assert_read_as_by_python(ascii.as_bytes());
}

#[test]
fn lone_surrogates_are_removed_and_counted() {
    let report = assert_read_as_by_python(
        br#"{"a\ud800": "\udc00x\ud83dy\ud83d\ud83d\ude00", "b": {"\udfff": ["\ud800\\ud800"]}}"#,
    );
    assert_eq!(report.surrogates_removed, 6);
    // The second key becomes the first one when its surrogate is gone.
    let report = assert_read_as_by_python(br#"{"a": {"k": 1, "z": 2, "k\ud800": 3}, "x": 0, "a\udc00": {"k": 9}}"#);
    assert_eq!((report.surrogates_removed, report.duplicate_keys_inside), (2, 1));
}

#[test]
fn the_last_of_duplicate_keys_takes_the_place_of_the_first() {
    let report = assert_read_as_by_python(
        br#"{"k": 1, "in": {"a": {"x": 1, "y": 2, "x": 3}, "b": [{"\u0061": 1, "a": 2}], "a": {"p": 0, "q": [1], "p": {"r": 1, "r": 2}}, "c": 0},
            "k": 2, "\u006b": [3]}"#,
    );
    assert_eq!(report.duplicate_keys_inside, 5);
}
