//! How a daemon ends: no more connections, no more writes, everything synced and flushed, and only then the sessions.

use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::proto::{Answer, Fault};

use super::Error;
use super::fault::with_causes;
use super::flusher::{Done, Wish};
use super::late::LateAnswer;
use super::running::{Daemon, Running};

/// How long the end waits for sessions that were told to end; one that is still in the engine then is left behind.
const SESSIONS_END: Duration = Duration::from_secs(10);

/// How long a client that asked for the stop may take to be told that it is done.
const STOP_ANSWER: Duration = Duration::from_secs(1);

impl Daemon {
    /// No write is taken from here on; those that run are waited for. Then everything is synced and flushed.
    fn settle(&self) -> Result<(), Fault> {
        self.close_gate();
        self.flusher.hurry();
        let outcome = self.flush_at_the_end();
        if self.store.refuses_writes().is_some() {
            // Who looks at the exit code must learn of it, also when there was nothing left to write.
            self.store.rescue(Duration::ZERO);
            return Err(Fault::Unavailable { reason: self.store.refuses_writes().unwrap_or_default() });
        }
        let fault = match outcome {
            Ok(()) => {
                self.store.note_files();
                return Ok(());
            }
            Err(fault) => fault,
        };
        match self.store.stats().unwritten_bytes {
            0 => Err(fault),
            bytes => Err(Fault::Unavailable {
                reason: format!(
                    "{fault}; the last {bytes} bytes of journal were in memory only, and what they hold is lost unless a file has it"
                ),
            }),
        }
    }

    fn flush_at_the_end(&self) -> Result<(), Fault> {
        // Should it fail, the flush fails for every namespace that lacks something, and names it.
        let synced = self.store.sync_through(self.store.applied());
        let (sender, outcome) = mpsc::channel();
        let wish = Wish { rewrite: false, since: Instant::now(), deadline: None, cancelled: None };
        // Should the receiver be gone there is nobody to tell, which cannot be: it waits below.
        let waiter = move |done: Result<Done, Fault>| drop(sender.send(done));
        self.flusher.flush(None, wish, Box::new(waiter));
        match outcome.recv() {
            Ok(Ok(Done { rewritten, .. })) => {
                synced.map_err(|error| Fault::from(&error))?;
                let list = self.store.namespaces().unwrap_or_default();
                let closed = list.iter().filter(|info| info.closed.is_some());
                for info in closed {
                    tracing::warn!(
                        workspace = info.workspace,
                        namespace = info.namespace,
                        "closed: its file was left alone, and what waits for it is kept; `commonhold check` tells how to repair it"
                    );
                }
                tracing::info!(rewritten, "all open namespaces are flushed");
                Ok(())
            }
            Ok(Err(fault)) => Err(fault),
            Err(_) => Err(Fault::Stopping),
        }
    }

    /// No write is begun from here on, and none runs when this returns.
    fn close_gate(&self) {
        self.open_gate.store(false, Ordering::Release);
        drop(self.gate.write());
    }

    fn end_sessions(&self, say: Option<&Fault>) {
        // Before the sessions: what one of them held is not granted to another now.
        self.end_waits();
        let open = self.sessions.lock().all();
        for guest in &open {
            if let Some(fault) = say {
                guest.outbox.say_closing(fault.clone());
            }
            guest.outbox.close();
        }
        drop(open);
        if !self.crew.wait_until_empty(Instant::now() + SESSIONS_END) {
            tracing::warn!(sessions = self.session_count(), "some sessions are still busy and are left behind");
        }
        self.committer.close();
        self.loader.close();
        let deadline = Instant::now() + SESSIONS_END;
        if !self.watches.close(deadline) {
            tracing::warn!("some watchers are still being served and are left behind");
        }
        if !self.loads.close(deadline) || !self.aside.close(deadline) {
            tracing::warn!("some namespaces are still being loaded and are left behind");
        }
        self.loader.close();
    }
}

impl Running {
    /// As [`stop`](Self::stop), and tells these, and whoever asks meanwhile, how it went.
    pub(super) fn end(&mut self, askers: &mut Vec<LateAnswer>) -> Result<(), Error> {
        tracing::info!("stopping");
        self.ended = true;
        self.daemon.stop_accepting(&self.listeners);
        self.daemon.end_waits();
        let settled = self.daemon.settle();
        // The last write is done. What others change from here on, no client is to miss for a value that it keeps.
        self.daemon.versions.retire();
        self.stop_requests.close();
        while let Ok(asker) = self.stop_requests.try_recv() {
            askers.extend(asker);
        }
        for asker in askers.drain(..) {
            let answer = settled.clone().map_or_else(Answer::Fault, |()| Answer::Done);
            asker.give_and_wait(&answer, STOP_ANSWER);
        }
        self.end_threads(Some(&Fault::Stopping));
        for listener in &self.listeners {
            if let Err(error) = listener.unlink_own() {
                tracing::warn!("{}", with_causes(&error));
            }
        }
        let outcome = settled.map_err(|fault| match fault {
            Fault::FlushFailed { places, reason } => Error::FlushFailed { places, reason },
            Fault::Unavailable { reason } => Error::Unavailable { reason },
            other => Error::Unavailable { reason: other.to_string() },
        });
        match &outcome {
            Ok(()) => tracing::info!("stopped; every open namespace is up to date in its file"),
            Err(error) => tracing::error!("stopped: {error}"),
        }
        outcome
    }

    fn end_threads(&mut self, say: Option<&Fault>) {
        self.daemon.flusher.hurry();
        self.daemon.flusher.wait_until_idle();
        self.daemon.syncer.close();
        self.daemon.bell.end();
        self.daemon.end_sessions(say);
        for thread in self.threads.drain(..) {
            // A panic there has ended the process, or is the test's own.
            let _ = thread.join();
        }
        if let Some(runtime) = self.runtime.take() {
            // Its sessions have ended, or are left behind.
            runtime.shutdown_background();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        self.daemon.stop_accepting(&self.listeners);
        self.daemon.close_gate();
        self.end_threads(None);
    }
}
