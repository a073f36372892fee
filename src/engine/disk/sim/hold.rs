//! Calls that a test holds back, to look at what others can do while the disk is slow.

use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::{Call, SimDisk};

/// Holds back the calls it was made for, until it is dropped.
#[derive(Debug)]
#[must_use = "the calls pass as soon as this value is dropped"]
pub struct Hold {
    gate: Arc<Gate>,
}

#[derive(Debug)]
pub(super) struct Gate {
    call: Call,
    path_part: String,
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    is_open: bool,
    was_reached: bool,
}

impl Gate {
    /// Waits here if this call is held back.
    fn pass(&self, call: Call, path: &Path) {
        if call != self.call || !path.to_string_lossy().contains(&self.path_part) {
            return;
        }
        let mut state = self.state.lock();
        state.was_reached = true;
        self.changed.notify_all();
        self.changed.wait_while(&mut state, |state| !state.is_open);
    }
}

impl Hold {
    /// Waits until a call is held back; false if none was within `deadline`.
    pub fn wait_until_reached(&self, deadline: Duration) -> bool {
        let end = Instant::now() + deadline;
        let mut state = self.gate.state.lock();
        while !state.was_reached {
            if self.gate.changed.wait_until(&mut state, end).timed_out() {
                return state.was_reached;
            }
        }
        true
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.gate.state.lock().is_open = true;
        self.gate.changed.notify_all();
    }
}

impl SimDisk {
    /// Holds back, before they do anything, all calls of this kind on paths that contain `path_part`, until the answer is
    /// dropped. A rename or link goes by its new name; [`Call::Open`] stands for every opening, [`Call::Create`] for none.
    pub fn hold(&self, call: Call, path_part: &str) -> Hold {
        let gate =
            Arc::new(Gate { call, path_part: path_part.to_owned(), state: Mutex::default(), changed: Condvar::new() });
        let mut gates = self.gates.lock();
        gates.retain(|gate| gate.strong_count() > 0);
        gates.push(Arc::downgrade(&gate));
        Hold { gate }
    }

    /// Waits while the call is held back.
    pub(super) fn pass_gates(&self, call: Call, path: &Path) {
        let gates: Vec<Arc<Gate>> = self.gates.lock().iter().filter_map(Weak::upgrade).collect();
        for gate in gates {
            gate.pass(call, path);
        }
    }
}
