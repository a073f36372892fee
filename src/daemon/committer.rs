//! Writes of sessions on the runtime, and of threads that found somebody else writing: queued here, and committed by
//! threads that may wait for the turn and for syncs.
//!
//! Two threads, because of two kinds of patience: one takes what needs no sync of its own, the other what must be synced
//! before it is answered, so that nobody else waits for that. Each takes all that waits in one call: a crowd of sessions
//! shares one append and one sync. Only the first write to a namespace that was loaded is done alone: what is synced
//! before it may fail for a reason of its own.

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::engine::WriteRequest;

use super::Daemon;
use super::handed::Handed;
use super::running::Outcomes;

/// Requests that are committed in one call at most; further ones wait for the next.
const MOST_REQUESTS: usize = 1_024;

/// One call takes no further requests once it weighs this much: others wait for the turn meanwhile, and a disk that has no room for
/// all of them may have room for some.
const MOST_BYTES: usize = 4 << 20;

/// The queues of the two threads.
#[derive(Default)]
pub(super) struct Committer {
    quick: Lane,
    patient: Lane,
}

#[derive(Default)]
struct Lane {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    closed: bool,
}

/// One session's consecutive writes.
struct Job {
    requests: Vec<WriteRequest>,
    /// What they weigh.
    bytes: usize,
    asker: Asker,
    /// It is not committed together with others.
    alone: bool,
}

/// Who is told what became of them.
enum Asker {
    /// A session on the runtime, which waits for it.
    Task(oneshot::Sender<Outcomes>),
    /// A session that has a thread, and has gone on.
    Thread(Handed),
}

/// Which of the two threads.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// For what needs no sync of its own.
    Quick,
    /// For what must be synced before it is answered, or before it is begun.
    Patient,
}

impl Committer {
    fn lane(&self, kind: Kind) -> &Lane {
        match kind {
            Kind::Quick => &self.quick,
            Kind::Patient => &self.patient,
        }
    }

    /// Commits one session's consecutive writes; none if the daemon is stopping.
    pub(super) async fn commit(&self, daemon: &Daemon, requests: Vec<WriteRequest>) -> Outcomes {
        let is_quick = requests.iter().all(|request| daemon.store().needs_no_sync_of_its_own(request));
        let alone = !is_quick && requests.iter().any(|request| daemon.store().is_first_write(request));
        let lane = self.lane(if is_quick { Kind::Quick } else { Kind::Patient });
        let (sender, receiver) = oneshot::channel();
        // A job that is not taken is dropped, which the receiver sees.
        lane.add(Job::new(requests, Asker::Task(sender), alone));
        receiver.await.unwrap_or(None)
    }

    /// Has one session's consecutive writes committed, none of which needs a sync of its own, and then answered.
    pub(super) fn take_over(&self, requests: Vec<WriteRequest>, handed: Handed) {
        self.quick.add(Job::new(requests, Asker::Thread(handed), false));
    }

    /// A thread: ends when closed and empty.
    pub(super) fn run(&self, daemon: &Daemon, kind: Kind) {
        let lane = self.lane(kind);
        while let Some(first) = lane.next() {
            let mut jobs = vec![first];
            let (mut count, mut bytes) = (jobs[0].requests.len(), jobs[0].bytes);
            if !jobs[0].alone {
                let mut state = lane.state.lock();
                let fits = |job: &Job, count, bytes| {
                    !job.alone && count + job.requests.len() <= MOST_REQUESTS && bytes + job.bytes <= MOST_BYTES
                };
                while let Some(job) = state.jobs.pop_front_if(|job| fits(job, count, bytes)) {
                    (count, bytes) = (count + job.requests.len(), bytes + job.bytes);
                    jobs.push(job);
                }
            }
            let mut all = Vec::with_capacity(count);
            let mut askers = Vec::with_capacity(jobs.len());
            for Job { requests, asker, .. } in jobs {
                askers.push((requests.len(), asker));
                all.extend(requests);
            }
            let frees = all.iter().any(WriteRequest::may_replace_many);
            let mut all = daemon.commit(all).map(Vec::into_iter);
            for (requests, asker) in askers {
                let outcomes = all.as_mut().map(|all| all.by_ref().take(requests).collect());
                match asker {
                    // Its session may have ended meanwhile.
                    Asker::Task(sender) => drop(sender.send(outcomes)),
                    Asker::Thread(handed) => handed.give(outcomes),
                }
            }
            if frees {
                daemon.store().free_replaced();
            }
        }
    }

    /// What is queued is committed; then the threads end.
    pub(super) fn close(&self) {
        for lane in [&self.quick, &self.patient] {
            lane.state.lock().closed = true;
            lane.changed.notify_all();
        }
    }
}

impl Job {
    fn new(requests: Vec<WriteRequest>, asker: Asker, alone: bool) -> Self {
        let bytes = requests.iter().map(WriteRequest::weight).sum();
        Self { requests, bytes, asker, alone }
    }
}

impl Lane {
    fn add(&self, job: Job) {
        let mut state = self.state.lock();
        if !state.closed {
            state.jobs.push_back(job);
            self.changed.notify_one();
        }
    }

    fn next(&self) -> Option<Job> {
        let mut state = self.state.lock();
        while state.jobs.is_empty() && !state.closed {
            self.changed.wait(&mut state);
        }
        state.jobs.pop_front()
    }
}
