//! The targets on any toolchain: each is given its corpus, and then mutations of that for a while.
//!
//! `COMMONHOLD_FUZZ_SECONDS` says for how long (2), `COMMONHOLD_FUZZ_SEED` where the mutations begin: what a run began with
//! is printed, and an input that breaks a promise is kept in a file that is named.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::engine::HostileJournal;

use super::mutate::mutated;
use super::seeds::{Seed, corpus};

/// No input takes so long; who waits for one has found a target that hangs.
const HANGS: u64 = 60;

/// Set for the process in which the session target runs alone, so that what it counts is its own.
const ALONE: &str = "COMMONHOLD_FUZZ_ALONE";

fn seconds() -> Duration {
    let told = std::env::var("COMMONHOLD_FUZZ_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs_f64(told.unwrap_or(2.0))
}

fn first_seed() -> u64 {
    let told = std::env::var("COMMONHOLD_FUZZ_SEED").ok().and_then(|seed| seed.parse().ok());
    told.unwrap_or_else(|| fastrand::u64(..1 << 48))
}

/// Ends the whole run, with the seed, when one input takes too long: a thread that hangs cannot be told to fail.
fn watch(target: &'static str, input: &Arc<AtomicU64>) {
    let input: Weak<AtomicU64> = Arc::downgrade(input);
    std::thread::spawn(move || {
        let (mut last, mut since) = (u64::MAX, Instant::now());
        while let Some(now) = input.upgrade().map(|input| input.load(Ordering::Relaxed)) {
            if now != last {
                (last, since) = (now, Instant::now());
            }
            if since.elapsed() > Duration::from_secs(HANGS) {
                eprintln!("{target}: the input of seed {now} takes longer than {HANGS} s");
                std::process::abort();
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    });
}

fn give(target: &str, body: fn(&[u8]), name: &str, bytes: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| body(bytes))).is_err() {
        let file = std::env::temp_dir().join(format!("commonhold-fuzz-{target}-{name}"));
        std::fs::write(&file, bytes).expect("the temporary directory can be written");
        panic!("{target}: {name} breaks a promise; its {} bytes are in {}", bytes.len(), file.display());
    }
}

fn replay(target: &'static str, body: fn(&[u8])) {
    assert!(super::is_counting(), "the tests count memory");
    let corpus = corpus(target);
    assert!(corpus.len() >= 8, "the corpus of {target} has {} files", corpus.len());
    for (name, bytes) in &corpus {
        give(target, body, name, bytes);
    }
    let first = first_seed();
    println!("{target}: COMMONHOLD_FUZZ_SEED={first}");
    let (began, mut seed) = (Instant::now(), first);
    let input = Arc::new(AtomicU64::new(seed));
    watch(target, &input);
    while began.elapsed() < seconds() {
        input.store(seed, Ordering::Relaxed);
        give(target, body, &seed.to_string(), &mutated(&mut fastrand::Rng::with_seed(seed), target, &corpus));
        seed += 1;
    }
    println!("{target}: {} files and {} mutations hold", corpus.len(), seed - first);
}

#[test]
fn frames_of_any_bytes_are_cut_the_same_way_however_they_arrive() {
    replay("frame", super::frame);
}

#[test]
fn messages_of_any_bytes_are_one_message_or_none_in_proportionate_memory() {
    replay("message", super::message);
}

#[test]
fn a_journal_of_any_bytes_counts_only_as_far_as_its_checksums_are_right() {
    replay("journal", super::journal);
}

#[test]
fn a_namespace_file_of_any_bytes_is_read_as_serde_json_reads_it() {
    replay("namespace", super::namespace);
}

#[test]
fn a_session_of_any_bytes_answers_or_ends_and_others_are_served() {
    if std::env::var_os(ALONE).is_some() {
        // What a thread of the daemon does wrong must not be taken for a session that has ended.
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            hook(panic);
            if std::thread::current().name() != Some("main") && !panic_is_of_the_target(panic) {
                std::process::abort();
            }
        }));
        replay("session", super::session);
        return super::end_session_host();
    }
    let test = "fuzzing::replay::a_session_of_any_bytes_answers_or_ends_and_others_are_served";
    let run = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(ALONE, "1")
        .output()
        .expect("it runs");
    let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    print!("{out}");
    assert!(run.status.success() && out.contains("mutations hold"), "{}\n{out}\n{err}", run.status);
}

/// Whether the target itself has panicked, on the thread of the test.
fn panic_is_of_the_target(panic: &std::panic::PanicHookInfo<'_>) -> bool {
    panic.location().is_some_and(|place| place.file().contains("fuzzing"))
}

#[test]
fn a_journal_that_was_changed_anywhere_gives_the_beginning_of_what_it_gave_or_an_error() {
    let first = first_seed();
    println!("journal: COMMONHOLD_FUZZ_SEED={first}");
    let dir = std::path::Path::new("/store");
    // Whole ones that are taken as they are, and no part of one that says the same in other words.
    let whole: Vec<Seed> = corpus("journal")
        .into_iter()
        .filter_map(|(name, bytes)| Some((name, bytes.strip_prefix(&[0])?.to_vec())))
        .collect();
    let (began, mut changed, mut shorter) = (Instant::now(), 0, 0);
    while began.elapsed() < seconds() {
        let mut random = fastrand::Rng::with_seed(first + changed);
        let (name, bytes) = &whole[random.usize(..whole.len())];
        let mut bytes = bytes.clone();
        let before = HostileJournal::new(dir, &bytes);
        let told = before.read().expect("the corpus holds good journals");
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..bytes.len());
            match random.u8(..3) {
                0 => bytes[at] ^= 1 << random.u8(..8),
                1 => bytes[at] = random.u8(..),
                _ => bytes.truncate(at.max(1)),
            }
        }
        changed += 1;
        let after = HostileJournal::new(dir, &bytes);
        // Here a segment's name follows its bytes, which is not what a disk does to it.
        if after.segments() != before.segments() {
            continue;
        }
        if let Ok(rest) = after.read() {
            assert!(
                told.starts_with(&rest),
                "seed {}, {name}: {rest:#?} is no beginning of {told:#?}",
                first + changed
            );
            shorter += u64::from(rest.len() < told.len());
        }
    }
    println!("{changed} changed journals, of which {shorter} are read up to the change");
    assert!(shorter > 0, "a test of both outcomes");
}
