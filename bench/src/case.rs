//! What a case is, and what it may use: the programs of all sides, the sizes of this run, a directory of its own.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::outcome::Outcome;

/// One or several lines of the table.
pub struct Case {
    pub name: &'static str,
    pub what: &'static str,
    /// Whether a full run has it; otherwise it has to be named.
    pub in_full: bool,
    /// Whether `--quick` has it.
    pub in_quick: bool,
    pub run: fn(&Bench, &Path) -> Result<Vec<Outcome>>,
}

/// How much is measured.
#[derive(Clone, Copy)]
pub struct Scale {
    pub quick: bool,
    rounds: Option<usize>,
}

impl Scale {
    pub fn new(quick: bool, rounds: Option<usize>) -> Self {
        Self { quick, rounds }
    }

    /// One of two sizes.
    pub fn pick<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }

    /// How often the sides take turns where a turn takes milliseconds; an odd number has a median that was measured.
    pub fn rounds(&self) -> usize {
        self.rounds.unwrap_or(self.pick(3, 15))
    }

    /// How often where a turn takes seconds.
    pub fn few_rounds(&self) -> usize {
        self.rounds.unwrap_or(self.pick(1, 5))
    }
}

/// Which processors the bench and what it starts from then on may use.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// The kernel chooses.
    Free,
    /// All on the first one: no wake-up across processors hides what the code itself costs.
    Together,
    /// What is started now on the second one; the bench goes to the first with [`Bench::step_aside`].
    Apart,
}

/// All that the cases share.
pub struct Bench {
    pub scale: Scale,
    pub commonhold: PathBuf,
    pub redis: Option<PathBuf>,
    pub lightrag: Option<PathBuf>,
    scratch: PathBuf,
    processors: CpuSet,
    missing: Vec<String>,
}

impl Bench {
    pub fn new(
        scale: Scale,
        scratch: &Path,
        commonhold: &Path,
        redis: Option<PathBuf>,
        lightrag: Option<PathBuf>,
    ) -> Result<Self> {
        if !commonhold.is_file() {
            bail!("{} is not there: cargo build --release --bin commonhold", commonhold.display());
        }
        let mut missing = Vec::new();
        if redis.is_none() {
            missing.push("Redis (no redis-server was given)".to_owned());
        }
        if lightrag.is_none() {
            missing.push("LightRAG (no Python with lightrag-hku 1.5.7 was given)".to_owned());
        }
        let processors = sched_getaffinity(None).context("the processors cannot be asked for")?;
        let commonhold = commonhold.canonicalize()?;
        Ok(Self { scale, commonhold, redis, lightrag, scratch: scratch.to_owned(), processors, missing })
    }

    /// Which peers cannot be measured, and why.
    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    /// A fresh directory for one case; the caller removes it.
    pub fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.scratch.join(name);
        std::fs::create_dir(&path).with_context(|| format!("{} cannot be made", path.display()))?;
        Ok(path)
    }

    /// From here on this thread and the processes it starts run there.
    pub fn place(&self, placement: Placement) -> Result<()> {
        match placement {
            Placement::Free => sched_setaffinity(None, &self.processors).context("the processors cannot be set"),
            Placement::Together => self.only(0),
            Placement::Apart => self.only(1),
        }
    }

    /// After all peers were started apart: the bench itself to the first processor.
    pub fn step_aside(&self, placement: Placement) -> Result<()> {
        if placement == Placement::Apart { self.only(0) } else { Ok(()) }
    }

    pub fn processors(&self) -> usize {
        self.processors.count() as usize
    }

    fn only(&self, nth: usize) -> Result<()> {
        let allowed: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&cpu| self.processors.is_set(cpu)).collect();
        let mut one = CpuSet::new();
        one.set(allowed[nth.min(allowed.len() - 1)]);
        sched_setaffinity(None, &one).context("the processor cannot be set")
    }
}
