//! What tests of the real binary share: a store in a temporary directory, its daemon as a child process, and commands
//! run against it. Waiting is for a condition with a deadline; a daemon that does not come up is shown with its log.

#![allow(dead_code, reason = "each test binary uses its own part of this")]

pub(crate) mod session;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take that should take a moment; generous, because test machines are busy.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// The binary under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_commonhold");

/// A temporary directory with an empty store in it.
pub(crate) struct Store {
    root: tempfile::TempDir,
    dir: PathBuf,
}

impl Store {
    /// Makes an empty one.
    pub(crate) fn new() -> Self {
        let root = tempfile::Builder::new().prefix("commonhold-test-").tempdir().expect("temporary directory");
        let dir = root.path().join("store");
        fs::create_dir(&dir).expect("store directory");
        Self { root, dir }
    }

    /// The store's directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A path beside the store, for files that are not the store's.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// The file of a namespace in the store's own directory.
    pub(crate) fn file(&self, namespace: &str) -> PathBuf {
        self.dir.join(format!("kv_store_{namespace}.json"))
    }

    /// Starts its daemon and waits until that answers.
    pub(crate) fn serve(&self) -> Daemon {
        self.serve_with(&[])
    }

    /// Starts its daemon with options and waits until that answers.
    pub(crate) fn serve_with(&self, options: &[&str]) -> Daemon {
        Daemon::start(&self.dir, &self.beside("daemon.log"), options)
    }

    /// Runs a command against it.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(arguments, b"")
    }

    /// Runs a command against it with something on standard input.
    pub(crate) fn run_with(&self, arguments: &[&str], input: &[u8]) -> Ran {
        let mut command = command(&self.dir);
        command.args(arguments);
        ran(command, input)
    }

    /// Runs a command that must succeed, and returns its standard output.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let ran = self.run(arguments);
        assert_eq!(ran.code, 0, "{arguments:?}: {ran:?}");
        ran.stdout
    }
}

/// The binary with `--store dir`, free of what the environment of the tests might say.
pub(crate) fn command(dir: &Path) -> Command {
    let mut command = Command::new(BINARY);
    command.env_remove("COMMONHOLD_STORE").env_remove("NO_COLOR").env_remove("RUST_LOG").arg("--store").arg(dir);
    command
}

/// What a command left behind.
#[derive(Debug)]
pub(crate) struct Ran {
    /// Its exit code; -1 when a signal ended it.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it said.
    pub stderr: String,
}

impl Ran {
    /// Asserts the exit code and that each of `words` is in what it said.
    #[track_caller]
    pub(crate) fn refused(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not in {self:?}");
        }
    }
}

/// Runs a command to its end.
pub(crate) fn ran(mut command: Command, input: &[u8]) -> Ran {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A binary that a test has just copied is busy for as long as another test's child, forked meanwhile, has not
    // closed what it inherited.
    let mut child = wait_for("the binary to be free", || match command.spawn() {
        Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => None,
        other => Some(other.expect("the binary runs")),
    });
    let mut stdin = child.stdin.take().expect("piped");
    // On a thread of its own, because the command may print before it has read everything.
    let input = input.to_vec();
    let writer = thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().expect("the command ends");
    writer.join().expect("writes");
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

/// Waits until `met` gives something, with the deadline of all tests.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, mut met: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = met() {
            return found;
        }
        assert!(Instant::now() < deadline, "gave up waiting: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A daemon as a child process; killed when dropped.
pub(crate) struct Daemon {
    child: Child,
    dir: PathBuf,
    log: PathBuf,
}

impl Daemon {
    /// Starts the daemon of `dir`, its log in `log`, and waits until it answers.
    pub(crate) fn start(dir: &Path, log: &Path, options: &[&str]) -> Self {
        let mut daemon = Self::spawn(dir, log, options);
        wait_for("the daemon answers", || {
            let log = &daemon.log;
            if let Some(status) = daemon.child.try_wait().expect("a child can be asked") {
                panic!("the daemon ended with {status}: {}", fs::read_to_string(log).unwrap_or_default());
            }
            (ran_status(dir) == 0).then_some(())
        });
        daemon
    }

    /// Starts a daemon without waiting for it.
    pub(crate) fn spawn(dir: &Path, log: &Path, options: &[impl AsRef<OsStr>]) -> Self {
        let stderr = File::options().create(true).append(true).open(log).expect("log file");
        let mut command = command(dir);
        command.arg("serve").args(options).stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        let child = command.spawn().expect("the binary runs");
        Self { child, dir: dir.to_owned(), log: log.to_owned() }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends it with SIGKILL: it cannot finish anything.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("reaped");
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) fn stop(self) {
        let mut command = command(&self.dir);
        command.arg("stop");
        let ran = ran(command, b"");
        assert_eq!(ran.code, 0, "{ran:?}\n{}", self.log());
        let log = self.log.clone();
        let status = self.ended();
        assert!(status.success(), "{status}\n{}", fs::read_to_string(log).unwrap_or_default());
    }

    /// Waits until it has ended by itself.
    pub(crate) fn ended(mut self) -> ExitStatus {
        wait_for("the daemon ends", || self.child.try_wait().expect("a child can be asked"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It has ended already in most tests.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ran_status(dir: &Path) -> i32 {
    let mut command = command(dir);
    command.arg("status");
    ran(command, b"").code
}
