//! A worker process as `scripts/crash-loop` runs several of them: it writes one store together with the others, in every
//! way there is, while the daemon, and now and then the worker itself, is killed.
//!
//! It obeys lines on its standard input (`go`, `pause`; the end of it ends the worker) and answers `paused` once nothing
//! of it is under way. Each request is logged twice: what it changes, as of unknown outcome, before it is sent, and what
//! became of it as soon as that is known; so a worker that is killed leaves no write untold. A worker that lives learns every
//! outcome, however often the daemon is killed: one that stays unknown ends it.

#[path = "worker/change.rs"]
mod change;

use std::fs::File;
use std::io::{BufRead as _, Write as _};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::Duration;

use commonhold::blocking::{Batch, Client, Condition, ConnectOptions, Durability, Error, Namespace, Seq, Written};
use serde_json::json;

use change::{Change, Outcome, outcome};

type Failure = Box<dyn std::error::Error>;

const USAGE: &str = "storm STORE NUMBER SEED LOG";
/// Keys in each namespace that only this worker writes.
const OWN_KEYS: usize = 12;
/// Keys in each namespace that every worker writes.
const SHARED_KEYS: usize = 10;
/// Pairs of keys, in two namespaces, that only one request at a time ever writes.
const PAIRS: usize = 4;
/// Writes that are sent over one connection without waiting for each other.
const PIPELINED: usize = 16;
/// Counters that every worker raises by one.
const TALLIES: usize = 3;
/// The namespaces, the last of which is also cleared and dropped. The counters have one of their own.
const SPACES: [(&str, &str); 4] = [("", "chunks"), ("", "docs"), ("tenant_a", "chunks"), ("", "scratch")];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [store, number, seed, log] = arguments.as_slice() else {
        eprintln!("usage: {USAGE}");
        return ExitCode::from(2);
    };
    match Storm::begin(store, number, seed, log).and_then(Storm::obey) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("storm {number}: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// One operation of a request.
enum Step {
    Set(Change),
    Clear(Namespace),
}

struct Storm {
    number: u64,
    client: Client,
    spaces: Vec<Namespace>,
    tallies: Namespace,
    random: fastrand::Rng,
    log: File,
    requests: u64,
    made: u64,
}

impl Storm {
    fn begin(store: &str, number: &str, seed: &str, log: &str) -> Result<Self, Failure> {
        let client = ConnectOptions::new()
            .timeout(Some(Duration::from_mins(2)))
            .reconnect_for(Duration::from_mins(1))
            .connect(store)?;
        let open = |(workspace, name): (&str, &str)| match workspace {
            "" => client.namespace(name),
            _ => client.workspace(workspace)?.namespace(name),
        };
        let spaces = SPACES.into_iter().map(open).collect::<Result<_, _>>()?;
        let tallies = client.namespace("tallies")?;
        let number: u64 = number.parse()?;
        let random = fastrand::Rng::with_seed(seed.parse::<u64>()? ^ (number << 32));
        Ok(Self { number, client, spaces, tallies, random, log: File::create(log)?, requests: 0, made: 0 })
    }

    fn obey(mut self) -> Result<(), Failure> {
        let orders = orders();
        loop {
            // Paused: nothing is under way, and the log is whole.
            println!("paused");
            loop {
                match orders.recv() {
                    Ok(order) if order == "go" => break,
                    Ok(_) => println!("paused"),
                    Err(_) => return Ok(()),
                }
            }
            loop {
                match orders.try_recv() {
                    Err(TryRecvError::Empty) => self.step()?,
                    Err(TryRecvError::Disconnected) => return Ok(()),
                    Ok(order) if order == "pause" => break,
                    Ok(_) => {}
                }
            }
        }
    }

    /// One request, or one group of them, chosen by chance.
    fn step(&mut self) -> Result<(), Failure> {
        match self.random.u32(..1_000) {
            0..150 => self.read(),
            150..450 => {
                let step = self.any_change();
                self.write("one", vec![step], Condition::Always)
            }
            450..600 => {
                let count = self.random.usize(2..12);
                let steps = (0..count).map(|_| self.any_change()).collect();
                self.write("batch", steps, Condition::Always)
            }
            600..740 => self.write_pair(),
            740..800 => {
                let step = self.any_change();
                self.write("claim", vec![step], Condition::IfAbsent)
            }
            800..830 => {
                // What comes after the clear is there afterwards.
                let scratch = self.spaces[SPACES.len() - 1].clone();
                let mut steps = vec![Step::Clear(scratch)];
                steps.extend((0..self.random.usize(..4)).map(|_| self.any_change()));
                self.write("clear", steps, Condition::Always)
            }
            830..880 => self.pipeline(),
            880..930 => self.raise_tally(),
            930..960 => {
                let committed = self.client.commit();
                self.settled(committed)
            }
            960..990 => {
                let flushed = self.random.choice(&self.spaces).expect("there are four").flush();
                self.settled(flushed.map(|flushed| flushed.seq))
            }
            990..994 => self.drop_scratch(),
            _ => {
                let flushed = self.client.flush();
                self.settled(flushed.map(|flushed| flushed.seq))
            }
        }
    }

    fn any_change(&mut self) -> Step {
        let space = self.random.choice(&self.spaces).expect("there are four").clone();
        let key = if self.random.u32(..3) == 0 {
            format!("shared-{}", self.random.usize(..SHARED_KEYS))
        } else {
            format!("own-{}-{}", self.number, self.random.usize(..OWN_KEYS))
        };
        let value = (self.random.u32(..5) > 0).then(|| self.value());
        Step::Set(Change { space, key, value })
    }

    /// No two are equal; one in a hundred is larger than a page of the journal.
    fn value(&mut self) -> String {
        self.made += 1;
        let longest = if self.random.u32(..100) == 0 { 40_000 } else { 500 };
        let text = "x".repeat(self.random.usize(..longest));
        json!({ "by": self.number, "made": self.made, "run": self.random.u64(..), "text": text }).to_string()
    }

    /// All records and the file: the next write makes the namespace anew.
    fn drop_scratch(&mut self) -> Result<(), Failure> {
        let scratch = self.spaces[SPACES.len() - 1].clone();
        let request = self.note_begun("drop", &[Step::Clear(scratch.clone())], None)?;
        match scratch.drop_namespace() {
            // Where there is nothing to drop, nothing is written, and the Seq is that of the write before.
            Ok(dropped) if dropped.records == 0 => self.note_outcome(request, &Outcome::Refused),
            Ok(dropped) => self.note_outcome(request, &Outcome::Acknowledged(dropped.seq)),
            Err(error) => Err(error.into()),
        }
    }

    /// Both keys of a pair hold the same value, whoever reads them, and whenever the daemon dies.
    fn write_pair(&mut self) -> Result<(), Failure> {
        let key = format!("pair-{}-{}", self.number, self.random.usize(..PAIRS));
        let value = (self.random.u32(..6) > 0).then(|| self.value());
        let half =
            |space: &Namespace| Step::Set(Change { space: space.clone(), key: key.clone(), value: value.clone() });
        let steps = vec![half(&self.spaces[0]), half(&self.spaces[2])];
        self.write("pair", steps, Condition::Always)
    }

    fn read(&mut self) -> Result<(), Failure> {
        let space = self.random.choice(&self.spaces).expect("there are four");
        let key = format!("shared-{}", self.random.usize(..SHARED_KEYS));
        if let Some(found) = space.get_raw(&key)? {
            serde_json::from_str::<serde_json::Value>(found.text())?;
        }
        Ok(())
    }

    /// Sends a request whose first operation has a condition.
    fn write(&mut self, kind: &str, steps: Vec<Step>, condition: Condition) -> Result<(), Failure> {
        let durability = match self.random.u32(..20) {
            0 => Some(Durability::Synced),
            1..3 => Some(Durability::Buffered),
            _ => None,
        };
        let request = self.note_begun(kind, &steps, durability)?;
        let mut batch = Batch::new();
        let mut condition = Some(condition);
        for step in steps {
            let condition = condition.take().unwrap_or_default();
            batch = match step {
                Step::Clear(space) => batch.clear(&space)?,
                Step::Set(Change { space, key, value: Some(value) }) => {
                    batch.put_raw_if(&space, &key, &value, condition)?
                }
                Step::Set(Change { space, key, value: None }) => batch.delete_if(&space, &key, condition)?,
            };
        }
        if let Some(durability) = durability {
            batch = batch.durability(durability);
        }
        let outcome = outcome(self.client.write(&batch))?;
        self.note_outcome(request, &outcome)
    }

    /// Sends several writes over the one connection, none waiting for the answer to another.
    fn pipeline(&mut self) -> Result<(), Failure> {
        let mut begun = Vec::new();
        for _ in 0..PIPELINED {
            let space = self.random.choice(&self.spaces).expect("there are four").clone();
            let key = format!("own-{}-{}", self.number, self.random.usize(..OWN_KEYS));
            let value = self.value();
            let step = Step::Set(Change { space: space.clone(), key: key.clone(), value: Some(value.clone()) });
            let request = self.note_begun("pipelined", &[step], None)?;
            begun.push((request, space.put_raw_later(&key, &value)));
        }
        for (request, pending) in begun {
            let written: Result<Written, Error> = pending.and_then(commonhold::blocking::Pending::wait);
            self.note_outcome(request, &outcome(written)?)?;
        }
        Ok(())
    }

    /// What it was is not known, only that it is one more afterwards, and only once.
    fn raise_tally(&mut self) -> Result<(), Failure> {
        let key = format!("tally-{}", self.random.usize(..TALLIES));
        self.requests += 1;
        let line = json!({
            "seq": "unknown", "kind": "tally", "request": self.requests,
            "namespace": "tallies", "key": key, "state": "+1", "durability": null,
        });
        self.log.write_all(format!("{line}\n").as_bytes())?;
        let raised = self.tallies.increment(&key, "count", 1_i64);
        self.note_outcome(self.requests, &outcome(raised)?)
    }

    /// Logs what a request is about to change; whoever reads no more of it than this knows nothing of its outcome.
    fn note_begun(&mut self, kind: &str, steps: &[Step], durability: Option<Durability>) -> Result<u64, Failure> {
        self.requests += 1;
        let mut lines = String::new();
        for step in steps {
            let mut line = match step {
                Step::Set(change) => change.line(kind, self.requests, &Outcome::Unknown),
                Step::Clear(space) => json!({
                    "seq": "unknown", "kind": kind, "request": self.requests,
                    "namespace": space.place().to_string(), "key": null, "state": "deleted",
                }),
            };
            line["durability"] = json!(durability.map(|durability| durability.name()));
            lines.push_str(&line.to_string());
            lines.push('\n');
        }
        self.log.write_all(lines.as_bytes())?;
        Ok(self.requests)
    }

    fn note_outcome(&mut self, request: u64, outcome: &Outcome) -> Result<(), Failure> {
        let seq = match outcome {
            Outcome::Acknowledged(seq) => json!(seq.0),
            Outcome::Refused => json!("refused"),
            Outcome::Unknown => return Ok(()),
        };
        Ok(self.log.write_all(format!("{}\n", json!({ "request": request, "seq": seq })).as_bytes())?)
    }

    /// Logs that everything up to a Seq is on the platter.
    fn settled(&mut self, result: Result<Seq, Error>) -> Result<(), Failure> {
        match result {
            Ok(seq) => Ok(self.log.write_all(format!("{}\n", json!({ "settled": seq.0 })).as_bytes())?),
            Err(error) => Err(error.into()),
        }
    }
}

/// The lines of standard input; the channel closes at its end.
fn orders() -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
