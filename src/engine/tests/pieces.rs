//! A file read in pieces by several threads says what it says to one reader of the whole, wherever the borders of the pieces
//! fall; and what is not told by its pieces is read as a whole.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use commonhold_proto::{Durability, Seq};

use super::rig::{Rig, file, options, pair};
use crate::engine::disk::{Call, Disk, DiskFile, FailWith, Failure, How, SimDisk, Stat};
use crate::engine::journal::Fingerprint;
use crate::engine::map::{Map, Record};
use crate::engine::pieces::{Loaded, Plan, load_in_pieces};
use crate::json::{self, FileFormat, FileWriter, LoadReport};

const SEQ: Seq = Seq(7);

/// Every record, in order: ordinal, Seq, key and value.
type Records = Vec<(u64, Seq, String, String)>;

fn all(map: &Map) -> Records {
    let mut records = Vec::new();
    let _ = map.scan(None, usize::MAX, &mut |record| {
        assert!(map.get(record.key()).is_some_and(|found| found.value() == record.value()));
        records.push((record.ordinal(), record.seq(), record.key().to_owned(), record.value().to_owned()));
        std::ops::ControlFlow::Continue(())
    });
    records
}

fn as_a_whole(bytes: &[u8]) -> Option<(Records, LoadReport)> {
    let mut map = Map::new();
    let report = json::load_object(bytes, &mut |key, value| {
        let record = Record::new(key, value);
        record.set_seq(SEQ);
        map.put(record);
    });
    Some((all(&map), report.ok()?))
}

fn in_pieces(bytes: &[u8], plan: Plan) -> Option<(Records, LoadReport)> {
    let disk = SimDisk::new(1);
    disk.make_dirs("/");
    disk.write_file("/file", bytes);
    let file = disk.open(Path::new("/file"), &How::READ).unwrap();
    let done = AtomicU64::new(0);
    let Loaded { map, report, print } = load_in_pieces(&*file, bytes.len() as u64, SEQ, plan, &done)?;
    assert_eq!(print, Fingerprint::of(bytes));
    assert!(done.into_inner() + 1 >= bytes.len() as u64);
    Some((all(&map), report))
}

fn pieces_of(piece_bytes: usize, threads: usize) -> Plan {
    Plan { least_bytes: 0, piece_bytes, most_bytes: 1 << 20, threads }
}

/// Keys that must be escaped, that look like borders between records, that are there twice.
fn key(random: &mut fastrand::Rng) -> String {
    const PARTS: [&str; 9] = ["a", "\"", "\\", ",\n\"", ",\n  \"", "é", "中", "😀", "\u{1}"];
    (0..random.usize(..4)).map(|_| PARTS[random.usize(..PARTS.len())]).collect()
}

fn value(random: &mut fastrand::Rng, depth: usize) -> String {
    match random.usize(..if depth < 3 { 9 } else { 6 }) {
        0 => "1.10".to_owned(),
        1 => "[]".to_owned(),
        2 => "-Infinity".to_owned(),
        3 => r#""},\n\"\\\\\"{\\""#.to_owned(),
        4 => "\"\\u0001中😀\\\\\"".to_owned(),
        5 => format!("\"{}\"", "x".repeat(random.usize(..80))),
        6 => format!("[{},{}]", value(random, depth + 1), value(random, depth + 1)),
        _ => format!("{{\"a\":{},\"\\\"\":{}}}", value(random, depth + 1), value(random, depth + 1)),
    }
}

fn written(random: &mut fastrand::Rng, layout: FileFormat, records: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = FileWriter::new(layout);
    writer.begin(&mut bytes);
    for _ in 0..records {
        writer.record(&mut bytes, &key(random), &value(random, 0));
    }
    writer.finish(&mut bytes);
    bytes
}

#[test]
fn what_was_written_here_is_read_in_pieces_wherever_their_borders_fall() {
    for seed in 0..6 {
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for layout in [FileFormat::Lines, FileFormat::Pretty] {
            let records = 1 + random.usize(..12);
            let bytes = written(&mut random, layout, records);
            let whole = as_a_whole(&bytes).expect("it was written here");
            for piece_bytes in 1..=bytes.len() + 2 {
                let threads = 1 + piece_bytes % 4;
                let found = in_pieces(&bytes, pieces_of(piece_bytes, threads)).expect("it can be read in pieces");
                assert!(found == whole, "{layout} in pieces of {piece_bytes}: {found:?} and {whole:?}");
            }
        }
    }
}

#[test]
fn many_threads_keep_the_order_of_the_file_and_the_last_value_of_a_key() {
    let mut random = fastrand::Rng::with_seed(11);
    let bytes = written(&mut random, FileFormat::Lines, 20_000);
    let whole = as_a_whole(&bytes).expect("it was written here");
    assert!(whole.0.len() < 10_000, "many keys are there twice");
    for threads in 1..=8 {
        assert!(in_pieces(&bytes, pieces_of(700, threads)) == Some(whole.clone()), "{threads} threads");
    }
}

#[test]
fn a_border_within_a_value_proves_itself_wrong() {
    // Both as Python may write them: no indentation, and arrays of objects with their own two spaces.
    let texts = [
        "{\n\"a\": {\n\"x\": 1,\n\"y\": 2\n},\n\"b\": [\n{\n\"x\": 1\n},\n\"z\"\n],\n\"c\": 3\n}",
        "{\n  \"a\": {\"x\": 1,\n  \"y\": [1,\n  \"z\",\n  \"}\"]},\n  \"b\": [\"\\\"\",\n  \"c\"],\n  \"d\": 1\n}\n",
        "{\n\"\\ud800\": \"\\udc00\", \"a\":{\"x\":1,\"x\":2},\n\"a\" : 1 ,\n\"\\u0061\":2,\"b\":1}  ",
    ];
    for text in texts {
        let whole = as_a_whole(text.as_bytes());
        assert!(whole.is_some());
        let (mut told, mut given_up) = (0, 0);
        for piece_bytes in 1..=text.len() + 2 {
            for threads in [1, 3] {
                match in_pieces(text.as_bytes(), pieces_of(piece_bytes, threads)) {
                    None => given_up += 1,
                    found => {
                        assert!(found == whole, "in pieces of {piece_bytes}");
                        told += 1;
                    }
                }
            }
        }
        assert!(told > 0, "as one piece it is read at least");
        assert_eq!(given_up > 0, !text.contains("ud800"), "{given_up} times");
    }
}

#[test]
fn broken_files_are_never_told_by_their_pieces() {
    let mut random = fastrand::Rng::with_seed(5);
    let (mut broken, mut whole) = (0, 0);
    for round in 0..1_500 {
        let layout = if round % 2 == 0 { FileFormat::Lines } else { FileFormat::Pretty };
        let records = 1 + random.usize(..8);
        let mut bytes = written(&mut random, layout, records);
        match random.usize(..4) {
            0 => bytes.truncate(random.usize(..bytes.len())),
            1 => bytes.insert(random.usize(..bytes.len()), b"\",\\}{\n\xff "[random.usize(..8)]),
            2 => drop(bytes.remove(random.usize(..bytes.len()))),
            _ => bytes.extend_from_slice([&b"}"[..], b",", b"{\n\"a\":1}", b"\n \t"][random.usize(..4)]),
        }
        let expected = as_a_whole(&bytes);
        let plan = pieces_of(1 + random.usize(..40), 1 + random.usize(..3));
        let found = in_pieces(&bytes, plan);
        assert!(found.is_none() || found == expected, "round {round}, {plan:?}: {}", bytes.escape_ascii());
        *if expected.is_none() { &mut broken } else { &mut whole } += 1;
    }
    assert!(broken > 500 && whole > 100, "{broken} broken, {whole} whole");
}

#[test]
fn hostile_files_are_left_to_the_reader_of_the_whole() {
    let plan = Plan { most_bytes: 4_096, ..pieces_of(256, 2) };
    let giant = format!("{{\n\"a\":\"{}\",\n\"b\":1\n}}\n", "x".repeat(5_000));
    let deep = format!("{{\n\"a\":{}{}\n}}\n", "[".repeat(1_500), "]".repeat(1_500));
    let one_line = format!("{{\"a\":[{}0]}}", "0,".repeat(3_000));
    for text in [giant.as_str(), &deep, &one_line, "", "{}", "{\n}", "{\n\"", "\u{feff}{\n\"a\":1\n}"] {
        assert!(in_pieces(text.as_bytes(), plan).is_none(), "{}", &text[..text.len().min(20)]);
    }
    let long = format!("{{\n\"a\":\"{}\",\n\"b\":1\n}}\n", "x".repeat(3_000));
    assert!(in_pieces(long.as_bytes(), plan) == as_a_whole(long.as_bytes()), "what is only long is read");
}

/// A file that is large enough to be read in pieces.
fn large(mark: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = FileWriter::new(FileFormat::Lines);
    writer.begin(&mut bytes);
    for number in 0..12_000 {
        writer.record(&mut bytes, &format!("key-{number:05}"), &format!("\"{mark}{}\"", "x".repeat(100)));
    }
    writer.finish(&mut bytes);
    assert!(bytes.len() as u64 > Plan::usual().least_bytes);
    bytes
}

#[test]
fn a_large_file_is_known_by_its_bytes_and_not_by_its_size() {
    let mut rig = Rig::new(options(Durability::Buffered));
    rig.disk.write_file(file("a"), &large("a"));
    rig.try_open().unwrap();
    rig.put("a", "new", "1");
    rig.flush("a").unwrap();
    let cut = rig.table("a").covered();
    let own = rig.disk.read_file(file("a"));
    let mut rig = rig.killed();
    assert_eq!(rig.table("a").covered(), cut);
    assert_eq!(rig.table("a").len(), 12_001);
    assert_eq!(rig.table("a").get("key-00000").unwrap().seq(), cut);

    // Another program's, of the same size: taken as it is, with a Seq of its own.
    let mut other = large("b");
    other.resize(own.len(), b' ');
    rig = rig.killed_and_closed();
    rig.disk.write_file(file("a"), &other);
    rig.try_open().unwrap();
    let table = rig.table("a");
    let first = table.get("key-00000").unwrap();
    assert_eq!((table.len(), first.value().as_bytes()[1], first.seq()), (12_000, b'b', table.covered()));
    assert!(table.covered() > cut);
    drop(table);

    // While something waits for the right one, it closes the namespace.
    rig = rig.killed_and_closed();
    rig.disk.write_file(file("a"), &own);
    rig.try_open().unwrap();
    rig.put("a", "late", "1");
    rig = rig.killed_and_closed();
    rig.disk.write_file(file("a"), &other);
    rig.try_open().unwrap();
    assert!(!rig.closed("a").contains("line"), "{}", rig.closed("a"));
    rig = rig.killed_and_closed();
    rig.disk.write_file(file("a"), &own);
    rig.try_open().unwrap();
    let records = all(&rig.table("a").map.read());
    let last: Vec<_> = records[12_000..].iter().map(|(_, _, key, value)| pair(key, value)).collect();
    assert_eq!(last, [pair("new", "1"), pair("late", "1")]);
}

#[test]
fn a_large_file_that_is_torn_or_cannot_be_read_says_so_as_a_small_one_does() {
    let mut bytes = large("a");
    let cut = bytes.len() - 50;
    bytes.truncate(cut);
    let rig = Rig::new(options(Durability::Buffered));
    rig.disk.write_file(file("a"), &bytes);
    let rig = rig.opened();
    assert!(rig.closed("a").contains("line 12001, column "), "{}", rig.closed("a"));
    assert!(rig.closed("a").contains(&format!("(byte {cut})")), "{}", rig.closed("a"));

    let rig = Rig::new(options(Durability::Buffered));
    rig.disk.write_file(file("a"), &large("a"));
    let rig = rig.opened();
    rig.disk.fail(Failure::nth(3, FailWith::Io).of(Call::Read).on("kv_store_a.json").for_good());
    let error = rig.store().namespace(&super::rig::place("a")).unwrap_err();
    assert!(error.to_string().contains("kv_store_a.json"), "{error}");
    rig.disk.mend();
    assert_eq!(rig.table("a").len(), 12_000, "the next one who asks has it");
}

#[test]
fn progress_of_a_large_file_rises_to_its_size() {
    let bytes = large("a");
    let disk = SimDisk::new(1);
    disk.make_dirs("/");
    disk.write_file("/file", &bytes);
    let file = disk.open(Path::new("/file"), &How::READ).unwrap();
    let done = AtomicU64::new(0);
    assert!(load_in_pieces(&*file, bytes.len() as u64, SEQ, Plan::usual(), &done).is_some());
    assert!(bytes.len() as u64 - done.load(Ordering::Relaxed) <= 1);
}

/// A file that another program begins to write anew after so many reads.
#[derive(Debug)]
struct Emptied {
    file: Box<dyn DiskFile>,
    reads: AtomicU64,
    after: u64,
    then: &'static [u8],
}

impl DiskFile for Emptied {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
        if self.reads.fetch_add(1, Ordering::Relaxed) == self.after {
            self.truncate(0)?;
            self.write_at(self.then, 0)?;
        }
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> std::io::Result<()> {
        self.file.write_at(bytes, offset)
    }

    fn allocate(&self, bytes: u64) -> std::io::Result<()> {
        self.file.allocate(bytes)
    }

    fn truncate(&self, bytes: u64) -> std::io::Result<()> {
        self.file.truncate(bytes)
    }

    fn sync(&self) -> std::io::Result<()> {
        self.file.sync()
    }

    fn stat(&self) -> std::io::Result<Stat> {
        self.file.stat()
    }
}

#[test]
fn a_file_that_another_program_begins_to_write_anew_is_never_told_by_its_pieces() {
    let mut random = fastrand::Rng::with_seed(3);
    let bytes = written(&mut random, FileFormat::Lines, 400);
    let mut in_time = 0;
    for (after, then) in (0..200).flat_map(|after| [&b""[..], b"{", b"x\"a\":1}"].map(|then| (after, then))) {
        let disk = SimDisk::new(1);
        disk.make_dirs("/");
        disk.write_file("/file", &bytes);
        let file = disk.open(Path::new("/file"), &How::WRITE).unwrap();
        let file = Emptied { file, reads: AtomicU64::new(0), after, then };
        let loaded = load_in_pieces(&file, bytes.len() as u64, SEQ, pieces_of(200, 2), &AtomicU64::new(0));
        if file.reads.into_inner() > after {
            assert!(loaded.is_none(), "emptied before read {after}");
            in_time += 1;
        }
    }
    assert!(in_time > 100, "{in_time}");
}
