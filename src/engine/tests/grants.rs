//! What depends on a grant, and what its end waits for. `tests/loom.rs` has them meet in every order.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::engine::error::Error;
use crate::engine::grant::Grant;

/// Adds up the tokens that it is told.
fn counting(told: &Arc<AtomicU64>) -> Arc<dyn Fn(u64) + Send + Sync> {
    let told = Arc::clone(told);
    Arc::new(move |token| {
        told.fetch_add(token, Ordering::Relaxed);
    })
}

#[test]
fn what_ends_while_writes_are_being_done_is_told_once_when_the_last_is() {
    let told = Arc::new(AtomicU64::new(0));
    let grant = Grant::new(7, counting(&told));
    let (one, two) = (grant.enter().unwrap(), grant.enter().unwrap());
    assert!(grant.end());
    assert!(matches!(grant.enter(), Err(Error::TokenNotLive { token: 7 })));
    drop(one);
    assert_eq!(told.load(Ordering::Relaxed), 0);
    drop(two);
    assert_eq!(told.load(Ordering::Relaxed), 7);
}

#[test]
fn an_end_that_meets_writes_is_told_exactly_if_it_was_said_to_be() {
    for _ in 0..300 {
        let told = Arc::new(AtomicU64::new(0));
        let grant = Grant::new(1, counting(&told));
        let busy = thread::scope(|scope| {
            for _ in 0..2 {
                let grant = &grant;
                scope.spawn(move || while grant.enter().is_ok() {});
            }
            scope.spawn(|| grant.end()).join().unwrap()
        });
        assert_eq!(told.load(Ordering::Relaxed), u64::from(busy));
    }
}
