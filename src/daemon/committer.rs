//! Where the writes of all sessions meet: two lanes, in each of which one at a time leads and commits what all have left there.
//!
//! A session's thread that finds nobody leading leads: it commits what it has together with what waits, answers its own client
//! first, then the others, and goes on for a moment with what has come meanwhile. One that finds somebody leading leaves its
//! writes to whoever that is and goes back to its socket. So a crowd of sessions shares its appends and syncs, nobody is
//! woken to commit what a thread that runs already can commit, and who is alone does all by himself. A thread of each lane's own
//! takes what a leader has left, and what comes from sessions on the runtime, which must not wait.
//!
//! Two lanes, because of two kinds of patience: one for what needs no sync of its own, the other for what must be synced
//! before it is answered, so that nobody else waits for that. Only the first write to a namespace that was loaded is done
//! alone: what is synced before it may fail for a reason of its own.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::engine::WriteRequest;

use super::Daemon;
use super::handed::Handed;
use super::running::Outcomes;

#[cfg(test)]
mod tests;

/// Requests that are committed in one call at most; further ones wait for the next.
const MOST_REQUESTS: usize = 1_024;

/// One call takes no further requests once it weighs this much: others wait for the turn meanwhile, and a disk that has no room for
/// all of them may have room for some.
const MOST_BYTES: usize = 4 << 20;

/// So long a session's thread goes on with what others have left, after its own: its client may be asking again already.
const LEADS_FOR: Duration = Duration::from_micros(100);

/// The two lanes.
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
    /// Somebody commits, and looks at the jobs again before he stops.
    led: bool,
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

/// The lead of a lane. Dropped, it is free, and what waits is the lane's thread's, unless a session is faster.
pub(super) struct Lead<'a> {
    daemon: &'a Daemon,
    lane: &'a Lane,
    /// Those that were committed and are not answered yet.
    committed: Vec<(Asker, Outcomes)>,
    /// Something large was replaced.
    frees: bool,
}

/// Who commits some writes of a session that has a thread.
pub(super) enum Leader<'a> {
    /// The session, and what others have left with them.
    Session(Lead<'a>),
    /// Somebody else, who answers them as well.
    Other,
    /// Somebody else would, but they cannot be left to him.
    Busy,
}

/// How many bytes such requests count as.
pub(super) fn weight_of(requests: &[WriteRequest]) -> usize {
    requests.iter().map(WriteRequest::weight).sum()
}

/// Which of the two lanes.
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

    /// The lead, if nobody has it; else leaves what `hand` takes out of a session to whoever has, unless that takes nothing.
    pub(super) fn lead_or_leave<'a>(
        &'a self,
        daemon: &'a Daemon,
        kind: Kind,
        hand: impl FnOnce() -> Option<(Vec<WriteRequest>, Handed)>,
    ) -> Leader<'a> {
        let lane = self.lane(kind);
        let mut state = lane.state.lock();
        if !state.led {
            state.led = true;
            return Leader::Session(Lead::new(daemon, lane));
        }
        let Some((requests, handed)) = hand() else { return Leader::Busy };
        let refused = state.add(Job::new(requests, Asker::Thread(handed), false));
        // Not in the hold, for it is answered by that.
        drop(state);
        drop(refused);
        Leader::Other
    }

    /// The lane's own thread; ends when the lane is closed and empty.
    pub(super) fn run(&self, daemon: &Daemon, kind: Kind) {
        let lane = self.lane(kind);
        while let Some(mut lead) = lane.wait_for_lead(daemon) {
            while lead.commit_others() {}
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
        Self { bytes: weight_of(&requests), requests, asker, alone }
    }
}

impl State {
    /// Queues it, unless nobody will take it any more.
    fn add(&mut self, job: Job) -> Option<Job> {
        if self.closed {
            return Some(job);
        }
        self.jobs.push_back(job);
        None
    }
}

impl Lane {
    fn add(&self, job: Job) {
        let mut state = self.state.lock();
        let refused = state.add(job);
        if !state.led {
            self.changed.notify_one();
        }
        drop(state);
        drop(refused);
    }

    /// The lead, when there is something to do that nobody does; none when there will be nothing any more.
    fn wait_for_lead<'a>(&'a self, daemon: &'a Daemon) -> Option<Lead<'a>> {
        let mut state = self.state.lock();
        while state.led || state.jobs.is_empty() {
            if state.closed && !state.led {
                return None;
            }
            self.changed.wait(&mut state);
        }
        state.led = true;
        Some(Lead::new(daemon, self))
    }
}

impl<'a> Lead<'a> {
    fn new(daemon: &'a Daemon, lane: &'a Lane) -> Self {
        Self { daemon, lane, committed: Vec::new(), frees: false }
    }

    /// Commits these, and in the same call what waits.
    pub(super) fn commit(&mut self, own: Vec<WriteRequest>) -> Outcomes {
        let jobs = self.take(own.len(), weight_of(&own));
        self.commit_with(own, jobs)
    }

    /// Answers those who were committed, and for a moment those who have come meanwhile.
    pub(super) fn answer_others(mut self) {
        let until = Instant::now() + LEADS_FOR;
        self.answer();
        while Instant::now() < until && self.commit_others() {}
    }

    /// Commits what waits and answers it; false if nothing does.
    fn commit_others(&mut self) -> bool {
        let jobs = self.take(0, 0);
        if jobs.is_empty() {
            return false;
        }
        self.commit_with(Vec::new(), jobs);
        self.answer();
        true
    }

    /// What is committed in one call with the leader's own, which are so many requests of so many bytes.
    fn take(&self, mut count: usize, mut bytes: usize) -> Vec<Job> {
        let mut jobs: Vec<Job> = Vec::new();
        let mut alone = false;
        let mut state = self.lane.state.lock();
        while let Some(job) = state.jobs.pop_front_if(|job| {
            let fits = !job.alone && count + job.requests.len() <= MOST_REQUESTS && bytes + job.bytes <= MOST_BYTES;
            count == 0 || !alone && fits
        }) {
            (count, bytes) = (count + job.requests.len(), bytes + job.bytes);
            alone |= job.alone;
            jobs.push(job);
        }
        jobs
    }

    fn commit_with(&mut self, own: Vec<WriteRequest>, jobs: Vec<Job>) -> Outcomes {
        let own_count = own.len();
        let mut all = own;
        let mut askers = Vec::with_capacity(jobs.len());
        for Job { mut requests, asker, .. } in jobs {
            askers.push((requests.len(), asker));
            if all.is_empty() {
                all = requests;
            } else {
                all.append(&mut requests);
            }
        }
        self.frees |= all.iter().any(WriteRequest::may_replace_many);
        let outcomes = self.daemon.commit(all);
        if askers.is_empty() {
            return outcomes;
        }
        let mut outcomes = outcomes.map(Vec::into_iter);
        let mut next = |count| outcomes.as_mut().map(|outcomes| outcomes.by_ref().take(count).collect());
        let own = next(own_count);
        self.committed.extend(askers.into_iter().map(|(count, asker)| (asker, next(count))));
        own
    }

    fn answer(&mut self) {
        for (asker, outcomes) in self.committed.drain(..) {
            match asker {
                // Its session may have ended meanwhile.
                Asker::Task(sender) => drop(sender.send(outcomes)),
                Asker::Thread(handed) => handed.give(outcomes),
            }
        }
        if std::mem::take(&mut self.frees) {
            self.daemon.store().free_replaced();
        }
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        let mut state = self.lane.state.lock();
        state.led = false;
        if !state.jobs.is_empty() || state.closed {
            self.lane.changed.notify_one();
        }
    }
}
