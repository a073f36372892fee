//! The daemon's talk: one line an event, on stderr, for people or for programs.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl std::str::FromStr for LogFormat {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(format!("{other:?} is no log format: text and json are")),
        }
    }
}

impl std::fmt::Display for LogFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// Sends the log of this process to stderr, from `level` (as `info`, `debug`) up; `COMMONHOLD_LOG` in the environment,
/// where it is set, says it more finely (`commonhold=debug`). Does nothing when the process has a log already.
pub fn set_up_logging(format: LogFormat, level: &str) {
    let filter = EnvFilter::try_from_env("COMMONHOLD_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    // Colours are for a person at a terminal who has not said otherwise; a log file should stay plain.
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|word| word.is_empty());
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        // Told of a line that it cannot write, it would print that to stderr, and panic when that fails too: a full disk
        // under the log would end the daemon.
        .log_internal_errors(false)
        .with_target(false);
    // A log that is there already is the caller's own, and stays.
    let _ = match format {
        LogFormat::Text => lines.with_span_events(FmtSpan::NONE).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
}

/// Makes a panic on any thread end the process, after a line in the log. A daemon with one thread missing could keep
/// what it promises no longer; its journal makes a sudden end safe.
pub fn install_panic_hook() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map_or_else(String::new, |place| format!(" at {}:{}", place.file(), place.line()));
        let words = panic.payload_as_str().unwrap_or("no words");
        tracing::error!("this is a bug: panic{place}: {words}. The daemon ends; nothing acknowledged is lost");
        default(panic);
        std::process::abort();
    }));
}
