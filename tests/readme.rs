//! The README stays true: its shell session is typed into a shell and compared line by line, its Rust is run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The README's Rust example: the same text, compiled.
#[path = "../examples/minute.rs"]
mod minute;

const README: &str = include_str!("../README.md");
const MINUTE: &str = include_str!("../examples/minute.rs");

/// How long the whole shell session may take.
const SESSION_TIMEOUT: Duration = Duration::from_mins(1);

#[test]
fn the_shell_session_of_the_readme_prints_what_the_readme_shows() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let session = Session::read(&blocks("console").concat());
    let printed = session.run(folder.path());
    for (step, printed) in session.steps.iter().zip(printed) {
        assert!(
            step.matches(&printed),
            "$ {}\nprinted {printed:#?},\nthe README shows {:#?}",
            step.command,
            step.shown
        );
    }
}

#[test]
fn the_rust_of_the_readme_is_the_example_and_runs() {
    let shown = blocks("rust").concat();
    let (_, example) = MINUTE.split_once("// README begins\n").expect("the example marks where the README begins");
    // Only this test needs its main from outside.
    let example = example.replace("pub(crate) fn main", "fn main");
    assert_eq!(shown, example, "README.md and examples/minute.rs must be the same");

    let folder = tempfile::tempdir().expect("a temporary directory");
    let store = folder.path().join("rag_storage");
    fs::create_dir(&store).expect("an empty directory");
    let mut daemon = Daemon::serve(&store);
    // The example names its store by a relative path. No other test of this file depends on the current directory.
    std::env::set_current_dir(folder.path()).expect("it exists");
    let ended = minute::main();
    std::env::set_current_dir(env!("CARGO_MANIFEST_DIR")).expect("it exists");
    ended.expect("the example runs");
    let file = fs::read_to_string(store.join("kv_store_teas.json")).expect("the example flushed it");
    assert_eq!(file, "{\n\"sencha\":{\"name\":\"煎茶\",\"minutes\":2}\n}\n");
    daemon.stop(&store);
}

#[test]
fn the_commands_and_files_that_the_readme_names_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for line in blocks("sh").concat().lines() {
        let command = line.split_whitespace().next().expect("a command");
        assert!(root.join(command).is_file(), "{command} is not there");
    }
    for target in README.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        assert!(target.contains("://") || root.join(target).exists(), "{target} is not there");
    }
}

/// The contents of the README's code blocks of one language.
fn blocks(language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let after = README.split(&fence).skip(1);
    after.map(|rest| rest.split("```\n").next().expect("split gives one").to_owned()).collect()
}

/// Commands, and what is shown below each.
struct Session {
    steps: Vec<Step>,
}

struct Step {
    command: String,
    shown: Vec<String>,
}

impl Step {
    /// Line by line; `…` in what is shown stands for anything that changes from run to run.
    fn matches(&self, printed: &[String]) -> bool {
        let line = |shown: &String, printed: &String| match shown.split_once('…') {
            Some((head, tail)) => printed.starts_with(head) && printed.ends_with(tail),
            None => shown == printed,
        };
        self.shown.len() == printed.len() && self.shown.iter().zip(printed).all(|(shown, printed)| line(shown, printed))
    }
}

impl Session {
    fn read(text: &str) -> Self {
        let mut steps: Vec<Step> = Vec::new();
        for line in text.lines() {
            match (line.strip_prefix("$ "), steps.last_mut()) {
                (Some(command), _) => steps.push(Step { command: command.to_owned(), shown: Vec::new() }),
                (None, Some(step)) => step.shown.push(line.to_owned()),
                (None, None) => panic!("the session begins with {line:?} and not with a command"),
            }
        }
        assert!(!steps.is_empty(), "the README shows no shell session");
        Self { steps }
    }

    /// Types the commands into one bash; answers what each printed, standard output and error together.
    fn run(&self, folder: &Path) -> Vec<Vec<String>> {
        const MARK: &str = "\u{1e}";
        let mut script = "trap 'kill -KILL $(jobs -p) 2>/dev/null' EXIT\n".to_owned();
        for step in &self.steps {
            script.extend(["echo '", MARK, "'\n", &step.command, "\n"]);
        }
        fs::write(folder.join("session"), script).expect("a writable directory");
        // A file and not a pipe: the daemon inherits it, and would keep a pipe open.
        let output = fs::File::create(folder.join("output")).expect("a writable directory");
        let binary_folder = binary().parent().expect("it lies in a directory").to_owned();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths([binary_folder].into_iter().chain(std::env::split_paths(&path)));
        let mut bash = Command::new("bash")
            .arg("session")
            .current_dir(folder)
            .env("PATH", path.expect("no colon in the paths"))
            .env_remove("COMMONHOLD_STORE")
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a descriptor"))
            .stderr(output)
            .spawn()
            .expect("bash is installed");
        wait_for(&mut bash, "the shell session");
        let printed = fs::read_to_string(folder.join("output")).expect("text");
        let mark = format!("{MARK}\n");
        let parts = printed.split(&mark).skip(1);
        // Bash tells that a job was killed, with its own line number and the pid.
        let told = |line: &&str| !line.starts_with("session: line ");
        parts.map(|part| part.lines().filter(told).map(str::to_owned).collect()).collect()
    }
}

fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_commonhold"))
}

/// Waits for a process to end; kills it at the deadline.
fn wait_for(process: &mut Child, what: &str) {
    let deadline = Instant::now() + SESSION_TIMEOUT;
    while process.try_wait().expect("a child of ours").is_none() {
        if Instant::now() > deadline {
            process.kill().expect("a child of ours");
            panic!("{what} did not end within {SESSION_TIMEOUT:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A daemon that does not outlive its test.
struct Daemon(Child);

impl Daemon {
    fn serve(store: &Path) -> Self {
        let daemon =
            Command::new(binary()).arg("serve").arg(store).stderr(Stdio::null()).spawn().expect("it was built");
        let mut daemon = Self(daemon);
        let deadline = Instant::now() + SESSION_TIMEOUT;
        while !commonhold(store, "status") {
            assert!(daemon.0.try_wait().expect("a child of ours").is_none(), "the daemon ended");
            assert!(Instant::now() < deadline, "the daemon did not answer within {SESSION_TIMEOUT:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
        daemon
    }

    fn stop(&mut self, store: &Path) {
        assert!(commonhold(store, "stop"), "commonhold stop failed");
        wait_for(&mut self.0, "the daemon");
        assert!(self.0.wait().expect("a child of ours").success(), "the daemon's exit code");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already: then there is nothing to kill.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a command; answers whether it succeeded.
fn commonhold(store: &Path, command: &str) -> bool {
    let mut run = Command::new(binary());
    run.arg("--store").arg(store).arg(command).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    run.status().expect("it was built").success()
}
