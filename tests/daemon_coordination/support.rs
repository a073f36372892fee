//! What the tests of coordination say to the daemon.

use commonhold::proto::{Answer, LockInfo, LockWish, Verb};

use crate::daemon_support::{Peer, eventually, frame_of, frame_with_deadline};

pub(crate) fn wish<'a>(keys: &[&'a str]) -> LockWish<'a> {
    LockWish { keys: keys.to_vec(), shared: false, owner: 1, holds: Vec::new(), wait: true }
}

pub(crate) fn lock<'a>(keys: &[&'a str]) -> Verb<'a> {
    Verb::Lock(wish(keys))
}

pub(crate) fn lock_shared<'a>(keys: &[&'a str]) -> Verb<'a> {
    Verb::Lock(LockWish { shared: true, ..wish(keys) })
}

pub(crate) fn try_lock<'a>(keys: &[&'a str]) -> Verb<'a> {
    Verb::Lock(LockWish { wait: false, ..wish(keys) })
}

/// The token of the grant that comes now.
pub(crate) fn token(answer: Answer<'_>) -> u64 {
    match answer {
        Answer::Locked { token } => token,
        other => panic!("not granted: {other:?}"),
    }
}

/// Locks these keys, which are free.
pub(crate) fn take(peer: &mut Peer, keys: &[&str]) -> u64 {
    token(peer.call(lock(keys)).answer())
}

pub(crate) fn unlock(peer: &mut Peer, token: u64) {
    assert_eq!(peer.call(Verb::Unlock { token }).answer(), Answer::Done);
}

pub(crate) fn listing(peer: &mut Peer) -> Vec<LockInfo> {
    match peer.call(Verb::Locks).answer() {
        Answer::Locks { list } => list,
        other => panic!("not a listing: {other:?}"),
    }
}

/// Waits until so many wait for the key.
pub(crate) fn waiting(peer: &mut Peer, key: &str, count: usize) {
    eventually("so many wait", || {
        listing(peer).iter().find(|info| info.key == key).is_some_and(|info| info.waiters.len() == count)
    });
}

/// Sends a request under this number, and waits until so many wait for the key.
pub(crate) fn send_waiting(peer: &Peer, id: u64, deadline_ms: u32, verb: Verb<'_>) {
    let frame = if deadline_ms == 0 { frame_of(id, verb) } else { frame_with_deadline(id, deadline_ms, verb) };
    peer.send(&frame);
}
