//! Journals cut at every byte and flipped at every bit. The rule (`journal/chain.rs`): what lies after the last good
//! record is damage if anything valid after it says that more had been synced, and else an interrupted write. So the
//! last synced group can be lost to a flipped bit, is set aside and reported; nothing before it ever is.

use std::path::Path;

use commonhold_proto::{Durability, Seq};

use super::rig::{DIR, Rig, options};
use crate::engine::Error;

type Records = Vec<(String, String)>;

/// A closed store after synced writes, and its state before and after each of them.
struct Written {
    rig: Rig,
    states: Vec<Records>,
}

/// Every write is a synced group of its own: a put of a new key.
fn written(segment_bytes: u64, writes: usize) -> Written {
    let mut rig = Rig::new(super::rig::options(Durability::Synced));
    rig.options.segment_bytes = segment_bytes;
    rig.try_open().unwrap();
    let mut states = vec![Vec::new()];
    for number in 0..writes {
        rig.put("a", &format!("k{number}"), &number.to_string());
        states.push(rig.all("a"));
    }
    Written { rig: rig.killed_and_closed(), states }
}

impl Written {
    /// A store of its own with the same content, after `change`.
    fn changed(&self, change: impl FnOnce(&Rig)) -> Rig {
        let rig = Rig::on(self.rig.disk.kill(), self.rig.options.clone());
        change(&rig);
        rig
    }

    fn state_of(&self, rig: &Rig) -> Option<usize> {
        let found = rig.all("a");
        self.states.iter().position(|state| *state == found)
    }

    /// It must not open, and nothing may be changed by the try.
    fn refuses_as_damage(mut rig: Rig, what: &str) {
        let before = rig.files();
        match rig.refused() {
            Error::Damage { file, .. } => assert!(file.starts_with(DIR), "{what}"),
            other => panic!("{what}: {other:?}"),
        }
        assert!(rig.files() == before, "{what}: a store that does not open is not changed");
    }

    /// Where each record of a segment begins, by the lengths in the records, and where the last one ends.
    fn borders(&self, segment: &Path) -> Vec<usize> {
        let bytes = self.rig.disk.read_file(segment);
        let length = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        let mut borders = vec![length(12)];
        while let Some(at) = borders.last().copied().filter(|at| *at < bytes.len()) {
            borders.push(at + length(at).next_multiple_of(8));
        }
        borders
    }
}

#[test]
fn a_journal_cut_at_any_byte_gives_a_prefix_of_the_writes_and_says_what_was_cut_off() {
    for (segment_bytes, segments) in [(1 << 20, 1), (400, 3)] {
        let store = written(segment_bytes, 6);
        let paths = store.rig.segments();
        assert!(paths.len() >= segments, "{paths:?}");
        let last = paths.last().unwrap();
        let borders = store.borders(last);
        let length = store.rig.disk.read_file(last).len();
        let mut greatest = 0;
        for cut in 0..length {
            let mut rig = store.changed(|rig| rig.disk.truncate_file(last, cut as u64));
            if paths.len() == 1 && cut < borders[0] {
                // The first header was synced before the store was first opened.
                Written::refuses_as_damage(rig, &format!("cut at {cut}"));
                continue;
            }
            rig.try_open().unwrap();
            let state = store.state_of(&rig).unwrap_or_else(|| panic!("cut at {cut} gave {:?}", rig.all("a")));
            assert!(state >= greatest, "more bytes give no fewer writes");
            greatest = state;
            let set_aside = rig.store().opening().set_aside.clone();
            let on_a_border = borders.contains(&cut);
            assert_eq!(set_aside.is_none(), on_a_border, "cut at {cut}, borders {borders:?}");
            if let Some(tail) = set_aside {
                let start = borders.iter().rfind(|border| **border <= cut).map_or(0, |border| *border);
                assert_eq!((&tail.segment, tail.bytes), (last, (cut - start) as u64), "cut at {cut}");
                let aside = Path::new(DIR).join(".commonhold/journal/aside");
                let kept: Vec<_> = rig.disk.names(&aside).into_iter().map(|name| aside.join(name)).collect();
                assert_eq!(kept.len(), 1, "{kept:?}");
                assert_eq!(rig.disk.read_file(&kept[0]), store.rig.disk.read_file(last)[start..cut]);
            }
            // And what was cut off does not come back, nor does what is written now get lost.
            rig.put("a", "new", "1");
            let rig = rig.killed();
            assert_eq!(rig.all("a").len(), store.states[state].len() + 1);
        }
        assert_eq!(greatest, 5, "only the last record was lost at the last cut");
    }
}

#[test]
fn a_segment_cut_before_the_last_one_is_damage() {
    let store = written(400, 8);
    let paths = store.rig.segments();
    for path in &paths[..paths.len() - 2] {
        for cut in 0..store.rig.disk.read_file(path).len() {
            let rig = store.changed(|rig| rig.disk.truncate_file(path, cut as u64));
            Written::refuses_as_damage(rig, &format!("{} cut at {cut}", path.display()));
        }
    }
}

#[test]
fn a_flipped_bit_is_damage_unless_it_is_in_the_last_synced_group() {
    for (segment_bytes, writes) in [(1 << 20, 4), (400, 6)] {
        let store = written(segment_bytes, writes);
        let paths = store.rig.segments();
        for (index, path) in paths.iter().enumerate() {
            let borders = store.borders(path);
            let length = store.rig.disk.read_file(path).len();
            let is_last = index + 1 == paths.len();
            // The last synced group: the last record, with the segment's header if that record is its only one.
            let group = if borders.len() > 2 { borders[borders.len() - 2] } else { 0 };
            for bit in 0..length * 8 {
                let mut rig = store.changed(|rig| rig.disk.flip_bit(path, bit as u64 / 8, (bit % 8) as u8));
                let what = format!("bit {bit} (byte {}) of {}, records at {borders:?}", bit / 8, path.display());
                if !is_last || bit / 8 < group {
                    Written::refuses_as_damage(rig, &what);
                    continue;
                }
                rig.try_open().unwrap_or_else(|error| panic!("{what}: {error:?}"));
                assert_eq!(store.state_of(&rig), Some(writes - 1), "{what}");
                assert!(rig.store().opening().set_aside.is_some(), "{what}");
            }
        }
    }
}

#[test]
fn a_flip_before_a_restart_is_damage_or_lies_in_what_the_restart_copied() {
    let first = written(1 << 20, 3);
    let rig = Rig::on(first.rig.disk.kill(), first.rig.options.clone()).opened();
    let mut states = first.states.clone();
    for number in 0..3 {
        rig.put("a", &format!("l{number}"), "1");
        states.push(rig.all("a"));
    }
    let store = Written { rig: rig.killed_and_closed(), states };
    let paths = store.rig.segments();
    assert_eq!(paths.len(), 2);
    // The old segment counts only through its last record but one: the last was copied into the new segment.
    let old = store.borders(&paths[0]);
    let counts = old[old.len() - 2];
    for bit in 0..store.rig.disk.read_file(&paths[0]).len() * 8 {
        let mut rig = store.changed(|rig| rig.disk.flip_bit(&paths[0], bit as u64 / 8, (bit % 8) as u8));
        let what = format!("bit {bit} (byte {}) of the old segment, records at {old:?}", bit / 8);
        if bit / 8 < counts {
            Written::refuses_as_damage(rig, &what);
        } else {
            rig.try_open().unwrap_or_else(|error| panic!("{what}: {error:?}"));
            assert_eq!(store.state_of(&rig), Some(6), "{what}: that copy is not read any more");
            assert_eq!(rig.store().opening().set_aside, None, "{what}");
        }
    }
    let new = store.borders(&paths[1]);
    let group = new[new.len() - 2];
    for bit in 0..group * 8 {
        let rig = store.changed(|rig| rig.disk.flip_bit(&paths[1], bit as u64 / 8, (bit % 8) as u8));
        Written::refuses_as_damage(rig, &format!("bit {bit} of the new segment"));
    }
}

#[test]
fn a_flip_in_a_group_of_several_writes_takes_no_write_of_an_earlier_group() {
    for (segment_bytes, unsynced_writes) in [(1 << 20, 0), (1 << 20, 2), (500, 0), (500, 2)] {
        let mut rig = Rig::new(options(Durability::Buffered));
        rig.options.segment_bytes = segment_bytes;
        rig.try_open().unwrap();
        let mut states = vec![Vec::new()];
        let mut put = |rig: &Rig| {
            rig.put("a", &format!("k{}", states.len()), "1");
            states.push(rig.all("a"));
        };
        for _ in 0..3 {
            (0..3).for_each(|_| put(&rig));
            rig.commit().unwrap();
        }
        (0..unsynced_writes).for_each(|_| put(&rig));
        // A record that was written after the last sync tells of it, so only what is behind it may be lost.
        let kept = if unsynced_writes > 0 { 9 } else { 6 };
        let store = Written { rig: rig.killed_and_closed(), states };
        let (mut damaged, mut set_aside) = (0, 0);
        for path in store.rig.segments() {
            for bit in 0..store.rig.disk.read_file(&path).len() * 8 {
                let mut rig = store.changed(|rig| rig.disk.flip_bit(&path, bit as u64 / 8, (bit % 8) as u8));
                let what = format!("bit {bit} (byte {}) of {}", bit / 8, path.display());
                let before = rig.files();
                match rig.try_open() {
                    Ok(()) => {
                        let state = store.state_of(&rig).unwrap_or_else(|| panic!("{what}: {:?}", rig.all("a")));
                        assert!((kept..store.states.len() - 1).contains(&state), "{what}: only {state} writes");
                        assert!(rig.store().opening().set_aside.is_some(), "{what}");
                        set_aside += 1;
                    }
                    Err(Error::Damage { .. }) => {
                        assert!(rig.files() == before, "{what}: a store that does not open is not changed");
                        damaged += 1;
                    }
                    Err(other) => panic!("{what}: {other:?}"),
                }
            }
        }
        assert!(damaged > set_aside && set_aside > 0, "{damaged} and {set_aside}");
    }
}

#[test]
fn what_flushes_wrote_to_the_journal_is_held_to_the_same_rule() {
    let rig = Rig::synced();
    rig.put("a", "k", "1");
    rig.flush("a").unwrap();
    rig.put("a", "k", "2");
    rig.put("a", "l", "3");
    let rig = rig.killed_and_closed();
    let store = Written { rig, states: Vec::new() };
    let path = store.rig.segments().pop().unwrap();
    let borders = store.borders(&path);
    assert!(borders.len() >= 6, "loaded, write, intent, done, write, write: {borders:?}");
    let last = borders[borders.len() - 2];
    for bit in 0..last * 8 {
        let rig = store.changed(|rig| rig.disk.flip_bit(&path, bit as u64 / 8, (bit % 8) as u8));
        Written::refuses_as_damage(rig, &format!("bit {bit} (byte {}), records at {borders:?}", bit / 8));
    }
}

#[test]
fn a_lost_segment_in_the_middle_is_damage() {
    let store = written(400, 8);
    let paths = store.rig.segments();
    for path in &paths[1..paths.len() - 1] {
        let mut rig = store.changed(|rig| rig.disk.remove_path(path));
        let before = rig.files();
        let outcome = rig.try_open();
        if outcome.is_ok() {
            // A segment that is gone may have been released; but then nothing waits for it.
            assert!(rig.store().namespace(&super::rig::place("a")).is_err(), "{} is gone unnoticed", path.display());
        } else {
            assert!(rig.files() == before, "a store that does not open is not changed");
        }
    }
}

#[test]
fn a_journal_of_a_newer_format_is_refused_untouched() {
    let store = written(1 << 20, 2);
    let path = store.rig.segments().pop().unwrap();
    let mut rig = store.changed(|rig| {
        let mut bytes = rig.disk.read_file(&path);
        bytes[8..12].copy_from_slice(&3_u32.to_le_bytes());
        let length = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
        let crc = crc32fast::hash(&bytes[..length - 8]);
        bytes[length - 8..length - 4].copy_from_slice(&crc.to_le_bytes());
        rig.disk.write_file(&path, &bytes);
        rig.disk.write_file(Path::new(DIR).join(".commonhold/journal/00000002.log.new"), b"unfinished");
    });
    let before = rig.files();
    assert!(matches!(rig.refused(), Error::NewerFormat { version: 3, known: 2, .. }));
    assert!(rig.files() == before);
}

#[test]
fn seqs_are_not_given_again_after_a_damaged_last_header() {
    let mut rig = Rig::new(options(Durability::Synced)).opened();
    rig.put("a", "k", "1");
    let mut greatest = Seq::ZERO;
    for _ in 0..3 {
        rig = rig.killed();
        // A namespace file that is loaded gets a Seq too, and clients may have seen it.
        greatest = greatest.max(rig.put("a", "k", "2"));
        rig = rig.killed_and_closed();
        let last = rig.segments().pop().unwrap();
        rig.disk.flip_bit(&last, 20, 1);
        rig.try_open().unwrap();
        let next = rig.put("a", "k", "3");
        assert!(next > greatest, "{next} was given before, up to {greatest}");
        greatest = next;
    }
}
