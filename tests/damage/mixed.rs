//! Two stores mixed: by a backup put back in the wrong place, or a copy that went into the wrong directory.

use std::fs;

use super::{both, checked, copy_tree, ended, killed, kinds, other, private, segments, warnings};

#[test]
fn segments_of_another_store_are_named_and_taking_them_away_gives_everything() {
    let (ours, theirs) = (killed("1"), killed("9"));
    // Theirs are newer than all of ours: a start must not take them for the end of the journal.
    for _ in 0..3 {
        theirs.serve().kill();
    }
    let theirs = segments(&theirs).pop().expect("a segment");
    let guest = private(&ours, "journal").join(theirs.file_name().expect("a name"));
    assert!(!guest.exists(), "{guest:?}");
    fs::copy(&theirs, &guest).expect("copied");
    let name = guest.file_name().expect("a name").to_str().expect("UTF-8");
    ours.run(&["serve"]).refused(5, &[name, "another store", "put each where it belongs"]);
    let (code, findings) = checked(&ours);
    assert_eq!((code, kinds(&findings)[0]), (5, "journal_damage"), "{findings:#?}");
    fs::remove_file(guest).expect("taken away");
    let daemon = ours.serve();
    assert_eq!((ours.ok(&["scan", "n"]), ours.ok(&["scan", "other"])), (both("1"), other("1")));
    daemon.stop();
}

#[test]
fn a_segment_that_another_stores_has_replaced_is_named_and_the_cut_tells_what_it_loses() {
    let (ours, theirs) = (killed("1"), killed("9"));
    ours.serve().kill();
    let newest = segments(&ours).pop().expect("a segment");
    theirs.serve().kill();
    fs::copy(segments(&theirs).pop().expect("a segment"), &newest).expect("copied");
    let name = newest.file_name().expect("a name").to_str().expect("UTF-8");
    ours.run(&["serve"]).refused(5, &[name, "another store"]);
    let told = ours.ok(&["repair", "--cut-journal"]);
    assert!(told.contains("mind:"), "{told}");
    ours.ok(&["repair", "--cut-journal", "--yes"]);
    let (_, findings) = checked(&ours);
    assert!(!kinds(&findings).contains(&"journal_damage"), "{findings:#?}");
    ours.serve().stop();
}

#[test]
fn another_stores_file_closes_a_namespace_that_waits_and_is_told_of_one_that_does_not() {
    let (ours, theirs) = (killed("1"), ended("9"));
    let right = fs::read(ours.file("n")).expect("a file");
    fs::copy(theirs.file("n"), ours.file("n")).expect("copied");
    let (code, findings) = checked(&ours);
    assert_eq!((code, kinds(&findings)[0]), (5, "other_file"));
    let daemon = ours.serve();
    ours.run(&["scan", "n"]).refused(5, &["not the one that the journal's records for it belong to"]);
    assert_eq!(ours.ok(&["scan", "other"]), other("1"), "the others are served");
    daemon.stop();
    fs::write(ours.file("n"), right).expect("put back");
    let daemon = ours.serve();
    assert_eq!(ours.ok(&["scan", "n"]), both("1"));
    daemon.stop();

    fs::copy(theirs.file("n"), ours.file("n")).expect("copied");
    let (code, findings) = checked(&ours);
    assert_eq!((code, kinds(&findings)[0]), (0, "foreign_file"), "{findings:#?}");
    let daemon = ours.serve();
    assert_eq!(ours.ok(&["scan", "n"]), both("9"));
    let told = warnings(&ours);
    assert!(told.contains("namespace n") && told.contains("taken as found"), "{told}");
    daemon.stop();
}

#[test]
fn the_private_directory_of_another_store_closes_what_waits_in_it_and_takes_the_rest_as_found() {
    let (ours, theirs) = (ended("1"), killed("9"));
    fs::remove_dir_all(private(&ours, "")).expect("taken away");
    copy_tree(&private(&theirs, ""), &private(&ours, ""));
    let (code, findings) = checked(&ours);
    assert_eq!(code, 5);
    assert!(kinds(&findings).iter().all(|kind| ["other_file", "foreign_generation"].contains(kind)), "{findings:#?}");
    let daemon = ours.serve();
    for name in ["n", "other"] {
        ours.run(&["scan", name]).refused(5, &["not the one"]);
    }
    daemon.stop();
    assert!(fs::read_to_string(ours.file("n")).expect("a file").contains("\"b\":1"), "our file is as it was");
}
