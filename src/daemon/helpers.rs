//! A few threads that may block: they load namespaces, and carry out what a session must not wait for itself.
//!
//! One thread is always there, so that nothing is ever left undone for want of a thread; more are started while there is
//! work for them, and end when there has been none for a while.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::crew::Crew;

/// A thread beyond the first that has had nothing to do for so long ends.
const LINGER: Duration = Duration::from_secs(5);

/// The stack of a helper, which reads whole files.
const STACK_BYTES: usize = 2 * 1024 * 1024;

type Job = Box<dyn FnOnce() + Send>;

/// Threads, and what they have to do.
pub(super) struct Helpers {
    name: &'static str,
    most: usize,
    state: Mutex<State>,
    changed: Condvar,
    crew: Crew,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    /// Those that wait for a job.
    idle: usize,
    closed: bool,
}

impl Helpers {
    /// At most so many threads of this name; the first is started now.
    pub(super) fn start(name: &'static str, most: usize) -> io::Result<Arc<Self>> {
        let (state, changed) = (Mutex::default(), Condvar::new());
        let helpers = Arc::new(Self { name, most, state, changed, crew: Crew::default() });
        helpers.add_thread(&mut helpers.state.lock(), true)?;
        Ok(helpers)
    }

    /// Does `job` on one of the threads, in the order asked. After [`close`](Self::close) it is dropped instead.
    pub(super) fn run(self: &Arc<Self>, job: impl FnOnce() + Send + 'static) {
        let mut state = self.state.lock();
        if state.closed {
            // Not under the lock: what it holds may answer somebody when it is dropped.
            drop(state);
            return drop(job);
        }
        state.jobs.push_back(Box::new(job));
        if state.jobs.len() > state.idle && state.threads < self.most {
            // When none can be had, those that are there do it later.
            if let Err(error) = self.add_thread(&mut state, false) {
                tracing::warn!("no further thread to {}: {error}", self.name);
            }
        }
        drop(state);
        self.changed.notify_one();
    }

    fn add_thread(self: &Arc<Self>, state: &mut State, stays: bool) -> io::Result<()> {
        let helpers = Arc::clone(self);
        self.crew.spawn(self.name, STACK_BYTES, move || helpers.work(stays))?;
        state.threads += 1;
        Ok(())
    }

    fn work(&self, stays: bool) {
        loop {
            let mut state = self.state.lock();
            state.idle += 1;
            let since = Instant::now();
            let job = loop {
                if let Some(job) = state.jobs.pop_front() {
                    break Some(job);
                }
                if state.closed || (!stays && since.elapsed() >= LINGER) {
                    break None;
                }
                self.changed.wait_for(&mut state, LINGER);
            };
            state.idle -= 1;
            let Some(job) = job else {
                state.threads -= 1;
                return;
            };
            drop(state);
            job();
        }
    }

    /// What is queued is dropped; what runs is waited for until the deadline. False if something still runs then.
    pub(super) fn close(&self, deadline: Instant) -> bool {
        let mut state = self.state.lock();
        state.closed = true;
        let queued = std::mem::take(&mut state.jobs);
        drop(state);
        drop(queued);
        self.changed.notify_all();
        self.crew.wait_until_empty(deadline)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[test]
    fn a_job_that_takes_long_holds_up_no_other_and_what_is_queued_at_the_end_is_dropped() {
        let helpers = Helpers::start("test", 2).expect("a thread can be started");
        let (release, blocked) = mpsc::channel::<()>();
        let (sender, done) = mpsc::channel();
        helpers.run(move || assert!(blocked.recv().is_err()));
        for n in 0..10 {
            let sender = sender.clone();
            helpers.run(move || sender.send(n).expect("the test listens"));
        }
        let order: Vec<i32> = (0..10).map(|_| done.recv_timeout(PATIENCE).expect("in time")).collect();
        assert_eq!(order, (0..10).collect::<Vec<_>>());
        assert!(!helpers.close(Instant::now()), "the first still runs");
        drop(release);
        assert!(helpers.close(Instant::now() + PATIENCE));
        let late = sender.clone();
        helpers.run(move || late.send(99).expect("the test listens"));
        drop(sender);
        assert!(done.recv().is_err(), "nothing is done after the end");
    }
}
