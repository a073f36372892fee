//! Points at which a crash test wants the daemon killed: `scripts/crash-loop` names one, the daemon says when it is there
//! and lingers until the signal comes, so that a kill hits the moment between two system calls and not any moment.
//!
//! Without the cargo feature `faultpoints` a point is nothing at all: neither its name nor a branch is in the binary.
//! With it, the environment variable `COMMONHOLD_FAULTPOINTS` names a small file that both sides share:
//!
//! ```text
//!   want append-torn 17        written by the test: stop where this point is reached for the 17th time from now
//!   reached append-torn        written by the daemon, which then lingers there
//! ```
//!
//! The file is read anew at each point, so that a running daemon can be told. It is no part of the store, and so it is
//! not reached through the `Disk`.

/// A point, or with a second argument one that does something before it lingers, as writing half of what comes next.
macro_rules! faultpoint {
    ($point:literal) => {
        faultpoint!($point, ())
    };
    ($point:literal, $last_act:expr) => {
        #[cfg(feature = "faultpoints")]
        if crate::engine::faultpoint::is_wanted($point) {
            let _ = $last_act;
            crate::engine::faultpoint::linger($point);
        }
    };
}
pub(super) use faultpoint;

#[cfg(feature = "faultpoints")]
pub(super) use armed::{is_wanted, linger};

#[cfg(feature = "faultpoints")]
mod armed {
    use std::fs;
    use std::path::PathBuf;
    use std::sync::LazyLock;

    use parking_lot::Mutex;

    /// Names the shared file.
    const FILE_VARIABLE: &str = "COMMONHOLD_FAULTPOINTS";

    static FILE: LazyLock<Option<PathBuf>> = LazyLock::new(|| std::env::var_os(FILE_VARIABLE).map(PathBuf::from));

    /// What was asked for last, and how often its point has still to be reached.
    static ORDER: Mutex<(String, u32)> = Mutex::new((String::new(), 0));

    /// Whether this is the point where the daemon is to be killed.
    pub(in crate::engine) fn is_wanted(point: &str) -> bool {
        let Some(file) = &*FILE else { return false };
        let Ok(text) = fs::read_to_string(file) else { return false };
        let mut words = text.split_whitespace();
        let (Some("want"), Some(wanted), Some(count)) = (words.next(), words.next(), words.next()) else {
            return false;
        };
        if wanted != point {
            return false;
        }
        let mut order = ORDER.lock();
        if order.0 != text {
            *order = (text.clone(), count.parse().unwrap_or(1));
        }
        order.1 = order.1.saturating_sub(1);
        let is_there = order.1 == 0;
        if is_there {
            // Other threads may come by before the file says that one is here.
            order.1 = u32::MAX;
        }
        is_there
    }

    /// Says that the point is reached, and stays there.
    pub(in crate::engine) fn linger(point: &str) -> ! {
        if let Some(file) = &*FILE {
            fs::write(file, format!("reached {point}\n")).expect("the crash test's file can be written");
        }
        loop {
            std::thread::park();
        }
    }
}
