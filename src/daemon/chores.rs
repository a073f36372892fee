//! What the tick thread does each second for the engine: its chores, flushes when the journal has outgrown its limit, and
//! the rescue when the disk has failed.

use std::time::{Duration, Instant};

use super::Daemon;
use super::fault::with_causes;
use super::options::OnDiskFailure;

/// How long the rescue waits for a program that holds a file, before it goes on with the others.
const RESCUE_LOCK: Duration = Duration::from_millis(200);

/// How long it is until the rescue tries once more what it could not write.
const RESCUE_AGAIN: Duration = Duration::from_secs(10);

/// What is remembered from second to second.
#[derive(Default)]
pub(super) struct Chores {
    failing: bool,
    rescued: Option<Instant>,
    /// The end has been asked for.
    ending: bool,
}

impl Chores {
    /// One second's work, or what the journal's growth asks for in between.
    pub(super) fn for_the_engine(&mut self, daemon: &Daemon) {
        let store = daemon.store();
        let ticked = store.tick();
        // Told once: what has ended writing is led with by `status`, and a full disk answers each write.
        match (std::mem::replace(&mut self.failing, ticked.is_err()), ticked) {
            (false, Err(error)) => tracing::error!("{}", with_causes(&error)),
            (true, Ok(())) => tracing::info!("the journal is written again"),
            _ => {}
        }
        if store.refuses_writes().is_none() {
            return daemon.flusher().relieve_journal();
        }
        store.journal_is_relieved();
        if store.needs_rescue() && self.rescued.is_none_or(|last| last.elapsed() >= RESCUE_AGAIN) {
            store.rescue(RESCUE_LOCK);
            self.rescued = Some(Instant::now());
        }
        if daemon.options().on_disk_failure == OnDiskFailure::Exit && !std::mem::replace(&mut self.ending, true) {
            tracing::error!("the daemon ends, as it was told to when the disk fails");
            daemon.ask_for_the_end();
        }
    }
}
