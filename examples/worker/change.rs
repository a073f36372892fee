//! What the example workers write, and how they log it: one JSON line a change of a key.
//!
//! A line is `{"seq": 17, "kind": "put", "request": 9, "namespace": …, "key": …, "state": …}`. Its `seq` is `"unknown"`
//! when the outcome is; its `state` is the value's hash or `"deleted"`. Lines of one request stand together and share
//! its number.

use commonhold::blocking::{Error, Fault, Namespace, Seq, Written};
use serde_json::{Value, json};

/// One key of a write request: its new value as JSON text, or none for a delete.
#[derive(Clone)]
pub(crate) struct Change {
    pub(crate) space: Namespace,
    pub(crate) key: String,
    pub(crate) value: Option<String>,
}

/// What became of a write request.
pub(crate) enum Outcome {
    Acknowledged(Seq),
    /// Its condition did not hold: nothing was done.
    Refused,
    /// Nothing but that it was begun: if its worker is killed, all of it was done, or nothing.
    #[allow(
        dead_code,
        reason = "one of the examples that share this logs a request before its answer, the other does not"
    )]
    Unknown,
}

impl Change {
    /// How the log tells it.
    pub(crate) fn line(&self, kind: &str, request: u64, outcome: &Outcome) -> Value {
        let state = self.value.as_deref().map_or("deleted".to_owned(), |value| format!("{:016x}", hash(value)));
        let seq = match outcome {
            Outcome::Acknowledged(seq) => json!(seq.0),
            Outcome::Refused => json!("refused"),
            Outcome::Unknown => json!("unknown"),
        };
        let namespace = self.space.place().to_string();
        json!({
            "seq": seq, "kind": kind, "request": request, "namespace": namespace, "key": self.key, "state": state,
        })
    }
}

/// A refused condition is an answer that a worker lives with. Everything else ends it, an unknown outcome too: the client
/// asks the next daemon what became of a write, so there is none as long as one comes back.
pub(crate) fn outcome(result: Result<Written, Error>) -> Result<Outcome, Error> {
    match result {
        Ok(written) => Ok(Outcome::Acknowledged(written.seq)),
        Err(Error::Fault(Fault::ConditionFailed { .. })) => Ok(Outcome::Refused),
        Err(error) => Err(error),
    }
}

/// The 64-bit FNV-1a hash of a text: easy to write again in another language, as `scripts/verify.py` does.
pub(crate) fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
