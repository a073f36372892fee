//! Eight watchers while daemons are killed, stopped and started, watchers come and go, and the journal lets go of what they have not
//! read: each sees exactly the writes, in order, and each gap is told as what it is.
//!
//! `COMMONHOLD_WATCH_SECONDS` says how long (6), `COMMONHOLD_WATCH_SEED` with which seed (printed).

use std::collections::{HashMap, HashSet};
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
/// Three of them have a number of their own; the numbers of each one's writes are four apart.
const FIRST_WRITER: u64 = 4;

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

/// A daemon in a process of its own, which can be killed.
pub(crate) fn serve(dir: &Path, durability: &str) -> Child {
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

pub(crate) fn connect(dir: &Path) -> Client {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match Client::connect_with(dir, ConnectOptions::new().reconnect_for(PATIENCE).timeout(Some(PATIENCE))) {
            Ok(client) => return client,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// What each writer alone puts and deletes: perhaps it is not there, for others clear and drop.
fn own(id: u64) -> String {
    format!("own{}", id % 4)
}

/// Whether a write by this number only deletes.
fn only_deletes(id: u64) -> bool {
    id % 7 == 3
}

/// A write by its number, done by whoever has it: what it is told as, the last of it with the number. Where it [only
/// deletes](only_deletes), what was there decides.
fn changes_of(id: u64) -> Vec<(Option<String>, String)> {
    let (own, key) = (own(id), format!("k{}", id % 23));
    if only_deletes(id) {
        return vec![(Some(own.clone()), format!("-{own}"))];
    }
    let mut changes = Vec::new();
    if id.is_multiple_of(50) {
        changes.push((None, "clear".to_owned()));
    }
    changes.push((Some(own.clone()), format!("{own}={id}")));
    changes.push((Some(key.clone()), format!("{key}={id}")));
    if id.is_multiple_of(7) {
        let also = format!("also {key}");
        changes.push((Some(also.clone()), format!("{also}={id}")));
    }
    changes
}

fn write(client: &Client, id: u64, padding: &str) -> Result<Done, Error> {
    let (watched, log) = (client.namespace(WATCHED)?, client.namespace(LOG)?);
    let mut batch = commonhold::blocking::Batch::new();
    batch = batch.put(&log, &id.to_string(), &true)?;
    for (key, word) in changes_of(id) {
        batch = match key {
            None => batch.clear(&watched)?,
            Some(key) if word.starts_with('-') => batch.delete(&watched, &key)?,
            Some(key) => batch.put(&watched, &key, &format!("{word}|{padding}"))?,
        };
    }
    let written = client.write(&batch)?;
    let seq = written.seq.0;
    // The mark in the log is new each time.
    let changes = if only_deletes(id) && written.found == 0 { Vec::new() } else { changes_of(id) };
    Ok(Done { id: Some(id), seq, changes })
}

/// An acknowledged write, or a drop, which has no number and leaves no mark.
struct Done {
    id: Option<u64>,
    seq: u64,
    changes: Vec<(Option<String>, String)>,
}

impl Done {
    /// Which start of the daemon did it.
    fn boot(&self) -> u64 {
        self.seq >> 32
    }
}

/// The numbers of the writes that the journal holds, right now: what was put is in its files as it is.
fn in_journal(dir: &Path) -> Vec<u64> {
    let mut ids = Vec::new();
    for entry in std::fs::read_dir(dir.join(".commonhold/journal")).into_iter().flatten().flatten() {
        // One that goes just now is not there any more.
        let bytes = std::fs::read(entry.path()).unwrap_or_default();
        for end in bytes.iter().enumerate().filter(|(_, byte)| **byte == b'|').map(|(end, _)| end) {
            let digits = bytes[..end].iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
            let before = end.checked_sub(digits + 1).map(|at| bytes[at]);
            if digits > 0 && before == Some(b'=') {
                ids.extend(std::str::from_utf8(&bytes[end - digits..end]).ok().and_then(|id| id.parse::<u64>().ok()));
            }
        }
    }
    ids
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
    /// Acknowledged.
    written: Mutex<Vec<Done>>,
    /// Drops of which a kill may or may not have taken the answer with it.
    unanswered_drops: AtomicU64,
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
            if writer == FIRST_WRITER && id.is_multiple_of(40) {
                self.drop_all(&client);
            }
            let length = if dice.roll(3) == 0 { padding.len() } else { 100 };
            let done = loop {
                match write(&client, id, &padding[..length]) {
                    Ok(done) => break done,
                    // None of these was done.
                    Err(Error::Fault(Fault::Stopping) | Error::NoDaemon { .. } | Error::Lost { .. }) => {}
                    Err(error) => {
                        self.failed.store(true, Ordering::SeqCst);
                        panic!("write {id}: {error}");
                    }
                }
            };
            self.written.lock().unwrap().push(done);
        }
    }

    /// Drops what is watched. It is not known of each drop whether it was done.
    fn drop_all(&self, client: &Client) {
        match client.namespace(WATCHED).and_then(|watched| watched.drop_namespace()) {
            Ok(dropped) if dropped.records > 0 => {
                let done = Done { id: None, seq: dropped.seq.0, changes: vec![(None, "drop".to_owned())] };
                self.written.lock().unwrap().push(done);
            }
            // Who found nothing may have dropped a file.
            Ok(_)
            | Err(
                Error::OutcomeUnknown { .. }
                | Error::Lost { .. }
                | Error::BrokeOff { .. }
                | Error::Unreachable { .. }
                | Error::NoDaemon { .. }
                | Error::Fault(Fault::Stopping),
            ) => {
                self.unanswered_drops.fetch_add(1, Ordering::SeqCst);
            }
            Err(error) => {
                self.failed.store(true, Ordering::SeqCst);
                panic!("drop: {error}");
            }
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
            let mut chapter = Chapter::after(after);
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
                        chapter = Chapter::after(after);
                    }
                    Ok(None) if is_told => {
                        chapter.end = End::Over;
                        story.push(chapter);
                        return story;
                    }
                    Err(Error::Fault(Fault::Gone { oldest })) => {
                        // A segment's file goes before anybody is told so, and never comes back.
                        chapter.in_journal = in_journal(self.dir);
                        chapter.end = End::Gone { oldest: oldest.0 };
                    }
                    Err(Error::Fault(Fault::Rewound { to })) => {
                        let through = watch.through().map_or(after, |through| through.0);
                        chapter.end = End::Rewound { to: to.0, through };
                    }
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
    let begins = first.seq;
    client.commit().unwrap();
    let ground = Ground {
        dir: dir.path(),
        written: Mutex::new(vec![first]),
        unanswered_drops: AtomicU64::new(0),
        writers_end: AtomicBool::new(false),
        failed: AtomicBool::new(false),
        last: AtomicU64::new(0),
    };
    let prefixes = ["", "k1", "", "", "also", "", "", "k2"];
    let mut stories: Vec<Vec<Chapter>> = thread::scope(|scope| {
        let mut seeds = || Dice(dice.roll(u64::MAX) | 1);
        let writers: Vec<_> = (FIRST_WRITER..FIRST_WRITER + 3)
            .map(|writer| {
                let (ground, dice) = (&ground, seeds());
                scope.spawn(move || ground.write_on(writer, dice))
            })
            .collect();
        let watchers: Vec<_> = prefixes
            .iter()
            .zip(0..)
            .map(|(prefix, number)| {
                let (ground, dice) = (&ground, seeds());
                scope.spawn(move || ground.watch_on(number, prefix, begins, dice))
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
        ground.last.store(last.seq, Ordering::SeqCst);
        ground.written.lock().unwrap().push(last);
        watchers.into_iter().map(|watcher| watcher.join().unwrap()).collect()
    });
    let (written, unanswered_drops) = (ground.written.into_inner().unwrap(), ground.unanswered_drops.into_inner());
    let found = found(&client);
    client.stop().unwrap();
    daemon.wait().unwrap();
    // Each write leaves its number, and nobody takes that away but a crash.
    let lost: HashSet<u64> = written.iter().filter_map(|done| done.id).filter(|id| !found.contains(id)).collect();
    assert!(durability == "memory" || lost.is_empty(), "{} acknowledged writes are gone", lost.len());
    let seqs: HashMap<u64, u64> = written.iter().filter_map(|done| Some((done.id?, done.seq))).collect();
    let write = |done: &Done| {
        let lost = done.id.is_some_and(|id| lost.contains(&id));
        Write { changes: done.changes.clone(), lost, unsure: false, boot: done.boot() }
    };
    let mut writes: Writes = written.iter().map(|done| (done.seq, write(done))).collect();
    assert_eq!(writes.len(), written.len(), "no Seq is given twice");
    for chapter in stories.iter_mut().flatten() {
        // What was not acknowledged by then has no Seq that is known.
        chapter.in_journal = chapter.in_journal.iter().filter_map(|id| seqs.get(id).copied()).collect();
    }
    if durability == "memory" {
        judge_drops(&mut writes);
    }
    add_unanswered_drops(&mut writes, &stories, unanswered_drops);
    if durability == "memory" {
        add_unanswered(&mut writes, &stories);
    }
    let drops = written.iter().filter(|done| done.id.is_none()).count();
    let deletes = written.iter().filter(|done| done.id.is_some_and(only_deletes) && !done.changes.is_empty()).count();
    assert!(drops > 0 && deletes > 0, "{drops} drops, {deletes} deletes");
    let count = |is: fn(&End) -> bool| stories.iter().flatten().filter(|chapter| is(&chapter.end)).count();
    println!(
        "{} writes ({drops} drops, {deletes} only delete), {} lost, {} chapters: {} lagged, {} gone, {} rewound",
        writes.len(),
        lost.len(),
        stories.iter().map(Vec::len).sum::<usize>(),
        count(|end| matches!(end, End::Lagged { .. })),
        count(|end| matches!(end, End::Gone { .. })),
        count(|end| matches!(end, End::Rewound { .. })),
    );
    let held = stories.iter().flatten().filter(|chapter| !chapter.in_journal.is_empty()).count();
    println!("{held} times the journal was found to begin later than was asked for");
    for (number, (story, prefix)) in stories.iter().zip(prefixes).enumerate() {
        if let Err(what) = check(&writes, prefix, story) {
            panic!("seed {seed}: watcher {number} ({prefix:?}): {what}");
        }
    }
}

/// Drops leave no mark. One after which something of the same start is there is there, too, one before which something of it is lost is
/// lost; of others nothing is known.
fn judge_drops(writes: &mut Writes) {
    let drops = writes.iter().filter(|(_, write)| write.changes.iter().any(|(_, word)| word == "drop"));
    let drops: Vec<(u64, u64)> = drops.map(|(seq, write)| (*seq, write.boot)).collect();
    let marks: Vec<(u64, u64, bool)> = writes
        .iter()
        .filter(|(seq, _)| !drops.iter().any(|(drop, _)| drop == *seq))
        .map(|(seq, write)| (*seq, write.boot, write.lost))
        .collect();
    for (drop, boot) in drops {
        let of_its_start = || marks.iter().filter(|(_, of, _)| *of == boot);
        let is_kept = of_its_start().any(|(seq, _, lost)| *seq > drop && !lost);
        let is_lost = of_its_start().any(|(seq, _, lost)| *seq < drop && *lost);
        let write = writes.get_mut(&drop).expect("it is one of them");
        (write.lost, write.unsure) = (is_lost, !is_kept && !is_lost);
    }
}

/// Drops that were seen, done by writers who never had the answer.
fn add_unanswered_drops(writes: &mut Writes, stories: &[Vec<Chapter>], most: u64) {
    let told = stories.iter().flatten().flat_map(|chapter| &chapter.told);
    let drops: HashSet<u64> =
        told.filter(|(seq, words)| words == "drop" && !writes.contains_key(seq)).map(|(seq, _)| *seq).collect();
    assert!(drops.len() as u64 <= most, "{drops:?} were told and {most} not answered");
    for seq in drops {
        let changes = vec![(None, "drop".to_owned())];
        writes.insert(seq, Write { changes, lost: false, unsure: true, boot: seq >> 32 });
    }
}

/// Writes that were seen and lost before their client was answered: it has sent them again, and they were done anew. As any that are lost
/// they are the last of their start.
fn add_unanswered(writes: &mut Writes, stories: &[Vec<Chapter>]) {
    let told: Vec<(u64, String)> = stories.iter().flatten().flat_map(|chapter| chapter.told.clone()).collect();
    // Whoever was told only that all was cleared, or one deleted, does not know by which write.
    let (named, others): (Vec<_>, Vec<_>) = told.into_iter().partition(|(_, words)| words.contains('='));
    for (seq, words) in named.into_iter().chain(others) {
        let boot = seq >> 32;
        let is_last = || writes.range(seq..).all(|(later, write)| later >> 32 != boot || write.lost || write.unsure);
        if !writes.contains_key(&seq) && is_last() {
            let id = words.rsplit('=').next().and_then(|id| id.parse().ok());
            let changes =
                id.map_or_else(|| vec![(words.strip_prefix('-').map(str::to_owned), words.clone())], changes_of);
            writes.insert(seq, Write { changes, lost: true, unsure: false, boot });
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
