//! The writer's turn: who may append and apply, one after the other, and in whose company.
//!
//! A session that finds the turn free takes it, commits what it has together with what is queued, and hands the turn to the
//! oldest waiter; so nobody pays for a hand-off who need not, and those who arrive meanwhile form the next group. Work
//! that needs the turn for itself (a flush taking its cut) waits in the same queue.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

/// One session's consecutive writes, or a wish for the turn itself.
struct Waiter<B, R> {
    phase: Mutex<Phase<B, R>>,
    changed: Condvar,
}

enum Phase<B, R> {
    /// In the queue. None: wants the turn for itself.
    Waiting(Option<B>),
    /// Has been given the turn, and its batch back.
    Leads(Option<B>),
    /// Somebody else committed its batch.
    Done(R),
    /// What it waited for was taken out.
    Taken,
}

/// What a batch counts towards the size of a group.
pub(super) trait Weight {
    /// At most how many bytes it adds to the journal.
    fn weight(&self) -> usize;
}

/// The turn, and the one `W` that its holder works with.
pub(super) struct Turn<W, B, R> {
    state: Mutex<State<B, R>>,
    /// Only locked by the holder of the turn, so never contended.
    writer: Mutex<W>,
}

struct State<B, R> {
    taken: bool,
    queue: VecDeque<Arc<Waiter<B, R>>>,
}

/// A group takes no further batch once it weighs this much.
const GROUP_BYTES: usize = 4 << 20;

impl<W, B: Weight, R> Turn<W, B, R> {
    pub(super) fn new(writer: W) -> Self {
        Self { state: Mutex::new(State { taken: false, queue: VecDeque::new() }), writer: Mutex::new(writer) }
    }

    /// Has `batch` committed, by this thread or by another one's, and returns what became of it.
    ///
    /// `commit` gets the batches of a group, oldest first, and returns as many results.
    pub(super) fn submit(&self, batch: B, commit: impl FnOnce(&mut W, Vec<B>) -> Vec<R>) -> R {
        let own = match self.enter(Some(batch)) {
            Entered::Leads(batch) => batch.expect("a batch that was given comes back"),
            Entered::Done(result) => return result,
        };
        let mut group = vec![own];
        let others = self.gather(&mut group);
        let results = commit(&mut self.writer.lock(), group);
        self.pass_on();
        let mut results = results.into_iter();
        let own = results.next().expect("one result a batch, and the first batch is this thread's");
        for (waiter, result) in others.iter().zip(results) {
            *waiter.phase.lock() = Phase::Done(result);
            waiter.changed.notify_one();
        }
        own
    }

    /// Does `work` under the turn, alone.
    pub(super) fn exclusive<T>(&self, work: impl FnOnce(&mut W) -> T) -> T {
        match self.enter(None) {
            Entered::Leads(_) => {}
            Entered::Done(_) => unreachable!("only batches are committed by others"),
        }
        let result = work(&mut self.writer.lock());
        self.pass_on();
        result
    }

    /// Does `work` under the turn if nobody has it.
    pub(super) fn if_free<T>(&self, work: impl FnOnce(&mut W) -> T) -> Option<T> {
        let mut state = self.state.lock();
        if std::mem::replace(&mut state.taken, true) {
            return None;
        }
        drop(state);
        let result = work(&mut self.writer.lock());
        self.pass_on();
        Some(result)
    }

    fn enter(&self, batch: Option<B>) -> Entered<B, R> {
        let mut state = self.state.lock();
        if !state.taken {
            state.taken = true;
            return Entered::Leads(batch);
        }
        let waiter = Arc::new(Waiter { phase: Mutex::new(Phase::Waiting(batch)), changed: Condvar::new() });
        state.queue.push_back(Arc::clone(&waiter));
        drop(state);
        let mut phase = waiter.phase.lock();
        loop {
            match std::mem::replace(&mut *phase, Phase::Taken) {
                Phase::Leads(batch) => return Entered::Leads(batch),
                Phase::Done(result) => return Entered::Done(result),
                waiting => *phase = waiting,
            }
            waiter.changed.wait(&mut phase);
        }
    }

    /// Moves queued batches into the group, in order, up to one that wants the turn for itself.
    fn gather(&self, group: &mut Vec<B>) -> Vec<Arc<Waiter<B, R>>> {
        let mut weight = group[0].weight();
        let mut others = Vec::new();
        let mut state = self.state.lock();
        while weight < GROUP_BYTES
            && let Some(oldest) = state.queue.front()
        {
            let mut phase = oldest.phase.lock();
            match std::mem::replace(&mut *phase, Phase::Taken) {
                Phase::Waiting(Some(batch)) => {
                    weight += batch.weight();
                    group.push(batch);
                    drop(phase);
                    others.extend(state.queue.pop_front());
                }
                alone => {
                    *phase = alone;
                    break;
                }
            }
        }
        others
    }

    /// Hands the turn to the oldest waiter, or lays it down.
    fn pass_on(&self) {
        let mut state = self.state.lock();
        let Some(oldest) = state.queue.pop_front() else {
            state.taken = false;
            return;
        };
        drop(state);
        let mut phase = oldest.phase.lock();
        if let Phase::Waiting(batch) = std::mem::replace(&mut *phase, Phase::Taken) {
            *phase = Phase::Leads(batch);
        }
        drop(phase);
        oldest.changed.notify_one();
    }
}

enum Entered<B, R> {
    Leads(Option<B>),
    Done(R),
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    impl Weight for u64 {
        fn weight(&self) -> usize {
            8
        }
    }

    #[test]
    fn every_batch_is_committed_once_and_gets_its_own_answer() {
        let turn = Turn::<Vec<u64>, u64, u64>::new(Vec::new());
        let double = |writer: &mut Vec<u64>, group: Vec<u64>| {
            writer.extend(&group);
            group.into_iter().map(|batch| batch * 2).collect()
        };
        thread::scope(|scope| {
            for thread in 0..8_u64 {
                let turn = &turn;
                scope.spawn(move || {
                    for count in 0..2_000 {
                        let batch = thread * 10_000 + count;
                        assert_eq!(turn.submit(batch, double), batch * 2);
                        if count % 100 == 0 {
                            turn.exclusive(|writer| writer.push(u64::MAX));
                        }
                    }
                });
            }
        });
        let mut seen = turn.exclusive(std::mem::take);
        for thread in 0..8_u64 {
            let own: Vec<_> = seen.iter().filter(|batch| **batch / 10_000 == thread).copied().collect();
            assert!(own.is_sorted(), "one session's batches keep their order");
        }
        seen.retain(|batch| *batch != u64::MAX);
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 16_000);
    }
}
