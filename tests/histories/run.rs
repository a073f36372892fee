//! One history: a store, its daemons, eight workers, a flush that never ends, and what is done to them all.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use commonhold::blocking::{Client, ConnectOptions, FlushOptions};
use rustix::process::{Pid, Signal, kill_process};

use super::asker::{Asker, connect};
use super::history::{Boot, History};
use super::recorder::{Failure, now};
use super::worker::{READERS, Worker, log_of_reader, passes};

/// Longer than anything here takes.
const DEADLINE: Duration = Duration::from_mins(1);
/// How long a point is waited for; in some moments nobody comes by.
const REACH: Duration = Duration::from_millis(250);
const WORKERS: usize = 8;
/// Connections that take the daemon's threads, so that workers are served by tasks; in some histories.
const CROWD: usize = 64;
const CROWDS_PATIENCE: Duration = Duration::from_secs(1);
/// How long at least a killed daemon's clients have to notice, before the next one is started.
const AWAKE: Duration = Duration::from_millis(10);
/// What is done to the processes in a history.
const BLOWS: usize = 7;
/// Names the file through which a daemon is told where to linger.
const FAULTPOINTS: &str = "COMMONHOLD_FAULTPOINTS";
/// Read by a daemon with the feature `faultpoints`: which promise it is to break.
const SEEDED_FAULT: &str = "COMMONHOLD_SEEDED_FAULT";
/// Where a daemon built with the feature `faultpoints` may be killed, and the greatest count that is waited for.
const POINTS: [(&str, u32); 10] = [
    ("append-before", 60),
    ("append-torn", 60),
    ("append-after", 60),
    ("sync-before", 4),
    ("sync-after", 4),
    ("flush-torn", 4),
    ("flush-intended", 4),
    ("flush-linked", 4),
    ("flush-renamed", 4),
    ("flush-done", 4),
];

/// What was done in one or more histories.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Blows {
    pub(crate) daemons_killed: u64,
    /// Of these at a point.
    pub(crate) at_points: u64,
    pub(crate) daemons_ended: u64,
    pub(crate) workers_killed: u64,
    pub(crate) daemons_stopped: u64,
    pub(crate) workers_stopped: u64,
    pub(crate) flushes: u64,
    /// Reads that the workers' near caches have answered, and those that they have not.
    pub(crate) hits: u64,
    pub(crate) misses: u64,
}

impl Blows {
    pub(crate) fn add(&mut self, other: Self) {
        self.daemons_killed += other.daemons_killed;
        self.at_points += other.at_points;
        self.daemons_ended += other.daemons_ended;
        self.workers_killed += other.workers_killed;
        self.daemons_stopped += other.daemons_stopped;
        self.workers_stopped += other.workers_stopped;
        self.flushes += other.flushes;
        self.hits += other.hits;
        self.misses += other.misses;
    }
}

struct Daemon {
    child: Child,
    /// Kept open: nothing is said there any more.
    said: BufReader<ChildStdout>,
}

struct Process {
    number: u32,
    child: Child,
    log: PathBuf,
}

struct Run<'a> {
    dir: &'a Path,
    binary: &'a Path,
    seeded: Option<&'a str>,
    random: fastrand::Rng,
    seed: u64,
    daemon: Option<Daemon>,
    boots: Vec<Boot>,
    workers: Vec<Process>,
    /// Number, log, and when a killed one was over.
    logs: Vec<(u32, PathBuf, Option<u64>)>,
    spawned: u32,
    blows: Blows,
    crowd: Vec<Client>,
}

/// Runs a history in `dir`, an empty directory, with the daemon `binary`, which may be told to have a fault.
pub(crate) fn run(dir: &Path, binary: &Path, seeded: Option<&str>, seed: u64) -> Result<(History, Blows), Failure> {
    fs::create_dir(dir.join("store"))?;
    let mut run = Run {
        dir,
        binary,
        seeded,
        random: fastrand::Rng::with_seed(seed),
        seed,
        daemon: None,
        boots: Vec::new(),
        workers: Vec::new(),
        logs: Vec::new(),
        spawned: 0,
        blows: Blows::default(),
        crowd: Vec::new(),
    };
    let done = run.through();
    run.end_all();
    let history = done?;
    Ok((history, run.blows))
}

impl Run<'_> {
    fn through(&mut self) -> Result<History, Failure> {
        self.start_daemon()?;
        if self.random.u32(..4) == 0 {
            let client = || ConnectOptions::new().timeout(Some(CROWDS_PATIENCE)).connect(self.store());
            self.crowd = (0..CROWD).map(|_| client()).collect::<Result<_, _>>()?;
        }
        let over = Arc::new(AtomicBool::new(false));
        let flusher = flush_all_the_while(&self.store(), &over);
        for _ in 0..WORKERS {
            self.start_worker()?;
        }
        let done = (0..BLOWS).try_for_each(|_| {
            thread::sleep(Duration::from_millis(self.random.u64(10..90)));
            self.blow()
        });
        let rest = done.and_then(|()| self.finish());
        over.store(true, Ordering::Relaxed);
        let flushes = flusher.join().map_err(|_| "the flushing thread panicked")?;
        rest?;
        self.blows.flushes = flushes?;
        self.look_after_all()?;
        let mut history = History::new(self.seed, self.boots.clone());
        for (number, log, gone) in &self.logs {
            history.add(*number, log, *gone)?;
            // One that was killed early has told nothing.
            let told = fs::read_to_string(log.with_extension("hits")).unwrap_or_default();
            if let Some((hits, misses)) = told.split_once(' ') {
                self.blows.hits += hits.parse::<u64>()?;
                self.blows.misses += misses.parse::<u64>().unwrap_or_default();
            }
        }
        Ok(history)
    }

    fn store(&self) -> PathBuf {
        self.dir.join("store")
    }

    /// Starts a daemon and waits until clients can connect.
    fn start_daemon(&mut self) -> Result<(), Failure> {
        self.spawn_daemon()?;
        let daemon = self.daemon.as_mut().expect("it was just spawned");
        let mut word = String::new();
        daemon.said.read_line(&mut word)?;
        if word.trim() == "ready" {
            // They connect again, some before the workers do and some after them. Whoever does not may stay away.
            self.crowd.iter().for_each(|client| drop(client.ping()));
            return Ok(());
        }
        let log = fs::read_to_string(self.dir.join("daemon.log")).unwrap_or_default();
        Err(format!("the daemon did not start: {log}").into())
    }

    fn spawn_daemon(&mut self) -> Result<(), Failure> {
        // Until a client's thread has woken up it may be served what it keeps of a killed daemon (`docs/near-cache.md`), and
        // nobody else answers: all that time is the killed one's end.
        if let Some(Boot { gone: Some((_, over)), killed: true, .. }) = self.boots.last_mut() {
            *over = now();
        }
        let durability = *self.random.choice(&["memory", "buffered", "buffered", "synced"]).expect("some");
        let limit = *self.random.choice(&["1m", "2m", "64m"]).expect("some");
        let log = File::options().create(true).append(true).open(self.dir.join("daemon.log"))?;
        let mut command = Command::new(self.binary);
        command.args(["serve", "--announce", "--durability", durability, "--journal-limit", limit]);
        if self.random.bool() {
            command.args(["--preload", "all"]);
        }
        command.arg("--").arg(self.store());
        command.env(FAULTPOINTS, self.dir.join("faultpoint")).env_remove("COMMONHOLD_STORE").env_remove("RUST_LOG");
        match self.seeded {
            Some(fault) => command.env(SEEDED_FAULT, fault),
            None => command.env_remove(SEEDED_FAULT),
        };
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn()?;
        let said = BufReader::new(child.stdout.take().ok_or("it is piped")?);
        self.boots.push(Boot { memory: durability == "memory", gone: None, killed: false });
        self.daemon = Some(Daemon { child, said });
        Ok(())
    }

    fn start_worker(&mut self) -> Result<(), Failure> {
        self.spawned += 1;
        let number = self.spawned;
        let log = self.dir.join(format!("worker-{number}.log"));
        let errors = File::create(self.dir.join(format!("worker-{number}.err")))?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--as-worker").arg(self.store()).args([number.to_string(), self.seed.to_string()]).arg(&log);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(errors).spawn()?;
        self.workers.push(Process { number, child, log });
        Ok(())
    }

    /// Something bad, by chance.
    fn blow(&mut self) -> Result<(), Failure> {
        match self.random.u32(..100) {
            0..35 => {
                self.kill_daemon()?;
                self.start_again()
            }
            35..45 => {
                // It dies while it stands still, and with it may die who asked it something meanwhile.
                self.signal_daemon(Signal::STOP)?;
                thread::sleep(Duration::from_millis(self.random.u64(5..40)));
                if self.random.bool() {
                    self.kill_worker()?;
                }
                self.kill_daemon_now()?;
                self.start_again()
            }
            45..60 => {
                self.signal_daemon(Signal::STOP)?;
                thread::sleep(Duration::from_millis(self.random.u64(5..100)));
                if self.random.u32(..3) == 0 {
                    self.kill_worker()?;
                }
                self.blows.daemons_stopped += 1;
                self.signal_daemon(Signal::CONT)
            }
            60..75 => self.kill_worker(),
            75..88 => {
                let worker = self.random.choice(&self.workers).expect("some are left");
                let pid = pid(&worker.child)?;
                kill_process(pid, Signal::STOP)?;
                thread::sleep(Duration::from_millis(self.random.u64(5..60)));
                self.blows.workers_stopped += 1;
                Ok(kill_process(pid, Signal::CONT)?)
            }
            _ => {
                self.end_daemon()?;
                self.start_daemon()
            }
        }
    }

    /// Starts a daemon, sometimes after one that does not live long enough to serve.
    fn start_again(&mut self) -> Result<(), Failure> {
        if self.random.u32(..4) == 0 {
            self.spawn_daemon()?;
            thread::sleep(Duration::from_millis(self.random.u64(..40)));
            self.kill_daemon_now()?;
        }
        thread::sleep(AWAKE + Duration::from_millis(self.random.u64(..30)));
        self.start_daemon()
    }

    fn signal_daemon(&self, signal: Signal) -> Result<(), Failure> {
        let daemon = self.daemon.as_ref().ok_or("there is no daemon")?;
        Ok(kill_process(pid(&daemon.child)?, signal)?)
    }

    /// At a point if the daemon knows of any, or right now.
    fn kill_daemon(&mut self) -> Result<(), Failure> {
        if cfg!(feature = "faultpoints") && self.random.u32(..4) > 0 {
            let (point, most) = *self.random.choice(&POINTS).expect("some");
            let file = self.dir.join("faultpoint");
            let wanted = format!("want {point} {}\n", self.random.u32(1..=most));
            // Renamed into place, so that the daemon never reads half of it.
            let new = self.dir.join("faultpoint.new");
            fs::write(&new, &wanted)?;
            fs::rename(&new, &file)?;
            let deadline = Instant::now() + REACH;
            let has_reached = || fs::read_to_string(&file).is_ok_and(|text| text.starts_with("reached"));
            while !has_reached() && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(2));
            }
            self.blows.at_points += u64::from(has_reached());
            thread::sleep(Duration::from_millis(self.random.u64(..20)));
            self.kill_daemon_now()?;
            fs::remove_file(&file)?;
            return Ok(());
        }
        self.kill_daemon_now()
    }

    fn kill_daemon_now(&mut self) -> Result<(), Failure> {
        let begun = now();
        let mut daemon = self.daemon.take().ok_or("there is no daemon")?;
        if let Some(status) = daemon.child.try_wait()? {
            let log = fs::read_to_string(self.dir.join("daemon.log")).unwrap_or_default();
            return Err(format!("the daemon ended by itself with {status}: {log}").into());
        }
        daemon.child.kill()?;
        daemon.child.wait()?;
        self.note_gone(begun, true);
        self.blows.daemons_killed += 1;
        Ok(())
    }

    /// As an operator does it: what is buffered is written, every namespace flushed.
    fn end_daemon(&mut self) -> Result<(), Failure> {
        let begun = now();
        self.signal_daemon(Signal::TERM)?;
        let daemon = self.daemon.take().ok_or("there is no daemon")?;
        let status = ended(daemon.child, "the daemon")?;
        if !status.success() {
            let log = fs::read_to_string(self.dir.join("daemon.log")).unwrap_or_default();
            return Err(format!("the daemon ended with {status}: {log}").into());
        }
        self.note_gone(begun, false);
        self.blows.daemons_ended += 1;
        Ok(())
    }

    fn note_gone(&mut self, begun: u64, killed: bool) {
        let boot = self.boots.last_mut().expect("a daemon has a boot");
        (boot.gone, boot.killed) = (Some((begun, now())), killed);
    }

    /// Another one takes its place.
    fn kill_worker(&mut self) -> Result<(), Failure> {
        let index = self.random.usize(..self.workers.len());
        let mut worker = self.workers.swap_remove(index);
        if let Some(status) = worker.child.try_wait()? {
            return Err(Self::ended_by_itself(&worker, &status.to_string()));
        }
        worker.child.kill()?;
        worker.child.wait()?;
        let over = now();
        self.add_logs(worker.number, worker.log, Some(over));
        self.blows.workers_killed += 1;
        self.start_worker()
    }

    /// Lets the workers come to an end.
    fn finish(&mut self) -> Result<(), Failure> {
        for worker in &mut self.workers {
            drop(worker.child.stdin.take());
        }
        while let Some(worker) = self.workers.pop() {
            let Process { number, child, log } = worker;
            let status = ended(child, &format!("worker {number}"))?;
            if !status.success() {
                let errors = fs::read_to_string(log.with_extension("err")).unwrap_or_default();
                return Err(format!("worker {number} ended with {status}: {errors}").into());
            }
            self.add_logs(number, log, None);
        }
        Ok(())
    }

    /// What a worker has recorded, and its reading thread. One that was killed before it began has recorded nothing.
    fn add_logs(&mut self, number: u32, log: PathBuf, gone: Option<u64>) {
        let both = [(READERS + number, log_of_reader(&log)), (number, log)];
        self.logs.extend(both.into_iter().filter(|(_, log)| log.exists()).map(|(number, log)| (number, log, gone)));
    }

    /// Reads everything, as it is and as the next daemon has it.
    fn look_after_all(&mut self) -> Result<(), Failure> {
        let log = self.dir.join("supervisor.log");
        let client = connect(&self.store(), DEADLINE, &AtomicBool::new(false))?.ok_or("nobody said so")?;
        let mut reader = Worker::new(Asker::blocking(client)?, 0, self.seed, &log)?;
        reader.read_all()?;
        self.kill_daemon_now()?;
        self.start_daemon()?;
        reader.read_all()?;
        self.end_daemon()?;
        self.logs.push((0, log, None));
        Ok(())
    }

    fn ended_by_itself(worker: &Process, status: &str) -> Failure {
        let errors = fs::read_to_string(worker.log.with_extension("err")).unwrap_or_default();
        format!("worker {} ended by itself with {status}: {errors}", worker.number).into()
    }

    fn end_all(&mut self) {
        let daemon = self.daemon.take().map(|daemon| daemon.child);
        for mut child in self.workers.drain(..).map(|worker| worker.child).chain(daemon) {
            // It may have ended by itself; either way it is reaped here.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn pid(child: &Child) -> Result<Pid, Failure> {
    Pid::from_raw(i32::try_from(child.id())?).ok_or_else(|| "no process".into())
}

fn ended(mut child: Child, who: &str) -> Result<std::process::ExitStatus, Failure> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("{who} does not end").into());
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Flushes everything, again and again, until it is told that it is over; answers how often that was done.
fn flush_all_the_while(store: &Path, over: &Arc<AtomicBool>) -> JoinHandle<Result<u64, Failure>> {
    let (store, over) = (store.to_owned(), Arc::clone(over));
    thread::spawn(move || {
        let Some(client) = connect(&store, DEADLINE, &over)? else { return Ok(0) };
        let mut flushes = 0;
        while !over.load(Ordering::Relaxed) {
            match client.flush_with(FlushOptions { rewrite: flushes % 2 == 0, wait: true }) {
                Ok(_) => flushes += 1,
                Err(error) if passes(&error) || error.outcome_is_unknown() => {}
                Err(error) => return Err(format!("a flush failed: {error}").into()),
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(flushes)
    })
}
