//! How fast JSON text is read and written: `cargo bench --bench json_load`.
//!
//! `load` reads the real files of `tests/data/lightrag_store`, their records repeated under new keys to about 100 MB, each
//! kind of file for itself and all together; making the values canonical is part of it, storing them is not.
//! `canonical` takes a value of a request, of 830 bytes.

use std::hint::black_box;
use std::path::Path;

use commonhold::json::{FileFormat, FileWriter, canonical, load_object, pretty};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const BYTES: usize = 100_000_000;

fn records(names: &[&str]) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/lightrag_store");
    let mut records = Vec::new();
    for name in names {
        let bytes = std::fs::read(folder.join(format!("kv_store_{name}.json"))).expect("the store is part of the tree");
        load_object(&bytes, &mut |key, value| records.push((key.to_owned(), value.to_owned()))).expect("it loads");
    }
    records
}

fn repeated(records: &[(String, String)], format: FileFormat) -> Vec<u8> {
    let mut file = Vec::with_capacity(BYTES + BYTES / 20);
    let mut writer = FileWriter::new(format);
    writer.begin(&mut file);
    for round in 0.. {
        if file.len() >= BYTES {
            break;
        }
        for (key, value) in records {
            writer.record(&mut file, &format!("{key}-{round}"), value);
        }
    }
    writer.finish(&mut file);
    file
}

const ALL: [&str; 8] = [
    "doc_status",
    "entity_chunks",
    "full_docs",
    "full_entities",
    "full_relations",
    "llm_response_cache",
    "relation_chunks",
    "text_chunks",
];

fn load(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("load");
    group.sample_size(10);
    let mut measure = |name: &str, names: &[&str], format: FileFormat| {
        let file = repeated(&records(names), format);
        group.throughput(Throughput::Bytes(file.len() as u64));
        group.bench_function(BenchmarkId::new(format.to_string(), name), |bencher| {
            bencher.iter(|| {
                load_object(black_box(&file), &mut |key, value| {
                    black_box((key, value));
                })
            });
        });
    };
    measure("all", &ALL, FileFormat::Pretty);
    measure("all", &ALL, FileFormat::Lines);
    for name in ALL {
        measure(name, &[name], FileFormat::Pretty);
    }
}

fn write(criterion: &mut Criterion) {
    let records = records(&ALL);
    let mut group = criterion.benchmark_group("write");
    for format in [FileFormat::Pretty, FileFormat::Lines] {
        let mut file = Vec::new();
        let mut write = || {
            let mut writer = FileWriter::new(format);
            file.clear();
            writer.begin(&mut file);
            for (key, value) in &records {
                writer.record(&mut file, key, value);
            }
            writer.finish(&mut file);
            file.len()
        };
        group.throughput(Throughput::Bytes(write() as u64));
        group.bench_function(format.to_string(), |bencher| bencher.iter(&mut write));
    }
}

fn one_value(criterion: &mut Criterion) {
    let record = records(&["text_chunks"]).swap_remove(0).1;
    let (start, end) = record.split_once("\"content\":\"").expect("a text chunk has its content");
    let end = &end[end.find("\",\"").expect("more follows the content")..];
    let content = "And the earth was without form, and void; and darkness was upon the face of the deep.\\n".repeat(10);
    let fits = 830 - start.len() - end.len() - "\"content\":\"".len();
    let value = format!("{start}\"content\":\"{}{end}", &content[..fits]);
    let indented = pretty(&value, 2);
    let mut group = criterion.benchmark_group("canonical");
    for (name, text) in [("830 bytes, canonical already", &value), ("the same, indented", &indented)] {
        group.throughput(Throughput::Bytes(text.len() as u64));
        let length = || canonical(black_box(text)).expect("it is JSON").text.len();
        group.bench_function(name, |bencher| bencher.iter(length));
    }
}

/// Objects that would be slow if duplicates were looked for in the obvious way.
fn many_keys(criterion: &mut Criterion) {
    let object = |keys: &mut dyn Iterator<Item = u32>| {
        let members: Vec<String> = keys.map(|key| format!("\"{key}\":{key}")).collect();
        format!("{{{}}}", members.join(","))
    };
    let different = object(&mut (0..1_000_000));
    let twice = object(&mut (0..500_000).chain(0..500_000));
    let equal = object(&mut (0..1_000_000).map(|_| 1));
    let mut group = criterion.benchmark_group("a million keys");
    group.sample_size(10);
    for (name, text) in [("all different", &different), ("each twice", &twice), ("all equal", &equal)] {
        group.throughput(Throughput::Elements(1_000_000));
        let length = || canonical(black_box(text)).expect("it is JSON").text.len();
        group.bench_function(name, |bencher| bencher.iter(length));
    }
}

criterion_group!(benches, load, write, one_value, many_keys);
criterion_main!(benches);
