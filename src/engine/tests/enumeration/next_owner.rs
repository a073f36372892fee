//! The next owner: opens what a crash or a failing disk has left, finds what must be there, and goes on.

use std::sync::Arc;

use commonhold_proto::Seq;

use super::super::model::{Op, Wish};
use super::super::rig::{Rig, file, place};
use super::oracle::{Foreign, Known, ONE, OTHER, found, found_journal};
use super::run::{Moment, write};
use crate::engine::disk::SimDisk;
use crate::engine::{FlushHow, StoreOptions};

/// Opens what a crash has left, checks it, uses it, and gives the moments of the opening.
pub(in crate::engine::tests) fn recover(
    disk: &SimDisk,
    known: &Arc<Known>,
    floor: usize,
    options: &StoreOptions,
) -> Vec<Moment> {
    known.check_files(disk);
    let mut rig = Rig::on(disk.clone(), options.clone());
    rig.disk.film();
    rig.try_open().unwrap_or_else(|error| panic!("the store does not open after a crash: {error:?}"));
    let what = found(&rig).expect("both namespaces load or are closed");
    found_journal(&rig, &what);
    let frames = rig.disk.take_film();
    // Until the opening is through, nobody was promised more than before.
    let meanwhile = Arc::new(Known { written: floor, platter: floor.min(known.platter), ..(**known).clone() });
    let mut after = (**known).clone();
    after.survived(&what, floor);
    let mut moments: Vec<Moment> =
        frames.into_iter().map(|frame| Moment { disk: frame.disk, known: Arc::clone(&meanwhile) }).collect();
    let after = Arc::new(after);
    moments.push(Moment { disk: rig.disk.kill(), known: Arc::clone(&after) });
    after.check_files(&rig.disk);
    if what.one.is_none() {
        rig.close();
        rig = heal(rig, known, floor, after.foreign.as_ref().expect("a closed namespace has another program's file"));
    }
    go_on(rig, after.greatest);
    moments
}

/// Puts the file back that the store knows: then everything must be there.
fn heal(rig: Rig, known: &Known, floor: usize, foreign: &Foreign) -> Rig {
    match &foreign.right {
        Some(right) => rig.disk.write_file(file(ONE), right),
        None => rig.disk.remove_path(file(ONE)),
    }
    let rig = rig.opened();
    let what = found(&rig).expect("both namespaces load or are closed");
    found_journal(&rig, &what);
    let mut known = Known { foreign: None, ..known.clone() };
    assert!(what.one.is_some(), "closed with the right file: {:?}", rig.store().opening().closed);
    known.survived(&what, floor);
    rig
}

/// The number of a request that is made later than any of a workload.
const LATER: u64 = 1_000_000;

/// Writes to both namespaces and flushes; what the owner after that finds is what was written, in journal and files.
fn go_on(rig: Rig, greatest: Seq) {
    assert!(rig.store().opening().last >= greatest, "Seqs were forgotten");
    let put = |name| Op::Put(name, "last".to_owned(), "{\"last\":1}".to_owned(), Wish::Always);
    let written = write(&rig, LATER, &[put(ONE), put(OTHER)]).expect("the next owner can write");
    assert!(written.seq > greatest, "a Seq was given twice");
    for name in [ONE, OTHER] {
        rig.store().flush(&place(name), FlushHow::default()).expect("the next owner can flush");
        assert_eq!(rig.in_file(name), rig.all(name), "the file is the state at the cut");
    }
    let expected = found(&rig).expect("both namespaces load or are closed");
    let rig = rig.killed();
    let what = found(&rig).expect("both namespaces load or are closed");
    found_journal(&rig, &what);
    assert_eq!((&what.one, &what.other), (&expected.one, &expected.other), "the owner after that finds something else");
    assert!(rig.store().opening().recovered.is_empty(), "the files hold everything");
}
