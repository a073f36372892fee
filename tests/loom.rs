//! Where threads meet without a lock: every order of their steps, and every value that the memory model lets them see, tried
//! by loom. The files are those of the engine, with loom's atomics in the place of std's.
#![expect(unreachable_pub, dead_code, reason = "it takes single files of the library, not the library")]

mod atomic {
    pub(super) use loom::sync::atomic::{AtomicU64, Ordering};
}

mod error {
    /// What of the engine's errors these files name.
    #[derive(Debug)]
    pub(super) enum Error {
        TokenNotLive { token: u64 },
    }
}

#[path = "../src/engine/grant.rs"]
mod grant;

use std::sync::Arc;

use grant::Grant;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

/// Two writes and the end of the grant that they depend on. The key is free when the end finds no write, or when the last
/// write is done: exactly once, and after it no write is seen, and what was written is.
#[test]
fn a_key_is_free_once_and_after_the_last_write_under_its_grant() {
    loom::model(|| {
        // What is written, and what whoever gets the key next finds.
        let written = Arc::new(AtomicUsize::new(0));
        let freed = Arc::new(AtomicUsize::new(0));
        let found = Arc::new(AtomicUsize::new(0));
        let free = {
            let (written, freed, found) = (Arc::clone(&written), Arc::clone(&freed), Arc::clone(&found));
            move || {
                freed.fetch_add(1, Ordering::Relaxed);
                // A plain look: only what the grant orders is to be seen.
                found.store(written.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        };
        let settled = free.clone();
        let grant = Grant::new(7, Arc::new(move |_| settled()));
        let writers: Vec<_> = (0..2)
            .map(|_| {
                let (grant, written) = (grant.clone(), Arc::clone(&written));
                thread::spawn(move || {
                    if let Ok(under) = grant.enter() {
                        written.fetch_add(1, Ordering::Relaxed);
                        drop(under);
                    }
                })
            })
            .collect();
        if !grant.end() {
            free();
        }
        for writer in writers {
            writer.join().expect("it does not panic");
        }
        assert_eq!(freed.load(Ordering::Relaxed), 1, "the key is freed once");
        // No write came after it was free, and none before it was overlooked.
        assert_eq!(found.load(Ordering::Relaxed), written.load(Ordering::Relaxed));
    });
}
