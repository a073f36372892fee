//! A Redis of Debian, over its Unix socket, with an append-only file: the peer of a store that is `buffered` syncs it
//! every second, that of one that is `synced` before each answer.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use redis::{Commands as _, Connection};

use crate::case::Bench;
use crate::ours::{Helper, until};
use crate::record;

pub const NAME: &str = "redis";

/// Records in a request while it is filled.
const CHUNK: usize = 1_000;

/// What becomes of a write before it is answered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    Everysec,
    Always,
    /// No append-only file: for snapshots alone.
    NoLog,
}

/// A server, which goes with this.
pub struct Redis {
    process: Helper,
    socket: PathBuf,
}

impl Redis {
    /// A server on an empty directory, or on what one left there; `None` where there is no Redis.
    pub fn start(bench: &Bench, directory: &Path, fsync: Fsync) -> Result<Option<Self>> {
        let Some(program) = &bench.redis else { return Ok(None) };
        let directory = directory.join("redis");
        std::fs::create_dir_all(&directory)?;
        let socket = directory.join("redis.sock");
        let (log, policy) = match fsync {
            Fsync::Everysec => ("yes", "everysec"),
            Fsync::Always => ("yes", "always"),
            Fsync::NoLog => ("no", "everysec"),
        };
        let mut command = Command::new(program);
        command
            .current_dir(&directory)
            .args(["--port", "0", "--unixsocket"])
            .arg(&socket)
            .args(["--daemonize", "no", "--save", "", "--rdbcompression", "no", "--loglevel", "warning"])
            .args(["--maxclients", "10000", "--enable-debug-command", "yes"])
            .args(["--appendonly", log, "--appendfsync", policy])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let redis = Self { process: Helper::start(&mut command)?, socket };
        until("Redis", || redis.connect().ok())?;
        Ok(Some(redis))
    }

    pub fn connect(&self) -> Result<Connection> {
        let client = redis::Client::open(self.address())?;
        let mut connection = client.get_connection()?;
        let pong: String = redis::cmd("PING").query(&mut connection)?;
        if pong != "PONG" {
            bail!("Redis answers {pong:?}");
        }
        connection.set_read_timeout(Some(Duration::from_mins(10)))?;
        Ok(connection)
    }

    /// Where its clients find it.
    pub fn address(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Stores the records `0..count`.
    pub fn fill(&self, count: usize, value: fn(usize) -> String) -> Result<()> {
        let mut connection = self.connect()?;
        for first in (0..count).step_by(CHUNK) {
            let numbers = first..(first + CHUNK).min(count);
            let records: Vec<_> = numbers.map(|number| (record::key(number), value(number))).collect();
            let _: () = connection.mset(&records)?;
        }
        Ok(())
    }

    /// A figure of `INFO`.
    pub fn info(&self, section: &str, name: &str) -> Result<u64> {
        let text: String = redis::cmd("INFO").arg(section).query(&mut self.connect()?)?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.with_context(|| format!("Redis does not tell {name}"))?.trim().parse().context("a number")
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn version(program: &Path) -> Result<String> {
        let output = Command::new(program).arg("--version").output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let version = text.split_whitespace().find_map(|word| word.strip_prefix("v="));
        Ok(version.unwrap_or("of unknown version").to_owned())
    }
}
