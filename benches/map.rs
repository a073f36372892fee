//! What the map costs an operation, at a thousand, a hundred thousand and a million records of 830 bytes:
//! `cargo bench --bench map`. A million of them take about 900 MB.
#![expect(clippy::cast_precision_loss, reason = "counts of records, far below 2^53")]

use std::hint::black_box;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use commonhold::engine::map::{Map, Record};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const VALUE_BYTES: usize = 830;
/// Records made ready before the clock runs.
const BATCH: usize = 1_000;

fn key(number: usize) -> String {
    format!("chunk-{number:08}")
}

fn records(numbers: impl Iterator<Item = usize>, value: &str) -> Vec<Record> {
    numbers.map(|number| Record::new(&key(number), value)).collect()
}

/// Puts batches into `map` until `wanted` records have been put; making them ready is not timed.
fn time_puts(wanted: u64, map: &mut Map, mut batch: impl FnMut(&mut Map) -> Vec<Record>) -> Duration {
    let (mut spent, mut done) = (Duration::ZERO, 0);
    while done < wanted as usize {
        let batch = batch(map);
        done += batch.len();
        let start = Instant::now();
        for record in batch {
            map.put(record);
        }
        spent += start.elapsed();
    }
    // Whole batches were timed; criterion divides by what it asked for.
    spent.mul_f64(wanted as f64 / done as f64)
}

fn map(criterion: &mut Criterion) {
    let value = format!("\"{}\"", "x".repeat(VALUE_BYTES - 2));
    criterion.bench_function("record new", |b| b.iter(|| Record::new(black_box("chunk-00000001"), black_box(&value))));

    for size in [1_000, 100_000, 1_000_000] {
        let mut random = fastrand::Rng::with_seed(1);
        let mut map = Map::new();
        for number in 0..size {
            map.put(Record::new(&key(number), &value));
        }
        let mut group = criterion.benchmark_group(format!("map of {size}"));
        group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2)).sample_size(20);

        let keys: Vec<String> = (0..65_536).map(|_| key(random.usize(0..size))).collect();
        let mut next = 0;
        group.bench_function("get", |b| {
            b.iter(|| {
                next = (next + 1) % keys.len();
                black_box(map.get(&keys[next]).map(|record| record.value().len()))
            });
        });
        group.bench_function("put replace", |b| {
            let mut random = fastrand::Rng::with_seed(2);
            b.iter_custom(|wanted| {
                time_puts(wanted, &mut map, |_| records((0..BATCH).map(|_| random.usize(0..size)), &value))
            });
        });
        group.bench_function("put new", |b| {
            // The map grows from its size to twice that and begins again, so that all splits are in the count.
            let mut grown = Map::new();
            b.iter_custom(|wanted| {
                time_puts(wanted, &mut grown, |grown| {
                    if grown.len() < size || grown.len() >= 2 * size {
                        *grown = Map::new();
                        for record in records(0..size, "1") {
                            grown.put(record);
                        }
                    }
                    records(grown.len()..grown.len() + BATCH, "1")
                })
            });
        });
        group.throughput(Throughput::Elements(size as u64));
        group.bench_function("scan", |b| {
            b.iter(|| {
                let mut bytes = 0;
                map.scan(None, usize::MAX, &mut |record| {
                    bytes += record.value().len();
                    ControlFlow::Continue(())
                });
                bytes
            });
        });
        group.bench_function("view", |b| {
            b.iter(|| {
                let view = map.view();
                let mut slice = Vec::with_capacity(256);
                while view.next(&map, 256, &mut slice) {
                    slice.clear();
                }
            });
        });
        group.finish();
    }
}

criterion_group!(benches, map);
criterion_main!(benches);
