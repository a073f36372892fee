//! A worker process as `scripts/quickstart` runs four of them: it reads, upserts, deletes and flushes one store
//! together with the others, partly on the same keys, and lives through the death of the daemon.
//!
//! It links the client library and nothing else (`cargo build --example worker --no-default-features`), logs every
//! write with its outcome for `scripts/verify.py`, checks what it reads against what it wrote, and works until a file
//! appears that tells it to finish.

#[path = "worker/beliefs.rs"]
mod beliefs;
#[path = "worker/change.rs"]
mod change;
#[path = "worker/log.rs"]
mod log;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use commonhold::blocking::{Batch, Client, Condition, ConnectOptions, Error, Namespace, Pending, Value, Written};

use beliefs::Beliefs;
use change::{Change, Outcome, hash, outcome};
use log::Log;

type Failure = Box<dyn std::error::Error>;

/// Keys that each worker makes for itself in `text_chunks`.
const OWN_KEYS: usize = 48;
/// Records of the store, in `entity_chunks`, that each worker has to itself.
const OWN_RECORDS: usize = 48;
/// Pairs of keys that each worker only ever writes together.
const PAIRS: usize = 6;
/// Counters that all workers raise with `if_seq`.
const TALLIES: usize = 4;
/// Keys that all workers try to be the first to write.
const CLAIMS: usize = 600;
/// Writes that are sent over one connection without waiting for each other.
const PIPELINED: usize = 24;
/// How long a worker may take in all: whoever started it may be gone.
const DEADLINE: Duration = Duration::from_mins(10);

fn main() -> ExitCode {
    let orders = match Orders::read(std::env::args().skip(1)) {
        Ok(orders) => orders,
        Err(reason) => {
            eprintln!("worker: {reason}\nusage: {USAGE}");
            return ExitCode::from(2);
        }
    };
    let number = orders.number;
    match Worker::begin(orders).and_then(Worker::work) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("worker {number}: {failure}");
            ExitCode::FAILURE
        }
    }
}

const USAGE: &str = "worker --store DIR --number N --workers N --seed N --operations N --log FILE --until FILE";

/// What the worker was told to do.
struct Orders {
    store: PathBuf,
    /// From 1 to `workers`.
    number: u64,
    workers: u64,
    seed: u64,
    /// How many acknowledged operations make a milestone, which is told on standard output.
    operations: u64,
    log: PathBuf,
    /// The worker finishes when this file exists.
    until: PathBuf,
}

impl Orders {
    fn read(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let all: Vec<String> = arguments.collect();
        let text = |name: &str| {
            let at = all.iter().position(|argument| argument == name).ok_or(format!("{name} is missing"))?;
            all.get(at + 1).cloned().ok_or(format!("{name} has no value"))
        };
        let count = |name: &str| text(name)?.parse::<u64>().map_err(|error| format!("{name}: {error}"));
        Ok(Self {
            store: text("--store")?.into(),
            number: count("--number")?,
            workers: count("--workers")?.max(1),
            seed: count("--seed")?,
            operations: count("--operations")?,
            log: text("--log")?.into(),
            until: text("--until")?.into(),
        })
    }
}

struct Worker {
    orders: Orders,
    client: Client,
    chunks: Namespace,
    entities: Namespace,
    status: Namespace,
    claims: Namespace,
    log: Log,
    beliefs: Beliefs,
    random: fastrand::Rng,
    /// Passages of the store's own texts, to make values of.
    passages: Vec<String>,
    /// Keys of the store's own records that every worker writes.
    shared: Vec<String>,
    /// Keys that only this worker writes, among them records of the store.
    own: Vec<(Namespace, String)>,
    /// How many values this worker has made: no two are equal.
    made: u64,
}

impl Worker {
    fn begin(orders: Orders) -> Result<Self, Failure> {
        // Longer than any start of the daemon, so that a read is late and not lost while it is away.
        let client = ConnectOptions::new()
            .timeout(Some(Duration::from_mins(2)))
            .reconnect_for(Duration::from_secs(90))
            .connect(&orders.store)?;
        let chunks = client.namespace("text_chunks")?;
        let entities = client.namespace("entity_chunks")?;
        let status = client.namespace("doc_status")?;
        let claims = client.namespace("full_entities")?;
        let mut worker = Self {
            log: Log::create(&orders.log)?,
            beliefs: Beliefs::default(),
            random: fastrand::Rng::with_seed(orders.seed ^ (orders.number << 32)),
            passages: Vec::new(),
            shared: Vec::new(),
            own: Vec::new(),
            made: 0,
            orders,
            client,
            chunks,
            entities,
            status,
            claims,
        };
        worker.look_around()?;
        Ok(worker)
    }

    /// Takes texts and keys from the store. Other workers may be at work already: which keys are shared and which are
    /// whose is decided by the key alone.
    fn look_around(&mut self) -> Result<(), Failure> {
        for entry in self.chunks.scan().prefix("doc-") {
            let entry = entry?;
            let value: serde_json::Value = serde_json::from_str(&entry.value)?;
            if let Some(content) = value["content"].as_str() {
                self.passages.push(content.to_owned());
            }
            if hash(&entry.key).is_multiple_of(10) {
                self.shared.push(entry.key);
            }
        }
        for entry in self.entities.scan() {
            let key = entry?.key;
            if hash(&key) % self.orders.workers == self.orders.number - 1 && self.own.len() < OWN_RECORDS {
                self.own.push((self.entities.clone(), key));
            }
        }
        for index in 0..OWN_KEYS {
            self.own.push((self.chunks.clone(), own_key(self.orders.number, index)));
        }
        if self.passages.is_empty() || self.shared.is_empty() {
            return Err("the store has no text chunks to work with".into());
        }
        Ok(())
    }

    fn work(mut self) -> Result<(), Failure> {
        let began = Instant::now();
        let mut told_for_side = 0;
        while !self.orders.until.exists() {
            if began.elapsed() > DEADLINE {
                return Err(format!("was not told to finish within {DEADLINE:?}").into());
            }
            self.step()?;
            let side = self.side();
            if side > told_for_side && self.log.operations(side) >= self.orders.operations {
                told_for_side = side;
                Self::tell(&format!("side {side}: {} operations acknowledged", self.log.operations(side)))?;
            }
        }
        for (space, key) in self.own.clone() {
            self.read_own(&space, &key)?;
        }
        for index in 0..PAIRS {
            self.read_pair(self.orders.number, index)?;
        }
        self.log.finish(self.orders.number)?;
        Self::tell("finished")
    }

    /// One line on standard output, for whoever waits for it.
    fn tell(line: &str) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{line}")?;
        Ok(out.flush()?)
    }

    /// Which side of the daemon's death this worker is on: 1 before, 2 after.
    fn side(&self) -> usize {
        1 + usize::from(self.client.restarts() > 0)
    }

    /// One operation, chosen by chance.
    fn step(&mut self) -> Result<(), Failure> {
        let (own_space, own_key) = self.own[self.random.usize(..self.own.len())].clone();
        let shared_key = self.shared[self.random.usize(..self.shared.len())].clone();
        let chunks = self.chunks.clone();
        let pair = self.random.usize(..PAIRS);
        match self.random.u32(..1_000) {
            0..190 => self.read_own(&own_space, &own_key),
            190..300 => self.read_shared(&chunks, &shared_key),
            300..360 => {
                let whose = self.random.u64(1..=self.orders.workers);
                self.read_pair(whose, pair)
            }
            360..390 => self.ask_which_are_missing(),
            390..400 => self.scan_own(),
            400..560 => {
                let value = self.value(&own_key);
                self.write("put", &[put(&own_space, &own_key, value)], Condition::Always)
            }
            560..650 => {
                let value = self.value(&shared_key);
                self.write("put", &[put(&chunks, &shared_key, value)], Condition::Always)
            }
            650..710 => self.write("delete", &[delete(&own_space, &own_key)], Condition::Always),
            710..740 => self.write("delete", &[delete(&chunks, &shared_key)], Condition::Always),
            740..800 => self.write_pair(pair),
            800..840 => self.write_batch_on_shared_keys(),
            840..900 => self.raise_tally(),
            900..930 => self.claim(),
            930..985 => self.pipeline(),
            985..995 => {
                let spaces = [&self.chunks, &self.entities, &self.status, &self.claims];
                let flushed = self.random.choice(spaces).expect("there are four").flush();
                self.settled("flush", flushed.map(drop))
            }
            995..998 => self.settled("commit", self.client.commit().map(drop)),
            _ => self.settled("flush", self.client.flush().map(drop)),
        }
    }

    fn read_own(&mut self, space: &Namespace, key: &str) -> Result<(), Failure> {
        let found = space.get_raw(key)?;
        self.log.count(self.side(), "read");
        self.beliefs.check_version(space, key, found.as_ref().map(Value::seq))?;
        self.beliefs.check(space, key, found.as_ref().map(Value::text))
    }

    fn read_shared(&mut self, space: &Namespace, key: &str) -> Result<(), Failure> {
        let found = space.get_raw(key)?;
        self.log.count(self.side(), "read");
        self.beliefs.check_version(space, key, found.as_ref().map(Value::seq))?;
        if let Some(found) = found {
            serde_json::from_str::<serde_json::Value>(found.text())?;
        }
        Ok(())
    }

    /// Both keys of a pair are written by one request: whoever reads them together sees both halves of the same one.
    fn read_pair(&mut self, worker: u64, index: usize) -> Result<(), Failure> {
        let keys = pair_keys(worker, index);
        let found = self.chunks.get_many_raw(&[&keys[0], &keys[1]])?;
        self.log.count(self.side(), "read");
        let stamp = |at: usize| -> Result<Option<String>, Failure> {
            let Some(found) = &found[at] else { return Ok(None) };
            let value: serde_json::Value = serde_json::from_str(found.text())?;
            Ok(Some(value["stamp"].to_string()))
        };
        let (left, right) = (stamp(0)?, stamp(1)?);
        if left == right {
            return Ok(());
        }
        Err(format!("half a request is visible: {keys:?} hold {left:?} and {right:?}").into())
    }

    fn ask_which_are_missing(&mut self) -> Result<(), Failure> {
        let keys: Vec<String> = (0..OWN_KEYS).map(|index| own_key(self.orders.number, index)).collect();
        let missing = self.chunks.filter_missing(&keys)?;
        self.log.count(self.side(), "read");
        for (index, key) in keys.iter().enumerate() {
            self.beliefs.check_presence(&self.chunks, key, !missing.contains(&index))?;
        }
        Ok(())
    }

    fn scan_own(&mut self) -> Result<(), Failure> {
        let prefix = format!("chunk-w{}-", self.orders.number);
        let entries = self.chunks.scan().prefix(&prefix).collect::<Result<Vec<_>, _>>()?;
        self.log.count(self.side(), "read");
        for index in 0..OWN_KEYS {
            let key = own_key(self.orders.number, index);
            let mut found = entries.iter().filter(|entry| entry.key == key);
            self.beliefs.check(&self.chunks, &key, found.next().map(|entry| entry.value.as_str()))?;
            if found.next().is_some() {
                return Err(format!("a scan gave {key:?} twice").into());
            }
        }
        Ok(())
    }

    /// A value like those of the store: a passage of its texts with what LightRAG puts beside it, and a stamp that no
    /// other value has.
    fn value(&mut self, key: &str) -> String {
        self.made += 1;
        let passage = &self.passages[self.random.usize(..self.passages.len())];
        let length = self.random.usize(40..1_200);
        let content: String = passage.chars().take(length).collect();
        serde_json::json!({
            "tokens": length / 4,
            "content": content,
            "chunk_order_index": self.made % 100,
            "file_path": "unknown_source",
            "llm_cache_list": [],
            "create_time": 1_795_330_024,
            "update_time": 1_795_330_024 + self.made,
            "_id": key,
            "stamp": format!("w{}-{}", self.orders.number, self.made),
        })
        .to_string()
    }

    fn write_pair(&mut self, index: usize) -> Result<(), Failure> {
        let [left, right, third] = pair_keys(self.orders.number, index);
        let value = (self.random.u32(..5) > 0).then(|| self.value(&left));
        let change =
            |space: &Namespace, key: &str| Change { space: space.clone(), key: key.into(), value: value.clone() };
        let changes = [change(&self.chunks, &left), change(&self.chunks, &right), change(&self.status, &third)];
        self.write("batch", &changes, Condition::Always)
    }

    /// Several shared keys in one request, some put and some deleted.
    fn write_batch_on_shared_keys(&mut self) -> Result<(), Failure> {
        let keys = self.random.choose_multiple(self.shared.clone(), 3);
        let mut changes = Vec::new();
        for key in keys {
            let value = (self.random.u32(..4) > 0).then(|| self.value(&key));
            changes.push(Change { space: self.chunks.clone(), key, value });
        }
        self.write("batch", &changes, Condition::Always)
    }

    /// Adds one to a counter that all workers share: read it, and write it back only if nobody wrote in between.
    fn raise_tally(&mut self) -> Result<(), Failure> {
        let key = format!("tally-{}", self.random.usize(..TALLIES));
        let found = self.status.get_raw(&key)?;
        self.log.count(self.side(), "read");
        self.beliefs.check_version(&self.status, &key, found.as_ref().map(Value::seq))?;
        let (count, condition) = match &found {
            Some(found) => {
                let value: serde_json::Value = serde_json::from_str(found.text())?;
                (value["count"].as_u64().ok_or("a tally without a count")?, Condition::IfSeq(found.seq()))
            }
            None => (0, Condition::IfAbsent),
        };
        let value = serde_json::json!({ "count": count + 1, "by": self.orders.number }).to_string();
        self.write("tally", &[put(&self.status.clone(), &key, value)], condition)
    }

    /// Writes a key only if nobody has written it before.
    fn claim(&mut self) -> Result<(), Failure> {
        let key = format!("claim-{:04}", self.random.usize(..CLAIMS));
        let value = self.value(&key);
        self.write("claim", &[put(&self.claims.clone(), &key, value)], Condition::IfAbsent)
    }

    /// Sends several writes over the one connection, none waiting for the answer to another.
    fn pipeline(&mut self) -> Result<(), Failure> {
        let mut begun = Vec::new();
        for (space, key) in self.random.choose_multiple(self.own.clone(), PIPELINED) {
            let value = self.value(&key);
            let pending = space.put_raw_later(&key, &value);
            begun.push((put(&space, &key, value), pending));
        }
        let mut outcomes = Vec::new();
        for (change, pending) in begun {
            outcomes.push((change, outcome(pending.and_then(Pending::wait))?));
        }
        // Acknowledged ones are logged before unknown ones: of what went together, the log tells no order.
        outcomes.sort_by_key(|(_, outcome)| matches!(outcome, Outcome::Unknown));
        for (change, outcome) in outcomes {
            self.note("pipelined", &[change], &outcome)?;
        }
        Ok(())
    }

    fn write(&mut self, kind: &'static str, changes: &[Change], condition: Condition) -> Result<(), Failure> {
        let outcome = outcome(send(&self.client, changes, condition))?;
        self.note(kind, changes, &outcome)
    }

    fn note(&mut self, kind: &'static str, changes: &[Change], outcome: &Outcome) -> Result<(), Failure> {
        self.log.write(self.side(), kind, changes, outcome)?;
        for change in changes {
            self.beliefs.wrote(change, outcome);
        }
        Ok(())
    }

    /// Counts a commit or flush. One whose answer the daemon's death took need not be known: it changes no record.
    fn settled(&mut self, kind: &'static str, result: Result<(), Error>) -> Result<(), Failure> {
        match result {
            Ok(()) => self.log.count(self.side(), kind),
            Err(error) if error.outcome_is_unknown() => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

fn own_key(worker: u64, index: usize) -> String {
    format!("chunk-w{worker}-{index:03}")
}

fn pair_keys(worker: u64, index: usize) -> [String; 3] {
    ["left", "right", "third"].map(|part| format!("pair-w{worker}-{index}-{part}"))
}

fn put(space: &Namespace, key: &str, value: String) -> Change {
    Change { space: space.clone(), key: key.to_owned(), value: Some(value) }
}

fn delete(space: &Namespace, key: &str) -> Change {
    Change { space: space.clone(), key: key.to_owned(), value: None }
}

/// Sends the changes as one request; the condition is for the first of them.
fn send(client: &Client, changes: &[Change], condition: Condition) -> Result<Written, Error> {
    if let ([change], Condition::Always) = (changes, condition) {
        return match &change.value {
            Some(value) => change.space.put_raw(&change.key, value),
            None => change.space.delete(&change.key),
        };
    }
    let mut batch = Batch::new();
    for (index, change) in changes.iter().enumerate() {
        let condition = if index == 0 { condition } else { Condition::Always };
        batch = match &change.value {
            Some(value) => batch.put_raw_if(&change.space, &change.key, value, condition)?,
            None => batch.delete_if(&change.space, &change.key, condition)?,
        };
    }
    client.write(&batch)
}
