//! Faults on purpose: `scripts/histories --teeth` has the daemon break a promise and expects that a history shows it.
//!
//! Without the cargo feature `faultpoints` there is none. With it, the environment variable `COMMONHOLD_SEEDED_FAULT`
//! names the one that a daemon has for all its life:
//!
//! ```text
//!   answer-before-journal   a write is answered while its record is still in the daemon's memory, whatever was promised
//!   same-base               changes in one group are evaluated over the map, and not each over those before it
//!   half-visible            readers see the first change of a request before its others
//!   repeat-done-twice       a request that is sent again is done again, whatever is known of its number
//!   counts-not-moved        a write leaves the counts as they are by which clients know that a value they keep is current
//! ```
//!
//! `scripts/watchers --teeth` has two that histories cannot show, for they watch nothing. With `watch-seam` a watcher that comes
//! from the journal goes on where the memory begins, whatever it has read. With `watch-gone` one that comes back to a
//! daemon that was restarted is told that the journal has let go of what it holds.
//!
//! `scripts/mutants` has the tests on the simulated disk find two: with `skip-sync` the journal is never synced, with
//! `apply-first` a write is seen before it is journalled.

use std::sync::LazyLock;

static SEEDED: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("COMMONHOLD_SEEDED_FAULT").ok());

/// Whether the daemon is to have this fault.
pub(super) fn is_seeded(fault: &str) -> bool {
    cfg!(feature = "faultpoints") && SEEDED.as_deref() == Some(fault)
}
