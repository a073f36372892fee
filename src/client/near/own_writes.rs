//! Which keys this client is writing right now. The requests of a session take effect in the order sent: a value that was
//! read before a write was sent is not served after it, even where the write has not been answered yet.
//!
//! Keys share places here; that two meet costs a question to the daemon, and nothing else. A write is under way from when it
//! is numbered until the daemon has answered it, whether or not anybody waits for that, or the connection is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use commonhold_proto::{Op, Verb};

use crate::client::target::Target;

const KEYS: usize = 1_024;
const NAMESPACES: usize = 64;
/// A write of more keys counts as one of all its namespaces'.
const MOST_KEYS: usize = 16;

/// See the head of this file.
#[derive(Debug)]
pub(in crate::client) struct OwnWrites {
    open: AtomicU32,
    /// Keys, and namespaces behind them.
    places: Box<[AtomicU32; KEYS + NAMESPACES]>,
}

impl Default for OwnWrites {
    fn default() -> Self {
        Self { open: AtomicU32::new(0), places: Box::new([const { AtomicU32::new(0) }; KEYS + NAMESPACES]) }
    }
}

/// One write that is under way, until it is dropped.
#[derive(Debug)]
pub(in crate::client) struct Mark {
    writes: Arc<OwnWrites>,
    places: Vec<u16>,
}

impl OwnWrites {
    /// Notes that a request begins, if it changes anything.
    pub(in crate::client) fn begin(self: &Arc<Self>, verb: &Verb<'_>) -> Option<Mark> {
        let mut places = Vec::new();
        match verb {
            Verb::Write(write) if write.ops.len() <= MOST_KEYS => {
                for op in &write.ops {
                    places.push(match *op {
                        Op::Put { key, .. }
                        | Op::PutStamped { key, .. }
                        | Op::Delete { key, .. }
                        | Op::Merge { key, .. }
                        | Op::Increment { key, .. }
                        | Op::Append { key, .. } => place_of_key(key),
                        Op::Clear { space } => {
                            let space = write.spaces.get(space as usize)?;
                            place_of_namespace(space.namespace)
                        }
                    });
                }
            }
            Verb::Write(write) => places.extend(write.spaces.iter().map(|space| place_of_namespace(space.namespace))),
            Verb::Drop { space } | Verb::DropOnce { space, .. } => places.push(place_of_namespace(space.namespace)),
            _ => return None,
        }
        self.open.fetch_add(1, Ordering::AcqRel);
        for &place in &places {
            self.places[usize::from(place)].fetch_add(1, Ordering::AcqRel);
        }
        Some(Mark { writes: Arc::clone(self), places })
    }

    /// Whether any write is under way.
    #[inline]
    pub(in crate::client) fn are_some_open(&self) -> bool {
        self.open.load(Ordering::Acquire) > 0
    }

    /// Whether no write that is under way could change this key.
    #[inline]
    pub(in crate::client) fn are_done_to(&self, key: &str, target: &Target) -> bool {
        if !self.are_some_open() {
            return true;
        }
        let places = [place_of_key(key), place_of_namespace(target.place().namespace.as_str())];
        places.iter().all(|&place| self.places[usize::from(place)].load(Ordering::Acquire) == 0)
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        for &place in &self.places {
            self.writes.places[usize::from(place)].fetch_sub(1, Ordering::AcqRel);
        }
        self.writes.open.fetch_sub(1, Ordering::AcqRel);
    }
}

fn place_of_key(key: &str) -> u16 {
    (hash(key) % KEYS as u64) as u16
}

fn place_of_namespace(namespace: &str) -> u16 {
    (KEYS as u64 + hash(namespace) % NAMESPACES as u64) as u16
}

fn hash(text: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use commonhold_proto::{Condition, Kind, Place, Space, Write};

    use super::*;

    fn write<'a>(spaces: &[Space<'a>], ops: Vec<Op<'a>>) -> Verb<'a> {
        let spaces = spaces.to_vec();
        Verb::Write(Write { client: 1, number: 1, settled: 0, durability: None, if_token: None, spaces, ops })
    }

    fn put(key: &str) -> Op<'_> {
        Op::Put { space: 0, key, value: "1", condition: Condition::Always }
    }

    #[test]
    fn a_key_is_being_written_until_the_last_write_to_it_is_done() {
        let target = Target::new(Place::new("", "docs").unwrap(), Kind::Persistent);
        let other = Target::new(Place::new("", "other").unwrap(), Kind::Persistent);
        let spaces = [target.space()];
        let writes = Arc::new(OwnWrites::default());
        assert!(writes.begin(&Verb::Ping).is_none());
        let one = writes.begin(&write(&spaces, vec![put("k")])).unwrap();
        let two = writes.begin(&write(&spaces, vec![put("j"), put("k")])).unwrap();
        assert!(!writes.are_done_to("k", &target) && !writes.are_done_to("j", &target));
        assert!(writes.are_done_to("another", &target));
        drop(one);
        assert!(!writes.are_done_to("k", &target));
        drop(two);
        assert!(writes.are_done_to("k", &target) && !writes.are_some_open());

        let clear = writes.begin(&write(&spaces, vec![Op::Clear { space: 0 }])).unwrap();
        assert!(!writes.are_done_to("any", &target) && writes.are_done_to("any", &other));
        drop(clear);
        let keys: Vec<String> = (0..100).map(|n| format!("k{n}")).collect();
        let many = writes.begin(&write(&spaces, keys.iter().map(|key| put(key)).collect())).unwrap();
        assert!(!writes.are_done_to("any", &target));
        drop(many);
        let dropped = writes.begin(&Verb::Drop { space: target.space() }).unwrap();
        assert!(!writes.are_done_to("any", &target));
        drop(dropped);
        assert!(writes.are_done_to("any", &target));
    }
}
