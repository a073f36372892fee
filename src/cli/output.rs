//! The two ways out of a command: standard output for values, byte for byte as they are, and standard error for talk.
//!
//! Colours are for terminals alone: what is coloured goes through `anstream`, which knows terminals and `NO_COLOR`;
//! what is data never does, because it would take escape sequences out of it.

use std::fmt::Display;
use std::io::{self, BufWriter, IsTerminal as _, StdoutLock, Write};

use anstyle::{AnsiColor, Style};

use super::failure::{Exit, Failure};
use crate::json;

/// What heads lines that announce something wrong.
pub(super) const BAD: Style = AnsiColor::Red.on_default().bold();
/// What is not wrong but deserves a look.
pub(super) const NOTE: Style = AnsiColor::Yellow.on_default();
/// What is as it should be.
pub(super) const GOOD: Style = AnsiColor::Green.on_default().bold();
/// Labels and heads of tables.
pub(super) const FAINT: Style = Style::new().dimmed();

/// Standard output, buffered. A reader who leaves early ends the command quietly.
pub(super) struct Out {
    stdout: BufWriter<StdoutLock<'static>>,
    terminal: bool,
}

impl Out {
    /// Takes standard output for this command.
    pub(super) fn new() -> Self {
        let stdout = io::stdout().lock();
        let terminal = stdout.is_terminal();
        Self { stdout: BufWriter::with_capacity(64 * 1024, stdout), terminal }
    }

    /// Whether a person is reading.
    pub(super) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Writes bytes as they are.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.stdout.write_all(bytes).map_err(|error| stdout_failure(&error))
    }

    /// Writes a line.
    pub(super) fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.bytes(text.as_bytes())?;
        self.bytes(b"\n")
    }

    /// Hands over what is buffered so far, for whoever waits for it.
    pub(super) fn hand_over(&mut self) -> Result<(), Failure> {
        self.stdout.flush().map_err(|error| stdout_failure(&error))
    }

    /// Hands over what is still buffered. A command that does not end with it may have printed less than it thinks.
    pub(super) fn finish(mut self) -> Result<(), Failure> {
        self.stdout.flush().map_err(|error| stdout_failure(&error))
    }
}

/// Prints coloured lines for people to standard output; colours only where they are wanted.
pub(super) fn print_styled(text: &str) -> Result<(), Failure> {
    let mut stdout = anstream::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| stdout_failure(&error))
}

/// Prints a JSON answer, a line.
pub(super) fn print_json(answer: &serde_json::Value) -> Result<(), Failure> {
    let mut out = Out::new();
    out.line(&answer.to_string())?;
    out.finish()
}

/// What a failed write to standard output means.
pub(super) fn stdout_failure(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Failure::ReaderGone;
    }
    Failure::new(Exit::Unavailable, format_args!("writing to standard output failed: {error}"))
}

/// Says something on standard error; names in it that somebody else chose have been made
/// [printable](super::human::printable). Nothing can be done, and nothing is lost, when nobody listens there.
pub(super) fn say(text: impl Display) {
    let _ = writeln!(anstream::stderr().lock(), "{text}");
}

/// Appends `{"key":…,"value":…}` or with `seq` also that, and the line's end. `value` is canonical JSON text.
pub(super) fn push_record(out: &mut Vec<u8>, key: &str, value: Option<&str>, seq: Option<u64>) {
    out.extend_from_slice(b"{\"key\":");
    json::write_string(out, key);
    if let Some(value) = value {
        out.extend_from_slice(b",\"value\":");
        out.extend_from_slice(value.as_bytes());
    }
    if let Some(seq) = seq {
        out.extend_from_slice(b",\"seq\":");
        out.extend_from_slice(seq.to_string().as_bytes());
    }
    out.extend_from_slice(b"}\n");
}

/// A key as it is named in talk: quoted, without control characters, shortened when long.
pub(super) fn shown_key(key: &str) -> String {
    const SHOWN_CHARS: usize = 80;
    if key.chars().count() <= SHOWN_CHARS {
        return format!("{key:?}");
    }
    let short: String = key.chars().take(SHOWN_CHARS).collect();
    format!("{short:?}… ({} bytes)", key.len())
}
