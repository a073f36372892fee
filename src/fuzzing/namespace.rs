//! The loader of namespace files, beside `serde_json`.

use crate::json::{FileFormat, FileWriter, LoadReport, canonical, load_object};

use super::meter;
use super::tree::Tree;

/// Takes the bytes for a namespace file.
///
/// # Panics
/// When a promise is broken.
pub fn namespace(bytes: &[u8]) {
    let (_, most) = meter::here(|| load_object(bytes, &mut |_, _| {}));
    // Where members repeat, the text is written twice, and each member is noted.
    let bound = 64 * bytes.len() + (64 << 10);
    assert!(most <= bound, "{} bytes took {most} bytes of memory", bytes.len());
    let mut records = Vec::new();
    let loaded = load_object(bytes, &mut |key, value| records.push((key.to_owned(), value.to_owned())));
    let by_serde = read_by_serde(bytes);
    let report = match (loaded, &by_serde) {
        (Ok(report), _) => report,
        (Err(error), other) => {
            assert!(error.offset <= bytes.len() && error.line > 0 && error.column > 0, "{error}");
            assert!(!error.reason.is_empty());
            return assert!(other.is_err(), "serde_json reads what is refused here: {error}");
        }
    };
    assert_eq!(report.records_seen, records.len() as u64);
    match by_serde {
        Ok(members) => {
            assert_eq!(report.surrogates_removed, 0);
            assert_eq!(as_serde_reads_them(&records), members.settled(), "serde_json reads something else");
        }
        Err(error) => {
            assert!(may_be_refused_by_serde(bytes, &error), "serde_json refuses what is loaded here: {error}");
        }
    }
    written_and_loaded_again(&records);
}

/// The members of the object in the file; a byte order mark is not `serde_json`'s to read, nor a file without text.
fn read_by_serde(bytes: &[u8]) -> Result<Tree, String> {
    let text = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    if text.iter().all(|byte| b" \t\r\n".contains(byte)) {
        return Ok(Tree::Members(Vec::new()));
    }
    match serde_json::from_slice(text) {
        Ok(members @ Tree::Members(_)) => Ok(members),
        Ok(_) => Err("not an object".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn as_serde_reads_them(records: &[(String, String)]) -> Tree {
    let value = |text: &str| serde_json::from_str(text).expect("serde_json has read this value in the file");
    let members = records.iter().map(|(key, text)| (key.clone(), value(text))).collect();
    Tree::Members(members).settled()
}

/// What Python writes and `serde_json` does not take: see `docs/storage.md`.
fn may_be_refused_by_serde(bytes: &[u8], error: &str) -> bool {
    let has = |word: &[u8]| bytes.windows(word.len()).any(|piece| piece == word);
    let of_python = has(b"NaN") || has(b"Infinity");
    let surrogate = [&b"\\uD"[..], b"\\ud"].iter().any(|escape| has(escape));
    let by_its_limits = error.starts_with("recursion limit exceeded") || error.starts_with("number out of range");
    of_python || surrogate || by_its_limits
}

fn written_and_loaded_again(records: &[(String, String)]) {
    for (_, value) in records {
        let again = canonical(value).expect("what was loaded is JSON");
        assert_eq!(again.text, *value, "what is canonical stays as it is");
    }
    for format in [FileFormat::Lines, FileFormat::Pretty] {
        let mut file = Vec::new();
        let mut writer = FileWriter::new(format);
        writer.begin(&mut file);
        for (key, value) in records {
            writer.record(&mut file, key, value);
        }
        writer.finish(&mut file);
        let mut again = Vec::new();
        let report = load_object(&file, &mut |key, value| again.push((key.to_owned(), value.to_owned())));
        let records_seen = records.len() as u64;
        assert_eq!(report, Ok(LoadReport { records_seen, ..LoadReport::default() }), "{format}");
        assert_eq!(again, records, "{format}");
    }
}
