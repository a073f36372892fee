//! Files that are not what was flushed any more: the journal keeps what it has of their writes, a flush writes again what is
//! in memory, and nothing goes while it is the last copy.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use commonhold_proto::{Durability, Seq};

use super::rig::{DIR, Rig, file, options, pair, place};
use crate::engine::disk::{Call, Kind};
use crate::engine::{FlushHow, Repair, Settle, Surroundings, repair};

fn small() -> Rig {
    let mut rig = Rig::new(options(Durability::Synced));
    rig.options.segment_bytes = 600;
    rig.opened()
}

/// `a` has a kept generation of 5 records and a file of 10; the journal's segments still hold the later 5. Killed.
fn flushed_and_killed() -> Rig {
    let rig = small();
    for number in 0..5 {
        rig.put("a", &format!("k{number}"), "1");
    }
    rig.flush("a").unwrap();
    rig.store().tick().unwrap();
    for number in 5..10 {
        rig.put("a", &format!("k{number}"), "2");
    }
    rig.flush("a").unwrap();
    // The completion is on the platter, but nobody has let go of anything yet.
    rig.commit().unwrap();
    rig.killed_and_closed()
}

fn ten() -> Vec<(String, String)> {
    (0..10).map(|number| pair(&format!("k{number}"), if number < 5 { "1" } else { "2" })).collect()
}

fn newest_generation(rig: &Rig) -> Seq {
    let names = rig.generations("a");
    let own = names.iter().rfind(|name| !name.contains("foreign")).expect("one is kept");
    Seq(own.strip_suffix(".json").unwrap().parse().unwrap())
}

fn asides(rig: &Rig) -> Vec<String> {
    let room = Path::new(DIR).join(".commonhold/quarantine/@");
    if rig.disk.stat_of(&room).is_none() { Vec::new() } else { rig.disk.names(room) }
}

#[test]
fn a_start_keeps_the_segments_whose_writes_a_torn_file_held_and_a_repair_applies_them() {
    let bytes = flushed_and_killed().disk.read_file(file("a"));
    let torn: [Option<&[u8]>; 4] = [Some(&bytes[..bytes.len() / 2]), Some(&[]), Some(b"{}"), None];
    for found in torn {
        let mut rig = flushed_and_killed();
        let segments = rig.segments();
        match found {
            Some(bytes) => rig.disk.write_file(file("a"), bytes),
            None => rig.disk.remove_path(file("a")),
        }
        for _ in 0..3 {
            rig.try_open().unwrap();
            // Others come and go meanwhile, and the journal is looked after.
            rig.put("b", "k", "1");
            rig.flush("b").unwrap();
            rig.commit().unwrap();
            rig.store().tick().unwrap();
            assert!(segments.iter().all(|path| rig.disk.exists(path)), "{found:?}: {:?}", rig.segments());
            let held = rig.store().held();
            assert_eq!(held.len(), 1, "{held:?}");
            assert!(held[0].0 == place("a") && held[0].1.contains("kv_store_a.json"), "{held:?}");
            assert!(held[0].1.contains("commonhold check"), "it says what can be done: {held:?}");
            assert_eq!(rig.store().stats().pinned_by, [place("a")]);
            rig.close();
        }
        let number = newest_generation(&rig);
        let what = Repair::Namespace(place("a"), Settle::Generation { number, foreign: false });
        let around = Surroundings {
            disk: Arc::new(rig.disk.clone()),
            locks: Arc::new(rig.locks.clone()),
            clock: Arc::new(rig.clock.clone()),
            entropy: 42,
        };
        repair(Path::new(DIR), &what, around).unwrap();
        rig.try_open().unwrap();
        assert_eq!(rig.all("a"), ten(), "{found:?}: every acknowledged write is back");
        rig.store().tick().unwrap();
        assert_eq!(rig.store().held(), []);
        assert!(rig.segments().len() <= 3, "and the segments go: {:?}", rig.segments());
    }
}

#[test]
fn the_right_file_put_back_lets_the_segments_go() {
    let mut rig = flushed_and_killed();
    let bytes = rig.disk.read_file(file("a"));
    rig.disk.write_file(file("a"), &bytes[..7]);
    rig.try_open().unwrap();
    assert_eq!(rig.store().held().len(), 1);
    rig.close();
    rig.disk.write_file(file("a"), &bytes);
    rig.try_open().unwrap();
    assert_eq!(rig.store().held(), []);
    assert_eq!(rig.all("a"), ten());
    assert!(rig.segments().len() <= 2, "{:?}", rig.segments());
}

#[test]
fn an_earlier_file_that_the_journal_knows_gets_the_later_writes_again() {
    let mut rig = flushed_and_killed();
    let number = newest_generation(&rig);
    let kept = Path::new(DIR).join(format!(".commonhold/generations/@/a/{:020}.json", number.0));
    let bytes = rig.disk.read_file(kept);
    rig.disk.write_file(file("a"), &bytes);
    rig.try_open().unwrap();
    assert!(rig.store().held()[0].1.contains("an earlier file"), "{:?}", rig.store().held());
    assert_eq!(rig.all("a"), ten());
    rig.flush("a").unwrap();
    rig.commit().unwrap();
    rig.store().tick().unwrap();
    assert_eq!((rig.store().held(), rig.in_file("a")), (vec![], ten()));
    assert!(rig.segments().len() <= 3, "{:?}", rig.segments());
}

#[test]
fn a_namespace_that_begins_anew_because_its_file_is_gone_leaves_its_writes_aside() {
    let mut rig = flushed_and_killed();
    rig.disk.remove_path(file("a"));
    rig.try_open().unwrap();
    assert_eq!(rig.all("a"), [], "a missing file for which nothing waits is an empty namespace");
    assert_eq!((rig.store().held().len(), asides(&rig)), (1, vec![]), "reading settles nothing");
    rig.put("a", "new", "1");
    rig.store().tick().unwrap();
    assert_eq!(rig.store().held(), []);
    let aside = asides(&rig);
    assert!(aside.len() == 1 && aside[0].contains(".aside"), "{aside:?}");
    let bytes = rig.disk.read_file(Path::new(DIR).join(".commonhold/quarantine/@").join(&aside[0]));
    for number in 5..10 {
        let key = format!("k{number}");
        assert!(bytes.windows(2).any(|window| window == key.as_bytes()), "{key} is in it");
    }
    let rig = rig.killed();
    assert_eq!(rig.all("a"), [pair("new", "1")]);
}

#[test]
fn a_file_of_another_program_is_loaded_and_the_first_write_settles_it() {
    let mut rig = flushed_and_killed();
    rig.disk.write_file(file("a"), b"{\"theirs\": 1}");
    rig.try_open().unwrap();
    assert_eq!(rig.all("a"), [pair("theirs", "1")]);
    assert_eq!(rig.store().held().len(), 1);
    rig.put("a", "ours", "2");
    rig.store().tick().unwrap();
    assert_eq!((rig.store().held(), asides(&rig).len()), (vec![], 1));
    let aside = Path::new(DIR).join(".commonhold/quarantine/@").join(&asides(&rig)[0]);
    assert!(rig.disk.read_file(aside).windows(2).any(|window| window == b"k9"), "the journal's last copy is kept");
    assert!(rig.segments().len() <= 2, "{:?}", rig.segments());
    // A flush that somebody asks for settles it as well, also when the journal has outgrown its limit.
    let mut rig = flushed_and_killed();
    rig.options.journal_limit = Some(1);
    rig.disk.write_file(file("a"), b"{\"theirs\": 1}");
    rig.try_open().unwrap();
    assert_eq!(rig.store().to_relieve_the_journal(), [place("a")]);
    assert!(!rig.flush("a").unwrap().rewritten);
    rig.store().tick().unwrap();
    assert_eq!((rig.store().held(), rig.store().to_relieve_the_journal()), (vec![], vec![]));
    assert_eq!(rig.disk.read_file(file("a")), b"{\"theirs\": 1}");
    assert_eq!(asides(&rig).len(), 1);
}

#[test]
fn another_programs_file_leaves_our_writes_aside_also_while_something_else_pins_their_segment() {
    let rig = small();
    rig.put("pins", "k", "1");
    rig.put("a", "ours", "1");
    rig.flush("a").unwrap();
    rig.commit().unwrap();
    let mut rig = rig.killed_and_closed();
    rig.disk.write_file(file("a"), b"{\"theirs\": 1}");
    rig.try_open().unwrap();
    assert_eq!(rig.store().held(), [], "its segment would not go in any case");
    rig.put("a", "new", "1");
    let aside = asides(&rig);
    assert_eq!(aside.len(), 1, "{aside:?}");
    rig.flush("pins").unwrap();
    rig.commit().unwrap();
    rig.store().tick().unwrap();
    let bytes = rig.disk.read_file(Path::new(DIR).join(".commonhold/quarantine/@").join(&aside[0]));
    assert!(bytes.windows(4).any(|window| window == b"ours"), "it is in there when the segment has gone");
}

#[test]
fn a_release_while_the_store_runs_looks_at_the_files_too() {
    let rig = small();
    for number in 0..10 {
        rig.put("a", &format!("k{number}"), "1");
    }
    rig.flush("a").unwrap();
    rig.commit().unwrap();
    let (segments, expected) = (rig.segments(), rig.all("a"));
    rig.disk.truncate_file(file("a"), 11);
    rig.store().tick().unwrap();
    assert_eq!(rig.segments(), segments);
    let held = rig.store().held();
    assert!(held[0].1.contains("commonhold flush a"), "memory has it all: {held:?}");
    // It is looked at each second, but read again only when it has changed.
    let before = rig.disk.calls();
    rig.store().tick().unwrap();
    assert_eq!(rig.disk.calls().since(&before).of(Call::Open), 0);
    assert!(rig.flush("a").unwrap().rewritten);
    rig.commit().unwrap();
    rig.store().tick().unwrap();
    assert_eq!((rig.store().held(), rig.in_file("a")), (vec![], expected));
    assert!(rig.segments().len() <= 2, "{:?}", rig.segments());
}

#[test]
fn a_copy_of_the_same_file_is_as_good_as_the_file() {
    let rig = small();
    for number in 0..10 {
        rig.put("a", &format!("k{number}"), "1");
    }
    rig.flush("a").unwrap();
    rig.commit().unwrap();
    let bytes = rig.disk.read_file(file("a"));
    rig.disk.remove_path(file("a"));
    rig.disk.write_file(file("a"), &bytes);
    rig.store().tick().unwrap();
    assert_eq!(rig.store().held(), []);
    assert!(rig.segments().len() <= 2, "{:?}", rig.segments());
    rig.disk.write_file(file("a"), &bytes);
    assert!(!rig.flush("a").unwrap().rewritten, "touched and not changed");
    assert_eq!(rig.store().stats().foreign_files, 0);
}

#[test]
fn a_start_reads_no_namespace_file_but_those_whose_writes_it_lets_go_from_the_journal() {
    let opened = |rig: &mut Rig| {
        rig.disk.trace();
        rig.try_open().unwrap();
        let calls = rig.disk.take_trace();
        let is_namespace = |path: &PathBuf| path.parent() == Some(Path::new(DIR)) && path != Path::new(DIR);
        let opens = calls.into_iter().filter(|(call, path)| *call == Call::Open && is_namespace(path));
        opens.map(|(_, path)| path).collect::<Vec<_>>()
    };
    let left = || {
        let rig = small();
        rig.put("old", "k", "1");
        rig.flush("old").unwrap();
        for number in 0..10 {
            rig.put("a", &format!("k{number}"), "1");
        }
        rig.flush("a").unwrap();
        rig.store().tick().unwrap();
        rig.put("a", "k", "1");
        rig.drop_records("old").unwrap();
        rig.flush("old").unwrap();
        rig.flush("a").unwrap();
        rig.commit().unwrap();
        rig
    };
    let mut killed = left().killed_and_closed();
    assert_eq!(opened(&mut killed), [file("a")]);
    assert_eq!(killed.store().held(), []);

    let ended = left();
    ended.store().note_files();
    let mut ended = ended.killed_and_closed();
    // Segments with its writes are about to go: what was noted does not tell what the disk has done to the bytes since.
    assert_eq!(opened(&mut ended), [file("a")]);
    assert_eq!(ended.store().held(), []);
    ended.store().note_files();
    let mut ended = ended.killed_and_closed();
    assert_eq!(opened(&mut ended), Vec::<PathBuf>::new(), "and nothing waits for it any more");
    ended.put("a", "k", "2");
    ended.flush("a").unwrap();
    // The note is of an end before this one, and is not believed any more, whatever the file is like.
    let mut ended = ended.killed_and_closed();
    assert_eq!(opened(&mut ended), [file("a")]);
    ended.close();

    // What is noted is compared: a file that was changed after the end is found out.
    let ended = left();
    ended.store().note_files();
    let mut ended = ended.killed_and_closed();
    let mut bytes = ended.disk.read_file(file("a"));
    bytes[3] ^= 1;
    ended.disk.write_file(file("a"), &bytes);
    ended.try_open().unwrap();
    assert_eq!(ended.store().held().len(), 1);
}

#[test]
fn a_flush_of_a_clean_namespace_writes_a_file_again_that_is_gone_and_keeps_one_that_another_program_wrote() {
    let rig = Rig::buffered();
    rig.put("a", "k", "1");
    rig.put("w/b", "k", "1");
    rig.flush("a").unwrap();
    rig.flush("w/b").unwrap();
    assert_eq!((rig.store().to_flush(), rig.store().dirty()), (vec![], vec![]));
    rig.disk.remove_path(file("a"));
    rig.disk.write_file(file("w/b"), b"{\"theirs\": 1}");
    assert_eq!(rig.store().to_flush(), [place("a"), place("w/b")]);
    for name in ["a", "w/b"] {
        assert!(rig.flush(name).unwrap().rewritten);
        assert_eq!(rig.in_file(name), [pair("k", "1")]);
    }
    assert_eq!(rig.store().to_flush(), []);
    let room = Path::new(DIR).join(".commonhold/generations/w/w/b");
    let kept = rig.disk.names(&room).into_iter().find(|name| name.ends_with(".foreign.json")).expect("theirs is kept");
    assert_eq!(rig.disk.read_file(room.join(kept)), b"{\"theirs\": 1}");
    assert_eq!(rig.store().stats().foreign_files, 1);
    let rig = rig.killed();
    assert_eq!((rig.all("a"), rig.all("w/b")), (vec![pair("k", "1")], vec![pair("k", "1")]));
}

#[test]
fn a_namespace_that_was_only_read_is_written_again_too_and_one_that_never_was_there_is_not_put_over_a_file() {
    let mut rig = Rig::new(options(Durability::Buffered));
    rig.disk.write_file(file("read"), b"{\"k\": 1}");
    rig.try_open().unwrap();
    assert_eq!(rig.all("read"), [pair("k", "1")]);
    rig.table("blank");
    rig.disk.remove_path(file("read"));
    rig.disk.write_file(file("blank"), b"{\"theirs\": 1}");
    assert_eq!(rig.store().to_flush(), [place("read")]);
    assert!(rig.flush("read").unwrap().rewritten);
    assert!(!rig.flush("blank").unwrap().rewritten);
    assert_eq!(rig.in_file("read"), [pair("k", "1")]);
    assert_eq!(rig.disk.read_file(file("blank")), b"{\"theirs\": 1}");
    let rig = rig.killed();
    assert_eq!((rig.all("read"), rig.all("blank")), (vec![pair("k", "1")], vec![pair("theirs", "1")]));
}

#[test]
fn a_link_in_the_place_of_a_file_is_named_with_its_target_and_not_replaced() {
    let rig = Rig::buffered();
    rig.put("a", "k", "1");
    rig.flush("a").unwrap();
    rig.disk.remove_path(file("a"));
    rig.disk.write_file("/elsewhere.json", b"{}");
    rig.disk.symlink("/elsewhere.json", file("a"));
    for dirty in [false, true] {
        if dirty {
            rig.put("a", "k", "2");
        }
        assert_eq!(rig.store().to_flush(), [place("a")]);
        let error = rig.store().flush(&place("a"), FlushHow::default()).unwrap_err().to_string();
        assert!(error.contains("symbolic link to /elsewhere.json"), "{error}");
        assert_eq!(rig.disk.stat_of(file("a")).unwrap().kind, Kind::Link);
    }
}

#[test]
fn a_file_that_the_disk_has_changed_after_a_clean_end_holds_the_segments_with_its_writes() {
    let rig = small();
    for number in 0..10 {
        rig.put("a", &format!("k{number}"), "1");
    }
    rig.flush("a").unwrap();
    rig.commit().unwrap();
    rig.store().note_files();
    let mut rig = rig.killed_and_closed();
    let segments = rig.segments();
    rig.disk.flip_bit(file("a"), 9, 0);
    rig.try_open().unwrap();
    assert!(segments.iter().all(|path| rig.disk.exists(path)), "{:?}", rig.segments());
    let held = rig.store().held();
    assert!(held.len() == 1 && held[0].1.contains("is not what was flushed"), "{held:?}");
}

#[test]
fn what_is_missing_is_not_called_an_earlier_file_and_the_way_out_names_the_workspace() {
    let rig = small();
    rig.put("w/a", "k", "1");
    rig.drop_records("w/a").unwrap();
    rig.flush("w/a").unwrap();
    for number in 0..10 {
        rig.put("w/a", &format!("k{number}"), "1");
    }
    rig.flush("w/a").unwrap();
    rig.commit().unwrap();
    rig.disk.remove_path(file("w/a"));
    rig.store().tick().unwrap();
    let held = rig.store().held();
    assert!(held[0].1.contains("is missing") && !held[0].1.contains("earlier"), "{held:?}");
    assert!(held[0].1.contains("`commonhold --workspace w flush a`"), "{held:?}");
}
