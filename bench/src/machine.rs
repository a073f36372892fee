//! Where and of what a result was measured: without it, figures are hearsay.

use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use serde_json::{Value, json};

use crate::case::Bench;
use crate::peers::redis::Redis;

/// One run of the benchmark.
pub struct Run {
    pub date: String,
    pub commit: String,
    pub quick: bool,
    pub machine: String,
    pub versions: String,
    /// Processes that were running or waiting to, on average over the minute before.
    pub load: String,
}

impl Run {
    pub fn now(bench: &Bench) -> Result<Self> {
        let processor = line_of("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown processor".to_owned());
        let memory = line_of("/proc/meminfo", "MemTotal").unwrap_or_default();
        let kib: f64 = memory.trim_end_matches("kB").trim().parse().unwrap_or_default();
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let count = bench.processors();
        let mut versions = vec![said_by(&bench.commonhold, &["--version"])];
        if let Some(redis) = &bench.redis {
            versions.push(format!("Redis {}", Redis::version(redis)?));
        }
        versions.push("LMDB through heed 0.22".to_owned());
        if let Some(python) = &bench.lightrag {
            let ask = "import importlib.metadata as m, platform as p; \
                       print('LightRAG', m.version('lightrag-hku'), 'on Python', p.python_version())";
            versions.push(said_by(python, &["-c", ask]));
        }
        Ok(Self {
            date: jiff::Zoned::now().strftime("%Y-%m-%d").to_string(),
            commit: commit(),
            quick: bench.scale.quick,
            machine: format!("{count} × {processor}, {:.0} GiB, Linux {}", kib / 1_048_576.0, kernel.trim()),
            versions: versions.join("; "),
            load: load.split_whitespace().next().unwrap_or("?").to_owned(),
        })
    }

    pub fn to_json(&self) -> Value {
        json!({
            "date": self.date,
            "commit": self.commit,
            "quick": self.quick,
            "machine": self.machine,
            "versions": self.versions,
            "load_at_start": self.load,
        })
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.quick { "quick run, whose figures say little" } else { "full sizes" };
        writeln!(f, "{} at commit {} ({kind})", self.date, self.commit)?;
        writeln!(f, "{}; load {} at the start", self.machine, self.load)?;
        write!(f, "{}", self.versions)
    }
}

/// The commit of the tree, and whether it was changed since.
fn commit() -> String {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(here).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    match (git(&["rev-parse", "--short=10", "HEAD"]), git(&["status", "--porcelain", "--untracked-files=no"])) {
        (Some(commit), Some(changes)) if changes.is_empty() => commit,
        (Some(commit), _) => format!("{commit} with changes"),
        _ => "unknown".to_owned(),
    }
}

fn said_by(program: &Path, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(|_| "?".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn line_of(file: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
