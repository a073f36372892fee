//! Removes a file when a signal ends the process: a name that was made for the time of a command should not outlive it.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::thread;

use rustix::process::Signal;
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// Watches over one file. Dropped, it lets the file be; a signal that comes later is of no effect, so that it should be
/// dropped near the end of a command.
pub(super) struct Cleanup {
    /// Its end is what the thread hears of when this is dropped.
    _over: oneshot::Sender<()>,
}

impl Cleanup {
    /// Removes `path` when one of the signals comes, and then calls `end` with its number, to end the process.
    pub(super) fn over(
        path: PathBuf,
        signals: [Signal; 2],
        end: impl FnOnce(i32) + Send + 'static,
    ) -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
        // Before the file is made, so that no signal comes between.
        let listen = |one: Signal| signal(SignalKind::from_raw(one.as_raw()));
        let (mut first, mut second) = {
            let _in = runtime.enter();
            (listen(signals[0])?, listen(signals[1])?)
        };
        let (over, dropped) = oneshot::channel();
        thread::Builder::new().spawn(move || {
            let came = runtime.block_on(async {
                tokio::select! {
                    biased;
                    _ = dropped => None,
                    Some(()) = first.recv() => Some(signals[0]),
                    Some(()) = second.recv() => Some(signals[1]),
                }
            });
            if let Some(signal) = came {
                // It may have got its final name a moment ago.
                let _ = fs::remove_file(path);
                end(signal.as_raw());
            }
        })?;
        Ok(Self { _over: over })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use rustix::process::{getpid, kill_process};

    use super::*;

    #[test]
    fn a_signal_removes_the_file_and_ends_the_process_and_one_that_is_not_watched_over_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (watched, finished) = (dir.path().join("watched"), dir.path().join("finished"));
        fs::write(&watched, "half").unwrap();
        fs::write(&finished, "whole").unwrap();
        let (ended, end) = mpsc::channel();
        // Others than those that other tests of this process send to themselves.
        let signals = [Signal::URG, Signal::WINCH];
        drop(Cleanup::over(finished.clone(), signals, |_| panic!("nobody watches over it")).unwrap());
        let cleanup = Cleanup::over(watched.clone(), signals, move |signal| ended.send(signal).unwrap()).unwrap();
        kill_process(getpid(), Signal::WINCH).unwrap();
        assert_eq!(end.recv_timeout(Duration::from_secs(30)), Ok(Signal::WINCH.as_raw()));
        assert!(!watched.exists() && finished.exists());
        drop(cleanup);
    }
}
