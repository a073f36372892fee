use std::sync::Arc;

use crate::proto::{Condition, Kind as SpaceKind, Op, Space, Write};

use super::super::dispatch::prepare_write;
use super::super::tables::Tables;
use super::super::{Running, ServeOptions};
use super::*;

/// A daemon with a namespace that has been written to, so that nothing is a first write.
fn serve() -> (tempfile::TempDir, Running, Arc<Daemon>) {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let running = Daemon::start(ServeOptions::new(dir.path())).expect("the daemon starts");
    let daemon = Arc::clone(&running.daemon);
    assert!(matches!(&daemon.commit(a_put(&daemon, "first")).expect("it takes writes")[..], [Ok(_)]));
    (dir, running, daemon)
}

/// A put of a session that is none.
fn a_put(daemon: &Daemon, key: &str) -> Vec<WriteRequest> {
    let put = Op::Put { space: 0, key, value: "1", condition: Condition::Always };
    let spaces = vec![Space { kind: SpaceKind::Persistent, workspace: "", namespace: "docs" }];
    let write = Write { client: 0, number: 0, settled: 0, durability: None, if_token: None, spaces, ops: vec![put] };
    let mut tables = Tables::new(Arc::clone(daemon.store()));
    vec![prepare_write(daemon, &mut tables, &write).expect("it is a good write")]
}

fn leave(lane: &Lane, requests: Vec<WriteRequest>, alone: bool) -> oneshot::Receiver<Outcomes> {
    let (sender, receiver) = oneshot::channel();
    lane.add(Job::new(requests, Asker::Task(sender), alone));
    receiver
}

fn lead<'a>(committer: &'a Committer, daemon: &'a Daemon, kind: Kind) -> Lead<'a> {
    match committer.lead_or_leave(daemon, kind, || None) {
        Leader::Session(lead) => lead,
        Leader::Other | Leader::Busy => panic!("nobody else leads"),
    }
}

/// So many sessions leave a write each while the test leads; whatever it does then, all are answered.
fn left_while_led<T>(by: usize, then: impl FnOnce(&Daemon, Lead<'_>) -> T) -> T {
    let (_dir, running, daemon) = serve();
    let committer = daemon.committer();
    let lead = lead(committer, &daemon, Kind::Quick);
    let left: Vec<_> =
        (0..by).map(|n| leave(committer.lane(Kind::Quick), a_put(&daemon, &n.to_string()), false)).collect();
    let result = then(&daemon, lead);
    let mut last = None;
    for receiver in left {
        let outcomes = receiver.blocking_recv().expect("it is answered").expect("the daemon takes writes");
        let [Ok(written)] = &outcomes[..] else { panic!("one request has one outcome: {outcomes:?}") };
        assert!(last < Some(written.seq), "they are committed in the order in which they were left");
        last = Some(written.seq);
    }
    running.stop().expect("it stops");
    result
}

#[test]
fn what_others_have_left_is_committed_together_with_the_leaders_own() {
    let (own, before, after) = left_while_led(8, |daemon, mut lead| {
        let before = daemon.store().applied();
        let own = lead.commit(a_put(daemon, "own")).expect("the daemon is not stopping");
        let after = daemon.store().applied();
        lead.answer_others();
        (own, before, after)
    });
    let [Ok(own)] = &own[..] else { panic!("one request has one outcome: {own:?}") };
    assert_eq!(own.seq.0, before.0 + 1, "the leader's own come first");
    assert_eq!(after.0, before.0 + 9, "and the others' in the same call");
}

#[test]
fn what_a_leader_leaves_undone_is_committed_all_the_same() {
    left_while_led(8, |_, lead| drop(lead));
}

#[test]
fn what_a_leader_has_that_panics_is_committed_by_the_next() {
    left_while_led(3, |_, lead| {
        let panics = || -> () {
            let _lead = lead;
            std::panic::resume_unwind(Box::new("on purpose"));
        };
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).is_err());
    });
}

#[test]
fn a_stop_waits_for_who_leads_and_for_what_was_left_to_it() {
    let (_dir, running, daemon) = serve();
    let committer = Committer::default();
    let lane = committer.lane(Kind::Patient);
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| committer.run(&daemon, Kind::Patient));
        let lead = lead(&committer, &daemon, Kind::Patient);
        let left = ["a", "b"].map(|key| leave(lane, a_put(&daemon, key), false));
        committer.close();
        let late = leave(lane, a_put(&daemon, "late"), false);
        assert!(late.blocking_recv().is_err(), "what comes after the end is refused at once");
        assert!(!thread.is_finished(), "the lane is led");
        drop(lead);
        for receiver in left {
            let outcomes = receiver.blocking_recv().expect("it is answered").expect("the daemon takes writes");
            assert!(matches!(&outcomes[..], [Ok(_)]), "{outcomes:?}");
        }
        thread.join().expect("the thread ends");
    });
    running.stop().expect("it stops");
}

#[test]
fn no_more_is_committed_in_one_call_than_it_may_take() {
    let (_dir, running, daemon) = serve();
    let committer = Committer::default();
    let lead = lead(&committer, &daemon, Kind::Quick);
    let puts = |count| (0..count).flat_map(|_| a_put(&daemon, "k")).collect();
    let _left = [(600, false), (424, false), (1, false), (1, true), (1, false), (2_000, false)]
        .map(|(count, alone)| leave(lead.lane, puts(count), alone));
    let taken = |own, bytes| lead.take(own, bytes).iter().map(|job| job.requests.len()).collect::<Vec<_>>();
    assert_eq!(taken(1_024, 0), [0; 0], "the leader's own are as many as one call takes");
    assert_eq!(taken(1, MOST_BYTES), [0; 0], "or weigh as much");
    assert_eq!(taken(0, 0), [600, 424]);
    assert_eq!(taken(0, 0), [1], "one that stands alone goes with no other");
    assert_eq!(taken(5, 0), [0; 0], "nor with the leader's own");
    assert_eq!(taken(0, 0), [1]);
    assert_eq!(taken(0, 0), [1]);
    assert_eq!(taken(0, 0), [2_000], "one that is too large for any call has one of its own");
    drop(lead);
    running.stop().expect("it stops");
}
