//! Starting a daemon where none runs: finding the program, running `commonhold serve --detach`, and telling why it did
//! not start.
//!
//! Who starts it is decided by the owner lock: of several that are started at once one serves, the others end and say
//! so, and their callers connect to the one. That command returns when the daemon can be connected to, or has failed; no
//! time is guessed.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::connect::{self, First, PAUSE};
use super::error::Error;
use super::options::ConnectOptions;

/// The name of the program.
const PROGRAM: &str = if cfg!(windows) { "commonhold.exe" } else { "commonhold" };

/// Names the program in the environment.
const VARIABLE: &str = "COMMONHOLD_BIN";

/// What a daemon that is to go to the background says when it can be connected to, and when another one owns the store.
const READY: &str = "ready";
const OWNED: &str = "owned";

/// How long the owner of a store is waited for before it is tried again to start a daemon: it may be about to end.
const OWNER_PATIENCE: Duration = Duration::from_secs(1);

/// A daemon that answers is given so long, also where the time for opening is over.
const SHORTEST_TRY: Duration = Duration::from_millis(100);

/// What was waited for in vain.
const SILENT_DAEMON: &str = "the daemon that owns the store to answer, or to end so that another can be started: it takes connections \
     and says nothing, as one does that is ending with much to flush, or is stopped; see its log";

/// How to open a store, with either client: connect to its daemon, or start one.
///
/// ```no_run
/// use commonhold::blocking::{Client, OpenOptions};
/// use std::time::Duration;
/// let options = OpenOptions::new()
///     .idle_exit(Some(Duration::from_secs(60)))
///     .serve_options(["--durability", "synced"]);
/// let client = Client::open_with("rag_storage", options)?;
/// # Ok::<(), commonhold::blocking::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct OpenOptions {
    connect: ConnectOptions,
    binary: Option<PathBuf>,
    idle_exit: Option<Duration>,
    serve_options: Vec<OsString>,
    start_within: Duration,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            connect: ConnectOptions::default(),
            binary: None,
            idle_exit: Some(Duration::from_mins(10)),
            serve_options: Vec::new(),
            start_within: Duration::from_mins(1),
        }
    }
}

impl OpenOptions {
    /// A daemon that ends after 10 minutes without clients, of the program found by [`binary`](Self::binary)'s rule.
    pub fn new() -> Self {
        Self::default()
    }

    /// How to connect.
    #[must_use]
    pub fn connect_options(mut self, options: ConnectOptions) -> Self {
        self.connect = options;
        self
    }

    /// The program to start. Without it: the one that `COMMONHOLD_BIN` names, else `commonhold` beside this process's
    /// own program, else in `PATH`.
    #[must_use]
    pub fn binary(mut self, path: impl Into<PathBuf>) -> Self {
        self.binary = Some(path.into());
        self
    }

    /// The daemon ends when it has had no clients for so long; 10 minutes by default. None is never.
    #[must_use]
    pub fn idle_exit(mut self, time: Option<Duration>) -> Self {
        self.idle_exit = time;
        self
    }

    /// More options of `commonhold serve` for a daemon that is started; one that runs already has its own.
    #[must_use]
    pub fn serve_options(mut self, options: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.serve_options = options.into_iter().map(Into::into).collect();
        self
    }

    /// How long opening may take where no daemon answers; a minute by default. Starting one grows with what there is to
    /// recover, and a daemon that is ending is waited for, however much it has to flush.
    #[must_use]
    pub fn start_within(mut self, time: Duration) -> Self {
        self.start_within = time;
        self
    }

    pub(super) fn into_connect(self) -> ConnectOptions {
        self.connect
    }
}

/// Connects to the daemon of the store in `dir`, and starts one where there is none.
pub(super) fn open(dir: &Path, options: &OpenOptions) -> Result<First, Error> {
    let deadline = Instant::now() + options.start_within;
    let not_started = |reason: String| Error::NotStarted { dir: dir.to_owned(), reason };
    let began = Instant::now();
    let mut binary = None;
    loop {
        match connect::first(dir, Some(within(options, deadline))) {
            Err(error) if error.is_no_daemon() => {}
            // A daemon that is ending takes the connection, says nothing while it flushes, and hangs up; the next one
            // can be started when it is gone.
            Err(Error::Lost { .. } | Error::TimedOut { .. }) if Instant::now() < deadline => {
                thread::sleep(PAUSE.1.min(deadline.saturating_duration_since(Instant::now())));
                continue;
            }
            Err(Error::TimedOut { .. }) => {
                return Err(Error::TimedOut { waited: began.elapsed(), waiting_for: SILENT_DAEMON });
            }
            done => return done,
        }
        let binary = match &mut binary {
            Some(found) => found,
            none => none.insert(find_program(options.binary.as_deref()).map_err(not_started)?),
        };
        match start(binary, dir, options, deadline).map_err(not_started)? {
            Started::Ready => {}
            Started::Owned(by) if Instant::now() >= deadline => return Err(not_started(by)),
            Started::Owned(_) => {
                if let Some(first) = wait_for_owner(dir, options, deadline)? {
                    return Ok(first);
                }
            }
        }
    }
}

/// How long one try to connect may take.
fn within(options: &OpenOptions, deadline: Instant) -> Duration {
    let left = deadline.saturating_duration_since(Instant::now()).max(SHORTEST_TRY);
    options.connect.timeout.map_or(left, |timeout| timeout.min(left))
}

enum Started {
    Ready,
    /// Another daemon, or a command that works offline, has the store: in whose words.
    Owned(String),
}

/// Somebody else owns the store, and is about to serve it, or to end.
fn wait_for_owner(dir: &Path, options: &OpenOptions, deadline: Instant) -> Result<Option<First>, Error> {
    let until = deadline.min(Instant::now() + OWNER_PATIENCE);
    let mut pause = PAUSE.0;
    loop {
        match connect::first(dir, Some(within(options, deadline))) {
            Err(error) if error.is_no_daemon() => {}
            // It was about to end and not to serve.
            Err(Error::TimedOut { .. }) => return Ok(None),
            Err(Error::Lost { .. }) if Instant::now() < until => {}
            done => return done.map(Some),
        }
        if Instant::now() >= until {
            return Ok(None);
        }
        thread::sleep(pause.min(until.saturating_duration_since(Instant::now())));
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// Runs the command that starts a daemon, until it ends; the error is what to tell.
fn start(binary: &Path, dir: &Path, options: &OpenOptions, deadline: Instant) -> Result<Started, String> {
    let mut command = Command::new(binary);
    command.args(["serve", "--detach"]);
    if let Some(time) = options.idle_exit {
        command.arg("--idle-exit").arg(format!("{}ms", time.as_millis()));
    }
    command.args(&options.serve_options).arg("--").arg(dir);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // On a thread of its own, so that it is reaped even if nobody waits for it any more. Without one nothing is started.
    let (sender, ended) = channel();
    let program = binary.display().to_string();
    let mut run = move || {
        let child = command.spawn().map_err(|error| format!("{program} cannot be run: {error}"))?;
        child.wait_with_output().map_err(|error| format!("waiting for {program} failed: {error}"))
    };
    let thread = thread::Builder::new().name("commonhold-start".to_owned()).spawn(move || drop(sender.send(run())));
    thread.map_err(|error| format!("no thread can be had to wait for {}: {error}", binary.display()))?;
    let Output { status, stdout, stderr } = match ended.recv_timeout(deadline.saturating_duration_since(Instant::now()))
    {
        Ok(output) => output?,
        Err(RecvTimeoutError::Timeout) => {
            return Err("it has not become ready in time; it may still be recovering, open it again".to_owned());
        }
        Err(RecvTimeoutError::Disconnected) => return Err("its outcome was lost; open it again".to_owned()),
    };
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    let said = stderr.trim();
    match stdout.lines().next() {
        Some(READY) => Ok(Started::Ready),
        Some(OWNED) => Ok(Started::Owned(said.to_owned())),
        _ if said.is_empty() => Err(format!("{} ended ({status}) and did not say why", binary.display())),
        _ => Err(said.to_owned()),
    }
}

/// Finds the program; the error says where it was looked for and how to get it.
pub(crate) fn find_program(given: Option<&Path>) -> Result<PathBuf, String> {
    find_program_beside(given, &[])
}

/// As [`find_program`], with more directories to look in before `PATH`.
pub(crate) fn find_program_beside(given: Option<&Path>, directories: &[PathBuf]) -> Result<PathBuf, String> {
    let get = format!(
        "install it with `cargo install commonhold`, or name it with OpenOptions::binary or {VARIABLE} in the environment"
    );
    if let Some(named) = given.map(Path::to_owned).or_else(|| env::var_os(VARIABLE).map(PathBuf::from)) {
        // One that was named and is not there is a mistake to tell, and not a reason to take another.
        let by = if given.is_some() { "OpenOptions::binary" } else { VARIABLE };
        return if named.is_file() {
            Ok(named)
        } else {
            Err(format!("the program {} that {by} names does not exist: {get}", named.display()))
        };
    }
    let beside = env::current_exe().ok().and_then(|own| own.parent().map(Path::to_owned));
    let path = env::var_os("PATH").unwrap_or_default();
    let places = beside.into_iter().chain(directories.iter().cloned()).chain(env::split_paths(&path));
    let mut found = places.filter(|place| place.is_absolute()).map(|place| place.join(PROGRAM));
    found.find(|program| program.is_file()).ok_or_else(|| {
        format!("the program `{PROGRAM}` is neither beside this process's own program nor in PATH: {get}")
    })
}
