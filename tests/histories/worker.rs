//! A process that asks for what chance says, records it, and goes on until its standard input ends or it is killed.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use commonhold::blocking::{Batch, Condition, Durability, Error, Fault, Seq, Value as Stored, Written};
use serde_json::json;

use super::asker::{Asker, Later, PATIENCE, connect};
use super::model::{Action, Outcome, Value, When};
use super::objects::{Kind, OBJECTS, Object, STORE};
use super::recorder::{Failure, Recorder, now};

/// What an impatient worker gives each request.
const IMPATIENCE: Duration = Duration::from_millis(60);
/// How long all workers are after the same object.
const CROWDED_NS: u64 = 15_000_000;
/// Requests that are sent over one connection without waiting for each other.
const PIPELINED: u64 = 6;
/// Writes to one object that are sent, and read behind, before any is waited for.
const UNREAD: u64 = 3;
/// Items of a list that are kept.
const KEPT: u32 = 6;
/// What the number of a worker's reading thread is greater by than its own: in a history it is a process of its own.
pub(crate) const READERS: u32 = 1_000;
/// A killed worker's last so many steps are not counted among its hits.
const STEPS_BETWEEN_TELLING: u64 = 16;

pub(crate) struct Worker {
    number: u32,
    /// The same for all workers.
    seed: u64,
    asker: Asker,
    places: Vec<Place>,
    random: fastrand::Rng,
    recorder: Recorder,
    made: u64,
    steps: u64,
    /// Where it tells how often the near cache has answered.
    hits: PathBuf,
}

/// An object, and what this worker last saw of it.
struct Place {
    object: &'static Object,
    seen: Option<(Value, Seq, u64)>,
}

/// A request whose answer is not waited for yet.
enum Sent {
    Write { at: usize, id: u64, action: Action, written: Result<Later<Written>, Error> },
    Read { at: usize, id: u64, since: u64, found: Result<Later<Option<Stored>>, Error> },
}

/// Runs a worker: `STORE NUMBER SEED LOG`.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let [store, number, seed, log] = arguments else { return Err("a worker needs STORE NUMBER SEED LOG".into()) };
    let over = over();
    let number: u32 = number.parse()?;
    let timeout = if number.is_multiple_of(4) { IMPATIENCE } else { PATIENCE };
    let store = Path::new(store);
    // Of those that are impatient, as of the others, each second one.
    let asker = if number / 4 % 2 == 1 {
        Asker::connect_async(store, timeout, &over)?
    } else {
        connect(store, timeout, &over)?.map(Asker::blocking).transpose()?
    };
    let Some(asker) = asker else { return Ok(()) };
    let seed = seed.parse()?;
    let reading = asker.shared()?.map(|asker| {
        let (log, over) = (log_of_reader(Path::new(log)), Arc::clone(&over));
        thread::spawn(move || Worker::new(asker, READERS + number, seed, &log)?.read_until(&over))
    });
    let mut worker = Worker::new(asker, number, seed, Path::new(log))?;
    while !over.load(Ordering::Relaxed) {
        worker.step()?;
        worker.tell_hits(false)?;
        if reading.as_ref().is_some_and(thread::JoinHandle::is_finished) {
            break;
        }
    }
    if let Some(reading) = reading {
        reading.join().map_err(|_| "the reading thread panicked")??;
    }
    worker.tell_hits(true)
}

/// Where the reading thread of the worker with this log records.
pub(crate) fn log_of_reader(log: &Path) -> PathBuf {
    log.with_extension("reader.log")
}

/// Becomes true when standard input ends: the supervisor closes it, or is no more.
fn over() -> Arc<AtomicBool> {
    let over = Arc::new(AtomicBool::new(false));
    let tell = Arc::clone(&over);
    thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        tell.store(true, Ordering::Relaxed);
    });
    over
}

impl Worker {
    pub(crate) fn new(asker: Asker, number: u32, seed: u64, log: &Path) -> Result<Self, Failure> {
        let places = OBJECTS.iter().map(|object| Place { object, seen: None }).collect();
        let random = fastrand::Rng::with_seed(seed ^ u64::from(number) << 32);
        let (recorder, hits) = (Recorder::create(log)?, log.with_extension("hits"));
        Ok(Self { number, seed, asker, places, random, recorder, made: 0, steps: 0, hits })
    }

    /// Reads every object.
    pub(crate) fn read_all(&mut self) -> Result<(), Failure> {
        for at in 0..self.places.len() {
            for space in 0..self.places[at].object.spaces.len() {
                self.get(at, space)?;
            }
        }
        Ok(())
    }

    /// Reads by chance, beside a worker that has the same client: what that keeps and fills, and writes meanwhile.
    fn read_until(&mut self, over: &AtomicBool) -> Result<(), Failure> {
        while !over.load(Ordering::Relaxed) {
            let at = self.choose();
            let space = self.random.usize(..self.places[at].object.spaces.len());
            for _ in 0..self.random.u32(1..4) {
                self.get(at, space)?;
            }
            thread::sleep(Duration::from_micros(self.random.u64(..20_000)));
        }
        Ok(())
    }

    /// Leaves beside the log, now and then and at the end, how often the near cache has answered.
    fn tell_hits(&mut self, at_the_end: bool) -> Result<(), Failure> {
        self.steps += 1;
        if at_the_end || self.steps.is_multiple_of(STEPS_BETWEEN_TELLING) {
            let (hits, misses) = self.asker.hits_and_misses();
            fs::write(&self.hits, format!("{hits} {misses}"))?;
        }
        Ok(())
    }

    /// One request, or a few at once, and perhaps a pause.
    fn step(&mut self) -> Result<(), Failure> {
        let at = self.choose();
        match self.places[at].object.kind {
            _ if self.random.u32(..60) == 0 => self.commit()?,
            _ if self.random.u32(..40) == 0 => self.pipeline()?,
            _ if self.random.u32(..25) == 0 => self.read_behind(at)?,
            Kind::Key | Kind::Volatile => self.use_key(at)?,
            Kind::Tally if self.random.u32(..4) == 0 => self.get(at, 0)?,
            Kind::Tally => self.change(at, &Action::Increment { by: 1 }, When::Always)?,
            Kind::Group | Kind::Wiped => self.use_group(at)?,
        }
        // Bursts and pauses: a history is better for what happens at once than for being long.
        if self.random.u32(..5) == 0 {
            thread::sleep(Duration::from_micros(self.random.u64(..20_000)));
        }
        Ok(())
    }

    /// An object by chance or, as often, the one that all workers are after in this moment.
    fn choose(&mut self) -> usize {
        let at = if self.random.bool() {
            self.random.u64(..)
        } else {
            fastrand::Rng::with_seed(self.seed ^ (now() / CROWDED_NS)).u64(..)
        };
        (at % self.places.len() as u64) as usize
    }

    fn use_key(&mut self, at: usize) -> Result<(), Failure> {
        match self.random.u32(..100) {
            0..30 => return self.get(at, 0),
            30..35 => return self.contains(at),
            _ => {}
        }
        let when = match (self.random.u32(..10), &self.places[at].seen) {
            (0, _) => When::IfAbsent,
            (1..4, Some((value, _, since))) => When::IfSeen { value: value.clone(), since: *since },
            _ => When::Always,
        };
        let action = match self.random.u32(..65) {
            0..26 => Action::Put { stamp: self.stamp() },
            26..38 => Action::Delete,
            38..50 => Action::Increment { by: self.random.i64(1..4) },
            50..58 => Action::Append { item: self.stamp(), keep_last: KEPT as usize },
            _ => Action::Merge { mark: self.stamp() },
        };
        self.change(at, &action, when)
    }

    fn use_group(&mut self, at: usize) -> Result<(), Failure> {
        let is_wiped = self.places[at].object.kind == Kind::Wiped;
        match self.random.u32(..100) {
            0..45 => {
                let space = self.random.usize(..self.places[at].object.spaces.len());
                self.get(at, space)
            }
            45..80 => {
                let when = if self.random.u32(..4) == 0 { When::IfAbsent } else { When::Always };
                let action = Action::Put { stamp: self.stamp() };
                self.change(at, &action, when)
            }
            80..90 if is_wiped => self.change(at, &Action::Clear, When::Always),
            90..94 if is_wiped => self.drop_namespace(at),
            _ => self.change(at, &Action::Delete, When::Always),
        }
    }

    /// No two are equal, whoever makes them.
    fn stamp(&mut self) -> u64 {
        self.made += 1;
        u64::from(self.number) * 1_000_000 + self.made
    }

    fn change(&mut self, at: usize, action: &Action, when: When) -> Result<(), Failure> {
        let (id, batch) = self.begin(at, action.clone(), when)?;
        let written = self.asker.write(&batch);
        self.end_write(at, id, action, written)
    }

    /// Several requests over the one connection, none waiting for the answer to another.
    fn pipeline(&mut self) -> Result<(), Failure> {
        let mut begun = Vec::new();
        for _ in 0..self.random.u64(2..=PIPELINED) {
            let at = self.choose();
            let kind = self.places[at].object.kind;
            let is_group = matches!(kind, Kind::Group | Kind::Wiped);
            if !is_group && self.random.u32(..3) == 0 {
                let since = now();
                let object = self.places[at].object;
                let id = self.recorder.begin(object.name, Action::Get, When::Always, false)?;
                begun.push(Sent::Read { at, id, since, found: self.asker.get_later(at, object.keys[0]) });
                continue;
            }
            let action = match kind {
                _ if is_group => Action::Put { stamp: self.stamp() },
                Kind::Key | Kind::Volatile if self.random.bool() => {
                    Action::Append { item: self.stamp(), keep_last: KEPT as usize }
                }
                _ => Action::Increment { by: 1 },
            };
            begun.push(self.send(at, action)?);
        }
        self.take_answers(begun)
    }

    /// Writes to an object that are not waited for, and behind each of them a read of it that is: it comes after what was
    /// sent before it, though something older is kept and is current still. Reads of others come between, which may be served
    /// from what is kept.
    fn read_behind(&mut self, at: usize) -> Result<(), Failure> {
        let space = self.random.usize(..self.places[at].object.spaces.len());
        // Kept from here on, unless somebody writes.
        self.get(at, space)?;
        let mut begun = Vec::new();
        for _ in 0..self.random.u64(1..=UNREAD) {
            let action = match (self.places[at].object.kind, self.random.u32(..10)) {
                (Kind::Tally, _) => Action::Increment { by: 1 },
                (Kind::Wiped, 0) => Action::Clear,
                (_, 0..3) => Action::Delete,
                (Kind::Key | Kind::Volatile, 3..6) => Action::Append { item: self.stamp(), keep_last: KEPT as usize },
                _ => Action::Put { stamp: self.stamp() },
            };
            begun.push(self.send(at, action)?);
            if self.random.u32(..3) == 0 {
                let other = self.choose();
                self.get(other, 0)?;
            }
            self.get(at, space)?;
        }
        self.take_answers(begun)
    }

    /// Sends a write whose answer is not waited for yet.
    fn send(&mut self, at: usize, action: Action) -> Result<Sent, Failure> {
        let (id, batch) = self.begin(at, action.clone(), When::Always)?;
        Ok(Sent::Write { at, id, action, written: self.asker.begin(&batch) })
    }

    fn take_answers(&mut self, begun: Vec<Sent>) -> Result<(), Failure> {
        for sent in begun {
            match sent {
                Sent::Write { at, id, action, written } => {
                    self.end_write(at, id, &action, written.and_then(|later| self.asker.wait(later)))?;
                }
                Sent::Read { at, id, since, found } => {
                    let found = found.and_then(|later| self.asker.wait(later)).map(|found| vec![found]);
                    self.end_get(at, id, since, found)?;
                }
            }
        }
        Ok(())
    }

    /// Records a write and makes the request for it.
    fn begin(&mut self, at: usize, action: Action, when: When) -> Result<(u64, Batch), Failure> {
        let durability = match self.random.u32(..12) {
            0 => Some(Durability::Synced),
            1 | 2 => Some(Durability::Buffered),
            3 => Some(Durability::Memory),
            _ => None,
        };
        let place = &self.places[at];
        let mut batch = Batch::new();
        let condition = match (&when, &place.seen) {
            (When::Always, _) => Condition::Always,
            (When::IfSeen { .. }, Some((_, seq, _))) => Condition::IfSeq(*seq),
            _ => Condition::IfAbsent,
        };
        // The condition of the first operation is that of the request.
        let mut condition = Some(condition);
        let targets = self.asker.targets(at);
        for (space, key) in targets.iter().flat_map(|space| place.object.keys.iter().map(move |key| (space, key))) {
            let condition = condition.take().unwrap_or_default();
            batch = match &action {
                Action::Put { stamp } => batch.put_raw_if(space, key, &text_of(*stamp), condition)?,
                Action::Delete => batch.delete_if(space, key, condition)?,
                Action::Increment { by } => batch.increment_if(space, key, "count", *by, condition)?,
                Action::Append { item, .. } => {
                    batch.append_raw_if(space, key, "log", &json!([item]).to_string(), Some(KEPT), condition)?
                }
                Action::Merge { mark } => {
                    batch.merge_raw_if(space, key, &json!({ "mark": mark }).to_string(), condition)?
                }
                Action::Clear => {
                    batch = batch.clear(space)?;
                    break;
                }
                Action::Drop | Action::Get | Action::Contains | Action::Commit | Action::Crash { .. } => {
                    unreachable!("not made of operations")
                }
            };
        }
        if let Some(durability) = durability {
            batch = batch.durability(durability);
        }
        let pins = durability.is_some_and(|durability| durability > Durability::Memory);
        let id = self.recorder.begin(place.object.name, action, when, pins)?;
        Ok((id, batch))
    }

    fn end_write(
        &mut self,
        at: usize,
        id: u64,
        action: &Action,
        written: Result<Written, Error>,
    ) -> Result<(), Failure> {
        let records = self.places[at].object.records();
        let is_removal = matches!(action, Action::Delete | Action::Clear);
        let outcome = match written {
            Ok(Written { new: 0, found: 0, .. }) if is_removal => Outcome::Written { existed: false },
            Ok(Written { new: 0, found, .. }) if found == records => Outcome::Written { existed: true },
            Ok(Written { new, found: 0, .. }) if new == records && !is_removal => Outcome::Written { existed: false },
            Ok(Written { new, found, .. }) => {
                Outcome::Mixed(format!("{new} keys were new and {found} found, and there are {records}"))
            }
            Err(error) => not_written(error)?,
        };
        self.recorder.end(id, outcome)
    }

    fn drop_namespace(&mut self, at: usize) -> Result<(), Failure> {
        let place = &self.places[at];
        let id = self.recorder.begin(place.object.name, Action::Drop, When::Always, false)?;
        let outcome = match self.asker.drop_namespace(at) {
            Ok(dropped) if dropped.records == 0 => Outcome::Written { existed: false },
            Ok(dropped) if dropped.records == place.object.records() => Outcome::Written { existed: true },
            Ok(dropped) => Outcome::Mixed(format!("{} records were dropped", dropped.records)),
            Err(error) => not_written(error)?,
        };
        self.recorder.end(id, outcome)
    }

    /// Reads all that an object has in one of its namespaces, at one moment.
    fn get(&mut self, at: usize, space: usize) -> Result<(), Failure> {
        let place = &self.places[at];
        let since = now();
        let id = self.recorder.begin(place.object.name, Action::Get, When::Always, false)?;
        let found = self.asker.get(at, space, place.object.keys);
        self.end_get(at, id, since, found)
    }

    fn end_get(
        &mut self,
        at: usize,
        id: u64,
        since: u64,
        found: Result<Vec<Option<Stored>>, Error>,
    ) -> Result<(), Failure> {
        let outcome = match found {
            Err(error) => not_read(error)?,
            Ok(found) => {
                let values = found
                    .iter()
                    .map(|found| found.as_ref().map(|found| value_of(found.text())).transpose())
                    .collect::<Result<Vec<_>, _>>()?;
                if values.windows(2).any(|pair| pair[0] != pair[1]) {
                    Outcome::Mixed(format!("{values:?}"))
                } else {
                    let seq = found[0].as_ref().map(Stored::seq);
                    let seen = values[0].clone().filter(Value::comes_once).zip(seq);
                    self.places[at].seen = seen.map(|(value, seq)| (value, seq, since));
                    Outcome::Read(values[0].clone())
                }
            }
        };
        self.recorder.end(id, outcome)
    }

    fn contains(&mut self, at: usize) -> Result<(), Failure> {
        let place = &self.places[at];
        let id = self.recorder.begin(place.object.name, Action::Contains, When::Always, false)?;
        let outcome = match self.asker.contains(at, place.object.keys[0]) {
            Ok(exists) => Outcome::Exists(exists),
            Err(error) => not_read(error)?,
        };
        self.recorder.end(id, outcome)
    }

    fn commit(&mut self) -> Result<(), Failure> {
        let id = self.recorder.begin(STORE, Action::Commit, When::Always, false)?;
        let outcome = match self.asker.commit() {
            Ok(_) => Outcome::Done,
            Err(error) => not_read(error)?,
        };
        self.recorder.end(id, outcome)
    }
}

/// A refusal, or that nobody knows, or that it was not done for sure. Every other error is a fault, and ends the worker.
fn not_written(error: Error) -> Result<Outcome, Failure> {
    match error {
        Error::Fault(Fault::ConditionFailed { .. }) => Ok(Outcome::Refused),
        error if error.outcome_is_unknown() => Ok(Outcome::Unknown),
        error if passes(&error) => Ok(Outcome::NotDone),
        error => Err(error.into()),
    }
}

fn not_read(error: Error) -> Result<Outcome, Failure> {
    if passes(&error) || error.outcome_is_unknown() { Ok(Outcome::NotDone) } else { Err(error.into()) }
}

/// What a client meets while daemons are stopped, killed and started.
pub(crate) fn passes(error: &Error) -> bool {
    error.is_timeout()
        || error.is_no_daemon()
        || matches!(
            error,
            Error::Lost { .. } | Error::Unreachable { .. } | Error::Fault(Fault::Stopping | Fault::Loading { .. })
        )
}

/// How much filler a put has: most little, some more than a page.
fn filler(stamp: u64) -> usize {
    if stamp.is_multiple_of(16) { 6_000 } else { (stamp % 40) as usize }
}

fn text_of(stamp: u64) -> String {
    json!({ "stamp": stamp, "fill": "x".repeat(filler(stamp)) }).to_string()
}

fn value_of(text: &str) -> Result<Value, Failure> {
    let fields: serde_json::Value = serde_json::from_str(text)?;
    let value: Value = serde_json::from_value(fields.clone())?;
    let fill = fields.get("fill").and_then(serde_json::Value::as_str).map(str::len);
    let wanted = (value.stamp != 0).then(|| filler(value.stamp));
    if fill != wanted {
        return Err(format!("{fill:?} bytes of filler, and {wanted:?} were put: {text}").into());
    }
    Ok(value)
}
