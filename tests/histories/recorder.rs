//! What a process asked and was answered, in a file of its own: a line before each call and one after each answer, each
//! written at once, so that a killed process leaves no request untold.
//!
//! ```text
//!   {"Begun":{"id":7,"at":1234,"object":"chunks/a","action":{"Put":{"stamp":9}},"when":"Always","pins":false}}
//!   {"Ended":{"id":7,"at":1250,"outcome":{"Written":{"existed":true}}}}
//! ```
//!
//! Times are nanoseconds of the machine's monotonic clock, which all its processes share.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::model::{Action, Outcome, When};

pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Nanoseconds of a clock that is the same in every process.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).expect("since the boot") * 1_000_000_000
        + u64::try_from(time.tv_nsec).expect("below a second")
}

/// A request, before it is sent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Begun {
    pub(crate) id: u64,
    pub(crate) at: u64,
    pub(crate) object: String,
    pub(crate) action: Action,
    pub(crate) when: When,
    pub(crate) pins: bool,
}

/// What became of a request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Ended {
    pub(crate) id: u64,
    pub(crate) at: u64,
    pub(crate) outcome: Outcome,
}

/// A line of the file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Line {
    Begun(Begun),
    Ended(Ended),
}

pub(crate) struct Recorder {
    file: File,
    last_id: u64,
}

impl Recorder {
    pub(crate) fn create(path: &Path) -> Result<Self, Failure> {
        Ok(Self { file: File::create_new(path)?, last_id: 0 })
    }

    /// To be called right before the request is sent.
    pub(crate) fn begin(&mut self, object: &str, action: Action, when: When, pins: bool) -> Result<u64, Failure> {
        self.last_id += 1;
        let (id, object) = (self.last_id, object.to_owned());
        self.write(&Line::Begun(Begun { id, at: now(), object, action, when, pins }))?;
        Ok(id)
    }

    /// To be called right after the answer came.
    pub(crate) fn end(&mut self, id: u64, outcome: Outcome) -> Result<(), Failure> {
        self.write(&Line::Ended(Ended { id, at: now(), outcome }))
    }

    fn write(&mut self, line: &Line) -> Result<(), Failure> {
        let mut text = serde_json::to_string(line)?;
        text.push('\n');
        Ok(self.file.write_all(text.as_bytes())?)
    }
}

/// The lines of a file. The last one may be torn by a kill: then its request was not sent, or its answer is not known.
pub(crate) fn read(path: &Path) -> Result<Vec<Line>, Failure> {
    let text = fs::read_to_string(path)?;
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let line = |line| serde_json::from_str(line).map_err(|error| format!("{}: {error}: {line}", path.display()).into());
    whole.lines().map(line).collect()
}
