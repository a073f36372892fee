//! Sessions of a shell that documents show: typed into a shell, and compared line by line with what is shown.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::BINARY;

/// How long a whole session may take.
pub(crate) const SESSION_TIMEOUT: Duration = Duration::from_mins(1);

/// The contents of a document's code blocks of one language.
pub(crate) fn blocks(document: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let after = document.split(&fence).skip(1);
    after.map(|rest| rest.split("```\n").next().expect("split gives one").to_owned()).collect()
}

/// Commands, and what is shown below each.
pub(crate) struct Session {
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
    /// From lines of which the commands begin with `$ `.
    pub(crate) fn read(text: &str) -> Self {
        let mut steps: Vec<Step> = Vec::new();
        for line in text.lines() {
            match (line.strip_prefix("$ "), steps.last_mut()) {
                (Some(command), _) => steps.push(Step { command: command.to_owned(), shown: Vec::new() }),
                (None, Some(step)) => step.shown.push(line.to_owned()),
                (None, None) => panic!("the session begins with {line:?} and not with a command"),
            }
        }
        assert!(!steps.is_empty(), "there is no shell session");
        Self { steps }
    }

    /// Types it into a shell in `folder` and asserts that each command prints what is shown below it.
    pub(crate) fn prints_what_it_shows(&self, folder: &Path) {
        for (step, printed) in self.steps.iter().zip(self.run(folder)) {
            let (command, shown) = (&step.command, &step.shown);
            assert!(step.matches(&printed), "$ {command}\nprinted {printed:#?},\nthe document shows {shown:#?}");
        }
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
        let binary_folder = Path::new(BINARY).parent().expect("it lies in a directory").to_owned();
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

/// Waits for a process to end; kills it at the deadline.
pub(crate) fn wait_for(process: &mut Child, what: &str) {
    let deadline = Instant::now() + SESSION_TIMEOUT;
    while process.try_wait().expect("a child of ours").is_none() {
        if Instant::now() > deadline {
            process.kill().expect("a child of ours");
            panic!("{what} did not end within {SESSION_TIMEOUT:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
