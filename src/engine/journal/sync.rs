//! How far the journal has got: what is in the operating system's hands, and what is on the platter.
//!
//! Syncs run beside the writers, never under their turn unless the store is `synced`. Whoever needs one while one is
//! running waits for the next, together with all the others. Segments are synced in order, each only after the one
//! before it, so that what a power cut takes is always a suffix.
//!
//! Records may be *appended* (in the appender's buffer), *written* (in the operating system's hands) and *synced*. A
//! record that stays written but unsynced for longer than [`MAX_UNSYNCED`] holds back writers, so that a slow disk
//! slows them down instead of letting ever more hang on its next sync.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use commonhold_proto::Seq;
use parking_lot::{Condvar, Mutex};

use crate::engine::clock::Clock;
use crate::engine::disk::{Disk, DiskFile};
use crate::engine::error::Error;
use crate::engine::faultpoint::faultpoint;
use crate::engine::poison::Poison;
use crate::engine::seeded_fault::is_seeded;

/// Writers wait while a record has been unsynced for longer than this.
pub(crate) const MAX_UNSYNCED: Duration = Duration::from_secs(2);

/// The progress of one journal.
pub(crate) struct Progress {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    directory: PathBuf,
    poison: Arc<Poison>,
    /// The last Seq that has a record, be it only in the appender's buffer. Only the holder of the turn moves it.
    appended: AtomicU64,
    /// The last Seq that was handed to the operating system. Only the holder of the turn moves it.
    written: AtomicU64,
    /// The last Seq on the platter. Only the one running sync moves it.
    synced: AtomicU64,
    syncs: AtomicU64,
    /// The time by the clock, in nanoseconds and 1 more, at which the oldest unsynced record was written; 0 for none.
    oldest_unsynced: AtomicU64,
    state: Mutex<State>,
    finished: Condvar,
}

struct State {
    running: bool,
    /// What becomes the oldest unsynced record when the sync that runs has succeeded.
    written_since: u64,
    /// Segments with something unsynced, oldest first; the last one is being appended to and stays.
    segments: Vec<(PathBuf, Arc<dyn DiskFile>)>,
    /// A segment's name is not on the platter yet.
    names_unsynced: bool,
}

impl Progress {
    /// A journal of one segment, all of which is on the platter.
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        directory: PathBuf,
        poison: Arc<Poison>,
        segment: (PathBuf, Arc<dyn DiskFile>),
        synced: Seq,
    ) -> Self {
        Self {
            disk,
            clock,
            directory,
            poison,
            appended: AtomicU64::new(synced.0),
            written: AtomicU64::new(synced.0),
            synced: AtomicU64::new(synced.0),
            syncs: AtomicU64::new(0),
            oldest_unsynced: AtomicU64::new(0),
            state: Mutex::new(State {
                running: false,
                written_since: 0,
                segments: vec![segment],
                names_unsynced: false,
            }),
            finished: Condvar::new(),
        }
    }

    /// All that was written is on the platter, by somebody else's sync.
    pub(super) fn settle(&self) {
        let _state = self.state.lock();
        self.oldest_unsynced.store(0, Ordering::Relaxed);
        self.synced.store(self.written.load(Ordering::Acquire), Ordering::Release);
    }

    /// Goes on as `begun`, of which nobody else knows, in its segment.
    pub(super) fn go_on_as(&self, begun: &Self) {
        let mut state = self.state.lock();
        state.segments.clone_from(&begun.state.lock().segments);
        state.names_unsynced = false;
        self.oldest_unsynced.store(0, Ordering::Relaxed);
        for (own, other) in
            [(&self.appended, &begun.appended), (&self.written, &begun.written), (&self.synced, &begun.synced)]
        {
            own.store(other.load(Ordering::Acquire), Ordering::Release);
        }
    }

    /// The last Seq that has a record.
    pub(crate) fn appended(&self) -> Seq {
        Seq(self.appended.load(Ordering::Acquire))
    }

    /// The last Seq in the operating system's hands.
    pub(crate) fn written(&self) -> Seq {
        Seq(self.written.load(Ordering::Acquire))
    }

    /// The last Seq on the platter.
    pub(crate) fn synced(&self) -> Seq {
        Seq(self.synced.load(Ordering::Acquire))
    }

    /// How many syncs there have been.
    pub(crate) fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    pub(super) fn appended_through(&self, seq: Seq) {
        self.appended.store(seq.0, Ordering::Release);
    }

    pub(super) fn wrote(&self, seq: Seq) {
        let now = self.now();
        let mut state = self.state.lock();
        self.written.store(seq.0, Ordering::Release);
        if state.running && state.written_since == 0 {
            state.written_since = now;
        }
        if self.oldest_unsynced.load(Ordering::Relaxed) == 0 {
            self.oldest_unsynced.store(now, Ordering::Relaxed);
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.clock.now().as_nanos()).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// For how long the oldest unsynced record has been written.
    pub(crate) fn unsynced_for(&self) -> Duration {
        match self.oldest_unsynced.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            oldest => Duration::from_nanos(self.now().saturating_sub(oldest)),
        }
    }

    /// Waits while a record has been unsynced for longer than [`MAX_UNSYNCED`]: for the sync that runs, or by syncing.
    ///
    /// # Errors
    /// [`Error::Unavailable`] once writing has ended.
    pub(crate) fn wait_while_behind(&self) -> Result<(), Error> {
        while self.unsynced_for() > MAX_UNSYNCED {
            if let Err(error) = self.sync_through(self.synced().next()) {
                // Whoever waits here has not begun anything whose outcome could be unknown.
                return self.poison.check().and(Err(error));
            }
        }
        Ok(())
    }

    /// A successor takes the records from now on.
    pub(super) fn begin_segment(&self, path: PathBuf, file: Arc<dyn DiskFile>) {
        let mut state = self.state.lock();
        state.segments.push((path, file));
        state.names_unsynced = true;
    }

    /// Returns when everything through `target` is on the platter, and says how far the platter has got.
    ///
    /// # Errors
    /// [`Error::OutcomeUnknown`] when the sync fails, which ends all writing; [`Error::Unavailable`] after that.
    pub(crate) fn sync_through(&self, target: Seq) -> Result<Seq, Error> {
        let mut state = self.state.lock();
        loop {
            let synced = self.synced();
            if synced >= target {
                return Ok(synced);
            }
            self.poison.check()?;
            if !state.running {
                break;
            }
            self.finished.wait(&mut state);
        }
        state.running = true;
        state.written_since = 0;
        let segments = state.segments.clone();
        let names = std::mem::take(&mut state.names_unsynced);
        // Read before the sync: what is written while it runs may or may not be caught by it.
        let reached = self.written();
        drop(state);

        let outcome = self.sync_files(&segments, names);

        let mut state = self.state.lock();
        state.running = false;
        let result = match outcome {
            Ok(()) => {
                state.segments.drain(..segments.len() - 1);
                self.syncs.fetch_add(1, Ordering::Relaxed);
                self.oldest_unsynced.store(state.written_since, Ordering::Relaxed);
                self.synced.store(reached.0, Ordering::Release);
                Ok(reached)
            }
            Err((path, error)) => {
                let reason = format!("a sync of {} failed: {error}", path.display());
                self.poison.trip(reason.clone());
                Err(Error::OutcomeUnknown { reason })
            }
        };
        drop(state);
        self.finished.notify_all();
        result
    }

    fn sync_files<'a>(
        &'a self,
        segments: &'a [(PathBuf, Arc<dyn DiskFile>)],
        names: bool,
    ) -> Result<(), (&'a Path, std::io::Error)> {
        if is_seeded("skip-sync") {
            return Ok(());
        }
        faultpoint!("sync-before");
        for (path, file) in segments {
            file.sync().map_err(|error| (path.as_path(), error))?;
        }
        if names {
            self.disk.sync_dir(&self.directory).map_err(|error| (self.directory.as_path(), error))?;
        }
        faultpoint!("sync-after");
        Ok(())
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { appended, written, synced, .. } = self;
        f.debug_struct("Progress")
            .field("appended", appended)
            .field("written", written)
            .field("synced", synced)
            .finish_non_exhaustive()
    }
}
