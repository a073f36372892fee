//! LightRAG's own `JsonKVStorage` and `shared_storage` in worker processes of Python, driven over JSON lines so that
//! its turns lie between ours. `bench/peers/lightrag_bench.py` is the other end. It syncs nothing, ever.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::case::Bench;
use crate::latencies::Latencies;
use crate::ours::Helper;
use crate::record;

pub const NAME: &str = "lightrag";

/// The namespace that is measured; as in a real store, one that is neither a cache nor has extra fields.
pub const NAMESPACE: &str = "bench";

/// A manager process and its workers.
pub struct LightRag {
    /// Taken at the end: it is what tells them.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    log: PathBuf,
    process: Helper,
}

/// What the workers did at one command.
pub struct Done {
    /// From the command to the last worker's answer.
    pub seconds: f64,
    pub answers: Vec<Value>,
}

impl LightRag {
    /// `workers` processes that share a store of `records` records; `None` where there is no LightRAG.
    pub fn start(bench: &Bench, directory: &Path, workers: usize, records: usize) -> Result<Option<Self>> {
        let Some(python) = &bench.lightrag else { return Ok(None) };
        let directory = directory.join("lightrag");
        std::fs::create_dir_all(&directory)?;
        fill(&directory, records)?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/lightrag_bench.py");
        let log = directory.join("log");
        let mut command = Command::new(python);
        command
            .arg(script)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .current_dir(&directory)
            // A group of its own, all of which can be ended; an interrupt reaches it as the end of its input.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log)?);
        let mut process = Helper::start(&mut command)?;
        let (input, output) = process.pipes()?;
        let mut peer = Self { input: Some(input), output: BufReader::new(output), log, process };
        peer.ask(&json!({
            "op": "start",
            "workers": workers,
            "directory": directory,
            "namespace": NAMESPACE,
            "content": record::content(0),
        }))?;
        Ok(Some(peer))
    }

    /// Has the first `workers` workers do `command` at the same time.
    pub fn all(&mut self, workers: usize, mut command: Value) -> Result<Done> {
        command["among"] = json!(workers);
        let answer = self.ask(&command)?;
        let seconds = answer["seconds"].as_f64().context("LightRAG's side does not tell its time")?;
        let answers = answer["answers"].as_array().cloned().unwrap_or_default();
        Ok(Done { seconds, answers })
    }

    /// Has the first worker do it.
    pub fn one(&mut self, command: Value) -> Result<Value> {
        let mut done = self.all(1, command)?;
        done.answers.pop().context("LightRAG's side gives no answer")
    }

    fn ask(&mut self, command: &Value) -> Result<Value> {
        let input = self.input.as_mut().context("it has not ended")?;
        writeln!(input, "{command}")?;
        input.flush()?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        if line.is_empty() {
            bail!("LightRAG's side ended at {command}: {}", last_lines(&self.log));
        }
        let answer: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
        match answer.get("error") {
            Some(error) => bail!("LightRAG's side: {error}"),
            None => Ok(answer),
        }
    }
}

impl Drop for LightRag {
    /// Lets the master end its manager and its workers: killed, it would leave them behind with all their records.
    fn drop(&mut self) {
        drop(self.input.take());
        self.process.end_by_itself(Duration::from_secs(30));
    }
}

/// Records the single latencies in an answer, and answers the mean in nanoseconds.
pub fn took(answer: &Value, latencies: &mut Latencies) -> Result<f64> {
    let each = answer["ns"].as_array().context("LightRAG's side does not tell what calls took")?;
    let all: Vec<u64> = each.iter().filter_map(Value::as_u64).collect();
    for &nanoseconds in &all {
        latencies.record_ns(nanoseconds);
    }
    Ok(all.iter().sum::<u64>() as f64 / all.len().max(1) as f64)
}

/// The file of a store that LightRAG wrote: what it loads at its start.
fn fill(directory: &Path, records: usize) -> Result<()> {
    let path = directory.join(format!("kv_store_{NAMESPACE}.json"));
    let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
    file.write_all(b"{")?;
    for number in 0..records {
        let comma = if number == 0 { "" } else { "," };
        write!(file, "{comma}\n\"{}\":{}", record::key(number), record::value(number))?;
    }
    file.write_all(b"\n}")?;
    Ok(file.flush()?)
}

fn last_lines(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}
