//! Eight watchers while daemons are killed, stopped and started, watchers come and go, and the journal lets go of what they have not
//! read: each sees exactly the writes, in order, and each gap is told as what it is.
//!
//! `COMMONHOLD_WATCH_SECONDS` says how long (6), `COMMONHOLD_WATCH_SEED` with which seed (printed).

use std::collections::HashSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use commonhold::blocking::{Change, Client, ConnectOptions, Error, Fault, Seq, WatchEvent, WatchOptions};

use crate::checker::{Chapter, End, Write, Writes, check};

const PATIENCE: Duration = Duration::from_mins(1);
/// What the watchers watch, and where each write leaves that it was done.
const WATCHED: &str = "watched";
const LOG: &str = "log";

/// Numbers that look random and are the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn serve(dir: &Path, durability: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_commonhold"))
        .arg("serve")
        .arg(dir)
        .args(["--quiet", "--journal-limit", "1M", "--durability", durability])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary was built with this test")
}

fn connect(dir: &Path) -> Client {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match Client::connect_with(dir, ConnectOptions::new().reconnect_for(PATIENCE).timeout(Some(PATIENCE))) {
            Ok(client) => return client,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// A write by its number, done by whoever has it: always one that changes something.
fn changes_of(id: u64) -> Vec<(Option<String>, String)> {
    let key = format!("k{}", id % 23);
    let mut changes = Vec::new();
    if id.is_multiple_of(50) {
        changes.push((None, "clear".to_owned()));
    }
    changes.push((Some(key.clone()), format!("{key}={id}")));
    if id.is_multiple_of(7) {
        let also = format!("also {key}");
        changes.push((Some(also.clone()), format!("{also}={id}")));
    }
    changes
}

fn write(client: &Client, id: u64, padding: &str) -> Result<Seq, Error> {
    let (watched, log) = (client.namespace(WATCHED)?, client.namespace(LOG)?);
    let mut batch = commonhold::blocking::Batch::new();
    batch = batch.put(&log, &id.to_string(), &true)?;
    for (key, word) in changes_of(id) {
        batch = match key {
            None => batch.clear(&watched)?,
            Some(key) => batch.put(&watched, &key, &format!("{word}|{padding}"))?,
        };
    }
    client.write(&batch).map(|written| written.seq)
}

fn word(change: &Change) -> String {
    match change {
        Change::Put { value, .. } => value.trim_matches('"').split('|').next().unwrap_or_default().to_owned(),
        Change::Delete { key } => format!("-{key}"),
        Change::Clear => "clear".to_owned(),
        Change::Drop => "drop".to_owned(),
    }
}

/// What all of them share.
struct Ground<'a> {
    dir: &'a Path,
    /// Acknowledged: its number, its Seq and the daemon's start.
    written: Mutex<Vec<(u64, u64, u64)>>,
    writers_end: AtomicBool,
    /// Somebody has given up.
    failed: AtomicBool,
    /// The last write of all, once there is none to come.
    last: AtomicU64,
}

impl Ground<'_> {
    fn write_on(&self, writer: u64, mut dice: Dice) {
        let client = connect(self.dir);
        let padding = "x".repeat(30_000);
        let mut id = writer;
        while !self.writers_end.load(Ordering::SeqCst) {
            id += 4;
            let length = if dice.roll(3) == 0 { padding.len() } else { 100 };
            let seq = loop {
                match write(&client, id, &padding[..length]) {
                    Ok(seq) => break seq,
                    // None of these was done.
                    Err(Error::Fault(Fault::Stopping) | Error::NoDaemon { .. } | Error::Lost { .. }) => {}
                    Err(error) => {
                        self.failed.store(true, Ordering::SeqCst);
                        panic!("write {id}: {error}");
                    }
                }
            };
            // The same client has the answer of the daemon that it is connected to.
            self.written.lock().unwrap().push((id, seq.0, seq.0 >> 32));
        }
    }

    /// Watches until all is over, comes and goes, and tells what it saw.
    fn watch_on(&self, number: u64, prefix: &str, first: u64, mut dice: Dice) -> Vec<Chapter> {
        let mut story = Vec::new();
        let client = connect(self.dir);
        let watched = client.namespace(WATCHED).unwrap();
        let mut after = if number.is_multiple_of(2) { first } else { current(&client) };
        'chapters: loop {
            let mut watch = watched.watch(WatchOptions::new().prefix(prefix).after(Seq(after)));
            let mut chapter = Chapter { after, told: Vec::new(), end: End::Left };
            // Some leave soon, some stay; some are slow.
            let stays = Instant::now() + Duration::from_millis(50 + dice.roll(if number < 4 { 600 } else { 4_000 }));
            loop {
                assert!(!self.failed.load(Ordering::SeqCst), "somebody else has failed");
                let last = self.last.load(Ordering::SeqCst);
                let is_told = last > 0 && watch.through().is_some_and(|through| through.0 >= last);
                match watch.next_timeout(Duration::from_millis(20)) {
                    Ok(Some(WatchEvent::Changes(set))) => {
                        let words: Vec<String> = set.changes.iter().map(word).collect();
                        chapter.told.push((set.seq.0, words.join(" ")));
                        if number == 3 && dice.roll(40) == 0 || number == 6 && dice.roll(200) == 0 {
                            thread::sleep(Duration::from_millis(dice.roll(1_500)));
                        }
                    }
                    Ok(Some(WatchEvent::Lagged { lost_from, next })) => {
                        chapter.end = End::Lagged { lost_from: lost_from.0, next: next.0 };
                        after = next.0 - 1;
                        story.push(chapter);
                        chapter = Chapter { after, told: Vec::new(), end: End::Left };
                    }
                    Ok(None) if is_told => {
                        chapter.end = End::Over;
                        story.push(chapter);
                        return story;
                    }
                    Err(Error::Fault(Fault::Gone { oldest })) => chapter.end = End::Gone { oldest: oldest.0 },
                    Err(Error::Fault(Fault::Rewound { to })) => chapter.end = End::Rewound { to: to.0 },
                    // Nothing for now, or the daemon is away for a moment.
                    Ok(None)
                    | Err(
                        Error::NoDaemon { .. }
                        | Error::Lost { .. }
                        | Error::BrokeOff { .. }
                        | Error::Unreachable { .. },
                    ) => {}
                    Err(error) => panic!("watcher {number}: {error}"),
                }
                if chapter.end != End::Left {
                    story.push(chapter);
                    after = current(&client);
                    continue 'chapters;
                }
                if Instant::now() > stays && last == 0 || watch.is_over() {
                    after = watch.through().map_or(after, |through| through.0);
                    story.push(chapter);
                    continue 'chapters;
                }
            }
        }
    }
}

/// Where one begins who has read all records.
fn current(client: &Client) -> u64 {
    let mut all = client.namespace(WATCHED).unwrap().get_all();
    loop {
        match all.by_ref().collect::<Result<Vec<_>, _>>() {
            Ok(_) => return all.seq().expect("the last part has come").0,
            Err(_) => all = client.namespace(WATCHED).unwrap().get_all(),
        }
    }
}

fn torture(durability: &str, seconds: u64, seed: u64) {
    println!("durability {durability}, seed {seed}");
    let dir = tempfile::tempdir().unwrap();
    let mut dice = Dice(seed | 1);
    let mut daemon = serve(dir.path(), durability);
    let client = connect(dir.path());
    let first = write(&client, 1, "").unwrap();
    client.commit().unwrap();
    let ground = Ground {
        dir: dir.path(),
        written: Mutex::new(vec![(1, first.0, first.0 >> 32)]),
        writers_end: AtomicBool::new(false),
        failed: AtomicBool::new(false),
        last: AtomicU64::new(0),
    };
    let prefixes = ["", "k1", "", "", "also", "", "", "k2"];
    let stories: Vec<Vec<Chapter>> = thread::scope(|scope| {
        let mut seeds = || Dice(dice.roll(u64::MAX) | 1);
        let writers: Vec<_> = (2..5_u64)
            .map(|writer| {
                let (ground, dice) = (&ground, seeds());
                scope.spawn(move || ground.write_on(writer * 4 - 6 + writer, dice))
            })
            .collect();
        let watchers: Vec<_> = prefixes
            .iter()
            .zip(0..)
            .map(|(prefix, number)| {
                let (ground, dice) = (&ground, seeds());
                scope.spawn(move || ground.watch_on(number, prefix, first.0, dice))
            })
            .collect();
        let until = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < until && !ground.failed.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(100 + dice.roll(900)));
            match dice.roll(4) {
                0 => drop(client.flush()),
                1 => {
                    let _ = client.stop();
                    daemon.wait().unwrap();
                    daemon = serve(dir.path(), durability);
                }
                _ => {
                    daemon.kill().unwrap();
                    daemon.wait().unwrap();
                    daemon = serve(dir.path(), durability);
                }
            }
        }
        ground.writers_end.store(true, Ordering::SeqCst);
        for writer in writers {
            writer.join().unwrap();
        }
        // One that every watcher is told of, whatever its prefix: it begins with a clear.
        let last = write(&connect(dir.path()), 1_000_000, "").unwrap();
        ground.written.lock().unwrap().push((1_000_000, last.0, last.0 >> 32));
        ground.last.store(last.0, Ordering::SeqCst);
        watchers.into_iter().map(|watcher| watcher.join().unwrap()).collect()
    });
    let written = ground.written.into_inner().unwrap();
    let found = found(&client);
    client.stop().unwrap();
    daemon.wait().unwrap();
    // Each write leaves its number, and nobody takes that away but a crash.
    let lost: HashSet<u64> = written.iter().map(|(id, ..)| *id).filter(|id| !found.contains(id)).collect();
    assert!(durability == "memory" || lost.is_empty(), "{} acknowledged writes are gone", lost.len());
    let mut writes: Writes = written
        .iter()
        .map(|(id, seq, boot)| (*seq, Write { changes: changes_of(*id), lost: lost.contains(id), boot: *boot }))
        .collect();
    assert_eq!(writes.len(), written.len(), "no Seq is given twice");
    if durability == "memory" {
        add_unanswered(&mut writes, &stories);
    }
    let count = |is: fn(&End) -> bool| stories.iter().flatten().filter(|chapter| is(&chapter.end)).count();
    println!(
        "{} writes, {} lost, {} chapters: {} lagged, {} gone, {} rewound",
        writes.len(),
        lost.len(),
        stories.iter().map(Vec::len).sum::<usize>(),
        count(|end| matches!(end, End::Lagged { .. })),
        count(|end| matches!(end, End::Gone { .. })),
        count(|end| matches!(end, End::Rewound { .. })),
    );
    for (number, (story, prefix)) in stories.iter().zip(prefixes).enumerate() {
        if let Err(what) = check(&writes, prefix, story) {
            panic!("seed {seed}: watcher {number} ({prefix:?}): {what}");
        }
    }
}

/// Writes that were seen and lost before their client was answered: it has sent them again, and they were done anew. As any that are lost
/// they are the last of their start.
fn add_unanswered(writes: &mut Writes, stories: &[Vec<Chapter>]) {
    let told: Vec<(u64, String)> = stories.iter().flatten().flat_map(|chapter| chapter.told.clone()).collect();
    // Whoever was told only that all was cleared does not know by which write.
    let (named, cleared): (Vec<_>, Vec<_>) = told.into_iter().partition(|(_, words)| words.contains('='));
    for (seq, words) in named.into_iter().chain(cleared) {
        let boot = seq >> 32;
        let is_last = || writes.range(seq..).all(|(later, write)| later >> 32 != boot || write.lost);
        if !writes.contains_key(&seq) && is_last() {
            let id = words.rsplit('=').next().and_then(|id| id.parse().ok());
            let changes = id.map_or_else(|| vec![(None, "clear".to_owned())], changes_of);
            writes.insert(seq, Write { changes, lost: true, boot });
        }
    }
}

/// The numbers of the writes that the store has.
fn found(client: &Client) -> HashSet<u64> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let all: Result<Vec<_>, Error> = client.namespace(LOG).unwrap().get_all().keys_only().collect();
        match all {
            Ok(all) => return all.iter().map(|entry| entry.key.parse().expect("a number")).collect(),
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    }
}

fn seed() -> u64 {
    number("COMMONHOLD_WATCH_SEED", u64::from(std::process::id()))
}

#[test]
fn watchers_see_what_the_journal_holds_through_kills_and_restarts() {
    torture("buffered", number("COMMONHOLD_WATCH_SECONDS", 6), seed());
}

#[test]
fn watchers_learn_what_a_killed_daemon_has_lost() {
    torture("memory", number("COMMONHOLD_WATCH_SECONDS", 6), seed());
}
