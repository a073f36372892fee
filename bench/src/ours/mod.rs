//! Our side: a daemon on a fresh store, clients of it, worker processes; and the processes of all sides, which go with
//! the case that started them.

pub mod worker;

use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use commonhold::blocking::{Client, ConnectOptions, FlushOptions, Namespace};
use serde_json::Value;

use crate::case::Bench;
use crate::record;

pub const NAME: &str = "commonhold";
pub const NAMESPACE: &str = "bench";

/// A process that goes with the bench.
pub struct Helper(Child);

impl Helper {
    pub fn start(command: &mut Command) -> Result<Self> {
        let child =
            command.spawn().with_context(|| format!("{} cannot be started", command.get_program().display()))?;
        Ok(Self(child))
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Its standard streams, which must be piped; once.
    pub fn pipes(&mut self) -> Result<(ChildStdin, ChildStdout)> {
        let missing = "it was started with pipes, which are taken once";
        Ok((self.0.stdin.take().context(missing)?, self.0.stdout.take().context(missing)?))
    }

    /// Waits so long for it to end, and then ends the process group that it leads.
    pub fn end_by_itself(&mut self, wait: Duration) {
        let until = Instant::now() + wait;
        while Instant::now() < until {
            if !matches!(self.0.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        if let Some(group) = rustix::process::Pid::from_raw(self.0.id().cast_signed()) {
            // What is gone already needs no end.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }

    pub fn kill(&mut self) {
        // It may have ended by itself; either way it is gone after this.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits for something that another process does.
pub fn until<T>(what: &str, mut tried: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + Duration::from_mins(5);
    loop {
        if let Some(done) = tried() {
            return Ok(done);
        }
        if Instant::now() >= deadline {
            bail!("waited in vain for {what}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Resident bytes of a process now, and at most so far.
pub fn resident(pid: u32) -> Result<(u64, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| -> Result<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).context("Linux tells")?;
        let kib: u64 = line.trim_start_matches(':').trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib * 1_024)
    };
    Ok((field("VmRSS")?, field("VmHWM")?))
}

/// From here on the most of [`resident`] is counted anew.
pub fn forget_peak(pid: u32) -> Result<()> {
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").context("the peak of memory cannot be set back")
}

/// A daemon, which goes with this.
pub struct Daemon {
    process: Helper,
    store: PathBuf,
}

impl Daemon {
    /// A daemon on the store in `directory`, which is made if it is not there, when clients can connect.
    pub fn start(bench: &Bench, directory: &Path, options: &[&str]) -> Result<Self> {
        let store = directory.join("store");
        std::fs::create_dir_all(&store)?;
        let mut command = Command::new(&bench.commonhold);
        // One whose bench was killed ends some time later.
        command.args(["--quiet", "serve", "--announce", "--idle-exit", "5min"]);
        command.args(options).arg(&store).stdout(Stdio::piped());
        command.stderr(std::fs::File::create(directory.join("daemon.log"))?);
        let mut process = Helper::start(&mut command)?;
        let mut word = String::new();
        let stdout = process.0.stdout.as_mut().expect("piped");
        BufReader::new(stdout.by_ref()).read_line(&mut word)?;
        if word.trim() != "ready" {
            let log = std::fs::read_to_string(directory.join("daemon.log")).unwrap_or_default();
            bail!("the daemon did not start: {log}");
        }
        Ok(Self { process, store })
    }

    pub fn store(&self) -> &Path {
        &self.store
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Ends it as an operator does; its files are up to date then.
    pub fn stop(mut self) -> Result<()> {
        self.connect()?.stop()?;
        self.process.0.wait()?;
        Ok(())
    }

    /// A client as `Client::connect` gives it.
    pub fn connect(&self) -> Result<Client> {
        Ok(Client::connect_with(&self.store, long_lived())?)
    }

    /// A client that asks the daemon for each read: without a near cache.
    pub fn connect_uncached(&self) -> Result<Client> {
        connect_uncached(&self.store)
    }

    /// The namespace that is measured, of a new client as `Client::connect` gives it.
    pub fn namespace(&self) -> Result<Namespace> {
        Ok(self.connect()?.namespace(NAMESPACE)?)
    }

    /// The same, without a near cache.
    pub fn uncached(&self) -> Result<Namespace> {
        Ok(self.connect_uncached()?.namespace(NAMESPACE)?)
    }

    /// Stores the records `0..count` and brings the file up to date, so that no flush of them disturbs what follows.
    pub fn fill(&self, count: usize, value: fn(usize) -> String) -> Result<()> {
        self.fill_namespace(NAMESPACE, count, value)
    }

    /// The same in another namespace.
    pub fn fill_namespace(&self, name: &str, count: usize, value: fn(usize) -> String) -> Result<()> {
        let namespace = self.connect_uncached()?.namespace(name)?;
        let mut load = namespace.bulk_writer();
        for number in 0..count {
            load.put_raw(&record::key(number), &value(number))?;
        }
        load.finish()?;
        namespace.flush_with(FlushOptions::default())?;
        Ok(())
    }

    pub fn status(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.connect()?.status()?)?)
    }
}

/// A client without a near cache.
pub fn connect_uncached(store: &Path) -> Result<Client> {
    Ok(Client::connect_with(store, long_lived().cache_bytes(0))?)
}

/// Requests behind a load or a crowd may take long, and none is to fail for that.
fn long_lived() -> ConnectOptions {
    ConnectOptions::new().timeout(Some(Duration::from_mins(10)))
}
