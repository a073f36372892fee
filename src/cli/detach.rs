//! A daemon in the background: `serve --detach` starts one and returns when clients can connect to it, or it has failed.
//!
//! Two processes are needed for that. The first, the launcher, runs this program again with `--background` in place of
//! `--detach`, waits for its word, and ends; so the daemon is nobody's child that somebody would have to wait for. The
//! second becomes a session of its own, keeps nothing of whoever started it, and serves. It says `ready` when it does, or
//! `owned` when another daemon does; anything else is told by the error that it ends with.
//!
//! There is unsafe code in this file: descriptors that were inherited can only be closed by their number.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::RawFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, thread};

use rustix::fs::OFlags;
use serde_json::json;

use super::context::Context;
use super::failure::{Exit, Failure};
use super::output::print_json;
use crate::daemon;
use crate::engine;

/// What a daemon says on its standard output when clients can connect to it, and when another one owns the store.
const READY: &str = "ready";
const OWNED: &str = "owned";

/// The log of a daemon in the background, seen from the store's directory.
const LOG: &str = ".commonhold/daemon.log";

/// The log before the last rotation.
const OLD_LOG: &str = ".commonhold/daemon.log.1";

/// A log of this size is put aside when a daemon starts; only one such is kept.
const LOG_BYTES: u64 = 8 * 1024 * 1024;

/// Starts the daemon in the background, and returns when it serves.
pub(super) fn launch(dir: &Path, context: &Context) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::new(Exit::Unavailable, format_args!("cannot start the daemon: {error}"));
    let mut arguments: Vec<_> = env::args_os().skip(1).collect();
    if let Some(detach) = arguments.iter_mut().find(|argument| *argument == "--detach") {
        *detach = "--background".into();
    }
    let mut command = Command::new(env::current_exe().map_err(failed)?);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    let (mut stdout, mut stderr) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    // Both at once, because either could be full. Both end when the daemon serves, or ends.
    let reading = thread::Builder::new().spawn(move || {
        let mut said = Vec::new();
        stderr.read_to_end(&mut said).map(|_| said)
    });
    let reading = reading.inspect_err(|_| {
        // Nobody would hear what it says, and it could wait for ever to say it.
        let _ = child.kill().and_then(|()| child.wait().map(drop));
    });
    let reading = reading.map_err(failed)?;
    let mut word = String::new();
    stdout.read_to_string(&mut word).map_err(failed)?;
    let said = reading.join().expect("reading does not panic").map_err(failed)?;
    if word.trim() == READY {
        // What it logged before it had its log.
        if let Ok(mut log) = OpenOptions::new().append(true).custom_flags(no_follow()).open(dir.join(LOG)) {
            let _ = log.write_all(&said);
        }
        if context.json() {
            let log = dir.join(LOG).display().to_string();
            return print_json(&json!({"log": log, "pid": child.id(), "ready": true}));
        }
        println!("{READY}");
        context.talk(format_args!("the daemon serves {}; its log is {}", dir.display(), dir.join(LOG).display()));
        return Ok(());
    }
    let status = child.wait().map_err(failed)?;
    if !context.json() {
        print!("{word}");
    }
    let _ = io::stderr().write_all(&said);
    if said.is_empty() {
        return Err(Failure::new(Exit::Unavailable, format_args!("the daemon ended ({status}) and did not say why")));
    }
    std::process::exit(status.code().unwrap_or(Exit::Unavailable as i32));
}

/// Leaves whoever started this process: a session of its own, none of their descriptors but standard input, output and
/// error, and not their directory, which could not be removed or unmounted under it. To be called first of all, but for
/// making the paths absolute that were given.
pub(super) fn leave() {
    close_inherited();
    // Nobody may leave `/`; a daemon that stays where it is serves all the same.
    let _ = env::set_current_dir("/");
    // It fails only for a leader of a process group, which a process just started by the launcher is not.
    let _ = rustix::process::setsid();
}

/// Closes every descriptor above the standard ones: a socket or a lock of the parent's, kept open here, would not end
/// with it.
fn close_inherited() {
    let open = |number: RawFd| fs::symlink_metadata(format!("/dev/fd/{number}")).is_ok();
    let Ok(listed) = fs::read_dir("/dev/fd") else { return };
    let numbers: Vec<RawFd> = listed
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&number| number > 2)
        .collect();
    // The list's own descriptor is closed by now.
    for number in numbers.into_iter().filter(|&number| open(number)) {
        // SAFETY: this is the first thing that the process does: no other thread runs, and nothing in this program has
        // opened a descriptor that is still open, so no object owns one of these numbers and could use or close it later.
        #[expect(unsafe_code, reason = "an inherited descriptor has no owner that could be dropped")]
        unsafe {
            rustix::io::close(number);
        }
    }
}

/// Says that clients can connect.
pub(super) fn announce() {
    // Whoever started it may be gone.
    let _ = writeln!(io::stdout(), "{READY}").and_then(|()| io::stdout().flush());
}

/// From the launcher's streams to the log, with the word that clients can connect between the two.
pub(super) fn settle(dir: &Path) {
    match open_log(dir) {
        Ok(log) => {
            announce();
            let _ = rustix::stdio::dup2_stderr(&log);
        }
        Err(error) => {
            tracing::warn!("the log {} cannot be opened: {error}; this daemon logs nothing", dir.join(LOG).display());
            announce();
            if let Ok(nowhere) = OpenOptions::new().write(true).open("/dev/null") {
                let _ = rustix::stdio::dup2_stderr(&nowhere);
            }
        }
    }
    if let Ok(nowhere) = OpenOptions::new().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(&nowhere);
    }
}

/// Tells the launcher that another daemon has the store: its caller then connects to that one.
pub(super) fn tell_owned(error: &daemon::Error) {
    if matches!(error, daemon::Error::Store(engine::Error::Owned { .. })) {
        let _ = writeln!(io::stdout(), "{OWNED}").and_then(|()| io::stdout().flush());
    }
}

/// The log, put aside before when it is long.
fn open_log(dir: &Path) -> io::Result<File> {
    let (log, old): (PathBuf, PathBuf) = (dir.join(LOG), dir.join(OLD_LOG));
    if fs::symlink_metadata(&log).is_ok_and(|found| found.len() >= LOG_BYTES) {
        fs::rename(&log, &old)?;
    }
    OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(no_follow()).open(log)
}

/// A symbolic link in the log's place is not written through; and a pipe without a reader is an error, not a wait.
fn no_follow() -> i32 {
    (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_log_is_put_aside_once_and_a_short_one_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(".commonhold")).unwrap();
        let (log, old) = (dir.path().join(LOG), dir.path().join(OLD_LOG));
        write!(open_log(dir.path()).unwrap(), "one ").unwrap();
        write!(open_log(dir.path()).unwrap(), "two").unwrap();
        assert_eq!(fs::read_to_string(&log).unwrap(), "one two");
        File::options().write(true).open(&log).unwrap().set_len(LOG_BYTES).unwrap();
        write!(open_log(dir.path()).unwrap(), "three").unwrap();
        assert_eq!(
            (fs::read_to_string(&log).unwrap().as_str(), fs::metadata(old).unwrap().len()),
            ("three", LOG_BYTES)
        );
    }

    #[test]
    fn a_log_that_is_a_symbolic_link_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(".commonhold")).unwrap();
        let target = dir.path().join("precious");
        fs::write(&target, "precious").unwrap();
        std::os::unix::fs::symlink(&target, dir.path().join(LOG)).unwrap();
        assert!(open_log(dir.path()).is_err());
        assert_eq!(fs::read_to_string(target).unwrap(), "precious");
    }
}
