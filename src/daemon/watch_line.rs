//! The watches of one session that have something to do, and who serves them: one thread at a time, and none while the client has
//! not taken what waits for it. So however many a session watches, one piece is on its way to a client that does not read,
//! and each time the client has taken one, one more is made, instead of each watch being looked at to find that it comes too late.
//!
//! Who serves asks in turns whether the client takes more, which the session's outbox knows, and for the next watch, which the
//! line knows. Between the two anything may happen; that nobody is then left standing is what `tests/loom.rs` tries.
//!
//! ```text
//!            join                 rests            is_called
//!   Idle ───────────▶ Served ────────────▶ Stands ───────────▶ Served, or Idle where nobody is in the line
//!     ▲                 │  ▲ is_called
//!     └──── is_done ────┘  └── ServedAndCalled: it does not rest, but looks once more
//! ```

use std::collections::VecDeque;

use super::sync::Mutex;

/// Who has something to do, in the order in which they came.
pub(super) struct WatchLine<T>(Mutex<State<T>>);

struct State<T> {
    ready: VecDeque<T>,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nobody serves, for there is nobody in it.
    Idle,
    /// Somebody does.
    Served,
    /// The client has taken what waited for it, perhaps since that was looked at.
    ServedAndCalled,
    /// Nobody serves until the client has taken what waits for it.
    Stands,
}

impl<T> Default for WatchLine<T> {
    fn default() -> Self {
        Self(Mutex::new(State { ready: VecDeque::new(), stage: Stage::Idle }))
    }
}

impl<T> WatchLine<T> {
    /// Adds one at the end. True where the caller has to see to it that the line is served.
    pub(super) fn join(&self, one: T) -> bool {
        let mut state = self.0.lock();
        state.ready.push_back(one);
        let begins = state.stage == Stage::Idle;
        if begins {
            state.stage = Stage::Served;
        }
        begins
    }

    /// The client has taken what waited for it. True where the caller has to see to it that the line is served.
    pub(super) fn is_called(&self) -> bool {
        let mut state = self.0.lock();
        let (stage, begins) = match state.stage {
            Stage::Idle => (Stage::Idle, false),
            Stage::Served | Stage::ServedAndCalled => (Stage::ServedAndCalled, false),
            Stage::Stands if state.ready.is_empty() => (Stage::Idle, false),
            Stage::Stands => (Stage::Served, true),
        };
        state.stage = stage;
        begins
    }

    /// The first, for whoever serves.
    pub(super) fn next(&self) -> Option<T> {
        self.0.lock().ready.pop_front()
    }

    /// Whether it is done with, for whoever serves: then nobody does any more.
    pub(super) fn is_done(&self) -> bool {
        let mut state = self.0.lock();
        let is_done = state.ready.is_empty();
        if is_done {
            state.stage = Stage::Idle;
        }
        is_done
    }

    /// For whoever serves, when the client has not taken what waits for it: true if nobody serves any more until it has. Else it has
    /// meanwhile.
    pub(super) fn rests(&self) -> bool {
        let mut state = self.0.lock();
        let rests = state.stage != Stage::ServedAndCalled;
        state.stage = if rests { Stage::Stands } else { Stage::Served };
        rests
    }
}
