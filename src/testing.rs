//! Throw-away stores for tests of programs that use Commonhold: each a real daemon on a directory of its own, started
//! when the store is made, gone when it is dropped.
//!
//! The program is looked for where `COMMONHOLD_BIN` says, in the directories above the test's own program
//! (`target/<profile>/`), and in `PATH`; where it is not found, the error says how to get it. Tests may run in parallel:
//! no two stores share anything. A store holds one session itself, which `status` and `sessions` count: its daemon is not
//! idle while the test lives. A daemon whose test was killed before it could drop its store ends by itself a minute
//! later; its directory stays. In a process that forks, the store stays the parent's: a child that drops its copy does
//! nothing to it.
//!
//! ```no_run
//! use commonhold::testing::TestStore;
//! let mut store = TestStore::new()?;
//! let notes = store.client()?.namespace("notes")?;
//! notes.put("n1", "remember")?;
//! store.kill(); // as SIGKILL does: the daemon can finish nothing
//! store.restart()?;
//! assert_eq!(notes.get::<String>("n1")?.as_deref(), Some("remember"));
//! # Ok::<(), commonhold::blocking::Error>(())
//! ```

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::client::launch::find_program_beside;
use crate::client::{Error, blocking};

/// How long a daemon outlives a process that ended without dropping its store, as one that is killed does.
const IDLE_EXIT: &str = "60s";

/// A daemon that answers no more is given so long to end by itself.
const ENDING: Duration = Duration::from_secs(5);

/// How a test's store is made. [`TestStore::new`] takes the defaults.
///
/// ```no_run
/// use commonhold::testing::TestStoreOptions;
/// let store = TestStoreOptions::new().folder("tests/data/rag_storage").serve_options(["--durability", "synced"]).start()?;
/// # Ok::<(), commonhold::blocking::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct TestStoreOptions {
    folder: Option<PathBuf>,
    binary: Option<PathBuf>,
    serve_options: Vec<OsString>,
}

impl TestStoreOptions {
    /// An empty store, and a daemon with its default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// The store begins as a copy of this directory, which is not touched.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// The program to start instead of the one that is found.
    #[must_use]
    pub fn binary(mut self, path: impl Into<PathBuf>) -> Self {
        self.binary = Some(path.into());
        self
    }

    /// Options of `commonhold serve`. With an `--idle-exit` among them the store holds no session of its own, so that the
    /// daemon ends when all of the test's have.
    #[must_use]
    pub fn serve_options(mut self, options: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.serve_options = options.into_iter().map(Into::into).collect();
        self
    }

    /// Makes the store and starts its daemon; returns when clients can connect.
    ///
    /// # Errors
    /// [`Error::NotStarted`], with the reason.
    pub fn start(self) -> Result<TestStore, Error> {
        TestStore::start(self)
    }
}

/// A store in a temporary directory, and its daemon. See the [module](self).
#[derive(Debug)]
pub struct TestStore {
    root: PathBuf,
    dir: PathBuf,
    binary: PathBuf,
    serve_options: Vec<OsString>,
    daemon: Option<Child>,
    /// A session that nobody uses: as long as this process lives, the daemon is not idle.
    keeper: Option<blocking::Client>,
    /// The process whose store it is: a forked child has a copy of this, and the parent still needs all of it.
    pid: u32,
}

impl TestStore {
    /// An empty store.
    ///
    /// # Errors
    /// [`Error::NotStarted`], with the reason: where the program was looked for, or what it said when it ended.
    pub fn new() -> Result<Self, Error> {
        TestStoreOptions::new().start()
    }

    /// A store that begins as a copy of `folder`, which is not touched: one that another program wrote, or that a test
    /// keeps. Symbolic links and sockets in it are left out.
    ///
    /// # Errors
    /// As for [`new`](Self::new); also if the folder cannot be copied.
    pub fn from_folder(folder: impl AsRef<Path>) -> Result<Self, Error> {
        TestStoreOptions::new().folder(folder.as_ref()).start()
    }

    fn start(options: TestStoreOptions) -> Result<Self, Error> {
        let failed = |dir: &Path, reason: String| Error::NotStarted { dir: dir.to_owned(), reason };
        let binary = find_program_beside(options.binary.as_deref(), &above())
            .map_err(|reason| failed(Path::new("-"), reason))?;
        let root = fresh_directory().map_err(|error| failed(&env::temp_dir(), error.to_string()))?;
        let dir = root.join("store");
        // From here on dropping it removes what there is.
        let (serve_options, pid) = (options.serve_options, std::process::id());
        let mut store = Self { root, dir, binary, serve_options, daemon: None, keeper: None, pid };
        let filled = match &options.folder {
            Some(folder) => copy_folder(folder, &store.dir)
                .map_err(|error| format!("{} cannot be copied: {error}", folder.display())),
            None => fs::create_dir(&store.dir).map_err(|error| error.to_string()),
        };
        filled.map_err(|reason| failed(&store.dir, reason))?;
        store.serve()?;
        Ok(store)
    }

    /// The store's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The JSON file of a namespace in the store's own directory; there after a flush.
    pub fn file(&self, namespace: &str) -> PathBuf {
        self.dir.join(format!("kv_store_{namespace}.json"))
    }

    /// What the daemons of this store have logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The daemon's process id, while there is one.
    pub fn pid(&self) -> Option<u32> {
        self.daemon.as_ref().map(Child::id)
    }

    /// A new client of this store.
    ///
    /// # Errors
    /// As for [`blocking::Client::connect`].
    pub fn client(&self) -> Result<blocking::Client, Error> {
        blocking::Client::connect(&self.dir)
    }

    /// Kills the daemon as `SIGKILL` does, in the midst of whatever it does. Nothing happens when there is none.
    pub fn kill(&mut self) {
        self.keeper = None;
        if let Some(mut daemon) = self.daemon.take() {
            // It may have ended by itself; either way it is reaped here.
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }

    /// Stops the daemon as an operator does: every namespace is flushed. Nothing happens when there is none.
    ///
    /// # Errors
    /// As for [`blocking::Client::stop`].
    pub fn stop(&mut self) -> Result<(), Error> {
        self.keeper = None;
        let Some(mut daemon) = self.daemon.take() else { return Ok(()) };
        // One that ended by itself, as by an `--idle-exit` of the caller's, has done what is asked for here.
        let ended = |daemon: &mut Child| matches!(daemon.try_wait(), Ok(Some(status)) if status.success());
        if ended(&mut daemon) {
            return Ok(());
        }
        let stopped = self.client().and_then(|client| client.stop());
        if stopped.is_err() {
            // It may have been ending already: its socket goes before it does.
            let until = Instant::now() + ENDING;
            while Instant::now() < until {
                if ended(&mut daemon) {
                    return Ok(());
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = daemon.kill();
        }
        let _ = daemon.wait();
        stopped
    }

    /// Starts the daemon again on the same directory, after stopping it if it runs. Clients connect again by themselves.
    ///
    /// # Errors
    /// As for [`stop`](Self::stop) and [`new`](Self::new).
    pub fn restart(&mut self) -> Result<(), Error> {
        self.stop()?;
        self.serve()
    }

    fn serve(&mut self) -> Result<(), Error> {
        let not_started = |reason: String| Error::NotStarted { dir: self.dir.clone(), reason };
        let log = File::options().create(true).append(true).open(self.log_path());
        let log = log.map_err(|error| not_started(format!("its log cannot be opened: {error}")))?;
        let mut command = Command::new(&self.binary);
        command.args(["serve", "--announce"]).args(&self.serve_options);
        let has_own = self.serve_options.iter().any(|option| option.to_string_lossy().starts_with("--idle-exit"));
        if !has_own {
            command.args(["--idle-exit", IDLE_EXIT]);
        }
        command.arg("--").arg(&self.dir);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command
            .spawn()
            .map_err(|error| not_started(format!("{} cannot be run: {error}", self.binary.display())))?;
        let mut word = String::new();
        // It says one word when clients can connect; if it ends before, there is none.
        let said = child.stdout.take().map(|stdout| BufReader::new(stdout).read_line(&mut word));
        if word.trim() != "ready" {
            let _ = child.kill();
            let ended = child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
            let reading = said.and_then(Result::err).map(|error| error.to_string()).unwrap_or_default();
            return Err(not_started(format!("the daemon ended ({ended}) {reading}and said: {}", self.log().trim())));
        }
        self.daemon = Some(child);
        if !has_own {
            self.keeper = Some(self.client()?);
        }
        Ok(())
    }

    fn log_path(&self) -> PathBuf {
        self.root.join("daemon.log")
    }
}

impl Drop for TestStore {
    fn drop(&mut self) {
        if self.pid != std::process::id() {
            return;
        }
        self.kill();
        // What is left after a failure is for the system that cleans its temporary directory.
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// `target/<profile>/` is above `target/<profile>/deps/`, where the programs of tests are.
fn above() -> Vec<PathBuf> {
    let own = env::current_exe().unwrap_or_default();
    own.ancestors().skip(2).take(2).map(Path::to_owned).collect()
}

/// A new directory that only this user can look into.
fn fresh_directory() -> io::Result<PathBuf> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("commonhold-test-{}-{number}", std::process::id()));
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        match builder.create(&path) {
            // One that an earlier process of the same number left behind, or somebody made to be in the way.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => return made.map(|()| path),
        }
    }
}

fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, to) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy_folder(&entry.path(), &to)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}
