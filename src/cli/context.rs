//! What a command knows beside its own options: which store and workspace are meant, how to answer, and how to reach
//! the daemon.

use std::io::ErrorKind;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::args::{Global, LogFormat, NamespaceArgs};
use super::failure::{Exit, Failure, exit_of_io};
use super::human;
use super::output::{self, BAD};
use crate::client;
use crate::client::blocking::{Client, ConnectOptions, Namespace};
use crate::proto::Place;

/// How long a daemon that hangs up on everybody is given until there is none, or the next one.
const ENDING: Duration = Duration::from_secs(2);

/// In the environment: how long a request may take, and how long a lost connection is tried to be made again.
const TIMEOUT: &str = "COMMONHOLD_TIMEOUT";

/// How long to pause between two tries.
const PAUSE: Duration = Duration::from_millis(20);

/// The shared options of this run.
pub(super) struct Context {
    global: Global,
}

impl Context {
    /// From what was typed.
    pub(super) fn new(global: Global) -> Self {
        Self { global }
    }

    /// The store's directory, as it was named.
    pub(super) fn store(&self) -> &Path {
        &self.global.store
    }

    /// The workspace that was asked for, if one was.
    pub(super) fn workspace(&self) -> Option<&str> {
        self.global.workspace.as_deref()
    }

    /// Whether answers are wanted as JSON.
    pub(super) fn json(&self) -> bool {
        self.global.json
    }

    /// Whether only errors may be told.
    pub(super) fn quiet(&self) -> bool {
        self.global.quiet
    }

    /// How much is to be told beyond the usual.
    pub(super) fn verbosity(&self) -> u8 {
        self.global.verbose
    }

    /// How the daemon's log is to be written, if that was said.
    pub(super) fn log_format(&self) -> Option<LogFormat> {
        self.global.log_format
    }

    /// The checked name of a namespace in the workspace that was asked for.
    pub(super) fn place(&self, namespace: &str) -> Result<Place, Failure> {
        Ok(Place::new(self.workspace().unwrap_or(""), namespace)?)
    }

    /// Connects to the daemon of the store.
    pub(super) fn connect(&self) -> Result<Client, Failure> {
        self.connect_with(&Self::in_time(ConnectOptions::new())?)
    }

    /// With the time that the environment gives every request, if it gives one.
    pub(super) fn in_time(options: ConnectOptions) -> Result<ConnectOptions, Failure> {
        // A command reads a value once.
        let options = options.cache_bytes(0);
        let Some(told) = std::env::var_os(TIMEOUT) else { return Ok(options) };
        let time = told.to_str().ok_or_else(|| "it is no text".to_owned()).and_then(human::parse_span);
        let time =
            time.map_err(|error| Failure::new(Exit::Usage, format_args!("{TIMEOUT} in the environment: {error}")))?;
        Ok(options.timeout(Some(time)).reconnect_for(time))
    }

    /// Connects with options of its own, as for a command that was told how long to wait.
    pub(super) fn connect_with(&self, options: &ConnectOptions) -> Result<Client, Failure> {
        self.check_directory()?;
        let deadline = Instant::now() + ENDING;
        let connected = loop {
            match options.clone().connect(self.store()) {
                // A daemon that is ending hangs up on those who wait for it; a moment later there is none, or the next.
                Err(client::Error::Lost { .. }) if Instant::now() < deadline => thread::sleep(PAUSE),
                connected => break connected,
            }
        };
        connected.map_err(|error| {
            if let client::Error::Lost { dir, .. } = &error {
                let dir = dir.display();
                let words = format_args!(
                    "the daemon of {dir} is stopping, or has just ended: it takes no connections any more, and nothing was asked of it. When it has ended, start one with `commonhold serve {dir}`"
                );
                return Failure::new(Exit::NoDaemon, words);
            }
            let failure = Failure::from(error);
            let socket = self.store().join(".commonhold").join("socket");
            // Another user's store: what the client could only find unreachable is a matter of permission.
            match (failure, std::fs::symlink_metadata(socket)) {
                (Failure::Said { text, .. }, Err(error)) if error.kind() == ErrorKind::PermissionDenied => {
                    Failure::new(Exit::Refused, format_args!("{text}; run it as the user whose store this is"))
                }
                (failure, _) => failure,
            }
        })
    }

    /// A daemon that is not there and a directory that is not there are different mistakes.
    pub(super) fn check_directory(&self) -> Result<(), Failure> {
        let dir = self.store();
        match std::fs::metadata(dir) {
            Ok(found) if found.is_dir() => Ok(()),
            Ok(_) => Err(Failure::new(
                Exit::Usage,
                format_args!("{} is not a directory: name the store with --store or COMMONHOLD_STORE", dir.display()),
            )),
            Err(error) => Err(Failure::new(
                exit_of_io(&error),
                format_args!(
                    "the store {} cannot be reached: {error}; name it with --store or COMMONHOLD_STORE",
                    dir.display()
                ),
            )),
        }
    }

    /// Connects, and opens a namespace of the workspace that was asked for. Names are checked before anything is sent.
    pub(super) fn namespace(&self, args: &NamespaceArgs) -> Result<(Client, Namespace), Failure> {
        let (client, namespace) = self.persistent(&args.name)?;
        Ok((client, if args.volatile { namespace.volatile() } else { namespace }))
    }

    /// The same, of one that has a file.
    pub(super) fn persistent(&self, name: &str) -> Result<(Client, Namespace), Failure> {
        let place = self.place(name)?;
        let client = self.connect()?;
        let namespace = client.workspace(place.workspace.as_str())?.namespace(place.namespace.as_str())?;
        Ok((client, namespace))
    }

    /// Says something that is not an answer.
    pub(super) fn talk(&self, text: impl std::fmt::Display) {
        if !self.global.quiet && !self.global.json {
            output::say(human::printable_lines(&text.to_string()));
        }
    }

    /// Tells a failure and returns its exit code.
    pub(super) fn report(&self, failure: &Failure) -> Exit {
        if let Failure::Said { exit, text } = failure {
            if self.json() {
                output::say(as_json(*exit, text));
            } else {
                output::say(format_args!("{BAD}commonhold:{BAD:#} {}", human::printable_lines(text)));
            }
        }
        failure.exit()
    }
}

/// A failure as one line of JSON. What stands on lines of its own for people, the place in a text as it looks, is a member
/// of its own, so that the message is one line, too.
pub(super) fn as_json(exit: Exit, text: &str) -> serde_json::Value {
    let (message, shown) =
        text.trim_end().split_once('\n').map_or((text, None), |(message, shown)| (message, Some(shown)));
    let mut error = json!({"exit": exit as u8, "kind": exit.word(), "message": message.trim_end()});
    if let Some(shown) = shown {
        error["shown"] = shown.into();
    }
    json!({"error": error})
}
