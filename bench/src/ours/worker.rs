//! Worker processes of our side, driven over JSON lines as LightRAG's are: what 4 workers do at once is measured with 4
//! processes on both sides.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::{Helper, NAMESPACE};
use crate::latencies::Latencies;
use crate::record;

/// A worker's life, until its standard input ends.
pub fn serve(store: &Path) -> Result<()> {
    let client = super::connect_uncached(store)?;
    let namespace = client.namespace(NAMESPACE)?;
    let lock = client.lock(["bench"]);
    println!("{}", json!({"ready": true}));
    for line in std::io::stdin().lines() {
        let command: Value = serde_json::from_str(&line?)?;
        let number = |name: &str| command[name].as_u64().unwrap_or_default() as usize;
        let (count, first) = (number("count"), number("first"));
        let mut took = Vec::with_capacity(count);
        for call in 0..count {
            match command["op"].as_str() {
                Some("upsert") => {
                    let (key, value) = (record::key(first + call), record::value(first + call));
                    let began = Instant::now();
                    namespace.put_raw(&key, &value)?;
                    took.push(began.elapsed());
                }
                Some("get") => {
                    let key = record::key((first + call * 7_919) % number("records").max(1));
                    let began = Instant::now();
                    namespace.get_raw(&key)?.with_context(|| format!("{key} is there"))?;
                    took.push(began.elapsed());
                }
                Some("lock") => {
                    let began = Instant::now();
                    lock.acquire()?.release()?;
                    took.push(began.elapsed());
                }
                _ => bail!("a worker cannot do {command}"),
            }
        }
        let each: Vec<u64> = took.iter().map(|took| took.as_nanos() as u64).collect();
        println!("{}", json!({"ns": each}));
    }
    Ok(())
}

/// Several worker processes of one store.
pub struct Crew(Vec<Hand>);

struct Hand {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    _process: Helper,
}

impl Crew {
    pub fn start(store: &Path, workers: usize) -> Result<Self> {
        let own = std::env::current_exe()?;
        let hand = |_| -> Result<Hand> {
            let mut command = Command::new(&own);
            command.arg("worker").arg(store).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut process = Helper::start(&mut command)?;
            let (input, output) = process.pipes()?;
            let mut hand = Hand { input, output: BufReader::new(output), _process: process };
            hand.answer()?;
            Ok(hand)
        };
        Ok(Self((0..workers).map(hand).collect::<Result<_>>()?))
    }

    /// Has each worker do `count` calls of `op`, all at the same time, on keys of its own for writes; answers the seconds
    /// until the last one is done.
    pub fn all(&mut self, op: &str, count: usize, records: usize, latencies: &mut Latencies) -> Result<f64> {
        let began = Instant::now();
        for (index, hand) in self.0.iter_mut().enumerate() {
            let command = json!({"op": op, "count": count, "first": index * count, "records": records});
            writeln!(hand.input, "{command}")?;
        }
        let mut answers = Vec::with_capacity(self.0.len());
        for hand in &mut self.0 {
            answers.push(hand.answer()?);
        }
        let took = began.elapsed().as_secs_f64();
        for nanoseconds in answers.iter().flat_map(|answer| answer["ns"].as_array().into_iter().flatten()) {
            latencies.record_ns(nanoseconds.as_u64().unwrap_or_default());
        }
        Ok(took)
    }
}

impl Hand {
    fn answer(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        serde_json::from_str(&line).context("a worker of ours ended")
    }
}
