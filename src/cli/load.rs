//! The load that `bench` puts on a daemon: connections with a thread each, every one with so many requests on their way,
//! reading and writing random keys until the time is over or all requests are done.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::quantiles::Quantiles;
use crate::client;
use crate::client::blocking::{Namespace, Pending, Value, Written};

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// Requests of one connection that are on their way at once, 1 at least.
    pub(super) in_flight: usize,
    /// Keys that are read and written, 1 at least.
    pub(super) keys: u64,
    /// How many of a hundred requests read.
    pub(super) reads: u64,
    /// The length of a value as JSON text, 2 at least.
    pub(super) value_bytes: usize,
    /// So long, unless it is for a number of requests.
    pub(super) time: Duration,
    /// So many in all.
    pub(super) requests: Option<u64>,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) took: Duration,
    pub(super) gets: Quantiles,
    pub(super) puts: Quantiles,
}

/// The key of a number.
pub(super) fn key(number: u64) -> String {
    format!("key-{number:010}")
}

/// A JSON text of `bytes` bytes, whose letters differ from one seed to the next.
pub(super) fn value(bytes: usize, seed: u64) -> String {
    const LETTERS: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
    let mut random = Random(seed);
    let letters = (0..bytes.saturating_sub(2)).map(|_| char::from(LETTERS[(random.next() % 64) as usize]));
    std::iter::once('"').chain(letters).chain(std::iter::once('"')).collect()
}

/// Puts the load on, one thread for each of `connections`, which are namespaces of clients of their own.
///
/// # Errors
/// The first that any of them had; all of them end then.
pub(super) fn put_on(connections: &[Namespace], load: Load) -> Result<Done, client::Error> {
    let (ended, left) = (AtomicBool::new(false), AtomicU64::new(load.requests.unwrap_or(u64::MAX)));
    let began = Instant::now();
    let until = load.requests.is_none().then(|| began + load.time);
    let each: Vec<Result<Done, client::Error>> = thread::scope(|scope| {
        let worker = |(index, namespace)| {
            let worker = Worker { namespace, load, until, ended: &ended, left: &left };
            scope.spawn(move || worker.work(index as u64))
        };
        let threads: Vec<_> = connections.iter().enumerate().map(worker).collect();
        threads.into_iter().map(|thread| thread.join().expect("a worker does not panic")).collect()
    });
    let mut all = Done::default();
    for done in each {
        let done = done?;
        all.gets.add(&done.gets);
        all.puts.add(&done.puts);
        all.took = all.took.max(done.took);
    }
    Ok(all)
}

/// One connection's part.
struct Worker<'a> {
    namespace: &'a Namespace,
    load: Load,
    until: Option<Instant>,
    /// Set when one of them has failed.
    ended: &'a AtomicBool,
    /// Requests that nobody has taken yet.
    left: &'a AtomicU64,
}

/// A request on its way.
enum Sent {
    Get(Pending<Option<Value>>),
    Put(Pending<Written>),
}

impl Worker<'_> {
    fn work(&self, index: u64) -> Result<Done, client::Error> {
        let done = self.until_the_end(index);
        if done.is_err() {
            self.ended.store(true, Ordering::Relaxed);
        }
        done
    }

    fn until_the_end(&self, index: u64) -> Result<Done, client::Error> {
        let mut random = Random(index.wrapping_add(1));
        let value = value(self.load.value_bytes, index);
        let mut done = Done::default();
        let mut sent = VecDeque::with_capacity(self.load.in_flight);
        let began = Instant::now();
        while self.goes_on() {
            let key = key(random.next() % self.load.keys);
            let reads = random.next() % 100 < self.load.reads;
            let at = Instant::now();
            let request = if reads {
                Sent::Get(self.namespace.get_raw_later(&key)?)
            } else {
                Sent::Put(self.namespace.put_raw_later(&key, &value)?)
            };
            sent.push_back((at, request));
            if sent.len() >= self.load.in_flight {
                answered(&mut sent, &mut done)?;
            }
        }
        while !sent.is_empty() {
            answered(&mut sent, &mut done)?;
        }
        done.took = began.elapsed();
        Ok(done)
    }

    /// Takes one of the requests, if there is time and one is left.
    fn goes_on(&self) -> bool {
        !self.ended.load(Ordering::Relaxed)
            && self.until.is_none_or(|until| Instant::now() < until)
            && self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

/// Waits for the oldest one.
fn answered(sent: &mut VecDeque<(Instant, Sent)>, done: &mut Done) -> Result<(), client::Error> {
    let Some((at, request)) = sent.pop_front() else { return Ok(()) };
    let quantiles = match request {
        Sent::Get(pending) => {
            pending.wait()?;
            &mut done.gets
        }
        Sent::Put(pending) => {
            pending.wait()?;
            &mut done.puts
        }
    };
    quantiles.record(at.elapsed());
    Ok(())
}

/// Numbers in no order that matters (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_json_of_the_length_that_was_asked_for() {
        for bytes in [2, 3, 830] {
            let text = value(bytes, 7);
            assert_eq!(text.len(), bytes);
            serde_json::from_str::<String>(&text).expect("it is JSON");
        }
        assert_ne!(value(830, 1), value(830, 2));
    }
}
