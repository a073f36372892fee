//! The stores that are struck: small ones that have been lived in, with everything that a store can have on its disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use commonhold_proto::{Condition, Durability, Seq};

use super::super::rig::{DIR, Rig, file, options};
use crate::engine::StoreOptions;
use crate::engine::disk::SimDisk;

pub(super) type Records = Vec<(String, String)>;

/// Every namespace that any of the stores has.
pub(super) const NAMES: [&str; 5] = ["a", "b", "d", "gone", "w/c"];

/// A store that nobody has open.
pub(super) struct Lived {
    pub(super) name: &'static str,
    pub(super) disk: SimDisk,
    pub(super) options: StoreOptions,
    /// What was acknowledged, all of it at least as durable as a kill asks for.
    pub(super) last: BTreeMap<&'static str, Records>,
    /// What each namespace held at some time.
    pub(super) seen: BTreeMap<&'static str, Vec<Records>>,
    /// The greatest Seq that was answered.
    pub(super) greatest: Seq,
    /// The same store at an earlier moment.
    pub(super) earlier: SimDisk,
    /// Another store with the same names.
    pub(super) stranger: SimDisk,
}

pub(super) fn private(name: &str) -> PathBuf {
    Path::new(DIR).join(".commonhold").join(name)
}

/// A store that is being lived in.
struct Life {
    rig: Rig,
    last: BTreeMap<&'static str, Records>,
    seen: BTreeMap<&'static str, Vec<Records>>,
    greatest: Seq,
    earlier: Option<SimDisk>,
}

impl Life {
    fn begin(durability: Durability, segment_bytes: u64, entropy: u128) -> Self {
        let mut rig = Rig::new(options(durability));
        (rig.options.segment_bytes, rig.entropy) = (segment_bytes, entropy);
        rig.try_open().unwrap();
        // Locks are simulated here, but a start asks the file who was here before.
        rig.disk.write_file(private("owner.lock"), b"{\"pid\":4242,\"since_unix_ms\":1700000000000}");
        let empty = |name| (name, Vec::new());
        let (last, seen) = (NAMES.map(empty).into(), NAMES.map(|name| (name, vec![Vec::new()])).into());
        Self { rig, last, seen, greatest: Seq::ZERO, earlier: None }
    }

    fn note(&mut self, name: &'static str, seq: Seq) {
        self.greatest = self.greatest.max(seq);
        let records = self.rig.all(name);
        self.last.insert(name, records.clone());
        self.seen.get_mut(name).unwrap().push(records);
    }

    fn put(&mut self, name: &'static str, key: &str, value: &str) {
        let seq = self.rig.put(name, key, value);
        self.note(name, seq);
    }

    /// One request over two namespaces.
    fn put_both(&mut self, names: [&'static str; 2], key: &str, value: &str) {
        let written = self.rig.write(|request, table| {
            for name in names {
                request.put(&table(name), key, value, Condition::Always).unwrap();
            }
        });
        let seq = written.unwrap().seq;
        for name in names {
            self.note(name, seq);
        }
    }

    fn delete(&mut self, name: &'static str, key: &str) {
        let seq = self.rig.delete(name, key).seq;
        self.note(name, seq);
    }

    fn drop(&mut self, name: &'static str) {
        let seq = self.rig.drop_records(name).unwrap().seq;
        self.note(name, seq);
    }

    fn flush(&self, name: &str) {
        self.rig.flush(name).unwrap();
    }

    fn second(&self) {
        self.rig.store().tick().unwrap();
    }

    /// What is there now is what an earlier copy has.
    fn is_copied(&mut self) {
        self.rig.commit().unwrap();
        self.earlier = Some(self.rig.disk.kill());
    }

    fn kill(self) -> Self {
        let entropy = self.rig.entropy;
        let mut rig = self.rig.killed_and_closed();
        rig.entropy = entropy;
        Self { rig, ..self }
    }

    fn open(mut self) -> Self {
        self.rig.try_open().unwrap();
        self
    }

    fn ends(mut self, name: &'static str, stranger: &SimDisk) -> Lived {
        self.rig.close();
        Lived {
            name,
            disk: self.rig.disk.kill(),
            options: self.rig.options.clone(),
            last: self.last,
            seen: self.seen,
            greatest: self.greatest,
            earlier: self.earlier.unwrap_or_else(|| self.rig.disk.kill()),
            stranger: stranger.clone(),
        }
    }

    /// Files, kept files, one dropped namespace, and writes of which a flush has taken a part.
    fn youth(mut self, value: &str) -> Self {
        self.put("gone", "k", value);
        self.flush("gone");
        for number in 0..3 {
            self.put("a", &format!("k{number}"), value);
        }
        self.flush("a");
        self.put("d", "k", value);
        self.flush("d");
        self.drop("gone");
        self.flush("gone");
        self.second();
        self.put("a", "k3", value);
        self.put_both(["a", "w/c"], "both", value);
        self.flush("a");
        self.flush("w/c");
        self.put("b", "pins", value);
        self.is_copied();
        self
    }

    fn age(mut self) -> Self {
        self.put("a", "k2", "2");
        self.delete("a", "k0");
        self.put_both(["w/c", "b"], "both", "2");
        self.put("a", "k4", "[2]");
        self
    }
}

/// Killed with writes that no file has.
fn waiting(stranger: &SimDisk) -> Lived {
    let life = Life::begin(Durability::Synced, 1_500, 42).youth("1").age();
    life.kill().ends("waiting", stranger)
}

/// Ended in order: every file has all, and it is noted how they were left.
fn ended(stranger: &SimDisk) -> Lived {
    let mut life = Life::begin(Durability::Buffered, 1_400, 43).youth("1").kill().open().age();
    life.put("w/c", "last", "1");
    for name in ["a", "b", "w/c"] {
        life.flush(name);
    }
    life.second();
    life.rig.store().note_files();
    life.ends("ended", stranger)
}

/// Every file has all, and the owner was killed before it had noted or let go of anything.
fn flushed(stranger: &SimDisk) -> Lived {
    let life = Life::begin(Durability::Synced, 1_600, 44).youth("1").age();
    for name in ["a", "b", "w/c"] {
        life.flush(name);
    }
    life.rig.commit().unwrap();
    life.kill().ends("flushed", stranger)
}

/// The waiting writes of one namespace lie outside the journal, and its file is the right one again.
fn quarantined(stranger: &SimDisk) -> Lived {
    let life = Life::begin(Durability::Synced, 1_500, 45).youth("1").age().kill();
    let right = life.rig.disk.read_file(file("a"));
    life.rig.disk.write_file(file("a"), b"{\n\"k0\":1,\n\"k");
    let mut life = life.open();
    life.put("b", "k", "6");
    life.flush("b");
    life.second();
    life.second();
    let life = life.kill();
    life.rig.disk.write_file(file("a"), &right);
    let mut life = life.open();
    life.put("a", "newer", "1");
    life.kill().ends("quarantined", stranger)
}

/// Killed twice, with a tail set aside and another program's file kept.
fn restarted(stranger: &SimDisk) -> Lived {
    let mut life = Life::begin(Durability::Buffered, 1_600, 46).youth("1");
    life.rig.disk.write_file(file("d"), b"{\"theirs\": 1}");
    life.put("d", "ours", "2");
    life.flush("d");
    let life = life.kill();
    let newest = life.rig.segments().pop().unwrap();
    let mut bytes = life.rig.disk.read_file(&newest);
    bytes.extend_from_slice(b"half of a record that was never whole");
    life.rig.disk.write_file(&newest, &bytes);
    let mut life = life.open().age();
    life.rig.commit().unwrap();
    life.put("b", "unsynced", "1");
    life.kill().open().kill().ends("restarted", stranger)
}

/// Killed with everything in one segment and no file kept: the journal reaches back to when all was empty.
fn beginning(stranger: &SimDisk) -> Lived {
    let mut life = Life::begin(Durability::Synced, 1 << 20, 47);
    life.rig.close();
    life.rig.options.keep = 0;
    life = life.open();
    for (name, value) in [("a", "1"), ("b", "1"), ("w/c", "1")] {
        life.put(name, "k0", value);
        life.put(name, "k1", value);
    }
    for name in ["a", "b", "w/c"] {
        life.flush(name);
    }
    life.is_copied();
    life.delete("a", "k0");
    life.put("a", "k2", "2");
    life.flush("a");
    life.put("b", "waits", "2");
    life.kill().ends("beginning", stranger)
}

/// An older file was put back under an owner that had not loaded the namespace, and that ended in order.
fn put_back(stranger: &SimDisk) -> Lived {
    let mut life = Life::begin(Durability::Synced, 1 << 20, 48);
    life.put("a", "k0", "1");
    life.flush("a");
    let older = life.rig.disk.read_file(file("a"));
    life.put("a", "k0", "2");
    life.flush("a");
    life.put("b", "pins", "1");
    let life = life.kill();
    let newer = life.rig.disk.read_file(file("a"));
    life.rig.disk.write_file(file("a"), &older);
    let mut life = life.open();
    life.second();
    life.flush("b");
    life.rig.store().note_files();
    life.rig.disk.write_file(file("a"), &newer);
    life.is_copied();
    life.ends("put_back", stranger)
}

/// All of them. Another store, of which parts are mixed in, has the same namespaces and other records.
pub(super) fn all() -> Vec<Lived> {
    let mut other = Life::begin(Durability::Synced, 900, 99).youth("9");
    other.put("a", "stranger", "9");
    other.put("d", "stranger", "9");
    let stranger = other.kill().rig.disk.kill();
    let lives = [waiting, ended, flushed, quarantined, restarted, beginning, put_back];
    lives.map(|life| life(&stranger)).into()
}
